"""The run folder: what a study keeps on disk, and the run that front, report and export read from it.

The only module that knows the names of its files.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from . import database, files
from .bill import Bill, add_up, read_bill, read_sessions
from .database import Mode, cause_of, without_password
from .examples import examples_of
from .files import StudyFile, Versioned, lock, read_json, read_snapshot, write_json
from .replicates import Repeats, read_repeats
from .run import Run as Run
from .shared_study import ArtifactStore, SharedStudy
from .trial import ATTRIBUTE, WORKER, Trial, all_from_optuna, check_order, from_json, to_json

if TYPE_CHECKING:
    import optuna
    from optuna.storages import RDBStorage
    from optuna.trial import FrozenTrial

T = TypeVar("T")
#: Version of the layout of a run folder; raised when an older version cannot be read any more.
FORMAT = 1
STUDY_FILE = "study.json"
BILL_FILE = "bill.json"
LEDGER_FILE = "ledger.jsonl"
DATABASE_FILE = "study.db"
SNAPSHOT_FILE = "trials.json"
LOCK_FILE = ".lock"


class StoreError(ValueError):
    """A run folder cannot be used; the message names the reason and the remedy."""


@dataclass(frozen=True)
class RunFolder:
    """One run folder and its Optuna storage.

    ``facts`` is the content of ``study.json``; ``given`` the storage URL as the user gave it, with its password: it is never written.
    """

    path: Path
    facts: Mapping[str, Any]
    given: str | None = field(default=None, repr=False)
    _ended: dict[int, tuple[FrozenTrial, Trial]] = field(default_factory=dict, repr=False, compare=False)  # they change no more

    @classmethod
    def exists(cls, path: Path) -> bool:
        """Whether there is a run in this folder, more than a start that was broken off."""
        return (path / STUDY_FILE).is_file() and files.broken_start(path / STUDY_FILE) is None

    @classmethod
    def create(cls, path: Path, facts: Mapping[str, Any], *, storage: str | None = None) -> RunFolder:
        """Make a run folder; its tables are created here, once, before any worker starts.

        A start that is broken off here, or was before, is begun again by the same call.

        Raises:
            StoreError: If the folder holds something else, or the storage cannot be reached.
        """
        if path.exists() and not path.is_dir():
            raise StoreError(f"--out {str(path)!r} is a file; a run needs a folder of its own")
        if any("\ud800" <= sign <= "\udfff" for sign in str(path.absolute())):
            raise StoreError(f"--out must be a path in UTF-8, got {str(path)!r}; choose another --out")
        begun, made = files.broken_start(path / STUDY_FILE), not path.exists()
        if begun is None and not made and any(file.name != LOCK_FILE and f"{STUDY_FILE}." not in file.name for file in path.iterdir()):
            raise StoreError(f"--out {str(path)!r} holds files but no {STUDY_FILE}: it is not a run folder; choose another --out")
        try:
            facts = {"format": FORMAT, "storage": None if storage is None else database.public_url(storage), **facts}
        except ValueError as error:
            raise StoreError(f"--storage {without_password(str(storage))!r} cannot be used: {error}") from error
        if begun is not None and all(begun.get(key) == facts[key] for key in ("storage", "study")):
            facts["run_id"] = begun.get("run_id", facts["run_id"])  # a server may have its study already
        path.mkdir(parents=True, exist_ok=True)
        folder = cls(path, facts, storage)
        with folder.lock():
            if cls.exists(path):
                raise StoreError(f"another process has just begun the study in {str(path)!r}; wait for it, or give another --out")
            folder.save_facts({**facts, "state": files.CREATING})
            for file in path.glob(f"{DATABASE_FILE}*"):
                file.unlink()
            (path / "artifacts").mkdir(exist_ok=True)
            try:
                folder._make_study()
            except StoreError:
                # Nothing has been stored: a folder that is left behind would count as a run.
                for file in path.iterdir():
                    shutil.rmtree(file) if file.is_dir() else file.unlink()
                if made:
                    path.rmdir()
                raise
            folder.save_facts(facts)
        return folder

    @classmethod
    def open(cls, path: str | Path, *, storage: str | None = None, lost_database: bool = False) -> RunFolder:
        """Open an existing run folder, with `lost_database` also one whose database is lost.

        The storage URL has the password that the folder does not keep; that in ``JOULEFRONT_STORAGE`` by default.

        Raises:
            StoreError: If there is no run, it was written by another version, it is damaged, or ``storage`` is another one.
        """
        path = Path(path)
        file = path / STUDY_FILE
        if not path.exists():
            near = sorted(p.parent.name for p in path.parent.glob(f"*/{STUDY_FILE}")) if path.parent.is_dir() else []
            remedy = f"there are: {', '.join(near)}" if near else "start one with joulefront run"
            raise StoreError(f"run folder {str(path)!r} does not exist; {remedy}")
        if not file.is_file():
            if path.is_dir() and (path / DATABASE_FILE).is_file():
                raise StoreError(f"{str(path)!r} has no {STUDY_FILE} (half written, or lost): restore it, or run in a new --out")
            raise StoreError(f"{str(path)!r} is not a run folder: it has no {STUDY_FILE}; give one that joulefront run has written")
        read = (one for one in path.iterdir() if one.suffix != ".tmp" and (one.exists() or one.is_symlink()))  # those are never read
        if strange := [str(one) for one in read if not one.is_file() and (not one.is_dir() or one.suffix in (".json", ".jsonl"))]:
            raise StoreError(f"{strange[0]!r} must be a file, got a folder, a pipe, a device or a link to nothing; remove it")
        version = _read(file, Versioned)["format"]
        if version != FORMAT:
            other = f"was written in format {version}, this joulefront reads format {FORMAT}; use the version that wrote it"
            raise StoreError(f"{str(path)!r} {other}")
        facts = cast(dict[str, Any], _read(file, StudyFile, files.check_study))
        if facts.get("state") == files.CREATING:
            raise StoreError(f"the start of {str(path)!r} was broken off before its first trial; run the same command again")
        if facts.get("storage") is None and not (path / DATABASE_FILE).is_file() and not lost_database:
            raise StoreError(f"{str(path)!r} has lost its {DATABASE_FILE}; joulefront repair makes it again, or restore it from a copy")
        if storage is not None and (why := database.other_database(storage, facts.get("storage"), path / DATABASE_FILE)):
            raise StoreError(why)
        return cls(path, facts, storage)

    def save_facts(self, facts: Mapping[str, Any]) -> RunFolder:
        """Write ``study.json`` (atomically) and return the folder that holds it."""
        write_json(self.path / STUDY_FILE, facts, private=facts.get("storage") is not None)
        return replace(self, facts=facts)

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

    def examples(self, number: int) -> Path:
        """File of what the model of a trial gave for each validation example, whether it exists or not."""
        return examples_of(self.path, number)

    @property
    def _shared_files(self) -> ArtifactStore | None:
        place = self.facts.get("artifacts")
        return None if place is None or self._url() is None else ArtifactStore(str(place), str(self.facts["run_id"]))

    def share_artifact(self, number: int) -> None:
        """Give the files of a trial to the other workers of a shared study; an ``OSError`` where their place cannot be reached."""
        for file in (self.artifact(number), self.examples(number)):
            if self._shared_files is not None and file.exists():
                self._shared_files.put(file)

    def fetch_artifact(self, number: int) -> Path:
        """Return the file of the weights of a trial, fetched with its examples if another worker has trained it."""
        if self._shared_files is not None:
            self._shared_files.get(self.examples(number))
            self._shared_files.get(self.artifact(number))
        return self.artifact(number)

    def keep_artifacts(self, keep: Iterable[int]) -> None:
        """Drop the weights of every trial that is not in ``keep``."""
        names = {self.artifact(number).name for number in keep}
        for file in (self.path / "artifacts").glob("trial-*.weights"):
            if file.name not in names:
                if self._shared_files is not None:
                    self._shared_files.remove(file)
                with contextlib.suppress(FileNotFoundError):  # another worker was faster
                    file.unlink()

    def study(self, sampler: optuna.samplers.BaseSampler | None = None, *, read_only: bool = False, alone: bool = False) -> optuna.Study:
        """Load the Optuna study, `read_only` without changing anything, not even on disk.

        Who is `alone` with the folder's own database, as a session is, has it in memory, see `BufferedStorage`.

        Raises:
            StoreError: If the storage is damaged or out of reach, or only the folder names it.
        """
        import optuna

        from .optuna_storage import BufferedStorage

        storage: Any = self._storage("read" if read_only else "write")
        try:
            storage = BufferedStorage(storage, self._study_name) if alone and self.facts.get("storage") is None else storage
            study: optuna.Study = optuna.load_study(study_name=self._study_name, storage=storage, sampler=sampler)
        except KeyError as error:
            raise StoreError(
                f"{str(self.path)!r}: the storage has no study {self._study_name!r}: it is half written, or another one; run in a new --out"
            ) from error
        except Exception as error:
            raise StoreError(f"{str(self.path)!r}: the storage cannot be read ({cause_of(error)}); {self._remedy}") from error
        stored, known = [one.name.lower() for one in study.directions], self.facts["study"]["directions"]
        if stored != known:
            raise StoreError(f"the directions of {str(self.path)!r} must be {known} as in {STUDY_FILE}, got {stored}; {self._remedy}")
        return study

    def run(self, study_now: optuna.Study | None = None, *, trials: tuple[Trial, ...] | None = None, bill: bool = True) -> Run:
        """Read all of this run; with the loaded study nothing is opened again, which takes longer than reading, nor `trials` read again.

        Without `bill` neither it nor the repeats are read: a session asks after every trial, and what it spends is in its account.
        """
        study = self.facts["study"]
        shared = self.facts.get("shared") is not None
        trials = self._snapshot() if trials is None and study_now is None else trials
        if trials is None:
            study_now = study_now or self.study(read_only=True)
            _, trials = self.stored_trials(study_now)
        return Run(
            name=study["name"],
            path=self.path,
            objectives=tuple(study["objectives"]),
            directions=tuple(study["directions"]),
            rungs=tuple(study["rungs"]),
            trials=trials,
            bill=Bill() if not bill else self._shared_bill(study_now) if shared and study_now is not None else read_bill(self.bill_file),
            facts=self.facts,
            repeats=read_repeats(self.path) if bill else Repeats(),
        )

    def stored_trials(self, study: optuna.Study) -> tuple[list[FrozenTrial], tuple[Trial, ...]]:
        """Return trials of one moment as Optuna has them and as ours; a ``StoreError`` where its rows are none that we write."""
        try:
            stored = study.get_trials(deepcopy=False)
            return stored, all_from_optuna(stored, self._ended, self.facts["study"]["objectives"])
        except (ValueError, TypeError, RecursionError) as error:  # Optuna sorts what it has read
            why = str(error).removesuffix(f"; {database.COPY}")
            raise StoreError(f"the database of {str(self.path)!r} is damaged ({why}); {self._remedy}") from error

    def _shared_bill(self, study: optuna.Study) -> Bill:
        """Return the bill of all workers; this one's from its own file, which is newer."""
        bills = {**SharedStudy(study).bills(), str(self.facts.get("worker")): read_sessions(self.bill_file)}
        return add_up(session for sessions in bills.values() for session in sessions)

    def save_snapshot(self, study: optuna.Study) -> None:
        """Keep the trials beside the database: reading them needs no database library, which takes long to import; `repair` needs them."""
        from .optuna_storage import keep

        keep(study)
        stored, ours = self.stored_trials(study)
        trials = [to_json(trial) for trial in ours]
        rest = [database.optuna_part(trial, without=ATTRIBUTE) for trial in stored]
        mark, digest = database.mark_of(self.path / DATABASE_FILE), files.digest(trials, rest)
        facts = {"format": FORMAT, "run_id": self.facts["run_id"], "mark": mark, "digest": digest}
        write_json(self.path / SNAPSHOT_FILE, {**facts, "trials": trials, "optuna": rest})

    @classmethod
    def repair(cls, path: str | Path) -> tuple[RunFolder, list[str]]:
        """Make a lost or damaged database again from the snapshot.

        Return the folder, and the names of weights whose trials are newer than the snapshot and therefore lost.

        Raises:
            StoreError: If there is nothing to repair, or nothing to repair it from.
        """
        folder = cls.open(path, lost_database=True)
        file, copy = folder.path / DATABASE_FILE, folder.path / SNAPSHOT_FILE
        with folder.lock(), tempfile.TemporaryDirectory(dir=folder.path) as aside:
            if folder.facts.get("storage") is not None:
                raise StoreError(f"{str(folder.path)!r} has its trials elsewhere; only a {DATABASE_FILE} in the folder can be repaired")
            if folder._is_readable():
                raise StoreError(f"{str(file)!r} can be read: there is nothing to repair")
            try:
                kept = read_snapshot(copy, folder.facts)
                trials = [(from_json(trial), rest) for trial, rest in zip(kept["trials"], kept["optuna"], strict=True)]
            except (OSError, ValueError, KeyError) as error:
                said = f"{str(copy)!r} is missing, damaged, of another study or of an older version"
                raise StoreError(f"{said} ({error}); restore {str(file)!r} from a copy") from error
            new = replace(folder, path=Path(aside))
            new._make_study()
            new.study().add_trials([database.optuna_trial(rest, {ATTRIBUTE: trial.facts()}) for trial, rest in trials])
            if file.exists():
                file.replace(file.with_name(f"{file.name}.damaged"))
            file.with_name(f"{file.name}-journal").unlink(missing_ok=True)  # it belongs to the lost one
            (new.path / DATABASE_FILE).replace(file)
            folder.save_snapshot(folder.study(read_only=True))
        known = {folder.artifact(trial.number).name for trial, _ in trials}
        return folder, sorted({file.name for file in (folder.path / "artifacts").glob("trial-*.weights")} - known)

    def _snapshot(self) -> tuple[Trial, ...] | None:
        """Return the kept trials, or None when there are none or they are not those of the database."""
        try:
            kept = read_snapshot(self.path / SNAPSHOT_FILE, self.facts)
            if kept.get("mark") is None or kept["mark"] != database.mark_of(self.path / DATABASE_FILE):  # it is none of a storage elsewhere
                return None
            trials = tuple(map(from_json, kept["trials"]))
            check_order(trials)
            return trials
        except (OSError, ValueError, LookupError):
            return None  # never written, or damaged: the database is the truth

    def fail_dead_trials(self, joules_by_number: Mapping[int, float | None]) -> list[int]:
        """Close the trials that a killed session left running, with what the ledger had billed to each of them when it died.

        It is called while no other session holds the folder.
        """
        study, own = self.study(), self.facts.get("worker")
        stored, _ = self.stored_trials(study)  # nothing is written to a damaged one
        left = {trial.number for trial in stored if own is None or trial.user_attrs.get(WORKER, {}).get("id") == own}
        return database.fail_open_trials(study, joules_by_number, only=left)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder for one session; the lock goes with the process, however it ends.

        Raises:
            StoreError: If another process holds it.
        """
        with lock(self.path / LOCK_FILE) as held:
            if not held:
                raise StoreError(f"another process is running the study in {str(self.path)!r}; wait for it, or give another --out")
            files.refuse_links(self.path / name for name in (LEDGER_FILE, DATABASE_FILE, "artifacts", "examples"))
            yield

    @property
    def _study_name(self) -> str:
        return str(self.facts.get("shared") or (self.facts["run_id"] if self.facts.get("storage") else self.facts["study"]["name"]))

    def _url(self) -> str | None:
        """Return the user's own URL of the storage with its password, or None for the folder's own database.

        Raises:
            StoreError: If only the folder names the storage: it may be somebody else's, and is not contacted.
        """
        if (url := self.facts.get("storage")) is None:
            return None
        if (own := database.own_url(str(url), self.given)) is None:
            raise StoreError(database.not_given(str(url), self.path))
        return own

    @property
    def _remedy(self) -> str:
        return database.COPY if self.facts.get("storage") else "joulefront repair makes it again, or restore it"

    def _is_readable(self) -> bool:
        with contextlib.suppress(ValueError, TypeError, RuntimeError):
            self.stored_trials(self.study(read_only=True))
            return True
        return False

    def _make_study(self) -> None:
        study = self.facts["study"]
        database.make_study(self._storage("create"), self._study_name, study["objectives"], study["directions"])

    def _storage(self, mode: Mode) -> RDBStorage:
        from .optuna_storage import open_storage

        url, file = self._url(), self.path / DATABASE_FILE
        try:
            return open_storage(file, url, mode)
        except PermissionError:  # it is whole: nothing that another user may read is made again
            raise
        except Exception as error:
            said = database.unusable(error, file, self._remedy) if url is None else database.out_of_reach(error, url)
            raise StoreError(said) from error


def _read(file: Path, kind: type[T], *check: Callable[[T], None]) -> T:
    try:
        return read_json(file, kind, "restore it from a copy, or delete the folder and run again", *check)
    except ValueError as error:
        raise StoreError(str(error)) from error
