"""Tasks, recipes and the training loop; importing this package imports no PyTorch (``fit.py`` and the loaders do)."""
