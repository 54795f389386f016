"""The task: data, splits and classes that models learn from, and how raw target values become them.

``split_indices`` draws the splits, stratified and seeded; ``encode`` turns a user's values into class numbers, labels or real values.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

import numpy as np

from ..argument_types import plain_values, refuse_wrong_types

if TYPE_CHECKING:
    import torch

    from .text import Embedded

#: Where tensors lie.
Device: TypeAlias = "torch.device | str"
Kind = Literal["classification", "multilabel", "regression", "anomaly"]
KINDS: tuple[Kind, ...] = ("classification", "multilabel", "regression", "anomaly")
#: Whole numbers with at most this many distinct values are treated as classes.
MAX_NUMERIC_CLASSES = 20
#: A class, or a value, of this share of the examples is guessed with a quality that looks good.
NEARLY_ALL = 0.95
#: Each part of a cross-validation is a copy of the data, and a training.
MOST_FOLDS = 20


class Data(Protocol):
    """One split: examples with their targets, in memory or streamed.

    Attributes:
        raw: Where they come from, None where that is unknown.
    """

    raw: Raw | None = None

    def __len__(self) -> int:
        """Number of examples."""

    def batches(
        self, batch_size: int, *, device: Device = "cpu", seed: int | None = None, resolution: int | None = None, augment: str = "none"
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield ``(inputs, targets)`` on ``device``: normalised float32 inputs ``(b, *input_shape)``, targets ``(b,)`` or ``(b, k)``.

        With a ``seed`` the order is shuffled and the augmentation drawn from it; with None the order is that of the data, and
        nothing is augmented. Every example occurs once; the last batch may be smaller.
        """

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """Return ``(n, features)`` float32 inputs (flattened and normalised) and ``(n,)`` targets, for scikit-learn.

        The whole split must fit into memory for it.
        """
        import torch

        inputs, targets = zip(*self.batches(256), strict=True)
        return torch.cat(inputs).flatten(1).numpy(), torch.cat(targets).numpy()


@dataclass(frozen=True)
class Raw:
    """Where the examples of a split come from, one by one; an export is checked on them.

    Attributes:
        names: Files, as ``source`` reads them by name; empty where the examples are rows.
        rows: Positions of rows in ``source``, ``(n,)``; None where the examples are files.
        source: A tree of files with ``path`` and ``read(name)``, the path of a table, or a data frame.
    """

    source: Any
    names: tuple[str, ...] = ()
    rows: np.ndarray | None = None

    def only(self, indices: np.ndarray) -> Raw:
        """Return the examples at ``indices (m,)`` alone."""
        names = tuple(self.names[k] for k in indices) if self.names else ()
        return Raw(self.source, names, None if self.rows is None else self.rows[indices])


def keep_rows(task: Task, source: Any, parts: Sequence[np.ndarray]) -> Task:
    """Note of which rows of a table the training, validation and test split of a task are; returns the task."""
    for data, rows in zip((task.train, task.validation, task.test), parts, strict=True):
        if data is not None:
            data.raw = Raw(source, rows=rows)
    return task


