"""The way of a trial: ask, check, train under the ledger, store, tell, until a rule ends the study."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ..billing.session_account import TrialMeter
from ..billing.trial_energy import trial_energy
from ..carbon.clean_hours import text_of
from ..execution.devices import DeviceError
from ..execution.job import Executor, Job, Outcome, reason_of, seed_of
from ..execution.watchdog import Watch
from ..records.trial import KEY, Trial, from_optuna
from ..samplers.history import EPOCHS_REACHED, FROM_SCRATCH, resume_from
from ..space import Candidate, weightless
from ..stopping.dominated import DominanceStopper, rungs_on_the_way
from ..study import Study
from ..threads import one_blas_thread
from ..training.checkpoint import check_weights
from ..training.task import Task
from .progress import Reporter
from .recorder import Recorder
from .session import Session
from .stop_rules import Overdue, StopRules

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial


@dataclass
class TrialLoop:
    """Feeds every executor with trials, one at a time, until a rule ends the study.

    Attributes:
        executors: Where trainings run.
        rules: When to end.
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
        assert self.rules.reason is not None
        return self.rules.reason

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
        with self.lock, one_blas_thread():
            if self.rules.end_of_study(self.failures()) is not None or self.rules.is_full(self._under_way):
                return False
            self._under_way += 1
            return True


@dataclass(frozen=True)
class Asked:
    """A trial that the sampler has proposed and the checks have let through.

    Attributes:
        trial: Optuna's trial.
        candidate: What is trained.
        epochs: Epochs to reach, counted from scratch.
        parent: The trial whose checkpoint is continued, or None.
    """

    trial: optuna.Trial
    candidate: Candidate
    epochs: int
    parent: Trial | None


