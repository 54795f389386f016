"""The picked model is trained again on all but the test split, and its price and worth are said."""

import json
from dataclasses import replace

import numpy as np
import pytest

from joulefront.search.export import export, load_model
from joulefront.search.export.variants import Refit, refit
from joulefront.search.records.bill import Bill
from joulefront.search.records.run_folder import Run
from joulefront.search.training.fit import fit
from joulefront.spaces.mlp import Mlp
from joulefront.spaces.recipes import FIXED


@pytest.mark.slow
def test_a_refit_learns_from_all_but_the_test_split_which_checks_it(make, tmp_path):
    ready = make("forest", "rows")
    given = {name: ready.arguments[name] for name in ("study", "task", "weights")}
    trial, task, weights, done = refit(ready.arguments["trial"], **given, folder=tmp_path)
    old = ready.task
    assert len(task.train) == done.examples == len(old.train) + len(old.validation)
    assert np.array_equal(task.validation.arrays()[0], old.test.arrays()[0])
    assert task.test is None  # else the same rows would be two splits of the card
    assert weights.is_file()
    assert trial.artifact_sha256 != ready.arguments["trial"].artifact_sha256
    assert 0 < done.before <= 1
    assert done.after == pytest.approx(trial.quality["accuracy"])
    assert trial.train_joules == done.joules
    assert trial.inference_joules_per_1000 is None
    space = Mlp(recipe=FIXED)
    network = make("mlp", "rows", space=space, params=dict(space.defaults()), epochs=1)
    given = {name: network.arguments[name] for name in ("study", "task", "weights")}
    trial, task, weights, done = refit(network.arguments["trial"], **given, folder=tmp_path)
    export(trial, study=network.study, task=task, weights=weights, to="safetensors", out=tmp_path / "net", refit=done)
    assert sum(len(one) for one in load_model(tmp_path / "net").parameters()) > 0


@pytest.mark.slow
def test_the_card_of_a_refit_has_its_own_energy_and_calls_the_test_rows_by_their_name(make, tmp_path):
    ready = make("forest", "rows").but(inference_joules_per_1000=4.5)
    given = {"study": ready.study, "task": ready.task, "weights": ready.weights}
    place = {"intensity": {"grams_per_kwh": 100.0, "zone": "FR"}, "pue": 2.0}
    run = Run("small", tmp_path, ("accuracy", "train_energy"), ("maximize", "minimize"), (1,), (), Bill(), place)
    trial, task, weights, done = refit(ready.trial, **given, folder=tmp_path, meter="cpu_time", run=run)
    assert done.joules is not None
    assert trial.grams_co2e == pytest.approx(done.joules / 3.6e6 * 200)
    out, given = tmp_path / "model", {**given, "task": task, "weights": weights}
    exported = export(trial, **given, to="skops", out=out, run=run, refit=done)
    assert {"refit.json"} <= set(exported.files) == {file.name for file in out.iterdir()}
    assert f"checked on {len(task.validation)} test examples" in " ".join(exported.summary().split())
    text = (out / "README.md").read_text()
    assert text.count("| test (never seen by the search) | 464 | Accuracy |") == 1
    assert "| validation" not in text
    assert "split: validation" not in text
    assert f"**{done.joules:.4g} J**" in text
    assert "1,000 predictions" not in text
    assert "trained again on the training and validation examples: refitted on 1,333 examples" in text
    export(**ready.arguments, to="skops", out=out)
    assert not (out / "refit.json").exists()  # it is of another model


def test_a_schedule_keeps_the_horizon_of_the_search(make, tmp_path, monkeypatch):
    ready, asked = make("mlp", "rows"), []
    monkeypatch.setattr("joulefront.search.export.variants.fit", lambda *given, **how: asked.append(how["epochs"]) or fit(*given, **how))
    trial = replace(ready.trial, epochs=1, extra={"asked_epochs": 3})
    refit(trial, study=ready.study, task=ready.task, weights=ready.weights, folder=tmp_path, meter="cpu_time")
    assert asked == [3]


def test_without_a_test_split_it_is_refused(make, tmp_path):
    ready = make("forest", "rows")
    with pytest.raises(ValueError, match="--refit needs a test split"):
        refit(ready.arguments["trial"], study=ready.study, task=replace(ready.task, test=None), weights=ready.weights, folder=tmp_path)


def test_refit_and_card_look_at_the_quality_of_the_study(make, tmp_path):
    ready = make("forest", "rows")
    given = {"study": replace(ready.study, objectives=("balanced_accuracy", "train_energy")), "task": ready.task, "weights": ready.weights}
    trial, task, weights, done = refit(ready.trial, **given, folder=tmp_path)
    assert done.metric == "balanced_accuracy"
    assert done.after == pytest.approx(trial.quality["balanced_accuracy"])
    assert "test balanced_accuracy" in done.to_text()
    exported = export(trial, **{**given, "task": task, "weights": weights}, to="skops", out=tmp_path / "model", refit=done)
    assert exported.check.metric == "balanced_accuracy"
    assert exported.check.quality_model == pytest.approx(done.after)
    assert "balanced_accuracy" in exported.summary()
    assert json.loads((tmp_path / "model" / "config.json").read_text())["task"]["metric"] == "balanced_accuracy"


def test_less_of_an_error_is_better():
    assert "better" in Refit(700, 200, "error", 0.06, 0.0, 3.6).to_text()
    assert "worse" in Refit(700, 200, "error", 0.06, 0.3, 3.6).to_text()


@pytest.mark.parametrize(("after", "said"), [(0.95, "tie"), (1.0, "better"), (0.7, "worse")])
def test_what_noise_could_have_made_is_called_a_tie(after, said):
    assert said in Refit(700, 200, "accuracy", 0.94, after, 3.6).to_text()
    assert "of energy" in Refit(700, 200, "r2", 0.94, 0.95, None).to_text()
