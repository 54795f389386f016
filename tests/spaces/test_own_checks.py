"""What would break a search with an own space, or mislead it, is refused by name before the first trial."""

import itertools
import json
import re
import sys
import warnings
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from joulefront.search.space import Candidate, RandomTrial, SpaceError, check_space, plain_choices
from joulefront.search.study import Study
from joulefront.search.training.arrays import arrays
from joulefront.spaces.mlp import Mlp
from joulefront.spaces.own import Own
from joulefront.spaces.recipes import RecipeRanges
from joulefront.spaces.union import Union

X = np.random.default_rng(0).normal(size=(120, 4)).astype("float32")
TASK = arrays(X, X[:, 0] > 0)
COUNTED = itertools.count()
RECIPE = RecipeRanges(learning_rate=(1e-3, 1e-1), batch_size=(32, 64))


def linear(architecture, task):
    return torch.nn.Linear(4, task.outputs)


def study(space, task=TASK):
    return Study(name="n", task=task, space=space, rungs=(1,), trials=2)


DRAWS = {
    "a float of the recipe": (lambda t: {"x": t.suggest_float("learning_rate", 1.0, 2.0)}, "'learning_rate'.*recipe"),
    "an int of the recipe": (lambda t: {"x": t.suggest_int("batch_size", 1, 2)}, "'batch_size'.*recipe"),
    "the same range as the recipe's": (lambda t: {"x": t.suggest_float("learning_rate", 1e-3, 1e-1, log=True)}, "'learning_rate'.*recipe"),
    "a field that the recipe fixes": (lambda t: {"x": t.suggest_categorical("optimizer", ["sgd", "adam"])}, "'optimizer'.*recipe"),
    "the length of a training": (lambda t: {"x": t.suggest_int("epochs", 1, 5)}, "'epochs'"),
    "only some candidates": (lambda t: {"x": t.suggest_int("a", 0, 1) and t.suggest_float("momentum", 0, 1)}, "'momentum'.*recipe"),
    "tuples": (lambda t: {"k": t.suggest_categorical("k", [(8,), (8, 8)])}, "'k'.*got the tuple"),
    "lists": (lambda t: {"k": t.suggest_categorical("k", [[8], [8, 8]])}, "'k'.*got the list"),
    "arrays": (lambda t: {"k": t.suggest_categorical("k", [np.zeros(2), np.ones(2)])}, "'k'.*got the ndarray"),
    "classes": (lambda t: {"k": t.suggest_categorical("k", [torch.nn.ReLU, torch.nn.GELU])}, "'k'.*got the type"),
    "a truth value beside its number": (lambda t: {"k": t.suggest_categorical("k", [1, 2, True])}, "'k' must differ, got 1 and True"),
    "a number twice": (lambda t: {"k": t.suggest_categorical("k", [4, 4.0])}, "'k' must differ, got 4 and 4.0"),
    "infinity": (lambda t: {"k": t.suggest_categorical("k", [4.0, float("inf")])}, "finite float or str, got the float inf"),
    "a text in place of a list": (lambda t: {"k": t.suggest_categorical("k", "relu")}, "'k' must be a list, got 'relu'"),
    "choices in no order": (lambda t: {"k": t.suggest_categorical("k", {"a", "b"})}, "'k' must be a list.*in an order that stays"),
    "nothing": (lambda t: {"k": t.suggest_categorical("k", [])}, "'k' needs at least one choice"),
    "a logarithm of 0": (
        lambda t: {"k": t.suggest_int("k", 0, 8, log=True)},
        "k' with log must have a lower bound > 0.*got a lower bound of 0",
    ),
    "a logarithm in steps": (lambda t: {"k": t.suggest_int("k", 4, 8, step=2, log=True)}, "no step, got a step of 2"),
    "no step": (lambda t: {"k": t.suggest_float("k", 4, 8, step=0.0)}, "k' must be > 0"),
    "bounds the other way round": (lambda t: {"k": t.suggest_int("k", 8, 4)}, "k' must be two numbers, the lower first, got 8 and 4"),
    "an endless range": (lambda t: {"k": t.suggest_float("k", 1, float("inf"))}, "k' must be two numbers.*got 1.0 and inf"),
    "no number as a bound": (lambda t: {"k": t.suggest_int("k", 1, float("nan"))}, "k' must be whole numbers, got 1, nan and 1"),
    "half a number as a bound": (lambda t: {"k": t.suggest_int("k", 1, 4.5)}, "k' must be whole numbers.*use suggest_float"),
    "no dictionary": (lambda t: None, "must return a dictionary, got NoneType"),
    "an array in the architecture": (lambda t: {"k": 1, "mask": np.ones(3)}, "architecture's 'mask' must be .*got ndarray"),
    "a number as a name": (lambda t: {1: t.suggest_int("k", 1, 2)}, "names in an architecture must be texts, got 1"),
    "by chance, not by the trial": (lambda t: {"k": t.suggest_int("k", 1, 2), "w": next(COUNTED)}, "one candidate for one set of para"),
    "one name twice": (lambda t: {"k": t.suggest_int("w", 1, 2) + t.suggest_int("w", 1, 9)}, r"w' from \(1, 2"),
}


