"""Finalists that are trained again: the plan, its order (no drift of the machine favours one of them), and the result of each training.

What they show about a front: means with intervals, which neighbours differ, selection optimism, drift of the machine.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from math import sqrt
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Any

from ..energy.intervals import Difference, Spread, spearman
from .files import read_json
from .trial import INTERRUPTED, Trial

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
        ValueError: If ``times``, ``order`` or ``seed`` break their rule, or a trial is named twice or not at all.

    Source:
        Randomised complete blocks: Montgomery, "Design and Analysis of Experiments", chapter 4.
    """
    if times < 1:
        raise ValueError(f"--times must be >= 1, got {times}; an interval needs 2 or more, 5 is usual")
    if seed < 0:
        raise ValueError(f"--seed must be >= 0, got {seed}; leave it out for that of the study")
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
        ValueError: If the file is damaged, or says what no plan holds: taken for empty, it would be overwritten.
    """
    file = folder / REPEATS_FILE
    if not file.is_file():
        return Repeats()
    remedy = "restore it from a copy, or delete it: what was trained again is then lost"
    found = read_json(file, _File, remedy)
    ended = Counter((one.plan, one.round, one.trial) for one in found.repeats if one.failed != INTERRUPTED)
    for one in found.repeats:
        plan = found.plans[one.plan] if 0 <= one.plan < len(found.plans) else None
        planned = plan is not None and one.trial in plan.trials and 0 <= one.round - plan.first_round < plan.times
        amounts = (one.train_joules, one.train_u_joules, one.spent_joules, one.seconds, one.cpu_seconds)
        if not planned or any(amount is not None and amount < 0 for amount in amounts) or ended[one.plan, one.round, one.trial] > 1:
            what = "is below zero in its energy or time" if planned else "is in none of its plans"
            what = "is there twice" if ended[one.plan, one.round, one.trial] > 1 else what
            raise ValueError(f"{str(file)!r} is damaged (a training of trial {one.trial} {what}); {remedy}")
    return Repeats(found.plans, found.repeats)


@dataclass(frozen=True)
class ReplicateSummary:
    """A trial as the search measured it, and its repeats.

    Attributes:
        searched: Its quality in the search.
        quality: Quality of the repeats; None when all of them failed.
        energy: Training energy of the repeats in joules; None when unknown.
        u_joules: Root mean square of the meter's random standard uncertainty of one repeat; None when unknown.
        failed: Repeats without a result.
        test: Quality of the repeats on the test split; None unless all of them were scored on it.
    """

    trial: Trial
    searched: float
    quality: Spread | None
    energy: Spread | None
    u_joules: float | None
    failed: int
    test: Spread | None = None

    @property
    def spread_over_meter(self) -> float | None:
        """How many times the meter's random uncertainty the energy spreads; None when either is unknown."""
        return None if self.energy is None or self.energy.sd is None or not self.u_joules else self.energy.sd / self.u_joules

    @property
    def quality_outside(self) -> bool:
        """Whether the quality in the search lies outside of the repeats' range; two repeats are needed for a range."""
        return self.quality is not None and self.quality.n > 1 and self.quality.outside(self.searched)

    @property
    def energy_outside(self) -> bool:
        """Whether the energy in the search does."""
        joules = self.trial.train_joules
        return self.energy is not None and self.energy.n > 1 and joules is not None and self.energy.outside(joules)


#: So many repeats of each of two models may say that nothing tells these apart where nothing else is known of them.
ENOUGH = 5


def told_apart(one: Spread, two: Spread, otherwise: float | None) -> bool | None:
    """Whether repeats tell the qualities of two models apart; None where they have no power to say no: two repeats seldom have.

    ``otherwise`` is by how much the two may differ by what else is known; where that is less than the half width of the repeats' interval,
    the repeats add nothing to it.
    """
    difference = Difference.of(one, two)
    if difference is None or difference.clear:
        return None if difference is None else True
    half = (difference.high - difference.low) / 2
    return False if (min(one.n, two.n) >= ENOUGH if otherwise is None else half <= otherwise) else None


@dataclass(frozen=True)
class Neighbours:
    """Two trials that follow each other on the front, the cheaper one (in the search) first.

    Attributes:
        energy: The logarithm of how many times the energy the second needs; None when unknown.
        quality: By how much the quality of the second is larger.
        order_kept: Whether energy and quality of the means differ in the same direction as they did in the search; None when unknown.
    """

    cheaper: int
    other: int
    energy: Difference | None
    quality: Difference | None
    order_kept: bool | None


@dataclass(frozen=True)
class ReplicateComparison:
    """The replicates of a run compared with the search, and the members with each other: cheapest in the search first.

    ``optimism`` is the optimism of selection: by how much the mean quality of the repeats is worse than in the search, over the members.
    """

    objective: str
    members: tuple[ReplicateSummary, ...]
    pairs: tuple[Neighbours, ...]
    optimism: Spread | None

    @property
    def order_survives(self) -> bool | None:
        """Whether every pair of neighbours keeps its order; None when that of any is unknown, or there is none."""
        kept = [pair.order_kept for pair in self.pairs]
        return None if not kept or None in kept else all(kept)

    def after(self, number: int) -> Neighbours | None:
        """Return the pair in which a trial is the cheaper one, or None."""
        return next((pair for pair in self.pairs if pair.cheaper == number), None)

    def summary_of(self, number: int) -> ReplicateSummary | None:
        """Return the summary of a trial, or None when it was not trained again."""
        return next((one for one in self.members if one.trial.number == number), None)


