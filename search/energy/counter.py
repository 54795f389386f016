"""What the next reading of an energy counter is worth: a gain, a wrap, a restart, or a sign that readings before it were wrong."""

from __future__ import annotations

from dataclasses import dataclass, replace

from .curve import Curve
from .readings import GAP_SECONDS
from .sources.source import NANO, Capability

#: A package may go from idle to this power between two readings; more between them is no wrap, and doubtful as a gain.
SUDDEN_WATTS = 1000.0
#: Over a gap the mean power may be so many times the last one.
RISE = 10.0
#: A counter that gains more than this, and than so many times the usual power, is another one; the last while no power is known.
MOST_WATTS, MOST_RISE, MOST_WATTS_AT_FIRST = 1e5, 100.0, 1e6
#: Relative standard uncertainty of the power over a gap, by the one before it.
GAP_U = 0.5
#: After so many changes a counter does not come back to where it was.
ACCEPTED = 4
#: A counter that falls by less than this share of itself has been rounded.
ROUNDING = 1e-12


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a component's readings.

    Attributes:
        t_ns: When it was noticed; a gap ends then.
        kind: ``wrap``, ``reset``, ``gap``, ``error`` or ``switch``.
        seconds: How long the readings were missing, where that applies.
    """

    t_ns: int
    kind: str
    seconds: float = 0.0
    text: str = ""

    def overlap(self, t0_ns: int, t1_ns: int) -> float:
        """Return for how many seconds of a window the readings were missing."""
        return max(min(t1_ns, self.t_ns) - max(t0_ns, self.t_ns - int(self.seconds * NANO)), 0) / NANO


@dataclass(frozen=True, slots=True)
class Step:
    """The increment to a reading, its squared standard uncertainty in J^2 and what a record shows of it."""

    joules: float
    variance: float = 0.0
    events: tuple[Event, ...] = ()


@dataclass(slots=True)
class CounterState:
    """What is known of a counter by its last reading.

    Attributes:
        moved_ns: When it was last seen to have moved.
        checked_ns: Until when it was compared with the integrated power.
        agreed: Whether the two agreed over such a stretch.
        total: Energy since its first reading, wraps and restarts corrected, in joules.
        doubt: Variance of increments that no node of the curve shows yet, in J^2.
        widest_ns: Longest time between two readings since it moved.
        odd: Whether the last change was no gain or wrap as they are usual.
        before: The states before its last changes, each with the ``nodes`` and ``watts`` of the curve, and the ``most`` these could become.
    """

    joules: float
    seen_ns: int
    moved_ns: int
    checked_ns: int
    total: float = 0.0
    doubt: float = 0.0
    widest_ns: int = 0
    agreed: bool = False
    odd: bool = False
    before: tuple[CounterState, ...] = ()
    nodes: int = 0
    watts: float = 0.0
    most: float = 0.0

    def worth(self, known: Capability, joules: float, now_ns: int, tick_ns: float, curve: Curve) -> Step | CounterState:
        """Return the increment to the next reading, or the state that it goes on from where the readings since were wrong.

        ``tick_ns`` is how old a reading may be, ``curve`` the energy so far. A rise beyond what is usual counts, but its excess may be an
        error: the half-width of a uniform distribution (GUM 4.3.7).
        """
        delta, seconds = joules - self.joules, (now_ns - self.seen_ns) / NANO
        if -ROUNDING * self.joules <= delta <= 0 and seconds <= GAP_SECONDS:
            return Step(0.0)
        watts = curve.watts(len(curve) - 2) if len(curve) > 1 else None
        mean, late = (curve.joules[-1] - curve.joules[0]) / max(curve.t[-1] - curve.t[0], 1) * NANO, watts or 0.0
        sure, usual, step = known.most_watts if known.tick_seconds is not None else None, max(late, mean), 2 * known.resolution_joules
        most = sure or max(SUDDEN_WATTS, RISE * usual, known.most_watts or 0.0)
        another = sure or (max(MOST_WATTS, MOST_RISE * usual) if usual else MOST_WATTS_AT_FIRST)
        since = (now_ns - self.moved_ns + 2 * tick_ns) / NANO
        likely = most * since + step
        if 0 <= delta <= likely:
            found = turned(Step(delta), now_ns, seconds, late if seconds > GAP_SECONDS else min(late, mean), known.range_joules)
        elif 0 <= delta <= another * since + step:
            text = f"{known.source} counter rose by {delta:.0f} J within {seconds:.2g} s, more than it usually does: uncertain"
            found = Step(delta, (delta - likely) ** 2 / 3, (Event(now_ns, "gap", text=text),))
        else:
            found = fall(known.source, self.joules, joules, now_ns, (now_ns - self.moved_ns) / NANO, watts, known.range_joules)
        self.odd = delta > likely or (delta < 0 and found.events[0].kind != "wrap")
        here = replace(self, nodes=len(curve), watts=mean, most=most, before=())
        states = []
        for place, state in enumerate(self.before):
            back, seconds = joules - state.joules, (now_ns - state.moved_ns + 2 * tick_ns) / NANO
            off = abs(back - state.watts * seconds)
            if delta > 0:
                wrong = self.joules < state.joules and (self.odd or (state.odd and off < abs(delta - state.watts * since)))
            else:  # what a counter shows that began again at zero is no sign that usual gains before were wrong
                wrong = self.odd and (state.odd or joules > state.most * (now_ns - self.seen_ns + 2 * tick_ns) / NANO)
            if wrong and 0 <= back <= state.most * seconds + step:
                states.append((off, -place))
        if states:
            state = self.before[place := -min(states)[1]]
            if not self.odd:  # it may as well have been as it seemed
                self.doubt += curve.grown[-1] - curve.grown[min(state.nodes, len(curve)) - 1]
                state.doubt = self.doubt + (self.total + delta - state.total - joules + state.joules) ** 2 / 3
            return replace(state, before=(*self.before[:place], here), odd=True)  # and it may have been right to be here
        self.before = (*self.before[1 - ACCEPTED :], here)
        if self.odd and found.joules != joules and 0 < -delta <= ACCEPTED * likely:  # a few before may have been too high
            return replace(found, variance=found.variance + delta**2 / 3)
        return found


def fall(source: str, before: float, after: float, now_ns: int, seconds: float, watts: float | None, reach: float | None) -> Step:
    """Tell a wrap from a counter that started again, as after a suspend or a reload of the driver, and both from another counter.

    Wrap and restart are taken for granted only where the power that they imply is one. A virtual machine that was moved goes on with a
    counter that has nothing to do with the one before, and what a laptop draws while it sleeps is counted in a moment of the monotonic
    clock, which stands still meanwhile: the last power is then all that is known. The reading ``before`` and the smaller
    one ``after``, or one that is impossibly larger, are in joules, and it moved last so many seconds ago; ``watts`` is the power before,
    or None when it is not known yet; ``reach`` is the range of the counter in joules, or None when it does not wrap.
    """
    usual = watts or 0.0
    wrapped = None if reach is None else after - before + reach
    likely = SUDDEN_WATTS * (seconds if watts is None else min(seconds, GAP_SECONDS))
    if wrapped is None or not 0 <= wrapped <= max(likely, RISE * usual * seconds) or after > before:
        text = "at zero" if wrapped is None else f"for a wrap it would have counted {wrapped / seconds:.0f} W"
        text, joules = f"{source} counter started again{' ' if wrapped is None else ': '}{text}", after
        if after > before or after > max(SUDDEN_WATTS, RISE * usual) * seconds:
            text = f"{source} counter went from {before:.0f} to {after:.0f} J: another machine's, or this one slept; by its last power"
            joules = usual * seconds
        # Lost at a restart is what was drawn since the last refresh before, and what the restarted counter has not shown yet.
        return Step(joules, (usual * seconds) ** 2, (Event(now_ns, "reset", seconds, text),))
    return turned(Step(wrapped, events=(Event(now_ns, "wrap"),)), now_ns, seconds, usual, reach)


def turned(seen: Step, now_ns: int, seconds: float, watts: float, reach: float | None) -> Step:
    """Return an increment over so many seconds with the wraps in it that nobody saw: as many as the last power ``watts`` says.

    Where they are to be expected, what was drawn meanwhile may be as different as over any gap, see `GAP_U`.
    """
    if reach is None or watts * seconds <= reach / 2:
        return seen
    missed = max(round((watts * seconds - seen.joules) / reach), 0)
    wraps = missed + len(seen.events)
    text = f"wrapped more than once, {wraps} times by its last power" if wraps > 1 else "may have wrapped unseen, by that it did not"
    text = f"{seconds:.1f} s without a reading: the counter, which turns every {reach:.4g} J, {text}; read it more often"
    events = (*seen.events, *(Event(now_ns, "wrap") for _ in range(missed)), Event(now_ns, "gap", text=text))
    return Step(seen.joules + missed * reach, max(reach**2 / 12, (GAP_U * watts * seconds) ** 2), events)
