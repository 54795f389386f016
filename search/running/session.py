"""A session: one process's stay on a run folder, opened once and closed once.

Devices, folder, meters, ledger, bill, executors and interrupt handling are the same for every verb that trains under the meter; ``run``
and ``repeat`` are bodies inside of it. Each step gives what the next one needs, so that nothing can be asked for before it is there:

    with open_session(SessionOptions(meter="auto"), existing_folder(path)) as opened:  # nothing is metered yet; Ctrl-C ends it at once
        with opened.starting() as start:  # meters, ledger and bill; what happens inside is metered as the start
            task = study.load_task()
            session = start.prepare(opened.folder, study, task)  # the folder knows the session from here on; baselines and executors
            session.get_ready()
        with session.measuring():  # baselines before and after; Ctrl-C ends the work between two epochs from here on
            ...
        session.reason = "all of it is done"

``estimate``, which keeps nothing, takes the first half alone: `open_bench` and its ledger. The bill has the session from the start of its
ledger, and is written at each of the ledger's checkpoints. At the end, also after an error, the executors are closed, the reason is noted,
the bill is closed, everything is given back in the reverse order; the first error is the one that is raised (``endings.py``).
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..billing.account import SAVE_SECONDS, Account
from ..billing.recovery import from_records, settle_killed
from ..billing.trial_energy import price_of_inputs
from ..energy import Ledger, discover
from ..energy.calibrations import WallCalibration, load_calibration
from ..energy.discover import Discovery
from ..energy.sources.cpu_time import BLIND, CpuTime, Tree
from ..execution.devices import check_executor, make_executors, take_devices, torch_threads
from ..execution.job import WARM_UP_SECONDS, Executor, Job, WarmUp, warm_up_seconds
from ..execution.watch import Watch, within
from ..formatting import for_stream, joules_text
from ..hints import may_compile
from ..records.bill import SessionBill, add_up, meters_of, read_sessions
from ..records.files import write_json
from ..records.run_folder import RunFolder
from ..records.shared_study import SharedStudy
from ..records.trial import counted
from ..stopping.rules import BROKEN_OFF
from ..study import Study
from ..threads import cores
from ..training.feature_cache import FeatureCache
from ..training.recipe import kept_for_caller, pick_device, synchronizer
from ..training.task import Task
from .baselines import PLAIN, BaselineController, MeasurementProtocol
from .endings import Endings, stop_on_interrupt
from .identity import note_end, note_session, refuse_other_meters, timestamp

if TYPE_CHECKING:
    from ..execution.worker import WorkerProcess

#: Held by the session of this process: its work, the threads of PyTorch and the generators are those of the process.
_ONE_SESSION = threading.Lock()
#: What a user's mistake raises, in the options, the data or the study, before the folder knows the session.
REFUSALS = (ValueError, FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError, PermissionError)


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
        check_executor(self.executor)
        if self.workers < 1:
            raise ValueError(f"workers must be >= 1, got {self.workers}")
        if not self.save_seconds > 0:
            raise ValueError(f"save_seconds must be > 0, got {self.save_seconds}; 5 is usual")
        self.protocol.check(self.workers)


class Bench:
    """The devices that a process holds and what signals do to it, before anything is metered; made by `open_bench`.

    Attributes:
        devices: One for each worker; ``device`` is the first one's.
        threads: Threads of each training.
        held: Given back at the end, in the reverse order.
    """

    def __init__(self, options: SessionOptions, held: Endings) -> None:
        if not _ONE_SESSION.acquire(blocking=False):
            raise RuntimeError(
                "a run must have its process for itself, got a second one beside one under way: each would be billed for the work of both, "
                "and set the other's seeds; wait for its end, or start it in a process of its own (joulefront run)"
            )
        held.then(lambda _: _ONE_SESSION.release())
        where = pick_device(options.device)
        held.enter(kept_for_caller(where))
        self.threads = max(1, cores() // options.workers)
        torch_threads(self.threads)
        self.options, self.held, self.interrupts = options, held, held.enter(stop_on_interrupt())
        self.devices = held.enter(take_devices(where, options.workers))
        self.device = self.devices.names[0]

    @contextmanager
    def metered(self, file: Path | None = None) -> Iterator[tuple[Ledger, Mapping[str, float | None] | None]]:
        """Find the meters and start the ledger, which ends with the session; what happens inside is metered as its start.

        Yield it, and what a process that is there for this session took before it, see `SessionBill`.

        Raises:
            ValueError: If nothing can be measured or estimated here.
        """
        found = discover(self.options.meter, cpu_watts=self.options.cpu_watts, used=self.devices.components)
        ledger = self.held.enter(Ledger(found, file=file, checkpoint_seconds=self.options.save_seconds))
        with ledger.window("start", kind="overhead"):
            refuse_unmeasurable(ledger, self.options.meter, self.options.workers, self.devices.components or ())
            yield ledger, before_ledger(ledger, found) if self.options.whole_process else None


class OpenedFolder:
    """A run folder that no other process can write meanwhile, killed sessions settled; nothing is metered yet. Made by `open_session`.

    Attributes:
        before: The run as earlier sessions left it, ``trials_before`` of whose trials are finished.
        joules_before: Energy that earlier sessions spent; None when it is unknown.
        endings: Taken when the session ends: it may do so before it gives back what it holds.
    """

    def __init__(self, bench: Bench, folder: RunFolder) -> None:
        self.bench, self.folder, self.endings, self.prepared = bench, folder, Endings(), False
        shared, worker = SharedStudy(folder.study()) if "shared" in folder.facts else None, str(folder.facts.get("worker"))
        told = [] if shared is None else shared.bills().get(worker, [])
        self.earlier = read_sessions(folder.bill_file) or told
        known = len(self.earlier)
        folder.fail_dead_trials(settle_killed(self.earlier, folder.ledger_file, folder.facts["sessions"]))
        if len(told) == len(self.earlier) and all(session.get("closed", True) for session in told):  # by who took this worker for dead
            self.earlier = max(self.earlier, told, key=lambda sessions: add_up(sessions).total_joules or 0.0)
        if self.earlier:  # also when nothing is started: a spent budget refuses the start, and the folder is read as it is
            write_json(folder.bill_file, {"sessions": self.earlier})
            if shared is not None:
                shared.save_bill(worker, self.earlier)
        self.before = folder.run()
        if shared is None:  # else the storage has the bill, and the trials are those of all workers
            self.earlier += from_records(self.earlier, self.before.trials, self.before.repeats.trainings)
        if rebuilt := self.earlier[known:]:
            write_json(folder.bill_file, {"sessions": self.earlier})
            self.before = replace(self.before, bill=add_up(self.earlier))
            joules = joules_text(add_up(rebuilt).total_joules or 0.0)
            source = " and ".join(sorted({one["rebuilt"] for one in rebuilt}))
            said = f"{str(folder.bill_file)!r} lacked {len(rebuilt)} session(s), made again from {source}: they took {joules} or more"
            print(for_stream(said, sys.stderr), file=sys.stderr)
        self.trials_before = counted(trial for trial in self.before.trials if trial.state != "running")
        self.joules_before = add_up(self.earlier).total_joules

    def at_end(self, step: Callable[[], object]) -> None:
        """Take a step after the bill and before the ledger's end."""
        self.bench.held.then(lambda _: step())

    @contextmanager
    def starting(self) -> Iterator[Start]:
        """Start the ledger and open the account; what happens inside is metered as the start of the session.

        Raises:
            ValueError: If nothing can be measured or estimated here.
        """
        with self.bench.metered(self.folder.ledger_file) as (ledger, prelude):
            account = Account(
                ledger,
                SessionBill(started=timestamp(), before=prelude),
                self.earlier,
                self.joules_before,
                self.folder.bill_file,
                synchronizer(self.bench.device),
                load_calibration(WallCalibration, ledger.hardware_id),
                save_seconds=self.bench.options.save_seconds,
            )
            self.endings.then(lambda error: self._close(account, error))
            account.save()
            ledger.after_checkpoint = account.save_at_checkpoint
            yield Start(self, ledger, account)

    def _close(self, account: Account, error: BaseException | None) -> None:
        """Close the bill; a mistake in a command is not the study's: nothing is billed where the folder does not know the session yet."""
        if isinstance(error, REFUSALS) and not self.prepared:
            account.refuse(" ".join(str(error).split())[:300])
        account.save(closed=True)


