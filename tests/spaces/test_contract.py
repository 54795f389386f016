"""The contract suite: every space of the package keeps it."""

import importlib
from itertools import pairwise
from pathlib import Path

import pytest
from torch import nn

from joulefront.search.space import Space
from joulefront.spaces.boosting import Boosting
from joulefront.spaces.cell import Cell
from joulefront.spaces.classical import DETECTORS, SUPERVISED, Classical
from joulefront.spaces.convnet import Convnet
from joulefront.spaces.early_exit import EarlyExit
from joulefront.spaces.energy_transformer import EnergyTransformer
from joulefront.spaces.mlp import Mlp
from joulefront.spaces.own import Own
from joulefront.spaces.recipes import RecipeRanges
from joulefront.spaces.repeated import Repeated
from joulefront.spaces.timm_zoo import MODELS, TimmZoo
from joulefront.spaces.union import Union
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


@pytest.mark.parametrize("name", ["convnet on digits", "mlp on a table", "cell on digits", "vit", "energy transformer", "own"])
def test_candidates_with_equal_models_have_equal_keys(contract, name):
    space, shape, _ = NETWORKS[name]
    contract.check_equal_models(space, contract.make_task(shape))


@pytest.mark.parametrize("kind", ["classification", "regression", "multilabel"])
def test_a_small_network_serves_every_kind_of_task(contract, kind):
    contract.check(Mlp(), contract.make_task((5,), kind), 2)
    contract.check(Convnet(), contract.make_task((1, 8, 8), kind), 2)


@pytest.mark.parametrize("estimator", SUPERVISED)
@pytest.mark.parametrize("kind", ["classification", "regression", "anomaly"])
def test_a_supervised_estimator_keeps_the_contract(contract, estimator, kind):
    contract.check(Classical(estimators=estimator), contract.make_task((5,), kind), 2)


@pytest.mark.parametrize("estimator", ["decision_tree", "random_forest", "extra_trees", "k_neighbours"])
def test_trees_and_neighbours_serve_several_labels(contract, estimator):
    contract.check(Classical(estimators=estimator), contract.make_task((5,), "multilabel"), 2)


@pytest.mark.parametrize("estimator", DETECTORS)
def test_a_detector_keeps_the_contract(contract, estimator):
    contract.check(Classical(estimators=estimator), contract.make_task((5,), "anomaly"), 2)


@pytest.mark.parametrize("kind", ["classification", "regression", "anomaly"])
def test_boosting_keeps_the_contract(contract, kind):
    contract.check(Boosting(rows=(1.0, 0.5)), contract.make_task((5,), kind), 2)


def test_families_compete_on_a_table(contract):
    contract.check(Union(Classical(), Mlp()), contract.make_task((5,)), 8)


def test_every_family_of_the_package_is_in_a_contract_test():
    """A family that nobody checks would be a family that nobody can rely on."""
    folder = Path(__file__).parent
    checked = "".join(path.read_text() for path in folder.glob("test_*.py") if "contract.check(" in path.read_text())
    families = []
    for path in sorted((folder.parents[1] / "spaces").glob("[!_]*.py")):
        module = importlib.import_module(f"joulefront.spaces.{path.stem}")
        own = [thing for thing in vars(module).values() if isinstance(thing, type) and thing.__module__ == module.__name__]
        spaces = [thing for thing in own if all(hasattr(thing, method) for method in ("sample", "build", "key"))]
        families += [space.__name__ for space in spaces if space.build is not Space.build]  # not the bases, which build nothing
    assert len(families) >= 10
    assert [name for name in families if f"{name}(" not in checked] == []
