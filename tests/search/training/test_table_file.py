"""Tables as people have them: every kind of file is read as it is meant, or refused in one line, or read with a word about what is odd."""

import gzip
import json
import sys
import warnings
import zipfile
from contextlib import suppress
from shlex import quote
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from joulefront.search.training.table import prepare, table

ROWS = 60
NUMBERS = [round(1000.5 + 37.25 * k, 2) for k in range(ROWS)]


def german(value):
    return f"{value:,.2f}".replace(",", "x").replace(".", ",").replace("x", ".")


def write(path, rows, *, header="a,y", encoding="utf-8", above=""):
    path.write_bytes((above + header + "\n" + "\n".join(rows) + "\n").encode(encoding))
    return path


def label(k):
    return "yes" if k % 3 else "no"


def of(task, name):
    return next(column for column in task.preprocessing["columns"] if column["name"] == name)


def read(path, target="y", **options):
    """The task, and every warning in one text."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        task = table(path, target, **options)
    return task, " | ".join(str(one.message) for one in caught)


PLAIN = [f"{value},{label(k)}" for k, value in enumerate(NUMBERS)]
SEMICOLON = [f"{german(value)};{label(k)}" for k, value in enumerate(NUMBERS)]
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


@pytest.mark.filterwarnings("ignore:.*above the header")
@pytest.mark.parametrize("kind", FILES.values(), ids=FILES)
def test_a_file_of_every_kind_gives_the_same_task(tmp_path, kind):
    expected, _ = read(write(tmp_path / "plain.csv", PLAIN))
    task = table(write(tmp_path / "t.csv", **kind), "y")
    assert (task.classes, task.preprocessing["features"]) == (("no", "yes"), ["a"])
    np.testing.assert_allclose(task.train.inputs, expected.train.inputs, atol=1e-6)
    assert task.train.targets.tolist() == expected.train.targets.tolist()
    again = prepare(task.preprocessing, tmp_path / "t.csv")
    np.testing.assert_array_equal(np.sort(again[:, 0]), np.sort(np.concatenate([part.inputs[:, 0] for part in _parts(task)])))


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


def test_a_row_that_is_too_long_far_down_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"(line|Expected 2 fields in line) ?60002|60002"):
        table(write(tmp_path / "t.csv", [*PLAIN * 1000, "1,yes,2"]), "y")


def _parts(task):
    return task.train, task.validation, task.test


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
    sheet = pd.DataFrame([["by the office", None, None, None], list(frame.columns), *frame.to_numpy(dtype=object).tolist()])
    sheets = {"Info": pd.DataFrame([["read me", "first"]]), "Data": sheet}
    monkeypatch.setattr(
        pd, "read_excel", lambda given, header, sheet_name: sheets if (given, header, sheet_name) == (path, None, None) else None
    )
    task, said = read(path)
    assert ("left out 1 lines above the header" in said) == (ending == "xlsx")
    assert ("read the sheet 'Data', not 'Info'" in said) == (ending == "xlsx")
    assert task.preprocessing["features"] == ["code=01", "code=02", "code=A4", "size", "flag"]
    np.testing.assert_array_equal(prepare(task.preprocessing, path), prepare(task.preprocessing, frame))


def test_objects_of_columns_and_long_cells_are_read(tmp_path):
    frame = pd.DataFrame({"a": NUMBERS, "y": [label(k) for k in range(ROWS)]})
    for text in (frame.to_json(), frame.to_json(orient="records", indent=1), json.dumps(frame.to_dict(orient="list"))):
        (tmp_path / "t.json").write_text(text)
        assert len(table(tmp_path / "t.json", "y").train) == 42
    (tmp_path / "t.json.gz").write_bytes(gzip.compress(text.encode()))
    assert len(table(tmp_path / "t.json.gz", "y").train) == 42
    rows = [f"{row},{'x' * 140_000 if k == 4 else k % 3}" for k, row in enumerate(PLAIN)]
    assert table(write(tmp_path / "t.csv", rows, header="a,y,b"), "y").classes == ("no", "yes")


def test_a_day_at_the_end_of_time_is_missing(tmp_path):
    days = [f"{'9999-12-31' if k % 7 == 0 else f'2024-01-{1 + k % 28:02}'}" for k in range(ROWS)]
    task, _ = read(write(tmp_path / "t.csv", [f"{day},{label(k)}" for k, day in enumerate(days)]))
    assert task.preprocessing["features"][:2] == ["a", "a?"]
    assert of(task, "a")["std"] < 28 * 86_400


def test_numbers_with_signs_before_them_get_a_word(tmp_path):
    _, said = read(write(tmp_path / "t.csv", [f"{'<>~'[k % 3]}{row},{k % 4}" for k, row in enumerate(PLAIN)], header="a,y,b"))
    assert "'a' is text, for its numbers have signs as in '<1000.5'" in said


def test_an_infinite_target_is_none_and_decimal_signs_that_are_mixed_are_said(tmp_path):
    rows = [f"{value:.2f}".replace(".", "," if k % 2 else ".") + f";{'inf' if k == 7 else value}" for k, value in enumerate(NUMBERS)]
    _, said = read(write(tmp_path / "t.csv", [f"{row};{k % 5}" for k, row in enumerate(rows)], header="a;y;b"))
    assert "left out 1 of 60 rows without y (inf)" in said
    assert "'a' is text, for its numbers have decimal points and decimal commas" in said


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


@pytest.mark.parametrize("missing", ["?", "-", "n/a", "NA", "nan", "None", "NULL", "--", "", "#N/A", "unknown"])
def test_every_way_to_say_missing_leaves_a_column_of_numbers(tmp_path, missing):
    rows = [f"{missing if k % 10 == 0 else 50 + k * 1.5},{label(k)}" for k in range(ROWS)]
    task, said = read(write(tmp_path / "t.csv", rows))
    assert task.preprocessing["features"] == ["a", "a?"]
    assert ("'a' is numbers, among which 'unknown' counts as missing" in said) == (missing == "unknown")


def test_numbers_among_many_texts_are_text_with_a_word(tmp_path):
    rows = [f"{k * 1.5 if k % 4 else 'about ' + str(k)},{label(k)}" for k in range(ROWS)]
    with pytest.warns(UserWarning, match=r"'a' is text, for beside numbers it holds 'about 0'"):
        assert table(write(tmp_path / "t.csv", rows), "y").preprocessing["features"] == ["a~about"]


FORMS = (
    "%Y-%m-%d",
    "%Y-%m-%dT%H:%M:%SZ",
    "%Y-%m-%d %H:%M:%S",
    "%d.%m.%Y",
    "%m/%d/%Y",
    "%d/%m/%Y %H:%M",
    "%d %b %Y",
    "%B %d, %Y",
    "%Y/%m/%d",
)
FORMS = (*FORMS, "%Y%m%d", "%Y%m%dT%H%M%SZ", "%a, %d %b %Y", "%a, %d %b %Y %H:%M:%S +0000", "%d.%m.%Y %H:%M Uhr", "%d/%b/%Y:%H:%M:%S +0000")


@pytest.mark.parametrize("form", FORMS)
def test_dates_are_seconds_however_they_are_written(tmp_path, form):
    days = pd.date_range("2023-12-20", periods=ROWS, freq="25h")
    path = write(tmp_path / "t.csv", [f'"{day.strftime(form)}",{label(k)}' for k, day in enumerate(days)])
    task, said = read(path)
    assert task.preprocessing["features"][0] == "a"
    assert "a@month sin" in task.preprocessing["features"]
    assert "reverse" not in said
    made = prepare(task.preprocessing, pd.read_csv(path))[:, 0]
    whole = np.array([pd.to_datetime(day.strftime(form), format=form).timestamp() for day in days])
    np.testing.assert_allclose(made * of(task, "a")["std"] + of(task, "a")["mean"], whole, rtol=1e-6)
    np.testing.assert_array_equal(made, prepare(task.preprocessing, path)[:, 0])


@pytest.mark.parametrize(
    ("form", "months"),
    [
        ("{day}. {month} {year}", "Januar Februar März April Mai Juni Juli August September Oktober November Dezember"),
        ("Mo., {day}. {month} {year}", "Jan. Feb. Mrz. Apr. Mai Jun. Jul. Aug. Sep. Okt. Nov. Dez."),
        ("{day} {month} {year}", "janvier février mars avril mai juin juillet août septembre octobre novembre décembre"),
        ("{day} de {month} de {year}", "enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre diciembre"),
        ("{day}th of {month} {year}", "January February March April May June July August September October November December"),
        ("{day}-{month}-{year}", "gen feb mar apr mag giu lug ago set ott nov dic"),
        ("{day} {month} {year}", "января февраля марта апреля мая июня июля августа сентября октября ноября декабря"),
        ("{year}年{month}月{day}日", "1 2 3 4 5 6 7 8 9 10 11 12"),
    ],
)
def test_months_are_read_in_other_languages(tmp_path, form, months):
    days = pd.date_range("2023-01-05", periods=ROWS, freq="6D")
    written = [form.format(day=day.day, month=months.split()[day.month - 1], year=day.year) for day in days]
    path = write(tmp_path / "t.csv", [f'"{text}",{label(k)}' for k, text in enumerate(written)])
    task, said = read(path)
    found = prepare(task.preprocessing, path)[:, 0] * of(task, "a")["std"] + of(task, "a")["mean"]
    np.testing.assert_allclose(found, (days - pd.Timestamp(0)).total_seconds(), rtol=1e-6)
    assert said == ""


def test_dates_that_were_stored_as_such_are_read_from_text_later(tmp_path):
    days = pd.date_range("2023-12-20", periods=ROWS, freq="25h")
    frame = pd.DataFrame({"a": days, "y": [label(k) for k in range(ROWS)]})
    frame.to_parquet(tmp_path / "t.parquet")
    frame.to_csv(tmp_path / "later.csv", index=False)
    how = table(tmp_path / "t.parquet", "y").preprocessing
    np.testing.assert_array_equal(prepare(how, tmp_path / "later.csv"), prepare(how, tmp_path / "t.parquet"))


def test_dates_as_the_target_are_classes_with_a_hint_or_days(tmp_path):
    days = pd.date_range("2024-01-01", periods=ROWS, freq="D")
    frame = pd.DataFrame({"a": np.arange(ROWS) % 7 + 0.5, "y": days})
    path = tmp_path / "t.csv"
    frame.to_csv(path, index=False)
    with pytest.warns(UserWarning, match=rf"'y' is dates, taken for {ROWS} classes; --kind regression"), suppress(ValueError):
        table(path, "y")
    mean, deviation = table(path, "y", kind="regression").target_scale
    assert abs(mean - (days - pd.Timestamp(0)).days.to_numpy().mean()) < deviation


def test_dates_that_could_be_the_reverse_are_said(tmp_path):
    _, said = read(write(tmp_path / "t.csv", [f"{1 + k % 12:02}/{1 + k % 11:02}/2024,{label(k)}" for k in range(ROWS)]))
    assert "'a' is read as month/day, and could be the reverse" in said


@pytest.mark.parametrize("codes", [["01", "02", "03", "A4"], ["007", "010", "100"], ["1.0", "2.0", "B"], ["True", "no", "1"]])
def test_codes_are_the_same_in_training_in_a_file_and_in_a_frame_that_pandas_read(tmp_path, codes):
    path = write(tmp_path / "t.csv", [f"{codes[k % len(codes)]},{label(k)}" for k in range(ROWS)])
    task, _ = read(path)
    by_file = prepare(task.preprocessing, path)
    np.testing.assert_array_equal(prepare(task.preprocessing, pd.read_csv(path)), by_file)
    np.testing.assert_array_equal(by_file.sum(axis=1), 1)
    plain = [code for code in codes if code.isdigit()]
    write(tmp_path / "rows.csv", plain, header="a")
    assert plain == [] or (prepare(task.preprocessing, pd.read_csv(tmp_path / "rows.csv")).sum(axis=1) == 1).all()


def test_values_that_training_never_saw_are_counted():
    frame = pd.DataFrame({"town": ["Ulm", "Paris"] * 30, "size": range(60), "y": [label(k) for k in range(60)]})
    how = table(frame, "y").preprocessing
    with pytest.warns(UserWarning, match=r"2 values of 'town' were not seen in training, e.g. 'Rome'"):
        assert prepare(how, pd.DataFrame({"town": ["Rome", "Bonn", "Ulm"], "size": [1, 2, 3]}))[:, :2].sum() == 1
    with pytest.warns(UserWarning, match=r"1 value of 'size' was not seen in training, e.g. 'large'"):
        prepare(how, pd.DataFrame({"town": ["Ulm", "Ulm"], "size": ["1", "large"]}))


@pytest.mark.parametrize(
    "name", ["", "id", "ID", "PassengerId", "customer_id", "id_cliente", "index", "row nr", "No.", "lfd. Nr.", "Kundennummer", "numéro"]
)
def test_numbers_that_name_the_rows_are_no_feature_unless_they_are_kept(tmp_path, name):
    path = write(tmp_path / "t.csv", [f"{7 * k},{row}" for k, row in enumerate(PLAIN)], header=f"{name},a,y")
    task, said = read(path)
    assert task.preprocessing["features"] == ["a"]
    assert f"{name or 'Unnamed: 0'!r}, which names the rows; --keep {quote(name or 'Unnamed: 0')} uses it" in said
    assert len(table(path, "y", keep=name or "Unnamed: 0").preprocessing["features"]) == 2


@pytest.mark.parametrize("name", ["paid", "price", "valid", "number of rooms", "grid"])
def test_other_numbers_stay_features(tmp_path, name):
    path = write(tmp_path / "t.csv", [f"{7 * k},{row}" for k, row in enumerate(PLAIN)], header=f"{name},a,y")
    assert table(path, "y").preprocessing["features"] == [name, "a"]


def test_a_class_may_be_called_none_or_nan_and_an_empty_cell_is_missing(tmp_path):
    names = ["None", "nan", "mild", "NA"]
    task, said = read(write(tmp_path / "t.csv", [f"{k * 1.5},{names[k % 4]}" for k in range(ROWS)] + ["3,"] * 5))
    assert task.classes == ("NA", "None", "mild", "nan")
    assert "left out 5 of 65 rows without y" in said
    assert "'NA' in y is taken for a class" in said
    task, said = read(write(tmp_path / "n.csv", [f"{k * 1.5},{'?' if k % 20 == 0 else k % 2}" for k in range(ROWS)]))
    assert task.classes == ("0", "1")
    assert "left out 3 of 60 rows without y (?)" in said


def test_the_target_again_under_nearly_its_name_is_left_out_and_under_another_it_is_said(tmp_path):
    path = write(tmp_path / "t.csv", [f"{row},{label(k)},{k % 3 > 0:d}" for k, row in enumerate(PLAIN)], header="a,y,Y.1,code")
    task, said = read(path)
    assert task.preprocessing["features"] == ["a", "code"]
    assert "'Y.1' is the target again; left out" in said
    assert "'code' tells the target alone; if it is known too late, --drop code" in said
    euros = pd.DataFrame({"cents": np.array(NUMBERS) * 100, "x": range(ROWS), "price": NUMBERS})
    assert "'cents' tells the target alone" in read(euros, "price")[1]


def test_a_class_that_a_split_lacks_is_named(tmp_path):
    rows = [f"{k * 1.5 % 7},{'rare' if k < 2 else 'usual'}" for k in range(102)]
    task, said = read(write(tmp_path / "t.csv", rows))
    assert "no validation example of the class 'rare' (2 in all)" in said
    assert set(task.validation.targets.tolist()) == {1}


def test_amounts_that_may_be_classes_are_said_and_can_be_told(tmp_path):
    path = write(tmp_path / "t.csv", [f"{k * 1.5},{k % 26}" for k in range(260)])
    task, said = read(path)
    assert task.kind == "regression"
    assert "26 different ones; --kind classification" in said
    assert len(read(path, kind="classification")[0].classes) == 26


DRESSED = {
    "percent signs": "{0}%",
    "codes of currencies behind": "{0} EUR",
    "codes of currencies before": "USD {0}",
    "signs of currencies": "${0}",
    "units": "{0} kg",
    "units without a blank": "{0}cm²",
    "digits of another script": "{1}",
    "formulas that keep Excel from reading": '"=""{0}"""',
}


