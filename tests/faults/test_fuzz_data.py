"""Data that are damaged, foreign or hostile: tables, forecasts, images, recordings and their zips."""

import io
import random
import shutil
import struct
import wave
import zipfile
from pathlib import Path

import numpy as np
import pytest
from faults.fuzzing import cut, ends_well, fuzz
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from joulefront.search.carbon.forecast import read_forecast
from joulefront.search.training.audio import audio
from joulefront.search.training.images import images
from joulefront.search.training.table import table


def rows(seed: int = 0) -> bytes:
    draw = random.Random(seed)
    lines = [f"{draw.gauss(0, 1)},{draw.choice('abc')},2026-01-{draw.randint(1, 28):02},{draw.randint(0, 1)}" for _ in range(30)]
    return "\n".join(["x,$kind,when,y", *lines]).encode()


@pytest.mark.slow
@fuzz(0.08)
@given(
    cut(rows()) | st.binary(max_size=60) | st.text(alphabet="xy,;\t\n\"'1.e-\0é$", max_size=60).map(str.encode),
    st.sampled_from(["y", "x", "$kind"]),
)
def test_a_table(tmp_path_factory: pytest.TempPathFactory, data: bytes, target: str) -> None:
    file = tmp_path_factory.getbasetemp() / "table.csv"
    file.write_bytes(data)
    ends_well("CSV", lambda: table(file, target))


@fuzz(0.04)
@given(cut(b"hour,g_per_kwh\n" + b"\n".join(b"%d,%d" % (hour, 50 + hour) for hour in range(24))))
def test_a_forecast(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    file = tmp_path_factory.getbasetemp() / "forecast.csv"
    file.write_bytes(data)
    ends_well("forecast", lambda: read_forecast(file).mean(0.0, 12.0))


def picture(kind: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (8, 8, 3)).astype(np.uint8)).save(file, kind)
    return file.getvalue()


def sound() -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setparams((1, 2, 8000, 0, "NONE", ""))
        out.writeframes(np.random.default_rng(0).integers(-9999, 9999, 2000).astype("<i2").tobytes())
    return file.getvalue()


BOMB = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + struct.pack(">IIBBBBBI", 20_000, 10_000, 8, 2, 0, 0, 0, 0x12345678)
PICTURES = [picture(kind) for kind in ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")]
NAMES = st.sampled_from(["0.png", "$x^{.jpg", "\x1b[31m.png", "é.gif", "a b.bmp", "x.tif", "deep/er.png", "-o.webp"])


@pytest.mark.slow
@fuzz(0.08)
@given(st.data(), st.sampled_from(PICTURES).flatmap(cut) | st.just(BOMB) | st.binary(max_size=40), NAMES, st.booleans(), st.booleans())
def test_images(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, bad: bytes, name: str, skip: bool, packed: bool) -> None:
    one = data.draw(st.sampled_from(["cat", "c$at^", "cat\x1b[31m", "cät"]))
    path = packing(tmp_path_factory.getbasetemp() / "images", data, {one: PICTURES[0], "dog": PICTURES[0]}, (f"{one}/{name}", bad), packed)
    ends_well("images", lambda: images(path, skip_unreadable=skip))


@pytest.mark.slow
@fuzz(0.08)
@given(st.data(), cut(sound()) | st.binary(max_size=60).map(lambda tail: sound()[:20] + tail), st.booleans(), st.booleans())
def test_recordings(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, bad: bytes, skip: bool, packed: bool) -> None:
    path = packing(tmp_path_factory.getbasetemp() / "sounds", data, {"high": sound(), "low": sound()}, ("low/bad.wav", bad), packed)
    ends_well("WAV", lambda: audio(path, sample_rate=8000, mels=8, skip_unreadable=skip))


def packing(root: Path, data: st.DataObject, classes: dict[str, bytes], bad: tuple[str, bytes], packed: bool) -> Path:
    """Put six good files of each class and a bad one into a folder, or into a zip that may be damaged itself."""
    shutil.rmtree(root, ignore_errors=True)
    suffix = ".wav" if bad[0].endswith(".wav") else ".png"
    files = {f"{name}/{k}{suffix}": content for name, content in classes.items() for k in range(1, 7)} | dict([bad])
    if not packed:
        for name, content in files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(content)
        return root
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", data.draw(st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]))) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    root.mkdir()
    (root / "set.zip").write_bytes(data.draw(cut(whole.getvalue())))
    return root / "set.zip"
