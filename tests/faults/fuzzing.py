"""Damaged inputs, and how each may end: in success or in one line of our own, never in a hang.

200 inputs by default, ``JOULEFRONT_FUZZ=5000`` for the long form; the counts are printed at the end, see README.md in this folder.
"""

import contextlib
import io
import linecache
import os
import signal
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from joulefront.search.cli import one_line

#: Inputs of all properties together, the most CPU-seconds that one may take, and the longest that it may wait on a busy machine.
INPUTS = int(os.environ.get("JOULEFRONT_FUZZ", "200"))
SECONDS, WAITING_SECONDS = 30, 600
ROOT = Path(__file__).parents[2]
TALLY: dict[str, Counter[str]] = {}
NASTY = [
    None, True, 0, -1, 3, 0.5, 1e308, 5e-324, float("nan"), float("inf"), 2**63, 10**400, "", "x", "3", "\x1b[31m", "$a_{b^$", "../../x",
    "\ud800", "é" * 300, "0" * 5000, "os:system", "nan", "1e999", "-inf", [], {}, [[]], [None], {"": None}, {"a": {"b": [1]}},
]  # fmt: skip
VALUE = st.sampled_from(NASTY) | st.integers() | st.floats() | st.text(max_size=8) | st.lists(st.sampled_from(NASTY), max_size=3)


class Hang(BaseException):
    """Nothing of ours catches it."""


class Reached(Exception):  # noqa: N818 - no error: the options were accepted
    """Where a verb would begin to work."""


def fuzz(share: float) -> Callable[[Any], Any]:
    """Settings of a property that gets a share of all inputs; the short form draws the same ones every time."""
    return settings(
        max_examples=max(5, int(share * INPUTS)),
        deadline=None,
        database=None,
        derandomize=INPUTS <= 200,
        suppress_health_check=list(HealthCheck),
        print_blob=False,
    )


def ends_well(name: str, work: Callable[[], Any]) -> None:
    """Do it; count how it ended; fail when it hung, or ended in an error that was not written for a user."""
    tally = TALLY.setdefault(name, Counter())
    tally["inputs"] += 1

    def hang(*_: Any) -> None:
        raise Hang(f"{name}: more than {SECONDS} s of CPU time, or {WAITING_SECONDS} s")

    before = [signal.signal(number, hang) for number in (signal.SIGPROF, signal.SIGALRM)]
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    signal.alarm(WAITING_SECONDS)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            work()
        tally["accepted"] += 1
    except Reached:
        tally["accepted"] += 1
    except Exception as error:
        if not is_ours(error):
            tally["raw errors"] += 1
            raise
        tally["refused in one line"] += 1
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.alarm(0)
        for number, handler in zip((signal.SIGPROF, signal.SIGALRM), before, strict=True):
            signal.signal(number, handler)


def is_ours(error: Exception) -> bool:
    """Whether the error was raised by a `raise` of ours or by the parser of options, or names the path that cannot be used."""
    line = one_line(error)
    if "--debug" in line or "\n" in line or not line.isprintable():
        return False
    if hasattr(error, "format_message") or (isinstance(error, OSError) and error.filename is not None):
        return True
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    assert trace is not None
    file = Path(trace.tb_frame.f_code.co_filename).resolve()
    return file.is_relative_to(ROOT) and linecache.getline(str(file), trace.tb_lineno).strip().startswith("raise")


@st.composite
def cut(draw: st.DrawFn, data: bytes) -> bytes:
    """Flip, drop or repeat a few bytes, or end early."""
    found = bytearray(data)
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, max(0, len(found) - 1)))
        found[at : at + draw(st.integers(0, 4))] = draw(st.binary(max_size=6))
    return bytes(found[: draw(st.integers(0, len(found)))] if draw(st.integers(0, 3)) == 0 else found)
