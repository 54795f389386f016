"""Bars 7 to 16 of the meter table where they need real time, real processes and CodeCarbon itself."""

from __future__ import annotations

import json
import os
import resource
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

from bars_simulated import Lab, Row, bar10, ours_nested, ours_parallel

from joulefront.search.energy import Ledger, discover, grams_co2e, intensity_for
from joulefront.search.energy.loads import busy_cores
from joulefront.search.energy.sources.cpu_time import CpuTime
from joulefront.search.energy.sources.nvml import Nvml
from joulefront.search.energy.sources.rapl import Rapl

RAM_WATTS = 10.0


def tracker(**options: Any) -> Any:
    """Return CodeCarbon's offline tracker, silent, without files; its memory is a known constant."""
    from codecarbon import OfflineEmissionsTracker

    usual = {"country_iso_code": "FRA", "output_methods": [], "log_level": "critical", "force_ram_power": RAM_WATTS, "force_cpu_power": 8}
    return OfflineEmissionsTracker(**{**usual, **options})


def work(seconds: float) -> None:
    """Use this many CPU-seconds of this process, whatever else runs."""
    until = time.process_time() + seconds
    while time.process_time() < until:
        sum(range(2000))


def python(code: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run Python code in a process of its own."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, **options)


def bar7(lab: Lab) -> Row:
    """Nested windows."""
    gap = ours_nested(lab)
    meter = tracker()
    begin = time.perf_counter()
    meter.start()
    time.sleep(1.5)
    meter.start_task("inner")
    time.sleep(0.5)
    meter.stop_task("inner")
    meter.stop()
    truth = RAM_WATTS * (time.perf_counter() - begin)
    found = meter.final_emissions_data.ram_energy * 3.6e6
    ours = f"parts miss the whole by {100 * gap:.1g} %"
    return Row(7, "conservation, nested windows", "<= 0.1 %", ours, gap <= 1e-3, f"{found:.1f} of {truth:.1f} J")


def bar8(lab: Lab) -> Row:
    """Two trials at once."""
    share = ours_parallel(lab)
    meters = [tracker(), tracker()]
    begin = time.perf_counter()
    for meter in meters:
        meter.start()
    time.sleep(1.5)
    for meter in meters:
        meter.stop()
    truth = RAM_WATTS * (time.perf_counter() - begin)
    theirs = sum(meter.final_emissions_data.ram_energy for meter in meters) * 3.6e6 / truth
    return Row(8, "2 concurrent trials, sum / machine", "<= 1.001", f"{share:.6f}", abs(share - 1) <= 1e-3, f"{theirs:.2f}")


def bar9(lab: Lab) -> Row:
    """Children that live shortly."""
    count = os.cpu_count() or 1
    meter = tracker(tracking_mode="process", measure_power_secs=1, force_mode_cpu_load=True)
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
    """The same CPU work five times, a core hog beside some of them."""
    joules, theirs = [], []
    with Ledger([CpuTime()]) as ledger:
        for k in range(repeats):
            with busy_cores((os.cpu_count() or 1) if k % 2 else 0):
                meter = tracker(force_mode_cpu_load=True)
                meter.start()
                with ledger.window("work") as window:
                    work(0.6)
                meter.stop()
            joules.append(window.record.joules)
            theirs.append(meter.final_emissions_data.energy_consumed)
            quality = window.record.quality
    ours, other = (statistics.stdev(values) / statistics.fmean(values) for values in (joules, theirs))
    passed = ours <= 0.02 and quality == "estimated"
    return Row(
        11, "estimate, 5 repeats beside a hog, cv", "<= 2 %, labelled", f"{100 * ours:.2f} %, {quality}", passed, f"{100 * other:.0f} %"
    )


COLD = """
import time; begin = time.perf_counter()
from joulefront.search.energy import Ledger, discover
found = discover(); ledger = Ledger(found.sources, absent=found.absent).start()
print(time.perf_counter() - begin); ledger.stop()
"""
COLD_CODECARBON = """
import time; begin = time.perf_counter()
from codecarbon import OfflineEmissionsTracker as T
t = T(country_iso_code="FRA", output_methods=[], log_level="critical"); t.start()
print(time.perf_counter() - begin); t.stop()
"""
COLD_ZEUS = "import time; begin = time.perf_counter()\nimport zeus.monitor\nprint(time.perf_counter() - begin)"


def cold(code: str) -> float | None:
    """Return the median of three cold starts in seconds, or None when it does not run."""
    runs = [python(code) for _ in range(3)]
    if any(run.returncode for run in runs):
        return None
    return statistics.median(float(run.stdout.split()[-1]) for run in runs)


def bar12(lab: Lab) -> Row:
    """Start-up, and opening and closing a window."""
    ours, theirs, zeus = cold(COLD), cold(COLD_CODECARBON), cold(COLD_ZEUS)
    lab.driver.reset().run()
    with tempfile.TemporaryDirectory() as folder:
        sources = [Nvml(environment={}), Rapl(lab.folder / "sockets" / "intel-rapl"), CpuTime()]
        with Ledger(sources, file=Path(folder) / "ledger.jsonl") as ledger:
            spans = []
            for _ in range(100):
                begin = time.perf_counter()
                ledger.open("w").close()
                spans.append(time.perf_counter() - begin)
                time.sleep(0.005)
    warm = statistics.median(spans)
    spans = []
    for _ in range(5):
        begin = time.perf_counter()
        meter = tracker()
        meter.start()
        meter.stop()
        spans.append(time.perf_counter() - begin)
    show = f"{ours:.3f} s / {1000 * warm:.2f} ms"
    other = f"{theirs:.2f} s / {1000 * statistics.median(spans):.1f} ms"
    passed = ours is not None and ours <= 0.15 and warm <= 1e-3
    return Row(
        12,
        "cold start / warm open + close",
        "0.15 s / 1 ms",
        show,
        passed,
        other,
        "not installed" if zeus is None else f"import {zeus:.1f} s",
    )


def cpu_share(start: Callable[[], Callable[[], object]], seconds: float) -> float:
    """Return the share of one core that a meter takes while this process sleeps."""
    stop = start()
    time.sleep(1.0)  # the close look after the start is no steady state
    begin = time.process_time()
    time.sleep(seconds)
    share = (time.process_time() - begin) / seconds
    stop()
    return share


def bar13(lab: Lab, seconds: float = 8.0) -> Row:
    """What reading costs."""
    lab.driver.reset().run()

    def ours() -> Callable[[], object]:
        ledger = Ledger([Nvml(environment={}), Rapl(lab.folder / "sockets" / "intel-rapl"), CpuTime()]).start()
        return ledger.stop

    def theirs() -> Callable[[], object]:
        meter = tracker()
        meter.start()
        return meter.stop  # type: ignore[no-any-return]

    share, other = cpu_share(ours, seconds), cpu_share(theirs, seconds)
    show = f"{100 * share:.2f} %"
    return Row(13, "reading at 10 Hz, of one core", "<= 0.5 %", show, share <= 0.005, f"{100 * other:.2f} % (15 s and 1 s timers)")


KILLED = """
import sys, time, pathlib
from joulefront.search.energy import Ledger
from joulefront.search.energy.sources.cpu_time import CpuTime
ledger = Ledger([CpuTime()], file=pathlib.Path("ledger.jsonl"), beat_seconds=1.0).start()
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
    ours = f"{hung} hung of {forks} / {leaked} leaked / {lost:.1f} s lost at a beat of 1 s"
    passed = hung == 0 and leaked == 0 and lost <= 1.5
    return Row(
        14, "forks / leaks / SIGKILL", "0 / 0 / one beat (5 s)", ours, passed, f"after SIGKILL: {', '.join(kept) or 'nothing written'}"
    )


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
from joulefront.search.energy import Ledger, discover, intensity_for, grams_co2e
found = discover()
with Ledger(found.sources, absent=found.absent) as ledger, ledger.window("w") as window: sum(range(10**6))
facts = {"grams": grams_co2e(window.record.joules, intensity_for(None))}
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
    said = ours.get("grams") is None and grams_co2e(1.0, intensity_for(None)) is None and bool(message.remedy)
    return (
        Row(15, "connections tried, files by default", "0, 0", counts[0], counts[0] == "0, 0", counts[1]),
        Row(16, "unknown place", "null and a message", f"{ours.get('grams')}; {message.remedy}", said, place),
    )


def _examined() -> Any:
    from joulefront.search.energy.doctor import examine

    found = discover()
    return examine(found.present, found.absent).findings


LIVE: tuple[Callable[[Lab], Row], ...] = (bar7, bar8, bar9, bar10_row, bar11, bar12, bar13, bar14)
