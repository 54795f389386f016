"""Measuring in the background of somebody else's program: the thread that reads, forks, signal handlers, and sources that fail."""

from __future__ import annotations

import os
import random
import threading
import time
import weakref
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from .sources.source import NANO, Clock

T = TypeVar("T")
P = ParamSpec("P")
R = TypeVar("R")
#: Pause between two reads of a burst, in seconds.
BURST_SECONDS = 0.002
#: The warning when the thread ends before its time: by a ``SystemExit`` that a source raises, say.
ENDED = "the thread that reads the meters has ended: nothing is read between the edges of windows"


_chance = random.Random(0)
#: Random numbers between 0 and 1, the same in every ledger; drawn beforehand, since seeding a generator costs more than a reading.
CHANCE = tuple(_chance.random() for _ in range(1024))


def due(number: int, interval_seconds: float) -> float:
    """Return when the reading of a number is due, in seconds after the first: anywhere in its interval, by chance.

    Regular readings alias. In step with a driver that refreshes at the same rate, every one would fall onto a refresh and reveal nothing of
    its time; a load that pulses, as training steps do, would be seen at one phase only or look like a slow wave, whatever the rule by which
    regular deadlines are moved. Readings at random times see every load as it is, and its pulses as noise of a known size. The same number
    is due at the same time in every ledger.

    Source: Bilinskis and Mikelsons, Randomized Signal Processing (1992), on sampling with jitter.
    """
    return (number + CHANCE[number % len(CHANCE)] - 0.5) * interval_seconds


class Sampler:
    """Calls ``sample`` on absolute deadlines from a daemon thread.

    Deadlines are absolute: a late wake-up does not push the later ones, and missed ones are left out. What the calls raise becomes a
    warning, and the thread continues: without it, counters wrap unseen and a killed process leaves nothing behind.

    ``burst`` polls if it is time for it, and returns in how many seconds the next time is, or None for no more; ``checkpoint`` writes down
    where everything stands, every ``checkpoint_seconds`` at most.
    """

    def __init__(
        self,
        sample: Callable[[], object],
        burst: Callable[[], float | None],
        checkpoint: Callable[[], object],
        warn: Callable[[str], object],
        *,
        interval_seconds: float,
        checkpoint_seconds: float,
    ) -> None:
        self._sample, self._burst, self._checkpoint, self._warn = sample, burst, checkpoint, warn
        self._interval, self._checkpoint_every = interval_seconds, checkpoint_seconds
        # A bare lock that is released to wake the thread: an Event does the same through ten Python calls, ten times a second.
        self._wake = threading.Lock()
        self._wake.acquire()
        self._stopping = False
        #: CPU time that the thread has taken, by the end of its last call.
        self.spent_ns = 0
        self._polling = True
        self._next: float | None = time.monotonic() + BURST_SECONDS  # the refresh period is learnt from a burst at the very start
        self._thread = threading.Thread(target=self._run, name="joulefront-energy", daemon=True)

    @property
    def alive(self) -> bool:
        """Whether the thread reads."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Start to read."""
        self._thread.start()

    def nudge(self, *, at_once: bool = False) -> None:
        """Ask for a burst: an edge of a window has just passed. One that is under way will see what comes next anyway, if not at once."""
        if at_once or not self._polling:
            self._rouse()

    def stop(self) -> None:
        """End the thread and wait for it."""
        self._stopping = True
        self._rouse()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join()

    def _rouse(self) -> None:
        with suppress(RuntimeError):  # it has been woken already
            self._wake.release()

    def _run(self) -> None:
        try:
            self._repeat()
        finally:
            if not self._stopping:
                self._warn(ENDED)

    def _repeat(self) -> None:
        begin = time.monotonic()
        written = begin
        number = 0
        while not self._stopping:
            number = max(number + 1, int((time.monotonic() - begin) / self._interval))
            self._wait(begin + due(number, self._interval))
            if self._stopping:
                return
            self._try(self._sample)
            # The next reading may be two intervals away.
            if time.monotonic() - written > self._checkpoint_every - 2 * self._interval:
                written = time.monotonic()
                self._try(self._checkpoint)

    def _wait(self, deadline: float) -> None:
        """Wait for a deadline, and poll where that is worth it."""
        while not self._stopping and (left := deadline - time.monotonic()) > 0:
            rest = left if self._next is None else min(self._next - time.monotonic(), left)
            roused = self._wake.acquire(timeout=max(rest, 0.0))
            if self._stopping or (not roused and (self._next is None or time.monotonic() < self._next)):
                continue
            # An edge that passes from here on asks for a burst of its own, so that none is missed between the answer and the next line.
            self._polling = False
            pause = self._try(self._burst)
            self._next = None if pause is None else time.monotonic() + pause
            self._polling = pause is not None

    def _try(self, call: Callable[[], T]) -> T | None:
        try:
            return call()
        except Exception as error:
            self._warn(f"the thread that reads the meters: {error!r}")
            return None
        finally:
            self.spent_ns = time.thread_time_ns()


