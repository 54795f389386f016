"""One component of one meter: readings come in; its cumulative curve, and what a window took of it, come out."""

from __future__ import annotations

import math
import statistics
from array import array
from bisect import bisect_left, bisect_right
from itertools import pairwise

from .counter import CounterState, Event
from .curve import REACH_SECONDS, Curve, Point, PowerIntegral
from .host import Idle
from .readings import GAP_SECONDS, UpdatePeriod
from .record import Component, at_once
from .sources.source import NANO, POWER_TICK_SECONDS, Capability, Quality, Reading

#: Refresh period that is assumed of a counter until it is learnt (NVML: about 100 ms).
ASSUMED_TICK_NS = 100_000_000
#: Burst polling that is to learn the period lasts at most so long.
LEARNING_NS = 2_500_000_000
#: A counter that stands still for this long while the power sensor shows power is taken for frozen.
FROZEN_SECONDS = 1.0
STANDS_STILL = f"the counter has stood still for more than {FROZEN_SECONDS:.0f} s: broken, since a part that is on always draws power"
#: A counter whose ratio to the integrated power is outside of this range is dropped.
DROPPED = (0.4, 2.5)
#: The two are compared over stretches of this length. A load nearly in step with a sensor drifts through its phases meanwhile.
CHECK_SECONDS = 9.0
#: Counter over integrated power: outside of this range the record notes that the two differ.
REMARKED = (0.85, 1.15)
#: Nodes that tell how often a meter is read.
RECENT = 12
#: A sensor that works part of the time does so once in this time. Source: Yang et al. 2024, arXiv:2312.02741.
SEEN_EVERY_SECONDS = 0.1


