"""The real command line in a process group of its own: start it, watch its ledger, kill parts of it."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from helpers.forked import Forked

CLI = (sys.executable, "-m", "joulefront.search.cli")


class Session:
    """One call of the command line.

    Args:
        words: Its arguments.
        folder: Where it runs; its output goes to ``output.txt`` there.
        out: The run folder, whose ledger shows how far it is.
        environment: What a fresh interpreter sees beside this process's own variables; by default the process is forked from one that has
            loaded everything.
    """

    def __init__(self, words: Sequence[str], folder: Path, out: Path, environment: Mapping[str, str] | None = None) -> None:
        self.out, self.output = out, folder / "output.txt"
        self._known = set(ledger_joules(out / "ledger.jsonl"))
        with self.output.open("a") as output:
            where: dict[str, Any] = {"cwd": folder, "stdout": output, "stderr": subprocess.STDOUT, "start_new_session": True}
            self.process: subprocess.Popen[bytes] | Forked
            if environment is None:
                self.process = Forked(*CLI[1:], *words, **where)
            else:
                variables = {**os.environ, "PYTHONUNBUFFERED": "1", **environment}
                self.process = subprocess.Popen([*CLI, *words], stdin=subprocess.DEVNULL, env=variables, **where)

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def members(self) -> list[int]:
        """Process ids of the group, the parent included; zombies do not count."""
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError, IndexError, ValueError):
                state, _, group = (entry / "stat").read_text().rpartition(")")[2].split()[:3]
                if int(group) == self.process.pid and state not in "ZX":
                    found.append(int(entry.name))
        return found

    def workers(self) -> list[int]:
        """Process ids of the processes that train: what the server of the workers has forked."""
        parents: dict[int, int] = {}
        for pid in self.members():
            with contextlib.suppress(OSError):
                parents[pid] = int(Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1])
        return [pid for pid, parent in parents.items() if parents.get(parent) == self.process.pid]

    def kill(self, whom: str, pid: int | None = None) -> None:
        """SIGKILL the ``parent``, one ``worker`` or the whole ``group``; what does not go on is gone when this returns."""
        if whom == "worker":
            os.kill(pid or self.workers()[0], signal.SIGKILL)
            return
        if whom == "group":
            os.killpg(self.process.pid, signal.SIGKILL)
        else:
            self.process.kill()
        self.process.wait()
        until(lambda: not self.members(), 30.0, "processes of a killed session are gone")

    def end(self) -> None:
        """Kill what is still there."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def events(self) -> list[dict[str, Any]]:
        """Events of this session in its ledger's file, as far as it has come."""
        return [event for event in ledger_events(self.out / "ledger.jsonl") if event.get("session") not in self._known]

    def trained(self) -> int:
        """Number of trials that have ended in this session."""
        return sum(event["event"] == "close" and event["record"]["kind"] == "trial" for event in self.events())

    def training(self) -> bool:
        """Whether an epoch has begun."""
        return any(event["event"] == "open" and event["record"]["kind"] == "epoch" for event in self.events())

    def wait_for(self, true: Callable[[], Any], seconds: float, what: str) -> None:
        """Wait until something is true or the process has ended.

        Raises:
            AssertionError: If neither is so in time; the message has what the process printed last.
        """
        try:
            until(lambda: not self.running or true(), seconds, what)
        except AssertionError as error:
            raise AssertionError(f"{error}; it printed:\n{self.tail()}") from None

    def tail(self) -> str:
        """What it printed last."""
        return "\n".join(self.output.read_text(errors="replace").splitlines()[-12:])


def until(true: Callable[[], Any], seconds: float, what: str) -> None:
    """Wait until something is true.

    Raises:
        AssertionError: If it is not in time.
    """
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"after {seconds:g} s it is still not true that {what}"
        time.sleep(0.1)


def ledger_events(file: Path) -> Iterator[dict[str, Any]]:
    """Yield the whole lines of a ledger's file."""
    if file.is_file():
        for line in file.read_bytes().splitlines():
            with contextlib.suppress(ValueError):
                event = json.loads(line)
                if isinstance(event, dict) and "event" in event:
                    yield event


def ledger_joules(file: Path) -> dict[str, list[float]]:
    """Return by session what its ledger knew: 0 at its start, at each checkpoint, and at its end if it had one."""
    found: dict[str, list[float]] = {}
    for event in ledger_events(file):
        known = found.setdefault(str(event["session"]), [0.0])
        if event["event"] == "beat":
            known.append(sum(event["split"]["joules"].values()))
        elif event["event"] == "stop":
            known.append(sum(part["joules"] or 0.0 for part in event["record"]["components"] if part["counts"]))
    return found
