"""Files of a run folder and options that are damaged, foreign or hostile: each ends well or in one line of our own, and never hangs."""

import contextlib
import copy
import io
import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
import typer.main
from faults.fuzzing import NASTY, VALUE, Reached, cut, ends_well, fuzz
from helpers.trials import make_trial
from hypothesis import given
from hypothesis import strategies as st

from joulefront.search.billing.recovery import settle_killed
from joulefront.search.cli import app, main
from joulefront.search.energy import Component, Record
from joulefront.search.records.bill import add_up, read_sessions
from joulefront.search.records.files import digest
from joulefront.search.records.replicates import Plan, Repeat, Repeats
from joulefront.search.records.run_folder import RunFolder
from joulefront.search.records.trial import ATTRIBUTE, ComponentEnergy
from joulefront.search.running.carbon_session import keep_place

# -- a run folder that holds everything -------------------------------------------------------------------------------------------------


def record(joules: float) -> Record:
    cpu = Component("cpu", joules, "cpu_time", "estimated", u_random_joules=1.0, u_systematic_joules=2.0)
    wall = Component("wall", 2 * joules, "wall", "measured", counts=False, u_random_joules=1.0)
    return Record("a.1", "total", None, "total", "ok", "2026-01-01T00:00:00+00:00", 0, 10**10, 10.0, (cpu, wall), "abc", {"cpu": "x"})


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("good") / "run"
    hours = [{"hour": "2026-01-01T00:00+00:00", "joules": 5.0, "grams": 0.1}]
    carbon = {
        "forecast": "f",
        "joules": 9.0,
        "grams": 0.1,
        "trainings": {"joules": 5.0, "grams": 0.1, "grams_at_once": 0.2},
        "hours": hours,
    }
    carbon |= {"waits": [], "hours_waited": 1.0, "wait_joules": 0.0, "wait_grams": 0.0, "deadline": "2026-01-02T00:00:00+00:00"}
    session = {"started": "2026-01-01T00:00:00+00:00", "ended": "2026-01-01T01:00:00+00:00", "hardware_id": "abc", "hardware": {"cpu": "x"}}
    session |= {"versions": {"torch": "2"}, "reason": "done", "command": "joulefront run x", "device": "cpu", "threads": 1, "meter": "auto"}
    bounds = {f"{kind}{name}": 10.0 for name in ("joules", "trials", "seconds") for kind in ("", "low_", "high_")}
    facts = {
        "run_id": "full-1",
        "study": {"name": "full", "objectives": ["accuracy", "train_energy"], "directions": ["maximize", "minimize"], "rungs": [1, 3]}
        | {"sampler": "random", "seed": 0, "space": "own", "description": "d", "min_accuracy": 0.1, "complete_only": False},
        "origin": {"source": "subprocess:getoutput", "options": {"cmd": "false"}, "overrides": {"seed": 1}},
        "intensity": {"grams_per_kwh": 56.0, "zone": "FR", "source": "s", "year": 2023, "kind": "average", "scope": "unknown"},
        "pue": 1.1,
        "price_per_kwh": [0.25, "EUR"],
        "carbon": [carbon],
        "estimate": bounds,
        "expected": [{**bounds, "share": 0.25, "done": 1}],
        "anchor": {"joules": [1.0, 1.1, None], "params": {"width": 3}},
        "budget": "5Wh",
        "sessions": [session],
    }
    folder = RunFolder.create(path, facts)
    study, whole = folder.study(), record(40.0).to_json()
    for number in range(8):
        joules = 10.0 * 2**number
        trial = make_trial(
            number,
            "complete",
            {"family": ("plain", "other")[number % 2], "width": 4 + number},
            3 if number % 2 else 1,
            (0.5 + 0.05 * number, joules),
            {"accuracy": 0.5 + 0.05 * number, "loss": 1.0},
            joules,
            1.0,
            increment_joules=joules,
            parameters=100 + number,
            flops=1000,
            train_seconds=5.0,
            cpu_seconds=4.0,
            energy_quality="estimated",
            components={"cpu": ComponentEnergy(joules, "estimated", "cpu_time")},
            curve=({"epoch": 1, "loss": 1.0, "accuracy": 0.5, "joules": joules / 2},),
            complete_training=bool(number % 2),
            hardware_id="abc",
            parent=number - 1 if number % 2 else None,
            record=whole,
            extra={"copy_of": 0} if number == 6 else {"threads": 1, "train_examples": 50, "asked_epochs": 3},
        )
        ranges = {"family": optuna.distributions.CategoricalDistribution(["plain", "other"])}
        ranges |= {"width": optuna.distributions.IntDistribution(1, 99)}
        one = {
            "params": dict(trial.params),
            "distributions": ranges,
            "values": list(trial.values),
            "user_attrs": {ATTRIBUTE: trial.facts()},
        }
        study.add_trial(optuna.trial.create_trial(**one))
    folder.bill_file.write_text(json.dumps({"sessions": [bill(closed=True), bill(closed=False)]}))
    (path / "ledger.jsonl").write_bytes(b"\n".join(json.dumps(line).encode() for line in ledger()))
    repeats = Repeats().with_plan(Plan("2026-01-01T00:00:00+00:00", (0, 1), 3, "random", 0))
    for place in range(6):
        one = Repeat(0, place % 2, place // 2, place, 1, 3, {"accuracy": 0.5 + 0.01 * place}, 10.0 + place, 0.1, 11.0)
        repeats = repeats.with_training(one)
    (path / "repeats.json").write_text(json.dumps(repeats.to_json()))
    folder.save_snapshot(study)
    return path


def bill(*, closed: bool) -> dict[str, Any]:
    states = {"complete": 30.0, "overhead": 10.0}
    opened = {} if closed else {"7": 3.0}
    parts = {"by_component_joules": {"cpu": 40.0}, "unknown_seconds": {"gpu": 1.0}, "open_trials_joules": opened, "open_repeats_joules": {}}
    named = {"started": "2026-01-01T00:00:00+00:00", "ledger_session": "a", "closed": closed, "total": record(40.0).to_json()}
    return {"by_state_joules": states, **parts, **named}


def ledger() -> list[dict[str, Any]]:
    part = record(50.0).to_json()["components"]
    split = {"joules": {"cpu": 50.0}, "unknown_seconds": {}}
    window = {"id": "a.2", "known_joules": 5.0, "components": part}
    return [
        {"event": "start", "session": "a", "t_ns": 0, "hardware_id": "abc"},
        {"event": "open", "session": "a", "record": {**record(0.0).to_json(), "id": "a.2", "name": "trial 7"}},
        {"event": "beat", "session": "a", "t_ns": 2 * 10**10, "total": part, "split": split, "open": [window]},
        {"event": "close", "session": "a", "record": {**record(0.0).to_json(), "id": "a.3", "name": "trial 5"}},
        {"event": "beat", "session": "a", "t_ns": 3 * 10**10, "total": part, "split": split, "open": [window]},
    ]


@st.composite
def damaged(draw: st.DrawFn, whole: Any) -> Any:
    """Put something else at a few places of a JSON value, or leave the entry out."""
    value = copy.deepcopy(whole)
    for _ in range(draw(st.integers(1, 3))):
        here: Any = value
        while True:
            keys = list(here) if isinstance(here, dict) else list(range(len(here)))
            if not keys:
                break
            key = draw(st.sampled_from(keys))
            if isinstance(here[key], dict | list) and here[key] and draw(st.integers(0, 5)):
                here = here[key]
                continue
            if draw(st.integers(0, 4)):
                here[key] = copy.deepcopy(draw(VALUE))  # what is put in may be damaged next, and must not stay so
            else:
                del here[key]
            break
    return value


#: The verbs that read a run folder; those that cost seconds are drawn less often.
READ = [["front", "--json"], ["front"], ["front", "--csv", "--complete"], ["price", "--zones", "FR,PL", "--price", "0.25EUR"]] * 6
READ += [["export", "--to", "onnx", "-o", "model"], ["export", "--pick", "trial=6", "--to", "skops", "-o", "model"], ["optimise"]] * 2
READ += [["report", "-o", "r.html"], ["plot", "-o", "f.svg"], ["plot", "-o", "f.html"], ["plot", "--of", "relations", "-o", "f.svg"]]
READ += [["plot", "--of", "tactics", "-o", "t.svg"], ["compare"], ["compare", "--json"], ["begin a session"]] * 2


def read(folder: Path, words: list[str]) -> None:
    if words == ["begin a session"]:
        opened = RunFolder.open(folder)
        sessions = read_sessions(opened.bill_file)
        settle_killed(sessions, opened.ledger_file)
        add_up(sessions)
        keep_place(opened, None, 1.0, forecast=False)
    else:
        main([words[0], str(folder), *([str(folder)] if words[0] == "compare" else []), *words[1:], "--debug"])


def write(folder: Path, name: str, value: Any, draw: Callable[[Any], Any]) -> None:
    data = json.dumps(value).encode()
    (folder / name).write_bytes(draw(cut(data)) if draw(st.integers(0, 9)) == 0 else data)


@pytest.fixture
def folder(good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(good, tmp_path / "run"))


@pytest.mark.slow
@pytest.mark.parametrize("words", [list(words) for words in dict.fromkeys(map(tuple, READ)) if words[0] not in ("export", "optimise")])
def test_the_folder_that_is_damaged_below_can_be_read(folder: Path, words: list[str]) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        read(folder, words)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "share"), [("study.json", 0.2), ("bill.json", 0.1), ("repeats.json", 0.04)])
def test_a_file_of_a_run_folder(folder: Path, name: str, share: float) -> None:
    whole = json.loads((folder / name).read_text())

    @fuzz(share)
    @given(st.data(), damaged(whole), st.sampled_from(READ))
    def holds(data: st.DataObject, value: Any, words: list[str]) -> None:
        write(folder, name, value, data.draw)
        ends_well(name, lambda: read(folder, words))

    holds()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["trials.json", "study.db"])
