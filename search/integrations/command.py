"""Any command under the meter, as `time` does it for seconds: its streams, signals and exit code stay its own."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType
from typing import Any

from ..argument_types import refuse_wrong_types
from ..carbon.intensity import Intensity, check_pue, grams_co2e
from ..energy import JOULES_PER_KWH, Discovery, Ledger, Record, discover, with_wall
from ..formatting import digits, grams_text, joules_text, plain
from ..threads import ADDED
from .metering import remedy

#: Signals that end a program, or tell it something, and that are meant for the command when they reach us.
_FORWARDED = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2") if hasattr(signal, name))
#: What the shell says of a command that is not there, and of one that cannot be executed. Source: POSIX, Shell Command Language, 2.8.2.
NOT_FOUND, NOT_EXECUTABLE = 127, 126
#: A shell reports the end by a signal as 128 and its number.
_BY_SIGNAL = 128
#: Longest command that is printed, in characters; JSON has all of it.
_SHOWN = 200
#: Longest time between two looks whether the command has ended, where its end itself wakes nobody.
_LOOK_SECONDS = 0.5


class CommandError(RuntimeError):
    """A command cannot be started; ``exit_code`` is what a shell would return."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@dataclass(frozen=True)
class MeasuredCommand:
    """A command that has ended, and what it took, its child processes included.

    Attributes:
        exit_code: The command's own; 128 + N where signal N ended it.
        record: Its energy by component; unknown is None, with the reason.
        remedy: What would make its energy known, where it is unknown.
        intensity: Carbon intensity of the place, or None when it is unknown.
        pue: Power usage effectiveness of the site.
    """

    words: tuple[str, ...]
    exit_code: int
    record: Record
    remedy: str | None = None
    intensity: Intensity | None = None
    pue: float = 1.0

    def to_json(self) -> dict[str, Any]:
        """Return a plain dictionary: the command, its end, kWh and grams, and the record, which ``Record.from_json`` reads back."""
        joules = self.record.joules
        return {
            "command": list(self.words),
            "exit_code": self.exit_code,
            "kwh": None if joules is None else joules / JOULES_PER_KWH,
            "grams_co2e": grams_co2e(joules, self.intensity, self.pue),
            "intensity": None if self.intensity is None else self.intensity.to_json(),
            "pue": self.pue,
            **self.record.to_json(),
        }

    def to_text(self) -> str:
        """Describe it in a few lines: the energy, how far it is known, and each component as measured, estimated or absent."""
        record, joules = self.record, self.record.joules
        ended = f"exit code {self.exit_code}"
        if self.exit_code > _BY_SIGNAL and self.exit_code - _BY_SIGNAL in {*signal.Signals}:
            ended += f" ({signal.Signals(self.exit_code - _BY_SIGNAL).name})"
        cpu = "" if record.cpu_seconds is None else f", {digits(record.cpu_seconds)} CPU-seconds"
        shown = textwrap.shorten(shlex.join(self.words), _SHOWN, placeholder=" ...")  # a program in an argument may have many lines
        lines = [f"joulefront: {shown}: {ended} after {digits(record.seconds)} s{cpu}"]
        if joules is None:
            known = f"; at least {digits(record.known_joules)} J, the rest was not read" if record.known_joules > 0 else ""
            lines.append(f"energy: unknown{known}" + (f"; {self.remedy}" if self.remedy else ""))
        else:
            lines.append(f"energy: {joules_text(joules)} ({digits(joules)} J{_doubt(record)}), {record.quality}")
        for part in record.components:
            value = "absent" if part.joules is None else f"{digits(part.joules)} J {part.quality}"
            aside = "" if part.counts or part.joules is None else ", not in the sum"
            said = part.reason or part.boundary
            lines.append(f"  {part.name}: {value} ({part.source}{aside})" + (f"; {said}" if said else ""))
        grams = grams_co2e(joules, self.intensity, self.pue)
        if self.intensity is not None and grams is not None:
            site = "" if self.pue == 1 else f"a PUE of {self.pue:g} and "
            lines.append(f"carbon: {grams_text(grams)}, derived with {site}{self.intensity.describe()}")
        return "\n".join(lines)


