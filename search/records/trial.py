"""A trial as the rest of the house sees it: one measured point, with everything known about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from ..energy import Quality
from ..formatting import energy_text

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

State = Literal["complete", "failed", "running"]

#: The user attribute of an Optuna trial that holds the facts of ours.
ATTRIBUTE = "joulefront"
#: The user attribute of a failed Optuna trial that says why it ended, where that tells nothing of its candidate: it was ``killed``, or
#: ``ended`` with its session.
EXCUSED = "excused"


#: User attribute of an Optuna trial that holds the canonical text of its candidate.
KEY = "key"


@dataclass(frozen=True)
class ComponentEnergy:
    """Training energy of one component over the whole lineage.

    Attributes:
        joules: Energy, or None when it is not known.
        quality: ``measured``, ``estimated``, ``mixed`` or ``absent``.
        source: Name of the meter, e.g. ``nvml`` or ``cpu_time``.
    """

    joules: float | None
    quality: str
    source: str

    def to_json(self) -> dict[str, Any]:
        """Return a plain dictionary."""
        return {"joules": self.joules, "quality": self.quality, "source": self.source}


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
        train_joules: Energy to train this model from scratch (whole lineage, evaluation excluded); None when unknown.
        train_u_joules: Random standard uncertainty of ``train_joules``; None when unknown.
        increment_joules: What the search paid for this trial, evaluation and start-up included.
        evaluation_joules: Part of the increment that went into validation.
        analysis_joules: Part of the increment that went into what tactics find out about the finished model; None without such work.
        inference_joules_per_1000: Energy of 1,000 predictions in a window of its own; None when not measured.
        inference_u_joules_per_1000: Its random standard uncertainty.
        grams_co2e: Carbon of ``train_joules``; None without an intensity.
        parameters: Number of parameters of the model; None where it has none (scikit-learn).
        flops: Forward floating-point operations of one example; None when unknown.
        components: Training energy by component name.
        energy_quality: Worst quality among the components that count.
        train_seconds: Duration of the training over the lineage.
        cpu_seconds: CPU-seconds of the training over the lineage; None when unknown.
        gpu_utilisation: Mean share of the training time in which the busiest GPU worked, over the lineage; None when unknown.
        parent: Number of the trial whose checkpoint was continued, or None.
        reason: Why it failed or stopped early, or None.
        artifact: File name of its weights inside the run folder, or None when they were dropped.
        hardware_id: Short hash of the hardware that trained it.
        complete_training: Whether it was trained to the study's last rung.
        curve: One entry per epoch of this trial's own training: ``{"epoch": 3, "loss": ..., "accuracy": ..., "joules": ...}``.
        record: Full ledger record of the increment (JSON), see ``joulefront.search.energy``.
        extra: Columns that are neither quality nor energy, e.g. modelled gains of a tactic.
    """

    number: int
    state: State
    params: Mapping[str, Any]
    epochs: int
    values: tuple[float, ...] = ()
    quality: Mapping[str, float] = field(default_factory=dict)
    train_joules: float | None = None
    train_u_joules: float | None = None
    increment_joules: float | None = None
    evaluation_joules: float | None = None
    analysis_joules: float | None = None
    inference_joules_per_1000: float | None = None
    inference_u_joules_per_1000: float | None = None
    grams_co2e: float | None = None
    parameters: int | None = None
    flops: int | None = None
    components: Mapping[str, ComponentEnergy] = field(default_factory=dict)
    energy_quality: Quality = "absent"
    train_seconds: float | None = None
    cpu_seconds: float | None = None
    gpu_utilisation: float | None = None
    parent: int | None = None
    reason: str | None = None
    artifact: str | None = None
    hardware_id: str | None = None
    complete_training: bool = False
    curve: tuple[Mapping[str, float], ...] = ()
    record: Mapping[str, Any] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        """Say what a reader of a notebook asks first; the record alone has thousands of characters.

        >>> Trial(3, "complete", {"width": 8}, 9, quality={"accuracy": 0.9}, train_joules=3600.0, energy_quality="measured")
        <Trial 3: complete, 9 epochs, accuracy 0.9, 1 Wh measured, params {'width': 8}>
        """
        said = [self.state, f"{self.epochs} epoch{'' if self.epochs == 1 else 's'}"]
        said += [f"{name} {value:.4g}" for name, value in self.quality.items()]
        said += [energy_text(self.train_wh) + (f" {self.energy_quality}" if self.train_joules is not None else "")] if self.quality else []
        said += [f"params {dict(self.params)}"] + ([self.reason] if self.reason else [])
        return f"<Trial {self.number}: {', '.join(said)}>"

    @property
    def train_wh(self) -> float | None:
        """Training energy in watt-hours."""
        return None if self.train_joules is None else self.train_joules / 3600.0

    def facts(self) -> dict[str, Any]:
        """Return what Optuna itself does not hold, as JSON for the trial's user attribute ``ATTRIBUTE``."""
        own = {"number", "state", "params", "values"}
        data = {name: getattr(self, name) for name in self.__dataclass_fields__ if name not in own}
        data["components"] = {name: part.to_json() for name, part in self.components.items()}
        data["curve"] = [dict(point) for point in self.curve]
        for name in ("quality", "record", "extra"):
            data[name] = dict(data[name])
        return data


def to_json(trial: Trial) -> dict[str, Any]:
    """Return everything of a trial as JSON."""
    return {"number": trial.number, "state": trial.state, "params": dict(trial.params), "values": list(trial.values), **trial.facts()}


def from_json(data: Mapping[str, Any]) -> Trial:
    """Read what ``to_json`` wrote."""
    facts = dict(data)
    facts["components"] = {name: ComponentEnergy(**part) for name, part in facts["components"].items()}
    return Trial(**{**facts, "curve": tuple(facts["curve"]), "values": tuple(facts["values"])})


def from_optuna(trial: FrozenTrial) -> Trial:
    """Read our trial back from Optuna's."""
    facts = dict(trial.user_attrs.get(ATTRIBUTE, {}))
    facts = {name: value for name, value in facts.items() if name in Trial.__dataclass_fields__}
    facts["components"] = {name: ComponentEnergy(**part) for name, part in facts.get("components", {}).items()}
    facts["curve"] = tuple(facts.get("curve", ()))
    state: State = "complete" if trial.state.name == "COMPLETE" else "running" if not trial.state.is_finished() else "failed"
    if state == "failed" and not facts.get("reason"):
        facts["reason"] = "the process that trained it died"
    params = {name: value for name, value in trial.params.items() if name != "epochs"}
    facts.setdefault("epochs", int(trial.params.get("epochs", 0)))
    return Trial(number=trial.number, state=state, params=params, values=tuple(trial.values or ()), **facts)
