"""A front that shows itself: as text, rows, a data frame, a picture, and in a notebook."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..argument_types import refuse_wrong_types
from ..certainty import examples_text
from ..formatting import grams_text, grid, grid_width, joules_text, narrowed, paragraphs, terminal_width, wrapped
from ..front import Front
from ..records.trial import Trial
from . import table
from .facts import short_component
from .table import Column, columns_of, empty_text, footnote, marks_of, model_parts, model_text

#: A model's own column has at least so many characters, or it stands in a line of its own under its row.
LEAST_MODEL = 30
#: Columns that give way on a narrow terminal, the first one first; those that are objectives after all others.
OPTIONAL = ("parameters", "epochs", "95 %")


def front_text(front: Front, *, width: int | None = None) -> str:
    """Render the front for a terminal, as wide as that, 100 characters where there is none; no line is wider.

    Parameters that the models of a family share stand once above; the last lines explain the marks and how the energies are known.
    """
    if not front.members:
        return empty_text(front)
    width = width or terminal_width()
    shared = shared_parts(front.members)
    models: Mapping[int, str] = {trial.number: model_text(trial, shared.get(trial.family, ())) for trial in front}
    marks = marks_of(front)
    plain = [column for column in columns_of(front) if column.title != "model"]
    least = LEAST_MODEL if any(models.values()) else 0
    optional = [title for title in OPTIONAL if title not in front.objectives]
    beside = _narrowed(front, plain, optional[:-1], width - 2 - least)  # an interval is worth a line of its own for the model
    if grid_width(_cells(front, beside)) + 2 + least <= width:
        models = _with_epochs(front, beside, models)
        columns = [*beside, Column("model", lambda trial: models[trial.number], right=False)] if any(models.values()) else beside
        table = _grid(front, columns, width).splitlines()
    else:  # marks and model in a line of their own
        columns = _narrowed(front, [column for column in plain if column.title], [*optional, *OPTIONAL], width)
        models = _with_epochs(front, columns, models)
        rows = _grid(front, columns, None).splitlines()
        table = rows[:2]
        for row, trial in zip(rows[2:], front, strict=True):
            below = ": ".join(text for text in (marks.get(trial.number, ""), models[trial.number]) if text)
            table += [row, *wrapped(below, width, "       ")]
    common = [f"{family or 'all'}: {', '.join(parts.values())} (the same in all its models)" for family, parts in shared.items()]
    above = [line for text in common for line in wrapped(text, width)]
    return "\n".join([*above, *([""] if above else []), *table, "", *wrapped(footnote(front), width)])


def one_model(front: Front, trial: Trial) -> str:
    """Say of one model, a member or not, what is known of it: interval, energy with its kind, place on the front, parameters."""
    one, name = front.standing(trial), front.objectives[0]
    marks = marks_of(front).get(trial.number) or ("" if trial in front else "not on the front")
    lines = [f"trial {trial.number}{f' ({marks})' if marks else ''}: {front.describe(trial)}"]
    if one.low is not None and one.high is not None:
        counted = examples_text(one.examples, front.evidence.folds)
        counted = f", from {counted}" if one.right is None else f", {one.right:,} of {counted} right"
        lines.append(f"{name} {front.quality_text(one.low)} to {front.quality_text(one.high)} (95 %){counted}")
    else:
        lines.append(f"the interval of its {name} is unknown: how many examples it was validated on was not kept")
    parts = [f"{short_component(key)} {joules_text(part.joules)} {part.quality}" for key, part in trial.components.items()]
    grams = [] if trial.grams_co2e is None else [grams_text(trial.grams_co2e)]
    lines.append("energy " + ", ".join([trial.energy_quality, *parts, *grams]))
    if front.members and trial.number == front.choice.pick:
        lines.append(f"sensible is {front.choice.why}")
    lines.append(model_text(trial))
    return "\n".join(paragraphs(line) for line in lines)


def shared_parts(trials: Sequence[Trial]) -> dict[str, Mapping[str, str]]:
    """Return by family the parameters that all its models have in common, where it has two or more, its own name left out.

    >>> from joulefront.search.records.trial import Trial
    >>> shared_parts([Trial(n, "complete", {"family": "mlp", "mlp.depth": 1, "mlp.width": n}, 1) for n in (8, 9)])
    {'mlp': {'depth': 'depth=1'}}
    """
    groups: dict[str, list[dict[str, str]]] = {}
    for trial in trials:
        groups.setdefault(trial.family, []).append(model_parts(trial))
    found: dict[str, Mapping[str, str]] = {}
    for family, (first, *others) in groups.items():
        parts = {k: text for k, text in first.items() if k != "family" and others and all(one.get(k) == text for one in others)}
        if parts:
            found[family] = parts
    return found


def _with_epochs(front: Front, columns: Sequence[Column], models: Mapping[int, str]) -> Mapping[int, str]:
    """Texts of models, with the epochs where their column has given way: rows of one model are told apart by them."""
    if any(column.title == "epochs" for column in columns):
        return models
    return {trial.number: ", ".join(filter(None, (models[trial.number], f"epochs={trial.epochs}"))) for trial in front}


def _cells(front: Front, columns: Sequence[Column]) -> list[list[str]]:
    return [[column.title for column in columns], *([column.show(trial) for column in columns] for trial in front)]


def _narrowed(front: Front, columns: Sequence[Column], optional: Sequence[str], width: int) -> list[Column]:
    return [columns[place] for place in narrowed(_cells(front, columns), optional, width)]


def _grid(front: Front, columns: Sequence[Column], width: int | None) -> str:
    """Align the rows; with a width the last column goes on in the next line where it is too wide."""
    cells = _cells(front, columns)
    if width is not None:
        room, shown = width - grid_width([row[:-1] for row in cells]) - 2, []
        for row in cells:
            first, *rest = wrapped(row[-1], room) or [""]
            shown += [[*row[:-1], first], *([""] * (len(row) - 1) + [more] for more in rest)]
        cells = shown
    return grid(cells, [column.right for column in columns])


class FrontView(Front):
    """A front with its tables and pictures; what `joulefront.search.run` and `joulefront.search.load` return."""

    to_rows = table.to_rows
    to_csv = table.to_csv
    to_frame = table.to_frame
    to_text = front_text
    _repr_html_ = table.to_html

    def plot(self, path: str | Path | None = None) -> Any:
        """Draw the front to a file that ends in .html, .png or .svg and return its path; without one, return an interactive figure.

        Raises:
            ValueError: If the file has another ending, or there is no front to draw.
        """
        refuse_wrong_types(FrontView.plot, {"path": path}, path="write 'front.html'")
        if path is not None:
            return save_front(self, path)
        from .plotly_front import front_plotly

        return front_plotly(self)


def save_front(front: Front, path: str | Path) -> Path:
    """Write the picture of a front in the format of the file's ending: .html (interactive), .png or .svg.

    Raises:
        ValueError: If the file has another ending, or there is no front to draw.
    """
    target = Path(path)
    if target.suffix.lower() not in (".html", ".png", ".svg"):
        raise ValueError(f"-o {str(path)!r}: a plot ends in one of .html, .png, .svg, for example {target.stem or 'front'}.html")
    if not front.members:
        raise ValueError(f"nothing to draw in {str(path)!r}. {table.empty_text(front)}")
    if target.suffix.lower() == ".html":  # matplotlib and plotly are loaded only when they draw
        from .plotly_front import front_html

        return front_html(front, target)
    from .matplotlib_front import front_figure, save_figure

    return save_figure(front_figure(front), target)
