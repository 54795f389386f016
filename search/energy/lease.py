"""Exclusive use of a device by one trial: two on one GPU would have an energy that belongs to neither."""

from __future__ import annotations

import os
import tempfile
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

from .safety import after_fork

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]  # not on Windows

#: Pause between two attempts to get a device.
RETRY_SECONDS = 0.05
#: Where the locks of a machine's devices are, for all users: folder and files are open to everybody.
FOLDER = "joulefront-leases"


def leases_folder() -> Path:
    """Return the folder of this machine's leases; it is made by the first one."""
    return Path(tempfile.gettempdir()) / FOLDER


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
        fd = self._opened()
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
            os.pwrite(fd, f"{os.getpid()}\n{datetime.now(UTC).isoformat(timespec='seconds')}\n".encode(), 0)
            self._fd = fd
            # A forked child would keep the lock of a parent that died: it closes its copy, which leaves the parent's lock alone.
            after_fork(self.release)
            return True

    def _opened(self) -> int:
        with suppress(FileExistsError):
            self.path.parent.mkdir(parents=True)
            self.path.parent.chmod(0o1777)  # mkdir's own mode is cut by the umask
        while True:
            # First without O_CREAT: in a folder like /tmp Linux refuses it for a file of another user (fs.protected_regular).
            with suppress(FileNotFoundError):
                return os.open(self.path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            with suppress(FileExistsError):
                fd = os.open(self.path, os.O_RDWR | os.O_CLOEXEC | os.O_CREAT | os.O_EXCL, 0o666)
                os.fchmod(fd, 0o666)
                return fd

    def holder(self) -> int | None:
        """Return the process that wrote itself into the lock last, for messages."""
        with suppress(OSError, ValueError, IndexError):
            return int(self.path.read_text().split()[0])
        return None

    def describe(self) -> str:
        """Say who holds the lock, and since when."""
        words = self.path.read_text().split() if self.path.exists() else []
        return f"{self.domain} is held by process {words[0]} since {words[1]}" if len(words) > 1 else f"{self.domain} is held"

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
            raise RuntimeError(f"{self.describe()}: wait for it, or give this trial another device")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Give the device back."""
        self.release()
