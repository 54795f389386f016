"""The statement in LaTeX, BibTeX, JSON and BoAmps: the same numbers, nothing guessed, and no text of a run acts as markup."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import reduce
from typing import Any

import pytest
from helpers.page import hostile
from helpers.trials import make_trial
from jsonschema import Draft4Validator

from joulefront.search.front import Front
from joulefront.search.records.bill import Bill
from joulefront.search.records.run_folder import Run
from joulefront.search.report.statement import _algorithms, bibtex, escaped, facts, forms, latex, report

WORDS: dict[str, Any] = {"type": "string"}
NUMBER: dict[str, Any] = {"type": "number"}
SHARE = {**NUMBER, "minimum": 0, "maximum": 1}
MOMENT = {**WORDS, "pattern": r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d$"}


def of(**fields: dict[str, Any]) -> dict[str, Any]:
    """An object of these fields and no others; those whose names end in an underscore are required."""
    needed = [name.rstrip("_") for name in fields if name.endswith("_")]
    properties = {name.rstrip("_"): kind for name, kind in fields.items()}
    return {"type": "object", "properties": properties, "additionalProperties": False, **({"required": needed} if needed else {})}


def words(*allowed: str) -> dict[str, Any]:
    return {**WORDS, "enum": list(allowed)}


def some(item: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "minItems": 1, "items": item}


#: What BoAmps requires and allows, as a JSON Schema of the same draft. Names, types, required fields and words are those of the official
#: schemas; stricter than they: no other fields, times by their pattern, numbers that are finite. Of the newest measure schema only what
#: its database and its example show is known, without ``unit``; that of the release before required ``unit``, which the newest ignores.
#: Source: github.com/Boavizta/BoAmps, model/report_schema.json (01f4c8e), algorithm_schema.json (5546e7f), dataset_schema.json (4080193),
#: hardware_schema.json (20c9a98), db_model/schema/measure.py (5a40cb8); github.com/Boavizta/ai-power-measures-sharing, its name before,
#: model/measure_schema.json (edfaf67). The format is published under CC BY 4.0 (RELEASENOTE.md); no text of it stands here.
BOAMPS = Draft4Validator(
    of(
        header=of(
            licensing=WORDS,
            formatVersion=WORDS,
            formatVersionSpecificationUri=WORDS,
            reportId=WORDS,
            reportDatetime_=MOMENT,
            reportStatus=words("draft", "final", "corrective", "other"),
        ),
        task_=of(
            taskStage_=WORDS,
            taskFamily_=WORDS,
            nbRequest=NUMBER,
            algorithms_=some(
                of(
                    **{name: WORDS for name in ("trainingType", "algorithmType", "algorithmName", "framework", "frameworkVersion")},
                    parametersNumber=NUMBER,
                    epochsNumber=NUMBER,
                )
            ),
            dataset_=some(
                of(
                    dataUsage_=words("input", "output"),
                    dataType_=words("tabular", "audio", "boolean", "image", "video", "object", "text", "token", "word", "other"),
                    dataQuantity=NUMBER,
                )
            ),
            measuredAccuracy=SHARE,
            taskDescription=WORDS,
        ),
        measures_=some(
            of(
                measurementMethod_=WORDS,
                manufacturer=WORDS,
                version=WORDS,
                cpuTrackingMode=WORDS,
                gpuTrackingMode=WORDS,
                averageUtilizationCpu=SHARE,
                averageUtilizationGpu=SHARE,
                unit_=words("mWh", "Wh", "kWh", "MWh", "GWh"),
                powerConsumption_={**NUMBER, "minimum": 0},
                measurementDuration={**NUMBER, "minimum": 0},
                measurementDateTime=MOMENT,
            )
        ),
        system=of(os_=WORDS, distribution=WORDS, distributionVersion=WORDS),
        software=of(language_=WORDS, version=WORDS),
        infrastructure_=of(
            infraType_=words("publicCloud", "privateCloud", "onPremise", "other"),
            components_=some(
                of(componentName=WORDS, componentType_=WORDS, nbComponent_={"type": "integer"}, memorySize={"type": "integer"}, share=SHARE)
            ),
        ),
        environment=of(country_=WORDS, location=WORDS, powerSourceCarbonIntensity=NUMBER),
        quality=words("high", "medium", "low"),
    )
)


def check(found: dict[str, Any]) -> None:
    """Check a report, as a file has it, against the schema."""
    errors = [f"{one.json_path}: {one.message}" for one in BOAMPS.iter_errors(json.loads(json.dumps(found, allow_nan=False)))]
    assert errors == []


def paths(found: Any, before: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Every place in nested JSON."""
    for name, value in found.items() if isinstance(found, dict) else enumerate(found) if isinstance(found, list) else ():
        yield (*before, name)
        yield from paths(value, (*before, name))


def test_the_check_itself_refuses_every_value_of_another_type(fake_run: Run) -> None:
    found = report(fake_run, facts(fake_run))
    assert found is not None
    for *way, last in paths(found):
        wrong = json.loads(json.dumps(found))
        holder = reduce(lambda part, name: part[name], way, wrong)
        holder[last] = None
        assert not BOAMPS.is_valid(wrong), (*way, last)


