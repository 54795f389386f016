"""What the kernel measures of a CPU: Intel's and AMD's RAPL counters through Linux' powercap tree, and the power of NVIDIA's Grace."""

from __future__ import annotations

import os
import re
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .source import Capability, Clock, Reading

POWERCAP = Path("/sys/class/powercap")
#: The counters are refreshed every millisecond. Source: Intel SDM vol. 3B, 16.10.3 (RAPL interfaces).
TICK_SECONDS = 0.001
#: What a machine has one or several of, and what they are together.
PARTS = {"cpu": ("packages", "CPU"), "dram": ("memory counters", "memory")}
#: Neither a package, nor the memory of a socket, nor a server draws more: what gained more was counted while the machine slept.
MOST_WATTS = {"cpu": 1000.0, "dram": 1000.0, "platform": 10_000.0}
#: Source: Linux documentation, power/powercap; the counters are readable by root alone since CVE-2020-8694.
REMEDY = 'sudo chmod a+r /sys/class/powercap/*/energy_uj (udev keeps it: SUBSYSTEM=="powercap", RUN+="/bin/chmod a+r /sys%p/energy_uj")'


@dataclass(frozen=True)
class Zone:
    """One counter of the tree.

    Attributes:
        label: What the kernel calls it, e.g. ``package-0`` or ``dram``.
        component: Our name, or None when it is left out; ``reason`` says why.
        range_joules: Largest value before it starts at zero again.
    """

    path: Path
    key: str
    label: str
    component: str | None = None
    reason: str | None = None
    range_joules: float | None = None


