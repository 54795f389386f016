"""This machine: its diagnosis and its calibration, each one call for the command line."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import hardware
from .calibration import CpuCalibration, calibrate_cpu, reference_for
from .calibrations import calibrated_coefficients, cpu_id, load_wall_calibration, save_calibration
from .carbon import Intensity
from .compare_meters import compare_meters
from .comparison import Comparison
from .discover import Discovery, discover
from .doctor import Diagnosis, examine
from .ledger import Ledger
from .sources.cpu_time import DEFAULT

__all__ = ["calibrate_machine", "calibrated_coefficients", "compare_machine", "cpu_id", "diagnose_machine"]


def diagnose_machine(
    meter: str = "auto", *, intensity: Intensity | None = None, cpu_watts: float | None = None, folder: Path | None = None
) -> Diagnosis:
    """Find the meters of this machine and say what they can and cannot do; the meters are released again.

    Args:
        meter: As for ``discover``.
        intensity: Carbon intensity in use, or None when the place is unknown.
        cpu_watts: Watts of the whole CPU with all cores busy, if the user gave them.
        folder: Where calibrations are kept; None for the user's cache folder.
    """
    coefficients = None if cpu_watts is not None else calibrated_coefficients(folder)
    found = discover(meter, cpu_watts=cpu_watts, coefficients=coefficients)
    try:
        facts = hardware.describe(_devices(found))
        names = [str(device.get("name")) for device in facts["devices"].values() if device.get("name")]
        machine = {
            "CPU": f"{facts['cpu_model']}, {facts['logical_cpus']} logical CPUs" + (", virtual machine" if facts["virtualised"] else ""),
            "GPU": ", ".join(names),
            "hardware id": hardware.fingerprint(facts),
        }
        known = cpu_watts is not None or coefficients is not None
        present = found.present
        wall = load_wall_calibration(hardware.fingerprint(facts), folder)
        if wall is not None and not any(item.component == "wall" for item in present):
            present += (wall.capability(),)
        return examine(
            present, found.absent, intensity=intensity, cpu_watts_known=known, virtual=bool(facts["virtualised"]), machine=machine
        )
    finally:
        found.close()


def calibrate_machine(
    meter: str = "auto", *, seconds: float = 10.0, rounds: int = 2, folder: Path | None = None, progress: bool = True
) -> CpuCalibration:
    """Calibrate the estimate of the CPU against RAPL or a wall meter, and keep the result for this machine.

    Args:
        meter: As for ``discover``; must hold a measured reference.
        seconds: Length of each of the three loads (idle, one core, all cores).
        rounds: How often each load is measured.
        folder: Where calibrations are kept; None for the user's cache folder.
        progress: Say on stderr what is going on.

    Raises:
        LookupError: Nothing here is measured, so there is nothing to calibrate against; the default stays.
        ValueError: The reference failed, or something else ran on the machine.
    """
    found = discover(meter, coefficients=DEFAULT)  # an older calibration has no say in a new one
    try:
        reference = reference_for(found.present)
        if progress:
            print(
                f"calibrating against {reference.source} for about {3 * rounds * seconds:.0f} s: leave the machine alone", file=sys.stderr
            )
        with Ledger(found.sources, absent=found.absent) as ledger:
            result = calibrate_cpu(ledger, reference, seconds=seconds, rounds=rounds, hardware_id=cpu_id())
    finally:
        found.close()
    path = save_calibration(result, folder)
    if progress:
        print(f"kept in {path}", file=sys.stderr)
    return result


def compare_machine(
    meter: str = "auto", *, seconds: float = 5.0, repeats: int = 3, folder: Path | None = None, progress: bool = True
) -> Comparison:
    """Run short loads under every meter of this machine; how a wall meter relates to the components is kept for later records.

    Args:
        meter: As for `compare_meters`; with a wall meter (``auto,wall=http://...``) the loads are idle, one core and all cores.
        seconds: Length of each load.
        repeats: How often each load is run.
        folder: Where calibrations are kept; None for the user's cache folder.
        progress: Say on stderr what is going on.

    Raises:
        ValueError: As for `compare_meters`.
    """
    found = compare_meters(meter, seconds=seconds, repeats=repeats, progress=progress)
    if found.wall is not None:
        path = save_calibration(found.wall, folder)
        if progress:
            print(f"kept in {path}", file=sys.stderr)
    return found


def _devices(found: Discovery) -> Mapping[str, Mapping[str, Any]]:
    facts: dict[str, Mapping[str, Any]] = {}
    for source in found.sources:
        devices = getattr(source, "devices", None)
        facts |= devices() if devices is not None else {}
    return facts
