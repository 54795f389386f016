"""A counter's lag is found where a load's edges are known, is kept for GPUs of a kind, and shifts what is read later."""

from __future__ import annotations

import json
import sys
import threading
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from joulefront.search.energy.calibrate import MatrixProducts, Step, measure_lag, torch_device
from joulefront.search.energy.calibrations import CpuCalibration, CpuPoint, MachineCalibration, calibrated_lag
from joulefront.search.energy.discover import discover
from joulefront.search.energy.doctor import calibrate_counters
from joulefront.search.energy.intervals import Interval
from joulefront.search.energy.sources.nvml import Nvml

GPU = "gpu:GPU-00000000-fake"
#: Works for 1.21 of every 3.65 s.
WORK = {"kind": "square", "low": 60, "high": 350, "period": 3.65, "duty": 1.21 / 3.65}


@pytest.fixture
def gpu(driver, clock):
    """A GPU, its source, and the load that it works for."""

    def make(**knobs):
        clock.now_ns = 1_002_530_000_000  # a rest before the load begins
        driver.set(**(WORK | knobs)).follow(clock)
        source = Nvml(clock=clock, environment={}, sleep=clock.advance)
        source.probe()
        return source

    @contextmanager
    def load():
        edge_ns = (clock.now_ns // 3_650_000_000 + 1) * 3_650_000_000
        clock.advance_ns(edge_ns - clock.now_ns)
        step = Step(clock.now_ns)
        yield step
        clock.advance_ns(edge_ns + 1_210_000_000 - clock.now_ns)
        step.off_ns = clock.now_ns

    return SimpleNamespace(
        make=make, load=load, find=lambda source: measure_lag(source, GPU, load, seconds=1.2, clock=clock, sleep=clock.advance)
    )


@pytest.mark.slow
@pytest.mark.parametrize("behind", [0.0, 0.03, 0.1, 0.3])
@pytest.mark.parametrize("tick", [0.02, 0.1])
def test_the_lag_of_a_counter_is_where_its_lines_cross_after_the_loads_edges(gpu, behind, tick):
    lag, u = gpu.find(gpu.make(behind=behind, tick=tick, phase=0.013))
    assert abs(lag - behind) <= 2 * u
    assert u <= 0.012


def test_a_load_that_the_counter_does_not_show_is_no_measurement(gpu):
    with pytest.raises(ValueError, match=r"at least 10 W more than rest, got .* W: is it this GPU that works"):
        gpu.find(gpu.make(low=350))


def test_a_counter_that_stands_still_is_no_measurement(gpu):
    with pytest.raises(ValueError, match="must move at least 3 times"):
        gpu.find(gpu.make(frozen_at=0.0))


def test_edges_of_another_load_are_no_measurement(gpu, driver):
    source = gpu.make(duty=1.01 / 3.65)  # it ends 200 ms before the load that is told
    with pytest.raises(ValueError, match="calibrate again while nothing else uses the GPU"):
        gpu.find(source)


@pytest.mark.slow
def test_a_known_lag_shifts_the_readings_and_narrows_what_ends_with_its_load(bench):
    bias, width = {}, {}
    for lag in (None, (0.1, 0.01)):
        machine = bench(kind="square", low=60, high=350, period=2.3, duty=1 / 2.3, behind=0.1, tick=0.1, phase=0.037, refresh=0.02, lag=lag)
        machine.run(2.0)
        windows = []
        for _ in range(40):
            now = machine.clock.now_ns / 1e9
            machine.run((now // 2.3 + 1) * 2.3 - now)
            with machine.ledger.window("trial") as window:
                machine.run(1.0)
            windows.append(window)
        machine.run(2.0)
        errors = [window.record.joules / machine.driver.joules(window.t0_ns, window.t1_ns) - 1 for window in windows]
        widths = [2 * window.record.u_random_joules / window.record.joules for window in windows]
        assert sum(abs(error) <= width for error, width in zip(errors, widths, strict=True)) >= 38
        bias[lag], width[lag] = sum(errors) / 40, sum(widths) / 40
        machine.ledger.stop()
    known, unknown = (0.1, 0.01), None
    assert bias[unknown] < -0.05
    assert abs(bias[known]) < 0.02
    assert width[known] < 0.6 * width[unknown]


def test_what_was_measured_is_kept_for_gpus_of_its_kind_and_used_by_their_meter(gpu, driver, clock, tmp_path, capsys):
    lags, missing = calibrate_counters(
        source=gpu.make(behind=0.1, tick=0.1),
        seconds=1.2,
        folder=tmp_path,
        load_of=lambda component: gpu.load if component == GPU else None,
    )
    assert not missing
    assert "about 11 s" in capsys.readouterr().err
    assert lags[0].lag_seconds == pytest.approx(0.1, abs=0.01)
    assert calibrated_lag({"name": "Fake GPU", "driver": lags[0].hardware_id.split("-", 2)[2]}, tmp_path) == (
        lags[0].lag_seconds,
        lags[0].u_seconds,
    )
    (found,) = discover("nvml", clock=clock, environment={}, calibrations=tmp_path).present
    assert found.counter_delay_seconds == lags[0].lag_seconds
    assert found.counter_lag_seconds == pytest.approx(3**0.5 * lags[0].u_seconds)
    assert discover("nvml", clock=clock, environment={}, calibrations=tmp_path / "other").present[0].counter_delay_seconds == 0


def test_a_gpu_that_pytorch_does_not_show_is_named_and_nothing_is_kept(gpu, tmp_path):
    lags, missing = calibrate_counters(source=gpu.make(), folder=tmp_path, load_of=lambda component: None)
    assert lags == ()
    assert missing == (f"{GPU}: PyTorch shows no such CUDA device, so its counter's lag stays in the uncertainty",)
    assert not list(tmp_path.iterdir())


def test_a_damaged_measurement_is_named_with_what_to_do(gpu, clock, tmp_path):
    calibrate_counters(source=gpu.make(), seconds=1.2, folder=tmp_path, load_of=lambda component: gpu.load)
    (path,) = tmp_path.iterdir()
    path.write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match=r"cannot be read .* delete it and run joulefront doctor --calibrate"):
        discover("nvml", clock=clock, environment={}, calibrations=tmp_path)


def test_the_calibration_of_a_machine_keeps_the_keys_of_its_cpus():
    interval = Interval(1.0, 0.9, 1.1)
    cpu = CpuCalibration("id", interval, interval, 0.1, "rapl", "2026-01-01T00:00:00+00:00", (CpuPoint(1.0, 2.0, 3.0),))
    data = json.loads(MachineCalibration(cpu).to_json())
    assert data.items() >= json.loads(cpu.to_json()).items()
    assert data["counter_lags"] == []
    assert MachineCalibration(None, missing=("no reference",)).to_text() == "no reference"


def test_matrix_products_begin_and_end_with_their_block():
    load = MatrixProducts("cpu", size=8)
    with load() as step:
        assert step.on_ns
        assert any(thread.name == "matrix products" for thread in threading.enumerate())
    assert step.off_ns > step.on_ns
    assert not any(thread.name == "matrix products" for thread in threading.enumerate())


def test_cudas_number_of_a_gpu_is_found_by_its_uuid(monkeypatch):
    properties = [SimpleNamespace(uuid="22"), SimpleNamespace(uuid="GPU-11")]
    cuda = SimpleNamespace(is_available=lambda: True, device_count=lambda: 2, get_device_properties=properties.__getitem__)
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    assert [torch_device(f"gpu:GPU-{uuid}") for uuid in ("11", "22", "33")] == ["cuda:1", "cuda:0", None]
