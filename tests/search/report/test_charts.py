"""What the charts draw: the hypervolume over energy and the parts of the bill."""

from __future__ import annotations

from dataclasses import replace

import pytest

from joulefront.search.front import Front
from joulefront.search.records.run_folder import Run
from joulefront.search.report.charts import hypervolume_trace, with_remainder


def test_the_trace_never_falls_counts_failed_trials_and_ends_at_the_front(fake_run: Run) -> None:
    front = Front.of(fake_run)
    steps = hypervolume_trace(front)
    volumes = [step.hypervolume for step in steps]
    assert volumes == sorted(volumes)
    assert volumes[-1] == pytest.approx(front.hypervolume())
    paid = sum(trial.increment_joules or 0.0 for trial in fake_run.trials)
    assert steps[-1].wh == pytest.approx(paid / 3600)
    middle = len(fake_run.trials) // 2
    partial = replace(fake_run, trials=fake_run.trials[: middle + 1])
    assert volumes[middle] == pytest.approx(Front.of(partial).hypervolume())


def test_what_is_missing_to_the_total_is_a_part_of_its_own() -> None:
    assert with_remainder({"complete": 60.0, "failed": 0.0}, 100.0) == {"complete": 60.0, "not attributed": 40.0}
    assert with_remainder({"complete": 99.95}, 100.0) == {"complete": 99.95}
    assert with_remainder({"complete": 5.0}, None) == {"complete": 5.0}
