"""The contract of an exporter: what it writes answers as the model does, whoever asks, in batches of any size."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from helpers import forked
from huggingface_hub import ModelCard

from joulefront.search.export import FORMATS, Exported, export
from joulefront.search.export.model import rebuild
from joulefront.search.export.parity import scores
from joulefront.search.training.checkpoint import load_weights
from joulefront.search.training.evaluate import evaluate
from joulefront.search.training.splits_data import MemoryData

pytestmark = pytest.mark.slow

TORCH = [("convnet", "digits"), ("mlp", "rows"), ("mlp", "diabetes"), ("mlp", "labels"), ("mlp", "anomalies")]
SKLEARN = [
    ("pipeline", "rows"),
    ("forest", "rows"),
    ("boosting", "rows"),
    ("neighbours", "digits"),
    ("regressor", "diabetes"),
    ("detector", "anomalies"),
    ("forest", "anomalies"),
    ("forest", "labels"),
]
CASES = [(*model, to) for model in TORCH for to in ("onnx", "pt2", "safetensors")]
CASES += [(*model, to) for model in SKLEARN for to in ("onnx", "skops")]


@pytest.fixture(scope="session", params=CASES, ids=["-".join(case) for case in CASES])
def case(request: pytest.FixtureRequest, make: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Exported, str]:
    family, task, to = request.param
    ready = make(family, task)
    return ready, export(**ready.arguments, to=to, out=tmp_path_factory.mktemp("out") / "model"), to


def test_the_file_predicts_as_the_model_on_every_validation_example(case):
    ready, exported, _ = case
    check = exported.check
    assert check.examples == len(ready.task.validation)
    assert check.max_abs_difference <= 1e-4
    assert check.quality_exported == pytest.approx(ready.trial.quality[ready.task.metric], abs=1e-6)
    assert check.decisions_changed == 0


def test_an_independent_reader_gets_the_quality_of_the_trial(case):
    """The file is read here by the libraries' own calls, not by the exporter's reader."""
    ready, exported, to = case
    given, targets = [], []
    if to == "onnx":
        session = onnxruntime.InferenceSession(str(exported.path / "model.onnx"))
        assert len(session.get_outputs()) == 1
        mean, deviation = ready.task.target_scale or (0.0, 1.0)  # what was an estimator answers in the unit of the data
        mean, deviation = (0.0, 1.0) if ready.is_torch else (mean, deviation)
        ask = lambda rows: (session.run(None, {"inputs": rows})[0] - mean) / deviation  # noqa: E731
    elif to == "pt2":
        program = torch.export.load(exported.path / "model.pt2").module()
        ask = lambda rows: program(torch.from_numpy(rows)).detach().numpy()  # noqa: E731
    elif to == "safetensors":
        from safetensors.torch import load_file

        model = ready.study.space.build(ready.study.space.sample(_stored(exported)), ready.task).eval()
        model.load_state_dict(load_file(exported.path / "model.safetensors"))
        assert (exported.path / "model.safetensors").stat().st_mode == (exported.path / "config.json").stat().st_mode
        ask = lambda rows: model(torch.from_numpy(rows)).detach().numpy()  # noqa: E731
    else:
        import skops.io

        file = exported.path / "model.skops"
        model = skops.io.load(file, trusted=skops.io.get_untrusted_types(file=file))
        classes = getattr(model, "classes_", None)
        method = {"regression": "predict"}.get(ready.task.kind, "predict_proba" if classes is not None else "decision_function")
        ask = getattr(model, "predict" if isinstance(classes, list) else method)
    for inputs, wanted in ready.task.validation.batches(97):
        rows = inputs.numpy() if ready.is_torch else inputs.reshape(len(inputs), -1).numpy()
        given.append(ask(rows))
        targets.append(wanted.numpy())
    border = 0 if ready.is_torch else 0.5
    assert _quality(ready.task.kind, np.concatenate(given), np.concatenate(targets), border) == pytest.approx(
        ready.trial.quality[ready.task.metric], abs=1e-6
    )


def test_it_lies_beside_what_is_needed_to_use_it(case):
    ready, exported, to = case
    names = {file.name for file in exported.path.iterdir()}
    script = {"predict.py"} if to == "onnx" else set()
    assert names == set(exported.files) == {f"model.{to}", "README.md", "config.json", "preprocessing.json", "classes.json", *script}
    assert json.loads((exported.path / "classes.json").read_text()) == list(ready.task.classes)
    preprocessing = json.loads((exported.path / "preprocessing.json").read_text())
    assert {name: preprocessing[name] for name in ready.task.preprocessing} == ready.task.preprocessing
    config = json.loads((exported.path / "config.json").read_text())
    assert config["params"] == ready.trial.params
    assert config["check"]["examples"] == len(ready.task.validation)
    if ready.task.target_scale:
        assert (preprocessing["target_mean"], preprocessing["target_std"]) == ready.task.target_scale


def test_the_snippet_of_the_card_predicts_what_the_model_does(case, run_card, tmp_path):
    ready, exported, to = case
    if to == "safetensors":  # the study is the user's own; the next test runs it
        assert "load_model" in _snippet(exported.path)
        return
    inputs, _ = next(ready.task.validation.batches(40))
    np.save(tmp_path / "inputs.npy", inputs.numpy() if ready.is_torch else inputs.flatten(1).numpy())
    printed = run_card(exported.path, tmp_path / "inputs.npy")["printed"]
    if ready.task.kind == "classification":
        trained = rebuild(**ready.arguments)
        wanted = trained.predictor()(inputs.numpy()).argmax(axis=1)
        found = re.findall(r"label='(\d)'" if to == "onnx" else r"'(\d)'", printed)
        assert found == [str(number) for number in wanted]
    if ready.task.kind == "anomaly":
        trained = rebuild(**ready.arguments)
        wanted = scores(trained, trained.predictor()(inputs.numpy())) > 0.5
        found = re.findall(r"label='(normal|anomaly)'" if to == "onnx" else "True|False", printed)
        assert [one in ("True", "anomaly") for one in found] == wanted.tolist()
        assert 0 < wanted.sum() < 20
    assert "Unusable" not in printed
    assert printed.strip()


def test_the_card_names_classes_by_number_where_the_training_rows_lack_one(make, run_card, tmp_path):
    task = make("forest", "rows").task
    kept = np.flatnonzero(task.train.arrays()[1] != 0)
    ready = make("forest", replace(task, train=MemoryData(task.train.inputs[kept], task.train.targets[kept])))
    np.save(tmp_path / "inputs.npy", task.validation.arrays()[0][:40])
    wanted = rebuild(**ready.arguments).predictor()(task.validation.arrays()[0][:40]).argmax(axis=1)
    for to, printed in (("onnx", r"label='(\d)'"), ("skops", r"'(\d)'")):
        exported = export(**ready.arguments, to=to, out=tmp_path / to)
        found = re.findall(printed, run_card(exported.path, tmp_path / "inputs.npy")["printed"])
        assert found == [str(number) for number in wanted]


def test_the_safetensors_snippet_runs_where_the_study_is_a_file(make, tmp_path):
    """In a process of its own: nothing but the folder and the study file."""
    study_file = tmp_path / "my_study.py"
    study_file.write_text(STUDY_FILE, encoding="utf-8")
    from joulefront.search.cli.study_source import find_study

    study = find_study(str(study_file), {})
    ready = make("mlp", "rows", space=study.space, width=8)
    task = study.load_task()
    run = _run(tmp_path, {"origin": {"source": str(study_file), "options": {}}})
    exported = export(ready.trial, study=study, task=task, weights=ready.weights, to="safetensors", out=tmp_path / "model", run=run)
    code = _snippet(exported.path)
    np.save(tmp_path / "one.npy", next(task.validation.batches(1))[0].numpy())
    done = forked.run("-c", code, tmp_path / "one.npy", cwd=exported.path)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"\['\d'\]\n", done.stdout)


def test_the_batch_axis_is_free(make, tmp_path):
    exported = export(**make("convnet").arguments, to="onnx", out=tmp_path / "model")
    session = onnxruntime.InferenceSession(str(exported.path / "model.onnx"))
    assert [len(session.run(None, {"inputs": np.zeros((n, 1, 8, 8), np.float32)})[0]) for n in (1, 2, 7, 300)] == [1, 2, 7, 300]
    assert session.get_inputs()[0].shape[1:] == [1, 8, 8]
    assert json.loads(session.get_modelmeta().custom_metadata_map["classes"]) == [str(n) for n in range(10)]


def test_images_are_exported_at_the_resolution_of_the_recipe(make, tiny_space, tmp_path):
    ready = make("convnet", space=tiny_space(("convnet",), resolution=12))
    exported = export(**ready.arguments, to="onnx", out=tmp_path / "model")
    assert onnxruntime.InferenceSession(str(exported.path / "model.onnx")).get_inputs()[0].shape[1:] == [1, 12, 12]
    assert json.loads((exported.path / "preprocessing.json").read_text())["input_shape"] == [1, 12, 12]


def test_the_test_split_is_scored_with_the_exported_file(make, tmp_path):
    ready = make("convnet")
    exported = export(**ready.arguments, to="onnx", out=tmp_path / "model")
    candidate = ready.study.space.sample(_stored(exported))
    model = load_weights(ready.weights, ready.study.space.build(candidate, ready.task))
    wanted = evaluate(model, ready.task, ready.task.test, recipe=candidate.recipe)["accuracy"]
    assert exported.check.quality_test == pytest.approx(wanted, abs=1e-9)
    splits = {result.dataset_split: result.metric_value for result in ModelCard.load(exported.path / "README.md").data.eval_results}
    assert splits["test"] == pytest.approx(wanted, abs=1e-6)


def test_every_format_is_under_this_contract():
    assert {to for *_, to in CASES} | {"native"} == set(FORMATS)  # the own files of boosting libraries: test_boosted.py


def test_nothing_reaches_the_terminal(make, tmp_path, capfd):
    export(**make("convnet").arguments, to="onnx", out=tmp_path / "model")
    said = capfd.readouterr()
    assert said.out + said.err == ""


def _quality(kind: str, outputs: np.ndarray, targets: np.ndarray, border: float) -> float:
    from sklearn import metrics

    if kind == "classification":
        return float((outputs.argmax(1) == targets).mean())
    if kind == "regression":
        return float(metrics.r2_score(targets, outputs.reshape(-1)))
    if kind == "multilabel":
        return float(metrics.f1_score(targets, outputs > border, average="macro"))
    return float(metrics.roc_auc_score(targets, outputs[:, 1] - outputs[:, 0] if outputs.ndim == 2 else -outputs))


def _snippet(folder: Path) -> str:
    found = re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert found
    return found.group(1)


def _stored(exported: Exported) -> Any:
    from joulefront.search.space import FixedTrial

    return FixedTrial(json.loads((exported.path / "config.json").read_text())["params"])


def _run(path: Path, facts: dict[str, Any]) -> Any:
    from joulefront.search.records.bill import Bill
    from joulefront.search.records.run_folder import Run

    return Run("small", path, ("accuracy", "train_energy"), ("maximize", "minimize"), (1, 2), (), Bill(), facts)


STUDY_FILE = """
import torch
from sklearn.datasets import load_digits
from torch import nn

from joulefront.search.space import Candidate
from joulefront.search.study import Study
from joulefront.search.training.splits_data import MemoryData
from joulefront.search.training.recipe import Recipe
from joulefront.search.training.task import Task


class Small:
    name = "small"

    def sample(self, trial):
        width = trial.suggest_int("width", 2, 32)
        return Candidate({"width": width}, Recipe(learning_rate=0.01))

    def build(self, candidate, task):
        return nn.Sequential(nn.Linear(64, candidate.architecture["width"]), nn.ReLU(), nn.Linear(candidate.architecture["width"], 10))

    def key(self, candidate):
        return candidate.key


def study():
    X, y = load_digits(return_X_y=True)
    X, y = torch.tensor(X, dtype=torch.float32) / 16, torch.tensor(y)
    mean, deviation = [float(X.mean())] * 64, [float(X.std())] * 64
    task = Task("digits", "classification", MemoryData(X[:1000], y[:1000], mean=mean, deviation=deviation),
                MemoryData(X[1000:1333], y[1000:1333], mean=mean, deviation=deviation), None, (64,), tuple("0123456789"))
    return Study("mine", task, Small(), trials=1)
"""
