"""A run folder goes on with what it was begun with, and with nothing else."""

import json
import re
import warnings
from collections.abc import Callable
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from joulefront.search import Study, run
from joulefront.search.billing.recovery import settle_killed
from joulefront.search.records.bill import add_up, read_sessions
from joulefront.search.records.run_folder import RunFolder, StoreError
from joulefront.search.running.identity import note_session, note_study
from joulefront.search.training.arrays import arrays

pytestmark = pytest.mark.slow

Maker = Callable[..., Study]


def data(rows: int = 600, seed: int = 0, wrong: int = 0) -> Any:
    """The rings, of another draw or with some labels turned round."""
    x = np.random.default_rng(seed).normal(size=(rows, 2)).astype("float32")
    y = ((x**2).sum(1) > 1.4).astype("int64")
    y[rows - wrong :] = 1 - y[rows - wrong :]
    return arrays(x, y, name="rings", classes=["inside", "outside"])


@pytest.fixture
def begun(rings: Maker, tmp_path: Path) -> tuple[Study, Path]:
    """A study of which two trials are done."""
    study = replace(rings(), task=data)
    run(study, out=tmp_path / "r", trials=2)
    return study, tmp_path / "r"


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (lambda: data(500), r"600 rows \(420 train, .*got 500 rows \(350 train"),
        (lambda: data(seed=1), r"2 inputs, 2 classes inside, outside.*alike in size; the values of the train and validation rows differ"),
        (lambda: data(wrong=1), r"the values of the .* rows differ"),
    ],
)
def test_models_of_other_data_do_not_meet_on_one_front(begun: tuple[Study, Path], other: Callable[[], Any], said: str) -> None:
    study, folder = begun
    before, spent = (folder / "study.json").read_text(), RunFolder.open(folder).run().bill.total_joules
    with pytest.raises(StoreError, match=rf"was made with other data: .*{said}.*--out"):
        run(replace(study, task=other), out=folder, trials=3)
    assert (folder / "study.json").read_text() == before  # no session was noted, and export still knows where the data lay
    assert RunFolder.open(folder).run().bill.total_joules == spent  # and what the mistake took is nobody's model
    assert len(RunFolder.open(folder).run().trials) == 2


def test_the_same_data_from_another_place_is_the_same_data(begun: tuple[Study, Path]) -> None:
    study, folder = begun
    run(replace(study, task=lambda: replace(data(), name="moved")), out=folder, trials=3)
    assert len(RunFolder.open(folder).run().trials) == 3


def test_other_ranges_and_other_fixed_settings_are_another_space(begun: tuple[Study, Path]) -> None:
    study, folder = begun
    recipe: Any = study.space.recipe  # type: ignore[attr-defined]
    wide: Any = replace(study.space, recipe=replace(recipe, learning_rate=(1e-4, 1e-1)))  # type: ignore[type-var]
    with pytest.raises(StoreError, match=re.escape("learning_rate: 0.001 to 0.1, logarithmic, now 0.0001 to 0.1, logarithmic")):
        run(replace(study, space=wide), out=folder, trials=3)
    large: Any = replace(study.space, recipe=replace(recipe, batch_size=128))  # type: ignore[type-var]
    with pytest.raises(StoreError, match=r"another space .*fixed"):
        run(replace(study, space=large), out=folder, trials=3)


def test_another_seed_is_refused_with_the_one_that_it_was(begun: tuple[Study, Path]) -> None:
    study, folder = begun
    with pytest.raises(StoreError, match=r"seed 0, now it is 99.*--seed 0 \(Python: seed=0\)"):
        run(replace(study, seed=99), out=folder, trials=3)


@pytest.mark.parametrize("other", ["freeze-thaw", "grid"])
def test_a_sampler_that_cannot_read_the_trials_is_refused(begun: tuple[Study, Path], other: str) -> None:
    study, folder = begun
    with pytest.raises(StoreError, match=f"searched by random.*{other} draws them from.*--sampler random"):
        run(replace(study, sampler=other), out=folder, trials=3)


