"""Optuna's storage of a run: opened, patient when its server goes away, and in memory where one session alone writes to the file.

Optuna's own commits every parameter and attribute by itself and reads the trials again before each decision, some hundred statements a
trial: on small models that cost as much as training them. Nobody else writes while a session holds its folder, so its memory is right;
the file has each trial before its training begins (`flush`) and again with its result.
"""

from __future__ import annotations

import copy
import functools
import importlib
import json
import re
import sys
import time
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
from optuna.storages import InMemoryStorage, RDBStorage

from . import database
from .database import COPY, DAMAGED, DatabaseError, Mode, cause_of, driver_error, is_full, sqlite_file, without_password

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial, TrialState
    from sqlalchemy.engine import URL

#: How long a lost server is waited for; the pauses between two attempts double up to the longest one.
PATIENCE_SECONDS, FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 60.0, 0.5, 8.0
#: Tables of a database that hold what a study is.
TABLES = {f"{kind}_{one}" for kind in ("study", "trial") for one in ("system_attributes", "user_attributes")} | (
    {"studies", "study_directions", "trials", "trial_params", "trial_values"}
)
#: How long a database may take to get its tables from another worker.
TABLES_SECONDS = 60.0


def open_storage(file: Path, url: str | None, mode: Mode) -> RDBStorage:
    """Open Optuna's storage for a URL of the user's own with its password, or for the run folder's own SQLite file without one.

    Raises:
        Exception: Whatever Optuna, SQLAlchemy or the driver raise when the storage cannot be opened.
    """
    from sqlalchemy.engine import URL

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    _load_alembic()
    place = URL.create("sqlite", database=str(file.absolute())) if url is None else database.parsed(url)
    local, arguments = sqlite_file(place), dict[str, Any]()
    if local is not None:
        # The path goes to SQLite as it is: a ? or % of a folder's name never becomes a part of a URL.
        arguments["creator"] = functools.partial(database.connect, local, mode)
    elif place.get_backend_name() == "postgresql":
        if place.get_driver_name() in ("psycopg", "psycopg2") and "connect_timeout" not in place.query:
            arguments["connect_args"] = {"connect_timeout": 10}
        if mode == "read":
            arguments["execution_options"] = {"postgresql_readonly": True}
    elif place.get_backend_name() in ("mysql", "mariadb"):  # or a server could ask for files of this machine
        arguments["connect_args"] = {"allow_local_infile" if place.get_driver_name() == "mysqlconnector" else "local_infile": False}
    text = place.render_as_string(hide_password=False).replace("{", "{{").replace("}", "}}")  # Optuna formats it
    engine = {"pool_pre_ping": local is None, **arguments}
    if mode == "create" and (lost := _lost_table(place, engine)):  # Optuna would make an empty one, and its trials would be gone
        raise DatabaseError(f"its table {lost} is lost")
    opened = functools.partial(RDBStorage, text, engine_kwargs=engine, skip_table_creation=mode != "create")
    storage = _with_tables(lambda: opened(skip_compatibility_check=True))
    if not _of_this_optuna(storage):
        storage = opened()  # which says what to do about tables that it does not know
    shown = str(local) if local is not None else without_password(place.render_as_string(hide_password=False))
    for name in (*vars(optuna.storages.BaseStorage), "_create_new_trial", "_set_trial_param", "_get_trials", "_get_best_trial_id"):
        if callable(getattr(storage, name)) and not name.startswith("__") and name not in ("remove_session", "check_trial_is_updatable"):
            setattr(storage, name, patient(getattr(storage, name), local, shown))
    if url is not None and mode != "read":
        database.note_given(url)
    return storage


def _lost_table(place: URL, engine: Mapping[str, Any]) -> str | None:
    """Return a table that a database with trials has lost, or None; where others make their tables at this moment there are no trials."""
    import sqlalchemy

    opened = sqlalchemy.create_engine(place, **engine)
    with opened.connect() as connection:
        there = set(sqlalchemy.inspect(connection).get_table_names())
        asked = {name: sqlalchemy.text(f"SELECT 1 FROM {name} LIMIT 1") for name in ("studies", "trials") if name in there}
        used = {name for name, query in asked.items() if connection.execute(query).first()}
    opened.dispose()
    return "studies" if used == {"trials"} else min(TABLES - there, default=None) if used else None


def _load_alembic() -> None:
    """Load what Optuna migrates tables with, but not the colours of its templates' error pages: half of the time that it takes."""
    if "mako.exceptions" not in sys.modules:
        sys.modules["mako.ext.pygmentplugin"] = None  # type: ignore[assignment]  # not to be found, which Mako is ready for
        try:
            importlib.import_module("alembic.migration")
        finally:
            sys.modules.pop("mako.ext.pygmentplugin", None)  # another thread may have loaded it meanwhile


