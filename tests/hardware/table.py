"""What the parts of the acceptance run found: figures against their bars, one file for all parts, and the table of them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

#: Files in the output folder.
RESULTS, TABLE = "results.json", "table.md"


@dataclass(frozen=True)
class Figure:
    """One number of the acceptance run.

    Attributes:
        name: What it is.
        value: The number, or None when it could not be found here.
        unit: Its unit; empty for a ratio or a count.
        bar: What it must be, in words; empty for a figure that is for information.
        met: Whether it is; None without a bar or a value.
        note: Why it has no value, or what else is to be said.
    """

    name: str
    value: float | str | None
    unit: str = ""
    bar: str = ""
    met: bool | None = None
    note: str = ""

    @property
    def verdict(self) -> str:
        """Return ``met``, ``missed``, ``not run`` or ``for information``."""
        if self.met is not None:
            return "met" if self.met else "missed"
        return "not run" if self.value is None else "for information"


def at_most(name: str, value: float | None, bar: float, unit: str = "", *, bar_text: str = "", note: str = "") -> Figure:
    """Return a figure that must not exceed a bar."""
    return Figure(name, value, unit, bar_text or f"≤ {bar:g}{_spaced(unit)}", None if value is None else value <= bar, note)


def at_least(name: str, value: float | None, bar: float, unit: str = "", *, note: str = "") -> Figure:
    """Return a figure that must reach a bar."""
    return Figure(name, value, unit, f"≥ {bar:g}{_spaced(unit)}", None if value is None else value >= bar, note)


def near_one(name: str, ratio: float | None, slack: float, *, note: str = "") -> Figure:
    """Return a ratio that must be 1 within a slack."""
    return Figure(name, ratio, "", f"1 ± {slack:.3g}", None if ratio is None else abs(ratio - 1) <= slack, note)


def holds(name: str, truth: bool | None, bar: str, *, note: str = "") -> Figure:
    """Return a statement that must be true."""
    return Figure(name, None if truth is None else "yes" if truth else "no", "", bar, truth, note)


def store(folder: Path, part: str, result: Mapping[str, Any]) -> None:
    """Add a part's result to the results of a folder; a reader never sees half a file."""
    results = load(folder) | {part: dict(result)}
    path = folder / RESULTS
    path.with_suffix(".new").write_text(json.dumps(results, indent=1, default=str), encoding="utf-8")
    os.replace(path.with_suffix(".new"), path)


def load(folder: Path) -> dict[str, Any]:
    """Return the results of a folder by part; none where there is no file."""
    path = folder / RESULTS
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def as_result(figures: Iterable[Figure], **details: Any) -> dict[str, Any]:
    """Return figures and what lies behind them as JSON values."""
    return {"figures": [asdict(figure) for figure in figures], "details": details}


def make_table(folders: Iterable[Path], parts: Iterable[str]) -> str:
    """Return the markdown table of one or several output folders; of a part that is in several the last one counts.

    Args:
        folders: Output folders, the newest last.
        parts: Names of all parts, in the order of the table; those without a result are ``not run``.

    Raises:
        ValueError: If a folder has no results.
    """
    results: dict[str, Any] = {}
    for folder in folders:
        found = load(folder)
        if not found:
            raise ValueError(f"--table must name a folder with {RESULTS}, got {folder}; run the parts with --out {folder} first")
        results |= found
    lines = ["| card | driver | date | part | figure | value | bar | verdict |", "|---|---|---|---|---|---|---|---|"]
    for part in parts:
        result = results.get(part, {})
        where = [str(result.get(key) or "unknown") for key in ("card", "driver", "date")] if result else ["", "", ""]
        rows = [Figure(**row) for row in result.get("figures", ())]
        for row in rows:
            value = f"{shown(row.value)}{_spaced(row.unit)}" if row.value is not None else "none"
            lines.append(_row(*where, part, row.name, f"{value} ({row.note})" if row.note else value, row.bar, row.verdict))
        if result.get("error"):
            lines.append(_row(*where, part, "the part itself", result["error"], "ends without an error", "missed"))
        elif not rows:
            lines.append(_row(*where, part, "", result.get("why", ""), "", "not run"))
    return "\n".join(lines) + "\n"


def shown(value: float | str | None) -> str:
    """Return a value with four digits; text as it is."""
    return f"{value:.4g}" if isinstance(value, (int, float)) else str(value)


def _row(*cells: str) -> str:
    return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |"


def _spaced(unit: str) -> str:
    return f" {unit}" if unit else ""
