"""Tasks from a folder or zip of files: the tree of files, its classes and splits, and the decoding of every file into one task.

What is in a file is decided by ``images.py`` and ``audio.py``, which hand in a function that decodes one.
"""

from __future__ import annotations

import os
import re
import struct
import warnings
import wave
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Protocol, TypedDict

import numpy as np
import torch
from PIL import Image

from .arrays import channel_statistics
from .device import available_cores
from .splits_data import MemoryData, StreamData
from .task import Data, Task, complete_splits

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm"})
SPLITS = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}
#: Data sets up to this size are held in memory.
MEMORY_LIMIT_BYTES = 4 * 2**30
#: Mean and deviation are taken from this many training examples at most, so that they are equal in memory and streamed.
STATISTICS_FROM = 4096
#: What the readers of zips, images and recordings raise for bytes that they cannot read; a bomb is an image over Pillow's limit of pixels.
UNREADABLE = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    LookupError,
    RuntimeError,  # an encrypted member of a zip; NotImplementedError: its compression is unknown
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    Image.DecompressionBombError,
    wave.Error,
)
#: How a decoder names the bytes that it was given; a memory address does not help a user.
_ADDRESS = re.compile(r"<[^<>]* at 0x[0-9a-f]+>")
Progress = Callable[[int, int], None]
Entries = Sequence[tuple[str, int]]
#: Turns the bytes of a file into an array; raises one of ``UNREADABLE`` for a broken one. Streaming pickles it.
Decode = Callable[[bytes], np.ndarray]


class Files(Protocol):
    """A tree of files."""

    @property
    def path(self) -> Path:
        """Path of the folder or zip."""
        ...

    def names(self) -> list[str]:
        """Relative names with forward slashes; a folder ends in a slash."""
        ...

    def read(self, name: str) -> bytes:
        """Contents of one file."""
        ...


@dataclass(frozen=True)
class Folder:
    """Files in a folder."""

    path: Path

    def names(self) -> list[str]:
        """Return every file and folder below."""
        found = []
        for parent, folders, files in os.walk(self.path, followlinks=True):
            base = Path(parent).relative_to(self.path)
            found += [(base / name).as_posix() + "/" for name in folders] + [(base / name).as_posix() for name in files]
        return found

    def read(self, name: str) -> bytes:
        """Read one file."""
        return (self.path / name).read_bytes()


class Zip:
    """Files in a zip, read in place; each process opens its own handle."""

    def __init__(self, path: Path) -> None:
        """Name the archive; it is opened on first use."""
        self.path = path
        self._open: tuple[int, zipfile.ZipFile] | None = None

    def names(self) -> list[str]:
        """Return every entry."""
        return self._archive().namelist()

    def read(self, name: str) -> bytes:
        """Read one entry."""
        return self._archive().read(name)

    def _archive(self) -> zipfile.ZipFile:
        # A forked worker shares the file position with its parent, so it must not use the parent's handle.
        if self._open is None or self._open[0] != os.getpid():
            self._open = (os.getpid(), zipfile.ZipFile(self.path))
        return self._open[1]

    def __getstate__(self) -> dict[str, object]:
        return {"path": self.path, "_open": None}


