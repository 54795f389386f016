"""Tables of objects: JSON in its many forms, GeoJSON, the records of Arrow, and the attributes and rows of ARFF."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd


def read_json(text: str, names: Collection[str]) -> pd.DataFrame:
    """Read objects in a list, deeper in others, behind one another, by column or by id; rows below their names; GeoJSON.

    Raises:
        ValueError: If it is no JSON, or has several such lists; ``names`` are columns that the table must have.
    """
    import pandas as pd

    whole = _parsed(text)
    if isinstance(whole, list) and all(isinstance(row, list) for row in whole) and all(isinstance(name, str) for name in whole[0]):
        return pd.DataFrame(whole[1:], columns=whole[0])
    if isinstance(whole, dict):
        if {"columns", "data"} <= whole.keys():
            return pd.DataFrame(whole["data"], columns=whole["columns"])
        if whole.get("type") == "FeatureCollection":
            return pd.DataFrame(map(_feature, whole["features"]))
        values = list(whole.values())
        by_id = bool(values) and all(isinstance(value, dict) for value in values) and not {*names} & whole.keys()
        if by_id and (any({*names} & value.keys() for value in values) if names else len(values) > len(values[0])):
            return pd.DataFrame(values)
        tables = {} if {*names} & whole.keys() else _tables(whole)
        if len(tables) > 1:
            raise ValueError(f"it holds several tables, {', '.join(tables)}; save one of them as a file of its own")
        if len(tables) == 1:
            return pd.DataFrame(next(iter(tables.values())))
        whole = whole if all(isinstance(value, dict | list) for value in values) else [whole]
    return pd.DataFrame(whole).reset_index(drop=True)


def read_parquet(path: Path) -> pd.DataFrame:
    """Read a file of Parquet, also one that has a name twice, which pandas' own way refuses in words of Arrow."""
    import pandas as pd
    from pyarrow import parquet

    try:
        return flat(pd.read_parquet(path))
    except ValueError:
        return flat(parquet.ParquetFile(path).read().to_pandas())


def read_arrow(path: Path) -> pd.DataFrame:
    """Read a file of Arrow, or a stream of its records, as datasets of Hugging Face lie on disk."""
    import pandas as pd
    from pyarrow import ipc

    with path.open("rb") as file:
        stream = file.read(4) == b"\xff\xff\xff\xff"
        file.seek(0)
        return flat(ipc.open_stream(file).read_pandas() if stream else pd.read_feather(path))


def _parsed(text: str) -> Any:
    """Return a value, or those that stand behind one another, on a line each or not, as a list."""
    reader, between, found, place = json.JSONDecoder(parse_int=_whole, object_pairs_hook=_object), re.compile(r"[\s,]*"), list[Any](), 0
    try:
        while (place := between.match(text, place).end()) < len(text):  # type: ignore[union-attr]
            value, place = reader.raw_decode(text, place)
            found.append(value)
    except json.JSONDecodeError as error:
        near = text[max(0, error.pos - 20) : error.pos + 20]
        rules = "JSON has no comma before ] or }, comments, None or single quotes"
        raise ValueError(f"{error.msg}, line {error.lineno}, near {near!r}; {rules}, and ends with a bracket") from error
    if not any(isinstance(one, dict | list) and one for one in found):
        raise ValueError("it must hold objects, got none")
    if all(isinstance(one, list) and isinstance(one[0], dict) for one in found if one != []):
        return [row for one in found for row in one]
    return found[0] if len(found) == 1 else found


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    if len(found := dict(pairs)) < len(pairs):
        name = next(name for k, (name, _) in enumerate(pairs) if name in dict(pairs[:k]))
        raise ValueError(f"an object has {name!r} twice, of which one would be lost; rename one")
    return found


def _whole(digits: str) -> int | str:
    """Read a whole number, but for one that a float would round: such are names."""
    return int(digits) if len(digits.lstrip("-")) < 16 else digits


def _tables(whole: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Return the lists of objects that lie least deep in an object, by where they lie."""
    found, level = dict[str, list[Any]](), {"": whole}
    while level and not found:
        inner = {above + name: value for above, one in level.items() for name, value in one.items()}
        found = {name: one for name, one in inner.items() if isinstance(one, list) and one and all(isinstance(row, dict) for row in one)}
        level = {f"{name}.": value for name, value in inner.items() if isinstance(value, dict)}
    return found


def _feature(feature: Mapping[str, Any]) -> dict[str, Any]:
    """Return what GeoJSON says of a thing: its properties, and where it is if it is a point. Source: RFC 7946."""
    place = feature.get("geometry") or {}
    point = place.get("coordinates", ()) if place.get("type") == "Point" else ()
    return {**(feature.get("properties") or {}), **dict(zip(("longitude", "latitude", "altitude"), point, strict=False))}


def flat(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a frame in which fields of nested objects, and numbers of lists of one length, are columns: ``a.x`` is ``x`` of ``a``."""
    import pandas as pd

    for name in [name for name, dtype in frame.dtypes.items() if str(dtype) == "object" and frame.columns.is_unique]:
        present = frame[name].dropna()
        if present.empty:
            continue
        if present.map(lambda value: isinstance(value, dict)).all():
            inner = pd.json_normalize([value if isinstance(value, dict) else {} for value in frame[name]]).set_index(frame.index)
        elif present.map(lambda value: isinstance(value, list | np.ndarray)).all() and (present.map(len) == len(present.iloc[0])).all():
            inner = pd.DataFrame(present.map(list).tolist(), index=present.index).reindex(frame.index).rename(columns=str)
        else:
            continue
        frame = pd.concat([frame.drop(columns=name), flat(inner).add_prefix(f"{name}.")], axis=1)
    return frame


def read_arff(text: str) -> pd.DataFrame:
    """Read a file of Weka, also a sparse one, by the reader that scikit-learn brings along."""
    import pandas as pd

    try:
        from sklearn.externals import _arff
    except ImportError as error:
        raise ValueError("ARFF needs scikit-learn; pip install scikit-learn, or save it as CSV") from error
    try:
        found = _arff.loads(re.sub(r"(?im)^(@attribute .*)\bdate\b.*$", r"\1string", text))  # it knows no dates
    except _arff.ArffException as error:
        raise ValueError(f"{error.message.partition(',')[0]}, line {error.line}") from error
    return pd.DataFrame(found["data"], columns=[name for name, _ in found["attributes"]])
