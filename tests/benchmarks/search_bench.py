"""Search strategies on tables of real trainings: the problems, the meter that charges them, and the strategies."""

from __future__ import annotations

import functools
import importlib.util
import os
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import optuna
import pandas as pd
from aloe import LocalEdits
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from synthetic_cells import SyntheticCells

from joulefront.search.samplers import FreezeThawSampler
from joulefront.search.samplers.encoding import learn_encoding

sys.path.append(str(Path(__file__).resolve().parents[1]))
from helpers.scores import normal_score

SHARED = Path(__file__).resolve().parents[2] / ".." / "shared"
#: Ten tasks of LCBench, the measured cells and made-up ones: every default is chosen on these. The first three tasks are those of older
#: results, the others were drawn at random.
DEVELOPMENT = (
    *(
        "ecnas4v",
        "cells",
        "lc7593",
        "lc189908",
        "lc168330",
        "lc168908",
        "lc126029",
        "lc167184",
        "lc189866",
        "lc3945",
        "lc167161",
        "lc34539",
    ),
)
#: Looked at in the last run only: five of the 25 other tasks, ``numpy.random.default_rng(15).choice(sorted(others), 5, False)``, and
#: the cells with the energy of another GPU.
KEPT_OUT = ("ecnas4v-rtx3090", "lc167152", "lc168868", "lc189906", "lc189862", "lc168335")
PROBLEMS = (*DEVELOPMENT, *KEPT_OUT)
#: Random configurations whose hypervolume at all rungs is a bar.
RANDOM_CONFIGURATIONS = 1000
#: Spent energy, in full-training equivalents, at which the hypervolume is read.
GRID = (*np.round(np.arange(0.2, 20.01, 0.2), 1), 30.0, 40.0, 60.0, 80.0, 100.0)
#: The cost of a late decision is the mean of so many, the last ones.
LATE = 50
STOCK = ("tpe", "tpe-epochs", "nsga2-epochs", "gp", "random")
#: Strategies that draw the rung as one more parameter.
WITH_EPOCHS = ("tpe-epochs", "nsga2-epochs")
STRATEGIES = (
    "freeze-thaw",
    "freeze-thaw complete",
    "freeze-thaw local-edits",
    "hyperband",
    *STOCK,
)
#: Names of the stock samplers in the folder of results that was measured before.
EARLIER = {"tpe": "tpe", "tpe-epochs": "tpe_ep", "nsga2-epochs": "nsga2_ep", "gp": "gp", "random": "random"}


class ExhaustedError(Exception):
    """The budget is spent."""


class Meter:
    """Charges the recorded energy of every training; a point that was trained before costs nothing."""

    def __init__(self, problem: Any, budget: float, seed: int, most_points: int) -> None:
        self.problem, self.budget, self.most_points = problem, budget, most_points
        self.rng = np.random.default_rng(10_000 + seed)
        self.curves: dict[Any, Any] = {}
        self.trained: dict[Any, set[int]] = {}
        self.spent, self.idle = 0.0, 0
        self.points: list[tuple[float, float, float, int]] = []
        self.z_scores: list[float] = []
        self.deviations: list[float] = []

    @property
    def full(self) -> bool:
        """Whether so many points were measured as a run may have."""
        return sum(map(len, self.trained.values())) > self.most_points

    def train(self, params: Mapping[str, Any], rung: int) -> tuple[float, float]:
        """Return observed accuracy in percent and kWh from scratch; rungs on the way of a resumable training are measured too."""
        name = self.problem.ident(params)
        if name not in self.curves:
            self.curves[name] = self.problem.curve(params, self.rng)[1:]
        observed, true, kwh = self.curves[name]
        done = self.trained.setdefault(name, set())
        have = max(done, default=-1)
        new = [r for r in (range(have + 1, rung + 1) if self.problem.resume else [rung]) if r not in done]
        cost = 0.0 if not new else float(kwh[rung] - (kwh[have] if self.problem.resume and have >= 0 else 0.0))
        self.idle = 0 if new else self.idle + 1
        if self.spent + cost > self.budget or self.idle > 100 or self.full:
            raise ExhaustedError
        self.spent += cost
        done.update(new)
        if (np.diff(kwh) > 0).all():  # else an artefact of the surrogate: longer trainings for the same energy
            self.points += [(self.spent, float(true[r]), float(kwh[r]), r) for r in new]
        return float(observed[rung]), float(kwh[rung])


