"""Over a model's life its predictions count beside its training, and may change which model is worth its energy."""

from __future__ import annotations

from dataclasses import replace

import pytest
from helpers.trials import TWO, complete

from joulefront.search.front import Front
from joulefront.search.lifetime import original, read_predictions, to_csv, to_rows, to_text, with_use
from joulefront.search.records.bill import Bill
from joulefront.search.records.replicates import Plan, Repeat, Repeats
from joulefront.search.records.run_folder import Run


@pytest.fixture
def front() -> Front:
    trials = (
        complete(0, 0.80, 10.0, train_u_joules=1.0, inference_joules_per_1000=5.0, inference_u_joules_per_1000=0.5),
        complete(1, 0.90, 20.0, train_u_joules=1.0, inference_joules_per_1000=50.0, inference_u_joules_per_1000=0.5),
        complete(2, 0.90, 90.0, train_u_joules=1.0, inference_joules_per_1000=1.0, inference_u_joules_per_1000=0.5),
        complete(3, 0.95, 95.0),
    )
    return Front(trials, *TWO)


def test_predictions_decide_once_there_are_enough_of_them(front):
    assert [row["trial"] for row in to_rows(front, 0)] == [0, 1]
    assert [row["trial"] for row in to_rows(front, 10_000)] == [0, 2]
    assert [row["trial"] for row in to_rows(front, 1_000_000)] == [2]  # the cheapest in use is as good as any


def test_one_model_and_csv_have_the_same_columns_as_the_front(front):
    (row,) = to_rows(front, 10_000, original(front, with_use(front, 10_000).pick("sensible")))
    assert row == next(one for one in to_rows(front, 10_000) if one["trial"] == row["trial"])
    assert to_csv([row]).splitlines()[0].split(",") == list(row)
    assert to_csv([{"=cmd|'/C calc'!A0": "@SUM(1)", "loss": -2.5}]) == "'=cmd|'/C calc'!A0,loss\n'@SUM(1),-2.5\n"
    assert f"{row['trial']:>5}" in to_text(front, 10_000, [row])


def test_energies_and_their_uncertainties_add_up(front):
    row = to_rows(front, 10_000)[0]
    assert (row["train_joules"], row["inference_joules"], row["total_joules"]) == (10.0, 50.0, 60.0)
    assert row["u_total_joules"] == pytest.approx((1.0 + 5.0**2) ** 0.5)


def test_what_was_not_measured_has_no_place_and_is_said(front):
    assert 3 not in [row["trial"] for row in to_rows(front, 1000)]
    assert "1 of 3 members have no measured predictions" in " ".join(to_text(front, 1000).split())
    unmeasured = Front((complete(0, 0.8, 10.0),), *TWO)
    with pytest.raises(ValueError, match="--objectives accuracy,train_energy,inference_energy"):
        with_use(unmeasured, 1000)


def test_predictions_or_a_training_that_read_as_0_j_are_unknown_and_not_free():
    dear = complete(0, 0.80, 10.0, inference_joules_per_1000=5.0)
    unread = (complete(1, 0.90, 20.0, inference_joules_per_1000=0.0), complete(2, 0.90, 0.0, inference_joules_per_1000=5.0))
    front = Front((dear, *unread), *TWO)
    assert [row["trial"] for row in to_rows(front, 10_000)] == [0]
    assert "1 of 2 members have no measured predictions" in " ".join(to_text(front, 10_000).split())
    with pytest.raises(ValueError, match="0 J is below the meter's resolution"):
        with_use(Front(unread[:1], *TWO), 1000)


def test_the_pick_is_the_trial_as_it_was_measured(front):
    used = with_use(front, 1_000_000)
    assert used.pick("best").train_joules == pytest.approx(1090.0)
    assert original(front, used.pick("best")) is front.trials[2]


@pytest.mark.parametrize(
    ("text", "count"), [("2000", 2000), ("10k", 10_000), ("10M", 10_000_000), ("1.5e6", 1_500_000), ("1,000", 1000), ("1,500k", 1_500_000)]
)
def test_numbers_of_predictions_are_read_as_people_write_them(text, count):
    assert read_predictions(text) == count


@pytest.mark.parametrize("text", ["", "many", "-5", "10Wh", "nan", "1e999", "1e308G", "1,5M", "0,500M", "1,5000", "1.500.000"])
def test_other_texts_are_refused_with_an_example(text):
    with pytest.raises(ValueError, match=r"--predictions must be a number of predictions, got .*for example 10k"):
        read_predictions(text)


def test_repeats_rank_ties_by_the_energy_of_the_whole_life(tmp_path):
    trials = (
        complete(0, 0.952, 100.0, train_u_joules=1.0, inference_joules_per_1000=10.0),
        complete(1, 0.950, 200.0, train_u_joules=1.0, inference_joules_per_1000=1.0),
    )
    again = tuple(
        Repeat(0, one.number, k, k, k, 1, {"accuracy": 0.95 + 0.002 * (k - 2)}, one.train_joules + k, 1.0, 100.0)
        for one in trials
        for k in range(5)
    )
    run = Run("r", tmp_path, ("accuracy", "train_energy", "inference_energy"), ("maximize", "minimize", "minimize"), (1,), trials,
              Bill(1.0, {}, {}, {}, 0.0, 1.0), {}, Repeats((Plan("", (0, 1), 5, "given", 0),), again))  # fmt: skip
    used = with_use(Front(trials, *TWO, run=run), 1_000_000)
    assert used.choice.ties == (1, 0)
    assert used.repeated is not None
    assert [round(one.energy.mean) for one in used.repeated.members] == [1202, 10102]


def test_a_model_whose_predictions_were_not_measured_has_no_energy_of_use_and_no_sum(front):
    (row,) = to_rows(front, 10_000, front.pick("trial=3"))
    assert (row["train_joules"], row["inference_joules"], row["total_joules"]) == (95.0, None, None)
    spread = replace(front, trials=tuple(replace(one, energy=replace(one.energy, train_u_joules=1.0)) for one in front.trials))
    assert " - " in to_text(spread, 10_000, to_rows(spread, 10_000, original(front, spread.pick("trial=3")))).splitlines()[2]
