"""What a column says beyond a number or a few levels: the calendar of its dates, the mean target of its codes, the words of its texts.

Each is learnt from training rows, kept as JSON in the column's dictionary, and applied to any rows.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from .task import Targets

#: A part of the calendar is a feature when the training rows have so many different values of it.
FEWEST = {"year": 2, "month": 3, "weekday": 3, "hour": 3}
#: Steps of a part on its circle, and how many of them are one of its unit: months, days, and the minutes of an hour.
STEPS = {"month": (12, 1), "weekday": (7, 1), "hour": (1_440, 60)}
#: The mean target of a level counts as so many rows of the overall mean: a level of one row says little.
PRIOR_ROWS = 10.0
#: Of a column with more levels than this the most frequent ones are kept; of a task with more classes none is encoded.
LEVELS, CLASSES = 5_000, 10
#: Parts of the training rows, each encoded by the others.
FOLDS = 5
#: A word is a feature when so many rows, and this share of them, have it and not nearly all; at most so many of the most frequent.
ROWS, RARE, COMMON, WORDS = 10, 0.01, 0.9, 24
_WORD = re.compile(r"[^\W\d_]+")


def learn_calendar(seconds: np.ndarray) -> dict[str, Any]:
    """Return which parts of the calendar times ``(n,)`` in seconds since 1970 vary in, and the years between which they lie."""
    known = seconds[np.isfinite(seconds)]
    parts = _calendar(known)
    varied = [part for part, fewest in FEWEST.items() if len(np.unique(np.floor(parts[part]))) >= fewest]
    span = [float(parts["year"].min()), float(parts["year"].max())] if len(known) else [0.0, 0.0]
    return {"calendar": varied, "years": span} if varied else {}


def calendar_names(column: Mapping[str, Any]) -> list[str]:
    """Return the names of the features that ``calendar_features`` makes."""
    parts = column.get("calendar", ())
    return [name for part in parts for name in (("@year",) if part == "year" else (f"@{part} sin", f"@{part} cos"))]


def calendar_features(column: Mapping[str, Any], seconds: np.ndarray) -> np.ndarray:
    """Return ``(n, k)``: the year between 0 and 1, month, weekday and hour on a circle; zeros where the time ``(n,)`` is missing."""
    known = np.isfinite(seconds)
    parts = _calendar(np.where(known, seconds, 0.0))
    made = []
    for part in column["calendar"]:
        if part == "year":
            low, high = column["years"]
            made.append((parts[part] - low) / max(1.0, high - low))
        else:
            made += [*circle(part)[np.floor(parts[part] * STEPS[part][1] + 1e-6).astype(int)].T]
    return np.where(known[:, None], np.stack(made, axis=1), 0.0)


def circle(part: str) -> np.ndarray:
    """Return sine and cosine ``(steps, 2)`` of a part of the calendar: a table, so that a graph which looks them up gives the same."""
    angle = 2 * np.pi * np.arange(STEPS[part][0]) / STEPS[part][0]
    return np.asarray(np.round(np.stack([np.sin(angle), np.cos(angle)], axis=1), 6))


def _calendar(seconds: np.ndarray) -> dict[str, np.ndarray]:
    # Beyond these years numpy's dates overflow.
    inside = np.floor(np.clip(seconds, -6.2e10, 2.5e11))
    moments = inside.astype("int64").astype("datetime64[s]")
    months = moments.astype("datetime64[M]").astype("int64")
    days = np.floor(inside / 86_400)
    return {
        "year": (1970 + months // 12).astype(np.float64),
        "month": (months % 12).astype(np.float64),
        "weekday": (days + 3) % 7,  # 1970 began on a Thursday
        "hour": (inside - 86_400 * days) / 3_600,
    }


def goals_of(targets: Targets) -> np.ndarray | None:
    """Return what the levels of a column are described by, ``(n, k)``: standardised values, the second of two classes, or each class."""
    if targets.kind == "multilabel" or len(targets.classes) > CLASSES:
        return None
    if targets.kind == "regression":
        values = targets.values
        return np.asarray((values - values.mean()) / (values.std() or 1.0))[:, None]
    hot = np.eye(max(2, len(targets.classes)))[targets.values.astype(int)]
    return np.asarray(hot[:, 1:] if hot.shape[1] == 2 else hot)


def learn_means(found: np.ndarray, goals: np.ndarray) -> dict[str, Any]:
    """Learn the mean target of each level of a column from texts ``(n,)`` or None and ``goals (n, k)``, drawn towards the mean of all.

    Source: Micci-Barreca 2001, "A preprocessing scheme for high-cardinality categorical attributes in classification and prediction
    problems", SIGKDD Explorations 3.
    """
    levels, codes = level_codes(found)
    kept, means, prior = _means(codes, goals)
    return {"prior": prior, "means": dict(zip(map(str, levels[kept]), means.tolist(), strict=True))}


def level_codes(found: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the levels of texts ``(n,)`` in order, and which of them each text is, ``(n,)`` int32, -1 for None."""
    present = np.array([text is not None for text in found], dtype=bool)
    codes = np.full(len(found), -1, dtype=np.int32)
    levels, codes[present] = np.unique(found[present].astype(str), return_inverse=True)
    return levels, codes


