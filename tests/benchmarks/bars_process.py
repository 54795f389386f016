"""Bars 12 to 16 of the meter table: start-up, overhead, forks, kills, files, connections."""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bars_live import python, tracker
from bars_simulated import Lab, Row
from meter_overhead import counting

from joulefront.search.carbon.intensity import grams_co2e
from joulefront.search.energy import Ledger, Source, discover
from joulefront.search.energy.sources.cpu_time import CpuTime
from joulefront.search.energy.sources.nvml import Nvml
from joulefront.search.energy.sources.rapl import Rapl

COLD = """
from joulefront.search.energy import Ledger, discover
found = discover(); ledger = Ledger(found.sources, absent=found.absent).start()
"""
COLD_CODECARBON = """
from codecarbon import OfflineEmissionsTracker as T
t = T(country_iso_code="FRA", output_methods=[], log_level="critical"); t.start()
"""
TIMED = "import os, time; begin, spent = time.perf_counter(), time.process_time()\n{}\n"
TIMED += "print(time.perf_counter() - begin, time.process_time() - spent, flush=True); os._exit(0)"


def cold(code: str) -> tuple[float, float] | None:
    """Return the least wall and CPU seconds of five cold starts, or None when it does not run."""
    runs = [python(TIMED.format(code)) for _ in range(5)]
    if any(run.returncode for run in runs):
        return None
    times = [[float(word) for word in run.stdout.split()[-2:]] for run in runs]
    return min(wall for wall, _ in times), min(cpu for _, cpu in times)


def median_step(step: Callable[[], object], times: int, rest: float = 0.0) -> tuple[float, float]:
    """Return the median of the wall seconds and of this thread's CPU seconds of a step."""
    walls, cpus = [], []
    for _ in range(times):
        wall, cpu = time.perf_counter(), time.thread_time()
        step()
        walls.append(time.perf_counter() - wall)
        cpus.append(time.thread_time() - cpu)
        time.sleep(rest)
    return statistics.median(walls), statistics.median(cpus)


def bar12(lab: Lab) -> Row:
    """Start-up, and opening and closing a window; judged by wall time, with the CPU time beside it: the rest is what else runs."""
    ours, theirs, zeus = cold(COLD), cold(COLD_CODECARBON), cold("import zeus.monitor")
    lab.driver.reset().run()
    with tempfile.TemporaryDirectory() as folder, Ledger(meters(lab), file=Path(folder) / "ledger.jsonl") as ledger:
        warm = median_step(lambda: ledger.open("w").close(), 200, rest=0.005)

    def run() -> None:
        meter = tracker()
        meter.start()
        meter.stop()

    other = median_step(run, 5)
    assert ours is not None
    assert theirs is not None
    show = [
        f"{start[0]:.2f} s ({start[1]:.2f} s CPU) / {1000 * step[0]:.2f} ms ({1000 * step[1]:.2f} ms CPU)"
        for start, step in ((ours, warm), (theirs, other))
    ]
    passed = ours[0] <= 0.15 and warm[0] <= 1e-3
    imported = "not installed" if zeus is None else f"import alone {zeus[0]:.1f} s ({zeus[1]:.1f} s CPU)"
    return Row(12, "cold start / warm open + close", "0.15 s / 1 ms", show[0], passed, show[1], imported)


def meters(lab: Lab) -> list[Source]:
    """Return a GPU, two sockets with memory and the CPU-seconds, the first two fake."""
    return [Nvml(environment={}), Rapl(lab.folder / "sockets" / "intel-rapl"), CpuTime()]


def cpu_share(begin: Callable[[], object], end: Callable[[], object], seconds: float, observations: int = 5) -> tuple[float, float, float]:
    """Return the median, least and largest share of one core that a meter takes while this process sleeps.

    Args:
        begin: Begins a task of the meter ...
        end: ... and ends it; one a second, as epochs do.
        seconds: Length of an observation.
        observations: How many.
    """
    time.sleep(1.0)  # the burst of readings after the start is no steady state
    shares = []
    for _ in range(observations):
        used, until = time.process_time(), time.monotonic() + seconds
        since = time.monotonic()
        while time.monotonic() < until:
            begin()
            time.sleep(1.0)
            end()
        shares.append((time.process_time() - used) / (time.monotonic() - since))
    return statistics.median(shares), min(shares), max(shares)


def bar13(lab: Lab, seconds: float = 4.0) -> Row:
    """What reading all three costs while a trial is open, the file and its checkpoints included; beside it, with an epoch a second."""
    lab.driver.reset().run()
    walls: list[float] = []
    open_: list[Any] = []
    with (
        counting(lab.folder / "sockets" / "intel-rapl"),
        tempfile.TemporaryDirectory() as folder,
        Ledger(meters(lab), file=Path(folder) / "ledger.jsonl") as ledger,
    ):
        trial = ledger.open("trial")

        def begin() -> None:
            at = time.perf_counter()
            open_.append(ledger.open("epoch", "epoch", trial))
            walls.append(time.perf_counter() - at)

        def end() -> None:
            at = time.perf_counter()
            open_.pop().close()
            walls[-1] += time.perf_counter() - at

        time.sleep(3.0)  # a counter's rhythm is learnt in the first seconds
        share, low, high = cpu_share(lambda: None, lambda: None, seconds)
        with_epochs, *_ = cpu_share(begin, end, seconds)
    meter = tracker()
    meter.start()
    tasks = iter(range(10**6))
    other, *_ = cpu_share(lambda: meter.start_task(f"epoch {next(tasks)}"), meter.stop_task, seconds)
    meter.stop()
    show = f"{100 * share:.2f} % CPU (median of 5 observations, {100 * low:.2f} to {100 * high:.2f})"
    show += f"; with a window a second {100 * with_epochs:.2f} %, each {1000 * statistics.median(walls):.1f} ms wall"
    return Row(
        13,
        "reading GPU, RAPL and CPU time at 10 Hz, of one core",
        "<= 0.5 %",
        show,
        share <= 0.005,
        f"{100 * other:.2f} %, with a task a second",
    )


