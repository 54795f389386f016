import copy
import gc
import pickle
import sys
import weakref
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from helpers.backbone import Bands

from joulefront.search.training import features
from joulefront.search.training.backbone import COMPARED, Embedding, Transfer, Way, casts, fastest, openvino, plain
from joulefront.search.training.feature_cache import FeatureCache
from joulefront.search.training.fit import fit
from joulefront.search.training.recipe import Recipe

CPU = torch.device("cpu")


class Slow(Bands):
    """Takes enough CPU time that anything else is faster."""

    def embed(self, prepared, feature_set):
        if prepared.device.type != "meta":
            for _ in range(40):
                torch.randn(300, 300) @ torch.randn(300, 300)
        return super().embed(prepared, feature_set)


@pytest.fixture
def inputs(spots) -> torch.Tensor:
    return next(spots.train.batches(64))[0]


def chosen(inputs: torch.Tensor, change) -> str:
    embedding = Embedding(Slow(), "both").eval()
    right = Embedding(Bands(), "both").eval()

    def others(embedding, inputs, device):
        yield "other", lambda batch: change(plain(right, CPU)(batch))

    return fastest(embedding, inputs, CPU, others).name


def raising(found: np.ndarray) -> np.ndarray:
    raise RuntimeError("an operator is missing")


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda found: found, "other"),
        (lambda found: found * 1.01, "other"),
        (lambda found: found * 0.5, "plain"),
        (lambda found: found[:, :-1], "plain"),
        (lambda found: found * np.nan, "plain"),
        (lambda found: found[::-1], "plain"),
        (raising, "plain"),
    ],
    ids=["equal", "near", "far", "another shape", "not finite", "in another order", "raises"],
)
def test_a_faster_way_is_taken_when_its_features_agree(inputs, change, name):
    assert chosen(inputs, change) == name


def test_a_slower_way_is_not_taken(inputs):
    slow = Embedding(Slow(), "both").eval()
    assert fastest(Embedding(Bands(), "both").eval(), inputs, CPU, lambda *_: iter([("slow", plain(slow, CPU))])).name == "plain"


@pytest.mark.slow
@pytest.mark.skipif(find_spec("openvino") is None, reason="openvino is not installed")
def test_openvino_gives_the_same_features_for_every_size_of_a_batch_and_tells_nobody_of_its_use(inputs):
    embedding = Embedding(Bands(), "both").eval()
    extract, expected = openvino(embedding, inputs), plain(embedding, CPU)(inputs)
    assert np.allclose(extract(inputs), expected, atol=0.05 * np.abs(expected).max())
    assert np.allclose(extract(inputs[:3]), extract(inputs)[:3], atol=1e-5)
    assert "openvino_telemetry" not in sys.modules


def test_what_the_chosen_way_computes_is_what_is_kept(spots, tmp_path, monkeypatch):
    spots = replace(spots, train=copy.deepcopy(spots.train))
    monkeypatch.setattr(features, "WORTH", 100)
    asked = []

    def always_half(embedding, inputs, device, others):
        asked.append(len(inputs))
        assert others is casts, "converting costs more than so few images"
        return Way("half", lambda batch: plain(embedding, CPU)(batch) + 1.0)

    monkeypatch.setattr(features, "fastest", always_half)
    cache = FeatureCache(tmp_path)
    net = Transfer(Bands(), "both", torch.nn.Linear(16, 3))
    found = fit(net, spots, Recipe(threads=1), epochs=1, features=cache).features
    kept = np.concatenate([cache.open(found.key, 129).features])
    order = next(spots.train.batches(129, seed=features.ORDER))[0]
    assert np.allclose(kept, plain(Embedding(Bands(), "both").eval(), CPU)(order) + 1.0, atol=1e-2)
    assert asked == [COMPARED]
    fit(Transfer(Bands("few 1"), "both", torch.nn.Linear(16, 3), images=20), spots, Recipe(threads=1), epochs=1, features=cache)
    assert asked == [COMPARED] * 2, "later trials will take more images than 20"
    fit(Transfer(Bands("few 1"), "both", torch.nn.Linear(16, 3)), spots, Recipe(threads=1), epochs=1, features=cache)
    assert asked == [COMPARED] * 2, "what was found stays with the data"
    monkeypatch.setattr(features, "WORTH", 1000)
    fit(Transfer(Bands("few 2"), "both", torch.nn.Linear(16, 3)), spots, Recipe(threads=1), epochs=1, features=cache)
    assert asked == [COMPARED] * 2, "so small a set is not worth it"


@pytest.mark.slow
def test_what_was_found_goes_with_the_data_of_its_run_and_not_with_a_copy(spots, tmp_path, monkeypatch):
    spots = replace(spots, train=copy.deepcopy(spots.train))
    monkeypatch.setattr(features, "WORTH", 100)
    monkeypatch.setattr(features, "fastest", lambda embedding, inputs, device, others: Way("plain", plain(embedding, device)))
    net = Transfer(Bands(), "both", torch.nn.Linear(16, 3))
    network = weakref.ref(net.backbone)
    fit(net, spots, Recipe(threads=1), epochs=1, features=FeatureCache(tmp_path))
    del net
    gc.collect()
    assert network() is not None, "the next trial has its way already"
    assert not pickle.loads(pickle.dumps(spots.train))._ways
    del spots
    gc.collect()
    assert network() is None
