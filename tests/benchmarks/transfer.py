"""Head, last stages and whole network of a pretrained network on the CIFAR images: accuracy and energy, for studies/results/transfer.md.

    nice -n 5 python tests/benchmarks/transfer.py ../shared/data/cifar10-images.zip build/transfer.jsonl --minutes 20
    python tests/benchmarks/transfer.py --table build/transfer.jsonl

One thread. Each line of the file is one training; what is there already is not trained again, and the most telling trainings come first, so
that it may be stopped. Learning rates of the pretrained part are compared on the validation images with the first seed; the best one is
then trained with the other seeds. Energy is CPU time at 1.54 W, an estimate, and stand-alone: the frozen part's pass over the training
images at its own cut and resolution, training the head alone, and the epochs; neither validation nor the loading of images.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
import torch

from joulefront.search.space import Candidate
from joulefront.search.training.backbone import Transfer
from joulefront.search.training.evaluate import evaluate
from joulefront.search.training.feature_cache import FeatureCache
from joulefront.search.training.features import with_features
from joulefront.search.training.fit import fit
from joulefront.search.training.heads import PREPARED, Tuned
from joulefront.search.training.images import images
from joulefront.search.training.recipe import Recipe
from joulefront.search.training.results import no_phases
from joulefront.search.training.task import Task
from joulefront.spaces.finetune import FineTuning
from joulefront.spaces.transfer import TransferFamily
from joulefront.spaces.weights import find

WATTS = 1.54
SEEDS = (0, 1, 2)
EPOCHS = 3
TRAIN, VALIDATION, TEST = 5000, 1500, 2500
#: What is compared, the most telling first: what is trained, batch norms, pixels, training images, rates of the pretrained part.
HEADS = [("head", "-", side, count, (3, 9)) for side in (64, 96) for count in (2000, 5000)]
TUNED = [
    ("stages 6-7", "frozen", 64, 2000, (0.03, 0.1, 0.3, 1.0)),
    ("stage 7", "frozen", 64, 2000, (0.1, 0.3, 1.0)),
    ("stages 6-7", "free", 64, 2000, (0.03, 0.1, 0.3)),
    ("all", "frozen", 64, 2000, (0.1, 0.3)),
    ("stage 7", "frozen", 96, 2000, None),
    ("stage 7", "frozen", 64, 5000, None),
    ("stages 6-7", "frozen", 64, 5000, None),
    ("stage 7", "frozen", 96, 5000, None),
    ("stages 6-7", "frozen", 96, 2000, None),
    ("all", "frozen", 64, 5000, None),
    ("stages 6-7", "frozen", 96, 5000, None),
]
LAYERS = {"stages 6-7": "2", "stage 7": "1", "all": "all"}


def main() -> None:
    """Train what is missing, or print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("data", nargs="?")
    parser.add_argument("file", type=Path)
    parser.add_argument("--minutes", type=float, default=25.0, help="CPU time after which nothing is begun any more")
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    if options.table:
        return print(table(lines(options.file)))
    torch.set_num_threads(1)
    task = excerpt(images(options.data))
    end = time.process_time() + 60 * options.minutes
    with tempfile.TemporaryDirectory() as folder:
        for settings in wanted(options.file):
            if time.process_time() > end:
                return
            found = trained(task, settings, FeatureCache(Path(folder)))
            with options.file.open("a", encoding="utf-8") as file:
                file.write(json.dumps({**settings, **found}) + "\n")


def excerpt(task: Task) -> Task:
    """Return the task with so many images of each split, drawn at random."""
    random = np.random.default_rng(0)
    sizes = {"train": TRAIN, "validation": VALIDATION, "test": TEST}
    parts: dict[str, Any] = {
        name: getattr(task, name).only(random.choice(len(getattr(task, name)), size, replace=False)) for name, size in sizes.items()
    }
    return replace(task, **parts)


def lines(path: Path) -> list[dict[str, Any]]:
    """Return the trainings in a file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def wanted(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the settings that are not trained yet; a rate is searched with the first seed, the best one goes on."""
    names = ("what", "norms", "side", "count", "rate", "seed")
    for what, norms, side, count, rates in (*HEADS, *TUNED):
        group = what, norms, side, count
        choices = rates or (best(lines(path), what, norms, 64, 2000),)
        runs = [(rate, SEEDS[0]) for rate in choices]
        for step in range(2):
            for rate, seed in runs if step == 0 else [(best(lines(path), *group), seed) for seed in SEEDS[1:]]:
                settings = dict(zip(names, (*group, rate, seed), strict=True))
                if not any(all(line[name] == settings[name] for name in names) for line in lines(path)):
                    yield settings


