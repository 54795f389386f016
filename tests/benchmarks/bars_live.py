"""Bars 7 to 11 of the meter table, with CodeCarbon's own tracker in real time."""

from __future__ import annotations

import os
import resource
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

from bars_simulated import Lab, Row, bar10
from bars_truth import nested, parallel

from joulefront.search.energy import Ledger
from joulefront.search.energy.calibrate import SPIN
from joulefront.search.energy.sources.cpu_time import CpuTime

RAM_WATTS = 10.0


def tracker(**options: Any) -> Any:
    """Return CodeCarbon's offline tracker, silent, without files; its memory is a known constant."""
    from codecarbon import OfflineEmissionsTracker

    usual = {"country_iso_code": "FRA", "output_methods": [], "log_level": "critical", "force_ram_power": RAM_WATTS, "force_cpu_power": 8}
    return OfflineEmissionsTracker(**{**usual, **options})


def work_seconds(seconds: float) -> None:
    """Use this many CPU-seconds of this process, whatever else runs."""
    until = time.process_time() + seconds
    while time.process_time() < until:
        sum(range(2000))


def work_rounds(rounds: int) -> None:
    """Do this much; how many CPU-seconds it takes is up to caches, clocks and neighbours."""
    for _ in range(rounds):
        sum(range(2000))


class Neighbours:
    """Processes that keep CPUs busy and are nobody's child: somebody else's work.

    They must be there before a ledger is: what is started while it looks on, and left to itself later, stays on the bill of who started it.
    """

    def __init__(self, count: int) -> None:
        orphan = f"import os\nif os.fork(): os._exit(0)\nprint(os.getpid(), flush=True)\n{SPIN}"
        self._pipes = [
            subprocess.Popen([sys.executable, "-c", orphan], stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(count)
        ]
        self._pids = [int(pipe.stdout.readline()) for pipe in self._pipes if pipe.stdout is not None]
        for pipe in self._pipes:
            pipe.wait()  # the one in between; the neighbour itself now belongs to init
        self._all(signal.SIGSTOP)

    @contextmanager
    def busy(self, wanted: bool = True) -> Iterator[None]:
        """Let them work for a while."""
        self._all(signal.SIGCONT if wanted else signal.SIGSTOP)
        try:
            yield
        finally:
            self._all(signal.SIGSTOP)

    def close(self) -> None:
        """Send them away."""
        self._all(signal.SIGKILL)
        for pipe in self._pipes:
            assert pipe.stdin is not None
            assert pipe.stdout is not None
            pipe.stdin.close()
            pipe.stdout.close()

    def _all(self, number: int) -> None:
        for pid in self._pids:
            os.kill(pid, number)


def python(code: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run Python code in a process of its own."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, **options)


def bar7(lab: Lab) -> Row:
    """Nested windows."""
    ours = nested(lab)
    meter = tracker()
    meter.start()
    begin = time.perf_counter()
    time.sleep(1.5)
    meter.start_task("inner")
    time.sleep(0.5)
    meter.stop_task("inner")
    meter.stop()
    truth = RAM_WATTS * (time.perf_counter() - begin)
    found = meter.final_emissions_data.ram_energy * 3.6e6
    gap = abs(ours.joules / ours.truth - 1)
    show = f"{ours.joules:.1f} of {ours.truth:.1f} J; truth in ± 2u of {ours.covered} of {ours.windows} windows"
    show += f", the worst {100 * ours.worst:.1f} % off"
    passed = gap <= 1e-3 and ours.covered >= 0.95 * ours.windows
    return Row(7, "nested windows of a minute, sum of the parts", "<= 0.1 % of the truth", show, passed, f"{found:.1f} of {truth:.1f} J")


def bar8(lab: Lab) -> Row:
    """Two trials at once."""
    ours = parallel(lab)
    meters = [tracker(), tracker()]
    begin = time.perf_counter()
    for meter in meters:
        meter.start()
    time.sleep(1.5)
    for meter in meters:
        meter.stop()
    truth = RAM_WATTS * (time.perf_counter() - begin)
    theirs = sum(meter.final_emissions_data.ram_energy for meter in meters) * 3.6e6 / truth
    misses = " and ".join(f"{100 * (joules / true - 1):+.1f} %" for joules, true in ours.trials)
    show = f"{ours.ratio:.4f}; the trials {misses} of their own truth"
    return Row(8, "2 concurrent trials, all parts / truth of the machine", "1 ± 0.001", show, abs(ours.ratio - 1) <= 1e-3, f"{theirs:.2f}")


def bar9(lab: Lab) -> Row:
    """Children that live shortly."""
    count = os.cpu_count() or 1
    meter = tracker(tracking_mode="process", force_mode_cpu_load=True)
    source = CpuTime()
    with Ledger([source]) as ledger:
        meter.start()
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        window = ledger.open("workers")
        for _ in range(4):
            python("import time\nwhile time.process_time() < 0.6: sum(range(2000))", check=True)
        meter.stop()
        record = window.close()
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    truth = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    seen = record.joules / source.coefficients.core_watts / truth
    theirs = meter.final_emissions_data.cpu_energy * 3.6e6 / (8 / count) / truth
    ours = f"{100 * seen:.1f} % (with this process's own)"
    return Row(9, "CPU time of 4 children of 0.6 s", ">= 98 %", ours, seen >= 0.98, f"{100 * theirs:.1f} %")


def bar10_row(lab: Lab) -> Row:
    """Windows of 10 and 30 ms; CodeCarbon's energy over its own power in a long window."""
    passed, ours = bar10(lab)
    shares = {}
    for seconds in (1.0, 0.03, 0.01):
        meter = tracker()
        begin = time.perf_counter()
        meter.start()
        time.sleep(seconds)
        meter.stop()
        shares[seconds] = meter.final_emissions_data.ram_energy * 3.6e6 / (RAM_WATTS * (time.perf_counter() - begin))
    theirs = f"{100 * shares[0.03]:.0f} and {100 * shares[0.01]:.0f} % of the truth, unflagged"
    return Row(10, "windows of 10 and 30 ms", "flagged, interval holds truth", ours, passed, theirs)


def bar11(lab: Lab, repeats: int = 5) -> Row:
    """Equal CPU-seconds five times, and equal operations five times, a background load of one core beside every second one."""
    loads = (("CPU-seconds", lambda: work_seconds(0.6)), ("operations", lambda: work_rounds(20_000)))
    cvs: dict[str, list[float]] = {}
    neighbours = Neighbours(os.cpu_count() or 1)
    with closing(neighbours), Ledger([CpuTime()]) as ledger:
        for name, load in loads:
            joules, theirs = [], []
            for k in range(repeats):
                with neighbours.busy(bool(k % 2)):
                    meter = tracker(force_mode_cpu_load=True)
                    meter.start()
                    with ledger.window("work") as window:
                        load()
                    meter.stop()
                joules.append(window.record.joules)
                theirs.append(meter.final_emissions_data.energy_consumed)
            cvs[name] = [100 * statistics.stdev(values) / statistics.fmean(values) for values in (joules, theirs)]
    quality = window.record.quality
    passed = cvs["CPU-seconds"][0] <= 2 and quality == "estimated"
    show = ["; ".join(f"{found[k]:.2g} % at equal {name}" for name, found in cvs.items()) for k in (0, 1)]
    return Row(11, "estimate, 5 repeats beside a background load, cv", "<= 2 % by CPU-seconds", f"{show[0]}; {quality}", passed, show[1])
