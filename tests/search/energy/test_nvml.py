"""NVIDIA's own binding over a driver in C: counters that tick, freeze, restart, vanish and belong to somebody else."""

from __future__ import annotations

import os

import pytest

from joulefront.search.energy import Ledger, discover
from joulefront.search.energy.discover import Discovery
from joulefront.search.energy.host import fingerprint
from joulefront.search.energy.sources.nvml import Nvml
from joulefront.search.energy.sources.nvml_driver import visible

GPU = "gpu:GPU-00000000-fake"
HAND = {"interval_seconds": None}
SQUARE = {"kind": "square", "low": 60, "high": 350, "period": 0.73, "duty": 0.6}


def part(record, name=GPU):
    found = record.component(name)
    assert found is not None
    return found


def test_the_counter_is_read_in_joules_by_uuid(driver, clock):
    driver.reset(2).set(0, high=200).set(1, high=100).follow(clock)
    with Ledger([Nvml(clock=clock, environment={})], interval_seconds=None, clock=clock) as ledger:
        window = ledger.open("trial")
        for _ in range(100):
            clock.advance(0.1)
            ledger.sample()
        record = window.close()
    assert part(record).joules == pytest.approx(2000, rel=0.01)
    assert part(record, "gpu:GPU-00000001-fake").joules == pytest.approx(1000, rel=0.01)
    assert record.joules == pytest.approx(3000, rel=0.01)
    assert record.hardware["devices"][GPU]["name"] == "Fake GPU"


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        (None, ["GPU-aa11", "GPU-bb22", "GPU-cc33"]),
        ("1", ["GPU-bb22"]),
        ("2,0", ["GPU-cc33", "GPU-aa11"]),
        ("GPU-bb", ["GPU-bb22"]),
        ("GPU-", []),
        ("0,7,1", ["GPU-aa11"]),
        ("-1", []),
        ("", []),
        ("MIG-GPU-cc33/1/0", ["GPU-cc33"]),
    ],
)
def test_cuda_visible_devices_decides_which_gpus_count(text, chosen):
    environment = {} if text is None else {"CUDA_VISIBLE_DEVICES": text}
    assert list(visible(["GPU-aa11", "GPU-bb22", "GPU-cc33"], environment)) == chosen


def test_hidden_gpus_are_not_read(driver, clock):
    driver.reset(2).follow(clock)
    found = Nvml(clock=clock, environment={"CUDA_VISIBLE_DEVICES": "1"}).probe()
    assert [capability.component for capability in found] == ["gpu:GPU-00000001-fake"]
    (none,) = Nvml(clock=clock, environment={"CUDA_VISIBLE_DEVICES": "-1"}).probe()
    assert not none.available
    assert "CUDA_VISIBLE_DEVICES" in none.reason


@pytest.mark.parametrize("tick", [0.02, 0.05, 0.1, 0.5])
def test_the_refresh_period_is_learnt(bench, tick):
    machine = bench(tick=tick, phase=0.013)
    machine.run(8)
    for _ in range(8):
        with machine.ledger.window("epoch", kind="epoch") as window:
            machine.run(1.3)
    assert part(window.record).tick_seconds == pytest.approx(tick, rel=0.01)


@pytest.mark.slow
@pytest.mark.parametrize(("seconds", "bar"), [(1, 0.025), (3, 0.010), (10, 0.003)])
def test_windows_are_better_than_the_counters_refresh(bench, seconds, bar):
    machine = bench(**SQUARE, tick=0.1, phase=0.037)
    machine.run(1.0)
    errors = []
    windows = []
    for i in range(60):
        machine.run(0.05 + 0.618 * i % 0.3)
        with machine.ledger.window("trial") as window:
            machine.run(seconds)
        windows.append(window)
    machine.run(0.5)
    for window in windows:
        truth = machine.driver.joules(window.t0_ns, window.t1_ns)
        errors.append(abs(window.record.joules - truth) / truth)
    assert sorted(errors)[int(0.95 * len(errors))] <= bar


