"""Calls to NVIDIA's driver through NVML: energy and power, facts and state of a GPU, and which GPUs this process may use.

After a tenth of a second of sleep every path through the interpreter and the driver is cold, and a call through the binding spends more
on building its arguments than the driver on answering: what is read ten times a second keeps its arguments.
"""

from __future__ import annotations

import ctypes
import math
import os
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import takewhile
from typing import Any

from .source import NANO, Clock

#: Joules or watts; raises NVML's error.
Number = Callable[[], float]
#: Joules and watts, each None when the driver did not give it.
Both = Callable[[], tuple[float | None, float | None]]


@dataclass(frozen=True)
class Calls:
    """What one GPU can be asked.

    Attributes:
        counter: Returns the joules of the energy counter, or None without one; ``power`` the watts now.
        both: Returns the two from one call, each None when it failed; None where the driver does not give them so.
        averaged: Whether the power is the driver's average of up to a second.
        module: Whether counter and power are those of a module: GPU, CPU and memory together.
        memory: Returns the watts of the GPU's memory, a part of its power, as a mean of about a second; None where that is not told.
        fault: NVML's error in place of the counter, or None.
    """

    counter: Number | None
    power: Number | None
    both: Both | None
    averaged: bool = False
    module: bool = False
    memory: Number | None = None
    fault: Exception | None = None


#: A counter is watched for so many readings, 10 ms apart, or until it has moved for so long.
WATCHED, WATCHED_NS = 60, NANO // 5
#: Words in the names of GPUs with the chip GA100; A100X and A30X have a network card besides, 170HX is called CMP.
GA100 = {"A100", "A100X", "A800", "A30", "A30X", "170HX"}


def words(name: str) -> set[str]:
    """Return the words of a GPU's name: an RTX A1000 is no A100."""
    return set(re.findall(r"[A-Za-z0-9]+", name))


def architecture(nvml: Any, handle: Any) -> int | None:
    """Return NVML's number of the architecture, or None where the driver does not tell or know it."""
    found = attempt(nvml, nvml.nvmlDeviceGetArchitecture, handle)
    return found if isinstance(found, int) and found != nvml.NVML_DEVICE_ARCH_UNKNOWN else None


