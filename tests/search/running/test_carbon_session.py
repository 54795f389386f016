"""A whole run with a clock that jumps: nothing sleeps, everything else is real."""

import json
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from joulefront.search import Budget, Study, run
from joulefront.search.billing.account import Account
from joulefront.search.carbon.forecast import IntensityCurve, hours_of
from joulefront.search.carbon.intensity import Intensity
from joulefront.search.records.run_folder import RunFolder, StoreError
from joulefront.search.running.clean_hours import CarbonTime, carbon_time_of
from joulefront.search.stopping.rules import Limits

pytestmark = pytest.mark.slow

Maker = Callable[..., Study]
MORNING = datetime(2026, 3, 1, 8, tzinfo=UTC)
#: Dirty until noon, clean until 18 h, dirty again.
DAY = IntensityCurve((0.0, 12.0, 18.0), (400.0, 100.0, 400.0), shape="step")


class Jumps:
    """A clock on which waiting takes no time; an hour of it is a real second of work."""

    def __init__(self, start: datetime = MORNING) -> None:
        self.begin, self.real, self.jumped, self.waits = hours_of(start), time.monotonic(), 0.0, 0

    def hour(self) -> float:
        return self.begin + self.jumped + (time.monotonic() - self.real) / 3600.0

    def wait(self, hours: float, broken_off: threading.Event) -> None:
        self.jumped += max(hours, 0.25)  # quarters of an hour: the slices of a real wait would be thousands
        self.waits += 1


def aware(hours: float = 24.0, curve: Any = DAY, clock: Jumps | None = None) -> CarbonTime:
    return CarbonTime(curve, MORNING + timedelta(hours=hours), clock or Jumps())


def facts(path: Path) -> Any:
    return RunFolder.open(path).run().facts


def test_large_trainings_wait_for_noon_and_the_grams_that_they_save_are_told(rings: Maker, tmp_path: Path) -> None:
    run(rings(sampler="random", trials=8), out=tmp_path / "r", carbon=aware(), meter="cpu_time")
    session = facts(tmp_path / "r")["carbon"][0]
    assert session["hours_waited"] == pytest.approx(4.0, abs=0.3)
    assert session["trainings"]["grams"] < session["trainings"]["grams_at_once"]
    trained = {round(hour["grams"] / hour["joules"] * 3.6e6): hour["joules"] for hour in session["hours"] if hour["joules"]}
    assert trained[100] > 0
    # At once everything would have run at 400 g/kWh: the saving is three quarters of what ran at noon.
    saved = session["trainings"]["grams_at_once"] - session["trainings"]["grams"]
    assert saved == pytest.approx(trained[100] / 3.6e6 * 300.0, rel=0.01)
    for trial in RunFolder.open(tmp_path / "r").run().trials:
        assert trial.train_joules is not None
        assert trial.grams_co2e is not None
        assert 99.9 < trial.grams_co2e / trial.train_joules * 3.6e6 < 400.1


def test_our_sampler_trains_small_ones_in_the_morning_and_complete_ones_at_noon(rings: Maker, tmp_path: Path) -> None:
    run(rings(sampler="freeze-thaw", trials=16), out=tmp_path / "r", carbon=aware(), meter="cpu_time")
    trials = RunFolder.open(tmp_path / "r").run().trials
    assert any(trial.complete_training for trial in trials)
    rate = {trial.number: (trial.grams_co2e or 0.0) / (trial.train_joules or 1.0) * 3.6e6 for trial in trials}
    first = [trial for trial in trials if trial.parent is None]
    assert min(rate[trial.number] for trial in trials if trial.complete_training) < 399.0
    assert max(rate[trial.number] for trial in first) == pytest.approx(400.0, rel=1e-3)
    assert facts(tmp_path / "r")["carbon"][0]["hours_waited"] == pytest.approx(4.0, abs=0.3)


def test_without_a_deadline_nothing_waits_and_grams_follow_the_hour(rings: Maker, tmp_path: Path) -> None:
    clock = Jumps()
    run(rings(trials=2), out=tmp_path / "r", carbon=CarbonTime(DAY, None, clock), meter="cpu_time")
    assert clock.waits == 0
    for trial in RunFolder.open(tmp_path / "r").run().trials:
        assert trial.grams_co2e == pytest.approx((trial.train_joules or 0.0) / 3.6e6 * 400.0)


def test_the_mean_intensity_of_a_run_gives_back_its_grams(rings: Maker, tmp_path: Path) -> None:
    run(rings(trials=6), out=tmp_path / "r", carbon=aware(), pue=1.5, meter="cpu_time")
    found = RunFolder.open(tmp_path / "r").run()
    place, session = found.facts["intensity"], found.facts["carbon"][0]
    assert 100.0 < place["grams_per_kwh"] < 400.0
    assert "forecast" in place["source"]
    assert found.bill.total_joules is not None
    # What ends the session comes after the last price and is in the bill alone; on a busy machine that is a few percent of so short a run.
    assert found.bill.total_joules / 3.6e6 * place["grams_per_kwh"] * 1.5 == pytest.approx(session["grams"], rel=0.1)


