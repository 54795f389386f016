"""Transfer: a frozen network gives features once, and a small head is trained on them at almost no cost.

The seam is `Backbone`: a frozen network that says what it is, how it wants its inputs, and what it gives at named places. `Transfer` is a
whole model, a plain module from raw images to outputs, made of a backbone and a head.

A frozen network is run in the cheapest way on this machine whose features agree with the plain one's. Measured on 64 x 64 pixels with a
small network, one thread of a CPU with bfloat16 instructions, CPU-seconds for 1,000 images: plain 2.16, bfloat16 1.01, OpenVINO in
bfloat16 0.54 after 2.5 for its conversion; both differed by 0.055 from the plain features, and heads on them were as good. Static int8 of
ONNX Runtime differed by 0.9: such a way is refused.
"""

from __future__ import annotations

import gc
import importlib
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from .recipe import autocast, available_precisions

#: Of PyTorch's compiler torchvision asks as it is loaded for a function that it may call, timm for a mark on one that it may not compile.
COMPILER = ("torch._dynamo", "torch._dynamo.utils")
#: What timm imports of the hub's client by name, to call it when it is told to fetch something; the client itself takes 0.2 CPU-seconds.
HUB = ("HfApi", "hf_hub_download", "model_info")


def library(name: str) -> Any:
    """Import timm or torchvision without PyTorch's compiler and the hub's client: they are loaded where something is compiled or fetched.

    These are most of the CPU time that either takes.

    Raises:
        ImportError: If it is not installed.
    """
    if name in sys.modules or {"torchvision", COMPILER[0]} & sys.modules.keys():
        return importlib.import_module(name)
    given = {one: _Later(one) for one in COMPILER}
    sys.modules.update(given)
    collecting = gc.isenabled()
    gc.disable()  # nothing that is loaded is garbage: looking for some takes a third of the time
    try:
        with _hub_later() if name == "timm" else nullcontext():
            return importlib.import_module(name)
    finally:
        if collecting:
            gc.enable()
        for later in given.values():
            later.give_way()


@contextmanager
def _hub_later() -> Iterator[None]:
    """Give functions for the names of `HUB` that find the real ones when they are called; they are the hub's own again afterwards."""
    hub = importlib.import_module("huggingface_hub")
    lent = [name for name in HUB if name not in vars(hub)]
    for name in lent:
        setattr(hub, name, lambda *given, _name=name, **named: getattr(hub, _name)(*given, **named))
    try:
        yield
    finally:
        for name in lent:
            delattr(hub, name)


class _Later(ModuleType):
    """Stands for a module of the compiler until more is asked of it than timm and torchvision do, or they are loaded."""

    def __getattr__(self, name: str) -> Any:
        if name == "is_compile_supported":
            return lambda *given: getattr(importlib.import_module(self.__name__), name)(*given)
        if name == "disable":  # a function that is never compiled; what this gives finds the compiler when it is called
            return lambda function, recursive=True, **reason: torch._compile._disable_dynamo(function, recursive)
        if name.startswith("__"):
            raise AttributeError(name)
        self.give_way()
        return getattr(importlib.import_module(self.__name__), name)

    def give_way(self) -> None:
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]


class Backbone(Protocol):
    """A frozen network that is cut at named places; an ``nn.Module`` as well, so that its weights move and are exported with the model.

    Attributes:
        identity: Name and SHA-256 of the weights: features of other weights are other features.
        preprocessing: What `prepare` does, as JSON (the network's size in pixels, mean, deviation and interpolation, and the scale of the
            task that it undoes): inputs that are prepared in another way have other features.

    A backbone may also have a method ``part_of(feature_set) -> Part | None``: which larger set holds the features of a set. Then the larger
    one is computed for both.
    """

    identity: str
    preprocessing: Mapping[str, Any]

    def feature_sets(self) -> tuple[str, ...]:
        """Return the names of what `embed` can give, e.g. ``("pooled", "stages", "grid")``."""

    def prepare(self, images: torch.Tensor) -> torch.Tensor:
        """Bring inputs ``(b, c, h, w)``, as the task hands them out, to the network's own scale and size."""

    def embed(self, prepared: torch.Tensor, feature_set: str) -> torch.Tensor:
        """Return the features ``(b, d)`` of prepared inputs; each row depends on its own input alone, and nothing is drawn at random.

        No layer behind the cut is computed: what a feature set costs is what a model with it costs.
        """

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]:
        """Return its parameters, as ``nn.Module`` does."""


