"""Wrong usage gets one clear line with a remedy and exit code 2, failed work exit code 1; neither gets a traceback."""

import errno
import logging
import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from helpers.command_line import refused
from helpers.run_folders import make

from joulefront.search.cli import exit_code, main, one_line, plain_warnings
from joulefront.search.cli.read import raise_if_interrupted
from joulefront.search.cli.run import _print_run
from joulefront.search.cli.study_source import StudyError
from joulefront.search.execution.job import reason_of
from joulefront.search.integrations.run_log import loggers_of
from joulefront.search.records.run_folder import RunFolder

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["run"], ["Missing argument", "joulefront run --help"]),
        (["frnt", "x"], ["Did you mean 'front'? See joulefront --help"]),
        (["optimise", "runs/nothing", "--rounds", "1"], ["--rounds", "2"]),
        (["run", "digits", "--budgte", "5Wh"], ["--budgte", "joulefront run --help"]),
        (["run", "digits", "--trials", "0"], ["--trials", "joulefront run --help"]),
        (["run", "digitz"], ["unknown study 'digitz'", "did you mean 'digits'"]),
        (["run", "nowhere.py"], ["'nowhere.py' does not exist"]),
        (["run", "no_such_module:study"], ["no_such_module"]),
        (["run", "digits", "--budget", "20"], ["--budget '20' has no unit", "--budget 20Wh"]),
        (["run", "digits", "--budget", "5apples"], ["unknown unit 'apples'", "Wh"]),
        (["run", "digits", "--timeout", "30"], ["--timeout", "30m"]),
        (["run", "digits", "--trial-timeout", "30"], ["--trial-timeout", "30m"]),
        (["run", "digits", "--price", "cheap"], ["price", "0.25EUR"]),
        (["run", "digits", "--pue", "0.5"], ["pue", ">= 1"]),
        (["run", "digits", "--intensity", "-3"], ["grams_per_kwh", ">= 0"]),
        (["run", "digits", "--zone", "ATLANTIS"], ["ATLANTIS"]),
        (["run", "digits", "--budget", "5gCO2e"], ["--zone FR"]),
        (["run", "digits", "--budget", "2EUR"], ["--price 0.25EUR"]),
        (["run", "digits", "--stop-gain", "much"], ["stop"]),
        (["run", "digits", "--sampler", "magic"], ["--sampler", "freeze-thaw", "'magic'"]),
        (["run", "digits", "--objectives", "accuracy,speed"], ["unknown ['speed']", "train_energy"]),
        (["run", "digits", "--objectives", "accuracy"], ["at least two"]),
        (["run", "digits", "--device", "abacus"], ["--device", "cuda:N", "'abacus'"]),
        (["run", "digits", "--data", "here"], ["takes no --data"]),
        (["run", "digits", "--meter", "dowsing"], ["meter (--meter) must be", "nvml", "'dowsing'"]),
        (["run", "table", "--data", "x.csv"], ["needs --target"]),
        (["run", "images"], ["needs --data"]),
        (["front", "runs/nothing"], ["'runs/nothing' does not exist", "joulefront run"]),
        (["doctor", "--meter", "dowsing"], ["meter (--meter) must be", "'dowsing'"]),
        (["run", "digits", "--out", "~ nobody/here"], ["a path that begins with ~ must name a user of this machine"]),
        (["run", "table", "--data", "~ nobody/a.csv", "--target", "y"], ["a path that begins with ~ must name a user"]),
        (["estimate", "digitz"], ["did you mean 'digits'"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) and "-" not in value[0] else None,
)
def test_wrong_usage_costs_nothing_and_gets_a_remedy(call: Callable[..., Any], words: list[str], parts: list[str]) -> None:
    refused(call(*words), *parts)
    assert not list(Path("runs").glob("*/artifacts/*"))


def test_a_device_that_is_missing_names_the_one_that_is_present(call: Callable[..., Any]) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    refused(call("run", "digits", "--device", "cuda"), "no CUDA device", "--device cpu")
    assert not Path("runs").exists()


