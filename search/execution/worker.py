"""A worker process: it trains jobs and reports to the parent, which holds the ledger, when a phase begins and ends."""

from __future__ import annotations

import atexit
import contextlib
import functools
import io
import mmap
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext, SpawnContext
from typing import Any, cast

import cloudpickle

from ..energy.sources.cpu_time import Tree, process_seconds
from ..hints import may_compile
from ..study import Study
from ..training.recipe import synchronizer
from ..training.results import Phases
from ..training.task import Task
from .job import Executor, Job, Outcome, WarmUp, train, warm_up_seconds
from .watch import POLL_SECONDS, UNWATCHED, Watch, within

#: Libraries that take seconds to load; the server of CPU workers loads those that this process has loaded.
SLOW_LOADS = ("timm", "torchvision", "sklearn.ensemble", "sklearn.neighbors", "sklearn.linear_model", "scipy.optimize", "pandas", "optuna")
#: What PyTorch loads with the first network of a process that is compiled, a second or more.
COMPILER = ("torch._dynamo",)
#: Arrays in a mapped file begin at multiples of this many bytes, as those of libraries do.
ALIGNED = 64
#: With it Python looks for modules in no current directory.
SAFE_PATH = "PYTHONSAFEPATH"
#: The environment, which a start changes, is that of all threads.
_ONE_STARTS = threading.Lock()


class DeviceError(RuntimeError):
    """Too few devices are free, or one does not answer any more; the message says who holds them and what to do."""


@dataclass(frozen=True)
class MappedTask:
    """A task in memory that all workers of a machine map, each as if it were its own: what one writes to it no other sees.

    ``place`` is a file without a name, which goes with the process that holds it; ``buffers`` are begin and length of each array in it.
    """

    place: str
    pickled: bytes
    buffers: tuple[tuple[int, int], ...]

    def __call__(self) -> Task:
        """Return the task; its arrays take no memory of this process until it writes to them."""
        with open(self.place, "rb") as file:
            whole = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))
        return cast(Task, pickle.loads(self.pickled, buffers=[whole[begin : begin + length] for begin, length in self.buffers]))


class _Arrays(cloudpickle.Pickler):  # type: ignore[misc]  # it has no types
    def reducer_override(self, found: Any) -> Any:
        import numpy as np
        import torch

        if isinstance(found, np.memmap):  # it would be copied whole into the pickle, while each worker can map the file
            raise pickle.PicklingError("a mapped file is not copied")
        if type(found) is torch.Tensor and found.device.type == "cpu" and found.layout == torch.strided and not found.requires_grad:
            with contextlib.suppress(TypeError):  # numpy does not know every type
                return torch.from_numpy, (found.numpy(),)
        return super().reducer_override(found)


