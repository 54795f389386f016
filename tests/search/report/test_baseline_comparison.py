"""Families against plain training, on runs whose truth is known."""

from __future__ import annotations

import random
from dataclasses import replace
from math import exp, log

import pytest
from helpers.trials import make_trial

from joulefront.search.cli.read import plot
from joulefront.search.records.run_folder import Run
from joulefront.search.records.trial import ComponentEnergy, Trial
from joulefront.search.report.baseline_comparison import (
    baseline_figure,
    compare_to_baseline,
    draw_comparison,
    groups_of,
    interval_text,
    setting_of,
    spread_text,
    to_text,
)
from joulefront.search.report.energy_relations import draw_relations
from joulefront.search.report.sections import baseline_section

RUNGS = (2, 4, 8)


def quality(joules: float) -> float:
    """What plain training reaches with so much energy."""
    return 0.2 + 0.1 * log(joules)


def make(
    fake_run: Run,
    families: dict[str, tuple[float, float]],
    *,
    repeats: int = 4,
    noise: float = 0.0,
    seed: int = 0,
    rungs: tuple[tuple[int, ...], ...] = (RUNGS, RUNGS, RUNGS),
) -> Run:
    """A run in which a family needs ``x`` times the energy an epoch and, beyond that, loses ``less`` of quality."""
    draw = random.Random(seed)
    trials: list[Trial] = []
    for (family, (factor, less)), own in zip(families.items(), rungs, strict=False):
        for epochs in own:
            for repeat in range(1, repeats + 1):
                joules = 10.0 * epochs * factor
                reached = quality(joules / factor) - less + draw.gauss(0, noise)
                params = {"family": family, "repeat": repeat} | ({} if family == "plain" else {"tactic.some.share": 0.5})
                trials.append(
                    make_trial(
                        len(trials),
                        "complete",
                        params,
                        epochs,
                        (reached, joules),
                        train_joules=joules,
                        evaluation_joules=1.0,
                        hardware_id="a",
                        energy_quality="estimated",
                        components={"cpu": ComponentEnergy(joules, "estimated", "cpu_time")},
                        extra={"asked_epochs": epochs, **({"modelled_asic_energy_ratio": 0.9} if family == "sparse" else {})},
                    )
                )
    return replace(fake_run, trials=tuple(trials), rungs=RUNGS)


def one(run: Run, family: str):  # type: ignore[no-untyped-def]
    (found,) = [comparison for comparison in compare_to_baseline(run) if comparison.family == family]
    return found


@pytest.mark.slow
def test_the_same_quality_for_half_the_energy_is_half(fake_run: Run) -> None:
    found = one(make(fake_run, {"plain": (1.0, 0.0), "half": (0.5, 0.0)}), "half")
    assert found.equal_epochs == pytest.approx(0.5)
    assert found.equal_quality == pytest.approx(0.5)
    assert (found.compared, found.u_log) == (3, 0.0)
    assert found.verdict == "saves"


def test_without_a_repeat_nothing_saves_and_no_spread_is_claimed(fake_run: Run) -> None:
    run = make(fake_run, {"plain": (1.0, 0.0), "half": (0.5, 0.0)}, repeats=1)
    found = one(run, "half")
    assert found.equal_quality == pytest.approx(0.5)
    assert (found.u_log, found.verdict) == (None, "not comparable")
    text = f"{to_text(compare_to_baseline(run))} {spread_text(compare_to_baseline(run))}"
    assert "x 0.50 (no repeats)" in text
    assert "No setting was repeated" in text
    assert interval_text(0.004, 1.5) == "x 0.004 (0.0027 to 0.006)"
    assert "0.0000" not in text


@pytest.mark.slow
def test_more_settings_of_a_family_than_markers_are_drawn(fake_run: Run) -> None:
    run = make(fake_run, {"plain": (1.0, 0.0), "half": (0.5, 0.0)}, repeats=1)
    half = [trial for trial in run.trials if trial.params["family"] == "half"]
    more = [replace(trial, params={**trial.params, "tactic.some.share": share}, number=100 + share) for share in range(8) for trial in half]
    run = replace(run, trials=(*run.trials, *more))
    assert len(baseline_figure(run, compare_to_baseline(run)).axes[0].get_lines()) > 8


def test_cheaper_epochs_that_learn_less_can_cost_more_at_equal_quality(fake_run: Run) -> None:
    # 0.8 of the energy, but 0.05 less quality, for which plain training needs exp(-0.5) of the energy: 0.8 / 0.607 = 1.32
    found = one(make(fake_run, {"plain": (1.0, 0.0), "lossy": (0.8, 0.05)}), "lossy")
    assert found.equal_epochs == pytest.approx(0.8)
    assert found.equal_quality == pytest.approx(0.8 * exp(0.5))
    assert found.compared == 2, "the shortest training lies below what plain training was tried for"
    assert found.verdict == "costs more"


def test_what_plain_training_was_not_tried_for_is_not_compared(fake_run: Run) -> None:
    found = one(make(fake_run, {"plain": (1.0, 0.0), "better": (1.0, -0.5)}), "better")
    assert (found.equal_quality, found.u_log, found.compared, found.verdict) == (None, None, 0, "not comparable")
    assert found.equal_epochs == pytest.approx(1.0)


