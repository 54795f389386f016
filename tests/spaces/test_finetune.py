from dataclasses import replace

import pytest
import torch

from joulefront.search.space import Candidate, FixedTrial, RandomTrial
from joulefront.search.training.checkpoint import load_checkpoint, load_weights, save_weights
from joulefront.search.training.evaluate import evaluate
from joulefront.search.training.feature_cache import FeatureCache
from joulefront.search.training.fit import fit
from joulefront.search.training.recipe import Recipe
from joulefront.spaces.finetune import FineTuning, cut, kind_of, last_stages
from joulefront.spaces.recipes import FIXED
from joulefront.spaces.transfer import TransferFamily, sides_for
from joulefront.spaces.weights import Weights, network, of_file

NETWORKS = ("test_efficientnet", "test_resnet", "test_convnext", "test_vit")
RECIPE = Recipe(learning_rate=1e-3, batch_size=16, threads=1)


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> dict[str, Weights]:
    """The smallest networks of timm, with random weights; the batch norms have seen something."""
    import timm

    folder, kept = tmp_path_factory.mktemp("weights"), {}
    for name in NETWORKS:
        torch.manual_seed(0)
        made = timm.create_model(name).train()
        if kind_of(name)[1]:
            made(torch.randn(8, 3, 64, 64))
        torch.save(made.state_dict(), folder / f"{name}.pth")
        kept[name] = of_file(folder / f"{name}.pth")
    return kept


def candidate(weights: Weights, tuned: str, **others) -> Candidate:
    parts = {"family": "finetune", "weights": weights.identity, "side": 64, "images_halved": 0, "features": "grid", "head": "linear"}
    rates = {"backbone_rate": 0.1, "rate_decay": 0.5, "norms": "frozen"}
    return Candidate(parts | rates | {"tuned": tuned} | others, RECIPE)


def built(contract, weights, tuned, task=None, **others):
    torch.manual_seed(0)
    return FineTuning((weights,), recipe=FIXED).build(candidate(weights, tuned, **others), task or contract.make_task((3, 32, 32)))


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_it_keeps_the_contract_of_spaces(contract, found, name):
    family, task = FineTuning((found[name],), sides=sides_for(16), recipe=FIXED), contract.make_task((3, 16, 16))
    contract.check(family, task, 3)
    contract.check_traced(family, contract.trials(family, 1, seed=1)[0][0], task)


def test_what_is_drawn_fits_the_network_and_nothing_is_drawn_without_effect(found):
    for name, norms in (("test_efficientnet", True), ("test_convnext", False), ("test_vit", False)):
        trial = RandomTrial(1)
        FineTuning((found[name],), recipe=FIXED).sample(trial)
        assert ("adapters" in trial.params) == (name == "test_vit")
        assert ("norms" in trial.params) == norms
    one = FineTuning((found["test_resnet"],), layers="1", recipe=FIXED)
    one.sample(trial := RandomTrial(0))
    assert "rate_decay" not in trial.params


@pytest.mark.slow
@pytest.mark.parametrize("name", ["test_efficientnet", "test_resnet", "test_convnext"])
@pytest.mark.parametrize("trained", [1, 2])
def test_the_last_stages_go_on_from_the_maps_at_the_cut(contract, found, name, trained):
    model = built(contract, found[name], str(trained)).eval()
    images = model.backbone.prepare(torch.randn(2, 3, 32, 32))
    whole, maps = network(found[name]), model.backbone.embed(images, model.feature_set)
    assert maps.shape == (2, torch.Size(model.head.body.maps).numel())
    with torch.no_grad():
        wanted, got = whole.forward_features(images), model.head.body.network.forward_features(maps.unflatten(1, model.head.body.maps))
        assert torch.allclose(wanted, got, atol=1e-4)
        unfolded = last_stages(network(found[name], fold=False), trained).eval()
        assert torch.allclose(wanted, unfolded.forward_features(maps.unflatten(1, model.head.body.maps)), atol=1e-3)


