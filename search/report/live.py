"""The decision page of a run that may still train, served beside optuna-dashboard.

``/`` is the page, ``/data.json`` what it shows (the page asks for it every few seconds while it is looked at), and all else, from
``/dashboard``, is optuna-dashboard on a copy of the study. Nothing in the run folder is changed.
"""

from __future__ import annotations

import hashlib
import sys
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ..records.run_folder import RunFolder, StoreError
from .optuna_copy import OptunaCopy
from .page import data_text, render
from .page_data import page_data

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

#: A page that is looked at asks for news so often.
EVERY_SECONDS = 5.0
#: What is read stays valid for so many seconds, however many ask.
FRESH_SECONDS = 2.0
#: Names of this machine for itself: pages of other sites that found their way here by another name get nothing.
LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass
class LiveRun:
    """What the page shows of a run folder now; it is read again only where a file of the folder has changed.

    Attributes:
        path: The run folder.
        data: The newest ``page_data``; None before the folder could be read.
        copy: The study for optuna-dashboard, once there are data.
        fresh_seconds: For so long nothing is read again.
    """

    path: Path
    data: dict[str, Any] | None = None
    copy: OptunaCopy | None = None
    _seen: tuple[Any, ...] = ()
    _read: float = float("-inf")
    fresh_seconds: float = FRESH_SECONDS
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def refresh(self) -> dict[str, Any]:
        """Return the newest data; those before it while the folder is being written.

        Raises:
            StoreError: If nothing could be read yet.
        """
        with self._lock:
            if time.monotonic() - self._read < self.fresh_seconds and self.data is not None:
                return self.data
            seen = self._files()
            try:
                if self.data is None or seen != self._seen or not seen:
                    folder = RunFolder.open(self.path)
                    study = folder.study(read_only=True)
                    run = folder.run(study)
                    self.copy = self.copy or OptunaCopy.of(run)
                    self.copy.follow(run, study.get_trials(deepcopy=False))
                    ended = "ended" in (folder.facts.get("sessions") or [{}])[-1]
                    self.data = page_data(run, ranking=ended)  # while it trains, the ranking would cost more than it tells
                    self._seen = seen  # not before: what could not be read is read again
            except (OSError, ValueError, RuntimeError) as error:
                if self.data is None:
                    raise StoreError(str(error)) from error
            self._read = time.monotonic()
            return self.data

    def _files(self) -> tuple[Any, ...]:
        """What differs whenever the folder does; empty for trials that lie elsewhere, which are always asked for."""
        names = ("study.json", "study.db", "study.db-wal", "bill.json", "repeats.json")
        files = [file.stat() for name in names if (file := self.path / name).is_file()]
        remote = not (self.path / "study.db").is_file()
        return () if remote else tuple((one.st_mtime_ns, one.st_size) for one in files)


def application(run: LiveRun, hosts: Iterable[str] | None = None, *, every_seconds: float = EVERY_SECONDS) -> WSGIApplication:
    """Return the page and optuna-dashboard as one WSGI application, for requests to the given hosts alone (None: to any)."""
    allowed = None if hosts is None else set(hosts)
    run.refresh()
    copy = run.copy
    assert copy is not None
    dashboard = copy.application()

    def answer(start: StartResponse, status: str, kind: str, body: bytes, *headers: tuple[str, str]) -> list[bytes]:
        always = [("Content-Type", f"{kind}; charset=utf-8"), ("Content-Length", str(len(body))), ("Cache-Control", "no-cache")]
        start(status, [*always, ("X-Content-Type-Options", "nosniff"), ("Referrer-Policy", "no-referrer"), *headers])
        return [body]

    def app(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        host = urlsplit(f"//{environ.get('HTTP_HOST', '')}").hostname or ""
        if allowed is not None and host not in allowed:
            return answer(start, "403 Forbidden", "text/plain", b"this address is for the machine itself\n")
        where = environ.get("PATH_INFO", "/")
        if where not in ("/", "/data.json"):
            run.refresh()
            return dashboard(environ, start)
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            return answer(start, "405 Method Not Allowed", "text/plain", b"GET alone\n")
        try:
            data = run.refresh()
        except StoreError as error:
            return answer(start, "503 Service Unavailable", "text/plain", f"{error}\n".encode())
        if where == "/":
            return answer(start, "200 OK", "text/html", render(data, every_seconds=every_seconds).encode(errors="backslashreplace"))
        text = data_text(data).encode()
        tag = f'"{hashlib.sha256(text).hexdigest()[:32]}"'
        if environ.get("HTTP_IF_NONE_MATCH") == tag:
            start("304 Not Modified", [("ETag", tag), ("Cache-Control", "no-cache")])
            return []
        return answer(start, "200 OK", "application/json", text, ("ETag", tag))

    return app


def serve(path: Path, *, host: str = "127.0.0.1", port: int = 8080, started: Callable[[Any], None] | None = None) -> None:
    """Serve a run until Ctrl-C, or until ``started``, which gets the server, has it shut down.

    Raises:
        StoreError: If there is no such run.
        RuntimeError: If the port is taken or the address is not one of this machine.
    """
    from socketserver import ThreadingMixIn
    from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

    class Server(ThreadingMixIn, WSGIServer):
        daemon_threads = True

    class Quiet(WSGIRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            """A page that asks every few seconds is no news."""

    run = LiveRun(path, fresh_seconds=FRESH_SECONDS)
    app = application(run, LOOPBACK if host in LOOPBACK else None, every_seconds=EVERY_SECONDS)
    try:
        server = make_server(host, port, app, server_class=Server, handler_class=Quiet)
    except OSError as error:
        raise RuntimeError(f"--host {host} --port {port} cannot be served: {error.strerror or error}; give another --port") from error
    with server:
        address = f"http://{f'[{host}]' if ':' in host else host}:{server.server_port}"
        print(f"{address}/ is the page, {address}/dashboard is optuna-dashboard on a copy of the study; Ctrl-C ends both", file=sys.stderr)
        if started is not None:
            started(server)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print("ended", file=sys.stderr)
