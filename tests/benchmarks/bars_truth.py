"""Our side of bars 7 and 8: what windows report against a truth that does not come from the ledger."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from bars_simulated import Lab

from joulefront.search.energy import Ledger
from joulefront.search.energy.sources.cpu_time import Machine
from joulefront.search.energy.sources.nvml import Nvml
from joulefront.search.energy.sources.rapl import Rapl

#: What the machine of bar 8 draws: two GPUs, a package at rest and per busy CPU.
GPU_WATTS = (300.0, 150.0)
REST_WATTS, CPU_WATTS = 10.0, 6.0

#: One trial in a process of its own: it works and rests in turns, and reports when, and how many CPU-seconds it took.
TRIAL = """
import json, sys, time
sys.stdin.readline()
t0, cpu = time.monotonic_ns(), time.process_time()
until = t0 + float(sys.argv[1]) * 1e9
while time.monotonic_ns() < until:
    turn = time.monotonic_ns() + float(sys.argv[2]) * 2e8
    while time.monotonic_ns() < turn: sum(range(2000))
    time.sleep((1 - float(sys.argv[2])) * 0.2)
print(json.dumps([t0, time.monotonic_ns(), time.process_time() - cpu]), flush=True)
"""


@dataclass(frozen=True)
class Nested:
    """A study with trials with epochs, against the integral of the fake GPU's power.

    Attributes:
        joules: Sum of the innermost parts: epochs, what trials took outside of them, what the study took outside of trials.
        truth: What the GPU really drew.
        worst: Largest relative miss of a window.
        covered: Windows whose truth lies within two standard uncertainties.
        windows: Number of windows.
    """

    joules: float
    truth: float
    worst: float
    covered: int
    windows: int


def nested(lab: Lab) -> Nested:
    """Measure a minute of windows inside of windows on a GPU under a square wave."""
    bench = lab.bench(kind="square", low=60.0, high=350.0, period=1.3, duty=0.4)
    bench.run(5)
    made, rests = [], []

    def rest(begin_ns: int, seconds: float) -> int:
        bench.run(seconds)
        rests.append((begin_ns, bench.clock.now_ns))
        return bench.clock.now_ns

    with bench.ledger.window("study", kind="overhead") as study:
        made.append(study)
        at = study.t0_ns
        for _ in range(4):
            rest(at, 1.1)
            with bench.ledger.window("trial", parent=study) as trial:
                made.append(trial)
                at = trial.t0_ns
                for _ in range(5):
                    rest(at, 0.3)
                    with bench.ledger.window("epoch", kind="epoch", parent=trial) as epoch:
                        bench.run(2.3)
                    made.append(epoch)
                    rests[-1] = (rests[-1][0], epoch.t0_ns)
                    at = epoch.t1_ns
                rest(at, 0.2)
            rests[-1] = (rests[-1][0], trial.t1_ns)
            at = trial.t1_ns
        rest(at, 0.5)
    rests[-1] = (rests[-1][0], study.t1_ns)
    bench.run(0.5)
    # The rest of the study before a trial ends where the trial begins.
    trials = [window for window in made if window.name == "trial"]
    rests = [(begin, next((t.t0_ns for t in trials if begin < t.t0_ns <= end), end)) for begin, end in rests]
    parts = [epoch.record.joules for epoch in made if epoch.name == "epoch"]
    parts += [bench.ledger.query(begin, end, kind="overhead").joules for begin, end in rests]
    found = [(window.record, lab.driver.joules(window.t0_ns, window.t1_ns)) for window in made]
    bench.ledger.stop()
    return Nested(
        joules=sum(parts),
        truth=found[0][1],
        worst=max(abs(record.joules / truth - 1) for record, truth in found),
        covered=sum(abs(record.joules - truth) <= 2 * record.u_random_joules for record, truth in found),
        windows=len(found),
    )


@dataclass(frozen=True)
class Parallel:
    """Two trials in two processes at the same time, against counters that nobody splits.

    Attributes:
        ratio: Trials and named rests over what the machine really drew.
        trials: Joules and truth of each trial.
        whole: Joules of the trials, each billed the whole machine, over the truth: what a tracker per process reports.
    """

    ratio: float
    trials: tuple[tuple[float, float], ...]
    whole: float


class Package:
    """A fake package whose counter turns in real time: its rest and, once it is awake, what the machine's busy CPUs draw.

    What else runs on this machine draws power, too, and is in the truth of the machine, of no trial. While it is not awake it is the
    quiet machine of an idle baseline.
    """

    def __init__(self, lab: Lab) -> None:
        self.tree, self.awake = lab.tree("parallel"), False
        self._machine, self._done = Machine(), threading.Event()
        self._begin_ns, self._busy = time.monotonic_ns(), self._machine.seconds() or 0.0
        self._zone = self.tree.zone("intel-rapl:0", "package-0")
        self._thread = threading.Thread(target=self._turn)

    def joules(self) -> float:
        """Return what it has really drawn."""
        now = self._machine.seconds() or 0.0
        if not self.awake:
            self._busy = now
        return REST_WATTS * (time.monotonic_ns() - self._begin_ns) / 1e9 + CPU_WATTS * (now - self._busy)

    def _turn(self) -> None:
        while not self._done.wait(0.005):
            self.tree.write(self._zone, round(1e6 * self.joules()))

    def __enter__(self) -> Package:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._done.set()
        self._thread.join()


def parallel(lab: Lab) -> Parallel:
    """Run two trials of real processes, each on a GPU of its own, while the CPU is shared and its rest is known."""
    driver = lab.driver.reset(2)
    for device, watts in enumerate(GPU_WATTS):
        driver.set(device, kind="constant", high=watts)
    driver.run()
    origin_ns = time.monotonic_ns()

    def gpu_truth(device: int, t0_ns: int, t1_ns: int) -> float:
        return float(driver.joules(t0_ns - origin_ns, t1_ns - origin_ns, device))

    with Package(lab) as package, Ledger([Nvml(environment={}), Rapl(package.tree.root)]) as ledger:
        names = sorted(part.name for part in ledger.total().components if part.name.startswith("gpu:"))
        with ledger.window("rest", kind="idle"):
            time.sleep(2.0)
        package.awake = True
        time.sleep(1.0)
        package_begin = package.joules()
        with ledger.window("all", kind="overhead") as whole:
            processes = [trial(4.0, 0.9), trial(2.5, 0.4)]
            for process, wait in zip(processes, (0.3, 1.0), strict=True):
                time.sleep(wait)
                assert process.stdin is not None
                process.stdin.write("go\n")
                process.stdin.flush()
            reports = [json.loads(process.communicate()[0]) for process in processes]
            time.sleep(0.5)
        package_drawn = package.joules() - package_begin
        time.sleep(0.5)
        for _ in range(2):  # what each gets is known when both have reported what they took
            records = [ledger.query(t0, t1, f"trial {k}", cpu_seconds=cpu, devices=(names[k],)) for k, (t0, t1, cpu) in enumerate(reports)]
        found = ledger.partition(whole.t0_ns, whole.t1_ns)
        billed_twice = [ledger.query(t0, t1).joules for t0, t1, _ in reports]
    truth = package_drawn + sum(gpu_truth(k, whole.t0_ns, whole.t1_ns) for k in range(2))
    together = (min(reports[0][1], reports[1][1]) - max(reports[0][0], reports[1][0])) / 1e9
    trials = []
    for k, (t0, t1, cpu) in enumerate(reports):
        alone = (t1 - t0) / 1e9 - together
        trials.append((records[k].joules, gpu_truth(k, t0, t1) + CPU_WATTS * cpu + REST_WATTS * (alone + together / 2)))
    parts = sum(sum(share.joules for share in shares.values()) for shares in found.shares.values())
    rests = sum(sum(bucket.values()) for bucket in (found.overhead, found.idle, found.unattributed))
    return Parallel((parts + rests) / truth, tuple(trials), sum(billed_twice) / sum(true for _, true in trials))


def trial(seconds: float, share: float) -> subprocess.Popen[str]:
    """Start the process of a trial; it begins at a signal."""
    arguments = [sys.executable, "-c", TRIAL, str(seconds), str(share)]
    return subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parent)
