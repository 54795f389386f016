"""Where the ticks of a quality axis go that is stretched by the ratio of errors."""

from __future__ import annotations

from ..front import FRACTIONS, Front, stretch

#: Errors that are worth a tick, round ones first; a finer row is only used while there are fewer than ``ENOUGH`` ticks.
ERRORS = (
    (1.0, 0.1, 0.01, 0.001, 0.5, 0.05, 0.005, 0.2, 0.02, 0.002, 10.0, 100.0, 2.0, 5.0, 20.0, 50.0),
    (0.8, 0.3, 0.03, 0.003, 0.7, 0.4, 0.04, 0.004, 0.9, 0.6, 0.07, 0.15),
    tuple(n / 100 for n in range(1, 100)),
    tuple(n / 200 for n in range(1, 200)),
    tuple(n / 1000 for n in range(1, 1000)),
)
ENOUGH = 5

#: Least distance between two ticks, as a share of the axis.
GAP = 0.085


def is_stretched(front: Front) -> bool:
    """Whether the quality of this front is drawn by the ratio of errors."""
    return front.objectives[0] in (*FRACTIONS, "error")


def candidates(front: Front) -> list[list[tuple[float, str]]]:
    """Every tick there could be as rows of ``(place, label)``, the most wanted row first; empty when the axis is not stretched."""
    if not is_stretched(front):
        return []
    name = front.objectives[0]
    rows = []
    for errors in ERRORS:
        values = [error if name == "error" else 1.0 - error for error in errors]
        rows.append([(stretch(name, value), f"{value:.6g}") for value in values])
    return rows


def choose(rows: list[list[tuple[float, str]]], low: float, high: float) -> list[tuple[float, str]]:
    """Take the wanted ticks between two limits that keep their distance from those already taken."""
    kept: list[tuple[float, str]] = []
    for row in rows:
        if len(kept) >= ENOUGH:
            break
        for place, label in row:
            if low <= place <= high and all(abs(place - other) >= GAP * (high - low) for other, _ in kept):
                kept.append((place, label))
    return sorted(kept)
