"""Any classification network of torchvision, with its own head or with fully connected layers on a backbone that may be frozen.

``TorchvisionZoo`` draws and builds; below it are the parts of torchvision's networks: head, feature maps, stages, and their weights.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import prod
from typing import Annotated, Any

import torch
from torch import nn

from ..search.space import Candidate, Suggest
from ..search.training.backbone import library
from ..search.training.tactics.tactic import evaluating
from ..search.training.task import Task
from .layers import image_shape
from .pretrained import (
    FREEZE,
    check_forward,
    expand,
    first_few,
    first_line,
    fitting,
    freeze_stages,
    names_within,
    suggest_model,
    unfit,
    weights_file,
)
from .recipes import ORDINARY, Family, Options, RecipeRanges, suggest_categorical, words
from .weights import tensors_in

#: The three networks and the head of the paper that `studies/` repeats.
#: Source: Xu, Martinez-Fernandez, Martinez, Franch, arXiv 2302.00967 (VGG16, VGG19, ResNet50, frozen; two layers of 4,096 units).
PAPER = ("vgg16", "vgg19", "resnet50")
PAPER_HEAD = "4096-4096"
#: Attributes under which torchvision keeps its classifiers.
HEADS = ("fc", "classifier", "heads", "head")
_OWN = "own"


@dataclass(frozen=True)
class TorchvisionZoo(Family):
    """Networks of torchvision.

    Attributes:
        models: Names or patterns such as ``resnet*``.
        heads: ``own`` for torchvision's classifier, or the units of fully connected layers such as ``4096-4096``, put on the flattened
            feature maps with dropout 0.5 before the last layer.
        weights: ``none`` (from scratch), ``hub`` (torchvision's own weights) or the path of a local file.
        freeze: ``none``, ``backbone`` (only the head is trained) or the number of stages to freeze, the stem being the first.
        of_several: Whether others were left out, see `fitting`.
    """

    models: tuple[str, ...] = ("resnet18", "mobilenet_v3_small", "efficientnet_b0", "shufflenet_v2_x0_5")
    heads: Annotated[Options[str], words(_OWN, units=True)] = _OWN
    weights: Options[str] = "none"
    freeze: Annotated[Options[str | int], FREEZE] = "none"
    recipe: RecipeRanges = field(default_factory=RecipeRanges)
    name: str = "torchvision"
    of_several: bool = False

    def architecture(self, trial: Suggest) -> Mapping[str, Any]:
        """Draw a network and its settings; a name or pattern that is unknown to torchvision raises ValueError."""
        return {
            "model": suggest_model(trial, self, names_of(self.models)),
            "head": suggest_categorical(trial, "head", self.heads),
            "weights": suggest_categorical(trial, "weights", self.weights),
            "freeze": suggest_categorical(trial, "freeze", self.freeze),
        }

    def defaults(self) -> Mapping[str, Any]:
        """Return the small residual network that everybody knows, or else the first of the models, with a first choice of everything."""
        return {**ORDINARY, "model": "resnet18", "head": _OWN}

    def fitted_to(self, task: Task) -> TorchvisionZoo:
        """Return the family without the networks that cannot take the images, see `fitting`."""
        return fitting(self, names_of(self.models), task)

    def build(self, candidate: Candidate, task: Task) -> nn.Module:
        """Build the network with the task's channels and classes.

        Raises:
            ValueError: If the network cannot take the images or the file of weights.
            FileNotFoundError: If the file of the weights does not exist.
            ConnectionError: If torchvision's weights cannot be fetched.
        """
        parts = candidate.architecture
        name, shape = parts["model"], image_shape(candidate, task)
        model: nn.Module = _create(name, shape, task.outputs)
        replace_first_convolution(model, shape[0])
        load_weights(model, name, parts["weights"])
        if parts["head"] != _OWN:
            model = HeadOn(feature_maps(model, name), [int(units) for units in parts["head"].split("-")], shape, task.outputs, name)
        else:
            check_forward(model, name, shape)
        freeze_stages(model, backbone_stages(model), names_within(model, head_of(model)), parts["freeze"])
        return model


def names_of(patterns: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names of the classification networks that match the patterns, each once.

    Raises:
        ValueError: If a pattern matches nothing; the message names similar networks.
    """
    models = library("torchvision").models

    def find(pattern: str | None = None) -> list[str]:
        return list(models.list_models(module=models, include=pattern))

    return expand(patterns, find, find, "torchvision.models")


def _create(name: str, shape: tuple[int, int, int], outputs: int) -> Any:
    models = library("torchvision").models

    options: dict[str, Any] = {"num_classes": outputs}
    if name.startswith("vit_"):
        if shape[1] != shape[2]:
            raise unfit(name, shape, ValueError("they must be square"))
        options["image_size"] = shape[1]
    if name.startswith("maxvit"):
        options["input_size"] = shape[1:]
    if name in ("googlenet", "inception_v3"):  # their auxiliary output in training does not fit a loss of one output
        options |= {"aux_logits": False, "init_weights": True}
    try:
        return models.get_model(name, weights=None, **options)
    except (ValueError, AssertionError, RuntimeError) as error:  # torchvision checks the size with torch._assert
        raise unfit(name, shape, error) from error


class HeadOn(nn.Module):
    """Fully connected layers on the flattened feature maps ``(b, c, h, w)`` or vectors ``(b, c)`` of a backbone.

    Raises:
        ValueError: If the backbone cannot take images of this shape.
    """

    def __init__(self, backbone: nn.Module, units: Sequence[int], shape: tuple[int, int, int], outputs: int, name: str) -> None:
        super().__init__()
        self.backbone = backbone
        try:
            with evaluating(backbone), torch.no_grad():
                features = prod(backbone(torch.zeros(1, *shape)).shape[1:])
        except RuntimeError as error:
            raise unfit(name, shape, error) from error
        layers: list[nn.Module] = [nn.Flatten()]
        for inputs, width in pairwise([features, *units]):
            layers += [nn.Linear(inputs, width), nn.ReLU()]
        self.head = nn.Sequential(*layers, nn.Dropout(0.5), nn.Linear(units[-1], outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(b, channels, height, width)`` to ``(b, outputs)``."""
        logits: torch.Tensor = self.head(self.backbone(x))
        return logits


def head_of(model: nn.Module) -> nn.Module:
    """Return the classifier, or raise ValueError if the model keeps none under the usual attributes."""
    for name in HEADS:
        if isinstance(head := getattr(model, name, None), nn.Module):
            return head
    raise ValueError(f"{type(model).__name__} has no attribute {', '.join(HEADS)}; use another network")


def feature_maps(model: Any, name: str) -> nn.Module:
    """Return the network without pooling and classifier; a kind of network whose feature maps are unknown raises ValueError."""
    if isinstance(getattr(model, "features", None), nn.Module):
        features: nn.Module = model.features
        return features
    if isinstance(getattr(model, "layer4", None), nn.Module):  # ResNet and its kin
        return nn.Sequential(OrderedDict((key, child) for key, child in model.named_children() if key not in ("avgpool", "fc")))
    if isinstance(getattr(model, "heads", None), nn.Module):  # vision transformers give the vector of the class token
        model.heads = nn.Identity()
        transformer: nn.Module = model
        return transformer
    raise ValueError(f"the feature maps of {name} are unknown; use head='own', or a VGG, ResNet, MobileNet, EfficientNet or ViT")


def backbone_stages(model: nn.Module) -> list[list[str]]:
    """Return the parameter names of the backbone by stage.

    Every container is a stage; bare layers form one together until a pooling ends it, so that VGG has its five blocks and ResNet its stem.
    """
    root, prefix = model, ""
    for attribute in ("backbone", "features", "layers"):
        if isinstance(child := getattr(root, attribute, None), nn.Module):
            root, prefix = child, f"{prefix}{attribute}."
    head = None if prefix else head_of(model)
    stages: list[list[str]] = [[]]
    for name, child in root.named_children():
        if child is head:
            continue
        names = [f"{prefix}{name}.{key}" for key, _ in child.named_parameters()]
        if next(child.children(), None) is None:
            stages[-1] += names
            if "Pool" in type(child).__name__:
                stages.append([])
        else:
            stages += [names, []]
    listed = {name for stage in stages for name in stage}
    own = [f"{prefix}{name}" for name, _ in root.named_parameters() if f"{prefix}{name}" not in listed and "." not in name]
    return [stage for stage in [[*own, *stages[0]], *stages[1:]] if stage]


def replace_first_convolution(model: nn.Module, channels: int) -> None:
    """Replace the first convolution where the network expects another number of channels."""
    path, first = next((path, module) for path, module in model.named_modules() if isinstance(module, nn.Conv2d))
    if first.in_channels != channels:
        new = nn.Conv2d(
            channels,
            first.out_channels,
            first.kernel_size,  # type: ignore[arg-type]  # torchvision's first layer is square
            stride=first.stride,  # type: ignore[arg-type]  # torchvision's first layer is square
            padding=first.padding,  # type: ignore[arg-type]  # torchvision's first layer is square
            bias=first.bias is not None,
        )
        nn.init.kaiming_normal_(new.weight, mode="fan_out", nonlinearity="relu")
        parent, _, child = path.rpartition(".")
        setattr(model.get_submodule(parent), child, new)


def load_weights(model: nn.Module, name: str, weights: str) -> None:
    """Load ``hub`` weights or a local file into all but the head; ``none`` leaves the model as it is.

    The first convolution is summed or repeated over the channels where their numbers differ.

    Raises:
        FileNotFoundError: If there is no such file.
        ConnectionError: If torchvision's weights cannot be fetched.
        ValueError: If a weight of the backbone is missing or has another shape.
    """
    if weights == "none":
        return
    from timm.models import adapt_input_conv

    source = _from_hub(name) if weights == "hub" else tensors_in(weights_file(weights))
    heads = names_within(model, head_of(model))
    first = next(path for path, module in model.named_modules() if isinstance(module, nn.Conv2d)) + ".weight"
    own, fitting, wrong = model.state_dict(), {}, []
    for key, value in own.items():
        found = source.get(key)
        if found is not None and key == first and found.ndim == value.ndim and found.shape[1] != value.shape[1] and found.shape[1] == 3:
            found = adapt_input_conv(value.shape[1], found)
        if found is not None and found.shape == value.shape:
            fitting[key] = found
        elif key not in heads and not key.endswith("num_batches_tracked"):
            wrong.append(key)
    if wrong:
        raise ValueError(f"weights={weights!r} do not fit {name}: wrong or missing {first_few(wrong)}; give weights of this network")
    model.load_state_dict(fitting, strict=False)


def _from_hub(name: str) -> Mapping[str, torch.Tensor]:
    models = library("torchvision").models

    try:
        return dict(models.get_model(name, weights="DEFAULT").state_dict())
    except (OSError, RuntimeError) as error:
        raise ConnectionError(f"weights='hub': cannot fetch {name} ({first_line(error)}); use weights='none' or a local file") from error
