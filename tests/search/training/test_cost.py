import torch
from sklearn.linear_model import LogisticRegression

from joulefront.search.training.cost import Cost, count
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
