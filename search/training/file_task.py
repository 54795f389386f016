"""From files sorted by class to a task: decoded once into memory, or read anew in every epoch where they do not fit."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch

from .arrays import channel_statistics
from .image_files import Files, Found
from .memory_data import MemoryData
from .split import split_indices
from .stream_data import StreamData
from .task import Data, Task

#: Sets up to this size are held in memory.
MEMORY_LIMIT_BYTES = 4 * 2**30
#: Mean and deviation are taken from this many training examples at most, so that they are the same in memory and streamed.
STATISTICS_FROM = 4096
#: How a decoder names the bytes that it was given: an address says nothing to a user.
_ADDRESS = re.compile(r"<[^<>]* at 0x[0-9a-f]+>")

Progress = Callable[[int, int], None]
Entries = Sequence[tuple[str, int]]
#: Turns the bytes of a file into an array; raises OSError or ValueError for a broken one. Streaming pickles it.
Decode = Callable[[bytes], np.ndarray]


def task_of_files(
    files: Files,
    found: Found,
    decode: Decode,
    *,
    shape: tuple[int, ...],
    dtype: torch.dtype,
    preprocessing: Mapping[str, Any],
    validation_share: float,
    test_share: float,
    seed: int,
    device: str | torch.device,
    memory_limit_bytes: int,
    workers: int | None,
    skip_unreadable: bool,
    progress: Progress | None,
    name: str | None,
) -> Task:
    """Make a classification task; the arguments that are not here are those of ``images``.

    Args:
        files: Where the files are.
        found: Their classes and splits.
        decode: Decodes one of them to ``shape``.
        shape: ``(c, h, w)``.
        dtype: uint8 or float32.
        preprocessing: What leads from a file to ``decode``'s result; ``mean`` and ``std`` are added.
        validation_share: Share for a validation split that is not there.
        test_share: Share for a test split that is not there.
        seed: Draws the splits.
        device: Where the examples live at first.
        memory_limit_bytes: A larger set is streamed.
        workers: Threads or processes; None for the number of cores.
        skip_unreadable: Leave out files that cannot be read.
        progress: Called with the number of files decoded and their total.
        name: Name of the task; None for that of the folder or zip.
    """
    splits = _deal(found, validation_share, test_share, seed)
    everything = [entry for entries in splits.values() for entry in entries]
    cores = workers if workers is not None else len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
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
            # A split lies in one piece, so that a slice does without a second copy of it, unless files were left out.
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
    """Files decoded one by one when they are asked for."""

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
    """Decode files with several threads.

    Returns:
        ``(n, *shape)`` examples and ``(n,)`` which of them could be read.

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
        # An error or Ctrl-C must not wait for thousands of files that nobody will use.
        pool.shutdown(cancel_futures=True)
    if not readable.all():
        first = entries[int(np.flatnonzero(~readable)[0])][0]
        warnings.warn(f"{files.path}: left out {int((~readable).sum())} unreadable files, the first is {first}", stacklevel=4)
    return decoded, readable


def decode_named(files: Files, name: str, decode: Decode) -> np.ndarray:
    """Decode one file.

    Raises:
        ValueError: If it cannot be read; the message names it.
    """
    try:
        return np.ascontiguousarray(decode(files.read(name)))
    except (OSError, ValueError, SyntaxError, EOFError) as error:  # what Pillow and zipfile raise for broken files
        reason = " ".join(str(error).split()) or type(error).__name__
        reason = _ADDRESS.sub("", reason).strip()
        raise ValueError(
            f"cannot read {files.path / name}: {reason[:120]}; remove it, or leave out what cannot be read with "
            "--set skip_unreadable=true (Python: skip_unreadable=True)"
        ) from error


def spaced(count: int, most: int) -> list[int]:
    """Return at most ``most`` evenly spaced positions in ``0 .. count-1``."""
    return sorted({k * count // min(count, most) for k in range(min(count, most))})


def _deal(found: Found, validation_share: float, test_share: float, seed: int) -> dict[str, Entries]:
    """Use the splits that are there and make the others from the training files."""
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
