"""Energy of the CPU from CPU-seconds, where no meter can be read: an estimate, and labelled so."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

from .clock import NANO, Clock
from .process_tree import Tree
from .source import Capability, Reading

#: Watts above idle of one busy logical CPU, when nothing better is known: cloud machines draw 0.74 W per idle and 3.5 W per
#: busy virtual CPU on average.
#: Source: Cloud Carbon Footprint, methodology, appendix I (average of AWS's machines).
DEFAULT_CORE_WATTS = 2.8


@dataclass(frozen=True)
class CpuCoefficients:
    """What a CPU-second costs.

    Attributes:
        core_watts: Power above idle of one busy logical CPU.
        idle_watts: Power of the idle CPU, or None when unknown.
        gain_u: Relative standard uncertainty of ``core_watts``.
        origin: Where the numbers come from, for the record.
    """

    core_watts: float
    idle_watts: float | None = None
    gain_u: float = 0.5
    origin: str = "default"

    def __post_init__(self) -> None:
        """Refuse powers that are not positive.

        Raises:
            ValueError: If a power is not positive.
        """
        if not self.core_watts > 0:
            raise ValueError(f"core_watts must be > 0, got {self.core_watts!r}")
        if self.idle_watts is not None and not self.idle_watts >= 0:
            raise ValueError(f"idle_watts must be >= 0, got {self.idle_watts!r}")


def from_cpu_watts(cpu_watts: float, logical_cpus: int | None = None) -> CpuCoefficients:
    """Return coefficients from the power of the whole CPU with all logical CPUs busy, e.g. its data sheet's.

    Raises:
        ValueError: If ``cpu_watts`` is not positive.
    """
    if not cpu_watts > 0:
        raise ValueError(f"cpu_watts must be > 0, got {cpu_watts!r}: give the watts of the CPU with all cores busy")
    count = logical_cpus or os.cpu_count() or 1
    return CpuCoefficients(core_watts=cpu_watts / count, gain_u=0.3, origin=f"--cpu-watts {cpu_watts:g} over {count} logical CPUs")


DEFAULT = CpuCoefficients(
    core_watts=DEFAULT_CORE_WATTS,
    origin=f"default of {DEFAULT_CORE_WATTS} W per busy logical CPU; give --cpu-watts or run `joulefront doctor --calibrate`",
)


class CpuTime:
    """CPU-seconds of the process tree times watts.

    ``cpu`` is the energy above idle that this process and its children caused: background load changes nothing, and windows of one
    machine compare by the work they did. What the machine draws while idle belongs to nobody's work; when it is known it
    is a line of its own, ``cpu:idle``, outside of the sum.

    This process's own CPU-seconds are exact to a nanosecond. Those of a living child may show up a tick of the kernel later (1 to 10 ms),
    and those of its own ended children 20 ms later; the uncertainty of each reading says so.

    Args:
        coefficients: Watts per busy logical CPU.
        clock: Monotonic nanoseconds.
        tree: Counts the CPU-seconds.
    """

    name = "cpu_time"

    def __init__(self, coefficients: CpuCoefficients = DEFAULT, clock: Clock = time.monotonic_ns, tree: Tree | None = None) -> None:
        self.coefficients = coefficients
        self._clock = clock
        self._tree = tree or Tree()
        self._begin_ns = clock()

    def probe(self) -> tuple[Capability, ...]:
        """Return the estimate, and the idle line when its power is known."""
        known = self.coefficients
        cpu = Capability(
            component="cpu",
            source=self.name,
            available=True,
            quality="estimated",
            boundary="CPU above idle, this process and its children, by CPU-seconds",
            reason=f"estimated: {known.core_watts:.3g} W per CPU-second above idle ({known.origin})",
            tick_seconds=0.0,
            resolution_joules=known.core_watts * 1e-6,
            gain_u=known.gain_u,
        )
        if known.idle_watts is None:
            return (cpu,)
        idle = Capability(
            component="cpu:idle",
            source=self.name,
            available=True,
            quality="estimated",
            boundary="idle CPU of the whole machine",
            reason=f"estimated: {known.idle_watts:.3g} W while the clock runs ({known.origin})",
            tick_seconds=0.0,
            resolution_joules=known.idle_watts * 1e-6,
            gain_u=known.gain_u,
            counts=False,
        )
        return cpu, idle

    def read(self) -> tuple[Reading, ...]:
        """Return the energy by now."""
        return self._reading(exact=True)

    def fast_read(self) -> tuple[Reading, ...]:
        """Return the energy by now, to a timer tick of the kernel: for the readings between the edges of windows."""
        return self._reading(exact=False)

    def _reading(self, *, exact: bool) -> tuple[Reading, ...]:
        before = self._clock()
        used = self._tree.read(exact=exact)
        after = self._clock()
        joules = used.seconds * self.coefficients.core_watts
        # What appears late was drawn early: for the curve, that is a reading whose time is known less well.
        t_ns, half = (before + after) // 2, (after - before) // 2 + int(used.late_seconds * NANO)
        cpu = Reading("cpu", t_ns, half, counter_joules=joules)
        if self.coefficients.idle_watts is None:
            return (cpu,)
        idle = self.coefficients.idle_watts * (t_ns - self._begin_ns) / NANO
        return cpu, Reading("cpu:idle", t_ns, 0, counter_joules=max(idle, 0.0))

    def close(self) -> None:
        """Nothing to release."""
