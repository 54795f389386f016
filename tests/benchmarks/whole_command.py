"""How much of the CPU time of a whole command is on its bill?

    python tests/benchmarks/whole_command.py [--trials 6]

The bundled studies ``digits`` and ``table`` (scikit-learn's breast cancer as a CSV file) run as processes of their own, under the estimate
from CPU-seconds at 1 W per busy core: then a joule on the bill is a CPU-second. What the process and its children really used the kernel
says when they have ended (``getrusage`` of the children, also of those that outlive the command by a moment). Beside the sum stands what
of it was before the ledger.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import resource
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

COMMAND = "from joulefront.search.cli import main; main()"


@dataclass(frozen=True)
class Bill:
    """CPU-seconds of one command: used by it and its children, on its bill, and of those before the ledger began."""

    used: float
    billed: float
    before: float


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parent ends first, as the server of the workers: prctl(2), PR_SET_CHILD_SUBREAPER."""
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)


def bill_of(study: str, *words: str, out: Path, trials: int) -> Bill:
    """Run a study in a process of its own; compare what it used with what it billed."""
    watts = ["--cpu-watts", str(os.cpu_count() or 1)]
    options = ["--trials", str(trials), "--meter", "cpu_time", *watts, "--device", "cpu", "--out", str(out)]
    begin = resource.getrusage(resource.RUSAGE_CHILDREN)
    adopt_orphans()
    subprocess.run([sys.executable, "-c", COMMAND, "run", study, *words, *options], check=True, capture_output=True)
    with contextlib.suppress(ChildProcessError):
        while True:
            os.wait()
    end = resource.getrusage(resource.RUSAGE_CHILDREN)
    (session,) = json.loads((out / "bill.json").read_text(encoding="utf-8"))["sessions"]
    billed = sum(session["by_component_joules"].values())
    before = (session.get("before") or {}).get("joules") or 0.0
    return Bill(end.ru_utime + end.ru_stime - begin.ru_utime - begin.ru_stime, billed, before)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=6)
    trials = parser.parse_args().trials
    from sklearn.datasets import load_breast_cancer

    with TemporaryDirectory() as folder:
        here = Path(folder)
        load_breast_cancer(as_frame=True).frame.to_csv(here / "cancer.csv", index=False)
        studies = {
            "digits": (),
            "digits --workers 2": ("--workers", "2"),
            "table": ("--data", str(here / "cancer.csv"), "--target", "target"),
        }
        print(f"| joulefront run, {trials} trials | CPU-s used | CPU-s billed | of them before the ledger | billed |")
        print("|---|---:|---:|---:|---:|")
        for place, (name, words) in enumerate(studies.items()):
            found = bill_of(name.split()[0], *words, out=here / str(place), trials=trials)
            print(f"| {name} | {found.used:.2f} | {found.billed:.2f} | {found.before:.2f} | {found.billed / found.used:.1%} |", flush=True)


if __name__ == "__main__":
    main()
