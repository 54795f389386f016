"""The report page: every section, nothing fetched, nothing from a run that could act as markup."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from helpers.trials import changed, make_trial

from joulefront.search.records.bill import Bill
from joulefront.search.records.run_folder import Run
from joulefront.search.records.trial import Trial
from joulefront.search.report.page import report_html
from joulefront.search.report.statement import statement


class Outline(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.titles: list[str] = []
        self.tags: list[str] = []
        self.links: list[str] = []
        self.open: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.open.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if "script" not in self.open and "style" not in self.open:
            self.text.append(data)
            if self.open and self.open[-1] == "h2":
                self.titles.append(data)


def read(path: Path) -> tuple[Outline, str]:
    outline = Outline()
    outline.feed(path.read_text(encoding="utf-8"))
    return outline, re.sub(r"\s+", " ", " ".join(outline.text))


@pytest.mark.slow
def test_the_page_has_its_sections_in_order_and_no_others(fake_page: Path) -> None:
    outline, _ = read(fake_page)
    assert outline.titles == [
        "Front",
        "Hypervolume against Wh spent",
        "Energy of the search",
        "Parameter importance",
        "Measurement sources",
        "Projected energy of trainings",
        "Size, operations and energy",
        "Failed trials",
        "All trials",
        "Impact statement",
        "Reproduction",
    ]


def test_the_page_fetches_nothing_and_forbids_it(fake_page: Path) -> None:
    outline, _ = read(fake_page)
    assert [link for link in outline.links if not link.startswith("#")] == []
    html = fake_page.read_text(encoding="utf-8")
    assert "default-src &#x27;none&#x27;" in html or "default-src 'none'" in html
    assert html.count("plotly.js v") == 1  # the library once, five charts


def test_the_page_shows_measurement_sources_and_costs(fake_page: Path, fake_run: Run) -> None:
    _, text = read(fake_page)
    assert "RAPL has no dram zone on this processor" in text
    assert "train Wh search Wh" in text
    assert "measured" in text
    assert "estimated" in text
    assert "the loss became NaN in epoch 1" in text
    assert "NVIDIA <Example> 24 GB" in text  # as text
    assert "joulefront run images --data photos" in text
    assert "seed" in text
    failed = sum(trial.state == "failed" for trial in fake_run.trials)
    assert f"trials, {failed} failed" in text
    assert "together 100.00 % of it" in text
    assert "n = 38 trials of 13 configurations" in text


@pytest.mark.slow
def test_a_meter_that_was_lost_on_the_way_is_named_beside_the_sums(fake_run: Run, tmp_path: Path) -> None:
    name = next(iter(fake_run.bill.by_component))
    run = replace(fake_run, bill=replace(fake_run.bill, unknown_seconds={name: 99.0}))
    page = report_html(run, tmp_path / "report.html").read_text()
    assert f"Not in these sums, because its meter gave nothing then: {name} for 99.0 s" in page
    assert "no reading for 99.0 s" in page
    assert f"{name} for 99.0 s" in statement(run)
    assert "Not in these sums" not in statement(fake_run)


@pytest.mark.slow
def test_nothing_in_a_run_can_act_as_markup(fake_run: Run, tmp_path: Path) -> None:
    evil = "<img src=x onerror=alert(1)></script><script>alert(2)</script>"
    trials = tuple(
        changed(t, params={**t.params, evil: evil}, reason=t.reason and evil, components={evil: next(iter(t.components.values()))})
        if t.components
        else t
        for t in fake_run.trials
    )
    facts = {**fake_run.facts, "study": {"name": evil, "description": evil}, "sessions": [{"command": evil, "hardware": {evil: evil}}]}
    bill = replace(fake_run.bill, absent={evil: evil})
    outline, _ = read(report_html(replace(fake_run, name=evil, trials=trials, facts=facts, bill=bill), tmp_path / "r.html"))
    assert "img" not in outline.tags
    scripts = re.findall(r"<script[^>]*>(.*?)</script>", (tmp_path / "r.html").read_text(encoding="utf-8"), re.S)
    assert "alert(2)" not in scripts


@pytest.mark.slow
def test_estimate_and_anchor_appear_when_the_run_holds_them(fake_run: Run, tmp_path: Path) -> None:
    total = fake_run.bill.total_joules or 0.0
    facts = {
        **fake_run.facts,
        "estimate": {
            "joules": total / 1.25,
            "low_joules": total / 2,
            "high_joules": total * 2,
            "trials": 10.0,
            "low_trials": 5.0,
            "high_trials": 15.0,
        },
        "anchor": {"joules": [100.0, 102.0, 104.0], "params": {"family": "mlp"}},
    }
    outline, text = read(report_html(replace(fake_run, facts=facts), tmp_path / "r.html"))
    assert "Estimate against actual" in outline.titles
    assert "1.25 yes" in text  # actual over estimate, inside the interval
    assert "4.00 no" in text  # 40 trials against 10
    assert "Drift of the anchor" in outline.titles
    assert "n = 3" in text
    assert "last against first +4.0 %" in text


@pytest.mark.parametrize("count", [0, 1, 4])
def test_a_young_run_is_reported_with_what_is_still_unknown(count: int, tmp_path: Path) -> None:
    trials = tuple(
        make_trial(n, "complete", {"lr": 0.1 * n}, 1, values=(0.5 + 0.1 * n, 10.0 + n), train_joules=10.0 + n) for n in range(count)
    )
    run = Run(
        "young", tmp_path, ("accuracy", "train_energy"), ("maximize", "minimize"), (1,), (*trials, Trial(count, "running", {}, 0)), Bill()
    )
    _, text = read(report_html(run, tmp_path / "r.html"))
    assert "1 trial is still running" in text
    assert f"No ranking: {count} different configurations were measured; at least 8 are needed" in text
    assert "Unknown: nothing could be measured or estimated." in text


def test_a_report_is_html(fake_run: Run, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a report is an HTML page, write for example report\.html"):
        report_html(fake_run, tmp_path / "report.pdf")


@pytest.mark.slow
@pytest.mark.browser
def test_a_browser_draws_all_charts_under_the_policy_without_a_complaint(fake_page: Path) -> None:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("needs Chromium")
    command = [
        chromium,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--virtual-time-budget=8000",
        "--enable-logging=stderr",
        "--dump-dom",
    ]
    done = subprocess.run([*command, fake_page.as_uri()], capture_output=True, text=True, timeout=120, check=True)
    assert not [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert len(re.findall(r'class="main-svg"', done.stdout)) >= 5


@pytest.mark.slow
def test_a_report_of_a_run_without_carbon_guesses_none(fake_run_maker: Callable[..., Run], tmp_path: Path) -> None:
    _, text = read(report_html(fake_run_maker(intensity=False), tmp_path / "r.html"))
    assert "gCO2e" not in text
    assert "carbon is not stated" in text
