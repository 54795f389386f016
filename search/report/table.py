"""A front as a table: rows for programs (JSON, CSV, data frame), text for people (terminal, notebook).

The keys of the rows are stable and name their units.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from ..argument_types import refuse_wrong_types
from ..energy.record import sum_known
from ..formatting import Unit, digits, percent, plain, unit_for
from ..lifetime import to_csv as rows_to_csv
from ..pareto import LOGARITHMIC
from ..records.replicates import ENOUGH, row_of
from ..records.run import EPOCHS_OF, learner
from .facts import TYPICAL_SPREAD, over_default, scale_share

if TYPE_CHECKING:
    import pandas as pd

    from ..energy.intervals import Spread
    from ..front import Front
    from ..records.trial import Trial

# -- rows for programs -----------------------------------------------------------------------------------------------------------------

#: Keys of a row, in order. ``quality`` is that of the energy: measured, estimated, mixed or absent; ``contended``: beside foreign work.
KEYS = (
    "trial",
    "epochs",
    "accuracy",
    "train_joules",
    "train_wh",
    "grams_co2e",
    "inference_joules_per_1000",
    "parameters",
    "quality",
    "params",
    "contended",
    "low",
    "high",
    "validation_examples",
    "right",
    "ties_best",
    "beats_guessing",
    "sensible",
    "baseline",
    "validation_folds",
)


def keys_of(front: Front) -> list[str]:
    """Return the keys of a front's rows: ``KEYS``, quality objectives other than accuracy after that, and those of repeats at the end."""
    own = [name for name in (front.objectives[0], *_further(front)) if name != "accuracy"]
    return [key for name in KEYS for key in ([name, *own] if name == "accuracy" else [name])] + _repeat_keys(front)


def _further(front: Front) -> list[str]:
    """Objectives after the first that are no cost, e.g. a second quality."""
    return [name for name in front.objectives[1:] if name not in LOGARITHMIC]


def to_rows(front: Front, trials: Iterable[Trial] | None = None) -> list[dict[str, Any]]:
    """Return one JSON object a member, or a trial of some others, None where unknown."""
    refuse_wrong_types(to_rows, {"trials": trials}, trials="to write what is returned, Path('front.csv').write_text(front.to_csv())")
    return [
        {
            "trial": trial.number,
            "epochs": trial.epochs,
            "accuracy": front.quality_of(trial, "accuracy"),
            **({} if front.objectives[0] == "accuracy" else {front.objectives[0]: trial.values[0]}),
            **{name: trial.values[front.objectives.index(name)] for name in _further(front)},
            "train_joules": trial.train_joules,
            "train_wh": trial.train_wh,
            "grams_co2e": trial.grams_co2e,
            "inference_joules_per_1000": trial.inference_joules_per_1000,
            "parameters": trial.parameters,
            "quality": trial.energy_quality,
            "params": dict(trial.params),
            **({"members": list(trial.members)} if trial.members else {}),
            "contended": trial.energy.contended,
            **_standing(front, trial),
            **_repeated(front, trial),
        }
        for trial in (front if trials is None else trials)
    ]


def _standing(front: Front, trial: Trial) -> dict[str, Any]:
    """How surely the quality of a member is known: the 95 % interval, and whether it is the recommended one."""
    one = front.standing(trial)
    return {
        "low": one.low,
        "high": one.high,
        "validation_examples": one.examples,
        "right": one.right,
        "ties_best": one.ties_best,
        "beats_guessing": one.beats_guessing,
        "sensible": bool(front.members) and trial.number == front.choice.pick,
        "baseline": trial.is_default,
        "validation_folds": front.evidence.folds or None,
    }


def _repeat_keys(front: Front) -> list[str]:
    if front.repeated is None:
        return []
    spreads = [f"repeats_{name}_{part}" for name in (front.objectives[0], "train_joules") for part in ("n", "mean", "sd", "low", "high")]
    return [*spreads, "next_differs_in_energy", "next_differs_in_quality"]


def _repeated(front: Front, trial: Trial) -> dict[str, Any]:
    member = None if front.repeated is None else front.repeated.summary_of(trial.number)
    known = {} if front.repeated is None or member is None else row_of(front.repeated, member)
    return {key: known.get(key) for key in _repeat_keys(front)}


