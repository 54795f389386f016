"""The laws of the ledger: what is added, nested, refined and refused."""

from __future__ import annotations

import json
import math
from dataclasses import fields
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from joulefront.search.energy import Capability, Ledger, Record, add

from .conftest import balance


def capability(name="cpu:pkg0", **facts):
    facts = {"source": "scripted", "available": True, "tick_seconds": 0.0} | facts
    return Capability(name, **facts)


@pytest.fixture
def linear(scripted, clock):
    """A started ledger over a counter of exactly 100 W."""
    source = scripted((capability(),), clock, joules=lambda name, t: 100.0 * t)
    ledger = Ledger([source], interval_seconds=None, clock=clock).start()
    yield ledger
    ledger.stop()


def test_a_window_costs_the_difference_of_two_readings(linear, clock):
    window = linear.open("trial 0")
    clock.advance(10)
    record = window.close()
    assert record.joules == pytest.approx(1000, rel=1e-5)
    assert record.seconds == pytest.approx(10, rel=1e-5)
    assert record.quality == "measured"
    assert record.coverage == ("cpu",)


def test_closing_twice_changes_nothing(linear, clock):
    window = linear.open("trial 0")
    clock.advance(1)
    first = window.close("failed")
    clock.advance(5)
    assert window.close("ok").joules == first.joules
    assert window.record.state == "failed"


def test_a_parent_is_the_sum_of_its_children_and_its_own_part(scripted, clock):
    source = scripted((capability(),), clock, joules=lambda name, t: 50 * t + 40 * math.sin(t))
    with Ledger([source], interval_seconds=None, clock=clock) as ledger:
        parent = ledger.open("trial")
        clock.advance(0.3)
        begin = clock.now_ns
        children = []
        for epoch in range(5):
            with ledger.window(f"epoch {epoch}", kind="epoch", parent=parent) as child:
                clock.advance(0.7)
            children.append(child)
        parent.close()
        gaps = [(parent.t0_ns, children[0].t0_ns)]
        gaps += [(one.t1_ns, other.t0_ns) for one, other in pairwise(children)]
        gaps += [(children[-1].t1_ns, parent.t1_ns)]
        own = sum(ledger.query(a, b).joules for a, b in gaps)
        assert begin > parent.t0_ns
        assert sum(child.record.joules for child in children) + own == pytest.approx(parent.record.joules, rel=1e-12)


def test_overlapping_windows_are_free_and_total_is_their_union(linear, clock):
    first = linear.open("a")
    clock.advance(2)
    second = linear.open("b")
    clock.advance(3)
    first.close()
    clock.advance(1)
    second.close()
    assert first.record.joules == pytest.approx(500, rel=1e-4)
    assert second.record.joules == pytest.approx(400, rel=1e-4)
    assert linear.query(first.t0_ns, second.t1_ns).joules == pytest.approx(600, rel=1e-4)


def test_an_exception_ends_the_window_and_keeps_the_energy(linear, clock):
    window = linear.open("trial")
    clock.advance(4)
    with pytest.raises(ZeroDivisionError), window:
        raise ZeroDivisionError
    assert window.record.state == "failed"
    assert window.record.joules == pytest.approx(400, rel=1e-4)


def test_a_window_counts_once_and_says_so(linear, clock):
    window = linear.open("step")
    for _ in range(2):  # inside of itself, and when it has ended
        with pytest.raises(RuntimeError, match="'step' counts once: make a new one each time"), window, window:
            clock.advance(1)
    assert window.record.state == "failed"


@pytest.mark.parametrize("devices", ["gpu:a", ("gpu:0",), 3])
def test_a_window_of_a_gpu_that_is_none_is_refused_for_it_would_leave_that_out_of_the_sum(ledger, devices):
    for ask in (lambda: ledger.window("w", devices=devices), lambda: ledger.query(0, 1, devices=devices)):
        with pytest.raises(ValueError, match="devices must be a list of gpu:a, gpu:b, got"):
            ask()


@pytest.mark.parametrize("parent", ["nope", 5])
def test_a_parent_that_is_none_is_refused_for_the_partition_would_lack_its_windows(linear, parent):
    with pytest.raises(ValueError, match="parent must be a window or a window's id"):
        linear.open("epoch", parent=parent)
    with linear.open("trial") as trial, linear.open("epoch", parent=trial.id) as epoch:
        assert epoch.record.parent == trial.id


def test_an_interrupt_ends_the_window_as_stopped(linear, clock):
    window = linear.open("trial")
    clock.advance(1)
    with pytest.raises(KeyboardInterrupt), window:
        raise KeyboardInterrupt
    assert window.record.state == "stopped"


