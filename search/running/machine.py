"""What this machine offers to a run: cores, devices, executors."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from ..executors.executor import Executor
from ..study import Study
from ..threads import warn_of_spinning
from ..training.task import Task


def cores() -> int:
    """Number of processor cores that trainings may use: those of this process, or fewer when ``OMP_NUM_THREADS`` says so."""
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    said = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()  # a list is for nested teams: the outermost counts
    return min(here, int(said)) if said.isdecimal() and int(said) > 0 else here


def pick_device(device: str) -> str:
    """Resolve ``auto`` and refuse a device that is not there.

    Raises:
        ValueError: If the device is unknown or absent.
    """
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        named = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"--device must be auto, cpu, cuda or cuda:N, got {device!r}") from error
    if named.type not in ("cpu", "cuda"):
        raise ValueError(f"--device must be auto, cpu, cuda or cuda:N, got {device!r}: nothing here measures a {named.type} device")
    if named.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"--device {device}: no CUDA device here; use --device cpu, or install a driver and a CUDA build of torch")
    if named.type == "cuda" and (named.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"--device {device}: there are {torch.cuda.device_count()} CUDA devices, numbered from 0")
    return device


def make_executors(study: Study, task: Task, devices: Sequence[str]) -> list[Executor]:
    """One executor a device: this process itself for a single one, or processes of their own."""
    from ..executors.executor import InProcess

    if len(devices) == 1:
        return [InProcess(study.space, task)]
    from ..executors.process import WorkerProcess

    return [WorkerProcess(study, device) for device in devices]


def synchronizer(device: str) -> Callable[[], object] | None:
    """Wait for queued work at the edges of windows; worker processes wait for their own."""
    if not device.startswith("cuda"):
        return None
    import torch

    return lambda: torch.cuda.synchronize(device)


def torch_threads(threads: int) -> None:
    """Pin the number of threads: it changes results at an equal seed, and more threads than cores wait for each other."""
    import torch

    warn_of_spinning(threads)
    torch.set_num_threads(threads)
