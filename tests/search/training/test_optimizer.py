import pytest
import timm
import torch

from joulefront.search.training.optimizer import make_optimizer, trainable
from joulefront.search.training.recipe import Recipe
from joulefront.search.training.tactics.tactic import head_parameters


def test_matrices_are_decayed_and_vectors_are_not():
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    groups = make_optimizer(model, trainable(model), Recipe(weight_decay=0.1)).param_groups
    assert [(group["weight_decay"], [tuple(p.shape) for p in group["params"]]) for group in groups] == [
        (0.1, [(4, 3)]),
        (0.0, [(4,), (4,), (4,)]),
    ]


def test_every_trainable_parameter_is_in_one_group():
    model = timm.create_model("test_resnet", num_classes=5)
    model.conv1.requires_grad_(False)
    groups = make_optimizer(model, trainable(model), Recipe(head_learning_rate=0.5, learning_rate=0.1, weight_decay=0.1)).param_groups
    held = [id(p) for group in groups for p in group["params"]]
    assert sorted(held) == sorted(id(p) for p in model.parameters() if p.requires_grad)
    head = {id(p) for p in model.get_classifier().parameters()}
    assert all((group["lr"] == 0.5) == (id(p) in head) for group in groups for p in group["params"])


def test_the_head_is_found_where_models_keep_it():
    own = torch.nn.Linear(2, 2)
    own.head_parameters = lambda: [own.bias]
    assert head_parameters(own) == [own.bias]
    usual = torch.nn.Module()
    usual.fc = torch.nn.Linear(2, 2)
    assert head_parameters(usual) == list(usual.fc.parameters())
    with pytest.raises(ValueError, match="give it a method head_parameters"):
        head_parameters(torch.nn.Linear(2, 2))


def test_a_model_that_is_frozen_as_a_whole_is_refused():
    with pytest.raises(ValueError, match="no parameter with requires_grad"):
        trainable(torch.nn.Linear(2, 2).requires_grad_(False))


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_one_step_equals_pytorchs_plain_loop(optimizer):
    torch.manual_seed(0)
    ours, theirs = torch.nn.Linear(5, 3), torch.nn.Linear(5, 3)
    theirs.load_state_dict(ours.state_dict())
    recipe = Recipe(optimizer=optimizer, learning_rate=0.1, weight_decay=0.2, momentum=0.8)
    made = make_optimizer(ours, trainable(ours), recipe)
    groups = [{"params": [theirs.weight], "weight_decay": 0.2}, {"params": [theirs.bias], "weight_decay": 0.0}]
    plain = (
        torch.optim.AdamW(groups, lr=0.1, foreach=False, fused=False)
        if optimizer == "adamw"
        else torch.optim.SGD(groups, lr=0.1, momentum=0.8, nesterov=True, foreach=False, fused=False)
    )
    for _ in range(3):
        for model, steps in ((ours, made), (theirs, plain)):
            model(torch.ones(4, 5)).square().mean().backward()
            steps.step()
            steps.zero_grad()
    torch.testing.assert_close(ours.weight, theirs.weight)
    torch.testing.assert_close(ours.bias, theirs.bias)
