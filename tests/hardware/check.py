"""Proves or refutes on one real GPU what the project's tests can only fake: at most 10 minutes on an H100 or H200.

    python tests/hardware/check.py --only facts,tick --out OUT
    python tests/hardware/check.py --out OUT
    python tests/hardware/check.py --table OUT [OUT ...]

Each part runs in a process of its own, with a limit on its time, and its result is stored at once in OUT/results.json. A part that fails,
hangs or breaks the CUDA context costs itself only. README.md beside this file says what each part shows.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]

#: Parts in their order: module, and the seconds after which one is killed.
PARTS = {
    "facts": ("nvml_parts", 35),
    "tick": ("nvml_parts", 60),
    "counter": ("nvml_parts", 110),
    "edges": ("nvml_parts", 50),
    "power_limit": ("sharing_parts", 15),
    "leases": ("sharing_parts", 50),
    "training": ("training_parts", 170),
    "graphs": ("graph_parts", 60),
    "loader": ("training_parts", 100),
    "calibrate": ("training_parts", 80),
    "study": ("training_parts", 150),
}
#: Time for all parts that one call may take by default, so that it ends within 10 minutes: the parts that are left are ``not run``.
MINUTES = 9.5
#: The file in which the process of a part leaves its result.
ANSWER = "answer.json"


def main(words: list[str] | None = None) -> int:
    """Run the parts, or print the table of earlier runs; returns 1 where a part failed or a bar was missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="output folder; the variable OUT by default")
    parser.add_argument("--only", default=",".join(PARTS), help=f"parts, separated by commas, of {', '.join(PARTS)}")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="time for all parts together")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N, or cpu to try the program without a GPU")
    parser.add_argument("--data", type=Path, help="image folder or zip with train/; pictures are made by default")
    parser.add_argument(
        "--set-power-limit", action="store_true", help="lower the power limit for a moment, if this user may, and put it back"
    )
    parser.add_argument("--scale", type=float, help="factor of all durations; 1 on a GPU, 0.1 on a CPU")
    parser.add_argument("--table", type=Path, nargs="+", metavar="OUT", help="print the table of these output folders and end")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    given = parser.parse_args(words)
    from hardware.table import TABLE, make_table

    if given.table:
        try:
            print(make_table(given.table, PARTS), end="")
        except ValueError as error:
            parser.error(str(error))
        return 0
    given.out = given.out or (Path(os.environ["OUT"]) if os.environ.get("OUT") else None)
    if given.out is None:
        parser.error("--out must name the output folder, got none; give it, or set the variable OUT")
    given.scale = given.scale or (1.0 if given.device.startswith("cuda") else 0.1)
    given.out.mkdir(parents=True, exist_ok=True)
    if given.part:
        return run_here(given)
    chosen = [name.strip() for name in given.only.split(",") if name.strip()]
    unknown = sorted(set(chosen) - set(PARTS))
    if unknown:
        parser.error(f"--only must be among {', '.join(PARTS)}, got {', '.join(unknown)}")
    with tempfile.TemporaryDirectory(prefix="joulefront-view-") as view:
        environment = bare_environment(Path(view))
        good = run_all(given, chosen, environment)
    table = make_table([given.out], PARTS)
    (given.out / TABLE).write_text(table, encoding="utf-8")
    print(table, end="", flush=True)
    return 0 if good else 1


def run_all(given: argparse.Namespace, chosen: list[str], environment: dict[str, str]) -> bool:
    """Run parts one after the other and store each result at once; return whether no part failed and no bar was missed."""
    from hardware.table import store

    end, good = time.monotonic() + 60 * given.minutes, True
    date = datetime.now(UTC).date().isoformat()
    for name in chosen:
        left, began = end - time.monotonic(), time.monotonic()
        if left < min(20.0, 0.5 * PARTS[name][1]):
            store(given.out, name, {"why": f"only {left:.0f} s of --minutes {given.minutes:g} were left", "date": date})
            continue
        seconds = min(PARTS[name][1], left)
        result = run_part(given, name, seconds, environment)
        store(given.out, name, {"date": date, **result, "seconds": round(time.monotonic() - began, 1)})
        missed = [row["name"] for row in result.get("figures", ()) if row["met"] is False]
        good = good and not missed and not result.get("error")
        said = result.get("error") or (f"missed: {'; '.join(missed)}" if missed else "no bar missed")
        print(f"{name}: {said} ({time.monotonic() - began:.1f} s)", file=sys.stderr, flush=True)
    return good


