"""Ranges of a recipe and of its tactics: what is drawn, switches, conditional parameters, and settings that the tactics accept."""

import re
from typing import get_type_hints

import optuna
import pytest

from joulefront.search.space import FixedTrial
from joulefront.search.training.recipe import Recipe
from joulefront.search.training.tactics.tactic import TACTICS, make_tactics
from joulefront.spaces.boosting import Boosting
from joulefront.spaces.cell import Cell
from joulefront.spaces.classical import Classical
from joulefront.spaces.convnet import Convnet
from joulefront.spaces.early_exit import EarlyExit
from joulefront.spaces.energy_transformer import EnergyTransformer
from joulefront.spaces.mlp import Mlp
from joulefront.spaces.recipes import (
    DEFAULTS,
    FIXED,
    Range,
    RecipeRanges,
    TacticRanges,
    suggest_categorical,
    suggest_float,
    suggest_int,
)
from joulefront.spaces.timm_zoo import TimmZoo
from joulefront.spaces.torchvision_zoo import TorchvisionZoo
from joulefront.spaces.union import Union
from joulefront.spaces.vit import Vit


def test_every_field_of_a_recipe_can_be_left_open():
    assert set(RecipeRanges.__dataclass_fields__) == set(Recipe.__dataclass_fields__)


def test_fixed_ranges_draw_nothing_from_the_trial():
    assert FIXED.sample(FixedTrial({})) == Recipe(learning_rate=1e-3, weight_decay=0.0, batch_size=128)


def test_open_fields_have_the_names_of_the_recipe():
    ranges = RecipeRanges(optimizer=("adamw", "sgd"), momentum=(0.5, 0.99), resolution=(16, None), head_learning_rate=(1e-4, 1e-2))
    params = {
        "optimizer": "sgd",
        "learning_rate": 0.01,
        "weight_decay": 0.001,
        "momentum": 0.8,
        "batch_size": 48,
        "resolution": None,
        "head_learning_rate": 0.002,
    }
    assert ranges.sample(FixedTrial(params)) == Recipe(**params)


def test_momentum_is_a_parameter_of_trials_with_sgd_only():
    ranges = RecipeRanges(optimizer=("adamw", "sgd"), momentum=(0.5, 0.99), learning_rate=0.1, weight_decay=0.0, batch_size=32)
    assert ranges.sample(FixedTrial({"optimizer": "adamw"})).momentum == Recipe().momentum
    with pytest.raises(ValueError, match="momentum"):
        ranges.sample(FixedTrial({"optimizer": "sgd"}))


def test_a_tactic_is_switched_by_its_own_parameter_and_its_settings_are_conditional():
    ranges = RecipeRanges(
        learning_rate=0.1,
        weight_decay=0.0,
        batch_size=32,
        tactics={"sparse_backprop": {"keep": Range(0.1, 1.0), "schedule": ("constant", "interleave")}, "freeze": {"on": True, "layers": 2}},
    )
    off = ranges.sample(FixedTrial({"tactic.sparse_backprop": False}))
    assert off.tactics == {"freeze": {"layers": 2}}
    name = "tactic.sparse_backprop"
    on = ranges.sample(FixedTrial({name: True, f"{name}.keep": 0.2, f"{name}.schedule": "interleave"}))
    assert on.tactics == {"sparse_backprop": {"keep": 0.2, "schedule": "interleave"}, "freeze": {"layers": 2}}


def test_a_range_of_whole_numbers_in_a_tactic_gives_whole_numbers(contract):
    ranges = RecipeRanges(tactics={"freeze": {"on": True, "from_epoch": Range(1, 4), "share": Range(0.25, 1.0)}})
    drawn = [candidate.recipe.tactics["freeze"] for candidate, _ in contract.trials(Mlp(recipe=ranges), 8)]
    assert {type(settings["from_epoch"]) for settings in drawn} == {int}
    assert {type(settings["share"]) for settings in drawn} == {float}


def test_a_value_outside_the_rules_of_the_recipe_is_named():
    with pytest.raises(ValueError, match=r"recipe\.precision"):
        RecipeRanges(precision="int3").sample(FixedTrial({"learning_rate": 0.1, "weight_decay": 0.0, "batch_size": 32}))


