"""The decision page: one self-contained HTML file that a template, its style and its script make of `page_data`.

The scripts are allowed by their hashes alone and the page may fetch nothing, so that no text of a run can act, and it looks the same in ten
years and without a network. Observable Plot and d3 (ISC licence, beside them in ``assets``) draw its charts.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from math import isfinite
from pathlib import Path
from typing import Any

from ..records.run_folder import Run
from ..whole_file import whole_file
from .page_data import page_data

#: Scripts of the page in the order in which they run.
SCRIPTS = ("d3.min.js", "plot.umd.min.js", "page.js")


def report_html(run: Run, path: str | Path, *, ranking: bool = True, uses: int = 0) -> Path:
    """Write the decision page of a run, finished or not; it opens ranked by training and so many ``uses``, predictions of a model.

    Without ``ranking``, while the meters run, what predicts quality and energy is left out: it takes seconds of a CPU.

    Raises:
        ValueError: If the file does not end in ``.html``.
    """
    target = Path(path)
    if target.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"-o {str(path)!r}: a report is an HTML page, write for example {target.stem or 'report'}.html")
    text = render({**page_data(run, ranking=ranking), "uses": uses})
    target.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(target) as unfinished:
        unfinished.write_text(text, encoding="utf-8", errors="backslashreplace")
    return target


def render(data: Mapping[str, Any], *, every_seconds: float | None = None) -> str:
    """Return the page of some data.

    With a number of seconds it asks the server that it came from for newer data so often while its study runs.
    """
    from jinja2 import Environment, StrictUndefined

    scripts = [asset(name) for name in SCRIPTS]
    hashes = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in scripts)
    policy = f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
    policy += "; connect-src 'self'" if every_seconds else ""
    template = Environment(autoescape=True, undefined=StrictUndefined).from_string(asset("page.html.j2"))
    return template.render(
        name=data["name"], policy=policy, style=asset("page.css"), scripts=scripts, data=data_text(data), every_seconds=every_seconds or 0
    )


def data_text(data: Mapping[str, Any]) -> str:
    """Return data as JSON that no text in it can end, whatever it holds: it stands in a script element that is never run."""
    text = json.dumps(_finite(data), allow_nan=False, separators=(",", ":"), default=str)  # in ASCII, so that every file can hold it
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _finite(value: Any) -> Any:
    """Infinities and NaN, which JSON cannot hold, become unknown."""
    if value is None or isinstance(value, (str, int)):  # most of them, and a million in a large run
        return value
    if isinstance(value, float):
        return value if isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(name): _finite(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(one) for one in value]
    return value


@cache
def asset(name: str) -> str:
    """Return the text of a file in ``assets``."""
    return files(__package__).joinpath("assets", name).read_text(encoding="utf-8")
