"""Many workers of one study: is each trial trained once, how fast, and what is left when some are killed?

    python tests/benchmarks/workers.py speed --storage postgresql --workers 1 2 4 8 --trials-each 50
    python tests/benchmarks/workers.py kills --storage postgresql --times 20
    python tests/benchmarks/workers.py stalls --storage postgresql --times 4
    python tests/benchmarks/workers.py starts --times 5 [--study images --data FOLDER] [--more "--pretrained no"]

In the first three trainings sleep (tests/helpers/workers.py); everything else is real. Workers are processes that are forked with the
libraries loaded, so that their start does not count. A kill study has the process that began it and four workers: that one and two of the
four are killed at random moments (SIGKILL), and the other two end it. In a stall study the same three are stopped for longer than a worker
may be silent (SIGSTOP), and go on: they were taken for dead and live. The last tells the CPU-seconds of ``joulefront run`` and of
``joulefront worker``, each a process of its own, from their begin to their first training, where they are broken off.
"""

import argparse
import contextlib
import importlib
import json
import multiprocessing
import os
import random
import re
import shlex
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from multiprocessing.process import BaseProcess
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from helpers.postgresql import postgresql_server
from helpers.workers import sleeping, sleeping_study, work

from joulefront.search.energy.discover import discover
from joulefront.search.energy.sources.cpu_time import CpuTime
from joulefront.search.records.run_folder import RunFolder
from joulefront.search.records.shared_study import SharedStudy

#: Beat of the workers that are killed, and what all cores take in one, as the meter counts here: no bill is further off.
BEAT_SECONDS = 0.5
(_meter,) = (source for source in discover("cpu_time").sources if isinstance(source, CpuTime))
BEAT_JOULES = BEAT_SECONDS * _meter.coefficients.core_watts * (os.cpu_count() or 1)
#: Longer than a worker with that beat may be silent.
STALL_SECONDS = 8.0


def start(
    url: str,
    out: Path,
    name: str,
    sampler: str,
    epoch_seconds: float,
    log: Path,
    rungs: tuple[int, ...],
    beat_seconds: float = 5.0,
    **limits: object,
) -> BaseProcess:
    """Fork a worker that works until the study ends."""

    def go() -> None:
        sys.stderr = (out.parent / f"{out.name}.log").open("w", buffering=1)
        with sleeping(epoch_seconds, log):
            work(url, out, sleeping_study(sampler, name=name, rungs=rungs), save_seconds=beat_seconds, **limits)
        (out.parent / f"{out.name}.modules").write_text("\n".join(sys.modules))
        os._exit(0)

    process = multiprocessing.get_context("fork").Process(target=go)
    process.start()
    return process


def load_libraries(place: Path) -> None:
    """Load here what a worker loads on its way, so that those to come are forked with it."""
    process = start(f"sqlite:///{place}/first.db", place / "first", "first", "freeze-thaw", 0.0, place / "first.txt", (1,), trials=3)
    process.join()
    for name in (place / "first.modules").read_text().split():
        with contextlib.suppress(Exception):
            importlib.import_module(name)


def speed(url: str, place: Path, workers: int, each: int, epoch_seconds: float) -> str:
    """Return a row: so many workers with so many trials each."""
    name, count = f"speed-{workers}", workers * each
    processes = [
        start(url, place / f"{name}-{n}", name, "random", epoch_seconds, place / f"{name}.txt", (1,), trials=count) for n in range(workers)
    ]
    for process in processes:
        process.join()
    folder = RunFolder.open(place / f"{name}-0", storage=url)
    stored = folder.study(read_only=True).get_trials(deepcopy=False)
    complete = [trial for trial in stored if trial.state.name == "COMPLETE"]
    reasons = Counter(trial.user_attrs.get("joulefront", {}).get("reason") for trial in stored if trial not in complete)
    for reason, times in reasons.items():
        print(f"{times} trials are not complete: {reason}", file=sys.stderr)
    numbers = Counter(int(line.split()[0]) for line in (place / f"{name}.txt").read_text().splitlines())
    twice = sum(count - 1 for count in numbers.values())
    begun = sorted(trial.datetime_start for trial in complete if trial.datetime_start)
    ended = max(trial.datetime_complete for trial in complete if trial.datetime_complete)
    seconds = (ended - begun[min(workers, len(begun) - 1)]).total_seconds()  # from where all of them have begun
    rate = (len(complete) - workers) / seconds
    per_trial = workers / rate - epoch_seconds
    return f"| {workers} | {len(complete)} of {count} | {len(stored) - len(complete)} | {twice} | {60 * rate:.0f} | {per_trial:.3f} |"


