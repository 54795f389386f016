"""The verbs that train nothing: they show, compare and price a run that is stored."""

import csv
import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.command_line import Circle, refused, say

from joulefront.search import formatting
from joulefront.search.energy.doctor import diagnose_machine
from joulefront.search.formatting import hanging
from joulefront.search.records.run_folder import RunFolder
from joulefront.search.training.feature_cache import FeatureCache

pytestmark = pytest.mark.slow

# -- run folders ---------------------------------------------------------------------------------------------------------------------------


def change(folder: Path, **changes: Any) -> None:
    file = folder / "study.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


SPOILT: dict[str, tuple[Callable[[Path], Any], list[str]]] = {
    "another version": (lambda run: change(run, format=99), ["format 99", "the version that wrote it"]),
    "no study.json": (lambda run: (run / "study.json").unlink(), ["no study.json", "half written"]),
    "half of study.json": (lambda run: (run / "study.json").write_text('{"format": 1, "stu'), ["study.json", "damaged"]),
    "another study.json": (lambda run: (run / "study.json").write_text("[1, 2]"), ["study.json", "damaged"]),
    "bytes in study.json": (lambda run: (run / "study.json").write_bytes(b"\xff\xfe\x00"), ["study.json", "damaged"]),
    "study.json without a study": (lambda run: change(run, study=None), ["study.json", "damaged"]),
    "no database": (lambda run: (run / "study.db").unlink(), ["study.db", "restore it"]),
    "an empty database": (lambda run: (run / "study.db").write_bytes(b""), ["study.db", "no such table", "restore it"]),
    "bytes in the database": (lambda run: (run / "study.db").write_bytes(b"nonsense" * 999), ["study.db", "restore it"]),
    "half of the bill": (lambda run: (run / "bill.json").write_text('{"sess'), ["bill.json", "damaged"]),
}


@pytest.mark.parametrize("how", SPOILT)
def test_a_run_folder_that_cannot_be_read_is_explained_and_left_unchanged(call: Callable[..., Any], folder: Path, how: str) -> None:
    spoil, parts = SPOILT[how]
    spoil(folder)
    before = {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}
    refused(call("front", folder), *parts)
    refused(call("export", folder, "--to", "onnx", "-o", "model"), *parts)
    assert {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()} == before
    assert not Path("model").exists()


def test_a_missing_run_folder_names_its_neighbours(call: Callable[..., Any], folder: Path) -> None:
    refused(call("front", folder.with_name("rnu")), "does not exist", "there are: run")


# -- the front -----------------------------------------------------------------------------------------------------------------------------

KEYS = [
    "trial",
    "epochs",
    "accuracy",
    "train_joules",
    "train_wh",
    "grams_co2e",
    "inference_joules_per_1000",
    "parameters",
    "quality",
    "params",
    "contended",
    "low",
    "high",
    "validation_examples",
    "right",
    "ties_best",
    "beats_guessing",
    "sensible",
    "baseline",
    "validation_folds",
]


def test_the_front_as_json_has_the_promised_keys_and_null_where_unknown(call: Callable[..., Any], folder: Path) -> None:
    said = call("front", folder, "--json")
    rows = json.loads(said.out)
    assert said.err == ""
    assert [list(row) for row in rows] == [KEYS, KEYS]
    assert rows[0] == {
        "trial": 0,
        "epochs": 1,
        "accuracy": 0.7,
        "train_joules": 36.0,
        "train_wh": 0.01,
        "grams_co2e": None,
        "inference_joules_per_1000": None,
        "parameters": 100,
        "quality": "estimated",
        "params": {"width": 4},
        "contended": False,
        "low": None,
        "high": None,
        "validation_examples": None,
        "right": None,
        "ties_best": False,
        "beats_guessing": None,
        "sensible": False,
        "baseline": False,
        "validation_folds": None,
    }


def test_grams_follow_the_zone(circle: Circle) -> None:
    rows = json.loads(say("front", circle.path, "--json")[0])
    assert rows
    for row in rows:
        assert row["train_joules"] > 0
        assert row["train_wh"] == pytest.approx(row["train_joules"] / 3600)
        assert 20 < row["grams_co2e"] / (row["train_wh"] / 1000) < 100  # a French kWh
        assert row["quality"] == "estimated"
        assert set(row["params"]) == {"width", "learning_rate"}


