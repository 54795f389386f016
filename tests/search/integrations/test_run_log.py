"""Trials and fronts in the trackers of others: once each, with units, and never at the price of the run."""

import math
import runpy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.trials import make_trial

from joulefront.search import Study, run
from joulefront.search.front import Front
from joulefront.search.integrations.run_log import LOGGED_FILE, LOGGERS, RunLog, TrialLogger, facts_of, loggers_of, metrics_of
from joulefront.search.records.bill import Bill
from joulefront.search.records.run_folder import Run
from joulefront.search.records.trial import ComponentEnergy


def finished(number: int, accuracy: float, joules: float) -> Any:
    return make_trial(
        number,
        "complete",
        {"width": 4 + number, "mlp.norm": "none", "whitened": True},
        3,
        (accuracy, joules),
        {"accuracy": accuracy, "loss": math.nan},
        train_joules=joules,
        increment_joules=joules + 1,
        parameters=100,
        energy_quality="estimated",
        components={"gpu:GPU-1": ComponentEnergy(joules, "estimated", "cpu_time"), "cpu": ComponentEnergy(None, "absent", "none")},
    )


@pytest.fixture
def three(tmp_path: Path) -> Run:
    failed = make_trial(2, "failed", {"width": 9}, 1, reason="out of memory", increment_joules=2.0)
    trials = (finished(0, 0.7, 36.0), finished(1, 0.9, 360.0), failed, make_trial(3, "running", {"width": 5}, 1))
    facts = {"run_id": "mine-1", "study": {"space": "own", "sampler": "random", "seed": 0}}
    return Run(
        "mine", tmp_path, ("accuracy", "train_energy"), ("maximize", "minimize"), (1, 3), trials, Bill(total_joules=400.0), facts=facts
    )


class Notes:
    """Remembers what it gets; raises where it is told to."""

    def __init__(self, failing: str = "", error: BaseException | None = None, place: str = "notes") -> None:
        self.place = place
        self.failing, self.error = failing, error or RuntimeError("the server is gone")
        self.trials: list[int] = []
        self.front: list[Any] = []

    def _may_fail(self, name: str) -> None:
        if self.failing == name:
            raise self.error

    def begin(self, name: str, known: str | None, facts: Mapping[str, Any], folder: Path) -> str:
        self._may_fail("begin")
        self.known = known
        return known or "first"

    def trial(self, number: int, params: Mapping[str, Any], metrics: Mapping[str, float], facts: Mapping[str, str]) -> None:
        self._may_fail(f"trial {number}")
        self.trials.append(number)

    def end(self, rows: Sequence[Mapping[str, Any]], csv: str, picture: Path | None, metrics: Mapping[str, float]) -> None:
        self._may_fail("end")
        assert picture is not None
        assert picture.read_bytes().startswith(b"\x89PNG")
        self.front = [*rows]


def logged(one: Run, logger: TrialLogger, *, whole: bool = True) -> list[str]:
    """Log a run, first its beginning as when it is under way; return the warnings."""
    warnings: list[str] = []
    log = RunLog(logger, warnings.append)
    log.follow(replace(one, trials=one.trials[:1]))
    if whole:
        log.end(one, Front.of(one))
    return warnings


def test_numbers_have_units_in_their_names_and_unknown_ones_are_left_out() -> None:
    trial = finished(0, 0.7, 36.0)
    assert metrics_of(trial) == {
        "accuracy": 0.7,
        "train_joules": 36.0,
        "increment_joules": 37.0,
        "epochs": 3.0,
        "parameters": 100.0,
        "train_gpu_GPU-1_joules": 36.0,
    }
    assert facts_of(trial) == {
        "state": "complete",
        "energy_quality": "estimated",
        "energy_meters": "gpu:GPU-1: estimated (cpu_time), cpu: absent (none)",
    }


@pytest.mark.slow
def test_each_finished_trial_is_logged_once_also_when_the_run_goes_on(three: Run) -> None:
    first, second = Notes(), Notes()
    assert logged(three, first) == []
    assert first.trials == [0, 1, 2]
    assert [(row["trial"], row["train_joules"]) for row in first.front] == [(0, 36.0), (1, 360.0)]
    longer = replace(three, trials=(*three.trials[:3], finished(3, 0.95, 400.0)))
    assert logged(longer, second) == []
    assert (second.known, second.trials) == ("first", [3])


@pytest.mark.slow
def test_the_rows_of_a_front_with_an_ensemble_have_one_shape(three: Run) -> None:
    blend = replace(finished(3, 0.99, 9000.0), params={"family": "ensemble"}, extra={"members": [0, 1]})
    logger = Notes()
    assert logged(replace(three, trials=(*three.trials, blend)), logger) == []
    assert {tuple(row) for row in logger.front} == {tuple(logger.front[0])}
    assert [row["members"] for row in logger.front] == [None] * (len(logger.front) - 1) + ["[0, 1]"]


@pytest.mark.slow
@pytest.mark.parametrize("failing", ["begin", "trial 1", "end"])
@pytest.mark.parametrize("error", [RuntimeError("the server is gone"), SystemExit("no key"), KeyError("x")])
def test_a_tracker_that_fails_is_one_warning_and_the_rest_is_logged_later(failing: str, error: BaseException, three: Run) -> None:
    [warning] = logged(three, Notes(failing, error))
    assert warning.startswith("warning: notes takes no more (" + type(error).__name__)
    later = Notes()
    assert logged(three, later) == []
    assert later.trials == {"begin": [0, 1, 2], "trial 1": [1, 2], "end": []}[failing]


