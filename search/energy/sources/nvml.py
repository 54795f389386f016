"""NVIDIA GPUs through NVML: the driver's energy counter, and the instant power beside it."""

from __future__ import annotations

import math
import os
import statistics
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any

from .nvml_driver import GA100, Calls, architecture, attempt, describe, find, instances, other_order, socket, state, visible, words
from .source import NANO, POWER_TICK_SECONDS, Capability, Clock, Reading

BOUNDARY = "GPU board"
MODULE = "GPU module: GPU, CPU and memory together"
#: Power is not read more often than this: burst polling is for the counter, and each further call costs.
POWER_EVERY_NS = 3_000_000
#: A reading of the power is as old as the last refresh at most, and a mean of 25 ms itself. Source: the same.
LAG_SECONDS = 0.125
#: Nobody states how late the counter is: by a period of its sensor at most. `tests/hardware/check.py --only tick` measures it.
COUNTER_LAG_SECONDS = 0.1
#: The same where it was measured: 0.008 and 0.010 s early, by loads that begin and end. Source: `tests/hardware/check.py --only tick` on
#: an H200 and an H100, driver 580, see search/energy/README.md.
MEASURED_LAG_SECONDS = 0.02
#: Over seconds a GPU draws no more than so many times its power limit.
OVER_LIMIT = 1.1
#: The plain call's power is a mean over this long on Ampere and later. Source: NVML API reference, nvmlDeviceGetPowerUsage.
AVERAGED_SECONDS = 1.0
#: What this process does not use is read this rarely: nobody is billed for it, so no edge of a window waits for it.
UNUSED_EVERY_NS = 50_000_000
#: A reading of the counter is dear from this much CPU time on, in seconds; dear ones take this share of a core. They are not read from
#: memory: in virtual machines the driver asks the GPU's own processor (2.4 ms, `tests/hardware/check.py --only tick`).
DEAR_SECONDS, DEAR_SHARE = 0.0005, 0.002
#: What helps where a GPU cannot be opened, by NVML's error: NO_PERMISSION, GPU_IS_LOST, RESET_REQUIRED. Source: nvml.h, nvmlReturn_t.
REMEDIES = {
    4: "nothing to do if another job holds it; else ask the scheduler for it, or for access to /dev/nvidia*",
    15: "it fell off the bus: the kernel's log (dmesg) has the Xid; restart the machine",
    16: "reset it while nobody uses it: nvidia-smi --gpu-reset",
}
#: GPUs whose sensor measures for a part of the time only. Source: Yang et al. 2024, arXiv:2312.02741 (25 of every 100 ms on A100 and H100).
PART_TIME = {"A100": 0.25, "H100": 0.25, "H200": 0.25}
#: GPUs whose counter misses nothing: it shows one power under pulses in step with the sensor, where the power goes up and down with their
#: phase. Source: `tests/hardware/check.py --only counter`, driver 580, see search/energy/README.md.
WHOLE_COUNTERS = {"H100", "H200"}
#: Relatives of them, of which nobody has published it: taken to be no better, as any GPU of Hopper, Blackwell or later.
UNPUBLISHED = GA100 - {"A100"}
#: NVML_DEVICE_ARCH_HOPPER.
HOPPER = 9
#: Standard uncertainty of the board's sensor: NVIDIA states ± 5 %, taken as a uniform distribution's half-width and rounded up for
#: sensors that see only a part of the time. Source: nvidia-smi manual, "Power Readings"; Yang et al. 2024, arXiv:2312.02741.
GAIN_U = 0.05


@dataclass(frozen=True)
class Device:
    """One GPU; ``component`` is ``gpu:`` and its UUID, ``handle`` NVML's; ``used`` if it is this process's to use.

    ``rest_ns`` is the time between two readings of a counter that is dear to read, else zero.
    """

    component: str
    handle: Any
    calls: Calls
    used: bool
    rest_ns: int = 0