def missing() -> str | None:
    """Return why the problems cannot be loaded, or None."""
    for path in (SHARED / "bench" / "problems.py", SHARED / "data" / "ecnas", SHARED / "data" / "lcbench"):
        if not path.exists():
            return f"{os.path.relpath(path)} is absent"
    if importlib.util.find_spec("onnxruntime") is None:
        return "onnxruntime is not installed"
    return None


@functools.cache
def load(cache: str) -> ModuleType:
    """Import the definitions of the problems; what they compute once is kept in ``cache``."""
    os.environ["BENCH_DATA"], os.environ["BENCH_OUT"] = str(SHARED / "data"), cache
    sys.path.append(str(SHARED / "bench"))  # it imports its neighbours
    spec = importlib.util.spec_from_file_location("bench_problems", SHARED / "bench" / "problems.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@functools.cache
def problem_and_metric(cache: str, name: str) -> tuple[Any, Any]:
    """Load one problem and the metric of it."""
    module = load(cache)
    problem = SyntheticCells() if name == SyntheticCells.name else module.get(name.partition("-")[0])
    if "-" in name:
        energy_of_another_gpu(problem, name.partition("-")[2])
    accuracy, kwh = problem.pool()
    drawn, grows = getattr(problem, "nrand", len(kwh)), (np.diff(kwh, axis=1) > 0).all(1)
    problem.nrand = int(grows[:drawn].sum())
    problem.pool = lambda: (accuracy[grows], kwh[grows])
    metric = module.Metric(problem)
    some = slice(0, min(RANDOM_CONFIGURATIONS, problem.nrand))
    metric.random = metric.hv("any", accuracy[grows][some].ravel(), kwh[grows][some].ravel()) / metric.best["any"]
    return problem, metric


def energy_of_another_gpu(problem: Any, gpu: str) -> None:
    """Give the cells of ``ecnas4v`` the energy that another GPU took for 4 epochs; its growth with the epochs stays as it was measured."""
    folder = SHARED / "data" / "ecnas"
    hashes = sorted(set(pd.read_csv(folder / "ecnas_4v.csv.gz", usecols=["hash"]).hash))
    measured = pd.read_csv(folder / "ecnas_4v_hardware.csv.gz").query("gpu == @gpu").set_index("hash").kwh4
    problem.kwh = problem.kwh * (measured.loc[hashes].to_numpy() / problem.kwh[:, 0])[:, None]


def distributions(space: Mapping[str, Any]) -> dict[str, BaseDistribution]:
    """Turn a problem's space into Optuna's distributions."""
    found: dict[str, BaseDistribution] = {}
    for name, (kind, *rest) in space.items():
        if kind == "cat":
            found[name] = CategoricalDistribution(rest[0])
        else:
            found[name] = (IntDistribution if kind == "int" else FloatDistribution)(rest[0], rest[1], log=rest[2])
    return found


def sampler_of(strategy: str, problem: Any, seed: int) -> optuna.samplers.BaseSampler:
    """Make the sampler of a strategy."""
    if strategy.startswith("freeze-thaw"):
        options: dict[str, Any] = {"complete_only": True} if strategy.endswith("complete") else {}
        if strategy.endswith("local-edits"):
            options["proposal"] = LocalEdits()
        return FreezeThawSampler(problem.rungs, resume=problem.resume, seed=seed, key=problem.ident, **options)
    stock: dict[str, Callable[[], optuna.samplers.BaseSampler]] = {
        "tpe": lambda: optuna.samplers.TPESampler(seed=seed),
        "tpe-epochs": lambda: optuna.samplers.TPESampler(seed=seed),
        "nsga2-epochs": lambda: optuna.samplers.NSGAIISampler(seed=seed, population_size=20),
        "gp": lambda: optuna.samplers.GPSampler(seed=seed),
        "random": lambda: optuna.samplers.RandomSampler(seed=seed),
    }
    return stock[strategy]()


def run(job: tuple[str, str, int, float, int, str]) -> list[dict[str, Any]]:
    """Search one problem once; a row per spent energy of ``GRID``.

    Args:
        job: Problem, strategy, seed, budget in full-training equivalents, largest number of measured points, cache folder.
    """
    name, strategy, seed, budget, most_points, cache = job
    warnings.filterwarnings("ignore")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    problem, metric = problem_and_metric(cache, name)
    meter = Meter(problem, budget * metric.fte, seed, most_points)
    last, seconds = len(problem.rungs) - 1, np.zeros(0)
    try:
        if strategy == "hyperband":
            hyperband(problem, meter, seed)
        seconds = np.array(_search(strategy, problem, meter, seed))
    except ExhaustedError:
        pass
    points = np.array(meter.points).reshape(-1, 4)
    rows = []
    for spent in (x for x in GRID if x <= budget):
        seen = points[points[:, 0] <= spent * metric.fte]
        complete = seen[seen[:, 3] == last]
        row: dict[str, Any] = {"problem": name, "strategy": strategy, "seed": seed, "spent_fte": spent}
        for mode, part in (("full", complete), ("any", seen)):
            row[f"hv_{mode}"] = metric.hv(mode, part[:, 1], part[:, 2]) / metric.best[mode] if len(part) else 0.0
        row |= {"hv_random": metric.random, "n_evals": len(seen), "n_full": len(complete)}
        z = np.array(meter.z_scores)
        row |= {
            "z_squares": float(np.sum(z**2)),
            "z_beyond": int(np.sum(np.abs(z) > 2)),
            "z_count": len(z),
            "off_squares": float(np.sum(np.square(meter.deviations))),
        }
        cost = seconds.mean() if len(seconds) else None, seconds[-LATE:].mean() if len(seconds) > 2 * LATE else None
        rows.append({**row, "seconds_per_decision": cost[0], "seconds_late": cost[1]})
    rows[-1] |= {"z_scores": [round(float(z), 2) for z in meter.z_scores], "deviations": [round(float(z), 2) for z in meter.deviations]}
    return rows


def _search(strategy: str, problem: Any, meter: Meter, seed: int) -> list[float]:
    """Search with an Optuna sampler until the budget is spent; return the CPU-seconds of each decision, storage included."""
    sampler = sampler_of(strategy, problem, seed)
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
    space, last = distributions(problem.space), len(problem.rungs) - 1
    ours, seconds = strategy.startswith("freeze-thaw"), [0.0]
    try:
        while True:
            begin = time.process_time()
            trial = study.ask()
            params = {key: trial._suggest(key, distribution) for key, distribution in space.items()}
            if ours:
                rung = problem.rungs.index(trial.suggest_int("epochs", problem.rungs[0], problem.rungs[-1]))
            else:
                rung = trial.suggest_int("rung", 0, last) if strategy in WITH_EPOCHS else last
            seconds.append(time.process_time() - begin)
            accuracy, kwh = meter.train(params, rung)
            belief = getattr(getattr(sampler, "last_decision", None), "belief", None)
            if belief is not None and sampler.last_decision.parent is None:
                meter.z_scores.append(normal_score(belief, accuracy / 100))
                meter.deviations.append(belief.z_score(accuracy / 100))
            # The stock samplers get the logarithm, which is what they are measured by; ours takes it itself.
            begin = time.process_time()
            study.tell(trial, [accuracy / 100, kwh] if ours else [accuracy, np.log10(kwh)])
            seconds[-1] += time.process_time() - begin
    except ExhaustedError:
        return seconds[1:]


def hyperband(problem: Any, meter: Meter, seed: int) -> None:
    """Multi-objective Hyperband on random configurations: brackets of successive halving by non-dominated rank, eta 3, without end.

    Sources: Li et al. 2018, "Hyperband" (arXiv 1603.06560); Schmucker et al. 2020, "Multi-objective multi-fidelity hyperparameter
    optimization" (non-dominated sorting at the rungs).
    """
    rng, top = np.random.default_rng(seed), len(problem.rungs) - 1
    encoding = learn_encoding([], distributions(problem.space))
    while True:
        for lowest in range(top + 1):
            count = int(np.ceil((top + 1) / (top - lowest + 1) * 3 ** (top - lowest)))
            running = [encoding.params(genes) for genes in encoding.random(rng, count)]
            for rung in range(lowest, top + 1):
                values = np.array([meter.train(params, rung) for params in running])
                order = np.argsort(rank_of(np.c_[values[:, 0], -np.log10(values[:, 1])]), kind="stable")
                running = [running[index] for index in order[: max(1, len(running) // 3)]]


def rank_of(points: Any) -> Any:
    """Return the non-dominated rank of ``(n, 2)`` points to be maximised, 0 for the front, ``(n,)``."""
    ranks, left = np.zeros(len(points), dtype=int), np.arange(len(points))
    while len(left):
        here = points[left]
        beaten = np.array([((here >= one).all(1) & (here > one).any(1)).any() for one in here])
        ranks[left[beaten]] += 1
        left = left[beaten]
    return ranks
