"""The Pareto front of a study: its members, the knee, a model picked by a rule, and which members the meter cannot tell apart.

Nothing here needs torch, draws or prints; `joulefront.search.report.front_view.FrontView` adds tables and pictures.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from math import ceil, floor, hypot, isfinite, log10
from typing import Self

from .argument_types import refuse_wrong_types
from .certainty import Choice, Evidence, Standing, choose, decimals_of, examples_in, folds_in
from .formatting import count_text, joules_text, plain, read_amount, read_number, unit_for
from .pareto import FRACTIONS, LESS_IS_BETTER, METERED, Axis, knee_index, make_box, normalised_hypervolume, stretch
from .records.examples import SHARES, Examples, examples_of
from .records.replicates import ReplicateComparison, compare_replicates
from .records.run_folder import Run
from .records.trial import Trial

RULES = "sensible, knee, best, cheapest, trial=N, accuracy>=0.95 (cheapest that reaches it), energy<=5Wh (most accurate within it)"

_RULE = re.compile(r"\s*([A-Za-z_][A-Za-z0-9_]*)\s*(=|>=|<=|≥|≤)\s*(\S.*?)\s*", re.DOTALL)
_SIGNS = {"≥": ">=", "≤": "<="}


@dataclass(frozen=True)
class Bound:
    """What a rule asks of one quantity.

    Attributes:
        name: ``trial``, ``energy`` or the name of a quality.
        sign: ``=``, ``>=`` or ``<=``.
        value: The number of a trial, joules, or the value of the quality.
        text: The bound as it was written.
        percent: Whether a share was written in percent.
    """

    name: str
    sign: str
    value: float
    text: str
    percent: bool = False

    def rounded_up(self, joules: float) -> str:
        """Write an energy with three digits, rounded up so that the bound lets it through.

        >>> Bound("energy", "<=", 1.0, "1J").rounded_up(12.3456)
        '3.43mWh'
        """
        unit = unit_for([joules])
        value = unit.of(joules)
        step = 10.0 ** (floor(log10(value)) - 2)
        return f"{plain(ceil(value / step) * step)}{unit.name}"


def read_rule(rule: str) -> Bound:
    """Read ``trial=12``, ``energy<=0.05 mWh``, ``accuracy>=0.95`` or ``accuracy>=95%``.

    Raises:
        ValueError: If it is none of these; the message names the remedy.
    """
    match = _RULE.fullmatch(rule)
    if match is None:
        raise ValueError(f"--pick must be a rule, got {rule!r}; write one of {RULES}")
    name, sign, text = match[1], _SIGNS.get(match[2], match[2]), match[3]
    if name == "trial":
        if sign != "=" or not re.fullmatch("[0-9]+", text):
            raise ValueError(f"--pick {rule!r}: a trial is named by its number, for example trial=12")
        return Bound(name, sign, int(text), text)
    if name == "energy":
        amount = read_amount(text, f"--pick {rule!r}: the energy", "energy<=5Wh", kinds=("joules",))
        if sign != "<=":
            raise ValueError(f"--pick {rule!r}: energy is bounded from above; write energy<={text}")
        return Bound(name, sign, amount.value, text)
    value = read_number(text.removesuffix("%"))
    if value is None:
        raise ValueError(f"--pick {rule!r}: the bound must be a number, got {text!r}; write one of {RULES}")
    return Bound(name, sign, value / 100 if text.endswith("%") else value, text, text.endswith("%"))


@dataclass(frozen=True)
class Front:
    """The non-dominated trials among those given.

    A trial can be a member when it is complete, all its values are finite and its training energy is known and above zero: a reading of
    0 J means that the training was too short for the meter, and would dominate every measured one. Of trials with equal values
    the earliest stays.

    Attributes:
        trials: All trials that were considered, in any state.
        objectives: Objective names, quality first.
        directions: ``maximize`` or ``minimize`` of each.
        complete_only: Whether only trials trained to the last rung may be members.
        name: Name of the study.
        quality_floor: Quality that scores 0 in the hypervolume, see `joulefront.search.pareto.make_box`; None for 0.
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
        """Refuse, with a ValueError, anything but one known direction per objective."""
        if len(self.directions) != len(self.objectives) or not self.objectives:
            raise ValueError(f"a front needs one direction per objective, got objectives={self.objectives}, directions={self.directions}")
        if wrong := [direction for direction in self.directions if direction not in ("maximize", "minimize")]:
            raise ValueError(f"a direction must be 'maximize' or 'minimize', got {wrong}")

    @classmethod
    def of(cls, run: Run, *, complete_only: bool | None = None) -> Self:
        """Return the front of a run, of complete trainings alone or of all (None: the study's own setting), on one kind of hardware."""
        refuse_wrong_types(Front.of, {"run": run})
        run, study = run.comparable(), run.facts.get("study") or {}
        only = bool(study.get("complete_only", False)) if complete_only is None else complete_only
        floor = study.get("min_accuracy")
        return cls(run.trials, run.objectives, run.directions, only, run.name, None if floor is None else float(floor), run)

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
        """Return why a trial cannot be on the front whatever the others did; None when it can."""
        if not isinstance(trial, Trial):  # first: it is asked of every trial, and often
            refuse_wrong_types(Front.why_not, {"trial": trial})
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
        """The first objective by the ratio of errors where it has any, see `stretch`; more is better."""
        name = self.objectives[0]
        return stretch(name, trial.values[0]) if name in (*FRACTIONS, "error") else self.gain(trial)

    def quality_of(self, trial: Trial, name: str) -> float | None:
        """A quality metric of a trial, whether it is the objective or was measured beside it; None when unknown."""
        return trial.values[0] if name == self.objectives[0] and trial.values else trial.quality.get(name)

    # -- choosing --------------------------------------------------------------------------------------------------------------------

    def knee(self) -> Trial:
        """The member after which more quality costs disproportionately more energy.

        It is the member farthest above the chord from the cheapest to the best one, energy in logarithms and quality by the ratio of
        errors; see `knee_index` and `stretch`. Members under the study's ``min_accuracy`` do not count while others are left.
        """
        members = self._some()
        if self.quality_floor is not None and self.directions[0] == "maximize":
            members = tuple(trial for trial in members if trial.values[0] >= self.quality_floor) or members
        return members[knee_index([self.joules(trial) for trial in members], [self.stretched(trial) for trial in members])]

    def best(self) -> Trial:
        """The member with the best quality; with repeats, by their means, see `choice`."""
        return self._by_number[self.choice.best]

    def cheapest(self) -> Trial:
        """The cheapest member that is better than guessing; the cheapest of all where none is, or that is unknown."""
        return self._by_number[self.choice.cheapest]

    def sensible(self) -> Trial:
        """The cheapest member that cannot be told from the best one: what is recommended, see `choice`."""
        return self._by_number[self.choice.pick]

    @cached_property
    def choice(self) -> Choice:
        """Which member to take and why, with the interval of every member.

        Raises:
            ValueError: If the front is empty.
        """
        return choose(self._some(), self.evidence, self.quality_floor if self.directions[0] == "maximize" else None)

    def standing(self, trial: Trial) -> Standing:
        """How surely the quality of a complete trial is known, of a member or of another one; the front may be empty."""
        rivals = self.members or [one for one in self.trials if one.values and isfinite(one.values[0])] or [trial]
        known = self.choice.standings.get(trial.number) if self.members else None
        return known or self.evidence.standing(trial, max(rivals, key=self.gain))

    @cached_property
    def evidence(self) -> Evidence:
        """What is known of the validation of the run: how many examples, their results by trial, what guessing gives, repeats."""
        facts, maximise = {} if self.run is None else self.run.facts, self.directions[0] == "maximize"
        guessing = (facts.get("guessing") or {}).get(self.objectives[0])
        return Evidence(self.objectives[0], maximise, examples_in(facts), guessing, self._results, self.repeated, folds_in(facts))

    def _results(self, trial: Trial) -> Examples | None:
        return None if self.run is None else Examples.load(examples_of(self.run.path, trial.extra.get("copy_of", trial.number)))

    @cached_property
    def baseline(self) -> Trial | None:
        """The default model that was trained with the first trials, when there is one and it is complete."""
        return next((trial for trial in self.trials if trial.is_default and trial.values), None)

    def pick(self, rule: str) -> Trial:
        """Return the trial that a rule names, see ``RULES``.

        ``trial=N`` may name any complete trial of the run, the other rules choose among the members.

        Raises:
            ValueError: If the rule cannot be read or nothing meets it; the message names the nearest trial that does.
        """
        refuse_wrong_types(Front.pick, {"rule": rule}, rule="write 'trial=3', or 'knee'")
        simple = {"sensible": self.sensible, "knee": self.knee, "best": self.best, "cheapest": self.cheapest}
        if rule.strip() in simple:
            return simple[rule.strip()]()
        bound = read_rule(rule)
        if bound.name == "trial":
            return _trial(self, rule, int(bound.value))
        return _by_energy(self, rule, bound) if bound.name == "energy" else _by_quality(self, rule, bound)

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
        """Share of the box that the front dominates, 0 to 1. Another box compares fronts of several runs.

        It never decreases during a run, unless a trial ends after later ones (several workers) and is the first measured one then.
        """
        return normalised_hypervolume([trial.values for trial in self.members], self.box if box is None else box)

    def alike(self, one: Trial, two: Trial) -> bool:
        """Whether two energies differ by less than twice the standard uncertainty of the difference; no where that is unknown.

        Only the random part counts, in squares over what the two trials do not share: a gain error of the meter shifts all trials alike,
        and the energy of a common ancestor is in both.
        """
        lineage = {trial.number for trial in self.lineage(two)}
        shared = next((trial for trial in self.lineage(one) if trial.number in lineage), None)
        parts = [trial.u_joules_beyond(shared) for trial in (one, two) if trial is not shared]
        known = [u for u in parts if u is not None]
        return bool(known) and abs(self.joules(two) - self.joules(one)) < 2.0 * hypot(*known)

    def lineage(self, trial: Trial) -> list[Trial]:
        """The trial, its parent, the parent of that and so on."""
        refuse_wrong_types(Front.lineage, {"trial": trial})
        chain = [trial]
        while (parent := self._by_number.get(chain[-1].parent)) is not None:
            chain.append(parent)
        return chain

    @cached_property
    def _by_number(self) -> dict[int | None, Trial]:
        return {trial.number: trial for trial in self.trials}

    @cached_property
    def repeated(self) -> ReplicateComparison | None:
        """The finalists that were trained again (``joulefront repeat``) compared with the search; None without any."""
        if self.run is None or not self.run.repeats:
            return None
        return compare_replicates(self.run.repeats, self.trials, self.objectives[0], self.directions[0])

    # -- in one line ------------------------------------------------------------------------------------------------------------------

    def describe(self, trial: Trial) -> str:
        """One line: quality, energy, epochs.

        >>> from joulefront.search.records.trial import TrialEnergy
        >>> trial = Trial(3, "complete", {}, 9, values=(0.9, 3600.0), energy=TrialEnergy(train_joules=3600.0))
        >>> Front((trial,), ("accuracy", "train_energy"), ("maximize", "minimize")).describe(trial)
        'accuracy 0.9000, 1 Wh, 9 epochs'
        """
        refuse_wrong_types(Front.describe, {"trial": trial})
        quality = f"{self.objectives[0]} {self.quality_text(trial.values[0])}, " if trial.values else ""
        return f"{quality}{joules_text(trial.train_joules)}, {count_text(trial.epochs, 'epoch')}"

    def quality_text(self, value: float) -> str:
        """A quality with as many decimals as one validation example, or its standard error, can change."""
        return f"{value:.{self.decimals}f}"

    @cached_property
    def decimals(self) -> int:
        """How many decimals of the quality mean anything; 4 while that is unknown."""
        evidence = self.evidence
        if evidence.examples and self.objectives[0] not in SHARES:
            known = [one for one in self.choice.standings.values() if one.low is not None] if self.members else []
            wide = min(((one.high or 0.0) - (one.low or 0.0) for one in known), default=0.0)
            return decimals_of(None, wide / 4 or None)
        return decimals_of(evidence.examples)

    def __repr__(self) -> str:
        if not self.members:
            return f"<Front of {self.name!r}: empty, {len(self.trials)} trials>"
        ends = [f"{self.quality_text(trial.values[0])} at {joules_text(trial.train_joules)}" for trial in (self.members[0], self.best())]
        return (
            f"<Front of {self.name!r}: {len(self)} of {len(self.trials)} trials, {self.objectives[0]} {' to '.join(ends)}, "
            f"hypervolume {self.hypervolume():.3f}>"
        )