@pytest.mark.parametrize("form", DRESSED.values(), ids=DRESSED)
def test_numbers_are_numbers_however_they_are_dressed_and_in_prediction_as_well(tmp_path, form):
    other = str.maketrans("0123456789", "٠١٢٣٤٥٦٧٨٩")
    rows = [f"{form.format(value, str(value).translate(other))},{label(k)}" for k, value in enumerate(NUMBERS)]
    plain, _ = read(write(tmp_path / "plain.csv", PLAIN))
    task, _ = read(write(tmp_path / "t.csv", rows))
    np.testing.assert_allclose(task.train.inputs, plain.train.inputs, atol=1e-6)
    expected = prepare(plain.preprocessing, tmp_path / "plain.csv")
    np.testing.assert_allclose(prepare(task.preprocessing, tmp_path / "t.csv"), expected, atol=1e-6)


@pytest.mark.parametrize("form", ["({0})", "{0}-", "-${0}", "−{0}", "$ -{0}"])
def test_what_is_below_zero_is_so_however_it_is_written(tmp_path, form):
    rows = [f"{form.format(value) if k % 2 else value},{label(k)}" for k, value in enumerate(NUMBERS)]
    task, _ = read(write(tmp_path / "t.csv", rows))
    plain = [f"{-value if k % 2 else value},{label(k)}" for k, value in enumerate(NUMBERS)]
    np.testing.assert_allclose(task.train.inputs, read(write(tmp_path / "plain.csv", plain))[0].train.inputs, atol=1e-6)


