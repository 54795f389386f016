"""The predictions of the surrogates for a study on an analytic problem."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import optuna
import pytest

from joulefront.search.samplers import FreezeThawSampler
from joulefront.search.samplers.freeze_thaw import Survey
from joulefront.search.samplers.planner import Planner
from joulefront.search.samplers.proposals import ProposalContext, Score

Objective = Callable[[optuna.Trial], tuple[float, float]]
RUNGS = [1, 3, 9, 27]


def surveyed(study: optuna.Study) -> Survey:
    assert isinstance(study.sampler, FreezeThawSampler)
    survey = study.sampler.survey(study)
    assert survey is not None
    return survey


class RecordingProposal:
    """Records the parents that it is given and scores nothing but random configurations."""

    def explore(self, context: ProposalContext, score: Score, rng: np.random.Generator) -> None:
        self.parents = context.parents
        score(context.encoding.random(rng, 4))


@pytest.fixture
def study(objective: Objective) -> optuna.Study:
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=FreezeThawSampler(RUNGS))
    study.optimize(objective, 24)
    return study


@pytest.mark.slow
def test_running_trainings_are_fantasized_at_their_quality_and_their_energy(study: optuna.Study, objective: Objective) -> None:
    """At 27 epochs, to which it was not trained: the energy is 27 times that of one, and the quality far above that of one."""
    best = max((trial for trial in study.trials if trial.params["epochs"] == 1), key=lambda trial: trial.values[0])
    study.enqueue_trial({**best.params, "epochs": 27})
    quality, energy = objective(study.ask())
    fantasy = surveyed(study).state.points[-1]
    assert {**best.params, "epochs": 27} not in [trial.params for trial in study.trials[:-1]]
    assert best.values[0] < quality - 0.3
    assert fantasy[0] == pytest.approx(quality, abs=0.1)
    assert fantasy[1] == pytest.approx(-np.log10(energy), abs=0.05)


@pytest.mark.slow
def test_the_spread_of_a_cost_is_the_same_at_every_rung_and_that_of_a_quality_is_not(study: optuna.Study) -> None:
    survey = surveyed(study)
    quality, cost = survey.planner.models.predict(survey.state.encoder.columns(survey.candidates.genes)).objectives
    assert np.ptp(cost.sd, axis=1) == pytest.approx(0.0, abs=1e-12)
    assert (np.ptp(quality.sd, axis=1) > 1e-3).any()


def limited_by(constraint: Callable[[float, int], float], trials: int) -> optuna.Study:
    """Search two parameters under a constraint on the first of them, ``x``, and the epochs."""

    def objective(trial: optuna.Trial) -> tuple[float, float]:
        x, z, epochs = trial.suggest_float("x", 0, 1), trial.suggest_float("z", 0, 1), trial.suggest_int("epochs", 1, 9)
        trial.storage.set_trial_system_attr(trial._trial_id, "constraints:limit", constraint(x, epochs))
        return 1 - (x - 0.3) ** 2 - (z - 0.5) ** 2 - 0.3 / epochs, float(epochs)

    study = optuna.create_study(directions=["maximize", "minimize"], sampler=FreezeThawSampler([1, 3, 9]))
    study.optimize(objective, trials)
    return study


def broken(study: optuna.Study, constraint: Callable[[float, int], float]) -> list[tuple[float, int]]:
    points = [(trial.params["x"], trial.params["epochs"]) for trial in study.trials[8:]]
    return [point for point in points if constraint(*point) > 0]


@pytest.mark.parametrize(
    ("constraint", "most"),
    [
        pytest.param(lambda x, epochs: x - 0.2, 8, id="at every length alike"),
        pytest.param(lambda x, epochs: 1.1 + 2 * x - epochs, 12, id="met by long trainings only"),
        pytest.param(lambda x, epochs: epochs * (0.2 + x) - 3.0, 3, id="met by short trainings only"),
    ],
)
def test_a_constraint_is_kept_at_the_rung_that_is_trained_to(constraint: Callable[[float, int], float], most: int) -> None:
    assert len(broken(limited_by(constraint, 24), constraint)) <= most


def test_what_is_feasible_at_first_only_is_not_trained_on() -> None:
    study = limited_by(lambda x, epochs: epochs * (0.2 + x) - 3.0, 16)
    survey = surveyed(study)
    genes = survey.state.encoder.encoding.genes({"x": 0.9, "z": 0.5})
    feasibility = survey.planner.models.predict(survey.state.encoder.columns(genes[None])).feasibility[0]
    assert feasibility[0] > 0.5
    assert feasibility[-1] < 0.2


@pytest.mark.slow
def test_the_feasibility_of_what_can_hardly_succeed_stays_positive(objective: Objective) -> None:
    """Everything wide is infeasible by far: it is avoided, and yet never ruled out."""

    def limited(trial: optuna.Trial) -> tuple[float, float]:
        values = objective(trial)
        width = trial.params.get("width", 1 + 7 * trial.params.get("share", 0.0))
        trial.storage.set_trial_system_attr(trial._trial_id, "constraints:width", 100.0 * (width - 4.0))
        return values

    study = optuna.create_study(directions=["maximize", "minimize"], sampler=FreezeThawSampler(RUNGS))
    study.optimize(limited, 24)
    survey = surveyed(study)
    feasibility = survey.planner.models.predict(survey.state.encoder.columns(survey.candidates.genes)).feasibility
    assert feasibility.min() == 0.02
    assert feasibility.max() > 0.5


@pytest.mark.slow
def test_a_search_in_which_nothing_is_feasible_yet_goes_where_the_constraint_falls() -> None:
    """0.8 % of the space meet it: with one floor for all that looks hopeless, the search stayed with what is good elsewhere."""

    def boxed(trial: optuna.Trial) -> tuple[float, float]:
        x, y, z = (trial.suggest_float(name, 0, 1) for name in "xyz")
        epochs = trial.suggest_int("epochs", 1, 9)
        excess = max(abs(x - 0.8), abs(y - 0.2), abs(z - 0.7)) - 0.1
        trial.storage.set_trial_system_attr(trial._trial_id, "constraints:box", excess)
        return 1 - (x - 0.3) ** 2 - (y - 0.5) ** 2 - 0.3 / epochs, float(epochs)

    study = optuna.create_study(directions=["maximize", "minimize"], sampler=FreezeThawSampler([1, 3, 9], seed=3))
    study.optimize(boxed, 25)
    assert any(trial.system_attrs["constraints:box"] <= 0 for trial in study.trials)


@pytest.mark.slow
def test_a_failed_configuration_with_a_shorter_measurement_is_not_trained_again(study: optuna.Study, objective: Objective) -> None:
    """A continuation that failed: its parent's measurement stays a point, and the sampler does not come back to it."""
    trial = study.ask()
    objective(trial)
    while "resume_from" not in trial.user_attrs:
        study.tell(trial, objective(trial))
        trial = study.ask()
        objective(trial)
    study.tell(trial, state=optuna.trial.TrialState.FAIL)

    def key(params: dict[str, object]) -> str:
        return json.dumps({**params, "epochs": 0}, sort_keys=True)

    study.optimize(objective, 12)
    assert key(trial.params) not in [key(later.params) for later in study.trials[trial.number + 1 :]]
    assert len(surveyed(study).state.history.failed) == 1


def test_the_reference_point_allows_for_complete_trainings_before_any_was_paid(objective: Objective) -> None:
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=FreezeThawSampler(RUNGS, ladders=0))
    study.optimize(objective, 8)
    state = surveyed(study).state
    assert {trial.params["epochs"] for trial in study.trials} == {1}
    highest = max(trial.values[1] for trial in study.trials)
    assert 10 ** -state.reference[1] > 10 * highest


@pytest.mark.slow
def test_what_is_predicted_best_when_complete_is_varied_although_it_is_not_on_the_front(study: optuna.Study) -> None:
    survey = surveyed(study)
    table, models = survey.state.table, survey.planner.models
    expected = models.quality.predict(table.columns, np.ones(1)).mean[:, 0]
    proposal = RecordingProposal()
    planner = Planner(survey.planner.settings, models, proposal=proposal)
    planner.score(survey.state, np.random.default_rng(0))
    parents = {row.tobytes() for row in proposal.parents}
    best = np.argsort(-expected, kind="stable")[:6]
    points = table.values[table.longest_row[best]]
    dominated = [(table.values >= point).all(1).sum() > 1 for point in points]
    assert any(dominated)
    assert all(table.genes[i].tobytes() in parents for i in best)
