"""Tasks from a folder or zip of images."""

from __future__ import annotations

import io
import warnings
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Unpack

import numpy as np
import torch
from PIL import Image, ImageCms, ImageOps

from ..argument_types import refuse_wrong_types
from .file_tree import Files, Found, find_classes, open_files, unreadable
from .files import SHARE, FileOptions, spaced, standardised, task_of_files, warn_of_giveaways
from .task import Task, noting

#: Images that are opened to learn size and colour of a set.
PROBED = 512
#: Side of the images of a set whose images differ in size, at most (pixels).
MAX_SIDE = 224
GREY_MODES = frozenset({"1", "L", "I;16", "I;16L", "I;16B", "I;16N", "I", "F"})
#: White of images of 16 bits and more, where a set does not say otherwise; that of floats is 1.
WHITE = 65535.0
#: Values of more than 8 bits that fill less than this part of black to white would become a few of 256 tones.
NARROW = 8
#: Grey on which transparent images are put, where a set does not say otherwise.
GROUND = 255


def images(path: str | Path, *, resolution: int | None = None, **options: Unpack[FileOptions]) -> Task:
    """Make a classification task from a folder or zip whose sub-folders are the classes.

    ``train/``, ``val/`` (``valid/``, ``validation/``) and ``test/`` are used where they exist; a missing split is drawn from the training
    images, stratified and seeded. Images of one size keep it; else they are cropped to a square at the centre and resized to the
    median short side, at most 224. Transparent images are put on the grey, black or white that they differ from most; a set of grey images
    has one channel; images of more than 8 bits are scaled by the least usual white that all of them are below, once for the set, or from
    their darkest to their brightest value where these lie close together or below zero. Of animations and of several pages the first is
    used.
    ``resolution`` is the side of the images in pixels; None as above. See ``FileOptions`` for the options.

    Raises:
        FileNotFoundError: If ``path`` does not exist.
        ValueError: If there are no classes or an image cannot be read; the message names the folder or file.
    """
    refuse_wrong_types(images, {"path": path, "resolution": resolution})
    with noting() as said:
        task = _images(path, resolution, options)
    return replace(task, seen={**task.seen, "warnings": said})


def _images(path: str | Path, resolution: int | None, options: FileOptions) -> Task:
    files = open_files(path)
    found = find_classes(files)
    shape, tones, sizes, modes = _probe(files, found, resolution)
    preprocessing = {
        "kind": "image",
        **dict(zip(("channels", "height", "width"), shape, strict=True)),
        "resize": "crop the centre to the aspect ratio, then resize with antialiased bilinear interpolation",
        "scale": 1 / 255,
        **tones,
    }
    task = task_of_files(
        files, found, partial(decode, shape=shape, **tones), shape=shape, dtype=torch.uint8, preprocessing=preprocessing, **options
    )
    if len(set(sizes)) > 1 and resolution is None:
        (low, lower), (high, higher) = min(sizes), max(sizes)
        warnings.warn(
            f"{files.path}: the images differ in size ({lower} x {low} to {higher} x {high}); the centre of each is cropped and resized "
            f"to {shape[1]} x {shape[1]}, --set resolution=N takes another side",
            stacklevel=3,
        )
    named = Counter(f"{width} x {height}" for height, width in sizes)
    return replace(task, seen={"images": {"examined": len(sizes), "sizes": dict(named.most_common()), "modes": dict(modes.most_common())}})


class Look(NamedTuple):
    """What a look at some images of a set tells: the shorter side that `images` would give them, training images, and classes."""

    side: int
    train: int
    classes: int


