"""A command under the meter: its streams, signals and exit code are its own, and what it took is said as far as it is known."""

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from helpers.command_line import say

from joulefront.search.carbon.intensity import Intensity
from joulefront.search.cli import main
from joulefront.search.energy import Discovery, Record
from joulefront.search.energy.sources.wall import open_wall
from joulefront.search.formatting import digits
from joulefront.search.integrations.command import CommandError, measure_command
from joulefront.search.integrations.metering import remedy
from joulefront.search.threads import ADDED

BUSY = "import time\nend = time.process_time() + {}\nwhile time.process_time() < end: pass"


def exit_code(*words: str) -> int:
    try:
        main(["measure", "--meter", "cpu_time", *words])
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


@pytest.mark.slow
def test_children_that_the_command_starts_are_counted() -> None:
    code = "import subprocess, sys\nfor one in [subprocess.Popen([sys.executable, '-c', sys.argv[1]]) for _ in 'ab']: one.wait()"
    done = measure_command([sys.executable, "-c", code, BUSY.format(0.2)], "cpu_time")
    assert done.exit_code == 0
    assert done.record.cpu_seconds is not None
    assert done.record.cpu_seconds >= 0.4
    assert done.record.quality == "estimated"
    assert done.record.joules is not None
    assert done.record.joules > 0


@pytest.mark.slow
def test_streams_are_untouched_and_the_record_is_on_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    assert exit_code("--", "sh", "-c", "printf out; printf err >&2; exit 3") == 3
    out, err = capfd.readouterr()
    assert out == "out"
    first, second, *parts = err.removeprefix("err").splitlines()
    assert "exit code 3 after" in first
    assert second.startswith("energy: ")
    assert second.endswith(", estimated")
    assert parts[0].startswith("  cpu: ")


