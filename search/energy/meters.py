"""All meters of a machine: the one place where sources are probed and read, and where their readings meet the channels."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import product
from types import NoneType
from typing import Any, SupportsFloat

from .background import BURST_SECONDS, Warnings
from .channel import MeterChannel, component, interval_seconds, reach_seconds
from .host import Idle
from .journal import LARGEST, fitted, plain_facts
from .record import Component, sum_known
from .sources.source import NANO, Capability, Clock, Reading, Source

#: A reading is awaited for so many of its meter's own intervals, and for a second at least; a meter that is silent for longer is dead.
PATIENCE = 3
LEAST_PATIENCE_NS = NANO
#: The same for a meter whose interval nobody knows yet.
UNKNOWN_PATIENCE_NS = 5 * NANO
#: A source that offers a fast read and counts nowhere takes part in one of so many readings.
CROSS_CHECK_EVERY = 5
#: So many readings wait at most until they are entered. After a sleep the first entry is the expensive one, since nothing of it is in
#: the processor's caches any more (`tests/benchmarks/meter_overhead.py`); and what nobody needs now need not be known at once.
MOST_PENDING = 32
#: Where the next refresh is known, burst polling begins so long before.
EARLY_NS = 2_000_000
#: The types of what follows a reading's name, and the end of its clock.
PLAIN, LATEST_NS = frozenset(product([int], [int], [float, NoneType], [float, NoneType], [str, NoneType])), 1 << 60
#: The numbers of a reading.
NUMBERS: Mapping[str, Any] = {"t_ns": int, "half_width_ns": int, "counter_joules": float, "watts": float}
#: Of a counter whose readings are dear, bursts read once in this share of its rest.
DEAR_PAUSE = 0.01


@dataclass(frozen=True, slots=True)
class ActiveSource:
    """A source that was probed and is read from now on.

    Attributes:
        names: Its components with a channel.
        fast_read: Its cheaper reading for between the edges of windows; its plain one where it has no other.
        lock: Held while it is read, so that its readings stay in order.
        follows: Whether it is read as often as any: it counts, or has no cheaper reading. A cross-check that is exact at every edge need
            not be followed as closely between them.
    """

    source: Source
    names: tuple[str, ...]
    fast_read: Callable[[], Sequence[Reading]]
    follows: bool
    lock: threading.Lock = field(default_factory=threading.Lock, compare=False, repr=False)

    @classmethod
    def of(cls, source: Source, names: Sequence[str], *, counts: bool) -> ActiveSource:
        """Return a source with the components that are read of it."""
        fast_read = getattr(source, "fast_read", None)
        return cls(source, tuple(names), fast_read or source.read, counts or fast_read is None)

    def read(self, clock: Clock, *, fast: bool) -> Sequence[Reading]:
        """Return a reading of each component with a channel, and of no other.

        What it raises or leaves out becomes a reading with an error: somebody else's meter must not end the measuring.
        """
        wrong = "failed"
        try:
            answer = self.fast_read() if fast else self.source.read()
            wrong = "gave no readings"
            found = [reading for one in answer if (reading := _plain(one, self.source.name, clock)).component in self.names]
        except Exception as error:
            return self._without(clock(), f"{wrong}: {error!r}")
        known = {reading.component for reading in found}
        if len(known) == len(self.names):
            return found
        now_ns = max((reading.t_ns for reading in found), default=clock())
        return [*found, *(reading for reading in self._without(now_ns, "did not report it") if reading.component not in known)]

    def _without(self, now_ns: int, why: str) -> list[Reading]:
        return [Reading(name, now_ns, error=f"{self.source.name} {why}") for name in self.names]


class MeterSet:
    """Reads the sources into channels, one per component.

    Reading and entering are two steps: what was read waits until somebody needs the channels, or until much waits. A reading knows its
    time, so when it is entered changes nothing.

    Each source has a lock that keeps its readings in order, since a counter that is entered late would look like one that fell; ``_lock``
    guards the channels and is never held while a meter is read, so a slow meter delays no answer.

    Of two sources that cover the same part the first counts, the other is a cross-check; ``absent`` is what could not be measured, with
    reasons, and ``warnings`` takes note of a source that fails at something other than a reading. A set is ``dear`` where a counter's
    readings are so dear that no window waits for one.
    """

    def __init__(self, sources: Iterable[Source], absent: Iterable[Capability], clock: Clock, warnings: Warnings | None = None) -> None:
        self.sources = checked(sources)
        self._warnings = warnings or Warnings(clock)
        self.absent = list(absent)
        self._channels: dict[str, MeterChannel] = {}
        self._active: list[ActiveSource] = []
        self._pending: deque[Sequence[Reading]] = deque()
        self._clock = clock
        self._lock = threading.Lock()
        self._edge_ns = self._began_ns = self._fast_reads = 0
        self._edge_unread = self.dear = False

    def open(self) -> None:
        """Probe the sources and open a channel for each component that can be read."""
        taken: dict[str, str] = {}
        for source in self.sources:
            names = []
            for found in self._probe(source):
                if not found.available:
                    self.absent += [found] if found not in self.absent else []
                    continue
                if found.component in self._channels:
                    reason = f"{self._channels[found.component].capability.source} already reads {found.component}"
                    self.absent.append(Capability(found.component, source.name, False, boundary=found.boundary, reason=reason))
                    continue
                first = [taken[family] for family in found.families if taken.get(family, source.name) != source.name]
                counts = found.counts and not first
                if counts:
                    taken.update(dict.fromkeys(found.families, source.name))
                self._channels[found.component] = MeterChannel(found, counts=counts)
                names.append(found.component)
            if names:
                self._active.append(ActiveSource.of(source, names, counts=any(self._channels[name].counts for name in names)))
        self.dear = not all(_is_cheap(channel) for channel in self._channels.values())
        self._edge_ns = self._began_ns = self._clock()

    @property
    def channels(self) -> Mapping[str, MeterChannel]:
        """Return the channels by component, with all that was read."""
        with self._lock:
            return self._apply_pending()

    @property
    def revision(self) -> int:
        """Return how often the past of a channel was written anew: what was final before may differ now."""
        with self._lock:
            return sum(channel.revision for channel in self._apply_pending().values())

    def capabilities(self) -> list[Capability]:
        """Return what was found, available or not."""
        return [channel.capability for channel in self._channels.values()] + self.absent

    def devices(self) -> dict[str, dict[str, Any]]:
        """Return what the sources know of their devices, for the description of the hardware."""
        return self._warnings.ask(self.sources, "devices", plain_facts)

    def set_idle(self, found: Mapping[str, Idle]) -> None:
        """Take over the idle power of components."""
        for name in found.keys() & self._channels.keys():
            self._channels[name].idle = found[name]

    def close(self) -> None:
        """Release the sources; one that fails at it must neither keep the others open nor hide what ended the run."""
        for source in self.sources:
            with suppress(Exception):
                source.close()

    def read(self, wanted: Callable[[MeterChannel], bool] | None = None, *, fast: bool = False, dear: bool = True) -> None:
        """Read every source once, or those with a channel that is wanted; fast where a source offers that.

        Without ``dear`` those that are dear to read are left to the next burst.
        """
        if not dear and self.dear:
            wanted = _is_cheap
        self._fast_reads += fast
        for active in self._active:
            if fast and not active.follows and self._fast_reads % CROSS_CHECK_EVERY:
                continue
            if wanted is None or any(wanted(self._channels[name]) for name in active.names):
                with active.lock:
                    self._pending.append(active.read(self._clock, fast=fast))
        if len(self._pending) >= MOST_PENDING:
            with self._lock:
                self._apply_pending()

    def _apply_pending(self) -> dict[str, MeterChannel]:
        """Enter what waits, and return the channels; the lock is held."""
        while self._pending:
            for reading in self._pending.popleft():
                self._channels[reading.component].add(reading)
        return self._channels

    def edge(self) -> None:
        """Note that a window begins or ends: the next refresh is worth polling for."""
        self._edge_ns = self._clock()
        self._edge_unread = True

    def burst(self) -> float | None:
        """Poll what is refreshed slowly if that is worth it now; return in how many seconds it will be, or None: no refresh is awaited."""
        now = self._clock()
        if self._edge_unread:
            self._edge_unread = False
            if self.dear:
                self.read(lambda channel: not _is_cheap(channel))
        rests = [_rest_ns(channel, now) for channel in self._awaited(now)]
        if not rests or min(rests) > 0:
            return min(rests) / NANO if rests else None
        self.read(lambda channel: channel.counts and channel.needs_burst)
        awaited = self._awaited(self._clock())
        return max(BURST_SECONDS, *(DEAR_PAUSE * channel.capability.rest_seconds for channel in awaited)) if awaited else None

    def _awaited(self, now_ns: int) -> list[MeterChannel]:
        """Return what counts and is to be refreshed soon; what does not count need not be exact at the edges."""
        with self._lock:
            return [channel for channel in self._apply_pending().values() if channel.counts and channel.awaited(self._edge_ns, now_ns)]

    def components(self, t0_ns: int, t1_ns: int) -> tuple[Component, ...]:
        """Return what every component took between two instants, the absent ones included."""
        with self._lock:
            known = [component(channel, t0_ns, t1_ns) for channel in self._apply_pending().values()]
        return (*known, *(Component.absent(capability) for capability in self.absent))

    def energy(self, name: str, t0_ns: int, t1_ns: int) -> float | None:
        """Return what one component took between two instants, or None when it is not known."""
        with self._lock:
            channel = self._apply_pending()[name]
            return channel.curve.between(t0_ns, t1_ns, reach_seconds(channel))

    def joules(self, t0_ns: int, t1_ns: int) -> float | None:
        """Return the sum of the counting components, or None when one of them is not known."""
        with self._lock:
            counting = [channel for channel in self._apply_pending().values() if channel.counts]
            return sum_known(channel.curve.between(t0_ns, t1_ns, reach_seconds(channel)) for channel in counting)

    def settled(self, t_ns: int) -> bool:
        """Return whether no later reading can change what was before an instant: each component was read after it, or will not be.

        Components that do not count are awaited, too: a wall meter says little until its next reading.
        """
        now = self._clock()
        with self._lock:
            return not any(self._awaits(channel, t_ns, now) for channel in self._apply_pending().values())

    def _awaits(self, channel: MeterChannel, t_ns: int, now_ns: int) -> bool:
        if len(channel.curve) and channel.curve.t[-1] >= t_ns:
            return False
        silent_ns = now_ns - min(t_ns, channel.reads[-1] if channel.reads else self._began_ns)
        if silent_ns <= LEAST_PATIENCE_NS:
            return True
        interval = interval_seconds(channel)
        return silent_ns <= (UNKNOWN_PATIENCE_NS if interval is None else PATIENCE * interval * NANO)

    def _probe(self, source: Source) -> Sequence[Capability]:
        try:
            return [_possible(found) for found in source.probe()]
        except Exception as error:  # somebody else's meter must not end the measuring
            return [Capability(source.name, source.name, False, reason=f"{source.name} failed: {error!r}")]


def checked(sources: Iterable[Source]) -> tuple[Source, ...]:
    """Return meters as they are.

    Raises:
        ValueError: It is one alone or no meter at all, or one of them lacks what a `Source` has.
    """
    found = tuple(sources) if isinstance(sources, Iterable) and not isinstance(sources, str) else None
    if found is None or not all(isinstance(getattr(one, "name", None), str) and hasattr(one, "probe") for one in found):
        raise ValueError(f"sources must be a list of meters (name, probe, read, close) or what discover() found, got {sources!r}")
    return found


def _possible(found: Capability) -> Capability:
    """Return a capability in Python's own types; a ``ValueError`` where it would make an energy zero, or known beyond doubt."""
    entries = {name: value.item() if hasattr(value, "item") else value for name, value in vars(found).items()}  # NumPy's as Python's
    known = fitted(Capability, entries, "capability")
    for name, value in vars(known).items():
        most = 1 if name in ("sees", "counter_sees") else LARGEST
        if isinstance(value, float | int) and not (0 <= value <= most and (value or name not in ("range_joules", "most_watts"))):
            raise ValueError(f"{name} must be a finite number >= 0, a share at most 1, a range or a power above 0, got {value!r}")
    return known