def test_groups_of_digits_as_in_india_and_truth_in_several_spellings(tmp_path):
    rows = [f'"1,23,{100 + k}.50",{("TRUE", "False", "true", "1", "0")[k % 5]},{label(k)}' for k in range(ROWS)]
    task, _ = read(write(tmp_path / "t.csv", rows, header="a,b,y"))
    assert task.preprocessing["features"] == ["a", "b"]
    assert of(task, "a")["mean"] == pytest.approx(123_100.5 + 29.5, abs=15)


def test_whole_numbers_that_a_float_cannot_tell_apart_are_texts_and_hashes_name_the_rows(tmp_path):
    rows = [f"{2**60 + k % 3},{k * 2654435761 % 2**48:012x},{k % 7},{label(k)}" for k in range(ROWS)]
    task, said = read(write(tmp_path / "t.csv", rows, header="code,key,a,y"))
    assert of(task, "code")["levels"] == [str(2**60 + k) for k in range(3)]
    assert "too long to tell apart as numbers" in said
    assert of(task, "key")["reason"] == "names the rows"
    assert "--keep key uses it" in said
    assert of(read(tmp_path / "t.csv", keep="key")[0], "key")["type"] == "categorical"


def test_dates_in_several_forms_and_classes_that_differ_in_capitals_are_said(tmp_path):
    days = [f"2024-{k % 9 + 1:02}-1{k % 9}" if k % 2 else f"1{k % 9}/0{k % 9 + 1}/2024" for k in range(ROWS)]
    _, said = read(
        write(tmp_path / "t.csv", [f"{days[k]},{k % 7},{label(k) if k % 4 else label(k).upper()}" for k in range(ROWS)], header="d,a,y")
    )
    assert "'d' looks like dates, of which no one form fits" in said
    assert "differ in capitals or blanks only, and are two classes" in said


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
    whole = np.concatenate([part.inputs for part in _parts(task)])
    np.testing.assert_allclose(np.sort(prepare(task.preprocessing, frame.drop(columns="y")), axis=0), np.sort(whole, axis=0), atol=1e-6)


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
    assert (sum(map(len, _parts(task))), task.classes, of(task, "a")["type"]) == (ROWS, ("no", "yes"), "numeric")


