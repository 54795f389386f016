"""Tactics after training: only a measured saving is a saving, and the optimisation has to be paid for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from joulefront.search.export.compress import AfterTraining, Spent, compare_after_training, pruned, quantised
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


@pytest.mark.parametrize("meter", [Meter(None, None, None), Meter(1.0, 0.5, 0.5, u=None)])
def test_unknown_energy_or_uncertainty_claims_nothing(trained, meter):
    rows = compare_after_training(**trained, measure=meter, compile_model=False, rounds=2)
    assert all(row.saving_joules is None and row.break_even_predictions is None for row in rows)


def test_a_tactic_that_does_not_fit_says_why():
    with pytest.raises(ValueError, match="no linear or recurrent layer"):
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
