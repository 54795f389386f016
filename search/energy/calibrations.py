"""Calibrations of this machine, kept for later sessions: watts per busy CPU, and the energy at the wall from that of the components."""

from __future__ import annotations

import json
import math
import os
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from . import host
from .intervals import Interval, Line, fit_line
from .journal import content, fitted
from .record import Component, Record
from .sources.cpu_coefficients import CpuCoefficients
from .sources.source import Capability

#: A line through two points fits always; the third tells how well.
LEAST_WINDOWS = 3
#: What a component made of the line names as its source.
SOURCE = "wall line"


@dataclass(frozen=True)
class CpuPoint:
    """One calibration window: the mean number of busy logical CPUs of the whole machine, and the mean power of the reference."""

    busy_cores: float
    watts: float
    seconds: float


@dataclass(frozen=True)
class CpuCalibration:
    """Watts per busy logical CPU of one machine.

    Attributes:
        hardware_id: The machine; a calibration is used on no other.
        core_watts: Watts above idle per busy logical CPU; ``gain_u`` is its relative standard uncertainty.
        idle_watts: Watts of the idle reference.
        reference: Source that was trusted: ``rapl`` or ``wall``.
    """

    hardware_id: str
    core_watts: Interval
    idle_watts: Interval
    gain_u: float
    reference: str
    t_utc: str
    points: tuple[CpuPoint, ...]

    def to_text(self) -> str:
        """Return the result in three lines."""
        core, idle = self.core_watts, self.idle_watts
        lines = [
            f"one busy logical CPU: {core.value:.3g} W (95 %: {core.low:.3g} to {core.high:.3g}), scale ±{100 * self.gain_u:.2g} %",
            f"idle: {idle.value:.3g} W (95 %: {idle.low:.3g} to {idle.high:.3g}), of what {self.reference} covers",
            f"calibrated against {self.reference}, {len(self.points)} windows, {self.t_utc}, hardware {self.hardware_id}",
        ]
        return "\n".join(lines)

    def to_json(self) -> str:
        """Return JSON text; a bound that is not known is null."""
        data = asdict(self)
        for name in ("core_watts", "idle_watts"):
            data[name] = {key: value if math.isfinite(value) else None for key, value in data[name].items()}
        return json.dumps(data, indent=1)

    def coefficients(self) -> CpuCoefficients:
        """Return what ``cpu_time`` needs; a wall meter's idle power is the whole machine's, not the CPU's, and is left out."""
        idle = None if self.reference == "wall" else max(self.idle_watts.value, 0.0)
        origin = f"calibrated against {self.reference} on {self.t_utc[:10]}"
        return CpuCoefficients(self.core_watts.value, idle, self.gain_u, origin)


@dataclass(frozen=True)
class LagCalibration:
    """How late the energy counter of a kind of GPU is under one driver.

    Attributes:
        hardware_id: Name and driver of the GPU, see `gpu_id`.
        lag_seconds: A reading shows what was drawn up to so long ago; ``u_seconds`` is its standard uncertainty.
        edges: So many beginnings and ends of a load it comes from.
    """

    hardware_id: str
    lag_seconds: float
    u_seconds: float
    edges: int
    t_utc: str

    def to_text(self) -> str:
        """Return the result in one line."""
        return f"{self.hardware_id}: its energy counter is {self.lag_seconds:.3f} s late, ± {2 * self.u_seconds:.3f} s ({self.edges} edges)"


@dataclass(frozen=True)
class MachineCalibration:
    """What a calibration of this machine found: the CPU's, or why there is none, and one for each kind of GPU."""

    cpu: CpuCalibration | None
    lags: tuple[LagCalibration, ...] = ()
    missing: tuple[str, ...] = ()

    def to_text(self) -> str:
        """Return the results, a few lines each, and what could not be calibrated."""
        return "\n".join([*([self.cpu.to_text()] if self.cpu else []), *(lag.to_text() for lag in self.lags), *self.missing])

    def to_json(self) -> str:
        """Return the CPU's calibration with those of the counters beside it."""
        data = json.loads(self.cpu.to_json()) if self.cpu else {}
        return json.dumps(data | {"counter_lags": [asdict(lag) for lag in self.lags], "missing": list(self.missing)}, indent=1)


