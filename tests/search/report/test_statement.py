"""The impact statement counts everything and guesses nothing."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import pytest

from joulefront.search.records.bill import AtWall, Bill
from joulefront.search.records.run_folder import Run
from joulefront.search.report.statement import statement


def grams_in(text: str) -> float:
    found = re.search(r"\*\*([\d.]+) (m?)gCO2e\*\*", text)
    assert found
    return float(found.group(1)) / (1000 if found.group(2) else 1)


def test_the_statement_has_energy_carbon_place_hardware_software_and_all_trials(fake_run: Run) -> None:
    text = statement(fake_run)
    failed = sum(trial.state == "failed" for trial in fake_run.trials)
    assert f"{len(fake_run.trials)} trials ({len(fake_run.trials) - failed} complete, {failed} failed)" in text
    assert f"**{(fake_run.bill.total_joules or 0) / 3600:.1f} Wh**" in text
    assert "56 gCO2e/kWh in FR" in text
    assert "2023" in text
    assert "NVIDIA <Example> 24 GB" in text
    assert "torch 2.6.0" in text
    assert "| gpu 1a2b3c4d |" in text
    assert "| dram | unknown | absent | RAPL has no dram zone" in text


def test_software_that_was_not_noted_is_said_to_be_so(fake_run: Run) -> None:
    session = {"hardware_id": "a", "versions": None}
    assert "Software: not recorded." in statement(replace(fake_run, facts={**fake_run.facts, "sessions": [session]}))


def test_pue_scales_the_carbon_linearly_and_leaves_the_kwh(fake_run: Run) -> None:
    one, two = statement(fake_run), statement(replace(fake_run, facts={**fake_run.facts, "pue": 2.0}))
    assert grams_in(two) == pytest.approx(2 * grams_in(one), rel=0.01)
    assert re.findall(r"\*\*[\d.]+ Wh\*\*", one) == re.findall(r"\*\*[\d.]+ Wh\*\*", two)
    assert "effectiveness 2" in two


def test_two_halves_of_a_study_add_up(fake_run: Run) -> None:
    total = fake_run.bill.total_joules or 0.0
    halves = [replace(fake_run, bill=replace(fake_run.bill, total_joules=share * total)) for share in (0.25, 0.75)]
    assert sum(grams_in(statement(half)) for half in halves) == pytest.approx(grams_in(statement(fake_run)), rel=0.01)


def test_without_a_place_or_a_meter_the_statement_reads_unknown(fake_run: Run) -> None:
    text = statement(replace(fake_run, facts={}, bill=Bill()))
    assert "energy of this search is unknown" in text
    assert "Hardware: not recorded" in text
    assert "No component was metered" in text
    assert "carbon is not stated" in statement(replace(fake_run, facts={**fake_run.facts, "intensity": None}))


def test_the_energy_at_the_wall_stands_beside_the_sum_where_it_is_known(fake_run: Run) -> None:
    assert "At the wall" not in statement(fake_run)
    wall = AtWall(7200.0, 36.0, "measured", "wall")
    text = statement(replace(fake_run, bill=replace(fake_run.bill, at_wall=wall)))
    assert "At the wall the whole machine took 2 Wh ± 20 mWh (two standard uncertainties; measured by wall)" in text
    line = AtWall(7200.0, None, "estimated", "wall line", "estimated: 1.25 times the components and 30 W")
    text = statement(replace(fake_run, bill=replace(fake_run.bill, at_wall=line)))
    assert "took 2 Wh (estimated: 1.25 times the components and 30 W); that contains the sums above" in text


def test_a_meter_that_was_lost_on_the_way_is_named_beside_the_sums(fake_run: Run) -> None:
    name = next(iter(fake_run.bill.by_component))
    run = replace(fake_run, bill=replace(fake_run.bill, unknown_seconds={name: 99.0}))
    assert f"Not in these sums, because its meter gave nothing then: {name} for 99.0 s" in statement(run)
    assert "Not in these sums" not in statement(fake_run)


def test_a_statement_of_a_run_without_carbon_guesses_none(fake_run_maker: Callable[..., Run]) -> None:
    text = statement(fake_run_maker(intensity=False))
    assert "gCO2e" not in text
    assert "carbon is not stated" in text
