"""What a user reads when something goes wrong: one line, and an exit code."""

from __future__ import annotations

from typing import Any

#: What a shell expects of a program that Ctrl-C ended: 128 + SIGINT.
INTERRUPTED = 130
#: What is wrong with a path that the user gave.
_PATHS = FileNotFoundError | FileExistsError | NotADirectoryError | IsADirectoryError | PermissionError


def exit_code(error: Exception) -> int:
    """Return 2 for wrong usage, 1 for work that failed."""
    usage = getattr(error, "exit_code", None)  # the parser's own errors bring it
    return int(usage) if usage is not None else 2 if isinstance(error, ValueError | _PATHS) else 1


def one_line(error: Exception) -> str:
    """Say an error in one line, with what to do about it."""
    if hasattr(error, "format_message"):  # the parser's
        context: Any = getattr(error, "ctx", None)
        return f"{_flat(error.format_message()).rstrip('.')}. See {context.command_path if context else 'joulefront'} --help"
    if not isinstance(error, ValueError | RuntimeError | OSError | ImportError | LookupError) or isinstance(error, KeyError | IndexError):
        # Nobody wrote this one for the user: say what it is and how to find out more.
        return f"{type(error).__name__}: {_flat(str(error))} (the same command with --debug shows where)"
    if isinstance(error, _PATHS) and error.filename is not None and error.strerror is not None:
        return f"cannot use {str(error.filename)!r}: {error.strerror.lower()}; give another path"
    return _flat(str(error)) or f"{type(error).__name__} (the same command with --debug shows where)"


def _flat(text: str) -> str:
    return " ".join(text.split())
