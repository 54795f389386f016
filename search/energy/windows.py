"""The windows of a ledger: two instants and what lies between them, which of them are open, and which lie inside of which."""

from __future__ import annotations

import os
import threading
from bisect import bisect_right, insort
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from operator import attrgetter
from types import TracebackType
from typing import Any, Protocol

from .attribution import RESTS, WindowSnapshot, WindowUsage
from .host import Idle, idle_watts
from .record import KINDS, STATES, Record

#: Idle windows shorter than this say nothing about idle power.
IDLE_SECONDS = 1.0


class WindowOwner(Protocol):
    """What a window asks of the ledger that it belongs to."""

    @property
    def revision(self) -> int:
        """How often the past was written anew."""

    def joules(self, t0_ns: int, t1_ns: int | None = None) -> float | None:
        """Return the energy between two instants without a new reading, or None when it is not known."""

    def settle(self, window: Window) -> tuple[Record, bool]:
        """Return what is known of a window, and whether that is final."""

    def wait(self, t_ns: int) -> None:
        """Wait until no later reading can change what was before an instant."""

    def close(self, window: Window, state: str, synchronize: Callable[[], object] | None = None, *, settle: bool = False) -> Record:
        """End a window and return its record."""


@dataclass(frozen=True, slots=True)
class Edge:
    """One end of a window: the CPU time that measuring had cost by then, and temperature, clocks and throttling of devices where noted."""

    t_ns: int
    spent_ns: int = 0
    devices: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class WindowFacts:
    """What is known of a window from its opening on.

    Attributes:
        top: Id of the outermost window around it; its own when there is none.
        devices: Components that it holds alone while others run beside it; None when it runs alone.
    """

    id: str
    name: str
    kind: str
    parent: str | None
    top: str
    opening: Edge
    devices: tuple[str, ...] | None = None


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
    """

    def __init__(self, owner: WindowOwner, facts: WindowFacts, synchronize: Callable[[], object] | None = None) -> None:
        self.facts = facts
        self.id, self.name, self.kind, self.t0_ns = facts.id, facts.name, facts.kind, facts.opening.t_ns
        self.cpu_seconds: float | None = None
        self.ended_ns: int | None = None
        self._owner, self._synchronize = owner, synchronize
        self.closing: Edge | None = None
        self.state = "open"
        self._final: tuple[int, Record] | None = None  # the revision of the past that it is final for

    @property
    def t1_ns(self) -> int | None:
        """When it ended; None while it is open."""
        return None if self.closing is None else self.closing.t_ns

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
        return self._owner.joules(self.t0_ns, self.t1_ns)

    def usage(self, t1_ns: int) -> WindowUsage:
        """Return the window as the split of the machine's energy needs it, up to ``t1_ns`` while it is open."""
        end_ns = t1_ns if self.closing is None else self.closing.t_ns
        return WindowUsage(self.id, self.kind, self.t0_ns, end_ns, self.cpu_seconds, self.facts.devices)

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
        """Return the window itself."""
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


