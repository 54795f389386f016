"""Commands in processes of their own: their energy, their exit codes, and what is left of them."""

import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers.command_line import write

from joulefront.search.records.run_folder import RunFolder

pytestmark = pytest.mark.slow


def command(*words: object, **more: Any) -> "subprocess.CompletedProcess[str]":
    code = "from joulefront.search.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, words)], text=True, capture_output="stdout" not in more, check=False, **more
    )


def test_the_cpu_seconds_of_whole_commands_are_on_the_bill_and_near_the_estimate(tmp_path: Path) -> None:
    """From the interpreter's start to the last picture; at 1 W per busy core a joule is a CPU-second."""
    study, out, watts = write(tmp_path, "fine"), tmp_path / "r", ["--cpu-watts", os.cpu_count()]
    where = ["--trials", 8, "--meter", "cpu_time", "--device", "cpu", "--out", out, *watts]
    done = [command("estimate", study, *where)]
    begin = resource.getrusage(resource.RUSAGE_CHILDREN)
    done.append(command("run", study, *where))
    result = RunFolder.open(out).run()
    done.append(command("repeat", out, "--times", 1, "--max-members", 1, "--trust", *watts))
    end = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert [one.returncode for one in done] == [0, 0, 0], [one.stderr for one in done]
    bill = RunFolder.open(out).run().bill
    used = end.ru_utime + end.ru_stime - begin.ru_utime - begin.ru_stime
    assert bill.total_joules == pytest.approx(used, rel=0.05)
    assert bill.total_joules == pytest.approx(sum(bill.by_state.values()))
    reasons = [session["reason"] for session in RunFolder.open(out).facts["sessions"]]
    assert reasons == ["all 8 trials are done", "finalists trained again"]
    guess, total = result.facts["estimate"], result.bill.total_joules
    assert total is not None
    # With half as much on either side: other work on the machine makes the same arithmetic dearer.
    assert guess["low_joules"] / 1.5 <= total <= guess["high_joules"] * 1.5


def test_the_process_of_a_command_ends_with_all_that_it_said_and_its_exit_code(tmp_path: Path) -> None:
    said = command("studies")
    assert (said.returncode, said.stderr) == (0, "")
    assert "digits" in said.stdout
    wrong = command("front", tmp_path / "nowhere")
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("error: ")
    with Path("/dev/full").open("w") as full:  # what could not be written is an error, too
        assert command("studies", stdout=full).returncode not in (0, 2)


def test_the_module_is_the_command() -> None:
    words = [sys.executable, "-m", "joulefront.search.cli", "front", "nowhere"]  # no library is loaded for this mistake
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "nowhere" in done.stderr
