"""Energy in an Optuna study of one's own: what a trial took, a budget, and an end when the rest is not worth it."""

import math
import subprocess
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest

from joulefront.search.energy import Discovery
from joulefront.search.integrations import optuna as integration
from joulefront.search.integrations.metering import EnergyUnknownError
from joulefront.search.integrations.optuna import EnergyBudgetCallback, MarginalGainCallback, energy_trial
from joulefront.search.samplers import FreezeThawSampler, resume_from
from joulefront.search.samplers.history import RESUME_FROM

ROOT = Path(__file__).parents[3]
HUB = ROOT / "studies" / "integrations" / "optunahub"


def burn(seconds: float) -> None:
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def two_objectives(sampler: Any = None) -> optuna.Study:
    return optuna.create_study(directions=["maximize", "minimize"], sampler=sampler or optuna.samplers.RandomSampler(seed=0))


def measured(seconds: float = 0.05) -> Callable[[optuna.Trial], tuple[float, float]]:
    def objective(trial: optuna.Trial) -> tuple[float, float]:
        with energy_trial(trial, "cpu_time") as energy:
            burn(seconds)
        return trial.suggest_float("x", 0, 1), energy.joules

    return objective


def test_a_trial_has_its_energy_with_unit_and_provenance() -> None:
    study = two_objectives()
    study.optimize(measured(), n_trials=1)
    (trial,) = study.trials
    facts = trial.user_attrs
    assert facts["energy_joules"] == trial.values[1] > 0
    assert facts["energy_wh"] == pytest.approx(trial.values[1] / 3600)
    assert (facts["energy_quality"], facts["energy_meters"], facts["energy_attribution"]) == ("estimated", "cpu_time", "exclusive")
    assert facts["energy_cpu_seconds"] == pytest.approx(0.05, rel=0.5)
    assert facts["energy_joules_from_scratch"] == facts["energy_joules"]
    assert facts["energy_u_systematic_joules"] > 0
    assert facts["energy_hardware_id"]


@pytest.mark.slow
def test_trials_at_the_same_time_have_what_their_own_threads_used() -> None:
    study = two_objectives()

    def objective(trial: optuna.Trial) -> tuple[float, float]:
        with energy_trial(trial, "cpu_time") as energy:
            burn(0.1 if trial.number % 2 else 0.4)
        return 0.0, energy.joules

    begin = time.process_time()
    study.optimize(objective, n_trials=4, n_jobs=2)
    used = time.process_time() - begin
    seconds = {trial.number: trial.user_attrs["energy_cpu_seconds"] for trial in study.trials}
    watts = [trial.values[1] / seconds[trial.number] for trial in study.trials]
    assert max(watts) == pytest.approx(min(watts), rel=0.25)
    assert all(seconds[number] >= 0.8 * (0.1 if number % 2 else 0.4) for number in seconds)
    assert sum(seconds.values()) <= used * 1.05
    assert max(seconds[1], seconds[3]) < min(seconds[0], seconds[2])


@pytest.mark.parametrize(("error", "state"), [(ValueError("no"), "failed"), (optuna.TrialPruned(), "pruned")])
def test_what_fails_or_is_pruned_is_measured_too(error: Exception, state: str) -> None:
    study = optuna.create_study(directions=["maximize", "minimize"])

    def objective(trial: optuna.Trial) -> tuple[float, float]:
        with energy_trial(trial, "cpu_time"):
            burn(0.02)
            raise error
        return 0.0, 0.0

    study.optimize(objective, n_trials=1, catch=(ValueError,))
    assert study.trials[0].user_attrs["energy_joules"] > 0
    assert study.trials[0].user_attrs["energy_state"] == state


def test_a_trial_whose_device_is_lost_keeps_its_energy_and_its_own_error(monkeypatch: pytest.MonkeyPatch) -> None:
    study, lost, seen = two_objectives(), list[int](), list[BaseException]()

    def synchronize() -> None:
        if lost:
            raise RuntimeError("device-side assert")

    monkeypatch.setattr(integration, "synchronize", synchronize)

    def objective(trial: optuna.Trial) -> tuple[float, float]:
        lost.clear()
        try:
            with energy_trial(trial, "cpu_time"):
                burn(0.02)
                lost.append(1)
                if trial.number == 0:
                    raise ValueError("loss is nan")
        except Exception as error:
            seen.append(error)
            raise
        return 0.0, 0.0

    study.optimize(objective, n_trials=2, catch=(Exception,))
    assert [trial.state.name for trial in study.trials] == ["FAIL", "FAIL"]
    own = [trial.user_attrs["energy_joules"] for trial in study.trials]
    assert min(own) > 0
    assert EnergyBudgetCallback("5Wh").spent(study) == pytest.approx(sum(own))
    assert [str(error) for error in seen] == ["loss is nan", "device-side assert"]
    assert "device-side assert" in seen[0].__notes__[0]


