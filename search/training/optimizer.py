"""The optimiser of a recipe: parameter groups, the learning rate over the steps, averaged weights, and early stopping."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch

from .recipe import Recipe
from .tactics.tactic import head_parameters

#: Relative width of the window: gamma = 6.94 is a standard deviation of 10 % of the training.
#: Source: Karras et al. 2024, "Analyzing and Improving the Training Dynamics of Diffusion Models", arXiv:2312.02696, section 3.1.
GAMMA = 6.94
#: Share of the first epoch over which the learning rate rises. Long enough to settle Adam's second moments and short enough
#: that a model of one epoch loses nothing to it.
WARMUP_EPOCHS = 0.3
#: Share of the steps before the peak, start and end relative to the peak.
#: Source: Smith & Topin 2018, arXiv:1708.07120; the values are PyTorch's defaults for OneCycleLR.
ONE_CYCLE = (0.3, 1 / 25, 1 / 25e4)


def _without_compiler(kind: type[torch.optim.Optimizer]) -> Callable[..., torch.optim.Optimizer]:
    """Return an optimiser that does not load ``torch._dynamo``, 1.4 CPU-seconds of each process, where nothing is compiled.

    PyTorch wraps methods for steps that are compiled, which ours never are; what is wrapped stays as it is.
    """
    wrapped = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")
    bare: dict[str, Any] = {name: inspect.unwrap(getattr(kind, name)) for name in wrapped}
    return type(kind.__name__, (kind,), {**bare, "step": torch.no_grad()(inspect.unwrap(kind.step))})


Sgd, AdamW, Lbfgs = map(_without_compiler, (torch.optim.SGD, torch.optim.AdamW, torch.optim.LBFGS))


def trainable(model: torch.nn.Module) -> list[torch.nn.Parameter]:
    """Return the parameters that require a gradient, or raise ValueError if there are none."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not parameters:
        raise ValueError("the model must have a parameter with requires_grad, got none; freeze less of it")
    return parameters


def make_optimizer(model: torch.nn.Module, parameters: Sequence[torch.nn.Parameter], recipe: Recipe) -> torch.optim.Optimizer:
    """Build the optimiser; each group keeps its peak learning rate under ``"peak"``.

    Vectors (biases, normalisation scales) are not decayed: pulling them to zero does not limit what the network can express.
    A model may have a method ``rate_factors()`` that returns groups of parameters with factors of their learning rates. The order of the
    groups depends on the model alone, so that a stored state fits again.
    """
    heads = {id(p) for p in head_parameters(model)} if recipe.head_learning_rate is not None else set()
    factors = {id(p): float(factor) for part, factor in getattr(model, "rate_factors", tuple)() for p in part}
    groups: list[dict[str, Any]] = []
    for in_head, rate in ((False, recipe.learning_rate), (True, recipe.head_learning_rate or recipe.learning_rate)):
        for factor in sorted({1.0, *factors.values()}, reverse=True):
            for decays in (True, False):
                place = in_head, factor, decays
                chosen = [p for p in parameters if (id(p) in heads, factors.get(id(p), 1.0), p.ndim > 1) == place]
                decay = recipe.weight_decay if decays else 0.0
                if chosen:
                    groups.append({"params": chosen, "lr": rate * factor, "peak": rate * factor, "weight_decay": decay})
    # One kernel for all tensors; on a CPU the plain loop over tensors costs as much as the backward pass of a small net.
    fused = all(p.device.type in ("cpu", "cuda") and p.is_floating_point() for p in parameters)
    if recipe.optimizer == "sgd":
        return Sgd(groups, lr=recipe.learning_rate, momentum=recipe.momentum, nesterov=recipe.momentum > 0, fused=fused)
    return AdamW(groups, lr=recipe.learning_rate, fused=fused)


def set_rate(group: dict[str, Any], rate: float) -> None:
    """Set the learning rate of a parameter group, in place where a CUDA graph reads it."""
    if isinstance(group["lr"], torch.Tensor):
        group["lr"].fill_(rate)
    else:
        group["lr"] = rate


