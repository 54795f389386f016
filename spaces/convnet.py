"""Small convolutional networks, from 8 x 8 digits to CIFAR-sized photographs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeAlias

import torch
from torch import nn

from ..search.space import Candidate, Suggest
from ..search.training.task import Task
from .layers import Activations, Headed, Norms, activation, image_shape, norm
from .recipes import ORDINARY, Counts, Domain, Family, Options, RecipeRanges, parts_of, suggest_categorical, suggest_int, words

Poolings: TypeAlias = Annotated[Options[str], words("max", "average", "stride")]
Kernels: TypeAlias = Annotated[Options[int], Domain("an odd number >= 1", lambda n: n > 0 and n % 2 == 1, choices=True)]
#: Images and patches that the filters are computed from, and what is added to the variances of standardised pixels before the division.
WHITENED_FROM, WHITENED_PATCHES, WHITENED_FLOOR = 256, 50_000, 1e-2


@dataclass(frozen=True)
class BlockFamily(Family):
    """The ranges of networks made of blocks of convolution, norm and activation; channels double where the image is halved.

    ``depths`` are numbers of blocks, ``widths`` channels of the first one, ``kernels`` the side of the kernels in pixels, odd.
    ``depthwise`` splits convolutions after the first into a depthwise and a pointwise one. ``poolings``, max, average or stride, is how a
    block halves the image. ``whitened`` starts the first convolution with filters that whiten patches of the training images, see
    ``start_whitened``. Norms are ``batch``, ``group``, ``layer`` or ``none``; activations ``relu``, ``gelu`` or ``silu``.
    """

    depths: Counts = (1, 4)
    widths: Counts = (8, 64)
    kernels: Kernels = (3, 5)
    depthwise: Options[bool] = (False, True)
    poolings: Poolings = ("max", "average", "stride")
    norms: Norms = ("batch", "group")
    activations: Activations = ("relu", "silu")
    whitened: Options[bool] = True
    recipe: RecipeRanges = field(default_factory=RecipeRanges)
    name: str = "convnet"

    def architecture(self, trial: Suggest) -> Mapping[str, Any]:
        """Draw the settings of the blocks."""
        depth = suggest_int(trial, "depth", self.depths)
        return {
            "depth": depth,
            "width": suggest_int(trial, "width", self.widths, log=True),
            "kernel": suggest_categorical(trial, "kernel", self.kernels),
            "depthwise": depth > 1 and suggest_categorical(trial, "depthwise", self.depthwise),  # the first block has nothing to split
            "pooling": suggest_categorical(trial, "pooling", self.poolings),
            "norm": suggest_categorical(trial, "norm", self.norms),
            "activation": suggest_categorical(trial, "activation", self.activations),
            "whitened": suggest_categorical(trial, "whitened", self.whitened),
        }

    def defaults(self) -> Mapping[str, Any]:
        """Return the parameters of the ordinary network of its kind; the ranges may allow only near ones."""
        plain = {"depth": 4, "width": 32, "kernel": 3, "depthwise": False, "pooling": "max", "norm": "batch", "activation": "relu"}
        return {**ORDINARY, **plain}


@dataclass(frozen=True)
class Convnet(BlockFamily):
    """Blocks, a global average and one linear layer; see ``BlockFamily`` for the ranges."""

    def build(self, candidate: Candidate, task: Task) -> ConvolutionalNetwork:
        """Build the untrained network; a task without images raises ValueError."""
        parts = parts_of(candidate)
        whitened = parts.pop("whitened", False)
        model = ConvolutionalNetwork(image_shape(candidate, task), task.outputs, **parts)
        if whitened:
            start_whitened(model.blocks[0], task, candidate.recipe.resolution)
        return model


class ConvolutionalNetwork(Headed):
    """Blocks of convolutions, a global average and one linear layer; see ``BlockFamily`` for the arguments."""

    def __init__(
        self,
        shape: tuple[int, int, int],
        outputs: int,
        *,
        depth: int,
        width: int,
        kernel: int = 3,
        depthwise: bool = False,
        pooling: str = "max",
        norm: str = "batch",
        activation: str = "relu",
    ) -> None:
        super().__init__()
        made = list(blocks(shape, depth, width, kernel, depthwise, pooling, norm, activation))
        self.blocks = nn.Sequential(*(part for part, _ in made))
        self.head = nn.Linear(made[-1][1], outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(b, channels, height, width)`` to ``(b, outputs)``."""
        logits: torch.Tensor = self.head(self.blocks(x).mean(dim=(2, 3)))
        return logits


