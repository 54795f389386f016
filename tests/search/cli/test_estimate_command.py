"""What is estimated is the study that would run."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from joulefront.search.execution.probe import Probe
from joulefront.search.running.estimate import Overhead


@pytest.fixture
def probed(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Studies that were probed, without a meter: every candidate costs 2 J an epoch."""
    seen: list[Any] = []

    def probe_study(study: Any, **options: Any) -> Any:
        seen.append(study)
        return [Probe({}, 2.0, 0.1, 0.0)] * 4, Overhead(0.0, 0.0), 1.0

    monkeypatch.setattr("joulefront.search.running.estimate.probe_study", probe_study)
    return seen


@pytest.mark.parametrize(
    ("words", "joules"),
    [
        (["--budget", "20gCO2e", "--intensity", "50"], 20 / 50 * 3.6e6),
        (["--budget", "20gCO2e", "--intensity", "50", "--pue", "1.25"], 20 / 62.5 * 3.6e6),
        (["--budget", "1EUR", "--price", "0.25EUR"], 4 * 3.6e6),
    ],
)
def test_a_budget_in_grams_or_money_is_estimated_as_it_would_be_spent(
    call: Callable[..., Any], rings_file: Callable[[str], Path], probed: list[Any], words: list[str], joules: float
) -> None:
    said = call("estimate", rings_file("fine"), *words, "--json")
    assert said.code == 0, said.err
    assert json.loads(said.out)["joules"] == pytest.approx(joules)


def test_the_study_that_is_estimated_is_the_one_that_would_run(
    call: Callable[..., Any], rings_file: Callable[[str], Path], probed: list[Any]
) -> None:
    words = ["--trials", 5, "--sampler", "tpe", "--objectives", "accuracy,train_energy,parameters", "--seed", 3]
    assert call("estimate", rings_file("fine"), *words).code == 0
    (study,) = probed
    assert (study.sampler, study.objectives[-1], study.seed) == ("tpe", "parameters", 3)


def test_a_study_is_told_its_own_options(call: Callable[..., Any], rings_file: Callable[[str], Path], probed: list[Any]) -> None:
    path = rings_file("fine")
    path.write_text(
        path.read_text().replace("def study(seed=0):", "def study(seed=0, trials: int = 6):").replace("trials=6", "trials=trials")
    )
    assert call("estimate", path, "--set", "trials=9").code == 0
    assert probed[0].trials == 9


def test_a_budget_in_grams_without_a_place_names_options_that_there_are(
    call: Callable[..., Any], rings_file: Callable[[str], Path], probed: list[Any]
) -> None:
    said = call("estimate", rings_file("fine"), "--budget", "20gCO2e")
    assert said.code == 2
    assert "--zone" in said.err
    help_text = call("estimate", "--help").out
    assert "--zone" in help_text
    assert "--intensity" in help_text
    assert probed == []
