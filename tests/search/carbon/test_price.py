"""Prices of energy."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulefront.search.carbon.intensity import Intensity, Price, cost, grams_co2e, parse_price
from joulefront.search.carbon.zones import intensity_for


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.25EUR", Price(0.25, "EUR")), ("0.25 eur/kWh", Price(0.25, "EUR")), ("€0.25", Price(0.25, "EUR")), (".3$", Price(0.3, "USD")),
        ("80EUR/MWh", Price(0.08, "EUR")), ("0 CHF", Price(0.0, "CHF")),
    ],
)  # fmt: skip
def test_prices_are_read_as_people_write_them(text, expected):
    assert parse_price(text).per_kwh == pytest.approx(expected.per_kwh)
    assert parse_price(text).currency == expected.currency


@pytest.mark.parametrize("text", ["0.25", "EUR", "0,25EUR", "-1EUR", "0.25EURO", "nanEUR", "1EUR/h", "0.25kWh", "80 MWh", ""])
def test_what_is_no_price_is_refused(text):
    with pytest.raises(ValueError, match=r"0\.25EUR"):
        parse_price(text)


def test_one_kwh_costs_the_price_and_the_building_adds_its_share():
    assert cost(3.6e6, Price(0.25, "EUR")) == pytest.approx(0.25)
    assert cost(3.6e6, Price(0.25, "EUR"), pue=1.2) == pytest.approx(0.30)
    assert cost(None, Price(0.25, "EUR")) is None
    assert cost(3.6e6, None) is None


@given(st.floats(0, 1e12), st.floats(0, 10), st.floats(1, 3))
def test_cost_is_linear_in_energy(joules, per_kwh, pue):
    price = Price(per_kwh, "EUR")
    assert cost(2 * joules, price, pue) == pytest.approx(2 * cost(joules, price, pue))


def test_one_energy_has_the_grams_of_each_place_and_one_cost():
    places = [intensity_for(zone) for zone in ("FR", "US", "TW")]
    assert [grams_co2e(7.2e6, place, 1.1) for place in places] == [pytest.approx(2.2 * place.grams_per_kwh) for place in places]
    assert cost(7.2e6, Price(0.2, "EUR"), 1.1) == pytest.approx(0.44)


def test_unknown_energy_has_no_price_anywhere():
    assert grams_co2e(None, Intensity(56.0)) is None
    assert cost(None, Price(0.2, "EUR")) is None
