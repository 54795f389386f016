"""What came of a trial, facts in the run folder, values for Optuna, weights as long as they can still matter; and what of a whole search.

What continuing would bring cannot be predicted: replayed on finished studies, the sampler's expectation was above what came every time,
by factors from one to some hundreds, and what the same energy had brought before was off as far in both directions. So the end of a run
reports what its last energy has brought (`recent_gain`), a fact in place of a promise.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ..billing.account import Account, TrialMeter
from ..billing.trial_energy import with_energies
from ..certainty import written
from ..execution.job import Outcome
from ..formatting import count_text, joules_text
from ..front import Front
from ..records.examples import standard_error
from ..records.files import last_session
from ..records.run_folder import RunFolder
from ..records.trial import ATTRIBUTE, BASELINE, DEFAULT, EXCUSED, KEY, WORKER, Trial, TrialEnergy, counted
from ..samplers.history import EPOCHS_REACHED, FINISHED, FROM_SCRATCH, QUALITY_SD
from ..stopping.rules import EXHAUSTED, NOT_WORTH_IT, REACHED, Limits, joules_of
from ..study import Study, objective_values
from ..training.results import SOLVED

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

#: A database that is lost in a long session is made again from a copy that is not older than this and one trial.
SNAPSHOT_SECONDS = 60.0
#: Share of the trials' energy whose gain is reported.
SHARE = 0.25
#: Of fewer trials than this nothing is reported.
LEAST = 12


@dataclass
class Recorder:
    """Writes down every trial exactly once.

    Attributes:
        train_examples: Length of the training split, ``validation_examples`` that of the validation split; 0 where unknown.
        failures: Trials in a row that measured nothing new: failed, rejected or duplicate ones.
        snapshot_seconds: When the trials were last copied beside the database (monotonic clock).
    """

    study: Study
    store: RunFolder
    optuna_study: optuna.Study
    account: Account
    train_examples: int
    failures: int = 0
    validation_examples: int = 0
    snapshot_seconds: float = field(default_factory=time.monotonic)

    def trained(
        self, asked: optuna.Trial, outcome: Outcome, energy: TrialEnergy, parent: Trial | None, stopped: str | None, meter: TrialMeter
    ) -> str:
        """Record a training, complete or failed, and drop the weights that no longer matter; return a sentence about it.

        ``stopped`` says why it was ended before its epochs from outside; None when it ended itself.
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
            complete_training=epochs >= self.study.rungs[-1] or outcome.stopped == SOLVED,
            curve=with_energies(outcome.curve, meter.phases),
            extra={**outcome.extra, **self._circumstances(asked, outcome), **({BASELINE: DEFAULT} if BASELINE in asked.user_attrs else {})},
        )
        if not outcome.failed:
            try:
                self.store.share_artifact(asked.number)
            except OSError as error:
                print(f"the other workers cannot continue trial {asked.number}: {error}", file=sys.stderr)
        perfect = not outcome.failed and self.study.is_perfect(outcome.quality)
        if perfect or (outcome.stopped and (stopped is None or outcome.stopped == SOLVED)):
            asked.set_user_attr(FINISHED, True)
        message = self._tell(asked, trial, meter, excused=outcome.excused) + ("" if outcome.features is None else outcome.features.sentence)
        message += f" ({stopped})" if perfect and stopped else ""
        self.drop_weights()
        return message

    def rejected(self, asked: optuna.Trial, epochs: int, reason: str, *, excused: bool = False) -> None:
        """Record a candidate that was rejected before training, at no cost; it is excused where that says nothing against it."""
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
        values, missing = objective_values(trial, self.study.objectives, meter.phases)
        if values is None:
            self.account.rebook(meter)
            return self._fail(asked, replace(trial, state="failed", artifact=None, artifact_sha256=None, reason=missing))
        asked.set_user_attr(EPOCHS_REACHED, trial.epochs)
        asked.set_user_attr(ATTRIBUTE, trial.facts())
        self.optuna_study.tell(asked, list(values))
        self.failures = 0
        cost = "energy unknown" if trial.train_joules is None else joules_text(trial.train_joules)
        name, epochs = self.study.objectives[0], count_text(trial.epochs, "epoch")
        return f"trial {asked.number}: {name} {written(self.store.facts, name, values[0])} after {epochs}, {cost}"

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
        examples = self.train_examples if outcome.features is None else outcome.features.images
        spread = standard_error(self.study.objectives[0], outcome.quality, self.validation_examples, self.store.examples(asked.number))
        return {"threads": outcome.threads, "train_examples": examples, "asked_epochs": asked.params.get("epochs"), QUALITY_SD: spread}

    def drop_weights(self) -> None:
        """Keep the weights that can still matter: those on the front, and the ends of lineages that can be continued."""
        stored, trials = self.store.stored_trials(self.optuna_study)
        run = self.store.run(self.optuna_study, trials=trials, bill=False)
        keep = {trial.number for trial in Front.of(run, complete_only=self.study.complete_only)}
        if self.study.sampler == "freeze-thaw":
            keep |= resumable(trials, stored)
        self.store.keep_artifacts(keep | {trial.number for trial in run.trials if trial.state == "running"})
        if self.store.facts.get("storage") is None and time.monotonic() - self.snapshot_seconds > SNAPSHOT_SECONDS:
            self.store.save_snapshot(self.optuna_study)
            self.snapshot_seconds = time.monotonic()


