"""What a study will cost, from a few metered steps, before anything is trained."""