@pytest.mark.parametrize("first", ["?,yes", "unknown,yes", "NA,no", "12,new"])
def test_a_first_row_with_a_gap_is_a_row(tmp_path, first):
    assert sum(map(len, _parts(read(write(tmp_path / "t.csv", [first, *PLAIN]))[0]))) == ROWS + 1


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


@pytest.mark.parametrize(
    ("trained", "header", "new"), [(SEMICOLON, "a;y", ["1.5,x", "2.25,x"]), (SEMICOLON, "a;y", ["1.500,x"]), (PLAIN, "a,y", ["1,5;x"])]
)
def test_another_decimal_sign_than_in_training_is_said(tmp_path, trained, header, new):
    task, _ = read(write(tmp_path / "t.csv", [f"{row}" for row in trained], header=header))
    path = write(tmp_path / "new.csv", [*new, "3" + new[0][-2:]], header=header.translate({44: 59, 59: 44}))
    with pytest.warns(UserWarning, match=r"numbers of 'a', e.g. '1.5(00)?', were read with the decimal sign '.' of training"):
        prepare(task.preprocessing, path)


@pytest.mark.parametrize(("name", "factor", "dropped"), [("population_num", 7919, False), ("customer no.", 1, True), ("id", 7919, True)])
def test_an_amount_with_the_name_of_a_number_is_no_name_of_rows(tmp_path, name, factor, dropped):
    rows = [f"{k * 7 % ROWS * factor + 1},{row}" for k, row in enumerate(PLAIN)]
    task, said = read(write(tmp_path / "t.csv", rows, header=f"{name},a,y"))
    assert (of(task, name)["type"] == "dropped") is dropped is (f"{name!r}, which names the rows" in said)


