import pytest
import torch

from joulefront.search.training.fit import fit
from joulefront.search.training.recipe import Recipe
from joulefront.search.training.task import Task
from joulefront.spaces.early_exit import NEVER, EarlyExit, ExitNetwork
from joulefront.spaces.recipes import FIXED

RECIPE = Recipe(learning_rate=1e-2, batch_size=16)


def network(shape=(1, 8, 8), kind="classification", **changes):
    torch.manual_seed(0)
    return ExitNetwork(shape, 3, kind, **{"depth": 3, "width": 8, **changes})


@pytest.fixture(scope="module")
def trained(contract):
    """A network that tells lying stripes, standing stripes and noise apart, some of them faint."""
    draw = torch.Generator().manual_seed(0)
    labels = torch.arange(300) % 3
    wave = torch.tensor([1.0, -1.0]).repeat(4)
    stripes = torch.stack([wave[:, None].expand(8, 8), wave[None, :].expand(8, 8), torch.zeros(8, 8)])
    images = stripes[labels][:, None] * torch.rand(300, 1, 1, 1, generator=draw) * 2 + torch.randn(300, 1, 8, 8, generator=draw)
    halves = [contract.Arrays(images[part], labels[part]) for part in (slice(0, 200), slice(200, 300))]
    task = Task("stripes", "classification", halves[0], halves[1], None, (1, 8, 8), ("lying", "standing", "noise"))
    return fit(network(), task, RECIPE, epochs=8).model, task


@pytest.mark.parametrize("kind", ["classification", "multilabel", "anomaly"])
def test_it_keeps_the_contract(contract, kind):
    contract.check(EarlyExit(thresholds=(0.5, 1.0)), contract.make_task((1, 8, 8), kind), 3)


def test_in_training_every_exit_classifies_an_equal_share_of_the_batch():
    model, x = network().train(), torch.randn(9, 1, 8, 8)
    state = torch.get_rng_state()
    out = model(x)
    torch.set_rng_state(state)
    chosen = torch.randperm(9) % 3
    outputs = model.all_exits(x)
    assert torch.allclose(out, outputs[chosen, torch.arange(9)], atol=1e-5)
    assert chosen.bincount().tolist() == [3, 3, 3]


@pytest.mark.slow
def test_the_expected_gradient_is_that_of_the_mean_loss_of_all_exits():
    model, x, y = network(norm="group").train().double(), torch.randn(6, 1, 8, 8).double(), torch.arange(6) % 3

    def gradient(loss):
        return torch.cat([part.flatten() for part in torch.autograd.grad(loss, list(model.parameters()))])

    losses = [torch.nn.functional.cross_entropy(outputs, y) for outputs in model.all_exits(x)]
    expected = gradient(torch.stack(losses).mean())
    torch.manual_seed(1)
    draws = torch.stack([gradient(torch.nn.functional.cross_entropy(model(x), y)) for _ in range(400)])
    error = draws.std(dim=0) / 400**0.5
    assert ((draws.mean(dim=0) - expected).abs() <= 5 * error + 1e-9).all()


@pytest.mark.slow
def test_training_makes_every_exit_useful(trained):
    model, task = trained
    accuracies = [(outputs.argmax(1) == task.validation.targets).float().mean() for outputs in model.all_exits(task.validation.inputs)]
    assert min(accuracies) > 0.7
    assert accuracies[-1] >= accuracies[0]


@pytest.mark.slow
def test_leaving_early_gives_the_output_of_the_first_exit_that_is_confident_enough(trained, monkeypatch):
    model, task = trained
    x = task.validation.inputs
    with torch.no_grad():
        outputs = model.all_exits(x)
        for threshold in (0.0, 0.6, 0.9, 0.99, NEVER):
            model.threshold = threshold
            out, taken = model.leave_early(x)
            for row in range(len(x)):
                sure = [index for index in range(2) if outputs[index, row].softmax(0).max() > threshold]
                assert taken[row] == (sure[0] if sure else 2)
                assert torch.allclose(out[row], outputs[taken[row], row], atol=1e-4)
            with monkeypatch.context() as traced:
                traced.setattr(torch.compiler, "is_compiling", lambda: True)
                assert torch.allclose(model(x), out, atol=1e-4), "an exported network gives the same outputs"
    model.threshold = NEVER


@pytest.mark.slow
def test_later_blocks_get_only_the_examples_that_stay(trained):
    model, task = trained
    seen = []
    hooks = [part.register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0]))) for part in model.blocks]
    model.threshold = 0.0
    with torch.no_grad():
        model(task.validation.inputs)
    model.threshold = NEVER
    for hook in hooks:
        hook.remove()
    assert seen == [len(task.validation)]


@pytest.mark.slow
def test_an_exported_network_predicts_like_the_one_that_leaves_early(trained):
    model, task = trained
    x = task.validation.inputs[:7]
    model.threshold = 0.9
    try:
        with torch.no_grad():
            program = torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim("batch", min=2)},))
            assert torch.allclose(program.module()(x), model(x), atol=1e-4)
            more = task.validation.inputs[:20]
            assert torch.allclose(program.module()(more), model(more), atol=1e-4)
    finally:
        model.threshold = NEVER


def test_a_regression_has_no_confidence(contract):
    space = EarlyExit(recipe=FIXED)
    with pytest.raises(ValueError, match="need a confidence"):
        space.build(contract.trials(space, 1)[0][0], contract.make_task((1, 8, 8), "regression"))
