"""The contract suite: every space of the package keeps it."""

import pytest

from joulefront.spaces.cell import Cell
from joulefront.spaces.classical import DETECTORS, SUPERVISED, Classical
from joulefront.spaces.convnet import Convnet
from joulefront.spaces.early_exit import EarlyExit
from joulefront.spaces.energy_transformer import EnergyTransformer
from joulefront.spaces.mlp import Mlp
from joulefront.spaces.recipes import RecipeRanges
from joulefront.spaces.timm_zoo import MODELS, TimmZoo
from joulefront.spaces.union import Union
from joulefront.spaces.vit import Vit

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
    "union": (Union(Convnet(), Mlp(), TimmZoo(("test_resnet",))), (3, 32, 32), 4),
    **{f"timm {model}": (TimmZoo((model,)), (3, 32, 32), 1) for model in MODELS},
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_keeps_the_contract(contract, name):
    space, shape, count = NETWORKS[name]
    contract.check(space, contract.make_task(shape), count)


@pytest.mark.parametrize("name", [name for name in NETWORKS if not name.startswith(("timm", "union"))])
def test_a_network_can_be_traced_with_a_free_batch(contract, name):
    space, shape, _ = NETWORKS[name]
    contract.check_traced(space, contract.trials(space, 1)[0][0], contract.make_task(shape))


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


def test_families_compete_on_a_table(contract):
    contract.check(Union(Classical(), Mlp()), contract.make_task((5,)), 8)
