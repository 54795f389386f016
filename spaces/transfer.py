"""Transfer: a frozen pretrained network of timm and a small head, the cheapest good model that there is for most images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from typing import Annotated, Any

import torch
from torch import nn

from ..search.space import Candidate, FrozenPart, Suggest
from ..search.training.backbone import Part, Transfer
from ..search.training.heads import Logistic, Neighbours, Ridge
from ..search.training.recipe import Recipe
from ..search.training.task import Task
from .layers import image_shape
from .pretrained import SMALL_SIDE, Prepare, same_area
from .recipes import Counts, Family, Naturals, Options, Range, RecipeRanges, suggest_categorical, suggest_float, suggest_int, words
from .timm_zoo import prepare_for
from .weights import REMEDY, Weights, network

#: What a backbone gives, cheapest first.
FEATURE_SETS = ("early", "pooled", "grid")
#: Sides of the images in pixels, and how often the training images are halved.
SIDES, HALVINGS = Range(64, 128, step=32), Range(0, 5)
#: Side that most networks were pretrained with, and how far images are enlarged at most: more pixels say nothing more.
LARGEST_SIDE, ENLARGED = 224, 5
#: How a head learns that nobody has tuned, as measured best on few and on many images, and the side that it sees images at.
ORDINARY_HEAD = {"learning_rate": 1e-3, "weight_decay": 1e-1, "batch_size": 64, "label_smoothing": 0.0, "epochs": 3}
ORDINARY_SIDE = 96
#: Heads that are solved, without a recipe; each has one setting, the penalty of its weights or the number of neighbours.
SOLVED: Mapping[str, Range] = {
    "ridge": Range(0.1, 10, log=True),
    "logistic": Range(1e-2, 1, log=True),
    "neighbours": Range(3, 50, log=True),
}
#: Images are halved twice where more pixels are tried.
QUARTER = 2
#: A network that learns from a part of the images gets so many a class at least.
FEWEST_PER_CLASS = 8


class TimmBackbone(nn.Module):
    """A frozen pretrained network of timm, cut at one of three places.

    ``pooled``: the last layer, averaged over the image: what its own classifier reads. ``grid``: beside it the maps of the two last stages,
    averaged over the quarters of the image, which say more than the last layer where images are small. ``early``: the last but one stage
    alone, by quarters; what lies behind it is not computed.

    Attributes:
        identity: The network and the SHA-256 of its weights.
        preprocessing: What ``prepare`` does, as JSON.
    """

    def __init__(self, network: Any, prepare: Prepare, identity: str) -> None:
        """Freeze a network of timm without a head, for images that ``prepare`` makes."""
        super().__init__()
        self.identity, self.preprocessing = identity, prepare.settings
        self.network, self.preparation = network, prepare
        self.requires_grad_(False)
        self.eval()

    def feature_sets(self) -> tuple[str, ...]:
        """Return ``FEATURE_SETS``."""
        return FEATURE_SETS

    def prepare(self, images: torch.Tensor) -> torch.Tensor:
        """Bring images ``(b, c, h, w)``, as the task hands them out, to the network's scale, size and colours."""
        prepared: torch.Tensor = self.preparation(images)
        return prepared

    def embed(self, prepared: torch.Tensor, feature_set: str) -> torch.Tensor:
        """Return the features ``(b, d)`` of prepared images."""
        return embedded(self.network, prepared, feature_set)

    def part_of(self, feature_set: str) -> Part | None:
        """Return which columns of ``grid`` the other sets are; ``pooled`` takes the same layers."""
        if feature_set == "early":
            return Part("grid", slice(0, 4 * self.network.feature_info[-2]["num_chs"]))
        if feature_set == "pooled":
            width = getattr(self.network, "head_hidden_size", self.network.num_features)
            return Part("grid", slice(-width, None), same_cut=True)
        return None

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the pooled features of images as the task hands them out."""
        return self.embed(self.prepare(images), "pooled")

    def train(self, mode: bool = True) -> TimmBackbone:
        """Stay in evaluation mode: statistics that move would be other features in every epoch."""
        return super().train(False)


def embedded(network: Any, prepared: torch.Tensor, feature_set: str) -> torch.Tensor:
    """Return the features ``(b, d)`` that a network of timm gives of prepared images ``(b, 3, h, w)``."""
    if feature_set == "early":
        (maps,) = network.forward_intermediates(prepared, indices=[-2], stop_early=True, intermediates_only=True)
        return by_quarters(maps)
    last, stages = network.forward_intermediates(prepared, indices=[-2, -1])
    pooled: torch.Tensor = network.forward_head(last, pre_logits=True)
    return pooled if feature_set == "pooled" else torch.cat([*map(by_quarters, stages), pooled], dim=1)


def by_quarters(maps: torch.Tensor) -> torch.Tensor:
    """Average maps ``(b, c, h, w)`` over the four quarters of the image, ``(b, 4 c)``; the middle of an odd side belongs to both."""
    height, width = maps.shape[-2:]
    rows, columns = ((slice(0, (side + 1) // 2), slice(side // 2, side)) for side in (height, width))
    return torch.cat([maps[:, :, row, column].mean(dim=(2, 3)) for row in rows for column in columns], dim=1)


@dataclass(frozen=True)
class TransferFamily(Family):
    """A head on features of a frozen pretrained network, computed once for all trials that share them.

    Attributes:
        weights: The networks, see ``joulefront.spaces.weights.find``.
        sides: Side in pixels of a square with the area of the images as the network gets them; the dearest of these settings.
        images_halved: How often the training images are halved: a part of them makes an early, cheap point of the front.
        features: Of ``FEATURE_SETS``; ``pooled`` costs what ``grid`` does, and has fewer numbers to learn from few images.
        heads: ``linear``, the width of a hidden layer such as ``256``, or what is solved at once: ``ridge``, ``logistic``, ``neighbours``.
    """

    weights: tuple[Weights, ...]
    sides: Counts = SIDES
    images_halved: Naturals = HALVINGS
    features: Annotated[Options[str], words(*FEATURE_SETS)] = ("pooled", "grid")
    heads: Annotated[Options[str], words("linear", *SOLVED, units=True)] = ("linear", "256")
    recipe: RecipeRanges = field(default_factory=RecipeRanges)
    name: str = "transfer"

    def __post_init__(self) -> None:
        """Raise ValueError where there are no weights, or a field leaves its domain."""
        super().__post_init__()
        if not self.weights:
            raise ValueError(f"transfer.weights must hold pretrained weights, got none; {REMEDY}")

    def architecture(self, trial: Suggest) -> Mapping[str, Any]:
        """Draw a network, what it sees and gives, and a head."""
        chosen = suggest_categorical(trial, "model", tuple(one.identity for one in self.weights))
        drawn = {
            "weights": chosen,
            "side": suggest_int(trial, "side", self.sides),
            "images_halved": suggest_int(trial, "images_halved", self.images_halved),
            "features": suggest_categorical(trial, "features", self.features),
            "head": suggest_categorical(trial, "head", self.heads),
        }
        if drawn["head"] in SOLVED:
            drawn["setting"] = suggest_float(trial, f"{drawn['head']}.setting", SOLVED[drawn["head"]], log=True)
        return drawn

    def sample(self, trial: Suggest) -> Candidate:
        """Draw a model and its training; a head that is solved has none."""
        drawn = {"family": self.name, **self.architecture(trial)}
        return Candidate(drawn, Recipe() if drawn["head"] in SOLVED else self.recipe.sample(trial))

    def defaults(self) -> Mapping[str, Any]:
        """Return the ordinary choice where weights are at hand: a linear head on frozen features of all images, for a few epochs."""
        return {"side": ORDINARY_SIDE, "images_halved": 0, "features": "grid", "head": "linear", **ORDINARY_HEAD}

    def frozen(self, candidate: Candidate) -> FrozenPart:
        """Return which features a candidate needs: one pass gives all sets of a network at one size."""
        parts = candidate.architecture
        return FrozenPart(f"{parts['weights']} {parts['side']}", 2.0 ** -parts["images_halved"], float(parts["side"] ** 2))

    def further(self, params: Mapping[str, Any], larger: bool) -> Mapping[str, Any] | None:
        """Return the parameters of a head on all images, or with ``larger`` at the next side, on a quarter; None where there is none."""
        found = dict(params)
        if isinstance(self.images_halved, Range):
            most = int(self.images_halved.high)
            found["images_halved"] = min(QUARTER, most) if larger else int(self.images_halved.low)
        if larger:
            if not isinstance(self.sides, Range) or params["side"] + (self.sides.step or 1) > self.sides.high:
                return None
            found["side"] = params["side"] + int(self.sides.step or 1)
        return found

    def build(self, candidate: Candidate, task: Task) -> nn.Module:
        """Put an untrained head on the network.

        Raises:
            ValueError: If the images are neither grey nor in colour, or the weights are not those of the study.
        """
        parts = candidate.architecture
        weights, prepare = self.prepared(candidate, task)
        backbone = TimmBackbone(network(weights), prepare, weights.identity)
        images = images_of(parts["images_halved"], task)
        head = head_of(parts, features_of(weights, parts["features"]), task.outputs, len(task.train) if images is None else images)
        return Transfer(backbone, parts["features"], head, images=images)

    def prepared(self, candidate: Candidate, task: Task) -> tuple[Weights, Prepare]:
        """Return the weights of a candidate's network, and how that network gets the images; see `build` for the errors."""
        parts, shape = candidate.architecture, image_shape(candidate, task)
        weights = next((one for one in self.weights if one.identity == parts["weights"]), None)
        if weights is None:
            known = ", ".join(one.identity for one in self.weights)
            raise ValueError(f"the weights must be {parts['weights']}, here are {known}; give those of the search (--pretrained)")
        found = network(weights)
        size = same_area(shape, parts["side"])
        if found.pretrained_cfg.get("fixed_input_size"):
            size = tuple(found.pretrained_cfg["input_size"][1:])
        return weights, prepare_for(found, task, shape, size, colours=True)


