"""Repeats are the same model from another seed."""

import pytest
import torch

from joulefront.search.execution.job import seed_of
from joulefront.search.hints import Hints
from joulefront.search.space import Candidate, FixedTrial, RandomTrial, SpaceError
from joulefront.search.training.recipe import Recipe
from joulefront.spaces.convnet import Convnet
from joulefront.spaces.mlp import Mlp
from joulefront.spaces.union import REPEAT, Repeated, Union


def test_repeats_differ_in_their_seed_and_in_nothing_else(contract):
    space = Repeated(Union(Convnet(), Mlp()), times=3)
    task = contract.make_task((1, 8, 8))
    draw = RandomTrial(0)
    candidate = space.sample(draw)
    keys, shapes = set(), set()
    for repeat in (1, 2, 3):
        again = space.sample(FixedTrial({**draw.params, REPEAT: repeat}))
        keys.add(space.key(again))
        torch.manual_seed(seed_of(0, space.key(again)))
        shapes.add(tuple((name, tuple(value.shape)) for name, value in space.build(again, task).state_dict().items()))
        assert again.recipe == candidate.recipe
    assert len(keys) == len({seed_of(0, key) for key in keys}) == 3
    assert len(shapes) == 1


def test_what_is_the_same_model_in_the_space_is_the_same_repeat_of_it():
    space = Repeated(Convnet(depths=1, depthwise=(False, True)), times=2)
    split = space.sample(FixedTrial({**_params(space), "depthwise": True, REPEAT: 1}))
    dense = space.sample(FixedTrial({**_params(space), "depthwise": False, REPEAT: 1}))
    assert space.key(split) == space.key(dense)


def test_no_repeat_is_refused():
    with pytest.raises(ValueError, match="times must be >= 1, got 0"):
        Repeated(Mlp(), times=0)


def _params(space):
    draw = RandomTrial(0)
    space.sample(draw)
    return draw.params


class _Wrong:
    """A space of a user whose models forget the task's outputs; it has no check of its own."""

    name = "wrong"

    def sample(self, trial):
        return Candidate({"width": trial.suggest_int("width", 2, 3)}, Recipe())

    def build(self, candidate, task):
        return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, task.outputs + 1))

    def key(self, candidate):
        return str(candidate.architecture["width"])


_Wrong.__module__ = "a_file_of_the_user"


@pytest.mark.parametrize(
    "around", [lambda space: space, Repeated, lambda space: Union(space, Mlp()), lambda space: Repeated(Union(space, Mlp()))]
)
def test_models_of_another_number_of_outputs_are_refused_inside_of_any_space(contract, around):
    task = contract.make_task((1, 8, 8))
    with pytest.raises(SpaceError, match=r"gives \d+ outputs, the task has"):
        Hints(around(_Wrong())).check(task)
