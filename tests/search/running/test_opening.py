"""What a run says of its meters when it begins."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from joulefront.search.energy import Capability, Ledger, Reading, host
from joulefront.search.energy.discover import Discovery
from joulefront.search.energy.sources.cpu_coefficients import CpuCoefficients
from joulefront.search.energy.sources.cpu_time import CpuTime, CpuUse, Tree
from joulefront.search.running import session as session_module
from joulefront.search.running.session import before_ledger, meters_text


class Meter:
    """A meter of one component that draws 50 W, or cannot be read."""

    name = "rapl"

    def __init__(self, component: str, error: str | None = None) -> None:
        self.component, self.error = component, error

    def probe(self) -> tuple[Capability, ...]:
        return (Capability(self.component, self.name, True, tick_seconds=1e-6, counts=self.component != "wall"),)

    def read(self) -> tuple[Reading, ...]:
        now = time.monotonic_ns()
        if self.error is not None:
            return (Reading(self.component, now, error=self.error),)
        return (Reading(self.component, now, counter_joules=50.0 * now / 1e9),)

    def close(self) -> None:
        """Nothing is held."""


@pytest.mark.parametrize(
    ("meters", "said"),
    [
        ([Meter("cpu:pkg0")], "cpu:pkg0 measured by rapl"),
        ([Meter("cpu:pkg0"), Meter("wall")], "cpu:pkg0 measured by rapl, beside it the whole machine measured by rapl"),
        (
            [Meter("cpu:pkg0"), Meter("wall", "no route to the plug")],
            "cpu:pkg0 measured by rapl, beside it the whole machine not known yet (no route to the plug)",
        ),
    ],
)
def test_a_wall_meter_is_named_after_what_counts_and_a_wrong_address_is_seen_at_once(meters: list[Meter], said: str) -> None:
    with Ledger(meters, interval_seconds=None) as ledger:
        time.sleep(0.01)
        ledger.sample()
        assert meters_text(ledger) == said


def test_that_no_meter_reads_the_gpu_that_works_is_said_with_the_reason() -> None:
    lost = Capability("gpu", "nvml", False, reason="no NVIDIA driver: NVML Shared Library Not Found")
    for more, gpu in (([], True), ([Meter("gpu:GPU-1")], False)):
        with Ledger([Meter("cpu:pkg0"), *more], absent=[lost], interval_seconds=None) as ledger:
            time.sleep(0.01)
            ledger.sample()
            said = meters_text(ledger, "cuda:0")
            assert ("nothing of the GPU" in said, "no NVIDIA driver" in said) == (gpu, gpu)
            assert "nothing" not in meters_text(ledger, "cpu")


def test_workers_are_refused_where_the_estimate_does_not_see_children(tmp_path: Path) -> None:
    with Ledger([CpuTime(tree=Tree(tmp_path))], interval_seconds=None) as ledger:
        ledger.sample()
        session_module.refuse_unmeasurable(ledger, "auto", 1)
        with pytest.raises(ValueError, match="--workers must be 1 here, got 2: this system does not show"):
            session_module.refuse_unmeasurable(ledger, "auto", 2)
    with Ledger([CpuTime()], interval_seconds=None) as ledger:
        ledger.sample()
        session_module.refuse_unmeasurable(ledger, "auto", 2)


def test_gpus_of_which_some_cannot_be_metered_are_refused_before_their_trials_look_cheap() -> None:
    dark = Capability("gpu:GPU-2", "nvml", False, reason="Insufficient Permissions")
    with Ledger([Meter("gpu:GPU-1")], absent=[dark], interval_seconds=None) as ledger:
        ledger.sample()
        with pytest.raises(ValueError, match=r"--workers 2: of 2 GPUs 1 cannot be metered \(gpu:GPU-2: Insufficient Permissions\)"):
            session_module.refuse_unmeasurable(ledger, "auto", 2, ("gpu:GPU-1", "gpu:GPU-2"))
        session_module.refuse_unmeasurable(ledger, "auto", 1, ("gpu:GPU-1",))
    with Ledger([Meter("cpu:pkg0")], absent=[dark], interval_seconds=None) as ledger:
        ledger.sample()
        session_module.refuse_unmeasurable(ledger, "auto", 1, ("gpu:GPU-2",))  # said at the start, and alike for all trials


class Seconds(Tree):
    """CPU-seconds of one busy core; the process took 3 of them before the test."""

    began = 0.0

    def read(self, *, exact: bool = True) -> CpuUse:
        return CpuUse(3.0 + time.monotonic() - Seconds.began, 0.0)


@pytest.mark.parametrize(
    ("meters", "priced"), [(["cpu_time"], True), (["cpu:pkg0"], False), (["cpu:pkg0", "cpu_time"], False), (["cpu:pkg0", "gpu:a"], False)]
)
def test_what_the_process_took_before_the_ledger_is_priced_only_where_its_cpu_seconds_are_the_account(
    meters: list[str], priced: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (session_module, host):
        monkeypatch.setattr(module, "Tree", Seconds)
    monkeypatch.setattr(Seconds, "began", time.monotonic())
    found = Discovery(tuple(CpuTime(CpuCoefficients(5.0), tree=Seconds()) if name == "cpu_time" else Meter(name) for name in meters), ())
    with Ledger(found, interval_seconds=None) as ledger:
        time.sleep(0.3)  # what the ledger has seen is not before it
        ledger.sample()
        before = before_ledger(ledger, found)
    assert before["cpu_seconds"] == pytest.approx(3.0, abs=0.2)
    assert before["joules"] == (5.0 * before["cpu_seconds"] if priced else None)
