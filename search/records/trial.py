"""A trial: one measured point of a study, as every other room sees it, and how Optuna and JSON store it."""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import sqrt
from typing import TYPE_CHECKING, Any, Literal, NotRequired, TypedDict

from ..energy import JOULES_PER_WH, Quality
from ..energy.journal import fitted, printable_json
from ..energy.record import combined_quality, sum_known
from ..formatting import count_text, joules_text, plain

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

State = Literal["complete", "failed", "running"]

#: User attribute of an Optuna trial: everything of ours that Optuna itself does not hold.
ATTRIBUTE = "joulefront"
#: Reason of a training that Ctrl-C cut short: it is done again.
INTERRUPTED = "interrupted by the user"
#: How a refusal ends whose session was over first: its candidate was not tried, and no limit on trials counts it.
NOT_BEGUN = "before its training began"
#: User attribute of a failed Optuna trial whose failure is no evidence against its candidate: ``killed``, or ``ended`` otherwise.
EXCUSED = "excused"
#: User attribute of an Optuna trial and key of ``Trial.extra``: the trial is what the search is compared with, of the kind ``DEFAULT``.
BASELINE, DEFAULT = "baseline", "default"
#: Name in ``extra`` of the trials that an ensemble takes the mean of.
MEMBERS = "members"
#: User attribute of an Optuna trial: the canonical text of its candidate.
KEY = "key"
#: User attribute of an Optuna trial of a shared study: who trains it, ``{"id", "hardware_id"}``.
WORKER = "worker"


@dataclass(frozen=True)
class ComponentEnergy:
    """Training energy of one component over the whole lineage.

    Attributes:
        joules: Energy, or None when it is not known.
        quality: ``measured``, ``estimated``, ``mixed`` or ``absent``.
        source: Name of the meter, e.g. ``nvml`` or ``cpu_time``.
        idle_joules: Part of it that the component would have drawn without any work; None while its idle power is unknown (``--idle``).
    """

    joules: float | None
    quality: str
    source: str
    idle_joules: float | None = None

    def plus(self, later: ComponentEnergy) -> ComponentEnergy:
        """Return the sum of both; what was unknown once is unknown in the sum."""
        joules, idle = sum_known((self.joules, later.joules)), sum_known((self.idle_joules, later.idle_joules))
        return ComponentEnergy(joules, combined_quality((self.quality, later.quality)), later.source, idle)


@dataclass(frozen=True)
class TrialEnergy:
    """What the ledger measured of a trial. ``train_*`` price the model from scratch; ``increment_joules`` is what the search really paid.

    Attributes:
        train_joules: Energy to train this model from scratch (whole lineage, evaluation excluded); None when unknown.
        train_u_joules: Random standard uncertainty of ``train_joules``, wider beside foreign work; None when unknown.
        compiled: Ledger record (JSON) of the ``torch.compile`` that is part of ``train_joules``; empty for a model that is not compiled.
        contended: Whether other programs used the machine while a part of the lineage was trained.
        features_joules: Part of ``train_joules`` that a frozen backbone takes for the training images, whoever has paid for that; None
            for a model without one.
        increment_joules: What the search paid for this trial, evaluation and start-up included.
        evaluation_joules: Part of the increment that went into validation.
        analysis_joules: Part of the increment that tactics spent on analysing the finished model; None without such work.
        inference_joules_per_1000: Energy of 1,000 predictions in a window of its own, and its random standard uncertainty beside it; None
            when not measured.
        grams_co2e: Carbon of ``train_joules``; None without an intensity.
        components: Training energy by component name.
        quality: Quality of ``train_joules``: one kind throughout, or ``mixed``; ``absent`` when a part is unknown.
        train_seconds: Duration of the training over the lineage; ``cpu_seconds`` are its CPU-seconds. None when unknown.
        gpu_utilisation: Mean share of the training time in which the busiest GPU worked, over the lineage; None when unknown.
        hardware_id: Short hash of the hardware that trained it.
        record: Full ledger record of the increment (JSON), see ``joulefront.search.energy``.
    """

    train_joules: float | None = None
    train_u_joules: float | None = None
    features_joules: float | None = None
    increment_joules: float | None = None
    evaluation_joules: float | None = None
    analysis_joules: float | None = None
    inference_joules_per_1000: float | None = None
    inference_u_joules_per_1000: float | None = None
    grams_co2e: float | None = None
    components: Mapping[str, ComponentEnergy] = field(default_factory=dict)
    quality: Quality = "absent"
    train_seconds: float | None = None
    cpu_seconds: float | None = None
    gpu_utilisation: float | None = None
    hardware_id: str | None = None
    record: Mapping[str, Any] = field(default_factory=dict)
    contended: bool = False
    compiled: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, repr=False)
