"""Finds the images of a folder or zip: classes, splits, and what is wrong with them."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

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


class Files(Protocol):
    """A tree of files."""

    @property
    def path(self) -> Path:
        """Where it lies."""
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
    """Files in a zip, read in place; each process opens it for itself."""

    def __init__(self, path: Path) -> None:
        """Open the archive when it is first needed."""
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
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path} is neither a folder nor a zip; give one with a sub-folder for each class")
    return Zip(path)


@dataclass(frozen=True)
class Found:
    """Images by split.

    Attributes:
        classes: Class names, sorted.
        splits: ``(name, class number)`` of each image by ``train``, ``validation``, ``test``; only the splits that are there.
    """

    classes: tuple[str, ...]
    splits: Mapping[str, tuple[tuple[str, int], ...]]


def find_classes(files: Files, suffixes: frozenset[str] = SUFFIXES, *, noun: str = "images") -> Found:
    """Sort the files of some kind by split and class.

    Sub-folders are classes. Folders ``train``, ``val`` (``valid``, ``validation``) and ``test`` are splits of such sub-folders.
    A single folder around everything is seen through. Hidden files and those of other kinds are passed over.

    Raises:
        ValueError: If there are no images, no class folders, one class only, or a class without (training) images.
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
