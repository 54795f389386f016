"""When a training cannot reach the front any more."""

import pytest
from helpers.trials import make_trial
from hypothesis import given
from hypothesis import strategies as st

from joulefront.search.records.trial import Trial
from joulefront.search.stopping.projection import ENOUGH, Ahead, dominated, errors_by_epoch, least_ratio, stop_reason

ERRORS = st.floats(0.01, 1.0)


def measured(number, accuracy_1, accuracy_9, joules=100.0):
    curve = ({"epoch": 1, "accuracy": accuracy_1}, {"epoch": 9})
    return make_trial(number, "complete", {}, 9, quality={"accuracy": accuracy_9}, train_joules=joules, curve=curve)


#: Errors fall from 0.5 to between 0.1 and 0.3: the best ratio is 0.2.
SEEN = [measured(k, 0.5, 0.7 + 0.2 * k / (ENOUGH - 1)) for k in range(ENOUGH)]


def ask(accuracy, joules, trials, **options):
    return stop_reason(1 - accuracy, 1, {9: joules}, trials, "accuracy", maximize=True, **options)


@pytest.mark.slow
def test_a_training_that_is_beaten_even_with_the_best_improvement_is_stopped():
    reason = ask(0.4, 200.0, SEEN)  # at best 1 - 0.6 * 0.2 = 0.88 < 0.9
    assert reason is not None
    assert "0.8800" in reason


def test_one_that_could_still_be_the_best_continues():
    assert ask(0.6, 200.0, SEEN) is None  # at best 0.92


def test_one_that_could_still_be_the_cheapest_continues():
    assert ask(0.1, 99.0, SEEN) is None


def test_before_enough_trainings_were_seen_nothing_is_stopped():
    assert ask(0.0, 1e9, SEEN[1:]) is None


def test_an_earlier_rung_at_which_it_may_be_on_the_front_saves_it():
    both = [
        make_trial(
            k,
            "complete",
            {},
            9,
            quality={"accuracy": 0.9},
            train_joules=100.0,
            curve=({"epoch": 1, "accuracy": 0.5}, {"epoch": 3, "accuracy": 0.6}),
        )
        for k in range(ENOUGH)
    ]
    assert stop_reason(0.9, 1, {3: 10.0, 9: 200.0}, both, "accuracy", maximize=True) is None
    assert stop_reason(0.9, 1, {3: 150.0, 9: 200.0}, both, "accuracy", maximize=True) is not None


def test_when_only_complete_trainings_count_a_shorter_one_cannot_beat_it():
    short = make_trial(ENOUGH, "complete", {}, 3, quality={"accuracy": 0.99}, train_joules=1.0)
    assert ask(0.6, 200.0, [*SEEN, short]) is not None
    assert ask(0.6, 200.0, [*SEEN, short], complete_epochs=9) is None


def test_the_error_of_a_lineage_is_known_at_the_ends_of_all_its_trials():
    first = Trial(0, "complete", {}, 1, quality={"error": 3.0})
    second = Trial(1, "complete", {}, 3, quality={"error": 2.0}, parent=0, curve=({"epoch": 2, "error": 2.5}, {"epoch": 3}))
    assert errors_by_epoch(second, [first, second], "error", maximize=False) == {1: 3.0, 2: 2.5, 3: 2.0}


@pytest.mark.slow
@given(st.lists(st.tuples(ERRORS, ERRORS), min_size=ENOUGH, max_size=30))
def test_the_assumed_improvement_is_the_best_that_was_seen(pairs):
    curves = [{1: now, 9: later} for now, later in pairs]
    assert least_ratio(curves, 1, 9) == pytest.approx(min(later / now for now, later in pairs))


@pytest.mark.slow
@given(
    st.lists(st.tuples(ERRORS, st.floats(1, 100)), max_size=8),
    st.lists(st.builds(Ahead, st.integers(2, 9), ERRORS, st.floats(1, 100)), max_size=4),
)
def test_hopeless_means_that_no_place_ahead_would_be_on_the_front(points, ahead):
    def on_front(place):
        return not any(error <= place.error and joules <= place.joules for error, joules in points)

    assert dominated(ahead, points) == (len(ahead) > 0 and not any(map(on_front, ahead)))
