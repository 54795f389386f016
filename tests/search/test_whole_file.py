"""A full disk is named with its remedy, leaves no half of a file and loses nothing."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn.linear_model import LogisticRegression

from joulefront.search import Study, load, run
from joulefront.search.records.files import write_json
from joulefront.search.records.run_folder import RunFolder
from joulefront.search.report.page import report_html
from joulefront.search.training.checkpoint import save_weights
from joulefront.search.training.estimator import as_estimator
from joulefront.search.training.results import Fitted
from joulefront.search.whole_file import full_disk, named_when_full, whole_file

pytestmark = pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here, whose every write finds no space")


def no_space_for(path: Path) -> None:
    """Let every write to this file find a full disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_name(f"{path.name}.{os.getpid()}.tmp").symlink_to("/dev/full")


def refused(path: Path, write: Callable[[], Any]) -> None:
    """Check that a write fails, names the file and the remedy, and leaves the folder as it was."""
    before = {file: file.read_bytes() for file in path.parent.iterdir()}
    no_space_for(path)
    with pytest.raises(OSError, match="No space left") as caught:
        write()
    assert full_disk(caught.value) == f"cannot write {str(path)!r}: the disk is full; free some space, then run the same command again"
    assert {file: file.read_bytes() for file in path.parent.iterdir()} == before


def test_a_file_is_there_whole_or_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    write_json(file, {"x": 1})
    refused(file, lambda: write_json(file, {"x": 2}))

    def broken_off() -> None:
        with whole_file(file) as unfinished:
            unfinished.write_text("half")
            raise KeyError

    with pytest.raises(KeyError):
        broken_off()
    assert [one.name for one in tmp_path.iterdir()] == ["a.json"]
    write_json(file, {"x": 3})
    assert "3" in file.read_text()


def fitted(model: Any) -> Fitted:
    return Fitted(model, 1, {}, (), None)


def test_weights_of_both_kinds_that_find_no_space_name_their_file(tmp_path: Path) -> None:
    network = torch.nn.Linear(300, 300)
    points = LogisticRegression().fit([[0.0], [1.0]], [0, 1])
    for name, model in (("a.weights", network), ("b.weights", as_estimator(points))):
        refused(tmp_path / name, lambda name=name, model=model: save_weights(tmp_path / name, fitted(model), with_checkpoint=False))


def test_what_a_library_says_of_a_full_disk_is_read_from_its_cause(tmp_path: Path) -> None:
    def library() -> None:
        try:
            Path("/dev/full").write_text("x")
        except OSError:
            raise RuntimeError("unexpected pos 704 vs 598") from None

    with pytest.raises(OSError, match="No space left") as caught, named_when_full(tmp_path / "model"):
        library()
    assert caught.value.filename == str(tmp_path / "model")
    with pytest.raises(RuntimeError, match="another"), named_when_full(tmp_path / "model"):
        raise RuntimeError("another")


@pytest.mark.slow
def test_pictures_and_reports_that_find_no_space_name_their_file(rings: Callable[..., Study], tmp_path: Path) -> None:
    front = run(rings(), out=tmp_path / "r", trials=2, meter="cpu_time")
    (tmp_path / "o").mkdir()
    for name in ("f.html", "f.png", "f.svg"):
        refused(tmp_path / "o" / name, lambda name=name: front.plot(tmp_path / "o" / name))
    refused(tmp_path / "o" / "r.html", lambda: report_html(RunFolder.open(tmp_path / "r").run(), tmp_path / "o" / "r.html"))


@pytest.mark.slow
def test_a_run_whose_pictures_find_no_space_keeps_its_trials_and_says_how_to_draw_them(
    call: Callable[..., Any], rings_file: Callable[[str], Path]
) -> None:
    words = ["run", rings_file("fine"), "--out", "r", "--meter", "cpu_time", "--trials"]
    assert call(*words, 1).code == 0
    no_space_for(Path("r/front.html"))
    said = call(*words, 2)
    assert said.code == 1
    assert "cannot write 'r/front.html': the disk is full; free some space, then joulefront report r -o r/front.html draws it" in said.err
    assert len(RunFolder.open("r").run().trials) == 2
    assert not list(Path("r").rglob("*.tmp"))


@pytest.mark.slow
def test_weights_that_find_no_space_end_the_study_which_goes_on_later(call: Callable[..., Any], rings_file: Callable[[str], Path]) -> None:
    words = ["run", rings_file("fine"), "--out", "r", "--meter", "cpu_time", "--trials"]
    assert call(*words, 1).code == 0
    no_space_for(Path("r/artifacts/trial-00001.weights"))
    said = call(*words, 3)
    assert said.code == 1
    assert "trial-00001.weights': the disk is full; free some space, then run the same command again" in said.err
    full = RunFolder.open("r").run()
    assert [trial.state for trial in full.trials] == ["complete", "failed"]
    assert (full.trials[1].increment_joules or 0.0) > 0
    assert not list(Path("r").rglob("*.tmp"))
    assert call(*words, 4).code == 0
    assert [trial.state for trial in load("r").trials].count("complete") == 3


class QuotingError(Exception):
    """As safetensors raises it: no OSError, no number."""


def test_a_library_that_only_quotes_the_system_is_understood_as_well(tmp_path: Path) -> None:
    def write() -> None:
        with named_when_full(tmp_path / "model.safetensors"):
            raise ValueError("cannot be written") from QuotingError("I/O error: No space left on device (os error 28)")

    with pytest.raises(OSError, match="No space left") as caught:
        write()
    assert "model.safetensors" in (full_disk(caught.value) or "")
