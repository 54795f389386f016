"""What remains of a budget, in the unit that the sampler compares."""

import threading
from types import SimpleNamespace

import pytest

from joulefront.search import Study
from joulefront.search.carbon.intensity import Intensity
from joulefront.search.records.trial import ATTRIBUTE, Trial
from joulefront.search.samplers import FreezeThawSampler
from joulefront.search.samplers.marginal_gain import RemainingGain
from joulefront.search.stopping.rules import Limits, StopGain, StopRules
from joulefront.search.study import objective_values
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


def test_looking_ahead_is_rare_and_says_nothing_before_there_is_something_to_see(monkeypatch):
    view, seen = foresight("accuracy", "train_energy")[0], []
    monkeypatch.setattr("joulefront.search.stopping.rules.remaining_gain", lambda *_: seen.append(count))
    view = StopGain(view.study, SimpleNamespace(get_trials=lambda **_: trials, sampler=FreezeThawSampler([1, 3])), 0.005)
    for count in range(1, 101):
        trials = [SimpleNamespace(state=SimpleNamespace(is_finished=lambda: True))] * count
        assert view.not_worth_it(None) is None
    assert seen[0] == 24
    assert 8 <= len(seen) <= 20


def no_parameters():
    return objective_values(Trial(0, "failed", {}, 1, quality={"accuracy": 0.9}), ("accuracy", "parameters"))[1]


def trials_that_ended(*reasons):
    """The rules of a study whose trials failed of these reasons, None for one that did not."""
    done = [
        SimpleNamespace(
            state=SimpleNamespace(name="COMPLETE" if reason is None else "FAIL", is_finished=lambda: True),
            user_attrs={ATTRIBUTE: {} if reason is None else {"reason": reason}},
        )
        for reason in reasons
    ]
    search = SimpleNamespace(get_trials=lambda deepcopy: done, sampler=None)
    nothing = SimpleNamespace(not_worth_it=lambda left: None, update_remaining=lambda *rest: None)
    account = SimpleNamespace(spent_joules=lambda: 1.0)
    return StopRules(SimpleNamespace(), search, Limits(seconds=1e9), account, threading.Event(), nothing)


@pytest.mark.parametrize("error", ["ValueError: the family 'convnet' needs images, got a table of 7 columns", no_parameters()])
def test_three_trials_that_fail_of_one_error_of_the_settings_end_the_study_with_it(error):
    said = trials_that_ended(error, error, error).end_of_study(3)
    assert said == f"all trials failed of their settings: {error}; correct these and start anew"


@pytest.mark.parametrize(
    "reasons",
    [
        ("ValueError: a", "ValueError: a"),
        ("ValueError: a", "ValueError: b", "ValueError: a"),
        (None, "ValueError: a", "ValueError: a", "ValueError: a"),
        ("out of memory: 3 GiB",) * 4,
        ("objective 'train_energy' is unknown for this trial (quality known: accuracy; energy absent)",) * 4,
    ],
)
def test_few_failures_others_and_those_of_the_machine_end_nothing(reasons):
    assert trials_that_ended(*reasons).end_of_study(len(reasons) - reasons.count(None)) is None
