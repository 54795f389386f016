"""What the spaces of ready-made networks share: names, files of weights, preprocessing, freezing, new heads, images that are too small."""

from __future__ import annotations

import copy
import difflib
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torch.overrides import TorchFunctionMode

from ..search.space import Candidate, NearestTrial, Suggest
from ..search.training.backbone import library
from ..search.training.recipe import Recipe
from ..search.training.tactics.tactic import evaluating
from ..search.training.task import Task
from .recipes import Domain, suggest_categorical

Zoo = TypeVar("Zoo", bound=Any)
#: Stages that are frozen, see `freeze_stages`.
FREEZE = Domain("none, backbone or a whole number >= 0", lambda n: n in ("none", "backbone") or 0 <= n == n // 1, choices=True)
#: Images with a shorter side (pixels) are passed through a network before it is trained: its strides may shrink them to nothing.
SMALL_SIDE = 64
#: Sides (pixels) of which one is offered where images do not fit a network.
SIDES = (32, 48, 64, 96, 112, 128, 160, 192, 224, 256, 299, 384, 448)


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


class Prepare(nn.Module):
    """Images as a task hands them out -> images as a pretrained network knows them: its mean and deviation, its size, three colours.

    A resize is linear and the same for every image: one matrix for the rows and one for the columns, antialiased where it shrinks. Two
    products are cheaper than an interpolation pixel by pixel, and every runtime has them.

    Attributes:
        settings: All of it as JSON, beside what of the task's own preprocessing is undone.
    """

    factor: torch.Tensor
    offset: torch.Tensor
    rows: torch.Tensor | None
    columns: torch.Tensor | None

    def __init__(
        self,
        task: Task,
        shape: tuple[int, int, int],
        size: tuple[int, int],
        *,
        mean: Sequence[float],
        deviation: Sequence[float],
        interpolation: str = "bicubic",
    ) -> None:
        """Prepare images of ``shape`` (channels, height, width) for a network that knows images of ``size`` (height, width).

        ``mean`` and ``deviation`` are the network's, one number a colour, of pixels in [0, 1].

        Raises:
            ValueError: If the images are neither grey nor in colour.
        """
        super().__init__()
        if shape[0] not in (1, len(mean)):
            raise ValueError(f"pretrained networks need images of 1 or {len(mean)} channels, got {shape[0]}; use --pretrained no")
        undone = task.preprocessing.get("mean") or (0.0,), task.preprocessing.get("std") or (1.0,)
        how = interpolation if interpolation in ("bilinear", "bicubic") else "bicubic"
        self.settings: Mapping[str, Any] = {
            "undo": {"mean": list(undone[0]), "std": list(undone[1])},
            "size": list(size),
            "resize": f"antialiased {how} interpolation",
            "mean": list(mean),
            "std": list(deviation),
        }
        before, spread, centre, scale = (np.asarray(values, dtype=np.float64)[:, None, None] for values in (*undone, mean, deviation))
        resize = tuple(shape[1:]) != tuple(size)
        matrices = {
            "factor": torch.tensor(spread / scale, dtype=torch.float32),
            "offset": torch.tensor((before - centre) / scale, dtype=torch.float32),
            "rows": resize_matrix(shape[1], size[0], how) if resize else None,
            "columns": resize_matrix(shape[2], size[1], how).T.contiguous() if resize else None,
        }
        for name, matrix in matrices.items():
            self.register_buffer(name, matrix, persistent=False)  # the task says it all: no part of the weights

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return ``(b, 3, height, width)`` for images ``(b, c, h, w)``; a grey image becomes three equal colours."""
        scaled = images * self.factor + self.offset
        return scaled if self.rows is None or self.columns is None else self.rows @ scaled @ self.columns


def resize_matrix(before: int, after: int, how: str) -> torch.Tensor:
    """Return the matrix ``(after, before)`` that resizes one side of an image: what the interpolation makes of each unit vector."""
    units = torch.eye(before)[None, :, :, None].expand(-1, -1, -1, 2)  # a channel for each, with two equal columns
    return F.interpolate(units, size=(after, 2), mode=how, antialias=True)[0, :, :, 0].T.contiguous()


def same_area(shape: tuple[int, int, int], side: int) -> tuple[int, int]:
    """Return height and width in the ratio of the shape, with about the area of a square of ``side`` pixels, in multiples of 8."""
    ratio = (shape[1] / shape[2]) ** 0.5
    height, width = (max(8, round(one / 8) * 8) for one in (side * ratio, side / ratio))
    return height, width


def start_at_zero(head: nn.Module) -> None:
    """Set the linear layers of a new head to zero: a random start of the usual size costs accuracy that it takes epochs to win back."""
    for layer in head.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            nn.init.zeros_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def freeze_stages(model: nn.Module, groups: Sequence[Sequence[str]], head: Collection[str], freeze: str | int) -> None:
    """Freeze parameters up to a depth, and the batch norms that have no trainable parameter left.

    A batch norm that keeps counting would change the features of a frozen backbone from epoch to epoch, so it is replaced by one with fixed
    statistics. Keys of the state dictionary stay, but for the counter of batches.

    ``groups`` are names of the parameters by stage, from the input to the output, ``head`` those that are always trained. ``freeze`` is
    ``none``, ``backbone`` or the number of stages to freeze, the stem being the first.

    Raises:
        ValueError: If nothing would be left to train.
    """
    from timm.layers import BatchNormAct2d
    from timm.utils.model import freeze_batch_norm_2d

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


def folded(model: nn.Module, example: torch.Tensor) -> nn.Module:
    """Return a copy of a model whose batch norms are multiplied into the convolutions before them: half of the time on a CPU.

    One ``example (1, c, h, w)`` shows which convolution a batch norm follows, and that the outputs stay the same; where they do not, e.g.
    because something else reads a convolution as well, the model itself is returned. It must be in evaluation mode, and stay in it.
    """
    from timm.layers import BatchNormAct2d

    copied = copy.deepcopy(model)
    made: dict[int, tuple[Any, torch.Tensor]] = {}  # the outputs are kept, so that no two have one address
    pairs: dict[str, Any] = {}
    hooks = []
    for path, module in copied.named_modules():
        if isinstance(module, nn.Conv2d):
            hooks.append(module.register_forward_hook(lambda own, given, out: made.update({id(out): (own, out)})))
        elif isinstance(module, nn.BatchNorm2d):
            look = lambda own, given, path=path: pairs.update({path: made[id(given[0])][0]} if id(given[0]) in made else {})  # noqa: E731
            hooks.append(module.register_forward_pre_hook(look))
    with torch.no_grad():
        before = copied(example)
        for hook in hooks:
            hook.remove()
        for path, convolution in pairs.items():
            norm: Any = copied.get_submodule(path)
            statistics = norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
            convolution.weight, convolution.bias = fuse_conv_bn_weights(convolution.weight, convolution.bias, *statistics)
            parent, _, child = path.rpartition(".")
            setattr(copied.get_submodule(parent), child, norm.act if isinstance(norm, BatchNormAct2d) else nn.Identity())
        difference = (copied(example) - before).abs().max()
    return copied if difference <= 1e-3 * before.abs().max() else model


def check_forward(model: nn.Module, name: str, shape: tuple[int, int, int]) -> None:
    """Pass one black image through the model, which costs nothing without values; with them only one that strides may shrink to nothing.

    Raises:
        UnfitError: If the model cannot take images of this shape.
    """
    if min(shape[1:]) >= SMALL_SIDE and not any(parameter.is_meta for parameter in model.parameters()):
        return
    try:
        with evaluating(model), torch.no_grad():
            model(torch.zeros(1, *shape))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise unfit(name, shape, error) from error


@lru_cache(maxsize=16)
def outline(name: str) -> Any:
    """Return a network of timm for its layers, names and shapes, without values, taking no random number from anybody; it is read alone.

    Made on the CPU: initial weights without values load PyTorch's compiler, which takes more CPU time than those of most networks.
    """
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        return library("timm").create_model(name).to("meta")


class UnfitError(ValueError):
    """A network cannot take images of some shape."""


def unfit(name: str, shape: Sequence[int], error: Exception) -> UnfitError:
    """Return the error for a network that cannot take images of this shape."""
    said = f"{name} cannot take images of {shape[1]} x {shape[2]} pixels ({first_line(error)})"
    return UnfitError(f"{said}; give it others, as by --set resolution=N (Python: RecipeRanges(resolution=N))")


class _Unset(TorchFunctionMode):
    """Leaves initial weights as they are: without values, drawing them would load PyTorch's compiler."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(function, "__name__", "") in ("uniform_", "normal_", "trunc_normal_", "erfinv_"):
            return args[0] if args else kwargs["tensor"]
        return function(*args, **(kwargs or {}))


def fitting(zoo: Zoo, names: Sequence[str], task: Task, known: Collection[str] = ()) -> Zoo:
    """Return a family without the models that cannot take the images of a task, and warn of them; ``known`` take all but small ones.

    Each of the others is built without values, and an image without values passed through it.

    Raises:
        ValueError: If none of the models can take them.
    """
    if len(task.input_shape) != 3:
        return zoo
    sizes = zoo.recipe.resolution if isinstance(zoo.recipe.resolution, tuple) else (zoo.recipe.resolution,)
    looked = [name for name in names if name not in known or min(min(task.shape_at(size)[1:]) for size in sizes) < SMALL_SIDE]
    reasons = {name: reason for name in looked for size in sizes if (reason := _reason(zoo, name, task, size)) is not None}
    if not reasons:
        return zoo
    few, short = list(reasons)[:3], min(task.input_shape[1:])
    offered = sorted(SIDES, key=lambda side: (side < short, abs(side - short)))
    side = next((side for side in offered if all(_reason(zoo, name, task, side) is None for name in few)), None)
    said = f"{zoo.name}: {first_few(list(reasons))} cannot take the images ({reasons[few[0]]})"
    remedy = f"give --set resolution={side} (Python: RecipeRanges(resolution={side})) or other models" if side else "name other models"
    if len(reasons) == len(names):
        raise ValueError(f"{said}; {remedy}")
    warnings.warn(f"{said} and {'is' if len(reasons) == 1 else 'are'} left out; {remedy} to have all", stacklevel=2)
    return replace(zoo, models=tuple(name for name in names if name not in reasons), of_several=True)


def suggest_model(trial: Suggest, zoo: Any, names: tuple[str, ...]) -> str:
    """Draw a model; also the only one that is left `of_several` is stored, since who reads a run has the whole family."""
    return str(trial.suggest_categorical("model", names) if zoo.of_several else suggest_categorical(trial, "model", names))


def _reason(zoo: Any, name: str, task: Task, size: int | None) -> str | None:
    """Return why a model of a family cannot take the images of a task at a size; None where it can, or only its own trial can tell."""
    parts = replace(zoo, models=(name,)).architecture(NearestTrial({}))
    plain = {"family": zoo.name, **parts, "weights": "none", "prepared": parts["weights"] != "none", "drop_path": 0.0}
    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"), _Unset():
            zoo.build(Candidate(plain, Recipe(resolution=size)), task)
    except UnfitError as error:
        shape = task.shape_at(size)
        return None if "meta" in str(error.__cause__) else f"{shape[1]} x {shape[2]} pixels: {first_line(error.__cause__ or error)}"
    except Exception:
        return None
    return None


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")


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