class MeterChannel:
    """Turns the readings of one component into a curve.

    The counter is the account and the power its cross-check; a counter that cannot be right is replaced by the integrated power.

    Attributes:
        period: When the counter is refreshed, as far as it must be learnt; None when it is known beforehand or there is no counter.
        curves: The counter's account, and beside it the integrated power where each reading is that of an instant.
        integrating: Whether the curve is the integrated power.
        revision: How often its past was written anew.
        idle: What it draws while nothing is done; None before the first idle window.
    """

    def __init__(self, capability: Capability, *, counts: bool) -> None:
        self.capability, self.counts = capability, counts
        self.gain_u = capability.gain_u
        self._fixed_period_ns = None if capability.tick_seconds is None else int(capability.tick_seconds * NANO)
        self.period = UpdatePeriod(ASSUMED_TICK_NS) if self._fixed_period_ns is None else None
        self._delay_ns = round(capability.counter_delay_seconds * NANO)
        self._counter: CounterState | None = None
        self._power = PowerIntegral(capability)
        self._range = (math.inf, 0.0)
        self.curve = Curve(self.period, capability.resolution_joules, shape=self._power.curve)
        self.curves = (self.curve,) if self._power.ripple is None else (self.curve, self._power.curve)
        self.reads = array("q")
        self.events: list[Event] = []
        self.integrating, self.revision = False, 0
        self.idle: Idle | None = None

    @property
    def idle_watts(self) -> float | None:
        """Power while nothing is done, or None while it is not known."""
        return None if self.idle is None else self.idle.watts

    @property
    def needs_burst(self) -> bool:
        """Whether the refreshes of this component are worth polling for around the edges of windows."""
        return self._power.learning if self.integrating else self.period is not None and self._counter is not None

    def awaited(self, since_ns: int, now_ns: int) -> bool:
        """Whether a refresh after ``since_ns`` is still to come: burst polling lasts until it is seen, or does not come.

        Until the period, or how long a power is held, is learnt, several are awaited; at the start, until the rhythm is confirmed.
        """
        first = self.reads[0] if self.reads else now_ns
        if not self.needs_burst or self.period is None or self._counter is None:
            return self.needs_burst and now_ns - first < LEARNING_NS
        if not self.period.settled and now_ns - first < LEARNING_NS:
            return True
        if not self.period.learnt:
            return now_ns - max(since_ns - 5 * ASSUMED_TICK_NS, first) < LEARNING_NS
        return self._counter.moved_ns <= since_ns and now_ns - since_ns < 1.5 * self.period.period_ns + self._delay_ns

    def add(self, reading: Reading) -> None:
        """Enter one reading; what cannot be energy is an error, never a number."""
        _, t_ns, half_ns, joules, watts, bad = reading
        for value in (joules, watts):
            if bad is None and value is not None and not 0 <= value < math.inf:
                bad = f"{self.capability.source} must give finite values >= 0, got {value!r}; refused"
        if bad is None and joules is None and watts is None:
            bad = f"{self.capability.source} gave no number"
        if bad is not None:
            self._note(t_ns, bad)
            return
        if self.reads and t_ns <= self.reads[-1]:
            return
        away = (t_ns - self.reads[-1]) / NANO if self.reads else 0.0
        if away > GAP_SECONDS and away > 2 * (interval_seconds(self) or 0.0):  # a logger may write a row every few seconds
            self.events.append(Event(t_ns, "gap", seconds=away))
        self.reads.append(t_ns)
        if watts is not None:
            self._range = (min(self._range[0], watts), max(self._range[1], watts))
            self._power.add(t_ns, watts, self.curve if self.integrating else self._power.curve)
        if not self.integrating:
            if joules is not None:
                self._count(joules, t_ns - self._delay_ns, half_ns)
            if watts is not None:
                self._check(t_ns)

    def _count(self, joules: float, now: int, slack: int) -> None:
        state = self._counter
        if state is None:
            longest = ASSUMED_TICK_NS if self._fixed_period_ns is None else self._fixed_period_ns
            self.curve.append(now - longest - slack, now + slack, 0.0)
            self._counter = CounterState(joules, now, now, now)
            return
        delta, state = self._gained(state, joules, now, slack), self._counter or state
        state.widest_ns = max(state.widest_ns, now - state.seen_ns)
        low = state.seen_ns
        if self.period is None:
            period = self._fixed_period_ns or 0
            if delta > 0:
                self._move(state, max(low, now - period) - slack, now + slack, delta)
            elif self.capability.never_still and (now - state.moved_ns) / NANO > FROZEN_SECONDS:
                if self._note(now, STANDS_STILL):  # as some virtual machines show it; not a zero
                    self.curve.cut(state.moved_ns)
                    self.revision += 1
            elif now - state.seen_ns > period:
                self._move(state, now - period - slack, now + slack, 0.0)
        elif delta > 0:
            sharp = self.period.period_ns / 4
            granted = self.period.jitter_ns
            if not state.odd:  # else it may be no refresh
                self.period.observe(low, now, unbroken=state.widest_ns <= sharp)
            if self.period.jitter_ns > granted:
                for i in range(len(self.curve)):  # refreshes turned out to be less regular than they were taken for
                    self.curve.half[i] += int(self.period.jitter_ns - granted)
            if self.period.learnt:
                low = max(low, now - self.period.longest_ns)
            self._move(state, low - slack, now + slack, delta)
            if now - low <= sharp:
                self.curve.refine()
            state.widest_ns = 0
        if delta > 0:
            state.moved_ns = now
        state.joules, state.seen_ns = joules, now

    def _note(self, t_ns: int, error: str) -> bool:
        """Note an error, unless it is the last thing that was noted; return whether it was noted."""
        new = not (self.events and self.events[-1].kind == "error" and self.events[-1].text == error)
        self.events += [Event(t_ns, "error", text=error)] if new else []
        return new

    def _move(self, state: CounterState, low_ns: int, high_ns: int, delta: float) -> None:
        state.total += delta
        if self.capability.counter_sees < 1 and self.period is not None and len(self.curve) > 2:
            # A change of power between two turns of a part-time sensor is seen up to a period late.
            blind = (self.curve.change(len(self.curve) - 2) * self.period.period_ns / NANO) ** 2 / 12
            # It samples once in each of its turns, from the power as it comes and goes.
            swing = self.curve.ripple_watts(len(self.curve) - 2) if self._power.ripple is None else self._power.ripple.wide_watts
            blind += swing**2 * (high_ns - self.curve.t[-1]) / NANO * SEEN_EVERY_SECONDS
            state.doubt += (1 - self.capability.counter_sees) * blind
        ripple = self._power.swing_watts if self._power.curve.t else None
        self.curve.append(low_ns, high_ns, state.total, variance=state.doubt, ripple=ripple)
        state.doubt = 0.0

    def _gained(self, state: CounterState, joules: float, now: int, slack: int) -> float:
        """Return the increment to a reading; readings that it shows to have been wrong are taken back."""
        period_ns = self._fixed_period_ns if self.period is None else self.period.period_ns
        found = state.worth(self.capability, joules, now, (period_ns or 0) + slack, self.curve)
        if isinstance(found, CounterState):
            wrong = f"counter gave {state.joules:.0f} J between {found.joules:.0f} and {joules:.0f} J: left out as wrong"
            lasting = {("error", True), ("switch", True), ("gap", False)}
            self.events = [one for one in self.events if one.t_ns <= found.seen_ns or (one.kind, bool(one.text)) in lasting]
            self.events.append(Event(now, "gap", text=f"{self.capability.source} {wrong}"))
            self._counter = found
            if found.nodes < len(self.curve):
                self.curve.cut(self.curve.t[found.nodes - 1])
                self.revision += 1
            return joules - found.joules
        self.events.extend(found.events)
        state.doubt += found.variance
        return found.joules

    def _check(self, now: int) -> None:
        """Compare the counter with the integrated power, and drop a counter that cannot be right."""
        state, power = self._counter, self._power.curve
        if state is None:
            self._switch(now, None)
            return
        still = (now - state.moved_ns) / NANO
        if still > max(FROZEN_SECONDS, 8 * (self.period.period_ns if self.period else 0) / NANO) + 2 * self.capability.rest_seconds:
            begin = power.at(state.moved_ns)
            drawn = 0.0 if begin is None else power.joules[-1] - begin.joules
            if drawn > max(1.0, 10 * self.capability.resolution_joules):
                self._switch(state.moved_ns, f"the counter stood still for {still:.1f} s while power was drawn")
                return
        if (now - state.checked_ns) / NANO >= CHECK_SECONDS:
            ratio = self.ratio(state.checked_ns, state.moved_ns)
            state.agreed = state.agreed or (ratio is not None and REMARKED[0] <= ratio <= REMARKED[1])
            if ratio is not None and not DROPPED[0] <= ratio <= DROPPED[1] and not self._possible(state):
                self._switch(state.checked_ns, f"the counter gave {ratio:.2f} of the integrated power")
            else:
                state.checked_ns = state.moved_ns

    @property
    def doubtful(self) -> bool:
        """Whether the counter has not agreed with the integrated power yet."""
        return self._counter is not None and not self.integrating and not self._counter.agreed

    def _possible(self, state: CounterState) -> bool:
        """Whether a counter that differs from the integrated power may be right: a sensor in step with its load sees one phase of it.

        No counter changes its scale, so one that agreed once is right; else it must say a power that the part may draw.
        """
        mean = (self.curve.between(state.checked_ns, state.moved_ns) or 0.0) / max(state.moved_ns - state.checked_ns, 1) * NANO
        return state.agreed or self._range[0] < mean < max(self._range[1], self.capability.most_watts or 0.0)

    def _switch(self, since_ns: int, why: str | None) -> None:
        """Let the integrated power take the counter's place from ``since_ns`` on."""
        if why is not None:
            self.events.append(Event(since_ns, "switch", text=f"{why}; instant power is integrated instead"))
            self.curve.graft(self._power.curve, since_ns)
        else:
            self.curve = self._power.curve
        self.revision += 1
        self.period = None
        self.gain_u = max(self.gain_u, 0.1 if why else 0.07)
        self.integrating = True

    def ratio(self, t0_ns: int, t1_ns: int) -> float | None:
        """Return counter over integrated power, where both know the window well enough to tell."""
        if self.integrating or not self._power.curve or (t1_ns - t0_ns) / NANO < FROZEN_SECONDS:
            return None
        ends = [curve.at(t) for curve in (self.curve, self._power.curve) for t in (t0_ns, t1_ns)]
        if any(end is None for end in ends):
            return None
        a, b, c, d = (end for end in ends if end is not None)
        power = d.joules - c.joules
        doubt = 2 * math.sqrt(a.variance + b.variance + c.variance + d.variance + max(d.grown - c.grown, 0.0))
        return (b.joules - a.joules) / power if power > 0 and doubt < 0.1 * power else None


