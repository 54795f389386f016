"""Workers that Ray places: an actor for each device of this machine, on a cluster that runs or one that is started for the study.

Ray decides whether there is room, starts the actor, and starts another one where it has died; a training is told, stopped and measured as
in a worker process (`worker.py`), over a socket of this machine, as a window of the ledger begins and ends at an instant of this machine's
clock. So a session has the actors of its own node: the meters and the ledger of a machine are there. On another node `joulefront worker
--executor ray` has its own session and ledger, and budget and trials are shared by the storage.

What Ray itself takes is on the bill where this session has started it: its servers are children of this process, and nobody's training.
An actor of a cluster that ran before is followed (`Tree.follow`), with its start; the servers of that cluster are not on the bill.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, cast

from ..study import Study
from ..training.results import Phases
from .job import Job, Outcome
from .watch import POLL_SECONDS, UNWATCHED, Watch
from .worker import DeviceError, WorkerProcess, serve

#: Longest wait for an actor: Ray starts a process, which loads the libraries.
START_SECONDS = 180.0
#: Ray itself is started so often: it gives up where its servers take longer than 30 s, as they do on a busy machine.
ATTEMPTS = 3
#: Longest wait for the address of a cluster: of one that is gone Ray itself gives up after minutes.
ANSWER_SECONDS = 5.0
#: Ray's store of objects, the smallest that it takes: nothing of a training goes through it.
STORE_BYTES = 80 * 1024**2
#: What a local instance of Ray is told unless the user has told it: not to report its use, and not to copy the working folder under uv.
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"}


@dataclass
class Cluster:
    """The connection of this process to Ray; given back with the last actor.

    Attributes:
        node: Ray's name of this machine.
        local: Whether this process has started Ray itself.
        users: Whoever has joined, and each actor.
    """

    ray: Any
    node: str
    local: bool
    ours: bool
    users: int = 1

    @classmethod
    def join(cls, cpus: int, gpus: int) -> Cluster:
        """Connect to the cluster that runs here (``RAY_ADDRESS``, or one of ``ray start``), or start Ray on this machine.

        Raises:
            DeviceError: If the cluster of ``RAY_ADDRESS`` does not answer, or its node here has too few CPUs or GPUs.
        """
        for name, value in QUIET.items():
            os.environ.setdefault(name, value)
        import ray

        ours, local = not ray.is_initialized(), False
        if ours:
            quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "namespace": "joulefront"}
            own = {"address": "local", "num_cpus": cpus, "num_gpus": gpus, "include_dashboard": False, "object_store_memory": STORE_BYTES}
            with _sigterm_kept():
                local = not _joined(ray, **quiet)
                if local:
                    _start_here(ray, **own, **quiet)
        node = str(ray.get_runtime_context().get_node_id())
        has = next(one["Resources"] for one in ray.nodes() if one["Alive"] and one["NodeID"] == node)
        found = cls(ray, node, local, ours)
        if has.get("CPU", 0) < cpus or has.get("GPU", 0) < gpus:
            found.close()
            raise DeviceError(
                f"--executor ray: this node of the cluster has {has.get('CPU', 0):g} CPUs and {has.get('GPU', 0):g} GPUs for its actors, "
                f"wanted {cpus} and {gpus}; take fewer --workers, or start the node with more"
            )
        return found

    def close(self) -> None:
        """Give the connection back with its last user; what this process has started ends."""
        self.users -= 1
        if self.users <= 0 and self.ours:
            self.ray.shutdown()


@contextmanager
def _sigterm_kept() -> Iterator[None]:
    """Put back what SIGTERM does, as Ray makes it an exit at once: the session ends its epoch first."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if before is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def _joined(ray: Any, **options: Any) -> bool:
    """Connect to the cluster that the user has named or started, never to another's that happens to run on this machine."""
    asked = os.environ.get("RAY_ADDRESS")
    known = asked or _last_started()
    if known is None or known == "local":
        return False
    try:
        if not _answers(known):
            raise ConnectionError(f"nothing listens at {known}")
        ray.init(address=known, **options)
    except (OSError, RuntimeError, ValueError) as error:  # Ray raises any of them
        if asked:
            raise DeviceError(
                f"--executor ray: RAY_ADDRESS must be a cluster that answers, got {asked!r}; unset it, or start that"
            ) from error
        ray.shutdown()
        return False
    return True


def _last_started() -> str | None:
    """Return the address that ``ray start`` has written down on this machine."""
    with contextlib.suppress(ImportError, AttributeError, TypeError, OSError):  # a private name, which a version may not have
        from ray._private.services import find_bootstrap_address

        return cast("str | None", find_bootstrap_address(None))
    return None


