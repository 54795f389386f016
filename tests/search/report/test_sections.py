"""The sections of the page without a chart: carbon by the hour, estimates, projections, repeats."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from joulefront.search.carbon.forecast import IntensityCurve
from joulefront.search.front import Front
from joulefront.search.records.bill import Bill
from joulefront.search.records.run_folder import Run
from joulefront.search.records.trial import Trial
from joulefront.search.report.sections import carbon_section, estimate_section, projection_section, repeats_section
from joulefront.search.running.carbon_log import CarbonLog

DAY = IntensityCurve((0.0, 12.0, 18.0), (400.0, 100.0, 400.0), shape="step", source="day.csv")


def session(**changes: Any) -> dict[str, Any]:
    """Six Wh trained from 10 h to 11 h, four hours of waiting, six Wh from 15 h to 16 h."""
    book = CarbonLog(DAY, 1.0, 10.0)
    book.trained(10.0, 11.0, 21_600.0)
    book.waited(11.0, 15.0, 3600.0)
    book.trained(15.0, 16.0, 21_600.0)
    return {**book.to_json(), "deadline": "1970-01-02T00:00+00:00", **changes}


def carbon_text(run: Run, *sessions: dict[str, Any]) -> str:
    return carbon_section(replace(run, facts={**run.facts, "carbon": list(sessions)}))


def test_the_saving_stands_beside_what_waiting_cost(fake_run: Run) -> None:
    text = carbon_text(fake_run, session())
    # 6 Wh at 400 and 6 Wh at 100 g/kWh are 3 g. Without waiting the second hour would have been 11 to 12 h, at 400: 4.8 g.
    assert "emitted 3 gCO2e" in text
    assert "Against the same trainings without waiting (4.8 gCO2e), -38 %" in text
    assert "waited 4.0 h the machine took 1 Wh (0.175 gCO2e)" in text  # one hour at 400, three at 100
    assert "1970-01-01 15:00" in text
    assert "forecast (day.csv)" in text


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"deadline": None}, "emitted 3 gCO2e.</p>"),
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
    assert carbon_section(fake_run) == ""


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
    assert estimate_section(run_of([])) == ""
    assert projection_section(run_of([trial(0, 1, [3.0])])) == ""


def test_the_refined_estimate_stands_beside_what_it_became() -> None:
    estimate = {"share": 0.5, "done": 6, "joules": 80.0, "low_joules": 70.0, "high_joules": 90.0}
    estimate |= {"trials": 12.0, "low_trials": 12.0, "high_trials": 12.0}
    text = estimate_section(run_of([trial(n, 1, [1.0]) for n in range(12)], {"expected": [estimate]}))
    assert "at 50% of it, after 6 trials" in text
    assert "1.25" in text
    assert ">no<" in text  # 100 J are outside of 70 to 90 J
    assert ">yes<" not in text  # that 12 trials become 12 was a limit, no estimate


def test_a_projection_is_compared_with_the_training_that_continued() -> None:
    text = projection_section(run_of([trial(0, 1, [4.0]), trial(1, 3, [2.0, 2.0], parent=0)]))
    assert "50.0%" in text  # 12 J projected, 8 J paid
    assert "+50.0%" in text


def test_the_report_has_a_section_with_a_row_a_member(fake_run: Run, repeated: Callable[..., Run]) -> None:
    run = repeated(fake_run)
    html = repeats_section(run)
    assert html.count("<tr>") == 1 + len(Front.of(run))
    assert "Repeats are neither trials nor points of the front." in html
    assert "accuracy is 0.0100 worse than in the search" in html
    assert repeats_section(fake_run) == ""
