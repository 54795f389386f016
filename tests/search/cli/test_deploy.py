"""The verbs of a finished model: what they refuse, and that nothing is uploaded that was not allowed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helpers import forked

from joulefront.search.cli import main
from joulefront.search.export.write import check_push, upload


def refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    return said.err


def test_a_folder_without_a_model_is_one_line(tmp_path, capsys):
    assert "must hold model.onnx; give a folder written by joulefront export" in refused(["predict", str(tmp_path), "x.jpg"], capsys)
    (tmp_path / "model.onnx").write_bytes(b"no graph")
    assert "must be an ONNX file that joulefront wrote" in refused(["predict", str(tmp_path), "x.jpg"], capsys)
    assert "exclude each other" in refused(["predict", str(tmp_path), "x.jpg", "--csv", "--json"], capsys)


def test_nothing_is_uploaded_without_network_and_token(monkeypatch):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with pytest.raises(ValueError, match="must come with --network"):
        check_push("me/model", False)
    with pytest.raises(ValueError, match="set HF_TOKEN"):
        check_push("me/model", True)
    monkeypatch.setenv("HF_TOKEN", "hf_x")
    with pytest.raises(ValueError, match=r"--push must be NAME or USER/NAME, got 'a/b/c'"):
        check_push("a/b/c", True)
    check_push("me/model", True)


@pytest.mark.slow
def test_a_hub_that_refuses_leaves_the_folder_and_says_so(tmp_path, monkeypatch):
    import huggingface_hub

    class Refusing:
        def __init__(self, **options: Any) -> None: ...

        def create_repo(self, *names: Any, **options: Any) -> None:
            raise OSError("no way to the hub")

    monkeypatch.setenv("HF_TOKEN", "hf_x")
    monkeypatch.setattr(huggingface_hub, "HfApi", Refusing)
    with pytest.raises(RuntimeError, match=r"is complete, but could not be uploaded to me/model: no way to the hub"):
        upload(Path(tmp_path), "me/model")


@pytest.mark.slow
def test_the_room_exports_functions_whatever_was_imported_before():
    import subprocess
    import sys

    subprocess.run([sys.executable, "-c", "import joulefront.search.export.predict, sys; assert 'torch' not in sys.modules"], check=True)
    code = (
        "import sys\nfor name in [one for one in sys.modules if one.startswith('joulefront.search.export')]: del sys.modules[name]\n"
        "import joulefront.search.export.predict\n"
        "from joulefront.search.export import FORMATS, load_model, export; assert callable(export) and callable(load_model)"
    )
    done = forked.run("-c", code)
    assert done.returncode == 0, done.stderr
