"""The books of one component: readings come in, its cumulative curve and the events that explain it come out.

A window as a question to the books: what did each component take between two instants?
"""

from __future__ import annotations

import math
import statistics
from array import array
from bisect import bisect_left, bisect_right
from dataclasses import replace
from itertools import pairwise

from .counter import GAP_SECONDS, Event, UpdatePeriod, fall
from .curve import REACH_SECONDS, Curve, Point, Ripple
from .record import Component
from .sources.clock import NANO
from .sources.source import Capability, Reading

#: Refresh period that is assumed of a counter until it is learnt (NVML: about 100 ms).
ASSUMED_TICK_NS = 100_000_000
#: A close look that is to learn the period goes on for at most so long.
LEARNING_NS = 2_500_000_000
#: A counter that stands still for this long while the power sensor shows power is taken for frozen.
FROZEN_SECONDS = 1.0
#: A counter whose ratio to the integrated power is outside of this range is dropped.
DROPPED = (0.4, 2.5)
#: Share of the power that may come and go between two readings of it without being seen.
UNSAMPLED = 0.02
#: The two are compared over stretches of this length.
CHECK_SECONDS = 5.0


class MeterChannel:
    """Turns readings into a curve.

    Args:
        capability: What the source promised at its probe.
        counts: Whether the component enters sums.
    """

    def __init__(self, capability: Capability, *, counts: bool) -> None:
        self.capability = capability
        self.counts = counts
        self.gain_u = capability.gain_u
        self.fixed_tick_ns = None if capability.tick_seconds is None else int(capability.tick_seconds * NANO)
        self.tick = UpdatePeriod(ASSUMED_TICK_NS) if self.fixed_tick_ns is None else None
        # A mean tells of its middle. Inside of it the power is smeared: an eighth of its length for one change of power, twice that here.
        self.middle_ns = int(capability.mean_seconds / 2 * NANO)
        lag_ns = int((capability.lag_seconds + capability.mean_seconds / 4) * NANO)
        self.power = Curve(resolution=capability.resolution_joules, lag_ns=lag_ns)
        self.curve = Curve(self.tick, capability.resolution_joules, shape=self.power)
        self.reads = array("q")
        self.events: list[Event] = []
        self.counter: float | None = None
        self.total = 0.0
        self.doubt = 0.0  # variance of increments that no node shows yet
        self.seen_ns = 0
        self.moved_ns = 0
        self.widest_ns = 0
        self.watts: tuple[int, float] | None = None
        self.ripple = None if capability.mean_seconds else Ripple()  # a mean shows none
        self.integrating = False
        self.checked_ns = 0
        self.revision = 0  # how often the past was written anew
        self.idle_watts: float | None = None
        self.idle_u_watts: float | None = None

    @property
    def looks_closely(self) -> bool:
        """Whether the refreshes of this component are worth a close look around the edges of windows."""
        return self.tick is not None and self.counter is not None and not self.integrating

    @property
    def swing_watts(self) -> float | None:
        """Standard deviation of the power that comes and goes between readings, or None when nobody sees it."""
        return None if self.ripple is None else self.ripple.watts

    def awaited(self, since_ns: int, now_ns: int) -> bool:
        """Whether a refresh after ``since_ns`` is still to come: a close look goes on until it is seen, or does not come.

        Until the period is learnt, several refreshes are awaited; at the start, until the rhythm is confirmed.
        """
        if not self.looks_closely or self.tick is None:
            return False
        first = self.reads[0] if self.reads else now_ns
        if not self.tick.settled and now_ns - first < LEARNING_NS:
            return True
        if not self.tick.learnt:
            return now_ns - max(since_ns - 5 * ASSUMED_TICK_NS, first) < LEARNING_NS
        return self.moved_ns <= since_ns and now_ns - since_ns < 1.5 * self.tick.period_ns

    def reaches(self, t_ns: int) -> bool:
        """Whether there is a node at or after an instant."""
        return len(self.curve) > 0 and self.curve.t[-1] >= t_ns

    def add(self, reading: Reading) -> None:
        """Enter one reading; what cannot be energy is an error, never a number."""
        bad = reading.error
        for value in (reading.counter_joules, reading.watts):
            if bad is None and value is not None and not (math.isfinite(value) and value >= 0):
                bad = f"{self.capability.source} gave {value!r}, which is no energy; refused"
        if bad is None and reading.counter_joules is None and reading.watts is None:
            bad = f"{self.capability.source} gave no number"
        if bad is not None:
            if not (self.events and self.events[-1].kind == "error" and self.events[-1].text == bad):
                self.events.append(Event(reading.t_ns, "error", text=bad))
            return
        if self.reads and reading.t_ns <= self.reads[-1]:
            return
        if self.reads and (away := (reading.t_ns - self.reads[-1]) / NANO) > GAP_SECONDS:
            self.events.append(Event(reading.t_ns, "gap", seconds=away))
        self.reads.append(reading.t_ns)
        if reading.watts is not None:
            self._integrate(reading.t_ns - self.middle_ns, reading.watts)
        if not self.integrating:
            if reading.counter_joules is not None:
                self._count(reading)
            if reading.watts is not None:
                self._check(reading.t_ns)

    def _integrate(self, t_ns: int, watts: float) -> None:
        """Extend the integrated power by a trapezoid; every reading counts, also one equal to the last."""
        onto = self.curve if self.integrating else self.power
        if self.ripple is not None:
            self.ripple.add(t_ns, watts)
        swing = self.swing_watts
        if self.watts is None:
            onto.append(t_ns, t_ns, onto.joules[-1] if len(onto) else 0.0)
        else:
            before_ns, before = self.watts
            seconds = (t_ns - before_ns) / NANO
            mean = (watts + before) / 2
            # The power may have changed anywhere between the two: uniform over ± half of the rectangle between them would be 1/12. A
            # long window may hold few changes, and power may also come and go, so a third more.
            variance = ((watts - before) ** 2 / 9 + (swing or 0.0) ** 2 + (UNSAMPLED * mean) ** 2) * seconds**2
            if seconds > GAP_SECONDS:
                variance += (0.5 * mean * seconds) ** 2
            onto.append(t_ns, t_ns, onto.joules[-1] + mean * seconds, variance=variance, ripple=swing)
        self.watts = (t_ns, watts)

    def _count(self, reading: Reading) -> None:
        counter, now, slack = reading.counter_joules, reading.t_ns, reading.half_width_ns
        assert counter is not None
        if self.counter is None:
            longest = ASSUMED_TICK_NS if self.fixed_tick_ns is None else self.fixed_tick_ns
            self.curve.append(now - longest - slack, now + slack, 0.0)
            self.counter, self.seen_ns, self.moved_ns, self.checked_ns = counter, now, now, now
            return
        delta = counter - self.counter
        if delta < 0:
            delta = self._fell(counter, now)
        self.widest_ns = max(self.widest_ns, now - self.seen_ns)
        low = self.seen_ns
        if self.tick is None:
            period = self.fixed_tick_ns or 0
            if delta > 0:
                self._move(max(low, now - period) - slack, now + slack, delta)
            elif self.capability.never_still and (now - self.moved_ns) / NANO > FROZEN_SECONDS:
                self._stands_still(now)
            elif now - self.seen_ns > period:
                self._move(now - period - slack, now + slack, 0.0)
        elif delta > 0:
            sharp = self.tick.period_ns / 4
            granted = self.tick.jitter_ns
            self.tick.observe(low, now, unbroken=self.widest_ns <= sharp)
            if self.tick.jitter_ns > granted:
                self.curve.loosen(int(self.tick.jitter_ns - granted))
            if self.tick.learnt:
                low = max(low, now - self.tick.longest_ns)
            self._move(low - slack, now + slack, delta)
            if now - low <= sharp:
                self.curve.refine()
            self.widest_ns = 0
        if delta > 0:
            self.moved_ns = now
        self.counter, self.seen_ns = counter, now

    def _stands_still(self, now: int) -> None:
        """Note a counter that does not move though what it counts always draws power, as some virtual machines show; not a zero."""
        text = f"the counter has stood still for more than {FROZEN_SECONDS:.0f} s: broken, since a part that is on always draws power"
        if not (self.events and self.events[-1].kind == "error" and self.events[-1].text == text):
            self.events.append(Event(now, "error", text=text))
            self.curve.cut(self.moved_ns)
            self.revision += 1

    def _move(self, low_ns: int, high_ns: int, delta: float) -> None:
        self.total += delta
        if self.capability.sees < 1 and self.tick is not None and len(self.curve) > 2:
            # A change of power between two turns of a part-time sensor is seen up to a period late.
            change = self.curve.watts(len(self.curve) - 2) - self.curve.watts(len(self.curve) - 3)
            self.doubt += (1 - self.capability.sees) * (change * self.tick.period_ns / NANO) ** 2 / 12
        self.curve.append(low_ns, high_ns, self.total, variance=self.doubt, ripple=self.swing_watts)
        self.doubt = 0.0

    def _fell(self, counter: float, now: int) -> float:
        """Return the increment behind a counter that went down."""
        assert self.counter is not None
        watts = self.curve.watts(len(self.curve) - 2) if len(self.curve) > 1 else None
        tick = self.tick.period_ns / NANO if self.tick else 0.0
        source, reach = self.capability.source, self.capability.range_joules
        found = fall(source, self.counter, counter, now, (now - self.seen_ns) / NANO, watts, reach, tick)
        self.events.extend(found.events)
        self.doubt += found.variance
        return found.joules

    def _check(self, now: int) -> None:
        """Compare the counter with the integrated power, and drop a counter that cannot be right."""
        if self.counter is None:
            self._switch(now, None)
            return
        still = (now - self.moved_ns) / NANO
        if still > max(FROZEN_SECONDS, 8 * (self.tick.period_ns if self.tick else 0) / NANO):
            begin = self.power.at(self.moved_ns)
            drawn = 0.0 if begin is None else self.power.joules[-1] - begin.joules
            if drawn > max(1.0, 10 * self.capability.resolution_joules):
                self._switch(self.moved_ns, f"the counter stood still for {still:.1f} s while power was drawn")
                return
        if (now - self.checked_ns) / NANO >= CHECK_SECONDS:
            ratio = self.ratio(self.checked_ns, self.moved_ns)
            if ratio is not None and not DROPPED[0] <= ratio <= DROPPED[1]:
                self._switch(self.checked_ns, f"the counter gave {ratio:.2f} of the integrated power")
            else:
                self.checked_ns = self.moved_ns

    def _switch(self, since_ns: int, why: str | None) -> None:
        """Let the integrated power take the counter's place from ``since_ns`` on."""
        if why is not None:
            self.events.append(Event(since_ns, "switch", text=f"{why}; instant power is integrated instead"))
            self.curve.graft(self.power, since_ns)
        else:
            self.curve = self.power
        self.revision += 1
        self.tick = None
        self.gain_u = max(self.gain_u, 0.1 if why else 0.07)
        self.integrating = True

    def ratio(self, t0_ns: int, t1_ns: int) -> float | None:
        """Return counter over integrated power, where both know the window well enough to tell."""
        if self.integrating or (t1_ns - t0_ns) / NANO < FROZEN_SECONDS:
            return None
        ends = [curve.at(t) for curve in (self.curve, self.power) for t in (t0_ns, t1_ns)]
        if any(end is None for end in ends):
            return None
        a, b, c, d = (end for end in ends if end is not None)
        power = d.joules - c.joules
        doubt = 2 * math.sqrt(a.variance + b.variance + c.variance + d.variance + max(d.grown - c.grown, 0.0))
        return (b.joules - a.joules) / power if power > 0 and doubt < 0.1 * power else None


