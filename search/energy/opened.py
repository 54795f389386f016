"""A source as the books keep it: which of its components have an account, how it is read, and what its answers lack."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .clock import Clock
from .source import Reading, Source


@dataclass(frozen=True, slots=True)
class Opened:
    """A source that was probed and is read from now on.

    Attributes:
        source: The source.
        names: Its components with an account.
        glance: Its cheaper reading for between the edges of windows; its plain one where it has no other.
        follows: Whether it is read as often as any: it counts, or has no cheaper reading. A cross-check that is exact at every edge need
            not be followed as closely between them.
    """

    source: Source
    names: tuple[str, ...]
    glance: Callable[[], Sequence[Reading]]
    follows: bool

    @classmethod
    def of(cls, source: Source, names: Sequence[str], *, counts: bool) -> Opened:
        """Return a source with the components that are read of it.

        Args:
            source: The source.
            names: Its components with an account.
            counts: Whether any of them enters a sum.
        """
        glance = getattr(source, "glance", None)
        return cls(source, tuple(names), glance or source.read, counts or glance is None)

    def read(self, clock: Clock, *, glance: bool) -> Sequence[Reading]:
        """Read it; what it raises is an answer, too: somebody else's meter must not end the measuring."""
        try:
            return self.glance() if glance else self.source.read()
        except Exception as error:
            return self._without(clock(), f"failed: {error!r}")

    def complete(self, answer: Sequence[Reading], clock: Clock) -> Sequence[Reading]:
        """Return a reading of each component with an account, and of no other; one that is missing has a reason.

        Args:
            answer: What ``read`` returned.
            clock: Tells the time of what has none.
        """
        try:
            told = [reading for reading in answer if reading.component in self.names]
            known = {reading.component for reading in told}
            if len(known) == len(self.names):
                return told
            now_ns = max((reading.t_ns for reading in answer), default=clock())
        except Exception as error:
            return self._without(clock(), f"gave no readings: {error!r}")
        return [*told, *(reading for reading in self._without(now_ns, "did not report it") if reading.component not in known)]

    def _without(self, now_ns: int, why: str) -> list[Reading]:
        return [Reading(name, now_ns, error=f"{self.source.name} {why}") for name in self.names]