def run_part(given: argparse.Namespace, name: str, seconds: float, environment: dict[str, str]) -> dict[str, Any]:
    """Run a part in a process of its own; what goes wrong is its ``error``, in one line."""
    with tempfile.TemporaryDirectory(prefix="joulefront-part-") as scratch:
        answer = Path(scratch) / ANSWER
        words = [sys.executable, str(Path(__file__).resolve()), "--part", name, "--out", str(given.out), "--device", given.device]
        words += ["--scale", str(given.scale), *(["--data", str(given.data.resolve())] if given.data else [])]
        words += ["--set-power-limit"] if given.set_power_limit else []
        # A session of its own: what a part has started ends with it.
        with subprocess.Popen(
            words, env=environment | {"JOULEFRONT_ANSWER": str(answer)}, start_new_session=True, stdout=sys.stderr.fileno()
        ) as process:
            try:
                code = process.wait(seconds)
            except subprocess.TimeoutExpired:
                end_group(process.pid)
                return so_far(answer) | {"error": f"took longer than {seconds:.0f} s and was ended"}
        result = so_far(answer)
        if code != 0 or not result:
            result["error"] = f"ended with exit code {code}" + (" on the way" if result else " and without a result")
        return result


def so_far(answer: Path) -> dict[str, Any]:
    """Return what the process of a part has found, all of it or what it had when it ended."""
    return dict(json.loads(answer.read_text(encoding="utf-8"))) if answer.is_file() else {}


def end_group(pid: int) -> None:
    """End a process and what it has started: first by asking, so that a power limit is put back."""
    import signal

    for number, wait in ((signal.SIGTERM, 3.0), (signal.SIGKILL, 0.0)):
        try:
            os.killpg(pid, number)
        except ProcessLookupError:
            return
        time.sleep(wait)


def run_here(given: argparse.Namespace) -> int:
    """The process of one part: run it and write its answer."""
    from hardware.table import as_result

    found: dict[str, Any] = as_result([])
    file = Path(os.environ["JOULEFRONT_ANSWER"])
    where: dict[str, Any] = {}

    def save(result: dict[str, Any]) -> None:
        nonlocal found
        found = result
        where.update(where or card(given.device))
        file.with_suffix(".new").write_text(json.dumps(found | where, default=str), encoding="utf-8")
        os.replace(file.with_suffix(".new"), file)

    try:
        module = importlib.import_module(f"hardware.{PARTS[given.part][0]}")
        context = importlib.import_module("hardware.context").Context(
            given.out.resolve(), given.device, given.scale, given.data, given.set_power_limit, save
        )
        save(getattr(module, given.part)(context))
    except BaseException as error:  # a part that fails is a finding, and so is what it had found before
        text = " ".join(str(error).split())
        save(found | {"error": f"{type(error).__name__}: {text}"[:300], "traceback": traceback.format_exc()[-3000:]})
    return 0


def card(device: str) -> dict[str, Any]:
    """Return name and driver of the GPU under test; None each where there is none."""
    try:
        import pynvml

        from hardware.oracle import Gpu

        pynvml.nvmlInit()
        return {"card": pynvml.nvmlDeviceGetName(Gpu.find(device).handle), "driver": pynvml.nvmlSystemGetDriverVersion()}
    except Exception:  # no binding, no driver, no GPU: the parts say so themselves
        return {"card": None, "driver": None}


def bare_environment(view: Path) -> dict[str, str]:
    """Return variables under which ``joulefront`` can be imported from this checkout, whether or not it is installed."""
    (view / "joulefront").symlink_to(ROOT, target_is_directory=True)
    paths = [str(view), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return dict(os.environ) | {"PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}


if __name__ == "__main__":
    sys.path[0] = str(ROOT / "tests")  # modules are hardware.*, and none of them stands before a library of its name
    sys.exit(main())
