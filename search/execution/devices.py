"""What this machine offers to a session: cores, devices, and the leases that hold each device for one session alone.

Two trainings on one GPU would have an energy that belongs to neither.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType

from ..energy.background import after_fork
from ..study import Study
from ..threads import warn_of_spinning
from ..training.task import Task
from .job import Executor, InProcess
from .worker import DeviceError, WorkerProcess, gpu_components, mapped

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]  # not on Windows

#: Where trainings can run.
EXECUTORS = ("local", "ray")
#: Where the locks of a machine's devices are, for all users: folder and files are open to everybody.
FOLDER = "joulefront-leases"


def leases_folder() -> Path:
    """Return the folder of this machine's leases; it is made by the first one."""
    return Path(tempfile.gettempdir()) / FOLDER


class Lease:
    """A lock on an energy domain, e.g. ``gpu:GPU-1a2b`` or ``cpu``.

    The kernel holds the lock for the open file, so it ends with the process, however that ends. The files stay: removing one would let two
    processes lock two files of one name. Their folder is the same for all that compete: the run folder or one of the machine.
    """

    def __init__(self, domain: str, folder: Path) -> None:
        self.domain = domain
        self.path = folder / f"{domain.replace('/', '_').replace(':', '_')}.lock"
        self._fd = -1

    @property
    def held(self) -> bool:
        """Whether this object holds the lock."""
        return self._fd >= 0

    def acquire(self) -> bool:
        """Try to get the device; return whether it is ours now.

        Raises:
            RuntimeError: On a system without file locks.
        """
        if fcntl is None:
            raise RuntimeError("device leases need fcntl file locks, which this system lacks: run one worker (--workers 1)")
        if self.held:
            return True
        fd = self._opened()
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(fd)
            return False
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

    def describe(self) -> str:
        """Say who holds the lock, and since when."""
        words = self.path.read_text().split() if self.path.exists() else []
        return f"{self.domain} is held by process {words[0]} since {words[1]}" if len(words) > 1 else f"{self.domain} is held"

    def release(self) -> None:
        """Give the device back; may be called twice."""
        if self.held:
            os.close(self._fd)
            self._fd = -1


@dataclass(frozen=True)
class Devices:
    """The devices of a run, one a worker; they are given back at the end, and by the kernel when the process dies.

    Attributes:
        names: PyTorch devices, one a worker.
        components: The ledger's names of the GPUs that the run uses, None for all that CUDA shows. What another GPU draws, idle or at
            somebody else's work, is not on this run's bill.
        leases: What is held; nothing on a machine without a GPU.
    """

    names: tuple[str, ...]
    components: tuple[str, ...] | None = ()
    leases: tuple[Lease, ...] = field(default=(), repr=False)

    def __enter__(self) -> Devices:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
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

    The device is ``cpu``, ``cuda`` for any GPU or ``cuda:1`` for that one. The leases are in the machine's own folder by default; `count`
    tells the number of GPUs, PyTorch's by default, and `components` the ledger's name of a device.

    Raises:
        ValueError: If there are fewer GPUs than workers, or several workers for a GPU with a number.
        DeviceError: If others hold them.
    """
    if not device.startswith("cuda"):
        return Devices((device,) * workers)
    if workers > 1 and device.startswith("cuda:"):
        raise ValueError(f"--device must be cuda with --workers {workers}, got {device}: CUDA_VISIBLE_DEVICES says which GPUs they take")
    if count is None:
        import torch.cuda

        count = torch.cuda.device_count
    there = count()
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
    # The meters may count GPUs in another order than CUDA, and so get names; instances of one (MIG) need no choice.
    whole = None if os.environ.get("CUDA_VISIBLE_DEVICES", "").startswith("MIG-") else tuple(lease.domain for lease in taken.values())
    return Devices(names, whole, tuple(taken.values()))


def _message(device: str, workers: int, free: int, held: Sequence[str], others: bool) -> str:
    asked = f"--device {device}" if workers == 1 else f"--workers {workers}"
    ways = ["wait for its end"]
    if workers > 1 and free:
        ways.append(f"take --workers {free}")
    elif workers == 1 and others:
        ways.append("take --device cuda for a GPU that is free")
    return f"{asked}: {'; '.join(held)}. Two trainings on one GPU cannot be told apart: {', '.join(ways)} or take --device cpu"


def check_executor(name: str) -> None:
    """Refuse an executor that there is not, before anything is loaded.

    Raises:
        ValueError: If it is unknown, or its library is not installed.
    """
    if name not in EXECUTORS:
        raise ValueError(f"--executor must be {' or '.join(EXECUTORS)}, got {name!r}")
    if name == "ray" and find_spec("ray") is None:
        raise ValueError("Ray must be installed for --executor ray; do pip install 'joulefront[ray]', or leave --executor out")


def make_executors(
    study: Study, task: Task, devices: Sequence[str], executor: str = "local", threads: int = 1, follow: Callable[[int], object] = bool
) -> list[Executor]:
    """One executor a device: this process itself for a single one, processes of their own, or actors of ``ray``.

    Actors have so many ``threads``; what they take is counted by ``follow``, see `Ledger.follow`.

    Raises:
        DeviceError: If Ray has no room for them.
    """
    if executor == "ray":
        from .ray_worker import ray_workers

        return [*ray_workers(mapped(study, task), devices, threads, follow)]
    if len(devices) == 1:
        return [InProcess(study.space, task)]
    shared = mapped(study, task)
    return [WorkerProcess(shared, device) for device in devices]


def torch_threads(threads: int) -> None:
    """Pin the number of threads: it changes results at an equal seed, and more threads than cores wait for each other."""
    import torch

    warn_of_spinning(threads)
    torch.set_num_threads(threads)
