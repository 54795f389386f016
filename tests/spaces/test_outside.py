"""A new family is one file, outside the package, and keeps the contract without a line anywhere else."""

import pytest

from joulefront.spaces.convnet import Convnet
from joulefront.spaces.union import Union

FAMILY = '''
from dataclasses import dataclass

from torch import nn

from joulefront.search.space import Candidate
from joulefront.spaces.recipes import RecipeRanges


@dataclass(frozen=True)
class Lowrank:
    """A linear classifier through a bottleneck."""

    ranks: tuple[int, int] = (2, 16)
    recipe: RecipeRanges = RecipeRanges()
    name: str = "lowrank"

    def sample(self, trial):
        rank = trial.suggest_int("rank", *self.ranks, log=True)
        return Candidate({"family": self.name, "rank": rank}, self.recipe.sample(trial))

    def build(self, candidate, task):
        inputs = task.input_shape[0] * task.input_shape[1] * task.input_shape[2]
        rank = candidate.architecture["rank"]
        return nn.Sequential(nn.Flatten(), nn.Linear(inputs, rank), nn.Linear(rank, task.outputs))

    def key(self, candidate):
        return candidate.key
'''


@pytest.mark.slow
def test_a_family_from_outside_the_package_keeps_the_contract_alone_and_in_a_union(contract, tmp_path):
    module = contract.load(tmp_path, "lowrank", FAMILY)
    task = contract.make_task((3, 8, 8))
    contract.check(module.Lowrank(), task, 3)
    contract.check(Union(module.Lowrank(), Convnet()), task, 4)


def test_a_family_from_outside_the_package_can_be_trained_and_continued(contract, tmp_path):
    from joulefront.search.training.fit import fit

    space, task = contract.load(tmp_path, "lowrank", FAMILY).Lowrank(), contract.make_task((3, 8, 8))
    candidate, _ = contract.trials(space, 1)[0]
    first = fit(contract.build(space, candidate, task), task, candidate.recipe, epochs=1)
    second = fit(contract.build(space, candidate, task), task, candidate.recipe, epochs=2, start=first.checkpoint)
    assert second.epochs == 2
    assert 0 <= second.quality["accuracy"] <= 1
