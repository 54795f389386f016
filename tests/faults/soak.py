"""A thousand trivial trials through the real run folder, ledger and sampler: what grows with the number of trials, and how fast.

python tests/faults/soak.py --trials 1000
python tests/faults/soak.py --trials 1000 --sampler random
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
from faults.processes import CLI

from joulefront.search import Study, arrays, run
from joulefront.search.running.progress import Progress
from joulefront.search.running.trial_runner import TrialRunner
from joulefront.spaces.own import Own
from joulefront.spaces.recipes import RecipeRanges


@dataclass(frozen=True)
class Row:
    """The state of the run after some trials; times in seconds, sizes in megabytes.

    Attributes:
        trials: Number of trials.
        decision: Median time of a decision, over the trials since the row before.
        wall: Wall time of a trial, over the same.
        memory: Resident memory of the process.
        database: Size of ``study.db``.
        ledger: Size of ``ledger.jsonl``.
        folder: Size of the whole folder.
        weights: Number of files with weights.
        front: CPU time of ``joulefront front``.
        report: CPU time of ``joulefront report``.
        resume: Time from the call of ``run`` to its first own decision.
    """

    trials: int
    decision: float
    wall: float
    memory: float
    database: float
    ledger: float
    folder: float
    weights: int
    front: float
    report: float
    resume: float


def soak(folder: Path, trials: int, steps: int, sampler: str) -> list[Row]:
    """Run a study in some steps, and look at it after each.

    Args:
        folder: An empty folder.
        trials: Number of trials in all.
        steps: Number of rows.
        sampler: Name of the sampler.
    """
    out, decisions, first = folder / "run", list[float](), list[float]()
    ask = TrialRunner._ask

    def timed(self: TrialRunner) -> Any:
        began = time.monotonic()
        first.append(began)
        asked = ask(self)
        decisions.append(time.monotonic() - began)
        return asked

    TrialRunner._ask = timed  # type: ignore[method-assign]  # a clock around the decision
    rows: list[Row] = []
    try:
        for step in range(1, steps + 1):
            decisions.clear()
            first.clear()
            began, target = time.monotonic(), trials * step // steps
            run(study(sampler), out=out, trials=target, meter="cpu_time", listener=shown)
            rows.append(look(out, target, decisions, (time.monotonic() - began) / len(decisions), first[0] - began))
            print(line(rows[-1]), file=sys.stderr, flush=True)
    finally:
        TrialRunner._ask = ask  # type: ignore[method-assign]
    return rows


def shown(progress: Progress) -> None:
    """Show nothing."""


def look(out: Path, trials: int, decisions: list[float], wall: float, resume: float) -> Row:
    """Measure a run folder as it is now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    memory = pages * os.sysconf("SC_PAGE_SIZE") / 1e6
    sizes = {file: file.stat().st_size / 1e6 for file in out.rglob("*") if file.is_file()}
    weights = len(list((out / "artifacts").glob("trial-*.weights")))
    front, report = cpu_seconds("front", str(out)), cpu_seconds("report", str(out), "-o", str(out.with_name("report.html")))
    database, ledger = sizes[out / "study.db"], sizes[out / "ledger.jsonl"]
    return Row(trials, statistics.median(decisions), wall, memory, database, ledger, sum(sizes.values()), weights, front, report, resume)


def cpu_seconds(*words: str) -> float:
    """Return the CPU time of a call of the command line."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([*CLI, *words], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def study(sampler: str) -> Study:
    """Return a study whose trainings take milliseconds: one batch an epoch."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, 2)).astype("float32")
    y = ((x**2).sum(1) > 1.4).astype("int64")
    return Study(
        name="soak",
        task=arrays(x, y, name="soak", classes=["inside", "outside"]),
        space=Own(draw, make, recipe=RecipeRanges(learning_rate=(1e-3, 1e-1), weight_decay=0.0, batch_size=64)),
        rungs=(1, 2, 4),
        trials=10,
        sampler=sampler,
    )


def draw(trial: Any) -> dict[str, Any]:
    """Draw a width."""
    return {"width": trial.suggest_int("width", 4, 400)}


def make(architecture: Any, task: Any) -> Any:
    """Build a tiny network."""
    import torch

    width = architecture["width"]
    return torch.nn.Sequential(torch.nn.Linear(2, width), torch.nn.ReLU(), torch.nn.Linear(width, task.outputs))


def line(row: Row) -> str:
    """Return a row of the table in Markdown."""
    return "| " + " | ".join(str(value) if isinstance(value, int) else f"{value:.3g}" for value in astuple(row)) + " |"


def growth(rows: list[Row]) -> str:
    """Return the last row of the table: growth per trial between the first row and the last."""
    first, last = astuple(rows[0]), astuple(rows[-1])
    slopes = [(after - before) / (last[0] - first[0]) for before, after in zip(first[1:], last[1:], strict=True)]
    return "| growth per trial | " + " | ".join(f"{slope:.2g}" for slope in slopes) + " |"


def main() -> int:
    """Run the study and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=5, help="Number of rows.")
    parser.add_argument("--sampler", default="freeze-thaw")
    options = parser.parse_args()
    units = {name: "s" for name in ("decision", "wall", "front", "report", "resume")}
    units |= {name: "MB" for name in ("memory", "database", "ledger", "folder")}
    names = [field.name for field in fields(Row)]
    with tempfile.TemporaryDirectory(prefix="joulefront-soak-") as folder:
        rows = soak(Path(folder), options.trials, options.steps, options.sampler)
    print("| " + " | ".join(f"{name}, {units[name]}" if name in units else name for name in names) + " |")
    print("|" + "---|" * len(names))
    for row in rows:
        print(line(row))
    if len(rows) > 1:
        print(growth(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
