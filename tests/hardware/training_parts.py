"""The parts about training on the GPU: precisions and layouts in our loop, our loop against the usual one, a whole study."""

from __future__ import annotations

import io
import json
import math
import os
import statistics
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from joulefront.search.energy import Ledger, Record, Window, discover
from joulefront.search.execution.job import Job, WarmUp, train
from joulefront.search.records.bill import read_sessions
from joulefront.search.records.run_folder import RunFolder
from joulefront.search.space import Candidate
from joulefront.search.training.arrays import arrays
from joulefront.search.training.fit import fit
from joulefront.search.training.images import images
from joulefront.search.training.recipe import Recipe, available_precisions, synchronizer
from joulefront.search.training.task import Task
from joulefront.spaces.convnet import ConvolutionalNetwork

from .context import Context
from .table import Figure, as_result, at_least, at_most, holds, near_one

#: Recipes of ``training``: name and what differs from float32; compiling last, since it may take what is left of the time.
VARIANTS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("float32", {}),
    ("float32 again", {}),
    ("bfloat16", {"precision": "bfloat16"}),
    ("float16", {"precision": "float16"}),
    ("channels_last", {"channels_last": True}),
    ("bfloat16, channels_last", {"precision": "bfloat16", "channels_last": True}),
    ("graph", {"graph": True}),
    ("float32 at the end", {}),
    ("compile", {"compile": True}),
    ("bfloat16, channels_last, compile", {"precision": "bfloat16", "channels_last": True, "compile": True}),
)
CLASSES = 10
BATCH = 256


class One:
    """A space of one network with one recipe."""

    def __init__(self, recipe: Recipe, width: int) -> None:
        self.recipe, self.width = recipe, width

    def sample(self, trial: Any) -> Candidate:
        """Return the one candidate."""
        return Candidate({"family": "convnet"}, self.recipe)

    def build(self, candidate: Candidate, task: Task) -> torch.nn.Module:
        """Build the one network."""
        return ConvolutionalNetwork((3, 32, 32), CLASSES, depth=4, width=self.width, pooling="stride")


def training(context: Context) -> dict[str, Any]:
    """Three epochs of each precision and layout through the product's own way of a trial, each with its energy."""
    examples = 30_000 if context.gpu else max(2 * BATCH, round(1000 * context.scale))
    task = arrays(*pictures(examples), name="pictures")
    rows = []
    with Ledger(discover("auto")) as ledger, TemporaryDirectory() as scratch:
        # As a run does: contexts and libraries are nobody's training.
        WarmUp(One(_recipe({}), _width(context)), task, context.device, 0).all(os.cpu_count() or 1)
        for name, changes in VARIANTS:
            if changes.get("precision", "float32") not in available_precisions(context.device):
                rows.append({"variant": name, "failed": f"{context.device} does not compute in {changes['precision']}", "absent": True})
            elif changes.get("compile") and not context.gpu:
                rows.append({"variant": name, "failed": "compiling on a CPU tells nothing about a GPU", "absent": True})
            else:
                rows.append(_trained(name, changes, task, ledger, context, Path(scratch) / "weights"))
            context.save(_training_result(rows, len(task.train)))
    return _training_result(rows, len(task.train))


def _training_result(rows: Sequence[dict[str, Any]], examples: int) -> dict[str, Any]:
    figures = []
    for row in rows:
        what = f"{row['variant']}: trained, finite, better than guessing"
        if row.get("absent"):
            figures.append(Figure(what, None, "", "yes", note=row["failed"]))
            continue
        good = row["failed"] is None and row["accuracy"] is not None and row["accuracy"] > 1.5 / CLASSES
        figures.append(holds(what, good, "yes", note=row["failed"] or ""))
        joules, seconds = row["epoch_joules"], row["epoch_seconds"]
        figures.append(Figure(f"{row['variant']}: energy of the last epoch", joules[-1] if joules else None, "J"))
        rate = examples / seconds[-1] if seconds else None
        figures.append(Figure(f"{row['variant']}: images per second in the last epoch", rate, "1/s"))
    plain = [row for row in rows if row["variant"].startswith("float32") and row.get("epoch_joules")]
    if len(plain) > 1 and all(row["epoch_joules"][0] is not None for row in plain):
        first = plain[0]["epoch_joules"][0] / statistics.mean(row["epoch_joules"][0] for row in plain[1:])
        figures.append(
            at_most("first epoch of the first training / that of later equal ones", first, 1.1, bar_text="≤ 1.1 after a warm-up")
        )
    return as_result(figures, rows=rows, examples=examples)


