"""The accounts of all components of a machine, and the one place where meters are read.

A source as the books keep it: which of its components have an account, how it is read, and what its answers lack.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from . import channel as query
from .channel import MeterChannel
from .host import Idle
from .record import Component, sum_known
from .safety import Warnings
from .sampler import CLOSE
from .sources.clock import NANO, Clock
from .sources.source import Capability, Reading, Source


@dataclass(frozen=True, slots=True)
class ActiveSource:
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
    def of(cls, source: Source, names: Sequence[str], *, counts: bool) -> ActiveSource:
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


#: A reading is awaited for so many of its meter's own intervals, and for a second at least; a meter that is silent for longer is dead.
PATIENCE = 3
LEAST_PATIENCE_NS = NANO
#: The same for a meter whose interval nobody knows yet.
UNKNOWN_PATIENCE_NS = 5 * NANO
#: A source that offers a glance and counts nowhere is glanced at once in so many readings.
CROSS_CHECK_EVERY = 5
#: So many looks wait at most until they are entered. After a sleep the first entry is the dear one, since nothing of it is in the
#: processor's caches any more (`tests/benchmarks/meter_overhead.py`); and what nobody asks need not be known at once.
MOST_WAITING = 32
#: Where the next refresh is known, the close look begins so long before.
EARLY_NS = 2_000_000


class MeterSet:
    """Reads the sources into accounts.

    Reading and entering are two steps: what was read waits until somebody asks for the accounts, or until much waits. A reading knows its
    time, so when it is entered changes nothing.

    Two locks: ``_reading`` keeps readings in order, since a counter that is entered late would look like one that fell; ``_lock``
    guards the accounts and is never held while a meter is read, so a slow meter holds up no question.

    Args:
        sources: Meters in the order of trust; of two that cover the same part the first counts, the other is a cross-check.
        absent: What could not be measured, with reasons.
        clock: Monotonic nanoseconds.
        troubles: Takes note of a source that fails at something else than a reading.
    """

    def __init__(self, sources: Iterable[Source], absent: Iterable[Capability], clock: Clock, troubles: Warnings | None = None) -> None:
        self.sources = tuple(sources)
        self._troubles = troubles or Warnings(clock)
        self.absent = list(absent)
        self.spent_ns = 0
        self._accounts: dict[str, MeterChannel] = {}
        self._opened: list[ActiveSource] = []
        self._waiting: deque[tuple[ActiveSource, Sequence[Reading]]] = deque()
        self._clock = clock
        self._lock = threading.Lock()
        self._reading = threading.Lock()
        self._looking_since = self._began_ns = self._glances = 0

    def open(self) -> None:
        """Probe the sources and open an account for each component that can be read."""
        taken: dict[str, str] = {}
        for source in self.sources:
            names = []
            for found in self._probe(source):
                if not found.available:
                    self.absent.append(found)
                    continue
                if found.component in self._accounts:
                    reason = f"{self._accounts[found.component].capability.source} already reads {found.component}"
                    self.absent.append(Capability(found.component, source.name, False, boundary=found.boundary, reason=reason))
                    continue
                first = [taken[family] for family in found.families if taken.get(family, source.name) != source.name]
                counts = found.counts and not first
                if counts:
                    taken.update(dict.fromkeys(found.families, source.name))
                self._accounts[found.component] = MeterChannel(found, counts=counts)
                names.append(found.component)
            if names:
                self._opened.append(ActiveSource.of(source, names, counts=any(self._accounts[name].counts for name in names)))
        self._looking_since = self._began_ns = self._clock()

    @property
    def accounts(self) -> Mapping[str, MeterChannel]:
        """Return the accounts by component, with all that was read."""
        with self._lock:
            return self._entered()

    @property
    def revision(self) -> int:
        """Return how often the past of an account was written anew: what was final before may differ now."""
        with self._lock:
            return sum(account.revision for account in self._entered().values())

    def capabilities(self) -> list[Capability]:
        """Return what was found, available or not."""
        return [account.capability for account in self._accounts.values()] + self.absent

    def devices(self) -> dict[str, Mapping[str, Any]]:
        """Return what the sources know of their devices, for the description of the hardware."""
        found: dict[str, Mapping[str, Any]] = {}
        for source in self.sources:
            if hasattr(source, "devices"):
                found.update(self._troubles.ask(source, "devices"))
        return found

    def set_idle(self, found: Mapping[str, Idle]) -> None:
        """Take over the idle power of components; what it is uncertain by shows when there is a second window to compare with."""
        for name in found.keys() & self._accounts.keys():
            idle, account = found[name], self._accounts[name]
            account.idle_watts, account.idle_u_watts = idle.watts, idle.u_watts if idle.windows > 1 else None

    def close(self) -> None:
        """Release the sources; one that fails at it must neither keep the others open nor hide what ended the run."""
        for source in self.sources:
            with suppress(Exception):
                source.close()

    def read(self, wanted: Callable[[MeterChannel], bool] | None = None, *, glance: bool = False) -> None:
        """Read every source once, or those with an account that is wanted; at a glance where a source offers that."""
        begin = time.thread_time_ns()
        with self._reading:
            self._glances += glance
            for opened in self._opened:
                if glance and not opened.follows and self._glances % CROSS_CHECK_EVERY:
                    continue
                if wanted is None or any(wanted(self._accounts[name]) for name in opened.names):
                    self._waiting.append((opened, opened.read(self._clock, glance=glance)))
        self.spent_ns += time.thread_time_ns() - begin
        if len(self._waiting) >= MOST_WAITING:
            with self._lock:
                self._entered()

    def _entered(self) -> dict[str, MeterChannel]:
        """Enter what waits, and return the accounts; the lock is held."""
        if self._waiting:
            begin = time.thread_time_ns()
            while self._waiting:
                opened, answer = self._waiting.popleft()
                for reading in opened.complete(answer, self._clock):
                    self._accounts[reading.component].add(reading)
            self.spent_ns += time.thread_time_ns() - begin
        return self._accounts

    def edge(self) -> None:
        """Note that a window begins or ends: what is refreshed next is worth a close look."""
        self._looking_since = self._clock()

    def look(self) -> float | None:
        """Read what refreshes slowly if that is worth it now; return in how many seconds it will be, or None when no refresh is awaited."""
        rest = self._rest()
        if rest is None or rest > 0:
            return rest
        self.read(lambda account: account.looks_closely)
        now = self._clock()
        with self._lock:
            return CLOSE if any(account.awaited(self._looking_since, now) for account in self._entered().values()) else None

    def _rest(self) -> float | None:
        """Return in how many seconds a close look is worth it, 0.0 for now, or None when no refresh is awaited."""
        now = self._clock()
        with self._lock:
            rests = [_rest_ns(account, now) for account in self._entered().values() if account.awaited(self._looking_since, now)]
        return min(rests) / NANO if rests else None

    def components(self, t0_ns: int, t1_ns: int) -> tuple[Component, ...]:
        """Return what every component took between two instants, the absent ones included."""
        with self._lock:
            known = [query.component(account, t0_ns, t1_ns) for account in self._entered().values()]
        return (*known, *(query.absent(capability) for capability in self.absent))

    def lines(self, t0_ns: int, t1_ns: int) -> list[dict[str, Any]]:
        """Return the components as plain dictionaries, for the file."""
        return [vars(part) for part in self.components(t0_ns, t1_ns)]

    def energy(self, name: str, t0_ns: int, t1_ns: int) -> float | None:
        """Return what one component took between two instants, or None when it is not known."""
        with self._lock:
            return _between(self._entered()[name], t0_ns, t1_ns)

    def joules(self, t0_ns: int, t1_ns: int) -> float | None:
        """Return the sum of the counting components, or None when one of them is not known."""
        with self._lock:
            parts = [_between(account, t0_ns, t1_ns) for account in self._entered().values() if account.counts]
        return sum_known(parts)

    def settled(self, t_ns: int) -> bool:
        """Return whether no later reading can change what was before an instant: each component was read after it, or will not be.

        Components that do not count are awaited, too: a wall meter says little until its next reading.
        """
        now = self._clock()
        with self._lock:
            return not any(self._awaits(account, t_ns, now) for account in self._entered().values())

    def _awaits(self, account: MeterChannel, t_ns: int, now_ns: int) -> bool:
        if account.reaches(t_ns):
            return False
        interval = query.interval_seconds(account)
        patience = UNKNOWN_PATIENCE_NS if interval is None else max(int(PATIENCE * interval * NANO), LEAST_PATIENCE_NS)
        heard = account.reads[-1] if account.reads else self._began_ns
        return now_ns - t_ns <= patience and now_ns - heard <= patience

    def _probe(self, source: Source) -> Sequence[Capability]:
        try:
            return source.probe()
        except Exception as error:  # somebody else's meter must not end the measuring
            return [Capability(source.name, source.name, False, reason=f"{source.name} failed: {error!r}")]


def _rest_ns(account: MeterChannel, now_ns: int) -> int:
    """Return how long nothing will be refreshed, as far as is known."""
    tick = account.tick
    if tick is None or not tick.settled:
        return 0
    first, last = tick.locate(now_ns, now_ns + int(tick.low_ns))
    # Bounds as wide as what was asked for: the refreshes are not known well enough.
    return max(first - EARLY_NS - now_ns, 0) if last - first < tick.low_ns / 2 else 0


def _between(account: MeterChannel, t0_ns: int, t1_ns: int) -> float | None:
    reach = query.reach_seconds(account)
    begin, end = account.curve.at(t0_ns, reach), account.curve.at(t1_ns, reach)
    return None if begin is None or end is None else max(end.joules - begin.joules, 0.0)
