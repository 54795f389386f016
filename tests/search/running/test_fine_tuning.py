"""A study with heads and fine-tuning on a small network: begun after the heads, continued, priced, exported and trained again."""

from pathlib import Path

import numpy as np
import pytest
import torch

from joulefront.search import Study, run
from joulefront.search.export import export
from joulefront.search.records.replicates import read_repeats
from joulefront.search.records.run_folder import RunFolder
from joulefront.search.running.repeat import repeat
from joulefront.search.training.arrays import arrays
from joulefront.spaces.finetune import FineTuning
from joulefront.spaces.recipes import RecipeRanges
from joulefront.spaces.transfer import TransferFamily
from joulefront.spaces.union import Union
from joulefront.spaces.weights import of_file

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    import timm

    path = tmp_path_factory.mktemp("weights") / "test_resnet.pth"
    torch.manual_seed(0)
    torch.save(timm.create_model("test_resnet").state_dict(), path)
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, 120)
    pixels = random.integers(0, 120, (120, 32, 32, 3)).astype(np.uint8)
    for image, label in zip(pixels, labels, strict=True):
        image[8 * label : 8 * label + 12] += 100
    labels[::8] = (labels[::8] + 1) % 3  # nobody is perfect: the weights of such a model are kept on the front alone
    data = arrays(pixels, labels, classes=["a", "b", "c"], name="bars")
    recipe = RecipeRanges(learning_rate=(1e-3, 1e-2), weight_decay=0.0, batch_size=16, threads=1)
    one = (of_file(path),)
    heads = TransferFamily(one, sides=64, images_halved=0, features="grid", heads="linear", recipe=recipe)
    space = Union(heads, FineTuning(one, sides=64, images_halved=0, layers=("2", "all"), norms="frozen", recipe=recipe))
    first = tuple({"family": "transfer", "learning_rate": 1e-3 * (k + 1), "epochs": 1 + (k == 0)} for k in range(6))  # one is the default
    return Study("bars", data, space, rungs=(1, 2), trials=8, first=first)


def test_fine_tuning_follows_the_heads_and_its_model_is_priced_exported_and_trained_again(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOULEFRONT_CACHE", str(tmp_path / "cache"))
    run(study, out=tmp_path / "r", meter="cpu_time", device="cpu")
    folder = RunFolder.open(tmp_path / "r")
    found = folder.run()
    assert [trial.params["family"] for trial in found.trials[:7]] == ["transfer"] * 6 + ["finetune"]
    tuned, head = found.trials[6], max(found.trials[:6], key=lambda trial: trial.quality["accuracy"])
    assert tuned.state == "complete", tuned.reason
    assert tuned.params["learning_rate"] == head.params["learning_rate"]
    assert tuned.energy.features_joules is not None
    assert tuned.train_joules is not None
    assert head.train_joules is not None
    assert tuned.train_joules > tuned.energy.features_joules > 0
    assert tuned.train_joules > head.train_joules
    kept = next(one for one in found.trials[6:] if folder.artifact(one.number).exists() and one.params["family"] == "finetune")
    weights = folder.artifact(kept.number)
    done = export(kept, study=study, task=study.load_task(), weights=weights, to="onnx", out=tmp_path / "model", run=found)
    assert done.check.decisions_changed == 0
    repeat(study, tmp_path / "r", times=1, pick="trial=6", listener=lambda line: None)
    (again,) = read_repeats(tmp_path / "r").trainings
    assert (again.trial, again.failed) == (6, None)
    assert (again.train_joules or 0.0) > tuned.energy.features_joules > 0
