"""How surely a quality is known from a finite validation split, which models it can tell apart, and which one to take.

Intervals hold with 95 %. Models are compared on the same examples where their results are kept, else by counts alone.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import ceil, isfinite, log10, sqrt
from typing import Any

import numpy as np

from .energy.intervals import Spread
from .formatting import plain
from .records.examples import SEED, SHARES, Examples
from .records.replicates import ReplicateComparison, told_apart
from .records.trial import Trial

#: 97.5 % quantile of the normal distribution, and the level of every test.
Z, LEVEL = 1.959963984540054, 0.05
#: Resamples of a bootstrap.
RESAMPLES = 400
Results = Callable[[Trial], Examples | None]


def wilson(right: float, n: int) -> tuple[float, float]:
    """Return the interval of a share of ``right`` among ``n``.

    Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference", JASA 22.

    >>> [round(end, 3) for end in wilson(347, 359)]
    [0.942, 0.981]
    """
    share, squared = right / n, Z * Z
    middle = (share + squared / (2 * n)) / (1 + squared / n)
    half = Z / (1 + squared / n) * sqrt(share * (1 - share) / n + squared / (4 * n * n))
    return max(0.0, min(middle - half, share)), min(1.0, max(middle + half, share))


def mcnemar(only_one: int, only_two: int) -> float:
    """Return the exact two-sided p-value of two models that are right alone on so many examples each.

    Source: McNemar 1947, Psychometrika 12, with the binomial distribution.

    >>> mcnemar(1, 8), mcnemar(0, 0)
    (0.0390625, 1.0)
    """
    from scipy.special import bdtr  # not scipy.stats: that takes a second to load

    n = only_one + only_two
    return 1.0 if n == 0 else min(1.0, 2.0 * float(bdtr(min(only_one, only_two), n, 0.5)))


def shares_differ(one: float, two: float, n: int) -> bool:
    """Whether two shares of ``n`` examples each differ, when nothing is known of single examples.

    Source: Newcombe 1998, Statistics in Medicine 17, "Interval estimation for the difference between independent proportions", method 10.
    """
    low, high = sorted((one, two))
    low_to, high_from = wilson(low * n, n)[1], wilson(high * n, n)[0]
    return high - low - sqrt((high - high_from) ** 2 + (low_to - low) ** 2) > 0


def resampled(examples: Examples, swapped: bool = False) -> np.ndarray:
    """Return the metric of all examples, then of each resample of these and what ``Examples.doubted`` adds; equal draws for all models."""
    random, n, doubted = np.random.default_rng(SEED), len(examples.given), examples.doubted(swapped)
    return np.array([examples.value(), *(doubted.value(random.integers(0, len(doubted.given), n)) for _ in range(RESAMPLES))])


def _ends(one: np.ndarray, two: np.ndarray | None, shrink: float, centre: float) -> tuple[float, float] | None:
    """Ends of the interval of what `resampled` returned, or of a difference of two.

    Where more examples count than are kept it shrinks, around the ``centre`` that all of them give.
    """
    middle, *values = one if two is None else one - two
    known = np.array([value for value in values if isfinite(value)])
    if len(known) < RESAMPLES // 2:
        return None
    low, high = np.quantile(known, [LEVEL / 2, 1 - LEVEL / 2])
    low, high = min(low, middle), max(high, middle)  # what was measured is one of the possible
    return float(centre + (low - middle) * shrink), float(centre + (high - middle) * shrink)


@dataclass(frozen=True)
class Standing:
    """How surely the quality of one model is known.

    Attributes:
        number: Number of the trial.
        value: Its quality on the validation split, as the search measured it.
        low: The 95 % interval; None when it is unknown, as ``high`` is.
        examples: Validation examples; None when unknown.
        right: How many of them it has right, for accuracy and error.
        method: ``wilson``, ``bootstrap`` or ``unknown``.
        ties_best: Whether it cannot be told from the best one, by repeats where they decide.
        beats_guessing: Whether it is better than guessing; None when that is unknown.
    """

    number: int
    value: float
    low: float | None
    high: float | None
    examples: int | None
    right: int | None
    method: str
    ties_best: bool
    beats_guessing: bool | None


@dataclass(frozen=True)
class Choice:
    """Which model to take, and why.

    Attributes:
        pick: Number of the recommended trial: the cheapest that cannot be told from the best.
        best: Number of the trial with the best quality; with repeats, by their means.
        cheapest: Number of the cheapest trial that is better than guessing; the cheapest of all where none is, or that is unknown.
        ties: Numbers of the trials that cannot be told from the best, cheapest first; the best is one of them.
        standings: By number of the trial.
        guessing: Quality of the constant answer; None when unknown.
        basis: ``paired``, ``counts``, ``repeats on the test split``, ``repeats`` or ``unknown``.
        why: One sentence.
    """

    pick: int
    best: int
    cheapest: int
    ties: tuple[int, ...]
    standings: Mapping[int, Standing]
    guessing: float | None
    basis: str
    why: str


@dataclass(frozen=True)
class Evidence:
    """What is known of the validation of a run.

    Attributes:
        metric: The quality that is compared.
        maximise: Whether more is better.
        examples: Validation examples; None when unknown.
        guessing: Quality of the constant answer; None when unknown.
        results: Returns the results of a trial for each example, or None.
        repeats: The finalists that were trained again, or None.
        folds: Parts of the rows that validate in turn; 0 for a validation split.
    """

    metric: str
    maximise: bool = True
    examples: int | None = None
    guessing: float | None = None
    results: Results = lambda trial: None
    repeats: ReplicateComparison | None = None
    folds: int = 0
    _known: dict[int, Examples | None] = field(default_factory=dict, repr=False, compare=False)
    _resampled: dict[tuple[int, bool], np.ndarray] = field(default_factory=dict, repr=False, compare=False)

    def of(self, trial: Trial) -> Examples | None:
        """Return the results of a trial for each example where they fit what was told of it; None otherwise."""
        if trial.number not in self._known:
            found = self.results(trial)
            fits = found is not None and found.metric == self.metric and (self.examples is None or found.count == self.examples)
            self._known[trial.number] = found if fits else None
        return self._known[trial.number]

    def bootstrap(self, trial: Trial, other: Trial | None = None) -> tuple[float, float] | None:
        """Return the percentile interval of the metric of a trial, or of its difference to another's on the same examples.

        None where it is undefined. Each trial is resampled once for each of the two, however often it is asked for.

        Source: Efron and Tibshirani 1993, "An introduction to the bootstrap", chapters 13 and 16.
        """
        kept = [((one.number, one is other), self.of(one)) for one in (trial, other) if one is not None]
        for key, examples in kept:
            if examples is not None and key not in self._resampled:
                self._resampled[key] = resampled(examples, swapped=key[1])
        first = kept[0][1]
        if first is None or any(key not in self._resampled for key, _ in kept):
            return None
        one, two = self._resampled[kept[0][0]], None if other is None else self._resampled[kept[1][0]]
        return _ends(one, two, sqrt(len(first.given) / first.count), trial.values[0] - (0.0 if other is None else other.values[0]))

    def standing(self, trial: Trial, best: Trial) -> Standing:
        """Return how surely the quality of a trial is known, and whether it can be told from that of the best."""
        value, n = trial.values[0], self.examples
        low = high = right = None
        method = "unknown"
        if self.metric in SHARES and n:
            right = round((value if self.metric == "accuracy" else 1.0 - value) * n)
            low, high = wilson(right, n)
            low, high = (low, high) if self.metric == "accuracy" else (1.0 - high, 1.0 - low)
            method = "wilson"
        elif (found := self.bootstrap(trial)) is not None:
            (low, high), method = found, "bootstrap"
        beats = None
        if self.guessing is not None and low is not None and high is not None:
            beats = low > self.guessing if self.maximise else high < self.guessing
        return Standing(trial.number, value, low, high, n, right, method, self.ties(trial, best), beats)

    def ties(self, trial: Trial, best: Trial) -> bool:
        """Whether a trial cannot be told from the best, on the same examples where they are kept; what nothing is known of never ties."""
        if trial.values[0] == best.values[0]:
            return True
        one, two = self.of(trial), self.of(best)
        if one is not None and two is not None and one.pairs_with(two):
            if self.metric in SHARES:
                return mcnemar(int((one.given & ~two.given).sum()), int((two.given & ~one.given).sum())) >= LEVEL
            ends = self.bootstrap(trial, best)
            return ends is not None and ends[0] <= 0.0 <= ends[1]
        if self.metric in SHARES and self.examples:
            return not shares_differ(trial.values[0], best.values[0], self.examples)
        return False

    def shortfall(self, trial: Trial, best: Trial) -> float | None:
        """Return by how much a trial may be worse than the best, the far end of the 95 % interval of their difference; None when unknown.

        Source: Agresti and Min 2005, Statistics in Medicine 24, for pairs (half an example added to each cell); Newcombe 1998, method 10.
        """
        one, two, n = self.of(trial), self.of(best), self.examples
        if one is not None and two is not None and one.pairs_with(two):
            if self.metric not in SHARES:
                ends = self.bootstrap(best, trial) if self.maximise else self.bootstrap(trial, best)
                return None if ends is None else max(0.0, ends[1])
            ahead, behind = (float((a.given & ~b.given).sum()) + 0.5 for a, b in ((two, one), (one, two)))
            count = len(one.given) + 2
            error = sqrt(ahead + behind - (ahead - behind) ** 2 / count) / count
            return max(0.0, (ahead - behind) / count + Z * error)
        if self.metric in SHARES and n:
            low, high = sorted((trial.values[0], best.values[0]))
            ends_of_low, ends_of_high = wilson(low * n, n), wilson(high * n, n)
            return high - low + sqrt((low - ends_of_low[0]) ** 2 + (ends_of_high[1] - high) ** 2)
        return None

    def basis(self, trials: Sequence[Trial]) -> str:
        """Return how trials are compared: ``paired``, ``counts`` or ``unknown``."""
        paired = len(trials) > 0 and all(self.of(trial) is not None for trial in trials)
        return "paired" if paired else "counts" if self.metric in SHARES and self.examples else "unknown"


def choose(members: Sequence[Trial], evidence: Evidence, floor_quality: float | None = None) -> Choice:
    """Recommend one of some trials, given cheapest first: by repeats among those that have any, where two have, else by validation.

    Trials under the floor of the study do not count while others are left.

    Raises:
        ValueError: If there is none.
    """
    if not members:
        raise ValueError("a choice needs at least one trial")
    sign = 1.0 if evidence.maximise else -1.0
    useful = [one for one in members if floor_quality is None or one.values[0] * sign >= floor_quality * sign] or list(members)
    best = max(useful, key=lambda trial: trial.values[0] * sign)  # the first, cheapest one of equals
    standings = {trial.number: evidence.standing(trial, best) for trial in members}
    cheapest = next((trial for trial in members if standings[trial.number].beats_guessing), members[0]).number
    by_number = {trial.number: trial for trial in members}
    repeated = _by_repeats(useful, evidence, standings, best)
    if repeated is not None:
        ties, top, basis, again = repeated
        standings = {number: replace(old, ties_best=number in ties) for number, old in standings.items()}
    else:
        ties = tuple(trial.number for trial in useful if standings[trial.number].ties_best)
        top, basis = best.number, evidence.basis([trial for trial in useful if trial.number in ties])
    pick = next((number for number in ties if standings[number].beats_guessing is not False), ties[0])
    if repeated is not None and pick not in again:
        basis = evidence.basis([by_number[pick], by_number[top]])
    short = evidence.shortfall(by_number[pick], by_number[top]) if basis in ("paired", "counts") and pick != top else None
    why = _why(pick, top, ties, basis, evidence, standings, short)
    why += "" if top == best.number else f"; before the repeats the best was trial {best.number}"
    return Choice(pick, top, cheapest, ties, standings, evidence.guessing, basis, why)


def _by_repeats(
    members: Sequence[Trial], evidence: Evidence, standings: Mapping[int, Standing], best: Trial
) -> tuple[tuple[int, ...], int, str, Collection[int]] | None:
    """Return ties, best, basis and who has repeats; None unless two have, or if the ``best`` of the search has none and beats these."""
    again = () if evidence.repeats is None else evidence.repeats.members
    found = {one.trial.number: one for trial in members for one in again if one.trial.number == trial.number}
    tested = bool(found) and all(one.test is not None for one in found.values())
    known = {number: one.test if tested else one.quality for number, one in found.items()}
    spreads: dict[int, Spread] = {number: one for number, one in known.items() if one is not None and one.sd is not None}
    if len(spreads) < 2:
        return None
    top = max(spreads, key=lambda number: spreads[number].mean * (1.0 if evidence.maximise else -1.0))
    if best.number not in spreads and not evidence.ties(found[top].trial, best):
        return None

    def ties(number: int) -> bool:
        if number not in spreads:
            return standings[number].ties_best
        pair = found[number].trial, found[top].trial
        apart = number != top and told_apart(spreads[number], spreads[top], evidence.shortfall(*pair))
        return evidence.ties(*pair) if apart is None else not apart

    def joules(trial: Trial) -> float:
        energy = found[trial.number].energy if trial.number in found else None
        return energy.mean if energy is not None else trial.train_joules or 0.0

    tied = tuple(trial.number for trial in sorted(members, key=joules) if ties(trial.number))
    return tied, top, "repeats on the test split" if tested else "repeats", spreads


def _why(
    pick: int, top: int, ties: Sequence[int], basis: str, evidence: Evidence, standings: Mapping[int, Standing], short: float | None
) -> str:
    counted = examples_text(evidence.examples, evidence.folds)
    how = {
        "paired": f"on the same {counted}",
        "counts": f"with {counted}, by counts alone: results per example are not kept",
        "repeats": "in repeated trainings",
        "repeats on the test split": "in repeated trainings, scored on the test split",
        "unknown": "",
    }[basis]
    lucky = "; it is not better than guessing" if standings[pick].beats_guessing is False else ""
    if basis == "unknown":
        return f"the best: how surely {evidence.metric} is known was not kept{lucky}"
    if len(standings) == 1:
        return f"the only one{lucky}"
    if pick == top:
        others = "every other member is clearly worse" if len(ties) == 1 else "no cheaper one is as good"
        return f"the best: {others} ({how}){lucky}"
    worse = "" if short is None else f"; it may be up to {plain(short, 2)} worse"
    return f"the cheapest that cannot be told from the best, trial {top} (95 %, {how}){worse}{lucky}"


def examples_in(facts: Mapping[str, Any]) -> int | None:
    """Return the number of validation examples of a run from its ``study.json``; None where an early version did not note it."""
    splits = splits_in(facts)
    return (splits.get("validation", 0) + (splits.get("train", 0) if folds_in(facts) else 0)) or None


def splits_in(facts: Mapping[str, Any]) -> dict[str, int]:
    """Return how many examples each split of a run has, from its ``study.json``; empty where an early version did not note it."""
    counts = ((facts.get("fingerprint") or {}).get("data") or {}).get("examples") or {}
    return {split: int(counts[split]) for split in ("train", "validation", "test") if counts.get(split, 0) > 0}


def folds_in(facts: Mapping[str, Any]) -> int:
    """Return in how many parts of its rows a run validates in turn; 0 for a validation split."""
    data = (facts.get("fingerprint") or {}).get("data") or {}
    return int(data.get("folds") or (data.get("examples") or {}).get("folds") or 0)  # there in folders of earlier versions


def examples_text(n: int | None, folds: int = 0) -> str:
    """Name the examples that a quality rests on, and that they are of several folds where they are.

    >>> examples_text(359), examples_text(1340, 3), examples_text(None)
    ('359 validation examples', '1,340 validation examples of 3 folds', 'validation examples')
    """
    return f"{'' if n is None else f'{n:,} '}validation examples" + (f" of {folds} folds" if folds else "")


def written(facts: Mapping[str, Any], metric: str, value: float) -> str:
    """A quality with as many decimals as one validation example of a run can change; four of what is no share of them."""
    return f"{value:.{decimals_of(examples_in(facts) if metric in SHARES else None)}f}"


def decimals_of(n: int | None, standard_error: float | None = None) -> int:
    """Return how many decimals of a quality mean anything: two or more: what one example or the standard error changes; 4 when unknown.

    >>> decimals_of(359), decimals_of(2000), decimals_of(None), decimals_of(None, 0.02)
    (3, 4, 4, 2)
    """
    step = 1.0 / n if n else standard_error
    return 4 if not step else min(4, max(2, ceil(-log10(step) - 1e-9)))
