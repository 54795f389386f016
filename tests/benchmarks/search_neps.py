"""Multi-objective Hyperband of NePS on a table of real trainings, to check our own in ``search_bench.py`` against.

    uv venv build/neps && uv pip install --python build/neps neural-pipeline-search pandas
    build/neps/bin/python tests/benchmarks/search_neps.py --seeds 10

It runs without joulefront, in an environment of its own. Costs and shares of the hypervolume as in ``search.py``.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

SHARED = Path(__file__).resolve().parents[2] / ".." / "shared"
READ_AT = (2.0, 5.0, 10.0, 20.0)


def run(neps: Any, problem: Any, metric: Any, seed: int) -> list[float]:
    """Search once; return the share of the best-known hypervolume (any) at ``READ_AT``."""
    import torch

    np.random.seed(seed)
    torch.manual_seed(seed)
    members = {name: neps.Categorical(choices=choices) for name, (_, choices) in problem.space.items()}
    members["epochs"] = neps.IntegerFidelity(lower=problem.rungs[0], upper=problem.rungs[-1])
    optimizer = neps.AskAndTell(neps.algorithms.mo_hyperband(type("Cells", (neps.PipelineSpace,), members)()))
    rng, curves, trained, spent = np.random.default_rng(10_000 + seed), dict[Any, Any](), set[tuple[Any, int]](), 0.0
    points: list[tuple[float, float, float]] = []
    for _ in range(10_000):
        trial = optimizer.ask()
        params = {name: trial.config[name] for name in problem.space}
        name, rung = problem.ident(params), int(np.argmin(np.abs(np.array(problem.rungs) - trial.config["epochs"])))
        if name not in curves:
            curves[name] = problem.curve(params, rng)[1:]
        observed, true, kwh = curves[name]
        if (name, rung) not in trained:  # a point that was trained before costs nothing
            if spent + kwh[rung] > READ_AT[-1] * metric.fte:
                break
            spent += kwh[rung]
            trained.add((name, rung))
            points.append((spent, true[rung], kwh[rung]))
        optimizer.tell(trial, {"objective_to_minimize": [1 - observed[rung] / 100, float(np.log10(kwh[rung]))]})
    found = np.array(points)
    seen = [found[found[:, 0] <= limit * metric.fte] for limit in READ_AT]
    return [metric.hv("any", part[:, 1], part[:, 2]) / metric.best["any"] for part in seen]


def main() -> int:
    """Run, and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    arguments = parser.parse_args()
    try:
        import neps
    except ImportError:
        print("skipped: NePS is not installed (see --help)")
        return 0
    if not (SHARED / "data" / "ecnas").exists():
        print("skipped: the tables of trainings are not here")
        return 0
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    os.environ["BENCH_DATA"], os.environ["BENCH_OUT"] = str(SHARED / "data"), tempfile.mkdtemp()
    sys.path.append(str(SHARED / "bench"))
    import problems

    problem = problems.get("ecnas4v")
    metric = problems.Metric(problem)
    print("| ecnas4v, FTE | " + " | ".join(f"{limit:g}" for limit in READ_AT) + " |")
    print("|---" * (len(READ_AT) + 1) + "|")
    low, middle, high = np.quantile([run(neps, problem, metric, seed) for seed in range(arguments.seeds)], [0.25, 0.5, 0.75], axis=0)
    cells = [f"{m:.3f} ({a:.3f}–{b:.3f})" for a, m, b in zip(low, middle, high, strict=True)]
    print(f"| NePS {version('neural-pipeline-search')}, {arguments.seeds} seeds | " + " | ".join(cells) + " |")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
