"""The splits of a task, in memory on the device or streamed, and what happens to a batch: augmentation, normalisation, size, layout."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, Subset

from .recipe import Recipe
from .table_encodings import goals_of, means_of_others, means_of_rows
from .task import Data, Device, Kind, Targets, Task

#: Share of the side by which an image is shifted at most in each direction: 4 of 32 pixels, the usual for CIFAR.
SHIFT = 1 / 8


def augmented(images: torch.Tensor, augment: str, generator: torch.Generator) -> torch.Tensor:
    """Flip and shift each image of a batch ``(b, c, h, w)``, of any dtype, on its own; their size stays.

    ``augment`` is ``none``, ``shift``, or ``flip_shift``; a shift mirrors the border inwards. The generator is one on the CPU, so that
    every device gets the same flips and shifts.
    """
    moves = draw_moves(images.shape, augment, generator)
    return images if moves is None else moved(images, moves.to(images.device, non_blocking=True))


def draw_moves(shape: Sequence[int], augment: str, generator: torch.Generator) -> torch.Tensor | None:
    """Draw for images of a shape ``(b, c, h, w)`` by how many pixels each goes down and right, and whether it is flipped: ``(3, b)``.

    None where nothing moves: rows, or without augmentation.
    """
    if augment == "none" or len(shape) != 4:
        return None
    count, _, height, width = shape
    top, left = max(1, round(height * SHIFT)) if height > 1 else 0, max(1, round(width * SHIFT)) if width > 1 else 0
    down = torch.randint(-top, top + 1, (count,), generator=generator)
    right = torch.randint(-left, left + 1, (count,), generator=generator)
    flips = torch.rand(count, generator=generator) < 0.5 if augment == "flip_shift" else torch.zeros(count, dtype=torch.bool)
    return torch.stack((down, right, flips))


def moved(images: torch.Tensor, moves: torch.Tensor) -> torch.Tensor:
    """Move images ``(b, c, h, w)`` as ``draw_moves`` has drawn for them; both on one device."""
    count, channels, height, width = images.shape
    device, (down, right, mirror) = images.device, moves[:, :, None]
    rows = _mirrored(torch.arange(height, device=device) + down, height)
    columns = _mirrored(torch.arange(width, device=device) + right, width)
    columns = torch.where(mirror.bool(), columns.flip(1), columns)
    # Flip and both shifts are one gather over the pixels, the same for every channel.
    pixels = (rows[:, :, None] * width + columns[:, None, :]).reshape(count, 1, height * width)
    flat = images.reshape(count, channels, height * width)
    return flat.gather(2, pixels.expand(-1, channels, -1)).reshape(images.shape)


def _mirrored(index: torch.Tensor, size: int) -> torch.Tensor:
    """Reflect positions outside ``[0, size)`` at the border, without repeating the border itself."""
    if size == 1:
        return torch.zeros_like(index)
    index = index.abs()
    return torch.where(index >= size, 2 * (size - 1) - index, index)


def normalised(inputs: torch.Tensor, mean: torch.Tensor | None, deviation: torch.Tensor | None) -> torch.Tensor:
    """Return float32 inputs with ``(x - mean) / deviation`` per channel or feature; uint8 inputs are first divided by 255.

    Inputs are ``(b, c, h, w)`` or ``(b, features)``; ``mean`` and ``deviation``, in the units of the scaled inputs, may be None.
    """
    scale = 1 / 255 if inputs.dtype == torch.uint8 else 1.0
    values = inputs.to(torch.float32)
    fresh = values.data_ptr() != inputs.data_ptr()
    if mean is None or deviation is None:
        return values * scale if scale != 1.0 else values
    shape = (1, -1) + (1,) * (inputs.ndim - 2)
    factor, offset = (scale / deviation).view(shape), (mean / deviation).view(shape)
    # In place where the float copy is ours: a second and third pass over fresh memory cost more than the arithmetic.
    return values.mul_(factor).sub_(offset) if fresh else values * factor - offset


def resized(images: torch.Tensor, resolution: int | None) -> torch.Tensor:
    """Return float images at ``resolution`` x ``resolution`` pixels (bilinear, antialiased); None or the same size changes nothing."""
    if resolution is None or images.ndim != 4 or images.shape[-2:] == (resolution, resolution):
        return images
    return F.interpolate(images, size=(resolution, resolution), mode="bilinear", antialias=True)


def laid_out(inputs: torch.Tensor, recipe: Recipe) -> torch.Tensor:
    """Return images in the memory layout of the recipe."""
    if recipe.channels_last and inputs.ndim == 4:
        return inputs.contiguous(memory_format=torch.channels_last)
    return inputs


class MemoryData(Data):
    """Examples as one tensor on the device, normalised and augmented batch by batch: no decoding and no copying during training.

    Inputs are ``(n, c, h, w)`` uint8 or float32 images, or ``(n, features)`` float32 rows; targets ``(n,)`` or ``(n, k)``, see ``Task``.
    """

    def __init__(
        self,
        inputs: torch.Tensor,
        targets: torch.Tensor,
        *,
        mean: Sequence[float] | None = None,
        deviation: Sequence[float] | None = None,
        levels: Mapping[int, np.ndarray] | None = None,
    ) -> None:
        """Hold a split; lengths that differ raise ValueError.

        ``mean`` and ``deviation`` are those of each channel or feature, in [0, 1] for uint8; None when the inputs are already normalised.
        ``levels``, for folds to learn mean targets anew: the level of each example ``(n,)`` int32, -1 for none, by the first such feature.
        """
        if len(inputs) != len(targets):
            raise ValueError(f"inputs and targets must have the same length, got {len(inputs)} and {len(targets)}")
        self.inputs, self.targets, self.levels = inputs, targets, dict(levels or {})
        self._mean = None if mean is None else torch.tensor(mean, dtype=torch.float32)
        self._deviation = None if deviation is None else torch.tensor(deviation, dtype=torch.float32)

    def __len__(self) -> int:
        return len(self.inputs)

    def batches(
        self, batch_size: int, *, device: Device = "cpu", seed: int | None = None, resolution: int | None = None, augment: str = "none"
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield batches, see ``Data.batches``."""
        self._move(torch.device(device))
        if seed is None:
            for first in range(0, len(self), batch_size):
                part = slice(first, first + batch_size)
                yield resized(normalised(self.inputs[part], self._mean, self._deviation), resolution), self.targets[part]
            return
        order, moves = self.drawn(batch_size, seed=seed, augment=augment, device=device)
        for first in range(0, len(self), batch_size):
            part = slice(first, first + batch_size)
            yield self.chosen(order[part], None if moves is None else moves[:, part], resolution)

    def drawn(self, batch_size: int, *, seed: int, augment: str, device: Device) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Draw what is random in an epoch: the order ``(n,)`` and each image's moves ``(3, n)``, in that order; on ``device``."""
        self._move(torch.device(device))
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(self), generator=generator)
        sizes = [min(batch_size, len(self) - first) for first in range(0, len(self), batch_size)]
        # Batch by batch: the draws of an epoch do not depend on whether they were made at once.
        moves = [draw_moves((size, *self.inputs.shape[1:]), augment, generator) for size in sizes]
        known = [one for one in moves if one is not None]
        return order.to(device), torch.cat(known, dim=1).to(device) if known else None

    def chosen(self, indices: torch.Tensor, moves: torch.Tensor | None, resolution: int | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Return inputs and targets of the examples at ``indices (b,)``, as a batch has them; nothing here waits for the device."""
        images = self.inputs.index_select(0, indices)
        images = images if moves is None else moved(images, moves)
        return resized(normalised(images, self._mean, self._deviation), resolution), self.targets.index_select(0, indices)

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """Return everything as arrays, see ``Data.arrays``."""
        inputs = normalised(self.inputs, self._mean, self._deviation)
        return inputs.reshape(len(self), -1).cpu().numpy(), self.targets.cpu().numpy()

    def fingerprint(self) -> str:
        """Return the SHA-256 of inputs, targets and normalisation in hexadecimal: of the raw values, a quarter of the bytes for images."""
        digest = hashlib.sha256()
        for part in (self.inputs, self.targets, self._mean, self._deviation):
            digest.update(b"-" if part is None else f"{part.dtype} {tuple(part.shape)}".encode())
            if part is not None:
                digest.update(part.cpu().contiguous().numpy().data)
        return digest.hexdigest()

    def only(self, indices: np.ndarray) -> MemoryData:
        """Return a split of the examples at ``indices (m,)``, normalised as this one."""
        chosen = torch.as_tensor(indices, device=self.inputs.device)
        found = MemoryData(
            self.inputs[chosen], self.targets[chosen], levels={place: codes[indices] for place, codes in self.levels.items()}
        )
        found._mean, found._deviation = self._mean, self._deviation
        found.raw = None if self.raw is None else self.raw.only(indices)
        return found

    def _move(self, device: torch.device) -> None:
        """Move everything to the device once; it stays there for later trainings."""
        if self.inputs.device != device:
            self.inputs, self.targets = self.inputs.to(device), self.targets.to(device)
            self._mean = None if self._mean is None else self._mean.to(device)
            self._deviation = None if self._deviation is None else self._deviation.to(device)


def training_and_validation(task: Task) -> MemoryData:
    """Return the training and the validation examples of a task as one split.

    Mean targets among their features stay those of the training split, as an export has them; none has its own example's target in it.

    Raises:
        ValueError: If they are not in memory.
    """
    train, validation = task.train, task.validation
    if not isinstance(train, MemoryData) or not isinstance(validation, MemoryData):
        raise ValueError("folds and --refit need data in memory, got data that is not in memory; set folds=0, leave out --refit")
    both = train.only(np.arange(len(train)))
    both.raw = None  # the rows of a file are those of one split
    both.inputs = torch.cat([both.inputs, validation.inputs.to(both.inputs.device)])
    both.targets = torch.cat([both.targets, validation.targets.to(both.targets.device)])
    none = np.full(len(validation), -1, dtype=np.int32)  # a split of the user's own: its levels are unknown
    both.levels = {place: np.concatenate([codes, validation.levels.get(place, none)]) for place, codes in both.levels.items()}
    return both


def fold_tasks(task: Task) -> list[Task]:
    """Return a task for each of ``task.folds`` parts of its training and validation examples: it validates, the others train.

    The parts are the same for every model, and have all classes alike. Features that are mean targets are learnt in each from the examples
    that train alone, as those of the task are from its training split: else they would tell these of the targets that validate them.

    Raises:
        ValueError: If the data is not in memory.
    """
    from sklearn.model_selection import KFold, StratifiedKFold

    both = training_and_validation(task)
    labels = both.targets.cpu().numpy()
    counted = task.kind in ("classification", "anomaly") and int(np.unique(labels, return_counts=True)[1].min()) >= task.folds
    deal = (StratifiedKFold if counted else KFold)(task.folds, shuffle=True, random_state=0)
    parts = deal.split(np.zeros(len(labels)), labels if counted else None)
    return [_fold(task, both.only(others), both.only(part)) for others, part in parts]


def _fold(task: Task, train: MemoryData, validation: MemoryData) -> Task:
    for place, codes in train.levels.items():
        goals = goals_of(Targets(task.kind, train.targets.cpu().numpy(), task.classes))
        assert goals is not None  # the task has such features
        for data, means in ((train, means_of_others(codes, goals)), (validation, means_of_rows(codes, goals, validation.levels[place]))):
            data.inputs[:, place : place + goals.shape[1]] = torch.from_numpy(means).to(data.inputs)
    return replace(task, train=train, validation=validation, test=None, folds=0)


class ItemError(ValueError):
    """An example that cannot be read, by name or number; of what a process that reads ahead raises the last words are kept."""

    def __init__(self, said: str) -> None:
        super().__init__(said.rpartition("ItemError: ")[2].strip())


class StreamData(Data):
    """Examples of a PyTorch dataset that does not fit into memory, read again in every epoch; the rest is as in ``MemoryData``."""

    def __init__(
        self,
        dataset: Dataset[Any],
        *,
        kind: Kind = "classification",
        workers: int = 0,
        mean: Sequence[float] | None = None,
        deviation: Sequence[float] | None = None,
    ) -> None:
        """Read from a dataset of ``(input tensor, target)``, ahead of time by so many worker processes; see ``MemoryData`` for the rest."""
        self._dataset, self._workers = dataset, workers
        self._dtype = torch.int64 if kind in ("classification", "anomaly") else torch.float32
        self._mean = None if mean is None else torch.tensor(mean, dtype=torch.float32)
        self._deviation = None if deviation is None else torch.tensor(deviation, dtype=torch.float32)

    def __len__(self) -> int:
        return len(self._dataset)  # type: ignore[arg-type]  # a Dataset need not have a length; this one does

    def batches(
        self, batch_size: int, *, device: Device = "cpu", seed: int | None = None, resolution: int | None = None, augment: str = "none"
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield batches, see ``Data.batches``."""
        device = torch.device(device)
        generator = torch.Generator().manual_seed(0 if seed is None else seed)
        order = torch.arange(len(self)) if seed is None else torch.randperm(len(self), generator=generator)
        mean, deviation = (None if part is None else part.to(device) for part in (self._mean, self._deviation))
        loader = DataLoader(
            self._dataset,
            batch_size=batch_size,
            sampler=order.tolist(),
            num_workers=self._workers,
            pin_memory=device.type == "cuda",
            # Seeds the workers, and with them what a user's own transforms draw there.
            generator=torch.Generator().manual_seed(0 if seed is None else seed),
        )
        for inputs, targets in loader:
            moved = inputs.to(device, non_blocking=True)
            if seed is not None:
                moved = augmented(moved, augment, generator)
            yield resized(normalised(moved, mean, deviation), resolution), targets.to(device, self._dtype, non_blocking=True)

    def fingerprint(self) -> str:
        """Return the SHA-256 of the split in hexadecimal: of what its dataset says of itself, or of all that it holds, read once."""
        own = getattr(self._dataset, "fingerprint", None)
        digest = hashlib.sha256(f"{self._mean} {self._deviation} {self._dtype}".encode())
        if callable(own):
            digest.update(str(own()).encode())
        else:
            for inputs, targets in self.batches(256):
                digest.update(inputs.contiguous().numpy().data)
                digest.update(targets.contiguous().numpy().data)
        return digest.hexdigest()

    def only(self, indices: np.ndarray) -> StreamData:
        """Return a split of the examples at ``indices (m,)``, read and normalised as this one."""
        found = copy.copy(self)
        found._dataset = Subset(self._dataset, indices.tolist())
        found.raw = None if self.raw is None else self.raw.only(indices)
        found.__dict__.pop("_fingerprint", None)  # that of all of them
        return found


class Excerpt(Data):
    """The first ``size`` examples of each epoch of a split, in at most ``most`` batches of the real size; nothing beyond them is read.

    For work whose result is not kept, such as probes and warm-ups. With a ``seed`` an epoch that is read without one is shuffled, so that
    most classes of a sorted file occur. ``device`` is where ``arrays`` reads them; a split in memory is then moved there once. What is
    prepared at a cost that many examples are worth is prepared as for ``stands_for``, by default its size. ``whole`` is the split.
    """

    def __init__(
        self,
        data: Data,
        size: int,
        *,
        most: int | None = None,
        seed: int | None = None,
        device: Device = "cpu",
        stands_for: int | None = None,
    ) -> None:
        self.stands_for = min(size, len(data)) if stands_for is None else stands_for
        self.whole, self._size, self._most, self._seed, self._device = data, min(size, len(data)), most, seed, device
        raw = getattr(data, "raw", None)
        self.raw = None if raw is None or seed is not None else raw.only(np.arange(self._size))

    def __len__(self) -> int:
        return self._size

    def batches(self, batch_size: int, *, seed: int | None = None, **options: Any) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield the first batches, see ``Data.batches``."""
        size = min(batch_size, self._size)
        batches = self.whole.batches(size, seed=self._seed if seed is None else seed, **options)
        left, count = self._size, -(-self._size // size)
        for inputs, targets in islice(batches, count if self._most is None else min(count, self._most)):
            yield inputs[:left], targets[:left]
            left -= len(inputs)

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """Return them as arrays, see ``Data.arrays``."""
        inputs, targets = next(self.batches(self._size, device=self._device))
        return inputs.reshape(len(inputs), -1).cpu().numpy(), targets.cpu().numpy()