class Trial:
    """One measured point of a study: a candidate trained to ``epochs``.

    Attributes:
        number: Number of the Optuna trial.
        state: ``complete`` (it has values), ``failed`` (it has a reason) or ``running``.
        params: Parameters as Optuna stores them, without ``epochs``.
        epochs: Epochs that this model was trained for from scratch, the whole lineage counted.
        values: Objective values in the order of the study's objectives; empty unless complete.
        quality: Validation quality by metric name, e.g. ``{"accuracy": 0.98, "loss": 0.07}``.
        energy: What the ledger measured; its most used numbers are properties of the trial as well.
        parameters: Number of parameters of the model; None where it has none (scikit-learn).
        flops: Forward floating-point operations of one example; None when unknown.
        parent: Number of the trial whose checkpoint was continued, or None.
        reason: Why it failed or stopped early, or None.
        artifact: File name of its weights inside the run folder, or None when they were dropped.
        artifact_sha256: SHA-256 of that file in hexadecimal; None where it was not kept (earlier versions).
        complete_training: Whether it was trained to the study's last rung.
        curve: One entry per epoch of this trial's own training: ``{"epoch": 3, "loss": ..., "accuracy": ..., "joules": ...}``.
        extra: Columns that are neither quality nor energy, e.g. modelled gains of a tactic.
    """

    number: int
    state: State
    params: Mapping[str, Any]
    epochs: int
    values: tuple[float, ...] = ()
    quality: Mapping[str, float] = field(default_factory=dict)
    energy: TrialEnergy = field(default_factory=TrialEnergy)
    parameters: int | None = None
    flops: int | None = None
    parent: int | None = None
    reason: str | None = None
    artifact: str | None = None
    complete_training: bool = False
    curve: tuple[Mapping[str, float | None], ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)
    artifact_sha256: str | None = None

    def __repr__(self) -> str:
        """One line for a notebook; the ledger's record alone has thousands of characters.

        >>> Trial(3, "complete", {"width": 8}, 9, quality={"accuracy": 0.9}, energy=TrialEnergy(train_joules=3600.0, quality="measured"))
        <Trial 3: complete, 9 epochs, accuracy 0.9, 1 Wh measured, params {'width': 8}>
        """
        parts = [self.state, count_text(self.epochs, "epoch")]
        parts += [f"{name} {plain(value, 4)}" for name, value in self.quality.items()]
        known = "" if self.train_joules is None else f" {self.energy_quality}"
        parts += [joules_text(self.train_joules) + known] if self.quality else []
        parts += [f"params {dict(self.params)}"] + ([self.reason] if self.reason else [])
        return f"<Trial {self.number}: {', '.join(parts)}>"

    @property
    def family(self) -> str:
        """Name of the family that a space of several drew; empty where there is one alone."""
        return str(self.params.get("family") or "")

    @property
    def is_default(self) -> bool:
        """Whether this is the task's ordinary choice at its default recipe, the baseline of its study."""
        return self.extra.get(BASELINE) == DEFAULT

    @property
    def horizon(self) -> int:
        """Epochs that its schedule was laid out for: those that were asked for, though the training may have ended before."""
        return max(self.epochs, int(self.extra.get("asked_epochs") or 0))

    @property
    def members(self) -> tuple[int, ...]:
        """Numbers of the trials whose mean this is, each as often as it counts; empty for a model of its own, which was trained."""
        return tuple(self.extra.get(MEMBERS, ()))

    @property
    def train_joules(self) -> float | None:
        """Energy to train this model from scratch; None when unknown."""
        return self.energy.train_joules

    @property
    def train_u_joules(self) -> float | None:
        """Random standard uncertainty of ``train_joules``; None when unknown."""
        return self.energy.train_u_joules

    def u_joules_beyond(self, ancestor: Trial | None) -> float | None:
        """Random standard uncertainty of what it cost beyond its ancestor: their squares add up along a lineage."""
        if self.train_u_joules is None or ancestor is None:
            return self.train_u_joules
        return sqrt(max(0.0, self.train_u_joules**2 - (ancestor.train_u_joules or 0.0) ** 2))

    @property
    def train_wh(self) -> float | None:
        """Training energy in watt-hours."""
        return None if self.train_joules is None else self.train_joules / JOULES_PER_WH

    @property
    def increment_joules(self) -> float | None:
        """What the search paid for this trial; None when unknown."""
        return self.energy.increment_joules

    @property
    def inference_joules_per_1000(self) -> float | None:
        """Energy of 1,000 predictions; None when not measured."""
        return self.energy.inference_joules_per_1000

    @property
    def grams_co2e(self) -> float | None:
        """Carbon of the training; None without an intensity."""
        return self.energy.grams_co2e

    @property
    def components(self) -> Mapping[str, ComponentEnergy]:
        """Training energy by component name."""
        return self.energy.components

    @property
    def energy_quality(self) -> Quality:
        """Quality of the training energy."""
        return self.energy.quality

    @property
    def hardware_id(self) -> str | None:
        """Short hash of the hardware that trained it."""
        return self.energy.hardware_id

    def facts(self) -> dict[str, Any]:
        """Return what Optuna itself does not hold, as flat JSON for the trial's user attribute ``ATTRIBUTE``."""
        return {
            "epochs": self.epochs,
            "quality": dict(self.quality),
            "parameters": self.parameters,
            "flops": self.flops,
            "parent": self.parent,
            "reason": self.reason,
            "artifact": self.artifact,
            "artifact_sha256": self.artifact_sha256,
            "complete_training": self.complete_training,
            "curve": [dict(point) for point in self.curve],
            "extra": dict(self.extra),
            **{key: getattr(self.energy, name) for key, name in _ENERGY.items()},
            "components": {name: dict(vars(part)) for name, part in self.components.items()},
            "compiled": dict(self.energy.compiled),
            "record": dict(self.energy.record),
        }


