"""The ledger's file: one line per event, so that a killed process loses at most what came after its last checkpoint.

What is read back from JSON may be damaged or of somebody else, so it is compared once, here, with the type that it must have.
"""

from __future__ import annotations

import json
import math
import os
import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from pathlib import Path
from threading import RLock
from types import UnionType
from typing import Any, Literal, NotRequired, TypedDict, TypeVar, Union, cast, get_args, get_origin, get_type_hints, is_typeddict

from .record import Component, Record
from .sources.source import NANO

T = TypeVar("T")
SESSION = re.compile(rb'"session": ?"([0-9a-f]+)"')
#: No quantity of a study is larger, or smaller without being zero: squares and ratios of what is within stay finite.
LARGEST = 1e100
#: No file that is read at once is larger; that of 100,000 trials has 0.8 GB.
LARGEST_BYTES = 1 << 30
#: A file is shortened when it is longer than this, and twice as long as it was after it had been shortened last.
LONG_BYTES = 1_000_000
#: Outermost windows that ended in so long a time before the last checkpoint stay one by one: what they measured may not be stored yet.
RECENT_NS = 120 * NANO


class Journal:
    """Appends lines to ``ledger.jsonl``; each line is one write, so that a line is whole or missing.

    A disk that is full ends neither the measuring nor what is measured: the line is lost, and ``write`` returns why.

    Raises:
        OSError: If the file cannot be opened for writing.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        # O_APPEND: several processes may share the file, and each write goes to its end.
        self._fd = self._open()
        self._torn = torn(path)
        self._lock, self._long_bytes = RLock(), LONG_BYTES

    def _open(self) -> int:
        return os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)

    def write(self, event: str, facts: Mapping[str, Any]) -> str | None:
        """Append one line, which survives a kill of this process; return why it could not be written, or None."""
        text = _line({"event": event, **facts})
        with self._lock:
            if self._fd < 0:
                return None
            line = b"\n" + text if self._torn else text
            try:
                written = os.write(self._fd, line)
            except OSError as error:
                return error.strerror or repr(error)
            self._torn = written < len(line)
        return f"only {written} of {len(line)} bytes fitted" if self._torn else None

    def shorten(self) -> None:
        """Replace a long file by what the settling of a killed session needs of it, see `shortened`; a full disk leaves it as it is."""
        with self._lock, suppress(OSError):
            if self._fd < 0 or (size := os.fstat(self._fd).st_size) < self._long_bytes:
                return
            text = b"".join(_line(event) for event in shortened(lines(self.path)))
            beside = self.path.with_name(f".{self.path.name}.tmp")
            try:
                beside.write_bytes(text)
                if os.fstat(self._fd).st_size == size:  # else somebody has written meanwhile: another time
                    os.replace(beside, self.path)
                    os.close(self._fd)
                    self._fd, self._torn, self._long_bytes = self._open(), False, max(LONG_BYTES, 2 * len(text))
            finally:
                beside.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the file; later writes are dropped."""
        fd, self._fd = self._fd, -1  # without the lock, which in a forked process may be held for ever
        if fd >= 0:
            with suppress(OSError):  # some file systems report only now that the disk was full
                os.close(fd)


