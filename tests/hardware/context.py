"""What every part of the acceptance run gets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .oracle import Load, TorchLoad


@dataclass(frozen=True)
class Context:
    """Where and how a part runs.

    Attributes:
        out: Output folder.
        device: PyTorch device; ``cpu`` tries the program where there is no GPU.
        scale: Factor of every duration and size: 1 on a GPU, less for a trial on a CPU.
        data: Image folder or zip, or None for images that are made.
        may_set: Whether the power limit may be changed for a moment.
        save: Called with the result so far, which stays when the part is ended on the way.
        make_load: Makes the load of a device.
    """

    out: Path
    device: str = "cuda"
    scale: float = 1.0
    data: Path | None = None
    may_set: bool = False
    save: Callable[[dict[str, Any]], None] = field(default=lambda result: None, repr=False)
    make_load: Callable[[str], Load] = field(default=TorchLoad, repr=False)

    @property
    def gpu(self) -> bool:
        """Whether the trainings run on a GPU."""
        return self.device.startswith("cuda")
