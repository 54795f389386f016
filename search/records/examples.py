"""What a model gave for every validation example, in a few kilobytes: pairs of models are compared on the same examples.

A file a trial, ``examples/trial-00012.npz``: one bit an example for accuracy, else what the metric can be computed from again.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import sqrt
from pathlib import Path

import numpy as np

#: At most so many numbers (bits for accuracy) are kept of a trial; of more examples the same ones of every trial, evenly spread.
MOST, MOST_BITS = 16_384, 262_144
#: No file of ours unpacks to more: one of some kB that is somebody else's may, to more than there is memory.
LARGEST_BYTES = 16 << 20
#: Metrics that are the mean of right or wrong.
SHARES = ("accuracy", "error")
#: Resamples of the standard deviation of every trial of a search, and the seed: the same examples for every model.
FEW_RESAMPLES, SEED = 30, 20_240


def examples_of(folder: Path, number: int) -> Path:
    """File of the results of a trial in a run folder."""
    return folder / "examples" / f"trial-{number:05d}.npz"


@dataclass(frozen=True)
class Examples:
    """Results of one model on the validation split.

    Attributes:
        metric: What is computed from them: the study's quality.
        given: ``(n,)`` right or wrong for accuracy and error; else classes or values ``(n,)``, labels or log-odds ``(n, k)``.
        targets: ``(n,)`` classes or values, or ``(n, k)`` labels; empty where ``given`` says right or wrong.
        count: Examples of the split, of which ``n`` are kept.
    """

    metric: str
    given: np.ndarray
    targets: np.ndarray
    count: int

    @classmethod
    def of(cls, metric: str, kind: str, scores: np.ndarray, targets: np.ndarray) -> Examples | None:
        """Take what a metric needs of scores and targets, shaped as ``training.evaluate.quality`` gets them; None for another metric."""
        scores, targets = np.asarray(scores), np.asarray(targets)
        n, none = len(targets), np.zeros(0, dtype=np.uint8)
        if kind == "regression":
            return _kept(metric, scores.reshape(-1).astype(np.float32), targets.reshape(-1).astype(np.float32)) if metric == "r2" else None
        if kind == "multilabel":
            labels, positive = scores > 0.5, targets > 0.5
            if metric in SHARES:
                return cls(metric, _few((labels == positive).all(axis=1), MOST_BITS), none, n)
            return _kept(metric, _log_odds(scores) if metric == "auc" else labels, positive)
        if kind == "anomaly" and scores.ndim == 1:
            scores = np.stack([1.0 - scores, scores], axis=1)
        classes, small = scores.argmax(axis=1), np.uint8 if scores.shape[1] <= 256 else np.uint16
        if metric in SHARES:
            return cls(metric, _few(classes == targets, MOST_BITS), none, n)
        if metric == "auc":
            return _kept(metric, _log_odds(scores[:, 1:] if scores.shape[1] == 2 else scores), targets.astype(small))
        return _kept(metric, classes.astype(small), targets.astype(small)) if metric in ("balanced_accuracy", "macro_f1") else None

    def save(self, path: Path) -> None:
        """Write them, right or wrong as bits."""
        path.parent.mkdir(exist_ok=True)
        bits = self.given.dtype == bool
        with path.open("wb") as file:
            np.savez_compressed(
                file,
                given=np.packbits(self.given) if bits else self.given,
                shape=np.array(self.given.shape),
                bits=np.array(bits),
                targets=self.targets,
                count=np.array(self.count),
                metric=np.array(self.metric),
            )

    @classmethod
    def load(cls, path: Path) -> Examples | None:
        """Read what `save` wrote, without running any code; None where there is no such file, or it is damaged."""
        try:
            if not path.is_file():
                return None
            with zipfile.ZipFile(path) as archive:
                if sum(one.file_size for one in archive.infolist()) > LARGEST_BYTES:
                    return None
            with np.load(path, allow_pickle=False) as kept:
                given, shape = kept["given"], tuple(int(side) for side in kept["shape"])
                if kept["bits"]:
                    given = np.unpackbits(given)[: int(np.prod(shape))].astype(bool).reshape(shape)
                found = cls(str(kept["metric"]), given, kept["targets"], int(kept["count"]))
        except Exception:  # numpy, zipfile and what unpacks them have their own for each kind of damage
            return None
        return found if found.given.shape == shape and found._is_whole() else None

    def _is_whole(self) -> bool:
        """Whether `value` can be computed: both are numbers of the kinds that `of` gives, and of the same examples."""
        kinds = ["float" if one.dtype.kind == "f" else str(one.dtype) for one in (self.given, self.targets)]
        floats = {"r2": 2, "auc": 1}.get(self.metric, 0)
        typed = kinds[:floats] == ["float"] * floats and {"bool", "uint8", "uint16"}.issuperset(kinds[floats:])
        same = self.metric in SHARES or self.targets.shape in (self.given.shape, self.given.shape[:1])
        return typed and same and self.given.ndim in (1, 2) and 0 < len(self.given) <= self.count

    def pairs_with(self, other: Examples) -> bool:
        """Whether both are of the same examples."""
        alike = self.metric == other.metric and self.given.shape == other.given.shape and self.count == other.count
        return alike and np.array_equal(self.targets, other.targets)

    def doubted(self, swapped: bool = False) -> Examples:
        """Return these with a right and a wrong example more of each class, in resamples of which also those without a mistake have some.

        ``swapped`` is for the other of two models: each is right once where the other is wrong. A wrong score is one in the middle. Shares
        and R2 stay as they are.

        Source: Agresti and Min 2005, Statistics in Medicine 24, who add such pairs to the four cells of a table of matched proportions.
        """
        if self.metric in ("r2", *SHARES):
            return self
        columns = np.arange(self.given.shape[1]) if self.given.ndim == 2 else np.zeros(1)
        classes = np.unique(self.targets) if self.targets.ndim == 1 else np.array([columns < 0, columns >= 0])
        wanted = np.repeat(classes, 2, axis=0)
        wrong = np.arange(len(wanted)) % 2 != swapped
        if self.metric == "auc":
            high = wanted if wanted.ndim == 2 else wanted[:, None] == (columns if len(columns) > 1 else 1)
            given: np.ndarray = np.where(wrong[:, None], np.median(self.given, axis=0), np.where(high, np.inf, -np.inf))
        else:
            given = wanted != wrong[:, None] if wanted.ndim == 2 else np.where(wrong, np.repeat(np.roll(classes, 1), 2), wanted)
        return replace(self, given=np.concatenate([self.given, given]), targets=np.concatenate([self.targets, wanted]))

    def value(self, chosen: np.ndarray | None = None) -> float:
        """Return the metric on the examples of these places, all by default; NaN where they leave it undefined."""
        given = self.given if chosen is None else self.given[chosen]
        if self.metric in SHARES:
            share = float(given.mean())
            return share if self.metric == "accuracy" else 1.0 - share
        targets = self.targets if chosen is None else self.targets[chosen]
        if self.metric == "r2":
            spread = float(((targets - targets.mean()) ** 2).sum())
            return 1.0 - float(((given - targets) ** 2).sum()) / spread if spread > 0 else float("nan")
        if self.metric == "auc":
            return _auc(given, targets)
        if given.ndim == 2:  # labels
            pairs = zip(given.T.astype(int), targets.T.astype(int), strict=True)
            return float(np.mean([_of_label(self.metric, one, wanted) for one, wanted in pairs]))
        return _of_classes(self.metric, given, targets)


def standard_error(metric: str, quality: Mapping[str, float], n: int, file: Path | None = None) -> float | None:
    """Return the standard deviation of a metric of a ``quality`` that was measured on ``n`` validation examples; None when it is unknown.

    A share is binomial, with two examples more on either side: none right of a few is not known exactly. Other metrics are drawn again from
    what the model gave for each example, which is kept in a ``file`` that `Examples.save` wrote.

    Source: Agresti and Coull 1998, "Approximate is better than exact for interval estimation of binomial proportions".

    >>> round(standard_error("accuracy", {"accuracy": 0.9}, 100), 3), standard_error("r2", {"r2": 0.9}, 100)
    (0.031, None)
    """
    value = quality.get(metric)
    if value is None or not n:
        return None
    if metric in SHARES:
        share = (value * n + 2.0) / (n + 4.0)
        return sqrt(max(share * (1.0 - share), 0.0) / (n + 4.0))
    examples = None if file is None else Examples.load(file)
    if examples is None:
        return None
    random, kept, doubted = np.random.default_rng(SEED), len(examples.given), examples.doubted()
    drawn = np.array([doubted.value(random.integers(0, len(doubted.given), kept)) for _ in range(FEW_RESAMPLES)])
    known = drawn[np.isfinite(drawn)]
    return float(known.std() * sqrt(kept / examples.count)) if len(known) > FEW_RESAMPLES // 2 else None


def _few(values: np.ndarray, most: int) -> np.ndarray:
    return values if len(values) <= most else values[np.linspace(0, len(values) - 1, most).astype(int)]


def _log_odds(shares: np.ndarray) -> np.ndarray:
    """Log-odds of probabilities in 16 bits, which keep their order: probabilities close to 1 would all be one there."""
    exact = np.asarray(shares, dtype=np.float64)
    odds = np.log(np.maximum(exact, 1e-38) / np.maximum(1.0 - exact, 1e-8))  # beyond what float32 tells from 0 and 1
    return np.asarray(odds, dtype=np.float16)


def _kept(metric: str, given: np.ndarray, targets: np.ndarray) -> Examples:
    most = max(1, MOST // (given.shape[1] if given.ndim == 2 else 1))
    return Examples(metric, _few(given, most), _few(targets, most), len(targets))


def _of_classes(metric: str, given: np.ndarray, targets: np.ndarray) -> float:
    classes = int(max(given.max(), targets.max())) + 1
    hits, actual, guessed = (np.bincount(one, minlength=classes) for one in (targets[targets == given], targets, given))
    if metric == "balanced_accuracy":
        return float((hits[actual > 0] / actual[actual > 0]).mean())
    named = (actual + guessed) > 0
    scores = 2 * hits[named] / (actual[named] + guessed[named])
    return float(scores.mean())


def _of_label(metric: str, given: np.ndarray, targets: np.ndarray) -> float:
    """The same of one label, whose F1 is that of its presence alone."""
    if metric == "balanced_accuracy":
        return _of_classes(metric, given, targets)
    total = int(given.sum() + targets.sum())
    return float(2 * (given & targets).sum() / total) if total else 0.0


def _auc(scores: np.ndarray, targets: np.ndarray) -> float:
    """Mean area under the ROC curve over the columns, by ranks."""
    from scipy.stats import rankdata

    columns = scores if scores.ndim == 2 else scores[:, None]
    areas = []
    for place in range(columns.shape[1]):
        positive = targets[:, place] if targets.ndim == 2 else targets == (place if columns.shape[1] > 1 else 1)
        count = int(positive.sum())
        if 0 < count < len(positive):
            ranks = rankdata(columns[:, place].astype(np.float64))
            areas.append((ranks[positive.astype(bool)].sum() - count * (count + 1) / 2) / (count * (len(positive) - count)))
    return float(np.mean(areas)) if areas else float("nan")
