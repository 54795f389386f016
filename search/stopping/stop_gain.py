"""What the rest of a budget can still gain: passed to a sampler that plans with it, and the reason to end with ``--stop-gain``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..carbon.intensity import Intensity, grams_co2e
from ..energy import JOULES_PER_WH
from ..samplers import FreezeThawSampler
from ..samplers.factory import energy_axis
from ..samplers.marginal_gain import RemainingGain, remaining_gain
from ..study import Study

if TYPE_CHECKING:
    import optuna


@dataclass(frozen=True)
class StopGain:
    """The expected gain of the rest of a session; the study ends when it is below a share of the hypervolume, and never for None."""

    study: Study
    optuna_study: optuna.Study
    stop_gain: float | None

    def update_remaining(self, joules_left: float | None, intensity: Intensity | None, pue: float) -> None:
        """Pass what is left to a sampler that plans with it, in the unit of its energy objective, so that the last trainings fit."""
        sampler = self.optuna_study.sampler
        if hasattr(sampler, "remaining") and joules_left is not None:
            left = max(0.0, joules_left)
            sampler.remaining = left if self._in_joules else grams_co2e(left, intensity, pue=pue)

    def not_worth_it(self) -> str | None:
        """Return why the rest of the budget is not worth spending; None when it is, or no ``stop_gain`` is set."""
        view = None if self.stop_gain is None else self.look_ahead()
        if self.stop_gain is None or view is None or view.worth(self.stop_gain):
            return None
        return f"continuing is not worth it: {self.describe(view)}, less than --stop-gain {self.stop_gain:.2%}"

    def look_ahead(self) -> RemainingGain | None:
        """Return what the rest of the budget is expected to add; None for samplers that cannot tell, and at the start."""
        sampler = self.optuna_study.sampler
        return remaining_gain(sampler, self.optuna_study) if isinstance(sampler, FreezeThawSampler) else None

    def describe(self, view: RemainingGain) -> str:
        """Describe what continuing would cost and gain; the sampler's expectation is usually too high, see ``recent_gain``."""
        unit, scale = ("Wh", JOULES_PER_WH) if self._in_joules else ("gCO2e", 1.0)
        step = "" if view.next_step is None else f" (the next training alone {view.next_step / scale:.3g} {unit})"
        return f"{view.energy / scale:.3g} {unit} more{step} would add {view.share:.2%} to the hypervolume at most"

    @property
    def _in_joules(self) -> bool:
        return self.study.objectives[energy_axis(self.study)] == "train_energy"
