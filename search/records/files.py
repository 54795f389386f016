"""Files of a run folder: written whole or not at all, by one process at a time, and compared with what they must hold when they are read.

A folder may be damaged or somebody else's, so every file is checked once, here, and what comes out can be relied on.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from math import isfinite
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict, TypeVar

from ..argument_types import plain_values
from ..carbon.intensity import Intensity, check_pue
from ..energy import Record
from ..energy.journal import LARGEST_BYTES, content, fitted, parse
from ..whole_file import whole_file

T = TypeVar("T")
#: Entry ``state`` of ``study.json`` until the database is made: the same command begins again.
CREATING = "creating"


class _Study(TypedDict):
    name: str
    objectives: list[str]
    directions: list[Literal["maximize", "minimize"]]
    rungs: list[int]
    sampler: NotRequired[str]
    seed: NotRequired[int]
    space: NotRequired[str]
    min_accuracy: NotRequired[float | None]
    complete_only: NotRequired[bool]


class _Hardware(TypedDict):
    sockets: NotRequired[int | None]
    memory_bytes: NotRequired[int | None]
    devices: NotRequired[Mapping[str, Any] | None]


class _Before(TypedDict):
    cpu_seconds: float
    joules: float | None


class _Session(TypedDict):
    ledger_session: NotRequired[str | None]
    before: NotRequired[_Before | None]
    hardware_id: NotRequired[str | None]
    hardware: NotRequired[_Hardware | None]
    versions: NotRequired[Mapping[str, str] | None]
    command: NotRequired[str | None]
    device: NotRequired[str | None]
    meter: NotRequired[str | None]
    reason: NotRequired[str | None]


class _Origin(TypedDict):
    source: NotRequired[str | None]
    options: NotRequired[Mapping[str, Any]]
    overrides: NotRequired[Mapping[str, str | float | bool | list[str | int] | None]]


class _Trained(TypedDict):
    joules: float | None
    grams: float | None
    grams_at_once: float | None


class _Hour(TypedDict):
    hour: str
    joules: float
    grams: float | None


class _Carbon(TypedDict):
    forecast: str
    joules: float
    grams: float | None
    trainings: _Trained
    hours: list[_Hour]
    hours_waited: float
    wait_joules: float | None
    wait_grams: float | None
    deadline: NotRequired[str | None]


class Guess(TypedDict):
    """What a study is expected to cost, as an estimate of it keeps it."""

    joules: NotRequired[float | None]
    low_joules: NotRequired[float | None]
    high_joules: NotRequired[float | None]
    trials: NotRequired[float | None]
    low_trials: NotRequired[float | None]
    high_trials: NotRequired[float | None]
    seconds: NotRequired[float | None]


class _Expected(Guess):
    share: float
    done: int


class _Anchor(TypedDict):
    joules: list[float | None]
    params: NotRequired[Mapping[str, Any] | None]


class _Data(TypedDict):
    kind: NotRequired[str]
    examples: NotRequired[Mapping[str, int]]
    contents: NotRequired[Mapping[str, Any]]
    input_shape: NotRequired[list[int]]
    classes: NotRequired[list[Any]]
    folds: NotRequired[int | None]


class _Summary(TypedDict):
    name: str
    kind: str
    metric: str
    examples: Mapping[str, int]
    classes: NotRequired[Mapping[str, Mapping[str, int]]]
    columns: NotRequired[list[Mapping[str, str | int | bool]]]
    missing_texts: NotRequired[Mapping[str, Mapping[str, int]]]
    warnings: NotRequired[list[str]]


class _Fingerprint(TypedDict):
    space: NotRequired[Mapping[str, Any]]
    data: NotRequired[_Data]
    fitted: NotRequired[bool]


class _Limits(TypedDict):
    budget: str | None
    trials: int | None


class StudyFile(TypedDict):
    """``study.json``: what is searched, where, and which sessions searched it."""

    format: int
    study: _Study
    sessions: list[_Session]
    run_id: NotRequired[str]
    storage: NotRequired[str | None]
    shared: NotRequired[str | None]
    worker: NotRequired[str | None]
    beat_seconds: NotRequired[float | None]
    artifacts: NotRequired[str | None]
    limits: NotRequired[_Limits | None]
    hardware_id: NotRequired[str | None]
    versions: NotRequired[Mapping[str, str | None] | None]
    origin: NotRequired[_Origin | None]
    intensity: NotRequired[Intensity | None]
    pue: NotRequired[float | None]
    carbon: NotRequired[list[_Carbon] | None]
    estimate: NotRequired[Guess | None]
    expected: NotRequired[list[_Expected] | None]
    anchor: NotRequired[_Anchor | None]
    fingerprint: NotRequired[_Fingerprint]
    guessing: NotRequired[Mapping[str, float] | None]
    data: NotRequired[_Summary | None]
    baseline: NotRequired[Mapping[str, Any] | None]
    price_per_kwh: NotRequired[list[float | str] | None]


class _BillSession(TypedDict):
    started: NotRequired[str]
    before: NotRequired[_Before | None]
    by_state_joules: Mapping[str, float]
    by_component_joules: NotRequired[Mapping[str, float]]
    unknown_seconds: NotRequired[Mapping[str, float]]
    overhead_parts_joules: NotRequired[Mapping[str, float]]
    open_trials_joules: NotRequired[Mapping[int, float | None]]
    open_repeats_joules: NotRequired[Mapping[int, float | None]]
    ledger_session: NotRequired[str]
    closed: NotRequired[bool]
    total: NotRequired[Record | None]
    rebuilt: NotRequired[str]


class Versioned(TypedDict):
    """What ``study.json`` of every version holds."""

    format: int


class Snapshot(TypedDict):
    """``trials.json``: the trials, as `joulefront.search.records.trial.to_json` gives them."""

    trials: list[Mapping[str, Any]]
    mark: NotRequired[Mapping[str, Any] | None]
    optuna: NotRequired[list[Mapping[str, Any]]]
    digest: NotRequired[str]
    run_id: NotRequired[str]


class BillFile(TypedDict):
    """``bill.json``: the energy of each session."""

    sessions: list[_BillSession]


def write_json(path: Path, data: Mapping[str, Any], *, private: bool = False) -> None:
    """Write JSON so that a reader sees the old file or the new one, never half of one; a private file is read by its owner only.

    Raises:
        OSError: If it cannot be written, e.g. to a full disk; nothing is left behind, and the error names the file.
    """
    text = text_of(data)
    with whole_file(path, private=private) as temporary:
        temporary.write_text(text, encoding="utf-8")


def text_of(data: Mapping[str, Any]) -> str:
    """Return the text of a JSON file; what JSON has no form for, as an object that a task of the user's tells of, is its text."""
    return json.dumps(plain_values(data), indent=1, allow_nan=False, default=str) + "\n"


