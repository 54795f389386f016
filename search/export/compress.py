"""What quantising, compiling or pruning a finished model saves per prediction, and when that has paid for itself: ``joulefront optimise``.

Every figure is measured, so a tactic that could save only in theory, such as unstructured pruning on dense kernels, is not reported as
a saving.

Source: Gonzalez et al. 2024, arXiv:2409.12878 (tactics and the idea of the optimisation's own cost).
"""

from __future__ import annotations

import copy
import json
import math
import statistics
import textwrap
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch

from ..argument_types import refuse_wrong_types
from ..energy import Ledger, discover
from ..energy.record import sum_known
from ..formatting import digits, energies, fitted, grid_width, known
from ..records.trial import Trial
from ..study import Study
from ..training.evaluate import evaluate, metric_of, predict, sign_of
from ..training.recipe import Recipe
from ..training.task import Data, Task
from .model import ExportFailed, first_line, rebuild
from .onnx_format import quiet
from .variants import InBfloat16, in_int8, in_onnx, inputs_of, pruned, quantised

#: A window of predictions runs at least this long, far above the resolution of every meter.
WINDOW_SECONDS = 0.5
#: The table for people has at most so many columns; a longer reason stands below it.
COLUMNS, LONGEST_REASON = 80, 19


@dataclass(frozen=True)
class Spent:
    """What a measured piece of work cost, with its standard uncertainty, None when unknown; an optimisation makes no predictions."""

    joules: float | None
    u_joules: float | None
    predictions: int


class Measure(Protocol):
    """Runs work in an energy window of its own."""

    def __call__(self, work: Callable[[], int], *, repeat: bool) -> Spent:
        """Run ``work``, which returns how many predictions it made: once, or with ``repeat`` as often as the meter's resolution needs."""


@dataclass(frozen=True)
class AfterTraining:
    """One tactic on one model.

    Attributes:
        tactic: Its name, e.g. ``none`` or ``global prune 0.5``.
        quality: The metric of study or task on the data; None when it is undefined, or the tactic does not fit the model.
        joules_per_prediction: Measured energy of one prediction; None when unknown.
        u_joules_per_prediction: Its standard uncertainty; None when unknown.
        optimisation_joules: Energy of applying the tactic, first prediction included; None when unknown, 0 for ``none``.
        saving_joules: Energy saved per prediction against ``none``; None when unknown or within twice its uncertainty.
        measuring_joules: What predicting with it has cost here, all rounds and scoring together; None when unknown.
        reason: Why the tactic does not fit the model, or None.
    """

    tactic: str
    quality: float | None = None
    joules_per_prediction: float | None = None
    u_joules_per_prediction: float | None = None
    optimisation_joules: float | None = None
    saving_joules: float | None = None
    reason: str | None = None
    measuring_joules: float | None = None

    @property
    def break_even_predictions(self) -> int | None:
        """Predictions after which the optimisation has paid for itself; None when it saves nothing or an energy is unknown."""
        if self.saving_joules is None or self.saving_joules <= 0.0 or self.optimisation_joules is None:
            return None
        return math.ceil(self.optimisation_joules / self.saving_joules)


class BrokenOff(KeyboardInterrupt):
    """Ctrl-C has ended the measuring: ``rows`` and ``quality`` are what `optimise` would return, of what was measured until then."""

    def __init__(self, rows: tuple[AfterTraining, ...], quality: str = "absent") -> None:
        super().__init__()
        self.rows, self.quality = rows, quality


