"""Everything that the decision page shows of a run, as plain JSON: joules, fractions and seconds; the page gives them their units.

No text is escaped here: the page writes every one of them as text, never as markup.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import asdict
from itertools import combinations
from typing import Any

from ..billing.account import BOOKED
from ..formatting import unit_for
from ..front import FRACTIONS, Front
from ..hypervolume import normalised_hypervolume
from ..records.examples import SHARES
from ..records.run import machine_names
from ..records.run_folder import Run
from ..records.trial import Trial
from .energy_relations import importance
from .facts import TYPICAL_MEDIAN, how_energy_is_known, scale_share, short_component, tied
from .pricing import hours, places
from .sections import sections
from .statement import forms
from .table import EPOCHS_OF, learner, marks_of
from .view import View, choose_ticks, is_stretched, tick_candidates

#: Metrics that are shown in percent.
PERCENT = (*(name for name in FRACTIONS if name != "r2"), "error")
#: The quality axis is at least so long, on its scale, or this share of the quality: a single model is no reason for six decimals.
LEAST_STRETCH = 0.1
#: Pairs are compared with each other up to so many members, which takes a moment each; beyond that with the best one alone.
MOST_PAIRED = 80


def page_data(run: Run, *, ranking: bool = True) -> dict[str, Any]:
    """Return what the page shows of a run, finished or not.

    Without ``ranking``, while the meters run, what predicts quality and energy is left out: it takes seconds of a CPU.
    """
    run = run.comparable()
    front = Front.of(run)
    limits, unit = _limits(front), unit_for(trial.train_joules for trial in front.members)  # that of the largest model
    members = [_member(front, trial) for trial in front]
    examples = front.evidence.examples
    percent = front.objectives[0] in PERCENT
    return {
        **_about(run, front),
        "metric": front.objectives[0],
        "maximise": front.directions[0] == "maximize",
        "percent": percent,
        "decimals": max(0, front.decimals - 2) if percent else front.decimals,
        "examples": examples,
        "folds": front.evidence.folds,
        "counted": front.objectives[0] in SHARES and bool(examples),
        "guessing": front.evidence.guessing,
        "stretched": is_stretched(front),
        "range": list(limits),
        "ticks": [place for place, _ in choose_ticks(tick_candidates(front), *limits)],
        "unit": {"name": unit.name, "joules": unit.size},
        "members": members,
        "fixed": _shared(front.members),
        "choice": _choice(front),
        "default": _default(front),
        "others": _others(front),
        "all": _all_trials(run),
        "bill": _bill(run),
        "so_far": not ranking,
        "measured": how_energy_is_known(front) if members else "",
        "scale": scale_share(front),
        "typical": TYPICAL_MEDIAN,
        "money": run.facts.get("price_per_kwh"),
        "place": run.facts.get("intensity"),
        "pue": run.pue,
        "places": places(run),
        "hours": hours(run),
        "growth": hypervolume_trace(front),
        "importance": [_ranking(front, target) for target in ("quality", "energy")] if ranking else [],
        "sections": [asdict(one) for one in sections(run, unit, ranking=ranking)],
        "statements": forms(run),
    }


def _limits(front: Front) -> tuple[float, float]:
    """Ends of the quality axis: those of the picture, or of the intervals of the best and of the recommended model."""
    view = View.of(front)
    ends = list(view.y_limits)
    for trial in (front.best(), front.sensible()) if front.members else ():
        one = front.choice.standings[trial.number]
        ends += [view.y_of(end) for end in (one.low, one.high) if end is not None]
    low, high = min(ends), max(ends)
    lacking = LEAST_STRETCH * (1.0 if is_stretched(front) else max(abs(low), abs(high))) - (high - low)
    return (low - lacking / 2, high + lacking / 2) if lacking > 0 else (low, high)


def _about(run: Run, front: Front) -> dict[str, Any]:
    study, sessions = run.facts.get("study") or {}, run.sessions
    machine = next((str(one["hardware"]) for one in [dict(s.get("hardware") or {}) for s in sessions[-1:]] if "hardware" in one), "")
    hardware = [", ".join(machine_names(session.get("hardware") or {})) for session in sessions]
    states = [trial.state for trial in run.trials]
    return {
        "name": run.name,
        "folder": shlex.quote(str(run.path)),
        "source": _source(run),
        "description": str(study.get("description") or ""),
        "started": str(sessions[0].get("started") or "") if sessions else "",
        "command": str(sessions[0].get("command") or "") if sessions else "",
        "hardware": "; ".join(dict.fromkeys(one for one in [*hardware, machine] if one)),
        "ended": bool(sessions) and "ended" in sessions[-1],
        "trials": len(states),
        "failed": states.count("failed"),
        "running": states.count("running"),
        "complete_only": front.complete_only,
    }


def _source(run: Run) -> str:
    """What a command needs beside the folder to find the study again: nothing for a bundled one, the file where Python began it."""
    source = str((run.facts.get("origin") or {}).get("source") or "my_study.py")
    return f" --study {shlex.quote(source)}" if "/" in source or "." in source else ""


def _member(front: Front, trial: Trial) -> dict[str, Any]:
    one = front.choice.standings[trial.number]
    return {
        "n": trial.number,
        "q": trial.values[0],
        "low": one.low,
        "high": one.high,
        "right": one.right,
        "beats_guessing": one.beats_guessing,
        "j": front.joules(trial),
        "u": trial.train_u_joules,
        "g": trial.grams_co2e,
        "how": trial.energy_quality,
        "epochs": trial.epochs,
        "epoch_is": EPOCHS_OF.get(learner(trial)),
        "seconds": trial.energy.train_seconds,
        "parameters": trial.parameters,
        "flops": trial.flops,
        "j1000": trial.inference_joules_per_1000,
        "contended": trial.energy.contended,
        "parts": [[short_component(name), part.joules, part.quality, part.source] for name, part in trial.components.items()],
        "params": {name: _plain(value) for name, value in trial.params.items()},
        "curve": _curve(front, trial),
        "again": _again(front, trial),
        "values": dict(zip(front.objectives[2:], trial.values[2:], strict=True)),
    }


def _plain(value: Any) -> Any:
    """A parameter as JSON can hold it."""
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def _curve(front: Front, trial: Trial) -> list[dict[str, Any]]:
    """Loss and quality after each epoch, those of the trials that this one continued first."""
    points = {point.get("epoch"): point for one in reversed(front.lineage(trial)) for point in one.curve}
    name = front.objectives[0]
    # What ended an epoch early came before its validation, whose result is the trial's.
    ends = {one.curve[-1].get("epoch"): one.values[0] for one in reversed(front.lineage(trial)) if one.curve and one.values}
    return [
        {"epoch": epoch, "loss": point.get("loss"), "q": ends.get(epoch) if point.get(name) is None else point[name]}
        for epoch, point in sorted(points.items(), key=lambda item: item[0] or 0)
    ]


def _again(front: Front, trial: Trial) -> dict[str, Any] | None:
    """Means of the repeats, None without any; the energy spreads by a share."""
    member = None if front.repeated is None else front.repeated.summary_of(trial.number)
    if member is None or member.quality is None:
        return None
    spreads = {"q": member.quality, "test": member.test, "j": member.energy}
    return {
        "n": member.quality.n,
        **{name: None if one is None else [one.mean, one.sd, one.low, one.high] for name, one in spreads.items()},
    }


def _shared(trials: Sequence[Trial]) -> dict[str, Any]:
    """Parameters that two or more members all have alike."""
    if len(trials) < 2:
        return {}
    first, *others = (trial.params for trial in trials)
    return {name: _plain(value) for name, value in first.items() if all(name in one and one[name] == value for one in others)}


def _choice(front: Front) -> dict[str, Any] | None:
    """The members that rules name, as ``--pick`` does, and which pairs cannot be told apart."""
    if not front.members:
        return None
    choice = front.choice
    pairs = []
    if len(front) <= MOST_PAIRED and not choice.basis.startswith("repeats"):
        pairs = [[one.number, two.number] for one, two in combinations(front, 2) if front.evidence.ties(one, two)]
    return {
        "sensible": choice.pick,
        "best": front.best().number,
        "knee": front.knee().number,
        "cheapest": choice.cheapest,
        "why": choice.why,
        "basis": choice.basis,
        "ties": [number for number in choice.ties if choice.standings[number].beats_guessing is not False] or list(choice.ties),
        "pairs": pairs,
        "marks": {str(number): text for number, text in marks_of(front).items()},
    }


def _default(front: Front) -> dict[str, Any] | None:
    trial = front.baseline
    if trial is None or front.why_not(trial) is not None or not front.members:
        return None
    ties = [one.number for one in front if tied(front, one, trial)]
    known, alike = [one.number for one in front], [one.number for one in front if front.alike(one, trial)]
    facts = {"n": trial.number, "q": trial.values[0], "j": trial.train_joules, "on_front": trial in front}
    return {**facts, "ties": ties, "compared": known, "alike": alike}


def _others(front: Front) -> list[list[float]]:
    """Number, quality and joules of the measured trials that are not on the front, rounded to what a picture can show."""
    members = {trial.number for trial in front}
    return [
        [trial.number, _rounded(trial.values[0], 5), _rounded(front.joules(trial), 4)]
        for trial in front.trials
        if trial.number not in members and front.why_not(trial) in (None, "not trained to the last rung")
    ]


def _rounded(value: float, significant: int) -> float:
    return float(f"{value:.{significant}g}")


def _all_trials(run: Run) -> dict[str, Any]:
    """Every trial by columns, its number last, texts by their place in a list: 10,000 of them stay small."""
    texts: dict[str, int] = {}

    def place(text: str) -> int:
        return texts.setdefault(text, len(texts))

    names = sorted({name for trial in run.trials for name in trial.params})
    rows = [
        [
            place(trial.state),
            trial.epochs,
            _rounded(trial.values[0], 5) if trial.values else None,
            None if trial.train_joules is None else _rounded(trial.train_joules, 4),
            None if trial.increment_joules is None else _rounded(trial.increment_joules, 4),
            place(trial.energy_quality),
            trial.parent,
            None if not trial.reason else place(trial.reason[:500]),
            trial.number,
        ]
        for trial in run.trials
    ]
    return {
        "texts": list(texts),
        "rows": rows,
        "params": {name: _column([trial.params.get(name) for trial in run.trials]) for name in names},
    }


def _column(values: Sequence[Any]) -> dict[str, Any]:
    """Values as places in a list of the different ones where that is shorter, else the values themselves."""
    plain = [_rounded(value, 4) if isinstance(value, float) else _plain(value) for value in values]
    different = list(dict.fromkeys((type(value), value) for value in plain))
    if len(different) > max(1, len(plain) // 2):
        return {"values": plain}
    where = {one: number for number, one in enumerate(different)}
    return {"of": [value for _, value in different], "at": [where[type(value), value] for value in plain]}


def _bill(run: Run) -> dict[str, Any]:
    bill = run.bill
    members = tuple(Front.of(run))
    paid = [trial for trial in run.trials if trial.increment_joules is not None]
    wall = bill.at_wall
    return {
        "total": bill.total_joules,
        "u": bill.u_joules,
        "seconds": bill.seconds,
        "uses": uses_of(run, members),
        "validation": sum(trial.energy.evaluation_joules or 0.0 for trial in paid),
        "parts": [
            [short_component(name), part.joules, part.quality, part.source]
            for name, part in sorted(bill.components.items(), key=lambda item: -(item[1].joules or 0.0))
        ],
        "absent": [[short_component(name), reason] for name, reason in bill.absent.items()],
        "lost": [[short_component(name), seconds] for name, seconds in bill.unknown_seconds.items() if seconds > 0],
        "gaps": " ".join(filter(None, [bill.gaps(), run.apart()])) or None,
        "wall": None if wall is None else {"joules": wall.joules, "u": wall.u_joules, "how": wall.quality, "by": wall.source},
    }


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


def _ranking(front: Front, target: Any) -> dict[str, Any]:
    found = importance(front, target)
    return {
        "target": found.target,
        "r2": found.r2,
        "trials": found.trials,
        "reason": found.reason,
        "method": found.method() if found.parameters else "",
        "bars": [[name, max(0.0, drop), sd] for name, drop, sd in found.parameters[:8]],
    }


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
