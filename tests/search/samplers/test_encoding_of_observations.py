"""The observations as arrays: grouped by configuration, transformed to be maximised, and thinned where there are thousands."""

from __future__ import annotations

import numpy as np
import optuna
import pytest
from optuna.distributions import FloatDistribution, IntDistribution
from optuna.trial import create_trial

from joulefront.search.samplers.encoding import Encoder, ObjectiveTransform, learn_encoding, tabulate
from joulefront.search.samplers.history import History
from joulefront.search.samplers.surrogates import select_rows

SPACE = {"x": FloatDistribution(0, 1), "epochs": IntDistribution(1, 27)}


def trial(number: int, x: float, epochs: int, values: list[float]) -> optuna.trial.FrozenTrial:
    made = create_trial(params={"x": x, "epochs": epochs}, distributions=SPACE, values=values)
    made.number = number
    return made


def test_lengths_of_one_configuration_belong_together() -> None:
    history = History(None, "epochs")
    history.update([trial(0, 0.5, 1, [0.1, 1.0]), trial(1, 0.2, 1, [0.2, 1.5]), trial(2, 0.5, 3, [0.4, 3.0])])
    table = tabulate(history, Encoder(learn_encoding(list(history.params.values()), history.distributions)), (False, True))
    assert table.epochs[table.longest_row].tolist() == [3, 1]
    assert table.values[table.longest_row, 0].tolist() == [0.4, 0.2]
    assert table.config.tolist() == [0, 1, 0]
    assert table.values[:, 1] == pytest.approx(-np.log10([1.0, 1.5, 3.0]))


def test_costs_are_compared_by_logarithm_and_a_measured_zero_survives() -> None:
    values = np.array([[0.5, 0.0, -1.0], [0.6, 10.0, 5.0], [0.7, 1000.0, 6.0]])
    transform = ObjectiveTransform.infer((False, True, True), values)
    assert transform.logarithmic.tolist() == [False, True, False]
    assert transform.apply(values) == pytest.approx(np.array([[0.5, -1.0, 1.0], [0.6, -1.0, -5.0], [0.7, -3.0, -6.0]]))


@pytest.mark.slow
def test_thousands_of_measurements_are_thinned_and_keep_the_best_and_the_latest() -> None:
    rng = np.random.default_rng(0)
    history = History(None, "epochs")
    history.update([trial(i, float(x), 1 + 2 * (i % 2), [float(x), 1.0]) for i, x in enumerate(rng.random(3000))])
    table = tabulate(history, Encoder(learn_encoding([], history.distributions)), (False, True))
    rows = select_rows(table, rng)
    assert len(rows) == len(set(rows.tolist())) == 200
    assert int(np.argmax(table.values[:, 0])) in rows
    assert set(range(2940, 3000)) <= set(rows.tolist())
