"""The windows of a ledger together: which are open, which lie inside of which or beside each other, and the record of each.

Windows that threads of one process have open at the same time share what the process takes, also those of different ledgers, as those of
two ``measure`` calls are. So the registries of the ledgers that run tell each other when a window opens and what it had when it ends.
"""

from __future__ import annotations

import math
import os
import threading
import weakref
from bisect import bisect_right, insort
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import replace
from operator import attrgetter
from typing import Any

from . import host
from .attribution import FINAL_NS, MeteredPart, PartitionCache, Share, Split, WindowSnapshot, attributed, split, told
from .background import Warnings
from .channel import MeterChannel, reach_seconds
from .host import HostMonitor, Idle, idle_watts
from .meters import MeterSet
from .record import KINDS, SCHEMA, Component, Record, at_once
from .sources.source import NANO, Clock
from .threads import ThreadClocks, is_over, measured, task_here
from .windows import RESTS, Anchors, Edge, Window, WindowFacts, WindowOwner, WindowUsage

#: Idle windows shorter than this say nothing about idle power.
IDLE_SECONDS = 1.0
CROSSED = "shared(overlaps another window of its thread: each has the whole)"
#: The registries of the ledgers that run in this process, by their sessions.
_running: weakref.WeakValueDictionary[str, Registry] = weakref.WeakValueDictionary()
#: Ids of the windows around what runs here; a task of an event loop has those of the place that made it.
_around: ContextVar[tuple[str, ...]] = ContextVar("windows", default=())


