"""A window of a ledger: two instants, also in UTC for people, and what lies between them."""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from operator import itemgetter
from threading import get_native_id
from types import TracebackType
from typing import Any, Protocol

from .record import STATES, Record
from .sources.cpu_time import process_clock
from .sources.source import NANO, Capability, Clock

#: Kinds of windows that take nothing from a trial: they name what the time without trials was.
RESTS = frozenset({"idle", "overhead"})
#: What a thread did while it had no window, as the split sees it.
THREAD = "thread"
#: A thread that waits, looks now and then or shows progress stays below so many CPU-seconds a second; it gives no work to others.
WAITING = 0.01
#: Returns the wall clock.
UTC_NOW = partial(datetime.now, UTC)

#: A change of the distance between the clocks that is not their drift.
STEP = timedelta(milliseconds=20)


class WindowOwner(Protocol):
    """What a window asks of the ledger that it belongs to."""

    @property
    def revision(self) -> int:
        """How often the past was written anew."""

    def joules(self, t0_ns: int, t1_ns: int | None = None) -> float | None:
        """Return the energy between two instants without a new reading, or None when it is not known."""

    def settle(self, window: Window) -> tuple[Record, bool]:
        """Return what is known of a window, and whether that is final."""

    def beside(self, window: Window) -> bool:
        """Return whether other threads of this process had windows beside it."""

    def wait(self, t_ns: int) -> None:
        """Wait until no later reading can change what was before an instant."""

    def thread_seconds(self, thread: int, own: float | None = None) -> float | None:
        """Return the CPU-seconds of a thread and its children so far, or None where they are not known."""

    def close(self, window: Window, state: str, synchronize: Callable[[], object] | None = None, *, settle: bool = False) -> Record:
        """End a window and return its record."""


@dataclass(frozen=True, slots=True)
class Edge:
    """One end of a window: the CPU time that the ledger's calls and its thread had cost by then, and what was noted of the devices.

    That is temperature, clocks and throttling.
    """

    t_ns: int
    spent_ns: int = 0
    devices: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class WindowFacts:
    """What is known of a window from its opening on.

    Attributes:
        devices: Components that it holds alone while others run beside it; None when it runs alone.
        processes: Whether other processes do the work.
    """

    id: str
    name: str
    kind: str
    parent: str | None
    opening: Edge
    devices: tuple[str, ...] | None = None
    processes: bool = False


@dataclass(frozen=True)
class WindowUsage:
    """One window as the split sees it: when, with how much of the CPU, on which devices.

    Attributes:
        t0_ns: Start on the machine's monotonic clock, ``t1_ns`` the end.
        cpu_seconds: CPU-seconds of its own processes, or None when unknown.
        devices: Components that it holds alone, e.g. ``("gpu:GPU-1a2b",)``; None for all of them.
        inside: Ids of the windows that it lies inside of.
        opener: The thread of this process that opened it and does its work, so that what no window accounts for may be its own, too;
            None where its CPU-seconds are stated.
        nodes: Instants with the CPU-seconds of that thread until then, from its start on; empty when they do not tell its work.
    """

    id: str
    kind: str
    t0_ns: int
    t1_ns: int
    cpu_seconds: float | None = None
    devices: tuple[str, ...] | None = None
    inside: tuple[str, ...] = ()
    opener: int | None = None
    nodes: tuple[tuple[int, float], ...] = ()

    @property
    def competes(self) -> bool:
        """Whether it takes its part like a trial; idle and overhead windows have what the trials leave."""
        return self.kind not in RESTS and self.kind != THREAD

    def apart(self, t0_ns: int, t1_ns: int) -> float:
        """Return the CPU-seconds of a thread that worked without a window, more than one that waits."""
        used = 0.0 if self.kind != THREAD else self.cpu_between(t0_ns, t1_ns) or 0.0
        return used if used > WAITING * (t1_ns - t0_ns) / NANO else 0.0

    def cpu_between(self, t0_ns: int, t1_ns: int) -> float | None:
        """Return the CPU-seconds of a part of it, taken as evenly spread between the instants at which they are known."""
        if self.nodes:
            return _seconds_by(self.nodes, t1_ns) - _seconds_by(self.nodes, t0_ns)
        if self.cpu_seconds is None:
            return None
        return self.cpu_seconds * (t1_ns - t0_ns) / max(self.t1_ns - self.t0_ns, 1)

    def holds(self, component: str) -> bool:
        """Return whether a device is its own."""
        return self.devices is None or component in self.devices


def _seconds_by(nodes: Sequence[tuple[int, float]], t_ns: int) -> float:
    i = bisect_right(nodes, t_ns, key=itemgetter(0))
    if i == 0 or i == len(nodes):
        return nodes[min(i, len(nodes) - 1)][1]
    (before_ns, before), (after_ns, after) = nodes[i - 1 : i + 1]
    return before + (after - before) * (t_ns - before_ns) / (after_ns - before_ns)


