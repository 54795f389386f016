"""The still picture: what it holds, in which units."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.dom import minidom

import pytest

from joulefront.search.front import Front
from joulefront.search.records.run_folder import Run
from joulefront.search.report.matplotlib_front import front_figure, save_figure
from joulefront.search.report.view import View


def texts(figure: Any) -> str:
    from matplotlib.text import Text

    return "\n".join(text.get_text() for text in figure.findobj(Text))


def test_the_still_picture_shows_every_measured_trial_once_and_the_front_strong(fake_run: Run) -> None:
    front = Front.of(fake_run)
    (axes,) = front_figure(Front.of(fake_run)).axes
    sizes = {c.get_label(): len(c.get_offsets()) for c in axes.collections if hasattr(c, "get_offsets")}
    measured = [trial for trial in fake_run.trials if front.why_not(trial) is None]
    assert sizes["front"] == len(front)
    assert sizes["trial"] + sizes.get("trial below the axis", 0) == len(measured) - len(front)
    assert sizes["sensible"] == 1
    (line,) = [line for line in axes.lines if line.get_drawstyle() == "steps-post"]
    assert list(line.get_xdata()) == pytest.approx([trial.train_wh for trial in front])
    assert list(line.get_ydata()) == pytest.approx([-math.log10(1.005 - trial.values[0]) for trial in front])
    for tick in axes.yaxis.get_major_ticks():
        assert tick.get_loc() == pytest.approx(-math.log10(1.005 - float(tick.label1.get_text())))
    assert axes.get_xscale() == "log"


@pytest.mark.slow
def test_the_picture_shows_units_place_and_how_the_energy_is_known(fake_run: Run, fake_run_maker: Callable[..., Run]) -> None:
    shown = texts(front_figure(Front.of(fake_run)))
    assert "training energy of the model (Wh)" in shown
    assert "gCO2e at 56 g/kWh (FR" in shown
    assert "measured (gpu by nvml), estimated (cpu by cpu_time)" in shown
    assert f"sensible, best: {Front.of(fake_run).sensible().values[0]:.4f}" in shown
    assert "gCO2e" not in texts(front_figure(Front.of(fake_run_maker(intensity=False))))


@pytest.mark.slow
def test_a_name_is_no_formula_and_breaks_no_picture(fake_run: Run, tmp_path: Path) -> None:
    figure = front_figure(Front.of(replace(fake_run, name="a$b^_{\x1b[31m \\frac$")))
    save_figure(figure, tmp_path / "front.png")
    written = minidom.parse(str(save_figure(figure, tmp_path / "front.svg"))).documentElement.toxml()
    assert "a$b^_{\\x1b[31m \\frac$" in written
    assert "against training energy" in written


@pytest.mark.slow
def test_two_names_of_neighbours_do_not_cover_each_other(fake_run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.text import Annotation

    last = list(Front.of(fake_run))[-1]
    monkeypatch.setattr(View, "named", property(lambda view: [("sensible", last), ("best", last)]))
    figure = front_figure(Front.of(fake_run))
    figure.canvas.draw()
    one, other = (text.get_window_extent() for text in figure.axes[0].findobj(Annotation))
    assert not one.overlaps(other)


@pytest.mark.slow
def test_a_long_name_cuts_no_title_and_letters_that_the_font_lacks_are_one_warning(fake_run: Run, tmp_path: Path) -> None:
    from matplotlib.text import Text

    figure = front_figure(Front.of(replace(fake_run, name="名前 " + "W" * 120)))
    with pytest.warns(UserWarning, match=r"lacks 2 of its letters, drawn as boxes; write \.svg") as said:
        save_figure(figure, tmp_path / "front.png")
    assert len(said) == 1
    save_figure(figure, tmp_path / "front.svg")  # whose font is its reader's
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        name, title, caption = (next(t for t in figure.findobj(Text) if word in t.get_text()) for word in ("WW", "against", "trials"))
        assert max(text.get_window_extent().x1 for text in (name, title, caption)) <= figure.bbox.width
        assert name.get_text().replace("\n", "").count("W") == 120
        axes = figure.axes[0]
        assert title.get_window_extent().y0 >= axes.get_window_extent().y1
