"""Processes that have loaded joulefront: forked from one that has, at a tenth of the CPU-seconds that a fresh interpreter takes.

For what a process does and how it ends. How an interpreter starts, what it loads and what that costs takes ``subprocess``.

They come from the server of multiprocessing, and so do workers for the CPU. In a run of pytest that server is a fork of pytest itself, made
between the collection and the first test by ``tests/conftest.py``: it has loaded what all tests load.
"""

import atexit
import contextlib
import faulthandler
import fcntl
import logging
import os
import re
import runpy
import signal
import socket
import subprocess
import sys
import threading
import weakref
from collections.abc import Mapping, Sequence
from multiprocessing import connection, forkserver, util
from multiprocessing.reduction import DupFd
from pathlib import Path
from types import ModuleType
from typing import IO, Any

from joulefront.search.execution.worker import context_for

#: What most of these processes use.
LOADED = (
    "joulefront.search.cli",
    "joulefront.search.running.run",
    "joulefront.search.samplers",
    "joulefront.search.report.page",
    "joulefront.search.records.optuna_storage",
    "matplotlib.figure",
    "optuna.storages._rdb.storage",
    "optuna.storages._rdb.models",
    "optuna.artifacts",
    "scipy.optimize",
    "sqlalchemy.dialects.sqlite",
    "alembic.command",
    "alembic.migration",
    "mako.template",
    "jinja2",
    "moocore",
    "pydantic.main",
)


class Forked:
    """What of ``subprocess.Popen`` the tests use.

    Args:
        words: What would follow ``python`` on a command line: ``-c CODE``, ``-m MODULE`` or a file, then arguments.
        cwd: Where it runs; here by default.
        env: Its environment; that of this process by default. What libraries read as they load has been read.
        stdout: Where its output goes; a pipe by default.
        stderr: Where its errors go; a pipe by default, ``subprocess.STDOUT`` for that of its output.
        start_new_session: Whether it leads a process group of its own.
    """

    def __init__(
        self,
        *words: object,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        stdout: int | IO[Any] = subprocess.PIPE,
        stderr: int | IO[Any] = subprocess.PIPE,
        start_new_session: bool = False,
    ) -> None:
        self.stdout, out = _way_out(stdout)
        self.stderr, err = (None, out) if stderr == subprocess.STDOUT else _way_out(stderr)
        context = context_for("cpu", LOADED)
        here = (str(cwd or Path.cwd()), dict(os.environ if env is None else env), start_new_session)
        # The file numbers are doubled while the process starts.
        self._process = context.Process(target=_Program([str(word) for word in words], here, out, err))  # type: ignore[attr-defined]
        self._process.start()
        for stream, number in ((stdout, out), *(() if stderr == subprocess.STDOUT else ((stderr, err),))):
            if stream == subprocess.PIPE:
                os.close(number)
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("a forked process", timeout or 0.0)
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        if self._process.exitcode is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Read both streams to their ends and wait for that of the process."""
        texts = {stream: b"" for stream in (self.stdout, self.stderr) if stream is not None}
        left = {stream.fileno(): stream for stream in texts}
        while left:
            ready = connection.wait(list(left), timeout)
            if not ready:
                raise subprocess.TimeoutExpired("a forked process", timeout or 0.0)
            for number in ready:
                stream = left[number]  # type: ignore[index]
                if found := os.read(stream.fileno(), 1 << 16):
                    texts[stream] += found
                else:
                    del left[stream.fileno()]
                    stream.close()
        self.wait(timeout)
        out, err = (texts[stream].decode() if stream is not None else "" for stream in (self.stdout, self.stderr))
        return out, err


def run(*words: object, timeout: float | None = None, **options: Any) -> "subprocess.CompletedProcess[str]":
    """Run it to its end, with what it printed."""
    process = Forked(*words, **options)
    try:
        out, err = process.communicate(timeout)
    finally:
        process.kill()
    return subprocess.CompletedProcess(list(words), process.wait(), out, err)


def _way_out(stream: int | IO[Any]) -> tuple[IO[str] | None, int]:
    """What this process reads, and the number of the file that the other one writes."""
    if stream == subprocess.PIPE:
        reader, writer = os.pipe()
        return os.fdopen(reader, encoding="utf-8"), writer
    if stream == subprocess.DEVNULL:
        return None, os.open(os.devnull, os.O_WRONLY)
    return None, stream if isinstance(stream, int) else stream.fileno()


class _Program:
    """What the forked process does; its files travel as it is pickled."""

    def __init__(self, words: list[str], here: tuple[str, dict[str, str], bool], out: int, err: int) -> None:
        self.words, self.here, self.files = words, here, (out, err)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "files": tuple(DupFd(number) for number in self.files)}

    def __call__(self) -> None:
        folder, environment, leads = self.here
        if leads:
            os.setsid()
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        for number, file in enumerate(self.files, 1):
            os.dup2(file.detach(), number)  # type: ignore[attr-defined]
        _write_to_the_standard_files()
        encoding, _, errors = environment.get("PYTHONIOENCODING", "utf-8").partition(":")
        sys.stdout = open(1, "w", encoding=encoding or "utf-8", errors=errors or None, closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", encoding=encoding or "utf-8", errors="backslashreplace", buffering=1, closefd=False)  # noqa: SIM115
        signal.signal(signal.SIGINT, signal.default_int_handler)
        forkserver._forkserver.__init__()  # type: ignore[attr-defined, misc]  # its own workers come from a server of its own
        fork_server()
        try:
            _interpret(self.words)
        finally:  # as an interpreter does at its end, and processes of multiprocessing do not
            atexit._run_exitfuncs()


def fork_server(*, leaving_pytest: bool = False) -> None:
    """Fork the server of this process's workers now, while one thread runs: it waits to be told, and loads nothing again."""
    ours, its = socket.socketpair()
    sys.stdout.flush()
    server = os.fork()
    if not server:
        try:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            ours.close()
            if leaving_pytest:
                _leave_pytest(its.fileno())
            code, received, _, _ = socket.recv_fds(its, 1 << 16, 2)
            its.close()
            if code:  # else the process has ended without workers
                wanted = map(int, re.findall(r"\d+", code.decode().partition("main(")[2])[:2])
                for number, file in zip(wanted, [fcntl.fcntl(file, fcntl.F_DUPFD, 1000) for file in received], strict=True):
                    os.dup2(file, number)
                    os.close(file)
                exec(code)
        finally:
            os._exit(0)
    its.close()
    start = util.spawnv_passfds

    def begin(path: Any, words: Sequence[Any], files: Sequence[int]) -> int:
        if "forkserver import main" not in str(words[-1]) or ours.fileno() < 0:
            return start(path, words, files)
        with ours:
            socket.send_fds(ours, [words[-1].encode()], files)
        return server

    util.spawnv_passfds = begin