def mapped(study: Study, task: Task) -> Study:
    """Return the study with its loaded task where all workers of this machine find it; as it is where a task cannot be told to others."""
    if not hasattr(os, "memfd_create"):
        return study
    buffers, told = list[pickle.PickleBuffer](), io.BytesIO()
    try:
        _Arrays(told, protocol=5, buffer_callback=buffers.append).dump(task)
    except Exception:  # open files, locks, whatever a data set of the user holds: then each worker loads its own
        return study
    places = list[tuple[int, int]]()
    with ExitStack() as given_up:
        try:
            file = os.fdopen(os.memfd_create("joulefront-task"), "wb")
            given_up.enter_context(contextlib.suppress(OSError))  # closing writes what is left
            given_up.callback(file.close)
            for buffer in buffers:
                file.seek(-(-file.tell() // ALIGNED) * ALIGNED)
                begin = file.tell()
                places.append((begin, file.write(buffer.raw())))
            file.write(b"\0")  # an empty file cannot be mapped
            file.flush()
        except (OSError, MemoryError):  # no room for a second copy
            return study
        given_up.pop_all()
    found = MappedTask(f"/proc/{os.getpid()}/fd/{file.fileno()}", told.getvalue(), tuple(places))
    weakref.finalize(found, file.close)
    return replace(study, task=found)


class WorkerProcess:
    """One worker process with its own copy of the task, which it loads itself unless the study has it `mapped`.

    The child is never forked from this process: it would inherit locks and CUDA contexts in unknown states, see ``context_for``. Work
    queued on its PyTorch device is waited for at each edge of a phase.
    """

    def __init__(self, study: Study, device: str) -> None:
        self._study = study  # with it what it has mapped lives as long as this
        self._compiles = may_compile(study.space, study.seed)
        self._pickled = cloudpickle.dumps(study)
        #: The GPU that its trainings hold; the CPU is shared between the workers by CPU-seconds.
        self.devices = gpu_components(device)
        self._device = device
        self._start()

    def _start(self) -> None:
        context = context_for(self._device, COMPILER if self._compiles else ())
        self._pipe, theirs = context.Pipe()
        with _ONE_STARTS:
            self._process = context.Process(target=serve, args=(theirs, self._pickled, self._device, dict(os.environ)), daemon=True)
            with _kept_from_children():
                self._process.start()
        theirs.close()
        self._ready = False

    @property
    def pid(self) -> int:
        """Process id of the worker."""
        return int(self._process.pid or 0)

    def wait_until_ready(self, overdue: Callable[[], str | None]) -> None:
        """Wait until it has the task; not for a worker that dies, or longer than until it is overdue: its first training then says why."""
        self._hear("ready", overdue)

    def warm_up(self, job: Job, overdue: Callable[[], str | None]) -> None:
        """Let the worker pay what only the first training of this kind pays, see `WarmUp`, and wait as for one that starts."""
        self.revive()
        with contextlib.suppress(OSError):
            self._pipe.send(("warm", job))
            self._hear("warm", overdue)

    def _hear(self, wanted: str, overdue: Callable[[], str | None]) -> None:
        while not (wanted == "ready" and self._ready) and overdue() is None:
            kind, _ = _told(self._pipe, overdue)
            if kind in ("overdue", "died"):
                return
            self._ready = True
            if kind == wanted:
                return

    def revive(self) -> None:
        """Start the worker again where it has died."""
        if not self._process.is_alive():  # it died with the job before: an out-of-memory kill ends one trial, not the study
            self._pipe.close()
            self._start()

    def train(self, job: Job, *, phases: Phases, should_continue: Callable[[Mapping[str, Any]], bool], watch: Watch = UNWATCHED) -> Outcome:
        """Train a job in the worker; a worker that dies, or is killed because its training is overdue, is a failed outcome."""
        epochs, used, since_ns = 0, _Used(), time.monotonic_ns()
        window: Any = None

        def overdue() -> str | None:
            used.note(self.pid)
            return watch.overdue()

        self.revive()
        try:
            self._pipe.send(("train", replace(job, device=self._device)))
        except OSError:
            return Outcome(0, failed="the worker process died before it began", excused=True, cpu_seconds=0.0)
        with ExitStack() as open_phases:
            while True:
                match _told(self._pipe, overdue):
                    case "ready" | "warm", _:
                        self._ready = True
                    case "enter", (*phase, began_ns):
                        used.note(self.pid, begin=True)
                        since_ns = _instant(began_ns, since_ns)  # the child's: this process is late when it has other work
                        window = open_phases.enter_context(phases(*phase))
                        window.t0_ns = since_ns
                    case "exit", (cpu_seconds, ended_ns):
                        window.cpu_seconds = cpu_seconds
                        window.ended_ns = since_ns = _instant(ended_ns, since_ns)
                        open_phases.close()  # phases of a training do not nest
                    case "epoch", entry:
                        epochs = int(entry["epoch"])
                        go_on = should_continue(entry)
                        with contextlib.suppress(OSError):  # a worker that has died meanwhile is noticed when it is read from
                            self._pipe.send(go_on)
                    case "overdue", reason:
                        self._kill()
                        return Outcome(epochs, failed=reason, cpu_seconds=used.seconds)
                    case "died", _:
                        return replace(self._died(), epochs=epochs, cpu_seconds=used.seconds)
                    case "done" | "spoiled" as kind, outcome:
                        if kind == "spoiled":
                            self._kill()
                        return cast(Outcome, outcome)

    @property
    def alive(self) -> bool:
        """Whether the worker can take another job."""
        return self._process.is_alive()

    def close(self) -> None:
        """End the worker; one that still loads the data has nothing to put in order."""
        if self._ready:
            with contextlib.suppress(OSError, BrokenPipeError):
                self._pipe.send(("end", None))
            self._process.join(5.0)
        self._kill()
        self._pipe.close()

    def _died(self) -> Outcome:
        """Return what is known of a death."""
        self._process.join(5.0)
        when = "" if self._ready else " while it started"
        return Outcome(0, failed=f"the worker process died{when} (exit code {self._process.exitcode})", excused=not self._ready)

    def _kill(self) -> None:
        self._process.kill()
        self._process.join(5.0)  # one that waits for a device cannot even be killed at once


def _told(pipe: Connection, overdue: Callable[[], str | None]) -> tuple[str, Any]:
    """Return what the worker tells next, or that it is ``overdue``, with the reason, or has ``died``."""
    try:
        while not pipe.poll(POLL_SECONDS):
            if (reason := overdue()) is not None:
                return "overdue", reason
        kind, payload = pipe.recv()
    except (EOFError, OSError):
        return "died", None
    return kind, payload


def _instant(told_ns: int, since_ns: int) -> int:
    """Return the instant that a child tells, or now where it cannot be: of a time namespace of its own, or before the one told last."""
    now_ns = time.monotonic_ns()
    return told_ns if since_ns <= told_ns <= now_ns else now_ns


@dataclass
class _Used:
    """CPU-seconds of a worker since its training began, as the parent saw them: a worker that dies cannot report its own.

    What it took before, for its start, is nobody's training.
    """

    _began: float | None = None
    _last: float = 0.0

    def note(self, pid: int, *, begin: bool = False) -> None:
        """Look at the process; the first phase of a training begins it."""
        self._last = max(self._last, process_seconds(pid) or 0.0)
        if begin and self._began is None:
            self._began = self._last

    @property
    def seconds(self) -> float:
        return 0.0 if self._began is None else self._last - self._began


def context_for(device: str, more: Sequence[str] = ()) -> SpawnContext | ForkServerContext:
    """How a worker for this device is started: what it does before its first training is paid by the study.

    A worker for the CPU is forked from a server, a process of one thread that loads what this process has loaded, and ``more``, once for
    all workers.
    A worker for a GPU is spawned and loads everything itself: CUDA does not survive a fork, and libraries may touch it as they load.
    """
    if device != "cpu" or not sys.platform.startswith("linux"):
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, *(library for library in SLOW_LOADS if library in sys.modules), *more])
    _end_server_with(os.getpid())
    return context


