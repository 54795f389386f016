"""An account of a GPU's energy that owes nothing to the project: plain NVML calls, a recorder beside the ledger, and loads.

Only the file format of the traces is the project's own, so that they can be played again.
"""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pynvml

from joulefront.search.energy.sources.replay import Trace, read_traces, save_traces

#: File of the traces in the output folder, and how large it may become.
TRACES, TRACES_BYTES = "traces.json", 200_000
#: Bytes of one reading in that file, roughly: time, joules and watts.
READING_BYTES = 40
#: Pause between two readings: far below every refresh that was seen anywhere (10 to 100 ms).
READ_EVERY_SECONDS = 0.002
#: Scopes of a power field. Source: nvml.h, NVML_POWER_SCOPE_GPU, _MODULE, _MEMORY (the whole module on GH200 and GB200).
SCOPES = {0: "gpu", 1: "module", 2: "memory"}


@dataclass(frozen=True)
class Gpu:
    """The GPU under test.

    Attributes:
        handle: NVML's handle.
        uuid: ``GPU-...``.
    """

    handle: Any
    uuid: str

    @classmethod
    def find(cls, device: str) -> Gpu:
        """Return the GPU behind a PyTorch device; for ``cpu`` the driver's first one.

        By UUID, never by index: CUDA orders GPUs by speed, NVML by bus. Call ``pynvml.nvmlInit`` before.
        """
        if device.startswith("cuda"):
            import torch

            found = str(torch.cuda.get_device_properties(device).uuid)
            uuid = found if found.startswith("GPU-") else f"GPU-{found}"
            return cls(pynvml.nvmlDeviceGetHandleByUUID(uuid.encode()), uuid)
        handle = pynvml.nvmlDeviceGetHandleByIndex(0)
        return cls(handle, str(pynvml.nvmlDeviceGetUUID(handle)))

    def counter(self) -> float | None:
        """Return the joules of the energy counter, or None without one."""
        found = ask(pynvml.nvmlDeviceGetTotalEnergyConsumption, self.handle)
        return found / 1000 if isinstance(found, int) else None

    def field(self, number: int, scope: int = 0) -> int | None:
        """Return the raw value of a field (milliwatts or millijoules) in one scope, or None where the driver has none."""
        values = ask(pynvml.nvmlDeviceGetFieldValues, self.handle, [(number, scope)])
        if isinstance(values, str) or values[0].nvmlReturn != pynvml.NVML_SUCCESS:
            return None
        value = values[0].value
        return int(value.ullVal if values[0].valueType == pynvml.NVML_VALUE_TYPE_UNSIGNED_LONG_LONG else value.uiVal)

    def watts(self) -> float | None:
        """Return the instant power, or None without it."""
        milliwatts = self.field(pynvml.NVML_FI_DEV_POWER_INSTANT)
        return None if milliwatts is None else milliwatts / 1000


def ask(call: Callable[..., Any], *arguments: Any) -> Any:
    """Return what a call of NVML gives, or the error as text."""
    try:
        return call(*arguments)
    except pynvml.NVMLError as error:
        return f"{type(error).__name__}: {error}"


class Recorder(threading.Thread):
    """Reads counter and instant power as fast as the driver answers, from ``__enter__`` to ``__exit__``.

    Attributes:
        t_ns: Instants of the readings on the monotonic clock, shape ``(n,)``.
        joules: The counter, shape ``(n,)``, NaN where it gave nothing.
        watts: The instant power, shape ``(n,)``, NaN where it gave nothing.
    """

    def __init__(self, gpu: Gpu, margin_seconds: float = 0.5) -> None:
        super().__init__(daemon=True)
        self._gpu, self._margin, self._over = gpu, margin_seconds, threading.Event()
        self._rows: list[tuple[int, float, float]] = []
        self.t_ns = np.zeros(0, np.int64)
        self.joules = self.watts = np.zeros(0)

    def run(self) -> None:
        """Read until told otherwise."""
        while not self._over.wait(READ_EVERY_SECONDS):
            before = time.monotonic_ns()
            joules, watts = self._gpu.counter(), self._gpu.watts()
            middle = (before + time.monotonic_ns()) // 2
            self._rows.append((middle, math.nan if joules is None else joules, math.nan if watts is None else watts))

    def __enter__(self) -> Recorder:
        """Start, and let some refreshes pass."""
        self.start()
        time.sleep(self._margin)
        return self

    def __exit__(self, *_: object) -> None:
        """Let some refreshes pass, then end."""
        time.sleep(self._margin)
        self._over.set()
        self.join()
        times, joules, watts = zip(*self._rows, strict=True)
        self.t_ns, self.joules, self.watts = np.array(times, np.int64), np.array(joules), np.array(watts)

    def changes(self, values: np.ndarray) -> np.ndarray:
        """Return where a value is another one than in the reading before, indices of shape ``(m,)``."""
        known = np.flatnonzero(~np.isnan(values))
        return known[1:][np.diff(values[known]) != 0]

    def periods(self, values: np.ndarray) -> np.ndarray:
        """Return the seconds from each change of a value to the next one."""
        return np.diff(self.t_ns[self.changes(values)]) / 1e9

    def counted_joules(self, t0_ns: int, t1_ns: int) -> float | None:
        """Return the counter's energy between two instants, straight between its changes; None without a change on each side."""
        at = self.changes(self.joules)
        if len(at) < 2 or not self.t_ns[at[0]] <= t0_ns < t1_ns <= self.t_ns[at[-1]]:
            return None
        first, last = np.interp([t0_ns, t1_ns], self.t_ns[at].astype(float), self.joules[at])
        return float(last - first)

    def integrated_joules(self, t0_ns: int, t1_ns: int) -> float | None:
        """Return the integral of the instant power between two instants, held until the next reading."""
        known = ~np.isnan(self.watts)
        times, watts = self.t_ns[known], self.watts[known]
        if len(times) < 2:
            return None
        inside = (times > t0_ns) & (times < t1_ns)
        before = watts[max(int(np.searchsorted(times, t0_ns, side="right")) - 1, 0)]
        steps = np.diff(np.r_[t0_ns, times[inside], t1_ns]) / 1e9
        return float(np.sum(steps * np.r_[before, watts[inside]]))

    def trace(self, name: str, boundary: str, readings: int) -> Trace | None:
        """Return the recording with at most so many readings: those around each change, so that steps stay steps."""
        if np.isnan(self.joules).all() or np.isnan(self.watts).any():
            return None
        at = np.union1d(self.changes(self.joules), self.changes(self.watts))
        kept = np.unique(np.r_[0, at - 1, at, len(self.t_ns) - 1]) if len(at) else np.array([0, len(self.t_ns) - 1])
        while len(kept) > readings:
            kept = np.unique(np.r_[kept[::2], kept[-1]])
        t_ns = tuple(int(t) for t in self.t_ns[kept] - self.t_ns[0])
        joules = tuple(round(float(j - self.joules[0]), 3) for j in self.joules[kept])
        return Trace(f"gpu:{name}", t_ns, joules, tuple(round(float(w), 3) for w in self.watts[kept]), boundary=boundary)