def blocks(
    shape: tuple[int, int, int], depth: int, width: int, kernel: int, depthwise: bool, pooling: str, norm: str, activation: str
) -> Iterator[tuple[nn.Sequential, int]]:
    """Yield the blocks of a network, each made when it is taken, with the channels that leave it; see ``ConvolutionalNetwork``."""
    channels, side = shape[0], min(shape[1:])
    for index in range(depth):
        halve = side >= 4  # a smaller image has nothing left to summarise
        split = depthwise and index > 0
        yield _block(channels, width, kernel, split, pooling if halve else None, norm_kind=norm, activation_kind=activation), width
        side = side // 2 if halve else side
        channels, width = width, width * 2 if halve else width


def start_whitened(block: nn.Module, task: Task, resolution: int | None = None) -> None:
    """Start the first convolution of a block with filters that whiten patches of the training images, each beside its negative.

    The filters are the principal components of the patches, each divided by its standard deviation; those of most variance come first, and
    where there are more channels than filters the rest stay as drawn. They are trained like all others. A network without values (on the
    device ``meta``) stays as it is.

    Source: Page 2019 (How to train your ResNet) and Jordan 2024 (arXiv 2404.00498), who put such a layer in front; as a start of the layer
    that is there it costs nothing. 4,250 images of 32 x 32 in ten classes, 3 blocks, 32 channels: see ``studies/results/scratch.md``.
    """
    convolution = next(layer for layer in block.modules() if isinstance(layer, nn.Conv2d))
    if convolution.weight.is_meta:
        return
    with torch.no_grad(), torch.device("cpu"):
        inputs, _ = next(iter(task.train.batches(WHITENED_FROM, resolution=resolution)))
        size = convolution.kernel_size
        padding = max(side // 2 if have < side else 0 for have, side in zip(inputs.shape[2:], size, strict=True))
        patches = nn.functional.unfold(inputs.float().cpu(), size, padding=padding).transpose(1, 2).flatten(0, 1)
        patches = patches[:: max(1, len(patches) // WHITENED_PATCHES)].double()
        if len(patches) < 2 or not torch.isfinite(patches).all():
            return
        variances, components = torch.linalg.eigh(torch.cov(patches.T).reshape(patches.shape[1], -1))
        filters = (components / (variances.clamp(min=0.0) + WHITENED_FLOOR).sqrt()).T.flip(0)
        half = max(1, convolution.out_channels // 2)
        both = torch.cat([filters[:half], -filters[:half]])[: convolution.out_channels]
        convolution.weight[: len(both)] = both.reshape(-1, *convolution.weight.shape[1:]).to(convolution.weight)


def _block(
    channels: int, width: int, kernel: int, depthwise: bool, pooling: str | None, *, norm_kind: str, activation_kind: str
) -> nn.Sequential:
    """Return convolution, norm, activation and, unless ``pooling`` is None, a step that halves the image."""
    stride = 2 if pooling == "stride" else 1
    bias = norm_kind == "none"  # a norm has a shift of its own
    if depthwise:
        convolutions = [
            nn.Conv2d(channels, channels, kernel, stride=stride, padding=kernel // 2, groups=channels, bias=False),
            nn.Conv2d(channels, width, 1, bias=bias),
        ]
    else:
        convolutions = [nn.Conv2d(channels, width, kernel, stride=stride, padding=kernel // 2, bias=bias)]
    layers: list[nn.Module] = [*convolutions, norm(norm_kind, width), activation(activation_kind)]
    if pooling in ("max", "average"):
        layers.append(nn.MaxPool2d(2) if pooling == "max" else nn.AvgPool2d(2))
    return nn.Sequential(*layers)