def digest(*values: Any) -> str:
    """Return what tells JSON values from others: a copy that was altered, and still fits, is not taken for whole."""
    return hashlib.sha256(json.dumps(plain_values(values), sort_keys=True, default=str).encode()).hexdigest()


def read_snapshot(file: Path, facts: Mapping[str, Any]) -> Snapshot:
    """Read ``trials.json``; a ``ValueError`` where it is damaged, was altered, or is not of the run of this ``study.json``."""
    kept = read_json(file, Snapshot, "delete it")
    if kept.get("run_id", facts.get("run_id")) != facts.get("run_id"):  # earlier versions wrote none
        raise ValueError(f"{str(file)!r} must be of the run {facts.get('run_id')!r}, got one of {kept.get('run_id')!r}")
    if "digest" in kept and kept["digest"] != digest(kept["trials"], kept.get("optuna")):
        raise ValueError(f"{str(file)!r} was altered after it was written; delete it")
    return kept


def broken_start(file: Path) -> Mapping[str, Any] | None:
    """Return what ``study.json`` says of a start that was broken off before its database was made, or None."""
    with contextlib.suppress(OSError, ValueError):
        facts = parse(content(file)) if file.is_file() else None
        return facts if isinstance(facts, dict) and facts.get("state") == CREATING else None
    return None


