import os
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.backbone import Bands
from helpers.backbone_contract import check_backbone
from PIL import Image

from joulefront.search.energy import Component, Record
from joulefront.search.training import features
from joulefront.search.training.backbone import Part, Transfer
from joulefront.search.training.checkpoint import load_checkpoint, load_weights, save_weights
from joulefront.search.training.evaluate import evaluate
from joulefront.search.training.feature_cache import FeatureCache, Price
from joulefront.search.training.features import fingerprint, with_features
from joulefront.search.training.fit import fit
from joulefront.search.training.images import images
from joulefront.search.training.recipe import Recipe
from joulefront.search.training.results import TrainingFailed, no_phases
from joulefront.search.training.splits_data import Excerpt, StreamData


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
    with pytest.raises(ValueError, match="feature_set must be one of rows, columns, both, got 'last'"):
        Transfer(Bands(), "last", torch.nn.Linear(8, 3))
    with pytest.raises(ValueError, match="images must be >= 1"):
        model(spots, images=0)


def record(joules: float) -> Record:
    return Record("1.1", "features 0", None, "features", "ok", "", 0, 1, 1.0, (Component("cpu", joules, "rapl"),))


RECIPE = Recipe(batch_size=32, learning_rate=3e-2, threads=1)


class Watched:
    """Notes the phases of a training."""

    def __init__(self) -> None:
        self.kinds: list[str] = []

    def __call__(self, kind: str, index: int) -> AbstractContextManager[None]:
        self.kinds.append(kind)
        return nullcontext()


@pytest.fixture
def cache(tmp_path) -> FeatureCache:
    return FeatureCache(tmp_path / "features")


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


def test_the_features_are_those_of_the_images_in_half_precision(spots, cache):
    net = model(spots, images=40)
    found = with_features(net, spots, cache=cache, phases=no_phases, device=torch.device("cpu"))
    inputs, targets = next(spots.validation.batches(71))
    expected = net.backbone.embed(net.backbone.prepare(inputs), "rows")
    kept = cache.open(found.used.key, 40)
    mean, deviation = kept.features.astype(np.float64).mean(0), kept.features.astype(np.float64).std(0)
    given, wanted = next(found.task.validation.batches(71))
    assert torch.equal(wanted, targets)
    assert torch.allclose(given, (expected - torch.tensor(mean).float()) / torch.tensor(deviation).float(), atol=2e-2)
    assert torch.allclose(found.mean.double(), torch.tensor(mean), atol=1e-5)
    assert kept.features.dtype == np.float16
    assert len(found.task.train) == 40
    assert found.task.input_shape == (8,)


def test_what_is_larger_than_half_precision_is_kept_in_single(spots, cache):
    net = Transfer(Bands(scale=1e6), "rows", torch.nn.Linear(8, 3))
    found = fit(net, spots, RECIPE, epochs=3, features=cache)
    assert cache.open(found.features.key, 129).features.dtype == np.float32
    assert found.quality["accuracy"] > 0.5


def test_features_that_are_not_finite_fail_the_training(spots, cache):
    net = Transfer(Bands(scale=float("nan")), "rows", torch.nn.Linear(8, 3))
    with pytest.raises(TrainingFailed, match="bands 00ff gives features that are not finite"):
        fit(net, spots, RECIPE, epochs=1, features=cache)
    assert sum(size for _, _, size in cache.entries()) == 0


@pytest.mark.parametrize("damage", ["shorter", "longer", "pickle", "no facts", "other facts", "gone"])
def test_a_damaged_entry_is_computed_anew(spots, cache, damage):
    first = fit(model(spots), spots, RECIPE, epochs=1, features=cache)
    folder = cache.folder / first.features.key
    file = folder / "features.npy"
    if damage == "shorter":
        file.write_bytes(file.read_bytes()[:-8])
    elif damage == "longer":
        file.write_bytes(file.read_bytes() + b"12345678")
    elif damage == "pickle":
        with file.open("wb") as opened:
            np.save(opened, np.array([{"a": 1}] * 129, dtype=object), allow_pickle=True)
    elif damage == "no facts":
        (folder / "facts.json").write_text("[1")
    elif damage == "other facts":
        (folder / "facts.json").write_text('{"rows": "many"}')
    else:
        file.unlink()
    again = fit(model(spots), spots, RECIPE, epochs=1, features=cache)
    assert again.features.computed == 129
    assert again.quality == first.quality


def test_without_a_cache_and_for_excerpts_nothing_is_written(spots, cache):
    fitted = fit(model(spots), spots, RECIPE, epochs=1)
    assert (fitted.features.key, fitted.features.computed) == (None, 200)
    few = replace(spots, train=Excerpt(spots.train, 64), validation=Excerpt(spots.validation, 32))
    fitted = fit(model(few), few, RECIPE, epochs=1, features=cache)
    assert (fitted.features.key, fitted.features.images, fitted.features.computed) == (None, 64, 96)
    assert not cache.folder.exists()


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


def test_two_workers_at_once_compute_once(spots, cache):
    backbone, both = Bands(), threading.Barrier(2)
    slow = backbone.prepare

    def prepare(images):
        time.sleep(0.02)
        return slow(images)

    backbone.prepare = prepare

    def work() -> int:
        net = Transfer(backbone, "rows", torch.nn.Linear(8, 3))
        both.wait()
        return with_features(net, spots, cache=cache, phases=no_phases, device=torch.device("cpu")).used.computed

    with ThreadPoolExecutor(2) as pool:
        assert sorted(done.result() for done in [pool.submit(work), pool.submit(work)]) == [0, 200]
    assert backbone.embedded["rows"] == 200


