"""Heads on the features of a pretrained network: what each makes of few and of many images, for studies/results/backbones.md.

    python tests/benchmarks/heads.py ../shared/data/cifar10-images.zip --counts 500 2000 5000 15000

One thread, by the project's own space and training. A seed chooses other training images and seeds the head; 3,000 images that nothing was
learnt from or chosen by are the same in all rows. CPU-seconds are those of a training on features that are there already, with its
validation; the pass of the frozen network is the first row.
"""

from __future__ import annotations

import argparse
import io
import random
import tempfile
import time
import zipfile
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
import torch
from PIL import Image

from joulefront.search.space import NearestTrial
from joulefront.search.training.arrays import arrays
from joulefront.search.training.feature_cache import FeatureCache
from joulefront.search.training.fit import fit
from joulefront.search.training.task import Task
from joulefront.spaces.recipes import RecipeRanges
from joulefront.spaces.transfer import SOLVED, TransferFamily
from joulefront.spaces.weights import find

HELD, SEEDS = 3000, (0, 1, 2)
#: Head, its settings, epochs.
HEADS: tuple[tuple[str, dict[str, Any], int], ...] = (
    ("linear", {"weight_decay": 0.1}, 3),
    ("linear", {"weight_decay": 0.1}, 9),
    ("linear", {"weight_decay": 3.0}, 3),
    ("256", {"weight_decay": 0.1, "label_smoothing": 0.1}, 3),
    ("ridge", {"ridge.setting": 1.0}, 1),
    ("logistic", {"logistic.setting": 0.03}, 1),
    ("logistic", {"logistic.setting": 0.1}, 1),
    ("logistic", {"logistic.setting": 0.3}, 1),
    ("neighbours", {"neighbours.setting": 12.0}, 1),
)


def tasks(path: Path, count: int) -> list[Task]:
    """Return a task for each seed: so many training images of its own, and the held-out images."""
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.startswith("train/") and not name.endswith("/")]
        random.Random(0).shuffle(names)
        classes = sorted({name.split("/")[1] for name in names})

        def read(chosen: list[str]) -> tuple[np.ndarray, np.ndarray]:
            pixels = [np.asarray(Image.open(io.BytesIO(archive.read(name))).convert("RGB")) for name in chosen]
            return np.stack(pixels).transpose(0, 3, 1, 2), np.array([classes.index(name.split("/")[1]) for name in chosen])

        held = read(names[:HELD])
        found = []
        for seed in SEEDS:
            inputs, targets = read(random.Random(seed).sample(names[HELD:], count))
            shares = {"validation_share": 0.0, "test_share": 0.0}
            found.append(arrays(inputs, targets, validation=held, classes=classes, name="heads", **shares))  # type: ignore[arg-type]
    return found


def main() -> None:
    """Print a row for each head and number of images."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", type=Path)
    parser.add_argument("--counts", type=int, nargs="+", default=[500, 2000, 5000])
    parser.add_argument("--side", type=int, default=96)
    wanted = parser.parse_args()
    torch.set_num_threads(1)
    ranges = RecipeRanges(learning_rate=1e-3, weight_decay=(1e-2, 3.0), batch_size=64, label_smoothing=(0.0, 0.2), threads=1)
    family = TransferFamily(find(), features="grid", heads=("linear", "256", *SOLVED), recipe=ranges)
    print("| images | head | held-out accuracy | cross-entropy | CPU-s |\n|---:|---|---:|---:|---:|")
    for count in wanted.counts:
        found: dict[str, list[tuple[float, float, float]]] = {}
        for seed, task in zip(SEEDS, tasks(wanted.images, count), strict=True):
            with tempfile.TemporaryDirectory() as folder:
                cache = FeatureCache(Path(folder))
                for number, (head, settings, epochs) in enumerate((HEADS[0], *HEADS)):  # the first pays for the features
                    params = {"side": wanted.side, "images_halved": 0, "head": head, "label_smoothing": 0.0, **settings}
                    candidate = family.sample(NearestTrial(params))
                    torch.manual_seed(seed)
                    begin = time.process_time()
                    fitted = fit(family.build(candidate, task), task, candidate.recipe, epochs=epochs, seed=seed, features=cache)
                    seconds = time.process_time() - begin
                    setting = ", ".join(f"{name.split('.')[0]} {value:g}" for name, value in settings.items())
                    name = f"{head}, {setting}, {epochs} epochs" if number else "linear, and the features"
                    found.setdefault(name, []).append((fitted.quality["accuracy"], fitted.quality["loss"], seconds))
        for name, runs in found.items():
            accuracies, losses, spent = zip(*runs, strict=True)
            print(
                f"| {count} | {name} | {fmean(accuracies):.3f} ± {stdev(accuracies):.3f} | {fmean(losses):.2f} | {fmean(spent):.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