def compare_replicates(repeats: Repeats, trials: Sequence[Trial], objective: str, direction: str) -> ReplicateComparison:
    """Compare the replicates with the search, and the members with each other; trials without repeats are left out.

    Each interval holds for itself with a probability of 95 %: of twenty pairs that do not differ one looks as if it did.
    """
    known = {trial.number: trial for trial in trials if trial.values}
    mine: dict[int, list[Repeat]] = {}
    for one in repeats.trainings:
        if one.trial in known:
            mine.setdefault(one.trial, []).append(one)
    members = [_summary(known[number], found, objective) for number, found in mine.items()]
    members.sort(key=lambda one: (one.trial.train_joules or 0.0, one.trial.number))
    sign = 1.0 if direction == "maximize" else -1.0
    optimism = Spread.of(sign * (one.searched - one.quality.mean) for one in members if one.quality is not None)
    pairs = tuple(_neighbours(one, two) for one, two in pairwise(members))
    return ReplicateComparison(objective, tuple(members), pairs, optimism)


def drift(repeats: Repeats) -> tuple[int, float | None, float | None]:
    """Correlate the energy of a repeat, relative to the mean of its trial in the same plan, with its position in the plan.

    Return the number of repeats, Spearman's rank correlation and its two-sided p-value; None for too few.
    """
    groups: dict[tuple[int, int], list[Repeat]] = {}
    for one in repeats.trainings:
        if one.failed is None and one.train_joules:
            groups.setdefault((one.plan, one.trial), []).append(one)
    points = []
    for found in groups.values():
        if len(found) > 1:  # the energy of a single repeat is its own mean
            mean = fmean(one.train_joules or 0.0 for one in found)
            points += [(float(one.position), (one.train_joules or 0.0) / mean) for one in found]
    return len(points), *spearman(points)


def _summary(trial: Trial, found: Sequence[Repeat], objective: str) -> ReplicateSummary:
    good = [one for one in found if one.failed is None]
    known = [one.train_u_joules for one in good if one.train_u_joules is not None]
    return ReplicateSummary(
        trial,
        trial.values[0],
        Spread.of(one.quality[objective] for one in good if objective in one.quality),
        Spread.of(one.train_joules for one in good if one.train_joules is not None),
        sqrt(fmean(u**2 for u in known)) if known else None,
        len(found) - len(good),
        Spread.of(one.test[objective] for one in good) if all(objective in one.test for one in good) else None,
    )


def _neighbours(one: ReplicateSummary, two: ReplicateSummary) -> Neighbours:
    kept = None
    if one.quality is not None and two.quality is not None and one.energy is not None and two.energy is not None:
        joules = (two.trial.train_joules or 0.0) - (one.trial.train_joules or 0.0)
        kept = _same_way(two.searched - one.searched, two.quality.mean - one.quality.mean)
        kept = kept and _same_way(joules, two.energy.mean - one.energy.mean)
    return Neighbours(
        one.trial.number, two.trial.number, Difference.of_logarithms(one.energy, two.energy), Difference.of(one.quality, two.quality), kept
    )


def _same_way(before: float, now: float) -> bool:
    return before * now > 0 or before == now == 0


def row_of(comparison: ReplicateComparison, member: ReplicateSummary) -> dict[str, Any]:
    """Return what is known of a member as one flat object for programs; the keys are stable and name their units."""
    pair, name = comparison.after(member.trial.number), comparison.objective
    return {
        "trial": member.trial.number,
        "epochs": member.trial.epochs,
        "repeats_failed": member.failed,
        name: member.searched,
        "train_joules": member.trial.train_joules,
        **spread_keys(name, member.quality),
        **spread_keys("train_joules", member.energy),
        **spread_keys(f"test_{name}", member.test),
        "spread_over_meter": member.spread_over_meter,
        "next_trial": None if pair is None else pair.other,
        "next_differs_in_energy": _clear(None if pair is None else pair.energy),
        "next_differs_in_quality": _clear(None if pair is None else pair.quality),
    }


def spread_keys(name: str, spread: Spread | None) -> dict[str, Any]:
    """Return a spread as ``repeats_NAME_n``, ``..._mean``, ``..._sd``, ``..._low`` and ``..._high``."""
    fields = ("mean", "sd", "low", "high")
    return {
        f"repeats_{name}_n": 0 if spread is None else spread.n,
        **{f"repeats_{name}_{field}": None if spread is None else getattr(spread, field) for field in fields},
    }


def _clear(difference: Difference | None) -> bool | None:
    return None if difference is None else difference.clear
