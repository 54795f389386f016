"""The acceptance run on one real GPU; README.md says how to run it and what each bar is."""
