"""Frozen layers: no gradient, no optimiser work, no moving statistics, and thawed afterwards."""

import pytest
import torch
from helpers.backward_flops import backward_flops
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from joulefront.search.training.tactics.freeze import Freeze, frozen_layers
from joulefront.search.training.tactics.tactic import attached


def train_epochs(model, tactic, epochs, optimizer=None):
    """Train on noise; yields the epoch and the weights after it."""
    optimizer = optimizer or torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)
    generator = torch.Generator().manual_seed(5)
    for epoch in range(1, epochs + 1):
        model.train()
        tactic.start_epoch(epoch, epochs)
        for _ in range(3):
            model(torch.randn(8, 1, 8, 8, generator=generator) + 1.0).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        yield epoch, {name: value.clone() for name, value in model.state_dict().items()}


def moved(before, after):
    return {name for name in before if not torch.equal(before[name], after[name])}


BACKBONE = {f"{index}.{name}" for index in (0, 3) for name in ("weight",)} | {
    f"{index}.{name}" for index in (1, 4) for name in ("weight", "bias")
}
STATISTICS = {f"{index}.{name}" for index in (1, 4) for name in ("running_mean", "running_var", "num_batches_tracked")}
HEAD = {"8.weight", "8.bias"}


def test_a_frozen_backbone_stays_bit_for_bit_and_the_head_learns(wide_net):
    model = wide_net(width=8)
    start = {name: value.clone() for name, value in model.state_dict().items()}
    tactic = Freeze(share=1.0)
    with attached([tactic], model) as columns:
        for _, weights in train_epochs(model, tactic, 2):
            assert moved(start, weights) == HEAD
    assert columns["freeze_epochs"] == 2
    assert columns["freeze_parameter_share"] == pytest.approx(1 - (8 * 10 + 10) / sum(p.numel() for p in model.parameters()))


def test_freezing_during_the_run_stops_adam_momentum_and_weight_decay_too(wide_net):
    model = wide_net(width=8)
    tactic = Freeze(share=1.0, from_epoch=2, until_epoch=3)
    changes, before = [], {name: value.clone() for name, value in model.state_dict().items()}
    with attached([tactic], model):
        for _, weights in train_epochs(model, tactic, 4):
            changes.append(moved(before, weights))
            before = weights
    everything = BACKBONE | STATISTICS | HEAD
    assert changes == [everything, HEAD, HEAD, everything]


def test_a_gradient_that_was_left_over_is_not_applied_to_a_frozen_layer(wide_net):
    model = wide_net(width=8)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    tactic = Freeze(share=1.0, from_epoch=2)
    with attached([tactic], model):
        tactic.start_epoch(1, 2)
        model(torch.randn(4, 1, 8, 8)).square().sum().backward()
        before = model[0].weight.detach().clone()
        tactic.start_epoch(2, 2)
        optimizer.step()
        assert torch.equal(model[0].weight, before)


def test_statistics_of_frozen_normalisation_move_when_requested(wide_net):
    model = wide_net(width=8)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    tactic = Freeze(share=1.0, batchnorm_eval=False)
    with attached([tactic], model):
        ((_, weights),) = train_epochs(model, tactic, 1)
    assert moved(before, weights) == HEAD | STATISTICS


def test_normalisation_without_parameters_is_frozen_with_the_layers_around_it():
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4, affine=False), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(64, 2)
    )
    tactic = Freeze(share=2 / 3)  # both convolutions
    with attached([tactic], model):
        tactic.start_epoch(1, 1)
        model.train()
        assert [model[1].training, model[3].training] == [False, True]


def test_frozen_parameters_have_no_gradient_and_cost_no_backward_flops(wide_net):
    model, x = wide_net(), torch.randn(4, 1, 8, 8)
    dense = backward_flops(model, x)
    tactic = Freeze(share=1.0)
    with attached([tactic], model):
        model(x).sum().backward()
        assert {name for name, parameter in model.named_parameters() if parameter.grad is not None} == HEAD
        head_alone = 2 * 4 * 64 * 10  # one matrix product: the gradient of the head's weight
        assert backward_flops(model, x) == head_alone < 0.001 * dense


def test_detach_gives_everything_back(wide_net):
    model = wide_net()
    model[0].weight.requires_grad_(False)  # frozen by the space: not ours to thaw
    attributes = [set(vars(module)) for module in model.modules()]
    keys = list(model.state_dict())
    with attached([Freeze(share=1.0)], model):
        assert list(model.state_dict()) == keys
        assert not model[1].training
    assert [set(vars(module)) for module in model.modules()] == attributes
    assert [name for name, parameter in model.named_parameters() if not parameter.requires_grad] == ["0.weight"]
    assert all(module.training for module in model.modules())


def test_detach_of_an_evaluated_model_leaves_normalisation_in_evaluation_mode(wide_net):
    model = wide_net()
    with attached([Freeze(share=1.0)], model):
        model.eval()
    assert not any(module.training for module in model.modules())


@given(st.floats(0, 1), st.integers(1, 8))
def test_the_share_counts_layers_from_the_input_and_never_reaches_the_head(share, depth):
    model = nn.Sequential(*[nn.Linear(2, 2) for _ in range(depth)])
    frozen = frozen_layers(model, share)
    assert frozen == list(model)[: round(share * (depth - 1))]


def test_a_named_head_is_the_head_wherever_it_stands():
    class HeadFirst(nn.Module):
        def __init__(self):
            super().__init__()
            self.token = nn.Parameter(torch.zeros(2))
            self.head = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
            self.body = nn.Linear(2, 2)

    model = HeadFirst()
    assert frozen_layers(model, 1.0) == [model, model.body]
    with attached([Freeze(share=1.0)], model):
        assert [name for name, parameter in model.named_parameters() if parameter.requires_grad] == [
            "head.0.weight",
            "head.0.bias",
            "head.1.weight",
            "head.1.bias",
        ]


def test_a_weight_that_is_shared_with_a_layer_that_learns_keeps_learning():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    with attached([Freeze(share=0.5)], model) as columns:
        assert model[0].weight.requires_grad
        assert not model[0].bias.requires_grad
    assert columns["freeze_parameters"] == 3


def test_a_timm_model_keeps_its_classifier():
    timm = pytest.importorskip("timm")
    model = timm.create_model("test_resnet", num_classes=10)
    with attached([Freeze(share=1.0)], model):
        learns = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        assert learns == {"fc.weight", "fc.bias"}
        model.train()
        assert not any(module.training for module in model.modules() if isinstance(module, nn.BatchNorm2d))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"share": 1.5}, "share must be in"),
        ({"from_epoch": 0}, "from_epoch must be >= 1"),
        ({"from_epoch": 3, "until_epoch": 2}, "until_epoch"),
    ],
)
def test_a_setting_outside_its_rule_is_refused(settings, says):
    with pytest.raises(ValueError, match=says):
        Freeze(**settings)
