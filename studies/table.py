"""Any CSV or Parquet file: gradient boosting, forests, linear models, neighbours and a perceptron compete in one study."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from ..search.space import NearestTrial, Space
from ..search.study import OBJECTIVES, Study
from ..search.training.evaluate import qualities
from ..search.training.table import table
from ..search.training.table_features import MAX_LEVELS
from ..search.training.task import Kind
from ..search.training.text import REMEDY, find_text
from ..spaces.boosting import DEFAULTS, PORTFOLIO, Boosting, boosting
from ..spaces.classical import Classical
from ..spaces.foundation import Foundation, find_weights
from ..spaces.mlp import Mlp
from ..spaces.recipes import RecipeRanges
from ..spaces.union import Union

#: Training rows above which the share of them that boosting learns from is searched, and those at which a forest begins with fewer trees.
MANY, SEVERAL = 10_000, 5_000
#: Qualities that count each class alike: then the weights of the classes are searched, too.
EVEN = ("balanced_accuracy", "macro_f1")


def study(
    data: str,
    target: str,
    seed: int = 0,
    kind: Kind | None = None,
    drop: str = "",
    keep: str = "",
    categorical: str = "",
    missing: str = "",
    split: str = "random",
    metric: str = "",
    validation_share: float = 0.15,
    test_share: float = 0.15,
    max_levels: int = MAX_LEVELS,
    folds: int | None = None,
    pretrained: str = "auto",
    foundation: str = "",
) -> Study:
    """Which family predicts your column for the fewest joules?

    Args:
        data: CSV or Parquet file, or a folder of them: recordings, each of which then lies in one split.
        target: Column to predict.
        seed: Seed of splits and search.
        kind: ``classification``, ``regression`` or ``anomaly``, where it is told wrongly: ``--kind classification``.
        drop: Columns to leave out: ``--drop id,comment``.
        keep: Columns to use although their numbers seem to name the rows, or they are the target under another name.
        categorical: Columns of numbers that are codes, not amounts: ``--categorical plant,zip``.
        missing: Values that stand for missing ones: ``--missing -999`` in any column, ``--missing age=99,rain=9999`` in one each.
        split: How the rows are divided: ``random``, ``time:COLUMN`` (the last rows validate and test) or ``group:COLUMN`` (all rows of one
            value in one split), for rows that are recordings or belong together.
        metric: The quality to search for; by default accuracy, R² of amounts, macro F1 of several labels, AUC of anomalies.
        validation_share: Share of the rows that the search validates on: ``--set validation_share=0.2``.
        test_share: Share of the rows that the search never sees: ``--set test_share=0.2``.
        max_levels: A column of categories gets a feature for each of its most frequent values, at most this many.
        folds: Parts of the rows for cross-validation, which is paid as validation; by default 5 below 1,000 rows, 3 below 5,000, else 0
            (the validation split): ``--set folds=0``.
        pretrained: ``auto`` makes features of columns of free text where a static embedding is installed (``pip install wordllama``), once,
            as a part of the start; ``no`` leaves such columns out.
        foundation: Folder with weights of TabICL or TabPFN, which then compete, too: ``--set foundation=weights``. Nothing is downloaded.

    Raises:
        ValueError: If ``pretrained`` is another word, or there are no such weights; ImportError if their library is not installed.
    """
    if pretrained not in ("auto", "no"):
        raise ValueError(f"--pretrained must be auto or no for tables, got {pretrained!r}; {REMEDY}, which auto finds")
    text = find_text() if pretrained == "auto" else None
    # Read here: its kind decides which families can compete and what quality means.
    shares: dict[str, Any] = {
        "validation_share": validation_share,
        "test_share": test_share,
        "max_levels": max_levels,
        "folds": folds,
        "missing": missing,
    }
    task = table(data, target, kind=kind, seed=seed, drop=drop, keep=keep, categorical=categorical, text=text, split=split, **shares)
    known = [name for name in qualities(task.kind, len(task.classes)) if name in OBJECTIVES]
    if metric and metric not in known:
        near = get_close_matches(metric, known, n=1, cutoff=0.4) or known
        raise ValueError(f"--metric must be {' or '.join(known)} for {task.kind}, got {metric!r}; do you mean {near[0]}?")
    embedded = [column["name"] for column in task.preprocessing["columns"] if column["type"] == "text"]
    weights = (False, True) if metric in EVEN and task.kind != "regression" else False
    boosted = boosting(task.kind, rows=(1.0, 0.3, 0.1) if len(task.train) >= MANY else 1.0, balanced=weights)
    recipe = RecipeRanges(learning_rate=(1e-3, 3e-2), weight_decay=(1e-5, 1e-1), batch_size=(64, 128, 256))
    more: list[Space] = []
    if foundation:
        find_weights(foundation, regression=task.kind == "regression")
        more.append(Foundation(folder=foundation))
    space = Union(*boosted, Classical(kind=task.kind), Mlp(recipe=recipe), *more)
    return Study(
        name="table",
        task=task,
        space=space,
        objectives=(metric or task.metric, "train_energy", "inference_energy"),
        rungs=(1, 3, 9, 27, 81),
        default_trials=40,
        ensemble=5,
        seed=seed,
        first=defaults(space, boosted, task.kind, len(task.train)),
        description=f"Which family predicts {target!r} for the fewest joules?",
        weights=(text.facts,) if text is not None and embedded else (),
        notice=f"text: {', '.join(embedded)} by {text.facts['model']} from {text.facts['origin']}" if text is not None and embedded else "",
    )


def defaults(space: Space, boosted: tuple[Boosting, ...], kind: Kind, rows: int) -> tuple[Mapping[str, Any], ...]:
    """Return the trials to begin with: each family at its defaults, the cheap ones first, so that a front stands at once.

    Two further settings of each library of boosting follow its own, so that noisy and large tables have a good model at once, too.
    """
    trees = 9 if rows < SEVERAL else 3 if rows < MANY else 1
    wanted: list[tuple[Mapping[str, Any], int]] = []
    if kind != "multilabel":
        wanted.append(({"family": "classical", "classical.estimator": "linear"}, 9))
        settings = [(one.name, DEFAULTS[one.name], 9) for one in boosted]
        settings += [(one.name, values, 27) for k in (0, 1) for one in boosted for values in PORTFOLIO[one.name][k : k + 1]]
        wanted += [
            ({"family": name, **{f"{name}.{key}": value for key, value in values.items()}}, epochs) for name, values, epochs in settings
        ]
    wanted += [({"family": "classical", "classical.estimator": name}, trees) for name in ("extra_trees", "random_forest")]
    ordinary = {f"classical.{name}": value for name, value in Classical(kind=kind).defaults().items() if "." in name}
    first = []
    for given, epochs in wanted:
        draw = NearestTrial({**ordinary, **given})
        space.sample(draw)
        first.append({**draw.params, "epochs": epochs})
    return tuple(first)
