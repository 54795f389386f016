"""The energy of computations: one ledger per machine, windows as questions to it, uncertainty and quality with every number.

>>> from joulefront.search.energy import Ledger, discover, measure
>>> total, record = measure(lambda: sum(range(3_000_000)))
>>> total
4499998500000
>>> print(f"energy: {record.joules:.3g} J ± {2 * record.u_random_joules:.2g} J, {record.quality}")  # doctest: +ELLIPSIS
energy: ... J ± ... J, ...

``record.joules`` is None where it is not known, never zero; ``record.u_random_joules`` and ``record.u_systematic_joules`` are standard
uncertainties, the second one common to all windows of a meter. This package stands alone: it imports nothing of the rest of joulefront.
"""

from __future__ import annotations

from .calibrations import with_wall
from .discover import Discovery, discover
from .ledger import Ledger
from .measure import measure
from .record import Component, Record, add
from .sources.source import JOULES_PER_KWH, JOULES_PER_WH, SECONDS_PER_HOUR, Capability, Quality, Reading, Source
from .windows import Window

__all__ = [
    "JOULES_PER_KWH",
    "JOULES_PER_WH",
    "SECONDS_PER_HOUR",
    "Capability",
    "Component",
    "Discovery",
    "Ledger",
    "Quality",
    "Reading",
    "Record",
    "Source",
    "Window",
    "add",
    "discover",
    "measure",
    "with_wall",
]