TIMES = {
    "quarters": ([f"{2019 + k % 6}Q{1 + k % 4}" for k in range(ROWS)], "date"),
    "quarters before the year": ([f"Q{1 + k % 4} {2019 + k % 6}" for k in range(ROWS)], "date"),
    "weeks": ([f"2024-W{1 + k % 52:02}" for k in range(ROWS)], "date"),
    "hours with points": ([f"{1 + k % 12}:{k % 60:02} {'a.m.' if k % 2 else 'p.m.'}" for k in range(ROWS)], "date"),
    "beyond a day": ([f"{k}:{7 * k % 60:02}:00" for k in range(ROWS)], "duration"),
    "units of time": ([f"{k % 5}h {7 * k % 60}m" for k in range(ROWS)], "duration"),
    "as in ISO 8601": ([f"PT{k % 5}H{7 * k % 60}M" for k in range(ROWS)], "duration"),
    "with days": ([f"{k % 5} days {k % 24:02}:{7 * k % 60:02}:00" for k in range(ROWS)], "duration"),
}


@pytest.mark.parametrize(("cells", "kind"), TIMES.values(), ids=TIMES)
def test_quarters_weeks_and_durations_are_times_in_training_and_in_prediction(tmp_path, cells, kind):
    task, said = read(write(tmp_path / "t.csv", [f"{cell},{k % 7},{label(k)}" for k, cell in enumerate(cells)], header="t,a,y"))
    assert (of(task, "t")["type"], of(task, "t")["reading"], said) == ("numeric", kind, "")
    whole = np.concatenate([part.inputs for part in _parts(task)])
    np.testing.assert_allclose(np.sort(prepare(task.preprocessing, tmp_path / "t.csv"), axis=0), np.sort(whole, axis=0), atol=1e-6)


