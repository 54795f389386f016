"""The parts about sharing a GPU: the power limit and who may change it, leases between processes, foreign work beside a window."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pynvml

from joulefront.search.energy import Ledger, discover
from joulefront.search.energy.sources.nvml import Nvml
from joulefront.search.execution.devices import Lease, leases_folder
from joulefront.search.execution.worker import gpu_components
from joulefront.search.training.tactics.power_limit import set_power_limit

from .context import Context
from .oracle import Gpu, ask
from .table import Figure, as_result, at_most, holds

#: A second process that asks for a device: prints whether it got the lease, and what it is told.
ASK_FOR_LEASE = """
import sys
from pathlib import Path
from joulefront.search.execution.devices import Lease
lease = Lease(sys.argv[1], Path(sys.argv[2]))
print("got" if lease.acquire() else lease.describe())
"""
#: A second process that takes the device as a run does.
TAKE_DEVICE = """
import sys
from joulefront.search.execution.devices import DeviceError, take_devices
try:
    with take_devices(sys.argv[1], 1):
        print("got")
except DeviceError as error:
    print(error)
"""
#: A process that works on the GPU for some seconds; it says when it has begun.
FOREIGN_WORK = """
import os, sys, time
if os.fork():
    os._exit(0)  # no child of ours: what our own children do is our own work
import torch
a = torch.randn(4096, 4096, device=sys.argv[1])
torch.cuda.synchronize()
print("working", flush=True)
end = time.monotonic() + float(sys.argv[2])
while time.monotonic() < end:
    a @ a
    torch.cuda.synchronize()
"""


def power_limit(context: Context) -> dict[str, Any]:
    """The power limit and whether this user may change it; only when allowed it is lowered for a moment, and put back."""
    pynvml.nvmlInit()
    gpu = Gpu.find(context.device)
    before = ask(pynvml.nvmlDeviceGetPowerManagementLimit, gpu.handle)
    span = ask(pynvml.nvmlDeviceGetPowerManagementLimitConstraints, gpu.handle)
    default = ask(pynvml.nvmlDeviceGetPowerManagementDefaultLimit, gpu.handle)
    known = isinstance(before, int) and isinstance(span, list)
    figures = [
        Figure("power limit in force", before / 1000 if isinstance(before, int) else None, "W", note="" if known else str(before)),
        Figure("limits that the GPU takes", f"{span[0] / 1000:g} to {span[1] / 1000:g} W" if isinstance(span, list) else None),
    ]
    details: dict[str, Any] = {"before": before, "constraints": span, "default": default}
    if not known or not context.may_set:
        why = "the driver does not give the limit" if not known else "not tried: needs --set-power-limit"
        figures.append(Figure("the limit can be lowered and is put back", None, "", "put back", note=why))
        return as_result(figures, **details)
    wanted = max(span[0], before - max(1000, before // 10)) / 1000
    try:
        restore = set_power_limit(gpu.uuid, wanted)
    except (PermissionError, RuntimeError, ValueError) as error:
        figures.append(Figure("the limit can be lowered and is put back", None, "", "put back", note=str(error)))
    else:
        try:
            lowered = ask(pynvml.nvmlDeviceGetPowerManagementLimit, gpu.handle)
        finally:
            restore()
        details |= {"wanted_watts": wanted, "lowered": lowered}
        figures.append(holds("the limit was lowered as asked", lowered == round(1000 * wanted), "yes"))
    details["after"] = after = ask(pynvml.nvmlDeviceGetPowerManagementLimit, gpu.handle)
    figures.append(holds("the limit afterwards is that from before", after == before, "yes"))
    return as_result(figures, **details)


def leases(context: Context) -> dict[str, Any]:
    """A device is held by one process at a time, under the name that is metered; foreign work beside a window is seen."""
    pynvml.nvmlInit()
    gpu = Gpu.find(context.device)
    component = gpu_components(context.device)[0] if context.gpu else f"gpu:{gpu.uuid}"
    folder = leases_folder() if context.gpu else context.out / "leases"
    lease = Lease(component, folder)
    said: dict[str, Any] = {}
    if not lease.acquire():
        figure = Figure("a second process is refused", None, "", "yes", note=f"somebody else uses this GPU: {lease.describe()}")
        return as_result([figure], component=component)
    with contextlib.ExitStack() as held:
        held.callback(lease.release)
        said["second"] = _ask(ASK_FOR_LEASE, component, folder)
        if context.gpu:
            said["run"] = _ask(TAKE_DEVICE, context.device, "")
    said["after"] = _ask(ASK_FOR_LEASE, component, folder)
    source = Nvml()
    metered = [part.component for part in source.probe() if part.available and part.counts]
    source.close()
    figures = [
        holds("a second process is refused, and told by whom", "is held by process" in said["second"], "yes"),
        holds("it gets the device afterwards", said["after"] == "got", "yes"),
        holds("the device that is leased is the one that is metered", component in metered, "yes", note=", ".join(metered)),
    ]
    if context.gpu:
        figures.append(holds("a second run on the device is refused", "is held by process" in said["run"], "yes"))
        figures += _foreign(context, said)
    return as_result(figures, component=component, said=said, metered=metered)


def _foreign(context: Context, said: dict[str, Any]) -> list[Figure]:
    """Let another process work on the GPU beside a window."""
    command = [sys.executable, "-c", FOREIGN_WORK, context.device, str(12 * context.scale)]
    with Ledger(discover("nvml")) as ledger, subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        other.stdout.readline()
        said["processes"] = {"driver": _running(context), "here": os.getpid()}
        began = time.monotonic()
        with ledger.window("beside") as window:
            time.sleep(6 * context.scale)  # the driver is asked at each checkpoint
        took = time.monotonic() - began
        said["contended"] = window.record.contended
        other.stdout.read()  # it ends
    seen = bool(window.record.contended and window.record.contended.get("foreign_gpu_pids"))
    return [
        holds("another process on the GPU is seen", seen, "yes", note="" if seen else "NVML may hide processes of other containers"),
        at_most("the window beside it, longer than its own sleep by", took - 6 * context.scale, 0.5, "s"),
    ]


def _running(context: Context) -> Any:
    """Return what the driver says of the processes on the GPU."""
    running = ask(pynvml.nvmlDeviceGetComputeRunningProcesses, Gpu.find(context.device).handle)
    return running if isinstance(running, str) else [process.pid for process in running]


def _ask(program: str, first: str, second: Path | str) -> str:
    done = subprocess.run([sys.executable, "-c", program, first, str(second)], capture_output=True, text=True, timeout=60, check=False)
    return done.stdout.strip() or done.stderr.strip()[-300:]
