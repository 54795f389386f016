from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.backbone_contract import check_backbone

from joulefront.search.export import export
from joulefront.search.records.run_folder import RunFolder
from joulefront.search.running.baselines import beginning
from joulefront.search.running.run import run
from joulefront.search.space import RandomTrial
from joulefront.search.training.audio import audio
from joulefront.studies.sound import study, write_sounds

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sounds")
    write_sounds(folder, count=12)
    return folder


def test_heads_on_a_pretrained_network_compete_where_there_are_weights(sounds: Path) -> None:
    found = study(str(sounds))
    assert [member.name for member in found.space.spaces] == ["transfer", "convnet", "mlp"]
    assert "tf_efficientnet_lite0 from the package" in found.notice
    without = study(str(sounds), pretrained="no")
    assert [member.name for member in without.space.spaces] == ["convnet", "mlp"]
    assert (without.first, without.weights, without.notice) == ((), (), "")
    assert beginning(replace(found, rungs=(9, 27)))[2] == 1, "the default model is one of them"
    for params in found.first:
        trial = RandomTrial(0)
        trial.params.update(params)
        found.space.sample(trial)
        found.draw_epochs(trial)
        assert set(trial.params) == set(params), "no name of theirs is unknown to the space, and nothing is left to chance"


def test_a_spectrogram_reaches_the_network_on_the_scale_of_its_images(sounds: Path) -> None:
    task = audio(sounds)
    trial = RandomTrial(0)
    trial.params.update({**study(str(sounds)).first[0]})
    space = study(str(sounds)).space
    model = space.build(space.sample(trial), task)
    inputs, _ = next(iter(task.train.batches(8)))
    prepared = model.backbone.prepare(inputs)
    assert prepared.shape[:2] == (8, 3)
    assert torch.equal(prepared[:, 0], prepared[:, 1])
    assert 0.5 < float(prepared.std()) < 1.5
    assert abs(float(prepared.mean())) < 0.5
    check_backbone(model.backbone, inputs)


def test_a_head_on_spectrograms_is_measured_and_exported(sounds: Path, tmp_path: Path) -> None:
    made = replace(study(str(sounds)), rungs=(9, 27))
    run(made, out=tmp_path / "run", trials=1, meter="cpu_time", device="cpu")
    folder = RunFolder.open(tmp_path / "run")
    trial = folder.run().trials[0]
    assert trial.state == "complete", trial.reason
    assert trial.params["family"] == "transfer"
    assert trial.energy.features_joules
    assert trial.quality["accuracy"] > 0.3  # five classes
    task = made.load_task()
    done = export(trial, study=made, task=task, weights=folder.artifact(0), to="onnx", out=tmp_path / "model", run=folder.run())
    assert done.check.decisions_changed == 0
