"""What waits and what does not."""

import threading
from types import SimpleNamespace
from typing import Any

import optuna
import pytest

from joulefront.search.carbon.forecast import IntensityCurve
from joulefront.search.running.clean_hours import LARGE, Postponer
from joulefront.search.running.trial_runner import TrialRunner
from joulefront.search.samplers import FreezeThawSampler
from joulefront.search.samplers.marginal_gain import passes_cost_gate
from joulefront.search.stopping.rules import Limits

optuna.logging.set_verbosity(optuna.logging.ERROR)
DAY = IntensityCurve((0.0, 12.0, 18.0), (400.0, 100.0, 400.0), shape="step")
RUNGS = [1, 3, 9, 27]
LEFT = Limits(joules=100.0)


def postponer(**changes: Any) -> Postponer:
    found = Postponer(DAY, 24.0, 27, **changes)
    found.learn(0.1, 10.0, 3)
    return found


def a_study(sampler: optuna.samplers.BaseSampler, trials: int = 0) -> optuna.Study:
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)

    def objective(trial: optuna.Trial) -> tuple[float, float]:
        x = trial.suggest_float("x", 0.0, 1.0)
        epochs = trial.suggest_int("epochs", RUNGS[0], RUNGS[-1])
        return 0.9 - (x - 0.4) ** 2 - 0.5 * epochs**-0.7, 10.0 * epochs * (1 + x)

    study.optimize(objective, trials)
    return study


def test_who_waits_asks_the_rules_with_the_lock_of_the_session() -> None:
    lock, asked = threading.RLock(), list[bool]()

    def free() -> bool:
        found = list[bool]()
        other = threading.Thread(target=lambda: found.append(lock.acquire(blocking=False)))
        other.start()
        other.join()
        return found[0]

    rules = SimpleNamespace(update_remaining=lambda: None, limits=None, end_of_training=lambda joules: asked.append(free()))
    carbon = SimpleNamespace(until=lambda *_: 12.0, wait=lambda until, interrupted, stop: stop())
    session: Any = SimpleNamespace(lock=lock, interrupted=threading.Event())
    said: Any = SimpleNamespace(tell=lambda *_: None)
    nothing: Any = None
    runner = TrialRunner(nothing, nothing, session, nothing, rules, nothing, said, carbon)  # type: ignore[arg-type]
    assert runner._postponed()
    assert asked == [False]


def test_nothing_waits_before_it_is_known_how_long_trainings_take() -> None:
    study = a_study(optuna.samplers.RandomSampler(seed=0))
    fresh = Postponer(DAY, 24.0, 27)
    assert fresh.until(study, 8.0, LEFT, epochs=27) is None
    assert postponer().until(study, 8.0, Limits(), epochs=27) is None


def test_a_large_training_of_any_sampler_waits_and_a_small_one_does_not() -> None:
    study = a_study(optuna.samplers.RandomSampler(seed=0))
    assert postponer().until(study, 8.0, LEFT, epochs=27) == pytest.approx(12.0, abs=0.1)
    assert postponer().until(study, 8.0, LEFT, epochs=int(LARGE * 27)) is None
    assert postponer().until(study, 8.0, LEFT, epochs=None) is None
    assert postponer().until(study, 13.0, LEFT, epochs=27) is None


def test_work_is_counted_in_joules_or_trials_whichever_ends_first_and_shared_by_workers() -> None:
    def needed(left: Limits, **changes: Any) -> float:
        table = postponer(**changes).timetable(8.0, left)
        assert table is not None
        return table.needed_hours

    assert needed(Limits(joules=100.0)) == pytest.approx(1.0)
    assert needed(Limits(trials=3)) == pytest.approx(0.3)
    assert needed(Limits(joules=100.0, trials=3)) == pytest.approx(0.3)
    assert needed(Limits(joules=100.0), workers=2) == pytest.approx(0.5)
    assert needed(Limits(joules=-5.0)) == 0.0


def test_work_that_fills_the_time_to_the_deadline_does_not_wait() -> None:
    study = a_study(optuna.samplers.RandomSampler(seed=0))
    assert postponer().until(study, 8.0, Limits(joules=1600.0), epochs=27) is None
    assert postponer().until(study, 25.0, LEFT, epochs=27) is None


def test_an_unknown_energy_leaves_trials_to_count_by() -> None:
    found = postponer()
    found.learn(0.1, None, 3)
    assert found.timetable(8.0, Limits(joules=100.0)) is None
    assert found.timetable(8.0, Limits(joules=100.0, trials=2)) is not None


@pytest.mark.slow
def test_our_sampler_is_held_to_small_trainings_in_dirty_hours_and_free_in_clean_ones() -> None:
    sampler = FreezeThawSampler(RUNGS, seed=0)
    study = a_study(sampler, 14)
    until = postponer().until(study, 8.0, LEFT)
    assert sampler.largest_step == LARGE
    assert until is None or until == pytest.approx(12.0, abs=0.1)
    assert postponer().until(study, 13.0, LEFT) is None
    assert sampler.largest_step is None
    assert postponer().until(study, 8.0, LEFT, epochs=27) is None  # it was asked for when it was allowed


def test_the_first_random_trainings_are_small_and_the_ladder_waits_for_its_last_step() -> None:
    sampler = FreezeThawSampler(RUNGS, seed=0, ladders=1)
    assert passes_cost_gate(sampler, a_study(sampler, 3), LARGE)
    sampler = FreezeThawSampler(RUNGS, seed=0, ladders=1)
    study = a_study(sampler, 10)  # eight at the lowest rung, then 3 and 9 epochs of one of them: the next is 27
    assert [trial.params["epochs"] for trial in study.trials[8:]] == [3, 9]
    assert not passes_cost_gate(sampler, study, LARGE)
    assert passes_cost_gate(sampler, study, 18 / 27)


@pytest.mark.slow
@pytest.mark.parametrize("resume", [True, False])
def test_steps_over_the_limit_are_not_proposed(resume: bool) -> None:
    sampler = FreezeThawSampler(RUNGS, seed=0, resume=resume)
    study = a_study(sampler, 30)
    survey = sampler.survey(study)
    assert survey is not None
    for limit in (0.02, 0.1, 0.4):
        if passes_cost_gate(sampler, study, limit):
            sampler.largest_step = limit
            decision = sampler.decide(study, len(study.trials))
            assert decision is not None
            assert decision.step_cost is not None
            assert decision.step_cost <= limit * survey.state.median_cost * 1.2  # the models are fitted anew, with another seed
    sampler.largest_step = 1e-9
    assert sampler.decide(study, len(study.trials)) is None
    assert not passes_cost_gate(sampler, study, 1e-9)


@pytest.mark.slow
def test_a_survey_is_of_everything_whatever_is_held_back() -> None:
    sampler = FreezeThawSampler(RUNGS, seed=0)
    study = a_study(sampler, 20)
    free = sampler.survey(study)
    sampler.largest_step = 1e-9
    held = sampler.survey(study)
    assert free is not None
    assert held is not None
    assert held.candidates.best.max() == free.candidates.best.max()
