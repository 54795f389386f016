"""Which trial which joule belongs to: windows on the ledger, and the bill that adds up to its total."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..energy import Ledger, Record, Window
from ..energy.calibrations import WallCalibration
from ..records.bill import REPEAT, REPEATS, TRIAL, Session
from ..records.files import write_json

#: A killed session loses at most what came after its last bill.
SAVE_SECONDS = 5.0
#: What a trial is booked as, by the state in which its window ended; a training that ended early is a measured point, too.
BOOKED = {"ok": "complete", "stopped": "stopped", "pruned": "pruned"}


@dataclass
class TrialMeter:
    """The windows of one trial.

    Attributes:
        ledger: A running ledger.
        window: The trial's own window.
        synchronize: Waits for the device at each edge, or None.
        devices: Components that the trial holds alone while others run beside it; None when nothing runs beside it.
        phases: Records of the inner windows that have ended.
    """

    ledger: Ledger
    window: Window
    synchronize: Callable[[], object] | None
    devices: tuple[str, ...] | None
    phases: list[Record] = field(default_factory=list)

    @contextmanager
    def phase(self, kind: str, index: int) -> Iterator[Window]:
        """Open an inner window; a worker process sets ``cpu_seconds`` of what it yields before it ends."""
        inner = self.ledger.open(f"{kind} {index}", kind, self.window, self.synchronize, self.devices)
        try:
            yield inner
        except BaseException:
            inner.close("failed")
            raise
        record = inner.close()
        if kind != "overhead":
            self.phases.append(record)


@dataclass
class Account:
    """The account of one session; every joule of the ledger is in one trial or in a named rest.

    The threads of all workers and that of the ledger use it. Whoever holds its lock may ask the ledger, never the other way round: the
    ledger's thread skips a bill that somebody else is writing.

    Attributes:
        ledger: A running ledger.
        session: What is written to the bill.
        earlier: Sessions before this one, as JSON.
        earlier_joules: What they spent, or None when unknown.
        file: The bill file.
        synchronize: Waits for the device, or None.
        wall: This machine's calibration against a wall meter, or None; it adds an estimate of the energy at the wall.
        save_seconds: The bill is written this often.
    """

    ledger: Ledger
    session: Session
    earlier: list[dict[str, Any]]
    earlier_joules: float | None
    file: Path
    synchronize: Callable[[], object] | None = None
    wall: WallCalibration | None = None
    save_seconds: float = SAVE_SECONDS
    _states: dict[str, str] = field(default_factory=dict)
    _open: dict[str, Window] = field(default_factory=dict)
    _saved: float = 0.0
    _lock: threading.RLock = field(default_factory=threading.RLock, repr=False)

    def open(self, number: int, devices: tuple[str, ...] | None, *, kind: str = TRIAL) -> TrialMeter:
        """Open the window of a trial, or of a training of another kind.

        Args:
            number: Its number.
            devices: Components that it holds alone, or None.
            kind: ``trial``, or ``repeat`` for one that is billed by itself whatever comes of it.
        """
        window = self.ledger.open(f"{kind} {number}", "trial", None, self.synchronize, devices)
        with self._lock:
            self._states[window.id] = "failed" if kind == TRIAL else REPEATS  # failed until it is closed with another state
            self._open[window.name] = window
        return TrialMeter(self.ledger, window, self.synchronize, devices)

    def close(self, number: int, meter: TrialMeter, *, state: str, cpu_seconds: float | None) -> Record:
        """End a trial's window and book it: ``ok`` as complete, ``stopped`` and ``pruned`` as such, the rest as failed."""
        record = meter.window.close(state, cpu_seconds=cpu_seconds)
        with self._lock:  # open in the bill until the journal knows its end: a kill in between books it once
            self._open.pop(meter.window.name, None)
            if self._states[meter.window.id] != REPEATS:
                self._states[meter.window.id] = BOOKED.get(state, "failed")
        return self._at_wall(record)

    def _at_wall(self, record: Record) -> Record:
        return record if self.wall is None else self.wall.beside(record)

    def rebook(self, meter: TrialMeter) -> None:
        """Book a trial as failed after all: its objectives are unknown."""
        self._states[meter.window.id] = "failed"

    def spent_joules(self) -> float | None:
        """Joules of all sessions so far; None when the ledger knows nothing.

        What was known of a component that was lost still counts: a budget must not become endless with it.
        """
        now = self.ledger.joules(self.ledger.t0_ns)
        if now is None:
            now = sum(self.ledger.partition().total.values()) or None
        return None if now is None else now + (self.earlier_joules or 0.0)

    def save_sometimes(self) -> None:
        """Write the bill if the last one is old."""
        if time.monotonic() - self._saved > self.save_seconds:
            self.save()

    def save(self, *, closed: bool = False) -> None:
        """Share out everything so far and write the bill.

        Args:
            closed: Whether the session ends here; nothing is written after that.
        """
        with self._lock:
            self.ledger.sample()  # what is read now need not be guessed from the power of a moment ago
            self._write(closed)

    def save_at_checkpoint(self) -> None:
        """Write the bill from the ledger's own thread, which has just read the meters and waits for nobody."""
        if self._lock.acquire(blocking=False):
            try:
                self._write(closed=False)
            finally:
                self._lock.release()

    def _write(self, closed: bool) -> None:
        if self.session.closed:
            return
        whole = self.ledger.total()
        found = self.ledger.partition(t1_ns=whole.t1_ns)
        running = {window.id: name for name, window in self._open.items()}
        states: dict[str, float] = {}
        unfinished: dict[str, float | None] = {name: None for name in self._open}
        for id, shares in found.shares.items():
            joules = sum(share.joules for share in shares.values())
            if id in running:
                unfinished[running[id]] = joules
            else:
                state = self._states.get(id, "overhead")  # windows of somebody else on this ledger
                states[state] = states.get(state, 0.0) + joules
        for name, bucket in (("overhead", found.overhead), ("idle", found.idle), ("unattributed", found.unattributed)):
            if bucket:
                states[name] = states.get(name, 0.0) + sum(bucket.values())
        self.session.by_state = states
        self.session.by_component, self.session.unknown_seconds = dict(found.total), dict(found.unknown)
        self.session.open_trials, self.session.open_repeats = _numbered(unfinished, TRIAL), _numbered(unfinished, REPEAT)
        self.session.total = self._at_wall(whole)
        self.session.ledger_session = whole.id.partition(".")[0]
        write_json(self.file, {"sessions": [*self.earlier, {**self.session.to_json(), "closed": closed}]})
        self.session.closed = closed
        self._saved = time.monotonic()


def _numbered(named: Mapping[str, float | None], kind: str) -> dict[int, float | None]:
    """Keep what belongs to one kind of training, by number."""
    return {int(name.removeprefix(f"{kind} ")): joules for name, joules in named.items() if name.startswith(f"{kind} ")}
