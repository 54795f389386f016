"""Grams saved by waiting for clean hours, at equal energy: the same studies at once and with deadlines, on tables of real trainings.

    python tests/benchmarks/carbon_aware.py --seeds 3 --budget 10 --hours 6 --deadlines 12,24,48

Every study runs through Optuna's ask and tell on a virtual clock; what waits is decided by the code that ``joulefront run`` uses
(`joulefront.search.running.clean_hours`). Trainings are charged their recorded energy, at constant power, so that the whole budget takes
``--hours`` of training. Studies begin at 0, 6, 12 and 18 h in turn. Without ``--curve`` the day is synthetic, see ``SYNTHETIC_DAY``.

Columns: grams of the search against the same study at once; grams per kWh of the members of the final front, as trained; the
hypervolume of the final front as a share of the best known; hours waited; the power while waiting, as a share of the power while training,
above which waiting emits more than it saves. Waiting itself is free in the other columns. Medians over seeds.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import warnings
from pathlib import Path
from typing import Any

for _threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_threads, "1")

import moocore  # noqa: E402 - after the number of threads is set
import numpy as np  # noqa: E402 - after the number of threads is set
import optuna  # noqa: E402 - after the number of threads is set
import pandas as pd  # noqa: E402 - after the number of threads is set
import search_bench as bench  # noqa: E402 - after the number of threads is set

from joulefront.search.carbon.forecast import IntensityCurve, read_forecast  # noqa: E402 - after the number of threads is set
from joulefront.search.running.clean_hours import Postponer  # noqa: E402 - after the number of threads is set
from joulefront.search.stopping.rules import Limits  # noqa: E402 - the same

#: Synthetic, in gCO2e/kWh by the hour in UTC: the shape of a spring day in a grid with much solar power, a valley at noon, a peak at night.
SYNTHETIC_DAY = (
    *(330, 325, 320, 318, 322, 335, 350, 340, 300, 250, 205, 175),
    *(160, 158, 168, 195, 245, 310, 375, 405, 400, 385, 360, 345),
)
#: A day in 2026; only the hour of the day matters to a curve that repeats.
MIDNIGHT = 493_000.0 - 493_000.0 % 24


def simulate(job: tuple[str, str, int, float, float, float, str, str | None]) -> dict[str, Any]:
    """Run one study on a virtual clock.

    Args:
        job: Problem, strategy, seed, budget in full-training equivalents, hours that the budget takes, deadline in hours (0: at once),
            cache folder, CSV of the curve or None.
    """
    name, strategy, seed, budget, budget_hours, deadline, cache, curve = job
    warnings.filterwarnings("ignore")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    day = IntensityCurve(tuple(float(h) for h in range(24)), SYNTHETIC_DAY) if curve is None else read_forecast(Path(curve))
    problem, metric = bench.problem_and_metric(cache, name)
    meter = bench.Meter(problem, budget * metric.fte, seed, 10_000)
    kwh_per_hour = meter.budget / budget_hours
    begin = hour = (MIDNIGHT if day.period_hours else day.span[0]) + 6.0 * (seed % 4)
    postponer = Postponer(day, begin + deadline, problem.rungs[-1]) if deadline else None
    ours, last = strategy.startswith("freeze-thaw"), len(problem.rungs) - 1
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=bench.sampler_of(strategy, problem, seed))
    space = bench.distributions(problem.space)
    grams, waited, wait_grams_at_full_power = 0.0, 0.0, 0.0
    grams_of: dict[Any, float] = {}
    points: list[tuple[float, float, float]] = []  # accuracy, kWh, grams of each measured model

    def wait(epochs: int | None) -> None:
        nonlocal hour, waited, wait_grams_at_full_power
        while postponer and (until := postponer.until(study, hour, Limits(meter.budget - meter.spent), epochs)) is not None:
            wait_grams_at_full_power += kwh_per_hour * (until - hour) * day.mean(hour, until)
            waited, hour = waited + until - hour, until

    try:
        while True:
            if ours:
                study.sampler.remaining = meter.budget - meter.spent
            wait(None)
            trial = study.ask()
            params = {key: trial._suggest(key, distribution) for key, distribution in space.items()}
            if ours:
                rung = problem.rungs.index(trial.suggest_int("epochs", problem.rungs[0], problem.rungs[-1]))
            else:
                rung = trial.suggest_int("rung", 0, last) if strategy == "tpe-epochs" else last
            wait(problem.rungs[rung])
            key = problem.ident(params)
            before, have = meter.spent, max(meter.trained.get(key, set()), default=-1)
            accuracy, kwh = meter.train(params, rung)
            cost = meter.spent - before
            if cost > 0:
                hours = cost / kwh_per_hour
                paid = cost * day.mean(hour, hour + hours)
                grams, hour = grams + paid, hour + hours
                grams_of[key] = paid + (grams_of.get(key, 0.0) if problem.resume else 0.0)
                points.append((meter.points[-1][1], kwh, grams_of[key]))
                if postponer:
                    done = problem.rungs[have] if problem.resume and have >= 0 else 0
                    postponer.learn(hours, cost, problem.rungs[rung] - done)
            study.tell(trial, [accuracy / 100, kwh] if ours else [accuracy, np.log10(kwh)])
    except bench.ExhaustedError:
        pass
    measured = np.array(points)
    front = measured[moocore.is_nondominated(measured[:, :2], maximise=[True, False])]
    every = np.array(meter.points)
    return {
        "problem": name,
        "strategy": strategy,
        "seed": seed,
        "deadline": deadline,
        "grams": grams,
        "kwh": meter.spent,
        "front_grams_per_kwh": front[:, 2].sum() / front[:, 1].sum(),
        "hypervolume": metric.hv("any", every[:, 1], every[:, 2]) / metric.best["any"],
        "hours_waited": waited,
        "hours_late": max(0.0, hour - begin - deadline) if deadline else 0.0,
        "wait_grams_at_full_power": wait_grams_at_full_power,
    }


def table(rows: pd.DataFrame) -> str:
    """Medians over seeds, against the same seeds at once."""
    lines = [
        "| problem | strategy | deadline | search, gCO2e against at once | front, g/kWh (at once) | hypervolume (at once) | hours waited | "
        "break-even power while waiting |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for (problem, strategy), part in rows.groupby(["problem", "strategy"], sort=False):
        once = part[part.deadline == 0].set_index("seed")
        for deadline, later in part[part.deadline > 0].groupby("deadline"):
            later = later.set_index("seed")
            # Per kWh: runs differ in the last training that did not fit any more.
            ratio = (later.grams / later.kwh) / (once.grams / once.kwh)
            saved = (once.grams / once.kwh - later.grams / later.kwh) * later.kwh
            even = (saved / later.wait_grams_at_full_power).replace([np.inf, -np.inf], np.nan)
            lines.append(
                f"| {problem} | {strategy} | {deadline:g} h | {100 * (ratio.median() - 1):+.0f} % | "
                f"{later.front_grams_per_kwh.median():.0f} ({once.front_grams_per_kwh.median():.0f}) | "
                f"{later.hypervolume.median():.3f} ({once.hypervolume.median():.3f}) | {later.hours_waited.median():.1f} | "
                f"{100 * even.median():.0f} % |"
            )
    return "\n".join(lines)


def main() -> int:
    """Run, and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--budget", type=float, default=10.0, help="full-training equivalents per run")
    parser.add_argument("--hours", type=float, default=6.0, help="hours of training that the budget takes")
    parser.add_argument("--deadlines", default="12,24,48", help="hours")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--problems", default=",".join(bench.PROBLEMS))
    parser.add_argument("--strategies", default="freeze-thaw", help="of: " + "; ".join(bench.STRATEGIES))
    parser.add_argument("--curve", help="CSV of a day or of a stretch of time, in place of the synthetic day")
    parser.add_argument("--cache", default=str(Path(__file__).resolve().parents[2] / "build" / "benchmarks" / "search"))
    arguments = parser.parse_args()
    reason = bench.missing()
    if reason:
        print(f"skipped: the tables of trainings are not here ({reason})")
        return 0
    deadlines = [0.0, *(float(text) for text in arguments.deadlines.split(","))]
    jobs = [
        (problem, strategy, seed, arguments.budget, arguments.hours, deadline, arguments.cache, arguments.curve)
        for problem in arguments.problems.split(",")
        for strategy in arguments.strategies.split(",")
        for seed in range(arguments.seeds)
        for deadline in deadlines
    ]
    Path(arguments.cache).mkdir(parents=True, exist_ok=True)
    for problem in {job[0] for job in jobs}:
        bench.problem_and_metric(arguments.cache, problem)
    with multiprocessing.get_context("spawn").Pool(arguments.jobs) as pool:
        done = []
        for row in pool.imap(simulate, jobs):
            done.append(row)
            at = f"{row['deadline']:g} h" if row["deadline"] else "at once"
            print(f"{len(done)}/{len(jobs)} {row['problem']} {row['strategy']} {row['seed']} {at}", file=sys.stderr, flush=True)
    rows = pd.DataFrame(done)
    day = "a synthetic day" if arguments.curve is None else arguments.curve
    print(f"{arguments.seeds} seeds, {arguments.budget:g} FTE in {arguments.hours:g} h of training, intensity of {day}\n")
    print(table(rows))
    print(f"\nlongest overrun of a deadline: {rows.hours_late.max():.2f} h")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
