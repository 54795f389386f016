"""A table on disk as a data frame: Parquet, Excel and JSON with their types, text files of the usual encodings and separators as texts."""

from __future__ import annotations

import codecs
import io
import re
import warnings
import zipfile
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from .table_objects import flat, read_arff, read_arrow, read_json, read_parquet
from .table_rows import HEADING, Layout, headless, layout, mending, rows_of_data, single_quoted, swallowed
from .table_surprises import UNNAMED, spelt

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

#: Files whose values have types: Parquet; Excel, which needs openpyxl, .ods, which needs odfpy; JSON, objects in lines or in a list.
PARQUET, FEATHER = frozenset({".parquet", ".pq"}), frozenset({".feather", ".arrow"})
EXCEL, JSON = frozenset({".xlsx", ".xlsm", ".ods"}), frozenset({".json", ".jsonl", ".ndjson", ".geojson"})
TYPED = PARQUET | EXCEL | JSON | FEATHER
TEXT = frozenset({".csv", ".tsv", ".txt", ".tab", ".dat", ".data", ".psv", ".arff"})
#: What may be the whole suffix of a packed text.
PACKED = frozenset({".zip", ".gz", ".bz2", ".xz"})
#: Bytes at the start of a text file from which encoding, separator and header are told.
SNIFFED = 2**18
#: Names of parts in which Spark, Dask and others write one table; what divides their rows may stand in names of folders, as ``site=A``.
_PART = re.compile(r"(?:.*/)?(?:part[-._]\d|[^/]+-\d{5}-of-\d{5})")
#: How what is no table begins, and what to do.
_NO_TABLES = {
    b"version https://git-lfs": "it is a pointer of Git LFS; git lfs pull fetches the file",
    **dict.fromkeys((b"<!doctype html", b"<html"), "it is a web page; download the file itself"),
    **dict.fromkeys((b"%pdf", b"{\\rtf", b"\x89png", b"\xff\xd8\xff", b"<?xml"), "it is a document or a picture; save its table as CSV"),
    **dict.fromkeys(
        (b"sqlite format 3", b"\x89hdf", b"orc\0", b"\x93numpy", b"obj\x01"), "it is a database or of another program; save it as CSV"
    ),
}
#: A value of LIBSVM's files.
_LIBSVM = re.compile(r"\d+:[-+.\deE]+")
#: A text that Excel is kept from making a number of: ``="01"``.
_EXCEL = r'^="(.*)"$'
#: Encodings of single letters by more than one byte, or by other letters than Windows-1252, that a name in the header may tell.
_OTHERS = ("shift_jis", "gb18030", "euc_kr", "big5", "cp1251", "cp1250", "cp1253", "cp1254", "koi8-r", "mac_roman")
_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))


