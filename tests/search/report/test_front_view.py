"""A front as text, rows, data frame, HTML and files."""

import csv
import io
import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from helpers.trials import TWO, complete, make_trial

from joulefront.search.front import Front
from joulefront.search.records.bill import Bill
from joulefront.search.records.run_folder import Run
from joulefront.search.records.trial import Trial
from joulefront.search.report.facts import how_energy_is_known
from joulefront.search.report.front_view import FrontView, save_front
from joulefront.search.report.plotly_front import front_html, front_plotly

ROW_KEYS = ["trial", "epochs", "accuracy", "train_joules", "train_wh", "grams_co2e", "inference_joules_per_1000"]
ROW_KEYS += ["parameters", "quality", "params", "contended", "low", "high", "validation_examples", "right", "ties_best", "beats_guessing"]
ROW_KEYS += ["sensible", "baseline", "validation_folds"]


def test_rows_have_exactly_the_stable_keys_and_null_where_unknown() -> None:
    trial = complete(4, 0.9, 7200.0, params={"lr": 0.1}, epochs=3, parameters=10, quality={"accuracy": 0.9})
    (row,) = FrontView((trial,), *TWO).to_rows()
    assert list(row) == ROW_KEYS
    assert row["train_wh"] == 2.0
    assert row["grams_co2e"] is None
    assert row["inference_joules_per_1000"] is None
    assert json.loads(json.dumps(row, allow_nan=False)) == row


def test_another_quality_has_its_own_key_beside_an_unknown_accuracy() -> None:
    trial = complete(0, 0.7, 10.0, quality={"r2": 0.7})
    front = FrontView((trial,), ("r2", "train_energy"), ("maximize", "minimize"))
    (row,) = front.to_rows()
    assert list(row) == [*ROW_KEYS[:3], "r2", *ROW_KEYS[3:]]
    assert (row["accuracy"], row["r2"]) == (None, 0.7)
    assert front.to_csv().splitlines()[0] == ",".join(row)


@pytest.mark.slow
def test_csv_and_frame_hold_what_the_rows_hold() -> None:
    trials = (complete(0, 0.8, 36.0, params={"family": "a,b", "lr": 0.1}), complete(1, 0.9, 360.0, params={"family": "c"}))
    front = FrontView(trials, *TWO)
    read = list(csv.DictReader(io.StringIO(front.to_csv())))
    assert [json.loads(row["params"]) for row in read] == [{"family": "a,b", "lr": 0.1}, {"family": "c"}]
    assert [float(row["train_wh"]) for row in read] == [0.01, 0.1]
    assert read[0]["grams_co2e"] == ""
    frame = front.to_frame()
    assert list(frame["params_family"]) == ["a,b", "c"]
    assert frame["params_lr"].isna().tolist() == [False, True]
    assert "params" not in frame
    assert list(FrontView((), *TWO).to_frame().columns) == [key for key in ROW_KEYS if key != "params"]


def test_the_front_shows_itself_in_a_terminal_and_in_a_notebook() -> None:
    front = FrontView(
        (
            complete(0, 0.8, 36.0, params={"family": "<b>"}, parameters=1234, energy_quality="estimated"),
            complete(1, 0.9, 3600.0, grams_co2e=0.056, energy_quality="estimated"),
        ),
        *TWO,
        name="digits",
    )
    text = front.to_text(width=120)
    assert "cheapest" in text
    assert "1.23 k" in text
    assert "mgCO2e" in text
    assert "estimated" in text
    assert max(map(len, text.splitlines()[:-1])) <= 120
    html = front._repr_html_()
    assert "&lt;b&gt;" in html
    assert "<b>" not in html.split("<table>")[1]
    empty = FrontView((), *TWO)
    assert "empty" in empty._repr_html_()
    assert "empty" in empty.to_text()


def test_the_last_line_explains_what_the_uncertainty_covers_and_what_it_leaves_out() -> None:
    record = {"joules": 10.0, "u_systematic_joules": 5.0}
    front = FrontView((complete(0, 0.9, 10.0, train_u_joules=1e-5, record=record),), *TWO)
    said = front.to_text(width=400)
    assert "Energies of one model trained again spread by 3 to 23 % in the digits study (sd); joulefront repeat measures yours." in said
    assert "The scale, common to all rows, is known to ±50 % (standard uncertainty)." in said
    assert "±" not in said.splitlines()[2]  # the meter's own uncertainty is a part of that, and is not shown as the whole
    plain = FrontView((complete(0, 0.9, 10.0),), *TWO).to_text()
    assert "±" not in plain


