"""What a decision weighs: the settings and state of a search, what is proposed and scored, and what is chosen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .ehvi import Boxes, dominated_volume
from .encoding import Array, Encoding, ObservationTable
from .history import Belief


@dataclass(frozen=True)
class SearchSettings:
    """How a study is searched; see ``FreezeThawSampler`` for the settings that it has as well.

    ``quality_floor`` is its ``min_accuracy``. ``cost_floor`` is added to every training, as a share of the cost of a median complete one:
    without it, negligible gains at negligible cost win forever. A decision scores so many ``fresh`` configurations, and so many ``refined``
    variations of the best in each of two further rounds.
    """

    rungs: tuple[int, ...]
    resume: bool
    minimized: tuple[bool, ...]
    complete_only: bool = False
    quality_floor: float | None = None
    per_joule: float = 1.0
    cost_floor: float = 0.05
    startup: int = 8
    ladders: int = 0
    hedge: float = 0.1
    calibrate: bool = True
    fresh: int = 240
    refined: int = 64
    estimate_floor: bool = True
    look_ahead: bool = True


@dataclass(frozen=True)
class SearchState:
    """The measurements of a study and the hypervolume that they span.

    ``points`` are the measured and running ones that count, as objectives to be maximised, ``(n, k)``; the reference point is ``(k,)``, and
    ``boxes`` partition the region that no point dominates. ``median_cost`` is that of complete trainings, in the user's unit.
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

    ``config`` is the index of the measured configuration in the table, -1 for a fresh one, ``(n,)``; ``genes`` are ``(n, size)``. ``gain``
    is the expected hypervolume improvement (EHVI), -inf where the training is not possible, ``cost`` the energy still to pay, ``step_cost``
    that of the first training of the plan, and ``rate`` the gain per energy, the acquisition value; all ``(n, r)``.
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
    resumed. Gain and cost, in the user's unit, are those of the plan that it starts; ``step_cost`` is that of this training alone, and
    ``belief`` the quality that it is expected to have. They are None during the initial design, and without a model. ``arm`` is what has
    proposed it, see `hedge`.
    """

    params: Mapping[str, Any]
    key: str
    epochs: int
    parent: int | None
    gain: float | None = None
    cost: float | None = None
    step_cost: float | None = None
    belief: Belief | None = None
    arm: str | None = None


#: Scores ``(n, size)`` genes, which become candidates for the next training; returns the acquisition value of each, ``(n,)``.
Score = Callable[[Array], Array]

#: So many of the best configurations are refined.
_REFINED = 8


@dataclass(frozen=True)
class ProposalContext:
    """What a proposal may use.

    Attributes:
        parents: Genes of good configurations, ``(m, size)``.
        fresh: Configurations to score at first; of the best, ``refined`` variations are scored in each of two further rounds.
        measured: Genes of all measured configurations, ``(c, size)``.
        regret: Quality that each of them lacks against the best that was not more expensive, ``(c,)``; 0 on the front.
        known: Whether a row of genes is a configuration that was measured, is running or failed; isomorphic ones included.
    """

    encoding: Encoding
    parents: Array
    fresh: int
    refined: int
    measured: Array = field(default_factory=lambda: np.zeros((0, 0)))
    regret: Array = field(default_factory=lambda: np.zeros(0))
    known: Callable[[Array], bool] = lambda genes: False


class Proposal(Protocol):
    """The seam for generators of fresh configurations."""

    def explore(self, context: ProposalContext, score: Score, rng: np.random.Generator) -> None:
        """Score configurations, about ``context.fresh + 2 * context.refined`` of them; any of them may be trained next.

        A proposal must not keep state between calls: then equal seeds give equal proposals, whichever worker decides.
        """


@dataclass(frozen=True)
class UniformEdits:
    """The default: mutations of good configurations with uniform choice of the parameter, and two rounds of refining the best."""

    def explore(self, context: ProposalContext, score: Score, rng: np.random.Generator) -> None:
        """Score random configurations and mutants, then mutants of the best."""
        genes = propose(context.encoding, context.parents, rng, context.fresh)
        rates = score(genes)
        for _ in range(2 if context.refined and context.encoding.size else 0):
            top = genes[np.argsort(-rates, kind="stable")[:_REFINED]]
            near = mutate(context.encoding, np.repeat(top, context.refined // _REFINED, 0), rng, widths=(0.02, 0.1), changes=2.0)
            genes, rates = np.vstack([genes, near]), np.r_[rates, score(near)]


#: The default proposal.
UNIFORM = UniformEdits()


def propose(encoding: Encoding, parents: Array, rng: np.random.Generator, count: int) -> Array:
    """Draw ``count`` configurations: 40 % uniformly, 45 % mutants of the parents, 15 % mutated children of two of them.

    Without parents ``(m, size)`` everything is drawn uniformly.
    """
    if not len(parents) or not encoding.size:
        return encoding.random(rng, count)
    uniform, children = round(0.4 * count), round(0.15 * count)
    mutants = mutate(encoding, parents[rng.integers(len(parents), size=count - uniform - children)], rng)
    crossed = cross(encoding, parents, rng, children)
    return np.vstack([encoding.random(rng, uniform), mutants, mutate(encoding, crossed, rng)])


def cross(encoding: Encoding, parents: Array, rng: np.random.Generator, count: int) -> Array:
    """Draw ``count`` children, every gene from one of two parents; not settled."""
    mothers, fathers = (parents[rng.integers(len(parents), size=count)] for _ in range(2))
    return np.where(rng.random(mothers.shape) < 0.5, encoding.fill(mothers, rng), encoding.fill(fathers, rng))


def mutate(
    encoding: Encoding, genes: Array, rng: np.random.Generator, *, widths: tuple[float, ...] = (0.05, 0.2), changes: float = 1.5
) -> Array:
    """Change a few genes of every row of ``(n, size)``, at least one and ``changes`` in the mean.

    ``widths`` are standard deviations of the steps of ordered parameters, as shares of their range; rows draw one of them.
    """
    genes = encoding.fill(genes, rng)
    n, size = genes.shape
    change = rng.random((n, size)) < min(1.0, changes / size)
    change[np.arange(n), rng.integers(size, size=n)] |= ~change.any(1)
    step = rng.normal(size=(n, size)) * rng.choice(widths, size=(n, 1))
    moved = np.clip(genes + step, 0.0, 1.0)
    choices = encoding.choices()
    categorical = choices > 0
    if categorical.any():
        shift = 1 + np.floor(rng.random((n, int(categorical.sum()))) * (choices[categorical] - 1))  # another choice than the present one
        moved[:, categorical] = (genes[:, categorical] + shift) % choices[categorical]
    return encoding.settle(np.where(change, moved, genes))
