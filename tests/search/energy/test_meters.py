"""How sources are read: one reading of each component whatever they answer, entered when somebody needs it or when much waits."""

from __future__ import annotations

import json
import math
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulefront.search.energy import Discovery, Ledger
from joulefront.search.energy.meters import MOST_PENDING, ActiveSource, MeterSet
from joulefront.search.energy.sources.source import Capability, Reading

NAMES = ("a", "b", "c")


class Told:
    """A source that answers what it is told to."""

    name = "told"

    def __init__(self, answer=()):
        self.answer = answer

    def probe(self):
        return tuple(Capability(name, self.name, True, tick_seconds=0.0) for name in NAMES)

    def read(self):
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def close(self):
        pass


class Fast(Told):
    def fast_read(self):
        return (Reading("a", 1),)


@given(st.lists(st.sampled_from((*NAMES, "other")), max_size=6))
def test_every_component_has_a_reading_and_no_other_has(found):
    active = ActiveSource.of(Told(tuple(Reading(name, 5, counter_joules=1.0) for name in found)), NAMES, counts=True)
    complete = active.read(lambda: 9, fast=False)
    assert {reading.component for reading in complete} == set(NAMES)
    for reading in complete:
        assert (reading.error is None) == (reading.component in found)
        if reading.error is not None:
            assert reading.error == "told did not report it"
            assert reading.t_ns == (5 if set(found) & set(NAMES) else 9)


@pytest.mark.parametrize(
    ("answer", "why"), [(RuntimeError("on fire"), "failed: RuntimeError"), (None, "gave no readings"), ((1, 2), "gave no readings")]
)
def test_a_source_that_raises_or_answers_nonsense_has_an_error_for_each_component(answer, why):
    active = ActiveSource.of(Told(answer), NAMES, counts=True)
    complete = active.read(lambda: 7, fast=True)
    assert [(reading.component, reading.t_ns) for reading in complete] == [(name, 7) for name in NAMES]
    assert all(reading.error is not None and why in reading.error for reading in complete)


def test_readings_are_made_when_they_are_read_and_in_pythons_own_numbers():
    answer = (Reading(name, np.int64(5), np.int64(1), np.float32(2), Decimal(3)) for name in NAMES)
    active = ActiveSource.of(Told(answer), NAMES, counts=True)
    read = active.read(lambda: 9, fast=False)
    assert read == [Reading(name, 5, 1, 2.0, 3.0) for name in NAMES]
    assert {type(value) for reading in read for value in reading[1:5]} == {int, float}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"counter_joules": "n/a"}, "counter_joules='n/a'"),
        ({"counter_joules": "12"}, "counter_joules='12'"),
        ({"watts": 1j}, "watts=1j"),
        ({"t_ns": None}, "t_ns=None"),
        ({"t_ns": math.nan}, "t_ns=nan"),
        ({"t_ns": 10**30}, "t_ns=100000000;"),
        ({"half_width_ns": -1}, "half_width_ns=-1"),
        ({"half_width_ns": "wide"}, "half_width_ns='wide'"),
    ],
)
def test_a_reading_of_another_type_is_an_error_of_its_meter_and_ends_nothing(wrong, said, scripted, clock):
    source = scripted((Capability("cpu", "scripted", True, tick_seconds=0.0),), clock, joules=lambda name, t: 10.0 * t)
    with Ledger([source], interval_seconds=None, clock=clock) as ledger, ledger.window("before") as before:
        clock.advance(1)
        ledger.sample()
        before.close()
        source.read = lambda: (Reading("cpu", clock())._replace(**wrong),)
        with ledger.window("after") as after:
            clock.advance(9)
    assert before.record.joules == pytest.approx(10, rel=1e-3)
    assert after.record.joules is None
    assert f"scripted must give numbers, and its time by time.monotonic_ns(), got {said}" in after.record.component("cpu").reason


def test_readings_by_another_clock_are_said_to_be(scripted, clock):
    source = scripted((Capability("cpu", "scripted", True),), lambda: clock() + 10**18, joules=lambda name, t: t)
    with Ledger([source], interval_seconds=None, clock=clock) as ledger, ledger.window("w") as window:
        clock.advance(1)
    assert "1e+09 s away from it: t_ns of its readings must be of time.monotonic_ns()" in window.record.component("cpu").reason


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"most_watts": math.nan}, "most_watts must be a finite number >= 0, a share at most 1, a range or a power above 0, got nan"),
        ({"most_watts": 0}, "most_watts must be"),
        ({"range_joules": -1}, "range_joules must be"),
        ({"gain_u": "5%"}, "capability.gain_u must be a number, got '5%'"),
        ({"gain_u": math.inf}, "gain_u must be"),
        ({"sees": 2}, "sees must be"),
        ({"quality": "absent"}, "capability.quality must be one of measured, estimated, got 'absent'"),
        ({"counts": None}, "capability.counts must be true or false, got None"),
        ({"covers": "cpu"}, "capability.covers must be a list, got 'cpu'"),
        ({"component": 5}, "capability.component must be a text, got 5"),
    ],
)
def test_a_meter_that_no_meter_can_be_is_absent_and_says_why(facts, said, clock):
    source = Told()
    source.probe = lambda: (Capability(**{"component": "a", "source": "told", "available": True} | facts),)
    with Ledger([source], interval_seconds=None, clock=clock) as ledger, ledger.window("w") as window:
        pass
    assert (window.record.joules, window.record.component("told").quality) == (None, "absent")
    assert said in window.record.component("told").reason


