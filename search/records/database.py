"""The database of a run: which one a URL names, without its passwords, its file where it is SQLite's, and why one cannot be used.

Passwords stand on no screen, in no file and in no model card. The rest of the run folder needs no database library, which takes long to
import; so Optuna and SQLAlchemy are imported in the functions.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import sqlite3
import tempfile
import warnings
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from .trial import ATTRIBUTE, EXCUSED

if TYPE_CHECKING:
    import optuna
    from optuna.storages import RDBStorage
    from optuna.trial import FrozenTrial
    from sqlalchemy.engine import URL

#: What a database is opened for: ``create`` makes its tables, ``write`` finds them, ``read`` changes nothing, not even on disk.
Mode = Literal["create", "write", "read"]
#: What to do without a driver.
DRIVERS = (
    "pip install 'joulefront[postgresql]' for postgresql+psycopg://user@host/name, 'joulefront[mysql]' for mysql+pymysql://user@host/name"
)
#: What drivers say of a database that no waiting mends.
DAMAGED = re.compile(
    r"no such (table|column)|table \w+ is lost|malformed|not a database|decode to UTF-8|(relation|column) \S+ does not exist|doesn't exist"
    r"|Unknown column|timestamp too large|(CREATE TABLE|INSERT) in a read-only"  # Optuna makes what is lost
)
#: What drivers say of a missing or wrong password.
REFUSED = re.compile(r"using password: |no password supplied|password authentication failed")
#: SQLite waits this long for another process that writes.
LOCK_SECONDS = 60.0
#: Environment variable with the storage URL and its password, which stands in no file and in no list of processes.
STORAGE_VARIABLE = "JOULEFRONT_STORAGE"
#: Keys of a URL's query whose values are secrets.
_SECRET = re.compile(r"pass(word|wd|phrase)?$|pwd|secret|token|odbc_connect", re.IGNORECASE)
_HIDDEN = "***"
#: What to do about a database that is damaged.
COPY = "restore it from a copy"


class DatabaseError(RuntimeError):
    """A database cannot be used any more in the middle of the work; the message names the cause and the remedy."""


def without_password(text: str) -> str:
    """Hide the secrets of a URL, which may be the value of an option: they belong on no screen and in no model card.

    >>> without_password("postgresql+psycopg://me:sec/ret@host:5432/db?sslpassword=secret")
    'postgresql+psycopg://me:***@host:5432/db?sslpassword=***'
    """
    before, url = re.fullmatch(r"(--[\w-]+=)?(.*)", text, re.DOTALL).groups("")  # type: ignore[union-attr]  # it fits every text
    if "://" not in url:
        return re.sub(r"^(--[\w-]+=)?((?:postgres|mysql|mariadb)[\w+]*:/?[^:@]*:).*@", rf"\1\2{_HIDDEN}@", text, flags=re.DOTALL)
    try:
        place = parsed(url)
    except ValueError:
        if "@" not in url:  # what stands for a port and is none may be a password
            return before + re.sub(r"(://[^:/]*):.*", rf"\1:{_HIDDEN}", url, flags=re.DOTALL)
        greedy = r".*@" if re.match(r"[\w+]+://", url) else r"[^@/]*@"
        return before + re.sub(rf"(://[^:/@]*):{greedy}", rf"\1:{_HIDDEN}@", url)
    secrets = _secret_keys(place)
    if place.password is None and not secrets:
        return text
    hidden = place.update_query_dict(dict.fromkeys(secrets, _HIDDEN)).render_as_string(hide_password=True)
    return before + hidden.replace("%2A%2A%2A", _HIDDEN)


def public_url(url: str) -> str:
    """Return a storage URL without its secrets, as a run folder keeps it.

    Raises:
        ValueError: If it is no URL of a database.
    """
    place = parsed(url)
    secrets = _secret_keys(place)
    if place.password is None and not secrets:
        return url
    return place._replace(password=None).difference_update_query(secrets).render_as_string(hide_password=False)


def own_url(url: str, given: str | None, environment: Mapping[str, str] = os.environ) -> str | None:
    """Return this user's own URL of the database that a run folder names, with the secrets that are known of it; None if there is none.

    The folder may be somebody else's, and then its server as well, which may ask a driver for files of this machine, or be sent the
    password in PGPASSWORD. So its URL says which database is meant, and what is contacted is a URL that the user has given: in this call,
    in ``JOULEFRONT_STORAGE``, or to an earlier session (`note_given`).
    """
    before = sorted(reversed(given_before()[1]), key=lambda one: one != url)  # the same user of the database, or else the last one
    own = [one for one in (given, environment.get(STORAGE_VARIABLE), *before) if one and same_database(one, url)]
    secret = (one for one in own if public_url(one) != one and parsed(public_url(one)) == parsed(public_url(own[0])))
    return next(secret, own[0] if own else None)


def given_before() -> tuple[Path, list[str]]:
    """Return a file outside of all run folders, and the URLs in it, without secrets, that sessions of this user were given."""
    # Source: XDG Base Directory Specification: a relative value is to be ignored. Whoever has no home has no such file.
    places = (os.environ.get("XDG_STATE_HOME", ""), os.path.expanduser("~/.local/state"))
    file = Path(next(filter(os.path.isabs, places), os.devnull), "joulefront", "storages")
    with contextlib.suppress(OSError, UnicodeError):
        return file, file.read_text(encoding="utf-8").splitlines()
    return file, []


def note_given(url: str) -> None:
    """Keep a URL that a session was given, so that what reads its run folder later need not be given it again; warn where it cannot."""
    file, before = given_before()
    if (public := public_url(url)) not in before:
        try:
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with file.open("a", encoding="utf-8") as opened:
                opened.write(f"{public}\n")
        except OSError as error:
            if STORAGE_VARIABLE not in os.environ:
                warnings.warn(f"{str(file)!r}: {error.strerror}; set {STORAGE_VARIABLE} to {public} for front or export", stacklevel=2)


def same_database(one: str | URL, other: str | URL) -> bool:
    """Whether two URLs name the same database, whoever connects to it and how."""
    with contextlib.suppress(ValueError):
        return _place(one) == _place(other)
    return one == other


def other_database(given: str, kept: str | None, file: Path) -> str | None:
    """Say that the storage that the user gives is not the one that a run folder keeps (None for its own ``file``), or return None."""
    from sqlalchemy.engine import URL

    try:
        if _place(given) == _place(kept or URL.create("sqlite", database=str(file))):
            return None
    except ValueError as error:
        return f"--storage {without_password(given)!r} cannot be used: {error}"
    where = without_password(kept) if kept else f"its own {file.name}"
    return (
        f"--storage must be that of {str(file.parent)!r}, {where}, got {without_password(given)}; "
        "leave --storage out to go on there, or give a new --out"
    )


def _place(url: str | URL) -> tuple[Any, ...]:
    """Return what tells one database from another.

    Raises:
        ValueError: If it is no URL of a database.
    """
    place = parsed(url) if isinstance(url, str) else url
    if (file := sqlite_file(place)) is not None:
        return ("sqlite", file.absolute())
    query, kind = place.query, place.get_backend_name()
    port = place.port or query.get("port") or {"postgresql": 5432, "mysql": 3306, "mariadb": 3306}.get(kind)
    host = place.host or query.get("host") or query.get("hostaddr")
    return (kind, host, str(port), place.database or query.get("dbname"), query.get("service"), query.get("options"))


def parsed(url: str) -> URL:
    """Parse the URL of a database; a ``ValueError`` when it is none, or its password is ambiguous."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        place = make_url(url)
    except (ArgumentError, ValueError) as error:
        raise ValueError("it is no URL of a database; postgresql+psycopg://user@host/name is one") from error
    if _HIDDEN in (place.password, *map(place.query.get, _secret_keys(place))):
        raise ValueError(f"{_HIDDEN} stands where its password was; leave it out and set {STORAGE_VARIABLE} to the whole URL")
    if place.port is not None and place.port > 65535:
        raise ValueError(f"its port must be at most 65535, got one of {len(str(place.port))} digits")
    if place.password is not None and "@" in f"{place.host}{place.database}":
        raise ValueError("an @ in a password must be written %40")
    return place


