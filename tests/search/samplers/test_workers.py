"""Several workers on one study: nothing is trained twice, and what runs elsewhere counts."""

from __future__ import annotations

import io
import json
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from helpers.forked import Forked
from optuna.distributions import CategoricalDistribution, IntDistribution

from joulefront.search.samplers import FreezeThawSampler
from joulefront.search.samplers.history import CLAIM

pytestmark = pytest.mark.slow

Searched = Callable[[int], optuna.Study]
Objective = Callable[[optuna.Trial], tuple[float, float]]

WORKER = """
import sys
import optuna
from joulefront.search.samplers import FreezeThawSampler
from optuna.distributions import IntDistribution
optuna.logging.set_verbosity(optuna.logging.ERROR)
space = {"a": IntDistribution(0, 5), "b": IntDistribution(0, 5)}
study = optuna.load_study(study_name="s", storage=sys.argv[1], sampler=FreezeThawSampler([1, 3, 9], seed=0, search_space=space))
def objective(trial):
    a, b, epochs = trial.suggest_int("a", 0, 5), trial.suggest_int("b", 0, 5), trial.suggest_int("epochs", 1, 9)
    return (a + b) / 20 - 0.3 / epochs, epochs * (1.0 + a)
study.optimize(objective, 12)
"""


def test_two_processes_on_sqlite_never_train_the_same_point(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    optuna.create_study(study_name="s", storage=url, directions=["maximize", "minimize"])
    workers = [Forked("-c", WORKER, url) for _ in range(2)]
    for worker in workers:
        _, errors = worker.communicate(timeout=240)
        assert worker.returncode == 0, errors
    trials = optuna.load_study(study_name="s", storage=url).trials
    points = [tuple(sorted(trial.params.items())) for trial in trials]
    assert len(points) == 24
    assert len(set(points)) == 24
    assert any("resume_from" in trial.user_attrs for trial in trials)


@pytest.mark.parametrize("storage", ["memory", "sqlite"])
def test_workers_that_decide_at_the_same_moment_choose_differently(storage: str, tmp_path: Path) -> None:
    space = {"a": IntDistribution(0, 5), "b": CategoricalDistribution(["x", "y"])}
    place = optuna.storages.InMemoryStorage() if storage == "memory" else f"sqlite:///{tmp_path / 'study.db'}"
    name = optuna.create_study(storage=place, directions=["maximize", "minimize"]).study_name
    gate = threading.Barrier(4)
    chosen: list[tuple[object, ...]] = []

    def work() -> None:
        study = optuna.load_study(study_name=name, storage=place, sampler=FreezeThawSampler([1, 3, 9], seed=0, search_space=space))
        for _ in range(5):
            gate.wait(60)
            trial = study.ask()
            a, b, epochs = trial.suggest_int("a", 0, 5), trial.suggest_categorical("b", ["x", "y"]), trial.suggest_int("epochs", 1, 9)
            chosen.append((a, b, epochs))
            gate.wait(60)  # nobody reports before everybody has chosen
            study.tell(trial, ((a + (b == "x")) / 7 - 0.3 / epochs, epochs * (1.0 + a)))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert len(chosen) == 20
    assert len(set(chosen)) == 20


class InStep(optuna.storages.InMemoryStorage):
    """Another worker that claims what was just claimed, as often as there are configurations."""

    other: int | None = None
    left = 12

    def set_trial_system_attr(self, trial_id: int, key: str, value: object) -> None:
        super().set_trial_system_attr(trial_id, key, value)
        if self.other is not None and key == CLAIM and self.left:
            self.left -= 1
            super().set_trial_system_attr(self.other, key, value)


def test_workers_in_step_that_have_given_everything_up_choose_again() -> None:
    space = {"a": IntDistribution(0, 5), "b": CategoricalDistribution(["x", "y"])}
    storage = InStep()
    study = optuna.create_study(
        storage=storage, directions=["maximize", "minimize"], sampler=FreezeThawSampler([1, 3, 9], seed=0, search_space=space)
    )

    def ask() -> tuple[optuna.Trial, tuple[object, ...]]:
        trial = study.ask()
        return trial, (trial.suggest_int("a", 0, 5), trial.suggest_categorical("b", ["x", "y"]), trial.suggest_int("epochs", 1, 9))

    measured = set()
    for _ in range(16):
        trial, (a, b, epochs) = ask()
        measured.add((a, b, epochs))
        study.tell(trial, ((a + (b == "x")) / 7 - 0.3 / epochs, epochs * (1.0 + a)))
    other = study.ask()  # its objective has not asked for its parameters yet
    storage.other = other._trial_id
    _, chosen = ask()
    assert chosen not in measured


def test_a_configuration_that_runs_is_not_continued_elsewhere(searched: Searched, objective: Objective) -> None:
    study = searched(20)
    running = [study.ask() for _ in range(5)]
    for trial in running:
        objective(trial)
    configurations = [str(sorted({**trial.params, "epochs": 0}.items())) for trial in running]
    assert len(set(configurations)) == 5


def test_running_trials_count_as_measured(searched: Searched, objective: Objective) -> None:
    study = searched(30)
    sampler = study.sampler
    assert isinstance(sampler, FreezeThawSampler)
    before = sampler.survey(study)
    trial = study.ask()
    objective(trial)
    after = sampler.survey(study)
    assert before is not None
    assert after is not None
    assert len(after.state.points) == len(before.state.points) + 1, "what runs is not counted as measured"


def test_threads_of_one_study_work(objective: Objective) -> None:
    def slow(trial: optuna.Trial) -> tuple[float, float]:
        values = objective(trial)
        time.sleep(0.01)
        return values

    study = optuna.create_study(directions=["maximize", "minimize"], sampler=FreezeThawSampler([1, 3, 9, 27]))
    study.optimize(slow, 24, n_jobs=3)
    points = [tuple(sorted(trial.params.items())) for trial in study.trials]
    assert len(set(points)) == 24


def test_the_dashboard_shows_the_front_of_such_a_study(searched: Searched, tmp_path: Path) -> None:
    dashboard = pytest.importorskip("optuna_dashboard")
    storage = optuna.storages.RDBStorage(f"sqlite:///{tmp_path / 'study.db'}")
    study = optuna.create_study(storage=storage, directions=["maximize", "minimize"])
    study.add_trials(searched(18).trials)
    statuses: list[str] = []
    request = {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": f"/api/studies/{study._study_id}",
        "QUERY_STRING": "after=0",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(),
        "wsgi.errors": sys.stderr,
    }
    body = json.loads(b"".join(dashboard.wsgi(storage)(request, lambda status, headers, *rest: statuses.append(status))))
    assert statuses[0].startswith("200")
    assert {trial["number"] for trial in body["best_trials"]} == {trial.number for trial in study.best_trials}
    assert len(body["trials"]) == 18