@pytest.mark.parametrize("inside", [False, True], ids=["alone", "in a union"])
@pytest.mark.parametrize(("draw", "words"), DRAWS.values(), ids=DRAWS)
def test_what_an_own_space_must_not_draw_is_refused_by_name(draw, words, inside):
    own = Own(draw, linear, recipe=RECIPE)
    with pytest.raises(ValueError, match=words) as caught:
        study(Union(own, Mlp(recipe=RECIPE)) if inside else own).load_task()
    assert "\n" not in str(caught.value)


def test_a_space_of_another_kind_is_looked_at_too():
    @dataclass(frozen=True)
    class Foreign:
        name: str = "foreign"

        def sample(self, trial):
            rate = trial.suggest_float("learning_rate", 1.0, 2.0)
            return Candidate({"rate": rate}, RECIPE.sample(trial))

    with pytest.raises(ValueError, match=r"'learning_rate' from \(1\.0, 2\.0.*field of the recipe"):
        study(Foreign()).load_task()


def test_numbers_of_numpy_are_choices_and_bounds():
    def draw(trial):
        width = trial.suggest_categorical("width", np.array([8, 16]))
        return {
            "width": width,
            "depth": trial.suggest_int("depth", np.int64(1), np.int64(3)),
            "rate": trial.suggest_float("rate", *np.array([0.0, 1.0])),
        }

    space = Own(draw, linear, recipe=RECIPE)
    assert study(space).load_task() is TASK
    kept = space.sample(RandomTrial(0)).architecture
    assert [type(kept[name]) for name in ("width", "depth", "rate")] == [int, int, float]


def test_a_model_of_a_space_of_another_kind_is_run_too():
    @dataclass(frozen=True)
    class Foreign:
        name: str = "foreign"

        def sample(self, trial):
            return Candidate({}, RECIPE.sample(trial))

        def build(self, candidate, task):
            return torch.nn.Linear(4, 10)

    with pytest.raises(ValueError, match="the space 'foreign' gives 10 outputs, the task has 2"):
        study(Foreign()).load_task()


@pytest.mark.parametrize("outputs", [1, 3, 10])
@pytest.mark.parametrize("inside", [False, True], ids=["alone", "in a union"])
def test_a_model_with_another_number_of_outputs_than_the_task_is_refused(outputs, inside):
    own = Own(lambda trial: {}, lambda architecture, task: torch.nn.Linear(4, outputs), recipe=RECIPE)
    with pytest.raises(ValueError, match=f"gives {outputs} outputs, the task has 2 \\(False, True\\)"):
        study(Union(own, Mlp(recipe=RECIPE)) if inside else own).load_task()


@pytest.mark.parametrize(("answer", "kind"), [(lambda x: (x, 1), "tuple"), (lambda x: {"logits": x}, "dict"), (lambda x: None, "NoneType")])
def test_a_model_that_returns_no_tensor_is_refused(answer, kind):
    class Answers(torch.nn.Linear):
        def forward(self, x):
            return answer(super().forward(x))

    with pytest.raises(ValueError, match=rf"must return a tensor \(examples, 2\), got {kind}; return its logits alone"):
        study(Own(lambda trial: {}, lambda architecture, task: Answers(4, 2), recipe=RECIPE)).load_task()


