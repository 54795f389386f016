"""Freeze-thaw for OptunaHub: the sampler of joulefront, which resumes the trainings that are worth continuing, paid in measured energy."""

from joulefront.search.integrations.optuna import EnergyBudgetCallback, MarginalGainCallback, energy_trial
from joulefront.search.samplers import FreezeThawSampler, remaining_gain, resume_from

__all__ = ["EnergyBudgetCallback", "FreezeThawSampler", "MarginalGainCallback", "energy_trial", "remaining_gain", "resume_from"]
