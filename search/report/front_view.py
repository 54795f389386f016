"""A front that shows itself: as text, rows, a data frame, a picture, and in a notebook."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..front import Front
from ..records.run_folder import Run
from . import table, text_table

SUFFIXES = (".html", ".png", ".svg")


class FrontView(Front):
    """A front with its tables and pictures; what `joulefront.search.run` and `joulefront.search.load` return."""

    to_rows = table.to_rows
    to_csv = table.to_csv
    to_frame = table.to_frame
    to_text = text_table.to_text
    _repr_html_ = table.to_html

    def plot(self, path: str | Path | None = None) -> Any:
        """Draw the front to a file that ends in .html, .png or .svg and return its path; without one, return an interactive figure.

        Raises:
            ValueError: If the file has another ending, or there is no front to draw.
        """
        if path is not None:
            return save_front(self, path)
        from .plotly_front import front_plotly

        return front_plotly(self)


def save_front(source: Run | Front, path: str | Path) -> Path:
    """Write the picture of a front in the format of the file's ending: .html (interactive), .png or .svg.

    Raises:
        ValueError: If the file has another ending, or there is no front to draw.
    """
    target = Path(path)
    if target.suffix.lower() not in SUFFIXES:
        raise ValueError(f"-o {str(path)!r}: a plot ends in one of {', '.join(SUFFIXES)}, for example {target.stem or 'front'}.html")
    front = source if isinstance(source, Front) else Front.of(source)
    if not front.members:
        raise ValueError(f"nothing to draw in {str(path)!r}. {table.empty_text(front)}")
    if target.suffix.lower() == ".html":  # matplotlib and plotly are loaded only when they draw
        from .plotly_front import front_html

        return front_html(front, target)
    from .matplotlib_front import front_figure, save_figure

    return save_figure(front_figure(front), target)