def test_durations_are_seconds(tmp_path):
    cells = ["26:15:00", "1 day 02:15:00", "26h 15m", "P1DT2H15M", "1d 2h 15m"]
    rows = [f"{cells[k % 5] if k % 2 else '1:00:00'},{label(k)}" for k in range(ROWS)]
    mean = of(read(write(tmp_path / "t.csv", rows))[0], "a")["mean"]
    assert mean == pytest.approx((94_500 + 3_600) / 2, rel=0.1)


MIXED = {
    "units": ([f"{k}{'kg' if k % 2 else 'g'}" for k in range(ROWS)], "its numbers have several units, 'g' and 'kg'"),
    "currencies": ([f"{'$€'[k % 2]}{k}" for k in range(ROWS)], "is numbers with '$' and '€', which are read alike"),
    "percent signs": ([f"{k}%" if k % 2 else f"{k / 100}" for k in range(ROWS)], "'%' in some cells and none in others"),
    "capitals": ([("Red", "red", "blue")[k % 3] for k in range(ROWS)], "'Red' and 'red' in 't' differ in capitals or blanks only"),
    "a marker below": ([-999 if k % 9 == 0 else k for k in range(ROWS)], "'t' is -999 in 7 rows"),
    "a marker above": ([9999 if k % 9 == 0 else k for k in range(ROWS)], "if that means missing, --missing t=9999"),
    "a first day": (["1900-01-01" if k % 9 == 0 else f"2024-01-{k % 28 + 1:02}" for k in range(ROWS)], "--missing t=1900-01-01"),
    "values without measure": ([f"{1000 + 37 * k}e{100 + k}" for k in range(ROWS)], "would be beyond all measure"),
}