def torn(path: Path) -> bool:
    """Return whether a file's last line lacks its end: its writer died, or the disk was full."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        if size == 0:
            return False
        file.seek(size - 1)
        return file.read(1) != b"\n"


class _Event(TypedDict):
    event: str
    session: NotRequired[str]


class _Part(TypedDict):
    joules: float | None
    counts: bool


class _Window(TypedDict):
    id: str
    known_joules: NotRequired[float]
    components: list[_Part]


class _Named(TypedDict):
    id: str
    name: str


class _Edge(_Event):
    record: _Named


class _Split(TypedDict):
    joules: Mapping[str, float]
    unknown_seconds: Mapping[str, float]


class _Beat(_Event):
    t_ns: int
    total: list[Component]
    split: NotRequired[_Split]
    open: list[_Window]


class _Ended(_Event):
    joules: Mapping[str, float]


_EVENTS: Mapping[str, type] = {"open": _Edge, "close": _Edge, "beat": _Beat, "ended": _Ended}


def lines(path: Path, without: Collection[str] = ()) -> Iterator[dict[str, Any]]:
    """Yield the events of a file; lines that are torn, or not of a ledger, are skipped.

    Leaving out the lines of the sessions in ``without`` costs next to nothing: a long file takes seconds to be understood.
    """
    with path.open("rb") as file:
        for line in file:
            if without and (named := SESSION.search(line, 0, 100)) and named[1].decode() in without:
                continue
            with suppress(ValueError):
                event = fitted(_Event, parse(line), "line")
                yield cast(dict[str, Any], fitted(_EVENTS.get(event["event"], _Event), event, "line"))


def shortened(events: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield what is needed to bill sessions that were killed: as much for each session, however long it was.

    Up to a session's last checkpoint, or its end, that is its start, the windows that are still open, the outermost ones that have ended
    a short time ago, and in one event ``ended`` the joules of those that ended before, by the first word of their name and their state
    (``"trial ok"``). What comes after the checkpoint stays as it is.

    Args:
        events: All events of a file, as ``lines`` reads them.
    """
    sessions: dict[str, list[dict[str, Any]]] = {}
    for event in events:
        sessions.setdefault(str(event.get("session", "")), []).append(event)
    for name, every in sessions.items():
        last = max((k for k, event in enumerate(every) if event["event"] in ("beat", "stop")), default=0)
        at_ns = every[last].get("t_ns", 0)
        since_ns = at_ns - RECENT_NS if every[last]["event"] == "beat" else at_ns
        heads, recent, opened, later, joules = [], [], dict[str, dict[str, Any]](), every[last:], dict[str, float]()
        for event in every[:last]:
            kind, record = event["event"], event.get("record", {})
            if kind == "start":
                heads.append(event)
            elif kind == "open":
                opened[record["id"]] = event
            elif kind == "ended":
                joules.update(event["joules"])
            elif kind == "close" and record.get("t1_ns", 0) > at_ns:
                later.append(event)
            elif kind == "close":
                opened.pop(record["id"], None)
                if record.get("parent") is None and record.get("t1_ns", 0) > since_ns:
                    recent.append(event)
                elif record.get("parent") is None:
                    ended = Record.from_json(record)
                    key = f"{ended.name.partition(' ')[0]} {ended.state}"
                    joules[key] = joules.get(key, 0.0) + ended.known_joules
        sums = [{"event": "ended", "session": name, "joules": joules}] if joules else []
        yield from (*heads, *sums, *recent, *opened.values(), *later)


#: ``json.dumps`` would make one for each line. What a meter of the user's tells may be of any type: a refused line would lose its energy.
_ENCODER = json.JSONEncoder(
    separators=(",", ":"), default=lambda value: value.tolist() if hasattr(value, "tolist") else str(value), check_circular=False
)


def plain_facts(value: Any) -> dict[str, Any]:
    """Return what a meter tells of a device in JSON's types: text in the place of any other, None in that of no finite number."""
    return dict(json.loads(_ENCODER.encode(value), parse_constant=lambda _: None))


def _line(event: Mapping[str, Any]) -> bytes:
    return (_ENCODER.encode(event) + "\n").encode()


def content(path: Path) -> bytes:
    """Return what a file holds; a ``ValueError`` where it is none, or has more than any of ours: a few bytes can stand for terabytes."""
    if not path.is_file() and path.exists():
        raise ValueError("it is a folder, a pipe or a device")
    if (size := path.stat().st_size) > LARGEST_BYTES:
        raise ValueError(f"it has {size:,} bytes")
    return path.read_bytes()


def parse(text: str | bytes) -> Any:
    """Read JSON of a file that may be damaged or of somebody else; what no terminal should print becomes ``?``.

    Raises:
        ValueError: If it is no JSON, or holds a number that no file of ours holds.
    """
    raw = text if isinstance(text, str) else text.decode("utf-8")
    try:
        value = json.loads(raw, parse_constant=_number, parse_float=_number, parse_int=_whole)
        return printable_json(value) if "\\u" in raw or not raw.replace("\n", "").isprintable() else value
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def fitted(kind: type[T], value: Any, where: str) -> T:
    """Return what ``parse`` read as the type that it must have.

    A dataclass is made of it (entries that it does not know are left out), with a ``TypedDict`` it is compared; ``where`` is what it is
    called in messages.

    Raises:
        ValueError: If it does not fit; the message names the place, the rule and the value.
    """
    return cast(T, _reader(cast(Any, kind))(value, where))


