"""What the rest of a budget can still gain: passed to a sampler that plans with it, and the reason to end with ``--stop-gain``."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import mean
from typing import TYPE_CHECKING

from ..carbon.intensity import Intensity, grams_co2e
from ..energy import JOULES_PER_WH
from ..formatting import energy_text
from ..records.trial import ATTRIBUTE
from ..samplers import FreezeThawSampler
from ..samplers.factory import energy_axis
from ..samplers.marginal_gain import RemainingGain, remaining_gain
from ..study import Study

if TYPE_CHECKING:
    import optuna


#: A study ends by itself when the rest of its limits is expected to add less than this share of the hypervolume.
STOP_GAIN = 0.005
#: So many trials come before the first look ahead, and so much larger is their number at each further one.
LEAST, GROWTH = 24, 0.1
#: What is left of a limit on trials is reckoned by the energy of so many of the latest.
LATEST = 12
#: How the reason begins.
NOT_WORTH_IT = "continuing is not worth it"


@dataclass(frozen=True)
class StopGain:
    """The expected gain of the rest of a session; the study ends when it is below a share of the hypervolume, and never for None."""

    study: Study
    optuna_study: optuna.Study
    stop_gain: float | None
    _looked: dict[str, int] = field(default_factory=dict)

    def update_remaining(self, joules_left: float | None, intensity: Intensity | None, pue: float) -> None:
        """Pass what is left to a sampler that plans with it, in the unit of its energy objective, so that the last trainings fit."""
        sampler = self.optuna_study.sampler
        if hasattr(sampler, "remaining") and joules_left is not None:
            left = max(0.0, joules_left)
            sampler.remaining = left if self._in_joules else grams_co2e(left, intensity, pue=pue)

    def not_worth_it(self, trials_left: int | None = None) -> str | None:
        """Return why the rest of the budget is not worth spending; None when it is, or no ``stop_gain`` is set.

        ``trials_left`` are those that a limit on trials allows. Looking ahead costs as much as a decision, so it is done after ``LEAST``
        trials, and then every time that their number has grown by ``GROWTH``.
        """
        if self.stop_gain is None:
            return None
        finished = sum(trial.state.is_finished() for trial in self.optuna_study.get_trials(deepcopy=False))
        if finished < max(LEAST, self._looked.get("at", 0) * (1.0 + GROWTH)):
            return None
        self._looked["at"] = finished
        view = self.look_ahead(trials_left)
        if view is None or view.worth(self.stop_gain):
            return None
        noisy = view.noise > self.stop_gain
        limit = f"what the noise of validation makes of it ({view.noise:.2%})" if noisy else f"--stop-gain {self.stop_gain:.2%}"
        return f"{NOT_WORTH_IT}: {self.describe(view)}, less than {limit}; --no-stop goes on"

    def look_ahead(self, trials_left: int | None = None) -> RemainingGain | None:
        """Return what the rest of the budget is expected to add; None for samplers that cannot tell, and at the start."""
        sampler = self.optuna_study.sampler
        if not isinstance(sampler, FreezeThawSampler):
            return None
        return remaining_gain(sampler, self.optuna_study, self._rest(sampler.remaining, trials_left))

    def _rest(self, remaining: float | None, trials_left: int | None) -> float | None:
        """Return the energy that is left, in the unit of the sampler: by the budget, or by the latest trials and how many are left."""
        if trials_left is None:
            return remaining
        trials = [trial for trial in self.optuna_study.get_trials(deepcopy=False) if trial.state.name == "COMPLETE"]
        each = [joules for trial in trials[-LATEST:] if (joules := trial.user_attrs.get(ATTRIBUTE, {}).get("increment_joules"))]
        if not each or not self._in_joules:
            return remaining
        rest = trials_left * float(mean(each))
        return rest if remaining is None else min(rest, remaining)

    def describe(self, view: RemainingGain) -> str:
        """Describe what continuing would cost and gain; the sampler's expectation is usually too high, see ``recent_gain``."""
        unit, scale = ("Wh", JOULES_PER_WH) if self._in_joules else ("gCO2e", 1.0)
        step = "" if view.next_step is None else f" (the next training alone {energy_text(view.next_step / scale, unit)})"
        return f"{energy_text(view.energy / scale, unit)} more{step} would add {view.share:.2%} to the hypervolume at most"

    @property
    def _in_joules(self) -> bool:
        return self.study.objectives[energy_axis(self.study)] == "train_energy"
