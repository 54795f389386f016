"""Tables as people have them: every kind of file is read as it is meant, or refused in one line, or read with a word about what is odd."""

import gzip
import json
import sys
import warnings
import zipfile
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from helpers.table_files import NUMBERS, PLAIN, ROWS, SEMICOLON, german, label, of, parts_of, read, write
from pandas.io.parsers import TextParser

from joulefront.search.training.table import prepare, table

FILES = {
    "plain": {"rows": PLAIN},
    "trailing separators": {"rows": [f"{row}," for row in PLAIN]},
    "trailing separators in header and rows": {"rows": [f"{row},," for row in PLAIN], "header": "a,y,,"},
    "decimal commas and points of thousands": {"rows": SEMICOLON, "header": "a;y"},
    "decimal commas without thousands": {"rows": [row.replace(".", "") for row in SEMICOLON], "header": "a;y"},
    "thousands with commas, quoted": {"rows": [f'"{value:,.2f}",{label(k)}' for k, value in enumerate(NUMBERS)]},
    "thousands with spaces": {"rows": [f"{value:,.2f}".replace(",", " ") + f",{label(k)}" for k, value in enumerate(NUMBERS)]},
    "euros": {"rows": [f"€ {value},{label(k)}" for k, value in enumerate(NUMBERS)]},
    "spaces around everything": {"rows": [row.replace(",", " , ") for row in PLAIN], "header": " a , y "},
    "bars": {"rows": [row.replace(",", "|") for row in PLAIN], "header": "a|y"},
    "UTF-16 as Excel's Unicode text": {"rows": [row.replace(",", "\t") for row in PLAIN], "header": "a\ty", "encoding": "utf-16"},
    "UTF-16 without a mark": {"rows": PLAIN, "encoding": "utf-16-le"},
    "UTF-8 with a mark": {"rows": PLAIN, "encoding": "utf-8-sig"},
    "title lines": {"rows": PLAIN, "above": "Report of 2024\n\nby the office; all rights, reserved\n"},
    "a separator named for Excel": {"rows": SEMICOLON, "header": "a;y", "above": "sep=;\n"},
    "blanks": {"rows": [row.replace(",", "  ") for row in PLAIN], "header": "a y"},
    "single quotes": {"rows": [f"'{value:,.2f}','{label(k)}'" for k, value in enumerate(NUMBERS)]},
    "lines that say what the file is": {"rows": PLAIN, "above": "# a, as measured\n# y, by hand, in 2024\n#\n"},
    "windows line ends": {"rows": [f"{row}\r" for row in PLAIN], "header": "a,y\r"},
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*above the header")
@pytest.mark.parametrize("kind", FILES.values(), ids=FILES)
def test_a_file_of_every_kind_gives_the_same_task(tmp_path, kind):
    expected, _ = read(write(tmp_path / "plain.csv", PLAIN))
    task = table(write(tmp_path / "t.csv", **kind), "y")
    assert (task.classes, task.preprocessing["features"]) == (("no", "yes"), ["a"])
    np.testing.assert_allclose(task.train.inputs, expected.train.inputs, atol=1e-6)
    assert task.train.targets.tolist() == expected.train.targets.tolist()
    again = prepare(task.preprocessing, tmp_path / "t.csv")
    np.testing.assert_array_equal(np.sort(again[:, 0]), np.sort(np.concatenate([part.inputs[:, 0] for part in parts_of(task)])))


@pytest.mark.parametrize("packed", ["gz", "zip", "zip of a Mac"])
def test_a_packed_file_is_read_as_the_plain_one(tmp_path, packed):
    data = write(tmp_path / "t.csv", SEMICOLON, header="a;y", encoding="utf-16").read_bytes()
    path = tmp_path / f"t.csv.{packed.split()[0]}"
    if packed == "gz":
        path.write_bytes(gzip.compress(data))
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("t.csv", data)
            if "Mac" in packed:
                archive.writestr("__MACOSX/._t.csv", b"x")
    assert table(path, "y").preprocessing["features"] == ["a"]
    path.write_bytes(path.read_bytes()[: len(path.read_bytes()) // 2])
    with pytest.raises(ValueError, match="cannot read the table"):
        table(path, "y")


@pytest.mark.slow
def test_a_row_that_is_too_long_far_down_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"(line|Expected 2 fields in line) ?60002|60002"):
        table(write(tmp_path / "t.csv", [*PLAIN * 1000, "1,yes,2"]), "y")


@pytest.mark.parametrize("encoding", ["cp1251", "shift_jis", "gb18030", "mac_roman"])
def test_a_name_in_other_letters_tells_the_encoding(tmp_path, encoding):
    name = {"cp1251": "цена", "shift_jis": "価格", "gb18030": "价格", "mac_roman": "größe"}[encoding]
    path = write(
        tmp_path / "t.csv",
        [f"{value},{name * 2 if k % 3 else name}" for k, value in enumerate(NUMBERS)],
        header=f"a,{name}",
        encoding=encoding,
    )
    with pytest.warns(UserWarning, match=f"was read as {encoding}, as a name of its header tells"):
        assert table(path, name).classes == (name, name * 2)


def test_a_last_column_without_a_name_is_no_shift(tmp_path):
    path = write(tmp_path / "t.csv", [f"{row},{value}" for row, value in zip(PLAIN, NUMBERS, strict=True)], header="a,y,")
    assert table(path, "y").classes == ("no", "yes")
    path = write(tmp_path / "t.csv", [*PLAIN, "1,p, q"], header="a,y,")
    with pytest.raises(ValueError, match="line 62 has more values than the header has names"):
        table(path, "y")


def test_new_rows_in_single_quotes_are_read_as_those_of_training_also_where_no_value_holds_a_separator(tmp_path):
    cities = ["'New York, NY'", "'Boston'", "'Austin, TX'"]
    task, _ = read(write(tmp_path / "t.csv", [f"{cities[k % 3]},{label(k)}" for k in range(ROWS)]))
    new = write(tmp_path / "n.csv", ["'Boston'", "'Boston'"], header="a")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = prepare(task.preprocessing, new)
    assert found[0, task.preprocessing["features"].index("a=Boston")] == 1.0


def test_lines_of_json_may_hold_any_separator_of_lines_and_long_whole_numbers_stay_apart(tmp_path):
    rows = [{"a": 2**60 + k if k % 9 else None, "b": "one\u2028two" if k % 2 else "three", "y": label(k)} for k in range(ROWS)]
    path = tmp_path / "t.jsonl"
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    task, _ = read(path)
    assert "b=one\u2028two" in task.preprocessing["features"]
    assert of(task, "a")["type"] != "numeric"


@pytest.mark.parametrize("ending", ["xlsx", "jsonl", "json"])
def test_files_of_excel_and_json_keep_their_types(tmp_path, monkeypatch, ending):
    frame = pd.DataFrame(
        {"code": ["01", "02", "A4"] * 20, "size": NUMBERS, "flag": [True, False] * 30, "y": [label(k) for k in range(ROWS)]}
    )
    path = tmp_path / f"t.{ending}"
    frame.to_json(path, orient="records", lines=ending != "json")
    if ending == "xlsx":  # what kind of file it is, its first bytes and its members tell
        zipfile.ZipFile(path, "w").writestr("xl/workbook.xml", "")
    sheet = pd.DataFrame([["by the office", "", "", ""], list(frame.columns), *frame.to_numpy(dtype=object).tolist()])
    sheets = {"Info": pd.DataFrame([["read me", "first"]]), "Data": sheet}
    wanted = {"header": None, "sheet_name": None, "na_filter": False}
    monkeypatch.setattr(pd, "read_excel", lambda given, **how: sheets if (given, how) == (path, wanted) else None)
    task, said = read(path)
    assert ("left out 1 lines above the header" in said) == (ending == "xlsx")
    assert ("read the sheet 'Data', not 'Info'" in said) == (ending == "xlsx")
    assert task.preprocessing["features"] == ["code=01", "code=02", "code=A4", "size", "flag"]
    np.testing.assert_array_equal(prepare(task.preprocessing, path), prepare(task.preprocessing, frame))


@pytest.mark.slow
def test_objects_of_columns_and_long_cells_are_read(tmp_path):
    frame = pd.DataFrame({"a": NUMBERS, "y": [label(k) for k in range(ROWS)]})
    for text in (frame.to_json(), frame.to_json(orient="records", indent=1), json.dumps(frame.to_dict(orient="list"))):
        (tmp_path / "t.json").write_text(text)
        assert len(table(tmp_path / "t.json", "y").train) == 42
    (tmp_path / "t.json.gz").write_bytes(gzip.compress(text.encode()))
    assert len(table(tmp_path / "t.json.gz", "y").train) == 42
    rows = [f"{row},{'x' * 140_000 if k == 4 else k % 3}" for k, row in enumerate(PLAIN)]
    assert table(write(tmp_path / "t.csv", rows, header="a,y,b"), "y").classes == ("no", "yes")


def test_latin_1_is_read_with_a_word_and_quoted_separators_are_no_columns(tmp_path):
    towns = ["Köln, am Rhein", "Trier"]
    task, said = read(write(tmp_path / "t.csv", [f'"{towns[k % 2]}",{label(k)}' for k in range(ROWS)], encoding="cp1252"))
    assert of(task, "a")["levels"] == sorted(towns)
    assert "not UTF-8" in said


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a,y\n" + "1,x\n2,z\n" * 9 + "1,000,x\n", "line 20 has more values than the header"),
        ("a,y\n" + "1,000,x\n2,x,5\n" * 9, "more values than the header"),
        ("a,y,y\n" + "1,x,x\n2,z,z\n" * 9, "the column 'y' twice"),
        ("a, y,y \n" + "1,x,x\n2,z,z\n" * 9, "the column 'y' twice"),
        ("a,a,y\n" + "1,2,x\n2,3,z\n" * 9, "the column 'a' twice; rename one, or drop both"),
    ],
)
def test_rows_that_do_not_fit_their_header_are_refused_in_one_line(tmp_path, text, words):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(ValueError, match=words) as caught:
        table(tmp_path / "t.csv", "y")
    assert "\n" not in str(caught.value)


