"""Modelled energy of an inference on hardware that skips zeros: a simulation, never a measurement."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

#: Joules of one access to off-chip memory and of one 32-bit multiplication in 45 nm technology.
#: Source: Horowitz, "Computing's energy problem (and what we can do about it)", ISSCC 2014: DRAM access 1.3 to 2.6 nJ (middle: 1.95),
#: 32-bit float multiplication 3.7 pJ. The same two numbers serve the simulated accelerator that sponge attacks and EAT (arXiv
#: 2307.00368) are judged with.
MEMORY_ACCESS_JOULES = 1950e-12
MULTIPLICATION_JOULES = 3.7e-12


@dataclass(frozen=True)
class ModelledEnergy:
    """Modelled energy of one forward pass per example.

    Attributes:
        dense_joules: On an accelerator that computes with every number.
        sparse_joules: On an accelerator that neither loads zeros nor multiplies by them.
        layers: Number of convolutions and linear layers that were counted.
    """

    dense_joules: float
    sparse_joules: float
    layers: int

    @property
    def ratio(self) -> float:
        """Sparse energy as a share of the dense energy; 1.0 when there was nothing to skip."""
        return self.sparse_joules / self.dense_joules


def modelled_energy(model: nn.Module, inputs: torch.Tensor) -> ModelledEnergy | None:
    """Model the energy per example of ``model(inputs)`` on a zero-skipping accelerator.

    Per layer, with z the non-zero share: memory x (parameters + inputs + outputs) + z_parameters x z_inputs x multiplications x compute;
    the dense estimate has every z = 1 and counts all numbers. Parameters are loaded once per batch of one. Only convolutions and linear
    layers are counted, in evaluation mode.

    Args:
        model: Model; its mode is restored.
        inputs: Batch ``(b, ...)``; activations are averaged over it.

    Returns:
        The two estimates, or None if no layer could be counted.

    Source: energy model of Shumailov et al., Sponge Examples, arXiv 2006.03463, with the constants of this module.
    """
    totals = {"dense": 0.0, "sparse": 0.0, "layers": 0.0}

    def add(layer: nn.Module, arguments: tuple[Any, ...], output: torch.Tensor) -> None:
        dense, sparse = _layer_joules(layer, arguments[0], output)
        totals["dense"] += dense
        totals["sparse"] += sparse
        totals["layers"] += 1

    handles = [module.register_forward_hook(add) for module in model.modules() if _counted(module)]
    try:
        with evaluating(model), torch.no_grad():
            model(inputs)
    finally:
        for handle in handles:
            handle.remove()
    if not totals["layers"]:
        return None
    return ModelledEnergy(totals["dense"], totals["sparse"], int(totals["layers"]))


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put every module into evaluation mode and give each its own mode back afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def _counted(module: nn.Module) -> bool:
    return isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear))


def _layer_joules(layer: nn.Module, x: torch.Tensor, output: torch.Tensor) -> tuple[float, float]:
    batch = x.shape[0]
    weights = [parameter for parameter in layer.parameters(recurse=False)]
    numbers = [sum(w.numel() for w in weights), x.numel() / batch, output.numel() / batch]
    present = [float(sum(_nonzero(w) for w in weights)), _nonzero(x) / batch, _nonzero(output) / batch]
    per_output = layer.weight[0].numel()  # type: ignore[index]  # both kinds have one filter per output
    multiplications = numbers[2] * per_output
    skipping = (present[0] / numbers[0]) * (present[1] / numbers[1])
    dense = MEMORY_ACCESS_JOULES * sum(numbers) + MULTIPLICATION_JOULES * multiplications
    sparse = MEMORY_ACCESS_JOULES * sum(present) + MULTIPLICATION_JOULES * multiplications * skipping
    return dense, sparse


def _nonzero(tensor: torch.Tensor) -> int:
    return int(torch.count_nonzero(tensor))
