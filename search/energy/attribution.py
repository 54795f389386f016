"""Who took the energy of a machine that several trials share: every joule goes to exactly one of them, or to a named rest.

Time is cut wherever a trial begins or ends. Within a slice a GPU belongs to the trial that holds it. What the CPU and the memory
take is split in two: the idle part by wall time between the trials that run, the rest by CPU-seconds. CPU-seconds of this process
that no trial accounts for are overhead, those of foreign processes are unattributed, and power while nothing runs is idle. Where a meter
knew nothing, the stretch is named beside the sums. The split of a ledger's whole life is
needed again and again: what cannot change any more is added up once.

Of windows that threads of this process have opened, each has what its thread used, with the children that the thread started. What such
a thread does while it has no window is overhead. A thread that never has one, of a pool say, may have worked for any of them: what it
used is shared like the rest, but each window's part of it may be nothing or all. `Share` says how much that is.
"""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from operator import add
from typing import Any

from .record import NUMBERS, Component, summed
from .sources.source import NANO
from .windows import RESTS, WindowUsage

#: Energy of one component between two instants, or None when unknown.
Energy = Callable[[int, int], float | None]
#: CPU-seconds of the machine and of this process tree between two instants; None where the system does not report them.
CpuSeconds = Callable[[int, int], tuple[float | None, float | None]]
#: Differences below this share are rounding.
ROUNDING = 1e-12
#: Relative standard uncertainty of a split by CPU-seconds: vector code draws more per second than waiting for memory does.
SPLIT_U = 0.15
#: The same for two trials on one GPU, where nothing tells them apart.
GPU_SPLIT_U = 0.30
#: No window gets a number where nothing tells whose more than this share of the work was that was done while it overlapped others.
MOST_UNTOLD = 0.2
UNTOLD_CPU = (
    "{:.0%} of the CPU work while windows of this process overlapped is told by no window's thread: a pool's threads did it, tasks of an "
    "event loop took turns, a window was closed by another thread than opened it, or it holds another thread's windows. Let each "
    "window's own thread work and close it (torch.set_num_threads(1), OMP_NUM_THREADS=1), or measure in processes; a window that lies "
    "inside of another thread's needs parent="
)
UNTOLD_GPU = (
    "windows of several threads or tasks overlapped and nothing tells whose work it did: give each its devices=, or let one run at a time"
)


@dataclass(frozen=True)
class MeteredPart:
    """A component as the split sees it.

    Attributes:
        energy: Its energy between two instants.
        idle_watts: Its power while nothing runs, or None.
        tree: Whether it knows this process tree only (the estimate from CPU-seconds), not the whole machine.
        extent: Instants around its readings, where slices are cut so that a meter that is lost loses nothing of what it knew; None when
            there are none.
    """

    name: str
    energy: Energy
    idle_watts: float | None = None
    tree: bool = False
    extent: tuple[int, int] | None = None

    @property
    def device(self) -> bool:
        """Whether trials hold it instead of sharing it."""
        return self.name.startswith("gpu:")


@dataclass
class Share:
    """The joules that one window got of one component.

    Attributes:
        dynamic: The part above idle.
        contested: The part that was split with others.
        beside: The work of this process tree while another of its threads had a window, all windows together.
        untold: What of it nothing tells whose it is ...
        doubt: ... and by how much the window's own part may be off because of that.
    """

    joules: float = 0.0
    dynamic: float = 0.0
    contested: float = 0.0
    beside: float = 0.0
    untold: float = 0.0
    doubt: float = 0.0


@dataclass
class Split:
    """The energy of a stretch of time, every known joule in one place, and the time of which nothing is known.

    Attributes:
        shares: By window and component.
        overhead: This process tree's own work outside of all trials, by component.
        idle: Nothing ran, by component.
        unattributed: Foreign work beside trials whose CPU-seconds are known, by component.
        unknown: Seconds without a known energy, by component; a component that is known throughout is left out.
    """

    shares: dict[str, dict[str, Share]] = field(default_factory=dict)
    overhead: dict[str, float] = field(default_factory=dict)
    idle: dict[str, float] = field(default_factory=dict)
    unattributed: dict[str, float] = field(default_factory=dict)
    total: dict[str, float] = field(default_factory=dict)
    unknown: dict[str, float] = field(default_factory=dict)

    def plus(self, later: Split) -> Split:
        """Return the split of two stretches together; neither is changed."""
        shares = dict(self.shares)
        for id, parts in later.shares.items():
            mine = shares.get(id, {})
            shares[id] = parts if not mine else {name: _sum(mine.get(name), parts.get(name)) for name in {**mine, **parts}}
        buckets = ("overhead", "idle", "unattributed", "total", "unknown")
        return Split(shares, *(summed((getattr(self, name), getattr(later, name))) for name in buckets))


