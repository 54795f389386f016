"""Codes mean in new rows what they meant in training, however a reader has spelt them: in training's features and in the exported graph."""

import json
import warnings
from types import SimpleNamespace

import numpy as np
import onnx
import pandas as pd
import pytest

from joulefront.search.export import predict
from joulefront.search.export.raw_graph import front_of, preparation
from joulefront.search.training.columns import infer, parse
from joulefront.search.training.table import prepare, table
from joulefront.search.training.table_surprises import rows_as_learnt

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def prepared_by_graph(task, folder, rows):
    """The features of rows as the graph beside an exported model makes them."""
    trained = SimpleNamespace(task=task, is_torch=False, input_shape=task.input_shape)
    facts = {"kind": task.kind, "takes": "table", "classes": "[]", "target_scale": "null", "output": "answers"}
    facts["preprocessing"] = json.dumps(task.preprocessing)
    onnx.save(preparation(trained, front_of(task.preprocessing, task.input_shape), facts), folder / "prepare.onnx")
    model = predict.Model(folder / "prepare.onnx")
    return model.answers(model.columns(rows) if isinstance(rows, pd.DataFrame) else model.read(rows))


def codes(folder, kinds, *, padded, n=900):
    random = np.random.default_rng(0)
    drawn = random.integers(1, kinds, n)
    rows = pd.DataFrame({"code": [f"{k:02}" if padded else str(k) for k in drawn], "x": random.normal(size=n).round(3)})
    rows["y"] = np.where((drawn % 7 < 3) ^ (random.random(n) < 0.2), "p", "q")
    rows.to_csv(folder / "t.csv", index=False)
    return folder / "t.csv"


@pytest.mark.slow
@pytest.mark.parametrize("kinds", [9, 90])
@pytest.mark.parametrize("padded", [True, False])
def test_a_code_is_the_same_as_text_and_as_what_readers_make_of_it(tmp_path, kinds, padded):
    """90 codes have mean targets, 9 are levels alone; both had another value for 1 than for 01."""
    task = table(codes(tmp_path, kinds, padded=padded), "y", categorical="" if padded else "code")
    column = task.preprocessing["columns"][0]
    assert ("target" in column) == (kinds == 90)
    (tmp_path / "new.csv").write_text("code,x\n01,0\n1,0\n1.0,0\n" + "07,0\n", encoding="utf-8")
    spelt = [["01", "1", "1.0", "7"], [1, 1, 1, 7], [1.0, 1.0, 1.0, 7.0], ["1", 1, "01 ", 7.0]]
    new = [tmp_path / "new.csv", *(pd.DataFrame({"code": one, "x": 0.0}) for one in spelt)]
    wanted = prepare(task.preprocessing, pd.DataFrame({"code": ["01", "07"] if padded else ["1", "7"], "x": 0.0}))
    for rows in new:
        for made in (prepare(task.preprocessing, rows), prepared_by_graph(task, tmp_path, rows)):
            np.testing.assert_allclose(made, wanted[[0, 0, 0, 1]], atol=1e-6)


def test_codes_that_differ_in_zeros_only_stay_apart(tmp_path):
    drawn = np.random.default_rng(0).choice(["1", "01", "2", "02", "3"], 300)
    rows = pd.DataFrame({"code": drawn, "x": np.arange(300.0) % 7, "y": np.where(np.char.str_len(drawn) > 1, "p", "q")})
    rows.to_csv(tmp_path / "t.csv", index=False)
    task = table(tmp_path / "t.csv", "y")
    made = prepare(task.preprocessing, pd.DataFrame({"code": ["01", "1", "03", "3"], "x": 0.0}))[:, :5]
    assert made.tolist() == [[1, 0, 0, 0, 0], [0, 0, 1, 0, 0], [0, 0, 0, 0, 0], [0, 0, 0, 0, 1]]


