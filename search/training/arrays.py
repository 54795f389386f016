"""Tasks from what is already in memory or known by name: NumPy arrays, scikit-learn's sets, PyTorch datasets, torchvision's image sets."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..argument_types import refuse_wrong_types
from ..formatting import own_place
from .recipe import pick_device
from .splits_data import ItemError, MemoryData, StreamData
from .table_checks import LOOKED_AT, classes_of, warn_of_examples, warn_of_scales, warn_of_shared
from .task import Kind, Targets, Task, comparable, complete_splits, encode, target_scale, unmasked, warn_of_absent_classes

Pair = tuple[Any, Any]
#: Name -> class of torchvision.datasets, for the sets that torchvision holds as arrays.
SETS = {
    "mnist": "MNIST",
    "fashion_mnist": "FashionMNIST",
    "kmnist": "KMNIST",
    "usps": "USPS",
    "cifar10": "CIFAR10",
    "cifar100": "CIFAR100",
    "svhn": "SVHN",
    "stl10": "STL10",
}


def arrays(
    inputs: Any,
    targets: Any,
    *,
    name: str = "arrays",
    kind: Kind | None = None,
    classes: Sequence[str] | None = None,
    validation: Pair | None = None,
    test: Pair | None = None,
    validation_share: float = 0.15,
    test_share: float = 0.15,
    seed: int = 0,
    device: str | torch.device = "cpu",
) -> Task:
    """Make a task from arrays; splits that are not given are drawn from the examples, stratified and seeded.

    Inputs are ``(n, features)`` numbers, or images ``(n, h, w)``, ``(n, c, h, w)`` or ``(n, h, w, c)``, of which uint8 ones stay uint8;
    targets are ``(n,)`` numbers or text, or ``(n, k)`` labels, and the kind is by default inferred from them. Given splits are pairs
    ``(inputs, targets)``; a ``test_share`` of 0 is for none. The tensors are put on ``device`` at first.

    Raises:
        ValueError: If shapes, lengths or values do not fit.
    """
    refuse_wrong_types(arrays, {"validation_share": validation_share, "test_share": test_share, "seed": seed, "name": name})
    pairs = {"train": (inputs, targets), "validation": validation, "test": test}
    given = {split: pair for split, pair in pairs.items() if pair is not None}
    for split, pair in given.items():
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise ValueError(f"{split} must be a pair (inputs, targets), got {type(pair).__name__}; weights of examples are not taken")
        index, other = (one.index if hasattr(one, "iloc") else () for one in pair)
        if len(index) and len(index) == len(other) and [*index] != [*other] and {*index} == {*other}:
            raise ValueError("targets must be in the order of the inputs, got their index in another order; give targets.loc[inputs.index]")
    examples = [_inputs(pair[0]) for pair in given.values()]
    wanted = [comparable(pair[1], "targets") for pair in given.values()]
    for part, label in zip(examples, wanted, strict=True):
        if len(part) != len(label):
            raise ValueError(f"inputs and targets must have the same length, got {len(part)} and {len(label)}")
        if part.shape[1:] != examples[0].shape[1:]:
            raise ValueError(f"all splits must have examples of one shape, got {examples[0].shape[1:]} and {part.shape[1:]}")
        if (part.dtype == np.uint8) != (examples[0].dtype == np.uint8):
            raise ValueError(f"inputs of all splits must be uint8 or none, got {examples[0].dtype} and {part.dtype}; convert one of them")
    # All splits are encoded together, so that a class has one number everywhere.
    encoded = encode(np.concatenate(wanted), kind=kind, classes=classes, name="targets")
    parts = complete_splits(
        encoded.values,
        {split: len(part) for split, part in zip(given, examples, strict=True)},
        validation_share=validation_share,
        test_share=test_share,
        seed=seed,
        stratified=encoded.kind in ("classification", "anomaly"),
    )
    everything = np.concatenate(examples)
    warn_of_examples(name, everything, encoded, parts, given)
    split_of = dict(zip(pairs, (everything[rows[:: len(rows) // LOOKED_AT + 1]] for rows in parts), strict=True))
    warn_of_scales(name, {split: split_of[split] for split in given})
    return task_of_arrays(name, everything, encoded, parts, device=device)


def sklearn_set(bunch: Any, *, name: str = "sklearn", images: bool | None = None, **options: Any) -> Task:
    """Make a task from what ``sklearn.datasets.load_*`` or ``fetch_*`` return, also with ``return_X_y=True``.

    ``images`` takes ``bunch.images`` (digits, faces) in place of the flat ``bunch.data``, by default where there are any. The options are
    those of ``arrays``.

    Raises:
        ValueError: If it is nothing that scikit-learn returns.
    """
    bunch = dict(zip(("data", "target"), bunch, strict=True)) if isinstance(bunch, tuple) and len(bunch) == 2 else bunch
    known = [*bunch] if isinstance(bunch, Mapping) else []
    images = "images" in known if images is None else images
    if absent := {"images" if images else "data", "target"} - {*known}:
        got = f"{type(bunch).__name__} without {sorted(absent)[0]!r}"
        raise ValueError(f"{name} must be what sklearn.datasets.load_* returns, got {got}; arrays(inputs, targets) takes arrays")
    inputs = np.asanyarray(bunch["images"]) if images else bunch["data"]
    if images and inputs.dtype.kind == "f":
        # Grey levels are stored as a byte each: digits has 0..16, the faces have 0..1.
        inputs = np.round(inputs * (255 / max(float(inputs.max()), 1e-12))).astype(np.uint8)
    names = bunch.get("target_names")
    if names is not None and np.asarray(bunch["target"]).dtype.kind in "iu" and "classes" not in options:
        options["classes"] = [str(entry) for entry in names] if not isinstance(names, str) else None
    return arrays(inputs, bunch["target"], name=name, **options)


def dataset(
    train: torch.utils.data.Dataset[Any],
    validation: torch.utils.data.Dataset[Any],
    test: torch.utils.data.Dataset[Any] | None = None,
    *,
    name: str = "dataset",
    kind: Kind = "classification",
    classes: Sequence[str] | None = None,
    workers: int = 0,
) -> Task:
    """Make a task from your own PyTorch datasets, read again in every epoch so that their random transforms keep working.

    Items are ``(input tensor, target)``, targets as in ``Task``; uint8 inputs are divided by 255, floats are used unchanged. Classes are by
    default ``train.classes``, or else the targets that occur in ``train``, numbered. ``workers`` are processes that read ahead.

    Raises:
        ValueError: If an item is not a tensor with a target.
    """
    for split, part in (("train", train), ("validation", validation)):
        if not hasattr(part, "__getitem__") or not hasattr(part, "__len__") or isinstance(part, torch.utils.data.IterableDataset):
            raise ValueError(f"{split} must have a length and examples by number, got {type(part).__name__}; give a map-style Dataset")
        if len(part) == 0:
            raise ValueError(f"{split} must have examples, got a dataset of length 0; see that it finds its files")
    splits = {"train": train, "validation": validation, **({} if test is None else {"test": test})}
    warn_of_shared(name, splits)
    named = {split: _Named(part, split) for split, part in splits.items()}
    item, other = named["train"][0], named["validation"][0]
    if (item[0].dtype == torch.uint8) != (other[0].dtype == torch.uint8):
        raise ValueError(f"items of all splits must be uint8 or none, got {item[0].dtype} and {other[0].dtype}; convert one of them")
    if len(train) > 1 and item[0].numel() and item[0].data_ptr() == named["train"][1][0].data_ptr():  # type: ignore[arg-type]  # is Sized
        raise ValueError("items of train must be tensors of their own, got the memory of the first again; return its clone()")
    if classes is None and kind != "regression":
        classes, of_validation = classes_of(train), classes_of(validation)
        if None not in (classes, of_validation) and classes != of_validation:
            raise ValueError(f"classes of validation must be those of train in their order, got {of_validation} and {classes}; align them")
        classes = classes or _numbered(named["train"], kind, name)
    shape = tuple(item[0].shape)
    if len(shape) == 3 and shape[-1] in (1, 3, 4) and shape[0] not in (1, 3, 4):
        said = f"items of the shape {shape} are taken for {shape[0]} channels of {shape[1]} x {shape[2]}"
        warnings.warn(f"{name}: {said}; for images (height, width, channels) return image.permute(2, 0, 1)", stacklevel=2)
    for part in named.values():
        part.expect(shape, kind, len(classes or ()))
    looks = {split: [part[k][0].float().numpy() for k in range(0, len(part), len(part) // LOOKED_AT + 1)] for split, part in named.items()}
    warn_of_scales(name, {split: np.stack(look) for split, look in looks.items()})
    preprocessing = {"kind": "own", "scale": 1 / 255 if item[0].dtype == torch.uint8 else 1.0, "mean": None, "std": None}
    read = {split: StreamData(part, kind=kind, workers=workers) for split, part in named.items()}
    return Task(name, kind, read["train"], read["validation"], read.get("test"), shape, tuple(map(str, classes or ())), preprocessing)


class _Named(torch.utils.data.Dataset[Any]):
    """A dataset whose errors name the example, of what cannot be read or trained on; everything else is its own."""

    def __init__(self, inner: Any, split: str) -> None:
        self._inner, self._split = inner, split
        self.expect(None, "multilabel", 0)

    def expect(self, shape: tuple[int, ...] | None, kind: Kind, classes: int) -> None:
        """Refuse inputs of another shape, and targets that are none of a kind of task with so many classes or labels."""
        self._shape, self._kind, self._classes = shape, kind, classes

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # as while it is unpickled, when nothing is inside yet
            raise AttributeError(name)
        return getattr(self._inner, name)

    def __len__(self) -> int:
        return len(self._inner)

    def __getitem__(self, index: int) -> Any:
        where = f"{index} of {self._split} must"
        try:
            item = self._inner[index]
        except (Exception, SystemExit) as error:  # whatever a user's own code raises
            said = f"the example {where} be readable, got {type(error).__name__}: {error}{own_place(error)}"
            raise ItemError(f"{said}; correct it, or leave it out of the dataset") from error
        if not isinstance(item, (tuple, list)) or len(item) != 2 or not isinstance(item[0], torch.Tensor):
            shown = type(item).__name__ if not isinstance(item, (tuple, list)) else [type(part).__name__ for part in item]
            said = f"the example {where} be (tensor, target), got {shown}"
            raise ItemError(f"{said}; return such a pair, torchvision's ToTensor and pil_to_tensor make tensors")
        inputs, target = item[0].detach(), item[1]
        if self._shape not in (None, shape := tuple(inputs.shape)):
            raise ItemError(f"the example {where} have the shape {self._shape} of the first, got {shape}; resize, crop or pad it")
        if not shape or inputs.layout != torch.strided or (inputs.is_floating_point() and not bool(torch.isfinite(inputs).all())):
            raise ItemError(f"the example {where} be dense, finite and of a dimension at least, got {shape}; correct it, or leave it out")
        if self._shape is not None:
            target = self._target(target, where)
        return inputs, target

    def _target(self, target: Any, where: str) -> Any:
        """Return a target of the kind that is expected."""
        values, count = np.asarray(target), self._classes
        if self._kind == "multilabel":
            wish, fits = f"{count} numbers 0 or 1", values.shape == (count,) and bool(np.isin(values, (0, 1)).all())
        elif self._kind == "regression":
            wish, fits = "one finite number", values.size == 1 and values.dtype.kind in "biuf" and bool(np.isfinite(values).all())
        else:
            wish, fits = f"a class number below {count}", values.ndim == 0 and values.dtype.kind in "biuf" and 0 <= float(values) < count
        if not fits or np.ma.is_masked(target):
            got = " ".join(repr(target).split())[:60]
            remedy = "correct it" if self._kind in ("multilabel", "regression") else "number them from 0, or name all"
            raise ItemError(f"the target {where} be {wish}, got {got}; {remedy}")
        return torch.from_numpy(values) if self._kind == "multilabel" else target


def builtin(name: str, root: str | Path = "data", *, download: bool = True, **options: Any) -> Task:
    """Make a task from one of torchvision's sets: its test split is the test split, validation is drawn from its training split.

    The name is one of ``SETS``; ``root`` is the folder of the set, to which one that is missing is downloaded. The options are those of
    ``arrays``.

    Raises:
        ValueError: If the name is not one of ``SETS``.
        FileNotFoundError: If the set is missing and cannot be downloaded.
    """
    from .backbone import library

    if name not in SETS:
        raise ValueError(f"builtin set must be one of {', '.join(SETS)}, got {name!r}; give the folder of any other set to images()")
    make = getattr(library("torchvision").datasets, SETS[name])
    inputs, targets, classes = _load(make, Path(root), train=True, name=name, download=download)
    test_inputs, test_targets, _ = _load(make, Path(root), train=False, name=name, download=download)
    return arrays(inputs, targets, name=name, kind="classification", classes=classes, test=(test_inputs, test_targets), **options)


def task_of_arrays(
    name: str, inputs: np.ndarray, targets: Targets, parts: tuple[np.ndarray, np.ndarray, np.ndarray], *, device: str | torch.device = "cpu"
) -> Task:
    """Put ``(n, features)`` or ``(n, c, h, w)`` inputs into a task, normalised by the training split in float64; bytes stay as they are.

    ``parts`` are the indices of the training, validation and test split; an empty test split becomes None.
    """
    with np.errstate(over="ignore"):
        mean, deviation = channel_statistics(inputs[parts[0]])
    if not np.isfinite([mean, deviation]).all():
        raise ValueError(f"inputs must be below 1e150 to be standardised, got {np.abs(inputs).max():.3g}; scale them")
    image, scale = inputs.ndim == 4, 1 / 255 if inputs.dtype == np.uint8 else 1.0
    preprocessing: dict[str, Any] = {"kind": "image" if image else "features", "scale": scale, "mean": mean, "std": deviation}
    if image:
        preprocessing |= dict(zip(("channels", "height", "width"), inputs.shape[1:], strict=True))
    if inputs.dtype == np.uint8:
        return task_in_memory(name, inputs, targets, parts, preprocessing, mean=mean, deviation=deviation, device=device)
    standard, side = np.empty(inputs.shape, dtype=np.float32), (1, -1, *[1] * (inputs.ndim - 2))
    for first in range(0, len(inputs), 1024):  # in slices, and not in float32, where seconds since 1970 are two minutes apart
        part = inputs[first : first + 1024].astype(np.float64)
        standard[first : first + 1024] = (part - np.reshape(mean, side)) / np.reshape(deviation, side)
    return task_in_memory(name, standard, targets, parts, preprocessing, device=device)


def task_in_memory(
    name: str,
    inputs: np.ndarray,
    targets: Targets,
    parts: tuple[np.ndarray, np.ndarray, np.ndarray],
    preprocessing: Mapping[str, Any],
    *,
    mean: Sequence[float] | None = None,
    deviation: Sequence[float] | None = None,
    levels: Mapping[int, np.ndarray] | None = None,
    device: str | torch.device = "cpu",
) -> Task:
    """Split inputs and targets, the values of a regression standardised by the training split; see ``MemoryData`` for the rest."""
    device = pick_device(device)
    scale = target_scale(targets.values[parts[0]]) if targets.kind == "regression" else None
    if targets.kind in ("classification", "anomaly"):
        named = zip(("training", "validation", "test"), parts, strict=True)
        labels = {split: targets.values[part] for split, part in named}
        warn_of_absent_classes(name, targets.classes, labels, rare=targets.kind == "anomaly")
    values = targets.values if scale is None else ((targets.values - scale[0]) / scale[1]).astype(np.float32)
    train, validation, test = (
        MemoryData(
            torch.from_numpy(np.ascontiguousarray(inputs[part])).to(device),
            torch.from_numpy(values[part]).to(device),
            mean=mean,
            deviation=deviation,
            levels={place: codes[part] for place, codes in (levels or {}).items()},
        )
        for part in parts
    )
    shape = tuple(int(side) for side in inputs.shape[1:])
    return Task(name, targets.kind, train, validation, test if len(test) else None, shape, targets.classes, preprocessing, scale)


def channel_statistics(inputs: np.ndarray) -> tuple[list[float], list[float]]:
    """Return mean and standard deviation of each channel or feature (1 where it does not vary), uint8 scaled to [0, 1]."""
    axes = (0, *range(2, inputs.ndim))
    scale = 255.0 if inputs.dtype == np.uint8 else 1.0
    count = inputs.size / inputs.shape[1]
    mean = inputs.sum(axis=axes, dtype=np.float64) / count / scale
    # In slices of at most so many values, 128 MB: the float64 copy of a whole image set would be eight times the set.
    square, size = np.zeros(inputs.shape[1]), min(1024, 1 + 2**24 // max(1, inputs[:1].size))
    for first in range(0, len(inputs), size):
        part = inputs[first : first + size].astype(np.float64) / scale
        square += ((part - mean.reshape(1, -1, *[1] * (inputs.ndim - 2))) ** 2).sum(axis=axes)
    deviation = np.sqrt(square / count)
    # Rounding leaves a tiny deviation in a constant feature of large numbers.
    return mean.tolist(), np.where(deviation > 1e-14 * np.abs(mean), deviation, 1.0).tolist()


def _inputs(inputs: Any) -> np.ndarray:
    inputs = unmasked(inputs.toarray() if hasattr(inputs, "toarray") else inputs, "inputs")
    if isinstance(inputs, torch.utils.data.Dataset | torch.utils.data.DataLoader):
        raise ValueError(f"inputs must be an array, got {type(inputs).__name__}; dataset(train, validation) takes Datasets")
    try:
        array = np.asarray(inputs)
        array = np.stack(list(array)) if array.dtype.kind == "O" and array.ndim == 1 and np.ndim(array[0]) else array
        array = array.astype(np.float64) if array.dtype.kind == "O" and array.ndim > 1 else array
    except (ValueError, TypeError) as error:
        raise ValueError(f"inputs must be numbers, as many in each example ({error}); cut or fill them, table() reads texts") from error
    if array.ndim == 3:
        array = array[:, None]
    elif array.ndim == 4 and array.shape[1] not in (1, 3, 4):
        _, height, width, last = array.shape
        if last in (1, 3, 4) or height == width > last:
            array = np.moveaxis(array, -1, 1)
    if array.ndim not in (2, 4) or array.dtype.kind not in "biuf" or 0 in array.shape[1:]:
        said = f"inputs must be numbers of shape (n, features), (n, h, w), (n, c, h, w) or (n, h, w, c), got {array.dtype} {array.shape}"
        raise ValueError(f"{said}; use table() for columns of text")
    if array.dtype == np.uint8 and array.ndim == 4:
        return array
    if array.dtype.kind in "iu" and array.size and max(abs(int(array.min())), abs(int(array.max()))) > 2**53:
        raise ValueError(f"inputs must be at most 2**53, beyond which whole numbers are rounded, got {array.max()}; subtract an offset")
    if array.dtype.kind != "f" or array.dtype.itemsize < 4:
        array = array.astype(np.float32 if array.dtype.itemsize < 4 else np.float64)
    if not np.isfinite(array).all():
        raise ValueError("inputs must be finite, got values that are missing or infinite; fill them, or use table(), which does")
    return array


def _numbered(train: Any, kind: Kind, name: str) -> list[str]:
    targets = getattr(train, "targets", None)
    values = np.asarray([train[k][1] for k in range(len(train))] if targets is None else targets)
    if kind == "multilabel":
        return [str(k) for k in range(values.shape[1])]
    if values.ndim != 1 or values.dtype.kind not in "biuf" or (values % 1).any() or not 0 <= values.min() <= values.max() < len(values):
        numeric = values.ndim == 1 and values.dtype.kind in "biuf"
        got = f"{values.min()} to {values.max()}" if numeric else f"e.g. {' '.join(repr(values[0]).split())[:60]}"
        raise ValueError(f"targets of train must be class numbers from 0, got {got}; number the classes")
    names = [str(k) for k in range(int(values.max()) + 1)]
    warn_of_absent_classes(name, names, {"training": values.astype(int)})
    return names


def _load(make: Any, root: Path, *, train: bool, name: str, download: bool) -> tuple[np.ndarray, np.ndarray, list[str]]:
    by_flag = "train" in inspect.signature(make.__init__).parameters
    options = {"train": train} if by_flag else {"split": "train" if train else "test"}
    try:
        loaded = make(root, **options, download=False)
    except (RuntimeError, OSError) as absent:  # what torchvision raises where files are missing or damaged
        if not download:
            raise FileNotFoundError(f"{root} has no {name} in torchvision's layout; put it there or set download=True") from absent
        try:
            loaded = make(root, **options, download=True)
        except (RuntimeError, OSError) as error:  # URLError is an OSError
            reason = " ".join(str(error).split())[:150]
            said = f"{name} is not in {root} and could not be downloaded ({reason})"
            raise FileNotFoundError(f"{said}; copy torchvision's files for it into {root}, or run once with a connection") from error
    inputs = np.asarray(loaded.data)
    targets = np.asarray(loaded.targets if hasattr(loaded, "targets") else loaded.labels).astype(np.int64)
    names = getattr(loaded, "classes", None) or [str(k) for k in range(int(targets.max()) + 1)]
    return inputs, targets, [str(entry) for entry in names]
