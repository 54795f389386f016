"""The energy of computations: one ledger per machine, windows as questions to it, uncertainty and quality with every number.

>>> from joulefront.search.energy import Ledger, discover
>>> found = discover("auto")
>>> with Ledger(found.sources, absent=found.absent) as ledger:
...     with ledger.window("sum", kind="trial") as window:
...         _ = sum(range(100_000))
>>> window.record.quality in ("measured", "estimated", "mixed", "absent")
True

This package stands alone: it imports nothing of the rest of joulefront.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .discover import Discovery, discover
from .ledger import Ledger
from .record import Component, Record, add
from .source import Capability, Quality, Reading, Source
from .window import Window

if TYPE_CHECKING:
    from .carbon import Intensity, grams_co2e, intensity_for

__all__ = [
    "Capability",
    "Component",
    "Discovery",
    "Intensity",
    "Ledger",
    "Quality",
    "Reading",
    "Record",
    "Source",
    "Window",
    "add",
    "discover",
    "grams_co2e",
    "intensity_for",
]

_CARBON = frozenset({"Intensity", "intensity_for", "grams_co2e"})


def __getattr__(name: str) -> Any:
    """Import the carbon tables only when they are asked for."""
    if name in _CARBON:
        from . import carbon

        return getattr(carbon, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
