"""The features of a task that a frozen network gives, in the cheapest way of this machine, or from the cache.

`with_features` computes or finds the features of a task's splits (see ``feature_cache.py``) and gives the task that a head is trained on.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import nn

from .backbone import (
    BATCH,
    COMPARED,
    SMALL_BATCH,
    WORTH,
    WORTH_CONVERTING,
    Embedding,
    Part,
    Transfer,
    Way,
    casts,
    fastest,
    filled,
    plain,
    ways,
)
from .feature_cache import Entry, FeatureCache, TooLargeError, fingerprint, key_of, statistics
from .results import PASS, SAMPLE, WAY, FeaturesUsed, Phases, TrainingFailed
from .splits_data import Excerpt, MemoryData
from .task import Data, Task

#: Seeds the order in which training images are taken: the first 500 are the same in every trial, and among the first 1,000.
ORDER = 0
#: What was computed is stored at least this early, and then whenever it has doubled: a pass that is cut off loses half of it at most.
STORED = 1024
#: Mean and deviation of features that are taken as they are: maps that a trained part of the network goes on from.
UNCHANGED = np.zeros((), dtype=np.float32), np.ones((), dtype=np.float32)
#: Images on which the price of features is measured that others have computed, perhaps on another machine.
SAMPLED = 256
#: So many ways of running networks are kept for the next trials.
MOST_WAYS = 8


@dataclass(frozen=True)
class FeatureTask:
    """The task of a head: the same splits as features, standardised by ``mean`` and ``deviation`` ``(d,)``; there is no test split."""

    task: Task
    mean: torch.Tensor
    deviation: torch.Tensor
    used: FeaturesUsed


class _Ways(dict[str, Way]):
    """The best ways of frozen networks over a split. They hold networks on a device, so no copy of the split takes them along."""

    def __reduce__(self) -> tuple[type[_Ways], tuple[()]]:
        return _Ways, ()


def _ways_over(data: Data) -> _Ways:
    """Return what is kept with a split: the trials after the first one have their way already, and it goes with the data of their run."""
    while isinstance(data, Excerpt):
        data = data.whole
    found: _Ways | None = getattr(data, "_ways", None)
    if found is None:
        found = _Ways()
        with contextlib.suppress(AttributeError):  # it has slots: they are found again for the next training
            object.__setattr__(data, "_ways", found)
    return found


@dataclass(frozen=True)
class _Run:
    """How the features of one set are computed."""

    identity: str
    device: torch.device
    way: Way

    @classmethod
    def of(cls, model: Transfer, feature_set: str, device: torch.device, split: _Split, images: int) -> _Run:
        """Look for the best way for a set of so many images, on the first of a split."""
        backbone = model.backbone
        embedding = Embedding(cast(nn.Module, backbone), feature_set).eval()
        way = Way("plain", plain(embedding, device))
        if images >= WORTH:
            inputs, _ = next(iter(split.data.batches(BATCH.get(device.type, COMPARED), device=device, seed=split.order)))
            inputs = filled(inputs, BATCH.get(device.type, 0))
            shape, threads, others = tuple(inputs.shape[1:]), torch.get_num_threads(), ways if images >= WORTH_CONVERTING else casts
            facts = [backbone.identity, dict(backbone.preprocessing), feature_set, shape, threads, str(device), others.__name__]
            known, key = _ways_over(split.data), key_of({"parts": facts})
            if key not in known:
                known[key] = fastest(embedding, inputs, device, others)
            way = known[key]
            for oldest in list(known)[:-MOST_WAYS]:
                del known[oldest]
        return cls(backbone.identity, device, way)


@dataclass(frozen=True)
class _Split:
    """The part of a split that a model needs, in the order in which its features are kept, and the entry of the cache, if any."""

    data: Data
    rows: int
    order: int | None
    facts: Mapping[str, Any]
    key: str | None

    def blocks(self, run: _Run, first: int = 0) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Compute the features from row ``first`` on, batch by batch, beside their targets."""
        done, device = 0, run.device
        for inputs, targets in self.data.batches(BATCH.get(device.type, SMALL_BATCH), device=device, seed=self.order):
            part = slice(max(0, first - done), self.rows - done)
            done += len(inputs)
            if part.start >= len(inputs):
                continue
            chosen = inputs[part]
            found = run.way.extract(filled(chosen, BATCH.get(device.type, 0)))[: len(chosen)]
            if not np.isfinite(found).all():
                raise TrainingFailed(f"the backbone {run.identity} gives features that are not finite")
            yield found, targets[part].cpu().numpy()
            if done >= self.rows:
                return


