"""The phases of a worker process last as it says, however late the parent hears of them; instants that cannot be are not believed."""

import os
import random
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from joulefront.search.billing.account import Account
from joulefront.search.energy import Capability, Ledger, Reading, Record
from joulefront.search.energy.sources.cpu_time import Machine
from joulefront.search.execution import worker
from joulefront.search.execution.job import Job, Outcome
from joulefront.search.execution.worker import WorkerProcess
from joulefront.search.records.bill import SessionBill

WATTS = 10.0


@dataclass
class HandClock:
    now_ns: int = 10**12

    def __call__(self) -> int:
        self.now_ns += 1000
        return self.now_ns


@dataclass
class Steady:
    """A counter of constant power."""

    clock: HandClock
    name: str = "steady"

    def probe(self) -> tuple[Capability, ...]:
        return (Capability("cpu", self.name, True, tick_seconds=0.0),)

    def read(self) -> tuple[Reading, ...]:
        now_ns = self.clock()
        return (Reading("cpu", now_ns, counter_joules=WATTS * now_ns / 1e9),)

    def close(self) -> None: ...


@dataclass
class LateLine:
    """A pipe whose messages, each with the instant it is heard at, come in order."""

    clock: HandClock
    told: list[tuple[int, Any]] = field(default_factory=list)

    def send(self, what: object) -> None: ...

    def poll(self, seconds: float) -> bool:
        return True

    def recv(self) -> Any:
        heard_ns, message = self.told.pop(0)
        self.clock.now_ns = max(self.clock.now_ns, heard_ns)
        return message


def phases_of(seed: int, begin_ns: int) -> list[tuple[str, int, int]]:
    """Kind, begin and end of each phase of a training."""
    draw, t_ns, found = random.Random(seed), begin_ns, []
    for kind in ("setup", "epoch", "eval", "epoch", "eval"):
        t_ns += draw.randrange(50_000_000)
        found.append((kind, t_ns, t_ns := t_ns + draw.randrange(1_000_000, 1_000_000_000)))
    return found


def trained(seed: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, offset_ns: int = 0, *, turned: bool = False) -> Any:
    """Train in a worker whose clock is ahead of the parent's, which hears of each edge 0 to 500 ms late; return all that is known of it."""
    clock, draw = HandClock(), random.Random(seed)
    monkeypatch.setattr(worker, "time", SimpleNamespace(monotonic_ns=clock))
    monkeypatch.setattr(Machine, "seconds", lambda self: 0.0)  # what others of this machine do is not a part of this
    line, heard_ns = LateLine(clock), 0
    told = cast(Any, SimpleNamespace(_pipe=line, _process=SimpleNamespace(is_alive=lambda: True), _device="cpu", pid=os.getpid()))
    told.revive = lambda: None
    with Ledger([Steady(clock)], interval_seconds=None, clock=clock) as ledger:
        account = Account(ledger, SessionBill(started="now"), [], None, tmp_path / "bill.json")
        meter = account.open(0, ())
        true = phases_of(seed, clock.now_ns)
        for kind, begin_ns, end_ns in true:
            edges = [begin_ns + offset_ns, end_ns + offset_ns]
            for when_ns, what in (begin_ns, "enter"), (end_ns, "exit"):
                heard_ns = max(heard_ns, when_ns + draw.randrange(500_000_000))
                instant_ns = edges.pop(-1 if turned else 0)
                line.told.append((heard_ns, (what, (kind, 1, instant_ns) if what == "enter" else (0.1, instant_ns))))
        line.told.append((heard_ns, ("done", Outcome(2, cpu_seconds=0.5))))
        job = Job(0, {}, 2, seed=0, device="cpu", threads=1, start=None, weights=tmp_path / "weights")
        outcome = WorkerProcess.train(told, job, phases=meter.phase, should_continue=lambda entry: True)
        whole = account.close(meter, state="ok", cpu_seconds=outcome.cpu_seconds)
        return true, whole, list(meter.phases)


@pytest.mark.parametrize("seed", range(5))
def test_the_parents_lateness_is_in_no_phase(seed: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    true, _, phases = trained(seed, monkeypatch, tmp_path)
    assert [(one.kind, one.t0_ns, one.t1_ns) for one in phases] == true
    for one in phases:
        assert one.joules == pytest.approx(WATTS * one.seconds, rel=1e-4)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("offset_seconds", [-3600.0, -0.3, 0.3, 3600.0, None])
def test_a_phase_whose_instants_cannot_be_is_neither_lost_nor_larger_than_its_trial(
    seed: int, offset_seconds: float | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A worker in a time namespace of its own has another clock; None is for one whose begins and ends are exchanged."""
    offset_ns = round((offset_seconds or 0.0) * 1e9)
    _, whole, phases = trained(seed, monkeypatch, tmp_path, offset_ns, turned=offset_seconds is None)
    edges: list[Record] = phases
    assert len(edges) == 5
    for one in edges:
        assert one.joules is not None
        assert one.joules == pytest.approx(WATTS * one.seconds, rel=1e-4)
        assert whole.t0_ns <= one.t0_ns <= one.t1_ns <= whole.t1_ns
    assert all(first.t1_ns <= second.t0_ns for first, second in pairwise(edges))
    assert sum(one.seconds for one in edges) > 0
