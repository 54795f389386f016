"""The decision page: one self-contained HTML file that a template, its style and its script make of `page_data`.

These are everything that it shows of a run, as plain JSON: joules, fractions and seconds, to which it gives their units. No text is escaped
here: the page writes every one of them as text, never as markup. The scripts are allowed by their hashes alone and the page may fetch
nothing, so that no text of a run can act, and it looks the same in ten years and without a network. Observable Plot and d3 (ISC licence,
beside them in ``assets``) draw its charts.
"""

from __future__ import annotations

import base64
import hashlib
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cache
from importlib.resources import files
from itertools import combinations
from pathlib import Path
from typing import Any

from ..formatting import unit_for
from ..front import Front
from ..pareto import FRACTIONS
from ..records.examples import SHARES
from ..records.files import finite
from ..records.run import EPOCHS_OF, learner, machine_names
from ..records.run_folder import Run
from ..records.trial import Trial
from ..whole_file import whole_file
from .energy_relations import importance
from .facts import TYPICAL_MEDIAN, how_energy_is_known, hypervolume_trace, scale_share, short_component, tied, uses_of
from .pricing import hours, places
from .sections import sections
from .statement import forms
from .table import marks_of
from .view import View, choose_ticks, is_stretched, tick_candidates

#: Scripts of the page in the order in which they run.
SCRIPTS = ("d3.min.js", "plot.umd.min.js", "page.js")
#: Metrics that are shown in percent.
PERCENT = (*(name for name in FRACTIONS if name != "r2"), "error")
#: The quality axis is at least so long, on its scale, or this share of the quality: a single model is no reason for six decimals.
LEAST_STRETCH = 0.1
#: Pairs are compared with each other up to so many members, which takes a moment each; beyond that with the best one alone.
MOST_PAIRED = 80


def report_html(run: Run, path: str | Path, *, ranking: bool = True, uses: int = 0) -> Path:
    """Write the decision page of a run, finished or not; it opens ranked by training and so many ``uses``, predictions of a model.

    Without ``ranking``, while the meters run, what predicts quality and energy is left out: it takes seconds of a CPU.

    Raises:
        ValueError: If the file does not end in ``.html``.
    """
    target = Path(path)
    if target.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"-o {str(path)!r}: a report is an HTML page, write for example {target.stem or 'report'}.html")
    text = render({**page_data(run, ranking=ranking), "uses": uses})
    target.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(target) as unfinished:
        unfinished.write_text(text, encoding="utf-8", errors="backslashreplace")
    return target


def render(data: Mapping[str, Any], *, every_seconds: float | None = None) -> str:
    """Return the page of some data.

    With a number of seconds it asks the server that it came from for newer data so often while its study runs.
    """
    from jinja2 import Environment, StrictUndefined

    scripts = [asset(name) for name in SCRIPTS]
    hashes = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in scripts)
    policy = f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
    policy += "; connect-src 'self'" if every_seconds else ""
    template = Environment(autoescape=True, undefined=StrictUndefined).from_string(asset("page.html.j2"))
    return template.render(
        name=data["name"], policy=policy, style=asset("page.css"), scripts=scripts, data=data_text(data), every_seconds=every_seconds or 0
    )


def data_text(data: Mapping[str, Any]) -> str:
    """Return data as JSON that no text in it can end, whatever it holds: it stands in a script element that is never run."""
    text = json.dumps(finite(data), allow_nan=False, separators=(",", ":"), default=str)  # in ASCII, so that every file can hold it
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


@cache
def asset(name: str) -> str:
    """Return the text of a file in ``assets``."""
    return files(__package__).joinpath("assets", name).read_text(encoding="utf-8")


def page_data(run: Run, *, ranking: bool = True) -> dict[str, Any]:
    """Return what the page shows of a run, finished or not.

    Without ``ranking``, while the meters run, two things are left out: what predicts quality and energy, which takes seconds of a CPU, and
    the statement, which is of all that was spent, this page included.
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
        "statements": forms(run) if ranking else [],
    }


def _limits(front: Front) -> tuple[float, float]:
    """Ends of the quality axis: those of the picture, or of the intervals of the members."""
    view = View.of(front)
    ends = [*view.y_limits, *(view.y_of(end) for one in map(front.standing, front) for end in (one.low, one.high) if end is not None)]
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
        "values": dict(zip(front.objectives[1:], trial.values[1:], strict=True)),
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
    wall = bill.at_wall
    return {
        "total": bill.total_joules,
        "u": bill.u_joules,
        "seconds": bill.seconds,
        "uses": uses_of(run, tuple(Front.of(run))),
        "validation": sum(trial.energy.evaluation_joules or 0.0 for trial in run.trials if trial.increment_joules is not None),
        "parts": [
            [short_component(name), part.joules, part.quality, part.source]
            for name, part in sorted(bill.components.items(), key=lambda item: -(item[1].joules or 0.0))
        ],
        "absent": [[short_component(name), reason] for name, reason in bill.absent.items()],
        "lost": [[short_component(name), seconds] for name, seconds in bill.unknown_seconds.items() if seconds > 0],
        "gaps": " ".join(filter(None, [bill.gaps(), run.apart()])) or None,
        "wall": None if wall is None else {"joules": wall.joules, "u": wall.u_joules, "how": wall.quality, "by": wall.source},
    }


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