def test_a_frame_with_a_name_twice_is_refused_unless_it_is_dropped():
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(60, 3)), columns=["a", "b", "b"]).assign(y=["p", "q"] * 30)
    with pytest.raises(ValueError, match="'b' twice"):
        table(frame, "y")
    assert table(frame, "y", drop="b").preprocessing["features"] == ["a"]


def test_what_short_rows_lack_is_missing_and_names_of_rows_as_r_writes_them_are_no_feature(tmp_path):
    task, said = read(write(tmp_path / "t.csv", [f"{k},yes,{k}" for k in range(9)] + [f"{k},no" for k in range(9)], header="a,y,b"))
    assert of(task, "b")["missing"]
    task, said = read(write(tmp_path / "r.csv", [f'"{k + 1}",{row}' for k, row in enumerate(PLAIN)]))
    assert task.preprocessing["features"] == ["a"]
    assert "'Unnamed: 0', which names the rows" in said


def test_the_header_again_among_the_rows_is_left_out_with_a_word(tmp_path):
    task, said = read(write(tmp_path / "t.csv", [*PLAIN[:30], "a,y", *PLAIN[30:]]))
    assert task.classes == ("no", "yes")
    assert "left out 1 rows that are the header again" in said


def test_a_frame_with_names_of_several_levels_durations_and_periods_is_read():
    numbers = np.arange(ROWS) % 13
    frame = pd.DataFrame(
        {
            ("a", "b"): numbers,
            ("t", ""): pd.to_timedelta(numbers, unit="h"),
            ("p", ""): pd.period_range("2020-01", periods=ROWS, freq="M"),
            ("y", ""): [label(k) for k in range(ROWS)],
        }
    )
    task = table(frame, "y")
    assert {"a b", "t", "p", "p@year"} <= set(task.preprocessing["features"])
    whole = np.concatenate([part.inputs for part in parts_of(task)])
    np.testing.assert_allclose(
        np.sort(prepare(task.preprocessing, frame.drop(columns=[("y", "")])), axis=0), np.sort(whole, axis=0), atol=1e-6
    )