def to_csv(front: Front, trials: Iterable[Trial] | None = None) -> str:
    """Return the rows, see ``flat_rows``, as CSV with a header; unknown is empty."""
    rows = flat_rows(front, trials)
    return rows_to_csv(rows, () if rows else keys_of(front))


def flat_rows(front: Front, trials: Iterable[Trial] | None = None) -> list[dict[str, Any]]:
    """Return the rows with the same keys in all; ``params``, and ``members`` where there is an ensemble, are JSON."""
    rows, keys = to_rows(front, trials), keys_of(front)
    if any("members" in row for row in rows):
        keys.insert(keys.index("params") + 1, "members")
    nested = ("params", "members")
    return [{key: json.dumps(row[key], sort_keys=True) if key in nested and key in row else row.get(key) for key in keys} for row in rows]


def to_frame(front: Front) -> pd.DataFrame:
    """Return the rows as a data frame; parameters become columns ``params_NAME``, as in Optuna's own."""
    import pandas as pd

    rows = to_rows(front)
    for row in rows:
        row |= {f"params_{name}": value for name, value in row.pop("params").items()}
    return pd.DataFrame(rows) if rows else pd.DataFrame(columns=[key for key in keys_of(front) if key != "params"])


# -- text for people -------------------------------------------------------------------------------------------------------------------


#: Marks what was trained beside foreign work.
FOREIGN = "†"


@dataclass(frozen=True)
class Column:
    """A column of the table for people: its title with the unit, the text of a trial, and whether it is aligned to the right."""

    title: str
    show: Callable[[Trial], str]
    right: bool = True


def columns_of(front: Front) -> list[Column]:
    """Return the columns for which this front has values."""
    members = front.members
    unit = unit_for(trial.train_joules for trial in members)
    columns = [
        Column("trial", lambda trial: str(trial.number)),
        Column("epochs", lambda trial: str(trial.epochs)),
        Column(front.objectives[0], lambda trial: front.quality_text(trial.values[0])),
        *(_further_column(name, front.objectives.index(name)) for name in _further(front)),
        Column(f"train {unit.name}", lambda trial: unit.number(trial.train_joules)),
    ]
    if any(one.low is not None for one in (front.choice.standings.values() if members else ())):
        columns.insert(3, Column("95 %", lambda trial: _interval(front, trial)))
    columns += _repeat_columns(front, unit)
    carbon = [trial.grams_co2e for trial in members if trial.grams_co2e is not None]
    if carbon:
        mass = unit_for(carbon, "gCO2e")
        columns.append(Column(mass.name, lambda trial: mass.number(trial.grams_co2e)))
    if "inference_energy" in front.objectives:
        columns.append(Column("J per 1,000", lambda trial: digits(trial.inference_joules_per_1000)))
    if any(trial.parameters is not None for trial in members):
        columns.append(Column("parameters", lambda trial: _count(trial.parameters)))
    marks = marks_of(front)
    if len({trial.energy_quality for trial in members}) > 1:  # one kind throughout stands in the last line
        columns.append(Column("energy", lambda trial: trial.energy_quality, right=False))
    return [*columns, Column("", lambda trial: marks.get(trial.number, ""), right=False), Column("model", model_text, right=False)]


def _further_column(name: str, place: int) -> Column:
    return Column(name, lambda trial: f"{trial.values[place]:.4f}")


def _interval(front: Front, trial: Trial) -> str:
    one = front.choice.standings[trial.number]
    return "-" if one.low is None or one.high is None else f"{front.quality_text(one.low)}–{front.quality_text(one.high)}"


def _repeat_columns(front: Front, unit: Unit) -> list[Column]:
    if front.repeated is None:
        return []
    quality = {member.trial.number: member.quality for member in front.repeated.members}
    energy = {member.trial.number: member.energy for member in front.repeated.members}
    return [
        Column("repeats", lambda trial: quality_text(quality.get(trial.number), front.decimals)),
        Column(f"repeats {unit.name}", lambda trial: energy_spread_text(energy.get(trial.number), unit)),
    ]


