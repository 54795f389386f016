"""Loads of known size, for calibration and for comparing meters."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

#: Spins until its standard input closes, so it ends with its parent, however that ends. Its first output shows that it runs.
SPIN = (
    "import select, sys\n"
    "sys.stdout.write('.'); sys.stdout.flush()\n"
    "while not select.select([sys.stdin], [], [], 0)[0]:\n"
    "    for _ in range(50_000): pass\n"
)


@contextmanager
def busy_cores(count: int) -> Iterator[None]:
    """Keep `count` logical CPUs busy with one spinning process each; on entry all of them run.

    Raises:
        ValueError: `count` is negative.
    """
    if count < 0:
        raise ValueError(f"count must be >= 0, got {count}")
    pipe = subprocess.PIPE
    spinners = [subprocess.Popen([sys.executable, "-S", "-c", SPIN], stdin=pipe, stdout=pipe) for _ in range(count)]
    try:
        for spinner in spinners:
            assert spinner.stdout is not None
            spinner.stdout.read(1)
        yield
    finally:
        for spinner in spinners:
            assert spinner.stdin is not None
            assert spinner.stdout is not None
            spinner.stdin.close()
        for spinner in spinners:
            spinner.wait()
            spinner.stdout.close()  # type: ignore[union-attr]  # opened with a pipe


def machine_busy_seconds(stat: Path = Path("/proc/stat")) -> float:
    """Return the CPU-seconds that all CPUs of the machine have spent on work since the boot.

    User, nice, system, interrupts and soft interrupts count; idle, waiting for I/O and stolen time do not. Guests are in user already.

    Raises:
        OSError: The machine has no ``/proc/stat`` (macOS, Windows).

    Source: proc_stat(5).
    """
    fields = stat.read_text().split("\n", 1)[0].split()
    user, nice, system, _, _, irq, softirq = (int(field) for field in fields[1:8])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def spin(seconds: float, clock: Callable[[], float] = time.monotonic) -> int:
    """Keep this thread busy for a while and return how many rounds it made."""
    until, rounds = clock() + seconds, 0
    while clock() < until:
        for _ in range(10_000):
            pass
        rounds += 1
    return rounds


def gpu_matmul(seconds: float, *, size: int = 4096) -> str | None:
    """Multiply matrices on the first CUDA device for a while; return its name, or None without a device."""
    try:
        import torch
    except ImportError:
        return None
    if not torch.cuda.is_available():
        return None
    a: Any = torch.randn(size, size, device="cuda")
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for _ in range(8):
            a = (a @ a) * (1 / size)  # keeps the numbers finite
        torch.cuda.synchronize()
    return str(torch.cuda.get_device_name(0))