def optimise(
    trial: Trial,
    *,
    study: Study,
    task: Task,
    weights: Path,
    meter: str = "auto",
    prune: Sequence[float] = (0.5,),
    compile_model: bool = True,
    rounds: int = 3,
    variants: Sequence[str] = ("bfloat16", "onnx", "onnx int8"),
) -> tuple[tuple[AfterTraining, ...], str]:
    """Quantise, compile and prune copies of a trial's model, and measure what each costs and saves on the validation data.

    The weights are those that the trial kept; ``meter`` is as for ``discover``, and the rest as for ``compare_after_training``. All of it
    runs on the CPU, so GPUs are not counted. Beside the rows, that of the unchanged model first, the quality of the energies is returned:
    measured, estimated, mixed or absent.

    Raises:
        ValueError: If the trial cannot be rebuilt, or a share or the rounds are out of range.
        ExportFailed: If the model is not a PyTorch module.
        BrokenOff: At Ctrl-C; it has the rows.
    """
    refuse_wrong_types(optimise, locals())
    trained = rebuild(trial, study=study, task=task, weights=weights)
    if not trained.is_torch:
        raise ExportFailed(f"trial {trial.number} is a {trained.type_name}: quantising, compiling and pruning are for networks; --pick one")
    with Ledger(discover(meter, used=())) as ledger:
        try:
            rows = compare_after_training(
                trained.model,
                task,
                task.validation,
                recipe=trained.candidate.recipe,
                measure=metered(ledger),
                prune=prune,
                compile_model=compile_model,
                rounds=rounds,
                variants=variants,
                metric=trained.metric,
            )
        except BrokenOff as broken:
            raise BrokenOff(broken.rows, ledger.total().quality) from broken
        return rows, ledger.total().quality


def compare_after_training(
    model: Any,
    task: Task,
    data: Data,
    *,
    recipe: Recipe,
    measure: Measure,
    prune: Sequence[float] = (0.5,),
    compile_model: bool = True,
    rounds: int = 3,
    variants: Sequence[str] = (),
    metric: str = "",
) -> tuple[AfterTraining, ...]:
    """Apply each tactic to a copy of a trained PyTorch model and measure it; the first row is the unchanged model.

    The data is what is predicted and scored, e.g. ``task.validation``; the recipe tells how it is fed: batch size, resolution, precision.
    `measure` runs work in an energy window. ``prune`` has shares of the weights that global magnitude pruning sets to zero, each in (0, 1).
    ``torch.compile`` takes seconds to minutes. ``variants`` are of ``bfloat16``, ``onnx`` (ONNX Runtime) and ``onnx int8``, whose ranges
    the data shows. The rounds are windows of each tactic, taken in turns; at least 2, for their scatter is part
    of the uncertainty. ``metric`` is the quality that is scored, that of the task by default.

    Raises:
        ValueError: If a share is outside (0, 1), or there are too few rounds.
        BrokenOff: At Ctrl-C; it has the rows.
    """
    if rounds < 2:
        raise ValueError(f"rounds must be >= 2, got {rounds}; one window has no scatter")
    for share in prune:
        if not 0.0 < share < 1.0:
            raise ValueError(f"prune must be shares of the weights in (0, 1), got {share}")
    tactics: list[tuple[str, Callable[[Any], Any]]] = [("none", lambda found: found), ("dynamic quantisation", quantised)]
    if compile_model:
        tactics.append(("compile", partial(torch.compile, dynamic=True)))
    tactics += [(f"global prune {share:g}", partial(pruned, share=share)) for share in prune]
    shape = task.shape_at(recipe.resolution)
    known: dict[str, Callable[[Any], Any]] = {
        "bfloat16": InBfloat16,
        "onnx": partial(in_onnx, shape=shape),
        "onnx int8": partial(in_int8, shape=shape, inputs=inputs_of(data, recipe.resolution)),
    }
    tactics += [(name, known[name]) for name in variants]
    applied, by = list[_Applied](), metric_of(task, metric)
    try:
        for name, apply in tactics:
            applied.append(_apply(name, apply, model, data, recipe, measure))
        usable = [one for one in applied if one.model is not None]
        for one in usable:
            one.scored = measure(partial(one.score, task, data, recipe, by), repeat=False)
        for one in usable * rounds:  # in turns: a drift of the machine affects all of them; the rest of it is the scatter of the rounds
            one.windows.append(measure(partial(one.predict, task, data, recipe), repeat=True))
    except KeyboardInterrupt as interrupt:
        left = (AfterTraining(name, reason="interrupted") for name, _ in tactics[len(applied) :])
        raise BrokenOff((*_rows(applied), *left)) from interrupt
    return _rows(applied)


