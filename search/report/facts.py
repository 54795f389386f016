"""Facts of a run that pages, tables and pictures state: hardware, meters, gains, the wall, where the joules went and what they brought."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..billing.account import BOOKED
from ..energy.intervals import Difference, Spread
from ..formatting import joules_text, plain
from ..front import Front
from ..pareto import normalised_hypervolume
from ..records.bill import Bill
from ..records.replicates import told_apart
from ..records.run_folder import Run
from ..records.trial import Trial

#: By how much the energies of repeated trainings of one model spread, as standard deviation, before a run has repeats of its own:
#: lowest and highest of 8 models of the digits study, each trained 10 times (`joulefront repeat`, see studies/results/choice.md).
TYPICAL_SPREAD = (0.03, 0.23)
#: The median of the same.
TYPICAL_MEDIAN = 0.10


def hardware_lines(run: Run) -> list[str]:
    """Describe each machine that trained the models in one line."""
    lines = []
    for session in run.sessions:
        line = ", ".join(f"{name} {value}" for name, value in flatten(session.get("hardware") or {}).items())
        identity = session.get("hardware_id") or ""
        lines.append(f"{line} [{identity}]" if identity and line else line or identity)
    return [line for line in dict.fromkeys(lines) if line]


def flatten(data: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Turn nested facts into ``name -> text``, leaving out None and empty values.

    >>> flatten({"gpus": [{"name": "A"}], "cores": 8, "none": None})
    {'gpus 0 name': 'A', 'cores': '8'}
    """
    found: dict[str, str] = {}
    for name, value in data.items():
        key = f"{prefix} {name}".strip()
        if isinstance(value, Mapping):
            found |= flatten(value, key)
        elif isinstance(value, (list, tuple)) and any(isinstance(item, Mapping) for item in value):
            found |= flatten({str(place): item for place, item in enumerate(value)}, key)
        elif isinstance(value, (list, tuple)):
            found |= {key: ", ".join(map(str, value))} if value else {}
        elif value is not None and value != "":
            found[key] = str(value)
    return found


def how_energy_is_known(front: Front) -> str:
    """Name the meters per kind of reading, e.g. ``measured (gpu by nvml), estimated (cpu by cpu_time)``."""
    found: dict[str, set[str]] = {}
    for trial in front.trials:
        if front.why_not(trial) is None:
            for name, part in trial.components.items():
                if part.quality != "absent":
                    found.setdefault(part.quality, set()).add(f"{name.split(':')[0]} by {part.source}")
    if not found:
        return " and ".join(sorted({trial.energy_quality for trial in front}))
    order = [kind for kind in ("measured", "mixed", "estimated") if kind in found]
    return ", ".join(f"{kind} ({', '.join(sorted(found[kind]))})" for kind in order)


def short_component(name: str) -> str:
    """Name of a component for people: a GPU's UUID is cut.

    >>> short_component("gpu:GPU-1a2b3c4d-5e6f-0000")
    'gpu 1a2b3c4d'
    """
    kind, _, rest = name.partition(":")
    return f"{kind} {rest.removeprefix('GPU-')[:8]}".strip()


def scale_share(front: Front) -> float | None:
    """Largest systematic standard uncertainty among the members, as a share of their energy; None when it is unknown or zero.

    It scales all energies alike.
    """
    known = ((trial.energy.record.get("u_systematic_joules"), trial.energy.record.get("joules")) for trial in front)
    return max((systematic / joules for systematic, joules in known if systematic and joules), default=None)


def _spreads(front: Front, one: Trial, two: Trial) -> tuple[Spread, Spread] | None:
    """Return the qualities of two models in repeats, on the test split where these have it; None where one was not repeated."""
    again = None if front.repeated is None else [front.repeated.summary_of(trial.number) for trial in (one, two)]
    if again is None or again[0] is None or again[1] is None:
        return None
    first, second = (again[0].test, again[1].test) if again[0].test and again[1].test else (again[0].quality, again[1].quality)
    return None if first is None or second is None else (first, second)


def tied(front: Front, one: Trial, two: Trial) -> bool:
    """Whether two models cannot be told apart in quality: by their repeats where these have the power for it, else by validation."""
    again = _spreads(front, one, two)
    apart = None if again is None else told_apart(*again, front.evidence.shortfall(one, two))
    return front.evidence.ties(one, two) if apart is None else not apart


