"""Random candidates without a sampler: for warming up and for estimates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


class Draw:
    """Answers ``suggest_*`` uniformly at random (log-uniformly where asked) and remembers what it said.

    Args:
        seed: Seeds the draws.

    Attributes:
        params: Parameters so far, as Optuna would store them.
    """

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self.params: dict[str, Any] = {}

    def suggest_float(self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False) -> float:
        """Draw a number in ``[low, high]``."""
        if name not in self.params:
            if step is not None:
                value = low + step * int(self._random.integers(int((high - low) / step + 1e-9) + 1))
            else:
                value = float(np.exp(self._random.uniform(np.log(low), np.log(high)))) if log else float(self._random.uniform(low, high))
            self.params[name] = min(max(value, low), high)
        return float(self.params[name])

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        """Draw a whole number in ``[low, high]``."""
        if name not in self.params:
            if log:
                value = round(float(np.exp(self._random.uniform(np.log(low - 0.499), np.log(high + 0.499)))))
            else:
                value = low + step * int(self._random.integers((high - low) // step + 1))
            self.params[name] = min(max(value, low), high)
        return int(self.params[name])

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """Draw one of the choices."""
        if name not in self.params:
            self.params[name] = choices[int(self._random.integers(len(choices)))]
        return self.params[name]
