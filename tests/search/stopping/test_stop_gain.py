"""What remains of a budget, in the unit that the sampler compares."""

from types import SimpleNamespace

import pytest

from joulefront.search import Study
from joulefront.search.carbon.intensity import Intensity
from joulefront.search.samplers.marginal_gain import Outlook
from joulefront.search.stopping.stop_gain import Foresight
from joulefront.spaces.mlp import Mlp

FRANCE = Intensity(56.0, "FR", "table")
JOULES, GRAMS = 3600.0, 0.056 * 1.5


def foresight(*objectives: str) -> tuple[Foresight, SimpleNamespace]:
    study = Study(name="s", task=lambda: None, space=Mlp(), objectives=objectives, trials=1)
    sampler = SimpleNamespace(remaining=None)
    return Foresight(study, SimpleNamespace(sampler=sampler), None), sampler


@pytest.mark.parametrize(
    ("objectives", "remaining", "unit"),
    [
        (("accuracy", "train_energy"), JOULES, "1 Wh"),
        (("accuracy", "train_co2"), GRAMS, "3.6e+03 gCO2e"),
        (("accuracy", "inference_energy", "train_energy"), JOULES, "1 Wh"),
        (("accuracy", "parameters", "train_energy"), JOULES, "1 Wh"),
        (("accuracy", "parameters", "train_co2"), GRAMS, "3.6e+03 gCO2e"),
    ],
)
def test_what_remains_is_told_in_the_unit_of_the_training_energy_wherever_it_stands(objectives, remaining, unit):
    view, sampler = foresight(*objectives)
    view.say_what_remains(3600.0, FRANCE, 1.5)
    assert sampler.remaining == pytest.approx(remaining)
    assert view.describe(Outlook(1.0, 0.1, 3600.0, None, None, None)).startswith(unit)


def test_an_overdrawn_budget_leaves_nothing_and_an_unknown_one_says_nothing():
    view, sampler = foresight("accuracy", "train_energy")
    view.say_what_remains(None, FRANCE, 1.0)
    assert sampler.remaining is None
    view.say_what_remains(-5.0, FRANCE, 1.0)
    assert sampler.remaining == 0.0


def test_grams_without_an_intensity_are_no_limit():
    view, sampler = foresight("accuracy", "train_co2")
    view.say_what_remains(3600.0, None, 1.0)
    assert sampler.remaining is None
