"""Every rule of --pick, and what a rule that nothing meets is told."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from helpers.trials import make_trial

from joulefront.search.front import Front
from joulefront.search.records.bill import Bill
from joulefront.search.records.run_folder import Run
from joulefront.search.records.trial import Trial


@pytest.fixture
def front() -> Front:
    points = [(0.80, 36.0), (0.90, 360.0), (0.85, 720.0), (0.92, 3600.0), (0.93, 36000.0)]
    trials = [
        make_trial(n, "complete", {}, 1, values=(a, j), quality={"accuracy": a, "macro_f1": a - 0.1}, train_joules=j)
        for n, (a, j) in enumerate(points)
    ]
    trials.append(Trial(5, "failed", {}, 1, reason="loss is NaN"))
    return Front(tuple(trials), ("accuracy", "train_energy"), ("maximize", "minimize"))


@pytest.mark.parametrize(
    ("rule", "number"),
    [
        ("knee", 1),
        ("best", 4),
        ("cheapest", 0),
        ("trial=3", 3),
        ("trial=2", 2),  # complete but not on the front: the user's own choice
        ("accuracy>=0.85", 1),
        ("accuracy >= 0.92", 3),
        ("macro_f1>=0.81", 3),
        ("energy<=1Wh", 3),
        ("energy<=3600J", 3),
        ("energy<=3.6kJ", 3),
        ("energy<=0.001kWh", 3),
        ("energy<=0.99Wh", 1),
        ("energy<=100mWh", 1),
        ("energy <= 1,000 mWh", 3),
        ("energy≤10000 µWh", 0),
        ("energy<=10000uWh", 0),
        ("accuracy>=85%", 1),
        ("accuracy >= 92 %", 3),
        (" knee ", 1),
        ("sensible", 4),
    ],
)
def test_a_rule_picks(front: Front, rule: str, number: int) -> None:
    assert front.pick(rule).number == number


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("accuracy>=0.99", "no trial of the front reaches it; the nearest is trial=4 with accuracy 0.9300"),
        ("accuracy>=95", "accuracy is a fraction: 0.95 or 95%, not 95"),
        ("accuracy>=95%", "the nearest is trial=4 with accuracy 0.9300"),
        ("accuracy<=0.9", "bounded from below"),
        ("energy<=1J", "no trial of the front needs so little; the nearest is trial=0"),
        ("energy<=1J", "Try energy<=10mWh"),
        ("energy<=5", "no unit; write one of µJ, mJ, J, kJ, MJ, µWh, mWh, Wh, kWh"),
        ("energy<=5kw", "unknown unit 'kw'"),
        ("energy>=5Wh", "write energy<=5Wh"),
        ("trial=5", "trial 5 is failed (loss is NaN); on the front the nearest is trial=4"),
        ("trial=77", "trial 77 does not exist; on the front the nearest is trial=4"),
        ("trial>=3", "named by its number"),
        ("trial=1.5", "named by its number"),
        ("elbow", "must be a rule, got 'elbow'; write one of sensible, knee, best"),
        ("accuracy>=1.2.3", "must be a number, got '1.2.3'"),
        ("recall>=0.5", "'recall' was not measured in this run (known: accuracy, macro_f1)"),
        ("", "must be a rule, got ''"),
    ],
)
def test_a_rule_that_nothing_meets_names_the_remedy(front: Front, rule: str, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        front.pick(rule)


def test_the_bound_that_an_error_proposes_is_met(front: Front) -> None:
    trial = make_trial(0, "complete", {}, 1, values=(0.5, 12.345678), train_joules=12.345678)
    odd = Front((trial,), front.objectives, front.directions)
    with pytest.raises(ValueError, match="Try energy<=") as error:
        odd.pick("energy<=1J")
    proposed = re.search(r"Try (energy<=\S+),", str(error.value))
    assert proposed
    assert odd.pick(proposed.group(1)).number == 0


def test_an_error_objective_is_bounded_from_above(front: Front) -> None:
    trials = tuple(
        make_trial(n, "complete", {}, 1, values=(e, j), train_joules=j) for n, (e, j) in enumerate([(0.3, 1.0), (0.1, 10.0), (0.05, 99.0)])
    )
    errors = Front(trials, ("error", "train_energy"), ("minimize", "minimize"))
    assert errors.pick("error<=0.1").number == 1
    assert errors.best().number == 2
    with pytest.raises(ValueError, match="nearest is trial=2 with error"):
        errors.pick("error<=0.01")
    with pytest.raises(ValueError, match="bounded from above"):
        errors.pick("error>=0.1")


@pytest.mark.parametrize("rule", ["knee", "best", "cheapest", "accuracy>=0.5", "energy<=1Wh"])
def test_an_empty_front_gives_the_reason(rule: str) -> None:
    empty = Front(
        (Trial(0, "failed", {}, 1), Trial(1, "complete", {}, 1, values=(0.9, 1.0))), ("accuracy", "train_energy"), ("maximize", "minimize")
    )
    with pytest.raises(ValueError, match=r"empty: none of its 2 trials .* \(energy unknown; failed\); run more trials"):
        empty.pick(rule)
    with pytest.raises(ValueError, match="trial 0 is failed"):
        empty.pick("trial=0")


def test_another_quality_is_named_with_its_own_digits_and_an_unknown_one_is_never_the_nearest() -> None:
    points = [(0.9, float("nan"), 9.0), (0.96, 0.0004321, 90.0)]
    trials = tuple(
        make_trial(n, "complete", {}, 1, values=(a, j), train_joules=j, quality={"accuracy": a, "loss": loss})
        for n, (a, loss, j) in enumerate(points)
    )
    seen = {"fingerprint": {"data": {"examples": {"validation": 50}}}}  # two decimals of an accuracy
    run = Run("few", Path("few"), ("accuracy", "train_energy"), ("maximize", "minimize"), (1,), trials, Bill(), seen)
    with pytest.raises(ValueError, match=r"nearest is trial=1 with loss 0\.0004321 \(accuracy 0\.96,"):
        Front.of(run).pick("loss<=0.0001")


@pytest.mark.parametrize("rule", [None, 3, 3.0, ["knee"]])
def test_a_rule_that_is_no_text_is_refused_with_what_to_write(front: Front, rule: object) -> None:
    with pytest.raises(ValueError, match=re.escape(f"rule must be str, got {rule!r}") + ".*; write 'trial=3'"):
        front.pick(rule)  # type: ignore[arg-type]
