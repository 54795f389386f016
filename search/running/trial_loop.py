"""Before a joule is spent: candidates that are too large, ask for a precision the device lacks, or were trained already.

The way of a trial: ask, train under the ledger, store, tell, until a limit ends the study.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..billing.session_account import Account
from ..billing.trial_energy import trial_energy
from ..carbon.clean_hours import text_of
from ..carbon.intensity import Intensity
from ..execution.job import Executor, Job, seed_of
from ..records.run_folder import RunFolder
from ..records.trial import KEY, Trial, from_optuna
from ..samplers.history import EPOCHS_REACHED, FROM_SCRATCH
from ..space import Candidate, weightless
from ..stopping.dominated import DominanceStopper, rungs_on_the_way
from ..stopping.limits import Limits
from ..stopping.projection import Expected
from ..stopping.stop_gain import StopGain
from ..study import Study
from ..threads import one_blas_thread
from ..training.task import Task
from .baselines import BaselineController
from .carbon_session import CarbonSession
from .progress import Listener, progress_of
from .recorder import Recorder

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial


def rejection_of(study: Study, candidate: Candidate, task: Task, device: str = "cpu") -> str | None:
    """Say which limit on size a candidate breaks, or which precision the device lacks, or None; costs no training."""
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


#: So many refused or failed candidates in a row end a study: the space holds nothing that can be trained.
MAX_FAILURES_IN_A_ROW = 25
#: Shares of the study's limit at which the refined estimate of its cost is kept for the report.
NOTED = (0.25, 0.5, 0.75)
BROKEN_OFF = "broken off by an error"


@dataclass
class Loop:
    """One session of a study on this machine.

    Attributes:
        study: What to search.
        store: The run folder.
        optuna_study: The Optuna study with its sampler.
        task: The loaded data.
        limits: When to end.
        account: Who pays for what.
        intensity: Carbon per kWh, or None.
        pue: Power usage effectiveness.
        device: PyTorch device.
        threads: Threads per training.
        executors: Where trainings run, one at a time on each.
        baselines: Keeps the trials fair.
        recorder: Writes down what came of each trial.
        foresight: Looks ahead to what the rest of the budget will bring.
        listener: Receives progress.
        carbon: Prices joules by the hour and lets large trainings wait for clean hours; None without a forecast.
    """

    study: Study
    store: RunFolder
    optuna_study: optuna.Study
    task: Task
    limits: Limits
    account: Account
    intensity: Intensity | None
    pue: float
    device: str
    threads: int
    executors: Sequence[Executor]
    baselines: BaselineController
    recorder: Recorder
    foresight: StopGain
    listener: Listener
    carbon: CarbonSession | None = None
    interrupted: threading.Event = field(default_factory=threading.Event)
    stop_reason: str | None = None
    expectations: dict[float, Expected] = field(default_factory=dict)
    _started: float = field(default_factory=time.monotonic)
    _first_trial: float = field(default_factory=time.monotonic)
    _begun_joules: float = 0.0
    _under_way: int = 0
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def go(self) -> str:
        """Run trials until a limit is reached; return why the study ended."""
        self._first_trial = time.monotonic()
        self._begun_joules = self.account.spent_joules() or 0.0
        if len(self.executors) == 1:
            self._work(self.executors[0])
        else:
            with ThreadPoolExecutor(len(self.executors)) as threads:
                for done in [threads.submit(self._work, executor) for executor in self.executors]:
                    done.result()
        assert self.stop_reason is not None
        return self.stop_reason

    def _work(self, executor: Executor) -> None:
        """Feed one executor until the study ends; an error here ends it for the others, too, after the epoch that they are in."""
        try:
            while self._begin():
                try:
                    self._one_trial(executor)
                finally:
                    with self._lock:
                        self._under_way -= 1
        except BaseException as error:
            self.stop_reason = "interrupted" if isinstance(error, KeyboardInterrupt) else BROKEN_OFF
            self.interrupted.set()
            raise

    def _begin(self) -> bool:
        """Take a trial on; False when the study ends, or the trials under way elsewhere are the last ones."""
        with self._lock, one_blas_thread():
            self.stop_reason = self.stop_reason or self._why_stop()
            most = self.limits.trials
            if self.stop_reason is not None or (most is not None and self._finished() + self._under_way >= most):
                return False
            self._under_way += 1
            return True

    def tell_listener(self, event: str, message: str = "") -> None:
        """Send the state of the study to the listener."""
        run = self.store.run(self.optuna_study)
        spent = self.account.spent_joules()
        progress = progress_of(
            run,
            event=event,
            message=message,
            complete_only=self.study.complete_only,
            limits=self.limits,
            spent_joules=spent,
            begun_joules=self._begun_joules,
            before=self._earlier_trials,
            seconds=time.monotonic() - self._started,
            trial_seconds=time.monotonic() - self._first_trial,
        )
        if progress.expected is not None:
            share = progress.trials / progress.expected.trials
            for mark in NOTED:
                if share >= mark:
                    self.expectations.setdefault(mark, progress.expected)
        self.listener(progress)

    def _why_stop(self) -> str | None:
        if self.interrupted.is_set():
            return "interrupted"
        if self.recorder.failures >= MAX_FAILURES_IN_A_ROW:
            return f"{self.recorder.failures} candidates in a row failed or were refused; see the reasons with joulefront report"
        if getattr(self.optuna_study.sampler, "exhausted", False):
            return "every combination has been tried"
        reason = self._reached(self._finished()) or (self.carbon and self.carbon.ended())
        self._update_remaining()
        return reason or self.foresight.not_worth_it()

    def _finished(self) -> int:
        return sum(trial.state.is_finished() for trial in self.optuna_study.get_trials(deepcopy=False))

    def _reached(self, trials: int) -> str | None:
        if self.carbon is not None:  # a budget in grams is worth fewer joules in dirty hours
            self.limits = self.carbon.limits(self.limits)
        return self.limits.reached(joules=self.account.spent_joules(), trials=trials, seconds=time.monotonic() - self._started)

    def _postponed(self, epochs: int | None = None) -> bool:
        """Wait if a training had better run in a cleaner hour; a limit may be reached after it."""
        if self.carbon is None:
            return False
        with self._lock:
            self._update_remaining()
            until = self.carbon.until(self.optuna_study, self.limits, epochs)
        if until is not None:
            self.tell_listener("wait", f"large trainings wait for cleaner electricity until {text_of(until)}")
            self.carbon.wait(until, self.interrupted, lambda: self._why_stop_training(None))
        return until is not None

    def _one_trial(self, executor: Executor) -> None:
        if self._postponed():
            return None
        with self._lock, one_blas_thread():
            self._update_remaining()
            asked = self.optuna_study.ask()
            candidate = self.study.space.sample(asked)
            epochs = self.study.draw_epochs(asked)
            asked.set_user_attr(KEY, self.study.space.key(candidate))
            if not candidate.recipe.resumable:
                asked.set_user_attr(FROM_SCRATCH, True)
            parent = self._parent(asked, candidate)
            twin = duplicate_of(self.optuna_study.get_trials(deepcopy=False), asked.user_attrs[KEY], epochs)
            refusal = rejection_of(self.study, candidate, self.task, self.device)
            if refusal is None and twin is not None:
                self.recorder.repeated(asked, twin)
        ended = None
        while refusal is None and twin is None and ended is None and self._postponed(epochs):
            ended = self._why_stop_training(None)
        if ended is not None:
            refusal = f"{ended} before it began"
        if refusal is not None:
            with self._lock:
                self.recorder.refused(asked, epochs, refusal, excused=ended is not None)
            return self.tell_listener("trial", f"trial {asked.number} refused: {refusal}")
        if twin is None:
            with self.baselines.trial():
                self._train(executor, asked, candidate, epochs, parent)
        else:
            self.tell_listener("trial", f"trial {asked.number} repeats trial {twin.number}: nothing was trained")
        return None

    def _train(self, executor: Executor, asked: optuna.Trial, candidate: Candidate, epochs: int, parent: Trial | None) -> None:
        start = None if parent is None else self.store.artifact(parent.number)
        job = Job(
            number=asked.number,
            params={name: value for name, value in asked.params.items() if name != "epochs"},
            epochs=epochs,
            seed=seed_of(self.study.seed, self.study.space.key(candidate)),
            device=self.device,
            threads=self.threads,
            start=start,
            weights=self.store.artifact(asked.number),
            measure_inference="inference_energy" in self.study.objectives,
            check_at=rungs_on_the_way(self.study, epochs, parent),
            checkpoint_below=self.study.rungs[-1] if self.study.sampler == "freeze-thaw" else 0,
        )
        stopped: list[tuple[str, str]] = []
        meter = self.account.open(asked.number, executor.devices)
        net = DominanceStopper(self.study, lambda: self.store.run(self.optuna_study).trials, epochs, parent, meter.phases)

        def should_continue(entry: Mapping[str, Any]) -> bool:
            with self._lock:
                self.account.save_sometimes()
                ended = "stopped", self._why_stop_training(meter.window.joules())
                if ended[1] is None and job.check_at:
                    ended = "pruned", net.reason(entry)
            if ended[1] is not None:
                stopped.append((ended[0], ended[1]))
            return ended[1] is None

        try:
            outcome = executor.train(job, phases=meter.phase, should_continue=should_continue)
        except BaseException:
            self.account.close(asked.number, meter, state="killed", cpu_seconds=None)
            self.account.save()
            raise
        state = "failed" if outcome.failed else stopped[0][0] if stopped else "ok"
        whole = self.account.close(asked.number, meter, state=state, cpu_seconds=outcome.cpu_seconds)
        if not outcome.resumed and not outcome.failed:
            parent = None  # there was no checkpoint: everything was trained, and paid, again
        with self._lock:
            price = self.intensity if self.carbon is None else self.carbon.over
            energy = trial_energy(whole, meter.phases, parent=parent, predictions=outcome.predictions, intensity=price, pue=self.pue)
            if self.carbon is not None:
                self.carbon.trained(whole, outcome.epochs - (parent.epochs if parent else 0))
                self.store.save_facts({**self.store.facts, **self.carbon.facts()})
            message = self.recorder.trained(asked, outcome, energy, parent, stopped[0][1] if stopped else None, meter)
            self.account.save()
            self.tell_listener("trial", message)

    def _update_remaining(self) -> None:
        spent = self.account.spent_joules()
        left = None if self.limits.joules is None or spent is None else self.limits.joules - spent
        self.foresight.update_remaining(left, self.intensity if self.carbon is None else self.carbon.now(), self.pue)

    def _parent(self, asked: optuna.Trial, candidate: Candidate) -> Trial | None:
        """Return the trial whose checkpoint is continued; a recipe with a fixed horizon trains every length from scratch."""
        if self.study.sampler != "freeze-thaw" or not candidate.recipe.resumable:
            return None
        from ..samplers import resume_from

        number = resume_from(asked)
        if number is None or not self.store.has_artifact(number):
            return None
        parent = from_optuna(self.optuna_study.get_trials(deepcopy=False)[number])
        return parent if parent.state == "complete" else None

    def _why_stop_training(self, joules: float | None) -> str | None:
        if self.interrupted.is_set():
            return BROKEN_OFF if self.stop_reason == BROKEN_OFF else "interrupted by the user"
        cap = self.study.max_trial_joules
        if cap is not None and joules is not None and joules >= cap:
            return f"the trial has paid its cap of {cap:g} J"
        return self._reached(trials=0)

    @property
    def _earlier_trials(self) -> int:
        return int(self.store.facts.get("sessions", [{}])[-1].get("trials_before", 0))
