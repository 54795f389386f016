"""The model card: what is known is given with its quality, what is unknown is absent, and its code prepares data as the training did."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers.trials import make_trial
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt
from PIL import Image
from sklearn.datasets import load_digits

from joulefront.search.export import card, export, usage
from joulefront.search.export.parity import Check
from joulefront.search.export.predict import Model
from joulefront.search.export.variants import Refit
from joulefront.search.export.write import Exported, _use
from joulefront.search.pareto import LESS_IS_BETTER
from joulefront.search.records.bill import Bill
from joulefront.search.records.run_folder import Run
from joulefront.search.records.trial import ComponentEnergy
from joulefront.search.space import Candidate
from joulefront.search.training import images, table
from joulefront.search.training.arrays import arrays
from joulefront.search.training.recipe import Recipe

pytestmark = pytest.mark.slow

FACTS = {
    "study": {"name": "small", "seed": 3},
    "intensity": {"grams_per_kwh": 56.0, "zone": "FR", "source": "codecarbon", "year": 2023, "kind": "average"},
    "sessions": [
        {
            "command": "joulefront run digits --zone FR",
            "versions": {"torch": "2.9.0"},
            "hardware": {"cpu_model": "AMD EPYC 7B13", "system": "Linux", "devices": {"gpu:0": {"name": "NVIDIA L4", "driver": "550"}}},
        }
    ],
}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    bill = Bill(total_joules=7200.0, by_state={"complete": 7000.0, "failed": 200.0})
    return Run("small", tmp_path, ("accuracy", "train_energy"), ("maximize", "minimize"), (1, 2), (), bill, FACTS)


def card_of(ready: Any, out: Path, run: Run | None = None, to: str = "pt2") -> tuple[dict[str, Any], str]:
    export(**ready.arguments, to=to, out=out, run=run)
    card = ModelCard.load(out / "README.md")
    return card.data.to_dict(), card.text


def test_what_falls_may_be_small_and_has_four_digits():
    shown = {name: card._shown(name, 0.000251) for name in ("error", "loss", "rmse", "mae", "accuracy")}
    assert shown == {**dict.fromkeys(LESS_IS_BETTER, "0.000251"), "accuracy": "0.0003"}


def test_what_is_not_finite_is_called_unknown_wherever_an_export_tells_of_it():
    """As the AUC where the validation rows have one class."""
    nan = float("nan")
    check = Check(30, 0.0, 1e-4, "auc", nan, nan, None, 0, quality_test=nan, test_examples=9, raw_max_abs_difference=0.0, raw_quality=nan)
    told = Exported(Path("out"), ("model.onnx",), "model.onnx", check, raw="rows of the table").summary()
    told += Refit(170, 30, "auc", nan, nan, None).to_text() + card._shown("auc", nan) + card._shown("loss", nan)
    assert told.count("unknown") == 8
    assert not re.search(r"\bnan\b", told)


def test_emissions_follow_the_hub_and_name_their_source(make, run, tmp_path):
    data, _ = card_of(make("mlp", "rows"), tmp_path / "model", run)
    emissions = data["co2_eq_emissions"]
    assert emissions["emissions"] == 0.0019  # grams, as the hub wants them
    assert emissions["training_type"] == "pre-training"
    assert emissions["geographical_location"] == "FR"
    assert emissions["hardware_used"] == "AMD EPYC 7B13, NVIDIA L4"
    assert emissions["source"] == "joulefront: energy estimated (cpu_time) times 56 gCO2e/kWh (codecarbon, 2023)"


def test_emissions_of_a_forecast_are_those_of_the_hours_of_the_training(make, run, tmp_path):
    hourly = replace(run, facts={**run.facts, "carbon": [{"forecast": "file day.csv"}]})
    data, _ = card_of(make("mlp", "rows"), tmp_path / "model", hourly)
    assert "the intensity of the hours in which it was trained (file day.csv, a forecast)" in data["co2_eq_emissions"]["source"]
    assert "56 gCO2e/kWh" not in data["co2_eq_emissions"]["source"]


def test_unknown_emissions_are_absent_and_never_zero(make, run, tmp_path):
    data, text = card_of(make("mlp", "rows").but(grams_co2e=None), tmp_path / "model", run)
    assert "co2_eq_emissions" not in data
    assert "Carbon: unknown" in text


def test_unknown_energy_is_said_to_be_unknown(make, tmp_path):
    ready = make("mlp", "rows").but(train_joules=None, train_u_joules=None, grams_co2e=None, components={}, energy_quality="absent")
    _, text = card_of(ready, tmp_path / "model")
    assert "The energy of the training is unknown" in text
    assert " J**" not in text


def test_a_measured_zero_is_shown_as_zero(make, tmp_path):
    data, text = card_of(make("mlp", "rows").but(grams_co2e=0.0), tmp_path / "model")
    assert data["co2_eq_emissions"]["emissions"] == 0.0
    assert "Carbon: 0 gCO2e" in text


def test_energy_comes_with_its_uncertainty_and_the_quality_of_each_component(make, run, tmp_path):
    _, text = card_of(make("mlp", "rows"), tmp_path / "model", run)
    assert "**123.4 J** (34.3 mWh) ± 1.5 J (random standard uncertainty); an estimate, not a measurement." in text
    assert "| cpu | 123.4 J | estimated | cpu_time |" in text
    assert "| dram | unknown | absent | rapl |" in text
    assert "The whole search spent 2 Wh" in text
    assert "Not in these sums" not in text
    _, text = card_of(make("mlp", "rows").but(train_joules=123456.0), tmp_path / "large", replace(run, bill=replace(run.bill, rebuilt=1)))
    assert "**123,456 J** (34.3 Wh) ± 1.5 J" in text
    assert "Not in these sums, because the bill of 1 session(s) was lost" in text
    measured = make("mlp", "rows").but(energy_quality="measured", components={"gpu": ComponentEnergy(123.4, "measured", "nvml")})
    assert "uncertainty); measured." in card_of(measured, tmp_path / "measured")[1]


def test_the_factors_of_the_grams_and_small_figures_are_all_there_and_the_hardware_is_that_of_the_trial(make, run, tmp_path):
    elsewhere = {"command": "joulefront run digits --trials 9", "hardware": {"cpu_model": "Another"}, "hardware_id": "b"}
    sessions = [{**FACTS["sessions"][0], "hardware_id": "a"}, elsewhere]
    ready = make("mlp", "rows").but(hardware_id="b", record={"joules": 100.0, "u_systematic_joules": 0.4})
    data, text = card_of(
        ready.but(quality={**ready.trial.quality, "loss": 0.0000321}),
        tmp_path / "model",
        replace(run, facts={**FACTS, "pue": 1.5, "sessions": sessions}),
    )
    assert data["co2_eq_emissions"]["source"].endswith("times 56 gCO2e/kWh (codecarbon, 2023) times a PUE of 1.5")
    assert data["co2_eq_emissions"]["hardware_used"] == "Another"
    assert "the energy times the intensity of the grid times a PUE of 1.5." in text
    assert "is known to ±0.4 % (standard uncertainty)" in text
    assert "| Loss | 0.0000321 |" in text
    assert "command: `joulefront run digits --trials 9`" in text


def test_scores_of_a_detector_are_not_called_probabilities():
    task = SimpleNamespace(kind="anomaly", classes=(), outputs=2, preprocessing={})
    assert "no probabilities" in usage._outputs(SimpleNamespace(task=task, output_name="scores"), "table")
    assert usage._outputs(SimpleNamespace(task=task, output_name="probabilities"), "table").endswith("`(batch, 2)`: normal, anomaly.")


def test_the_way_back_is_in_the_card(make, run, tmp_path):
    _, text = card_of(make("mlp", "rows"), tmp_path / "model", run)
    assert "study `small`, trial 7, seed 3" in text
    assert "command: `joulefront run digits --zone FR`" in text
    assert "learning_rate = 0.01" in text


def test_pretrained_weights_are_named_and_their_energy_is_unknown_and_not_zero(run):
    weights = {"model": "resnet18", "origin": "the file resnet18.pth", "licence": "MIT", "sha256": "ab" * 32, "bytes": 46_800_000}
    unknown = {"pretraining_joules": None, "pretraining_grams_co2e": None}
    other = {**weights, **unknown, "model": "resnet34", "sha256": "cd" * 32}
    known = replace(run, facts={**run.facts, "study": {"weights": [{**weights, **unknown}, other]}})
    trained = SimpleNamespace(candidate=Candidate({"family": "transfer", "weights": f"resnet18@{'ab' * 8}"}, Recipe()))
    assert [one["model"] for one in card._pretrained(trained, known)] == ["resnet18"]
    assert card._pretraining({**weights, **unknown}) == "unknown"
    assert card._pretraining({**weights, **unknown, "pretraining_grams_co2e": 1200.0}) == "unknown (its own card states 1200 gCO2e)"
    scratch = SimpleNamespace(candidate=Candidate({"family": "timm", "weights": "none"}, Recipe()))
    assert card._pretrained(scratch, known) == []


def test_without_a_test_split_the_card_warns_of_the_validation_figure(make, tmp_path):
    data, text = card_of(make("convnet", "no test"), tmp_path / "model")
    assert "the validation figure is optimistic" in text
    assert [result["dataset"]["split"] for result in data["model-index"][0]["results"]] == ["validation"]


def test_a_delta_to_the_recorded_quality_is_stated(make, tmp_path):
    ready = make("mlp", "rows")
    shifted = ready.but(quality={**ready.trial.quality, "accuracy": ready.trial.quality["accuracy"] - 0.003})
    assert "(+0.003000)" in card_of(shifted, tmp_path / "model")[1]


@pytest.mark.parametrize("family", ["mlp", "convnet"])
def test_a_variant_in_bfloat16_is_written_and_compared_with_the_model_that_it_was(make, tmp_path, family):
    exported = export(**make(family).arguments, to="pt2", out=tmp_path / "model", variant="bfloat16")
    assert exported.check.variant_decisions_changed is not None


def test_the_card_of_a_variant_or_of_folds_has_no_figure_of_another_model_as_its_own(make, run, tmp_path):
    ready = make("mlp", "rows").but(inference_joules_per_1000=4.5)
    exported = export(**ready.arguments, to="onnx", out=tmp_path / "int8", variant="int8")
    text = (tmp_path / "int8" / "README.md").read_text()
    assert "was compared with the int8 variant of the model on all" in text
    plain = export(**ready.arguments, to="onnx", out=tmp_path / "plain")
    assert plain.check.variant_decisions_changed is None
    labels = []
    for folder in ("int8", "plain"):
        model = Model(tmp_path / folder)
        inputs = np.concatenate([batch.numpy() for batch, _ in ready.arguments["task"].validation.batches(64)])
        labels.append(np.argmax(model.session.run(None, {model.session.get_inputs()[0].name: inputs})[0], axis=1))
    assert exported.check.variant_decisions_changed == (labels[0] != labels[1]).sum()
    assert f"The variant decides {exported.check.variant_decisions_changed:,} of these examples otherwise" in text
    assert "1,000 predictions of the trained model took" not in text
    assert "a prediction of this int8 variant takes was not measured: `joulefront optimise`" in text
    assert "as the trial stored it, before it became this int8 variant (what the search optimised)" in text
    assert "The trial stored" not in text
    folds = {**ready.arguments, "task": replace(ready.arguments["task"], folds=3)}
    seen = {"data": {"examples": {"train": 1000, "validation": 333, "test": 464}, "folds": 3}}
    exported = export(**folds, to="onnx", out=tmp_path / "folds", run=replace(run, facts={**run.facts, "fingerprint": seen}))
    assert exported.check.quality_recorded is None
    text = (tmp_path / "folds" / "README.md").read_text()
    assert "The trial stored" not in text
    assert "train 1,000, validation 333, test 464 examples (3 folds of training and validation)" in text
    rows = len(folds["task"].train) + len(folds["task"].validation)
    assert f"| validation, 3 models of 3 folds (what the search optimised) | {rows:,} | Accuracy |" in text
    assert "1,000 predictions of the trained model took 4.5 J" in text


def test_the_cards_code_reads_image_files_as_the_training_does(make, run_card, tmp_path):
    generator = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "set" / name).mkdir(parents=True)
        for k in range(12):
            pixels = generator.integers(0, 255, (40, 52, 3), dtype=np.uint8) // (2 if name == "cat" else 1)
            Image.fromarray(pixels).save(tmp_path / "set" / name / f"{k}.png")
    task = images.images(tmp_path / "set", resolution=24)
    level = max(1 / 255 / deviation for deviation in task.preprocessing["std"])
    for resolution in (None, 16):
        ready = make("convnet", task, resolution=resolution)
        export(**ready.arguments, to="pt2", out=tmp_path / f"model {resolution}")
        file = tmp_path / "set" / "cat" / "3.png"
        wanted = images.prepare(task.preprocessing, file)
        if resolution:
            import torch

            from joulefront.search.training.splits_data import resized

            wanted = resized(torch.from_numpy(wanted), resolution).numpy()
        found = run_card(tmp_path / f"model {resolution}", file)["inputs"]
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, wanted, atol=1.01 * level)  # a tie may round the other way
        assert (np.abs(found - wanted) > 0.01 * level).mean() < 0.02


@pytest.mark.parametrize("flat", [False, True])
def test_the_cards_code_prepares_arrays_as_the_training_does(make, run_card, tmp_path, flat):
    bunch = load_digits()
    raw = bunch.data.astype("float32") if flat else bunch.images[:, None].astype("float32")
    task = arrays(raw, bunch.target, name="digits", validation=(raw[:50], bunch.target[:50]))
    export(**make("mlp" if flat else "convnet", task).arguments, to="pt2", out=tmp_path / "model")
    np.save(tmp_path / "raw.npy", raw[:50])
    wanted, _ = next(task.validation.batches(50))
    np.testing.assert_allclose(run_card(tmp_path / "model", tmp_path / "raw.npy")["inputs"], wanted.numpy(), rtol=1e-4, atol=1e-5)


def test_the_cards_code_prepares_rows_of_a_table_as_the_training_does(make, run_card, tmp_path):
    generator = np.random.default_rng(1)
    frame = pd.DataFrame({"size": generator.normal(50, 9, 80), "town": generator.choice(["Bern", "Rome"], 80)})
    frame["price"] = frame["size"] * 3 + (frame["town"] == "Bern") * 40
    frame.to_csv(tmp_path / "flats.csv", index=False)
    task = table.table(tmp_path / "flats.csv", "price")
    export(**make("mlp", task).arguments, to="pt2", out=tmp_path / "model")
    frame.drop(columns="price")[:7].to_csv(tmp_path / "rows.csv", index=False)
    names = run_card(tmp_path / "model", tmp_path / "rows.csv")
    np.testing.assert_allclose(names["inputs"], table.prepare(task.preprocessing, tmp_path / "rows.csv"), atol=1e-6)
    assert names["values"].shape[0] == 7


#: What would be markup, the end of a line or of the front matter, or a sign that turns the writing, if a card took names as they are.
STRANGE = "](javascript:1) ![i](http://x/i.png) <b onclick=x>`y`|*z* _w_ &lt; $q$ # \x1b[31m\n---\n# head\n```\nx"


def test_no_name_of_a_stranger_is_markup_in_a_card(make, run, tmp_path):
    generator = np.random.default_rng(1)
    frame = pd.DataFrame({f"a{STRANGE}": generator.normal(size=80), "town": generator.choice([f"m{STRANGE}", "n"], 80)})
    frame[f"t{STRANGE}"] = np.where(frame.iloc[:, 0] > 0, f"k{STRANGE}", f"l{STRANGE}")
    task = replace(table.table(frame, f"t{STRANGE}"), name=f"d{STRANGE}")
    ready = make("mlp", task)
    components = {f"c{STRANGE}": ComponentEnergy(3.0, None, "measured", f"s{STRANGE}")}
    quality, params = {**ready.trial.quality, f"q{STRANGE}": 0.5}, {**ready.trial.params, STRANGE: STRANGE}
    trial = ready.but(components=components, quality=quality, params=params).trial
    (session,) = FACTS["sessions"]
    hardware = {"cpu_model": f"h\ud800\u202e{STRANGE}"}
    facts = {**FACTS, "sessions": [{**session, "command": f"x{STRANGE}", "versions": {STRANGE: STRANGE}, "hardware": hardware}]}
    arguments = {**ready.arguments, "trial": trial, "study": replace(ready.study, name="<b>`y`|*z* [a](b) ![i](x) # ---")}
    export(**arguments, to="onnx", out=tmp_path / "model", run=replace(run, facts=facts))
    card = ModelCard.load(tmp_path / "model" / "README.md")
    assert card.data.to_dict()["library_name"] == "onnx"
    found = list(walk(MarkdownIt("commonmark").enable("table").parse(card.text)))
    kinds = {one.type for one in found}
    assert not kinds & {"link_open", "image", "html_inline", "html_block", "hr"}, kinds
    headings = [after.content for one, after in pairwise(found) if one.type == "heading_open"]
    assert len(headings) == 7, headings
    assert {len(row) for row in cells(found)} <= {4}, "every row of a table has as many cells as its head"
    text = (tmp_path / "model" / "README.md").read_text(encoding="utf-8")
    assert all(sign.isprintable() or sign == "\n" for sign in text)
    assert json.loads((tmp_path / "model" / "classes.json").read_text(encoding="utf-8")) == list(task.classes)


def walk(tokens: list[Any]) -> Iterator[Any]:
    for one in tokens:
        yield one
        yield from one.children or ()


def cells(tokens: list[Any]) -> Iterator[list[Any]]:
    opened = [k for k, one in enumerate(tokens) if one.type == "tr_open"]
    for begin in opened:
        end = next(k for k in range(begin, len(tokens)) if tokens[k].type == "tr_close")
        yield [one for one in tokens[begin:end] if one.type in ("td_open", "th_open")]


@pytest.mark.parametrize(
    ("family", "is_torch", "reason", "recipe", "said"),
    [
        ("xgboost", False, None, Recipe(patience=4), "9 epochs (each some rounds of boosting), patience = 4"),
        ("convnet", True, "solved: more epochs change nothing", Recipe(), "9 epochs"),
        ("mlp", True, None, Recipe(threads=2), "9 epochs, accumulation = 1, augment = none"),
        ("mlp", True, None, Recipe(optimizer="sgd"), "momentum = 0.9"),
        ("ensemble", False, None, Recipe(), "9 epochs"),
    ],
)
def test_a_card_states_what_the_training_has_read_of_its_recipe_and_what_an_epoch_was(family, is_torch, reason, recipe, said):
    trial = make_trial(number=1, state="complete", params={"family": family}, epochs=9, reason=reason)
    trained: Any = SimpleNamespace(trial=trial, candidate=Candidate({"family": family}, recipe), is_torch=is_torch, study="s")
    (line,) = [line for line in card._origin(trained, None, 0).splitlines() if line.startswith("- recipe: ")]
    assert said in line.replace("\\", "")
    assert ("learning" in line, "momentum" in line) == (is_torch and reason is None, recipe.optimizer == "sgd")


@pytest.mark.parametrize(
    ("takes", "code", "needed"),
    [
        ("table", None, "onnxruntime numpy pandas"),
        ("table", "import xgboost\n\nmodel = 1\n", "onnxruntime numpy pandas xgboost"),
        ("array", "import skops.io\n\nmodel = 1\n", "onnxruntime numpy skops scikit-learn"),
        ("image", "import torch\nfrom joulefront.search.export import load_model\n", "onnxruntime numpy pillow torch joulefront"),
        ("inputs", "import torch\nimport json\nfrom my_study import study as make_study\n", "numpy torch"),
        ("inputs", None, "onnxruntime numpy"),
    ],
)
def test_what_the_code_of_a_card_imports_is_in_the_line_that_installs(takes, code, needed):
    task = SimpleNamespace(kind="regression", preprocessing={"height": 8, "width": 8, "columns": []}, target_scale=None, input_shape=(3,))
    trained: Any = SimpleNamespace(task=task, input_shape=(3,), output_name="values", is_torch=True)
    assert re.findall(r"pip install ([^`)\n]*)", usage.usage(trained, takes, code)) == [needed]


def test_a_model_that_reads_free_text_says_what_it_needs_elsewhere():
    how = {"columns": [{"name": "Name", "type": "text"}, {"name": "size", "type": "numeric"}]}
    said = " ".join(_use(SimpleNamespace(takes="table", how=how), Path("model"), "new.csv"))
    assert "pip install 'joulefront[text]' is needed, for 'Name' is free text" in said
    assert "--pretrained no" in said
    assert "where joulefront is not installed" in " ".join(_use(SimpleNamespace(takes="table", how={}), Path("model"), "new.csv"))