def test_json_goes_to_stdout_or_to_a_file_that_reads_back(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "new" / "energy.json"
    assert exit_code("--json", "-o", str(file), "--intensity", "100", "--", "true") == 0
    shown, kept = json.loads(capfd.readouterr().out), json.loads(file.read_text())
    assert shown == kept
    assert kept["command"] == ["true"]
    assert kept["grams_co2e"] == pytest.approx(kept["kwh"] * 100)
    assert Record.from_json(kept).joules == kept["joules"] == pytest.approx(kept["kwh"] * 3.6e6)


@pytest.mark.parametrize("words", [["--", "printf", "%s", "--debug", "--json"], ["printf", "%s", "--debug", "--json", "-o", "--"]])
def test_options_after_the_command_are_its_own(words: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert exit_code(*words) == 0
    assert capfd.readouterr().out == "".join(words[words.index("%s") + 1 :])


def test_a_file_that_cannot_be_written_is_said_before_and_takes_no_exit_code_after(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if Path("/proc/self").exists():
        assert exit_code("-o", "/proc/energy.json", "--", "touch", str(tmp_path / "ran")) == 2
        assert "-o must be a file that can be written, got '/proc/energy.json' (" in capfd.readouterr().err
        assert not (tmp_path / "ran").exists()

    def full(path: Path, facts: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr("joulefront.search.records.files.write_json", full)
    assert exit_code("-o", str(tmp_path / "a.json"), "--", "sh", "-c", "exit 7") == 7
    err = capfd.readouterr().err
    assert "exit code 7 after" in err
    assert "a.json': the disk is full" in err.splitlines()[-1]


def test_what_is_no_earlier_record_is_not_written_over(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for text in ("print(1)\n", '{"format": 1, "study": {}}', "[]", "5"):
        (tmp_path / "a").write_text(text)
        assert exit_code("-o", str(tmp_path / "a"), "--", "touch", str(tmp_path / "ran")) == 2
        assert "-o must be a new file or an earlier record" in capfd.readouterr().err
        assert (tmp_path / "a").read_text() == text
    assert not (tmp_path / "ran").exists()
    (tmp_path / "a").write_text("")
    for _ in range(2):  # an empty file, then an earlier record
        assert exit_code("-o", str(tmp_path / "a"), "--", "true") == 0


def test_a_command_that_a_signal_ended_returns_128_and_its_number(capfd: pytest.CaptureFixture[str]) -> None:
    assert exit_code("--", "sh", "-c", "kill -TERM $$") == 128 + signal.SIGTERM
    assert "exit code 143 (SIGTERM)" in capfd.readouterr().err


def test_a_command_that_does_not_exist_is_one_line_and_127(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert exit_code("--", "no-such-command") == 127
    out, err = capfd.readouterr()
    assert out == ""
    assert err == "error: COMMAND must be a program that exists, got 'no-such-command'; check the spelling, the path and PATH\n"
    assert exit_code("--", str(tmp_path)) == 126


@pytest.mark.parametrize("words", [[], ["--"], ["-o", ".", "--", "touch", "ran"], ["--pue", "0.5", "--", "touch", "ran"]])
def test_wrong_usage_is_said_before_the_command_starts(words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert exit_code(*words) == 2
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 5), (signal.SIGTERM, 6)])
def test_a_signal_reaches_the_command_once_and_what_was_measured_is_returned(number: int, code: int, tmp_path: Path) -> None:
    ready, got = tmp_path / "ready", tmp_path / "got"
    child = (
        "import pathlib, signal, sys, time\ngot = []\n"
        "for n in (signal.SIGINT, signal.SIGTERM): signal.signal(n, lambda n, f: got.append(n))\n"
        "pathlib.Path(sys.argv[1]).touch()\nwhile not got: time.sleep(0.01)\ntime.sleep(0.2)\n"
        "pathlib.Path(sys.argv[2]).write_text(repr(len(got)))\nsys.exit(5 if got[0] == signal.SIGINT else 6)"
    )

    def interrupt() -> None:
        while not ready.exists():
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    # A shell's background job ignores SIGINT, and what is ignored here is ignored by the command, too.
    inherited = signal.signal(number, signal.default_int_handler)
    before = signal.getsignal(number)
    helper = threading.Thread(target=interrupt)
    helper.start()
    try:
        done = measure_command([sys.executable, "-c", child, str(ready), str(got)], "cpu_time")
        assert signal.getsignal(number) is before
    finally:
        helper.join()
        signal.signal(number, inherited)
    assert (done.exit_code, got.read_text()) == (code, "1")
    assert done.record.joules is not None


def test_a_wall_meter_that_is_named_is_not_proposed_but_said_to_be_in_no_sum() -> None:
    said = remedy(Discovery((open_wall(lambda: 50.0),), ()))
    assert said == "a wall meter has a line of its own and is in no sum; name the components' meters beside it: --meter auto,wall=..."
    assert "plug the machine into a metering plug" in remedy(Discovery((), ()))


def test_energy_that_nothing_reads_is_unknown_with_a_remedy_and_never_zero() -> None:
    done = measure_command(["true"], Discovery((), ()))
    assert done.record.joules is None
    assert done.to_json()["kwh"] is None
    assert "energy: unknown; " in done.to_text()
    assert "--meter auto,wall=" in done.to_text()


def test_both_uncertainties_are_standard_ones() -> None:
    done = measure_command(["true"], "cpu_time")
    scale = (done.record.u_systematic_joules or 0.0) / (done.record.joules or 1.0)
    assert (
        f"standard uncertainty ±{digits(done.record.u_random_joules)} J between runs, ±{100 * scale:.2g} % of the scale" in done.to_text()
    )


def test_grams_name_every_factor() -> None:
    done = measure_command(["true"], "cpu_time", intensity=Intensity(100.0), pue=1.5)
    assert "derived with a PUE of 1.5 and 100 gCO2e/kWh" in done.to_text()


def test_the_environment_is_the_users_own() -> None:
    assert {"OMP_WAIT_POLICY", "OPENBLAS_THREAD_TIMEOUT"} & ADDED <= os.environ.keys()
    check = f"import os, sys\nsys.exit(any(name in os.environ for name in {sorted(ADDED)!r}))"
    assert measure_command([sys.executable, "-c", check], "cpu_time").exit_code == 0


def test_a_command_of_many_lines_is_shown_in_one() -> None:
    done = measure_command(["sh", "-c", "true\n" * 200], "cpu_time")
    first, second, *_ = done.to_text().splitlines()
    assert first.startswith("joulefront: sh -c 'true true")
    assert " ...: exit code 0 after " in first
    assert second.startswith("energy: ")


def test_nothing_to_run_is_refused() -> None:
    with pytest.raises(ValueError, match="COMMAND must be a program"):
        measure_command([])
    with pytest.raises(CommandError, match="must be a program that exists"):
        measure_command(["no-such-command"], "cpu_time")


@pytest.mark.slow
def test_a_whole_group_that_is_interrupted_ends_with_the_commands_code_and_a_record() -> None:
    words = [sys.executable, "-m", "joulefront.search.cli", "measure", "--meter", "cpu_time", "--"]
    child = [sys.executable, "-c", "import time\nprint('ready', flush=True)\ntime.sleep(60)"]
    with subprocess.Popen([*words, *child], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate()
    assert process.returncode == 130
    assert "exit code 130 (SIGINT)" in err
    assert "energy: " in err


def test_help_says_how_the_exit_code_is_passed_on() -> None:
    assert "128 + N" in " ".join(say("measure", "--help")[0].split())
