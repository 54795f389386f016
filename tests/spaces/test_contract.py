"""The contract suite: every space of the package keeps it."""

import importlib
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from joulefront.search.hints import Hints, Wrapper
from joulefront.search.space import FixedTrial, NearestTrial, RandomTrial, Space
from joulefront.spaces.boosting import Boosting
from joulefront.spaces.cell import Cell
from joulefront.spaces.classical import DETECTORS, SUPERVISED, Classical
from joulefront.spaces.convnet import Convnet
from joulefront.spaces.early_exit import EarlyExit
from joulefront.spaces.energy_transformer import EnergyTransformer
from joulefront.spaces.mlp import Mlp
from joulefront.spaces.own import Own
from joulefront.spaces.recipes import RecipeRanges
from joulefront.spaces.timm_zoo import MODELS, TimmZoo
from joulefront.spaces.torchvision_zoo import TorchvisionZoo
from joulefront.spaces.union import Repeated, Union
from joulefront.spaces.vit import Vit


def draw_own(trial):
    depth = trial.suggest_int("depth", 0, 2)
    return {"widths": [trial.suggest_int(f"width_{index}", 4, 16) for index in range(depth)]}


def make_own(architecture, task):
    sizes = [192, *architecture["widths"], task.outputs]
    return nn.Sequential(nn.Flatten(), *(nn.Linear(a, b) for a, b in pairwise(sizes)))


RECIPE = RecipeRanges(resolution=(None, 32), optimizer=("adamw", "sgd"))

NETWORKS = {
    "convnet on digits": (Convnet(), (1, 8, 8), 6),
    "convnet on photographs": (Convnet(recipe=RECIPE), (3, 32, 32), 3),
    "mlp on images": (Mlp(recipe=RECIPE), (1, 8, 8), 3),
    "mlp on a table": (Mlp(depths=(0, 3)), (5,), 5),
    "cell": (Cell(widths=(8, 16), cells=(1, 2), stacks=(1, 3)), (3, 16, 16), 6),
    "cell on digits": (Cell(vertices=4, recipe=RECIPE), (1, 8, 8), 4),
    "vit": (Vit(drop_paths=(0.0, 0.3), recipe=RECIPE), (3, 16, 16), 4),
    "energy transformer": (EnergyTransformer(recipe=RECIPE), (3, 16, 16), 4),
    "early exit": (EarlyExit(thresholds=(0.3, 1.0)), (3, 16, 16), 3),
    "own": (Own(draw_own, make_own), (3, 8, 8), 3),
    "repeated": (Repeated(Convnet()), (1, 8, 8), 3),
    "union": (Union(Convnet(), Mlp(), TimmZoo(("test_resnet",))), (3, 32, 32), 4),
    **{f"timm {model}": (TimmZoo((model,)), (3, 32, 32), 1) for model in MODELS},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_keeps_the_contract(contract, name):
    space, shape, count = NETWORKS[name]
    contract.check(space, contract.make_task(shape), count)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NETWORKS if not name.startswith(("timm", "union"))])
def test_a_network_can_be_traced_with_a_free_batch(contract, name):
    space, shape, _ = NETWORKS[name]
    contract.check_traced(space, contract.trials(space, 1)[0][0], contract.make_task(shape))


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["convnet on digits", "mlp on a table", "cell on digits", "vit", pytest.param("energy transformer", marks=pytest.mark.slow), "own"],
)
def test_candidates_with_equal_models_have_equal_keys(contract, name):
    space, shape, _ = NETWORKS[name]
    contract.check_equal_models(space, contract.make_task(shape))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["classification", "regression", "multilabel"])
def test_a_small_network_serves_every_kind_of_task(contract, kind):
    contract.check(Mlp(), contract.make_task((5,), kind), 2)
    contract.check(Convnet(), contract.make_task((1, 8, 8), kind), 2)


@pytest.mark.slow
@pytest.mark.parametrize("estimator", SUPERVISED)
@pytest.mark.parametrize("kind", ["classification", "regression", "anomaly"])
def test_a_supervised_estimator_keeps_the_contract(contract, estimator, kind):
    contract.check(Classical(estimators=estimator), contract.make_task((5,), kind), 2)


@pytest.mark.slow
@pytest.mark.parametrize("estimator", ["decision_tree", "random_forest", "extra_trees", "k_neighbours"])
def test_trees_and_neighbours_serve_several_labels(contract, estimator):
    contract.check(Classical(estimators=estimator), contract.make_task((5,), "multilabel"), 2)


@pytest.mark.slow
@pytest.mark.parametrize("estimator", DETECTORS)
def test_a_detector_keeps_the_contract(contract, estimator):
    contract.check(Classical(estimators=estimator), contract.make_task((5,), "anomaly"), 2)


@pytest.mark.parametrize("kind", ["classification", "regression", "anomaly"])
def test_boosting_keeps_the_contract(contract, kind):
    contract.check(Boosting(rows=(1.0, 0.5)), contract.make_task((5,), kind), 2)


#: Families as they come, whose ordinary choice must lie in their own ranges.
FAMILIES = {
    "convnet": (Convnet(), (1, 8, 8)),
    "early exit": (EarlyExit(thresholds=(0.3, 1.0)), (1, 8, 8)),
    "cell": (Cell(), (1, 8, 8)),
    "small cell": (Cell(vertices=2), (1, 8, 8)),
    "vit": (Vit(), (1, 8, 8)),
    "energy transformer": (EnergyTransformer(), (1, 8, 8)),
    "mlp": (Mlp(), (5,)),
    "timm": (TimmZoo(), (3, 32, 32)),
    "torchvision": (TorchvisionZoo(), (3, 32, 32)),
    "boosting": (Boosting(), (5,)),
    "repeated": (Repeated(Mlp()), (5,)),
    **{f"classical {kind}": (Classical(kind=kind), (5,)) for kind in ("classification", "regression", "multilabel", "anomaly")},
}


