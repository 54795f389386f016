"""Which trial which joule belongs to: windows on the ledger, the bill that adds up to its total, and what a trial keeps of its windows."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from math import hypot
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..carbon.intensity import Intensity, grams_co2e
from ..energy import Component, Ledger, Record, Window
from ..energy.calibrations import WallCalibration
from ..energy.journal import fitted
from ..energy.record import add, combined_quality, scaled, sum_known
from ..records.bill import REPEAT, REPEATS, TRIAL, SessionBill
from ..records.files import write_json
from ..records.trial import ComponentEnergy, Trial, TrialEnergy
from ..training.feature_cache import FeatureCache, Price
from ..training.results import PASS, SAMPLE, WAY, FeaturesUsed

if TYPE_CHECKING:
    from ..training.text import Embedded

#: A killed session loses at most what came after its last bill.
SAVE_SECONDS = 5.0
#: State under which the bill has what frozen backbones took: it is paid once by the study, not by the trial that happens to come first.
FEATURES = "features"
#: Relative standard uncertainty of an energy beside foreign work, which takes turns, caches and memory bandwidth: no meter shows it.
#: Source: three networks trained beside four streaming neighbours took 1.10, 1.13 and 1.19 times as much (CPU estimate, ten runs each).
FOREIGN_U = 0.15
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

    def close(self, number: int, meter: TrialMeter, *, state: str, cpu_seconds: float | None) -> Record:
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
        """Joules of all sessions of this folder, lost components as far as known: no budget is endless; None when nothing is known."""
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


def trial_energy(
    whole: Record,
    phases: Sequence[Record],
    *,
    parent: Trial | None,
    predictions: int,
    intensity: Intensity | Callable[[Record], Intensity | None] | None,
    pue: float = 1.0,
    shared: Sequence[Record] = (),
    compiled: Iterable[Trial] = (),
) -> TrialEnergy:
    """Return the energy of a trial.

    What the model costs to train from scratch is what it shares with others, the start-up of the lineage's first trial, compiling
    included, and every epoch of the lineage. Kernels that were compiled for an earlier trial cost what they cost then: who trains the
    model from scratch pays it. Validation, analysis, storing and the start-up of continuations were paid by the search, not by the model.

    Args:
        whole: The trial's own window, from the executor taking the job to the weights being stored.
        phases: Records of its inner windows: ``setup``, ``compile``, ``epoch``, ``eval``, ``analysis``, ``inference``.
        parent: The trial that was continued, or None.
        predictions: Number of predictions in the ``inference`` window.
        intensity: Carbon per kWh: one number, or its mean over the time of a record; None when unknown.
        pue: Power usage effectiveness of the site; enters the grams only.
        shared: What the study pays once and every model that needs it costs, whoever has paid for it: the features of its images.
        compiled: Trials that have the same kernels, if they were compiled: the first paid for them, others found them in a cache.
    """
    epochs = [record for record in phases if record.kind == "epoch"]
    paid = [record for record in phases if record.kind == "compile"]
    if paid:
        known = (fitted(Record, one.energy.compiled, f"what trial {one.number} has compiled") for one in compiled if one.energy.compiled)
        paid = [max((*paid, *known), key=lambda record: record.known_joules)]
    now = [r if r in phases else replace(r, t0_utc=whole.t0_utc, t0_ns=whole.t0_ns, t1_ns=whole.t1_ns) for r in (*shared, *paid)]
    training = epochs if parent is not None else [*now, *(record for record in phases if record.kind == "setup"), *epochs]
    components = {} if parent is None else dict(parent.energy.components)
    for record in training:
        for part in record.components:
            if part.counts:
                components[part.name] = _plus(components.get(part.name), part)
    earlier = [] if parent is None else [parent]
    joules = sum_known([*(trial.train_joules for trial in earlier), *(record.joules for record in training)])
    foreign = FOREIGN_U if whole.contended else 0.0
    u_joules = _quadrature([record.u_random_joules for record in training], None if parent is None else parent.train_u_joules)
    if u_joules is not None:  # one neighbour raises all windows of a trial alike
        u_joules = hypot(u_joules, foreign * sum(record.known_joules for record in training))
    seconds = sum(record.seconds for record in training) + (0.0 if parent is None else parent.energy.train_seconds or 0.0)
    tests = [record for record in phases if record.kind == "inference"]
    per_1000 = 1000.0 / predictions if predictions else 0.0
    inference = tests[0].joules if tests and predictions else None
    u_inference = tests[0].u_random_joules if tests and predictions else None
    u_inference = None if u_inference is None else hypot(u_inference, foreign * (inference or 0.0))
    return TrialEnergy(
        train_joules=joules,
        train_u_joules=u_joules,
        features_joules=parent.energy.features_joules if parent is not None else sum_known(record.joules for record in shared),
        increment_joules=whole.joules,
        evaluation_joules=sum_known(record.joules for record in phases if record.kind == "eval"),
        analysis_joules=sum_known(record.joules for record in phases if record.kind == "analysis"),
        inference_joules_per_1000=None if inference is None else inference * per_1000,
        inference_u_joules_per_1000=None if u_inference is None else u_inference * per_1000,
        grams_co2e=_grams(joules, training, parent, intensity, pue),
        components=components,
        quality=combined_quality([*(record.quality for record in training), *(trial.energy_quality for trial in earlier)]),
        train_seconds=seconds,
        cpu_seconds=sum_known([*(trial.energy.cpu_seconds for trial in earlier), *(record.cpu_seconds for record in training)]),
        gpu_utilisation=_gpu_utilisation(training, parent),
        hardware_id=whole.hardware_id,
        record=whole.to_json(),
        compiled=dict(parent.energy.compiled) if parent is not None else replace(paid[0], hardware={}).to_json() if paid else {},
        contended=bool(whole.contended) or any(trial.energy.contended for trial in earlier),
    )


def price_of_features(used: FeaturesUsed | None, phases: Sequence[Record], cache: FeatureCache | None, whole: Record) -> tuple[Record, ...]:
    """Return what the features of a model's training images cost at its own cut, whoever has paid for them; nothing where it has none.

    It is the price of an image times their number, and that of finding a faster way of running the network, see ``Price``. It is the one
    that is known of most images here; what this training has computed is kept for later ones. Where nothing was measured it is unknown: a
    record without components.
    """
    if used is None:
        return ()
    passed, found, sampled = (
        [record for record in phases if record.kind == FEATURES and record.name.endswith(f" {index}")] for index in (PASS, WAY, SAMPLE)
    )
    once = add(found) if found else None
    # What was passed is the whole entry, which may be more than the part that this model has.
    measured = [("", used.computed - used.sampled, passed), (used.part, used.sampled, sampled)]
    own = {part: Price(images, add(records), once, used.slower) for part, images, records in measured if images and records}
    price = own.get(used.part)
    if cache is not None and used.key is not None:
        for part, one in own.items():
            if one.record.joules is not None:
                cache.keep_price(used.key, one, part)
        price = cache.price(used.key, used.part) or price
    return (replace(whole, kind=FEATURES, components=()),) if price is None else price.of(used.images)


def price_of_inputs(embedded: Embedded | None, ledger: Ledger) -> tuple[Record, ...]:
    """Return what features in a task's inputs take for its training rows, measured on some of them; nothing where there are none.

    They were computed as the task was loaded, once for all models; each model that is made again needs them.
    """
    if embedded is None:
        return ()
    with ledger.window("features of the inputs", kind="overhead") as window:
        embedded.compute()
        record = window.close()
    return (replace(scaled(record, embedded.times), kind=FEATURES),)


def _gpu_utilisation(training: Sequence[Record], parent: Trial | None) -> float | None:
    """Mean over the lineage of the GPU that worked most; unknown when any part of it is."""
    seconds = [record.seconds for record in training]
    shares = [max(record.utilisation.values(), default=None) for record in training]
    if parent is not None:
        seconds.append(parent.energy.train_seconds or 0.0)
        shares.append(parent.energy.gpu_utilisation)
    if sum(seconds) <= 0 or any(share is None for share in shares):
        return None
    return sum(share * part for share, part in zip(shares, seconds, strict=True) if share is not None) / sum(seconds)


def _grams(
    joules: float | None,
    training: Sequence[Record],
    parent: Trial | None,
    intensity: Intensity | Callable[[Record], Intensity | None] | None,
    pue: float,
) -> float | None:
    """Carbon of a training: of all its joules at one intensity, or of each of its windows at the intensity of its time."""
    if intensity is None:
        return None
    if isinstance(intensity, Intensity):
        return grams_co2e(joules, intensity, pue=pue)
    parts = [grams_co2e(record.joules, intensity(record), pue=pue) for record in training]
    return sum_known(parts if parent is None else [parent.grams_co2e, *parts])


def _plus(before: ComponentEnergy | None, part: Component) -> ComponentEnergy:
    """Add energy to a component; what was unknown once is unknown in the sum."""
    idle = None if part.joules is None or part.net_joules is None else part.joules - part.net_joules
    if before is None:
        return ComponentEnergy(part.joules, part.quality, part.source, idle)
    quality = combined_quality([before.quality, part.quality])
    return ComponentEnergy(sum_known([before.joules, part.joules]), quality, part.source, sum_known([before.idle_joules, idle]))


def _quadrature(values: Sequence[float | None], parent: float | None) -> float | None:
    """Independent random uncertainties add in squares."""
    return hypot(*known) if (known := [value for value in (*values, parent) if value is not None]) else None