@pytest.mark.parametrize(("cells", "words"), MIXED.values(), ids=MIXED)
def test_what_stands_beside_numbers_and_for_missing_ones_is_said(tmp_path, cells, words):
    assert words in read(write(tmp_path / "t.csv", [f"{cell},{k % 7},{label(k)}" for k, cell in enumerate(cells)], header="t,a,y"))[1]


@pytest.mark.parametrize("cells", [["1.0.0", "2.1.3", "1.4.2"], ["10.0.0.1", "10.0.3.7", "10.1.2.2"], ['"52.10, 13.40"', '"48.20, 9.10"']])
def test_versions_addresses_and_places_are_called_no_dates(tmp_path, cells):
    rows = [f"{cells[k % len(cells)]},{k % 7},{label(k // 3)}" for k in range(ROWS)]
    assert read(write(tmp_path / "t.csv", rows, header="t,a,y"))[1] == ""


def test_markers_of_missing_values_are_missing_in_training_and_prediction(tmp_path):
    rows = [f"{-999 if k % 9 == 0 else k},{99 if k % 5 == 0 else k % 4},{label(k)}" for k in range(ROWS)]
    task, said = read(write(tmp_path / "t.csv", rows, header="a,b,y"), missing="-999,b=99")
    assert (of(task, "a")["missing"], of(task, "b")["missing"], said) == (True, True, "")
    new = prepare(task.preprocessing, write(tmp_path / "new.csv", ["-999,99", "99,1"], header="a,b"))
    np.testing.assert_array_equal(new, prepare(task.preprocessing, pd.DataFrame({"a": [None, 99.0], "b": [None, 1.0]})))
    assert new[0].tolist() != new[1].tolist()
    with pytest.raises(ValueError, match="no column 'c'"):
        table(tmp_path / "t.csv", "y", missing="c=5")


@pytest.mark.parametrize("rule", ["---,---", "|---|:--:|", "-----+-----"])
def test_a_line_below_the_header_is_no_row(tmp_path, rule):
    rows = [rule, *(f"|{row.replace(',', '|')}|" if "|" in rule else row for row in PLAIN)]
    task, said = read(write(tmp_path / "t.csv", rows, header="|a|y|" if "|" in rule else "a,y"))
    assert (sum(map(len, _parts(task))), task.classes, said) == (ROWS, ("no", "yes"), "")


@pytest.mark.parametrize("behind", [b"\0" * 50, b"\x1a", b"(60 rows affected)\n", b"Source: the office\n"])
def test_what_stands_behind_the_last_row_is_no_row(tmp_path, behind):
    path = write(tmp_path / "t.csv", PLAIN)
    path.write_bytes(path.read_bytes() + behind)
    task, _ = read(path)
    assert sum(map(len, _parts(task))) == len(prepare(task.preprocessing, path)) == ROWS


