"""Trials as numbers: a define-by-run space, learned from past trials, sampled and encoded a matrix at a time, and what was observed in it.

A configuration is a row of *genes*, one per parameter: a number in ``[0, 1]`` for a float or an integer, the index of the choice for a
categorical, NaN for a parameter that the configuration does not have (conditional spaces). Observations are encoded configurations with
objectives that are maximised, costs as logarithms.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from .history import History

Array = NDArray[np.float64]

#: Only a parameter with at most so many different values can be a gate.
_MAX_GATE_VALUES = 64
#: The user's function of the parameters: numbers that are known without training.
Features = Callable[[Mapping[str, Any]], Any]

#: Random configurations that give the range of each feature.
_FEATURE_SAMPLE = 64
#: A training has diverged where it is worse than the best by so many times the gap between that and the best quarter; rungs with fewer
#: measurements than these are compared with all.
_FARTHEST, _FEW = 100.0, 4
#: A positive feature is scaled logarithmically where its range spans more than this factor.
_LOG_RATIO = 20.0


@dataclass(frozen=True)
class Gate:
    """The condition of a conditional parameter: the value of another one, whose index is ``by``.

    ``off`` are the genes of that parameter (rounded to 9 digits) at which the conditional one is absent.
    """

    by: int
    off: frozenset[float]


@dataclass(frozen=True)
class Encoding:
    """The parameters of a study and their encoding.

    ``fixed`` holds the parameters that all configurations have with a single value, ``distributions`` the others, in a fixed order;
    ``gates`` the conditional ones by index.
    """

    distributions: Mapping[str, BaseDistribution]
    fixed: Mapping[str, Any] = field(default_factory=dict)
    gates: Mapping[int, Gate] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Number of genes."""
        return len(self.distributions)

    @property
    def groups(self) -> NDArray[np.int64]:
        """Index of the parameter behind each encoded column, ``(columns,)``."""
        return np.repeat(np.arange(self.size), [_width(d) for d in self.distributions.values()]).astype(np.int64)

    @property
    def numeric_columns(self) -> NDArray[np.bool_]:
        """Which encoded columns are ordered parameters, not one-hot choices, ``(columns,)``."""
        return np.repeat(self.choices() == 0, [_width(d) for d in self.distributions.values()])

    def genes(self, params: Mapping[str, Any]) -> Array:
        """Return the genes of one configuration, ``(size,)``; NaN where it lacks a parameter."""
        row = np.full(self.size, np.nan)
        for index, (name, distribution) in enumerate(self.distributions.items()):
            if name in params:
                row[index] = _gene(distribution, params[name])
        return row

    def params(self, genes: Array) -> dict[str, Any]:
        """Decode a row of genes; absent parameters are left out."""
        return self.rows(genes[None])[0]

    def rows(self, genes: Array) -> list[dict[str, Any]]:
        """Decode ``(n, size)`` genes; absent parameters are left out."""
        found = [dict(self.fixed) for _ in genes]
        for name, distribution, column in zip(self.distributions, self.distributions.values(), genes.T, strict=True):
            present = np.flatnonzero(~np.isnan(column))
            for row, value in zip(present, _values(distribution, column[present]), strict=True):
                found[row][name] = value
        return found

    def columns(self, genes: Array) -> Array:
        """Encode ``(n, size)`` genes as ``(n, columns)``: ordered ones as they are, choices one-hot, absent ones as 0.5 or all zero."""
        blocks = []
        for index, distribution in enumerate(self.distributions.values()):
            gene = genes[:, index]
            if isinstance(distribution, CategoricalDistribution):
                hot = (gene[:, None] == np.arange(len(distribution.choices))).astype(float)
                blocks.append(hot[:, 1:] if hot.shape[1] == 2 else hot)
            else:
                blocks.append(np.where(np.isnan(gene), 0.5, gene)[:, None])
        return np.hstack(blocks) if blocks else np.zeros((len(genes), 0))

    def random(self, rng: np.random.Generator, count: int) -> Array:
        """Draw ``(count, size)`` genes uniformly (in the log where the parameter is logarithmic)."""
        return self.settle(self._drawn(rng, count))

    def settle(self, genes: Array) -> Array:
        """Make genes valid: round ordered ones to their grid, and set those that their gate switches off to NaN."""
        genes = genes.copy()
        for index, distribution in enumerate(self.distributions.values()):
            genes[:, index] = _snap(distribution, genes[:, index])
        for _ in range(len(self.gates)):  # a gate can itself be conditional: repeat until the deepest is settled
            before = np.isnan(genes)
            for index, gate in self.gates.items():
                by = genes[:, gate.by]
                absent = np.isnan(by) | np.isin(np.round(by, 9), list(gate.off))
                genes[absent, index] = np.nan
            if np.array_equal(before, np.isnan(genes)):
                break
        return genes

    def fill(self, genes: Array, rng: np.random.Generator) -> Array:
        """Draw the missing genes, so that a parameter that a mutation switches on has a value."""
        return np.where(np.isnan(genes), self._drawn(rng, len(genes)), genes)

    def _drawn(self, rng: np.random.Generator, count: int) -> Array:
        drawn, choices = rng.random((count, self.size)), self.choices()
        return np.where(choices > 0, np.floor(drawn * choices), drawn)

    def choices(self) -> NDArray[np.int64]:
        """Number of choices of each categorical parameter, 0 for an ordered one, ``(size,)``."""
        counts = [len(d.choices) if isinstance(d, CategoricalDistribution) else 0 for d in self.distributions.values()]
        return np.array(counts, dtype=np.int64)


