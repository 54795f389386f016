"""What the machine is, so that records of different machines are never compared by accident."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def describe(
    devices: Mapping[str, Mapping[str, Any]] | None = None,
    *,
    proc: Path = Path("/proc"),
    cgroup: Path = Path("/sys/fs/cgroup"),
) -> dict[str, Any]:
    """Return the facts about this machine that energy depends on.

    Args:
        devices: Facts by component that the sources know (name, driver, power limit of a GPU).
        proc: The process file system.
        cgroup: Root of the control groups.
    """
    info = _read(proc / "cpuinfo")
    fields = [line.partition(":")[::2] for line in info.splitlines()]
    values: dict[str, list[str]] = {}
    for key, value in fields:
        values.setdefault(key.strip(), []).append(value.strip())
    return {
        "cpu_model": next(iter(values.get("model name", [])), "") or platform.processor() or platform.machine(),
        "sockets": len(set(values.get("physical id", []))) or 1,
        "logical_cpus": os.cpu_count() or 1,
        "memory_bytes": _memory(_read(proc / "meminfo")),
        "machine": platform.machine(),
        "system": platform.system(),
        "virtualised": "hypervisor" in next(iter(values.get("flags", [])), "").split(),
        "cpu_limit": _cpu_limit(_read(cgroup / "cpu.max")),
        "devices": {name: dict(facts) for name, facts in (devices or {}).items()},
    }


def fingerprint(hardware: Mapping[str, Any]) -> str:
    """Return a short hash of what decides on energy.

    Serial numbers and UUIDs stay out: equal machines of a cluster compare. Driver versions stay out too: they are in the record.
    """
    kept = {key: hardware.get(key) for key in ("cpu_model", "sockets", "logical_cpus", "machine", "virtualised", "cpu_limit")}
    kinds = ("name", "power_limit_watts", "mig")
    kept["devices"] = sorted(json.dumps([facts.get(key) for key in kinds]) for facts in hardware.get("devices", {}).values())
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:12]


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _memory(meminfo: str) -> int | None:
    for line in meminfo.splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024
    return None


def _cpu_limit(text: str) -> float | None:
    """Return how many CPUs the control group allows, or None without a limit."""
    parts = text.split()
    return int(parts[0]) / int(parts[1]) if len(parts) == 2 and parts[0].isdigit() else None