def with_features(
    model: Transfer, task: Task, *, cache: FeatureCache | None, phases: Phases, device: torch.device, standardised: bool = True
) -> FeatureTask:
    """Return a task whose inputs are the model's features of the training and validation images, from the cache where they are.

    What is missing is computed inside of the phase ``features``, in the cheapest way that this machine has (``backbone.py``). Without a
    cache, and for excerpts, it is kept in memory alone.

    Raises:
        TrainingFailed: If a feature is not finite.
        OSError: If the cache cannot be written to.
    """
    model.eval()
    part = None if cache is None else _part(model)
    whole = model.feature_set if part is None else part.whole
    with phases("overhead", 0):
        model.to(device)
        most = len(task.train) if model.images is None else min(model.images, len(task.train))
        splits = [
            _split(model, whole, data, rows, order, cache)
            for data, rows, order in ((task.train, most, ORDER), (task.validation, len(task.validation), None))
        ]
    if cache is None or any(split.key is None for split in splits):
        computed = sum(split.rows for split in splits)
        with phases("features", WAY):
            worth = sum(split.data.stands_for if isinstance(split.data, Excerpt) else split.rows for split in splits)
            run = _Run.of(model, model.feature_set, device, splits[0], worth)
        with phases("features", PASS):
            blocks = (zip(*split.blocks(run), strict=True) for split in splits)
            found = [Entry(np.concatenate(features), np.concatenate(targets)) for features, targets in blocks]
        used = FeaturesUsed(None, most, computed, slower=run.way.slower)
        mean, deviation = statistics(found[0].features) if standardised else UNCHANGED
    else:
        priced = "" if part is None or part.same_cut else model.feature_set
        worth = len(task.train) + len(task.validation)  # later trials take more of them
        found, used = _cached(splits, cache, model, whole, priced, worth, phases, device)
        mean, deviation = cache.statistics(str(splits[0].key), most, found[0].features) if standardised else UNCHANGED
        if part is not None:
            mean, deviation = (one[part.columns] if one.ndim else one for one in (mean, deviation))
            found = [Entry(entry.features[:, part.columns], entry.targets) for entry in found]
    scale: dict[str, Any] = {"mean": mean.tolist(), "deviation": deviation.tolist()} if standardised else {}
    parts = [MemoryData(torch.from_numpy(entry.features), torch.from_numpy(entry.targets), **scale) for entry in found]
    features = replace(task, train=parts[0], validation=parts[1], test=None, input_shape=(found[0].features.shape[1],), preprocessing={})
    return FeatureTask(features, torch.from_numpy(mean), torch.from_numpy(deviation), used)


class KeptFeatures(NamedTuple):
    """What the cache holds of a model's features.

    Attributes:
        name: Equal where features are shared.
        share: Of the training images whose features are there; 0 where those of validation are missing.
        joules: What those of all training images took here; None where that is unknown.
    """

    name: str
    share: float
    joules: float | None


def kept_features(model: Transfer, task: Task, cache: FeatureCache | None) -> KeptFeatures:
    """Return what the cache holds of a model's features of a task."""
    part = _part(model)
    whole = model.feature_set if part is None else part.whole
    name = key_of({"parts": [model.backbone.identity, dict(model.backbone.preprocessing), whole]})
    train, validation = (
        _split(model, whole, data, len(data), order, cache) for data, order in ((task.train, ORDER), (task.validation, None))
    )
    if cache is None or train.key is None or validation.key is None or cache.known_rows(validation.key) < validation.rows:
        return KeptFeatures(name, 0.0, None)
    price = cache.price(train.key, "" if part is None or part.same_cut else model.feature_set)
    joules = None if price is None else sum(record.known_joules for record in price.of(train.rows))
    return KeptFeatures(name, min(1.0, cache.known_rows(train.key) / max(1, train.rows)), joules)