def test_a_sampler_that_can_go_on_is_written_down(begun: tuple[Study, Path]) -> None:
    study, folder = begun
    run(replace(study, sampler="tpe", min_accuracy=0.5), out=folder, trials=3)
    facts = RunFolder.open(folder).facts
    assert (facts["study"]["sampler"], facts["study"]["min_accuracy"]) == ("tpe", 0.5)


def test_an_old_folder_without_a_fingerprint_goes_on_with_a_warning_and_has_one_then(begun: tuple[Study, Path]) -> None:
    study, folder = begun
    facts = json.loads((folder / "study.json").read_text())
    del facts["fingerprint"]
    (folder / "study.json").write_text(json.dumps(facts))
    with pytest.warns(UserWarning, match="does not say which data"):
        run(study, out=folder, trials=3)
    with pytest.raises(StoreError, match="other data"):
        run(replace(study, task=lambda: data(500)), out=folder, trials=4)


def test_a_folder_that_goes_on_with_other_libraries_gets_a_word_and_one_that_does_not_say_which_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here = {"xgboost-cpu": "3.2", "lightgbm": "4.7", "pandas": "3.0"}

    def version(name: str) -> str:
        if name not in here:
            raise metadata.PackageNotFoundError(name)
        return here[name]

    monkeypatch.setattr(metadata, "version", version)
    ledger: Any = SimpleNamespace(total=lambda: SimpleNamespace(hardware_id="a", hardware={}))

    def go_on(**there: str) -> Any:
        before: dict[str, Any] = {"hardware_id": "a", "versions": there}
        store: Any = SimpleNamespace(path=Path("run"), facts={"sessions": [before]}, save_facts=lambda facts: facts)
        return note_session(store, ledger, None, None)["sessions"][-1]["versions"]

    with pytest.warns(
        UserWarning, match=r"'run' was run with other versions \(lightgbm 4\.7 for 4\.3, catboost missing for 1\.2\): the same"
    ):
        found = go_on(lightgbm="4.3", xgboost="3.2", pandas="1.0", catboost="1.2")
    assert {name: found.get(name) for name in ("lightgbm", "xgboost", "pandas")} == {"lightgbm": "4.7", "xgboost": "3.2", "pandas": "3.0"}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        go_on(lightgbm="4.7")


def test_a_start_that_failed_binds_nobody(rings: Maker, tmp_path: Path) -> None:
    def broken() -> Any:
        raise ValueError("no data here")

    with pytest.raises(ValueError, match="no data here"):
        run(replace(rings(), task=broken), out=tmp_path / "r")
    run(replace(rings(), seed=1, task=data), out=tmp_path / "r", trials=1)
    spent = read_sessions(tmp_path / "r" / "bill.json")
    with pytest.raises(ValueError, match="no data here"):
        run(replace(rings(), seed=1, task=broken), out=tmp_path / "r", trials=2)
    again = RunFolder.open(tmp_path / "r")
    sessions = read_sessions(again.bill_file)
    assert sessions[:-1] == spent
    assert (sessions[-1]["refused"], sessions[-1]["by_state_joules"], sessions[-1]["total"]) == ("no data here", {}, None)
    assert settle_killed(sessions, again.ledger_file) == {}  # the ledger's file does not bill it, either
    assert [len(sessions), add_up(sessions)] == [2, add_up(spent)]
    assert RunFolder.open(tmp_path / "r").facts["study"]["seed"] == 1


def test_a_file_that_nobody_could_read_again_is_refused_before_anything_is_paid(rings: Maker, tmp_path: Path) -> None:
    study, task = rings(rungs=(1,)), data()
    object.__setattr__(task, "input_shape", ("8",))
    store = RunFolder(tmp_path, {"format": 1, "sessions": []})
    with pytest.raises(ValueError, match=r"study.json.fingerprint.data.input_shape\[0\] must be a whole number, got '8'"):
        note_study(store, study, task)
    assert not (tmp_path / "study.json").exists()
