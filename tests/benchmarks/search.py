"""The front per joule of search: our sampler against Optuna's and Hyperband on tables of real trainings.

    python tests/benchmarks/search.py --half kept-out --seeds 10 --out kept-out.jsonl --bound 1800
    python tests/benchmarks/search.py --half kept-out --out kept-out.jsonl --bound 0

Every strategy runs through Optuna's ask and tell and is charged the recorded energy of what it trains. Unit: one full-training equivalent
(FTE), the mean energy of a complete training of a random configuration. Results are shares of the hypervolume of the best-known front
(accuracy against log10 energy), medians over seeds with quartiles. ``any`` counts every measured (configuration, epochs), ``full`` only
complete trainings.

``--out`` is a file with a line for each finished run: the same command goes on where it was interrupted; no run begins after ``--bound``
seconds. Seeds are the outermost loop, so that what is there is complete for the first seeds. A file belongs to one version of the sampler.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

for _threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_threads, "1")

import numpy as np  # noqa: E402 - after the number of threads is set
import pandas as pd  # noqa: E402 - after the number of threads is set
import search_bench as bench  # noqa: E402 - after the number of threads is set

#: Energy at which the hypervolume is told, and whose table of Hyperband is a bar.
READ_AT = (2.0, 5.0, 10.0, 20.0)
#: Resamples of the seeds for an interval.
RESAMPLES = 1000

Job = tuple[str, str, int, float, int, str]


def collect(out: Path, jobs: list[Job], processes: int, bound: float) -> pd.DataFrame:
    """Run what the file lacks while there is time; return the rows of what was asked for and is there."""
    found = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
    done = {tuple(run["job"]) for run in found}
    missing, begin = [job for job in jobs if job[:5] not in done], time.monotonic()
    if missing and bound > 0:
        out.parent.mkdir(parents=True, exist_ok=True)
        with multiprocessing.get_context("spawn").Pool(processes) as pool, out.open("a") as file:
            for first in range(0, len(missing), processes):
                if time.monotonic() - begin >= bound:
                    break
                batch = missing[first : first + processes]
                for job, rows in zip(batch, pool.map(bench.run, batch, chunksize=1), strict=True):
                    found.append({"job": job[:5], "rows": rows})
                    file.write(json.dumps(found[-1]) + "\n")
                    file.flush()
                    print(f"{job[:3]}: {rows[-1]['hv_any']:.3f}", file=sys.stderr, flush=True)
    wanted = {job[:5] for job in jobs}
    return pd.DataFrame([row for run in found if tuple(run["job"]) in wanted for row in run["rows"]])


def energy_to_reach(curve: pd.Series, target: float) -> float:
    """Return the energy at which a curve reaches a target, in its own unit; infinite when it never does."""
    energies, values = curve.index.to_numpy(dtype=float), curve.to_numpy(dtype=float)
    reached = np.flatnonzero(values >= target - 1e-12)
    if not len(reached):
        return float("inf")
    k = int(reached[0])
    if k == 0:
        return float(energies[0])
    share = (target - values[k - 1]) / max(values[k] - values[k - 1], 1e-12)
    return float(energies[k - 1] + (energies[k] - energies[k - 1]) * share)


def curves_of(rows: pd.DataFrame, strategy: str, problem: str, mode: str = "any") -> pd.DataFrame:
    """Return the hypervolume by seed (rows) and spent energy (columns)."""
    some = rows[(rows.strategy == strategy) & (rows.problem == problem)]
    return some.pivot_table(index="seed", columns="spent_fte", values=f"hv_{mode}")


def hypervolumes(rows: pd.DataFrame, strategies: list[str], mode: str) -> str:
    """Table of the hypervolume at some energies: median and quartiles over the seeds, and the mean of the medians."""
    problems = list(dict.fromkeys(rows.problem))
    lines = [f"| share of the best-known hypervolume ({mode}), FTE | " + " | ".join([*problems, "mean"]) + " |"]
    lines.append("|---" * (len(problems) + 2) + "|")
    for spent in (spent for spent in READ_AT if spent <= rows.spent_fte.max()):
        for strategy in strategies:
            cells, medians = [], []
            for problem in problems:
                curves = curves_of(rows, strategy, problem, mode)
                if spent not in curves:
                    cells.append("–")
                    continue
                low, middle, high = curves[spent].quantile([0.25, 0.5, 0.75])
                cells.append(f"{middle:.3f} ({low:.3f}–{high:.3f})")
                medians.append(middle)
            mean = f"{np.mean(medians):.3f}" if len(medians) == len(problems) else "–"
            lines.append(f"| {strategy}, {spent:g} | " + " | ".join([*cells, mean]) + " |")
    return "\n".join(lines)


def bootstrapped(curves: pd.DataFrame, other: pd.DataFrame, of: Callable[[pd.Series, pd.Series], float]) -> tuple[float, float, float]:
    """Return a function of two curves of medians, and the 5 and 95 % quantiles of it when the seeds of both are drawn anew."""
    rng = np.random.default_rng(0)
    drawn = [of(*(one.iloc[rng.integers(len(one), size=len(one))].median() for one in (curves, other))) for _ in range(RESAMPLES)]
    low, high = np.quantile(drawn, [0.05, 0.95], method="nearest")
    return of(curves.median(), other.median()), float(low), float(high)


def reached(rows: pd.DataFrame, strategies: list[str], reference: str) -> str:
    """Table of the energy until the reference's final hypervolume, in percent of the budget, with bootstrapped intervals of 90 %."""
    problems, budget = list(dict.fromkeys(rows.problem)), float(rows.spent_fte.max())
    lines = [f"| % of the budget to the final of {reference} | " + " | ".join([*problems, "geometric mean"]) + " |"]
    lines.append("|---" * (len(problems) + 2) + "|")
    for strategy in strategies:
        cells, shares = [], []
        for problem in problems:
            curves, other = curves_of(rows, strategy, problem), curves_of(rows, reference, problem)
            if not len(curves) or not len(other):
                cells.append("–")
                continue
            found = bootstrapped(curves, other, lambda one, two: 100 * energy_to_reach(one, two.iloc[-1]) / budget)
            shares.append(found[0])
            cells.append("{} ({}–{})".format(*("never" if np.isinf(x) else f"{x:.1f}" for x in found)))
        mean = "never on all" if not shares or np.isinf(shares).any() else f"{np.exp(np.mean(np.log(shares))):.1f}"
        lines.append(f"| {strategy} | " + " | ".join([*cells, mean]) + " |")
    return "\n".join(lines)


