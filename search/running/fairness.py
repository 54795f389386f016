"""Fair trials: idle baselines, cool-down and an anchor that is measured again through the study."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from ..energy import Ledger
from ..energy.baseline import cool_down, hottest, measure_idle
from ..energy.host import idle_watts
from ..execution.probe import Probe, probe, warm_up
from ..space import Draw
from ..study import Study
from ..training.task import Task


@dataclass(frozen=True)
class Fairness:
    """What is done so that the order of trials does not change their energy; all off by default.

    Attributes:
        idle_seconds: Length of an idle baseline before the first, between (every tenth) and after the last trial; 0 for none.
        cool_down_seconds: Longest wait before a trial for the device to come within 3 C of its temperature at the start; 0 for none.
        anchor_every: After so many trials one fixed configuration is measured again; 0 for never.
        anchor_seconds: How long an anchor measurement lasts.
    """

    idle_seconds: float = 0.0
    cool_down_seconds: float = 0.0
    anchor_every: int = 0
    anchor_seconds: float = 2.0

    def check(self, workers: int) -> None:
        """Refuse a cool-down beside other trainings, which heat the same machine: every trial would wait for all others.

        Raises:
            ValueError: If it is asked for with several workers.
        """
        if self.cool_down_seconds and workers > 1:
            raise ValueError(
                f"cool_down_seconds (--cool-down) must be 0 with several workers, got {self.cool_down_seconds:g} with {workers}: the "
                "others heat the machine; use one worker, or no cool-down"
            )

    def __post_init__(self) -> None:
        """Refuse negative lengths, and baselines that are too short to say anything.

        Raises:
            ValueError: If one is.
        """
        for name in ("idle_seconds", "cool_down_seconds", "anchor_every", "anchor_seconds"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be >= 0, got {getattr(self, name)}")
        if 0 < self.idle_seconds < 1:
            raise ValueError(f"idle_seconds (--idle) must be 0 or >= 1, got {self.idle_seconds}: no meter is faster; 10 is usual")


@dataclass
class Keeper:
    """Keeps the trials of a session fair.

    Attributes:
        rules: What to do.
        study: The study; its first random candidate is the anchor.
        task: The data.
        ledger: A running ledger.
        device: PyTorch device.
        threads: Threads of a training.
        anchors: ``(seconds since the start, joules per epoch)`` of each anchor measurement.
    """

    rules: Fairness
    study: Study
    task: Task
    ledger: Ledger
    device: str
    threads: int
    anchors: list[tuple[float, float]] = field(default_factory=list)
    _idle: list[Any] = field(default_factory=list)
    _start_celsius: float | None = None
    _began: float = field(default_factory=time.monotonic)
    _trials: int = 0
    _training: int = 0
    _measuring: bool = False
    _turn: threading.Condition = field(default_factory=threading.Condition)

    def warm_up(self) -> None:
        """Pay what only the first training of its kind pays in a process, before the first trial, see ``warm_up``."""
        warm_up(self.study.space, self.task, device=self.device, threads=self.threads, seed=self.study.seed)

    def begin(self) -> None:
        """Measure before the first trial."""
        self._start_celsius = self._celsius()
        self._measure_idle()
        self._measure_anchor()

    @contextmanager
    def trial(self) -> Iterator[None]:
        """Enter a training: before it cool down, and measure again when it is time.

        What is measured between trainings is measured while none runs: with several workers the next ones wait until those that run
        have ended, outside of every trial's window.
        """
        with self._turn:
            self._turn.wait_for(lambda: not self._measuring)
            self._trials += 1
            anchor = self.rules.anchor_every > 0 and self._trials % self.rules.anchor_every == 0
            idle = self.rules.idle_seconds > 0 and self._trials % 10 == 0
            if anchor or idle or self.rules.cool_down_seconds:
                self._measuring = True
                try:
                    self._turn.wait_for(lambda: self._training == 0)
                    self._between(anchor=anchor, idle=idle)
                finally:
                    self._measuring = False
                    self._turn.notify_all()
            self._training += 1
        try:
            yield
        finally:
            with self._turn:
                self._training -= 1
                self._turn.notify_all()

    def _between(self, *, anchor: bool, idle: bool) -> None:
        if anchor:
            self._measure_anchor()
        if idle:
            self._measure_idle()
        if self.rules.cool_down_seconds and self._start_celsius is not None:
            cool_down(self._celsius, self._start_celsius, limit_seconds=self.rules.cool_down_seconds)

    def end(self) -> dict[str, Any]:
        """Measure after the last trial; return the facts for the run folder."""
        self._measure_idle()
        if self._trials:
            self._measure_anchor()
        facts: dict[str, Any] = {}
        if self.anchors:
            at, joules = zip(*self.anchors, strict=True)
            facts["anchor"] = {"params": self._anchor(), "seconds": list(at), "joules": list(joules), "unit": "joules per epoch"}
        if self._idle:
            facts["idle_watts"] = {name: idle.watts for name, idle in idle_watts(self._idle).items()}
        return facts

    def _measure_idle(self) -> None:
        if self.rules.idle_seconds:
            self._idle.append(measure_idle(self.ledger, self.rules.idle_seconds))

    def _measure_anchor(self) -> None:
        if not self.rules.anchor_every:
            return
        found = self._probe(self.rules.anchor_seconds)
        if found.epoch_joules is not None:
            self.anchors.append((time.monotonic() - self._began, found.epoch_joules))

    def _probe(self, seconds: float) -> Probe:
        study = self.study
        return probe(
            self._anchor(),
            study.space,
            self.task,
            self.ledger,
            device=self.device,
            threads=self.threads,
            seed=study.seed,
            seconds=seconds,
        )

    def _anchor(self) -> Mapping[str, Any]:
        draw = Draw(self.study.seed)
        self.study.space.sample(draw)
        return draw.params

    def _celsius(self) -> float | None:
        window = self.ledger.open("temperature", kind="idle")
        record = window.close()
        return hottest(record.edges.get("end", {}) if record.edges else {})
