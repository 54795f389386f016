"""What the last energy of a search has brought."""

import pytest
from helpers.trials import make_trial

from joulefront.search.front import Front
from joulefront.search.running.course import LEAST, recent_gain


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
