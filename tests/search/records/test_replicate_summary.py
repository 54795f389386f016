"""What repeats say of a front, on numbers whose answer is known."""

import math
import random
from collections.abc import Sequence
from dataclasses import replace

import pytest
import scipy.stats
from helpers.trials import make_trial

from joulefront.search.records.replicates import Plan, Repeat, Repeats, compare_replicates, drift, row_of
from joulefront.search.records.trial import Trial
from joulefront.search.report.replication_text import sentences, to_json, to_text

DOWN = ("error", "minimize")


def trial(number: int, quality: float, joules: float) -> Trial:
    return make_trial(number, "complete", {}, 3, (quality, joules), {"accuracy": quality}, joules, 0.01 * joules, hardware_id="h")


def repeats_of(values: dict[int, Sequence[tuple[float, float]]], *, u_joules: float | None = 0.5, name: str = "accuracy") -> Repeats:
    """Repeats round by round, each with its quality and its joules."""
    times = max(len(found) for found in values.values())
    repeats = Repeats().with_plan(Plan("now", tuple(values), times, "given", 0))
    for number in range(times):
        for place, (member, found) in enumerate(values.items()):
            quality, joules = found[number]
            one = Repeat(0, member, number, number * len(values) + place, 1, 3, {name: quality}, joules, u_joules, joules + 1.0)
            repeats = repeats.with_training(one)
    return repeats


TRIALS = (trial(4, 0.8, 10.0), trial(2, 0.9, 12.0), trial(7, 0.95, 40.0))
VALUES = {
    7: [(0.94, 40.0), (0.93, 41.0), (0.96, 39.0)],
    4: [(0.70, 11.0), (0.71, 12.5), (0.72, 10.0)],
    2: [(0.86, 11.0), (0.88, 12.0), (0.84, 11.5)],
}


def test_members_stand_in_the_order_of_the_front_and_neighbours_are_compared() -> None:
    comparison = compare_replicates(repeats_of(VALUES), TRIALS, "accuracy", "maximize")
    assert [member.trial.number for member in comparison.members] == [4, 2, 7]
    assert [(pair.cheaper, pair.other) for pair in comparison.pairs] == [(4, 2), (2, 7)]
    first, second = comparison.pairs
    assert first.energy is not None
    assert not first.energy.clear  # 11.2 J and 11.5 J
    assert first.quality is not None
    assert first.quality.clear
    assert second.energy is not None
    assert second.energy.clear
    assert second.energy.mean == pytest.approx(math.log(40.0 / 11.5))
    assert comparison.order_survives is True
    assert comparison.after(7) is None


def test_selection_optimism_is_the_mean_loss_of_quality_in_the_repeats() -> None:
    comparison = compare_replicates(repeats_of(VALUES), TRIALS, "accuracy", "maximize")
    losses = [0.8 - 0.71, 0.9 - 0.86, 0.95 - (0.94 + 0.93 + 0.96) / 3]
    assert comparison.optimism is not None
    assert comparison.optimism.mean == pytest.approx(sum(losses) / 3)
    assert [member.trial.number for member in comparison.members if member.quality_outside] == [4, 2]
    assert [member.trial.number for member in comparison.members if member.energy_outside] == []
    said = "\n".join(sentences(comparison, repeats_of(VALUES)))
    assert "accuracy of trials 4, 2 (by chance alone 50% do)" in said
    assert "accuracy is 0.0456 worse than in the search" in said
    assert "The order of the front survives" in said


def test_of_an_error_more_is_worse() -> None:
    trials = (trial(0, 0.2, 1.0), trial(1, 0.1, 2.0))
    found = repeats_of({0: [(0.25, 1.0)], 1: [(0.13, 2.0)]}, name="error")
    comparison = compare_replicates(found, trials, *DOWN)
    assert comparison.optimism is not None
    assert comparison.optimism.mean == pytest.approx(0.04)
    assert comparison.order_survives is True
    assert "error is 0.0400 worse than in the search" in to_text(comparison, found)
    lucky = repeats_of({0: [(0.15, 1.0)], 1: [(0.07, 2.0)]}, name="error")
    assert "error is 0.0400 better than in the search" in to_text(compare_replicates(lucky, trials, *DOWN), lucky)


