"""The parts about the meter, over the fake driver: they find what its knobs say, and miss the bars that it breaks."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pynvml
import pytest
from helpers import forked

from hardware import nvml_parts, sharing_parts
from hardware.oracle import TRACES, TRACES_BYTES, Gpu, Recorder, add_trace, driver_curve
from hardware.table import Figure
from joulefront.search.energy.sources.replay import Replay, Trace, read_traces


def by_name(result):
    json.dumps(result)  # every part's result can be stored
    return {row["name"]: Figure(**row) for row in result["figures"]}


@pytest.mark.slow
def test_facts_say_what_the_driver_gives(faked):
    result = nvml_parts.facts(faked())
    figures = by_name(result)
    assert all(figure.met is not False for figure in figures.values())
    assert result["details"]["driver_says"]["Name"] == "Fake GPU"
    assert "NVMLError" in result["details"]["driver_says"]["PersistenceMode"]  # the fake driver lacks it: said, not raised


def test_facts_miss_the_bar_where_there_is_no_counter(faked):
    figures = by_name(nvml_parts.facts(faked(counter=0)))
    assert figures["the driver has an energy counter"].verdict == "missed"
    assert figures["the driver gives the instant power"].verdict == "met"


@pytest.mark.slow
def test_tick_finds_the_refresh_and_no_lag(faked):
    context = faked(tick=0.05, refresh=0.02)
    figures = by_name(nvml_parts.tick(context))
    assert figures["refresh period of the counter, median"].value == pytest.approx(0.05, rel=0.2)
    assert (
        figures["refresh period of the instant power, median"].verdict != "met"
    )  # this sensor is free of noise: it changes with the load only
    assert figures["lag of the counter behind the load (the ledger allows for 0.1 s)"].verdict == "met"
    assert figures["lag of the instant power behind the load"].verdict == "met"
    (trace,) = read_traces(context.out / TRACES)
    assert trace.component == "gpu:step"


@pytest.mark.slow
def test_a_counter_that_lags_misses_its_bar(faked):
    figure = by_name(nvml_parts.tick(faked(early=0.1)))["lag of the counter behind the load (the ledger allows for 0.1 s)"]
    assert figure.value == pytest.approx(0.1, abs=0.03)
    assert figure.verdict == "missed"


@pytest.mark.slow
@pytest.mark.parametrize(("gain", "verdict"), [(1.0, "met"), (1.1, "missed")])
def test_counter_and_integrated_power_agree_or_not(faked, monkeypatch, gain, verdict):
    monkeypatch.setattr(nvml_parts, "LOADS", (("compute", 8.0, 0.5),))
    # A constant load: on a busy machine the recorder misses readings, and what a curve did between them is not known.
    result = nvml_parts.counter(faked(gain=gain, kind="constant", high=600, tick=0.01, refresh=0))
    ratio = by_name(result)["compute in pulses of 0.5 s: integrated instant power / counter"]
    assert ratio.value == pytest.approx(1 / gain, abs=0.02)
    assert ratio.verdict == verdict
    (row,) = result["details"]["rows"]
    assert len(row["inside"]) == 5


@pytest.mark.slow
def test_the_parts_of_a_ledger_add_up(faked):
    figures = by_name(nvml_parts.edges(faked(kind="constant")))
    assert figures["what the parts of the ledger lack of its total"].verdict == "met"
    assert figures["spread of ten equal windows (standard deviation / mean)"].verdict == "not run"  # a CPU queues nothing


def recording(times, joules, watts):
    recorder = Recorder(Gpu(None, "GPU-none"))
    recorder.t_ns, recorder.joules, recorder.watts = np.array(times, np.int64), np.array(joules, float), np.array(watts, float)
    return recorder


def test_the_oracle_integrates_what_it_saw():
    second = 10**9
    recorder = recording([0, second, 2 * second, 3 * second, 4 * second], [0, 100, 300, 500, 600], [100, 200, 200, 100, 100])
    assert recorder.counted_joules(second, 3 * second) == pytest.approx(400)
    assert recorder.counted_joules(0, 2 * second) is None  # the counter's first change is at 1 s
    assert recorder.integrated_joules(second // 2, 5 * second // 2) == pytest.approx(0.5 * 100 + 1.5 * 200)


def test_a_trace_keeps_its_steps_and_is_played_as_the_driver_plays_it(driver, tmp_path):
    times = np.arange(0, 4 * 10**9, 2_000_000)
    watts = np.where((times > 10**9) & (times < 2 * 10**9), 600.0, 70.0)
    joules = np.concatenate([[0], np.cumsum(watts[:-1] * np.diff(times) / 1e9)])
    trace = recording(times, np.floor(joules), watts).trace("pulse", "a GPU", 1000)
    assert len(trace.t_ns) < 1000 + 4
    seconds, curve = driver_curve(trace)
    driver.trace(seconds, curve)
    assert driver.joules(0, 4e9) == pytest.approx(joules[-1], rel=0.005)
    add_trace(tmp_path, trace)
    again = read_traces(tmp_path / TRACES)
    assert again == (trace,)
    assert Replay(again).probe()[0].component == "gpu:pulse"


def test_traces_of_one_name_are_replaced_and_the_file_stays_small(tmp_path):
    small, other = (Trace(f"gpu:{name}", (0, 1), (0.0, 1.0), (1.0, 1.0)) for name in ("one", "two"))
    add_trace(tmp_path, small)
    add_trace(tmp_path, small)
    many = tuple(range(TRACES_BYTES // 4))
    add_trace(tmp_path, Trace("gpu:large", many, watts=tuple(map(float, many))))
    add_trace(tmp_path, None)
    add_trace(tmp_path, other)
    assert read_traces(tmp_path / TRACES) == (small, other)


def test_a_trace_without_power_cannot_be_played():
    with pytest.raises(ValueError, match="must have watts"):
        driver_curve(Trace("gpu:one", (0, 1), (0.0, 1.0)))


class Limits:
    """The driver's calls for the power limit, which the fake driver lacks."""

    def __init__(self, monkeypatch, refuses=False, ignores=False):
        self.limit, self.written, self.refuses, self.ignores = 700_000, [], refuses, ignores
        monkeypatch.setattr(pynvml, "nvmlDeviceGetPowerManagementLimit", lambda handle: self.limit)
        monkeypatch.setattr(pynvml, "nvmlDeviceGetPowerManagementDefaultLimit", lambda handle: 700_000)
        monkeypatch.setattr(pynvml, "nvmlDeviceGetPowerManagementLimitConstraints", lambda handle: [200_000, 700_000])
        monkeypatch.setattr(pynvml, "nvmlDeviceSetPowerManagementLimit", self.write)

    def write(self, handle, limit):
        if self.refuses:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NO_PERMISSION)
        self.written.append(limit)
        self.limit = self.limit if self.ignores else limit