def split(usages: Iterable[WindowUsage], t0_ns: int, t1_ns: int, meters: Sequence[MeteredPart], cpu: CpuSeconds) -> Split:
    """Share out everything between two instants; the windows may overlap each other and the ends."""
    chosen = sorted((usage for usage in usages if usage.t0_ns < t1_ns and usage.t1_ns > t0_ns), key=lambda usage: usage.t0_ns)
    found = Split(shares={usage.id: {} for usage in chosen if usage.competes})
    edges = [t for usage in chosen for t in (usage.t0_ns, usage.t1_ns)] + [t for meter in meters for t in meter.extent or ()]
    active: list[WindowUsage] = []
    begun = 0
    for begin, end in pairwise(sorted({t0_ns, t1_ns, *(t for t in edges if t0_ns < t < t1_ns)})):
        while begun < len(chosen) and chosen[begun].t0_ns <= begin:
            active.append(chosen[begun])
            begun += 1
        active = [usage for usage in active if usage.t1_ns > begin]
        piece = _slice(active, begin, end, *cpu(begin, end))
        # Of idle and overhead windows around each other the inner one decides what the time was: it began last.
        rest = next((usage.kind for usage in reversed(active) if usage.kind in RESTS), None)
        for meter in meters:
            joules = meter.energy(begin, end)
            if joules is None:
                _add(found.unknown, meter.name, (end - begin) / NANO)
                continue
            _add(found.total, meter.name, joules)
            holders = [usage for usage in piece.trials if usage.holds(meter.name)] if meter.device else piece.trials
            if not holders and (meter.device or rest is not None):
                _add(found.overhead if rest == "overhead" else found.idle, meter.name, joules)
            elif meter.device:
                _device(found, meter, joules, holders)
            else:
                resting = min((meter.idle_watts or 0.0) * (end - begin) / NANO, joules)
                (_among_trials if holders else _without_trials)(found, meter, joules - resting, resting, piece)
    return found


@dataclass(frozen=True)
class _Slice:
    """A stretch of time in which no window begins or ends.

    Attributes:
        stated: CPU-seconds of each trial by its id; None where nothing tells them, or one thread works alone and all is done for it.
        threads: Ids of the trials whose work a thread of this process does.
        several: Whether other threads worked beside one of these; ``apart`` are CPU-seconds of those that had no window.
        clocked: CPU-seconds of both.
        busy: CPU-seconds of the machine, and ``own`` those of this process tree; None where the system does not report them.
    """

    trials: list[WindowUsage]
    stated: dict[str, float | None]
    threads: list[str]
    several: bool
    apart: float
    clocked: float
    busy: float | None
    own: float | None


def _slice(active: list[WindowUsage], begin: int, end: int, busy: float | None, own: float | None) -> _Slice:
    trials = [usage for usage in active if usage.competes]
    windows = Counter(usage.opener for usage in trials)
    threads = [usage.id for usage in trials if usage.opener is not None]
    apart = math.fsum(usage.apart(begin, end) for usage in active if usage.opener not in windows) if threads else 0.0
    several = apart > 0 or len(windows.keys() - {None}) > 1
    stated = {usage.id: usage.cpu_between(begin, end) if several or usage.opener is None else None for usage in trials}
    for usage in trials:
        if usage.opener is not None and (seconds := stated[usage.id]) is not None:
            stated[usage.id] = seconds / windows[usage.opener]
    clocked = math.fsum(seconds for seconds in stated.values() if seconds is not None) + apart
    return _Slice(trials, stated, threads, several, apart, clocked, busy, own)


def _device(found: Split, meter: MeteredPart, joules: float, holders: list[WindowUsage]) -> None:
    part = joules / len(holders)
    # Threads that name no devices may each have used this one, or none of them.
    untold = len({usage.opener for usage in holders}) > 1 and any(usage.opener and usage.devices is None for usage in holders)
    for usage in holders:
        share = Share(part, part, part if len(holders) > 1 else 0.0)
        _give(found, usage, meter.name, replace(share, beside=joules, untold=joules, doubt=joules - part) if untold else share)


