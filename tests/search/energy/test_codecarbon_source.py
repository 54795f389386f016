"""CodeCarbon as a cross-check: one tracker, nothing written, nothing connected, never in a sum of measurements."""

import os
import socket
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest

from joulefront.search.energy import Ledger, discover
from joulefront.search.energy.sources.codecarbon import CodeCarbon, from_spec

pytestmark = pytest.mark.slow

pytest.importorskip("codecarbon")


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    """One real tracker for the module: its start takes a second."""
    folder = tmp_path_factory.mktemp("codecarbon")
    before, here = set(threading.enumerate()), os.getcwd()
    os.chdir(folder)
    sockets = []
    real = socket.socket.connect

    def connect(self, address, *rest):
        sockets.append(address)
        return real(self, address, *rest)

    socket.socket.connect = connect
    try:
        source = CodeCarbon()
        found = source.probe()
        again = source.probe()
        readings = list(source.read())
        time.sleep(1.6)
        readings += source.read()
        source.close()
        readings += source.read()
        source.close()
    finally:
        socket.socket.connect = real
        os.chdir(here)
    until = time.monotonic() + 3
    while set(threading.enumerate()) - before and time.monotonic() < until:
        time.sleep(0.05)
    leaked = set(threading.enumerate()) - before
    return SimpleNamespace(found=found, again=again, readings=readings, sockets=sockets, files=list(folder.iterdir()), leaked=leaked)


def test_it_is_an_estimate_whose_memory_guess_never_counts(session):
    by_name = {item.component: item for item in session.found}
    assert {item.quality for item in session.found} == {"estimated"}
    assert by_name["cpu:codecarbon"].counts
    assert not by_name["ram:codecarbon"].counts
    assert session.again == session.found


def test_its_totals_arrive_as_counters_that_grow(session):
    cpu = [reading for reading in session.readings if reading.component == "cpu:codecarbon"]
    assert len(cpu) >= 3
    assert all(reading.error is None for reading in session.readings)
    joules = [reading.counter_joules for reading in cpu]
    assert joules == sorted(joules)
    assert joules[-1] > joules[0]
    times = [reading.t_ns for reading in cpu]
    assert times == sorted(times)


def test_no_file_no_connection_no_thread_is_left(session):
    assert session.files == []
    assert session.sockets == []
    assert session.leaked == set()


def test_it_says_nothing_on_the_way():
    # In a process of its own: CodeCarbon sets its handlers up at the first use.
    code = "from joulefront.search.energy.sources.codecarbon import CodeCarbon as C; s = C(); assert s.probe(); s.close()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


def test_beside_another_source_it_is_a_cross_check_and_is_not_added():
    found = discover("cpu_time,codecarbon")
    with Ledger(found.sources, absent=found.absent) as ledger, ledger.window("w") as window:
        time.sleep(1.3)
    record = window.record
    assert record.component("cpu:codecarbon").counts is False
    assert record.joules == record.component("cpu").joules


def test_settings_from_the_surroundings_open_no_door(monkeypatch):
    monkeypatch.setenv("CODECARBON_EMISSIONS_ENDPOINT", "http://127.0.0.1:9/")
    monkeypatch.setenv("CODECARBON_SAVE_TO_API", "true")
    monkeypatch.setenv("CODECARBON_PUE", "3")
    monkeypatch.setenv("CODECARBON_ELECTRICITYMAPS_API_TOKEN", "secret")
    source = CodeCarbon("FRA")
    source.probe()
    try:
        assert [handler.live_out for handler in source.tracker._output_handlers] == [source._take]
        assert source.tracker._pue == 1.0
        assert source.tracker._electricitymaps_api_token is None
    finally:
        source.close()


def test_fast_polling_is_refused_since_it_loses_energy():
    with pytest.raises(ValueError, match=">= 1"):
        CodeCarbon(poll_seconds=0.05)


def test_totals_without_a_part_are_an_error_and_not_a_zero():
    source = from_spec(None)
    source._take(SimpleNamespace(ram_energy=1e-6, gpu_count=None))
    readings = {reading.component: reading for reading in source.read()}
    assert readings["cpu:codecarbon"].counter_joules is None
    assert "no cpu_energy" in readings["cpu:codecarbon"].error
    assert readings["ram:codecarbon"].counter_joules == pytest.approx(3.6)
    assert "gpu:codecarbon" not in readings


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_leaves_the_tracker_alone():
    source = CodeCarbon()
    source.probe()
    child = os.fork()
    if child == 0:
        quiet = source.read() == ()
        source.close()
        os._exit(0 if quiet else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert source.tracker is not None
    source.close()
