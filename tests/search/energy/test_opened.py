"""What books make of the answers of a source: one reading of each component, whatever it gave."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulefront.search.energy import Ledger
from joulefront.search.energy.meters import MOST_WAITING, ActiveSource, MeterSet
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


class Glances(Told):
    def glance(self):
        return ("glanced",)


@given(st.lists(st.sampled_from((*NAMES, "other")), max_size=6))
def test_every_component_has_a_reading_and_no_other_has(found):
    opened = ActiveSource.of(Told(tuple(Reading(name, 5, counter_joules=1.0) for name in found)), NAMES, counts=True)
    complete = opened.complete(opened.read(lambda: 9, glance=False), lambda: 9)
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
    opened = ActiveSource.of(Told(answer), NAMES, counts=True)
    complete = opened.complete(opened.read(lambda: 7, glance=True), lambda: 7)
    assert [(reading.component, reading.t_ns) for reading in complete] == [(name, 7) for name in NAMES]
    assert all(reading.error is not None and why in reading.error for reading in complete)


def test_a_glance_is_taken_where_a_source_offers_one():
    assert ActiveSource.of(Glances(), NAMES, counts=True).read(lambda: 0, glance=True) == ("glanced",)
    assert ActiveSource.of(Glances(("read",)), NAMES, counts=True).read(lambda: 0, glance=False) == ("read",)
    assert ActiveSource.of(Told(("read",)), NAMES, counts=True).read(lambda: 0, glance=True) == ("read",)


@pytest.mark.parametrize(("source", "counts", "follows"), [(Told(), False, True), (Glances(), False, False), (Glances(), True, True)])
def test_only_a_cross_check_that_offers_a_glance_is_read_less_often(source, counts, follows):
    assert ActiveSource.of(source, NAMES, counts=counts).follows is follows


def curve(books, name):
    account = books.accounts[name]
    return list(account.curve.t), list(account.curve.joules), list(account.events), list(account.reads)


@given(
    st.lists(
        st.tuples(st.floats(0.01, 3.0), st.floats(0.0, 300.0), st.sampled_from(["ok", "error", "gone", "fell"])), min_size=1, max_size=80
    )
)
def test_readings_that_wait_come_to_the_same_as_readings_that_are_entered_at_once(steps):
    now = [10**9]
    source = Told()
    lazy, eager = (MeterSet([source], (), lambda: now[0]) for _ in range(2))
    for books in (lazy, eager):
        books.open()
    total = 0.0
    for seconds, joules, fault in steps:
        now[0] += int(seconds * 1e9)
        total = 0.0 if fault == "fell" else total + joules
        if fault == "error":
            source.answer = RuntimeError("on fire")
        else:
            source.answer = tuple(Reading(name, now[0], counter_joules=total) for name in NAMES if fault != "gone" or name != "b")
        lazy.read(glance=True)
        eager.read(glance=True)
        assert eager.accounts  # to ask is to enter
    for name in NAMES:
        assert curve(lazy, name) == curve(eager, name)


def test_what_nobody_asks_for_is_entered_all_the_same_before_it_is_much():
    now = [0]
    source = Told()
    books = MeterSet([source], (), lambda: now[0])
    books.open()
    account = books.accounts["a"]
    for step in range(MOST_WAITING):
        assert len(account.reads) == 0
        now[0] += 10**8
        source.answer = tuple(Reading(name, now[0], counter_joules=float(step)) for name in NAMES)
        books.read(glance=True)
    assert len(account.reads) == MOST_WAITING


def test_a_question_in_the_middle_of_an_interval_sees_the_reading_before_it(scripted, clock):
    source = scripted((Capability("cpu", "scripted", True, tick_seconds=0.0),), clock, joules=lambda name, t: 10.0 * t)
    with Ledger([source], interval_seconds=None, clock=clock) as ledger:
        begin = clock.now_ns
        for _ in range(5):
            clock.advance(0.1)
            ledger.sample()
            assert ledger.joules(begin, clock.now_ns) == pytest.approx(10.0 * (clock.now_ns - begin) / 1e9, rel=1e-3)
