"""The seam to scikit-learn: estimators whose work is divided into epochs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np

from .task import Task


@runtime_checkable
class Estimator(Protocol):
    """A classical model with a fidelity: trees, boosting rounds, solver iterations or a share of the data.

    ``sklearn`` is the plain scikit-learn object: what is stored, exported, and put back when a training continues.
    """

    sklearn: Any

    def fit_epochs(self, X: np.ndarray, y: np.ndarray, epochs_from: int, epochs_to: int, seed: int) -> None:
        """Bring the estimator from ``epochs_from`` epochs of work (0: untrained) to ``epochs_to``."""

    def predict_scores(self, X: np.ndarray) -> np.ndarray:
        """Return probabilities ``(n, classes)``, values ``(n,)`` in the units of the targets, or anomaly scores ``(n,)``.

        Anomaly scores lie in [0, 1], greater is more anomalous, and 0.5 is the threshold of the estimator. Those who inherit this have the
        scores of ``sklearn``.
        """
        return plain_scores(self.sklearn, X)


class SingleEpoch(Estimator):
    """Any scikit-learn estimator: all of its work is done in the first epoch, later ones add and cost nothing."""

    def __init__(self, sklearn: Any) -> None:
        self.sklearn = sklearn

    def fit_epochs(self, X: np.ndarray, y: np.ndarray, epochs_from: int, epochs_to: int, seed: int) -> None:
        """Fit everything when nothing has been fitted yet."""
        if epochs_from > 0:
            return
        names = [name for name in getattr(self.sklearn, "get_params", dict)() if name.rpartition("__")[2] == "random_state"]
        if names:  # also those of the steps of a pipeline
            self.sklearn.set_params(**dict.fromkeys(names, seed % 2**32))
        self.sklearn.fit(X, y)
        self.sklearn = getattr(self.sklearn, "best_estimator_", self.sklearn)  # what a GridSearchCV has found; how it searched is no model


class SklearnLike:
    """The names of scikit-learn for a model of ``classes`` classes, 0 for values; heirs call ``_ready`` once they are made or read.

    What they add are ``_probabilities (n, classes)``, ``_values (n,)``, and the names of what they were made with.
    """

    _params: ClassVar[tuple[str, ...]]
    classes: int
    _probabilities: Callable[[np.ndarray], np.ndarray]
    _values: Callable[[np.ndarray], np.ndarray]

    def _ready(self) -> None:
        if self.classes:
            self.classes_ = np.arange(self.classes)
            self.predict_proba = self._probabilities  # only of classes: what an object has decides how its scores are read
        self._estimator_type = "classifier" if self.classes else "regressor"

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return what it was made with, as scikit-learn's objects do."""
        return {name: getattr(self, name) for name in self._params}

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Return values ``(n,)``, or the most probable class of each row."""
        return np.asarray(self.classes_[self._probabilities(X).argmax(axis=1)] if self.classes else self._values(X))


def as_estimator(model: Any) -> Estimator:
    """Return the model as an ``Estimator``, wrapping plain scikit-learn objects; anything else raises ValueError."""
    if isinstance(model, type):
        raise ValueError(f"a model must be an instance, got the class {model.__name__}; return {model.__name__}(...)")
    if isinstance(model, Estimator):
        return model
    predicts = callable(getattr(model, "predict", None)) or hasattr(model, "final_estimator")  # a StackingClassifier does once it is fitted
    if callable(getattr(model, "fit", None)) and predicts:
        return SingleEpoch(model)
    raise ValueError(
        f"a model must be a torch.nn.Module or have fit and predict like a scikit-learn estimator, got {type(model).__name__}; "
        "does Space.build return the model?"
    )


def drawn_rows(total: int, count: int, seed: int) -> np.ndarray:
    """Return so many rows of all, ascending: the first of a shuffled order, so that more rows hold the fewer ones."""
    return np.sort(np.random.default_rng(seed).permutation(total)[:count])


def thirds(epochs: int, full_epochs: int) -> int:
    """Return into how many parts rows are divided, of which ``epochs`` learn from one: 1 from ``full_epochs`` on, 3 from a third of it ...

    The share grows in threes and not with every epoch, because every step is a refit: 1 + 1/3 + 1/9 + ... is 1.5.
    """
    parts = 1
    while max(1, epochs) * parts < full_epochs:
        parts *= 3
    return parts


def plain_scores(sklearn: Any, X: np.ndarray) -> np.ndarray:
    """Return the scores of a fitted scikit-learn object in the form of ``Estimator.predict_scores``."""
    if getattr(sklearn, "_estimator_type", None) == "outlier_detector" or is_outlier_detector(sklearn):
        # decision_function is negative for outliers. Softsign puts the threshold at 0.5 and keeps the order of far outliers, which a
        # logistic function would round to equal scores.
        decision = np.asarray(sklearn.decision_function(X), dtype=np.float64)
        return 0.5 - 0.5 * decision / (1.0 + np.abs(decision))
    if isinstance(getattr(sklearn, "classes_", None), list) and callable(getattr(sklearn, "predict_proba", None)):
        pairs = zip(sklearn.predict_proba(X), sklearn.classes_, strict=True)  # of several labels; one that never occurs has one column
        ones = [shares[:, list(classes).index(1)] if 1 in classes else np.zeros(len(shares)) for shares, classes in pairs]
        return np.stack(ones, axis=1)
    if callable(getattr(sklearn, "predict_proba", None)):
        return np.asarray(sklearn.predict_proba(X))
    if hasattr(sklearn, "classes_") and callable(getattr(sklearn, "decision_function", None)):
        decision = np.asarray(sklearn.decision_function(X), dtype=np.float64)
        if decision.ndim == 1:
            positive = 1.0 / (1.0 + np.exp(-np.clip(decision, -50.0, 50.0)))
            return np.stack([1.0 - positive, positive], axis=1)
        powers = np.exp(decision - decision.max(axis=1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=1, keepdims=True))
    if hasattr(sklearn, "classes_"):
        return np.asarray(np.asarray(sklearn.predict(X))[:, None] == np.asarray(sklearn.classes_)[None, :], dtype=np.float64)
    return np.asarray(sklearn.predict(X), dtype=np.float64)


def is_outlier_detector(sklearn: Any) -> bool:
    """Whether scikit-learn counts an object as an outlier detector."""
    from sklearn import base

    try:
        return bool(base.is_outlier_detector(sklearn))
    except AttributeError:  # a user's object without scikit-learn's tags
        return False


def full_probabilities(scores: np.ndarray, sklearn: Any, task: Task) -> np.ndarray:
    """Spread probabilities over all classes of the task when only some occurred in the training data."""
    seen = getattr(sklearn, "classes_", None)
    if task.kind == "classification" and scores.ndim != 2:
        raise ValueError(f"a model of classes must be a classifier, got the values of {type(sklearn).__name__}; one has classes_")
    if task.kind not in ("classification", "anomaly") or scores.ndim != 2 or seen is None or scores.shape[1] == task.outputs:
        return scores
    full = np.zeros((len(scores), task.outputs), dtype=scores.dtype)
    full[:, np.asarray(seen, dtype=int)] = scores
    return full