KILLED = """
import sys, time, pathlib
from joulefront.search.energy import Ledger
from joulefront.search.energy.sources.cpu_time import CpuTime
ledger = Ledger([CpuTime()], file=pathlib.Path("ledger.jsonl"), checkpoint_seconds=1.0).start()
window = ledger.open("trial"); print("go", flush=True)
while True: sum(range(2000))
"""
KILLED_CODECARBON = """
from codecarbon import OfflineEmissionsTracker as T
t = T(country_iso_code="FRA", log_level="critical"); t.start(); print("go", flush=True)
while True: sum(range(2000))
"""


def kill(code: str, folder: str, seconds: float) -> int:
    """Start code in a folder, kill it without warning `seconds` after its sign, and return the monotonic time of that."""
    process = subprocess.Popen([sys.executable, "-c", code], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    at = time.monotonic_ns()
    process.wait()
    process.stdout.close()
    return at


def bar14(lab: Lab, forks: int = 200) -> Row:
    """Forks while reading, a hundred ledgers, a kill; the full thousand forks are in the tests."""
    hung = 0
    with Ledger([CpuTime()], interval_seconds=0.002) as ledger:
        for _ in range(forks):
            child = os.fork()
            if child == 0:
                with ledger.window("in the child"):
                    pass
                os._exit(0)
            until = time.monotonic() + 10
            while (done := os.waitpid(child, os.WNOHANG))[0] == 0 and time.monotonic() < until:
                time.sleep(0.0005)
            if done[0] == 0:
                hung += 1
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
    before = threading.active_count(), len(os.listdir("/proc/self/fd"))
    for _ in range(100):
        Ledger([CpuTime()]).start().stop()
    leaked = sum(max(now - was, 0) for now, was in zip((threading.active_count(), len(os.listdir("/proc/self/fd"))), before, strict=True))
    with tempfile.TemporaryDirectory() as folder:
        at = kill(KILLED, folder, 3.4)
        lines = [json.loads(line) for line in (Path(folder) / "ledger.jsonl").read_text().splitlines()]
        beats = [line["t_ns"] for line in lines if line.get("event") == "beat"]
        lost = (at - max(beats)) / 1e9 if beats else float("inf")
    with tempfile.TemporaryDirectory() as folder:
        kill(KILLED_CODECARBON, folder, 2.0)
        kept = [path.name for path in Path(folder).iterdir()]
    ours = f"{hung} hung of {forks} / {leaked} leaked / {lost:.1f} s lost at a checkpoint every 1 s"
    passed = hung == 0 and leaked == 0 and lost <= 1.5
    theirs = f"after SIGKILL: {', '.join(kept) or 'nothing written'}"
    return Row(14, "forks / leaks / SIGKILL", "0 / 0 / one checkpoint period (5 s)", ours, passed, theirs)


WATCHED = """
import json, os, socket, sys, time
tried = []
def connect(self, address, *rest):
    tried.append(str(address)); raise OSError("no network in this benchmark")
socket.socket.connect = connect
socket.getaddrinfo = lambda *a, **k: (tried.append(str(a[:2])), (_ for _ in ()).throw(OSError("no names in this benchmark")))[1]
{body}
print(json.dumps({{"tried": len(tried), "files": os.listdir("."), **facts}}))
"""
OURS = """
from joulefront.search.energy import Ledger, discover; from joulefront.search.carbon.intensity import grams_co2e
found = discover()
with Ledger(found.sources, absent=found.absent) as ledger, ledger.window("w") as window: sum(range(10**6))
facts = {"grams": grams_co2e(window.record.joules, None)}
"""
CODECARBON = """
from codecarbon import EmissionsTracker
t = EmissionsTracker(log_level="critical"); t.start(); time.sleep(1.2); t.stop()
d = t.final_emissions_data
facts = {"grams_per_kwh": 1000 * d.emissions / d.energy_consumed, "country": d.country_name, "region": d.region}
"""


def watched(body: str) -> dict[str, Any]:
    """Run code in an empty folder whose every connection is refused and counted."""
    with tempfile.TemporaryDirectory() as folder:
        done = python(WATCHED.format(body=body), cwd=folder, env={**os.environ, "HOME": folder})
    return json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else {"error": done.stderr[-300:]}


def bars15_16(lab: Lab) -> tuple[Row, Row]:
    """Connections and files by default, and what an unknown place becomes."""
    ours, theirs = watched(OURS), watched(CODECARBON)
    counts = [f"{found.get('tried')}, {len(found.get('files', []))}" for found in (ours, theirs)]
    place = f"{theirs.get('grams_per_kwh', float('nan')):.2f} g/kWh, {theirs.get('country')!r}, {theirs.get('region')!r}"
    message = next(item for item in _examined() if item.subject == "carbon")
    reported = ours.get("grams") is None and grams_co2e(1.0, None) is None and bool(message.remedy)
    return (
        Row(15, "connections tried, files by default", "0, 0", counts[0], counts[0] == "0, 0", counts[1]),
        Row(16, "unknown place", "null and a message", f"null; {message.remedy}", reported, place),
    )


def _examined() -> Any:
    from joulefront.search.energy.doctor import examine

    found = discover()
    return examine(found.present, found.absent).findings
