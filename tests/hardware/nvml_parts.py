"""The parts about the meter: what the GPU is, how its sensors refresh, whether its two accounts agree, whose work a window holds."""

from __future__ import annotations

import os
import platform
import statistics
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pynvml

from joulefront.search.energy import Ledger, Window, discover
from joulefront.search.energy.sources.nvml import LAG_SECONDS, POWER_TICK_SECONDS, Nvml
from joulefront.search.energy.sources.nvml_driver import find

from .context import Context
from .oracle import SCOPES, Gpu, Recorder, add_trace, ask, percentiles, readings_for
from .table import Figure, as_result, at_least, at_most, holds, near_one

#: Facts that the driver is asked for, by the end of the call's name.
ASKED = (
    *("Name", "UUID", "Brand", "Architecture", "CudaComputeCapability", "PersistenceMode", "MigMode", "VirtualizationMode"),
    *("EnforcedPowerLimit", "PowerManagementLimit", "PowerManagementDefaultLimit", "PowerManagementLimitConstraints"),
    *("CurrentClocksEventReasons", "TotalEnergyConsumption", "PowerUsage"),
)
#: Loads of ``counter``: kind, seconds, period of the pulses or None.
LOADS = (
    ("idle", 6.0, None),
    ("compute", 8.0, None),
    ("memory", 8.0, None),
    ("compute", 7.0, 0.02),
    ("compute", 7.0, 0.099),
    ("compute", 7.0, 0.13),
    ("compute", 7.0, 0.5),
    ("compute", 7.0, 1.7),
)
#: Traces that one run stores: of ``tick`` and of each load.
TRACE_COUNT = 1 + len(LOADS)


