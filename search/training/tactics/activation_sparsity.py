"""A smooth penalty on the number of non-zero activations, for hardware that skips zeros: its saving is simulated, never measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from .tactic import NoOp, evaluating

#: Joules of one access to off-chip memory and of one 32-bit multiplication in 45 nm technology.
#: Source: Horowitz, "Computing's energy problem (and what we can do about it)", ISSCC 2014: DRAM access 1.3 to 2.6 nJ (middle: 1.95),
#: 32-bit float multiplication 3.7 pJ. The same two numbers serve the simulated accelerator that sponge attacks and EAT (arXiv
#: 2307.00368) are evaluated with.
MEMORY_ACCESS_JOULES = 1950e-12
MULTIPLICATION_JOULES = 3.7e-12
#: Modules whose outputs hold exact zeros.
RECTIFIERS = (nn.ReLU, nn.ReLU6, nn.Threshold)
#: Modules whose energy is modelled.
LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


class ActivationSparsity(NoOp):
    """Adds ``weight`` times the smooth share of non-zero outputs of the rectifiers to the loss.

    An ordinary CPU or GPU computes with zeros as with other numbers: nothing is saved there, and the penalty itself costs energy, which
    the trial's own bill includes. What a zero-skipping accelerator would gain is modelled in columns named ``modelled_*``. A model without
    rectifier modules (or with ``relu`` called as a function) is trained as usual and has ``activation_sparsity_layers`` = 0.

    Source: Lazzaro et al., EAT, arXiv 2307.00368.
    """

    def __init__(self, *, weight: float = 0.1, sigma: float = 1e-4) -> None:
        """Choose the strength and the sharpness; a setting that is out of range raises ValueError.

        ``weight`` is the factor of the penalty (the paper's lambda); 0 adds nothing and still fills the columns. Squared activations far
        above ``sigma`` count as non-zero.
        """
        if not weight >= 0:
            raise ValueError(
                f"activation_sparsity.weight must be >= 0, got {weight!r}; it is a penalty, a reward would fill the activations"
            )
        if not sigma > 0:
            raise ValueError(f"activation_sparsity.sigma must be > 0, got {sigma!r}; 1e-4 is the usual value")
        self.weight, self.sigma = weight, sigma
        self._model: nn.Module | None = None
        self._handles: list[Any] = []
        self._terms: list[torch.Tensor] = []
        self._sample: list[torch.Tensor] = []

    def attach(self, model: nn.Module) -> None:
        """Hook the rectifiers, and the model itself to keep one batch for the columns."""
        self._model = model
        terms, sample, sigma = self._terms, self._sample, self.sigma

        # plain functions, not methods: a deep copy of the model (for averaging) then copies the hook and not this tactic with its tensors
        def collect(module: nn.Module, arguments: Any, output: torch.Tensor) -> None:
            if module.training and torch.is_grad_enabled():
                terms.append(smooth_l0(output, sigma))

        def remember(module: nn.Module, arguments: tuple[Any, ...]) -> None:
            x = arguments[0]
            # a larger image replaces a smaller one: early epochs may train on reduced images, inference never does
            if module.training and isinstance(x, torch.Tensor) and (not sample or x[0].numel() > sample[0][0].numel()):
                sample[:] = [x.detach()]

        rectifiers = _rectifiers(model)
        if self.weight > 0:
            self._handles += [module.register_forward_hook(collect) for module in rectifiers]
        self._handles.append(model.register_forward_pre_hook(remember))

    def start_epoch(self, epoch: int, epochs: int) -> None:
        """Drop what an earlier epoch left behind."""
        self._terms.clear()

    def penalty(self) -> torch.Tensor | None:
        """Return ``weight`` times the mean over the rectifiers that the last batch went through."""
        if not self._terms:
            return None
        mean = torch.stack(self._terms).mean()
        self._terms.clear()
        return self.weight * mean

    def detach(self) -> dict[str, float]:
        """Remove the hooks and return the shares of the model as it is now, on the first training batch of full size."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._terms.clear()
        model, sample = self._model, list(self._sample)
        self._sample.clear()
        self._model = None
        if model is None:
            return {}
        columns: dict[str, float] = {"activation_sparsity_layers": len(_rectifiers(model))}
        if not sample:
            return columns
        share = nonzero_share(model, sample[0])
        energy = modelled_energy(model, sample[0])
        if share is not None:
            columns["activation_nonzero_share"] = share
        if energy is not None:
            columns["modelled_asic_dense_joules_per_inference"] = energy.dense_joules
            columns["modelled_asic_sparse_joules_per_inference"] = energy.sparse_joules
            columns["modelled_asic_energy_ratio"] = energy.ratio
        return columns


def smooth_l0(activations: torch.Tensor, sigma: float) -> torch.Tensor:
    """Differentiable share of non-zero numbers, ``mean(a^2 / (a^2 + sigma))``: the exact share as ``sigma`` goes to 0.

    Computed in float32, since squares of small half-precision numbers vanish. Source: EAT, arXiv 2307.00368 (approximation of the l0 norm).
    """
    squares = activations.float().square()
    return (squares / (squares + sigma)).mean()


def nonzero_share(model: nn.Module, inputs: torch.Tensor) -> float | None:
    """Mean over the rectifier calls of the exact share of non-zero outputs in evaluation mode; None without rectifiers."""
    shares: list[float] = []

    def count(module: nn.Module, arguments: Any, output: torch.Tensor) -> None:
        shares.append(float(torch.count_nonzero(output)) / output.numel())

    _pass_once(model, inputs, _rectifiers(model), count)
    return sum(shares) / len(shares) if shares else None


def _rectifiers(model: nn.Module) -> list[nn.Module]:
    return [module for module in model.modules() if isinstance(module, RECTIFIERS)]


@dataclass(frozen=True)
class ModelledEnergy:
    """Modelled energy of one forward pass per example, on an accelerator that neither loads nor multiplies zeros or on a dense one.

    ``layers`` is the number of convolutions and linear layers that were counted.
    """

    dense_joules: float
    sparse_joules: float
    layers: int

    @property
    def ratio(self) -> float:
        """Sparse energy as a share of the dense energy; 1.0 when there was nothing to skip."""
        return self.sparse_joules / self.dense_joules


def modelled_energy(model: nn.Module, inputs: torch.Tensor) -> ModelledEnergy | None:
    """Model the energy per example of ``model(inputs)`` on a zero-skipping accelerator; None if no layer could be counted.

    Per layer, with z the non-zero share: memory x (parameters + inputs + outputs) + z_parameters x z_inputs x multiplications x compute;
    the dense estimate has every z = 1 and counts all numbers. Parameters are loaded once per batch of one. Only convolutions and linear
    layers are counted, in evaluation mode; the mode of the model is restored. Activations are averaged over the batch.

    Source: energy model of Shumailov et al., Sponge Examples, arXiv 2006.03463, with the constants of this module.
    """
    totals = {"dense": 0.0, "sparse": 0.0, "layers": 0.0}

    def add(layer: nn.Module, arguments: tuple[Any, ...], output: torch.Tensor) -> None:
        dense, sparse = _layer_joules(layer, arguments[0], output)
        totals["dense"] += dense
        totals["sparse"] += sparse
        totals["layers"] += 1

    _pass_once(model, inputs, [module for module in model.modules() if isinstance(module, LAYERS)], add)
    if not totals["layers"]:
        return None
    return ModelledEnergy(totals["dense"], totals["sparse"], int(totals["layers"]))


def _pass_once(model: nn.Module, inputs: torch.Tensor, modules: list[nn.Module], hook: Callable[..., None]) -> None:
    """Pass a batch through the model in evaluation mode, with a forward hook on some of its modules."""
    handles = [module.register_forward_hook(hook) for module in modules]
    try:
        with evaluating(model), torch.no_grad():
            model(inputs)
    finally:
        for handle in handles:
            handle.remove()


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
