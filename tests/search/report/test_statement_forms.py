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

#: What BoAmps' schemas ask for: required keys, and the words that they allow.
REQUIRED = {
    "": {"task", "measures", "infrastructure"},
    "header": {"reportDatetime"},
    "task": {"taskStage", "taskFamily", "algorithms", "dataset"},
    "system": {"os"},
    "software": {"language"},
    "infrastructure": {"infraType", "components"},
    "environment": {"country"},
}
WORDS = {
    ("header", "reportStatus"): {"draft", "final", "corrective", "other"},
    ("infrastructure", "infraType"): {"publicCloud", "privateCloud", "onPremise", "other"},
}
DATA_TYPES = {"tabular", "audio", "boolean", "image", "video", "object", "text", "token", "word", "other"}


def check(found: dict[str, Any]) -> None:
    """Check a report against what the schemas ask for."""
    assert REQUIRED[""] <= found.keys()
    assert found.keys() <= {"header", "task", "measures", "system", "software", "infrastructure", "environment", "quality", "$hash"}
    for part, names in REQUIRED.items():
        assert part == "" or part not in found or names <= found[part].keys(), part
    for (part, name), words in WORDS.items():
        assert found[part].get(name) in words
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", found["header"]["reportDatetime"])
    assert found["task"]["algorithms"]
    assert all(isinstance(one.get("parametersNumber", 0.0), (int, float)) for one in found["task"]["algorithms"])
    assert 0 <= found["task"].get("measuredAccuracy", 0.5) <= 1
    assert all(one["dataUsage"] in ("input", "output") and one["dataType"] in DATA_TYPES for one in found["task"]["dataset"])
    assert all(one["measurementMethod"] and one["powerConsumption"] > 0 for one in found["measures"])
    assert all(isinstance(one["nbComponent"], int) and one["componentType"] for one in found["infrastructure"]["components"])
    assert all(isinstance(one.get("memorySize", 1), int) for one in found["infrastructure"]["components"])
    assert found["quality"] in ("high", "medium", "low")


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


def test_what_is_unknown_is_left_out_or_null(fake_run: Run, fake_run_maker: Callable[..., Run]) -> None:
    elsewhere = facts(fake_run_maker(intensity=False))
    assert (elsewhere["grams_co2e"], elsewhere["place"]) == (None, None)
    found = report(fake_run_maker(intensity=False), elsewhere)
    assert found is not None
    assert "environment" not in found
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