class Nvml:
    """The GPUs of this process; of those that are not among the components ``used`` the energy is shown and not counted (None: all are).

    The counter is up to ``counter_lag_seconds`` late: what is not known of it is in the uncertainty of windows at whose edges the power
    changes. ``lag_of`` returns, by a GPU's facts, lag and standard uncertainty in seconds where they were measured, or None.
    """

    name = "nvml"

    def __init__(
        self,
        clock: Clock = time.monotonic_ns,
        environment: Mapping[str, str] | None = None,
        used: Collection[str] | None = None,
        counter_lag_seconds: float = COUNTER_LAG_SECONDS,
        sleep: Callable[[float], None] = time.sleep,
        lag_of: Callable[[Mapping[str, Any]], tuple[float, float] | None] = lambda facts: None,
    ) -> None:
        self.sleep, self._lag_of = sleep, lag_of
        self._counter_lag = counter_lag_seconds
        self.clock, self._environment, self._used = clock, os.environ if environment is None else environment, used
        self._nvml: Any = None
        self._devices: tuple[Device, ...] = ()
        self._powered_ns: dict[str, int] = {}
        self._counted_ns: dict[str, int] = {}
        self._unused: dict[str, Reading] = {}
        self._facts: dict[str, dict[str, Any]] = {}

    def probe(self) -> tuple[Capability, ...]:
        """Return the GPUs that CUDA shows to this process, and those that cannot be opened, as on nodes that several jobs share."""
        absent = self._start()
        if absent is not None:
            return (absent,)
        nvml = self._nvml
        # One that cannot be opened has no number in CUDA either, which lists what it can open.
        handles: dict[str, Any] = {}
        devices, found = [], []
        count = attempt(nvml, nvml.nvmlDeviceGetCount)
        if isinstance(count, nvml.NVMLError):
            return (_absent("gpu", f"the driver does not list its GPUs: {count}", _remedy(count)),)
        for index in range(count):
            try:
                handle = nvml.nvmlDeviceGetHandleByIndex(index)
                handles[nvml.nvmlDeviceGetUUID(handle)] = handle
            except nvml.NVMLError as error:
                found.append(_absent(f"gpu:{index}", f"the driver does not open GPU {index}: {error}", _remedy(error)))
        if self._used:  # CUDA calls an instance by its own UUID, in the words of a GPU's
            unknown = {name: f"MIG-{name.removeprefix('gpu:GPU-')}" for name in self._used if name.removeprefix("gpu:") not in handles}
            self._used = [f"gpu:{self._gpu_of(unknown[name])}" if name in unknown else name for name in self._used]
        chosen = self._chosen(tuple(handles))
        sockets = [socket(nvml, handle) for handle in handles.values()]
        if not chosen and (handles or not found):
            reason = "CUDA_VISIBLE_DEVICES shows no GPU to this process" if handles else "the driver knows no GPU"
            found.append(_absent("gpu", reason))
        # What is known to be used is named by its UUID, which no order changes.
        names = [str(attempt(nvml, nvml.nvmlDeviceGetName, handle)) for handle in handles.values()]
        doubt = other_order(names, self._environment) if self._used is None else None
        for uuid in chosen:
            beside = socket(nvml, handles[uuid])
            alone = len(handles) == 1 or (beside is not None and sockets.count(beside) == 1)
            device, capability = self._probe_device(f"gpu:{uuid}", handles[uuid], alone)
            if doubt is not None:
                capability = replace(capability, reason="; ".join(filter(None, (doubt, capability.reason))))
            found.append(capability)
            if capability.available:
                devices.append(device)
        self._devices = tuple(devices)
        return tuple(found)

    def _start(self) -> Capability | None:
        """Load the driver's library, or return why not."""
        if self._nvml is not None:
            return None
        try:
            import pynvml
        except ImportError:
            return _absent("gpu", "the package nvidia-ml-py is not installed", "pip install nvidia-ml-py")
        if not hasattr(pynvml, "nvmlDeviceGetFieldValues") or not hasattr(pynvml, "NVML_FI_DEV_POWER_INSTANT"):
            return _absent(
                "gpu", f"{pynvml.__file__} is not NVIDIA's binding, or too old", "pip uninstall pynvml; pip install -U nvidia-ml-py"
            )
        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError as error:
            if error.value in (pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, pynvml.NVML_ERROR_DRIVER_NOT_LOADED):
                return _absent("gpu", f"no NVIDIA driver: {error}")
            return _absent("gpu", f"the NVIDIA driver does not start: {error}", "run nvidia-smi: it names the fault")
        self._nvml = pynvml
        return None

    def _chosen(self, uuids: tuple[str, ...]) -> tuple[str, ...]:
        # What is known to be used is metered whatever number it has: CUDA may count by speed, NVML counts by the place on the bus.
        used = [uuid for uuid in uuids if f"gpu:{uuid}" in (self._used or ())]
        chosen = tuple(dict.fromkeys([*visible(uuids, self._environment), *used]))
        named = instances(self._environment)
        if chosen or not named:
            return chosen
        parents = takewhile(lambda parent: parent is not None, map(self._gpu_of, named))
        return tuple(dict.fromkeys(uuid for uuid in parents if uuid in uuids))

    def _gpu_of(self, instance: str) -> str | None:
        """Return the UUID of the GPU that a MIG instance belongs to, whose UUID newer drivers give; None where there is no such."""
        try:
            handle = self._nvml.nvmlDeviceGetHandleByUUID(instance.encode())
            return str(self._nvml.nvmlDeviceGetUUID(self._nvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(handle)))
        except self._nvml.NVMLError:
            return None

    def _probe_device(self, component: str, handle: Any, alone: bool) -> tuple[Device, Capability]:
        nvml = self._nvml
        facts, calls = describe(nvml, handle), find(nvml, handle, alone, self.clock, self.sleep)
        rest_seconds = 0.0 if calls.counter is None or calls.power is None else _rest_seconds(nvml, calls.counter)
        device = Device(component, handle, calls, self._used is None or component in self._used, round(rest_seconds * NANO))
        if calls.counter is None and calls.power is None:
            reason = f"{facts['name']} gives neither energy nor power ({calls.fault})"
            if facts["virtualisation"] == "vgpu":
                reason = f"{facts['name']} is a virtual GPU: its energy is known only to the host"
            return device, _absent(component, reason, _remedy(calls.fault))
        notes = [] if device.used else ["not used by this run: shown, not counted"]
        if calls.counter is None:
            kind = "power, averaged by the driver over up to 1 s," if calls.averaged else "instant power"
            notes.append(f"no energy counter ({calls.fault}): {kind} is integrated")
        sees, published = _sees(facts["name"], architecture(nvml, handle))
        whole = bool(words(facts["name"]) & WHOLE_COUNTERS) and calls.counter is not None and not calls.module
        if sees < 1 and not whole:
            known = "this GPU's sensor measures" if published else "nobody has published when this GPU's sensor measures, at worst"
            notes.append(f"{known} for {sees:.0%} of the time: what a load does meanwhile is in the uncertainty")
        if device.used:
            # Energies of a module and of a GPU are told apart as those of other hardware.
            self._facts[component] = facts | ({"boundary": MODULE} if calls.module else {})
        whose, attribution, shared = _sharing(facts)
        notes += shared
        measured = self._lag_of(facts)
        lag = min(self._counter_lag, MEASURED_LAG_SECONDS) if whole else self._counter_lag
        gain = GAIN_U if calls.counter else 0.15 if calls.averaged else 0.07
        return device, Capability(
            component,
            self.name,
            True,
            boundary=MODULE if calls.module else BOUNDARY,
            reason="; ".join(notes) or None,
            remedy="switch MIG off for exact energy: sudo nvidia-smi -mig 0" if facts["mig"] else None,
            tick_seconds=None if calls.counter else AVERAGED_SECONDS if calls.averaged else POWER_TICK_SECONDS,
            resolution_joules=0.001,
            lag_seconds=LAG_SECONDS if calls.power else 0.0,
            mean_seconds=AVERAGED_SECONDS if calls.averaged else 0.0,
            smooths=not calls.averaged and not published,
            # What is left of it is normal; the ledger takes it for uniform.
            counter_lag_seconds=lag if measured is None else math.sqrt(3) * measured[1],
            counter_delay_seconds=0.0 if measured is None else measured[0],
            most_watts=None if calls.module or facts["power_limit_watts"] is None else OVER_LIMIT * facts["power_limit_watts"],
            sees=sees,
            counter_sees=1.0 if whole else sees,
            rest_seconds=rest_seconds,
            gain_u=gain,
            counts=device.used and whose,
            covers=(component, "cpu", "dram") if calls.module else (),
            attribution=attribution,
        )

    def read(self) -> tuple[Reading, ...]:
        """Read the counter of every GPU, and its power occasionally; of what is not used the last reading may be given again."""
        return tuple([self._read_device(device) if device.used else self._read_unused(device) for device in self._devices])

    def fast_read(self) -> tuple[Reading, ...]:
        """Read as `read` does, but of a counter that is dear to read, and was read a short while ago, the power alone."""
        return tuple([self._read_device(device, fast=True) if device.used else self._read_unused(device) for device in self._devices])

    def _read_unused(self, device: Device) -> Reading:
        last = self._unused.get(device.component)
        if last is None or self.clock() - last.t_ns >= max(UNUSED_EVERY_NS, device.rest_ns):
            last = self._unused[device.component] = self._read_device(device)
        return last

    def _read_device(self, device: Device, *, fast: bool = False) -> Reading:
        calls, counter, watts, error = device.calls, None, None, None
        before = self.clock()
        count = calls.counter
        if fast and device.rest_ns > 0 and before - self._counted_ns.get(device.component, before - device.rest_ns) < device.rest_ns:
            count = None
        powered = before - self._powered_ns.get(device.component, 0) >= POWER_EVERY_NS or count is None
        together = calls.both if powered and count is not None else None
        try:
            if together is not None:
                counter, watts = together()
            elif count is not None:
                counter = count()
        except self._nvml.NVMLError as failed:
            error = failed
        after = self.clock()
        if powered and together is None and calls.power is not None:
            try:
                watts = calls.power()
            except self._nvml.NVMLError as failed:
                error = error or failed
        if watts is not None:
            self._powered_ns[device.component] = before
        if counter is not None:
            self._counted_ns[device.component] = before
        if count is None:
            after = self.clock()
        text = None if counter is not None or watts is not None else f"{device.component} cannot be read: {error}"
        return Reading(device.component, (before + after) // 2, (after - before) // 2, counter, watts, text)

    def devices(self) -> dict[str, dict[str, Any]]:
        """Return name, driver and power limit of each used GPU, for the description of the hardware: no other decides on energy."""
        return self._facts

    def edges(self) -> dict[str, dict[str, float | int | str | None]]:
        """Return temperature, clock, the reasons of throttling and the power of its memory, a part of its own, of each GPU."""
        return {device.component: state(self._nvml, device.handle, device.calls.memory) for device in self._devices}

    def utilisation(self) -> dict[str, float]:
        """Return the share of the last moments in which any kernel ran, however small; drivers do not report it under MIG."""
        ask, used = self._nvml.nvmlDeviceGetUtilizationRates, [device for device in self._devices if device.used]
        rates = {device.component: attempt(self._nvml, ask, device.handle) for device in used}
        return {name: rate.gpu / 100 for name, rate in rates.items() if not isinstance(rate, self._nvml.NVMLError)}

    def foreign(self) -> dict[str, tuple[int, ...]]:
        """Return the processes that compute on each used GPU; which of them are ours is for the caller to say."""
        found = {}
        for device in (device for device in self._devices if device.used):
            running = attempt(self._nvml, self._nvml.nvmlDeviceGetComputeRunningProcesses, device.handle)
            if isinstance(running, list):
                found[device.component] = tuple(process.pid for process in running)
        return found

    def close(self) -> None:
        """Shut NVML down; it counts its users, so others keep theirs."""
        if self._nvml is not None:
            attempt(self._nvml, self._nvml.nvmlShutdown)
            self._nvml, self._devices = None, ()


def _absent(component: str, reason: str, remedy: str | None = None) -> Capability:
    return Capability(component, Nvml.name, False, boundary=BOUNDARY, reason=reason, remedy=remedy)


def _remedy(error: Any) -> str | None:
    """Return what helps against NVML's error; nothing does against a missing feature (NOT_SUPPORTED)."""
    code = getattr(error, "value", None)
    return None if code in (None, 3) else REMEDIES.get(code, "run nvidia-smi: it names the fault")


def _rest_seconds(nvml: Any, counter: Callable[[], float]) -> float:
    """Return how long a counter is left alone between two readings, so that they take ``DEAR_SHARE`` of a core; zero for a cheap one."""
    spent = []
    for _ in range(5):
        begin = time.thread_time()
        attempt(nvml, counter)
        spent.append(time.thread_time() - begin)
    seconds = statistics.median(spent)
    return seconds / DEAR_SHARE if seconds >= DEAR_SECONDS else 0.0


def _sharing(facts: Mapping[str, Any]) -> tuple[bool, str, list[str]]:
    """Return whether what the driver shows of a GPU is this machine's own, how it is attributed, and what is to be said of it."""
    if facts["virtualisation"] == "vgpu":
        own, attribution = False, "shared(with other virtual machines)"
        said = ["a virtual GPU: what the driver shows is not this machine's share, so it is not counted"]
    else:
        own, attribution, said = True, "exclusive", []
    if not facts["mig"]:
        return own, attribution, said
    if facts["mig_whole"]:
        return own, attribution, ["MIG is on, and its one instance has all of the GPU", *said]
    end, count = "NVML knows the whole GPU only, so it is shown and not counted", facts["mig_instances"]
    seen = f"MIG is on with {count} instances: {end}"
    if count == 1:
        seen = f"MIG is on, and the one instance that is seen is a part of the GPU (a container hides others): {end}"
    return False, attribution if said else "shared(the whole GPU's, with its other instances)", [seen, *said]


def _sees(name: str, architecture: int | None) -> tuple[float, bool]:
    """Return the share of the time in which a GPU's sensor measures, and whether somebody has published it."""
    for word in words(name):
        if word in PART_TIME:
            return PART_TIME[word], True
    worst = architecture is None or architecture >= HOPPER or words(name) & UNPUBLISHED
    return (min(PART_TIME.values()) if worst else 1.0), False
