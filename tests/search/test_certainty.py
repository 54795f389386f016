"""Intervals of a quality, which models can be told apart, and the recommended one."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pytest
from helpers.trials import TWO, complete
from scipy.stats import binomtest
from sklearn import metrics

from joulefront.search import certainty
from joulefront.search.certainty import (
    Evidence,
    _ends,
    choose,
    decimals_of,
    examples_in,
    folds_in,
    mcnemar,
    resampled,
    shares_differ,
    wilson,
)
from joulefront.search.front import Front
from joulefront.search.records.examples import MOST, MOST_BITS, Examples, examples_of
from joulefront.search.records.replicates import Plan, Repeat, Repeats, compare_replicates
from joulefront.search.records.trial import Trial
from joulefront.search.training.evaluate import quality

RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize(("right", "n"), [(0, 5), (5, 5), (347, 359), (109, 240), (1, 2)])
def test_the_interval_of_a_share_is_wilsons(right: int, n: int) -> None:
    reference = binomtest(right, n).proportion_ci(method="wilson")
    assert wilson(right, n) == pytest.approx((reference.low, reference.high), abs=1e-9)


def bootstrap(one: Examples, two: Examples | None = None) -> tuple[float, float] | None:
    other, centre = None if two is None else resampled(two, swapped=True), one.value() - (0.0 if two is None else two.value())
    return _ends(resampled(one), other, math.sqrt(len(one.given) / one.count), centre)


def test_the_paired_test_is_the_exact_binomial_one() -> None:
    for one, two in itertools.product(range(8), range(8)):
        reference = binomtest(one, one + two, 0.5).pvalue if one + two else 1.0
        assert mcnemar(one, two) == pytest.approx(reference)


def test_equal_shares_never_differ_and_distant_ones_do() -> None:
    assert not shares_differ(0.5, 0.5, 10)
    assert not shares_differ(0.9666, 0.9721, 359)
    assert shares_differ(0.1, 0.9, 50)
    assert shares_differ(0.0, 1.0, 10)


def scores_of(kind: str, n: int = 400, k: int = 4) -> tuple[np.ndarray, np.ndarray]:
    if kind == "regression":
        targets = RANDOM.normal(size=n).astype("float32")
        return targets + RANDOM.normal(size=n).astype("float32") * 0.5, targets
    if kind == "multilabel":
        targets = (RANDOM.random((n, k)) < 0.3).astype("float32")
        return np.clip(targets * 0.4 + RANDOM.random((n, k)) * 0.6, 0, 1), targets
    if kind == "anomaly":
        targets = (RANDOM.random(n) < 0.2).astype("int64")
        return np.clip(targets * 0.3 + RANDOM.random(n) * 0.7, 0, 1), targets
    targets = RANDOM.integers(0, k, n)
    scores = RANDOM.random((n, k)) + np.eye(k)[targets] * 0.5
    return scores / scores.sum(axis=1, keepdims=True), targets


@pytest.mark.parametrize(
    ("kind", "metric"),
    [("classification", m) for m in ("accuracy", "error", "balanced_accuracy", "macro_f1", "auc")]
    + [("multilabel", m) for m in ("accuracy", "balanced_accuracy", "macro_f1", "auc")]
    + [("anomaly", m) for m in ("accuracy", "auc", "macro_f1")]
    + [("regression", "r2")],
)
def test_what_is_kept_gives_the_metric_again(tmp_path: Path, kind: str, metric: str) -> None:
    scores, targets = scores_of(kind)
    kept = Examples.of(metric, kind, scores, targets)
    assert kept is not None
    kept.save(examples_of(tmp_path, 3))
    again = Examples.load(examples_of(tmp_path, 3))
    assert again is not None
    assert again.pairs_with(kept)
    assert again.value() == pytest.approx(quality(kind, scores, targets)[metric], abs=2e-3 if metric in ("auc", "r2") else 1e-9)
    assert examples_of(tmp_path, 3).stat().st_size < 8_000
    ends = bootstrap(again)
    assert ends is not None
    assert ends[0] < again.value() < ends[1]


def test_of_very_many_examples_a_bounded_part_is_kept_and_the_interval_is_that_of_all() -> None:
    scores = RANDOM.random((60_000, 3))
    targets = RANDOM.integers(0, 3, 60_000)
    kept = Examples.of("balanced_accuracy", "classification", scores, targets)
    assert kept is not None
    assert len(kept.given) < 20_000
    ends = bootstrap(kept)
    assert ends is not None
    assert ends[1] - ends[0] == pytest.approx(2 * 1.96 * (2 / 9 / 60_000) ** 0.5, rel=0.25)
    bits = Examples.of("accuracy", "classification", RANDOM.random((MOST_BITS + 9, 2)), RANDOM.integers(0, 2, MOST_BITS + 9))
    assert bits is not None
    assert len(bits.given) == MOST_BITS


def test_an_interval_from_a_part_of_the_examples_lies_around_the_quality_of_all() -> None:
    n = 60_000
    targets, wrong = RANDOM.integers(0, 2, n), RANDOM.random(n) < 0.08
    wrong[np.linspace(0, n - 1, MOST).astype(int)] = RANDOM.random(MOST) < 0.1  # the kept ones happen to be harder
    kept = [Examples.of("balanced_accuracy", "classification", np.eye(2)[targets ^ flipped], targets) for flipped in (wrong, ~wrong)]
    values = [metrics.balanced_accuracy_score(targets, targets ^ flipped) for flipped in (wrong, ~wrong)]
    trials = [complete(k, value, 1.0) for k, value in enumerate(values)]
    evidence = Evidence("balanced_accuracy", examples=n, results=lambda trial: kept[trial.number])
    one = evidence.standing(trials[0], trials[0])
    assert one.low is not None
    assert one.high is not None
    assert one.low < values[0] < one.high < one.low + 0.006
    ends = evidence.bootstrap(trials[0], trials[1])
    assert ends is not None
    assert ends[0] < values[0] - values[1] < ends[1]


def test_the_auc_of_sure_models_is_that_of_their_scores() -> None:
    targets = (RANDOM.random(4000) < 0.99).astype(int)
    log_odds = 9.5 + 0.8 * RANDOM.normal(size=4000) + 1.2 * targets  # probabilities of 0.9999
    scores = np.stack([1 / (1 + np.exp(log_odds)), 1 / (1 + np.exp(-log_odds))], axis=1).astype(np.float32)
    for kind, given, wanted in (("classification", scores, targets), ("multilabel", scores, np.stack([1 - targets, targets], axis=1))):
        kept = Examples.of("auc", kind, given, wanted)
        assert kept is not None
        assert kept.value() == pytest.approx(quality(kind, given, wanted)["auc"], abs=1e-3)


def test_the_paired_bootstrap_sees_a_difference_that_unpaired_intervals_hide() -> None:
    targets = RANDOM.integers(0, 2, 500)
    one = np.where(RANDOM.random(500) < 0.85, targets, 1 - targets)
    two = one.copy()
    two[np.flatnonzero(one == targets)[:12]] ^= 1  # worse on 12 examples, equal on all others
    kept = [Examples.of("balanced_accuracy", "classification", np.eye(2)[given], targets) for given in (one, two)]
    assert kept[0] is not None
    assert kept[1] is not None
    low, high = bootstrap(kept[0]), bootstrap(kept[1])
    assert low is not None
    assert high is not None
    assert low[0] < high[1]
    difference = bootstrap(kept[0], kept[1])
    assert difference is not None
    assert difference[0] > 0
    assert kept[0].value() == pytest.approx(metrics.balanced_accuracy_score(targets, one))


# -- the choice ---------------------------------------------------------------------------------------------------------------------------


def right(share: float, n: int = 400) -> Examples:
    given = np.zeros(n, dtype=bool)
    given[: round(share * n)] = True
    return Examples("accuracy", given, np.zeros(0, dtype=np.uint8), n)


MEMBERS = [complete(n, accuracy, joules) for n, (accuracy, joules) in enumerate([(0.1, 1.0), (0.5, 10.0), (0.90, 20.0), (0.91, 90.0)])]


def test_the_cheapest_that_cannot_be_told_from_the_best_is_recommended() -> None:
    found = choose(MEMBERS, Evidence("accuracy", examples=400, guessing=0.1))
    assert (found.pick, found.best, found.ties, found.basis) == (2, 3, (2, 3), "counts")
    assert found.cheapest == 1  # the first is no better than guessing
    assert "cheapest that cannot be told from the best, trial 3" in found.why
    assert found.standings[3].right == 364
    assert [found.standings[n].beats_guessing for n in range(4)] == [False, True, True, True]


def test_paired_results_tell_apart_what_counts_alone_do_not() -> None:
    kept = {n: right(trial.values[0]) for n, trial in enumerate(MEMBERS)}
    kept[3] = right(0.92)  # right wherever trial 2 is, and on eight more
    members = [*MEMBERS[:3], replace(MEMBERS[3], values=(0.92, 90.0))]
    paired = choose(members, Evidence("accuracy", examples=400, results=lambda trial: kept[trial.number]))
    assert (paired.pick, paired.basis) == (3, "paired")
    assert "every other member is clearly worse" in paired.why
    assert choose(members, Evidence("accuracy", examples=400)).pick == 2


def test_one_model_alone_is_not_compared_with_others() -> None:
    assert choose(MEMBERS[2:3], Evidence("accuracy", examples=400)).why == "the only one"


def test_how_much_worse_the_pick_may_be_is_said_by_the_same_evidence() -> None:
    unpaired = Evidence("accuracy", examples=400)
    kept = {n: right(trial.values[0]) for n, trial in enumerate(MEMBERS)}
    paired = Evidence("accuracy", examples=400, results=lambda trial: kept[trial.number])
    far, near = unpaired.shortfall(MEMBERS[2], MEMBERS[3]), paired.shortfall(MEMBERS[2], MEMBERS[3])
    assert far is not None
    assert near is not None
    assert 0.01 < near < far < 0.06  # 4 of 400 between them, on the same examples nothing else
    assert f"it may be up to {far:.2g} worse" in choose(MEMBERS, unpaired).why
    assert Evidence("r2").shortfall(MEMBERS[2], MEMBERS[3]) is None


@pytest.mark.parametrize(
    ("metric", "kind"), [("balanced_accuracy", "classification"), ("macro_f1", "classification"), ("r2", "regression")]
)
def test_other_metrics_are_compared_on_the_same_examples_too(metric: str, kind: str) -> None:
    random = np.random.default_rng(3)
    targets = random.integers(0, 3, 400) if kind == "classification" else random.normal(size=400)

    def kept(wrong: int) -> Examples:
        given = targets.copy()
        given[:wrong] = (targets[:wrong] + 1) % 3 if kind == "classification" else 0.0
        found = Examples.of(metric, kind, np.eye(3)[given] if kind == "classification" else given, targets)
        assert found is not None
        return found

    results = {0: kept(200), 1: kept(42), 2: kept(40)}
    members = [complete(n, one.value(), 1.0 + n) for n, one in results.items()]
    evidence = Evidence(metric, examples=400, results=lambda trial: results[trial.number])
    found = choose(members, evidence)
    assert (found.best, found.basis) == (2, "paired")
    assert 0 not in found.ties
    for n in (0, 1):  # the same as resampling both at once
        ends = bootstrap(results[n], results[2])
        assert ends is not None
        assert evidence.bootstrap(members[n], members[2]) == pytest.approx(ends)
        assert evidence.ties(members[n], members[2]) == (ends[0] <= 0 <= ends[1])


def of_two_classes(metric: str, positives: int, share: float, random: np.random.Generator) -> Examples:
    """Results of a model for so many examples of one class and ten times as many of the other; ``share``: its area or its recalls."""
    targets = np.repeat([1, 0], [positives, 10 * positives])
    if metric == "auc":
        scores = random.normal(math.sqrt(2) * NormalDist().inv_cdf(share) * targets)
    else:
        scores = np.where(random.random(len(targets)) < share, targets, 1 - targets) * 2.0 - 1.0
    chances = 1 / (1 + np.exp(-scores))
    found = Examples.of(metric, "classification", np.stack([1 - chances, chances], axis=1), targets)
    assert found is not None
    return found


@pytest.mark.parametrize(("metric", "share"), [("auc", 0.8), ("auc", 0.99), ("balanced_accuracy", 0.95)])
def test_intervals_cover_the_truth_with_three_examples_of_a_class_too(metric: str, share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certainty, "RESAMPLES", 60)
    random = np.random.default_rng(0)
    ends = [bootstrap(of_two_classes(metric, 3, share, random)) for _ in range(40)]
    assert all(one is not None and one[0] < one[1] for one in ends)
    assert sum(one is not None and one[0] <= share <= one[1] for one in ends) >= 36


@pytest.mark.parametrize("metric", ["auc", "balanced_accuracy", "macro_f1"])
def test_no_mistake_with_three_examples_of_a_class_does_not_make_the_best(metric: str) -> None:
    perfect = of_two_classes(metric, 3, 1 - 1e-12, np.random.default_rng(0))
    low, high = bootstrap(perfect) or (1.0, 1.0)
    assert low < 0.85
    assert high == 1.0
    near = replace(perfect, given=perfect.given.copy())
    near.given[0] = near.given.min()
    members = [complete(0, near.value(), 1.0), complete(1, perfect.value(), 2.0)]
    evidence = Evidence(metric, examples=33, results=lambda trial: (near, perfect)[trial.number])
    assert choose(members, evidence).pick == 0
    assert (evidence.shortfall(members[0], members[1]) or 0.0) > 0.1


def test_examples_of_folds_are_named_so() -> None:
    splits = {"train": 280, "validation": 60}
    for data in ({"examples": splits, "folds": 5}, {"examples": {**splits, "cross_validated": 340, "folds": 5}}):  # today's, an earlier one
        facts = {"fingerprint": {"data": data}}
        evidence = Evidence("accuracy", examples=examples_in(facts), folds=folds_in(facts))
        assert "with 340 validation examples of 5 folds" in choose(MEMBERS, evidence).why


def test_results_of_other_examples_are_not_paired() -> None:
    evidence = Evidence("accuracy", examples=400, results=lambda trial: right(0.5, 100))
    assert choose(MEMBERS, evidence).basis == "counts"


def test_without_any_knowledge_of_noise_the_best_is_taken_and_said() -> None:
    found = choose(MEMBERS, Evidence("r2"))
    assert (found.pick, found.ties, found.basis) == (3, (3,), "unknown")
    assert "how surely r2 is known was not kept" in found.why


def test_an_error_is_compared_the_other_way_round() -> None:
    members = [complete(n, 1 - trial.values[0], 1.0 + n) for n, trial in enumerate(MEMBERS)]
    found = choose(members, Evidence("error", maximise=False, examples=400, guessing=0.9))
    assert (found.pick, found.best, found.cheapest) == (2, 3, 1)
    one = found.standings[3]
    assert one.low is not None
    assert one.high is not None
    assert one.low < 0.09 < one.high


def test_where_nothing_beats_guessing_it_is_said() -> None:
    found = choose(MEMBERS[:1], Evidence("accuracy", examples=30, guessing=0.2))
    assert (found.pick, found.cheapest) == (0, 0)
    assert "not better than guessing" in found.why


def test_models_under_the_floor_of_the_study_are_not_recommended() -> None:
    assert choose(MEMBERS, Evidence("accuracy", examples=10), floor_quality=0.905).pick == 3
    assert choose(MEMBERS, Evidence("accuracy", examples=10), floor_quality=0.99).pick in (2, 3)


def repeats(test: bool) -> Repeats:
    trainings = []
    for trial, mean in ((1, 0.905), (2, 0.88), (3, 0.90)):
        for place, off in enumerate((-0.005, 0.0, 0.005)):
            scored = {"accuracy": mean + off}
            trainings.append(
                Repeat(0, trial, place, place, 0, 1, quality=scored if not test else {"accuracy": 0.5 + off}, train_joules=10.0 * trial,
                       test=scored if test else {})
            )  # fmt: skip
    return Repeats((Plan("", (1, 2, 3), 3, "given", 0),), tuple(trainings))


@pytest.mark.parametrize("test", [False, True])
def test_repeats_replace_the_recommendation_scored_on_the_test_split_where_they_were(test: bool) -> None:
    comparison = compare_replicates(repeats(test), MEMBERS, "accuracy", "maximize")
    found = choose(MEMBERS, Evidence("accuracy", examples=400, repeats=comparison))
    assert (found.pick, found.ties) == (1, (1, 3))  # by the search, 1 was far behind
    assert found.basis == ("repeats on the test split" if test else "repeats")
    assert [found.standings[n].ties_best for n in range(4)] == [False, True, False, True]
    assert found.standings[1].value == MEMBERS[1].values[0]  # the interval is that of the search


@pytest.mark.parametrize("repeated", [(2, 3), (0, 2)])
def test_repeating_some_members_leaves_the_others_what_validation_says_of_them(repeated: tuple[int, int]) -> None:
    members = [complete(n, accuracy, 10.0 * 3**n) for n, accuracy in enumerate((0.70, 0.958, 0.959, 0.960))]
    trainings = tuple(
        Repeat(0, n, k, k, 0, 1, quality={"accuracy": members[n].values[0] + 0.003 * (k - 1)}, train_joules=members[n].train_joules)
        for n in repeated
        for k in range(3)
    )
    comparison = compare_replicates(Repeats((Plan("", repeated, 3, "given", 0),), trainings), members, "accuracy", "maximize")
    found = choose(members, Evidence("accuracy", examples=500, repeats=comparison))
    assert (found.pick, found.ties, found.basis) == (1, (1, 2, 3), "counts")
    assert [found.standings[n].ties_best for n in range(4)] == [False, True, True, True]


def test_two_repeats_that_spread_overrule_nothing_that_the_examples_show() -> None:
    scores = {0: (0.66, 0.84), 3: (0.96, 0.97)}
    trainings = tuple(
        Repeat(0, trial, place, place, 0, 1, quality={"accuracy": value}, train_joules=10.0, test={})
        for trial, values in scores.items()
        for place, value in enumerate(values)
    )
    members = [replace(MEMBERS[0], values=(0.77, *MEMBERS[0].values[1:])), replace(MEMBERS[3], values=(0.97, *MEMBERS[3].values[1:]))]
    comparison = compare_replicates(Repeats((Plan("", (0, 3), 2, "given", 0),), trainings), members, "accuracy", "maximize")
    found = choose(members, Evidence("accuracy", examples=359, repeats=comparison))
    assert (found.pick, found.ties) == (3, (3,))
    assert choose(members, Evidence("accuracy", examples=None, repeats=comparison)).ties == (3,)


def test_a_front_names_its_choice_by_every_rule_that_means_it() -> None:
    front = Front(tuple(MEMBERS), *TWO)
    assert front.sensible() is front.pick("sensible") is front.best()
    with pytest.raises(ValueError, match="empty"):
        Front((), *TWO).pick("sensible")


def test_a_quality_is_written_with_the_digits_that_an_example_can_change() -> None:
    assert [decimals_of(n) for n in (2, 50, 100, 240, 359, 1000, 2000, 10**6)] == [2, 2, 2, 3, 3, 3, 4, 4]
    front = Front((Trial(0, "failed", {}, 1),), *TWO)
    assert front.quality_text(0.96657) == "0.9666"
