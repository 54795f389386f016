"""What the workers of one study share beside its trials: its description, what each has spent, a lock, and the files of the trials.

Two kinds of entries, both in Optuna's own tables: a small one for each worker, rewritten at every beat (what it has spent, what its open
trainings took and are expected to take), and large ones that are rarely read (the description of the study, each worker's bill).
Each worker writes its own entries alone, so no sum is lost to a race; what must not happen twice is done under `SharedStudy.exclusive`.
Weights and examples lie in an `ArtifactStore`; a run folder has files of its own as well, and gets from there what others have trained.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import sys
import threading
import time
import uuid
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ..energy.journal import fitted, parse
from ..whole_file import whole_file
from .bill import check_bill
from .files import BillFile, StudyFile, check_study, lock

if TYPE_CHECKING:
    import optuna
    from optuna.artifacts._protocol import ArtifactStore as Store
    from sqlalchemy.engine import Connection

_DESCRIPTION, _STATE, _BILL, _STOP = "joulefront:study", "joulefront:worker:", "joulefront:bill:", "joulefront:stop"
#: Facts of a ``study.json`` that no worker may give another.
_OF_A_FOLDER = ("sessions", "storage", "shared", "worker", "state", "joined", "carbon", "estimate", "expected", "anchor")
#: How the place of files in an S3 bucket begins.
S3 = "s3://"
#: A worker waits so long for the others to decide; then it goes on without the lock, as the claims of trials still show.
LOCK_SECONDS, LOCK_POLL_SECONDS = 60.0, 0.005


@dataclass(frozen=True)
class WorkerState:
    """What a worker last said of itself.

    Attributes:
        id: Its name, which its run folder keeps; ``host`` is where it last ran.
        hardware_id: Short hash of its hardware, None before it has looked.
        beat: Grows with every word of it: whoever sees it grow knows that the worker lives, whatever the clocks of the machines say.
        joules: What all its sessions have spent so far.
        open_joules: Of that, what its open trainings have taken, by number.
        expected_joules: What they are expected to take in all, by number; nothing where it is unknown.
        ended: Whether its session has ended by itself.
    """

    id: str
    host: str
    hardware_id: str | None = None
    beat: int = 0
    joules: float = 0.0
    open_joules: Mapping[str, float | None] = field(default_factory=dict)
    expected_joules: Mapping[str, float] = field(default_factory=dict)
    ended: bool = False

    def __post_init__(self) -> None:
        """Refuse what no worker says."""
        if self.joules < 0 or self.beat < 0:
            raise ValueError(f"{_STATE}{self.id} must not be negative, got {self.joules} J and beat {self.beat}")

    @property
    def reserved_joules(self) -> float:
        """What its open trainings are expected to take yet."""
        return sum(max(0.0, joules - (self.open_joules.get(number) or 0.0)) for number, joules in self.expected_joules.items())


def new_worker() -> str:
    """Return a name for a worker that tells where it was made."""
    return f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:6]}"


class SharedStudy:
    """A study in a storage that several workers train."""

    def __init__(self, study: optuna.Study) -> None:
        self.study = study
        self._storage, self._id = study._storage, study._study_id

    def description(self) -> dict[str, Any] | None:
        """Return what a worker needs to know of the study: facts of its ``study.json``; None before anybody has written them.

        Raises:
            ValueError: If it is none that we write, as with all that is read here: others have written it.
        """
        found = self._storage.get_study_user_attrs(self._id).get(_DESCRIPTION)
        if found is None:
            return None
        given: dict[str, Any] = self._checked(
            _DESCRIPTION, StudyFile, {**found, "sessions": []} if isinstance(found, dict) else found, check_study
        )
        return {key: value for key, value in given.items() if key not in _OF_A_FOLDER}

    def describe(self, facts: Mapping[str, Any]) -> None:
        """Write these facts for the workers to come."""
        self._storage.set_study_user_attr(self._id, _DESCRIPTION, dict(facts))

    def note(self, state: WorkerState) -> None:
        """Write what a worker has to say of itself."""
        self._storage.set_study_system_attr(self._id, f"{_STATE}{state.id}", asdict(state))

    def look(self) -> tuple[dict[str, WorkerState], str | None]:
        """Return what all workers have said last, by id, and why the study was stopped, or None."""
        attrs = self._storage.get_study_system_attrs(self._id)
        said = {key: self._checked(key, WorkerState, one) for key, one in attrs.items() if key.startswith(_STATE)}
        states = {id: replace(one, id=id) for key, one in said.items() for id in [key.removeprefix(_STATE)]}
        return states, self._checked(_STOP, str | None, attrs.get(_STOP)) or None

    def is_closed(self, number: int) -> bool:
        """Whether a trial has ended, as the storage has it now."""
        trial = self._storage.get_trial(self._storage.get_trial_id_from_study_id_trial_number(self._id, number))
        return bool(trial.state.is_finished())

    def stop(self, reason: str) -> None:
        """Let all workers end after the epochs under way; an empty reason lets them go on."""
        self._storage.set_study_system_attr(self._id, _STOP, reason)

    def save_bill(self, worker: str, sessions: Sequence[Mapping[str, Any]]) -> None:
        """Keep the sessions of a worker's ``bill.json`` for whoever reads the study elsewhere."""
        self._storage.set_study_user_attr(self._id, f"{_BILL}{worker}", list(sessions))

    def bills(self) -> dict[str, list[dict[str, Any]]]:
        """Return the sessions of every worker's bill, by id."""
        attrs = self._storage.get_study_user_attrs(self._id)
        bills = {key: {"sessions": value} for key, value in attrs.items() if key.startswith(_BILL)}
        return {key.removeprefix(_BILL): self._checked(key, BillFile, one, check_bill)["sessions"] for key, one in bills.items()}

    def _checked(self, key: str, kind: Any, value: Any, check: Callable[[Any], None] = lambda value: None) -> Any:
        """Return an entry as a file of this kind would be read, see `read_json`."""
        try:
            found = fitted(kind, parse(json.dumps(value)), key)
            check(found)
        except (ValueError, RecursionError) as error:
            remedy = "restore its storage from a copy, or begin another study there with --name"
            raise ValueError(f"the study {self.study.study_name!r} is damaged ({error}); {remedy}") from error
        return found

    @contextlib.contextmanager
    def exclusive(self, wait_seconds: float = LOCK_SECONDS) -> Iterator[bool]:
        """Keep the other workers from asking for a trial, or closing one, meanwhile; yield whether that is so.

        The lock goes with the process or its connection, however these end. It is False after so long. In a database without locks
        that outlive a statement nothing is waited for: then it is the claims of the trials that keep workers apart.
        """
        engine: Any = getattr(getattr(self._storage, "_backend", self._storage), "engine", None)
        kind = None if engine is None else engine.dialect.name
        name = f"joulefront:{zlib.crc32(self.study.study_name.encode())}"
        if kind == "sqlite" and engine.url.database and Path(engine.url.database).is_file():
            with _file_lock(Path(f"{engine.url.database}.lock"), wait_seconds) as held:
                yield held
        elif kind in ("postgresql", "mysql", "mariadb"):
            from .optuna_storage import patient

            connection, held = patient(_connect, None, engine.url.render_as_string())(engine, kind, name, wait_seconds)
            try:
                yield held
            finally:
                with contextlib.suppress(Exception):  # a server that has gone has no lock
                    if held and kind != "postgresql":  # PostgreSQL's goes with the transaction
                        _ask(connection, "SELECT RELEASE_LOCK(:name)", name=name)
                with contextlib.suppress(Exception):
                    connection.close()
        else:
            yield True


