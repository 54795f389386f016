"""What a CPU-second costs: watts of one busy logical CPU, by public tables where they know it, and what idle CPU and memory draw.

Best first: servers by CPUID, from SPECpower results as Cloud Carbon Footprint averages them; other processors by name, from CodeCarbon's
table of design powers. Where neither fits, the wide default stays.
"""

from __future__ import annotations

import math
import os
import platform
import re
import sys
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

PROC = Path("/proc")
#: How far power above idle is from proportional to the load, at loads of 10 to 100 % of a server: relative, root mean square.
#: Source: SPECpower_ssj2008 results 677 (2014), 737 (2016), 780, 781 and 789 (2017): 0.24 to 0.34.
LOAD_U = 0.28
#: Watts of an idle logical CPU of a processor that is in no table. Source: Cloud Carbon Footprint, methodology, appendix I (AWS's mean).
IDLE_WATTS = 0.74
#: Watts per GB of memory. Source: Cloud Carbon Footprint, methodology, "Memory": mean of Crucial's 0.375 and Micron's 0.408.
MEMORY_WATTS = 0.392
#: As wide as for a guess: a design power is a limit for cooling and holds idle power, and neither memory nor idle power is known by model.
WIDE_U = 0.5
#: Watts above idle of one busy logical CPU, when nothing better is known: cloud machines draw 0.74 W per idle and 3.5 W per
#: busy virtual CPU on average.
#: Source: Cloud Carbon Footprint, methodology, appendix I (average of AWS's machines).
DEFAULT_CORE_WATTS = 2.8


@dataclass(frozen=True)
class CpuCoefficients:
    """What a CPU-second costs: the power above idle of one busy logical CPU, that of the idle CPU or None when unknown, and their origin.

    Raises:
        ValueError: If a power is not positive.
    """

    core_watts: float
    idle_watts: float | None = None
    gain_u: float = 0.5
    origin: str = "default"

    def __post_init__(self) -> None:
        if not self.core_watts > 0:
            raise ValueError(f"core_watts must be > 0, got {self.core_watts!r}")
        if self.idle_watts is not None and not self.idle_watts >= 0:
            raise ValueError(f"idle_watts must be >= 0, got {self.idle_watts!r}")


def from_cpu_watts(cpu_watts: float, logical_cpus: int | None = None) -> CpuCoefficients:
    """Return coefficients from the power of the whole CPU with all logical CPUs busy, e.g. its data sheet's.

    Raises:
        ValueError: If ``cpu_watts`` is not positive and finite.
    """
    if not 0 < cpu_watts < math.inf:
        raise ValueError(
            f"cpu_watts (--cpu-watts) must be > 0 and finite, got {cpu_watts!r}: give the watts of the CPU with all cores busy"
        )
    count = logical_cpus or os.cpu_count() or 1
    return CpuCoefficients(core_watts=cpu_watts / count, gain_u=0.3, origin=f"--cpu-watts {cpu_watts:g} over {count} logical CPUs")


DEFAULT = CpuCoefficients(
    core_watts=DEFAULT_CORE_WATTS,
    origin=f"default of {DEFAULT_CORE_WATTS} W per busy logical CPU; give --cpu-watts or run `joulefront doctor --calibrate`",
)


class Draw(NamedTuple):
    """Power of a component, what it stands for with its origin, and the relative standard uncertainty of its scale."""

    component: str
    watts: float
    reason: str
    gain_u: float
    boundary: str = "idle CPU of the whole machine"


class Processor(NamedTuple):
    """The manufacturer's name, CPUID, and logical CPUs of one package, 0 where a hypervisor hides them; empty or 0 what is unknown."""

    brand: str = ""
    family: int = 0
    model: int = 0
    stepping: int = 0
    threads: int = 0


class Server(NamedTuple):
    """Watts per logical CPU of a generation of servers, the whole server at the wall.

    ``spread`` is how far single results are from that, relative, root mean square.
    """

    name: str
    family: int
    models: tuple[int, ...]
    idle_watts: float
    busy_watts: float
    spread: float
    steppings: range = range(16)


SOURCE = "Cloud Carbon Footprint 2026"
# Source of the watts: github.com/cloud-carbon-footprint/ccf-coefficients, output/coefficients-aws-use.csv of March 2026: means of
# SPECpower_ssj2008 results, idle and at full load. Spreads are ours, over the 191 results of these generations in the third of its
# data/SPECpower-2026-03-09.csv that was read; 0.24, their root mean square, stands where those are fewer than 3.
# Its row for EPYC 5th Gen (5.28 W above idle) holds desktop-class EPYC 4005, too: here is the mean of 12 results of EPYC 9005
# (0.84 to 1.56 W).
# Source of CPUIDs: Linux, arch/x86/include/asm/intel-family.h and arch/x86/kernel/cpu/amd.c; Skylake-SP is 0x50654, Cascade Lake 0x50657.
SERVERS = (
    Server("EPYC 1st Gen", 23, (1,), 0.847, 2.604, 0.33),
    Server("EPYC 2nd Gen", 23, (49,), 0.474, 1.693, 0.04),
    Server("EPYC 3rd Gen", 25, (1,), 0.456, 1.957, 0.11),
    Server("EPYC 4th Gen", 25, (17, 160), 0.739, 2.282, 0.31),
    Server("EPYC 5th Gen", 26, (2, 17), 0.218, 1.238, 0.23),
    Server("Sandy Bridge", 6, (42, 45), 2.212, 8.631, 0.30),
    Server("Ivy Bridge", 6, (58, 62), 1.707, 5.557, 0.24),
    Server("Haswell", 6, (60, 63), 1.857, 5.595, 0.16),
    Server("Broadwell", 6, (71, 79, 86), 0.713, 3.685, 0.24),
    Server("Skylake", 6, (85,), 0.613, 4.104, 0.16, range(5)),
    Server("Cascade Lake", 6, (85,), 0.690, 4.063, 0.21, range(5, 8)),
    Server("Ice Lake", 6, (106, 108), 0.767, 3.758, 0.16),
    Server("Coffee Lake", 6, (158,), 1.138, 5.422, 0.24, range(10, 16)),
    Server("Sapphire Rapids", 6, (143,), 1.036, 4.160, 0.12),
    Server("Emerald Rapids", 6, (207,), 0.814, 4.482, 0.43),
    Server("Granite Rapids", 6, (173, 174), 0.582, 2.527, 0.18),
)