@pytest.mark.parametrize(
    ("texts", "kind", "how"),
    [
        (["+491701234567", "+49 170 1234567", "+1 (555) 123-4567"], "text", ".,"),
        (["+5", "+12345.25", "-7"], "number", ".,"),
        (["1\u2009234", "12\u2009345\u2009678"], "number", ".,"),
        (["3:1", "0:0", "2:2"], "text", ".,"),
        (["3:10", "0:00"], "date", "%H:%M"),
        (["03/2023", "12/2024"], "date", "%m/%Y"),
        (["Jan-23", "Dec-24"], "date", "%b-%y"),
        (["Thu Jan 05 00:00:00 2023", "Sun Dec 31 23:59:59 2023"], "date", "%b %d %H:%M:%S %Y"),
        (["Thu Jan 05 00:00:00 +0000 2023", "Sun Dec 31 23:59:59 +0000 2023"], "date", "%b %d %H:%M:%S %z %Y"),
        (["2023-01-05 10:00:00 UTC", "2023-12-31 23:59:59.5 UTC"], "date", "ISO8601"),
        (["2023-01-05 10:00:00,123", "2023-12-31 23:59:59,456"], "date", "ISO8601"),
    ],
)
def test_telephone_numbers_scores_and_dates_of_logs_are_read_as_what_they_are(texts, kind, how):
    reading = infer(np.array(texts, dtype=object))
    assert (reading.kind, reading.how) == (kind, how)
    assert kind == "text" or np.isfinite(parse(np.array(texts, dtype=object), reading)).all()


def test_a_target_beyond_all_measure_is_left_out_and_classes_that_differ_in_a_point_are_said():
    x = np.arange(40.0)
    with pytest.warns(UserWarning, match=r"left out 1 of 40 rows without y \(1e\+300\)"):
        task = table(pd.DataFrame({"x": x, "y": [1e300, *(x[1:] / 7)]}), "y")
    assert task.kind == "regression"
    assert np.isfinite(next(task.train.batches(40))[1].numpy()).all()
    with pytest.warns(UserWarning, match=r"'<=50K' and '<=50K.' in y differ"):
        table(pd.DataFrame({"x": x, "y": ["<=50K", ">50K", "<=50K.", ">50K."] * 10}), "y")


def test_the_header_again_is_no_row_also_behind_a_byte_order_mark(tmp_path):
    part = "x,y\n" + "".join(f"{k},{'pq'[k % 2]}\n" for k in range(20))
    (tmp_path / "d.csv").write_text(part + "\ufeff" + part, encoding="utf-8")
    with pytest.warns(UserWarning, match="the header again"):
        assert table(tmp_path / "d.csv", "y").classes == ("p", "q")


def test_a_named_index_of_parquet_is_a_column_in_training_and_prediction(tmp_path):
    rows = pd.DataFrame({"city": ["K\u00f6ln", "Rom"] * 50, "x": np.arange(100) % 7, "y": ["p", "q"] * 50})
    rows.set_index("city").to_parquet(tmp_path / "t.parquet")
    task = table(tmp_path / "t.parquet", "y")
    assert [column["name"] for column in task.preprocessing["columns"]] == ["city", "x"]
    made = prepare(task.preprocessing, tmp_path / "t.parquet")
    np.testing.assert_array_equal(made, prepare(task.preprocessing, rows))
    accents = rows.assign(city=rows["city"].str.replace("\u00f6", "o\u0308"))
    np.testing.assert_array_equal(made, prepare(task.preprocessing, accents))
    with pytest.raises(ValueError, match="must have the column 'x' once, got it twice"):
        prepare(task.preprocessing, pd.concat([rows, rows[["x"]]], axis=1))


def test_names_that_differ_in_capitals_blanks_and_accents_are_those_of_training():
    def asked(*names):
        return rows_as_learnt(
            {"columns": [{"name": name, "type": "numeric"} for name in names]}, pd.DataFrame({"age": [1], "BODY  Mass": [2]})
        )

    with pytest.warns(UserWarning, match="took the column 'age' for 'Age', 'BODY  Mass' for 'Body mass' of training"):
        assert asked("Age", "Body mass")[["Age", "Body mass"]].to_numpy().tolist() == [[1, 2]]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert asked("age")["age"].tolist() == [1]
    for names in (("AGE", "Age"), ("Age", "age")):  # one column is not two
        with pytest.raises(ValueError, match=r"must have the column 'A"):
            asked(*names)
