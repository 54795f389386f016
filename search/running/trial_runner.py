"""The way of a trial: ask, check, train under the ledger, store, tell."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from threadpoolctl import ThreadpoolController

from ..billing.account import TrialMeter
from ..billing.trial_energy import price_of_features, trial_energy
from ..execution.job import Executor, Job, Outcome, reason_of, seed_of
from ..execution.watch import Watch, slowest_epoch
from ..execution.worker import DeviceError
from ..records.bill import FEATURES
from ..records.optuna_storage import keep
from ..records.run import on_hardware
from ..records.trial import BASELINE, DEFAULT, KEY, NOT_BEGUN, WORKER, Trial, counted, from_optuna
from ..samplers.frozen_features import StoredFeatures, scheduled, shorter
from ..samplers.history import EPOCHS_REACHED, FROM_SCRATCH, resume_from
from ..space import Candidate, FixedTrial, NearestTrial, Space
from ..stopping.projection import DominanceStopper
from ..stopping.rules import Limits, Overdue, StopRules
from ..study import Study, rejection_of
from ..training.checkpoint import check_weights
from ..training.task import Task
from .carbon_session import CarbonSession
from .clean_hours import text_of
from .endings import noted_on
from .ensemble import scores_file
from .membership import Membership, Refusal
from .progress import Reporter
from .recorder import Recorder
from .session import Session

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial


@lru_cache(maxsize=1)
def _thread_pools(modules: int) -> ThreadpoolController:
    """Look for the libraries of a process with so many modules: each decision would take ten milliseconds for it."""
    return ThreadpoolController()


def one_blas_thread() -> AbstractContextManager[Any]:
    """Let products and factorisations take one thread inside: for deciding, whose matrices are small, where a training comes next.

    The environment (``search/threads.py``) is too late for whoever has imported numpy before us. Not for two threads at a time: each
    restores what it found.
    """
    limited: AbstractContextManager[Any] = _thread_pools(len(sys.modules)).limit(limits=1, user_api="blas")
    return limited


#: Why a training ends whose trial is not this worker's any more.
GIVEN_UP = "was given up for dead by another worker"


@dataclass(frozen=True)
class Asked:
    """A trial and why it must not be trained; its epochs are counted from scratch, also when it continues that of a ``parent``."""

    trial: optuna.Trial
    candidate: Candidate
    epochs: int
    parent: Trial | None
    refusal: Refusal | None = None


@dataclass
class Lost:
    """Trainings from scratch that were lost with the worker they ran in, to be taken up again by later trials."""

    _waiting: dict[str, Mapping[str, Any] | None] = field(default_factory=dict)

    def note(self, key: str, params: Mapping[str, Any], limits: Limits) -> Limits:
        """Let a candidate be trained again, beside the trials that the limits allow, but once: it may be the reason after all."""
        new = key not in self._waiting
        self._waiting.setdefault(key, dict(params))
        return replace(limits, trials=limits.trials and limits.trials + new)

    def next(self) -> Mapping[str, Any] | None:
        """Return the parameters of a training that nobody has taken up again yet, or None."""
        for key, params in self._waiting.items():
            if params is not None:
                self._waiting[key] = None
                return params
        return None


@dataclass(frozen=True)
class TrialRunner:
    """Takes trials their whole way; the executors' threads share it.

    ``carbon`` prices joules by the hour and lets large trainings wait for clean hours; None without a forecast. ``first`` are parameters of
    the trials to begin with, that of number ``baseline`` the default model; ``member`` is this worker's place in a shared study;
    ``stored`` is what an earlier one left of features.
    """

    study: Study
    task: Task
    session: Session
    optuna_study: optuna.Study
    rules: StopRules
    recorder: Recorder
    reporter: Reporter
    carbon: CarbonSession | None = None
    first: Sequence[Mapping[str, Any]] = ()
    baseline: int | None = None
    member: Membership | None = None
    stored: StoredFeatures | None = None
    lost: Lost = field(default_factory=Lost)

    def __call__(self, executor: Executor) -> None:
        """Ask for a trial; train it, unless a check rejects it or its candidate was trained before; tell what came of it."""
        if self._postponed() or (asked := self._checked()) is None:
            return
        refusal = asked.refusal or self._begin(executor, asked)
        if refusal is not None:
            with self.session.lock:
                self.recorder.rejected(asked.trial, asked.epochs, refusal.reason, excused=refusal.excused)
            self.reporter.tell("trial", f"trial {asked.trial.number} refused: {refusal.reason}")

    def _checked(self) -> Asked | None:
        """Ask for a trial and check it while no other worker does; None where the study is full, or it repeats another and is told."""
        member = self.member
        alone = nullcontext() if member is None else member.alone()
        with self.session.lock, alone, one_blas_thread(), self.session.account.spending("deciding"):
            if member is not None and (full := member.full(self.rules.limits, self._trials(), self._optuna_trials())) is not None:
                self.rules.reason = self.rules.reason or full
                return None
            self.rules.update_remaining()
            asked = self._ask()
            number, trials = asked.trial.number, self._optuna_trials()
            if (rejection := rejection_of(self.study, asked.candidate, self.task, self.session.device)) is not None:
                return replace(asked, refusal=Refusal(rejection))
            known = trials if member is None else member.alike(trials)
            if (duplicate := duplicate_of(known, asked.trial.user_attrs[KEY], asked.epochs)) is not None:
                self.recorder.repeated(asked.trial, duplicate)
                self.reporter.tell("trial", f"trial {number} repeats trial {duplicate.number}: nothing was trained")
                return None
            if member is None:
                return asked
            expected = expected_joules(self._trials(), asked.epochs, asked.parent)
            refusal = member.claim(self.rules.limits, trials, number, asked.epochs, asked.parent, expected)
            return replace(asked, refusal=refusal)

    def _begin(self, executor: Executor, asked: Asked) -> Refusal | None:
        """Train when hour, machine and limits allow it; return why a training has not begun, or None."""
        ended = None
        while ended is None and self._postponed(asked.epochs):
            ended = self.rules.end_of_training(None)
        if ended is None:
            with self.session.equal_conditions():
                job = self._job(asked)
                self.session.warm_up(executor, job, self.rules.timed_out)
                if (ended := self.rules.end_of_training(None)) is None:
                    self._train(executor, asked, job)
        return None if ended is None else Refusal(f"{ended} {NOT_BEGUN}", excused=True)

    def first_training(self) -> Mapping[str, Any] | None:
        """Return parameters of the kind that the next training is of, where the study says what it begins with; else None."""
        if (wanted := self._scheduled_first(self._optuna_trials())) is None:
            return None
        self.study.space.sample(draw := NearestTrial(wanted))
        return draw.params

    def _scheduled_first(self, known: Sequence[FrozenTrial]) -> Mapping[str, Any] | None:
        place = counted(known)
        return self.first[place] if self.study.sampler != "grid" and place < len(self.first) else None

    def _ask(self) -> Asked:
        known = self._optuna_trials()
        later = self._scheduled_first(known) or self.lost.next() or shorter(self.study, len(self.first), known)
        if later := later or scheduled(self.optuna_study, self.study, self.task, self.stored):
            self.optuna_study.enqueue_trial(dict(later))
        trial = self.optuna_study.ask()
        if self.member is not None:
            trial.set_user_attr(WORKER, {"id": self.member.state.id, "hardware_id": self.member.state.hardware_id})
        if counted(known) == self.baseline:
            trial.set_user_attr(BASELINE, DEFAULT)
        candidate = self.study.space.sample(trial)
        epochs = self.study.draw_epochs(trial)
        trial.set_user_attr(KEY, self.study.space.key(candidate))
        if not candidate.recipe.resumable:
            trial.set_user_attr(FROM_SCRATCH, True)
        return Asked(trial, candidate, epochs, self._parent(trial, candidate))

    def _parent(self, trial: optuna.Trial, candidate: Candidate) -> Trial | None:
        """Return the trial whose checkpoint is continued; a recipe with a fixed horizon trains every length from scratch."""
        if self.study.sampler != "freeze-thaw" or not candidate.recipe.resumable:
            return None
        if (number := resume_from(trial)) is None:
            return None
        parent = from_optuna(self._optuna_trials()[number])
        if parent.state != "complete":
            return None
        try:
            check_weights(self.session.folder.fetch_artifact(number), parent.artifact_sha256)
        except (OSError, ValueError) as error:
            self.reporter.tell("warning", f"warning: trial {trial.number} is trained from scratch: {error}")
            return None
        return parent

    def _postponed(self, epochs: int | None = None) -> bool:
        """Wait if a training had better run in a cleaner hour; a limit may be reached after it."""
        if (carbon := self.carbon) is None:
            return False
        with self.session.lock:
            self.rules.update_remaining()
            until = carbon.until(self.optuna_study, self.rules.limits, epochs)
        if until is not None:
            self.reporter.tell("wait", f"large trainings wait for cleaner electricity until {text_of(until)}")
            carbon.wait(until, self.session.interrupted, self._ended_waiting)
        return until is not None

    def _ended_waiting(self) -> str | None:
        with self.session.lock:  # it prices what was spent and moves the limits, which several waiting threads share
            return self.rules.end_of_training(None)

    def _train(self, executor: Executor, asked: Asked, job: Job) -> None:
        number, account, parent = asked.trial.number, self.session.account, asked.parent
        keep(self.optuna_study)  # a session that is killed in the training leaves its trial
        stopped, began = list[tuple[str, str]](), time.monotonic()
        overdue = Overdue(self.rules, asked.epochs - (parent.epochs if parent else 0))
        try:
            meter = account.open(number, executor.devices, pid=getattr(executor, "pid", None))
        except Exception as error:
            raise DeviceError(f"{job.device} does not answer any more ({error}); the same command continues in a new process") from error
        dominance = DominanceStopper(self.study, self._trials, asked.epochs, parent, lambda: meter.phases)

        def phases(kind: str, index: int) -> AbstractContextManager[Any]:
            overdue.begin(kind)
            return meter.phase(kind, index)

        def should_continue(entry: Mapping[str, Any]) -> bool:
            overdue.epoch()
            with self.session.lock:
                account.save_sometimes()
                ended, why = self._end_after_epoch(asked.trial, meter, time.monotonic() - began)
                if why is None and entry["epoch"] in job.check_at and self.study.is_perfect(entry):
                    ended, why = "ok", f"perfect {job.metric} after epoch {entry['epoch']}: more epochs can only cost"
                if why is None and job.check_at and BASELINE not in asked.trial.user_attrs:
                    ended, why = "pruned", dominance.reason(entry)
            stopped.extend([] if why is None else [(ended, why)])
            return why is None

        def abandon(reason: str) -> None:
            self._record(asked, Outcome(0, failed=reason, excused=overdue.excused), meter, stopped)
            self.session.reason = f"trial {number} hung: {reason}"
            self.session.close()
            self.reporter.tell("end", "")  # the bar goes before the process does

        try:
            outcome = executor.train(job, phases=phases, should_continue=should_continue, watch=Watch(overdue, abandon))
        except BaseException as error:
            with noted_on(error):
                account.close(meter, state="killed", cpu_seconds=None)
                account.save()
            raise
        if outcome.failed and outcome.failed == overdue.reason:
            outcome = replace(outcome, excused=overdue.excused)
        if outcome.failed and outcome.excused and parent is None:
            with self.session.lock:
                self.rules.limits = self.lost.note(self.study.space.key(asked.candidate), asked.trial.params, self.rules.limits)
        self._record(asked, outcome, meter, stopped)
        if outcome.ends_study:
            raise RuntimeError(outcome.failed)

    def _end_after_epoch(self, trial: optuna.Trial, meter: TrialMeter, seconds: float) -> tuple[str, str | None]:
        """Return how a training that has taken so many seconds would end now, and why it must; None where nothing but itself ends it."""
        if self.member is not None:
            self.member.exchange()
            if self.member.shared.is_closed(trial.number):
                return "failed", GIVEN_UP
        default, beginner = BASELINE in trial.user_attrs, len(self.study.first) <= trial.number < len(self.first)
        features = [record for record in meter.phases if (default or beginner) and record.kind == FEATURES]  # paid for all trials
        own, seconds = meter.window.joules(), seconds - sum(record.seconds for record in features)
        own = None if own is None else own - sum(record.known_joules for record in features)
        return "stopped", self.rules.end_of_training(own, default=default, beginner=beginner, seconds=seconds)

    def _record(self, asked: Asked, outcome: Outcome, meter: TrialMeter, stopped: Sequence[tuple[str, str]]) -> None:
        """Close the window of a training, and write down what came of it."""
        number, account, parent = asked.trial.number, self.session.account, asked.parent
        state = "failed" if outcome.failed else stopped[0][0] if stopped else "ok"
        try:
            whole = account.close(meter, state=state, cpu_seconds=outcome.cpu_seconds)
        except Exception as error:  # the device does not answer any more; its window has ended, and the second call asks only the ledger
            outcome = replace(outcome, failed=outcome.failed or reason_of(error))
            whole = account.close(meter, state="failed", cpu_seconds=outcome.cpu_seconds)
        parent = parent if outcome.resumed or outcome.failed else None  # without a checkpoint everything was trained, and paid, again
        if not outcome.failed:
            apart = sum(record.seconds for record in meter.phases if record.kind == "features")
            self.rules.epoch_seconds = slowest_epoch(self.rules.epoch_seconds, whole.seconds - apart, len(outcome.curve))
        shared = (*price_of_features(outcome.features, meter.phases, self.session.features, whole), *self.session.inputs)
        carbon = self.carbon
        from optuna.exceptions import UpdateFinishedTrialError

        kept = nullcontext() if self.member is None else self.member.recording()
        with self.session.lock, kept, self.session.account.spending("storing"):
            price = self.rules.intensity if carbon is None else carbon.over
            alike = of_the_same_kernels(self.study.space, asked.candidate, self._trials() if asked.candidate.recipe.compile else ())
            facts: Mapping[str, Any] = {"predictions": outcome.predictions, "intensity": price, "pue": self.rules.pue}
            energy = trial_energy(whole, meter.phases, parent=parent, shared=shared, compiled=alike, **facts)
            if carbon is not None:
                carbon.trained(whole, outcome.epochs - (parent.epochs if parent else 0))
                self.session.folder = self.session.folder.save_facts({**self.session.folder.facts, **carbon.facts()})
            try:
                if self.member is not None and self.member.shared.is_closed(number):
                    raise UpdateFinishedTrialError(GIVEN_UP)
                message = self.recorder.trained(asked.trial, outcome, energy, parent, stopped[0][1] if stopped else None, meter)
            except UpdateFinishedTrialError:
                account.rebook(meter)
                message = f"trial {number} {GIVEN_UP}: what it took is on the bill as failed"
            account.save()
            if self.member is not None:
                self.member.reserve(number, None)
                self.member.exchange()
            self.reporter.tell("trial", message)

    def _job(self, asked: Asked) -> Job:
        return Job(
            number=asked.trial.number,
            params={name: value for name, value in asked.trial.params.items() if name != "epochs"},
            epochs=asked.epochs,
            seed=seed_of(self.study.seed, self.study.space.key(asked.candidate)),
            device=self.session.device,
            threads=self.session.threads,
            start=None if asked.parent is None else self.session.folder.artifact(asked.parent.number),
            weights=self.session.folder.artifact(asked.trial.number),
            measure_inference="inference_energy" in self.study.objectives,
            check_at=self.study.rungs_to_check(0 if asked.parent is None else asked.parent.epochs, asked.epochs),
            checkpoint_below=self.study.rungs[-1] if self.study.sampler == "freeze-thaw" else 0,
            features=self.session.features,
            metric=self.study.objectives[0],
            examples=self.session.folder.examples(asked.trial.number),
            scores=scores_file(self.session.folder, asked.trial.number) if self.study.ensemble else None,
        )

    def _optuna_trials(self) -> Sequence[FrozenTrial]:
        return self.optuna_study.get_trials(deepcopy=False)

    def _trials(self) -> tuple[Trial, ...]:
        return on_hardware(self.session.folder.run(self.optuna_study, bill=False).trials, self.session.ledger.hardware_id)


def of_the_same_kernels(space: Space, candidate: Candidate, trials: Sequence[Trial]) -> list[Trial]:
    """Return the trials that have compiled what a candidate compiles."""
    compiled = [(trial, space.sample(FixedTrial(trial.params))) for trial in trials if trial.energy.compiled]
    wanted = (candidate.architecture, candidate.recipe.kernels)
    return [trial for trial, one in compiled if (one.architecture, one.recipe.kernels) == wanted]


def duplicate_of(trials: Sequence[FrozenTrial], key: str, epochs: int) -> Trial | None:
    """Return the trial that measured the same candidate at the same epochs, or None; ``trials`` are those of like hardware."""
    for trial in trials:
        if trial.state.name == "COMPLETE" and trial.user_attrs.get(KEY) == key and trial.user_attrs.get(EPOCHS_REACHED) == epochs:
            return from_optuna(trial)
    return None


def expected_joules(trials: Sequence[Trial], epochs: int, parent: Trial | None) -> float | None:
    """Return about what a training will take, by its own epochs so far or the cheapest of any model; None where nothing is known."""
    if parent is not None and parent.train_joules is not None:
        return parent.train_joules / max(1, parent.epochs) * (epochs - parent.epochs)
    known = [trial.train_joules / trial.epochs for trial in trials if trial.state == "complete" and trial.epochs and trial.train_joules]
    return min(known) * epochs if known else None
