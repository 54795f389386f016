"""The page of a run that still trains, and optuna-dashboard on a copy: both follow, and neither changes the run folder."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults

import optuna
import pytest
from helpers.browser import Opened, browser
from helpers.trials import make_trial

from joulefront.search.records.run_folder import RunFolder, StoreError
from joulefront.search.records.trial import ATTRIBUTE, Trial
from joulefront.search.report import live
from joulefront.search.report.live import LOOPBACK, LiveRun, application, attributes, with_unit

pytestmark = pytest.mark.slow

EVIL = "<b>[x](javascript:alert(1))</b>"


def begin(path: Path, *, name: str = "young") -> RunFolder:
    described = {"name": name, "objectives": ["accuracy", "train_energy"], "directions": ["maximize", "minimize"], "rungs": [1, 3]}
    described |= {"sampler": "random", "seed": 0, "space": "own", "description": EVIL, "min_accuracy": None, "complete_only": False}
    facts = {
        "run_id": "young-1",
        "study": described,
        "origin": None,
        "intensity": None,
        "pue": 1.0,
        "sessions": [{"started": "2026-01-02"}],
    }
    return RunFolder.create(path, facts)


def finish(study: optuna.Study, open_trial: optuna.Trial, accuracy: float, joules: float) -> Trial:
    trial = make_trial(
        open_trial.number,
        "complete",
        {"width": 4},
        1,
        (accuracy, joules),
        {"accuracy": accuracy},
        train_joules=joules,
        energy_quality="estimated",
    )
    open_trial.set_user_attr(ATTRIBUTE, trial.facts())
    study.tell(open_trial, [accuracy, joules])
    return trial


def ask(app: Any, path: str, **environ: str) -> tuple[str, dict[str, str], bytes]:
    """Call the application as a server does."""
    request: dict[str, Any] = {"PATH_INFO": path, "HTTP_HOST": "127.0.0.1:8080", **environ}
    setup_testing_defaults(request)
    said: list[Any] = []
    body = b"".join(app(request, lambda status, headers, *rest: said.extend((status, dict(headers)))))
    return said[0], said[1], body


@pytest.fixture
def young(tmp_path: Path) -> tuple[RunFolder, optuna.Study]:
    """A run whose second trial is still training."""
    folder = begin(tmp_path / "run")
    study = folder.study()
    for accuracy, joules in ((0.7, 36.0), (None, None)):
        trial = study.ask()
        trial.suggest_int("width", 1, 9)
        if accuracy is not None and joules is not None:
            finish(study, trial, accuracy, joules)
    return folder, study


def test_data_and_copy_follow_the_study_and_an_unchanged_one_costs_a_line(young: tuple[RunFolder, optuna.Study]) -> None:
    folder, study = young
    app = application(LiveRun(folder.path, fresh_seconds=0.0), LOOPBACK)
    before = {file: file.read_bytes() for file in folder.path.rglob("*") if file.is_file()}
    status, headers, body = ask(app, "/data.json")
    assert status == "200 OK"
    first = json.loads(body)
    assert (first["trials"], first["running"], len(first["members"]), first["ended"]) == (2, 1, 1, False)
    assert ask(app, "/data.json", HTTP_IF_NONE_MATCH=headers["ETag"])[0] == "304 Not Modified"
    assert {file: file.read_bytes() for file in folder.path.rglob("*") if file.is_file()} == before
    _, _, body = ask(app, "/api/studies/0", QUERY_STRING="after=0")
    assert [one["state"] for one in json.loads(body)["trials"]] == ["Complete", "Running"]

    running = optuna.trial.Trial(study, study._storage.get_all_trials(study._study_id)[1]._trial_id)
    finish(study, running, 0.9, 360.0)
    status, _, body = ask(app, "/data.json", HTTP_IF_NONE_MATCH=headers["ETag"])
    assert status == "200 OK"
    assert [one["n"] for one in json.loads(body)["members"]] == [0, 1]
    copy = application(live_run := LiveRun(folder.path), LOOPBACK)
    assert copy is not None
    assert live_run.copy is not None
    assert [trial.state.name for trial in live_run.copy.study.trials] == ["COMPLETE", "COMPLETE"]


def test_a_trial_that_ends_in_the_copy_has_values_and_flat_attributes(young: tuple[RunFolder, optuna.Study]) -> None:
    folder, study = young
    run = LiveRun(folder.path, fresh_seconds=0.0)
    run.refresh()
    assert run.copy is not None
    running = optuna.trial.Trial(study, study._storage.get_all_trials(study._study_id)[1]._trial_id)
    trial = finish(study, running, 0.9, 360.0)
    run.refresh()
    mine = run.copy.study.trials[1]
    assert (mine.values, mine.params["width"]) == ([0.9, 360.0], running.params["width"])
    assert mine.user_attrs == attributes(trial)
    assert mine.user_attrs["training energy (J)"] == 360.0
    assert not any(isinstance(value, (dict, list)) for value in mine.user_attrs.values())
    assert run.copy.study.metric_names == [with_unit("accuracy"), "training energy (J)"]


def test_a_trial_that_is_asked_while_the_page_is_read_is_no_error(
    young: tuple[RunFolder, optuna.Study], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, study = young
    read = RunFolder.run

    def asked_meanwhile(*args: Any, **options: Any) -> Any:
        found = read(*args, **options)
        study.ask()
        return found

    monkeypatch.setattr(RunFolder, "run", asked_meanwhile)
    run = LiveRun(folder.path, fresh_seconds=0.0)
    assert run.refresh()["trials"] == 2
    assert run.refresh()["trials"] == 3


def test_the_note_names_the_models_as_the_page_does_and_no_text_of_a_run_is_markup(young: tuple[RunFolder, optuna.Study]) -> None:
    from optuna_dashboard import get_note

    run = LiveRun(young[0].path)
    data = run.refresh()
    assert run.copy is not None
    told = get_note(run.copy.study)
    assert f"**sensible**: trial {data['choice']['sensible']}," in told
    assert r"\<b\>\[x\](javascript:alert(1))\</b\>" in told
    assert "[x](" not in told
    assert any(
        key.startswith("dashboard:plot_data:front:") for key in run.copy.study._storage.get_study_system_attrs(run.copy.study._study_id)
    )


def test_only_this_machine_is_answered_and_only_reading(young: tuple[RunFolder, optuna.Study]) -> None:
    app = application(LiveRun(young[0].path), LOOPBACK)
    assert ask(app, "/", HTTP_HOST="evil.example:8080")[0] == "403 Forbidden"
    assert ask(app, "/api/studies", HTTP_HOST="evil.example")[0] == "403 Forbidden"
    assert ask(app, "/", HTTP_HOST="[::1]:8080")[0] == "200 OK"
    assert ask(app, "/", REQUEST_METHOD="POST")[0] == "405 Method Not Allowed"


def test_a_folder_that_is_spoilt_on_the_way_leaves_the_last_data_and_a_missing_one_is_named(young: tuple[RunFolder, optuna.Study]) -> None:
    folder = young[0]
    run = LiveRun(folder.path, fresh_seconds=0.0)
    data = run.refresh()
    (folder.path / "study.json").write_text("{")
    assert run.refresh() is data
    with pytest.raises(StoreError, match="does not exist"):
        LiveRun(folder.path.with_name("none")).refresh()


def test_what_could_not_be_read_at_the_end_is_read_again_though_nothing_changes(
    young: tuple[RunFolder, optuna.Study], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, study = young
    run = LiveRun(folder.path, fresh_seconds=0.0)
    assert run.refresh()["trials"] == 2
    finish(study, optuna.trial.Trial(study, study._storage.get_all_trials(study._study_id)[1]._trial_id), 0.9, 360.0)

    def locked(*given: object, **options: object) -> None:
        raise StoreError("database is locked")

    with monkeypatch.context() as patched:
        patched.setattr(RunFolder, "study", locked)
        assert run.refresh()["running"] == 1
    assert run.refresh()["running"] == 0


@pytest.fixture
def served(young: tuple[RunFolder, optuna.Study], monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of the page while it is served."""
    monkeypatch.setattr(live, "EVERY_SECONDS", 0.2)
    monkeypatch.setattr(live, "FRESH_SECONDS", 0.0)
    begun, servers = threading.Event(), []

    def started(server: Any) -> None:
        servers.append(server)
        begun.set()

    thread = threading.Thread(target=live.serve, args=(young[0].path,), kwargs={"port": 0, "started": started}, daemon=True)
    thread.start()
    assert begun.wait(60)
    yield f"http://127.0.0.1:{servers[0].server_port}/"
    servers[0].shutdown()
    thread.join(10)


@pytest.mark.browser
def test_an_open_page_shows_a_model_that_is_measured_while_one_looks(served: str, young: tuple[RunFolder, optuna.Study]) -> None:
    _, study = young
    with browser() as chrome, Opened(chrome, served) as opened:
        opened.page.wait_for_selector("#chart svg")
        assert "live" in opened.text("#now")
        assert len(opened.page.query_selector_all("#members tbody tr")) == 1
        running = optuna.trial.Trial(study, study._storage.get_all_trials(study._study_id)[1]._trial_id)
        finish(study, running, 0.9, 360.0)
        opened.page.wait_for_selector("#members tbody tr:nth-child(2)")
        assert opened.page.inner_text("#h-pick").startswith("Trial 1")  # the recommended one, until somebody chooses
        assert opened.complaints == []
        assert {url.removeprefix(served) for url in opened.requests if not url.startswith("data:")} == {"", "data.json"}


def test_a_port_that_is_taken_is_named(served: str, young: tuple[RunFolder, optuna.Study]) -> None:
    with pytest.raises(ValueError, match=r"--port \d+ cannot be served: .* in use; give another"):
        live.serve(young[0].path, port=int(served.rstrip("/").rpartition(":")[2]))