@dataclass(frozen=True)
class Part:
    """Where a larger feature set holds the features of a smaller one.

    Attributes:
        whole: The larger set.
        columns: Its columns that are the smaller one.
        same_cut: Whether both take the same layers, and cost the same.
    """

    whole: str
    columns: slice
    same_cut: bool = False


class Transfer(nn.Module):
    """A whole model: inputs as the task hands them out -> backbone -> standardised features -> head -> outputs.

    The backbone is frozen and stays in evaluation mode; only the head is trained, by ``fit``, on features that are computed once.

    Attributes:
        feature_set: One of the backbone's.
        head: Features ``(b, d)`` -> ``(b, outputs)``; its last linear layer starts at zero.
        images: Number of training images that it learns from; None for all of them.
        mean: Of each feature over the training images, ``(d,)``, and ``deviation`` its standard deviation; buffers, fitted before the head.
    """

    mean: torch.Tensor
    deviation: torch.Tensor

    def __init__(self, backbone: Backbone, feature_set: str, head: nn.Module, *, images: int | None = None) -> None:
        """Put a head on a backbone.

        Raises:
            ValueError: If the backbone has no such feature set, or there are no images.
        """
        super().__init__()
        if feature_set not in backbone.feature_sets():
            raise ValueError(f"feature_set must be one of {', '.join(backbone.feature_sets())}, got {feature_set!r}")
        if images is not None and images < 1:
            raise ValueError(f"images must be >= 1, or None for all, got {images!r}")
        self.backbone, self.feature_set, self.head, self.images = backbone, feature_set, head, images
        for parameter in backbone.parameters():
            parameter.requires_grad = False
        _start_at_zero(head)
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("deviation", torch.ones(()))
        self.train(self.training)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return the outputs ``(b, outputs)`` for raw inputs ``(b, c, h, w)``."""
        features = self.backbone.embed(self.backbone.prepare(inputs), self.feature_set)
        outputs: torch.Tensor = self.head((features - self.mean) / self.deviation)
        return outputs

    def train(self, mode: bool = True) -> Transfer:
        """Put the head into training mode; statistics and dropout of the backbone stay as they are."""
        super().train(mode)
        if isinstance(self.backbone, nn.Module):
            self.backbone.eval()
        return self

    def head_parameters(self) -> list[nn.Parameter]:
        """Return what is trained."""
        return list(self.head.parameters())

    def own_state(self) -> dict[str, torch.Tensor]:
        """Return head, mean and deviation: with the weights of the backbone, which have a place of their own, they are the model."""
        return {name: tensor for name, tensor in self.state_dict().items() if not name.startswith("backbone.")}

    def rate_factors(self) -> Sequence[tuple[Sequence[nn.Parameter], float]]:
        """Return groups of the head's parameters with factors of their learning rates, where it has such."""
        found: Sequence[tuple[Sequence[nn.Parameter], float]] = getattr(self.head, "rate_factors", tuple)()
        return found

    def load_own_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """Take what `own_state` gave; parts that are missing, or are not of this model, raise RuntimeError."""
        self.load_state_dict({**self.state_dict(), **state})

    def _load_from_state_dict(self, state: Mapping[str, torch.Tensor], prefix: str, *rest: Any) -> None:
        for name in {"mean", "deviation"} & {key.removeprefix(prefix) for key in state}:  # their length is that of the features
            setattr(self, name, torch.zeros_like(state[prefix + name], device=self.mean.device))
        super()._load_from_state_dict(state, prefix, *rest)


def _start_at_zero(head: nn.Module) -> None:
    """Set the last linear layer to zero: a random start of the usual size costs a tenth of the accuracy before it is forgotten."""
    layers = [layer for layer in head.modules() if isinstance(layer, nn.Linear)]
    if layers:
        nn.init.zeros_(layers[-1].weight)
        if layers[-1].bias is not None:
            nn.init.zeros_(layers[-1].bias)


#: Turns inputs ``(b, ...)`` on the device into features ``(b, d)`` float32.
Extract = Callable[[torch.Tensor], np.ndarray]
#: The most by which features may differ from plain ones, as a share of how much those vary between images (Frobenius norms).
TOLERANCE = 0.1
#: In sets of fewer images the plain way is taken, and below the second number no network is converted: that costs what a thousand do.
WORTH, WORTH_CONVERTING = 1500, 3000
#: Images that go through a backbone at once, by kind of device. A GPU gets no other number: each makes cuDNN plan every convolution anew.
BATCH = {"cuda": 512}
SMALL_BATCH = 64
#: Images that the ways are compared on.
COMPARED = 32