def test_the_oldest_entries_are_dropped_beyond_the_bound_and_clearing_leaves_other_files(spots, cache):
    keys = [
        fit(Transfer(Bands(), name, torch.nn.Linear(8, 3)), spots, RECIPE, epochs=1, features=cache).features.key
        for name in ("rows", "columns")
    ]
    sizes = {key: size for key, _, size in cache.entries()}
    assert set(keys) < set(sizes)
    for age, key in enumerate(reversed(list(sizes))):
        os.utime(cache.folder / key / "facts.json", (age, age))
    os.utime(cache.folder / keys[0] / "facts.json", (0, 0))
    small = replace(cache, limit_bytes=sum(sizes.values()))
    fit(Transfer(Bands("more 77"), "rows", torch.nn.Linear(8, 3)), spots, RECIPE, epochs=1, features=small)
    assert cache.open(keys[0], 1) is None
    assert cache.open(keys[1], 1) is not None
    assert sum(size for _, _, size in cache.entries()) <= sum(sizes.values())
    (cache.folder / "mine.txt").write_text("mine")
    assert cache.clear() > 0
    assert sum(size for _, _, size in cache.entries()) == 0
    assert (cache.folder / "mine.txt").exists()


def test_other_splits_than_ours_are_known_by_what_they_hold(spots):
    class Other:
        def __init__(self, split):
            self.split = split

        def __len__(self):
            return len(self.split)

        def batches(self, *sizes, **options):
            return self.split.batches(*sizes, **options)

    one, same, other = Other(spots.train), Other(spots.train), Other(spots.validation)
    assert fingerprint(one) == fingerprint(same) != fingerprint(other)
    one.split = spots.validation
    assert fingerprint(one) == fingerprint(same)  # read once


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


def test_a_long_pass_is_stored_on_its_way_and_a_killed_one_goes_on(spots, cache, monkeypatch):
    monkeypatch.setattr(features, "STORED", 16)
    monkeypatch.setattr(features, "SMALL_BATCH", 8)
    whole = fit(model(spots), spots, RECIPE, epochs=1, features=FeatureCache(cache.folder / "whole"))

    class Dying(Bands):
        def embed(self, prepared, feature_set):
            if prepared.device.type != "meta" and self.embedded[feature_set] >= 48:
                raise KeyboardInterrupt
            return super().embed(prepared, feature_set)

    with pytest.raises(KeyboardInterrupt):
        fit(Transfer(Dying(), "rows", torch.nn.Linear(8, 3)), spots, RECIPE, epochs=1, features=cache)
    again = fit(model(spots), spots, RECIPE, epochs=1, features=cache)
    assert again.features.computed == 129 - 32 + 71  # 16, then 32 images were stored
    assert again.quality == whole.quality
    assert all(torch.equal(again.model.state_dict()[name], value) for name, value in whole.model.state_dict().items())
    assert list(cache.folder.rglob("*.tmp")) == []


def test_large_values_late_in_a_long_pass_are_kept_in_single_precision(spots, cache, monkeypatch):
    monkeypatch.setattr(features, "STORED", 64)

    class Growing(Bands):
        def embed(self, prepared, feature_set):
            return super().embed(prepared, feature_set) * (1e6 if self.embedded["rows"] > 100 else 1)

    found = fit(Transfer(Growing(), "rows", torch.nn.Linear(8, 3)), spots, RECIPE, epochs=1, features=cache)
    entry = cache.open(found.features.key, 129)
    assert entry.features.dtype == np.float32
    assert np.isfinite(entry.features).all()
    assert np.array_equal(np.unique(entry.targets, return_counts=True)[1], np.unique(spots.train.arrays()[1], return_counts=True)[1])


def test_what_a_killed_process_left_is_seen_and_cleared(cache):
    folder = cache.folder / ("0" * 32)
    folder.mkdir(parents=True)
    (folder / "features.npy.1.tmp").write_bytes(b"x" * 1000)
    assert cache.entries() == (("0" * 32, {}, 1000),)
    assert cache.clear() == 1000
    assert not folder.exists()


def test_a_streamed_folder_is_known_by_its_files_without_reading_them(tmp_path):
    for split, count in (("train", 6), ("val", 2)):
        for label in ("a", "b"):
            (tmp_path / "set" / split / label).mkdir(parents=True)
            for k in range(count):
                pixels = np.full((8, 8, 3), 20 * k + 9 * (label == "b"), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / "set" / split / label / f"{k}.png")

    def read(limit=0, **options):
        return images(tmp_path / "set", memory_limit_bytes=limit, workers=0, test_share=0.0, **options)

    first, again, small, memory = read(), read(), read(resolution=4), read(2**30)
    assert isinstance(first.train, StreamData)
    assert fingerprint(first.train) == fingerprint(again.train)
    assert len({fingerprint(task.train) for task in (first, small, memory)}) == 3
    assert fingerprint(first.train) != fingerprint(first.validation)
    file = tmp_path / "set" / "train" / "a" / "0.png"
    Image.fromarray(np.full((8, 8, 3), 99, dtype=np.uint8)).save(file)
    os.utime(file, (10**9, 10**9))
    assert fingerprint(read().train) != fingerprint(first.train)
    shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path / "set")
    packed = images(tmp_path / "packed.zip", memory_limit_bytes=0, workers=0, test_share=0.0)
    assert fingerprint(packed.train) == fingerprint(images(tmp_path / "packed.zip", memory_limit_bytes=0, workers=0, test_share=0.0).train)
