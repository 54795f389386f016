"""What a device can be set to, and how to wait for it: threads, precisions, autocast, synchronisation."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def available_cores() -> int:
    """Number of CPU cores that this process may use, which can be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def thread_choices(cores: int | None = None) -> tuple[int, ...]:
    """Thread counts worth comparing: the powers of two below the number of cores, and that number.

    >>> thread_choices(6)
    (1, 2, 4, 6)
    """
    most = available_cores() if cores is None else cores
    return tuple(sorted({2**power for power in range(most.bit_length()) if 2**power <= most} | {most}))


def available_precisions(device: torch.device | str) -> tuple[str, ...]:
    """Precisions that the device computes in natively.

    A CPU is listed with ``bfloat16``, which PyTorch supports on every CPU; without AVX-512 BF16 or AMX it is emulated and slower than
    ``float32``, which the measured energy then shows. ``float16`` on a CPU is left out: its small range needs a loss scaler, which saves
    nothing there.
    """
    import torch

    kind = torch.device(device)
    if kind.type == "cpu":
        return ("float32", "bfloat16")
    if kind.type == "cuda":
        major, minor = torch.cuda.get_device_capability(kind)
        # NVIDIA CUDA programming guide, arithmetic instructions: fast float16 from compute capability 5.3, bfloat16 from 8.0
        half = ("float16",) if (major, minor) >= (5, 3) else ()
        return ("float32", *(("bfloat16",) if major >= 8 else ()), *half)
    if kind.type == "mps":
        return ("float32", "float16")
    return ("float32",)


def require_precision(precision: str, device: torch.device | str) -> None:
    """Raise ValueError for a precision that the device would have to emulate."""
    have = available_precisions(device)
    if precision not in have:
        raise ValueError(f"recipe.precision must be one that {device} computes in natively ({', '.join(have)}), got {precision!r}")


def autocast(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """Return the context in which the model runs, or raise ValueError if the device cannot compute in that precision."""
    if precision == "float32":
        return nullcontext()
    import torch

    if precision == "bfloat16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        name = torch.cuda.get_device_name(device)
        raise ValueError(f"recipe.precision must be one that {name} supports, got 'bfloat16'; use 'float16' or 'float32'")
    return torch.autocast(device.type, dtype=getattr(torch, precision))


def synchronizer(device: str) -> Callable[[], object] | None:
    """Return a function that waits for the queued work of a CUDA device; None for a CPU, which queues nothing."""
    if not device.startswith("cuda"):
        return None
    import torch

    return lambda: torch.cuda.synchronize(device)
