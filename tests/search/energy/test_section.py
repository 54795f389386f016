"""A ledger that is stopped from a signal's handler: at once, or right after the call that the signal interrupted."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from joulefront.search.energy import Capability, Ledger
from joulefront.search.energy.background import Section

STOPPED = textwrap.dedent(
    """
    import os, signal, sys, threading, time
    from joulefront.search.energy import Capability, Ledger, Reading

    class Slow:
        name = "slow"
        armed = False
        def probe(self):
            return (Capability("soc", self.name, True, tick_seconds=0.0),)
        def read(self):
            main = threading.current_thread() is threading.main_thread()
            if self.armed and main:
                Slow.armed = False
                os.kill(os.getpid(), signal.SIGTERM)  # the handler runs here, in the middle of a reading
                time.sleep(0.2)  # meanwhile the thread waits for its turn to read
            now = time.monotonic_ns()
            return (Reading("soc", now, 0, 50.0 * now / 1e9),)
        def close(self):
            print("closed", flush=True)

    ledger = Ledger([Slow()], interval_seconds=0.01).start()
    def handler(*_):
        ledger.stop("stopped")
        print("handled", flush=True)
        if sys.argv[1] == "exit":
            raise SystemExit(7)
    signal.signal(signal.SIGTERM, handler)
    window = ledger.open("trial")
    time.sleep(0.1)
    if sys.argv[1] == "idle":
        os.kill(os.getpid(), signal.SIGTERM)
    else:
        Slow.armed = True
    window.close()
    ledger.stop()
    assert not [thread for thread in threading.enumerate() if thread.name == "joulefront-energy"]
    assert window.record.joules > 0
    print(window.state, flush=True)
    """
)


@pytest.mark.parametrize(
    ("how", "said", "code"),
    [
        ("reading", ["handled", "closed", "ok"], 0),  # the window was being closed as ok, and is
        ("idle", ["closed", "handled", "stopped"], 0),  # nothing was under way
        ("exit", ["handled", "closed"], 7),
    ],
)
def test_a_handler_may_stop_the_ledger_in_the_middle_of_a_reading(how, said, code):
    found = subprocess.run([sys.executable, "-c", STOPPED, how], capture_output=True, text=True, timeout=20)
    assert found.stdout.split() == said, found.stderr
    assert found.returncode == code, found.stderr


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs interval timers")
def test_a_handler_that_comes_at_any_moment_never_hangs_the_ledger(scripted):
    source = scripted((Capability("soc", "scripted", True, tick_seconds=0.0),), time.monotonic_ns, joules=lambda name, t: 50.0 * t)
    before = signal.getsignal(signal.SIGALRM)
    try:
        for number in range(60):
            ledger = Ledger([source], interval_seconds=0.001).start()
            signal.signal(signal.SIGALRM, lambda *_, ledger=ledger: ledger.stop("stopped"))
            signal.setitimer(signal.ITIMER_REAL, 0.001 + number * 0.0002)
            until = time.monotonic() + 5
            while ledger.state == "running" and time.monotonic() < until:
                ledger.sample()
                ledger.total()
            assert ledger.state == "stopped"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert source.closed == 60


def test_what_is_put_off_is_done_once_when_the_outermost_call_ends():
    section, done = Section(), []
    with section:
        with section:
            section.later(lambda: done.append(section.inside))
            assert section.leaving
        assert done == []
    assert done == [False]
    with section:
        pass
    assert done == [False]


def test_another_thread_is_not_inside():
    section, seen = Section(), []
    with section:
        thread = threading.Thread(target=lambda: seen.append(section.inside))
        thread.start()
        thread.join()
        assert section.inside
    assert seen == [False]


def test_what_was_put_off_is_done_after_an_exception_too():
    section, done = Section(), []

    def interrupted():
        with section:
            section.later(lambda: done.append(1))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        interrupted()
    assert done == [1]
