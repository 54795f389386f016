"""Files that are written whole or not at all, what is said when the disk is full, and how a file is known again."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

_FULL = (errno.ENOSPC, errno.EDQUOT)
#: A disk with less than this is full: a library that wrote to it may not say so.
_LEAST_BYTES = 4096


@contextlib.contextmanager
def whole_file(path: Path, *, private: bool = False) -> Iterator[Path]:
    """Yield a temporary file beside ``path``, which takes its place at the end: a reader sees the old file or the new one.

    Args:
        path: The file.
        private: Whether only its owner may read it.

    Raises:
        OSError: If it cannot be written, e.g. to a full disk; nothing is left behind, and the error names the file.
    """
    if path.exists() and not path.is_file():  # /dev/stdout, or a folder, which whoever writes to it will say
        yield path
        return
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with named_when_full(path):
            temporary.touch(0o600 if private else 0o666)
            yield temporary
            temporary.replace(path)
    except OSError as error:
        if error.errno is None or error.filename not in (None, str(temporary)):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


@contextlib.contextmanager
def named_when_full(path: Path) -> Iterator[None]:
    """Turn whatever a library raises because the disk is full into an ``OSError`` that names what could not be written."""
    try:
        yield
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None and not _says_full(cause):
            cause = cause.__cause__ or cause.__context__
        if cause is None and not (isinstance(error, OSError | RuntimeError) and _is_full(path)):
            raise
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error


def full_disk(error: BaseException, remedy: str = "run the same command again") -> str | None:
    """Return what the user reads when an error says that a disk is full, or None."""
    if not isinstance(error, OSError) or error.errno not in _FULL:
        return None
    file = "a file" if error.filename is None else repr(str(error.filename))
    return f"cannot write {file}: the disk is full; free some space, then {remedy}"


def unwritable(error: BaseException, path: Path) -> str | None:
    """Return what the user reads when an error says that this file could not be written, or that a disk is full; else None."""
    if (said := full_disk(error)) is None and isinstance(error, OSError) and error.filename == str(path):
        why = (error.strerror or str(error)).lower()
        return f"cannot write {str(path)!r}: {why}; see that it can be written, then run the same command again"
    return said


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _says_full(error: BaseException) -> bool:
    """Whether an error is a full disk's; a library in another language only quotes the system's words."""
    if isinstance(error, OSError):
        return error.errno in _FULL
    return any(os.strerror(code) in str(error) for code in _FULL)


def _is_full(path: Path) -> bool:
    near = path.absolute()
    while not near.exists():
        near = near.parent
    try:
        return shutil.disk_usage(near).free < _LEAST_BYTES < shutil.disk_usage(near).total  # /proc and the like have no size
    except OSError:
        return False
