"""Tactics after training: only a measured saving is a saving, and the optimisation itself is paid for."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from joulefront.search.energy import Ledger
from joulefront.search.energy.sources.cpu_time import CpuTime
from joulefront.search.export import compress
from joulefront.search.export.compress import (
    AfterTraining,
    BrokenOff,
    Spent,
    compare_after_training,
    metered,
    on_front,
    optimise,
    pruned,
    quantised,
    to_json,
    to_text,
)
from joulefront.search.export.model import ExportFailed
from joulefront.search.space import FixedTrial
from joulefront.search.training.checkpoint import load_weights


class Meter:
    """Answers with given joules per prediction in turns, the second round ``drift`` higher than the first."""

    def __init__(self, *per_prediction: float | None, u: float | None = 0.0, optimisation: float = 6.0, drift: float = 0.0) -> None:
        self.joules, self.u, self.optimisation, self.drift, self.asked = per_prediction, u, optimisation, drift, 0

    def __call__(self, work: Callable[[], int], *, repeat: bool) -> Spent:
        count = work()
        if not repeat:
            return Spent(self.optimisation, 0.0, count)
        turn, which = divmod(self.asked, len(self.joules))
        self.asked += 1
        joules = self.joules[which]
        return Spent(None if joules is None else (joules + self.drift * turn) * count, None if self.u is None else self.u * count, count)


@pytest.fixture
def trained(make) -> dict[str, Any]:
    ready = make("mlp", "rows", width=32)
    candidate = ready.study.space.sample(FixedTrial(ready.trial.params))
    model = load_weights(ready.weights, ready.study.space.build(candidate, ready.task))
    return {"model": model, "task": ready.task, "data": ready.task.validation, "recipe": candidate.recipe}


def test_the_model_itself_keeps_its_quality_and_is_not_changed(make, trained):
    before = {name: tensor.clone() for name, tensor in trained["model"].state_dict().items()}
    rows = compare_after_training(**trained, measure=Meter(1.0, 1.0, 1.0), compile_model=False, rounds=2)
    assert [row.tactic for row in rows] == ["none", "dynamic quantisation", "global prune 0.5"]
    assert rows[0].quality == pytest.approx(make("mlp", "rows", width=32).trial.quality["accuracy"], abs=1e-6)
    assert abs(rows[1].quality - rows[0].quality) < 0.05
    assert all(torch.equal(before[name], tensor) for name, tensor in trained["model"].state_dict().items())


def test_pruning_that_measures_no_saving_is_not_reported_as_one(trained):
    rows = compare_after_training(**trained, measure=Meter(0.010, 0.010, 0.0099, u=0.0001), compile_model=False, rounds=2)
    assert rows[2].saving_joules is None
    assert rows[2].break_even_predictions is None


def test_a_saving_smaller_than_the_scatter_of_the_rounds_is_not_reported(trained):
    rows = compare_after_training(**trained, measure=Meter(0.010, 0.009, 0.002, drift=0.001), compile_model=False, rounds=2)
    assert rows[1].saving_joules is None
    assert rows[2].saving_joules == pytest.approx(0.008)


def test_a_saving_pays_back_after_as_many_predictions_as_the_optimisation_cost(trained):
    rows = compare_after_training(**trained, measure=Meter(0.010, 0.007, 0.012, optimisation=6.0), compile_model=False, rounds=2)
    assert rows[1].saving_joules == pytest.approx(0.003)
    assert rows[1].break_even_predictions in (2000, 2001)  # 6 J / 0.003 J, rounded up
    assert rows[2].saving_joules == pytest.approx(-0.002)
    assert rows[2].break_even_predictions is None


def test_what_the_measurement_cost_is_said_for_every_tactic(trained):
    rows = compare_after_training(**trained, measure=Meter(0.010, 0.007, 0.012, optimisation=6.0), compile_model=False, rounds=2)
    assert all(row.measuring_joules is not None and row.measuring_joules > 0 for row in rows)
    said = " ".join(to_text(rows, "accuracy", "measured").split())
    assert re.search(r"Finding this out has cost [\d.]+ m?Wh: none [\d.]+, dynamic quantisation [\d.]+, global prune 0\.5 [\d.]+\.", said)
    unknown = compare_after_training(**trained, measure=Meter(None, None, None), compile_model=False, rounds=2)
    assert "Finding this out" not in to_text(unknown, "accuracy", "absent")


@pytest.mark.parametrize("moment", range(14))
def test_what_was_measured_until_ctrl_c_is_kept(trained, moment):
    class Interrupted(Meter):
        left = moment

        def __call__(self, work, *, repeat):
            self.left -= 1
            if self.left < 0:
                raise KeyboardInterrupt
            return super().__call__(work, repeat=repeat)

    # 2 tactics are applied, 3 models scored, and each predicts in 3 rounds.
    arguments = {**trained, "measure": Interrupted(4.0, 1.0, 1.0), "compile_model": False, "rounds": 3}
    with pytest.raises(BrokenOff) as broken:
        compare_after_training(**arguments)
    rows = broken.value.rows
    assert [row.tactic for row in rows] == ["none", "dynamic quantisation", "global prune 0.5"]
    assert [row.reason for row in rows].count("interrupted") == max(0, 2 - moment)
    assert sum(row.quality is not None for row in rows) == min(3, max(0, moment - 2))
    assert sum(row.joules_per_prediction is not None for row in rows) == min(3, max(0, moment - 5))
    assert sum(row.u_joules_per_prediction is not None for row in rows) == min(3, max(0, moment - 8)), "one window has no scatter"
    text = to_text(rows, "accuracy", "estimated")
    assert "has cost" in text
    assert moment > 5 or not re.search("none seen|never", text), "what was not measured was not seen to save nothing"
    assert len(json.loads(to_json(rows, "estimated"))["tactics"]) == 3


@pytest.mark.parametrize("meter", [Meter(None, None, None), Meter(1.0, 0.5, 0.5, u=None)])
def test_unknown_energy_or_uncertainty_claims_nothing(trained, meter):
    rows = compare_after_training(**trained, measure=meter, compile_model=False, rounds=2)
    assert all(row.saving_joules is None and row.break_even_predictions is None for row in rows)


def test_a_tactic_that_does_not_fit_has_a_reason():
    with pytest.raises(ValueError, match="must have a linear or recurrent layer"):
        quantised(torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3)))


def test_a_tactic_that_fails_is_a_row_with_its_reason(trained, monkeypatch):
    def refuse(model: Any) -> Any:
        raise RuntimeError("no kernel for this processor\nlong story")

    monkeypatch.setattr("joulefront.search.export.compress.quantised", refuse)
    rows = compare_after_training(**trained, measure=Meter(1.0, 1.0), compile_model=False, rounds=2)
    assert rows[1] == AfterTraining("dynamic quantisation", reason="no kernel for this processor")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_pruning_takes_the_smallest_weights_over_all_layers(share):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(20, 30), torch.nn.Linear(30, 5))
    before = torch.cat([layer.weight.detach().abs().flatten() for layer in model])
    biases = [layer.bias.clone() for layer in model]
    after = torch.cat([layer.weight.detach().abs().flatten() for layer in pruned(model, share)])
    gone = after == 0
    assert gone.float().mean() == pytest.approx(share, abs=1 / len(before))
    assert before[gone].max() <= before[~gone].min()
    assert all(torch.equal(bias, layer.bias) for bias, layer in zip(biases, model, strict=True))


@pytest.mark.parametrize("share", [0.0, 1.0, 50.0])
def test_a_share_outside_0_to_1_is_refused(trained, share):
    with pytest.raises(ValueError, match=r"shares of the weights in \(0, 1\), got"):
        compare_after_training(**trained, measure=Meter(1.0), prune=(share,))


def test_one_round_is_refused(trained):
    with pytest.raises(ValueError, match="rounds must be >= 2, got 1"):
        compare_after_training(**trained, measure=Meter(1.0), rounds=1)


SAVES = AfterTraining("dynamic quantisation", 0.95, 0.006, 0.0001, 8.0, 0.004)
PLAIN = AfterTraining("none", 0.95, 0.010, 0.0001, 0.0)


@pytest.fixture
def short_windows(monkeypatch):
    """CPU-seconds are known to the nanosecond: what is measured needs no half a second."""
    monkeypatch.setattr(compress, "WINDOW_SECONDS", 0.05)


@pytest.mark.slow
def test_a_real_model_is_optimised_and_metered(make, short_windows):
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
    plain = ["none", "dynamic quantisation", "global prune 0.3", "global prune 0.9"]
    assert [row.tactic for row in rows] == [*plain, "bfloat16", "onnx", "onnx int8"]
    assert all(abs(row.quality - rows[0].quality) < 0.03 for row in rows[4:])
    assert quality == "estimated"
    assert all(row.joules_per_prediction > 0 and row.u_joules_per_prediction > 0 for row in rows)
    assert rows[0].quality >= rows[3].quality
    assert all(row.optimisation_joules > 0 for row in rows[1:])


def test_an_estimator_is_refused_with_the_reason(make):
    ready = make("forest", "rows")
    with pytest.raises(ExportFailed, match="are for networks; --pick one"):
        optimise(ready.trial, study=ready.study, task=ready.task, weights=ready.weights, meter="cpu_time")


def test_predictions_are_repeated_until_the_meter_sees_them_and_an_optimisation_is_not():
    with Ledger([CpuTime()]) as ledger:
        measure = metered(ledger)
        once = measure(lambda: 10, repeat=False)
        often = measure(lambda: len([x * x for x in range(20_000)]), repeat=True)
    assert once.predictions == 10
    assert often.predictions >= 40_000
    assert often.joules > once.joules


def test_the_table_shows_what_is_saved_and_when_it_has_paid():
    text = to_text([PLAIN, SAVES, AfterTraining("compile", reason="no compiler")], "accuracy", "measured")
    none, quantised, compiled = text.splitlines()[2:5]
    assert max(map(len, text.splitlines())) <= 80
    assert quantised.startswith("*")
    assert "saves" in text.splitlines()[0]
    assert none.split()[:3] == ["none", "0.9500", "10.0"]  # as good as the other one, which takes less
    assert "40%" in quantised
    assert quantised.endswith(" 2,000")
    assert text.splitlines()[0].endswith("pays after")
    assert compiled.endswith("no compiler")
    assert "predictions are measured" in text


@pytest.mark.parametrize(("metric", "quality"), [("r2", 0.9512), ("balanced_accuracy", 0.9512), ("rmse", 98_805_120.5)])
@pytest.mark.parametrize("predictions", [2e3, 2e11])
def test_the_table_is_never_wider_than_a_terminal(metric, quality, predictions):
    pays = AfterTraining("dynamic quantisation", quality, 0.000123456, 0.0000001234, 1e-4 * predictions, 1e-4)
    rows = [PLAIN, pays, AfterTraining("onnx int8", 0.95, 0.012, 0.0001234, 30.1), AfterTraining("compile", reason="no compiler is here")]
    text = to_text(rows, metric, "estimated")
    assert max(map(len, text.splitlines())) <= 80
    assert "no compiler is here" in text
    assert metric in text


def test_what_is_lost_or_not_seen_never_pays():
    worse = AfterTraining("compile", 0.95, 0.012, 0.0001, 30.0, -0.002)
    unseen = AfterTraining("global prune 0.5", 0.94, 0.0101, 0.0001, 1.0)
    lines = to_text([PLAIN, worse, unseen], "accuracy", "measured").splitlines()
    assert "-20%" in lines[3]
    assert lines[3].endswith("never")
    assert "none seen" in lines[4]
    assert lines[4].endswith("never")


def test_json_holds_every_row_with_its_break_even():
    found = json.loads(to_json([PLAIN, SAVES], "estimated"))
    assert found["energy_quality"] == "estimated"
    assert [row["break_even_predictions"] for row in found["tactics"]] == [None, 2000]


@pytest.mark.slow
def test_what_runs_on_the_cpu_is_not_billed_for_gpus(make, fake_gpus, short_windows):
    ready = make("mlp", "rows", width=32)
    fake_gpus(4)
    arguments = {"study": ready.study, "task": ready.task, "weights": ready.weights, "prune": (), "compile_model": False, "rounds": 2}
    rows, quality = optimise(ready.trial, meter="nvml,cpu_time", **arguments)
    assert quality == "estimated"  # four idle GPUs of 200 W that counted would make it mixed
    assert all(row.joules_per_prediction < 0.01 for row in rows)


def test_the_second_front_has_what_is_better_or_clearly_cheaper():
    rows = [
        AfterTraining("none", 0.95, 0.010, 0.0001),
        AfterTraining("cheaper and worse", 0.94, 0.004, 0.0001),
        AfterTraining("as cheap, as good", 0.94, 0.00401, 0.0001),
        AfterTraining("dearer and worse", 0.93, 0.012, 0.0001),
        AfterTraining("within the noise of none, and worse", 0.945, 0.0099, 0.0001),
        AfterTraining("unknown", 0.99, None),
        AfterTraining("does not fit", reason="no compiler"),
    ]
    assert on_front(rows) == (True, True, True, False, False, False, False)
    errors = [replace(row, quality=None if row.quality is None else 1.0 - row.quality) for row in rows]
    assert on_front(errors, "error") == on_front(rows)
    assert [one["on_front"] for one in json.loads(to_json(errors, "measured", "error"))["tactics"]] == list(on_front(rows))


def test_tactics_are_scored_by_the_quality_of_the_study(make, trained):
    rows = compare_after_training(**trained, measure=Meter(1.0, 1.0), compile_model=False, rounds=2, prune=(), metric="balanced_accuracy")
    assert rows[0].quality == pytest.approx(make("mlp", "rows", width=32).trial.quality["balanced_accuracy"], abs=1e-6)
