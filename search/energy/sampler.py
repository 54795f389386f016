"""The one thread of a ledger: reads at random times of a fixed rate, and polls in bursts around the edges of windows."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")
#: Pause between two reads of a burst, in seconds.
BURST_SECONDS = 0.002
#: The warning when the thread ends before its time: by a ``SystemExit`` that a source raises, say.
ENDED = "the thread that reads the meters has ended: nothing is read between the edges of windows"


def _draw(count: int) -> tuple[float, ...]:
    chance = random.Random(0)
    return tuple(chance.random() for _ in range(count))


#: Random numbers between 0 and 1, the same in every ledger; drawn beforehand, since seeding a generator costs more than a reading.
CHANCE = _draw(1024)


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

    Args:
        sample: Reads everything.
        burst: Polls if it is time for it; returns in how many seconds the next time is, or None for no more.
        checkpoint: Writes down where everything stands.
        warn: Takes note of what went wrong.
        interval_seconds: Time between two reads.
        checkpoint_seconds: Time between two checkpoints, at most.
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

    def nudge(self) -> None:
        """Ask for a burst: an edge of a window has just passed. One that is under way will see what comes next anyway."""
        if not self._polling:
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
