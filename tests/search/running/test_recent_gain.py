"""What the last energy of a search has brought, and whether it is finished."""

from types import SimpleNamespace
from typing import Any

import pytest
from helpers.trials import make_trial

from joulefront.search.front import Front
from joulefront.search.running.recorder import LEAST, course, finished, recent_gain
from joulefront.search.stopping.rules import NOT_WORTH_IT
from joulefront.search.study import Budget


def front_of(accuracies: list[float], joules: list[float] | None = None) -> Front:
    paid = joules or [36.0] * len(accuracies)
    trials = tuple(
        make_trial(number, "complete", {}, 1, values=(accuracy, 36.0), train_joules=36.0, increment_joules=cost)
        for number, (accuracy, cost) in enumerate(zip(accuracies, paid, strict=True))
    )
    return Front(trials, ("accuracy", "train_energy"), ("maximize", "minimize"))


def test_a_rise_is_said_with_the_hypervolumes_that_the_run_shows_itself() -> None:
    accuracies = [0.5] * 9 + [0.8] * 3
    front = front_of(accuracies)
    assert recent_gain(front) == (
        "the last quarter of the trials' energy (30 mWh, 3 trials) raised the hypervolume "
        f"from {front_of(accuracies[:9]).hypervolume():.3f} to {front.hypervolume():.3f}"
    )


def test_an_end_without_a_rise_is_said_too() -> None:
    assert "did not raise the hypervolume of 0.400" in (recent_gain(front_of([0.8] + [0.5] * 15)) or "")


@pytest.mark.parametrize("front", [front_of([0.5] * (LEAST - 1)), front_of([0.5] * LEAST, [0.0] * LEAST), front_of([])])
def test_nothing_is_said_of_a_search_without_a_course(front: Front) -> None:
    assert recent_gain(front) is None


def test_one_training_may_be_the_whole_quarter() -> None:
    said = recent_gain(front_of([0.5] * 12 + [0.9], [1.0] * 12 + [100.0]))
    assert said is not None
    assert "1 trial)" in said


def ended(reason: str | None, *, trials: int = 40, joules: float | None = 9.0, **facts: Any) -> Any:
    """A run folder whose last session ended so."""
    run = SimpleNamespace(trials=[SimpleNamespace(user_attrs={})] * trials, bill=SimpleNamespace(total_joules=joules))
    sessions = [] if reason is None else [{"reason": "interrupted"}, {"reason": reason}]
    return SimpleNamespace(facts={"sessions": sessions, **facts}, run=lambda: run)


def own(trials: int | None, budget: str | None = None) -> Any:
    """The limits of a study itself."""
    said = None if budget is None else Budget.parse(budget)
    return SimpleNamespace(budget=said, limits=lambda: (said, trials))


def test_a_study_is_finished_when_its_own_limits_are_reached_or_the_rest_is_not_worth_it() -> None:
    for reason in ("all 40 trials are done", "the budget of 5 Wh is spent", "every combination has been tried"):
        for study in (own(40), own(30), own(None, "9J"), own(None)):
            assert finished(ended(reason), study) == finished(ended(reason), study, no_stop=True) == reason
    stopped = f"{NOT_WORTH_IT}: 1 Wh more would add 0.1 %"
    assert finished(ended(stopped), own(50)) == stopped
    assert finished(ended(stopped), own(50), no_stop=True) is None
    for other in (None, "", "interrupted", "the timeout of 5 s has passed", "20 candidates in a row failed or were refused"):
        assert finished(ended(other), own(40)) is None


@pytest.mark.parametrize("reason", ["all 40 trials are done", "the budget of 9 J is spent"])
def test_a_study_is_not_finished_where_a_session_alone_had_smaller_limits(reason: str) -> None:
    for study in (own(41), own(None, "10J"), own(41, "10J")):
        assert finished(ended(reason), study) is None
    money, grams = own(None, "1EUR"), own(None, "1gCO2e")
    for joules, said in ((9.0, None), (3.6e6, reason)):
        assert finished(ended(reason, joules=joules, price_per_kwh=[1.0, "EUR"]), money) == said
        assert finished(ended(reason, joules=joules, intensity={"grams_per_kwh": 1.0}), grams) == said


def test_a_training_of_unknown_energy_takes_nothing_from_what_the_others_were_for():
    known = make_trial(0, "complete", {}, 1, values=(0.8, 30.0), train_joules=30.0, increment_joules=30.0)
    lost = make_trial(1, "failed", {}, 1, evaluation_joules=20.0)
    front = Front((known, lost), ("accuracy", "train_energy"), ("maximize", "minimize"))
    assert course(front, 40.0, {"start": 10.0})[0] == "75% of 11.1 mWh trained models (start 25%)"
    assert course(front, 40.0)[1] != course(front, 40.0, shown=True)[1] == "showing the front comes on top"