def test_the_front_as_csv_is_the_same(call: Callable[..., Any], folder: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(call("front", folder, "--csv").out)))
    assert list(rows[0]) == KEYS
    assert [float(row["train_joules"]) for row in rows] == [36.0, 360.0]
    assert rows[1]["grams_co2e"] == ""
    assert json.loads(rows[1]["params"]) == {"width": 5}


def test_complete_leaves_out_what_was_stopped_early(call: Callable[..., Any], folder: Path) -> None:
    rows = json.loads(call("front", folder, "--json", "--complete").out)
    assert [row["trial"] for row in rows] == [1]


def test_the_front_as_a_table_names_the_quality_of_its_energy(call: Callable[..., Any], folder: Path) -> None:
    said = call("front", folder)
    assert "knee" in said.out
    assert "2 of 3 trials are on the front" in said.out
    assert "estimated" in said.out


def test_one_model_is_printed_by_the_rule_that_exports_it(call: Callable[..., Any], folder: Path) -> None:
    said = call("front", folder, "--pick", "cheapest")
    assert said.out.startswith("trial 0 (cheapest")
    assert "0.7000, 10 mWh, 1 epoch" in said.out
    assert "width=4" in said.out
    assert [row["trial"] for row in json.loads(call("front", folder, "--pick", "accuracy>=0.8", "--json").out)] == [1]
    assert "not on the front" in call("front", folder, "--pick", "trial=2").out
    assert len(call("front", folder, "--pick", "trial=2", "--csv").out.splitlines()) == 2
    refused(call("front", folder, "--pick", "fastest"), "must be a rule, got 'fastest'")


