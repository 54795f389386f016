"""What the parts of a machine draw while nothing is done, from windows in which nothing was."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass

from .record import Record


@dataclass(frozen=True)
class Idle:
    """What one component draws while nothing is done.

    Attributes:
        watts: Median power of the idle windows.
        drift_watts: Last window minus first; None with one window.
        u_watts: Standard uncertainty of `watts`: spread between the windows and the meter's random part.
        windows: Number of idle windows.
    """

    watts: float
    drift_watts: float | None
    u_watts: float
    windows: int


def idle_watts(records: Iterable[Record]) -> dict[str, Idle]:
    """Summarise the idle windows of a study, before, between and after its trials, by component.

    Windows that a meter cannot resolve and components without energy are left out; a component that no window knows is absent.
    """
    watts: dict[str, list[tuple[float, float]]] = {}
    for record in sorted(records, key=lambda record: record.t0_ns):
        for part in record.components:
            if record.kind == "idle" and part.joules is not None and not part.below_resolution and record.seconds > 0:
                watts.setdefault(part.name, []).append((part.joules / record.seconds, (part.u_random_joules or 0.0) / record.seconds))
    found = {}
    for name, pairs in watts.items():
        values = [value for value, _ in pairs]
        meter = math.sqrt(math.fsum(u * u for _, u in pairs)) / len(pairs)
        spread = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0
        drift = values[-1] - values[0] if len(values) > 1 else None
        found[name] = Idle(statistics.median(values), drift, math.hypot(meter, spread), len(values))
    return found
