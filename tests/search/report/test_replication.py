"""Crosses in the pictures and the section of the report about finalists that were trained again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from joulefront.search.front import Front, stretch
from joulefront.search.records.replicates import Plan, Repeat, Repeats
from joulefront.search.records.run_folder import Run
from joulefront.search.report.matplotlib_front import front_figure
from joulefront.search.report.plotly_front import front_plotly
from joulefront.search.report.sections import repeats_section
from joulefront.search.report.table import marks_of, to_text
from joulefront.search.report.view import REPEATS_LABEL, View, crosses


def again(run: Run, *, times: int = 3, spread: float = 0.02, fall: float = 0.01, only: int | None = None) -> Run:
    """The run with every member of its front trained again; energies spread by a share, quality by 0.002 around what it fell to."""
    members = [trial for trial in Front.of(run) if only is None or trial.number == only]
    repeats = Repeats().with_plan(Plan("2026-01-02T03:04:05+00:00", tuple(trial.number for trial in members), times, "random", 0))
    for number in range(times):
        step = number - (times - 1) / 2
        for place, trial in enumerate(members):
            quality = {"accuracy": trial.values[0] - fall + 0.002 * step}
            joules = (trial.train_joules or 0.0) * (1 + spread * step)
            position = number * len(members) + place
            one = Repeat(0, trial.number, number, position, 1, trial.epochs, quality, joules, 0.001 * joules, joules)
            repeats = repeats.with_training(one)
    return replace(run, repeats=repeats)


def test_a_cross_stands_at_the_means_with_their_intervals(fake_run: Run) -> None:
    run = again(fake_run)
    view = View.of(run)
    found = crosses(view)
    assert [cross.number for cross in found] == [trial.number for trial in Front.of(run)]
    for cross, trial in zip(found, Front.of(run), strict=True):
        assert cross.x == pytest.approx(view.x(trial))
        assert cross.y == pytest.approx(stretch("accuracy", trial.values[0] - 0.01))
        half = 4.302653 * 0.02 / 3**0.5  # Student's t for 2 degrees of freedom
        assert cross.left == pytest.approx(half * cross.x)
        assert cross.right == pytest.approx(half * cross.x)
        ends = [stretch("accuracy", trial.values[0] - 0.01 + sign * 4.302653 * 0.002 / 3**0.5) for sign in (-1, 1)]
        assert (cross.y - cross.down, cross.y + cross.up) == (pytest.approx(ends[0]), pytest.approx(ends[1]))


def test_an_interval_that_reaches_below_zero_ends_before_it(fake_run: Run) -> None:
    for cross in crosses(View.of(again(fake_run, spread=0.9))):
        assert 0 < cross.left <= 0.95 * cross.x


def test_both_pictures_show_the_crosses_and_neither_does_without_repeats(fake_run: Run) -> None:
    run = again(fake_run)
    names = [trace.name for trace in front_plotly(run).data]
    assert names.count(REPEATS_LABEL) == 1
    legend = front_figure(run).axes[0].get_legend()
    assert legend is not None
    assert REPEATS_LABEL in [text.get_text() for text in legend.get_texts()]
    assert REPEATS_LABEL not in [trace.name for trace in front_plotly(fake_run).data]
    assert crosses(View.of(fake_run)) == ()
    assert crosses(View.of(again(fake_run, times=1))) == ()  # one repeat has no interval


def test_the_report_has_a_section_with_a_row_a_member(fake_run: Run) -> None:
    run = again(fake_run)
    html = repeats_section(run)
    assert html.count("<tr>") == 1 + len(Front.of(run))
    assert "Repeats are neither trials nor points of the front." in html
    assert "accuracy is 0.0100 worse than in the search" in html
    assert repeats_section(fake_run) == ""


def test_ties_are_decided_by_the_repeats_where_both_neighbours_have_them(fake_run_maker: Callable[..., Run]) -> None:
    run = fake_run_maker()
    front = Front.of(run)
    assert len(front) > 2
    wide = Front.of(again(run, spread=3.0, times=5))  # the energies spread over each other, the qualities do not
    for trial in wide.members[1:]:
        assert "≈" in marks_of(wide)[trial.number].split()
    assert "≈ costs the same as the row above within the uncertainty." in to_text(wide)
    sharp = Front.of(again(run, spread=1e-6))
    assert not any(sign in mark for mark in marks_of(sharp).values() for sign in "≈≡")
    alone = Front.of(again(run, only=front.members[0].number))
    assert {number: mark for number, mark in marks_of(alone).items() if "≈" in mark} == {
        number: mark for number, mark in marks_of(front).items() if "≈" in mark
    }


def test_neighbours_that_differ_in_nothing_are_marked_so(fake_run: Run) -> None:
    front = Front.of(fake_run)
    first, second = front.members[:2]
    repeats = Repeats().with_plan(Plan("now", (first.number, second.number), 2, "given", 0))
    for number in range(2):
        for trial in (first, second):
            repeats = repeats.with_training(Repeat(0, trial.number, number, number, 1, 1, {"accuracy": 0.5 + number}, 10.0 + number))
    tied = Front.of(replace(fake_run, repeats=repeats))
    assert marks_of(tied)[second.number].split()[-1] == "≡"
    assert "≡ differs from the row above neither in energy nor in accuracy." in to_text(tied)
    assert [trial.number for trial in tied] == [trial.number for trial in front]


def test_the_front_shows_the_means_beside_what_the_search_measured(fake_run: Run) -> None:
    run = again(fake_run)
    plain, text = to_text(Front.of(fake_run), width=300), to_text(Front.of(run), width=300)
    head = text.splitlines()[0].split()
    assert head.count("repeats") == 2
    assert "repeats" not in plain
    for trial, line in zip(Front.of(run), text.splitlines()[2:], strict=False):
        assert f"{trial.values[0]:.4f}" in line
        assert f"{trial.values[0] - 0.01:.4f} ±0.0020" in line
        assert "±2 %" in line
