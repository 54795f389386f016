from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulefront.search import Study, run
from joulefront.search.stopping.rules import Limits, joules_of, limits_of
from joulefront.search.study import Budget, LimitReachedError


def test_the_first_limit_that_is_reached_is_named() -> None:
    limits = Limits(joules=3600.0, trials=4, seconds=60.0, label="1Wh")
    assert limits.reached(joules=3599.0, trials=3, seconds=59.0) is None
    assert "1Wh" in (limits.reached(joules=3600.0, trials=0, seconds=0) or "")
    assert "4 trials" in (limits.reached(joules=None, trials=4, seconds=0) or "")
    assert "60 s" in (limits.reached(joules=None, trials=0, seconds=60) or "")


def test_an_unknown_energy_never_ends_a_study() -> None:
    assert Limits(joules=1.0).reached(joules=None, trials=10**6, seconds=1e9) is None


@pytest.mark.parametrize(
    ("text", "joules"), [("5Wh", 18000.0), ("0.02 kWh", 72000.0), ("900J", 900.0), ("2kJ", 2000.0), ("1e-3MJ", 1000.0)]
)
def test_energies_are_read_with_their_unit(text: str, joules: float) -> None:
    assert Budget.parse(text).joules == pytest.approx(joules)


@pytest.mark.parametrize("text", ["20", "", "Wh", "-1Wh", "0J", "5 apples", "1.2.3Wh", "5wh"])
def test_a_budget_without_a_known_unit_names_the_known_ones(text: str) -> None:
    with pytest.raises(ValueError, match=r"--budget.*Wh"):
        Budget.parse(text)


@given(st.floats(1e-3, 1e9), st.sampled_from(["joules", "grams_co2e", "money"]))
def test_a_budget_survives_being_written_and_read(amount: float, currency: str) -> None:
    budget = Budget(money=(amount, "EUR")) if currency == "money" else Budget(**{currency: amount})
    again = Budget.parse(budget.to_text())
    if currency == "money":
        assert again.money == (pytest.approx(amount, rel=1e-5), "EUR")
    else:
        assert getattr(again, currency) == pytest.approx(amount, rel=1e-5)


def test_carbon_and_money_become_joules_by_their_factor() -> None:
    assert joules_of(Budget(grams_co2e=56.0), grams_per_kwh=56.0) == pytest.approx(3.6e6)
    assert joules_of(Budget(grams_co2e=56.0), grams_per_kwh=56.0, pue=2.0) == pytest.approx(1.8e6)
    assert joules_of(Budget(money=(0.5, "EUR")), grams_per_kwh=None, price_per_kwh=(0.25, "EUR")) == pytest.approx(7.2e6)


def test_a_budget_without_its_factor_names_the_option() -> None:
    with pytest.raises(ValueError, match="--zone"):
        joules_of(Budget(grams_co2e=1.0), grams_per_kwh=None)
    with pytest.raises(ValueError, match="--price"):
        joules_of(Budget(money=(1.0, "EUR")), grams_per_kwh=None, price_per_kwh=(0.3, "USD"))
    with pytest.raises(ValueError, match="a price above 0 per kWh in EUR"):
        joules_of(Budget(money=(1.0, "EUR")), grams_per_kwh=None, price_per_kwh=(0.0, "EUR"))


def test_a_limit_of_the_studys_own_holds_beside_another_one_that_is_given_and_ends_the_study(rings: Callable[..., Study]) -> None:
    study, worth = rings(trials=20, budget=Budget(joules=100.0)), partial(joules_of, grams_per_kwh=None)
    limits = limits_of(study, Budget(joules=60.0), None, None, worth)
    assert (limits.joules, limits.trials) == (60.0, 20)
    assert limits_of(study, None, 5, None, worth).joules == 100.0
    assert limits.continued(10.0, 7) == (limits, None)
    with pytest.raises(LimitReachedError, match=r"budget of .* is spent already"):
        limits.continued(60.0, 20)
    with pytest.raises(LimitReachedError, match="all 20 trials are done already"):
        limits.continued(10.0, 20)
    more, said = limits_of(study, None, None, 9.0, worth).continued(10.0, 20)
    assert (more.joules, more.trials, said) == (110.0, 40, "all 20 trials are done; continuing for as much again")


def test_trials_by_default_end_a_study_where_no_other_limit_is_set_or_given(rings: Callable[..., Study]) -> None:
    study, budget = rings(trials=None, default_trials=20), Budget(joules=60.0)
    assert [study.limits(), study.limits(budget), study.limits(None, 5)] == [(None, 20), (budget, None), (None, 5)]
    assert rings(trials=3, default_trials=20).limits(budget) == (budget, 3)
    limits = limits_of(study, None, None, 9.0, partial(joules_of, grams_per_kwh=None))
    assert limits.continued(10.0, 20)[0].trials == 40


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"trials": 0}, r"trials \(--trials\) must be >= 1, got 0"),
        ({"timeout_seconds": -1.0}, r"timeout_seconds \(--timeout\) must be > 0, got -1.0"),
        ({"stop_gain": 5.0}, r"stop_gain \(--stop-gain\).*got 5.0"),
        ({"warm_start": "runs/earlier"}, "warm_start .*got 'runs/earlier' .*write a list of run folders"),
    ],
)
def test_a_wrong_limit_makes_no_folder(rings: Callable[..., Study], tmp_path: Path, wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        run(rings(), out=tmp_path / "r", **wrong)
    assert not (tmp_path / "r").exists()
