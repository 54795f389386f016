"""What is printed can be typed: every unit, with every prefix, in one parser."""

from __future__ import annotations

import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulefront.search.formatting import (
    GRAMS_BY_UNIT,
    JOULES_BY_UNIT,
    energies,
    for_stream,
    joules_text,
    plain,
    read_amount,
    read_number,
    unit_for,
)
from joulefront.search.study import Budget

SIZES = st.floats(1e-10, 1e12)


@given(SIZES, st.sampled_from(["Wh", "gCO2e"]))
def test_every_energy_and_mass_that_is_printed_is_read_back_within_its_digits(amount: float, base: str) -> None:
    found = read_amount(joules_text(amount, base), "--budget", "5Wh")
    assert found.kind == ("joules" if base == "Wh" else "grams_co2e")
    assert found.value == pytest.approx(amount, rel=0.006)


@given(st.lists(SIZES, min_size=1, max_size=5))
def test_several_energies_share_a_unit_and_each_is_read_back(joules: list[float]) -> None:
    shown, unit = energies(joules)
    for text, value in zip(shown, joules, strict=True):
        assert read_amount(f"{text}{unit}", "energy", "5Wh").value == pytest.approx(value, rel=0.006)


@given(SIZES)
def test_a_cell_of_a_table_is_read_back_with_the_unit_of_its_column(joules: float) -> None:
    unit = unit_for([joules / 2, None, joules])
    text = unit.number(joules)
    assert "e" not in text
    assert "e" not in plain(joules, 4)
    assert Budget.parse(f"{text} {unit.name}").joules == pytest.approx(joules, rel=0.006)


@pytest.mark.parametrize("known", [[], [None], [0.0], [None, 0.0]])
def test_where_nothing_is_known_or_all_is_zero_the_unit_is_the_base_itself(known: list[float | None]) -> None:
    assert (unit_for(known).name, unit_for(known, "gCO2e").name, energies(known)[1]) == ("Wh", "gCO2e", "Wh")
    assert joules_text(0.0) == "0 Wh"


@given(SIZES, st.sampled_from(["joules", "grams_co2e", "money"]))
def test_a_budget_is_read_back_as_it_is_written(amount: float, kind: str) -> None:
    budget = Budget(money=(amount, "EUR")) if kind == "money" else Budget(**{kind: amount})
    again = Budget.parse(budget.to_text())
    found = (again.money or (None,))[0] if kind == "money" else getattr(again, kind)
    assert found == pytest.approx(amount, rel=1e-8)


@pytest.mark.parametrize(
    ("text", "value", "kind"),
    [
        ("1mWh", 3.6, "joules"),
        ("4.5 µWh", 0.0162, "joules"),
        ("4.5 μWh", 0.0162, "joules"),  # the Greek letter
        ("4.5uWh", 0.0162, "joules"),
        ("4.5\u00a0µWh", 0.0162, "joules"),
        ("2 kJ", 2e3, "joules"),
        ("1e-3MJ", 1e3, "joules"),
        ("1,234 Wh", 1234 * 3600.0, "joules"),
        (".5Wh", 1800.0, "joules"),
        ("5.Wh", 18000.0, "joules"),
        ("1GWh", 3.6e12, "joules"),
        ("20 mgCO2e", 0.02, "grams_co2e"),
        ("3kgCO2e", 3000.0, "grams_co2e"),
        ("0.1 tCO2e", 1e5, "grams_co2e"),
        ("5gCO2", 5.0, "grams_co2e"),
        ("1EUR", 1.0, "EUR"),
        ("€0.50", 0.5, "EUR"),
        ("0.5 €", 0.5, "EUR"),
        ("12ct", 0.12, "EUR"),
        ("12 EUR cents", 0.12, "EUR"),
        ("12 USD cents", 0.12, "USD"),
    ],
)
def test_any_prefix_is_read(text: str, value: float, kind: str) -> None:
    found = read_amount(text, "--budget", "5Wh")
    assert (found.value, found.kind) == (pytest.approx(value), kind)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("5mwh", "do you mean mWh or MWh?"),
        ("5wh", "do you mean Wh?"),
        ("5KWH", "do you mean kWh?"),
        ("0,05mWh", "write the decimals with a point"),
        ("1,5Wh", "write the decimals with a point"),
        ("0,500Wh", "write the decimals with a point"),
        ("20", "has no unit; write one of"),
        ("20", "for example --budget 20Wh"),
        ("-3Wh", "must be a positive number"),
        ("0Wh", "must be a positive number"),
        ("nanWh", "must be a positive number"),
        ("1e999Wh", "must be a positive number"),
        ("€5Wh", "unknown unit '€'"),
        ("5 apples", "unknown unit 'apples'"),
    ],
)
def test_what_cannot_be_read_gets_advice_that_can_be(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)) as error:
        Budget.parse(text)
    proposed = re.search(r"for example --budget (\S+)$", str(error.value))
    assert proposed
    Budget.parse(proposed[1])


def test_a_place_that_takes_energy_alone_refuses_carbon_and_money() -> None:
    for text in ("5gCO2e", "1EUR"):
        with pytest.raises(ValueError, match=rf"--pick must be in one of µJ, .* MWh, got '{text}'; for example energy<=5Wh"):
            read_amount(text, "--pick", "energy<=5Wh", kinds=("joules",))


def test_a_bare_number_of_a_python_program_gets_the_same_advice() -> None:
    with pytest.raises(ValueError, match=r"cap '5' has no unit; .* for example 5Wh"):
        read_amount(5, "cap", "5Wh")  # type: ignore[arg-type]


def test_every_listed_unit_is_read() -> None:
    for unit, size in {**JOULES_BY_UNIT, **GRAMS_BY_UNIT}.items():
        assert read_amount(f"2{unit}", "--budget", "5Wh").value == pytest.approx(2 * size)


@given(st.floats(1e-6, 1e9))
def test_plain_numbers_are_read_with_their_commas(value: float) -> None:
    assert read_number(f"{value:,.9f}") == pytest.approx(value, abs=1e-8)
    assert read_number(f"{value:.9f} x") is None


def test_long_lines_are_broken_on_a_terminal_and_left_alone_in_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    text = "error: " + "a word " * 40
    monkeypatch.setenv("COLUMNS", "40")
    lines = for_stream(text, Terminal()).splitlines()
    assert max(map(len, lines)) <= 40
    assert " ".join(" ".join(lines).split()) == text.strip()
    assert for_stream(text, io.StringIO()) == text
    assert for_stream("left out ev\u202eil\x1b[31m.csv\nof 5\u00a0Wh", io.StringIO()) == "left out ev\\u202eil\\x1b[31m.csv\nof 5\u00a0Wh"