@pytest.mark.parametrize(
    ("extra", "place", "words"),
    [
        ("[kg],[-]", 0, "taken for units ([kg], [-])"),
        ("Total,99", ROWS, "left out the row 'Total' at the end"),
        (",\nSumme:,", ROWS, "left out the row 'Summe:' at the end"),
    ],
)
def test_a_row_of_units_and_a_sum_are_no_rows(tmp_path, extra, place, words):
    rows = [*PLAIN[:place], extra, *PLAIN[place:]]
    task, said = read(write(tmp_path / "t.csv", rows))
    assert words in said
    assert (sum(map(len, parts_of(task))), task.classes, of(task, "a")["type"]) == (ROWS, ("no", "yes"), "numeric")


@pytest.mark.parametrize("first", ["?,yes", "unknown,yes", "NA,no", "12,new"])
def test_a_first_row_with_a_gap_is_a_row(tmp_path, first):
    assert sum(map(len, parts_of(read(write(tmp_path / "t.csv", [first, *PLAIN]))[0]))) == ROWS + 1


@pytest.mark.parametrize("layout", ["records under a key", "columns and rows", "lines", "Parquet"])
def test_objects_in_objects_become_columns(tmp_path, layout):
    rows = [{"y": label(k), "at": {"size": value, "in": {"code": "ab"[k % 2]}}} for k, value in enumerate(NUMBERS)]
    path = tmp_path / ("t.parquet" if layout == "Parquet" else "t.json")
    if layout == "Parquet":
        pd.DataFrame(rows).to_parquet(path)
    elif layout == "columns and rows":
        path.write_text(json.dumps({"columns": ["y", "at"], "data": [list(row.values()) for row in rows]}))
    else:
        path.write_text("\n".join(map(json.dumps, rows)) if layout == "lines" else json.dumps({"page": 1, "rows": rows}))
    assert read(path)[0].preprocessing["features"] == ["at.size", "at.in.code=a", "at.in.code=b"]


