"""The statement in LaTeX, BibTeX, JSON and BoAmps: the same numbers, nothing guessed, and no text of a run acts as markup."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from helpers.page import hostile

from joulefront.search.front import Front
from joulefront.search.records.bill import Bill
from joulefront.search.records.run_folder import Run
from joulefront.search.report.statement_forms import bibtex, escaped, facts, forms, latex, report

WORDS, NUMBER, WHOLE, SHARE, MOMENT = str, (int, float), int, "0 to 1", re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d")
#: The fields of BoAmps' schemas (version of April 2026) with their types, by object; those with a star are required, sets are the words
#: that are allowed.
#: Source: github.com/Boavizta/BoAmps, model/report_schema.json, algorithm_, dataset_, measure_ and hardware_schema.json.
SCHEMA: dict[str, dict[str, Any]] = {
    "": {
        **{name: dict for name in ("header", "*task", "system", "software", "*infrastructure", "environment")},
        "*measures": list,
        "quality": {"high", "medium", "low"},
    },
    "header": {
        **{name: WORDS for name in ("licensing", "formatVersion", "formatVersionSpecificationUri", "reportId")},
        "*reportDatetime": MOMENT,
        "reportStatus": {"draft", "final", "corrective", "other"},
    },
    "task": {
        **{name: WORDS for name in ("*taskStage", "*taskFamily", "taskDescription")},
        **{name: list for name in ("*algorithms", "*dataset")},
        "nbRequest": NUMBER,
        "measuredAccuracy": SHARE,
    },
    "algorithms": {
        **{name: WORDS for name in ("trainingType", "algorithmType", "algorithmName", "framework", "frameworkVersion", "optimizer")},
        **{name: NUMBER for name in ("parametersNumber", "layersNumber", "epochsNumber")},
    },
    "dataset": {
        "*dataUsage": {"input", "output"},
        "*dataType": {"tabular", "audio", "boolean", "image", "video", "object", "text", "token", "word", "other"},
        "dataQuantity": NUMBER,
    },
    "measures": {
        **{name: WORDS for name in ("*measurementMethod", "manufacturer", "version", "cpuTrackingMode", "gpuTrackingMode")},
        **{name: NUMBER for name in ("*powerConsumption", "measurementDuration")},
        "measurementDateTime": MOMENT,
    },
    "system": {"*os": WORDS, "distribution": WORDS, "distributionVersion": WORDS},
    "software": {"*language": WORDS, "version": WORDS},
    "infrastructure": {"*infraType": {"publicCloud", "privateCloud", "onPremise", "other"}, "*components": list},
    "components": {"componentName": WORDS, "*componentType": WORDS, "*nbComponent": WHOLE, "memorySize": WHOLE, "share": SHARE},
    "environment": {"*country": WORDS, "location": WORDS, "powerSourceCarbonIntensity": NUMBER},
}


def check(found: dict[str, Any], part: str = "") -> None:
    """Check a report against the schema: required fields, no others, types, words; lists have an entry at least."""
    fields = {name.lstrip("*"): kind for name, kind in SCHEMA[part].items()}
    assert {name.lstrip("*") for name in SCHEMA[part] if name.startswith("*")} <= found.keys() <= fields.keys(), part
    for name, value in found.items():
        kind, where = fields[name], f"{part}.{name}: {value!r}"
        if isinstance(kind, re.Pattern):
            assert kind.fullmatch(value), where
        elif kind == SHARE:
            assert 0 <= value <= 1, where
        elif isinstance(kind, set):
            assert value in kind, where
        else:
            assert isinstance(value, kind), where
            assert not isinstance(value, bool), where
        for one in [value] if kind is dict else value if kind is list else []:
            check(one, name)
        assert kind is not list or value, where


def test_boamps_gets_what_it_asks_for_in_its_units(fake_run: Run) -> None:
    found = report(fake_run, facts(fake_run))
    assert found is not None
    check(found)
    total = fake_run.bill.total_joules or 0.0
    assert found["measures"][0]["powerConsumption"] == pytest.approx(total / 3.6e6)  # kWh
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
