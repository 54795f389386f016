"""The results for each example that a trial keeps: files that are damaged or somebody else's."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from joulefront.search.records.examples import LARGEST_BYTES, Examples, examples_of


def test_a_damaged_file_is_none(tmp_path: Path) -> None:
    for number, content in enumerate([b"", b"PK\x03\x04 not really", b"nonsense" * 99]):
        examples_of(tmp_path, number).parent.mkdir(exist_ok=True)
        examples_of(tmp_path, number).write_bytes(content)
        assert Examples.load(examples_of(tmp_path, number)) is None
    assert Examples.load(examples_of(tmp_path, 77)) is None
    np.savez(examples_of(tmp_path, 8), given=np.array([{}], dtype=object))
    assert Examples.load(examples_of(tmp_path, 8)) is None


def test_a_file_of_somebody_else_is_none_or_can_be_computed(tmp_path: Path) -> None:
    file, none, bits = tmp_path / "x.npz", np.zeros(0, np.uint8), np.arange(64, dtype=np.uint8) % 2 == 0
    good = {"given": np.packbits(bits), "shape": np.array([64]), "bits": np.array(True), "targets": none, "count": np.array(64)}
    good["metric"] = np.array("accuracy")
    classes = {"bits": np.array(False), "metric": np.array("macro_f1")}
    strange: list[dict[str, Any]] = [
        {"shape": np.array([10**11])},  # TB
        {"shape": np.array([0])},
        {"count": np.array(5)},
        {"given": np.packbits(np.zeros(LARGEST_BYTES * 8 + 8, bool)), "shape": np.array([LARGEST_BYTES * 8 + 8]), "count": np.array(10**9)},
        {"given": np.full(64, 2.5), "bits": np.array(False)},
        {**classes, "given": np.full(64, 2**40), "targets": np.full(64, 2**40)},
        {**classes, "given": np.full(64, -2), "targets": np.full(64, -2)},
        {**classes, "given": np.full(64, 0.5), "targets": np.full(64, 0.5)},
        {**classes, "given": np.zeros((64, 2), bool), "targets": np.zeros((64, 1), bool), "shape": np.array([64, 2])},
    ]
    np.savez_compressed(file, **good)
    assert (found := Examples.load(file)) is not None
    assert found.value() == 0.5
    for change in strange:
        np.savez_compressed(file, **{**good, **change})
        assert Examples.load(file) is None
    np.savez_compressed(file, **good)
    whole = file.read_bytes()
    with zipfile.ZipFile(file) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    parts["given.npy"] = parts["given.npy"].replace(b"(8,), }" + b" " * 12, b"(9999999999999,), }")
    with zipfile.ZipFile(file, "w") as archive:
        for name, part in parts.items():
            archive.writestr(name, part)
    assert b"999" in parts["given.npy"]
    assert Examples.load(file) is None  # 9 TB
    place = whole.find(b"PK\x01\x02")
    for at, value in ((place + 8, 1), (place + 10, 99), (place - 40, 255), (60, 255)):  # a password, another method, damage
        file.write_bytes(whole[:at] + bytes([value]) + whole[at + 1 :])
        Examples.load(file)
    file.unlink()
    os.mkfifo(file)
    assert Examples.load(file) is None
