"""The wheels, as somebody else installs them: next to the Hugging Face package `spaces`; the meter alone; and the text of the image."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
ROOMS = ("search", "spaces", "studies")


def build(source: Path) -> Path:
    """Build the source distribution of a folder, of that the wheel, without the network; return the wheel."""
    pytest.importorskip("build", reason="build is not installed (pip install build)")
    pytest.importorskip("setuptools", minversion="77", reason="the build backend setuptools>=77 is not installed here")
    words = [sys.executable, "-m", "build", "--no-isolation", "--outdir", "dist", "."]
    done = subprocess.run(words, cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Deprecat" not in done.stdout + done.stderr
    assert len([*(source / "dist").glob("*.tar.gz")]) == 1
    [wheel] = (source / "dist").glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build from a copy: setuptools writes into the tree that it builds."""
    folder = tmp_path_factory.mktemp("source")
    for room in ROOMS:
        shutil.copytree(ROOT / room, folder / room, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / name)
    return build(folder)


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


@pytest.fixture(scope="module")
def meter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of the meter alone."""
    folder = tmp_path_factory.mktemp("meter") / "energy"
    return build(Path(shutil.copytree(ROOT / "search" / "energy", folder, ignore=shutil.ignore_patterns("__pycache__"))))


def test_the_meter_alone_has_the_files_of_its_room_the_licence_and_the_same_version(meter: Path) -> None:
    with zipfile.ZipFile(meter) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        [metadata] = [archive.read(name).decode() for name in archive.namelist() if name.endswith("/METADATA")]
        assert any(name.endswith("licenses/LICENSE") for name in archive.namelist())
    here = {f"joulefront/{file.relative_to(ROOT).as_posix()}" for file in (ROOT / "search" / "energy").rglob("*.py")}
    assert names == {*here, "joulefront/search/energy/py.typed"}
    whole = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert f"\nVersion: {whole['version']}\n" in metadata
    needed = [line for line in re.findall(r"^Requires-Dist: (.*)$", metadata, re.MULTILINE) if "extra ==" not in line]
    assert sorted(re.split("[<>=]", line)[0] for line in needed) == ["numpy", "nvidia-ml-py"]


def test_the_meter_alone_measures_in_an_environment_with_numpy_and_nvidia_ml_py_only(meter: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "light", symlinks=True)
    [packages] = (tmp_path / "light").rglob("site-packages")
    with zipfile.ZipFile(meter) as archive:
        archive.extractall(packages)
    for name in ("numpy", "pynvml"):  # what an installer would fetch
        found = Path(__import__(name).__file__ or "")
        for path in (found.parent, found.parent.parent / f"{name}.libs") if found.name == "__init__.py" else (found,):
            if path.exists():
                (packages / path.name).symlink_to(path)
    code = (
        "import sys, numpy, pynvml\n"
        "from joulefront.search.energy import Ledger, discover, measure\n"
        "from joulefront.search.energy.doctor import examine\n"
        "total, record = measure(lambda: sum(range(3_000_000)))\n"
        "with Ledger(discover('auto')) as ledger, ledger.window('work') as window:\n"
        "    sum(range(3_000_000))\n"
        "assert total == 4499998500000 and record.joules > 0 and window.record.joules > 0\n"
        "assert examine((), discover('auto').absent).findings\n"
        "print(sorted(name for name in ('torch', 'optuna', 'scipy', 'typer', 'codecarbon') if name in sys.modules))\n"
        "print(sorted(name for name in sys.modules if name.startswith('joulefront.') and not name.startswith('joulefront.search')))\n"
    )
    interpreter = tmp_path / "light" / ("Scripts" if os.name == "nt" else "bin") / "python"
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run([interpreter, "-c", code], cwd=tmp_path, env=clean, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[]\n[]\n"


def test_the_image_runs_digits_and_not_as_root() -> None:
    """No daemon builds here: the text is checked."""
    lines = (ROOT / "Dockerfile").read_text(encoding="utf-8").splitlines()
    steps = [line.partition(" ")[::2] for line in lines if re.match(r"[A-Z]+ ", line)]
    by_name = dict(steps)
    image, version = by_name["FROM"].partition("-")[0].split(":")
    supported = [f"3.{minor}" for minor in range(11, 14)]  # requires-python
    assert (image, version in supported) == ("python", True)
    order = [name + " " + what for name, what in steps]
    [install] = [k for k, step in enumerate(order) if re.search(r"^RUN .*pip install .*\.", step)]
    user = order.index(f"USER {by_name['USER']}")
    assert install < user < order.index(f"CMD {by_name['CMD']}")
    assert by_name["USER"] not in ("root", "0")
    assert (by_name["ENTRYPOINT"], by_name["CMD"]) == ('["joulefront"]', '["run", "digits"]')
    copied = {word for name, what in steps if name == "COPY" for word in what.split()[:-1]}
    assert copied >= {"pyproject.toml", "README.md", "LICENSE", *ROOMS}
    assert all((ROOT / name).exists() for name in copied)
    kept = {line.removeprefix("!") for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line.startswith("!")}
    assert kept == copied
