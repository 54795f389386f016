"""Forks, kills, exceptions and many lives: no deadlock, no leaked thread or file, no socket, no stray file."""

from __future__ import annotations

import gc
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from joulefront.search.energy import Ledger, discover
from joulefront.search.energy.journal import lines
from joulefront.search.energy.sources.cpu_time import CpuTime
from joulefront.search.energy.sources.nvml import Nvml

pytestmark = pytest.mark.slow


def files():
    return len(os.listdir("/proc/self/fd"))


def wait_for(child, seconds=20.0):
    """Wait for a forked child; a child that hangs is a failure, not a hanging test."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.0005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "hung"


FORKS = textwrap.dedent(
    """
    import ctypes, os, signal, sys, time
    from pathlib import Path
    import pynvml
    from joulefront.search.energy import Ledger
    from joulefront.search.energy.sources.cpu_time import CpuTime
    from joulefront.search.energy.sources.nvml import Nvml

    pynvml.nvmlLib = ctypes.CDLL(sys.argv[1])
    pynvml.nvmlLib.fake_reset(1)
    pynvml.nvmlLib.fake_run.argtypes = [ctypes.c_double]
    pynvml.nvmlLib.fake_run(1.0)
    with Ledger([Nvml(environment={}), CpuTime()], interval_seconds=0.001, file=Path(sys.argv[2])) as ledger:
        window = ledger.open("trial")
        for number in range(400):
            child = os.fork()
            if child == 0:
                signal.alarm(20)  # a child that hangs dies of this, and its status says so
                if number % 50:
                    os._exit(0 if window.joules() is None else 3)
                # A child may use what it inherited: it is told that nothing is measured there.
                record = ledger.open("child").close()
                told = record.joules is None and "forked" in record.components[0].reason and ledger.total().joules is None
                os._exit(0 if told else 2)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, number
        assert window.close().joules > 0
    print("done")
    """
)


def test_hundreds_of_forks_while_sampling_do_not_hang(driver_path, tmp_path):
    file = tmp_path / "ledger.jsonl"
    found = subprocess.run([sys.executable, "-c", FORKS, str(driver_path), str(file)], capture_output=True, text=True, timeout=120)
    assert found.stdout == "done\n", found.stderr
    events = [line["event"] for line in lines(file) if line["event"] != "beat"]
    assert events == ["start", "open", "close", "stop"]


def test_a_child_that_leaves_the_with_block_does_not_end_the_parents_ledger(tmp_path):
    with Ledger([CpuTime()], file=tmp_path / "ledger.jsonl") as ledger:
        child = os.fork()
        if child == 0:
            try:
                ledger.stop()
                with pytest.raises(RuntimeError):
                    Ledger([CpuTime()]).open("x")
            finally:
                os._exit(0)
        assert wait_for(child) == 0
        with ledger.window("trial") as window:
            sum(range(10**6))
    assert window.record.joules > 0
    assert [line["event"] for line in lines(tmp_path / "ledger.jsonl")] == ["start", "open", "close", "stop"]


def test_a_hundred_lives_leave_nothing_behind(driver, tmp_path, monkeypatch):
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("a socket was opened"))
    monkeypatch.chdir(tmp_path)
    driver.run(1.0)
    with Ledger([Nvml(environment={}), CpuTime()]):
        pass  # what is loaded once is loaded now
    gc.collect()  # the database of a fixture is closed before files are counted, not among the hundred lives
    threads, before = threading.active_count(), files()
    for _ in range(100):
        found = discover("auto", powercap=tmp_path)
        with Ledger(found.sources, absent=found.absent, interval_seconds=0.01) as ledger, ledger.window("trial"):
            pass
    assert threading.active_count() == threads
    assert files() == before
    assert list(tmp_path.iterdir()) == []


def test_the_thread_is_a_daemon_with_a_name_and_there_is_one(tmp_path):
    with Ledger([CpuTime()]) as ledger:
        windows = [ledger.open(str(number)) for number in range(10)]
        names = [(thread.name, thread.daemon) for thread in threading.enumerate() if thread.name.startswith("joulefront")]
        assert names == [("joulefront-energy", True)]
        for window in windows:
            window.close()


def test_a_source_that_raises_does_not_end_the_thread(scripted, tmp_path):
    from joulefront.search.energy import Capability

    broken = scripted((Capability("soc", "broken", True),), time.monotonic_ns, fails=ValueError("boom"), name="broken")
    with Ledger([broken, CpuTime()], interval_seconds=0.01) as ledger:
        time.sleep(0.1)
        with ledger.window("trial") as window:
            time.sleep(0.1)
    record = window.record
    assert record.component("soc").joules is None
    assert "boom" in record.component("soc").reason
    assert record.component("cpu").joules is not None
    assert record.component("cpu").reads >= 4


def test_a_source_that_fails_at_its_probe_or_its_end_is_on_record_and_hides_nothing(scripted, clock):
    class Rude:
        name = "rude"

        def probe(self):
            raise OSError("no such bus")

        def read(self):
            return ()

        def close(self):
            raise OSError("busy")

    def work():
        with ledger, ledger.window("trial"):
            raise ZeroDivisionError

    ledger = Ledger([Rude()], interval_seconds=None, clock=clock)
    with pytest.raises(ZeroDivisionError):
        work()
    assert "no such bus" in ledger.total().component("rude").reason


def test_every_source_serves_a_second_ledger_after_the_first(driver, powercap):
    from joulefront.search.energy.sources.rapl import Rapl

    powercap.zone("intel-rapl:0", "package-0", uj=10**9)
    driver.run(1.0)
    for source in (Nvml(environment={}), Rapl(powercap.root), CpuTime()):
        for life in range(2):
            with Ledger([source], interval_seconds=0.01) as ledger:
                with ledger.window("trial") as window:
                    time.sleep(0.2)
                assert [part.reads >= 5 for part in window.record.components] == [True], (source.name, life)


def test_a_full_disk_does_not_end_the_measuring(monkeypatch, tmp_path):
    ledger = Ledger([CpuTime()], interval_seconds=0.01, checkpoint_seconds=0.02, file=tmp_path / "ledger.jsonl").start()
    original = os.write

    def full(fd, data):
        if threading.current_thread().name == "joulefront-energy":
            raise OSError(28, "No space left on device")
        return original(fd, data)

    monkeypatch.setattr(os, "write", full)
    time.sleep(0.15)
    with ledger.window("trial") as window:
        time.sleep(0.1)
    ledger.stop()
    assert window.record.component("cpu").reads >= 3


KILLED = textwrap.dedent(
    """
    import sys, time
    from pathlib import Path
    from joulefront.search.energy import Ledger
    from joulefront.search.energy.sources.cpu_time import CpuTime

    with Ledger([CpuTime()], file=Path(sys.argv[1]), checkpoint_seconds=0.5) as ledger:
        ledger.open("done").close()
        window = ledger.open("trial 1")
        print("open", flush=True)
        while True:
            sum(range(10_000))
    """
)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_process_loses_at_most_one_beat(tmp_path, how):
    file = tmp_path / "ledger.jsonl"
    victim = subprocess.Popen([sys.executable, "-c", KILLED, str(file)], stdout=subprocess.PIPE, text=True)
    assert victim.stdout.readline() == "open\n"
    begin = time.monotonic()
    time.sleep(1.8)
    victim.send_signal(how)
    victim.wait()
    lived = time.monotonic() - begin
    found = list(lines(file))
    assert [line["record"]["name"] for line in found if line["event"] == "close"] == ["done"]
    last = [line for line in found if line["event"] == "beat"][-1]
    (opened,) = (line["record"] for line in found if line["event"] == "open" and line["record"]["name"] == "trial 1")
    (window,) = last["open"]
    assert window["id"] == opened["id"]
    assert window["known_joules"] > 0
    assert lived - 1.5 <= (last["t_ns"] - opened["t0_ns"]) / 1e9 <= lived + 0.5


def test_importing_brings_nothing_heavy():
    code = (
        "import sys, joulefront.search.energy; "
        "heavy = {'torch', 'numpy', 'pandas', 'codecarbon', 'pynvml', 'optuna', 'psutil'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