def _of_this_optuna(storage: RDBStorage) -> bool:
    """Whether the very version of Optuna that runs here has made the tables: it need not load all its migrations to know them."""
    from sqlalchemy import text

    with storage.engine.connect() as connection:
        return connection.execute(text("SELECT library_version FROM version_info")).scalar() == optuna.__version__


def _with_tables(opened: Callable[[], RDBStorage]) -> RDBStorage:
    """Open a storage whose tables another worker of the same study may be making at this moment."""
    until = time.monotonic() + TABLES_SECONDS
    while True:
        try:
            return opened()
        except Exception as error:
            if time.monotonic() > until or not re.search(r"already exists|unique constraint|duplicate", cause_of(error), re.IGNORECASE):
                raise
        time.sleep(FIRST_PAUSE_SECONDS)


def patient(operation: Callable[..., Any], file: Path | None, shown: str) -> Callable[..., Any]:
    """Return an operation of a storage that waits for a lost server, and that names the cause of what waiting cannot mend.

    It may have been carried out although the answer was lost: a trial that is told twice has been told, and one that was made twice stays
    open and is closed by the next session. Messages name the storage as `shown`; `file` is the database, if it is a file.
    """

    @functools.wraps(operation)
    def attempt(*args: Any, **kwargs: Any) -> Any:
        from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
        from sqlalchemy.exc import SQLAlchemyError

        lost, pause = None, FIRST_PAUSE_SECONDS
        while True:
            try:
                result = operation(*args, **kwargs)
            except UpdateFinishedTrialError:
                if lost is None or operation.__name__ != "set_trial_state_values":
                    raise
                return True
            except (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError, RecursionError) as error:
                if "Record does not exist" in str(error) and operation.__name__ != "get_study_id_from_name":
                    gone = f"{shown} has no longer the study or the trial that this session writes to: it was deleted there"
                    raise DatabaseError(f"{gone}; restore it from a copy, or run in a new --out") from error
                read = operation.__name__ in ("_get_trials", "get_study_user_attrs", "get_study_system_attrs")
                if not read and not isinstance(error, json.JSONDecodeError):
                    raise
                what = "trials" if operation.__name__ == "_get_trials" else "study"
                raise ValueError(f"the {what} in {shown} cannot be read, {type(error).__name__}: {error}; {COPY}") from error
            except (StorageInternalError, SQLAlchemyError) as error:
                now = time.monotonic()
                if file is not None or not _is_lost(error) or (lost is not None and now - lost > PATIENCE_SECONDS):
                    raise DatabaseError(_explained(error, file, shown)) from error
                if lost is None:
                    lost = now
                    print(f"{shown}: the connection is lost ({cause_of(error)}); trying for {PATIENCE_SECONDS:.0f} s", file=sys.stderr)
                time.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
            else:
                if lost is not None:
                    print(f"{shown}: connected again after {time.monotonic() - lost:.0f} s; nothing is lost", file=sys.stderr, flush=True)
                return result

    return attempt


def _is_lost(error: BaseException) -> bool:
    from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

    cause = driver_error(error)
    if not isinstance(cause, DBAPIError) or is_full(error) or re.search("does not exist|Unknown database|authentication", cause_of(error)):
        return False
    return cause.connection_invalidated or isinstance(cause, OperationalError | InterfaceError)


def _explained(error: BaseException, file: Path | None, shown: str) -> str:
    again = "then run the same command again: what was measured until then is kept"
    anew = COPY
    if file is not None and (file.parent / "study.json").is_file():
        anew = f"joulefront repair {str(file.parent)!r} makes it again"
    if file is not None and not file.exists():
        return f"{shown} was deleted while it was in use; {anew}, {again}"
    if is_full(error):
        return f"{shown} cannot be written: its disk is full; free some space, {again}"
    if "locked" in cause_of(error):
        return f"{shown} is locked by another program; end that (a dashboard, a backup), {again}"
    remedy = "see that its disk and its permissions are in order" if file is not None else "see that the server runs and can be reached"
    if "read-only" in cause_of(error) or "permission denied" in cause_of(error):
        remedy = "see that its user may write there"
    elif DAMAGED.search(cause_of(error)):
        remedy = anew
    return f"{shown} cannot be used any more ({cause_of(error)}); {remedy}, {again}"


def keep(study: optuna.Study) -> None:
    """Write what the session that holds a study has only in memory, see `BufferedStorage`; other storages have it already."""
    flush: Callable[[], None] = getattr(study._storage, "flush", lambda: None)
    flush()