def test_a_cut_that_there_is_not_is_refused(found):
    with pytest.raises(ValueError, match=r"finetune\.layers of ResNet must be stages between 1 and 3, got 4; choose from these"):
        cut(network(found["test_resnet"]), 4)
    with pytest.raises(ValueError, match="must be 'all': it has no stages, got 1"):
        cut(network(found["test_vit"]), 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "tuned"), [("test_efficientnet", "2"), ("test_resnet", "all"), ("test_vit", "bitfit"), ("test_vit", "all")]
)
def test_before_anything_is_trained_the_network_is_that_of_the_heads(contract, found, name, tuned):
    task = contract.make_task((3, 32, 32))
    model = built(contract, found[name], tuned, task).eval()
    images = torch.randn(2, 3, 32, 32)
    heads = TransferFamily((found[name],), recipe=FIXED).build(candidate(found[name], tuned), task).eval()
    with torch.no_grad():
        assert not model(images).any()
        if tuned in ("all", "bitfit"):
            prepared = model.backbone.prepare(images)
            assert torch.allclose(model.head.body(prepared), heads.backbone.embed(prepared, "grid"), atol=1e-4)


@pytest.mark.slow
def test_only_what_is_asked_for_is_trained(contract, found):
    def trained(name, tuned, **others):
        model = built(contract, found[name], tuned, **others)
        return {name for name, parameter in model.named_parameters() if parameter.requires_grad}

    assert {name.rpartition(".")[2] for name in trained("test_vit", "bitfit") - {"head.head.weight"}} == {"bias"}
    last, both, all_of_it = (trained("test_resnet", tuned) for tuned in ("1", "2", "all"))
    assert all(name.startswith(("head.body.network.layer4", "head.head")) for name in last)
    assert last < both < all_of_it
    free = built(contract, found["test_resnet"], "2", norms="free").train()
    assert [layer.training for layer in free.head.body.modules() if isinstance(layer, torch.nn.BatchNorm2d)]
    assert not [layer for layer in built(contract, found["test_resnet"], "2").head.modules() if isinstance(layer, torch.nn.BatchNorm2d)]


def test_the_last_stage_has_the_rate_of_the_backbone_and_those_before_it_less(contract, found):
    model = built(contract, found["test_resnet"], "all")
    rates = {id(parameter): factor for part, factor in model.rate_factors() for parameter in part}
    named = {name.removeprefix("head.body.network."): rates.get(id(parameter)) for name, parameter in model.named_parameters()}
    assert {factor for name, factor in named.items() if name.startswith("layer4")} == {0.1}
    assert {factor for name, factor in named.items() if name.startswith("layer2")} == {0.1 * 0.5**2}
    assert {factor for name, factor in named.items() if name.startswith(("conv1", "layer1"))} == {0.1 * 0.5**3}
    assert {factor for name, factor in named.items() if name.startswith("head.head")} == {None}


