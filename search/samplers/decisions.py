"""The facts of a decision: the settings of the search, the state of the study, the scored candidates and the chosen training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .ehvi import Boxes, dominated_volume
from .encoding import Array
from .observations import ObservationTable


@dataclass(frozen=True)
class SearchSettings:
    """How a study is searched.

    See ``FreezeThawSampler`` for the settings that it has as well; ``quality_floor`` is its ``min_accuracy``.

    Attributes:
        minimized: Whether each objective is minimised.
        cost_floor: Cost added to every training, as a share of that of a median complete one: without it, negligible gains at negligible
            cost win forever.
        fresh: Fresh configurations scored per decision.
        refined: Variations of the best of them scored in each of two further rounds.
    """

    rungs: tuple[int, ...]
    resume: bool
    minimized: tuple[bool, ...]
    complete_only: bool = False
    quality_floor: float | None = None
    per_joule: float = 1.0
    cost_floor: float = 0.05
    startup: int = 8
    ladders: int = 1
    fresh: int = 400
    refined: int = 96
    estimate_floor: bool = True
    look_ahead: bool = True


@dataclass(frozen=True)
class SearchState:
    """The measurements of a study and the hypervolume that they span.

    Attributes:
        table: Its measurements.
        points: Measured and running points that count, as objectives to be maximised, ``(n, k)``.
        reference: Reference point of the hypervolume, ``(k,)``.
        boxes: Partition of the region that no point dominates.
        median_cost: Median energy of a complete training, in the user's unit.
    """

    table: ObservationTable
    points: Array
    reference: Array
    boxes: Boxes
    median_cost: float

    @property
    def hypervolume(self) -> float:
        """Volume that the points dominate, costs by their logarithm."""
        return dominated_volume(self.points, self.reference)


@dataclass(frozen=True)
class ScoredCandidates:
    """Trainings to choose from: a row per configuration, a column per rung.

    Attributes:
        genes: Encoded configurations, ``(n, size)``.
        config: Index of the measured configuration in the table, -1 for a fresh one, ``(n,)``.
        gain: Expected hypervolume improvement (EHVI), ``(n, r)``; -inf where the training is not possible.
        cost: Energy still to pay, ``(n, r)``.
        step_cost: Energy of the first training of the plan, ``(n, r)``.
        rate: Gain per energy, ``(n, r)``: the acquisition value.
    """

    genes: Array
    config: NDArray[np.int64]
    gain: Array
    cost: Array
    step_cost: Array
    rate: Array

    @property
    def best(self) -> Array:
        """Best rate of each row, ``(n,)``."""
        return np.asarray(self.rate.max(1))

    def concatenate(self, other: ScoredCandidates) -> ScoredCandidates:
        """Return the rows of both."""
        return ScoredCandidates(*(np.concatenate([getattr(self, f.name), getattr(other, f.name)]) for f in fields(self)))


@dataclass(frozen=True)
class Decision:
    """The training to run next.

    ``params`` leave out the epochs; ``epochs`` are the total that it will have been trained for, ``parent`` the trial whose checkpoint is
    resumed. Gain and cost, in the user's unit, are those of the plan that it starts; ``step_cost`` is that of this training alone. They are
    None during the initial design.
    """

    params: Mapping[str, Any]
    key: str
    epochs: int
    parent: int | None
    gain: float | None = None
    cost: float | None = None
    step_cost: float | None = None