def _trial(front: Front, rule: str, number: int) -> Trial:
    found, apart = front._by_number.get(number), None if front.run is None else front.run.apart()
    if found is not None and found.state == "complete":
        return found
    absent = "does not exist" if apart is None else f"is not among those of this hardware ({apart.rstrip('.')})"
    state = absent if found is None else f"is {found.state}" + (f" ({found.reason})" if found.reason else "")
    if not (complete := [trial for trial in front.trials if trial.state == "complete"]):
        raise ValueError(f"--pick {rule!r}: trial {number} {state}, and no trial of this run is complete")
    near = min(list(front) or complete, key=lambda trial: abs(trial.number - number))
    raise ValueError(f"--pick {rule!r}: trial {number} {state}; on the front the nearest is trial={near.number} ({front.describe(near)})")


def _by_energy(front: Front, rule: str, bound: Bound) -> Trial:
    inside = [trial for trial in front.members if front.joules(trial) <= bound.value]
    if inside:
        return max(inside, key=lambda trial: (front.gain(trial), -front.joules(trial)))
    near = min(front._some(), key=front.joules)
    raise ValueError(
        f"--pick {rule!r}: no trial of the front needs so little; the nearest is trial={near.number} ({front.describe(near)}). "
        f"Try energy<={bound.rounded_up(front.joules(near))}, or --pick cheapest"
    )