class Rapl:
    """Package and memory energy of each socket.

    A package contains its cores and its uncore, and psys contains the packages: only packages and memory are read, so nothing
    counts twice. The tree may also show one counter under two names (MSR and MMIO, the dies of one socket): mirrors are
    found at the probe and left out.

    Args:
        watch_seconds: How long the probe waits for every counter to move at least; zero takes them as they are. Some virtual machines
            show counters that never move, and an estimate is worth more than those.
    """

    name = "rapl"

    def __init__(self, root: Path = POWERCAP, clock: Clock = time.monotonic_ns, *, watch_seconds: float = 0.0) -> None:
        self._root = root
        self._watch_seconds = watch_seconds
        self._clock = clock
        self._zones: tuple[Zone, ...] = ()
        self._handles: dict[str, int] = {}
        self.left_out: tuple[Zone, ...] = ()

    def probe(self) -> tuple[Capability, ...]:
        """Return packages and memory, those without permission as absent."""
        zones = _zones(self._root)
        if not zones:
            reason = f"no RAPL counters under {self._root}: no Intel or AMD CPU, a virtual machine, or no module intel_rapl_msr"
            return (
                Capability("cpu:package", self.name, False, boundary="CPU package", reason=reason, remedy="sudo modprobe intel_rapl_msr"),
            )
        chosen = _without_mirrors(_choose(zones))
        self.left_out = tuple(zone for zone in chosen if zone.component is None)
        wanted = [zone for zone in chosen if zone.component is not None]
        readable = {zone.key for zone in wanted if isinstance(_read(zone), float)}
        still = self._standing([zone for zone in wanted if zone.key in readable]) if self._watch_seconds else frozenset()
        readable -= still
        self._zones = tuple(zone for zone in wanted if zone.key in readable)
        return tuple(self._capability(zone, readable, wanted, still=zone.key in still) for zone in wanted)

    def _standing(self, zones: list[Zone]) -> frozenset[str]:
        """Return the counters that do not move while this waits."""
        first = {zone.key: _read(zone) for zone in zones}
        until = time.monotonic() + self._watch_seconds
        left = list(zones)
        while left and time.monotonic() < until:
            time.sleep(TICK_SECONDS)
            left = [zone for zone in left if _read(zone) == first[zone.key]]
        return frozenset(zone.key for zone in left)

    def _capability(self, zone: Zone, readable: set[str], wanted: list[Zone], *, still: bool) -> Capability:
        component = zone.component or ""
        family = component.split(":", 1)[0]
        covers = {"cpu": ("cpu",), "dram": ("dram",), "platform": ("cpu", "dram", "platform")}[family]
        boundary = {"cpu": "CPU package", "dram": "memory of the socket", "platform": "whole platform as seen by psys"}[family]
        if zone.key not in readable:
            found = _read(zone)
            root = isinstance(found, PermissionError)
            reason = f"{zone.path / 'energy_uj'} cannot be read: {found}"
            if still:
                reason = f"{zone.path / 'energy_uj'} stands still, so that it counts nothing: a virtual machine?"
            return Capability(
                component, self.name, False, boundary=boundary, reason=reason, remedy=REMEDY if root else None, needs_root=root
            )
        part = None
        alike = [other for other in wanted if (other.component or "").startswith(f"{family}:")]
        if dark := [other.component or "" for other in alike if other.key not in readable]:
            count, (what, whole) = f"{len(alike) - len(dark)} of {len(alike)}", PARTS[family]
            part = f"only {count} {what} can be read ({', '.join(dark)} cannot): not the whole {whole}, so not counted"
        return Capability(
            component,
            self.name,
            True,
            boundary=boundary,
            reason=part,
            remedy=REMEDY if part else None,
            tick_seconds=TICK_SECONDS,
            # The largest value is one step before zero, so a full turn is one step longer.
            range_joules=None if zone.range_joules is None else zone.range_joules + 1e-6,
            resolution_joules=61e-6,
            most_watts=MOST_WATTS[family],
            never_still=True,
            gain_u=0.05,
            counts=part is None,
            covers=covers,
        )

    def read(self) -> tuple[Reading, ...]:
        """Read every counter."""
        readings = []
        after = self._clock()
        for zone in self._zones:
            before, joules, error = after, None, None
            try:
                joules = int(os.pread(self._handles[zone.key], 64, 0)) * 1e-6
            except (KeyError, OSError, ValueError):
                try:
                    joules = self._read_again(zone)
                except (OSError, ValueError) as failed:
                    error = f"{zone.path / 'energy_uj'} cannot be read: {failed}"
            after = self._clock()
            readings.append(Reading(zone.component or "", (before + after) // 2, (after - before) // 2, joules, None, error))
        return tuple(readings)

    def _read_again(self, zone: Zone) -> float:
        """Read a counter whose file, which stays open, has not been opened yet or turned stale, as after a reload of the module."""
        if zone.key in self._handles:
            os.close(self._handles.pop(zone.key))
        handle = self._handles[zone.key] = _open(zone)
        return int(os.pread(handle, 64, 0)) * 1e-6

    def close(self) -> None:
        """Close the files."""
        while self._handles:
            os.close(self._handles.popitem()[1])


def _read(zone: Zone) -> float | Exception:
    """Return the counter in joules, or what went wrong; for the probe, which keeps nothing open."""
    try:
        handle = _open(zone)
        try:
            return int(os.pread(handle, 64, 0)) * 1e-6
        finally:
            os.close(handle)
    except (OSError, ValueError) as error:
        return error


def _open(zone: Zone) -> int:
    return os.open(f"{zone.path}/energy_uj", os.O_RDONLY | os.O_CLOEXEC)


def _zones(root: Path) -> list[Zone]:
    zones: list[Zone] = []
    try:
        folders = sorted(root.iterdir())
    except OSError:
        return []
    for path in folders:
        # Sub-zones lie inside of their zone; the tree's top also links to them under Linux.
        inner = [child for child in sorted(path.iterdir()) if ":" in child.name and child.is_dir()] if path.is_dir() else []
        for folder in (path, *inner):
            try:
                label = (folder / "name").read_text().strip()
            except OSError:
                continue
            if "rapl" not in folder.name or ":" not in folder.name or any(zone.key == folder.name for zone in zones):
                continue
            try:
                reach = int((folder / "max_energy_range_uj").read_text()) * 1e-6
            except (OSError, ValueError):
                reach = None
            zones.append(Zone(folder, folder.name, label, range_joules=reach))
    return zones


def _choose(zones: list[Zone]) -> list[Zone]:
    """Name the zones that make up the machine's energy; the others get the reason for which they are left out."""
    packages = {zone.label for zone in zones if zone.label.startswith("package") and not zone.key.startswith("intel-rapl-mmio")}
    labels = {zone.key: zone.label for zone in zones}
    chosen = []
    for zone in zones:
        label, parent = zone.label, labels.get(zone.key.rsplit(":", 1)[0], "")
        component = reason = None
        if zone.key.startswith("intel-rapl-mmio") and (label in packages or parent in packages):
            reason = "a second way (MMIO) to the counter of the same name"
        elif label.startswith("package"):
            component = "cpu:pkg" + label.removeprefix("package-").replace("-die-", "die")
        elif label == "dram":
            component = "dram:" + (parent.removeprefix("package-").replace("-die-", "die") or "0")
        elif label == "psys" and not any(zone.label.startswith("package") for zone in zones):
            component = "platform"
        elif label == "psys":
            reason = "psys contains the packages"
        else:
            reason = f"{label} is part of its package"
        chosen.append(Zone(zone.path, zone.key, label, component, reason, zone.range_joules))
    return chosen


def _without_mirrors(zones: list[Zone]) -> list[Zone]:
    """Leave out dies that show the counter of their socket again: two counters do not agree to the microjoule by chance."""
    kept: list[Zone] = []
    for zone in zones:
        twin = None
        if zone.component is not None and "die" in zone.component:
            socket = zone.component.split("die")[0]
            others = [other for other in kept if other.component is not None and other.component.startswith(socket + "die")]
            twin = next((other for other in others if _same(zone, other)), None)
        kept.append(zone if twin is None else Zone(zone.path, zone.key, zone.label, None, f"mirrors {twin.key}", zone.range_joules))
    return kept


def _same(one: Zone, other: Zone, reads: int = 3) -> bool:
    """Return whether two zones show one counter: equal values, read between two equal or enclosing values of the other."""
    for _ in range(reads):
        before, value, after = _read(one), _read(other), _read(one)
        if not (isinstance(before, float) and isinstance(value, float) and isinstance(after, float) and before <= value <= after):
            return False
    return True


HWMON = Path("/sys/class/hwmon")
#: Which of a socket's meters counts, best first, with its boundary and what it accounts for. ``Module`` has the GPU besides, of which NVML
#: knows its own part, and ``SysIO`` is a part of ``Grace``.
SOCKET = {"Grace": ("Grace socket: CPU and its memory", ("cpu", "dram")), "CPU": ("rail of the CPU's cores on Grace", ("cpu",))}
#: The longest time that the firmware averages over, where it does not tell.
AVERAGED_SECONDS = 1.0


class Grace:
    """The power of each NVIDIA Grace socket (GH200, GB200, Grace alone) through the kernel's ACPI power meters: a mean, integrated.

    A meter that cannot be read is not replaced by one of less: a study would change its boundary.

    Source: NVIDIA Grace Performance Tuning Guide, "Power and Thermals"; Linux, drivers/hwmon/acpi_power_meter.c, and its documentation.
    """

    name = "grace"

    def __init__(self, root: Path = HWMON, clock: Clock = time.monotonic_ns) -> None:
        self._root, self._clock = root, clock
        self._files: dict[str, Path] = {}

    def probe(self) -> tuple[Capability, ...]:
        """Return each socket; nothing where there is no Grace."""
        found: dict[tuple[str, str], Path] = {}
        for folder in sorted(self._root.glob("hwmon*")):
            for place in (folder / "device", folder):  # where older kernels show it, and newer ones
                with suppress(OSError):
                    named = re.fullmatch(r"(\w+) Power Socket (\d+)", (place / "power1_oem_info").read_text(errors="replace").strip())
                    if named is not None and named[1] in SOCKET:
                        found.setdefault((named[1], named[2]), place / "power1_average")
        kind = next((kind for kind in SOCKET if any(kind == known for known, _ in found)), "")
        self._files = {f"cpu:grace{number}": path for (known, number), path in found.items() if known == kind}
        errors = {one.component: one.error for one in self.read()}
        dark = [name for name, error in errors.items() if error]
        self._files = {name: path for name, path in sorted(self._files.items()) if name not in dark}
        part = f"only {len(self._files)} of {len(errors)} sockets can be read ({', '.join(dark)} cannot): not the whole CPU, so not counted"
        sockets = tuple(self._capability(kind, name, path, part if dark else None) for name, path in self._files.items())
        return (*sockets, *(Capability(name, self.name, False, boundary=SOCKET[kind][0], reason=errors[name]) for name in dark))

    def _capability(self, kind: str, name: str, path: Path, part: str | None) -> Capability:
        boundary, covers = SOCKET[kind]
        seconds = AVERAGED_SECONDS
        with suppress(OSError, ValueError):
            seconds = int(path.with_name("power1_average_interval").read_text()) / 1000 or AVERAGED_SECONDS
        times: dict[str, Any] = dict.fromkeys(("tick_seconds", "lag_seconds", "mean_seconds"), seconds)
        return Capability(name, self.name, True, boundary=boundary, reason=part, counts=part is None, covers=covers, **times)

    def read(self) -> tuple[Reading, ...]:
        """Read the power of every socket."""
        readings = []
        for name, path in self._files.items():
            before, watts, error = self._clock(), None, None
            try:
                watts = int(path.read_bytes()) * 1e-6
            except (OSError, ValueError) as failed:
                error = f"{path} cannot be read: {failed}"
            after = self._clock()
            readings.append(Reading(name, (before + after) // 2, (after - before) // 2, None, watts, error))
        return tuple(readings)

    def close(self) -> None:
        """Nothing is held open."""
