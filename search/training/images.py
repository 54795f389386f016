"""Tasks from a folder or zip of images."""

from __future__ import annotations

import io
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import torch
from PIL import Image, ImageOps

from .files import UNREADABLE, Entries, FileOptions, Files, find_classes, open_files, spaced, standardised, task_of_files
from .task import Task

#: Images that are opened to learn size and colour of a set.
PROBED = 512
#: Side of the images of a set whose images differ in size, at most (pixels).
MAX_SIDE = 224
GREY_MODES = frozenset({"1", "L", "I;16", "I", "F"})


def images(path: str | Path, *, resolution: int | None = None, **options: Unpack[FileOptions]) -> Task:
    """Make a classification task from a folder or zip whose sub-folders are the classes.

    ``train/``, ``val/`` (``valid/``, ``validation/``) and ``test/`` are used where they exist; a missing split is drawn from the training
    images, stratified and seeded. Images of one size keep it; else they are cropped to a square at the centre and resized to the
    median short side, at most 224. Transparency is dropped; a set of grey images has one channel.
    ``resolution`` is the side of the images in pixels; None as above. See ``FileOptions`` for the options.

    Raises:
        FileNotFoundError: If ``path`` does not exist.
        ValueError: If there are no classes or an image cannot be read; the message names the folder or file.
    """
    files = open_files(path)
    found = find_classes(files)
    shape = _shape(files, found.splits["train"], resolution)
    preprocessing = {
        "kind": "image",
        **dict(zip(("channels", "height", "width"), shape, strict=True)),
        "resize": "crop the centre to the aspect ratio, then resize with antialiased bilinear interpolation",
        "scale": 1 / 255,
    }
    return task_of_files(
        files,
        found,
        partial(decode, shape=shape),
        shape=shape,
        dtype=torch.uint8,
        preprocessing=preprocessing,
        **options,
    )


def decode(data: bytes, shape: tuple[int, int, int]) -> np.ndarray:
    """Decode one image file to ``(c, h, w)`` uint8: rotated upright, its centre cropped to the aspect ratio, resized."""
    channels, height, width = shape
    with Image.open(io.BytesIO(data)) as opened:
        # JPEG can decode at a fraction of its size, never below what is needed.
        opened.draft(None, (2 * width, 2 * height))
        image: Image.Image = ImageOps.exif_transpose(opened) if opened.getexif() else opened
        if image.mode in ("I;16", "I", "F"):
            image = _to_bytes(image)
        image = image.convert("L" if channels == 1 else "RGB")
    if image.size != (width, height):
        wide, high = image.size
        share = min(wide / width, high / height)
        left, top = (wide - share * width) / 2, (high - share * height) / 2
        box = (left, top, left + share * width, top + share * height)
        image = image.resize((width, height), Image.Resampling.BILINEAR, box=box)
    pixels = np.asarray(image)
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


def prepare(preprocessing: Mapping[str, Any], image: bytes | str | Path) -> np.ndarray:
    """Turn an image file into model input ``(1, c, h, w)`` float32 as a task's ``preprocessing`` describes."""
    data = image if isinstance(image, bytes) else Path(image).read_bytes()
    shape = (int(preprocessing["channels"]), int(preprocessing["height"]), int(preprocessing["width"]))
    return standardised(preprocessing, decode(data, shape))


def _to_bytes(image: Any) -> Any:
    """Scale an image of more than 8 bits to bytes: 16 bits by their range, floats by [0, 1]."""
    values = np.asarray(image, dtype=np.float32)
    scale = 255.0 if image.mode == "F" else 255.0 / 65535.0 if values.max(initial=0) > 255 else 1.0
    return Image.fromarray(np.clip(np.round(values * scale), 0, 255).astype(np.uint8))


def _shape(files: Files, entries: Entries, resolution: int | None) -> tuple[int, int, int]:
    """Learn channels and size of a set from the headers of evenly spaced images."""
    sizes, grey = [], True
    for k in spaced(len(entries), PROBED):
        try:
            with Image.open(io.BytesIO(files.read(entries[k][0]))) as image:
                turned = image.getexif().get(274, 1) >= 5  # the EXIF orientations that exchange width and height
                sizes.append((image.size[0], image.size[1]) if turned else (image.size[1], image.size[0]))
                grey = grey and image.mode in GREY_MODES
        except UNREADABLE:
            continue  # decoding reports it
    channels = 1 if grey and sizes else 3
    if resolution is not None:
        if resolution < 1:
            raise ValueError(f"resolution must be >= 1 pixel, got {resolution}")
        return channels, resolution, resolution
    if len(set(sizes)) == 1:
        return channels, *sizes[0]
    side = int(min(MAX_SIDE, np.median([min(size) for size in sizes]))) if sizes else 32
    return channels, side, side
