import builtins
import types
import typing

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from joulefront.search.training.hugging_face import hugging_face

RANDOM = np.random.default_rng(0)


@pytest.fixture
def datasets():
    return pytest.importorskip("datasets", reason="needs the extra joulefront[datasets]")


def pictures(datasets, count, labels=None):
    pixels = [Image.fromarray(RANDOM.integers(0, 256, (6, 5, 3)).astype(np.uint8)) for _ in range(count)]
    features = datasets.Features({"img": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
    return datasets.Dataset.from_dict({"img": pixels, "label": labels or [k % 2 for k in range(count)]}, features=features)


def test_saved_images_become_a_task_with_their_own_splits(datasets, tmp_path):
    datasets.DatasetDict({"train": pictures(datasets, 20), "test": pictures(datasets, 6)}).save_to_disk(tmp_path / "set")
    task = hugging_face(tmp_path / "set", validation_share=0.2)
    assert task.classes == ("cat", "dog")
    assert task.input_shape == (3, 6, 5)
    assert (len(task.train), len(task.validation), len(task.test)) == (16, 4, 6)
    assert hugging_face(tmp_path / "set", resolution=4).input_shape == (3, 4, 4)


def test_images_without_a_label_are_left_out_with_a_word(datasets, tmp_path):
    """Source: github.com/huggingface/datasets/issues/245."""
    parts = {"train": pictures(datasets, 20, [-1, None] + [0, 1] * 9), "test": pictures(datasets, 6, [-1] * 6)}
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "set")
    with pytest.warns(UserWarning, match="left out 8 examples without label, as test splits have"):
        task = hugging_face(tmp_path / "set", validation_share=0.2, test_share=0.2)
    assert sum(map(len, (task.train, task.validation, task.test))) == 18
    assert task.classes == ("cat", "dog")


def test_columns_become_a_table(datasets, tmp_path):
    rows = {"a": RANDOM.normal(size=40).tolist(), "b": ["x", "y"] * 20, "label": ["yes", "no", "no", "yes"] * 10}
    datasets.Dataset.from_dict(rows).save_to_disk(tmp_path / "set")
    task = hugging_face(tmp_path / "set")
    assert task.preprocessing["features"] == ["a", "b=x", "b=y"]
    assert task.classes == ("no", "yes")
    with pytest.raises(ValueError, match="no column 'price'; it has: a, b, label"):
        hugging_face(tmp_path / "set", target="price")


def test_a_missing_folder_is_named(datasets, tmp_path):
    with pytest.raises(FileNotFoundError, match="no dataset at"):
        hugging_face(tmp_path / "nowhere")


def test_without_the_package_the_extra_is_named(tmp_path, monkeypatch):
    real = builtins.__import__

    def without(name, *rest):
        if name == "datasets":
            raise ImportError("No module named 'datasets'")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"joulefront\[datasets\]"):
        hugging_face(tmp_path)


class InMemory:
    """What is asked of a dataset in memory: its columns, and a frame of them."""

    column_names = ("x", "label")

    def __init__(self, count):
        names = types.SimpleNamespace(names=["cat", "dog"])
        self.features, self.frame = {"x": None, "label": names}, pd.DataFrame({"x": np.arange(count) % 7, "label": np.arange(count) % 2})

    def __len__(self):
        return len(self.frame)

    def to_pandas(self):
        return self.frame


class InMemorySplits(dict):
    column_names: typing.ClassVar = {"train": ["x", "label"]}


def test_a_dataset_and_its_splits_in_memory_are_taken_and_other_objects_refused_by_name():
    for given in (InMemory(40), InMemorySplits(train=InMemory(30), test=InMemory(10))):
        task = hugging_face(given)
        assert task.classes == ("cat", "dog")
        assert sum(map(len, (task.train, task.validation, task.test))) == 40
    with pytest.raises(ValueError, match="path must be a folder, a Dataset or a DatasetDict, got dict; give one of them"):
        hugging_face({"train": [1, 2]})