@dataclass(frozen=True)
class TrialRunner:
    """Takes trials their whole way; the executors' threads share it.

    Attributes:
        study: What to search.
        task: The loaded data.
        session: Devices, folder, account, baselines and lock.
        optuna_study: The Optuna study with its sampler.
        rules: When a training ends.
        recorder: Writes down what came of each trial.
        reporter: Sends the state of the study to the listener.
    """

    study: Study
    task: Task
    session: Session
    optuna_study: optuna.Study
    rules: StopRules
    recorder: Recorder
    reporter: Reporter

    def __call__(self, executor: Executor) -> None:
        """Ask for a trial; train it, unless a check rejects it or its candidate was trained before; tell what came of it."""
        if self._postponed():
            return
        with self.session.lock, one_blas_thread():
            self.rules.update_remaining()
            asked = self._ask()
            duplicate = duplicate_of(self._optuna_trials(), asked.trial.user_attrs[KEY], asked.epochs)
            rejection = rejection_of(self.study, asked.candidate, self.task, self.session.device)
            if rejection is None and duplicate is not None:
                self.recorder.repeated(asked.trial, duplicate)
        if rejection is None and duplicate is not None:
            return self._report(f"trial {asked.trial.number} repeats trial {duplicate.number}: nothing was trained")
        ended = None
        while rejection is None and ended is None and self._postponed(asked.epochs):
            ended = self.rules.end_of_training(None)
        if rejection is None and ended is None:
            with self.session.baselines.trial():
                return self._train(executor, asked)
        reason = rejection or f"{ended} before it began"
        with self.session.lock:
            self.recorder.rejected(asked.trial, asked.epochs, reason, excused=ended is not None)
        return self._report(f"trial {asked.trial.number} refused: {reason}")

    def _ask(self) -> Asked:
        trial = self.optuna_study.ask()
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
        number = resume_from(trial)
        if number is None:
            return None
        parent = from_optuna(self._optuna_trials()[number])
        if parent.state != "complete":
            return None
        try:
            check_weights(self.session.folder.artifact(number), parent.artifact_sha256)
        except (OSError, ValueError) as error:
            self.reporter.tell("warning", f"warning: trial {trial.number} is trained from scratch: {error}")
            return None
        return parent

    def _postponed(self, epochs: int | None = None) -> bool:
        """Wait if a training had better run in a cleaner hour; a limit may be reached after it."""
        carbon = self.rules.carbon
        if carbon is None:
            return False
        with self.session.lock:
            self.rules.update_remaining()
            until = carbon.until(self.optuna_study, self.rules.limits, epochs)
        if until is not None:
            self.reporter.tell("wait", f"large trainings wait for cleaner electricity until {text_of(until)}")
            carbon.wait(until, self.session.interrupted, lambda: self.rules.end_of_training(None))
        return until is not None

    def _train(self, executor: Executor, asked: Asked) -> None:
        number, account, parent = asked.trial.number, self.session.account, asked.parent
        job = self._job(asked)
        stopped: list[tuple[str, str]] = []
        overdue = Overdue(self.rules, asked.epochs - (parent.epochs if parent else 0))
        try:
            meter = account.open(number, executor.devices)
        except Exception as error:
            raise DeviceError(f"{job.device} does not answer any more ({error}); the same command continues in a new process") from error
        dominance = DominanceStopper(self.study, self._trials, asked.epochs, parent, meter.phases)

        def phases(kind: str, index: int) -> AbstractContextManager[Any]:
            overdue.begin()
            return meter.phase(kind, index)

        def should_continue(entry: Mapping[str, Any]) -> bool:
            overdue.epoch()
            with self.session.lock:
                account.save_sometimes()
                ended = "stopped", self.rules.end_of_training(meter.window.joules())
                if ended[1] is None and job.check_at:
                    ended = "pruned", dominance.reason(entry)
            if ended[1] is not None:
                stopped.append((ended[0], ended[1]))
            return ended[1] is None

        def abandon(reason: str) -> None:
            self._record(asked, Outcome(0, failed=reason, excused=overdue.excused), meter, stopped)
            self.session.reason = f"trial {number} hung: {reason}"
            self.session.close()

        try:
            outcome = executor.train(job, phases=phases, should_continue=should_continue, watch=Watch(overdue, abandon))
        except BaseException:
            account.close(number, meter, state="killed", cpu_seconds=None)
            account.save()
            raise
        if outcome.failed and outcome.failed == overdue.reason:
            outcome = replace(outcome, excused=overdue.excused)
        self._record(asked, outcome, meter, stopped)

    def _record(self, asked: Asked, outcome: Outcome, meter: TrialMeter, stopped: Sequence[tuple[str, str]]) -> None:
        """Close the window of a training, and write down what came of it."""
        number, account, parent = asked.trial.number, self.session.account, asked.parent
        state = "failed" if outcome.failed else stopped[0][0] if stopped else "ok"
        try:
            whole = account.close(number, meter, state=state, cpu_seconds=outcome.cpu_seconds)
        except Exception as error:  # the device does not answer any more; its window has ended, and the second call asks only the ledger
            outcome = replace(outcome, failed=outcome.failed or reason_of(error))
            whole = account.close(number, meter, state="failed", cpu_seconds=outcome.cpu_seconds)
        if not outcome.resumed and not outcome.failed:
            parent = None  # there was no checkpoint: everything was trained, and paid, again
        if not outcome.failed:
            self.rules.took(whole.seconds, len(outcome.curve))
        carbon = self.rules.carbon
        with self.session.lock:
            price = self.rules.intensity if carbon is None else carbon.over
            energy = trial_energy(whole, meter.phases, parent=parent, predictions=outcome.predictions, intensity=price, pue=self.rules.pue)
            if carbon is not None:
                carbon.trained(whole, outcome.epochs - (parent.epochs if parent else 0))
                self.session.folder = self.session.folder.save_facts({**self.session.folder.facts, **carbon.facts()})
            message = self.recorder.trained(asked.trial, outcome, energy, parent, stopped[0][1] if stopped else None, meter)
            account.save()
            self._report(message)

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
            check_at=rungs_on_the_way(self.study, asked.epochs, asked.parent),
            checkpoint_below=self.study.rungs[-1] if self.study.sampler == "freeze-thaw" else 0,
        )

    def _optuna_trials(self) -> Sequence[FrozenTrial]:
        return self.optuna_study.get_trials(deepcopy=False)

    def _trials(self) -> tuple[Trial, ...]:
        return self.session.folder.run(self.optuna_study).trials

    def _report(self, message: str) -> None:
        self.reporter.tell("trial", message)


def rejection_of(study: Study, candidate: Candidate, task: Task, device: str = "cpu") -> str | None:
    """Return which limit on size a candidate breaks, or which precision the device lacks, or None; costs no training."""
    if candidate.recipe.precision != "float32":
        from ..training.device import require_precision

        try:
            require_precision(candidate.recipe.precision, device)
        except ValueError as error:
            return f"refused before training: {error}"
    limits = {"parameters": study.max_parameters, "flops": study.max_flops, "memory_bytes": study.max_memory_bytes}
    if all(most is None for most in limits.values()):
        return None
    from ..training.cost import count

    try:
        model = weightless(study.space, candidate, task)
    except ValueError as error:  # e.g. a network that the images are too small for: one refused candidate, not the end of the study
        return f"refused before training: {' '.join(str(error).split())}"
    cost = count(model, task, candidate.recipe, memory=study.max_memory_bytes is not None)
    for name, most in limits.items():
        have = getattr(cost, name)
        if most is not None and have is not None and have > most:
            return f"refused before training: {have:,} {name}, more than max_{name} = {most:,}"
    return None


def duplicate_of(trials: Sequence[FrozenTrial], key: str, epochs: int) -> Trial | None:
    """Return the trial that measured the same candidate at the same epochs, or None."""
    for trial in trials:
        if trial.state.name == "COMPLETE" and trial.user_attrs.get(KEY) == key and trial.user_attrs.get(EPOCHS_REACHED) == epochs:
            return from_optuna(trial)
    return None