def test_a_file_is_read_as_what_it_is_whatever_its_name_says(tmp_path):
    plain = prepare(read(write(tmp_path / "plain.dat", PLAIN))[0].preprocessing, tmp_path / "plain.dat")
    text = (tmp_path / "plain.dat").read_bytes()
    pd.read_csv(tmp_path / "plain.dat").to_parquet(tmp_path / "really.parquet")
    for name, data in (("a.csv", (tmp_path / "really.parquet").read_bytes()), ("b.csv", gzip.compress(text)), ("c.xlsx", text)):
        (tmp_path / name).write_bytes(data)
        task, said = read(tmp_path / name)
        np.testing.assert_allclose(prepare(task.preprocessing, tmp_path / name), plain, atol=1e-6)
        assert said == ""


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


def test_short_hashes_ids_with_gaps_and_counters_that_begin_again_name_the_rows(tmp_path):
    def row(k):
        return f"{k * 2654435761 % 2**32:08x},{'' if k == 7 else 1000 + k},{k % 20},{k % 7},{label(k)}"

    task, said = read(write(tmp_path / "t.csv", [row(k) for k in range(ROWS)], header="key,id,,a,y"))
    assert [of(task, name).get("reason") for name in ("key", "id", "Unnamed: 2")] == ["names the rows"] * 3
    assert "left out 'key', 'id', 'Unnamed: 2', which names the rows" in said


def test_targets_that_cannot_be_learnt_are_refused_or_said(tmp_path):
    path = write(tmp_path / "t.csv", [f"{k},name{k},name{k // 2},7.5,{'Y' if k % 2 else 'yes'}" for k in range(ROWS)], header="a,b,c,d,e")
    with pytest.raises(ValueError, match="'b' has 60 classes in 60 rows; predict another column"):
        table(path, "b")
    with pytest.raises(ValueError, match="at least two values, got only 7"):
        table(path, "d")
    assert "'c' has 30 classes in 60 rows" in read(path, "c")[1]
    assert "'Y' and 'yes' in e differ in spelling only" in read(path, "e")[1]
    for wrong, words in (({"max_levels": 0}, "max_levels must be at least 1"), ({"folds": 50}, "at most 20 parts")):
        with pytest.raises(ValueError, match=words):
            table(path, "e", **wrong)


def test_rows_that_come_again_and_columns_that_group_rows_are_said(tmp_path):
    rows = [f"{k % 30},{k % 30 * 7919 % 997},{k % 7},{label(k % 30)}" for k in range(2 * ROWS)]
    said = read(write(tmp_path / "t.csv", rows, header="patient_id,b,c,y"))[1]
    assert "'patient_id' may name what several rows belong to; --split group:patient_id" in said
    assert "validation rows are training rows again" in read(write(tmp_path / "d.csv", [*rows[:30] * 4], header="p,b,c,y"))[1]


def test_cells_of_excel_that_are_merged_over_rows_have_one_value(tmp_path, monkeypatch):
    path = tmp_path / "t.xlsx"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("xl/workbook.xml", "")
        archive.writestr("xl/worksheets/sheet1.xml", '<mergeCell ref="A2:A21"/>')
    body = [[f"r{k // 20}" if k % 20 == 0 else None, k % 7, label(k)] for k in range(ROWS)]
    monkeypatch.setattr(pd, "read_excel", lambda *_, **__: {"S": pd.DataFrame([["region", "a", "y"], *body])})
    areas = [SimpleNamespace(min_row=k, max_row=k + 19, min_col=1, max_col=1) for k in (2, 22, 42)]
    book = {"S": SimpleNamespace(merged_cells=SimpleNamespace(ranges=areas))}
    monkeypatch.setitem(sys.modules, "openpyxl", SimpleNamespace(load_workbook=lambda _: book))
    assert of(read(path)[0], "region")["levels"] == ["r0", "r1", "r2"]


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
