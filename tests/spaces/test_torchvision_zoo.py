import urllib.error

import pytest
import torch

from joulefront.search.space import FixedTrial
from joulefront.spaces.recipes import FIXED
from joulefront.spaces.torchvision_zoo import PAPER, PAPER_HEAD, TorchvisionZoo, backbone_stages, names_of


def built(contract, model="resnet18", shape=(3, 32, 32), classes=3, **fields):
    space = TorchvisionZoo((model,), recipe=FIXED, **fields)
    return contract.build(space, space.sample(FixedTrial({})), contract.make_task(shape, classes=classes))


def size(model, trained=False):
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad or not trained)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["resnet18", "mobilenet_v3_small", "shufflenet_v2_x0_5", "squeezenet1_1", "mnasnet0_5"])
@pytest.mark.parametrize("head", ["own", "16-8"])
def test_a_network_keeps_the_contract(contract, model, head):
    if head != "own" and model in ("shufflenet_v2_x0_5", "mnasnet0_5"):
        with pytest.raises(ValueError, match=r"feature maps of .* are unknown"):
            built(contract, model, heads=head)
        return
    shape = (3, 48, 48) if model == "squeezenet1_1" else (3, 32, 32)
    contract.check(TorchvisionZoo((model,), heads=head), contract.make_task(shape), 1)


@pytest.mark.parametrize(
    ("model", "side", "total", "trained"),
    [
        ("vgg16", 32, 33_638_218, 18_923_530),
        ("vgg19", 32, 38_947_914, 18_923_530),
        ("resnet50", 32, None, 25_214_986),
        ("resnet50", 48, None, 50_380_810),
    ],
)
def test_the_networks_of_the_paper_have_its_numbers_of_parameters(contract, model, side, total, trained):
    """Source: replication package of arXiv 2302.00967; Keras counts the statistics of ResNet50's norms among its parameters, we do not."""
    with torch.device("meta"):
        network = built(contract, model, (3, side, side), classes=10, heads=PAPER_HEAD, freeze="backbone")
    assert size(network, trained=True) == trained
    assert total is None or size(network) == total


def test_the_zoo_of_the_paper_can_be_written_down():
    space = TorchvisionZoo(PAPER, heads=PAPER_HEAD, freeze="backbone", recipe=FIXED)
    assert space.sample(FixedTrial({"model": "vgg19"})).architecture["head"] == "4096-4096"


@pytest.mark.slow
def test_a_transformer_gets_the_size_of_the_images(contract):
    with torch.device("meta"):
        assert built(contract, "vit_b_16", (3, 32, 32))(torch.zeros(2, 3, 32, 32)).shape == (2, 3)
        assert built(contract, "vit_b_16", (3, 64, 64), heads="8")(torch.zeros(2, 3, 64, 64)).shape == (2, 3)
        with pytest.raises(ValueError, match="vit_b_16 cannot take images of 20 x 20"):
            built(contract, "vit_b_16", (3, 20, 20))


@pytest.mark.slow
def test_the_stages_are_the_blocks_of_vgg_and_the_layers_of_resnet(contract):
    with torch.device("meta"):
        vgg, resnet, transformer = (built(contract, name) for name in ("vgg16", "resnet50", "vit_b_32"))
        headed = built(contract, "resnet50", heads="8")
    assert [len(stage) // 2 for stage in backbone_stages(vgg)] == [2, 2, 3, 3, 3]
    assert [stage[0].split(".")[0] for stage in backbone_stages(resnet)] == ["conv1", "layer1", "layer2", "layer3", "layer4"]
    assert [stage[0].split(".")[1] for stage in backbone_stages(headed)] == ["conv1", "layer1", "layer2", "layer3", "layer4"]
    assert any(name.startswith("encoder") for stage in backbone_stages(transformer) for name in stage)


@pytest.mark.slow
def test_freezing_stages_leaves_the_rest_and_a_frozen_backbone_does_not_move(contract):
    left = {name.split(".")[0] for name, p in built(contract, freeze=3).named_parameters() if p.requires_grad}
    assert left == {"layer3", "layer4", "fc"}
    model = built(contract, freeze="backbone", heads="16-8").train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model(torch.randn(4, 3, 32, 32)).square().sum().backward()
    torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1).step()
    moved = {name for name, value in model.state_dict().items() if not torch.equal(before[name], value)}
    assert moved
    assert all(name.startswith("head.") for name in moved)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 32, 32)])
def test_weights_of_a_local_file_are_loaded_but_for_the_head(contract, tmp_path, shape):
    from torchvision.models import resnet18

    torch.manual_seed(5)
    source = resnet18(num_classes=1000)
    torch.save(source.state_dict(), tmp_path / "weights.pth")
    model = built(contract, shape=shape, weights=str(tmp_path / "weights.pth"))
    assert torch.equal(model.layer4[1].conv2.weight, source.layer4[1].conv2.weight)
    expected = source.conv1.weight if shape[0] == 3 else source.conv1.weight.sum(dim=1, keepdim=True)
    assert torch.allclose(model.conv1.weight, expected)
    assert model.fc.out_features == 3


@pytest.mark.slow
def test_a_file_that_is_missing_or_of_another_network_is_named(contract, tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        built(contract, weights=str(tmp_path / "none.pth"))
    torch.save({"conv1.weight": torch.zeros(64, 3, 7, 7)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"do not fit resnet18: wrong or missing bn1\.weight.* more"):
        built(contract, weights=str(tmp_path / "other.pth"))
    (tmp_path / "damaged.pth").write_bytes(b"no weights")
    with pytest.raises(ValueError, match="must be a file of weights, got one that cannot be read"):
        built(contract, weights=str(tmp_path / "damaged.pth"))


@pytest.mark.slow
def test_the_hub_off_line_is_one_clear_line(contract, monkeypatch, tmp_path):
    def refuse(*args, **kwargs):
        raise urllib.error.URLError("no network")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.urlopen", refuse)
    with pytest.raises(ConnectionError, match=r"cannot fetch resnet18 .*no network.*use weights='none'"):
        built(contract, weights="hub")


def test_patterns_are_expanded_and_similar_names_suggested():
    assert set(PAPER) <= set(names_of(("vgg1?", "resnet50")))
    with pytest.raises(ValueError, match=r"no model 'resnet19'.*resnet1"):
        names_of(("resnet19",))


@pytest.mark.parametrize("head", ["big", "16-", "0", "-3"])
def test_a_head_that_cannot_be_read_is_named(contract, head):
    with pytest.raises(ValueError, match="heads must be one of own, or units such as 256-64, got"):
        built(contract, heads=head)


def test_images_that_are_too_small_are_refused(contract):
    with pytest.raises(ValueError, match=r"squeezenet1_1 cannot take images of 8 x 8 pixels.*RecipeRanges\(resolution=N\)"):
        built(contract, "squeezenet1_1", (3, 8, 8))