class Registry:
    """Keeps the windows of one ledger."""

    def __init__(self, owner: WindowOwner) -> None:
        #: Random name of this ledger's life, which makes the ids of windows in one file differ.
        self.session = os.urandom(3).hex()
        self._owner = owner
        self._lock = threading.RLock()
        self._number = 0
        self._open: dict[str, Window] = {}
        self._around: dict[str, tuple[str, ...]] = {}
        self._threads: dict[str, int] = {}
        self._ended: list[WindowUsage] = []  # by their ends
        self._registered: dict[tuple[int, int, str], WindowUsage] = {}
        self._changed_ns: int | None = None
        self._idle: list[Record] = []

    def make(
        self,
        name: str,
        kind: str,
        parent: Window | str | None,
        opening: Edge,
        synchronize: Callable[[], object] | None = None,
        devices: tuple[str, ...] | None = None,
        id: str | None = None,
    ) -> Window:
        """Return a window that nobody has entered yet; without an id it is a new one."""
        check_kind(kind)
        with self._lock:
            if id is None:
                self._number += 1
                id = f"{self.session}.{self._number}"
            above = parent.id if isinstance(parent, Window) else parent
            top = id if above is None else self._open[above].facts.top if above in self._open else above
        return Window(self._owner, WindowFacts(id, name, kind, above, top, opening, devices), synchronize)

    def enter(self, window: Window) -> None:
        """Note that a window is open.

        One that does not run in parallel, opened while another is open in the same thread, lies inside of that one until it outlives it.
        """
        thread = threading.get_ident()
        with self._lock:
            if window.facts.parent is None and not window.parallel:
                self._around[window.id] = tuple(one.id for one in self._open.values() if _rival(one) and self._threads[one.id] == thread)
            self._threads[window.id] = thread
            self._open[window.id] = window

    def leave(self, window: Window) -> None:
        """Note that a window has ended; the joules of one inside of another are the outer one's."""
        with self._lock:
            known = self._open.pop(window.id, None) is not None
            self._threads.pop(window.id, None)
            if known and window.t1_ns is not None and self._outermost(window):
                insort(self._ended, window.usage(window.t1_ns), key=_end)
            self._around.pop(window.id, None)

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
        """Return the usages that decide what an open window has taken so far, for a file that outlives this process.

        None for the whole machine, which is what a window of overhead or of rest takes.
        """
        rival = _rival(window) or window.parallel
        return self.usages(window.t0_ns, now_ns, window) if rival else None

    def open(self) -> list[Window]:
        """Return the open windows, the inner ones first."""
        with self._lock:
            return list(self._open.values())[::-1]

    def usages(self, t0_ns: int, t1_ns: int, window: Window | None = None) -> list[WindowUsage]:
        """Return the top-level windows between two instants; open ones are taken until the second.

        ``window`` takes the place of the top-level one around it, and competes like a trial whatever its kind.
        """
        with self._lock:
            found = self._between(t0_ns, t1_ns)
        if window is None:
            return found
        own = replace(window.usage(t1_ns), kind="trial")
        return [usage for usage in found if usage.id not in (window.facts.top, window.facts.parent, window.id)] + [own]

    def snapshot(self, t0_ns: int, t1_ns: int) -> WindowSnapshot:
        """Return the windows between two instants, and what of them can still change."""
        with self._lock:
            begins = [one.t0_ns for one in self._open.values() if _rival(one)]
            changed, self._changed_ns = self._changed_ns, None
            return WindowSnapshot(self._between(t0_ns, t1_ns), min(begins, default=None), changed)

    def _between(self, t0_ns: int, t1_ns: int) -> list[WindowUsage]:
        ended = self._ended[bisect_right(self._ended, t0_ns, key=_end) :]
        return ended + [one.usage(t1_ns) for one in self._open.values() if self._outermost(one)]

    def _outermost(self, window: Window) -> bool:
        inside = window.facts.parent is not None or window.kind == "total"
        return not inside and not any(id in self._open for id in self._around.get(window.id, ()))

    def learn_idle(self, record: Record) -> dict[str, Idle]:
        """Return the idle power of each component over the idle windows so far, this one included."""
        if record.seconds >= IDLE_SECONDS:
            self._idle.append(record)
        return idle_watts(self._idle)

    def clear(self) -> None:
        """Drop every open window: they belong to the process that this one was forked from."""
        self._lock = threading.RLock()
        for kept in (self._open, self._around, self._threads):
            kept.clear()


_end = attrgetter("t1_ns")


def _rival(window: Window) -> bool:
    """Whether a window takes part of the energy of the trials beside it."""
    return window.facts.parent is None and window.kind not in RESTS and window.kind != "total"


def check_kind(kind: str) -> None:
    """Refuse an unknown kind of window.

    Raises:
        ValueError: If ``kind`` is none of ``KINDS``.
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