def over_default(front: Front) -> str | None:
    """Say what the search gained over the default model in quality and energy; None without one, or where it is itself the pick."""
    default, pick = front.baseline, front.sensible() if len(front) else None
    if default is None or pick is None or pick is default or not default.train_joules or front.why_not(default) is not None:
        return None
    name, again = front.objectives[0], _spreads(front, default, pick)
    repeats = None if again is None else Difference.of(*again)
    sign = 1.0 if front.directions[0] == "maximize" else -1.0
    change = front.gain(pick) - front.gain(default) if repeats is None else sign * repeats.mean
    what = f"cannot be told from it in {name}" if tied(front, pick, default) else f"is {'better' if change > 0 else 'worse'} in {name}"
    ratio = front.joules(pick) / default.train_joules
    energy = f"{1 - ratio:.0%} less" if ratio < 1 else f"{ratio - 1:.0%} more" if ratio < 2 else f"{plain(ratio)} times the"
    energy = "the same" if abs(ratio - 1) < 0.005 or front.alike(pick, default) else energy  # "0% less" is no news, nor is a tie
    best, least = (round(trial.values[0], front.decimals) for trial in (pick, default))  # as they are printed
    shown = front.quality_text(abs(best - least if repeats is None else change))
    return (
        f"Against the default model (trial {default.number}: {front.describe(default)}) trial {pick.number} {what} "
        f"({'+' if change >= 0 else '-'}{shown}{'' if repeats is None else ' in repeats'}) for {energy} energy."
    )


def wall_text(bill: Bill) -> str | None:
    """Return a sentence on the energy that the whole machine took at the wall, or None when that is unknown."""
    wall = bill.at_wall
    if wall is None:
        return None
    spread = "" if wall.u_joules is None else f" ± {joules_text(2 * wall.u_joules)}"
    how = f"{wall.quality} by {wall.source}" if wall.reason is None else wall.reason
    how = f"two standard uncertainties; {how}" if spread else how
    return f"At the wall the whole machine took {joules_text(wall.joules)}{spread} ({how}); that contains the sums above."


def uses_of(run: Run, members: Sequence[Trial]) -> dict[str, float]:
    """Return where the joules of a run went: ``front``, what the trials of the front took in all, then the bill's states without these.

    A trial that a limit ended is billed as ``stopped``, and its model may be on the front all the same. The parts add up to the states.
    """
    rest, front, features = dict(run.bill.by_state), 0.0, _features_paid(run)
    for trial in members:
        state = BOOKED.get(str(trial.energy.record.get("state", "ok")), "failed")
        share = min(rest.get(state, 0.0), max(0.0, (trial.increment_joules or 0.0) - features.get(trial.number, 0.0)))
        front, rest[state] = front + share, rest.get(state, 0.0) - share
    return {"front": front, **rest}


def _features_paid(run: Run) -> dict[int, float]:
    """Joules of the bill's features by trial: they are in what it took, shared out by what its training and validation do not explain."""
    billed = run.bill.by_state.get("features", 0.0)
    beyond = {
        trial.number: max(0.0, (trial.increment_joules or 0.0) - (energy.evaluation_joules or 0.0) - own)
        for trial in run.trials
        if (energy := trial.energy).features_joules and trial.parent is None
        for own in [max(0.0, (trial.train_joules or 0.0) - energy.features_joules)]
    }
    known = sum(beyond.values())
    return {number: billed * joules / known for number, joules in beyond.items()} if known > 0 else {}


def hypervolume_trace(front: Front) -> list[list[float]]:
    """Return ``[number, joules, hypervolume]`` whenever a trial raised the hypervolume, and after the last trial.

    Joules are those of all trials by then, without deciding and idling; a trial of unknown increment does not move them. The box is that of
    the whole run.
    """
    import moocore

    upwards = [direction == "maximize" for direction in front.directions]
    kept: list[tuple[float, ...]] = []
    joules, volume, steps, last = 0.0, 0.0, [], None
    for trial in sorted(front.trials, key=lambda trial: trial.number):
        if trial.state == "running":
            continue
        joules, last = joules + (trial.increment_joules or 0.0), trial.number
        if front.why_not(trial) is None:
            keep = moocore.is_nondominated([*kept, trial.values], maximise=upwards)
            if keep[-1]:
                kept = [values for values, stays in zip([*kept, trial.values], keep, strict=True) if stays]
                before, volume = volume, normalised_hypervolume(kept, front.box)
                if volume > before + 1e-12:
                    steps.append([float(trial.number), joules, volume])
    if last is not None and (not steps or steps[-1][0] != last):
        steps.append([float(last), joules, volume])
    return steps
