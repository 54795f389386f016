"""What the page shows folded away: carbon by the hour, estimates, projections, repeats, failures, what it takes to do it again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from joulefront.search.carbon.forecast import IntensityCurve
from joulefront.search.formatting import Unit
from joulefront.search.front import Front
from joulefront.search.records.bill import Bill
from joulefront.search.records.run_folder import Run
from joulefront.search.records.trial import Trial
from joulefront.search.report.sections import (
    Section,
    anchor_section,
    carbon_section,
    data_section,
    estimate_section,
    failures_section,
    projection_section,
    repeats_section,
    reproduce_section,
    sections,
)
from joulefront.search.running.carbon_session import CarbonLog

DAY = IntensityCurve((0.0, 12.0, 18.0), (400.0, 100.0, 400.0), shape="step", source="day.csv")


def session(**changes: Any) -> dict[str, Any]:
    """Six Wh trained from 10 h to 11 h, four hours of waiting, six Wh from 15 h to 16 h."""
    book = CarbonLog(DAY, 1.0, 10.0)
    book.trained(10.0, 11.0, 21_600.0)
    book.waited(11.0, 15.0, 3600.0)
    book.trained(15.0, 16.0, 21_600.0)
    return {**book.to_json(), "deadline": "1970-01-02T00:00+00:00", **changes}


def written(found: Section | None) -> str:
    """All texts of a block, a line each."""
    if found is None:
        return ""
    rows = [cell for table in found.tables for row in (table.head, *table.rows) for cell in row]
    return "\n".join([found.title, *found.lines, *rows, *found.notes])


def carbon_text(run: Run, *sessions: dict[str, Any]) -> str:
    return written(carbon_section(replace(run, facts={**run.facts, "carbon": list(sessions)})))


def test_the_saving_stands_beside_what_waiting_cost(fake_run: Run) -> None:
    text = carbon_text(fake_run, session())
    # 6 Wh at 400 and 6 Wh at 100 g/kWh are 3 g. Without waiting the second hour would have been 11 to 12 h, at 400: 4.8 g.
    assert "emitted 3 gCO2e" in text
    assert "Against the same trainings without waiting (4.8 gCO2e), -38 %" in text
    assert "waited 4.00 h the machine took 1 Wh (0.175 gCO2e)" in text  # one hour at 400, three at 100
    assert "1970-01-01 15:00" in text
    assert "forecast (day.csv)" in text


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"deadline": None}, "emitted 3 gCO2e.\n"),
        ({"hours_waited": 0.0}, "None waited."),
        ({"trainings": {"joules": None, "grams": None, "grams_at_once": None}}, "the grams of this session are unknown"),
    ],
)
def test_what_did_not_happen_is_not_claimed(fake_run: Run, changes: dict[str, Any], expected: str) -> None:
    text = carbon_text(fake_run, session(**changes))
    assert expected in text
    assert "Against the same" not in text


def test_every_session_has_its_sentence_and_a_run_without_a_forecast_has_no_section(fake_run: Run) -> None:
    assert carbon_text(fake_run, session(), session()).count("Against the same") == 2
    assert carbon_text(fake_run) == ""
    assert carbon_section(fake_run) is None


def run_of(trials: list[Trial], facts: dict[str, Any] | None = None, joules: float = 100.0) -> Run:
    return Run(
        "r", Path(), ("accuracy", "train_energy"), ("maximize", "minimize"), (1, 3), tuple(trials), Bill(total_joules=joules), facts or {}
    )


def trial(number: int, epochs: int, joules: list[float], parent: int | None = None) -> Trial:
    first = epochs - len(joules) + 1
    return Trial(
        number, "complete", {}, epochs, parent=parent, curve=tuple({"epoch": first + k, "joules": x} for k, x in enumerate(joules))
    )


def test_without_an_estimate_there_is_no_section() -> None:
    assert estimate_section(run_of([])) is None
    assert projection_section(run_of([trial(0, 1, [3.0])])) is None


def test_the_refined_estimate_stands_beside_what_it_became() -> None:
    estimate = {"share": 0.5, "done": 6, "joules": 80.0, "low_joules": 70.0, "high_joules": 90.0}
    estimate |= {"trials": 12.0, "low_trials": 12.0, "high_trials": 12.0}
    text = written(estimate_section(run_of([trial(n, 1, [1.0]) for n in range(12)], {"expected": [estimate]})))
    assert "at 50% of it, after 6 trials" in text
    assert "1.25" in text
    assert "\nno" in text  # 100 J are outside of 70 to 90 J
    assert "\nyes" not in text  # that 12 trials become 12 was a limit, no estimate


def test_a_projection_is_compared_with_the_training_that_continued() -> None:
    text = written(projection_section(run_of([trial(0, 1, [4.0]), trial(1, 3, [2.0, 2.0], parent=0)])))
    assert "50.0%" in text  # 12 J projected, 8 J paid
    assert "+50.0%" in text


def test_the_report_has_a_section_with_a_row_a_member(fake_run: Run, repeated: Callable[..., Run]) -> None:
    run = repeated(fake_run)
    found = repeats_section(run)
    assert found is not None
    assert len(found.tables[0].rows) == len(Front.of(run))
    assert "Repeats are neither trials nor points of the front." in written(found)
    assert "accuracy is 0.0100 worse than in the search" in written(found)
    assert repeats_section(fake_run) is None


def test_estimate_and_anchor_appear_when_the_run_holds_them(fake_run: Run) -> None:
    total = fake_run.bill.total_joules or 0.0
    estimate = {
        "joules": total / 1.25,
        "low_joules": total / 2,
        "high_joules": total * 2,
        "trials": 10.0,
        "low_trials": 5.0,
        "high_trials": 15.0,
    }
    run = replace(
        fake_run, facts={**fake_run.facts, "estimate": estimate, "anchor": {"joules": [100.0, 102.0, 104.0], "params": {"family": "mlp"}}}
    )
    found = {one.title: one for one in sections(run)}
    energy, trials = found["Estimate against actual"].tables[0].rows
    assert energy[-2:] == ["1.25", "yes"]  # actual over estimate, inside the interval
    assert trials[-2:] == ["4.00", "no"]  # 40 trials against 10
    spent = replace(run.bill, overhead_parts={**run.bill.overhead_parts, "showing": total / 5})
    again = estimate_section(replace(run, bill=spent))
    assert again is not None
    assert again.tables[0].rows[0][-2] == "1.00"  # of showing the front there is no estimate
    assert "n = 3" in written(found["Drift of the anchor"])
    assert "last against first +4.0 %" in written(found["Drift of the anchor"])
    for nothing, said in (([0.0, 1.0], "last against first -"), ([0.0, 0.0], "median 0 Wh; last against first -")):
        assert said in written(anchor_section(replace(run, facts={"anchor": {"joules": nothing}})))  # below what the meter tells


def test_failed_trials_are_grouped_by_their_reason_with_what_they_cost(fake_run: Run) -> None:
    found = failures_section(fake_run, Unit(3.6, "mWh"))
    assert found is not None
    assert found.tables[0].head[1] == "mWh"
    lost = [t for t in fake_run.trials if t.reason == "the loss became NaN in epoch 1"]
    row = next(row for row in found.tables[0].rows if row[2] == "the loss became NaN in epoch 1")
    assert row[0] == str(len(lost))
    assert float(row[1].replace(",", "")) == pytest.approx(sum(t.increment_joules or 0.0 for t in lost) / 3.6, rel=0.01)


def test_what_it_takes_to_do_it_again_is_there(fake_run: Run) -> None:
    text = written(reproduce_section(fake_run))
    assert "NVIDIA <Example> 24 GB" in text
    assert "joulefront run images --data photos" in text
    assert "seed" in text


def test_what_the_data_was_made_of_is_there_where_the_run_kept_it(fake_run: Run) -> None:
    data = {
        "name": "cats",
        "kind": "classification",
        "metric": "accuracy",
        "examples": {"train": 8, "validation": 2},
        "warnings": ["the column 'id' is a number of rows"],
    }
    data |= {
        "classes": {"train": {"cat": 5, "dog": 3}},
        "columns": [{"name": "age", "as": "number"}, {"name": "id", "as": "dropped", "reason": "a row number"}],
    }
    found = data_section(replace(fake_run, facts={**fake_run.facts, "data": data}))
    assert found is not None
    assert [list(table.rows) for table in found.tables] == [
        [["cat", "5"], ["dog", "3"]],
        [["age", "number", "-", ""], ["id", "dropped", "-", "a row number"]],
    ]
    assert found.notes[-1] == "Warning: the column 'id' is a number of rows"
    assert data_section(fake_run) is None
