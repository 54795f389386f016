"""Files of a run folder that are damaged or somebody else's."""

import json
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from joulefront.search.records.files import BillFile, StudyFile, digest, read_json, write_json
from joulefront.search.records.trial import Trial, check_order, from_json, to_json

GOOD: dict[str, Any] = {
    "format": 1,
    "study": {"name": "s", "objectives": ["accuracy", "train_energy"], "directions": ["maximize", "minimize"], "rungs": [1]},
    "sessions": [{"hardware_id": "a", "later": {"version": 2}}],
    "intensity": {"grams_per_kwh": 56},
}
SUMMARY = {"name": "s", "kind": "classification", "metric": "accuracy", "examples": {"train": 3}}


def read(folder: Path, text: str, kind: Any = StudyFile) -> Any:
    (folder / "a.json").write_text(text)
    return read_json(folder / "a.json", kind, "restore it")


def test_what_fits_is_returned_as_it_was_written_with_what_a_later_version_added(tmp_path: Path) -> None:
    assert read(tmp_path, json.dumps(GOOD)) == GOOD


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"study": None}, "a.json.study must be an object, got None"),
        ({"study": {"name": "s"}}, "a.json.study has no entry 'directions'"),
        ({"study": {**GOOD["study"], "rungs": ["1"]}}, r"a.json.study.rungs\[0\] must be a whole number, got '1'"),
        ({"study": {**GOOD["study"], "directions": ["up"]}}, "must be one of maximize, minimize, got 'up'"),
        ({"sessions": [7]}, r"a.json.sessions\[0\] must be an object, got 7"),
        ({"pue": True}, "a.json.pue must be a number, got True"),
        ({"intensity": {"grams_per_kwh": -1}}, "grams_per_kwh must be a finite number >= 0"),
        ({"carbon": [{}]}, "has no entry 'forecast'"),
        ({"guessing": 5}, "guessing must be an object, got 5"),
        ({"data": []}, "data must be an object"),
        ({"data": {"kind": "regression"}}, "data has no entry 'examples'"),
        ({"data": {**SUMMARY, "classes": {"validation": {"a": "many"}}}}, r"data.classes.validation.a must be a whole number, got 'many'"),
        ({"data": {**SUMMARY, "classes": {"validation": 3}}}, "data.classes.validation must be an object, got 3"),
        ({"data": {**SUMMARY, "columns": [7]}}, r"data.columns\[0\] must be an object, got 7"),
        ({"data": {**SUMMARY, "warnings": "none"}}, "data.warnings must be a list, got 'none'"),
        ({"sessions": [{"hardware": {"devices": 5}}]}, "hardware.devices must be an object, got 5"),
        ({"fingerprint": {"data": {"input_shape": -1}}}, "data.input_shape must be a list, got -1"),
        ({"fingerprint": {"data": {"examples": {"train": "x"}}}}, "examples.*must be a whole number, got 'x'"),
    ],
)
def test_what_does_not_fit_is_named_with_its_place_its_rule_and_the_remedy(tmp_path: Path, changes: Any, said: str) -> None:
    with pytest.raises(ValueError, match=rf"a\.json' is damaged \(.*{said}.*\); restore it"):
        read(tmp_path, json.dumps({**GOOD, **changes}))


@pytest.mark.parametrize("text", ["NaN", "1e999", "-Infinity", "1e-200", "9" * 30, "9" * 5000, "[" * 100_000, "\ufeff{}", '{"a": 1'])
def test_numbers_and_nests_that_no_file_of_ours_holds_are_damage(tmp_path: Path, text: str) -> None:
    with pytest.raises(ValueError, match=r"a\.json' is damaged"):
        read(tmp_path, f'{{"sessions": [{text}]}}', BillFile)


def test_what_no_terminal_should_print_is_taken_out(tmp_path: Path) -> None:
    assert read(tmp_path, json.dumps({**GOOD, "run_id": "a\x1b[31m\ud800é\n"}))["run_id"] == "a?[31m?é\n"


def test_a_trial_of_other_types_is_refused_by_its_number() -> None:
    good = to_json(Trial(3, "complete", {"width": 8}, 1, (0.5, 1.0)))
    assert from_json({**good, "later": 1}) == from_json(good)
    for name, wrong in (("state", "done"), ("values", [None]), ("curve", [7]), ("components", {"cpu": 3}), ("extra", {"copy_of": "1"})):
        with pytest.raises(ValueError, match=rf"trial 3\..*{name}.* must be "):
            from_json({**good, name: wrong})


@pytest.mark.parametrize("wrong", [{"parent": 1}, {"parent": 5}, {"parent": -1}, {"extra": {"copy_of": 1}}, {"number": 4}])
def test_a_lineage_without_an_end_is_refused(wrong: dict[str, Any]) -> None:
    trials = [Trial(0, "complete", {}, 1), Trial(**{"number": 1, "state": "complete", "params": {}, "epochs": 1, **wrong})]
    with pytest.raises(ValueError, match=r"must (be|have) the number"):
        check_order(trials)


def test_numbers_of_numpy_are_written_as_numbers(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {**GOOD, "pue": np.float32(1.5), "baseline": {"n": np.int64(16), "shape": (1, np.int32(2))}})
    written = read_json(tmp_path / "a.json", StudyFile, "restore it")
    assert written["pue"] == 1.5
    assert written["baseline"] == {"n": 16, "shape": [1, 2]}
    assert digest({"n": np.int64(16)}) == digest({"n": 16})


def test_what_json_has_no_form_for_is_written_as_its_text(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {**GOOD, "baseline": {"seen": {1}, "at": date(2026, 3, 1)}})
    assert read_json(tmp_path / "a.json", StudyFile, "restore it")["baseline"] == {"seen": "{1}", "at": "2026-03-01"}
    assert digest({1}) == digest("{1}")
