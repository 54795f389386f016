from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.backbone import Bands
from helpers.backbone_contract import check_backbone
from helpers.features import RECIPE, model

from joulefront.search.energy import Component, Record
from joulefront.search.training.backbone import Part, Transfer
from joulefront.search.training.checkpoint import load_checkpoint, load_weights, save_weights
from joulefront.search.training.evaluate import evaluate
from joulefront.search.training.feature_cache import FeatureCache, Price
from joulefront.search.training.fit import fit


@pytest.fixture
def cache(tmp_path) -> FeatureCache:
    return FeatureCache(tmp_path / "features")


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
    with pytest.raises(ValueError, match="feature_set must be one of rows, columns, both, got 'last'"):
        Transfer(Bands(), "last", torch.nn.Linear(8, 3))
    with pytest.raises(ValueError, match="images must be >= 1"):
        model(spots, images=0)


def record(joules: float) -> Record:
    return Record("1.1", "features 0", None, "features", "ok", "", 0, 1, 1.0, (Component("cpu", joules, "rapl"),))


class Watched:
    """Notes the phases of a training."""

    def __init__(self) -> None:
        self.kinds: list[str] = []

    def __call__(self, kind: str, index: int) -> AbstractContextManager[None]:
        self.kinds.append(kind)
        return nullcontext()


def test_a_head_learns_on_features_and_the_whole_network_is_as_good_on_raw_images(spots, cache):
    net = Transfer(Bands(), "both", torch.nn.Linear(16, spots.outputs))
    fitted = fit(net, spots, RECIPE, epochs=8, features=cache)
    assert fitted.quality["accuracy"] > 0.9
    assert isinstance(fitted.model, Transfer)
    whole = evaluate(fitted.model, spots, spots.validation, recipe=RECIPE)
    assert whole["accuracy"] == fitted.quality["accuracy"]
    assert whole["loss"] == pytest.approx(fitted.quality["loss"], rel=1e-2)


@pytest.mark.slow
def test_features_are_computed_once_and_a_hundred_heads_need_no_more(spots, cache):
    net = model(spots)
    images = len(spots.train) + len(spots.validation)
    for seed in range(100):
        fitted = fit(Transfer(net.backbone, "rows", torch.nn.Linear(8, 3)), spots, RECIPE, epochs=1, seed=seed, features=cache)
        assert fitted.features.computed == (images if seed == 0 else 0)
    assert net.backbone.embedded == {"rows": images, "columns": 0, "both": 0}


def test_a_second_study_pays_no_features_and_other_weights_or_data_do(spots, cache):
    def computed(backbone, task=spots, feature_set="rows", recipe=RECIPE) -> int:
        net = Transfer(backbone, feature_set, torch.nn.Linear(8, 3))
        return fit(net, task, recipe, epochs=1, features=cache).features.computed

    assert computed(Bands()) == 200
    assert computed(Bands()) == 0
    assert computed(Bands("other 1234")) == 200
    assert computed(Bands(), feature_set="columns") == 200
    resized = Bands()
    resized.preprocessing = {"size": 16}
    assert computed(resized) == 200
    assert computed(Bands(), recipe=replace(RECIPE, precision="bfloat16")) == 0  # that of the head
    others = replace(spots, train=spots.train.only(np.arange(100)))
    assert computed(Bands(), others) == 100  # the validation images are the same


def test_more_images_pay_only_for_those_that_are_new_and_each_model_has_its_own(spots, cache):
    backbone = Bands()

    def used(images):
        net = Transfer(backbone, "rows", torch.nn.Linear(8, 3), images=images)
        return fit(net, spots, RECIPE, epochs=1, features=cache).features

    assert [(one.images, one.computed) for one in map(used, (20, 50, 50, 20, None, 10**6))] == [
        (20, 20 + 71),
        (50, 30),
        (50, 0),
        (20, 0),
        (129, 79),
        (129, 0),
    ]
    extended = cache.open(used(None).key, 129)
    at_once = FeatureCache(cache.folder / "other")
    whole = fit(model(spots), spots, RECIPE, epochs=1, features=at_once).features
    assert np.array_equal(extended.features, at_once.open(whole.key, 129).features)
    assert np.array_equal(extended.targets, at_once.open(whole.key, 129).targets)


def test_the_phase_of_the_features_is_there_only_where_something_is_computed(spots, cache):
    first, second = Watched(), Watched()
    fit(model(spots), spots, RECIPE, epochs=1, features=cache, phases=first)
    fit(model(spots), spots, RECIPE, epochs=1, features=cache, phases=second)
    assert first.kinds == ["overhead", "features", "features", "setup", "epoch", "eval"]
    assert second.kinds == ["overhead", "setup", "epoch", "eval"]


def test_where_prices_are_wanted_a_sample_is_measured_once_for_features_of_others(spots, cache):
    fit(model(spots), spots, RECIPE, epochs=1, features=cache)
    here = replace(cache, place="this machine")
    found = fit(model(spots), spots, RECIPE, epochs=1, features=here).features
    assert found.computed == 129
    assert here.price(found.key) is None
    exact, rough = Price(129, record(5.0)), Price(10, record(9.0))
    here.keep_price(found.key, exact)
    assert fit(model(spots), spots, RECIPE, epochs=1, features=here).features.computed == 0
    assert here.price(found.key) == exact
    here.keep_price(found.key, rough)  # of fewer images: less exact
    assert here.price(found.key) == exact
    assert replace(cache, place="another").price(found.key) is None
    fit(model(spots), spots, RECIPE, epochs=1, features=replace(here, place=None))
    assert here.price(found.key) == exact


