"""How numbers and times are written in tables: values, points between thousands, and what only looks like a number."""

import numpy as np
import pandas as pd
import pytest
from helpers.table_files import ROWS, label, of, read, write

from joulefront.search.training.columns import infer, parse, texts
from joulefront.search.training.table import prepare


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        ([f"{k * 1234:,}".replace(",", ".") for k in range(ROWS)], True),
        ([f"{(k + 1) * 1200:,}".replace(",", ".") for k in range(ROWS)], True),
        ([*map(str, range(478, 476 + ROWS)), "27.506", "1.952"], True),
        ([*map(str, range(478, 476 + ROWS)), "27.506", "0.952"], False),
        ([f"{1 + k * 1.2345:.3f}" for k in range(ROWS)], False),
        ([f"{1 + k * 1.25:g}" for k in range(ROWS)], False),
    ],
)
def test_points_that_may_be_of_thousands_are_said_and_are_where_semicolons_divide(tmp_path, cells, said):
    points, thousands = "is read with decimal points, as", "is read with points of thousands, as"
    assert (points in read(write(tmp_path / "c.csv", [f"{cell},{label(k)}" for k, cell in enumerate(cells)], header="a,y"))[1]) is said
    assert (f"the target 'a' {points}" in read(tmp_path / "c.csv", "a")[1]) is said
    task, told = read(write(tmp_path / "s.csv", [f"{cell};{label(k)}" for k, cell in enumerate(cells)], header="a;y"))
    assert ((thousands in told), points in told) == (said, False)
    assert ("mean" in of(task, "a"), of(task, "a").get("how", ".,")) == (True, ",." if said else ".,")
    task, told = read(tmp_path / "s.csv", "a", kind="regression")
    assert (f"the target 'a' {thousands}" in told) is said


def test_points_where_semicolons_divide_are_decimals_if_another_column_shows_such(tmp_path):
    amounts, weights = [*map(str, range(478, 476 + ROWS)), "27.506", "1.952"], [f"{0.25 * k}" for k in range(ROWS)]
    file = write(tmp_path / "t.csv", [f"{a};{w};{label(k)}" for k, (a, w) in enumerate(zip(amounts, weights, strict=True))], header="a;w;y")
    task, told = read(file)
    assert "'a' is read with decimal points, as '27.506'" in told
    assert of(task, "a").get("how", ".,") == ".,"


def test_points_that_may_be_either_follow_a_column_whose_points_are_of_thousands_with_a_word(tmp_path):
    amounts, weights = [*map(str, range(478, 476 + ROWS)), "27.506", "1.952"], [f"{1 + 0.123 * k:.3f}" for k in range(ROWS)]
    file = write(tmp_path / "t.csv", [f"{a};{w}" for a, w in zip(amounts, weights, strict=True)], header="a;w")
    task, told = read(file, "w")
    assert task.target_scale[0] > 1000
    assert "the target 'w' is read with points of thousands, as '1.000'" in told


def test_decimal_commas_of_the_target_decide_for_features_and_of_features_for_the_target(tmp_path):
    amounts, weights = [*map(str, range(478, 476 + ROWS)), "27.506", "1.952"], [f"{0.25 * k}".replace(".", ",") for k in range(ROWS)]
    file = write(tmp_path / "t.tsv", [f"{a}\t{w}" for a, w in zip(amounts, weights, strict=True)], header="a\tw")
    assert of(read(file, "w")[0], "a")["how"] == ",."
    task, told = read(file, "a")
    assert (task.target_scale[0] > 700, "of thousands" in told) == (True, False)


