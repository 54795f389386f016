"""Training tactics as a part of the search: which may be used, and in which ranges."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from ..search.training.tactics.tactic import settings_of
from .ranges import Range

#: ``True`` for the default ranges, ``False`` for off, or settings that replace some of the default ranges.
Use: TypeAlias = bool | Mapping[str, Any]

#: Ranges that are worth searching. What a tactic has beyond them keeps its own default.
DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    # keep 0.2 interleaved is the setting of the paper (arXiv 2408.12561)
    "sparse_backprop": {"keep": Range(0.2, 0.8), "schedule": ("interleave", "constant")},
    # below 1e-3 the penalty is lost in the noise of the loss, above 1 it is all of the loss
    "activation_sparsity": {"weight": Range(1e-3, 1.0, log=True)},
    "freeze": {"share": Range(0.25, 1.0), "from_epoch": (1, 2, 4)},
    "progressive_resizing": {"start": Range(0.5, 0.9), "ramp_epochs": (2, 4, 8)},
}


@dataclass(frozen=True)
class TacticRanges:
    """The tactics that a study searches; all are off unless named.

    Each tactic that is on here becomes a switch of the search, ``tactic.<name>``, and its settings become parameters
    ``tactic.<name>.<setting>`` of those trials in which the switch is on::

        Convnet(recipe=RecipeRanges(tactics=TacticRanges(sparse_backprop=True, freeze={"share": (0.5, 1.0)}).settings()))

    Attributes:
        sparse_backprop: Gradients of wide layers from their strongest channels only.
        activation_sparsity: A penalty on non-zero activations, for zero-skipping hardware.
        freeze: Layers that stop learning.
        progressive_resizing: Small images first; for models that take any image size.
        power_limits_watts: GPU power limits to compare, in watts; the GPU's own limit competes with them.
        always: Use the tactics in every trial, so that only their settings are searched.
    """

    sparse_backprop: Use = False
    activation_sparsity: Use = False
    freeze: Use = False
    progressive_resizing: Use = False
    power_limits_watts: tuple[float, ...] = ()
    always: bool = False

    def settings(self) -> dict[str, dict[str, Any]]:
        """Return the ranges by tactic, for ``RecipeRanges.tactics``.

        Raises:
            ValueError: If a tactic has no setting of a given name.
        """
        found: dict[str, dict[str, Any]] = {}
        for name, defaults in DEFAULTS.items():
            use: Use = getattr(self, name)
            if use is False:
                continue
            own = {} if use is True else dict(use)
            unknown = sorted(set(own) - set(settings_of(name)))
            if unknown:
                raise ValueError(f"tactic {name!r} has no setting {', '.join(unknown)}; it has {', '.join(settings_of(name))}")
            found[name] = {**defaults, **own}
        if self.power_limits_watts:
            found["power_limit"] = {"watts": tuple(self.power_limits_watts)}
        return {name: {"on": True, **settings} for name, settings in found.items()} if self.always else found
