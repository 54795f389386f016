"""Early stopping: how long the validation quality may stay without a new best."""

from __future__ import annotations

import math
from collections.abc import Mapping


class Patience:
    """Counts the epochs since the best one; its state goes through checkpoints."""

    def __init__(self, epochs: int | None) -> None:
        """Allow ``epochs`` epochs without a new best; None never stops and never asks for an evaluation."""
        self.asked = epochs is not None
        self._allowed = math.inf if epochs is None else epochs
        self._best = -math.inf
        self._since = 0

    def exhausted(self, quality: float) -> bool:
        """Take in the quality of an epoch (greater is better) and say whether to stop."""
        if quality > self._best:
            self._best, self._since = quality, 0
        else:
            self._since += 1
        return self._since >= self._allowed

    def state(self) -> dict[str, float]:
        """Return what ``load`` reads back."""
        return {"best": self._best, "since": self._since}

    def load(self, state: Mapping[str, float]) -> None:
        """Go on counting from a stored state."""
        self._best, self._since = float(state["best"]), int(state["since"])
