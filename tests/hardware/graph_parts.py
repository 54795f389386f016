"""Part of the acceptance run: steps of a training as one CUDA graph against one step after the other."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import timm
import torch

from joulefront.search.training.arrays import arrays
from joulefront.search.training.captured import cuda_graph
from joulefront.search.training.loop import Loop
from joulefront.search.training.recipe import Recipe, synchronizer
from joulefront.search.training.task import Task
from joulefront.spaces.convnet import ConvolutionalNetwork

from .context import Context
from .table import Figure, as_result, at_least, at_most, holds
from .training_parts import CLASSES, pictures

EPOCHS = 3


class Waits(torch.nn.Module):
    """Waits for the device in each step: no graph can hold it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Read a number from the device."""
        return x * (1.0 if float(x.flatten()[0]) < 1e9 else 2.0)


def _convnet(width: int, depth: int = 3) -> torch.nn.Module:
    return ConvolutionalNetwork((3, 32, 32), CLASSES, depth=depth, width=width, pooling="stride")


def _rows() -> torch.nn.Module:
    layers = [torch.nn.Linear(3 * 32 * 32, 128), torch.nn.ReLU(), torch.nn.Dropout(0.3), torch.nn.Linear(128, CLASSES)]
    return torch.nn.Sequential(torch.nn.Flatten(), *layers)


#: Name, network, what differs in its recipe, and whether it must end in a graph (None: as it is worth it).
NETWORKS: tuple[tuple[str, Callable[[], torch.nn.Module], dict[str, Any], bool | None], ...] = (
    ("small convnet", lambda: _convnet(16), {}, True),
    ("rows with dropout", _rows, {"augment": "none"}, True),
    ("convnet, bfloat16, channels_last", lambda: _convnet(32), {"precision": "bfloat16", "channels_last": True}, True),
    ("convnet, SGD, accumulation", lambda: _convnet(16), {"optimizer": "sgd", "accumulation": 2, "learning_rate": 0.05}, True),
    ("timm's test_resnet", lambda: timm.create_model("test_resnet", num_classes=CLASSES, drop_path_rate=0.1), {}, None),
    ("timm's resnet10t", lambda: timm.create_model("resnet10t", num_classes=CLASSES), {}, None),
    ("wide convnet", lambda: _convnet(256, 4), {}, None),
    ("waits for the device", lambda: torch.nn.Sequential(Waits(), _rows()), {"augment": "none"}, False),
    ("rows with dropout, after a failed one", _rows, {"augment": "none"}, True),
)


def graphs(context: Context) -> dict[str, Any]:
    """Losses, images per second and memory of both ways, over several networks."""
    examples = 20_000 if context.gpu else 700
    task = arrays(*pictures(examples), name="pictures")
    figures: list[Figure] = []
    rows: list[dict[str, Any]] = []
    for name, network, changes, wanted in NETWORKS if context.gpu else NETWORKS[:1]:
        recipe = Recipe(**{"batch_size": 256 if context.gpu else 16, "learning_rate": 2e-3, "augment": "flip_shift", **changes})
        plain, captured = (_trained(network, task, recipe, context, capture=capture) for capture in (False, True))
        rows.append({"network": name, "step by step": plain, "graph": captured})
        taken = captured["reason"] is None
        off = max(abs(a / b - 1) for a, b in zip(captured["losses"], plain["losses"], strict=True))
        if wanted is not None:
            figures.append(
                holds(f"{name}: {'is' if wanted else 'is not'} taken into a graph", taken == wanted, "yes", note=captured["reason"] or "")
            )
        figures.append(at_most(f"{name}: losses of the epochs, graph / step by step, apart", off, 0.05))
        ratio = captured["per_second"] / plain["per_second"]
        note = captured["reason"] or f"{captured['per_second']:,.0f}/s; {captured['capture_seconds']:.2g} s to capture"
        figures.append(at_least(f"{name}: images per second, graph / step by step", ratio, 0.9 if context.gpu else 0.1, note=note))
        context.save(as_result(figures, rows=rows))
    return as_result(figures, rows=rows)


def _trained(network: Callable[[], torch.nn.Module], task: Task, recipe: Recipe, context: Context, *, capture: bool) -> dict[str, Any]:
    device = torch.device(context.device)
    wait = synchronizer(context.device) or (lambda: None)
    torch.manual_seed(3)
    model = network()
    losses, seconds, reason, took = [], [], None, 0.0
    with ExitStack() as undo:
        loop = Loop(model, task, recipe, (), undo, epochs=EPOCHS, start=None, seed=0, device=device)
        loop.rehearse()
        wait()
        if context.gpu:
            torch.cuda.reset_peak_memory_stats(device)
        begin = time.perf_counter()
        if capture:
            reason = loop.capture(cuda_graph if context.gpu else lambda body: body)
        wait()
        took = time.perf_counter() - begin
        for _ in range(EPOCHS):
            begin = time.perf_counter()
            losses.append(loop.train_epoch())
            wait()
            seconds.append(time.perf_counter() - begin)
    memory = torch.cuda.max_memory_allocated(device) / 2**20 if context.gpu else None
    rate = len(task.train) / statistics.median(seconds)
    return {"losses": losses, "per_second": rate, "capture_seconds": took, "reason": reason, "memory_mib": memory}
