"""Bundled studies: one file, one recipe, one function ``study() -> Study``."""
