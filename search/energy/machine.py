"""This machine: its diagnosis and its calibration, each one call for the command line."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import hardware
from .calibration import CpuCalibration, calibrate_cpu, load_calibration, reference_for, save_calibration
from .carbon import Intensity
from .discover import Discovery, discover
from .doctor import Diagnosis, examine
from .ledger import Ledger
from .sources.cpu_time import CpuCoefficients


def cpu_id() -> str:
    """Return the hardware id of this machine without its devices: a CPU's calibration holds whatever GPU is beside it."""
    return hardware.fingerprint(hardware.describe())


def calibrated_coefficients(folder: Path | None = None) -> CpuCoefficients | None:
    """Return this machine's calibrated watts per CPU, or None when it was never calibrated; for ``discover(coefficients=...)``.

    Args:
        folder: Where calibrations are kept; None for the user's cache folder.

    Raises:
        ValueError: The calibration is damaged; the message names the file.
    """
    found = load_calibration(cpu_id(), folder)
    return None if found is None else found.coefficients()


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
        return examine(
            found.present, found.absent, intensity=intensity, cpu_watts_known=known, virtual=bool(facts["virtualised"]), machine=machine
        )
    finally:
        _close(found)


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
    found = discover(meter)
    try:
        reference = reference_for(found.present)
        if progress:
            print(
                f"calibrating against {reference.source} for about {3 * rounds * seconds:.0f} s: leave the machine alone", file=sys.stderr
            )
        with Ledger(found.sources, absent=found.absent) as ledger:
            result = calibrate_cpu(ledger, reference, seconds=seconds, rounds=rounds, hardware_id=cpu_id())
    finally:
        _close(found)
    path = save_calibration(result, folder)
    if progress:
        print(f"kept in {path}", file=sys.stderr)
    return result


def _devices(found: Discovery) -> Mapping[str, Mapping[str, Any]]:
    facts: dict[str, Mapping[str, Any]] = {}
    for source in found.sources:
        devices = getattr(source, "devices", None)
        facts |= devices() if devices is not None else {}
    return facts


def _close(found: Discovery) -> None:
    for source in found.sources:
        source.close()
