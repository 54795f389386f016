"""Tables that another program wrote again: training and new rows mean the same, whichever of them holds texts and which types."""

import csv
import io
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from helpers.table_files import ROWS, label, of, said_of, said_of_new, write

from joulefront.search.export.predict import Model
from joulefront.search.training.columns import infer

LABELS = [label(k) for k in range(ROWS)]
SIZES = [round(3.25 + 7.5 * k, 2) for k in range(ROWS)]
MOMENTS = pd.date_range("2023-01-05 07:30", periods=ROWS, freq="53h")


def in_graph(task, rows):
    """What the exported model's graph is fed for rows, by the code that lies beside it."""
    how = task.preprocessing
    used = [column for column in how["columns"] if column["type"] != "dropped"]
    return Model.columns(SimpleNamespace(how=how, used=used), rows)


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("separator", [",", ";"])
def test_lines_that_are_quoted_as_a_whole_are_rows_and_said(tmp_path, whole, separator):
    rows = [
        [str(size), f'tall, "{k % 3}"; new' if whole or k % 4 else "plain", of_row]
        for k, (size, of_row) in enumerate(zip(SIZES, LABELS, strict=True))
    ]
    text = io.StringIO()
    csv.writer(text, delimiter=separator, lineterminator="\n").writerows([["a", "b", "y"], *rows])
    text.seek(0)
    lines = text.getvalue().splitlines()
    doubled = ['"' + line.replace('"', '""') + '"' if whole or '"' in line else line for line in lines]
    task, said = said_of(write(tmp_path / "t.csv", doubled[1:], header=doubled[0]))
    assert f"{sum(line.startswith(chr(34)) for line in doubled)} lines are in quotes as a whole" in said
    plain, _ = said_of(write(tmp_path / "p.csv", lines[1:], header=lines[0]))
    assert task.preprocessing["columns"] == plain.preprocessing["columns"]
    np.testing.assert_array_equal(said_of_new(task, tmp_path / "t.csv")[0], said_of_new(task, tmp_path / "p.csv")[0])


def test_a_note_in_quotes_behind_the_rows_is_none(tmp_path):
    path = write(tmp_path / "t.csv", [*(f"{size},{of_row}" for size, of_row in zip(SIZES, LABELS, strict=True)), '"Source: Bureau, 2020"'])
    task, said = said_of(path)
    assert len(task.train) + len(task.validation) + len(task.test) == ROWS
    assert "in quotes as a whole" not in said


def test_durations_of_a_typed_file_are_those_that_text_writes(tmp_path):
    seconds = [97 * k - 900 for k in range(ROWS)]
    frame = pd.DataFrame({"took": pd.to_timedelta(seconds, unit="s"), "y": LABELS})
    frame.to_parquet(tmp_path / "t.parquet")
    task, _ = said_of(tmp_path / "t.parquet")
    meant = said_of_new(task, frame)[0]
    frame.to_csv(tmp_path / "t.csv", index=False)  # 0 days 00:01:37, -1 days +23:46:37
    frame.to_json(tmp_path / "t.jsonl", orient="records", lines=True, date_format="iso")  # P0DT0H1M37S, P-1DT23H46M37S
    for rows in (
        tmp_path / "t.csv",
        tmp_path / "t.jsonl",
        pd.DataFrame({"took": seconds}),
        pd.DataFrame({"took": list(map(str, seconds))}),
    ):
        found, said = said_of_new(task, rows)
        np.testing.assert_allclose(found, meant, rtol=1e-6)
        assert said == ""


@pytest.mark.parametrize("form", ["%d.%m.%Y %H:%M", "%m/%d/%Y %I:%M %p", "%d-%b-%y %H:%M", "%Y%m%d%H%M"])
def test_days_as_iso_writes_them_are_read_whatever_the_form_of_training(form):
    task, _ = said_of(pd.DataFrame({"at": MOMENTS.strftime(form), "y": LABELS}))
    meant = said_of_new(task, pd.DataFrame({"at": MOMENTS}))[0]
    for written in (MOMENTS.strftime("%Y-%m-%d %H:%M"), MOMENTS.strftime("%Y-%m-%dT%H:%M:%SZ")):
        found, said = said_of_new(task, pd.DataFrame({"at": written}))
        np.testing.assert_allclose(found, meant, rtol=1e-6)
        assert said == ""
    assert (
        "no date, counted as missing" in said_of_new(task, pd.DataFrame({"at": ["2023-01-05T07:30+05:00", MOMENTS[0].strftime(form)]}))[1]
    )


def test_a_day_is_no_time_of_day():
    task, _ = said_of(pd.DataFrame({"at": MOMENTS.strftime("%H:%M"), "y": LABELS}))
    assert "2023-01-05" in said_of_new(task, pd.DataFrame({"at": ["2023-01-05", "07:30"]}))[1]


@pytest.mark.parametrize(
    ("levels", "said"),
    [("male female M F", True), ("North South E N.", False), ("M L S XL", False), ("north south N", True), ("A B AB", False)],
)
def test_first_letters_beside_the_words_they_may_stand_for_are_said(levels, said):
    levels = levels.split()
    _, of_feature = said_of(pd.DataFrame({"a": [levels[k % len(levels)] for k in range(ROWS)], "x": SIZES, "y": LABELS}))
    _, of_target = said_of(pd.DataFrame({"x": SIZES, "y": [levels[k % len(levels)] for k in range(ROWS)]}))
    assert ("may mean the same, and are two values" in of_feature) is said
    assert ("may mean the same, and are two classes" in of_target) is said


