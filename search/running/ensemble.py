"""The last, cheap trial of a search: the mean of a few of its models, added where it is better than the best of them beyond noise."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import hypot
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..certainty import Evidence
from ..energy.record import combined_quality, sum_known
from ..execution.job import CPU_INFERENCE_SECONDS
from ..export.model import rebuild
from ..formatting import joules_text, plain
from ..records.examples import Examples
from ..records.run_folder import RunFolder
from ..records.trial import ATTRIBUTE, MEMBERS, ComponentEnergy, Trial, TrialEnergy
from ..samplers.history import EPOCHS_REACHED, FINISHED
from ..study import Study, objective_values
from ..training.blend import Blend, cross_fitted, greedy
from ..training.checkpoint import save_weights
from ..training.estimator import SingleEpoch
from ..training.evaluate import predict_for, quality
from ..training.recipe import Recipe
from ..training.results import EpochPoint, Fitted
from ..training.task import Task
from .progress import Reporter
from .session import Session

if TYPE_CHECKING:
    import optuna

#: So many of the best models that are kept are looked at: choosing takes a part of a second.
POOL = 15


def scores_file(store: RunFolder, number: int) -> Path:
    """File of what a trial gave for the validation examples, in a run folder; only of estimators of a study with an ensemble."""
    return store.examples(number).with_name(f"scores-{number:05d}.npz")


def add_ensemble(study: Study, task: Task, session: Session, search: optuna.Study, reporter: Reporter) -> None:
    """Choose members among the models that are kept, and add their mean as a trial if it beats the best of them beyond noise; say which.

    Its quality is that of predictions by members which the same examples have not chosen. What choosing takes is overhead of the search,
    and no joule is billed twice: its price is what its members' trainings take from scratch.
    """
    metric, trials = study.objectives[0], session.folder.run(search).trials
    sign = 1.0 if study.directions[0] == "maximize" else -1.0
    known = _known(session.folder, trials)
    complete = [trial for trial in trials if trial.state == "complete" and not trial.members and "copy_of" not in trial.extra]
    pool = sorted((one for one in complete if one.number in known), key=lambda one: -sign * one.values[0])[:POOL]
    if task.kind not in ("classification", "regression") or len(pool) < 2:
        return
    with session.ledger.window("ensemble", kind="overhead"):
        scores, targets = [known[one.number][0] for one in pool], known[pool[0].number][1]

        def value(mean: np.ndarray, places: np.ndarray) -> tuple[float, float]:
            wanted, examples = targets[places], Examples.of(metric, task.kind, mean, targets[places])
            found = float("nan") if examples is None else examples.value()
            if task.kind == "regression":
                return sign * found, 0.0
            right = np.clip(mean[np.arange(len(mean)), wanted.astype(int)], 1e-7, 1.0)
            return sign * found, float(np.log(right).mean())

        def choose(places: np.ndarray) -> dict[int, int]:
            return greedy([one[places] for one in scores], lambda mean: value(mean, places), study.ensemble)

        fair, counts = cross_fitted(scores, choose, study.seed), choose(np.arange(len(targets)))
        found = quality(task.kind, fair, targets, scale=task.target_scale)
        best, number = pool[0], len(search.get_trials(deepcopy=False))
        results = {best.number: Examples.load(session.folder.examples(best.number)), number: Examples.of(metric, task.kind, fair, targets)}
        evidence = Evidence(metric, sign > 0, len(targets), results=lambda one: results[one.number])
        trial = Trial(number, "complete", {}, max(pool[k].epochs for k in counts), quality=found, complete_training=True)
        trial = replace(trial, values=(found.get(metric, float("nan")), *best.values[1:]))
        named = ", ".join(f"{pool[k].number}" + (f" ({count} times)" if count > 1 else "") for k, count in sorted(counts.items()))
        if len(counts) == 1 or not beats(evidence, trial, best):
            said = "one model alone" if len(counts) == 1 else f"{metric} {trial.values[0]:.4f} of the mean of trials {named}"
            reporter.tell("end", f"no ensemble: {said} is not better than the {best.values[0]:.4f} of trial {best.number} beyond noise")
            return
        _add(study, task, session, search, [(pool[k], count) for k, count in counts.items()], trial, fair, targets)
    added = session.folder.run(search).trials[-1]
    price = "" if added.inference_joules_per_1000 is None else f", {plain(added.inference_joules_per_1000)} J per 1,000 predictions"
    cost = "energy unknown" if added.train_joules is None else joules_text(added.train_joules)
    alone = f"{best.values[0]:.4f} of trial {best.number} alone"
    reporter.tell("end", f"trial {number}, ensemble of trials {named}: {metric} {trial.values[0]:.4f}, {alone}; {cost}{price}")


def beats(evidence: Evidence, trial: Trial, best: Trial) -> bool:
    """Whether a trial is better than the best one beyond what the noise of the validation examples could have made."""
    ahead = trial.values[0] - best.values[0]
    return (ahead > 0 if evidence.maximise else ahead < 0) and not evidence.ties(trial, best)


def _known(store: RunFolder, trials: Sequence[Trial]) -> Mapping[int, tuple[np.ndarray, np.ndarray]]:
    """Return predictions and targets by trial where the weights are kept, too; the files of others are dropped."""
    found = {}
    for trial in trials:
        file = scores_file(store, trial.number)
        if not file.exists():
            continue
        if not store.artifact(trial.number).exists():
            file.unlink(missing_ok=True)
            continue
        with np.load(file, allow_pickle=False) as kept:
            found[trial.number] = kept["scores"], kept["targets"]
    shapes = Counter((one.shape, two.tobytes()) for one, two in found.values())
    usual = shapes.most_common(1)[0][0] if shapes else None
    return {number: pair for number, pair in found.items() if (pair[0].shape, pair[1].tobytes()) == usual}


def _add(
    study: Study,
    task: Task,
    session: Session,
    search: optuna.Study,
    members: Sequence[tuple[Trial, int]],
    trial: Trial,
    scores: np.ndarray,
    targets: np.ndarray,
) -> None:
    """Store the mean of the members, measure its predictions, and tell Optuna."""
    import optuna

    total = sum(count for _, count in members)
    built = [rebuild(one, study=study, task=task, weights=session.folder.artifact(one.number)).model.sklearn for one, _ in members]
    blend = Blend(built, [count / total for _, count in members], 0 if task.kind == "regression" else task.outputs)
    model: Any = SingleEpoch(blend)
    fitted = Fitted(model, trial.epochs, trial.quality, (EpochPoint(trial.epochs, float("nan"), trial.quality),), None)
    sha256 = save_weights(session.folder.artifact(trial.number), fitted, with_checkpoint=False)
    if (examples := Examples.of(study.objectives[0], task.kind, scores, targets)) is not None:
        examples.save(session.folder.examples(trial.number))
    windows: list[Any] = []

    def phases(kind: str, index: int) -> Any:
        windows.append(session.ledger.window(f"{kind} {index}", kind=kind))
        return windows[-1]

    made = predict_for(model, task, Recipe(), "cpu", CPU_INFERENCE_SECONDS[1], phases)
    record = windows[-1].record
    energy = _price([one for one, _ in members], trials=session.folder.run(search).trials)
    if record is not None and record.joules is not None:
        u_joules = record.u_random_joules
        energy = replace(
            energy,
            inference_joules_per_1000=record.joules / made * 1000.0,
            inference_u_joules_per_1000=None if u_joules is None else u_joules / made * 1000.0,
        )
    numbers = [one.number for one, count in members for _ in range(count)]
    artifact = session.folder.artifact(trial.number).name
    trial = replace(trial, energy=energy, artifact=artifact, artifact_sha256=sha256, extra={MEMBERS: numbers})
    values, missing = objective_values(trial, study.objectives)
    if values is None:
        raise RuntimeError(f"an ensemble of complete trials must have all objectives: {missing}")
    attributes = {ATTRIBUTE: trial.facts(), EPOCHS_REACHED: trial.epochs, FINISHED: True}
    search.add_trial(optuna.trial.create_trial(values=list(values), user_attrs=attributes))


def _price(members: Sequence[Trial], trials: Sequence[Trial]) -> TrialEnergy:
    """Return what the members' trainings take from scratch, a lineage once: its longer training has the shorter one in its price.

    Features of the inputs are in the price of every member and computed once for all of them; what is counted beyond that is left out.
    """
    parents = {trial.number: trial.parent for trial in trials}
    within: set[int] = set()
    for one in members:
        above = parents.get(one.number)
        while above is not None:
            within.add(above)
            above = parents.get(above)
    paid = [one for one in members if one.number not in within]
    spreads = [one.train_u_joules for one in paid]
    components: dict[str, ComponentEnergy] = {}
    for one in paid:
        for name, part in one.components.items():
            components[name] = components[name].plus(part) if name in components else part
    features = [one.energy.features_joules for one in paid if one.energy.features_joules is not None]
    total = sum_known(one.train_joules for one in paid)
    once = 1.0 - (sum(features) - max(features, default=0.0)) / total if total else 1.0  # the share that is not counted twice

    def share(value: float | None) -> float | None:
        return None if value is None else value * once

    return TrialEnergy(
        train_joules=share(total),
        train_u_joules=share(None if None in spreads else hypot(*(float(one or 0.0) for one in spreads))),
        increment_joules=0.0,
        grams_co2e=share(sum_known(one.grams_co2e for one in paid)),
        components={
            name: replace(part, joules=share(part.joules), idle_joules=share(part.idle_joules)) for name, part in components.items()
        },
        quality=combined_quality(one.energy_quality for one in paid),
        train_seconds=share(sum_known(one.energy.train_seconds for one in paid)),
        cpu_seconds=share(sum_known(one.energy.cpu_seconds for one in paid)),
        hardware_id=paid[0].hardware_id,
        contended=any(one.energy.contended for one in paid),
    )
