"""A stranger with files: the commands that joulefront prints lead to a label, where neither joulefront nor PyTorch is installed."""

from __future__ import annotations

import csv
import io
import json
import re
import shlex
import shutil
import subprocess
import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import ModelCard
from PIL import Image

from joulefront.search.cli import main

pytestmark = pytest.mark.slow

PACKAGES = ("onnxruntime", "numpy", "pillow", "pandas", "soundfile")


@pytest.fixture(scope="session")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Python of an environment that has what the printed command installs, and nothing else."""
    folder = tmp_path_factory.mktemp("bare") / "venv"
    if shutil.which("uv") is None:
        pytest.skip("uv makes the environment, and it is not here")
    for command in (["uv", "venv", "-q", str(folder)], ["uv", "pip", "install", "-q", "-p", str(folder), *PACKAGES]):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"the packages cannot be had here: {done.stderr.strip()[-200:]}")
    python = folder / "bin" / "python"
    assert subprocess.run([python, "-c", "import torch"], capture_output=True, check=False).returncode == 1
    return python


def photos(folder: Path) -> list[str]:
    random = np.random.default_rng(0)
    for name, channel in (("red", 0), ("blue", 2)):
        (folder / "photos" / name).mkdir(parents=True)
        for k in range(16):
            pixels = random.integers(0, 90, (int(random.integers(20, 60)), int(random.integers(20, 60)), 3), dtype=np.uint8)
            pixels[:, :, channel] += 120
            Image.fromarray(pixels).save(folder / "photos" / name / f"{k:02}.jpg")
    return ["images", "--data", "photos", "--pretrained", "no"]


def rows(folder: Path) -> list[str]:
    random = np.random.default_rng(0)
    with (folder / "sales.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=";")
        writer.writerow(["day", "town", "size", "level"])
        for k in range(120):
            town, size = ("Zürich", "Rome", "n/a")[k % 3], float(random.normal(50, 9))
            day = f"{k % 28 + 1:02}.{k % 12 + 1:02}.2024"
            writer.writerow([day, town, "" if k % 11 == 0 else f"{size:.1f}".replace(".", ","), "high" if size > 50 else "low"])
    return ["table", "--data", "sales.csv", "--target", "level"]


def sounds(folder: Path) -> list[str]:
    random = np.random.default_rng(0)
    for name, pitch in (("high", 3000), ("low", 300)):
        (folder / "sounds" / name).mkdir(parents=True)
        for k in range(16):
            time = np.arange(int(11_025 * random.uniform(0.2, 0.4))) / 11_025
            samples = 0.5 * np.sin(2 * np.pi * pitch * random.uniform(0.8, 1.2) * time) + random.normal(0, 0.02, len(time))
            with wave.open(str(folder / "sounds" / name / f"{k:02}.wav"), "wb") as file:
                file.setnchannels(1)
                file.setsampwidth(2)
                file.setframerate(11_025)
                file.writeframes((samples * 32767).clip(-32768, 32767).astype("<i2").tobytes())
    return ["sound", "--data", "sounds", "--pretrained", "no"]


@pytest.mark.parametrize("make", [photos, rows, sounds])
def test_four_printed_commands_lead_from_files_to_labels(
    make: Callable[[Path], list[str]], bare: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    main(["run", *make(tmp_path), "--smoke", "--quiet"])
    (step,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("next: joulefront export")]
    main(shlex.split(step)[2:])
    printed = capsys.readouterr().out.splitlines()
    assert max(map(len, printed)) <= 80
    card = ModelCard.load(tmp_path / "model" / "README.md")
    assert card.data.pipeline_tag == {photos: "image", rows: "tabular", sounds: "audio"}[make] + "-classification"
    assert all(
        said in card.text for said in ("95 % interval", "Guessing gives", "on the front of", "fingerprint `", "- recipe: ", "## Limits")
    )
    assert "here" not in re.findall(r"```python\n(.*?)```", card.text, re.DOTALL)[0]  # "put yours here" is no code that works
    install, use = [shlex.split(line) for line in printed if line.startswith("  p")]
    assert install[:2] == ["pip", "install"]
    assert set(install[2:]) <= set(PACKAGES)
    assert use[0] == "python"
    found = predicted(bare, use[1:])
    assert found.stderr == ""
    assert found.stdout.splitlines()[0].split() == ["file", *(["row"] if make is rows else []), "label", "probability"]
    answers = json.loads(predicted(bare, ["-I", *use[1:], "--json"]).stdout)  # with no folder of its own on the path
    assert len(answers) == (120 if make is rows else 1)
    assert sum(answers[0]["probabilities"].values()) == pytest.approx(1.0, abs=1e-4)
    table = list(csv.DictReader(io.StringIO(predicted(bare, [*use[1:], "--csv"]).stdout)))
    assert [row["label"] for row in table] == [answer["label"] for answer in answers]
    # The same with joulefront, beside a file that cannot be read.
    (tmp_path / "bad.bin").write_bytes(b"\x00\xff nothing")
    (verb,) = [line for line in printed if line.startswith("next: joulefront predict")]
    with pytest.raises(SystemExit) as ended:
        main([*shlex.split(verb)[2:], "bad.bin", "--json"])
    said = capsys.readouterr()
    assert ended.value.code == 2
    assert json.loads(said.out) == answers
    assert said.err.count("\n") == 1
    assert said.err.startswith("error: bad.bin must be ")


def predicted(python: Path, words: list[str]) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([python, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done
