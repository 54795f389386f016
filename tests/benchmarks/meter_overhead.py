"""What measuring costs: import, start, a window, a sampling thread, and whether the answer depends on the rate.

Run with ``python tests/benchmarks/meter_overhead.py``. CPU time, not wall time, wherever the machine may be busy with others.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib.util
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from joulefront.search.energy import Ledger
from joulefront.search.energy.sources.cpu_time import CpuTime
from joulefront.search.energy.sources.nvml import Nvml
from joulefront.search.energy.sources.rapl import Rapl

DRIVER = Path(__file__).parents[1] / "search" / "energy" / "fake_driver.c"
IMPORT = "import time; t = time.process_time(); import joulefront.search.energy; print(time.process_time() - t)"
COLD = (
    "import time; t = time.process_time(); from joulefront.search.energy import Ledger, discover; found = discover('auto');"
    "ledger = Ledger(found.sources, absent=found.absent).start(); print(time.process_time() - t); ledger.stop()"
)


def fresh(code: str, repeats: int = 7) -> float:
    """Return the median CPU-seconds that a snippet reports in new interpreters."""
    runs = (subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(repeats))
    return statistics.median(float(run.stdout) for run in runs)


def powercap(folder: Path) -> Path:
    """Make a powercap tree of two sockets with memory."""
    for key, name in (("0", "package-0"), ("0/intel-rapl:0:0", "dram"), ("1", "package-1"), ("1/intel-rapl:1:0", "dram")):
        zone = folder / f"intel-rapl:{key}"
        zone.mkdir(parents=True)
        (zone / "name").write_text(name)
        (zone / "max_energy_range_uj").write_text("262143328850")
        (zone / "energy_uj").write_text(f"{1_000_000:24d}")
    return folder


@contextmanager
def counting(root: Path) -> Iterator[None]:
    """Let a process that is nobody's child turn every counter of a tree on: one that stands still is taken for broken."""
    code = (
        "import os, pathlib, sys, time\n"
        "if os.fork(): os._exit(0)\n"
        "print(os.getpid(), flush=True)\n"
        "files = [open(path, 'r+b', buffering=0) for path in pathlib.Path(sys.argv[1]).rglob('energy_uj')]\n"
        "for joules in range(1, 10**9):\n"
        "    for file in files: file.seek(0); file.write(b'%24d' % (joules * 10**6))\n"
        "    time.sleep(0.02)"
    )
    process = subprocess.Popen([sys.executable, "-S", "-c", code, str(root)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    orphan = int(process.stdout.readline())
    process.wait()
    time.sleep(0.5)
    try:
        yield
    finally:
        os.kill(orphan, signal.SIGKILL)
        process.stdout.close()


def fake_driver(folder: Path) -> Any | None:
    """Build the fake NVML driver, or return None without a compiler or without NVIDIA's binding."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None or importlib.util.find_spec("pynvml") is None:
        return None
    target = folder / "libnvidia-ml.so.1"
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", str(target), str(DRIVER), "-lm"], check=True)
    import pynvml

    library = ctypes.CDLL(str(target))
    library.fake_run.argtypes = [ctypes.c_double]
    library.fake_reset(1)
    library.fake_run(1.0)
    pynvml.nvmlLib = library
    return library


def window_cost(sources: list[Any], file: Path | None, count: int = 300) -> tuple[float, float]:
    """Return the medians of the wall seconds and of the caller's CPU-seconds of an open and a close.

    On a machine that is busy with others the first also counts their turns.
    """
    with Ledger(sources, file=file) as ledger:
        time.sleep(0.5)
        wall, cpu = [], []
        for _ in range(count):
            begin, worked = time.perf_counter(), time.thread_time()
            ledger.open("trial").close()
            wall.append(time.perf_counter() - begin)
            cpu.append(time.thread_time() - worked)
    return statistics.median(wall), statistics.median(cpu)


def thread_cost(sources: list[Any], interval: float, seconds: float = 8.0) -> float:
    """Return the share of one core that the sampler takes, from the CPU time of a process that only sleeps."""
    with Ledger(sources, interval_seconds=interval) as ledger:
        time.sleep(4.0)  # the first seconds go into learning a counter's rhythm
        begin, cpu = time.monotonic(), time.process_time()
        time.sleep(seconds)
        share = (time.process_time() - cpu) / (time.monotonic() - begin)
        assert ledger.total().joules is not None
    return share


def rate_dependence() -> list[tuple[float, float]]:
    """Return the energy of the same work at several rates, per CPU-second."""
    found = []
    for interval in (0.01, 0.1, 1.0):
        with Ledger([CpuTime()], interval_seconds=interval) as ledger, ledger.window("work") as window:
            begin = time.process_time()
            while time.process_time() - begin < 1.0:
                pass
            spent = time.process_time() - begin
        found.append((interval, (window.record.joules or 0.0) / spent))
    return found


def main() -> None:
    """Print the figures."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    print(f"Python {platform.python_version()}, {os.cpu_count()} logical CPUs, load {os.getloadavg()[0]:.1f}")
    print(f"{'import joulefront.search.energy':44} {fresh(IMPORT):8.3f} s CPU     bar 0.15 s")
    print(f"{'cold start: import, discover, start':44} {fresh(COLD):8.3f} s CPU     bar 0.15 s")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        library = fake_driver(folder)
        rapl = powercap(folder / "powercap")
        makers: dict[str, Callable[[], list[Any]]] = {"CPU time": lambda: [CpuTime()], "RAPL, 2 sockets with memory": lambda: [Rapl(rapl)]}
        if library is not None:
            makers["NVML (fake driver) + RAPL"] = lambda: [Nvml(environment={}), Rapl(rapl)]
        for label, make in makers.items():
            wall, cpu = window_cost(make(), folder / "ledger.jsonl")
            print(f"{'open + close, ' + label:44} {wall * 1e3:8.3f} ms, {cpu * 1e3:.3f} ms of it CPU     bar 1 ms")
        for label, make in makers.items():
            with counting(rapl):
                share = thread_cost(make(), 0.1)
            print(f"{'thread at 10 Hz, ' + label:44} {share:8.3%} of a core     bar 0.5 %")
    for interval, watts in rate_dependence():
        print(f"{f'joules per CPU-second, read every {interval} s':44} {watts:8.4f} W")


if __name__ == "__main__":
    main()
