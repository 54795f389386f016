"""What a training will cost, told from its first epochs."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulefront.search.records.trial import Trial
from joulefront.search.stopping.projection import UNSTABLE, WINDOW, epoch_energies, project, projection_errors

JOULES = st.floats(0.01, 1e4)


def slow_projection(energies, target, setup):
    """The formula said aloud, epoch by epoch."""
    total = setup
    for epoch in range(target):
        if epoch < len(energies):
            total += energies[epoch]
        else:
            stable = energies[UNSTABLE:] if len(energies) > UNSTABLE else energies
            window = stable[max(0, len(stable) - WINDOW) :]
            total += sum(window) / len(window)
    return total


def trial(number, epochs, joules, parent=None, first=1, state="complete"):
    curve = tuple({"epoch": first + k, "joules": value} for k, value in enumerate(joules))
    return Trial(number, state, {}, epochs, curve=curve, parent=parent)


@pytest.mark.slow
@given(st.lists(JOULES, min_size=1, max_size=30), st.integers(1, 60), st.floats(0, 100))
def test_it_is_what_was_measured_and_the_mean_of_the_last_stable_epochs_for_the_rest(energies, target, setup):
    assert project(energies, target, setup_joules=setup) == pytest.approx(slow_projection(energies, target, setup))


@pytest.mark.slow
@given(st.lists(JOULES, min_size=1, max_size=30), st.data())
def test_nothing_is_projected_where_everything_is_known(energies, data):
    target = data.draw(st.integers(1, len(energies)))
    assert project(energies, target) == pytest.approx(sum(energies[:target]))


def test_an_expensive_first_epoch_does_not_stand_for_the_others():
    assert project([100.0, 2.0, 2.0], 10) == pytest.approx(100 + 9 * 2)


def test_a_projection_from_nothing_is_refused():
    with pytest.raises(ValueError, match="one epoch at least"):
        project([], 3)


def test_the_energies_of_a_lineage_are_those_of_its_trials_one_after_the_other():
    trials = [trial(0, 1, [5.0]), trial(1, 3, [2.0, 2.5], parent=0, first=2), trial(2, 4, [1.0], parent=1, first=4)]
    assert epoch_energies(trials[2], trials) == [5.0, 2.0, 2.5, 1.0]


def test_one_unknown_epoch_makes_the_lineage_unknown():
    trials = [Trial(0, "complete", {}, 2, curve=({"epoch": 1}, {"epoch": 2, "joules": 1.0}))]
    assert epoch_energies(trials[0], trials) is None


def test_errors_hold_projections_against_what_the_higher_rungs_did_cost():
    trials = [trial(0, 1, [4.0]), trial(1, 3, [2.0, 2.0], parent=0, first=2), trial(2, 3, [1.0, 1.0, 2.0])]
    (one,) = projection_errors(trials, (1, 3))
    # 12 projected of 8, 3 of 4: the middle of +0.5 and -0.25
    assert (one.known, one.target, one.n) == (1, 3, 2)
    assert one.median == pytest.approx(0.375)
    assert one.worst == pytest.approx(0.5)
    assert one.bias == pytest.approx(0.125)


def test_copies_failures_and_the_middle_of_a_lineage_do_not_count_twice():
    trials = [
        trial(0, 1, [4.0]),
        trial(1, 2, [2.0], parent=0, first=2),
        trial(2, 2, [1.0, 1.0], state="failed"),
        Trial(3, "complete", {}, 2, curve=({"epoch": 1, "joules": 1.0}, {"epoch": 2, "joules": 9.0}), extra={"copy_of": 1}),
    ]
    assert [error.n for error in projection_errors(trials, (1, 2))] == [1]


def test_a_lineage_whose_parent_is_of_other_hardware_is_unknown():
    child = trial(5, 2, [1.0], parent=0, first=2)
    assert epoch_energies(child, [child]) is None
    assert epoch_energies(replace(child, parent=None, epochs=10**18), [child]) is None, "nor counted up to what a damaged file says"
    assert epoch_energies(child, [trial(4, 1, [1.0]), child]) is None
