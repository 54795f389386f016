"""The front as a file: HTML by plotly, PNG and SVG by matplotlib."""

from __future__ import annotations

from html import escape
from pathlib import Path

from ..front import Front
from ..front_text import empty_text
from ..records.run_folder import Run
from .interactive import CONFIG, FOLLOW, front_plotly
from .still import front_figure

__all__ = ["front_figure", "front_html", "front_plotly", "save_front"]

#: The picture fills the window and no more.
WHOLE_WINDOW = "<style>html, body { margin: 0; overflow: hidden; }</style>"
SUFFIXES = (".html", ".png", ".svg")


def front_html(source: Run | Front, path: str | Path) -> Path:
    """Write the interactive front as one self-contained HTML file; it opens without a network.

    Args:
        source: A run, or a front.
        path: The file; its folder is made when needed.
    """
    target = _prepare(path)
    figure = front_plotly(source)
    text: str = figure.to_html(
        include_plotlyjs=True, full_html=True, default_height="100vh", div_id="front", post_script=FOLLOW, config=CONFIG
    )
    target.write_text(text.replace("<head>", f"<head><title>{escape(source.name)} - front</title>{WHOLE_WINDOW}", 1), encoding="utf-8")
    return target


def save_front(source: Run | Front, path: str | Path) -> Path:
    """Write the front to a file whose ending says how: .html, .png or .svg.

    Raises:
        ValueError: If the ending is another one, or there is no front to draw.
    """
    target = Path(path)
    if target.suffix.lower() not in SUFFIXES:
        raise ValueError(f"-o {str(path)!r}: a plot ends in one of {', '.join(SUFFIXES)}, for example {target.stem or 'front'}.html")
    front = source if isinstance(source, Front) else Front.of(source)
    if not front.members:
        raise ValueError(f"nothing to draw in {str(path)!r}. {empty_text(front)}")
    if target.suffix.lower() == ".html":
        return front_html(source, target)
    # Equal runs must give equal files: no creation date, and SVG ids that do not change from run to run.
    from matplotlib import rc_context

    with rc_context({"svg.hashsalt": "joulefront", "svg.fonttype": "none"}):
        kind = target.suffix.lower()[1:]
        front_figure(source).savefig(_prepare(target), format=kind, metadata={"Date": None} if kind == "svg" else None)
    return target


def _prepare(path: str | Path) -> Path:
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    return target
