"""Learned local edits as a proposal of the sampler: an experiment on the seam ``FreezeThawSampler(proposal=...)``.

Source: Dai et al. 2020, Learning Discrete Energy-based Models via Auxiliary-variable Local Exploration, arXiv:2011.05363.
"""

from .local_edits import LocalEdits

__all__ = ["LocalEdits"]