@pytest.mark.parametrize("separator", ["~", "^", ":", "\x01"])
def test_a_rare_separator_is_told_by_the_columns_that_are_known(tmp_path, separator):
    task, _ = read(write(tmp_path / "t.csv", [row.replace(",", separator) for row in PLAIN], header=f"a{separator}y"))
    assert task.preprocessing["features"] == ["a"]


def test_new_rows_are_read_as_the_training_file_was_where_they_leave_it_open(tmp_path):
    rows = [f"{german(value)};{'цена' if k % 2 else 'вес'};{label(k)}" for k, value in enumerate(NUMBERS)]
    task, _ = read(write(tmp_path / "t.csv", rows, header="a;b;цель", encoding="cp1251"), "цель")
    assert task.preprocessing["file"] == {"encoding": "cp1251", "separator": ";", "quote": '"'}
    new = write(tmp_path / "new.csv", ["1.500,25;цена", "7;вес"], header="a;b", encoding="cp1251")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = prepare(task.preprocessing, new)
        other = prepare(task.preprocessing, write(tmp_path / "utf8.csv", ["1.500,25;цена", "7;вес"], header="a;b"))
    np.testing.assert_array_equal(found, prepare(task.preprocessing, pd.DataFrame({"a": [1500.25, 7.0], "b": ["цена", "вес"]})))
    np.testing.assert_array_equal(found, other)


def test_a_column_alone_with_decimal_commas_is_divided_as_in_training(tmp_path):
    task, _ = read(write(tmp_path / "t.csv", SEMICOLON, header="a;y"))
    found = prepare(task.preprocessing, write(tmp_path / "new.csv", ["1500,25", "7,5"], header="a"))
    np.testing.assert_array_equal(found, prepare(task.preprocessing, pd.DataFrame({"a": [1500.25, 7.5]})))


