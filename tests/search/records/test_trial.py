import json
from typing import Any

import optuna
import pytest
from helpers.trials import make_trial
from hypothesis import given
from hypothesis import strategies as st

from joulefront.search.energy.record import Component, Record
from joulefront.search.records.trial import ATTRIBUTE, ComponentEnergy, Trial, TrialEnergy, from_json, from_optuna, to_json
from joulefront.search.study import objective_values

NUMBER = st.none() | st.floats(0, 1e9, allow_nan=False)


def roundtrip(trial: Trial) -> Trial:
    study = optuna.create_study(directions=["maximize", "minimize"])
    distribution = optuna.distributions.IntDistribution(0, 100)
    study.add_trial(
        optuna.trial.create_trial(
            params={"width": 8, "epochs": trial.epochs},
            distributions={"width": distribution, "epochs": distribution},
            values=[0.5, 1.0],
            user_attrs={ATTRIBUTE: json.loads(json.dumps(trial.facts()))},
        )
    )
    return from_optuna(study.trials[0])


@pytest.mark.slow
@given(train=NUMBER, increment=NUMBER, grams=NUMBER, epochs=st.integers(0, 100), parent=st.none() | st.integers(0, 9))
def test_a_trial_survives_optuna_and_json(train: Any, increment: Any, grams: Any, epochs: int, parent: Any) -> None:
    trial = make_trial(
        number=0,
        state="complete",
        params={"width": 8},
        epochs=epochs,
        values=(0.5, 1.0),
        quality={"accuracy": 0.5},
        train_joules=train,
        increment_joules=increment,
        grams_co2e=grams,
        parent=parent,
        components={"cpu": ComponentEnergy(train, "estimated", "cpu_time")},
        curve=({"epoch": 1, "loss": 2.0},),
    )
    assert roundtrip(trial) == trial


def test_unknown_energy_stays_unknown_and_zero_stays_zero() -> None:
    trial = make_trial(
        number=0, state="complete", params={"width": 8}, epochs=1, values=(0.5, 1.0), train_joules=None, increment_joules=0.0
    )
    again = roundtrip(trial)
    assert again.train_joules is None
    assert again.train_wh is None
    assert again.increment_joules == 0.0


def test_the_reason_of_a_dead_trial_without_facts_is_that_its_process_died() -> None:
    study = optuna.create_study(directions=["maximize", "minimize"])
    study.tell(study.ask(), state=optuna.trial.TrialState.FAIL)
    trial = from_optuna(study.trials[0])
    assert trial.state == "failed"
    assert trial.reason == "the process that trained it died"


def test_objective_values_have_the_order_of_the_objectives_and_an_unknown_one_is_named() -> None:
    trial = make_trial(0, "complete", {}, 1, quality={"accuracy": 0.9, "error": 0.1}, train_joules=5.0, parameters=10)
    assert objective_values(trial, ("error", "train_energy", "parameters")) == ((0.1, 5.0, 10.0), None)
    values, missing = objective_values(trial, ("accuracy", "train_co2"))
    assert values is None
    assert "train_co2" in str(missing)
    assert objective_values(Trial(0, "complete", {}, 1, quality={"accuracy": float("nan")}), ("accuracy",))[0] is None
    lost = {"name": "cpu", "joules": None, "counts": True, "reason": "rapl: permission denied"}
    beside = {"name": "gpu:0", "joules": None, "counts": False, "reason": "held by another trial"}
    unmetered = Trial(0, "complete", {}, 1, energy=TrialEnergy(record={"components": [lost, beside]}))
    _, missing = objective_values(unmetered, ("train_energy",))
    assert missing is not None
    assert missing.endswith("energy absent; cpu: rapl: permission denied)")
    split_up = Component("cpu", None, "cpu_time", "absent", reason="told by no thread")
    epoch = Record("a.1", "epoch 1", None, "epoch", "ok", "", 0, 1, 1e-9, (split_up,))
    _, missing = objective_values(Trial(0, "complete", {}, 1), ("train_energy",), [epoch])
    assert missing is not None
    assert missing.endswith("energy absent; cpu: told by no thread)")  # the trial as a whole may be known


@pytest.mark.parametrize("name", ["accuracy", "train_energy", "inference_energy", "parameters", "r2"])
def test_no_objective_is_ever_a_silent_zero(name: str) -> None:
    assert objective_values(Trial(0, "complete", {}, 1), (name,))[0] is None


def test_an_epoch_without_a_loss_comes_back() -> None:
    """scikit-learn has none, and a network's may be infinite."""
    trial = Trial(0, "complete", {"width": 8}, 1, (0.9, 4.0), curve=({"epoch": 1, "loss": None, "accuracy": 0.9},))
    assert from_json(json.loads(json.dumps(to_json(trial)))) == trial


def test_a_number_of_a_database_that_no_file_holds_is_refused() -> None:
    stored = optuna.trial.create_trial(state=optuna.trial.TrialState.FAIL, user_attrs={ATTRIBUTE: {"epochs": 1, "train_u_joules": 1e154}})
    with pytest.raises(ValueError, match="train_u_joules must be a number that is not out of range, got 1e\\+154"):
        from_optuna(stored)