@dataclass(frozen=True)
class Task:
    """What the models have to learn.

    Attributes:
        name: Used in file names and cards.
        kind: One of ``KINDS``. Targets are int64 class numbers (classification), float32 0/1 rows ``(n, k)`` (multilabel), float32 values
            (regression; standardised by the training split when there is a ``target_scale``), or int64 with 1 for an anomaly.
        validation: The split that the search optimises; ``test`` is never seen by it, and None when the user has none.
        input_shape: Shape of one example: ``(channels, height, width)`` or ``(features,)``.
        classes: Class names in the order of their numbers; empty for regression.
        preprocessing: How raw data becomes model input, as JSON: written beside every exported model.
        target_scale: ``(mean, standard deviation)`` that turns a regression model's output back into the user's unit.
        folds: Parts of the training and validation examples that validate in turn, each predicted by a model of the others: quality is then
            that of all these predictions. The model itself is trained on the training split alone. 0 validates on the validation split.
        seen: What the loader saw in the raw data, as JSON, for ``summary.py``; no model depends on it.
        embedded: Texts whose features are in the inputs: their price belongs to every model; None without any.
    """

    name: str
    kind: Kind
    train: Data
    validation: Data
    test: Data | None
    input_shape: tuple[int, ...]
    classes: tuple[str, ...] = ()
    preprocessing: Mapping[str, Any] = field(default_factory=dict)
    target_scale: tuple[float, float] | None = None
    folds: int = 0
    seen: Mapping[str, Any] = field(default_factory=dict, compare=False)
    embedded: Embedded | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        """Raise ValueError for an unknown kind, an empty split or fewer than two classes."""
        refuse_wrong_types(Task, vars(self), "task.")
        for name, value in vars(self).items():
            object.__setattr__(self, name, plain_values(value))
        if self.kind not in KINDS:
            raise ValueError(f"task.kind must be one of {', '.join(KINDS)}, got {self.kind!r}")
        if self.kind == "classification" and len(self.classes) < 2:
            raise ValueError(f"a classification task needs at least 2 classes, got {len(self.classes)}: {list(self.classes)}")
        if self.folds < 0 or self.folds == 1 or self.folds > MOST_FOLDS:
            raise ValueError(f"task.folds must be 0, or at least 2 and at most {MOST_FOLDS} parts, got {self.folds}")
        if self.folds > (rows := len(self.train) + len(self.validation)):
            raise ValueError(f"folds must be at most the {rows} training and validation rows, got {self.folds}; give fewer, or 0 for none")
        for name in ("train", "validation"):
            if len(getattr(self, name)) == 0:
                raise ValueError(f"task.{name} must not be empty; give more data, or other shares to the splits")

    def shape_at(self, resolution: int | None) -> tuple[int, ...]:
        """Return the shape of one example as a model gets it: images at ``resolution`` pixels a side, where one is given."""
        shape = tuple(self.input_shape)
        return (shape[0], resolution, resolution) if resolution is not None and len(shape) == 3 else shape

    @property
    def outputs(self) -> int:
        """Number of outputs of a network for this task: classes, labels, 2 for anomalies, or 1 for regression."""
        return {"regression": 1, "anomaly": 2}.get(self.kind, len(self.classes))

    @property
    def metric(self) -> str:
        """Name of the default quality objective: ``accuracy``, ``r2``, ``macro_f1`` (multilabel) or ``auc`` (anomaly)."""
        return {"regression": "r2", "multilabel": "macro_f1", "anomaly": "auc"}.get(self.kind, "accuracy")


@dataclass(frozen=True)
class Targets:
    """Targets as a task takes them: ``(n,)`` int64 classes, ``(n, k)`` float32 labels or ``(n,)`` float64 values in the user's unit.

    ``classes`` are names in the order of their numbers; empty for regression.
    """

    kind: Kind
    values: np.ndarray
    classes: tuple[str, ...]


@contextmanager
def noting() -> Iterator[list[str]]:
    """Collect the texts of the warnings inside, which then go on to where they would have gone."""
    said, caught = list[str](), list[warnings.WarningMessage]()
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield said
            said += [str(one.message) for one in caught if issubclass(one.category, UserWarning)]
    finally:
        for one in caught:
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)


