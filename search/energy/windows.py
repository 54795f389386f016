"""The windows of a ledger: which are open, which lie inside of which, and what each says about itself.

A window: two instants on the ledger, and what lies between them.
"""

from __future__ import annotations

import os
import threading
from bisect import bisect_right, insort
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any

from .attribution import RESTS, WindowSnapshot, WindowUsage
from .host import Idle, idle_watts
from .record import KINDS, STATES, Record

if TYPE_CHECKING:
    from .ledger import Ledger


class Window:
    """A stretch of time on a ledger, made by ``Ledger.open`` or ``Ledger.window``.

    A window holds no counters: it is a question to the ledger's curves. So windows nest, overlap and run in parallel
    freely, and a reading that arrives after the end makes the answer better.
    """

    def __init__(
        self,
        ledger: Ledger,
        *,
        id: str,
        name: str,
        kind: str,
        parent: str | None,
        t0_ns: int,
        synchronize: Callable[[], object] | None,
    ) -> None:
        self._ledger = ledger
        self.id, self.name, self.kind, self.parent = id, name, kind, parent
        self.top = id  # the outermost window around it
        self.t0_ns = t0_ns
        self.t1_ns: int | None = None
        self.state = "open"
        self.begin: Mapping[str, Any] = {}
        self.end: Mapping[str, Any] = {}
        self.cpu_seconds: float | None = None
        self.devices: tuple[str, ...] | None = None
        self.spent_ns = 0
        self._synchronize = synchronize
        self._final: Record | None = None
        self._revision = 0

    def joules(self) -> float | None:
        """Return the energy so far without a new reading, or None when it is not known."""
        if self._final is not None and self._ledger.revision <= self._revision:
            return self._final.joules
        return self._ledger.joules(self.t0_ns, self.t1_ns)

    @property
    def record(self) -> Record:
        """Return what the window cost; so far, while it is open.

        Asked again a refresh of the meters later, the answer is better: the last refresh before the end is then followed by one
        after it. From then on it stays, unless a meter turns out to have been wrong all along and what it said is replaced.
        """
        revision = self._ledger.revision
        if self._final is not None and revision <= self._revision:
            return self._final
        record, settled = self._ledger.settle(self)
        if settled:
            self._final, self._revision = record, revision
        return record

    @property
    def claims(self) -> bool:
        """Whether it is one of several in parallel, and gets its own part of what they share."""
        return self.cpu_seconds is not None or self.devices is not None

    def claim(self, t1_ns: int) -> WindowUsage:
        """Return what the window says about itself, up to ``t1_ns`` while it is open."""
        return WindowUsage(self.id, self.kind, self.t0_ns, t1_ns if self.t1_ns is None else self.t1_ns, self.cpu_seconds, self.devices)

    def close(self, state: str = "ok", *, settle: bool = False, cpu_seconds: float | None = None) -> Record:
        """End the window; a second call changes nothing and returns the record.

        Args:
            state: ``ok``, ``failed``, ``stopped``, ``pruned`` (judged not worth going on), ``killed`` or ``partial``.
            settle: Wait until the record is final: for the meters' next refresh (a GPU's comes in about 0.1 s, a wall meter's in a few of
                its own intervals at most). The end is taken before. A second call waits, too.
            cpu_seconds: CPU-seconds of the window's own processes, when others run beside it; see ``Ledger.query``.

        Raises:
            ValueError: If ``state`` is none of these.
        """
        if state not in STATES or state == "open":
            raise ValueError(f"state must be one of {', '.join(name for name in STATES if name != 'open')}, got {state!r}")
        if self.t1_ns is not None:
            if settle:
                self._ledger.wait(self.t1_ns)
            return self.record
        self.cpu_seconds = cpu_seconds
        return self._ledger.close(self, state, self._synchronize, settle=settle)

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


#: Idle windows shorter than this say nothing about idle power.
IDLE_SECONDS = 1.0


