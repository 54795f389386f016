"""The last trial of a table's search: an ensemble where it is better, priced once, exported as one graph; else a sentence."""

from __future__ import annotations

import json
from unittest.mock import patch

import numpy as np
import pandas as pd
import pytest
from helpers.trials import complete

from joulefront.search.export.model import ExportFailed
from joulefront.search.export.variants import refit
from joulefront.search.export.write import export
from joulefront.search.records.run_folder import RunFolder
from joulefront.search.records.trial import ComponentEnergy
from joulefront.search.report.page import report_html
from joulefront.search.report.table import model_text
from joulefront.search.running.ensemble import _price
from joulefront.search.running.repeat import repeat
from joulefront.search.running.run import load, run
from joulefront.studies.table import study as table_study


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run of a small table whose ensemble counts as better whatever its noise, and what it has reported."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({name: rng.normal(size=240) for name in "abcd"})
    frame["kind"] = rng.choice(["x", "y", "z"], 240)
    noise = rng.normal(scale=1.5, size=240)
    frame["class"] = np.where(frame["a"] * frame["b"] + frame["c"] + (frame["kind"] == "x") + noise > 0.4, "yes", "no")
    out, said = tmp_path_factory.mktemp("ensemble") / "run", []
    study = table_study(frame, "class", folds=0, validation_share=0.4, pretrained="no")
    with patch("joulefront.search.running.ensemble.beats", lambda *given: True):
        run(study, out=out, trials=7, meter="cpu_time", device="cpu", listener=lambda event: said.append(event.message))
    return study, out, said


@pytest.mark.slow
def test_the_ensemble_is_a_trial_whose_price_is_that_of_its_members_and_which_nobody_pays_again(made):
    study, out, said = made
    store = RunFolder.open(out)
    (found,) = [trial for trial in store.run().trials if trial.members] or [None]
    assert found is not None, said
    members = {trial.number: trial for trial in store.run().trials if trial.number in found.members}
    assert 2 <= len(members) <= 5
    assert found.increment_joules == 0.0
    assert found.params == {"family": "ensemble"}
    assert max(one.train_joules for one in members.values()) < found.train_joules
    assert found.train_joules <= sum(one.train_joules for one in members.values()) + 1e-9
    assert found.inference_joules_per_1000 > 0
    assert any(f"trial {found.number}, ensemble of trials" in line for line in said)
    front = load(out)
    assert found.number in {trial.number for trial in front.trials}
    assert "ensemble, of trials " in model_text(found)
    report_html(store.run(), out.parent / "page.html")
    assert "ensemble" in (out.parent / "page.html").read_text()
    with pytest.raises(ValueError, match="an ensemble is not trained again"):
        repeat(study, out, pick=f"trial={found.number}", times=2, meter="cpu_time")


@pytest.mark.slow
def test_it_is_exported_as_one_graph_that_predicts_raw_rows_and_refused_where_it_cannot_be(made, tmp_path):
    study, out, _ = made
    store = RunFolder.open(out)
    found = next(trial for trial in store.run().trials if trial.members)
    task, weights = study.load_task(), store.artifact(found.number)
    done = export(found, study=study, task=task, weights=weights, to="onnx", out=tmp_path / "model", run=store.run())
    assert done.check.fault is None
    assert done.check.raw_max_abs_difference < 1e-4
    assert json.loads((tmp_path / "model" / "config.json").read_text())["joulefront"]["file"] == "model.onnx"
    with pytest.raises(ExportFailed, match="ensemble, which --to skops does not write"):
        export(found, study=study, task=task, weights=weights, to="skops", out=tmp_path / "other")
    with pytest.raises(ValueError, match=r"trial [0-9]+ is an ensemble; --pick trial=N of its members"):
        refit(found, study=study, task=task, weights=weights, folder=tmp_path)


@pytest.mark.slow
def test_a_continued_search_goes_on_beside_an_ensemble_and_one_within_noise_is_not_added(made):
    study, out, _ = made
    said: list[str] = []
    with patch("joulefront.search.running.ensemble.beats", lambda *given: False):
        run(study, out=out, trials=9, meter="cpu_time", device="cpu", listener=lambda event: said.append(event.message))
    trials = RunFolder.open(out).run().trials
    assert len(trials) == 9
    assert sum(bool(trial.members) for trial in trials) == 1
    assert any(line.startswith("no ensemble: ") and "beyond noise" in line for line in said)


def test_features_of_the_inputs_are_in_the_price_of_an_ensemble_once_and_its_idle_part_is_that_of_all_members():
    members = [
        complete(
            k,
            0.9,
            joules,
            features_joules=10.0,
            train_u_joules=k + 3.0,
            grams_co2e=joules / 10,
            components={"cpu": ComponentEnergy(joules, how, "m", idle)},
        )
        for k, joules, how, idle in ((0, 12.0, "measured", 3.0), (1, 13.0, "estimated", 4.0))
    ]
    found = _price(members, members)
    assert found.train_joules == pytest.approx(10.0 + 2.0 + 3.0)
    assert found.train_u_joules == pytest.approx(5.0 * 15 / 25)
    assert found.grams_co2e == pytest.approx(1.5)
    assert found.components["cpu"].joules == pytest.approx(15.0)
    assert found.components["cpu"].idle_joules == pytest.approx(7.0 * 15 / 25)
    assert found.components["cpu"].quality == "mixed"