@pytest.mark.parametrize(
    "machine",
    [
        {},
        {"cpu": "x86_64", "memory_bytes": 8.1e9},
        {"cpu_model": "EPYC", "sockets": 2, "system": "Linux", "devices": {"gpu:0": {"name": "H100"}, "gpu:1": "A10"}, "memory_bytes": 1},
        {"gpu": "NVIDIA T4", "sockets": None},
    ],
    ids=["unknown", "cpu", "server", "gpu"],
)
@pytest.mark.parametrize(
    "data", [{}, {"images": {}}, {"sound": {}}, {"columns": []}, {"text": {}}], ids=["other", "image", "audio", "table", "text"]
)
def test_boamps_is_valid_for_every_machine_and_kind_of_data(fake_run: Run, machine: dict[str, Any], data: dict[str, Any]) -> None:
    sessions = [{**one, "hardware": machine} for one in fake_run.facts["sessions"]]
    for trials in (fake_run.trials, ()):
        run = replace(fake_run, facts={**fake_run.facts, "sessions": sessions, "data": data}, trials=trials)
        found = report(run, facts(run))
        assert found is not None
        check(found)


def test_boamps_gets_what_it_asks_for_in_its_units(fake_run: Run) -> None:
    found = report(fake_run, facts(fake_run))
    assert found is not None
    check(found)
    total = fake_run.bill.total_joules or 0.0
    assert found["measures"][0]["powerConsumption"] == pytest.approx(total / 3.6e6)
    assert found["measures"][0]["unit"] == "kWh"
    assert found["environment"] == {"country": "FR", "powerSourceCarbonIntensity": 56.0}
    assert found["quality"] == "high"  # ±10 %: two standard uncertainties of 5 %
    assert found["measures"][0]["gpuTrackingMode"] == "nvml"
    assert report(fake_run, facts(fake_run)) == found  # with the same id
    assert found["measures"][0]["measurementDateTime"] == "2026-01-02 03:04:05"  # when the measurement began
    counts = {"train": 280, "validation": 60, "test": 60}
    earlier = {"examples": {**counts, "cross_validated": 340, "folds": 5}}
    for data in ({"examples": counts, "folds": 5}, earlier):
        folds = replace(fake_run, facts={**fake_run.facts, "fingerprint": {"data": {"kind": "classification", **data}}})
        again = report(folds, facts(folds))
        assert again is not None
        check(again)
        assert again["task"]["dataset"][0]["dataQuantity"] == 400


def test_what_is_unknown_is_left_out_or_null(fake_run: Run, fake_run_maker: Callable[..., Run]) -> None:
    elsewhere = facts(fake_run_maker(intensity=False))
    assert (elsewhere["grams_co2e"], elsewhere["place"]) == (None, None)
    found = report(fake_run_maker(intensity=False), elsewhere)
    assert found is not None
    assert "environment" not in found
    lost = replace(fake_run, bill=replace(fake_run.bill, u_joules=None))  # a component was lost: nobody knows how large the error is
    unsure = report(lost, facts(lost))
    assert unsure is not None
    assert unsure["quality"] == "low"
    assert "uncertaint" not in latex(facts(lost))
    timeless = replace(fake_run, facts={**fake_run.facts, "sessions": []})
    assert report(timeless, facts(timeless)) is None
    assert "does not say when" in forms(timeless)[4]["text"]
    bare = replace(fake_run, facts={}, bill=Bill(), trials=())
    assert report(bare, facts(bare)) is None
    assert [one["name"] for one in forms(bare)] == ["text", "LaTeX", "BibTeX", "JSON", "BoAmps"]
    assert "unknown" in latex(facts(bare))
    assert json.loads(forms(bare)[3]["text"])["kwh"] is None


def test_all_forms_name_the_same_energy_and_the_sensible_model(fake_run: Run) -> None:
    found, front = facts(fake_run), Front.of(fake_run)
    assert found["models"]["sensible"]["trial"] == front.choice.pick
    wh = f"{(fake_run.bill.total_joules or 0.0) / 3600:.1f}"
    assert all(wh in text for text in (latex(found), bibtex(found), forms(fake_run)[0]["text"]))
    assert [part["how"] for part in found["components"]] == ["measured", "estimated", "absent", "absent"]


def test_copies_and_ensembles_are_trials_and_no_trainings(fake_run: Run) -> None:
    ensemble = replace(fake_run.trials[0], number=99, params={"family": "ensemble"}, extra={"members": [0, 1]})
    run = replace(fake_run, trials=(*fake_run.trials, ensemble))
    found = facts(run)
    assert f"{len(run.trials)} trials" in latex(found)
    assert f"{len(run.trials)} trials" in bibtex(found)
    told = report(run, found)
    assert told is not None
    assert told["task"]["taskDescription"].startswith(f"Search over {len(run.trials)} trials, all")
    assert "ensemble" not in {one["algorithmName"] for one in told["task"]["algorithms"]}


def test_no_text_of_a_run_is_a_command_of_latex(fake_run: Run) -> None:
    found = facts(hostile(fake_run))
    found["study"] = "\\input{/etc/passwd} % $x_1^2$ {#}"
    text = bibtex(found)
    assert "\\input" not in text
    assert text.count("{") - text.count("\\{") == text.count("}") - text.count("\\}")
    assert escaped("a\nb") == "a b"
    body = latex({**found, "components": [{"component": "\\evil&%", "kwh": 1.0, "how": "measured", "meter": "x_y"}]})
    assert r"\textbackslash{}evil\&\%" in body
    assert "x\\_y" in body


def test_a_family_that_is_a_library_is_not_said_to_be_of_scikit_learn(fake_run: Run) -> None:
    trials = tuple(make_trial(n, "complete", {"family": name}) for n, name in enumerate(("lightgbm", "classical")))
    found = _algorithms(replace(fake_run, trials=trials), {"lightgbm": "4.6.0", "scikit-learn": "1.7.0"})
    assert [(one["framework"], one["frameworkVersion"]) for one in found] == [("scikit-learn", "1.7.0"), ("lightgbm", "4.6.0")]
