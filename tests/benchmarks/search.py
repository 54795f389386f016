"""The front per joule of search: our sampler against Optuna's on tables of real trainings.

    python tests/benchmarks/search.py --seeds 10 --budget 20 --jobs 2

Every strategy runs through Optuna's ask and tell and is charged the recorded energy of what it trains. Unit: one full-training equivalent
(FTE), the mean energy of a complete training of a random configuration. Results are ratios to the hypervolume of the best-known front
(accuracy against log10 energy), medians over seeds with quartiles. ``any`` counts every measured (configuration, epochs), ``full`` only
complete trainings.

Runs are kept in a cache (``--cache``) and not repeated. ``--reported`` takes the stock samplers from results that were measured before with
the same harness instead of running them. ``--ablate`` adds our sampler with one part switched off at a time.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
from pathlib import Path

for _threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_threads, "1")

import numpy as np  # noqa: E402 - after the number of threads is set
import pandas as pd  # noqa: E402 - after the number of threads is set
import search_bench as bench  # noqa: E402 - after the number of threads is set


def collect(arguments: argparse.Namespace, strategies: list[str]) -> pd.DataFrame:
    """Run what is not in the cache; return all requested rows."""
    cache = Path(arguments.cache)
    cache.mkdir(parents=True, exist_ok=True)
    jobs, files, parts = [], [], []
    for problem in arguments.problems.split(","):
        for strategy in strategies:
            if arguments.reported and strategy in bench.STOCK:
                earlier = pd.read_csv(bench.SHARED / "bench" / "baselines" / f"{problem}__{bench.EARLIER[strategy]}.csv")
                parts.append(earlier[earlier.spent_fte <= arguments.budget].assign(strategy=strategy))
                continue
            for seed in range(arguments.seeds):
                slug = strategy.replace(", ", "-").replace(" ", "-")
                file = cache / f"{problem}__{slug}__{arguments.points}__{arguments.budget:g}__{seed}.csv"
                if file.exists() and not arguments.again:
                    parts.append(pd.read_csv(file))
                else:
                    jobs.append((problem, strategy, seed, arguments.budget, arguments.points, str(cache)))
                    files.append(file)
    if jobs:
        bench.load(str(cache))
        for problem in {job[0] for job in jobs}:
            bench.problem_and_metric(str(cache), problem)  # fills the cache once, before several processes want it
        with multiprocessing.get_context("spawn").Pool(arguments.jobs) as pool:
            for done, (file, rows) in enumerate(zip(files, pool.imap(bench.run, jobs), strict=True), 1):
                frame = pd.DataFrame(rows)
                frame.to_csv(file, index=False)
                parts.append(frame)
                print(
                    f"{done}/{len(jobs)} {file.stem}: any {frame.hv_any.iloc[-1]:.3f}, full {frame.hv_full.iloc[-1]:.3f}",
                    file=sys.stderr,
                    flush=True,
                )
    return pd.concat(parts, ignore_index=True)


def energy_to_reach(curve: pd.Series, target: float) -> float:
    """Return the energy at which a curve of medians reaches a target, as a share of its last energy; NaN when it never does."""
    energies, values = curve.index.to_numpy(dtype=float), curve.to_numpy(dtype=float)
    reached = np.flatnonzero(values >= target - 1e-12)
    if not len(reached):
        return float("nan")
    k = int(reached[0])
    if k == 0:
        return float(energies[0] / energies[-1])
    share = (target - values[k - 1]) / max(values[k] - values[k - 1], 1e-12)
    return float((energies[k - 1] + (energies[k] - energies[k - 1]) * share) / energies[-1])


def final_table(rows: pd.DataFrame, strategies: list[str], mode: str) -> str:
    """Final hypervolume: median and quartiles per problem, mean of the medians."""
    last = rows[rows.spent_fte == rows.spent_fte.max()]
    problems = list(dict.fromkeys(rows.problem))
    lines = [f"| strategy ({mode}) | " + " | ".join(problems) + " | mean |", "|---" * (len(problems) + 2) + "|"]
    for strategy in strategies:
        cells, medians = [], []
        for problem in problems:
            values = last[(last.strategy == strategy) & (last.problem == problem)][f"hv_{mode}"]
            low, middle, high = values.quantile([0.25, 0.5, 0.75])
            cells.append(f"{middle:.3f} ({low:.3f}–{high:.3f})")
            medians.append(middle)
        lines.append(f"| {strategy} | " + " | ".join(cells) + f" | {np.mean(medians):.3f} |")
    return "\n".join(lines)


def reach_table(rows: pd.DataFrame, strategies: list[str], mode: str, reference: str) -> str:
    """Energy needed for the reference's final median, in percent of the budget."""
    medians = rows.groupby(["problem", "strategy", "spent_fte"])[f"hv_{mode}"].median()
    problems = list(dict.fromkeys(rows.problem))
    lines = [
        f"| % of the budget to reach {reference}'s final {mode} | " + " | ".join(problems) + " | geometric mean |",
        "|---" * (len(problems) + 2) + "|",
    ]
    for strategy in strategies:
        shares = [100 * energy_to_reach(medians[p, strategy], medians[p, reference].iloc[-1]) for p in problems]
        mean = "never on all" if np.isnan(shares).any() else f"{np.exp(np.mean(np.log(shares))):.1f}"
        cells = " | ".join("never" if np.isnan(share) else f"{share:.1f}" for share in shares)
        lines.append(f"| {strategy} | {cells} | {mean} |")
    return "\n".join(lines)


