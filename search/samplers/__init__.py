"""Optuna samplers of this project; Optuna's own samplers serve unchanged."""

from .freeze_thaw import FreezeThawSampler
from .history import resume_from
from .marginal_gain import RemainingGain, remaining_gain

__all__ = ["FreezeThawSampler", "RemainingGain", "remaining_gain", "resume_from"]
