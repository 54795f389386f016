"""Objectives in the form in which the search compares them: every one maximised, costs by their logarithm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Axes:
    """How user values become axes that are maximised.

    A cost that is minimised and never negative is compared by its logarithm: half the energy is worth the same at 1 kWh as at 1 Wh.

    Attributes:
        signs: +1 to maximise, -1 to minimise, ``(d,)``.
        logarithmic: Which objectives are compared by their logarithm, ``(d,)``.
        least: Value that stands for a measured zero on a logarithmic axis, ``(d,)``.
    """

    signs: Array
    logarithmic: NDArray[np.bool_]
    least: Array

    @classmethod
    def read(cls, minimized: Sequence[bool], values: Array) -> Axes:
        """Choose the axes for ``(n, d)`` values; the first objective is the quality and stays linear."""
        minimize = np.array(minimized, dtype=bool)
        logarithmic = minimize & (values >= 0).all(0) & (values > 0).any(0)
        logarithmic[0] = False
        least = np.array([column[column > 0].min() if log else 0.0 for column, log in zip(values.T, logarithmic, strict=True)])
        return cls(np.where(minimize, -1.0, 1.0), logarithmic, least)

    def scale(self, values: Array) -> Array:
        """Turn ``(n, d)`` user values into axes to be maximised."""
        safe = np.where(self.logarithmic, np.maximum(values, self.least), 1.0)
        return self.signs * np.where(self.logarithmic, np.log10(safe), values)