def main() -> int:
    """Run, and print Markdown tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--budget", type=float, default=20.0, help="full-training equivalents per run")
    parser.add_argument("--points", type=int, default=400, help="most measured points per run")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--problems", default=",".join(bench.PROBLEMS))
    parser.add_argument(
        "--strategies",
        default=",".join(("freeze-thaw", "freeze-thaw complete", "hyperband", *bench.STOCK)),
        help="of: " + "; ".join(bench.STRATEGIES),
    )
    parser.add_argument("--ablate", action="store_true")
    parser.add_argument("--reported", action="store_true", help="take the stock samplers from results measured before")
    parser.add_argument("--again", action="store_true", help="ignore the cache")
    parser.add_argument("--cache", default=str(Path(__file__).resolve().parents[2] / "build" / "benchmarks" / "search"))
    arguments = parser.parse_args()
    reason = bench.missing()
    if reason:
        print(f"skipped: the tables of trainings are not here ({reason})")
        return 0
    strategies = [name.strip() for name in arguments.strategies.split(",")]
    strategies += [f"freeze-thaw, {name}" for name in bench.ABLATIONS] if arguments.ablate else []
    unknown = [name for name in strategies if name not in bench.STRATEGIES]
    if unknown:
        parser.error(f"--strategies: unknown {unknown}; choose from {', '.join(bench.STRATEGIES)}")
    rows = collect(arguments, strategies)
    where = " (stock samplers: results measured before)" if arguments.reported else ""
    print(f"{arguments.seeds} seeds, {arguments.budget:g} FTE, at most {arguments.points} points per run{where}\n")
    for mode in ("any", "full"):
        print(final_table(rows, strategies, mode), end="\n\n")
    for reference in ("tpe", "tpe-epochs"):
        if reference in strategies:
            print(reach_table(rows, strategies, "any", reference), end="\n\n")
    if "gp" in strategies:
        print(reach_table(rows, strategies, "full", "gp"), end="\n\n")
    if "z_count" in rows:
        last = rows[(rows.spent_fte == rows.spent_fte.max()) & (rows.z_count > 0)]
        for (strategy, problem), found in last.groupby(["strategy", "problem"])[["z_squares", "z_beyond", "z_count"]].sum().iterrows():
            rms, beyond = (found.z_squares / found.z_count) ** 0.5, found.z_beyond / found.z_count
            print(f"z-scores of fresh picks, {strategy}, {problem}: rms {rms:.2f}, {beyond:.0%} beyond 2, of {found.z_count:.0f}")
    if rows.get("seconds_per_decision") is not None:
        for strategy, seconds in rows.groupby("strategy").seconds_per_decision.mean().dropna().items():
            print(f"CPU seconds per decision, {strategy}: {seconds:.3f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