def kill(url: str, place: Path, seed: int, trials: int | None, joules: float | None, *, stall: bool) -> tuple[str, list[str]]:
    """Return a row of one study of which three of five processes were killed, or stopped for a while, and what was wrong."""
    rng, name = random.Random(seed), f"{'stall' if stall else 'kill'}-{seed}"
    log, limits = place / f"{name}.txt", {"budget": f"{joules:g}J"} if joules else {"trials": trials}
    processes = {
        n: start(url, place / f"{name}-{n}", name, "freeze-thaw", 0.5 if stall else 0.05, log, (1, 2, 4), BEAT_SECONDS, **limits)
        for n in range(5)
    }
    while not log.exists():
        time.sleep(0.05)
    victims = [0, *rng.sample(range(1, 5), 2)]
    rng.shuffle(victims)
    killed, stalled, failed = list[int](), list[tuple[float, int]](), list[str]()
    for victim in victims:
        time.sleep(rng.uniform(0.2, 4.0))
        if processes[victim].is_alive() and stall:
            os.kill(processes[victim].pid or 0, signal.SIGSTOP)
            stalled.append((time.monotonic() + STALL_SECONDS, victim))
        elif processes[victim].is_alive():
            os.kill(processes[victim].pid or 0, signal.SIGKILL)
            killed.append(victim)
    for until, victim in stalled:
        time.sleep(max(0.0, until - time.monotonic()))
        os.kill(processes[victim].pid or 0, signal.SIGCONT)
    for process in processes.values():
        process.join()
    for n, process in processes.items():
        if n not in killed and process.exitcode != 0:
            said = (place / f"{name}-{n}.log").read_text().splitlines()
            failed.append(f"worker {n} ended with {process.exitcode}: {said[-1] if said else ''}")
    for n in processes:
        said = (place / f"{name}-{n}.log").read_text().splitlines()
        failed += [f"worker {n}: {line}" for line in said if "from scratch" in line or "cannot continue" in line]
    survivor = next(n for n in range(5) if n not in killed and (place / f"{name}-{n}" / "study.json").exists())
    folder = RunFolder.open(place / f"{name}-{survivor}", storage=url)
    shared = SharedStudy(folder.study())
    stored, run, (states, _) = shared.study.get_trials(deepcopy=False), folder.run(), shared.look()
    wrong = failed + [f"trial {trial.number} is {trial.state.name}" for trial in stored if not trial.state.is_finished()]
    own = [trial for trial in run.trials if trial.values and "copy_of" not in trial.extra]  # a copy was answered without training
    trained = Counter((json.dumps(dict(trial.params), sort_keys=True), trial.epochs) for trial in own)
    for what, times in trained.items():
        numbers = [str(one.number) for one in own if (json.dumps(dict(one.params), sort_keys=True), one.epochs) == what]
        wrong += [f"trained twice: {what}: trials {', '.join(numbers)}"] if times > 1 else []
    worst = 0.0
    for n in killed:
        path = place / f"{name}-{n}"
        if not (path / "ledger.jsonl").exists():
            continue
        beats = [
            event
            for line in (path / "ledger.jsonl").read_text().splitlines()
            if line.endswith("}") and (event := json.loads(line))["event"] == "beat"
        ]
        known = sum(part["joules"] or 0.0 for part in beats[-1]["total"] if part["counts"]) if beats else 0.0
        said = states.get(json.loads((path / "study.json").read_text())["worker"])
        worst = max(worst, abs(known - (0.0 if said is None else said.joules)))
    if worst > BEAT_JOULES:
        wrong.append(f"a bill is {worst:.2f} J off its ledger")
    spent = sum(state.joules for state in states.values())
    billed = run.bill.total_joules or 0.0
    if abs(spent - billed) > len(states) * BEAT_JOULES:
        wrong.append(f"bill {billed:.2f} J, spent {spent:.2f} J")
    if trials is not None and len(stored) != trials:
        wrong.append(f"{len(stored)} of {trials} trials")
    for trial in run.trials:
        if "copy_of" in trial.extra:
            print(f"{name}: trial {trial.number} is a copy of trial {trial.extra['copy_of']}", file=sys.stderr)
        if trial.state == "failed":
            print(f"{name}: trial {trial.number} is not complete: {trial.reason}", file=sys.stderr)
    count = Counter(trial.state.name for trial in stored)
    over = "" if joules is None else f"{100 * (spent / joules - 1):+.1f} %"
    cells = [
        name,
        len(killed) + len(stalled),
        f"{count['COMPLETE']} + {count['FAIL']}",
        f"{spent:.1f}",
        f"{billed:.1f}",
        f"{worst:.2f}",
        over,
        len(wrong),
    ]
    return f"| {' | '.join(map(str, cells))} |", wrong