def learn_encoding(seen: Sequence[Mapping[str, Any]], distributions: Mapping[str, BaseDistribution]) -> Encoding:
    """Learn the space from past configurations: which parameters exist, and which values switch the conditional ones on.

    ``distributions`` holds the latest one of every parameter that appears in the configurations.
    """
    conditional = {name for name in distributions if len({name in params for params in seen}) == 2}
    fixed = {name: _values(d, np.zeros(1))[0] for name, d in sorted(distributions.items()) if d.single() and name not in conditional}
    encoding = Encoding({name: d for name, d in sorted(distributions.items()) if name not in fixed}, fixed)
    if not conditional:
        return encoding
    genes = np.array([encoding.genes(params) for params in seen])
    names = enumerate(encoding.distributions)
    gates = {index: gate for index, name in names if name in conditional and (gate := _learn_gate(genes, index)) is not None}
    return Encoding(encoding.distributions, fixed, gates)


def _learn_gate(genes: Array, index: int) -> Gate | None:
    """Find the parameter whose value explains best where parameter ``index`` is absent; None when none helps.

    A gate must exist more often than what it controls: parameters that come and go together explain one another perfectly, and with such
    gates in a circle none of them would ever be switched off.
    """
    absent = np.isnan(genes[:, index])
    missing = np.isnan(genes).sum(0)
    found: list[tuple[int, int, Gate]] = []
    for by in np.flatnonzero(missing < absent.sum()):
        values = np.round(np.where(np.isnan(genes[:, by]), -1.0, genes[:, by]), 9)
        different = np.unique(values)
        if len(different) > _MAX_GATE_VALUES or len(different) > max(2, len(genes) // 2):
            continue
        # Where a gate is itself absent so is what it controls.
        off = {-1.0, *(float(v) for v in different if absent[values == v].mean() > 0.5)}
        wrong = int((np.isin(values, list(off)) != absent).sum())
        if wrong < min(absent.sum(), (~absent).sum()):
            found.append((wrong, len(different), Gate(int(by), frozenset(off - {-1.0}))))
    # Fewest contradictions first; then the gate with the fewest values, which is the simplest rule.
    return min(found, key=lambda one: one[:2])[2] if found else None


def _width(distribution: BaseDistribution) -> int:
    count = len(distribution.choices) if isinstance(distribution, CategoricalDistribution) else 1
    return 1 if count == 2 else count


def _bounds(distribution: BaseDistribution) -> tuple[float, float]:
    """Ends of the unit interval in the (possibly logarithmic) scale of the parameter; half a step wider where values are discrete."""
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    half = (distribution.step or 0.0) / 2
    low, high = float(distribution.low) - half, float(distribution.high) + half
    return (float(np.log(low)), float(np.log(high))) if distribution.log else (low, high)


def _gene(distribution: BaseDistribution, value: Any) -> float:
    if isinstance(distribution, CategoricalDistribution):
        return float(distribution.to_internal_repr(value))
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    low, high = _bounds(distribution)
    number = float(np.log(value)) if distribution.log else float(value)
    return (number - low) / (high - low) if high > low else 0.5


def _numbers(distribution: FloatDistribution | IntDistribution, genes: Array) -> Array:
    """Values of an ordered parameter, in range and on its grid."""
    low, high = _bounds(distribution)
    numbers = low + np.clip(genes, 0.0, 1.0) * (high - low)
    if distribution.log:
        numbers = np.exp(numbers)
    if distribution.step is not None:
        numbers = distribution.low + np.round((numbers - distribution.low) / distribution.step) * distribution.step
    return np.clip(numbers, distribution.low, distribution.high)


def _snap(distribution: BaseDistribution, genes: Array) -> Array:
    if isinstance(distribution, CategoricalDistribution):
        if len(set(distribution.choices)) == len(distribution.choices):
            return genes
        first = [distribution.to_internal_repr(choice) for choice in distribution.choices]  # of equal ones, as 0 and False are
        return np.where(np.isnan(genes), np.nan, np.array(first)[np.nan_to_num(genes).astype(int)])
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    low, high = _bounds(distribution)
    if not low < high:
        return np.where(np.isnan(genes), np.nan, 0.5)
    if distribution.step is None:
        return np.clip(genes, 0.0, 1.0)
    numbers = _numbers(distribution, genes)
    return ((np.log(numbers) if distribution.log else numbers) - low) / (high - low)


def _values(distribution: BaseDistribution, genes: Array) -> list[Any]:
    if isinstance(distribution, CategoricalDistribution):
        return [distribution.choices[index] for index in genes.astype(int).tolist()]
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    numbers = _numbers(distribution, genes).tolist()
    if isinstance(distribution, IntDistribution):
        return [round(number) for number in numbers]
    # The grid of a float with a step must survive a round trip through decimal text.
    return [round(number, 12) for number in numbers] if distribution.step is not None else numbers


@dataclass(frozen=True)
class ObjectiveTransform:
    """The transform of objective values in the user's units to values that are maximised; its arrays are ``(d,)``.

    An objective that is minimised and never negative is a cost, compared by its logarithm: half the energy is worth the same at 1 kWh as at
    1 Wh. ``signs`` are +1 to maximise, -1 to minimise; ``smallest`` is the smallest positive value, which stands for a measured zero in the
    logarithm.
    """

    signs: Array
    logarithmic: NDArray[np.bool_]
    smallest: Array

    @classmethod
    def infer(cls, minimized: Sequence[bool], values: Array) -> ObjectiveTransform:
        """Choose the transform for ``(n, d)`` values; the first objective is the quality and stays linear."""
        minimize = np.array(minimized, dtype=bool)
        logarithmic = minimize & (values >= 0).all(0) & (values > 0).any(0)
        logarithmic[0] = False
        smallest = np.array([column[column > 0].min() if log else 0.0 for column, log in zip(values.T, logarithmic, strict=True)])
        return cls(np.where(minimize, -1.0, 1.0), logarithmic, smallest)

    def apply(self, values: Array) -> Array:
        """Transform ``(n, d)`` values in the user's units."""
        safe = np.where(self.logarithmic, np.maximum(values, self.smallest), 1.0)
        return self.signs * np.where(self.logarithmic, np.log10(safe), values)


@dataclass(frozen=True)
class ObservationTable:
    """The observations of a study: ``n`` rows of ``c`` configurations.

    By configuration, ``(c,)``: the canonical texts ``keys``; encoded ``genes (c, size)``; model inputs ``columns (c, d)``, features
    included; ``longest_row`` of its trainings; whether it is ``resumable``, so that a longer one resumes its checkpoint; the epochs
    ``trained_to``, above which another one gives a new observation.

    By row, ``(n,)``: the index ``config`` of its configuration; the epochs trained; transformed objectives ``values (n, k)``; the
    ``numbers`` of the trials; ``quality_sd``, the known noise of the quality, 0 where unknown; whether no
    constraint is violated; constraint values by name, NaN where a trial did not set it.
    """

    keys: list[str]
    genes: Array
    columns: Array
    longest_row: NDArray[np.int64]
    resumable: NDArray[np.bool_]
    trained_to: Array
    config: NDArray[np.int64]
    epochs: Array
    values: Array
    numbers: NDArray[np.int64]
    quality_sd: Array
    feasible: NDArray[np.bool_]
    constraints: Mapping[str, Array]
    transform: ObjectiveTransform


@dataclass
class Encoder:
    """Genes to model inputs, with the user's features; both are cached per configuration."""

    encoding: Encoding
    features: Features | None = None
    _genes: dict[str, Array] = field(default_factory=dict)
    _extra: dict[bytes, Array] = field(default_factory=dict)
    _ranges: tuple[NDArray[np.bool_], Array, Array] | None = None

    @property
    def groups(self) -> NDArray[np.int64]:
        """Index of the parameter or feature behind each column, ``(d,)``."""
        return np.asarray(np.r_[self.encoding.groups, self.encoding.size + np.arange(self._feature_count())], dtype=np.int64)

    @property
    def numeric(self) -> NDArray[np.bool_]:
        """Which columns are ordered, so that an input warp can be learned, ``(d,)``."""
        return np.asarray(np.r_[self.encoding.numeric_columns, np.ones(self._feature_count(), dtype=bool)])

    def genes(self, key: str, params: Mapping[str, Any]) -> Array:
        """Return the genes of a measured or failed configuration, ``(size,)``."""
        if key not in self._genes:
            self._genes[key] = self.encoding.genes(params)
        return self._genes[key]

    def columns(self, genes: Array) -> Array:
        """Encode ``(n, size)`` genes as model inputs ``(n, d)``."""
        plain = self.encoding.columns(genes)
        if self.features is None:
            return plain
        logarithmic, low, high = self._feature_ranges()
        raw = np.array([self._feature(row) for row in genes]).reshape(len(genes), len(low))
        raw = np.where(logarithmic, np.log(np.maximum(raw, 1e-300)), raw)
        scaled = (raw - low) / np.where(high > low, high - low, 1.0)
        return np.hstack([plain, np.where(np.isfinite(scaled), np.clip(scaled, -0.5, 1.5), 0.5)])

    def _feature(self, row: Array) -> Array:
        name = row.tobytes()
        if name not in self._extra:
            assert self.features is not None
            params = self.encoding.params(row)
            found = np.atleast_1d(self.features(params))
            if found.ndim != 1 or found.dtype.kind not in "biufO" or found.shape != next(iter(self._extra.values()), found).shape:
                raise ValueError(f"features must return numbers, always as many, got {found.tolist()} for {params}; NaN is unknown")
            self._extra[name] = found.astype(float)
        return self._extra[name]

    def _feature_ranges(self) -> tuple[NDArray[np.bool_], Array, Array]:
        """Ranges of the features over random configurations: which are logarithmic, and both ends."""
        if self._ranges is None:
            raw = np.array([self._feature(row) for row in self.encoding.random(np.random.default_rng(0), _FEATURE_SAMPLE)])
            usable = np.where(np.isfinite(raw), raw, np.nan)
            usable = np.where(np.isnan(usable).all(0), 0.0, usable)
            low, high = np.nanmin(usable, 0), np.nanmax(usable, 0)
            logarithmic = (low > 0) & (high > _LOG_RATIO * low)
            safe_low, safe_high = np.where(logarithmic, low, 1.0), np.where(logarithmic, high, 1.0)
            self._ranges = logarithmic, np.where(logarithmic, np.log(safe_low), low), np.where(logarithmic, np.log(safe_high), high)
        return self._ranges

    def _feature_count(self) -> int:
        return 0 if self.features is None else len(self._feature_ranges()[1])


def tabulate(history: History, encoder: Encoder, minimized: tuple[bool, ...], *, resume: bool = True) -> ObservationTable:
    """Turn a history with at least one observation into arrays."""
    keys = list(history.observations)
    points = [(index, point) for index, key in enumerate(keys) for point in history.observations[key].values()]
    points.sort(key=lambda row: row[1].number)  # the latest last: thinning keeps those
    raw = np.array([point.values for _, point in points])
    transform = ObjectiveTransform.infer(minimized, raw)
    config, epochs = np.array([index for index, _ in points]), np.array([point.epochs for _, point in points], dtype=float)
    order = np.lexsort((epochs, config))  # the last row of each configuration is its longest
    last = np.r_[config[order][1:] != config[order][:-1], True]
    names = sorted({name for _, point in points for name in point.constraints})
    genes = np.array([encoder.genes(key, history.params[key]) for key in keys]).reshape(len(keys), encoder.encoding.size)
    return ObservationTable(
        keys=keys,
        genes=genes,
        columns=encoder.columns(genes),
        longest_row=order[last],
        resumable=np.array([history.resumable(key, resume=resume) for key in keys]),
        trained_to=np.array([history.trained_to(key, resume=resume) for key in keys], dtype=float),
        config=config,
        epochs=epochs,
        values=transform.apply(raw),
        numbers=np.array([point.number for _, point in points]),
        quality_sd=np.array([point.quality_sd for _, point in points]),
        feasible=np.array([point.feasible for _, point in points]),
        constraints={name: np.array([point.constraints.get(name, np.nan) for _, point in points]) for name in names},
        transform=transform,
    )


def diverged(table: ObservationTable) -> NDArray[np.bool_]:
    """Return which measurements lie so far below others of as many epochs that they tell of a failure, not of a quality, ``(n,)``."""
    quality, found = table.values[:, 0], np.zeros(len(table.values), dtype=bool)
    for epochs in np.unique(table.epochs):
        here = table.epochs == epochs
        others = quality[here] if here.sum() >= _FEW else quality
        gaps = others.max() - np.quantile(others, [0.75, 0.5, 0.25])
        found |= here & (quality < others.max() - _FARTHEST * float(next((gap for gap in gaps if gap > 0), np.inf)))
    return found
