"""From the ledger's records of one trial to the energy facts that the trial keeps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import hypot

from ..carbon.intensity import Intensity, grams_co2e
from ..energy import Record
from ..energy.record import combined_quality, sum_known
from ..records.trial import ComponentEnergy, Trial, TrialEnergy


def trial_energy(
    whole: Record,
    phases: Sequence[Record],
    *,
    parent: Trial | None,
    predictions: int,
    intensity: Intensity | Callable[[Record], Intensity | None] | None,
    pue: float = 1.0,
) -> TrialEnergy:
    """Return the energy of a trial.

    What the model costs to train from scratch is the start-up of the lineage's first trial plus every epoch of the lineage.
    Validation, analysis, storing and the start-up of continuations were paid by the search and are not part of it.

    Args:
        whole: The trial's own window, from the executor taking the job to the weights being stored.
        phases: Records of its inner windows: ``setup``, ``epoch``, ``eval``, ``analysis``, ``inference``.
        parent: The trial that was continued, or None.
        predictions: Number of predictions in the ``inference`` window.
        intensity: Carbon per kWh: one number, or its mean over the time of a record; None when unknown.
        pue: Power usage effectiveness of the site; enters the grams only.
    """
    epochs = [record for record in phases if record.kind == "epoch"]
    training = epochs if parent is not None else [record for record in phases if record.kind == "setup"] + epochs
    components = {} if parent is None else dict(parent.energy.components)
    for record in training:
        for part in record.components:
            if part.counts:
                components[part.name] = _plus(components.get(part.name), part.joules, part.quality, part.source)
    earlier = [] if parent is None else [parent]
    joules = sum_known([*(trial.train_joules for trial in earlier), *(record.joules for record in training)])
    u_joules = _quadrature([record.u_random_joules for record in training], None if parent is None else parent.train_u_joules)
    seconds = sum(record.seconds for record in training) + (0.0 if parent is None else parent.energy.train_seconds or 0.0)
    tests = [record for record in phases if record.kind == "inference"]
    per_1000 = 1000.0 / predictions if predictions else 0.0
    inference = tests[0].joules if tests and predictions else None
    u_inference = tests[0].u_random_joules if tests and predictions else None
    return TrialEnergy(
        train_joules=joules,
        train_u_joules=u_joules,
        increment_joules=whole.joules,
        evaluation_joules=sum_known(record.joules for record in phases if record.kind == "eval"),
        analysis_joules=sum_known(record.joules for record in phases if record.kind == "analysis"),
        inference_joules_per_1000=None if inference is None else inference * per_1000,
        inference_u_joules_per_1000=None if u_inference is None else u_inference * per_1000,
        grams_co2e=_grams(joules, training, parent, intensity, pue),
        components=components,
        quality=combined_quality([*(record.quality for record in training), *(trial.energy_quality for trial in earlier)]),
        train_seconds=seconds,
        cpu_seconds=sum_known([*(trial.energy.cpu_seconds for trial in earlier), *(record.cpu_seconds for record in training)]),
        gpu_utilisation=_gpu_utilisation(training, parent),
        hardware_id=whole.hardware_id,
        record=whole.to_json(),
    )


def with_energies(curve: Sequence[Mapping[str, float]], phases: Sequence[Record]) -> tuple[Mapping[str, float], ...]:
    """Return the entries of a curve with the ``joules`` of their epochs; epochs whose energy is unknown stay as they are."""
    epochs = [record for record in phases if record.kind == "epoch"]
    joules = {record.name.rpartition(" ")[2]: record.joules for record in epochs}
    return tuple({**point, "joules": value} if (value := joules.get(str(point["epoch"]))) is not None else dict(point) for point in curve)


def _gpu_utilisation(training: Sequence[Record], parent: Trial | None) -> float | None:
    """Mean over the lineage of the GPU that worked most; unknown when any part of it is."""
    seconds = [record.seconds for record in training]
    shares = [max(record.utilisation.values(), default=None) for record in training]
    if parent is not None:
        seconds.append(parent.energy.train_seconds or 0.0)
        shares.append(parent.energy.gpu_utilisation)
    if sum(seconds) <= 0 or any(share is None for share in shares):
        return None
    return sum(share * part for share, part in zip(shares, seconds, strict=True) if share is not None) / sum(seconds)


def _grams(
    joules: float | None,
    training: Sequence[Record],
    parent: Trial | None,
    intensity: Intensity | Callable[[Record], Intensity | None] | None,
    pue: float,
) -> float | None:
    """Carbon of a training: of all its joules at one intensity, or of each of its windows at the intensity of its time."""
    if intensity is None:
        return None
    if isinstance(intensity, Intensity):
        return grams_co2e(joules, intensity, pue=pue)
    parts = [grams_co2e(record.joules, intensity(record), pue=pue) for record in training]
    return sum_known(parts if parent is None else [parent.grams_co2e, *parts])


def _plus(before: ComponentEnergy | None, joules: float | None, quality: str, source: str) -> ComponentEnergy:
    """Add energy to a component; what was unknown once is unknown in the sum."""
    if before is None:
        return ComponentEnergy(joules, quality, source)
    together = sum_known([before.joules, joules])
    return ComponentEnergy(together, combined_quality([before.quality, quality]), source)


def _quadrature(values: Sequence[float | None], parent: float | None) -> float | None:
    """Independent random uncertainties add in squares."""
    known = [value for value in (*values, parent) if value is not None]
    return hypot(*known) if known else None
