"""Importances find what was planted, and are withheld where the trials cannot show them."""

from __future__ import annotations

import random
from typing import Any

import pytest
from helpers.trials import make_trial

from joulefront.search.front import Front
from joulefront.search.report.energy_relations import importance


def planted(n: int, *, noise: float = 0.0, seed: int = 0) -> Front:
    """Accuracy follows lr alone, energy follows width and epochs alone, `dummy` nothing."""
    draw = random.Random(seed)
    trials = []
    for number in range(n):
        params: dict[str, Any] = {"lr": draw.random(), "width": draw.choice([8, 16, 32, 64]), "dummy": draw.choice("abc"), "fixed": 1}
        if number % 2:
            params["only_odd"] = draw.random()
        epochs = draw.choice([1, 3, 9])
        accuracy = 0.9 - (params["lr"] - 0.5) ** 2 if noise == 0 else draw.random()
        joules = params["width"] * epochs * 10.0
        trials.append(make_trial(number, "complete", params, epochs, values=(accuracy, joules), train_joules=joules))
    return Front(tuple(trials), ("accuracy", "train_energy"), ("maximize", "minimize"))


@pytest.mark.slow
def test_the_parameter_that_decides_comes_first() -> None:
    front = planted(60)
    quality = importance(front, "quality")
    assert quality.parameters[0][0] == "lr"
    assert quality.parameters[0][1] > 5 * max(abs(drop) for name, drop, _ in quality.parameters if name != "lr")
    energy = importance(front, "energy")
    assert {name for name, _, _ in energy.parameters[:2]} == {"width", "epochs"}
    assert energy.r2 is not None
    assert energy.r2 > 0.8
    assert "n = 60 trials" in energy.method()


@pytest.mark.slow
def test_a_parameter_that_never_varies_is_left_out_and_one_that_is_not_always_there_stays() -> None:
    names = {name for name, _, _ in importance(planted(40), "energy").parameters}
    assert "fixed" not in names
    assert "only_odd" in names


@pytest.mark.slow
def test_noise_gets_no_ranking() -> None:
    found = importance(planted(40, noise=1.0), "quality")
    assert found.parameters == ()
    assert found.reason is not None
    assert "explain too little" in found.reason


@pytest.mark.slow
def test_a_configuration_is_not_recognised_by_its_other_epochs() -> None:
    draw = random.Random(1)
    trials = []
    for _ in range(12):
        params, accuracy = {"lr": draw.random(), "width": draw.random()}, draw.random()
        for epochs in (1, 3, 9, 27):
            trials.append(make_trial(len(trials), "complete", params, epochs, values=(accuracy, float(epochs)), train_joules=float(epochs)))
    found = importance(Front(tuple(trials), ("accuracy", "train_energy"), ("maximize", "minimize")), "quality")
    assert (found.parameters, found.configurations) == ((), 12)  # pure luck per configuration: nothing to learn


def test_few_configurations_get_no_ranking_however_many_epochs_they_were_measured_at() -> None:
    trials = tuple(make_trial(n, "complete", {"lr": n % 4}, n, values=(0.1 * (n % 7), 1.0 + n), train_joules=1.0 + n) for n in range(30))
    found = importance(Front(trials, ("accuracy", "train_energy"), ("maximize", "minimize")), "quality")
    assert (found.trials, found.configurations, found.parameters) == (30, 4, ())


@pytest.mark.slow
def test_the_same_trials_give_the_same_ranking() -> None:
    assert importance(planted(30), "energy") == importance(planted(30), "energy")


def test_a_target_without_spread_and_a_space_without_parameters_give_a_reason() -> None:
    same = tuple(make_trial(n, "complete", {"lr": n}, 1, values=(0.5, 2.0), train_joules=2.0) for n in range(10))
    assert (
        importance(Front(same, ("accuracy", "train_energy"), ("maximize", "minimize")), "energy").reason == "all trials have the same value"
    )
    assert importance(Front((), ("accuracy", "train_energy"), ("maximize", "minimize")), "energy").configurations == 0
