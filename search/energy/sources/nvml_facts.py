"""What NVML knows of a GPU beside its energy: its name, how it is shared, how warm it is and what slows it down."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

#: Bits of what slows a GPU down. Source: nvml.h, nvmlClocksEventReasons.
REASONS = {0x4: "power cap", 0x8: "hardware slowdown", 0x20: "thermal (software)", 0x40: "thermal (hardware)", 0x80: "power brake"}
#: Source: nvml.h, nvmlGpuVirtualizationMode_t.
VIRTUALISATION = {0: "none", 1: "passthrough", 2: "vgpu", 3: "vgpu host", 4: "vsga host"}


def attempt(nvml: Any, call: Callable[..., Any], *arguments: Any) -> Any:
    """Return what a call gives, or the error that it raised.

    Args:
        nvml: NVIDIA's binding, initialised.
        call: One of its functions.
        arguments: Its arguments.
    """
    try:
        return call(*arguments)
    except nvml.NVMLError as error:
        return error


def describe(nvml: Any, handle: Any) -> dict[str, Any]:
    """Return name, driver, power limit, and whether a GPU is split (MIG) or virtual; what is not told is None.

    Args:
        nvml: NVIDIA's binding, initialised.
        handle: The GPU.
    """
    mig = attempt(nvml, nvml.nvmlDeviceGetMigMode, handle)
    enabled = isinstance(mig, list) and mig[0] == 1
    mode = attempt(nvml, nvml.nvmlDeviceGetVirtualizationMode, handle)
    limit = attempt(nvml, nvml.nvmlDeviceGetEnforcedPowerLimit, handle)
    return {
        "name": _known(attempt(nvml, nvml.nvmlDeviceGetName, handle), str) or "GPU",
        "driver": _known(attempt(nvml, nvml.nvmlSystemGetDriverVersion), str),
        "power_limit_watts": limit / 1000 if isinstance(limit, int) else None,
        "mig": enabled,
        "mig_instances": _count_instances(nvml, handle) if enabled else 0,
        "virtualisation": VIRTUALISATION.get(mode if isinstance(mode, int) else -1),
    }


def state(nvml: Any, handle: Any) -> dict[str, float | int | str | None]:
    """Return temperature, clock and the reasons of throttling of a GPU; what is not told is None.

    Args:
        nvml: NVIDIA's binding, initialised.
        handle: The GPU.
    """
    throttle = _known(attempt(nvml, nvml.nvmlDeviceGetCurrentClocksEventReasons, handle), int)
    return {
        "temperature_celsius": _temperature(nvml, handle),
        "clock_mhz": _known(attempt(nvml, nvml.nvmlDeviceGetClockInfo, handle, nvml.NVML_CLOCK_SM), int),
        "throttle": None if throttle is None else ", ".join(name for bit, name in REASONS.items() if throttle & bit),
    }


def _count_instances(nvml: Any, handle: Any) -> int:
    most = attempt(nvml, nvml.nvmlDeviceGetMaxMigDeviceCount, handle)
    count = most if isinstance(most, int) else 0
    found = (attempt(nvml, nvml.nvmlDeviceGetMigDeviceHandleByIndex, handle, index) for index in range(count))
    return sum(not isinstance(instance, nvml.NVMLError) for instance in found)


def _temperature(nvml: Any, handle: Any) -> int | None:
    # Drivers before 560 know only the older call.
    for call in (getattr(nvml, "nvmlDeviceGetTemperatureV", None), getattr(nvml, "nvmlDeviceGetTemperature", None)):
        found = None if call is None else attempt(nvml, call, handle, nvml.NVML_TEMPERATURE_GPU)
        if isinstance(found, int):
            return found
    return None


def _known(value: Any, kind: type) -> Any:
    return value if isinstance(value, kind) else None
