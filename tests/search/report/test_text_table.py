"""The front in a terminal of any width: nothing is wider, nothing that differs is cut."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import pytest
from helpers.trials import TWO, changed, complete

from joulefront.search.certainty import Evidence
from joulefront.search.formatting import fitted, paragraphs
from joulefront.search.front import Front
from joulefront.search.records.run_folder import Run
from joulefront.search.records.trial import BASELINE, DEFAULT
from joulefront.search.report.facts import over_default, tied
from joulefront.search.report.front_view import FrontView
from joulefront.search.report.front_view import front_text as to_text
from joulefront.search.report.leaderboard import leaderboard
from joulefront.search.report.page import _default
from joulefront.search.report.statement import statement
from joulefront.search.report.table import epochs_note, marks_of
from joulefront.search.report.view import View

LONG = {"family": "convnet", "convnet.pooling": "stride", "convnet.norm": "group", "convnet.activation": "silu", "learning_rate": 0.00123}


def front() -> Front:
    members = [
        complete(n, 0.5 + 0.04 * n, 10.0 * 2**n, params={**LONG, "convnet.width": 8 + n, "weight_decay": 10.0**-n}, parameters=10**n)
        for n in range(8)
    ]
    other = complete(8, 0.9, 9000.0, params={"family": "mlp", "mlp.width": 77}, extra={BASELINE: DEFAULT})
    found = Front((*members, other), *TWO)
    found.__dict__["evidence"] = Evidence("accuracy", examples=240, guessing=0.6)
    return found


@pytest.mark.parametrize("width", [40, 60, 80, 100, 160, 300])
def test_no_line_is_wider_than_the_terminal_and_every_difference_is_shown(width: int) -> None:
    text = to_text(front(), width=width)
    assert max(map(len, text.splitlines())) <= width
    flat = " ".join(text.split())
    for trial in front():
        width_of = trial.params.get("convnet.width", trial.params.get("mlp.width"))
        assert f"width={width_of}" in flat
    assert flat.count("norm=group") == 1  # what a family shares is said once
    assert flat.startswith("convnet: pooling=stride, norm=group, activation=silu, learning_rate=0.00123")


def test_models_that_differ_in_their_epochs_alone_are_told_apart_at_any_width_and_no_column_is_empty() -> None:
    params = {"family": "lightgbm", "lightgbm.leaves": 31, "lightgbm.l2": 0.001}
    found = Front(tuple(complete(n, 0.8 + 0.01 * n, 10.0 * 3**n, params=params, parameters=1000, epochs=3**n) for n in range(3)), *TWO)
    found.__dict__["evidence"] = Evidence("accuracy", examples=240, guessing=0.6)
    for width in range(30, 130, 10):
        text = to_text(found, width=width)
        assert all(re.search(rf"epochs={3**n}\b|^ *{n} +{3**n} ", text, re.MULTILINE) for n in range(3)), text
        assert "(the same in all its models)" in " ".join(text.split())
        assert "An epoch is no pass over the data, but some rounds of boosting for lightgbm." in " ".join(text.split())
    trees = {"family": "classical", "classical.estimator": "random_forest"}
    mixed = Front((complete(0, 0.8, 1.0, params=params), complete(1, 0.9, 9.0, params=trees)), *TWO)
    assert epochs_note(mixed).endswith("but some rounds of boosting for lightgbm, some trees for random_forest.")
    bare = Front(tuple(complete(n, 0.8 + 0.01 * n, 10.0 * 3**n, params={"width": 8}, epochs=3**n) for n in range(3)), *TWO)
    lines = to_text(bare, width=120).splitlines()
    assert lines[0] == "all: width=8 (the same in all its models)"
    assert not lines[2].endswith("model")
    assert "An epoch is" not in to_text(bare, width=120)


@pytest.mark.parametrize(("width", "shown"), [(30, False), (60, True), (100, True), (300, True)])
def test_what_is_an_objective_gives_way_after_all_that_is_none(width: int, shown: bool) -> None:
    sizes = tuple(changed(t, values=(*t.values, float(t.parameters or 0)), params={**t.params, "more": "x" * 50}) for t in front().trials)
    text = to_text(Front(sizes, (*TWO[0], "parameters"), (*TWO[1], "minimize")), width=width)
    assert (" parameters" in text.split("─")[0]) == shown
    assert max(map(len, text.splitlines())) <= width


def test_with_repeats_and_carbon_it_still_fits(fake_run: Run, repeated: Callable[..., Run]) -> None:
    for width in (80, 160):
        assert max(map(len, to_text(Front.of(repeated(fake_run)), width=width).splitlines())) <= width


def test_a_row_has_its_interval_and_as_many_digits_as_one_example_can_change() -> None:
    text = to_text(front(), width=160)
    assert re.search(r"^ *8 +1 +0\.900 +0\.856–0\.932 ", text, re.MULTILINE)
    assert "0.9000" not in text


def test_the_last_lines_say_which_is_sensible_why_and_what_guessing_gives() -> None:
    text = " ".join(to_text(front(), width=100).split())
    assert "sensible: trial 8, the best: no cheaper one is as good" in text or "sensible: trial" in text
    assert "with 240 validation examples, by counts alone" in text
    assert "Guessing gives accuracy 0.6; 5 of the rows are not better." in text
    assert "in the digits study (sd)" in text
    assert "±" not in text.replace("±<", "")


def test_what_the_search_gained_over_the_default_model_is_said() -> None:
    default = complete(0, 0.80, 1000.0, extra={BASELINE: DEFAULT})
    tied = Front((default, complete(1, 0.81, 100.0)), *TWO)
    tied.__dict__["evidence"] = Evidence("accuracy", examples=100)
    said = "trial 1 cannot be told from it in accuracy (+0.01) for 90% less energy."
    assert over_default(tied) == f"Against the default model (trial 0: accuracy 0.80, 0.278 Wh, 1 epoch) {said}"
    better = Front((default, complete(1, 0.95, 4000.0)), *TWO)
    better.__dict__["evidence"] = Evidence("accuracy", examples=1000)
    assert "is better in accuracy (+0.150) for 4 times the energy" in (over_default(better) or "")
    few = Front((complete(0, 0.8047, 1000.0, extra={BASELINE: DEFAULT}), complete(1, 0.9554, 4000.0)), *TWO)
    few.__dict__["evidence"] = Evidence("accuracy", examples=99)
    said = over_default(few) or ""
    assert "0.80, " in said
    assert "(+0.16)" in said, "0.96 less 0.80, not 0.1507"
    same = Front((default, complete(1, 0.95, 998.0)), *TWO)
    assert (over_default(same) or "").endswith("for the same energy.")
    noisy = (replace(default, energy=replace(default.energy, train_u_joules=50.0)), complete(1, 0.95, 930.0, train_u_joules=50.0))
    assert (over_default(Front(noisy, *TWO)) or "").endswith("for the same energy."), "70 J are no more than the meter's doubt"
    assert _default(Front(noisy, *TWO))["alike"] == [1]
    assert over_default(Front((complete(1, 0.95, 10.0),), *TWO)) is None


def test_repeats_decide_how_the_pick_compares_with_the_default_model(fake_run: Run, repeated: Callable[..., Run]) -> None:
    cheapest = Front.of(fake_run).members[0].number
    trials = tuple(replace(t, extra={**t.extra, BASELINE: DEFAULT}) if t.number == cheapest else t for t in fake_run.trials)
    front = Front.of(repeated(replace(fake_run, trials=trials), fall=0.01))
    apart = front.gain(front.sensible()) - front.gain(front.members[0])
    assert apart > 0.01
    assert f"is better in accuracy (+{front.quality_text(apart)} in repeats)" in (over_default(front) or "")
    assert not tied(front, front.members[0], front.sensible())


def test_a_table_that_is_too_wide_becomes_titles_and_values() -> None:
    cells = [["run", "best", "at mWh"], ["runs/a", "0.9", "12"], ["runs/b", "0.8", "3"]]
    assert "─" in fitted(cells, [False, True, True], 80)
    narrow = fitted(cells, [False, True, True], 18)
    assert max(map(len, narrow.splitlines())) <= 18
    assert "best 0.8" in " ".join(narrow.split())
    assert max(map(len, paragraphs("word " * 50, 30).splitlines())) <= 30


def test_every_surface_names_the_same_model(fake_run: Run) -> None:
    run = replace(
        fake_run, facts={**fake_run.facts, "fingerprint": {"data": {"examples": {"validation": 40}}}, "guessing": {"accuracy": 0.1}}
    )
    shown = FrontView.of(run)
    pick = shown.sensible()
    assert pick is not shown.best()  # 40 examples tell little apart
    assert shown.pick("sensible") == pick
    assert [row["trial"] for row in shown.to_rows() if row["sensible"]] == [pick.number]
    assert [number for number, words in marks_of(shown).items() if "sensible" in words.split()] == [pick.number]
    assert f"sensible: trial {pick.number}, the cheapest that cannot be told from the best" in shown.to_text(width=3000)
    assert re.search(rf"the sensible one, .*\(trial {pick.number}\)\.", statement(run))
    assert View.of(Front.of(run)).named[0] == ("sensible", pick)
    rows = leaderboard([run, run]).to_rows()
    assert {row["sensible_train_wh"] for row in rows} == {pick.train_wh}
