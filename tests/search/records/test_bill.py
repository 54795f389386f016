import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulefront.search.energy import Component, Record
from joulefront.search.records.bill import SessionBill, add_up, read_bill, read_sessions


def total(*parts: Component, seconds: float = 10.0) -> Record:
    return Record("w1", "total", None, "total", "ok", "2025-01-01T00:00:00+00:00", 0, int(seconds * 1e9), seconds, parts, "abc")


def part(name: str, joules: float | None, quality: str = "measured", source: str = "rapl", **more: Any) -> Component:
    u: dict[str, Any] = {} if joules is None else {"u_random_joules": 3.0, "u_systematic_joules": 4.0}
    return Component(name, joules, source, quality, **{**u, **more})  # type: ignore[arg-type]


def session(record: Record | None, **states: float) -> dict[str, Any]:
    return SessionBill("2025-01-01T00:00:00+00:00", states, {}, record).to_json()


@pytest.mark.slow
def test_a_session_survives_the_file(tmp_path: Path) -> None:
    record = total(part("cpu:pkg0", 70.0), part("gpu", None, "absent", "nvml", reason="no driver", counts=False))
    file = tmp_path / "bill.json"
    file.write_text(json.dumps({"sessions": [session(record, complete=50.0, overhead=20.0)]}))
    bill = read_bill(file)
    assert bill.total_joules == 70.0
    assert bill.by_state == {"complete": 50.0, "overhead": 20.0}
    assert bill.by_component == {"cpu:pkg0": 70.0}
    assert bill.components["cpu:pkg0"].source == "rapl"
    assert bill.absent == {"gpu": "no driver"}
    assert bill.seconds == 10.0


def test_finalists_that_were_trained_again_are_no_part_of_the_search(tmp_path: Path) -> None:
    file = tmp_path / "bill.json"
    search = session(total(part("cpu", 45.0)), complete=30.0, overhead=15.0)
    again = session(total(part("cpu", 25.0)), repeats=20.0, overhead=3.0, idle=2.0)  # its start is no part of the search either
    file.write_text(json.dumps({"sessions": [search, again]}))
    bill = read_bill(file)
    assert (bill.total_joules, bill.search_joules, bill.again_joules) == (70.0, 45.0, 25.0)
    assert (bill.seconds, bill.again_seconds) == (20.0, 10.0)
    assert read_bill(tmp_path / "none.json").search_joules is None


def test_without_a_file_nothing_is_known() -> None:
    bill = read_bill(Path("nowhere/bill.json"))
    assert bill.total_joules is None
    assert bill.by_state == {}


@pytest.mark.parametrize("text", ['{"sessions": [', "[]", "{}", "\x00"])
def test_a_damaged_bill_is_reported_and_never_taken_for_an_empty_one(tmp_path: Path, text: str) -> None:
    file = tmp_path / "bill.json"
    file.write_text(text)
    with pytest.raises(ValueError, match=r"bill\.json' is damaged.*restore"):
        read_sessions(file)


def test_random_uncertainties_add_in_squares_and_gain_errors_linearly() -> None:
    one = total(part("cpu", 100.0))
    bill = add_up([session(one), session(one), session(one), session(one)])
    assert bill.u_joules == pytest.approx((4 * 3.0**2 + (4 * 4.0) ** 2) ** 0.5)
    assert bill.total_joules == 400.0


def test_a_component_that_was_measured_once_and_estimated_once_is_mixed() -> None:
    bill = add_up([session(total(part("cpu", 1.0))), session(total(part("cpu", 2.0, "estimated", "cpu_time")))])
    assert bill.components["cpu"].quality == "mixed"
    assert bill.by_component == {"cpu": 3.0}


def test_what_was_absent_in_one_session_only_is_not_called_absent() -> None:
    bill = add_up([session(total(part("cpu", None, "absent", reason="no rights"))), session(total(part("cpu", 2.0)))])
    assert bill.absent == {}
    assert bill.total_joules == 2.0


def test_a_wall_meter_beside_the_account_is_not_added() -> None:
    bill = add_up([session(total(part("cpu", 2.0), part("wall", 90.0, source="wall", counts=False)))])
    assert bill.total_joules == 2.0
    assert bill.by_component == {"cpu": 2.0}
    assert bill.at_wall is not None
    assert (bill.at_wall.joules, bill.at_wall.quality, bill.at_wall.source) == (90.0, "measured", "wall")


def test_the_energy_at_the_wall_is_the_sum_of_all_sessions_and_names_what_was_only_estimated() -> None:
    measured = total(part("cpu", 2.0), part("wall", 90.0, source="wall", counts=False))
    followed = total(part("cpu", 3.0), part("wall", 30.0, "estimated", "wall line", counts=False, reason="by the line"))
    found = add_up([session(measured), session(measured), session(followed)]).at_wall
    assert found is not None
    assert found.joules == 210.0
    assert (found.quality, found.source, found.reason) == ("mixed", "wall, wall line", "by the line")
    assert found.u_joules == pytest.approx((3 * 3.0**2 + (3 * 4.0) ** 2) ** 0.5)


@pytest.mark.parametrize("lost", [total(part("cpu", 2.0)), total(part("cpu", 2.0), part("wall", None, "absent", "wall", counts=False))])
def test_a_session_without_the_socket_leaves_it_unknown_rather_than_too_small(lost: Record) -> None:
    known = total(part("cpu", 2.0), part("wall", 90.0, source="wall", counts=False))
    assert add_up([session(known), session(lost)]).at_wall is None


@pytest.mark.slow
@given(st.lists(st.dictionaries(st.sampled_from(["complete", "failed", "overhead", "idle"]), st.floats(0, 1e6)), max_size=5))
def test_the_bill_of_all_sessions_is_the_sum_of_their_bills(states: list[dict[str, float]]) -> None:
    bill = add_up([session(total(part("cpu", sum(one.values()))), **one) for one in states])
    assert sum(bill.by_state.values()) == pytest.approx(sum(sum(one.values()) for one in states))
    assert (bill.total_joules or 0.0) == pytest.approx(sum(bill.by_state.values()))


def started(record: Record, seconds: float, joules: float | None) -> dict[str, Any]:
    bill = SessionBill("now", total=record, before={"cpu_seconds": seconds, "joules": joules})
    known = {part.name: part.joules or 0.0 for part in record.counting}
    bill.by_component, bill.by_state = bill.with_before(known, "cpu"), bill.with_before({"overhead": 20.0}, "overhead")
    return bill.to_json()


def test_what_the_process_took_before_its_ledger_is_overhead_of_the_cpu_with_its_scale_error() -> None:
    bill = add_up([started(total(part("cpu", 20.0, "estimated", "cpu_time")), 2.0, 5.0)])
    assert (bill.total_joules, bill.by_state, bill.by_component) == (25.0, {"overhead": 25.0}, {"cpu": 25.0})
    assert bill.u_joules == pytest.approx((3.0**2 + (4.0 * 25 / 20) ** 2) ** 0.5)
    assert bill.gaps() is None


def test_what_no_meter_saw_before_the_ledger_is_told_and_not_invented() -> None:
    bill = add_up([started(total(part("cpu:pkg0", 20.0)), 2.0, None)] * 2)
    assert (bill.total_joules, bill.by_component) == (40.0, {"cpu:pkg0": 40.0})
    assert bill.unknown_cpu_seconds == 4.0
    assert "4.00 CPU-seconds of the start, before it ran" in str(bill.gaps())
