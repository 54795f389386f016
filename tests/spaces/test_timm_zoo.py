import subprocess
import sys
import warnings
from dataclasses import replace

import pytest
import torch

from joulefront.search.hints import Hints
from joulefront.search.space import FixedTrial, RandomTrial
from joulefront.search.study import Study
from joulefront.spaces.mlp import Mlp
from joulefront.spaces.recipes import FIXED
from joulefront.spaces.timm_zoo import ANY_SIZE, MODELS, Prepared, TimmZoo, create, names_of, stages
from joulefront.spaces.union import Repeated, Union


def built(contract, model="test_resnet", shape=(3, 32, 32), **fields):
    space = TimmZoo((model,), recipe=FIXED, **fields)
    return contract.build(space, space.sample(FixedTrial({})), contract.make_task(shape))


def test_patterns_are_expanded_and_each_model_comes_once():
    names = names_of(("mobilenetv3_small_*", "mobilenetv3_small_050", "resnet18.a1_in1k"))
    assert names[:2] == ("mobilenetv3_small_050", "mobilenetv3_small_075")
    assert names[-1] == "resnet18.a1_in1k"
    assert len(set(names)) == len(names)


def test_similar_names_are_suggested_for_an_unknown_model():
    with pytest.raises(ValueError, match=r"no model 'resnet19'.*resnet1"):
        names_of(("resnet19",))


def test_grey_images_and_the_number_of_classes_are_taken_over(contract):
    assert built(contract, shape=(1, 32, 32))(torch.randn(2, 1, 32, 32)).shape == (2, 3)


def test_a_transformer_gets_the_size_of_the_images(contract):
    assert built(contract, "test_vit", shape=(3, 48, 48)).eval()(torch.randn(2, 3, 48, 48)).shape == (2, 3)


def test_images_that_the_strides_shrink_to_nothing_are_refused_with_the_remedy(contract):
    with pytest.raises(ValueError, match=r"test_convnext cannot take images of 8 x 8 pixels.*RecipeRanges\(resolution=N\)"):
        built(contract, "test_convnext", shape=(3, 8, 8))
    with pytest.raises(ValueError, match="test_vit cannot take images of 8 x 8"):
        built(contract, "test_vit", shape=(3, 8, 8))


@pytest.mark.slow
@pytest.mark.filterwarnings("error")
def test_a_network_that_cannot_take_the_images_is_left_out_before_any_trial_and_what_includes_it_is_said(contract):
    task = contract.make_task((3, 40, 48))
    space = Repeated(Union(Mlp(), TimmZoo(("test_vit", "test_resnet", "dla46_c"))))
    with pytest.warns(UserWarning, match=r"timm: test_vit, dla46_c cannot take the images \(40 x 48 pixels: .*patch size") as said:
        fitted = Hints(space).fitted_to(task)
    assert fitted == Repeated(Union(Mlp(), TimmZoo(("test_resnet",), of_several=True)))
    drawn = RandomTrial(0)
    left = fitted.space.spaces[1].sample(drawn)
    assert space.space.spaces[1].sample(FixedTrial(drawn.params)) == left, "who reads the run has the whole family"
    assert "give --set resolution=64 (Python: RecipeRanges(resolution=64))" in str(said[0].message)
    study = Study("photos", task, space, trials=1)
    assert study.fitted_to(task, whole=True).space == space, "for runs that were begun with all models"
    for shape, resolution in (((3, 64, 64), None), ((1, 40, 48), 64), ((3,), None)):
        other = replace(space, space=TimmZoo(("test_vit", "dla46_c"), recipe=replace(FIXED, resolution=resolution)))
        assert Hints(other).fitted_to(contract.make_task(shape)) == other
    with pytest.raises(ValueError, match=r"test_vit cannot take the images \(200 x 150 .*; give --set resolution=160 .* or other"):
        TimmZoo(("test_vit",)).fitted_to(contract.make_task((3, 200, 150)))
    with pytest.raises(ValueError, match=r"levit_128s cannot take the images .*several heads.*; name other models"):
        TimmZoo(("levit_128s",)).fitted_to(contract.make_task((3, 64, 64)))


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(1, 17, 17), (3, 50, 50), (3, 65, 131), (1, 200, 150)])
def test_what_is_left_out_is_what_fails_and_nothing_else(contract, shape):
    task = contract.make_task(shape, n=6)
    names = ("test_vit", "dla46_c", *ANY_SIZE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kept = TimmZoo(names, recipe=FIXED).fitted_to(task).models

    def works(name: str) -> bool:
        try:
            space = TimmZoo((name,), recipe=FIXED)
            with torch.no_grad():
                contract.build(space, space.sample(FixedTrial({})), task).eval()(torch.zeros(1, *shape))
        except (ValueError, RuntimeError, AssertionError):
            return False
        return True

    assert kept == tuple(name for name in names if works(name))


def test_stochastic_depth_is_set_where_the_model_knows_it(contract):
    rates = [module.drop_prob for module in built(contract, drop_paths=0.3).modules() if type(module).__name__ == "DropPath"]
    assert max(rates) == pytest.approx(0.3)
    with pytest.raises(ValueError, match="vgg11 has no stochastic depth"):
        create("vgg11", (3, 32, 32), 3, drop_path=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_weights_come_from_a_local_file_and_the_head_is_new(contract, tmp_path, suffix):
    import timm
    from safetensors.torch import save_file

    torch.manual_seed(7)
    source = timm.create_model("test_resnet", num_classes=1000)
    path = tmp_path / f"weights{suffix}"
    save_file(source.state_dict(), path) if suffix == ".safetensors" else torch.save(source.state_dict(), path)
    model = built(contract, weights=str(path)).network
    assert torch.equal(model.layer1[0].conv1.weight, source.layer1[0].conv1.weight)
    assert model.fc.out_features == 3
    assert not model.fc.weight.any(), "the new head starts at zero"
    grey = built(contract, weights=str(path), shape=(1, 32, 32)).network
    assert torch.allclose(grey.conv1[0].weight, source.conv1[0].weight.sum(dim=1, keepdim=True))


def test_a_file_that_is_missing_or_of_another_model_is_named(contract, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no such file; give a \.safetensors"):
        built(contract, weights=str(tmp_path / "none.pth"))
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"do not fit test_resnet .*conv1"):
        built(contract, weights=str(tmp_path / "other.pth"))
    torch.save({"conv1.0.weight": torch.zeros(7)}, tmp_path / "shape.pth")
    with pytest.raises(ValueError, match="do not fit test_resnet"):
        built(contract, weights=str(tmp_path / "shape.pth"))


def test_the_hub_off_line_is_one_clear_line(contract, monkeypatch, tmp_path):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ConnectionError, match=r"cannot fetch test_resnet from the Hugging Face hub.*pip install") as error:
        built(contract, weights="hub")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("freeze", "trained"),
    [("none", 6), (0, 6), (1, 5), (3, 3), ("backbone", 1), (99, 1)],
)
def test_freezing_goes_from_the_stem_up_to_a_stage(contract, freeze, trained):
    model = built(contract, freeze=freeze)
    plain = stages(built(contract))
    left = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert [bool(left & set(group)) for group in plain] == [False] * (6 - trained) + [True] * trained


