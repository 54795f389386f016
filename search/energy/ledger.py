"""One cumulative account of energy per machine: it reads the meters, and every window is a question to it.

The answers are what windows cost, whose each joule of the machine was, and whether that is final.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

from . import host
from .attribution import Split
from .background import BURST_SECONDS, ENDED, Sampler, Section, Warnings, after_fork, whole
from .discover import Discovery
from .host import HostMonitor
from .journal import Journal
from .meters import MeterSet, checked
from .record import SCHEMA, Record
from .registry import RecordBuilder, Registry
from .sources.source import NANO, Capability, Clock, Source
from .windows import Anchors, Edge, Window, held_devices

#: Longest wait for a window's record to be final.
SETTLE_SECONDS = 15.0
#: Kinds of windows at whose edges temperature, clocks, throttling and other users of the devices are noted.
WITH_EDGES = frozenset({"trial", "inference", "idle"})
INERT = "this process was forked from the one that measures: its ledger reads nothing, the parent's covers both"


class Ledger:
    """Reads the sources from one daemon thread and knows what any window cost.

    Args:
        sources: What ``discover`` found, or meters in the order of trust; of two that cover the same part the first counts, the other
            is a cross-check.
        absent: With meters: what could not be measured, with reasons; it appears in every record.
        file: Where events and checkpoints are written, or None for no file.
        interval_seconds: Time between two readings; None for no thread, then ``sample`` is the caller's.
        checkpoint_seconds: Time between two checkpoints in the file: what a killed process loses at most.
        clock: Monotonic nanoseconds, shared by all processes of the machine.

    Attributes:
        t0_ns: When it started on that clock; ``t1_ns`` when it stopped, or None.
        after_checkpoint: Called after each checkpoint, by the thread that made it, or None.
        follow: Counts a process (its id) that is no child of this one, and its children, as this one's work from now on.

    Raises:
        ValueError: If an interval is not positive, or one of the sources is no `Source`.
    """

    def __init__(
        self,
        sources: Discovery | Iterable[Source],
        *,
        absent: Iterable[Capability] = (),
        file: Path | None = None,
        interval_seconds: float | None = 0.1,
        checkpoint_seconds: float = 5.0,
        clock: Clock = time.monotonic_ns,
    ) -> None:
        if interval_seconds is not None and not interval_seconds > 0:
            raise ValueError(f"interval_seconds must be > 0, or None to sample by hand, got {interval_seconds!r}")
        if not checkpoint_seconds > 0:
            raise ValueError(f"checkpoint_seconds must be > 0, got {checkpoint_seconds!r}")
        found = sources if isinstance(sources, Discovery) else Discovery(checked(sources), ())
        self._file, self._interval, self._checkpoint_seconds = file, interval_seconds, checkpoint_seconds
        self._clock, self._state = clock, "new"
        self._warnings, self._section = Warnings(clock), Section()
        self._meters = MeterSet(found.sources, (*found.absent, *absent), clock, self._warnings)
        self._monitor = HostMonitor(self._meters.sources, warnings=self._warnings)
        self._anchors, self._registry = Anchors(clock), Registry(self, clock)
        self.follow = self._monitor.tree.follow
        self._records = RecordBuilder(self._meters, self._monitor, self._anchors, {}, self._warnings)
        self._sampler: Sampler | None = None
        self._spent_ns = 0  # in opening and closing windows
        self._journal: Journal | None = None
        self.t0_ns = clock()
        self.t1_ns: int | None = None
        self.after_checkpoint: Callable[[], object] | None = None

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
        self._meters.open()
        self._records = RecordBuilder(self._meters, self._monitor, self._anchors, host.describe(self._meters.devices()), self._warnings)
        self._state = "running"
        self._registry.join()
        self._anchors.resync()
        self.sample()
        self.t0_ns = self._clock()
        self._write("start", t_ns=self.t0_ns, utc=self._anchors.iso(self.t0_ns), hardware_id=self.hardware_id, hardware=self.hardware)
        after_fork(self._make_inert)
        if self._interval is not None:
            times = {"interval_seconds": self._interval, "checkpoint_seconds": self._checkpoint_seconds}
            self._sampler = Sampler(partial(self._read, NANO), self.burst, self.checkpoint, self._warnings.note, **times)
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
            self._end_thread()
            for window in self._registry.open():
                self.close(window, state)
            self.sample()
            self.t1_ns = self._clock()
            self._write("stop", t_ns=self.t1_ns, record=self.total().to_json())
        finally:
            self._release()

    def _release(self) -> None:
        self._state = "stopped"
        self._registry.part()
        self._end_thread()
        if self._journal is not None:
            self._journal.close()
        self._meters.close()

    def _cost_ns(self) -> int:
        return self._spent_ns + (0 if self._sampler is None else self._sampler.spent_ns)

    def _end_thread(self) -> None:
        if self._sampler is not None:
            self._sampler.stop()
            self._spent_ns += self._sampler.spent_ns
            self._sampler = None

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
        self._section, self._warnings = Section(), Warnings(self._clock)  # their locks, too, may be held
        self._registry.clear()
        lost = [replace(capability, available=False, reason=INERT) for capability in self._meters.capabilities()]
        self._meters, self._monitor = MeterSet((), lost, self._clock), HostMonitor(())
        self._records = RecordBuilder(self._meters, self._monitor, self._anchors, self.hardware, self._warnings)

    @property
    def state(self) -> str:
        """``new``, ``running``, ``stopped``, or ``inert`` in a process that was forked from the one that measures."""
        return self._state

    @property
    def reading(self) -> bool:
        """Whether the thread reads; what a source raised may have ended it."""
        return self._sampler is not None and self._sampler.alive

    @property
    def hardware(self) -> Mapping[str, Any]:
        """What the machine is."""
        return self._records.hardware

    @property
    def hardware_id(self) -> str:
        """Short hash of what the machine is."""
        return self._records.hardware_id

    @whole
    def open(
        self,
        name: str,
        kind: str = "trial",
        parent: Window | str | None = None,
        synchronize: Callable[[], object] | None = None,
        devices: Sequence[str] | None = None,
        processes: bool = False,
    ) -> Window:
        """Open a window: wait for the device, take the time, read the meters. It counts from here on, not from a later ``with``.

        While other threads of this process have windows, too, on this ledger or another, it gets what the thread used that opens it, and
        the child processes that this thread started; open and close it there. What cannot be told apart is None, with the remedy.

        ``synchronize`` waits for the device of this window, e.g. ``torch.cuda.synchronize``, at both edges: work that is still queued at
        the end would be billed to whoever comes next. ``devices`` are the components that it holds alone while others run beside it;
        None for those of the ``parent`` around it, or when it runs alone. With ``processes`` other processes do the work, and its
        ``cpu_seconds`` are stated at the end.

        Raises:
            ValueError: If ``kind`` is none of ``KINDS``, or ``devices`` or ``parent`` name what is not known here.
            RuntimeError: If the ledger is not running.
        """
        held = held_devices(devices, self._meters.capabilities())
        if self._state in ("new", "stopped"):
            raise RuntimeError(f"the ledger is {self._state}: open windows inside `with ledger:`")
        if synchronize is not None:
            synchronize()
        begin, spent, t0_ns = time.thread_time_ns(), self._cost_ns(), self._clock()
        self._read(0, edge=True)
        used = self.thread_seconds(threading.get_native_id(), begin / NANO)
        edge = self._monitor.edges(t0_ns) if kind in WITH_EDGES else {}
        window = self._registry.make(name, kind, parent, Edge(t0_ns, spent, edge), synchronize, held, processes=processes)
        self._registry.enter(window, used)
        self._nudge()
        self._write("open", record=self._records.opened(window))
        self._spent_ns += time.thread_time_ns() - begin
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
            begin, now = time.thread_time_ns(), self._clock()
            t1_ns = now if window.ended_ns is None else max(min(window.ended_ns, now), window.t0_ns)
            self._registry.note()
            self._read(0, edge=True)
            window.note(t1_ns, own=begin / NANO)
            devices = self._monitor.edges(t1_ns) if window.kind in WITH_EDGES else {}
            window.end(Edge(t1_ns, self._cost_ns() + time.thread_time_ns() - begin, devices), state)
            self._registry.leave(window)
            self._nudge()
            if settle:
                self.wait(t1_ns)
            record = window.record
            if window.kind == "idle":
                self._meters.set_idle(self._registry.learn_idle(record))
            self._write("close", record=record.facts() | {"hardware": {}, "schema": SCHEMA, "joules": record.joules})
            self._spent_ns += time.thread_time_ns() - begin
        return record

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
        Its name and its instants say which window it is: queried again it is the same one, and the last query holds.

        The instants are ``time.monotonic_ns`` of any process of this machine; ``cpu_seconds`` are those of the window's own processes, and
        ``devices`` the components that it held alone, e.g. ``("gpu:GPU-1a2b",)``: empty for none, None for all. ``parent`` is an id.

        Raises:
            ValueError: If ``kind`` is none of ``KINDS``, or ``devices`` or ``parent`` name what is not known here.
        """
        held = held_devices(devices, self._meters.capabilities())
        return self.settle(self._registry.register(name, kind, parent, t0_ns, t1_ns, state=state, cpu_seconds=cpu_seconds, devices=held))[0]

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
            return self._records.whole(begin, end, self._registry.snapshot)
        return self._records.partition(begin, end, self._registry.usages(begin, end))

    @whole
    def joules(self, t0_ns: int, t1_ns: int | None = None) -> float | None:
        """Return the energy between two instants, up to now by default, without a new reading; None when it is not known."""
        return self._meters.joules(t0_ns, self._clock() if t1_ns is None else t1_ns)

    @property
    def revision(self) -> int:
        """How often the past was written anew; for windows, callers use ``Window.record``."""
        return self._meters.revision

    @whole
    def settle(self, window: Window) -> tuple[Record, bool]:
        """Return what is known of a window, and whether that is final; for windows, callers use ``Window.record``."""
        self._reads()
        t1_ns = self._clock() if window.t1_ns is None else window.t1_ns
        usages = self._registry.usage_beside(window, t1_ns)
        record = self._records.record(window, t1_ns, usages)
        # What parallel windows get depends on what the others took by their end, so theirs stays open until the ledger stops.
        settled = self._state != "running" or (usages is None and self._meters.settled(t1_ns))
        return record, window.t1_ns is not None and settled

    def wait(self, t_ns: int) -> None:
        """Wait until no later reading can change what was before an instant; for windows, callers use ``Window.close``."""
        until = time.monotonic() + SETTLE_SECONDS
        while self._reads() and time.monotonic() < until and not self._section.leaving and not self._settled(t_ns):
            time.sleep(BURST_SECONDS)

    @whole
    def _settled(self, t_ns: int) -> bool:
        return self._state != "running" or self._meters.settled(t_ns)

    @whole
    def beside(self, window: Window) -> bool:
        """Return whether it has shared the machine with others of this process; for windows."""
        return not window.parallel and self._registry.usage_beside(window, window.t1_ns or self._clock()) is not None

    def thread_seconds(self, thread: int, own: float | None = None) -> float | None:
        """Return the CPU-seconds of a thread, its ``own`` by then or by now, and of its children, or None; for windows."""
        return self._monitor.tree.thread_seconds(thread, own)

    def _reads(self) -> bool:
        if self._sampler is not None and not self._sampler.alive:
            self._warnings.note(ENDED)
        return self.reading

    @whole
    def sample(self, *, fast: bool = False) -> None:
        """Read every source once, in its cheaper way where ``fast`` and it has one; the thread does it by itself."""
        self._read(NANO if fast else 0)

    def _read(self, every_ns: int, *, edge: bool = False) -> None:
        if self._state == "running":
            self._meters.read(fast=every_ns > 0, dear=not edge or self._sampler is None)
            self._monitor.sample(self._clock(), every_ns=0 if self._registry.crowded else every_ns)
            self._registry.look()

    def burst(self) -> float | None:
        """Poll what is refreshed slowly if that is worth it now, as the thread does; return in how many seconds it will be, or None."""
        return self._meters.burst() if self._state == "running" else None

    def _nudge(self) -> None:
        self._meters.edge()
        if self._sampler is not None:
            self._sampler.nudge(at_once=self._meters.dear)

    def checkpoint(self) -> None:
        """Write down where everything stands, for whoever settles the bill of a killed process; the thread does it by itself."""
        now = self._clock()
        self._anchors.resync()
        if self._journal is not None:
            windows = [self._records.line(window, now, self._registry.usage_so_far(window, now)) for window in self._registry.open()]
            parts = self.partition(t1_ns=now)
            total = [vars(part) for part in self._meters.components(self.t0_ns, now)]
            self._write("beat", t_ns=now, total=total, split={"joules": parts.total, "unknown_seconds": parts.unknown}, open=windows)
            self._journal.shorten()
        self._monitor.note_foreign(now)
        if self.after_checkpoint is not None:
            self.after_checkpoint()

    def _write(self, event: str, **facts: Any) -> None:
        if self._journal is not None:
            lost = self._journal.write(event, {"session": self._registry.session, **facts})
            if lost is not None:
                self._warnings.note(f"a line of {self._journal.path.name} was lost: {lost}")
