"""Lowers the power limit of an NVIDIA GPU for one training and puts it back whatever happens."""

from __future__ import annotations

import atexit
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

import torch
from torch import nn

from .tactic import NoOp

#: Signals that end a process without its ``finally`` blocks unless something listens. SIGINT raises KeyboardInterrupt and needs nothing.
_SIGNALS = ("SIGTERM", "SIGHUP")


class PowerLimit(NoOp):
    """Trains under a GPU power limit of ``watts``.

    Needs the right to change it (root, or a container with that right); otherwise the training is rejected with the reason, never run at
    another limit. The previous limit is put back by ``detach``, at the exit of the process, and on SIGTERM and SIGHUP; only SIGKILL and
    a power cut leave it, until the next reboot or driver reload.

    Source: NVML API reference, nvmlDeviceSetPowerManagementLimit and nvmlDeviceGetPowerManagementLimitConstraints (milliwatts).
    """

    def __init__(self, *, watts: float, nvml: Any = None) -> None:
        """Choose the limit of the GPU that the model is on; watts that are not positive raise ValueError.

        ``nvml`` is a module with the functions of ``pynvml``; None is ``pynvml`` itself.
        """
        if not watts > 0:
            raise ValueError(f"power_limit.watts must be > 0, got {watts!r}; leave the tactic out for the GPU's own limit")
        self.watts = watts
        self._nvml = nvml
        self._restore: Restore | None = None

    def attach(self, model: nn.Module) -> None:
        """Set the limit on the GPU that holds the model.

        Raises:
            ValueError: If the model is not on an NVIDIA GPU or the limit is outside what the GPU allows.
            PermissionError: If this process may not change the limit.
            RuntimeError: If NVML cannot be used or does not accept the limit.
        """
        device = next((parameter.device for parameter in model.parameters()), None)
        if device is None or device.type != "cuda":
            raise ValueError(f"power_limit needs a model on an NVIDIA GPU, got one on {device}; leave the tactic out of this study")
        uuid = str(torch.cuda.get_device_properties(device).uuid)
        self._restore = set_power_limit(uuid, self.watts, self._nvml)

    def detach(self) -> dict[str, float]:
        """Put the previous limit back; return both limits in watts."""
        if self._restore is None:
            return {}
        restore, self._restore = self._restore, None
        restore()
        return {"power_limit_watts": self.watts, "power_limit_before_watts": restore.before_watts}


class Restore:
    """Puts a GPU's power limit back once, at whichever comes first: ``detach``, the exit of the process or a signal."""

    def __init__(self, before_watts: float, put_back: Callable[[], None]) -> None:
        """Listen to the exit and, in the main thread, to signals; ``put_back`` restores ``before_watts``."""
        self.before_watts = before_watts
        self._put_back: Callable[[], None] | None = put_back
        self._process = os.getpid()
        self._previous: dict[int, Any] = {}
        atexit.register(self)
        if threading.current_thread() is threading.main_thread():
            for number in (getattr(signal, name) for name in _SIGNALS if hasattr(signal, name)):
                self._previous[number] = signal.signal(number, self._on_signal)

    def __call__(self) -> None:
        """Put the limit back unless that was done; a forked child leaves it to its parent."""
        put_back, self._put_back = self._put_back, None
        if put_back is None or os.getpid() != self._process:
            return
        try:
            put_back()
        finally:
            atexit.unregister(self)
            self._stop_listening()

    def _stop_listening(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        for number, handler in self._previous.items():
            if signal.getsignal(number) == self._on_signal:  # a handler installed since then keeps the signal
                signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._previous = {}

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        previous = self._previous.get(number)
        self()
        if callable(previous):
            previous(number, frame)
        elif previous != signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)


def set_power_limit(uuid: str, watts: float, nvml: Any = None) -> Restore:
    """Set the power limit of the GPU with this UUID and return what puts the old one back.

    ``nvml`` is a module with the functions of ``pynvml``; None is ``pynvml`` itself. The UUID may lack its leading ``GPU-``.

    Raises:
        ValueError: If ``watts`` is outside what the GPU allows.
        PermissionError: If this process may not change the limit.
        RuntimeError: If NVML cannot be used or does not accept the limit.
    """
    if nvml is None:
        import pynvml as nvml  # type: ignore[no-redef,unused-ignore]  # a parameter of that name may be a fake
    api: Any = nvml
    try:
        api.nvmlInit()
        name = uuid if uuid.startswith(("GPU-", "MIG-")) else f"GPU-{uuid}"
        handle = api.nvmlDeviceGetHandleByUUID(name.encode())
        low, high = api.nvmlDeviceGetPowerManagementLimitConstraints(handle)
        before = api.nvmlDeviceGetPowerManagementLimit(handle)
    except api.NVMLError as error:
        raise RuntimeError(f"power_limit cannot read the power limit of this GPU: {error}; leave the tactic out") from error
    wanted = round(watts * 1000)
    if not low <= wanted <= high:
        raise ValueError(f"power_limit.watts must be between {low / 1000:g} and {high / 1000:g} on this GPU, got {watts:g}")

    def put_back() -> None:
        try:
            api.nvmlDeviceSetPowerManagementLimit(handle, before)
        except api.NVMLError as error:
            raise RuntimeError(
                f"the GPU's power limit could not be put back to {before / 1000:g} W: {error}; "
                f"run `nvidia-smi -i {name} -pl {before // 1000}` as root"
            ) from error

    restore = Restore(before / 1000, put_back)  # listens before anything changes
    try:
        api.nvmlDeviceSetPowerManagementLimit(handle, wanted)
        now = api.nvmlDeviceGetPowerManagementLimit(handle)
    except api.NVMLError as error:
        if error.value in (api.NVML_ERROR_NO_PERMISSION, api.NVML_ERROR_NOT_SUPPORTED):
            restore._put_back = lambda: None  # the new limit was not taken: there is nothing to write, only to stop listening
        restore()
        if error.value == api.NVML_ERROR_NO_PERMISSION:
            raise PermissionError("power_limit may not be changed by this user; run as root (sudo) or leave the tactic out") from error
        raise RuntimeError(f"power_limit is not accepted by this GPU: {error}; leave the tactic out") from error
    if now != wanted:
        restore()
        raise RuntimeError(f"power_limit of {watts:g} W was not accepted, the GPU reports {now / 1000:g} W; leave the tactic out")
    return restore
