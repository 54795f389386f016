"""A front that shows itself: as text, rows, a data frame, a picture, and in a notebook."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..front import Front
from .table import to_csv, to_frame, to_html, to_rows, to_text

if TYPE_CHECKING:
    import pandas as pd


class FrontView(Front):
    """A front with its tables and pictures; what `joulefront.search.run` and `joulefront.search.load` return."""

    def to_rows(self) -> list[dict[str, Any]]:
        """One JSON object a member, with the stable keys of `joulefront.search.report.table.KEYS`; None where unknown."""
        return to_rows(self)

    def to_csv(self) -> str:
        """The rows as CSV with a header; ``params`` is one column of JSON, unknown is empty."""
        return to_csv(self)

    def to_frame(self) -> pd.DataFrame:
        """The rows as a data frame; parameters become columns ``params_NAME``, as in Optuna's own."""
        return to_frame(self)

    def to_text(self, *, width: int | None = None) -> str:
        """The front as a table for people.

        Args:
            width: Characters a line; that of the terminal by default.
        """
        return to_text(self, width=width)

    def plot(self, path: str | Path | None = None) -> Any:
        """Draw the front: an interactive plotly figure, or a file when a path ending in .html, .png or .svg is given."""
        from .matplotlib_front import front_plotly, save_front  # matplotlib and plotly only for those who draw

        return front_plotly(self) if path is None else save_front(self, path)

    def _repr_html_(self) -> str:
        return to_html(self)