def encode(values: np.ndarray, *, kind: Kind | None = None, classes: Sequence[str] | None = None, name: str = "target") -> Targets:
    """Turn raw values into targets.

    Values are ``(n,)`` numbers, truth values or text, or ``(n, k)`` zeros and ones, nothing missing; a kind of None is inferred.
    ``classes`` are names of ``0..k-1`` when the values are such numbers, or of the labels, or texts in their order; ``name`` is that of the
    values in messages. The classes returned are sorted (numbers by value), and of an anomaly task the second one is the anomaly: the
    greater of two numbers, the rarer of two texts.

    Raises:
        ValueError: If the values do not fit the kind.
    """
    values = comparable(values, name)
    if values.ndim == 2 and values.shape[1] == 1 and kind != "multilabel":
        values = values[:, 0]
    kind = kind or infer_kind(values)
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
    if kind == "regression":
        return Targets(kind, _numbers(values, name), ())
    if values.dtype.kind == "f" and (missing := int(np.isnan(values).sum())):
        raise ValueError(f"{name} must not be missing, got {missing} missing values; leave out their examples")
    if classes is not None and (isinstance(classes, str) or not hasattr(classes, "__len__") or len({*map(str, classes)}) < len(classes)):
        raise ValueError(f"classes must be a list of different names, got {classes!r}; give each its own")
    if kind == "multilabel":
        return _labels(values, classes, name)
    if values.ndim != 1:
        raise ValueError(f"{name} must be one value for each example, got shape {values.shape}; rows of 0 and 1 are kind='multilabel'")
    levels, numbers = _numbered(values, classes, name)
    if kind == "anomaly":
        if len(levels) != 2:
            raise ValueError(f"{name} of an anomaly task must have two values (normal, anomaly), got {len(levels)}: {_few(levels)}")
        if classes is None and values.dtype.kind not in "biuf" and (numbers == 1).sum() > (numbers == 0).sum():
            levels, numbers = levels[::-1], 1 - numbers
    elif len(levels) < 2:
        raise ValueError(f"{name} must have at least two classes, got only {_few(levels) or 'no examples'}")
    return Targets(kind, numbers, tuple(_text(level) for level in levels))