def test_the_power_limit_is_only_read_unless_asked_for(faked, monkeypatch):
    limits = Limits(monkeypatch)
    figures = by_name(sharing_parts.power_limit(faked()))
    assert figures["power limit in force"].value == 700
    assert figures["the limit can be lowered and is put back"].verdict == "not run"
    assert limits.written == []


def test_the_power_limit_is_lowered_and_put_back(faked, monkeypatch):
    limits = Limits(monkeypatch)
    figures = by_name(sharing_parts.power_limit(faked(may_set=True)))
    assert limits.written == [630_000, 700_000]
    assert figures["the limit was lowered as asked"].verdict == "met"
    assert figures["the limit afterwards is that from before"].verdict == "met"


def test_who_may_not_change_the_power_limit_is_told_so(faked, monkeypatch):
    Limits(monkeypatch, refuses=True)
    figure = by_name(sharing_parts.power_limit(faked(may_set=True)))["the limit can be lowered and is put back"]
    assert figure.verdict == "not run"
    assert "run as root" in figure.note


def test_a_driver_without_a_power_limit_is_not_an_error(faked):
    figures = by_name(sharing_parts.power_limit(faked(may_set=True)))
    assert figures["the limit can be lowered and is put back"].verdict == "not run"
    assert "NVMLError" in figures["power limit in force"].note


@pytest.mark.slow
def test_a_lease_holds_between_two_processes(faked, monkeypatch):
    monkeypatch.setattr(sharing_parts, "subprocess", SimpleNamespace(run=lambda words, **_: forked.run(*words[1:], timeout=60)))
    figures = by_name(sharing_parts.leases(faked(kind="constant")))
    assert [figure.verdict for figure in figures.values()] == ["met"] * 3
