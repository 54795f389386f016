"""Tasks from a folder or zip of images."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .arrays import channel_statistics
from .image_files import Files, Found, find_classes, open_files
from .memory_data import MemoryData
from .split import split_indices
from .stream_data import StreamData
from .task import Data, Task

#: Image sets up to this size are held in memory.
MEMORY_LIMIT_BYTES = 4 * 2**30
#: Images that are opened to learn size and colour of a set, and those that its mean and deviation are taken from.
PROBED, STATISTICS_FROM = 512, 4096
#: Side of the images of a set whose images differ in size, at most (pixels).
MAX_SIDE = 224
GREY_MODES = frozenset({"1", "L", "I;16", "I", "F"})

Progress = Callable[[int, int], None]
Entries = Sequence[tuple[str, int]]


def images(
    path: str | Path,
    *,
    resolution: int | None = None,
    validation_share: float = 0.15,
    test_share: float = 0.15,
    seed: int = 0,
    device: str | torch.device = "cpu",
    memory_limit_bytes: int = MEMORY_LIMIT_BYTES,
    workers: int | None = None,
    skip_unreadable: bool = False,
    progress: Progress | None = None,
    name: str | None = None,
) -> Task:
    """Make a classification task of a folder or zip whose sub-folders are the classes.

    ``train/``, ``val/`` (``valid/``, ``validation/``) and ``test/`` are used when there; a split that is missing is dealt out of the
    training images, stratified and seeded. Images of one size keep it; else they are cropped to a square at the centre and resized to the
    median short side, at most 224. Transparency is dropped; a set of grey images has one channel.

    Args:
        path: Folder or zip (which is not unpacked to disk).
        resolution: Side of the images in pixels; None as above.
        validation_share: Share for a validation split that is not there.
        test_share: Share for a test split that is not there; 0 for none.
        seed: Draws the splits.
        device: Where the images live at first; a training on another device moves them once.
        memory_limit_bytes: A larger set is not decoded in advance but read anew in every epoch.
        workers: Threads that decode, or processes that read a larger set; None for the number of cores.
        skip_unreadable: Leave out images that cannot be read and warn with their number, in place of an error (sets in memory only).
        progress: Called with the number of images decoded and their total.
        name: Name of the task; None for that of the folder or zip.

    Raises:
        FileNotFoundError: If there is nothing at ``path``.
        ValueError: If classes or images are not as they should be; the message names the folder or file.
    """
    files = open_files(path)
    found = find_classes(files)
    splits = _deal(found, validation_share, test_share, seed)
    everything = [entry for entries in splits.values() for entry in entries]
    channels, height, width = _shape(files, splits["train"], resolution)
    cores = workers if workers is not None else len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    in_memory = len(everything) * channels * height * width <= memory_limit_bytes
    shape = (channels, height, width)
    parts: dict[str, Data] = {}
    if in_memory:
        decoded, readable = decode_all(files, everything, shape, threads=cores, skip_unreadable=skip_unreadable, progress=progress)
        bounds = np.cumsum([0, *(len(entries) for entries in splits.values())])
        labels = torch.tensor([label for _, label in everything])
        kept = {split: np.flatnonzero(readable[a:b]) + a for split, a, b in zip(splits, bounds, bounds[1:], strict=False)}
        mean, deviation = channel_statistics(decoded[kept["train"][_spaced(len(kept["train"]), STATISTICS_FROM)]].numpy())
        for split, rows in kept.items():
            # A split lies in one piece, so that a slice does without a second copy of it, unless images were left out.
            whole = len(rows) > 0 and rows[-1] - rows[0] + 1 == len(rows)
            part = decoded[rows[0] : rows[-1] + 1] if whole else decoded[rows]
            parts[split] = MemoryData(part.to(device), labels[rows].to(device), mean=mean, deviation=deviation)
    else:
        sample = [splits["train"][k] for k in _spaced(len(splits["train"]), STATISTICS_FROM)]
        decoded, readable = decode_all(files, sample, shape, threads=cores, skip_unreadable=skip_unreadable, progress=progress)
        mean, deviation = channel_statistics(decoded[torch.from_numpy(readable)].numpy())
        for split, entries in splits.items():
            parts[split] = StreamData(ImageFiles(files, entries, shape), workers=cores, mean=mean, deviation=deviation)
    preprocessing = {
        "kind": "image",
        "channels": channels,
        "height": height,
        "width": width,
        "resize": "crop the centre to the aspect ratio, then resize with antialiased bilinear interpolation",
        "scale": 1 / 255,
        "mean": mean,
        "std": deviation,
    }
    test = parts.get("test")
    title = name or Path(path).stem
    return Task(title, "classification", parts["train"], parts["validation"], test, shape, found.classes, preprocessing)


class ImageFiles(torch.utils.data.Dataset[tuple[torch.Tensor, int]]):
    """Images decoded one by one when they are asked for."""

    def __init__(self, files: Files, entries: Entries, shape: tuple[int, int, int]) -> None:
        """Read ``entries`` of ``files`` as uint8 tensors of ``shape`` ``(c, h, w)``."""
        self._files, self._entries, self._shape = files, list(entries), shape

    def __len__(self) -> int:
        """Number of images."""
        return len(self._entries)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        """Decode one image."""
        name, label = self._entries[index]
        return torch.from_numpy(_decode_named(self._files, name, self._shape)), label


def decode_all(
    files: Files,
    entries: Entries,
    shape: tuple[int, int, int],
    *,
    threads: int,
    skip_unreadable: bool = False,
    progress: Progress | None = None,
) -> tuple[torch.Tensor, np.ndarray]:
    """Decode images with several threads.

    Returns:
        ``(n, c, h, w)`` uint8 images and ``(n,)`` which of them could be read.

    Raises:
        ValueError: If one cannot be read, unless they are to be skipped.
    """
    decoded = torch.empty((len(entries), *shape), dtype=torch.uint8)
    view, readable = decoded.numpy(), np.ones(len(entries), dtype=bool)
    block = 256

    def work(first: int) -> int:
        last = min(first + block, len(entries))
        for k in range(first, last):
            try:
                view[k] = _decode_named(files, entries[k][0], shape)
            except ValueError:
                if not skip_unreadable:
                    raise
                readable[k] = False
        return last - first

    done = 0
    pool = ThreadPoolExecutor(max(1, threads))
    try:
        for count in pool.map(work, range(0, len(entries), block)):
            done += count
            if progress is not None:
                progress(done, len(entries))
    finally:
        # An error or Ctrl-C must not wait for thousands of images that nobody will use.
        pool.shutdown(cancel_futures=True)
    if not readable.all():
        first = entries[int(np.flatnonzero(~readable)[0])][0]
        warnings.warn(f"{files.path}: left out {int((~readable).sum())} unreadable images, the first is {first}", stacklevel=3)
    return decoded, readable


def decode(data: bytes, shape: tuple[int, int, int]) -> np.ndarray:
    """Decode one image file to ``(c, h, w)`` uint8: turned upright, its centre cropped to the aspect ratio, resized."""
    from PIL import Image, ImageOps

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
    """Turn an image file into model input as a task's ``preprocessing`` says.

    Returns:
        ``(1, c, h, w)`` float32.
    """
    data = image if isinstance(image, bytes) else Path(image).read_bytes()
    shape = (int(preprocessing["channels"]), int(preprocessing["height"]), int(preprocessing["width"]))
    mean, deviation = (np.asarray(preprocessing[key], dtype=np.float32)[:, None, None] for key in ("mean", "std"))
    scaled = decode(data, shape).astype(np.float32) * np.float32(preprocessing["scale"])
    return np.asarray((scaled - mean) / deviation)[None]


def _decode_named(files: Files, name: str, shape: tuple[int, int, int]) -> np.ndarray:
    try:
        return decode(files.read(name), shape)
    except (OSError, ValueError, SyntaxError, EOFError) as error:  # what Pillow raises for broken files
        reason = " ".join(str(error).split()).replace("cannot identify image file", "no known image format")
        raise ValueError(f"cannot read the image {files.path / name}: {reason[:120]}; remove it, or pass skip_unreadable=True") from error


def _to_bytes(image: Any) -> Any:
    """Scale an image of more than 8 bits to bytes: 16 bits by their range, floats by [0, 1]."""
    from PIL import Image

    values = np.asarray(image, dtype=np.float32)
    scale = 255.0 if image.mode == "F" else 255.0 / 65535.0 if values.max(initial=0) > 255 else 1.0
    return Image.fromarray(np.clip(np.round(values * scale), 0, 255).astype(np.uint8))


def _deal(found: Found, validation_share: float, test_share: float, seed: int) -> dict[str, Entries]:
    """Use the splits that are there and make the others from the training images."""
    train = found.splits["train"]
    parts = split_indices(
        np.array([label for _, label in train]),
        validation_share=0 if "validation" in found.splits else validation_share,
        test_share=0 if "test" in found.splits else test_share,
        seed=seed,
    )
    splits: dict[str, Entries] = {}
    for split, rows in zip(("train", "validation", "test"), parts, strict=True):
        own = found.splits.get(split, ()) if split != "train" else ()
        entries = own or tuple(train[k] for k in rows)
        if entries or split != "test":
            splits[split] = entries
    return splits


def _shape(files: Files, entries: Entries, resolution: int | None) -> tuple[int, int, int]:
    """Learn channels and size of a set from the headers of evenly spaced images."""
    from PIL import Image, UnidentifiedImageError

    sizes, grey = [], True
    for k in _spaced(len(entries), PROBED):
        try:
            with Image.open(io.BytesIO(files.read(entries[k][0]))) as image:
                turned = image.getexif().get(274, 1) >= 5  # the EXIF orientations that exchange width and height
                sizes.append((image.size[0], image.size[1]) if turned else (image.size[1], image.size[0]))
                grey = grey and image.mode in GREY_MODES
        except (OSError, UnidentifiedImageError, SyntaxError):
            continue  # decoding will name it
    channels = 1 if grey and sizes else 3
    if resolution is not None:
        if resolution < 1:
            raise ValueError(f"resolution must be >= 1 pixel, got {resolution}")
        return channels, resolution, resolution
    if len(set(sizes)) == 1:
        return channels, *sizes[0]
    side = int(min(MAX_SIDE, np.median([min(size) for size in sizes]))) if sizes else 32
    return channels, side, side


def _spaced(count: int, most: int) -> list[int]:
    """Return at most ``most`` evenly spaced positions in ``0 .. count-1``."""
    return sorted({k * count // min(count, most) for k in range(min(count, most))})
