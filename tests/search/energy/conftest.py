"""A machine that is not there: a driver in C under NVIDIA's binding, a powercap tree in a folder, a clock that is turned by hand."""

from __future__ import annotations

import ctypes
import math
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from helpers.windows import WATTS, ThreadsAtWork

from joulefront.search.energy import Capability, Ledger, Reading
from joulefront.search.energy.attribution import Split
from joulefront.search.energy.background import due
from joulefront.search.energy.sources.cpu_time import Machine, Tree
from joulefront.search.energy.sources.nvml import COUNTER_LAG_SECONDS, Nvml


def joules(shares):
    return {name: pytest.approx(share.joules, rel=1e-3) for name, share in shares.items()}


def balance(split: Split) -> float:
    """What is missing between the total of a split and the sum of its parts, in joules: rounding only."""
    parts = [share.joules for shares in split.shares.values() for share in shares.values()]
    rest = [joules for bucket in (split.overhead, split.idle, split.unattributed) for joules in bucket.values()]
    return math.fsum(split.total.values()) - math.fsum(parts + rest)


KINDS = {"constant": 0, "step": 1, "sine": 2, "square": 3, "trace": 4}


@dataclass
class HandClock:
    """Nanoseconds that move only when told, and a little with every reading."""

    now_ns: int = 10**12
    step_ns: int = 5_000
    followers: list[Callable[[float], None]] = field(default_factory=list)

    def __call__(self) -> int:
        self.advance_ns(self.step_ns)
        return self.now_ns

    def advance(self, seconds: float) -> None:
        self.advance_ns(round(seconds * 1e9))

    def advance_ns(self, nanoseconds: int) -> None:
        self.now_ns += nanoseconds
        for follow in self.followers:
            follow(self.now_ns / 1e9)


class Driver:
    """The fake driver's knobs."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.library = ctypes.CDLL(str(path))
        for name in ("fake_energy", "fake_power"):
            function = getattr(self.library, name)
            function.argtypes, function.restype = [ctypes.c_int, ctypes.c_double], ctypes.c_double
        self.library.fake_clock.restype = self.library.fake_reads.restype = ctypes.c_double
        self.library.fake_now.argtypes = self.library.fake_run.argtypes = [ctypes.c_double]
        self.library.fake_set.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_double]
        self.library.fake_trace.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]

    def reset(self, devices: int = 1) -> Driver:
        self.library.fake_reset(devices)
        return self

    def set(self, device: int = 0, **knobs: float | str) -> Driver:
        for name, value in knobs.items():
            number = KINDS[value] if isinstance(value, str) else float(value)
            assert self.library.fake_set(device, name.encode(), number) == 0, f"the fake driver has no knob {name}"
        return self

    def trace(self, seconds: Sequence[float], watts: Sequence[float], device: int = 0) -> Driver:
        array = ctypes.c_double * len(seconds)
        self.library.fake_trace(device, len(seconds), array(*seconds), array(*watts))
        return self

    def follow(self, clock: HandClock) -> Driver:
        clock.followers.append(self.library.fake_now)
        self.library.fake_now(clock.now_ns / 1e9)
        return self

    def run(self, times_real: float = 1.0) -> Driver:
        self.library.fake_run(times_real)
        return self

    def joules(self, t0_ns: float, t1_ns: float, device: int = 0) -> float:
        energy = self.library.fake_energy
        return float(energy(device, t1_ns / 1e9) - energy(device, t0_ns / 1e9))


@pytest.fixture(scope="session")
def driver_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("the fake driver needs a C compiler (gcc)")
    target = tmp_path_factory.mktemp("driver") / "libnvidia-ml.so.1"
    source = Path(__file__).with_name("fake_driver.c")
    subprocess.run([compiler, "-O1", "-Wall", "-Werror", "-shared", "-fPIC", "-o", str(target), str(source), "-lm"], check=True)
    return target


@pytest.fixture
def driver(driver_path: Path, monkeypatch: pytest.MonkeyPatch) -> Driver:
    """The fake driver under NVIDIA's own binding, with one GPU of constant 200 W."""
    import pynvml

    fake = Driver(driver_path).reset()
    # The binding loads its library once and keeps it here; handing it ours is what finding libnvidia-ml.so.1 would have done.
    monkeypatch.setattr(pynvml, "nvmlLib", fake.library)
    monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return fake


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@dataclass
class Bench:
    """A ledger over the fake driver in simulated time, with the sampler's work done by hand."""

    ledger: Ledger
    clock: HandClock
    driver: Driver
    interval: float = 0.1
    begin_ns: int = 0
    number: int = 0

    def run(self, seconds: float) -> None:
        """Let time pass as the sampler would: a reading per interval, burst polling while it is worth it."""
        end_ns = self.clock.now_ns + round(seconds * 1e9)
        next_ns: int | None = self.clock.now_ns + 2_000_000
        while self.clock.now_ns < end_ns:
            due_ns = min(end_ns, self.begin_ns + round(due(self.number, self.interval) * 1e9))
            while next_ns is not None and next_ns < due_ns:
                self.clock.advance_ns(max(next_ns - self.clock.now_ns, 0))
                pause = self.ledger.burst()
                next_ns = None if pause is None else self.clock.now_ns + round(max(pause, 0.002) * 1e9)
            self.clock.advance_ns(max(due_ns - self.clock.now_ns, 0))
            if due_ns < end_ns:
                self.number += 1
                self.ledger.sample(fast=True)