def test_the_trials_of_a_run_folder(folder: Path, name: str) -> None:
    kept = json.loads((folder / "trials.json").read_text())

    @fuzz(0.1)
    @given(st.data(), damaged(kept["trials"]), st.sampled_from(READ))
    def holds(data: st.DataObject, trials: Any, words: list[str]) -> None:
        if name == "trials.json":
            write(folder, name, {**kept, "digest": digest(trials, kept["optuna"]), "trials": trials}, data.draw)
        else:
            with contextlib.closing(sqlite3.connect(folder / "study.db")) as database, database:
                for number, trial in enumerate(trials[:8]):
                    database.execute("UPDATE trial_user_attributes SET value_json = ? WHERE trial_id = ?", (json.dumps(trial), number + 1))
        ends_well(name, lambda: read(folder, words))

    holds()


@pytest.mark.slow
@fuzz(0.1)
@given(st.data(), damaged(ledger()), damaged([bill(closed=False)]) | st.just([bill(closed=False)]))
def test_a_ledger(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, events: list[Any], sessions: list[Any]) -> None:
    folder = tmp_path_factory.getbasetemp()
    lines = [
        data.draw(cut(json.dumps(event).encode())) if data.draw(st.integers(0, 5)) == 0 else json.dumps(event).encode() for event in events
    ]
    (folder / "ledger.jsonl").write_bytes(b"\n".join([*lines, data.draw(st.binary(max_size=9))]))
    (folder / "bill.json").write_text(json.dumps({"sessions": sessions}))

    def settle() -> None:
        killed = read_sessions(folder / "bill.json")
        settle_killed(killed, folder / "ledger.jsonl")
        assert all(session["closed"] for session in killed if "closed" in session)
        assert all(joules >= 0 or sessions != [bill(closed=False)] for joules in add_up(killed).by_state.values())

    ends_well("ledger.jsonl", settle)


