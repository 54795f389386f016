"""What can be asked of a ledger: what windows cost, who pays for what, and whether that is final."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from .answers import Answers
from .attribution import Split
from .books import Books
from .clock import Anchors, Clock
from .record import Record
from .registry import Registry
from .sampler import CLOSE, ENDED, Sampler
from .section import Section, whole
from .source import Capability, Source
from .surroundings import Surroundings
from .troubles import Troubles

if TYPE_CHECKING:
    from .ledger import Ledger
    from .window import Window

#: Longest wait for a window's record to be final.
SETTLE_SECONDS = 15.0


class Questions:
    """The side of a ledger that answers; ``Ledger`` is the side that begins, reads and ends.

    Args:
        sources: Meters.
        absent: What could not be measured, with reasons.
        clock: Monotonic nanoseconds.
    """

    def __init__(self, sources: Iterable[Source], absent: Iterable[Capability], clock: Clock) -> None:
        self._troubles, self._section = Troubles(clock), Section()
        self._books = Books(sources, absent, clock, self._troubles)
        self._surroundings = Surroundings(self._books.sources, troubles=self._troubles)
        self._registry = Registry()
        self._clock, self._state = clock, "new"
        self._sampler: Sampler | None = None
        self._anchors = Anchors(clock)
        self._answers = Answers(self._books, self._surroundings, self._anchors, {}, self._troubles)
        self.t0_ns = clock()
        self.t1_ns: int | None = None

    @property
    def hardware(self) -> Mapping[str, Any]:
        """Return what the machine is."""
        return self._answers.hardware

    @property
    def hardware_id(self) -> str:
        """Return its short hash."""
        return self._answers.hardware_id

    @property
    def revision(self) -> int:
        """Return how often the past was written anew; callers use ``Window.record``."""
        return self._books.revision

    def wait(self, t_ns: int) -> None:
        """Wait until no later reading can change what was before an instant; callers use ``Window.close``."""
        until = time.monotonic() + SETTLE_SECONDS
        while self._reads() and time.monotonic() < until and not self._section.leaving and not self._settled(t_ns):
            time.sleep(CLOSE)

    def _reads(self) -> bool:
        """Whether the thread reads; it may have been ended by what a source raised."""
        if self._sampler is not None and not self._sampler.alive:
            self._troubles.note(ENDED)
        return self._sampler is not None and self._sampler.alive

    @whole
    def _settled(self, t_ns: int) -> bool:
        return self._state != "running" or self._books.settled(t_ns)

    @whole
    def settle(self, window: Window) -> tuple[Record, bool]:
        """Return what is known of a window, and whether later readings can still change it; callers use ``Window.record``."""
        self._reads()
        now = self._clock()
        t1_ns = now if window.t1_ns is None else window.t1_ns
        record = self._answers.record(window, t1_ns, self._registry.claims(window.t0_ns, t1_ns, window) if window.claims else None)
        # What parallel windows get depends on what the others say when they end, so theirs stays open until the ledger stops.
        settled = self._state != "running" or (not window.claims and self._books.settled(t1_ns))
        return record, window.t1_ns is not None and settled

    @whole
    def query(
        self,
        t0_ns: int,
        t1_ns: int,
        name: str = "query",
        kind: str = "trial",
        cpu_seconds: float | None = None,
        devices: Sequence[str] | None = None,
        state: str = "ok",
        parent: str | None = None,
    ) -> Record:
        """Return what the machine took between two instants of the monotonic clock, e.g. of a worker process's trial.

        With ``cpu_seconds`` or ``devices`` the window is one of several in parallel: it gets its own part, and ``partition`` knows it.
        Its name and its instants say which window it is: asked twice it is the same one, and what is said last holds.

        Args:
            t0_ns: Begin, ``time.monotonic_ns`` of any process of this machine.
            t1_ns: End.
            name: What to call it.
            kind: One of ``KINDS``.
            cpu_seconds: CPU-seconds that the window's own processes took.
            devices: Components that it held alone, e.g. ``("gpu:GPU-1a2b",)``; empty for none, None for all.
            state: One of the states of a record.
            parent: Id of the window around it.

        Raises:
            ValueError: If ``kind`` is none of ``KINDS``.
        """
        window = self._registry.make(cast("Ledger", self), name, kind, parent, t0_ns, None, None if devices is None else tuple(devices))
        window.t1_ns, window.state, window.cpu_seconds = t1_ns, state, cpu_seconds
        if window.claims:
            self._registry.say(window)
        return self.settle(window)[0]

    def total(self) -> Record:
        """Return everything since the start."""
        return self.query(self.t0_ns, self.t1_ns or self._clock(), name="total", kind="total", state="ok" if self.t1_ns else "open")

    @whole
    def partition(self, t0_ns: int | None = None, t1_ns: int | None = None) -> Split:
        """Share out everything between two instants, the ledger's whole life by default.

        Each joule of the counting components is in the share of one top-level window, in the overhead of this process, in the idle
        time or in what foreign processes took: the parts add up to the total. What no meter knew is named in ``Split.unknown``.
        """
        begin = self.t0_ns if t0_ns is None else t0_ns
        end = t1_ns or self.t1_ns or self._clock()
        if begin == self.t0_ns:
            return self._answers.whole(begin, end, self._registry.view)
        return self._answers.partition(begin, end, self._registry.claims(begin, end))

    @whole
    def joules(self, t0_ns: int, t1_ns: int | None = None) -> float | None:
        """Return the energy between two instants, up to now by default, without a new reading; None when it is not known."""
        return self._books.joules(t0_ns, self._clock() if t1_ns is None else t1_ns)
