"""Parameters as numbers: a define-by-run space, learned from past trials, sampled and encoded a matrix at a time.

A configuration is a row of *genes*, one per parameter: a number in ``[0, 1]`` for a float or an integer, the index of the choice for a
categorical, NaN for a parameter that the configuration does not have (conditional spaces).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

Array = NDArray[np.float64]

#: Only a parameter with at most so many different values can be a gate.
_MAX_GATE_VALUES = 64


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

    ``distributions`` and ``fixed`` hold the parameters with several values, in a fixed order, and those with a single one; ``gates`` the
    conditional parameters by index.
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
        flags = [not isinstance(d, CategoricalDistribution) for d in self.distributions.values()]
        return np.repeat(np.array(flags, dtype=bool), [_width(d) for d in self.distributions.values()])

    def genes(self, params: Mapping[str, Any]) -> Array:
        """Return the genes of one configuration, ``(size,)``; NaN where it lacks a parameter."""
        row = np.full(self.size, np.nan)
        for index, (name, distribution) in enumerate(self.distributions.items()):
            if name in params:
                row[index] = _gene(distribution, params[name])
        return row

    def params(self, genes: Array) -> dict[str, Any]:
        """Decode a row of genes; absent parameters are left out."""
        row = {name: _value(d, float(g)) for (name, d), g in zip(self.distributions.items(), genes, strict=True) if not np.isnan(g)}
        return {**self.fixed, **row}

    def columns(self, genes: Array) -> Array:
        """Encode ``(n, size)`` genes as ``(n, columns)``: ordered ones as they are, choices one-hot, absent ones as 0.5 or all zero."""
        blocks = []
        for index, distribution in enumerate(self.distributions.values()):
            gene = genes[:, index]
            if isinstance(distribution, CategoricalDistribution):
                count = len(distribution.choices)
                hot = (gene[:, None] == np.arange(count)[None, :]).astype(float)
                blocks.append(hot[:, 1:] if count == 2 else hot)
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
        return np.array(
            [len(d.choices) if isinstance(d, CategoricalDistribution) else 0 for d in self.distributions.values()], dtype=np.int64
        )


def learn_encoding(seen: Sequence[Mapping[str, Any]], distributions: Mapping[str, BaseDistribution]) -> Encoding:
    """Learn the space from past configurations: which parameters exist, and which values switch the conditional ones on.

    ``distributions`` holds the latest one of every parameter that appears in the configurations.
    """
    fixed = {name: _value(d, 0.0) for name, d in sorted(distributions.items()) if d.single()}
    encoding = Encoding({name: d for name, d in sorted(distributions.items()) if not d.single()}, fixed)
    names = list(encoding.distributions)
    if not seen or all(len(params.keys() & encoding.distributions.keys()) == len(names) for params in seen):
        return encoding
    genes = np.array([encoding.genes(params) for params in seen])
    gates = {
        index: gate for index in range(len(names)) if np.isnan(genes[:, index]).any() and (gate := _learn_gate(genes, index)) is not None
    }
    return Encoding(encoding.distributions, fixed, gates)


def _learn_gate(genes: Array, index: int) -> Gate | None:
    """Find the parameter whose value explains best where parameter ``index`` is absent; None when none helps.

    A gate must exist more often than what it controls: parameters that come and go together explain one another perfectly, and with such
    gates in a circle none of them would ever be switched off.
    """
    absent = np.isnan(genes[:, index])
    missing = np.isnan(genes).sum(0)
    best: tuple[int, int, Gate] | None = None
    for by in np.flatnonzero(missing < absent.sum()):
        values = np.round(np.where(np.isnan(genes[:, by]), -1.0, genes[:, by]), 9)
        different = np.unique(values)
        if len(different) > _MAX_GATE_VALUES or len(different) > max(2, len(genes) // 2):
            continue
        # Where a gate is itself absent so is what it controls.
        off = {-1.0, *(float(v) for v in different if absent[values == v].mean() > 0.5)}
        wrong = int((np.isin(values, list(off)) != absent).sum())
        # Fewest contradictions first; then the gate with the fewest values, which is the simplest rule.
        rank = (wrong, len(different))
        if wrong < min(absent.sum(), (~absent).sum()) and (best is None or rank < best[:2]):
            best = (*rank, Gate(int(by), frozenset(off - {-1.0})))
    return None if best is None else best[2]


def _width(distribution: BaseDistribution) -> int:
    if not isinstance(distribution, CategoricalDistribution):
        return 1
    return 1 if len(distribution.choices) == 2 else len(distribution.choices)


def _bounds(distribution: BaseDistribution) -> tuple[float, float]:
    """Ends of the unit interval in the (possibly logarithmic) scale of the parameter; half a step wider where values are discrete."""
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    low, high = float(distribution.low), float(distribution.high)
    if distribution.step is not None:
        half = distribution.step / 2
        low, high = low - half, high + half
    return (float(np.log(low)), float(np.log(high))) if distribution.log else (low, high)


def _gene(distribution: BaseDistribution, value: Any) -> float:
    if isinstance(distribution, CategoricalDistribution):
        return float(distribution.to_internal_repr(value))
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    low, high = _bounds(distribution)
    number = float(np.log(value)) if distribution.log else float(value)
    return (number - low) / (high - low)


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
        return genes
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    if distribution.step is None:
        return np.clip(genes, 0.0, 1.0)
    low, high = _bounds(distribution)
    numbers = _numbers(distribution, genes)
    return ((np.log(numbers) if distribution.log else numbers) - low) / (high - low)


def _value(distribution: BaseDistribution, gene: float) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[int(gene)]
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    number = float(_numbers(distribution, np.array([gene]))[0])
    if isinstance(distribution, IntDistribution):
        return round(number)
    # The grid of a float with a step must survive a round trip through decimal text.
    return round(number, 12) if distribution.step is not None else number