def test_waiting_is_on_the_ledger_but_no_trial(rings: Maker, tmp_path: Path) -> None:
    run(rings(trials=4), out=tmp_path / "r", carbon=aware(), meter="cpu_time")
    found = RunFolder.open(tmp_path / "r").run()
    assert len(found.trials) == 4
    assert found.bill.total_joules == pytest.approx(sum(found.bill.by_state.values()), rel=1e-6)


def test_a_function_is_a_forecast_too(rings: Maker, tmp_path: Path) -> None:
    asked: list[datetime] = []

    def forecast(moment: datetime) -> float:
        asked.append(moment)
        return 100.0 if moment.hour >= 12 else 400.0

    run(rings(trials=4), out=tmp_path / "r", carbon=aware(curve=forecast), meter="cpu_time")
    assert all(moment.tzinfo is UTC for moment in asked)
    assert facts(tmp_path / "r")["carbon"][0]["hours_waited"] > 3.0


def test_interrupted_while_it_waits_a_run_ends(rings: Maker, tmp_path: Path) -> None:
    import signal

    class Pressed(Jumps):
        def wait(self, hours: float, broken_off: threading.Event) -> None:
            signal.raise_signal(signal.SIGINT)

    run(rings(trials=20), out=tmp_path / "r", carbon=aware(clock=Pressed()), meter="cpu_time")
    found = RunFolder.open(tmp_path / "r").run()
    assert found.facts["sessions"][-1]["reason"] == "interrupted"
    assert "before its training began" in str(found.trials[-1].reason)
    assert found.trials[-1].increment_joules == 0.0


def test_carbon_as_an_objective_is_what_was_emitted_when_it_was_trained(rings: Maker, tmp_path: Path) -> None:
    run(rings(objectives=("accuracy", "train_co2"), sampler="freeze-thaw", trials=12), out=tmp_path / "r", carbon=aware(), meter="cpu_time")
    trials = RunFolder.open(tmp_path / "r").run().trials
    assert all(trial.values[1] == trial.grams_co2e for trial in trials if trial.state == "complete")
    by_number = {trial.number: trial for trial in trials}
    for trial in trials:
        if trial.parent is not None:
            assert (trial.grams_co2e or 0.0) > (by_number[trial.parent].grams_co2e or 0.0)


