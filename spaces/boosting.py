"""Gradient boosting by the libraries that tables are won with: LightGBM, and XGBoost and CatBoost where they are installed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from ..search.space import Candidate, Suggest
from ..search.training.boosted import NAMES, BoostedEstimator, installed
from ..search.training.recipe import Recipe
from ..search.training.task import Kind, Task
from .recipes import Bounded, Caps, Counts, Domain, Floats, Ints, Options, Range, suggest_categorical, suggest_float, suggest_int, words

#: The libraries' own defaults, by our names; the rounds are the epochs.
DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "lightgbm": {"shrinkage": 0.1, "leaves": 31, "min_leaf": 20, "features": 1.0, "l2": 0.0},
    "xgboost": {"shrinkage": 0.3, "depth": 6, "min_leaf": 1, "features": 1.0, "l2": 1.0},
    "catboost": {"shrinkage": 0.1, "depth": 6, "l2": 3.0},
}
#: Few leaves for noisy tables, many for large ones; both look at a part of the features. Chosen on the four tables ``DEVELOPED`` of
#: tests/benchmarks/tables.py by validation: one of the two was above the library's defaults on each.
PORTFOLIO: Mapping[str, tuple[Mapping[str, Any], ...]] = {
    "lightgbm": (
        {"shrinkage": 0.1, "leaves": 4, "min_leaf": 20, "features": 0.7, "l2": 1.0},
        {"shrinkage": 0.05, "leaves": 64, "min_leaf": 10, "features": 0.7, "l2": 1.0},
    ),
    "xgboost": (
        {"shrinkage": 0.05, "depth": 4, "min_leaf": 5, "features": 0.7, "l2": 1.0},
        {"shrinkage": 0.1, "depth": 8, "min_leaf": 5, "features": 0.7, "l2": 3.0},
    ),
    "catboost": (),
}
#: Fewer rounds are given a larger learning rate, up to this one, which is XGBoost's own.
FASTEST = 0.3


@dataclass(frozen=True)
class Boosting(Bounded):
    """One library of gradient boosting, as a family of its own; an epoch is ``rounds_per_epoch`` rounds, of which a lineage adds more.

    A pair of numbers is a range, logarithmic except for ``features``.

    Attributes:
        library: ``lightgbm``, ``xgboost`` or ``catboost``; also the name of the family.
        shrinkage: The learning rate of boosting; in a union the networks' has that name.
        leaves: Most leaves of a tree (LightGBM); ``depth`` is the most splits on the way to one (the others).
        min_leaf: Fewest examples in a leaf.
        features: Share of the features that a tree looks at.
        rows: Share of the training rows that is learnt from: a fidelity where there are many.
        balanced: Whether each class weighs alike, however many examples it has.
        patience: Epochs without a lower validation loss after which a training ends; None trains to the end.
        threads: Threads of training and prediction; None for one.
    """

    library: Annotated[str, words(*NAMES)] = "lightgbm"
    shrinkage: Annotated[Floats, Domain("a number > 0 and <= 1", lambda rate: 0 < rate <= 1)] = (0.02, 0.4)
    leaves: Annotated[Ints, Domain("a whole number >= 2", lambda n: 2 <= n == n // 1)] = (4, 128)
    depth: Counts = (2, 10)
    min_leaf: Counts = (1, 100)
    features: Annotated[Floats, Domain("a number > 0 and <= 1", lambda share: 0 < share <= 1)] = (0.3, 1.0)
    l2: Annotated[Floats, Domain("a number >= 0", lambda penalty: penalty >= 0)] = (1e-3, 30.0)
    rows: Annotated[Options[float], Domain("a number > 0 and <= 1", lambda share: 0 < share <= 1, choices=True)] = 1.0
    balanced: Options[bool] = False
    rounds_per_epoch: Annotated[int, Domain("a whole number >= 1", lambda n: 1 <= n == n // 1, choices=True)] = 12
    patience: Annotated[int | None, Domain("a whole number >= 1 or None", lambda n: n is None or 1 <= n == n // 1, choices=True)] = 4
    threads: Caps = None

    #: An epoch is a number of rounds, however many examples there are.
    epochs_are_passes: ClassVar[bool] = False
    #: Epochs in which the ordinary choice has about the libraries' own hundred rounds.
    default_epochs: ClassVar[int] = 9

    @property
    def name(self) -> str:
        """The library."""
        return self.library

    def sample(self, trial: Suggest) -> Candidate:
        """Draw the settings."""
        drawn: dict[str, Any] = {}
        for name in NAMES[self.library]:
            what = getattr(self, name)
            if name in ("leaves", "depth", "min_leaf"):
                drawn[name] = suggest_int(trial, name, what, log=True)
            else:
                drawn[name] = suggest_float(trial, name, what, log=name != "features")
        drawn |= {"rows": suggest_categorical(trial, "rows", self.rows), "balanced": suggest_categorical(trial, "balanced", self.balanced)}
        recipe = Recipe(threads=suggest_categorical(trial, "threads", self.threads), patience=self.patience)
        return Candidate({"family": self.name, **drawn}, recipe)

    def defaults(self) -> Mapping[str, Any]:
        """Return the library's own settings, for about as many rounds as it makes by itself."""
        return {**DEFAULTS[self.library], "rows": 1.0, "balanced": False, "epochs": self.default_epochs}

    def shortened(self, params: Mapping[str, Any], times: float) -> Mapping[str, Any]:
        """Return parameters for so many times fewer rounds, each of which corrects as many times more, up to ``FASTEST`` and the range."""
        ends = (self.shrinkage.low, self.shrinkage.high) if isinstance(self.shrinkage, Range) else self.shrinkage
        if not isinstance(ends, tuple) or len(ends) != 2:  # a number, or choices
            return params
        return {**params, "shrinkage": max(params["shrinkage"], min(FASTEST, ends[1], times * params["shrinkage"]))}

    def build(self, candidate: Candidate, task: Task) -> BoostedEstimator:
        """Build the untrained estimator; its ``fit_epochs`` takes the seed. Multilabel tasks raise ValueError."""
        settings = dict(candidate.architecture)
        return BoostedEstimator(
            self.library,
            {name: settings[name] for name in NAMES[self.library]},
            kind=task.kind,
            classes=task.outputs,
            rounds_per_epoch=self.rounds_per_epoch,
            share=settings["rows"],
            balanced=settings["balanced"],
            threads=candidate.recipe.threads,
        )


def boosting(kind: Kind, **options: Any) -> tuple[Boosting, ...]:
    """Return the families that serve a kind of task and whose library is installed, LightGBM first; see ``Boosting`` for the options."""
    return () if kind == "multilabel" else tuple(Boosting(library=name, **options) for name in NAMES if installed(name))