def read(path: Path, names: Collection[str] = (), learnt: Mapping[str, Any] | None = None) -> pd.DataFrame:
    """Read a table; of a text file every cell stays text, an empty one "".

    ``names`` are columns that the table must have: the header is the first line that holds them all, and they tell the separator (comma,
    semicolon, tab, bar, blank, others). Lines above it get a warning, and so do a row of units below it and sums at the end, which are left
    out; what a shorter row lacks is empty; a column without name is ``Unnamed: k``. ``attrs["file"]`` of the frame is how the file was read
    (``encoding``, ``separator``, ``quote`` or ``sheet``): of another file that is ``learnt``, which decides where this one leaves it open.
    The tables of a folder stand below one another, with a column ``file`` for their names unless they are parts of one; those without
    ``names`` are left out, and the first with them is ``learnt`` for the others.

    Raises:
        FileNotFoundError: If the file does not exist, or a folder has none.
        ValueError: If it cannot be read, a row has more values than the header names, or tables of a folder have other columns.
    """
    names = [name for name in names if not UNNAMED.fullmatch(name)]  # it stands in no header
    if path.is_dir():
        return _read_folder(path, names, learnt)
    if not path.is_file():
        remedy = "download it" if re.match(r"\w+:/", str(path)) else "give a CSV or Parquet file, or a folder of them"
        raise FileNotFoundError(f"no table at {path}; {remedy}")
    suffixes = {suffix.lower() for suffix in path.suffixes[-2:]}
    try:
        if suffixes & (TEXT | EXCEL) or (path.suffix.lower() in PACKED and not suffixes & TYPED):  # the name may be wrong
            suffixes = {_kind_of(path)}
        if suffixes & PARQUET:
            return read_parquet(path)
        if suffixes & FEATHER:
            return read_arrow(path)
        if suffixes & EXCEL:
            return _read_excel(path, names, learnt or {})
        if suffixes & JSON:
            return flat(read_json(_whole_text(path), names))
        if suffixes & TEXT:
            return _read_text(path, names, learnt or {})
    except Exception as error:  # the readers raise whatever they like on bytes of somebody else
        quote = r"a quote that opens about line \1 is never closed; close or remove it"
        said = re.sub(r".*EOF inside string.* row (\d+)", quote, str(error))
        raise ValueError(f"cannot read the table {path}: {' '.join(said.split())[:200]}") from error
    raise ValueError(f"{path} must end in {', '.join(sorted(TEXT | TYPED))}, got {''.join(path.suffixes) or 'no suffix'}; save it as CSV")


def _read_folder(path: Path, names: Collection[str], learnt: Mapping[str, Any] | None) -> pd.DataFrame:
    import pandas as pd

    whole, keys, left_out = dict[str, pd.DataFrame](), list[dict[str, str]](), list[str]()
    for one in sorted(path.rglob("[!._~]*")):
        parts, suffix = one.relative_to(path).parts, Path(one.stem if one.suffix.lower() in PACKED else one).suffix.lower()
        hidden = any(part[0] in "._" for part in parts) or "readme" in one.name.lower()
        if suffix not in TEXT | TYPED or hidden or not one.is_file():
            continue
        key = dict(part.split("=", 1) for part in parts[:-1] if "=" in part)
        table = read(one, [name for name in names if name not in key], learnt).assign(**key)
        if {*map(spelt, names)} <= {*map(spelt, table.columns)}:
            whole["/".join(parts)], learnt = table, learnt or table.attrs.get("file")
            keys.append(key)
        else:
            left_out.append("/".join(parts))
    if not whole:
        raise FileNotFoundError(
            f"no table with {', '.join(names) or 'columns'} in the folder {path}; give a CSV or Parquet file, or run images or sound"
        )
    if left_out:
        warnings.warn(f"{path}: left out {', '.join(left_out)}: no column {', '.join(names)}", stacklevel=4)
    first, known = next(iter(whole.items()))
    for file, table in whole.items():
        if odd := sorted({*table.columns} ^ {*known.columns} | ({"file"} & {*known.columns})):
            raise ValueError(f"{path} must hold tables of the same columns, got {odd[0]!r} in one of {first} and {file}; move or rename it")
    recordings = len(whole) > 1 and not all(keys) and not all(map(_PART.match, whole))
    joined = pd.concat([table.assign(**({"file": file} if recordings else {})) for file, table in whole.items()], ignore_index=True)
    joined.attrs = {**known.attrs, "recordings": recordings}
    return joined


