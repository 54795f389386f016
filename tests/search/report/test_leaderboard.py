"""The leaderboard ranks what can be ranked and explains why it does not rank the rest."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.trials import changed

from joulefront.search.front import Front
from joulefront.search.records.run_folder import Run
from joulefront.search.report.leaderboard import leaderboard
from joulefront.search.report.live import note
from joulefront.search.report.pricing import price_table


@pytest.fixture
def two(fake_run_maker: Callable[..., Run]) -> list[Run]:
    return [fake_run_maker(0), replace(fake_run_maker(3), path=Path("runs/other"))]


def test_runs_of_one_machine_are_ranked_by_hypervolume_in_one_box(two: list[Run]) -> None:
    board = leaderboard(two)
    volumes = [row["hypervolume"] for row in board.to_rows()]
    assert volumes == sorted(volumes, reverse=True)
    box = Front.of(two[0]).box
    by_run = {row["run"]: row["hypervolume"] for row in board.to_rows()}
    assert by_run["runs/other"] == pytest.approx(Front.of(two[1]).hypervolume(box))
    assert board.notes == ()
    assert json.loads(json.dumps(board.to_rows(), allow_nan=False)) == board.to_rows()


def test_a_folder_with_an_odd_name_sends_nothing_to_the_terminal(two: list[Run]) -> None:
    assert "runs/x\\x1b[31mred" in leaderboard([two[0], replace(two[1], path=Path("runs/x\x1b[31mred"))]).to_text()


def test_the_joint_front_is_the_front_of_all_trials_together(two: list[Run]) -> None:
    board = leaderboard(two)
    everything = [(str(run.path), trial) for run in two for trial in run.trials]
    pool = tuple(replace(trial, number=place) for place, (_, trial) in enumerate(everything))
    oracle = [(everything[t.number][0], everything[t.number][1].number) for t in Front(pool, two[0].objectives, two[0].directions)]
    assert list(board.front) == oracle
    assert sum(row["on_joint_front"] for row in board.to_rows()) == len(oracle)


def test_different_hardware_is_never_put_on_one_front_and_a_note_explains_it(two: list[Run]) -> None:
    moved = replace(two[1], trials=tuple(changed(trial, hardware_id="ffff") for trial in two[1].trials))
    board = leaderboard([two[0], moved])
    assert board.front == ()
    assert [row["hypervolume"] for row in board.to_rows()] == [None, None]
    assert [row["run"] for row in board.to_rows()] == [str(two[0].path), "runs/other"]  # listed as given, not ranked
    assert "different hardware (a1b2c3, ffff)" in board.to_text()
    unknown = replace(two[1], trials=tuple(changed(trial, hardware_id=None) for trial in two[1].trials))
    assert "the hardware of runs/other is unknown" in leaderboard([two[0], unknown]).to_text()


def test_energies_by_different_coefficients_are_never_put_on_one_front_and_a_note_explains_it(two: list[Run]) -> None:
    def estimated(run: Run, watts: float) -> Run:
        part = {"counts": True, "source": "cpu_time", "reason": f"estimated: {watts} W per CPU-second above idle (somewhere)"}
        return replace(run, trials=tuple(changed(trial, record={"components": [part]}) for trial in run.trials))

    board = leaderboard([estimated(two[0], 2.8), estimated(two[1], 1.54)])
    assert board.front == ()
    assert "different coefficients (1.54 W per CPU-second above idle, 2.8 W" in board.to_text().replace("\n", " ")
    assert leaderboard([estimated(two[0], 2.8), estimated(two[1], 2.8)]).notes == ()


def test_grams_of_different_places_are_never_put_on_one_front_and_a_note_explains_it(two: list[Run]) -> None:
    at = lambda run, grams, name: replace(  # noqa: E731
        run,
        objectives=("accuracy", name),
        facts={**run.facts, "intensity": {"grams_per_kwh": grams, "zone": None, "source": "given"}, "pue": 1.0},
    )
    board = leaderboard([at(two[0], 56.0, "train_co2"), at(two[1], 700.0, "train_co2")])
    assert board.front == ()
    assert any("the grams are of different places (56, 700 g/kWh, PUE included)" in said for said in board.notes)
    assert leaderboard([at(run, 56.0, "train_co2") for run in two]).front
    assert leaderboard([at(two[0], 56.0, "train_energy"), at(two[1], 700.0, "train_energy")]).front


def test_runs_on_different_data_are_listed_and_not_ranked(two: list[Run]) -> None:
    seen = [{"fingerprint": {"data": {"examples": {"train": 70}, "digest": digest}}} for digest in "ab"]
    found = leaderboard([replace(run, facts={**run.facts, **one}) for run, one in zip(two, seen, strict=True)])
    assert found.front == ()
    assert any("different data" in note for note in found.notes)
    assert leaderboard([replace(run, facts={**run.facts, **seen[0]}) for run in two]).front


def test_different_objectives_names_and_meters_are_noted(two: list[Run]) -> None:
    other = replace(two[1], name="digits", trials=tuple(changed(trial, energy_quality="estimated") for trial in two[1].trials))
    notes = " ".join(leaderboard([two[0], other]).notes)
    assert "different names" in notes
    assert "known in different ways (runs/images: mixed; runs/other: estimated)" in notes
    goals = replace(two[1], objectives=("r2", "train_energy"))
    board = leaderboard([two[0], goals])
    assert "different objectives" in board.notes[0]
    assert board.rows[0].hypervolume is None


def test_an_empty_run_is_listed_and_one_run_is_no_comparison(two: list[Run]) -> None:
    empty = replace(two[1], trials=())
    rows = leaderboard([two[0], empty]).to_rows()
    assert rows[-1]["best"] is None
    assert rows[-1]["front"] == 0
    assert "-" in leaderboard([two[0], empty]).to_text()
    with pytest.raises(ValueError, match="at least two runs, got 1"):
        leaderboard(two[:1])


def test_a_sum_that_is_not_whole_says_so_wherever_it_is_shown(two: list[Run]) -> None:
    torn = replace(two[0], bill=replace(two[0].bill, unknown_seconds={"cpu": 30.0}))
    gap = "because its meter gave nothing then: cpu for 30.0 s; the energy of the search is at least this"
    assert [note for note in leaderboard([torn, two[1]]).notes if gap in note] == [f"{torn.path}: {torn.bill.gaps()}"]
    assert gap in " ".join(price_table(torn, ["FR"]).to_text().split())
    assert gap in note(torn, Front.of(torn)).replace("\\", "")
    assert gap not in "".join([*leaderboard(two).notes, price_table(two[0], ["FR"]).to_text(), note(two[0], Front.of(two[0]))])
