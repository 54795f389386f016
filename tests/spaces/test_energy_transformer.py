import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from joulefront.spaces.energy_transformer import EnergyBlock, EnergyNetwork, EnergyTransformer, LagrangianNorm

SETTINGS = {"patch": 4, "heads": 2, "head_width": 8, "width": 16, "memories": 2, "steps": 8, "size": 0.3}


def network(**changes):
    return EnergyNetwork((1, 8, 8), 3, **{**SETTINGS, **changes})


def plain_energy(block, g):
    """The equations of the paper, loop by loop."""
    total = g.new_zeros(())
    for head in range(len(block.keys)):
        for c in range(len(g)):
            query = block.queries[head] @ g[c]
            products = [torch.exp(block.beta * (block.keys[head] @ g[b]) @ query) for b in range(len(g)) if b != c]
            total = total - torch.log(torch.stack(products).sum()) / block.beta
    for pattern in block.patterns:
        for token in g:
            total = total - 0.5 * torch.relu(pattern @ token) ** 2
    return total


def test_the_energy_is_that_of_the_equations_and_the_gradient_that_of_autograd():
    torch.manual_seed(0)
    block = EnergyBlock(6, heads=2, head_width=4, memories=5).double()
    g = torch.randn(2, 4, 6, dtype=torch.float64, requires_grad=True)
    energy, slope = block(g)
    assert torch.allclose(energy, torch.stack([plain_energy(block, image) for image in g]))
    (expected,) = torch.autograd.grad(energy.sum(), g)
    assert torch.allclose(slope, expected)


def lagrangian(norm, x):
    """L of each token of the paper, ``(..., D)`` to ``(...)``: the normalisation is its gradient."""
    variance = (x - x.mean(dim=-1, keepdim=True)).square().mean(dim=-1)
    return x.shape[-1] * norm.log_gamma.exp() * (variance + 1e-5).sqrt() + (norm.delta * x).sum(dim=-1)


def test_the_normalisation_is_the_gradient_of_its_lagrangian_and_the_lagrangian_is_convex():
    torch.manual_seed(0)
    norm = LagrangianNorm(6).double()
    torch.nn.init.normal_(norm.delta)
    torch.nn.init.normal_(norm.log_gamma)
    x = torch.randn(3, 6, dtype=torch.float64, requires_grad=True)
    (expected,) = torch.autograd.grad(lagrangian(norm, x).sum(), x)
    assert torch.allclose(norm(x), expected)
    hessian = torch.autograd.functional.hessian(lambda token: lagrangian(norm, token), x[0].detach())
    assert torch.linalg.eigvalsh(hessian).min() > -1e-9


@pytest.mark.slow
@given(seed=st.integers(0, 10_000), scale=st.floats(0.01, 30.0), size=st.floats(0.01, 100.0))
@settings(max_examples=40, deadline=None)
def test_the_energy_never_increases_whatever_the_weights_and_the_step(seed, scale, size):
    torch.manual_seed(seed)
    model = network(size=size)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(scale)
        _, energies = model.descend(model.tokens(scale * torch.randn(4, 1, 8, 8)))
    assert energies.shape == (4, 9)
    assert torch.isfinite(energies).all()
    assert (energies.diff(dim=1) <= 0).all()


def test_small_steps_need_no_guard():
    """The descent is a property of the equations (a convex Lagrangian), not of the check that rejects steps."""
    torch.manual_seed(0)
    model = network(size=0.01).double()
    with torch.no_grad():
        x = model.tokens(torch.randn(4, 1, 8, 8, dtype=torch.float64))
        energy, slope = model.block(model.norm(x))
        for _ in range(100):
            x = x - 0.01 * slope
            new_energy, slope = model.block(model.norm(x))
            assert (new_energy < energy).all()
            energy = new_energy


@pytest.mark.slow
def test_the_energy_falls_after_training_too(contract):
    from joulefront.search.training.fit import fit
    from joulefront.search.training.recipe import Recipe

    torch.manual_seed(0)
    task = contract.make_task((1, 8, 8))
    fitted = fit(network(), task, Recipe(learning_rate=1e-2, batch_size=16), epochs=8)
    assert fitted.quality["accuracy"] > 0.8
    with torch.no_grad():
        _, energies = fitted.model.descend(fitted.model.tokens(task.validation.inputs))
    assert (energies.diff(dim=1) <= 0).all()
    assert (energies[:, -1] < energies[:, 0]).all()


def test_a_one_pixel_image_has_a_token_to_attend_to():
    assert torch.isfinite(EnergyNetwork((1, 1, 1), 3, **SETTINGS)(torch.randn(2, 1, 1, 1))).all()


def test_no_steps_are_refused():
    with pytest.raises(ValueError, match="steps must be a whole number >= 1, got 0"):
        EnergyTransformer(steps=0)