class Parted(Bands):
    """Bands whose rows and columns are columns of both, the rows at an earlier cut."""

    def part_of(self, feature_set):
        parts = {"rows": Part("both", slice(0, 8)), "columns": Part("both", slice(8, 16), same_cut=True)}
        return parts.get(feature_set)


def test_one_pass_serves_several_feature_sets_and_an_earlier_cut_is_priced_by_a_sample(spots, cache):
    here = replace(cache, place="this machine")

    def trained(name: str, width: int, backbone: Bands):
        net = Transfer(backbone, name, torch.nn.Linear(width, 3))
        return net, fit(net, spots, RECIPE, epochs=2, features=here)

    first, paid = trained("columns", 8, Parted())
    assert (paid.features.part, paid.features.computed, first.backbone.embedded["both"]) == ("", 200, 200)
    here.keep_price(paid.features.key, Price(200, record(5.0)))
    whole, more = trained("both", 16, Parted())
    assert (more.features.key, more.features.computed) == (paid.features.key, 0)
    rows, sampled = trained("rows", 8, Parted())
    assert (sampled.features.part, sampled.features.computed, sampled.features.sampled) == ("rows", 129, 129)
    here.keep_price(sampled.features.key, Price(129, record(1.0)), "rows")
    _, free = trained("rows", 8, Parted())
    assert free.features.computed == 0
    for net, found in ((first, paid), (whole, more), (rows, sampled)):
        raw = evaluate(net, spots, spots.validation, recipe=RECIPE, device=torch.device("cpu"))
        assert raw["accuracy"] == pytest.approx(found.quality["accuracy"])
    alone = Transfer(Bands(), "rows", torch.nn.Linear(8, 3))
    assert fit(alone, spots, RECIPE, epochs=2).quality["loss"] == pytest.approx(sampled.quality["loss"], rel=1e-3)


def test_going_on_from_a_checkpoint_equals_one_training_bit_for_bit(spots, cache, tmp_path):
    whole = fit(model(spots), spots, RECIPE, epochs=4, seed=3, features=cache)
    first = fit(model(spots), spots, RECIPE, epochs=1, seed=3, features=cache)
    save_weights(tmp_path / "weights", first, with_checkpoint=True)
    fresh = model(spots)
    start = load_checkpoint(tmp_path / "weights", fresh)
    second = fit(fresh, spots, RECIPE, epochs=4, seed=3, start=start, features=cache)
    assert second.quality == whole.quality
    assert all(torch.equal(second.model.state_dict()[name], value) for name, value in whole.model.state_dict().items())


def test_the_weights_file_holds_the_head_and_names_the_backbone(spots, cache, tmp_path):
    fitted = fit(model(spots), spots, RECIPE, epochs=2, features=cache)
    sha256 = save_weights(tmp_path / "weights", fitted, with_checkpoint=False)
    stored = torch.load(tmp_path / "weights", weights_only=True)
    assert set(stored["weights"]) == {"mean", "deviation", "head.weight", "head.bias"}
    loaded = load_weights(tmp_path / "weights", model(spots), sha256)
    assert evaluate(loaded, spots, spots.validation, recipe=RECIPE) == evaluate(fitted.model, spots, spots.validation, recipe=RECIPE)
    other = Transfer(Bands("other 1234"), "rows", torch.nn.Linear(8, 3))
    with pytest.raises(ValueError, match="must be of a model with the backbone other 1234, got bands 00ff"):
        load_weights(tmp_path / "weights", other)
    with pytest.raises(ValueError, match="must be of a model with the backbone None, got bands 00ff"):
        load_weights(tmp_path / "weights", torch.nn.Linear(8, 3))


def test_the_whole_state_fits_an_untrained_model_whose_features_have_no_scale_yet(spots, cache):
    fitted = fit(model(spots), spots, RECIPE, epochs=1, features=cache)
    fresh = torch.nn.Sequential(model(spots))
    fresh.load_state_dict({f"0.{name}": value for name, value in fitted.model.state_dict().items()})
    inputs = next(iter(spots.validation.batches(16)))[0]
    assert torch.equal(fresh.eval()(inputs), fitted.model(inputs))


def test_the_backbone_of_these_tests_keeps_the_contract(spots):
    inputs, _ = next(spots.validation.batches(6))
    check_backbone(Bands(), inputs)


@pytest.mark.parametrize("fault", ["batch", "random", "updates", "one value"])
def test_the_contract_finds_what_breaks_a_cache(spots, fault):
    class Broken(Bands):
        def embed(self, prepared, feature_set):
            features = super().embed(prepared, feature_set)
            if fault == "batch":
                return features - features.mean(dim=0)
            if fault == "random":
                return features + torch.rand_like(features)
            if fault == "updates":
                self.scale.data.mul_(1.01)
            return features.mean(dim=1) if fault == "one value" else features

    inputs, _ = next(spots.validation.batches(6))
    with pytest.raises(AssertionError):
        check_backbone(Broken(), inputs)