def component(channel: MeterChannel, t0_ns: int, t1_ns: int) -> Component:
    """Return what one component took between two instants; what is not known is None with the reason."""
    capability, idle, seconds = channel.capability, channel.idle, (t1_ns - t0_ns) / NANO
    refresh, reach = tick_seconds(channel), reach_seconds(channel)
    begin, end = channel.curve.at(t0_ns, reach), channel.curve.at(t1_ns, reach)
    inside = [event for event in channel.events if t0_ns < event.t_ns <= t1_ns]
    away = math.fsum([event.overlap(t0_ns, t1_ns) for event in channel.events if event.kind == "gap"])
    joules = u_random = u_systematic = net = u_net = ratio = None
    quality: Quality = capability.quality
    if begin is None or end is None or t1_ns < t0_ns:
        quality, short = "absent", False
        apart = f"{capability.reason}; " if capability.reason and not capability.counts else ""  # that it counts nowhere comes first
        reason: str | None = apart + _why_unknown(channel, t0_ns, t1_ns)
    else:
        joules = max(end.joules - begin.joules, 0.0)
        u_random = math.sqrt(_variance(channel, begin, end, seconds) + _late(channel, t0_ns, t1_ns))
        ratio, scale_u = channel.ratio(t0_ns, t1_ns), channel.gain_u
        if ratio is not None and channel.doubtful and not DROPPED[0] <= ratio <= DROPPED[1]:
            scale_u = math.hypot(scale_u, abs(1 - 1 / ratio) / math.sqrt(3))  # either may be right
        u_systematic = scale_u * joules
        if idle is not None:
            net = joules - idle.watts * seconds
            u_net = None if idle.windows < 2 else math.hypot(u_random, idle.u_watts * seconds, scale_u * net)
        short = seconds < 2 * (refresh or 0.0) or 2 * u_random >= joules
        reason = capability.reason if ratio is None and not channel.events else _remarks(channel, inside, t1_ns, away, ratio)
    return at_once(
        Component,
        name=capability.component,
        joules=joules,
        source=capability.source,
        quality=quality,
        boundary=capability.boundary,
        counts=channel.counts,
        reads=bisect_right(channel.reads, t1_ns) - bisect_left(channel.reads, t0_ns),
        tick_seconds=refresh,
        wraps=sum([event.kind == "wrap" for event in inside]),
        resets=sum([event.kind == "reset" for event in inside]),
        gap_seconds=away,
        u_random_joules=u_random,
        u_systematic_joules=u_systematic,
        idle_watts=channel.idle_watts,
        net_joules=net,
        u_net_joules=u_net,
        attribution=capability.attribution,
        below_resolution=short,
        reason=reason,
        cross_check=ratio,
    )


