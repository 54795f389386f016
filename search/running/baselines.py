"""Equal conditions for all trials: idle baselines, cool-down, and an anchor configuration that is measured again through the study.

Idle power is what the machine takes without a training; a hot device leaks more than a cool one; the anchor shows whether the same
training costs the same at the end of a study as at its start.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from ..argument_types import refuse_wrong_types
from ..energy import Ledger
from ..energy.host import idle_watts
from ..energy.record import Record
from ..execution.probe import probe
from ..hints import Hints
from ..space import FixedTrial, NearestTrial, RandomTrial
from ..study import Study
from ..training.task import Task

#: Share of a limit on trials that the first ones may take, the ordinary choice of each family among them.
SHARE_TO_BEGIN = 0.25
#: A trial starts when the device is at most this much warmer than before the first one.
MARGIN_CELSIUS = 3.0
#: No baseline and no wait is longer.
LONGEST_SECONDS = 86_400


def measure_idle(ledger: Ledger, seconds: float = 10.0, name: str = "idle", *, sleep: Callable[[float], None] = time.sleep) -> Record:
    """Open an idle window and wait; the ledger then knows the idle power of its components.

    Raises:
        ValueError: `seconds` is below 1: no meter knows an idle power that fast.
    """
    if seconds < 1:
        raise ValueError(f"seconds must be >= 1, got {seconds}; 10 to 30 are usual")
    with ledger.window(name, kind="idle") as window:
        sleep(seconds)
        # Closed in here, and once: the ledger learns the idle power from a record that is final.
        return window.close(settle=True)


def cool_down(
    celsius: Callable[[], float | None],
    start_celsius: float | None,
    limit_seconds: float,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Wait until the device is at most `MARGIN_CELSIUS` warmer than at the start, or the time is up.

    A hot predecessor makes the next trial look worse: leakage grows with temperature. Without a sensor, or when the temperature before
    the first trial is unknown, nothing is waited for.
    """
    end = clock() + limit_seconds
    while start_celsius is not None and (now := celsius()) is not None and now > start_celsius + MARGIN_CELSIUS:
        if (left := end - clock()) <= 0:
            return
        sleep(min(1.0, left))


def hottest(edges: Mapping[str, Mapping[str, object]]) -> float | None:
    """Return the highest temperature in the facts that a ledger's sources note at an edge, or None without a sensor."""
    known = [value for facts in edges.values() for key, value in facts.items() if "celsius" in key and isinstance(value, int | float)]
    return max(map(float, known), default=None)


@dataclass(frozen=True)
class MeasurementProtocol:
    """What is done so that the order of trials does not change their energy; all off by default.

    Attributes:
        idle_seconds: Length of an idle baseline before the first, between (every tenth) and after the last trial; 0 for none.
        cool_down_seconds: Longest wait before a trial for the device to come within 3 C of its temperature at the start; 0 for none.
        anchor_every: After so many trials one fixed configuration is measured again for ``anchor_seconds``; 0 for never.
    """

    idle_seconds: float = 0.0
    cool_down_seconds: float = 0.0
    anchor_every: int = 0
    anchor_seconds: float = 2.0

    def check(self, workers: int) -> None:
        """Refuse a cool-down beside other trainings, which heat the same machine: every trial would wait for all others.

        Raises:
            ValueError: If there is one with several workers.
        """
        if self.cool_down_seconds and workers > 1:
            raise ValueError(
                f"cool_down_seconds (--cool-down) must be 0 with several workers, got {self.cool_down_seconds:g} with {workers}: the "
                "others heat the machine; use one worker, or no cool-down"
            )

    def __post_init__(self) -> None:
        """Refuse lengths that nobody can wait for, and baselines too short for any meter, with a ``ValueError``."""
        refuse_wrong_types(MeasurementProtocol, vars(self))
        if self.anchor_every < 0:
            raise ValueError(f"anchor_every (--anchor) must be >= 0 trainings, got {self.anchor_every}; 0 means never")
        for name, option in (("idle_seconds", " (--idle)"), ("cool_down_seconds", " (--cool-down)"), ("anchor_seconds", "")):
            if not 0 <= getattr(self, name) <= LONGEST_SECONDS:
                raise ValueError(f"{name}{option} must be between 0 and {LONGEST_SECONDS:,} s (a day), got {getattr(self, name)}")
        if 0 < self.idle_seconds < 1:
            raise ValueError(f"idle_seconds (--idle) must be 0 or >= 1, got {self.idle_seconds}: no meter is faster; 10 is usual")


#: Nothing is done.
PLAIN = MeasurementProtocol()


def default_candidate(study: Study) -> dict[str, Any] | None:
    """Return the parameters of the default model of a study: the trial with which the search is compared.

    It is what somebody trains who does not search: the ordinary choice of the first family that has one, see ``defaults`` of a space, to
    the study's last rung, or to the ``epochs`` that it names. With pretrained weights at hand that is a head on a frozen network.
    None without such a family, and for a grid.
    """
    wanted = {} if study.sampler == "grid" else Hints(study.space).defaults()
    if not wanted:
        return None
    draw = NearestTrial(wanted)
    study.space.sample(draw)
    return {**draw.params, "epochs": _within(study, wanted.get("epochs", study.rungs[-1]))}