def _without_trials(found: Split, meter: MeteredPart, work: float, resting: float, piece: _Slice) -> None:
    own = max(piece.own or 0.0, 0.0)
    base = own if meter.tree else max(piece.busy or 0.0, own)
    used = 0.0 if base <= 0 else work * own / base
    _add(found.overhead, meter.name, used)
    # Without a known idle power nothing tells rest from work, so what this process did not do is called idle.
    bucket = found.unattributed if meter.idle_watts is not None else found.idle
    _add(bucket, meter.name, 0.0 if abs(work - used) < ROUNDING * work else work - used)
    _add(found.idle, meter.name, resting)


def _among_trials(found: Split, meter: MeteredPart, work: float, resting: float, piece: _Slice) -> None:
    base, untold_seconds = _cpu_seconds(piece, meter.tree)

    def worth(seconds: float) -> float:
        return work * seconds / base if base > 0 else 0.0

    untold = work - worth(piece.apart) if untold_seconds is None else worth(untold_seconds)
    tree = work if untold_seconds is None else worth(piece.clocked + untold_seconds)
    alone = untold_seconds is None and len(piece.trials) == 1
    weights, rest = _weights(piece, equal=untold_seconds is None)
    given = 0.0
    for usage in piece.trials:
        weight = weights.get(usage.id, 0.0)
        part = worth(piece.stated[usage.id] or 0.0) + untold * weight
        given += part
        share = Share(part + resting / len(piece.trials), part, 0.0 if alone else part)
        if piece.several and usage.opener is not None:
            share = replace(share, beside=tree, untold=untold, doubt=untold * max(weight, 1 - weight))
        _give(found, usage, meter.name, share)
    left = work - given
    left = 0.0 if abs(left) < ROUNDING * work else left  # rounding is nobody's energy
    overhead = min(worth(piece.apart) + untold * rest, left)
    _add(found.overhead, meter.name, overhead)
    _add(found.unattributed, meter.name, left - overhead)


def _cpu_seconds(piece: _Slice, tree: bool) -> tuple[float, float | None]:
    """Return the CPU-seconds that did the work, and those of them by this process that nothing tells whose they are; None for all."""
    # As one thread's window has all that it is alone with, so have those of several threads together.
    total = piece.own if tree or len(piece.threads) == len(piece.trials) else piece.busy
    base = max(total or 0.0, piece.own or 0.0, piece.clocked)  # the machine's shows up in steps, this tree's at once
    nothing = base <= 0 or all(seconds is None for seconds in piece.stated.values())
    return base, None if nothing else max((piece.own or 0.0) - piece.clocked, 0.0)


def _weights(piece: _Slice, equal: bool) -> tuple[dict[str, float], float]:
    """Return the part that each trial gets of what nothing tells whose it is, and that of threads without a window."""
    silent = [id for id, seconds in piece.stated.items() if seconds is None]
    takers = [*piece.stated] if equal else silent or piece.threads  # who is not silent has stated all that it used
    if not takers:
        return {}, 1.0
    known = math.fsum(piece.stated[id] or 0.0 for id in takers)
    if known <= 0:
        return dict.fromkeys(takers, 1 / len(takers)), 0.0
    return {id: (piece.stated[id] or 0.0) / (known + piece.apart) for id in takers}, piece.apart / (known + piece.apart)


def _give(found: Split, usage: WindowUsage, name: str, share: Share) -> None:
    parts = found.shares[usage.id]
    parts[name] = _sum(parts.get(name), share)


def _sum(one: Share | None, other: Share | None) -> Share:
    return Share(*map(add, vars(one or Share()).values(), vars(other or Share()).values()))


def _add(bucket: dict[str, float], name: str, joules: float) -> None:
    if joules != 0.0:
        bucket[name] = bucket.get(name, 0.0) + joules


def attributed(part: Component, share: Share | None, *, held: bool = True) -> Component:
    """Return a component of the whole machine's window as one usage's share of it; ``held`` if a device is the usage's own."""
    device = part.name.startswith("gpu:")
    if device and not held:
        # A device that another trial holds is no part of this one: out of the sum, so that it adds neither energy nor doubt, nor
        # makes this trial's energy unknown when it is lost.
        return replace(_unknown(part, "held by another trial, or by none"), counts=False)
    if part.joules is None or part.u_random_joules is None or part.u_systematic_joules is None:
        return part
    share = share or Share()
    ratio = share.joules / part.joules if part.joules > 0 else 0.0
    if share.contested == share.beside == 0.0 and ratio > 1 - 1e-9:
        return part
    method = "shared(equal parts)" if device else "shared(idle by wall time, the rest by CPU-seconds)"
    # An estimate from CPU-seconds is split as it is made. Anything between nothing and all of what nobody can tell: the half-width of a
    # uniform distribution (GUM 4.3.7).
    relative_u = GPU_SPLIT_U if device else 0.0 if part.quality == "estimated" else SPLIT_U
    split_u = math.hypot(relative_u * share.contested, share.doubt / math.sqrt(3))
    return replace(
        part,
        joules=share.joules,
        u_random_joules=math.hypot(part.u_random_joules * ratio, split_u),
        u_systematic_joules=part.u_systematic_joules * ratio,
        net_joules=None if part.idle_watts is None else share.dynamic,
        u_net_joules=None if part.u_net_joules is None else math.hypot(part.u_net_joules * ratio, split_u),
        attribution=f"{method}, {ratio:.1%} of the window's" if share.contested or share.beside else "exclusive",
    )


