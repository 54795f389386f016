"""Each bundled study varies what its paper varied and holds the rest still."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import optuna
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from joulefront.search.cli.study_source import find_study
from joulefront.search.records.run_folder import Run
from joulefront.search.report.energy_relations import cpu_utilisation, family_of, training_flops
from joulefront.search.samplers.factory import make_sampler
from joulefront.search.space import FixedTrial, RandomTrial
from joulefront.search.training.cost import count
from joulefront.search.training.fit import fit
from joulefront.search.training.task import Task
from joulefront.studies import _parts, anomaly, architectures, environments, relations, sound, tactics

pytestmark = pytest.mark.slow

Smoked = Callable[[str], Run]


def drawn(space, count: int = 60):
    """Candidates of random parameters, with the parameters."""
    draws = [RandomTrial(seed) for seed in range(count)]
    return [(space.sample(draw), draw.params) for draw in draws]


def test_architectures_are_the_three_of_the_paper_with_its_head_at_full_size() -> None:
    study = architectures.study()
    task = study.load_task()
    assert task.input_shape == (3, 32, 32)
    found = {}
    for candidate, params in drawn(study.space, 30):
        assert study.space.sample(FixedTrial(params)) == candidate
        found.setdefault(candidate.architecture["model"], candidate)
        assert candidate.architecture["head"] == "4096-4096"
    assert set(found) == {"vgg16", "vgg19", "resnet50"}
    model = study.space.build(found["vgg16"], task)
    # Source: model_characteristics of arXiv 2302.00967's package: VGG16 with its head on 32 x 32 x 3 and 10 classes.
    assert count(model, task, found["vgg16"].recipe).parameters == 33_638_218


def test_environments_searches_settings_of_the_machine_and_power_limits_only_when_asked() -> None:
    names = {name for _, params in drawn(environments.study().space) for name in params}
    assert {"model", "batch_size", "precision"} <= names
    assert not any("power" in name for name in names)
    limited = find_study("environments", {"power_limits_watts": "200,300"})  # as --set gives them
    drawn_params = [params for _, params in drawn(limited.space)]
    assert {"tactic.power_limit", "tactic.power_limit.watts"} <= {name for params in drawn_params for name in params} - names
    assert {params.get("tactic.power_limit.watts") for params in drawn_params} == {None, 200.0, 300.0}
    with pytest.raises(ValueError, match=r"power_limit\.watts must be > 0, got -1"):
        find_study("environments", {"power_limits_watts": "200,-1"})


def test_the_networks_of_the_environments_take_the_enlarged_digits() -> None:
    study = environments.study()
    task = study.load_task()
    networks = {candidate.architecture["model"]: candidate for candidate, _ in drawn(study.space)}
    assert set(networks) == set(environments.NETWORKS)
    with torch.device("meta"):  # operations need no weights
        flops = {name: count(study.space.build(candidate, task), task, candidate.recipe).flops for name, candidate in networks.items()}
    assert None not in flops.values()
    assert min(flops, key=flops.__getitem__) == "mobilenetv2_100"
    assert max(flops, key=flops.__getitem__) == "vgg16"


def test_each_tactic_competes_on_the_same_network_as_plain_training() -> None:
    study = tactics.study()
    networks, used = set(), {}
    for candidate, _ in drawn(study.space, 120):
        architecture = {key: value for key, value in candidate.architecture.items() if key not in ("family", "repeat")}
        networks.add((json.dumps(architecture, sort_keys=True), candidate.recipe.learning_rate))
        used.setdefault(candidate.architecture["family"], set()).add((*candidate.recipe.tactics, candidate.recipe.patience is not None))
    assert len(networks) == 1
    assert used["plain"] == {(False,)}
    assert used["sparse_backprop"] == {("sparse_backprop", False)}
    assert used["activation_sparsity"] == {("activation_sparsity", False)}
    assert used["freeze"] == {("freeze", False)}
    assert used["early_stopping"] == {(True,)}
    assert used["combined"] == {("sparse_backprop", "freeze", stops) for stops in (False, True)}


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_the_grid_of_the_tactics_is_complete() -> None:
    study = tactics.study(repeats=2)
    sampler = make_sampler("grid", rungs=study.rungs, seed=0, study=study)
    grid = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
    families: dict[str, set[str]] = {}
    while not sampler.exhausted:
        trial = grid.ask()
        candidate = study.space.sample(trial)
        families.setdefault(candidate.architecture["family"], set()).add(study.space.key(candidate))
        grid.tell(trial, [1.0, 1.0])
    assert sum(map(len, families.values())) * len(study.rungs) == study.trials == tactics.SETTINGS * 3 * 2
    assert {name: len(keys) // 2 for name, keys in families.items()} == {
        "plain": 1, "sparse_backprop": 2, "activation_sparsity": 2, "freeze": 2, "early_stopping": 2, "combined": 2
    }  # fmt: skip


def test_a_part_of_a_task_is_drawn_once_and_normalised_as_the_whole() -> None:
    whole = _parts.pictures(None)
    small = _parts.pictures(None, examples=100)
    assert (len(small.train), len(small.validation)) == (100, 100)
    pixels = {image.numpy().tobytes() for image in whole.train.inputs}
    assert all(image.numpy().tobytes() in pixels for image in small.train.inputs)
    epochs = [torch.cat([x for x, _ in small.train.batches(32, seed=seed)]) for seed in (1, 2)]
    assert not torch.equal(*epochs)
    assert torch.equal(epochs[0].flatten(1).sum(1).sort().values, epochs[1].flatten(1).sum(1).sort().values)
    assert 0.5 < float(epochs[0].std()) < 2.0
    with pytest.raises(ValueError, match="needs so many training examples, there are 1079"):
        _parts.pictures(None, examples=5000)


def test_the_network_of_the_tactics_has_layers_that_sparse_back_propagation_can_thin_out() -> None:
    study = tactics.study()
    candidate = next(c for c, _ in drawn(study.space) if c.architecture["family"] == "sparse_backprop")
    task = _parts.few(study.load_task())
    columns = fit(study.space.build(candidate, task), task, candidate.recipe, epochs=1).extra
    assert columns["sparse_backprop_layers"] == 3


def test_relations_spread_the_sizes_of_every_family_and_nothing_else() -> None:
    study = relations.study()
    task = study.load_task()
    sizes: dict[str, list[int]] = {}
    recipes = set()
    for candidate, _ in drawn(study.space):
        cost = count(study.space.build(candidate, task), task, candidate.recipe)
        sizes.setdefault(candidate.architecture["family"], []).append(cost.flops)
        recipes.add(json.dumps(candidate.recipe.to_json(), sort_keys=True))
    assert set(sizes) == {"mlp", "convnet", "depthwise", "vit"}
    assert all(max(flops) > 10 * min(flops) for flops in sizes.values())
    assert len(recipes) == 1
    assert study.sampler == "random"


def test_a_relation_is_told_apart_by_family(smoked: Smoked) -> None:
    run = smoked("relations")
    assert {family_of(trial) for trial in run.trials} <= {"mlp", "convnet", "depthwise", "vit"}
    for trial in run.trials:
        assert trial.flops
        assert trial.parameters
        assert training_flops(trial) == 3 * trial.flops * _parts.FEW
        assert (cpu_utilisation(trial) or 0.0) > 0.0
        assert trial.energy.gpu_utilisation is None or 0.0 <= trial.energy.gpu_utilisation <= 1.0


def test_anomalies_are_the_malignant_ones_and_each_phase_has_its_energy(smoked: Smoked) -> None:
    task = anomaly.task()
    assert task.classes == ("benign", "malignant")
    sets = (task.train, task.validation, task.test)
    assert sum(int(part.arrays()[1].sum()) for part in sets) == 212  # malignant cases of the set, by its own description
    for trial in smoked("anomaly").trials:
        phases = (trial.train_joules, trial.energy.evaluation_joules, trial.inference_joules_per_1000)
        assert all(joules is not None and joules > 0 for joules in phases)
    with pytest.raises(ValueError, match=r"--data TABLE\.csv together with --target"):
        anomaly.task("table.csv")


def test_the_sounds_are_written_as_said_and_are_no_riddle_and_no_gift(tmp_path: Path, capsys) -> None:
    task = sound.task(smoke=True)
    assert "they stand for no real recordings" in capsys.readouterr().err
    assert task.classes == ("falling", "noise", "pulses", "rising", "tone")
    sound.write_sounds(tmp_path, count=24, seed=1)
    assert len(list(tmp_path.glob("*/*.wav"))) == 5 * 24
    own = sound.task(str(tmp_path))
    assert own.input_shape == task.input_shape
    (X, y), (unseen, truth) = own.train.arrays(), own.validation.arrays()
    reached = LogisticRegression(max_iter=300).fit(X, y).score(unseen, truth)
    assert 0.3 < reached < 1.0, "better than chance (0.2), but not by a linear model alone"


def test_a_first_part_of_a_task_has_its_examples_in_the_same_order() -> None:
    whole = _parts.pictures(None)
    part = _parts.few(whole, 10)
    assert (len(part.train), len(part.validation)) == (10, 5)
    X, y = next(part.train.batches(10))
    everything, labels = next(whole.train.batches(10))
    assert torch.equal(X, everything)
    assert torch.equal(y, labels)


def test_enlarged_digits_hold_the_same_picture() -> None:
    pixels, labels = _parts.digit_images()
    assert pixels.shape == (1797, 1, 8, 8)
    assert len(labels) == 1797
    task = _parts.photographs(None)
    large = task.train.inputs
    assert large.shape[1:] == (3, 32, 32)
    assert torch.equal(large[:, 0], large[:, 2])
    small = large[:, 0, ::4, ::4]
    assert torch.equal(small.repeat_interleave(4, 1).repeat_interleave(4, 2), large[:, 0])
    known = {image.tobytes() for image in pixels[:, 0]}
    assert all(image.numpy().tobytes() in known for image in small.contiguous())


def test_the_seed_draws_the_splits() -> None:
    makers: tuple[Callable[[int], Task], ...] = (
        lambda seed: _parts.pictures(None, seed=seed),
        lambda seed: anomaly.task(seed=seed),
        lambda seed: tactics.study(seed=seed).load_task(),
        lambda seed: relations.study(seed=seed).load_task(),
    )
    for make in makers:
        first, second = (make(seed).validation.arrays()[0] for seed in (0, 1))
        assert not np.array_equal(first, second)