#: The command line, which ends with its CPU-seconds where its first training would begin.
BROKEN_OFF = """
import os, time
from joulefront.search.cli import main
from joulefront.search.execution.job import InProcess

train = InProcess.train

def told(self, job, **words):
    if job.number < 0:  # of a warm-up
        return train(self, job, **words)
    print("CPU-seconds", time.process_time(), flush=True)
    os._exit(0)

InProcess.train = told
main()
"""


def cpu_seconds_to_first_training(*words: str) -> float:
    """Return what a command takes until its first training, on one thread."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", BROKEN_OFF, *words], capture_output=True, text=True, env=environment, check=False)
    if (found := re.search(r"^CPU-seconds (\S+)$", done.stdout, re.MULTILINE)) is None:
        raise RuntimeError(f"joulefront {' '.join(words)} began no training: {done.stderr.strip() or done.stdout.strip()}")
    return float(found[1])


def starts(place: Path, study: str, data: str | None, more: str, times: int) -> Iterator[str]:
    """Yield a row for each of the two commands, on an SQLite file; the first start of all is left out, as it may compile modules."""
    common, given = ("--meter", "cpu_time", "--quiet"), (*(("--data", data) if data else ()), *shlex.split(more))
    took: dict[str, list[float]] = {"run": [], "worker": []}
    for n in range(times + 1):
        storage = ("--storage", f"sqlite:///{place}/starts-{n}.db")
        begun = cpu_seconds_to_first_training("run", study, *given, "--trials", "9", *storage, *common, "--out", f"{place}/run-{n}")
        joined = cpu_seconds_to_first_training("worker", "--study", study, *storage, *common, "--out", f"{place}/worker-{n}")
        took["run"] += [begun][: n and 1]
        took["worker"] += [joined][: n and 1]
    for what, seconds in took.items():
        each = " ".join(f"{one:.2f}" for one in sorted(seconds))
        yield f"| `{what}`, {study} {more}".rstrip() + f" | {each} | {statistics.median(seconds):.2f} |"


def main() -> int:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("speed", "kills", "stalls", "starts"))
    parser.add_argument("--storage", choices=("sqlite", "postgresql"), default="postgresql")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--trials-each", type=int, default=50)
    parser.add_argument("--epoch", type=float, default=0.25, help="Seconds that a trial sleeps.")
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--study", default="digits", help="Whose starts are measured.")
    parser.add_argument("--data", help="Location of its data.")
    parser.add_argument("--more", default="", help="Further options of `joulefront run`.")
    options = parser.parse_args()
    bad: list[str] = []
    with ExitStack() as held:
        place = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="joulefront-workers-")))
        if options.what == "starts":
            print("| start | CPU-seconds to the first training | median |\n|---|---|--:|", flush=True)
            for row in starts(place, options.study, options.data, options.more, options.times):
                print(row)
            return 0
        load_libraries(place)
        url = f"sqlite:///{place}/s.db"
        if options.storage == "postgresql":
            url = held.enter_context(postgresql_server()).url
        if options.what == "speed":
            print(
                "| workers | complete | refused | trained twice | trials per minute | overhead per trial, s |\n|--:|--:|--:|--:|--:|--:|",
                flush=True,
            )
            for workers in options.workers:
                print(speed(url, place, workers, options.trials_each, options.epoch), flush=True)
            return 0
        what = "stopped" if options.what == "stalls" else "killed"
        print(f"| study | {what} | complete + failed | spent, J | bill, J | worst off, J | over budget | wrong |")
        print("|---|--:|--:|--:|--:|--:|--:|--:|", flush=True)
        for seed in range(options.seed, options.seed + options.times):
            stall = options.what == "stalls"
            row, wrong = kill(url, place, seed, None if seed % 2 else 40, 30.0 if seed % 2 else None, stall=stall)
            print(row, flush=True)
            bad += [f"study {seed}: {sentence}" for sentence in wrong]
    print("\n".join(bad))
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())
