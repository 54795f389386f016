"""Tasks from the files of a folder or zip: every file is decoded into one task, in memory or as it is needed.

What is in a file is decided by ``images.py`` and ``audio.py``, which hand in a function that decodes one.
"""

from __future__ import annotations

import hashlib
import re
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import torch

from ..argument_types import refuse_wrong_types
from ..threads import cores
from .arrays import channel_statistics
from .file_tree import Files, Found, unreadable
from .recipe import pick_device
from .splits_data import ItemError, MemoryData, StreamData
from .task import Data, Raw, Task, complete_splits, warn_of_absent_classes

#: Data sets up to this size are held in memory.
MEMORY_LIMIT_BYTES = 4 * 2**30
#: Mean and deviation are taken from so many training examples, and bytes, at most, so that they are equal in memory and streamed.
STATISTICS_FROM, STATISTICS_BYTES = 4096, 2**30
#: Of the training examples that becomes a split that is missing.
SHARE = 0.15
#: Fewer files with a value are chance.
FEWEST = 5
#: How a decoder names the bytes that it was given; a memory address does not help a user.
_ADDRESS = re.compile(r"<[^<>]* at 0x[0-9a-f]+>")
Progress = Callable[[int, int], None]
Entries = Sequence[tuple[str, int]]
#: Turns the bytes of a file into an array; raises one of ``unreadable()`` for a broken one. Streaming pickles it.
Decode = Callable[[bytes], np.ndarray]


