"""One function, one call: its result and what it cost."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from .calibrations import with_wall
from .discover import Discovery, discover
from .ledger import Ledger
from .record import Record

Result = TypeVar("Result")


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
        ValueError: `meter` is unknown, or a calibration of this machine is damaged.
        Exception: Whatever `function` raises.
    """
    found = discover(meter) if isinstance(meter, str) else meter
    with Ledger(found) as ledger:
        with ledger.window(name or str(getattr(function, "__name__", "function")), synchronize=synchronize) as window:
            result = function()
        record = window.close(settle=True)
    return result, with_wall(record)
