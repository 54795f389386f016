"""Optuna samplers of our own; Optuna's serve unchanged."""

from .freeze_thaw import FreezeThawSampler, resume_from
from .outlook import Outlook, outlook

__all__ = ["FreezeThawSampler", "Outlook", "outlook", "resume_from"]
