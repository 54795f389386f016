"""Tactics inside of the real training loop, on scikit-learn's digits."""

from contextlib import contextmanager

import numpy as np
import pytest
import torch

from joulefront.search.training.arrays import arrays
from joulefront.search.training.fit import fit
from joulefront.search.training.loop import epoch_seed
from joulefront.search.training.recipe import Recipe
from joulefront.search.training.tactics.activation_sparsity import nonzero_share

pytestmark = pytest.mark.slow

EPOCHS = 6
RECIPE = {"learning_rate": 3e-3, "batch_size": 32, "weight_decay": 0.01}
SETTINGS = {
    "sparse_backprop": {"keep": 0.2},
    "activation_sparsity": {"weight": 0.05},
    "freeze": {"share": 0.5, "from_epoch": 3},
    "progressive_resizing": {"start": 0.75, "ramp_epochs": 2, "multiple": 2},
}


def train(build, task, tactics, epochs=EPOCHS, start=None, **recipe):
    return fit(build(), task, Recipe(**{**RECIPE, **recipe}, tactics=tactics), epochs=epochs, start=start, seed=1)


@pytest.fixture
def net(wide_net):
    """Half as wide, which trains in a third of the time."""
    return lambda seed=0: wide_net(seed, width=32)


@pytest.fixture(scope="module")
def dense_accuracy(digits_task):
    """Accuracy of plain training by size and seed of the weights; made once for all tests."""
    made = {}

    def of(build, seed=0):
        which = sum(weights.numel() for weights in build().parameters()), seed
        if which not in made:
            made[which] = train(lambda: build(seed), digits_task, {}).quality["accuracy"]
        return made[which]

    return of


def test_sparse_backprop_is_within_one_point_of_dense_accuracy(wide_net, digits_task, dense_accuracy):
    seeds = (0, 1)
    dense = [dense_accuracy(wide_net, seed) for seed in seeds]
    fitted = [train(lambda seed=seed: wide_net(seed), digits_task, {"sparse_backprop": {"keep": 0.2}}) for seed in seeds]
    sparse = [one.quality["accuracy"] for one in fitted]
    assert min(dense) > 0.95
    assert sum(sparse) / 2 >= sum(dense) / 2 - 0.01
    assert fitted[0].extra["sparse_backprop_layers"] == 2
    assert fitted[0].extra["sparse_backprop_mean_keep"] == pytest.approx(0.6)


@pytest.mark.parametrize("name", sorted(SETTINGS))
def test_every_tactic_trains_a_good_model_and_leaves_an_ordinary_one(name, net, digits_task, dense_accuracy):
    fitted = train(net, digits_task, {name: SETTINGS[name]})
    assert fitted.quality["accuracy"] >= dense_accuracy(net) - 0.05
    assert fitted.extra
    assert list(fitted.model.state_dict()) == list(net().state_dict())
    plain, model = net(), fitted.model
    assert [set(vars(module)) for module in model.modules()] == [set(vars(module)) for module in plain.modules()]
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("name", sorted(SETTINGS))
def test_a_training_that_continues_is_the_same_as_one_long_training(name, net, few_digits):
    tactics = {name: SETTINGS[name]}
    long = train(net, few_digits, tactics, epochs=4)
    first = train(net, few_digits, tactics, epochs=2)
    second = train(lambda: net(seed=99), few_digits, tactics, epochs=4, start=first.checkpoint)
    assert second.epochs == 4
    for key, value in long.model.state_dict().items():
        torch.testing.assert_close(second.model.state_dict()[key], value, rtol=1e-6, atol=1e-7, msg=key)
    assert second.quality["accuracy"] == long.quality["accuracy"]
    if name != "activation_sparsity":  # whose columns are of one batch
        assert second.extra == long.extra, "columns are of all epochs of the model"


def test_smaller_images_need_square_ones_which_else_would_grow_first(wide_net):
    task = arrays(np.zeros((40, 1, 8, 32), dtype="uint8"), np.arange(40) % 2)
    with pytest.raises(ValueError, match="square ones, got 8 x 32; drop the tactic"):
        train(wide_net, task, {"progressive_resizing": {"start": 0.5}})


def test_a_column_counts_epochs_that_were_trained_not_those_that_were_only_compiled_for(wide_net, few_digits, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda model: model)
    tactics = {"progressive_resizing": {"start": 0.5, "ramp_epochs": 1}}
    recipe = Recipe(**RECIPE, compile=True, tactics=tactics)
    ended = fit(wide_net(), few_digits, recipe, epochs=4, should_continue=lambda point: False)
    assert ended.extra == {"progressive_resizing_mean_side": 0.5}


def test_all_tactics_work_together_under_bfloat16_accumulation_and_channels_last(net, digits_task):
    fitted = train(net, digits_task, SETTINGS, precision="bfloat16", accumulation=2, channels_last=True)
    assert fitted.quality["accuracy"] > 0.9
    assert {name.split("_")[0] for name in fitted.extra} == {"sparse", "activation", "modelled", "freeze", "progressive"}


def test_fewer_activations_of_a_trained_digits_net_are_non_zero_the_larger_the_weight(wide_net, digits_task):
    shares = [
        train(lambda: wide_net(width=16), digits_task, {"activation_sparsity": {"weight": weight}}).extra["activation_nonzero_share"]
        for weight in (0.0, 0.1, 1.0)
    ]
    assert shares[0] > shares[1] > shares[2]


def test_what_a_tactic_finds_out_about_the_finished_model_is_a_phase_of_its_own(net, digits_task):
    kinds, runs = [], []

    @contextmanager
    def phases(kind, index):
        kinds.append((kind, index))
        handle = torch.nn.modules.module.register_module_forward_pre_hook(lambda module, _: runs.append((kind, type(module).__name__)))
        try:
            yield
        finally:
            handle.remove()

    recipe = Recipe(**RECIPE, tactics={"activation_sparsity": {"weight": 0.1}})
    model = net()
    fitted = fit(model, digits_task, recipe, epochs=2, seed=1, phases=phases)
    assert kinds == [("setup", 0), ("epoch", 1), ("epoch", 2), ("eval", 2), ("analysis", 2)]
    assert ("analysis", "Conv2d") in runs
    # the model that was measured is the one that is described, with its averaged weights
    x = next(digits_task.train.batches(RECIPE["batch_size"], seed=epoch_seed(1, 1)))[0]
    assert fitted.extra["activation_nonzero_share"] == pytest.approx(nonzero_share(fitted.model, x), abs=1e-6)
    fit(net(), digits_task, Recipe(**RECIPE), epochs=1, seed=1, phases=phases)
    assert kinds[-1] == ("eval", 1), "without tactics there is nothing to find out"


def test_a_training_that_fails_is_detached(net, digits_task):
    model = net()

    def fail(point):
        raise RuntimeError("the caller failed")

    with pytest.raises(RuntimeError, match="the caller failed"):
        fit(model, digits_task, Recipe(**RECIPE, tactics=SETTINGS), epochs=2, seed=1, should_continue=fail)
    assert [set(vars(module)) for module in model.modules()] == [set(vars(module)) for module in net().modules()]
    assert all(not module._forward_hooks for module in model.modules())


def test_a_model_that_takes_one_image_size_only_is_a_clear_error(digits_task):
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.Flatten(), torch.nn.Linear(144, 10))
    recipe = Recipe(**RECIPE, tactics={"progressive_resizing": {}})
    with pytest.raises(ValueError, match="progressive_resizing needs a model that takes images of any size"):
        fit(model, digits_task, recipe, epochs=1)