#: How values are written, and what they are: numbers, seconds, or seconds since 1970.
WRITTEN = {
    "feet and inches": (["5'11\"", "6' 2''", "5 ft 10 in", "6′", "5’9”"], [71, 74, 70, 72, 69]),
    "thousands and millions": (["3.2k", "970", "$1.5M", "12 K", "2 Mio. €"], [3200, 970, 1.5e6, 12_000, 2e6]),
    "decimal commas and units": (["1,5 km", "2,25 km", "0,5 km"], [1.5, 2.25, 0.5]),
    "units of one scale": (["2 kg", "150 g", "0.5 kg", "3 g", "0"], [2000, 150, 500, 3, 0]),
    "sizes of files": (["3 KB", "2MB", "1 GiB"], [3e3, 2e6, 2**30]),
    "units in capitals and the plural": (["1 Room", "3 rooms", "2 rooms"], [1, 3, 2]),
    "powers of ten": (["1.5e3", "2×10^4", "3.5x10^-2", "4D+02"], [1500, 20_000, 0.035, 400]),
    "apostrophes, lines and blanks between thousands": (["12'345", "1_234", "9\u202f876", "5\u00a0432.5"], [12_345, 1234, 9876, 5432.5]),
    "dashes for minus": (["–1.5", "‐2", "- 3", "(4)", "5-", "6"], [-1.5, -2, -3, -4, -5, 6]),
    "quotes": (['"52"', "'89", "7"], [52, 89, 7]),
    "marks of footnotes": (["337*", "412 †", "58[1]", "12¹", "7 (a)", "9,-", "4"], [337, 412, 58, 12, 7, 9, 4]),
    "marks behind signs and units": (["1.234,5 €*", "12,5 €", "7 €[1]"], [1234.5, 12.5, 7]),
    "amounts of accounts": (["(123,45 zł)", "12 zł", "(7 zł)"], [-123.45, 12, -7]),
    "rupees": (["Rs. 1,23,456/-", "Rs. 99/-"], [123_456, 99]),
    "thousands in other scripts": (["1,5 млн", "20 тыс.", "3 млн"], [1.5e6, 20_000, 3e6]),
    "lakh and crore": (["2 Lakh", "1.5 Cr", "30 Lakh"], [200_000, 1.5e7, 3e6]),
    "inches of carpenters": (['5-5/8"', '7-1/4"', '3"'], [5.625, 7.25, 3]),
    "truth in several languages": (["Tak", "tak", "Nie", "нет", "да"], [1, 1, 0, 0, 1]),
    "latitudes": (["51.2° N", "49.9° S", "51°30'36\"N", "10° 30′ S", "0°"], [51.2, -49.9, 51.51, -10.5, 0]),
    "longitudes": (["0.12 W", "13,4 E", "2.5 E"], [-0.12, 13.4, 2.5]),
    "sides before degrees": (["N 46.7", "S 12.5"], [46.7, -12.5]),
    "fractions": (["5 5/8", "1½", "¾", "3/16", "-2 1/4", "7"], [5.625, 1.5, 0.75, 0.1875, -2.25, 7]),
    "powers above the line": (["2.7×10³", "4.1 x 10⁻²"], [2700, 0.041]),
    "digits and signs of other scripts": (["٣٫٥", "１２．５", "－３", "۷"], [3.5, 12.5, -3, 7]),
    "currencies of the world": (["NT$ 6,454", "12 A$", "₽5", "₩1,000", "Rp 15", "Fr. 20", "￥7"], [6454, 12, 5, 1000, 15, 20, 7]),
    "units in other scripts": (["12 кг", "5 кг", "7,5 кг"], [12, 5, 7.5]),
    "money in other scripts": (["1 234,50 zł", "12 zł"], [1234.5, 12]),
    "units of one sign": (["12歳", "45歳"], [12, 45]),
    "days with blanks behind their points": (["31. 1. 2024", "30. 1. 2024"], [1_706_659_200, 1_706_572_800]),
    "days as in Korea": (["2024. 1. 31.", "2024. 1. 30."], [1_706_659_200, 1_706_572_800]),
    "months of further languages": (["31 января 2024 г.", "31. tammikuuta 2024", "31 Ocak 2024", "31. ledna 2024"], [1_706_659_200] * 4),
    "days with names between lines": (["31/jan/2024", "30/jan/2024"], [1_706_659_200, 1_706_572_800]),
    "days as in Hungary": (["2024. január 31.", "2024. augusztus 1."], [1_706_659_200, 1_722_470_400]),
    "times as in China": (["2024年1月31日 13时05分", "2024年1月31日 0时0分30秒"], [1_706_706_300, 1_706_659_230]),
    "halves of the day in East Asia": (["2024/1/31 下午 1:00", "2024/1/31 오전 1:00"], [1_706_706_000, 1_706_662_800]),
    "halves of the day as in Spain": (["31/01/2024 1:00 p. m.", "31/01/2024 1:00 a. m."], [1_706_706_000, 1_706_662_800]),
    "pages": (["<td>12</td>", "1&nbsp;234", "<b>5</b>", "&nbsp;", "&minus;7"], [12, 1234, 5, np.nan, -7]),
    "less than no time": (["-01:10:00", "26:00:00", "0:30:00"], [-4200, 93_600, 1800]),
    "laps": (["32:18.5", "1:02.25", "59:59.9"], [1938.5, 62.25, 3599.9]),
    "hours as in French": (["1h30", "00h45", "27h05"], [5400, 2700, 97_500]),
    "weeks and days": (["2 weeks", "3 days", "1 week 2 days"], [1_209_600, 259_200, 777_600]),
    "years and months": (["1 year", "2 years 6 months"], [31_557_600, 2.5 * 31_557_600]),
    "months of ISO 8601 are no minutes": (["P2M", "PT2M", "P1Y"], [2 * 2_629_800, 120, 31_557_600]),
    "several forms of dates": (["2024-01-31", "31.01.2024", "Jan 30, 2024"], [1_706_659_200, 1_706_659_200, 1_706_572_800]),
    "dates with and without hours": (["01/31/2024", "01/31/2024 10:00", "12/31/2023"], [1_706_659_200, 1_706_695_200, 1_703_980_800]),
    "zones": (["2024-01-31 01:00 CET", "2024-01-30 19:00:00 EST", "2024-01-31T00:00:00Z"], [1_706_659_200] * 3),
    "names of zones": (["2024-01-31 00:00 Europe/Berlin", "2024-01-31T01:00+01:00[Europe/Berlin]"], [1_706_659_200] * 2),
    "dates of browsers": (["Wed Jan 31 2024 01:00:00 GMT+0100 (CET)", "Tue Jan 30 2024 19:00:00 GMT-0500 (EST)"], [1_706_659_200] * 2),
    "JSON of .NET": (["/Date(1706659200000)/", "/Date(1706659201500+0100)/"], [1_706_659_200, 1_706_659_201.5]),
    "weeks of the year": (["2024-W05-3", "2024-W05", "KW 5/2024"], [1_706_659_200, 1_706_486_400, 1_706_486_400]),
    "times without separators": (["20240131000000", "20240131010203"], [1_706_659_200, 1_706_662_923]),
    "hours of half a day": (["1 am", "1 pm", "12 am"], [-2_208_985_200, -2_208_942_000, -2_208_988_800]),
}


