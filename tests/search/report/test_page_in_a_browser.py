"""The decision page in Chromium: drawn at every width, chosen on, readable, printed, and deaf to what a run's texts try."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import helpers.browser
import pytest
from helpers.browser import Opened, browser
from helpers.page import EVIL, hostile
from helpers.trials import changed, complete

from joulefront.search.front import Front
from joulefront.search.records.bill import Bill
from joulefront.search.records.replicates import Plan, Repeat, Repeats
from joulefront.search.records.run_folder import Run
from joulefront.search.records.trial import Trial
from joulefront.search.report.page import report_html

pytestmark = [pytest.mark.slow, pytest.mark.browser]


@pytest.fixture(scope="module")
def chrome() -> Iterator[Any]:
    with browser() as found:
        yield found


@pytest.fixture(scope="module")
def window(chrome: Any) -> Iterator[Opened]:
    with Opened(chrome, "about:blank") as opened:
        yield opened


READABLE = (Path(helpers.browser.__file__).parent / "readable.js").read_text()


@pytest.mark.parametrize(("width", "dark"), [(390, False), (800, True), (1440, False)])
def test_it_is_drawn_and_readable_at_every_width_without_a_complaint_or_a_request_and_prints_in_light_colours(
    chrome: Any, fake_page: Path, width: int, dark: bool
) -> None:
    with Opened(chrome, fake_page, width=width, dark=dark) as opened:
        opened.page.wait_for_selector("#chart svg")
        assert opened.complaints == []
        assert [url for url in opened.requests if not url.startswith(("file:", "data:"))] == []
        assert opened.page.evaluate("document.documentElement.scrollWidth") <= width  # nothing sticks out to the side
        boxes = {name: opened.page.locator(name).bounding_box() for name in ("#s-front", "#s-members", "#details")}
        if width > 860:  # no hole under the chart: the table goes on there, beside the chosen model
            assert boxes["#s-members"]["x"] == boxes["#s-front"]["x"] < boxes["#details"]["x"]
            assert boxes["#s-members"]["y"] - boxes["#s-front"]["y"] - boxes["#s-front"]["height"] < 20
        assert opened.page.evaluate("+document.querySelector('#chart canvas').dataset.dots") > 5
        found = opened.page.evaluate(READABLE)
        assert len(found["text"]) > 100
        assert found["text"][0][0] >= 4.5, found["text"][:5]
        assert found["marks"][0][0] >= 3.0, found["marks"][:5]
        assert found["unnamed"] == []
        names = opened.page.evaluate(
            "[...document.querySelectorAll('h1, h2, h3')].filter(e => e.getClientRects().length).map(e => +e.tagName[1])"
        )
        assert names[0] == 1
        assert all(after - before <= 1 for before, after in itertools.pairwise(names))
        if dark:
            opened.page.emulate_media(media="print")
            assert opened.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
            assert not opened.page.is_visible("#quality")
            assert opened.page.is_visible("#members")
            assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
            assert opened.page.evaluate(READABLE)["text"][0][0] >= 4.5


def few(run: Run, count: int) -> Run:
    """The run with as many measured trials, and one that is still training."""
    measured = [t for t in run.trials if t.state == "complete" and t.parent is None][:count]
    return replace(run, trials=(*(replace(t, number=n) for n, t in enumerate(measured)), Trial(count, "running", {"lr": 0.1}, 0)))


def with_loss(run: Run, name: str, direction: str, of: Callable[[float], float]) -> Run:
    """The run with another quality."""
    trials = tuple(replace(t, values=(of(t.values[0]), *t.values[1:])) if t.values else t for t in run.trials)
    return replace(run, objectives=(name, *run.objectives[1:]), directions=(direction, *run.directions[1:]), trials=trials)


STRANGE: dict[str, Callable[[Run], Run]] = {
    "nothing measured": lambda run: few(run, 0),
    "one model": lambda run: few(run, 1),
    "less is better, without a best value": lambda run: with_loss(run, "rmse", "minimize", lambda q: 100 - 90 * q),
    "an error": lambda run: with_loss(run, "error", "minimize", lambda q: 1 - q),
    "r2, below zero": lambda run: with_loss(run, "r2", "maximize", lambda q: 3 * q - 2),
    "a metric of somebody": lambda run: with_loss(run, "my <score>", "maximize", lambda q: 1e-6 * q),
    "no facts and no bill": lambda run: replace(run, facts={}, bill=Bill()),
    "energies of nothing": lambda run: replace(run, trials=tuple(changed(t, components={}, train_u_joules=None) for t in run.trials)),
}


@pytest.mark.parametrize("kind", STRANGE)
def test_a_strange_run_is_drawn_without_a_complaint_and_every_rule_can_be_chosen(
    window: Opened, fake_run: Run, tmp_path: Path, kind: str
) -> None:
    run = STRANGE[kind](fake_run)
    front = Front.of(run)
    opened = window.show(report_html(run, tmp_path / "r.html", ranking=False), width=800)
    for rule in ("cheapest", "knee", "best", "sensible") if len(front) else ():
        opened.page.click(f"#presets button[data-rule={rule}]")
        assert opened.page.inner_text("#h-pick").split()[1] == str(front.pick(rule).number)
        assert "NaN" not in opened.text()
        assert "undefined" not in opened.text()
    if len(front):
        opened.page.fill("#quality", "1000")
        assert opened.page.inner_text("#h-pick").split()[1] == str(front.best().number)
    if len(front) == 1:
        assert "The front has one model" in opened.text("#payback")
    assert "joulefront report" in opened.text("#statement")  # made without the ranking, it is the page of a run
    assert opened.complaints == []


def test_nothing_in_a_run_acts_in_a_browser(window: Opened, fake_run: Run, tmp_path: Path) -> None:
    opened = window.show(report_html(hostile(fake_run), tmp_path / "r.html"))
    opened.page.wait_for_selector("#chart svg")
    opened.page.click("#rest > summary")
    for details in opened.page.query_selector_all("details"):
        details.evaluate("one => { one.open = true; }")
    opened.page.wait_for_selector("#all tbody tr")
    assert opened.complaints == []
    assert opened.page.query_selector_all("main img, main script, main b b") == []
    assert opened.page.inner_text("h1") == EVIL.replace("\u2028", "\u2028")
    assert EVIL[:28] in opened.text("#details")
    assert opened.page.evaluate("[...document.querySelectorAll('*')].every(e => [...e.attributes].every(a => !a.name.startsWith('on')))")


def test_sliders_presets_keys_and_links_choose_a_model(window: Opened, fake_run: Run, fake_page: Path) -> None:
    front = Front.of(fake_run)
    opened = window.show(fake_page)
    page = opened.page

    def chosen() -> int:
        return int(page.inner_text("#h-pick").split()[1])

    assert chosen() == front.sensible().number
    for rule in ("cheapest", "knee", "best", "sensible"):
        page.click(f"#presets button[data-rule={rule}]")
        assert chosen() == front.pick(rule).number
        assert page.get_attribute(f"#presets button[data-rule={rule}]", "aria-pressed") == "true"
    page.click("#presets button[data-rule=cheapest]")
    page.focus("#members input:checked")
    page.keyboard.press("ArrowDown")
    assert chosen() == front.members[1].number
    assert page.evaluate("document.activeElement.name") == "pick"  # the arrow keys go on
    assert page.url.endswith(f"#trial={front.members[1].number}")
    page.fill("#quality", "900")
    needed = page.inner_text("#o-quality")
    assert front.pick(f"accuracy>={float(needed.split()[0]) - 0.06}%").number == chosen()
    assert page.query_selector("#members .tag:has-text('outside')")
    page.goto(f"{fake_page.as_uri()}#trial={front.members[2].number}")
    page.reload()
    assert chosen() == front.members[2].number
    assert f"--pick trial={front.members[2].number} " in opened.text("#details")
    assert opened.complaints == []


def test_with_predictions_the_choice_is_by_the_energy_of_a_whole_life(window: Opened, fake_run: Run, fake_page: Path) -> None:
    front = Front.of(fake_run)
    opened = window.show(fake_page)
    opened.page.fill("#uses", "10")
    assert "10 billion predictions" in opened.text("#details")
    text = re.search(r"Trial (\d+)", opened.text("#details"))
    assert text is not None
    ties = [front.pick(f"trial={number}") for number in front.choice.ties]

    def life(trial: Trial) -> float:
        return (trial.train_joules or 0.0) + 1e7 * (trial.inference_joules_per_1000 or 0.0)

    assert int(text.group(1)) == min(ties, key=life).number


def test_a_page_that_was_made_for_many_predictions_opens_so(window: Opened, fake_run: Run, tmp_path: Path) -> None:
    opened = window.show(report_html(fake_run, tmp_path / "r.html", uses=10_000_000))
    assert opened.text("#o-uses") == "10 million"
    assert "With 10 million predictions" in opened.text("#details")
    assert opened.complaints == []


def test_ties_by_repeats_are_those_with_the_best_and_money_has_no_exponent(window: Opened, fake_run: Run, tmp_path: Path) -> None:
    trials = tuple(complete(n, 0.9 + 0.001 * n, 100.0 * 10**n) for n in range(3))
    again = tuple(Repeat(0, n, k, k, k, 1, {"accuracy": 0.9 + 0.02 * (k - 2)}, 100.0 * 10**n + k) for n in range(3) for k in range(5))
    run = replace(fake_run, trials=trials, repeats=Repeats((Plan("", (0, 1, 2), 5, "given", 0),), again))
    run = replace(run, facts={**run.facts, "price_per_kwh": (0.25, "EUR"), "pue": 1.0})
    assert Front.of(run).choice.ties == (0, 1, 2)
    best = Front.of(run).choice.best
    opened = window.show(report_html(run, tmp_path / "r.html", ranking=False))
    opened.page.check(f"#members input[value='{(best + 1) % 3}']")
    assert re.search(rf"\bIt cannot be told from 1 other:\s+{best}\s", opened.text("#details"))
    opened.page.check("#members input[value='0']")
    assert "0.00000694 EUR" in opened.text("#details").replace("\u00a0", " ")
    assert opened.complaints == []


def test_ten_thousand_trials_are_one_canvas_and_their_table_comes_when_it_is_asked_for(
    window: Opened, fake_run_maker: Callable[..., Run], tmp_path: Path
) -> None:
    opened = window.show(report_html(fake_run_maker(configs=4450), tmp_path / "r.html", ranking=False))
    opened.page.wait_for_selector("#chart svg")
    assert opened.page.evaluate("document.querySelectorAll('*').length") < 3000  # 131,000 before
    opened.page.click("#rest > summary")
    opened.page.wait_for_selector("#all tbody tr:nth-child(200)")  # a browser says later that something was unfolded
    assert len(opened.page.query_selector_all("#all tbody tr")) == 200
    opened.page.fill("#filter", "NaN")
    assert "the loss became NaN" in opened.text("#all tbody tr")
    assert opened.complaints == []


def test_the_table_of_all_trials_shows_and_filters_by_their_own_numbers(window: Opened, fake_run: Run, tmp_path: Path) -> None:
    first = fake_run.trials[0].params
    run = replace(fake_run, trials=tuple(changed(t, hardware_id="other") if t.params == first else t for t in fake_run.trials))
    last = run.comparable().trials[-1].number
    opened = window.show(report_html(run, tmp_path / "r.html", ranking=False))
    opened.page.click("#rest > summary")
    opened.page.wait_for_selector("#all tbody tr")
    opened.page.fill("#filter", str(last))
    shown = [text.split()[0] for text in opened.page.eval_on_selector_all("#all tbody tr", "rows => rows.map(row => row.innerText)")]
    assert str(last) in shown
    assert opened.complaints == []


def test_any_place_can_be_chosen_where_that_of_the_run_is_unknown(
    window: Opened, fake_run_maker: Callable[..., Run], tmp_path: Path
) -> None:
    opened = window.show(report_html(fake_run_maker(intensity=False), tmp_path / "r.html", ranking=False))
    assert "its carbon is not stated" in opened.text("#carbon")
    assert "gCO₂e" not in opened.text("#bill")
    for place in ("0", "1"):  # the first is the cleanest
        opened.page.select_option("#place", place)
        assert opened.page.eval_on_selector("#place", "one => one.value") == place
        assert "its carbon is not stated" not in opened.text("#carbon")
        assert "gCO₂e" in opened.text("#bill")
    opened.page.select_option("#place", "-1")
    assert "its carbon is not stated" in opened.text("#carbon")


def test_under_a_forecast_a_model_keeps_the_grams_of_its_own_hours(window: Opened, fake_run: Run, tmp_path: Path) -> None:
    trials = tuple(changed(t, grams_co2e=t.train_joules and t.train_joules / 3.6e6 * 20) for t in fake_run.trials)
    mean = {"grams_per_kwh": 100.0, "zone": None, "source": "forecast: given by the user, mean over the energy of this search"}
    run = replace(fake_run, trials=trials, facts={**fake_run.facts, "intensity": mean})
    joules = Front.of(run).sensible().train_joules or 0.0
    opened = window.show(report_html(run, tmp_path / "r.html", ranking=False))

    def shown(grams_per_kwh: float) -> bool:
        text = opened.page.evaluate(f"mass({joules / 3.6e6 * grams_per_kwh})")
        members = text.removesuffix("CO₂e") in opened.page.text_content("#members tr.on")
        assert members == (f"; {text};" in opened.text("#details .big"))
        return members

    assert shown(20)
    assert opened.page.eval_on_selector("#place", "one => one.selectedOptions[0].textContent") == "here: by the forecast (100 g/kWh)"
    opened.page.select_option("#place", "1")
    assert shown(opened.page.evaluate("run.places[1].grams_per_kwh"))
    assert not shown(20)
    opened.page.select_option("#place", "0")
    assert shown(20)


def test_every_objective_is_in_the_table_at_any_width_once_in_the_details_and_no_range_goes_from_a_model_to_itself(
    window: Opened, fake_run: Run, tmp_path: Path
) -> None:
    names = ("accuracy", "train_energy", "inference_energy", "parameters", "macro_f1")
    found = [(0, 0.99, 10.0, 9.0, 123456), (1, 0.9, 20.0, 5.0, 400), (2, 0.9, 30.0, 3.0, 700)]
    trials = tuple(
        complete(
            n,
            accuracy,
            joules,
            values=(accuracy, joules, per_1000, float(parameters), 0.765),
            epochs=3,
            parameters=parameters,
            inference_joules_per_1000=per_1000,
            curve=tuple({"epoch": epoch, "loss": 1 / epoch, "accuracy": 0.3 * epoch} for epoch in (1, 2, 3)),
        )
        for n, accuracy, joules, per_1000, parameters in found
    )
    run = replace(fake_run, objectives=names, directions=("maximize", *["minimize"] * 3, "maximize"), trials=trials)
    opened = window.show(report_html(run, tmp_path / "r.html", ranking=False), width=400)
    for width in (400, 1000):
        opened.page.set_viewport_size({"width": width, "height": 900})
        assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
        row = opened.text("#members tr.on").split()
        assert {"123,456", "9", "0.765"} <= set(row), row
    assert opened.page.locator("#details dt").all_inner_texts().count("parameters") == 1
    assert "99.00\xa0% for 2.78\xa0mWh is the best and the cheapest" in opened.text("#lead")
    assert "the others are better in energy of a prediction or number of parameters or macro_f1." in opened.text("#lead")
    assert "from 99" not in (opened.page.get_attribute("#chart", "aria-label") or "")
    ticks = opened.page.evaluate(
        "[...document.querySelectorAll('#details .plot [aria-label=\"x-axis tick label\"]')].map(e => e.textContent)"
    )
    assert ticks == ["123", "123"]
    assert opened.page.evaluate("getComputedStyle(document.querySelector('#members .tag')).whiteSpace") == "nowrap"
    opened.page.set_viewport_size({"width": 400, "height": 900})
    assert opened.page.evaluate("getComputedStyle(document.querySelector('#members .tag')).whiteSpace") == "normal"
