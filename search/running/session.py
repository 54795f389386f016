"""A session: one process's stay on a run folder, opened once and closed once.

Devices, folder, meters, ledger, bill, executors and interrupt handling are the same for every verb that trains under the meter; ``run``,
``repeat`` and ``estimate`` are bodies inside of it:

    with open_session(SessionOptions(meter="auto"), existing_folder(path)) as session:  # nothing is metered yet; Ctrl-C ends it at once
        with session.starting():  # meters, ledger and bill; what happens inside is metered as the start
            task = study.load_task()
            session.prepare(study, task)  # the folder knows the session from here on; baselines and executors
            session.warm_up()
        with session.measuring():  # baselines before and after; Ctrl-C ends the work between two epochs from here on
            ...
        session.reason = "all of it is done"

The bill has the session from the start of its ledger, and is written at each of the ledger's checkpoints. At the end, also after an error,
the executors are closed, then the bill, the reason is noted, everything is given back in the reverse order.
"""

from __future__ import annotations

import contextlib
import platform
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from ..billing.account import SAVE_SECONDS, Account, price_of_inputs
from ..billing.recovery import settle_killed
from ..energy import Ledger, Record, discover
from ..energy.calibrations import WallCalibration, load_calibration
from ..energy.discover import Discovery
from ..energy.sources.cpu_time import CpuTime, Tree
from ..execution.devices import Devices, check_executor, make_executors, pick_device, take_devices, torch_threads
from ..execution.job import Executor, Watch, within
from ..execution.probe import WARM_UP_SECONDS, may_compile
from ..records.bill import SessionBill, add_up, meters_of, read_sessions
from ..records.files import write_json
from ..records.run_folder import Run, RunFolder, StoreError
from ..stopping.limits import BROKEN_OFF
from ..study import Study
from ..threads import WAIT_POLICY, cores
from ..training.feature_cache import FeatureCache
from ..training.recipe import synchronizer
from ..training.task import Task
from .baselines import PLAIN, BaselineController, MeasurementProtocol
from .identity import refuse_other_estimate

#: What a user's mistake raises, in the options, the data or the study, before the folder knows the session.
REFUSALS = (ValueError, FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError, PermissionError)
PACKAGES = ("joulefront", "torch", "torchvision", "timm", "scikit-learn", "optuna", "numpy", "codecarbon", "nvidia-ml-py")


@dataclass(frozen=True)
class SessionOptions:
    """Where a session trains and with what it measures.

    Attributes:
        meter: ``auto`` or a list of sources, e.g. ``nvml,rapl``.
        cpu_watts: Watts of the whole CPU with all cores busy, for the estimate from CPU time; None for what is known of this machine.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:1``.
        workers: Trainings at the same time; each gets its share of the cores; ``executor`` is ``local`` or ``ray``.
        protocol: Idle baselines, cool-down and anchor measurements.
        save_seconds: What was spent is written to the bill and to the ledger's file this often: a killed session loses no more.
        whole_process: Whether this process is there for this session alone, so that what it took before the meters is on the bill, too.
        command: What was typed, without passwords; None from Python.
        origin: Where the study and its data are now; None keeps what the folder knows.

    Raises:
        ValueError: If an option breaks its rule.
    """

    meter: str = "auto"
    cpu_watts: float | None = None
    device: str = "auto"
    workers: int = 1
    protocol: MeasurementProtocol = PLAIN
    save_seconds: float = SAVE_SECONDS
    whole_process: bool = False
    command: str | None = None
    origin: Mapping[str, Any] | None = None
    executor: str = "local"

    def __post_init__(self) -> None:
        """Check what can be checked without a machine."""
        check_executor(self.executor)
        if self.workers < 1:
            raise ValueError(f"workers must be >= 1, got {self.workers}")
        if not self.save_seconds > 0:
            raise ValueError(f"save_seconds must be > 0, got {self.save_seconds}; 5 is usual")
        self.protocol.check(self.workers)