@pytest.mark.parametrize(("written", "meant"), WRITTEN.values(), ids=WRITTEN)
def test_values_are_read_as_people_write_them(written, meant):
    found = texts(pd.Series(written))
    np.testing.assert_allclose(parse(found, infer(found)), meant)


@pytest.mark.parametrize(
    "written",
    [
        ["1B", "12C", "3F"],
        ["A12", "B7"],
        ["2019-001", "2020-114"],
        ["68x65", "7x9"],
        ["01/13/2024", "13/01/2024"],
        ["N18.3", "S72.0", "E11.9"],
        ["1/3", "2/5"],
    ],
)
def test_what_only_looks_like_numbers_or_dates_stays_text(written):
    assert infer(texts(pd.Series(written))).kind == "text"


@pytest.mark.parametrize(
    ("written", "said"),
    [
        (["337*", "412", "58"], "numbers with marks behind some, e.g. '337*', which are left out"),
        (["1,234", "1.234", "5,678", "12"], "is numbers with '1,234', read as thousands, and '1.234', read as decimals; write all alike"),
        ([f"#{k}" for k in range(30)], "in a form that is not read, e.g. '#0'"),
        (["12 °C", "50 °F", "13 °C", "60 °F"], "several units"),
        ([f"{k + 10} ± {k % 4}" for k in range(30)], "in a form that is not read, e.g. '10 ± 0'"),
        ([f"{k + 10} ({k % 4})" for k in range(30)], "in a form that is not read, e.g. '10 (0)'"),
    ],
)
def test_numbers_with_something_behind_them_get_a_word(written, said):
    assert said in (infer(texts(pd.Series(written))).note or "")


def test_new_places_are_read_as_those_of_training(tmp_path):
    task, said = read(write(tmp_path / "t.csv", [f"{k}.5° {'NS'[k % 2]},{label(k)}" for k in range(ROWS)]))
    assert said == ""
    new = write(tmp_path / "new.csv", ["1.5° S", "1.5° N"], header="a")
    south, north = prepare(task.preprocessing, new)[:, 0]
    other = prepare(task.preprocessing, write(tmp_path / "one.csv", ["-1.5"], header="a"))[0, 0]
    assert other == south < north
