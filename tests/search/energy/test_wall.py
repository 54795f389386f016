"""The wall meter: plugs on the loopback, files that grow, functions; gaps are never zeros, and it is never added."""

import json
import os
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from helpers.wall import NANO, Clock

from joulefront.search.energy import Ledger
from joulefront.search.energy.sources.source import Capability, Reading
from joulefront.search.energy.sources.wall import CsvTail, Sample, Wall, from_spec, http_plug, open_wall, parse_plug

SHELLY = {"id": 0, "output": True, "apower": 84.3, "voltage": 231.2, "aenergy": {"total": 1234.567, "by_minute": [1.0], "minute_ts": 1}}
TASMOTA = {"StatusSNS": {"Time": "2024-01-01T00:00:00", "ENERGY": {"Total": 3.185, "Today": 0.123, "Power": 84, "Voltage": 230}}}


class Other:
    """A second source that counts, so that adding the wall would show."""

    name = "nvml"

    def __init__(self, clock, watts=100.0):
        self.clock, self.watts = clock, watts

    def probe(self):
        return (Capability("gpu:0", "nvml", True, tick_seconds=0.0),)

    def read(self):
        return (Reading("gpu:0", self.clock(), 0, self.watts * self.clock() / NANO),)

    def close(self):
        pass


@pytest.fixture(autouse=True)
def no_thread_of_another_test():
    """A thread that a plug of an earlier test kept waiting ends with its answer."""
    for thread in threading.enumerate():
        if thread.name == "joulefront-wall":
            thread.join(30.0)


@pytest.fixture
def plug():
    """A plug on the loopback; `reply`, `status` and `delay` may be set, and it answers only while it `may_answer`."""

    class Plug:
        reply, status, delay, asked, may_answer = dict(SHELLY), 200, 0.0, 0, threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            Plug.asked += 1
            time.sleep(Plug.delay)
            Plug.may_answer.wait(60)
            self.send_response(Plug.status)
            self.end_headers()
            body = Plug.reply if isinstance(Plug.reply, str) else json.dumps(Plug.reply)
            with suppress(OSError):  # the reader gave up, as it should
                self.wfile.write(body.encode())

        def log_message(self, *args):
            pass

    Plug.may_answer.set()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    Plug.url = f"http://127.0.0.1:{server.server_port}/rpc/Switch.GetStatus?id=0"
    yield Plug
    server.shutdown()
    thread.join()
    server.server_close()


def test_shelly_and_tasmota_are_read_in_their_own_units():
    shelly = parse_plug(json.dumps(SHELLY))
    assert (shelly.watts, shelly.joules, shelly.step_joules) == (84.3, pytest.approx(1234.567 * 3600), pytest.approx(3.6))
    nested = parse_plug(json.dumps({"sys": {"uptime": 1}, "switch:0": SHELLY}))
    assert nested == shelly
    tasmota = parse_plug(json.dumps(TASMOTA))
    assert (tasmota.watts, tasmota.joules, tasmota.step_joules) == (84.0, pytest.approx(3.185 * 3.6e6), pytest.approx(3600))
    fine = parse_plug('{"ENERGY": {"Total": 3.18512, "Power": 84}}')
    assert fine.step_joules == pytest.approx(36)


@pytest.mark.parametrize(
    "text", ["[]", "{}", '{"apower": null}', '{"apower": "84"}', '{"apower": true}', '{"StatusSNS": {"ENERGY": {}}}', "no json"]
)
def test_what_is_no_measurement_is_refused(text):
    with pytest.raises(ValueError):  # noqa: PT011  json's own message is one of them
        parse_plug(text)


def test_a_plug_over_http_counts_and_shows_power(plug):
    wall = open_wall(plug.url, poll_seconds=0.01)
    (found,) = wall.probe()
    assert (found.component, found.available, found.counts, found.quality) == ("wall", True, False, "measured")
    assert found.resolution_joules == pytest.approx(3.6)
    assert wall.probe() == (found,)
    assert plug.asked == 1  # asked again, it does not bother the plug
    (first,) = wall.read()
    assert (first.watts, first.counter_joules) == (84.3, pytest.approx(1234.567 * 3600))
    wall.close()


