"""Trials and the front of a run in MLflow, Weights & Biases or TensorBoard: `joulefront run STUDY --log mlflow`.

A tracker is a ``TrialLogger``: three methods that take plain values under names with units. ``RunLog`` calls it while a study runs, and
what it raises is a warning: the run is paid for, its log is not worth ending it.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from ..argument_types import refuse_wrong_types
from ..front import Front
from ..records.database import without_password
from ..records.files import write_json
from ..records.run_folder import Run
from ..records.trial import Trial
from ..report.front_view import save_front
from ..report.table import flat_rows, to_csv

#: File of a run folder: what is in which tracker already, so that a run that goes on logs each trial once.
LOGGED_FILE = "logged.json"


class TrialLogger(Protocol):
    """Keeps trials somewhere; values that are not known are left out, never 0. Whatever a method raises ends the log, not the run."""

    @property
    def place(self) -> str:
        """The tracker and where it keeps its things: one text for one place."""

    def begin(self, name: str, known: str | None, facts: Mapping[str, Any], folder: Path) -> str:
        """Begin a run or go on with it, where ``known`` is the identity that the earlier call returned; return its identity."""

    def trial(self, number: int, params: Mapping[str, Any], metrics: Mapping[str, float], facts: Mapping[str, str]) -> None:
        """Keep a finished trial: its parameters, numbers with units in their names, and how they are known."""

    def end(self, rows: Sequence[Mapping[str, Any]], csv: str, picture: Path | None, metrics: Mapping[str, float]) -> None:
        """Keep the front as rows and CSV (units in the names) and as PNG, None where it is empty, and close the log."""


def metrics_of(trial: Trial) -> dict[str, float]:
    """Return the numbers of a trial that are known, under names with units."""
    energy = trial.energy
    names = ("train_joules", "train_u_joules", "increment_joules", "evaluation_joules", "inference_joules_per_1000", "grams_co2e")
    found: dict[str, float | None] = {**trial.quality, **{name: getattr(energy, name) for name in (*names, "train_seconds", "cpu_seconds")}}
    found |= {"epochs": trial.epochs, "parameters": trial.parameters, "flops": trial.flops}
    found |= {f"train_{name}_joules": part.joules for name, part in energy.components.items()}
    return {_plain(name): float(value) for name, value in found.items() if value is not None and math.isfinite(value)}


def facts_of(trial: Trial) -> dict[str, str]:
    """Return how a trial's numbers are known, and what became of it."""
    energy = trial.energy
    meters = ", ".join(f"{name}: {part.quality} ({part.source})" for name, part in energy.components.items())
    found: dict[str, Any] = {
        "state": trial.state,
        "reason": trial.reason,
        "energy_quality": trial.energy_quality,
        "energy_meters": meters or None,
    }
    found |= {"hardware_id": energy.hardware_id, "parent": trial.parent, "weights_sha256": trial.artifact_sha256}
    found |= {"contended": "yes" if energy.contended else None}
    return {name: str(value)[:500] for name, value in found.items() if value is not None}


def _plain(name: str) -> str:
    """A name that all trackers take."""
    return re.sub(r"[^\w./ -]", "_", name)