def _means(codes: np.ndarray, goals: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[float]]:
    """Return the codes that are kept, their means and that of all."""
    prior, present = goals.mean(axis=0), codes >= 0
    counts = np.bincount(codes[present])
    sums = np.stack([np.bincount(codes[present], weights=goal) for goal in goals[present].T], axis=1)
    means = (sums + PRIOR_ROWS * prior) / (counts + PRIOR_ROWS)[:, None]
    kept = np.sort(np.argsort(-counts, kind="stable")[:LEVELS])  # of equally frequent ones the first by name
    kept = kept[counts[kept] > 1]
    return kept, np.array([_short(means[k]) for k in kept]).reshape(len(kept), len(prior)), _short(prior)


def mean_features(learnt: Mapping[str, Any], found: np.ndarray) -> np.ndarray:
    """Return the mean targets ``(n, k)`` of texts ``(n,)``; a level that training did not have, or had once, gets the mean of all."""
    means, prior = learnt["means"], learnt["prior"]
    return np.array([means.get(text, prior) for text in found], dtype=np.float64).reshape(len(found), len(prior))


def means_of_rows(codes: np.ndarray, goals: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return what ``learn_means`` learns from rows of ``codes (n,)`` for others, ``wanted (m,)``: ``(m, k)``, as ``mean_features`` does."""
    kept, means, prior = _means(codes, goals)
    known = np.full((max(codes.max(), wanted.max()) + 2, len(prior)), prior)  # the last one, -1, is that of a missing text
    known[kept] = means
    return np.asarray(known[wanted])


def means_of_others(found: np.ndarray, goals: np.ndarray, seed: int = 0) -> np.ndarray:
    """Return the mean targets ``(n, k)`` of training rows, each learnt without the part of the rows that it lies in.

    A row's own target would otherwise be part of its feature, which no new row's is. ``found`` are texts ``(n,)`` or their codes.
    """
    codes = level_codes(found)[1] if found.dtype.kind == "O" else found
    part = np.random.default_rng(seed).permutation(len(codes)) % FOLDS
    made = np.empty(goals.shape)
    for inside in (part == fold for fold in np.unique(part)):
        made[inside] = means_of_rows(codes[~inside], goals[~inside], codes[inside])
    return made


def learn_words(found: Sequence[str | None]) -> list[str]:
    """Return the most frequent words of texts, in lower case, that some of the rows have and others have not."""
    counts = Counter(word for text in found for word in words_of(text))
    fewest, most = max(ROWS, RARE * len(found)), COMMON * len(found)
    chosen = sorted((word for word, count in counts.items() if fewest <= count <= most), key=lambda word: (-counts[word], word))
    return sorted(chosen[:WORDS])


def words_of(text: str | None) -> set[str]:
    """Return the words of a text in lower case.

    >>> sorted(words_of("Braund, Mr. Owen A/5"))
    ['a', 'braund', 'mr', 'owen']
    """
    return set() if text is None else set(_WORD.findall(text.casefold()))


def word_features(words: Sequence[str], found: Sequence[str | None]) -> np.ndarray:
    """Return ``(n, words)``: 1 where a text has a word."""
    return np.array([[word in there for word in words] for there in map(words_of, found)], dtype=np.float64).reshape(len(found), len(words))


def _short(values: np.ndarray) -> list[float]:
    return [float(f"{value:.6g}") for value in values]