def test_a_late_refresh_makes_an_earlier_window_better(bench):
    machine = bench(**SQUARE, tick=0.1)
    machine.run(2.03)
    errors = []
    for i in range(40):
        machine.run(0.3 + 0.618 * i % 0.3)
        with machine.ledger.window("trial") as window:
            machine.run(1.0)
        truth = machine.driver.joules(window.t0_ns, window.t1_ns)
        early = part(window.record)
        machine.run(1.0)
        late = part(window.record)
        errors.append((abs(early.joules - truth), abs(late.joules - truth), 2 * early.u_random_joules, 2 * late.u_random_joules))
    first, second, first_bound, second_bound = zip(*errors, strict=True)
    assert sum(second) < 0.5 * sum(first)
    assert sum(error <= bound for error, bound in zip(first, first_bound, strict=True)) >= 38
    assert sum(error <= bound for error, bound in zip(second, second_bound, strict=True)) >= 38
    machine.run(5.0)
    assert part(window.record) == late


def test_a_window_shorter_than_the_refresh_says_so_and_its_interval_holds(bench):
    machine = bench(**SQUARE, tick=0.1)
    machine.run(1.0)
    inside = 0
    for i in range(60):
        machine.run(0.1 + 0.618 * i % 0.3)
        with machine.ledger.window("trial") as window:
            machine.run(0.01 + 0.02 * (i % 2))
        machine.run(0.3)
        found = part(window.record)
        assert found.below_resolution
        assert window.record.below_resolution
        inside += abs(found.joules - machine.driver.joules(window.t0_ns, window.t1_ns)) <= 2 * found.u_random_joules
    assert inside >= 57


def test_without_a_counter_power_is_integrated_and_said(bench):
    machine = bench(high=200, counter=0)
    with machine.ledger.window("trial") as window:
        machine.run(10)
    found = part(window.record)
    assert found.joules == pytest.approx(2000, rel=1e-3)
    assert "no energy counter (Not Supported): instant power is integrated" in found.reason
    assert found.u_systematic_joules > 0.05 * found.joules


def test_a_step_of_power_is_within_its_interval(bench):
    machine = bench(kind="step", low=50, high=200, at=1003.0, counter=0)
    with machine.ledger.window("trial") as window:
        machine.run(10)
    found = part(window.record)
    truth = machine.driver.joules(window.t0_ns, window.t1_ns)
    assert found.joules == pytest.approx(truth, rel=0.03)
    assert abs(found.joules - truth) <= 2 * found.u_random_joules


def test_averaged_power_is_the_last_resort_and_less_trusted(bench):
    machine = bench(high=200, counter=0, instant=0)
    with machine.ledger.window("trial") as window:
        machine.run(5)
    found = part(window.record)
    assert found.joules == pytest.approx(1000, rel=1e-3)
    assert "averaged by the driver" in found.reason
    assert found.u_systematic_joules == pytest.approx(0.15 * found.joules)


def test_a_frozen_counter_is_replaced_by_power_from_where_it_stopped(bench):
    machine = bench(high=200, frozen_at=1004.0)
    with machine.ledger.window("trial") as window:
        machine.run(10)
    found = part(window.record)
    assert found.joules == pytest.approx(2000, rel=0.01)
    assert "stood still" in found.reason
    assert found.quality == "measured"


def test_a_counter_that_vanishes_is_replaced_by_power(bench):
    machine = bench(high=200, counter_until=1004.0)
    with machine.ledger.window("trial") as window:
        machine.run(10)
    assert part(window.record).joules == pytest.approx(2000, rel=0.01)


def test_an_impossible_counter_is_dropped(bench):
    machine = bench(high=200, gain=0.2)
    machine.run(7)
    with machine.ledger.window("trial") as window:
        machine.run(10)
    found = part(window.record)
    assert found.joules == pytest.approx(2000, rel=0.01)
    assert "the counter gave 0.20 of the integrated power" in found.reason


