"""Small tasks and networks for the tests of the training."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from joulefront.search.training.arrays import arrays
from joulefront.search.training.task import Task


@pytest.fixture(autouse=True)
def one_thread():
    """Sums are the same bit for bit only with the same number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def spots() -> Task:
    """Grey 8x8 images, 129 of them for training: a bright spot in one of three corners under noise."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, 200)
    pixels = random.integers(0, 120, (200, 8, 8))
    for image, label in zip(pixels, labels, strict=True):
        top, left = [(0, 0), (0, 5), (5, 0)][label]
        image[top : top + 3, left : left + 3] += 100
    shares = {"validation_share": 0.0, "test_share": 0.0}
    train, held = slice(0, 129), slice(129, 200)
    images = pixels.astype(np.uint8)
    return arrays(images[train], labels[train], validation=(images[held], labels[held]), name="spots", **(shares | {"test_share": 0}))


@pytest.fixture
def net() -> Callable[..., torch.nn.Module]:
    """A small convnet with everything that has a state or draws numbers."""

    def build(task: Task, seed: int = 0, *, dropout: float = 0.1) -> torch.nn.Module:
        torch.manual_seed(seed)
        return torch.nn.Sequential(
            torch.nn.Conv2d(task.input_shape[0], 8, 3, padding=1),
            torch.nn.BatchNorm2d(8),
            torch.nn.ReLU(),
            torch.nn.Dropout(dropout),
            torch.nn.AdaptiveAvgPool2d(4),
            torch.nn.Flatten(),
            torch.nn.Linear(8 * 16, task.outputs),
        )

    return build


@pytest.fixture(scope="session")
def line() -> Task:
    """A regression on two features whose target is in the thousands."""
    random = np.random.default_rng(1)
    inputs = random.normal(size=(300, 2))
    return arrays(inputs, 5000 + 700 * inputs[:, 0] - 300 * inputs[:, 1], name="line", kind="regression")


@pytest.fixture
def shared_data() -> Callable[[str], Path]:
    """Path of a file that lies beside the repository, or a skip."""

    def find(name: str) -> Path:
        path = Path(__file__).parents[4] / "shared" / "data" / name
        if not path.exists():
            pytest.skip(f"needs {name} in ../shared/data, which a clone does not have")
        return path

    return find
