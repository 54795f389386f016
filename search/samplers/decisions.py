"""The facts of a decision: the rules of the search, where the study stands, what could be trained, what is trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .ehvi import Boxes, hypervolume
from .encoding import Array
from .observations import Table


@dataclass(frozen=True)
class Rules:
    """How a study is searched.

    Attributes:
        rungs: Ascending epochs at which models are measured.
        resume: Whether a checkpoint can go on: climb to the next rung; else train straight to the chosen one.
        complete_only: Whether only trainings to the last rung count.
        floor: Quality (user's direction) from which a model is of use; None estimates it.
        minimized: Whether each objective is minimised.
        per_joule: Exponent of the energy by which a gain is divided; 0 ignores energy.
        least_cost: What a training costs at least, as a share of a median complete one: it keeps tiny gains for nearly nothing from
            winning for ever.
        startup: Configurations drawn at random at the lowest rung before models are trusted.
        ladders: Trainings to the last rung that follow them.
        fresh: Fresh configurations scored per decision.
        refined: Variations of the best of them scored after that, twice.
    """

    rungs: tuple[int, ...]
    resume: bool
    minimized: tuple[bool, ...]
    complete_only: bool = False
    floor: float | None = None
    per_joule: float = 1.0
    least_cost: float = 0.05
    startup: int = 8
    ladders: int = 1
    fresh: int = 400
    refined: int = 96
    estimate_floor: bool = True
    look_ahead: bool = True


@dataclass(frozen=True)
class Decision:
    """One training.

    Attributes:
        params: Parameters of the configuration, without the epochs.
        key: Its canonical text.
        epochs: Epochs from scratch that it will have had.
        parent: Number of the trial whose checkpoint is continued, or None.
        gain: Expected hypervolume gain of the plan it starts, as axes' units; None while there is no model.
        cost: Energy that the plan will still pay, in the user's unit; None while there is no model.
        pays: Energy that this training itself will pay; None while there is no model.
    """

    params: Mapping[str, Any]
    key: str
    epochs: int
    parent: int | None
    gain: float | None = None
    cost: float | None = None
    pays: float | None = None


@dataclass(frozen=True)
class Situation:
    """Where a study stands.

    Attributes:
        table: Its measurements.
        points: Measured and running points that count, as axes, ``(n, k)``.
        reference: Reference point of the hypervolume, ``(k,)``.
        boxes: What no point dominates.
        typical: Median energy of a complete training, in the user's unit.
    """

    table: Table
    points: Array
    reference: Array
    boxes: Boxes
    typical: float

    @property
    def hypervolume(self) -> float:
        """Volume that the points dominate, energy by its logarithm."""
        return hypervolume(self.points, self.reference)


@dataclass(frozen=True)
class Options:
    """Trainings to choose from, a row per configuration and a column per rung.

    Attributes:
        genes: ``(n, size)``.
        config: Index of the paused configuration, -1 for a fresh one, ``(n,)``.
        gain: Expected hypervolume gain, ``(n, r)``; -inf where the rung is not above what was trained.
        cost: Energy still to pay, ``(n, r)``.
        pays: Energy of the first step of the plan, ``(n, r)``.
        rate: Gain per energy, ``(n, r)``.
    """

    genes: Array
    config: NDArray[np.int64]
    gain: Array
    cost: Array
    pays: Array
    rate: Array

    @property
    def best(self) -> Array:
        """Best rate of each row."""
        return np.asarray(self.rate.max(1))

    def and_(self, other: Options) -> Options:
        """Return both."""
        return Options(*(np.concatenate([getattr(self, name), getattr(other, name)]) for name in self.__dataclass_fields__))
