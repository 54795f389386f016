"""Tasks from torchvision's built-in image sets, in torchvision's own folder layout."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .arrays import arrays
from .task import Task

#: Name -> class of torchvision.datasets, for the sets that torchvision holds as arrays.
SETS = {
    "mnist": "MNIST",
    "fashion_mnist": "FashionMNIST",
    "kmnist": "KMNIST",
    "cifar10": "CIFAR10",
    "cifar100": "CIFAR100",
    "svhn": "SVHN",
    "stl10": "STL10",
    "usps": "USPS",
}


def builtin(
    name: str,
    root: str | Path = "data",
    *,
    download: bool = True,
    validation_share: float = 0.15,
    seed: int = 0,
    device: str | torch.device = "cpu",
) -> Task:
    """Make a task of a set that torchvision knows; its own test split is the test split, validation comes out of its training split.

    Args:
        name: One of ``SETS``.
        root: Folder that holds the set, or is to hold it.
        download: Whether to download what is not there.
        validation_share: Share of the training split for validation.
        seed: Draws the validation split.
        device: Where the images live at first.

    Raises:
        ValueError: If the name is not known.
        FileNotFoundError: If the set is not there and cannot be downloaded.
    """
    import torchvision

    if name not in SETS:
        raise ValueError(f"builtin set must be one of {', '.join(SETS)}, got {name!r}; give the folder of any other set to images()")
    make = getattr(torchvision.datasets, SETS[name])
    inputs, targets, classes = _load(make, Path(root), train=True, name=name, download=download)
    test_inputs, test_targets, _ = _load(make, Path(root), train=False, name=name, download=download)
    return arrays(
        inputs,
        targets,
        name=name,
        kind="classification",
        classes=classes,
        test=(test_inputs, test_targets),
        validation_share=validation_share,
        seed=seed,
        device=device,
    )


def _load(make: Any, root: Path, *, train: bool, name: str, download: bool) -> tuple[np.ndarray, np.ndarray, list[str]]:
    by_flag = "train" in inspect.signature(make.__init__).parameters
    options = {"train": train} if by_flag else {"split": "train" if train else "test"}
    try:
        loaded = make(root, **options, download=False)
    except (RuntimeError, OSError) as absent:  # torchvision's way to say that files are missing or damaged
        if not download:
            raise FileNotFoundError(f"{root} has no {name} in torchvision's layout; put it there or allow the download") from absent
        try:
            loaded = make(root, **options, download=True)
        except (RuntimeError, OSError) as error:  # URLError is an OSError
            reason = " ".join(str(error).split())[:150]
            raise FileNotFoundError(
                f"{name} is not in {root} and could not be downloaded ({reason}); copy torchvision's files for it into {root}, "
                "or run once with a connection"
            ) from error
    inputs = np.asarray(loaded.data)
    targets = np.asarray(loaded.targets if hasattr(loaded, "targets") else loaded.labels).astype(np.int64)
    names = getattr(loaded, "classes", None) or [str(k) for k in range(int(targets.max()) + 1)]
    return inputs, targets, [str(entry) for entry in names]