def test_a_doubtful_counter_is_kept_and_flagged(bench):
    machine = bench(high=200, gain=0.57)
    machine.run(1)
    with machine.ledger.window("trial") as window:
        machine.run(10)
    found = part(window.record)
    assert found.joules == pytest.approx(1140, rel=0.01)
    assert found.cross_check == pytest.approx(0.57, rel=0.02)
    assert "0.57 of its integrated power" in found.reason


def test_agreeing_meters_raise_no_flag(bench):
    machine = bench(**SQUARE)
    machine.run(1)
    with machine.ledger.window("trial") as window:
        machine.run(20)
    assert part(window.record).reason is None


def test_a_counter_that_restarts_loses_nothing_of_what_follows(bench):
    machine = bench(high=200, reset_at=1005.0)
    with machine.ledger.window("trial") as window:
        machine.run(10)
    found = part(window.record)
    assert found.resets == 1
    assert found.joules >= 0
    assert abs(found.joules - 2000) <= 2 * found.u_random_joules
    assert "started again at zero" in found.reason


def test_a_gpu_that_is_lost_makes_energy_unknown_with_the_reason(bench):
    machine = bench(high=200, lost_at=1003.0)
    with machine.ledger.window("trial") as window:
        machine.run(10)
    found = part(window.record)
    assert found.joules is None
    assert "GPU is lost" in found.reason
    assert window.record.joules is None
    assert window.record.quality == "absent"


def uuid(index):
    return f"gpu:GPU-{index:08d}-fake"


def record_of(driver, clock, lost=None, **options):
    """Record ten seconds on four GPUs of 100, 200, 300 and 400 W; ``lost`` is lost after three of them."""
    source = Nvml(clock=clock, **{"environment": {}, **options})
    with Ledger(Discovery((source,), tuple(found for found in source.probe() if not found.available)), clock=clock, **HAND) as ledger:
        window = ledger.open("trial")
        for step in range(100):
            if lost is not None and step == 30:
                driver.set(lost, lost_at=0.0)
            clock.advance(0.1)
            ledger.sample()
            ledger.burst()
        return window.close()


@pytest.fixture
def four(driver, clock):
    driver.reset(4)
    for index in range(4):
        driver.set(index, high=100.0 * (index + 1))
    return driver.follow(clock)


@pytest.mark.parametrize(
    ("knobs", "said", "remedy"),
    [
        ({"lost_at": 0.0}, "GPU is lost", "dmesg"),
        ({"closed": 4}, "Insufficient Permissions", "ask the scheduler"),
        ({"closed": 999}, "Unknown Error", "nvidia-smi"),
        ({"unnamed": 15}, "GPU is lost", "dmesg"),
    ],
)
def test_a_gpu_that_cannot_be_opened_is_named_and_the_others_are_metered(four, clock, knobs, said, remedy):
    four.set(1, **knobs)
    (absent,) = (found for found in Nvml(clock=clock, environment={}).probe() if not found.available)
    assert absent.component == "gpu:1"
    assert "GPU 1" in absent.reason
    assert said in absent.reason
    assert remedy in absent.remedy
    record = record_of(four, clock)
    assert {found.name: found.quality for found in record.components} == {
        uuid(0): "measured",
        "gpu:1": "absent",
        uuid(2): "measured",
        uuid(3): "measured",
    }
    assert len(record.components) == 4
    assert part(record, "gpu:1").reason == absent.reason
    for index in (0, 2, 3):
        assert part(record, uuid(index)).joules == pytest.approx(1000 * (index + 1), rel=0.01)
    assert record.joules == pytest.approx(8000, rel=0.01)


def test_a_gpu_whose_later_calls_fail_is_absent_with_a_remedy(four, clock):
    four.set(1, silent=15)
    record = record_of(four, clock)
    found = Nvml(clock=clock, environment={}).probe()[1]
    assert (found.component, found.available) == (uuid(1), False)
    assert "gives neither energy nor power (GPU is lost)" in found.reason
    assert "dmesg" in found.remedy
    assert part(record, uuid(1)).quality == "absent"
    assert record.joules == pytest.approx(8000, rel=0.01)


