"""The study of a table: what it refuses before anything is trained."""

from __future__ import annotations

from pathlib import Path

import pytest

from joulefront.search.cli.study_source import StudyError, find_study


@pytest.mark.parametrize(
    ("metric", "target", "said"),
    [
        (
            "f1",
            "kind",
            "must be accuracy or error or balanced_accuracy or macro_f1 or auc for classification, got 'f1'; do you mean macro_f1?",
        ),
        ("train_energy", "kind", "got 'train_energy'; do"),
        ("mae", "size", "--metric must be r2 for regression, got 'mae'; do you mean r2?"),
    ],
)
def test_a_metric_that_the_kind_of_task_lacks_is_named_as_typed(metric: str, target: str, said: str, tmp_path: Path) -> None:
    rows = "\n".join(f"{k},{(k * k) % 97 / 7},{'ab'[k % 7 > 3]}" for k in range(120))
    (tmp_path / "rows.csv").write_text(f"one,size,kind\n{rows}\n")
    with pytest.raises((StudyError, ValueError)) as raised:
        find_study("table", {"data": str(tmp_path / "rows.csv"), "target": target, "metric": metric})
    assert said in str(raised.value)
