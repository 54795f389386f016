"""The table of a front: marks and columns of repeats."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from helpers.trials import TWO, complete

from joulefront.search.front import Front
from joulefront.search.records.replicates import Plan, Repeat, Repeats
from joulefront.search.records.run_folder import Run
from joulefront.search.records.trial import ComponentEnergy, Trial
from joulefront.search.report.front_view import front_text as to_text
from joulefront.search.report.front_view import one_model
from joulefront.search.report.table import marks_of, to_csv, to_rows


def said(front: Front) -> str:
    return to_text(front, width=3000)


def test_ties_are_decided_by_the_repeats_where_both_neighbours_have_them(
    fake_run_maker: Callable[..., Run], repeated: Callable[..., Run]
) -> None:
    run = fake_run_maker()
    front = Front.of(run)
    assert len(front) > 2
    wide = Front.of(repeated(run, spread=3.0, times=5))  # the energies spread over each other, the qualities do not
    for trial in wide.members[1:]:
        assert "≈" in marks_of(wide)[trial.number].split()
    assert "≈ costs the same as the row above within the uncertainty." in said(wide)
    sharp = Front.of(repeated(run, spread=1e-6))
    assert not any(sign in mark for mark in marks_of(sharp).values() for sign in "≈≡")
    alone = Front.of(repeated(run, only=front.members[0].number))
    assert {number: mark for number, mark in marks_of(alone).items() if "≈" in mark} == {
        number: mark for number, mark in marks_of(front).items() if "≈" in mark
    }


def test_neighbours_that_differ_in_nothing_are_marked_so(fake_run: Run) -> None:
    front = Front.of(fake_run)
    first, second = front.members[:2]
    repeats = Repeats().with_plan(Plan("now", (first.number, second.number), 5, "given", 0))
    for number in range(5):
        for trial in (first, second):
            repeats = repeats.with_training(Repeat(0, trial.number, number, number, 1, 1, {"accuracy": 0.5 + number}, 10.0 + number))
    tied = Front.of(replace(fake_run, repeats=repeats))
    assert marks_of(tied)[second.number].split()[-1] == "≡"
    few = replace(repeats, trainings=repeats.trainings[:4])  # two of each have no power against what the search measured
    assert second.number not in marks_of(Front.of(replace(fake_run, repeats=few)))
    assert "≡ differs from the row above neither in energy nor in accuracy." in said(tied)
    assert [trial.number for trial in tied] == [trial.number for trial in front]


def test_the_front_shows_the_means_beside_what_the_search_measured(fake_run: Run, repeated: Callable[..., Run]) -> None:
    run = repeated(fake_run)
    plain, text = to_text(Front.of(fake_run), width=300), to_text(Front.of(run), width=300)
    head = next(line for line in text.splitlines() if line.startswith("trial")).split()
    assert head.count("repeats") == 2
    assert "repeats" not in plain
    rows = [line for line in text.splitlines() if line.strip()[:1].isdigit() and "±" in line]
    for trial, line in zip(Front.of(run), rows, strict=False):
        assert f"{trial.values[0]:.4f}" in line
        assert f"{trial.values[0] - 0.01:.4f} ±0.0020" in line
        assert "±2 %" in line


def beside_others(number: int, accuracy: float, joules: float, **facts: Any) -> Trial:
    return complete(number, accuracy, joules, train_u_joules=0.15 * joules, contended=True, **facts)


def test_what_was_trained_beside_foreign_work_is_marked_and_ties_are_told_by_its_wider_uncertainty() -> None:
    alone = Front((complete(0, 0.8, 100.0, train_u_joules=1.0), complete(1, 0.9, 110.0, train_u_joules=1.0)), *TWO)
    assert "†" not in said(alone)
    assert "≈" not in said(alone)
    front = Front((complete(0, 0.8, 100.0, train_u_joules=1.0), beside_others(1, 0.9, 110.0)), *TWO)
    assert marks_of(front)[1].split()[-2:] == ["≈", "†"]
    assert "† was trained while other programs used the machine" in said(front)
    assert [row["contended"] for row in to_rows(front)] == [False, True]


def test_the_idle_part_of_a_gpu_is_told_and_what_would_measure_it() -> None:
    assert "GPU" not in said(Front((complete(0, 0.8, 100.0, components={"cpu": ComponentEnergy(100.0, "measured", "rapl")}),), *TWO))
    unknown = {"gpu:a": ComponentEnergy(80.0, "measured", "nvml"), "cpu": ComponentEnergy(20.0, "measured", "rapl")}
    assert "is not known: --idle 10 measures that." in said(Front((complete(0, 0.8, 100.0, components=unknown),), *TWO))
    known = {**unknown, "gpu:a": ComponentEnergy(80.0, "measured", "nvml", 60.0)}
    assert "75% of the GPU's part it draws without any work." in said(Front((complete(0, 0.8, 100.0, components=known),), *TWO))


def test_the_members_of_an_ensemble_are_a_column_of_json() -> None:
    trials = (complete(0, 0.8, 10.0), complete(1, 0.9, 20.0, params={"family": "ensemble"}, extra={"members": [0, 0]}))
    rows = list(csv.DictReader(io.StringIO(to_csv(Front(trials, *TWO)))))
    assert [row["members"] for row in rows] == ["", "[0, 0]"]
    assert "members" not in to_csv(Front(trials[:1], *TWO))
    (names, directions) = TWO
    named = Front(trials[:1], ("=cmd|'/C calc'!A0", *names[1:]), directions)
    assert to_csv(named).count("=cmd|") == to_csv(named).count("'=cmd|") > 0, "no spreadsheet computes the name of an objective"


def test_a_complete_trial_is_shown_where_the_front_is_empty() -> None:
    front = Front((complete(0, 0.8, 0.0), complete(1, 0.9, 0.0)), *TWO)
    assert not len(front)
    assert one_model(front, front.pick("trial=1")).startswith("trial 1 (not on the front): accuracy 0.9")
    assert [row["sensible"] for row in to_rows(front, [front.pick("trial=0")])] == [False]


def test_best_means_one_trial_once_repeats_decide_and_it_is_said(fake_run: Run) -> None:
    run, means = replace(fake_run, trials=(complete(0, 0.95, 100.0), complete(1, 0.96, 1000.0))), (0.955, 0.94)
    trainings = tuple(
        Repeat(0, n, k, 2 * k + n, k, 1, {"accuracy": mean + 0.0005 * (k - 1)}, 100.0 + k, 1.0, 100.0)
        for k in range(3)
        for n, mean in enumerate(means)
    )
    front = Front.of(replace(run, repeats=Repeats((Plan("", (0, 1), 3, "given", 0),), trainings)))
    assert front.best().number == front.pick("best").number == front.choice.best == 0
    assert "best" in marks_of(front)[0]
    assert "before the repeats the best was trial 1" in said(front)


def test_a_second_quality_is_in_the_rows_and_in_the_table() -> None:
    trials = (complete(0, 0.9, 40.0, values=(0.9, 0.97, 40.0)), complete(1, 0.8, 50.0, values=(0.8, 0.99, 50.0)))
    front = Front(trials, ("accuracy", "auc", "train_energy"), ("maximize", "maximize", "minimize"))
    assert [row["auc"] for row in to_rows(front)] == [0.97, 0.99]
    assert [row["auc"] for row in csv.DictReader(io.StringIO(to_csv(front)))] == ["0.97", "0.99"]
    assert "auc" in said(front)
    assert "0.9900" in said(front)


def test_energies_that_hardly_spread_are_not_said_to_spread_by_nothing(fake_run: Run) -> None:
    run = replace(fake_run, trials=(complete(0, 0.9, 100.0), complete(1, 0.95, 1000.0)))
    trainings = tuple(Repeat(0, n, k, k, k, 1, {"accuracy": 0.9}, (100.0, 1000.0)[n] * (1 + 0.004 * k)) for n in (0, 1) for k in (0, 1))
    front = Front.of(replace(run, repeats=Repeats((Plan("", (0, 1), 2, "given", 0),), trainings)))
    assert "spread by 0.3 to 0.3 % here (sd)" in said(front)


def test_errors_in_the_unit_of_the_data_have_no_exponent(fake_run: Run) -> None:
    trials = tuple(replace(one, values=(100_000 * one.values[0], *one.values[1:])) if one.values else one for one in fake_run.trials)
    facts = {**fake_run.facts, "guessing": {"rmse": 79432.1}}
    run = replace(fake_run, objectives=("rmse", "train_energy"), directions=("minimize", "minimize"), trials=trials, facts=facts)
    assert "Guessing gives rmse 79,432" in " ".join(to_text(Front.of(run)).split())