def _read_excel(path: Path, names: Collection[str], learnt: Mapping[str, Any]) -> pd.DataFrame:
    """Read the first sheet that holds the ``names`` in a row, which is its header; without any the row with the most cells of the first."""
    import pandas as pd

    def cell(value: Any) -> str:
        return "" if pd.isna(value) else str(int(value) if isinstance(value, float) and value.is_integer() else value).strip()

    sheets = {name: raw for name, raw in pd.read_excel(path, header=None, sheet_name=None, na_filter=False).items() if not raw.empty}
    with zipfile.ZipFile(path) as archive:
        book = archive.read("xl/workbook.xml").decode("utf-8", "replace") if "xl/workbook.xml" in archive.namelist() else ""
    hidden = {unescape(name) for tag in re.findall(r"<sheet [^>]*hidden[^>]*>", book, re.I) for name in re.findall(r' name="([^"]*)"', tag)}
    sheets = dict(sorted(sheets.items(), key=lambda item: item[0] in hidden))
    if not sheets:
        raise ValueError("the sheet is empty" if names else "its sheets are empty")
    heads = {name: [[cell(value) for value in row] for row in raw.head(HEADING).to_numpy(dtype=object)] for name, raw in sheets.items()}
    holding = [name for name, rows in heads.items() if names and any({*names} <= {*row} for row in rows)]
    sheet = [*(name for name in holding if name == learnt.get("sheet")), *holding, *sheets][0]
    raw, rows = sheets[sheet], heads[sheet]
    said = _as_shown(path, sheet, raw)
    raw = raw.mask(raw == "")
    if len(sheets) > 1 and sheet != learnt.get("sheet"):
        others = ", ".join(repr(name) for name in sheets if name != sheet)
        warnings.warn(f"{path}: read the sheet {sheet!r}, not {others}; save another one as a file of its own to use it", stacklevel=4)
    for one in said:
        warnings.warn(f"{path}: {one}", stacklevel=4)
    filled = [sum(map(bool, row)) for row in rows]
    above = next((k for k, row in enumerate(rows) if names and {*names} <= {*row}), filled.index(max(filled)))
    if above:
        warnings.warn(f"{path}: left out {above} lines above the header", stacklevel=4)
    frame = raw.iloc[above + 1 :].reset_index(drop=True)
    data, units = _said_rows(path, rows[above], frame.map(cell), learnt)
    frame = frame.iloc[data].reset_index(drop=True).infer_objects()
    frame.attrs["file"] = {"sheet": sheet, **units}
    frame = frame.set_axis([name or f"Unnamed: {k}" for k, name in enumerate(rows[above])], axis=1)
    return frame.loc[:, [bool(name) or bool(frame.iloc[:, k].notna().any()) for k, name in enumerate(rows[above])]]


def _as_shown(path: Path, sheet: str, raw: pd.DataFrame) -> list[str]:
    """Give each cell of a column that is merged over rows the first value; return what is to be said of errors, formulas, hidden ones."""
    errors = raw.isna().any(axis=1)  # as of #N/A: what is empty is "" as yet
    where = f"{errors.sum()} of {len(raw)} rows, first row {errors.argmax() + 1}"
    said = [f"cells with errors, in {where}, count as missing"] if errors.any() else []
    with zipfile.ZipFile(path) as archive:
        parts = [archive.read(name) for name in archive.namelist() if name.startswith("xl/worksheets/sheet")]
    if not any(re.search(rb'<mergeCell | hidden="(?:1|true)"|<f[ >]', part) for part in parts):
        return said
    import openpyxl  # type: ignore[import-untyped]

    table = openpyxl.load_workbook(path)[sheet]
    for area in table.merged_cells.ranges:
        if area.max_row > area.min_row and area.min_row <= len(raw) and area.max_col <= raw.shape[1]:
            raw.iloc[area.min_row - 1 : area.max_row, area.min_col - 1] = raw.iloc[area.min_row - 1, area.min_col - 1]
    rows = [row for row, how in table.row_dimensions.items() if how.hidden and row <= len(raw)]
    columns = [letter for letter, how in table.column_dimensions.items() if how.hidden]
    formulas = [cell for row in table.iter_rows(max_row=len(raw), max_col=raw.shape[1]) for cell in row if cell.data_type == "f"]
    empty = [cell.coordinate for cell in formulas if raw.iat[cell.row - 1, cell.column - 1] == ""]
    said += [f"{len(rows)} hidden rows are read as the others are; delete them if they are not meant"] if rows else []
    said += [f"the hidden columns {', '.join(columns)} are read as the others are; --drop leaves them out"] if columns else []
    why = "have no value in the file; open it in Excel or LibreOffice and save it"
    return [*said, f"{len(empty)} formulas, e.g. in {empty[0]}, {why}"] if empty else said


