"""The table and the sentences about repeated members."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from joulefront.search.front import Front
from joulefront.search.records.replicates import ReplicateComparison
from joulefront.search.records.run_folder import Run
from joulefront.search.report.replication_text import sentences, table_of, to_json, to_text


def compare(run: Run) -> ReplicateComparison:
    found = Front.of(run).repeated
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("changes", "differs"),
    [
        ({"spread": 1e-6}, {"energy, accuracy"}),
        ({"spread": 3.0, "times": 5}, {"accuracy"}),
        ({"times": 1}, {"energy unknown, accuracy unknown"}),
    ],
)
def test_a_row_names_what_differs_from_the_next_and_the_last_row_has_no_next(
    fake_run: Run, repeated: Callable[..., Run], changes: dict[str, float], differs: set[str]
) -> None:
    head, rows = table_of(compare(repeated(fake_run, **changes)))
    assert head[-1] == "differs from next"
    assert {row[-1] for row in rows[:-1]} == differs
    assert rows[-1][-1] == ""
    assert all(len(row) == len(head) for row in rows)


def test_the_sentences_give_the_optimism_of_the_selection_and_the_order(fake_run: Run, repeated: Callable[..., Run]) -> None:
    run = repeated(fake_run)
    lines = sentences(compare(run), run.repeats)
    assert "On average the members' accuracy is 0.0100 worse than in the search" in lines[0]
    assert lines[1] == "The order of the front survives."
    assert to_json(compare(run), run.repeats)["mean_fall_of_accuracy"] == pytest.approx(0.01)


def test_at_80_columns_it_is_still_a_table_and_has_the_digits_that_mean_anything(
    fake_run: Run, repeated: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    run = repeated(fake_run)
    head, rule, *rows = to_text(compare(run), run.repeats, 2).splitlines()
    assert head.split()[:2] == ["trial", "accuracy"]
    assert set(rule) == {"─"}
    assert max(map(len, [head, rule, *rows])) <= 80
    assert [row.split()[0] for row in rows[: len(Front.of(run))]] == [str(trial.number) for trial in Front.of(run)]
    assert len(rows[0].split()[1]) == len("0.12")


@pytest.mark.parametrize("width", ["60", "80", "100", "160"])
def test_the_legend_explains_the_columns_that_are_there(
    fake_run: Run, repeated: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, width: str
) -> None:
    monkeypatch.setenv("COLUMNS", width)
    run = repeated(fake_run)
    table, _, said = to_text(compare(run), run.repeats, 2).partition("\n\n")
    titles = table.splitlines()[0]
    assert ("sd ÷ meter u" in titles) == ("sd ÷ meter u:" in " ".join(said.split()))
    assert (" n " in titles) == ("of n trainings" in " ".join(said.split()))
