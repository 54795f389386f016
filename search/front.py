"""The Pareto front of a study: which models are worth their energy, and how sure that is.

Nothing here needs torch. The one upward import of the engine is in `Front.plot`: a notebook user asks the front to show itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from math import hypot, isfinite, sqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import front_table, front_text
from .hypervolume import METERED, Axis, hypervolume, make_box
from .picking import FRACTIONS, knee_index, pick, stretch
from .records.bill import Bill
from .records.replicate_summary import Finding, findings
from .records.run_folder import Run
from .records.trial import Trial
from .units import energy_text

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Front:
    """The non-dominated trials among those given.

    A trial can be a member when it is complete, all its values are finite and its training energy is known and above zero: a reading of
    0 J says that the training was too short for the meter, and would otherwise beat every honest one. Of trials with equal values
    the earliest stays.

    Attributes:
        trials: All trials that were considered, in any state.
        objectives: Objective names, quality first.
        directions: ``maximize`` or ``minimize`` of each.
        complete_only: Whether only trials trained to the last rung may be members.
        name: Name of the study.
        quality_floor: Quality that scores 0 in the hypervolume, see `joulefront.search.hypervolume.make_box`; None for 0.
        run: The run that the trials come from, when there is one.
    """

    trials: tuple[Trial, ...]
    objectives: tuple[str, ...]
    directions: tuple[str, ...]
    complete_only: bool = False
    name: str = "front"
    quality_floor: float | None = None
    run: Run | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Refuse directions that are none.

        Raises:
            ValueError: If there is not one direction per objective, or a direction is unknown.
        """
        if len(self.directions) != len(self.objectives) or not self.objectives:
            raise ValueError(f"a front needs one direction per objective, got objectives={self.objectives}, directions={self.directions}")
        wrong = [direction for direction in self.directions if direction not in ("maximize", "minimize")]
        if wrong:
            raise ValueError(f"a direction must be 'maximize' or 'minimize', got {wrong}")

    @classmethod
    def of(cls, run: Run, *, complete_only: bool | None = None) -> Front:
        """Return the front of a run.

        Args:
            run: The run.
            complete_only: Whether only trials trained to the last rung count; None takes what the study asked for.
        """
        study = run.facts.get("study") or {}
        if complete_only is None:
            complete_only = bool(study.get("complete_only", False))
        floor = study.get("min_accuracy")
        return cls(run.trials, run.objectives, run.directions, complete_only, run.name, None if floor is None else float(floor), run)

    # -- members ---------------------------------------------------------------------------------------------------------------------

    @cached_property
    def members(self) -> tuple[Trial, ...]:
        """The trials on the front, cheapest training first."""
        import moocore

        eligible = sorted((trial for trial in self.trials if self.why_not(trial) is None), key=lambda trial: trial.number)
        if not eligible:
            return ()
        upwards = [direction == "maximize" for direction in self.directions]
        keep = moocore.is_nondominated([trial.values for trial in eligible], maximise=upwards, keep_weakly=False)
        found = [trial for trial, kept in zip(eligible, keep, strict=True) if kept]
        return tuple(sorted(found, key=lambda trial: (self.joules(trial), -self.gain(trial), trial.number)))

    def why_not(self, trial: Trial) -> str | None:
        """Say why a trial cannot be on the front whatever the others did; None when it can."""
        if trial.state != "complete":
            return trial.state
        if len(trial.values) != len(self.objectives) or not all(isfinite(value) for value in trial.values):
            return "a value is unknown"
        if trial.train_joules is None or not isfinite(trial.train_joules):
            return "energy unknown"
        if trial.train_joules <= 0 or any(v <= 0 for n, v in zip(self.objectives, trial.values, strict=True) if n in METERED):
            return "energy below the resolution of the meter"
        if self.complete_only and not trial.complete_training:
            return "not trained to the last rung"
        return None

    def __iter__(self) -> Iterator[Trial]:
        return iter(self.members)

    def __len__(self) -> int:
        return len(self.members)

    def __contains__(self, trial: object) -> bool:
        return any(trial is member or trial == member for member in self.members)

    def joules(self, trial: Trial) -> float:
        """Training energy of a trial that can be on the front, in joules."""
        if trial.train_joules is None:
            raise ValueError(f"the training energy of trial {trial.number} is unknown")
        return trial.train_joules

    def gain(self, trial: Trial) -> float:
        """The first objective of a trial, signed so that more is better."""
        return trial.values[0] if self.directions[0] == "maximize" else -trial.values[0]

    def stretched(self, trial: Trial) -> float:
        """The first objective by the ratio of errors where it has any, see `picking.stretch`; more is better."""
        name = self.objectives[0]
        return stretch(name, trial.values[0]) if name in (*FRACTIONS, "error") else self.gain(trial)

    def quality_of(self, trial: Trial, name: str) -> float | None:
        """A quality metric of a trial, whether it is the objective or was measured beside it; None when unknown."""
        return trial.values[0] if name == self.objectives[0] and trial.values else trial.quality.get(name)

    # -- choosing --------------------------------------------------------------------------------------------------------------------

    def knee(self) -> Trial:
        """The member after which more quality costs disproportionately more energy.

        It is the member farthest above the chord from the cheapest to the best one, energy in logarithms and quality by the ratio
        of errors; see `picking.knee_index` and `picking.stretch`. Members under the study's ``min_accuracy`` do not count while others
        are left.
        """
        members = self._some()
        if self.quality_floor is not None and self.directions[0] == "maximize":
            members = tuple(trial for trial in members if trial.values[0] >= self.quality_floor) or members
        return members[knee_index([self.joules(trial) for trial in members], [self.stretched(trial) for trial in members])]

    def best(self) -> Trial:
        """The member with the best quality."""
        return max(self._some(), key=lambda trial: (self.gain(trial), -self.joules(trial)))

    def cheapest(self) -> Trial:
        """The member whose training took the least energy."""
        return min(self._some(), key=lambda trial: (self.joules(trial), -self.gain(trial)))

    def pick(self, rule: str) -> Trial:
        """Return the trial that a rule names: ``knee``, ``best``, ``cheapest``, ``trial=N``, ``accuracy>=0.95`` or ``energy<=5Wh``.

        Raises:
            ValueError: If the rule cannot be read or nothing meets it; the message names the nearest trial that does.
        """
        return pick(self, rule)

    def _some(self) -> tuple[Trial, ...]:
        if not self.members:
            reasons = sorted({reason for trial in self.trials if (reason := self.why_not(trial))})
            raise ValueError(
                f"the front of {self.name!r} is empty: none of its {len(self.trials)} trials is complete with known energy"
                + (f" ({'; '.join(reasons)})" if reasons else "")
                + ("; complete_only leaves out models that were stopped early" if self.complete_only else "; run more trials")
            )
        return self.members

    # -- how good, how sure ----------------------------------------------------------------------------------------------------------

    @cached_property
    def box(self) -> tuple[Axis, ...]:
        """The box of the hypervolume, from the study and its first measured trial; empty before there is one."""
        measured = [trial for trial in self.trials if self.why_not(trial) in (None, "not trained to the last rung")]
        if not measured:
            return ()
        first = min(measured, key=lambda trial: trial.number)
        return make_box(self.objectives, self.directions, first.values, quality_floor=self.quality_floor)

    def hypervolume(self, box: tuple[Axis, ...] | None = None) -> float:
        """Share of the box that the front dominates, 0 to 1; never falls while a run goes on.

        Args:
            box: Another box, to compare fronts of several runs; the run's own by default.
        """
        return hypervolume([trial.values for trial in self.members], self.box if box is None else box)

    def indistinguishable(self) -> tuple[tuple[Trial, Trial], ...]:
        """Pairs of neighbours whose energies differ by less than twice the standard uncertainty of the difference.

        Only the random part counts, in squares over what the two trials do not share: a gain error of the meter moves all trials alike,
        and the energy of a common ancestor is in both. Where it is unknown nothing is claimed.
        """
        pairs = []
        for one, two in pairwise(self.members):
            lineage = {trial.number for trial in self._lineage(two)}
            shared = next((trial for trial in self._lineage(one) if trial.number in lineage), None)
            parts = [_beyond(trial, shared) for trial in (one, two) if trial is not shared]
            known = [u for u in parts if u is not None]
            if known and self.joules(two) - self.joules(one) < 2.0 * hypot(*known):
                pairs.append((one, two))
        return tuple(pairs)

    def _lineage(self, trial: Trial) -> list[Trial]:
        """The trial, its parent, the parent of that and so on."""
        chain = [trial]
        while (parent := self._by_number.get(chain[-1].parent)) is not None:
            chain.append(parent)
        return chain

    @cached_property
    def _by_number(self) -> dict[int | None, Trial]:
        return {trial.number: trial for trial in self.trials}

    @cached_property
    def repeated(self) -> Finding | None:
        """What the repeats of the finalists say (``joulefront repeat``); None when nothing was trained again."""
        if self.run is None or not self.run.repeats:
            return None
        return findings(self.run.repeats, self.trials, self.objectives[0], self.directions[0])

    # -- showing ---------------------------------------------------------------------------------------------------------------------

    def describe(self, trial: Trial) -> str:
        """One line: quality, energy, epochs.

        >>> trial = Trial(3, "complete", {}, 9, values=(0.9, 3600.0), train_joules=3600.0)
        >>> Front((trial,), ("accuracy", "train_energy"), ("maximize", "minimize")).describe(trial)
        'accuracy 0.9000, 1 Wh, 9 epochs'
        """
        quality = f"{self.objectives[0]} {trial.values[0]:.4f}, " if trial.values else ""
        energy = energy_text(trial.train_wh)
        return f"{quality}{energy}, {trial.epochs} epoch{'' if trial.epochs == 1 else 's'}"

    def to_rows(self) -> list[dict[str, Any]]:
        """One JSON object a member, with the stable keys of `joulefront.search.front_table.KEYS`; None where unknown."""
        return front_table.to_rows(self)

    def to_csv(self) -> str:
        """The rows as CSV with a header; ``params`` is one column of JSON, unknown is empty."""
        return front_table.to_csv(self)

    def to_frame(self) -> pd.DataFrame:
        """The rows as a data frame; parameters become columns ``params_NAME``, as in Optuna's own."""
        return front_table.to_frame(self)

    def to_text(self, *, width: int | None = None) -> str:
        """The front as a table for people."""
        return front_text.to_text(self, width=width)

    def plot(self, path: str | Path | None = None) -> Any:
        """Draw the front: an interactive plotly figure, or a file when a path ending in .html, .png or .svg is given."""
        from .report.plots import front_plotly, save_front

        return front_plotly(self) if path is None else save_front(self, path)

    def as_run(self) -> Run:
        """The run that the front belongs to, or one made of its trials alone."""
        return self.run or Run(self.name, Path(), self.objectives, self.directions, (), self.trials, Bill())

    def __repr__(self) -> str:
        if not self.members:
            return f"<Front of {self.name!r}: empty, {len(self.trials)} trials>"
        ends = [f"{trial.values[0]:.4f} at {energy_text(trial.train_wh)}" for trial in (self.cheapest(), self.best())]
        return (
            f"<Front of {self.name!r}: {len(self)} of {len(self.trials)} trials, {self.objectives[0]} {' to '.join(ends)}, "
            f"hypervolume {self.hypervolume():.3f}>"
        )

    def _repr_html_(self) -> str:
        return front_text.to_html(self)


def _beyond(trial: Trial, ancestor: Trial | None) -> float | None:
    """Random standard uncertainty of what a trial cost beyond its ancestor: their squares add up along a lineage."""
    if trial.train_u_joules is None or ancestor is None:
        return trial.train_u_joules
    return sqrt(max(0.0, trial.train_u_joules**2 - (ancestor.train_u_joules or 0.0) ** 2))