def test_reading_never_waits_for_the_plug_and_nothing_is_left_behind(plug):
    before = set(threading.enumerate())
    wall = Wall(http_plug(plug.url, timeout_seconds=30.0), plug.url, poll_seconds=0.01)
    wall.probe()
    plug.may_answer.clear()
    first = wall.read()
    asked = time.perf_counter()
    assert wall.read() == first  # said again; the plug is still thinking
    assert time.perf_counter() - asked < 20.0
    plug.may_answer.set()
    wall.close()
    wall.close()
    assert not [thread for thread in set(threading.enumerate()) - before if thread.name == "joulefront-wall"]
    wall.read()  # closed: what was pending, and no new thread
    assert not [thread for thread in threading.enumerate() if thread.name == "joulefront-wall"]


@pytest.mark.parametrize(
    ("status", "reply", "delay", "word"),
    [
        (200, SHELLY, 0.3, "timed out"),
        (500, SHELLY, 0.0, "500"),
        (200, "<html>", 0.0, "Expecting value"),
        (200, {"apower": -3.0}, 0.0, "reversed"),
    ],
)
def test_every_failure_of_a_plug_is_a_reason_and_never_a_number(plug, status, reply, delay, word):
    plug.status, plug.reply, plug.delay = status, reply, delay
    wall = Wall(http_plug(plug.url, timeout_seconds=0.1 if delay else 10.0), plug.url, poll_seconds=None)
    (found,) = wall.probe()
    assert not found.available
    assert word in found.reason
    assert found.remedy
    (reading,) = wall.read()
    assert (reading.watts, reading.counter_joules) == (None, None)
    assert word in reading.error


def test_a_plug_that_is_not_there_is_absent_with_a_remedy():
    (found,) = open_wall("http://127.0.0.1:9/", timeout_seconds=0.5).probe()
    assert not found.available
    assert "127.0.0.1:9" in found.remedy


def test_timeouts_in_the_middle_are_a_gap_and_not_zero_power():
    clock = Clock()
    state = {"up": True}

    def meter():
        if not state["up"]:
            raise TimeoutError("timed out")
        return (Sample(watts=100.0),)

    wall = Wall(meter, poll_seconds=None, clock=clock)
    with Ledger([wall], interval_seconds=None, clock=clock) as ledger:
        window = ledger.open("w")
        for second in range(20):
            state["up"] = not 5 <= second < 15
            clock.advance(1)
            ledger.sample()
        part = window.close().component("wall")
    assert part.joules == pytest.approx(2000, rel=1e-6)  # bridged at the power around it, with the doubt that this deserves
    assert part.gap_seconds == pytest.approx(11, abs=1.1)
    assert part.u_random_joules > 100
    assert "timed out" in part.reason


def test_the_wall_is_beside_the_sum_and_never_in_it():
    clock = Clock()
    wall = Wall(lambda: (Sample(watts=250.0),), poll_seconds=None, clock=clock)
    with Ledger([Other(clock), wall], interval_seconds=None, clock=clock) as ledger:
        window = ledger.open("w")
        for _ in range(100):
            clock.advance(0.1)
            ledger.sample()
        record = window.close()
    assert record.joules == pytest.approx(1000)
    assert record.component("wall").joules == pytest.approx(2500)
    assert record.component("wall").counts is False
    assert record.coverage == ("gpu",)


def test_a_coarse_counter_gives_way_to_integrated_power():
    # Tasmota's three decimals of a kWh: 3.6 kJ steps would call this 8 kJ window 7.2 or 10.8 kJ.
    clock = Clock()

    def meter():
        total = 3.0 + 80.0 * (clock() / NANO) / 3.6e6
        return (parse_plug(json.dumps({"ENERGY": {"Total": round(total, 3), "Power": 80}})),)

    wall = Wall(meter, poll_seconds=None, clock=clock)
    with Ledger([wall], interval_seconds=None, clock=clock) as ledger:
        assert wall.use_counter is False
        window = ledger.open("w")
        for _ in range(100):
            clock.advance(1)
            ledger.sample()
        part = window.close().component("wall")
    assert part.joules == pytest.approx(8000, rel=1e-9)


def test_a_fine_counter_is_trusted_over_sparse_power():
    # The power is looked at once in 10 s and always misses the peak; the counter has it all.
    clock = Clock()

    def joules():
        seconds = clock() / NANO
        return 50.0 * seconds + 1000.0 * int(seconds / 10)

    wall = Wall(lambda: (Sample(watts=150.0, joules=joules(), step_joules=3.6),), poll_seconds=None, clock=clock)
    with Ledger([wall], interval_seconds=None, clock=clock) as ledger:
        window = ledger.open("w")
        begin = joules()
        for _ in range(60):
            clock.advance(1)
            ledger.sample()
        part = window.close().component("wall")
    assert part.joules == pytest.approx(joules() - begin, abs=1100)
    assert wall.use_counter is True


