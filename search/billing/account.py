"""Which trial which joule belongs to: windows on the ledger, and the bill that adds up to its total."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..energy import Ledger, Record, Window
from ..energy.calibrations import WallCalibration
from ..records.bill import FEATURES, REPEAT, REPEATS, TRIAL, SessionBill, add_up
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
    """

    ledger: Ledger
    window: Window
    synchronize: Callable[[], object] | None
    devices: tuple[str, ...] | None
    _ended: list[Window] = field(default_factory=list)

    @property
    def phases(self) -> Sequence[Record]:
        """Records of the inner windows that have ended, overhead left out, as they are known by now, a refresh of the meters later."""
        return [window.record for window in self._ended]

    @contextmanager
    def phase(self, kind: str, index: int) -> Iterator[Window]:
        """Open an inner window; a worker process sets ``cpu_seconds`` of what it yields before it ends."""
        with self.ledger.open(f"{kind} {index}", kind, self.window, self.synchronize, self.devices) as inner:
            yield inner
        if kind != "overhead":
            self._ended.append(inner)


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
        elsewhere: Returns what other workers of the study have spent.
    """

    ledger: Ledger
    session: SessionBill
    earlier: list[dict[str, Any]]
    earlier_joules: float | None
    file: Path
    synchronize: Callable[[], object] | None = None
    wall: WallCalibration | None = None
    save_seconds: float = SAVE_SECONDS
    elsewhere: Callable[[], float] = lambda: 0.0
    _states: dict[str, str] = field(default_factory=dict)
    _features: dict[str, float] = field(default_factory=dict)
    _open: dict[str, Window] = field(default_factory=dict)
    _spans: list[tuple[str, int, int]] = field(default_factory=list)
    _saved: float = 0.0
    _before_joules: float = field(init=False)
    _lock: threading.RLock = field(default_factory=threading.RLock, repr=False)

    def __post_init__(self) -> None:
        """Take over what the session had spent before its ledger, which is known by now."""
        self._before_joules = self.session.before_joules

    def open(self, number: int, devices: tuple[str, ...] | None, *, kind: str = TRIAL, pid: int | None = None) -> TrialMeter:
        """Open the window of a trial, or of a training of another kind.

        Args:
            number: Its number.
            devices: Components that it holds alone, or None.
            kind: ``trial``, or ``repeat`` for one that is billed by itself whatever comes of it.
            pid: The process that trains, if it is another.
        """
        window = self.ledger.open(f"{kind} {number}", "trial", None, self.synchronize, devices, processes=devices is not None)
        if pid is not None:
            window.work_by(pid)
        with self._lock:
            self._states[window.id] = "failed" if kind == TRIAL else REPEATS  # failed until it is closed with another state
            self._open[window.name] = window
        return TrialMeter(self.ledger, window, self.synchronize, devices)

    def close(self, meter: TrialMeter, *, state: str, cpu_seconds: float | None) -> Record:
        """End a trial's window and book it by the state in which it ended, see ``BOOKED``; a device that is lost raises after that."""
        try:
            meter.window.close(state, cpu_seconds=cpu_seconds)
        finally:
            with self._lock:  # open in the bill until the journal knows its end: a kill in between books it once
                self._open.pop(meter.window.name, None)
                if self._states[meter.window.id] != REPEATS:
                    self._states[meter.window.id] = BOOKED.get(meter.window.state, "failed")
                    self._features[meter.window.id] = sum(one.known_joules for one in meter.phases if one.kind == FEATURES)
        return self._at_wall(meter.window.record)

    def _at_wall(self, record: Record) -> Record:
        return record if self.wall is None else self.wall.beside(record)

    def rebook(self, meter: TrialMeter) -> None:
        """Book a trial as failed after all: its objectives are unknown."""
        self._states[meter.window.id] = "failed"

    @contextmanager
    def spending(self, what: str, since_ns: int | None = None) -> Iterator[None]:
        """Book what happens inside, or since an instant, as a part of the overhead; nothing while a trial is under way beside it."""
        begin_ns, alone = time.monotonic_ns() if since_ns is None else since_ns, not self._open
        yield
        self._spans += [(what, begin_ns, time.monotonic_ns())] if alone and not self._open else []

    def spent_joules(self) -> float | None:
        """Joules that the study has spent so far, here and elsewhere; None when the ledger knows nothing."""
        own = self.own_joules()
        return None if own is None else own + self.elsewhere()

    def open_joules(self) -> dict[int, float | None]:
        """Return what the trainings under way have taken so far, by number."""
        return _numbered({name: window.joules() for name, window in tuple(self._open.items())}, TRIAL)

    def sessions(self, *, closed: bool = False) -> list[dict[str, Any]]:
        """Return all sessions as the bill has them."""
        return [*self.earlier, {**self.session.to_json(), "closed": closed}]

    def own_joules(self) -> float | None:
        """Joules of all sessions of this folder, lost components as far as known: no budget is endless; None when nothing is known.

        Once the session is closed they are those of its bill: the meters read on, and what they read later nobody pays.
        """
        if self.session.closed:
            return add_up(self.sessions(closed=True)).total_joules
        if (now := self.ledger.joules(self.ledger.t0_ns)) is None:
            now = sum(self.ledger.partition().total.values()) or None
        return None if now is None else now + self._before_joules + (self.earlier_joules or 0.0)

    def refuse(self, reason: str) -> None:
        """Close the session without billing it: its start was refused. The bill names it, so that the ledger's file does not bill it."""
        with self._lock:
            if not self.session.closed:
                name = self.ledger.total().id.partition(".")[0]
                self.session = SessionBill(self.session.started, ledger_session=name, closed=True, refused=reason)
                write_json(self.file, {"sessions": [*self.earlier, self.session.to_json()]})

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

    def idle_joules(self) -> float | None:
        """Joules of this session while nothing was done; None when the ledger knows nothing."""
        found = self.ledger.partition()
        return sum(found.idle.values()) if found.total else None

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
        if closed:
            self._open.clear()  # nobody settles a closed session: a training that has not ended is booked as failed, or as a repeat
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
                shared = min(joules, self._features.get(id, 0.0))
                for name, part in ((state, joules - shared), (FEATURES, shared)):
                    if part or name == state:
                        states[name] = states.get(name, 0.0) + part
        for name, bucket in (("overhead", found.overhead), ("idle", found.idle), ("unattributed", found.unattributed)):
            if bucket:
                states[name] = states.get(name, 0.0) + sum(bucket.values())
        while self._spans:  # by now the meters were read after them
            what, begin_ns, end_ns = self._spans.pop()
            self.session.parts[what] = self.session.parts.get(what, 0.0) + (self.ledger.joules(begin_ns, end_ns) or 0.0)
        self.session.by_state = self.session.with_before(states, "overhead")
        self.session.by_component, self.session.unknown_seconds = self.session.with_before(found.total, "cpu"), dict(found.unknown)
        self.session.open_trials, self.session.open_repeats = _numbered(unfinished, TRIAL), _numbered(unfinished, REPEAT)
        self.session.total = self._at_wall(whole)
        self.session.ledger_session = whole.id.partition(".")[0]
        write_json(self.file, {"sessions": self.sessions(closed=closed)})
        self.session.closed = closed
        self._saved = time.monotonic()


def _numbered(named: Mapping[str, float | None], kind: str) -> dict[int, float | None]:
    """Keep what belongs to one kind of training, by number."""
    return {int(name.removeprefix(f"{kind} ")): joules for name, joules in named.items() if name.startswith(f"{kind} ")}