@dataclass
class RunLog:
    """One tracker of one run: each finished trial once, also when the run goes on later, and the front at its end.

    Attributes:
        logger: The tracker.
        warn: Told once why the log has ended, where it has.
    """

    logger: TrialLogger
    warn: Callable[[str], None]
    _done: list[int] = field(default_factory=list)
    _identity: str | None = None
    _broken: bool = False
    _lock: threading.RLock = field(default_factory=threading.RLock)  # workers end their trials at the same time

    def follow(self, run: Run) -> None:
        """Log the trials that have finished since."""
        with self._lock:
            if self._identity is None:
                self._try(lambda: self._begin(run))
            for trial in run.trials:
                if trial.state != "running" and trial.number not in self._done:
                    self._try(lambda trial=trial: self._trial(run, trial))  # type: ignore[misc]  # a default, to bind it

    def end(self, run: Run, front: Front) -> None:
        """Log the rest and the front, and close the log."""
        self.follow(run)
        with tempfile.TemporaryDirectory() as folder:
            self._try(lambda: self._end(run, front, Path(folder)))

    def _begin(self, run: Run) -> None:
        earlier = _logged(run.path).get(self.logger.place, {})
        names = ("run_id", "space", "sampler", "seed")
        facts = {name: value for name, value in {**run.facts.get("study", {}), **run.facts}.items() if name in names}
        facts |= {"objectives": ", ".join(run.objectives), "rungs": ", ".join(map(str, run.rungs)), "folder": str(run.path.resolve())}
        self._identity = self.logger.begin(run.name, earlier.get("identity"), facts, run.path)
        # A run that was not found again has begun anew: with all of its trials.
        self._done = list(earlier.get("trials", ())) if self._identity == earlier.get("identity") else []

    def _trial(self, run: Run, trial: Trial) -> None:
        params = {_plain(name): value for name, value in trial.params.items()}
        self.logger.trial(trial.number, params, metrics_of(trial), facts_of(trial))
        self._done.append(trial.number)
        entry = {"identity": self._identity, "trials": self._done}
        write_json(run.path / LOGGED_FILE, {**_logged(run.path), self.logger.place: entry})

    def _end(self, run: Run, front: Front, folder: Path) -> None:
        picture = save_front(front, folder / "front.png") if len(front) else None
        spent = {
            "spent_joules": run.bill.total_joules,
            "hypervolume": front.hypervolume() if len(front) else None,
            "front_models": len(front),
        }
        known = {name: float(value) for name, value in spent.items() if value is not None}
        self.logger.end(flat_rows(front), to_csv(front), picture, known)

    def _try(self, call: Callable[[], None]) -> None:
        if self._broken:
            return
        try:
            call()
        except (Exception, SystemExit) as error:  # whatever a tracker or its server does
            self._broken = True
            reason = " ".join(map(without_password, f"{type(error).__name__}: {error}".split()))[:300]
            self.warn(f"warning: {self.logger.place} takes no more ({reason}); the run goes on, and the same command logs the rest later")


def _logged(folder: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError, AttributeError, RecursionError):
        found = json.loads((folder / LOGGED_FILE).read_text(encoding="utf-8"))
        return {place: one for place, one in found.items() if isinstance(one, dict)}
    return {}


# -- trackers --------------------------------------------------------------------------------------------------------------------------


class MlflowLogger:
    """An experiment of the study's name, a run for the study, and one inside of it for each trial.

    It goes where MLflow's own settings say, ``mlflow.db`` in this folder by default. A server that does not answer costs seconds, once.
    """

    def __init__(self) -> None:
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        from mlflow import MlflowClient

        for name in ("mlflow.store.db.utils", "alembic"):
            logging.getLogger(name).setLevel(logging.WARNING)
        self._client = MlflowClient()
        self.place = f"mlflow at {without_password(self._client.tracking_uri)}"

    def begin(self, name: str, known: str | None, facts: Mapping[str, Any], folder: Path) -> str:
        """Find the run again, or create it and its experiment."""
        if known is not None:
            with suppress(Exception):  # it was deleted
                self._client.update_run(known, "RUNNING")
                self._experiment, self._id = self._client.get_run(known).info.experiment_id, known
                return known
        found = self._client.get_experiment_by_name(name)
        self._experiment = self._client.create_experiment(name) if found is None else found.experiment_id
        self._id = str(self._client.create_run(self._experiment, run_name=name).info.run_id)
        self._keep(self._id, facts, {}, {})
        return self._id

    def trial(self, number: int, params: Mapping[str, Any], metrics: Mapping[str, float], facts: Mapping[str, str]) -> None:
        """Create a run inside of the study's; its numbers are a step of the study's run, too."""
        child = self._client.create_run(self._experiment, tags={"mlflow.parentRunId": self._id}, run_name=f"trial {number}").info.run_id
        self._keep(child, params, metrics, facts)
        self._client.set_terminated(child, "FINISHED" if facts.get("state") == "complete" else "FAILED")
        self._keep(self._id, {}, metrics, {}, step=number)

    def end(self, rows: Sequence[Mapping[str, Any]], csv: str, picture: Path | None, metrics: Mapping[str, float]) -> None:
        """Add ``front.csv`` and ``front.png`` to the study's run."""
        self._keep(self._id, {}, metrics, {})
        self._client.log_text(self._id, csv, "front.csv")
        if picture is not None:
            self._client.log_artifact(self._id, str(picture))
        self._client.set_terminated(self._id)

    def _keep(self, run: str, params: Mapping[str, Any], metrics: Mapping[str, float], tags: Mapping[str, str], step: int = 0) -> None:
        from mlflow.entities import Metric, Param, RunTag

        now = int(time.time() * 1000)
        numbers = [Metric(name, value, now, step) for name, value in metrics.items()]
        self._client.log_batch(run, numbers, [Param(*one) for one in params.items()], [RunTag(*one) for one in tags.items()])


