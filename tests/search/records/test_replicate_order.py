"""Orders: every round holds each model once, and there and back is symmetric."""

from collections import Counter
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulefront.search.records.replicates import ORDERS, slots

numbers = st.lists(st.integers(0, 99), min_size=1, max_size=8, unique=True)


@pytest.mark.slow
@given(numbers, st.integers(1, 7), st.sampled_from(ORDERS), st.integers(0, 2**31), st.integers(0, 5))
def test_every_round_holds_each_model_once_and_positions_count_up(trials: list[int], times: int, order: str, seed: int, first: int) -> None:
    plan = slots(trials, times, order, seed, first_round=first)
    assert [slot.position for slot in plan] == list(range(len(trials) * times))
    assert [slot.round for slot in plan] == [number for number in range(first, first + times) for _ in trials]
    for number in range(first, first + times):
        assert Counter(slot.trial for slot in plan if slot.round == number) == Counter(trials)


@pytest.mark.slow
@given(numbers, st.integers(1, 4))
def test_there_and_back_is_symmetric_so_that_a_linear_drift_favours_nobody(trials: list[int], pairs: int) -> None:
    plan = slots(trials, 2 * pairs, "abba", 0)
    order = [slot.trial for slot in plan]
    assert order == list(reversed(order))
    means = {trial: fmean(slot.position for slot in plan if slot.trial == trial) for trial in trials}
    assert len(set(means.values())) == 1


def test_as_given_means_as_given() -> None:
    assert [slot.trial for slot in slots([5, 2, 9], 2, "given", 0)] == [5, 2, 9, 5, 2, 9]


def test_a_random_plan_follows_its_seed_and_no_round_is_that_of_another_seed() -> None:
    trials = list(range(8))
    assert slots(trials, 3, "random", 7) == slots(trials, 3, "random", 7)
    orders = {tuple(slot.trial for slot in slots(trials, 1, "random", seed)) for seed in range(20)}
    assert len(orders) == 20
    rounds = [tuple(slot.trial for slot in slots(trials, 4, "random", 0) if slot.round == number) for number in range(4)]
    assert len(set(rounds)) == 4


def test_a_later_plan_with_the_same_seed_draws_other_orders() -> None:
    trials = list(range(8))
    first = [slot.trial for slot in slots(trials, 2, "random", 0)]
    assert [slot.trial for slot in slots(trials, 2, "random", 0, first_round=2)] != first


def test_over_many_rounds_every_model_is_as_often_first() -> None:
    firsts = Counter(slot.trial for slot in slots([0, 1, 2], 600, "random", 1) if slot.position % 3 == 0)
    assert all(150 < count < 250 for count in firsts.values())  # 200 expected, standard deviation 11.5


@pytest.mark.parametrize(
    ("trials", "times", "order", "said"),
    [
        ([1], 0, "random", r"--times must be >= 1, got 0"),
        ([1], 1, "alphabetic", r"--order must be one of random, abba, given, got 'alphabetic'"),
        ([], 1, "random", "at least one"),
        ([1, 1], 1, "random", "each trial once"),
    ],
)
def test_an_invalid_plan_is_rejected(trials: list[int], times: int, order: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        slots(trials, times, order, 0)