def best(found: list[dict[str, Any]], *group: Any) -> float:
    """Return the rate (of a head: the epochs) with the best validation accuracy with the first seed."""
    own = [line for line in found if (line["what"], line["norms"], line["side"], line["count"]) == group and line["seed"] == SEEDS[0]]
    return float(max(own, key=lambda line: (line["validation"], -line["joules"]))["rate"])


def trained(task: Task, settings: dict[str, Any], cache: FeatureCache) -> dict[str, Any]:
    """Train one model; return its accuracies, its stand-alone energy, and the CPU-seconds by part."""
    weights = find()
    head = settings["what"] == "head"
    recipe = Recipe(learning_rate=1e-3, weight_decay=1e-2, batch_size=64)
    parts = {"weights": weights[0].identity, "side": settings["side"], "images_halved": 0, "features": "grid", "head": "linear"}
    tuned = {} if head else {"tuned": LAYERS[settings["what"]], "norms": settings["norms"], "backbone_rate": settings["rate"]}
    family = TransferFamily(weights) if head else FineTuning(weights)
    model: Any = family.build(Candidate({"family": family.name, **parts, **tuned, "rate_decay": 1.0}, recipe), task)
    model.images = settings["count"]
    took: dict[str, float] = defaultdict(float)

    @contextmanager
    def phases(kind: str, index: int) -> Iterator[None]:
        begin = time.process_time()
        yield
        took[kind] += time.process_time() - begin

    epochs = int(settings["rate"]) if head else EPOCHS
    fitted = fit(model, task, recipe, epochs=epochs, seed=settings["seed"], phases=phases, features=cache)
    assert fitted.features is not None
    assert task.test is not None
    name = f"{settings['side']} {model.feature_set}"
    if fitted.features.computed and fitted.features.computed >= TRAIN - 2000:
        PRICES[name] = took["features"] / fitted.features.computed
    frozen = PRICES[name if name in PRICES else f"{settings['side']} grid"] * settings["count"]
    seconds = frozen + took["setup"] + took["epoch"]
    return {
        "validation": fitted.quality["accuracy"],
        "test": tested(fitted.model, replace(task, validation=task.test), recipe, cache),
        "joules": WATTS * seconds,
        "seconds": {"frozen": frozen, "setup": took["setup"], "epochs": took["epoch"]},
    }


def tested(model: Transfer, task: Task, recipe: Recipe, cache: FeatureCache) -> float:
    """Return the accuracy on the validation split; what is frozen is computed once for all models."""
    if model.feature_set == PREPARED:
        return evaluate(model, task, task.validation, recipe=recipe)["accuracy"]
    standardised = not isinstance(model.head, Tuned)
    found = with_features(model, task, cache=cache, phases=no_phases, device=torch.device("cpu"), standardised=standardised).task
    return evaluate(model.head, found, found.validation, recipe=recipe)["accuracy"]


#: CPU-seconds for one image, by pixels and feature set, as measured when they were computed.
PRICES: dict[str, float] = {}


def table(found: list[dict[str, Any]]) -> str:
    """Return the table of what was trained with all seeds, by pixels and number of images."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
    for line in found:
        groups[line["side"], line["count"], line["what"], line["norms"], line["rate"]].append(line)
    rows = ["| px | images | trained | norms | rate | test accuracy | of head | J | CPU-s frozen + start + epochs |", "|" + "---|" * 9]
    heads: dict[tuple[int, int], float] = {}
    for (side, count, what, norms, rate), own in sorted(groups.items(), key=lambda item: (item[0][:2], item[1][0]["joules"])):
        if len(own) < len(SEEDS):
            continue
        accuracy = fmean(line["test"] for line in own)
        heads.setdefault((side, count), accuracy)
        spread = stdev(line["test"] for line in own)
        seconds = " + ".join(f"{fmean(line['seconds'][part] for line in own):.1f}" for part in ("frozen", "setup", "epochs"))
        shown = f"{rate:g} epochs" if what == "head" else f"{rate:g}"
        gain = accuracy - heads[side, count]
        joules = fmean(line["joules"] for line in own)
        rows.append(
            f"| {side} | {count} | {what} | {norms} | {shown} | {accuracy:.3f} +- {spread:.3f} | {gain:+.3f} | {joules:.1f} | {seconds} |"
        )
    return "\n".join(rows)


if __name__ == "__main__":
    main()