def _doubt(record: Record) -> str:
    """The standard uncertainty between runs, and the scale's."""
    run, scale, joules = record.u_random_joules, record.u_systematic_joules, record.joules
    known = [] if run is None else [f"±{digits(run)} J between runs"]
    known += [] if scale is None or not joules else [f"±{plain(100 * scale / joules, 2)} % of the scale"]
    return "; standard uncertainty " + ", ".join(known) if known else ""


def measure_command(
    words: Sequence[str],
    meter: str | Discovery = "auto",
    *,
    cpu_watts: float | None = None,
    intensity: Intensity | None = None,
    pue: float = 1.0,
) -> MeasuredCommand:
    """Run a command to its end and return what it took, with all its child processes.

    Its streams and its environment are those of this process. A signal that ends programs reaches it, once, and what it took until
    then is returned; call it from the main thread, since others get no signals.

    Args:
        words: The program and its arguments; no shell is involved.
        meter: As for ``discover``, or what it found; its sources are released at the end.
        cpu_watts: As for ``discover``.
        intensity: Carbon intensity of the place; None leaves the grams unknown.
        pue: Power usage effectiveness of the site.

    Raises:
        CommandError: If there is no such command (127), or it cannot be executed (126).
        ValueError: If there are no words, or the meter is unknown.
    """
    refuse_wrong_types(measure_command, locals(), words="write ['python', 'train.py']")
    check_pue(pue)
    if not words or not words[0]:
        raise ValueError("COMMAND must be a program and its arguments, got none; for example joulefront measure -- python train.py")
    found = discover(meter, cpu_watts=cpu_watts) if isinstance(meter, str) else meter
    with Ledger(found) as ledger:
        window = ledger.open(os.path.basename(words[0]))
        code = _run(words)
        record = window.close("ok" if code == 0 else "stopped" if code > _BY_SIGNAL else "failed", settle=True)
    help_with = remedy(found) if record.joules is None else None
    return MeasuredCommand(tuple(words), code, with_wall(record), help_with, intensity, pue)


def _run(words: Sequence[str]) -> int:
    """Run a command with our streams and return its exit code, as a shell would."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):
            stream.flush()
    environment = {name: value for name, value in os.environ.items() if name not in ADDED}
    # A terminal sends Ctrl-C to all of its foreground group, the command included. Elsewhere whoever signals our group or us alone
    # reaches the command through us, in a group of its own: once, not twice.
    terminal = _has_terminal()
    with _forwarding(to_itself=terminal) as forward:
        try:
            # What Python does not close by itself was handed to us for the command.
            process = subprocess.Popen(words, env=environment, close_fds=False, process_group=None if terminal or os.name != "posix" else 0)
        except FileNotFoundError:
            raise CommandError(
                f"COMMAND must be a program that exists, got {words[0]!r}; check the spelling, the path and PATH", NOT_FOUND
            ) from None
        except OSError as error:
            raise CommandError(
                f"COMMAND must be executable, got {words[0]!r} ({(error.strerror or str(error)).lower()})", NOT_EXECUTABLE
            ) from None
        forward(process)
        while True:
            with suppress(subprocess.TimeoutExpired):
                code = process.wait(_LOOK_SECONDS if os.name != "posix" else None)
                return _BY_SIGNAL - code if code < 0 else code


def _has_terminal() -> bool:
    """Whether our process group is one of a terminal, which would not let another group read from it."""
    with suppress(OSError):
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
        return True
    return False


@contextmanager
def _forwarding(*, to_itself: bool) -> Iterator[Any]:
    """Pass signals on to a process, which the yielded function names; with ``to_itself`` those of the terminal reach it by themselves."""
    processes: list[subprocess.Popen[bytes]] = []
    waiting: list[int] = []

    def arrived(number: int, frame: FrameType | None) -> None:
        if to_itself and number == signal.SIGINT:
            return
        waiting.append(number)
        deliver()

    def deliver() -> None:
        while processes and waiting:
            with suppress(OSError):
                processes[0].send_signal(waiting.pop(0))

    def follow(process: subprocess.Popen[bytes]) -> None:
        processes.append(process)
        deliver()

    before = {}
    if threading.current_thread() is threading.main_thread():
        # What somebody ignores for us (nohup) is ignored by the command, too.
        before = {number: signal.signal(number, arrived) for number in _FORWARDED if signal.getsignal(number) is not signal.SIG_IGN}
    try:
        yield follow
    finally:
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
