"""Any classification network of torchvision, with its own head or one of fully connected layers on a backbone that may be frozen."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import nn

from ..search.space import Candidate, Suggest
from ..search.training.task import Task
from .freezing import SMALL_SIDE, check_forward, freeze_parameters, frozen_names, too_small
from .layers import image_shape
from .names import expand
from .ranges import Options, one_of
from .recipes import RecipeRanges
from .torchvision_parts import HeadOn, backbone_stages, feature_maps, head_of, load_weights, replace_first_convolution

if TYPE_CHECKING:
    from ..search.space import Space

#: The three networks and the head of the paper whose question `studies/` repeats.
#: Source: Xu, Martinez-Fernandez, Martinez, Franch, arXiv 2302.00967 (VGG16, VGG19, ResNet50, frozen; two layers of 4,096 units).
PAPER = ("vgg16", "vgg19", "resnet50")
PAPER_HEAD = "4096-4096"
_OWN = "own"


@dataclass(frozen=True)
class TorchvisionZoo:
    """Networks of torchvision.

    Attributes:
        models: Names or patterns such as ``resnet*``.
        heads: ``own`` for torchvision's classifier, or the units of fully connected layers such as ``4096-4096``, put on the flattened
            feature maps with dropout 0.5 before the last layer.
        weights: ``none`` (from scratch), ``hub`` (torchvision's own weights) or the path of a local file.
        freeze: ``none``, ``backbone`` (only the head is trained) or the number of stages to freeze, the stem being the first.
        recipe: How candidates are trained.
        name: Name of the family.
    """

    models: tuple[str, ...] = ("resnet18", "mobilenet_v3_small", "efficientnet_b0", "shufflenet_v2_x0_5")
    heads: Options[str] = _OWN
    weights: Options[str] = "none"
    freeze: Options[str | int] = "none"
    recipe: RecipeRanges = field(default_factory=RecipeRanges)
    name: str = "torchvision"

    def sample(self, trial: Suggest) -> Candidate:
        """Draw a network and its training.

        Raises:
            ValueError: If a name or pattern is unknown to torchvision.
        """
        architecture = {
            "family": self.name,
            "model": one_of(trial, "model", names_of(self.models)),
            "head": one_of(trial, "head", self.heads),
            "weights": one_of(trial, "weights", self.weights),
            "freeze": one_of(trial, "freeze", self.freeze),
        }
        return Candidate(architecture, self.recipe.sample(trial))

    def build(self, candidate: Candidate, task: Task) -> nn.Module:
        """Build the network with the task's channels and classes.

        Raises:
            ValueError: If the network cannot take the images, the head or the file of weights.
            FileNotFoundError: If the file of the weights does not exist.
            ConnectionError: If torchvision's weights cannot be fetched.
        """
        parts = candidate.architecture
        name, shape = parts["model"], image_shape(candidate, task)
        model: nn.Module = _create(name, shape, task.outputs)
        replace_first_convolution(model, shape[0])
        load_weights(model, name, parts["weights"])
        if parts["head"] != _OWN:
            model = HeadOn(feature_maps(model, name), hidden_units(parts["head"]), shape, task.outputs, name)
        elif min(shape[1:]) < SMALL_SIDE:
            check_forward(model, name, shape)
        head = {id(parameter) for parameter in head_of(model).parameters()}
        names = {key for key, parameter in model.named_parameters() if id(parameter) in head}
        freeze_parameters(model, frozen_names(backbone_stages(model), names, parts["freeze"]))
        return model

    def key(self, candidate: Candidate) -> str:
        """Return canonical text."""
        return candidate.key


def names_of(patterns: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names of the classification networks that the patterns mean, each once.

    Raises:
        ValueError: If a pattern matches nothing; the message names similar networks.
    """
    from torchvision import models

    def find(pattern: str | None = None) -> list[str]:
        return list(models.list_models(module=models, include=pattern))

    return expand(patterns, find, find, "torchvision.models")


def hidden_units(head: str) -> list[int]:
    """Read ``4096-4096``.

    Raises:
        ValueError: If the text is not ``own`` and not whole numbers >= 1 joined by hyphens.
    """
    parts = head.split("-")
    if not all(part.isdigit() and int(part) >= 1 for part in parts):
        raise ValueError(f"a head is 'own' or units such as '4096-4096', got {head!r}")
    return [int(part) for part in parts]


def _create(name: str, shape: tuple[int, int, int], outputs: int) -> Any:
    from torchvision import models

    options: dict[str, Any] = {"num_classes": outputs}
    if name.startswith("vit_"):
        if shape[1] != shape[2]:
            raise ValueError(f"{name} needs square images, got {shape[1]} x {shape[2]}; set recipe.resolution")
        options["image_size"] = shape[1]
    if name.startswith("maxvit"):
        options["input_size"] = shape[1:]
    if name in ("googlenet", "inception_v3"):  # their second output in training is not for a loss of one output
        options |= {"aux_logits": False, "init_weights": True}
    try:
        return models.get_model(name, weights=None, **options)
    except (ValueError, AssertionError, RuntimeError) as error:  # torchvision checks the size with torch._assert
        raise too_small(name, shape, error) from error


if TYPE_CHECKING:
    _: Space = TorchvisionZoo()
