"""What the whitened first layer and label smoothing give a small network from scratch, for which CPU time.

``python tests/benchmarks/scratch.py --data ../shared/data/cifar10-images.zip --examples 4250`` prints a line for each training and a table.
Wh are CPU-seconds x 1.54 W, an estimate; one thread. A folder without images is read as sounds.
"""

import argparse
import statistics
import time
from dataclasses import replace

import numpy as np
import torch

from joulefront.search.space import Candidate, FixedTrial
from joulefront.search.training.audio import audio
from joulefront.search.training.fit import fit
from joulefront.search.training.images import images
from joulefront.search.training.recipe import Recipe
from joulefront.spaces.convnet import Convnet

WATTS = 1.54
ARMS = {"plain": (False, 0.0), "whitened": (True, 0.0), "whitened, smoothing .1": (True, 0.1)}


def main() -> None:
    """Train each arm with each seed to each number of epochs, going on from the one before."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--sound", action="store_true")
    parser.add_argument("--examples", type=int, default=10**9)
    parser.add_argument("--epochs", default="1,3,9")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--width", type=int, default=32)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    rungs = [int(number) for number in asked.epochs.split(",")]
    found: dict[tuple[str, int], list[tuple[float, float]]] = {}
    for seed in range(asked.seeds):
        task = (audio if asked.sound else images)(asked.data, seed=seed)
        rows = np.random.default_rng(seed).permutation(len(task.train))[: asked.examples]
        task = replace(task, train=task.train.only(rows))  # type: ignore[attr-defined]  # both are in memory
        for arm, (whitened, smoothing) in ARMS.items():
            recipe = Recipe(
                learning_rate=1e-2,
                weight_decay=1e-2,
                batch_size=64,
                augment="shift" if asked.sound else "flip_shift",
                label_smoothing=smoothing,
            )
            params = {
                "depth": 3,
                "width": asked.width,
                "kernel": 3,
                "depthwise": False,
                "pooling": "max",
                "norm": "batch",
                "activation": "relu",
            }
            space = Convnet(whitened=whitened)
            architecture = {"family": "convnet", **space.architecture(FixedTrial(params))}
            torch.manual_seed(seed)
            begin, start = time.process_time(), None
            model = space.build(Candidate(architecture, recipe), task)
            for epochs in rungs:
                fitted = fit(model, task, recipe, epochs=epochs, start=start, seed=seed)
                start = fitted.checkpoint
                found.setdefault((arm, epochs), []).append((fitted.quality["accuracy"], time.process_time() - begin))
            print(seed, arm, [(epochs, *map(float, np.round(found[arm, epochs][-1], 3))) for epochs in rungs], flush=True)
    print("| first layer | " + " | ".join(f"{epochs} epochs" for epochs in rungs) + " |\n|---|" + "---|" * len(rungs))
    for arm in ARMS:
        cells = []
        for epochs in rungs:
            accuracies, seconds = zip(*found[arm, epochs], strict=True)
            spread = statistics.stdev(accuracies) if len(accuracies) > 1 else 0.0
            cells.append(f"{statistics.mean(accuracies):.3f} ± {spread:.3f} / {statistics.mean(seconds) * WATTS / 3.6:.2f} mWh")
        print(f"| {arm} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
