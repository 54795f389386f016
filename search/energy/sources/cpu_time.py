"""CPU-seconds of this process with all its children and of the whole machine, and the energy they stand for where no meter can be read."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from .cpu_coefficients import DEFAULT, PROC, CpuCoefficients, Draw
from .source import LINUX, NANO, Capability, Clock, Reading

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]  # not on Windows

#: /proc counts CPU time in steps of this many seconds.
STEP = 1.0 / os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 0.01
#: The kernel adds up the time of a thread that runs on another CPU at its timer ticks, this many seconds apart at most.
#: The resolution of CLOCK_MONOTONIC_COARSE (6) is one tick. Source: clock_getres(2).
TICK = time.clock_getres(6) if LINUX else STEP
#: What restricts the estimate on a system that does not list a process's children, as macOS and Windows do not.
BLIND = "this system does not show what living child processes use: it comes when they end, on Windows never"
#: How the reason of an estimate begins, and what follows the watts of a busy CPU.
ESTIMATED, PER_SECOND = "estimated: ", "per CPU-second above idle"


def thread_clock(thread: int) -> float | None:
    """Return what a thread of this process used until now; None when it has ended, or only itself could tell."""
    if thread == threading.get_native_id():
        return time.thread_time()
    if LINUX:
        with suppress(OSError):
            return time.clock_gettime(~thread << 3 | 6)  # see `process_clock`
    return None


def process_clock(pid: int) -> float | None:
    """Return what all threads of another process used, in steps of a nanosecond, or None where the system does not report it.

    Source: Linux, include/linux/posix-timers_types.h: a clock id is the inverted process id, shifted by three, and 2 for the scheduler's
    time, with 4 besides for one thread. It needs no right, and a tenth of the time that reading /proc takes.
    """
    if not LINUX:
        return None
    try:
        return time.clock_gettime(~pid << 3 | 2)
    except OSError:
        return None


class Threads:
    """The threads of this process, whose clocks bring its own up to now.

    The process's clock adds up what its threads have used by the last tick. Asking a thread's own clock brings its time up to now.
    """

    def __init__(self, proc: str) -> None:
        self._path = f"{proc}/self/task"
        self._clocks: list[int] = []
        self._links = 0

    def update(self) -> None:
        """Ask the clock of every thread."""
        if not LINUX:
            return
        try:
            # A folder has two links, and this one another for each thread: while their number stays and all answer, they are the same.
            if (links := os.stat(self._path).st_nlink) == self._links:
                for clock in self._clocks:
                    time.clock_gettime_ns(clock)
                return
        except OSError:
            links = 0  # one has ended, and another may have begun
        clocks = []
        with suppress(OSError):
            for thread in os.listdir(self._path):
                with suppress(OSError):  # it has just ended
                    clock = ~int(thread) << 3 | 6
                    time.clock_gettime_ns(clock)
                    clocks.append(clock)
        self._clocks, self._links = clocks, links if links == len(clocks) + 2 else 0


class CpuUse(NamedTuple):
    """CPU-seconds at one instant.

    Attributes:
        seconds: User and system time so far.
        late_seconds: A child's work may appear this much later than it was done; 0.0 when no child lives: then it is exact.
    """

    seconds: float
    late_seconds: float


@dataclass(slots=True)
class _Process:
    """A living descendant: when it began, what it used itself, what it collected from its own children that ended; whose work it is.

    ``thread`` is that of this process which started it, or the process above it.
    """

    start: bytes
    used: float
    collected: float
    exact: bool
    thread: int


class Tree:
    """CPU-seconds of this process, of its children that ended and of those that live.

    What a child used moves to its parent when it is waited for, so the sum does not depend on how long children live. Some is never
    handed over: ``SIGCHLD`` is ignored, or the parent died first. It stays counted as far as it was seen, and work after
    it counts as before. A worker that outlives its parent is followed further, unless the parent ended between two readings.
    """

    def __init__(self, proc: Path = PROC) -> None:
        self._proc = str(proc)
        self._lock = threading.RLock()
        self._counting = False
        self._last = CpuUse(0.0, 0.0)
        self._own = self._ended = 0.0
        self._living: dict[int, _Process] = {}
        self._followed: set[int] = set()
        self._started: dict[int, float] = {}
        self._owed = 0.0  # seconds of children that are gone and whose parents have not shown them yet
        self._threads = Threads(self._proc)

    def seconds(self) -> float:
        """Return user and system time so far; it never falls."""
        return self.read().seconds

    @property
    def lists_children(self) -> bool:
        """Whether the system shows which children live, so that what they use is seen before they end."""
        return os.path.exists(f"{self._proc}/self/task/{threading.get_native_id()}/children")

    def follow(self, pid: int) -> None:
        """Count a process, with all that it has used and will use, and its children, as if this one had started it."""
        with self._lock:
            self._followed.add(pid)

    def read(self, *, exact: bool = True) -> CpuUse:
        """Return user and system time so far, and how late it may be; ``exact`` brings this process's own threads up to now."""
        with self._lock:
            if not self._counting:  # otherwise a signal handler reads in the middle of a count
                self._counting = True
                try:
                    self._last = self._count(exact)
                finally:
                    self._counting = False
            return self._last

    def thread_seconds(self, thread: int, own: float | None = None) -> float | None:
        """Return what a thread of this process used, and what the children that it started were seen to use while they lived.

        ``thread`` is its native id; ``own`` what it used itself, where that was read just before `read`. None when it has ended, and where
        the system tells a thread's time to itself only.
        """
        if own is None and (own := thread_clock(thread)) is not None and (self._living or _has_children()):
            self.read(exact=False)
        return None if own is None else own + self._started.get(thread, 0.0)

    def _count(self, exact: bool) -> CpuUse:
        # What was collected is read before the children that may hand it over: one that ends in between is then missing for a
        # moment, and never there twice.
        ended = _ended_seconds()
        living = self._walk() if self._living or self._followed or _has_children() else {}
        if exact:
            self._threads.update()
        own = max(time.process_time(), self._own)
        gained, collected = own - self._own, max(ended - self._ended, 0.0)
        gone = dict(self._living)
        for pid, process in living.items():
            before = self._living.get(pid)
            if before is not None and before.start == process.start:
                del gone[pid]
            else:
                before = _Process(process.start, 0.0, 0.0, process.exact, process.thread)
            gained += process.used - before.used
            collected += process.collected - before.collected
            self._started[process.thread] = self._started.get(process.thread, 0.0) + process.used - before.used
        lost = sum(process.used + process.collected for process in gone.values())
        coarse = sum(not process.exact or process.collected > 0 for process in living.values())
        balance = collected - self._owed - lost
        # A debt is paid at the next count or never, but for what the steps of /proc hide: user and system time of each process.
        self._owed = min(max(-balance, 0.0), lost + 2 * STEP * coarse)
        self._own, self._ended, self._living = own, max(ended, self._ended), living
        late = (TICK if living or not exact else 0.0) + (2 * STEP if coarse else 0.0)
        return CpuUse(self._last.seconds + gained + max(balance, 0.0), late)

    def _walk(self) -> dict[int, _Process]:
        """Return the living descendants, and those seen before whose parents are gone, with theirs."""
        found: dict[int, _Process] = {}
        waiting = [*((pid, 0) for pid in self._followed), *children(os.getpid(), self._proc).items()]
        orphans = list(self._living)
        while waiting or orphans:
            known = not waiting
            pid, thread = (orphans.pop(), 0) if known else waiting.pop()
            fields = None if pid in found else stat_fields(pid, self._proc)
            if fields is None or len(fields) < 20:
                self._followed -= {pid} if fields is None and pid not in found else set()  # another process may get its number
                continue
            before = self._living.get(pid)
            if before is not None and before.start != fields[19]:
                before = None  # the number was given to another process
            if known and before is None:
                continue
            # utime, stime, cutime, cstime, starttime: proc_pid_stat(5), fields 14 to 17 and 22
            user, system, ended_user, ended_system = (int(field) * STEP for field in fields[11:15])
            clock = process_clock(pid)
            used, collected = user + system if clock is None else clock, ended_user + ended_system
            if before is not None:
                used, collected, thread = max(used, before.used), max(collected, before.collected), before.thread
            found[pid] = _Process(fields[19], used, collected, clock is not None, thread)
            waiting += [(child, thread) for child in children(pid, self._proc)]
        return found

    def __contains__(self, pid: int) -> bool:
        """Whether a process is this one or descends from it."""
        own = os.getpid()
        for _ in range(64):
            if pid == own or pid in self._living:
                return True
            fields = stat_fields(pid, self._proc)
            if fields is None or pid <= 1:
                return False
            pid = int(fields[1])
        return False


