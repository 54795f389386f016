"""Which device each worker trains on, held for this run alone: two trainings on one GPU have an energy that belongs to neither."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from ..energy.lease import Lease, leases_folder
from .process import gpu_components


class DeviceError(RuntimeError):
    """Too few GPUs are free; the message says who holds them and what to do."""


@dataclass(frozen=True)
class Devices:
    """The devices of a run, one a worker; they are given back at the end, and by the kernel when the process dies.

    Attributes:
        names: PyTorch devices, one a worker.
        environment: Variables that show the meters this run's GPUs only, where the machine has others; None for the process's own.
            What somebody else's GPU draws is on somebody else's bill.
        leases: What is held; nothing on a machine without a GPU.
    """

    names: tuple[str, ...]
    environment: Mapping[str, str] | None = None
    leases: tuple[Lease, ...] = field(default=(), repr=False)

    def __enter__(self) -> Devices:
        """Return itself: it holds the devices already."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Give the devices back."""
        for lease in self.leases:
            lease.release()


def take_devices(
    device: str,
    workers: int,
    *,
    folder: Path | None = None,
    count: Callable[[], int] | None = None,
    components: Callable[[str], Sequence[str]] = gpu_components,
) -> Devices:
    """Take a GPU for each worker, the first ones that nobody holds; a CPU is shared and taken from nobody.

    Args:
        device: ``cpu``, ``cuda`` for any GPU or ``cuda:1`` for that one.
        workers: How many are needed.
        folder: Where the leases are; the machine's own folder by default.
        count: Tells the number of GPUs; PyTorch by default.
        components: Tells the ledger's name of a device.

    Raises:
        ValueError: If there are fewer GPUs than workers.
        DeviceError: If others hold them.
    """
    if not device.startswith("cuda"):
        return Devices((device,) * workers)
    there = _gpus() if count is None else count()
    if workers > there:
        raise ValueError(f"--workers {workers}: there are {there} CUDA devices, and two trainings on one cannot be told apart")
    given = device.removeprefix("cuda:") if workers == 1 else ""
    numbers = [int(given)] if given.isdigit() else list(range(there))
    taken: dict[int, Lease] = {}
    held: list[str] = []
    with ExitStack() as back:
        for number in numbers:
            (component,) = components(f"cuda:{number}")
            lease = Lease(component, folder or leases_folder())
            if len(taken) < workers:
                if lease.acquire():
                    back.callback(lease.release)
                    taken[number] = lease
                else:
                    held.append(f"cuda:{number}: {lease.describe()}")
        if len(taken) < workers:
            raise DeviceError(_message(device, workers, len(taken), held, there > len(held)))
        back.pop_all()
    names = tuple(device if workers == 1 and (given.isdigit() or number == 0) else f"cuda:{number}" for number in taken)
    return Devices(names, _shown(tuple(taken.values()), there), tuple(taken.values()))


def _message(device: str, workers: int, free: int, held: Sequence[str], others: bool) -> str:
    asked = f"--device {device}" if workers == 1 else f"--workers {workers}"
    ways = ["wait for its end"]
    if workers > 1 and free:
        ways.append(f"take --workers {free}")
    elif workers == 1 and others:
        ways.append("take --device cuda for a GPU that is free")
    return f"{asked}: {'; '.join(held)}. Two trainings on one GPU cannot be told apart: {', '.join(ways)} or take --device cpu"


def _shown(leases: Sequence[Lease], there: int) -> dict[str, str] | None:
    """Show the meters the held GPUs; all of them, or instances of one (MIG), need no choice."""
    if len(leases) == there or "MIG-" in os.environ.get("CUDA_VISIBLE_DEVICES", ""):
        return None
    return {"CUDA_VISIBLE_DEVICES": ",".join(lease.domain.removeprefix("gpu:") for lease in leases)}


def _gpus() -> int:
    import torch

    return torch.cuda.device_count()
