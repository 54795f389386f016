"""Files that strangers have: empty dates, no rows, numbers far off, files of another kind, folders of another format."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pandas as pd
import pytest

from joulefront.search.export import export, predict
from joulefront.search.export.model import rebuild
from joulefront.search.training.arrays import arrays
from joulefront.search.training.table import prepare, table
from joulefront.search.training.table_surprises import surprises

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
EMPTY = "when,town,size\n2024-03-01,Rome,1\n,Rome,1\n2024-05-09,,\nnever,Paris,1\n2051-01-01,Rome,1\n"
EMPTY += "2024-05-09,Rome,1e200\n2024-05-09,Rome,-inf\n"


def rows(share_of_empty_dates: float) -> pd.DataFrame:
    random = np.random.default_rng(0)
    days = pd.Series(pd.date_range("2023-01-05", periods=160, freq="4D").strftime("%Y-%m-%d"))
    days[random.random(160) < share_of_empty_dates] = ""
    size = random.normal(size=160)
    towns = random.choice(["Rome", "Oslo", ""], 160)
    return pd.DataFrame({"when": days, "town": towns, "size": size.round(3).astype(str), "y": 3 * size + random.normal(size=160)})


@pytest.fixture(scope="module")
def exported(make: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Callable[[float], tuple[Any, Path]]:
    done: dict[float, tuple[Any, Path]] = {}

    def exported(share: float) -> tuple[Any, Path]:
        if share not in done:
            ready = make("regressor", table(rows(share), "y"), width=4)
            done[share] = ready, export(**ready.arguments, to="onnx", out=tmp_path_factory.mktemp("table") / "model").path
        return done[share]

    return exported


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.0, 0.2])
def test_rows_without_a_date_are_predicted_as_the_model_does_and_so_are_the_others(exported, share, tmp_path):
    ready, folder = exported(share)
    column = ready.task.preprocessing["columns"][0]
    assert column["calendar"]
    assert column["missing"] == (share > 0)
    file = tmp_path / "new.csv"
    file.write_text(EMPTY, encoding="utf-8")
    found = list(predict.Model(folder).predict([file]))
    outputs = rebuild(**ready.arguments).predictor()(prepare(ready.task.preprocessing, file))
    mean, deviation = ready.task.target_scale or (0.0, 1.0)
    np.testing.assert_allclose([one.value for one in found], np.reshape(outputs, -1) * deviation + mean, rtol=1e-5)


def test_a_file_of_one_row_without_a_date_is_predicted(exported, tmp_path):
    (tmp_path / "one.csv").write_text("when,town,size\n,Rome,1\n", encoding="utf-8")
    (one,) = predict.Model(exported(0.0)[1]).predict([tmp_path / "one.csv"])
    assert np.isfinite(one.value)


def test_a_table_without_rows_is_said_and_no_error(exported, tmp_path, capfd):
    (tmp_path / "head.csv").write_text("when,town,size\n", encoding="utf-8")
    assert predict.run(predict.Model(exported(0.2)[1]), [str(tmp_path / "head.csv")]) == 0
    said = capfd.readouterr()
    assert said.out == ""
    assert said.err == f"warning: {tmp_path / 'head.csv'} has 0 rows; nothing was predicted of it\n"


def test_a_folder_is_all_the_files_below_it_and_what_is_hidden_is_none_of_them(exported, tmp_path, capfd):
    photos = tmp_path / "new"
    for name in ("b/two.csv", "a/one.csv", "three.csv", ".hidden.csv", ".cache/four.csv", "b/notes.xyz"):
        (photos / name).parent.mkdir(parents=True, exist_ok=True)
        (photos / name).write_text("when,town,size\n2024-01-01,Rome,1\n", encoding="utf-8")
    (photos / "empty").mkdir()
    model = predict.Model(exported(0.2)[1])
    assert predict.run(model, [str(photos), str(photos / "empty"), str(photos / "three.csv")], "json") == 2
    said = capfd.readouterr()
    named = [photos / name for name in ("a/one.csv", "b/two.csv", "three.csv", "three.csv")]
    assert [one["file"] for one in json.loads(said.out)] == list(map(str, named))
    assert f"error: {photos / 'empty'} is a folder without files; give an existing file\n" in said.err
    assert "notes.xyz must be a table" in said.err, "what is no file for this model is said, not left out"


def test_one_value_is_one_and_two_are_two(exported, tmp_path, capfd):
    (tmp_path / "odd.csv").write_text("when,town,size\nnever,Rome,1\n2024-01-01,Rome,a\n,Rome,b\n,Rome,1\n", encoding="utf-8")
    assert predict.run(predict.Model(exported(0.2)[1]), [str(tmp_path / "odd.csv")]) == 0
    said = capfd.readouterr().err
    assert f"warning: {tmp_path / 'odd.csv'}: 1 value of 'when' was not seen" in said
    assert "2 values of 'size' were not seen in training, e.g. 'a': no number, counted as missing" in said


def test_a_column_that_is_refused_is_not_counted_as_missing_before(exported, tmp_path, capfd):
    (tmp_path / "odd.csv").write_text("when,town,size\n3 Nones 2024,Rome,1\n4 Nones 2024,Rome,2\n", encoding="utf-8")
    assert predict.run(predict.Model(exported(0.2)[1]), [str(tmp_path / "odd.csv")]) == 2
    said = capfd.readouterr().err
    assert "the column 'when' must hold dates as in training, got '3 Nones 2024'" in said
    assert "counted as missing" not in said


def test_every_kind_of_value_that_training_had_not_is_counted_by_file_and_column(exported, tmp_path, capfd):
    """Unparsable and infinite numbers, dates, rare and unknown categories, missing values where there were none, and columns."""
    texts = "when,town,size\nnever,Rome,1e200\n2024-13-45,Bonn,inf\n,Ulm,\n"
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text(texts, encoding="utf-8")
    (tmp_path / "c.csv").write_text("town\nRome\n", encoding="utf-8")
    assert predict.run(predict.Model(exported(0.0)[1]), [str(tmp_path / name) for name in ("a.csv", "b.csv", "c.csv")]) == 2
    said = capfd.readouterr().err
    for name in ("a.csv", "b.csv"):
        where = f"warning: {tmp_path / name}: "
        assert f"{where}2 values of 'when' were not seen in training, e.g. 'never': no date, counted as missing" in said
        assert f"{where}1 missing value of 'when', of which training had none: the median of training stands there" in said
        assert f"{where}2 values of 'size' were not seen in training, e.g. '1e200': not finite, counted as missing" in said
        assert f"{where}1 missing value of 'size', of which training had none" in said
        assert f"{where}2 values of 'town' were not seen in training, e.g. 'Bonn': counted as none of those" in said
    assert "must have the column 'when' (2 missing: 'when', 'size'), got town" in said
    levels = {"name": "town", "type": "categorical", "levels": ["Rome"], "other": True, "missing": False}
    rare = surprises(levels, pd.Series(["Rome", "Oslo", None, None]))
    assert rare[0] == "1 value of 'town' was not among the 1 frequent ones of training, e.g. 'Oslo': counted as rare"
    assert rare[1].startswith("2 missing values of 'town', of which training had none")


@pytest.mark.parametrize(
    ("wanted", "given", "taken"),
    [
        ((1, 8, 8), (5, 8, 8), 5),
        ((1, 8, 8), (8, 8), 1),
        ((1, 8, 8), (1, 8, 8), 1),
        ((1, 8, 8), (5, 8, 8, 1), 5),
        ((1, 8, 8), (0, 8, 8), 0),
        ((1, 8, 8), (5, 64), None),
        ((3, 8, 8), (5, 8, 8, 3), None),
        ((3, 8, 8), (5, 8, 8), None),
        ((3, 8, 8), (3, 8, 8), 1),
        ((4,), (4,), 1),
        ((4,), (7, 4), 7),
        ((1,), (7,), 7),
        ((4,), (), None),
    ],
)
def test_an_array_may_leave_out_its_only_channel_and_nothing_else(tmp_path, wanted, given, taken):
    model = predict.Model.__new__(predict.Model)
    model.session = SimpleNamespace(get_inputs=lambda: [SimpleNamespace(shape=["n", *wanted], type="tensor(float)")])
    np.save(tmp_path / "a.npy", np.arange(np.prod(given)).reshape(given).astype("float32"))
    if taken is None:
        with pytest.raises(predict.Unusable, match=r"must be real numbers of shape \(n, "):
            model._array(tmp_path / "a.npy")
    else:
        found = model._array(tmp_path / "a.npy")
        assert found.shape == (taken, *wanted)
        assert found.ravel().tolist() == list(range(found.size))


@pytest.mark.parametrize("values", [np.ones((5, 4), dtype=complex), np.full((5, 4), "1"), np.ones((5, 4), dtype="datetime64[s]")])
def test_an_array_of_other_than_real_numbers_is_refused_and_nothing_of_it_left_out(tmp_path, values):
    model = predict.Model.__new__(predict.Model)
    model.takes, model.inputs = "array", ["raw"]
    model.session = SimpleNamespace(get_inputs=lambda: [SimpleNamespace(shape=["n", 4], type="tensor(float)")])
    np.save(tmp_path / "a.npy", values)
    said = re.escape(f"a.npy: the array must be real numbers of shape (n, 4), got {values.dtype} (5, 4)")
    with pytest.raises(predict.Unusable, match=said):
        model.read(tmp_path / "a.npy")


def test_a_part_of_the_export_that_is_not_there_is_no_package_to_install(exported, tmp_path, monkeypatch):
    (tmp_path / "a.csv").write_text("when,town,size\n,Rome,1\n", encoding="utf-8")
    model = predict.Model(exported(0.0)[1])
    monkeypatch.setattr(predict, "__package__", "")
    monkeypatch.setattr(predict, "__file__", str(tmp_path / "predict.py"))
    monkeypatch.setattr("sys.path", [*sys.path])
    (said,) = model.predict([tmp_path / "a.csv"])
    assert "table_file.py, is not there or of another version; export again" in str(said)
    assert "pip" not in str(said)


def test_a_model_that_fails_is_not_laid_on_the_file_and_nothing_of_onnxruntime_leaks(exported, tmp_path, monkeypatch, capfd):
    """A column of another type makes the session fail, as a fault of the graph would."""
    (tmp_path / "new.csv").write_text(EMPTY, encoding="utf-8")
    model = predict.Model(exported(0.2)[1])
    read = model.read
    monkeypatch.setattr(model, "read", lambda file: {name: values[:1].repeat(2, axis=1) for name, values in read(file).items()})
    assert predict.run(model, [str(tmp_path / "new.csv")]) == 2
    said = capfd.readouterr()
    assert "new.csv was read, but the model failed on it (" in said.err
    assert "must be a table" not in said.err
    assert "\x1b" not in said.out + said.err
    assert all(line.startswith(("warning: ", "error: ")) for line in said.err.splitlines())


def test_an_answer_that_is_no_number_is_an_error_of_its_row(exported, tmp_path, monkeypatch, capfd):
    (tmp_path / "new.csv").write_text(EMPTY, encoding="utf-8")
    model = predict.Model(exported(0.2)[1])
    answers = model.answers
    monkeypatch.setattr(model, "answers", lambda feed: np.concatenate([[np.inf], answers(feed)[1:]]))
    assert predict.run(model, [str(tmp_path / "new.csv")], "json") == 2
    said = capfd.readouterr()
    assert [one["row"] for one in json.loads(said.out)] == [2, 3, 4, 5, 6, 7]
    assert "new.csv, row 1: the model gives no number" in said.err


@pytest.mark.slow
def test_a_file_that_is_no_array_is_told_the_shape_and_nothing_of_pickle(make, tmp_path, capfd):
    random = np.random.default_rng(0)
    values = random.normal(size=(80, 3)).astype("float32")
    ready = make("forest", arrays(values, values[:, 0] > 0, name="own"), width=3)
    folder = export(**ready.arguments, to="onnx", out=tmp_path / "model").path
    text, objects, several = (tmp_path / name for name in ("README.md", "objects.npy", "several.npz"))
    text.write_text("# text\n", encoding="utf-8")
    np.save(objects, np.array([None, 1], dtype=object), allow_pickle=True)
    np.savez(several, a=values)
    model = predict.Model(folder)
    assert model.takes == "array"
    for file in (text, objects, several):
        assert predict.run(model, [str(file)]) == 2
        said = capfd.readouterr().err
        assert f"{file} must be a .npy file of shape (n, 3), got {file.name}; write numbers by numpy.save" in said
        assert "pickle" not in said
    holes = tmp_path / "holes.npy"
    np.save(holes, np.where(values[:4] > 1, np.nan, values[:4]) * [[np.nan, 1, 1]])
    assert predict.run(model, [str(holes)]) == 0  # a forest answers all the same
    assert f"warning: {holes} has missing or infinite values" in capfd.readouterr().err


def test_a_graph_that_answers_fewer_rows_or_has_no_names_of_classes_is_refused(make, tmp_path, monkeypatch):
    folder = export(**make("mlp", "rows").arguments, to="onnx", out=tmp_path / "model").path
    model = predict.Model(folder)
    np.save(tmp_path / "x.npy", np.zeros((3, *model._shape), dtype=np.float32))
    monkeypatch.setattr(model, "session", SimpleNamespace(get_inputs=model.session.get_inputs, run=lambda *given: [np.ones((1, 2))]))
    (said,) = model.predict([tmp_path / "x.npy"])
    assert "must answer each of 3 rows, got 1" in str(said)
    graph = onnx.load(folder / "model.onnx")
    facts = {entry.key: entry for entry in graph.metadata_props}
    for classes in ("[0, 1]", '["a", "a"]', "[null, null]", "7"):
        facts["classes"].value = classes
        onnx.save(graph, folder / "model.onnx")
        with pytest.raises(ValueError, match="must be an ONNX file that joulefront wrote"):
            predict.Model(folder)


def test_a_folder_of_another_format_says_what_predicts_with_it(make, tmp_path):
    folder = export(**make("forest", "rows").arguments, to="skops", out=tmp_path / "model").path
    with pytest.raises(ValueError, match=r"must hold model.onnx, got model.skops, which the code in its README.md predicts with"):
        predict.Model(folder)


def test_a_label_is_told_by_its_own_probability_and_not_by_the_rounded_one():
    model = predict.Model.__new__(predict.Model)
    model.kind, model.classes = "multilabel", ["red", "green"]
    assert model.prediction("a.npy", 1, np.array([0.5000002, 0.5], np.float32)).label == "red"


def test_values_above_a_million_have_all_their_digits_before_the_point():
    rows = [predict.Prediction("flats.csv", k + 1, None, None, value) for k, value in enumerate((1234567.89, 2345678.9))]
    assert [line.split()[-1] for line in predict.show(rows, "table").splitlines()] == ["value", "1234568", "2345679"]
    assert predict.show(rows[:1], "table").split()[-1] == "1234568"


def test_a_label_of_several_lines_is_one_line_of_the_table():
    several = [predict.Prediction("t.csv", 1, "nein\nnie", 0.75, None)]
    assert predict.show(several, "table").splitlines()[1:] == ["t.csv    1  nein nie        0.750"]
    assert '"nein\nnie"' in predict.show(several, "csv")


def test_a_class_of_any_name_moves_no_cursor_and_is_no_formula(capsys):
    class Two:
        def predict(self, files):
            yield predict.Prediction("a.npy", None, "=cmd|' /C calc'!A0\x1b]0;x\x07", 0.75, None, {"\u202egpj": 0.75})
            yield predict.Prediction("b.npy", None, "-1", 0.5, None)

    printed = {}
    for form in ("table", "csv", "json"):
        predict.run(Two(), ["a.npy", "b.npy"], form)
        printed[form] = capsys.readouterr().out
        assert not set("\x1b\x07\u202e") & set(printed[form])
    assert printed["csv"].splitlines() == ["file,label,probability", "a.npy,'=cmd|' /C calc'!A0?]0;x?,0.75", "b.npy,-1,0.5"]
    assert printed["table"].splitlines()[1].split("  ")[1] == "=cmd|' /C calc'!A0?]0;x?"
