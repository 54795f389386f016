"""Beliefs of the sampler on the scale of a standard normal distribution."""

import numpy as np
from scipy.special import ndtri, stdtr

from joulefront.search.samplers.history import Belief

#: What picks are off by has long tails, those of Student's t with about so many degrees of freedom.
FREEDOM = 4.0


def normal_score(belief: Belief, quality: float) -> float:
    """Return the z-score that a normal distribution has where this belief, Student's t of the same variance, has the quality.

    Source: Rosenblatt 1952, "Remarks on a multivariate transformation", for the probability integral transform.
    """
    off = belief.z_score(quality)
    return float(np.copysign(ndtri(stdtr(FREEDOM, -abs(off) / np.sqrt(1 - 2 / FREEDOM))), off))
