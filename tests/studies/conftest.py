"""A smoke run through the command line in this process, and tiny data for the studies that cannot do without."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from joulefront.search.cli import main
from joulefront.search.execution.job import WarmUp
from joulefront.search.records.run_folder import Run, RunFolder

RANDOM = np.random.default_rng(0)
WARM_UP = WarmUp.before


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """The tests run beside others; a study that sets threads must not set them for the tests that follow."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def no_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A training of each kind before the first trial, fine-tuning among them, would cost more than the trials."""
    monkeypatch.setattr(WarmUp, "before", lambda *args, **words: None)


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Features of pretrained networks are kept neither for nor from whoever runs the tests."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("JOULEFRONT_CACHE", str(tmp_path_factory.mktemp("features")))
        yield


@pytest.fixture(scope="session")
def smoke() -> Callable[..., Run]:
    """Run two tiny trials of a study through the command line and read what was measured."""

    def run(source: str, out: Path, *options: str) -> Run:
        code: object = 0
        try:
            main(["run", source, "--smoke", "--meter", "cpu_time", "--device", "cpu", "--out", str(out), *options])
        except SystemExit as ended:
            code = ended.code
        assert not code, f"joulefront run {source} --smoke ended with exit code {code}"
        return RunFolder.open(out).run()

    return run


@pytest.fixture(scope="session")
def smoked(smoke: Callable[..., Run], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Run]:
    """The smoke run of a bundled study, made once for all tests that look at it."""
    made: dict[str, Run] = {}

    def run(name: str) -> Run:
        if name not in made:
            folder = tmp_path_factory.mktemp(name)
            with pytest.MonkeyPatch.context() as monkeypatch:
                if name == "digits":
                    monkeypatch.setattr(WarmUp, "before", WARM_UP)
                made[name] = smoke(name, folder / "run", *_options(name, folder / "data", monkeypatch))
        return made[name]

    return run


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """A folder of small photographs, see ``write_images``."""
    return write_images(tmp_path / "photographs")


def _options(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    if name == "images":
        return ("--data", str(write_images(folder)))
    if name == "table":
        return ("--data", str(write_table(folder)), "--target", "kind")
    if name == "cifar10":
        return ("--data", str(write_cifar10(folder, monkeypatch)))
    return ()


def write_images(root: Path) -> Path:
    """Write three classes of 14 photographs of 32 x 32 pixels, each class in a colour of its own."""
    for index, name in enumerate(("red", "green", "blue")):
        (root / name).mkdir(parents=True)
        for number in range(14):
            pixels = RANDOM.integers(0, 120, (32, 32, 3)).astype(np.uint8)
            pixels[..., index] += 120
            Image.fromarray(pixels).save(root / name / f"{number}.png")
    return root


def write_table(root: Path) -> Path:
    """Write a CSV with two features, one of them with holes, and labels as text."""
    root.mkdir(exist_ok=True)
    size = RANDOM.normal(size=120)
    lines = [f"{value:.3f},{'' if k % 11 == 0 else k % 5},{'large' if value > 0.9 else 'small'}" for k, value in enumerate(size)]
    path = root / "houses.csv"
    path.write_text("\n".join(["size,rooms,kind", *lines]) + "\n")
    return path


def write_cifar10(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write a tiny CIFAR-10 in torchvision's layout, whose check sums are those of the real files."""
    base = root / torchvision.datasets.CIFAR10.base_folder
    base.mkdir(parents=True)
    kinds = torchvision.datasets.CIFAR10
    for name, _ in (*kinds.train_list, *kinds.test_list):
        batch = {"data": RANDOM.integers(0, 256, (40, 3072)).astype(np.uint8), "labels": [k % 10 for k in range(40)]}
        (base / name).write_bytes(pickle.dumps(batch))
    (base / kinds.meta["filename"]).write_bytes(pickle.dumps({kinds.meta["key"]: [f"class {k}" for k in range(10)]}))
    monkeypatch.setattr(kinds, "_check_integrity", lambda self: True)
    monkeypatch.setattr(kinds, "meta", {**kinds.meta, "md5": None})
    return root
