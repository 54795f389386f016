"""The schedule of a search that continues its trainings: `anytime` against `constant` and `cosine`, on real images.

    python tests/benchmarks/schedules.py --data ../shared/data/cifar10-images.zip

A few random convnets of the bundled study `images` are trained to every rung. `anytime` (warm-up, constant rate, evaluated with averaged
weights) and `constant` (the same without averaging) continue from rung to rung and pay increments; `cosine` has a fixed horizon, so
that every rung is a training of its own. Printed: mean validation accuracy at each rung with the mean difference from `anytime` and its
standard error over the networks (paired: equal networks, seeds and data), and the energy of all four points together.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev

for _threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_threads, "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch  # noqa: E402 - after the number of threads is set
from live import part  # noqa: E402 - after the number of threads is set

from joulefront.search.energy import Ledger, discover  # noqa: E402 - after the number of threads is set
from joulefront.search.space import RandomTrial  # noqa: E402 - after the number of threads is set
from joulefront.search.training.fit import fit  # noqa: E402 - after the number of threads is set
from joulefront.search.training.images import images  # noqa: E402 - after the number of threads is set
from joulefront.search.training.recipe import Recipe  # noqa: E402 - after the number of threads is set
from joulefront.search.training.task import Task  # noqa: E402 - after the number of threads is set
from joulefront.spaces.convnet import Convnet  # noqa: E402 - after the number of threads is set
from joulefront.spaces.recipes import RecipeRanges  # noqa: E402 - after the number of threads is set

RUNGS = (1, 3, 9, 27)
SPACE = Convnet(
    depths=(2, 4),
    widths=(8, 32),
    kernels=(3,),
    poolings=("max", "stride"),
    recipe=RecipeRanges(learning_rate=(1e-3, 2e-2), weight_decay=(1e-4, 1e-1), batch_size=(64, 128, 256), augment=("none", "flip_shift")),
)
SCHEDULES: dict[str, dict[str, object]] = {
    "anytime": {"schedule": "anytime", "averaging": True},
    "constant": {"schedule": "constant", "averaging": False},
    "cosine": {"schedule": "cosine", "averaging": False},
}


def train(seed: int, changes: dict[str, object], task: Task, ledger: Ledger) -> tuple[list[float], float]:
    """Return the accuracy at every rung, and the joules that it took to have them all."""
    candidate = SPACE.sample(RandomTrial(seed))
    recipe: Recipe = replace(candidate.recipe, **changes)  # type: ignore[arg-type]  # fields by name
    qualities, joules, start = [], 0.0, None
    for rung in RUNGS:
        torch.manual_seed(seed)
        model = SPACE.build(candidate, task)
        with ledger.window(f"{seed} {recipe.schedule} {rung}") as window:
            fitted = fit(model, task, recipe, epochs=rung, start=start, seed=seed)
        qualities.append(fitted.quality["accuracy"])
        joules += window.record.joules or float("nan")
        start = fitted.checkpoint if recipe.resumable else None
    return qualities, joules


def main() -> int:
    """Train, and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder or zip of images")
    parser.add_argument("--examples", type=int, default=5000)
    parser.add_argument("--networks", type=int, default=4)
    arguments = parser.parse_args()
    if not Path(arguments.data).exists():
        print(f"skipped: the images are not here ({arguments.data} is absent)")
        return 0
    torch.set_num_threads(1)
    task = part(images(arguments.data, seed=0), arguments.examples, 0)
    found: dict[str, list[tuple[list[float], float]]] = {name: [] for name in SCHEDULES}
    meters = discover()
    with Ledger(meters.sources, absent=meters.absent) as ledger:
        for seed in range(arguments.networks):
            for name, changes in SCHEDULES.items():
                found[name].append(train(seed, changes, task, ledger))
                print(f"network {seed}, {name}: {found[name][-1]}", file=sys.stderr, flush=True)
        quality = ledger.total().quality
    print(f"{arguments.networks} networks, {arguments.examples} images, one thread, energy {quality}\n")
    print("| schedule | " + " | ".join(f"{rung} epochs" for rung in RUNGS) + " | Wh for all four |")
    print("|---" * (len(RUNGS) + 2) + "|")
    for name, runs in found.items():
        cells = []
        for place in range(len(RUNGS)):
            text = f"{fmean(qualities[place] for qualities, _ in runs):.3f}"
            if name != "anytime":
                away = [own[0][place] - base[0][place] for own, base in zip(runs, found["anytime"], strict=True)]
                error = stdev(away) / len(away) ** 0.5 if len(away) > 1 else float("nan")
                text += f" ({fmean(away):+.3f} ± {error:.3f})"
            cells.append(text)
        print(f"| {name} | " + " | ".join(cells) + f" | {fmean(joules for _, joules in runs) / 3600:.4f} |")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
