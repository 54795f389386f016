"""Exclusive use of a device by one trial: two on one GPU would have an energy that belongs to neither."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from .forks import after_fork

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]  # not on Windows

#: Pause between two attempts to get a device.
RETRY_SECONDS = 0.05


class Lease:
    """A lock on an energy domain, e.g. ``gpu:GPU-1a2b`` or ``cpu``.

    The kernel holds the lock for the open file, so it ends with the process, however that ends. The files stay: removing one
    would let two processes lock two files of one name.

    Args:
        domain: Name of the component.
        folder: Where the lock files are, the same for all that compete; the run folder or one of the machine.
    """

    def __init__(self, domain: str, folder: Path) -> None:
        self.domain = domain
        self.path = folder / f"{domain.replace('/', '_').replace(':', '_')}.lock"
        self._fd = -1

    @property
    def held(self) -> bool:
        """Whether this object holds the lock."""
        return self._fd >= 0

    def acquire(self, wait_seconds: float = 0.0) -> bool:
        """Try to get the device; return whether it is ours now.

        Args:
            wait_seconds: How long to try; 0 for once.

        Raises:
            RuntimeError: On a system without file locks.
        """
        if fcntl is None:
            raise RuntimeError("device leases need fcntl file locks, which this system lacks: run one worker (--workers 1)")
        if self.held:
            return True
        self.path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        until = time.monotonic() + wait_seconds
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                if time.monotonic() >= until:
                    os.close(fd)
                    return False
                time.sleep(RETRY_SECONDS)
                continue
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
            self._fd = fd
            # A forked child would keep the lock of a parent that died: it closes its copy, which leaves the parent's lock alone.
            after_fork(self.release)
            return True

    def holder(self) -> int | None:
        """Return the process that wrote itself into the lock last, for messages."""
        with suppress(OSError, ValueError):
            return int(self.path.read_text())
        return None

    def release(self) -> None:
        """Give the device back; may be called twice."""
        if self.held:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Lease:
        """Get the device.

        Raises:
            RuntimeError: If another process holds it.
        """
        if not self.acquire():
            raise RuntimeError(f"{self.domain} is held by process {self.holder()}: wait for it, or give this trial another device")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Give the device back."""
        self.release()


def first_free(domains: Iterable[str], folder: Path) -> Lease | None:
    """Return a held lease on the first device that is free, or None."""
    for domain in domains:
        lease = Lease(domain, folder)
        if lease.acquire():
            return lease
    return None
