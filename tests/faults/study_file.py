"""The study that is killed: real in every part, with trainings that sleep more than they compute."""

SOURCE = '''
"""Points inside and outside of a circle; each batch takes a pause."""
import time

import numpy as np
import torch

from joulefront.search import Study
from joulefront.search.training.arrays import arrays
from joulefront.spaces.own import Own
from joulefront.spaces.recipes import RecipeRanges

PAUSE_SECONDS = 0.02
#: Candidates of an odd width pause for so long: their epochs outlast every kill. The first batches, a warm-up among them, are short.
LONG_SECONDS, SHORT_BATCHES = 0.02, 4


def draw(trial):
    return {"width": trial.suggest_int("width", 4, 4000)}


class Pause(torch.nn.Linear):
    seconds, batches = PAUSE_SECONDS, 0

    def forward(self, x):
        if self.training:
            self.batches += 1
            until = time.monotonic() + (self.seconds if self.batches > SHORT_BATCHES else PAUSE_SECONDS)
            while time.monotonic() < until:
                (torch.ones(64, 64) @ torch.ones(64, 64)).sum()
                time.sleep(0.01)
        return super().forward(x)


def make(architecture, task):
    width = architecture["width"]
    last = Pause(2, 4)
    last.seconds = LONG_SECONDS if width % 2 else PAUSE_SECONDS
    return torch.nn.Sequential(last, torch.nn.ReLU(), torch.nn.Linear(4, width), torch.nn.ReLU(), torch.nn.Linear(width, task.outputs))


def task():
    x = np.random.default_rng(0).normal(size=(600, 2)).astype("float32")
    y = ((x**2).sum(1) > 1.4).astype("int64")
    return arrays(x, y, name="rings", classes=["inside", "outside"])


def study(seed=0):
    return Study(
        name="rings",
        task=task,
        space=Own(draw, make, recipe=RecipeRanges(learning_rate=(1e-3, 1e-1), weight_decay=0.0, batch_size=64)),
        rungs=(1, 2, 4),
        trials=1000,
        sampler="freeze-thaw",
        seed=seed,
    )
'''


def source(*, pause_seconds: float = 0.02, long_seconds: float | None = None, sampler: str = "freeze-thaw") -> str:
    """Return the study file.

    Args:
        pause_seconds: Pause in each batch; an epoch has eight.
        long_seconds: Pause in each batch of every second candidate; the same as the others by default.
        sampler: Name of the sampler.
    """
    long_seconds = pause_seconds if long_seconds is None else long_seconds
    text = SOURCE.replace("SHORT_BATCHES = 0.02, 4", f"SHORT_BATCHES = {long_seconds!r}, 4")
    return text.replace("PAUSE_SECONDS = 0.02", f"PAUSE_SECONDS = {pause_seconds!r}").replace('"freeze-thaw"', f'"{sampler}"')