class Asked:
    """Records what was drawn and returns the lower end."""

    def __init__(self):
        self.calls = []

    def suggest_float(self, name, low, high, *, step=None, log=False):
        self.calls.append((name, low, high, step, log))
        return low

    def suggest_int(self, name, low, high, *, step=1, log=False):
        self.calls.append((name, low, high, step, log))
        return low

    def suggest_categorical(self, name, choices):
        self.calls.append((name, choices))
        return choices[0]


def test_a_pair_of_numbers_is_a_range_on_the_scale_of_its_field():
    trial = Asked()
    assert suggest_int(trial, "width", (8, 64), log=True) == 8
    assert suggest_float(trial, "dropout", (0.0, 0.5)) == 0.0
    assert trial.calls == [("width", 8, 64, 1, True), ("dropout", 0.0, 0.5, None, False)]


def test_other_tuples_are_choices_and_fixed_values_are_no_parameters():
    trial = Asked()
    assert suggest_int(trial, "width", (8, 16, 64)) == 8
    assert suggest_categorical(trial, "kernel", (3, 5)) == 3
    assert trial.calls == [("width", (8, 16, 64)), ("kernel", (3, 5))]
    assert (
        suggest_int(trial, "a", 7),
        suggest_float(trial, "b", 0.5),
        suggest_categorical(trial, "c", None),
        suggest_categorical(trial, "d", ("x",)),
    ) == (7, 0.5, None, "x")
    assert suggest_int(trial, "e", (4, 4)) == 4
    assert suggest_float(trial, "f", Range(2.0, 2.0)) == 2.0
    assert len(trial.calls) == 2


def test_an_explicit_range_keeps_its_own_scale_and_step():
    trial = Asked()
    suggest_int(trial, "width", Range(8, 64, step=8), log=True)
    suggest_float(trial, "rate", Range(1e-3, 1.0, log=True))
    assert trial.calls == [("width", 8, 64, 8, False), ("rate", 1e-3, 1.0, None, True)]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Range(2, 1), "low <= high"),
        (lambda: Range(0, 1, log=True), "low > 0"),
        (lambda: Range(1, 8, log=True, step=1), "either logarithmic or has a step"),
        (lambda: suggest_categorical(FixedTrial({}), "kernel", ()), "kernel needs at least one choice"),
    ],
)
def test_a_range_that_nothing_can_be_drawn_from_is_refused(make, said):
    with pytest.raises(ValueError, match=said):
        make()


EVERYTHING = TacticRanges(
    sparse_backprop=True, activation_sparsity=True, freeze=True, progressive_resizing=True, power_limits_watts=(150.0, 250.0)
)


def sampled(tactics, seed=0, count=40):
    """Recipes and parameters of random trials of a study that searches nothing but tactics."""
    recipe = RecipeRanges(learning_rate=FIXED.learning_rate, weight_decay=0.0, batch_size=128, tactics=tactics.settings())
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    trials = [study.ask() for _ in range(count)]
    return [(recipe.sample(trial), trial.params) for trial in trials], recipe


def test_all_tactics_are_off_by_default():
    assert TacticRanges().settings() == {}
    assert all(recipe.tactics == {} for recipe, _ in sampled(TacticRanges())[0])


def test_every_known_tactic_can_be_searched():
    assert set(EVERYTHING.settings()) == set(TACTICS)


def test_parameters_of_a_tactic_exist_only_where_it_is_on_and_bear_its_name():
    trials, _ = sampled(EVERYTHING)
    for recipe, params in trials:
        on = {name for name in TACTICS if params[f"tactic.{name}"]}
        assert set(recipe.tactics) == on
        parts = [name.split(".") for name in params]
        assert {part[0] for part in parts} == {"tactic"}
        assert {part[1] for part in parts if len(part) == 2} == set(TACTICS)
        assert {part[1] for part in parts if len(part) == 3} == on
    assert {name for recipe, _ in trials for name in recipe.tactics} == set(TACTICS)


def test_what_is_drawn_makes_tactics_and_lies_in_the_ranges():
    for recipe, _ in sampled(EVERYTHING)[0]:
        assert len(make_tactics(recipe.tactics)) == len(recipe.tactics)
        for name, settings in recipe.tactics.items():
            for key, value in settings.items():
                what = DEFAULTS[name][key] if name in DEFAULTS else (150.0, 250.0)
                assert what.low <= value <= what.high if isinstance(what, Range) else value in what


