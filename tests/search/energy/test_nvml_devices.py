"""Which GPUs are metered: those that are used, by their UUID; those that are lost, shared, virtual or not there."""

from __future__ import annotations

import pytest
from helpers.nvml_records import part

from joulefront.search.energy import Ledger
from joulefront.search.energy.discover import Discovery
from joulefront.search.energy.sources.nvml import Nvml
from joulefront.search.energy.sources.nvml_driver import visible

HAND = {"interval_seconds": None}


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
        ("MIG-GPU-cc33/1/0,MIG-GPU-cc33/2/0,MIG-GPU-aa11/1/0", ["GPU-cc33", "GPU-aa11"]),
        # As PyTorch, which tried it on drivers, expects of CUDA: twice the same shows none, the first entry says of which kind all are.
        ("0,0", []),
        ("0,2,0,1", []),
        ("GPU-bb,GPU-bb22", []),
        ("0,GPU-bb22", ["GPU-aa11"]),
        ("GPU-bb22,0", ["GPU-bb22"]),
        ("GPU-bb22, GPU-aa11", ["GPU-bb22"]),
        ("0,MIG-GPU-cc33/1/0", ["GPU-aa11"]),
        (" 2 ,+1,0x1", ["GPU-cc33", "GPU-bb22", "GPU-aa11"]),
        ("1gpu,2", ["GPU-bb22", "GPU-cc33"]),
        ("--1", []),
        ("0,,1", ["GPU-aa11"]),
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


def test_a_trial_on_a_gpu_that_no_meter_reads_is_no_cheap_one(four, clock):
    """Of two workers' GPUs one gives neither energy nor power: without it the CPU's part would pass for the whole."""
    four.set(1, silent=4)
    source = Nvml(clock=clock, environment={}, used=(uuid(0), uuid(1)))
    with Ledger(Discovery((source,), tuple(found for found in source.probe() if not found.available)), clock=clock, **HAND) as ledger:
        read, dark = (ledger.open("trial", devices=(uuid(index),), processes=True) for index in range(2))
        for _ in range(30):
            clock.advance(0.1)
            ledger.sample()
        records = [window.close(cpu_seconds=1.0) for window in (read, dark)]
        whole = ledger.total()
    assert records[0].joules == pytest.approx(300, rel=0.05)
    assert (records[1].joules, records[1].quality) == (None, "absent")
    assert part(records[1], uuid(1)).counts
    assert "Insufficient Permissions" in part(records[1], uuid(1)).reason
    assert not part(records[0], uuid(1)).counts
    assert not part(whole, uuid(1)).counts  # of the session the rest is known, and said to be a part


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
    assert found.attribution == "shared(the whole GPU's, with its other instances)"
    assert "MIG is on with 3 instances" in found.reason
    assert window.record.joules is None


@pytest.mark.parametrize(("slices", "counts"), [(7, True), (3, False), (0, False)])
def test_a_mig_instance_is_billed_for_the_gpu_only_if_it_has_all_of_it(driver, clock, slices, counts):
    """A container is shown its own instance alone, whatever others the GPU has beside it."""
    driver.set(mig=1, instances=1, slices=slices).follow(clock)
    (found,) = Nvml(clock=clock, environment={"CUDA_VISIBLE_DEVICES": "MIG-00000000"}).probe()
    assert found.counts == counts
    assert (found.attribution == "exclusive") == counts
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
    assert found.attribution == "shared(with other virtual machines)"
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
