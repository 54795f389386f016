"""What a function takes, read from its annotations: a value of another type is refused in one line before it breaks something inside."""

from __future__ import annotations

import builtins
import functools
import importlib
import inspect
import os
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

#: What to write for arguments of these names.
_REMEDIES = {
    "space": "several are Union(...), your own functions Own(...)",
    "run": "RunFolder.open('runs/digits').run() gives one",
    "trial": "front.pick('trial=3') gives one",
    "study": "find_study('digits', {}) makes one",
    "intensity": "zones.intensity_for('FR') makes one",
    "budget": "write '5Wh'",
    "meter": "write 'nvml,rapl'",
    "warm_start": "write a list of run folders, ['runs/earlier']",
    "price_per_kwh": "write (0.30, 'EUR')",
    "device": "write 'cpu' or 'cuda:0'",
}
#: Values that no protocol describes.
_PLAIN = (int, float, complex, str, bytes, list, tuple, set, dict, type(None))


def refuse_wrong_types(owner: Callable[..., Any], values: Mapping[str, Any], prefix: str = "", **remedies: str) -> None:
    """Refuse, with a ``ValueError``, values of other types than a function or dataclass declares for them; a default is always right.

    ``prefix`` stands before the names in messages, and ``remedies`` says what to write for some of them beside ``_REMEDIES``.
    """
    told, wanted, defaults = _declared(owner)
    for name in wanted.keys() & values.keys():
        value, default = values[name], defaults[name]
        what = "a path that is not empty" if isinstance(value, str) and "Path" in told[name] and not value.strip() else told[name]
        if value is not default and (what != told[name] or not _fits(value, wanted[name])):  # pathlib takes '' for the current folder
            remedy = "give one" if default is inspect.Parameter.empty else f"leave it out for {default!r}".removesuffix(" for <factory>")
            remedy = (_REMEDIES | remedies).get(name, remedy)
            if isinstance(value, str) and re.fullmatch(r"\s*[\d.eE+-]+\s*", value) and _fits(1, wanted[name]):
                remedy = f"write {value.strip()} without quotes"
            got = " ".join(f"{value!r} ({type(value).__name__})".split())
            got = got if len(got) <= 80 else f"{type(value).__name__} {got[:60]}..."
            raise ValueError(f"{prefix}{name} must be {what}, got {got}; {remedy[:120]}")


def lazily(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """Return the ``__getattr__`` of a package whose public names are imported at first use, each from its home among the modules below."""

    def import_name(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"{package} has no {name!r}; it has {', '.join(sorted(homes))}")
        value = getattr(importlib.import_module(homes[name], package), name)
        setattr(sys.modules[package], name, value)
        return value

    return import_name


def plain_values(value: Any) -> Any:
    """Return a value as files of JSON can hold it: numbers of NumPy as Python's, also deep inside."""
    if isinstance(value, Mapping):
        return {plain_values(key): plain_values(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return (list if isinstance(value, list) else tuple)(map(plain_values, value))
    return value.item() if getattr(value, "ndim", None) == 0 and hasattr(value, "item") else value


class _Unknown(type):
    """The type of what is imported for type checkers only, with all that it may have inside: every value is one."""

    def __getattr__(cls, name: str) -> type:
        return cls

    def __instancecheck__(cls, value: object) -> bool:
        return True


class _Anything(metaclass=_Unknown): ...


@functools.cache
def _declared(owner: Callable[..., Any]) -> tuple[Mapping[str, str], Mapping[str, Any], Mapping[str, Any]]:
    known = defaultdict(lambda: _Anything, {**vars(builtins), **vars(sys.modules[owner.__module__])})
    defaults = {name: one.default for name, one in inspect.signature(owner).parameters.items()}
    wanted = {name: one for name, one in get_type_hints(owner, localns=known).items() if name in defaults}
    return inspect.get_annotations(owner), wanted, defaults


def _fits(value: Any, wanted: Any) -> bool:
    kind, parts = get_origin(wanted) or wanted, get_args(wanted)
    if kind in (Union, UnionType):
        return any(_fits(value, part) for part in parts)
    if kind is Iterable and isinstance(value, str | bytes):
        return False
    if kind is tuple and parts[-1] is not ...:
        return isinstance(value, tuple | list) and len(value) == len(parts) and all(map(_fits, value, parts))
    if kind in (tuple, list, Sequence):
        listed = hasattr(value, "__len__") and hasattr(value, "__getitem__") and not isinstance(value, str | bytes | Mapping | type)
        return listed and all(_fits(one, parts[0]) for one in value)
    if kind is Mapping and parts:
        return isinstance(value, Mapping) and all(_fits(one, parts[1]) for one in value.values())
    if kind in (int, float, bool) and type(value).__name__ in ("bool", "bool_"):  # NumPy's, too
        return kind is bool
    if kind is Callable or "__call__" in (vars(kind) if getattr(kind, "_is_protocol", False) else ()):
        return callable(value)
    if getattr(kind, "_is_protocol", False):  # what it has is seen when it is used
        return kind is _Anything or not isinstance(value, _PLAIN)
    kind = {int: Integral, float: Real, Path: os.PathLike, Literal: str}.get(kind, kind)
    return kind is Any or not isinstance(kind, type) or isinstance(value, kind)
