"""Any CSV or Parquet file: scikit-learn's families and a torch perceptron compete in one study, classification or regression."""

from __future__ import annotations

from ..search.study import Study
from ..search.training.table import table
from ..spaces.classical import Classical
from ..spaces.mlp import Mlp
from ..spaces.recipes import RecipeRanges
from ..spaces.union import Union


def study(data: str, target: str, seed: int = 0) -> Study:
    """Which family predicts your column for the fewest joules?"""
    task = table(data, target, seed=seed)  # read here: its kind decides which families can compete and what quality means
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