def _secret_keys(place: URL) -> list[str]:
    return [key for key in place.query if _SECRET.search(key)]


def sqlite_file(place: URL) -> Path | None:
    """Return the file of an SQLite URL, or None for servers, drivers of others and databases in memory."""
    if place.drivername not in ("sqlite", "sqlite+pysqlite") or not place.database or place.database.startswith((":memory:", "file:")):
        return None
    return Path(place.database)


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
    if (there := [one.name.lower() for one in study.directions]) != [*directions]:
        raise ValueError(f"the study {name!r} must have the directions {[*directions]}, got {there} in its storage; {COPY}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # metric names are marked experimental; without them a dashboard shows "Objective 0"
        study.set_metric_names(list(objectives))


def fail_open_trials(study: optuna.Study, joules_by_number: Mapping[int, float | None], *, only: Collection[int]) -> list[int]:
    """Close those trials that a killed session left running, with what the ledger had billed to each of them; return their numbers."""
    from optuna.exceptions import UpdateFinishedTrialError
    from optuna.trial import TrialState

    dead = []
    for trial in study.get_trials(deepcopy=False):
        if trial.state != TrialState.RUNNING or trial.number not in only:  # one that waits was not begun
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


def driver_error(error: BaseException) -> BaseException:
    """Return the driver's own error behind those of SQLAlchemy and Optuna."""
    from sqlalchemy.exc import DBAPIError

    found: BaseException | None = error
    while found is not None and not isinstance(found, DBAPIError):
        found = found.__cause__ or found.__context__
    return error if found is None else found


def cause_of(error: BaseException) -> str:
    """Return in one line what the driver said, without the text of Optuna and SQLAlchemy around it."""
    cause = driver_error(error)
    if "DB access module" in str(cause):
        return "the driver that it names is not installed; " + DRIVERS
    return " ".join(str(getattr(cause, "orig", None) or cause).split())[:300] or type(cause).__name__


def unusable(error: BaseException, file: Path, remedy: str) -> str:
    """Return in one line why the run folder's own database cannot be opened, or made, and what to do."""
    if is_full(error):
        return f"{str(file)!r} cannot be written: the disk is full; free some space, then run the same command again"
    return f"{str(file)!r} cannot be read ({cause_of(error)}); {remedy}"


def not_given(url: str, folder: Path) -> str:
    """Return in one line why the storage that only a run folder names is not contacted, and what to do."""
    return (
        f"the storage of {str(folder)!r} must be one that you have given to a session here, got {without_password(url)!r}, which the "
        f"folder alone names: it is not contacted; if it is yours, set {STORAGE_VARIABLE} to this URL, spelt so, with its password"
    )


def out_of_reach(error: BaseException, url: str, remedy: str = "see that it can be reached") -> str:
    """Return in one line why the database of a URL cannot be opened, and what to do."""
    line = cause_of(error).removesuffix(f"; {COPY}")
    remedy = "install the driver that it names" if isinstance(error, ImportError) else remedy
    remedy = COPY if DAMAGED.search(line) or line != cause_of(error) else remedy
    if REFUSED.search(line):
        remedy = f"no run folder keeps a password: set {STORAGE_VARIABLE} to the whole URL, with the password of its user"
    return f"--storage {without_password(url)!r} cannot be used: {line}; {remedy}"


def is_full(error: BaseException) -> bool:
    """Whether it was the disk that had no place left."""
    return re.search(r"\bfull\b|no space left", cause_of(error), re.IGNORECASE) is not None