@pytest.fixture(scope="module")
def spots():
    """Sixty small images in colour whose class is where they are bright, and thirty to validate."""
    from joulefront.search.training.splits_data import MemoryData
    from joulefront.search.training.task import Task

    labels = torch.arange(90) % 3
    images = torch.randint(0, 100, (90, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    for image, label in zip(images, labels.tolist(), strict=True):
        image[label, 8 * label : 8 * label + 12] += 120
    parts = [MemoryData(images[part], labels[part]) for part in (slice(0, 60), slice(60, 90))]
    return Task("spots", "classification", parts[0], parts[1], parts[1], (3, 32, 32), ("a", "b", "c"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "tuned", "norms"), [("test_efficientnet", "2", "frozen"), ("test_resnet", "1", "free"), ("test_vit", "bitfit", "frozen")]
)
def test_a_training_goes_on_from_its_checkpoint_and_its_weights_are_read_back(contract, found, spots, tmp_path, name, tuned, norms):
    cache = FeatureCache(tmp_path / "features")

    def model():
        return built(contract, found[name], tuned, spots, norms=norms)

    once = fit(model(), spots, RECIPE, epochs=2, features=cache)
    first = fit(model(), spots, RECIPE, epochs=1, features=cache)
    save_weights(tmp_path / "first.pt", first, with_checkpoint=True)
    again = fit(model(), spots, RECIPE, epochs=2, start=load_checkpoint(tmp_path / "first.pt", model()), features=cache)
    images, _ = next(spots.validation.batches(30))
    with torch.no_grad():
        assert torch.equal(again.model(images), once.model(images))
        save_weights(tmp_path / "again.pt", again, with_checkpoint=False)
        assert torch.equal(load_weights(tmp_path / "again.pt", model())(images), again.model(images))
    whole = evaluate(once.model, spots, spots.validation, recipe=RECIPE)
    assert whole["accuracy"] == pytest.approx(once.quality["accuracy"], abs=0.04)  # maps are kept in half precision
    assert whole["loss"] == pytest.approx(once.quality["loss"], rel=1e-2)


@pytest.mark.slow
def test_the_head_is_trained_first_on_what_heads_share_and_then_the_network_moves(contract, found, spots, tmp_path):
    cache = FeatureCache(tmp_path / "features")
    heads = TransferFamily((found["test_resnet"],), recipe=FIXED)
    shared = fit(heads.build(candidate(found["test_resnet"], "all"), spots), spots, RECIPE, epochs=1, features=cache)
    model = built(contract, found["test_resnet"], "all", spots)
    before = {name: tensor.clone() for name, tensor in model.named_parameters()}
    fitted = fit(model, spots, RECIPE, epochs=1, features=cache)
    assert fitted.features == replace(shared.features, computed=0)
    assert fitted.curve[0].loss < torch.log(torch.tensor(3.0))  # an untrained head begins at log 3
    assert all(not torch.equal(parameter, before[name]) for name, parameter in fitted.model.named_parameters())
    untouched = network(found["test_resnet"])
    assert torch.equal(untouched.layer1[0].conv1.weight, before["head.body.network.layer1.0.conv1.weight"])


@pytest.mark.slow
def test_fine_tuning_learns_from_as_many_images_as_heads_do(contract, found, spots, tmp_path):
    model = built(contract, found["test_resnet"], "all", spots, images_halved=1)
    assert model.images == 30
    seen = []
    model.head.body.register_forward_hook(lambda module, given, out: seen.append(len(given[0])) if module.training else None)
    fitted = fit(model, spots, RECIPE, epochs=1)
    assert fitted.features.images == sum(seen) == 30


@pytest.mark.slow
def test_low_rank_updates_are_trained_and_saved(contract, found, spots, tmp_path):
    pytest.importorskip("peft")
    model = built(contract, found["test_vit"], "lora", spots)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained
    assert all("lora_" in name or name.startswith("head.head") for name in trained)
    fitted = fit(model, spots, RECIPE, epochs=1)
    save_weights(tmp_path / "lora.pt", fitted, with_checkpoint=False)
    images, _ = next(spots.validation.batches(30))
    with torch.no_grad():
        again = load_weights(tmp_path / "lora.pt", built(contract, found["test_vit"], "lora", spots))
        assert torch.equal(again(images), fitted.model(images))


def test_low_rank_updates_without_their_package_say_what_to_install(contract, found, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ImportError, match=r"peft must be installed for finetune\.adapters lora, got none; do pip install"):
        built(contract, found["test_vit"], "lora")


def test_maps_are_shared_by_what_has_the_same_cut_and_heads_by_the_whole_network(found):
    family = FineTuning((found["test_resnet"],), recipe=FIXED)
    heads = TransferFamily((found["test_resnet"],), recipe=FIXED)
    needs = {tuned: family.frozen(candidate(found["test_resnet"], tuned, images_halved=1)) for tuned in ("1", "2", "all")}
    assert needs["all"] == heads.frozen(candidate(found["test_resnet"], "all", images_halved=1))
    assert len({one.features for one in needs.values()}) == 3
    assert {one.share for one in needs.values()} == {0.5}
    assert family.sample(FixedTrial({"side": 64, "images_halved": 0, "layers": "1", "norms": "free", "backbone_rate": 0.1}))
