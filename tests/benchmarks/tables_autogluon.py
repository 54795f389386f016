"""AutoGluon's arm of tables.py, in an environment of its own: ``python tables_autogluon.py ARRAYS.npz SECONDS``.

    uv venv ag && uv pip install --python ag/bin/python "autogluon.tabular[lightgbm,xgboost,catboost]"
    AUTOGLUON=ag/bin/python python tests/benchmarks/tables.py --arms autogluon

Reads ``X``, ``y``, ``Xh`` and ``regression``; writes the scores of the hidden rows beside them, and prints CPU-seconds of the search and of
1,000 predictions. Its time limit is one of wall time: for it the clock shows CPU-seconds, as for FLAML.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np


def main() -> None:
    """Search for so many CPU-seconds at AutoGluon's medium quality, one thread."""
    import catboost  # noqa: F401  # imports are not its search
    import lightgbm  # noqa: F401
    import pandas as pd
    import sklearn.ensemble  # noqa: F401
    import xgboost  # noqa: F401
    from autogluon.tabular import TabularPredictor

    path, seconds = Path(sys.argv[1]), float(sys.argv[2])
    given = np.load(path)
    names = [f"f{k}" for k in range(given["X"].shape[1])]
    known = pd.DataFrame(given["X"], columns=names).assign(y=given["y"])
    hidden = pd.DataFrame(given["Xh"], columns=names)
    regression = bool(given["regression"])
    kind = "regression" if regression else "binary" if known["y"].nunique() == 2 else "multiclass"
    with tempfile.TemporaryDirectory() as folder:
        start, real = time.process_time(), time.time()
        time.time = lambda: real + time.process_time() - start
        search = TabularPredictor(label="y", problem_type=kind, path=folder, verbosity=0)
        search.fit(known, time_limit=seconds, presets="medium_quality", num_cpus=1, num_gpus=0)
        spent = time.process_time() - start
        scores = search.predict(hidden).to_numpy() if regression else search.predict_proba(hidden).to_numpy()
        begun, rows = time.process_time(), 0
        while time.process_time() - begun < 0.2:
            search.predict(hidden)
            rows += len(hidden)
        each = (time.process_time() - begun) / rows * 1000
        said = str(search.model_best)
    np.save(path.with_suffix(".scores.npy"), scores)
    print(json.dumps({"cpu_seconds": spent, "cpu_seconds_per_1000": each, "said": said}))


if __name__ == "__main__":
    main()