def resumable(trials: Sequence[Trial], stored: Sequence[FrozenTrial]) -> set[int]:
    """Return the numbers of the trials that the sampler may continue from their checkpoints; `stored` are the same as Optuna holds them.

    They are not complete trainings, none has continued them yet, and nothing has ended their candidate.
    """
    ended = [trial for trial in stored if {FINISHED, FROM_SCRATCH} & trial.user_attrs.keys()]
    ended += [trial for trial in stored if trial.state.name == "FAIL" and EXCUSED not in trial.user_attrs]
    over = set(map(_candidate, ended))
    parents = {trial.parent for trial in trials if trial.state == "complete"}
    return {
        trial.number
        for trial in trials
        if trial.state == "complete"
        and not trial.complete_training
        and trial.number not in parents
        and _candidate(stored[trial.number]) not in over
    }


def _candidate(trial: FrozenTrial) -> tuple[Any, Any]:
    """Return what tells candidates apart: on other hardware the same parameters are another one's energies."""
    return trial.user_attrs.get(KEY), trial.user_attrs.get(WORKER, {}).get("hardware_id")


def finished(folder: RunFolder, study: Study, *, no_stop: bool = False) -> str | None:
    """Return why the last session of a run ended, if it has done all that the study's own limits ask for; None if work is left.

    A session may have had smaller limits than the study's. With ``no_stop`` a study that has found the rest not worth it is not finished.
    """
    facts = folder.facts
    reason = str(last_session(facts).get("reason") or "")
    budget, trials = study.limits()
    if not reason.startswith(REACHED) or (budget is None and trials is None):
        over = (*REACHED, EXHAUSTED) if no_stop else (*REACHED, EXHAUSTED, NOT_WORTH_IT)
        return reason if reason.startswith(over) else None
    run, grams, price = folder.run(), dict(facts.get("intensity") or {}).get("grams_per_kwh"), facts.get("price_per_kwh")
    priced, joules = None if price is None else (float(price[0]), str(price[1])), None
    with suppress(ValueError):  # its money or grams cannot be told: the run itself says so
        joules = None if budget is None else joules_of(budget, grams_per_kwh=grams, pue=facts.get("pue") or 1.0, price_per_kwh=priced)
    return reason if Limits(joules, trials).reached(joules=run.bill.total_joules, trials=counted(run.trials), seconds=0.0) else None


def recent_gain(front: Front) -> str | None:
    """Return how much the last quarter of the trials' energy raised the hypervolume; None while there are too few trials.

    A clause: ``the last quarter of the trials' energy (1.2 mWh, 9 trials) raised the hypervolume from 0.580 to 0.589``.
    """
    done = sorted((trial for trial in front.trials if trial.state != "running"), key=lambda trial: trial.number)
    joules = [trial.increment_joules or 0.0 for trial in done]
    if len(done) < LEAST or not sum(joules) > 0:
        return None
    spent, first = 0.0, 0
    while spent < (1.0 - SHARE) * sum(joules):
        spent += joules[first]
        first += 1
    if first == len(done):  # the very last training took more than the quarter
        first -= 1
    before = replace(front, trials=tuple(done[:first])).hypervolume()
    after = front.hypervolume()
    count = len(done) - first
    energy = joules_text(sum(joules[first:]))
    what = f"the last quarter of the trials' energy ({energy}, {count_text(count, 'trial')})"
    if after <= before:
        return f"{what} did not raise the hypervolume of {after:.3f}"
    return f"{what} raised the hypervolume from {before:.3f} to {after:.3f}"


def course(front: Front, spent_joules: float | None, overhead: Mapping[str, float] | None = None, *, shown: bool = False) -> list[str]:
    """Return which share of the energy trained models and what the rest was for, and when the quality last improved, as clauses.

    ``overhead`` is in joules by what it was for; what of the rest is not in it is left out. ``shown`` is whether the front is to be shown,
    which is spent later.
    """
    done = sorted((trial for trial in front.trials if trial.values), key=lambda trial: trial.number)
    if not done:
        return []
    beside = ("evaluation_joules", "analysis_joules")
    paid = [trial for trial in front.trials if trial.increment_joules is not None]
    trained = sum((trial.increment_joules or 0.0) - sum(getattr(trial.energy, name) or 0.0 for name in beside) for trial in paid)
    said = []
    if spent_joules:
        validation = sum(trial.energy.evaluation_joules or 0.0 for trial in paid)
        parts = [("validation", validation), *sorted((overhead or {}).items(), key=lambda part: -part[1])]
        rest = ", ".join(f"{name} {joules / spent_joules:.0%}" for name, joules in parts if joules >= 0.005 * spent_joules)
        said.append(f"{min(1.0, trained / spent_joules):.0%} of {joules_text(spent_joules)} trained models")
        said[-1] += f" ({rest})" if rest and overhead else ""
        said += ["showing the front comes on top"] if shown else []
    best = max(done, key=lambda trial: (front.gain(trial), -trial.number))
    return [*said, f"{front.objectives[0]} last improved at trial {best.number} of {len(front.trials)}"]


def features_text(trials: Sequence[Trial], paid_joules: float) -> str | None:
    """Return what a session has paid for features of frozen networks; None where none of its trials has any."""
    count = sum(trial.energy.features_joules is not None for trial in trials)
    if not count:
        return None
    models = count_text(count, "trial")
    if not paid_joules:
        return f"features of frozen networks: all from the cache, nothing paid for {models}"
    return f"features of frozen networks: {joules_text(paid_joules)}, paid once for {models}"
