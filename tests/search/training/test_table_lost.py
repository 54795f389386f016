"""What strangers' tables lost, or what was read as something else, without a word: columns, splits, values and the unit of new rows."""

import json
import re
import tarfile
import warnings

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from helpers.table_files import said_of, said_of_new

from joulefront.search.training.columns import infer
from joulefront.search.training.summary import open_data
from joulefront.search.training.table import prepare, table
from joulefront.search.training.table_file import read

ROWS = 60
LABELS = ["yes" if (7 * k) % 3 else "no" for k in range(ROWS)]


def written(path, columns, separator=","):
    names = ["x", *columns, "y"]
    cells = [[f"{k % 11}.5", *(str(values[k]) for values in columns.values()), LABELS[k]] for k in range(ROWS)]
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text("\n".join(separator.join(row) for row in [names, *cells]) + "\n", "utf-8")
    return path


def sizes(task):
    return [len(task.train), len(task.validation), len(task.test)]


def texts(*values):
    return np.array([values[k % len(values)] for k in range(ROWS)], dtype=object)


def test_parts_of_one_table_are_divided_at_random_and_names_of_folders_are_columns(tmp_path):
    """As Spark, Dask and Hive write them: the parts are no recordings, and what a folder is named stands in no file."""
    for k in range(3):
        written(tmp_path / f"spark/part-0000{k}-af3.csv", {})
        written(tmp_path / f"hive/site={'AB'[k % 2]}/day=0{k}/0.csv", {})
    (tmp_path / "spark" / "_SUCCESS").touch()
    task, _ = said_of(tmp_path / "spark")
    assert sizes(task) == [126, 27, 27]
    assert [column["name"] for column in task.preprocessing["columns"]] == ["x"]
    task, _ = said_of(tmp_path / "hive")
    assert sizes(task) == [126, 27, 27]
    levels = {column["name"]: column.get("levels") for column in task.preprocessing["columns"]}
    assert levels == {"x": None, "site": ["A", "B"], "day": ["00", "01", "02"]}
    assert prepare(task.preprocessing, tmp_path / "hive").shape == (180, 6)


def test_a_folder_of_one_table_is_that_table_and_of_two_says_what_to_do(tmp_path):
    written(tmp_path / "train.csv", {})
    (tmp_path / "test.csv").write_text("x\n1.5\n", "utf-8")
    task, said = said_of(tmp_path)
    assert sizes(task) == [42, 9, 9]
    assert "left out test.csv: no column y" in said
    written(tmp_path / "test.csv", {})
    with pytest.raises(ValueError, match=r"needs at least 3 different values .* join the files into one to divide"):
        table(tmp_path, "y")


def test_a_table_in_a_folder_is_read_as_it_is_alone(tmp_path):
    """By the target, by what training learnt, and by the first table where another one leaves it open; a folder is no table."""
    (tmp_path / "out.csv").mkdir()
    (tmp_path / "__MACOSX").mkdir()
    (tmp_path / "__MACOSX" / "part-1.csv").write_text("junk,y\n1,a\n")
    (tmp_path / "out.csv" / "part-0.csv").write_text("Export,2024\nx;y\nmm;-\n" + "1,5;a\n" * 9)
    (tmp_path / "out.csv" / "part-1.csv").write_text("Export,2024\nx;y\nmm;-\n2,5;b\n")
    with pytest.warns(UserWarning, match="1 lines above the header"):
        frame = read(tmp_path, ["y"])
    assert [frame["x"].tolist(), list(frame.columns)] == [["1,5"] * 9 + ["2,5"], ["x", "y"]]
    learnt = frame.attrs["file"]
    assert learnt == {"encoding": "utf-8", "separator": ";", "quote": '"', "units": {"x": "mm", "y": "-"}}
    (tmp_path / "out.csv" / "part-0.csv").unlink()
    with pytest.warns(UserWarning, match="taken for units"):
        assert read(tmp_path, ["x"], learnt)["x"].tolist() == ["2,5"]
    assert prepare({"columns": [{"name": "X", "type": "dropped"}], "file": learnt}, tmp_path).shape == (1, 0)