def facts(rows: pd.DataFrame, strategies: list[str]) -> str:
    """Table of what else is asked of a strategy on each problem; the hypervolume of random configurations has no energy of its own."""
    problems = list(dict.fromkeys(rows.problem))
    lines = ["| | " + " | ".join(problems) + " |", "|---" * (len(problems) + 1) + "|"]
    for strategy in strategies:
        table: dict[str, list[str]] = {}
        for problem in problems:
            some = rows[(rows.strategy == strategy) & (rows.problem == problem)]
            last = some[some.spent_fte == some.spent_fte.max()]
            z, late = last[["z_squares", "z_beyond", "z_count"]].sum(), last.seconds_late.dropna()
            spent = energy_to_reach(curves_of(rows, strategy, problem).median(), float(last.hv_random.iloc[0])) if len(some) else np.nan
            for name, text in (
                ("seeds", f"{len(last)}"),
                (
                    f"FTE to {bench.RANDOM_CONFIGURATIONS} random configurations at all rungs",
                    "never" if np.isinf(spent) else f"{spent:.1f}",
                ),
                ("z-scores of fresh picks: rms, share beyond 2", _spread(z)),
                ("standard deviations that they were off: rms", f"{(last.off_squares.sum() / z.z_count) ** 0.5:.2f}" if z.z_count else "–"),
                ("CPU-seconds a decision", f"{last.seconds_per_decision.mean():.3f}" if len(last.seconds_per_decision.dropna()) else "–"),
                (f"the last {bench.LATE} of them", f"{late.mean():.3f}" if len(late) else "–"),
                ("measured points", f"{last.n_evals.median():.0f}" if len(last) else "–"),
            ):
                table.setdefault(name, []).append(text)
        lines += [f"| {strategy}: {name} | " + " | ".join(cells) + " |" for name, cells in table.items()]
    return "\n".join(lines)


def _spread(z: pd.Series) -> str:
    if not z.z_count:
        return "–"
    return f"{(z.z_squares / z.z_count) ** 0.5:.2f}, {z.z_beyond / z.z_count:.0%} of {z.z_count:.0f}"


def main() -> int:
    """Run, and print Markdown tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--budget", type=float, default=20.0, help="full-training equivalents per run")
    parser.add_argument("--points", type=int, default=400, help="most measured points per run")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--bound", type=float, default=np.inf, help="seconds after which no run begins; 0 prints what is there")
    parser.add_argument("--half", choices=["development", "kept-out"], default="development")
    parser.add_argument("--problems", help="in place of a half; of: " + ", ".join(bench.PROBLEMS))
    parser.add_argument("--strategies", default="freeze-thaw,hyperband," + ",".join(bench.STOCK), help="of: " + "; ".join(bench.STRATEGIES))
    build = Path(__file__).resolve().parents[2] / "build" / "benchmarks" / "search"
    parser.add_argument("--out", type=Path, default=build / "runs.jsonl", help="a line for each run; kept, and gone on with")
    parser.add_argument("--cache", default=str(build), help="folder for the best-known fronts")
    arguments = parser.parse_args()
    reason = bench.missing()
    if reason:
        print(f"skipped: the tables of trainings are not here ({reason})")
        return 0
    strategies = [name.strip() for name in arguments.strategies.split(",")]
    unknown = [name for name in strategies if name not in bench.STRATEGIES]
    if unknown:
        parser.error(f"--strategies: unknown {unknown}; choose from {', '.join(bench.STRATEGIES)}")
    half = bench.KEPT_OUT if arguments.half == "kept-out" else bench.DEVELOPMENT
    problems = arguments.problems.split(",") if arguments.problems else half
    Path(arguments.cache).mkdir(parents=True, exist_ok=True)
    options: Any = (arguments.budget, arguments.points, arguments.cache)
    jobs = [(problem, strategy, seed, *options) for seed in range(arguments.seeds) for problem in problems for strategy in strategies]
    rows = collect(arguments.out, jobs, arguments.jobs, arguments.bound)
    if not len(rows):
        print(f"no run is in {arguments.out.name} yet; leave out --bound, or raise it")
        return 0
    print(f"up to {arguments.seeds} seeds, {arguments.budget:g} FTE, at most {arguments.points} points a run; medians (quartiles)\n")
    for mode in ("any", "full"):
        print(hypervolumes(rows, strategies, mode), end="\n\n")
    for reference in ("tpe-epochs", "tpe"):
        if reference in strategies:
            print(reached(rows, strategies, reference), end="\n\n")
    print(facts(rows, strategies))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
