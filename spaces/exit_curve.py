"""What a trained network with exits gives at every confidence threshold: quality, depth, operations and joules."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import nn

from ..search.training.cost import count
from ..search.training.evaluate import predictions, quality
from ..search.training.recipe import Recipe
from ..search.training.task import Data, Task
from .early_exit import NEVER, ExitNetwork

if TYPE_CHECKING:
    from ..search.energy import Ledger

#: Runs a function and returns the joules that it cost, or None when they are not known.
Meter = Callable[[Callable[[], None]], float | None]
THRESHOLDS = (0.5, 0.7, 0.8, 0.9, 0.95, 0.99, NEVER)


@dataclass(frozen=True)
class ExitPoint:
    """One threshold.

    Attributes:
        threshold: Confidence above which an example leaves.
        quality: Quality by metric name, e.g. ``accuracy``.
        shares: Share of the examples that leave at each exit.
        mean_exit: Mean number of the exit, the first being 1.
        flops: Mean forward floating-point operations of one example, or None.
        joules_per_1000: Energy of 1,000 predictions, or None when it was not measured.
    """

    threshold: float
    quality: Mapping[str, float]
    shares: tuple[float, ...]
    mean_exit: float
    flops: float | None
    joules_per_1000: float | None


def ledger_meter(ledger: Ledger, *, seconds: float = 0.5, device: str | torch.device = "cpu") -> Meter:
    """Return a meter that repeats a function in a window of a running ledger and gives the joules of one run.

    Args:
        ledger: A running ledger.
        seconds: The window is at least this long, so that it is far above the resolution of the meters.
        device: What to wait for at both edges of the window.

    Raises:
        ValueError: If ``seconds`` is not positive.
    """
    if not seconds > 0:
        raise ValueError(f"seconds must be > 0, got {seconds!r}")
    wait = torch.cuda.synchronize if torch.device(device).type == "cuda" else None

    def measure(run: Callable[[], None]) -> float | None:
        run()  # the first run warms up
        runs, window = 0, ledger.open("exits", kind="inference", synchronize=wait)
        try:
            began = time.monotonic()
            while time.monotonic() - began < seconds:
                run()
                runs += 1
        except BaseException:
            window.close("failed")
            raise
        joules = window.close(settle=True).joules
        return None if joules is None else joules / runs

    return measure


def exit_points(
    model: ExitNetwork,
    task: Task,
    data: Data,
    *,
    recipe: Recipe,
    thresholds: Sequence[float] = THRESHOLDS,
    device: str | torch.device = "cpu",
    meter: Meter | None = None,
) -> tuple[ExitPoint, ...]:
    """Return what the model gives at each threshold; the model is left as it was.

    Args:
        model: A trained network with exits.
        task: Its task.
        data: The split to predict.
        recipe: The recipe it was trained with: resolution and size of the batches.
        thresholds: Confidences to try.
        device: Where to predict.
        meter: Measures one prediction of the whole split, see ``ledger_meter``; None to measure nothing.
    """
    model.to(device)
    costs = exit_flops(model, task, recipe)
    points = []
    for threshold in thresholds:
        with _evaluating(model, threshold):
            scores, targets, exits = _predict(model, task, data, recipe, device)
            joules = meter(lambda: _run(model, data, recipe, device)) if meter is not None else None
        shares = torch.bincount(exits, minlength=len(model.exits)) / len(exits)
        points.append(
            ExitPoint(
                threshold=threshold,
                quality=quality(task.kind, scores.numpy(), targets.numpy(), scale=task.target_scale),
                shares=tuple(shares.tolist()),
                mean_exit=float(exits.float().mean()) + 1.0,
                flops=None if costs is None else sum(share * cost for share, cost in zip(shares.tolist(), costs, strict=True)),
                joules_per_1000=None if joules is None else joules / len(data) * 1000.0,
            )
        )
    return tuple(points)


def exit_flops(model: ExitNetwork, task: Task, recipe: Recipe) -> tuple[int, ...] | None:
    """Return the forward operations of an example that leaves at each exit, those of the exits that it passed included."""
    costs = [count(_Prefix(model, last), task, recipe).flops for last in range(len(model.exits))]
    known = tuple(cost for cost in costs if cost is not None)
    if len(known) < len(costs):
        return None
    if any(later < earlier for earlier, later in pairwise(known)):
        raise RuntimeError(f"a later exit cannot cost less than an earlier one, counted {known}")
    return known


class _Prefix(nn.Module):
    """The network up to one exit."""

    def __init__(self, model: ExitNetwork, last: int) -> None:
        super().__init__()
        self.blocks, self.exits = model.blocks[: last + 1], model.exits[: last + 1]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        answer = x
        for part, leave in zip(self.blocks, self.exits, strict=True):
            x = part(x)
            answer = leave(x)
        return answer


@contextmanager
def _evaluating(model: ExitNetwork, threshold: float) -> Iterator[None]:
    training, before = model.training, model.threshold
    model.eval()
    model.threshold = threshold
    try:
        with torch.inference_mode():
            yield
    finally:
        model.threshold = before
        model.train(training)


def _predict(
    model: ExitNetwork, task: Task, data: Data, recipe: Recipe, device: str | torch.device
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return scores ``(n, classes)``, targets and the numbers of the exits, ``(n,)`` from 0."""
    scores, targets, exits = [], [], []
    for inputs, wanted in data.batches(recipe.batch_size, device=device, resolution=recipe.resolution):
        answer, taken = model.leave_early(inputs)
        scores.append(predictions(task.kind, answer).cpu())
        targets.append(wanted.cpu())
        exits.append(taken.cpu())
    return torch.cat(scores), torch.cat(targets), torch.cat(exits)


def _run(model: ExitNetwork, data: Data, recipe: Recipe, device: str | torch.device) -> None:
    for inputs, _ in data.batches(recipe.batch_size, device=device, resolution=recipe.resolution):
        model(inputs)
