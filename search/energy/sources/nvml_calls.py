"""How NVML is asked for energy and power: in one call where the driver answers so, else one after the other.

After a tenth of a second of sleep every path through the interpreter and the driver is cold, and a call through the binding spends more
on building its arguments than the driver on answering: what is read ten times a second keeps its arguments.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

#: Joules or watts; raises NVML's error.
Number = Callable[[], float]
#: Joules and watts, each None when the driver did not give it.
Both = Callable[[], tuple[float | None, float | None]]


@dataclass(frozen=True)
class Calls:
    """What one GPU can be asked.

    Attributes:
        counter: Returns the joules of the energy counter, or None without one.
        power: Returns the watts now, or None without a power reading.
        both: Returns the two from one call, each None when it failed; None where the driver does not give them so.
        averaged: Whether the power is the driver's average of up to a second.
        fault: Why there is no counter, or None.
    """

    counter: Number | None
    power: Number | None
    both: Both | None
    averaged: bool = False
    fault: str | None = None


def find(nvml: Any, handle: Any) -> Calls:
    """Try what a GPU answers.

    The plain call for the power is an average over a second on Ampere and later, so the field of the instant power comes first.

    Args:
        nvml: NVIDIA's binding, initialised.
        handle: The GPU.

    Source: NVML API reference, nvmlDeviceGetPowerUsage and nvmlDeviceGetFieldValues; fields NVML_FI_DEV_POWER_INSTANT and
    NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION.
    """

    def counter() -> float:
        return float(nvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1000

    def instant() -> float:
        field = nvml.nvmlDeviceGetFieldValues(handle, [nvml.NVML_FI_DEV_POWER_INSTANT])[0]
        if field.nvmlReturn != nvml.NVML_SUCCESS:
            raise nvml.NVMLError(field.nvmlReturn)
        return float(field.value.uiVal) / 1000

    def averaged() -> float:
        return float(nvml.nvmlDeviceGetPowerUsage(handle)) / 1000

    fault = _fault(nvml, counter)
    power = next((call for call in (instant, averaged) if _fault(nvml, call) is None), None)
    both = None
    if fault is None and power is instant:
        both = _fields(nvml, handle, nvml.NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION, nvml.NVML_FI_DEV_POWER_INSTANT)
        both = both if _agree(nvml, counter, both) else None
    return Calls(None if fault else counter, power, both, power is averaged, fault)


def _fields(nvml: Any, handle: Any, energy_id: int, power_id: int) -> Both:
    """Return how to read two fields into memory that is used again and again: the binding would make new types and arrays each time."""
    values = (nvml.c_nvmlFieldValue_t * 2)()
    energy, power = values
    energy.fieldId, power.fieldId = energy_id, power_id
    joules, watts = energy.value, power.value
    ask, count, place, success = nvml.nvmlLib.nvmlDeviceGetFieldValues, ctypes.c_int(2), ctypes.byref(values), nvml.NVML_SUCCESS
    mine = threading.Lock()  # the driver writes without the interpreter's lock

    def both() -> tuple[float | None, float | None]:
        with mine:
            failed = ask(handle, count, place)
            if failed != success:
                raise nvml.NVMLError(failed)
            return (
                joules.ullVal / 1000 if energy.nvmlReturn == success else None,
                watts.uiVal / 1000 if power.nvmlReturn == success else None,
            )

    return both


def _fault(nvml: Any, call: Callable[[], float]) -> str | None:
    try:
        call()
    except nvml.NVMLError as error:
        return str(error)
    return None


def _agree(nvml: Any, counter: Number, both: Both) -> bool:
    """Return whether the field of the energy is the counter: it must lie between two readings around it."""
    try:
        before, (joules, watts), after = counter(), both(), counter()
    except nvml.NVMLError:
        return False
    return joules is not None and watts is not None and before <= joules <= after