@pytest.mark.slow
def test_several_blocks_in_one_trial_add_up_and_a_trial_that_is_tried_again_has_its_own() -> None:
    study, blocks = two_objectives(), list[Any]()

    def objective(trial: optuna.Trial) -> tuple[float, float]:
        blocks.clear()
        for _ in range(3):
            with energy_trial(trial, "cpu_time") as energy:
                burn(0.02)
            blocks.append(energy)
        return 0.0, energy.joules_from_scratch

    study.optimize(objective, n_trials=1)
    first = study.trials[0].user_attrs
    study.enqueue_trial({}, user_attrs={name: value for name, value in first.items() if name != RESUME_FROM})  # as optuna's retry does
    assert EnergyBudgetCallback("5Wh").spent(study) == first["energy_joules"]  # the one that waits has spent nothing yet
    study.optimize(objective, n_trials=1)
    facts, records = study.trials[1].user_attrs, [energy.record for energy in blocks]
    assert facts["energy_joules"] == pytest.approx(sum(energy.joules for energy in blocks))
    assert facts["energy_joules"] == facts["energy_joules_from_scratch"] == study.trials[1].values[1]
    assert facts["energy_seconds"] == pytest.approx(sum(record.seconds for record in records))
    assert facts["energy_u_random_joules"] == pytest.approx(math.hypot(*(record.u_random_joules for record in records)))
    assert facts["energy_state"] == "ok"
    assert EnergyBudgetCallback("5Wh").spent(study) == pytest.approx(first["energy_joules"] + facts["energy_joules"])


def test_a_block_within_another_of_the_same_trial_is_a_part_of_it_and_is_counted_once() -> None:
    study, within = two_objectives(), list[float]()

    def objective(trial: optuna.Trial) -> tuple[float, float]:
        with energy_trial(trial, "cpu_time"):
            burn(0.02)
        with energy_trial(trial, "cpu_time") as outer:
            for _ in range(2):
                with energy_trial(trial, "cpu_time") as inner:
                    burn(0.02)
                within.append(inner.joules)
        return outer.joules, 0.0

    study.optimize(objective, n_trials=1)
    facts, outer = study.trials[0].user_attrs, study.trials[0].values[0]
    assert all(joules > 0 for joules in within)
    assert sum(within) <= outer < facts["energy_joules"] == facts["energy_joules_from_scratch"] < 2 * outer


def test_a_meter_that_is_unknown_ends_the_study_at_its_first_trial() -> None:
    study = two_objectives()

    def objective(trial: optuna.Trial) -> tuple[float, float]:
        with energy_trial(trial, "no_meter"):
            raise AssertionError("trained")

    study.optimize(objective, n_trials=5, catch=(ValueError,))
    assert len(study.trials) == 1


def test_a_study_of_one_objective_is_refused_before_the_first_training() -> None:
    trained = []

    def objective(trial: optuna.Trial) -> float:
        with energy_trial(trial, "cpu_time"):
            trained.append(trial.number)
        return 0.0

    with pytest.raises(
        ValueError, match=r'must have two or more objectives.*got 1; create it with .*directions=\["maximize", "minimize"\]'
    ):
        optuna.create_study().optimize(objective, n_trials=2)
    caught = optuna.create_study()
    caught.optimize(objective, n_trials=9, catch=(Exception,))  # said once
    assert (trained, len(caught.trials)) == ([], 1)


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_machine_without_a_meter_is_said_once_before_the_first_training_with_the_remedy(jobs: int) -> None:
    study, trained = two_objectives(), []

    def objective(trial: optuna.Trial) -> tuple[float, float]:
        with energy_trial(trial, Discovery((), ())) as energy:
            trained.append(trial.number)
        return 0.0, energy.joules

    study.optimize(objective, n_trials=20, n_jobs=jobs, catch=(EnergyUnknownError,))
    assert trained == []
    assert len(study.trials) <= jobs
    with pytest.raises(EnergyUnknownError, match=r"got none on this machine; .*--meter auto,wall=.*joulefront doctor"):
        study.optimize(objective, n_trials=3)