class Registry:
    """Keeps the windows of one ledger, and knows those of the process's other ledgers that run on the same clock."""

    def __init__(self, owner: WindowOwner, clock: Clock) -> None:
        #: Random name of this ledger's life, which makes the ids of windows in one file differ.
        self.session = os.urandom(3).hex()
        self._owner, self._clock = owner, clock
        self._lock = threading.RLock()
        self._number = 0
        self._open: dict[str, Window] = {}
        self._others: dict[str, Window] = {}
        self._ended: list[WindowUsage] = []  # by their ends
        self._registered: dict[tuple[int, int, str], WindowUsage] = {}
        self._changed_ns: int | None = None
        self._idle: list[Record] = []
        self._clocks = ThreadClocks(owner)

    def join(self) -> None:
        """Be told of the windows of other ledgers from now on."""
        _running[self.session] = self
        self._clocks.note(self._clock())
        for peer in self._peers():
            with peer._lock:
                self._others.update((window.id, window) for window in peer._open.values() if _rival(window))
                self._clocks.busy.update((id, thread) for id, thread in peer._clocks.busy.items() if id in self._others)

    def part(self) -> None:
        """End what ``join`` began."""
        _running.pop(self.session, None)

    def _peers(self) -> list[Registry]:
        found = (reference() for reference in _running.valuerefs())
        return [peer for peer in found if peer is not None and peer is not self and peer._clock is self._clock]

    def make(
        self,
        name: str,
        kind: str,
        parent: Window | str | None,
        opening: Edge,
        synchronize: Callable[[], object] | None = None,
        devices: tuple[str, ...] | None = None,
        id: str | None = None,
        processes: bool = False,
    ) -> Window:
        """Return a window that nobody has entered yet; without an id it is a new one."""
        if kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
        if not (parent is None or isinstance(parent, Window) or str(parent).partition(".")[0] in {self.session, *_running}):
            raise ValueError(f"parent must be a window or a window's id (as '{self.session}.1'), got {parent!r}; give the window itself")
        with self._lock:
            if id is None:
                self._number += 1
                id = f"{self.session}.{self._number}"
            above = parent if parent is None or isinstance(parent, Window) else self._open.get(parent)
        if devices is None and isinstance(parent, Window):
            devices = parent.facts.devices
        named = parent.id if isinstance(parent, Window) else parent
        processes = processes or (above is not None and above.facts.processes)
        window = Window(self._owner, WindowFacts(id, name, kind, named, opening, devices, processes), synchronize)
        window.inside = () if named is None else (named, *(() if above is None else above.inside))
        return window

    def enter(self, window: Window, seconds: float | None = None) -> None:
        """Note that a window is open; ``seconds`` are those that its thread had used at its start.

        One opened while another is open in the same thread lies inside of that one until it outlives it, unless both run in parallel.
        Tasks of an event loop take turns in one thread, each with windows of its own: what each of them uses no clock tells.
        """
        task, thread = task_here(), threading.get_native_id()
        window.opener = thread if task is None else task
        if window.here and _rival(window) and task is None:
            measured[thread] = threading.current_thread()
        if window.here:
            window.note(window.t0_ns, seconds)
        with self._lock:
            if window.facts.parent is None:
                around = _around.get() if task is not None else ()
                window.inside = tuple(
                    one.id
                    for one in self._known()
                    if _rival(one)
                    and (one.opener == window.opener or one.id in around or (task is not None and is_over(one)))
                    and not (window.parallel and (one.parallel or one.facts.processes))
                )
            self._open[window.id] = window
            if window.here and window.kind not in RESTS and window.kind != "total":
                self._clocks.enter(window.id, thread, window.t0_ns)
        _around.set((*window.inside, window.id))
        if _rival(window):
            for peer in self._peers():
                with peer._lock:
                    peer._others[window.id] = window
                    if window.here:
                        peer._clocks.enter(window.id, thread, window.t0_ns)
        self.note()

    def leave(self, window: Window) -> None:
        """Note that a window has ended; the joules of one inside of another are the outer one's."""
        if window.here and window.opener != threading.get_native_id():
            window.forget()
        with self._lock:
            self._clocks.leave(window.id, self._clock())
            known = self._open.pop(window.id, None) is not None and window.t1_ns is not None
            longer = [one for one in self._known() if one.facts.parent is None and window.id in one.inside]
            for one in longer:
                one.inside = tuple(id for id in one.inside if id != window.id)
                one.crossed = window.crossed = True
            usage = window.usage(window.t0_ns)
            near: list[Window | WindowUsage] = [*self._open.values(), *self._since(usage.t0_ns)] if usage.inside else []
            if known and window.kind != "total" and (not usage.inside or any(_beside(usage, one) for one in near)):
                insort(self._ended, usage, key=_end)
        for peer in self._peers():
            with peer._lock:
                peer._clocks.leave(window.id, self._clock())
                if peer._others.pop(window.id, None) is not None and not usage.inside:
                    insort(peer._ended, usage, key=_end)

    def _known(self) -> list[Window]:
        return [*tuple(self._open.values()), *tuple(self._others.values())]  # other threads open and close theirs

    @property
    def crowded(self) -> bool:
        """Whether windows of several threads are open."""
        if len(self._open) + len(self._others) < 2:
            return False
        return len({window.opener for window in self._known() if window.facts.parent is None}) > 1

    def note(self) -> None:
        """Note what each thread has used by now, if several have windows."""
        self.look()
        for window in self._known() if self.crowded else ():
            window.note(self._clock())

    def look(self) -> None:
        """Note what threads use that have no window now; one may end before the next window's edge."""
        if self._clocks.busy and len(self._clocks.known) > 1:
            with self._lock:
                self._clocks.note(self._clock())

    def register(
        self,
        name: str,
        kind: str,
        parent: str | None,
        t0_ns: int,
        t1_ns: int,
        *,
        state: str,
        cpu_seconds: float | None,
        devices: tuple[str, ...] | None,
    ) -> Window:
        """Return a window that was never open here, e.g. of a worker process; one of several in parallel is kept.

        Its name and its instants say which it is: registered again, it is the same window, and the last registration holds.
        """
        key, parallel = (t0_ns, t1_ns, name), cpu_seconds is not None or devices is not None
        with self._lock:
            before = self._registered.get(key) if parallel else None
            window = self.make(name, kind, parent, Edge(t0_ns), None, devices, None if before is None else before.id)
            window.cpu_seconds = cpu_seconds
            window.end(Edge(t1_ns), state)
            usage = window.usage(t1_ns)
            if parallel and parent is None and kind != "total" and usage != before:
                if before is not None:
                    self._ended.remove(before)
                self._registered[key] = usage
                insort(self._ended, usage, key=_end)
                self._changed_ns = t0_ns if self._changed_ns is None else min(self._changed_ns, t0_ns)
        return window

    def usage_so_far(self, window: Window, now_ns: int) -> list[WindowUsage] | None:
        """Return the usages that decide what a window has taken so far, for a file that outlives this process.

        None for the whole machine, which is what a window of overhead or of rest takes.
        """
        takes = window.here and window.kind != "total" and (window.kind not in RESTS or window.facts.parent is not None)
        return self.usages(window.t0_ns, now_ns, window) if takes or window.parallel else None

    def usage_beside(self, window: Window, t1_ns: int) -> list[WindowUsage] | None:
        """Return the usages that decide what a window took; None when it has the whole machine, nothing being beside it."""
        if not window.parallel:
            with self._lock:
                near = {*(one.id for one in self._since(window.t0_ns)), *(one.id for one in self._known())}
                clocks = self._clocks.usages(window.t0_ns, t1_ns)
            apart = any(one.apart(window.t0_ns, t1_ns) for one in clocks if one.opener != window.opener)
            if near <= {window.id} and not apart:
                return None
        found = self.usage_so_far(window, t1_ns)
        if found is None or window.parallel or apart or any(one.competes and one.t0_ns < t1_ns and one.id != window.id for one in found):
            return found
        return None

    def open(self) -> list[Window]:
        """Return the open windows, the inner ones first."""
        with self._lock:
            return list(self._open.values())[::-1]

    def usages(self, t0_ns: int, t1_ns: int, window: Window | None = None) -> list[WindowUsage]:
        """Return the top-level windows between two instants; open ones are taken until the second.

        With ``window`` those beside it and beside the windows around it, and itself, which competes like a trial whatever its kind.
        """
        self.note()
        with self._lock:
            found = self._between(t0_ns, t1_ns)
        if window is None:
            return [usage for usage in found if not usage.inside]
        # What overlaps in one thread does not run at once: each window there is what its thread took, and none takes it from the other.
        others = (usage for usage in found if window.parallel or usage.opener is None or usage.opener != window.opener)
        return [usage for usage in others if _beside(usage, window)] + [replace(window.usage(t1_ns), kind="trial")]

    def snapshot(self, t0_ns: int, t1_ns: int) -> WindowSnapshot:
        """Return the windows between two instants, and what of them can still change."""
        self.note()
        with self._lock:
            begins = [one.t0_ns for one in self._known() if _rival(one)]
            changed, self._changed_ns = self._changed_ns, None
            found = [usage for usage in self._between(t0_ns, t1_ns) if not usage.inside]
            return WindowSnapshot(found, min(begins, default=None), changed)

    def _between(self, t0_ns: int, t1_ns: int) -> list[WindowUsage]:
        windows = self._since(t0_ns) + [one.usage(t1_ns) for one in self._known() if one.kind != "total"]
        return windows + self._clocks.usages(t0_ns, t1_ns)

    def _since(self, t0_ns: int) -> list[WindowUsage]:
        return self._ended[bisect_right(self._ended, t0_ns, key=_end) :]

    def learn_idle(self, record: Record) -> dict[str, Idle]:
        """Return the idle power of each component over the idle windows so far, this one included."""
        if record.seconds >= IDLE_SECONDS:
            self._idle.append(record)
        return idle_watts(self._idle)

    def clear(self) -> None:
        """Drop every open window: they belong to the process that this one was forked from."""
        self._lock = threading.RLock()
        self._open, self._others = {}, {}
        self.part()


