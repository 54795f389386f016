"""The first error is the one that the user sees, and every step at the end is taken."""

import os
import signal
import sys
from contextlib import contextmanager

import pytest

from joulefront.search import cli
from joulefront.search.cli import main
from joulefront.search.running.endings import Endings, noted_on, stop_on_interrupt


def fails(text):
    def step(error):
        raise OSError(text)

    return step


def notes_on(error):
    return [note.partition(" (")[0] for note in error.__notes__]


def test_every_step_is_taken_the_last_one_first_and_knows_the_error_inside():
    taken, ending = [], Endings()
    for name in "abc":
        ending.then(lambda error, name=name: taken.append((name, error)))
    inside = ValueError("inside")
    with pytest.raises(ValueError, match="inside"), ending:
        raise inside
    assert taken == [("c", inside), ("b", inside), ("a", inside)]


def test_later_errors_are_notes_on_the_first_one():
    ending = Endings()
    ending.then(fails("the disk is full"))
    ending.then(fails("no answer"))
    with pytest.raises(ValueError, match="inside") as caught, ending:
        raise ValueError("inside")
    assert notes_on(caught.value) == ["then: OSError: no answer", "then: OSError: the disk is full"]


def test_without_an_error_inside_the_first_one_of_a_step_is_raised():
    taken, ending = [], Endings()
    ending.then(taken.append)
    ending.then(fails("the disk is full"))
    ending.then(fails("no answer"))
    with pytest.raises(OSError, match="no answer") as caught:
        ending.close()
    assert taken == [caught.value]
    assert notes_on(caught.value) == ["then: OSError: the disk is full"]


def test_a_context_that_is_entered_is_left_with_the_error():
    seen = []

    @contextmanager
    def held():
        try:
            yield "value"
        except ValueError as error:
            seen.append(error)
            raise

    ending = Endings()
    assert ending.enter(held()) == "value"
    with pytest.raises(ValueError, match="inside") as caught, ending:
        raise ValueError("inside")
    assert seen == [caught.value]
    assert not hasattr(caught.value, "__notes__")


def test_steps_are_taken_once():
    taken = []
    with Endings() as ending:
        ending.then(lambda _: taken.append(1))
        ending.close()
        ending.then(lambda _: taken.append(2))
    assert taken == [1, 2]


@pytest.mark.slow
def test_an_error_on_the_way_out_is_a_note_and_the_command_line_shows_it(monkeypatch, capsys):
    first = ValueError("budget must be > 0")
    with noted_on(first):
        raise OSError("no space left\non device")

    def stop(*arguments, **options):
        raise first

    monkeypatch.setattr("joulefront.search.running.run.run", stop)
    with pytest.raises(SystemExit):
        main(["run", "digits", "--trials", "1"])
    said = capsys.readouterr().err.splitlines()
    assert said[-2].startswith("note: then: OSError: no space left on device")
    assert said[-1].startswith("error: budget must be > 0")


@pytest.mark.parametrize(("number", "again"), [(signal.SIGTERM, [signal.SIGTERM]), (signal.SIGINT, [])])
def test_sigterm_is_sent_again_when_all_is_closed(number, again):
    taken, seen = [], []
    before = {one: signal.signal(one, lambda number, frame: seen.append(number)) for one in (signal.SIGTERM, signal.SIGINT)}
    try:
        with Endings() as ending:
            interrupts = ending.enter(stop_on_interrupt())
            ending.then(lambda error: taken.append(list(seen)))
            interrupts.patient = True
            os.kill(os.getpid(), number)
            assert interrupts.seen.is_set()
        assert (taken, seen) == ([[]], again)
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


@pytest.mark.parametrize("patient", [True, False])
def test_sigterm_ends_a_verb_with_its_own_code(patient, monkeypatch, capsys):
    def app(*words, **options):
        with stop_on_interrupt() as interrupts:
            interrupts.patient = patient
            os.kill(os.getpid(), signal.SIGTERM)
            print("the front")

    monkeypatch.setattr(cli, "app", app)
    monkeypatch.setattr("sys.argv", ["joulefront", "run", "digits"])
    before, kept = signal.getsignal(signal.SIGTERM), (sys.stdout, sys.stderr)
    try:
        assert cli._done(None) == 143
    finally:
        signal.signal(signal.SIGTERM, before)
        sys.stdout, sys.stderr = kept
    said = capsys.readouterr()
    assert said.out == ("the front\n" if patient else "")
    assert "Run the same command again" in said.err
