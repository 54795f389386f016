"""How much of the CPU time of a whole command is on its bill, and what was it for?

    python tests/benchmarks/whole_command.py [--trials 6] [--images cifar10-images.zip] [--only digits]

The bundled studies ``digits``, ``table`` (scikit-learn's breast cancer as a CSV file), ``sound`` (recordings that it makes itself) and,
where a zip of images is given, ``images`` (5,000 of them, from scratch) run as processes of their own, under the estimate from CPU-seconds
at 1 W per busy core: then a joule on the bill is a CPU-second. What the process and its children really used the kernel says when they
have ended (``getrusage`` of the children, also of those that outlive the command by a moment). Beside the sum stands what of it was before
the ledger. The second table says what it was for; start-up ends when the first trial is asked for.
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
import zipfile
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

COMMAND = "from joulefront.search.cli import main; main()"


@dataclass(frozen=True)
class Bill:
    """CPU-seconds of one command: used by it and its children, on its bill, and of those before the ledger began.

    Of those on the bill ``start`` was start-up, ``training`` and ``validation`` were trials; the rest is deciding, storing and showing.
    """

    used: float
    billed: float
    before: float
    trials: int
    start: float
    training: float
    validation: float


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parent ends first, as the server of the workers: prctl(2), PR_SET_CHILD_SUBREAPER."""
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)


def bill_of(study: str, *words: str, out: Path, trials: int) -> Bill:
    """Run a study in a process of its own; compare what it used with what it billed."""
    watts = ["--cpu-watts", str(os.cpu_count() or 1)]
    options = ["--trials", str(trials), "--no-stop", "--meter", "cpu_time", *watts, "--device", "cpu", "--out", str(out)]
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
    found = json.loads((out / "trials.json").read_text(encoding="utf-8"))["trials"]
    validation = sum((one.get("evaluation_joules") or 0.0) + (one.get("analysis_joules") or 0.0) for one in found)
    training = sum(one.get("increment_joules") or 0.0 for one in found) - validation
    used = end.ru_utime + end.ru_stime - begin.ru_utime - begin.ru_stime
    return Bill(used, billed, before, len(found), before + start_joules(out / "ledger.jsonl"), training, validation)


def start_joules(journal: Path) -> float:
    """Return what a ledger says of the window ``start``, by itself or in the sum of what has ended."""
    joules = 0.0
    for line in journal.read_text(encoding="utf-8").splitlines():
        event = json.loads(line)
        if event["event"] == "ended":
            joules += event["joules"].get("start ok", 0.0)
        elif event["event"] == "close" and event["record"]["name"] == "start":
            joules += sum(part["joules"] or 0.0 for part in event["record"]["components"] if part["counts"])
    return joules


def some_of(images: Path, out: Path, count: int = 5_000) -> Path:
    """Write so many images of a zip to another one, evenly spread."""
    with zipfile.ZipFile(images) as source, zipfile.ZipFile(out, "w") as target:
        names = [name for name in source.namelist() if not name.endswith("/")]
        for name in names[:: max(1, len(names) // count)][:count]:
            target.writestr(name, source.read(name))
    return out


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=6)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--only", default="", help="Studies whose name begins so.")
    wanted = parser.parse_args()
    from sklearn.datasets import load_breast_cancer

    with TemporaryDirectory() as folder:
        here = Path(folder)
        load_breast_cancer(as_frame=True).frame.to_csv(here / "cancer.csv", index=False)
        studies = {
            "digits": (),
            "digits --workers 2": ("--workers", "2"),
            "table": ("--data", str(here / "cancer.csv"), "--target", "target"),
            "sound": (),
        }
        if wanted.images is not None:
            studies["images"] = ("--data", str(some_of(wanted.images, here / "some.zip")), "--pretrained", "no")
        found = {}
        print(f"| joulefront run, {wanted.trials} trials | CPU-s used | CPU-s billed | of them before the ledger | billed |")
        print("|---|---:|---:|---:|---:|")
        for place, (name, words) in enumerate(studies.items()):
            if name.startswith(wanted.only):
                one = found[name] = bill_of(name.split()[0], *words, out=here / str(place), trials=wanted.trials)
                print(f"| {name} | {one.used:.2f} | {one.billed:.2f} | {one.before:.2f} | {one.billed / one.used:.1%} |", flush=True)
        print("\n| CPU-s | trials | start-up | training | validation | rest | a training | training + validation after start-up |")
        print("|---|---:|---:|---:|---:|---:|---:|---:|")
        for name, one in found.items():
            rest = one.billed - one.start - one.training - one.validation
            parts = f"{one.start:.1f} | {one.training:.1f} | {one.validation:.1f} | {rest:.1f} | {one.training / one.trials:.2f}"
            share = (one.training + one.validation) / (one.billed - one.start)
            print(f"| {name} | {one.trials} | {parts} | {share:.0%} |", flush=True)


if __name__ == "__main__":
    main()
