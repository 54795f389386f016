"""The pictures of a front: what they hold, in which units, and that the files stand alone."""

from __future__ import annotations

import math
import re
import shutil
import subprocess
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from helpers.trials import changed, make_trial

from joulefront.search.front import Front, stretch
from joulefront.search.records.bill import Bill
from joulefront.search.records.run_folder import Run
from joulefront.search.records.trial import Trial
from joulefront.search.report.facts import grams_per_wh, how_energy_is_known
from joulefront.search.report.front_view import FrontView, save_front
from joulefront.search.report.matplotlib_front import front_figure
from joulefront.search.report.plotly_front import front_html, front_plotly, hover
from joulefront.search.report.view import View, choose_ticks, tick_candidates


def texts(figure: Any) -> str:
    from matplotlib.text import Text

    return "\n".join(text.get_text() for text in figure.findobj(Text))


def test_the_still_picture_shows_every_measured_trial_once_and_the_front_strong(fake_run: Run) -> None:
    front = Front.of(fake_run)
    (axes,) = front_figure(fake_run).axes
    sizes = {c.get_label(): len(c.get_offsets()) for c in axes.collections if hasattr(c, "get_offsets")}
    measured = [trial for trial in fake_run.trials if front.why_not(trial) is None]
    assert sizes["front"] == len(front)
    assert sizes["trial"] + sizes.get("trial below the axis", 0) == len(measured) - len(front)
    assert sizes["knee"] == 1
    (line,) = [line for line in axes.lines if line.get_drawstyle() == "steps-post"]
    assert list(line.get_xdata()) == pytest.approx([trial.train_wh for trial in front])
    assert list(line.get_ydata()) == pytest.approx([-math.log10(1.005 - trial.values[0]) for trial in front])
    for tick in axes.yaxis.get_major_ticks():
        assert tick.get_loc() == pytest.approx(-math.log10(1.005 - float(tick.label1.get_text())))
    assert axes.get_xscale() == "log"


def test_the_picture_says_units_place_and_how_the_energy_is_known(fake_run: Run, fake_run_maker: Callable[..., Run]) -> None:
    said = texts(front_figure(fake_run))
    assert "training energy of the model (Wh)" in said
    assert "gCO2e at 56 g/kWh (FR" in said
    assert "measured (gpu by nvml), estimated (cpu by cpu_time)" in said
    assert f"knee: {Front.of(fake_run).knee().values[0]:.4g}" in said
    assert "gCO2e" not in texts(front_figure(fake_run_maker(intensity=False)))


def test_the_carbon_axis_is_the_energy_axis_times_the_intensity_and_the_pue(fake_run: Run) -> None:
    assert grams_per_wh(fake_run.facts) == pytest.approx(0.056)
    assert grams_per_wh({**fake_run.facts, "pue": 1.5}) == pytest.approx(0.084)
    assert grams_per_wh({"intensity": None}) is None
    figure = front_plotly(fake_run)
    low, high = figure.layout.xaxis.range
    assert tuple(10 ** (b - a) for a, b in zip((low, high), figure.layout.xaxis2.range, strict=True)) == pytest.approx((0.056, 0.056))
    assert figure.layout.xaxis2.title.text == "gCO2e"


def test_equal_runs_give_equal_svg_files(fake_run: Run, tmp_path: Path) -> None:
    one, two = save_front(fake_run, tmp_path / "a" / "one.svg"), save_front(Front.of(fake_run), tmp_path / "two.svg")
    assert one.read_bytes() == two.read_bytes()
    assert ET.parse(one).getroot().tag.endswith("svg")


def test_png_and_html_are_written_and_html_stands_alone(fake_run: Run, tmp_path: Path) -> None:
    assert save_front(fake_run, tmp_path / "front.PNG").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    html = front_html(fake_run, tmp_path / "front.html").read_text(encoding="utf-8")
    assert len(html) > 1_000_000  # the library itself is inside
    assert not re.findall(r"<(?:script|link|img)[^>]+(?:src|href)=", html)
    config = html.split("modeBarButtonsToRemove")[-1][:200]
    assert "sendChartToCloud" in config  # a picture must not offer to upload the study