@dataclass(frozen=True)
class Way:
    """A way of running a frozen network, and how many times as long the plain one takes."""

    name: str
    extract: Extract
    slower: float = 1.0


def filled(inputs: torch.Tensor, size: int) -> torch.Tensor:
    """Return a batch of at least so many inputs: what is missing is the first of them again."""
    missing = size - len(inputs)
    return inputs if missing <= 0 else torch.cat((inputs, inputs[:1].expand(missing, *inputs.shape[1:])))


class Embedding(nn.Module):
    """The frozen part of a model as one module: raw inputs -> features."""

    def __init__(self, backbone: nn.Module, feature_set: str) -> None:
        super().__init__()
        self.backbone, self.feature_set = backbone, feature_set

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return the features ``(b, d)`` of inputs as the task hands them out."""
        features: torch.Tensor = self.backbone.embed(self.backbone.prepare(inputs), self.feature_set)  # type: ignore[operator]  # a method
        return features


def plain(embedding: Embedding, device: torch.device, precision: str = "float32") -> Extract:
    """Run the network as it is, in one precision."""

    def extract(inputs: torch.Tensor) -> np.ndarray:
        with torch.inference_mode(), autocast(precision, device):
            return np.asarray(embedding(inputs).float().cpu().numpy())

    return extract


def openvino(embedding: Embedding, inputs: torch.Tensor) -> Extract:
    """Run the network in OpenVINO, in bfloat16 where the CPU has instructions for it.

    Raises:
        ImportError: If it is not installed.
        Exception: Whatever it raises for a network that it cannot convert.
    """
    with _untold(), warnings.catch_warnings(), torch.no_grad():
        import openvino as ov

        warnings.simplefilter("ignore")
        # Traced here, without a second trace to compare: half the energy of a conversion, whose result is compared anyway.
        traced = torch.jit.trace(embedding, inputs[:2], check_trace=False)  # type: ignore[no-untyped-call]
        converted = ov.convert_model(traced, example_input=inputs[:2])
    settings = {"INFERENCE_NUM_THREADS": torch.get_num_threads(), "NUM_STREAMS": 1}
    compiled = ov.Core().compile_model(converted, "CPU", settings)
    return lambda batch: np.asarray(compiled(batch.contiguous().numpy())[0], dtype=np.float32)


@contextmanager
def _untold() -> Iterator[None]:
    """Let OpenVINO tell nobody of its import and its conversions: nothing here contacts a host. Without that package it has a stub."""
    absent = "openvino_telemetry" not in sys.modules
    if absent:
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # Python's own sign for a module that cannot be imported
    try:
        yield
    finally:
        if absent:
            del sys.modules["openvino_telemetry"]


def ways(embedding: Embedding, inputs: torch.Tensor, device: torch.device) -> Iterator[tuple[str, Extract]]:
    """Yield other ways than the plain one that there are here."""
    yield from casts(embedding, inputs, device)
    if device.type == "cpu":
        try:
            yield "openvino", openvino(embedding, inputs)
        except Exception:  # not installed, or it cannot convert this network
            return


def casts(embedding: Embedding, inputs: torch.Tensor, device: torch.device) -> Iterator[tuple[str, Extract]]:
    """Yield those of them that need no conversion."""
    if "bfloat16" in available_precisions(device):
        yield "bfloat16", plain(embedding, device, "bfloat16")


def fastest(
    embedding: Embedding,
    inputs: torch.Tensor,
    device: torch.device,
    others: Callable[[Embedding, torch.Tensor, torch.device], Iterator[tuple[str, Extract]]] = ways,
) -> Way:
    """Return the way that took least on some inputs ``(b, ...)``, of those whose features agree with the plain ones."""
    best = Way("plain", plain(embedding, device))
    first, expected = _timed(best.extract, inputs, device)
    least = first
    spread = float(np.linalg.norm(expected - expected.mean(axis=0)))
    for name, extract in others(embedding, inputs, device):
        try:
            seconds, found = _timed(extract, inputs, device)
        except Exception:  # it cannot run this network: the plain way can
            continue
        if found.shape == expected.shape and float(np.linalg.norm(found - expected)) <= TOLERANCE * spread and seconds < least:
            best, least = Way(name, extract, first / max(seconds, 1e-9)), seconds
    return best


def _timed(extract: Extract, inputs: torch.Tensor, device: torch.device) -> tuple[float, np.ndarray]:
    """Return CPU-seconds of all threads (on a GPU: seconds) of a second call, the first one warms up; and the features."""
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    extract(inputs)
    begin = clock()
    found = extract(inputs)  # ends with a copy to the host, so the device is waited for
    return clock() - begin, found
