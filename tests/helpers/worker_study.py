"""A study of which some candidates kill, fill or hold up the process that trains them."""

from pathlib import Path

from joulefront.search.execution.job import Job

#: Width 13 kills its process, 23 runs out of memory, 17 keeps a helper that has worked, 19 takes an hour; 29 looks for a
#: variable of the environment; others are small perceptrons.
STUDY = """
import os
import subprocess
import sys
import time
import numpy as np
import torch
from joulefront.search import Study
from joulefront.search.training.arrays import arrays
from joulefront.spaces.own import Own
from joulefront.spaces.recipes import RecipeRanges

class Deadly(torch.nn.Linear):
    def forward(self, x):
        if self.training:
            os._exit(7)
        return super().forward(x)

class Hungry(torch.nn.Linear):
    def forward(self, x):
        if self.training:
            raise MemoryError
        return super().forward(x)

class Slow(torch.nn.Linear):
    def forward(self, x):
        print("training", flush=True)
        time.sleep(3600)

HELPER = "import sys, time\\nwhile time.process_time() < 0.8: pass\\nprint('.', flush=True)\\nsys.stdin.read()"
HELPERS = []

def draw(trial):
    return {"width": trial.suggest_int("width", 4, 32)}

def make(architecture, task):
    width = architecture["width"]
    if width == 17:  # as a data loader does: it lives on when the training has ended
        HELPERS.append(subprocess.Popen([sys.executable, "-S", "-c", HELPER], stdin=subprocess.PIPE, stdout=subprocess.PIPE))
        HELPERS[-1].stdout.read(1)
    if width == 29:
        assert os.environ["SET_AFTER_THE_SERVER"] == "yes"
    first = {13: Deadly, 19: Slow, 23: Hungry}.get(width, torch.nn.Linear)
    return torch.nn.Sequential(first(2, width), torch.nn.ReLU(), torch.nn.Linear(width, task.outputs))

def task():
    x = np.random.default_rng(0).normal(size=(400, 2)).astype("float32")
    return arrays(x, ((x**2).sum(1) > 1.4).astype("int64"), name="rings")

def study():
    recipe = RecipeRanges(learning_rate=0.01, weight_decay=0.0, batch_size=64)
    return Study(name="rings", task=task, space=Own(draw, make, recipe=recipe), trials=1)
"""


class Window:
    cpu_seconds: float | None = None


def job(folder: Path, width: int, epochs: int = 2) -> Job:
    return Job(0, {"width": width}, epochs, seed=1, device="cpu", threads=1, start=None, weights=folder / f"w{width}")
