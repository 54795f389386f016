"""Streams that never end a run that was paid for: signs that an encoding lacks get a plain spelling, and a reader may leave early."""

from __future__ import annotations

import codecs
import gc
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from typing import Any

from ..formatting import for_stream

#: Name of the error handler that `prepare` gives to the streams.
PLAIN = "joulefront.plain"
#: Signs that we print -> how a stream prints them that cannot encode them.
SPELLINGS = {
    "±": "+-", "≈": "~", "≡": "=", "µ": "u", "μ": "u", "²": "2", "³": "3", "×": "x", "÷": "/", "·": "|", "…": "...", "†": "*",
    "→": "->", "≥": ">=", "≤": "<=", "−": "-", "–": "-", "—": "-", "°": " deg", "€": "EUR", "£": "GBP", "₹": "INR", "‘": "'", "’": "'",
    "“": '"', "”": '"', "─": "-", "━": "-", "═": "=", "╸": "-", "╺": "-", "│": "|", "┃": "|", "┼": "+", "╋": "+", "█": "#", "\u00a0": " ",
}  # fmt: skip


def prepare(whole_process: bool) -> None:
    """Make stdout and stderr of this process take every text; with ``whole_process`` also survive a reader that leaves (``| head -1``)."""
    codecs.register_error(PLAIN, _plain)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None and whole_process:  # `>&-`: nobody reads it, and a file that is opened must not get its number
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w", encoding="utf-8"))
        stream = getattr(sys, name)
        if isinstance(stream, TextIOWrapper) and stream.errors in ("strict", "surrogateescape", "backslashreplace", "replace"):
            stream.reconfigure(errors=PLAIN)
        if whole_process and stream is not None and not isinstance(stream, Forgiving):
            setattr(sys, name, Forgiving(stream))


@contextmanager
def loading(whole_process: bool) -> Iterator[None]:
    """Load libraries without looking for garbage, a tenth of their time; with ``whole_process`` what is there then is never looked at."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()
        if whole_process:
            gc.freeze()


@contextmanager
def plain_warnings() -> Iterator[None]:
    """Print a warning for the user as one line, without the place in the code that gave it."""
    before = warnings.formatwarning

    def formatted(message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None) -> str:
        return (
            for_stream(f"warning: {message}", sys.stderr) + "\n"
            if category is UserWarning
            else before(message, category, filename, lineno, line)
        )

    warnings.formatwarning = formatted
    try:
        yield
    finally:
        warnings.formatwarning = before


def _plain(error: UnicodeError) -> tuple[str | bytes, int]:
    """Spell the signs that cannot be encoded; bytes of a file name that are no text go out as they came in."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    signs = error.object[error.start : error.end]
    if all("\udc80" <= sign <= "\udcff" for sign in signs):
        return bytes(ord(sign) - 0xDC00 for sign in signs), error.end
    text = "".join(SPELLINGS.get(sign, "?") for sign in signs)
    try:
        text.encode(error.encoding)
    except (UnicodeError, LookupError):
        text = "?" * len(signs)
    return text, error.end


class Forgiving:
    """A text stream that goes on silently when nobody reads it any more; everything else is the stream's own."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write a text, or drop it when the reader has left."""
        try:
            return int(self._stream.write(text))
        except (BrokenPipeError, ConnectionResetError):
            self._drop()
            return len(text)

    def flush(self) -> None:
        """Hand over what was written so far."""
        try:
            self._stream.flush()
        except (BrokenPipeError, ConnectionResetError):
            self._drop()

    def _drop(self) -> None:
        """Lead the stream nowhere: what waits in its buffer would fail again at every later write."""
        with suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