#: The methods to call in a forked child. ``os.register_at_fork`` knows no way back, so one of its calls serves all objects of the process.
_in_child: weakref.WeakKeyDictionary[Any, Callable[[Any], Any]] = weakref.WeakKeyDictionary()


def after_fork(method: Callable[[], Any]) -> None:
    """Call a method in every forked child for as long as its object lives, one method for each; the object is not kept alive for it."""
    _in_child[method.__self__] = method.__func__  # type: ignore[attr-defined]  # a bound method has both


def _call_in_child() -> None:
    for alive, method in tuple(_in_child.items()):
        method(alive)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_call_in_child)


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


def whole(method: Callable[P, R]) -> Callable[P, R]:
    """Make a method run inside of its object's section."""

    @wraps(method)
    def call(*arguments: P.args, **named: P.kwargs) -> R:
        owner: Any = arguments[0]
        with owner._section:
            return method(*arguments, **named)

    return call


#: Different texts that are kept; a text that is never twice the same must not fill the memory.
MOST = 100
#: What went wrong is taken to last for so long: sources are polled for their extras occasionally, the rarest at each checkpoint.
LASTS_NS = 5 * NANO


class Warnings:
    """Texts with the stretch of time in which they were noted.

    A source that fails at telling a temperature must end neither the measuring nor the work that is measured; it ends up here instead.
    """

    def __init__(self, clock: Clock = time.monotonic_ns) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._seen: dict[str, tuple[int, int, int]] = {}  # when first and last, and how often

    def note(self, text: str) -> None:
        """Note that something went wrong now."""
        now = self._clock()
        with self._lock:
            first, _, times = self._seen.get(text, (now, now, 0))
            if times or len(self._seen) < MOST:
                self._seen[text] = first, now, times + 1

    def ask(self, sources: Iterable[object], what: str, take: Callable[[Any], T]) -> dict[str, T]:
        """Return what a method of the sources gives by component, as ``take`` makes it; what one of both raises is noted."""
        found: dict[str, T] = {}
        for source in sources:
            try:
                found |= {str(component): take(value) for component, value in dict(getattr(source, what, dict)()).items()}
            except Exception as error:  # whatever somebody else's meter does, the measuring continues
                self.note(f"{getattr(source, 'name', None) or type(source).__name__} failed at {what}: {error!r}")
        return found

    def during(self, t0_ns: int, t1_ns: int) -> list[str]:
        """Return what was noted between two instants, shortly before them, or both before and after them."""
        with self._lock:
            found = [(text, times) for text, (first, last, times) in self._seen.items() if first <= t1_ns and t0_ns <= last + LASTS_NS]
        return [text if times == 1 else f"{text} ({times} times by now)" for text, times in found]