def test_the_check_of_outputs_leaves_what_it_cannot_run_and_the_generator_alone():
    def broken(architecture, task):
        raise RuntimeError("not here")

    before = torch.random.get_rng_state()
    assert study(Own(lambda trial: {}, broken, recipe=RECIPE)).load_task() is TASK
    assert study(Own(lambda trial: {}, linear, recipe=RECIPE)).load_task() is TASK
    assert torch.equal(before, torch.random.get_rng_state())
    values = arrays(X, X[:, 0] * 1.5)
    flat = Own(lambda trial: {}, lambda architecture, task: torch.nn.Sequential(torch.nn.Linear(4, 1), torch.nn.Flatten(0)), recipe=RECIPE)
    assert Study(name="n", task=values, space=flat, objectives=("r2", "train_energy"), rungs=(1,)).load_task() is values


def test_numbers_of_numpy_in_an_architecture_become_plain_ones():
    drawn = Own(lambda t: {"width": np.int64(t.suggest_int("w", 4, 8)), "rate": np.float32(0.5)}, linear, recipe=RECIPE).sample(
        RandomTrial(0)
    )
    assert {type(one) for one in drawn.architecture.values()} <= {int, float, str}


def test_a_model_that_is_the_same_object_each_time_is_refused_and_frozen_parts_may_be_shared():
    body = torch.nn.Linear(4, 4)

    def make(architecture, task):
        return torch.nn.Sequential(body, torch.nn.Linear(4, task.outputs))

    space = Own(lambda trial: {}, make, recipe=RECIPE)
    with pytest.raises(ValueError, match="the space 'own' must build each model anew, got one with weights of another"):
        study(space).load_task()
    body.requires_grad_(False)
    assert study(space).load_task() is TASK


def test_a_model_that_gives_probabilities_gets_a_word(monkeypatch):
    monkeypatch.delitem(sys.modules, "torch._dynamo", raising=False)  # with it models are built without values
    space = Own(lambda trial: {}, lambda how, task: torch.nn.Sequential(linear(how, task), torch.nn.Softmax(1)), recipe=RECIPE)
    with pytest.warns(UserWarning, match="gives probabilities, of which the loss takes the softmax again; leave out its last softmax"):
        study(space).load_task()


def test_what_a_draw_has_not_is_named():
    space = Own(lambda trial: {"k": trial.number}, linear, recipe=RECIPE)
    with pytest.raises(AttributeError, match="has suggest_float, suggest_int and suggest_categorical, no number"):
        space.sample(RandomTrial(0))


class Probe(torch.nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.kind, self.linear, self.shift = kind, torch.nn.Linear(4, 2), torch.zeros(4)
        self.plain = [torch.nn.Linear(4, 4)] if kind == "list" else []
        self.norm = torch.nn.BatchNorm1d(4, track_running_stats=kind != "batch")

    def forward(self, inputs):
        if self.kind == "state" and self.training:
            self.shift = self.shift + inputs.detach().mean(0) + 1
        for layer in self.plain:
            inputs = layer(inputs)
        noise = 0.3 * torch.randn_like(inputs) if self.kind == "noise" else 0.0
        return self.linear(self.norm(inputs - self.shift + noise))


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("list", "holds what is not in its state_dict.*ModuleList"),
        ("state", "holds what is not in its state_dict.*register_buffer"),
        ("noise", "predicts otherwise each time"),
        ("batch", "predicts an example otherwise beside others"),
        ("", None),
    ],
)
def test_a_model_that_would_predict_otherwise_when_it_is_used_gets_a_word(kind, words):
    space = Own(lambda t: {"w": t.suggest_int("w", 1, 2)}, lambda a, task: Probe(kind), recipe=RECIPE)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        study(space).load_task()
    said = " ".join(str(one.message) for one in caught)
    assert bool(re.search(words, said)) if words else not said


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda a, task: torch.nn.LazyLinear(2),
            "float32 and of known sizes.* give lazy layers sizes",
        ),
        (lambda a, task: torch.nn.Linear(4, 2, device="meta"), "must have weights of float32 .*device='meta'"),
        (lambda a, task: torch.nn.Linear(4, 2).double(), "must have weights of float32 .*; leave out .double"),
        (lambda a, task: torch.nn.Linear(4, 2).half(), "must have weights of float32 .*, .half"),
    ],
)
def test_weights_that_no_training_could_begin_with_are_refused_by_name(make, words):
    with pytest.raises(ValueError, match=words):
        study(Own(lambda t: {"w": t.suggest_int("w", 1, 2)}, make, recipe=RECIPE)).load_task()