@dataclass(frozen=True)
class _Written:
    """A trial as it is in the file, where it has the id ``place``; Optuna changes the attributes of the one in memory."""

    place: int
    trial: FrozenTrial
    params: frozenset[str]
    user_attrs: dict[str, Any]
    system_attrs: dict[str, Any]

    @classmethod
    def of(cls, place: int, trial: FrozenTrial) -> _Written:
        return cls(place, trial, frozenset(trial.params), dict(trial.user_attrs), dict(trial.system_attrs))


class BufferedStorage(InMemoryStorage):
    """A study of an SQLite file, in memory; only one session may hold it.

    A session that dies between two flushes leaves the file as it was at the last one: nothing is ever half written.
    """

    def __init__(self, disk: RDBStorage, name: str) -> None:
        """Read a study of the file; one that is not there raises KeyError."""
        super().__init__()
        self._disk, self._disk_study = disk, disk.get_study_id_from_name(name)
        study = self.create_new_study(disk.get_study_directions(self._disk_study), name)
        for key, value in disk.get_study_user_attrs(self._disk_study).items():
            super().set_study_user_attr(study, key, value)
        for key, value in disk.get_study_system_attrs(self._disk_study).items():
            super().set_study_system_attr(study, key, value)
        self._written: list[_Written] = []  # by number
        for trial in disk.get_all_trials(self._disk_study, deepcopy=False):
            number = self.create_new_trial(study, trial)
            self._studies[study].param_distribution.update(trial.distributions)
            self._written.append(_Written.of(trial._trial_id, self._get_trial(number)))
        self._study = study
        file = sqlite_file(disk.engine.url)
        self._write = patient(self._write, file, str(file))  # type: ignore[method-assign]  # it waits and explains as all operations do

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        """Set it in the file, too: there are few."""
        super().set_study_user_attr(study_id, key, value)
        self._disk.set_study_user_attr(self._disk_study, key, value)

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        """Set it in the file, too."""
        super().set_study_system_attr(study_id, key, value)
        self._disk.set_study_system_attr(self._disk_study, key, value)

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        """Write a trial that ends here, with all that is known of it."""
        with self._lock:
            done = super().set_trial_state_values(trial_id, state, values)
            if state.is_finished():
                self.flush()
            return done

    def flush(self) -> None:
        """Write what the file does not have yet.

        Raises:
            DatabaseError: If the file cannot be written any more.
        """
        with self._lock:
            trials = self._studies[self._study].trials
            new = trials[len(self._written) :]
            changed = [number for number, known in enumerate(self._written) if trials[number] is not known.trial]
            if new or changed:
                self._write(trials, changed, new)

    def _write(self, trials: list[FrozenTrial], changed: list[int], new: list[FrozenTrial]) -> None:
        from optuna.storages._rdb.storage import _create_scoped_session

        with _create_scoped_session(self._disk.scoped_session) as session:
            for number in changed:
                self._update(session, self._written[number], trials[number])
            places = [self._insert(session, trial) for trial in new]  # in the order of their numbers: the file counts them
        for number in changed:
            self._written[number] = _Written.of(self._written[number].place, trials[number])
        self._written += map(_Written.of, places, new)

    def _insert(self, session: Any, trial: FrozenTrial) -> int:
        bare = copy.copy(trial)
        bare._params, bare._distributions = {}, {}  # Optuna would look each up among all trials
        made = self._disk._get_prepared_new_trial(self._disk_study, bare, session)
        if made.number != trial.number:
            raise RuntimeError(f"another process has written trial {trial.number} to the database of this session; let one of them end")
        place = int(made.trial_id)
        self._add_parameters(session, place, trial, set())
        return place

    def _update(self, session: Any, known: _Written, trial: FrozenTrial) -> None:
        from optuna.storages._rdb import models

        place = known.place
        made = models.TrialModel.find_or_raise_by_id(place, session)
        self._add_parameters(session, place, trial, known.params)
        for kind, before, now in (
            (models.TrialUserAttributeModel, known.user_attrs, trial.user_attrs),
            (models.TrialSystemAttributeModel, known.system_attrs, trial.system_attrs),
        ):
            for key, value in now.items():
                if key not in before or before[key] is not value:
                    self._disk._set_trial_attr_without_commit(session, kind, place, key, value)
        for objective, value in enumerate(trial.values or ()):
            self._disk._set_trial_value_without_commit(session, made, objective, value)
        made.state, made.datetime_start, made.datetime_complete = trial.state, trial.datetime_start, trial.datetime_complete

    def _add_parameters(self, session: Any, place: int, trial: FrozenTrial, known: Container[str]) -> None:
        from optuna.distributions import distribution_to_json
        from optuna.storages._rdb import models

        for name, kind in trial.distributions.items():
            if name not in known:
                value, text = kind.to_internal_repr(trial.params[name]), distribution_to_json(kind)
                session.add(models.TrialParamModel(trial_id=place, param_name=name, param_value=value, distribution_json=text))
