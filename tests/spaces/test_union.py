import json
from types import SimpleNamespace

import optuna
import pytest

from joulefront.search.hints import Hints
from joulefront.search.space import FixedTrial
from joulefront.spaces.classical import Classical
from joulefront.spaces.convnet import Convnet
from joulefront.spaces.mlp import Mlp
from joulefront.spaces.recipes import FIXED, RecipeRanges
from joulefront.spaces.union import Repeated, Union


def test_parameters_of_a_family_carry_its_name_and_equal_recipe_fields_are_shared(contract):
    space = Union(Convnet(recipe=RecipeRanges(augment=("none", "shift"))), Mlp())
    names = {params["family"]: set(params) for _, params in contract.trials(space, 20)}
    assert {"convnet.depth", "convnet.augment", "learning_rate", "batch_size", "weight_decay"} <= names["convnet"]
    assert {"mlp.depth", "mlp.dropout", "learning_rate"} <= names["mlp"]
    assert names["convnet"] & names["mlp"] == {"family", "learning_rate", "weight_decay", "batch_size"}


def test_a_recipe_that_differs_is_a_parameter_of_each_family(contract):
    space = Union(Convnet(), Mlp(recipe=RecipeRanges(learning_rate=(1e-5, 1e-4))))
    names = {name for _, params in contract.trials(space, 20) for name in params}
    assert {"convnet.learning_rate", "mlp.learning_rate", "weight_decay"} <= names
    assert "learning_rate" not in names


def test_a_shared_name_has_one_distribution_in_all_trials():
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    tactics = {"freeze": {"layers": (1, 2, 3)}}
    space = Union(Convnet(recipe=RecipeRanges(tactics=tactics)), Mlp(recipe=RecipeRanges(tactics=tactics)), Classical())
    seen = {}
    for _ in range(60):
        trial = study.ask()
        space.sample(trial)
        for name, distribution in trial.distributions.items():
            assert seen.setdefault(name, distribution) == distribution
        study.tell(trial, 0.0)
    assert {"tactic.freeze", "tactic.freeze.layers", "classical.estimator", "classical.linear.regularisation"} <= set(seen)


def test_every_sampler_of_optuna_can_work_on_a_union():
    for sampler in (optuna.samplers.TPESampler(seed=0, n_startup_trials=3), optuna.samplers.NSGAIISampler(seed=0, population_size=4)):
        study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
        space = Union(Convnet(), Mlp(), Classical())
        for index in range(12):
            trial = study.ask()
            candidate = space.sample(trial)
            assert space.sample(FixedTrial(json.loads(json.dumps(trial.params)))) == candidate
            study.tell(trial, [index % 5, index % 3])


def test_a_union_in_a_union_is_dissolved(contract):
    space = Union(Union(Mlp(), Classical()), Mlp(name="deep", depths=(3, 6)))
    assert [member.name for member in space.spaces] == ["mlp", "classical", "deep"]
    contract.check(space, contract.make_task((5,)), 6)


def test_the_same_model_has_one_key_however_the_family_is_given():
    space = Union(Mlp(depths=(0, 2), recipe=FIXED), Convnet())
    params = {"family": "mlp", "mlp.depth": 0, "mlp.norm": "none", "mlp.activation": "relu", "mlp.dropout": 0.0}
    assert len({space.key(space.sample(FixedTrial({**params, "mlp.width": width}))) for width in (8, 16)}) == 1


def test_members_need_different_names_and_there_must_be_two():
    with pytest.raises(ValueError, match="give one of them a name="):
        Union(Mlp(), Mlp())
    with pytest.raises(ValueError, match="at least two spaces"):
        Union(Mlp())


def test_a_union_shares_features_only_where_a_member_does():
    frozen = SimpleNamespace(name="frozen", frozen=lambda candidate: None)
    assert not Hints(Union(Convnet(), Mlp())).shares_features
    assert Hints(Union(Mlp(), frozen)).shares_features
    assert not Hints(Repeated(Union(Convnet(), Mlp()))).shares_features


def test_a_family_that_the_study_no_longer_has_is_named():
    with pytest.raises(ValueError, match=r"family must be one of 'mlp', 'classical', got 'convnet'; the space has changed"):
        Union(Mlp(), Classical()).sample(FixedTrial({"family": "convnet"}))