@pytest.mark.parametrize("spelt", [("{:.3e}", "{:.3E}"), ("{:.0f} kg", "{:.0f} KG")])
def test_amounts_are_no_classes_however_they_are_spelt(spelt):
    amounts = [1_000.0 + 37 * (k // 2) for k in range(ROWS)]
    frame = pd.DataFrame({"x": range(ROWS), "y": [spelt[k % 2].format(one) for k, one in enumerate(amounts)]})
    task, said = said_of(frame)
    assert (task.kind, "two classes" in said) == ("regression", False)


def test_new_rows_in_a_folder_may_spell_names_otherwise_and_lack_what_folders_are_named(tmp_path):
    written(tmp_path / "site=A" / "t.csv", {"Age": range(ROWS)})
    assert [*read(tmp_path, ["age", "site"]).columns] == ["x", "Age", "y", "site"]
    with pytest.raises(ValueError, match="has no column 'age'; did you mean 'Age'"):
        table(tmp_path, "age")


def test_tables_in_a_tar_and_in_a_stream_of_arrow_are_read(tmp_path):
    """Source: datasets of Hugging Face lie on disk as streams."""
    plain = written(tmp_path / "t.csv", {})
    with tarfile.open(tmp_path / "t.tar.gz", "w:gz") as archive:
        archive.add(plain, "t.csv")
    frame = pd.read_csv(plain)
    with pa.OSFile(str(tmp_path / "s.arrow"), "wb") as file, pa.ipc.new_stream(file, pa.Table.from_pandas(frame).schema) as stream:
        stream.write_table(pa.Table.from_pandas(frame))
    expected = table(plain, "y")
    for name in ("t.tar.gz", "s.arrow"):
        assert table(tmp_path / name, "y").preprocessing["columns"] == expected.preprocessing["columns"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"%PDF-1.4\n1 0 obj", "it is a document or a picture; save its table as CSV"),
        (b"{\\rtf1 x,y\n1,2}\n", "it is a document or a picture"),
        (b"SQLite format 3\0" + bytes(90), "it is a database or of another program; save it as CSV"),
        (b"1 1:0.5 3:-1e-3\n0 1:0.25 3:2\n", "a file of LIBSVM; read it by sklearn.datasets.load_svmlight_file"),
        (b"x,size, cm,y\n" + b"1,2,no\n" * 30, "no row has as many values as the header has names (4), and none a value of 'y'"),
        (b"x;z;y\n" + b"1,2,no\n" * 30, "is a ';' part of a name, or are rows divided by another sign?"),
    ],
)
def test_what_cannot_be_read_as_a_table_is_named_for_what_it_is(tmp_path, content, words):
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(words)):
        table(tmp_path / "t.csv", "1" if b":" in content else "y")


@pytest.mark.parametrize(
    ("values", "kind", "words"),
    [
        (texts(*(f"€{k}.{k}{k}7" for k in range(1, 9))), "number", "'€1.117'; if these are of thousands, write the numbers without them"),
        (texts("1.250 kg", "617 kg", "2.300 kg"), "number", "if these are of thousands"),
        (texts("0.125 kg", "0.617 kg", "0.301 kg"), "number", None),
        (texts(*(f"2024-03-{k + 10}" for k in range(15)), "45292", "unknown"), "text", "for beside dates it holds '45292', 'unknown'"),
        (texts(*(text for k in range(25) for text in ("keine", str(k)))), "text", "for beside numbers it holds 'keine'"),
        (texts("945-93-4535", "301-12-8866", "222-45-9821"), "text", None),
        (texts(*(f"{k}.{k}113;{k % 9}.75" for k in range(5, 30))), "text", "hold numbers in a form that is not read"),
        (texts('{"a": 1}', '{"a": 2}', "{}"), "text", "its values are lists or objects, e.g. '{\"a\": 1}'; make a column of each part"),
        (
            texts(*(f"{k}.{k % 12 + 1}.{k + 30}" for k in range(13, 29))),
            "date",
            "'13.2.43' as 2043 is far ahead; write years with four digits",
        ),
        (texts(*(f"{k}.{k % 12 + 1}.{k}" for k in range(13, 25))), "date", None),
        (texts("8:43pm", "3:02am", "11:30PM"), "date", None),
        (texts("4111 1111 2222", "4512 1311 9222"), "text", None),
        (texts("7911 234567", "7912 344567"), "text", None),
        (texts("1 234 567", "12 345", "7"), "number", None),
        (texts("[0.5 1.25]", "[3.5]"), "text", "its values are lists or objects"),
        (texts("1.5", "2.5", "3" + "x" * 999), "text", "'3" + "x" * 39 + "'; correct or empty"),
    ],
)
def test_how_texts_are_read_is_said_where_it_may_be_wrong(values, kind, words):
    reading = infer(values)
    assert reading.kind == kind
    assert "days beyond" not in (reading.note or "")
    assert words is None or words in reading.note


def test_truth_values_of_a_typed_file_are_those_that_a_file_of_text_writes_as_words(tmp_path):
    """They were refused: training on Parquet, new rows in CSV or JSON."""
    frame = pd.DataFrame(
        {"x": np.arange(ROWS) % 7, "b": np.arange(ROWS) % 3 == 0, "n": pd.array([True, None, False] * 20, "boolean"), "y": LABELS}
    )
    frame.to_parquet(tmp_path / "t.parquet")
    frame.to_csv(tmp_path / "t.csv", index=False)
    frame.to_json(tmp_path / "t.jsonl", orient="records", lines=True)
    learnt = table(tmp_path / "t.parquet", "y").preprocessing
    for name in ("t.csv", "t.jsonl"):
        np.testing.assert_array_equal(prepare(learnt, tmp_path / name), prepare(learnt, tmp_path / "t.parquet"))