def test_single_repeats_distinguish_nothing_but_keep_or_break_the_order() -> None:
    comparison = compare_replicates(repeats_of({4: [(0.9, 10.0)], 2: [(0.8, 12.0)]}), TRIALS, "accuracy", "maximize")
    (pair,) = comparison.pairs
    assert pair.energy is None
    assert pair.quality is None
    assert pair.order_kept is False
    assert comparison.order_survives is False
    assert not any(member.quality_outside or member.energy_outside for member in comparison.members)
    text = to_text(comparison, repeats_of({4: [(0.9, 10.0)], 2: [(0.8, 12.0)]}))
    assert "does not survive between trials 4 and 2" in text
    assert "unknown" in text


def test_a_model_whose_repeats_all_failed_leaves_the_order_unknown() -> None:
    repeats = repeats_of(VALUES)
    broken = replace(
        repeats, trainings=tuple(replace(one, failed="loss became nan", quality={}) if one.trial == 2 else one for one in repeats.trainings)
    )
    comparison = compare_replicates(broken, TRIALS, "accuracy", "maximize")
    assert comparison.order_survives is None
    member = comparison.summary_of(2)
    assert member is not None
    assert (member.quality, member.energy, member.failed) == (None, None, 3)
    assert "3 of 9 repeats have no result (trial 2: loss became nan)" in to_text(comparison, broken)
    assert row_of(comparison, member)["repeats_accuracy_mean"] is None
    assert to_json(comparison, broken)["order_survives"] is None


def test_energies_that_were_not_measured_stay_unknown() -> None:
    repeats = repeats_of(VALUES)
    blind = replace(repeats, trainings=tuple(replace(one, train_joules=None, train_u_joules=None) for one in repeats.trainings))
    comparison = compare_replicates(blind, TRIALS, "accuracy", "maximize")
    assert all(member.energy is None and member.quality is not None for member in comparison.members)
    assert all(pair.energy is None and pair.quality is not None for pair in comparison.pairs)
    assert drift(blind) == (0, None, None)
    assert "unknown" in to_text(comparison, blind)


def test_the_spread_is_given_in_uncertainties_of_the_meter() -> None:
    comparison = compare_replicates(repeats_of(VALUES, u_joules=0.25), TRIALS, "accuracy", "maximize")
    member = comparison.summary_of(7)
    assert member is not None
    assert member.energy is not None
    assert member.energy.sd == pytest.approx(1.0)
    assert member.spread_over_meter == pytest.approx(4.0)
    unknown = compare_replicates(repeats_of(VALUES, u_joules=None), TRIALS, "accuracy", "maximize").summary_of(7)
    assert unknown is not None
    assert unknown.spread_over_meter is None


def test_a_drift_is_found_and_noise_is_not_called_one() -> None:
    draw = random.Random(0)

    def plan(slope: float) -> Repeats:
        found = {member: [(0.9, 10.0 * (member + 1) * (1 + slope * r + draw.gauss(0, 0.01))) for r in range(8)] for member in range(4)}
        return repeats_of(found)

    n, rho, p_value = drift(plan(0.05))
    assert n == 32
    assert rho is not None
    assert rho > 0.9
    assert p_value is not None
    assert p_value < 1e-6
    _, _, quiet = drift(plan(0.0))
    assert quiet is not None
    assert quiet > 0.05


def test_the_drift_is_spearmans_of_position_and_relative_energy() -> None:
    repeats = repeats_of(VALUES)
    mean = {number: sum(joules for _, joules in found) / 3 for number, found in VALUES.items()}
    x = [one.position for one in repeats.trainings]
    y = [(one.train_joules or 0.0) / mean[one.trial] for one in repeats.trainings]
    oracle = scipy.stats.spearmanr(x, y)
    assert drift(repeats) == (9, pytest.approx(oracle.statistic), pytest.approx(oracle.pvalue))


def test_two_plans_are_each_held_against_their_own_mean() -> None:
    hot = repeats_of({4: [(0.7, 20.0), (0.7, 20.0)], 2: [(0.7, 24.0), (0.7, 24.0)]})
    cold = repeats_of({4: [(0.7, 10.0), (0.7, 10.0)], 2: [(0.7, 12.0), (0.7, 12.0)]})
    both = Repeats((*hot.plans, *cold.plans), (*hot.trainings, *(replace(one, plan=1) for one in cold.trainings)))
    assert drift(both) == (8, None, None)  # nothing changes within either plan


def test_trials_that_are_gone_or_were_never_repeated_are_left_out() -> None:
    comparison = compare_replicates(repeats_of({4: VALUES[4], 99: VALUES[2]}), TRIALS, "accuracy", "maximize")
    assert [member.trial.number for member in comparison.members] == [4]
    assert comparison.pairs == ()
    assert comparison.order_survives is None