#: Counter over integrated power: outside of this range the record says that the two differ.
SAID = (0.85, 1.15)
#: Refresh period of a power sensor, as long as nothing better is known. Source: Yang et al. 2024, arXiv:2312.02741 (20 to 100 ms).
POWER_TICK_SECONDS = 0.1
#: Nodes that tell how often a meter is read.
RECENT = 12

#: A sensor that looks now and then does so once in this time. Source: Yang et al. 2024, arXiv:2312.02741.
SEEN_EVERY_SECONDS = 0.1


def component(account: MeterChannel, t0_ns: int, t1_ns: int) -> Component:
    """Return what one component took between two instants; what is not known is None with the reason."""
    capability, seconds = account.capability, (t1_ns - t0_ns) / NANO
    tick = tick_seconds(account)
    reach = reach_seconds(account)
    begin, end = account.curve.at(t0_ns, reach), account.curve.at(t1_ns, reach)
    known = begin is not None and end is not None and t1_ns >= t0_ns
    found = Component(
        name=capability.component,
        joules=None,
        source=capability.source,
        quality=capability.quality if known else "absent",
        boundary=capability.boundary,
        counts=account.counts,
        reads=bisect_right(account.reads, t1_ns) - bisect_left(account.reads, t0_ns),
        tick_seconds=tick,
        wraps=len(happened(account, "wrap", t0_ns, t1_ns)),
        resets=len(happened(account, "reset", t0_ns, t1_ns)),
        gap_seconds=math.fsum(event.overlap(t0_ns, t1_ns) for event in account.events if event.kind == "gap"),
        idle_watts=account.idle_watts,
    )
    if begin is None or end is None or t1_ns < t0_ns:
        return replace(found, reason=_why_unknown(account, t0_ns, t1_ns))
    joules = max(end.joules - begin.joules, 0.0)
    u_random = math.sqrt(_variance(account, begin, end, seconds))
    net, idle_u = None if account.idle_watts is None else joules - account.idle_watts * seconds, account.idle_u_watts
    ratio = account.ratio(t0_ns, t1_ns)
    return replace(
        found,
        joules=joules,
        u_random_joules=u_random,
        u_systematic_joules=account.gain_u * joules,
        net_joules=net,
        u_net_joules=None if net is None or idle_u is None else math.hypot(u_random, idle_u * seconds, account.gain_u * net),
        below_resolution=seconds < 2 * (tick or 0.0) or 2 * u_random >= joules,
        reason=_remarks(account, t0_ns, t1_ns, ratio),
        cross_check=ratio,
    )