def test_objects_in_lists_of_one_length_are_columns(tmp_path):
    rows = [{"x": k % 11, "items": [{"p": k % 5, "q": "uv"[k % 2]}], "y": LABELS[k]} for k in range(ROWS)]
    (tmp_path / "t.json").write_text(json.dumps(rows))
    assert {"items.0.p", "items.0.q=u"} <= {*table(tmp_path / "t.json", "y").preprocessing["features"]}


def test_new_rows_with_milliseconds_for_dates_or_without_their_unit_are_said(tmp_path):
    """As pandas writes dates into JSON: they were read as nanoseconds since 1970."""
    days = [f"{k % 28 + 1:02}.{k % 12 + 1:02}.2024" for k in range(ROWS)]
    task, _ = said_of(written(tmp_path / "t.csv", {"day": days, "mass": texts("12 kg", "15 kg", "9 kg"), "tall": texts("5'9\"", "6'1\"")}))
    rows = pd.DataFrame({"x": [1.5, 2.5], "mass": ["12", "15 kg"], "tall": [175, 180], "day": [1_700_000_000_000, 1_710_000_000_000]})
    made, said = said_of_new(task, rows)
    blank, _ = said_of_new(task, rows.assign(day=["", ""]))
    np.testing.assert_array_equal(made, blank)
    assert "2 values of 'day' were not seen in training, e.g. '1700000000000': no date, counted as missing" in said
    assert "1 value of 'mass' was written with another sign than 'kg' of training, e.g. '12'" in said
    assert "2 values of 'tall' were written with another sign than 'ft' of training, e.g. '175'" in said
    assert "another sign" not in said_of_new(task, tmp_path / "t.csv")[1]


@pytest.mark.parametrize(
    ("values", "kind", "words"),
    [
        ([f"0:{k % 50 + 10}:{k % 60:02}" for k in range(ROWS)], "regression", "'y' is times or durations, predicted in seconds"),
        (texts("08:00", "16:00", "22:00"), "classification", "--kind regression predicts them as seconds"),
        (texts("0.1", "0.2", "0.3"), "regression", "taken for amounts, 3 different ones; --kind classification makes classes of them"),
        (
            ["1e12", *(f"{k % 37}.25" for k in range(1, ROWS))],
            "regression",
            "the target is 1e+12 in one row, far from all others (0.25 to 36.25)",
        ),
        ([f"{1.2 ** (k % 40):.2f}" for k in range(ROWS)], "regression", None),
    ],
)
def test_what_a_target_is_taken_for_is_said(values, kind, words):
    task, said = said_of(pd.DataFrame({"x": np.arange(ROWS) % 7, "y": values}))
    assert task.kind == kind
    assert words in said if words else "far from all others" not in said
    if "seconds" in (words or "") and kind == "regression":
        assert float(np.concatenate([y for _, y in task.train.batches(99)]).max()) > 0 or task.target_scale[0] > 600


def test_columns_that_weigh_or_divide_the_rows_and_tell_the_target_in_words_are_said():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"x": rng.normal(size=ROWS), "fnlwgt": rng.normal(size=ROWS), "weight": rng.normal(size=ROWS), "y": LABELS})
    frame = frame.assign(part=texts("Train", "test", "val"), is_train=np.arange(ROWS) % 2, who=texts("train", "tram", "bus"))
    _, said = said_of(frame)
    assert "'fnlwgt' is named like weights of the rows, which all count alike; it is taken for a feature" in said
    assert all(f"'{name}' names parts of the data, which are drawn anew" in said for name in ("part", "is_train"))
    assert "'weight' is named" not in said
    assert "'who' names" not in said


def test_groups_that_are_spelt_alike_and_splits_that_are_nearly_empty_are_said():
    frame = pd.DataFrame({"x": np.arange(ROWS) % 7, "who": texts("Ann", "ann ", "Bob", "Cyd", "Dan"), "y": LABELS})
    assert "'Ann' and 'ann' in 'who' differ in capitals or blanks only, and are two groups" in said_of(frame, split="group:who")[1]
    few = frame.assign(who=["big"] * (ROWS - 4) + ["b", "b", "c", "c"], day=[1] * (ROWS - 3) + [2, 3, 4])
    assert "of 60 rows 2 validate and 2 test, for many have one 'who'" in said_of(few, split="group:who")[1]
    assert "for many have one 'day'" in said_of(few, split="time:day")[1]
    assert "for many" not in said_of(frame, split="group:who")[1]


def test_free_text_that_tells_the_target_is_said(tmp_path):
    pytest.importorskip("wordllama")
    path = written(tmp_path / "t.csv", {"note": [f"case {k} of the ward was told {label} by us" for k, label in enumerate(LABELS)]})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        said = open_data(path, "y").seen["warnings"]
    assert any("the column 'note' tells the target almost alone" in one for one in said)
