import os
import random
import zipfile

import pytest
import torch
from sklearn.ensemble import RandomForestClassifier

from joulefront.search.training.checkpoint import DamagedError, check_weights, load_checkpoint, load_weights, save_weights
from joulefront.search.training.evaluate import evaluate, predict
from joulefront.search.training.fit import fit
from joulefront.search.training.recipe import Recipe

RECIPE = Recipe(batch_size=32)


def test_a_network_comes_back_with_equal_predictions(tmp_path, spots, net):
    fitted = fit(net(spots), spots, RECIPE, epochs=1)
    save_weights(tmp_path / "w", fitted, with_checkpoint=True)
    model = load_weights(tmp_path / "w", net(spots, seed=5))
    assert evaluate(model, spots, spots.validation, recipe=RECIPE) == fitted.quality
    resumed = fit(net(spots, seed=6), spots, RECIPE, epochs=2, start=load_checkpoint(tmp_path / "w", net(spots)))
    assert resumed.quality == fit(net(spots), spots, RECIPE, epochs=2).quality


def test_scikit_learn_comes_back_without_running_code(tmp_path, spots):
    fitted = fit(RandomForestClassifier(10), spots, RECIPE, epochs=2)
    save_weights(tmp_path / "w", fitted, with_checkpoint=True)
    model = load_weights(tmp_path / "w", RandomForestClassifier())
    first = predict(model, spots, spots.validation, recipe=RECIPE)
    assert (first == predict(fitted.model, spots, spots.validation, recipe=RECIPE)).all()
    start = load_checkpoint(tmp_path / "w", RandomForestClassifier())
    assert start["epochs"] == 2
    assert fit(RandomForestClassifier(), spots, RECIPE, epochs=3, start=start).quality == fitted.quality


def test_without_a_checkpoint_the_file_is_small_and_holds_none(tmp_path, spots, net):
    fitted = fit(net(spots), spots, RECIPE, epochs=1)
    save_weights(tmp_path / "small", fitted, with_checkpoint=False)
    save_weights(tmp_path / "large", fitted, with_checkpoint=True)
    assert load_checkpoint(tmp_path / "small", net(spots)) is None
    assert (tmp_path / "small").stat().st_size < (tmp_path / "large").stat().st_size / 2


def test_a_write_that_fails_leaves_the_old_file(tmp_path, spots, net, monkeypatch):
    fitted = fit(net(spots), spots, RECIPE, epochs=1)
    save_weights(tmp_path / "w", fitted, with_checkpoint=False)
    before = (tmp_path / "w").read_bytes()

    def full(source, target):
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="no space"):
        save_weights(tmp_path / "w", fitted, with_checkpoint=True)
    assert (tmp_path / "w").read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["w"]


def test_files_that_do_not_fit_are_refused_in_one_line(tmp_path, spots, net):
    save_weights(tmp_path / "net", fit(net(spots), spots, RECIPE, epochs=1), with_checkpoint=False)
    save_weights(tmp_path / "forest", fit(RandomForestClassifier(2), spots, RECIPE, epochs=1), with_checkpoint=False)
    (tmp_path / "cut").write_bytes((tmp_path / "net").read_bytes()[:500])
    for name, model, words in (
        ("net", torch.nn.Linear(3, 3), "must fit the model Linear"),
        ("forest", torch.nn.Linear(3, 3), "must hold the weights of a network, got a scikit-learn model"),
        ("net", RandomForestClassifier(), "must hold a scikit-learn model, got the weights of a network"),
        ("cut", torch.nn.Linear(3, 3), "damaged"),
    ):
        with pytest.raises(ValueError, match=words) as caught:
            load_weights(tmp_path / name, model)
        assert "\n" not in str(caught.value)
    with pytest.raises(FileNotFoundError, match="no weights"):
        load_weights(tmp_path / "none", torch.nn.Linear(3, 3))


def test_a_file_with_foreign_types_is_not_read(tmp_path):
    import skops.io

    skops.io.dump({"sklearn": torch.nn.Linear, "checkpoint": None}, tmp_path / "w")
    with pytest.raises(ValueError, match="TypeNode of torch"):
        load_checkpoint(tmp_path / "w", RandomForestClassifier())


def test_weights_that_unpack_to_more_than_their_file_are_refused_before_anything_is_unpacked(tmp_path, spots, net, monkeypatch):
    model = net(spots)
    save_weights(tmp_path / "w", fit(model, spots, RECIPE, epochs=1), with_checkpoint=True)
    with zipfile.ZipFile(tmp_path / "w") as whole:
        parts = {name: whole.read(name) for name in whole.namelist()}
    with zipfile.ZipFile(tmp_path / "bomb", "w", zipfile.ZIP_DEFLATED) as packed:
        for name, part in parts.items():
            packed.writestr(name, bytes(4_000_000) if name.endswith("data/0") else part)
    monkeypatch.setattr("torch.load", lambda *_, **__: pytest.fail("it was unpacked"))
    monkeypatch.setattr(zipfile.ZipFile, "open", lambda *_, **__: pytest.fail("it was unpacked"))
    for read in (lambda file: load_checkpoint(file, model), lambda file: load_weights(file, model), lambda file: check_weights(file, None)):
        with pytest.raises(ValueError, match="its parts are compressed, as ours never are"):
            read(tmp_path / "bomb")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["network", "scikit-learn"])
def test_every_bit_that_flips_is_found(tmp_path, spots, net, kind):
    model = net(spots) if kind == "network" else RandomForestClassifier(2)
    digest = save_weights(tmp_path / "w", fit(model, spots, RECIPE, epochs=1), with_checkpoint=True)
    whole = (tmp_path / "w").read_bytes()
    check_weights(tmp_path / "w", digest)
    check_weights(tmp_path / "w", None)
    draw = random.Random(0)
    for bit in [0, 8 * len(whole) - 1, *(draw.randrange(8 * len(whole)) for _ in range(300))]:
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        (tmp_path / "w").write_bytes(flipped)
        with pytest.raises(DamagedError, match="SHA-256"):
            check_weights(tmp_path / "w", digest)
        with pytest.raises(DamagedError, match="SHA-256"):
            load_weights(tmp_path / "w", model, digest)


def test_a_file_of_earlier_versions_is_compared_with_the_checksums_in_it(tmp_path, spots, net):
    save_weights(tmp_path / "w", fit(net(spots), spots, RECIPE, epochs=1), with_checkpoint=False)
    whole = (tmp_path / "w").read_bytes()
    (tmp_path / "w").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DamagedError, match="damaged"):
        check_weights(tmp_path / "w", None)
    largest = max(range(0, len(whole) - 64, 64), key=lambda start: len(set(whole[start : start + 64])))  # numbers, not padding or names
    (tmp_path / "w").write_bytes(whole[:largest] + bytes([whole[largest] ^ 1]) + whole[largest + 1 :])
    with pytest.raises(DamagedError, match="CRC-32"):
        check_weights(tmp_path / "w", None)
