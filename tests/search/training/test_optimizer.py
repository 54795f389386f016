import numpy as np
import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st

from joulefront.search.training.optimizer import GAMMA, Average, decay, learning_rate_factor, make_optimizer, trainable
from joulefront.search.training.recipe import SCHEDULES, Recipe
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


def test_parts_of_a_network_have_rates_of_their_own():
    class Staged(torch.nn.Sequential):
        def rate_factors(self):
            return [(list(self[0].parameters()), 0.1)]

    model = Staged(torch.nn.Linear(3, 3), torch.nn.Linear(3, 2))
    groups = make_optimizer(model, trainable(model), Recipe(learning_rate=0.5, weight_decay=0.1)).param_groups
    assert [(group["peak"], group["lr"], group["weight_decay"], [tuple(p.shape) for p in group["params"]]) for group in groups] == [
        (0.5, 0.5, 0.1, [(2, 3)]),
        (0.5, 0.5, 0.0, [(2,)]),
        (0.05, 0.05, 0.1, [(3, 3)]),
        (0.05, 0.05, 0.0, [(3,)]),
    ]


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
    with pytest.raises(ValueError, match="must have a parameter with requires_grad, got none"):
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


def test_the_average_is_the_power_function_profile():
    """After t steps the weight of step s goes with s ** gamma (Karras et al. 2024), whatever t is."""
    steps = 2000
    weights = np.zeros(steps)
    for step in range(1, steps + 1):
        weights *= decay(step)
        weights[step - 1] += 1 - decay(step)
    assert weights.sum() == pytest.approx(1)
    position = (np.arange(steps) + 0.5) / steps
    mean = (weights * position).sum()
    deviation = np.sqrt((weights * (position - mean) ** 2).sum())
    assert deviation == pytest.approx(0.10, abs=0.001)  # what gamma = 6.94 stands for
    assert mean == pytest.approx((GAMMA + 1) / (GAMMA + 2), abs=0.001)


def test_the_first_step_is_taken_as_it_is():
    assert decay(1) == 0


def test_update_equals_a_plain_loop_and_leaves_out_what_is_frozen():
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 2).double())
    model[2].bias.requires_grad_(False)
    average = Average(model, [p for p in model.parameters() if p.requires_grad])
    assert "2.bias" not in average.values
    assert "1.running_mean" in average.values
    assert "1.num_batches_tracked" not in average.values
    plain = {name: tensor.clone() for name, tensor in average.values.items()}
    for step in range(1, 6):
        with torch.no_grad():
            for tensor in (*model.parameters(), model[1].running_mean):
                tensor.add_(torch.randn_like(tensor))
        average.update(step)
        for name in plain:
            plain[name] = decay(step) * plain[name] + (1 - decay(step)) * model.state_dict()[name]
    for name, value in plain.items():
        torch.testing.assert_close(average.values[name], value)


def test_swap_twice_changes_nothing():
    model = torch.nn.Linear(2, 2)
    average = Average(model, model.parameters())
    with torch.no_grad():
        model.weight.add_(1)
    raw, averaged = model.weight.clone(), average.values["weight"].clone()
    average.swap()
    assert torch.equal(model.weight, averaged)
    average.swap()
    assert torch.equal(model.weight, raw)
    assert torch.equal(average.values["weight"], averaged)


def test_averages_of_another_model_are_refused():
    average = Average(model := torch.nn.Linear(2, 2), model.parameters())
    with pytest.raises(ValueError, match="another model"):
        average.load({"other": torch.zeros(1)})


def factors(schedule, total, per_epoch=10):
    recipe = Recipe(schedule=schedule)
    return [learning_rate_factor(recipe, step, steps_per_epoch=per_epoch, total_steps=total) for step in range(total)]


@pytest.mark.slow
@given(st.sampled_from(SCHEDULES), st.integers(1, 200), st.integers(1, 50))
def test_every_factor_is_a_share_of_the_peak(schedule, total, per_epoch):
    assert all(0 <= factor <= 1 for factor in factors(schedule, total, per_epoch))


@pytest.mark.slow
@given(st.sampled_from(["anytime", "constant"]), st.integers(1, 100), st.integers(101, 200))
def test_resumable_schedules_do_not_depend_on_the_horizon(schedule, short, long):
    assert factors(schedule, short) == factors(schedule, long)[:short]


def test_anytime_rises_for_three_tenths_of_an_epoch_and_stays():
    assert factors("anytime", 30)[:4] == pytest.approx([1 / 3, 2 / 3, 1, 1])
    assert set(factors("anytime", 30)[3:]) == {1.0}


def test_cosine_falls_to_almost_nothing():
    found = factors("cosine", 100)
    assert found[3] > 0.99
    assert found[-1] < 0.001
    assert found[3:] == sorted(found[3:], reverse=True)


def test_one_cycle_equals_pytorchs():
    import torch

    total = 50
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1.0, total_steps=total, cycle_momentum=False)
    expected = []
    for _ in range(total):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    # PyTorch puts the peak at 0.3 * total - 1, ours is at 0.3 * (total - 1): at most one step apart.
    found = factors("one_cycle", total)
    assert max(abs(a - b) for a, b in zip(found, expected, strict=True)) < 0.08
    assert found[0] == pytest.approx(expected[0])
    assert found[-1] == pytest.approx(expected[-1])


def test_weights_that_two_layers_share_have_one_average():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 3))
    model[1].weight = model[0].weight
    average = Average(model, trainable(model))
    trained = model[0].weight.detach() + 1.0
    with torch.no_grad():
        model[0].weight.copy_(trained)
    average.update(2)
    mean = average.values["0.weight"].clone()
    average.swap()
    assert torch.equal(model[1].weight, mean)
    average.swap()
    assert torch.equal(model[0].weight, trained)
    assert average.values.keys() == model.state_dict().keys()
    average.load({name: torch.zeros_like(value) for name, value in average.values.items()})
    assert not average.values["1.weight"].any()
