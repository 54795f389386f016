import pytest
import torch
from helpers.backbone import Bands

from joulefront.search.training.features import Transfer


def model(spots, **options) -> Transfer:
    return Transfer(Bands(), "rows", torch.nn.Linear(8, spots.outputs), **options)


def test_a_fresh_head_says_the_same_of_every_image_and_the_backbone_is_frozen(spots):
    inputs, _ = next(spots.train.batches(16))
    net = model(spots).train()
    assert torch.equal(net(inputs), torch.zeros(16, 3))
    assert not net.backbone.training
    assert net.head.training
    assert [parameter.requires_grad for parameter in net.parameters()] == [False, True, True]
    assert net.head_parameters() == list(net.head.parameters())


def test_only_the_last_layer_of_a_head_starts_at_zero(spots):
    head = torch.nn.Sequential(torch.nn.Linear(8, 4), torch.nn.ReLU(), torch.nn.Linear(4, 3))
    Transfer(Bands(), "rows", head)
    assert head[0].weight.abs().sum() > 0
    assert head[2].weight.abs().sum() == 0
    assert head[2].bias.abs().sum() == 0


def test_an_unknown_feature_set_and_no_images_are_refused(spots):
    with pytest.raises(ValueError, match="feature_set must be one of rows, columns, got 'last'"):
        Transfer(Bands(), "last", torch.nn.Linear(8, 3))
    with pytest.raises(ValueError, match="images must be >= 1"):
        model(spots, images=0)
