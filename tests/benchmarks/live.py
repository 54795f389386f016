"""Samplers against one another on real trainings: images, this machine, equal measured energy.

    python tests/benchmarks/live.py --data ../shared/data/cifar10-images.zip --budget 0.3Wh --seeds 3

Each run searches the space of the bundled study ``images`` (convnets and small networks of timm, one thread) on a part of the images and
ends when its ledger has counted the budget, decisions, validation and start-up included. The stock samplers choose the epochs as one more
parameter, on a logarithmic scale, so they too may train less. Quality is validation accuracy: what the samplers see.

``freeze-thaw>=0.5`` is our sampler with ``min_accuracy=0.5``: models below are of no use.

Result: hypervolume of accuracy and log energy of a training, all measured models counting, as a ratio to the front of all runs together.
The reference point is the most expensive model of that front and, in one table, the 10th percentile of all accuracies measured, in the
other their 75th: what counts when only the better models are of use. Runs are kept in ``--cache``.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

for _threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_threads, "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import moocore  # noqa: E402 - after the number of threads is set
import numpy as np  # noqa: E402 - after the number of threads is set

from joulefront.search.records.run_folder import Run, RunFolder  # noqa: E402 - after the number of threads is set
from joulefront.search.running.run import run as run_study  # noqa: E402 - after the number of threads is set
from joulefront.search.study import Budget, Study  # noqa: E402 - after the number of threads is set
from joulefront.search.training.images import images  # noqa: E402 - after the number of threads is set
from joulefront.search.training.splits_data import MemoryData  # noqa: E402 - after the number of threads is set
from joulefront.search.training.task import Task  # noqa: E402 - after the number of threads is set
from joulefront.spaces.convnet import Convnet  # noqa: E402 - after the number of threads is set
from joulefront.spaces.recipes import RecipeRanges  # noqa: E402 - after the number of threads is set
from joulefront.spaces.timm_zoo import TimmZoo  # noqa: E402 - after the number of threads is set
from joulefront.spaces.union import Union  # noqa: E402 - after the number of threads is set
from joulefront.studies.images import MODELS  # noqa: E402 - after the number of threads is set

SHARES = (0.25, 0.5, 1.0)
RECIPE = RecipeRanges(
    learning_rate=(1e-3, 2e-2), weight_decay=(1e-4, 1e-1), batch_size=(64, 128, 256), augment=("none", "flip_shift"), threads=1
)


@dataclass(frozen=True)
class Point:
    """One measured model.

    Attributes:
        spent: Share of the budget that its search had spent when it was measured.
        accuracy: Validation accuracy.
        joules: Energy of its training from scratch.
    """

    spent: float
    accuracy: float
    joules: float


def make_study(task: Task, sampler: str, seed: int) -> Study:
    """Return the study of one run; for equal seeds the samplers see the same data."""
    space = Union(
        Convnet(depths=(2, 4), widths=(8, 64), kernels=(3,), poolings=("max", "stride"), recipe=RECIPE),
        TimmZoo(models=MODELS, recipe=RECIPE),
    )
    name, _, floor = sampler.partition(">=")
    # No net under the stock samplers, and none is needed under ours: these are the samplers as they are.
    return Study(
        name="live",
        task=task,
        space=space,
        rungs=(1, 3, 9, 27),
        sampler=name,
        seed=seed,
        min_accuracy=float(floor) if floor else None,
        stop_dominated=False,
    )


def part(task: Task, examples: int, seed: int) -> Task:
    """Keep so many training images and half as many for validation, drawn at random."""
    assert isinstance(task.train, MemoryData)
    assert isinstance(task.validation, MemoryData)
    rng = np.random.default_rng(seed)
    train, validation = (
        data.only(rng.permutation(len(data))[:count]) for data, count in ((task.train, examples), (task.validation, examples // 2))
    )
    return replace(task, train=train, validation=validation)


def one_run(job: tuple[str, str, int, int, str, str]) -> str:
    """Run one study to the end of its budget, unless that was done before."""
    data, sampler, seed, examples, budget, cache = job
    folder = Path(cache) / f"{sampler}-{examples}-{budget}-{seed}"
    if not (folder / "trials.json").exists():
        task = part(images(data, seed=seed), examples, seed)
        run_study(make_study(task, sampler, seed), out=folder, budget=budget, device="cpu")
        print(f"done: {folder.name}", file=sys.stderr, flush=True)
    return str(folder)


def points_of(run: Run, budget_joules: float) -> list[Point]:
    """Return the measured models of a run in the order in which they were paid; what no trial paid is spread over all of them."""
    paid = [trial.increment_joules or 0.0 for trial in run.trials]
    if not sum(paid):
        raise SystemExit(f"{run.path} measured nothing: the budget was spent before the first trial; give a larger --budget")
    scale = (run.bill.total_joules or sum(paid)) / sum(paid) / budget_joules
    spent = np.cumsum(paid) * scale
    return [
        Point(float(share), float(trial.quality["accuracy"]), float(trial.train_joules))
        for trial, share in zip(run.trials, spent, strict=True)
        if trial.state == "complete" and trial.train_joules and "copy_of" not in trial.extra
    ]


def hypervolume(points: list[Point], floor: float, most: float) -> float:
    """Area over (accuracy, log10 joules) above the reference point."""
    if not points:
        return 0.0
    values = np.array([[-point.accuracy, np.log10(point.joules)] for point in points])
    return float(moocore.hypervolume(values, ref=[-floor, np.log10(most)]))


def tables(
    found: dict[tuple[str, int], list[Point]], runs: dict[tuple[str, int], Run], samplers: list[str], seeds: int, quantile: float
) -> str:
    """Return the results as Markdown, with a quantile of all accuracies as the least accuracy that is of use."""
    everything = [point for points in found.values() for point in points]
    floor = float(np.quantile([point.accuracy for point in everything], quantile))
    front = [p for p in everything if not any(q.accuracy > p.accuracy and q.joules <= p.joules for q in everything)]
    most = max(point.joules for point in front)
    best = hypervolume(everything, floor, most)
    lines = [
        f"reference point: accuracy {floor:.3f}, {most / 3600:.3g} Wh; front of all runs: {len(front)} models\n",
        "| sampler | " + " | ".join(f"at {share:.0%}" for share in SHARES) + " | each seed at 100% | best accuracy | trainings |",
        "|---" * (len(SHARES) + 4) + "|",
    ]
    curves: dict[str, list[float]] = {}
    for sampler in samplers:
        ratios = [
            [hypervolume([p for p in found[sampler, seed] if p.spent <= share], floor, most) / best for seed in range(seeds)]
            for share in SHARES
        ]
        curves[sampler] = ratios[-1]
        accuracies = [max(p.accuracy for p in found[sampler, seed]) for seed in range(seeds)]
        trials = [len(runs[sampler, seed].trials) for seed in range(seeds)]
        cells = [f"{statistics.median(row):.3f}" for row in ratios]
        each = ", ".join(f"{value:.3f}" for value in ratios[-1])
        lines.append(
            f"| {sampler} | " + " | ".join(cells) + f" | {each} | {statistics.median(accuracies):.3f} | {statistics.median(trials):.0f} |"
        )
    lines += ["", "share of the budget after which freeze-thaw has reached the other's final hypervolume, same seed:"]
    for sampler in (name for name in samplers if name != "freeze-thaw" and "freeze-thaw" in samplers):
        needed = []
        for seed in range(seeds):
            points = sorted(found["freeze-thaw", seed], key=lambda p: p.spent)
            reached = (p.spent for k, p in enumerate(points) if hypervolume(points[: k + 1], floor, most) / best >= curves[sampler][seed])
            share = next(reached, None)
            needed.append("never" if share is None else f"{share:.0%}")
        lines.append(f"- {sampler}: {', '.join(needed)}")
    return "\n".join(lines)


def main() -> int:
    """Run what is not in the cache; print Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder or zip of images")
    parser.add_argument("--examples", type=int, default=5000, help="training images; half as many for validation")
    parser.add_argument("--budget", default="0.3Wh")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--samplers", default="freeze-thaw,tpe,nsga2")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--cache", default=str(Path(__file__).resolve().parents[2] / "build" / "benchmarks" / "live"))
    arguments = parser.parse_args()
    if not Path(arguments.data).exists():
        print(f"skipped: the images are not here ({arguments.data} is absent)")
        return 0
    samplers = [name.strip() for name in arguments.samplers.split(",")]
    # Samplers in turn within a seed: what else the machine does in that time hits all of them.
    keys: list[tuple[str, int]] = [(sampler, seed) for seed in range(arguments.seeds) for sampler in samplers]
    jobs: list[Any] = [(arguments.data, name, seed, arguments.examples, arguments.budget, arguments.cache) for name, seed in keys]
    with multiprocessing.get_context("spawn").Pool(arguments.jobs, maxtasksperchild=1) as pool:
        folders = pool.map(one_run, jobs, chunksize=1)
    runs = {key: RunFolder.open(folder).run() for key, folder in zip(keys, folders, strict=True)}
    budget = Budget.parse(arguments.budget).joules
    assert budget is not None
    found = {key: points_of(run, budget) for key, run in runs.items()}
    any_run = next(iter(runs.values()))
    kinds = sorted({part.quality for part in any_run.bill.components.values()})
    print(f"{arguments.seeds} seeds, {arguments.examples} images, {arguments.budget} a run, energy {', '.join(kinds)}\n")
    for quantile in (0.1, 0.75):
        print(tables(found, runs, samplers, arguments.seeds, quantile), end="\n\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