class Registry:
    """Keeps the windows of one ledger.

    Attributes:
        session: Random name of this ledger's life, which makes the ids of windows in one file differ.
    """

    def __init__(self) -> None:
        self.session = os.urandom(3).hex()
        self._lock = threading.Lock()
        self._number = 0
        self._open: dict[str, Window] = {}
        self._around: dict[str, tuple[str, ...]] = {}
        self._threads: dict[str, int] = {}
        self._ended: list[WindowUsage] = []  # by their ends
        self._said: dict[tuple[int, int, str], WindowUsage] = {}
        self._changed_ns: int | None = None
        self._idle: list[Record] = []

    def make(
        self,
        ledger: Ledger,
        name: str,
        kind: str,
        parent: Window | str | None,
        t0_ns: int,
        synchronize: Callable[[], object] | None = None,
        devices: tuple[str, ...] | None = None,
    ) -> Window:
        """Return a new window that nobody has entered yet.

        Raises:
            ValueError: If ``kind`` is none of ``KINDS``.
        """
        check_kind(kind)
        with self._lock:
            self._number += 1
            id = f"{self.session}.{self._number}"
        above = parent.id if isinstance(parent, Window) else parent
        window = Window(ledger, id=id, name=name, kind=kind, parent=above, t0_ns=t0_ns, synchronize=synchronize)
        window.devices = devices
        with self._lock:
            window.top = id if above is None else self._open[above].top if above in self._open else above
        return window

    def enter(self, window: Window) -> None:
        """Note that a window is open.

        One that makes no claim, opened while another is open in the same thread, lies inside of that one until it outlives it.
        """
        thread = threading.get_ident()
        with self._lock:
            if window.parent is None and not window.claims:
                self._around[window.id] = tuple(one.id for one in self._open.values() if _rival(one) and self._threads[one.id] == thread)
            self._threads[window.id] = thread
            self._open[window.id] = window

    def leave(self, window: Window) -> None:
        """Note that a window has ended; one inside of another says nothing for itself, its joules are the outer one's."""
        with self._lock:
            known = self._open.pop(window.id, None) is not None
            self._threads.pop(window.id, None)
            if known and window.t1_ns is not None and self._outermost(window):
                insort(self._ended, window.claim(window.t1_ns), key=_end)
            self._around.pop(window.id, None)

    def say(self, window: Window) -> None:
        """Note a window that was never open here, e.g. of a worker process.

        Its name and its instants say which it is: said again, it is the same window, and what is said last holds.
        """
        assert window.t1_ns is not None
        key = window.t0_ns, window.t1_ns, window.name
        with self._lock:
            before = self._said.get(key)
            if before is not None:
                window.id = window.top = before.id
            claim = window.claim(window.t1_ns)
            if window.parent is not None or window.kind == "total" or claim == before:
                return
            if before is not None:
                self._ended.remove(before)
            self._said[key] = claim
            insort(self._ended, claim, key=_end)
            self._changed_ns = claim.t0_ns if self._changed_ns is None else min(self._changed_ns, claim.t0_ns)

    def asked(self, window: Window, now_ns: int) -> list[WindowUsage] | None:
        """Return the claims that tell what an open window has taken so far, for a file that outlives this process.

        None for the whole machine, which is what a window of overhead or of rest says.
        """
        rival = _rival(window) or window.claims
        return self.claims(window.t0_ns, now_ns, window) if rival else None

    def open(self) -> list[Window]:
        """Return the open windows, the inner ones first."""
        with self._lock:
            return list(self._open.values())[::-1]

    def claims(self, t0_ns: int, t1_ns: int, window: Window | None = None) -> list[WindowUsage]:
        """Return what the top-level windows between two instants say about themselves.

        Args:
            t0_ns: Begin; windows that ended before are left out.
            t1_ns: End, until when open windows are taken.
            window: A window that takes the place of the top-level one around it, and competes like a trial whatever its kind.
        """
        with self._lock:
            found = self._between(t0_ns, t1_ns)
        if window is None:
            return found
        own = replace(window.claim(t1_ns), kind="trial")
        return [claim for claim in found if claim.id not in (window.top, window.parent, window.id)] + [own]

    def view(self, t0_ns: int, t1_ns: int) -> WindowSnapshot:
        """Return the windows between two instants, and what of them can still change."""
        with self._lock:
            begins = [one.t0_ns for one in self._open.values() if _rival(one)]
            changed, self._changed_ns = self._changed_ns, None
            return WindowSnapshot(self._between(t0_ns, t1_ns), min(begins, default=None), changed)

    def _between(self, t0_ns: int, t1_ns: int) -> list[WindowUsage]:
        ended = self._ended[bisect_right(self._ended, t0_ns, key=_end) :]
        return ended + [one.claim(t1_ns) for one in self._open.values() if self._outermost(one)]

    def _outermost(self, window: Window) -> bool:
        inside = window.parent is not None or window.kind == "total"
        return not inside and not any(id in self._open for id in self._around.get(window.id, ()))

    def learn_idle(self, record: Record) -> dict[str, Idle]:
        """Return the idle power of each component over the idle windows so far, this one included."""
        if record.seconds >= IDLE_SECONDS:
            self._idle.append(record)
        return idle_watts(self._idle)

    def forget(self) -> None:
        """Drop every open window: they belong to the process that this one was forked from."""
        self._lock = threading.Lock()
        for kept in (self._open, self._around, self._threads):
            kept.clear()


def _end(claim: WindowUsage) -> int:
    return claim.t1_ns


def _rival(window: Window) -> bool:
    """Whether a window takes part of the energy of the trials beside it."""
    return window.parent is None and window.kind not in RESTS and window.kind != "total"


def check_kind(kind: str) -> None:
    """Refuse an unknown kind of window.

    Raises:
        ValueError: If ``kind`` is none of ``KINDS``.
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
