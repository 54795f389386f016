"""How trainings end, as the record and the bill say it, and what a run holds until its own end."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from joulefront.search import Study, run
from joulefront.search.execution.devices import DeviceError, Devices, Lease
from joulefront.search.records.run_folder import RunFolder, StoreError

pytestmark = pytest.mark.slow

Maker = Callable[..., Study]


def states_of(path: Path) -> dict[int, str]:
    return {trial.number: trial.energy.record["state"] for trial in RunFolder.open(path).run().trials}


def test_what_the_safety_net_ends_is_called_pruned_in_the_record_and_in_the_bill(
    rings: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("joulefront.search.stopping.projection.stop_reason", lambda *arguments, **options: "it cannot reach the front")
    study = replace(rings(trials=5), stop_dominated=True)
    run(study, out=tmp_path / "r")
    found = RunFolder.open(tmp_path / "r").run()
    states = states_of(tmp_path / "r")
    assert "pruned" in states.values()
    assert set(states.values()) <= {"pruned", "ok"}  # a training of one epoch has nothing to be spared
    for trial in found.trials:
        assert trial.state == "complete"
        assert (trial.reason == "it cannot reach the front") == (states[trial.number] == "pruned")
    paid = {state: sum(t.increment_joules or 0.0 for t in found.trials if states[t.number] == state) for state in states.values()}
    assert found.bill.by_state["pruned"] == pytest.approx(paid["pruned"], rel=1e-3)
    assert found.bill.by_state.get("complete", 0.0) == pytest.approx(paid.get("ok", 0.0), rel=1e-3)


def test_what_a_cap_ends_is_called_stopped(rings: Maker, tmp_path: Path) -> None:
    run(replace(rings(trials=4), max_trial_joules=1e-6, complete_only=True), out=tmp_path / "r")
    found = RunFolder.open(tmp_path / "r").run()
    assert set(states_of(tmp_path / "r").values()) == {"stopped"}
    assert "complete" not in found.bill.by_state
    assert found.bill.by_state["stopped"] == pytest.approx(sum(t.increment_joules or 0.0 for t in found.trials), rel=1e-3)


def test_a_run_holds_its_device_until_its_end_and_counts_that_one_only(
    rings: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease, asked = Lease("gpu:GPU-1", tmp_path / "leases"), []

    def take(device: str, workers: int) -> Devices:
        assert lease.acquire()
        return Devices(("cpu",) * workers, (lease.domain,), (lease,))

    from joulefront.search.running import session as module

    monkeypatch.setattr(module, "take_devices", take)
    real = module.discover

    def discover(*arguments: Any, **options: Any) -> Any:
        asked.append(options["used"])
        return real(*arguments, **options)

    monkeypatch.setattr(module, "discover", discover)
    held: list[bool] = []
    run(rings(trials=2), out=tmp_path / "r", listener=lambda progress: held.append(Lease("gpu:GPU-1", tmp_path / "leases").acquire()))
    assert held
    assert not any(held)
    assert asked == [("gpu:GPU-1",)]
    assert not lease.held
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").write_text("no run")
    with pytest.raises(StoreError, match="holds files"):  # nor does a run keep it that ends before its first trial
        run(rings(trials=2), out=tmp_path / "other")
    assert not lease.held


def test_a_run_that_gets_no_device_leaves_no_folder(rings: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def take(device: str, workers: int) -> Sequence[str]:
        raise DeviceError("--device cuda: cuda:0: gpu:GPU-1 is held by process 1")

    monkeypatch.setattr("joulefront.search.running.session.take_devices", take)
    with pytest.raises(DeviceError, match="held by process 1"):
        run(rings(), out=tmp_path / "r")
    assert not (tmp_path / "r").exists()