def _numbered(values: np.ndarray, classes: Sequence[str] | None, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the classes in the order of their numbers, by default the sorted values, and the number of each value, ``(n,)`` int64."""
    whole = values.dtype.kind in "biu" or (values.dtype.kind == "f" and not (values % 1).any())
    levels, numbers = np.unique(values.astype(str) if values.dtype.kind == "O" else values, return_inverse=True)
    numbers = numbers.reshape(-1).astype(np.int64)
    if classes is None or not (whole or values.dtype.kind in "OU"):
        return levels, numbers
    if whole:  # they are already positions in the names: a class that happens not to occur keeps its place
        if strange := [int(level) for level in levels if level < 0 or level >= len(classes)]:
            said = f"{name} must be numbers of the {len(classes)} named classes, 0 to {len(classes) - 1}, got {strange[0]}"
            raise ValueError(f"{said}; name all classes in their order, or leave out classes")
        return np.asarray(classes), values.astype(np.int64)
    names = [*map(str, classes)]
    if foreign := {*levels} - {*names}:
        raise ValueError(f"{name} must be of the named classes, got {str(min(foreign))!r}; name all, or leave out classes")
    return np.array(names), np.array([names.index(level) for level in levels])[numbers]


def _labels(values: np.ndarray, classes: Sequence[str] | None, name: str) -> Targets:
    """Return rows of 0 and 1 as the targets of a multilabel task."""
    if values.dtype.kind not in "biuf":
        raise ValueError(f"{name} of a multilabel task must be 0 and 1, got texts: {_few(np.unique(values.astype(str)))}; write 0 and 1")
    if values.ndim != 2 or not np.isin(values.astype(np.float64), (0.0, 1.0)).all():
        said = f"{name} of a multilabel task must be rows (n, labels) of 0 and 1, got shape {values.shape}"
        raise ValueError(f"{said} with other values; give one column for values or classes")
    if len(values) > 1 and values.shape[1] > 1 and (values.sum(axis=1) == 1).all():
        warnings.warn(f"{name} have one label in each row; if they are classes, give {name}.argmax(1)", stacklevel=4)
    names = tuple(map(str, classes)) if classes is not None else tuple(f"label_{k}" for k in range(values.shape[1]))
    if len(names) != values.shape[1]:
        raise ValueError(f"classes must name the {values.shape[1]} labels of {name}, got {len(names)}; name each of them")
    return Targets("multilabel", values.astype(np.float32), names)


def comparable(values: Any, name: str) -> np.ndarray:
    """Return targets as an array ``(n,)`` or ``(n, k)`` of numbers, truth values or text in which nothing is missing.

    Raises:
        ValueError: If they are not such; ``name`` is theirs in the message.
    """
    values = unmasked(values, name)
    try:
        found = np.asarray(values)
    except ValueError:  # what numpy says is of its own shapes
        remedy = "of lists of labels sklearn.preprocessing.MultiLabelBinarizer().fit_transform(targets) makes columns of 0 and 1"
        raise ValueError(f"{name} must be one value for each example, or as many for each, got lists of unlike length; {remedy}") from None
    if found.ndim == 0:
        raise ValueError(f"{name} must be a list or an array, one value for each example, got {type(values).__name__}; give values alone")
    if found.dtype.kind == "U" and not hasattr(values, "dtype"):  # NumPy makes 'nan' of what is missing in a list of texts
        found = np.asarray(values, dtype=object)
    if found.dtype.kind == "S":
        found = np.char.decode(found, "utf-8", "backslashreplace")
    if found.dtype.kind not in "biufUO":
        raise ValueError(f"{name} must be numbers, truth values or text, got {found.dtype}; convert them, for example with .astype(str)")
    if found.dtype.kind == "O":
        from pandas import isna

        if missing := int(isna(found).sum()):
            raise ValueError(f"{name} must not be missing, got {missing} missing values; leave out their examples")
    return found


def unmasked(values: Any, name: str) -> Any:
    """Return what NumPy takes without a loss: a mask, which it would drop, is refused, and of bfloat16, which it lacks, float32 is made."""
    if any(map(np.ma.is_masked, [values, *(values if isinstance(values, list | tuple) else ())])):
        raise ValueError(f"{name} must not be missing, got masked values; fill them, or leave out their examples")
    if hasattr(values, "detach"):
        values = (values.float() if str(values.dtype) == "torch.bfloat16" else values).detach().cpu()
    return values


def infer_kind(values: np.ndarray) -> Kind:
    """Infer the kind: text, truth values, at most 20 distinct whole numbers are classes, rows of 0 and 1 labels, other numbers values."""
    if values.ndim == 2:
        return "multilabel"
    if values.dtype.kind in "bOUS":
        return "classification"
    whole = bool(np.all(values == np.round(values)))
    return "classification" if whole and len(np.unique(values)) <= MAX_NUMERIC_CLASSES else "regression"


def target_scale(values: np.ndarray) -> tuple[float, float]:
    """Return mean and standard deviation of the training targets (1 where they do not vary)."""
    mean, deviation = float(values.mean()), float(values.std())
    return mean, deviation if deviation > 0 else 1.0


def split_indices(
    labels: np.ndarray, *, validation_share: float, test_share: float, seed: int, stratified: bool = True
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Assign examples to training, validation and test: three ascending arrays of indices that together are ``0 .. n-1``.

    Only the equality of ``labels (n,)`` counts. With ``stratified`` each class keeps its share; a class of fewer than three examples stays
    in the training split as a whole, unless nothing were left to validate: then those of two give one to validation.

    Raises:
        ValueError: If a share is negative or nothing is left to train on.
    """
    for name, share in (("validation_share", validation_share), ("test_share", test_share)):
        if not 0 <= share < 1:
            raise ValueError(f"{name} must be in [0, 1), got {share}")
    if validation_share + test_share >= 1:
        raise ValueError(f"validation_share + test_share must be < 1, got {validation_share} + {test_share}")
    if not 0 <= seed < 2**63:
        raise ValueError(f"seed must be a whole number from 0 to 2**63 - 1, got {seed!r}; 0 is the usual one")
    random = np.random.default_rng(seed)
    groups = [np.flatnonzero(labels == label) for label in np.unique(labels)] if stratified else [np.arange(len(labels))]
    parts: tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]] = ([], [], [])
    few = validation_share > 0 and max(map(len, groups), default=0) == 2
    for group in groups:
        order = random.permutation(group)
        # At least one of any share that is not zero.
        validation, test = (max(int(share > 0), round(len(group) * share)) for share in (validation_share, test_share))
        if validation + test >= len(group):
            validation, test = int(few and len(group) == 2), 0
        for part, chosen in zip(parts, np.split(order, [len(order) - validation - test, len(order) - test]), strict=True):
            part.append(chosen)
    train, validation_part, test_part = (np.sort(np.concatenate(part)) for part in parts)
    return train, validation_part, test_part


