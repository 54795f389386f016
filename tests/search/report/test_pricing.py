"""A study elsewhere: joules stay, grams scale with the place, the front of one place does not move."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from joulefront.search.carbon.intensity import Intensity, Price
from joulefront.search.front import Front
from joulefront.search.records.bill import Bill
from joulefront.search.records.run_folder import Run
from joulefront.search.report.pricing import front_at, price_table

OREGON, TAIPEI = Intensity(138.7, "US-OR", "the paper's package"), Intensity(532.8, "TW", "the paper's package")


def test_grams_scale_with_the_place_and_kwh_do_not(fake_run: Run) -> None:
    rows = price_table(fake_run, [OREGON, TAIPEI]).to_rows()
    assert rows[0]["search_kwh"] == rows[1]["search_kwh"] == pytest.approx((fake_run.bill.total_joules or 0) / 3.6e6)
    assert rows[1]["search_grams_co2e"] / rows[0]["search_grams_co2e"] == pytest.approx(3.84, abs=0.01)
    assert rows[0]["search_grams_co2e"] == pytest.approx(rows[0]["search_kwh"] * 138.7)
    assert json.loads(json.dumps(rows, allow_nan=False)) == rows


def test_pue_scales_grams_and_money_linearly_and_not_kwh(fake_run: Run) -> None:
    price = Price(0.25, "EUR")
    one, two = (price_table(fake_run, [OREGON], pue=pue, price=price).to_rows()[0] for pue in (1.0, 1.5))
    assert two["search_kwh"] == one["search_kwh"]
    for key in ("search_grams_co2e", "search_cost", "knee_grams_co2e", "sensible_grams_co2e"):
        assert two[key] == pytest.approx(1.5 * one[key])
    assert one["search_cost"] == pytest.approx(one["search_kwh"] * 0.25)
    assert one["currency"] == "EUR"


def test_without_a_pue_that_of_the_run_counts(fake_run: Run) -> None:
    run = replace(fake_run, facts={**fake_run.facts, "pue": 1.5})
    assert price_table(run, [OREGON]).to_rows() == price_table(fake_run, [OREGON], pue=1.5).to_rows()
    assert price_table(run, [OREGON], pue=1.0).to_rows()[0]["pue"] == 1.0


def test_the_front_of_one_place_is_the_front_of_energy(fake_run: Run) -> None:
    table = price_table(fake_run, [OREGON, TAIPEI])
    members = [trial.number for trial in Front.of(fake_run)]
    assert all(row["front"] == members and row["same_front_as_energy"] for row in table.to_rows())
    assert f"The front is the same {len(members)} trials in every zone" in table.to_text()
    assert front_at(Front.of(fake_run), TAIPEI).objectives == ("accuracy", "train_co2")


def test_where_electricity_emits_nothing_the_front_is_the_best_model_and_not_empty(fake_run: Run) -> None:
    table = price_table(fake_run, [OREGON, replace(OREGON, grams_per_kwh=0.0, zone="CF")])
    assert table.rows[1].front == (Front.of(fake_run).best().number,)
    assert "differs in: CF. At 0 g/kWh every training emits the same" in " ".join(table.to_text().split())


def test_zones_come_from_the_offline_table_with_source_and_year(fake_run: Run) -> None:
    table = price_table(fake_run, ["FR", "TW"])
    assert [row["zone"] for row in table.to_rows()] == ["FR", "TW"]
    assert all(row["source"] and row["year"] for row in table.to_rows())
    text = table.to_text()
    assert "Grams and money include the PUE of 1, energy does not." in text
    assert "cost" not in text.splitlines()[0]


def test_factors_of_different_scope_are_called_different(fake_run: Run) -> None:
    table = price_table(fake_run, [replace(OREGON, scope="direct"), replace(TAIPEI, scope="lifecycle")])
    assert "Note: these factors differ in scope" in table.to_text()


def test_unknown_energy_and_an_empty_front_stay_unknown(fake_run: Run) -> None:
    (row,) = price_table(replace(fake_run, bill=Bill(), trials=()), [OREGON], price=Price(0.3, "EUR")).to_rows()
    assert (
        row["search_kwh"] is row["search_grams_co2e"] is row["search_cost"] is row["knee_grams_co2e"] is row["sensible_grams_co2e"] is None
    )
    assert row["front"] == []


def test_no_zone_and_an_unknown_zone_are_refused(fake_run: Run) -> None:
    with pytest.raises(ValueError, match="--zones needs at least one zone"):
        price_table(fake_run, [])
    with pytest.raises(ValueError, match="Atlantis"):
        price_table(fake_run, ["Atlantis"])
