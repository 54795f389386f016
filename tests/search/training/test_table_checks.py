"""What is probably not meant in a table is said, with a remedy that works when it is pasted, whatever the columns are called."""

import re
import shlex
import warnings
from datetime import time
from hashlib import sha256

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulefront.search.cli import main
from joulefront.search.formatting import names_text, read_names
from joulefront.search.training.table import prepare, table
from joulefront.search.training.table_checks import warn_of_scales

NAMES = ["height, cm", 'say "hi"', "it's", "  blanks ", "a=b", "größe", "$HOME;*`x`", "--drop", '"quoted"', "new\nline", "a,b", "tab\there"]


def said_of(data, target="y", **options):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        task = table(data, target, **options)
    return task, [str(one.message) for one in caught]


def frame(name, n=120):
    random = np.random.default_rng(0)
    made = pd.DataFrame({"x": random.normal(size=n).round(3), name: random.integers(0, 9, n), "y": random.choice(["p", "q"], n)})
    made["id"] = [sha256(bytes([k])).hexdigest() for k in range(n)]
    return made


@pytest.mark.slow
@given(st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1).map(str.strip).filter(bool), min_size=1))
def test_names_are_read_as_they_are_written(names):
    assert read_names(names_text(names)) == names
    assert read_names(names[0], names) == names[:1]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_column_is_dropped_kept_and_predicted_by_its_own_name_as_text_and_in_a_list(tmp_path, name):
    frame(name).to_csv(tmp_path / "t.csv", index=False)
    for drop in (name, [name], names_text(["id", name])):
        assert name.strip() not in {column["name"] for column in said_of(tmp_path / "t.csv", drop=drop)[0].preprocessing["columns"]}
    task, _ = said_of(tmp_path / "t.csv", name, kind="regression", drop="y")
    assert task.preprocessing["target"] == name.strip()
    task, _ = said_of(tmp_path / "t.csv", missing=names_text([f"{name.strip()}=3"]))
    column = next(one for one in task.preprocessing["columns"] if one["name"] == name.strip())
    assert column["missing"] is True


@pytest.mark.slow
@pytest.mark.parametrize("name", ["height, cm", 'say "hi"', "it's", "a=b", '"quoted"', "--drop"])
def test_a_remedy_can_be_pasted(tmp_path, name, capsys):
    """Of a column that tells the target, one that names the rows, and a marker of missing values."""
    rows = frame(name).drop(columns="id")
    rows[name] = (rows["y"] == "p").astype(int)
    rows[f"id, {name}"] = [sha256(bytes([k])).hexdigest() for k in range(len(rows))]
    rows[f"{name}, age"] = np.where(rows.index % 11 == 0, 999, 30 + rows.index % 30)
    rows.to_csv(tmp_path / "t.csv", index=False)
    said = " ".join(said_of(tmp_path / "t.csv")[1])
    typed = [re.search(rf"{option} ('(?:[^']|'\"'\"')*'|\S+)", said)[0] for option in ("--drop", "--keep", "--missing")]
    assert not main(["inspect", str(tmp_path / "t.csv"), "--target", "y", *shlex.split(" ".join(typed))])
    after = capsys.readouterr().out
    assert "tells the target" not in after
    assert "names the rows" not in after
    assert "far from its other values" not in after
    assert "(asked for)" in after


