"""The ledger's file: one line per event, so that a killed process loses at most one beat."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .record import Component, Record


class Journal:
    """Appends lines to ``ledger.jsonl``; each line is one write, so that a line is whole or missing.

    Args:
        path: The file; its folder is created.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        # O_APPEND: several processes may share the file, and each write goes to its end.
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        if torn(path):
            os.write(self._fd, b"\n")

    def write(self, event: str, facts: Mapping[str, Any]) -> None:
        """Append one line; what is written survives a kill of this process."""
        if self._fd >= 0:
            os.write(self._fd, (json.dumps({"event": event, **facts}, separators=(",", ":")) + "\n").encode())

    def close(self) -> None:
        """Close the file; later writes are dropped."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


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


@dataclass(frozen=True)
class Recovered:
    """What a file tells after the fact.

    Attributes:
        closed: Records of the windows that were closed.
        killed: Records of those that were open when the process died, up to its last beat (state ``killed``).
        sessions: Number of times that a ledger began to write.
    """

    closed: tuple[Record, ...]
    killed: tuple[Record, ...]
    sessions: int


def recover(path: Path) -> Recovered:
    """Read a ledger's file, with the windows that its process took to the grave.

    A killed window is known up to the last beat: what came after is lost, at most one beat (5 s).
    """
    closed: list[Record] = []
    killed: list[Record] = []
    opened: dict[tuple[str, str], Record] = {}
    begun: dict[str, dict[str, Any]] = {}
    for event in lines(path):
        session = str(event.get("session", ""))
        if event["event"] == "start":
            begun[session] = event
        elif event["event"] == "open":
            opened[session, event["record"]["id"]] = Record.from_json(event["record"])
        elif event["event"] == "beat":
            for window in event["open"]:
                key = session, window["id"]
                if key in opened:
                    parts = tuple(Component(**part) for part in window["components"])
                    t1_ns = int(event["t_ns"])
                    seconds = (t1_ns - opened[key].t0_ns) / 1e9
                    opened[key] = replace(opened[key], t1_ns=t1_ns, seconds=seconds, components=parts)
        elif event["event"] == "close":
            record = Record.from_json(event["record"])
            opened.pop((session, record.id), None)
            closed.append(replace(record, hardware=begun.get(session, {}).get("hardware", record.hardware)))
    for (session, _), record in opened.items():
        killed.append(replace(record, state="killed", hardware=begun.get(session, {}).get("hardware", record.hardware)))
    return Recovered(tuple(closed), tuple(killed), len(begun))
