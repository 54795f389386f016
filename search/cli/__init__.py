"""The command line: its verbs are functions of `run`, `read` and `deploy`, and what goes wrong is one line and an exit code.

Results go to stdout, progress and errors to stderr. The streams never end a run that was paid for: signs that an encoding lacks get a plain
spelling, and a reader may leave early.
"""

from __future__ import annotations

import atexit
import codecs
import errno
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from typing import Any

#: The exit code of a program that Ctrl-C ended: 128 + SIGINT.
INTERRUPT_CODE = 130
#: That of a program that SIGTERM ended, whatever it could still finish: a batch system must not take it for success.
TERMINATED_CODE = 143
try:
    import typer

    from ..formatting import for_stream, own_place, printable
    from ..whole_file import full_disk
    from . import deploy, read, run
except KeyboardInterrupt:  # nothing has begun yet
    raise SystemExit(INTERRUPT_CODE) from None
#: What is wrong with a path that the user gave.
_PATHS = FileNotFoundError | FileExistsError | NotADirectoryError | IsADirectoryError | PermissionError
_PATH_CODES = (errno.ENAMETOOLONG, errno.EROFS, errno.ELOOP)

#: Name of the error handler that `prepare_streams` gives to the streams.
PLAIN = "joulefront.plain"
#: Signs that we print -> how a stream prints them that cannot encode them.
SPELLINGS = {
    "±": "+-", "≈": "~", "≡": "=", "µ": "u", "μ": "u", "²": "2", "³": "3", "×": "x", "÷": "/", "·": "|", "…": "...", "†": "*",
    "→": "->", "≥": ">=", "≤": "<=", "−": "-", "–": "-", "—": "-", "°": " deg", "€": "EUR", "£": "GBP", "₹": "INR", "‘": "'", "’": "'",
    "“": '"', "”": '"', "─": "-", "━": "-", "═": "=", "╸": "-", "╺": "-", "│": "|", "┃": "|", "┼": "+", "╋": "+", "█": "#", "\u00a0": " ",
}  # fmt: skip

