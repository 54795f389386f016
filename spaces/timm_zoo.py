"""Any model of timm, by name or pattern: from scratch, from a local file or from timm's hub."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

import torch
from torch import nn

from ..search.space import Candidate, Suggest
from ..search.training.backbone import library
from ..search.training.task import Task
from .layers import image_shape
from .pretrained import (
    FREEZE,
    SMALL_SIDE,
    Prepare,
    check_forward,
    expand,
    first_line,
    fitting,
    freeze_stages,
    names_within,
    same_area,
    start_at_zero,
    suggest_model,
    unfit,
    weights_file,
)
from .recipes import ORDINARY, Drops, Family, Options, RecipeRanges, suggest_categorical, suggest_float
from .weights import check_loaded, hub, loading

#: Small models of different families that train on two CPU cores.
MODELS = (
    "test_resnet",
    "test_efficientnet",
    "test_convnext",
    "test_vit",
    "mobilenetv3_small_050",
    "mobilenetv3_small_100",
    "resnet10t",
    "resnet18",
    "convnext_atto",
)
#: Those of them that take images of every size from ``SMALL_SIDE`` on: building each for a look would cost as much as some trainings.
ANY_SIZE = tuple(name for name in MODELS if name != "test_vit")
#: In place of weights that a stored trial names and the family has no more: nothing is opened that a folder names.
EARLIER = "earlier"


@dataclass(frozen=True)
class TimmZoo(Family):
    """Models of timm; ``recipe.head_learning_rate`` is the one of timm's classifier.

    The bundled studies start from weights by `TransferFamily` and `FineTuning` alone, which keep what is frozen for all trials; here it is
    computed again in every epoch. A pretrained model gets images as it knows them (``Prepared``), and its new head, as that of a frozen
    one, starts at zero.

    Attributes:
        models: Names or patterns such as ``convnext_*``; patterns are expanded in timm's order.
        weights: ``none`` (from scratch), ``hub`` (timm's own weights from the Hugging Face hub) or the path of a local file.
        freeze: ``none``, ``backbone`` (only the head is trained) or the number of stages to freeze, the stem being the first.
        drop_paths: Rate of stochastic depth; 0 leaves the model as timm has it.
        of_several: Whether others were left out, see `fitting`.
    """

    models: tuple[str, ...] = MODELS
    weights: Options[str] = "none"
    freeze: Annotated[Options[str | int], FREEZE] = "none"
    drop_paths: Drops = 0.0
    recipe: RecipeRanges = field(default_factory=RecipeRanges)
    name: str = "timm"
    of_several: bool = False

    def architecture(self, trial: Suggest) -> Mapping[str, Any]:
        """Draw a model and its settings; a name or pattern that is unknown to timm raises ValueError."""
        stored = getattr(trial, "params", {}).get("weights", "none")
        return {
            "model": suggest_model(trial, self, names_of(self.models)),
            "weights": EARLIER if self.weights == "none" != stored else suggest_categorical(trial, "weights", self.weights),
            "freeze": suggest_categorical(trial, "freeze", self.freeze),
            "drop_path": suggest_float(trial, "drop_path", self.drop_paths),
        }

    def defaults(self) -> Mapping[str, Any]:
        """Return the small residual network that everybody knows, or else the first of the models, with a first choice of everything."""
        return {**ORDINARY, "model": "resnet18", "drop_path": 0.0}

    def fitted_to(self, task: Task) -> TimmZoo:
        """Return the family without the models that cannot take the images, see `fitting`."""
        return fitting(self, names_of(self.models), task, known=ANY_SIZE)

    def build(self, candidate: Candidate, task: Task) -> nn.Module:
        """Build the model with the task's channels, classes and image size.

        Raises:
            ValueError: If the model cannot take the images, or has no stochastic depth.
            FileNotFoundError: If the file of the weights does not exist, or this family had weights in an earlier version of the study.
            ConnectionError: If the hub's weights cannot be fetched.
        """
        parts, shape = candidate.architecture, image_shape(candidate, task)
        if parts["weights"] == EARLIER:  # an export goes on without: what was trained takes the place of the weights
            raise FileNotFoundError(
                f"{parts['model']} was started from weights by an earlier version of this study, which can be exported, not trained again; "
                "search anew with --pretrained FILE"
            )
        # An export without the file of the weights says so by itself: what was trained takes their place.
        pretrained = parts["weights"] != "none" or parts.get("prepared", False)
        seen = (shape[0], *_known_size(parts["model"], shape)) if pretrained and candidate.recipe.resolution is None else shape
        model: nn.Module = create(parts["model"], seen, task.outputs, weights=parts["weights"], drop_path=parts["drop_path"])
        check_forward(model, parts["model"], seen)
        head: nn.Module = model.get_classifier()  # type: ignore[operator]  # every network of timm has it
        if not isinstance(head, nn.Module):
            raise unfit(parts["model"], seen, TypeError("it has several heads"))
        freeze_stages(model, stages(model), names_within(model, head), parts["freeze"])
        if pretrained or parts["freeze"] == "backbone":
            start_at_zero(head)
        return Prepared(prepare_for(model, task, shape, seen[1:]), model) if pretrained else model


class Prepared(nn.Module):
    """A pretrained network of timm that brings images to its own mean, deviation and size first."""

    def __init__(self, prepare: Prepare, network: nn.Module) -> None:
        super().__init__()
        self.prepare, self.network = prepare, network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the network's outputs for images as the task hands them out."""
        outputs: torch.Tensor = self.network(self.prepare(images))
        return outputs

    def get_classifier(self) -> nn.Module:
        """Return the head, which may have a learning rate of its own."""
        head: nn.Module = self.network.get_classifier()  # type: ignore[operator]  # every network of timm has it
        return head


def prepare_for(network: Any, task: Task, shape: tuple[int, int, int], size: tuple[int, int], *, colours: bool = False) -> Prepare:
    """Return the preprocessing of a pretrained network of timm for images of ``shape``, at ``size`` (height, width).

    With ``colours`` grey images become three equal colours; else the network has as many channels as the images. Spectrograms are taken as
    they are, standardised, for images of the network's own mean and deviation.
    """
    config = network.pretrained_cfg
    mean, deviation = config["mean"], config["std"]
    if task.preprocessing.get("kind") == "audio":  # decibels, standardised by the task: the scale on which the network knows pixels
        task, mean, deviation = replace(task, preprocessing={}), (0.0,) * len(mean), (1.0,) * len(mean)
    if shape[0] != 3 and not colours:
        mean, deviation = ([sum(values) / len(values)] * shape[0] for values in (mean, deviation))
    return Prepare(task, shape, size, mean=mean, deviation=deviation, interpolation=config["interpolation"])


def _known_size(name: str, shape: tuple[int, int, int]) -> tuple[int, int]:
    """Return the size at which a network was pretrained, or twice that of smaller images: there is nothing more to see in them."""
    timm = library("timm")

    config = timm.get_pretrained_cfg(name)
    known = SMALL_SIDE if config is None else min(config.input_size[1:])
    return same_area(shape, min(known, max(SMALL_SIDE, 2 * min(shape[1:]))))


def names_of(patterns: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names of the models that match the patterns, each once.

    Raises:
        ValueError: If a pattern matches nothing; the message names similar models.
    """
    if set(patterns) <= set(MODELS):  # timm has them: it is loaded when one of them is built
        return tuple(dict.fromkeys(patterns))
    timm = library("timm")

    # A name may carry the tag of its weights: resnet18.a1_in1k
    return expand(patterns, lambda name: [name] if timm.is_model(name) else timm.list_models(name), timm.list_models, "timm")


def create(name: str, shape: tuple[int, int, int], outputs: int, *, weights: str = "none", drop_path: float = 0.0) -> Any:
    """Create a model of timm; see ``TimmZoo`` for the arguments and ``TimmZoo.build`` for the errors."""
    timm = library("timm")

    options: dict[str, Any] = {"in_chans": shape[0], "num_classes": outputs}
    config = timm.get_pretrained_cfg(name)
    if config is not None and config.fixed_input_size:  # position embeddings depend on the size
        options["img_size"] = shape[1:]
    if drop_path > 0:
        options["drop_path_rate"] = drop_path
    if weights == "none":
        return _create(name, shape, options)
    path = hub(name).path if weights == "hub" else weights_file(weights)
    random = torch.get_rng_state()
    plain = _create(name, shape, options)
    torch.set_rng_state(random)
    try:
        model = _create(name, shape, {**options, **loading(path, name)})
        check_loaded(model, plain)
    except Exception as error:  # unreadable files, other keys, other shapes
        raise ValueError(f"weights={weights!r} do not fit {name} ({first_line(error)}); give weights of this model, or 'none'") from error
    return model


def _create(name: str, shape: tuple[int, int, int], options: dict[str, Any]) -> Any:
    """Create a model, with our messages for unfit sizes and stochastic depth."""
    timm = library("timm")

    try:
        return timm.create_model(name, **options)
    except (TypeError, RuntimeError, AssertionError, ZeroDivisionError, ValueError) as error:
        if "drop_path_rate" in str(error):
            raise ValueError(f"{name} has no stochastic depth, got drop_path={options['drop_path_rate']}; set drop_paths=0") from error
        if options.get("pretrained"):
            raise
        raise unfit(name, shape, error) from error


def stages(model: Any) -> list[list[str]]:
    """Return the parameter names of a timm model by stage, from the stem to the head."""
    from timm.models import group_parameters

    groups = group_parameters(model, model.group_matcher(coarse=True))
    return [groups[index] for index in sorted(groups)]
