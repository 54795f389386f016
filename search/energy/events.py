"""What happened to a component's readings, and what a counter that went down means."""

from __future__ import annotations

from dataclasses import dataclass

#: Readings further apart than this leave a gap in the record.
GAP_SECONDS = 2.0
#: A package may go from idle to this power between two readings; more between them is no wrap.
SUDDEN_WATTS = 1000.0
#: Over a gap the mean power may be so many times the last one.
RISE = 10.0


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a component's readings.

    Attributes:
        t_ns: When it was noticed; a gap ends then.
        kind: ``wrap``, ``reset``, ``gap``, ``error`` or ``switch``.
        seconds: How long the readings were missing, where that applies.
        text: What to tell.
    """

    t_ns: int
    kind: str
    seconds: float = 0.0
    text: str = ""

    def overlap(self, t0_ns: int, t1_ns: int) -> float:
        """Return for how many seconds of a window the readings were missing."""
        begin_ns = self.t_ns - int(self.seconds * 1e9)
        return max(min(t1_ns, self.t_ns) - max(t0_ns, begin_ns), 0) / 1e9


@dataclass(frozen=True, slots=True)
class Fall:
    """The increment behind a counter that went down.

    Attributes:
        joules: What was drawn since the reading before.
        variance: Its squared standard uncertainty, in J^2.
        events: What to tell.
    """

    joules: float
    variance: float
    events: tuple[Event, ...]


def fall(
    source: str, before: float, after: float, now_ns: int, seconds: float, watts: float | None, reach: float | None, tick_seconds: float
) -> Fall:
    """Tell a wrap from a counter that started again, as after a suspend, a reload of the driver or a move of the virtual machine.

    A wrap is taken for granted only where the power that it implies is one.

    Args:
        source: Name of the source.
        before: Last reading in joules.
        after: This one, which is less.
        now_ns: Time of this one.
        seconds: Time between the two.
        watts: Power before, or None when it is not known yet.
        reach: Range of the counter in joules, or None when it does not wrap.
        tick_seconds: Refresh period.
    """
    usual = watts or 0.0
    # Lost at a restart is what was drawn since the last refresh before, and what the restarted counter has not shown yet.
    restarted = (usual * (seconds + tick_seconds)) ** 2
    if reach is None:
        return Fall(after, restarted, (Event(now_ns, "reset", seconds, f"{source} counter started again at zero"),))
    wrapped = after - before + reach
    likely = SUDDEN_WATTS * (seconds if watts is None else min(seconds, GAP_SECONDS))
    if wrapped > max(likely, RISE * usual * seconds):
        text = f"{source} counter started again: for a wrap it would have counted {wrapped / seconds:.0f} W"
        return Fall(after, restarted, (Event(now_ns, "reset", seconds, text),))
    missed = max(round((usual * seconds - wrapped) / reach), 0)
    wraps = tuple(Event(now_ns, "wrap") for _ in range(1 + missed))
    if missed or usual * seconds > reach / 2:
        text = f"{seconds:.0f} s without a reading: the counter wrapped more than once, {missed + 1} times by its last power"
        return Fall(wrapped + missed * reach, reach**2 / 12, (*wraps, Event(now_ns, "gap", text=text)))
    return Fall(wrapped, 0.0, wraps)
