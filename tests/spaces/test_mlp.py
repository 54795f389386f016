import torch

from joulefront.search.space import FixedTrial
from joulefront.spaces.mlp import Mlp, Perceptron
from joulefront.spaces.recipes import FIXED, RecipeRanges

PARAMS = {"depth": 2, "width": 8, "norm": "none", "activation": "relu", "dropout": 0.0}


def test_without_hidden_layers_it_is_a_linear_model_whatever_the_other_parameters():
    space = Mlp(depths=(0, 2), recipe=FIXED)
    model = Perceptron(4, 3, depth=0, width=64)
    assert sum(parameter.numel() for parameter in model.parameters()) == 4 * 3 + 3
    keys = {space.key(space.sample(FixedTrial({**PARAMS, "depth": 0, "width": width}))) for width in (8, 16)}
    assert len(keys) == 1
    assert len({space.key(space.sample(FixedTrial({**PARAMS, "width": width}))) for width in (8, 16)}) == 2


def test_a_layer_computes_its_formula():
    torch.manual_seed(0)
    model = Perceptron(4, 3, depth=1, width=8).eval()
    x = torch.randn(5, 4)
    first, head = model.hidden[0][0], model.head
    expected = torch.relu(x @ first.weight.T + first.bias) @ head.weight.T + head.bias
    assert torch.allclose(model(x), expected, atol=1e-6)


def test_images_are_flattened_at_the_resolution_of_the_recipe(contract):
    space = Mlp(recipe=RecipeRanges(learning_rate=0.1, weight_decay=0.0, batch_size=8, resolution=4))
    model = space.build(space.sample(FixedTrial(PARAMS)), contract.make_task((2, 8, 8)))
    assert model.hidden[0][0].in_features == 2 * 4 * 4


def test_a_last_batch_of_one_example_can_be_normalised():
    torch.manual_seed(0)
    model = Perceptron(4, 3, depth=2, width=8, norm="batch").train()
    model(torch.randn(16, 4))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model(torch.randn(1, 4)).sum().backward()
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items()), "one example has no variance to learn"


def test_ten_thousand_columns_are_no_problem(contract):
    contract.check(Mlp(widths=16, depths=1), contract.make_task((10_000,), n=12), 1)
