from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import optuna
import pytest
from helpers.trials import make_trial

from joulefront.search.execution.probe import Probe, SharedFeatures
from joulefront.search.running import estimate as module
from joulefront.search.running.estimate import Overhead, estimate
from joulefront.search.study import Study
from joulefront.spaces.own import Own
from joulefront.spaces.recipes import RecipeRanges

pytestmark = pytest.mark.slow


def space(schedule: str) -> Own:
    return Own(lambda trial: {"width": trial.suggest_int("width", 1, 8)}, lambda one, task: None, recipe=RecipeRanges(schedule=schedule))


STUDY = Study(name="s", task=lambda: None, space=space("anytime"), rungs=(8,), sampler="tpe", complete_only=True, trials=1)  # type: ignore[arg-type,return-value]


def probe(epoch: float | None, startup: float = 0.0, failed: str | None = None) -> Probe:
    return Probe({}, epoch, 0.5, startup, failed=failed)


def test_equal_candidates_cost_exactly_their_number() -> None:
    found = estimate(STUDY, [probe(3.0, 2.0)] * 4, trial_limit=10)
    assert found.joules == found.low_joules == found.high_joules == pytest.approx(10 * (8 * 3.0 + 2.0))
    assert (found.low_trials, found.trials, found.high_trials) == (10, 10, 10)
    assert found.full_training_joules == 24.0
    assert found.seconds == pytest.approx(found.joules * 0.5 / 3.0)


def head(name: str, share: float = 1.0, kept: float = 0.0, joules: float = 1000.0, beside: float = 150.0) -> Probe:
    return replace(probe(3.0, 2.0), shared=SharedFeatures(name, share, joules, beside, kept))


def test_features_are_paid_by_the_first_trial_that_needs_them_and_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BESIDE", (1.0, 1.0))
    found = estimate(STUDY, [head("96")] * 4, trial_limit=100)
    assert found.joules == found.high_joules == pytest.approx(1000.0 + 150.0 + 100 * (8 * 3.0 + 2.0))
    assert found.features_joules == pytest.approx(1150.0)
    two = estimate(STUDY, [head("96"), head("128", joules=2000.0)] * 3, trial_limit=100)
    assert two.high_joules == pytest.approx(3000.0 + 2 * 150.0 + 2600.0)
    part = estimate(STUDY, [head("96", 0.25), head("96", 0.5)] * 3, trial_limit=100)  # half of the images is the most that any takes
    assert part.high_joules == pytest.approx(500.0 + 150.0 + 2600.0)
    assert "of which features, once for all: " in found.to_text()


def test_features_that_are_kept_cost_nothing_and_models_without_any_say_nothing_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BESIDE", (1.0, 1.0))
    kept = estimate(STUDY, [head("96", kept=1.0)] * 4, trial_limit=10)
    assert (kept.joules, kept.features_joules) == (pytest.approx(260.0), 0.0)
    assert "of which features, none: kept by earlier studies, or few trials need any" in kept.to_text()
    assert estimate(STUDY, [head("96", kept=0.5)] * 4, trial_limit=10).joules == pytest.approx(500.0 + 260.0)
    plain = estimate(STUDY, [probe(3.0, 2.0)] * 4, trial_limit=10)
    assert plain.features_joules is None
    assert "features" not in plain.to_text()
    earlier = make_trial(0, "complete", {}, 4, (0.9, 512.0), train_joules=512.0, increment_joules=14.0, features_joules=500.0)
    assert estimate(STUDY, [], [earlier], trial_limit=5).joules == pytest.approx(5 * 8 * 3.0)


def test_a_budget_is_spent_and_the_number_of_trials_follows() -> None:
    found = estimate(STUDY, [probe(3.0, 1.0)] * 4, joules_limit=110.0)
    assert found.joules == found.low_joules == found.high_joules == 110.0
    assert found.trials == 5  # four of 25 J, and one that the budget ends


def test_a_grid_pays_for_each_of_its_rungs_equally_often() -> None:
    study = replace(STUDY, sampler="grid", complete_only=False, rungs=(2, 4, 9))
    assert estimate(study, [probe(2.0)] * 3, trial_limit=600).joules == pytest.approx(600 * 2.0 * 5.0, rel=0.05)


def test_one_increment_of_freeze_thaw_is_paid_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GOES_ON", (0.5, 0.5))
    study = replace(STUDY, sampler="freeze-thaw", complete_only=False, rungs=(1, 3, 9))
    found = estimate(study, [probe(2.0)] * 3, trial_limit=400)
    shares = np.array([4, 2, 1]) / 7
    assert found.joules == pytest.approx(400 * 2.0 * float(shares @ [1, 2, 6]), rel=0.02)
    assert found.low_joules < found.joules < found.high_joules
    again = estimate(replace(study, space=space("cosine")), [probe(2.0)] * 3, trial_limit=400)  # what resumes nothing pays all of its rung
    assert again.joules == pytest.approx(400 * 2.0 * float(shares @ [1, 3, 9]), rel=0.02)


