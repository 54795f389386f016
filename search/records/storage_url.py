"""The URL of a storage: which database it names, and its passwords, which stand on no screen, in no file and in no model card.

SQLAlchemy takes long to import, so that is done in the functions.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

#: Environment variable with the storage URL and its password, which stands in no file and in no list of processes.
STORAGE_VARIABLE = "JOULEFRONT_STORAGE"
#: Keys of a URL's query whose values are secrets.
_SECRET = re.compile(r"pass(word|wd|phrase)?$|pwd|secret|token|odbc_connect", re.IGNORECASE)
_HIDDEN = "***"


def without_password(text: str) -> str:
    """Hide the secrets of a URL, which may be the value of an option: they belong on no screen and in no model card.

    >>> without_password("postgresql+psycopg://me:sec/ret@host:5432/db?sslpassword=secret")
    'postgresql+psycopg://me:***@host:5432/db?sslpassword=***'
    """
    before, url = re.fullmatch(r"(--[\w-]+=)?(.*)", text, re.DOTALL).groups("")  # type: ignore[union-attr]  # it fits every text
    if "://" not in url:
        return re.sub(r"^(--[\w-]+=)?((?:postgres|mysql|mariadb)[\w+]*:/?[^:@]*:).*@", rf"\1\2{_HIDDEN}@", text, flags=re.DOTALL)
    try:
        place = _parsed(url)
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
    place = _parsed(url)
    secrets = _secret_keys(place)
    if place.password is None and not secrets:
        return url
    return place._replace(password=None).difference_update_query(secrets).render_as_string(hide_password=False)


def with_password(url: str, given: str | None, environment: Mapping[str, str] = os.environ) -> str:
    """Return the URL of a run folder as the user wants it now, with the secrets that are known of it.

    What the user gives in this call may name another user of the same database; ``JOULEFRONT_STORAGE`` may hold the same URL with its
    password.
    """
    wanted = given if given and same_database(given, url) else url
    for one in (given, environment.get(STORAGE_VARIABLE), url):
        with contextlib.suppress(ValueError):
            if one and (public := public_url(one)) != one and _parsed(public) == _parsed(public_url(wanted)):
                return one
    return wanted


def same_database(one: str | URL, other: str | URL) -> bool:
    """Whether two URLs name the same database, whoever connects to it and how."""
    try:
        return _place(one) == _place(other)
    except ValueError:
        return one == other


def other_database(given: str, kept: str | None, file: Path) -> str | None:
    """Say that the storage that the user gives is not the one that a run folder keeps (None for its own ``file``), or return None."""
    from sqlalchemy.engine import URL

    if same_database(given, kept or URL.create("sqlite", database=str(file))):
        return None
    where = without_password(kept) if kept else f"its own {file.name}"
    return (
        f"--storage must be that of {str(file.parent)!r}, {where}, got {without_password(given)}; "
        "leave --storage out to go on there, or give a new --out"
    )


def without_secrets(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of a ``study.json`` without the passwords that an earlier version wrote there."""
    url = facts.get("storage")
    if url is not None:
        try:
            url = public_url(url)
        except ValueError:
            url = without_password(url).replace(f":{_HIDDEN}@", "@")
    return {**commands_without_secrets(facts), "storage": url}


def commands_without_secrets(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of a ``study.json`` with hidden passwords in its command lines, as an earlier version may have kept them."""
    sessions = [
        {**session, "command": _hidden_in(session["command"])} if "://" in (session.get("command") or "") else session
        for session in facts.get("sessions", ())
    ]
    return {**facts, "sessions": sessions}


def _hidden_in(command: str) -> str:
    try:
        words = shlex.split(command)
    except ValueError:
        return " ".join(map(without_password, command.split(" ")))
    hidden = list(map(without_password, words))
    return command if hidden == words else shlex.join(hidden)


def _place(url: str | URL) -> tuple[Any, ...]:
    """Return what tells one database from another.

    Raises:
        ValueError: If it is no URL of a database.
    """
    place = _parsed(url) if isinstance(url, str) else url
    if (file := sqlite_file(place)) is not None:
        return ("sqlite", file.absolute())
    query, kind = place.query, place.get_backend_name()
    port = place.port or query.get("port") or {"postgresql": 5432, "mysql": 3306, "mariadb": 3306}.get(kind)
    host = place.host or query.get("host") or query.get("hostaddr")
    return (kind, host, str(port), place.database or query.get("dbname"), query.get("service"), query.get("options"))


def _parsed(url: str) -> URL:
    """Parse a URL; a ``ValueError`` when it is none, or its password is ambiguous."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        place = make_url(url)
    except (ArgumentError, ValueError) as error:
        raise ValueError("it is no URL of a database; postgresql+psycopg://user@host/name is one") from error
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