# -- options of the command line -----------------------------------------------------------------------------------------------------------

COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]
WORD = (
    st.sampled_from([str(value) for value in NASTY if value is not None])
    | st.text(max_size=8)
    | st.floats().map(str)
    | st.integers().map(str)
)
UNIT = st.sampled_from(["Wh", "s", "h", "EUR", "gCO2e", "%", "", "d"])


@st.composite
def command(draw: st.DrawFn) -> list[str]:
    """A verb with a few of its options, each with a good or a strange value."""
    verb = draw(st.sampled_from(sorted({*COMMANDS} - {"dashboard", "doctor", "studies"})))
    words = [verb]
    for one in COMMANDS[verb].params:
        if one.param_type_name == "argument":
            words += (
                [draw(st.sampled_from(["run", "nowhere", "", "digits", "\x1b", "a:b"]))]
                if draw(st.integers(0, 5)) == 0
                else ["digits" if one.name == "study" else "run"] * (1 + one.multiple + (one.nargs < 0))
            )
        elif one.required or draw(st.integers(0, 5)) == 0:
            words += [draw(st.sampled_from(one.opts))]
            if not one.is_flag:
                words += [draw(WORD) if draw(st.booleans()) else f"{draw(st.floats() | st.integers())}{draw(UNIT)}"]
    return words


@pytest.mark.slow
def test_options(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def reached(*_: Any, **__: Any) -> None:
        raise Reached

    for place in ("run.open_session", "repeat.open_session", "estimate.open_session"):
        monkeypatch.setattr(f"joulefront.search.running.{place}", reached, raising=place != "estimate.open_session")
    monkeypatch.setattr("joulefront.search.running.estimate.probe_study", reached)
    monkeypatch.setattr("joulefront.search.integrations.command.measure_command", reached)  # it would run what was drawn

    @fuzz(0.16)
    @given(command())
    def holds(words: list[str]) -> None:
        ends_well("options", lambda: main([*words[:1], "--debug", *words[1:]]))  # what comes later may be another command's

    holds()
