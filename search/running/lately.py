"""What the energy of a search has brought lately: a fact in place of a promise.

What going on would bring cannot be said: replayed on finished studies, the sampler's expectation was above what came every time, by
factors from one to some hundreds, and what the same energy had brought before was off as far in both directions.
"""

from __future__ import annotations

from dataclasses import replace

from ..formatting import energy_text
from ..front import Front

#: Share of the trials' energy that is looked back at.
SHARE = 0.25
#: Fewer trials than this have no course.
LEAST = 12


def lately(front: Front) -> str | None:
    """Say how much the last quarter of the trials' energy raised the hypervolume.

    Args:
        front: The front of all trials.

    Returns:
        A clause such as ``the last quarter of the trials' energy (1.2 mWh, 9 trials) raised the hypervolume from 0.580 to 0.589``; None
        while there is no course to speak of.
    """
    done = sorted((trial for trial in front.trials if trial.state != "running"), key=lambda trial: trial.number)
    joules = [trial.increment_joules or 0.0 for trial in done]
    if len(done) < LEAST or not sum(joules) > 0:
        return None
    spent, first = 0.0, 0
    while spent < (1.0 - SHARE) * sum(joules):
        spent += joules[first]
        first += 1
    if first == len(done):  # the very last training took more than the quarter
        first -= 1
    before = replace(front, trials=tuple(done[:first])).hypervolume()
    after = front.hypervolume()
    count = len(done) - first
    energy = energy_text(sum(joules[first:]) / 3600.0)
    what = f"the last quarter of the trials' energy ({energy}, {count} trial{'' if count == 1 else 's'})"
    if after <= before:
        return f"{what} did not raise the hypervolume of {after:.3f}"
    return f"{what} raised the hypervolume from {before:.3f} to {after:.3f}"