def test_a_frozen_backbone_does_not_move_and_costs_no_backward_pass(contract):
    torch.manual_seed(0)
    model = built(contract, freeze="backbone").train()
    x = torch.randn(8, 3, 32, 32)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    features = model.forward_features(x)
    assert not features.requires_grad
    optimizer = torch.optim.SGD([parameter for parameter in model.parameters() if parameter.requires_grad], lr=0.1)
    (model(x) - 1).square().sum().backward()  # at zero, where the head starts, the plain square is at its minimum
    optimizer.step()
    moved = {name for name, value in model.state_dict().items() if not torch.equal(before[name], value)}
    assert moved == {"fc.weight", "fc.bias"}
    assert torch.equal(model.forward_features(x), features), "no running statistics move either"


def test_a_frozen_model_loads_the_weights_of_another_frozen_alike(contract):
    model, again = built(contract, freeze=3), built(contract, freeze=3)
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.is_floating_point():
                tensor.uniform_(0.1, 1.0)
    result = again.load_state_dict(model.state_dict())
    assert (result.missing_keys, result.unexpected_keys) == ([], [])
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    assert torch.equal(again.eval()(x), model.eval()(x))
    frozen = [name for name, parameter in again.named_parameters() if not parameter.requires_grad]
    assert frozen
    assert frozen == [name for name, parameter in model.named_parameters() if not parameter.requires_grad]


@pytest.mark.parametrize("freeze", ["half", -1, True])
def test_a_wrong_freezing_depth_is_named(contract, freeze):
    with pytest.raises(ValueError, match="freeze must be"):
        built(contract, freeze=freeze)


@pytest.mark.slow
def test_depth_of_freezing_and_weights_can_be_searched(contract):
    space = TimmZoo(("test_resnet", "test_vit"), freeze=("none", "backbone", 2), drop_paths=(0.0, 0.2))
    contract.check(space, contract.make_task((3, 32, 32)), 4)


def test_a_pretrained_model_gets_images_as_it_knows_them_and_one_from_scratch_as_the_data_has_them(contract, tmp_path):
    import timm

    path = tmp_path / "test_resnet.pth"
    torch.manual_seed(7)
    source = timm.create_model("test_resnet", num_classes=3).eval()
    torch.save(source.state_dict(), path)
    pixels = torch.rand(2, 3, 20, 20, generator=torch.Generator().manual_seed(0))
    own_mean, own_deviation = [0.2, 0.5, 0.7], [0.1, 0.2, 0.3]
    task = replace(contract.make_task((3, 20, 20)), preprocessing={"mean": own_mean, "std": own_deviation})
    as_handed_out = (pixels - torch.tensor(own_mean)[:, None, None]) / torch.tensor(own_deviation)[:, None, None]
    space = TimmZoo(("test_resnet",), weights=str(path), recipe=FIXED)
    model = contract.build(space, space.sample(FixedTrial({})), task).eval()
    config = source.pretrained_cfg
    assert model.prepare.settings["size"] == [64, 64], "more than twice the side brings nothing"
    large = torch.nn.functional.interpolate(pixels, size=(64, 64), mode=config["interpolation"], antialias=True)
    wanted = (large - torch.tensor(config["mean"])[:, None, None]) / torch.tensor(config["std"])[:, None, None]
    assert torch.allclose(model.prepare(as_handed_out), wanted, atol=1e-4)
    assert not isinstance(built(contract), Prepared)


