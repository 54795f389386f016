"""The database of a run: Optuna's storage, opened to be made, written or only read, and patient when its server goes away.

The rest of the run folder needs no database library, which takes long to import; so Optuna and SQLAlchemy are imported in the functions.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import importlib
import os
import re
import sqlite3
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from .storage_url import sqlite_file, without_password
from .trial import ATTRIBUTE, EXCUSED

if TYPE_CHECKING:
    import optuna
    from optuna.storages import RDBStorage
    from optuna.trial import FrozenTrial
    from sqlalchemy.engine import URL

#: What a database is opened for: ``create`` makes its tables, ``write`` finds them, ``read`` changes nothing, not even on disk.
Mode = Literal["create", "write", "read"]
#: How long a lost server is waited for; the pauses between two attempts double up to the longest one.
PATIENCE_SECONDS, FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 60.0, 0.5, 8.0
#: Tables of a database that hold what a study is.
TABLES = {f"{kind}_{one}" for kind in ("study", "trial") for one in ("system_attributes", "user_attributes")} | (
    {"studies", "study_directions", "trials", "trial_params", "trial_values"}
)
#: How long a database may take to get its tables from another worker.
TABLES_SECONDS = 60.0
#: What to do without a driver.
DRIVERS = (
    "pip install 'joulefront[postgresql]' for postgresql+psycopg://user@host/name, 'joulefront[mysql]' for mysql+pymysql://user@host/name"
)
#: What drivers say of a database that no waiting mends.
DAMAGED = re.compile(r"no such (table|column)|table \w+ is lost|malformed|not a database|decode to UTF-8")
#: SQLite waits this long for another process that writes.
LOCK_SECONDS = 60.0


class DatabaseError(RuntimeError):
    """A database cannot be used any more in the middle of the work; the message names the cause and the remedy."""


def open_storage(file: Path, url: str | None, mode: Mode) -> RDBStorage:
    """Open Optuna's storage for a URL with its password, or for the run folder's own SQLite file without one.

    Raises:
        Exception: Whatever Optuna, SQLAlchemy or the driver raise when the storage cannot be opened.
    """
    import optuna
    from sqlalchemy.engine import URL, make_url

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    _load_alembic()
    place = URL.create("sqlite", database=str(file.absolute())) if url is None else make_url(url)
    local, arguments = sqlite_file(place), dict[str, Any]()
    if local is not None:
        # The path goes to SQLite as it is: a ? or % of a folder's name never becomes a part of a URL.
        arguments["creator"] = functools.partial(connect, local, mode)
    elif place.get_backend_name() == "postgresql":
        if place.get_driver_name() in ("psycopg", "psycopg2") and "connect_timeout" not in place.query:
            arguments["connect_args"] = {"connect_timeout": 10}
        if mode == "read":
            arguments["execution_options"] = {"postgresql_readonly": True}
    text = place.render_as_string(hide_password=False).replace("{", "{{").replace("}", "}}")  # Optuna formats it
    engine = {"pool_pre_ping": local is None, **arguments}
    if mode == "create" and (lost := _lost_table(place, engine)):  # Optuna would make an empty one, and its trials would be gone
        raise DatabaseError(f"its table {lost} is lost")
    opened = functools.partial(optuna.storages.RDBStorage, text, engine_kwargs=engine, skip_table_creation=mode != "create")
    storage = _with_tables(lambda: opened(skip_compatibility_check=True))
    if not _of_this_optuna(storage):
        storage = opened()  # which says what to do about tables that it does not know
    shown = str(local) if local is not None else without_password(place.render_as_string(hide_password=False))
    for name in (*vars(optuna.storages.BaseStorage), "_create_new_trial", "_set_trial_param", "_get_trials", "_get_best_trial_id"):
        if callable(getattr(storage, name)) and not name.startswith("__") and name not in ("remove_session", "check_trial_is_updatable"):
            setattr(storage, name, patient(getattr(storage, name), local, shown))
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
    import optuna
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


def guarded(storage: RDBStorage, operation: Callable[..., Any]) -> Callable[..., Any]:
    """Return an operation on the tables of a storage of the run folder's own file, with the messages of all others."""
    local = sqlite_file(storage.engine.url)
    return patient(operation, local, str(local))


