"""Monotonic time for durations, with one anchor in UTC for people."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

#: Returns nanoseconds that never go back; on Linux all processes of a machine share the epoch of ``time.monotonic_ns``.
Clock = Callable[[], int]

NANO = 1_000_000_000


@dataclass(frozen=True)
class Anchor:
    """One instant known on both clocks.

    The wall clock jumps (time servers, daylight saving), so it is read once and every other instant is told from the
    monotonic clock.

    Attributes:
        t_ns: The instant on the monotonic clock.
        utc: The same instant in UTC.
    """

    t_ns: int
    utc: datetime

    @classmethod
    def now(cls, clock: Clock = time.monotonic_ns) -> Anchor:
        """Read both clocks."""
        return cls(t_ns=clock(), utc=datetime.now(UTC))

    def iso(self, t_ns: int) -> str:
        """Return an instant of the monotonic clock as ISO 8601 in UTC."""
        return (self.utc + timedelta(microseconds=(t_ns - self.t_ns) / 1000)).isoformat(timespec="milliseconds")


def seconds_between(t0_ns: int, t1_ns: int) -> float:
    """Return ``t1 - t0`` in seconds."""
    return (t1_ns - t0_ns) / NANO
