"""Rank correlations against obvious oracles, one point a model."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from pathlib import Path

import pytest
from helpers.trials import changed, make_trial
from hypothesis import given, settings
from hypothesis import strategies as st

from joulefront.search.records.run_folder import Run
from joulefront.search.records.trial import ComponentEnergy, Trial
from joulefront.search.report.energy_relations import (
    POOLED,
    by_construction,
    cpu_utilisation,
    draw_relations,
    family_of,
    operation_cells,
    operation_costs,
    p_text,
    relations,
    relations_figure,
    spearman,
    to_text,
)
from joulefront.search.report.sections import relations_section


def ranks(values: list[float]) -> list[float]:
    return [sum(other < value for other in values) + (sum(other == value for other in values) + 1) / 2 for value in values]


def pearson(x: list[float], y: list[float]) -> float:
    mx, my = sum(x) / len(x), sum(y) / len(y)
    top = sum((a - mx) * (b - my) for a, b in zip(x, y, strict=True))
    return float(top / (sum((a - mx) ** 2 for a in x) * sum((b - my) ** 2 for b in y)) ** 0.5)


small = st.integers(0, 5).map(float)


@pytest.mark.slow
@given(st.lists(st.tuples(small, small), min_size=3, max_size=6))
@settings(max_examples=100, deadline=None)
def test_spearman_and_its_exact_p_value_equal_the_definition(pairs: list[tuple[float, float]]) -> None:
    x, y = [a for a, _ in pairs], [b for _, b in pairs]
    rho, p_value = spearman(pairs)
    if len(set(x)) < 2 or len(set(y)) < 2:
        assert rho is None
        return
    expected = pearson(ranks(x), ranks(y))
    assert rho == pytest.approx(expected)
    orders = [abs(pearson(ranks(x), list(order))) for order in permutations(ranks(y))]
    assert p_value == pytest.approx(sum(one >= abs(expected) - 1e-9 for one in orders) / len(orders))


def test_three_points_in_a_row_prove_little_and_two_nothing() -> None:
    assert spearman([(1, 1), (2, 2), (3, 3)]) == (pytest.approx(1.0), pytest.approx(1 / 3))
    assert spearman([(1, 1), (2, 2)]) == (None, None)
    rho, p_value = spearman([(float(n), float(n)) for n in range(20)])
    assert rho == pytest.approx(1.0)
    assert p_text(p_value) == "< 0.0001"


def test_a_lineage_is_one_point_and_epochs_do_not_stand_for_everything(fake_run: Run) -> None:
    found = {(one.predictor, one.family): one for one in relations(fake_run)}
    measured = [trial for trial in fake_run.trials if trial.state == "complete"]
    configurations = {str(trial.params) for trial in measured}
    assert found["FLOPs of a forward pass", POOLED].n == len(configurations) < len(measured)
    families = {one.family for one in found.values()} - {POOLED}
    assert families == {family_of(trial) for trial in measured}
    assert sum(found["FLOPs of a forward pass", family].n for family in families) == len(configurations)
    assert found["parameters", "mlp"].n < found["FLOPs of a forward pass", "mlp"].n  # unknown is left out, not zero
    assert "Spearman" in to_text(found.values())


def test_energy_is_taken_by_epoch_and_from_the_longest_training_of_a_model(fake_run: Run) -> None:
    trials = []
    for width in (1, 2, 3, 4, 5):
        for epochs, per_epoch in ((1, 100.0 - width), (30 - 5 * width, 10.0 * width)):  # start-up dominates the first epoch
            facts = {"values": (0.5, 1.0), "train_joules": per_epoch * epochs, "flops": width, "hardware_id": "a"}
            trials.append(make_trial(len(trials), "complete", {"width": width}, epochs, **facts))
    members = {"values": (0.9, 1e9), "train_joules": 1e9, "flops": 1, "extra": {"members": [0, 1]}, "hardware_id": "a"}
    trials.append(make_trial(len(trials), "complete", {"family": "ensemble"}, 9, **members))  # several trainings are none
    (flops,) = [one for one in relations(replace(fake_run, trials=tuple(trials))) if one.predictor.startswith("FLOPs")]
    assert (flops.n, flops.rho) == (5, pytest.approx(1.0))


def test_the_family_is_read_from_any_of_its_names() -> None:
    def of(**params: str) -> str:
        return family_of(Trial(0, "complete", params, 1))

    assert of(family="vit", model="x") == "vit"
    assert of(**{"timm.model": "resnet18"}) == "resnet18"
    assert of(estimator="forest") == "forest"
    assert of(lr="1") == "one family"


def test_energies_of_two_machines_are_not_correlated_as_one(fake_run: Run) -> None:
    other = replace(fake_run, trials=tuple(changed(trial, hardware_id="zzz") for trial in fake_run.trials))
    with pytest.raises(ValueError, match="one machine, got trials of a1b2c3, zzz"):
        relations(replace(fake_run, trials=fake_run.trials + other.trials))


def test_the_energy_of_an_operation_is_given_by_family_and_its_growth_is_the_exponent_that_made_it(fake_run: Run) -> None:
    trials = []
    for family, exponent in (("linear", 1.0), ("flat", 0.5)):
        for flops in (1_000, 10_000, 100_000):
            epochs, examples = 2, 50
            joules = epochs * (3.0 * flops * examples) ** exponent
            facts = {"train_joules": joules, "flops": flops, "hardware_id": "a", "extra": {"train_examples": examples}}
            trials.append(make_trial(len(trials), "complete", {"family": family, "width": flops}, epochs, (0.5, joules), **facts))
    unknown = replace(trials[0], number=99, params={"family": "linear", "width": 0}, flops=None)
    found = {one.family: one for one in operation_costs(replace(fake_run, trials=(*trials, unknown)))}
    assert {name: one.n for name, one in found.items()} == {"linear": 3, "flat": 3, POOLED: 6}
    assert found["linear"].exponent == pytest.approx(1.0)
    assert found["linear"].joules_per_gflop == found["linear"].high == pytest.approx(1e9)
    assert found["flat"].exponent == pytest.approx(0.5)
    assert found["flat"].low == pytest.approx(1e9 * 15_000_000**-0.5)
    assert [row[-1] for row in operation_cells(found.values()) if row[0] == "flat"] == ["b = 0.50"]
    assert operation_costs(replace(fake_run, trials=(unknown,))) == ()


def test_utilisation_is_a_predictor_where_it_is_known(fake_run: Run) -> None:
    trials = tuple(
        make_trial(
            k,
            "complete",
            {"width": k},
            1,
            (0.5, 1.0 + k),
            train_joules=1.0 + k,
            train_seconds=2.0,
            cpu_seconds=0.5 * k,
            hardware_id="a",
            extra={"threads": 2},
        )
        for k in range(1, 6)
    )
    run = replace(fake_run, trials=trials)
    found = {one.predictor: one for one in relations(run)}
    assert found["CPU utilisation"].rho == pytest.approx(1.0)
    assert "GPU utilisation" not in found, "a predictor that nobody knows is no row"
    assert cpu_utilisation(trials[3]) == pytest.approx(0.5)
    busy = tuple(changed(trial, gpu_utilisation=1.0 - trial.number / 10) for trial in trials)
    found = {one.predictor: one for one in relations(replace(run, trials=busy))}
    assert found["GPU utilisation"].rho == pytest.approx(-1.0)


@pytest.mark.slow
def test_energy_computed_from_seconds_carries_a_warning(fake_run: Run) -> None:
    assert by_construction(fake_run) is None
    parts = {"cpu": ComponentEnergy(1.0, "estimated", "cpu_time")}
    estimated = replace(fake_run, trials=tuple(changed(trial, components=parts) for trial in fake_run.trials))
    assert "by construction" in str(by_construction(estimated))
    found = relations_section(estimated)
    assert found is not None
    assert "by construction" in found.lines[0]


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["png", "svg"])
def test_the_picture_of_the_relations_has_a_panel_for_what_is_known_and_is_the_same_file_again(
    fake_run: Run, tmp_path: Path, ending: str
) -> None:
    facts = {"threads": 1, "train_examples": 100}
    run = replace(fake_run, trials=tuple(changed(trial, extra=facts, cpu_seconds=1.0 + trial.number) for trial in fake_run.trials))
    assert len(relations_figure(run, relations(run)).axes) == 3
    assert len(relations_figure(fake_run, relations(fake_run)).axes) == 1, "operations of an epoch and utilisation are unknown"
    text, first = draw_relations(run, tmp_path / f"a.{ending}")
    _, second = draw_relations(run, tmp_path / f"b.{ending}")
    assert first.read_bytes() == second.read_bytes()
    assert "J per GFLOP" in text
