"""Fine-tuning: of a pretrained network the last stages, the biases, low-rank updates or everything is trained, after its head.

It costs some sixty times as much as a head, so a search begins it only when heads have been tried and the budget carries it.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Annotated, Any

import torch
from torch import nn

from ..search.space import Candidate, FrozenPart, NearestTrial, Suggest
from ..search.training.backbone import Transfer
from ..search.training.heads import PREPARED, Tuned
from ..search.training.task import Task
from .pretrained import Prepare, outline
from .recipes import Options, Parts, Range, Rates, RecipeRanges, ends_of, suggest_categorical, suggest_float, words
from .transfer import ORDINARY_HEAD, SOLVED, TimmBackbone, TransferFamily, embedded, features_of, images_of, linear_or_hidden
from .weights import Weights, network

#: What of a convolutional network is trained: its last one or two stages, from maps that are kept, or all of it.
LAYERS = ("1", "2", "all")
#: What of a transformer is trained: its biases, low-rank updates of its matrices (``lora``, with the package peft), or all of it.
ADAPTERS = ("bitfit", "all")
#: Learning rate of the pretrained part as a share of that of the head, and that of a stage as a share of the next one's.
RATES, DECAYS = Range(0.01, 1.0, log=True), Range(0.4, 1.0)
#: Rank and scale of the updates. Source: Hu et al. 2021, arXiv:2106.09685, tables 6 and 18: ranks of 4 to 8 suffice.
RANK, SCALE = 8, 16
#: What an epoch costs, in passes of the frozen network over the same images, in its cheapest way on a CPU.
#: Measured: studies/results/transfer.md.
PASSES = {"1": 1.0, "2": 2.5, "all": 8.0}
#: Learning rate of the pretrained part in the first fine-tuning of a study.
FIRST_RATE = 1e-3
RECIPE_FIELDS = tuple(RecipeRanges.__dataclass_fields__)
#: Modules in front of the stages, and the stages or what holds them, of the networks that can be cut.
CUTS = (
    (("conv_stem", "bn1"), ("blocks",)),  # EfficientNet, MobileNet
    (("conv1", "bn1", "act1", "maxpool"), ("layer1", "layer2", "layer3", "layer4")),  # ResNet
    (("stem",), ("stages",)),  # ConvNeXt
)


class CutBackbone(TimmBackbone):
    """The frozen first stages of a pretrained network: it gives their last map ``(c, h, w)``, flattened."""

    def __init__(self, network: Any, prepare: Prepare, identity: str, trained: int) -> None:
        stem, stages = cut(network, trained)
        super().__init__(nn.Sequential(*(network.get_submodule(path) for path in (*stem, *stages))), prepare, identity)
        self.name = f"stage-{len(stages)}"

    def feature_sets(self) -> tuple[str, ...]:
        """Return the one name of the maps, e.g. ``stage-5``."""
        return (self.name,)

    def embed(self, prepared: torch.Tensor, feature_set: str) -> torch.Tensor:
        """Return the maps ``(b, c * h * w)`` of prepared images."""
        maps: torch.Tensor = self.network(prepared)
        return maps.flatten(1)


class Pixels(TimmBackbone):
    """A backbone that freezes nothing: it prepares images for a network that is trained as a whole."""

    def __init__(self, prepare: Prepare, identity: str) -> None:
        """Prepare images for the network with these weights."""
        super().__init__(None, prepare, identity)

    def feature_sets(self) -> tuple[str, ...]:
        """Return ``PREPARED``."""
        return (PREPARED,)

    def embed(self, prepared: torch.Tensor, feature_set: str) -> torch.Tensor:
        """Return the prepared images themselves."""
        return prepared


class Body(nn.Module):
    """What is trained of a network of timm: maps at the cut, flattened, or prepared images -> the features that heads are put on."""

    def __init__(self, network: Any, maps: tuple[int, ...] | None = None) -> None:
        """Take a network, whose first stages are gone where it begins on ``maps`` of a shape ``(c, h, w)``."""
        super().__init__()
        self.network, self.maps = network, maps

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return the features ``(b, d)``."""
        return embedded(self.network, inputs if self.maps is None else inputs.view(-1, *self.maps), "grid")


