"""Recorded traces come out again to the last bit, and real GPU traces give their trapezoid."""

import json
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from joulefront.search.energy import Ledger
from joulefront.search.energy.sources.replay import Replay, Trace, from_spec, read_traces, save_traces

NANO = 1_000_000_000
TRACES = sorted(Path("../shared/data/delrey2023/traces").glob("*.csv.gz"))
real = pytest.mark.skipif(not TRACES, reason="the traces of del Rey et al. 2023 are not on this machine (../shared/data/delrey2023)")


class Clock:
    def __init__(self, ns=0):
        self.ns = ns

    def __call__(self):
        return self.ns


def trapezoid(trace, start_ns, stop_ns):
    """The slow obvious integral of a power trace between two instants."""
    total = 0.0
    for i in range(len(trace.t_ns) - 1):
        left, right = trace.t_ns[i], trace.t_ns[i + 1]
        a, b = max(left, start_ns), min(right, stop_ns)
        if a < b:
            at = [trace.watts[i] + (trace.watts[i + 1] - trace.watts[i]) * (t - left) / (right - left) for t in (a, b)]
            total += (b - a) / NANO * sum(at) / 2
    return total


@pytest.mark.slow
@given(
    st.lists(st.tuples(st.integers(1, 10**12), st.floats(0, 1e9)), min_size=1, max_size=30),
    st.integers(-(10**15), 10**15),
    st.booleans(),
)
@settings(deadline=None)
def test_a_saved_trace_comes_back_and_plays_bit_exactly(tmp_path_factory, steps, origin, energy):
    times, values, now = [], [], origin
    for step, value in steps:
        now += step
        times.append(now)
        values.append(value)
    values = tuple(values)
    trace = Trace("gpu:0", tuple(times), joules=values if energy else None, watts=None if energy else values)
    path = tmp_path_factory.mktemp("trace") / "trace.json"
    save_traces(path, [trace])
    assert read_traces(path) == (trace,)
    clock = Clock(5)
    source = Replay(read_traces(path), clock=clock)
    readings = list(source.read())
    clock.ns += times[-1] - times[0]
    readings = list(dict.fromkeys([*readings, *source.read()]))
    assert [reading.counter_joules if energy else reading.watts for reading in readings] == list(values)
    assert [reading.t_ns - 5 for reading in readings] == [t - times[0] for t in times]
    assert source.read() == (readings[-1],)  # said again, so that a ledger does not take the end for a failure


def test_a_window_of_a_replayed_counter_is_the_difference_of_its_nodes():
    joules = (0.0, 0.1, 0.30000000000000004, 7.7, 9.123456789012345)
    trace = Trace("cpu:pkg0", tuple(range(0, 5 * NANO, NANO)), joules=joules)
    clock = Clock(100 * NANO)
    with Ledger([Replay([trace], clock=clock)], interval_seconds=None, clock=clock) as ledger:
        clock.ns += NANO
        window = ledger.open("w")
        clock.ns += 3 * NANO
        part = window.close().component("cpu:pkg0")
    assert part.joules == joules[4] - joules[1]
    assert (part.source, part.quality) == ("replay", "measured")


def test_quality_and_boundary_are_those_of_the_recording():
    trace = Trace("cpu", (0, NANO), joules=(0.0, 1.0), quality="estimated", boundary="this process", gain_u=0.5, counts=False)
    (found,) = Replay([trace]).probe()
    assert (found.quality, found.gain_u, found.counts) == ("estimated", 0.5, False)
    assert found.boundary == "this process (replayed)"


@pytest.mark.parametrize(
    ("trace", "match"),
    [
        ({"t_ns": (0, 1)}, "joules or watts"),
        ({"t_ns": (0, 1), "watts": (1.0,)}, "length"),
        ({"t_ns": (1, 1), "watts": (1.0, 2.0)}, "increase"),
    ],
)
def test_broken_traces_are_refused(trace, match):
    with pytest.raises(ValueError, match=match):
        Trace("gpu:0", **trace)