class Window:
    """A stretch of time on a ledger, made by ``Ledger.open`` or ``Ledger.window``.

    A window holds no counters: it is a question to the ledger's curves. So windows nest, overlap and run in parallel
    freely, and a reading that arrives after the end makes the answer better.

    Attributes:
        facts: What is known from the opening on; ``id``, ``name``, ``kind`` and the begin ``t0_ns`` on the monotonic clock are of it.
        state: ``open``, or how it ended; set by ``end``.
        closing: Its end, or None while it is open; set by ``end``.
        cpu_seconds: CPU-seconds of the window's own processes, or None when unknown. Who knows them sets them before the end, where others
            run beside the window; see ``Ledger.query``.
        ended_ns: When it ended, where that was before the call that closes it: what another process does begins (``t0_ns``) and ends at
            that process's instants of the monotonic clock, and who is told of them sets both.
        inside: Ids of the windows that it lies inside of.
        opener: Native id of the thread that opened it, negative for a task of an event loop; None when it was never open here.
        crossed: Whether another window of its thread began inside of it and outlived it, or the other way round.
    """

    def __init__(self, owner: WindowOwner, facts: WindowFacts, synchronize: Callable[[], object] | None = None) -> None:
        self.facts = facts
        self.id, self.name, self.kind, self.t0_ns = facts.id, facts.name, facts.kind, facts.opening.t_ns
        self.cpu_seconds: float | None = None
        self.ended_ns: int | None = None
        self.inside: tuple[str, ...] = ()
        self.opener: int | None = None
        self.crossed = self._entered = False
        self._pid: int | None = None
        self._nodes: list[tuple[int, float]] = []
        self._owner, self._synchronize = owner, synchronize
        self.closing: Edge | None = None
        self.state = "open"
        self._final: tuple[int, Record] | None = None  # the revision of the past that it is final for

    @property
    def t1_ns(self) -> int | None:
        """When it ended; None while it is open."""
        return None if self.closing is None else self.closing.t_ns

    @property
    def here(self) -> bool:
        """Whether it was opened by a thread of this process that does its work, too."""
        return self.opener is not None and not self.facts.processes

    @property
    def parallel(self) -> bool:
        """Whether it is one of several in parallel, and gets its own part of what they share."""
        return self.cpu_seconds is not None or self.facts.devices is not None

    @property
    def record(self) -> Record:
        """What the window cost; so far, while it is open.

        Read again a refresh of the meters later, the answer is better: the last refresh before the end is then followed by one
        after it. From then on it stays, unless a meter turns out to have been wrong all along and its readings are replaced.
        """
        revision = self._owner.revision
        if self._final is not None and revision <= self._final[0]:
            return self._final[1]
        record, settled = self._owner.settle(self)
        if settled:
            self._final = revision, record
        return record

    def joules(self) -> float | None:
        """Return the energy so far without a new reading, or None when it is not known."""
        if self._final is not None and self._owner.revision <= self._final[0]:
            return self._final[1].joules
        return self._owner.settle(self)[0].joules if self._owner.beside(self) else self._owner.joules(self.t0_ns, self.t1_ns)

    def usage(self, t1_ns: int) -> WindowUsage:
        """Return the window as the split of the machine's energy needs it, up to ``t1_ns`` while it is open."""
        end_ns = t1_ns if self.closing is None else self.closing.t_ns
        stated, nodes = self.cpu_seconds, tuple(self._nodes)
        if stated is not None:  # what is stated is all; the nodes say when
            begin, end = (nodes[0][1], nodes[-1][1]) if nodes and nodes[-1][0] >= end_ns else (0.0, 0.0)
            nodes = tuple((t_ns, stated * (seconds - begin) / (end - begin)) for t_ns, seconds in nodes) if end > begin else ()
        opener = self.opener if self.here and stated is None else None
        return WindowUsage(self.id, self.kind, self.t0_ns, end_ns, stated, self.facts.devices, self.inside, opener, nodes)

    def work_by(self, pid: int) -> None:
        """Tell which process does the work from now on, so that what it used by when is known and not only the sum."""
        self._pid = pid
        self.note(self.t0_ns)

    def note(self, t_ns: int, seconds: float | None = None, own: float | None = None) -> None:
        """Note what its thread has used by now, or by then, where the thread that asks used ``own`` itself; for its owner."""
        if seconds is None and self._pid is not None:
            seconds = process_clock(self._pid)
        elif self._pid is None and self.opener is not None and self.opener < 0:
            return
        elif seconds is None and self.here and self.opener is not None:
            seconds = self._owner.thread_seconds(self.opener, own if self.opener == get_native_id() else None)
        if seconds is not None and (not self._nodes or t_ns > self._nodes[-1][0]):
            self._nodes.append((t_ns, seconds))

    def forget(self) -> None:
        """Drop what was noted: another thread than the one that opened it has worked for it; for its owner."""
        self._nodes.clear()

    def end(self, closing: Edge, state: str) -> None:
        """Note where and how it ended; for its owner, callers use ``close``."""
        self.closing, self.state = closing, state

    def close(self, state: str = "ok", *, settle: bool = False, cpu_seconds: float | None = None) -> Record:
        """End the window; a second call changes nothing and returns the record.

        Args:
            state: ``ok``, ``failed``, ``stopped``, ``pruned`` (judged not worth continuing), ``killed`` or ``partial``.
            settle: Wait until the record is final: for the meters' next refresh (a GPU's comes in about 0.1 s, a wall meter's in a few of
                its own intervals at most). The end is taken before. A second call waits, too.
            cpu_seconds: CPU-seconds of the window's own processes, when others run beside it; None leaves what was set before.

        Raises:
            ValueError: If ``state`` is none of these.
        """
        if state not in STATES or state == "open":
            raise ValueError(f"state must be one of {', '.join(name for name in STATES if name != 'open')}, got {state!r}")
        if self.closing is not None:
            if settle:
                self._owner.wait(self.closing.t_ns)
            return self.record
        if cpu_seconds is not None:
            self.cpu_seconds = cpu_seconds
        return self._owner.close(self, state, self._synchronize, settle=settle)

    def __enter__(self) -> Window:
        """Return the window itself, which counts from when it was made.

        Raises:
            RuntimeError: If it was entered before, or has ended.
        """
        if self._entered or self.closing is not None:
            raise RuntimeError(f"window {self.name!r} counts once: make a new one each time, `with ledger.window(...):`")
        self._entered = True
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """End the window: ``ok``, ``failed`` after an exception, ``stopped`` after an interrupt."""
        if kind is None:
            self.close()
            return
        state = "failed" if issubclass(kind, Exception) else "stopped"
        try:
            self.close(state)
        except Exception as later:
            # The first error is the one to see: a device that failed usually fails to synchronise as well.
            if error is not None:
                error.add_note(f"closing the energy window failed too: {later!r}")