@pytest.mark.slow
def test_what_tells_the_target_is_said_for_few_rows_with_gaps_and_slips():
    random = np.random.default_rng(0)
    x = random.normal(size=100)
    plain = pd.DataFrame({"x": random.normal(size=100), "k": ["a", "b"] * 50, "y": np.where(x > 0, "p", "q")})
    amounts = plain.assign(y=(x * 30).round(2))
    again = {
        "gaps": plain.assign(z=np.where(np.arange(100) % 9 == 0, "", plain["y"])),
        "slips": plain.assign(z=np.where(np.arange(100) % 40 == 0, "other", plain["y"])),
        "numbers": plain.assign(z=(x > 0).astype(int) + 3),
        "amounts with gaps": amounts.assign(z=amounts["y"].where(np.arange(100) % 9 > 0)),
        "another unit": amounts.assign(z=(amounts["y"] * 1.8 + 32).round(2)),
        "logarithm": amounts.assign(z=np.log(amounts["y"] + 200)),
    }
    for name, rows in again.items():
        assert any("column 'z' tells the target" in one for one in said_of(rows)[1]), name
    for rows in (plain, amounts):
        assert not any("tells the target" in one for one in said_of(rows)[1])


def test_a_column_without_a_name_is_found_wherever_it_stands_and_never_taken_for_another(tmp_path):
    rows = frame("").drop(columns="id")
    task, _ = said_of(rows)
    assert "Unnamed: 1" in task.preprocessing["features"]
    wanted = prepare(task.preprocessing, rows)
    rows.to_csv(tmp_path / "t.csv", index=False)
    np.testing.assert_array_equal(prepare(task.preprocessing, tmp_path / "t.csv"), wanted)
    rows[["", "y", "x"]].to_csv(tmp_path / "other.csv", index=False, sep="\t")
    np.testing.assert_array_equal(prepare(task.preprocessing, tmp_path / "other.csv"), wanted)
    rows.to_csv(tmp_path / "index.csv", index=True)
    with pytest.raises(ValueError, match=r"'Unnamed: 1' must be told from others: training had 1 columns without a name, the table has 2"):
        prepare(task.preprocessing, tmp_path / "index.csv")


def test_every_line_of_a_column_alone_is_a_row(tmp_path):
    rows = frame("k").drop(columns=["id", "k"])
    task, _ = said_of(rows)
    wanted = prepare(task.preprocessing, pd.DataFrame({"x": [1.0, None, 3.0]}))
    for text in ("x\n1\n\n3\n", "x\r\n1\r\n\r\n3\r\n\r\n", 'x\n1\n""\n3'):
        (tmp_path / "new.csv").write_bytes(text.encode())
        np.testing.assert_array_equal(prepare(task.preprocessing, tmp_path / "new.csv"), wanted)
    (tmp_path / "last.csv").write_text('x\n1\n""\n')
    assert len(prepare(task.preprocessing, tmp_path / "last.csv")) == 2


@pytest.mark.parametrize(
    "values",
    [
        pd.Series(["u", "v", "w"] * 40, dtype="category"),
        pd.Series(["u", "v", "w"] * 40, dtype=pd.ArrowDtype(pa.dictionary(pa.int32(), pa.string()))),
        pd.Series([time(8, 30), time(9, 0), time(23, 5)] * 40, dtype=pd.ArrowDtype(pa.time32("s"))),
        pd.Series([[1, 2], [3], []] * 40, dtype=pd.ArrowDtype(pa.list_(pa.int64()))),
        pd.Series([{"u": 1}, {"u": 2}, {"u": 3}] * 40, dtype=pd.ArrowDtype(pa.struct([("u", pa.int64())]))),
        pd.Series(pd.cut([1, 2, 3] * 40, 3)),
    ],
    ids=["category", "dictionary", "time", "list", "struct", "interval"],
)
def test_columns_of_every_type_are_levels_where_they_are_no_numbers(values):
    made = pd.DataFrame({"x": np.random.default_rng(0).normal(size=120), "k": values, "y": ["p", "q", "q"] * 40})
    task, _ = said_of(made)
    (column,) = (one for one in task.preprocessing["columns"] if one["name"] == "k")
    assert (column["type"], len(column["levels"])) == ("categorical", 3)
    served = prepare(task.preprocessing, made)[task.train.raw.rows]
    assert np.allclose(served, next(task.train.batches(200))[0].numpy(), atol=1e-6)