def quality_text(spread: Spread | None, decimals: int = 4) -> str:
    """Mean and standard deviation of a quality; ``-`` when unknown."""
    return "-" if spread is None else f"{spread.mean:.{decimals}f}" + ("" if spread.sd is None else f" ±{spread.sd:.{decimals}f}")


def energy_spread_text(spread: Spread | None, unit: Unit) -> str:
    """Mean of an energy and its standard deviation in percent; ``-`` when unknown."""
    if spread is None:
        return "-"
    shown = unit.number(spread.mean)
    return shown if spread.sd is None or spread.mean <= 0 else f"{shown} ±{percent(spread.sd / spread.mean)} %"


def marks_of(front: Front) -> dict[int, str]:
    """Return ``cheapest``, ``sensible``, ``knee``, ``best``, ``≈`` (as cheap as the row above) and ``≡`` (equal in quality, too) by number.

    ``†`` marks what was trained beside foreign work. Where both rows have repeats these decide, else the uncertainty of the meter.
    """
    if not front.members:
        return {}
    marks: dict[int, list[str]] = {}
    for name, trial in (("cheapest", front.cheapest()), ("sensible", front.sensible()), ("knee", front.knee()), ("best", front.best())):
        marks.setdefault(trial.number, []).append(name)
    for first, second in pairwise(front.members):
        if sign := _tie(front, first, second):
            marks.setdefault(second.number, []).append(sign)
    for trial in front.members:
        if trial.energy.contended:
            marks.setdefault(trial.number, []).append(FOREIGN)
    return {number: " ".join(words) for number, words in marks.items()}


def _tie(front: Front, first: Trial, second: Trial) -> str:
    pair = None if front.repeated is None else front.repeated.after(first.number)
    if pair is None or pair.other != second.number or pair.energy is None:
        return "≈" if front.alike(first, second) else ""
    assert front.repeated is not None
    again = [front.repeated.summary_of(trial.number) for trial in (first, second)]
    few = min(one.energy.n if one is not None and one.energy is not None else 0 for one in again) < ENOUGH
    if pair.energy.clear or (few and not front.alike(first, second)):  # few repeats say little: the meter decides
        return ""
    return "≈" if pair.quality is None or pair.quality.clear or (few and not front.evidence.ties(first, second)) else "≡"


def model_parts(trial: Trial) -> dict[str, str]:
    """The parameters of a trial as short texts by name: the family by its value alone, its own parameters without its name before them."""
    parts = {}
    for name, value in trial.params.items():
        text = f"{value:.3g}" if isinstance(value, float) else str(value)
        short = name.removeprefix(f"{trial.family}.") if trial.family else name
        parts[short] = text if short in ("family", "model", "architecture") else f"{short}={text}"
    if trial.members:
        parts["members"] = "of trials " + " ".join(f"{one}" for one in dict.fromkeys(trial.members))
    return parts


def model_text(trial: Trial, without: Collection[str] = ()) -> str:
    """The parameters of a trial in one line, without those of some names.

    >>> from joulefront.search.records.trial import Trial
    >>> model_text(Trial(0, "complete", {"family": "mlp", "lr": 0.00123456, "mlp.width": 64}, 1))
    'mlp, lr=0.00123, width=64'
    """
    return ", ".join(text for name, text in model_parts(trial).items() if name not in without)


def empty_text(front: Front) -> str:
    """Explain in a sentence why there is no member, and what to do."""
    if not front.trials:
        return f"The front of {front.name!r} is empty: no trial has started. Start or continue the search with joulefront run."
    reasons = [reason for trial in front.trials if (reason := front.why_not(trial))]
    counted = ", ".join(f"{reasons.count(reason)} {reason}" for reason in sorted(set(reasons)))
    remedy = "joulefront report shows why trials failed; joulefront run continues the search where that has been put right."
    if front.complete_only and "not trained to the last rung" in reasons:
        remedy = "Models that were stopped early count without complete_only."
    return f"The front of {front.name!r} is empty: of {len(front.trials)} trials {counted}. {remedy}"


