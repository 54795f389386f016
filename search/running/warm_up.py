"""What only the first training of its kind pays in a process, paid before any trial is metered."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ..space import Draw, Space
from ..trainer import INTERRUPTED, Job, train
from ..training.splits_data import Excerpt
from ..training.task import Task

#: Examples that a warm-up learns from: enough for the neighbours that an estimator may ask for.
EXAMPLES = 128
#: A kind that so many random candidates in a row do not show is too rare to look for.
ENOUGH_DRAWS = 200


def warm_up(space: Space, task: Task, *, device: str, threads: int, seed: int) -> None:
    """Train one candidate of each kind on a few examples, go on from its file, and forget it.

    Libraries are imported where they are first used, devices and thread pools start with their first work: without this, the first trial
    of a kind would be billed for them, and no later one. A candidate that cannot be trained is its trial's finding, not an error here.

    Args:
        space: The candidates.
        task: The data.
        device: PyTorch device.
        threads: Threads of a training; a recipe's own number wins.
        seed: Seeds the candidates and their weights.

    Raises:
        KeyboardInterrupt: If the user breaks it off.
    """
    few = [Excerpt(split, EXAMPLES, most=1, seed=0, device=device) for split in (task.train, task.validation)]
    small = replace(task, train=few[0], validation=few[1])
    with TemporaryDirectory(prefix="joulefront-") as folder:
        weights = Path(folder) / "weights"
        for params in one_of_each_kind(space, seed):
            for epochs, start in ((1, None), (2, weights)):
                job = Job(-1, params, epochs, seed, device, threads, start, weights)
                if train(job, space, small, phases=lambda kind, index: nullcontext(), go_on=lambda entry: True).failed == INTERRUPTED:
                    raise KeyboardInterrupt


def one_of_each_kind(space: Space, seed: int) -> list[Mapping[str, Any]]:
    """Return the parameters of a random candidate of each kind: each family, and within it each estimator.

    Args:
        space: The candidates.
        seed: Seeds the draws; the first kind is that of ``Draw(seed)``.
    """
    found: dict[tuple[Any, ...], Mapping[str, Any]] = {}
    without = 0
    while without < ENOUGH_DRAWS:
        draw = Draw(seed)
        architecture = space.sample(draw).architecture
        kind = (architecture.get("family"), architecture.get("estimator"))
        without = without + 1 if kind in found else 0
        found.setdefault(kind, draw.params)
        seed += 1
    return list(found.values())
