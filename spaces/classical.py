"""scikit-learn's families, in competition with networks: epochs are trees, boosting rounds, iterations or a share of the data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..search.space import Candidate, Suggest
from ..search.training.recipe import Recipe
from ..search.training.task import Kind, Task
from .ranges import Floats, Ints, Options, number, one_of, whole

if TYPE_CHECKING:
    from ..search.space import Space
    from .classical_estimator import FidelityEstimator

SUPERVISED = ("linear", "decision_tree", "random_forest", "extra_trees", "gradient_boosting", "k_neighbours")
DETECTORS = ("isolation_forest", "local_outlier_factor", "one_class_svm")
#: Estimators that learn one target at a time.
SINGLE = ("linear", "gradient_boosting")


def serving(kind: Kind) -> tuple[str, ...]:
    """Return the estimators for a kind of task; anomalies with labels can be learnt by the supervised ones, too."""
    if kind == "multilabel":
        return tuple(name for name in SUPERVISED if name not in SINGLE)
    return (*SUPERVISED, *DETECTORS) if kind == "anomaly" else SUPERVISED


@dataclass(frozen=True)
class Classical:
    """Families of scikit-learn for classification, regression and, with ``DETECTORS``, anomaly detection.

    ``linear`` is logistic regression for classes and the elastic net for values. Parameters of one estimator have its name in front,
    e.g. ``random_forest.max_depth``. A pair of numbers is a range, logarithmic except for ``features``. What an epoch is:

    - forests: ``trees_per_epoch`` trees; boosting: ``rounds_per_epoch`` rounds; linear models: ``iterations_per_epoch`` solver steps;
      all three go on from where they were;
    - one tree, neighbours, local outlier factor, one-class SVM: all training data from ``full_epochs`` on, a third from a third of
      it, a ninth from a ninth ...; each step is fitted anew, and all steps together cost at most 1.5 fits on all data.

    Attributes:
        kind: Kind of the task: which estimators can compete when ``estimators`` is None, see ``serving``.
        estimators: Names out of ``SUPERVISED`` and ``DETECTORS``, or None for all that serve the kind.
        regularisation: C of logistic regression; the elastic net's alpha is 0.001 / C.
        depths: Largest depth of a tree.
        leaves: Fewest examples in a leaf.
        features: Share of the features that a split of a forest looks at.
        learning_rate: Shrinkage of boosting.
        neighbours: Number of neighbours.
        contamination: Share of the (normal) training data that a detector leaves outside; ``nu`` of the SVM.
        trees_per_epoch: Trees of a forest in one epoch.
        rounds_per_epoch: Boosting rounds in one epoch.
        iterations_per_epoch: Solver steps of linear models in one epoch.
        full_epochs: Epochs at which all training data is used where the share is the fidelity; best the study's last rung.
        threads: Threads of forests and neighbours; None for one.
        name: Name of the family.
    """

    kind: Kind = "classification"
    estimators: Options[str] | None = None
    regularisation: Floats = (1e-3, 1e3)
    depths: Ints = (2, 24)
    leaves: Ints = (1, 32)
    features: Floats = (0.1, 1.0)
    learning_rate: Floats = (1e-2, 0.5)
    neighbours: Ints = (1, 32)
    contamination: Floats = (1e-3, 0.2)
    trees_per_epoch: int = 8
    rounds_per_epoch: int = 8
    iterations_per_epoch: int = 20
    full_epochs: int = 27
    threads: Options[int | None] = None
    name: str = "classical"

    def sample(self, trial: Suggest) -> Candidate:
        """Draw an estimator and its settings.

        Raises:
            ValueError: If the name of an estimator is unknown.
        """
        estimator = one_of(trial, "estimator", serving(self.kind) if self.estimators is None else self.estimators)
        architecture = {"family": self.name, "estimator": estimator, **self._settings(trial, estimator)}
        return Candidate(architecture, Recipe(threads=one_of(trial, "threads", self.threads)))

    def build(self, candidate: Candidate, task: Task) -> FidelityEstimator:
        """Build the unfitted estimator; its ``fit_epochs`` takes the seed.

        Raises:
            ValueError: If the estimator cannot serve this kind of task.
        """
        from .classical_estimator import FidelityEstimator, make_sklearn

        settings = {key: value for key, value in candidate.architecture.items() if key not in ("family", "estimator")}
        name = candidate.architecture["estimator"]
        sklearn = make_sklearn(name, task.kind, settings, threads=candidate.recipe.threads)
        per_epoch = {"iterations": self.iterations_per_epoch, "rounds": self.rounds_per_epoch, "trees": self.trees_per_epoch}
        return FidelityEstimator(sklearn, name=name, per_epoch=per_epoch, full_epochs=self.full_epochs, detector=name in DETECTORS)

    def key(self, candidate: Candidate) -> str:
        """Return canonical text."""
        return candidate.key

    def _settings(self, trial: Suggest, estimator: str) -> dict[str, Any]:
        """Draw the settings of one estimator, each under the estimator's name."""

        def real(name: str, what: Floats, *, log: bool = False) -> float:
            return number(trial, f"{estimator}.{name}", what, log=log)

        def integer(name: str, what: Ints) -> int:
            return whole(trial, f"{estimator}.{name}", what, log=True)

        if estimator == "linear":
            return {"regularisation": real("regularisation", self.regularisation, log=True)}
        if estimator == "decision_tree":
            return {"max_depth": integer("max_depth", self.depths), "min_leaf": integer("min_leaf", self.leaves)}
        if estimator in ("random_forest", "extra_trees"):
            return {
                "max_depth": integer("max_depth", self.depths),
                "min_leaf": integer("min_leaf", self.leaves),
                "features": real("features", self.features),
            }
        if estimator == "gradient_boosting":
            return {
                "learning_rate": real("learning_rate", self.learning_rate, log=True),
                "max_depth": integer("max_depth", self.depths),
                "min_leaf": integer("min_leaf", self.leaves),
            }
        if estimator == "k_neighbours":
            weighting = one_of(trial, f"{estimator}.weighting", ("uniform", "distance"))
            return {"neighbours": integer("neighbours", self.neighbours), "weighting": weighting}
        if estimator == "isolation_forest":
            return {"contamination": real("contamination", self.contamination, log=True), "features": real("features", self.features)}
        if estimator == "local_outlier_factor":
            return {
                "contamination": real("contamination", self.contamination, log=True),
                "neighbours": integer("neighbours", self.neighbours),
            }
        if estimator == "one_class_svm":
            return {"contamination": real("contamination", self.contamination, log=True), "gamma": real("gamma", (1e-3, 10.0), log=True)}
        raise ValueError(f"classical.estimators must be out of {', '.join((*SUPERVISED, *DETECTORS))}, got {estimator!r}")


if TYPE_CHECKING:
    _: Space = Classical()