def _trained(name: str, changes: Mapping[str, Any], task: Task, ledger: Ledger, context: Context, weights: Path) -> dict[str, Any]:
    windows: list[Window] = []

    @contextmanager
    def phases(kind: str, index: int) -> Iterator[None]:
        with ledger.window(f"{kind} {index}", kind, synchronize=synchronizer(context.device)) as window:
            yield
        windows.append(window)

    job = Job(0, {}, 3, 0, context.device, os.cpu_count() or 1, None, weights)
    space = One(_recipe(changes), _width(context))
    outcome = train(job, space, task, phases=phases, should_continue=lambda entry: True)
    time.sleep(0.3)  # the meters' last refresh
    records = [(window.kind, window.record) for window in windows]
    epochs = [record for kind, record in records if kind == "epoch"]
    return {
        "variant": name,
        "failed": outcome.failed,
        "accuracy": outcome.quality.get(task.metric),
        "epoch_joules": [record.joules for record in epochs],
        "epoch_u_joules": [record.u_random_joules for record in epochs],
        "epoch_seconds": [record.seconds for record in epochs],
        "components": _parts(epochs[-1]) if epochs else {},
        "utilisation": dict(epochs[-1].utilisation) if epochs else {},
        "setup_joules": [record.joules for kind, record in records if kind == "setup"],
    }


def _recipe(changes: Mapping[str, Any]) -> Recipe:
    return Recipe(batch_size=BATCH, learning_rate=3e-3, augment="flip_shift", **changes)


def _width(context: Context) -> int:
    return 64 if context.gpu else 8


def loader(context: Context) -> dict[str, Any]:
    """Images per second of our loop in memory against ImageFolder and DataLoader, on one small network, in turns."""
    from torch.utils.data import DataLoader
    from torchvision import datasets, transforms

    device, count, epochs = context.device, 20_000 if context.gpu else max(400, round(2000 * context.scale)), 3
    workers = min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, 16)
    ours: list[float] = []
    usual: list[float] = []
    both: list[float] = []
    spent: dict[str, float] = {}
    with TemporaryDirectory() as scratch:
        folder = image_folder(Path(scratch), context.data, count)
        task = images(folder, validation_share=0.02, test_share=0)
        augment = transforms.Compose([transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip(), transforms.ToTensor()])
        found = datasets.ImageFolder(folder / "train", augment)
        batches = DataLoader(found, BATCH, shuffle=True, num_workers=workers, pin_memory=context.gpu, persistent_workers=True)
        net = _small_net().to(device)
        optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
        wait = synchronizer(device) or (lambda: None)

        @contextmanager
        def phases(kind: str, index: int) -> Iterator[None]:
            wait()
            begin = time.perf_counter()
            yield
            wait()
            spent[kind] = spent.get(kind, 0.0) + time.perf_counter() - begin
            if kind == "epoch":
                ours.append(len(task.train) / spent[kind])
                both.append(len(task.train) / (spent[kind] + spent["setup"]))

        start = None
        recipe = Recipe(batch_size=BATCH, augment="flip_shift", learning_rate=1e-3, graph=True)
        for epoch in range(1, epochs + 1):
            wait()
            begin = time.perf_counter()
            for inputs, targets in batches:
                outputs = net(inputs.to(device, non_blocking=True))
                loss = torch.nn.functional.cross_entropy(outputs, targets.to(device, non_blocking=True))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            wait()
            usual.append(len(found) / (time.perf_counter() - begin))
            spent.clear()
            start = fit(_small_net(), task, recipe, epochs=epoch, start=start, device=device, phases=phases).checkpoint
    figures = [
        at_least("images per second, ours / usual, best epochs", max(ours) / max(usual), 5 if context.gpu else 1),
        Figure("our loop", max(ours), "1/s"),
        Figure("our loop, an epoch with its set-up and the capture of the graph", max(both), "1/s"),
        Figure("ImageFolder and DataLoader", max(usual), "1/s", note=f"{workers} workers"),
    ]
    return as_result(figures, ours_per_second=ours, usual_per_second=usual, workers=workers, images=len(found))