@pytest.mark.parametrize(
    "words",
    [
        ["studies"],
        ["studies", "table"],
        ["cache"],
        ["doctor", "--meter", "cpu_time"],
        ["front"],
        ["compare"],
        ["price", "--zones", "FR,US"],
    ],
)
def test_no_line_is_wider_than_the_terminal(
    call: Callable[..., Any], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("JOULEFRONT_CACHE", str(tmp_path / "k"))
    facts = {"backbone": "a_network_with_a_long_name@0123456789abcdef", "feature_set": "pooled and averaged over all of the places"}
    FeatureCache(tmp_path / "k").write("0123456789abcdef" * 2, facts, 3, [(np.ones((3, 4)), np.zeros(3, dtype=np.int64))])
    runs = {"front": [folder], "price": [folder], "compare": [folder, Path("run")]}.get(words[0], [])
    out = call(words[0], *runs, *words[1:]).out
    assert [line for line in out.splitlines() if len(line) > 80 and str(tmp_path) not in line] == []
    assert len(out.splitlines()) > 3


@pytest.mark.parametrize("terminal", [None, 80, 105, 140])
def test_the_doctor_breaks_no_line_twice(monkeypatch: pytest.MonkeyPatch, terminal: int | None) -> None:
    monkeypatch.setattr(shutil, "get_terminal_size", lambda fallback=(80, 24): os.terminal_size((terminal or fallback[0], 24)))
    monkeypatch.setattr(formatting, "get_terminal_size", shutil.get_terminal_size)
    text = diagnose_machine("cpu_time").to_text()
    assert hanging(text) == text


@pytest.mark.parametrize("words", [["report", "x.html"], ["plot", "x.svg"], ["measure", "x.json"]])
def test_missing_folders_of_an_output_are_made_by_every_verb(
    call: Callable[..., Any], folder: Path, tmp_path: Path, words: list[str]
) -> None:
    verb, name = words
    out = tmp_path / "not" / "there" / name
    said = call("measure", "--meter", "cpu_time", "-o", out, "true") if verb == "measure" else call(verb, folder, "-o", out)
    assert (said.code, out.is_file()) == (0, True)


def test_predictions_go_with_every_form_of_the_front(call: Callable[..., Any], folder: Path) -> None:
    refused(call("front", folder, "--predictions", "10M", "--csv"), "--objectives accuracy,train_energy,inference_energy")
    refused(call("report", folder, "--predictions", "10M"), "--objectives accuracy,train_energy,inference_energy")
    refused(call("front", folder, "--csv", "--json"), "exclude each other")


# -- pictures and pages --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "begin"), [("f.html", b"<!doctype html>"), ("f.png", b"\x89PNG"), ("f.svg", b"<?xml")])
def test_the_front_is_drawn_by_the_ending(circle: Circle, tmp_path: Path, name: str, begin: bytes) -> None:
    out, err = say("plot", circle.path, "-o", tmp_path / "new" / name)
    assert out == f"{tmp_path / 'new' / name}\n"
    assert err == ""
    assert (tmp_path / "new" / name).read_bytes().lstrip().lower()[: len(begin)] == begin.lower()


def test_a_plot_with_an_unknown_ending_lists_the_known_ones(call: Callable[..., Any], folder: Path) -> None:
    refused(call("plot", folder, "-o", "front.gif"), "'front.gif'", ".html, .png, .svg")
    assert not Path("front.gif").exists()


def test_a_comparison_is_printed_and_drawn_and_an_unknown_one_is_refused(call: Callable[..., Any], folder: Path) -> None:
    said = call("plot", folder, "--of", "relations", "-o", "new/relations.png")
    assert said.code == 0
    assert "Spearman" in said.out
    assert said.out.rstrip().endswith("new/relations.png")
    assert Path("new/relations.png").stat().st_size > 5_000
    refused(call("plot", folder, "--of", "tactics", "-o", "t.png"), "'plain'")
    refused(call("plot", folder, "--of", "sizes", "-o", "t.png"), "--of must be front, relations or tactics", "'sizes'")
    refused(call("plot", folder, "--of", "relations", "-o", "t.html"), "'t.html'", ".png or .svg")


def test_the_report_is_one_page_that_needs_no_network(circle: Circle, tmp_path: Path) -> None:
    out, _ = say("report", circle.path, "-o", tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert out.strip() == str(tmp_path / "report.html")
    assert "circle" in page
    assert "cpu_time" in page
    assert 'src="http' not in page


# -- other places, other runs, this machine ------------------------------------------------------------------------------------------------


def test_the_same_run_is_priced_and_compared(circle: Circle, same: Circle) -> None:
    rows = json.loads(say("price", circle.path, "--zones", "FR,PL", "--price", "0.25EUR", "--pue", "1.5", "--json")[0])
    assert rows[1]["search_grams_co2e"] > rows[0]["search_grams_co2e"]
    assert rows[0]["search_cost"] == pytest.approx(rows[0]["search_kwh"] * 1.5 * 0.25)
    assert len(json.loads(say("compare", circle.path, same.path, "--json")[0])) == 2


def test_two_runs_are_compared_and_priced(call: Callable[..., Any], folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "other")
    rows = json.loads(call("compare", folder, "other", "--json").out)
    assert len(rows) == 2
    assert "0.9000" in call("compare", folder, "other").out
    places = json.loads(call("price", folder, "--zones", "FR, PL", "--json").out)
    assert [row["zone"] for row in places] == ["FR", "PL"]
    assert places[0]["knee_grams_co2e"] < places[1]["knee_grams_co2e"]
    assert "the PUE of 1, energy does not" in call("price", folder, "--zones", "FR").out


def test_verbs_that_read_work_on_a_folder_that_cannot_be_written_and_change_nothing(call: Callable[..., Any], folder: Path) -> None:
    shutil.copytree(folder, "other")
    for file in (*folder.rglob("*"), folder):
        file.chmod(0o555 if file.is_dir() else 0o444)
    before = {file: (file.stat().st_mtime_ns, file.is_file() and file.read_bytes()) for file in (*folder.rglob("*"), folder)}
    verbs = (["front"], ["plot", "-o", "a.svg"], ["report", "-o", "a.html"], ["compare", "other"], ["price", "--zones", "FR"])
    for verb, *options in verbs:
        assert call(verb, folder, *options).code == 0
    assert {file: (file.stat().st_mtime_ns, file.is_file() and file.read_bytes()) for file in (*folder.rglob("*"), folder)} == before
    folder.chmod(0o755)


def test_a_lost_database_is_made_again(call: Callable[..., Any], folder: Path) -> None:
    store = RunFolder.open(folder)
    store.save_snapshot(store.study())
    before = call("front", folder, "--json").out
    refused(call("repair", folder), "nothing to repair")
    (folder / "study.db").unlink()
    refused(call("front", folder), "lost its study.db", "joulefront repair")
    assert "has its database again, with 3 trials" in call("repair", folder).out
    assert call("front", folder, "--json").out == before


def test_unknown_zones_and_malformed_prices_are_refused(call: Callable[..., Any], folder: Path) -> None:
    refused(call("price", folder, "--zones", "ATLANTIS"), "ATLANTIS")
    refused(call("price", folder, "--zones", "FR", "--price", "0,25EUR"), "0.25EUR", "decimals with a point")


def test_the_doctor_prints_json_and_text(call: Callable[..., Any]) -> None:
    said = call("doctor", "--json", "--meter", "cpu_time", "--zone", "FR")
    found = json.loads(said.out)
    assert said.code == 0
    assert {finding["subject"] for finding in found["findings"]} >= {"gpu", "cpu", "dram", "wall", "carbon"}
    assert next(f for f in found["findings"] if f["subject"] == "cpu" and f["source"] == "cpu_time")["quality"] == "estimated"
    text = call("doctor", "--meter", "cpu_time").out
    assert "->" in text
    assert "--zone" in text


# -- the cache ----------------------------------------------------------------------------------------------------------------------------


def test_the_cache_of_features_is_shown_and_cleared(call: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOULEFRONT_CACHE", str(tmp_path / "kept"))
    assert " ".join(call("cache").out.split()) == f"{tmp_path / 'kept'}: 0 entries, 0.0 MB of at most 21 GB"
    facts = {"backbone": "lite0 12ab", "feature_set": "pooled"}
    FeatureCache(tmp_path / "kept").write("0123456789abcdef" * 2, facts, 3, [(np.ones((3, 4)), np.zeros(3, dtype=np.int64))])
    assert call("cache").out.splitlines()[2].split() == ["0123456789ab", "0.0", "3", "pooled", "of", "lite0", "12ab"]
    rows = json.loads(call("cache", "--json").out)
    assert [(row["rows"], row["backbone"]) for row in rows["entries"]] == [(3, "lite0 12ab")]
    assert rows["bytes"] == rows["entries"][0]["bytes"] > 3 * 4 * 2
    assert "0.0 MB of features removed" in call("cache", "--clear").out
    assert json.loads(call("cache", "--json").out)["entries"] == []


# -- data ----------------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    file = tmp_path / "t.csv"
    file.write_text("a,b,c,y\n" + "".join(f"{k % 7},{k % 5 * 1.5},{k % 11},{'pq'[k % 3 == 0]}\n" for k in range(90)))
    return file


def test_inspect_shows_what_a_study_would_make_of_data(call: Any, rows: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "72")
    text = call("inspect", rows, "--target", "y", "--drop", "c").out
    assert max(map(len, text.splitlines())) <= 72
    for part in ("t: classification, 90 examples", "guessing gives accuracy 0.6", "used as number: a, b", "c (asked for)"):
        assert part in text
    found = json.loads(call("inspect", rows, "--target", "a", "--kind", "regression", "--json").out)
    assert (found["kind"], found["metric"], found["split"]) == ("regression", "r2", "random")
    refused(call("inspect", rows, "--target", "y", "--split", "kfold"), "random, time:COLUMN or group:COLUMN")


def test_inspect_of_a_table_without_a_target_shows_its_columns_and_what_to_type_next(call: Any, tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_text("Datum;Preis;Ort\n" + "".join(f"{k % 28 + 1:02}.01.2024;{'1.' * (k > 8)}{k + 100};{'pq'[k % 2]}\n" for k in range(60)))
    text = call("inspect", file).out
    for part in (
        "60 rows",
        "Datum   date     01.01.2024; 02.01.2024",
        "Preis   number   100; 101",
        "Ort     text     p; q",
        "points of thousands",
    ):
        assert part in text
    assert " ".join(text.split()).endswith(f"give the column to predict: joulefront inspect {file} --target NAME")
    refused(call("inspect", file, "--json"), "--target NAME; its columns are Datum, Preis, Ort")


def test_studies_lists_the_options_of_one_with_their_meaning(call: Any) -> None:
    text = call("studies", "table").out
    for option in (
        "--target VALUE",
        "--drop VALUE",
        "--split VALUE",
        "--metric VALUE",
        "--set max_levels=VALUE",
        "Required.",
        "Default: 32.",
    ):
        assert option in text
    refused(call("studies", "tabel"), "unknown study 'tabel'")