def keep(study: optuna.Study) -> None:
    """Write what the session that holds a study has only in memory, see ``buffered``; other storages have it already."""
    flush: Callable[[], None] = getattr(study._storage, "flush", lambda: None)
    flush()


def connect(file: Path, mode: Mode) -> sqlite3.Connection:
    """Connect to an SQLite file; what is opened to be read is never changed, and only ``create`` makes a file.

    Raises:
        sqlite3.Error: If there is no such file, or it cannot be read.
        PermissionError: If this user has no right to read it, of which SQLite says nothing.
    """
    if file.exists() and not os.access(file, os.R_OK):  # not opened: to close it would end SQLite's own locks
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(file))
    access = {"create": "rwc", "write": "rw", "read": "ro"}[mode]
    connection = sqlite3.connect(f"{file.absolute().as_uri()}?mode={access}", uri=True, timeout=LOCK_SECONDS, check_same_thread=False)
    if mode == "create":
        return connection
    foreign = "SELECT name, type FROM sqlite_master WHERE type = 'trigger' OR type = 'view' AND (name LIKE 'trial%' OR name LIKE 'stud%')"
    try:
        if found := connection.execute(foreign).fetchall():  # to read a view, or to write where a trigger is, may take for ever
            raise sqlite3.DatabaseError(f"{found[0][0]} must be a table, got a {found[0][1]}")
    except sqlite3.OperationalError as error:
        connection.close()
        if mode == "write" or "readonly" not in str(error):
            raise
        return _rolled_back(file)
    return connection


def _rolled_back(file: Path) -> sqlite3.Connection:
    """Return a copy in memory of a database whose last writer was killed within a transaction, as it was before that transaction."""
    memory = sqlite3.connect(":memory:", check_same_thread=False)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / file.name
        for ending in ("", "-journal"):
            copy.with_name(copy.name + ending).write_bytes(file.with_name(file.name + ending).read_bytes())
        with contextlib.closing(sqlite3.connect(copy)) as source:
            source.backup(memory)
    return memory