@pytest.mark.parametrize("codes", [["SW1A 1AA", "E1 6AN", "N1 9GU"], ["1234 AB", "1015 CJ", "1016 AB"]])
def test_postal_codes_are_no_numbers_with_units(codes):
    assert infer(np.array(codes * 9, dtype=object)).note is None
    assert "several units" in infer(np.array(["5 kg", "~7 lb"] * 9, dtype=object)).note


def test_ordinals_are_numbers():
    task, said = said_of(
        pd.DataFrame({"place": [f"{k}{ {1: 'st', 2: 'nd', 3: 'rd'}.get(k, 'th') }" for k in np.arange(ROWS) % 9 + 1], "y": LABELS})
    )
    assert "units" not in said
    assert (
        said_of_new(task, pd.DataFrame({"place": ["2nd", "7th"]}))[0].tolist()
        == said_of_new(task, pd.DataFrame({"place": [2, 7]}))[0].tolist()
    )


def test_rows_that_say_what_a_survey_asked_are_none(tmp_path):
    asked = ['"How old\nare you?",City?,Again?', '"{""ImportId"":""Q1""}","{""ImportId"":""Q2""}","{""ImportId"":""y""}"']
    rows = [f"{20 + k % 40},{('Bonn', 'Rom')[k % 2]},{one}" for k, one in enumerate(LABELS)]
    task, said = said_of(write(tmp_path / "t.csv", [*asked, *rows], header="Q1,Q2,y"))
    assert task.classes == ("no", "yes")
    assert "left out 2 rows below the header that say what is asked" in said
    assert len(said_of_new(task, write(tmp_path / "new.csv", [*asked, rows[0]], header="Q1,Q2,y"))[0]) == 1


@pytest.mark.parametrize("between", [False, True])
def test_lines_that_are_drawn_around_rows_are_none(tmp_path, between):
    rule = "+-------+-----+"
    rows = [f"| {size} | {one} |" for size, one in zip(SIZES, LABELS, strict=True)]
    rows = [line for row in rows for line in (row, rule)] if between else [*rows, rule]
    task, _ = said_of(write(tmp_path / "t.txt", [rule, *rows], header="| a | y |", above=rule + "\n"))
    assert len(said_of_new(task, tmp_path / "t.txt")[0]) == ROWS


def test_a_text_that_training_counted_as_missing_is_missing_in_a_row_alone():
    sizes = [str(size) if k % 5 else "unknown" for k, size in enumerate(SIZES)]
    task, _ = said_of(pd.DataFrame({"a": sizes, "y": LABELS}))
    assert of(task, "a")["gaps"] == ["unknown"]
    row = pd.DataFrame({"a": ["unknown"]})
    found, said = said_of_new(task, row)
    assert said == ""
    assert found[0, 1] == 1.0  # marked as missing
    assert np.isnan(in_graph(task, row)["a"]).all()
    with pytest.raises(ValueError, match="must hold numbers as in training, got 'far'; write them as there"):
        in_graph(task, pd.DataFrame({"a": ["far"]}))


@pytest.mark.parametrize("factor", [1 / 86_400, 1000])
def test_numbers_of_another_size_than_in_training_are_said(factor):
    task, _ = said_of(pd.DataFrame({"a": SIZES, "y": LABELS}))
    assert "values of 'a' are of another size than those of training" in said_of_new(task, pd.DataFrame({"a": np.array(SIZES) * factor}))[1]
    assert said_of_new(task, pd.DataFrame({"a": np.array(SIZES) * 2}))[1] == ""
    assert said_of_new(task, pd.DataFrame({"a": [1e-6] * 30}))[1] == ""


def test_lists_are_the_same_in_parquet_and_in_json(tmp_path):
    frame = pd.DataFrame({"tags": [["a", "b"] if k % 2 else [] for k in range(ROWS)], "x": SIZES, "y": LABELS})
    frame.to_json(tmp_path / "t.jsonl", orient="records", lines=True)
    frame.to_parquet(tmp_path / "t.parquet")
    task, _ = said_of(tmp_path / "t.jsonl")
    assert said_of_new(task, tmp_path / "t.parquet")[1] == ""


def test_a_survey_ticks_by_the_name_of_its_column(tmp_path):
    rows = [f"{20 + k % 40},{'Facebook' if k % 3 else 'No'},{one}" for k, one in enumerate(LABELS)]
    path = write(tmp_path / "t.csv", rows, header="age,Facebook,y")
    assert "its name among its values" not in said_of(path, "Facebook")[1]
    assert said_of_new(said_of(path)[0], path)[1] == ""


def test_the_columns_that_a_file_has_are_those_of_its_header(tmp_path):
    path = write(
        tmp_path / "t.csv",
        [f"{k % 7}|{('Bad Ems ', 'Rom ')[k % 2]}|{size}|{LABELS[k]}" for k, size in enumerate(SIZES)],
        header="n|city|a|y",
    )
    task, _ = said_of(path)
    new = write(tmp_path / "new.csv", ["Rom ,1.5", "Rom ,2.5"], header="city,a")
    with pytest.raises(ValueError, match=r"must have the column 'n' \(1 missing: 'n'\), got city, a"):
        said_of_new(task, new)


def test_nines_with_a_decimal_comma_are_said(tmp_path):
    rows = [f"{('1,00', '2,00', '3,00', '99,00')[k % 4]};{one}" for k, one in enumerate(LABELS)]
    _, said = said_of(write(tmp_path / "t.csv", rows, header="a;y"))
    assert "if that means missing" in said
    remedy = said.split("--missing ")[1].split(" ")[0].strip("'")
    assert said_of(tmp_path / "t.csv", missing=remedy)[0].preprocessing["columns"][0]["missing"]
