"""What is kept of repeats, and what is left of a plan."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from joulefront.search.records.replicates import REPEATS_FILE, Plan, Repeat, Repeats, read_repeats
from joulefront.search.records.trial import INTERRUPTED

PLAN = Plan("2026-01-01T00:00:00+00:00", (3, 1), 2, "given", 0)


def training(trial: int, round_number: int, **facts: object) -> Repeat:
    return Repeat(0, trial, round_number, 0, 7, 4, {"accuracy": 0.9}, 2.0, 0.1, 3.0, **facts)  # type: ignore[arg-type]


def test_what_was_trained_again_survives_the_file(tmp_path: Path) -> None:
    plan = replace(PLAN, idle_watts={"cpu": 2.5}, anchor={"joules": [1.0]})
    repeats = Repeats().with_plan(plan).with_training(training(3, 0)).with_training(training(1, 0, failed="loss became nan"))
    (tmp_path / REPEATS_FILE).write_text(json.dumps(repeats.to_json()))
    assert read_repeats(tmp_path) == repeats
    assert [one.trial for one in repeats.trainings if one.failed is None] == [3]


def test_without_a_file_nothing_was_trained_again(tmp_path: Path) -> None:
    assert read_repeats(tmp_path) == Repeats()
    assert not read_repeats(tmp_path)


@pytest.mark.parametrize("text", ['{"plans": [', "[]", "{}", '{"plans": [], "repeats": [{"trial": 3}]}'])
def test_a_damaged_file_is_reported_and_never_taken_for_an_empty_one(tmp_path: Path, text: str) -> None:
    (tmp_path / REPEATS_FILE).write_text(text)
    with pytest.raises(ValueError, match=r"repeats\.json' is damaged.*restore"):
        read_repeats(tmp_path)


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"plan": 1}, "is in none of its plans"),
        ({"plan": -1}, "is in none of its plans"),
        ({"trial": 7}, "trial 7 is in none of its plans"),
        ({"round": 2}, "is in none of its plans"),
        ({"train_joules": -1.0}, "is below zero in its energy or time"),
        ({"seconds": -1.0}, "is below zero in its energy or time"),
        ({"round": 0, "trial": 1}, "trial 1 is there twice"),
    ],
)
def test_a_training_that_no_plan_holds_makes_no_figure(tmp_path: Path, facts: dict[str, float], said: str) -> None:
    repeats = Repeats().with_plan(PLAN).with_training(training(1, 0)).with_training(replace(training(3, 0), **facts))
    (tmp_path / REPEATS_FILE).write_text(json.dumps(repeats.to_json()))
    with pytest.raises(ValueError, match=rf"repeats\.json' is damaged.*{said}.*restore"):
        read_repeats(tmp_path)


def test_what_was_interrupted_is_left_and_what_failed_is_not() -> None:
    repeats = Repeats().with_plan(PLAN)
    assert [(slot.round, slot.trial) for slot in repeats.open_slots(0)] == [(0, 3), (0, 1), (1, 3), (1, 1)]
    repeats = repeats.with_training(training(3, 0)).with_training(training(1, 0, failed="out of memory"))
    repeats = repeats.with_training(training(3, 1, failed=INTERRUPTED))
    left = repeats.open_slots(0)
    assert [(slot.round, slot.trial) for slot in left] == [(1, 3), (1, 1)]
    assert [slot.position for slot in left] == [2, 3]


def test_the_rounds_of_the_next_plan_are_new_ones() -> None:
    repeats = Repeats().with_plan(PLAN)
    assert repeats.rounds == 2
    repeats = repeats.with_plan(replace(PLAN, first_round=2, times=3))
    assert repeats.rounds == 5
    assert {slot.round for slot in repeats.open_slots(1)} == {2, 3, 4}


def test_facts_of_a_plan_go_to_that_plan_and_nothing_empty_is_kept() -> None:
    repeats = Repeats().with_plan(PLAN).with_plan(PLAN).with_facts(1, {"anchor": {"joules": [1.0]}, "idle_watts": {}, "other": 1})
    assert repeats.plans[0] == PLAN
    assert repeats.plans[1] == replace(PLAN, anchor={"joules": [1.0]})