def images_of(halved: int, task: Task) -> int | None:
    """Return of how many training images a network learns when they are halved so often; None for all of them."""
    whole = len(task.train)
    images = max(whole >> halved, min(whole, FEWEST_PER_CLASS * task.outputs))
    return None if images == whole else images


def halvings_for(images: int, classes: int) -> int:
    """Return how often so many training images can be halved, at most as often as ``HALVINGS``, before every class has too few."""
    return next(halved for halved in range(int(HALVINGS.high), -1, -1) if halved == 0 or images >> halved >= FEWEST_PER_CLASS * classes)


def sides_for(side: int | None) -> Range:
    """Return the sides that are worth trying for images of some side in pixels; None is unknown."""
    if side is None:
        return Range(SIDES.low, 160, step=32)
    return Range(SIDES.low, min(LARGEST_SIDE, max(96, ENLARGED * side // 32 * 32)), step=32)


@lru_cache(maxsize=16)
def features_of(weights: Weights, feature_set: str) -> int:
    """Return the number of features that a network gives, which does not depend on the size of the images."""
    found = network(weights)
    side = found.pretrained_cfg["input_size"][-1] if found.pretrained_cfg.get("fixed_input_size") else SMALL_SIDE
    with torch.no_grad(), torch.device("cpu"):
        return embedded(found, torch.zeros(1, 3, side, side), feature_set).shape[1]


def head_of(parts: Mapping[str, Any], features: int, outputs: int, images: int) -> nn.Module:
    """Return the untrained head of an architecture for so many training images: what is solved, or see `linear_or_hidden`."""
    if parts["head"] == "ridge":
        return Ridge(features, outputs, parts["setting"])
    if parts["head"] == "logistic":
        return Logistic(features, outputs, parts["setting"])
    if parts["head"] == "neighbours":
        return Neighbours(features, outputs, round(parts["setting"]), images)
    return linear_or_hidden(parts["head"], features, outputs)


def linear_or_hidden(widths: str, features: int, outputs: int) -> nn.Module:
    """Return a linear head, or one with hidden layers of these widths, joined by dashes."""
    if widths == "linear":
        return nn.Linear(features, outputs)
    sides = [features, *(int(width) for width in widths.split("-"))]
    hidden = [layer for pair in pairwise(sides) for layer in (nn.Linear(*pair), nn.ReLU())]
    return nn.Sequential(*hidden, nn.Linear(sides[-1], outputs))
