"""Data that is not as one expects, through the bundled studies: a clear result or a clear line."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from joulefront.search.cli.study_source import StudyError, find_study
from joulefront.search.space import Candidate, RandomTrial, Space
from joulefront.search.study import Study
from joulefront.search.training.arrays import arrays
from joulefront.search.training.evaluate import predict
from joulefront.search.training.fit import fit
from joulefront.search.training.task import Task
from joulefront.spaces.classical import SUPERVISED, Classical
from joulefront.spaces.convnet import Convnet
from joulefront.spaces.mlp import Mlp
from joulefront.spaces.recipes import FIXED, RecipeRanges, TacticRanges

pytestmark = pytest.mark.slow

RANDOM = np.random.default_rng(0)


def trained(space: Space, candidate: Candidate, task: Task) -> Any:
    """The candidate after one epoch; its quality must be a number."""
    torch.manual_seed(0)
    fitted = fit(space.build(candidate, task), task, candidate.recipe, epochs=1)
    assert all(np.isfinite(value) for value in fitted.quality.values())
    return fitted


def one_of_each_model(study: Study) -> dict[str, Candidate]:
    """One candidate of each network, in small batches, of a study of images, by its name."""
    found: dict[str, Candidate] = {}
    for seed in range(60):
        candidate = study.space.sample(RandomTrial(seed))
        name = candidate.architecture.get("model", candidate.architecture["family"])
        found.setdefault(name, replace(candidate, recipe=replace(candidate.recipe, batch_size=8)))
    return found


def one_of_each_estimator(task: Task) -> list[tuple[Space, Candidate]]:
    """One candidate of each family that can learn a table."""
    spaces: list[Space] = [Mlp(depths=1, widths=8, norms="none", dropouts=0.0, recipe=FIXED)]
    spaces += [Classical(kind=task.kind, estimators=name, depths=4, features=0.1, neighbours=3, full_epochs=1) for name in SUPERVISED]
    return [(space, space.sample(RandomTrial(0))) for space in spaces]


def write_image(path: Path, grey: int, side: int = 1) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((side, side, 3), grey, dtype=np.uint8)).save(path)


def test_an_empty_class_folder_is_named(tmp_path: Path) -> None:
    for number in range(8):
        write_image(tmp_path / "dark" / f"{number}.png", 20)
        write_image(tmp_path / "light" / f"{number}.png", 220)
    (tmp_path / "nothing").mkdir()
    with pytest.raises(ValueError, match=r"the class folder nothing/ has no images; fill it, or move the folder elsewhere") as caught:
        find_study("images", {"data": str(tmp_path)}).load_task()
    assert "\n" not in str(caught.value)


def test_a_class_that_never_occurs_keeps_its_place_in_every_family() -> None:
    inputs = RANDOM.normal(size=(60, 4)).astype(np.float32)
    task = arrays(inputs, np.where(inputs[:, 0] > 0, 2, 0), classes=["low", "middle", "high"])
    for space, candidate in one_of_each_estimator(task):
        scores = predict(trained(space, candidate, task).model, task, task.validation, recipe=candidate.recipe)
        assert scores.shape == (len(task.validation), 3)
        np.testing.assert_allclose(scores.sum(axis=1), 1.0, atol=1e-5)


def test_images_of_one_pixel_train_or_are_refused_in_one_line(tmp_path: Path) -> None:
    for number in range(16):
        write_image(tmp_path / "dark" / f"{number}.png", 20 + number)
        write_image(tmp_path / "light" / f"{number}.png", 220 + number)
    study = find_study("images", {"data": str(tmp_path), "smoke": True, "pretrained": "no"})
    task = study.load_task()
    assert task.input_shape == (3, 1, 1)
    learnt, refusals = {}, []
    candidates = one_of_each_model(study)
    for name, candidate in candidates.items():
        try:
            learnt[name] = trained(study.space, candidate, task).quality["accuracy"]
        except ValueError as refusal:
            refusals.append(str(refusal))
    assert "convnet" in learnt
    assert len(learnt) + len(refusals) == len(candidates) == 3
    assert all("1 x 1" in line and "\n" not in line for line in refusals), "a refusal is one line with the size that does not fit"


def test_holes_and_text_labels_in_a_csv_are_no_obstacle_to_any_family(tmp_path: Path) -> None:
    frame = pd.DataFrame({"size": RANDOM.normal(size=120), "rooms": RANDOM.integers(1, 6, 120).astype(float)})
    frame["kind"] = np.where(frame["size"] > 0, "a house", "a flat")
    frame.loc[::7, "rooms"] = np.nan
    frame.loc[::11, "size"] = np.inf
    frame.to_csv(tmp_path / "homes.csv", index=False)
    task = find_study("table", {"data": str(tmp_path / "homes.csv"), "target": "kind"}).load_task()
    assert task.classes == ("a flat", "a house")
    assert np.isfinite(task.train.arrays()[0]).all()
    for space, candidate in one_of_each_estimator(task):
        trained(space, candidate, task)


def test_ten_thousand_columns_are_learnt_by_every_family(tmp_path: Path) -> None:
    wide = pd.DataFrame(RANDOM.normal(size=(40, 10_000)).astype(np.float32)).add_prefix("f")
    wide.iloc[::7, 3] = np.nan
    wide["y"] = np.where(wide["f0"] > 0, "up", "down")
    wide.to_parquet(tmp_path / "wide.parquet")
    task = find_study("table", {"data": str(tmp_path / "wide.parquet"), "target": "y"}).load_task()
    assert task.input_shape == (10_001,), "one more says where a value is missing"
    assert next(task.train.batches(8))[0].shape == (8, 10_001)
    for space, candidate in one_of_each_estimator(task):
        if candidate.architecture.get("estimator") != "gradient_boosting":  # bins every column: seconds, and nothing new
            trained(space, candidate, task)


def test_depthwise_convolutions_train_under_sparse_back_propagation() -> None:
    task = arrays(RANDOM.normal(size=(48, 3, 8, 8)).astype(np.float32), np.arange(48) % 2)
    tactics = TacticRanges(sparse_backprop={"keep": 0.2, "schedule": "constant", "warmup": 0}, always=True)
    recipe = RecipeRanges(learning_rate=1e-3, weight_decay=0.0, batch_size=16, tactics=tactics.settings())
    space = Convnet(depths=3, widths=64, kernels=3, depthwise=True, poolings="max", norms="batch", activations="relu", recipe=recipe)
    columns = trained(space, space.sample(RandomTrial(0)), task).extra
    assert columns["sparse_backprop_grouped_left_dense"] == 2
    assert columns["sparse_backprop_layers"] == 3, "the first convolution and the two pointwise ones"


def test_a_column_that_is_not_there_is_a_line_and_not_a_run(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,label\n" + "1,x\n2,z\n" * 5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(StudyError, match="did you mean 'label'"):
            find_study("table", {"data": str(tmp_path / "t.csv"), "target": "lable"})
