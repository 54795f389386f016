"""What several bundled studies share: the digits as small photographs, and the first examples of a task."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from ..search.training.arrays import arrays
from ..search.training.images import images
from ..search.training.splits_data import Excerpt, MemoryData
from ..search.training.task import Data, Task

#: Examples of a smoke run: enough to train and validate on, few enough to finish within seconds.
FEW = 48


def photographs(data: str | None, *, seed: int = 0, smoke: bool = False) -> Task:
    """Return a user's images, or scikit-learn's digits as colour images of 32 x 32 pixels.

    ``data`` is a folder or zip with a sub-folder for each class; ``smoke`` keeps only the first examples. Each pixel of the 8 x 8 digits
    becomes a square of four by four, and the grey level all three colours: networks made for photographs need this size, and arXiv
    2302.00967 stacked and enlarged MNIST in the same way.
    """
    if data is not None:
        task = images(data, seed=seed)
    else:
        pixels, labels = digit_images()
        large = pixels.repeat(4, axis=-2).repeat(4, axis=-1).repeat(3, axis=1)
        task = arrays(large, labels, name="digits 32x32", validation_share=0.2, test_share=0.2, seed=seed)
    return few(task) if smoke else task


def digit_images() -> tuple[np.ndarray, np.ndarray]:
    """Return scikit-learn's digits as ``(1797, 1, 8, 8)`` bytes and their ``(1797,)`` labels."""
    levels, labels = digit_levels()
    return (levels * (255 / 16)).round().astype("uint8"), labels


def digit_levels() -> tuple[np.ndarray, np.ndarray]:
    """Return scikit-learn's digits as ``(1797, 1, 8, 8)`` grey levels from 0 to 16 and their ``(1797,)`` labels.

    They are read as ``load_digits`` reads them, but without the library, which takes a CPU-second to load.
    """
    (library,) = find_spec("sklearn").submodule_search_locations  # type: ignore[union-attr, misc]  # it is a dependency
    rows = np.loadtxt(Path(library) / "datasets" / "data" / "digits.csv.gz", delimiter=",")
    return rows[:, :-1].reshape(-1, 1, 8, 8), rows[:, -1].astype(int)


def pictures(data: str | None, *, seed: int = 0, examples: int | None = None, side: int | None = None, smoke: bool = False) -> Task:
    """Return a user's images, or scikit-learn's digits at their own 8 x 8 pixels.

    ``data`` as in ``photographs``, resized to ``side`` pixels; with ``examples`` the task has so many for training, see ``part``.
    """
    if data is not None:
        whole = images(data, resolution=side, seed=seed)
    else:
        whole = arrays(*digit_images(), name="digits", validation_share=0.2, test_share=0.2, seed=seed)
    whole = whole if examples is None else part(whole, examples, seed=seed)
    return few(whole) if smoke else whole


def part(task: Task, examples: int, *, seed: int = 0) -> Task:
    """Return the task with so many training examples, drawn once, and as many for validation; unlike in ``few``, every epoch sees the same.

    Raises:
        ValueError: If there are not so many, or the data does not lie in memory.
    """

    def drawn(data: Data, name: str) -> MemoryData:
        if not isinstance(data, MemoryData):
            raise ValueError("--set examples=N needs data that fits into memory; take a smaller folder in its place")
        if not 0 < examples <= len(data):
            raise ValueError(
                f"--set examples={examples} needs so many {name} examples, there are {len(data)}; give a number from 1 to that"
            )
        return data.only(np.random.default_rng(seed).permutation(len(data))[:examples])

    return replace(task, train=drawn(task.train, "training"), validation=drawn(task.validation, "validation"))


def few(task: Task, examples: int = FEW) -> Task:
    """Return the task with so many training examples and half as many for validation."""
    return replace(task, train=Excerpt(task.train, examples), validation=Excerpt(task.validation, examples // 2))