def _plain(reading: Reading, source: str, clock: Clock) -> Reading:
    """Return a reading in Python's own numbers; one that holds anything else, as of a logger that writes "n/a", has an error instead."""
    if tuple(map(type, reading[1:])) in PLAIN and 0 <= reading.half_width_ns <= reading.t_ns < LATEST_NS:
        return reading
    found = reading._asdict() | {"error": None if reading.error is None else str(reading.error)}
    for name, take in NUMBERS.items():
        value = found[name]
        try:
            if value is not None or take is int:
                found[name] = take(value if isinstance(value, SupportsFloat) else "no number")
                if take is int and not (0 if name == "half_width_ns" else -LATEST_NS) <= found[name] <= LATEST_NS:
                    raise OverflowError
        except (ValueError, OverflowError):
            said = f"{source} must give numbers, and its time by time.monotonic_ns(), got {name}={value!r:.9}; refused"
            return Reading(reading.component, clock(), error=said)
    return Reading(**found)


def _is_cheap(channel: MeterChannel) -> bool:
    return channel.capability.rest_seconds == 0


def _rest_ns(channel: MeterChannel, now_ns: int) -> int:
    """Return how long nothing will be refreshed, as far as is known."""
    period = channel.period
    if period is None or not period.settled:
        return 0
    first, last = period.locate(now_ns, now_ns + int(period.low_ns))
    # Bounds as wide as the whole stretch: the refreshes are not known well enough.
    return max(first - EARLY_NS - now_ns, 0) if last - first < period.low_ns / 2 else 0