def _answers(address: str) -> bool:
    """Whether something listens at ``host:port``; of other addresses Ray must find out."""
    host, _, port = address.rpartition(":")
    if "/" in address or not host or not port.isdigit():
        return True
    with contextlib.suppress(OSError, OverflowError), socket.create_connection((host.strip("[]"), int(port)), ANSWER_SECONDS):
        return True
    return False


def _start_here(ray: Any, **options: Any) -> None:
    for attempt in range(ATTEMPTS):
        try:
            ray.init(**options)
            return
        except Exception as error:  # Ray raises bare ones, e.g. where a busy machine takes longer than its 30 s
            ray.shutdown()
            if attempt == ATTEMPTS - 1:
                said = " ".join(str(error).split())[:300]
                raise DeviceError(f"--executor ray: Ray does not start here ({said}); do ray start --head before, or wait") from error


@dataclass
class Actor:
    """An actor of Ray with a socket to it, as `WorkerProcess` knows a process and a pipe; it is connected at the first use.

    Attributes:
        node: Ray's name of the machine that it is on.
        pid: The process that it is in; 0 before it is connected.
        gpus: The numbers of the GPUs that Ray has given to it.
    """

    ray: Any
    handle: Any
    serving: Any
    listener: socket.socket
    folder: Path
    node: str
    pid: int = 0
    gpus: tuple[str, ...] = ()
    _connection: Connection | None = field(default=None, repr=False)

    @classmethod
    def start(cls, cluster: Cluster, device: str, threads: int, pickled: bytes) -> Actor:
        """Ask Ray for an actor on this machine, which comes when it has loaded what it needs."""
        ray = cluster.ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        folder = Path(tempfile.mkdtemp(prefix="joulefront-ray-"))  # nobody else's: who may open the socket is who started the study
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(folder / "s"))
        listener.listen(1)
        listener.settimeout(POLL_SECONDS)
        needs = {"num_cpus": threads, "num_gpus": 1 if device.startswith("cuda") else 0, "max_restarts": 0}
        here = NodeAffinitySchedulingStrategy(node_id=cluster.node, soft=False)
        handle = ray.remote(_Worker).options(**needs, scheduling_strategy=here).remote()
        # What Ray tells its own processes stays: the parent's environment is that of the study, not of the cluster.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        serving = handle.serve.remote(str(folder / "s"), pickled, device, environment, list(sys.path))
        return cls(ray, handle, serving, listener, folder, cluster.node)

    def connect(self) -> Connection:
        """Wait for the actor.

        Raises:
            ConnectionError: If it dies first, or does not come.
            DeviceError: If the node is gone.
        """
        until = time.monotonic() + START_SECONDS
        while self._connection is None:
            with contextlib.suppress(TimeoutError):
                line = Connection(self.listener.accept()[0].detach())
                self.pid, self.gpus = line.recv()
                self._connection = line
                break
            if not self.is_alive():
                raise ConnectionError(self.why())
            if not any(one["Alive"] for one in self.ray.nodes() if one["NodeID"] == self.node):
                raise DeviceError("--executor ray: the cluster has lost this node; ray start it again")
            if time.monotonic() > until:
                raise ConnectionError(f"Ray started none within {START_SECONDS:.0f} s (free: {_shown(self.ray.available_resources())})")
        return self._connection

    def is_alive(self) -> bool:
        """Whether Ray has not heard of its end."""
        return not self.ray.wait([self.serving], timeout=0)[0]

    def why(self) -> str:
        """Say in a line why it has ended."""
        try:
            self.ray.get(self.serving, timeout=POLL_SECONDS)
        except Exception as error:  # whatever Ray or the actor raised
            said = " ".join(str(getattr(error, "cause", None) or error).split())
            return f"{type(error).__name__}: {said}"[:300]
        return "it has ended"

    def kill(self) -> None:
        """End it."""
        with contextlib.suppress(Exception):
            self.ray.kill(self.handle, no_restart=True)
        shutil.rmtree(self.folder, ignore_errors=True)
        self.listener.close()

    def join(self, timeout: float) -> None:
        """Wait for its end, for so many seconds."""
        with contextlib.suppress(Exception):
            self.ray.wait([self.serving], timeout=timeout)

    # -- a pipe -------------------------------------------------------------------------------------------------------------------------

    def send(self, what: object) -> None:
        """Send an object."""
        self.connect().send(what)

    def recv(self) -> Any:
        """Return the next object."""
        return self.connect().recv()

    def poll(self, timeout: float) -> bool:
        """Whether there is something to receive within so many seconds."""
        return self.connect().poll(timeout)

    def close(self) -> None:
        """Close the socket."""
        if self._connection is not None:
            self._connection.close()


