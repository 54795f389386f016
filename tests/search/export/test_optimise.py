"""The verb that shows what quantising, compiling and pruning saves: each joule from the ledger, each saving beyond its doubt."""

from __future__ import annotations

import json

import pytest

from joulefront.search.energy import Ledger
from joulefront.search.energy.sources.cpu_time import CpuTime
from joulefront.search.export.compress import AfterTraining, metered, optimise, to_json, to_text
from joulefront.search.export.model import ExportFailed

SAVES = AfterTraining("dynamic quantisation", 0.95, 0.006, 0.0001, 8.0, 0.004)
PLAIN = AfterTraining("none", 0.95, 0.010, 0.0001, 0.0)


def test_a_real_model_is_optimised_and_metered(make):
    ready = make("mlp", "rows", width=32)
    rows, quality = optimise(
        ready.trial,
        study=ready.study,
        task=ready.task,
        weights=ready.weights,
        meter="cpu_time",
        prune=(0.3, 0.9),
        compile_model=False,
        rounds=2,
    )
    assert [row.tactic for row in rows] == ["none", "dynamic quantisation", "global prune 0.3", "global prune 0.9"]
    assert quality == "estimated"
    assert all(row.joules_per_prediction > 0 and row.u_joules_per_prediction > 0 for row in rows)
    assert rows[0].quality >= rows[3].quality
    assert all(row.optimisation_joules > 0 for row in rows[1:])


def test_an_estimator_is_refused_with_the_reason(make):
    ready = make("forest", "rows")
    with pytest.raises(ExportFailed, match="are for PyTorch models"):
        optimise(ready.trial, study=ready.study, task=ready.task, weights=ready.weights, meter="cpu_time")


def test_predictions_are_repeated_until_the_meter_sees_them_and_an_optimisation_is_not():
    with Ledger([CpuTime()]) as ledger:
        measure = metered(ledger)
        once = measure(lambda: 10, repeat=False)
        often = measure(lambda: len([x * x for x in range(20_000)]), repeat=True)
    assert once.predictions == 10
    assert often.predictions >= 40_000
    assert often.joules > once.joules


def test_the_table_says_what_is_saved_and_when_it_has_paid():
    text = to_text([PLAIN, SAVES, AfterTraining("compile", reason="no compiler")], "accuracy", "measured")
    none, quantised, compiled = text.splitlines()[2:5]
    assert "saves" in text.splitlines()[0]
    assert none.split()[:3] == ["none", "0.9500", "10.0"]
    assert "40%" in quantised
    assert quantised.endswith("2,000 predictions")
    assert compiled.endswith("no compiler")
    assert "predictions are measured" in text


def test_what_is_lost_or_not_seen_never_pays():
    worse = AfterTraining("compile", 0.95, 0.012, 0.0001, 30.0, -0.002)
    unseen = AfterTraining("global prune 0.5", 0.94, 0.0101, 0.0001, 1.0)
    lines = to_text([PLAIN, worse, unseen], "accuracy", "measured").splitlines()
    assert "-20%" in lines[3]
    assert lines[3].endswith("never")
    assert "nothing seen" in lines[4]
    assert lines[4].endswith("never")


def test_json_holds_every_row_with_its_break_even():
    found = json.loads(to_json([PLAIN, SAVES], "estimated"))
    assert found["energy_quality"] == "estimated"
    assert [row["break_even_predictions"] for row in found["tactics"]] == [None, 2000]
