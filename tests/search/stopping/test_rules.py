"""What remains of a budget, in the unit that the sampler compares."""

from types import SimpleNamespace

import pytest

from joulefront.search import Study
from joulefront.search.carbon.intensity import Intensity
from joulefront.search.records.trial import ATTRIBUTE
from joulefront.search.samplers.marginal_gain import RemainingGain
from joulefront.search.stopping.rules import StopGain
from joulefront.spaces.mlp import Mlp

FRANCE = Intensity(56.0, "FR", "table")
JOULES, GRAMS = 3600.0, 0.056 * 1.5


def foresight(*objectives: str) -> tuple[StopGain, SimpleNamespace]:
    study = Study(name="s", task=lambda: None, space=Mlp(), objectives=objectives, trials=1)
    sampler = SimpleNamespace(remaining=None)
    return StopGain(study, SimpleNamespace(sampler=sampler), None), sampler


@pytest.mark.parametrize(
    ("objectives", "remaining", "unit"),
    [
        (("accuracy", "train_energy"), JOULES, "1 Wh"),
        (("accuracy", "train_co2"), GRAMS, "3,600 gCO2e"),
        (("accuracy", "inference_energy", "train_energy"), JOULES, "1 Wh"),
        (("accuracy", "parameters", "train_energy"), JOULES, "1 Wh"),
        (("accuracy", "parameters", "train_co2"), GRAMS, "3,600 gCO2e"),
    ],
)
def test_what_remains_is_passed_in_the_unit_of_the_training_energy_wherever_it_stands(objectives, remaining, unit):
    view, sampler = foresight(*objectives)
    view.update_remaining(3600.0, FRANCE, 1.5)
    assert sampler.remaining == pytest.approx(remaining)
    assert RemainingGain(1.0, 0.1, 3600.0, None, None).why_not(0.5, view._text).startswith(unit)


def test_an_overdrawn_budget_leaves_nothing_and_an_unknown_one_passes_nothing():
    view, sampler = foresight("accuracy", "train_energy")
    view.update_remaining(None, FRANCE, 1.0)
    assert sampler.remaining is None
    view.update_remaining(-5.0, FRANCE, 1.0)
    assert sampler.remaining == 0.0


def test_grams_without_an_intensity_are_no_limit():
    view, sampler = foresight("accuracy", "train_co2")
    view.update_remaining(3600.0, None, 1.0)
    assert sampler.remaining is None


@pytest.mark.parametrize(
    ("joules", "rest"),
    [((6.0, 0.0, None, 3.0), 30.0), ((0.0, 0.0), 500.0), ((None,), 500.0), ((80.0, 60.0), 500.0)],
)
def test_trials_that_are_left_cost_what_the_latest_did_copies_that_cost_nothing_included(joules, rest):
    view, _ = foresight("accuracy", "train_energy")
    state = SimpleNamespace(name="COMPLETE")
    trials = [SimpleNamespace(state=state, user_attrs={ATTRIBUTE: {"increment_joules": paid}}) for paid in joules]
    view = StopGain(view.study, SimpleNamespace(get_trials=lambda **_: trials), 0.005)
    assert view._rest(500.0, 10) == pytest.approx(rest)


def test_looking_ahead_is_rare_and_says_nothing_before_there_is_something_to_see():
    view, _ = foresight("accuracy", "train_energy")
    seen = []
    view = StopGain(view.study, SimpleNamespace(get_trials=lambda **_: trials, sampler=None), 0.005)
    for count in range(1, 101):
        trials = [SimpleNamespace(state=SimpleNamespace(is_finished=lambda: True))] * count
        before = dict(view._looked)
        assert view.not_worth_it(10) is None
        seen += [count] if view._looked != before else []
    assert seen[0] == 24
    assert 8 <= len(seen) <= 20