@dataclass(frozen=True)
class WallCalibration:
    """Power at the wall of one machine, as ``a * components + b``.

    Attributes:
        hardware_id: The machine; a calibration is used on no other.
        line: Watts at the wall over watts of the components: slope a, intercept b.
        parts: The components that made up the sum, each with its meter; another sum has another line.
        meter: What the wall meter covers, in words.
        gain_u: Relative standard uncertainty of the wall meter's scale.
        points: Watts of the components and watts at the wall, one pair per window.
    """

    hardware_id: str
    line: Line
    parts: tuple[str, ...]
    meter: str
    gain_u: float
    t_utc: str
    points: tuple[tuple[float, float], ...]

    def to_text(self) -> str:
        """Return the result in three lines."""
        line = self.line
        a, b = line.slope, line.intercept
        low, high = self.range_watts
        return "\n".join(
            (
                f"wall = a * components + b over {line.n} windows, components of {low:.3g} to {high:.3g} W ({', '.join(self.parts)}):",
                f"  a = {a.value:.4g}, standard error {line.slope_error or 0.0:.2g} (95 %: {a.low:.4g} to {a.high:.4g})",
                f"  b = {b.value:.4g} W, standard error {line.intercept_error or 0.0:.2g} W (95 %: {b.low:.4g} to {b.high:.4g})",
            )
        )

    def to_json(self) -> dict[str, Any]:
        """Return a plain dictionary with the two coefficients, their standard errors and the windows."""
        a, b = self.line.slope, self.line.intercept
        return {
            "a": a.value,
            "a_standard_error": self.line.slope_error,
            "b_watts": b.value,
            "b_standard_error_watts": self.line.intercept_error,
            "parts": list(self.parts),
            "hardware_id": self.hardware_id,
            "t_utc": self.t_utc,
            "points": [{"components_watts": x, "wall_watts": y} for x, y in self.points],
        }

    @property
    def range_watts(self) -> tuple[float, float]:
        """Return the least and the greatest power of the components at which it was measured."""
        powers = [x for x, _ in self.points]
        return min(powers), max(powers)

    @property
    def reason(self) -> str:
        """Return how the estimate is made, for records and for the diagnosis."""
        a, b = self.line.slope.value, self.line.intercept.value
        return f"estimated: {a:.3g} times the components and {b:.3g} W, compared with a wall meter on {self.t_utc[:10]}"

    def capability(self) -> Capability:
        """Return what it offers, as a meter would."""
        gain_u = math.hypot(self.gain_u, (self.line.slope_error or 0.0) / self.line.slope.value)
        return Capability("wall", SOURCE, True, "estimated", self.meter, reason=self.reason, gain_u=gain_u, counts=False)

    def component(self, record: Record) -> Component | None:
        """Return the energy at the wall that follows from a record's components: estimated, and outside of the sum.

        None when it does not apply: the record has a wall meter's energy, it is of other hardware, its sum is made of other meters or
        not known, or it shares the machine with others: `b` is then nobody's alone.
        """
        wall = record.component("wall")
        if record.joules is None or record.u_random_joules is None or record.seconds <= 0 or (wall is not None and wall.joules is not None):
            return None
        shared = any(part.attribution != "exclusive" for part in record.counting)
        if shared or record.hardware_id != self.hardware_id or parts_of(record) != self.parts:
            return None
        watts = record.joules / record.seconds
        found = self.line.predict(watts)
        low, high = self.range_watts
        reason = self.reason
        if not low <= watts <= high:
            reason += f"; {watts:.3g} W lie outside of the {low:.3g} to {high:.3g} W at which the wall meter was there"
        joules = found.value * record.seconds
        return Component(
            "wall",
            joules,
            SOURCE,
            quality="estimated",
            boundary=self.meter,
            counts=False,
            u_random_joules=math.hypot(found.half / 2 * record.seconds, self.line.slope.value * record.u_random_joules),
            u_systematic_joules=self.gain_u * abs(joules),
            reason=reason,
        )

    def beside(self, record: Record) -> Record:
        """Return the record with that estimate beside its components, or as it is where it does not apply."""
        found = self.component(record)
        others = (part for part in record.components if part.name != "wall")
        return record if found is None else replace(record, components=(*others, found))


def parts_of(record: Record) -> tuple[str, ...]:
    """Return the components of a record's sum with their meters, e.g. ``("2 cpu by rapl", "gpu by nvml")``."""
    names = [f"{part.name.split(':', 1)[0]} by {part.source}" for part in record.counting]
    return tuple(name if names.count(name) == 1 else f"{names.count(name)} {name}" for name in sorted(set(names)))


