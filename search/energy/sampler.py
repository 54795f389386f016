"""The one thread of a ledger: reads at fixed times, and looks closely around the edges of windows."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from contextlib import suppress

#: Pause between two reads of a close look, in seconds.
CLOSE = 0.002


def due(number: int, interval_seconds: float) -> float:
    """Return when the reading of a number is due, in seconds after the first: anywhere in its interval, by chance.

    Regular readings alias. In step with a driver that refreshes at the same rate, every one would fall onto a refresh and say nothing of
    its time; a load that pulses, as training steps do, would be seen at one phase only or look like a slow wave, whatever the rule by which
    regular deadlines are moved. Readings at random times see every load as it is, and its pulses as noise of a known size. The same number
    is due at the same time in every ledger.

    Source: Bilinskis and Mikelsons, Randomized Signal Processing (1992), on sampling with jitter.
    """
    return (number + random.Random(number).random() - 0.5) * interval_seconds


class Sampler:
    """Calls ``sample`` on absolute deadlines from a daemon thread.

    Deadlines are absolute: a late wake-up does not push the later ones, and missed ones are left out.

    Args:
        sample: Reads everything.
        look: Reads once what is worth a close look; returns whether it needs another one.
        beat: Writes down where the books stand.
        interval_seconds: Time between two reads.
        beat_seconds: Time between two beats.
    """

    def __init__(
        self,
        sample: Callable[[], object],
        look: Callable[[], bool],
        beat: Callable[[], object],
        *,
        interval_seconds: float,
        beat_seconds: float,
    ) -> None:
        self._sample, self._look, self._beat = sample, look, beat
        self._interval, self._beat_every = interval_seconds, beat_seconds
        # A bare lock that is released to wake the thread: an Event does the same through ten Python calls, ten times a second.
        self._wake = threading.Lock()
        self._wake.acquire()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="joulefront-energy", daemon=True)

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def nudge(self) -> None:
        """Ask for a close look now: an edge of a window has just passed."""
        with suppress(RuntimeError):  # it has been woken already
            self._wake.release()

    def stop(self) -> None:
        """End the thread and wait for it."""
        self._stopping = True
        self.nudge()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self) -> None:
        begin = time.monotonic()
        beaten = begin
        number = 0
        looking = True  # the refresh period is learnt from a close look at the very start
        while not self._stopping:
            number = max(number + 1, int((time.monotonic() - begin) / self._interval))
            deadline = begin + due(number, self._interval)
            while not self._stopping and (left := deadline - time.monotonic()) > 0:
                if self._wake.acquire(timeout=min(left, CLOSE) if looking else left):
                    looking = True
                if looking and not self._stopping:
                    looking = self._look()
            if self._stopping:
                return
            self._sample()
            if time.monotonic() - beaten >= self._beat_every - self._interval / 2:
                beaten = time.monotonic()
                with suppress(OSError):  # a full disk must not end the measuring
                    self._beat()
