"""Boosted trees leave as ONNX and as the file of their own library."""

import numpy as np
import pandas as pd
import pytest
import torch

from joulefront.search.export import ExportFailed, export
from joulefront.search.training import table
from joulefront.search.training.boosted import LIBRARIES, installed
from joulefront.search.training.splits_data import MemoryData
from joulefront.search.training.task import Task
from joulefront.spaces.boosting import DEFAULTS, Boosting


def a_task(kind: str) -> Task:
    random = np.random.default_rng(0)
    inputs = random.normal(size=(500, 5)).astype(np.float32)
    inputs[:, 3:] = np.round(inputs[:, 3:] * 8) / 8  # many inputs lie exactly on thresholds
    total = inputs[:, 0] + inputs[:, 3] * inputs[:, 4]
    targets = {"regression": total, "two": (total > 0).astype(np.int64), "three": np.digitize(total, [-0.5, 0.5])}[kind]
    classes = {"regression": (), "two": ("no", "yes"), "three": ("a", "b", "c")}[kind]
    parts = [MemoryData(torch.from_numpy(inputs[part]), torch.from_numpy(targets[part])) for part in (slice(0, 350), slice(350, 500))]
    return Task(kind, "regression" if kind == "regression" else "classification", *parts, None, (5,), classes)


def ready(make, library, kind):
    params = {name: value for name, value in DEFAULTS[library].items()} | {"l2": 1.0}
    return make(library, a_task(kind), space=Boosting(library=library), params=params, epochs=2)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["regression", "two", "three"])
@pytest.mark.parametrize("library", [name for name in LIBRARIES if installed(name)])
def test_onnx_and_the_own_file_predict_as_the_model_does(make, tmp_path, library, kind):
    trial = ready(make, library, kind)
    for to in ("onnx", "native"):
        exported = export(**trial.arguments, to=to, out=tmp_path / to)
        assert exported.check.decisions_changed == 0
        assert exported.check.max_abs_difference <= 1e-5
    assert f"import {library}" in (tmp_path / "native" / "README.md").read_text()


@pytest.mark.parametrize("to", ["skops", "pt2", "safetensors"])
def test_other_formats_name_those_that_take_it(make, tmp_path, to):
    with pytest.raises(ExportFailed, match=rf"a model of lightgbm \(.*\), which --to {to} does not write; use --to native or --to onnx"):
        export(**ready(make, "lightgbm", "two").arguments, to=to, out=tmp_path / "model")


@pytest.mark.slow
@pytest.mark.parametrize("library", [name for name in LIBRARIES if installed(name)])
def test_the_cards_code_of_two_classes_runs_on_rows_of_a_table(make, run_card, tmp_path, library):
    generator = np.random.default_rng(1)
    frame = pd.DataFrame({"size": generator.normal(50, 9, 120), "town": generator.choice(["Bern", "Rome"], 120)})
    frame["dear"] = np.where(frame["size"] > 50, "yes", "no")
    frame.to_csv(tmp_path / "flats.csv", index=False)
    trial = make(
        library, table.table(tmp_path / "flats.csv", "dear"), space=Boosting(library=library), params={**DEFAULTS[library], "l2": 1.0}
    )
    export(**trial.arguments, to="native", out=tmp_path / "model")
    frame.drop(columns="dear")[:7].to_csv(tmp_path / "rows.csv", index=False)
    names = run_card(tmp_path / "model", tmp_path / "rows.csv")
    assert names["probabilities"].shape == (7, 2)
    assert set(names["printed"]) & set("yn")
