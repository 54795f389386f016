"""The way of a trial: ask, train under the ledger, store, tell, until a limit ends the study."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from .accounting import energy_facts
from .bill import Session
from .energy import Intensity, Ledger, Record
from .executors.executor import Executor
from .front import Front
from .limits import Limits
from .objectives import objective_values
from .progress import Listener, Progress
from .space import Candidate
from .store import Store, write_json
from .study import Study
from .trainer import Job, Outcome, seed_of
from .training.task import Task
from .trial import ATTRIBUTE, Trial, from_optuna

if TYPE_CHECKING:
    import optuna

#: So many refused or failed candidates in a row end a study: the space holds nothing that can be trained.
MAX_FAILURES_IN_A_ROW = 25


@dataclass
class Loop:
    """One session of a study on this machine.

    Attributes:
        study: What to search.
        store: The run folder.
        optuna_study: The Optuna study with its sampler.
        task: The loaded data.
        ledger: A running ledger.
        limits: When to end.
        session: This session's account; ``earlier`` holds those before it.
        earlier: Sessions before this one, as JSON.
        earlier_joules: What they spent, or None when unknown.
        intensity: Carbon per kWh, or None.
        pue: Power usage effectiveness.
        device: PyTorch device.
        threads: Threads per training.
        executors: Where trainings run, one at a time on each.
        listener: Receives progress.
    """

    study: Study
    store: Store
    optuna_study: optuna.Study
    task: Task
    ledger: Ledger
    limits: Limits
    session: Session
    earlier: list[dict[str, Any]]
    earlier_joules: float | None
    intensity: Intensity | None
    pue: float
    device: str
    threads: int
    executors: Sequence[Executor]
    listener: Listener
    interrupted: threading.Event = field(default_factory=threading.Event)
    stop_reason: str | None = None
    _started: float = field(default_factory=time.monotonic)
    _failures: int = 0
    _lock: threading.RLock = field(default_factory=threading.RLock)
    _saved: float = 0.0
    _edge_ns: int = 0
    _overheads: list[tuple[int, int]] = field(default_factory=list)

    def go(self) -> str:
        """Run trials until a limit is reached; return why the study ended."""
        if len(self.executors) == 1:
            self._work(self.executors[0])
        else:
            with ThreadPoolExecutor(len(self.executors)) as threads:
                for done in [threads.submit(self._work, executor) for executor in self.executors]:
                    done.result()
        assert self.stop_reason is not None
        return self.stop_reason

    def _work(self, executor: Executor) -> None:
        """Feed one executor until the study ends."""
        while self.stop_reason is None:
            with self._lock:
                self.stop_reason = self.stop_reason or self._why_stop()
            if self.stop_reason is None:
                self._one_trial(executor)

    def spent_joules(self) -> float | None:
        """Joules of all sessions so far; None when the ledger knows nothing."""
        now = self.ledger.total().joules
        return None if now is None else now + (self.earlier_joules or 0.0)

    def save_bill(self) -> None:
        """Write the account, so that a killed session loses at most what came after."""
        self.ledger.sample()  # what is read now need not be guessed from the power of a moment ago
        now = time.monotonic_ns()
        if not self.session.open_trials:
            self._book_overhead(now)
        overhead = [self.ledger.joules(begin, end) for begin, end in self._overheads]
        if overhead and all(joules is not None for joules in overhead):
            self.session.by_state["overhead"] = sum(joules for joules in overhead if joules is not None)
        self.session.total = self.ledger.query(self.ledger.t0_ns, now, name="total", kind="total")
        write_json(self.store.bill_file, {"sessions": [*self.earlier, self.session.to_json()]})
        self._saved = time.monotonic()

    def tell_listener(self, event: str, message: str = "") -> None:
        """Send the state of the study to the listener."""
        run = self.store.run(self.optuna_study)
        front = Front.of(run, complete_only=self.study.complete_only)
        done = [trial for trial in run.trials if trial.state != "running"]
        qualities = [trial.values[0] for trial in done if trial.state == "complete"]
        best = None if not qualities else max(qualities) if run.directions[0] == "maximize" else min(qualities)
        spent, seconds = self.spent_joules(), time.monotonic() - self._started
        self.listener(
            Progress(
                event=event,
                trials=len(done),
                failed=sum(trial.state == "failed" for trial in done),
                joules=spent,
                budget_joules=self.limits.joules,
                trial_limit=self.limits.trials,
                best=best,
                quality_name=run.objectives[0],
                front=len(front),
                hypervolume=front.hypervolume() if len(front) else None,
                seconds=seconds,
                seconds_left=self._seconds_left(spent, len(done), seconds),
                message=message,
            )
        )

    def _why_stop(self) -> str | None:
        if self.interrupted.is_set():
            return "interrupted"
        if self._failures >= MAX_FAILURES_IN_A_ROW:
            return f"{self._failures} candidates in a row failed or were refused; see the reasons with joulefront report"
        done = sum(trial.state.is_finished() for trial in self.optuna_study.get_trials(deepcopy=False))
        return self.limits.reached(joules=self.spent_joules(), trials=done, seconds=time.monotonic() - self._started)

    def _one_trial(self, executor: Executor) -> None:
        with self._lock:
            asked = self.optuna_study.ask()
            candidate = self.study.space.sample(asked)
            epochs = self._epochs(asked)
            asked.set_user_attr("key", self.study.space.key(candidate))
            parent, twin = self._parent(asked), self._twin(asked, candidate, epochs)
            refusal = self._refusal(candidate)
            if refusal is not None:
                self._fail(asked, Trial(asked.number, "failed", asked.params, epochs), {"reason": refusal, "increment_joules": 0.0})
            elif twin is not None:
                self._copy(asked, twin)
        if refusal is not None:
            return self.tell_listener("trial", f"trial {asked.number} refused: {refusal}")
        if twin is None:
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
        )
        phases: list[Record] = []
        stopped: list[str] = []
        window = self.ledger.open(f"trial {asked.number}", kind="trial", synchronize=self._synchronize())
        with self._lock:
            self._book_overhead(window.t0_ns)
            self.session.open_trials[asked.number] = None

        @contextmanager
        def phase(kind: str, index: int) -> Iterator[None]:
            with self.ledger.window(f"{kind} {index}", kind=kind, parent=window, synchronize=self._synchronize()) as inner:
                yield
            if inner.record is not None and kind != "overhead":
                phases.append(inner.record)

        def go_on(entry: Mapping[str, Any]) -> bool:
            joules = window.joules()
            with self._lock:
                self.session.open_trials[asked.number] = joules
                if time.monotonic() - self._saved > 5.0:
                    self.save_bill()
            reason = self._why_stop_training(joules)
            if reason is not None:
                stopped.append(reason)
            return reason is None

        try:
            outcome = executor.train(job, phases=phase, go_on=go_on)
        except BaseException:
            self.session.open_trials[asked.number] = window.close(state="killed").joules
            self.save_bill()
            raise
        whole = window.close(state="failed" if outcome.failed else "stopped" if stopped else "ok")
        with self._lock:
            self._edge_ns = window.t1_ns or time.monotonic_ns()
            facts = energy_facts(whole, phases, parent=parent, predictions=outcome.predictions, intensity=self.intensity, pue=self.pue)
            self.session.open_trials.pop(asked.number, None)
            message = self._tell(asked, outcome, facts, parent, stopped[0] if stopped else None)
            self._drop_weights()
            self.save_bill()
            self.tell_listener("trial", message)

    def _tell(self, asked: optuna.Trial, outcome: Outcome, facts: dict[str, Any], parent: Trial | None, stopped: str | None) -> str:
        epochs = max(outcome.epochs, parent.epochs if parent else 0)
        trial = Trial(
            number=asked.number,
            state="failed" if outcome.failed else "complete",
            params=dict(asked.params),
            epochs=epochs,
            quality=outcome.quality,
            parameters=outcome.parameters,
            flops=outcome.flops,
            parent=None if parent is None else parent.number,
            reason=outcome.failed or (outcome.stopped and (stopped or outcome.stopped)),
            artifact=None if outcome.failed else self.store.artifact(asked.number).name,
            complete_training=epochs >= self.study.rungs[-1],
            curve=outcome.curve,
            extra={**outcome.extra, "threads": outcome.threads},
        )
        trial = replace(trial, **facts)
        if trial.state == "failed":
            return self._fail(asked, trial, {})
        values, missing = objective_values(trial, self.study.objectives)
        if values is None:
            return self._fail(asked, replace(trial, state="failed", artifact=None), {"reason": missing})
        asked.set_user_attr("epochs_reached", epochs)
        asked.set_user_attr(ATTRIBUTE, trial.facts())
        self.optuna_study.tell(asked, list(values))
        self.session.add("complete", trial.increment_joules)
        self._failures = 0
        cost = "energy unknown" if trial.train_wh is None else f"{trial.train_wh:.4g} Wh"
        return f"trial {asked.number}: {self.study.objectives[0]} {values[0]:.4f} after {epochs} epochs, {cost}"

    def _fail(self, asked: optuna.Trial, trial: Trial, changes: Mapping[str, Any]) -> str:
        import optuna

        trial = replace(trial, **changes)
        asked.set_user_attr(ATTRIBUTE, trial.facts())
        self.optuna_study.tell(asked, state=optuna.trial.TrialState.FAIL)
        self.session.add("failed", trial.increment_joules)
        self._failures += 1
        return f"trial {asked.number} failed: {trial.reason}"

    def _copy(self, asked: optuna.Trial, twin: Trial) -> None:
        """Answer a repeated candidate from the trial that measured it: a joule is paid once."""
        copy = replace(
            twin, number=asked.number, increment_joules=0.0, evaluation_joules=0.0, artifact=None, record={}, extra={"copy_of": twin.number}
        )
        asked.set_user_attr(ATTRIBUTE, copy.facts())
        asked.set_user_attr("epochs_reached", twin.epochs)
        self.optuna_study.tell(asked, list(twin.values))
        self._failures += 1

    def _epochs(self, asked: optuna.Trial) -> int:
        low, high = self.study.rungs[0], self.study.rungs[-1]
        if self.study.complete_only and self.study.sampler != "freeze-thaw":
            low = high
        return asked.suggest_int("epochs", low, high, log=True)

    def _parent(self, asked: optuna.Trial) -> Trial | None:
        if self.study.sampler != "freeze-thaw":
            return None
        from .samplers import resume_from

        number = resume_from(asked)
        if number is None or not self.store.has_artifact(number):
            return None
        parent = from_optuna(self.optuna_study.get_trials(deepcopy=False)[number])
        return parent if parent.state == "complete" else None

    def _twin(self, asked: optuna.Trial, candidate: Candidate, epochs: int) -> Trial | None:
        key = self.study.space.key(candidate)
        for trial in self.optuna_study.get_trials(deepcopy=False):
            if trial.state.name == "COMPLETE" and trial.user_attrs.get("key") == key and trial.user_attrs.get("epochs_reached") == epochs:
                return from_optuna(trial)
        return None

    def _refusal(self, candidate: Candidate) -> str | None:
        """Say which limit on size a candidate breaks; costs no training."""
        if self.study.max_parameters is None and self.study.max_flops is None:
            return None
        from .training.flops import count

        cost = count(self.study.space.build(candidate, self.task), self.task, candidate.recipe)
        for name, have, most in (
            ("parameters", cost.parameters, self.study.max_parameters),
            ("flops", cost.flops, self.study.max_flops),
        ):
            if most is not None and have is not None and have > most:
                return f"refused before training: {have:,} {name}, more than max_{name} = {most:,}"
        return None

    def _why_stop_training(self, joules: float | None) -> str | None:
        if self.interrupted.is_set():
            return "interrupted by the user"
        cap = self.study.max_trial_joules
        if cap is not None and joules is not None and joules >= cap:
            return f"the trial has paid its cap of {cap:g} J"
        limits = replace(self.limits, trials=None)
        return limits.reached(joules=self.spent_joules(), trials=0, seconds=time.monotonic() - self._started)

    def _drop_weights(self) -> None:
        """Keep the weights that can still matter: those on the front, and the ends of lineages that can go on."""
        run = self.store.run(self.optuna_study)
        keep = {trial.number for trial in Front.of(run, complete_only=self.study.complete_only)}
        if self.study.sampler == "freeze-thaw":
            parents = {trial.parent for trial in run.trials if trial.parent is not None}
            keep |= {t.number for t in run.trials if t.state == "complete" and not t.complete_training and t.number not in parents}
        keep |= {trial.number for trial in run.trials if trial.state == "running"}
        self.store.keep_artifacts(keep)

    def _seconds_left(self, spent: float | None, trials: int, seconds: float) -> float | None:
        """Time to the first limit, if the session goes on as it went so far."""
        guesses = []
        if self.limits.seconds is not None:
            guesses.append(self.limits.seconds - seconds)
        here = None if spent is None else spent - (self.earlier_joules or 0.0)
        if self.limits.joules is not None and spent is not None and here:
            guesses.append((self.limits.joules - spent) * seconds / here)
        before = sum(1 for _ in self.session.by_state)
        if self.limits.trials is not None and trials and before:
            guesses.append((self.limits.trials - trials) * seconds / max(1, trials - self._earlier_trials))
        return min(guesses) if guesses else None

    @property
    def _earlier_trials(self) -> int:
        return int(self.store.facts.get("sessions", [{}])[-1].get("trials_before", 0))

    def _book_overhead(self, until_ns: int) -> None:
        """Note the stretch since the last trial ended: loading, deciding, storing. Its energy is asked for when the bill is written."""
        begin_ns = self._edge_ns or self.ledger.t0_ns
        if until_ns > begin_ns:
            joined = self._overheads and self._overheads[-1][1] == begin_ns
            self._overheads.append((self._overheads.pop()[0] if joined else begin_ns, until_ns))
            self._edge_ns = until_ns

    def _synchronize(self) -> Any:
        if not self.device.startswith("cuda"):
            return None
        import torch

        return lambda: torch.cuda.synchronize(self.device)
