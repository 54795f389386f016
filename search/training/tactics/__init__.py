"""Searchable training tactics, all off unless a recipe names them."""
