"""When to end: limits of a study, its projected cost, the gain that is left, trainings that are dominated."""