def test_where_no_gpu_can_be_opened_each_is_named(four, clock):
    for index in range(4):
        four.set(index, closed=4)
    found = Nvml(clock=clock, environment={}).probe()
    assert [capability.component for capability in found] == ["gpu:0", "gpu:1", "gpu:2", "gpu:3"]
    assert not any(capability.available for capability in found)


def test_a_gpu_that_is_lost_in_the_middle_takes_no_other_along(four, clock):
    record = record_of(four, clock, lost=1)
    assert part(record, uuid(1)).joules is None
    assert "GPU is lost" in part(record, uuid(1)).reason
    for index in (0, 2, 3):
        assert part(record, uuid(index)).joules == pytest.approx(1000 * (index + 1), rel=0.01)
    assert record.joules is None  # three of four would pass for the whole
    assert record.known_joules == pytest.approx(8000, rel=0.01)


def test_a_gpu_that_is_not_used_and_lost_makes_nothing_unknown(four, clock):
    record = record_of(four, clock, lost=1, used=(uuid(2),))
    assert record.joules == pytest.approx(3000, rel=0.01)
    assert not part(record, uuid(1)).counts
    assert part(record, uuid(1)).reason.startswith("not used by this run: shown, not counted; ")
    assert "GPU is lost" in part(record, uuid(1)).reason


@pytest.mark.parametrize("used", [(), (2,), (0, 3)])
def test_what_is_not_used_is_shown_and_not_counted(four, clock, used):
    four.set(1, pid=1)
    record = record_of(four, clock, used=[uuid(index) for index in used])
    for index in range(4):
        found = part(record, uuid(index))
        assert found.joules == pytest.approx(1000 * (index + 1), rel=0.05)
        assert found.counts == (index in used)
        assert found.reason == (None if index in used else "not used by this run: shown, not counted")
    assert record.joules == (pytest.approx(sum(1000 * (index + 1) for index in used), rel=0.01) if used else None)
    assert set(record.utilisation) == set(record.hardware["devices"]) == {uuid(index) for index in used}
    assert "foreign_gpu_pids" not in (record.contended or {})


def test_a_used_gpu_is_metered_by_its_uuid_whatever_number_cuda_gives_it(four, clock):
    record = record_of(four, clock, environment={"CUDA_VISIBLE_DEVICES": "1"}, used=(uuid(3),))
    assert [found.name for found in record.components] == [uuid(1), uuid(3)]
    assert record.joules == pytest.approx(4000, rel=0.01)


@pytest.mark.parametrize(
    ("visible_ones", "order", "models", "used", "doubtful"),
    [
        ("1", None, (0, 2), None, True),
        ("1, 0", "FASTEST_FIRST", (0, 2), None, True),
        ("1", "PCI_BUS_ID", (0, 2), None, False),
        ("1", None, (2, 2), None, False),
        ("GPU-00000001-fake", None, (0, 2), None, False),
        (None, None, (0, 2), None, False),
        ("1", None, (0, 2), ("gpu:GPU-00000001-fake",), False),
    ],
)
def test_a_number_that_cuda_may_give_to_another_gpu_is_remarked(driver, clock, visible_ones, order, models, used, doubtful):
    driver.reset(2).follow(clock)
    for index, model in enumerate(models):
        driver.set(index, model=model)
    variables = {"CUDA_VISIBLE_DEVICES": visible_ones, "CUDA_DEVICE_ORDER": order}
    environment = {name: value for name, value in variables.items() if value is not None}
    for found in Nvml(clock=clock, environment=environment, used=used).probe():
        assert ("set CUDA_DEVICE_ORDER=PCI_BUS_ID, or give UUIDs" in (found.reason or "")) is doubtful


def test_a_gpu_that_is_not_used_is_read_rarely(four, clock):
    source = Nvml(clock=clock, environment={}, used=(uuid(0),))
    source.probe()
    before = [four.library.fake_reads(index) for index in range(2)]
    for _ in range(100):
        clock.advance(0.002)
        assert [reading.component for reading in source.read()] == [uuid(index) for index in range(4)]
    often, rarely = (four.library.fake_reads(index) - start for index, start in enumerate(before))
    assert often >= 100
    assert rarely <= 5


