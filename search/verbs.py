"""The path of `find_study` in model cards that were written before it was a public name of ``joulefront.search``.

Such a card says ``from joulefront.search.verbs.catalog import find_study``. This module registers ``verbs.catalog`` as ``os`` registers
``os.path``; new code imports the public name.
"""

import sys

from .cli import study_source as catalog

sys.modules[f"{__name__}.catalog"] = catalog