def facts(context: Context) -> dict[str, Any]:
    """What this GPU and its driver are, and which of the meter's calls they answer to this user."""
    pynvml.nvmlInit()
    gpu = Gpu.find(context.device)
    energy, power = pynvml.NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION, pynvml.NVML_FI_DEV_POWER_INSTANT
    fields = {"energy": energy, "instant": power, "average": pynvml.NVML_FI_DEV_POWER_AVERAGE}
    scopes = {scope: {name: gpu.field(number, key) for name, number in fields.items()} for key, scope in SCOPES.items()}
    source = Nvml()
    found = source.probe()
    mine = next((part for part in found if part.component == f"gpu:{gpu.uuid}"), None)
    handles = [ask(_uuid_at, index) for index in range(pynvml.nvmlDeviceGetCount())]
    figures = [
        holds("the GPU that PyTorch uses is metered and counted", mine is not None and mine.available and mine.counts, "yes"),
        holds("the driver has an energy counter", gpu.counter() is not None, "yes"),
        holds("the driver gives the instant power", gpu.watts() is not None, "yes"),
        holds("every GPU can be opened by its index", all(isinstance(one, str) and one.startswith("GPU-") for one in handles), "yes"),
        Figure(
            "scopes of the instant power", ", ".join(name for name, values in scopes.items() if values["instant"] is not None) or "none"
        ),
    ]
    details = {name: str(ask(getattr(pynvml, f"nvmlDeviceGet{name}"), gpu.handle)) for name in ASKED}
    foreign = source.foreign()
    facts_of_source = source.devices()
    source.close()
    versions = {"python": platform.python_version(), "nvidia-ml-py": getattr(pynvml, "__version__", "unknown"), "cpus": os.cpu_count()}
    if context.gpu:
        import torch

        versions |= {"torch": torch.__version__, "cuda": torch.version.cuda, "capability": torch.cuda.get_device_capability(context.device)}
    return as_result(
        figures,
        driver_says=details,
        scopes=scopes,
        handles=handles,
        capabilities=[str(one) for one in found],
        devices=facts_of_source,
        processes=foreign,
        versions=versions,
        root=hasattr(os, "geteuid") and os.geteuid() == 0,
        variables={name: os.environ.get(name) for name in ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER")},
    )


def tick(context: Context) -> dict[str, Any]:
    """How often counter and power are refreshed, how far both trail a step of the load, and what a reading costs."""
    pynvml.nvmlInit()
    gpu, load, scale = Gpu.find(context.device), context.make_load(context.device), context.scale
    with Recorder(gpu) as recorder:
        time.sleep(1.5 * scale + 0.3)
        on, off = load.steady("compute", 4 * scale + 0.3)
        time.sleep(2 * scale + 0.4)
    add_trace(context.out, recorder.trace("step", _name(gpu), readings_for(TRACE_COUNT)))
    counter, power = (percentiles(recorder.periods(values)) for values in (recorder.joules, recorder.watts))
    lag = counter_lag_seconds(recorder, on, off)
    power_lag = power_lag_seconds(recorder, on, off)
    calls = {
        "counter": gpu.counter,
        "instant power": gpu.watts,
        "power": lambda: ask(pynvml.nvmlDeviceGetPowerUsage, gpu.handle),
        "utilisation": lambda: ask(pynvml.nvmlDeviceGetUtilizationRates, gpu.handle),
        "processes": lambda: ask(pynvml.nvmlDeviceGetComputeRunningProcesses, gpu.handle),
        "temperature": lambda: ask(pynvml.nvmlDeviceGetTemperature, gpu.handle, pynvml.NVML_TEMPERATURE_GPU),
        "clock": lambda: ask(pynvml.nvmlDeviceGetClockInfo, gpu.handle, pynvml.NVML_CLOCK_SM),
        "throttle": lambda: ask(pynvml.nvmlDeviceGetCurrentClocksEventReasons, gpu.handle),
        "memory's power": lambda: gpu.field(pynvml.NVML_FI_DEV_POWER_AVERAGE, 2),
    }
    both = find(pynvml, gpu.handle).both
    calls |= {} if both is None else {"counter and power": both}
    idle = {name: _milliseconds(call) for name, call in calls.items()}
    worker = threading.Thread(target=load.steady, args=("compute", 2 * scale + 0.2))
    worker.start()
    time.sleep(0.3 * scale)
    busy = {name: _milliseconds(call, 30) for name, call in calls.items()}
    worker.join()
    apart = {name: _milliseconds(call, 10, 0.1 * scale) for name, call in calls.items()}
    with Ledger(discover("nvml")) as ledger:
        window = _milliseconds(lambda: ledger.open("one").close())
        time.sleep(3 * scale)  # until the meter knows when the counter is refreshed, it looks closely
        spent, began = time.process_time(), time.monotonic()
        time.sleep(5 * scale)
        share = (time.process_time() - spent) / (time.monotonic() - began)
    reads = (len(recorder.t_ns) - 1) / (int(recorder.t_ns[-1] - recorder.t_ns[0]) / 1e9)
    figures = [
        at_most("refresh period of the counter, median", _of(counter, "p50"), 0.11, "s"),
        at_most("refresh period of the instant power, median", _of(power, "p50"), 1.1 * POWER_TICK_SECONDS, "s"),
        at_most("lag of the counter behind the load (the ledger allows for 0.1 s)", None if lag is None else abs(lag), 0.02, "s"),
        at_most("lag of the instant power behind the load", power_lag, LAG_SECONDS, "s"),
        at_most("a reading of the counter while the GPU works, median", busy["counter"]["p50"], 5.0, "ms"),
        at_most("a window's opening and closing, median", window["p50"], 1.0, "ms"),
        at_most("share of one core that the ledger takes at 10 Hz", share, 0.005),
        at_least("readings of the recorder (what the periods rest on)", reads, 50, "Hz"),
    ]
    return as_result(
        figures,
        counter_periods_seconds=counter,
        power_periods_seconds=power,
        counter_lag_seconds=lag,
        idle_ms=idle,
        busy_ms=busy,
        after_a_rest_ms=apart,
        window_ms=window,
    )


def counter(context: Context) -> dict[str, Any]:
    """The counter against the integral of the instant power, and the ledger's windows against the counter, over several loads."""
    pynvml.nvmlInit()
    gpu, load, scale = Gpu.find(context.device), context.make_load(context.device), context.scale
    figures, rows = [], []
    for kind, seconds, period in LOADS:
        name = kind if period is None else f"{kind} in pulses of {period:g} s"
        with Recorder(gpu) as recorder, Ledger(discover("nvml")) as ledger:
            time.sleep(2 * scale + 0.3)  # the ledger compares its two accounts before it trusts the counter
            parts: list[Window] = []
            with ledger.window("whole", synchronize=load.synchronize) as whole:
                for _ in range(4):
                    with ledger.window("part", kind="epoch", parent=whole, synchronize=load.synchronize) as part:
                        _work(load, kind, seconds * scale / 4, period)
                    parts.append(part)
            time.sleep(0.4)
            records = [one.record for one in (whole, *parts)]
        add_trace(context.out, recorder.trace(name, _name(gpu), readings_for(TRACE_COUNT)))
        counted = [recorder.counted_joules(record.t0_ns, record.t1_ns) for record in records]
        integrated = recorder.integrated_joules(records[0].t0_ns, records[0].t1_ns)
        inside = [
            abs(record.joules - joules) <= 2 * (record.u_random_joules or 0.0) + 0.002 * joules
            for record, joules in zip(records, counted, strict=True)
            if record.joules is not None and joules is not None
        ]
        row = {
            "load": name,
            "seconds": records[0].seconds,
            "counter_joules": counted[0],
            "integrated_joules": integrated,
            "ledger_joules": [record.joules for record in records],
            "u_random_joules": [record.u_random_joules for record in records],
            "parts_counter_joules": counted[1:],
            "inside": inside,
            "reasons": [part.reason for part in records[0].components],
            "sources": [part.source for part in records[0].components],
        }
        rows.append(row)
        ratio = integrated / counted[0] if counted[0] and integrated is not None else None
        # Edges of a window fall into a refresh of the counter: at most one refresh of power is in doubt there.
        figures += [
            near_one(f"{name}: integrated instant power / counter", ratio, 0.02),
            at_least(f"{name}: windows whose ± 2u holds the counter", sum(inside) / len(inside) if inside else None, 0.95),
        ]
        context.save(as_result(figures, rows=rows))
    return as_result(figures, rows=rows)


def edges(context: Context) -> dict[str, Any]:
    """Queued work belongs to the window that queued it if the edges wait for the device; the parts of a ledger add up to its total."""
    pynvml.nvmlInit()
    load, scale = context.make_load(context.device), context.scale
    steps = max(5, round(500 * scale))  # less than the about 1000 launches after which CUDA makes the caller wait
    pairs: dict[str, list[dict[str, float | None]]] = {}
    with Ledger(discover("nvml")) as ledger:
        for name, wait in (("waits", load.synchronize), ("does not wait", None)):
            load.synchronize()
            time.sleep(0.5 * scale + 0.1)
            with ledger.window("own", synchronize=wait) as own:
                load.enqueue(steps)
            with ledger.window("next", synchronize=load.synchronize) as following:
                time.sleep(0.1)
            time.sleep(0.3)
            pairs[name] = [{"joules": one.record.joules, "seconds": one.record.seconds} for one in (own, following)]
        same: list[Window] = []
        for _ in range(10):
            with ledger.window("same", synchronize=load.synchronize) as one:
                load.enqueue(steps)
            same.append(one)
            time.sleep(0.3 * scale)
        with ledger.window("idle", kind="idle") as idle:
            time.sleep(2 * scale + 0.1)
        with ledger.window("busy") as busy:
            load.steady("compute", 3 * scale + 0.1)
        time.sleep(0.3)
        split = ledger.partition()
        joules = [one.record.joules or 0.0 for one in same]
        stated = [one.record.u_random_joules or 0.0 for one in same]
        usage = [dict(one.record.utilisation) for one in (idle, busy)]
    total = sum(split.total.values())
    parts = [share.joules for shares in split.shares.values() for share in shares.values()]
    parts += [joules for bucket in (split.overhead, split.idle, split.unattributed) for joules in bucket.values()]
    spread = statistics.stdev(joules) / statistics.mean(joules) if statistics.mean(joules) else None
    waits, leaks = (pairs[name][0]["joules"] or 0.0 for name in ("waits", "does not wait"))
    figures = [
        at_most("what the parts of the ledger lack of its total", abs(total - sum(parts)) / total if total else None, 1e-6),
        at_most("spread of ten equal windows (standard deviation / mean)", spread if context.gpu else None, 0.05),
    ]
    if context.gpu:  # a CPU queues nothing, so its windows cannot leak
        figures += [
            at_most("energy of a window that does not wait for what it queued / of one that does", leaks / waits if waits else None, 0.2),
            at_least("utilisation of a busy window", max(usage[1].values(), default=None), 0.9),
            at_most("utilisation of an idle window", max(usage[0].values(), default=None), 0.1),
        ]
    return as_result(figures, pairs=pairs, joules=joules, stated_u_joules=stated, utilisation=usage, total_joules=total)


def counter_lag_seconds(recorder: Recorder, on_ns: int, off_ns: int) -> float | None:
    """Return how far the counter trails a step of the load: where the lines before, during and after cross, against the step itself.

    None where a line has fewer than three changes of the counter.
    """
    at = recorder.changes(recorder.joules)
    t, joules = (recorder.t_ns[at] - on_ns) / 1e9, recorder.joules[at]
    length, end = (off_ns - on_ns) / 1e9, float(recorder.t_ns[-1] - on_ns) / 1e9
    lines = []
    for low, high in ((-np.inf, -0.02), (0.3 * length, length), (length + 0.3 * (end - length), end)):
        chosen = (t > low) & (t < high)
        if chosen.sum() < 3:
            return None
        lines.append(np.polyfit(t[chosen], joules[chosen], 1))
    before, during, after = lines
    if during[0] - before[0] < 1 or during[0] - after[0] < 1:  # watts: no step to be seen
        return None
    first = (during[1] - before[1]) / (before[0] - during[0])
    last = (after[1] - during[1]) / (during[0] - after[0]) - length
    return float((first + last) / 2)


def power_lag_seconds(recorder: Recorder, on_ns: int, off_ns: int) -> float | None:
    """Return when the instant power has risen by half after the load began; None where it does not rise."""
    known = ~np.isnan(recorder.watts)
    t, watts = recorder.t_ns[known], recorder.watts[known]
    before, during = watts[t < on_ns], watts[(t > on_ns + 0.3 * (off_ns - on_ns)) & (t < off_ns)]
    if not len(before) or not len(during) or np.median(during) - np.median(before) < 1:
        return None
    risen = t[(t > on_ns) & (watts > (np.median(before) + np.median(during)) / 2)]
    return float(risen[0] - on_ns) / 1e9 if len(risen) else None


def _work(load: Any, kind: str, seconds: float, period: float | None) -> None:
    if period is None:
        load.steady(kind, seconds)
    else:
        load.pulsed(seconds, period)


def _milliseconds(call: Callable[[], object], times: int = 60, rest_seconds: float = 0.0) -> dict[str, float]:
    """Return percentiles of what a call takes in milliseconds, and the mean of its CPU time."""
    seconds, cpu = [], 0.0
    for _ in range(times):
        time.sleep(rest_seconds)
        begin, spent = time.perf_counter(), time.thread_time()
        call()
        seconds.append(1e3 * (time.perf_counter() - begin))
        cpu += time.thread_time() - spent
    return (percentiles(seconds) or {}) | {"cpu": 1e3 * cpu / times}


def _uuid_at(index: int) -> str:
    return str(pynvml.nvmlDeviceGetUUID(pynvml.nvmlDeviceGetHandleByIndex(index)))


def _name(gpu: Gpu) -> str:
    return str(ask(pynvml.nvmlDeviceGetName, gpu.handle))


def _of(found: dict[str, float] | None, name: str) -> float | None:
    return None if found is None else found[name]
