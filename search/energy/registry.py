"""The windows of a ledger: which are open, which lie inside of which, and what each says about itself."""

from __future__ import annotations

import os
import statistics
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from .attribution import Claim
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
        self._parents: dict[str, str | None] = {}
        self._ended: list[Claim] = []
        self._idle: dict[str, list[float]] = {}

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
        return window

    def enter(self, window: Window) -> None:
        """Note that a window is open."""
        with self._lock:
            self._open[window.id] = window
            self._parents[window.id] = window.parent

    def leave(self, window: Window) -> None:
        """Note that a window has ended; one inside of another says nothing for itself, its joules are the outer one's."""
        with self._lock:
            self._open.pop(window.id, None)
            if window.parent is None and window.t1_ns is not None:
                self._ended.append(window.claim(window.t1_ns))

    def open(self) -> list[Window]:
        """Return the open windows, the inner ones first."""
        with self._lock:
            return list(self._open.values())[::-1]

    def claims(self, now_ns: int, window: Window | None = None) -> list[Claim]:
        """Return what the top-level windows say about themselves, the open ones up to now.

        Args:
            now_ns: Until when open windows are taken.
            window: A window that takes the place of the top-level one around it.
        """
        with self._lock:
            found = self._ended + [one.claim(now_ns) for one in self._open.values() if one.parent is None]
            if window is None:
                return found
            top: str | None = window.id
            while top is not None and self._parents.get(top) is not None:
                top = self._parents[top]
        return [claim for claim in found if claim.id not in (top, window.parent, window.id)] + [window.claim(now_ns)]

    def learn_idle(self, record: Record) -> dict[str, float]:
        """Return the median power of each component over the idle windows so far, this one included."""
        for part in record.components:
            if part.joules is not None and not part.below_resolution and record.seconds >= IDLE_SECONDS:
                self._idle.setdefault(part.name, []).append(part.joules / record.seconds)
        return {name: statistics.median(watts) for name, watts in self._idle.items()}

    def forget(self) -> None:
        """Drop every open window: they belong to the process that this one was forked from."""
        self._lock = threading.Lock()
        self._open.clear()


def check_kind(kind: str) -> None:
    """Refuse an unknown kind of window.

    Raises:
        ValueError: If ``kind`` is none of ``KINDS``.
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