def find(
    nvml: Any, handle: Any, alone: bool = True, clock: Clock = time.monotonic_ns, sleep: Callable[[float], None] = time.sleep
) -> Calls:
    """Try what a GPU answers; ``alone`` if no other GPU is on its module.

    The plain call for the power is an average over a second on Ampere and later, except GA100, so the field of the instant power comes
    first. Power may have three scopes: GPU, module, and memory, which is a part of the GPU's and only told as an average. Of whose energy
    the counter is, no document says: where a module's power can be read, the counter is watched beside both. Counter and power are of one
    boundary; a module's counter is not taken where several GPUs would each be billed for the same module.

    Source: NVML API reference, nvmlDeviceGetPowerUsage, nvmlDeviceGetFieldValues and nvmlDeviceGetArchitecture; fields
    NVML_FI_DEV_POWER_INSTANT, NVML_FI_DEV_POWER_AVERAGE and NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION; nvmlPowerScopeType_t. The counter of
    GH200 is the module's: github.com/ml-energy/zeus/pull/172; only the average of the memory is told: github.com/ml-energy/zeus/pull/122.
    """
    whole, part, of_memory = nvml.NVML_POWER_SCOPE_MODULE, nvml.NVML_POWER_SCOPE_GPU, nvml.NVML_POWER_SCOPE_MEMORY

    def counter() -> float:
        return float(nvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1000

    def field(number: int, scope: int) -> float:
        found = nvml.nvmlDeviceGetFieldValues(handle, [(number, scope)])[0]
        if found.nvmlReturn != nvml.NVML_SUCCESS:
            raise nvml.NVMLError(found.nvmlReturn)
        return float(found.value.uiVal) / 1000

    def averaged() -> float:
        return float(nvml.nvmlDeviceGetPowerUsage(handle)) / 1000

    instant, instant_module = (partial(field, nvml.NVML_FI_DEV_POWER_INSTANT, scope) for scope in (part, whole))
    memory = partial(field, nvml.NVML_FI_DEV_POWER_AVERAGE, of_memory)
    fault = _fault(nvml, counter)
    told = attempt(nvml, instant_module)
    own: Number | None = next((call for call in (instant, averaged) if _fault(nvml, call) is None), None)
    module = (
        fault is None and isinstance(told, float) and told > 0 and _of_module(nvml, counter, own or instant, instant_module, clock, sleep)
    )
    if module and not alone:
        module, fault = False, RuntimeError("that of this GPU is its module's, where other GPUs are, too")
    power, both = instant_module if module else own, None
    if fault is None and power not in (None, averaged):
        both = _fields(nvml, handle, nvml.NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION, nvml.NVML_FI_DEV_POWER_INSTANT, whole if module else part)
        both = both if _agree(nvml, counter, both) else None
    known = architecture(nvml, handle)
    instantly = known is not None and known <= nvml.NVML_DEVICE_ARCH_TURING
    instantly = instantly or bool(words(str(attempt(nvml, nvml.nvmlDeviceGetName, handle))) & GA100)
    tells_memory = isinstance(found := attempt(nvml, memory), float) and found > 0  # an unsupported GPU may answer zero
    return Calls(
        None if fault else counter, power, both, power is averaged and not instantly, module, memory if tells_memory else None, fault
    )


def _of_module(nvml: Any, counter: Number, gpu: Number, module: Number, clock: Clock, sleep: Callable[[float], None]) -> bool:
    """Whether a counter runs at the power of the module rather than that of the GPU; taken for the module's where it cannot be told."""
    changes: list[tuple[int, float]] = []
    watts: list[tuple[float, float]] = []
    last: float | None = None
    try:
        for _ in range(WATCHED):
            joules, now = counter(), clock()
            if last is not None and joules != last:
                changes.append((now, joules))
            if len(changes) > 2 and now - changes[0][0] >= WATCHED_NS:
                break
            last = joules
            watts.append((gpu(), module()))
            sleep(0.01)
    except nvml.NVMLError:
        return True
    if len(changes) < 2:
        return True
    (first_ns, first), (last_ns, latest) = changes[0], changes[-1]
    own, all_of_it = (sum(one) / len(watts) for one in zip(*watts, strict=True))
    return (latest - first) / (last_ns - first_ns) * NANO > math.sqrt(own * all_of_it)


def socket(nvml: Any, handle: Any) -> tuple[int, ...] | None:
    """Return the CPUs of the socket that a GPU is beside, as bits: GPUs of one module have one; None where the driver does not tell."""
    words_needed = -(-(os.cpu_count() or 1) // 64)
    ask = getattr(nvml, "nvmlDeviceGetCpuAffinityWithinScope", None)
    found = None if ask is None else attempt(nvml, ask, handle, words_needed, nvml.NVML_AFFINITY_SCOPE_SOCKET)
    return None if found is None or isinstance(found, nvml.NVMLError) else tuple(found)


def _fields(nvml: Any, handle: Any, energy_id: int, power_id: int, scope: int) -> Both:
    """Return how to read two fields into memory that is used again and again: the binding would make new types and arrays each time."""
    values = (nvml.c_nvmlFieldValue_t * 2)()
    energy, power = values
    energy.fieldId, power.fieldId, power.scopeId = energy_id, power_id, scope
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


def _fault(nvml: Any, call: Callable[[], float]) -> Exception | None:
    answer = attempt(nvml, call)
    return answer if isinstance(answer, nvml.NVMLError) else None


def _agree(nvml: Any, counter: Number, both: Both) -> bool:
    """Return whether the field of the energy is the counter: it must lie between two readings around it."""
    try:
        before, (joules, watts), after = counter(), both(), counter()
    except nvml.NVMLError:
        return False
    return joules is not None and watts is not None and before <= joules <= after


#: Bits of what slows a GPU down. Source: nvml.h, nvmlClocksEventReasons.
REASONS = {0x4: "power cap", 0x8: "hardware slowdown", 0x20: "thermal (software)", 0x40: "thermal (hardware)", 0x80: "power brake"}
#: Source: nvml.h, nvmlGpuVirtualizationMode_t.
VIRTUALISATION = {0: "none", 1: "passthrough", 2: "vgpu", 3: "vgpu host", 4: "vsga host"}


def attempt(nvml: Any, call: Callable[..., Any], *arguments: Any) -> Any:
    """Return what a call gives, or the error that it raised."""
    try:
        return call(*arguments)
    except nvml.NVMLError as error:
        return error


def describe(nvml: Any, handle: Any) -> dict[str, Any]:
    """Return name, driver, power limit, and whether a GPU is split (MIG) or virtual; what the driver does not report is None."""
    mig = attempt(nvml, nvml.nvmlDeviceGetMigMode, handle)
    enabled = isinstance(mig, list) and mig[0] == 1
    instances = _instances(nvml, handle) if enabled else []
    mode = attempt(nvml, nvml.nvmlDeviceGetVirtualizationMode, handle)
    limit = attempt(nvml, nvml.nvmlDeviceGetEnforcedPowerLimit, handle)
    return {
        "name": _known(attempt(nvml, nvml.nvmlDeviceGetName, handle), str) or "GPU",
        "driver": _known(attempt(nvml, nvml.nvmlSystemGetDriverVersion), str),
        "power_limit_watts": limit / 1000 if isinstance(limit, int) else None,
        "mig": enabled,
        "mig_instances": len(instances),
        "mig_whole": len(instances) == 1 and _whole(nvml, handle, instances[0]),
        "virtualisation": VIRTUALISATION.get(mode if isinstance(mode, int) else -1),
    }


def state(nvml: Any, handle: Any, memory: Number | None = None) -> dict[str, float | int | str | None]:
    """Return temperature, clock, the reasons of throttling and, where it can be asked, the memory's power; what is not told is None."""
    throttle = _known(attempt(nvml, nvml.nvmlDeviceGetCurrentClocksEventReasons, handle), int)
    of_memory = {} if memory is None else {"memory_watts": _known(attempt(nvml, memory), float)}
    return of_memory | {
        "temperature_celsius": _temperature(nvml, handle),
        "clock_mhz": _known(attempt(nvml, nvml.nvmlDeviceGetClockInfo, handle, nvml.NVML_CLOCK_SM), int),
        "throttle": None if throttle is None else ", ".join(name for bit, name in REASONS.items() if throttle & bit),
    }


def _instances(nvml: Any, handle: Any) -> list[Any]:
    """Return the handles of the instances of a GPU that this process may see: a container is shown its own, beside whatever others."""
    most = attempt(nvml, nvml.nvmlDeviceGetMaxMigDeviceCount, handle)
    count = most if isinstance(most, int) else 0
    found = (attempt(nvml, nvml.nvmlDeviceGetMigDeviceHandleByIndex, handle, index) for index in range(count))
    return [instance for instance in found if not isinstance(instance, nvml.NVMLError)]


def _whole(nvml: Any, handle: Any, instance: Any) -> bool:
    """Whether an instance has every slice of its GPU, so that there is none beside it; not where the driver does not tell."""
    most, has = attempt(nvml, nvml.nvmlDeviceGetMaxMigDeviceCount, handle), attempt(nvml, nvml.nvmlDeviceGetAttributes, instance)
    return not isinstance(has, nvml.NVMLError) and min(has.gpuInstanceSliceCount, has.computeInstanceSliceCount) >= most


def _temperature(nvml: Any, handle: Any) -> int | None:
    # Drivers before 560 know only the older call.
    for call in (getattr(nvml, "nvmlDeviceGetTemperatureV", None), getattr(nvml, "nvmlDeviceGetTemperature", None)):
        found = None if call is None else attempt(nvml, call, handle, nvml.NVML_TEMPERATURE_GPU)
        if isinstance(found, int):
            return found
    return None


def _known(value: Any, kind: type) -> Any:
    return value if isinstance(value, kind) else None


def visible(uuids: Sequence[str], environment: Mapping[str, str]) -> tuple[str, ...]:
    """Return the UUIDs of the GPUs that CUDA shows to this process, in CUDA's order.

    NVML sees every GPU of the machine, CUDA only those of ``CUDA_VISIBLE_DEVICES``: indices, UUIDs or beginnings of UUIDs. As CUDA
    does, the first entry says of which kind all are, the list ends at the first one that names nothing, and one that is named twice leaves
    none. An index counts in PCI order, which is CUDA's order when ``CUDA_DEVICE_ORDER=PCI_BUS_ID`` is set or the GPUs are alike.

    Source: CUDA C++ Programming Guide, "CUDA Environment Variables"; what it does not say, as tried for PyTorch's ``torch.cuda``
    (``_parse_visible_devices``, github.com/pytorch/pytorch/pull/84879).
    """
    text = environment.get("CUDA_VISIBLE_DEVICES")
    if text is None:
        return tuple(uuids)
    chosen: list[str] = []
    kind = next((prefix for prefix in ("GPU-", "MIG-") if text.startswith(prefix)), "")
    for entry in text.split(","):
        number = re.match(r"[+-]?[0-9]+", entry.strip())  # what follows a number is ignored
        if not kind:
            found = list(uuids[int(number[0]) :][:1]) if number and int(number[0]) >= 0 else []
        elif kind == "MIG-":
            # Older drivers name an instance after its GPU: MIG-GPU-<uuid>/<gi>/<ci>.
            found = [uuid for uuid in uuids if entry.startswith("MIG-GPU-") and uuid == entry.removeprefix("MIG-").split("/")[0]]
        else:
            found = [uuid for uuid in uuids if entry.startswith(kind) and uuid.startswith(entry)]
        if len(found) != 1:
            break
        chosen += found
    several = dict.fromkeys(chosen)
    return tuple(several) if len(several) == len(chosen) or kind == "MIG-" else ()


def other_order(names: Sequence[str], environment: Mapping[str, str]) -> str | None:
    """Return why a number in ``CUDA_VISIBLE_DEVICES`` may be another GPU's for CUDA than for NVML, or None.

    Source: CUDA C++ Programming Guide, "CUDA Environment Variables": by default CUDA counts unlike GPUs by speed, the fastest first.
    """
    text = environment.get("CUDA_VISIBLE_DEVICES", "")
    numbered = any(entry.strip().lstrip("+-").isdigit() for entry in text.split(","))
    if not numbered or len(set(names)) < 2 or environment.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID":
        return None
    return (
        f"CUDA_VISIBLE_DEVICES={text} is taken as the driver counts, by place on the bus, while CUDA counts unlike GPUs by speed: another "
        "GPU may do the work; set CUDA_DEVICE_ORDER=PCI_BUS_ID, or give UUIDs"
    )


def instances(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Return the MIG instances that ``CUDA_VISIBLE_DEVICES`` names; none where its first entry is of another kind."""
    return tuple(takewhile(lambda entry: entry.startswith("MIG-"), environment.get("CUDA_VISIBLE_DEVICES", "").split(",")))
