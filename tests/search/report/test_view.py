"""Where the parts of a picture go: limits, ticks, labels, means of repeats, in both pictures alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from helpers.trials import TWO, changed, make_trial

from joulefront.search.certainty import Evidence
from joulefront.search.front import Front
from joulefront.search.pareto import stretch
from joulefront.search.records.bill import Bill
from joulefront.search.records.replicates import Repeat, Repeats
from joulefront.search.records.run_folder import Run
from joulefront.search.report.front_view import save_front
from joulefront.search.report.matplotlib_front import front_figure
from joulefront.search.report.plotly_front import front_plotly
from joulefront.search.report.view import INK, MUTED, PALE, PICK, REPEATS_LABEL, STRONG, View, choose_ticks, crosses, tick_candidates


def texts(figure: Any) -> str:
    from matplotlib.text import Text

    return "\n".join(text.get_text() for text in figure.findobj(Text))


def test_a_model_at_chance_level_does_not_press_the_front_flat() -> None:
    trials = [
        make_trial(n, "complete", {}, 1, values=(a, e), train_joules=e) for n, (a, e) in enumerate([(0.95, 1.0), (0.97, 9.0), (0.1, 5.0)])
    ]
    view = View.of(Front(tuple(trials), ("accuracy", "train_energy"), ("maximize", "minimize")))
    assert stretch("accuracy", 0.9) < view.y_limits[0] < stretch("accuracy", 0.95)
    assert [trial.number for trial in view.outside] == [2]


def test_a_study_of_milliwatt_hours_is_drawn_in_them() -> None:
    trials = tuple(make_trial(n, "complete", {}, 1, values=(a, e), train_joules=e) for n, (a, e) in enumerate([(0.5, 0.1), (0.9, 3.6)]))
    front = Front(trials, ("accuracy", "train_energy"), ("maximize", "minimize"))
    view = View.of(front)
    assert view.spread(changed(trials[1], train_u_joules=0.36)) == pytest.approx((0.2, 0.2))
    assert (view.unit.name, view.x(trials[1])) == ("mWh", pytest.approx(1.0))
    assert "training energy of the model (mWh)" in texts(front_figure(front))
    assert "(mWh)" in front_plotly(front).layout.xaxis.title.text


def test_a_label_names_thousands_of_watt_hours_without_an_exponent() -> None:
    trial = make_trial(0, "complete", {}, 1, values=(0.9, 5432.0 * 3600), train_joules=5432.0 * 3600)
    view = View.of(Front((trial,), ("accuracy", "train_energy"), ("maximize", "minimize")))
    assert view.label(trial) == "0.9000 at 5,432 Wh"


def test_a_model_that_was_stopped_early_and_is_better_is_not_drawn_below_the_axis() -> None:
    points = [(0.60, 40.0, True), (0.62, 3000.0, True), (0.99, 9000.0, False)]
    trials = tuple(
        make_trial(n, "complete", {}, 1, values=(a, e), train_joules=e, complete_training=whole) for n, (a, e, whole) in enumerate(points)
    )
    view = View.of(Front(trials, ("accuracy", "train_energy"), ("maximize", "minimize"), complete_only=True))
    assert [trial.number for trial in view.others] == [2]
    assert view.outside == ()


def test_ticks_keep_their_distance_and_their_labels_are_their_values() -> None:
    front = Front((), ("accuracy", "train_energy"), ("maximize", "minimize"))
    for low, high in ((0.1, 0.99), (0.95, 0.97), (0.0, 0.3), (0.990, 0.999)):
        ends = stretch("accuracy", low), stretch("accuracy", high)
        ticks = choose_ticks(tick_candidates(front), *ends)
        assert 4 <= len(ticks) <= 13
        assert all(later - earlier >= 0.085 * (ends[1] - ends[0]) for (earlier, _), (later, _) in pairwise(ticks))
        assert all(place == pytest.approx(stretch("accuracy", float(label))) for place, label in ticks)
    assert tick_candidates(Front((), ("likelihood", "train_energy"), ("maximize", "minimize"))) == []


@pytest.mark.slow
def test_an_error_and_a_third_objective_are_drawn(fake_run: Run, tmp_path: Path) -> None:
    trials = tuple(
        replace(t, values=(1 - t.values[0], t.values[1], float(t.parameters or 1000))) if t.values else t for t in fake_run.trials
    )
    run = replace(fake_run, trials=trials, objectives=("error", "train_energy", "parameters"), directions=("minimize",) * 3)
    view = View.of(Front.of(run))
    assert len(view.line) < len(view.front)  # some members are there for their size alone
    joined = [(trial.train_joules, trial.values[0]) for trial in view.line]
    assert joined == sorted(joined)
    assert [q for _, q in joined] == sorted((q for _, q in joined), reverse=True)
    assert view.bottom == view.y_limits[0]  # less error is higher
    assert save_front(Front.of(run), tmp_path / "front.png").exists()
    assert front_plotly(Front.of(run)).layout.yaxis.title.text == "validation error (log-error scale)"


def test_a_front_of_one_trial_is_seen_beside_the_better_half_of_the_others() -> None:
    trials = tuple(
        make_trial(n, "complete", {}, 1, values=(accuracy, 10.0 + n), train_joules=10.0 + n)
        for n, accuracy in enumerate((0.93, 0.85, 0.8, 0.3))
    )
    view = View.of(Front(trials, ("accuracy", "train_energy"), ("maximize", "minimize")))
    assert [word for word, _ in view.named] == ["sensible, best"]
    assert all(view.y_limits[0] <= view.y(trial) <= view.y_limits[1] for trial in trials[:3])


@pytest.mark.slow
def test_a_label_stands_beside_its_point_on_the_side_where_no_front_is_in_both_pictures() -> None:
    def at(*points: tuple[float, float]) -> Front:
        trials = tuple(make_trial(n, "complete", {}, 1, values=(q, e), train_joules=e) for n, (q, e) in enumerate(points))
        front = Front(trials, ("accuracy", "train_energy"), ("maximize", "minimize"))
        front.__dict__["evidence"] = Evidence("accuracy", examples=99)  # with which 0.90 and 0.91 are a tie
        return front

    far_right, far_left = at((0.5, 1.0), (0.9, 90.0), (0.91, 100.0)), at((0.5, 1.0), (0.9, 1.1), (0.91, 100.0))  # the second is picked
    for front, expected in ((far_right, ("right", "bottom")), (far_left, ("left", "top"))):
        view, pick = View.of(front), front.sensible()
        assert view.anchor(pick, f"sensible {view.label(pick)}") == expected
        still = next(text for text in front_figure(front).axes[0].texts if text.get_text().startswith("sensible"))
        assert (still.get_ha(), still.get_va()) == expected
        assert still.xy == pytest.approx((view.x(pick), view.y(pick)))
        moving = next(one for one in front_plotly(front).layout.annotations if one.text.startswith("<b>sensible"))
        assert (moving.xanchor, moving.yanchor) == expected
        assert (10**moving.x, moving.y) == (pytest.approx(view.x(pick)), view.y(pick))
        assert ((moving.xshift < 0), (moving.yshift > 0)) == ((expected[0] == "right"), (expected[1] == "bottom"))


def test_a_label_of_a_quality_that_is_better_when_small_stands_on_the_better_side() -> None:
    trials = tuple(make_trial(n, "complete", {}, 1, values=(q, e), train_joules=e) for n, (q, e) in enumerate([(9.0, 1.0), (2.0, 100.0)]))
    view = View.of(Front(trials, ("perplexity", "train_energy"), ("minimize", "minimize")))
    assert view.anchor(trials[0], "cheapest, 9 at 1 J") == ("left", "bottom")
    assert view.anchor(trials[1], "best, 2 at 100 J") == ("right", "top")


def test_a_cross_stands_at_the_means_with_their_intervals(fake_run: Run, repeated: Callable[..., Run]) -> None:
    run = repeated(fake_run)
    view = View.of(Front.of(run))
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


def test_the_longer_side_of_a_cross_of_an_error_points_to_no_error() -> None:
    trials = tuple(make_trial(n, "complete", {}, 1, values=(e, j), train_joules=j) for n, (e, j) in enumerate([(0.1, 40.0), (0.05, 90.0)]))
    again = tuple(Repeat(0, n, k, k, k, 1, {"error": e}, 40.0 + k) for n in (0, 1) for k, e in enumerate((0.02, 0.05, 0.1)))
    run = Run("errors", Path("errors"), ("error", "train_energy"), ("minimize", "minimize"), (1,), trials, Bill(), {}, Repeats((), again))
    for cross in crosses(View.of(Front.of(run))):
        assert cross.y + cross.up == pytest.approx(stretch("error", 0.0))  # the interval reaches below zero
        assert cross.down < cross.up


def test_an_interval_that_reaches_below_zero_ends_before_it(fake_run: Run, repeated: Callable[..., Run]) -> None:
    for cross in crosses(View.of(Front.of(repeated(fake_run, spread=0.9)))):
        assert 0 < cross.left <= 0.95 * cross.x


def test_both_pictures_show_the_crosses_and_neither_does_without_repeats(fake_run: Run, repeated: Callable[..., Run]) -> None:
    run = repeated(fake_run)
    names = [trace.name for trace in front_plotly(Front.of(run)).data]
    assert names.count(REPEATS_LABEL) == 1
    legend = front_figure(Front.of(run)).axes[0].get_legend()
    assert legend is not None
    assert REPEATS_LABEL in [text.get_text() for text in legend.get_texts()]
    assert REPEATS_LABEL not in [trace.name for trace in front_plotly(Front.of(fake_run)).data]
    assert crosses(View.of(Front.of(fake_run))) == ()
    assert crosses(View.of(Front.of(repeated(fake_run, times=1)))) == ()  # one repeat has no interval


@pytest.mark.parametrize("accuracy", [0.1, 0.5, 0.9, 0.97, 0.994, 1.0])
def test_the_axis_of_a_single_model_has_ticks_of_its_quality(accuracy: float) -> None:
    view = View.of(Front((make_trial(0, "complete", {}, 1, values=(accuracy, 5.0), train_joules=5.0),), *TWO))
    labels = [float(label) for _, label in choose_ticks(tick_candidates(view.front), *view.y_limits)]
    assert len(labels) >= (1 if accuracy == 1 else 2)
    assert max(abs(label - accuracy) for label in labels) < 0.3, "qualities, and no places on the axis"


def test_the_axes_hold_the_whiskers_and_the_crosses_but_no_endless_ones(fake_run: Run, repeated: Callable[..., Run]) -> None:
    trials = tuple(
        make_trial(n, "complete", {}, 1, values=(a, e), train_joules=e, train_u_joules=u)
        for n, (a, e, u) in enumerate([(0.90, 3600.0, 900.0), (0.95, 7200.0, 100.0), (0.97, 36000.0, 9000.0)])
    )
    for run in (replace(fake_run, trials=trials), repeated(fake_run), repeated(fake_run, spread=0.1)):
        view = View.of(Front.of(run))
        for trial in view.front:
            left, right = view.spread(trial)
            assert view.x_limits[0] < view.x(trial) - left
            assert view.x(trial) + right < view.x_limits[1]
        for cross in crosses(view):
            assert view.x_limits[0] < cross.x - cross.left
            assert cross.x + cross.right < view.x_limits[1]
            assert view.y_limits[0] < cross.y - cross.down
            assert cross.y + cross.up < view.y_limits[1]
    endless = View.of(Front.of(replace(fake_run, trials=tuple(changed(t, train_u_joules=9 * (t.train_joules or 0)) for t in trials))))
    assert 0.2 < endless.x_limits[0] < endless.x_limits[1] < 40


def test_what_is_drawn_can_be_told_from_the_paper() -> None:
    def contrast(colour: str, opacity: float = 1.0) -> float:
        """Of a colour on white. Source: WCAG 2.2, relative luminance."""
        parts = [opacity * int(colour[place : place + 2], 16) / 255 + 1 - opacity for place in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 1.05 / (0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2] + 0.05)

    assert min(contrast(INK), contrast(MUTED), contrast(PICK)) >= 4.5
    assert contrast(STRONG, 0.75) >= 3.0
    trial = make_trial(0, "complete", {}, 1, values=(0.9, 5.0), train_joules=5.0)
    other = make_trial(1, "complete", {}, 1, values=(0.8, 9.0), train_joules=9.0)
    front = Front((trial, other), ("accuracy", "train_energy"), ("maximize", "minimize"))
    (dots,) = [one for one in front_figure(front).axes[0].collections if one.get_label() == "trial"]
    assert contrast(PALE, float(dots.get_alpha() or 1)) >= 3.0
    assert contrast(PALE, front_plotly(front).data[0].marker.opacity) >= 3.0
