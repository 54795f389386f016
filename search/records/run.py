"""A run as front, report and export read it, and the part of it that one kind of hardware has measured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..carbon.intensity import Intensity, grams_co2e
from ..formatting import count_text
from .bill import Bill
from .replicates import Repeats
from .trial import Trial


def on_hardware(trials: Iterable[Trial], hardware_id: str) -> tuple[Trial, ...]:
    """Return the trials that were measured on one kind of hardware, and those of which it is unknown: decisions there look at them."""
    return tuple(trial for trial in trials if trial.hardware_id in (None, hardware_id))


def machine_names(hardware: Mapping[str, Any] | str) -> list[str]:
    """Name the processors of a machine, which a session or a record tells of.

    >>> machine_names({"cpu_model": "A", "system": "Linux", "devices": {"gpu:0": {"name": "B", "driver": "550"}}})
    ['A', 'B']
    """
    if isinstance(hardware, str):
        return [hardware]
    named = [hardware.get("cpu_model") or hardware.get("cpu"), hardware.get("gpu"), *(hardware.get("devices") or {}).values()]
    return [str(name) for one in named if (name := one.get("name") if isinstance(one, Mapping) else one)]


#: What an epoch of a family, or of an estimator of ``classical``, is where it is no pass over the data.
EPOCHS_OF = {
    **dict.fromkeys(("lightgbm", "xgboost", "catboost", "gradient_boosting"), "some rounds of boosting"),
    **dict.fromkeys(("random_forest", "extra_trees", "isolation_forest"), "some trees"),
    "linear": "some solver steps",
    **dict.fromkeys(("decision_tree", "k_neighbours", "local_outlier_factor", "one_class_svm"), "a share of the data that grows"),
}


def learner(trial: Trial) -> str:
    """Name what learns: the estimator of a family that has several, else the family."""
    return str(trial.params.get("estimator") or trial.params.get(f"{trial.family}.estimator") or trial.family)


@dataclass(frozen=True)
class Run:
    """Everything known of one run of a study.

    Attributes:
        objectives: Objective names, quality first; ``directions`` are ``maximize`` or ``minimize`` of each.
        rungs: Numbers of epochs at which models were measured.
        trials: All trials in the order of their numbers.
        bill: Where the energy of the search went.
        facts: ``study.json``: study description, options, versions, hardware, command, budget, sampler, seed, intensity
            (``{"grams_per_kwh", "zone", "source", "year", "kind"}`` or None).
        repeats: Trainings of finalists again; never trials, never points of the front.
        elsewhere: In a run of several kinds of hardware, of which `comparable` keeps one: what was left out, a clause by ``hardware_id``.
    """

    name: str
    path: Path
    objectives: tuple[str, ...]
    directions: tuple[str, ...]
    rungs: tuple[int, ...]
    trials: tuple[Trial, ...]
    bill: Bill
    facts: Mapping[str, Any] = field(default_factory=dict)
    repeats: Repeats = field(default_factory=Repeats)
    elsewhere: Mapping[str, str] = field(default_factory=dict)

    def comparable(self, hardware_id: str | None = None) -> Run:
        """Return the run with the trials of one kind of hardware: energies of unlike machines are not compared.

        By default it is the hardware of this folder's last session, or else that with the most trials. Trials of which the hardware is
        unknown, e.g. because they failed before they began, stay.

        Raises:
            ValueError: If no trial was measured on that hardware.
        """
        counts = Counter(trial.hardware_id for trial in self.trials if trial.hardware_id)
        known = [one for one, _ in counts.most_common()]
        if hardware_id is not None and hardware_id not in (*known, *self.elsewhere):
            raise ValueError(f"--hardware must be one of {', '.join(known) or 'none'}, got {hardware_id!r}")
        if len(known) < 2:
            return self
        last = [session.get("hardware_id") for session in self.facts.get("sessions") or ()][-1:]
        own = hardware_id or next((one for one in last if one in counts), known[0])
        kept = on_hardware(self.trials, own)
        return replace(self, trials=kept, elsewhere={one: self._told(one, counts[one]) for one in known if one != own})

    @property
    def sessions(self) -> list[Mapping[str, Any]]:
        """The sessions of the run, oldest first; one that keeps its facts at the top level has one."""
        if sessions := self.facts.get("sessions"):
            return list(sessions)
        top = {name: self.facts[name] for name in ("command", "versions", "hardware", "hardware_id") if name in self.facts}
        return [top] if top else []

    @property
    def pue(self) -> float:
        """The power usage effectiveness of the site, 1 when nothing else was given."""
        return float(self.facts.get("pue") or 1.0)

    @property
    def intensity(self) -> Intensity | None:
        """The carbon intensity of the place; None when it is unknown.

        Raises:
            ValueError: If a factor in ``study.json`` breaks its rule.
        """
        place = self.facts.get("intensity")
        return Intensity.from_json(dict(place)) if place else None

    def grams_co2e(self, joules: float | None) -> float | None:
        """Return the carbon of an energy at the place of the run, with the power usage effectiveness there; None where one is unknown."""
        return grams_co2e(joules, self.intensity, self.pue)

    def _told(self, hardware_id: str, count: int) -> str:
        machines = (trial.energy.record.get("hardware") for trial in self.trials if trial.hardware_id == hardware_id)
        hardware: Mapping[str, Any] = next((one for one in machines if one), {})
        named = ", ".join(dict.fromkeys(machine_names(hardware)))
        return f"{count_text(count, 'trial')} on hardware {hardware_id}{f' ({named})' if named else ''}"

    def apart(self) -> str | None:
        """Return one sentence on what was measured on other hardware and is not here, or None."""
        if not self.elsewhere:
            return None
        told, names = "; ".join(self.elsewhere.values()), " or ".join(self.elsewhere)
        return f"Energies of unlike machines do not compare, left out: {told}. joulefront front RUN --hardware {names} shows theirs."
