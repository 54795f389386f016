"""Tables in JSON and ARFF, and what is said of files that hold none."""

import json
import re
import sys

import numpy as np
import pytest
from helpers.table_files import PLAIN, ROWS, label, of, parts_of, read, write

from joulefront.search.training.table import prepare, table

OBJECTS = [{"a": k % 7 + 0.5, "c": ("red", "blue")[k % 2], "y": label(k)} for k in range(ROWS)]
JSON = {
    "rows below their names": [["a", "c", "y"], *(list(row.values()) for row in OBJECTS)],
    "by id": {f"id{k}": row for k, row in enumerate(OBJECTS)},
    "by column and row": {name: {str(k): row[name] for k, row in enumerate(OBJECTS)} for name in OBJECTS[0]},
    "deep": {"response": {"count": ROWS, "data": OBJECTS}},
    "beside a schema": {"schema": {"fields": [{"name": "a"}]}, "data": OBJECTS},
    "GeoJSON": {
        "type": "FeatureCollection",
        "features": [
            {
                "type": "Feature",
                "geometry": {"type": "Point", "coordinates": [row["a"], 2]},
                "properties": {"c": row["c"], "a": row["a"], "y": row["y"]},
            }
            for row in OBJECTS
        ],
    },
    "vectors": [{"c": row["c"], "": [row["a"], k % 5], "y": row["y"]} for k, row in enumerate(OBJECTS)],
}


@pytest.mark.parametrize("made", JSON.values(), ids=JSON)
def test_objects_of_json_are_rows_however_they_lie(tmp_path, made):
    (tmp_path / "t.json").write_text(json.dumps(made))
    task, _ = read(tmp_path / "t.json")
    assert sum(map(len, parts_of(task))) == ROWS
    assert {"c=blue", "c=red", "a" if "a" in task.preprocessing["features"] else ".0"} <= {*task.preprocessing["features"]}
    np.testing.assert_array_equal(np.unique(prepare(task.preprocessing, tmp_path / "t.json")[:, :1]).size > 1, True)


def test_objects_behind_each_other_are_rows_and_several_tables_are_named(tmp_path):
    (tmp_path / "t.json").write_text("\n".join(json.dumps(row, indent=1) for row in OBJECTS))
    assert read(tmp_path / "t.json")[0].preprocessing["features"] == ["a", "c=blue", "c=red"]
    (tmp_path / "two.json").write_text(json.dumps({"train": OBJECTS, "test": OBJECTS}))
    with pytest.raises(ValueError, match="it holds several tables, train, test; save one"):
        table(tmp_path / "two.json", "y")


def test_arff_is_read_with_comments_quotes_and_what_is_left_out(tmp_path):
    head = r"""% where it is from
%

@RELATION t
@Attribute 'the size' numeric
@attribute c {'it\'s', "b, c"}
@attribute d date "yyyy-MM-dd"
@attribute y {no,yes}

@DATA
"""
    kinds = ("'it\\'s'", '"b, c"')
    full = [f"{k % 7}, {kinds[k % 2]}, '2024-01-{1 + k % 28:02}', {label(k)}" for k in range(ROWS)]
    sparse = [
        "{"
        + ", ".join([f"0 {k % 7}"] * (k % 7 > 0) + ['1 "b, c"'] * (k % 2) + [f"2 '2024-01-{1 + k % 28:02}'"] + ["3 yes"] * (k % 3 > 0))
        + "}"
        for k in range(ROWS)
    ]
    (tmp_path / "t.arff").write_text(head + "\n".join(full))
    (tmp_path / "sparse.arff").write_text(head + "\n".join(sparse))
    task, said = read(tmp_path / "t.arff")
    assert (of(task, "c")["levels"], of(task, "d")["reading"], said) == (["b, c", "it's"], "date", "")
    np.testing.assert_array_equal(prepare(task.preprocessing, tmp_path / "sparse.arff"), prepare(task.preprocessing, tmp_path / "t.arff"))


def test_a_file_without_a_header_is_told_so_where_the_target_is_looked_for(tmp_path):
    with pytest.raises(ValueError, match="if the file has no header, write one above its first line"):
        table(write(tmp_path / "t.data", PLAIN[1:], header=PLAIN[0]), "class")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.json", "[]"),
        ("t.json", '[["a", "y"], 0]'),
        ("t.json", '{"type": "FeatureCollection", "features": [null]}'),
        ("t.json", '{"columns": 0, "data": [[1, 2]]}'),
        ("t.arff", "@relation t\n@attribute a\n@data\n1\n"),
        ("t.arff", "@relation t\n@attribute a {x,y}\n@data\nz\n"),
    ],
)
def test_what_is_no_table_in_its_own_form_is_said_in_one_line(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=r"cannot read the table .*: .+"):
        table(tmp_path / name, "y")


def test_arff_says_what_reads_it_where_that_is_not_installed(tmp_path, monkeypatch):
    (tmp_path / "t.arff").write_text("@relation t\n@attribute y numeric\n@data\n1\n")
    monkeypatch.setitem(sys.modules, "sklearn.externals", None)
    with pytest.raises(ValueError, match="ARFF needs scikit-learn; pip install scikit-learn, or save it as CSV"):
        table(tmp_path / "t.arff", "y")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[{"a": 1, "y": "p"},]', 'line 1, near \'[{"a": 1, "y": "p"},]\'; JSON has no comma before ] or }'),
        ("[{'a': 1}]", "no comma before ] or }, comments, None or single quotes"),
        ('[{"a": 1, "a": 2, "y": "p"}]', "an object has 'a' twice, of which one would be lost"),
        ("[]", "it must hold objects, got none"),
        ("", "it must hold objects, got none"),
        ("3", "it must hold objects, got none"),
    ],
)
def test_json_that_is_none_or_would_lose_a_value_says_what_to_do(tmp_path, text, words):
    (tmp_path / "t.json").write_text(text)
    with pytest.raises(ValueError, match=re.escape(words)):
        table(tmp_path / "t.json", "y")


def test_lists_of_objects_and_objects_with_commas_behind_each_other_are_rows(tmp_path):
    for text in (json.dumps(OBJECTS[:50]) + "\n" + json.dumps(OBJECTS[50:]), ",\n".join(map(json.dumps, OBJECTS))):
        (tmp_path / "t.json").write_text(text)
        assert sum(map(len, parts_of(read(tmp_path / "t.json")[0]))) == ROWS


def test_a_name_that_parquet_has_twice_is_refused_as_in_any_other_table(tmp_path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import feather, parquet

    twice = pa.table([range(ROWS), range(ROWS), list(map(label, range(ROWS))), [k % 7 for k in range(ROWS)]], names=["a", "a", "y", "b"])
    parquet.write_table(twice, tmp_path / "t.parquet")
    feather.write_feather(twice, tmp_path / "t.feather")
    for name in ("t.parquet", "t.feather"):
        with pytest.raises(ValueError, match=r"has the column 'a' twice; rename one, or drop both$"):
            table(tmp_path / name, "y")
        assert table(tmp_path / name, "y", drop="a").preprocessing["features"] == ["b"]