def test_the_energy_is_read_after_the_block_only() -> None:
    trial = two_objectives().ask()
    with energy_trial(trial, "cpu_time") as energy, pytest.raises(RuntimeError, match="must be read after"):
        _ = energy.joules
    assert energy.wh == energy.joules / 3600
    with energy_trial(optuna.trial.FixedTrial({"x": 1.0}), "cpu_time") as energy:  # no study: the best parameters again
        pass
    assert energy.joules >= 0


@pytest.mark.slow
def test_a_budget_ends_the_study_and_holds_when_it_goes_on() -> None:
    study = two_objectives()
    study.optimize(measured(0.05), n_trials=50, callbacks=[EnergyBudgetCallback("0.2J")])
    joules = [trial.values[1] for trial in study.trials]
    assert sum(joules) >= 0.2 > sum(joules[:-1])
    assert study.user_attrs["stopped_because"].startswith("the budget of 0.2J is spent (")
    before = len(study.trials)
    study.optimize(measured(0.05), n_trials=50, callbacks=[EnergyBudgetCallback("0.2J")])
    assert len(study.trials) == before + 1


@pytest.mark.parametrize("text", ["5", "0Wh", "-1Wh", "3EUR", "20gCO2e", "much"])
def test_a_budget_that_is_no_energy_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="budget"):
        EnergyBudgetCallback(text)


def test_a_budget_over_trials_that_nobody_measured_is_an_error() -> None:
    study = two_objectives()
    with pytest.raises(EnergyUnknownError, match="energy of trial 0 must be known"):
        study.optimize(lambda trial: (0.0, 1.0), n_trials=2, callbacks=[EnergyBudgetCallback("5Wh")])


def saturating(trial: optuna.Trial) -> tuple[float, float]:
    epochs = trial.suggest_int("epochs", 1, 4)
    return min(0.9, 0.5 + trial.suggest_float("x", 0, 1)), float(epochs)


def test_a_study_ends_when_the_rest_is_not_worth_it() -> None:
    study = two_objectives(FreezeThawSampler(rungs=[1, 2, 4], seed=0))
    study.optimize(saturating, n_trials=60, callbacks=[MarginalGainCallback("90%", remaining=0.5)])
    assert 8 <= len(study.trials) < 60
    assert "to the hypervolume, less than 90.00%" in study.user_attrs["stopped_because"]


def test_marginal_gain_needs_a_sampler_that_looks_ahead_and_a_share() -> None:
    with pytest.raises(ValueError, match="got RandomSampler; create the study with"):
        two_objectives().optimize(saturating, n_trials=2, callbacks=[MarginalGainCallback()])
    with pytest.raises(ValueError, match=r"^share must be a share between 0 and 1 or a percentage, got 'lots'"):
        MarginalGainCallback("lots")
    with pytest.raises(ValueError, match=r"^share must be a share between 0 and 1 or a percentage, got 2.0"):
        MarginalGainCallback(2.0)


@pytest.mark.parametrize("left", [-5.0, float("nan"), float("inf"), lambda study: "5J", lambda study: True])
def test_what_remains_is_a_finite_number_from_zero(left: Any) -> None:
    with pytest.raises(ValueError, match=r"remaining must be (a finite number >= 0|float)"):
        two_objectives(FreezeThawSampler(rungs=[1, 2, 4])).optimize(saturating, 1, callbacks=[MarginalGainCallback(remaining=left)])


def test_a_lineage_costs_what_all_its_trainings_took() -> None:
    study = two_objectives()

    def objective(trial: optuna.Trial) -> tuple[float, float]:
        if trial.number:
            trial.set_user_attr(RESUME_FROM, trial.number - 1)  # as the sampler does
        with energy_trial(trial, "cpu_time") as energy:
            burn(0.02)
        return 0.0, energy.joules_from_scratch

    study.optimize(objective, n_trials=3)
    own = [trial.user_attrs["energy_joules"] for trial in study.trials]
    assert [resume_from(trial) for trial in study.trials] == [None, 0, 1]
    assert [trial.values[1] for trial in study.trials] == pytest.approx([own[0], own[0] + own[1], sum(own)])
    assert study.trials[2].user_attrs["energy_joules_from_scratch"] == study.trials[2].values[1]


