"""How a frozen network is run: the cheapest way on this machine whose features agree with the plain one's.

Measured on 64 x 64 pixels with a small network, one thread of a CPU with bfloat16 instructions, CPU-seconds for 1,000 images: plain 2.16,
bfloat16 1.01, OpenVINO in bfloat16 0.54 after 2.5 for its conversion; both differed by 0.055 from the plain features, and heads on them
were as good. Static int8 of ONNX Runtime differed by 0.9: such a way is refused.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from .recipe import autocast, available_precisions

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
        """Take the part of a backbone up to a cut."""
        super().__init__()
        self.backbone, self.feature_set = backbone, feature_set

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return the features ``(b, d)`` of inputs as the task hands them out."""
        features: torch.Tensor = self.backbone.embed(self.backbone.prepare(inputs), self.feature_set)  # type: ignore[operator]
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