def identify(proc: Path = PROC) -> Processor:
    """Ask Linux, macOS or Windows which processor this is."""
    text, brand, threads = "", "", 0
    with suppress(OSError):
        text = (proc / "cpuinfo").read_text(errors="replace").partition("\n\n")[0]
    if text:
        fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())}
        texts = [fields.get(key, "") for key in ("cpu family", "model", "stepping", "siblings")]
        numbers = [int(text) if text.isdigit() else 0 for text in texts]
        found = Processor(fields.get("model name", ""), *numbers)
        return found if "hypervisor" not in fields.get("flags", "hypervisor").split() else found._replace(threads=0)
    if sys.platform == "darwin":
        import subprocess

        with suppress(OSError, subprocess.SubprocessError):
            command = ["sysctl", "-n", "machdep.cpu.brand_string"]
            brand = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False).stdout.strip()
            threads = os.cpu_count() or 0
    if sys.platform == "win32":
        import winreg

        with suppress(OSError), winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, r"HARDWARE\DESCRIPTION\System\CentralProcessor\0") as key:
            brand = str(winreg.QueryValueEx(key, "ProcessorNameString")[0])
    # Windows: "Intel64 Family 6 Model 143 Stepping 8, GenuineIntel"
    cpuid = re.search(r"Family (\d+) Model (\d+) Stepping (\d+)", platform.processor())
    return Processor(brand, *map(int, cpuid.groups() if cpuid else ()))._replace(threads=threads)


def server_of(processor: Processor) -> Server | None:
    """Return the generation of servers that a processor belongs to, or None; desktops with the same CPUID draw something else."""
    brand, family, model, stepping, _ = processor
    rows = [row for row in SERVERS if row.family == family and model in row.models and stepping in row.steppings]
    return rows[0] if rows and ("Xeon" if family == 6 else "EPYC") in brand else None


def public_coefficients(processor: Processor) -> CpuCoefficients | None:
    """Return what the public tables say of a processor, or None when they do not know it."""
    if (row := server_of(processor)) is not None:
        source = SOURCE if row.name != "EPYC 5th Gen" else "SPECpower 2024 to 2026"
        origin = f"{row.name} servers at the wall, {source}; they differ by ±{row.spread:.0%}, their loads by ±{LOAD_U:.0%}"
        return CpuCoefficients(row.busy_watts - row.idle_watts, None, math.hypot(row.spread, LOAD_U), origin)
    if not processor.threads or (watts := design_watts(processor.brand)) is None:
        return None
    origin = f"design power of {watts:g} W over {processor.threads} logical CPUs, CodeCarbon's table"
    return CpuCoefficients(watts / processor.threads, None, WIDE_U, origin)


def design_watts(brand: str) -> float | None:
    """Return the thermal design power of a processor by its exact name, or None when CodeCarbon's table has none."""
    import csv

    def plain(name: str) -> str:
        extra = r"\((r|tm)\)|@.*|\bwith .*|\b\d+th gen\b|\b\d+-core\b|\b(cpu|processor)\b"
        return " ".join(re.sub(extra, " ", name.casefold()).split())

    wanted, found = plain(brand), find_spec("codecarbon")  # importing it takes seconds
    last = wanted.rpartition(" ")[2]  # what most names lack
    for folder in (found and found.submodule_search_locations) or ():
        with suppress(OSError, KeyError, ValueError):
            rows = csv.DictReader((Path(folder) / "data/hardware/cpu_power.csv").read_text(encoding="utf-8").splitlines())
            return next((float(row["TDP"]) for row in rows if last in row["Name"].casefold() and plain(row["Name"]) == wanted), None)
    return None


def standing(parts: str | None, processor: Processor) -> list[Draw]:
    """Return the power that is drawn whatever runs, by names joined by ``+``: ``idle`` (the CPU's) and ``memory``.

    Raises:
        ValueError: A name is neither.
    """
    asked = set(parts.split("+")) if parts else set()
    if asked - {"idle", "memory"}:
        raise ValueError(f"cpu_time must be followed by nothing, =idle, =memory or =idle+memory, got {parts!r}")
    row, count, text = server_of(processor), os.cpu_count() or 1, f"while the clock runs ({{}} W for each of {{:.3g}} {{}}, {SOURCE})"
    found = []
    if "idle" in asked:
        watts, whose = (row.idle_watts, row.name) if row else (IDLE_WATTS, "mean of AWS")
        found.append(Draw("cpu:idle", watts * count, text.format(watts, count, f"logical CPUs, {whose}"), WIDE_U))
    if "memory" in asked and hasattr(os, "sysconf"):
        size = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
        found.append(Draw("dram", MEMORY_WATTS * size, text.format(MEMORY_WATTS, size, "GB"), WIDE_U, "memory of the whole machine"))
    return found
