"""Finalists measured again, in an order that lets no drift favour one of them."""