def _part(model: Transfer) -> Part | None:
    found: Part | None = getattr(model.backbone, "part_of", lambda name: None)(model.feature_set)
    return found


def _split(model: Transfer, feature_set: str, data: Data, rows: int, order: int | None, cache: FeatureCache | None) -> _Split:
    facts: dict[str, Any] = {}
    if cache is not None and not isinstance(data, Excerpt):
        backbone, preprocessing = model.backbone.identity, dict(model.backbone.preprocessing)
        facts = {"backbone": backbone, "preprocessing": preprocessing, "feature_set": feature_set, "data": fingerprint(data)}
        facts["order"] = order
    return _Split(data, rows, order, facts, key_of(facts) if facts else None)


def _cached(
    splits: list[_Split],
    cache: FeatureCache,
    model: Transfer,
    feature_set: str,
    priced: str,
    worth: int,
    phases: Phases,
    device: torch.device,
) -> tuple[list[Entry], FeaturesUsed]:
    """Return the entries of the splits with a feature set, and what had to be computed for them.

    ``priced`` is a smaller set with a price of its own, or empty; a faster way is looked for as for so many images as ``worth``.
    """
    keys = [str(split.key) for split in splits]

    def look() -> list[Entry | None]:
        return [cache.open(key, split.rows) for key, split in zip(keys, splits, strict=True)]

    def unpriced(part: str) -> bool:
        return cache.place is not None and cache.price(keys[0], part) is None

    def run_of(name: str) -> _Run:
        with phases("features", WAY):
            return _Run.of(model, name, device, splits[0], worth)

    found, used = look(), FeaturesUsed(keys[0], splits[0].rows, 0, priced)
    if None in found or unpriced(priced):
        with cache.locked(keys):
            found = look()  # another worker may have computed them meanwhile
            if None in found:
                run = run_of(feature_set)
                with phases("features", PASS):
                    computed = sum(_store(split, cache, run) for split, entry in zip(splits, found, strict=True) if entry is None)
                used, found = replace(used, computed=computed, slower=run.way.slower), look()
            if unpriced(priced) and (priced or not used.computed):
                run = run_of(priced or feature_set)
                with phases("features", SAMPLE):
                    sampled = sum(len(one) for one, _ in replace(splits[0], rows=min(SAMPLED, splits[0].rows)).blocks(run))
                used = replace(used, computed=used.computed + sampled, sampled=sampled, slower=run.way.slower)
    entries = [entry for entry in found if entry is not None]
    if len(entries) < len(splits):
        raise OSError(f"the features in {str(cache.folder)!r} cannot be read back; clear them with joulefront cache --clear")
    return entries, used


def _store(split: _Split, cache: FeatureCache, run: _Run) -> int:
    """Compute and store what the cache lacks of a split; return how many images that were."""
    key = str(split.key)
    known = min(cache.known_rows(key), split.rows)
    old = cache.open(key, known) if known else None
    begun = done = 0 if old is None else known
    dtype, new = "float16", split.blocks(run, done)
    while done < split.rows:
        rows = min(split.rows, max(STORED, -(-2 * done // STORED) * STORED))  # whole batches
        try:
            cache.write(key, split.facts, rows, _parts(cache.open(key, done) if done else None, new, rows), dtype=dtype)
            done = rows
        except TooLargeError:
            if dtype == "float32":
                raise
            dtype, new = "float32", split.blocks(run, done)  # what the attempt has taken is computed again
    return split.rows - begun


def _parts(old: Entry | None, new: Iterator[tuple[np.ndarray, np.ndarray]], rows: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield what is stored of an entry, and then new batches up to so many rows."""
    done = 0 if old is None else len(old.features)
    for start in range(0, done, STORED):
        assert old is not None
        yield old.features[start : start + STORED], old.targets[start : start + STORED]
    while done < rows:
        features, targets = next(new)
        done += len(features)
        yield features, targets
