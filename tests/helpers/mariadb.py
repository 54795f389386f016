"""A MariaDB server of our own, on a socket in a folder that goes with it."""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .postgresql import NotInstalledError


@contextmanager
def mariadb_server() -> Iterator[str]:
    """Start a server, yield the URL of its database, and delete everything of it at the end.

    Raises:
        NotInstalledError: If that is not possible here.
    """
    install, program = shutil.which("mariadb-install-db"), shutil.which("mariadbd") or shutil.which("mariadbd", path="/usr/sbin")
    if install is None or program is None:
        raise NotInstalledError("MariaDB is not installed (mariadb-install-db, mariadbd)")
    folder = Path(tempfile.mkdtemp(prefix="jf-my-", dir="/tmp"))
    data, socket, passing = folder / "data", folder / "s", folder / "t"
    passing.mkdir()
    # A server that starts deletes the temporary tables of all others that have them in the same folder.
    whose = [f"--tmpdir={passing}", *(["--user=root"] if os.geteuid() == 0 else [])]
    try:
        made = [install, "--no-defaults", f"--datadir={data}", "--auth-root-authentication-method=normal", "--skip-test-db", *whose]
        done = subprocess.run(made, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise NotInstalledError(f"mariadb-install-db failed: {done.stderr.strip()[-200:]}")
        words = ["--no-defaults", f"--datadir={data}", f"--socket={socket}", "--skip-networking", f"--pid-file={folder}/pid", *whose]
        server = subprocess.Popen([program, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            until = time.monotonic() + 120.0
            while not socket.exists() and server.poll() is None and time.monotonic() < until:
                time.sleep(0.05)
            if not socket.exists():
                raise NotInstalledError("the MariaDB server does not start here")
            url = f"mysql+pymysql://root@localhost/joulefront?unix_socket={socket}"
            _make_database(url, until)
            yield url
        finally:
            server.terminate()
            try:
                server.wait(60.0)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _make_database(url: str, until: float) -> None:
    from sqlalchemy import create_engine, make_url, text
    from sqlalchemy.exc import OperationalError

    engine = create_engine(make_url(url).set(database="mysql"))
    while True:
        try:  # the socket is there before the server answers
            with engine.begin() as connection:
                connection.execute(text("CREATE DATABASE IF NOT EXISTS joulefront"))
            break
        except OperationalError:
            if time.monotonic() > until:
                raise
            time.sleep(0.1)
    engine.dispose()