def test_what_is_no_study_task_space_or_recipe_is_refused_by_name():
    own = Own(lambda t: {"w": t.suggest_int("w", 1, 2)}, linear, recipe=RECIPE)
    for fields, words in (
        ({"space": [own]}, r"study.space must be Space, got .*list.*; several are Union"),
        ({"rungs": 3}, r"study.rungs must be tuple\[int, ...\], got 3 \(int\); write \(1, 3, 9\)"),
        ({"name": 5}, "study.name must be str, got 5"),
        ({"task": lambda: (X, X[:, 0])}, r"a function without arguments that returns one, got tuple; arrays\(inputs, targets\)"),
    ):
        with pytest.raises(ValueError, match=words):
            Study(**{"name": "n", "task": TASK, "space": own, "rungs": (1,), "trials": 2, **fields}).load_task()
    with pytest.raises(ValueError, match=r"recipe must be RecipeRanges, got .*; write RecipeRanges\(learning_rate=...\)"):
        Own(own.draw, linear, recipe={"batch_size": 8})


def test_choices_are_compared_once_each():
    """Pairs of 100,000 choices would take minutes: this is a hang where they are compared with each other."""
    assert len(plain_choices("k", range(100_000))) == 100_000
    with pytest.raises(ValueError, match=r"'k' must differ, got 7 and 7\.0"):
        plain_choices("k", [*range(1000), 7.0])


@pytest.mark.parametrize(
    ("draw", "said"),
    [
        (lambda t: {"a": t.suggest_uniform("a", 1, 2)}, "got AttributeError: the trial of a draw has suggest_float"),
        (lambda t: {"a": t.suggest_int("a", None, 2)}, "got TypeError: .*NoneType"),
        (lambda t: {"a": t.suggest_categorical("a", 3)}, "the choices of 'a' must be a list, got 3"),
    ],
)
def test_a_space_that_never_draws_is_refused_with_its_own_error(draw, said):
    with pytest.raises(SpaceError, match=said):
        check_space(Own(draw, linear, recipe=RECIPE))


def test_a_network_of_something_else_than_its_architecture_and_gradients_that_are_off_are_refused():
    sizes = itertools.count(3)

    def make(architecture, task):
        width = next(sizes)
        return torch.nn.Sequential(torch.nn.Linear(4, width), torch.nn.Linear(width, task.outputs))

    with pytest.raises(SpaceError, match="must build one network from one architecture, got weights of other sizes the second time"):
        study(Own(lambda trial: {"w": trial.suggest_int("w", 1, 2)}, make, recipe=RECIPE)).load_task()
    own = Own(lambda trial: {"w": trial.suggest_int("w", 1, 2)}, linear, recipe=RECIPE)
    with torch.no_grad(), pytest.raises(SpaceError, match="gradients must be on, got "):
        study(own).load_task()


def test_numbers_of_numpy_in_a_study_are_plain_and_those_that_are_none_are_refused_in_an_architecture():
    own = Own(lambda trial: {"w": trial.suggest_int("w", 1, 2)}, linear, recipe=RECIPE)
    made = Study("n", TASK, own, rungs=tuple(np.array([1, 3])), trials=np.int64(2), seed=np.int64(5), max_flops=np.float32(8))
    assert json.loads(json.dumps([made.rungs, made.trials, made.seed, made.max_flops])) == [[1, 3], 2, 5, 8.0]
    with pytest.raises(SpaceError, match="'x' must be plain values, texts or lists, got float nan"):
        Own(lambda trial: {"x": float("nan")}, linear, recipe=RECIPE).sample(RandomTrial(0))
