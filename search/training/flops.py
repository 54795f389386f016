"""Size of a model before any training: parameters, floating-point operations and memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from .memory import input_shape, training_bytes
from .recipe import Recipe
from .task import Task


@dataclass(frozen=True)
class Cost:
    """What a model weighs.

    Attributes:
        parameters: Number of parameters, shared ones once; None for scikit-learn.
        flops: Forward floating-point operations for one example (a multiplication and an addition are two); None when unknown.
        memory_bytes: Estimate of what a training holds on its device, see ``memory.training_bytes``; None when unknown or not asked for.
    """

    parameters: int | None
    flops: int | None
    memory_bytes: int | None = None


def count(model: Any, task: Task, recipe: Recipe, *, memory: bool = False) -> Cost:
    """Count without computing: the forward pass runs on tensors that have shapes and no contents.

    A model that looks at contents cannot be run like that; then one example of zeros goes through the real model.

    Args:
        model: The untrained model.
        task: The data.
        recipe: How it is to be trained.
        memory: Whether to estimate the memory as well, which takes a second pass.
    """
    if not isinstance(model, torch.nn.Module):
        return Cost(None, None)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    shape = input_shape(task, recipe)
    was_training = model.training
    model.eval()
    try:
        flops = _flops(model, torch.device("meta"), shape)
        if flops is None:
            device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
            flops = _flops(model, device, shape)
    finally:
        model.train(was_training)
    return Cost(parameters, flops, training_bytes(model, task, recipe) if memory else None)


def _flops(model: torch.nn.Module, device: torch.device, shape: tuple[int, ...]) -> int | None:
    state = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    state = {name: tensor.to(device) for name, tensor in state.items()}
    counter = FlopCounterMode(display=False)
    try:
        with torch.no_grad(), counter:
            torch.func.functional_call(model, state, (torch.zeros((1, *shape), device=device),))
    except Exception:  # whatever a user's forward may raise: the training itself will say it better
        return None
    return int(counter.get_total_flops())