def test_stored_parameters_give_the_same_recipe_again():
    trials, ranges = sampled(EVERYTHING)
    for recipe, params in trials:
        assert ranges.sample(FixedTrial(params)) == recipe


def test_own_settings_replace_default_ranges_and_a_fixed_value_is_no_parameter():
    tactics = TacticRanges(sparse_backprop={"keep": 0.2, "linear": True}, always=True)
    for recipe, params in sampled(tactics)[0]:
        assert recipe.tactics["sparse_backprop"]["keep"] == 0.2
        assert recipe.tactics["sparse_backprop"]["linear"] is True
        assert set(params) == {"tactic.sparse_backprop.schedule"}


def test_an_unknown_setting_is_refused_before_anything_is_trained():
    with pytest.raises(ValueError, match=r"'freeze' takes share, from_epoch"):
        TacticRanges(freeze={"layers": 2}).settings()


@pytest.mark.parametrize("zoo", [TorchvisionZoo, TimmZoo])
def test_freezing_as_a_tactic_and_freezing_as_a_part_of_the_architecture_are_two_parameters(zoo, contract):
    recipe = RecipeRanges(tactics=TacticRanges(freeze={"share": 1.0, "from_epoch": 2}).settings())
    seen = set()
    for space in (
        zoo(freeze=("none", "backbone"), recipe=recipe),
        Union(zoo(freeze=("none", "backbone"), recipe=recipe), Mlp(recipe=recipe)),
    ):
        for candidate, params in contract.trials(space, 30):
            assert ("freeze" in candidate.recipe.tactics) is params["tactic.freeze"]
            if candidate.architecture["family"] != "mlp":
                seen.add((candidate.architecture["freeze"], params["tactic.freeze"]))
    assert seen == {(part, on) for part in ("none", "backbone") for on in (False, True)}


def test_families_of_a_union_share_the_parameters_of_the_tactics():
    recipe = RecipeRanges(tactics=TacticRanges(sparse_backprop={"linear": True}, always=True).settings())
    space = Union(Convnet(recipe=recipe), Mlp(recipe=recipe))
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    families = set()
    for _ in range(10):
        trial = study.ask()
        candidate = space.sample(trial)
        families.add(candidate.architecture["family"])
        assert trial.params["tactic.sparse_backprop.keep"] == candidate.recipe.tactics["sparse_backprop"]["keep"]
    assert families == {"convnet", "mlp"}