def test_a_gpu_with_neither_counter_nor_power_is_absent(driver, clock):
    driver.set(counter=0, instant=0, usage=0).follow(clock)
    (found,) = Nvml(clock=clock, environment={}).probe()
    assert not found.available
    assert "neither energy nor power" in found.reason


def test_mig_with_several_instances_is_shown_and_not_counted(bench):
    machine = bench(mig=1, instances=3)
    with machine.ledger.window("trial") as window:
        machine.run(5)
    found = part(window.record)
    assert not found.counts
    assert found.joules == pytest.approx(1000, rel=0.05)
    assert "MIG is on with 3 instances" in found.reason
    assert window.record.joules is None


@pytest.mark.parametrize(("slices", "counts"), [(7, True), (3, False), (0, False)])
def test_a_mig_instance_is_billed_for_the_gpu_only_if_it_has_all_of_it(driver, clock, slices, counts):
    """A container is shown its own instance alone, whatever others the GPU has beside it."""
    driver.set(mig=1, instances=1, slices=slices).follow(clock)
    (found,) = Nvml(clock=clock, environment={"CUDA_VISIBLE_DEVICES": "MIG-00000000"}).probe()
    assert found.counts == counts
    assert ("has all of the GPU" if counts else "a container hides others") in found.reason


def test_a_gpu_is_used_that_cuda_names_by_its_instance(driver, clock):
    driver.set(mig=1, instances=1, slices=7).follow(clock)
    (found,) = Nvml(clock=clock, environment={}, used=["gpu:GPU-00000000"]).probe()  # the instance is MIG-00000000
    assert found.counts
    (other,) = Nvml(clock=clock, environment={}, used=["gpu:GPU-nowhere"]).probe()
    assert "not used by this run" in other.reason


def test_a_virtual_gpu_is_said_plainly(driver, clock):
    driver.set(virtualisation=2).follow(clock)
    (found,) = Nvml(clock=clock, environment={}).probe()
    assert not found.counts
    assert "virtual GPU" in found.reason


def test_no_driver_is_a_reason_and_no_error(clock, monkeypatch):
    import pynvml

    monkeypatch.setattr(pynvml, "nvmlLib", None)
    monkeypatch.setattr(pynvml, "CDLL", lambda path: (_ for _ in ()).throw(OSError(path)))
    monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})
    (found,) = Nvml(clock=clock).probe()
    assert not found.available
    assert "no NVIDIA driver" in found.reason


def test_a_driver_that_does_not_start_names_the_fault(driver, clock):
    driver.reset(-1)
    (found,) = Nvml(clock=clock).probe()
    assert "Driver Not Loaded" in found.reason


def test_another_package_of_the_same_name_is_noticed(monkeypatch, clock):
    import sys
    import types

    impostor = types.ModuleType("pynvml")
    impostor.__file__ = "/somewhere/pynvml.py"
    monkeypatch.setitem(sys.modules, "pynvml", impostor)
    (found,) = Nvml(clock=clock).probe()
    assert "not NVIDIA's binding" in found.reason
    assert "nvidia-ml-py" in found.remedy


def test_temperature_clocks_and_throttling_are_noted_at_the_edges(bench):
    machine = bench(temperature=55, throttle=0x4 | 0x20)
    with machine.ledger.window("trial") as window:
        machine.run(1)
        machine.driver.set(temperature=71)
    edges = window.record.edges
    assert edges["begin"][GPU] == {"temperature_celsius": 55, "clock_mhz": 1500, "throttle": "power cap, thermal (software)"}
    assert edges["end"][GPU]["temperature_celsius"] == 71


