"""The ledger's file: one line per event, so that a killed process loses at most what came after its last checkpoint."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any


class Journal:
    """Appends lines to ``ledger.jsonl``; each line is one write, so that a line is whole or missing.

    A disk that is full ends neither the measuring nor what is measured: the line is lost, and ``write`` returns why.

    Args:
        path: The file; its folder is created.

    Raises:
        OSError: If the file cannot be opened for writing.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        # O_APPEND: several processes may share the file, and each write goes to its end.
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        self._torn = torn(path)

    def write(self, event: str, facts: Mapping[str, Any]) -> str | None:
        """Append one line, which survives a kill of this process; return why it could not be written, or None."""
        if self._fd < 0:
            return None
        text = json.dumps({"event": event, **facts}, separators=(",", ":"), default=str) + "\n"
        line = ("\n" + text if self._torn else text).encode()
        try:
            written = os.write(self._fd, line)
        except OSError as error:
            return error.strerror or repr(error)
        self._torn = written < len(line)
        return f"only {written} of {len(line)} bytes fitted" if self._torn else None

    def close(self) -> None:
        """Close the file; later writes are dropped."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            with suppress(OSError):  # some file systems report only now that the disk was full
                os.close(fd)


def torn(path: Path) -> bool:
    """Return whether a file's last line lacks its end: its writer died, or the disk was full."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        if size == 0:
            return False
        file.seek(size - 1)
        return file.read(1) != b"\n"


def lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the events of a file; torn lines are skipped."""
    with path.open("rb") as file:
        for line in file:
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if isinstance(event, dict):
                yield event