def test_a_device_that_cannot_be_waited_for_fails_the_window_and_shows_the_first_error(linear, clock):
    calls = []

    def synchronize():
        calls.append(clock.now_ns)
        if len(calls) > 1:
            raise OSError("device lost")

    window = linear.open("trial", synchronize=synchronize)
    clock.advance(1)
    with pytest.raises(OSError, match="device lost"):
        window.close()
    assert window.record.state == "failed"
    assert window.record.joules == pytest.approx(100, rel=1e-3)
    calls.clear()
    with pytest.raises(ValueError, match="bad loss") as caught, linear.window("trial", synchronize=synchronize):
        raise ValueError("bad loss")
    assert "device lost" in caught.value.__notes__[0]


def test_the_device_is_waited_for_before_both_edges(linear, clock):
    window = linear.open("trial", synchronize=lambda: clock.advance(1.0))
    begin = window.t0_ns
    window.close()
    # one second of queued work before the first edge is not ours, one before the second is
    assert (window.t1_ns - begin) / 1e9 == pytest.approx(1.0, rel=1e-3)


def test_leaving_the_ledger_ends_open_windows_as_partial(scripted, clock):
    source = scripted((capability(),), clock, joules=lambda name, t: 10.0 * t)
    with Ledger([source], interval_seconds=None, clock=clock) as ledger:
        window = ledger.open("trial")
        clock.advance(2)
    assert window.record.state == "partial"
    assert window.record.joules == pytest.approx(20, rel=1e-4)
    assert source.closed == 1
    assert ledger.total().joules == pytest.approx(20, rel=1e-4)


def test_of_two_meters_of_one_part_the_first_counts_and_the_other_is_shown(scripted, clock):
    measured = scripted((capability("cpu:pkg0"), capability("dram:0")), clock, joules=lambda name, t: {"c": 30, "d": 5}[name[0]] * t)
    estimated = scripted((capability("cpu", quality="estimated"),), clock, joules=lambda name, t: 70.0 * t, name="estimate")
    wall = scripted((capability("wall", counts=False),), clock, joules=lambda name, t: 120.0 * t, name="plug")
    with Ledger([measured, estimated, wall], interval_seconds=None, clock=clock) as ledger, ledger.window("trial") as window:
        clock.advance(1)
    record = window.record
    assert record.joules == pytest.approx(35, rel=1e-4)
    assert {part.name: part.counts for part in record.components} == {"cpu:pkg0": True, "dram:0": True, "cpu": False, "wall": False}
    assert record.component("wall").joules == pytest.approx(120, rel=1e-4)
    assert record.quality == "measured"


def test_idle_windows_give_idle_power_and_net_energy(linear, clock):
    with linear.window("rest", kind="idle"):
        clock.advance(2)
    with linear.window("trial") as window:
        clock.advance(1)
    part = window.record.component("cpu:pkg0")
    assert part.idle_watts == pytest.approx(100, rel=1e-4)
    assert part.net_joules == pytest.approx(0, abs=0.05)
    assert part.joules == pytest.approx(100, rel=1e-3)


def test_energy_so_far_needs_no_reading(linear, clock):
    window = linear.open("trial")
    clock.advance(0.5)
    linear.sample()
    clock.advance(0.2)
    assert window.joules() == pytest.approx(70, rel=1e-3)
    assert window.record.state == "open"


def test_wrong_use_says_what_to_do(scripted, clock):
    ledger = Ledger([], interval_seconds=None, clock=clock)
    with pytest.raises(RuntimeError, match="inside `with ledger:`"):
        ledger.open("trial")
    ledger.start()
    with pytest.raises(RuntimeError, match="make a new Ledger"):
        ledger.start()
    with pytest.raises(ValueError, match="kind must be one of trial"):
        ledger.open("trial", kind="tria")
    with pytest.raises(ValueError, match="state must be one of ok"):
        ledger.open("trial").close("done")
    ledger.stop()
    with pytest.raises(ValueError, match="interval_seconds must be > 0"):
        Ledger([], interval_seconds=0)
    with pytest.raises(ValueError, match="checkpoint_seconds must be > 0"):
        Ledger([], checkpoint_seconds=-1)


def test_without_any_meter_energy_is_unknown_and_not_zero(clock):
    absent = (Capability("gpu", "nvml", False, reason="no driver"),)
    with Ledger([], absent=absent, interval_seconds=None, clock=clock) as ledger, ledger.window("trial") as window:
        clock.advance(1)
    assert window.record.joules is None
    assert window.joules() is None
    assert window.record.quality == "absent"
    assert window.record.component("gpu").reason == "no driver"


def test_a_record_survives_json(linear, clock):
    with linear.window("trial") as window:
        clock.advance(1)
    text = json.dumps(window.record.to_json())
    assert Record.from_json(json.loads(text)).to_json() == window.record.to_json()
    assert "u_random_joules" in text
    with pytest.raises(ValueError, match="update joulefront"):
        Record.from_json(json.loads(text) | {"schema": 99})


