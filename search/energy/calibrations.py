"""Where the calibrations of this machine are kept, so that every later session uses them."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from . import hardware
from .calibration import CpuCalibration, CpuPoint
from .intervals import Interval, Line
from .record import Record
from .sources.cpu_time import CpuCoefficients
from .wall_line import WallCalibration

Kept = TypeVar("Kept", CpuCalibration, WallCalibration)


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
    return hardware.fingerprint(hardware.describe())


def save_calibration(calibration: CpuCalibration | WallCalibration, folder: Path | None = None) -> Path:
    """Write a calibration under its hardware id and return the file."""
    folder = folder or cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    kind = "wall" if isinstance(calibration, WallCalibration) else "cpu"
    path = folder / f"{kind}-{calibration.hardware_id}.json"
    draft = path.with_suffix(f".{os.getpid()}.tmp")
    draft.write_text(json.dumps(asdict(calibration), indent=1), encoding="utf-8")
    draft.replace(path)  # a reader sees the old file or the new one, never half of it
    return path


def load_calibration(hardware_id: str, folder: Path | None = None) -> CpuCalibration | None:
    """Return the calibration of a machine's CPU, or None when there is none.

    Raises:
        ValueError: The file is damaged or belongs to other hardware; deleting it is the remedy.
    """

    def read(data: Mapping[str, Any]) -> CpuCalibration:
        intervals = {name: Interval(**data[name]) for name in ("core_watts", "idle_watts")}
        return CpuCalibration(**{**data, **intervals, "points": tuple(CpuPoint(**point) for point in data["points"])})

    return _load("cpu", "--calibrate", hardware_id, folder, read)


def load_wall_calibration(hardware_id: str, folder: Path | None = None) -> WallCalibration | None:
    """Return what the wall meter of a machine said beside its components, or None when it was never asked.

    Raises:
        ValueError: As for `load_calibration`.
    """

    def read(data: Mapping[str, Any]) -> WallCalibration:
        intervals = {name: Interval(**data["line"][name]) for name in ("slope", "intercept")}
        points = tuple((float(x), float(y)) for x, y in data["points"])
        return WallCalibration(**{**data, "line": Line(**{**data["line"], **intervals}), "parts": tuple(data["parts"]), "points": points})

    return _load("wall", "--compare-meters --meter auto,wall=...", hardware_id, folder, read)


def calibrated_coefficients(folder: Path | None = None) -> CpuCoefficients | None:
    """Return this machine's calibrated watts per CPU, or None when it was never calibrated.

    Args:
        folder: Where calibrations are kept; None for the user's cache folder.

    Raises:
        ValueError: The calibration is damaged; the message names the file.
    """
    found = load_calibration(cpu_id(), folder)
    return None if found is None else found.coefficients()


def with_wall(record: Record, folder: Path | None = None) -> Record:
    """Return the record with an estimate of the energy at the socket beside its components.

    The estimate is a component ``wall``, ``estimated`` and outside of the sum. A record stays as it is when a wall meter was there,
    when the machine was never compared with one, or when other meters made up its sum then.

    Args:
        record: Of this machine or of one whose calibration lies in `folder`.
        folder: Where calibrations are kept; None for the user's cache folder.

    Raises:
        ValueError: The calibration is damaged; the message names the file.
    """
    known = load_wall_calibration(record.hardware_id, folder)
    return record if known is None else known.beside(record)


def _load(kind: str, remedy: str, hardware_id: str, folder: Path | None, read: Callable[[Mapping[str, Any]], Kept]) -> Kept | None:
    path = (folder or cache_folder()) / f"{kind}-{hardware_id}.json"
    if not path.exists():
        return None
    try:
        found = read(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"calibration {path} cannot be read ({error}); delete it and run joulefront doctor {remedy}") from None
    if found.hardware_id != hardware_id:
        raise ValueError(f"calibration {path} is of hardware {found.hardware_id}, not {hardware_id}; delete it and calibrate again")
    return found
