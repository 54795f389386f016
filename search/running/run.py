"""Run or continue a study: from the options of a user to a loop of trials inside of a session."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..argument_types import refuse_wrong_types
from ..billing.account import SAVE_SECONDS
from ..carbon.intensity import Intensity, Price, check_pue
from ..execution.job import Executor
from ..execution.watch import pace_of
from ..formatting import joules_text, plain
from ..front import Front
from ..integrations.run_log import TrialLogger
from ..records.bill import FEATURES, add_up
from ..records.files import last_session
from ..records.run_folder import RunFolder, StoreError
from ..report.facts import over_default
from ..report.front_view import FrontView
from ..samplers.factory import keep_apart, make_sampler
from ..samplers.frozen_features import StoredFeatures
from ..stopping.rules import Limits, StopGain, StopRules, joules_of, limits_of, refuse_wrong_limits
from ..study import Budget, Study
from ..training.evaluate import targets_of
from ..training.task import Task
from .baselines import PLAIN, MeasurementProtocol, beginning, with_earlier
from .carbon_session import ALONE, CarbonSession, check_grams, grams_as_joules, keep_place
from .clean_hours import CarbonTime
from .endings import Endings
from .ensemble import add_ensemble
from .identity import note_study, study_folder
from .membership import Membership, ledger_copy
from .progress import Listener, Reporter, quiet
from .recorder import Recorder, course, features_text, recent_gain
from .session import OpenedFolder, SessionOptions, Start, meters_text, open_session
from .trial_runner import TrialRunner, one_blas_thread

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial


@dataclass
class TrialLoop:
    """Feeds every executor with trials, one at a time, until a rule ends the study.

    Attributes:
        trial: Takes one trial its whole way on an executor.
        failures: Returns how many trials in a row measured nothing new.
        lock: Held while trials are asked, told and counted.
    """

    executors: Sequence[Executor]
    rules: StopRules
    trial: Callable[[Executor], None]
    failures: Callable[[], int]
    lock: threading.RLock = field(default_factory=threading.RLock)
    _under_way: int = 0

    def go(self) -> str:
        """Run trials until a rule ends the study; return which."""
        if len(self.executors) == 1:
            self._work(self.executors[0])
        else:
            with ThreadPoolExecutor(len(self.executors)) as threads:
                try:
                    for done in [threads.submit(self._work, executor) for executor in self.executors]:
                        done.result()
                except KeyboardInterrupt as interrupt:
                    self.rules.break_off(interrupt)
                    self.rules.at_once = True
                    raise
        reason = self.rules.end_of_study(self.failures())  # a worker elsewhere may have done the last trial between two looks
        assert reason is not None
        return reason

    def _work(self, executor: Executor) -> None:
        """Feed one executor until the study ends; an error here ends it for the others, too, after the epoch that they are in."""
        try:
            while self._begin():
                try:
                    self.trial(executor)
                finally:
                    with self.lock:
                        self._under_way -= 1
        except BaseException as error:
            self.rules.break_off(error)
            raise

    def _begin(self) -> bool:
        """Begin a trial; False when the study ends, or the trials under way elsewhere are the last ones."""
        with self.lock, one_blas_thread(), self.rules.account.spending("deciding"):
            if self.rules.end_of_study(self.failures()) is not None or self.rules.is_full(self._under_way):
                return False
            self._under_way += 1
            return True


#: Classes of which the largest has so many times the examples of the smallest are skewed.
SKEWED = 3.0
#: So many classes are counted by name.
NAMED = 10


def classes_text(task: Task, metric: str, guess: Mapping[str, float]) -> str | None:
    """Return the class counts of the training split and what guessing gives; None where neither is known."""
    targets, parts = targets_of(task.train), []
    if task.kind in ("classification", "anomaly") and targets is not None and task.classes:
        counts = [int((targets == number).sum()) for number in range(len(task.classes))]
        order = sorted(range(len(counts)), key=lambda number: -counts[number])
        shown = ", ".join(f"{task.classes[number]} {counts[number]:,}" for number in order[:NAMED])
        parts.append(f"training examples: {shown}" + (f" and {len(counts) - NAMED} more classes" if len(counts) > NAMED else ""))
        if metric == "accuracy" and max(counts) >= SKEWED * max(1, min(counts)):
            parts.append("the classes are skewed: --objectives balanced_accuracy,train_energy counts each class alike")
    if metric in guess:
        parts.insert(min(1, len(parts)), f"guessing gives {metric} {plain(guess[metric])}")
    return "; ".join(parts) or None


def run(
    study: Study,
    *,
    out: str | Path | None = None,
    trials: int | None = None,
    budget: str | Budget | None = None,
    timeout_seconds: float | None = None,
    storage: str | None = None,
    meter: str = "auto",
    cpu_watts: float | None = None,
    intensity: Intensity | None = None,
    carbon: CarbonTime | None = None,
    pue: float = 1.0,
    price_per_kwh: tuple[float, str] | None = None,
    device: str = "auto",
    workers: int = 1,
    protocol: MeasurementProtocol = PLAIN,
    save_seconds: float = SAVE_SECONDS,
    stop_gain: float | None = None,
    warm_start: Sequence[str | Path] = (),
    listener: Listener = quiet,
    origin: Mapping[str, Any] | None = None,
    command: str | None = None,
    whole_process: bool = False,
    show: Callable[[FrontView], object] | None = None,
    artifacts: str | None = None,
    same_hardware: bool = False,
    loggers: Sequence[TrialLogger] = (),
    executor: str = "local",
) -> FrontView:
    """Run a study until a limit is reached, and return the front of all measured trials.

    The limits are totals of the study, whose own hold for those that are not given here. Called again on the same folder it continues;
    where the study's own are reached and none is given, for as much again.

    Args:
        study: What to search.
        out: Run folder; ``runs/<study.name>`` by default.
        trials: Number of trials in total.
        budget: What the search may spend in total, e.g. ``"5Wh"``; what ``show`` takes comes on top.
        timeout_seconds: Wall time of this session.
        storage: Optuna storage URL; SQLite in the run folder by default. The study of this name there is made, or joined: its workers share
            trials, budget and bill. A run that goes on takes its password from here, ``JOULEFRONT_STORAGE`` (that URL) or ``PGPASSFILE``.
        meter: ``auto`` or a list of sources, e.g. ``nvml,rapl``.
        cpu_watts: Watts of the whole CPU with all cores busy, when you know better than the CPU-time estimate's default.
        intensity: Carbon per kWh of the place, see ``joulefront.search.carbon.zones.intensity_for``; a continued run keeps its own.
        carbon: A forecast in place of ``intensity``: grams follow the hour in which joules are spent, and with a deadline large
            trainings wait for clean hours.
        pue: Power usage effectiveness of the site; enters grams and money, never joules. A run that continues keeps its own.
        price_per_kwh: Amount and currency, for a budget in money.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:1``.
        workers: Trainings at the same time; each gets its share of the cores.
        protocol: Idle baselines, cool-down and anchor measurements; none by default.
        save_seconds: How often what was spent is written down: a killed session loses no more.
        stop_gain: End when the rest of the budget is expected to add less than this share of the hypervolume, e.g. 0.005.
        warm_start: Run folders of earlier studies with the same parameters: knowledge for the sampler, never points of the front.
        listener: Receives progress.
        origin: Where the study came from (``{"source", "options"}``), so that ``export`` can make it again.
        command: What was typed, for the run folder.
        whole_process: Whether this process is there for the study alone: what it took before the meters is billed, too.
        show: Prints or draws the front while the meters still run, so that this is on the bill, too.
        artifacts: Where workers keep weights for each other: a folder or ``s3://bucket/prefix``; by default in the folder that began.
        same_hardware: Whether joining is refused on hardware unlike that of the first worker.
        loggers: Trackers that get each trial and the front at the end, see ``loggers_of``; what they take is on the bill.
        executor: ``local``, or ``ray`` for workers that are actors of the Ray cluster that runs here, or of one for this study.

    Raises:
        ValueError: If an argument breaks its rule.
        StoreError: If the folder cannot be used.
        DeviceError: If another run holds the GPU; a RuntimeError if this process has a run under way.
    """
    refuse_wrong_types(run, locals())
    check_pue(pue)
    Price(*(price_per_kwh or (0.0, "EUR")))
    options = SessionOptions(meter, cpu_watts, device, workers, protocol, save_seconds, whole_process, command, origin, executor)
    refuse_wrong_limits(trials, timeout_seconds, stop_gain, warm_start)
    if carbon is not None:
        if intensity is not None:
            raise ValueError("give --forecast or --intensity (Python: carbon or intensity), not both: grams follow one of them")
        carbon.check()
        intensity = carbon.nominal()
    path = Path(out) if out is not None else Path("runs") / study.name
    wanted = budget if budget is None or isinstance(budget, Budget) else Budget.parse(budget)
    earlier = [RunFolder.open(folder) for folder in warm_start]
    prior = [one.stored_trials(one.study(read_only=True))[0] for one in earlier]
    if carbon is not None and storage is not None and not RunFolder.exists(path):
        raise StoreError(ALONE)
    forecast = carbon is not None
    place = study_folder(
        path, study, storage, intensity, pue, price_per_kwh, origin, forecast=forecast, artifacts=artifacts, beat_seconds=save_seconds
    )
    with open_session(options, place) as opened:
        terms = Terms.of(opened, study, carbon, intensity, pue, price_per_kwh, wanted, trials, timeout_seconds)
        with opened.starting() as start:
            if (member := terms.member) is not None:
                member.begin(start.account, start.ledger.hardware_id, same_hardware=same_hardware)
                opened.at_end(member.close)
            runner = _prepared(start, study, terms, prior, stop_gain, listener, loggers)
            _tell_start(runner, path, terms.raised, earlier, asked=bool(study.rungs))
            session = runner.session
            session.get_ready(runner.first_training(), runner.rules.timed_out)
        with session.account.spending("start", session.ledger.t0_ns):
            pass
        _search(runner, shown=show is not None)
        if show is not None:
            with session.account.spending("showing"):
                session.show(lambda: show(load(path, storage=storage)))
    return load(path, storage=storage)


@dataclass(frozen=True)
class Terms:
    """What a session of a search may take, and what a joule emits there: all of it is found before anything is metered.

    Attributes:
        budget: Where the limit in joules comes from; None where there is none.
        raised: A sentence for the user where the limits were raised.
        member: This worker's place in a shared study.
    """

    folder: RunFolder
    limits: Limits
    raised: str | None
    budget: Budget | None
    carbon: CarbonTime | None
    intensity: Intensity | None
    pue: float
    member: Membership | None

    @classmethod
    def of(
        cls,
        opened: OpenedFolder,
        study: Study,
        carbon: CarbonTime | None,
        intensity: Intensity | None,
        pue: float,
        price_per_kwh: tuple[float, str] | None,
        budget: Budget | None,
        trials: int | None,
        timeout_seconds: float | None,
    ) -> Terms:
        """Take what was asked for, what the folder keeps, and what was spent."""
        folder, intensity, pue = keep_place(opened.folder, intensity, pue, forecast=carbon is not None)
        spent, member = opened.joules_before, Membership.of(folder)
        if member is not None:
            budget, trials = member.limits(budget, trials, study)
            spent = (spent or 0.0) + member.elsewhere_joules()
            opened.at_end(ledger_copy(folder).close)  # when it has ended
        if carbon is None:
            check_grams(study, intensity)
        grams = None if intensity is None else intensity.grams_per_kwh
        chosen = budget or study.budget
        spent = spent if carbon is None else grams_as_joules(folder.facts["carbon"], chosen, grams, pue, otherwise=spent)
        worth = partial(joules_of, grams_per_kwh=grams, pue=pue, price_per_kwh=price_per_kwh)
        limits, raised = limits_of(study, budget, trials, timeout_seconds, worth).continued(spent, opened.trials_before)
        return cls(folder, limits, raised, chosen, carbon, intensity, pue, member)


def _prepared(
    start: Start,
    study: Study,
    terms: Terms,
    prior: Sequence[Sequence[FrozenTrial]],
    stop_gain: float | None,
    listener: Listener,
    loggers: Sequence[TrialLogger],
) -> TrialRunner:
    """Load the data, fit the study to them, note it in the folder, and make what asks for trials, trains and tells."""
    member, finished = terms.member, start.opened.trials_before
    task = study.load_task()
    folder = terms.folder if member is None else member.refreshed(terms.folder)
    begun, space = folder.facts.get("fingerprint", {"fitted": True}), study.space
    # Begun by a version that left nothing out: its database takes no other choices.
    study = study.fitted_to(task, folder.facts["study"]["rungs"], whole="fitted" not in begun or not begun["fitted"])
    session = start.prepare(note_study(folder, replace(study, space=space), task), study, task)
    # A continued study must not draw the same random numbers again, nor another worker those of this one.
    seed = (study.seed + 7919 * finished + (0 if member is None else member.draws)) % 2**32
    stored = StoredFeatures(study.space, task, session.features)
    sampler = make_sampler(study.sampler, rungs=study.rungs, seed=seed, study=study, task=task, prior_trials=prior, stored=stored)
    hourly = None
    if terms.carbon is not None and terms.intensity is not None:
        paid = (terms.carbon, study, terms.limits, terms.budget, session.account)
        kept, workers = session.folder.facts["carbon"], start.opened.bench.options.workers
        hourly = CarbonSession.begin(*paid, nominal=terms.intensity, earlier=kept, pue=terms.pue, workers=workers)
    optuna_study = session.folder.study(sampler if member is None else keep_apart(sampler, member.alike), alone=True)
    gain = StopGain(study, optuna_study, stop_gain)
    rules = StopRules(study, optuna_study, terms.limits, session.account, session.interrupted, gain, terms.intensity, terms.pue, hourly)
    rules.epoch_seconds = pace_of(session.before.trials, session.ledger.hardware_id)
    reporter = Reporter(session, optuna_study, rules, listener, loggers)
    recorder = Recorder(study, session.folder, optuna_study, session.account, len(task.train), validation_examples=len(task.validation))
    first: Sequence[Mapping[str, Any]] = study.first
    baseline = None
    if finished == 0 or session.folder.facts.get("baseline") is not None:
        first, default, baseline = beginning(study, terms.limits.trials)
        session.folder = session.folder.save_facts({**session.folder.facts, "baseline": default})
    if member is not None:
        member.describe(session.folder.facts)
        rules.stopped = lambda: member.stopped
    return TrialRunner(study, task, session, optuna_study, rules, recorder, reporter, hourly, first, baseline, member, stored)


def _search(runner: TrialRunner, *, shown: bool) -> None:
    """Run trials until a rule ends the study, between the baselines, and tell what it has brought, whatever has ended it."""
    study, session, rules, reporter, member = runner.study, runner.session, runner.rules, runner.reporter, runner.member
    loop = TrialLoop(session.executors, rules, runner, lambda: runner.recorder.failures, session.lock)
    with Endings() as after:
        after.then(lambda _: _tell_end(runner, shown=shown))
        with session.measuring():
            reporter.begin()
            loop.go()
            if study.ensemble and not session.interrupted.is_set() and session.folder.facts.get("storage") is None:
                add_ensemble(study, runner.task, session, runner.optuna_study, reporter)
            if member is not None:
                member.leave(rules, reporter.tell, session.interrupted)


def _tell_start(runner: TrialRunner, path: Path, raised: str | None, earlier: Sequence[RunFolder], *, asked: bool) -> None:
    """Say where the study runs and with what, and what of it the user did not ask for: ``asked`` is whether the rungs were."""
    study, task, session = runner.study, runner.task, runner.session
    doing = "continuing " if session.trials_before else ""
    where, meters = f"{path} on {session.device}, {session.threads} thread(s)", meters_text(session.ledger, session.device)
    machines = {one.path: last_session(one.facts).get("hardware_id") for one in earlier}
    others = ", ".join(str(one) for one, where in machines.items() if where not in (None, session.ledger.hardware_id))
    rows = f"{len(task.train) + len(task.validation):,} rows beside the test"
    for said in (
        f"{study.name}: {doing}in {where}, {meters}" + (f"; {raised}" if raised else ""),
        None if asked else f"rungs: {', '.join(map(str, study.rungs))} epochs; --rungs (Python: rungs) sets others",
        classes_text(task, study.objectives[0], session.folder.facts.get("guessing") or {}),
        f"validated in {task.folds} folds of the {rows}" if task.folds else None,
        others and f"warm start from other hardware ({others}): its energies only say what costs more than what",
        study.notice,
    ):
        if said:
            runner.reporter.tell("start", said)


def _tell_end(runner: TrialRunner, *, shown: bool) -> None:
    """Say why a session of a search has ended and what it has brought, and leave what the folder keeps of it; the front may be shown."""
    session, study, optuna_study, rules = runner.session, runner.study, runner.optuna_study, runner.rules
    reporter, hourly, member = runner.reporter, runner.carbon, runner.member
    session.reason = rules.reason or session.reason
    session.end_facts |= with_earlier(session.folder.facts, session.baseline_facts)
    if noted := sorted(reporter.expectations.items()):
        session.end_facts["expected"] = [{"share": share, **asdict(expected)} for share, expected in noted]
    if hourly is not None:
        session.end_facts |= hourly.facts()
    front = Front.of(session.folder.run(optuna_study), complete_only=study.complete_only)
    rules.account.save()
    parts = add_up(rules.account.sessions()).overhead_parts
    used = course(front, None if member is not None and member.others else rules.account.spent_joules(), parts, shown=shown)
    reporter.tell("end", "; ".join([f"ended: {session.reason}", *used]))
    if not front.trials and rules.limits.joules is not None and (started := rules.account.spent_joules() or 0.0) >= rules.limits.joules:
        reporter.tell("end", f"imports, data and warm-up alone took {joules_text(started)}; give a larger --budget")
    own = [trial for trial in front.trials if trial.number >= session.trials_before]
    if not session.inputs and (said := features_text(own, session.account.session.by_state.get(FEATURES, 0.0))) is not None:
        reporter.tell("end", said)
    if (gained := over_default(front)) is not None:
        reporter.tell("end", gained)
    if (recent := recent_gain(front)) is not None:
        reporter.tell("detail", recent)
    for trial in front if member is not None else ():
        session.folder.fetch_artifact(trial.number)
    session.folder.save_snapshot(optuna_study)
    for log in reporter.logs:
        log.end(session.folder.run(optuna_study), front)


def load(path: str | Path, *, complete_only: bool | None = None, storage: str | None = None) -> FrontView:
    """Return the front of a run folder; its storage is reached by the URL that is given, with its password, or by that of the folder.

    Raises:
        StoreError: If there is no readable run.
    """
    refuse_wrong_types(load, {"path": path, "complete_only": complete_only, "storage": storage}, path="write 'runs/digits'")
    return FrontView.of(RunFolder.open(path, storage=storage).run(), complete_only=complete_only)
