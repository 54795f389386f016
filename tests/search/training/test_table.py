import json

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from joulefront.search.training.fit import fit
from joulefront.search.training.recipe import Recipe
from joulefront.search.training.summary import open_data
from joulefront.search.training.table import apply, feature_names, learn, prepare, table


@pytest.fixture
def frame():
    random = np.random.default_rng(0)
    count = 300
    made = pd.DataFrame(
        {
            "size": random.normal(50, 10, count),
            "rooms": random.integers(1, 9, count).astype(float),
            "town": random.choice(["Paris", "Taipei", "Ulm"], count, p=[0.6, 0.3, 0.1]),
            "new": random.choice([True, False], count),
            "row": [f"id-{k}" for k in range(count)],
            "always": 1,
        }
    )
    made["label"] = np.where(made["size"] + 8 * (made["town"] == "Paris") > 54, "yes", "no")
    made["price"] = 1000 * made["size"] + 5000 * made["rooms"]
    made.loc[:9, "rooms"] = np.nan
    made.loc[10:14, "town"] = None
    return made


@pytest.fixture(params=["csv", "csv.gz", "semicolon csv", "tsv", "parquet"])
def path(request, tmp_path, frame):
    if request.param == "parquet":
        frame.to_parquet(tmp_path / "t.parquet")
        return tmp_path / "t.parquet"
    suffix = request.param.split()[-1]
    separator = {"tsv": "\t", "semicolon csv": ";"}.get(request.param, ",")
    frame.to_csv(tmp_path / f"t.{suffix}", index=False, sep=separator)
    return tmp_path / f"t.{suffix}"


@pytest.mark.slow
def test_every_format_gives_the_same_task(path, frame):
    task = table(path, "label", drop=["price"])
    assert task.kind == "classification"
    assert task.classes == ("no", "yes")
    names = ["size", "rooms", "rooms?", "town=Paris", "town=Taipei", "town=Ulm", "town?", "new"]
    assert task.preprocessing["features"] == names
    assert task.input_shape == (8,)
    inputs, _ = task.train.arrays()
    assert np.isfinite(inputs).all()
    np.testing.assert_allclose(inputs[:, 0].mean(), 0, atol=1e-5)
    np.testing.assert_allclose(inputs[:, 0].std(), 1, atol=1e-5)
    assert fit(LogisticRegression(), task, Recipe(), epochs=1).quality["accuracy"] > 0.9


@pytest.mark.slow
def test_new_rows_are_prepared_from_json_alone_as_in_training(tmp_path, frame):
    frame.to_csv(tmp_path / "t.csv", index=False)
    task = table(tmp_path / "t.csv", "label")
    rows = pd.read_csv(tmp_path / "t.csv").drop(columns="label")
    prepared = prepare(json.loads(json.dumps(task.preprocessing)), rows[rows.columns[::-1]])
    known = np.concatenate([part.arrays()[0] for part in (task.train, task.validation, task.test)])
    np.testing.assert_array_equal(np.sort(prepared, axis=0), np.sort(known, axis=0))
    with pytest.raises(ValueError, match=r"must have the column 'town'.*got"):
        prepare(task.preprocessing, rows.drop(columns="town"))


@pytest.mark.slow
def test_nothing_is_learnt_from_validation_or_test_rows(tmp_path, frame):
    frame.to_csv(tmp_path / "t.csv", index=False)
    task = table(tmp_path / "t.csv", "price", drop=["label"], test_share=0)
    size = next(column for column in task.preprocessing["columns"] if column["name"] == "size")
    trained = task.train.arrays()[0][:, 0] * size["std"] + size["mean"]
    assert size["mean"] == pytest.approx(trained.mean(), rel=1e-5)
    assert size["mean"] != pytest.approx(frame["size"].mean(), rel=1e-9)


@pytest.mark.slow
def test_a_regression_is_inferred_and_can_be_overruled(tmp_path, frame):
    frame.to_csv(tmp_path / "t.csv", index=False)
    task = table(tmp_path / "t.csv", "price")
    assert task.kind == "regression"
    assert task.train.targets.dtype == torch.float32
    assert float(task.train.targets.mean()) == pytest.approx(0, abs=1e-5)
    assert task.target_scale[0] == pytest.approx(frame["price"].mean(), rel=0.05)
    with pytest.raises(ValueError, match="column 'always' must have at least two values, got only 1; predict what varies"):
        table(tmp_path / "t.csv", "always", kind="regression")
    frame["rooms"] = frame["rooms"].fillna(3)
    frame.to_csv(tmp_path / "t.csv", index=False)
    assert table(tmp_path / "t.csv", "rooms").classes == tuple("12345678")
    assert table(tmp_path / "t.csv", "rooms", kind="regression").kind == "regression"