def test_a_record_and_its_components_are_what_their_own_classes_would_make(linear, clock):
    window = linear.open("w")
    clock.advance(3)
    record = window.close()
    for made in (record, *record.components):
        assert list(vars(made)) == [field.name for field in fields(made)]
        assert type(made)(**vars(made)) == made
    assert Record.from_json(record.facts()) == Record.from_json(record.to_json()) == record


def test_sums_refuse_other_hardware_and_lose_no_doubt(linear, clock):
    records = []
    for _ in range(3):
        with linear.window("trial") as window:
            clock.advance(1)
        records.append(window.record)
    total = add(records)
    assert total.joules == pytest.approx(300, rel=1e-4)
    assert total.u_random_joules == pytest.approx(math.sqrt(sum(r.u_random_joules**2 for r in records)))
    assert total.u_systematic_joules == pytest.approx(sum(r.u_systematic_joules for r in records))
    from dataclasses import replace

    with pytest.raises(ValueError, match="one hardware_id"):
        add([records[0], replace(records[1], hardware_id="other")])
    with pytest.raises(ValueError, match="at least one"):
        add([])
    lost = replace(records[0], components=tuple(replace(c, joules=None, quality="absent", reason="gone") for c in records[0].components))
    assert add([lost, *records]).joules is None
    assert add([lost, *records]).component("cpu:pkg0").reason == "gone"
    assert add([lost, *records]).quality == "absent"


@st.composite
def schedules(draw):
    """Trials that run one after another, with rests between them, and how each ends."""
    count = draw(st.integers(1, 8))
    step = st.floats(0.001, 3.0)
    return [(draw(step), draw(step), draw(st.sampled_from(["ok", "crash", "stop", "forgotten"]))) for _ in range(count)]


@pytest.mark.slow
@given(schedule=schedules(), watts=st.lists(st.floats(0, 500), min_size=1, max_size=20))
@settings(max_examples=40, deadline=None)
def test_trials_and_what_lies_between_add_up_to_the_total(schedule, watts, scripted, hand_clock):
    clock = hand_clock()

    def joules(name, t):  # a staircase of powers, one second each, that repeats
        whole, part = divmod(t, len(watts))
        return whole * sum(watts) + sum(watts[: int(part)]) + watts[min(int(part), len(watts) - 1)] * (part - int(part))

    source = scripted((capability(),), clock, joules=joules)
    ledger = Ledger([source], interval_seconds=None, clock=clock).start()
    windows = []
    for rest, work, end in schedule:
        clock.advance(rest)
        window = ledger.open("trial")
        windows.append(window)
        clock.advance(work)
        if end == "crash":
            with pytest.raises(RuntimeError), window:
                raise RuntimeError
        elif end == "stop":
            with pytest.raises(KeyboardInterrupt), window:
                raise KeyboardInterrupt
        elif end == "ok":
            window.close()
        # a forgotten window runs on until the ledger stops
    ledger.stop()
    total = ledger.total()
    serial = [window for window in windows if window.state != "partial"]
    edges = sorted({ledger.t0_ns, ledger.t1_ns, *(t for w in serial for t in (w.t0_ns, w.t1_ns))})
    pieces = [ledger.query(a, b).joules for a, b in pairwise(edges)]
    assert sum(pieces) == pytest.approx(total.joules, rel=1e-9, abs=1e-6)
    split = ledger.partition()
    assert abs(balance(split)) <= 1e-3 * total.joules + 1e-9
    assert sum(split.total.values()) == pytest.approx(total.joules, rel=1e-9, abs=1e-6)
    for piece in pieces:
        assert piece >= 0


@pytest.mark.slow
@given(
    times=st.lists(st.floats(0, 50), min_size=3, max_size=3).map(sorted),
    shift=st.floats(-5e3, 1e6),
    powers=st.lists(st.floats(0, 300), min_size=51, max_size=51),
)
@settings(max_examples=16, deadline=None)
def test_energy_is_additive_monotone_and_the_same_at_any_time(times, shift, powers, scripted, hand_clock):
    def energies(origin):
        clock = hand_clock(now_ns=round(1e13 + origin * 1e9), step_ns=0)
        begin = clock.now_ns / 1e9

        def joules(name, t):
            whole = min(max(t - begin, 0.0), 50.999)
            return sum(powers[: int(whole)]) + powers[int(whole)] * (whole - int(whole))

        ledger = Ledger([scripted((capability(),), clock, joules=joules)], interval_seconds=None, clock=clock).start()
        for _ in range(101):
            clock.advance(0.5)
            ledger.sample()
        a, b, c = (round(clock.now_ns - 50.5e9 + t * 1e9) for t in times)
        found = [ledger.query(a, b).joules, ledger.query(b, c).joules, ledger.query(a, c).joules]
        ledger.stop()
        return found

    first, second, whole = energies(0)
    assert first + second == pytest.approx(whole, abs=1e-6)
    assert whole >= first >= 0
    assert energies(shift)[2] == pytest.approx(whole, abs=1e-3)
