"""A study that is real in every part and small in every number."""

import ctypes
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from joulefront.search import Study
from joulefront.search.cli import main

RINGS = '''
"""Points inside and outside of a circle: the example of the README."""
import numpy as np
import torch

from joulefront.search import Study
from joulefront.search.training.arrays import arrays
from joulefront.spaces.own import Own
from joulefront.spaces.recipes import RecipeRanges

MODE = "fine"


def draw(trial):
    return {"width": trial.suggest_int("width", 4, 32, log=True)}


class Nan(torch.nn.Linear):
    def forward(self, x):
        return super().forward(x) * float("nan")


class Raises(torch.nn.Linear):
    def forward(self, x):
        raise RuntimeError("my layer is broken")


class Hungry(torch.nn.Linear):
    def forward(self, x):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB")


class Exits(torch.nn.Linear):
    def forward(self, x):
        raise SystemExit(3)


class Slow(torch.nn.Linear):
    def forward(self, x):
        import time

        time.sleep(0.05)
        return super().forward(x)


def make(architecture, task):
    width = architecture["width"]
    last = {"fine": torch.nn.Linear, "nan": Nan, "raises": Raises, "hungry": Hungry, "exits": Exits, "slow": Slow}
    kind = MODE if MODE != "some" else "raises" if width % 2 else "fine"
    return torch.nn.Sequential(torch.nn.Linear(2, width), torch.nn.ReLU(), last[kind](width, task.outputs))


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
        trials=6,
        sampler="random",
        seed=seed,
    )
'''


@pytest.fixture
def rings_file(tmp_path: Path) -> Callable[[str], Path]:
    """Return a writer of the study file in a mode: fine, nan, raises, hungry, slow or some."""

    def write(mode: str = "fine") -> Path:
        path = tmp_path / f"rings_{mode}.py"
        path.write_text(RINGS.replace('MODE = "fine"', f'MODE = "{mode}"'))
        return path

    return write


@pytest.fixture
def rings(rings_file: Callable[[str], Path]) -> Callable[..., Study]:
    """Return the study in a mode."""
    from dataclasses import replace

    from joulefront.search.cli.study_source import find_study

    def make(mode: str = "fine", **changes: Any) -> Study:
        return replace(find_study(str(rings_file(mode)), {}), **changes)

    return make


@dataclass(frozen=True)
class Said:
    """What a call printed and how it ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Said]:
    """Call the command line in an empty folder; the runs are of the tests' own study files, so they are trusted."""
    monkeypatch.chdir(tmp_path)
    trusting = ("export", "optimise", "repeat")

    def call(*words: object) -> Said:
        code = 0
        try:
            main([*map(str, words), *(["--trust"] if words[:1] and words[0] in trusting and "--help" not in words else [])])
        except SystemExit as end:
            code = int(end.code or 0)
        said = capsys.readouterr()
        assert "Traceback" not in said.out + said.err
        return Said(code, said.out, said.err)

    return call


@pytest.fixture
def fake_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Any]:
    """Return a maker of so many fake GPUs of 200 W in real time, under NVIDIA's own binding."""

    def make(count: int) -> Any:
        compiler = shutil.which("gcc") or shutil.which("cc")
        if compiler is None:
            pytest.skip("the fake driver needs a C compiler (gcc)")
        import pynvml

        library = tmp_path / "libnvidia-ml.so.1"
        source = Path(__file__).with_name("energy") / "fake_driver.c"
        subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", str(library), str(source), "-lm"], check=True)
        driver = ctypes.CDLL(str(library))
        driver.fake_run.argtypes = [ctypes.c_double]
        driver.fake_reset(count)
        driver.fake_run(1.0)
        monkeypatch.setattr(pynvml, "nvmlLib", driver)
        monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        return driver

    return make
