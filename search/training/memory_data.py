"""A split that lives in memory as tensors on the device: no decoding and no copying while a model trains."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from .batch import augmented, normalised, resized
from .task import Data


class MemoryData:
    """Examples as one tensor, normalised and augmented for each batch.

    Attributes:
        inputs: ``(n, c, h, w)`` uint8 or float32 images, or ``(n, features)`` float32 rows.
        targets: ``(n,)`` or ``(n, k)``, see ``Task``.
    """

    def __init__(
        self,
        inputs: torch.Tensor,
        targets: torch.Tensor,
        *,
        mean: Sequence[float] | None = None,
        deviation: Sequence[float] | None = None,
    ) -> None:
        """Hold a split.

        Args:
            inputs: The examples.
            targets: Their targets.
            mean: Mean of each channel or feature, in [0, 1] for uint8; None when the inputs are normalised already.
            deviation: Standard deviation of each, like ``mean``.

        Raises:
            ValueError: If the lengths differ.
        """
        if len(inputs) != len(targets):
            raise ValueError(f"inputs and targets must have the same length, got {len(inputs)} and {len(targets)}")
        self.inputs, self.targets = inputs, targets
        self._mean = None if mean is None else torch.tensor(mean, dtype=torch.float32)
        self._deviation = None if deviation is None else torch.tensor(deviation, dtype=torch.float32)

    def __len__(self) -> int:
        """Number of examples."""
        return len(self.inputs)

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
        self._move(torch.device(device))
        if seed is None:
            for first in range(0, len(self), batch_size):
                part = slice(first, first + batch_size)
                yield resized(normalised(self.inputs[part], self._mean, self._deviation), resolution), self.targets[part]
            return
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(self), generator=generator)
        for first in range(0, len(self), batch_size):
            chosen = order[first : first + batch_size].to(self.inputs.device, non_blocking=True)
            images = augmented(self.inputs.index_select(0, chosen), augment, generator)
            yield resized(normalised(images, self._mean, self._deviation), resolution), self.targets.index_select(0, chosen)

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """Return everything as arrays, see ``Data.arrays``."""
        inputs = normalised(self.inputs, self._mean, self._deviation)
        return inputs.reshape(len(self), -1).cpu().numpy(), self.targets.cpu().numpy()

    def only(self, indices: np.ndarray) -> MemoryData:
        """Return a split of the examples at ``indices (m,)``, normalised as this one."""
        chosen = torch.as_tensor(indices, device=self.inputs.device)
        found = MemoryData(self.inputs[chosen], self.targets[chosen])
        found._mean, found._deviation = self._mean, self._deviation
        return found

    def _move(self, device: torch.device) -> None:
        """Bring everything to the device once; it stays there for the trainings to come."""
        if self.inputs.device != device:
            self.inputs, self.targets = self.inputs.to(device), self.targets.to(device)
            self._mean = None if self._mean is None else self._mean.to(device)
            self._deviation = None if self._deviation is None else self._deviation.to(device)


def _conforms(data: MemoryData) -> Data:
    return data