def test_freeze_thaw_may_prefer_what_is_cheap_() -> None:
    probes = [probe(x) for x in (0.1, 0.1, 10.0, 10.0)]
    found = estimate(replace(STUDY, sampler="freeze-thaw"), probes, trial_limit=200)
    plain = estimate(STUDY, probes, trial_limit=200)
    assert found.joules < 0.5 * plain.joules
    assert found.high_joules == plain.high_joules  # and it may not


def test_start_and_decisions_are_part_of_what_a_search_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BESIDE", (1.0, 1.0))
    found = estimate(STUDY, [probe(3.0, 2.0)] * 4, trial_limit=10, overhead=Overhead(50.0, 4.0))
    assert found.joules == pytest.approx(50.0 + 10 * (8 * 3.0 + 2.0 + 4.0))
    assert found.overhead_joules == pytest.approx(50.0 + 10 * 4.0)
    assert estimate(STUDY, [probe(3.0)] * 4, trial_limit=10).overhead_joules is None
    budget = estimate(STUDY, [probe(3.0, 2.0)] * 4, joules_limit=50.0 + 5 * 30.0, overhead=Overhead(50.0, 4.0))
    assert budget.trials == pytest.approx(5, abs=1)
    nothing = estimate(STUDY, [probe(3.0, 2.0)] * 4, joules_limit=49.0, overhead=Overhead(50.0, 4.0))
    assert nothing.trials == 0
    assert "a start alone takes as much, give a larger budget" in nothing.to_text()


def test_the_interval_covers_what_such_studies_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DRAWS", 300)
    random = np.random.default_rng(0)
    study = replace(STUDY, complete_only=False, rungs=(1, 27))
    inside = 0
    for repetition in range(60):
        probes = [probe(float(random.lognormal(0.0, 0.5))) for _ in range(12)]
        found = estimate(study, probes, trial_limit=20, seed=repetition)
        epochs = np.round(np.exp(random.uniform(0, np.log(27), 20)))
        inside += found.low_joules <= float(random.lognormal(0.0, 0.5, 20) @ epochs) <= found.high_joules
    assert inside >= 45  # 54 are meant; twelve probes do not show the tail of the costs


def test_more_scatter_gives_a_wider_interval() -> None:
    narrow = estimate(STUDY, [probe(x) for x in (2.9, 3.0, 3.1)], trial_limit=10)
    wide = estimate(STUDY, [probe(x) for x in (1.0, 3.0, 5.0)], trial_limit=10)
    assert wide.high_joules - wide.low_joules > 5 * (narrow.high_joules - narrow.low_joules)


def test_earlier_trials_stand_in_for_probes() -> None:
    trial = make_trial(0, "complete", {}, 4, (0.9, 12.0), train_joules=12.0, increment_joules=14.0)
    failed = make_trial(1, "failed", {}, 4, increment_joules=99.0)
    found = estimate(STUDY, [probe(None, failed="out of memory")], [trial, failed], trial_limit=5)
    assert found.joules == pytest.approx(5 * (8 * 3.0 + 2.0))
    assert (found.probes, found.failed_probes, found.earlier) == (0, 1, 1)
    assert (found.seconds, "time     unknown" in found.to_text()) == (None, True)
    timed = make_trial(0, "complete", {}, 4, (0.9, 12.0), train_joules=12.0, increment_joules=14.0, train_seconds=6.0)
    assert estimate(STUDY, [], [timed], trial_limit=5).seconds == pytest.approx(0.5 * found.joules)
    # The sum of several trainings is none, and what a duplicate took was paid once.
    ensemble = make_trial(2, "complete", {}, 4, (0.9, 900.0), train_joules=900.0, increment_joules=0.0, extra={"members": [0, 0]})
    copy = make_trial(3, "complete", {}, 4, (0.9, 12.0), train_joules=12.0, increment_joules=0.0, extra={"copy_of": 0})
    again = estimate(STUDY, [], [trial, ensemble, copy], trial_limit=5)
    assert (again.joules, again.earlier) == (pytest.approx(found.joules), 1)


def test_failed_probes_are_counted_and_left_out() -> None:
    found = estimate(STUDY, [probe(3.0), probe(None, failed="too deep")], trial_limit=2, probe_joules=7200.0)
    assert (found.probes, found.failed_probes) == (1, 1)
    assert "1 more could not be trained" in found.to_text()
    assert "probing took 2 Wh" in found.to_text()
    assert found.to_json()["joules"] == found.joules


def test_what_cannot_be_estimated_says_why() -> None:
    with pytest.raises(ValueError, match="none of 2 probed candidates could be measured: too deep"):
        estimate(STUDY, [probe(None, failed="too deep")] * 2, trial_limit=2)
    with pytest.raises(ValueError, match="--budget and --trials"):
        estimate(STUDY, [probe(3.0)])


def test_probes_that_took_no_energy_are_no_error_where_trials_are_counted() -> None:
    frugal = replace(STUDY, sampler="freeze-thaw", complete_only=False)
    assert estimate(frugal, [probe(0.0)] * 3, trial_limit=5).joules == 0.0
    assert estimate(frugal, [probe(0.0), probe(3.0)], trial_limit=5).high_joules > 0.0
    with pytest.raises(ValueError, match="more than 0 J to say how many a budget buys"):
        estimate(frugal, [probe(0.0)] * 3, joules_limit=100.0)


