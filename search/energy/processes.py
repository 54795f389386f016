"""CPU-seconds: of this process with all its children, and of the whole machine."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]  # not on Windows

PROC = Path("/proc")
#: /proc counts CPU time in steps of this many seconds.
STEP = 1.0 / os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 0.01


class Tree:
    """CPU-seconds of this process, of its children that ended and of those that live.

    What a child used moves from ``/proc`` to ``RUSAGE_CHILDREN`` when it is waited for, so the sum does not depend on how long
    children live. The result never falls: a child that somebody else reaped keeps what it was last seen with.
    """

    def __init__(self, proc: Path = PROC) -> None:
        self._proc = str(proc)
        self._lock = threading.Lock()
        self._most = 0.0

    def seconds(self) -> float:
        """Return user and system time so far."""
        own = _own_and_ended()
        alive = self._alive(os.getpid(), 0) if _has_children() else 0.0
        with self._lock:
            self._most = max(self._most, own + alive)
            return self._most

    def _alive(self, pid: int, depth: int) -> float:
        """Return the CPU-seconds of the living descendants of a process, with what those collected from theirs."""
        if depth > 16:
            return 0.0
        total = 0.0
        for child in children(pid, self._proc):
            fields = stat_fields(child, self._proc)
            if fields is not None:
                # utime, stime, cutime, cstime: proc_pid_stat(5), fields 14 to 17
                total += sum(int(field) for field in fields[11:15]) * STEP
                total += self._alive(child, depth + 1)
        return total

    def __contains__(self, pid: int) -> bool:
        """Whether a process is this one or descends from it."""
        own = os.getpid()
        for _ in range(64):
            if pid == own:
                return True
            fields = stat_fields(pid, self._proc)
            if fields is None or pid <= 1:
                return False
            pid = int(fields[1])
        return False


class Machine:
    """CPU-seconds of the whole machine.

    Args:
        proc: The process file system.
    """

    def __init__(self, proc: Path = PROC) -> None:
        self._path = str(proc / "stat")

    def seconds(self) -> float | None:
        """Return the time that all CPUs were busy since boot, or None where the system does not say."""
        try:
            handle = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                fields = os.read(handle, 512).split(b"\n", 1)[0].split()
            finally:
                os.close(handle)
        except OSError:
            return None
        if len(fields) < 8 or fields[0] != b"cpu":
            return None
        # user nice system idle iowait irq softirq steal; guest time is part of user. Idle, waiting and stolen time is nobody's work.
        user, nice, system, _, _, irq, softirq = (int(field) for field in fields[1:8])
        return (user + nice + system + irq + softirq) * STEP


def children(pid: int, proc: str = "/proc") -> list[int]:
    """Return the living children of a process."""
    found: list[int] = []
    try:
        for task in os.listdir(f"{proc}/{pid}/task"):
            with open(f"{proc}/{pid}/task/{task}/children", "rb", buffering=0) as file:
                found += [int(child) for child in file.read(65536).split()]
    except OSError:
        pass  # the process or one of its threads has just ended, or the kernel does not list children
    return found


def stat_fields(pid: int, proc: str = "/proc") -> list[bytes] | None:
    """Return the fields of ``/proc/PID/stat`` after the command's name, or None for a process that is gone."""
    try:
        with open(f"{proc}/{pid}/stat", "rb", buffering=0) as file:
            return file.read(2048).rpartition(b")")[2].split()
    except OSError:
        return None


def _own_and_ended() -> float:
    if resource is None:
        times = os.times()
        return times.user + times.system + times.children_user + times.children_system
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + ended.ru_utime + ended.ru_stime


def _has_children() -> bool:
    """Ask the kernel in one call whether there is any child to look for; looking costs a hundred times as much."""
    if not hasattr(os, "waitid"):
        return False
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except OSError:
        return False
    return True