@pytest.mark.parametrize("name", FAMILIES)
def test_the_ordinary_choice_of_every_family_lies_in_its_ranges_and_is_a_model(contract, name):
    space, shape = FAMILIES[name]
    kind = name.removeprefix("classical ") if name.startswith("classical") else "classification"
    for wanted in Hints(space).starts():
        draw = NearestTrial(wanted)
        candidate = space.sample(draw)
        assert space.sample(FixedTrial(draw.params)) == candidate, "complete: nothing is left open"
        moved = {key: (wanted[key], value) for key, value in draw.params.items() if key in wanted and wanted[key] != value}
        moved = [key for key in moved if not key.endswith(("max_depth", "l2"))]
        assert moved == [], "but a depth without a limit is the largest of the range, and no penalty the least"
        parts = {**candidate.architecture, **candidate.recipe.to_json()}
        unknown = [key for key in wanted if key not in draw.params and key not in parts and "." not in key and key != "epochs"]
        assert unknown == [], "a name that the family does not know has no effect"
        contract.build(space, candidate, contract.make_task(shape, kind))


def test_every_family_of_a_union_and_every_estimator_has_its_own_ordinary_choice():
    union = Union(Boosting(), Classical(), Mlp())
    found = [union.sample(NearestTrial(wanted)).architecture for wanted in Hints(union).starts()]
    assert [one["family"] for one in found] == ["lightgbm", *["classical"] * len(SUPERVISED), "mlp"]
    assert {one["estimator"] for one in found if "estimator" in one} == set(SUPERVISED)
    epochs = {wanted["estimator"]: wanted["epochs"] for wanted in Hints(Classical()).starts()}
    assert epochs["gradient_boosting"] == 9
    assert epochs["k_neighbours"] == 27, "what is fitted on a share of the data means something on all of it"


SMALL = {
    "convnet": (Convnet(depths=(1, 3), widths=(4, 8)), (1, 8, 8)),
    "early exit": (EarlyExit(widths=(4, 8), thresholds=(0.3, 1.0)), (1, 8, 8)),
    "mlp": (Mlp(depths=(0, 2), widths=(4, 8)), (5,)),
    "vit": (Vit(depths=(1, 2)), (1, 8, 8)),
    "energy transformer": (EnergyTransformer(steps=(2, 3)), (1, 8, 8)),
    "classical": (Classical(), (5,)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
@settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(seeds=st.tuples(st.integers(0, 10**6), st.integers(0, 10**6)), which=st.floats(0, 0.999))
def test_a_parameter_that_is_drawn_changes_the_model_or_its_training(contract, name, seeds, which):
    space, shape = SMALL[name]
    one, other = RandomTrial(seeds[0]), RandomTrial(seeds[1])
    candidate, _ = space.sample(one), space.sample(other)
    both = [key for key in one.params if key in other.params and one.params[key] != other.params[key]]
    if not both:
        return
    key = both[int(which * len(both))]
    try:
        changed = space.sample(FixedTrial({**one.params, key: other.params[key]}))
    except ValueError:  # the value opens parameters that are not drawn
        return
    assert space.key(changed) != space.key(candidate), f"{key} is drawn without an effect"
    if changed.recipe == candidate.recipe and shape != (5,):
        task = contract.make_task(shape)
        same = contract.describe(space, changed, task) == contract.describe(space, candidate, task)
        assert not same or key == "threshold", f"{key} changes the key and not the model"


def test_one_neighbour_has_no_weight_to_draw():
    candidate = Classical().sample(NearestTrial({"estimator": "k_neighbours", "k_neighbours.neighbours": 1}))
    assert candidate.architecture["weighting"] == "uniform"
    draw = NearestTrial({"estimator": "k_neighbours", "k_neighbours.neighbours": 1})
    Classical().sample(draw)
    assert "k_neighbours.weighting" not in draw.params


@pytest.mark.slow
def test_families_compete_on_a_table(contract):
    contract.check(Union(Classical(), Mlp()), contract.make_task((5,)), 8)


def test_every_family_of_the_package_is_in_a_contract_test():
    """A family that nobody checks would be a family that nobody can rely on."""
    folder = Path(__file__).parent
    checked = "".join(path.read_text() for path in folder.glob("test_*.py") if "contract.check(" in path.read_text())
    families = []
    files = sorted((folder.parents[1] / "spaces").glob("[!_]*.py"))
    for path in files:
        module = importlib.import_module(f"joulefront.spaces.{path.stem}")
        own = [thing for thing in vars(module).values() if isinstance(thing, type) and thing.__module__ == module.__name__]
        spaces = [thing for thing in own if all(hasattr(thing, method) for method in ("sample", "build", "key"))]
        families += [space.__name__ for space in spaces if space.build is not Space.build]  # not the bases, which build nothing
    assert len(families) >= 10
    assert [name for name in families if f"{name}(" not in checked] == []
    classes = [getattr(importlib.import_module(f"joulefront.spaces.{path.stem}"), name, None) for path in files for name in families]
    own = [one for one in classes if one is not None and not issubclass(one, Wrapper)]  # which has the defaults of what is inside
    assert [one.__name__ for one in own if not hasattr(one, "defaults")] == []