class Session:
    """What a process holds while it works on a run folder; made by `open_session`.

    Attributes:
        devices: The devices that it holds, one for each worker; ``device`` is the first one's.
        threads: Threads of each training.
        folder: The run folder, as this session last wrote it; not in a session that keeps nothing.
        interrupted: Set by the first Ctrl-C.
        lock: Held by whoever asks, tells or counts trials: workers are threads of this process.
        reason: Why the session ended; noted at its end, as ``end_facts`` are.
        ledger: The running ledger, and in a session with a folder its ``account``, who pays for what; from `starting` on.
        baselines: Measures the baselines, which found ``baseline_facts``; from `prepare` on.
        equal_conditions: Entered around each training, which begins when the measurement protocol allows it; from `prepare` on.
        executors: Where trainings run, one at a time on each; from `prepare` on.
        features: Where the features of frozen backbones are kept, and ``inputs`` what those in the task's inputs cost; from `prepare` on.
        prelude: What this process took before the ledger, see `SessionBill`; from `starting` on.
    """

    folder: RunFolder
    ledger: Ledger
    account: Account
    baselines: BaselineController
    equal_conditions: Callable[[], AbstractContextManager[None]]
    executors: Sequence[Executor]
    features: FeatureCache
    inputs: tuple[Record, ...]
    prelude: Mapping[str, float | None] | None = None

    def __init__(
        self, options: SessionOptions, devices: Devices, threads: int, folder: RunFolder | None, held: ExitStack, interrupts: Interrupts
    ) -> None:
        self.options, self.devices, self.device, self.threads = options, devices, devices.names[0], threads
        self.interrupted, self.lock = interrupts.seen, threading.RLock()
        self.reason, self.end_facts, self.baseline_facts = BROKEN_OFF, dict[str, Any](), dict[str, Any]()
        self._held, self._keeps, self._noted, self._interrupts = held, folder is not None, False, interrupts
        self.at_end = held.callback  # for what comes after the bill and before the ledger's end
        self._training, self._earlier = ExitStack(), list[dict[str, Any]]()
        if folder is not None:
            self.folder = folder
            self._earlier = read_sessions(folder.bill_file)
            folder.fail_dead_trials(settle_killed(self._earlier, folder.ledger_file))
            if self._earlier:  # also when nothing is started: a spent budget refuses the start, and the folder is read as it is
                write_json(folder.bill_file, {"sessions": self._earlier})
            self._before = folder.run()

    @property
    def before(self) -> Run:
        """The run as earlier sessions left it, the killed ones settled."""
        return self._before

    @property
    def trials_before(self) -> int:
        """Number of trials that earlier sessions finished."""
        return sum(trial.state != "running" for trial in self.before.trials)

    @property
    def joules_before(self) -> float | None:
        """Energy that earlier sessions spent; None when it is unknown."""
        return add_up(self._earlier).total_joules

    @contextmanager
    def starting(self) -> Iterator[None]:
        """Find the meters, start the ledger and open the account; what happens inside is metered as the start of the session.

        Raises:
            ValueError: If nothing can be measured or estimated here.
        """
        found = discover(self.options.meter, cpu_watts=self.options.cpu_watts, used=self.devices.components)
        file = self.folder.ledger_file if self._keeps else None
        self.ledger = self._held.enter_context(Ledger(found, file=file, checkpoint_seconds=self.options.save_seconds))
        with self.ledger.window("start", kind="overhead"):
            refuse_unmeasurable(self.ledger, self.options.meter)
            if self.options.whole_process:
                self.prelude = before_ledger(self.ledger, found)
            if self._keeps:
                self.account = Account(
                    self.ledger,
                    SessionBill(started=timestamp(), before=self.prelude),
                    self._earlier,
                    self.joules_before,
                    self.folder.bill_file,
                    synchronizer(self.device),
                    load_calibration(WallCalibration, self.ledger.hardware_id),
                    save_seconds=self.options.save_seconds,
                )
                self.account.save()
                self.ledger.after_checkpoint = self.account.save_at_checkpoint
            yield

    def prepare(self, study: Study, task: Task) -> None:
        """Note the session in the folder, and make what trains: the baselines and the executors.

        Raises:
            StoreError: If earlier sessions were measured on other hardware, or estimated by other watts per CPU.
        """
        refuse_other_estimate(self.folder, self.before.trials, self.ledger)
        self.folder = note_session(self.folder, self.ledger, self.device, self.threads, self.trials_before, self.options)
        self._noted = True
        self.baselines = BaselineController(self.options.protocol, study, task, self.ledger, self.device, self.threads)
        self.equal_conditions = nullcontext if self.options.protocol == PLAIN else self.baselines.trial
        meters = ", ".join(f"{name} by {how}" for name, how in sorted(meters_of(self.ledger.total()).items()))
        place = f"{self.ledger.hardware_id}, {self.device}, {self.threads} threads, {meters}"
        self.features = FeatureCache.of_user(place, otherwise=self.folder.path / "features")
        if may_compile(study.space, study.seed):
            from torch._inductor.utils import fresh_cache

            self._held.enter_context(fresh_cache())  # the first of its kind is paid in full, as it is priced; workers inherit it
        self.inputs = price_of_inputs(task.embedded, self.ledger)
        self.executors = make_executors(study, task, self.devices.names, self.options.executor, self.threads, self.ledger.follow)
        for executor in self.executors:
            self._training.callback(executor.close)

    def warm_up(self, timed_out: Callable[[], str | None] = lambda: None) -> None:
        """Pay what only the first training of its kind pays in a process, before the first trial; one that hangs is ended."""
        from ..execution.worker import WorkerProcess  # here, for whoever reads a run and starts no worker

        workers = [one for one in self.executors if isinstance(one, WorkerProcess) and one.begin_warm_up(self.threads)]
        if not workers or self.options.protocol.anchor_every:  # with workers only an anchor is trained in this process
            self.baselines.warm_up(Watch(timed_out, lambda reason: self.close()))
        limit = within(WARM_UP_SECONDS, timed_out)
        for worker in workers:
            worker.wait_until_warm(limit)

    @contextmanager
    def measuring(self) -> Iterator[None]:
        """Measure the baselines before and after what happens inside, which ends between two epochs at the first Ctrl-C."""
        self.baselines.begin()
        self._interrupts.patient = True
        try:
            yield
        finally:
            self.baseline_facts = self.baselines.end()
            self._interrupts.patient = False

    def show(self, shown: Callable[[], object]) -> None:
        """Print and draw while the meters still run; the folder knows how the work ended."""
        self.folder = note_end(self.folder, self.reason, **self.end_facts)
        self.account.save()
        shown()

    def refuse(self, reason: str) -> None:
        """Bill nothing where the folder does not know the session yet: a mistake in a command is not the study's."""
        if self._keeps and not self._noted and hasattr(self, "account"):
            self.account.refuse(" ".join(reason.split())[:300])

    def close(self) -> None:
        """End the executors, so that their end is in the bill; close it, and note the end if the folder knows the session."""
        with ExitStack() as last:  # each step is taken whatever becomes of those before it
            if self._noted:
                last.callback(lambda: note_end(self.folder, self.reason, **self.end_facts))
            if self._keeps and hasattr(self, "account"):
                last.callback(self.account.save, closed=True)
            last.push(self._training)