def test_a_continuation_of_a_trial_that_nobody_measured_is_refused_before_it_is_trained() -> None:
    study, trained = two_objectives(), []
    study.add_trial(optuna.trial.create_trial(values=[0.0, 1.0]))
    trial = study.ask()
    trial.set_user_attr(RESUME_FROM, 0)
    with pytest.raises(EnergyUnknownError, match="continues trial 0, whose energy must be known"), energy_trial(trial, "cpu_time"):
        trained.append(1)
    assert trained == []


@pytest.mark.slow
def test_the_package_for_optunahub_loads_and_its_example_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    optunahub = pytest.importorskip("optunahub", reason="optunahub is not installed (pip install optunahub)")
    module = optunahub.load_local_module("samplers/freeze_thaw", registry_root=str(HUB))
    assert module.FreezeThawSampler is FreezeThawSampler
    stand_in = types.ModuleType("optunahub")
    stand_in.load_module = lambda package: module  # type: ignore[attr-defined]  # without the network
    monkeypatch.setitem(sys.modules, "optunahub", stand_in)
    file = HUB / "samplers" / "freeze_thaw" / "example.py"
    exec(compile(file.read_text(encoding="utf-8"), str(file), "exec"), {"__name__": "__main__"})
    assert " J (" in capsys.readouterr().out


@pytest.mark.slow
def test_the_script_runs_in_at_most_25_lines() -> None:
    file = ROOT / "studies" / "integrations" / "optuna_trials.py"
    assert len(file.read_text(encoding="utf-8").splitlines()) <= 25
    # A fresh interpreter: other tests silence Optuna's log in the process that others are forked from.
    done = subprocess.run([sys.executable, str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert " J estimated" in done.stdout or " J measured" in done.stdout
    assert "The study ends: the budget of 0.3mWh is spent" in done.stderr


@pytest.mark.slow
def test_the_energy_of_the_parent_counts_also_where_the_parameters_are_suggested_within_the_block() -> None:
    study = two_objectives(FreezeThawSampler([1, 3, 9]))

    def objective(trial: Any) -> tuple[float, float]:
        with energy_trial(trial, "cpu_time") as energy:
            x, epochs = trial.suggest_float("x", 0, 1), trial.suggest_int("epochs", 1, 9)
            burn(0.01)
        return 1 - (x - 0.3) ** 2 - 0.3 / epochs, energy.joules_from_scratch

    study.optimize(objective, 14)
    resumed = [trial for trial in study.trials if resume_from(trial) is not None]
    assert resumed
    for trial in resumed:
        parent = study.trials[resume_from(trial) or 0]
        assert trial.values[1] > parent.values[1]


def test_an_error_that_optuna_drops_is_kept_in_the_study() -> None:
    study = optuna.create_study(directions=["maximize", "minimize"])
    study.optimize(lambda trial: (1.0, 2.0), n_trials=2, n_jobs=2, callbacks=[EnergyBudgetCallback("5Wh")])  # raises nothing
    assert "the energy of trial" in study.user_attrs["stopped_because"]


def test_what_would_search_for_more_energy_or_lose_a_gpu_is_said() -> None:
    study = optuna.create_study(directions=["maximize", "maximize"])
    with pytest.warns(UserWarning, match="all objectives of the study are maximised.*direction minimize"):
        study.optimize(measured(0.0), n_trials=1)
    gpu = types.SimpleNamespace(component="gpu:GPU-1a2b", available=True, counts=True)
    source = types.SimpleNamespace(probe=lambda: (gpu,), close=lambda: None)
    for devices in ("gpu:GPU-1a2b", ["gpu:0"]):
        block = energy_trial(two_objectives().ask(), Discovery((source,), ()), devices=devices)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="devices must be a list of gpu:GPU-1a2b, got"), block:
            pass


def test_a_budget_is_told_to_who_asks_and_tells_and_must_have_a_unit() -> None:
    study = two_objectives()
    trial = study.ask()
    with energy_trial(trial, "cpu_time") as energy:
        burn(0.02)
    study.tell(trial, [1.0, energy.joules])
    EnergyBudgetCallback("1µJ")(study, study.trials[0])
    assert "the budget of 1µJ is spent" in study.user_attrs["stopped_because"]
    with pytest.raises(ValueError, match="budget '5' has no unit"):
        EnergyBudgetCallback(5)  # type: ignore[arg-type]
