"""What a terminal shows of a study: pyte draws the screens of a child with a terminal of its own, as wide as the test says."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import struct
import sys
import termios
import warnings
from collections.abc import Callable
from dataclasses import replace
from time import sleep

import pyte
import pytest

from joulefront.search.cli import main
from joulefront.search.running.progress import Console, Progress, progress_line

STATE = Progress(
    "trial", joules=3.6, budget_joules=36.0, trial_limit=40, best=0.93, front=2, decimals=2, hypervolume=0.4, seconds=9.0, seconds_left=81.0
)
ROWS, TRIALS = 30, 12
END = "ended: all 40 trials are done"


class Screen(pyte.HistoryScreen):
    """A screen that knows how many lines of a bar it has shown at once, at most, and its longest line."""

    bars = 0
    last = ""

    def look(self) -> None:
        """Take note of the bar, if there is one now."""
        shown = [line.rstrip() for line in self.display if re.search(r" trials \d", line) and "ended" not in line]
        self.bars, self.last = max(self.bars, len(shown)), shown[-1] if shown else self.last

    def text(self) -> list[str]:
        """Everything that it shows and what has left it above."""
        left = ["".join(line[place].data for place in range(self.columns)) for line in self.history.top]
        return [line.rstrip() for line in (*left, *self.display) if line.strip()]


def screen(columns: int, scenario: Callable[[], None], press_at: str = "", **environment: str) -> Screen:
    """Run a scenario in a forked child whose terminal has so many columns, look at the screen after every piece of its output.

    Ctrl-C is pressed, and echoed, once the bar has the text ``press_at``.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # a child with one thread of many: it only prints
        child, terminal = pty.fork()
    if child == 0:
        try:
            fcntl.ioctl(2, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, columns, 0, 0))
            signal.signal(signal.SIGINT, signal.default_int_handler)
            for name in ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR"):
                os.environ.pop(name, None)
            os.environ |= {"TERM": "xterm", **environment}
            sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
            scenario()
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(0)
    found = Screen(columns, ROWS, history=1000)
    stream = pyte.ByteStream(found)
    while True:
        try:
            piece = os.read(terminal, 4096)
        except OSError:  # the child has closed its end
            break
        if not piece:
            break
        stream.feed(piece)
        found.look()
        if press_at and press_at in found.last:
            os.write(terminal, b"\x03")
            press_at = ""
    os.close(terminal)
    os.waitpid(child, 0)
    return found


def study(console: Console, wait_seconds: float = 0.05) -> None:
    """A study of some trials with a warning and a failure in between."""
    with console:
        console(Progress("start", message="rings: in runs/rings on cpu"))
        for number in range(TRIALS):
            sleep(0.01)  # the bar of rich is drawn by a thread, and each of these pieces is looked at
            console(replace(STATE, trials=number, message=f"trial {number}: accuracy 0.9300 after 3 epochs, 2 mWh"))
            if number == 5:
                console(Progress("warning", message="warning: trial 5 is trained from scratch: its checkpoint is lost, " + "word " * 20))
                console(replace(STATE, trials=number, failed=1, message="trial 5 failed: the loss became nan"))
        sleep(wait_seconds)
        console(replace(STATE, event="end", trials=40, message=END))


def of_study(**settings: bool) -> Callable[[], None]:
    return lambda: study(Console(sys.stderr, **settings))


@pytest.mark.parametrize("columns", [20, 39, 80, 160])
def test_one_line_lives_at_any_width_and_nothing_of_it_is_left(columns: int) -> None:
    found = screen(columns, of_study())
    assert found.bars == 1
    assert "trials 11/40" in found.last
    text = found.text()
    flat = " ".join(" ".join(text).split())
    assert flat.startswith("rings: in runs/rings on cpu warning: trial 5")
    assert flat.endswith(END)
    assert "━" not in flat
    assert "trial 5 failed: the loss became nan" in flat
    assert not found.cursor.hidden


@pytest.mark.parametrize("columns", [39, 80, 160])
def test_ctrl_c_leaves_no_bar_and_a_cursor(columns: int) -> None:
    def broken_off() -> None:
        try:
            study(Console(sys.stderr), wait_seconds=60.0)
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)

    found = screen(columns, broken_off, press_at="trials 11/40")
    assert found.bars == 1
    assert found.text()[-1] == "interrupted"
    assert not re.search(r"━|\^C|trials \d", "".join(found.text()))
    assert not found.cursor.hidden


def test_without_colours_the_bar_is_there_and_has_none() -> None:
    found = screen(80, of_study(), NO_COLOR="1")
    assert found.bars == 1
    assert {cell.fg for line in found.buffer.values() for cell in line.values()} <= {"default"}


def test_a_terminal_that_cannot_move_its_cursor_gets_the_lines_of_a_log() -> None:
    found = screen(80, of_study(), TERM="dumb")
    text = found.text()
    assert not any("━" in line for line in text)
    assert " ".join(text).count("trials 0/40") == 1  # the front improved once
    assert text[-1] == END
    assert len(text) < TRIALS + 2


def test_quiet_shows_the_warning_and_what_failed_alone() -> None:
    found = screen(80, of_study(silent=True))
    assert found.bars == 0
    flat = " ".join(found.text())
    assert flat.startswith("warning: trial 5 is trained from scratch")
    assert flat.endswith("word word 1 of 40 trials failed: the loss became nan")


def test_a_line_that_is_longer_than_the_terminal_is_replaced_as_well() -> None:
    def told() -> None:
        show = progress_line(sys.stderr)
        for number in range(4):
            show(f"probing candidate {number} of 8, which has a very long name")
        show("")

    assert screen(30, told).text() == []


def test_the_list_of_verbs_is_whole_in_80_columns() -> None:
    text = screen(80, lambda: main(["--help"])).text()
    assert "..." not in "".join(text).replace("[ARGS]...", "")
    assert "intervals." in " ".join(text)
