"""What the page is told: the same facts as the terminal, the bill whole, unknown as unknown."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import pytest
from helpers.trials import changed, complete

from joulefront.search.front import Front
from joulefront.search.records.run_folder import Run
from joulefront.search.report.facts import hypervolume_trace
from joulefront.search.report.page import page_data
from joulefront.search.report.pricing import hours


def test_members_and_choice_are_those_of_the_front(fake_run: Run) -> None:
    data, front = page_data(fake_run, ranking=False), Front.of(fake_run)
    json.dumps(data, allow_nan=False)
    assert [one["n"] for one in data["members"]] == [trial.number for trial in front]
    assert [one["j"] for one in data["members"]] == [trial.train_joules for trial in front]
    for rule in ("sensible", "best", "knee", "cheapest"):
        assert data["choice"][rule] == front.pick(rule).number
    assert data["importance"] == []
    assert data["statements"] == []  # of the whole search, which takes what making this page does, too


def test_a_member_knows_the_curve_of_all_that_it_was_continued_from(fake_run: Run) -> None:
    front = Front.of(fake_run)
    trial = next(one for one in front if one.parent is not None)
    data = next(one for one in page_data(fake_run, ranking=False)["members"] if one["n"] == trial.number)
    assert [point["epoch"] for point in data["curve"]] == list(range(1, trial.epochs + 1))
    assert data["curve"][-1]["q"] == pytest.approx(trial.values[0])


def test_a_curve_whose_last_epoch_was_validated_late_ends_at_the_quality_of_its_trial(fake_run: Run) -> None:
    number = next(one.number for one in Front.of(fake_run) if one.curve)
    last = [{k: v for k, v in fake_run.trials[number].curve[-1].items() if k != "accuracy"}]
    trials = tuple(replace(t, curve=(*t.curve[:-1], *last)) if t.number == number else t for t in fake_run.trials)
    data = next(one for one in page_data(replace(fake_run, trials=trials), ranking=False)["members"] if one["n"] == number)
    assert data["curve"][-1]["q"] == fake_run.trials[number].values[0]


@pytest.mark.parametrize(("ended", "state"), [("ok", "complete"), ("stopped", "stopped"), ("pruned", "pruned")])
def test_what_a_trial_of_the_front_took_is_the_fronts_however_it_ended(fake_run: Run, ended: str, state: str) -> None:
    member = Front.of(fake_run).best()
    trials = tuple(changed(t, record={"state": ended}) if t.number == member.number else t for t in fake_run.trials)
    paid, states = member.increment_joules or 0.0, fake_run.bill.by_state
    moved = {**states, "complete": states["complete"] - paid}
    moved[state] = moved.get(state, 0.0) + paid + 5.0  # of another trial
    run = replace(fake_run, trials=trials, bill=replace(fake_run.bill, by_state=moved))
    uses = page_data(run, ranking=False)["bill"]["uses"]
    members = tuple(Front.of(run))
    assert uses["front"] == pytest.approx(sum(one.increment_joules or 0.0 for one in members))
    assert sum(uses.values()) == pytest.approx(sum(moved.values()))
    if state != "complete":
        assert uses[state] == pytest.approx(5.0)


def test_features_that_a_trial_of_the_front_paid_for_all_are_in_their_own_part_of_the_bill(fake_run: Run) -> None:
    first, other = complete(0, 0.9, 12.0, increment_joules=115.0, features_joules=2.0), complete(1, 0.8, 20.0, increment_joules=18.0)
    bill = replace(fake_run.bill, by_state={"complete": 33.0, "features": 100.0}, total_joules=133.0)
    run = replace(fake_run, trials=(first, replace(other, energy=replace(other.energy, features_joules=2.0))), bill=bill)
    uses = page_data(run, ranking=False)["bill"]["uses"]
    assert uses == pytest.approx({"front": 15.0, "complete": 18.0, "features": 100.0})


def test_the_interval_and_the_ties_are_those_of_the_choice(fake_run: Run) -> None:
    run = replace(fake_run, facts={**fake_run.facts, "fingerprint": {"data": {"examples": {"validation": 300}}}})
    data, front = page_data(run, ranking=False), Front.of(run)
    assert data["decimals"] == 1  # of 300 examples one is 0.3 points
    for one in data["members"]:
        standing = front.choice.standings[one["n"]]
        assert (one["low"], one["high"], one["right"]) == (standing.low, standing.high, standing.right)
    assert front.choice.pick in data["choice"]["ties"]
    best = front.best().number
    assert {n for pair in data["choice"]["pairs"] if best in pair for n in pair} == set(front.choice.ties)


def test_repeats_give_the_spread_of_the_energy(fake_run: Run, repeated: Callable[..., Run]) -> None:
    data = page_data(repeated(fake_run, spread=0.05, times=5), ranking=False)
    mean, sd, _, _ = data["members"][0]["again"]["j"]
    assert sd / mean == pytest.approx(0.05 * 2.5**0.5, rel=1e-6)
    assert page_data(fake_run, ranking=False)["members"][0]["again"] is None


def test_every_trial_is_in_the_columns_as_it_was(fake_run: Run) -> None:
    table = page_data(fake_run, ranking=False)["all"]
    for trial, row in zip(fake_run.trials, table["rows"], strict=True):
        assert (table["texts"][row[0]], row[8]) == (trial.state, trial.number)
        assert row[4] == (None if trial.increment_joules is None else pytest.approx(trial.increment_joules, rel=1e-3))
        for name, column in table["params"].items():
            shown = column["values"][trial.number] if "values" in column else column["of"][column["at"][trial.number]]
            value = trial.params.get(name)
            assert shown == (pytest.approx(value, rel=1e-3) if isinstance(value, float) else value)


def test_trials_keep_their_numbers_where_those_of_other_hardware_are_left_out(fake_run: Run) -> None:
    first = fake_run.trials[0].params
    run = replace(fake_run, trials=tuple(changed(t, hardware_id="other") if t.params == first else t for t in fake_run.trials))
    kept = [trial.number for trial in run.comparable().trials]
    assert kept[0] > 0
    assert [row[8] for row in page_data(run, ranking=False)["all"]["rows"]] == kept


def test_true_and_1_are_different_parameters(fake_run: Run) -> None:
    trials = tuple(changed(t, params={"flag": [True, 1, 1.0, None][t.number % 4]}) for t in fake_run.trials)
    column = page_data(replace(fake_run, trials=trials), ranking=False)["all"]["params"]["flag"]
    shown = [column["of"][place] for place in column["at"][:4]]
    assert list(map(repr, shown)) == ["True", "1", "1.0", "None"]


def test_the_trace_never_falls_counts_failed_trials_and_ends_at_the_front(fake_run: Run) -> None:
    front = Front.of(fake_run)
    steps = hypervolume_trace(front)
    volumes = [volume for _, _, volume in steps]
    assert volumes == sorted(volumes)
    assert volumes[-1] == pytest.approx(front.hypervolume())
    paid = sum(trial.increment_joules or 0.0 for trial in fake_run.trials)
    assert steps[-1][1] == pytest.approx(paid)
    number = int(steps[len(steps) // 2][0])
    partial = Front.of(replace(fake_run, trials=fake_run.trials[: number + 1]))
    assert steps[len(steps) // 2][2] == pytest.approx(partial.hypervolume())


def test_a_quality_without_a_best_value_is_shown_as_a_number_with_less_at_the_top_where_less_is_better(fake_run: Run) -> None:
    trials = tuple(replace(t, values=(10 - 9 * t.values[0], *t.values[1:])) if t.values else t for t in fake_run.trials)
    run = replace(fake_run, objectives=("rmse", "train_energy"), directions=("minimize", "minimize"), trials=trials)
    data = page_data(run, ranking=False)
    assert (data["percent"], data["maximise"], data["stretched"]) == (False, False, False)
    assert data["choice"]["best"] == Front.of(run).best().number


def test_places_begin_with_that_of_the_run_and_each_comes_once(fake_run: Run) -> None:
    found = [one["zone"] for one in page_data(fake_run, ranking=False)["places"]]
    assert found[0] == "FR"
    assert len(found) == len(set(found)) > 10


def test_hours_of_several_sessions_add_up_and_what_is_unknown_is_left_out(fake_run: Run) -> None:
    first = {
        "hours": [{"hour": "2026-01-02T03:00", "joules": 3.6e6, "grams": 100.0}, {"hour": "2026-01-02T04:00", "joules": 1.0, "grams": None}]
    }
    second = {"hours": [{"hour": "2026-01-02T03:00", "joules": 3.6e6, "grams": 300.0}]}
    run = replace(fake_run, facts={**fake_run.facts, "pue": 2.0, "carbon": [first, second]})
    assert hours(run) == [["2026-01-02T03:00", 7.2e6, 100.0]]  # 400 g over 2 kWh, half of them the building's


def test_the_default_model_is_told_from_a_member_only_where_it_can_be(fake_run: Run) -> None:
    trials = tuple(replace(t, extra={"baseline": "default"}) if t.number == 0 else t for t in fake_run.trials)
    facts = {**fake_run.facts, "fingerprint": {"data": {"examples": {"validation": 300}}}}
    data, front = (
        page_data(replace(fake_run, trials=trials, facts=facts), ranking=False),
        Front.of(replace(fake_run, trials=trials, facts=facts)),
    )
    assert front.baseline is not None
    assert data["default"]["n"] == 0
    assert data["default"]["ties"] == [one.number for one in front if front.evidence.ties(one, front.baseline)]
    assert page_data(fake_run, ranking=False)["default"] is None