def absent(capability: Capability) -> Component:
    """Return the component of something that could not be read: no number, and the reason."""
    return Component(
        name=capability.component,
        joules=None,
        source=capability.source,
        quality="absent",
        boundary=capability.boundary,
        counts=False,
        reason=capability.reason or f"{capability.source} is not available",
    )


def tick_seconds(account: MeterChannel) -> float | None:
    """Return the refresh period of a component, or None while it is not known."""
    if account.integrating:
        # Asked more often than the sensor is refreshed, the refresh counts; a plug or a logger that tells less often is that slow.
        interval = interval_seconds(account) or 0.0
        return round(interval, 1) if interval > 3 * POWER_TICK_SECONDS else POWER_TICK_SECONDS
    if account.tick is not None:
        return account.tick.period_ns / NANO if account.tick.learnt else None
    return account.capability.tick_seconds


def interval_seconds(account: MeterChannel) -> float | None:
    """Return the time between two nodes of a component as it was lately, the median; None with fewer than two."""
    times = account.curve.t if len(account.curve) > 1 else account.reads
    spans = [later - earlier for earlier, later in pairwise(times[-RECENT:])]
    return statistics.median(spans) / NANO if spans else None


def reach_seconds(account: MeterChannel) -> float:
    """Return how far beyond its nodes a component's power is taken to go on: a meter that is refreshed slowly has its next one later."""
    return max(REACH_SECONDS, 3 * (tick_seconds(account) or ASSUMED_TICK_NS / NANO))