class TensorBoardLogger:
    """Event files in ``tensorboard/`` of the run folder: a step for each trial, parameters beside numbers (HPARAMS), the front."""

    place = "tensorboard"

    def __init__(self) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._open = SummaryWriter

    def begin(self, name: str, known: str | None, facts: Mapping[str, Any], folder: Path) -> str:
        """Open an event file."""
        path = folder / self.place
        identity = known if known is not None and path.is_dir() else f"{path.resolve()} {time.time_ns()}"
        self._writer = self._open(str(path))
        self._writer.add_text("study", _markdown([facts]))
        return identity

    def trial(self, number: int, params: Mapping[str, Any], metrics: Mapping[str, float], facts: Mapping[str, str]) -> None:
        """Add scalars at the step of the trial's number, and a row of HPARAMS."""
        for name, value in metrics.items():
            self._writer.add_scalar(f"trials/{name}", value, number)
        self._writer.add_text("trials/facts", _markdown([facts]), number)
        plain = {name: value if isinstance(value, bool | int | float | str) else str(value) for name, value in params.items()}
        self._writer.add_hparams(plain, {f"trial/{name}": value for name, value in metrics.items()}, run_name=f"trial-{number}")

    def end(self, rows: Sequence[Mapping[str, Any]], csv: str, picture: Path | None, metrics: Mapping[str, float]) -> None:
        """Add the front as table and picture."""
        for name, value in metrics.items():
            self._writer.add_scalar(f"study/{name}", value)
        self._writer.add_text("front", _markdown(rows))
        if picture is not None:
            import numpy as np
            from PIL import Image

            self._writer.add_image("front", np.asarray(Image.open(picture).convert("RGB")), dataformats="HWC")
        self._writer.close()


def _markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    if not rows:
        return "none"
    table = [list(rows[0]), ["---"] * len(rows[0]), *(list(row.values()) for row in rows)]
    return "\n".join("| " + " | ".join("" if cell is None else str(cell).replace("|", "/") for cell in row) + " |" for row in table)


class WandbLogger:
    """A run of the project ``joulefront``, a step for each trial; off-line, for `wandb sync`, where no key is known."""

    def __init__(self) -> None:
        import wandb

        self._wandb: Any = wandb
        self._mode = os.environ.get("WANDB_MODE") or ("online" if wandb.api.api_key else "offline")
        self.place = f"wandb ({self._mode})"

    def begin(self, name: str, known: str | None, facts: Mapping[str, Any], folder: Path) -> str:
        """Begin a run, or go on with it."""
        asked = {"project": os.environ.get("WANDB_PROJECT", "joulefront"), "name": name, "config": dict(facts), "dir": folder}
        same = {} if known is None else {"id": known, "resume": "allow"}
        self._run = self._wandb.init(mode=self._mode, settings=self._wandb.Settings(silent=True, console="off"), **asked, **same)
        self._run.define_metric("*", step_metric="trial")
        return str(self._run.id)

    def trial(self, number: int, params: Mapping[str, Any], metrics: Mapping[str, float], facts: Mapping[str, str]) -> None:
        """Log one row."""
        self._run.log({"trial": number, **metrics, **{f"params/{name}": value for name, value in params.items()}, **facts})

    def end(self, rows: Sequence[Mapping[str, Any]], csv: str, picture: Path | None, metrics: Mapping[str, float]) -> None:
        """Log the front as table and picture, and finish."""
        self._run.summary.update(metrics)
        found = {"front": self._wandb.Table(list(rows[0]), [list(row.values()) for row in rows])} if rows else {}
        self._run.log({**found, **({} if picture is None else {"front_picture": self._wandb.Image(str(picture))})})
        self._run.finish()


#: The trackers by name, and the package that each needs.
LOGGERS: Mapping[str, tuple[Callable[[], TrialLogger], str]] = {
    "mlflow": (MlflowLogger, "mlflow-skinny"),
    "wandb": (WandbLogger, "wandb"),
    "tensorboard": (TensorBoardLogger, "tensorboard"),
}


def loggers_of(names: str) -> list[TrialLogger]:
    """Make the trackers that a text names, e.g. ``mlflow,tensorboard``.

    Raises:
        ValueError: If there is none of a name.
        ImportError: If its package is not installed, with the command that installs it.
    """
    refuse_wrong_types(loggers_of, locals(), names="write 'mlflow,tensorboard'")
    found = []
    for name in dict.fromkeys(one.strip() for one in names.split(",")):
        if name not in LOGGERS:
            raise ValueError(f"--log must be of {', '.join(LOGGERS)}, got {name!r}; for example --log mlflow")
        make, package = LOGGERS[name]
        try:
            found.append(make())
        except ImportError as error:
            raise ImportError(f"{package} must be installed for --log {name}, got {error}; do pip install {package}") from error
    return found
