"""Any CSV or Parquet file: scikit-learn's families and a torch perceptron compete in one study, classification or regression."""

from __future__ import annotations

from ..search.study import Study
from ..search.training.table import table
from ..search.training.task import Kind
from ..spaces.classical import Classical
from ..spaces.mlp import Mlp
from ..spaces.recipes import RecipeRanges
from ..spaces.union import Union


def study(data: str, target: str, seed: int = 0, kind: Kind | None = None, drop: str = "", keep: str = "", categorical: str = "") -> Study:
    """Which family predicts your column for the fewest joules?

    Args:
        data: CSV or Parquet file.
        target: Column to predict.
        seed: Seed of splits and search.
        kind: ``classification``, ``regression`` or ``anomaly``, where it is told wrongly: ``--set kind=classification``.
        drop: Columns to leave out: ``--set drop=id,comment``.
        keep: Columns to use although their numbers seem to name the rows.
        categorical: Columns of numbers that are codes, not amounts.
    """
    # Read here: its kind decides which families can compete and what quality means.
    task = table(data, target, kind=kind, seed=seed, drop=drop, keep=keep, categorical=categorical)
    recipe = RecipeRanges(learning_rate=(1e-3, 3e-2), weight_decay=(1e-5, 1e-1), batch_size=(64, 128, 256))
    return Study(
        name="table",
        task=task,
        space=Union(Classical(kind=task.kind), Mlp(recipe=recipe)),
        objectives=(task.metric, "train_energy"),
        rungs=(1, 3, 9, 27),
        trials=40,
        seed=seed,
        description=f"Which family predicts {target!r} for the fewest joules?",
    )
