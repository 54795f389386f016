"""Any CSV or Parquet file: scikit-learn's families and a torch perceptron compete in one study, classification or regression."""

from __future__ import annotations

from typing import Any

from ..search.study import Study
from ..search.training.table import table
from ..search.training.table_features import MAX_LEVELS
from ..search.training.task import Kind
from ..search.training.text import REMEDY, find_text
from ..spaces.classical import Classical
from ..spaces.mlp import Mlp
from ..spaces.recipes import RecipeRanges
from ..spaces.union import Union


def study(
    data: str,
    target: str,
    seed: int = 0,
    kind: Kind | None = None,
    drop: str = "",
    keep: str = "",
    categorical: str = "",
    split: str = "random",
    metric: str = "",
    validation_share: float = 0.15,
    test_share: float = 0.15,
    max_levels: int = MAX_LEVELS,
    pretrained: str = "auto",
) -> Study:
    """Which family predicts your column for the fewest joules?

    Args:
        data: CSV or Parquet file.
        target: Column to predict.
        seed: Seed of splits and search.
        kind: ``classification``, ``regression`` or ``anomaly``, where it is told wrongly: ``--kind classification``.
        drop: Columns to leave out: ``--drop id,comment``.
        keep: Columns to use although their numbers seem to name the rows, or they are the target under another name.
        categorical: Columns of numbers that are codes, not amounts: ``--categorical plant,zip``.
        split: How the rows are divided: ``random``, ``time:COLUMN`` (the last rows validate and test) or ``group:COLUMN`` (all rows of one
            value in one split), for rows that are recordings or belong together.
        metric: The quality to search for; by default accuracy, R² of amounts, macro F1 of several labels, AUC of anomalies.
        validation_share: Share of the rows that the search validates on: ``--set validation_share=0.2``.
        test_share: Share of the rows that the search never sees: ``--set test_share=0.2``.
        max_levels: A column of categories gets a feature for each of its most frequent values, at most this many.
        pretrained: ``auto`` makes features of columns of free text where a static embedding is installed (``pip install wordllama``), once,
            as a part of the start; ``no`` leaves such columns out.

    Raises:
        ValueError: If ``pretrained`` is another word.
    """
    if pretrained not in ("auto", "no"):
        raise ValueError(f"--pretrained must be auto or no for tables, got {pretrained!r}; {REMEDY}, which auto finds")
    text = find_text() if pretrained == "auto" else None
    # Read here: its kind decides which families can compete and what quality means.
    shares: dict[str, Any] = {"validation_share": validation_share, "test_share": test_share, "max_levels": max_levels}
    task = table(data, target, kind=kind, seed=seed, drop=drop, keep=keep, categorical=categorical, text=text, split=split, **shares)
    embedded = [column["name"] for column in task.preprocessing["columns"] if column["type"] == "text"]
    recipe = RecipeRanges(learning_rate=(1e-3, 3e-2), weight_decay=(1e-5, 1e-1), batch_size=(64, 128, 256))
    return Study(
        name="table",
        task=task,
        space=Union(Classical(kind=task.kind), Mlp(recipe=recipe)),
        objectives=(metric or task.metric, "train_energy"),
        rungs=(1, 3, 9, 27),
        trials=40,
        seed=seed,
        description=f"Which family predicts {target!r} for the fewest joules?",
        weights=(text.facts,) if text is not None and embedded else (),
        notice=f"text: {', '.join(embedded)} by {text.facts['model']} from {text.facts['origin']}" if text is not None and embedded else "",
    )