def _by_quality(front: Front, rule: str, bound: Bound) -> Trial:
    members, name = front._some(), bound.name
    values = {trial.number: value for trial in members if (value := front.quality_of(trial, name)) is not None and isfinite(value)}
    if not values:
        known = sorted({front.objectives[0], *(key for trial in members for key in trial.quality)})
        raise ValueError(f"--pick {rule!r}: {name!r} was not measured in this run (known: {', '.join(known)}); write one of {RULES}")
    down = name in LESS_IS_BETTER or (name == front.objectives[0] and front.directions[0] == "minimize")
    wanted = "<=" if down else ">="
    if bound.sign != wanted:
        raise ValueError(f"--pick {rule!r}: {name} is bounded from {'above' if down else 'below'}; write {name}{wanted}{bound.text}")
    if bound.percent and name not in (*FRACTIONS, "error", "f1"):
        raise ValueError(f"--pick {rule!r}: {name} is no share; write {name}{wanted}{bound.text.rstrip(' %')}")
    measured = [trial for trial in members if trial.number in values]
    reached = [trial for trial in measured if (values[trial.number] <= bound.value if down else values[trial.number] >= bound.value)]
    if reached:
        return min(reached, key=lambda trial: (front.joules(trial), -front.gain(trial)))
    near = min(measured, key=lambda trial: ((values[trial.number] if down else -values[trial.number]), front.joules(trial)))
    shown = front.quality_text(values[near.number]) if name == front.objectives[0] else plain(values[near.number], 4)
    hint = f" ({name} is a fraction: 0.95 or 95%, not 95)" if not down and 1.0 < bound.value <= 100.0 and name != "r2" else ""
    raise ValueError(
        f"--pick {rule!r}: no trial of the front reaches it{hint}; "
        f"the nearest is trial={near.number} with {name} {shown} ({front.describe(near)})"
    )
