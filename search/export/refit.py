"""The picked model trained again on all rows but those of the test split, which say whether that was worth its joules."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ..argument_types import refuse_wrong_types
from ..billing.trial_energy import trial_energy
from ..certainty import shares_differ
from ..energy.measure import measure
from ..formatting import joules_text
from ..records.examples import SHARES
from ..records.run import Run
from ..records.trial import Trial
from ..space import FixedTrial
from ..study import Study
from ..training.checkpoint import save_weights
from ..training.evaluate import evaluate, sign_of
from ..training.fit import fit
from ..training.splits_data import training_and_validation
from ..training.task import Task
from .model import rebuild

#: Its file beside an exported model.
REFIT = "refit.json"


@dataclass(frozen=True)
class Refit:
    """What a refit has cost and brought.

    ``examples`` are those that it was trained on, ``before`` and ``after`` the quality ``metric`` on the test split of ``tested`` examples,
    NaN where that is undefined, and ``joules`` what it took, that validation included; None where nothing is measured or estimated here.
    """

    examples: int
    tested: int
    metric: str
    before: float
    after: float
    joules: float | None

    def to_json(self) -> Mapping[str, Any]:
        """Return it as JSON."""
        return asdict(self)

    def to_text(self) -> str:
        """Return one sentence."""
        paid = "an unknown amount of energy" if self.joules is None else joules_text(self.joules)
        verdict = ""
        if self.metric in SHARES:
            told = shares_differ(self.before, self.after, self.tested)
            gain = sign_of(self.metric) * (self.after - self.before)
            verdict = ", a tie" if not told else ", better" if gain > 0 else ", worse: leave --refit out"
        change = f"test {self.metric} {self.after:.4f}, {self.before:.4f} before, on {self.tested:,} examples"
        return f"refitted on {self.examples:,} examples for {paid}: {change}{verdict}"


def refit(
    trial: Trial, *, study: Study, task: Task, weights: Path, folder: Path, meter: str = "auto", run: Run | None = None
) -> tuple[Trial, Task, Path, Refit]:
    """Train the model of a trial from scratch on its training and validation examples, to the same epochs of the same schedule.

    Returns:
        What ``export`` takes in place of trial, task and weights, and as ``refit``. The trial has the energy of this training, and its
        carbon where the run has an intensity that is no forecast. The task's validation split is that of the test, the only examples that
        the new model has not seen; it has no other.

    Raises:
        ValueError: If there is no test split to check it on, or the data is not in memory.
    """
    import torch

    refuse_wrong_types(refit, locals())
    if task.test is None or len(task.test) == 0:
        raise ValueError("--refit needs a test split, which says whether it was worth it; leave --refit out, or give the study one")
    if trial.members:
        named = ", ".join(map(str, dict.fromkeys(trial.members)))
        raise ValueError(f"--refit trains one model again, and trial {trial.number} is an ensemble; --pick trial=N of its members {named}")
    candidate = study.space.sample(FixedTrial(trial.params))
    recipe = replace(candidate.recipe, patience=None)
    whole = replace(task, train=training_and_validation(task), validation=task.test, test=None, folds=0)

    def train() -> Any:
        torch.manual_seed(study.seed)
        model, end = study.space.build(candidate, whole), trial.epochs
        return fit(model, whole, recipe, epochs=trial.horizon, seed=study.seed, should_continue=lambda point: point.epoch < end)

    old = rebuild(trial, study=study, task=task, weights=weights)
    before = evaluate(old.model, task, task.test, recipe=recipe).get(old.metric, math.nan)
    fitted, record = measure(train, meter, name="refit")
    path = folder / "refit.weights"
    sha256 = save_weights(path, fitted, with_checkpoint=False)
    after = fitted.quality.get(old.metric, math.nan)
    done = Refit(len(whole.train), len(task.test), old.metric, before, after, record.joules)
    energy = trial_energy(record, [replace(record, kind="epoch")], parent=None, predictions=0, intensity=None)
    if run is not None and run.facts.get("carbon") is None:
        energy = replace(energy, grams_co2e=run.grams_co2e(record.joules))
    return replace(trial, artifact_sha256=sha256, quality=dict(fitted.quality), energy=energy), whole, path, done