def metered(ledger: Ledger) -> Callable[..., Spent]:
    """Return a ``Measure`` that runs work in a window of a ledger."""

    def measure(work: Callable[[], int], *, repeat: bool) -> Spent:
        made = 0
        with ledger.window("predictions" if repeat else "optimisation", kind="inference") as window:
            end = time.monotonic() + WINDOW_SECONDS
            made += work()
            while repeat and time.monotonic() < end:
                made += work()
        record = window.close(settle=True)
        return Spent(record.joules, record.u_random_joules, made)

    return measure


@dataclass
class _Applied:
    name: str
    model: Any
    optimisation_joules: float | None
    reason: str | None = None
    quality: float | None = None
    scored: Spent | None = None
    windows: list[Spent] = field(default_factory=list)

    def score(self, task: Task, data: Data, recipe: Recipe, by: str) -> int:
        self.quality = evaluate(self.model, task, data, recipe=recipe).get(by)
        return len(data)

    def predict(self, task: Task, data: Data, recipe: Recipe) -> int:
        return len(predict(self.model, task, data, recipe=recipe))

    def row(self) -> AfterTraining:
        if self.model is None:
            return AfterTraining(self.name, reason=self.reason)
        took = sum_known([0.0, *(one.joules for one in (*self.windows, self.scored) if one is not None)])
        return AfterTraining(self.name, self.quality, *_per_prediction(self.windows), self.optimisation_joules, measuring_joules=took)


def _rows(applied: Sequence[_Applied]) -> tuple[AfterTraining, ...]:
    rows = [one.row() for one in applied]
    return (*rows[:1], *(_saving(row, rows[0]) for row in rows[1:]))


def _apply(name: str, apply: Callable[[Any], Any], model: Any, data: Data, recipe: Recipe, measure: Measure) -> _Applied:
    original = copy.deepcopy(model).eval()
    if name == "none":
        return _Applied(name, original, 0.0)
    first, _ = next(iter(data.batches(2 * recipe.batch_size, resolution=recipe.resolution)))
    ready: list[Any] = []

    def optimise() -> int:
        changed = apply(original)
        with torch.no_grad():
            changed(first)  # compiling happens at the first prediction
        ready.append(changed)
        return 0

    try:
        with quiet():
            paid = measure(optimise, repeat=False)
    except Exception as error:
        return _Applied(name, None, None, first_line(error))
    return _Applied(name, ready[0], paid.joules)


def _per_prediction(windows: Sequence[Spent]) -> tuple[float | None, float | None]:
    """Mean joules of a prediction and their standard uncertainty: the meter's and the scatter of the rounds, combined."""
    joules = [window.joules / window.predictions for window in windows if window.joules is not None and window.predictions]
    known = [window.u_joules / window.predictions for window in windows if window.u_joules is not None and window.predictions]
    if not joules or len(joules) < len(windows):
        return None, None
    if len(known) < len(windows) or len(joules) == 1:
        return statistics.fmean(joules), None
    # The scatter itself, not that of the mean, which would be overconfident with a few rounds.
    return statistics.fmean(joules), math.hypot(statistics.fmean(known), statistics.stdev(joules))


def _saving(row: AfterTraining, plain: AfterTraining) -> AfterTraining:
    energies = (plain.joules_per_prediction, row.joules_per_prediction, plain.u_joules_per_prediction, row.u_joules_per_prediction)
    if any(value is None for value in energies):
        return row
    before, after, u_before, u_after = (float(value or 0.0) for value in energies)
    return row if abs(before - after) <= 2.0 * math.hypot(u_before, u_after) else replace(row, saving_joules=before - after)


def on_front(rows: Sequence[AfterTraining], metric: str = "") -> tuple[bool, ...]:
    """Return which rows are on the second front, quality against joules of a prediction: none is as good for less, or better for no more.

    What two standard uncertainties could have made is no difference in energy. Less of an error is better, if that is the ``metric``.
    """

    def beats(one: AfterTraining, two: AfterTraining) -> bool:
        less = (two.joules_per_prediction or 0.0) - (one.joules_per_prediction or 0.0)
        noise = 2.0 * math.hypot(one.u_joules_per_prediction or 0.0, two.u_joules_per_prediction or 0.0)
        better = sign_of(metric) * ((one.quality or 0.0) - (two.quality or 0.0))
        return (better >= 0.0 and less > noise) or (better > 0.0 and less >= -noise)

    known = [row.quality is not None and row.joules_per_prediction is not None for row in rows]
    return tuple(
        one and not any(other and beats(two, row) for two, other in zip(rows, known, strict=True) if two is not row)
        for row, one in zip(rows, known, strict=True)
    )


