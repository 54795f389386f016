"""What the report says of clean hours."""

from dataclasses import replace
from typing import Any

import pytest

from joulefront.search.carbon.forecast import IntensityCurve
from joulefront.search.records.run_folder import Run
from joulefront.search.report.sections import carbon_section
from joulefront.search.running.carbon_log import CarbonLog

DAY = IntensityCurve((0.0, 12.0, 18.0), (400.0, 100.0, 400.0), shape="step", source="day.csv")


def session(**changes: Any) -> dict[str, Any]:
    """Six Wh trained from 10 h to 11 h, four hours of waiting, six Wh from 15 h to 16 h."""
    book = CarbonLog(DAY, 1.0, 10.0)
    book.trained(10.0, 11.0, 21_600.0)
    book.waited(11.0, 15.0, 3600.0)
    book.trained(15.0, 16.0, 21_600.0)
    return {**book.to_json(), "deadline": "1970-01-02T00:00+00:00", **changes}


def text_of(run: Run, *sessions: dict[str, Any]) -> str:
    return carbon_section(replace(run, facts={**run.facts, "carbon": list(sessions)}))


def test_the_saving_is_told_with_what_waiting_took(fake_run: Run) -> None:
    text = text_of(fake_run, session())
    # 6 Wh at 400 and 6 Wh at 100 g/kWh are 3 g. Without waiting the second hour would have been 11 to 12 h, at 400: 4.8 g.
    assert "emitted 3 gCO2e" in text
    assert "Against the same trainings without waiting (4.8 gCO2e), -38 %" in text
    assert "waited 4.0 h the machine took 1 Wh (0.175 gCO2e)" in text  # one hour at 400, three at 100
    assert "1970-01-01 15:00" in text
    assert "forecast (day.csv)" in text


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"deadline": None}, "emitted 3 gCO2e.</p>"),
        ({"hours_waited": 0.0}, "None waited."),
        ({"trainings": {"joules": None, "grams": None, "grams_at_once": None}}, "the grams of this session are unknown"),
    ],
)
def test_what_did_not_happen_is_not_claimed(fake_run: Run, changes: dict[str, Any], said: str) -> None:
    text = text_of(fake_run, session(**changes))
    assert said in text
    assert "Against the same" not in text


def test_every_session_is_told_and_a_run_without_a_forecast_says_nothing(fake_run: Run) -> None:
    assert text_of(fake_run, session(), session()).count("Against the same") == 2
    assert text_of(fake_run) == ""
    assert carbon_section(fake_run) == ""