@pytest.mark.slow
def test_rows_without_a_target_are_left_out_and_counted(tmp_path, frame):
    frame.loc[5:11, "label"] = None
    frame.to_csv(tmp_path / "t.csv", index=False)
    with pytest.warns(UserWarning, match="left out 7 of 300 rows without label"):
        task = table(tmp_path / "t.csv", "label")
    assert sum(len(part) for part in (task.train, task.validation, task.test)) == 293
    assert task.classes == ("no", "yes")


@pytest.mark.slow
def test_several_targets_make_a_multilabel_task(tmp_path, frame):
    frame["big"] = (frame["size"] > 50).astype(int)
    frame["many"] = (frame["rooms"] > 4).astype(int)
    frame.to_csv(tmp_path / "t.csv", index=False)
    task = table(tmp_path / "t.csv", ["big", "many"])
    assert (task.kind, task.classes, task.outputs) == ("multilabel", ("big", "many"), 2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "target", "error", "words"),
    [
        (None, "y", FileNotFoundError, "no table at"),
        ("", "y", ValueError, "cannot read the table"),
        ("a,b\n1,2\n", "y", ValueError, "no column 'y'; it has: a, b"),
        ("price,b\n1,2\n", "prise", ValueError, "did you mean 'price'"),
        ("a,y\n1,x\n2,x\n3,x\n4,x\n", "y", ValueError, "at least two classes, got only 'x'"),
        ("a,y\n1,x\n2,z\n", "y", ValueError, "2 rows with a target"),
        ("a,y\n" + "1,x\n2,\n" * 2, "y", ValueError, "2 rows with a target"),
        ("a,y\n" + "1,x\n1,z\n" * 4, "y", ValueError, r"no column to predict 'y' from: a \(constant\)"),
        ("y\n" + "x\nz\n" * 4, "y", ValueError, "no column to predict"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*left out")
def test_a_table_that_is_not_as_it_should_be_gets_one_clear_line(tmp_path, text, target, error, words):
    if text is not None:
        (tmp_path / "t.csv").write_text(text)
    with pytest.raises(error, match=words) as caught:
        table(tmp_path / "t.csv", target)
    assert "\n" not in str(caught.value)


def test_a_file_of_another_kind_is_refused(tmp_path):
    (tmp_path / "t.odt").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"must end in .*\.csv.*, got \.odt; save it as CSV"):
        table(tmp_path / "t.odt", "y")
    (tmp_path / "t.parquet").write_bytes(b"x")
    with pytest.raises(ValueError, match="cannot read the table"):
        table(tmp_path / "t.parquet", "y")


def test_rare_values_share_a_feature_and_new_ones_join_them():
    columns = learn(pd.DataFrame({"c": ["a"] * 5 + ["b"] * 4 + ["c"] * 3 + ["d"]}), max_levels=2)
    assert feature_names(columns) == ["c=a", "c=b", "c=*"]
    made = apply(columns, pd.DataFrame({"c": ["a", "c", "never seen", None]}))
    assert made.tolist() == [[1, 0, 0], [0, 0, 1], [0, 0, 1], [0, 0, 1]]


def test_missing_and_infinite_numbers_take_the_median_and_are_marked():
    columns = learn(pd.DataFrame({"x": [1.0, 2.0, 9.0, np.nan, np.inf]}))
    made = apply(columns, pd.DataFrame({"x": [2.0, None, -np.inf]}))
    assert made[:, 1].tolist() == [0, 1, 1]
    assert made[0, 0] == made[1, 0] == made[2, 0]


@pytest.mark.parametrize("marker", [1e200, -1.7976931348623157e308, 1e101])
def test_a_marker_beyond_all_values_is_missing_and_leaves_its_column_alone(marker):
    columns = learn(pd.DataFrame({"x": [1.0, 2.0, 9.0, marker]}))
    assert columns == learn(pd.DataFrame({"x": [1.0, 2.0, 9.0, np.nan]}))
    assert np.array_equal(apply(columns, pd.DataFrame({"x": [2.0, marker]})), apply(columns, pd.DataFrame({"x": [2.0, np.nan]})))


@pytest.mark.parametrize("words", [("True", "False"), ("TRUE", "FALSE"), ("true", "FALSE")])
def test_a_target_of_truth_values_is_read_in_any_case(words):
    frame = pd.DataFrame({"x": np.arange(60.0) % 7, "y": [words[k % 2] for k in range(60)]})
    task = table(frame, "y", seed=0)
    assert task.classes == ("False", "True")
    assert 20 <= sum(int(split.arrays()[1].sum()) for split in (task.train, task.validation)) <= 30


def test_numbers_that_are_codes_and_times():
    codes = pd.DataFrame({"zip": [1.0, 1.0, 2.0, 2.0, np.nan], "when": pd.to_datetime(["2020-01-01", "2020-01-02"] * 2 + [None])})
    columns = learn(codes, categorical=["zip"])
    assert feature_names(columns) == ["zip=1", "zip=2", "zip?", "when", "when?"]
    later = pd.DataFrame({"zip": [2, 1], "when": pd.to_datetime(["2020-01-02", "2020-01-03"])})
    made = apply(columns, later)
    assert made[:, :3].tolist() == [[0, 1, 0], [1, 0, 0]]
    assert made[1, 3] > made[0, 3]


def test_text_where_numbers_were_learnt_is_refused():
    columns = learn(pd.DataFrame({"x": [1.0, 2.0]}))
    with pytest.raises(ValueError, match="'x' must hold numbers"):
        apply(columns, pd.DataFrame({"x": ["one", "two"]}))


def test_constant_columns_of_large_numbers_are_dropped():
    columns = learn(pd.DataFrame({"x": [1e9 + 0.1] * 7, "empty": [np.nan] * 7, "ids": list("abcdefg"), "none": [None] * 7}))
    assert [column["reason"] for column in columns] == ["constant", "empty", "never repeats", "empty"]


def recordings(folder, count=4, rows=10):
    """Write recordings as SKAB has them, one more without the target, and what lies beside such files."""
    for k in range(count):
        (folder / f"valve{k % 2}").mkdir(exist_ok=True)
        lines = [f"2020-03-09 1{k}:14:{i:02d};{10 * k + i / 7:.3f};{i % 2}.0" for i in range(rows)]
        (folder / f"valve{k % 2}" / f"{k}.csv").write_text("\n".join(["datetime;Volume Flow RateRMS;anomaly", *lines]) + "\n")
    (folder / "free.csv").write_text("datetime;Volume Flow RateRMS\n2020-03-09 10:14:33;1.5\n2020-03-09 10:14:34;1.6\n")
    (folder / "README.txt").write_text("Recordings, see\na, b; c\n")


def test_a_folder_of_recordings_is_one_table_that_is_divided_by_file(tmp_path):
    recordings(tmp_path)
    task = open_data(tmp_path, "anomaly", drop="datetime")
    assert task.preprocessing["features"] == ["Volume Flow RateRMS"]
    assert task.folds == 0
    assert (len(task.train), len(task.validation), len(task.test)) == (20, 10, 10)
    column = next(one for one in task.preprocessing["columns"] if one["type"] != "dropped")
    values = [data.arrays()[0] * column["std"] + column["mean"] for data in (task.train, task.validation, task.test)]
    found = [{*np.round(value.ravel()) // 10} for value in values]
    assert [len(one) for one in found] == [2, 1, 1]
    assert set.union(*found) == {0, 1, 2, 3}
    assert task.seen["split"] == "group:file"
    assert "file" in task.seen["left_out"]
    assert any("left out free.csv: no column anomaly" in said for said in task.seen["warnings"])
    with pytest.warns(UserWarning, match=r"free\.csv"):
        later = table(tmp_path, "anomaly", split="time:datetime")
    assert "file" not in later.preprocessing["features"]
    assert later.seen["split"] == "time:datetime"
    with pytest.raises(ValueError, match="give the column to predict, --target NAME; its columns are datetime"):
        open_data(tmp_path / "valve0")


def test_a_folder_whose_tables_are_of_several_kinds_is_refused(tmp_path):
    recordings(tmp_path)
    other = tmp_path / "valve0" / "other.csv"
    other.write_text("speed;anomaly\n1;0\n")
    with pytest.raises(
        ValueError, match=r"the same columns, got 'Volume Flow RateRMS' in one of valve0/0\.csv and valve0/other\.csv; move"
    ):
        table(tmp_path, "anomaly")
    with pytest.raises(FileNotFoundError, match="no table with absent in the folder"):
        table(tmp_path, "absent")
    other.unlink()
    for one in tmp_path.rglob("*.csv"):
        one.write_text(one.read_text().replace("datetime", "file"))
    with pytest.raises(ValueError, match="the same columns, got 'file' in one of"):
        table(tmp_path, "anomaly")
