"""Facts that several pages state."""

from __future__ import annotations

from dataclasses import replace

from joulefront.search.records.run_folder import Run
from joulefront.search.report.facts import hardware_lines


def test_facts_are_found_in_sessions_or_at_the_top(fake_run: Run) -> None:
    flat = replace(fake_run, facts={"hardware": {"cpu": "X"}, "hardware_id": "77", "versions": {"python": "3"}})
    assert hardware_lines(flat) == ["cpu X [77]"]
    assert flat.sessions[0]["versions"] == {"python": "3"}
    assert flat.pue == 1.0
    twice = replace(fake_run, facts={"sessions": [*fake_run.facts["sessions"]] * 2})
    assert len(hardware_lines(twice)) == 1
