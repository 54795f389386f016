import pytest
import torch

from joulefront.search.space import FixedTrial
from joulefront.spaces.convnet import Convnet, ConvolutionalNetwork
from joulefront.spaces.recipes import FIXED

PARAMS = {"depth": 2, "width": 8, "kernel": 3, "depthwise": False, "pooling": "max", "norm": "batch", "activation": "relu"}


def network(shape=(3, 32, 32), **changes):
    return ConvolutionalNetwork(shape, 5, **{**PARAMS, **changes})


def size(model):
    return sum(parameter.numel() for parameter in model.parameters())


def test_a_depthwise_network_is_smaller_and_its_first_convolution_is_whole():
    plain, split = network(depth=3), network(depth=3, depthwise=True)
    assert size(split) < size(plain)
    groups = [module.groups for module in split.modules() if isinstance(module, torch.nn.Conv2d)]
    assert groups == [1, 8, 1, 16, 1]


@pytest.mark.parametrize("pooling", ["max", "average", "stride"])
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 8, 8), (3, 5, 9), (1, 28, 28)])
def test_images_of_any_size_pass_and_are_never_shrunk_to_nothing(shape, pooling):
    model = network(shape, depth=4, pooling=pooling)
    for batch in (1, 2):
        assert torch.isfinite(model(torch.randn(batch, *shape))).all()


def test_the_number_of_parameters_is_the_one_counted_by_hand():
    # conv 3*8*9, norm 2*8; conv 8*16*9, norm 2*16; head 32 * 5 + 5: two halvings double the channels once between the blocks
    assert size(network()) == 3 * 8 * 9 + 16 + 8 * 16 * 9 + 32 + 16 * 5 + 5


def test_depthwise_does_not_count_where_there_is_one_block(contract):
    space = Convnet(recipe=FIXED)
    one = {**PARAMS, "depth": 1}
    assert space.key(space.sample(FixedTrial(one))) == space.key(space.sample(FixedTrial({**one, "depthwise": True})))
    assert space.key(space.sample(FixedTrial(PARAMS))) != space.key(space.sample(FixedTrial({**PARAMS, "depthwise": True})))
    a, b = (
        contract.build(space, space.sample(FixedTrial({**one, "depthwise": split})), contract.make_task((1, 8, 8)))
        for split in (True, False)
    )
    assert str(a) == str(b)


def test_a_study_can_narrow_every_field(contract):
    space = Convnet(depths=2, widths=16, kernels=3, depthwise=False, poolings="max", norms="group", activations="relu", recipe=FIXED)
    assert contract.trials(space, 1)[0][1] == {}


@pytest.mark.parametrize(("changes", "said"), [({"norm": "x"}, "norm"), ({"activation": "x"}, "activation")])
def test_an_unknown_part_is_named(changes, said):
    with pytest.raises(ValueError, match=said):
        network(**changes)


def test_a_table_is_refused_with_the_family_that_can_take_it(contract):
    space = Convnet(recipe=FIXED)
    with pytest.raises(ValueError, match=r"needs images.*joulefront\.spaces\.mlp"):
        space.build(space.sample(FixedTrial(PARAMS)), contract.make_task((5,)))


def test_the_first_convolution_starts_as_a_whitening_of_the_images(contract):
    space = Convnet(recipe=FIXED)
    task = contract.make_task((3, 12, 12), n=300)
    model = space_model(space, contract, task)
    assert torch.equal(model.blocks[0][0].weight, space_model(space, contract, task).blocks[0][0].weight)
    maps = torch.nn.functional.conv2d(task.train.inputs, model.blocks[0][0].weight)
    half = 4
    assert torch.allclose(maps[:, :half], -maps[:, half:], atol=1e-5)
    across = torch.cov(maps[:, :half].transpose(0, 1).flatten(1))
    assert torch.allclose(across.diagonal(), torch.ones(half), atol=0.15)
    assert (across - across.diagonal().diag()).abs().max() < 0.1
    plain = space_model(Convnet(whitened=False, recipe=FIXED), contract, task)
    assert torch.equal(plain.blocks[1][0].weight, model.blocks[1][0].weight), "what else is drawn stays as it was"
    assert all(weight.requires_grad for weight in model.parameters())


def test_whitening_needs_no_more_channels_images_or_pixels_than_there_are(contract):
    for shape, width in (((1, 1, 1), 64), ((1, 2, 9), 1), ((3, 8, 8), 64)):
        task = contract.make_task(shape, n=9)
        model = space_model(Convnet(recipe=FIXED), contract, task, width=width)
        assert all(torch.isfinite(weight).all() for weight in model.parameters())


def space_model(space, contract, task, **changes):
    return contract.build(space, space.sample(FixedTrial(PARAMS | changes)), task)