def _within(study: Study, epochs: Any) -> int:
    return min(max(int(epochs), study.rungs[0]), study.rungs[-1])


def beginning(study: Study, trials: int | None = None) -> tuple[Sequence[Mapping[str, Any]], Mapping[str, Any] | None, int | None]:
    """Return the trials to begin with, the default model, and its place among them: one of the study's own, else behind those.

    Behind it comes the ordinary choice of every family that is not among them, so that none is dropped before it was tried; of so many
    ``trials`` in all, at most ``SHARE_TO_BEGIN`` are spent like that.
    """
    default = default_candidate(study)
    bounded = [{**one, "epochs": _within(study, one["epochs"])} if "epochs" in one else one for one in study.first]  # --rungs, --smoke
    own = tuple(one for k, one in enumerate(bounded) if one not in bounded[:k])
    if default is None:
        return own, None, None
    place = next((k for k, one in enumerate(own) if _same(study, one, default)), len(own))
    first = own if place < len(own) else (*own, default)
    others = [] if study.complete_only else list(_of_other_families(study, first))
    most = len(others) if trials is None else max(0, int(SHARE_TO_BEGIN * trials) - len(first))
    return (*first, *others[:most]), default, place


def _of_other_families(study: Study, first: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """Yield the ordinary choices of families that are not tried first, at the rung at which they mean something, see ``Hints.starts``."""
    known, passes = set(), Hints(study.space).epochs_are_passes
    # What trains in passes goes on from a short training if that promises anything; trees and shares of the data mean little before.
    short = study.rungs[min(1, len(study.rungs) - 1) if passes else len(study.rungs) // 2]
    for wanted in (*first, *Hints(study.space).starts()):
        draw = NearestTrial(wanted)
        family = tuple(study.space.sample(draw).architecture.get(name) for name in ("family", "estimator"))
        if family not in known and wanted not in first:
            yield {**draw.params, "epochs": max(rung for rung in study.rungs if rung <= max(study.rungs[0], wanted.get("epochs", short)))}
        known.add(family)


def _same(study: Study, params: Mapping[str, Any], default: Mapping[str, Any]) -> bool:
    """Whether parameters leave nothing open and are those of the default model, also in its epochs."""
    try:
        own, other = (study.space.key(study.space.sample(FixedTrial(one))) for one in (params, default))
    except ValueError:
        return False
    return own == other and _within(study, params.get("epochs", 0)) == default["epochs"]


def with_earlier(facts: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Return the baselines of a session, its anchors behind those of earlier ones, which the folder's facts hold: a study drifts as one."""
    before, anchor = facts.get("anchor") or {}, own.get("anchor") or {}
    same = before and anchor and before["params"] == anchor["params"]
    joined = {"anchor": {**anchor, **{name: [*before[name], *anchor[name]] for name in ("seconds", "joules")}}} if same else {}
    return {**own, **joined}


@dataclass
class BaselineController:
    """Measures the baselines of a session and keeps the conditions of its trials equal.

    The anchor is the study's first random candidate; ``anchors`` are ``(seconds since the start, joules per epoch)`` of its measurements.
    """

    rules: MeasurementProtocol
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
                    if anchor:
                        self._measure_anchor()
                    if idle:
                        self._measure_idle()
                    if self.rules.cool_down_seconds:
                        cool_down(self._celsius, self._start_celsius, self.rules.cool_down_seconds)
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

    def end(self) -> dict[str, Any]:
        """Measure after the last trial; return the facts for the run folder."""
        self._measure_idle()
        if self._trials:
            self._measure_anchor()
        facts: dict[str, Any] = {}
        if self.anchors:
            at, joules = zip(*self.anchors, strict=True)
            facts["anchor"] = {"params": self.anchor(), "seconds": list(at), "joules": list(joules), "unit": "joules per epoch"}
        if self._idle:
            facts["idle_watts"] = {name: idle.watts for name, idle in idle_watts(self._idle).items()}
        return facts

    def _measure_idle(self) -> None:
        if self.rules.idle_seconds:
            self._idle.append(measure_idle(self.ledger, self.rules.idle_seconds))

    def _measure_anchor(self) -> None:
        if not self.rules.anchor_every:
            return
        where: Any = dict(device=self.device, threads=self.threads, seed=self.study.seed, seconds=self.rules.anchor_seconds)
        found = probe(self.anchor(), self.study.space, self.task, self.ledger, **where)
        if found.epoch_joules is not None:
            self.anchors.append((time.monotonic() - self._began, found.epoch_joules))

    def anchor(self) -> Mapping[str, Any]:
        """Return the parameters of the anchor."""
        draw = RandomTrial(self.study.seed)
        self.study.space.sample(draw)
        return draw.params

    def _celsius(self) -> float | None:
        return hottest(self.ledger.open("temperature", kind="idle").close().edges.get("end", {}))
