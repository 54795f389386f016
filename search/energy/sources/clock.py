"""Monotonic time for durations, with anchors in UTC for people; CPU time of threads and other processes."""

from __future__ import annotations

import os
import sys
import threading
import time
from bisect import bisect_right
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial

#: Returns nanoseconds that never go back; on Linux all processes of a machine share the epoch of ``time.monotonic_ns``.
Clock = Callable[[], int]

NANO = 1_000_000_000
LINUX = sys.platform == "linux"
#: Returns the wall clock.
UTC_NOW = partial(datetime.now, UTC)

#: A change of the distance between the clocks that is not their drift.
STEP = timedelta(milliseconds=20)


@dataclass(frozen=True)
class Anchor:
    """One instant known on both clocks: the monotonic one and UTC."""

    t_ns: int
    utc: datetime

    @classmethod
    def now(cls, clock: Clock = time.monotonic_ns, utc: Callable[[], datetime] = UTC_NOW) -> Anchor:
        """Read both clocks."""
        return cls(t_ns=clock(), utc=utc())

    def at(self, t_ns: int) -> datetime:
        """Return an instant of the monotonic clock in UTC."""
        return self.utc + timedelta(microseconds=(t_ns - self.t_ns) / 1000)

    def iso(self, t_ns: int) -> str:
        """Return an instant of the monotonic clock as ISO 8601 in UTC."""
        return self.at(t_ns).isoformat(timespec="milliseconds")


class Anchors:
    """Converts to UTC over a long run: the wall clock is set occasionally, and the monotonic clock stands still while a machine sleeps.

    Between two such jumps the distance of the clocks is one; it is kept with the stretch of time in which it was seen to hold.
    """

    def __init__(self, clock: Clock = time.monotonic_ns, utc: Callable[[], datetime] = UTC_NOW) -> None:
        self._clock, self._utc = clock, utc
        first = Anchor.now(clock, utc)
        #: Anchor of each stretch, and until when it held.
        self._stretches: list[tuple[Anchor, int]] = [(first, first.t_ns)]

    def resync(self) -> None:
        """Compare the clocks; to be called every few seconds."""
        now = Anchor.now(self._clock, self._utc)
        anchor = self._stretches[-1][0]
        if abs(anchor.at(now.t_ns) - now.utc) < STEP:
            self._stretches[-1] = (anchor, now.t_ns)
        else:
            self._stretches.append((now, now.t_ns))

    def iso(self, t_ns: int) -> str:
        """Return an instant as ISO 8601 in UTC, from the stretch that is nearest in time."""
        stretches = tuple(self._stretches)
        if len(stretches) == 1:
            return stretches[0][0].iso(t_ns)
        after = bisect_right(stretches, t_ns, key=lambda stretch: stretch[0].t_ns)
        near = stretches[max(after - 1, 0) : after + 1]
        anchor, _ = min(near, key=lambda stretch: max(stretch[0].t_ns - t_ns, t_ns - stretch[1], 0))
        return anchor.iso(t_ns)


def thread_clock(thread: int) -> float | None:
    """Return what a thread of this process used until now; None when it has ended, or only itself could tell."""
    if thread == threading.get_native_id():
        return time.thread_time()
    if LINUX:
        with suppress(OSError):
            return time.clock_gettime(~thread << 3 | 6)  # see `process_clock`
    return None


def process_clock(pid: int) -> float | None:
    """Return what all threads of another process used, in steps of a nanosecond, or None where the system does not report it.

    Source: Linux, include/linux/posix-timers_types.h: a clock id is the inverted process id, shifted by three, and 2 for the scheduler's
    time, with 4 besides for one thread. It needs no right, and a tenth of the time that reading /proc takes.
    """
    if not LINUX:
        return None
    try:
        return time.clock_gettime(~pid << 3 | 2)
    except OSError:
        return None


class Threads:
    """The threads of this process, whose clocks bring its own up to now.

    The process's clock adds up what its threads have used by the last tick. Asking a thread's own clock brings its time up to now.
    """

    def __init__(self, proc: str) -> None:
        self._path = f"{proc}/self/task"
        self._clocks: list[int] = []
        self._links = 0

    def update(self) -> None:
        """Ask the clock of every thread."""
        if not LINUX:
            return
        try:
            # A folder has two links, and this one another for each thread: while their number stays and all answer, they are the same.
            if (links := os.stat(self._path).st_nlink) == self._links:
                for clock in self._clocks:
                    time.clock_gettime_ns(clock)
                return
        except OSError:
            links = 0  # one has ended, and another may have begun
        clocks = []
        with suppress(OSError):
            for thread in os.listdir(self._path):
                with suppress(OSError):  # it has just ended
                    clock = ~int(thread) << 3 | 6
                    time.clock_gettime_ns(clock)
                    clocks.append(clock)
        self._clocks, self._links = clocks, links if links == len(clocks) + 2 else 0