def test_an_empty_front_gives_the_reason_and_the_remedy() -> None:
    assert "no trial has started" in FrontView((), *TWO).to_text()
    failed = FrontView((Trial(0, "failed", {}, 1), complete(1, 0.9, None)), *TWO)
    assert failed.to_text() == (
        "The front of 'front' is empty: of 2 trials 1 a value is unknown, 1 failed. "
        "joulefront report shows why trials failed; joulefront run continues the search where that has been put right."
    )
    assert "<Front" not in failed._repr_html_()
    early = FrontView((complete(0, 0.9, 5.0),), *TWO, complete_only=True)
    assert "without complete_only" in early.to_text()


def test_neighbours_that_the_meter_cannot_tell_apart_are_marked() -> None:
    near = FrontView((complete(0, 0.7, 100.0, train_u_joules=3.0), complete(1, 0.8, 105.0, train_u_joules=4.0)), *TWO)
    assert "≈" in near.to_text()
    assert "within the uncertainty" in " ".join(near.to_text().split())
    apart = FrontView((complete(0, 0.7, 100.0, train_u_joules=3.0), complete(1, 0.8, 200.0, train_u_joules=4.0)), *TWO)
    assert "≈" not in apart.to_text()


@pytest.mark.slow
def test_equal_runs_give_equal_svg_files(fake_run: Run, tmp_path: Path) -> None:
    one, two = save_front(Front.of(fake_run), tmp_path / "a" / "one.svg"), save_front(Front.of(fake_run), tmp_path / "two.svg")
    assert one.read_bytes() == two.read_bytes()
    assert ET.parse(one).getroot().tag.endswith("svg")


@pytest.mark.slow
def test_png_and_html_are_written_and_html_stands_alone(fake_run: Run, tmp_path: Path) -> None:
    assert save_front(Front.of(fake_run), tmp_path / "front.PNG").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    html = front_html(Front.of(fake_run), tmp_path / "front.html").read_text(encoding="utf-8")
    assert len(html) > 1_000_000  # the library itself is inside
    assert not re.findall(r"<(?:script|link|img)[^>]+(?:src|href)=", html)
    config = html.split("modeBarButtonsToRemove")[-1][:200]
    assert "sendChartToCloud" in config  # a picture must not offer to upload the study


def test_an_unknown_ending_is_refused_with_the_endings_there_are(fake_run: Run, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"ends in one of \.html, \.png, \.svg, for example front\.html"):
        save_front(Front.of(fake_run), tmp_path / "front.pdf")


@pytest.mark.parametrize(
    "trials", [(), (Trial(0, "failed", {}, 1),), (make_trial(0, "complete", {}, 1, values=(0.5, 3.0), train_joules=3.0),)]
)
def test_runs_with_no_or_one_point_are_drawn(trials: tuple[Trial, ...], tmp_path: Path) -> None:
    run = Run("a_b $x^2 {}", tmp_path, ("accuracy", "train_energy"), ("maximize", "minimize"), (1,), trials, Bill())
    assert len(front_plotly(Front.of(run)).data) >= 1
    if Front.of(run).members:
        assert save_front(Front.of(run), tmp_path / "front.png").stat().st_size > 1000
    else:  # axes with invented numbers would be taken for a result
        with pytest.raises(ValueError, match=r"nothing to draw in .*The front of .* is empty"):
            save_front(Front.of(run), tmp_path / "front.png")
        assert not (tmp_path / "front.png").exists()


@pytest.mark.slow
def test_front_plot_gives_a_figure_or_a_file(fake_run: Run, tmp_path: Path) -> None:
    front = FrontView.of(fake_run)
    assert type(front.plot()).__name__ == "Figure"
    assert front.plot(tmp_path / "f.svg") == tmp_path / "f.svg"
    assert how_energy_is_known(Front((), front.objectives, front.directions)) == ""
