"""One look at the data before anything is paid: what a task was made of, as JSON for ``study.json`` and as text for people."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

import numpy as np

from ..formatting import fitted, plain, printable
from .columns import plain_frame, readings, texts
from .evaluate import guessing, targets_of
from .table_file import TEXT, TYPED, read
from .task import Task, noting

if TYPE_CHECKING:
    from .table_features import Column

#: So many classes, columns of one kind, sizes and modes are named in the text; the JSON has them all.
NAMED = 12
#: So many values of a column are shown, and so many of the letters of each.
EXAMPLES, SHOWN = 3, 24


class TargetMissingError(ValueError):
    """A table came without the name of its column to predict."""


def open_data(path: str | Path, target: str | None = None, **options: Any) -> Task:
    """Make a task from whatever lies at a path: a table, or a folder or zip of images or recordings, whichever are more.

    The options are those of the loader that it takes: ``table``, ``images`` or ``audio``. Folds and columns of text are as a study has
    them. Files that cannot be read are left out, with a warning that a study refuses them unless it is told to leave them out.

    Raises:
        FileNotFoundError: If there is nothing.
        ValueError: If it cannot be read, or a table comes without its target; the message names the columns.
    """
    from . import audio, images
    from .file_tree import FOREIGN_SOUNDS, SOUNDS, SUFFIXES, open_files
    from .table import table
    from .table_features import listed
    from .text import find_text

    path = Path(path).expanduser()
    suffixes = {suffix.lower() for suffix in path.suffixes[-2:]}
    zipped = path.is_file() and zipfile.is_zipfile(path) and not suffixes & (TEXT | TYPED)
    endings = [Path(name.removesuffix(".gz")).suffix.lower() for name in open_files(path).names()] if zipped or path.is_dir() else []
    inside = {*endings} & (TEXT | TYPED) and not {*endings} & (SUFFIXES | SOUNDS)
    if inside or (not path.is_dir() and (suffixes & (TEXT | TYPED) or (path.is_file() and target is not None and not zipped))):
        if target is None:
            raise TargetMissingError(
                f"{path} is a table: give the column to predict, --target NAME; its columns are {listed(read(path).columns)}"
            )
        return table(path, target, **{"folds": None, "text": find_text(), **options})
    if path.is_file() and not zipfile.is_zipfile(path) and target is None:
        said = f"{path} must be a table ({', '.join(sorted(TEXT | TYPED))}), or a folder or zip of images or recordings"
        raise ValueError(f"{said} with a sub-folder for each class; give one, unpack other archives")
    if target is not None or options:
        given = "--target" if target is not None else f"--{next(iter(options))}"
        raise ValueError(f"{given} is for tables, got {path}, which ends in none of {', '.join(sorted(TEXT | TYPED))}; leave it out")
    pictures = sum(ending in SUFFIXES for ending in endings)
    sounds = sum(ending in SOUNDS or (not pictures and ending in FOREIGN_SOUNDS) for ending in endings)
    task = (audio.audio if sounds > pictures else images.images)(path, skip_unreadable=True)
    told = list(task.seen.get("warnings", ()))
    if any("unreadable file" in text for text in told):
        told.append("joulefront run ends at the first of them; --set skip_unreadable=true leaves them out there, too")
    return replace(task, seen={**task.seen, "warnings": told}) if told else task


def summarise(task: Task) -> dict[str, Any]:
    """Return what is known of a task's data as JSON.

    Keys: ``kind``, ``metric``, ``examples`` by split, ``classes`` by split, ``guessing``; of a table ``split``, ``columns``,
    ``missing_texts``; of files ``images`` (sizes, modes) or ``sound`` (seconds, rates); and ``warnings``. What is unknown is absent.
    """
    splits = {"train": task.train, "validation": task.validation, **({} if task.test is None else {"test": task.test})}
    found: dict[str, Any] = {
        "name": task.name,
        "kind": task.kind,
        "metric": task.metric,
        "examples": {split: len(data) for split, data in splits.items()},
    }
    if task.classes:
        found["classes"] = {
            split: _counts(task, targets) for split, data in splits.items() if (targets := targets_of(data)) is not None and len(targets)
        }
    if task.folds:
        found["folds"] = task.folds
    found["guessing"] = {name: value for name, value in guessing(task).items() if math.isfinite(value)}
    seen = dict(task.seen)
    columns = task.preprocessing.get("columns")
    if columns is not None:
        left_out = seen.pop("left_out", {})
        found["columns"] = [_column(column) for column in columns]
        found["columns"] += [{"name": name, "as": "dropped", "reason": reason} for name, reason in left_out.items()]
    return {**found, **seen}


def columns_text(path: str | Path) -> str:
    """Return as lines of text how each column of a table is read, with examples, and what to type next."""
    with noting() as said:
        frame = plain_frame(read(Path(path).expanduser()))
    frame = frame.loc[:, ~frame.columns.duplicated()]
    how, cells = readings(frame), [["column", "read as", "for example"]]
    for name, dtype in frame.dtypes.items():
        plainly = {"M": "date", "b": "truth", "O": "text"}.get(dtype.kind, "number")
        examples = [text[:SHOWN] for text in dict.fromkeys(texts(frame[name])) if text is not None][:EXAMPLES]
        cells.append([str(name), how[name].kind if name in how else plainly, "; ".join(examples)])
    said += [f"{name!r} {reading.note}" for name, reading in how.items() if reading.note]
    lines = [f"{path}: a table of {len(frame):,} rows", "", fitted(cells, [False] * 3), "", *(f"warning: {one}" for one in said)]
    return printable("\n".join([*lines, f"give the column to predict: joulefront inspect {quote(str(path))} --target NAME"]))


def summary_text(found: Mapping[str, Any]) -> str:
    """Return a summary as lines of text."""
    examples = ", ".join(f"{count:,} {split}" for split, count in found["examples"].items())
    divided = f", {found['split']} split" if "split" in found else ""
    divided += f", validated in {found['folds']} parts of the training and validation rows" if found.get("folds") else ""
    lines = [f"{found['name']}: {found['kind']}, {sum(found['examples'].values()):,} examples ({examples}{divided})"]
    if classes := found.get("classes"):
        lines += ["", "class".ljust(24) + "".join(split.rjust(12) for split in classes)]
        names = list(next(iter(classes.values())))
        lines += [f"  {name[:21]:22}" + "".join(f"{counts[name]:12,}" for counts in classes.values()) for name in names[:NAMED]]
        lines += [f"  and {len(names) - NAMED} more classes"] if len(names) > NAMED else []
    guess = found.get("guessing", {})
    if found["metric"] in guess:
        lines += ["", f"guessing gives {found['metric']} {plain(guess[found['metric']])}"]
    columns = found.get("columns", [])
    for kind in dict.fromkeys(column["as"] for column in columns):
        here = [_column_text(column) for column in columns if column["as"] == kind]
        more = f", and {len(here) - NAMED} more" if len(here) > NAMED else ""
        counted = "1 column" if len(here) == 1 else f"{len(here)} columns"
        lines += ["", f"{counted} {'left out' if kind == 'dropped' else 'used as ' + kind}: {', '.join(here[:NAMED])}{more}"]
    if missing := found.get("missing_texts"):
        told = [f"{name} ({', '.join(f'{text!r} {count} times' for text, count in texts.items())})" for name, texts in missing.items()]
        lines += ["", f"taken for missing: {'; '.join(told[:NAMED])}" + (f"; and {len(told) - NAMED} more" if len(told) > NAMED else "")]
    if (images := found.get("images")) and images["examined"]:
        lines += ["", f"images ({images['examined']} looked at): {_most(images['sizes'])} pixels; modes {_most(images['modes'])}"]
    if (sound := found.get("sound")) and sound["examined"]:
        seconds = ", ".join(f"{name} {value:.3g} s" for name, value in sound["seconds"].items())
        lines += ["", f"recordings ({sound['examined']} looked at): {seconds}; samples per second {_most(sound['rates'])}"]
    lines += ["", *(f"warning: {text}" for text in found["warnings"])] if found.get("warnings") else []
    # Names of files and columns may hold what would move the cursor, or has no encoding.
    return printable("\n".join(lines))


def _counts(task: Task, targets: np.ndarray) -> dict[str, int]:
    if targets.ndim > 1:
        return dict(zip(task.classes, targets.sum(axis=0).astype(int).tolist(), strict=True))
    counts = np.bincount(targets.astype(int), minlength=max(2, len(task.classes)))
    return dict(zip(task.classes, counts.tolist(), strict=False))


def _column(column: Column) -> dict[str, Any]:
    """Return what a column became: ``as`` number, truth, date, category, text or dropped, the features it makes, and details."""
    from .table_features import feature_names

    number = "date" if column.get("calendar") else column.get("reading", "number")
    kind = {"numeric": number, "categorical": "category"}.get(column["type"], column["type"])
    told: dict[str, Any] = {"name": column["name"], "as": kind}
    if kind == "dropped":
        return {**told, "reason": column["reason"]}
    told |= {"features": len(feature_names([column])), "missing": bool(column["missing"])}
    return {**told, "levels": len(column["levels"]), "others": bool(column["other"])} if kind == "category" else told


def _column_text(column: Mapping[str, Any]) -> str:
    if column["as"] == "dropped":
        return f"{column['name']} ({column['reason']})"
    parts = [f"{column['levels']} values{' and others' if column['others'] else ''}"] if column["as"] == "category" else []
    parts += ["some missing"] if column["missing"] else []
    return f"{column['name']}" + (f" ({', '.join(parts)})" if parts else "")


def _most(counts: Mapping[str, int]) -> str:
    shown = ", ".join(f"{name} ({count})" for name, count in list(counts.items())[:NAMED])
    return shown + (f", and {len(counts) - NAMED} more" if len(counts) > NAMED else "")
