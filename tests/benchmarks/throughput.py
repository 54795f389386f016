"""How many images a second our loop trains, against the usual loop, on the same small nets in one process.

The usual loop: torchvision's ImageFolder, a DataLoader with a worker for each core, RandomCrop + RandomHorizontalFlip + ToTensor +
Normalize. Ours: ``images()`` and ``fit()``. Both train with AdamW in float32, epoch by epoch in turn, so that other load on the machine
hits both. Decoding the set once is not in our rate; it is printed beside it, as the number of epochs after which it has paid.

    python tests/benchmarks/throughput.py [--data FOLDER_OR_ZIP] [--epochs N] [--images N]

Ends with exit code 1 where ours is not at least 2.5 times as fast for each of the small nets.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import statistics
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import nn
from torchvision import transforms

from joulefront.search.training.fit import fit
from joulefront.search.training.images import images
from joulefront.search.training.recipe import Recipe
from joulefront.search.training.task import Task
from joulefront.spaces.convnet import ConvolutionalNetwork

BAR = 2.5
BATCH = 128

Seconds = tuple[float, float]


#: The small nets of the bar, and one more whose own arithmetic is most of the work: no loop can make that one much faster.
NETS = {
    "depth 2, width 8, strided": {"depth": 2, "width": 8, "pooling": "stride"},
    "depth 3, width 8, strided": {"depth": 3, "width": 8, "pooling": "stride"},
    "depth 3, width 16, strided": {"depth": 3, "width": 16, "pooling": "stride"},
    "depth 3, width 8, max pooling at full size (for information)": {"depth": 3, "width": 8, "pooling": "max"},
}


def net(architecture: Mapping[str, Any], classes: int) -> nn.Module:
    """Build one of the nets, always with the same weights."""
    torch.manual_seed(0)
    return ConvolutionalNetwork((3, 32, 32), classes, **architecture)


def usual_epochs(folder: Path, model: nn.Module, workers: int) -> Iterator[int]:
    """Train one more epoch with the usual loop at each call; gives the number of images."""
    augment = transforms.Compose(
        [
            transforms.RandomCrop(32, padding=4),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize((0.49, 0.48, 0.45), (0.25, 0.24, 0.26)),
        ]
    )
    train = torchvision.datasets.ImageFolder(folder, augment)
    loader = torch.utils.data.DataLoader(train, BATCH, shuffle=True, num_workers=workers)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    model.train()
    while True:
        for inputs, targets in loader:
            loss = nn.functional.cross_entropy(model(inputs), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        yield len(train)


def our_epochs(task: Task, model: nn.Module, seconds: list[Seconds]) -> Iterator[int]:
    """Train one more epoch with our loop at each call; notes the seconds of the epoch without the validation."""
    recipe = Recipe(batch_size=BATCH, augment="flip_shift", learning_rate=1e-3)
    start = None

    @contextmanager
    def phases(kind: str, index: int) -> Iterator[None]:
        begin = now()
        yield
        if kind == "epoch":
            seconds.append(since(begin))

    for epoch in count(1):
        start = fit(model, task, recipe, epochs=epoch, start=start, phases=phases).checkpoint
        yield len(task.train)


def now() -> Seconds:
    """Wall time, and processor time of this process and its finished children."""
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.perf_counter(), own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def since(begin: Seconds) -> Seconds:
    """Seconds of both kinds since ``begin``."""
    wall, processor = now()
    return wall - begin[0], processor - begin[1]


def compare(folder: Path, task: Task, architecture: Mapping[str, Any], epochs: int, cores: int) -> tuple[Seconds, Seconds]:
    """Seconds for one image of both kinds, with the usual loop and with ours: the fastest epoch counts."""
    usual: list[Seconds] = []
    ours: list[Seconds] = []
    usual_loop = usual_epochs(folder, net(architecture, len(task.classes)), cores)
    our_loop = our_epochs(task, net(architecture, len(task.classes)), ours)
    for _ in range(epochs):
        begin = now()
        usual_images = next(usual_loop)
        usual.append(since(begin))
        our_images = next(our_loop)
    wall, processor = (min(row[k] for row in usual) / usual_images for k in (0, 1))
    our_wall, our_processor = (min(row[k] for row in ours) / our_images for k in (0, 1))
    return (wall, processor), (our_wall, our_processor)


def main() -> int:
    """Compare the two loops and print what was seen."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--data", type=Path, default=Path("../shared/data/cifar10-images.zip"), help="image folder or zip with train/")
    options.add_argument("--epochs", type=int, default=3, help="epochs of each loop; the fastest counts")
    options.add_argument("--images", type=int, default=3200, help="training images that both loops use")
    given = options.parse_args()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    torch.set_num_threads(cores)
    print(
        f"{platform.platform()}, {platform.machine()}, {cores} cores, load {os.getloadavg()[0]:.1f}; python {platform.python_version()}, "
        f"torch {torch.__version__}, torchvision {torchvision.__version__}; batch {BATCH}, fastest of {given.epochs} epochs"
    )
    ratios = []
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
        for name, architecture in NETS.items():
            (wall, processor), (our_wall, our_processor) = compare(folder / "train", task, architecture, given.epochs, cores)
            ratios += [wall / our_wall] if "information" not in name else []
            paid = decoding / len(task.train) / (wall - our_wall) if wall > our_wall else float("inf")
            print(
                f"{name}: usual {1 / wall:.0f} images/s, ours {1 / our_wall:.0f} images/s, ratio {wall / our_wall:.2f} "
                f"(of processor time {processor / our_processor:.2f}); decoding, {decoding:.1f} s once for all trials, "
                f"has paid after {paid:.1f} epochs"
            )
    print(f"ratios {', '.join(f'{ratio:.2f}' for ratio in ratios)}, median {statistics.median(ratios):.2f}; bar {BAR}")
    return 0 if min(ratios) >= BAR else 1


if __name__ == "__main__":
    sys.exit(main())
