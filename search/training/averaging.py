"""Moving average of the weights whose window grows with the training, so that every epoch has a usable model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch

#: Relative width of the window: gamma = 6.94 is a standard deviation of 10 % of the training.
#: Source: Karras et al. 2024, "Analyzing and Improving the Training Dynamics of Diffusion Models", arXiv:2312.02696, section 3.1.
GAMMA = 6.94


def decay(step: int, gamma: float = GAMMA) -> float:
    """Return the weight of the old average at a step counted from 1: ``(1 - 1/t) ** (gamma + 1)``.

    Source: Karras et al. 2024, arXiv:2312.02696, section 3.1 (power function profile).
    """
    return float((1.0 - 1.0 / step) ** (gamma + 1.0))


class Average:
    """Averages the trained weights and the floating-point buffers of a model; frozen weights are left out, as they do not move.

    Attributes:
        values: Averages by name in the model's ``state_dict``.
    """

    def __init__(self, model: torch.nn.Module, trained: Iterable[torch.nn.Parameter]) -> None:
        """Start with a copy of the model's present state."""
        moving = {id(parameter) for parameter in trained}
        self._live: dict[str, torch.Tensor] = {}
        for name, tensor in model.state_dict(keep_vars=True).items():
            counts = id(tensor) in moving if isinstance(tensor, torch.nn.Parameter) else tensor.is_floating_point()
            if counts:
                self._live[name] = tensor.detach()
        self.values = {name: tensor.clone() for name, tensor in self._live.items()}
        # One multi-tensor call for each dtype: a call for each tensor costs more than the arithmetic.
        dtypes = {tensor.dtype for tensor in self._live.values()}
        self._groups = [
            (
                [self.values[name] for name, tensor in self._live.items() if tensor.dtype == dtype],
                [tensor for tensor in self._live.values() if tensor.dtype == dtype],
            )
            for dtype in sorted(dtypes, key=str)
        ]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after optimiser step ``step``, counted from 1 over the whole lineage."""
        share = 1.0 - decay(step)
        for averages, live in self._groups:
            torch._foreach_lerp_(averages, live, share)

    @torch.no_grad()
    def load(self, values: Mapping[str, torch.Tensor]) -> None:
        """Go on from stored averages.

        Raises:
            ValueError: If the names are not those of this model.
        """
        if set(values) != set(self.values):
            differing = sorted(set(values) ^ set(self.values))[:5]
            raise ValueError(f"start: the checkpoint's averaged weights are those of another model; they differ in {differing}")
        for name, value in values.items():
            self.values[name].copy_(value)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the model's weights with the averages; a second call puts them back."""
        for averages, live in self._groups:
            for average, tensor in zip(averages, live, strict=True):
                kept = tensor.clone()
                tensor.copy_(average)
                average.copy_(kept)
