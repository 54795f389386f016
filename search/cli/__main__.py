"""``python -m joulefront.search.cli`` is the command ``joulefront``."""

from . import main

main()
