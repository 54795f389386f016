"""CPU time of a decision, of our sampler against TPE with the epochs as a parameter, as both have made more and more of them.

    python tests/benchmarks/search_cost.py --problems lc7593,lc167184,cells --seeds 1

Both search the same problem in turns, a decision each, so that whatever else the machine does falls on both alike. The CPU-seconds of the
process are counted around ask, suggest and tell, Optuna's in-memory storage included; training is reading a table and not counted.
"""

from __future__ import annotations

import argparse
import gc
import os
import time
import warnings
from pathlib import Path
from typing import Any

for _threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_threads, "1")

import numpy as np  # noqa: E402 - after the number of threads is set
import optuna  # noqa: E402 - after the number of threads is set
import search_bench as bench  # noqa: E402 - after the number of threads is set

STRATEGIES = ("freeze-thaw", "tpe-epochs")


class Search:
    """One study, decided step by step, and the CPU-seconds of each decision."""

    def __init__(self, strategy: str, problem: Any, seed: int) -> None:
        self.problem, self.ours = problem, strategy == "freeze-thaw"
        self.meter = bench.Meter(problem, np.inf, seed, 10**9)
        self.study = optuna.create_study(directions=["maximize", "minimize"], sampler=bench.sampler_of(strategy, problem, seed))
        self.space, self.seconds = bench.distributions(problem.space), list[float]()

    def step(self) -> None:
        """Decide on a trial, read its result, and tell it."""
        rungs, begin = self.problem.rungs, time.process_time()
        trial = self.study.ask()
        params = {name: trial._suggest(name, distribution) for name, distribution in self.space.items()}
        rung = rungs.index(trial.suggest_int("epochs", rungs[0], rungs[-1])) if self.ours else trial.suggest_int("rung", 0, len(rungs) - 1)
        seconds = time.process_time() - begin
        self.meter.idle = 0  # a point that was trained before costs nothing, and goes on
        accuracy, kwh = self.meter.train(params, rung)
        begin = time.process_time()
        self.study.tell(trial, [accuracy / 100, kwh] if self.ours else [accuracy, np.log10(kwh)])
        self.seconds.append(seconds + time.process_time() - begin)


def main() -> int:
    """Run both in turns, and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", default="lc7593,lc167184,cells", help="of: " + ", ".join(bench.PROBLEMS))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--trials", type=int, default=400)
    parser.add_argument("--window", type=int, default=50, help="decisions of which the mean is told")
    build = Path(__file__).resolve().parents[2] / "build" / "benchmarks" / "search"
    parser.add_argument("--cache", default=str(build), help="folder for the best-known fronts")
    arguments = parser.parse_args()
    if reason := bench.missing():
        print(f"skipped: the tables of trainings are not here ({reason})")
        return 0
    warnings.filterwarnings("ignore")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    Path(arguments.cache).mkdir(parents=True, exist_ok=True)
    ends = range(arguments.window, arguments.trials + 1, arguments.window)
    print("| CPU-ms a decision (ours / tpe-epochs), decisions before | " + " | ".join(map(str, ends)) + " | all |")
    print("|---" * (len(ends) + 2) + "|")
    total = np.zeros((2, len(ends)))
    for name in arguments.problems.split(","):
        problem, spent = bench.problem_and_metric(arguments.cache, name)[0], np.zeros((2, len(ends)))
        for seed in range(arguments.seeds):
            both = [Search(strategy, problem, seed) for strategy in STRATEGIES]
            gc.collect()
            for _ in range(arguments.trials):
                for one in both:
                    one.step()
            spent += [[1000 * np.mean(one.seconds[end - arguments.window : end]) / arguments.seeds for end in ends] for one in both]
        total += spent
        print(row(name, spent), flush=True)
    print(row("ratio of the sums", total))
    return 0


def row(name: str, spent: Any) -> str:
    """Return a line of the table; of sums over problems their ratio."""
    pairs = [*spent.T, spent.mean(1)]
    cells = [f"{ours / other:.2f}" if name.startswith("ratio") else f"{ours:.0f} / {other:.0f}" for ours, other in pairs]
    return f"| {name} | " + " | ".join(cells) + " |"


if __name__ == "__main__":
    raise SystemExit(main())