def look_at(path: str | Path) -> Look | None:
    """Look at a set without reading it all; None where `images` would refuse it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # `images` says the same
            files = open_files(path)
            found = find_classes(files)
            side = min(_probe(files, found, None)[0][1:])
    except (OSError, ValueError):
        return None
    drawn = SHARE * sum(split not in found.splits for split in ("validation", "test"))
    return Look(side, round((1.0 - drawn) * len(found.splits["train"])), len(found.classes))


def decode(data: bytes, shape: tuple[int, int, int], *, white: float | None = None, black: float = 0.0, ground: int = GROUND) -> np.ndarray:
    """Decode one image file to ``(c, h, w)`` uint8: rotated upright, its centre cropped to the aspect ratio, resized.

    Values of more than 8 bits are scaled so that ``white`` becomes 255 and ``black`` 0; transparency is put on the grey ``ground``.
    """
    channels, height, width = shape
    with Image.open(io.BytesIO(data)) as opened:
        # JPEG can decode at a fraction of its size, never below what is needed.
        opened.draft(None, (2 * width, 2 * height))
        image: Image.Image = ImageOps.exif_transpose(opened) if opened.getexif() else opened
        if _is_deep(image):
            image = _to_bytes(image, white, black)
        if image.has_transparency_data:
            clear = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", clear.size, (ground, ground, ground, 255)), clear)
        image = image.convert("L" if channels == 1 else "RGB")
    if image.size != (width, height):
        wide, high = image.size
        share = min(wide / width, high / height)
        left, top = max(0.0, wide - share * width) / 2, max(0.0, high - share * height) / 2  # rounded, it may be just below zero
        box = (left, top, min(wide, left + share * width), min(high, top + share * height))
        # The rows, then the columns: Pillow's own order differs by version and shape, and with it the rounding in between.
        image = image.resize((width, high), Image.Resampling.BILINEAR, box=(box[0], 0, box[2], high))
        image = image.resize((width, height), Image.Resampling.BILINEAR, box=(0, box[1], width, box[3]))
    pixels = np.asarray(image)
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


def prepare(preprocessing: Mapping[str, Any], image: bytes | str | Path) -> np.ndarray:
    """Turn an image file into model input ``(1, c, h, w)`` float32 as a task's ``preprocessing`` describes."""
    data = image if isinstance(image, bytes) else Path(image).read_bytes()
    shape = (int(preprocessing["channels"]), int(preprocessing["height"]), int(preprocessing["width"]))
    tones = {key: preprocessing[key] for key in ("white", "black", "ground") if key in preprocessing}
    return standardised(preprocessing, decode(data, shape, **tones))


def _is_deep(image: Image.Image) -> bool:
    return image.mode in ("I", "F") or image.mode.startswith("I;16")


def _to_bytes(image: Image.Image, white: float | None, black: float) -> Image.Image:
    """Scale an image of more than 8 bits to bytes: of integers the upper bits remain, floats are rounded."""
    floats = image.mode == "F"
    values = np.asarray(image).astype(np.float32) - np.float32(black)
    values = np.nan_to_num(values) * (255.0 / ((white or (1.0 if floats else WHITE)) - black))
    return Image.fromarray(np.clip(values + (0.5 if floats else 0.0), 0, 255).astype(np.uint8))


