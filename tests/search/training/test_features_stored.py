"""How the features of a backbone are stored: their precision, their parts, what is damaged, shared or dropped."""

import os
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.backbone import Bands
from helpers.features import RECIPE, model
from PIL import Image

from joulefront.search.training import features
from joulefront.search.training.backbone import Transfer
from joulefront.search.training.feature_cache import FeatureCache
from joulefront.search.training.features import fingerprint, with_features
from joulefront.search.training.fit import fit
from joulefront.search.training.images import images
from joulefront.search.training.results import TrainingFailed, no_phases
from joulefront.search.training.splits_data import Excerpt, StreamData


@pytest.fixture
def cache(tmp_path) -> FeatureCache:
    return FeatureCache(tmp_path / "features")


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
