"""One cumulative account of energy per machine; every window is a question to it.

What can be asked of a ledger: what windows cost, who pays for what, and whether that is final.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, cast

from . import host
from .attribution import Split
from .composer import RecordBuilder
from .discover import Discovery
from .host import HostMonitor
from .journal import Journal
from .meters import MeterSet
from .record import Record
from .safety import Section, Warnings, after_fork, whole
from .sampler import CLOSE, ENDED, Sampler
from .sources.clock import NANO, Anchors, Clock
from .sources.source import Capability, Source
from .windows import Registry, Window, check_kind

if TYPE_CHECKING:
    from .windows import Window

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
        self._troubles, self._section = Warnings(clock), Section()
        self._books = MeterSet(sources, absent, clock, self._troubles)
        self._surroundings = HostMonitor(self._books.sources, troubles=self._troubles)
        self._registry = Registry()
        self._clock, self._state = clock, "new"
        self._sampler: Sampler | None = None
        self._anchors = Anchors(clock)
        self._answers = RecordBuilder(self._books, self._surroundings, self._anchors, {}, self._troubles)
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


#: Kinds of windows at whose edges temperature, clocks and throttling are noted.
WITH_EDGES = frozenset({"trial", "inference", "idle"})
INERT = "this process was forked from the one that measures: its ledger reads nothing, the parent's covers both"


class Ledger(Questions):
    """Reads the sources from one daemon thread and answers what any window cost.

    Args:
        sources: What ``discover`` found, or meters in the order of trust; of two that cover the same part the first counts, the other
            is a cross-check. They are released when the ledger stops.
        absent: With meters: what could not be measured, with reasons; it appears in every record.
        file: Where events and beats are written, or None for no file.
        interval_seconds: Time between two readings; None for no thread, then ``sample`` is the caller's.
        beat_seconds: Time between two beats in the file: what a killed process loses at most.
        clock: Monotonic nanoseconds, shared by all processes of the machine.

    Raises:
        ValueError: If an interval is not positive.
    """

    def __init__(
        self,
        sources: Discovery | Iterable[Source],
        *,
        absent: Iterable[Capability] = (),
        file: Path | None = None,
        interval_seconds: float | None = 0.1,
        beat_seconds: float = 5.0,
        clock: Clock = time.monotonic_ns,
    ) -> None:
        if interval_seconds is not None and not interval_seconds > 0:
            raise ValueError(f"interval_seconds must be > 0, or None to sample by hand, got {interval_seconds!r}")
        if not beat_seconds > 0:
            raise ValueError(f"beat_seconds must be > 0, got {beat_seconds!r}")
        found = sources if isinstance(sources, Discovery) else Discovery(tuple(sources), ())
        super().__init__(found.sources, (*found.absent, *absent), clock)
        self._file, self._interval, self._beat_seconds = file, interval_seconds, beat_seconds
        self._journal: Journal | None = None

    @whole
    def start(self) -> Ledger:
        """Probe the sources, take the first readings and start the thread.

        Raises:
            RuntimeError: If it was started before.
            OSError: If the file cannot be opened; no source has been opened then.
        """
        if self._state != "new":
            raise RuntimeError("a ledger lives once: make a new Ledger for another session")
        if self._file is not None:
            self._journal = Journal(Path(self._file))
        try:
            self._begin()
        except BaseException:
            self._release()
            raise
        return self

    def _begin(self) -> None:
        self._books.open()
        facts = host.describe(self._books.devices())
        self._answers = RecordBuilder(self._books, self._surroundings, self._anchors, facts, self._troubles)
        self._state = "running"
        self._anchors.look()
        self.sample()
        self.t0_ns = self._clock()
        begin = self._anchors.iso(self.t0_ns)
        self._write("start", t_ns=self.t0_ns, utc=begin, hardware_id=self.hardware_id, hardware=self.hardware)
        after_fork(self._make_inert)
        if self._interval is not None:
            times = {"interval_seconds": self._interval, "beat_seconds": self._beat_seconds}
            self._sampler = Sampler(lambda: self._read(NANO), self.look, self._beat, self._troubles.note, **times)
            self._sampler.start()

    def stop(self, state: str = "partial") -> None:
        """End the thread, close what is still open with ``state`` and release the sources; answers stay available.

        A signal's handler may call it, too; when it interrupts a call to this ledger, the ledger stops as soon as that call is through.
        """
        if self._section.inside:
            self._section.later(partial(self.stop, state))
        elif self._state == "running":
            self._stop(state)

    @whole
    def _stop(self, state: str) -> None:
        try:
            if self._sampler is not None:
                self._sampler.stop()
                self._sampler = None
            for window in self._registry.open():
                self.close(window, state)
            self.sample()
            self.t1_ns = self._clock()
            self._write("stop", t_ns=self.t1_ns, record=self.total().to_json())
        finally:
            self._release()

    def _release(self) -> None:
        self._state = "stopped"
        sampler, self._sampler = self._sampler, None
        if sampler is not None:
            sampler.stop()
        journal, self._journal = self._journal, None
        if journal is not None:
            journal.close()
        self._books.close()

    def __enter__(self) -> Ledger:
        """Start."""
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Stop, also after an exception."""
        self.stop("partial" if kind is None else "failed" if issubclass(kind, Exception) else "stopped")

    def _make_inert(self) -> None:
        # Runs in a forked child: the thread is not there, locks may be held for ever, device handles belong to the parent.
        if self._state != "running":
            return
        self._state = "inert"
        if self._journal is not None:
            self._journal.close()
        self._journal = self._sampler = None
        self._section, self._troubles = Section(), Warnings(self._clock)  # their locks, too, may be held
        self._registry.forget()
        lost = [replace(capability, available=False, reason=INERT) for capability in self._books.capabilities()]
        self._books, self._surroundings = MeterSet((), lost, self._clock), HostMonitor(())
        self._answers = RecordBuilder(self._books, self._surroundings, self._anchors, self.hardware, self._troubles)

    @whole
    def open(
        self,
        name: str,
        kind: str = "trial",
        parent: Window | str | None = None,
        synchronize: Callable[[], object] | None = None,
        devices: Sequence[str] | None = None,
    ) -> Window:
        """Open a window: wait for the device, take the time, read the meters.

        Args:
            name: What to call it.
            kind: One of ``KINDS``.
            parent: The window around it.
            synchronize: Waits for the device of this window, e.g. ``torch.cuda.synchronize``; called at both edges, since
                work that is still queued at the end would be billed to whoever comes next.
            devices: Components that it holds alone while others run beside it; None for the parent's, or when it runs alone.

        Raises:
            ValueError: If ``kind`` is none of ``KINDS``.
            RuntimeError: If the ledger is not running.
        """
        check_kind(kind)
        if self._state in ("new", "stopped"):
            raise RuntimeError(f"the ledger is {self._state}: open windows inside `with ledger:`")
        if synchronize is not None:
            synchronize()
        spent = self._books.spent_ns
        t0_ns = self._clock()
        self.sample()
        if devices is None and isinstance(parent, Window):
            devices = parent.devices
        window = self._registry.make(self, name, kind, parent, t0_ns, synchronize, None if devices is None else tuple(devices))
        window.spent_ns = spent
        if kind in WITH_EDGES:
            window.begin = self._surroundings.edges()
        self._registry.enter(window)
        self._nudge()
        self._write("open", record=replace(self._answers.bare(window, t0_ns), hardware={}).to_json())
        return window

    #: The same as ``open``, to be read in a ``with`` statement.
    window = open

    @whole
    def close(self, window: Window, state: str, synchronize: Callable[[], object] | None = None, *, settle: bool = False) -> Record:
        """End a window of this ledger and return its record; the same as the window's own ``close``, or the end of its ``with``."""
        try:
            if synchronize is not None:
                synchronize()
        except BaseException:
            state = "failed"
            raise
        finally:
            window.t1_ns, window.state = self._clock(), state
            self.sample()
            if window.kind in WITH_EDGES:
                window.end = self._surroundings.edges()
            window.spent_ns = self._books.spent_ns - window.spent_ns
            self._registry.leave(window)
            self._nudge()
            if settle:
                self.wait(window.t1_ns)
            record = window.record
            if window.kind == "idle":
                self._books.set_idle(self._registry.learn_idle(record))
            self._write("close", record=replace(record, hardware={}).to_json())
        return record

    @whole
    def sample(self) -> None:
        """Read every source once; the thread does it by itself."""
        self._read(0)

    def _read(self, every_ns: int) -> None:
        if self._state == "running":
            self._books.read(glance=every_ns > 0)
            self._surroundings.sample(self._clock(), every_ns=every_ns)

    def look(self) -> float | None:
        """Read what is refreshed slowly if that is worth it now; return in how many seconds it will be, or None for no more."""
        return self._books.look() if self._state == "running" else None

    def _nudge(self) -> None:
        self._books.edge()
        if self._sampler is not None:
            self._sampler.nudge()

    def _beat(self) -> None:
        now = self._clock()
        self._anchors.look()
        if self._journal is not None:
            windows = [self._answers.line(window, now, self._registry.asked(window, now)) for window in self._registry.open()]
            whole = self.partition(t1_ns=now)
            split = {"joules": whole.total, "unknown_seconds": whole.unknown}
            self._write("beat", t_ns=now, total=self._books.lines(self.t0_ns, now), split=split, open=windows)
        self._surroundings.look_around(now)

    def _write(self, event: str, **facts: Any) -> None:
        if self._journal is not None:
            lost = self._journal.write(event, {"session": self._registry.session, **facts})
            if lost is not None:
                self._troubles.note(f"a line of {self._journal.path.name} was lost: {lost}")
