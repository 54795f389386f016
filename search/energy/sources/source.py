"""What a meter is: a source that lists what it can read, and reads it; the clock that it reads by, and the units of energy."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

#: How a meter's number came about, and any number: ``mixed`` is the quality of a sum of measured and estimated parts.
MeterQuality = Literal["measured", "estimated"]
Quality = Literal[MeterQuality, "mixed", "absent"]
SECONDS_PER_HOUR = 3600.0
JOULES_PER_WH = 3600.0
JOULES_PER_KWH = 3.6e6
#: Returns nanoseconds that never go back; on Linux all processes of a machine share the epoch of ``time.monotonic_ns``.
Clock = Callable[[], int]

NANO = 1_000_000_000
LINUX = sys.platform == "linux"
#: Refresh period of a power sensor, as long as nothing better is known. Source: Yang et al. 2024, arXiv:2312.02741 (20 to 100 ms by model).
POWER_TICK_SECONDS = 0.1


@dataclass(frozen=True)
class Capability:
    """What a source can measure of one component of the machine, found out by trying.

    Attributes:
        component: Name, e.g. ``gpu:GPU-1a2b``, ``cpu:pkg0``, ``dram:0``, ``cpu``, ``wall``.
        boundary: Which parts of the machine the number covers, in words.
        reason: Why it is absent, or what restricts it; None when there is nothing to add.
        remedy: One line that would make it available, or None.
        tick_seconds: Period at which the counter is refreshed; None when it must be learnt.
        range_joules: The counter starts again at zero after this much; None when it does not.
        resolution_joules: Step of the counter.
        lag_seconds: A reading of the power may be as old as this.
        mean_seconds: A reading of the power is the mean of so long before it; zero for the power of an instant.
        smooths: Whether a reading that is called an instant's may be a mean of a tenth of a second, which hides pulses as short.
        counter_lag_seconds: The counter may show what was drawn until so long ago, besides its known delay.
        counter_delay_seconds: The counter shows what was drawn until so long ago: measured.
        most_watts: It draws no more than this over seconds, or None when nobody tells.
        sees: Share of the time in which the sensor of the power measures.
        counter_sees: Share of the time that the counter accounts for.
        rest_seconds: A reading of the counter is dear: between the edges of windows this much time lies between two, and none is made by
            the thread that opens or closes a window. Zero where it costs next to nothing.
        never_still: Whether a counter that stands still must be broken, since what it counts always draws power.
        gain_u: Relative standard uncertainty of the scale, common to all windows.
        counts: Whether it may enter a sum; False for cross-checks and for other boundaries (wall).
        covers: Families that it accounts for; empty means the component's own.
        attribution: ``exclusive``, or with whom the energy is shared whatever runs here.
    """

    component: str
    source: str
    available: bool
    quality: MeterQuality = "measured"
    boundary: str = ""
    reason: str | None = None
    remedy: str | None = None
    tick_seconds: float | None = None
    range_joules: float | None = None
    resolution_joules: float = 0.0
    lag_seconds: float = 0.0
    mean_seconds: float = 0.0
    smooths: bool = False
    counter_lag_seconds: float = 0.0
    counter_delay_seconds: float = 0.0
    most_watts: float | None = None
    sees: float = 1.0
    counter_sees: float = 1.0
    rest_seconds: float = 0.0
    never_still: bool = False
    gain_u: float = 0.05
    needs_root: bool = False
    counts: bool = True
    covers: tuple[str, ...] = ()
    attribution: str = "exclusive"

    @property
    def families(self) -> tuple[str, ...]:
        """Return what this component accounts for: two sources of one family would bill the same joules twice."""
        if self.covers:
            return self.covers
        family = self.component.split(":", 1)[0]
        return (self.component,) if family == "gpu" else (family,)


class Reading(NamedTuple):
    """One reading of one component; a tuple, since many are made every second and a frozen dataclass takes longer.

    A counter and a power may come together: the counter is the account, the power its cross-check and its stand-in.

    Attributes:
        half_width_ns: Half of the time that the read took around its midpoint ``t_ns`` on ``time.monotonic_ns``.
        counter_joules: Cumulative energy; may wrap at the capability's range.
    """

    component: str
    t_ns: int
    half_width_ns: int = 0
    counter_joules: float | None = None
    watts: float | None = None
    error: str | None = None


class Source(Protocol):
    """A meter. Reads may come from two threads at once (the sampler's and the one that opens a window).

    A source may also have ``fast_read()``, a cheaper ``read`` for between the edges of windows whose half-widths show what it is less
    exact by, ``devices()`` with facts for the description of the hardware, and the methods of ``Busy`` and ``Observer``.
    """

    name: str

    def probe(self) -> tuple[Capability, ...]:
        """Try what can be read; absent components come back with the reason, never as an exception."""

    def read(self) -> tuple[Reading, ...]:
        """Read every available component; a failure is a reading with an error, never an exception."""

    def close(self) -> None:
        """Release what was opened; may be called twice."""


class Busy(Protocol):
    """What a source may offer besides: how busy its devices are."""

    def utilisation(self) -> dict[str, float]:
        """Return the share of the last moments in which each device worked, 0 to 1; one that does not report it is left out."""


class Observer(Protocol):
    """What a source may offer besides: facts about the device that explain a reading."""

    def edges(self) -> dict[str, dict[str, float | int | str | None]]:
        """Return temperature, clocks and throttling by component."""

    def foreign(self) -> dict[str, tuple[int, ...]]:
        """Return the process ids of others that use each component."""