def test_two_repeats_of_one_setting_hardly_say_how_far_chance_moves_an_energy(fake_run: Run) -> None:
    run = make(fake_run, {"plain": (1.0, 0.0), "half": (0.5, 0.0)}, repeats=1)
    again = [replace(trial, number=90 + trial.number) for trial in run.trials[:1]]
    (first,) = again
    run = replace(run, trials=(*run.trials, replace(first, energy=replace(first.energy, train_joules=1.3 * (first.train_joules or 0.0)))))
    found = one(run, "half")
    assert found.freedom == 1
    assert found.u_log is not None
    assert abs(log(found.equal_quality)) > 2 * found.u_log
    assert found.verdict == "no difference shown", "of two values Student's t asks for 12.7 standard uncertainties"


def test_the_interval_holds_the_truth_nineteen_times_in_twenty_and_chance_is_no_saving(fake_run: Run) -> None:
    inside = shown = n = 0
    for seed in range(200):
        found = one(make(fake_run, {"plain": (1.0, 0.0), "same": (1.0, 0.02), "other": (0.9, 0.0)}, noise=0.015, seed=seed), "same")
        if found.equal_quality is None:
            continue
        n += 1
        inside += abs(log(found.equal_quality) - 0.2) <= log(found.factor)
        shown += found.verdict == "saves"
    assert n > 190
    assert 0.88 <= inside / n <= 0.995
    assert shown / n < 0.02


def test_numbers_of_epochs_that_are_compared_with_one_part_of_the_baseline_share_what_is_unknown_of_it(fake_run: Run) -> None:
    inside = 0
    for seed in range(200):
        run = make(fake_run, {"plain": (1.0, 0.0), "same": (1.0, 0.0)}, noise=0.01, seed=seed, rungs=((2, 16), (4, 5, 6, 7, 8)))
        found = one(run, "same")
        inside += abs(log(found.equal_quality)) <= log(found.factor)
    assert 0.9 <= inside / 200 <= 0.995


def test_repeats_of_one_setting_are_one_group_whatever_early_stopping_left_of_them(fake_run: Run) -> None:
    run = make(fake_run, {"plain": (1.0, 0.0)})
    run = replace(run, trials=tuple(replace(trial, epochs=max(1, trial.epochs - trial.number % 2)) for trial in run.trials))
    assert [(group.epochs, len(group.trials)) for group in groups_of(run)] == [(epochs, 4) for epochs in RUNGS]
    copy = replace(run.trials[0], number=99, extra={"copy_of": 0})
    assert [len(group.trials) for group in groups_of(replace(run, trials=(*run.trials, copy)))] == [4, 4, 4]
    assert setting_of(Trial(0, "complete", {"family": "x", "patience": None, "repeat": 1, "x.schedule": "bar"}, 1)) == (
        "patience none, schedule bar"
    )


def test_an_objective_to_minimise_is_compared_with_the_baseline_the_right_way_round(fake_run: Run) -> None:
    run = make(fake_run, {"plain": (1.0, 0.0), "half": (0.5, 0.0)})
    errors = tuple(replace(trial, values=(1 - trial.values[0], trial.values[1])) for trial in run.trials)
    assert one(replace(run, trials=errors, directions=("minimize", "minimize")), "half").equal_quality == pytest.approx(0.5)


@pytest.mark.slow
def test_the_table_the_picture_and_the_page_agree(fake_run: Run, tmp_path) -> None:  # type: ignore[no-untyped-def]
    run = make(fake_run, {"plain": (1.0, 0.0), "half": (0.5, 0.0), "sparse": (1.1, 0.02)}, noise=0.01)
    text, target = draw_comparison(run, tmp_path / "t.png")
    assert target.stat().st_size > 10_000
    assert "saves" in text
    assert "0.900" in next(line for line in text.splitlines() if line.startswith("sparse"))
    assert text.startswith(to_text(compare_to_baseline(run)))
    assert "95 % interval" in spread_text(compare_to_baseline(run))
    found = baseline_section(run)
    assert found is not None
    assert len(found.tables[0].rows) == 3
    assert baseline_section(fake_run) is None


@pytest.mark.slow
def test_what_cannot_be_compared_is_an_error_of_one_line(fake_run: Run, tmp_path) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match="no measured trial of a family named 'plain'"):
        draw_comparison(fake_run, tmp_path / "t.png")
    with pytest.raises(ValueError, match="--of must be front, relations or tactics, got 'sizes'"):
        plot(fake_run.path, tmp_path / "t.png", of="sizes")
    with pytest.raises(ValueError, match=r"ends in \.png or \.svg"):
        draw_relations(fake_run, tmp_path / "t.html")


def test_the_best_of_an_error_is_the_least(fake_run):
    run = make(fake_run, {"plain": (1.0, 0.0)}, repeats=1)
    errors = tuple(replace(trial, values=(1 - trial.values[0], *trial.values[1:])) for trial in run.trials)
    (found,) = compare_to_baseline(replace(run, trials=errors, directions=("minimize", *run.directions[1:])))
    assert found.best.quality == min(group.quality for group in found.groups)
