"""The observations of a study as arrays for the models: encoded configurations, and objectives to be maximised, costs as logarithms."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .encoding import Array, Encoding
from .history import History

#: The user's function of the parameters: numbers that are known without training.
Features = Callable[[Mapping[str, Any]], Any]

#: Random configurations that give the range of each feature.
_FEATURE_SAMPLE = 64
#: A positive feature is scaled logarithmically where its range spans more than this factor.
_LOG_RATIO = 20.0


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

    By row, ``(n,)``: the index ``config`` of its configuration; the epochs trained; transformed objectives ``values (n, k)``; whether no
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
        row = self._genes.get(key)
        if row is None:
            row = self._genes[key] = self.encoding.genes(params)
        return row

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
        found = self._extra.get(name)
        if found is None:
            assert self.features is not None
            found = self._extra[name] = np.atleast_1d(np.asarray(self.features(self.encoding.params(row)), dtype=float))
        return found

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
        feasible=np.array([point.feasible for _, point in points]),
        constraints={name: np.array([point.constraints.get(name, np.nan) for _, point in points]) for name in names},
        transform=transform,
    )
