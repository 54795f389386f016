"""What all integrations share: the facts of a record under names with units, and an error with the remedy where nothing is known."""

from __future__ import annotations

import sys
from typing import Any

from ..energy import JOULES_PER_WH, Discovery, Record

#: Each fact of a record begins so, in the attributes, metrics and tags of other programs.
PREFIX = "energy_"


class EnergyUnknownError(RuntimeError):
    """The energy of a piece of work is not known; the message says why, and what would help."""


def remedy(found: Discovery) -> str:
    """Return what `joulefront doctor` proposes where the energy is unknown."""
    if any(source.name == "wall" for source in found.sources):
        return "a wall meter has a line of its own and is in no sum; name the components' meters beside it: --meter auto,wall=..."
    from ..energy.doctor import examine  # which only a machine without meters needs

    found_out = examine((), found.absent).findings
    proposed = [item.remedy for item in found_out if item.remedy and item.subject in ("gpu", "cpu", "wall")]
    return "; or ".join([*dict.fromkeys(proposed), "see joulefront doctor"])


def refuse_unknown(found: Discovery) -> None:
    """Refuse a machine on which nothing counts, before anything is trained.

    Raises:
        EnergyUnknownError: If no source has a component that enters a sum.
    """
    if not any(item.counts for item in found.present):
        raise EnergyUnknownError(f"energy must be an objective that some meter can read, got none on this machine; {remedy(found)}")


def known_joules(record: Record, found: Discovery) -> float:
    """Return the energy of a record.

    Raises:
        EnergyUnknownError: If it is unknown; the message says of which component, why, and what would help.
    """
    if record.joules is None:
        why = next((f"{part.name}: {part.reason}" for part in record.counting if part.joules is None and part.reason), "no meter read it")
        raise EnergyUnknownError(f"the energy of {record.name!r} must be known, got None ({why}); {remedy(found)}")
    return record.joules


def facts_of(record: Record) -> dict[str, Any]:
    """Return the facts of a record as plain values under flat names: energy with its unit, how it is known, by what, on what, when."""
    known = [part for part in record.counting if part.joules is not None]
    wh = None if record.joules is None else record.joules / JOULES_PER_WH
    facts = {
        "joules": record.joules,
        "wh": wh,
        "quality": record.quality,
        "u_random_joules": record.u_random_joules,
        "u_systematic_joules": record.u_systematic_joules,
        "seconds": record.seconds,
        "cpu_seconds": record.cpu_seconds,
        "meters": ", ".join(dict.fromkeys(part.source for part in known)) or None,
        "coverage": ", ".join(record.coverage) or None,
        "attribution": ", ".join(dict.fromkeys(part.attribution for part in known)) or None,
        "hardware_id": record.hardware_id or None,
        "started_utc": record.t0_utc,
        "state": record.state,
        **{f"{part.name.replace(':', '_')}_joules": part.joules for part in known},
    }
    return {PREFIX + name: value for name, value in facts.items()}


def in_any_process(said: bool) -> bool:
    """Whether any process of a distributed training says so; every process must ask, in the same places."""
    torch = sys.modules.get("torch")
    group = None if torch is None else torch.distributed
    if torch is None or group is None or not group.is_available() or not group.is_initialized():
        return said
    on_cpu = any(name in group.get_backend() for name in ("gloo", "mpi"))
    found = torch.tensor(int(said), device="cpu" if on_cpu else torch.accelerator.current_accelerator())
    group.all_reduce(found, op=group.ReduceOp.MAX)
    return bool(found.item())


def synchronize() -> None:
    """Wait for the GPU where this process uses one: what is queued at the end of a window belongs to it."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()