@pytest.fixture
def still(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody uses the processor, and nobody reads how much at each of the readings of an hour that takes a second."""
    monkeypatch.setattr(Machine, "seconds", lambda self: 0.0)
    monkeypatch.setattr(Tree, "seconds", lambda self: 0.0)


@pytest.fixture
def bench(driver: Driver, clock: HandClock, still: None) -> Iterator[Callable[..., Bench]]:
    """Make a started ledger over the fake driver; knobs must be set before.

    The counter is up to ``lag_seconds`` late; ``lag`` is what was measured of it.
    """
    made: list[Ledger] = []

    def make(
        interval: float = 0.1,
        start: float = 1000.0,
        lag_seconds: float = COUNTER_LAG_SECONDS,
        lag: tuple[float, float] | None = None,
        **knobs: float | str,
    ) -> Bench:
        clock.now_ns = round(start * 1e9)
        driver.set(**knobs).follow(clock)
        nvml = Nvml(clock=clock, environment={}, counter_lag_seconds=lag_seconds, sleep=clock.advance, lag_of=lambda facts: lag)
        ledger = Ledger([nvml], interval_seconds=None, clock=clock).start()
        made.append(ledger)
        return Bench(ledger, clock, driver, interval, clock.now_ns)

    yield make
    for ledger in made:
        ledger.stop()


@dataclass
class Scripted:
    """A source that says what a test put into it."""

    capabilities: tuple[Capability, ...]
    clock: Callable[[], int]
    joules: Callable[[str, float], float] | None = None
    watts: Callable[[str, float], float] | None = None
    name: str = "scripted"
    fails: str | Exception | None = None
    silent: frozenset[str] = frozenset()
    closed: int = 0

    def probe(self) -> tuple[Capability, ...]:
        return self.capabilities

    def read(self) -> tuple[Reading, ...]:
        if isinstance(self.fails, Exception):
            raise self.fails
        t_ns = self.clock()
        readings = []
        for capability in self.capabilities:
            if capability.component in self.silent or not capability.available:
                continue
            joules = None if self.joules is None else self.joules(capability.component, t_ns / 1e9)
            watts = None if self.watts is None else self.watts(capability.component, t_ns / 1e9)
            if self.fails:
                joules = watts = None
            readings.append(Reading(capability.component, t_ns, 0, joules, watts, self.fails or None))
        return tuple(readings)

    def close(self) -> None:
        self.closed += 1


@pytest.fixture(scope="session")
def scripted() -> type[Scripted]:
    return Scripted


@pytest.fixture(scope="session")
def hand_clock() -> type[HandClock]:
    return HandClock


@dataclass
class Powercap:
    """A live powercap tree: counters in files that wrap like the kernel's."""

    root: Path
    range_uj: int = 262_143_328_850

    def zone(self, key: str, name: str, uj: int = 0, range_uj: int | None = None) -> Path:
        folder = self.root
        parts = key.split(":")
        for depth in range(2, len(parts) + 1):
            folder = folder / ":".join(parts[:depth])
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "name").write_text(name + "\n")
        (folder / "max_energy_range_uj").write_text(f"{range_uj or self.range_uj}\n")
        self.write(folder, uj)
        return folder

    def write(self, folder: Path, uj: int) -> None:
        """Set a counter; what is beyond the range wraps, and a reader never sees half a number.

        The file stays the same file, as in the kernel: who holds it open sees the new value. One write of equal length is atomic.
        """
        largest = int((folder / "max_energy_range_uj").read_text())
        path = folder / "energy_uj"
        with path.open("r+b" if path.exists() else "wb", buffering=0) as file:
            file.write(f"{uj % (largest + 1):>24d}\n".encode())

    @contextmanager
    def running(self, step_uj: int = 15_000) -> Iterator[None]:
        """Let every counter count by itself, as on a machine that is on."""
        over = threading.Event()

        def run() -> None:
            while not over.wait(0.001):
                for path in self.root.rglob("energy_uj"):
                    self.write(path.parent, int(path.read_text()) + step_uj)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def remove(self, folder: Path) -> None:
        """Take a counter away as an unloaded module does: it is gone, and a file that is still open gives nothing."""
        os.truncate(folder / "energy_uj", 0)
        (folder / "energy_uj").unlink()


@pytest.fixture
def powercap(tmp_path: Path) -> Powercap:
    root = tmp_path / "powercap"
    root.mkdir()
    return Powercap(root)


@pytest.fixture
def ledger(scripted, clock, tmp_path):
    """A ledger over two GPUs and a CPU of constant power, read by ``wait``."""
    capabilities = tuple(Capability(name, "scripted", True, tick_seconds=0.0) for name in WATTS)
    source = scripted(capabilities, clock, joules=lambda name, t: WATTS[name] * t)
    with Ledger([source], interval_seconds=None, clock=clock, file=tmp_path / "ledger.jsonl") as running:
        yield running


@pytest.fixture
def wait(ledger, clock):
    def through(seconds):
        for _ in range(round(seconds * 10)):
            clock.advance(0.1)
            ledger.sample()

    return through


@pytest.fixture
def threads(ledger, clock):
    with ThreadsAtWork.on(clock) as made:
        made.measure(ledger)
        yield made
