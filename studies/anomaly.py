"""Trees, forests, detectors and perceptrons look for anomalies: what does each phase cost, training and inference?

Repeats the question of Huertas-Garcia et al., "A Comparative Study of Machine Learning Algorithms for Anomaly Detection in Industrial
Environments: Performance and Environmental Impact" (arXiv 2307.00361): is a perceptron that finds more anomalies worth its energy beside a
decision tree, when training and inference are counted apart? Inference is an objective of its own here, measured in a window of its own;
validation is in the bill.

What differs: their data is not here. Without ``--data TABLE.csv --target COLUMN`` (two values; the greater number or the rarer text is the
anomaly) the task is scikit-learn's breast cancer set, malignant against benign. Supervised families learn from labels, that is, they
classify; isolation forest, local outlier factor and one-class SVM see normal examples only. Both kinds compete on one axis, the AUC.
"""

from __future__ import annotations

from ..search.study import Study
from ..search.training.arrays import arrays
from ..search.training.table import table
from ..search.training.task import Task
from ..spaces.classical import Classical
from ..spaces.mlp import Mlp
from ..spaces.recipes import RecipeRanges
from ..spaces.union import Union


def task(data: str | None = None, target: str | None = None, seed: int = 0) -> Task:
    """Load the table, or the breast cancer set; only one of table and target raises ValueError."""
    if (data is None) != (target is None):
        raise ValueError("anomaly needs --data TABLE.csv together with --target COLUMN, or neither for scikit-learn's breast cancer set")
    if data is not None and target is not None:
        return table(data, target, kind="anomaly", seed=seed)
    from sklearn.datasets import load_breast_cancer

    cancer = load_breast_cancer()
    malignant = 1 - cancer.target  # the set has 0 for malignant, an anomaly is 1
    classes = ("benign", "malignant")
    return arrays(cancer.data, malignant, name="breast cancer", kind="anomaly", classes=classes, validation_share=0.2, seed=seed)


def study(data: str | None = None, target: str | None = None, seed: int = 0) -> Study:
    """Which detector finds anomalies for the fewest joules, in training and in use?"""
    recipe = RecipeRanges(learning_rate=(1e-4, 1e-2), weight_decay=(1e-5, 1e-1), batch_size=(32, 256), threads=1)
    return Study(
        name="anomaly",
        task=lambda: task(data, target, seed),
        space=Union(Classical(kind="anomaly"), Mlp(depths=(0, 3), widths=(8, 128), recipe=recipe)),
        objectives=("auc", "train_energy", "inference_energy"),
        rungs=(1, 3, 9, 27),
        default_trials=60,
        seed=seed,
        description="Which detector finds anomalies for the fewest joules, in training and in use (arXiv 2307.00361)?",
    )