def calibrate_wall(records: Iterable[Record]) -> WallCalibration:
    """Fit ``wall = a * components + b`` to mean powers of the records that have both; windows may differ in length.

    `a` holds the losses that grow with load (power supply, fans), `b` what no component meter sees. With ``a > 0`` the order
    of models is that of the components; absolute numbers are not.

    Raises:
        ValueError: Fewer than three such records, records of different sums or hardware, components that do not vary, or a line
            that does not rise for sure.
    """
    chosen = [record for record in records if record.joules is not None and record.seconds > 0 and _wall(record) is not None]
    if len(chosen) < LEAST_WINDOWS:
        raise ValueError(f"a wall calibration needs at least {LEAST_WINDOWS} windows with both meters, got {len(chosen)}")
    kinds = {(record.hardware_id, parts_of(record)) for record in chosen}
    if len(kinds) > 1:
        raise ValueError(f"the records must come from one machine with the same meters, got {sorted(kinds)}")
    ((hardware_id, parts),) = kinds
    points = tuple(((record.joules or 0.0) / record.seconds, (_wall(record) or 0.0) / record.seconds) for record in chosen)
    line = fit_line([x for x, _ in points], [y for _, y in points])
    slope = line.slope
    if not slope.low > 0:
        raise ValueError(
            f"power at the wall must grow with that of the components, got a = {slope.value:.3g} (95 %: {slope.low:.3g} to "
            f"{slope.high:.3g}); is it this machine's meter, and was the machine left alone?"
        )
    wall = chosen[0].component("wall")
    assert wall is not None
    gain_u = (wall.u_systematic_joules or 0.0) / wall.joules if wall.joules else 0.0
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return WallCalibration(hardware_id, line, parts, wall.boundary, gain_u, now, points)


def _wall(record: Record) -> float | None:
    wall = record.component("wall")
    return None if wall is None or wall.quality != "measured" else wall.joules


Kept = TypeVar("Kept", CpuCalibration, WallCalibration, LagCalibration)
#: How the file of each begins, and what `joulefront doctor` makes it with.
FILES = {
    CpuCalibration: ("cpu", "--calibrate"),
    WallCalibration: ("wall", "--compare-meters --meter auto,wall=..."),
    LagCalibration: ("counter-lag", "--calibrate"),
}


def cache_folder() -> Path:
    """Return this user's cache folder for joulefront, where the platform keeps such files; it may not exist yet."""
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "joulefront"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "joulefront" / "Cache"
    # Source: XDG Base Directory Specification: a relative value is to be ignored.
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "joulefront"


def cpu_id() -> str:
    """Return the hardware id of this machine without its devices: a CPU's calibration holds whatever GPU is beside it."""
    return host.fingerprint(host.describe())


def gpu_id(facts: Mapping[str, Any]) -> str:
    """Return name and driver of a GPU, of its ``name`` and ``driver``, as a word: on them depends how its counter is kept."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", f"{facts.get('name')} {facts.get('driver')}")


def save_calibration(calibration: CpuCalibration | WallCalibration | LagCalibration, folder: Path | None = None) -> Path:
    """Write a calibration under its hardware id and return the file."""
    folder = folder or cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{FILES[type(calibration)][0]}-{calibration.hardware_id}.json"
    draft = path.with_suffix(f".{os.getpid()}.tmp")
    draft.write_text(json.dumps(asdict(calibration), indent=1), encoding="utf-8")
    draft.replace(path)  # a reader sees the old file or the new one, never half of it
    return path


def load_calibration(shape: type[Kept], hardware_id: str, folder: Path | None = None) -> Kept | None:
    """Return what was calibrated on a machine, or None when nothing was.

    Raises:
        ValueError: The file is damaged or belongs to other hardware; deleting it is the remedy.
    """
    kind, remedy = FILES[shape]
    path = (folder or cache_folder()) / f"{kind}-{hardware_id}.json"
    wide = {"Infinity": math.inf, "-Infinity": -math.inf}  # ends of intervals
    try:
        found = fitted(shape, json.loads(content(path), parse_constant=wide.__getitem__), "calibration")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, RecursionError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise ValueError(f"calibration {path} cannot be read ({why}); delete it and run joulefront doctor {remedy}") from None
    if found.hardware_id != hardware_id:
        raise ValueError(f"calibration {path} is of hardware {found.hardware_id}, not {hardware_id}; delete it and calibrate again")
    return found


def calibrated_coefficients(folder: Path | None = None) -> CpuCoefficients | None:
    """Return this machine's calibrated watts per CPU, or None when it was never calibrated.

    Raises:
        ValueError: The calibration is damaged; the message names the file.
    """
    found = load_calibration(CpuCalibration, cpu_id(), folder)
    return None if found is None else found.coefficients()


def calibrated_lag(facts: Mapping[str, Any], folder: Path | None = None) -> tuple[float, float] | None:
    """Return lag and standard uncertainty (seconds) of a GPU's energy counter, or None when none of its kind was calibrated.

    Raises:
        ValueError: The calibration is damaged; the message names the file.
    """
    found = load_calibration(LagCalibration, gpu_id(facts), folder)
    return None if found is None else (found.lag_seconds, found.u_seconds)


def with_wall(record: Record, folder: Path | None = None) -> Record:
    """Return the record as ``WallCalibration.beside`` gives it, or as it is when the machine was never compared with a wall meter.

    Raises:
        ValueError: The calibration is damaged; the message names the file.
    """
    known = load_calibration(WallCalibration, record.hardware_id, folder)
    return record if known is None else known.beside(record)
