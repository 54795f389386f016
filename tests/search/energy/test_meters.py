"""How sources are read: one reading of each component whatever they answer, entered when somebody needs it or when much waits."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulefront.search.energy import Ledger
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
        return ("fast",)


@given(st.lists(st.sampled_from((*NAMES, "other")), max_size=6))
def test_every_component_has_a_reading_and_no_other_has(found):
    active = ActiveSource.of(Told(tuple(Reading(name, 5, counter_joules=1.0) for name in found)), NAMES, counts=True)
    complete = active.complete(active.read(lambda: 9, fast=False), lambda: 9)
    assert {reading.component for reading in complete} == set(NAMES)
    for reading in complete:
        assert (reading.error is None) == (reading.component in found)
        if reading.error is not None:
            assert reading.error == "told did not report it"
            assert reading.t_ns == (5 if found else 9)


@pytest.mark.parametrize(
    ("answer", "why"), [(RuntimeError("on fire"), "failed: RuntimeError"), (None, "gave no readings"), ((1, 2), "gave no readings")]
)
def test_a_source_that_raises_or_answers_nonsense_has_an_error_for_each_component(answer, why):
    active = ActiveSource.of(Told(answer), NAMES, counts=True)
    complete = active.complete(active.read(lambda: 7, fast=True), lambda: 7)
    assert [(reading.component, reading.t_ns) for reading in complete] == [(name, 7) for name in NAMES]
    assert all(reading.error is not None and why in reading.error for reading in complete)


def test_a_fast_read_is_used_where_a_source_offers_one():
    assert ActiveSource.of(Fast(), NAMES, counts=True).read(lambda: 0, fast=True) == ("fast",)
    assert ActiveSource.of(Fast(("read",)), NAMES, counts=True).read(lambda: 0, fast=False) == ("read",)
    assert ActiveSource.of(Told(("read",)), NAMES, counts=True).read(lambda: 0, fast=True) == ("read",)


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
