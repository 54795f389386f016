"""The wheel, as somebody else installs it: outside of the checkout and next to the Hugging Face package `spaces`."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
ROOMS = ("search", "spaces", "studies")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from a copy: setuptools writes into the tree that it builds."""
    pytest.importorskip("setuptools", minversion="77", reason="the build backend setuptools>=77 is not installed here")
    folder = tmp_path_factory.mktemp("source")
    for room in ROOMS:
        shutil.copytree(ROOT / room, folder / room, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / name)
    (folder / "dist").mkdir()
    build = "from setuptools import build_meta; print(build_meta.build_wheel('dist'))"
    done = subprocess.run([sys.executable, "-c", build], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return folder / "dist" / done.stdout.strip().splitlines()[-1]


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of packages with the wheel and another distribution's `spaces` in it."""
    target = tmp_path_factory.mktemp("packages")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(target)  # what an installer does with a pure wheel
    (target / "spaces").mkdir()
    (target / "spaces" / "__init__.py").write_text("GPU = 'of Hugging Face'\n")
    return target


def python(target: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "PYTHONPATH": str(target), "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, *words], cwd=target.parent, env=environment, capture_output=True, text=True)


def test_every_module_of_the_checkout_is_in_the_wheel_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    here = {
        f"joulefront/{file.relative_to(ROOT).as_posix()}"
        for room in ROOMS
        for file in (ROOT / room).rglob("*")
        if file.suffix == ".py" or file.name == "py.typed"
    }
    assert here <= names, f"not in the wheel: {sorted(here - names)}; name the package under [tool.setuptools] packages"
    assert {name.split("/")[0] for name in names} == {"joulefront"}
    assets = {f"joulefront/{file.relative_to(ROOT).as_posix()}" for file in (ROOT / "search" / "report" / "assets").iterdir()}
    assert assets <= names, f"not in the wheel: {sorted(assets - names)}; name them under [tool.setuptools.package-data]"
    assert {name for name in names if name.endswith(".py")} <= here


def test_it_stands_next_to_the_hugging_face_package_spaces(installed: Path) -> None:
    code = (
        "import spaces, joulefront.spaces, joulefront.search as s, joulefront.studies;"
        "print(spaces.GPU); print(joulefront.spaces.__file__); print(s.Study.__name__, s.__version__)"
    )
    done = python(installed, "-c", code)
    assert done.returncode == 0, done.stderr
    gpu, ours, study = done.stdout.splitlines()
    assert gpu == "of Hugging Face"
    assert ours == str(installed / "joulefront" / "spaces" / "__init__.py")
    assert study.startswith("Study ")


def test_the_command_works_outside_of_the_checkout(installed: Path) -> None:
    done = python(installed, "-m", "joulefront.search.cli", "studies")
    assert done.returncode == 0, done.stderr
    assert "digits" in done.stdout
    [entry] = installed.glob("joulefront-*.dist-info/entry_points.txt")
    assert "joulefront = joulefront.search.cli:main" in entry.read_text()


def test_what_others_have_written_carries_their_licence(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        licences = {name.rpartition("licenses/")[2]: archive.read(name).decode() for name in archive.namelist() if "/licenses/" in name}
        [metadata] = [archive.read(name).decode() for name in archive.namelist() if name.endswith("/METADATA")]
    assert "License-Expression: Apache-2.0 AND ISC" in metadata
    for library, owner in (("d3", "Mike Bostock"), ("plot", "Observable, Inc.")):
        text = licences[f"search/report/assets/LICENSE.{library}.txt"]
        assert owner in text
        assert "Permission to use, copy, modify, and/or distribute this software" in text


def test_the_page_is_made_from_the_wheel(installed: Path) -> None:
    code = "from joulefront.search.report.page import SCRIPTS, asset; print(sum(len(asset(name)) for name in SCRIPTS) > 450_000)"
    assert python(installed, "-c", code).stdout.strip() == "True"