def test_nothing_to_play_and_no_file_are_user_errors(tmp_path):
    with pytest.raises(ValueError, match="at least one reading"):
        Replay([Trace("gpu:0", (), watts=())])
    with pytest.raises(ValueError, match="replay="):
        from_spec(None)
    with pytest.raises(ValueError, match="must name a file that can be read"):
        from_spec(str(tmp_path / "nowhere.csv"))
    path = tmp_path / "other.json"
    path.write_text(json.dumps({"schema": 99}))
    with pytest.raises(ValueError, match="schema 1"):
        from_spec(str(path))


@pytest.mark.parametrize("traces", [None, 5, [5], [{"component": "cpu", "t_ns": 5, "joules": [1.0]}], [{"component": "cpu"}]])
def test_a_damaged_file_of_traces_is_a_user_error(tmp_path, traces):
    path = tmp_path / "traces.json"
    path.write_text(json.dumps({"schema": 1} | ({} if traces is None else {"traces": traces})))
    with pytest.raises(ValueError, match=r"traces.json is damaged \(\w+: .*\); record it anew"):
        from_spec(str(path))


def test_csv_traces_are_read_with_gaps_and_half_a_last_row_but_no_damage(tmp_path):
    path = tmp_path / "trace.csv"
    rows = ["timestamp, name, power.draw [W]", "2023/03/08 14:56:21.991, RTX, 8.03 W", "2023/03/08 14:56:22.996, RTX, [N/A]"]
    path.write_text("\n".join([*rows, "2023/03/08 14:56:23.998, RTX, 104.87 W", "2023/03/0"]))
    (trace,) = read_traces(path)
    assert trace.watts == (8.03, 104.87)
    assert trace.t_ns[1] - trace.t_ns[0] == 2_007_000_000
    path.write_text("seconds,watts\n0,1\n0.5,2\nx,3\n2,4\n")
    with pytest.raises(ValueError, match="line 4"):
        read_traces(path)


@pytest.mark.parametrize("column", ["index", "uuid"])
def test_a_csv_of_two_gpus_is_two_traces_and_their_sum_is_the_energy(tmp_path, column):
    path = tmp_path / "smi.csv"
    rows = [f"2026/01/01 10:00:{second:02}.10{gpu}, {gpu}, {watts} W" for second in range(11) for gpu, watts in enumerate((100, 300))]
    path.write_text("\n".join([f"timestamp, {column}, power.draw [W]", *rows]))
    clock = Clock(0)
    with Ledger([Replay(read_traces(path), clock=clock)], interval_seconds=None, clock=clock) as ledger:
        for _ in range(10):
            clock.ns += NANO
            ledger.sample()
        record = ledger.query(0, 10 * NANO)
    assert {part.name: round(part.joules) for part in record.components} == {"gpu:replay:0": 1000, "gpu:replay:1": 3000}
    assert record.joules == pytest.approx(4000, rel=1e-3)


@real
@pytest.mark.parametrize("path", TRACES, ids=lambda path: path.name.split("-gpu")[0])
def test_windows_of_real_traces_agree_with_the_trapezoid(path):
    (trace,) = read_traces(path)
    stop = min(len(trace.t_ns), 1500)
    trace = Trace(trace.component, trace.t_ns[:stop], watts=trace.watts[:stop])
    clock = Clock(0)
    source = Replay([trace], clock=clock)
    random.seed(path.name)
    with Ledger([source], interval_seconds=None, clock=clock) as ledger:
        end = trace.t_ns[-1] - trace.t_ns[0]
        while clock.ns < end:
            clock.ns += NANO
            ledger.sample()
        whole = ledger.query(0, end).joules
        assert whole == pytest.approx(trapezoid(trace, trace.t_ns[0], trace.t_ns[-1]), rel=1e-9)
        covered = 0
        for _ in range(100):
            start = random.randrange(0, end - 30 * NANO)
            length = random.randrange(2 * NANO, 30 * NANO)
            record = ledger.query(start, start + length)
            truth = trapezoid(trace, trace.t_ns[0] + start, trace.t_ns[0] + start + length)
            # Inside one second of the trace the ledger holds the mean power, the trapezoid a ramp: they differ within 2 u.
            covered += abs(record.joules - truth) <= 2 * record.u_random_joules + 1e-6
        assert covered >= 95
