"""For generated tables the exported model predicts the training file, as it lies on the disk, as the trained model did."""

from __future__ import annotations

import csv
import warnings
from dataclasses import replace

import numpy as np
import pytest
from helpers.trials import make_trial
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from joulefront.search.export.predict import Model
from joulefront.search.export.write import export
from joulefront.search.space import NearestTrial
from joulefront.search.study import Study
from joulefront.search.training.checkpoint import save_weights
from joulefront.search.training.fit import fit
from joulefront.search.training.table import prepare, table
from joulefront.spaces.classical import Classical

pytestmark = pytest.mark.slow

#: What a column holds -> its k-th cell, from a random number in [0, 1).
COLUMNS = {
    "decimal comma": lambda u, k: f"{u * 2000:.2f}".replace(".", ","),
    "grouped": lambda u, k: f"{u * 90_000 + 1000:,.1f}",
    "date": lambda u, k: f"2023-{int(u * 12) + 1:02}-{k % 28 + 1:02}",
    "German date": lambda u, k: f"{k % 28 + 1:02}.{int(u * 12) + 1:02}.2024",
    "code": lambda u, k: f"0{int(u * 4)}",
    "category": lambda u, k: ("Köln, am Rhein", "x;y", 'a "b"', "None")[int(u * 4)],
    "truth": lambda u, k: ("true", "FALSE")[u > 0.5],
    "money": lambda u, k: f"({u * 9:.2f})" if u < 0.5 else f"$ {u * 9:.2f}",
    "unit": lambda u, k: f"{u * 9:.1f} kg",
    "feet": lambda u, k: f"{4 + int(u * 3)}'{k % 12}\"",
    "thousands": lambda u, k: f"{u * 9:.1f}k" if u > 0.4 else f"{u * 900:.0f}",
    "scale": lambda u, k: f"{u * 9:.1f} kg" if u > 0.4 else f"{u * 900:.0f} g",
    "lap": lambda u, k: f"{int(u * 59)}:{k % 60:02}.{k % 7}",
    "spans": lambda u, k: f"{int(u * 9) + 1} days" if k % 2 else f"{int(u * 5) + 1} weeks",
    "mixed dates": lambda u, k: f"2023-{int(u * 12) + 1:02}-{k % 28 + 1:02}" if k % 2 else f"{k % 28 + 1}.{int(u * 12) + 1}.2023",
    "zones": lambda u, k: f"2023-{int(u * 12) + 1:02}-{k % 28 + 1:02} {k % 24:02}:00:00 {('CET', 'CEST')[k % 2]}",
    "days without separators": lambda u, k: f"2023{int(u * 12) + 1:02}{k % 28 + 1:02}",
    "page": lambda u, k: f"&nbsp;<b>{u * 9:.2f}</b>",
    "names of a page": lambda u, k: ("A&amp;B", "A&B", "<td>C</td>", "D")[int(u * 4)],
    "many codes": lambda u, k: f"P{int(u * 60)}",
}
ABSENT = ("", "NA", "?", "n/a")


@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(st.sampled_from(sorted(COLUMNS)), min_size=4, max_size=9, unique=True),
    st.sampled_from(",;\t"),
    st.booleans(),
    st.integers(0, 99),
)
def test_the_export_predicts_the_training_file_as_the_model_does(tmp_path_factory, names, separator, regression, seed):
    folder, random = tmp_path_factory.mktemp("table"), np.random.default_rng(seed)
    with (folder / "t.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=separator)
        writer.writerow([*names, "size", "y"])
        for k in range(90):
            cells = [COLUMNS[name](float(random.random()), k) for name in names]
            cells = [str(random.choice(ABSENT)) if random.random() < 0.05 else cell for cell in cells]
            size = float(random.normal())
            writer.writerow([*cells, f"{size:.3f}", f"{size * 3 + k % 3:.2f}" if regression else ("low", "high")[size > 0.1]])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        task = table(folder / "t.csv", "y", seed=seed)
        space = Classical(kind=task.kind, estimators="linear")
        draw = NearestTrial({"linear.regularisation": 1.0})
        candidate = space.sample(draw)
        fitted = fit(space.build(candidate, task), task, candidate.recipe, epochs=3, seed=seed)
        sha256 = save_weights(folder / "w", fitted, with_checkpoint=False)
        trial = replace(make_trial(), params=draw.params, quality=fitted.quality, artifact_sha256=sha256)
        study = Study("t", task, space, objectives=(task.metric, "train_energy"), trials=1)
        export(trial, study=study, task=task, weights=folder / "w", to="onnx", out=folder / "model")
        model = Model(folder / "model")
        found = model.answers(model.read(folder / "t.csv"))
        wanted = fitted.model.predict_scores(prepare(task.preprocessing, folder / "t.csv"))
    if task.kind == "regression":
        mean, deviation = task.target_scale or (0.0, 1.0)
        found, wanted = found.reshape(-1), wanted.reshape(-1) * deviation + mean
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)