@dataclass(frozen=True)
class FineTuning(TransferFamily):
    """A part of a pretrained network, trained after its head at a rate of its own, and one that may fall from stage to stage.

    Attributes:
        features: Without effect: the head gets the features ``grid``.
        heads: Of `TransferFamily`, but for those that are solved; the head is trained alone first.
        layers: What of a convolutional network is trained, of ``LAYERS`` or a number of its last stages.
        adapters: What of a transformer is trained, of ``ADAPTERS`` or ``lora``.
        norms: ``frozen``: batch norms are multiplied into the convolutions, which halves the time; ``free``: they are trained.
        backbone_rate: Learning rate of the pretrained part as a share of that of the head.
        rate_decay: Share of it that the stage before has, and so on from the last to the first.
        after: Name of the family whose heads come first: the sampler begins no fine-tuning by itself, see ``frozen_features.following``.
    """

    layers: Annotated[Options[str], words("all", units=True)] = LAYERS
    adapters: Annotated[Options[str], words(*ADAPTERS, "lora")] = ADAPTERS
    norms: Annotated[Options[str], words("frozen", "free")] = ("frozen", "free")
    backbone_rate: Rates = RATES
    rate_decay: Parts = DECAYS
    heads: Annotated[Options[str], words("linear", units=True)] = "linear"
    features: Options[str] = "grid"
    recipe: RecipeRanges = field(default_factory=RecipeRanges)
    name: str = "finetune"
    after: str = "transfer"

    def architecture(self, trial: Suggest) -> Mapping[str, Any]:
        """Draw a network, its images, what of it is trained, and how fast."""
        drawn = dict(super().architecture(trial))
        kind, norms = kind_of(drawn["weights"].partition("@")[0])
        if kind == "transformer":
            tuned = suggest_categorical(trial, "adapters", self.adapters)
        else:
            tuned = suggest_categorical(trial, "layers", self.layers) if kind == "stages" else "all"
            drawn["norms"] = suggest_categorical(trial, "norms", self.norms) if norms else "frozen"
        drawn["backbone_rate"] = suggest_float(trial, "backbone_rate", self.backbone_rate, log=True)
        drawn["rate_decay"] = 1.0 if tuned == "1" else suggest_float(trial, "rate_decay", self.rate_decay)  # one stage has one rate
        return {**drawn, "tuned": tuned}

    def frozen(self, candidate: Candidate) -> FrozenPart:
        """Return which features a candidate needs, and of which share of the images: maps at its cut, or those that its head begins on."""
        tuned, shared = candidate.architecture["tuned"], super().frozen(candidate)
        return shared._replace(features=f"{shared.features} before {tuned}") if tuned.isdigit() else shared

    def tuning(self, candidate: Candidate) -> tuple[FrozenPart, float]:
        """Return which features a candidate's head shares with heads, and what an epoch costs in passes over the images, see ``PASSES``."""
        return super().frozen(candidate), PASSES.get(candidate.architecture["tuned"], PASSES["all"])

    def further(self, params: Mapping[str, Any], larger: bool) -> Mapping[str, Any] | None:
        """Return None: more pixels are tried by heads."""
        return None

    def going_on(self, params: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the parameters of the fine-tuning to begin with, given those of the best head: the same network, images and recipe."""
        layers, adapter, heads = (ends_of(one) for one in (self.layers, self.adapters, self.heads))
        rate = FIRST_RATE / params.get("learning_rate", 1e-3)
        if isinstance(self.backbone_rate, Range):
            rate = min(max(rate, self.backbone_rate.low), self.backbone_rate.high)
        solved = params.get("head") in SOLVED
        if params.get("head") not in (None, *heads):
            params = {**params, "head": heads[0]}
        kept = {name: value for name, value in params.items() if name in ("model", "side", "images_halved", "head", *RECIPE_FIELDS)}
        wanted = {**kept, "layers": layers[0], "adapters": adapter[0], "norms": "frozen", "backbone_rate": rate, "rate_decay": 1.0}
        if not solved:
            return wanted
        self.sample(trial := NearestTrial({**ORDINARY_HEAD, **wanted}))  # a head that is solved has no recipe to go on with
        return trial.params

    def build(self, candidate: Candidate, task: Task) -> nn.Module:
        """Put an untrained head on the network, and make a part of it trainable.

        Raises:
            ValueError: If the images are neither grey nor in colour, the weights are not those of the study, or the network cannot be cut.
            ImportError: If peft is needed and missing.
        """
        parts = candidate.architecture
        weights, prepare = self.prepared(candidate, task)
        free = parts.get("norms") == "free"
        if parts["tuned"].isdigit():
            trained = int(parts["tuned"])
            backbone: TimmBackbone = CutBackbone(network(weights), prepare, weights.identity, trained)
            own, probe = last_stages(network(weights, fold=not free), trained), None
            with torch.no_grad(), torch.device("cpu"):
                maps = tuple(backbone.network(torch.zeros(1, 3, *prepare.settings["size"])).shape[1:])
            feature_set = backbone.feature_sets()[0]
        else:
            own, maps = copy.deepcopy(network(weights, fold=not free)), None
            backbone, feature_set = Pixels(prepare, weights.identity), PREPARED
            probe = TimmBackbone(network(weights), prepare, weights.identity), "grid"
        unfreeze(own, parts["tuned"])
        width = features_of(weights, "grid") if maps is None else _tail_width(weights, int(parts["tuned"]))
        head = linear_or_hidden(parts["head"], width, task.outputs)
        rates = stage_rates(own, parts["backbone_rate"], parts["rate_decay"])
        tuned = Tuned(Body(own, maps), head, width, rates=rates, probe=probe, norms=free)
        return Transfer(backbone, feature_set, tuned, images=images_of(parts["images_halved"], task))


@lru_cache(maxsize=16)
def kind_of(model: str) -> tuple[str, bool]:
    """Return ``stages`` for a network of timm that can be cut between its stages, ``transformer`` or ``other``; has it batch norms?"""
    found = outline(model)
    norms = any(isinstance(layer, nn.modules.batchnorm._BatchNorm) for layer in found.modules())
    if hasattr(found, "patch_embed") and hasattr(found, "blocks"):
        return "transformer", norms
    return "stages" if _stages(found) else "other", norms


def cut(network: Any, trained: int) -> tuple[list[str], list[str]]:
    """Return the paths of what is in front of the stages, and of the stages that stay frozen where the last ``trained`` are not.

    Raises:
        ValueError: If the network has no such stages, or too few of them.
    """
    found = _stages(network)
    if found is None or not 1 <= trained < len(found[1]):
        have = f"stages between 1 and {len(found[1]) - 1}" if found else "'all': it has no stages"
        raise ValueError(f"finetune.layers of {type(network).__name__} must be {have}, got {trained}; choose from these")
    return found[0], found[1][:-trained]


def last_stages(network: Any, trained: int) -> Any:
    """Return a copy of a network without what is in front of its last stages: it goes on from their input."""
    copied = copy.deepcopy(network)
    stem, stages = cut(network, trained)
    for path in (*stem, *stages):
        parent, _, child = path.rpartition(".")
        setattr(copied.get_submodule(parent), child, nn.Identity())
    return copied


def unfreeze(network: nn.Module, tuned: str) -> None:
    """Make parameters of a frozen network trainable: those of all that is left of it, the biases alone, or low-rank updates.

    Source: BitFit, Ben Zaken et al. 2021, arXiv:2106.10199; LoRA, Hu et al. 2021, arXiv:2106.09685.

    Raises:
        ImportError: If peft is needed and missing.
    """
    if tuned == "lora":
        try:
            from peft import LoraConfig, inject_adapter_in_model
        except ImportError as error:
            raise ImportError('peft must be installed for finetune.adapters lora, got none; do pip install "joulefront[peft]"') from error
        targets = [path for path, layer in network.named_modules() if isinstance(layer, nn.Linear) and "blocks." in path]
        inject_adapter_in_model(LoraConfig(r=RANK, lora_alpha=SCALE, target_modules=targets), network)
        return
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(tuned != "bitfit" or name.rpartition(".")[2].endswith("bias"))


def stage_rates(network: Any, rate: float, decay: float) -> list[tuple[list[nn.Parameter], float]]:
    """Return the trainable parameters by stage, from the last to the first, with the factors of their learning rates.

    What is behind the stages goes with the last one, what is in front of them with the first.
    """
    stem, stages = _stages(network) or ([], [f"blocks.{k}" for k in range(len(getattr(network, "blocks", ())))])
    front = ("patch_embed", "cls_token", "pos_embed", "reg_token", *stem)
    groups: dict[int, list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        within = next((k for k, path in enumerate(stages) if name.startswith(f"{path}.")), None)
        depth = 0 if within is None else len(stages) - 1 - within
        if within is None and name.startswith(front):
            depth = max(0, len(stages) - 1)
        if parameter.requires_grad:
            groups.setdefault(depth, []).append(parameter)
    return [(groups[depth], rate * decay**depth) for depth in sorted(groups)]


def _stages(network: Any) -> tuple[list[str], list[str]] | None:
    for stem, holders in CUTS:
        if all(hasattr(network, name) for name in (*stem, *holders)):
            if len(holders) > 1:
                return list(stem), list(holders)
            return list(stem), [f"{holders[0]}.{name}" for name, _ in getattr(network, holders[0]).named_children()]
    return None


@lru_cache(maxsize=16)
def _tail_width(weights: Weights, trained: int) -> int:
    """Return the number of features of a network's last stages, which does not depend on the size of the images."""
    found, side = network(weights), network(weights).pretrained_cfg["input_size"][-1]
    stem, stages = cut(found, trained)
    with torch.no_grad(), torch.device("cpu"):
        maps = nn.Sequential(*(found.get_submodule(path) for path in (*stem, *stages)))(torch.zeros(1, 3, side, side))
        return embedded(last_stages(found, trained), maps, "grid").shape[1]