WRONG = [
    (Mlp, {"depths": -1}, "Mlp.depths must be a whole number >= 0, got -1"),
    (Mlp, {"depths": (1, 2.5)}, "Mlp.depths must be a whole number >= 0, got 2.5"),
    (Mlp, {"depths": Range(1, 4, step=0.5)}, "Mlp.depths must be a whole number >= 0, got 1.5"),
    (Mlp, {"depths": (4, 1)}, "a range needs low <= high, both finite, got 4 and 1"),
    (Mlp, {"widths": Range(-5, 8)}, "Mlp.widths must be a whole number >= 1, got -5"),
    (Mlp, {"norms": ("batch", "nope")}, "Mlp.norms must be one of batch, group, layer, none, got 'nope'"),
    (Mlp, {"activations": "swoosh"}, "Mlp.activations must be one of relu, gelu, silu, got 'swoosh'"),
    (Mlp, {"activations": ()}, "Mlp.activations must be one of relu, gelu, silu, got ()"),
    (Mlp, {"dropouts": (0.0, 2.0)}, "Mlp.dropouts must be a number >= 0 and < 1, got 2.0"),
    (Mlp, {"dropouts": (-0.1, 0.2, 0.5)}, "Mlp.dropouts must be a number >= 0 and < 1, got -0.1"),
    (Mlp, {"widths": "wide"}, "Mlp.widths must be a whole number >= 1, got 'wide'"),
    (Convnet, {"kernels": (3, 4)}, "Convnet.kernels must be an odd number >= 1, got 4"),
    (Convnet, {"kernels": Range(3, 5)}, "Convnet.kernels must be an odd number >= 1, got Range"),
    (Convnet, {"poolings": "x"}, "Convnet.poolings must be one of max, average, stride, got 'x'"),
    (EarlyExit, {"norms": "x"}, "EarlyExit.norms must be one of batch,"),
    (EarlyExit, {"thresholds": (0.5, 2.0)}, "EarlyExit.thresholds must be a number >= 0 and <= 1, got 2.0"),
    (Vit, {"drop_paths": 1.0}, "Vit.drop_paths must be a number >= 0 and < 1, got 1.0"),
    (Vit, {"patches": 0}, "Vit.patches must be a whole number >= 1, got 0"),
    (EnergyTransformer, {"sizes": 0.0}, "EnergyTransformer.sizes must be a number > 0, got 0.0"),
    (Cell, {"stacks": 0}, "Cell.stacks must be a whole number >= 1, got 0"),
    (TimmZoo, {"freeze": ("none", -1)}, "TimmZoo.freeze must be none, backbone or a whole number >= 0, got -1"),
    (TorchvisionZoo, {"heads": "4096-x"}, "TorchvisionZoo.heads must be one of own, or units such as 256-64, got '4096-x'"),
    (Classical, {"features": (0.0, 1.0)}, "Classical.features must be a number > 0 and <= 1, got 0.0"),
    (Classical, {"estimators": ("linear", "forest")}, "Classical.estimators must be one of None, linear, decision_tree,"),
    (Classical, {"threads": 0}, "Classical.threads must be a whole number >= 1 or None, got 0"),
    (Boosting, {"library": "gbm"}, "Boosting.library must be one of lightgbm, xgboost, catboost, got 'gbm'"),
    (Boosting, {"shrinkage": 1.5}, "Boosting.shrinkage must be a number > 0 and <= 1, got 1.5"),
    (Boosting, {"leaves": (1, 8)}, "Boosting.leaves must be a whole number >= 2, got 1"),
    (Boosting, {"l2": float("nan")}, "Boosting.l2 must be a number >= 0, got nan"),
    (RecipeRanges, {"optimizer": ("adamw", "adamm")}, "recipe.optimizer must be one of adamw, sgd, got 'adamm'"),
    (RecipeRanges, {"learning_rate": (-1.0, 1.0)}, "a logarithmic range needs low > 0"),
    (RecipeRanges, {"learning_rate": [1e-3, 1e-2]}, "recipe.learning_rate must be float, got [0.001, 0.01] (list); write (0.001, 0.01)"),
    (RecipeRanges, {"learning_rate": "fast"}, "must be float, got 'fast' (str); leave it out for (0.0003, 0.03)"),
    (Mlp, {"widths": [64, 128]}, "Mlp.widths must be a whole number >= 1, got [64, 128]; write (64, 128)"),
    (RecipeRanges, {"momentum": (0.5, 1.0)}, "recipe.momentum must be >= 0 and < 1, got 1.0"),
    (RecipeRanges, {"batch_size": (16, 8.5)}, "a range needs low <= high"),
]


@pytest.mark.parametrize(("family", "fields", "said"), WRONG, ids=lambda value: getattr(value, "__name__", ""))
def test_a_range_or_a_choice_that_no_model_could_have_is_refused_where_it_is_written(family, fields, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        family(**fields)


def test_every_field_of_a_family_that_is_searched_says_what_it_may_be():
    loose = {"weights", "name", "kind", "recipe", "models", "of_several", "epochs_are_passes", "default_epochs"} | {
        "depthwise",
        "whitened",
        "balanced",
    }
    for family in (Mlp, Convnet, EarlyExit, Vit, EnergyTransformer, Cell, TimmZoo, TorchvisionZoo, Classical, Boosting):
        hints = get_type_hints(family, include_extras=True)
        assert {name for name, hint in hints.items() if not hasattr(hint, "__metadata__")} <= loose, family.__name__


def test_a_setting_that_a_tactic_does_not_take_is_refused_where_it_is_written():
    with pytest.raises(ValueError, match=r"freeze\.share must be in \[0, 1\], got 2\.0"):
        TacticRanges(freeze={"share": (0.5, 2.0)}).settings()
