"""A PostgreSQL server of our own, on a socket in a folder that goes with it."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


class NotInstalledError(RuntimeError):
    """A server cannot be started here; the message says why."""


def program(name: str) -> str | None:
    """Find a program of PostgreSQL; Debian keeps them off the path."""
    places = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), reverse=True)
    return str(places[0]) if places else shutil.which(name)


@dataclass(frozen=True)
class Server:
    """A server that runs, and can be stopped and started again."""

    folder: Path
    control: str
    whose: dict[str, Any] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"postgresql+psycopg://me@/postgres?host={self.folder}"

    def start(self) -> bool:
        options = f"-k {self.folder} -c listen_addresses='' -c fsync=off"
        return self._call("-w", "-t", "60", "-o", options, "-l", str(self.folder / "log"), "start")

    def stop(self) -> bool:
        return self._call("-m", "immediate", "stop")

    def _call(self, *words: str) -> bool:
        command = [self.control, "-D", str(self.folder / "data"), *words]
        done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=self.folder, check=False, **self.whose)
        return done.returncode == 0


@contextmanager
def postgresql_server() -> Iterator[Server]:
    """Start a server, and delete everything of it at the end.

    Raises:
        NotInstalledError: If that is not possible here.
    """
    initdb, control = program("initdb"), program("pg_ctl")
    if initdb is None or control is None:
        raise NotInstalledError("PostgreSQL is not installed (initdb, pg_ctl)")
    whose: dict[str, Any] = {}
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        try:
            account = pwd.getpwnam("postgres")
        except KeyError as error:
            raise NotInstalledError("PostgreSQL does not run as root, and there is no user postgres") from error
        whose = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
    folder = Path(tempfile.mkdtemp(prefix="jf-pg-", dir="/tmp"))
    server = Server(folder, control, whose)
    try:
        if whose:
            os.chown(folder, whose["user"], whose["group"])
        command = [initdb, "-D", str(folder / "data"), "-U", "me", "-A", "trust", "--no-sync"]
        made = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False, **whose)
        if made.returncode != 0:
            raise NotInstalledError(f"initdb failed: {made.stderr.strip()[-200:]}")
        if not server.start():
            raise NotInstalledError("the PostgreSQL server does not start here")
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