@dataclass(frozen=True)
class Start:
    """A session whose ledger runs, and whose ``account`` knows who pays for what; nothing is trained yet."""

    opened: OpenedFolder
    ledger: Ledger
    account: Account

    def prepare(self, folder: RunFolder, study: Study, task: Task) -> Session:
        """Note the session in the folder, and make what trains: the baselines and the executors.

        Raises:
            StoreError: If earlier sessions were measured on other hardware, by other meters, or estimated by other watts per CPU.
        """
        refuse_other_meters(folder, self.opened.before.trials, self.ledger)
        return Session(self, folder, study, task)


class Session:
    """What a process holds while it trains for a run folder; made by `Start.prepare`.

    Attributes:
        device: Where trainings run, with so many ``threads`` each.
        folder: The run folder, as this session last wrote it; ``before`` is the run as earlier sessions left it, of which
            ``trials_before`` are finished.
        interrupted: Set by the first Ctrl-C.
        lock: Held by whoever asks, tells or counts trials: workers are threads of this process.
        reason: Why the session ended; noted at its end, as ``end_facts`` are.
        ledger: The running ledger, and ``account``, who pays for what.
        baselines: Measures the baselines, which found ``baseline_facts``.
        equal_conditions: Entered around each training, which begins when the measurement protocol allows it.
        executors: Where trainings run, one at a time on each.
        warmed_seconds: What warm-ups between trials have taken, and ``warmed_joules``; zero where there are several executors.
        features: Where the features of frozen backbones are kept, and ``inputs`` what those in the task's inputs cost.
        close: Ends the executors, so that their end is in the bill; notes the end, and closes the bill. The second call does nothing.
    """

    def __init__(self, start: Start, folder: RunFolder, study: Study, task: Task) -> None:
        opened, bench, options = start.opened, start.opened.bench, start.opened.bench.options
        self.ledger, self.account, self.before, self.trials_before = start.ledger, start.account, opened.before, opened.trials_before
        self.device, self.threads, self.close = bench.device, bench.threads, opened.endings.close
        self.interrupted, self.lock = bench.interrupts.seen, threading.RLock()
        self.reason, self.end_facts, self.baseline_facts = BROKEN_OFF, dict[str, Any](), dict[str, Any]()
        self._interrupts, self._anchored = bench.interrupts, options.protocol.anchor_every > 0
        where = {"device": self.device, "threads": self.threads, "meter": options.meter, "trials_before": opened.trials_before}
        where |= {"ledger_session": self.ledger.total().id.partition(".")[0], "before": self.account.session.before}  # were the bill lost
        self.folder = note_session(folder, self.ledger, options.command, options.origin, **where)
        opened.prepared = True
        opened.endings.then(self._note_end)
        self.baselines = BaselineController(options.protocol, study, task, self.ledger, self.device, self.threads)
        self.equal_conditions: Callable[[], AbstractContextManager[None]]
        self.equal_conditions = nullcontext if options.protocol == PLAIN else self.baselines.trial
        meters = ", ".join(f"{name} by {how}" for name, how in sorted(meters_of(self.ledger.total()).items()))
        place = f"{self.ledger.hardware_id}, {self.device}, {self.threads} threads, {meters}"
        self.features = FeatureCache.of_user(place, otherwise=folder.path / "features")
        if may_compile(study.space, study.seed):
            from torch._inductor.utils import fresh_cache

            bench.held.enter(fresh_cache())  # the first of its kind is paid in full, as it is priced; workers inherit it
        self.inputs = price_of_inputs(task.embedded, self.ledger)
        self.executors = make_executors(study, task, bench.devices.names, options.executor, self.threads, self.ledger.follow)
        for executor in self.executors:
            opened.endings.enter(closing(executor))
        self._warm, self._warm_up_seconds = WarmUp(study.space, task, self.device, study.seed), warm_up_seconds(study.max_trial_seconds)
        self.warmed_seconds = self.warmed_joules = 0.0

    def get_ready(self, first: Mapping[str, Any] | None = None, timed_out: Callable[[], str | None] = lambda: None) -> None:
        """Wait for worker processes, and warm up here for the first training, if its parameters are known, and for the anchor."""
        for worker in self._workers():
            worker.wait_until_ready(within(WARM_UP_SECONDS, timed_out))
        wanted = (None if self._workers() else first, self.baselines.anchor() if self._anchored else None)
        for params in filter(None, wanted):
            self._warm.before(params, self.threads, self._watch(timed_out))

    def warm_up(self, executor: Executor, job: Job, timed_out: Callable[[], str | None] = lambda: None) -> None:
        """Pay what only the first training of its kind pays in a process, see `WarmUp`, before the window of the training is opened."""
        begin_ns = time.monotonic_ns()
        with self.account.spending("warm-up"):
            if executor in self._workers():
                executor.warm_up(job, within(WARM_UP_SECONDS, timed_out))
            else:
                self._warm.before(job.params, job.threads, self._watch(timed_out))
        if len(self.executors) == 1:  # else it is beside the trainings of others
            self.warmed_seconds += (time.monotonic_ns() - begin_ns) / 1e9
            self.warmed_joules += self.ledger.joules(begin_ns) or 0.0

    def _workers(self) -> list[WorkerProcess]:
        from ..execution.worker import WorkerProcess  # here, for whoever reads a run and starts no worker

        return [one for one in self.executors if isinstance(one, WorkerProcess)]

    def _watch(self, timed_out: Callable[[], str | None]) -> Watch:
        return Watch(within(self._warm_up_seconds, timed_out), lambda reason: self.close())

    @contextmanager
    def measuring(self) -> Iterator[None]:
        """Measure the baselines before and after what happens inside, which ends between two epochs at the first Ctrl-C."""
        self.baselines.begin()
        self._interrupts.patient = True
        with Endings() as after:
            after.then(lambda _: setattr(self._interrupts, "patient", False))
            after.then(lambda _: self.baseline_facts.update(self.baselines.end()))
            yield

    def show(self, shown: Callable[[], object]) -> None:
        """Print and draw while the meters still run; the folder knows how the work ended."""
        self.folder = note_end(self.folder, self.reason, **self.end_facts)
        self.account.save()
        shown()

    def _note_end(self, error: BaseException | None) -> None:
        if isinstance(error, KeyboardInterrupt) and self.reason == BROKEN_OFF:
            self.reason = "interrupted"
        note_end(self.folder, self.reason, **self.end_facts)


