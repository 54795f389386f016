"""Which rows of a table train, validate and test: at random, by time or by group; and whether rows that are alike lie in several splits."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from shlex import quote
from typing import TYPE_CHECKING, Any

import numpy as np

from .columns import Reading, infer, is_text, numbers, texts
from .table_encodings import OF_DAY
from .table_surprises import differing, spelt_alike
from .task import Targets, split_indices

if TYPE_CHECKING:
    import pandas as pd

Parts = tuple[np.ndarray, np.ndarray, np.ndarray]
#: So many ways of dealing out the groups are compared; fewer where they deal out more groups in all, for many groups come out alike.
DEALS, FEWEST_DEALS, DEALT = 30, 3, 1_000_000
#: Rows and columns that are looked at for likeness; columns of fewer different values say nothing.
LOOKED_AT, COLUMNS, DIFFERENT = 20_000, 60, 10
#: A column changes slowly when the mean square of its steps is below this share of what it is in shuffled rows; so must this many columns.
SLOW, FEWEST, SHARE = 0.2, 3, 0.5
#: Amounts of a regression are divided into so many classes, within which likeness counts: a table may be sorted by its target.
BINS = 20
#: Fewer times, or more classes, tell nothing of a target; names of numbers that are times.
TIMES = 50
_TIMES = re.compile(r"(?i)(.*[ _-])?(year|jahr|month|monat|week|woche|day|tag|date|datum|time|zeit|period|timestamp|ts|t)")


def split_column(split: str) -> tuple[str, str | None]:
    """Read ``random``, ``time:COLUMN`` or ``group:COLUMN``.

    >>> split_column("time:day"), split_column("random")
    (('time', 'day'), ('random', None))

    Raises:
        ValueError: If it is something else.
    """
    how, colon, column = split.partition(":")
    if how == "random" and not colon:
        return how, None
    if how in ("time", "group") and column:
        return how, column.strip()
    raise ValueError(f"--split must be random, time:COLUMN or group:COLUMN, got {split!r}")


def split_rows(
    frame: pd.DataFrame, raw: pd.DataFrame, how: Mapping[str, Reading], targets: Targets, split: str, shares: tuple[float, float], seed: int
) -> Parts:
    """Return the rows of training, validation and test.

    ``random`` is stratified by class. With ``time:COLUMN`` the last rows by this column test, those before them validate; rows without a
    time train. With ``group:COLUMN`` all rows of one value lie in one split; of several ways to deal them out the one is taken whose
    splits are most alike in size and in their targets. ``raw`` are the same rows as the file has
    them, for messages; ``shares`` those of validation and test.

    Raises:
        ValueError: If the column cannot divide the rows so.
    """
    kind, column = split_column(split)
    stratified = targets.kind in ("classification", "anomaly")
    drawn = split_indices(targets.values, validation_share=shares[0], test_share=shares[1], seed=seed, stratified=stratified)
    if column is None:
        return drawn
    values = frame[column]
    if kind == "time":
        # A column of ``categorical`` has no reading of its own.
        reading = infer(texts(values)) if is_text(values.dtype) and column not in how else how.get(column, Reading())
        when = numbers(values, reading) if not is_text(values.dtype) or reading.kind != "text" else None
        if when is None or len(np.unique(when[np.isfinite(when)])) < 3:
            raise ValueError(f"--split time:{column} needs at least 3 dates or numbers in that column, got {_few(raw[column])}")
        _say_gaps(column, ~np.isfinite(when), "train")
        parts = _by_time(when, shares)
        _say_small(column, parts, shares)
        return parts
    groups = np.array([str(text) for text in texts(values)])
    needed = 2 + (shares[1] > 0)
    if len(np.unique(groups)) < needed:
        remedy = "; join the files into one to divide their rows at random" if column == "file" else ""
        raise ValueError(f"--split group:{column} needs at least {needed} different values in that column, got {_few(raw[column])}{remedy}")
    _say_gaps(column, np.array([text is None for text in texts(values)]), "are one group")
    if twice := spelt_alike({*groups.tolist()}):
        shown = " and ".join(map(repr, twice[0][:3]))
        warnings.warn(f"{shown} in {column!r} differ in {differing(twice[0])} only, and are two groups; spell them alike", stacklevel=3)
    parts = _deal(groups, targets, (1 - sum(shares), *shares), seed)
    _say_small(column, parts, shares)
    return parts


def _by_time(when: np.ndarray, shares: tuple[float, float]) -> Parts:
    """Cut rows ``(n,)`` by their time, never between two of one time: what a time had in training would be known in validation."""
    order = np.argsort(np.where(np.isfinite(when), when, -np.inf), kind="stable")
    gaps = int((~np.isfinite(when)).sum())
    cuts = gaps + 1 + np.flatnonzero(np.diff(when[order[gaps:]]) > 0)
    last = len(order) - round((len(order) - gaps) * shares[1])
    last = int(min(cuts[1:], key=lambda cut: abs(cut - last))) if shares[1] else len(order)
    first = last - round((len(order) - gaps) * shares[0])
    first = int(min(cuts[cuts < last], key=lambda cut: abs(cut - first)))
    train, validation, test = (np.sort(part) for part in np.split(order, [first, last]))
    return train, validation, test


def _say_gaps(column: str, missing: np.ndarray, what: str) -> None:
    if missing.any():
        warnings.warn(f"{int(missing.sum())} of {len(missing)} rows have no {column!r}, by which they are split: they {what}", stacklevel=4)


def _say_small(column: str, parts: Parts, shares: tuple[float, float]) -> None:
    count = sum(map(len, parts))
    sizes = zip(("validate", "test"), map(len, parts[1:]), shares, strict=True)
    if small := [f"{size} {what}" for what, size, share in sizes if size < share * count / 2]:
        warnings.warn(f"of {count} rows {' and '.join(small)}, for many have one {column!r}; their qualities tell little", stacklevel=4)


def _deal(groups: np.ndarray, targets: Targets, shares: tuple[float, float, float], seed: int) -> Parts:
    """Deal out whole groups: each to the split that lacks most of its share."""
    random = np.random.default_rng(seed)
    names, places = np.unique(groups, return_inverse=True)
    sizes = np.bincount(places).tolist()
    wanted = [share * len(groups) for share in shares]
    present = [k for k in range(3) if wanted[k] > 0]
    answers = _as_columns(targets, len(groups))
    usual, spread = answers.mean(axis=0), answers.std(axis=0) + 1e-12
    deals = list[tuple[float, np.ndarray]]()
    for _ in range(min(DEALS, max(FEWEST_DEALS, DEALT // len(names)))):
        have, split_of, left = [0.0, 0.0, 0.0], np.zeros(len(names), dtype=int), set(present)
        order = random.permutation(len(names)).tolist()
        for place, group in enumerate(order):
            among = sorted(left) if len(order) - place <= len(left) else present
            chosen = max(among, key=lambda k: (wanted[k] - have[k]) / wanted[k])
            split_of[group] = chosen
            have[chosen] += sizes[group]
            left.discard(chosen)
        rows = split_of[places]
        unlike = sum(abs(have[k] - wanted[k]) / len(groups) for k in present)
        unlike += sum(float(np.mean(np.abs(answers[rows == k].mean(axis=0) - usual) / spread)) for k in present)
        deals.append((unlike, rows))
    best = min(deals, key=lambda deal: deal[0])[1]
    return np.flatnonzero(best == 0), np.flatnonzero(best == 1), np.flatnonzero(best == 2)


def _as_columns(targets: Targets, most: int) -> np.ndarray:
    """Return the targets of ``most`` rows as ``(m, k)``, a column of 0 and 1 for each class."""
    values = targets.values[:most] if targets.values.ndim > 1 else targets.values[:most, None]
    return np.eye(int(values.max()) + 1)[values[:, 0].astype(int)] if targets.kind in ("classification", "anomaly") else values


def alike_neighbours(frame: pd.DataFrame, how: Mapping[str, Reading], targets: Targets) -> str | None:
    """Return what to say where rows that follow one another are alike, as in recordings, with the options that keep them together.

    A column is slow when the mean square of its steps is small against twice its variance, within the classes of the target. So may be the
    target by a date, as sales are like those of the day before: whoever knows the date knows them.

    Source: von Neumann 1941, "Distribution of the ratio of the mean square successive difference to the variance".
    """
    few, answers = frame.iloc[:LOOKED_AT], targets.values[:LOOKED_AT]
    if targets.kind == "regression":
        answers = np.searchsorted(np.quantile(answers, np.linspace(0, 1, BINS + 1)[1:-1]), answers)
    slow, seen, counted = [], 0, [str(name) for name, dtype in few.dtypes.items() if dtype.kind in "iufM" and few[name].notna().any()]
    for name in counted[:COLUMNS] if len(few) >= 100 and answers.ndim == 1 else ():
        values = numbers(few[name], how.get(name, Reading()))
        values = values if np.isfinite(values).all() else np.where(np.isfinite(values), values, np.nanmedian(values))
        steps = np.diff(values)
        if len(np.unique(values)) < DIFFERENT or (steps >= 0).all() or (steps <= 0).all():
            continue  # whoever numbers rows or sorts them by a column makes no recording
        means = np.array([values[answers == k].mean() if (answers == k).any() else 0.0 for k in range(answers.max() + 1)])
        inside = values - means[answers]
        seen += 1
        if inside.var() > 0 and np.mean(np.diff(inside) ** 2) < SLOW * 2 * inside.var():
            slow.append(name)
    times = [name for name, reading in how.items() if reading.kind == "date" and reading.how not in OF_DAY]
    # In numbers a day of the year comes again.
    times += [name for name in counted if few[name].dtype.kind == "M" or (_TIMES.fullmatch(name) and few[name].is_unique)]
    said = f"rows that follow one another are alike ({', '.join(map(repr, slow[:3]))} change little from row to row)"
    if len(slow) < max(FEWEST, SHARE * seen):
        times = [name for name in times if _goes_on(targets, numbers(few[name], how.get(name, Reading())))]
        if not times:
            return None
        said = f"the target changes little from one {times[0]!r} to the next"
    named = [*(f"time:{name}" for name in times[:1]), *(f"group:{name}" for name in _recordings(frame))]
    options = [f"--split {quote(one)}" for one in named]
    remedy = " or ".join(options) or "sort out a column that names the time or the recording, then --split time:COLUMN or group:COLUMN"
    said += ": at random, training rows have their neighbours in validation, which then looks better than new data will"
    return f"{said}; {remedy} keeps them apart"


def _goes_on(targets: Targets, when: np.ndarray) -> bool:
    """Whether targets, those of one time ``(n,)`` together, are slow; of classes that is by the share of times after another class."""
    there = np.isfinite(when)
    different, places = np.unique(when[there], return_inverse=True)
    if len(different) < TIMES or len(targets.classes) > TIMES:
        return False
    answers = _as_columns(targets, len(when))[there]
    means = np.stack([np.bincount(places, column) / np.bincount(places) for column in answers.T], axis=1)
    alike = (np.diff(means, axis=0) ** 2).mean(axis=0).sum() < SLOW * 2 * means.var(axis=0).sum()
    return bool(alike and means[places].var(axis=0).sum() > SHARE * answers.var(axis=0).sum())


def _recordings(frame: pd.DataFrame) -> list[str]:
    """Return a column whose values lie behind one another in blocks, as the names of recordings do."""
    for name in map(str, frame.columns):
        values = texts(frame[name])
        different = len({*values.tolist()})
        if 3 <= different <= len(values) / 10 and 1 + int((values[1:] != values[:-1]).sum()) <= 2 * different:
            return [name]
    return []


def _few(values: Any) -> str:
    shown = ["nothing" if text is None else repr(text) for text in dict.fromkeys(texts(values))]
    return ", ".join(shown[:5]) + (", ..." if len(shown) > 5 else "")
