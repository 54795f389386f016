"""What of a price earlier trials, or an earlier study, have paid: features of frozen networks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from helpers.backbone import Bands
from optuna.distributions import CategoricalDistribution, IntDistribution
from optuna.trial import TrialState, create_trial

from joulefront.search.energy import Component, Record
from joulefront.search.samplers.frozen_features import StoredFeatures, features_paid, withheld
from joulefront.search.space import Candidate, FrozenPart
from joulefront.search.study import Study
from joulefront.search.training.backbone import Transfer
from joulefront.search.training.feature_cache import FeatureCache, Price
from joulefront.search.training.fit import fit
from joulefront.search.training.recipe import Recipe
from joulefront.search.training.splits_data import MemoryData
from joulefront.search.training.task import Task
from joulefront.spaces.mlp import Mlp


class Heads:
    """Heads on features of two kinds, from a share of the images; other families need none."""

    name = "heads"

    def sample(self, trial: Any) -> Candidate:
        return Candidate(
            {"kind": trial.suggest_categorical("kind", ["a", "b", "none"]), "halved": trial.suggest_int("halved", 0, 3)}, Recipe()
        )

    def frozen(self, candidate: Candidate) -> FrozenPart | None:
        parts = candidate.architecture
        return None if parts["kind"] == "none" else FrozenPart(parts["kind"], 0.5 ** parts["halved"], {"a": 4.0, "b": 6.0}[parts["kind"]])


def finished(kind: str, halved: int, features_joules: float | None, state: str = "COMPLETE") -> optuna.trial.FrozenTrial:
    return create_trial(
        state=TrialState[state],
        values=[0.5, 1.0] if state == "COMPLETE" else None,
        params={"kind": kind, "halved": halved},
        distributions={
            "kind": CategoricalDistribution(["a", "b", "none"]),
            "halved": IntDistribution(0, 3),
        },
        user_attrs={"joulefront": {"features_joules": features_joules}},
    )


def test_features_that_a_trial_has_paid_are_no_cost_of_the_next_ones_up_to_its_number_of_images() -> None:
    trials = [finished("a", 2, 25.0), finished("a", 1, 50.0), finished("none", 0, None), finished("b", 0, 70.0, "FAIL")]
    paid = features_paid(Heads(), trials)  # type: ignore[arg-type]
    assert paid is not None
    assert [paid({"kind": "a", "halved": halved}) for halved in (0, 1, 2, 3)] == [50.0, 50.0, 25.0, 12.5]
    assert paid({"kind": "b", "halved": 0}) == 0.0
    assert paid({"kind": "none", "halved": 0}) == 0.0
    assert paid({"kind": "a"}) == 0.0  # not all of it is drawn yet


def test_features_that_are_new_cost_those_of_the_validation_images_as_well() -> None:
    paid = features_paid(Heads(), [finished("a", 1, 50.0)], share=0.2)  # type: ignore[arg-type]
    assert paid is not None
    # 100 J for all training images at a work of 4, so 150 J at a work of 6, and a fifth of it for validation
    assert paid({"kind": "b", "halved": 3}) == pytest.approx(-30.0)
    assert paid({"kind": "a", "halved": 3}) == pytest.approx(12.5)
    assert paid({"kind": "none", "halved": 0}) == 0.0


def test_features_in_the_inputs_of_a_task_are_paid_for_every_candidate() -> None:
    trials = [finished("a", 0, 5.0), finished("b", 1, 5.5)]
    paid = features_paid(Mlp(), trials)
    assert paid is not None
    assert paid({"kind": "a"}) == 5.0


def test_without_features_nothing_is_paid_by_others() -> None:
    assert features_paid(Heads(), [finished("none", 0, None)]) is None  # type: ignore[arg-type]
    assert features_paid(Mlp(), [finished("a", 0, None)]) is None


class Built(Heads):
    """The same heads as models: each kind is a frozen network with weights of its own."""

    built = 0

    def build(self, candidate: Candidate, task: Task) -> Transfer:
        self.built += 1
        parts = candidate.architecture
        images = int(len(task.train) * 0.5 ** parts["halved"])
        return Transfer(Bands(parts["kind"]), "rows", torch.nn.Linear(8, 2), images=images)

    def further(self, params: Any, larger: bool) -> None:
        return None


@pytest.fixture
def task() -> Task:
    images, targets = torch.rand(60, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(60) % 2
    train, validation = MemoryData(images[:40], targets[:40]), MemoryData(images[40:], targets[40:])
    return Task("t", "classification", train, validation, None, (1, 8, 8), ("even", "odd"))


@pytest.fixture
def cache(task: Task, tmp_path: Path) -> FeatureCache:
    """A cache with the features of half of the images of the kind b, at 3 J for 20 images."""
    cache = FeatureCache(tmp_path, place="here")
    model = Built().build(Candidate({"kind": "b", "halved": 1}, Recipe()), task)
    used = fit(model, task, Recipe(batch_size=8, threads=1), epochs=1, features=replace(cache, place=None)).features
    assert used is not None
    record = Record("1.1", "features 0", None, "features", "ok", "", 0, 1, 1.0, (Component("cpu", 3.0, "rapl"),))
    cache.keep_price(str(used.key), Price(20, record))
    return cache


def test_features_that_an_earlier_study_left_are_paid_before_the_first_trial(task: Task, cache: FeatureCache) -> None:
    space = Built()
    paid = features_paid(space, [], stored=StoredFeatures(space, task, cache))  # type: ignore[arg-type]
    assert paid is not None
    # 6 J for all 40 training images, of which half are there
    assert [paid({"kind": "b", "halved": halved}) for halved in (0, 1, 2)] == pytest.approx([3.0, 3.0, 1.5])
    assert space.built == 1, "the cache is asked once"
    assert [paid({"kind": kind, "halved": 1}) for kind in ("a", "none")] == [0.0, 0.0]


def test_of_what_is_stored_and_what_trials_have_paid_the_larger_part_counts(task: Task, cache: FeatureCache) -> None:
    space = Built()
    for halved, expected in ((2, [4.0, 4.0, 2.0]), (0, [8.0, 4.0, 2.0])):
        trials = [finished("b", halved, 8.0 * 0.5**halved)]
        paid = features_paid(space, trials, stored=StoredFeatures(space, task, cache))  # type: ignore[arg-type]
        assert paid is not None
        assert [paid({"kind": "b", "halved": halved}) for halved in (0, 1, 2)] == pytest.approx(expected)


def test_stored_features_of_unknown_price_are_worth_what_others_took_for_their_work(task: Task, cache: FeatureCache) -> None:
    space = Built()
    elsewhere = StoredFeatures(space, task, replace(cache, place="another machine"))  # type: ignore[arg-type]
    paid = features_paid(space, [finished("a", 0, 8.0)], share=0.5, stored=elsewhere)  # type: ignore[arg-type]
    assert paid is not None
    assert paid({"kind": "b", "halved": 1}) == pytest.approx(0.5 * 8.0 / 4.0 * 6.0)


def test_stored_features_are_not_withheld_as_far_as_they_are_there(task: Task, cache: FeatureCache) -> None:
    space = Built()
    study = Study("s", lambda: task, space, rungs=(1, 3), trials=5)  # type: ignore[arg-type]
    stored = StoredFeatures(space, task, cache)  # type: ignore[arg-type]
    dear = withheld(study, [finished("a", 0, 8.0)], None, stored=stored)
    assert [dear({"kind": "b", "halved": halved}) for halved in (0, 1, 2)] == [True, False, False]
    assert withheld(study, [finished("a", 0, 8.0)], None)({"kind": "b", "halved": 1})


def test_a_model_that_cannot_be_built_has_nothing_stored_and_its_own_trial_says_why(task: Task, cache: FeatureCache) -> None:
    class Broken(Built):
        def build(self, candidate: Candidate, task: Task) -> Transfer:
            raise ImportError("peft")

    stored = StoredFeatures(Broken(), task, cache)  # type: ignore[arg-type]
    assert stored(FrozenPart("b", 1.0), Candidate({"kind": "b", "halved": 0}, Recipe())) == (0.0, None)