def test_the_resolution_of_the_recipe_wins_over_the_networks_own(contract, tmp_path):
    import timm

    path = tmp_path / "test_resnet.pth"
    torch.manual_seed(7)
    torch.save(timm.create_model("test_resnet").state_dict(), path)
    space = TimmZoo(("test_resnet",), weights=str(path), recipe=replace(FIXED, resolution=40))
    model = contract.build(space, space.sample(FixedTrial({})), contract.make_task((3, 32, 32)))
    assert model.prepare(torch.zeros(1, 3, 40, 40)).shape == (1, 3, 40, 40)


def test_an_export_without_the_weights_file_builds_the_same_model(contract, tmp_path):
    import timm

    from joulefront.search.export.model import build

    path = tmp_path / "test_resnet.pth"
    torch.manual_seed(7)
    torch.save(timm.create_model("test_resnet").state_dict(), path)
    space = TimmZoo(("test_resnet",), weights=str(path), recipe=FIXED)
    candidate, task = space.sample(FixedTrial({})), contract.make_task((3, 32, 32))
    trained = contract.build(space, candidate, task)
    path.unlink()
    again = build(space, candidate, task)
    again.load_state_dict(trained.state_dict())
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    assert torch.equal(again.eval()(x), trained.eval()(x))


def test_a_trial_that_an_earlier_version_started_from_weights_is_rebuilt_for_its_trained_ones_and_not_trained_again(contract, tmp_path):
    import timm

    from joulefront.search.export.model import build

    path = tmp_path / "test_resnet.pth"
    torch.manual_seed(7)
    torch.save(timm.create_model("test_resnet").state_dict(), path)
    stored, task = FixedTrial({"family": "timm", "timm.weights": str(path)}), contract.make_task((3, 32, 32))
    before = Union(Mlp(recipe=FIXED), TimmZoo(("test_resnet",), weights=("none", str(path)), recipe=FIXED))
    trained = contract.build(before, before.sample(stored), task)
    path.unlink()
    now = Union(Mlp(recipe=FIXED), TimmZoo(("test_resnet",), recipe=FIXED))
    with pytest.raises(FileNotFoundError, match="can be exported, not trained again; search anew with --pretrained FILE"):
        now.build(now.sample(stored), task)
    again = build(now, now.sample(stored), task)
    again.load_state_dict(trained.state_dict())
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    assert torch.equal(again.eval()(x), trained.eval()(x))
    scratch = now.sample(FixedTrial({"family": "timm", "timm.weights": "none"}))
    assert scratch == now.sample(FixedTrial({"family": "timm"}))


#: In a process of its own, because a library is loaded once: what a candidate is drawn, built and counted without.
LOADED = """
import sys
import numpy as np
from joulefront.search.space import RandomTrial
from joulefront.search.training.arrays import arrays
from joulefront.search.training.cost import count
from joulefront.spaces.timm_zoo import TimmZoo

space = TimmZoo(models=("test_resnet", "test_vit"))
candidate = space.sample(RandomTrial(0))
assert "timm" not in sys.modules, "names are known"
pixels = np.zeros((20, 3, 64, 64), dtype="float32")
task = arrays(pixels, np.arange(20) % 2, name="pictures")
assert count(space.build(candidate, task), task, candidate.recipe).flops > 0
assert not {"torch._dynamo", "sympy"} & sys.modules.keys(), "nothing is compiled"
assert "huggingface_hub.hf_api" not in sys.modules, "nothing is fetched"
import torch
assert torch.cuda.is_available() or "triton" not in sys.modules, "nothing runs on a GPU"

import huggingface_hub, timm, timm.models._hub as hub
kept, asked = hub.model_info, []
assert huggingface_hub.model_info is not kept, "the hub's own names are its own again"
huggingface_hub.model_info = lambda *given, **named: asked.append((given, named))
kept("timm/none", timeout=1)
assert asked == [(("timm/none",), {"timeout": 1})], "what timm keeps finds the client's functions"
from torchvision.ops import roi_align
found = sys.modules["torchvision.ops.roi_align"].is_compile_supported("cpu")
import torch._dynamo.utils
assert found == torch._dynamo.utils.is_compile_supported("cpu")
"""


@pytest.mark.slow
def test_timm_is_loaded_for_what_is_built_alone_and_the_compiler_for_what_is_compiled() -> None:
    done = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_names_that_are_taken_without_looking_are_timms() -> None:
    import timm

    assert [name for name in MODELS if not timm.is_model(name)] == []
    assert names_of(("resnet10t", "test_vit", "resnet10t")) == ("resnet10t", "test_vit")
