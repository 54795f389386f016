"""A window as a question to the books: what did each component take between two instants?"""

from __future__ import annotations

import math
import statistics
from bisect import bisect_left, bisect_right
from dataclasses import replace
from itertools import pairwise

from .account import ASSUMED_TICK_NS, Account
from .clock import NANO
from .curve import REACH_SECONDS, Point
from .events import Event
from .record import Component
from .source import Capability

#: Counter over integrated power: outside of this range the record says that the two differ.
SAID = (0.85, 1.15)
#: Refresh period of a power sensor, as long as nothing better is known. Source: Yang et al. 2024, arXiv:2312.02741 (20 to 100 ms).
POWER_TICK_SECONDS = 0.1
#: Nodes that tell how often a meter is read.
RECENT = 12

#: A sensor that looks now and then does so once in this time. Source: Yang et al. 2024, arXiv:2312.02741.
SEEN_EVERY_SECONDS = 0.1


def component(account: Account, t0_ns: int, t1_ns: int) -> Component:
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


def tick_seconds(account: Account) -> float | None:
    """Return the refresh period of a component, or None while it is not known."""
    if account.integrating:
        # Asked more often than the sensor is refreshed, the refresh counts; a plug or a logger that tells less often is that slow.
        interval = interval_seconds(account) or 0.0
        return round(interval, 1) if interval > 3 * POWER_TICK_SECONDS else POWER_TICK_SECONDS
    if account.tick is not None:
        return account.tick.period_ns / NANO if account.tick.learnt else None
    return account.capability.tick_seconds


def interval_seconds(account: Account) -> float | None:
    """Return the time between two nodes of a component as it was lately, the median; None with fewer than two."""
    times = account.curve.t if len(account.curve) > 1 else account.reads
    spans = [later - earlier for earlier, later in pairwise(times[-RECENT:])]
    return statistics.median(spans) / NANO if spans else None


def reach_seconds(account: Account) -> float:
    """Return how far beyond its nodes a component's power is taken to go on: a meter that is refreshed slowly has its next one later."""
    return max(REACH_SECONDS, 3 * (tick_seconds(account) or ASSUMED_TICK_NS / NANO))


def happened(account: Account, kind: str, t0_ns: int, t1_ns: int) -> list[Event]:
    """Return the events of one kind inside ``(t0_ns, t1_ns]``."""
    return [event for event in account.events if event.kind == kind and t0_ns < event.t_ns <= t1_ns]


def _variance(account: Account, begin: Point, end: Point, seconds: float) -> float:
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


def _why_unknown(account: Account, t0_ns: int, t1_ns: int) -> str:
    if t1_ns < t0_ns:
        return f"the window ends {(t0_ns - t1_ns) / NANO:.3f} s before it begins"
    errors = [event.text for event in account.events if event.kind == "error" and event.t_ns <= t1_ns]
    if errors:
        return errors[-1]
    if len(account.reads) < 2:
        return f"{account.capability.source} was read {len(account.reads)} times; an energy needs two readings"
    return f"{account.capability.source} was not read within reach of the window's edges"


def _remarks(account: Account, t0_ns: int, t1_ns: int, ratio: float | None) -> str | None:
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