class _Worker:
    """What runs in the actor's process."""

    def serve(self, address: str, pickled: bytes, device: str, environment: Mapping[str, str], path: Sequence[str]) -> None:
        """Train what comes over a socket, until it is closed."""
        import ray

        sys.path += [place for place in path if place not in sys.path]
        given = tuple(map(str, ray.get_gpu_ids()))
        of_ray = {name: value for name, value in os.environ.items() if name.startswith("RAY_")}
        line = socket.socket(socket.AF_UNIX)
        line.connect(address)
        # Closed before Ray hears of the end: who still waits for this training is told at once.
        with contextlib.closing(Connection(line.detach())) as pipe:
            pipe.send((os.getpid(), given))
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the session is gone, and nobody waits for this training
                serve(pipe, pickled, device, {**environment, **of_ray})


class RayWorker(WorkerProcess):
    """A worker in an actor of Ray; one that dies is followed by another, and its training may be tried again."""

    actor: Actor
    _busy = False

    def __init__(self, study: Study, device: str, threads: int, cluster: Cluster, follow: Callable[[int], object]) -> None:
        self._cluster, self._threads, self._follow = cluster, threads, follow
        super().__init__(study, device)
        cluster.users += 1

    def _start(self) -> None:
        if hasattr(self, "actor"):
            self.actor.kill()  # its folder and its socket, too
        self.actor = Actor.start(self._cluster, self._device, self._threads, self._pickled)
        self._pipe = self._process = cast(Any, self.actor)  # it has what is used of both
        self._ready = False

    def connect(self) -> None:
        """Wait for the actor, and count what it takes from now on as this session's.

        Raises:
            ConnectionError: If it does not come.
        """
        self.actor.connect()
        self._follow(self.actor.pid)

    @property
    def pid(self) -> int:
        """Process id of the actor; 0 where there is none."""
        with contextlib.suppress(OSError, EOFError):
            if not self._busy and not self.actor.is_alive():  # a training must hear that its actor has died, not talk to the next one
                self.actor.close()
                self._start()
            self.connect()
        return self.actor.pid

    def train(self, job: Job, *, phases: Phases, should_continue: Callable[[Mapping[str, Any]], bool], watch: Watch = UNWATCHED) -> Outcome:
        """Train a job in the actor, as in a worker process."""
        self._busy = True
        try:
            return super().train(job, phases=phases, should_continue=should_continue, watch=watch)
        finally:
            self._busy = False

    def _died(self) -> Outcome:
        self.actor.join(5.0)
        why = self.actor.why()
        self._kill()  # else the next training might be sent to an actor that is still dying
        out_of_memory = "OutOfMemory" in why
        return Outcome(0, failed=f"the actor died ({why})", excused=not out_of_memory)

    def close(self) -> None:
        """End the actor, and Ray with the last one where this session has started it."""
        super().close()
        self._cluster.close()


def ray_workers(study: Study, devices: Sequence[str], threads: int, follow: Callable[[int], object]) -> list[RayWorker]:
    """Return an actor for each device of this machine; ``follow`` is `Ledger.follow`.

    Raises:
        DeviceError: If Ray has no room for them, or gives them other GPUs than this session holds.
    """
    gpus = sum(device.startswith("cuda") for device in devices)
    cluster = Cluster.join(threads * len(devices), gpus)
    workers = list[RayWorker]()
    try:
        for device in devices:
            workers.append(RayWorker(study, device, threads, cluster, follow))
        for worker in workers:
            worker.connect()
        if gpus:
            refuse_other_gpus([number for worker in workers for number in worker.actor.gpus], devices, os.environ)
    except BaseException as error:
        for worker in workers:
            worker.close()
        if isinstance(error, OSError | EOFError):
            raise DeviceError(f"--executor ray: {error}; see ray status, or leave --executor out") from error
        raise
    finally:
        cluster.close()  # from now on it is theirs
    return workers


def refuse_other_gpus(given: Sequence[str], devices: Sequence[str], environment: Mapping[str, str]) -> None:
    """Refuse to train on GPUs that Ray may give to others: those that the session holds must be those that its actors were given.

    Raises:
        DeviceError: If they are not.
    """
    visible = [one for one in environment.get("CUDA_VISIBLE_DEVICES", "").split(",") if one]
    numbers = [int(device.partition(":")[2] or 0) for device in devices]
    held = [visible[number] if number < len(visible) else str(number) for number in numbers]
    if sorted(held) != sorted(given):
        raise DeviceError(
            f"--executor ray: this session holds the GPUs {', '.join(held)}, and Ray gave its actors {', '.join(given) or 'none'}; "
            "take as many --workers as the node has GPUs, or set CUDA_VISIBLE_DEVICES before ray start"
        )


def _shown(resources: Mapping[str, float]) -> str:
    return ", ".join(f"{resources.get(name, 0):g} {name}" for name in ("CPU", "GPU"))