#: Key in the flat JSON -> field of ``TrialEnergy``.
_ENERGY = {("energy_quality" if name == "quality" else name): name for name in TrialEnergy.__dataclass_fields__}


def to_json(trial: Trial) -> dict[str, Any]:
    """Return everything of a trial as JSON."""
    return {"number": trial.number, "state": trial.state, "params": dict(trial.params), "values": list(trial.values), **trial.facts()}


def from_json(data: Mapping[str, Any]) -> Trial:
    """Read what ``to_json`` wrote.

    Raises:
        ValueError: If it lacks what a trial must have, or a value is of another type.
    """
    where = f"trial {data.get('number')}" if isinstance(data, Mapping) else "trial"
    energy = {name: data[key] for key, name in _ENERGY.items() if key in fitted(_Facts, data, where)}
    trial = fitted(Trial, {**data, "energy": energy}, where)
    for name in ("train_joules", "increment_joules", "evaluation_joules", "grams_co2e"):
        if (getattr(trial.energy, name) or 0.0) < 0:
            raise ValueError(f"{where}: {name} must not be negative, got {getattr(trial.energy, name)}")
    return trial


def from_optuna(trial: FrozenTrial) -> Trial:
    """Read our trial back from Optuna's; unknown facts, e.g. of a later version, are left out.

    Raises:
        ValueError: If a fact is of another type than we write.
    """
    facts = dict(fitted(_Facts, printable_json(trial.user_attrs.get(ATTRIBUTE, {})), f"trial {trial.number}"))
    state: State = "complete" if trial.state.name == "COMPLETE" else "running" if not trial.state.is_finished() else "failed"
    fitted(_System, trial.system_attrs, f"trial {trial.number}")
    if (worker := fitted(_Attributes, trial.user_attrs, f"trial {trial.number}").get("worker")) is not None:
        facts["hardware_id"] = facts.get("hardware_id") or worker.get("hardware_id")
    if state == "failed" and not facts.get("reason"):
        facts["reason"] = "the process that trained it died"
    params = printable_json({name: value for name, value in trial.params.items() if name != "epochs"})
    if isinstance(extra := facts.get("extra"), Mapping) and extra.get(MEMBERS):
        params = {"family": "ensemble"}
    facts.setdefault("epochs", trial.params.get("epochs", 0))
    whole = {**facts, "number": trial.number, "state": state, "params": params, "values": list(trial.values or ())}
    try:
        json.dumps(whole, allow_nan=False, default=str)
    except ValueError:  # no file of ours could hold it
        raise ValueError(f"trial {trial.number} must hold finite numbers alone, got NaN or infinity") from None
    return from_json(whole)