def make_study(storage: RDBStorage, name: str, objectives: Sequence[str], directions: Sequence[Any]) -> None:
    """Make a study, or find the one that a broken-off start has made."""
    import optuna

    study = optuna.create_study(study_name=name, storage=storage, directions=list(directions), load_if_exists=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # metric names are marked experimental; without them a dashboard shows "Objective 0"
        study.set_metric_names(list(objectives))


def fail_open_trials(
    study: optuna.Study, joules_by_number: Mapping[int, float | None], *, only: Collection[int] | None = None
) -> list[int]:
    """Close the trials that a killed session left running, with what the ledger had billed to each of them; return their numbers.

    Without ``only``, the numbers of the trials that are meant, it is called while no session trains for the study.
    """
    from optuna.exceptions import UpdateFinishedTrialError
    from optuna.trial import TrialState

    dead = []
    for trial in study.get_trials(deepcopy=False):
        if trial.state != TrialState.RUNNING or (only is not None and trial.number not in only):  # one that waits was not begun
            continue
        with contextlib.suppress(UpdateFinishedTrialError):  # its worker was just in time
            facts = {
                **trial.user_attrs.get(ATTRIBUTE, {}),
                "reason": "killed: the session that trained it died",
                "increment_joules": joules_by_number.get(trial.number),
            }
            study._storage.set_trial_user_attr(trial._trial_id, ATTRIBUTE, facts)
            study._storage.set_trial_user_attr(trial._trial_id, EXCUSED, "killed")
            study.tell(trial.number, state=TrialState.FAIL)
            dead.append(trial.number)
    return dead


def mark_of(file: Path) -> dict[str, Any] | None:
    """Return what changes with every change of an SQLite database: its change counter, and its trials by state with the last of each.

    None while a transaction is under way or was broken off, or when the file cannot be read.
    """
    try:
        with file.open("rb") as opened:
            counter = int.from_bytes(opened.read(28)[24:], "big")
        with contextlib.closing(connect(file, "read")) as connection:
            rows = connection.execute("SELECT state, COUNT(*), MAX(trial_id) FROM trials GROUP BY state ORDER BY state").fetchall()
    except (OSError, sqlite3.Error):
        return None
    if file.with_name(f"{file.name}-journal").exists():
        return None
    return {"changes": counter, "trials": [list(row) for row in rows]}


def optuna_part(trial: FrozenTrial, *, without: str) -> dict[str, Any]:
    """Return as JSON what makes a trial of Optuna again, but for one user attribute."""
    from optuna.distributions import distribution_to_json

    return {
        "state": trial.state.name,
        "params": dict(trial.params),
        "distributions": {name: distribution_to_json(one) for name, one in trial.distributions.items()},
        "values": trial.values,
        "user_attrs": {name: value for name, value in trial.user_attrs.items() if name != without},
        "system_attrs": dict(trial.system_attrs),
    }


def optuna_trial(part: Mapping[str, Any], attributes: Mapping[str, Any]) -> FrozenTrial:
    """Make a trial of Optuna from what `optuna_part` returned and the user attributes that it left out."""
    from optuna.distributions import json_to_distribution
    from optuna.trial import TrialState, create_trial

    return create_trial(
        state=TrialState[part["state"]],
        params=part["params"],
        distributions={name: json_to_distribution(one) for name, one in part["distributions"].items()},
        values=part["values"],
        user_attrs={**part["user_attrs"], **attributes},
        system_attrs=part["system_attrs"],
    )


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
                if operation.__name__ not in ("_get_trials", "get_study_user_attrs", "get_study_system_attrs"):
                    raise
                what = "trials" if operation.__name__ == "_get_trials" else "study"
                raise ValueError(f"the {what} in {shown} cannot be read, {type(error).__name__}: {error}") from error
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


def _driver_error(error: BaseException) -> BaseException:
    """Return the driver's own error behind those of SQLAlchemy and Optuna."""
    from sqlalchemy.exc import DBAPIError

    found: BaseException | None = error
    while found is not None and not isinstance(found, DBAPIError):
        found = found.__cause__ or found.__context__
    return error if found is None else found


def cause_of(error: BaseException) -> str:
    """Return in one line what the driver said, without the text of Optuna and SQLAlchemy around it."""
    cause = _driver_error(error)
    if "DB access module" in str(cause):
        return "the driver that it names is not installed; " + DRIVERS
    return " ".join(str(getattr(cause, "orig", None) or cause).split())[:300] or type(cause).__name__


def _is_lost(error: BaseException) -> bool:
    from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

    cause = _driver_error(error)
    if not isinstance(cause, DBAPIError) or _is_full(error):
        return False
    return cause.connection_invalidated or isinstance(cause, OperationalError | InterfaceError)


def unusable(error: BaseException, file: Path, remedy: str) -> str:
    """Return in one line why the run folder's own database cannot be opened, or made, and what to do."""
    if _is_full(error):
        return f"{str(file)!r} cannot be written: the disk is full; free some space, then run the same command again"
    return f"{str(file)!r} cannot be read ({cause_of(error)}); {remedy}"


def _is_full(error: BaseException) -> bool:
    return re.search(r"\bfull\b|no space left", cause_of(error), re.IGNORECASE) is not None


def _explained(error: BaseException, file: Path | None, shown: str) -> str:
    again = "then run the same command again: what was measured until then is kept"
    anew = "restore it from a copy"
    if file is not None and (file.parent / "study.json").is_file():
        anew = f"joulefront repair {str(file.parent)!r} makes it again"
    if file is not None and not file.exists():
        return f"{shown} was deleted while it was in use; {anew}, {again}"
    if _is_full(error):
        return f"{shown} cannot be written: its disk is full; free some space, {again}"
    if "locked" in cause_of(error):
        return f"{shown} is locked by another program; end that (a dashboard, a backup), {again}"
    remedy = "see that its disk and its permissions are in order" if file is not None else "see that the server runs and can be reached"
    if DAMAGED.search(cause_of(error)):
        remedy = anew
    return f"{shown} cannot be used any more ({cause_of(error)}); {remedy}, {again}"
