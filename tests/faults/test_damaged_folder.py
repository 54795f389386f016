"""One recorded folder, one thing damaged at a time: what reads it says in one line what is wrong, and never shows another figure."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.workers import recorded_run, sleeping, sleeping_study

from joulefront.search import load, run
from joulefront.search.records.bill import read_bill
from joulefront.search.records.run_folder import RunFolder
from joulefront.search.report.page import report_html

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return recorded_run(tmp_path_factory.mktemp("recorded") / "run")


def damaged(recorded: Path, out: Path, name: str, *keys: Any, put: Any = None) -> Path:
    """Copy the folder, and put something else at a place of one of its files, or leave the entry out."""
    shutil.copytree(recorded, out)
    whole = here = json.loads((out / name).read_text())
    for key in keys[:-1]:
        here = here[key]
    if put is None:
        del here[keys[-1]]
    else:
        here[keys[-1]] = put
    (out / name).write_text(json.dumps(whole))
    return out


def again(path: Path) -> Any:
    with sleeping():
        return run(sleeping_study(), out=path, trials=4, meter="cpu_time")


def page(path: Path) -> Any:
    return report_html(RunFolder.open(path).run(), path / "page.html", ranking=False)


@pytest.mark.parametrize(
    ("read", "name", "keys", "put", "said"),
    [
        (again, "study.json", ("study", "sampler"), None, "must say the sampler of its study, got none"),
        (again, "study.json", ("study", "seed"), None, "must say the seed of its study, got none"),
        (page, "study.json", ("sessions", 0, "versions", "joulefront"), 7, "versions.joulefront must be a text, got 7"),
        (page, "study.json", ("data", "examples"), None, r"is damaged \(study.json.data has no entry 'examples'\)"),
        (page, "study.json", ("data", "classes", "train"), "x", "data.classes.train must be an object, got 'x'"),
        (page, "study.json", ("data", "guessing", "accuracy"), "x", r"is damaged \(data: "),
        (load, "study.json", ("fingerprint", "data", "contents"), "x", "contents must be an object, got 'x'"),
        (load, "bill.json", ("sessions", 0, "total"), None, "must have the same components"),
        (load, "bill.json", ("sessions", 0, "by_component_joules"), {"gpu:a": 3.0}, "must have the same components"),
    ],
)
def test_damage_is_named_in_one_line(
    recorded: Path, tmp_path: Path, read: Callable[[Path], Any], name: str, keys: tuple[Any, ...], put: Any, said: str
) -> None:
    with pytest.raises(ValueError, match=said) as refused:
        read(damaged(recorded, tmp_path / "run", name, *keys, put=put))
    assert "restore it from a copy" in str(refused.value)


def test_a_bill_without_its_components_has_what_came_before_the_ledger(recorded: Path, tmp_path: Path) -> None:
    path = damaged(recorded, tmp_path / "run", "bill.json", "sessions", 0, "by_component_joules")
    assert read_bill(path / "bill.json").total_joules == pytest.approx(read_bill(recorded / "bill.json").total_joules)


def test_a_copy_of_the_trials_that_was_altered_is_not_read(recorded: Path, tmp_path: Path) -> None:
    assert RunFolder.open(recorded)._snapshot() is not None
    path = damaged(recorded, tmp_path / "run", "trials.json", "trials", 0, "train_joules", put=-1.0)
    assert load(path).to_csv() == load(recorded).to_csv()
    (path / "study.db").write_bytes(b"no database")
    with pytest.raises(ValueError, match="missing, damaged"):
        RunFolder.repair(path)


def test_a_database_that_this_user_may_not_read_is_not_made_again(recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = Path(shutil.copytree(recorded, tmp_path / "run"))
    (path / "trials.json").write_text("lost")
    before = (path / "study.db").read_bytes()
    monkeypatch.setattr("os.access", lambda file, mode: Path(file).name != "study.db")
    for use in (load, again, RunFolder.repair):
        with pytest.raises(PermissionError, match=r"study\.db"):
            use(path)
    assert (path / "study.db").read_bytes() == before