def open_files(path: str | Path) -> Files:
    """Return the files of a folder or zip.

    Raises:
        FileNotFoundError: If there is nothing at the path.
        ValueError: If it is a file, but no zip.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        return Folder(path)
    if not path.exists():
        raise FileNotFoundError(f"no data at {path}; give a folder or a zip with one sub-folder for each class")
    archive = Zip(path)
    try:
        archive.names()
    except UNREADABLE as error:
        raise ValueError(f"{path} is neither a folder nor a zip ({error}); give one with a sub-folder for each class") from error
    return archive


@dataclass(frozen=True)
class Found:
    """Sorted class names of a tree, and ``(name, class number)`` of each file by split; only the splits that exist."""

    classes: tuple[str, ...]
    splits: Mapping[str, tuple[tuple[str, int], ...]]


def find_classes(files: Files, suffixes: frozenset[str] = SUFFIXES, *, noun: str = "images") -> Found:
    """Sort the files of some kind by split and class.

    Sub-folders are classes. Folders ``train``, ``val`` (``valid``, ``validation``) and ``test`` are splits of such sub-folders.
    A single folder around everything is ignored, and so are hidden files and those of other kinds.

    Raises:
        ValueError: If there are no files of this kind, no class folders, one class only, or a class without (training) files.
    """
    where = files.path
    paths = [(name, PurePosixPath(name)) for name in files.names()]
    paths = [(name, path) for name, path in paths if not any(part.startswith((".", "__MACOSX")) for part in path.parts)]
    images = [(name, path.parts) for name, path in paths if not name.endswith("/") and path.suffix.lower() in suffixes]
    if not images:
        raise ValueError(f"no {noun} in {where}; they must end in one of {', '.join(sorted(suffixes))}")
    folders = {path.parts[:depth] for name, path in paths for depth in range(1, len(path.parts) + name.endswith("/"))}
    # A zip often holds one folder with everything in it; a folder that holds images itself is a class and stays.
    wrapped = len({parts[0] for _, parts in images}) == 1 and any(len(parts) >= 3 for _, parts in images)
    wrapper = images[0][1][0]
    if wrapped and wrapper.lower() not in SPLITS:
        images = [(name, parts[1:]) for name, parts in images]
        folders = {parts[1:] for parts in folders if parts[0] == wrapper and len(parts) > 1}
    tops = {parts[0].lower() for parts in folders if len(parts) == 1}
    split_layout = bool(tops & SPLITS.keys())
    if split_layout and not any(SPLITS.get(top) == "train" for top in tops):
        raise ValueError(f"{where} has {', '.join(sorted(tops & SPLITS.keys()))}/ but no train/; add it, or leave out the split folders")
    depth = 1 if split_layout else 0
    loose = [name for name, parts in images if len(parts) <= depth + 1 and (not split_layout or parts[0].lower() in SPLITS)]
    if loose:
        raise ValueError(f"{where} has {len(loose)} {noun} outside of a class folder, for example {loose[0]}; move each into its class")
    known = [parts for parts in folders if len(parts) == depth + 1 and (not split_layout or parts[0].lower() in SPLITS)]
    classes = tuple(sorted({parts[depth] for parts in known}))
    if len(classes) < 2:
        raise ValueError(f"{where} has only one class folder, {classes[0]}/; a classification needs at least two")
    if strange := [name for name in classes if not name.isprintable()]:
        raise ValueError(f"{where}: the name of a class folder must be printable, got {strange[0]!r}; rename the folder")
    numbers = {name: k for k, name in enumerate(classes)}
    splits: dict[str, list[tuple[str, int]]] = {}
    for name, parts in sorted(images):
        split = SPLITS.get(parts[0].lower()) if split_layout else "train"
        if split is not None:
            splits.setdefault(split, []).append((name, numbers[parts[depth]]))
    trained = {label for _, label in splits.get("train", [])}
    if empty := [name for name in classes if numbers[name] not in trained]:
        part = " of the training split" if split_layout else ""
        raise ValueError(f"{where}: the class folder {empty[0]}/{part} has no {noun}; remove the folder or fill it ({len(empty)} empty)")
    return Found(classes, {split: tuple(entries) for split, entries in splits.items()})


class FileOptions(TypedDict, total=False):
    """What tasks of files have in common, whatever is in the files.

    The shares, 0.15 by default, are for splits that are missing; a ``test_share`` of 0 is for none. Examples are put on ``device`` at
    first; a training on another device moves them once. A set above ``memory_limit_bytes`` is not decoded in advance but read again in
    every epoch. ``workers`` are threads that decode, or processes that read such a larger set; None is the number of cores.
    ``skip_unreadable`` leaves out files that cannot be read and warns with their number, instead of raising (sets in memory only).
    ``progress`` is called with the number of files decoded and their total. The name is by default that of the folder or zip.
    """

    validation_share: float
    test_share: float
    seed: int
    device: str | torch.device
    memory_limit_bytes: int
    workers: int | None
    skip_unreadable: bool
    progress: Progress | None
    name: str | None


def task_of_files(
    files: Files,
    found: Found,
    decode: Decode,
    *,
    shape: tuple[int, ...],
    dtype: torch.dtype,
    preprocessing: Mapping[str, Any],
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
    """Make a classification task from files that ``decode`` turns into arrays ``(c, h, w)``, uint8 or float32.

    ``preprocessing`` is how a file becomes ``decode``'s result; ``mean`` and ``std`` are added. See ``FileOptions`` for the options.
    """
    splits = _split(found, validation_share, test_share, seed)
    everything = [entry for entries in splits.values() for entry in entries]
    cores = workers if workers is not None else available_cores()
    in_memory = len(everything) * int(np.prod(shape)) * dtype.itemsize <= memory_limit_bytes
    wanted = everything if in_memory else [splits["train"][k] for k in spaced(len(splits["train"]), STATISTICS_FROM)]
    decoded, readable = decode_all(
        files, wanted, decode, shape=shape, dtype=dtype, threads=cores, skip_unreadable=skip_unreadable, progress=progress
    )
    parts: dict[str, Data] = {}
    if in_memory:
        bounds = np.cumsum([0, *(len(entries) for entries in splits.values())])
        labels = torch.tensor([label for _, label in everything])
        kept = {split: np.flatnonzero(readable[a:b]) + a for split, a, b in zip(splits, bounds, bounds[1:], strict=False)}
        mean, deviation = channel_statistics(decoded[kept["train"][spaced(len(kept["train"]), STATISTICS_FROM)]].numpy())
        for split, rows in kept.items():
            # A split is contiguous, so that a slice does without a second copy of it, unless files were left out.
            whole = len(rows) > 0 and rows[-1] - rows[0] + 1 == len(rows)
            part = decoded[rows[0] : rows[-1] + 1] if whole else decoded[rows]
            parts[split] = MemoryData(part.to(device), labels[rows].to(device), mean=mean, deviation=deviation)
    else:
        mean, deviation = channel_statistics(decoded[torch.from_numpy(readable)].numpy())
        for split, entries in splits.items():
            parts[split] = StreamData(FileItems(files, entries, decode), workers=cores, mean=mean, deviation=deviation)
    return Task(
        name or files.path.stem,
        "classification",
        parts["train"],
        parts["validation"],
        parts.get("test"),
        shape,
        found.classes,
        {**preprocessing, "mean": mean, "std": deviation},
    )


class FileItems(torch.utils.data.Dataset[tuple[torch.Tensor, int]]):
    """Files that are decoded one by one, on access."""

    def __init__(self, files: Files, entries: Entries, decode: Decode) -> None:
        """Read ``entries`` of ``files``."""
        self._files, self._entries, self._decode = files, list(entries), decode

    def __len__(self) -> int:
        """Number of files."""
        return len(self._entries)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        """Decode one file."""
        name, label = self._entries[index]
        return torch.from_numpy(decode_named(self._files, name, self._decode)), label


def decode_all(
    files: Files,
    entries: Entries,
    decode: Decode,
    *,
    shape: tuple[int, ...],
    dtype: torch.dtype,
    threads: int,
    skip_unreadable: bool = False,
    progress: Progress | None = None,
) -> tuple[torch.Tensor, np.ndarray]:
    """Decode files with several threads to ``(n, *shape)`` examples; also return which of them could be read, ``(n,)``.

    Raises:
        ValueError: If one cannot be read, unless they are to be skipped.
    """
    decoded = torch.zeros((len(entries), *shape), dtype=dtype)
    view, readable = decoded.numpy(), np.ones(len(entries), dtype=bool)
    block = 256

    def work(first: int) -> int:
        last = min(first + block, len(entries))
        for k in range(first, last):
            try:
                view[k] = decode_named(files, entries[k][0], decode)
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
        # After an error or Ctrl-C, thousands of files that nobody will use need not be decoded.
        pool.shutdown(cancel_futures=True)
    if not readable.all():
        first = entries[int(np.flatnonzero(~readable)[0])][0]
        warnings.warn(f"{files.path}: left out {int((~readable).sum())} unreadable files, the first is {first}", stacklevel=4)
    return decoded, readable


def decode_named(files: Files, name: str, decode: Decode) -> np.ndarray:
    """Decode one file; one that cannot be read raises a ValueError that names it."""
    try:
        return np.ascontiguousarray(decode(files.read(name)))
    except UNREADABLE as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        reason = _ADDRESS.sub("", reason).strip()
        raise ValueError(
            f"cannot read {files.path / name}: {reason[:120]}; remove it, or leave out what cannot be read with "
            "--set skip_unreadable=true (Python: skip_unreadable=True)"
        ) from error


def standardised(preprocessing: Mapping[str, Any], example: np.ndarray) -> np.ndarray:
    """Scale and standardise one decoded example ``(c, h, w)`` as a task's ``preprocessing`` describes; returns ``(1, c, h, w)`` float32."""
    mean, deviation = (np.asarray(preprocessing[key], dtype=np.float32)[:, None, None] for key in ("mean", "std"))
    return np.asarray((example.astype(np.float32) * np.float32(preprocessing["scale"]) - mean) / deviation)[None]


def spaced(count: int, most: int) -> list[int]:
    """Return at most ``most`` evenly spaced positions in ``0 .. count-1``."""
    return sorted({k * count // min(count, most) for k in range(min(count, most))})


def _split(found: Found, validation_share: float, test_share: float, seed: int) -> dict[str, Entries]:
    everything = [entry for entries in found.splits.values() for entry in entries]
    lengths = {split: len(entries) for split, entries in found.splits.items()}
    labels = np.array([label for _, label in everything])
    parts = complete_splits(labels, lengths, validation_share=validation_share, test_share=test_share, seed=seed)
    splits = {split: [everything[k] for k in rows] for split, rows in zip(("train", "validation", "test"), parts, strict=True)}
    return {split: entries for split, entries in splits.items() if entries or split != "test"}
