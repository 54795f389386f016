"""How a model is trained, as a frozen fact that JSON can hold; the threads and precisions that a device has for it, and waiting for one."""

from __future__ import annotations

import math
import os
import random
import re
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from multiprocessing.util import Finalize
from typing import TYPE_CHECKING, Any

from ..argument_types import refuse_wrong_types
from ..threads import cores

if TYPE_CHECKING:
    import torch

SCHEDULES = ("anytime", "constant", "cosine", "one_cycle")
OPTIMIZERS = ("adamw", "sgd")
PRECISIONS = ("float32", "bfloat16", "float16")
AUGMENTATIONS = ("none", "shift", "flip_shift")
FIXED_HORIZON = frozenset({"cosine", "one_cycle"})
#: Fields that decide, with the architecture, which kernels ``torch.compile`` makes.
KERNELS = ("batch_size", "accumulation", "resolution", "precision", "channels_last", "threads", "tactics")
#: Where PyTorch and Triton keep kernels.
KERNEL_FOLDERS = ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")


@dataclass(frozen=True)
class Recipe:
    """Everything about a training that is not the architecture.

    Attributes:
        optimizer: One of ``OPTIMIZERS``; only SGD has the ``momentum``. Weight decay is decoupled for AdamW, L2 for SGD.
        learning_rate: The peak; the head of a classifier has ``head_learning_rate`` unless that is None.
        schedule: One of ``SCHEDULES``. ``anytime`` and ``constant`` do not depend on the number of epochs, so that a training can continue
            from its checkpoint; ``cosine`` and ``one_cycle`` have a fixed horizon.
        averaging: Evaluate with an exponential moving average of the weights (always on for ``anytime``).
        resolution: Side of the images in pixels, or None for the task's own size.
        augment: One of ``AUGMENTATIONS``, applied per batch on the device.
        label_smoothing: Share of the target mass spread over all classes.
        precision: One of ``PRECISIONS``; half precisions run under autocast.
        accumulation: Number of micro-batches per optimiser step.
        channels_last: Keep images in the NHWC memory layout.
        graph: On CUDA, take the steps into a CUDA graph where the GPU waits for its launches; see ``captured.py``. Nothing elsewhere.
        threads: ``torch.set_num_threads``, or None for what the run gives to each worker.
        patience: Stop after this many epochs without a better validation quality, or None.
        tactics: Searchable training tactics by name with their settings, e.g. ``{"sparse_backprop": {"keep": 0.2}}``.
    """

    optimizer: str = "adamw"
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    momentum: float = 0.9
    batch_size: int = 128
    schedule: str = "anytime"
    averaging: bool = True
    resolution: int | None = None
    augment: str = "none"
    label_smoothing: float = 0.0
    precision: str = "float32"
    accumulation: int = 1
    channels_last: bool = False
    compile: bool = False
    graph: bool = False
    threads: int | None = None
    head_learning_rate: float | None = None
    patience: int | None = None
    tactics: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raise a ValueError that names field, range and value where no training can use the value."""
        refuse_wrong_types(Recipe, vars(self), "recipe.")
        for name, allowed in (("optimizer", OPTIMIZERS), ("schedule", SCHEDULES), ("precision", PRECISIONS), ("augment", AUGMENTATIONS)):
            value = getattr(self, name)
            if value not in allowed:
                raise ValueError(f"recipe.{name} must be one of {', '.join(allowed)}, got {value!r}")
        for name in ("batch_size", "accumulation", "resolution", "threads", "patience"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"recipe.{name} must be a whole number >= 1, got {value!r}")
        for name in ("learning_rate", "head_learning_rate"):
            if (value := getattr(self, name)) is not None and not 0 < value < math.inf:
                raise ValueError(f"recipe.{name} must be > 0, got {value!r}")
        for name, below in (("weight_decay", math.inf), ("momentum", 1.0), ("label_smoothing", 1.0)):
            value = getattr(self, name)
            if not 0 <= value < below:
                raise ValueError(f"recipe.{name} must be >= 0{'' if below == math.inf else ' and < 1'}, got {value!r}")

    @property
    def resumable(self) -> bool:
        """Whether a checkpoint can be continued to more epochs without changing what was trained before."""
        return self.schedule not in FIXED_HORIZON

    @property
    def kernels(self) -> tuple[Any, ...]:
        """What decides, with the architecture, which kernels are compiled."""
        return tuple(getattr(self, name) for name in KERNELS)

    def to_json(self) -> dict[str, Any]:
        """Return a plain dictionary that ``from_json`` reads back."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Recipe:
        """Read what ``to_json`` wrote; a key that is not a field of this version raises ValueError."""
        unknown = set(data) - set(cls.__dataclass_fields__)
        if unknown:
            raise ValueError(f"recipe has unknown keys {sorted(unknown)}; was it written by a newer version of joulefront?")
        return replace(cls(), **dict(data))


