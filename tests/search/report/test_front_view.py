"""A front as text, rows, data frame and HTML."""

import csv
import io
import json

from helpers.trials import TWO, complete

from joulefront.search.records.trial import Trial
from joulefront.search.report.front_view import FrontView

ROW_KEYS = ["trial", "epochs", "accuracy", "train_joules", "train_wh", "grams_co2e", "inference_joules_per_1000"]
ROW_KEYS += ["parameters", "quality", "params"]


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
    assert list(FrontView((), *TWO).to_frame().columns) == ROW_KEYS[:-1]


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
    said = front.to_text(width=200)
    assert "±<0.1 %" in said
    assert "± is the random standard uncertainty of the meter" in said
    assert "the scale, common to all rows, is known to ±50 %" in said
    plain = FrontView((complete(0, 0.9, 10.0),), *TWO).to_text()
    assert "±" not in plain


def test_an_empty_front_gives_the_reason_and_the_remedy() -> None:
    assert "no trial has started" in FrontView((), *TWO).to_text()
    failed = FrontView((Trial(0, "failed", {}, 1), complete(1, 0.9, None)), *TWO)
    assert failed.to_text() == (
        "The front of 'front' is empty: of 2 trials 1 a value is unknown, 1 failed. "
        "Continue the search with joulefront run; joulefront report shows why trials failed."
    )
    assert "<Front" not in failed._repr_html_()
    early = FrontView((complete(0, 0.9, 5.0),), *TWO, complete_only=True)
    assert "without complete_only" in early.to_text()


def test_neighbours_that_the_meter_cannot_tell_apart_are_marked() -> None:
    near = FrontView((complete(0, 0.7, 100.0, train_u_joules=3.0), complete(1, 0.8, 105.0, train_u_joules=4.0)), *TWO)
    assert "≈" in near.to_text()
    assert "within the uncertainty" in near.to_text()
    apart = FrontView((complete(0, 0.7, 100.0, train_u_joules=3.0), complete(1, 0.8, 200.0, train_u_joules=4.0)), *TWO)
    assert "≈" not in apart.to_text()
