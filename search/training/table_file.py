"""A table on disk as a data frame: Parquet with its types, text files of the usual encodings, separators and headings as texts."""

from __future__ import annotations

import codecs
import csv
import io
import warnings
import zipfile
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

PARQUET = frozenset({".parquet", ".pq"})
TEXT = frozenset({".csv", ".tsv", ".txt"})
#: Bytes at the start of a text file from which encoding, separator and header are told.
SNIFFED = 2**18
#: The header is looked for in so many lines.
HEADING = 30
#: A text that Excel is kept from making a number of: ``="01"``.
_EXCEL = r'^="(.*)"$'
_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))


def read(path: Path, names: Collection[str] = ()) -> pd.DataFrame:
    """Read a table; of a text file every cell stays text, an empty one "".

    ``names`` are columns that the table must have: the header is the first line that holds them all, and they tell the separator (comma,
    semicolon, tab, bar, blank). Lines above it get a warning; what a shorter row lacks is empty; a column without name is ``Unnamed: k``.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If it cannot be read, or a row has more values than the header names.
    """
    import pandas as pd

    if not path.is_file():
        raise FileNotFoundError(f"no table at {path}; give a CSV or Parquet file")
    suffixes = {suffix.lower() for suffix in path.suffixes[-2:]}
    try:
        if suffixes & PARQUET:
            return pd.read_parquet(path)
        if suffixes & TEXT:
            return _read_text(path, names)
    except (
        pd.errors.ParserError,
        pd.errors.ParserWarning,
        zipfile.BadZipFile,
        UnicodeDecodeError,
        OSError,
        EOFError,
        ValueError,
        ImportError,
        csv.Error,
    ) as error:
        raise ValueError(f"cannot read the table {path}: {' '.join(str(error).split())[:200]}") from error
    raise ValueError(f"{path} must end in {', '.join(sorted(TEXT | PARQUET))}, got {''.join(path.suffixes) or 'no suffix'}")


def _read_text(path: Path, names: Collection[str]) -> pd.DataFrame:
    import pandas as pd
    from pandas.io.common import get_handle  # type: ignore[import-not-found]  # the stubs leave it out

    member = _member(path)
    with get_handle(member or path, "rb", compression=None if member else "infer", is_text=False) as opened:
        head = opened.handle.read(SNIFFED)
    encoding = _encoding(head)
    separator, above, width, short = _layout(head.decode(encoding, "replace"), names, cut=len(head) == SNIFFED)

    def rows(encoding: str) -> pd.DataFrame:
        return pd.read_csv(
            _member(path) or path,
            sep=separator,
            header=None,
            names=list(range(width)),
            index_col=False,
            skiprows=above,
            dtype=str,
            keep_default_na=False,
            skipinitialspace=True,
            encoding=encoding,
            encoding_errors="replace" if encoding == "cp1252" else "strict",
        )

    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)  # it tells of values that are lost
        try:
            raw = rows(encoding)
        except UnicodeDecodeError:
            encoding = "cp1252"
            raw = rows(encoding)
    if encoding == "cp1252":
        warnings.warn(f"{path} is not UTF-8 and was read as Windows-1252 (Latin-1); save it as UTF-8 if letters are wrong", stacklevel=4)
    if above:
        warnings.warn(f"{path}: left out {above} lines above the header", stacklevel=4)
    header, body = [str(name).strip() for name in raw.iloc[0]], raw.iloc[1:].reset_index(drop=True)
    again = (body == raw.iloc[0]).all(axis=1)
    if again.any() and sum(map(bool, header)) > 1:
        warnings.warn(f"{path}: left out {int(again.sum())} rows that are the header again", stacklevel=4)
        body = body[~again].reset_index(drop=True)
    body = body.replace(_EXCEL, r"\1", regex=True)
    named = max((k + 1 for k, name in enumerate(header) if name), default=0)
    if short:
        warnings.warn(
            f"{path}: {len(short)} rows have fewer values than the header has names, first line {short[0]}; what they lack counts as "
            "missing, and if a value was left out in their middle the others stand in wrong columns",
            stacklevel=4,
        )
    surplus = (body.iloc[:, named:] != "").any(axis=1)
    if surplus.any() and bool(surplus.all()) and width == named + 1 and body[0].is_unique:
        header, named = ["", *header[:named]], width  # R writes the names of the rows without a name for their column
    elif surplus.any():
        line = int(surplus.to_numpy().argmax()) + above + 2
        raise ValueError(
            f"line {line} has more values than the header has names ({named}); name every column, quote values that hold a {separator!r}"
        )
    return body.iloc[:, :named].set_axis([name or f"Unnamed: {k}" for k, name in enumerate(header[:named])], axis=1)


def _member(path: Path) -> IO[bytes] | None:
    """Open the one table of a zip, beside which a Mac puts files of its own; None for other files."""
    if path.suffix.lower() != ".zip":
        return None
    archive = zipfile.ZipFile(path)
    names = [name for name in archive.namelist() if not name.endswith("/") and not name.startswith(("__MACOSX", "."))]
    if len(names) != 1:
        raise ValueError(f"it must hold one file, it holds {', '.join(names[:5]) or 'none'}")
    return archive.open(names[0])


def _encoding(head: bytes) -> str:
    for mark, name in _MARKS:
        if head.startswith(mark):
            return name
    if head.count(0) * 4 > len(head):
        return "utf-16-le" if head[1::2].count(0) > head[::2].count(0) else "utf-16-be"
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return "cp1252"
    return "utf-8"


def _layout(text: str, names: Collection[str], *, cut: bool) -> tuple[str, int, int, list[int]]:
    """Return the separator, the records above the header, the fields of the longest row, and the lines of rows shorter than the header.

    The last row of a ``cut`` text is partial.
    """
    best: tuple[bool, float, int] = (False, 0.0, 0)
    found: tuple[str, int, int, list[int]] = (",", 0, 1, [])
    for separator in ",;\t| ":
        if separator == " " and (best[0] or not names):
            break  # blanks separate only where nothing else does
        read = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True)
        rows = [[cell.strip() for cell in row] for row in read]
        rows = rows[:-1] if cut and len(rows) > 1 else rows
        filled = [sum(map(bool, row)) for row in rows]
        if not any(filled):
            raise ValueError("the file is empty")
        holding = [k for k, row in enumerate(rows[:HEADING]) if {*names} <= {*row} and (k == 0 or not any(map(_is_number, row)))]
        # Without a known name: a title or an empty line has one field at most.
        several = [k for k, count in enumerate(filled[:HEADING]) if count > 1]
        above = (holding if names and holding else several or [filled.index(max(filled))])[0]
        widths = Counter(len(row) for row in rows[above:] if row)
        usual, count = max(widths.items(), key=lambda item: (item[1], item[0]))
        score = (bool(names and holding), count / widths.total() if usual > 1 else 0.0, usual)
        if score > best:
            named = max((k + 1 for k, name in enumerate(rows[above]) if name), default=0)
            short = [k + 1 for k, row in enumerate(rows) if k > above and any(row) and len(row) < named]
            best, found = score, (separator, above, max(widths), short)
    return found


def _is_number(text: str) -> bool:
    return text.replace(",", ".").replace(".", "").lstrip("+-").isdigit()