@contextmanager
def kernels_apart(architecture: Mapping[str, Any], recipe: Recipe) -> Iterator[None]:
    """Keep what is compiled inside for trainings of this process that compile the same.

    Another architecture would find some of its kernels there, and its compiling would cost what the order of the trials makes of it.
    """
    if not recipe.compile:
        yield
        return
    from torch._inductor.runtime.cache_dir_utils import cache_dir
    from torch._inductor.utils import clear_inductor_caches  # its name in all releases since 2.6

    before, own = {name: os.environ.get(name) for name in KERNEL_FOLDERS}, zlib.crc32(repr((architecture, recipe.kernels)).encode())
    folder = os.path.join(cache_dir(), f"{os.getpid()}-{own:08x}")
    if not os.path.isdir(folder):  # nobody else finds anything in it when this process has ended
        Finalize(None, shutil.rmtree, (folder,), {"ignore_errors": True}, exitpriority=0)
    os.environ.update(zip(KERNEL_FOLDERS, (folder, os.path.join(folder, "triton")), strict=True))
    clear_inductor_caches()
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            os.environ.update({} if value is None else {name: value})
        clear_inductor_caches()


@contextmanager
def kept_for_caller(device: torch.device | str) -> Iterator[None]:
    """Leave what a program that calls us has set as it was: PyTorch's threads, and the generators of PyTorch, NumPy and Python.

    Those of a GPU are kept where trainings inside are on it; one that nobody has used yet has no state, and asking would start it.
    """
    import numpy as np
    import torch

    threads, plain, numbers = torch.get_num_threads(), random.getstate(), np.random.get_state()
    try:
        used = str(device).startswith("cuda") and torch.cuda.is_initialized()  # type: ignore[no-untyped-call]  # torch's own
        with torch.random.fork_rng(devices=[device] if used else []):
            yield
    finally:
        torch.set_num_threads(threads)
        random.setstate(plain)
        np.random.set_state(numbers)


def thread_choices(most: int | None = None) -> tuple[int, ...]:
    """Thread counts worth comparing: the powers of two below the number of cores, and that number.

    >>> thread_choices(6)
    (1, 2, 4, 6)
    """
    most = cores() if most is None else most
    return tuple(sorted({2**power for power in range(most.bit_length()) if 2**power <= most} | {most}))


def pick_device(device: torch.device | str) -> str:
    """Return the name of a device, the best one for ``auto``; what is no device of this machine is refused.

    Raises:
        ValueError: If the device is unknown or absent.
    """
    import torch

    device = str(device)
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if not re.fullmatch(r"(cpu|cuda)(:[0-9]+)?", device):
        raise ValueError(f"--device must be auto, cpu, cuda or cuda:N, got {device!r}: nothing here trains on, or measures, another one")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"--device {device}: no CUDA device here; use --device cpu, or install a driver and a CUDA build of torch")
    if device.startswith("cuda") and int(device.partition(":")[2] or 0) >= torch.cuda.device_count():
        raise ValueError(f"--device {device}: there are {torch.cuda.device_count()} CUDA devices, numbered from 0")
    return device


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