@pytest.mark.slow
@pytest.mark.parametrize("text", ["", "[]", "{", '{"notes": 3}', '{"notes": {"trials": 7}}'])
def test_a_damaged_memory_costs_the_log_at_most(text: str, three: Run) -> None:
    (three.path / LOGGED_FILE).write_text(text)
    notes = Notes()
    logged(three, notes)
    assert notes.trials in ([0, 1, 2], [])


def test_a_tracker_that_is_unknown_or_not_installed_is_refused_before_anything_is_paid(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="--log must be of mlflow, wandb, tensorboard, got 'aim'"):
        loggers_of("aim")

    def missing() -> TrialLogger:
        raise ImportError("No module named 'wandb'")

    monkeypatch.setitem(LOGGERS, "wandb", (missing, "wandb"))  # type: ignore[misc]  # a mapping for all others
    with pytest.raises(ImportError, match=r"wandb must be installed for --log wandb, got .*; do pip install wandb"):
        loggers_of("wandb")


def test_no_password_is_printed(three: Run) -> None:
    [warning] = logged(three, Notes("begin", OSError("no answer from postgresql://me:secret@host/db")))
    assert "me:***@host/db" in warning
    assert "secret" not in warning


@pytest.mark.slow
def test_a_paid_run_survives_its_tracker(rings: Callable[..., Study], tmp_path: Path) -> None:
    said: list[str] = []
    notes, broken = Notes(), Notes("trial 1", place="elsewhere")
    front = run(
        rings(trials=2),
        out=tmp_path / "run",
        meter="cpu_time",
        listener=lambda progress: said.append(progress.message) if progress.event == "warning" else None,
        loggers=[notes, broken],
    )
    assert [trial.state for trial in front.trials] == ["complete"] * 2
    assert (notes.trials, broken.trials) == ([0, 1], [0])
    assert len(notes.front) == len(front)
    [warning] = said
    assert warning.startswith("warning: elsewhere takes no more (RuntimeError: the server is gone); the run goes on")


@pytest.mark.slow
def test_mlflow_has_a_run_for_the_study_with_one_inside_for_each_trial(three: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed (pip install mlflow-skinny)")
    pytest.importorskip("sqlalchemy", reason="sqlalchemy, which MLflow keeps its database with, is not installed")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///tracked.db")
    for _ in range(2):  # the second call goes on with what the first has left
        assert logged(three, *loggers_of("mlflow")) == []
    client = mlflow.MlflowClient()
    runs = client.search_runs([client.get_experiment_by_name("mine").experiment_id], order_by=["attributes.start_time"])
    children = {one.info.run_name: one for one in runs if "mlflow.parentRunId" in one.data.tags}
    [whole] = [one for one in runs if "mlflow.parentRunId" not in one.data.tags]
    assert sorted(children) == ["trial 0", "trial 1", "trial 2"]
    assert children["trial 1"].data.params == {"width": "5", "mlp.norm": "none", "whitened": "True"}
    assert children["trial 1"].data.metrics["train_joules"] == 360.0
    assert children["trial 1"].data.tags["energy_quality"] == "estimated"
    assert (children["trial 2"].info.status, children["trial 2"].data.tags["reason"]) == ("FAILED", "out of memory")
    assert (whole.info.status, whole.data.metrics["spent_joules"]) == ("FINISHED", 400.0)
    assert {file.path for file in client.list_artifacts(whole.info.run_id)} == {"front.csv", "front.png"}
    assert [step.value for step in client.get_metric_history(whole.info.run_id, "train_joules")] == [36.0, 360.0]


@pytest.mark.slow
def test_tensorboard_has_steps_parameters_and_the_front(three: Run) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed (pip install tensorboard)")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for _ in range(2):
        assert logged(three, *loggers_of("tensorboard")) == []
    events = EventAccumulator(str(three.path / "tensorboard"))
    events.Reload()
    assert [(one.step, one.value) for one in events.Scalars("trials/train_joules")] == [(0, 36.0), (1, 360.0)]
    assert "front" in events.Tags()["images"]
    text = events.Tensors("front/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "| trial | epochs | accuracy | train_joules | train_wh | grams_co2e |" in text
    assert {path.name for path in (three.path / "tensorboard").iterdir() if path.is_dir()} == {"trial-0", "trial-1", "trial-2"}


@pytest.mark.slow
def test_wandb_offline_has_rows_and_the_front(three: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="wandb is not installed (pip install wandb)")
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    assert logged(three, *loggers_of("wandb")) == []
    [file] = three.path.rglob("*.wandb")
    assert "offline-run" in str(file)
    data = file.read_bytes()  # a log of protocol buffers with JSON inside
    assert (data.count(b"train_joules"), data.count(b"energy_quality")) >= (2, 2)
    assert all(part in data for part in (b"params/width", b"front_picture", b"spent_joules", b"estimated (cpu_time)"))
    assert {path.suffix for path in file.parent.rglob("media/**/front*")} == {".json", ".png"}


@pytest.mark.slow
def test_the_script_runs_in_at_most_25_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed (pip install tensorboard)")
    monkeypatch.chdir(tmp_path)
    file = Path(__file__).parents[3] / "studies" / "integrations" / "tracked_study.py"
    assert len(file.read_text(encoding="utf-8").splitlines()) <= 25
    runpy.run_path(str(file), run_name="__main__")
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines[-3:-1]] == ["trial 0", "trial 1"]
    assert "trials/train_joules, trials/train_u_joules, trials/increment_joules" in lines[-1]