def _connect(engine: Any, kind: str, name: str, wait_seconds: float) -> tuple[Connection, bool]:
    """Return a connection with a transaction of its own, and whether it has the lock."""
    connection = engine.connect()
    try:
        connection.begin()
        return connection, _take(connection, kind, name, wait_seconds)
    except BaseException:
        connection.close()
        raise


def _take(connection: Connection, kind: str, name: str, wait_seconds: float) -> bool:
    from sqlalchemy.exc import DBAPIError

    try:
        if kind != "postgresql":
            return bool(_ask(connection, "SELECT GET_LOCK(:name, :seconds)", name=name, seconds=wait_seconds) == 1)
        with connection.begin_nested():
            _ask(connection, f"SET LOCAL lock_timeout = {max(1, int(1000 * wait_seconds))}")
            _ask(connection, "SELECT pg_advisory_xact_lock(:key)", key=zlib.crc32(name.encode()))
        return True
    except DBAPIError as error:
        if error.connection_invalidated:
            raise
        return False  # another has it for longer


def _ask(connection: Connection, statement: str, **values: Any) -> Any:
    from sqlalchemy import text

    found = connection.execute(text(statement), values)
    return found.scalar() if found.returns_rows else None


@contextlib.contextmanager
def _file_lock(file: Path, wait_seconds: float) -> Iterator[bool]:
    until = time.monotonic() + wait_seconds
    while True:
        with lock(file) as held:
            if held or time.monotonic() > until:
                yield held
                return
        time.sleep(LOCK_POLL_SECONDS)


