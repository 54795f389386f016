"""What ends a training that hangs: its watch says whether it is overdue, and a worker process is killed then.

One in this process is interrupted by an exception, which ends Python code and system calls that wait; what cannot be interrupted so (a
call into a library that never returns) is written down, and then the process ends.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import Any, TypeVar

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
