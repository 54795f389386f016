import random
from contextlib import ExitStack
from dataclasses import replace

import numpy as np
import pytest
import torch

from joulefront.search.training.arrays import arrays
from joulefront.search.training.captured import CapturedEpoch, Steps
from joulefront.search.training.fit import fit
from joulefront.search.training.loop import Loop
from joulefront.search.training.optimizer import portable_state
from joulefront.search.training.recipe import Recipe

EPOCHS = 3
RECIPE = Recipe(batch_size=16, learning_rate=1e-2, weight_decay=1e-2, augment="flip_shift", label_smoothing=0.05)


@pytest.fixture(scope="module")
def pictures():
    draw = np.random.default_rng(0)
    labels = np.arange(900) % 3
    return arrays(np.clip(draw.integers(0, 90, (900, 8, 8, 1)) + 60 * labels[:, None, None, None], 0, 255).astype(np.uint8), labels)


def network(*more):
    torch.manual_seed(1)
    return torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3, bias=False),
        torch.nn.BatchNorm2d(4),
        torch.nn.ReLU(),
        *more,
        torch.nn.Flatten(),
        torch.nn.Linear(4 * 36, 3),
    )


def a_loop(task, undo, recipe=RECIPE, model=None, start=None, epochs=EPOCHS):
    return Loop(model or network(), task, recipe, (), undo, epochs=epochs, start=start, seed=5, device=torch.device("cpu"))


def again(body):
    """Stand for a graph: what it would launch is computed."""
    return body


def trained(task, recipe=RECIPE, captured=True, start=None, epochs=EPOCHS):
    with ExitStack() as undo:
        loop = a_loop(task, undo, recipe, start=start, epochs=epochs)
        if captured:
            assert loop.capture(again) is None
        losses = [loop.train_epoch() for _ in range(epochs - loop.epoch)]
        return losses, loop.checkpoint()


def assert_close(first, second):
    assert first.keys() == second.keys()
    for name, value in first.items():
        torch.testing.assert_close(value, second[name], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        {},
        {"optimizer": "sgd"},
        {"schedule": "cosine"},
        {"averaging": False, "schedule": "constant"},
        {"accumulation": 2},
        {"augment": "none", "batch_size": 50},
    ],
)
def test_an_epoch_of_recorded_steps_trains_as_one_step_after_the_other(pictures, change):
    recipe = replace(RECIPE, **change)
    (losses, plain), (others, captured) = trained(pictures, recipe, captured=False), trained(pictures, recipe)
    assert others == pytest.approx(losses, rel=1e-4)
    assert_close(plain["weights"], captured["weights"])
    assert captured["steps"] == plain["steps"]
    if plain["averaged"] is not None:
        assert_close(plain["averaged"], captured["averaged"])


@pytest.mark.slow
def test_a_checkpoint_of_recorded_steps_goes_on_in_ordinary_ones_and_the_other_way_round(pictures):
    _, plain = trained(pictures, captured=False)
    for first in (True, False):
        _, start = trained(pictures, captured=first, epochs=1)
        assert all(isinstance(group["lr"], float) and not group["capturable"] for group in start["optimizer"]["param_groups"])
        _, end = trained(pictures, captured=not first, start=start)
        assert_close(plain["weights"], end["weights"])


def test_recording_leaves_weights_statistics_optimiser_and_generators_as_they_were(pictures):
    _, start = trained(pictures, captured=False, epochs=1)
    with ExitStack() as undo:
        loop = a_loop(pictures, undo, start=start)
        model, seen = loop._model, torch.get_rng_state()
        before = {name: value.clone() for name, value in model.state_dict().items()}
        moments = [value.clone() for state in loop._optimizer.state.values() for value in state.values()]
        assert loop.capture(again) is None
        assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
        assert all(map(torch.equal, moments, [value for state in loop._optimizer.state.values() for value in state.values()]))
        assert torch.equal(seen, torch.get_rng_state())
        assert all(parameter.grad is None for parameter in model.parameters())


class Moody(torch.nn.Module):
    """Takes something from the CPU at each call."""

    def __init__(self, what):
        super().__init__()
        self.what, self.calls, self.own, self.state = what, 0, np.random.default_rng(0), {"step": 0}

    def forward(self, x):
        self.state["step"] += self.what == "state"
        {
            "own": self.own.random,
            "state": int,
            "python": random.random,
            "numpy": np.random.rand,
            "torch": lambda: torch.rand(1),
            "count": self.count,
        }[self.what]()
        return x

    def count(self):
        self.calls += 1


@pytest.mark.parametrize("what", ["python", "numpy", "torch", "count", "own", "state"])
def test_a_network_that_takes_something_from_the_cpu_in_each_step_is_not_recorded(pictures, what):
    with ExitStack() as undo:
        loop = a_loop(pictures, undo, model=network(Moody(what)))
        assert "on the CPU, or counts" in loop.capture(again)
        assert all(isinstance(group["lr"], float) and not group["capturable"] for group in loop._optimizer.param_groups)


@pytest.mark.slow
def test_what_cannot_be_recorded_trains_step_by_step_as_if_it_had_not_been_tried(pictures):
    def refuses(body):
        body()
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    with ExitStack() as undo:
        loop = a_loop(pictures, undo)
        assert loop.capture(refuses) == "operation not permitted when stream is capturing"
        assert loop.extra["graph"] == 0.0
        losses = [loop.train_epoch() for _ in range(EPOCHS)]
    assert losses == trained(pictures, captured=False)[0]


def test_few_steps_tactics_and_float16_are_not_worth_or_not_fit_for_a_graph(pictures):
    with ExitStack() as undo:
        assert "fewer than" in a_loop(pictures, undo, Recipe(batch_size=200)).capture(again)
        assert "scaler" in a_loop(pictures, undo, Recipe(batch_size=16, precision="float16")).capture(again)


def test_a_captured_step_takes_nothing_from_the_caller_but_the_schedule(pictures):
    """The same order, moves and examples as in batches."""
    with ExitStack() as undo:
        loop = a_loop(pictures, undo)
        seen = []
        epoch = CapturedEpoch(
            pictures.train, loop._optimizer, None, batch_size=16, resolution=None, augment="flip_shift", device=torch.device("cpu")
        )

        def note(inputs, targets):
            seen.append((inputs, targets))
            return loop._backward(inputs, targets)

        epoch.capture(loop._model, note, again)
        del seen[:]
        count = len(pictures.train) // 16
        assert len(list(epoch.train(Steps([1.0] * count, [1.0] * count), seed=9))) == count
        seen += epoch.rest()
    expected = list(pictures.train.batches(16, seed=9, augment="flip_shift"))
    assert len(seen) == len(expected)
    assert all(torch.equal(a, c) and torch.equal(b, d) for (a, b), (c, d) in zip(seen, expected, strict=True))
    assert portable_state(loop._optimizer)["param_groups"][0]["lr"] == loop._optimizer.param_groups[0]["peak"]


@pytest.mark.slow
def test_a_recipe_with_a_graph_trains_on_a_cpu_as_one_without(pictures):
    ends = [fit(network(), pictures, replace(RECIPE, graph=graph), epochs=1, seed=2) for graph in (False, True)]
    assert ends[0].quality == ends[1].quality
    assert "graph" not in ends[1].extra


def test_no_part_of_an_accumulated_batch_is_a_single_example(pictures):
    recipe = replace(RECIPE, batch_size=32, accumulation=4)
    task = replace(pictures, train=pictures.train.only(np.arange(32 * 3 + 5)))
    rows = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 3))
    assert np.isfinite(fit(rows, task, recipe, epochs=1).quality["loss"])
