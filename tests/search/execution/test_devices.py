"""GPUs are held by one run at a time: real lease files, several processes, a fake driver for the meters."""

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.forked import Forked

from joulefront.search.energy import Ledger, discover
from joulefront.search.execution.devices import DeviceError, take_devices

#: What the fake driver calls its GPUs.
UUID = "GPU-{:08d}-fake"

OTHER_RUN = """
import sys, time
from pathlib import Path
from joulefront.search.execution.devices import take_devices
uuid = sys.argv[2]
taken = take_devices(
    sys.argv[3], int(sys.argv[4]), folder=Path(sys.argv[1]), count=lambda: 2, components=lambda name: ("gpu:" + uuid.format(int(name[5:])),)
)
print(*taken.names, flush=True)
time.sleep(120)
"""


def component(name: str) -> tuple[str, ...]:
    return (f"gpu:{UUID.format(int(name.removeprefix('cuda:')))}",)


def take(folder: Path, device: str = "cuda", workers: int = 1, gpus: int = 2) -> Any:
    return take_devices(device, workers, folder=folder, count=lambda: gpus, components=component)


@pytest.fixture
def other_run(tmp_path: Path) -> Iterator[Any]:
    """Start another process that takes GPUs and holds them until it is killed."""
    running = []

    def start(device: str = "cuda", workers: int = 1) -> Forked:
        process = Forked("-c", OTHER_RUN, tmp_path, UUID, device, workers, stderr=subprocess.DEVNULL)
        running.append(process)
        assert process.stdout is not None
        process.names = process.stdout.readline().split()  # type: ignore[attr-defined]
        return process

    yield start
    for process in running:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_cpu_is_shared_and_leaves_no_trace(tmp_path: Path) -> None:
    folder = tmp_path / "leases"
    with take_devices("cpu", 3, folder=folder) as devices:
        assert devices.names == ("cpu", "cpu", "cpu")
        assert devices.leases == ()
        assert devices.components == ()
    assert not folder.exists()


def test_each_worker_takes_a_gpu_of_its_own(tmp_path: Path) -> None:
    with take(tmp_path, workers=2) as devices:
        assert devices.names == ("cuda:0", "cuda:1")
        assert [lease.domain for lease in devices.leases] == [component("cuda:0")[0], component("cuda:1")[0]]
    with pytest.raises(ValueError, match=r"--workers 3: there are 2 CUDA devices"):
        take(tmp_path, workers=3)


@pytest.mark.slow
def test_a_second_run_takes_the_gpu_that_is_free(tmp_path: Path, other_run: Any) -> None:
    assert other_run().names == ["cuda"]
    with take(tmp_path) as devices:
        assert devices.names == ("cuda:1",)


@pytest.mark.slow
def test_a_gpu_that_is_taken_names_its_holder_since_when_and_what_to_do(tmp_path: Path, other_run: Any) -> None:
    holder = other_run("cuda:1")
    with pytest.raises(DeviceError, match=rf"--device cuda:1: cuda:1: gpu:\S+ is held by process {holder.pid} since 20") as told:
        take(tmp_path, "cuda:1")
    assert "wait for its end, take --device cuda for a GPU that is free or take --device cpu" in str(told.value)
    with pytest.raises(DeviceError, match=r"--workers 2: .*take --workers 1"):
        take(tmp_path, workers=2)
    with take(tmp_path) as devices:  # the failed attempt holds nothing
        assert devices.names == ("cuda",)


@pytest.mark.slow
def test_a_killed_run_holds_nothing(tmp_path: Path, other_run: Any) -> None:
    holder = other_run(workers=2)
    with pytest.raises(DeviceError, match="is held by process"):
        take(tmp_path)
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with take(tmp_path, workers=2) as devices:
        assert devices.names == ("cuda:0", "cuda:1")


def test_the_devices_are_free_again_after_the_run(tmp_path: Path) -> None:
    with take(tmp_path, workers=2) as devices:
        assert all(lease.held for lease in devices.leases)
    assert not any(lease.held for lease in devices.leases)
    with take(tmp_path, workers=2) as again:
        assert again.names == devices.names


@pytest.mark.slow
def test_two_runs_on_two_gpus_bill_each_its_own(tmp_path: Path, other_run: Any, fake_gpus: Any) -> None:
    fake_gpus(2)
    assert counted(None) == {"cuda:0": True, "cuda:1": True}
    other_run()
    with take(tmp_path) as devices:
        assert counted(devices.components) == {"cuda:0": False, "cuda:1": True}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("device", "workers", "counting"),
    [("cpu", 1, ()), ("cpu", 2, ()), ("cuda:1", 1, (1,)), ("cuda", 1, (0,)), ("cuda", 2, (0, 1)), ("cuda", 3, (0, 1, 2))],
)
def test_the_gpus_that_a_run_holds_are_counted_and_the_others_are_shown(
    tmp_path: Path, fake_gpus: Any, device: str, workers: int, counting: tuple[int, ...]
) -> None:
    fake_gpus(3)
    with take(tmp_path, device, workers, gpus=3) as devices:
        assert counted(devices.components) == {f"cuda:{number}": number in counting for number in range(3)}


def counted(components: tuple[str, ...] | None) -> dict[str, bool]:
    with Ledger(discover("nvml", used=components), interval_seconds=None) as ledger:
        parts = {part.name: part.counts for part in ledger.total().components}
    return {name: parts[component(name)[0]] for name in (f"cuda:{number}" for number in range(len(parts)))}


def test_the_leased_gpu_is_named_to_the_meters_though_it_is_all_that_cuda_shows(tmp_path: Path) -> None:
    with take_devices("cuda", 1, folder=tmp_path, count=lambda: 1, components=lambda name: component("cuda:1")) as devices:
        assert devices.components == component("cuda:1")  # CUDA may count by speed: its 0 is NVML's 1 here


@pytest.mark.parametrize(
    ("shown", "named"), [("1,MIG-00000001", True), ("GPU-00000001-fake,MIG-00000001", True), ("MIG-00000001,1", False)]
)
def test_an_instance_after_a_gpu_of_its_own_is_none_to_cuda_and_hides_no_lease(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shown: str, named: bool
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", shown)
    with take_devices("cuda", 1, folder=tmp_path, count=lambda: 1, components=lambda name: component("cuda:1")) as devices:
        assert devices.components == (component("cuda:1") if named else None)


def test_a_numbered_gpu_for_several_workers_is_refused_as_it_cannot_be_meant(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--device must be cuda with --workers 2, got cuda:1"):
        take_devices("cuda:1", 2, folder=tmp_path, count=lambda: 4)
