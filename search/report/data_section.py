"""The section of the report on the data: what `joulefront inspect` prints, from ``study.json``."""

from __future__ import annotations

from collections.abc import Mapping

from ..records.run_folder import Run
from ..training.summary import summary_text
from .html import paragraph, section, table

#: So many rows of a table are shown.
SHOWN = 200


def data_section(run: Run) -> str:
    """Classes with counts per split, guessing, columns used and dropped, and what was probably not meant; empty for older runs."""
    found = run.facts.get("data")
    if not isinstance(found, Mapping):
        return ""
    head, *_ = summary_text({**found, "classes": {}, "columns": [], "warnings": []}).splitlines()
    classes: Mapping[str, Mapping[str, int]] = found.get("classes") or {}
    counts = [[name, *(f"{split[name]:,}" for split in classes.values())] for name in next(iter(classes.values()), {})]
    columns = [
        [
            str(one["name"]),
            str(one["as"]),
            str(one.get("features", "-")),
            str(one.get("reason", f"{one['levels']} values" if "levels" in one else "")),
        ]
        for one in found.get("columns", [])
    ]
    rest = summary_text({**found, "classes": {}, "columns": [], "warnings": []}).split("\n\n")[1:]
    return section(
        "Data",
        paragraph(head),
        *(paragraph(part) for part in rest),
        table(["class", *classes], counts[:SHOWN], right=range(1, len(classes) + 1)) if counts else "",
        table(["column", "used as", "features", "remarks"], columns[:SHOWN], right=(2,)) if columns else "",
        paragraph(f"{len(columns) - SHOWN} more columns", "muted small") if len(columns) > SHOWN else "",
        *(paragraph(f"Warning: {text}") for text in found.get("warnings", [])),
    )
