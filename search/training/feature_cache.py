"""Features on disk: computed once, and then shared by trials, workers and later runs on the same data.

An entry is a folder that is named by a hash of all that its values depend on, so it is never out of date. It holds the features of the
first images of a fixed order, and can be extended. What is read is data alone (npy without pickle, JSON), its sizes are checked, and an
entry that does not fit is computed anew. Entries beyond a bound are dropped, those that nobody has used for longest first.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NotRequired, TypedDict, cast

import numpy as np
from filelock import FileLock

from ..argument_types import plain_values
from ..energy import Record
from ..energy.calibrations import cache_folder
from ..energy.journal import fitted, parse
from ..energy.record import scaled
from ..whole_file import whole_file
from .task import Data

#: Environment variable that names the folder of the features.
VARIABLE = "JOULEFRONT_CACHE"
#: All entries together are kept below this; the features of a million images take 1 to 6 GB.
LIMIT_BYTES = 20 * 2**30
#: The least deviation of a feature, as a share of the median of all.
LEAST = 0.1
#: Format of an entry; another one is computed anew.
FORMAT = 1
_FACTS, _FEATURES, _TARGETS = "facts.json", "features.npy", "targets.npy"
#: Names of the folders that are ours.
_KEY = re.compile(r"[0-9a-f]{32}")


class TooLargeError(ValueError):
    """A feature is too large for the precision in which it is to be stored."""


class _Stored(TypedDict):
    images: int
    record: Record
    once: NotRequired[Record | None]
    slower: NotRequired[float]


class _Priced(TypedDict):
    prices: NotRequired[Mapping[str, _Stored]]


@dataclass(frozen=True)
class Price:
    """What computing features took.

    Attributes:
        images: Number of images of the pass.
        record: The ledger's record of the pass.
        once: That of finding and making the way of running the network, which any number of images needs once; None where there is none.
        slower: How many times as long the plain way takes, which needs nothing.
    """

    images: int
    record: Record
    once: Record | None = None
    slower: float = 1.0

    def of(self, images: int) -> tuple[Record, ...]:
        """Return what so many images cost by themselves: few of them are cheaper the plain way."""
        each = scaled(self.record, images / self.images)
        if self.once is None:
            return (each,)
        if self.slower > 1.0 and self.once.known_joules > (self.slower - 1.0) * each.known_joules:
            return (scaled(each, self.slower),)
        return self.once, each


@dataclass(frozen=True)
class Entry:
    """What was stored: features ``(n, d)`` in float16 (float32 where that is too small), mapped from the file, and targets ``(n, ...)``."""

    features: np.ndarray
    targets: np.ndarray


@dataclass(frozen=True)
class FeatureCache:
    """The features in one folder.

    Attributes:
        folder: Where they are; it need not exist yet.
        limit_bytes: All entries together are kept below this.
        place: What energies depend on besides the entry (hardware, device, threads, meters): prices are kept for each place. None where
            nobody asks for prices.
    """

    folder: Path
    limit_bytes: int = LIMIT_BYTES
    place: str | None = None

    @classmethod
    def of_user(cls, place: str | None = None, otherwise: Path | None = None) -> FeatureCache:
        """Return the cache of this user: the folder that ``JOULEFRONT_CACHE`` names, or ``features`` in the user's cache folder.

        Where nobody may write to the latter, the folder ``otherwise`` is taken.
        """
        named = os.environ.get(VARIABLE)
        folder = Path(named).expanduser().absolute() if named else cache_folder() / "features"
        there = next(path for path in (folder, *folder.parents) if path.exists())
        usable = named or otherwise is None or (there.is_dir() and os.access(there, os.W_OK | os.X_OK))
        return cls(folder if usable or otherwise is None else otherwise, place=place)

    def open(self, key: str, rows: int) -> Entry | None:
        """Return the first ``rows`` of an entry, or None where it is missing, too short or damaged."""
        folder = self.folder / key
        if self.known_rows(key) < rows:
            return None
        try:
            features, targets = _mapped(folder / _FEATURES), _mapped(folder / _TARGETS)
        except (OSError, ValueError):
            return None
        if features.ndim != 2 or features.dtype.kind != "f" or targets.dtype.kind not in "iuf" or min(len(features), len(targets)) < rows:
            return None
        with contextlib.suppress(OSError):
            os.utime(folder / _FACTS)  # it was used
        return Entry(features[:rows], targets[:rows])

    def known_rows(self, key: str) -> int:
        """Return how many rows an entry has; 0 where there is none."""
        rows = (self._facts(key) or {}).get("rows")
        return rows if isinstance(rows, int) else 0

    @contextlib.contextmanager
    def locked(self, keys: Iterable[str]) -> Iterator[None]:
        """Hold entries: what two processes need at once is computed by one of them, and the other waits.

        Raises:
            OSError: If the folder cannot be written to.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as held:
            for key in sorted(set(keys)):  # in one order, so that no two wait for each other
                held.enter_context(FileLock(self._lock(key)))
            yield

    def write(
        self, key: str, facts: Mapping[str, Any], rows: int, blocks: Iterable[tuple[np.ndarray, np.ndarray]], *, dtype: str = "float16"
    ) -> None:
        """Store an entry whole, then drop what is beyond the bound.

        ``blocks`` are features ``(b, d)`` and their targets, ``rows`` in all.

        Raises:
            TooLargeError: If a feature is not finite in ``dtype``.
            OSError: If the disk is full, or the folder cannot be written to.
        """
        folder = self.folder / key
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob("*.tmp"):  # by a process that was killed: who writes holds the entry
            left.unlink(missing_ok=True)
        targets: list[np.ndarray] = []
        done = 0
        with whole_file(folder / _FEATURES) as unfinished, unfinished.open("wb") as file:
            for features, wanted in blocks:
                with np.errstate(over="ignore"):
                    stored = np.ascontiguousarray(features, dtype=dtype)
                if not np.isfinite(stored).all():
                    raise TooLargeError(f"a feature is not finite in {dtype}")
                if not targets:
                    header = {"descr": stored.dtype.str, "fortran_order": False, "shape": (rows, stored.shape[1])}
                    np.lib.format.write_array_header_1_0(file, header)
                file.write(stored.data)
                targets.append(wanted)
                done += len(stored)
            if done != rows:
                raise ValueError(f"the split must have {rows} examples, got {done}")
        with whole_file(folder / _TARGETS) as unfinished, unfinished.open("wb") as file:
            np.save(file, np.concatenate(targets), allow_pickle=False)
        self._write_facts(key, {**facts, "format": FORMAT, "rows": rows, "prices": (self._facts(key) or {}).get("prices", {})})
        self._trim(key)

    def statistics(self, key: str, rows: int, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and standard deviation ``(d,)`` of the first ``rows`` of an entry, stored beside it for the next training."""
        path = self.folder / key / f"moments-{rows}.npy"
        with contextlib.suppress(OSError, ValueError):
            known = np.load(path, allow_pickle=False)
            if known.shape == (2, features.shape[1]) and known.dtype == np.float32 and np.isfinite(known).all():
                return known[0], known[1]
        found = statistics(features)
        with contextlib.suppress(OSError), whole_file(path) as unfinished, unfinished.open("wb") as file:
            np.save(file, np.stack(found), allow_pickle=False)
        return found

    def price(self, key: str, part: str = "") -> Price | None:
        """Return what computing an entry took here, or a ``part`` of it at its own cut; None when unknown or damaged."""
        try:
            stored = fitted(_Priced, self._facts(key) or {}, key).get("prices", {}).get(self._place_of(part))
            if stored is None:
                return None
            record, once = (one and Record.from_json(cast(Mapping[str, Any], one)) for one in (stored["record"], stored.get("once")))
        except ValueError:
            return None
        if record is None or stored["images"] < 1 or record.joules is None or (once is not None and once.joules is None):
            return None
        return Price(stored["images"], record, once, stored.get("slower", 1.0))

    def keep_price(self, key: str, price: Price, part: str = "") -> None:
        """Keep what computing an entry, or a part of it, took, unless the price of more images is known here.

        Who has found a way pays for it once, whoever finds it again: the first finding stays until it is found at a higher price.
        """
        with contextlib.suppress(OSError), FileLock(self._lock(key), timeout=1.0):  # who computes it meanwhile keeps a price as well
            known, facts = self.price(key, part), self._facts(key)
            if facts is None or self.place is None:
                return
            if known is not None:
                once = max((one for one in (known.once, price.once) if one is not None), key=lambda one: one.known_joules, default=None)
                price = replace(price if known.images <= price.images else known, once=once)
            stored = {"images": price.images, "record": price.record.to_json(), "slower": price.slower}
            stored |= {} if price.once is None else {"once": price.once.to_json()}
            others = facts.get("prices")
            self._write_facts(key, {**facts, "prices": {**(others if isinstance(others, dict) else {}), self._place_of(part): stored}})

    def _place_of(self, part: str) -> str:
        return f"{self.place or ''} {part}".strip()

    def entries(self) -> tuple[tuple[str, Mapping[str, Any], int], ...]:
        """Return key, facts and bytes of each entry, those that were used last first; one without facts is what a killed process left."""
        found = []
        for folder in self.folder.glob("*"):
            with contextlib.suppress(OSError):
                if _KEY.fullmatch(folder.name) and folder.is_dir():
                    size = sum(file.stat().st_size for file in folder.iterdir())
                    found.append(((folder / _FACTS if (folder / _FACTS).exists() else folder).stat().st_mtime, folder.name, size))
        return tuple((key, self._facts(key) or {}, size) for _, key, size in sorted(found, reverse=True))

    def clear(self) -> int:
        """Remove all entries; return their bytes. Nothing else that lies in the folder is touched."""
        for key, _, _ in (entries := self.entries()):
            self._drop(key)
        return sum(size for _, _, size in entries)

    def _trim(self, newest: str) -> None:
        """Drop the entries that were not used for longest until the others fit; what was just written stays."""
        total = 0
        for key, _, size in self.entries():
            total += size
            if total > self.limit_bytes and key != newest:
                self._drop(key)
                total -= size

    def _drop(self, key: str) -> None:
        folder = self.folder / key
        with contextlib.suppress(OSError), FileLock(self._lock(key), timeout=0.0):  # not what somebody computes or extends
            (folder / _FACTS).unlink(missing_ok=True)  # first: without it nobody takes the rest for an entry
            shutil.rmtree(folder, ignore_errors=True)
            self._lock(key).unlink()

    def _lock(self, key: str) -> Path:
        return self.folder / f"{key}.lock"

    def _facts(self, key: str) -> dict[str, Any] | None:
        try:
            facts = parse((self.folder / key / _FACTS).read_bytes())
        except (OSError, ValueError):
            return None
        return facts if isinstance(facts, dict) and facts.get("format") == FORMAT else None

    def _write_facts(self, key: str, facts: Mapping[str, Any]) -> None:
        with whole_file(self.folder / key / _FACTS) as unfinished:
            unfinished.write_text(json.dumps(plain_values(facts), indent=1, default=str), encoding="utf-8")


def key_of(facts: Mapping[str, Any]) -> str:
    """Return the name of the entry with these facts, the same on every machine."""
    return hashlib.sha256(json.dumps(plain_values(facts), sort_keys=True, default=str).encode()).hexdigest()[:32]


def fingerprint(data: Data) -> str:
    """Return the SHA-256 of a split, inputs and targets, as hexadecimal; it is kept with the split, which does not change.

    A split that knows a faster way has a method ``fingerprint``.
    """
    if (known := getattr(data, "_fingerprint", None)) is not None:
        return str(known)
    if callable(own := getattr(data, "fingerprint", None)):
        found = str(own())
    else:
        digest = hashlib.sha256()
        for inputs, targets in data.batches(256):
            for tensor in (inputs, targets):
                digest.update(tensor.cpu().contiguous().numpy().data)
        found = digest.hexdigest()
    with contextlib.suppress(AttributeError):  # it has slots: it is read again for the next training
        object.__setattr__(data, "_fingerprint", found)
    return found


def statistics(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation ``(d,)`` float32 of features ``(n, d)``, read in parts; a feature that never varies has 1.

    No deviation is below ``LEAST`` of their median: what hardly varies, as many features do over a few images, is not blown up to noise.
    """
    total, squares = np.zeros(features.shape[1]), np.zeros(features.shape[1])
    first = features[:1].astype(np.float64)  # near the mean: squares of what is left do not cancel
    for start in range(0, len(features), 4096):
        part = features[start : start + 4096].astype(np.float32) - first.astype(np.float32)
        total += part.sum(axis=0, dtype=np.float64)
        squares += np.einsum("nd,nd->d", part, part, dtype=np.float64)
    mean = total / len(features)
    deviation = np.sqrt(np.maximum(squares / len(features) - mean**2, 0.0))
    varies = deviation > 1e-6
    least = LEAST * float(np.median(deviation[varies])) if varies.any() else 0.0
    return (mean + first[0]).astype(np.float32), np.where(varies, np.maximum(deviation, least), 1.0).astype(np.float32)


def _mapped(path: Path) -> np.ndarray:
    """Map an array from its file, which must have exactly its size; what is written to the array stays in memory."""
    found = np.load(path, mmap_mode="c", allow_pickle=False)
    if not isinstance(found, np.memmap) or found.offset + found.nbytes != path.stat().st_size:
        raise ValueError(f"{path} must end with its array")
    return found