def test_other_processes_on_the_gpu_are_contention_and_our_own_are_not(bench):
    machine = bench()
    machine.driver.set(pid=os.getpid())
    with machine.ledger.window("trial") as window:
        machine.run(0.5)
        machine.ledger.checkpoint()
    assert "foreign_gpu_pids" not in (window.record.contended or {})
    machine.driver.set(pid=2**22 + 1)  # a number that only another process namespace can have
    machine.driver.set(pid=1)
    with machine.ledger.window("trial") as window:
        machine.run(0.5)
        machine.ledger.checkpoint()
        machine.run(0.5)
    assert window.record.contended["foreign_gpu_pids"] == {GPU: [1]}


def test_discover_finds_the_gpu_and_the_cpu(driver, tmp_path):
    found = discover("auto", powercap=tmp_path)
    assert [source.name for source in found.sources] == ["nvml", "cpu_time"]
    assert [capability.source for capability in found.absent] == ["rapl"]
    for source in found.sources:
        source.close()


@pytest.mark.slow
def test_the_thread_reads_the_same_driver_in_real_time(driver):
    driver.set(**SQUARE, tick=0.02).run(1.0)
    with Ledger([Nvml(environment={})], interval_seconds=0.05) as ledger:
        origin = driver.library.fake_clock()
        with ledger.window("trial") as window:
            import time

            begin = time.monotonic_ns()
            time.sleep(1.0)
        window.close()
        record = window.close(settle=True)
        offset = origin - begin / 1e9
        truth = driver.joules(window.t0_ns + offset * 1e9, window.t1_ns + offset * 1e9)
        assert record.joules == pytest.approx(truth, rel=0.1)
        assert part(record).reads >= 5


@pytest.mark.parametrize(
    ("arch", "model", "averaged"), [(4, 0, False), (6, 0, False), (7, 0, True), (7, 5, False), (8, 0, True), (-1, 0, True)]
)
def test_the_plain_call_is_a_mean_by_architecture(driver, clock, arch, model, averaged):
    driver.set(counter=0, instant=0, arch=arch, model=model).follow(clock)
    (found,) = Nvml(clock=clock, environment={}).probe()
    assert (found.mean_seconds > 0) == averaged
    assert ("averaged by the driver" in found.reason) == averaged


@pytest.mark.parametrize(
    ("model", "arch", "sees", "counter", "text"),
    [
        (3, 7, 1.0, 1.0, None),
        (5, 7, 0.25, 0.25, "this GPU's sensor measures"),
        (4, 9, 0.25, 1.0, None),
        (0, 9, 0.25, 0.25, "nobody has published"),
        (0, -1, 0.25, 0.25, "nobody has published"),
    ],
)
def test_which_sensors_look_for_a_part_of_the_time_is_asked_word_by_word(driver, clock, model, arch, sees, counter, text):
    driver.set(model=model, arch=arch).follow(clock)
    (found,) = Nvml(clock=clock, environment={}).probe()
    assert (found.sees, found.counter_sees) == (sees, counter)
    assert text in found.reason if text else found.reason is None


@pytest.mark.parametrize(("own", "joules", "boundary"), [(0, 3300, "GPU module: GPU, CPU and memory together"), (1, 900, "GPU board")])
def test_a_counter_beside_a_modules_power_is_named_by_whose_energy_it_counts_and_kept(bench, own, joules, boundary):
    machine = bench(high=90, module=240, own=own, arch=9)
    machine.run(15)
    with machine.ledger.window("trial") as window:
        machine.run(10)
    found = part(window.record)
    assert found.joules == pytest.approx(joules, rel=0.01)
    assert found.boundary == boundary
    assert found.cross_check == pytest.approx(1, rel=0.02)
    assert "instead" not in (found.reason or "")


@pytest.mark.parametrize(
    ("sockets", "boundary", "watts"), [((0, 1), "GPU module", 330), ((0, 0), "GPU board", 90), ((-1, -1), "GPU board", 90)]
)
def test_gpus_of_one_module_are_not_each_billed_for_it(driver, clock, bench, sockets, boundary, watts):
    driver.reset(2)
    for device, socket in enumerate(sockets):
        driver.set(device, high=90, module=240, arch=9, socket=socket)
    machine = bench()
    machine.run(3)
    with machine.ledger.window("trial") as window:
        machine.run(10)
    assert [part.joules / 10 for part in window.record.components] == pytest.approx([watts, watts], rel=0.01)
    assert all(part.boundary.startswith(boundary) for part in window.record.components)
    assert all(("its module's" in part.reason) == (watts == 90) for part in window.record.components)


