"""What the zoos of ready-made networks share: names and patterns, files of weights, freezing, and images that are too small."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import torch
from torch import nn

from ..search.training.tactics.tactic import evaluating

#: Images with a shorter side (pixels) are passed through a network before it is trained: its strides may shrink them to nothing.
SMALL_SIDE = 64


def expand(
    patterns: Sequence[str], find: Callable[[str], Sequence[str]], every: Callable[[], Sequence[str]], library: str
) -> tuple[str, ...]:
    """Return the names that match the patterns, each once, in the order of the patterns.

    ``find`` returns the names that match a pattern, none where it is unknown; ``every`` returns all names, and is called only then.

    Raises:
        ValueError: If a pattern matches nothing; the message names similar models.
    """
    names: dict[str, None] = {}
    for pattern in patterns:
        found = find(pattern)
        if not found:
            similar = difflib.get_close_matches(pattern.split(".")[0], every(), n=3)
            raise ValueError(
                f"{library} has no model {pattern!r}; similar: {', '.join(similar) or 'none'}. {library}.list_models() gives all names"
            )
        names.update(dict.fromkeys(found))
    return tuple(names)


def freeze_stages(model: nn.Module, groups: Sequence[Sequence[str]], head: Collection[str], freeze: str | int) -> None:
    """Freeze parameters up to a depth, and the batch norms that have no trainable parameter left.

    A batch norm that keeps counting would change the features of a frozen backbone from epoch to epoch, so it is replaced by one with fixed
    statistics. Keys of the state dictionary stay, but for the counter of batches.

    ``groups`` are names of the parameters by stage, from the input to the output, ``head`` those that are always trained. ``freeze`` is
    ``none``, ``backbone`` or the number of stages to freeze, the stem being the first.

    Raises:
        ValueError: If ``freeze`` is none of these, or nothing would be left to train.
    """
    from timm.layers import BatchNormAct2d
    from timm.utils.model import freeze_batch_norm_2d

    if freeze not in ("none", "backbone") and (isinstance(freeze, (str, bool)) or freeze < 0):
        raise ValueError(f"freeze must be 'none', 'backbone' or a number of stages >= 0, got {freeze!r}")
    count = {"none": 0, "backbone": len(groups)}[freeze] if isinstance(freeze, str) else freeze
    frozen = {name for group in groups[:count] for name in group if name not in head}
    for name, parameter in model.named_parameters():
        if name in frozen:
            parameter.requires_grad = False
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError(f"freezing {len(frozen)} parameters of {type(model).__name__} leaves nothing to train; freeze fewer stages")
    for path, module in list(model.named_modules()):
        if isinstance(module, (nn.BatchNorm2d, BatchNormAct2d)) and not any(p.requires_grad for p in module.parameters()):
            parent, _, child = path.rpartition(".")
            setattr(model.get_submodule(parent), child, freeze_batch_norm_2d(module))


def check_forward(model: nn.Module, name: str, shape: tuple[int, int, int]) -> None:
    """Pass one black image of a size that strides may shrink to nothing through the model; larger ones are taken for granted.

    Raises:
        ValueError: If the model cannot take images of this shape.
    """
    if min(shape[1:]) >= SMALL_SIDE:
        return
    try:
        with evaluating(model), torch.no_grad():
            model(torch.zeros(1, *shape))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise too_small(name, shape, error) from error


def too_small(name: str, shape: tuple[int, int, int], error: Exception) -> ValueError:
    """Return the error for a network that cannot take images of this shape."""
    return ValueError(f"{name} cannot take images of {shape[1]} x {shape[2]} pixels ({first_line(error)}); set a larger recipe.resolution")


def first_line(error: Exception) -> str:
    """Return the first line of an error's text."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def first_few(names: Sequence[str]) -> str:
    """Return three of the names and the number of the others."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def names_within(model: nn.Module, part: nn.Module) -> set[str]:
    """Return the names that the parameters of a part have in the whole model."""
    own = {id(parameter) for parameter in part.parameters()}
    return {name for name, parameter in model.named_parameters() if id(parameter) in own}


def weights_file(weights: str) -> Path:
    """Return the path of a file of weights, or raise FileNotFoundError where there is none."""
    path = Path(weights).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"weights={weights!r}: there is no such file; give a .safetensors or .pth file, 'hub' or 'none'")
    return path
