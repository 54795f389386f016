"""A synthetic problem on the real parameters of the cell space: far too many graphs to enumerate, and no table of trainings.

Quality and energy are formulas: convolutions on the longest way raise the quality with falling returns, a shortcut helps deep cells,
pooling costs quality, and energy grows with the convolutions. Nothing but the search itself can be learned from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from joulefront.search.space import FixedTrial
from joulefront.spaces.cell import OPERATIONS, Cell, Graph, canonical

_COST = {"conv3x3": 9.0, "conv1x1": 1.0, "maxpool3x3": 0.4}
_WORTH = {"conv3x3": 1.0, "conv1x1": 0.35, "maxpool3x3": 0.0}
_NOISE = np.array([0.8, 0.4, 0.2, 0.15])


class SyntheticCells:
    """Cells of up to 6 vertices, accuracy in percent and kWh at four rungs; trainings can be resumed."""

    resume = True
    rungs = (4, 12, 36, 108)
    name = "cells"
    nrand = 6000

    def __init__(self) -> None:
        self.cell = Cell(vertices=6)
        self.space: dict[str, tuple[str, list[Any]]] = {f"operation_{i}": ("cat", [*OPERATIONS, "absent"]) for i in range(1, 5)}
        self.space |= {f"edge_{i}_{j}": ("cat", [False, True]) for j in range(1, 6) for i in range(j)}
        self._graphs: dict[tuple[Any, ...], Graph] = {}

    def ident(self, params: Mapping[str, Any]) -> str:
        """Return the canonical form as text."""
        drawn = tuple(params[name] for name in self.space)
        if drawn not in self._graphs:
            self._graphs[drawn] = canonical(self.cell.sample_graph(FixedTrial(params)))
        return repr(self._graphs[drawn])

    def curve(self, params: Mapping[str, Any], rng: np.random.Generator) -> tuple[str, Any, Any, Any]:
        """Return the name, observed and true accuracy and the kWh of a training, ``(4,)`` each."""
        name = self.ident(params)
        accuracy, kwh = self._true(self._graphs[tuple(params[name] for name in self.space)])
        return name, accuracy + rng.normal(size=4) * _NOISE, accuracy, kwh

    def pool(self) -> tuple[Any, Any]:
        """Return accuracy and kWh of random cells, ``(n, 4)``: the best-known front, which a search can pass."""
        rng, found = np.random.default_rng(1), []
        for _ in range(self.nrand):
            params = {name: choices[rng.integers(len(choices))] for name, (_, choices) in self.space.items()}
            found.append(self.curve(params, rng)[2:])
        return np.array([accuracy for accuracy, _ in found]), np.array([kwh for _, kwh in found])

    def _true(self, graph: Graph) -> tuple[Any, Any]:
        operations, epochs = graph.operations, np.array(self.rungs, dtype=float)
        output = graph.inputs[-1]
        cost = 3 + sum(_COST[kind] * (1.0 if v in output else 1.6) for v, kind in enumerate(operations, 1))
        cost += 0.4 * sum(map(len, graph.inputs))
        depth, worth = [0.0], [0.0]
        for sources, kind in zip(graph.inputs, (*operations, "output"), strict=True):
            depth.append(1 + max(depth[source] for source in sources))
            worth.append(max(worth[source] for source in sources) + _WORTH.get(kind, 0.0))
        quality = 6 * (1 - np.exp(-0.9 * worth[-1])) - 0.7 * operations.count("maxpool3x3") + 0.5 * (len(output) == 2)
        quality += 1.2 * (0 in output and worth[-1] > 1) - 0.8 * (0 not in output and depth[-1] > 3)
        return 88 + quality - 30 * (0.6 + 0.15 * depth[-1]) * (epochs / 4) ** -0.75, 1e-4 * cost * epochs**0.95