class FileOptions(TypedDict, total=False):
    """What tasks of files have in common, whatever is in the files.

    The shares, 0.15 by default, are for splits that are missing; a ``test_share`` of 0 is for none. Examples are put on ``device`` at
    first; a training on another device moves them once. A set above ``memory_limit_bytes`` is not decoded in advance but read again in
    every epoch. ``workers`` are threads that decode, or processes that read such a larger set; None is the number of cores.
    ``skip_unreadable`` leaves out files that cannot be read and names them in a warning, instead of raising; a set that is not held in
    memory is decoded once for it.
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
    validation_share: float = SHARE,
    test_share: float = SHARE,
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
    refuse_wrong_types(task_of_files, locals())
    device = pick_device(device)
    splits = _split(found, validation_share, test_share, seed)
    everything = [entry for entries in splits.values() for entry in entries]
    threads = workers if workers is not None else cores()
    in_memory = len(everything) * int(np.prod(shape)) * dtype.itemsize <= memory_limit_bytes
    most = min(STATISTICS_FROM, 1 + STATISTICS_BYTES // (int(np.prod(shape)) * dtype.itemsize))
    wanted = everything if in_memory else [splits["train"][k] for k in spaced(len(splits["train"]), most)]
    how: dict[str, Any] = {"shape": shape, "dtype": dtype, "threads": threads, "skip_unreadable": skip_unreadable, "progress": progress}
    if not in_memory and skip_unreadable:
        _, readable = decode_all(files, everything, decode, keep=False, **how)
        splits = _split(_without(found, everything, readable), validation_share, test_share, seed)
        wanted = [splits["train"][k] for k in spaced(len(splits["train"]), most)]
    marks: dict[int, bytes] = {}
    decoded, readable = decode_all(files, wanted, decode, marks=marks, **how)
    parts: dict[str, Data] = {}
    if in_memory:
        if not readable.all():  # the splits are drawn of what is left: a small one might have lost all of a class
            splits = _split(_without(found, everything, readable), validation_share, test_share, seed)
        places = {entry: k for k, entry in enumerate(everything)}
        kept = {split: np.array([places[entry] for entry in entries], dtype=int) for split, entries in splits.items()}
        _warn_of_copies(files, everything, {int(k): split for split, rows in kept.items() for k in rows}, marks)
        mean, deviation = channel_statistics(decoded[kept["train"][spaced(len(kept["train"]), most)]].numpy())
        for split, rows in kept.items():
            # A split is contiguous, so that a slice does without a second copy of it, unless files were left out.
            joined = len(rows) > 0 and bool((np.diff(rows) == 1).all())
            part, labels = decoded[rows[0] : rows[-1] + 1] if joined else decoded[rows], [label for _, label in splits[split]]
            parts[split] = MemoryData(part.to(device), torch.tensor(labels).to(device), mean=mean, deviation=deviation)
    else:
        mean, deviation = channel_statistics(decoded[torch.from_numpy(readable)].numpy())
        for split, entries in splits.items():
            parts[split] = StreamData(FileItems(files, entries, decode), workers=threads, mean=mean, deviation=deviation)
    for split, entries in splits.items():
        parts[split].raw = Raw(files, tuple(name for name, _ in entries))
    labels_of = {split: np.array([label for _, label in entries], dtype=int) for split, entries in splits.items()}
    warn_of_absent_classes(str(files.path), found.classes, labels_of)
    _warn_of_series(files, splits)
    whole = {**preprocessing, "mean": mean, "std": deviation}
    three = (parts["train"], parts["validation"], parts.get("test"))
    return Task(name or files.path.stem, "classification", *three, shape, found.classes, whole)


class FileItems(torch.utils.data.Dataset[tuple[torch.Tensor, int]]):
    """Files that are decoded one by one, on access."""

    def __init__(self, files: Files, entries: Entries, decode: Decode) -> None:
        """Read ``entries`` of ``files``."""
        self._files, self._entries, self._decode = files, list(entries), decode

    def __len__(self) -> int:
        """Number of files."""
        return len(self._entries)

    def fingerprint(self) -> str:
        """Return a hash of which files these are, as they are now, and how they are decoded; none is read."""
        decode = getattr(self._decode, "func", self._decode)
        how = getattr(decode, "__qualname__", type(decode)), getattr(self._decode, "args", ()), getattr(self._decode, "keywords", {})
        digest = hashlib.sha256(f"{self._files.path.resolve()} {how}".encode())
        for name, label in self._entries:
            digest.update(f"{name} {label} {self._files.stamp(name)}\n".encode())
        return digest.hexdigest()

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
    keep: bool = True,
    marks: dict[int, bytes] | None = None,
) -> tuple[torch.Tensor, np.ndarray]:
    """Decode files with several threads to ``(n, *shape)`` examples; also return which of them could be read, ``(n,)``.

    Without ``keep`` the examples are not: only whether they could be read. ``marks`` gets a hash of what each shows.

    Raises:
        ValueError: If one cannot be read, unless they are to be skipped; if none can.
    """
    decoded = torch.zeros((len(entries) if keep else 0, *shape), dtype=dtype)
    view, readable, reasons = decoded.numpy(), np.ones(len(entries), dtype=bool), {}
    block = 256

    def work(first: int) -> int:
        last = min(first + block, len(entries))
        for k in range(first, last):
            try:
                example = decode_named(files, entries[k][0], decode if marks is None else partial(_marked, decode, marks, k))
                if keep:
                    view[k] = example
            except ValueError as error:
                if not skip_unreadable:
                    raise
                readable[k], reasons[k] = False, error.__cause__
        return last - first

    done = 0
    begun = list[int]()
    pool = ThreadPoolExecutor(max(1, threads), initializer=lambda: begun.append(threading.get_native_id()))
    try:
        for count in pool.map(work, range(0, len(entries), block)):
            done += count
            if progress is not None:
                progress(done, len(entries))
    finally:
        # After an error or Ctrl-C, thousands of files that nobody will use need not be decoded.
        pool.shutdown(cancel_futures=True)
        _wait_until_gone(begun)
    if reasons and not readable.any():
        first = min(reasons)
        said = f"e.g. {entries[first][0]}: {_reason(reasons[first])[:120]}"
        raise ValueError(f"none of {len(entries)} files of {files.path} can be read, {said}")
    if reasons:
        shown = [f"{entries[k][0]} ({_reason(reasons[k])[:60]})" for k in sorted(reasons)[:20]] + ["..."] * (len(reasons) > 20)
        warnings.warn(f"{files.path}: left out {len(reasons)} unreadable file{'s' * (len(reasons) > 1)}: {', '.join(shown)}", stacklevel=4)
    return decoded, readable


def _wait_until_gone(threads: Sequence[int]) -> None:
    """Wait a second at most until the system has ended threads that Python has ended: until then they hold locks of linear algebra.

    A process that is forked meanwhile, as to stream the examples, has such a lock for ever and hangs.
    """
    end = time.monotonic() + 1.0
    while time.monotonic() < end and any(Path(f"/proc/self/task/{one}").exists() for one in threads):
        time.sleep(0.0005)


def decode_named(files: Files, name: str, decode: Decode) -> np.ndarray:
    """Decode one file; one that cannot be read raises a ValueError that names it."""
    try:
        return np.ascontiguousarray(decode(files.read(name)))
    except unreadable() as error:
        said = f"cannot read {files.path / name}: {_reason(error)[:120]}; remove it, or leave out what cannot be read"
        raise ItemError(f"{said} with --set skip_unreadable=true (Python: skip_unreadable=True)") from error


def _marked(decode: Decode, marks: dict[int, bytes], k: int, data: bytes) -> np.ndarray:
    example = np.ascontiguousarray(decode(data))
    plain = bool((example == example[:, :1, :1]).all())  # of one colour, or silent: whatever the files are
    marks[k] = hashlib.blake2b(data if plain else example.data, digest_size=12).digest()
    return example


def _warn_of_series(files: Files, splits: Mapping[str, Entries]) -> None:
    """Warn where the names of files tell that several are of one person or thing, as ``patient12_03.png``, and these lie in two splits."""
    series, classes = dict[str, Counter[str]](), dict[str, set[int]]()
    everything = [(split, *entry) for split, entries in splits.items() for entry in entries]
    for split, name, label in everything:
        path = name.rpartition(".")[0]
        found = re.match(r"(.*[^ _.-])[ _.-]+[^ _.-]+$", path.rpartition("/")[2])
        stem = found[1] if found else path  # of one picture in two formats
        series.setdefault(stem, Counter())[split] += 1
        classes.setdefault(stem, set()).add(label)
    several = {stem: where for stem, where in series.items() if where.total() > 1}
    apart = [stem for stem, where in several.items() if len(where) > 1]
    # Fewer are names of the classes, unless they are in several of these.
    shared = sum(len(classes[stem]) > 1 for stem in several)
    many = len(several) >= FEWEST * len({label for _, _, label in everything}) or shared >= FEWEST
    if apart and many and 2 * sum(where.total() for where in several.values()) >= len(everything):
        said = f"by their names, files are {len(several)} series, e.g. {apart[0]}*, of which {len(apart)} lie in several splits"
        remedy = "if one is of one person or thing, quality looks too good: divide them into train/, val/ and test/ yourself"
        warnings.warn(f"{files.path}: {said}; {remedy}", stacklevel=5)


def _warn_of_copies(files: Files, entries: Entries, splits: Mapping[int, str], marks: Mapping[int, bytes]) -> None:
    """Warn of files that look or sound the same, in any format, and lie in two classes or in two splits."""
    alike: dict[bytes, list[int]] = {}
    for k in sorted(marks.keys() & splits.keys()):
        alike.setdefault(marks[k], []).append(k)
    groups = [group for group in alike.values() if len(group) > 1]
    torn = [group for group in groups if len({entries[k][1] for k in group}) > 1]
    leaked = [group for group in groups if len({splits[k] for k in group}) > 1]
    too_good = "several splits, whose quality then looks too good"
    for found, where, remedy in ((torn, "several classes", "keep each in one"), (leaked, too_good, "remove the copies")):
        if found:
            one, *rest = found[0]
            other = next(k for k in rest if (entries[k][1], splits[k]) != (entries[one][1], splits[one]))
            said = f"{sum(map(len, found))} files have the same content in {where}, e.g. {entries[one][0]} and {entries[other][0]}"
            warnings.warn(f"{files.path}: {said}; {remedy}", stacklevel=4)


def warn_of_giveaways(where: str, kinds: Mapping[str, Sequence[tuple[Any, int]]], classes: Sequence[str]) -> None:
    """Warn where each of few values, of ``(value, class number)`` of a kind, occurs in one class alone, so that it tells the class."""
    for what, seen in kinds.items():
        of: dict[Any, list[int]] = {}
        for value, label in seen:
            of.setdefault(value, []).append(label)
        if 1 < len(of) <= len(classes) and all(len(labels) >= FEWEST and len({*labels}) == 1 for labels in of.values()):
            told = ", ".join(f"{value} in {classes[labels[0]]!r}" for value, labels in list(of.items())[:3])
            said = f"the {what} tells the class ({told}); make all alike, or models learn that in place of the content"
            warnings.warn(f"{where}: {said}", stacklevel=4)


def _reason(error: BaseException | None) -> str:
    return _ADDRESS.sub("", " ".join(str(error).split()) or type(error).__name__).strip()


def standardised(preprocessing: Mapping[str, Any], example: np.ndarray) -> np.ndarray:
    """Scale and standardise one decoded example ``(c, h, w)`` as a task's ``preprocessing`` describes; returns ``(1, c, h, w)`` float32."""
    mean, deviation = (np.asarray(preprocessing[key], dtype=np.float32)[:, None, None] for key in ("mean", "std"))
    return np.asarray((example.astype(np.float32) * np.float32(preprocessing["scale"]) - mean) / deviation)[None]


def spaced(count: int, most: int) -> list[int]:
    """Return at most ``most`` evenly spaced positions in ``0 .. count-1``."""
    return sorted({k * count // min(count, most) for k in range(min(count, most))})


def _without(found: Found, entries: Entries, readable: np.ndarray) -> Found:
    """Return what was found without the entries that cannot be read."""
    lost = {entry for entry, one in zip(entries, readable, strict=True) if not one}
    return replace(found, splits={split: tuple(one for one in part if one not in lost) for split, part in found.splits.items()})


def _split(found: Found, validation_share: float, test_share: float, seed: int) -> dict[str, Entries]:
    everything = [entry for entries in found.splits.values() for entry in entries]
    lengths = {split: len(entries) for split, entries in found.splits.items()}
    labels = np.array([label for _, label in everything])
    parts = complete_splits(labels, lengths, validation_share=validation_share, test_share=test_share, seed=seed)
    splits = {split: [everything[k] for k in rows] for split, rows in zip(("train", "validation", "test"), parts, strict=True)}
    return {split: entries for split, entries in splits.items() if entries or split != "test"}
