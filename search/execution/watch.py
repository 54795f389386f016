"""What ends a training that hangs: how long it may take, its watch that says whether it is overdue, and how it is interrupted.

A worker process is killed then. A training in this process is interrupted by an exception, which ends Python code and system calls that
wait; what cannot be interrupted so (a call into a library that never returns) is written down, and then the process ends.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import FrameType
from typing import Any, TypeVar

from ..records.trial import Trial

#: A training is looked at this often.
POLL_SECONDS = 0.25
#: Attempts, one a second, to interrupt a training in this process before the process ends; and the time to write down what is known.
ATTEMPTS, ABANDON_SECONDS = 5, 20.0
#: Interrupts the calls in which the main thread waits; ignored by default, and hardly ever used by libraries.
WAKE = getattr(signal, "SIGURG", None)

T = TypeVar("T")


class TrainingEnded(BaseException):
    """A training was ended from outside; no ``except Exception`` of a model can swallow it."""


@dataclass(frozen=True)
class Watch:
    """What an executor asks about the training under way.

    Attributes:
        overdue: Asked several times a second, maybe by another thread; returns why the training must end now although its epoch has not,
            or None.
        abandon: Writes down that the training failed for this reason; called right before the whole process ends.
    """

    overdue: Callable[[], str | None] = lambda: None
    abandon: Callable[[str], None] = lambda reason: None


#: A training may take for ever.
UNWATCHED = Watch()


def within(seconds: float, otherwise: Callable[[], str | None] = lambda: None) -> Callable[[], str | None]:
    """Return an ``overdue`` for what begins now and must end within so many seconds, or earlier if another one says so."""
    end = time.monotonic() + seconds
    return lambda: otherwise() or (f"it did not end within {seconds:.0f} s" if time.monotonic() > end else None)


def watched(work: Callable[[], T], watch: Watch) -> tuple[T | None, str | None]:
    """Do some work in this thread under a watch; what hangs so that no exception reaches it ends with the process.

    Return what the work has returned, None if it was ended; and why the watch wanted to end it, or None.
    """
    dog, found = _Watchdog(watch), None
    try:
        try:
            dog.start()
            found = work()
        finally:
            dog.stop()
    except TrainingEnded:  # the work let it through, or it came between two lines of ours
        dog.stop()
    return found, dog.reason


class _Watchdog:
    """Raises ``TrainingEnded`` in the thread that has made it when its watch says so, and ends the process if that does not help."""

    def __init__(self, watch: Watch) -> None:
        self.reason: str | None = None
        self._watch, self._over, self._thread = watch, threading.Event(), threading.get_ident()
        self._main = threading.current_thread() is threading.main_thread() and WAKE is not None
        self._before: Any = None

    def start(self) -> None:
        if self._main and WAKE is not None:
            self._before = signal.signal(WAKE, self._raise_here)
        threading.Thread(target=self._run, name="joulefront-watchdog", daemon=True).start()

    def stop(self) -> None:
        while True:
            try:
                self._over.set()
                if self._before is not None and WAKE is not None:
                    signal.signal(WAKE, self._before)
                return
            except TrainingEnded:  # it comes once a second at most
                continue

    def _raise_here(self, signum: int, frame: FrameType | None) -> None:
        if self.reason is not None and not self._over.is_set():
            raise TrainingEnded(self.reason)

    def _run(self) -> None:
        while (reason := self._watch.overdue()) is None:
            if self._over.wait(POLL_SECONDS):
                return
        self.reason = reason
        for _ in range(ATTEMPTS):
            if self._main and WAKE is not None:
                signal.pthread_kill(self._thread, WAKE)
            else:
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self._thread), ctypes.py_object(TrainingEnded))
            if self._over.wait(1.0):
                return
        last = threading.Timer(ABANDON_SECONDS, os._exit, (1,))
        last.daemon = True
        last.start()
        with contextlib.suppress(Exception):
            self._watch.abandon(reason)
        said = "nothing inside this process could end it: the process ends. What was measured is kept; the same command continues"
        print(f"\njoulefront: {reason}, and {said}", file=sys.stderr, flush=True)
        os._exit(1)


def slowest_epoch(known: float | None, seconds: float | None, epochs: int) -> float | None:
    """Return what an epoch takes in the slowest training, after one more has taken so many seconds; None while no training is known."""
    return known if seconds is None or epochs < 1 else max(known or 0.0, seconds / epochs)


def pace_of(trials: Iterable[Trial], hardware_id: str) -> float | None:
    """Return what an epoch has taken in the slowest of some trials on this hardware; None when none of them is complete."""
    found = None
    for trial in trials:
        if trial.state == "complete" and trial.hardware_id in (None, hardware_id):
            found = slowest_epoch(found, trial.energy.record.get("seconds"), len(trial.curve))
    return found


#: A training is ended when it takes so many times as long as the slowest one so far would have taken, and longer than this.
TIMES_EXPECTED, LEAST_SECONDS = 10.0, 60.0
#: The same before anything is known: a first epoch may take hours.
LEAST_SECONDS_UNKNOWN = 6 * 3600.0


class TimeLimit:
    """Whether one training takes too long: longer than its study allows, or many times what the slowest one would have taken.

    Attributes:
        most_seconds: The limit of the study, or None.
        epochs: Epochs that the training makes.
        expected: Returns what an epoch has taken in the slowest training so far, or None before the first.
        reason: Why it had to end; None while it has not.
    """

    def __init__(self, most_seconds: float | None, epochs: int, expected: Callable[[], float | None]) -> None:
        self.most_seconds, self.epochs, self.expected = most_seconds, epochs, expected
        self.reason: str | None = None
        self._began: float | None = None
        self._apart: float | None = None
        self._edge = self._slowest = 0.0

    def begin(self, kind: str = "") -> None:
        """Take note that a phase begins; before the first one a worker process starts.

        The time of ``features`` is left out: they are computed once, for many trainings that take a fraction of that.
        """
        now = time.monotonic()
        if self._began is None:
            self._began = self._edge = now
        if self._apart is not None:
            self._began, self._edge = self._began + (now - self._apart), self._edge + (now - self._apart)
        self._apart = now if kind == "features" else None

    def epoch(self) -> None:
        """Take note that an epoch has ended."""
        now = time.monotonic()
        self._slowest, self._edge = max(self._slowest, now - self._edge), now

    def __call__(self) -> str | None:
        """Return why the training must end now, or None."""
        if (found := self._found()) is not None:
            self.reason = found
        return found

    def _found(self) -> str | None:
        limit = self.most_seconds
        if limit is None:
            least = LEAST_SECONDS_UNKNOWN if self.expected() is None or self._apart is not None else LEAST_SECONDS
            limit = max(least, TIMES_EXPECTED * self.epochs * self._epoch_seconds())
        if self._began is None or time.monotonic() - self._began <= limit:
            return None
        expected = "" if self.most_seconds else ", 10 times what was expected"
        remedy = "if it needs longer, give --trial-timeout (Python: max_trial_seconds of the study)"
        return f"the training was ended after {limit:.0f} s{expected}; {remedy}"

    def _epoch_seconds(self) -> float:
        return max(self._slowest, self.expected() or 0.0)