def calibrate(context: Context) -> dict[str, Any]:
    """The command ``doctor --calibrate``: how late the counter is, by loads that it makes; the watts of a busy CPU where RAPL is there."""
    command = [sys.executable, "-m", "joulefront.search.cli", "doctor", "--calibrate"]
    with TemporaryDirectory() as scratch:
        begin = time.monotonic()
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env=os.environ | {"JOULEFRONT_CACHE": scratch, "XDG_CACHE_HOME": scratch}
        )
        seconds = time.monotonic() - begin
    late = [line for line in done.stdout.splitlines() if "counter" in line]
    figures = [
        holds(
            "joulefront doctor --calibrate ends well",
            done.returncode == 0,
            "exit code 0",
            note=_last_line(done.stderr) if done.returncode else "",
        ),
        holds("it says how late the counter is", bool(late), "yes", note="; ".join(late)[:300]),
        Figure("it takes", seconds, "s"),
    ]
    return as_result(figures, stdout=done.stdout[-3000:], stderr=done.stderr[-1500:])


def study(context: Context) -> dict[str, Any]:
    """The command ``run images`` under a budget, its front and its report; the sums of bill, ledger and trials."""
    command = [sys.executable, "-m", "joulefront.search.cli"]
    budget, limit = ("3Wh", f"{60 * context.scale:.0f}s") if context.gpu else ("0.02Wh", "300s")
    steps: dict[str, dict[str, Any]] = {}
    figures: list[Figure] = []
    with TemporaryDirectory() as scratch:
        run, count = Path(scratch) / "run", 20_000 if context.gpu else 400
        folder = context.data or image_folder(Path(scratch), None, count)
        small = [] if context.gpu else ["--smoke", "--device", "cpu", "--trials", "2"]
        calls = {
            "doctor": ["doctor"],
            "run": ["run", "images", "--data", str(folder), "--budget", budget, "--timeout", limit, "--out", str(run), *small],
            "front": ["front", str(run), "--json"],
            "report": ["report", str(run), "-o", str(Path(scratch) / "report.html")],
        }
        for name, arguments in calls.items():
            done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
            steps[name] = step = {"exit_code": done.returncode, "stdout": done.stdout[-1500:], "stderr": done.stderr[-800:]}
            note = _last_line(done.stderr) if done.returncode else ""
            figures.append(holds(f"joulefront {name} ends well", done.returncode == 0, "exit code 0", note=note))
            if name == "run" and done.returncode == 0:
                figures += sums(run, gpu=context.gpu)
                step["failed"] = reasons = failed(run)
                figures.append(at_most("trials that failed", float(len(reasons)), 2, note="; ".join(sorted(set(reasons)))[:300]))
                step["bill"] = [
                    {key: one[key] for key in ("by_state_joules", "by_component_joules")} for one in read_sessions(run / "bill.json")
                ]
            context.save(as_result(figures, steps=steps))
    return as_result(figures, steps=steps)


