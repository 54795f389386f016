"""Calling the command line in a test, and a study whose runs take seconds."""

import contextlib
import io
from pathlib import Path
from typing import Any

from joulefront.search.cli import main

STUDY = '''
"""Points inside and outside of a circle."""
import numpy as np
import torch
from joulefront.search import Study
from joulefront.search.training.arrays import arrays
from joulefront.spaces.own import Own
from joulefront.spaces.recipes import RecipeRanges

class Choosy(torch.nn.Linear):
    def forward(self, x):
        return super().forward(x if x.sum() > 0 else 2 * x)

def draw(trial):
    return {"width": trial.suggest_int("width", 4, 32, log=True)}

def make(architecture, task):
    last = Choosy if MODE == "choosy" else torch.nn.Linear
    return torch.nn.Sequential(torch.nn.Linear(2, architecture["width"]), torch.nn.ReLU(), last(architecture["width"], task.outputs))

def one(trial):
    return {"width": 8}

def task():
    x = np.random.default_rng(0).normal(size=(600, 2)).astype("float32")
    return arrays(x, ((x**2).sum(1) > 1.4).astype("int64"), name="circle", classes=["inside", "outside"])

def study(seed=0):
    rate = 0.03 if MODE == "one" else (1e-3, 1e-1)
    recipe = RecipeRanges(learning_rate=rate, weight_decay=0.0, batch_size=64)
    space = Own(one if MODE == "one" else draw, make, recipe=recipe)
    return Study(name="circle", task=task, space=space, rungs=(2,) if MODE == "one" else (1, 2, 4), trials=5, sampler="random", seed=seed)
'''


def write(folder: Path, mode: str) -> Path:
    path = folder / f"circle_{mode}.py"
    path.write_text(STUDY.replace("import numpy", f'MODE = "{mode}"\nimport numpy', 1))
    return path


def say(*words: object) -> tuple[str, str]:
    """Call the command line and return what it wrote to stdout and to stderr."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        main([str(word) for word in words])
    return out.getvalue(), err.getvalue()


class Circle:
    """A finished run and what the command said."""

    def __init__(self, folder: Path, mode: str, *words: str) -> None:
        self.study = write(folder, mode)
        self.path = folder / f"run {mode}"
        self.words = ["run", str(self.study), "--out", str(self.path), *words]
        self.out, self.err = say(*self.words)


def refused(said: Any, *parts: str, code: int = 2) -> str:
    """Check that a call ended with one line that says what is needed, and return it."""
    lines = [line for line in said.err.splitlines() if line.startswith("error: ")]
    assert said.code == code, said
    assert said.out == ""
    assert len(lines) == 1, said.err
    assert said.err.splitlines()[-1] == lines[0]
    for part in parts:
        assert part in lines[0]
    return lines[0]