def _read_text(path: Path, names: Collection[str], learnt: Mapping[str, Any]) -> pd.DataFrame:
    packed, head = _beginning(path)
    if re.match(rb"(?i)(?:\xef\xbb\xbf)?\s*(?:%[^\n]*\n\s*)*@relation", head):
        return read_arff(_whole_text(_member(path) or path, packed))
    text = _sniffed(head, packed, names, learnt)
    cells, encoding = _cells(path, text)
    _warn_of_reading(path, text, encoding, learnt)
    header, body = _below_header(cells, text)
    data, units = _said_rows(path, header, body, learnt)
    body = body.iloc[data].reset_index(drop=True)
    _warn_of_rows(path, header, body, text, {*data.tolist()}, names, is_new=bool(learnt))
    frame = _named(header, body, text.layout)
    frame.attrs["file"] = {"encoding": encoding, "separator": text.layout.separator, "quote": text.quote, **units}
    return frame


@dataclass(frozen=True)
class _Text:
    """How a text file is read, told from its beginning.

    ``packed`` is how pandas unpacks it, ``start`` its first signs as they are divided, by ``quote`` and ``layout``, ``cut`` if more follow.
    ``mend`` turns what was written into what can be divided, None where it can be as it stands; ``said`` tells of that.
    """

    packed: Any
    encoding: str
    start: str
    cut: bool
    quote: str
    layout: Layout
    mend: Callable[[str], str] | None = None
    said: str | None = None


def _beginning(path: Path) -> tuple[Any, bytes]:
    """Return how a file is packed, and its first bytes; what is no table is refused by name."""
    member = _member(path)
    with path.open("rb") as file:
        packed: Any = None if member else "tar" if ".tar." in path.name else "gzip" if file.read(2) == b"\x1f\x8b" else "infer"
    head = _unpacked(member or path, packed, SNIFFED)
    for mark, remedy in _NO_TABLES.items():
        if head[:200].lstrip(b"\xef\xbb\xbf \r\n").lower().startswith(mark):
            raise ValueError(remedy)
    return packed, head


def _sniffed(head: bytes, packed: Any, names: Collection[str], learnt: Mapping[str, Any]) -> _Text:
    """Tell by the first bytes of a file how its text is encoded, mended and divided."""
    cut, head = len(head) == SNIFFED, re.sub(rb"\0{4,}$", b"", head)
    encoding = _encoding(head, names, learnt.get("encoding"))
    start = head.decode(encoding, "replace").rstrip("\0\x1a")
    mend, said = mending(start, names, cut=cut)
    start = mend(start) if mend else start
    quote = "'" if single_quoted(start) or (learnt.get("quote") == "'" and '"' not in start) else '"'
    return _Text(packed, encoding, start, cut, quote, layout(start, names, quote, learnt.get("separator"), cut=cut), mend, said)


def _cells(path: Path, text: _Text) -> tuple[pd.DataFrame, str]:
    """Return all rows from the header on, each cell as it is written, and their encoding, which further down may be another."""
    import pandas as pd

    def rows(encoding: str) -> pd.DataFrame:
        source: Any = _member(path) or path
        errors: Any = "replace" if encoding == "cp1252" else "strict"
        if text.mend:
            source = io.BytesIO(text.mend(_unpacked(source, text.packed).decode(encoding, errors)).encode(encoding, "replace"))
        width = text.layout.width
        # Every cell stays as it is written; no column is the index, and an empty line of a column alone is a value.
        kept: Any = {"header": None, "names": list(range(width)), "index_col": False, "dtype": str, "keep_default_na": False}
        kept |= {"skiprows": text.layout.above, "skip_blank_lines": width > 1, "skipinitialspace": True, "quotechar": text.quote}
        kept |= {"sep": text.layout.separator, "compression": None if text.mend else text.packed, "encoding": encoding}
        found: pd.DataFrame = pd.read_csv(source, encoding_errors=errors, **kept)
        return found

    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)  # it tells of values that are lost
        try:
            return rows(text.encoding), text.encoding
        except UnicodeDecodeError:
            return rows("cp1252"), "cp1252"