def sums(run: Path, *, gpu: bool) -> list[Figure]:
    """Compare the sums of a run folder: the bill with the ledger's journal, the bill's states with its components, trials with states."""
    sessions = read_sessions(run / "bill.json")
    states = math.fsum(joules for one in sessions for joules in one["by_state_joules"].values())
    components = math.fsum(joules for one in sessions for joules in one["by_component_joules"].values())
    ends = [json.loads(line) for line in (run / "ledger.jsonl").read_text(encoding="utf-8").splitlines() if '"stop"' in line]
    totals = [end["record"]["joules"] for end in ends if end.get("event") == "stop"]
    before = math.fsum((one.get("before") or {}).get("joules") or 0.0 for one in sessions)  # what no ledger has seen
    ledger = math.fsum(totals) if totals and None not in totals else None
    found = RunFolder.open(run).run()
    by_state: dict[str, float] = {}
    for one in sessions:
        for state, joules in one["by_state_joules"].items():
            by_state[state] = by_state.get(state, 0.0) + joules
    trained = math.fsum(by_state.get(state, 0.0) for state in ("complete", "stopped", "pruned", "failed", "features"))
    paid = math.fsum(trial.increment_joules or 0.0 for trial in found.trials)
    kinds = {part.quality for trial in found.trials for name, part in trial.components.items() if name.startswith("gpu:")}
    figures = [
        near_one("bill by state / bill by component", states / components if components else None, 1e-3),
        near_one("bill / total of the ledger's journal", (states - before) / ledger if ledger else None, 1e-3),
        # A trial's record is made when it ends; the bill knows the counter's next refresh, too.
        near_one("what the trials say that they cost / bill of the trials", paid / trained if trained else None, 5e-3),
        Figure("trials", float(len(found.trials))),
        Figure("energy of the study", states, "J"),
    ]
    if gpu:
        figures.append(
            holds("the trials' GPU energy is measured", kinds == {"measured"}, "measured", note=", ".join(sorted(kinds)) or "no GPU")
        )
    return figures


def failed(run: Path) -> list[str]:
    """Return why trials of a run have failed."""
    return [f"{trial.params.get('family')}: {trial.reason}" for trial in RunFolder.open(run).run().trials if trial.state == "failed"]


def image_folder(scratch: Path, data: Path | None, count: int) -> Path:
    """Return a folder with ``train/CLASS/*``: a folder as given, a zip's images, or made JPEGs of 32 x 32 pixels."""
    if data is not None and data.is_dir():
        return data
    target = scratch / "images"
    if data is not None:
        with zipfile.ZipFile(data) as archive:
            names = sorted(name for name in archive.namelist() if name.startswith("train/") and not name.endswith("/"))
            archive.extractall(target, names[:: max(1, len(names) // count)][:count])
        return target
    from PIL import Image

    shown, labels = pictures(count)
    for number, (picture, label) in enumerate(zip(shown, labels, strict=True)):
        path = target / "train" / f"class{label}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, "JPEG", quality=90)
        path.write_bytes(buffer.getvalue())
    return target


def pictures(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Make noise around a pattern for each class: shapes ``(n, 32, 32, 3)`` uint8 and ``(n,)``."""
    generator = np.random.default_rng(0)
    labels = np.arange(count) % CLASSES
    # Patterns of eight pixels a square survive shifts, flips and JPEG.
    patterns = np.kron(generator.integers(60, 196, (CLASSES, 4, 4, 3)), np.ones((1, 8, 8, 1), int))
    noise = generator.integers(-50, 51, (count, 32, 32, 3), dtype=np.int16)
    return np.clip(patterns[labels] + noise, 0, 255).astype(np.uint8), labels


def _small_net() -> torch.nn.Module:
    torch.manual_seed(0)
    return ConvolutionalNetwork((3, 32, 32), CLASSES, depth=3, width=16, pooling="stride")


def _parts(record: Record) -> dict[str, float | None]:
    return {part.name: part.joules for part in record.counting}


def _last_line(text: str) -> str:
    lines: Sequence[str] = text.strip().splitlines()
    return lines[-1] if lines else ""