def test_a_capability_in_numpys_numbers_is_one_in_pythons(clock):
    source = Told()
    source.probe = lambda: (Capability("a", "told", np.bool_(True), gain_u=np.float32(0.5), tick_seconds=np.int64(1), covers=["cpu"]),)
    meters = MeterSet([source], (), clock)
    meters.open()
    assert meters.capabilities() == [Capability("a", "told", True, gain_u=0.5, tick_seconds=1.0, covers=("cpu",))]
    assert json.dumps(vars(meters.capabilities()[0]))


@pytest.mark.parametrize("answer", [None, Capability("a", "told", True), ("a",), 5])
def test_a_probe_that_answers_nonsense_is_an_absent_meter(answer, clock):
    source = Told()
    source.probe = lambda: answer
    with Ledger([source], interval_seconds=None, clock=clock) as ledger, ledger.window("w") as window:
        pass
    assert "told failed: " in window.record.component("told").reason


@pytest.mark.parametrize("sources", [Told(), "nvml", ["nvml"], None, [object()], Discovery((5,), ())])
def test_a_ledger_takes_several_meters_and_nothing_else(sources):
    with pytest.raises(ValueError, match=r"sources must be a list of meters .* or what discover\(\) found, got"):
        Ledger(sources)


def test_a_fast_read_is_used_where_a_source_offers_one():
    fast, plain = [Reading("a", 1)], [Reading("a", 2)]
    assert ActiveSource.of(Fast(), ["a"], counts=True).read(lambda: 0, fast=True) == fast
    assert ActiveSource.of(Fast(plain), ["a"], counts=True).read(lambda: 0, fast=False) == plain
    assert ActiveSource.of(Told(plain), ["a"], counts=True).read(lambda: 0, fast=True) == plain


@pytest.mark.parametrize(("source", "counts", "follows"), [(Told(), False, True), (Fast(), False, False), (Fast(), True, True)])
def test_only_a_cross_check_that_offers_a_fast_read_is_read_less_often(source, counts, follows):
    assert ActiveSource.of(source, NAMES, counts=counts).follows is follows


def curve(meters, name):
    channel = meters.channels[name]
    return list(channel.curve.t), list(channel.curve.joules), list(channel.events), list(channel.reads)


@pytest.mark.slow
@given(
    st.lists(
        st.tuples(st.floats(0.01, 3.0), st.floats(0.0, 300.0), st.sampled_from(["ok", "error", "gone", "fell"])), min_size=1, max_size=80
    )
)
def test_readings_that_wait_come_to_the_same_as_readings_that_are_entered_at_once(steps):
    now = [10**9]
    source = Told()
    lazy, eager = (MeterSet([source], (), lambda: now[0]) for _ in range(2))
    for meters in (lazy, eager):
        meters.open()
    total = 0.0
    for seconds, joules, fault in steps:
        now[0] += int(seconds * 1e9)
        total = 0.0 if fault == "fell" else total + joules
        if fault == "error":
            source.answer = RuntimeError("on fire")
        else:
            source.answer = tuple(Reading(name, now[0], counter_joules=total) for name in NAMES if fault != "gone" or name != "b")
        lazy.read(fast=True)
        eager.read(fast=True)
        assert eager.channels  # to ask is to enter
    for name in NAMES:
        assert curve(lazy, name) == curve(eager, name)


def test_what_nobody_asks_for_is_entered_all_the_same_before_it_is_much():
    now = [0]
    source = Told()
    meters = MeterSet([source], (), lambda: now[0])
    meters.open()
    channel = meters.channels["a"]
    for step in range(MOST_PENDING):
        assert len(channel.reads) == 0
        now[0] += 10**8
        source.answer = tuple(Reading(name, now[0], counter_joules=float(step)) for name in NAMES)
        meters.read(fast=True)
    assert len(channel.reads) == MOST_PENDING


def test_a_question_in_the_middle_of_an_interval_sees_the_reading_before_it(scripted, clock):
    source = scripted((Capability("cpu", "scripted", True, tick_seconds=0.0),), clock, joules=lambda name, t: 10.0 * t)
    with Ledger([source], interval_seconds=None, clock=clock) as ledger:
        begin = clock.now_ns
        for _ in range(5):
            clock.advance(0.1)
            ledger.sample()
            assert ledger.joules(begin, clock.now_ns) == pytest.approx(10.0 * (clock.now_ns - begin) / 1e9, rel=1e-3)
