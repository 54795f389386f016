"""Small folders of images, and what is read of them."""

import io
import warnings

import numpy as np
from PIL import Image

from joulefront.search.training.images import images

RANDOM = np.random.default_rng(0)


def saved(array, suffix="PNG", mode=None):
    file = io.BytesIO()
    Image.fromarray(array, mode).save(file, suffix)
    return file.getvalue()


def picture():
    return saved(RANDOM.integers(0, 256, (6, 6, 3), dtype=np.uint8))


def write(root, files):
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def classes(*names, count=10):
    return {f"{name}/{k}.png": picture() for name in names for k in range(count)}


def read(path, **options):
    """The task, its number of examples, and every warning in one text."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        task = images(path, **options)
    return task, sum(len(part) for part in (task.train, task.validation, task.test or ())), " | ".join(str(one.message) for one in caught)