def tick_seconds(channel: MeterChannel) -> float | None:
    """Return the refresh period of a component, or None while it is not known."""
    if channel.integrating:
        # Polled more often than the sensor is refreshed, the refresh counts; a plug or a logger that answers less often is that slow.
        interval = interval_seconds(channel) or 0.0
        return round(interval, 1) if interval > 3 * POWER_TICK_SECONDS else POWER_TICK_SECONDS
    if channel.period is not None:
        return channel.period.period_ns / NANO if channel.period.learnt else None
    return channel.capability.tick_seconds


def interval_seconds(channel: MeterChannel) -> float | None:
    """Return the time between two nodes of a component of late, the median; None with fewer than two."""
    times = channel.curve.t if len(channel.curve) > 1 else channel.reads
    spans = [later - earlier for earlier, later in pairwise(times[-RECENT:])]
    return statistics.median(spans) / NANO if spans else None


def reach_seconds(channel: MeterChannel) -> float:
    """Return how far beyond its nodes a component's power is taken to continue: what is seldom refreshed or read has its next one later."""
    return max(REACH_SECONDS, 3 * (tick_seconds(channel) or ASSUMED_TICK_NS / NANO), 2 * channel.capability.rest_seconds)


def _variance(channel: MeterChannel, begin: Point, end: Point, seconds: float) -> float:
    # Windows begin and end where their load does: what is laid to the wrong side of one edge is missing at the other too.
    variance = (math.sqrt(begin.variance) + math.sqrt(end.variance)) ** 2 + max(end.grown - begin.grown, 0.0)
    if begin.segment == end.segment and len(channel.curve) > 1:
        # Both ends lie between the same two nodes: all that is known of the power is the segment's mean, its neighbours and its ripple.
        variance += (channel.curve.spread(begin.segment) * seconds / 2) ** 2
    return variance


