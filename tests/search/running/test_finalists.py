"""Which members of a front are trained again."""

import pytest
from helpers.trials import make_trial

from joulefront.search import Front
from joulefront.search.running.repeat import finalists


def straight(count: int) -> Front:
    trials = (make_trial(i, "complete", {}, 1, (0.5 + i / 100, 1.0 + i), train_joules=1.0 + i) for i in range(count))
    return Front(tuple(trials), ("accuracy", "train_energy"), ("maximize", "minimize"))


def test_of_a_long_front_the_ends_and_evenly_spread_members_are_taken() -> None:
    assert [trial.number for trial in finalists(straight(30), most=4)] == [0, 10, 19, 29]
    assert [trial.number for trial in finalists(straight(5), most=10)] == [0, 1, 2, 3, 4]
    assert len(finalists(straight(30), most=1)) == 1
    for count in range(2, 25):
        for most in range(2, count + 1):
            taken = [trial.number for trial in finalists(straight(count), most=most)]
            assert len(set(taken)) == most
            assert (taken[0], taken[-1]) == (0, count - 1)


def test_rules_name_members_and_a_member_that_two_rules_name_comes_once() -> None:
    assert [trial.number for trial in finalists(straight(9), "best,trial=3, cheapest,accuracy>=0.58")] == [0, 3, 8]
    with pytest.raises(ValueError, match="--pick must be a rule, got 'fastest'"):
        finalists(straight(9), "fastest")
    with pytest.raises(ValueError, match="--max-members must be >= 1"):
        finalists(straight(9), most=0)
    with pytest.raises(ValueError, match="is empty"):
        finalists(straight(0))
