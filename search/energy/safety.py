"""What keeps measuring alive: forked children, signal handlers that interrupt a call, and sources that fail beside their readings."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from .sources.clock import NANO, Clock


class _Children:
    """The methods to call in a forked child.

    ``os.register_at_fork`` knows no way back, so one of its calls serves all objects of the process, and none is kept alive by it.
    """

    def __init__(self) -> None:
        self.methods: weakref.WeakKeyDictionary[Any, Callable[[Any], Any]] = weakref.WeakKeyDictionary()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self.call)

    def add(self, method: Callable[[], Any]) -> None:
        self.methods[method.__self__] = method.__func__  # type: ignore[attr-defined]  # a bound method has both

    def call(self) -> None:
        for alive, method in tuple(self.methods.items()):
            method(alive)


_children = _Children()


def after_fork(method: Callable[[], Any]) -> None:
    """Call a method in every forked child for as long as its object lives, one method for each; the object is not kept alive for it."""
    _children.add(method)


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


#: Different texts that are kept; a text that is never twice the same must not fill the memory.
MOST = 100
#: What went wrong is taken to last for so long: sources are polled for their extras occasionally, the rarest at each checkpoint.
LASTS_NS = 5 * NANO


@dataclass
class _Warning:
    first_ns: int
    last_ns: int
    times: int = 1


class Warnings:
    """Texts with the stretch of time in which they were noted.

    A source that fails at telling a temperature must end neither the measuring nor the work that is measured; it ends up here instead.

    Args:
        clock: Monotonic nanoseconds.
    """

    def __init__(self, clock: Clock = time.monotonic_ns) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._seen: dict[str, _Warning] = {}

    def note(self, text: str) -> None:
        """Note that something went wrong now."""
        now = self._clock()
        with self._lock:
            known = self._seen.get(text)
            if known is not None:
                known.last_ns, known.times = now, known.times + 1
            elif len(self._seen) < MOST:
                self._seen[text] = _Warning(now, now)

    def ask(self, source: object, what: str) -> dict[str, Any]:
        """Return what a source's method gives by component, or nothing, with a note, when it raises.

        Args:
            source: The source.
            what: Name of its method.
        """
        try:
            return dict(getattr(source, what)())
        except Exception as error:  # whatever somebody else's meter does, the measuring continues
            self.note(f"{getattr(source, 'name', None) or type(source).__name__} failed at {what}: {error!r}")
            return {}

    def during(self, t0_ns: int, t1_ns: int) -> list[str]:
        """Return what was noted between two instants, shortly before them, or both before and after them."""
        with self._lock:
            found = [(text, one.times) for text, one in self._seen.items() if one.first_ns <= t1_ns and t0_ns <= one.last_ns + LASTS_NS]
        return [text if times == 1 else f"{text} ({times} times by now)" for text, times in found]