def _late(channel: MeterChannel, t0_ns: int, t1_ns: int) -> float:
    """Return the variance of a window that comes from a late counter: the lag times what the power differs by between its ends."""
    lag = 0.0 if channel.integrating else channel.capability.counter_lag_seconds
    if lag == 0.0:
        return 0.0
    half_ns, reach_ns = (t1_ns - t0_ns) // 2, int(2 * lag * NANO)
    # What is around the two ends of a short window is one stretch.
    around = [(t0_ns + half_ns, half_ns + reach_ns)] if half_ns < reach_ns else [(t0_ns, reach_ns), (t1_ns, reach_ns)]
    found = [[curve.watts_around(*place) for place in around] for curve in channel.curves]
    ends = [known for both in found if (known := [end for end in both if end is not None])]
    watts = max((max(least for _, least in both) - min(most for most, _ in both) for both in ends), default=0.0)
    return (max(watts, 0.0) * lag) ** 2 / 3


def _why_unknown(channel: MeterChannel, t0_ns: int, t1_ns: int) -> str:
    if t1_ns < t0_ns:
        return f"the window ends {(t0_ns - t1_ns) / NANO:.3f} s before it begins"
    errors = [event.text for event in channel.events if event.kind == "error" and event.t_ns <= t1_ns]
    if errors:
        return errors[-1]
    if len(channel.reads) < 2:
        return f"{channel.capability.source} was read {len(channel.reads)} times; an energy needs two readings"
    away = max(channel.reads[0] - t1_ns, t0_ns - channel.reads[-1]) / NANO
    clock = f", but {away:.2g} s away from it: t_ns of its readings must be of time.monotonic_ns()" if away > 86400 else ""  # a day
    return f"{channel.capability.source} was not read within reach of the window's edges{clock}"


def _remarks(channel: MeterChannel, inside: list[Event], t1_ns: int, away: float, ratio: float | None) -> str | None:
    texts = [channel.capability.reason] if channel.capability.reason else []
    texts += [event.text for event in channel.events if event.kind == "switch" and event.t_ns <= t1_ns][-1:]
    if away:
        texts.append(f"{away:.1f} s of it without a reading")
    for kind in ("error", "reset", "gap"):
        texts += [event.text for event in inside if event.kind == kind and event.text][-1:]
    if ratio is not None and not REMARKED[0] <= ratio <= REMARKED[1]:
        texts.append(f"the driver's counter is {ratio:.2f} of its integrated power")
    return "; ".join(texts) or None
