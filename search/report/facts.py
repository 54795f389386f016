"""The facts of a run that a report repeats: sessions, hardware, versions, PUE."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..formatting import energy_text
from ..records.bill import Bill
from ..records.run_folder import Run


def sessions_of(run: Run) -> list[Mapping[str, Any]]:
    """Return the sessions of a run, oldest first; a run that notes its facts at the top level has one."""
    sessions = run.facts.get("sessions")
    if sessions:
        return list(sessions)
    keys = ("command", "versions", "hardware", "hardware_id")
    top = {name: run.facts[name] for name in keys if name in run.facts}
    return [top] if top else []


def pue_of(run: Run) -> float:
    """Return the power usage effectiveness of the site, 1 when nothing else was given."""
    return float(run.facts.get("pue") or 1.0)


def hardware_lines(run: Run) -> list[str]:
    """Say in one line per machine what trained the models."""
    lines = []
    for session in sessions_of(run):
        parts = flatten(session.get("hardware") or {})
        line = ", ".join(f"{name} {value}" for name, value in parts.items())
        identity = session.get("hardware_id")
        line += f" [{identity}]" if identity and line else identity or ""
        if line and line not in lines:
            lines.append(line)
    return lines


def flatten(data: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Turn nested facts into ``name -> text``; what is None or empty is left out.

    >>> flatten({"gpus": [{"name": "A"}], "cores": 8, "none": None})
    {'gpus 0 name': 'A', 'cores': '8'}
    """
    found: dict[str, str] = {}
    for name, value in data.items():
        key = f"{prefix} {name}".strip()
        if isinstance(value, Mapping):
            found |= flatten(value, key)
        elif isinstance(value, (list, tuple)) and any(isinstance(item, Mapping) for item in value):
            for place, item in enumerate(value):
                found |= flatten(item, f"{key} {place}") if isinstance(item, Mapping) else {f"{key} {place}": str(item)}
        elif isinstance(value, (list, tuple)):
            found |= {key: ", ".join(map(str, value))} if value else {}
        elif value is not None and value != "":
            found[key] = str(value)
    return found


def socket_text(bill: Bill) -> str | None:
    """Say in one sentence what the whole machine took at the plug, or None when that is not known."""
    wall = bill.at_wall
    if wall is None:
        return None
    spread = "" if wall.u_joules is None else f" ± {energy_text(2 * wall.u_joules / 3600)}"
    how = f"{wall.quality} by {wall.source}" if wall.reason is None else wall.reason
    return f"At the socket the whole machine took {energy_text(wall.joules / 3600)}{spread} ({how}); it contains these sums and is in none."
