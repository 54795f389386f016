"""What stands among and behind the rows of a table and is no row: in training, and in the new files that are predicted."""

import re
import warnings

import numpy as np
import pandas as pd
import pytest

from joulefront.search.training.table import prepare, table
from joulefront.search.training.table_rows import rows_of_data

SIZES = np.random.default_rng(0).normal(50, 9, 40).round(2)
PRICES = (2 * SIZES + np.random.default_rng(1).normal(0, 9, 40)).round(2)
ROWS = [f"{size},{'abc'[k % 3]},{3 * k},{PRICES[k]}" for k, size in enumerate(SIZES)]


def made(folder, lines, header="size,kind,count,y"):
    folder.mkdir(exist_ok=True)
    path = folder / f"{len(list(folder.iterdir()))}.csv"
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("place", "lines", "words"),
    [
        (20, ["size,kind,count,y"], "1 rows that are the header again"),
        (20, ["Size , KIND,count, Y"], "1 rows that are the header again"),
        (20, ["# checked until here"], "1 rows that are comments, e.g. '# checked until here'"),
        (0, ["How large it is,What it is,How many,What to predict"], "taken for units (How large it is"),
        (40, [f"{SIZES.sum():.2f},Total,{3 * 780},{PRICES.sum():.2f}"], "taken for a sum"),
        (40, [f"{SIZES.sum():.2f},,{3 * 780},{PRICES.sum():.2f}"], "taken for a sum"),
        (40, [f"{SIZES.sum():.2f},合计,{3 * 780},{PRICES.sum():.2f}"], "taken for a sum"),
        (40, [f"{SIZES.sum():.2f},Ukupno,{3 * 780},{PRICES.sum():.2f}"], "taken for a sum"),
        (40, ["Median,,60,100"], "left out the row 'Median' at the end"),
        (0, [f"{SIZES.sum():.2f},Total,{3 * 780},{PRICES.sum():.2f}"], "below the header, taken for a sum"),
        (40, ["", "Source: the office", "* provisional data"], "left out the row '* provisional data' at the end"),
        (40, ["Data from database: Indicators", "Last Updated: 01/01/2024"], "left out the row 'Data from database: Indicators'"),
    ],
)
def test_what_is_no_row_is_left_out_with_a_word_in_training_and_prediction(tmp_path, place, lines, words):
    with pytest.warns(UserWarning, match=re.escape(words)):
        task = table(made(tmp_path, [*ROWS[:place], *lines, *ROWS[place:]]), "y")
    parts = [part for part in (task.train, task.validation, task.test) if part is not None]
    assert sum(map(len, parts)) == 40
    columns = {column["name"]: column for column in task.preprocessing["columns"]}
    assert columns["size"]["missing"] is False
    assert columns["kind"]["levels"] == ["a", "b", "c"]
    with pytest.warns(UserWarning, match="left out"):
        assert len(prepare(task.preprocessing, made(tmp_path, [*ROWS[:place], *lines, *ROWS[place:]]))) == 40


def test_units_of_training_are_units_of_a_file_of_one_row(tmp_path):
    with pytest.warns(UserWarning, match=r"taken for units \(\[m\], \[-\], pieces, EUR\)"):
        task = table(made(tmp_path, ["[m],[-],pieces,EUR", *ROWS]), "y")
    with pytest.warns(UserWarning, match="taken for units"):
        found = prepare(task.preprocessing, made(tmp_path, ["[m],[-],pieces", "50,a,3"], "size,kind,count"))
    assert len(found) == 1


@pytest.mark.parametrize(
    "last",
    ["n/a,,", ",b,", "12,,", ",,", "7,Total,5", "unknown,,", ",something new,", "6,,", "1,a,# 7"],
)
def test_a_last_row_with_gaps_or_new_words_is_a_row(last):
    cells = [[*row.split(",")[:3]] for row in ROWS[:6]] + [last.split(",")]
    rows, said, units = rows_of_data(["size", "kind", "count"], pd.DataFrame(cells))
    assert (len(rows), said, units) == (7, [], {})


def test_sums_between_the_rows_are_said(tmp_path):
    cells = [[f"r{k // 3}" if k % 3 < 2 else f"r{k // 3} Total", str(k), "a"] for k in range(30)]
    rows, said, _ = rows_of_data(["region", "size", "kind"], pd.DataFrame(cells))
    assert (len(rows), said) == (
        30,
        ["10 rows are named like sums, e.g. 'r0 Total', and read as the others are; delete them if they are sums"],
    )


def test_nothing_is_left_out_of_plain_rows(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(table(made(tmp_path, ROWS), "y").train) == 28


def test_notes_that_are_left_out_are_no_short_rows_and_others_are_named_with_what_to_do(tmp_path):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        table(made(tmp_path, [*ROWS, "# made by me", "Source: the office"]), "y")
        assert not any("fewer values" in str(one.message) for one in caught)
        table(made(tmp_path, [*ROWS, "end"]), "y")
    said = next(str(one.message) for one in caught if "1 rows have fewer values" in str(one.message))
    assert "first line 42; what they lack counts as missing: delete those that are notes" in said
