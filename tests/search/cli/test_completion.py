"""What a shell gets when it asks how a word goes on."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from joulefront.search.cli import main
from joulefront.search.cli.options import complete_run, complete_study


@pytest.fixture
def complete(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., list[str]]:
    """Ask as bash does, in a folder of two runs, a study and something else."""
    monkeypatch.chdir(tmp_path)
    for path in ("runs/digits/study.json", "elsewhere/fast/study.json", "mine.toml", "mine.py", "runs/other/notes.txt", "elsewhere/x.txt"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    (tmp_path / "bad\nname").mkdir()

    def ask(*words: str) -> list[str]:
        monkeypatch.setenv("_JOULEFRONT_COMPLETE", "complete_bash")
        monkeypatch.setenv("COMP_WORDS", " ".join(["joulefront", *words]))
        monkeypatch.setenv("COMP_CWORD", str(len(words)))
        with pytest.raises(SystemExit):
            main([])
        return capsys.readouterr().out.split()

    return ask


def test_verbs_options_and_studies_are_completed(complete: Callable[..., list[str]]) -> None:
    assert {"run", "repair", "repeat", "report"} == {*complete("r")}
    assert complete("run", "dig") == ["digits"]
    assert complete("estimate", "mi") == ["mine.py", "mine.toml"]
    assert "--budget" in complete("run", "digits", "--b")
    assert "digits" in complete("studies", "")


@pytest.mark.parametrize("verb", ["front", "report", "export", "repeat", "compare"])
def test_run_folders_are_completed_by_path_and_those_in_runs_at_once(verb: str, complete: Callable[..., list[str]]) -> None:
    assert complete(verb, "")[0] == "runs/digits"
    assert complete(verb, "runs/") == ["runs/digits", "runs/other/"]
    assert complete(verb, "else") == ["elsewhere/"]
    assert complete(verb, "elsewhere/f") == ["elsewhere/fast"]
    assert complete(verb, "nothing/") == []


def test_a_name_that_no_terminal_prints_and_hidden_ones_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("bad\nname", ".hidden", "seen"):
        (tmp_path / name).mkdir()
    assert [path for path, _ in complete_run("")] == ["seen" + os.sep]
    assert [path for path, _ in complete_run(".h")] == [".hidden" + os.sep]
    assert [path for path, _ in complete_study("digi")] == ["digits"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_a_shell_is_printed(shell: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")  # the shell of the tests is no matter
    with pytest.raises(SystemExit):
        main(["--show-completion", shell])
    assert "_JOULEFRONT_COMPLETE=complete_" + shell in capsys.readouterr().out
