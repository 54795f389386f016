"""A front as a table, for the terminal and for a notebook."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .front import Front
    from .trial import Trial


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        title: Name and unit.
        show: Text of a trial.
        right: Whether it is aligned to the right.
        ratio: Share of the width that is left over, or None for a column of fixed width.
    """

    title: str
    show: Callable[[Trial], str]
    right: bool = True
    ratio: int | None = None


def columns_of(front: Front) -> list[Column]:
    """Return the columns that have something to say about this front."""
    members = front.members
    columns = [
        Column("trial", lambda trial: str(trial.number)),
        Column("epochs", lambda trial: str(trial.epochs)),
        Column(front.objectives[0], lambda trial: f"{trial.values[0]:.4f}"),
        Column("train Wh", _energy),
    ]
    if any(trial.grams_co2e is not None for trial in members):
        columns.append(Column("gCO2e", lambda trial: _digits(trial.grams_co2e)))
    if any(trial.inference_joules_per_1000 is not None for trial in members):
        columns.append(Column("J per 1,000", lambda trial: _digits(trial.inference_joules_per_1000)))
    if any(trial.parameters is not None for trial in members):
        columns.append(Column("parameters", lambda trial: "-" if trial.parameters is None else f"{trial.parameters:,}"))
    marks = marks_of(front)
    return [
        *columns,
        Column("energy", lambda trial: trial.energy_quality, right=False),
        Column("", lambda trial: marks.get(trial.number, ""), right=False),
        Column("model", lambda trial: model_text(trial), right=False, ratio=1),
    ]


def marks_of(front: Front) -> dict[int, str]:
    """Return ``cheapest``, ``knee``, ``best`` and ``≈`` (as cheap as the row above, within the uncertainty) by trial number."""
    if not front.members:
        return {}
    marks: dict[int, list[str]] = {}
    for name, trial in (("cheapest", front.cheapest()), ("knee", front.knee()), ("best", front.best())):
        marks.setdefault(trial.number, []).append(name)
    for _, second in front.indistinguishable():
        marks.setdefault(second.number, []).append("≈")
    return {number: " ".join(words) for number, words in marks.items()}


def model_text(trial: Trial) -> str:
    """The parameters of a trial in one line; names in full, numbers short.

    >>> from .trial import Trial
    >>> model_text(Trial(0, "complete", {"family": "mlp", "lr": 0.00123456, "width": 64}, 1))
    'mlp, lr=0.00123, width=64'
    """
    parts = []
    for name, value in trial.params.items():
        text = f"{value:.3g}" if isinstance(value, float) else str(value)
        parts.append(text if name in ("family", "model", "architecture") else f"{name}={text}")
    return ", ".join(parts)


def to_text(front: Front, *, width: int | None = None) -> str:
    """Render the front for a terminal; a last line says what the marks mean and how sure the energies are."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    if not front.members:
        return repr(front)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, expand=False)
    columns = columns_of(front)
    for column in columns:
        table.add_column(
            column.title,
            justify="right" if column.right else "left",
            no_wrap=True,
            overflow="ellipsis" if column.ratio else "fold",
            ratio=column.ratio,
        )
    for trial in front:
        table.add_row(*(column.show(trial) for column in columns))
    out = io.StringIO()
    console = Console(file=out, width=width or max(100, Console().width), color_system=None, highlight=False, emoji=False, markup=False)
    console.print(table)
    lines = [line.rstrip() for line in out.getvalue().splitlines()]
    return "\n".join([*[line for line in lines if line], footnote(front)])


def footnote(front: Front) -> str:
    """Say what the table rests on: how many trials, how the energy is known, which neighbours are ties."""
    kinds = sorted({trial.energy_quality for trial in front})
    text = f"{len(front)} of {len(front.trials)} trials are on the front; their energy is {' and '.join(kinds)}."
    if front.indistinguishable():
        text += " ≈ costs the same as the row above within the uncertainty of the meter."
    return text


def to_html(front: Front) -> str:
    """Render the front for a notebook."""
    if not front.members:
        return f"<p>{escape(repr(front))}</p>"
    columns = columns_of(front)
    head = "".join(f'<th style="text-align:{_side(c)}">{escape(c.title)}</th>' for c in columns)
    body = "".join(
        "<tr>" + "".join(f'<td style="text-align:{_side(c)}">{escape(c.show(trial))}</td>' for c in columns) + "</tr>" for trial in front
    )
    summary = escape(repr(front).strip("<>"))
    return f"<p><b>{summary}</b></p><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table><p>{escape(footnote(front))}</p>"


def _side(column: Column) -> str:
    return "right" if column.right else "left"


def _energy(trial: Trial) -> str:
    if trial.train_wh is None:
        return "-"
    if not trial.train_u_joules:
        return _digits(trial.train_wh)
    return f"{_digits(trial.train_wh)} ±{100 * trial.train_u_joules / (trial.train_joules or 1.0):.2g} %"


def _digits(value: float | None) -> str:
    """Three significant digits without an exponent; ``-`` when unknown."""
    if value is None:
        return "-"
    if value == 0 or abs(value) >= 1000:
        return f"{value:,.0f}"
    from math import floor, log10

    return f"{value:.{max(0, 2 - floor(log10(abs(value))))}f}"
