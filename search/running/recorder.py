"""What came of a trial: told to Optuna, kept in the run folder, and the weights that no longer matter deleted."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ..billing.session_account import Account, TrialMeter
from ..billing.trial_energy import with_energies
from ..execution.job import Outcome
from ..front import Front
from ..records.run_folder import RunFolder
from ..records.trial import ATTRIBUTE, EXCUSED, KEY, Trial, TrialEnergy
from ..samplers.history import EPOCHS_REACHED, FINISHED, FROM_SCRATCH
from ..study import Study, objective_values

if TYPE_CHECKING:
    import optuna

#: A database that is lost in a long session is made again from a copy that is not older than this and one trial.
SNAPSHOT_SECONDS = 60.0


@dataclass
class Recorder:
    """Writes down every trial exactly once.

    Attributes:
        study: The study.
        store: The run folder.
        optuna_study: The Optuna study.
        account: Who pays for what.
        train_examples: Length of the training split.
        failures: Trials in a row that measured nothing new: failed, rejected or duplicate ones.
        snapshot_seconds: When the trials were last copied beside the database (monotonic clock).
    """

    study: Study
    store: RunFolder
    optuna_study: optuna.Study
    account: Account
    train_examples: int
    failures: int = 0
    snapshot_seconds: float = field(default_factory=time.monotonic)

    def trained(
        self, asked: optuna.Trial, outcome: Outcome, energy: TrialEnergy, parent: Trial | None, stopped: str | None, meter: TrialMeter
    ) -> str:
        """Record a training, complete or failed, and drop the weights that no longer matter; return a sentence about it.

        Args:
            asked: Optuna's trial.
            outcome: What the executor handed back.
            energy: Its energy.
            parent: The trial that was continued, or None.
            stopped: Why it was ended before its epochs from outside, or None: then the training ended itself.
            meter: Its windows on the ledger.
        """
        epochs = max(outcome.epochs, parent.epochs if parent else 0)
        trial = Trial(
            number=asked.number,
            state="failed" if outcome.failed else "complete",
            params=dict(asked.params),
            epochs=epochs,
            quality=outcome.quality,
            energy=energy,
            parameters=outcome.parameters,
            flops=outcome.flops,
            parent=None if parent is None else parent.number,
            artifact_sha256=outcome.sha256,
            reason=outcome.failed or (outcome.stopped and (stopped or outcome.stopped)),
            artifact=None if outcome.failed else self.store.artifact(asked.number).name,
            complete_training=epochs >= self.study.rungs[-1],
            curve=with_energies(outcome.curve, meter.phases),
            extra={**outcome.extra, **self._circumstances(asked, outcome)},
        )
        if outcome.stopped and stopped is None:
            asked.set_user_attr(FINISHED, True)
        message = self._tell(asked, trial, meter, excused=outcome.excused)
        self.drop_weights()
        return message

    def rejected(self, asked: optuna.Trial, epochs: int, reason: str, *, excused: bool = False) -> None:
        """Record a candidate that was rejected before training, at no cost; it is excused when only the session has ended."""
        trial = Trial(asked.number, "failed", asked.params, epochs, reason=reason, energy=TrialEnergy(increment_joules=0.0))
        self._fail(asked, trial, excused=excused)

    def repeated(self, asked: optuna.Trial, original: Trial) -> None:
        """Record a duplicate with the values of the trial that measured it: a joule is paid once."""
        unpaid = replace(original.energy, record={}, increment_joules=0.0, evaluation_joules=0.0, analysis_joules=None)
        copy = replace(
            original, number=asked.number, energy=unpaid, artifact=None, artifact_sha256=None, extra={"copy_of": original.number}
        )
        asked.set_user_attr(ATTRIBUTE, copy.facts())
        asked.set_user_attr(EPOCHS_REACHED, original.epochs)
        self.optuna_study.tell(asked, list(original.values))
        self.failures += 1

    def _tell(self, asked: optuna.Trial, trial: Trial, meter: TrialMeter, *, excused: bool) -> str:
        if trial.state == "failed":
            return self._fail(asked, trial, excused=excused)
        values, missing = objective_values(trial, self.study.objectives)
        if values is None:
            self.account.rebook(meter)
            return self._fail(asked, replace(trial, state="failed", artifact=None, artifact_sha256=None, reason=missing))
        asked.set_user_attr(EPOCHS_REACHED, trial.epochs)
        asked.set_user_attr(ATTRIBUTE, trial.facts())
        self.optuna_study.tell(asked, list(values))
        self.failures = 0
        cost = "energy unknown" if trial.train_wh is None else f"{trial.train_wh:.4g} Wh"
        return f"trial {asked.number}: {self.study.objectives[0]} {values[0]:.4f} after {trial.epochs} epochs, {cost}"

    def _fail(self, asked: optuna.Trial, trial: Trial, *, excused: bool = False) -> str:
        import optuna

        asked.set_user_attr(ATTRIBUTE, trial.facts())
        if excused:
            asked.set_user_attr(EXCUSED, "ended")
        self.optuna_study.tell(asked, state=optuna.trial.TrialState.FAIL)
        self.failures += 1
        return f"trial {asked.number} failed: {trial.reason}"

    def _circumstances(self, asked: optuna.Trial, outcome: Outcome) -> Mapping[str, Any]:
        """What else a comparison of trials needs to know of each."""
        return {"threads": outcome.threads, "train_examples": self.train_examples, "asked_epochs": asked.params.get("epochs")}

    def drop_weights(self) -> None:
        """Keep the weights that can still matter: those on the front, and the ends of lineages that can be continued."""
        run = self.store.run(self.optuna_study)
        keep = {trial.number for trial in Front.of(run, complete_only=self.study.complete_only)}
        if self.study.sampler == "freeze-thaw":
            keep |= resumable(run.trials, self.optuna_study.get_trials(deepcopy=False))
        keep |= {trial.number for trial in run.trials if trial.state == "running"}
        self.store.keep_artifacts(keep)
        if self.store.facts.get("storage") is None and time.monotonic() - self.snapshot_seconds > SNAPSHOT_SECONDS:
            self.store.save_snapshot(self.optuna_study)
            self.snapshot_seconds = time.monotonic()


def resumable(trials: Sequence[Trial], stored: Sequence[optuna.trial.FrozenTrial]) -> set[int]:
    """Return the numbers of the trials that the sampler may continue from their checkpoints.

    They are not complete trainings, none has continued them yet, and nothing has ended their candidate.

    Args:
        trials: All trials of the study.
        stored: The same trials as Optuna holds them.
    """
    over = {trial.user_attrs.get(KEY) for trial in stored if _ends_its_candidate(trial)}
    parents = {trial.parent for trial in trials if trial.state == "complete"}
    return {
        trial.number
        for trial in trials
        if trial.state == "complete"
        and not trial.complete_training
        and trial.number not in parents
        and stored[trial.number].user_attrs.get(KEY) not in over
    }


def _ends_its_candidate(trial: optuna.trial.FrozenTrial) -> bool:
    """Whether no trial of the same candidate will ever continue from a checkpoint."""
    failed = trial.state.name == "FAIL" and EXCUSED not in trial.user_attrs
    return failed or FINISHED in trial.user_attrs or FROM_SCRATCH in trial.user_attrs
