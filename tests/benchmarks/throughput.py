"""How many images a second our loop trains, against the usual loop, on the same small nets in one process.

The usual loop: torchvision's ImageFolder, a DataLoader with a worker for each core, RandomCrop + RandomHorizontalFlip + ToTensor + Normalize.
Ours: ``images()`` and ``fit()``. Both train with AdamW in float32. Decoding the set once is not in our rate; it is printed beside it, as the number of
epochs after which it has paid.

    python tests/benchmarks/throughput.py [--data FOLDER_OR_ZIP] [--epochs N] [--images N]

Ends with exit code 1 where ours is not at least 2.5 times as fast for each net.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import tempfile
import time
import zipfile
from contextlib import contextmanager
from pathlib import Path

import torch
import torchvision
from torch import nn
from torchvision import transforms

from joulefront.search.training.fit import fit
from joulefront.search.training.images import images
from joulefront.search.training.memory_data import MemoryData
from joulefront.search.training.recipe import Recipe
from joulefront.search.training.task import Task

BAR = 2.5
BATCH = 128


def small_net(width: int, classes: int) -> nn.Module:
    """Three blocks of convolution, normalisation and pooling."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    channels = 3
    for block in range(3):
        out = width * 2**block
        layers += [nn.Conv2d(channels, out, 3, padding=1), nn.BatchNorm2d(out), nn.ReLU(), nn.MaxPool2d(2)]
        channels = out
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))


def usual_seconds(folder: Path, model: nn.Module, epochs: int, workers: int) -> tuple[int, list[float]]:
    """Train with the usual loop; returns the images in an epoch and the seconds of each epoch."""
    augment = transforms.Compose(
        [
            transforms.RandomCrop(32, padding=4),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize((0.49, 0.48, 0.45), (0.25, 0.24, 0.26)),
        ]
    )
    train = torchvision.datasets.ImageFolder(folder, augment)
    loader = torch.utils.data.DataLoader(train, BATCH, shuffle=True, num_workers=workers, persistent_workers=workers > 0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    model.train()
    seconds = []
    for _ in range(epochs):
        begin = time.perf_counter()
        for inputs, targets in loader:
            loss = nn.functional.cross_entropy(model(inputs), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        seconds.append(time.perf_counter() - begin)
    return len(train), seconds


def our_seconds(task: Task, model: nn.Module, epochs: int) -> list[float]:
    """Train with our loop; returns the seconds of each epoch (validation is outside of them)."""
    seconds: list[float] = []

    @contextmanager
    def phases(kind: str, index: int):  # type: ignore[no-untyped-def]
        begin = time.perf_counter()
        yield
        if kind == "epoch":
            seconds.append(time.perf_counter() - begin)

    fit(model, task, Recipe(batch_size=BATCH, augment="flip_shift", learning_rate=1e-3), epochs=epochs, phases=phases)
    return seconds


def main() -> int:
    """Compare the two loops and print what was seen."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--data", type=Path, default=Path("../shared/data/cifar10-images.zip"), help="image folder or zip with train/")
    options.add_argument("--epochs", type=int, default=3, help="epochs of each loop; the fastest counts")
    options.add_argument("--images", type=int, default=12800, help="training images that both loops use")
    given = options.parse_args()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    torch.set_num_threads(cores)
    print(
        f"{platform.platform()}, {platform.machine()}, {cores} cores; python {platform.python_version()}, torch {torch.__version__}, "
        f"torchvision {torchvision.__version__}; batch {BATCH}, fastest of {given.epochs} epochs"
    )
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.data
        if given.data.is_file():
            with zipfile.ZipFile(given.data) as archive:
                names = sorted(name for name in archive.namelist() if name.startswith("train/") and not name.endswith("/"))
                archive.extractall(scratch, names[:: max(1, len(names) // given.images)][: given.images])
            folder = Path(scratch)
        begin = time.perf_counter()
        task = images(folder, validation_share=0.02, test_share=0)
        decoding = time.perf_counter() - begin
        assert isinstance(task.train, MemoryData)
        ratios = []
        for width in (4, 8, 16):
            count, usual = usual_seconds(folder / "train", small_net(width, len(task.classes)), given.epochs, workers=cores)
            ours = our_seconds(task, small_net(width, len(task.classes)), given.epochs)
            usual_rate, our_rate = count / min(usual), len(task.train) / min(ours)
            ratios.append(our_rate / usual_rate)
            paid = decoding / (min(usual) - min(ours)) if min(usual) > min(ours) else float("inf")
            print(
                f"width {width:3d}: usual {usual_rate:7.0f} images/s, ours {our_rate:7.0f} images/s, ratio {ratios[-1]:.2f}; "
                f"decoding ({decoding:.1f} s once for all trials) has paid after {paid:.1f} epochs"
            )
    print(f"ratios {', '.join(f'{ratio:.2f}' for ratio in ratios)}, median {statistics.median(ratios):.2f}; bar {BAR}")
    return 0 if min(ratios) >= BAR else 1


if __name__ == "__main__":
    sys.exit(main())