@contextmanager
def open_bench(options: SessionOptions) -> Iterator[Bench]:
    """Hold devices, and handle signals; nothing is metered before `Bench.metered`.

    Raises:
        ValueError: If the device is not there.
        DeviceError: If others hold it.
        RuntimeError: If this process has a session already, in another thread or around this call.
    """
    with Endings() as held:
        yield Bench(options, held)


@contextmanager
def open_session(options: SessionOptions, folder: AbstractContextManager[RunFolder]) -> Iterator[OpenedFolder]:
    """Hold devices and a run folder for one session, and settle what killed sessions left there.

    Nothing is metered before `OpenedFolder.starting`. A folder is one of `joulefront.search.running.identity`.

    Raises:
        ValueError: If the device is not there.
        DeviceError: If others hold it.
        StoreError: If the folder cannot be used.
    """
    with open_bench(options) as bench:
        opened = OpenedFolder(bench, bench.held.enter(folder))
        with opened.endings:
            yield opened


def before_ledger(ledger: Ledger, found: Discovery) -> dict[str, float | None]:
    """Return this process's CPU-seconds before the ledger's start; their joules where CPU-seconds are the account, else nobody knows."""
    total = ledger.total()
    seconds = max(0.0, Tree().seconds() - (total.cpu_seconds or 0.0))
    counts = any(part.source == CpuTime.name and part.counts for part in total.components)
    watts = next((source.coefficients.core_watts for source in found.sources if isinstance(source, CpuTime)), None)
    return {"cpu_seconds": seconds, "joules": seconds * watts if counts and watts else None}


