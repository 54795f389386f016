"""The decision page without a browser: what it says, and that nothing of a run can act in it."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.page import EVIL, data_of, hostile, outline_of
from helpers.trials import make_trial

from joulefront.search.front import Front
from joulefront.search.records.bill import Bill
from joulefront.search.records.run_folder import Run
from joulefront.search.records.trial import Trial
from joulefront.search.report.front_view import front_text as to_text
from joulefront.search.report.page import data_text, report_html
from joulefront.search.report.view import View


@pytest.mark.slow
def test_the_page_fetches_nothing_and_allows_its_own_scripts_alone(fake_page: Path) -> None:
    outline = outline_of(fake_page)
    assert [link for link in outline.links if not link.startswith(("#", "data:"))] == []
    policy = next(str(meta["content"]) for meta in outline.metas if meta.get("http-equiv") == "Content-Security-Policy")
    run = [text for attributes, text in outline.scripts if not attributes]
    assert len(run) == 3
    hashes = {f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in run}
    directives = {words[0]: set(words[1:]) for words in (part.split() for part in policy.split(";"))}
    assert directives["script-src"] == hashes
    assert directives["default-src"] == {"'none'"}
    assert "connect-src" not in directives


def test_an_ordinary_page_weighs_less_than_0_7_mb(fake_page: Path) -> None:
    assert fake_page.stat().st_size <= 700_000


def test_the_recommended_model_has_one_name_on_page_picture_and_terminal(fake_run: Run, tmp_path: Path) -> None:
    data, front = data_of(report_html(fake_run, tmp_path / "r.html", ranking=False)), Front.of(fake_run)
    pick = front.pick("sensible").number
    assert data["choice"]["sensible"] == pick
    assert f"sensible: trial {pick}," in to_text(front, width=200)
    view = View.of(front)
    assert view.pick is not None
    assert view.pick.number == pick
    assert [trial.number for word, trial in view.named if word.split(",")[0] == "sensible"] == [pick]


@pytest.mark.slow
def test_nothing_in_a_run_can_end_the_data_or_act_as_markup(fake_run: Run, tmp_path: Path) -> None:
    path = report_html(hostile(fake_run), tmp_path / "r.html")
    outline, plain = outline_of(path), outline_of(report_html(fake_run, tmp_path / "plain.html", ranking=False))
    assert outline.tags == plain.tags
    assert data_of(path)["name"] == EVIL
    assert "alert(2)</script>" not in path.read_text(encoding="utf-8").partition('id="data"')[2]


def test_what_json_and_utf_8_cannot_hold_does_not_end_a_report(fake_run: Run, tmp_path: Path) -> None:
    assert json.loads(data_text({"a": [float("nan"), float("inf"), 1.0], "b": ("</script>",)})) == {
        "a": [None, None, 1.0],
        "b": ["</script>"],
    }
    run = replace(fake_run, name="bad \udc80 name", facts={**fake_run.facts, "study": {"description": "\udcff"}})
    assert data_of(report_html(run, tmp_path / "r.html", ranking=False))["name"] == "bad \udc80 name"


@pytest.mark.parametrize("count", [0, 1, 4])
def test_a_young_run_is_reported_with_what_is_still_unknown(count: int, tmp_path: Path) -> None:
    trials = tuple(
        make_trial(n, "complete", {"lr": 0.1 * n}, 1, values=(0.5 + 0.1 * n, 10.0 + n), train_joules=10.0 + n) for n in range(count)
    )
    run = Run(
        "young", tmp_path, ("accuracy", "train_energy"), ("maximize", "minimize"), (1,), (*trials, Trial(count, "running", {}, 0)), Bill()
    )
    data = data_of(report_html(run, tmp_path / "r.html"))
    assert data["running"] == 1
    assert [one["reason"] for one in data["importance"]] == [f"{count} different configurations were measured; at least 8 are needed"] * 2
    assert data["bill"]["total"] is None
    assert len(data["members"]) == count


def test_a_report_is_html(fake_run: Run, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a report is an HTML page, write for example report\.html"):
        report_html(fake_run, tmp_path / "report.pdf")


@pytest.mark.slow
def test_ten_thousand_trials_stay_small(fake_run_maker: Callable[..., Run], tmp_path: Path) -> None:
    run = fake_run_maker(configs=4450)
    assert len(run.trials) > 10_000
    path = report_html(run, tmp_path / "r.html", ranking=False)
    assert path.stat().st_size <= 2_000_000  # 16 MB before
    data = data_of(path)
    assert len(data["all"]["rows"]) == len(run.trials)
    assert len(data["others"]) + len(data["members"]) > 8000
