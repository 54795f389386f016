"""torchvision's sets as tasks: read where they lie, and one clear line where they cannot be had."""

import struct
from urllib.error import URLError

import numpy as np
import pytest
import torchvision

from joulefront.search.training.arrays import SETS, builtin

SET_RANDOM = np.random.default_rng(0)


def write_mnist(root, folder="MNIST"):
    """A tiny set in the layout of torchvision: idx files, big endian."""
    raw = root / folder / "raw"
    raw.mkdir(parents=True)
    for name, count in (("train", 40), ("t10k", 10)):
        pixels, labels = SET_RANDOM.integers(0, 256, (count, 28, 28)).astype(np.uint8), (np.arange(count) % 10).astype(np.uint8)
        (raw / f"{name}-images-idx3-ubyte").write_bytes(struct.pack(">IIII", 0x803, count, 28, 28) + pixels.tobytes())
        (raw / f"{name}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 0x801, count) + labels.tobytes())


@pytest.mark.parametrize(("name", "folder"), [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST")])
def test_a_set_in_torchvisions_layout_is_read_without_a_connection(tmp_path, monkeypatch, name, folder):
    monkeypatch.setattr(torchvision.datasets.MNIST, "download", lambda self: pytest.fail("it is there: nothing to download"))
    write_mnist(tmp_path, folder)
    task = builtin(name, tmp_path, validation_share=0.25)
    assert task.input_shape == (1, 28, 28)
    assert len(task.classes) == 10
    assert (len(task.train), len(task.validation), len(task.test)) == (30, 10, 10)


def test_the_test_split_is_torchvisions_own(tmp_path):
    write_mnist(tmp_path)
    task = builtin("mnist", tmp_path)
    own = torchvision.datasets.MNIST(tmp_path, train=False)
    assert (task.test.inputs[:, 0].numpy() == own.data.numpy()).all()
    assert task.test.targets.tolist() == own.targets.tolist()


def test_an_absent_set_without_a_connection_is_one_clear_line(tmp_path, monkeypatch):
    def offline(self):
        raise URLError("Name or service not known")

    monkeypatch.setattr(torchvision.datasets.CIFAR10, "download", offline)
    with pytest.raises(FileNotFoundError, match=r"cifar10 is not in .* could not be downloaded .*copy torchvision's files") as caught:
        builtin("cifar10", tmp_path)
    assert "\n" not in str(caught.value)
    with pytest.raises(FileNotFoundError, match="set download=True"):
        builtin("cifar10", tmp_path, download=False)


def test_unknown_names_are_refused_and_known_ones_exist():
    with pytest.raises(ValueError, match="must be one of mnist"):
        builtin("imagenet")
    assert all(hasattr(torchvision.datasets, name) for name in SETS.values())
