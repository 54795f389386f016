"""Zeus's own code on the same fakes, where Zeus is installed: ``uv run --with zeus python tests/benchmarks/meters.py``."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

MISSING = "not installed"


def installed() -> bool:
    """Return whether Zeus is there."""
    return importlib.util.find_spec("zeus") is not None


def polled(powers: list[tuple[float, float]], start: float, stop: float) -> str:
    """Give Zeus the readings that its polling process would keep (it drops a reading equal to the one before)."""
    if not installed():
        return MISSING
    from zeus.monitor.power import PowerDomain, PowerMonitor, PowerSample

    kept = [sample for k, sample in enumerate(powers) if k == 0 or sample[1] != powers[k - 1][1]]
    monitor = object.__new__(PowerMonitor)
    domain = PowerDomain.DEVICE_INSTANT
    monitor.measurement_domains, monitor.gpu_indices = [domain], [0]
    monitor.samples = {domain: {0: [PowerSample(timestamp=t, gpu_index=0, power_mw=w) for t, w in kept]}}
    monitor._process_queue_data = lambda _: None
    return f"{monitor.get_energy(start, stop)[0]:.0f} J"


def gpu_counter() -> Callable[[], float] | None:
    """Return Zeus's reading of the first GPU in joules; the energy of its window is the difference of two of them."""
    if not installed():
        return None
    from zeus.device.gpu.nvidia import NVIDIAGPU

    device = object.__new__(NVIDIAGPU)  # its constructor asks for a Grace Hopper link, which the fake driver does not know
    device.gpu_index = 0
    device._get_handle()
    return lambda: float(device.get_total_energy_consumption()) / 1000


def after_a_wrap(zone: Path, wrap: Callable[[], object]) -> str:
    """Return what Zeus's counter of a RAPL zone gives across a wrap that its poller, once a second, has not seen yet."""
    if not installed():
        return MISSING
    from zeus.device.cpu.rapl import RAPLFile

    file = _still(RAPLFile(str(zone)))
    before = file.read()
    wrap()
    return f"{(file.read() - before) / 1000:.0f} J"


def sockets(root: Path, spend: Callable[[], object]) -> str:
    """Return the sum over all that Zeus takes for CPUs and their memory in a powercap tree."""
    if not installed():
        return MISSING
    from zeus.device.cpu import rapl

    standard, rapl.RAPL_DIR = rapl.RAPL_DIR, str(root)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of sub-zones without a range
            cpus = rapl.RAPLCPUs().cpus
    finally:
        rapl.RAPL_DIR = standard
    for cpu in cpus:
        _still(cpu.rapl_file)
        if cpu.dram is not None:
            _still(cpu.dram)
    before = _sum(cpus)
    spend()
    return f"{_sum(cpus) - before:.0f} J"


def _still(file: Any) -> Any:
    """Put a count of no wraps in the place of the process that looks for them."""
    file._wraparound_tracker = SimpleNamespace(get_num_wraparounds=lambda: 0)
    return file


def _sum(cpus: Any) -> float:
    found = [cpu.get_total_energy_consumption() for cpu in cpus]
    return sum(float(one.cpu_mj) + float(one.dram_mj or 0.0) for one in found) / 1000
