"""Rows that other trackers wrote, made into one energy per run: differenced where they are cumulative, refused where broken."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

PARTS = ("cpu", "gpu", "ram")
#: Energies that are kept as sums of many parts may miss each other by this share.
ROUNDING = 1e-6
#: A row's time stamp has whole seconds, and is written a little after the energy is read.
STAMP_SECONDS = 5.0


@dataclass(frozen=True)
class TrackerRow:
    """One row of CodeCarbon's ``emissions.csv``, as written.

    Attributes:
        run_id: The tracker; a tracker that is started again keeps it and goes on counting.
        timestamp: When the row was written.
        seconds: Duration since the tracker's first start.
        kwh: All energy since then.
        parts: Energy by part (``cpu``, ``gpu``, ``ram``), in kWh.
    """

    run_id: str
    timestamp: datetime
    seconds: float
    kwh: float
    parts: Mapping[str, float]


@dataclass(frozen=True)
class RunEnergy:
    """What one run took.

    Attributes:
        run_id: The tracker's.
        timestamp: End of the run.
        seconds: Duration of this run alone.
        kwh: Energy of this run alone, or None when it is refused.
        parts: Energy by part in kWh; None for one that is refused.
        cumulative: The row held earlier runs too, and they were taken off.
        invalid: Why the energy is refused, or None.
    """

    run_id: str
    timestamp: datetime
    seconds: float
    kwh: float | None
    parts: Mapping[str, float | None]
    cumulative: bool = False
    invalid: str | None = None


def read_tracker_rows(path: Path) -> tuple[TrackerRow, ...]:
    """Read CodeCarbon's ``emissions.csv``.

    Raises:
        ValueError: A column is missing or no number.
    """
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        rows = []
        for row in reader:
            try:
                parts = {part: float(row[f"{part}_energy"]) for part in PARTS}
                stamp = datetime.fromisoformat(row["timestamp"])
                rows.append(TrackerRow(row["run_id"], stamp, float(row["duration"]), float(row["energy_consumed"]), parts))
            except (KeyError, ValueError, TypeError) as error:
                raise ValueError(f"{path}, line {reader.line_num}: not a row of CodeCarbon's emissions.csv ({error!r})") from None
    return tuple(rows)


def run_energies(rows: Iterable[TrackerRow], *, limit_watts: float | None = None) -> tuple[RunEnergy, ...]:
    """Give each run its own energy.

    A tracker that is not made anew for every run writes the sum of all its runs so far. Rows of one ``run_id`` are therefore
    differenced in the order of time. What cannot be energy is refused with the reason and never summed: a negative part, a
    part that shrank, a run longer than the time since the row before, more power than the hardware has.

    Args:
        rows: In any order.
        limit_watts: Highest mean power that the machine can draw, or None.

    Returns:
        One per row, in the order of the time stamps.
    """
    last: dict[str, TrackerRow] = {}
    found = []
    for row in sorted(rows, key=lambda row: row.timestamp):
        before = last.get(row.run_id)
        last[row.run_id] = row
        found.append(_run(row, before, limit_watts))
    return tuple(found)


def _run(row: TrackerRow, before: TrackerRow | None, limit_watts: float | None) -> RunEnergy:
    seconds = row.seconds - (before.seconds if before else 0.0)
    kwh = row.kwh - (before.kwh if before else 0.0)
    parts = {part: value - (before.parts[part] if before else 0.0) for part, value in row.parts.items()}
    reasons = [f"{part} energy is {value:.4g} kWh: a counter that wrapped or broke" for part, value in parts.items() if not _sound(value)]
    if not (math.isfinite(seconds) and seconds > 0):
        reasons.append(f"its duration is {seconds:.1f} s")
    if not _sound(kwh):
        reasons.append(f"its energy is {kwh:.4g} kWh")
    elif abs(kwh - math.fsum(parts.values())) > ROUNDING * max(abs(kwh), abs(row.kwh)):
        reasons.append(f"its parts sum to {math.fsum(parts.values()):.6g} kWh, not to {kwh:.6g}")
    if before is not None:
        elapsed = (row.timestamp - before.timestamp).total_seconds()
        if seconds > elapsed + STAMP_SECONDS:
            reasons.append(f"it claims {seconds:.0f} s, but only {elapsed:.0f} s passed since the row before")
    if limit_watts is not None and seconds > 0 and kwh * 3.6e6 / seconds > limit_watts:
        reasons.append(f"its mean power is {kwh * 3.6e6 / seconds:.0f} W, above the machine's {limit_watts:.0f} W")
    known: dict[str, float | None] = {part: value if _sound(value) else None for part, value in parts.items()}
    invalid = "; ".join(reasons) or None
    return RunEnergy(row.run_id, row.timestamp, seconds, None if invalid else kwh, known, before is not None, invalid)


def _sound(kwh: float) -> bool:
    return math.isfinite(kwh) and kwh >= 0