def last_session(facts: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what ``study.json`` says of the session that began last; nothing where none has begun."""
    session: Mapping[str, Any] = (facts.get("sessions") or [{}])[-1]
    return session


def check_study(facts: StudyFile) -> None:
    """Check that entries of ``study.json`` belong together; a ``ValueError`` where one lacks what another needs."""
    study = facts["study"]
    if not len(study["objectives"]) == len(study["directions"]) > 0:
        raise ValueError(f"study.json.study.directions must be one for each of its objectives, got {study['directions']}")
    if facts.get("shared") is not None and (lacking := {"storage", "worker", "beat_seconds"} - {key for key in facts if facts.get(key)}):
        raise ValueError(f"study.json of a shared study must have an entry {min(lacking)!r}, got none")
    if (beat := facts.get("beat_seconds")) is not None and not 0 < beat <= 86_400:
        raise ValueError(f"study.json.beat_seconds must lie in (0, 86400], got {beat}")
    if (limits := facts.get("limits")) is not None and limits["trials"] is not None and limits["trials"] < 1:
        raise ValueError(f"study.json.limits.trials must be >= 1, got {limits['trials']}")
    if {"/", "\\"} & set(run := facts.get("run_id", "")):
        raise ValueError(f"study.json.run_id must be no path, for files are named after it, got {run!r}")
    if (price := facts.get("price_per_kwh")) is not None and [isinstance(one, str) for one in price] != [False, True]:
        raise ValueError(f"study.json.price_per_kwh must be a number and a currency, got {price}")
    if (pue := facts.get("pue")) is not None:
        check_pue(pue)


def refuse_links(files: Iterable[Path]) -> None:
    """Raise ValueError where one of the files that a session changes lies elsewhere, or is longer than any that it wrote."""
    for file in files:
        if file.is_symlink():
            raise ValueError(f"{str(file)!r} must be the run's own, got a link to {str(file.readlink())!r}; move that to its place")
        if file.is_file() and (size := file.stat().st_size) > LARGEST_BYTES:
            raise ValueError(f"{str(file)!r} is damaged (it has {size:,} bytes); restore it from a copy")


def read_json(path: Path, kind: type[T], remedy: str, check: Callable[[T], None] = lambda value: None) -> T:
    """Read a file that must hold one type, see `joulefront.search.energy.journal.fitted`, and stand a check.

    Raises:
        ValueError: If it does not; the message names the file, what is wrong, and the remedy.
    """
    try:
        value = fitted(kind, parse(content(path)), path.name)
        check(value)
        return value
    except ValueError as error:
        raise ValueError(f"{str(path)!r} is damaged ({error}); {remedy}") from error


@contextlib.contextmanager
def lock(file: Path) -> Iterator[bool]:
    """Hold a lock that goes with the process, however it ends; yield whether it is held, False when another process holds it."""
    try:
        import fcntl
    except ImportError:  # Windows has no flock: two sessions in one folder are then the user's care
        yield True
        return
    # A folder of somebody else may hold a link to another file under this name, or a pipe: that is not emptied, this not waited for.
    with os.fdopen(os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK), "r+b", buffering=0) as opened:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            held = False
        else:
            held = True
        yield held


def finite(value: Any) -> Any:
    """Infinities and NaN, which JSON cannot hold, become unknown."""
    if value is None or isinstance(value, (str, int)):  # most of them, and a million in a large run
        return value
    if isinstance(value, float):
        return value if isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(name): finite(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(one) for one in value]
    return value
