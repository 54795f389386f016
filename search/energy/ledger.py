"""One cumulative account of energy per machine; every window is a question to it."""

from __future__ import annotations

import os
import statistics
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from . import hardware
from .books import Books
from .clock import NANO, Anchor, Clock, seconds_between
from .journal import Journal
from .record import KINDS, SCHEMA, Record
from .sampler import Sampler
from .source import Capability, Source
from .surroundings import Surroundings
from .window import Window

#: Kinds of windows at whose edges temperature, clocks and throttling are noted.
WITH_EDGES = frozenset({"trial", "inference", "idle"})
#: Longest wait for a meter's refresh when a window is to be final at once.
SETTLE_SECONDS = 0.5
INERT = "this process was forked from the one that measures: its ledger reads nothing, the parent's covers both"


class Ledger:
    """Reads the sources from one daemon thread and answers what any window cost.

    Args:
        sources: Meters in the order of trust; of two that cover the same part the first counts, the other is a cross-check.
        absent: What could not be measured, with reasons; it appears in every record.
        file: Where events and beats are written, or None for no file.
        interval_seconds: Time between two readings; None for no thread, then ``sample`` is the caller's.
        beat_seconds: Time between two beats in the file: what a killed process loses at most.
        clock: Monotonic nanoseconds, shared by all processes of the machine.

    Raises:
        ValueError: If an interval is not positive.
    """

    def __init__(
        self,
        sources: Iterable[Source],
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
        self._books = Books(sources, absent, clock)
        self._surroundings = Surroundings(self._books.sources)
        self._file = None if file is None else Path(file)
        self._interval, self._beat_seconds = interval_seconds, beat_seconds
        self._clock = clock
        self._state = "new"
        self._lock = threading.Lock()
        self._open: dict[str, Window] = {}
        self._opened = 0
        self._idle: dict[str, list[float]] = {}
        self._journal: Journal | None = None
        self._sampler: Sampler | None = None
        self._session = os.urandom(3).hex()
        self._anchor = Anchor.now(clock)
        self.t0_ns = self._anchor.t_ns
        self.t1_ns: int | None = None
        self.hardware: dict[str, Any] = {}
        self.hardware_id = ""

    # Life: start, stop, and what a forked child is left with.

    def start(self) -> Ledger:
        """Probe the sources, take the first readings and start the thread.

        Raises:
            RuntimeError: If it was started before; a ledger lives once.
        """
        if self._state != "new":
            raise RuntimeError("a ledger is started once; make a new Ledger for another session")
        self._books.open()
        self.hardware = hardware.describe({name: facts for source in self._books.sources for name, facts in _devices(source).items()})
        self.hardware_id = hardware.fingerprint(self.hardware)
        self._anchor = Anchor.now(self._clock)
        self._state = "running"
        self.sample()
        self.t0_ns = self._clock()
        if self._file is not None:
            self._journal = Journal(self._file)
            self._write("start", t_ns=self.t0_ns, utc=self._anchor.iso(self.t0_ns), hardware_id=self.hardware_id, hardware=self.hardware)
        inert = weakref.WeakMethod(self._make_inert)
        os.register_at_fork(after_in_child=lambda: _call(inert()))
        if self._interval is not None:
            self._sampler = Sampler(
                self.sample, self._books.look, self._beat, interval_seconds=self._interval, beat_seconds=self._beat_seconds
            )
            self._sampler.start()
        return self

    def stop(self, state: str = "partial") -> None:
        """End the thread, close what is still open and release the sources; answers stay available."""
        if self._state != "running":
            return
        if self._sampler is not None:
            self._sampler.stop()
            self._sampler = None
        for window in list(self._open.values()):
            window.close(state)
        self.sample()
        self.t1_ns = self._clock()
        self._write("stop", t_ns=self.t1_ns, record=self.total().to_json())
        self._state = "stopped"
        if self._journal is not None:
            self._journal.close()
            self._journal = None
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
        self._lock = threading.Lock()
        self._open.clear()
        self._books = Books(
            (), (replace(capability, available=False, reason=INERT) for capability in self._books.capabilities()), self._clock
        )
        self._surroundings = Surroundings(())

    # Windows.

    def open(
        self,
        name: str,
        kind: str = "trial",
        parent: Window | str | None = None,
        synchronize: Callable[[], object] | None = None,
    ) -> Window:
        """Open a window: wait for the device, take the time, read the meters.

        Args:
            name: What to call it.
            kind: One of ``KINDS``.
            parent: The window around it.
            synchronize: Waits for the device of this window, e.g. ``torch.cuda.synchronize``; called at both edges, since
                work that is still queued at the end would be billed to whoever comes next.

        Raises:
            ValueError: If ``kind`` is none of ``KINDS``.
            RuntimeError: If the ledger is not running.
        """
        if kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
        if self._state in ("new", "stopped"):
            raise RuntimeError(f"the ledger is {self._state}: open windows inside `with ledger:`")
        if synchronize is not None:
            synchronize()
        spent = self._books.spent_ns
        t0_ns = self._clock()
        self.sample()
        with self._lock:
            self._opened += 1
            window = Window(
                self,
                id=f"{self._session}.{self._opened}",
                name=name,
                kind=kind,
                parent=parent.id if isinstance(parent, Window) else parent,
                t0_ns=t0_ns,
                synchronize=synchronize,
                begin=self._surroundings.edges() if kind in WITH_EDGES else {},
            )
            self._open[window.id] = window
        window.spent_ns = spent
        self._nudge()
        self._write("open", record=self._bare(window, t0_ns).to_json())
        return window

    def window(
        self,
        name: str,
        kind: str = "trial",
        parent: Window | str | None = None,
        synchronize: Callable[[], object] | None = None,
    ) -> Window:
        """Return an open window for a ``with`` statement; the same as ``open``."""
        return self.open(name, kind, parent, synchronize)

    def close(self, window: Window, state: str, synchronize: Callable[[], object] | None = None, *, settle: bool = False) -> None:
        """End a window; callers use ``Window.close``."""
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
            self._nudge()
            with self._lock:
                self._open.pop(window.id, None)
            if settle:
                self._wait_for_refresh(window.t1_ns)
            record = window.record
            if window.kind == "idle" and record.seconds >= 1.0:
                self._learn_idle(record)
            self._write("close", record=replace(record, hardware={}).to_json())

    def settle(self, window: Window) -> tuple[Record, bool]:
        """Return what is known of a window, and whether later readings can still change it."""
        t1_ns = self._clock() if window.t1_ns is None else window.t1_ns
        record = replace(self._bare(window, t1_ns), components=self._books.components(window.t0_ns, t1_ns))
        record = replace(record, contended=self._surroundings.contended(window.t0_ns, t1_ns))
        settled = window.t1_ns is not None and (self._state != "running" or self._books.settled(t1_ns))
        return record, settled

    # Questions.

    def query(
        self,
        t0_ns: int,
        t1_ns: int,
        name: str = "query",
        kind: str = "trial",
        cpu_seconds: float | None = None,
        state: str = "ok",
        parent: str | None = None,
    ) -> Record:
        """Return what the machine took between two instants of the monotonic clock, e.g. of a worker process's trial.

        Args:
            t0_ns: Begin, ``time.monotonic_ns`` of any process of this machine.
            t1_ns: End.
            name: What to call it.
            kind: One of ``KINDS``.
            cpu_seconds: CPU-seconds that the window's own work took, to split the CPU between parallel windows.
            state: One of the states of a record.
            parent: Id of the window around it.
        """
        with self._lock:
            self._opened += 1
            id = f"{self._session}.{self._opened}"
        record = Record(
            id=id,
            name=name,
            parent=parent,
            kind=kind,
            state=state,
            t0_utc=self._anchor.iso(t0_ns),
            t0_ns=t0_ns,
            t1_ns=t1_ns,
            seconds=seconds_between(t0_ns, t1_ns),
            components=self._books.components(t0_ns, t1_ns),
            hardware_id=self.hardware_id,
            hardware=self.hardware,
            contended=self._surroundings.contended(t0_ns, t1_ns),
            meter={"version": SCHEMA},
        )
        return record

    def total(self) -> Record:
        """Return everything since the start."""
        return self.query(self.t0_ns, self.t1_ns or self._clock(), name="total", kind="total", state="ok" if self.t1_ns else "open")

    def joules(self, t0_ns: int, t1_ns: int | None = None) -> float | None:
        """Return the energy between two instants, up to now by default, without a new reading; None when it is not known."""
        return self._books.joules(t0_ns, self._clock() if t1_ns is None else t1_ns)

    def sample(self) -> None:
        """Read every source once; the thread does it by itself."""
        if self._state == "running":
            self._books.read()
            self._surroundings.sample(self._clock())

    # Inside.

    def _bare(self, window: Window, t1_ns: int) -> Record:
        """Return a window's record without energy."""
        return Record(
            id=window.id,
            name=window.name,
            parent=window.parent,
            kind=window.kind,
            state=window.state,
            t0_utc=self._anchor.iso(window.t0_ns),
            t0_ns=window.t0_ns,
            t1_ns=t1_ns,
            seconds=seconds_between(window.t0_ns, t1_ns),
            hardware_id=self.hardware_id,
            hardware=self.hardware,
            edges={"begin": window.begin, "end": window.end} if window.begin or window.end else {},
            meter={"version": SCHEMA, "overhead_seconds": None if window.t1_ns is None else window.spent_ns / NANO},
        )

    def _nudge(self) -> None:
        self._books.edge()
        if self._sampler is not None:
            self._sampler.nudge()

    def _wait_for_refresh(self, t_ns: int) -> None:
        until = time.monotonic() + SETTLE_SECONDS
        while not self._books.settled(t_ns) and time.monotonic() < until:
            if self._sampler is None:
                return
            time.sleep(0.002)

    def _learn_idle(self, record: Record) -> None:
        """Take the median power of the idle windows so far as each component's idle power."""
        for part in record.components:
            if part.joules is not None and not part.below_resolution:
                self._idle.setdefault(part.name, []).append(part.joules / record.seconds)
        for name, watts in self._idle.items():
            self._books.accounts[name].idle_watts = statistics.median(watts)

    def _beat(self) -> None:
        self._surroundings.look_around(self._clock())
        now = self._clock()
        with self._lock:
            windows = list(self._open.values())
        state = [{"id": window.id, "components": self._parts(window.t0_ns, now)} for window in windows]
        self._write("beat", t_ns=now, total=self._parts(self.t0_ns, now), open=state)

    def _parts(self, t0_ns: int, t1_ns: int) -> list[dict[str, Any]]:
        return [vars(part) for part in self._books.components(t0_ns, t1_ns)]

    def _write(self, event: str, **facts: Any) -> None:
        if self._journal is not None:
            self._journal.write(event, {"session": self._session, **facts})


def _devices(source: Source) -> Mapping[str, Mapping[str, Any]]:
    devices = getattr(source, "devices", None)
    return devices() if devices is not None else {}


def _call(method: Callable[[], None] | None) -> None:
    if method is not None:
        method()
