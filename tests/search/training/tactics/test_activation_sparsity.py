"""The smooth l0 penalty and the modelled accelerator."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from joulefront.search.training.tactics.activation_sparsity import (
    MEMORY_ACCESS_JOULES,
    MULTIPLICATION_JOULES,
    ActivationSparsity,
    modelled_energy,
    nonzero_share,
    smooth_l0,
)
from joulefront.search.training.tactics.tactic import attached, total_penalty

ACTIVATIONS = st.lists(st.one_of(st.just(0.0), st.floats(0.015625, 10.0, width=32)), min_size=1, max_size=30)


def small_net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(8 * 16, 12), nn.ReLU(), nn.Linear(12, 3)
    )


@pytest.mark.slow
@given(ACTIVATIONS)
@settings(max_examples=60, deadline=None)
def test_smooth_l0_goes_to_the_exact_share_of_non_zeros_as_sigma_goes_to_zero(values):
    exact = sum(value != 0 for value in values) / len(values)
    errors = [exact - float(smooth_l0(torch.tensor(values), sigma)) for sigma in (1e-2, 1e-4, 1e-8)]
    assert errors[0] >= errors[1] >= errors[2] - 1e-6
    assert errors[2] == pytest.approx(0.0, abs=2e-4)


@pytest.mark.slow
@given(ACTIVATIONS, st.sampled_from([1e-4, 1e-2, 1.0]))
@settings(max_examples=40, deadline=None)
def test_smooth_l0_is_the_formula_written_out_and_its_gradient_is_finite(values, sigma):
    tensor = torch.tensor(values, requires_grad=True)
    result = smooth_l0(tensor, sigma)
    written_out = sum(v * v / (v * v + sigma) for v in values) / len(values)
    assert float(result.detach()) == pytest.approx(written_out, rel=1e-4)
    result.backward()
    assert torch.isfinite(tensor.grad).all()


def test_small_half_precision_activations_do_not_vanish():
    activations = torch.full((4,), 1e-4, dtype=torch.float16)  # its square is below the range of float16
    assert float(smooth_l0(activations, 1e-8)) == pytest.approx(0.5, abs=1e-3)


def test_the_penalty_is_weight_times_the_mean_over_the_rectifiers_of_the_last_batch():
    model, x = small_net(), torch.randn(5, 1, 4, 4)
    first = torch.relu(model[0](x))
    expected = (smooth_l0(first, 0.01) + smooth_l0(torch.relu(model[3](first.flatten(1))), 0.01)) / 2
    tactic = ActivationSparsity(weight=0.3, sigma=0.01)
    with attached([tactic], model):
        tactic.start_epoch(1, 1)
        model(x)
        torch.testing.assert_close(tactic.penalty(), 0.3 * expected)
        assert tactic.penalty() is None  # it belonged to that batch
        model.eval()(x)
        assert tactic.penalty() is None
        with torch.no_grad():
            model.train()(x)
        assert tactic.penalty() is None


def test_a_rectifier_that_is_used_twice_counts_twice():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.act, self.lin = nn.ReLU(), nn.Linear(4, 4)

        def forward(self, x):
            return self.act(self.lin(self.act(x)))

    model, x = Twice(), torch.randn(6, 4)
    tactic = ActivationSparsity(weight=1.0)
    with attached([tactic], model) as columns:
        first = torch.relu(x)
        expected = (smooth_l0(first, 1e-4) + smooth_l0(torch.relu(model.lin(first)), 1e-4)) / 2
        model(x)
        torch.testing.assert_close(tactic.penalty(), expected)
    assert columns["activation_sparsity_layers"] == 1


def test_the_columns_are_of_full_size_images_also_when_early_epochs_were_smaller():
    model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    small, full, later = torch.randn(2, 1, 4, 4), torch.randn(2, 1, 8, 8), torch.randn(2, 1, 8, 8)
    with attached([ActivationSparsity()], model) as columns:
        for batch in (small, full, later):
            model(batch)
    assert columns["modelled_asic_dense_joules_per_inference"] == pytest.approx(modelled_energy(model, full).dense_joules)
    assert columns["activation_nonzero_share"] == pytest.approx(nonzero_share(model, full))


def test_weight_zero_adds_nothing_and_still_fills_the_columns():
    model, x = small_net(), torch.randn(5, 1, 4, 4)
    tactic = ActivationSparsity(weight=0.0)
    with attached([tactic], model) as columns:
        model(x)
        assert total_penalty([tactic]) is None
    assert columns["activation_nonzero_share"] == pytest.approx(nonzero_share(model, x))
    assert columns["modelled_asic_energy_ratio"] == pytest.approx(modelled_energy(model, x).ratio)


def test_modelled_columns_are_named_so_and_none_of_them_claims_to_be_measured():
    model = small_net()
    tactic = ActivationSparsity()
    with attached([tactic], model) as columns:
        model(torch.randn(5, 1, 4, 4))
    joules = [name for name in columns if "joules" in name or "energy" in name]
    assert joules
    assert all(name.startswith("modelled_") for name in joules)


def test_a_model_without_rectifiers_is_trained_as_usual_and_reports_none():
    model = nn.Sequential(nn.Linear(3, 4), nn.GELU(), nn.Linear(4, 2))
    tactic = ActivationSparsity()
    with attached([tactic], model) as columns:
        model(torch.randn(2, 3))
        assert tactic.penalty() is None
    assert columns["activation_sparsity_layers"] == 0
    assert "activation_nonzero_share" not in columns


def test_state_dict_modes_and_hooks_are_as_before_and_a_copy_collects_nothing():
    model, x = small_net(), torch.randn(5, 1, 4, 4)
    keys = list(model.state_dict())
    tactic = ActivationSparsity()
    with attached([tactic], model):
        model(x)
        twin = copy.deepcopy(model)
        assert list(model.state_dict()) == keys
        tactic.penalty()
        twin.eval()(x)
        assert tactic.penalty() is None
    assert model.training
    assert all(not module._forward_hooks and not module._forward_pre_hooks for module in model.modules())


@pytest.mark.slow
def test_fewer_activations_are_non_zero_the_larger_the_weight():
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(128, 1, 4, 4, generator=generator)
    targets = (x[:, 0, :2].sum((1, 2)) > 0).long() + (x[:, 0, 2:].sum((1, 2)) > 0).long()
    shares, accuracies = [], []
    for weight in (0.0, 0.1, 1.0):
        model = small_net()
        optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
        tactic = ActivationSparsity(weight=weight, sigma=1e-2)
        with attached([tactic], model) as columns:
            for _ in range(150):
                optimizer.zero_grad()
                loss = nn.functional.cross_entropy(model(x), targets)
                penalty = tactic.penalty()
                (loss if penalty is None else loss + penalty).backward()
                optimizer.step()
        shares.append(columns["activation_nonzero_share"])
        accuracies.append(float((model(x).argmax(1) == targets).float().mean()))
    assert shares[0] > shares[1] + 0.02 > shares[2] + 0.04
    assert accuracies[1] >= accuracies[0] - 0.05


def test_modelled_energy_is_the_formula_counted_number_by_number():
    torch.manual_seed(1)
    model = nn.Sequential(nn.Conv2d(2, 4, 3, groups=2, bias=True), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3, bias=False))
    with torch.no_grad():
        model[0].weight[0] = 0.0
        model[0].bias[0] = -1.0
        model[3].weight[:, 5] = 0.0
    x = torch.randn(2, 2, 4, 4).relu()
    dense = sparse = 0.0
    now = x
    for layer in model:
        before, now = now, layer(now)
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            numbers = [[float(v) for p in layer.parameters() for v in p.detach().flatten()]]
            numbers += [before.detach().flatten().tolist(), now.detach().flatten().tolist()]
            share = [sum(v != 0 for v in values) / len(values) for values in numbers]
            per_example = [len(numbers[0]), len(numbers[1]) / 2, len(numbers[2]) / 2]
            multiplications = 4 * 2 * 2 * 1 * 9 if isinstance(layer, nn.Conv2d) else 3 * 16
            dense += MEMORY_ACCESS_JOULES * sum(per_example) + MULTIPLICATION_JOULES * multiplications
            sparse += MEMORY_ACCESS_JOULES * sum(s * n for s, n in zip(share, per_example, strict=True))
            sparse += MULTIPLICATION_JOULES * multiplications * share[0] * share[1]
    energy = modelled_energy(model, x)
    assert energy.dense_joules == pytest.approx(dense, rel=1e-9)
    assert energy.sparse_joules == pytest.approx(sparse, rel=1e-9)
    assert energy.layers == 2


def test_a_layer_full_of_non_zeros_has_nothing_to_skip_and_no_layer_gives_no_number():
    layer = nn.Linear(3, 2)
    assert modelled_energy(layer, torch.ones(4, 3)).ratio == pytest.approx(1.0)
    assert modelled_energy(nn.ReLU(), torch.ones(4, 3)) is None


@pytest.mark.parametrize(("setting", "says"), [({"weight": -0.1}, "weight must be >= 0, got -0.1"), ({"sigma": 0.0}, "sigma must be > 0")])
def test_a_setting_outside_its_rule_is_refused(setting, says):
    with pytest.raises(ValueError, match=says):
        ActivationSparsity(**setting)
