"""Transfer from earlier studies: mean functions of the objectives, and configurations worth trying first."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial

from .acquisition import front_of
from .encoding import Array, Encoder, Encoding, ObservationTable, tabulate
from .history import History, Key
from .surrogates import SurrogateModels, Trend

#: Earlier studies with fewer observations are ignored.
_MIN_OBSERVATIONS = 4


@dataclass
class TransferModel:
    """Surrogates of earlier studies; none of their points is ever a point of the front.

    Each study has its own models, whose standardised means are averaged. The present study regresses its observations on that average and
    models the residuals: a study on other data or another machine may be off by a factor and a constant, or be of no use.
    Trials with another number of objectives than ``minimized`` are ignored; see ``History`` for key, name of the epochs and energy.
    """

    studies: Sequence[Sequence[FrozenTrial]]
    rungs: tuple[int, ...]
    minimized: tuple[bool, ...]
    key: Key | None
    epochs_name: str
    energy: int = 1
    _encoding: Encoding | None = None
    _fitted: list[tuple[ObservationTable, SurrogateModels]] = field(default_factory=list)

    def distributions(self) -> dict[str, BaseDistribution]:
        """Return the parameters of the earlier studies."""
        seen = (found for trials in self.studies for trial in trials for found in trial.distributions.items())
        return {name: distribution for name, distribution in seen if name != self.epochs_name}

    def unknown_params(self, here: Iterable[Mapping[str, Any]]) -> set[str]:
        """Return the parameters of the earlier studies that the present one does not have.

        A conditional parameter that no present configuration has may just not have been drawn yet. It is unknown when a present
        configuration lacks it although every earlier one with the same choices has it.
        """
        known = [trial.params for trials in self.studies for trial in trials]
        found: set[str] = set()
        for params in here:
            chosen = {name: value for name, value in params.items() if isinstance(value, str | bool)}
            alike = [earlier for earlier in known if all(earlier.get(name) == value for name, value in chosen.items())]
            if alike:
                found |= set.intersection(*(set(earlier) for earlier in alike)) - params.keys()
        return found - {self.epochs_name}

    def trends(self, encoder: Encoder) -> list[Trend]:
        """Return a mean function for each objective; none when no earlier study can be used."""
        self._prepare(encoder)
        return [self._trend(j) for j in range(len(self.minimized))] if self._fitted else []

    def warm_starts(self, encoder: Encoder) -> Array:
        """Return the genes of the configurations on the fronts of the studies: best quality, cheapest, then between, ``(m, size)``."""
        self._prepare(encoder)
        found = []
        for table, _ in self._fitted:
            front = front_of(table.values[table.feasible])[::-1]  # cheapest last
            rows = [int(np.flatnonzero((table.values == point).all(1))[0]) for point in front]
            configs = list(dict.fromkeys(int(table.config[row]) for row in rows))
            order = list(dict.fromkeys([0, len(configs) - 1, *_bisection_order(len(configs))])) if configs else []
            found.append(table.genes[[configs[i] for i in order]])
        return np.vstack(found) if found else np.zeros((0, encoder.encoding.size))

    def _trend(self, objective: int) -> Trend:
        return lambda X, rungs: np.asarray(np.mean([models.expected(X, rungs, objective) for _, models in self._fitted], axis=0))

    def _prepare(self, encoder: Encoder) -> None:
        if self._encoding == encoder.encoding:
            return
        self._encoding, self._fitted = encoder.encoding, []
        for trials in self.studies:
            history = History(self.key, self.epochs_name, self.energy)
            history.update(
                [t for t in trials if len(t.values or ()) == len(self.minimized) and _fits(t.params, encoder.encoding, self.epochs_name)]
            )
            if sum(len(points) for points in history.observations.values()) < _MIN_OBSERVATIONS:
                continue
            own = Encoder(encoder.encoding, encoder.features)
            table, models = tabulate(history, own, self.minimized), SurrogateModels(self.rungs)
            models.fit(table, own, np.zeros((0, encoder.encoding.size)), np.random.default_rng(0))
            self._fitted.append((table, models))


def studies_of(trials: Sequence[Sequence[FrozenTrial]] | Sequence[FrozenTrial]) -> list[list[FrozenTrial]]:
    """Group trials by study; a flat sequence is one study."""
    one = [trial for trial in trials if isinstance(trial, FrozenTrial)]
    return [one] if one else [list(study) for study in trials if not isinstance(study, FrozenTrial)]


def _fits(params: Mapping[str, Any], encoding: Encoding, epochs_name: str) -> bool:
    """Whether every parameter and value exists in the present space."""
    for name, value in params.items():
        distribution = encoding.distributions.get(name)
        if name == epochs_name or (distribution is None and name in encoding.fixed):
            continue
        if distribution is None:
            return False
        try:
            if not distribution._contains(distribution.to_internal_repr(value)):
                return False
        except ValueError:
            return False
    return True


def _bisection_order(count: int) -> list[int]:
    """Order indices so that any first few of them cover the range evenly: the middle, the quarters, and so on."""
    order: list[int] = []
    parts = 2
    while len(set(order)) < count - 2 and parts < 4 * count:
        order += [round(count * k / parts) for k in range(1, parts, 2) if round(count * k / parts) < count]
        parts *= 2
    return [*dict.fromkeys([*order, *range(count)])]