def _warn_of_reading(path: Path, text: _Text, encoding: str, learnt: Mapping[str, Any]) -> None:
    if encoding in ("cp1252", *_OTHERS) and encoding != learnt.get("encoding"):
        runs, letters = re.findall(r"[^\x00-\x7f\W]{3,}|\S*\ufffd\S*", text.start), re.findall(r"[^\x00-\x7f\W]", text.start)
        odd = encoding == "cp1252" and 2 * sum(map(len, runs)) > len(letters)  # a Western word has letters of ASCII, too
        why = "Windows-1252 (Latin-1)" if encoding == "cp1252" else f"{encoding}, as a name of its header tells"
        remedy = f"it is probably another encoding, e.g. {runs[0]!r}: save it" if odd else "if letters are wrong, save it"
        warnings.warn(f"{path} is not UTF-8 and was read as {why}; {remedy} as UTF-8", stacklevel=5)
    above = f"left out {text.layout.above} lines above the header"
    for one in filter(None, (text.said, above if text.layout.above else None)):
        warnings.warn(f"{path}: {one}", stacklevel=5)


def _below_header(cells: pd.DataFrame, text: _Text) -> tuple[list[str], pd.DataFrame]:
    """Return the names of the header, and the rows below it without what some systems write behind the last one."""
    header, width = [str(name).replace("\0", "").strip() for name in cells.iloc[0]], cells.shape[1]
    body = cells.iloc[1:].reset_index(drop=True)
    if width > 1 and all(map(_LIBSVM.fullmatch, header[1:])):
        raise ValueError("it is a file of LIBSVM; read it by sklearn.datasets.load_svmlight_file, and save it as CSV with a header")
    while len(body) and (last := "".join(body.iloc[-1])) and not last.strip("\0\x1a "):
        body = body.iloc[:-1]
    if width == 1:  # an empty line is a value that is missing, but at the end
        ends = re.search(r"(\r\n|\n|\r)*$", text.start)
        body = body.iloc[: max(0, len(body) - max(0, len(re.findall(r"\r\n|\n|\r", ends[0])) - 1))] if ends and not text.cut else body
    for k in range(width):
        if body[k].str.startswith('="').any():  # to look into every cell takes long
            body[k] = body[k].replace(_EXCEL, r"\1", regex=True)
    return header, body


def _warn_of_rows(
    path: Path, header: list[str], body: pd.DataFrame, text: _Text, data: Collection[int], names: Collection[str], *, is_new: bool
) -> None:
    """Say which of the rows that are ``data`` are probably divided otherwise than they were meant; refuse a file all of whose rows are."""
    short, separator, said = text.layout.short, text.layout.separator, list[str]()
    there = [header.index(name) for name in names if name in header]
    if there and short and not is_new and len(short) >= len(data) and (body.iloc[:, max(there) :] == "").all(axis=None):
        why = f"is a {separator!r} part of a name, or are rows divided by another sign? Quote such a name, and divide all lines alike"
        lost = f"has as many values as the header has names ({text.layout.named}), and none a value of {header[max(there)]!r}"
        raise ValueError(f"no row {lost}: {why}")
    if lines := [line for place, line in short.items() if place in data]:
        fewer = f"{len(lines)} rows have fewer values than the header has names, first line {lines[0]}; what they lack counts as missing"
        said.append(f"{fewer}: delete those that are notes, and if a value was left out in their middle the others stand in wrong columns")
    if own := headless(header, body, names):
        said.append(f"the column {own!r} has its name among its values; if the file has no header, write one above its first line")
    if taken := swallowed(body, separator):
        said.append(f"a quote in {taken[0][:40]!r} takes in {taken[0].count(chr(10))} lines that look like rows; double or remove it")
    for one in said:
        warnings.warn(f"{path}: {one}", stacklevel=5)