@pytest.mark.slow
def test_numbers_that_are_codes_or_times_are_said_with_what_to_do():
    n = 60
    epoch = 1_700_000_000 + 86_400 * np.arange(n)
    made = pd.DataFrame({"x": np.random.default_rng(0).normal(size=n), "y": ["p", "q", "q"] * (n // 3), "uptime": np.arange(n) % 7})
    made = made.assign(PLZ=np.resize([80331, 10115, 20095], n), created_at=epoch, timestamp=epoch * 1000)
    made["date"] = 45_000 + np.arange(n) % 50
    made["month"] = np.resize([202301, 202311, 202402], n)
    _, said = said_of(made)
    told = " ".join(said)
    for name, what in (
        ("created_at", "seconds since"),
        ("timestamp", "milliseconds"),
        ("date", "days of Excel"),
        ("month", "year and month"),
    ):
        assert f"{name!r} looks like {what}" in told
    assert "'PLZ' is named like codes" in told
    assert "--categorical PLZ" in told
    assert "uptime" not in told
    task, said = said_of(made, categorical="PLZ")
    assert "named like codes" not in " ".join(said)
    assert next(one for one in task.preprocessing["columns"] if one["name"] == "PLZ")["levels"] == ["10115", "20095", "80331"]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (
            ["rare" if k % 40 == 5 else "usual" for k in range(120)],
            "97.5% of the examples are 'usual', so that guessing has an accuracy",
        ),
        ([k * 1.5 if k % 40 == 5 else 0.5 for k in range(120)], "the target is one value in 97.5% of the rows"),
    ],
)
def test_a_target_that_is_nearly_constant_gets_a_word(values, words):
    with pytest.warns(UserWarning, match=words):
        table(pd.DataFrame({"a": np.arange(120) % 11 + 0.5, "y": values}), "y")


def test_infinite_values_are_missing_with_a_word_of_ours(tmp_path):
    frame = pd.DataFrame({name: np.random.default_rng(k).normal(size=400) for k, name in enumerate("abcy")})
    frame.loc[::50, "a"], frame.loc[3::50, "b"] = np.inf, -np.inf
    frame.to_parquet(tmp_path / "t.parquet")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        task = table(tmp_path / "t.parquet", "y")
    assert {str(one.message).partition(": ")[2] for one in caught} == {
        f"8 values of {name!r} are infinite, and count as missing" for name in "ab"
    }
    assert task.preprocessing["features"] == ["a", "a?", "b", "b?", "c"]


def test_numbers_beyond_all_measure_are_counted_and_bring_no_warning_of_numpy(tmp_path):
    frame = pd.DataFrame({name: np.random.default_rng(k).normal(size=400) for k, name in enumerate("abc")})
    frame = frame.assign(y=np.where(frame["c"] > 0, "p", "q"), b=frame["b"].astype("float16"))
    frame.loc[[3, 9], "a"], frame.loc[20, "a"], frame.loc[5, "b"] = 1e308, -1.7e308, np.nan
    frame.to_parquet(tmp_path / "t.parquet")
    for options in ({"target": "y"}, {"target": "b", "drop": "y"}):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            table(tmp_path / "t.parquet", **options)
        assert "3 values of 'a' are beyond 1e+100, and count as missing" in {str(one.message).partition(": ")[2] for one in caught}
        assert {one.category for one in caught} == {UserWarning}


def test_inputs_that_are_constant_in_training_tell_no_scale() -> None:
    drawn = np.random.default_rng(0)
    words = np.where(np.arange(40) % 8 == 0, drawn.normal(size=(600, 40)), 0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_scales("words", {"train": words[:400], "validation": words[400:]})
        warn_of_scales("empty", {"train": np.zeros((400, 3)), "validation": np.ones((200, 3))})
    with pytest.warns(UserWarning, match="inputs of validation have 255 times the deviation"):
        warn_of_scales("words", {"train": words[:400], "validation": 255 * words[:400]})
