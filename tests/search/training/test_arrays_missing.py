"""Values that are masked or missing, in every form in which arrays hold them."""

import numpy as np
import pandas as pd
import pytest
import torch

from joulefront.search.training.arrays import arrays

GONE = np.arange(60) % 4 == 0
#: Values of which some are missing, as targets; two-column ones are inputs, too.
MISSING_VALUES = {
    "masked numbers": np.ma.masked_array(np.where(GONE, -9999.0, np.arange(60)), GONE),
    "masked whole numbers": np.ma.masked_array(np.arange(60) % 2, GONE),
    "masked rows in a list": list(np.ma.masked_array(np.eye(60)[:, :2], np.stack([GONE, GONE], axis=1))),
    "masked rows": np.ma.masked_array(np.eye(60)[:, :2], np.stack([GONE, GONE], axis=1)),
    "None": [None if gone else 1.0 + k for k, gone in enumerate(GONE)],
    "None among texts": [None if gone else "ab"[k % 2] for k, gone in enumerate(GONE)],
    "nan among texts": [float("nan") if gone else "ab"[k % 2] for k, gone in enumerate(GONE)],
    "nan": np.where(GONE, np.nan, np.arange(60) % 2),
    "NA": pd.Series(np.arange(60) % 2, dtype="Int64").mask(GONE),
    "rows of NA": pd.DataFrame(np.eye(60)[:, :2], dtype="Float32").mask(np.stack([GONE, GONE], axis=1)),
    "nullable truth": pd.Series(np.arange(60) % 2 > 0, dtype="boolean").mask(GONE),
    "bfloat16": torch.tensor(np.where(GONE, np.nan, np.arange(60) % 2)).bfloat16(),
}


@pytest.mark.parametrize("kind", [None, "classification", "regression", "anomaly"])
@pytest.mark.parametrize("values", MISSING_VALUES.values(), ids=[*MISSING_VALUES])
def test_what_is_missing_is_refused_in_every_place_and_never_trained_on(values, kind):
    good = np.random.default_rng(0).normal(size=(60, 2)), np.arange(60) % 2
    places = [((good[0], values), {})] + [(good, {split: (good[0], values)}) for split in ("validation", "test")]
    if len(np.shape(values)) == 2:
        places += [((values, good[1]), {})] + [(good, {split: (values, good[1])}) for split in ("validation", "test")]
    for pair, options in places:
        with pytest.raises(ValueError, match=r"missing|finite|one number for each example|as many in each"):
            arrays(*pair, kind=kind, **options)
