"""Trials grouped by configuration: what was measured, is running or failed."""

from __future__ import annotations

import json

import optuna
from optuna.distributions import FloatDistribution, IntDistribution
from optuna.trial import TrialState, create_trial

from joulefront.search.samplers.history import CLAIM, History, constraints_of

SPACE = {"x": FloatDistribution(0, 1), "epochs": IntDistribution(1, 27)}


def trial(number: int, x: float, epochs: int, values: list[float] | None, **more: object) -> optuna.trial.FrozenTrial:
    state = more.pop("state", TrialState.COMPLETE)
    made = create_trial(state=state, params={"x": x, "epochs": epochs}, distributions=SPACE, values=values, **more)  # type: ignore[arg-type]
    made.number = number
    return made


def test_a_claim_is_known_before_its_parameters_are() -> None:
    claim = {"key": "k", "params": {"x": 0.1}, "epochs": 9}
    running = trial(0, 0.9, 1, None, state=TrialState.RUNNING, system_attrs={CLAIM: claim})
    history = History(None, "epochs")
    history.update([running])
    assert [(found.key, found.epochs) for found in history.running] == [("k", 9)]
    history.update([running], exclude=0)
    assert history.running == ()


def test_failed_and_infinite_trials_are_failures() -> None:
    history = History(None, "epochs")
    history.update([trial(0, 0.1, 1, None, state=TrialState.FAIL), trial(1, 0.2, 1, [float("inf"), 1.0]), trial(2, 0.3, 1, [0.5, 1.0])])
    assert len(history.failed) == 2
    assert len(history.observations) == 1


def test_what_failed_and_was_trained_when_it_was_tried_again_is_no_failure() -> None:
    history = History(None, "epochs")
    history.update([trial(0, 0.1, 3, None, state=TrialState.FAIL), trial(1, 0.1, 1, [0.5, 1.0])])
    assert len(history.failed) == 1, "shorter, it worked before as well"
    history.update([trial(2, 0.1, 3, [0.6, 3.0])])
    assert not history.failed


def test_both_ways_to_set_constraints_are_read() -> None:
    frozen = trial(0, 0.1, 1, [0.5, 1.0], system_attrs={"constraints": [0.5, -1.0], "constraints:memory": 2.0})
    assert constraints_of(frozen) == {"0": 0.5, "1": -1.0, "memory": 2.0}


def test_only_failures_of_the_configuration_itself_exclude_it() -> None:
    attributes = [None, {"excused": "killed"}, {"excused": "ended"}]
    failed = [trial(i, i / 4, 3, None, state=TrialState.FAIL, user_attrs=found or {}) for i, found in enumerate(attributes)]
    history = History(None, "epochs")
    history.update(failed)
    assert history.failed == {json.dumps({"x": 0.0})}
    assert len(history.params) == 3


def test_a_configuration_that_is_killed_repeatedly_at_the_same_epochs_counts_as_failed() -> None:
    def killed(number: int, epochs: int) -> optuna.trial.FrozenTrial:
        return trial(number, 0.5, epochs, None, state=TrialState.FAIL, user_attrs={"excused": "killed"})

    history = History(None, "epochs")
    history.update([killed(0, 3), killed(1, 3), killed(2, 9), killed(3, 9)])
    assert not history.failed
    history.update([killed(4, 9)])
    assert history.failed == {json.dumps({"x": 0.5})}


def test_sessions_that_end_during_a_training_never_make_it_failed() -> None:
    history = History(None, "epochs")
    history.update([trial(i, 0.5, 9, None, state=TrialState.FAIL, user_attrs={"excused": "ended"}) for i in range(5)])
    assert not history.failed


def test_a_copy_never_takes_the_place_of_the_trial_that_was_trained() -> None:
    history = History(None, "epochs")
    history.update([trial(0, 0.5, 1, [0.5, 1.0]), trial(1, 0.5, 1, [0.5, 1.0])])
    longest = history.longest(json.dumps({"x": 0.5}))
    assert longest is not None
    assert longest.number == 0


def test_the_energy_may_stand_anywhere_among_the_objectives() -> None:
    history = History(None, "epochs", energy=2)
    history.update([trial(0, 0.5, 1, [0.5, 1000.0, 7.0])])
    assert history.observations[json.dumps({"x": 0.5})][1].values == (0.5, 7.0, 1000.0)


def test_what_ended_before_the_requested_epochs_continues_only_from_a_checkpoint() -> None:
    history = History(None, "epochs")
    early = {"epochs_reached": 4}
    history.update(
        [trial(0, 0.5, 9, [0.5, 1.0], user_attrs=early), trial(1, 0.2, 9, [0.5, 1.0], user_attrs={**early, "from_scratch": True})]
    )
    climbs, scratch = (json.dumps({"x": x}) for x in (0.5, 0.2))
    assert [history.trained_to(key, resume=True) for key in (climbs, scratch)] == [4, 9]
    assert [history.trained_to(key, resume=False) for key in (climbs, scratch)] == [9, 9]
    history.update([trial(2, 0.2, 27, [0.5, 1.0], user_attrs={**early, "from_scratch": True})])  # at 4 epochs once more
    assert history.trained_to(scratch, resume=True) == 27
    assert [history.resumable(key, resume=True) for key in (climbs, scratch)] == [True, False]


def test_the_longest_training_of_a_configuration_is_that_with_the_most_epochs() -> None:
    history = History(None, "epochs")
    history.update([trial(0, 0.5, 1, [0.1, 1.0]), trial(1, 0.2, 1, [0.2, 1.5]), trial(2, 0.5, 3, [0.4, 3.0])])
    longest = history.longest(json.dumps({"x": 0.5}))
    assert longest is not None
    assert longest.number == 2