def process_seconds(pid: int) -> float | None:
    """Return user and system time of one process and of its children that ended; None when it is gone, or the system does not report it."""
    fields = stat_fields(pid, str(PROC))
    return None if fields is None or len(fields) < 20 else sum(int(field) for field in fields[11:15]) * STEP


class Machine:
    """CPU-seconds of the whole machine."""

    def __init__(self, proc: Path = PROC) -> None:
        self._path = str(proc / "stat")

    def seconds(self) -> float | None:
        """Return the time that all CPUs were busy since boot, or None where the system does not report it."""
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


def children(pid: int, proc: str = "/proc") -> dict[int, int]:
    """Return the living children of a process, each with the thread that started it."""
    found: dict[int, int] = {}
    try:
        for task in os.listdir(f"{proc}/{pid}/task"):
            with open(f"{proc}/{pid}/task/{task}/children", "rb", buffering=0) as file:
                found.update((int(child), int(task)) for child in file.read(65536).split())
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


def _ended_seconds() -> float:
    if resource is None:
        times = os.times()
        return times.children_user + times.children_system
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return ended.ru_utime + ended.ru_stime


def _has_children() -> bool:
    """Ask the kernel in one call whether there is any child to look for; a walk costs a hundred times as much."""
    if not hasattr(os, "waitid"):
        return False
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except OSError:
        return False
    return True


