"""Which meters work on this machine, in the order of trust, and why the others do not."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from .calibrations import calibrated_coefficients, calibrated_lag
from .sources import cpu_coefficients, cpu_time
from .sources.nvml import Nvml
from .sources.rapl import HWMON, POWERCAP, Grace, Rapl
from .sources.source import Capability, Clock, Source

#: What ``auto`` tries, best first: counters of the hardware before estimates.
AUTO = ("nvml", "rapl", "grace", "cpu_time")
#: What helps where no counter can be read.
WALL = "give a wall meter: --meter auto,wall=http://..."
#: Sources in files of their own, imported when they are named.
NAMED = ("codecarbon", "wall", "replay")
#: A counter that has not moved after so long is none: RAPL's are refreshed every millisecond.
WATCH_SECONDS = 0.05


@dataclass(frozen=True)
class Discovery:
    """The sources that can read something, best first, and what cannot be read, with the reason and the remedy."""

    sources: tuple[Source, ...]
    absent: tuple[Capability, ...]

    @property
    def present(self) -> tuple[Capability, ...]:
        """Return what can be read; asks the sources again."""
        return tuple(found for source in self.sources for found in source.probe() if found.available)

    def close(self) -> None:
        """Release the sources; a ledger over them does it by itself when it stops."""
        for source in self.sources:
            source.close()


def discover(
    spec: str = "auto",
    *,
    cpu_watts: float | None = None,
    coefficients: cpu_coefficients.CpuCoefficients | None = None,
    calibrations: Path | None = None,
    powercap: Path = POWERCAP,
    hwmon: Path = HWMON,
    clock: Clock = time.monotonic_ns,
    environment: Mapping[str, str] | None = None,
    used: Collection[str] | None = None,
) -> Discovery:
    """Find the meters of this machine.

    Args:
        spec: ``auto``, or names separated by commas: ``nvml``, ``rapl``, ``grace``, ``cpu_time``, ``codecarbon``,
            ``wall=http://...``, ``replay=FILE``; ``auto`` may be one of them. Of two that cover the same part of the machine the first
            counts and the other is a cross-check. ``cpu_time=idle+memory`` also shows, outside of sums, what these draw whatever runs.
        cpu_watts: Watts of the whole CPU with all cores busy, for ``cpu_time``; goes before what was calibrated on this machine.
        coefficients: Coefficients for ``cpu_time``; they go before both.
        calibrations: Where ``joulefront doctor --calibrate`` has kept them; None for the user's cache folder.
        powercap: Root of the powercap tree, for ``rapl``.
        hwmon: Root of the kernel's sensors, for ``grace``.
        clock: Monotonic nanoseconds.
        environment: Variables that tell which GPUs are ours (``CUDA_VISIBLE_DEVICES``); the process's own by default.
        used: Components of the GPUs that are used, e.g. ``gpu:GPU-1a2b``: others are shown and not counted. None counts all.

    Raises:
        ValueError: If a name is unknown, one that needs a value has none, or this machine's calibration is damaged.
    """

    def estimate(parts: str | None) -> cpu_time.CpuTime:
        known, processor = coefficients, cpu_coefficients.identify()
        if known is None and cpu_watts is not None:
            known = cpu_coefficients.from_cpu_watts(cpu_watts)
        known = known or calibrated_coefficients(calibrations) or cpu_coefficients.public_coefficients(processor)
        return cpu_time.CpuTime(known or cpu_coefficients.DEFAULT, clock, standing=cpu_coefficients.standing(parts, processor))

    makers: dict[str, Callable[[str | None], Source]] = {
        "nvml": lambda _: Nvml(clock=clock, environment=environment, used=used, lag_of=lambda facts: calibrated_lag(facts, calibrations)),
        "rapl": lambda _: Rapl(powercap, clock=clock, watch_seconds=WATCH_SECONDS),
        "grace": lambda _: Grace(hwmon, clock),
        "cpu_time": estimate,
    }
    sources: list[Source] = []
    absent: list[Capability] = list(_not_built())
    covered: set[str] = set()
    for name, argument, automatic in _names(spec):
        source: Source = (
            makers[name](argument) if name in makers else importlib.import_module(f".sources.{name}", __package__).from_spec(argument)
        )
        found = source.probe()
        present = [capability for capability in found if capability.available]
        # Asked for by name, a second meter of the same part stays as a cross-check; found by itself, an estimate beside a
        # measurement would only confuse.
        if automatic and present and all(covered.intersection(capability.families) for capability in present):
            source.close()
            continue
        if not found and not automatic:
            found = (Capability(name, name, False, reason=f"this machine has no {name}"),)
        absent += [capability for capability in found if not capability.available]
        covered.update(family for capability in present if capability.counts for family in capability.families)
        if present:
            sources.append(source)
        else:
            source.close()
    return Discovery(tuple(sources), tuple(absent))


def _names(spec: str) -> list[tuple[str, str | None, bool]]:
    if not isinstance(spec, str):
        raise ValueError(f"meter must be a text, got {spec!r}; write 'auto' or names such as 'nvml,rapl'")
    chosen: list[tuple[str, str | None, bool]] = []
    for item in (part.strip() for part in spec.split(",")):
        name, _, argument = item.partition("=")
        if name == "auto":
            chosen += [(source, None, True) for source in AUTO]
        elif name in AUTO or name in NAMED:
            chosen.append((name, argument or None, False))
        else:
            raise ValueError(f"meter (--meter) must be auto or among {', '.join((*AUTO, *NAMED))}, got {name!r}")
    named = {one[0]: one for one in chosen if not one[2]}  # what is named replaces what `auto` means, at its place
    return list({one[:2]: one for one in (named.get(one[0], one) if one[2] else one for one in chosen)}.values())


def _not_built() -> tuple[Capability, ...]:
    """Name the meters that other machines have and that this version does not read."""
    found = []
    if Path("/sys/class/kfd/kfd/topology").exists():
        reason = "AMD GPUs are not read by this version"
        found.append(Capability("gpu:amd", "amdsmi", False, boundary="board", reason=reason, remedy=WALL))
    if Path("/System/Library/Frameworks/IOKit.framework").exists():
        reason = "Apple's power counters are not read by this version"
        found.append(Capability("soc:apple", "ioreport", False, boundary="package", reason=reason, remedy=WALL))
    return tuple(found)
