"""Where a study came from, so that it can be made again: its source, its options, and what was typed."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..records.run_folder import Store, without_password

if TYPE_CHECKING:
    from ..study import Study


def command_line(words: Sequence[str]) -> str:
    """Return what was typed, ready to be typed again; the password of a storage URL is not for model cards and reports.

    >>> command_line(["run", "my study.py", "--storage", "postgresql://me:secret@host/db"])
    "joulefront run 'my study.py' --storage postgresql://me:...@host/db"
    """
    return shlex.join(["joulefront", *map(without_password, words)])


def study_of(store: Store, data: str | None, source: str | None) -> Study:
    """Make the study of a run again, from where it came."""
    from .catalog import find_study

    origin = store.facts.get("origin") or {}
    where = source or origin.get("source")
    if where is None:
        raise ValueError(f"{str(store.path)!r} came from Python: give --study my_study.py, or call joulefront.search.export.export there")
    options = {**origin.get("options", {}), **({"data": data} if data else {})}
    return adapt(find_study(where, options), origin.get("overrides", {}), bool(options.get("smoke")))


def adapt(study: Study, overrides: Mapping[str, Any], smoke: bool) -> Study:
    """Return the study with what the command line says otherwise; for a smoke test made tiny."""
    given = {name: value for name, value in overrides.items() if value is not None}
    if isinstance(given.get("objectives"), str):
        given["objectives"] = tuple(name.strip() for name in given["objectives"].split(","))
    if smoke:
        given |= {"rungs": study.rungs[:1], "sampler": "random", "trials": 2, "budget": None}
    return replace(study, **given) if given else study


def origin_of(source: str, options: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """What export needs to make the same study again; paths are absolute, so that it can be called from another folder."""
    given = {name: value for name, value in options.items() if value is not None}
    for name, value in given.items():
        # A column or a model may have the name of a file that lies here by chance; what looks like a path is one.
        path_like = name == "data" or (name != "target" and isinstance(value, str) and ("/" in value or Path(value).suffix))
        if path_like and Path(value).expanduser().exists():
            given[name] = str(Path(value).expanduser().resolve())
    file, colon, function = source.rpartition(":") if ":" in source else (source, "", "")
    if file.endswith(".py") and Path(file).exists():
        source = str(Path(file).resolve()) + colon + function
    return {"source": source, "options": given, "overrides": dict(overrides)}


def remember(path: Path, earlier: int, origin: Mapping[str, Any] | None, command: str) -> None:
    """Note what was typed in the session that has begun, if one has; the data may lie elsewhere than it did for the sessions before.

    Args:
        path: The run folder.
        earlier: Number of sessions before.
        origin: Where the study came from; None keeps what is known.
        command: What was typed.
    """
    if not Store.exists(path):
        return
    store = Store.open(path)
    sessions = list(store.facts["sessions"])
    if len(sessions) > earlier:
        sessions[-1] = {**sessions[-1], "command": command}
        store.save_facts({**store.facts, **({} if origin is None else {"origin": origin}), "sessions": sessions})