app = typer.Typer(
    name="joulefront",
    help="Search models that are worth their energy: the Pareto front of accuracy against measured kWh and CO2.",
    epilog="Every verb takes --debug, which shows the traceback of an error. Exit codes: 0 done, 1 the work failed, 2 wrong usage, "
    f"{INTERRUPT_CODE} interrupted, {TERMINATED_CODE} ended by SIGTERM.",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        print(f"joulefront {version('joulefront')}")
        raise typer.Exit


@app.callback()
def _before_a_verb(
    asked: bool = typer.Option(False, "--version", is_eager=True, callback=_print_version, help="Print the version and end."),
) -> None:
    """Take what may stand before a verb."""


def first_sentence(verb: Callable[..., Any]) -> str:
    """Return the first line of a docstring: the list of verbs breaks it at the width of the terminal, where it would cut a longer help."""
    return (verb.__doc__ or "").strip().partition("\n")[0]


for _verb in (
    run.run,
    run.worker,
    deploy.repeat,
    run.estimate,
    read.studies,
    read.inspect,
    read.front,
    read.plot,
    read.report,
    read.dashboard,
    deploy.export,
    deploy.predict,
    deploy.optimise,
    read.price,
    read.compare,
    read.repair,
    read.cache,
    read.doctor,
):
    app.command(short_help=first_sentence(_verb))(_verb)
# What follows the command belongs to it.
app.command(short_help=first_sentence(read.measure), context_settings={"allow_interspersed_args": False})(read.measure)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; a user's mistake is one line on stderr and exit code 2, failed work exit code 1.

    Args:
        arguments: The words after ``joulefront``; None for those of the process, which then ends here, and whose energy is all billed.

    Raises:
        SystemExit: With the exit code, unless it is 0.
    """
    code = _done(arguments)
    if arguments is None:
        _end_process(code)
    if code:
        sys.exit(code)


def with_implied_values(words: Sequence[str]) -> list[str]:
    """Give ``--pretrained`` without a value the one that it implies, ``auto``: typer knows no options with a value that may be left out."""
    own = own_words(words)
    return [
        f"{word}=auto" if word == "--pretrained" and k < own and (k + 1 == len(words) or words[k + 1].startswith("-")) else word
        for k, word in enumerate(words)
    ]


def own_words(words: Sequence[str]) -> int:
    """Return how many of the words are ours: what follows ``--``, or the options of ``measure``, belongs to another command.

    >>> own_words(["run", "digits", "--smoke"]), own_words(["measure", "-o", "a.json", "--json", "train", "--debug"])
    (3, 4)
    """
    if words[:1] != ["measure"]:
        return words.index("--") if "--" in words else len(words)
    count = 1
    while count < len(words) and words[count].startswith("-") and words[count] != "--":
        count += 1 if "=" in words[count] or words[count] in ("--json", "--debug", "--help", "-h") else 2
    return min(count, len(words))


def _done(arguments: list[str] | None) -> int:
    """Do what the words say; return the exit code."""
    typed = list(sys.argv[1:] if arguments is None else arguments)
    own = own_words(typed)
    words, terminated = [word for k, word in enumerate(typed) if word != "--debug" or k >= own], list[int]()

    def terminate(number: int, frame: Any) -> None:
        terminated.append(number)
        raise KeyboardInterrupt

    try:
        if arguments is None:  # SIGTERM tidies up as Ctrl-C does, and never looks like success
            signal.signal(signal.SIGTERM, terminate)
        prepare_streams(whole_process=arguments is None)
        require_directory()
        with plain_warnings():
            called = with_implied_values(words) or ["--help"]
            code = app(called, prog_name="joulefront", standalone_mode=False, obj=(words, arguments is None))
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPT_CODE
    except Exception as error:
        if len(words) < len(typed):
            raise
        for note in getattr(error, "__notes__", ()):  # what failed after it, as all was being closed
            print(for_stream(" ".join(f"note: {note}".split()), sys.stderr), file=sys.stderr)
        print(for_stream(f"error: {one_line(error)}", sys.stderr), file=sys.stderr)
        return exit_code(error)
    if code == INTERRUPT_CODE and words[:1] != ["measure"]:  # whose code is the command's, and which has said so
        resumable = words[:1] in (["run"], ["worker"], ["repeat"])
        said = "interrupted" + ("; what was measured is kept. Run the same command again to continue" if resumable else "")
        print(for_stream(said, sys.stderr), file=sys.stderr)
    return TERMINATED_CODE if terminated and code in (None, 0, INTERRUPT_CODE) else int(code or 0)


def require_directory() -> None:
    """Raise FileNotFoundError where the current directory was removed: no large library can be loaded in such a one."""
    try:
        os.getcwd()
    except FileNotFoundError:
        raise FileNotFoundError("the current directory must exist, got one that was removed; change into another") from None


def _end_process(code: int) -> None:
    """End the process without taking it apart: for torch and its like that takes a fifth of a short run's CPU time, which no meter sees."""
    with suppress(OSError):  # a closed pipe or a full disk: Python itself says so, below
        sys.stdout.flush()
        sys.stderr.flush()
        if all(thread.daemon for thread in threading.enumerate() if thread is not threading.main_thread()):
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C has nothing left to end
            atexit._run_exitfuncs()
            os._exit(code)
    sys.exit(code)


def exit_code(error: Exception) -> int:
    """Return 2 for wrong usage, 1 for work that failed."""
    usage = getattr(error, "exit_code", None)  # the parser's own errors bring it
    return int(usage) if usage is not None else 2 if isinstance(error, ValueError | ImportError) or _of_path(error) else 1


def one_line(error: Exception) -> str:
    """Return the message of an error in one line, with what to do about it."""
    if hasattr(error, "format_message"):  # the parser's
        context: Any = getattr(error, "ctx", None)
        problem = _flat(error.format_message()).rstrip(".")
        return f"{problem}{'' if problem.endswith('?') else '.'} See {context.command_path if context else 'joulefront'} --help"
    if not isinstance(error, ValueError | RuntimeError | OSError | ImportError | LookupError) or isinstance(error, KeyError | IndexError):
        # Nobody wrote this message for the user: name its kind, and how to find out more.
        return f"{type(error).__name__}: {_flat(str(error))}{own_place(error)} (the same command with --debug shows the traceback)"
    if (said := full_disk(error)) is not None:
        return said
    if "Could not determine home directory" in str(error):  # of pathlib
        return "a path that begins with ~ must name a user of this machine, or HOME a folder; write ./~ for a name that begins so"
    if isinstance(error, OSError) and _of_path(error) and error.filename is not None and error.strerror is not None:
        return f"cannot use {str(error.filename)!r}: {error.strerror.lower()}; give another path"
    said = _flat(str(error))
    return f"{said}{own_place(error)}" if said else f"{type(error).__name__} (the same command with --debug shows the traceback)"


def _of_path(error: Exception) -> bool:
    home = "Could not determine home directory" in str(error)
    return home or isinstance(error, _PATHS) or (isinstance(error, OSError) and error.errno in _PATH_CODES)


def _flat(text: str) -> str:
    """One line that every terminal can print: a name in it may come from a file of somebody else."""
    return printable(" ".join(text.split()))


# -- streams -------------------------------------------------------------------------------------------------------------------------------


def prepare_streams(whole_process: bool) -> None:
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
def plain_warnings() -> Iterator[None]:
    """Print a warning for the user as one line, without the place in the code that gave it, and none of Matplotlib's on its own folders."""
    before, drawing = warnings.formatwarning, logging.getLogger("matplotlib")
    level = drawing.level

    def formatted(message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None) -> str:
        return (
            for_stream(f"warning: {message}", sys.stderr) + "\n"
            if category is UserWarning
            else before(message, category, filename, lineno, line)
        )

    warnings.formatwarning = formatted
    drawing.setLevel(logging.ERROR)
    try:
        yield
    finally:
        warnings.formatwarning = before
        drawing.setLevel(level)


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