@pytest.mark.parametrize("rule", ["---,---", "|---|:--:|", "-----+-----"])
def test_a_line_below_the_header_is_no_row(tmp_path, rule):
    rows = [rule, *(f"|{row.replace(',', '|')}|" if "|" in rule else row for row in PLAIN)]
    task, said = read(write(tmp_path / "t.csv", rows, header="|a|y|" if "|" in rule else "a,y"))
    assert (sum(map(len, parts_of(task))), task.classes, said) == (ROWS, ("no", "yes"), "")


@pytest.mark.parametrize("behind", [b"\0" * 50, b"\x1a", b"(60 rows affected)\n", b"Source: the office\n"])
def test_what_stands_behind_the_last_row_is_no_row(tmp_path, behind):
    path = write(tmp_path / "t.csv", PLAIN)
    path.write_bytes(path.read_bytes() + behind)
    task, _ = read(path)
    assert sum(map(len, parts_of(task))) == len(prepare(task.preprocessing, path)) == ROWS


@pytest.mark.slow
def test_a_file_is_read_as_what_it_is_whatever_its_name_says(tmp_path):
    plain = prepare(read(write(tmp_path / "plain.dat", PLAIN))[0].preprocessing, tmp_path / "plain.dat")
    text = (tmp_path / "plain.dat").read_bytes()
    pd.read_csv(tmp_path / "plain.dat").to_parquet(tmp_path / "really.parquet")
    for name, data in (("a.csv", (tmp_path / "really.parquet").read_bytes()), ("b.csv", gzip.compress(text)), ("c.xlsx", text)):
        (tmp_path / name).write_bytes(data)
        task, said = read(tmp_path / name)
        np.testing.assert_allclose(prepare(task.preprocessing, tmp_path / name), plain, atol=1e-6)
        assert said == ""


@pytest.mark.parametrize("name", ["a.parquet", "a.xlsx", "a.json"])
def test_a_zip_of_a_table_with_types_is_to_be_unpacked(tmp_path, name):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(name, b"PAR1")
    with pytest.raises(ValueError, match=f"it must hold one file of text, it holds {name}; unpack it"):
        table(tmp_path / "a.zip", "y")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 3\n", "git lfs pull"),
        (b"<!DOCTYPE html>\n<html>\n", "it is a web page"),
        (b'a,y\n1,x\n"2,x\n3,x\n', "a quote that opens about line 2 is never closed"),
    ],
)
def test_what_is_no_table_is_named(tmp_path, text, words):
    (tmp_path / "t.csv").write_bytes(text)
    with pytest.raises(ValueError, match=words):
        table(tmp_path / "t.csv", "y")


def test_a_file_without_a_header_and_another_encoding_are_said(tmp_path):
    assert "the column 'no' has its name among its values" in read(write(tmp_path / "t.csv", PLAIN, header="1000.5,no"), "no")[1]
    rows = [f"{'цена' if k % 2 else 'вес'},{label(k)}" for k in range(ROWS)]
    assert "probably another encoding" in read(write(tmp_path / "c.csv", rows, encoding="cp1251"))[1]
    rows = [f"{'赤' if k % 2 else '青'},{label(k)}" for k in range(ROWS)]
    assert "probably another encoding" in read(write(tmp_path / "d.csv", rows, encoding="shift_jis"))[1]


