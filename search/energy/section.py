"""Calls that must come to their end before a signal's handler may stop what they work on."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec, Protocol, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class Section:
    """Knows which threads are inside of it, and keeps for each what is to be done when it leaves.

    A signal's handler runs inside of the call that it interrupts, on the same thread: to wait there for a lock that this call holds, or for
    a thread that waits for it, is to wait for ever.
    """

    def __init__(self) -> None:
        self._depth: dict[int, int] = {}
        self._later: dict[int, Callable[[], object]] = {}

    @property
    def inside(self) -> bool:
        """Whether the thread that asks is inside."""
        return threading.get_ident() in self._depth

    @property
    def leaving(self) -> bool:
        """Whether the thread that asks has something to do when it leaves."""
        return threading.get_ident() in self._later

    def later(self, call: Callable[[], object]) -> None:
        """Make a call as soon as this thread has left."""
        self._later[threading.get_ident()] = call

    def __enter__(self) -> None:
        """Go in; the same thread may do so again."""
        me = threading.get_ident()
        self._depth[me] = self._depth.get(me, 0) + 1

    def __exit__(self, *_: object) -> None:
        """Go out, and do what was put off."""
        me = threading.get_ident()
        left = self._depth[me] - 1
        if left:
            self._depth[me] = left
            return
        del self._depth[me]
        call = self._later.pop(me, None)
        if call is not None:
            call()


class _HasSection(Protocol):
    _section: Section


S = TypeVar("S", bound=_HasSection)


def whole(method: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[S, P], R]:
    """Make a method run inside of its object's section."""

    @wraps(method)
    def call(self: S, /, *arguments: P.args, **named: P.kwargs) -> R:
        with self._section:
            return method(self, *arguments, **named)

    return call
