"""Every example in a docstring runs."""

import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ("search", "spaces", "studies")
FILES = [file for top in FOLDERS for file in (ROOT / top).rglob("*.py") if ">>>" in file.read_text(encoding="utf-8")]


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_examples_in_docstrings_are_true(file: Path) -> None:
    name = "joulefront." + ".".join(file.relative_to(ROOT).with_suffix("").parts)
    assert doctest.testmod(importlib.import_module(name)).failed == 0
