"""When to end: limits of a study, what the next trial may cost, what the rest may still gain, trainings that cannot win."""
