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

from collections.abc import Callable
from inspect import isasyncgenfunction, iscoroutine, iscoroutinefunction, isgeneratorfunction
from typing import TypeVar

from .calibrations import with_wall
from .discover import Discovery, discover
from .ledger import Ledger
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

Result = TypeVar("Result")
LAZY = "function must do its work when called, got {!r}, whose work comes later; give `lambda: asyncio.run(f())`, or `lambda: list(f())`"


def measure(
    function: Callable[[], Result],
    meter: str | Discovery = "auto",
    *,
    name: str | None = None,
    synchronize: Callable[[], object] | None = None,
) -> tuple[Result, Record]:
    """Call a function once and return its result and the record of its energy.

    The record is final: the meters' next refresh after the end is waited for, which takes about 0.1 s. Several functions, nested
    windows and a file on disk are what a ``Ledger`` is for.

    Args:
        function: What to measure; ``lambda: train(model)`` where it needs arguments.
        meter: As for ``discover``, or what it found; its sources are released at the end.
        name: What the record calls it; the function's name by default.
        synchronize: Waits for the device, e.g. ``torch.cuda.synchronize``, before each of the two edges.

    Returns:
        The function's result and the record, with an estimate at the wall where a wall meter was compared with the components before.
        ``2 * record.u_random_joules`` is the 95 % interval between runs on this machine.

    Raises:
        ValueError: `function` does its work only later, `meter` is unknown, or a calibration of this machine is damaged.
        Exception: Whatever `function` raises.
    """
    if any(later(function) for later in (iscoroutinefunction, isgeneratorfunction, isasyncgenfunction)):
        raise ValueError(LAZY.format(function))
    found = discover(meter) if isinstance(meter, str) else meter
    with Ledger(found) as ledger:
        with ledger.window(name or str(getattr(function, "__name__", "function")), synchronize=synchronize) as window:
            result = function()
        if iscoroutine(result):
            result.close()
            raise ValueError(LAZY.format(result))
        record = window.close(settle=True)
    return result, with_wall(record)
