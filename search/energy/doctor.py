"""This machine's diagnosis: what can be measured, what cannot, why, and the one line that would change it.

Diagnosis, calibration and comparison of meters are one call each for the command line.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import textwrap
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from . import host
from .calibrate import REPEATS, Load, MatrixProducts, calibrate_cpu, measure_lag, reference_for, torch_device
from .calibrations import (
    CpuCalibration,
    LagCalibration,
    MachineCalibration,
    WallCalibration,
    calibrated_coefficients,
    cpu_id,
    gpu_id,
    load_calibration,
    save_calibration,
)
from .comparison import Comparison, compare_meters
from .discover import discover
from .ledger import Ledger
from .meters import MeterSet
from .sources.cpu_coefficients import DEFAULT, PROC
from .sources.nvml import Nvml
from .sources.source import Capability, Quality

FAMILIES = ("gpu", "cpu", "dram", "wall")
TITLES = {"gpu": "GPU", "cpu": "CPU", "dram": "memory", "wall": "wall meter", "carbon": "CO2"}

REMEDIES = {
    "gpu": "install the NVIDIA driver of this GPU; nvidia-smi must list it (in a container: start it with --gpus all)",
    "cpu": "give the watts of the CPU with all cores busy with --cpu-watts, or name a wall meter and run joulefront doctor --calibrate",
    "dram": "none on this machine: memory counters exist on Intel servers; a wall meter covers the memory",
    "wall": "plug the machine into a metering plug and name it: --meter auto,wall=http://ADDRESS/rpc/Switch.GetStatus?id=0",
    "carbon": "name the place of the machine with --zone, e.g. --zone FR, or the factor with --intensity 56 (gCO2e/kWh)",
}
REASONS = {
    "gpu": "no NVIDIA GPU was found",
    "cpu": "neither a counter nor an estimate of the CPU is in use",
    "dram": "this machine has no memory counter that can be read",
    "wall": "no wall meter was named",
    "carbon": "the place of this machine is unknown, so CO2 is not computed (no country is guessed)",
}


@dataclass(frozen=True)
class Finding:
    """What is known of one part of the bill, in the words of a ``Capability``; ``component`` is the family when there is none.

    Attributes:
        subject: Family: ``gpu``, ``cpu``, ``dram``, ``wall`` or ``carbon``.
        relative_uncertainty: Relative standard uncertainty of the scale, or None when absent.
        remedy: The one line that would improve it, or None when nothing would.
    """

    subject: str
    component: str
    quality: Quality
    source: str | None = None
    boundary: str = ""
    relative_uncertainty: float | None = None
    counts: bool = True
    reason: str | None = None
    remedy: str | None = None


@dataclass(frozen=True)
class Diagnosis:
    """What the meters of one machine can measure: the GPU first, CO2 last, and what that means for a ranking of models in one sentence."""

    findings: tuple[Finding, ...]
    verdict: str
    machine: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """Return the diagnosis as JSON text, stable in its keys."""
        return json.dumps(
            {"machine": dict(self.machine), "verdict": self.verdict, "findings": [asdict(item) for item in self.findings]}, indent=2
        )

    def to_text(self) -> str:
        """Return the diagnosis as lines for a terminal, of at most 110 characters."""
        lines = [f"{key}: {value}" for key, value in self.machine.items() if value not in (None, "")]
        for item in self.findings:
            head = f"{TITLES.get(item.subject, item.subject):<11}{item.quality:<10}"
            name = "" if item.component == item.subject else f"{item.component} "
            known, added = item.relative_uncertainty, "" if item.counts else ", not added"
            scale = "" if known is None else f"scale ±{100 * known:.3g} %{added}"
            parts = (f"by {item.source}" if item.source else "", item.boundary, scale)
            facts = "" if item.quality == "absent" else ", ".join(part for part in parts if part)
            lines += _wrap(f"{head} {name}{facts or item.reason or ''}", 22)
            if facts and item.reason:
                lines += _wrap(f"{'':22}{item.reason}", 22)
            if item.remedy:
                lines += _wrap(f"{'':22}-> {item.remedy}", 25)
        return "\n".join([*lines, "", *textwrap.wrap(self.verdict, _width())])


def examine(
    available: Iterable[Capability],
    absent: Iterable[Capability] = (),
    *,
    carbon: str | None = None,
    cpu_watts_known: bool = False,
    virtual: bool | None = None,
    machine: Mapping[str, Any] | None = None,
) -> Diagnosis:
    """Turn what the sources found into findings with remedies, one for each family at least; reads nothing itself.

    The chosen sources have one capability per component. ``carbon`` is the carbon intensity in use, in words, or None when the place is
    unknown; ``cpu_watts_known`` if the power of a core was given or calibrated on this machine, so that an estimate is not a guess;
    ``virtual`` if the machine is a virtual one, whose host keeps the CPU's counters to itself, and None when that is unknown; ``machine``
    has facts to be shown on top.
    """
    present = [item for item in available if item.available]
    missing = [*absent, *(item for item in available if not item.available)]
    findings: list[Finding] = []
    for family in FAMILIES:
        found = [_finding(family, item, cpu_watts_known, virtual) for item in present if _family(item) == family]
        counted = any(item.counts and item.quality == "measured" for item in found)
        # Once something better stands in, a source that is merely not here is no news; a second GPU without a reading is.
        news = missing if family == "gpu" or not counted else []
        lost = [_finding(family, item, cpu_watts_known, virtual) for item in news if _family(item) == family]
        findings += found + lost or [Finding(family, family, "absent", reason=REASONS[family], remedy=REMEDIES[family])]
    others = sorted((item for item in (*present, *missing) if _family(item) not in FAMILIES), key=_family)
    findings += [_finding(_family(item), item, cpu_watts_known, virtual) for item in others]
    place = Finding("carbon", "carbon", "absent", counts=False, reason=REASONS["carbon"], remedy=REMEDIES["carbon"])
    findings.append(place if carbon is None else replace(place, quality="estimated", boundary=carbon, reason=None, remedy=None))
    return Diagnosis(tuple(findings), _verdict(findings), dict(machine or {}))


def _family(item: Capability) -> str:
    return item.component.split(":", 1)[0]


def _finding(family: str, item: Capability, cpu_watts_known: bool, virtual: bool | None) -> Finding:
    reason, remedy = item.reason, item.remedy
    if not item.available:
        if item.source == "rapl" and virtual and not item.needs_root:
            reason = f"{reason or 'no counter'}; this is a virtual machine, its host keeps the counters"
            remedy = "none inside a virtual machine: run on the host, name a wall meter, or give --cpu-watts"
        reason, remedy = reason or REASONS.get(family), remedy or REMEDIES.get(family)
        return Finding(family, item.component, "absent", item.source, counts=item.counts, reason=reason, remedy=remedy)
    if family == "cpu" and item.quality == "estimated" and remedy is None and not cpu_watts_known:
        remedy = REMEDIES["cpu"]
    return Finding(family, item.component, item.quality, item.source, item.boundary, item.gain_u, item.counts, reason, remedy)


def _verdict(findings: Iterable[Finding]) -> str:
    counted = [item for item in findings if item.counts and item.quality != "absent" and item.subject != "carbon"]
    measured = sorted({TITLES.get(item.subject, item.subject) for item in counted if item.quality == "measured"})
    guessed = sorted({TITLES.get(item.subject, item.subject) for item in counted if item.quality != "measured"})
    if not counted:
        return "No energy is known by these meters: a study can run, but energy cannot be an objective."
    if not measured:
        return (
            f"Only an estimate ({', '.join(guessed)}): it ranks models by processor time, not by power. "
            "Differences between models of one kind are meaningful, absolute kWh are not."
        )
    if guessed:
        return f"Measured: {', '.join(measured)}; estimated: {', '.join(guessed)}. Totals are mixed, and marked so."
    return f"Measured: {', '.join(measured)}. Energies can be ranked within their stated uncertainty."


def _width() -> int:
    """Width of the terminal, 100 where there is none, at most 110: easier to read than more."""
    return max(40, min(110, shutil.get_terminal_size((100, 24)).columns))


def _wrap(line: str, indent: int) -> list[str]:
    return textwrap.wrap(line, _width(), subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False) or [line]


def diagnose_machine(meter: str = "auto", *, carbon: str | None = None, folder: Path | None = None) -> Diagnosis:
    """Find the meters of this machine and return what they can and cannot measure; the meters are released again.

    ``meter`` is as for ``discover``, ``carbon`` as for ``examine``; ``folder`` is where calibrations are kept, None for the user's cache
    folder.
    """
    coefficients = calibrated_coefficients(folder)
    found = discover(meter, coefficients=coefficients, calibrations=folder)
    try:
        facts = host.describe(MeterSet(found.sources, (), time.monotonic_ns).devices())
        names = [str(device.get("name")) for device in facts["devices"].values() if device.get("name")]
        machine = {
            "CPU": f"{facts['cpu_model']}, {facts['logical_cpus']} logical CPUs" + (", virtual machine" if facts["virtualised"] else ""),
            "GPU": ", ".join(names),
            "hardware id": host.fingerprint(facts),
        }
        known = coefficients is not None
        present = tuple(replace(item, reason="; ".join(filter(None, (item.reason, _beside(item)))) or None) for item in found.present)
        wall = load_calibration(WallCalibration, host.fingerprint(facts), folder)
        if wall is not None and not any(item.component == "wall" for item in present):
            present += (wall.capability(),)
        return examine(present, found.absent, carbon=carbon, cpu_watts_known=known, virtual=bool(facts["virtualised"]), machine=machine)
    finally:
        found.close()


def _beside(item: Capability) -> str:
    """Say what a meter could know besides, or better."""
    if (item.component, item.source) == ("cpu", "cpu_time"):
        return counters()
    if item.counter_delay_seconds:
        return f"its counter is {item.counter_delay_seconds:.3f} s late, measured on this kind of GPU"
    if item.counter_lag_seconds:
        return f"its counter may be up to {item.counter_lag_seconds:g} s late (joulefront doctor --calibrate measures it)"
    return ""


def counters(devices: Path = Path("/sys/bus/event_source/devices"), proc: Path = PROC) -> str:
    """Say whether instructions and cache misses of a process can be counted here, and that they do not enter the estimate.

    Models of power from counters are fitted on one machine against its energy counters, which are then the better meter; no public table
    gives joules for an instruction or a miss. Source: Colmant et al. 2018, The next 700 CPU power models; perf_event_open(2) for the files.
    """
    end = "do not enter: no public table gives joules for them"
    if not any((devices / name).exists() for name in ("cpu", "cpu_core", "armv8_pmuv3", "armv8_pmuv3_0")):
        return f"instructions and cache misses cannot be counted here (virtual machines mostly hide them) and {end}"
    with suppress(OSError, ValueError):
        if int((proc / "sys/kernel/perf_event_paranoid").read_text()) > 2 and os.geteuid() != 0:
            return f"instructions and cache misses may not be counted (sudo sysctl kernel.perf_event_paranoid=2 allows it) and {end}"
    return f"instructions and cache misses could be counted and {end}"


def calibrate_machine(meter: str = "auto", *, seconds: float = 10.0, rounds: int = 2, folder: Path | None = None) -> CpuCalibration:
    """Calibrate the estimate of the CPU against RAPL or a wall meter, and keep the result for this machine.

    ``meter`` must hold a measured reference; ``seconds`` is the length of each of the three loads (idle, one core, all cores), ``folder``
    is as for ``diagnose_machine``; how long it takes is printed on stderr.

    Raises:
        LookupError: Nothing here is measured, so there is nothing to calibrate against; the default stays.
        ValueError: The reference failed, or something else ran on the machine.
    """
    found = discover(meter, coefficients=DEFAULT)  # an older calibration must not enter a new one
    try:
        reference = reference_for(found.present)
        print(f"calibrating against {reference.source} for about {3 * rounds * seconds:.0f} s: leave the machine alone", file=sys.stderr)
        with Ledger(found.sources, absent=found.absent) as ledger:
            result = calibrate_cpu(ledger, reference, seconds=seconds, rounds=rounds, hardware_id=cpu_id())
    finally:
        found.close()
    print(f"kept in {save_calibration(result, folder)}", file=sys.stderr)
    return result


def calibrate_counters(
    meter: str = "auto",
    *,
    seconds: float = 2.0,
    folder: Path | None = None,
    load_of: Callable[[str], Load | None] | None = None,
    source: Nvml | None = None,
) -> tuple[tuple[LagCalibration, ...], tuple[str, ...]]:
    """Measure how late the energy counters of this process's GPUs are, one GPU of each kind, keep it, and say what could not be measured.

    Matrix products load each GPU for ``seconds``, three times, between rests as long. ``load_of`` makes a load for a component, or returns
    None; by default products by PyTorch on CUDA. ``source`` is NVML, closed afterwards; by default as ``meter`` finds it.
    """
    sources = discover(meter, coefficients=DEFAULT).sources if source is None else (source,)
    kept: dict[str, LagCalibration] = {}
    missing: list[str] = []
    try:
        for nvml in (one for one in sources if isinstance(one, Nvml)):
            for item in nvml.probe():
                facts = nvml.devices().get(item.component)
                if facts is None or item.tick_seconds is not None or gpu_id(facts) in kept:
                    continue  # not this process's, or without a counter
                load = (load_of or _products)(item.component)
                if load is None:
                    missing.append(f"{item.component}: PyTorch shows no such CUDA device, so its counter's lag stays in the uncertainty")
                    continue
                print(f"measuring how late the counter of {facts['name']} is, about {9 * seconds:.0f} s", file=sys.stderr)
                try:
                    lag, u = measure_lag(nvml, item.component, load, seconds=seconds, clock=nvml.clock, sleep=nvml.sleep)
                except ValueError as error:
                    missing.append(f"{item.component}: {error}")
                    continue
                now = datetime.now(UTC).isoformat(timespec="seconds")
                kept[gpu_id(facts)] = LagCalibration(gpu_id(facts), lag, u, 2 * REPEATS, now)
                save_calibration(kept[gpu_id(facts)], folder)
    finally:
        for one in sources:
            one.close()
    return tuple(kept.values()), tuple(missing)


def _products(component: str) -> Load | None:
    device = torch_device(component)
    return None if device is None else MatrixProducts(device)


def calibrate_all(meter: str = "auto") -> MachineCalibration:
    """Calibrate the estimate of the CPU and the lag of the GPUs' counters, as far as this machine allows.

    Raises:
        LookupError: There is neither a reference for the CPU nor a GPU whose counter could be measured.
        ValueError: As for `calibrate_machine`.
    """
    lags, missing = calibrate_counters(meter)
    try:
        return MachineCalibration(calibrate_machine(meter), lags, missing)
    except LookupError as error:
        if not lags:
            raise
        return MachineCalibration(None, lags, (*missing, str(error.args[0] if error.args else error)))


def compare_machine(meter: str = "auto", *, seconds: float = 5.0, repeats: int = 3, folder: Path | None = None) -> Comparison:
    """Run short loads under every meter of this machine; how a wall meter relates to the components is kept for later records.

    The arguments are those of `compare_meters`, and `folder` as for `calibrate_machine`.

    Raises:
        ValueError: As for `compare_meters`.
    """
    found = compare_meters(meter, seconds=seconds, repeats=repeats)
    if found.wall is not None:
        print(f"kept in {save_calibration(found.wall, folder)}", file=sys.stderr)
    return found
