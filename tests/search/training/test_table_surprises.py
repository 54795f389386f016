"""Codes mean in new rows what they meant in training, however a reader has spelt them: in training's features and in the exported graph."""

import json
from types import SimpleNamespace

import numpy as np
import onnx
import pandas as pd
import pytest

from joulefront.search.export import predict
from joulefront.search.export.raw_graph import front_of, preparation
from joulefront.search.training.table import prepare, table

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