def check_place(place: str) -> str:
    """Return the place of a store as workers elsewhere understand it: a folder by its whole path, or ``s3://bucket/prefix``.

    Raises:
        ValueError: If it is neither, or the library for it is not installed.
    """
    if place.startswith(S3):
        if not urlsplit(place).netloc:
            raise ValueError(f"--artifacts must name a bucket, got {place!r}; s3://bucket/prefix is one")
        if find_spec("boto3") is None:
            raise ValueError(f"boto3 must be installed for --artifacts {place}; do pip install 'joulefront[s3]', or give a folder")
        return place.rstrip("/")
    if "://" in place:
        raise ValueError(f"--artifacts must be a folder or s3://bucket/prefix, got {place!r}")
    return str(Path(place).expanduser().absolute())


@dataclass(frozen=True)
class ArtifactStore:
    """The files of the trials of one study in a place that all workers reach.

    ``place`` is that of `check_place`; ``prefix`` begins the names, so that a place may hold several studies. A folder is made by the first
    file, if its parent exists: elsewhere it is a path of another machine.
    """

    place: str
    prefix: str

    def put(self, file: Path, name: str | None = None) -> None:
        """Store a file, under its own name or another; an ``OSError`` where the place cannot be reached."""
        stored = self._name(file if name is None else file.with_name(name))
        try:
            store = self._store(writing=True)
            if not self.place.startswith(S3):  # Optuna's store would leave half a file of a worker that is killed meanwhile
                with whole_file(Path(self.place) / stored) as unfinished:
                    shutil.copyfile(file, unfinished)
                return
            with file.open("rb") as opened:
                store.write(stored, opened)
        except OSError:
            raise
        except Exception as error:  # those of a bucket are of many kinds
            raise OSError(f"{self.place} cannot be written ({type(error).__name__}: {error})") from error

    def get(self, file: Path) -> bool:
        """Fetch the file of this name, unless it is here; return whether it is now."""
        if file.exists():
            return True
        with contextlib.suppress(Exception), self._store().open_reader(self._name(file)) as opened:
            with whole_file(file) as temporary, temporary.open("wb") as written:
                shutil.copyfileobj(opened, written)
            return True
        return False

    def remove(self, file: Path) -> None:
        """Drop the file of this name, if it is there."""
        with contextlib.suppress(Exception):
            self._store().remove(self._name(file))

    def _name(self, file: Path) -> str:
        bucket = self.place.startswith(S3)
        folder = urlsplit(self.place).path.strip("/") if bucket else ""
        return f"{folder}/{self.prefix}-{file.name}".lstrip("/")

    def _store(self, *, writing: bool = False) -> Store:
        from optuna.artifacts import Boto3ArtifactStore, FileSystemArtifactStore

        if self.place.startswith(S3):
            try:
                import boto3  # optional; AWS_ENDPOINT_URL names a server other than Amazon's
            except ImportError as error:
                raise OSError(
                    f"boto3 must be installed for --artifacts {self.place}; do pip install 'joulefront[s3]', or give a folder"
                ) from error
            return Boto3ArtifactStore(urlsplit(self.place).netloc, client=boto3.client("s3"))
        if writing and not (folder := Path(self.place)).is_dir():
            folder.mkdir()  # not its parents
        return FileSystemArtifactStore(self.place)


class LedgerCopy:
    """Keeps a copy of a worker's ledger where all of them keep their weights, for whoever audits the study without its machine.

    A thread looks once a minute whether the file has grown, and at the end, see `close`: a store may take longer to answer than a worker
    may be silent, so it is not the one that beats.
    """

    def __init__(self, file: Path, store: ArtifactStore, name: str, *, every_seconds: float = 60.0) -> None:
        self._file, self._store, self._name, self._every_seconds = file, store, name, every_seconds
        self._size, self._ended = 0, threading.Event()
        self._thread = threading.Thread(target=self._go_on, name="joulefront-ledger-copy", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Copy what has come since; a store that does not take it is a line on stderr."""
        self._ended.set()
        self._thread.join()
        try:
            self._copy()
        except OSError as error:
            print(f"the ledger of this worker stays in {self._file.parent} alone: {error}", file=sys.stderr)

    def _go_on(self) -> None:
        while not self._ended.wait(self._every_seconds):
            with contextlib.suppress(OSError):  # who trains says so with the first weights, and `close` at the end
                self._copy()

    def _copy(self) -> None:
        size = self._file.stat().st_size if self._file.exists() else 0
        if size != self._size:
            self._store.put(self._file, self._name)
            self._size = size
