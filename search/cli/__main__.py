"""``python -m joulefront.search.cli`` is the command ``joulefront``."""

from . import main

if __name__ == "__main__":
    main()
