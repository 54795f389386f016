"""What a running study shows: a bar that fits a terminal, few lines in a log, nothing with --quiet."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest

from joulefront.search.running.progress import Console, Progress

KNOWN = {"joules": 3.6, "budget_joules": 36.0, "trial_limit": 40, "best": 0.93, "hypervolume": 0.4, "seconds": 9.0, "seconds_left": 81.0}
STATE = Progress("trial", trials=3, front=2, decimals=2, **KNOWN)  # type: ignore[arg-type]


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def shown(stream: io.StringIO, console: Console, count: int = 40) -> str:
    console(Progress("start", message="rings: in runs/rings"))
    for number in range(count):
        console(replace(STATE, trials=number, hypervolume=0.4, message=f"trial {number}: accuracy 0.9300 after 3 epochs, 2 mWh"))
    console(Progress("detail", message="raised the hypervolume"))
    console(replace(STATE, event="end", trials=40, message="ended: all 40 trials are done"))
    console(replace(STATE, event="end", trials=40, message=""))
    return stream.getvalue()


def test_a_log_has_a_line_for_an_improvement_and_not_for_every_trial() -> None:
    stream = io.StringIO()
    lines = shown(stream, Console(stream)).splitlines()
    assert len(lines) == 4
    assert lines[1].startswith("trial 0: accuracy 0.9300 after 3 epochs, 2 mWh · trials 0/40 · 1 of 10 mWh · best accuracy 0.93 · front 2")
    assert lines[2].startswith("trials 40/40")
    assert lines[3] == "ended: all 40 trials are done"
    assert "hypervolume" not in "".join(lines)


def test_a_log_says_a_reason_of_failures_once_and_something_after_ten_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("joulefront.search.running.progress.time.monotonic", lambda: now[0])
    stream = io.StringIO()
    console = Console(stream)
    for number in range(25):
        now[0] += 1.0
        console(replace(STATE, trials=number, hypervolume=None, message=f"trial {number} failed: the loss became nan"))
    lines = stream.getvalue().splitlines()
    assert 2 <= len(lines) <= 4
    assert "trial 0 failed: the loss became nan" in lines[0]


@pytest.mark.parametrize("columns", [40, 80, 160])
def test_the_bar_of_a_terminal_keeps_to_its_one_line(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    text = shown(stream, Console(stream))
    plain = text.replace("\x1b[2K", "\r").replace("\x1b[1A", "\r")
    pieces = [__import__("re").sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", piece) for piece in plain.replace("\n", "\r").split("\r")]
    assert max(map(len, pieces)) <= columns
    assert any("trials 39/40" in piece for piece in pieces)
    assert text.count("\n") <= 4


def test_whatever_ends_a_study_the_cursor_is_shown_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()

    def broken_off() -> None:
        with Console(stream) as console:
            console(Progress("start", message="rings: in runs/rings"))
            assert "\x1b[?25l" in stream.getvalue()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        broken_off()
    assert stream.getvalue().rfind("\x1b[?25h") > stream.getvalue().rfind("\x1b[?25l")


def test_quiet_says_warnings_alone_and_verbose_hypervolumes() -> None:
    silent = io.StringIO()
    console = Console(silent, silent=True)
    shown(silent, console)
    console(Progress("warning", message="warning: trial 3 is trained from scratch"))
    assert silent.getvalue() == "warning: trial 3 is trained from scratch\n"
    loud = io.StringIO()
    said = shown(loud, Console(loud, verbose=True))
    assert "hypervolume 0.400" in said
    assert "raised the hypervolume" in said


def test_quiet_says_in_one_line_at_the_end_how_many_trials_failed_and_why() -> None:
    stream = io.StringIO()
    console = Console(stream, silent=True)
    for number, reason in enumerate(["the loss became nan", "out of memory", "the loss became nan"]):
        console(replace(STATE, trials=number, message=f"trial {number} failed: {reason}"))
    assert stream.getvalue() == ""
    shown(stream, console)
    assert stream.getvalue() == "3 of 40 trials failed: the loss became nan (2 times)\n"
