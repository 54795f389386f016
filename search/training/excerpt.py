"""A few examples of a split that look like the whole: for work that is paid but not kept, as probes and warm-ups are."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING

from .task import Data

if TYPE_CHECKING:
    import numpy as np
    import torch


class Excerpt:
    """The first ``size`` examples of each epoch of a split, in batches of the real size; of a large file no more is read than that.

    Args:
        data: The split.
        size: Number of examples, at most.
        most: Batches that are given at most; None for as many as hold ``size`` examples.
        seed: Shuffles an epoch that asks for no order, so that most classes of a sorted file are in it; None leaves the order.
        device: Where ``arrays`` reads them; a split that stays on a device is then moved there once.
    """

    def __init__(
        self, data: Data, size: int, *, most: int | None = None, seed: int | None = None, device: torch.device | str = "cpu"
    ) -> None:
        self._data, self._size, self._most, self._seed, self._device = data, min(size, len(data)), most, seed, device

    def __len__(self) -> int:
        """Number of examples."""
        return self._size

    def batches(
        self,
        batch_size: int,
        *,
        device: torch.device | str = "cpu",
        seed: int | None = None,
        resolution: int | None = None,
        augment: str = "none",
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield the first batches, see ``Data.batches``."""
        size = min(batch_size, self._size)
        seed = self._seed if seed is None else seed
        batches = self._data.batches(size, device=device, seed=seed, resolution=resolution, augment=augment)
        left, count = self._size, -(-self._size // size)
        for inputs, targets in islice(batches, count if self._most is None else min(count, self._most)):
            yield inputs[:left], targets[:left]
            left -= len(inputs)

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """Return them as arrays, see ``Data.arrays``."""
        inputs, targets = next(self.batches(self._size, device=self._device))
        return inputs.reshape(len(inputs), -1).cpu().numpy(), targets.cpu().numpy()
