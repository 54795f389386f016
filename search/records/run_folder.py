"""The run folder: what a study keeps on disk, and the run that front, report and export read from it.

The only module that knows the names of its files and the URL of its storage.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .bill import Bill, read_bill
from .files import write_json
from .replicates import Repeats, read_repeats
from .trial import ATTRIBUTE, EXCUSED, Trial, from_json, from_optuna, to_json

if TYPE_CHECKING:
    import optuna
    from optuna.storages import RDBStorage


#: Version of the layout of a run folder; raised when an older version cannot be read any more.
FORMAT = 1
STUDY_FILE = "study.json"
BILL_FILE = "bill.json"
LEDGER_FILE = "ledger.jsonl"
DATABASE_FILE = "study.db"
SNAPSHOT_FILE = "trials.json"


@dataclass(frozen=True)
class Run:
    """Everything known of one run of a study.

    Attributes:
        name: Name of the study.
        path: The run folder.
        objectives: Objective names, quality first.
        directions: ``maximize`` or ``minimize`` of each objective.
        rungs: Numbers of epochs at which models were measured.
        trials: All trials in the order of their numbers.
        bill: Where the energy of the search went.
        facts: ``study.json``: study description, options, versions, hardware, command, budget, sampler, seed, intensity
            (``{"grams_per_kwh", "zone", "source", "year", "kind"}`` or None).
        repeats: Trainings of finalists again; never trials, never points of the front.
    """

    name: str
    path: Path
    objectives: tuple[str, ...]
    directions: tuple[str, ...]
    rungs: tuple[int, ...]
    trials: tuple[Trial, ...]
    bill: Bill
    facts: Mapping[str, Any] = field(default_factory=dict)
    repeats: Repeats = field(default_factory=Repeats)


class StoreError(ValueError):
    """A run folder cannot be used; the message names the reason and the remedy."""


@dataclass(frozen=True)
class RunFolder:
    """One run folder and its Optuna storage.

    Attributes:
        path: The run folder.
        facts: Content of ``study.json``.
    """

    path: Path
    facts: Mapping[str, Any]

    @classmethod
    def exists(cls, path: Path) -> bool:
        """Whether there is a run in this folder."""
        return (path / STUDY_FILE).is_file()

    @classmethod
    def create(cls, path: Path, facts: Mapping[str, Any], *, storage: str | None = None) -> RunFolder:
        """Make a run folder; its tables are created here, once, before any worker starts.

        Raises:
            StoreError: If the folder holds something else, or the storage cannot be reached.
        """
        if path.exists() and not path.is_dir():
            raise StoreError(f"--out {str(path)!r} is a file; a run needs a folder of its own")
        fresh = not path.exists()
        if not fresh and any(path.iterdir()):
            raise StoreError(f"--out {str(path)!r} holds files but no {STUDY_FILE}: it is not a run folder; choose another --out")
        (path / "artifacts").mkdir(parents=True, exist_ok=True)
        folder = cls(path, {"format": FORMAT, "storage": storage, **facts})
        try:
            storage_now = folder._storage()
        except StoreError:
            # Nothing has been stored: a folder that is left behind would be called half written the next time.
            shutil.rmtree(path if fresh else path / "artifacts")
            raise
        study = folder._optuna().create_study(
            study_name=str(facts["study"]["name"]) if storage is None else str(facts["run_id"]),
            storage=storage_now,
            directions=list(facts["study"]["directions"]),
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # metric names are marked experimental; without them a dashboard shows "Objective 0"
            study.set_metric_names(list(facts["study"]["objectives"]))
        folder.save_facts(folder.facts)  # last: a folder without it is half written
        return folder

    @classmethod
    def open(cls, path: str | Path) -> RunFolder:
        """Open an existing run folder.

        Raises:
            StoreError: If there is no run, it was written by another version, or it is damaged.
        """
        path = Path(path)
        file = path / STUDY_FILE
        if not path.exists():
            near = sorted(p.parent.name for p in path.parent.glob(f"*/{STUDY_FILE}")) if path.parent.is_dir() else []
            raise StoreError(
                f"run folder {str(path)!r} does not exist"
                + (f"; there are: {', '.join(near)}" if near else "; start one with joulefront run")
            )
        if not file.is_file():
            if path.is_dir() and (path / DATABASE_FILE).is_file():
                raise StoreError(
                    f"{str(path)!r} has no {STUDY_FILE} (half written, or lost): restore it from a copy, or run in a new --out"
                )
            raise StoreError(
                f"{str(path)!r} is not a run folder: it has no {STUDY_FILE}; give a folder that joulefront run has written, "
                "for example runs/digits"
            )
        try:
            facts = json.loads(file.read_text(encoding="utf-8"))
            version = facts["format"]
        except (ValueError, KeyError, TypeError) as error:
            problem = f"no entry {error}" if isinstance(error, KeyError) else error
            raise StoreError(f"{str(file)!r} is damaged ({problem}); restore it from a copy, or delete the folder and run again") from error
        if version != FORMAT:
            raise StoreError(
                f"{str(path)!r} was written in format {version}, this joulefront reads format {FORMAT}; use the version that wrote it"
            )
        if not isinstance(facts.get("study"), dict) or not isinstance(facts.get("sessions"), list):
            raise StoreError(f"{str(file)!r} is damaged (no study in it); restore it from a copy, or delete the folder and run again")
        if facts.get("storage") is None and not (path / DATABASE_FILE).is_file():
            raise StoreError(f"{str(path)!r} has lost its {DATABASE_FILE}; restore it from a copy, or delete the folder and run again")
        return cls(path, facts)

    def save_facts(self, facts: Mapping[str, Any]) -> RunFolder:
        """Write ``study.json`` (atomically) and return the folder that holds it."""
        write_json(self.path / STUDY_FILE, facts)
        return RunFolder(self.path, facts)

    @property
    def ledger_file(self) -> Path:
        """Where the ledger appends its checkpoints."""
        return self.path / LEDGER_FILE

    @property
    def bill_file(self) -> Path:
        """Where the joules per session are kept."""
        return self.path / BILL_FILE

    def artifact(self, number: int) -> Path:
        """File of the weights of a trial, whether it exists or not."""
        return self.path / "artifacts" / f"trial-{number:05d}.weights"

    def has_artifact(self, number: int) -> bool:
        """Whether the weights of a trial are still there."""
        return self.artifact(number).exists()

    def keep_artifacts(self, keep: Iterable[int]) -> None:
        """Drop the weights of every trial that is not in ``keep``."""
        names = {self.artifact(number).name for number in keep}
        for file in (self.path / "artifacts").glob("trial-*.weights"):
            if file.name not in names:
                with contextlib.suppress(FileNotFoundError):  # another worker was faster
                    file.unlink()

    def study(self, sampler: optuna.samplers.BaseSampler | None = None) -> optuna.Study:
        """Load the Optuna study.

        Raises:
            StoreError: If the storage is damaged or out of reach.
        """
        name = str(self.facts["study"]["name"] if self.facts.get("storage") is None else self.facts["run_id"])
        try:
            study: optuna.Study = self._optuna().load_study(study_name=name, storage=self._storage(), sampler=sampler)
            return study
        except StoreError:
            raise
        except KeyError as error:
            raise StoreError(
                f"{str(self.path)!r}: the storage has no study {name!r}; the run folder is half written. Delete it and run again"
            ) from error
        except Exception as error:
            line = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise StoreError(
                f"{str(self.path)!r}: the storage cannot be read ({line}); restore it from a copy or delete the folder"
            ) from error

    def run(self, study_now: optuna.Study | None = None) -> Run:
        """Read everything that is known of this run.

        Args:
            study_now: The loaded Optuna study, when the caller holds it already; opening the storage again takes longer than reading it.
        """
        study = self.facts["study"]
        trials = self._snapshot() if study_now is None else None
        if trials is None:
            trials = tuple(from_optuna(trial) for trial in (study_now or self.study()).get_trials(deepcopy=False))
        return Run(
            name=study["name"],
            path=self.path,
            objectives=tuple(study["objectives"]),
            directions=tuple(study["directions"]),
            rungs=tuple(study["rungs"]),
            trials=trials,
            bill=read_bill(self.bill_file),
            facts=self.facts,
            repeats=read_repeats(self.path),
        )

    def save_snapshot(self, trials: Iterable[Trial]) -> None:
        """Keep the trials beside the database: reading a finished run then needs no database library, which takes long to import."""
        write_json(self.path / SNAPSHOT_FILE, {"format": FORMAT, "trials": [to_json(trial) for trial in trials]})

    def _snapshot(self) -> tuple[Trial, ...] | None:
        """Return the kept trials, or None when there are none or the database has changed since."""
        file, database = self.path / SNAPSHOT_FILE, self.path / DATABASE_FILE
        try:
            if self.facts.get("storage") is not None or database.stat().st_mtime_ns > file.stat().st_mtime_ns:
                return None
            return tuple(from_json(trial) for trial in json.loads(file.read_text(encoding="utf-8"))["trials"])
        except (OSError, ValueError, KeyError, TypeError):
            return None  # never written, or damaged: the database is the truth

    @property
    def url(self) -> str:
        """Optuna's storage URL of this run."""
        return str(self.facts.get("storage") or f"sqlite:///{(self.path / DATABASE_FILE).absolute()}")

    def fail_dead_trials(self, joules_by_number: Mapping[int, float | None]) -> list[int]:
        """Close the trials that a killed session left running; called while no other session holds the folder.

        Args:
            joules_by_number: What the ledger had billed to each of them when the session died.
        """
        study, dead = self.study(), []
        for trial in study.get_trials(deepcopy=False):
            if not trial.state.is_finished():
                joules = joules_by_number.get(trial.number)
                facts = {
                    **trial.user_attrs.get(ATTRIBUTE, {}),
                    "reason": "killed: the session that trained it died",
                    "increment_joules": joules,
                }
                study._storage.set_trial_user_attr(trial._trial_id, ATTRIBUTE, facts)
                study._storage.set_trial_user_attr(trial._trial_id, EXCUSED, "killed")
                study.tell(trial.number, state=self._optuna().trial.TrialState.FAIL)
                dead.append(trial.number)
        return dead

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder for one session; the lock goes with the process, however it ends.

        Raises:
            StoreError: If another process holds it.
        """
        try:
            import fcntl
        except ImportError:  # Windows has no flock: two sessions in one folder are then the user's care
            yield
            return
        with (self.path / ".lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise StoreError(
                    f"another process is running the study in {str(self.path)!r}; wait for it, or give another --out"
                ) from error
            yield

    def _storage(self) -> RDBStorage:
        optuna = self._optuna()
        remote = self.facts.get("storage") is not None
        arguments = {} if remote else {"connect_args": {"timeout": 60}}
        try:
            storage: RDBStorage = optuna.storages.RDBStorage(self.url, engine_kwargs=arguments)
            return storage
        except Exception as error:
            line = " ".join(str(error).split()) or type(error).__name__
            if not remote:
                file = str(self.path / DATABASE_FILE)
                raise StoreError(f"{file!r} cannot be read ({line}); restore it from a copy, or delete the folder and run again") from error
            remedy = "install the driver that it names" if isinstance(error, ImportError) else "see that it can be reached"
            raise StoreError(f"--storage {without_password(self.url)!r} cannot be used: {line[:300]}; {remedy}") from error

    @staticmethod
    def _optuna() -> Any:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        return optuna


def without_password(text: str) -> str:
    """Hide the password of a URL: it belongs on no screen and in no model card.

    >>> without_password("postgresql+psycopg://me:secret@host:5432/db")
    'postgresql+psycopg://me:...@host:5432/db'
    """
    return re.sub(r"(://[^:/@]*):[^@/]*@", r"\1:...@", text)