def add_trace(folder: Path, trace: Trace | None) -> None:
    """Add a trace to those of a folder; one of the same name is replaced, and one that would make the file too large is left out."""
    path = folder / TRACES
    kept = [old for old in (read_traces(path) if path.is_file() else ()) if trace is None or old.component != trace.component]
    chosen = [*kept, *([] if trace is None else [trace])]
    if len(json.dumps([vars(one) for one in chosen])) < TRACES_BYTES:
        save_traces(path, chosen)


def readings_for(traces: int) -> int:
    """Return how many readings each of so many traces may have."""
    return TRACES_BYTES // READING_BYTES // traces


def driver_curve(trace: Trace) -> tuple[list[float], list[float]]:
    """Return a trace as the fake driver plays it: seconds from its start, and watts, straight between them.

    Raises:
        ValueError: If the trace has no power.
    """
    if trace.watts is None:
        raise ValueError(f"trace of {trace.component} must have watts to be played by the fake driver, got none; record the instant power")
    return [(t - trace.t_ns[0]) / 1e9 for t in trace.t_ns], list(trace.watts)


class Load(Protocol):
    """Work for the GPU under test."""

    def steady(self, kind: str, seconds: float) -> tuple[int, int]:
        """Work without a pause (``compute``, ``memory``) or rest (``idle``); return the instants of the first and the last work."""
        ...

    def pulsed(self, seconds: float, period_seconds: float, duty: float = 0.5) -> None:
        """Compute in pulses."""
        ...

    def synchronize(self) -> None:
        """Wait for the work that is queued."""
        ...

    def enqueue(self, steps: int) -> None:
        """Queue so many steps of computing without waiting for them."""
        ...


class TorchLoad:
    """Products and copies of large tensors.

    Args:
        device: PyTorch device; on a CPU the tensors are small, which tries the program and loads no GPU.
    """

    def __init__(self, device: str) -> None:
        import torch

        gpu = device.startswith("cuda")
        size, dtype = (8192, torch.bfloat16) if gpu else (192, torch.float32)
        self._torch, self._device, self._gpu = torch, device, gpu
        self._a, self._b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
        self._c = torch.empty_like(self._a)
        self._from = torch.zeros(1 << (29 if gpu else 20), dtype=torch.uint8, device=device)
        self._to = torch.empty_like(self._from)
        for kind in ("compute", "memory"):  # libraries and contexts start with their first work
            self._step(kind)
        self.synchronize()

    def _step(self, kind: str) -> None:
        if kind == "compute":
            self._torch.mm(self._a, self._b, out=self._c)
        elif kind == "memory":
            self._to.copy_(self._from)
        else:
            time.sleep(READ_EVERY_SECONDS)

    def steady(self, kind: str, seconds: float) -> tuple[int, int]:
        """See ``Load``; the queue is never longer than two steps."""
        self.synchronize()
        begin = time.monotonic_ns()
        while time.monotonic_ns() < begin + seconds * 1e9:
            self._step(kind)
            self._step(kind)
            self.synchronize()
        return begin, time.monotonic_ns()

    def pulsed(self, seconds: float, period_seconds: float, duty: float = 0.5) -> None:
        """See ``Load``."""
        begin = time.monotonic()
        while (passed := time.monotonic() - begin) < seconds:
            if passed % period_seconds < duty * period_seconds:
                self._step("compute")
                self.synchronize()
            else:
                time.sleep(min(0.001, period_seconds / 20))

    def synchronize(self) -> None:
        """See ``Load``."""
        if self._gpu:
            self._torch.cuda.synchronize(self._device)

    def enqueue(self, steps: int) -> None:
        """See ``Load``."""
        for _ in range(steps):
            self._step("compute")


def percentiles(values: Sequence[float] | np.ndarray) -> dict[str, float] | None:
    """Return the 5th, 50th, 95th percentile and the largest of some values; None of fewer than three."""
    if len(values) < 3:
        return None
    return {name: float(np.percentile(values, q)) for name, q in (("p5", 5), ("p50", 50), ("p95", 95), ("max", 100))}