def _leave_pytest(kept: int) -> None:
    """Be a process like any other again: without pytest's files but the one that is ``kept``, its hooks and what it does at its end."""
    faulthandler.disable()
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in map(int, os.listdir("/proc/self/fd")):  # closed they would become other files of the same number, which objects write to
        if number > 2 and number != kept:
            with contextlib.suppress(OSError):  # that of the list itself
                os.dup2(nothing, number)
    _write_to_the_standard_files()
    atexit._clear()
    weakref.finalize._registry.clear()  # type: ignore[attr-defined]
    weakref.finalize._registered_with_atexit = False  # type: ignore[attr-defined]
    logging.root.handlers[:] = [one for one in logging.root.handlers if not type(one).__module__.startswith("_pytest")]
    sys.meta_path[:] = [one for one in sys.meta_path if not type(one).__module__.startswith("_pytest")]
    sys.unraisablehook, threading.excepthook = sys.__unraisablehook__, threading.__excepthook__


def _write_to_the_standard_files() -> None:
    """Whoever holds a stream in which pytest captured, as the handlers of loggers do, writes where the standard streams go."""
    for number, stream in enumerate((sys.stdout, sys.stderr), 1):
        if stream.fileno() != number:
            os.dup2(number, stream.fileno())


def _interpret(words: list[str]) -> None:
    """Do what ``python`` does with these words."""
    first, *rest = words
    if first == "-m":
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif first == "-c":
        sys.argv = ["-c", *rest[1:]]
        main = sys.modules["__main__"] = ModuleType("__main__")
        exec(compile(rest[0], "<string>", "exec"), main.__dict__)
    else:
        sys.argv = words
        runpy.run_path(first, run_name="__main__")
