"""A few metered steps that tell what an epoch of a candidate costs: seconds instead of epochs of training."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ..energy import Ledger, Record, Window
from ..energy.record import sum_known
from ..space import FixedTrial, Space
from ..training.feature_cache import FeatureCache
from ..training.recipe import synchronizer
from ..training.results import PASS, WAY, FeaturesUsed
from ..training.splits_data import Excerpt
from ..training.task import Task
from .job import WARM_UP_SECONDS, reason_of
from .watch import Watch, watched, within

if TYPE_CHECKING:
    from ..training.backbone import Transfer

#: Steps of one probe epoch; the first probe epoch warms up (allocation, autotuning) and is not counted.
PROBE_STEPS = 6
#: Counted probe epochs continue until they are far above the resolution of a meter.
PROBE_SECONDS = 0.5


@dataclass(frozen=True)
class SharedFeatures:
    """Features of a frozen network that a candidate needs, and all that need the same pay once.

    Attributes:
        name: Equal for candidates that share them.
        share: Of the training images that the candidate needs them of.
        joules: What those of all training images take; None when unknown.
        beside_joules: What comes on top once: those of the validation images, and finding the cheapest way of running the network.
        kept: Share of the training images whose features are in the cache already; then nothing comes on top.
    """

    name: str
    share: float
    joules: float | None
    beside_joules: float
    kept: float = 0.0


@dataclass(frozen=True)
class FeatureCosts:
    """What the features of candidates cost: by candidate ``(n,)`` the place of their name (-1 for none) and the share of images."""

    names: tuple[str, ...]
    place: np.ndarray
    share: np.ndarray
    joules: tuple[float, ...]
    beside: tuple[float, ...]
    kept: tuple[float, ...]

    @classmethod
    def of(cls, found: Sequence[SharedFeatures | None]) -> FeatureCosts:
        """Take the features of candidates; what several candidates tell of the same ones is their median."""
        known: dict[str, list[SharedFeatures]] = {}
        for one in found:
            if one is not None and one.joules is not None:
                known.setdefault(one.name, []).append(one)
        names = tuple(known)
        return cls(
            names,
            np.array([-1 if one is None or one.name not in known else names.index(one.name) for one in found], dtype=int),
            np.array([0.0 if one is None else one.share for one in found]),
            tuple(float(np.median([one.joules or 0.0 for one in known[name]])) for name in names),
            tuple(max(one.beside_joules for one in known[name]) for name in names),  # who comes later finds the way known
            tuple(max(one.kept for one in known[name]) for name in names),
        )

    def paid(self, pick: np.ndarray) -> np.ndarray:
        """Return what each of the candidates ``pick (m,)``, one after another, pays for features that none before it has paid."""
        paid = np.zeros(len(pick))
        for place in range(len(self.names)):
            wanted = np.where(self.place[pick] == place, self.share[pick], 0.0)
            there = np.maximum.accumulate(np.maximum(wanted, self.kept[place]))
            paid += np.diff(there, prepend=self.kept[place]) * self.joules[place]
            if self.kept[place] == 0.0 and wanted.any():
                paid[np.argmax(wanted > 0)] += self.beside[place]
        return paid


@dataclass(frozen=True)
class Probe:
    """What one candidate's epoch costs on this machine.

    Attributes:
        epoch_joules: Energy of a full epoch over the whole training split, or None when unknown; ``epoch_seconds`` is its duration.
        startup_joules: Energy to build the model and to warm up.
        shared: The features that it is trained on, whose energy is neither in the epoch nor in the start; None where it is trained whole.
        flops: Forward FLOPs of one example, or None.
        failed: Why it cannot be trained, or None.
    """

    params: Mapping[str, Any]
    epoch_joules: float | None
    epoch_seconds: float
    startup_joules: float | None
    parameters: int | None = None
    flops: int | None = None
    failed: str | None = None
    shared: SharedFeatures | None = None


def probe(
    params: Mapping[str, Any],
    space: Space,
    task: Task,
    ledger: Ledger,
    *,
    device: str,
    threads: int,
    seed: int,
    seconds: float = PROBE_SECONDS,
    features: FeatureCache | None = None,
) -> Probe:
    """Train a candidate for a few metered steps, which continue for so many ``seconds``, and scale them to an epoch.

    A recipe's own number of threads wins. ``features`` is where those of frozen networks would be found; nothing is kept there.
    """
    import torch

    from ..training.backbone import Transfer
    from ..training.cost import count
    from ..training.fit import fit

    began = time.monotonic()
    window = ledger.open("probe", kind="overhead")
    steps = _Steps(ledger, window, device, until=began + seconds)
    try:
        candidate = space.sample(FixedTrial(params))
        recipe = candidate.recipe if candidate.recipe.resumable else replace(candidate.recipe, schedule="constant")
        torch.set_num_threads(recipe.threads or threads)
        few = Excerpt(task.train, PROBE_STEPS * recipe.batch_size, stands_for=len(task.train))
        validation = Excerpt(task.validation, recipe.batch_size, stands_for=len(task.validation))
        small = replace(task, train=few, validation=validation, folds=0)
        torch.manual_seed(seed)
        model = space.build(candidate, task)
        cost = count(model, task, recipe)
        train = partial(fit, epochs=200, seed=seed, device=device, phases=steps.phase, should_continue=steps.go_on)
        fitted, reason = watched(lambda: train(model, small, recipe), Watch(within(WARM_UP_SECONDS)))
        if fitted is None:
            raise TimeoutError(reason)
    except (Exception, SystemExit) as error:  # a candidate that cannot be trained is a finding, too
        record = window.close(state="failed")
        return Probe(params, None, record.seconds, record.joules, failed=reason_of(error))
    finally:
        whole = window.close()
    counted, seen = steps.epochs[1:] or steps.epochs, len(task.train)
    shared, apart = None, 0.0
    if fitted.features is not None and isinstance(model, Transfer):
        seen = min(model.images or seen, seen)
        records = [(index, one.record) for index, one in steps.features]
        apart = sum(record.known_joules for _, record in records)
        shared = _shared(model, task, records, fitted.features, features)
    scale = seen / (len(small.train) if fitted.features is None else fitted.features.images) / len(counted)
    known = sum_known(record.joules for record in counted)
    spent = None if whole.joules is None or known is None else max(0.0, whole.joules - known - apart)
    seconds = sum(record.seconds for record in counted)
    return Probe(params, None if known is None else known * scale, seconds * scale, spent, cost.parameters, cost.flops, shared=shared)


@dataclass
class _Steps:
    """The windows of a probe: of its epochs, two at least, until an instant (seconds of the monotonic clock), and of its features."""

    ledger: Ledger
    window: Window
    device: str
    until: float
    epochs: list[Record] = field(default_factory=list)
    features: list[tuple[int, Window]] = field(default_factory=list)
    _epoch: Window | None = None

    def phase(self, kind: str, index: int) -> AbstractContextManager[Any]:
        """Open a window for an epoch, or for features; nothing else is told apart."""
        if kind not in ("features", "epoch"):
            return nullcontext()
        opened = self.ledger.window(f"{kind} {index}", kind=kind, parent=self.window, synchronize=synchronizer(self.device))
        if kind == "features":
            self.features.append((index, opened))
        else:
            self._epoch = opened
        return opened

    def go_on(self, point: Any) -> bool:
        """Count an epoch; whether another one follows."""
        assert self._epoch is not None
        self.epochs.append(self._epoch.record)
        return len(self.epochs) < 2 or time.monotonic() < self.until


def _shared(
    model: Transfer, task: Task, records: Sequence[tuple[int, Record]], used: FeaturesUsed, cache: FeatureCache | None
) -> SharedFeatures:
    """Scale what the features of a few images took to those of all images that a study computes."""
    from ..training.features import kept_features

    passes = sum_known(record.joules for index, record in records if index == PASS)
    each = passes / used.computed if passes is not None and used.computed else None
    once = sum(record.known_joules for index, record in records if index == WAY)
    name, kept, _ = kept_features(model, task, cache)
    count = len(task.train)
    share = min(model.images or count, count) / count
    return SharedFeatures(name, share, None if each is None else each * count, once + (each or 0.0) * len(task.validation), kept)