def _probe(
    files: Files, found: Found, resolution: int | None
) -> tuple[tuple[int, int, int], dict[str, Any], list[tuple[int, int]], Counter[str]]:
    """Learn shape, tones (``white``, ``black`` and ``ground``, where they matter), sizes ``(h, w)`` and modes of a set by some images."""
    where, entries, several, sizes, ends, upper, opaque, bands = str(files.path), found.splits["train"], list[str](), [], [], [], [], []
    modes, grey = Counter[str](), True
    looked = ("mode", "size", "format", "EXIF orientation", "colour profile")
    kinds: dict[str, list[tuple[Any, int]]] = {f"{what} of the images": [] for what in looked}
    for k in spaced(len(entries), PROBED):
        try:
            with Image.open(io.BytesIO(files.read(entries[k][0]))) as image:
                raw = str(image.tile)  # before it is read, as PNG's EXIF makes it
                turned = (orientation := image.getexif().get(274, 1)) in range(5, 9)  # those that exchange width and height
                sizes.append((image.size[0], image.size[1]) if turned else (image.size[1], image.size[0]))
                grey = grey and image.mode in GREY_MODES
                modes[image.mode] += 1
                told = (image.mode, f"{image.width} x {image.height}", image.format, orientation, _profile(image))
                for seen, value in zip(kinds.values(), told, strict=True):
                    seen.append((value, entries[k][1]))
                bands += [getattr(image, "tag_v2", {}).get(277, 0)] * (image.mode in ("RGB", "RGBX"))  # samples per pixel of TIFF
                if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":  # what phones write beside a photograph is no page
                    several.append(entries[k][0])
                if _is_deep(image):
                    values = np.asarray(image, dtype=np.float64)
                    if (values := values[np.isfinite(values)]).size:
                        low, high = values.min(), values.max()
                        inner = values[(values > low) & (values < high)]
                        ends.append((low, high, inner.min(initial=high), inner.max(initial=low)))
                elif ";16" in raw:
                    light = np.asarray(image.convert("L"))
                    upper += [int(light.min()), int(light.max())]
                if image.has_transparency_data:
                    light, alpha = np.asarray(image.convert("RGBA").convert("LA"), dtype=np.float64).transpose(2, 0, 1)
                    opaque += [float((light * alpha).sum() / alpha.sum())] if alpha.sum() > 0 and alpha.min() < 255 else []
        except unreadable():
            continue  # decoding reports it
    warn_of_giveaways(where, kinds, found.classes)
    profiles = Counter(profile for profile, _ in kinds["colour profile of the images"])
    if len(profiles) > 1:
        shown = " and ".join(f"{count} of {name}" for name, count in profiles.most_common(3))
        said = f"the images have several colour profiles, {shown}, which are not applied"
        warnings.warn(f"{where}: {said}; convert them to sRGB, or their colours differ where their contents do not", stacklevel=4)
    if max(bands, default=0) > 3:
        said = f"images have {max(bands)} bands, of which red, green and blue are used; give arrays() with channels if others matter"
        warnings.warn(f"{where}: {said}", stacklevel=4)
    if several:
        said = f"{len(several)} of {len(sizes)} images have several frames or pages, of which the first is used, e.g. {several[0]}"
        warnings.warn(f"{where}: {said}", stacklevel=4)
    if upper and NARROW * (used := max(upper) - min(upper)) < 255:
        said = f"{len(upper) // 2} images of 16 bits a channel are read by their upper 8 bits, of which they use {used + 1} of 256 tones"
        warnings.warn(f"{where}: {said}; save them with 8 bits from their darkest to their brightest", stacklevel=4)
    tones = _tones(where, np.array(ends)) if ends else {}
    if opaque:
        tones["ground"] = max((255, 0, 128), key=lambda tone: np.quantile(np.abs(np.subtract(opaque, tone)), 0.05))
    channels = 1 if grey and sizes else 3
    side = int(min(MAX_SIDE, np.median([min(size) for size in sizes]))) if sizes else 32
    side = side if resolution is None else resolution
    if not 1 <= side <= 2**14:
        raise ValueError(f"resolution must be from 1 to {2**14:,} pixels, got {side}")
    height, width = sizes[0] if resolution is None and len(set(sizes)) == 1 else (side, side)
    return (channels, height, width), tones, sizes, modes


def _profile(image: Image.Image) -> str:
    """Return the name of an image's colour profile, sRGB where there is none or it cannot be read."""
    try:
        named = ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))).strip()
    except (KeyError, OSError, ImportError, ImageCms.PyCMSError):
        return "sRGB"
    return "sRGB" if "srgb" in named.lower() else named


def _tones(where: str, ends: np.ndarray) -> dict[str, Any]:
    """Return what becomes white, and black if it is not 0, of images ``(n, 4)``: lowest and highest value, and those between the two.

    A value far from all others, as of hot pixels and of ``-9999`` for none, is cut off, with a warning.
    """
    low, high, least, most = (float(pick(column)) for pick, column in zip((min, max, min, max), ends.T, strict=True))
    spread = most - least
    if 0 < NARROW * spread < high - low:
        alone = [f"{value:g}" for value, far in ((low, least - low), (high, high - most)) if far > spread]
        low, high = least if least - low > spread else low, most if high - most > spread else high
        said = f"values of {' and '.join(alone)} lie far from all others, {low:g} to {high:g}, and are cut off"
        warnings.warn(f"{where}: {said}; scale the images yourself if these mean something", stacklevel=5)
    white = next((top for top in (1.0, 255.0, 1023.0, 4095.0, 16383.0, WHITE) if high <= top), high)
    narrow = low < 0 or 0 < NARROW * (high - low) < white
    return {"white": high, "black": low - (high == low)} if narrow else {"white": white}
