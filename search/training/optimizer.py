"""The optimiser of a recipe, over the parameters that may be trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from .recipe import Recipe

#: Attributes under which torchvision and common networks keep their classifier.
HEADS = ("head", "heads", "fc", "classifier")


def trainable(model: torch.nn.Module) -> list[torch.nn.Parameter]:
    """Return the parameters that want a gradient.

    Raises:
        ValueError: If there is none.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not parameters:
        raise ValueError("the model has no parameter with requires_grad; freeze less of it")
    return parameters


def head_parameters(model: torch.nn.Module) -> list[torch.nn.Parameter]:
    """Return the parameters of the classifier head.

    A model says itself with a method ``head_parameters()``; else timm's ``get_classifier()`` or one of the usual attributes is read.

    Raises:
        ValueError: If the model has none of them.
    """
    own = getattr(model, "head_parameters", None)
    if callable(own):
        return list(own())
    classifier = getattr(model, "get_classifier", None)
    heads = [classifier()] if callable(classifier) else [getattr(model, name, None) for name in HEADS]
    for head in heads:
        if isinstance(head, torch.nn.Module) and (found := list(head.parameters())):
            return found
    raise ValueError(
        f"recipe.head_learning_rate is set, but {type(model).__name__} has no head_parameters(), get_classifier() or "
        f"attribute {', '.join(HEADS)}; give it a method head_parameters() or leave head_learning_rate at None"
    )


def make_optimizer(model: torch.nn.Module, parameters: Sequence[torch.nn.Parameter], recipe: Recipe) -> torch.optim.Optimizer:
    """Build the optimiser; each group keeps its peak learning rate under ``"peak"``.

    Vectors (biases, normalisation scales) are not decayed: pulling them to zero does not limit what the network can express.
    The order of the groups depends on the model alone, so that a stored state fits again.
    """
    heads = {id(p) for p in head_parameters(model)} if recipe.head_learning_rate is not None else set()
    groups: list[dict[str, Any]] = []
    for in_head, rate in ((False, recipe.learning_rate), (True, recipe.head_learning_rate)):
        for decays in (True, False):
            chosen = [p for p in parameters if (id(p) in heads) == in_head and (p.ndim > 1) == decays]
            if chosen:
                groups.append({"params": chosen, "lr": rate, "peak": rate, "weight_decay": recipe.weight_decay if decays else 0.0})
    # One kernel for all tensors; on a CPU the plain loop over tensors costs as much as the backward pass of a small net.
    fused = all(p.device.type in ("cpu", "cuda") and p.is_floating_point() for p in parameters)
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=recipe.learning_rate, momentum=recipe.momentum, nesterov=recipe.momentum > 0, fused=fused)
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, fused=fused)
