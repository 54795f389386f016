"""The windows of a ledger: which are open, which lie inside of which, and what each says about itself."""

from __future__ import annotations

import os
import threading
from bisect import bisect_right, insort
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from .attribution import RESTS, Claim
from .idle import Idle, idle_watts
from .kept import View
from .record import KINDS, Record
from .window import Window

if TYPE_CHECKING:
    from .ledger import Ledger

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
        self._ended: list[Claim] = []  # by their ends
        self._said: dict[tuple[int, int, str], Claim] = {}
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

    def asked(self, window: Window, now_ns: int) -> list[Claim] | None:
        """Return the claims that tell what an open window has taken so far, for a file that outlives this process.

        None for the whole machine, which is what a window of overhead or of rest says.
        """
        rival = _rival(window) or window.claims
        return self.claims(window.t0_ns, now_ns, window) if rival else None

    def open(self) -> list[Window]:
        """Return the open windows, the inner ones first."""
        with self._lock:
            return list(self._open.values())[::-1]

    def claims(self, t0_ns: int, t1_ns: int, window: Window | None = None) -> list[Claim]:
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

    def view(self, t0_ns: int, t1_ns: int) -> View:
        """Return the windows between two instants, and what of them can still change."""
        with self._lock:
            begins = [one.t0_ns for one in self._open.values() if _rival(one)]
            changed, self._changed_ns = self._changed_ns, None
            return View(self._between(t0_ns, t1_ns), min(begins, default=None), changed)

    def _between(self, t0_ns: int, t1_ns: int) -> list[Claim]:
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


def _end(claim: Claim) -> int:
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
