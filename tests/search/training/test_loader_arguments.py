"""Arguments of the loaders that cannot be meant are refused by name, alike in all of them, before the data are read as a whole."""

import wave
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from joulefront.search import arrays, audio, images, load, table

INPUTS = np.random.default_rng(0).normal(size=(24, 3))
FRAME = pd.DataFrame(INPUTS, columns=["a", "b", "c"]).assign(y=["no", "yes"] * 12)


@pytest.fixture(scope="module")
def loaders(tmp_path_factory):
    root: Path = tmp_path_factory.mktemp("data")
    random = np.random.default_rng(0)
    for name in ("pictures/one", "pictures/two", "sounds/one", "sounds/two"):
        (root / name).mkdir(parents=True)
        for k in range(6):
            if name.startswith("pictures"):
                Image.fromarray(random.integers(0, 255, (9, 9, 3), dtype=np.uint8)).save(root / name / f"{k}.png")
            else:
                with wave.open(str(root / name / f"{k}.wav"), "wb") as file:
                    file.setparams((1, 2, 8000, 0, "NONE", ""))
                    file.writeframes(random.integers(-9000, 9000, 2000, dtype=np.int16).tobytes())
    return {
        "arrays": lambda **how: arrays(INPUTS, FRAME["y"], **how),
        "table": lambda **how: table(FRAME, "y", **how),
        "images": lambda **how: images(root / "pictures", **how),
        "audio": lambda **how: audio(root / "sounds", sample_rate=8000, **how),
    }


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"seed": -1}, r"^seed must be a whole number from 0 to 2\*\*63 - 1, got -1"),
        ({"seed": 2**70}, r"^seed must be a whole number from 0 to 2\*\*63 - 1"),
        ({"seed": "x"}, "^seed must be int, got 'x'"),
        ({"device": "gpu"}, "^--device must be auto, cpu, cuda or cuda:N, got 'gpu'"),
        ({"device": "mps"}, "^--device must be auto, cpu, cuda or cuda:N, got 'mps'"),
        ({"device": torch.device("meta")}, "^--device must be auto, cpu, cuda or cuda:N, got 'meta'"),
        ({"device": "cuda:999"}, "^--device cuda:999: "),
        ({"validation_share": None}, "^validation_share must be float, got None"),
    ],
)
@pytest.mark.parametrize("name", ["arrays", "table", "images", "audio"])
def test_seeds_devices_and_shares_are_refused_alike_by_all_loaders(loaders, name, how, said):
    with pytest.raises(ValueError, match=said):
        loaders[name](**how)


@pytest.mark.parametrize(
    ("name", "how", "said"),
    [
        ("audio", {"hop": 10**9}, "hop must be at most the window, 512, got 1,000,000,000"),
        ("audio", {"mels": 100_000}, "mels must be at most the 257 frequencies of a window, got 100,000"),
        ("audio", {"waveform": "no"}, "waveform must be bool, got 'no'"),
        ("audio", {"window": "512"}, "window must be int, got '512'"),
        ("images", {"resolution": 10**6}, "resolution must be from 1 to"),
        ("images", {"skip_unreadable": "no"}, "skip_unreadable must be bool, got 'no'"),
        ("table", {"max_levels": "x"}, "max_levels must be int, got 'x'"),
        ("arrays", {"classes": 3}, "classes must be a list of different names, got 3"),
    ],
)
def test_settings_that_would_lose_the_data_or_fill_the_memory_are_refused_by_name(loaders, name, how, said):
    with pytest.raises(ValueError, match=said):
        loaders[name](**how)


@pytest.mark.parametrize("path", ["", "  "])
@pytest.mark.parametrize("read", [images, audio, load, lambda path: table(path, "y")], ids=["images", "audio", "load", "table"])
def test_an_empty_path_is_not_the_current_folder(read, path):
    with pytest.raises(ValueError, match=r"^(path|data) must be a path that is not empty, got ' *'"):
        read(path)


def test_a_device_is_named_as_text_or_as_pytorch_names_it(loaders):
    for device in ("cpu", "auto", torch.device("cpu")):
        assert len(loaders["arrays"](device=device).train) == 16
