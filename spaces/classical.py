"""scikit-learn's families, in competition with networks: epochs are trees, boosting rounds, iterations or a share of the data.

``Classical`` draws an estimator and its settings; ``FidelityEstimator`` divides the work of a scikit-learn object into epochs.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from typing import Annotated, Any, ClassVar

import numpy as np

from ..search.space import Candidate, Suggest
from ..search.training.estimator import Estimator, drawn_rows, thirds
from ..search.training.recipe import Recipe
from ..search.training.task import Kind, Task
from .recipes import Bounded, Caps, Count, Counts, Domain, Floats, Options, Rates, suggest_categorical, suggest_float, suggest_int, words

SUPERVISED = ("linear", "decision_tree", "random_forest", "extra_trees", "gradient_boosting", "k_neighbours")
DETECTORS = ("isolation_forest", "local_outlier_factor", "one_class_svm")
#: Estimators that learn one target at a time.
SINGLE = ("linear", "gradient_boosting")
#: How an estimator continues: the parameter that grows, and the unit of work in ``per_epoch``. All others are refitted on more data.
_GROWING = {
    "random_forest": ("n_estimators", "trees"),
    "extra_trees": ("n_estimators", "trees"),
    "isolation_forest": ("n_estimators", "trees"),
    "gradient_boosting": ("max_iter", "rounds"),
}
#: Names of settings in scikit-learn, where they are not ours.
_THEIRS = {"min_leaf": "min_samples_leaf", "features": "max_features", "neighbours": "n_neighbors", "weighting": "weights"}
_LINEAR = "linear"
#: A step of Newton's method does about the work of so many of L-BFGS, and up to so many coefficients costs less than these.
_NEWTON, _COEFFICIENTS = 10, 80
#: The ordinary estimator where gradient boosting does not serve.
_ORDINARY = {"multilabel": "random_forest", "anomaly": "isolation_forest"}
_FEWEST = 2
#: Epochs of the first of its kind that grows: some seventy trees or rounds.
STARTED_AT = 9


def serving(kind: Kind) -> tuple[str, ...]:
    """Return the estimators for a kind of task; labelled anomalies can be learnt by the supervised ones as well."""
    if kind == "multilabel":
        return tuple(name for name in SUPERVISED if name not in SINGLE)
    return (*SUPERVISED, *DETECTORS) if kind == "anomaly" else SUPERVISED


@dataclass(frozen=True)
class Classical(Bounded):
    """Families of scikit-learn for classification, regression and, with ``DETECTORS``, anomaly detection.

    ``linear`` is logistic regression for classes and the elastic net for values. Parameters of one estimator have its name in front, e.g.
    ``random_forest.max_depth``. A pair of numbers is a range, logarithmic except for ``features``. What an epoch is:

    - forests: ``trees_per_epoch`` trees; boosting: ``rounds_per_epoch`` rounds; linear models: ``iterations_per_epoch`` solver steps, a
      tenth of them by Newton's method where the coefficients are few; all three continue from where they stopped;
    - one tree, neighbours, local outlier factor, one-class SVM: all training data from ``full_epochs`` on, a third from a third of it, a
      ninth from a ninth ...; each step is fitted from scratch, and all steps together cost at most 1.5 fits on all data.

    Attributes:
        estimators: Names out of ``SUPERVISED`` and ``DETECTORS``, or None for all that serve the ``kind`` of the task, see ``serving``.
        regularisation: C of logistic regression; the elastic net's alpha is 0.001 / C.
        depths: Largest depth of a tree; ``leaves`` is the fewest examples in one of its leaves.
        features: Share of the features that a split of a forest looks at.
        learning_rate: Shrinkage of boosting.
        contamination: Share of the (normal) training data that a detector leaves outside; ``nu`` of the SVM.
        full_epochs: Best the study's last rung.
        threads: Threads of forests and neighbours; None for one.
    """

    kind: Kind = "classification"
    estimators: Annotated[Options[str] | None, words(None, *SUPERVISED, *DETECTORS)] = None
    regularisation: Rates = (1e-3, 1e3)
    depths: Counts = (2, 24)
    leaves: Counts = (1, 32)
    features: Annotated[Floats, Domain("a number > 0 and <= 1", lambda share: 0 < share <= 1)] = (0.1, 1.0)
    learning_rate: Rates = (1e-2, 0.5)
    neighbours: Counts = (1, 32)
    contamination: Annotated[Floats, Domain("a number > 0 and <= 0.5", lambda share: 0 < share <= 0.5)] = (1e-3, 0.2)
    trees_per_epoch: Count = 8
    rounds_per_epoch: Count = 8
    iterations_per_epoch: Count = 20
    full_epochs: Count = 27
    threads: Caps = None
    name: str = "classical"

    #: An epoch is trees, rounds or a share of the data, however many examples there are.
    epochs_are_passes: ClassVar[bool] = False

    def sample(self, trial: Suggest) -> Candidate:
        """Draw an estimator and its settings."""
        estimator = suggest_categorical(trial, "estimator", serving(self.kind) if self.estimators is None else self.estimators)
        architecture = {"family": self.name, "estimator": estimator, **self._settings(trial, estimator)}
        return Candidate(architecture, Recipe(threads=suggest_categorical(trial, "threads", self.threads)))

    def defaults(self) -> Mapping[str, Any]:
        """Return boosting on histograms at scikit-learn's defaults; where that does not serve, a random or an isolation forest.

        Depths without a limit are the largest of the ranges, and so many rounds as the epochs are. Those of the other estimators are there
        as well, for studies that begin with them.
        """
        return {
            "estimator": "gradient_boosting" if self.kind not in ("multilabel", "anomaly") else _ORDINARY[self.kind],
            "linear.regularisation": 1.0,
            "k_neighbours.weighting": "distance",
            "k_neighbours.neighbours": 10,
            "decision_tree.max_depth": 8,
            "decision_tree.min_leaf": 8,
            "extra_trees.max_depth": 2**31,
            "extra_trees.min_leaf": 1,
            "extra_trees.features": 0.3,
            "gradient_boosting.learning_rate": 0.1,
            "gradient_boosting.max_depth": 2**31,
            "gradient_boosting.min_leaf": 20,
            "random_forest.max_depth": 2**31,
            "random_forest.min_leaf": 1,
            "random_forest.features": 0.3,
            "isolation_forest.contamination": 0.1,
            "isolation_forest.features": 1.0,
            "local_outlier_factor.contamination": 0.1,
            "local_outlier_factor.neighbours": 20,
            "one_class_svm.contamination": 0.1,
            "one_class_svm.gamma": 0.1,
        }

    def starts(self) -> tuple[Mapping[str, Any], ...]:
        """Return the ordinary choice of each estimator, the default one first: what is fitted on a share of the data on all of it."""
        named = serving(self.kind) if self.estimators is None else self.estimators
        known, default = self.defaults(), self.defaults()["estimator"]
        order = sorted((named,) if isinstance(named, str) else named, key=lambda name: name != default)
        grown = (*_GROWING, _LINEAR)
        return tuple({**known, "estimator": name, "epochs": STARTED_AT if name in grown else self.full_epochs} for name in order)

    def build(self, candidate: Candidate, task: Task) -> FidelityEstimator:
        """Build the unfitted estimator; its ``fit_epochs`` takes the seed. One that cannot serve this kind of task raises ValueError."""
        settings = {key: value for key, value in candidate.architecture.items() if key not in ("family", "estimator")}
        name = candidate.architecture["estimator"]
        sklearn = make_sklearn(name, task.kind, settings, threads=candidate.recipe.threads)
        per_epoch = {"iterations": self.iterations_per_epoch, "rounds": self.rounds_per_epoch, "trees": self.trees_per_epoch}
        return FidelityEstimator(sklearn, name=name, per_epoch=per_epoch, full_epochs=self.full_epochs, detector=name in DETECTORS)

    def _settings(self, trial: Suggest, estimator: str) -> dict[str, Any]:
        tree = ("max_depth", "min_leaf")
        names = {
            "linear": ("regularisation",),
            "decision_tree": tree,
            "random_forest": (*tree, "features"),
            "extra_trees": (*tree, "features"),
            "gradient_boosting": ("learning_rate", *tree),
            "k_neighbours": ("neighbours", "weighting"),
            "isolation_forest": ("contamination", "features"),
            "local_outlier_factor": ("contamination", "neighbours"),
            "one_class_svm": ("contamination", "gamma"),
        }
        integers = {"max_depth": self.depths, "min_leaf": self.leaves, "neighbours": self.neighbours}
        reals = {
            "regularisation": self.regularisation,
            "features": self.features,
            "learning_rate": self.learning_rate,
            "contamination": self.contamination,
            "gamma": (1e-3, 10.0),
        }
        drawn: dict[str, Any] = {}
        for name in names[estimator]:
            full = f"{estimator}.{name}"
            if name in integers:
                drawn[name] = suggest_int(trial, full, integers[name], log=True)
            elif name in reals:
                drawn[name] = suggest_float(trial, full, reals[name], log=name != "features")
            else:  # one neighbour decides alone, whatever its weight
                drawn[name] = suggest_categorical(trial, full, ("uniform", "distance")) if drawn["neighbours"] > 1 else "uniform"
        return drawn


class FidelityEstimator(Estimator):
    """Epochs as real work: trees, boosting rounds, solver steps, or a share of the data.

    ``name`` is that of the estimator in ``Classical``, ``per_epoch`` the work of one epoch by unit: ``trees``, ``rounds``, ``iterations``.
    All data is used at ``full_epochs``, where the share is the fidelity. A ``detector`` learns from normal examples alone and gives anomaly
    scores. After training ``sklearn`` is the object that is stored and exported.
    """

    def __init__(self, sklearn: Any, *, name: str, per_epoch: Mapping[str, int], full_epochs: int, detector: bool = False) -> None:
        self.sklearn = sklearn
        self.name = name
        self.per_epoch = dict(per_epoch)
        self.full_epochs = full_epochs
        self.detector = detector

    @property
    def grows(self) -> bool:
        """Whether more epochs continue from the fitted object; otherwise each call refits, on the share of ``epochs_to``."""
        return self.name in _GROWING or self.name == _LINEAR

    def fit_epochs(self, X: np.ndarray, y: np.ndarray, epochs_from: int, epochs_to: int, seed: int) -> None:
        """Bring the estimator from ``epochs_from`` epochs of work, 0 when it is untrained, to ``epochs_to``.

        Inputs are ``(n, features)``, targets ``(n,)`` or ``(n, labels)``; a detector leaves out the rows with a 1. The seed is that of the
        trees, and of the order in which the share of the data grows.

        Raises:
            ValueError: If a detector has fewer than two normal examples to learn from.
        """
        if epochs_to <= epochs_from:
            return
        if self.detector:
            normal = np.asarray(y) == 0
            X, y = X[normal], y[normal]
            if len(X) < _FEWEST:
                raise ValueError(f"{self.name} needs at least {_FEWEST} normal examples (target 0) in the training split, got {len(X)}")
        if not self.grows and epochs_from > 0 and thirds(epochs_from, self.full_epochs) == thirds(epochs_to, self.full_epochs):
            return
        if "random_state" in self.sklearn.get_params():
            self.sklearn.set_params(random_state=seed % 2**32)
        if self.name in _GROWING:
            parameter, unit = _GROWING[self.name]
            self.sklearn.set_params(**{parameter: self.per_epoch[unit] * epochs_to})
        elif self.name == _LINEAR:
            steps, classes = self.per_epoch["iterations"] * (epochs_to - epochs_from), len(np.unique(y))
            few = "solver" in self.sklearn.get_params() and X.shape[1] * (classes if classes > 2 else 1) <= _COEFFICIENTS
            by_newton = {"solver": "newton-cholesky", "max_iter": max(1, steps // _NEWTON)}
            self.sklearn.set_params(**by_newton if few else {"max_iter": steps})
        else:
            fewest = max(_FEWEST, getattr(self.sklearn, "n_neighbors", 1) + 1)
            chosen = drawn_rows(len(X), max(ceil(len(X) * (1.0 / thirds(epochs_to, self.full_epochs))), fewest), seed)
            X, y = X[chosen], y[chosen]
        with warnings.catch_warnings():
            # Stopping before convergence is the fidelity here, not a mistake; Newton's method goes on by L-BFGS where it warns of a matrix.
            for category in (UserWarning, RuntimeWarning):
                warnings.filterwarnings("ignore", category=category, module="sklearn")
            self.sklearn.fit(X, None if self.detector else y)


def make_sklearn(name: str, kind: str, settings: Mapping[str, Any], *, threads: int | None = None) -> Any:
    """Return the unfitted scikit-learn object for a name and the settings that ``Classical.sample`` drew.

    Raises:
        ValueError: If the estimator cannot serve this kind of task.
    """
    from sklearn import ensemble, linear_model, neighbors, svm, tree

    if (name in DETECTORS and kind != "anomaly") or (name in SINGLE and kind == "multilabel"):
        raise ValueError(f"{name} cannot serve a task of kind {kind!r}; leave it out of classical.estimators")
    regression = kind == "regression"
    if name == _LINEAR:
        if regression:
            return linear_model.ElasticNet(alpha=1e-3 / settings["regularisation"], warm_start=True)
        return linear_model.LogisticRegression(C=settings["regularisation"], warm_start=True)
    if name == "one_class_svm":
        return svm.OneClassSVM(nu=settings["contamination"], gamma=settings["gamma"])
    kinds = {
        "decision_tree": (tree.DecisionTreeClassifier, tree.DecisionTreeRegressor),
        "random_forest": (ensemble.RandomForestClassifier, ensemble.RandomForestRegressor),
        "extra_trees": (ensemble.ExtraTreesClassifier, ensemble.ExtraTreesRegressor),
        "gradient_boosting": (ensemble.HistGradientBoostingClassifier, ensemble.HistGradientBoostingRegressor),
        "k_neighbours": (neighbors.KNeighborsClassifier, neighbors.KNeighborsRegressor),
        "isolation_forest": (ensemble.IsolationForest,),
        "local_outlier_factor": (neighbors.LocalOutlierFactor,),
    }
    options = {_THEIRS.get(key, key): value for key, value in settings.items()}
    if name in _GROWING:
        options["warm_start"] = True
    if name == "gradient_boosting":
        options["early_stopping"] = False
    elif name != "decision_tree":
        options["n_jobs"] = threads
    if name == "local_outlier_factor":
        options["novelty"] = True
    return kinds[name][1 if regression else 0](**options)
