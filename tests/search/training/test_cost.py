"""Parameters, FLOPs and memory of a training before it starts, against counts by hand and what autograd keeps in a real forward pass."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

from joulefront.search.training import cost
from joulefront.search.training.arrays import arrays
from joulefront.search.training.cost import Cost, activation_bytes, count, training_bytes
from joulefront.search.training.recipe import Recipe


def test_a_convolution_and_a_matrix_are_counted_by_hand(spots):
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.Flatten(), torch.nn.Linear(256, 3))
    assert count(model, spots, Recipe()) == Cost(4 * 9 + 4 + 256 * 3 + 3, 2 * (64 * 4 * 9 + 256 * 3))


def test_flops_grow_with_the_resolution(spots):
    model = torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(4, 3)
    )
    small, large = (count(model, spots, Recipe(resolution=side)).flops for side in (8, 16))
    assert large - small == 2 * 4 * 9 * (256 - 64)


def test_nothing_is_computed_and_nothing_changes(spots, net):
    model = net(spots).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    count(model, spots, Recipe())
    assert model.training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(parameter.device.type == "cpu" for parameter in model.parameters())


def test_a_model_that_looks_at_its_numbers_is_counted_as_well(spots):
    class Looks(torch.nn.Linear):
        def forward(self, x):
            x = x.flatten(1)
            return super().forward(x) if float(x.sum()) == 0 else super().forward(x * 2)

    assert count(Looks(64, 3), spots, Recipe()).flops == 2 * 64 * 3


@pytest.mark.parametrize(
    "model",
    [
        nn.Sequential(nn.Conv2d(1, 4, 3, stride=2), nn.BatchNorm2d(4), nn.GELU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 3)),
        nn.Sequential(nn.Flatten(2), nn.LSTM(64, 8, batch_first=True)),
        nn.Sequential(nn.Flatten(2), nn.TransformerEncoderLayer(64, 2, batch_first=True)),
    ],
    ids=["convolutions", "a recurrent layer", "attention"],
)
def test_a_small_model_counts_as_it_does_on_tensors_without_values(model, spots, monkeypatch):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    counted = count(model, spots, Recipe()).flops
    monkeypatch.setattr(cost, "_SMALL", 0)
    assert counted == count(model, spots, Recipe()).flops > 0
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_shared_weights_count_once_and_a_broken_model_has_no_flops(spots):
    shared = torch.nn.Linear(64, 64)

    class Twice(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = shared, shared

        def forward(self, x):
            raise RuntimeError("not today")

    assert count(Twice(), spots, Recipe()) == Cost(64 * 65, None)


def test_scikit_learn_has_neither(spots):
    assert count(LogisticRegression(), spots, Recipe()) == Cost(None, None)


PLAIN = Recipe(optimizer="sgd", momentum=0.0, schedule="constant", averaging=False, batch_size=16)


def kept_for_real(model, shape, examples):
    """Bytes that autograd keeps for ``examples`` real examples, weights and inputs left out."""
    inputs = torch.randn(examples, *shape)
    known = {tensor.data_ptr() for tensor in [*model.parameters(), *model.buffers(), inputs]}
    kept = {}

    def pack(tensor):
        if tensor.untyped_storage().data_ptr() not in known:
            kept[tensor.untyped_storage().data_ptr()] = (tensor.untyped_storage().nbytes(), tensor)
        return tensor

    model.train()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        outputs = model(inputs)
    del outputs
    return sum(size for size, _ in kept.values())


def perceptron(task):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, task.outputs))


def test_a_perceptron_is_counted_by_hand(spots):
    weights = 64 * 32 + 32 + 32 * 3 + 3
    # Weights and gradients; 16 inputs of 64 values; of the activations only the 32 after the ReLU, kept once for two layers.
    assert training_bytes(perceptron(spots), spots, PLAIN) == 4 * (2 * weights + 16 * 64 + 16 * 32)


@pytest.mark.parametrize(
    ("changes", "copies"),
    [({"momentum": 0.9}, 1), ({"optimizer": "adamw"}, 2), ({"averaging": True}, 1), ({"optimizer": "adamw", "schedule": "anytime"}, 3)],
)
def test_the_state_of_the_optimiser_and_the_average_are_copies_of_the_trained_weights(spots, changes, copies):
    model = perceptron(spots)
    weights = sum(parameter.numel() for parameter in model.parameters())
    more = training_bytes(model, spots, replace(PLAIN, **changes)) - training_bytes(model, spots, PLAIN)
    assert more == copies * 4 * weights


def test_activations_are_those_that_autograd_keeps_in_a_real_pass(spots, net):
    model = net(spots)
    shape = spots.input_shape
    # Per-batch statistics of the normalisation are kept once, whatever the batch: the slope from 8 to 24 examples is the truth.
    slope = (kept_for_real(model, shape, 24) - kept_for_real(model, shape, 8)) / 16
    assert activation_bytes(model, shape) == pytest.approx(slope, rel=0.02)


def test_memory_grows_with_the_micro_batch_and_never_beyond_the_data(spots, net):
    def needed(**changes):
        return training_bytes(net(spots), spots, replace(PLAIN, **changes))

    assert needed(batch_size=32) - needed(batch_size=16) == needed(batch_size=48) - needed(batch_size=32) > 0
    assert needed(batch_size=64, accumulation=4) == needed(batch_size=16)
    assert needed(batch_size=129) == needed(batch_size=100_000), "there are 129 examples"


def test_a_frozen_backbone_keeps_neither_activations_nor_gradients(spots, net):
    free, frozen = net(spots), net(spots)
    for parameter in frozen[:6].parameters():
        parameter.requires_grad_(False)
    assert activation_bytes(frozen, spots.input_shape) < 0.2 * activation_bytes(free, spots.input_shape)
    assert training_bytes(frozen, spots, PLAIN) < training_bytes(free, spots, PLAIN)


def test_half_precision_halves_activations_but_not_weights(spots, net):
    model = net(spots, dropout=0.0)
    whole, half = (activation_bytes(model, spots.input_shape, half=half) for half in (False, True))
    assert half == pytest.approx(whole / 2, rel=0.01)
    full, mixed = (training_bytes(model, spots, replace(PLAIN, precision=precision)) for precision in ("float32", "bfloat16"))
    assert full - mixed == pytest.approx(16 * (whole - half), abs=1)


def test_the_count_changes_neither_the_model_nor_the_random_numbers(spots, net):
    model = net(spots).eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    torch.manual_seed(3)
    first = torch.rand(1)
    torch.manual_seed(3)
    count(model, spots, PLAIN, memory=True)
    assert torch.equal(torch.rand(1), first)
    assert not model.training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_model_without_memory_for_its_weights_is_counted_the_same(spots, net):
    with torch.device("meta"):
        weightless = net(spots)
    assert count(weightless, spots, PLAIN, memory=True) == count(net(spots), spots, PLAIN, memory=True)


def test_memory_is_only_counted_on_request_and_unknown_where_it_cannot_be(spots):
    class Looks(nn.Linear):
        def forward(self, x):
            x = x.flatten(1)
            return super().forward(x) if float(x.detach().sum()) == 0 else super().forward(x * 2)

    assert count(perceptron(spots), spots, PLAIN).memory_bytes is None
    assert count(perceptron(spots), spots, PLAIN, memory=True).memory_bytes == training_bytes(perceptron(spots), spots, PLAIN)
    assert count(Looks(64, 3), spots, PLAIN, memory=True).memory_bytes is None


def test_a_model_of_which_a_part_has_no_values_is_counted_without():
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Linear(3, 2, device="meta"))
    task = arrays(np.zeros((20, 4), np.float32), np.arange(20) % 2)
    assert count(model, task, Recipe()).flops == 2 * (4 * 3 + 3 * 2)