def _named(header: list[str], body: pd.DataFrame, layout: Layout) -> pd.DataFrame:
    """Return rows under the names of their columns; values beyond these are refused, but of a column that has none."""
    named, width = layout.named, layout.width
    surplus = (body.iloc[:, named:] != "").any(axis=1)
    if surplus.mean() > 0.5 and layout.fields == width:
        named = width  # the last column has no name, for the header ends in a separator
    elif surplus.any() and bool(surplus.all()) and width == named + 1 and body[0].is_unique:
        header, named = ["", *header[:named]], width  # R writes the names of the rows without a name for their column
    elif surplus.any():
        line = int(surplus.to_numpy().argmax()) + layout.above + 2
        raise ValueError(
            f"line {line} has more values than the header has names ({named}); name every column, quote values that hold a "
            f"{layout.separator!r}, and double a quote in them"
        )
    return body.iloc[:, :named].set_axis([name or f"Unnamed: {k}" for k, name in enumerate(header[:named])], axis=1)


def _unpacked(source: Any, packed: Any, count: int = -1) -> bytes:
    """Return the first ``count`` bytes of a file, or all."""
    from pandas.io.common import get_handle  # type: ignore[import-not-found]  # the stubs leave it out

    with get_handle(source, "rb", compression=packed, is_text=False) as opened:
        found: bytes = opened.handle.read(count)
    return found


def _whole_text(source: Any, packed: Any = "infer") -> str:
    found = _unpacked(source, packed)
    return found.decode(_encoding(found, (), None), "replace").removeprefix("\ufeff")


def _said_rows(path: Path, header: list[str], body: pd.DataFrame, learnt: Mapping[str, Any]) -> tuple[np.ndarray, dict[str, Any]]:
    """Return which rows are data, with a warning for what others are left out, and the units to keep, if there are any."""
    data, said, units = rows_of_data(header, body, learnt.get("units"))
    for one in said:
        warnings.warn(f"{path}: {one}", stacklevel=5)
    return data, {"units": units} if units else {}


def _kind_of(path: Path) -> str:
    """Return the suffix of what a file is by its first bytes, ``.csv`` for text."""
    with path.open("rb") as file:
        first = file.read(4)
    if first == b"PAR1":
        return ".parquet"
    if first == b"PK\3\4" and {"xl/workbook.xml", "content.xml"} & {*zipfile.ZipFile(path).namelist()}:
        return ".xlsx"
    return ".xlsx" if first == b"\xd0\xcf\x11\xe0" else ".csv"


def _member(path: Path) -> IO[bytes] | None:
    """Open the one table of a zip, beside which a Mac puts files of its own; None for other files."""
    if path.suffix.lower() != ".zip":
        return None
    archive = zipfile.ZipFile(path)
    names = [name for name in archive.namelist() if not name.endswith("/") and not name.startswith(("__MACOSX", "."))]
    names = [name for name in names if Path(name).suffix.lower() in TEXT and "readme" not in name.lower()] or names
    if len(names) != 1 or Path(names[0]).suffix.lower() in TYPED:
        raise ValueError(f"it must hold one file of text, it holds {', '.join(names[:5]) or 'none'}; unpack it")
    return archive.open(names[0])


def _encoding(head: bytes, names: Collection[str], learnt: str | None) -> str:
    for mark, name in _MARKS:
        if head.startswith(mark):
            return name
    if head.count(0) * 4 > len(head):
        return "utf-16-le" if head[1::2].count(0) > head[::2].count(0) else "utf-16-be"
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        known = [learnt] if learnt in ("cp1252", *_OTHERS) else []
        first, strange = b"\n".join(head.split(b"\n", HEADING)[:HEADING]), [name for name in names if not name.isascii()]
        told = [one for one in (*known, "cp1252", *_OTHERS) if strange and all(name in first.decode(one, "ignore") for name in strange)]
        return [*told, *known, "cp1252"][0]
    return "utf-8"