def test_excel_is_read_as_it_is_shown_and_what_is_hidden_or_not_computed_is_said(tmp_path, monkeypatch):
    path = tmp_path / "t.xlsx"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("xl/workbook.xml", '<sheet name="Old &amp; new" state="hidden"/><sheet name="S"/>')
        archive.writestr("xl/worksheets/sheet1.xml", '<mergeCell ref="A2:A21"/>')
    body = [[f"r{k // 20}" if k % 20 == 0 else "", k % 7, "", label(k)] for k in range(ROWS)]
    raw = pd.DataFrame([["region", "a", "sum", "y"], *body])
    monkeypatch.setattr(pd, "read_excel", lambda *_, **__: {"Old & new": raw.copy(), "S": raw})
    areas = [SimpleNamespace(min_row=k, max_row=k + 19, min_col=1, max_col=1) for k in (2, 22, 42)]
    hidden, cells = SimpleNamespace(hidden=True), [SimpleNamespace(row=2, column=3, data_type="f", coordinate="C2")]
    sheet = {"row_dimensions": {5: hidden, 6: hidden}, "column_dimensions": {"B": hidden}, "iter_rows": lambda **_: [cells]}
    book = {"S": SimpleNamespace(merged_cells=SimpleNamespace(ranges=areas), **sheet)}
    monkeypatch.setitem(sys.modules, "openpyxl", SimpleNamespace(load_workbook=lambda _: book))
    task, said = read(path)
    assert of(task, "region")["levels"] == ["r0", "r1", "r2"]
    for words in ("read the sheet 'S'", "2 hidden rows are read as", "the hidden columns B are", "1 formulas, e.g. in C2, have no value"):
        assert words in said


def test_words_for_missing_are_classes_in_excel_too_and_cells_with_errors_are_gaps_that_are_said(tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "t.xlsx", "w") as archive:
        archive.writestr("xl/workbook.xml", "")
    rows = [["grade", "a", "b", "day", "y"]]
    rows += [
        [("None", "NA", "mild")[k % 3], k % 9, k / 7, pd.Timestamp(2024, 1, 1 + k % 28, k % 24), ("null", "nan")[k % 2]]
        for k in range(ROWS)
    ]
    rows[7][1] = rows[9][3] = ""
    rows[8][2] = rows[20][2] = np.nan  # as the readers of pandas make of an error
    monkeypatch.setattr(pd, "read_excel", lambda _, sheet_name, **how: {"S": TextParser(rows, **how).read()})
    for target, classes in (("grade", ("NA", "None", "mild")), ("y", ("nan", "null"))):
        task, said = read(tmp_path / "t.xlsx", target)
        assert (sum(map(len, parts_of(task))), task.classes) == (ROWS, classes)
        assert "cells with errors, in 2 of 61 rows, first row 9, count as missing" in said
        assert [of(task, name)["missing"] for name in ("a", "b", "day")] == [True] * 3
        assert [of(task, name)["type"] for name in ("a", "b", "day")] == ["numeric"] * 3
        assert "calendar" in of(task, "day")


def test_feather_and_a_packed_table_are_read_by_any_name(tmp_path):
    rows = [f"{k % 7},{label(k)}" for k in range(ROWS)]
    text = write(tmp_path / "t.csv", rows).read_bytes()
    (tmp_path / "packed.gz").write_bytes(gzip.compress(text))
    with zipfile.ZipFile(tmp_path / "archive.zip", "w") as archive:
        archive.writestr("t.csv", text)
        archive.writestr("README.txt", "where it is from")
    pd.read_csv(tmp_path / "t.csv").to_feather(tmp_path / "t.feather")
    for name in ("packed.gz", "archive.zip", "t.feather"):
        task = read(tmp_path / name)[0]
        assert len(task.train) + len(task.validation) + len(task.test) == ROWS, name


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (r'"he said \"hi, you\" then"', 'he said "hi, you" then'),
        (r'"12\""', '12"'),
        (r'"a \\ b, \"c\""', 'a \\ b, "c"'),
        (r'"C:\dir\"', "C:\\dir\\"),
        (r'"a ""b\"" c"', 'a "b\\" c'),
        (r"\N", None),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_quotes_behind_a_backslash_are_quotes_where_they_can_be_nothing_else(tmp_path, written, meant, packed):
    path = write(tmp_path / "t.csv", [f"{written if k % 2 else 'plain'},{k % 7},{label(k)}" for k in range(ROWS)], header="t,a,y")
    if packed:
        path = tmp_path / "t.csv.gz"
        path.write_bytes(gzip.compress((tmp_path / "t.csv").read_bytes()))
    task, said = read(path)
    assert (of(task, "t")["levels"], of(task, "t")["missing"]) == (sorted({meant, "plain"} - {None}), meant is None)
    assert said == ""