def _number(text: str) -> float:
    value = float(text)
    if value != 0 and not 1 / LARGEST < abs(value) < LARGEST:
        raise ValueError(f"the number {text[:20]} is out of range")
    return value


def _whole(text: str) -> int:
    if len(text) > 19:
        raise ValueError(f"the number {text[:20]} is out of range")
    return int(text)


def printable_json(value: Any) -> Any:
    """Return what was read from JSON with ``?`` in place of what no terminal should print."""
    if isinstance(value, str):
        if value.isprintable():
            return value
        return "".join("?" if unicodedata.category(sign) in ("Cc", "Cs") and sign not in "\n\t" else sign for sign in value)
    if isinstance(value, dict):
        return {printable_json(key): printable_json(one) for key, one in value.items()}
    return [printable_json(one) for one in value] if isinstance(value, list) else value


@cache
def _reader(kind: Any) -> Callable[[Any, str], Any]:
    """Return the function of a value and its place that gives the value as this type."""
    origin, args = get_origin(kind), get_args(kind)
    if kind is Any:
        return lambda value, where: value
    if origin in (Union, UnionType):
        return _either([_reader(one) for one in args if one is not type(None)], type(None) in args)
    if is_typeddict(kind) or is_dataclass(kind):
        return _entries(kind)
    if origin in (list, tuple):
        item = _reader(args[0])
        return lambda value, where: origin(
            item(one, f"{where}[{k}]") for k, one in enumerate(_typed(value, (list, tuple), "a list", where))
        )
    if origin is not None and origin is not Literal:  # a mapping
        each = _reader(args[1])
        return lambda value, where: {
            _key(args[0], key, where): each(one, f"{where}.{key}") for key, one in _typed(value, dict, "an object", where).items()
        }
    if origin is Literal:
        return lambda value, where: value if value in args else _refuse(value, f"one of {', '.join(map(str, args))}", where)
    wanted, words = {float: ((int, float), "a number"), int: (int, "a whole number"), str: (str, "a text"), bool: (bool, "true or false")}[
        kind
    ]
    return lambda value, where: _typed(value, wanted, words, where)


def _entries(kind: Any) -> Callable[[Any, str], Any]:
    readers = {name: _reader(hint) for name, hint in get_type_hints(kind).items()}
    if typed := is_typeddict(kind):
        marked = get_type_hints(kind, include_extras=True)  # __required_keys__ takes annotations that are text for required
        required = {name for name, hint in marked.items() if get_origin(hint) is not NotRequired}
    else:
        readers = {one.name: readers[one.name] for one in fields(kind)}
        required = {one.name for one in fields(kind) if one.default is MISSING and one.default_factory is MISSING}

    def read(value: Any, where: str) -> Any:
        missing = required - _typed(value, dict, "an object", where).keys()
        if missing:
            raise ValueError(f"{where} has no entry {min(missing)!r}")
        made = {name: readers[name](one, f"{where}.{name}") for name, one in value.items() if name in readers}
        return value if typed else kind(**made)

    return read


def _either(readers: list[Callable[[Any, str], Any]], optional: bool) -> Callable[[Any, str], Any]:
    def read(value: Any, where: str) -> Any:
        if value is None and optional:
            return None
        for reader in readers[:-1]:
            with suppress(ValueError):
                return reader(value, where)
        return readers[-1](value, where)

    return read


def _key(kind: type, key: str, where: str) -> str:
    return key if kind is not int or (key.isascii() and key.isdigit()) else _refuse(key, "numbered", where)


def _typed(value: Any, kinds: Any, words: str, where: str) -> Any:
    if isinstance(value, float) and LARGEST <= abs(value) < math.inf:  # a database's was not read by ``parse``
        _refuse(value, "a number that is not out of range", where)
    return value if isinstance(value, kinds) and (kinds is bool or not isinstance(value, bool)) else _refuse(value, words, where)


def _refuse(value: Any, words: str, where: str) -> Any:
    shown = repr(value)
    raise ValueError(f"{where} must be {words}, got {shown if len(shown) <= 60 else shown[:57] + '...'}")