def footnote(front: Front) -> str:
    """Explain the table: how many trials, how the energy is known and how well, which neighbours are ties."""
    kinds = sorted({trial.energy_quality for trial in front})
    text = f"{len(front)} of {len(front.trials)} trials are on the front; their energy is {' and '.join(kinds)}. {_spread_text(front)}"
    scale = scale_share(front)
    text += "" if scale is None else f" The scale, common to all rows, is known to ±{percent(scale)} % (standard uncertainty)."
    choice = front.choice
    text += f" sensible: trial {choice.pick}, {choice.why}."
    if choice.guessing is not None:
        behind = sum(one.beats_guessing is False for one in choice.standings.values())
        text += f" Guessing gives {front.objectives[0]} {plain(choice.guessing)}"
        text += f"; {behind} of the rows {'is' if behind == 1 else 'are'} not better." if behind else "."
    text += "" if (gained := over_default(front)) is None else f" {gained}"
    signs = " ".join(marks_of(front).values())
    if "≈" in signs:
        text += " ≈ costs the same as the row above within the uncertainty" + (" of the meter." if front.repeated is None else ".")
    if "≡" in signs:
        text += f" ≡ differs from the row above neither in energy nor in {front.objectives[0]}."
    if FOREIGN in signs:
        text += f" {FOREIGN} was trained while other programs used the machine: its energy is less sure."
    text += _idle_gpu(front) + epochs_note(front)
    if front.repeated is not None:
        text += " Repeats: mean ± standard deviation of trainings with fresh seeds; the front itself is what the search measured, once."
    apart = None if front.run is None else front.run.apart()
    return text + ("" if apart is None else f" {apart}")


def _spread_text(front: Front) -> str:
    """Say by how much energies of repeated trainings spread: this run's, or what is typical; the meter's alone is less and not said."""
    found = [] if front.repeated is None else [one.energy for one in front.repeated.members if one.energy is not None]
    shares = [one.sd / one.mean for one in found if one.sd is not None and one.mean > 0]
    if shares:
        return f"Energies of the same model trained again spread by {percent(min(shares))} to {percent(max(shares))} % here (sd)."
    low, high = map(percent, TYPICAL_SPREAD)
    return f"Energies of one model trained again spread by {low} to {high} % in the digits study (sd); joulefront repeat measures yours."


def epochs_note(front: Front) -> str:
    """Say what an epoch is for the models of a front for which it is no pass over the data; empty where there are none."""
    names = dict.fromkeys(name for trial in front if (name := learner(trial)) in EPOCHS_OF)
    said = [
        f"{unit} for {' and '.join(mine)}"
        for unit in dict.fromkeys(EPOCHS_OF.values())
        if (mine := [n for n in names if EPOCHS_OF[n] == unit])
    ]
    return f" An epoch is no pass over the data, but {', '.join(said)}." if said else ""


def _idle_gpu(front: Front) -> str:
    """Say how much of the energy of GPUs they would have drawn without any work; nothing where no GPU was used."""
    parts = [part for trial in front for name, part in trial.components.items() if name.startswith("gpu:")]
    joules, idle = sum_known(part.joules for part in parts), sum_known(part.idle_joules for part in parts)
    if not joules:
        return ""
    if idle is None:
        return " How much of it the GPU draws without any work is not known: --idle 10 measures that."
    return f" {idle / joules:.0%} of the GPU's part it draws without any work."


def to_html(front: Front) -> str:
    """Render the front for a notebook."""
    if not front.members:
        return f"<p>{escape(empty_text(front))}</p>"
    columns = columns_of(front)
    head = "".join(f'<th style="text-align:{_side(c)}">{escape(c.title)}</th>' for c in columns)
    body = "".join(
        "<tr>" + "".join(f'<td style="text-align:{_side(c)}">{escape(c.show(trial))}</td>' for c in columns) + "</tr>" for trial in front
    )
    summary = escape(repr(front).strip("<>"))
    return f"<p><b>{summary}</b></p><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table><p>{escape(footnote(front))}</p>"


def _side(column: Column) -> str:
    return "right" if column.right else "left"


def _count(number: int | None) -> str:
    """A count in thousands or millions; ``-`` when unknown."""
    if number is None:
        return "-"
    for size, letter in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if number >= size:
            return digits(number / size) + letter
    return str(number)