@contextmanager
def open_session(options: SessionOptions, folder: AbstractContextManager[RunFolder] | None = None) -> Iterator[Session]:
    """Hold devices and a run folder for one session, and settle what killed sessions left there.

    Nothing is metered before `Session.starting`. A folder is one of `joulefront.search.running.identity`; without one nothing is kept.

    Raises:
        ValueError: If the device is not there.
        DeviceError: If others hold it.
        StoreError: If the folder cannot be used.
    """
    where = pick_device(options.device)
    threads = max(1, cores() // options.workers)
    torch_threads(threads)
    with ExitStack() as held:
        interrupts = held.enter_context(stop_on_interrupt())
        devices = held.enter_context(take_devices(where, options.workers))
        session = Session(options, devices, threads, None if folder is None else held.enter_context(folder), held, interrupts)
        try:
            yield session
        except KeyboardInterrupt:
            session.reason = "interrupted" if session.reason == BROKEN_OFF else session.reason
            raise
        except REFUSALS as error:
            session.refuse(str(error))
            raise
        finally:
            session.close()


@dataclass
class Interrupts:
    """What the user's signals (SIGINT, SIGTERM) do to a session.

    Attributes:
        seen: Set by the first signal; checked between epochs.
        patient: Whether the first signal lets an epoch end; otherwise it raises, as every later one does.
    """

    seen: threading.Event = field(default_factory=threading.Event)
    patient: bool = False


@contextmanager
def stop_on_interrupt() -> Iterator[Interrupts]:
    """Handle SIGINT and SIGTERM; nothing is changed outside of the main thread.

    Raises:
        KeyboardInterrupt: At the second signal, or at the first one where nobody looks at the event.
    """
    interrupts = Interrupts()
    if threading.current_thread() is not threading.main_thread():
        yield interrupts
        return

    def stop(signum: int, frame: Any) -> None:
        again = interrupts.seen.is_set()
        interrupts.seen.set()
        if again or not interrupts.patient:
            raise KeyboardInterrupt
        how = "press Ctrl-C" if signum == signal.SIGINT else "send the signal"
        print(f"\nstopping after this epoch; {how} again to stop at once", file=sys.stderr, flush=True)

    with ExitStack() as restored:
        for number in (signal.SIGINT, signal.SIGTERM):
            restored.callback(signal.signal, number, signal.signal(number, stop))
        yield interrupts


def note_session(store: RunFolder, ledger: Ledger, device: str, threads: int, finished: int, options: SessionOptions) -> RunFolder:
    """Note in the folder, which this session holds, when, where, with what and by which command it measures.

    Raises:
        StoreError: If earlier sessions were measured on other hardware.
    """
    total, sessions = ledger.total(), list(store.facts.get("sessions", []))
    for before in sessions:
        if before.get("hardware_id") != total.hardware_id:
            raise StoreError(
                f"{str(store.path)!r} was measured on other hardware ({before.get('hardware_id')}, here {total.hardware_id}); "
                "energies of different machines do not belong on one front: give a new --out"
            )
    sessions.append(
        {
            "started": timestamp(),
            "command": options.command,
            "versions": versions(),
            "hardware": total.hardware,
            "hardware_id": total.hardware_id,
            "device": device,
            "threads": threads,
            "openmp_wait_policy": WAIT_POLICY,  # None: torch was loaded before it could be set, and idle threads spin
            "meter": options.meter,
            "trials_before": finished,
        }
    )
    return store.save_facts({**store.facts, **({"origin": dict(options.origin)} if options.origin else {}), "sessions": sessions})


def note_end(store: RunFolder, reason: str, **facts: Any) -> RunFolder:
    """Note in the folder why the session ended, and what else it found out."""
    sessions = [dict(session) for session in store.facts["sessions"]]
    sessions[-1].update(ended=timestamp(), reason=reason)
    return store.save_facts({**store.facts, **facts, "sessions": sessions})


def before_ledger(ledger: Ledger, found: Discovery) -> dict[str, float | None]:
    """Return this process's CPU-seconds before the ledger's start; their joules where CPU-seconds are the account, else nobody knows."""
    total = ledger.total()
    seconds = max(0.0, Tree().seconds() - (total.cpu_seconds or 0.0))
    counts = any(part.source == CpuTime.name and part.counts for part in total.components)
    watts = next((source.coefficients.core_watts for source in found.sources if isinstance(source, CpuTime)), None)
    return {"cpu_seconds": seconds, "joules": seconds * watts if counts and watts else None}


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that results depend on."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version()}
    for name in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def refuse_unmeasurable(ledger: Ledger, meter: str) -> None:
    """Refuse to search without any meter: a ``ValueError`` that says why no component is measured or estimated."""
    total = ledger.total()
    if not any(part.counts and part.joules is not None for part in total.components):
        reasons = "; ".join(f"{part.name}: {part.reason}" for part in total.components if part.reason)
        raise ValueError(f"--meter {meter}: nothing can be measured or estimated here ({reasons}); see joulefront doctor")


def meters_text(ledger: Ledger) -> str:
    """Return in a few words what is measured how; a wall meter is beside the sum and comes after it."""
    total = ledger.total()
    parts = [f"{part.name} {part.quality} by {part.source}" for part in total.counting if part.joules is not None]
    wall = total.component("wall")
    if wall is not None:
        how = f"{wall.quality} by {wall.source}" if wall.joules is not None else f"not known yet ({wall.reason or wall.source})"
        parts.append(f"beside it the whole machine {how}")
    return ", ".join(parts)


def timestamp() -> str:
    """Return the present in UTC as ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
