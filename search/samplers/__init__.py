"""Optuna samplers of our own; Optuna's serve unchanged."""

from .freeze_thaw import FreezeThawSampler, resume_from

__all__ = ["FreezeThawSampler", "resume_from"]