def refuse_unmeasurable(ledger: Ledger, meter: str, workers: int = 1, devices: Sequence[str] = ()) -> None:
    """Refuse to search without any meter, or with workers or a part of the held ``devices`` that none sees: a ``ValueError`` says why."""
    total = ledger.total()
    counted = {part.name for part in total.counting}
    dark = [name for name in devices if name not in counted]
    if 0 < len(dark) < len(devices):
        why = "; ".join(f"{name}: {part.reason}" for name in dark if (part := total.component(name)) is not None and part.reason)
        raise ValueError(
            f"--workers {workers}: of {len(devices)} GPUs {len(dark)} cannot be metered ({why or ', '.join(dark)}), and what is trained on "
            "these would look cheaper than it is; leave them out of CUDA_VISIBLE_DEVICES and take fewer --workers"
        )
    if workers > 1 and any(part.counts and BLIND in (part.reason or "") for part in total.components):
        raise ValueError(f"--workers must be 1 here, got {workers}: {BLIND}; use Linux for more")
    if not any(part.counts and part.joules is not None for part in total.components):
        reasons = "; ".join(f"{part.name}: {part.reason}" for part in total.components if part.reason)
        raise ValueError(f"--meter {meter}: nothing can be measured or estimated here ({reasons}); see joulefront doctor")


def meters_text(ledger: Ledger, device: str = "cpu") -> str:
    """Return in a few words what is measured how, and that nothing reads a GPU that works; a wall meter, beside the sum, comes last."""
    total = ledger.total()
    parts = [f"{part.name} {part.quality} by {part.source}" for part in total.counting if part.joules is not None]
    gpus = [part for part in total.components if part.name.startswith("gpu")]
    if device.startswith("cuda") and not any(part.counts and part.joules is not None for part in gpus):
        why = next((part.reason for part in gpus if part.reason), "no meter reads it")
        parts.append(f"nothing of the GPU that works, so that its energy is in no number here ({why})")
    wall = total.component("wall")
    if wall is not None:
        how = f"{wall.quality} by {wall.source}" if wall.joules is not None else f"not known yet ({wall.reason or wall.source})"
        parts.append(f"beside it the whole machine {how}")
    return ", ".join(parts)
