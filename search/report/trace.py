"""How the front grew with the energy that the search spent."""

from __future__ import annotations

from dataclasses import dataclass

from ..front import Front
from ..hypervolume import hypervolume


@dataclass(frozen=True)
class Step:
    """The state of a search after one of its trials.

    Attributes:
        trial: Number of the trial.
        wh: Watt-hours that trials had cost by then, failed ones included; deciding and idling are not in it.
        hypervolume: Hypervolume of all trials up to this one, in the box of the whole run.
    """

    trial: int
    wh: float
    hypervolume: float


def hypervolume_trace(front: Front) -> tuple[Step, ...]:
    """Return the hypervolume after each finished trial, in the order of their numbers.

    A trial whose increment is unknown moves the energy by nothing; the report counts those.
    """
    import moocore

    upwards = [direction == "maximize" for direction in front.directions]
    kept: list[tuple[float, ...]] = []
    joules, volume, steps = 0.0, 0.0, []
    for trial in sorted(front.trials, key=lambda trial: trial.number):
        if trial.state == "running":
            continue
        joules += trial.increment_joules or 0.0
        if front.why_not(trial) is None:
            kept.append(trial.values)
            keep = moocore.is_nondominated(kept, maximise=upwards)
            kept = [values for values, stays in zip(kept, keep, strict=True) if stays]
            volume = hypervolume(kept, front.box)
        steps.append(Step(trial.number, joules / 3600.0, volume))
    return tuple(steps)