@pytest.mark.browser
def test_the_carbon_axis_follows_when_the_reader_zooms(fake_run: Run, tmp_path: Path) -> None:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("needs Chromium")
    page = front_html(fake_run, tmp_path / "front.html")
    zoom = """<script>window.addEventListener('load', function () {
      var y = [-Math.log10(1.005 - 0.88), -Math.log10(1.005 - 0.92)];
      Plotly.relayout('front', {'xaxis.range': [-1, 0], 'yaxis.range': y})
        .then(function () { return new Promise(function (r) { setTimeout(r, 200); }); })
        .then(function () {
          var layout = document.getElementById('front').layout;
          document.body.setAttribute('data-range', layout.xaxis2.range.join(' '));
          document.body.setAttribute('data-ticks', layout.yaxis.ticktext.join(' '));
        });
    });</script></body>"""
    page.write_text(page.read_text(encoding="utf-8").replace("</body>", zoom), encoding="utf-8")
    command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=5000", "--dump-dom", page.as_uri()]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    found = re.search(r'data-range="([^"]+)"', dom)
    assert found
    ticks = re.search(r'data-ticks="([^"]+)"', dom)
    assert ticks
    assert len(ticks.group(1).split()) >= 4  # zoomed into four points of accuracy, there are still ticks
    assert all(0.88 <= float(tick) <= 0.92 for tick in ticks.group(1).split())
    assert [float(x) for x in found.group(1).split()] == pytest.approx([-1 + math.log10(0.056), math.log10(0.056)])


def test_an_unknown_ending_is_refused_with_the_endings_there_are(fake_run: Run, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"ends in one of \.html, \.png, \.svg, for example front\.html"):
        save_front(fake_run, tmp_path / "front.pdf")


def test_hover_tells_parameters_energy_by_component_and_its_quality(fake_run: Run) -> None:
    front = Front.of(fake_run)
    trial = replace(front.knee(), params={"family": "<script>", "lr": 0.00123456, "<b>": 1})
    text = hover(front, trial)
    assert "gpu 1a2b3c4d" in text
    assert "measured by nvml" in text
    assert "estimated by cpu_time" in text
    assert "lr = 0.001235" in text
    assert "&lt;script&gt;" in text
    assert "<script>" not in text
    assert "&lt;b&gt; = 1" in text


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


def test_ticks_keep_their_distance_and_say_where_they_are() -> None:
    front = Front((), ("accuracy", "train_energy"), ("maximize", "minimize"))
    for low, high in ((0.1, 0.99), (0.95, 0.97), (0.0, 0.3), (0.990, 0.999)):
        ends = stretch("accuracy", low), stretch("accuracy", high)
        ticks = choose_ticks(tick_candidates(front), *ends)
        assert 4 <= len(ticks) <= 13
        assert all(later - earlier >= 0.085 * (ends[1] - ends[0]) for (earlier, _), (later, _) in pairwise(ticks))
        assert all(place == pytest.approx(stretch("accuracy", float(label))) for place, label in ticks)
    assert tick_candidates(Front((), ("likelihood", "train_energy"), ("maximize", "minimize"))) == []


@pytest.mark.parametrize(
    "trials", [(), (Trial(0, "failed", {}, 1),), (make_trial(0, "complete", {}, 1, values=(0.5, 3.0), train_joules=3.0),)]
)
def test_runs_with_no_or_one_point_are_drawn(trials: tuple[Trial, ...], tmp_path: Path) -> None:
    run = Run("a_b $x^2 {}", tmp_path, ("accuracy", "train_energy"), ("maximize", "minimize"), (1,), trials, Bill())
    assert len(front_plotly(run).data) >= 1
    if Front.of(run).members:
        assert save_front(run, tmp_path / "front.png").stat().st_size > 1000
    else:  # axes with invented numbers would be taken for a result
        with pytest.raises(ValueError, match=r"nothing to draw in .*The front of .* is empty"):
            save_front(run, tmp_path / "front.png")
        assert not (tmp_path / "front.png").exists()


def test_an_error_and_a_third_objective_are_drawn(fake_run: Run, tmp_path: Path) -> None:
    trials = tuple(
        replace(t, values=(1 - t.values[0], t.values[1], float(t.parameters or 1000))) if t.values else t for t in fake_run.trials
    )
    run = replace(fake_run, trials=trials, objectives=("error", "train_energy", "parameters"), directions=("minimize",) * 3)
    view = View.of(run)
    assert len(view.line) < len(view.front)  # some members are there for their size alone
    joined = [(trial.train_joules, trial.values[0]) for trial in view.line]
    assert joined == sorted(joined)
    assert [q for _, q in joined] == sorted((q for _, q in joined), reverse=True)
    assert view.bottom == view.y_limits[0]  # less error is higher
    assert save_front(run, tmp_path / "front.png").exists()
    assert front_plotly(run).layout.yaxis.title.text == "validation error (log-error scale)"


def test_front_plot_gives_a_figure_or_a_file(fake_run: Run, tmp_path: Path) -> None:
    front = FrontView.of(fake_run)
    assert type(front.plot()).__name__ == "Figure"
    assert front.plot(tmp_path / "f.svg") == tmp_path / "f.svg"
    assert how_energy_is_known(Front((), front.objectives, front.directions)) == ""


def test_trials_below_the_axis_the_best_and_the_knee_are_named_in_the_browser_too(fake_run: Run) -> None:
    view, figure = View.of(fake_run), front_plotly(fake_run)
    names = [str(trace.name) for trace in figure.data]
    assert (f"{len(view.outside)} below the axis" in names) == (len(view.outside) > 0)
    said = [annotation.text for annotation in figure.layout.annotations]
    assert any(text.startswith("<b>knee") for text in said)
    assert any("best</b>" in text for text in said)


def test_a_label_stands_beside_its_point_on_the_side_where_no_front_is_in_both_pictures() -> None:
    def at(*points: tuple[float, float]) -> Front:
        trials = tuple(make_trial(n, "complete", {}, 1, values=(q, e), train_joules=e) for n, (q, e) in enumerate(points))
        return Front(trials, ("accuracy", "train_energy"), ("maximize", "minimize"))

    far_right, far_left = at((0.5, 1.0), (0.9, 90.0), (0.91, 100.0)), at((0.5, 1.0), (0.9, 1.1), (0.91, 100.0))  # the knee is the second
    for front, expected in ((far_right, ("right", "bottom")), (far_left, ("left", "top"))):
        view, knee = View.of(front), front.knee()
        assert view.anchor(knee, f"knee {view.label(knee)}") == expected
        still = next(text for text in front_figure(front).axes[0].texts if text.get_text().startswith("knee"))
        assert (still.get_ha(), still.get_va()) == expected
        assert still.xy == pytest.approx((view.x(knee), view.y(knee)))
        moving = next(one for one in front_plotly(front).layout.annotations if one.text.startswith("<b>knee"))
        assert (moving.xanchor, moving.yanchor) == expected
        assert (10**moving.x, moving.y) == (pytest.approx(view.x(knee)), view.y(knee))
        assert ((moving.xshift < 0), (moving.yshift > 0)) == ((expected[0] == "right"), (expected[1] == "bottom"))


def test_a_label_of_a_quality_that_is_better_when_small_stands_on_the_better_side() -> None:
    trials = tuple(make_trial(n, "complete", {}, 1, values=(q, e), train_joules=e) for n, (q, e) in enumerate([(9.0, 1.0), (2.0, 100.0)]))
    view = View.of(Front(trials, ("perplexity", "train_energy"), ("minimize", "minimize")))
    assert view.anchor(trials[0], "cheapest, 9 at 1 J") == ("left", "bottom")
    assert view.anchor(trials[1], "best, 2 at 100 J") == ("right", "top")


def test_a_front_of_one_trial_is_seen_beside_the_better_half_of_the_others() -> None:
    trials = tuple(
        make_trial(n, "complete", {}, 1, values=(accuracy, 10.0 + n), train_joules=10.0 + n)
        for n, accuracy in enumerate((0.93, 0.85, 0.8, 0.3))
    )
    view = View.of(Front(trials, ("accuracy", "train_energy"), ("maximize", "minimize")))
    assert [word for word, _ in view.named] == ["knee, best"]
    assert all(view.y_limits[0] <= view.y(trial) <= view.y_limits[1] for trial in trials[:3])
