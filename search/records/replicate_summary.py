"""What replicates show about a front: means with intervals, which neighbours differ, selection optimism, drift of the machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import sqrt
from statistics import fmean
from typing import Any

from ..energy.intervals import Difference, Spread, spearman
from .replicates import Repeat, Repeats
from .trial import Trial


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
    for one in repeats.good:
        if one.train_joules:
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
