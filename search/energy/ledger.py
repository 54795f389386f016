"""One cumulative account of energy per machine; every window is a question to it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

from . import hardware
from .answers import Answers
from .books import Books
from .clock import NANO, Clock
from .discover import Discovery
from .forks import after_fork
from .journal import Journal
from .questions import Questions
from .record import Record
from .registry import check_kind
from .sampler import Sampler
from .section import Section, whole
from .source import Capability, Source
from .surroundings import Surroundings
from .troubles import Troubles
from .window import Window

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
        facts = hardware.describe(self._books.devices())
        self._answers = Answers(self._books, self._surroundings, self._anchors, facts, self._troubles)
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
        self._section, self._troubles = Section(), Troubles(self._clock)  # their locks, too, may be held
        self._registry.forget()
        lost = [replace(capability, available=False, reason=INERT) for capability in self._books.capabilities()]
        self._books, self._surroundings = Books((), lost, self._clock), Surroundings(())
        self._answers = Answers(self._books, self._surroundings, self._anchors, self.hardware, self._troubles)

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