def complete_splits(
    labels: np.ndarray, lengths: Mapping[str, int], *, validation_share: float, test_share: float, seed: int, stratified: bool = True
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the rows of training, validation and test; a split that is not in ``lengths`` is drawn from the training rows.

    ``lengths`` are the examples of each split that there is, in the order in which they lie behind one another in ``labels (n,)``. See
    ``split_indices`` for the rest.
    """
    bounds = np.cumsum([0, *lengths.values()])
    given = {split: np.arange(first, last) for split, first, last in zip(lengths, bounds, bounds[1:], strict=False)}
    train = given["train"]
    drawn = split_indices(
        labels[train],
        validation_share=0 if "validation" in given else validation_share,
        test_share=0 if "test" in given else test_share,
        seed=seed,
        stratified=stratified,
    )
    return train[drawn[0]], given.get("validation", train[drawn[1]]), given.get("test", train[drawn[2]])


def warn_of_absent_classes(name: str, classes: Sequence[str], splits: Mapping[str, np.ndarray], *, rare: bool = False) -> None:
    """Warn of classes without an example in the training, validation or test split, by class numbers ``(n,)``: its quality ignores them."""
    counts = {split: np.bincount(labels, minlength=len(classes)) for split, labels in splits.items() if len(labels)}
    whole = sum(counts.values(), start=np.zeros(len(classes)))
    if len(classes) > 1 and not rare and (share := whole.max() / max(1, whole.sum())) >= NEARLY_ALL:
        said = f"{share:.1%} of the examples are {classes[int(whole.argmax())]!r}, so that guessing has an accuracy of {share:.3f}"
        warnings.warn(f"{name}: {said}; look at balanced_accuracy, for tables --metric balanced_accuracy", stacklevel=4)
    for split, there in counts.items():
        if absent := [f"{classes[k]!r} ({int(whole[k])} in all)" for k in np.flatnonzero(there == 0).tolist()]:
            shown = ", ".join(absent[:10]) + (", ..." if len(absent) > 10 else "")
            warnings.warn(f"{name}: no {split} example of the class {shown}; give more examples, or leave the class out", stacklevel=4)


def _numbers(values: np.ndarray, name: str) -> np.ndarray:
    try:
        numbers = values.astype(np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"{name} must be numbers for kind='regression', got text, for example {_few(values)}") from None
    if numbers.ndim == 2 and numbers.shape[1] == 1:
        numbers = numbers[:, 0]
    if numbers.ndim != 1:
        raise ValueError(f"{name} of a regression must be one number for each example, got shape {values.shape}; give one column")
    if lost := int((~np.isfinite(numbers)).sum()):
        raise ValueError(f"{name} of a regression must be one finite number for each example, got {lost} that are not; leave these out")
    if len(numbers) and (numbers == numbers[0]).all():
        raise ValueError(f"{name} must have at least two values, got only {numbers[0]:g}; predict what varies")
    return numbers


def _text(level: Any) -> str:
    return str(int(level)) if isinstance(level, (float, np.floating)) and float(level).is_integer() else str(level)


def _few(values: np.ndarray) -> str:
    shown = ", ".join(repr(_text(value)) for value in values[:5].reshape(-1)[:5])
    return shown + (", ..." if len(values) > 5 else "")