class CpuTime:
    """CPU-seconds of the process tree times watts.

    ``cpu`` is the energy above idle that this process and its children caused: background load changes nothing, and windows of one
    machine compare by the work they did. What the machine draws whatever runs belongs to nobody's work; where it is calibrated or among
    ``standing`` it is a line of its own, ``cpu:idle`` or ``dram``, outside of the sum.

    This process's own CPU-seconds are exact to a nanosecond. Those of a living child may show up a tick of the kernel later (1 to 10 ms),
    and those of its own ended children 20 ms later; the uncertainty of each reading says so.
    """

    name = "cpu_time"

    def __init__(
        self,
        coefficients: CpuCoefficients = DEFAULT,
        clock: Clock = time.monotonic_ns,
        tree: Tree | None = None,
        standing: Iterable[Draw] = (),
    ) -> None:
        self.coefficients = known = coefficients
        self._standing = {draw.component: draw for draw in standing}
        if known.idle_watts is not None:
            self._standing["cpu:idle"] = Draw("cpu:idle", known.idle_watts, f"while the clock runs ({known.origin})", known.gain_u)
        self._clock = clock
        self.tree = tree or Tree()
        #: When the CPU-seconds were last read exactly, and how many there were.
        self.counted: tuple[int, float] | None = None
        self._begin_ns = clock()

    def probe(self) -> tuple[Capability, ...]:
        """Return the estimate, and a line for each power that is drawn whatever runs."""
        known, boundary = self.coefficients, "CPU above idle, this process and its children, by CPU-seconds"
        blind = f"; {BLIND}" if isinstance(self.tree, Tree) and not self.tree.lists_children else ""
        work = Draw("cpu", known.core_watts, f"{PER_SECOND} ({known.origin}){blind}", known.gain_u, boundary)
        return tuple(
            Capability(
                draw.component,
                self.name,
                True,
                "estimated",
                draw.boundary,
                f"{ESTIMATED}{draw.watts:.3g} W {draw.reason}",
                tick_seconds=0.0,
                resolution_joules=draw.watts * 1e-6,
                gain_u=draw.gain_u,
                counts=draw is work,
            )
            for draw in (work, *self._standing.values())
        )

    def read(self) -> tuple[Reading, ...]:
        """Return the energy by now."""
        return self._reading(exact=True)

    def fast_read(self) -> tuple[Reading, ...]:
        """Return the energy by now, to a timer tick of the kernel: for the readings between the edges of windows."""
        return self._reading(exact=False)

    def _reading(self, *, exact: bool) -> tuple[Reading, ...]:
        before = self._clock()
        used = self.tree.read(exact=exact)
        after = self._clock()
        joules = used.seconds * self.coefficients.core_watts
        # What appears late was drawn early: for the curve, that is a reading whose time is known less well.
        t_ns, half = (before + after) // 2, (after - before) // 2 + int(used.late_seconds * NANO)
        if exact:
            self.counted = t_ns, used.seconds
        seconds = max(t_ns - self._begin_ns, 0) / NANO
        standing = [Reading(draw.component, t_ns, 0, draw.watts * seconds) for draw in self._standing.values()]
        return Reading("cpu", t_ns, half, joules), *standing

    def close(self) -> None:
        """Nothing to release."""


def estimates_in(record: Mapping[str, Any]) -> set[str]:
    """Return the coefficients in a record's sum (JSON), e.g. ``{"2.8 W per CPU-second above idle"}``: energies by others do not compare."""
    parts = found if isinstance(found := record.get("components"), list | tuple) else ()
    chosen = [part for part in parts if part.get("counts") and part.get("source") == CpuTime.name]
    found = [re.match(rf"{ESTIMATED}(\d+(?:\.\d+)?(?:e[+-]\d+)? W {PER_SECOND})", str(part.get("reason"))) for part in chosen]
    return {match[1] for match in found if match}