def portable_state(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Return the optimiser's state for a checkpoint, without what a CUDA graph has made of its groups."""
    state = optimizer.state_dict()
    for group in state["param_groups"]:
        group["lr"] = group["peak"]
        if "capturable" in group:
            group["capturable"] = False
    return state


def learning_rate_factor(recipe: Recipe, step: int, *, steps_per_epoch: int, total_steps: int) -> float:
    """Return the factor of the peak learning rate, in ``[0, 1]``, at one optimiser step, counted over the whole lineage from 0.

    Only schedules with a fixed horizon read ``total_steps``; for ``anytime`` and ``constant`` it has no effect, so that a training can
    continue.
    """
    if recipe.schedule == "constant":
        return 1.0
    if recipe.schedule == "one_cycle":
        share, low, end = ONE_CYCLE
        peak = max(1.0, share * (total_steps - 1))
        if step <= peak:
            return _cosine(low, 1.0, step / peak)
        return _cosine(1.0, end, (step - peak) / max(1.0, total_steps - 1 - peak))
    warmup = max(1.0, WARMUP_EPOCHS * steps_per_epoch)
    rise = min(1.0, (step + 1) / warmup)
    if recipe.schedule == "anytime":
        return rise
    return rise * _cosine(1.0, 0.0, step / max(1, total_steps))


def _cosine(first: float, last: float, share: float) -> float:
    """Go from ``first`` to ``last`` along half a cosine; ``share`` in [0, 1] is the part done."""
    return last + (first - last) * 0.5 * (1.0 + math.cos(math.pi * min(1.0, share)))


class Average:
    """Moving average of the trained weights and floating-point buffers; frozen weights are left out, as they do not change.

    Its window grows with the training, so that every epoch has a usable model. ``values`` are by name in the model's ``state_dict``.
    """

    def __init__(self, model: torch.nn.Module, trained: Iterable[torch.nn.Parameter]) -> None:
        """Start with a copy of the model's present state."""
        moving = {id(parameter) for parameter in trained}
        self._live = {
            name: tensor.detach()
            for name, tensor in model.state_dict(keep_vars=True).items()
            if (id(tensor) in moving if isinstance(tensor, torch.nn.Parameter) else tensor.is_floating_point())
        }
        # Weights that two layers share have two names and one average.
        first: dict[tuple[int, tuple[int, ...]], str] = {}
        owner = {name: first.setdefault((tensor.data_ptr(), tuple(tensor.shape)), name) for name, tensor in self._live.items()}
        own = {name: tensor for name, tensor in self._live.items() if owner[name] == name or not tensor.numel()}
        averages = {name: tensor.clone() for name, tensor in own.items()}
        self.values = {name: averages[name if name in own else owner[name]] for name in self._live}
        # One multi-tensor call for each dtype: a call for each tensor costs more than the arithmetic.
        self._groups = [
            (
                [averages[name] for name, tensor in own.items() if tensor.dtype == dtype],
                [tensor for tensor in own.values() if tensor.dtype == dtype],
            )
            for dtype in sorted({tensor.dtype for tensor in own.values()}, key=str)
        ]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Include the weights after optimiser step ``step``, counted from 1 over the whole lineage."""
        share = 1.0 - decay(step)
        for averages, live in self._groups:
            torch._foreach_lerp_(averages, live, share)

    @torch.no_grad()
    def include(self, share: torch.Tensor) -> None:
        """Include the weights with a share that lies on the device, a scalar."""
        for averages, live in self._groups:
            further = torch._foreach_sub(live, averages)
            torch._foreach_mul_(further, share)
            torch._foreach_add_(averages, further)

    @torch.no_grad()
    def load(self, values: Mapping[str, torch.Tensor]) -> None:
        """Continue from stored averages; names that are not those of this model raise ValueError."""
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


def decay(step: int) -> float:
    """Return the weight of the old average at a step counted from 1: ``(1 - 1/t) ** (GAMMA + 1)``.

    Source: Karras et al. 2024, arXiv:2312.02696, section 3.1 (power function profile).
    """
    return float((1.0 - 1.0 / step) ** (GAMMA + 1.0))


class Patience:
    """Early stopping: counts the epochs since the best one; its state is part of a checkpoint."""

    def __init__(self, epochs: int | None) -> None:
        """Allow ``epochs`` epochs without a new best; None never stops and needs no evaluation."""
        self.enabled = epochs is not None
        self._allowed = math.inf if epochs is None else epochs
        self._best = -math.inf
        self._since = 0

    def exhausted(self, quality: float) -> bool:
        """Record the quality of an epoch (greater is better) and return whether to stop."""
        if quality > self._best:
            self._best, self._since = quality, 0
        else:
            self._since += 1
        return self._since >= self._allowed

    def state(self) -> dict[str, float]:
        """Return what ``load`` reads back."""
        return {"best": self._best, "since": self._since}

    def load(self, state: Mapping[str, float]) -> None:
        """Continue counting from a stored state."""
        self._best, self._since = float(state["best"]), int(state["since"])
