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

    ``pool`` are CPU-seconds a second of threads that have no window.
    """

    def __init__(self, clock, patch):
        self.clock, self.rates, self.pool, self.running = clock, {}, 0.0, []
        self.patch, self.begin_ns = patch, clock.now_ns

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
        self.patch.setattr(ledger._monitor, "cpu_seconds", lambda begin, end: (self.seconds(begin, end),) * 2)
        self.patch.setattr(
            ledger, "thread_seconds", lambda thread, own=None: self.rates.get(thread, 0.0) * (self.clock.now_ns - self.begin_ns) / SECOND
        )

    def seconds(self, begin, end):
        return (sum(self.rates.values()) + self.pool) * (end - begin) / SECOND

    def start(self, rate, ledger=None):
        """Start a thread that uses so many CPU-seconds a second while the clock moves."""
        pool = ThreadPoolExecutor(1)
        self.running.append(pool)
        self.rates[pool.submit(threading.get_native_id).result()] = rate
        return Worker(pool, ledger or self.ledger)


@dataclass
class Worker:
    """One such thread, and the ledger that it measures with."""

    pool: ThreadPoolExecutor
    ledger: Ledger

    def open(self, name, **options):
        return self.pool.submit(lambda: self.ledger.open(name, **options)).result()

    def close(self, window):
        self.pool.submit(window.close).result()
