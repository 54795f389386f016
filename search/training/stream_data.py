"""A split that is read anew in every epoch, for data that does not fit into memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from .batch import augmented, normalised, resized
from .task import Data, Kind


class StreamData:
    """Examples of a PyTorch dataset; order, augmentation and normalisation are those of ``MemoryData``, batch by batch on the device."""

    def __init__(
        self,
        dataset: Dataset[Any],
        *,
        kind: Kind = "classification",
        workers: int = 0,
        mean: Sequence[float] | None = None,
        deviation: Sequence[float] | None = None,
    ) -> None:
        """Read from a dataset.

        Args:
            dataset: Items are ``(input tensor, target)``.
            kind: Kind of the task, for the dtype of the targets.
            workers: Processes that read ahead; 0 reads in this process.
            mean: Mean of each channel, in [0, 1] for uint8; None when the inputs are normalised already.
            deviation: Standard deviation of each channel, like ``mean``.
        """
        self._dataset, self._workers = dataset, workers
        self._dtype = torch.int64 if kind in ("classification", "anomaly") else torch.float32
        self._mean = None if mean is None else torch.tensor(mean, dtype=torch.float32)
        self._deviation = None if deviation is None else torch.tensor(deviation, dtype=torch.float32)

    def __len__(self) -> int:
        """Number of examples."""
        return len(self._dataset)  # type: ignore[arg-type]  # a Dataset need not say its length; this one does

    def batches(
        self,
        batch_size: int,
        *,
        device: torch.device | str = "cpu",
        seed: int | None = None,
        resolution: int | None = None,
        augment: str = "none",
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

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """Return everything as arrays, see ``Data.arrays``; the whole split must fit into memory for it."""
        inputs, targets = zip(*self.batches(256), strict=True)
        return torch.cat(inputs).flatten(1).numpy(), torch.cat(targets).numpy()


def _conforms(data: StreamData) -> Data:
    return data