class RecordBuilder:
    """Puts together what the meters, the host and the hardware are known for in a window."""

    def __init__(self, meters: MeterSet, monitor: HostMonitor, anchors: Anchors, hardware: Mapping[str, Any], warnings: Warnings) -> None:
        self._meters, self._monitor, self._anchors, self._warnings = meters, monitor, anchors, warnings
        self.hardware = hardware
        self.hardware_id = host.fingerprint(hardware)
        self._partitions = PartitionCache()

    def opened(self, window: Window) -> dict[str, Any]:
        """Return what is known of a window as it opens, for the file: its record without the entries that are empty by then."""
        facts, t0_ns = window.facts, window.t0_ns
        known = {"id": facts.id, "name": facts.name, "parent": facts.parent, "kind": facts.kind, "state": window.state}
        times = {"t0_utc": self._anchors.iso(t0_ns), "t0_ns": t0_ns, "t1_ns": t0_ns, "seconds": 0.0, "hardware_id": self.hardware_id}
        return {**known, **times, "edges": {"begin": facts.opening.devices} if facts.opening.devices else {}}

    def record(self, window: Window, t1_ns: int, usages: Sequence[WindowUsage] | None) -> Record:
        """Return what a window cost by ``t1_ns``; its own part only, when ``usages`` names all windows in parallel with it and itself."""
        parts, shares = self._own(window, t1_ns, usages)
        parts = tuple(told(part, shares[part.name]) if part.name in shares else part for part in parts)
        if not window.parallel and (usages is not None or window.crossed):
            whole = CROSSED if window.crossed else "shared(the whole machine's)"
            parts = tuple(replace(part, attribution=whole) if part.attribution == "exclusive" else part for part in parts)
        busy, tree = self._monitor.cpu_seconds(window.t0_ns, t1_ns)
        own = tree if usages is None else window.cpu_seconds
        if own is None and usages is not None:
            own = next((usage.cpu_between(window.t0_ns, t1_ns) for usage in usages if usage.id == window.id), None)
        facts, closing = window.facts, window.closing
        edges = {"begin": facts.opening.devices, "end": {} if closing is None else closing.devices}
        return at_once(
            Record,
            id=facts.id,
            name=facts.name,
            parent=facts.parent,
            kind=facts.kind,
            state=window.state,
            t0_utc=self._anchors.iso(window.t0_ns),
            t0_ns=window.t0_ns,
            t1_ns=t1_ns,
            seconds=(t1_ns - window.t0_ns) / NANO,
            components=parts,
            hardware_id=self.hardware_id,
            hardware=self.hardware,
            cpu_seconds=own,
            utilisation=self._monitor.utilisation.mean(window.t0_ns, t1_ns),
            contended=self._monitor.contended(window.t0_ns, t1_ns, busy, tree, facts.devices),
            edges=edges if any(edges.values()) else {},
            meter={
                "version": SCHEMA,
                "overhead_seconds": None if closing is None else (closing.spent_ns - facts.opening.spent_ns) / NANO,
                "troubles": self._warnings.during(window.t0_ns, t1_ns),
            },
        )

    def line(self, window: Window, t1_ns: int, usages: Sequence[WindowUsage] | None) -> dict[str, Any]:
        """Return what a window took as a plain dictionary, for the file: its own part where others run beside it.

        ``known_joules`` holds the part of a meter that was lost, too, until then.
        """
        parts, shares = self._own(window, t1_ns, usages)
        known = math.fsum(share.joules for share in shares.values())
        if usages is None:
            known = math.fsum(part.joules or 0.0 for part in parts if part.counts)
        facts = {"id": window.id, "cpu_seconds": window.cpu_seconds, "devices": window.facts.devices, "known_joules": known}
        return {**facts, "components": [vars(part) for part in parts]}

    def _own(self, window: Window, t1_ns: int, usages: Sequence[WindowUsage] | None) -> tuple[tuple[Component, ...], Mapping[str, Share]]:
        found = self._meters.components(window.t0_ns, t1_ns)
        own = next((usage for usage in usages or () if usage.id == window.id), None)
        if usages is None or own is None:
            return found, {}
        shares = self.partition(window.t0_ns, t1_ns, usages).shares.get(window.id, {})
        # A device that is held and that no meter reads is lost, not left out: without it the rest would pass for the whole.
        lost = {part.name for part in found if part.quality == "absent" and part.name in (own.devices or ())}
        parts = (attributed(part, shares.get(part.name), held=own.holds(part.name)) if part.counts else part for part in found)
        return tuple(replace(part, counts=True) if part.name in lost else part for part in parts), shares

    def partition(self, t0_ns: int, t1_ns: int, usages: Sequence[WindowUsage]) -> Split:
        """Share out everything between two instants."""
        return split(usages, t0_ns, t1_ns, self._parts(), self._monitor.cpu_seconds)

    def whole(self, t0_ns: int, t1_ns: int, snapshot: Callable[[int, int], WindowSnapshot]) -> Split:
        """Share out everything since the ledger's start; what cannot change any more is kept from the call before."""
        revision = tuple((channel.idle_watts, channel.revision) for channel in self._meters.channels.values())
        slow_ns = max((int(2 * reach_seconds(channel) * NANO) for channel in self._meters.channels.values()), default=0)
        cpu, final_ns = self._monitor.cpu_seconds, max(FINAL_NS, slow_ns)
        return self._partitions.split(t0_ns, t1_ns, snapshot, self._parts(), cpu, revision=revision, final_ns=final_ns)

    def _parts(self) -> tuple[MeteredPart, ...]:
        """Return the counting components as the split sees them."""
        return tuple(
            MeteredPart(
                name,
                lambda begin, end, name=name: self._meters.energy(name, begin, end),  # type: ignore[misc]  # mypy infers no type for a default of a lambda
                channel.idle_watts,
                tree=channel.capability.quality == "estimated",
                extent=_extent(channel),
            )
            for name, channel in self._meters.channels.items()
            if channel.counts
        )


_end = attrgetter("t1_ns")


def _beside(usage: WindowUsage, window: Window | WindowUsage) -> bool:
    """Whether a window is beside another, or beside one around that other: neither lies inside of the other."""
    return usage.id != window.id and usage.id not in window.inside and set(window.inside).issuperset(usage.inside)


def _rival(window: Window) -> bool:
    """Whether a window takes part of the energy of the trials beside it."""
    return window.facts.parent is None and window.kind not in RESTS and window.kind != "total"


def _extent(channel: MeterChannel) -> tuple[int, int] | None:
    """Return the instants between which a curve has values: its nodes, and their reach beyond them."""
    ends, reach = channel.curve.t[:1] + channel.curve.t[-1:], int(reach_seconds(channel) * NANO)
    return (ends[0] - reach, ends[-1] + reach) if ends else None