@functools.cache
def _end_server_with(pid: int) -> None:
    """End the server at once when this process ends: by itself it takes its libraries apart, half a second of CPU time no meter sees."""
    from multiprocessing.forkserver import _forkserver  # what starts and stops it has no public name

    def end() -> None:
        server = getattr(_forkserver, "_forkserver_pid", None)
        if server is not None and os.getpid() == pid and not multiprocessing.active_children():
            with contextlib.suppress(ProcessLookupError):
                os.kill(server, signal.SIGKILL)

    atexit.register(end)


def serve(pipe: Connection, pickled: bytes, device: str, environment: Mapping[str, str]) -> None:
    """The child: load the task once, then train what comes; its environment is the parent's of now, not of the server's start."""
    os.environ.clear()
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when a training ends
    threading.Thread(target=_end_with_the_parent, name="joulefront-parent", daemon=True).start()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    study: Study = cloudpickle.loads(pickled)
    task = study.load_task()
    pipe.send(("ready", None))
    synchronize = synchronizer(device) or (lambda: None)
    tree = Tree()  # counts as the parent's meter does, so a data loader's living workers are the trial's

    @contextmanager
    def phases(kind: str, index: int) -> Iterator[None]:
        synchronize()
        pipe.send(("enter", (kind, index, time.monotonic_ns())))
        before = tree.seconds()
        try:
            yield
        finally:
            try:
                synchronize()
            finally:
                pipe.send(("exit", (tree.seconds() - before, time.monotonic_ns())))

    def should_continue(entry: Mapping[str, Any]) -> bool:
        pipe.send(("epoch", dict(entry)))
        return pipe.recv() is True  # the parent may end it instead, with a tuple

    warm = WarmUp(study.space, task, device, study.seed)
    while True:
        try:
            kind, job = pipe.recv()
        except EOFError:
            return
        if kind == "end":
            return
        # Before a job of a new kind also where nobody asked for it: this process follows one that has died.
        warm.before(job.params, job.threads, Watch(within(warm_up_seconds(study.max_trial_seconds))))
        if kind == "warm":
            pipe.send(("warm", None))
            continue
        before = tree.seconds()
        outcome = train(job, study.space, task, phases=phases, should_continue=should_continue)
        kind = "spoiled" if _is_spoiled(outcome, synchronize) else "done"
        pipe.send((kind, replace(outcome, cpu_seconds=tree.seconds() - before)))


def _is_spoiled(outcome: Outcome, synchronize: Callable[[], object]) -> bool:
    """Whether a training has left a process in which no other can be trusted: out of memory, or its device does not answer any more."""
    try:
        synchronize()
    except Exception:
        return True
    return outcome.failed is not None and outcome.failed.startswith("out of memory") and "CUDA" not in outcome.failed


@contextmanager
def _kept_from_children() -> Iterator[None]:
    """Start a process that neither Ctrl-C reaches while it starts nor a file of the current directory under the name of a library.

    The parent decides when it ends; where a process is given a command, Python would look for all libraries in that directory first.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT}) if hasattr(signal, "pthread_sigmask") else None
    safe = os.environ.get(SAFE_PATH)
    os.environ[SAFE_PATH] = "1"
    try:
        yield
    finally:
        os.environ.pop(SAFE_PATH) if safe is None else os.environ.update({SAFE_PATH: safe})
        if before is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_with_the_parent() -> None:
    """Wait until the parent is gone, then end at once: nobody counts the energy of what is still trained, or keeps its device for it."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def gpu_components(device: str) -> tuple[str, ...]:
    """Name of a CUDA device in the ledger: ``gpu:`` and its UUID; nothing for a CPU."""
    if not device.startswith("cuda"):
        return ()
    import torch

    uuid = str(getattr(torch.cuda.get_device_properties(device), "uuid", device))  # PyTorch for AMD may lack it
    return (f"gpu:{uuid if uuid.startswith('GPU-') else f'GPU-{uuid}'}",)


_: type[Executor] = WorkerProcess
