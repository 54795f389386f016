"""Fine-tuning waits for heads and for a budget that carries it, and goes on from the best of them."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from joulefront.search.records.trial import ATTRIBUTE
from joulefront.search.samplers.factory import make_sampler
from joulefront.search.samplers.frozen_features import HEADS, LARGEST_SHARE, LARGEST_STEP, following, further, withheld
from joulefront.search.study import Study
from joulefront.spaces.finetune import PASSES, FineTuning
from joulefront.spaces.mlp import Mlp
from joulefront.spaces.recipes import Range, RecipeRanges
from joulefront.spaces.transfer import TransferFamily
from joulefront.spaces.union import Union
from joulefront.spaces.weights import find

PRICE = 50.0  # joules of the features of all images
RECIPE = RecipeRanges(learning_rate=(1e-3, 1e-1), weight_decay=0.0, batch_size=64)


@pytest.fixture(scope="module")
def study() -> Study:
    space = Union(TransferFamily(find(), recipe=RECIPE), FineTuning(find(), recipe=RECIPE), Mlp(recipe=RECIPE))
    return Study("s", lambda: None, space, rungs=(1, 3), trials=5)  # type: ignore[arg-type, return-value]


def head(accuracy: float, **changed: Any) -> FrozenTrial:
    params = {
        "family": "transfer",
        "transfer.side": 64,
        "transfer.images_halved": 1,
        "transfer.features": "grid",
        "transfer.head": "linear",
    }
    return made(params | {"learning_rate": 1e-2} | changed, accuracy, PRICE * 0.5 ** changed.get("transfer.images_halved", 1))


def made(params: Mapping[str, Any], accuracy: float, features: float | None) -> FrozenTrial:
    distributions = {name: CategoricalDistribution([value]) for name, value in params.items()}
    facts = {ATTRIBUTE: {"features_joules": features}}
    return create_trial(params=dict(params), distributions=distributions, values=[accuracy, 10.0], user_attrs=facts)


@pytest.mark.slow
def test_it_goes_on_from_the_best_head_with_the_same_images_and_recipe(study: Study) -> None:
    heads = [head(0.5 + k / 100) for k in range(HEADS - 1)]
    assert following(study, heads, None) is None, "too few heads"
    best = head(0.9, **{"transfer.side": 96, "transfer.images_halved": 0, "learning_rate": 2e-2})
    params = following(study, [*heads, best], None)
    assert params is not None
    drawn = study.space.sample(optuna.trial.FixedTrial(dict(params)))
    parts = drawn.architecture
    assert (parts["family"], parts["side"], parts["images_halved"], parts["tuned"]) == ("finetune", 96, 0, FineTuning.layers[0])
    assert drawn.recipe.learning_rate == 2e-2
    assert study.space.frozen(study.space.sample(optuna.trial.FixedTrial(best.params))) == study.space.tuning(drawn)[0]
    assert following(study, [*heads, best, made(params, 0.9, None)], None) is None, "it has begun"


def test_a_budget_that_does_not_carry_it_never_begins_it(study: Study) -> None:
    heads = [head(0.5) for _ in range(HEADS)]
    cost = PRICE * 0.5 * PASSES[FineTuning.layers[0]] * study.rungs[0]
    assert following(study, heads, 0.9 * cost / LARGEST_SHARE) is None
    assert following(study, heads, 1.1 * cost / LARGEST_SHARE) is not None
    assert following(replace(study, first=({},) * (HEADS + 1)), heads, None) is None, "the trials to begin with come first"


def test_the_sampler_begins_none_by_itself_and_later_none_that_is_too_dear(study: Study) -> None:
    heads = [head(0.5) for _ in range(HEADS)]
    begun = following(study, heads, None)
    assert begun is not None
    whole = {**begun, "finetune.layers": "all", "finetune.images_halved": 0}
    assert withheld(study, heads, None)(begun)
    assert withheld(study, heads, None)({"family": "finetune"}), "also while parameters of it are unknown"
    assert not withheld(study, heads, None)({"family": "mlp"})
    after = [*heads, made(begun, 0.9, PRICE)]
    cost = PRICE * PASSES["all"] * study.rungs[0]
    assert [withheld(study, after, share * cost / LARGEST_SHARE)(whole) for share in (0.9, 1.1)] == [True, False]
    assert withheld(study, after, None)({**whole, "finetune.side": 128}), "nothing is known of the cost at this size"


def at(side: int, halved: int, accuracy: float) -> FrozenTrial:
    return head(accuracy, **{"transfer.side": side, "transfer.images_halved": halved})


def test_more_pixels_are_tried_on_a_quarter_then_on_all_images_and_only_where_those_below_have_paid(study: Study) -> None:
    sides = Union(TransferFamily(find(), Range(64, 160, step=32), recipe=RECIPE), Mlp(recipe=RECIPE))
    study = replace(study, space=sides)
    small = [at(64, 2, 0.5), *[at(96, 0, 0.6)] * HEADS, at(96, 2, 0.55)]

    def step(*heads: FrozenTrial, remaining: float | None = None) -> tuple[int, int] | None:
        params = further(study, [*small, *heads], remaining, noise=0.01)
        return None if params is None else (params["transfer.side"], params["transfer.images_halved"])

    assert step(at(128, 2, 0.57)) == (128, 0)
    assert step(at(128, 2, 0.54)) is None, "more pixels do not pay"
    assert step(at(128, 2, 0.57), at(128, 0, 0.595)) is None, "nor do they on all images"
    assert further(study, [*small, at(128, 2, 0.54)], None, noise=0.03), "what few examples say is worth little"
    assert further(study, [*small, at(128, 2, 0.552)], None) is None, "what is no share of examples is taken as it is"
    assert step(at(128, 2, 0.57), at(128, 0, 0.62)) == (160, 2)
    assert step(at(128, 2, 0.57), at(128, 0, 0.62), at(160, 2, 0.58)) == (160, 0)
    assert step(at(128, 2, 0.57), at(128, 0, 0.62), at(160, 2, 0.58), at(160, 0, 0.65)) is None, "there are no more pixels"
    found = further(study, [*small, at(128, 2, 0.57)], None)
    assert found is not None
    assert found.keys() == {*at(128, 2, 0.57).params, "epochs"}, "all of its parameters have names that the space knows"
    failed = create_trial(state=TrialState.FAIL, params=at(128, 0, 0.6).params, distributions=at(128, 0, 0.6).distributions)
    assert step(at(128, 2, 0.57), failed) is None, "it is tried once"
    cost = 0.75 * PRICE  # a quarter is paid already
    assert [step(at(128, 2, 0.57), remaining=share * cost / LARGEST_STEP) for share in (0.9, 1.8)] == [None, (128, 0)]
    dear = withheld(study, small, None)
    assert [dear(at(side, 0, 0.5).params) for side in (64, 96, 128)] == [False, False, True], "the sampler begins none by itself"


def test_the_first_trials_of_a_search_are_no_fine_tuning(study: Study) -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)

    def families(kept: bool, heads: int) -> set[str]:
        sampler = make_sampler("freeze-thaw", rungs=study.rungs, seed=3, study=study)
        sampler._withheld = sampler._withheld if kept else None  # type: ignore[attr-defined]
        search = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
        search.enqueue_trial({"family": "finetune"})  # fails, so that the sampler knows the family and its parameters
        trial = search.ask()
        study.space.sample(trial)
        study.draw_epochs(trial)
        search.tell(trial, state=optuna.trial.TrialState.FAIL)
        for k in range(heads):
            search.enqueue_trial({**head(0.5).params, "learning_rate": 1e-3 * (k + 1), "epochs": 1})
            trial = search.ask()
            study.space.sample(trial)
            study.draw_epochs(trial)
            search.tell(trial, [0.5 + k / 100, 10.0])
        decisions = [sampler.decide(search, number) for number in range(100, 112)]  # type: ignore[attr-defined]
        return {str(decision.params["family"]) for decision in decisions if decision is not None}

    assert "finetune" in families(kept=False, heads=3)
    assert families(kept=True, heads=3) <= {"transfer", "mlp"}