def to_text(rows: Sequence[AfterTraining], metric: str, quality: str) -> str:
    """Return the comparison as a table of at most 80 columns with an explanation; what does not fit the model is said below it."""
    cells, longest = _cells(rows, metric, LONGEST_REASON), LONGEST_REASON
    if grid_width(cells) > COLUMNS:  # the metric's name stands below, and so do the reasons
        name, longest = metric if len(metric) <= 8 else "quality", len("pays after")
        cells = _cells(rows, name, longest, unseen="none")
    table = fitted(cells, [False, False, *[True] * 5, False], COLUMNS, optional=("±2u",))
    said = [
        f"* on the front of {metric} against joules per prediction",
        f"Energies of predictions are {quality}; a saving is one that exceeds twice its uncertainty. It has paid for itself after so many "
        "predictions. To deploy: joulefront export RUN --to onnx --variant int8, or --to pt2 --variant bfloat16.",
        *_own_cost(rows),
        *(f"{row.tactic}: {row.reason}" for row in rows if row.reason is not None and len(row.reason) > longest),
    ]
    return "\n".join([table, "", *(line for text in said for line in textwrap.wrap(text, COLUMNS))])


def _own_cost(rows: Sequence[AfterTraining]) -> list[str]:
    """Say what all of this has cost, and each tactic of it: applied, and measured in all rounds."""
    costs = {row.tactic: sum_known([row.optimisation_joules, row.measuring_joules]) for row in rows if row.reason is None}
    (total, *parts), unit = energies([sum_known(costs.values()), *costs.values()])
    split = ", ".join(f"{name} {part}" for name, part in zip(costs, parts, strict=True))
    return [] if total == "-" else [f"Finding this out has cost {total} {unit}: {split}."]


def _cells(rows: Sequence[AfterTraining], metric: str, longest: int, *, unseen: str = "none seen") -> list[list[str]]:
    """Titles and rows as texts; reasons of more than ``longest`` characters are left for below."""
    cells = [["", "tactic", metric, "J/1,000", "±2u", "saves", "cost J", "pays after"]]
    for row, member in zip(rows, on_front(rows, metric), strict=True):
        if row.reason is not None:
            cells.append(["", row.tactic, "", "", "", "", "", row.reason if len(row.reason) <= longest else "see below"])
            continue
        even, unknown = row.break_even_predictions, row.joules_per_prediction is None
        cells.append(
            [
                "*" if member else "",
                row.tactic,
                "" if row.quality is None else known(row.quality, ".4f"),
                _per_1000(row.joules_per_prediction),
                _per_1000(None if row.u_joules_per_prediction is None else 2 * row.u_joules_per_prediction),
                "" if unknown else unseen if row.saving_joules is None and row is not rows[0] else _share(row, rows[0]),
                digits(row.optimisation_joules),
                "" if row is rows[0] or unknown else "never" if even is None else f"{even:,}",
            ]
        )
    return cells


def to_json(rows: Sequence[AfterTraining], quality: str, metric: str = "") -> str:
    """Return the rows as JSON, with ``break_even_predictions``."""
    members = on_front(rows, metric)
    found = [
        {**asdict(row), "break_even_predictions": row.break_even_predictions, "on_front": member}
        for row, member in zip(rows, members, strict=True)
    ]
    return json.dumps({"energy_quality": quality, "tactics": found}, indent=1, allow_nan=False)


def _per_1000(joules: float | None) -> str:
    return digits(None if joules is None else 1000 * joules)


def _share(row: AfterTraining, plain: AfterTraining) -> str:
    saved, before = row.saving_joules, plain.joules_per_prediction
    return "" if saved is None or not before else f"{saved / before:.0%}"
