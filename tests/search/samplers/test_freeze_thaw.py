"""The sampler as Optuna sees it: what it proposes, continues, avoids and repeats."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from joulefront.search.samplers import FreezeThawSampler, resume_from
from joulefront.search.samplers.acquisition import dominated_volume

pytestmark = pytest.mark.slow

Search = Callable[..., optuna.Study]
Searched = Callable[[int], optuna.Study]
Objective = Callable[[optuna.Trial], tuple[float, float]]
RUNGS = [1, 3, 9, 27]


def points_of(study: optuna.Study) -> list[str]:
    return [str(sorted(trial.params.items())) for trial in study.trials]


def test_a_continuation_has_the_parameters_of_its_parent_and_the_next_rung(searched: Searched) -> None:
    study = searched(40)
    continued = [trial for trial in study.trials if resume_from(trial) is not None]
    assert len(continued) >= 6
    for trial in continued:
        parent = study.trials[resume_from(trial)]  # type: ignore[index]
        assert {**parent.params, "epochs": 0} == {**trial.params, "epochs": 0}
        assert RUNGS.index(trial.params["epochs"]) == RUNGS.index(parent.params["epochs"]) + 1
    assert all(trial.params["epochs"] == 1 for trial in study.trials if resume_from(trial) is None)


def test_the_objective_itself_reads_what_it_continues(search: Search, objective: Objective) -> None:
    parents: dict[int, int | None] = {}

    def records(trial: optuna.Trial) -> tuple[float, float]:
        values = objective(trial)
        parents[trial.number] = resume_from(trial)
        return values

    study = search(25, objective=records)
    assert parents == {trial.number: resume_from(trial) for trial in study.trials}
    assert any(number is not None for number in parents.values())


def test_without_checkpoints_it_jumps_and_continues_nothing(search: Search) -> None:
    study = search(40, resume=False)
    assert all(resume_from(trial) is None for trial in study.trials)
    fresh = {}
    for trial in study.trials:
        fresh.setdefault(str(sorted({**trial.params, "epochs": 0}.items())), trial.params["epochs"])
    assert any(epochs > 1 for epochs in fresh.values()), "no configuration went straight to a higher rung"


def test_nothing_is_trained_twice(searched: Searched) -> None:
    points = points_of(searched(70))
    assert len(set(points)) == len(points)


def test_equal_seeds_repeat_and_other_seeds_do_not(search: Search, searched: Searched) -> None:
    assert points_of(search(22, seed=0)) == points_of(searched(22))
    assert points_of(search(9, seed=3)) != points_of(search(9, seed=4))
    assert points_of(search(9, seed=None)) != points_of(search(9, seed=None))


@pytest.mark.parametrize(
    ("directions", "change"),
    [(("minimize", "minimize"), lambda q, e: (1 - q, e)), (("maximize", "minimize"), lambda q, e: (100 * q, e / 3.6e6))],
)
def test_neither_direction_nor_unit_changes_what_is_trained(
    search: Search, searched: Searched, objective: Objective, directions: Any, change: Any
) -> None:
    other = search(22, objective=lambda trial: change(*objective(trial)), directions=directions)
    assert points_of(other) == points_of(searched(22))


def test_it_finds_a_better_front_than_random_search_for_the_same_energy(search: Search, searched: Searched, objective: Objective) -> None:
    def volume(study: optuna.Study, budget: float) -> float:
        spent, seen = 0.0, []
        for trial in study.trials:
            parent = resume_from(trial)
            spent += trial.values[1] - (study.trials[parent].values[1] if parent is not None else 0.0)
            if spent > budget:
                break
            seen.append((trial.values[0], -np.log10(trial.values[1])))
        return dominated_volume(np.array(seen), np.array([0.3, -np.log10(2160.0)]))

    ours = [searched(70), search(70, seed=1)]
    budget = 8000.0
    random = []
    for seed in range(6):
        study = optuna.create_study(directions=["maximize", "minimize"], sampler=optuna.samplers.RandomSampler(seed=seed))
        study.optimize(objective, 60)
        random.append(volume(study, budget))
    assert min(volume(study, budget) for study in ours) > max(random)


def test_a_failed_configuration_is_not_tried_again_and_is_no_point(search: Search, objective: Objective) -> None:
    def breaks(trial: optuna.Trial) -> tuple[float, float]:
        values = objective(trial)
        if trial.params["kind"] == "mlp" and trial.params["lr"] > 0.01:
            raise RuntimeError("out of memory")
        return values

    study = search(50, objective=breaks, catch=RuntimeError)
    failed = [trial for trial in study.trials if trial.state == TrialState.FAIL]
    assert failed
    keys = [str(sorted({**trial.params, "epochs": 0}.items())) for trial in study.trials]
    for trial in failed:
        assert keys[trial.number] not in keys[trial.number + 1 :]
    later = [trial.state == TrialState.FAIL for trial in study.trials[25:]]
    assert np.mean(later) < 0.25, "it has not learned where trainings fail"


def test_an_infinite_reading_counts_as_failed(search: Search, objective: Objective) -> None:
    def broken_meter(trial: optuna.Trial) -> tuple[float, float]:
        quality, energy = objective(trial)
        return quality, float("-inf") if trial.number == 3 else energy

    study = search(20, objective=broken_meter)
    keys = [str(sorted({**trial.params, "epochs": 0}.items())) for trial in study.trials]
    assert keys.count(keys[3]) == 1


def test_when_everything_fails_it_keeps_trying_without_repeating(search: Search) -> None:
    def fails(trial: optuna.Trial) -> tuple[float, float]:
        trial.suggest_float("x", 0, 1)
        trial.suggest_int("epochs", 1, 27)
        raise RuntimeError("always")

    points = points_of(search(30, objective=fails, catch=RuntimeError))
    assert len(set(points)) == 30


def test_infeasible_models_are_avoided_and_not_continued(search: Search, objective: Objective) -> None:
    def limited(trial: optuna.Trial) -> tuple[float, float]:
        values = objective(trial)
        width = trial.params.get("width", 1 + 7 * trial.params.get("share", 0.0))
        trial.storage.set_trial_system_attr(trial._trial_id, "constraints:width", width - 4.0)
        return values

    study = search(50, objective=limited)
    wide = [trial.params.get("width", 1 + 7 * trial.params.get("share", 0.0)) > 4 for trial in study.trials]
    assert np.mean(wide[:8]) > 0.2, "the problem is too easy to tell"
    assert np.mean(wide[25:]) < 0.2


def test_three_objectives_are_searched_together(search: Search, objective: Objective) -> None:
    def three(trial: optuna.Trial) -> tuple[float, float, float]:
        quality, energy = objective(trial)
        return quality, energy, 1.0 + trial.params["lr"] * 10

    study = search(30, objective=three, directions=("maximize", "minimize", "minimize"))
    assert len(study.best_trials) >= 5
    assert len(set(points_of(study))) == 30


def test_complete_only_pays_for_complete_trainings(search: Search, searched: Searched) -> None:
    def complete(study: optuna.Study) -> int:
        return sum(trial.params["epochs"] == 27 for trial in study.trials[14:])

    assert complete(search(50, complete_only=True)) > complete(searched(50))


def test_configurations_with_one_key_are_one_configuration(search: Search) -> None:
    def objective(trial: optuna.Trial) -> tuple[float, float]:
        a, b = trial.suggest_int("a", 0, 5), trial.suggest_int("b", 0, 5)
        epochs = trial.suggest_int("epochs", 1, 27)
        return (a + b) / 10 - 0.3 / epochs, epochs * (1.0 + a + b)

    study = search(40, objective=objective, key=lambda params: sorted((params["a"], params["b"])))
    seen = [(*sorted((t.params["a"], t.params["b"])), t.params["epochs"]) for t in study.trials]
    assert len(set(seen)) == len(seen)


def test_an_exhausted_space_is_no_error(search: Search) -> None:
    def objective(trial: optuna.Trial) -> tuple[float, float]:
        a, epochs = trial.suggest_int("a", 0, 2), trial.suggest_int("epochs", 1, 3)
        return a / 3 - 0.3 / epochs, epochs * (1.0 + a)

    study = search(12, objective=objective, rungs=[1, 3])
    assert {(t.params["a"], t.params["epochs"]) for t in study.trials} == {(a, e) for a in range(3) for e in (1, 3)}


def test_enqueued_parameters_are_respected(objective: Objective) -> None:
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=FreezeThawSampler(RUNGS))
    study.optimize(objective, 12)
    study.enqueue_trial({"kind": "conv", "epochs": 9})
    study.optimize(objective, 3)
    assert study.trials[12].params["kind"] == "conv"
    assert study.trials[12].params["epochs"] == 9
    assert resume_from(study.trials[12]) is None


def test_what_does_not_fit_the_remaining_energy_is_not_proposed(objective: Objective) -> None:
    sampler = FreezeThawSampler(RUNGS)
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
    study.optimize(objective, 16)
    sampler.remaining = 60.0
    for _ in range(6):
        trial = study.ask()
        quality, energy = objective(trial)
        parent = resume_from(trial)
        assert energy - (study.trials[parent].values[1] if parent is not None else 0.0) <= 60.0 * 1.3
        study.tell(trial, (quality, energy))


def test_features_tell_what_parameters_hide(search: Search) -> None:
    codes = np.random.default_rng(0).permutation(64)

    def objective(trial: optuna.Trial) -> tuple[float, float]:
        x, epochs = trial.suggest_categorical("x", list(range(64))), trial.suggest_int("epochs", 1, 3)
        return 0.9 - 0.01 * abs(codes[x] - 40) - 0.2 / epochs, 10.0 * epochs

    def found(**options: Any) -> list[bool]:
        studies = [search(20, objective=objective, rungs=[1, 3], startup=4, seed=seed, **options) for seed in range(3)]
        return [any(codes[trial.params["x"]] == 40 for trial in study.trials) for study in studies]

    assert all(found(features=lambda params: [float(codes[params["x"]])]))
    assert sum(found()) <= 1


def test_earlier_studies_help_and_never_enter_the_front(search: Search, objective: Objective) -> None:
    earlier = search(40, seed=5)

    def elsewhere(trial: optuna.Trial) -> tuple[float, float]:
        quality, energy = objective(trial)
        return quality - 0.1, 7.0 * energy

    cold = [search(6, objective=elsewhere, seed=s) for s in range(2)]
    warm = [search(6, objective=elsewhere, seed=s, prior_trials=earlier.trials) for s in range(2)]
    assert all(len(study.trials) == 6 for study in warm)
    assert np.mean([max(t.values[0] for t in s.trials) for s in warm]) > np.mean([max(t.values[0] for t in s.trials) for s in cold])


def test_unusable_earlier_studies_are_ignored(search: Search) -> None:
    other = optuna.create_study(directions=["maximize", "minimize"])
    other.optimize(lambda trial: (trial.suggest_float("other", 0, 1), float(trial.suggest_int("epochs", 1, 27))), 10)
    assert len(set(points_of(search(16, prior_trials=[other.trials])))) == 16


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rungs": [3, 1]}, "ascending"),
        ({"rungs": []}, "ascending"),
        ({"rungs": [1, 3], "startup": 1}, "startup"),
    ],
)
def test_wrong_arguments_are_named(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        FreezeThawSampler(**options)


def test_a_single_objective_is_rejected(objective: Objective) -> None:
    study = optuna.create_study(sampler=FreezeThawSampler(RUNGS))
    with pytest.raises(ValueError, match="two or more objectives"):
        study.optimize(lambda trial: objective(trial)[0], 1)


def test_a_pickled_sampler_continues_the_same(search: Search, objective: Objective) -> None:
    def continued(copy: bool) -> list[str]:
        study = search(15)
        study.sampler = pickle.loads(pickle.dumps(study.sampler)) if copy else study.sampler
        study.optimize(objective, 5)
        return points_of(study)

    assert continued(True) == continued(False)


def test_a_parameter_that_only_the_earlier_study_had_does_not_blind_the_search(search, objective):
    def more(trial):
        trial.suggest_float("extra", 0, 1)
        return objective(trial)

    earlier = search(16, objective=more)
    here = search(20, prior_trials=[earlier.trials])
    assert len({(str(trial.params)) for trial in here.trials}) == 20
    assert len({str({name: value for name, value in trial.params.items() if name != "epochs"}) for trial in here.trials}) > 8
    assert "extra" not in here.sampler.last_decision.params


def test_a_conditional_parameter_of_an_earlier_study_is_kept_until_it_is_wanted(search, searched):
    earlier = searched(16)
    here = search(3, prior_trials=[earlier.trials], startup=6)
    space = here.sampler.infer_relative_search_space(here, optuna.trial.create_trial(state=TrialState.RUNNING))
    assert {"kind", "lr", "width", "share"} <= space.keys()


def test_a_sampler_of_two_studies_keeps_them_apart(objective):
    sampler = FreezeThawSampler(RUNGS)
    studies = [optuna.create_study(directions=["maximize", "minimize"], sampler=sampler) for _ in range(2)]
    assert studies[0]._study_id == studies[1]._study_id
    for study in studies:
        study.optimize(objective, 14)
    alone = optuna.create_study(directions=["maximize", "minimize"], sampler=FreezeThawSampler(RUNGS))
    alone.optimize(objective, 14)
    assert points_of(studies[1]) == points_of(alone)


def test_what_a_narrowed_space_does_not_hold_any_more_is_not_continued():
    def made(low):
        def objective(trial):
            x = trial.suggest_float("x", low, 1.0)
            epochs = trial.suggest_int("epochs", RUNGS[0], RUNGS[-1])
            return 1.0 - (x - 0.3) ** 2 - 0.3 / epochs, epochs * (1 + x)

        return objective

    study = optuna.create_study(directions=["maximize", "minimize"], sampler=FreezeThawSampler(RUNGS))
    study.optimize(made(0.0), 14)
    study.optimize(made(0.6), 12)
    later = [trial for trial in study.trials[14:] if trial.user_attrs.get("resume_from") is not None]
    assert later
    assert all(trial.params["x"] == study.trials[trial.user_attrs["resume_from"]].params["x"] for trial in later)


@pytest.mark.parametrize("ask", [lambda t: t.suggest_int("epochs", 1, 5), lambda t: t.suggest_categorical("epochs", [1, 3])])
def test_rungs_that_the_objective_cannot_suggest_are_refused_before_anything_is_trained(ask):
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=FreezeThawSampler(RUNGS))
    with pytest.raises(ValueError, match="rungs must be numbers of epochs that the objective can suggest, got 9"):
        study.optimize(lambda trial: (trial.suggest_float("x", 0, 1), float(ask(trial))), 1)


def test_an_objective_without_epochs_is_told_how_to_suggest_them():
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=FreezeThawSampler(RUNGS))
    said = r"must suggest 'epochs' \(epochs_name\), got 8 trials without; add trial.suggest_int\(\"epochs\", 1, 27"
    with pytest.raises(ValueError, match=said):
        study.optimize(lambda trial: (trial.suggest_float("x", 0, 1), 1.0 + trial.suggest_int("n", 1, 9)), 12)
    assert len(study.get_trials(states=[optuna.trial.TrialState.COMPLETE])) == 8


def test_an_objective_that_returns_before_it_asks_for_epochs_is_none_without_them():
    def early(trial):
        width, depth = trial.suggest_int("width", 8, 1024, log=True), trial.suggest_int("depth", 1, 8)
        if width * width * depth > 200_000:
            return 0.0, 1e4
        epochs = trial.suggest_int("epochs", 1, 9)
        return 1 - 1 / width - 1 / (epochs + 1), width * epochs * 0.01

    study = optuna.create_study(directions=["maximize", "minimize"], sampler=FreezeThawSampler([1.0, 3.0, 9.0], seed=0))
    study.optimize(early, 12)
    assert "epochs" not in study.trials[0].params
    assert sum("epochs" in trial.params for trial in study.trials) > 6


@pytest.mark.parametrize("features", [lambda params: "a", lambda params: [1.0] * (1 + int(params["lr"] > 0.01)), lambda params: [[1.0]]])
def test_features_that_are_no_row_of_numbers_are_refused_with_the_configuration(features, objective):
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=FreezeThawSampler(RUNGS, startup=2, features=features))
    with pytest.raises(ValueError, match=r"features must return numbers, always as many, got .* for \{'kind': "):
        study.optimize(objective, 4)


@pytest.mark.parametrize("ask", [lambda t: t.suggest_int("epochs", 1, 27, log=True), lambda t: t.suggest_categorical("epochs", RUNGS)])
def test_with_a_given_space_the_epochs_may_be_asked_for_in_any_way(ask):
    space = {"x": optuna.distributions.FloatDistribution(0, 1)}
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=FreezeThawSampler(RUNGS, search_space=space))
    study.optimize(lambda trial: (trial.suggest_float("x", 0, 1), float(ask(trial))), 12)
    assert max(trial.params["epochs"] for trial in study.trials) > 1


def test_the_first_trainings_are_at_the_lowest_rung_also_where_shorter_ones_can_be_chosen() -> None:
    def objective(trial: optuna.Trial) -> tuple[float, float]:
        width, epochs = trial.suggest_float("width", 0, 1), trial.suggest_categorical("epochs", [1, 3, 9])
        return width - 1 / epochs, epochs * (1 + width)

    study = optuna.create_study(directions=["maximize", "minimize"], sampler=FreezeThawSampler([3, 9]))
    study.optimize(objective, 3)
    assert [trial.params["epochs"] for trial in study.trials] == [3, 3, 3]


def test_choices_that_are_equal_count_as_one():
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=FreezeThawSampler([1, 3]))

    def objective(trial):
        choice = trial.suggest_categorical("c", [None, True, False, 0, "a", 1])
        return len(str(choice)) / 9, float(trial.suggest_int("epochs", 1, 3))

    study.optimize(objective, 30)
    assert len({str(trial.params) for trial in study.trials}) == 8
    assert study.sampler.exhausted