def happened(account: MeterChannel, kind: str, t0_ns: int, t1_ns: int) -> list[Event]:
    """Return the events of one kind inside ``(t0_ns, t1_ns]``."""
    return [event for event in account.events if event.kind == kind and t0_ns < event.t_ns <= t1_ns]


def _variance(account: MeterChannel, begin: Point, end: Point, seconds: float) -> float:
    # Windows begin and end where their load does: what is laid to the wrong side of one edge is missing at the other too.
    variance = (math.sqrt(begin.variance) + math.sqrt(end.variance)) ** 2 + max(end.grown - begin.grown, 0.0)
    if begin.segment == end.segment and len(account.curve) > 1:
        # Both ends lie between the same two nodes: all that is known of the power is the segment's mean, its surroundings and its ripple.
        variance += (account.curve.spread(begin.segment) * seconds / 2) ** 2
    sees = account.capability.sees
    if sees < 1 and not account.integrating:
        # A sensor that looks now and then draws lots: one for each of its turns, from the power as it comes and goes.
        swing = account.curve.ripple_watts(begin.segment)
        variance += (1 - sees) * swing**2 * seconds * SEEN_EVERY_SECONDS
    return variance


def _why_unknown(account: MeterChannel, t0_ns: int, t1_ns: int) -> str:
    if t1_ns < t0_ns:
        return f"the window ends {(t0_ns - t1_ns) / NANO:.3f} s before it begins"
    errors = [event.text for event in account.events if event.kind == "error" and event.t_ns <= t1_ns]
    if errors:
        return errors[-1]
    if len(account.reads) < 2:
        return f"{account.capability.source} was read {len(account.reads)} times; an energy needs two readings"
    return f"{account.capability.source} was not read within reach of the window's edges"


def _remarks(account: MeterChannel, t0_ns: int, t1_ns: int, ratio: float | None) -> str | None:
    texts = [account.capability.reason] if account.capability.reason else []
    switches = [event.text for event in account.events if event.kind == "switch" and event.t_ns <= t1_ns]
    texts += switches[-1:]
    away = math.fsum(event.overlap(t0_ns, t1_ns) for event in account.events if event.kind == "gap")
    if away:
        texts.append(f"{away:.1f} s of it without a reading")
    for kind in ("error", "reset", "gap"):
        texts += [event.text for event in happened(account, kind, t0_ns, t1_ns) if event.text][-1:]
    if ratio is not None and not SAID[0] <= ratio <= SAID[1]:
        texts.append(f"the driver's counter is {ratio:.2f} of its integrated power")
    return "; ".join(texts) or None