def held_devices(devices: Sequence[str] | None, known: Iterable[Capability]) -> tuple[str, ...] | None:
    """Return the components that a window holds alone; None for all.

    Raises:
        ValueError: ``devices`` is no list, or names a GPU that is none of those ``known``: what it meant would be left out of the sum.
    """
    if devices is None:
        return None
    names = {one.component: one.available and one.counts for one in known}
    gpus = [name for name, counts in names.items() if counts and name.startswith("gpu:")]
    if isinstance(devices, str | int) or (gpus and not names.keys() >= set(devices)):
        raise ValueError(f"devices must be a list of {', '.join(gpus) or 'names of GPUs'}, got {devices!r}; name them so")
    return tuple(devices)


@dataclass(frozen=True)
class _Stretch:
    """A stretch of time in which the distance of the two clocks held: one instant on both, and until when it was seen to hold."""

    t_ns: int
    utc: datetime
    until_ns: int

    def at(self, t_ns: int) -> datetime:
        return self.utc + timedelta(microseconds=(t_ns - self.t_ns) / 1000)


class Anchors:
    """Converts to UTC over a long run: the wall clock is set occasionally, and the monotonic clock stands still while a machine sleeps."""

    def __init__(self, clock: Clock = time.monotonic_ns, utc: Callable[[], datetime] = UTC_NOW) -> None:
        self._clock, self._utc = clock, utc
        t_ns = clock()
        self._stretches = [_Stretch(t_ns, utc(), t_ns)]

    def resync(self) -> None:
        """Compare the clocks; to be called every few seconds."""
        t_ns, utc = self._clock(), self._utc()
        last = self._stretches[-1]
        if abs(last.at(t_ns) - utc) < STEP:
            self._stretches[-1] = replace(last, until_ns=t_ns)
        else:
            self._stretches.append(_Stretch(t_ns, utc, t_ns))

    def iso(self, t_ns: int) -> str:
        """Return an instant of the monotonic clock as ISO 8601 in UTC, from the stretch that is nearest in time."""
        stretches = tuple(self._stretches)
        after = bisect_right(stretches, t_ns, key=lambda stretch: stretch.t_ns)
        near = stretches[max(after - 1, 0) : after + 1]
        nearest = min(near, key=lambda stretch: max(stretch.t_ns - t_ns, t_ns - stretch.until_ns, 0))
        return nearest.at(t_ns).isoformat(timespec="milliseconds")