def test_energies_of_a_module_are_those_of_other_hardware(driver, clock):
    ids = set()
    for own in (0, 1):
        driver.reset().set(module=240, own=own, arch=9).follow(clock)
        source = Nvml(clock=clock, environment={}, sleep=clock.advance)
        source.probe()
        ids.add(fingerprint({"devices": source.devices()}))
    assert len(ids) == 2


def test_the_power_of_the_memory_is_shown_at_the_edges_and_counted_nowhere(bench):
    machine = bench(memory=42)
    with machine.ledger.window("trial") as window:
        machine.run(3)
    record = window.record
    assert record.edges["begin"][GPU]["memory_watts"] == 42
    assert len(record.components) == 1
    assert record.joules == pytest.approx(600, rel=0.1)


@pytest.mark.parametrize("duty", [0.5, 0.8])
@pytest.mark.parametrize("start", [0.005, 0.095])
def test_a_counter_is_kept_beside_a_sensor_in_step_with_its_load_for_as_long_as_it_likes(bench, duty, start):
    machine = bench(kind="square", low=60, high=340, period=0.1, duty=duty, refresh=0.1, held_at=start, tick=0.1, phase=0.037)
    machine.run(60)
    with machine.ledger.window("trial") as window:
        machine.run(10)
    machine.run(1)
    found = part(window.record)
    assert "instead" not in (found.reason or "")
    assert found.joules == pytest.approx(10 * (60 + duty * 280), rel=0.02)
    if found.cross_check > 2.5:  # the sensor has only ever met the low phase: nobody knows that it is the counter that is right
        assert found.u_systematic_joules > 0.3 * found.joules


def test_a_counter_that_agreed_once_is_believed_when_the_sensor_meets_one_phase_later(bench, driver):
    times, watts, now = [990.0, 1012.0], [60.0, 60.0], 1012.0
    for _ in range(400):  # a load that works for a tenth of the time, when the sensor looks
        times += [now + 1e-4, now + 0.01, now + 0.0101, now + 0.1]
        watts += [340.0, 340.0, 60.0, 60.0]
        now += 0.1
    driver.trace(times, watts)
    machine = bench(refresh=0.1, held_at=0.005, tick=0.1, phase=0.037)
    machine.run(45)
    with machine.ledger.window("trial") as window:
        machine.run(5)
    found = part(window.record)
    assert found.cross_check < 0.4
    assert "instead" not in (found.reason or "")
    assert found.joules == pytest.approx(5 * 88, rel=0.02)


def test_a_good_counter_is_kept_beside_a_sensor_that_sees_one_phase_of_the_load_for_seconds(bench):
    machine = bench(kind="square", low=60, high=350, period=0.099, duty=0.5, refresh=0.1, tick=0.1, phase=0.037)
    machine.run(40)
    with machine.ledger.window("trial") as window:
        machine.run(10)
    machine.run(1)
    found = part(window.record)
    assert "instead" not in (found.reason or "")
    assert found.joules == pytest.approx(2050, rel=0.02)


def test_a_power_without_a_counter_is_looked_at_closely_at_first_until_its_hold_is_known(bench):
    reads = {}
    for held in (0.02, 1.0):
        machine = bench(counter=0, refresh=held, noise=0.002)
        for name, seconds in (("first", 3), ("later", 10)):
            with machine.ledger.window(name) as window:
                machine.run(seconds)
            reads[held, name] = part(window.record).reads
    assert 50 < reads[0.02, "first"] < 300
    assert reads[1.0, "first"] > 800  # nothing came to be seen, so it ends by itself
    assert reads[0.02, "later"] < 110
    assert reads[1.0, "later"] < 110
