"""The interactive picture: what it holds, what hovering shows, and that its page stands alone."""

from __future__ import annotations

import math
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.browser import Opened, browser

from joulefront.search.front import Front
from joulefront.search.records.run_folder import Run
from joulefront.search.report.plotly_front import front_html, front_plotly, hover
from joulefront.search.report.view import View


def test_the_carbon_axis_is_the_energy_axis_times_the_intensity_and_the_pue(fake_run: Run) -> None:
    for facts, grams in (({}, 0.056), ({"pue": 1.5}, 0.084)):
        mass, factor = View.of(Front.of(replace(fake_run, facts={**fake_run.facts, **facts}))).carbon or (None, 0.0)
        assert (mass and mass.name, factor) == ("gCO2e", pytest.approx(grams))
    assert View.of(Front.of(replace(fake_run, facts={**fake_run.facts, "intensity": None}))).carbon is None
    figure = front_plotly(Front.of(fake_run))
    low, high = figure.layout.xaxis.range
    assert tuple(10 ** (b - a) for a, b in zip((low, high), figure.layout.xaxis2.range, strict=True)) == pytest.approx((0.056, 0.056))
    assert figure.layout.xaxis2.title.text == "gCO2e"


@pytest.mark.slow
@pytest.mark.browser
def test_the_carbon_axis_follows_when_the_reader_zooms(fake_run: Run, tmp_path: Path) -> None:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("needs Chromium")
    page = front_html(Front.of(fake_run), tmp_path / "front.html")
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


def test_hover_shows_parameters_energy_by_component_and_its_quality(fake_run: Run) -> None:
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


def test_trials_below_the_axis_the_best_and_the_sensible_one_are_named_in_the_browser_too(fake_run: Run) -> None:
    view, figure = View.of(Front.of(fake_run)), front_plotly(Front.of(fake_run))
    names = [str(trace.name) for trace in figure.data]
    assert (f"{len(view.outside)} below the axis" in names) == (len(view.outside) > 0)
    shown = [annotation.text for annotation in figure.layout.annotations]
    assert any(text.startswith("<b>sensible") for text in shown)
    assert any("best</b>" in text for text in shown)


@pytest.mark.slow
@pytest.mark.browser
def test_a_long_name_the_labels_and_the_buttons_have_room_on_a_phone_and_when_it_is_turned(fake_run: Run, tmp_path: Path) -> None:
    page = front_html(Front.of(replace(fake_run, name="<b>&amp; " + "long" * 30)), tmp_path / "front.html")
    with browser() as chrome, Opened(chrome, page, width=400) as opened:
        for width in (400, 1200, 400):
            opened.page.set_viewport_size({"width": width, "height": 900})
            opened.page.wait_for_timeout(150)
            names = "['.gtitle', '.annotation-text-g', '.modebar']"
            boxes = "[...document.querySelectorAll(name)].map(e => e.getBoundingClientRect().toJSON())"
            (title,), words, (buttons,) = opened.page.evaluate(f"{names}.map(name => {boxes})")
            assert len(words) >= 1
            assert all(one["left"] >= 0 and one["right"] <= width for one in [title, *words])
            assert title["top"] >= buttons["bottom"] - 4
            assert title["bottom"] < opened.page.evaluate("document.querySelector('.xy').getBoundingClientRect().top")
        assert opened.complaints == []
        assert opened.page.locator(".gtitle").text_content().startswith("<b>&amp; long")