def told(part: Component, share: Share) -> Component:
    """Return a window's part as its record shows it: without a number where too much of it may as well be another window's."""
    if part.joules is None or share.untold <= MOST_UNTOLD * share.beside:
        return part
    remedy = UNTOLD_GPU if part.name.startswith("gpu:") else UNTOLD_CPU.format(share.untold / share.beside)
    reason = f"shared: {remedy}" if part.reason is None else f"shared: {remedy}; {part.reason}"
    return replace(_unknown(part, reason), attribution="shared(nothing tells whose it was)")


def _unknown(part: Component, reason: str) -> Component:
    unknown: dict[str, Any] = dict.fromkeys(NUMBERS)
    return replace(part, quality="absent", reason=reason, **unknown)


#: What is older than this is final: a late reading of a meter that is refreshed in time reaches back less far. A meter that was lost, or
#: whose past is written anew, is read again from the start.
FINAL_NS = 30 * NANO


@dataclass(frozen=True)
class WindowSnapshot:
    """The windows of a ledger as a split needs them.

    Attributes:
        usages: Those that end after the start of the stretch.
        open_ns: Start of the oldest open trial, whose CPU-seconds are not known yet; None when none is open.
        changed_ns: Start of the oldest window that was registered after the fact since the last snapshot; None for none.
    """

    usages: Sequence[WindowUsage]
    open_ns: int | None
    changed_ns: int | None


class PartitionCache:
    """Keeps the split up to an instant before which nothing is open, and adds the rest to it.

    The instant is always the start or end of a window, where a split is cut anyway: kept or not, the sums are the same.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._forget(0, None)

    def _forget(self, t0_ns: int, revision: object) -> None:
        self._t0_ns = self._until_ns = t0_ns
        self._revision = revision
        self._sum = Split()
        self._lost: dict[str, int] = {}

    def split(
        self,
        t0_ns: int,
        t1_ns: int,
        snapshot: Callable[[int, int], WindowSnapshot],
        meters: Sequence[MeteredPart],
        cpu: CpuSeconds,
        *,
        revision: object = None,
        final_ns: int = FINAL_NS,
    ) -> Split:
        """Return the split from a start that is the same each time; an earlier end than the last, or a new ``revision``, starts anew.

        ``snapshot`` gives the windows that end after its first argument, the open ones up to its second; what is older than ``final_ns``
        is final.
        """
        with self._lock:
            if t0_ns != self._t0_ns or t1_ns < self._until_ns or revision != self._revision or self._found(meters):
                self._forget(t0_ns, revision)
            seen = snapshot(self._until_ns, t1_ns)
            if seen.changed_ns is not None and seen.changed_ns < self._until_ns:
                self._forget(t0_ns, revision)
                seen = snapshot(self._until_ns, t1_ns)
            last = t1_ns - final_ns if seen.open_ns is None else min(t1_ns - final_ns, seen.open_ns)
            cuts = [t for usage in seen.usages for t in (usage.t0_ns, usage.t1_ns) if self._until_ns < t <= last]
            if cuts:
                until = max(cuts)
                self._sum = self._sum.plus(split(seen.usages, self._until_ns, until, meters, cpu))
                self._until_ns = until
                self._lost = {meter.name: meter.extent[1] for meter in meters if meter.extent and meter.extent[1] < until}
            return self._sum.plus(split(seen.usages, self._until_ns, t1_ns, meters, cpu))

    def _found(self, meters: Sequence[MeteredPart]) -> bool:
        """Whether a meter that was lost reads again: what it missed is then known."""
        return any(meter.extent is not None and meter.extent[1] > self._lost.get(meter.name, meter.extent[1]) for meter in meters)