def test_any_function_is_a_meter_and_its_failure_is_a_reason():
    wall = open_wall(lambda: 42.0)
    wall.probe()
    assert wall.read()[0].watts == 42.0
    wall.close()

    def broken():
        raise RuntimeError("unplugged")

    (found,) = open_wall(broken).probe()
    assert "unplugged" in found.reason


@pytest.mark.parametrize("target", ["", "ftp://plug/x"])
def test_a_target_that_is_nothing_is_a_user_error(target):
    with pytest.raises(ValueError, match="wall"):
        from_spec(target)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_reads_nothing_and_starts_no_thread():
    wall = open_wall(lambda: 1.0)
    wall.probe()
    wall.read()
    child = os.fork()
    if child == 0:
        quiet = wall.read() == () and threading.active_count() == 1
        wall.close()
        os._exit(0 if quiet else 1)
    _, status = os.waitpid(child, 0)
    wall.close()
    assert os.waitstatus_to_exitcode(status) == 0


@pytest.mark.slow
def test_a_slow_meter_under_a_fast_ledger_is_no_failure(plug):
    plug.reply = {"apower": 84.3}
    wall = open_wall(plug.url, poll_seconds=0.2)
    with Ledger([wall], interval_seconds=0.02) as ledger:
        time.sleep(0.3)
        with ledger.window("w") as window:
            time.sleep(0.5)
        time.sleep(0.3)
        part = window.record.component("wall")
    assert part.reason is None
    assert part.gap_seconds == 0.0
    assert part.joules == pytest.approx(84.3 * window.record.seconds, rel=1e-6)


class Hung:
    """A meter that answers so often, and then hangs until it is let go."""

    def __init__(self, answers=1):
        self.answers, self.let_go = answers, threading.Event()

    def __call__(self):
        if self.answers == 0:
            self.let_go.wait(30)
        self.answers -= 1
        return 50.0


@pytest.mark.slow
def test_closing_a_meter_that_hangs_returns_within_seconds():
    hung = Hung()
    ledger = Ledger([open_wall(hung, poll_seconds=0.01)], interval_seconds=0.02).start()
    time.sleep(0.1)  # it hangs by now
    begin = time.monotonic()
    ledger.stop()
    assert time.monotonic() - begin < 10
    hung.let_go.set()


def test_a_meter_that_hangs_at_its_first_answer_is_absent_with_a_reason(monkeypatch):
    monkeypatch.setattr("joulefront.search.energy.sources.wall.FIRST_SECONDS", 0.1)
    hung = Hung(answers=0)
    (found,) = open_wall(hung).probe()
    hung.let_go.set()
    assert not found.available
    assert "no answer within" in found.reason


def test_a_plug_that_sends_a_byte_now_and_then_is_given_up(plug):
    import socket

    server = socket.create_server(("127.0.0.1", 0))
    done = threading.Event()

    def drip():
        one, _ = server.accept()
        with one, suppress(OSError):
            one.recv(4096)
            one.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
            while not done.is_set():
                one.sendall(b" ")
                time.sleep(0.02)

    thread = threading.Thread(target=drip)
    thread.start()
    ask = http_plug(f"http://127.0.0.1:{server.getsockname()[1]}/", timeout_seconds=0.2)
    begin = time.monotonic()
    with pytest.raises(TimeoutError, match="no whole answer within"):
        ask()
    assert time.monotonic() - begin < 5
    done.set()
    thread.join()
    server.close()


@pytest.mark.slow
def test_a_second_ledger_may_use_the_meter_of_the_first(plug, tmp_path):
    plug.reply = {"apower": 84.3}
    path = tmp_path / "wall.csv"
    path.write_text("watts\n70\n")
    csv = Wall(CsvTail(path), str(path), poll_seconds=None)
    for wall, watts in ((open_wall(lambda: 42.0, poll_seconds=0.02), 42.0), (open_wall(plug.url, poll_seconds=0.02), 84.3), (csv, 70.0)):
        for life in range(2):
            with Ledger([wall], interval_seconds=0.02) as ledger, ledger.window("w") as window:
                for _ in range(10):
                    time.sleep(0.02)
                    with path.open("a") as file:
                        file.write("70\n")
            part = window.record.component("wall")
            assert part.reads >= 3, (wall.target, life)
            assert part.joules == pytest.approx(watts * window.record.seconds, rel=1e-3)
            with path.open("a") as file:
                file.write("9000\n9000\n70\n")  # between two lives: nobody's
    assert not [thread for thread in threading.enumerate() if thread.name == "joulefront-wall"]
