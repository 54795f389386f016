"""The meters: each file reads one kind of device or library as a ``Source``."""
