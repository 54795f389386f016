"""Threads whose windows a test opens and closes, with CPU time by a clock that is turned by hand."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from joulefront.search.energy import Ledger

SECOND = 10**9
WATTS = {"gpu:a": 300.0, "gpu:b": 150.0, "cpu:pkg0": 50.0}


class ThreadsAtWork:
    """Threads that open and close windows on demand, with CPU time that follows a clock turned by hand.

    A thread works while it has a window, or when it is told to. ``pool`` are CPU-seconds a second of threads that have no window.
    """

    def __init__(self, clock, patch):
        self.clock, self.pool, self.running = clock, 0.0, []
        self.patch, self.begin_ns, self.changes = patch, clock.now_ns, []

    @classmethod
    @contextmanager
    def on(cls, clock):
        with pytest.MonkeyPatch.context() as patch:
            made = cls(clock, patch)
            yield made
            for pool in made.running:
                pool.shutdown()

    def measure(self, ledger):
        """Make a ledger see this CPU time."""
        self.ledger = ledger
        self.patch.setattr(
            ledger._monitor, "cpu_seconds", lambda begin, end: (self.seconds(begin, end) + self.pool * (end - begin) / SECOND,) * 2
        )
        self.patch.setattr(ledger, "thread_seconds", lambda thread, own=None: self.seconds(self.begin_ns, self.clock.now_ns, thread))

    def seconds(self, begin, end, thread=None):
        """CPU-seconds of one thread, or of all, between two instants."""
        return sum(rate * max(end - max(t_ns, begin), 0) / SECOND for t_ns, who, rate in self.changes if thread in (None, who))

    def start(self, rate, ledger=None):
        """Start a thread that uses so many CPU-seconds a second while it works."""
        pool = ThreadPoolExecutor(1)
        self.running.append(pool)
        return Worker(self, pool, ledger or self.ledger, rate, pool.submit(threading.get_native_id).result())


@dataclass
class Worker:
    """One such thread, and the ledger that it measures with."""

    threads: ThreadsAtWork
    pool: ThreadPoolExecutor
    ledger: Ledger
    rate: float
    id: int
    open_windows: int = 0

    def works(self, rate):
        """Use so many CPU-seconds a second more from now on."""
        self.threads.changes.append((self.threads.clock.now_ns, self.id, rate))

    def open(self, name, **options):
        window = self.pool.submit(lambda: self.ledger.open(name, **options)).result()
        self.open_windows += 1
        if self.open_windows == 1:
            self.works(self.rate)
        return window

    def close(self, window):
        self.open_windows -= 1
        if self.open_windows == 0:
            self.works(-self.rate)
        self.pool.submit(window.close).result()
