"""Stopping dominated trainings: one training at its rungs, and a whole study."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
from helpers.trials import make_trial

from joulefront.search import Study
from joulefront.search.records.run_folder import RunFolder
from joulefront.search.running.run import run
from joulefront.search.stopping.projection import ENOUGH, DominanceStopper
from joulefront.search.training.arrays import arrays
from joulefront.spaces.mlp import Mlp
from joulefront.spaces.recipes import RecipeRanges


@pytest.fixture(scope="module")
def study():
    import numpy as np

    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(256, 4)).astype("float32")
    labels = (inputs[:, 0] * inputs[:, 1] > 0).astype("int64")
    recipe = RecipeRanges(learning_rate=(1e-6, 3e-2), weight_decay=1e-3, batch_size=64, threads=1)
    space = Mlp(depths=(1, 1), widths=(4, 32), norms="none", activations="relu", dropouts=0.0, recipe=recipe)
    task = arrays(inputs, labels, name="product", validation_share=0.25, test_share=0.0, seed=0)
    return Study(name="net", task=task, space=space, rungs=(1, 3, 9), sampler="random", seed=0, stop_dominated=True)


def phase(kind, joules):
    return SimpleNamespace(kind=kind, joules=joules)


def test_freeze_thaw_stops_dominated_trainings_and_the_others_do_on_request(study):
    assert replace(study, sampler="freeze-thaw", stop_dominated=None).stops_dominated
    assert not replace(study, sampler="tpe", stop_dominated=None).stops_dominated
    assert replace(study, stop_dominated=False).rungs_to_check(0, 9) == ()


def test_only_the_rungs_between_start_and_end_are_checked(study):
    assert study.rungs_to_check(0, 9) == (1, 3)
    assert study.rungs_to_check(1, 9) == (3,)
    assert study.rungs_to_check(3, 9) == ()


def test_studies_with_more_objectives_than_quality_and_energy_are_not_checked(study):
    assert replace(study, objectives=("accuracy", "train_energy", "parameters")).rungs_to_check(0, 9) == ()


def test_an_epoch_with_unknown_energy_or_without_quality_is_not_checked(study):
    seen = [
        make_trial(k, "complete", {}, 9, quality={"accuracy": 0.9}, train_joules=1.0, curve=({"epoch": 1, "accuracy": 0.5},))
        for k in range(ENOUGH)
    ]
    known = DominanceStopper(study, lambda: seen, 9, None, lambda: [phase("setup", 1.0), phase("epoch", 5.0)])
    assert known.reason({"epoch": 1, "accuracy": 0.1}) is None  # no training was measured at rung 3: nothing is known of it
    seen = [replace(trial, curve=(*trial.curve, {"epoch": 3, "accuracy": 0.6})) for trial in seen]
    assert known.reason({"epoch": 1, "accuracy": 0.1}) is not None
    assert known.reason({"epoch": 1}) is None
    assert known.reason({"epoch": 2, "accuracy": 0.1}) is None
    unknown = replace(known, phases=lambda: [phase("setup", 1.0), phase("epoch", None)])
    assert unknown.reason({"epoch": 1, "accuracy": 0.1}) is None


def test_a_training_that_ends_between_two_rungs_is_credited_with_the_upper_one_for_the_energy_of_its_end(study, monkeypatch):
    asked = []
    monkeypatch.setattr("joulefront.search.stopping.projection.stop_reason", lambda error, epoch, ahead, *a, **k: asked.append(ahead))
    net = DominanceStopper(
        study, list, 6, None, lambda: [phase("setup", 1.0), phase("epoch", 5.0), phase("epoch", 2.0), phase("epoch", 2.0)]
    )
    net.reason({"epoch": 3, "accuracy": 0.1})
    assert asked == [{9: 1.0 + 5.0 + 2.0 + 2.0 + 3 * 2.0}]


@pytest.mark.slow
def test_in_a_real_study_a_stopped_training_is_a_measured_point_at_the_rung_where_it_ended(study, tmp_path, monkeypatch):
    """Which trainings are stopped is a matter of energies, which are chance in trainings this small: here all are, at the second rung."""
    asked = []

    def verdict(error, epoch, rungs_ahead, trials, metric, *, maximize, complete_epochs):
        asked.append((epoch, rungs_ahead))
        return "dominated after epoch 3" if epoch == 3 else None

    monkeypatch.setattr("joulefront.search.stopping.projection.stop_reason", verdict)
    run(study, out=tmp_path / "net", trials=12, meter="cpu_time", device="cpu")
    trials = RunFolder.open(tmp_path / "net").run().trials
    stopped = [trial for trial in trials if trial.reason]
    assert stopped
    for trial in stopped:
        assert (trial.state, trial.epochs, trial.reason) == ("complete", 3, "dominated after epoch 3")
        assert trial.train_joules is not None
        assert trial.quality["accuracy"] is not None
        assert [point["epoch"] for point in trial.curve] == [1, 2, 3]
        assert all(point["joules"] >= 0 for point in trial.curve)
    assert max(trial.epochs for trial in trials if not trial.is_default) == 3  # no better model ends the default model
    # what lies ahead is projected, and costs more the further it is
    for epoch, ahead in asked:
        assert all(epoch < rung <= 9 for rung in ahead)
        assert list(ahead.values()) == sorted(ahead.values())