def all_from_optuna(
    stored: Sequence[FrozenTrial], ended: dict[int, tuple[FrozenTrial, Trial]], objectives: Sequence[str] = ()
) -> tuple[Trial, ...]:
    """Read all our trials back from Optuna's; those that have ended, which change no more, are kept in ``ended`` for the next time.

    Raises:
        ValueError: If a fact is of another type than we write, a trial continues none before it, or a complete one lacks the value of one
            of the ``objectives``, or has an energy below zero.
    """
    for trial in stored:
        if trial.state.is_finished() and ended.get(trial.number, (None,))[0] is not trial:
            ended[trial.number] = trial, from_optuna(trial)
    found = tuple(ended[trial.number][1] if trial.state.is_finished() else from_optuna(trial) for trial in stored)
    check_order(found)
    for one in found if objectives else ():
        if one.state == "complete" and len(objectives) != len(one.values):
            raise ValueError(f"trial {one.number} must have {len(objectives)} values, one for each objective, got {len(one.values)}")
        for name, value in zip(objectives, one.values, strict=False):
            if value < 0 and ("energy" in name or "co2" in name):
                raise ValueError(f"trial {one.number}: {name} must not be negative, got {value}")
    return found


class _Facts(TypedDict):
    """What the flat facts of a trial hold beside fields of ``Trial``."""

    record: NotRequired[_Totals]
    extra: NotRequired[_Extra]


class _Worker(TypedDict):
    id: NotRequired[str]
    hardware_id: NotRequired[str | None]


class _Attributes(TypedDict):
    """What a trial has beside its facts, see ``WORKER``."""

    worker: NotRequired[_Worker]
    key: NotRequired[str]


class _Claim(TypedDict):
    key: str
    params: Mapping[str, Any]
    epochs: int
    belief: NotRequired[list[float] | None]


#: What samplers have noted of a trial.
_System = TypedDict("_System", {"joulefront:claim": NotRequired[_Claim | None], "constraints": NotRequired[list[float] | None]})


class _Totals(TypedDict):
    joules: NotRequired[float | None]
    u_systematic_joules: NotRequired[float | None]


class _Extra(TypedDict):
    copy_of: NotRequired[int]
    members: NotRequired[list[int]]
    baseline: NotRequired[str]
    threads: NotRequired[int | None]
    train_examples: NotRequired[int | None]
    asked_epochs: NotRequired[int | None]
    quality_sd: NotRequired[float | None]
    activation_nonzero_share: NotRequired[float]
    modelled_asic_energy_ratio: NotRequired[float]


def counted(trials: Iterable[Trial | FrozenTrial]) -> int:
    """Return how many trials a limit counts, see ``NOT_BEGUN``."""
    reasons = (one.reason if isinstance(one, Trial) else one.user_attrs.get(ATTRIBUTE, {}).get("reason") for one in trials)
    return sum(not str(reason or "").endswith(NOT_BEGUN) for reason in reasons)


def by_number(trials: Sequence[Trial], number: int) -> Trial | None:
    """Return the trial with a number, which is not its place where those of other hardware are left out; None if it is one of these."""
    place = bisect_left(trials, number, key=lambda trial: trial.number)
    return trials[place] if place < len(trials) and trials[place].number == number else None


def check_order(trials: Sequence[Trial]) -> None:
    """Check that trials are numbered from 0 and that each continues or repeats an earlier one.

    Raises:
        ValueError: If one is not or does not; what follows a lineage would never end.
    """
    for place, trial in enumerate(trials):
        if trial.number != place:
            raise ValueError(f"trial {trial.number} must have the number {place}")
        for what, earlier in (("parent", trial.parent), ("copy_of", trial.extra.get("copy_of"))):
            if earlier is not None and not 0 <= earlier < place:
                raise ValueError(f"trial {place}: {what} must be the number of an earlier trial, got {earlier}")