def test_a_directory_that_was_removed_is_told_before_libraries_fail_in_it(
    call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone() -> str:
        raise FileNotFoundError(errno.ENOENT, "No such file or directory")

    monkeypatch.setattr("os.getcwd", gone)
    refused(call("run", "digits"), "the current directory must exist, got one that was removed; change into another")


def test_debug_lets_the_error_through(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StudyError, match="digitz"):
        main(["--debug", "run", "digitz"])
    with pytest.raises(ValueError, match="--budget"):
        main(["run", "digits", "--budget", "20", "--debug"])


def test_an_unexpected_error_is_one_line_too(call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise KeyError("gamma")

    monkeypatch.setattr("joulefront.search.records.run_folder.RunFolder.open", fail)
    refused(call("front", "x"), "KeyError: 'gamma'", "--debug", code=1)


def test_an_error_in_the_users_own_code_names_its_file_and_line(tmp_path: Path) -> None:
    """As a failed trial, and as what ends a command; nothing of ours, of Python or of a package is the user's own."""
    text = "import json\ndef draw(trial):\n    return {}['lost']\ndef read(text):\n    return json.loads(text)\n"
    names: dict[str, Any] = {}
    (tmp_path / "mine.py").write_text(text)
    exec(compile(text, str(tmp_path / "mine.py"), "exec"), names)

    def caught(work: Callable[[], object]) -> Exception:
        try:
            work()
        except Exception as error:
            return error
        raise AssertionError("it did not fail")

    lost = caught(lambda: names["draw"](None))
    assert one_line(lost) == "KeyError: 'lost' (mine.py, line 3) (the same command with --debug shows the traceback)"
    assert reason_of(lost) == "KeyError: 'lost' (mine.py, line 3)"
    assert one_line(caught(lambda: names["read"]("{"))).endswith("(mine.py, line 5)")  # where the user called it
    assert "line" not in reason_of(ValueError("nobody raised it"))


def test_a_package_that_is_missing_is_wrong_usage_and_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ImportError) as caught:
        loggers_of("wandb")
    assert re.fullmatch(r"wandb must be installed for --log wandb, got .*; do pip install wandb.*", one_line(caught.value))
    assert exit_code(caught.value) == 2


def test_the_help_of_every_verb_begins_with_a_whole_sentence_in_the_list(call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    for columns in ("60", "80", "160"):
        monkeypatch.setenv("COLUMNS", columns)
        listed = call("--help").out.partition("Commands:")[2].partition("Every verb")[0]
        assert "..." not in listed
        assert listed.count(".\n") + listed.count(". \n") >= 19


def test_an_interrupt_outside_of_the_trainings_prints_how_to_continue(call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("joulefront.search.running.run.run", stop)
    said = call("run", "digits")
    assert said.code == 130
    assert "what was measured is kept" in said.err


def test_a_first_interrupt_before_anything_was_measured_is_no_failure_of_the_work(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Empty(list[Any]):
        def to_text(self) -> str:
            return "no trials"

    failed = pytest.raises(RuntimeError, match="no trial was measured")
    for reason, caught in (("interrupted", nullcontext()), ("the budget is spent", failed)):
        result = SimpleNamespace(facts={"sessions": [{"reason": reason}]}, trials=())
        monkeypatch.setattr(RunFolder, "open", lambda path, storage=None, one=result: SimpleNamespace(run=lambda: one))
        with caught:
            _print_run(Empty(), tmp_path, None, "")


def test_a_folder_in_which_no_session_has_begun_was_not_interrupted(tmp_path: Path) -> None:
    raise_if_interrupted(make(tmp_path / "run").path)


def test_the_version_is_that_of_the_package(call: Callable[..., Any]) -> None:
    said = call("--version")
    assert (said.code, said.out) == (0, f"joulefront {version('joulefront')}\n")


def test_without_a_word_the_help_is_shown(call: Callable[..., Any]) -> None:
    said = call()
    assert said.code == 0
    assert "130 interrupted, 143 ended by SIGTERM" in " ".join(said.out.split())
    for verb in (
        "run",
        "front",
        "plot",
        "report",
        "export",
        "price",
        "compare",
        "doctor",
        "studies",
        "dashboard",
        "estimate",
        "optimise",
        "repair",
    ):
        assert f"  {verb}" in said.out
    assert "--debug" in said.out


def test_the_bundled_studies_are_listed_with_a_line_each(call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "300")  # where it is narrow, a line goes on below
    lines = {line.split()[0]: line for line in call("studies").out.splitlines()}
    assert {"digits", "images", "table"} <= set(lines)
    assert all(len(line.split()) > 5 for line in lines.values())


@pytest.mark.parametrize("make", ["missing/x.png", "afile/x.png", "folder", "x" * 300, "loop/x.png"])
def test_a_path_that_cannot_be_used_is_named_with_a_remedy_and_is_wrong_usage(tmp_path: Path, make: str) -> None:
    (tmp_path / "afile").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(OSError) as caught:  # noqa: PT011 - every kind of it
        (tmp_path / make).write_text("x")
    said = one_line(caught.value)
    assert make in said
    assert said.endswith("give another path")
    assert "Errno" not in said
    assert exit_code(caught.value) == 2


def test_an_error_without_a_path_keeps_its_message_and_is_failed_work() -> None:
    assert one_line(OSError("no space left")) == "no space left"
    full = OSError(errno.ENOSPC, "No space left on device", "runs/a/bill.json")
    assert one_line(full) == "cannot write 'runs/a/bill.json': the disk is full; free some space, then run the same command again"
    assert exit_code(OSError("no space left")) == 1


def test_an_error_never_prints_an_escape_sequence() -> None:
    assert one_line(ValueError("no column 'a\x1b[31m';\nit has: b\x00")) == "no column 'a\\x1b[31m'; it has: b\\x00"


def test_ctrl_c_while_the_command_line_loads_is_no_traceback() -> None:
    code = (
        "import sys\nclass Stop:\n    def find_spec(name, path=None, target=None):\n        if name in ('typer', 'importlib.metadata'):\n"
        "            raise KeyboardInterrupt\nsys.meta_path.insert(0, Stop)\nimport joulefront.search.cli"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_ctrl_c_while_the_process_ends_is_no_traceback() -> None:
    code = (
        "import atexit, signal, sys\nfrom joulefront.search.cli import main\nsys.argv[1:] = ['--version']\n"
        "atexit.register(signal.raise_signal, signal.SIGINT)\nmain()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_what_matplotlib_says_of_its_own_folders_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    with plain_warnings():
        logging.getLogger("matplotlib").warning("mkdir -p failed for path /dev/null/.config/matplotlib")
    assert caplog.records == []
    logging.getLogger("matplotlib").warning("of the user's own program")
    assert len(caplog.records) == 1
