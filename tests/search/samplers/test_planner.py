from __future__ import annotations

import json

import numpy as np
import optuna
import pytest
from optuna.distributions import FloatDistribution, IntDistribution
from optuna.trial import TrialState, create_trial

from joulefront.search.samplers.encoding import learn_encoding
from joulefront.search.samplers.history import CLAIM, History, constraints_of
from joulefront.search.samplers.observations import Encoder, ObjectiveTransform, tabulate
from joulefront.search.samplers.surrogates import _select

SPACE = {"x": FloatDistribution(0, 1), "epochs": IntDistribution(1, 27)}


def trial(number: int, x: float, epochs: int, values: list[float] | None, **more: object) -> optuna.trial.FrozenTrial:
    state = more.pop("state", TrialState.COMPLETE)
    made = create_trial(state=state, params={"x": x, "epochs": epochs}, distributions=SPACE, values=values, **more)  # type: ignore[arg-type]
    made.number = number
    return made


def test_lengths_of_one_configuration_belong_together() -> None:
    history = History(None, "epochs")
    history.update([trial(0, 0.5, 1, [0.1, 1.0]), trial(1, 0.2, 1, [0.2, 1.5]), trial(2, 0.5, 3, [0.4, 3.0])])
    table = tabulate(history, Encoder(learn_encoding(list(history.params.values()), history.distributions)), (False, True))
    assert table.longest.tolist() == [3, 1]
    assert table.values[table.longest_row, 0].tolist() == [0.4, 0.2]
    assert table.config.tolist() == [0, 1, 0]
    assert table.values[:, 1] == pytest.approx(-np.log10([1.0, 1.5, 3.0]))
    first = json.dumps({"x": 0.5})
    longest = history.longest(first)
    assert longest is not None
    assert longest.number == 2


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


def test_both_ways_to_set_constraints_are_read() -> None:
    frozen = trial(0, 0.1, 1, [0.5, 1.0], system_attrs={"constraints": [0.5, -1.0], "constraints:memory": 2.0})
    assert constraints_of(frozen) == {"0": 0.5, "1": -1.0, "memory": 2.0}


def test_costs_are_compared_by_logarithm_and_a_measured_zero_survives() -> None:
    values = np.array([[0.5, 0.0, -1.0], [0.6, 10.0, 5.0], [0.7, 1000.0, 6.0]])
    transform = ObjectiveTransform.infer((False, True, True), values)
    assert transform.logarithmic.tolist() == [False, True, False]
    assert transform.apply(values) == pytest.approx(np.array([[0.5, -1.0, 1.0], [0.6, -1.0, -5.0], [0.7, -3.0, -6.0]]))


def test_thousands_of_measurements_are_thinned_and_keep_the_best_and_the_latest() -> None:
    rng = np.random.default_rng(0)
    history = History(None, "epochs")
    history.update([trial(i, float(x), 1 + 2 * (i % 2), [float(x), 1.0]) for i, x in enumerate(rng.random(3000))])
    table = tabulate(history, Encoder(learn_encoding([], history.distributions)), (False, True))
    rows = _select(table, rng)
    assert len(rows) == len(set(rows.tolist())) == 800
    assert int(np.argmax(table.values[:, 0])) in rows
    assert set(range(2900, 3000)) <= set(rows.tolist())


def test_only_failures_of_the_configuration_ban_it() -> None:
    attributes = [None, {"excused": "killed"}, {"excused": "ended"}]
    failed = [trial(i, i / 4, 3, None, state=TrialState.FAIL, user_attrs=said or {}) for i, said in enumerate(attributes)]
    history = History(None, "epochs")
    history.update(failed)
    assert history.failed == {json.dumps({"x": 0.0})}
    assert len(history.params) == 3


def test_a_configuration_that_is_killed_again_and_again_at_the_same_epochs_is_to_blame() -> None:
    def killed(number: int, epochs: int) -> optuna.trial.FrozenTrial:
        return trial(number, 0.5, epochs, None, state=TrialState.FAIL, user_attrs={"excused": "killed"})

    history = History(None, "epochs")
    history.update([killed(0, 3), killed(1, 3), killed(2, 9), killed(3, 9)])
    assert not history.failed
    history.update([killed(4, 9)])
    assert history.failed == {json.dumps({"x": 0.5})}


def test_sessions_that_end_in_the_middle_of_a_training_are_never_to_its_blame() -> None:
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


def test_what_ended_before_the_epochs_that_were_asked_for_goes_on_only_from_a_checkpoint() -> None:
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