def test_a_budget_in_grams_ends_when_the_grams_are_spent(rings: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A ledger on which each epoch takes exactly 1 J and nothing else takes anything: in the morning at 400 g/kWh all along.
    paid: list[float] = []
    monkeypatch.setattr(Account, "save_sometimes", lambda self: paid.append(1.0))
    monkeypatch.setattr(Account, "spent_joules", lambda self: sum(paid))
    study = rings(trials=None, budget=Budget(grams_co2e=14.5 / 3.6e6 * 400.0), rungs=(8,))
    run(study, out=tmp_path / "r", carbon=CarbonTime(DAY, None, Jumps()), meter="cpu_time")
    found = RunFolder.open(tmp_path / "r").run()
    assert "budget" in found.facts["sessions"][-1]["reason"]
    assert [trial.epochs for trial in found.trials] == [8, 7]
    assert found.facts["carbon"][0]["grams"] == pytest.approx(15.0 / 3.6e6 * 400.0)


def test_a_run_keeps_to_one_way_of_counting_grams(rings: Maker, tmp_path: Path) -> None:
    run(rings(trials=1), out=tmp_path / "r", carbon=CarbonTime(DAY, None, Jumps()), meter="cpu_time")
    with pytest.raises(StoreError, match="add --forecast"):
        run(rings(trials=2), out=tmp_path / "r", intensity=Intensity(56.0), meter="cpu_time")
    run(rings(trials=1), out=tmp_path / "s", intensity=Intensity(56.0), meter="cpu_time")
    with pytest.raises(StoreError, match="leave out --forecast"):
        run(rings(trials=2), out=tmp_path / "s", carbon=CarbonTime(DAY, None, Jumps()), meter="cpu_time")
    run(rings(trials=2), out=tmp_path / "r", carbon=CarbonTime(DAY, None, Jumps()), meter="cpu_time")
    assert len(facts(tmp_path / "r")["carbon"]) == 2


def test_an_end_in_time_alone_does_not_say_how_much_can_wait(rings: Maker, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="add --budget 5Wh or --trials"):
        run(rings(trials=None), out=tmp_path / "r", carbon=aware(), timeout_seconds=5.0, meter="cpu_time")
    with pytest.raises(ValueError, match="not both"):
        run(rings(), out=tmp_path / "r", carbon=aware(), intensity=Intensity(56.0))


def options(tmp_path: Path, **changes: Any) -> dict[str, Any]:
    file = tmp_path / "day.csv"
    file.write_text("hour,g_per_kwh\n0,400\n12,100\n")
    given = {"forecast": file, "deadline": "24h", "carbon_aware": True, "zone": None, "grams_per_kwh": None, "network": False}
    return given | changes


def test_the_command_line_reads_a_day(tmp_path: Path) -> None:
    found = carbon_time_of(**options(tmp_path, zone="DE"))
    assert found is not None
    assert found.deadline is not None
    assert timedelta(hours=23, minutes=59) < found.deadline - datetime.now(UTC) <= timedelta(hours=24)
    assert found.nominal().zone == "DE"
    assert found.nominal().grams_per_kwh == pytest.approx(250.0, rel=0.01)
    assert carbon_time_of(**options(tmp_path, forecast=None, deadline=None, carbon_aware=False)) is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"forecast": None}, "--carbon-aware needs a forecast.*--forecast FILE.csv"),
        ({"deadline": None}, "add --deadline 24h"),
        ({"carbon_aware": False}, "add --carbon-aware"),
        ({"grams_per_kwh": 56.0}, "--intensity 56 exclude each other"),
        ({"network": True}, "--network exclude each other"),
        ({"deadline": "soon"}, "--deadline must be .*'soon'"),
        ({"deadline": "-3h"}, "--deadline must be .*'-3h'"),
        ({"deadline": "2020-01-01"}, "--deadline 2020-01-01 00:00 UTC has passed"),
    ],
)
def test_bad_options_say_what_to_do(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        carbon_time_of(**options(tmp_path, **changes))


def test_a_bad_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"--forecast .*none.csv.*no such file"):
        carbon_time_of(**options(tmp_path, forecast=tmp_path / "none.csv"))
    bad = tmp_path / "bad.csv"
    bad.write_text("when,what\n1,2\n")
    with pytest.raises(ValueError, match=r"--forecast .*bad.csv: the header must name a time"):
        carbon_time_of(**options(tmp_path, forecast=bad))
    bad.write_text("hour,g_per_kwh\n1,2\n1,3\n")
    with pytest.raises(ValueError, match=r"--forecast .*bad.csv: .*strictly increasing"):
        carbon_time_of(**options(tmp_path, forecast=bad))


def test_a_forecast_that_ends_before_the_deadline_is_refused(tmp_path: Path) -> None:
    now = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    file = tmp_path / "tomorrow.csv"
    file.write_text("datetime,g_per_kwh\n" + "".join(f"{(now + timedelta(hours=k)).isoformat()},{100 + k}\n" for k in range(12)))
    assert carbon_time_of(**options(tmp_path, forecast=file, deadline="10h")) is not None
    with pytest.raises(ValueError, match=r"tomorrow.csv\) ends at .* the deadline is .* earlier --deadline"):
        carbon_time_of(**options(tmp_path, forecast=file))
    file.write_text(f"datetime,g_per_kwh\n{(now + timedelta(days=1)).isoformat()},1\n{(now + timedelta(days=3)).isoformat()},1\n")
    with pytest.raises(ValueError, match="begins at"):
        carbon_time_of(**options(tmp_path, forecast=file))


def test_past_the_end_of_a_forecast_a_study_that_needs_grams_ends_and_others_go_on(rings: Maker, tmp_path: Path) -> None:
    start = hours_of(MORNING)
    short = IntensityCurve((start - 1.0, start + 0.5), (300.0, 300.0), None)

    class Late(Jumps):
        def hour(self) -> float:
            return self.begin + 2.0 * (time.monotonic() - self.real)  # half a real second is an hour

    run(rings(trials=12), out=tmp_path / "r", carbon=CarbonTime(short, None, Late()), meter="cpu_time")  # longer than a quarter of a second
    trials = RunFolder.open(tmp_path / "r").run().trials
    assert [trial.state for trial in trials] == ["complete"] * 12
    assert trials[-1].grams_co2e is None
    assert facts(tmp_path / "r")["intensity"] is None
    assert json.dumps(facts(tmp_path / "r")["carbon"])
    study = rings(objectives=("accuracy", "train_co2"), trials=200)
    run(study, out=tmp_path / "s", carbon=CarbonTime(short, None, Late()), meter="cpu_time")
    assert "forecast ends" in facts(tmp_path / "s")["sessions"][-1]["reason"]


def test_limits_other_than_grams_stay_as_they_are(rings: Maker, tmp_path: Path) -> None:
    run(rings(trials=3), out=tmp_path / "r", carbon=CarbonTime(DAY, None, Jumps()), meter="cpu_time")
    assert "3 trials" in facts(tmp_path / "r")["sessions"][-1]["reason"]
    assert Limits(trials=3).joules is None
