"""Finalists that are trained again: the plan, its order (no drift of the machine favours one of them), and the result of each training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any

from .files import read_json
from .trial import INTERRUPTED

REPEATS_FILE = "repeats.json"
ORDERS = ("random", "abba", "given")


@dataclass(frozen=True)
class Slot:
    """One training of a plan: of a trial, in a round (each holds every trial once), at a position in the whole plan, from 0."""

    round: int
    position: int
    trial: int


def slots(trials: Sequence[int], times: int, order: str, seed: int, *, first_round: int = 0) -> tuple[Slot, ...]:
    """Return the trainings of a plan in their order: randomised complete blocks, there and back, or as given.

    ``random`` draws a new order in every round, from the seed; ``abba`` goes there and back, so that over an even number of rounds each
    trial has the same mean position and a linear drift cancels; ``given`` keeps the order, for machines that are known to be steady.

    Raises:
        ValueError: If ``times`` or ``order`` break their rule, or a trial is named twice or not at all.

    Source:
        Randomised complete blocks: Montgomery, "Design and Analysis of Experiments", chapter 4.
    """
    if times < 1:
        raise ValueError(f"--times must be >= 1, got {times}; an interval needs 2 or more, 5 is usual")
    if order not in ORDERS:
        raise ValueError(f"--order must be one of {', '.join(ORDERS)}, got {order!r}")
    if not trials or len(set(trials)) != len(trials):
        raise ValueError(f"a plan needs each trial once and at least one, got {list(trials)}")
    plan: list[Slot] = []
    for number in range(first_round, first_round + times):
        block = list(trials)
        if order == "random":
            Random(f"{seed}:{number}").shuffle(block)
        elif order == "abba" and (number - first_round) % 2:
            block.reverse()
        plan += [Slot(number, len(plan) + place, trial) for place, trial in enumerate(block)]
    return tuple(plan)


@dataclass(frozen=True)
class Plan:
    """What one call set out to train: trials, cheapest first, ``times`` times each, in one of the ``ORDERS``.

    Attributes:
        started: UTC time, ISO 8601.
        seed: Seeds order and trainings.
        first_round: Number of its first round; rounds are counted over all plans of a run.
        idle_watts: Idle power by component, when it was measured.
        anchor: Measurements of the anchor configuration, when there were any, see `joulefront.search.running.baselines.BaselineController`.
    """

    started: str
    trials: tuple[int, ...]
    times: int
    order: str
    seed: int
    first_round: int = 0
    idle_watts: Mapping[str, Any] | None = None
    anchor: Mapping[str, Any] | None = None

    def slots(self) -> tuple[Slot, ...]:
        """Return its trainings in order."""
        return slots(self.trials, self.times, self.order, self.seed, first_round=self.first_round)

    def asks_the_same(self, other: Plan) -> bool:
        """Whether another plan has the same trials, times, order and seed."""
        return (self.trials, self.times, self.order, self.seed) == (other.trials, other.times, other.order, other.seed)


@dataclass(frozen=True)
class Repeat:
    """One training of a trial's candidate from scratch, with a seed of its own.

    Attributes:
        plan: Number of the plan, as ``trial`` and ``round`` are numbers of theirs; ``position`` is the place in the plan, from 0.
        seed: Seeded weights, order of the examples and augmentation.
        epochs: Epochs reached.
        quality: Validation quality by metric name; empty when it failed.
        test: The same on the test split, which the search never sees; empty without one, and in repeats of earlier versions.
        train_joules: Energy to train from scratch (set-up and epochs, validation excluded), as for trials; None when unknown.
        train_u_joules: Its random standard uncertainty.
        spent_joules: Everything between taking and storing the job: what is billed.
        seconds: Duration of the training; ``cpu_seconds`` are its CPU-seconds. None when unknown.
        hardware_id: Short hash of the hardware.
        energy_quality: ``measured``, ``estimated``, ``mixed`` or ``absent``.
        utc: When it ended, ISO 8601.
        failed: Why it has no result, or None.
        ledger_session: The session of the bill that it is of; empty in repeats of earlier versions.
    """

    plan: int
    trial: int
    round: int
    position: int
    seed: int
    epochs: int
    quality: Mapping[str, float] = field(default_factory=dict)
    train_joules: float | None = None
    train_u_joules: float | None = None
    spent_joules: float | None = None
    seconds: float | None = None
    cpu_seconds: float | None = None
    hardware_id: str | None = None
    energy_quality: str = "absent"
    utc: str = ""
    failed: str | None = None
    test: Mapping[str, float] = field(default_factory=dict)
    ledger_session: str = ""


@dataclass(frozen=True)
class Repeats:
    """Everything that was trained again in a run, and what each call set out to do, oldest first; it only ever grows."""

    plans: tuple[Plan, ...] = ()
    trainings: tuple[Repeat, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.trainings)

    @property
    def good(self) -> tuple[Repeat, ...]:
        """The trainings that have a result."""
        return tuple(one for one in self.trainings if one.failed is None)

    @property
    def rounds(self) -> int:
        """Rounds that were planned so far; the next plan begins with this number."""
        return max((plan.first_round + plan.times for plan in self.plans), default=0)

    def open_slots(self, plan: int) -> tuple[Slot, ...]:
        """Return what is left of a plan, in its order: a training that was interrupted is done again, one that failed is not."""
        done = {(one.round, one.trial) for one in self.trainings if one.plan == plan and one.failed != INTERRUPTED}
        return tuple(slot for slot in self.plans[plan].slots() if (slot.round, slot.trial) not in done)

    def with_plan(self, plan: Plan) -> Repeats:
        """Return these and another plan."""
        return replace(self, plans=(*self.plans, plan))

    def with_training(self, training: Repeat) -> Repeats:
        """Return these and another training."""
        return replace(self, trainings=(*self.trainings, training))

    def with_facts(self, plan: int, facts: Mapping[str, Any]) -> Repeats:
        """Return these with what the baselines measured during a plan."""
        known = {name: facts[name] for name in ("idle_watts", "anchor") if facts.get(name)}
        return replace(self, plans=tuple(replace(one, **known) if number == plan else one for number, one in enumerate(self.plans)))

    def to_json(self) -> dict[str, Any]:
        """Return a plain dictionary."""
        return {"plans": [asdict(plan) for plan in self.plans], "repeats": [asdict(one) for one in self.trainings]}


@dataclass(frozen=True)
class _File:
    plans: tuple[Plan, ...]
    repeats: tuple[Repeat, ...]


def read_repeats(folder: Path) -> Repeats:
    """Read the repeats of a run folder; none when there is no file.

    Raises:
        ValueError: If the file is damaged: taken for empty, it would be overwritten.
    """
    file = folder / REPEATS_FILE
    if not file.is_file():
        return Repeats()
    found = read_json(file, _File, "restore it from a copy, or delete it: what was trained again is then lost")
    return Repeats(found.plans, found.repeats)