def test_more_trials_than_anybody_draws_are_counted_by_their_mean() -> None:
    few, many = (estimate(STUDY, [probe(3.0, 2.0)] * 4, trial_limit=count) for count in (4_000, 10**9))
    assert many.trials == 10**9
    assert many.joules / few.joules == pytest.approx(10**9 / 4_000, rel=0.05)
    both = estimate(STUDY, [probe(3.0, 2.0)] * 4, trial_limit=10**9, joules_limit=few.joules * 10)
    assert both.trials == pytest.approx(40_000, rel=0.1)
    assert both.joules == few.joules * 10


def test_a_budget_for_very_many_trials_is_all_counted() -> None:
    found = estimate(STUDY, [probe(0.001, 0.0)] * 4, joules_limit=18000.0)
    assert found.joules == pytest.approx(18000.0)
    assert found.trials * 0.001 * min(STUDY.rungs) >= 18000.0 * 0.001
    assert found.trials > 100_000


def test_the_needed_budget_follows_the_energy_of_complete_trainings_and_holds_all_that_comes_beside() -> None:
    study = replace(STUDY, sampler="freeze-thaw", complete_only=False, rungs=(1, 3, 9))
    small, large = (estimate(study, [probe(joules)] * 4, trial_limit=40) for joules in (1.0, 10.0))
    assert small.needed_joules == pytest.approx(9.0 * 28**0.5, rel=0.05)  # the middle of 2 to 14 complete trainings, by the logarithm
    assert large.needed_joules == pytest.approx(10 * (small.needed_joules or 0.0), rel=0.01)
    assert (small.low_needed_joules or 0.0) < small.needed_joules < (small.high_needed_joules or 0.0)
    assert small.needed_seconds == pytest.approx(small.needed_joules * 0.5)
    dear = estimate(study, [probe(1.0)] * 4, trial_limit=40, overhead=Overhead(50.0, 2.0))
    assert (dear.needed_joules or 0.0) > small.needed_joules + 50.0
    assert "for 95 % of what a long search brings" in small.to_text()
    assert estimate(STUDY, [probe(1.0)] * 4, trial_limit=40).needed_joules is None, "of Optuna's samplers it is not known"


def test_probing_ends_where_more_would_take_more_than_a_twentieth_of_what_is_needed(
    rings: Callable[..., Study], monkeypatch: pytest.MonkeyPatch
) -> None:
    from joulefront.search.execution.probe import probe as real

    monkeypatch.setattr(module, "FRUGAL", 1e-6)
    told, study = list[str](), replace(rings(), sampler="freeze-thaw")
    found, _, joules = module.probe_study(
        replace(rings(), sampler="freeze-thaw"), count=6, meter="cpu_time", device="cpu", tell=told.append
    )
    assert len(found) == module.LEAST_PROBES
    assert joules
    assert told[0].startswith("loading")
    assert "probing candidate 2 of 6" in told
    assert any(said.startswith("2 candidates must do: more would cost over ") for said in told)
    monkeypatch.setattr(module, "FRUGAL", 1e6)
    monkeypatch.setattr(module, "probe", lambda *given, **where: replace(real(*given, **where), params={}))
    assert len(module.probe_study(study, count=3, meter="cpu_time", device="cpu")[0]) == 3


@pytest.mark.parametrize(("most", "asked"), [(-1.0, 12), (150.0, 12), (1e9, 20)])
def test_decisions_are_rehearsed_past_the_random_ones_whatever_probing_has_left(
    rings: Callable[..., Study], monkeypatch: pytest.MonkeyPatch, most: float, asked: int
) -> None:
    spent = [0.0]

    class Dear(optuna.samplers.RandomSampler):
        def before_trial(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
            spent.append(spent[-1] + (1.0 if trial.number < 10 else 100.0))

    monkeypatch.setattr(module, "make_sampler", lambda *given, **options: Dear(seed=0))
    ledger: Any = SimpleNamespace(joules=lambda begin_ns: spent[-1])
    study = rings()
    assert module.decision_joules(study, study.load_task(), ledger, most) == pytest.approx((10 * 1.0 + 10 * 100.0) / 20)
    assert len(spent) - 1 == asked
    unknown: Any = SimpleNamespace(joules=lambda begin_ns: None)
    assert module.decision_joules(study, study.load_task(), unknown, most) is None


def test_earlier_trials_on_other_hardware_are_left_out_and_counted() -> None:
    ours, theirs = (
        make_trial(0, "complete", {}, 4, (0.9, joules), train_joules=joules, increment_joules=joules, hardware_id=name)
        for joules, name in ((12.0, "here"), (1200.0, "there"))
    )
    found = estimate(STUDY, [], [ours, theirs], trial_limit=5, overhead=Overhead(0.0, 0.0, "here"))
    assert found.joules == pytest.approx(5 * 8 * 3.0)
    assert (found.earlier, found.elsewhere) == (1, 1)
    assert "1 earlier trials on other hardware left out" in found.to_text()
