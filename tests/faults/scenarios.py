"""One fault each, made while a study runs or is read: a database that restarts, a clock that jumps, a disk that is full.

    python tests/faults/scenarios.py            # all of them
    python tests/faults/scenarios.py full_disk clock_step

Each takes an empty folder and returns what broke a rule, in sentences; one that needs what is not here raises ``CannotRun``.
"""

import contextlib
import hashlib
import io
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from faults.checks import Watch
from faults.processes import CLI, Session
from faults.study_file import source
from helpers import forked
from helpers.postgresql import NotInstalledError, postgresql_server

from joulefront.search.cli import main as cli

#: Trials of a study, and how many of them are trained before the fault.
TRIALS, BEFORE = 8, 2
#: A busy machine takes minutes for what a quiet one does in seconds.
SECONDS = 400.0


class CannotRun(Exception):  # noqa: N818  # no error: what the fault is made with is not here
    """The fault cannot be made here; the message says why."""


def start(folder: Path, *more: str, out: Path | None = None, pause_seconds: float = 0.03, **options: dict[str, str]) -> Session:
    """Start the study, or go on with it, in this folder; one worker, SQLite."""
    (folder / "rings.py").write_text(source(pause_seconds=pause_seconds, sampler="random"))
    out = out or folder / "run"
    words = ["run", "rings.py", "--meter", "cpu_time", "--trials", str(TRIALS), "--out", str(out), *more]
    return Session(words, folder, out, **options)


def in_the_middle(session: Session) -> None:
    """Wait until the study has trained some of its trials, and trains another."""
    session.wait_for(lambda: session.trained() >= BEFORE, SECONDS, "trials train")
    if not session.running:
        raise AssertionError(f"the study ended before the fault:\n{session.tail()}")


def ends_well(session: Session, *, complete: int = TRIALS) -> list[str]:
    """Wait for the end of a study and check everything."""
    session.wait_for(lambda: False, SECONDS, "the study ends")
    wrong = []
    if session.process.returncode != 0:
        wrong.append(f"exit code {session.process.returncode}: {session.tail()}")
    watch = Watch(session.out)
    wrong += watch.at_end()
    states = [trial.state for trial in watch.stored_trials()]
    if states.count("complete") != complete:
        wrong.append(f"{states.count('complete')} of {complete} trials are complete")
    return [*wrong, *tracebacks(session)]


def tracebacks(session: Session) -> list[str]:
    """Name a raw error on the screen."""
    return [f"a raw traceback: {session.tail()}"] if "Traceback" in session.output.read_text() else []


def restarted_database(folder: Path, down_seconds: float = 3.0) -> list[str]:
    """PostgreSQL goes away in the middle and comes back: the study goes on by itself."""
    try:
        with postgresql_server() as server, ended(start(folder, "--storage", server.url)) as session:
            in_the_middle(session)
            server.stop()
            time.sleep(down_seconds)
            if not server.start():
                raise CannotRun("the PostgreSQL server does not start again")
            return ends_well(session)
    except NotInstalledError as error:
        raise CannotRun(str(error)) from error


def workers_without_database(folder: Path, down_seconds: float = 30.0) -> list[str]:
    """The clocks of two workers are ten minutes apart, and their database is away for longer than a worker may be silent: nobody dies."""
    fake = shifted_clock(folder, 600)
    try:
        with (
            postgresql_server() as server,
            ended(start(folder, "--storage", server.url, out=folder / "a", pause_seconds=0.3)) as first,
            ended(start(folder, "--storage", server.url, out=folder / "b", pause_seconds=0.3, environment=fake)) as second,
        ):
            in_the_middle(first)
            server.stop()
            time.sleep(down_seconds)
            if not server.start():
                raise CannotRun("the PostgreSQL server does not start again")
            for one in (first, second):
                one.wait_for(lambda: False, SECONDS, "the workers end")
            wrong = [f"exit code {one.process.returncode}: {one.tail()}" for one in (first, second) if one.process.returncode != 0]
            states = [trial.state for trial in Watch(first.out).stored_trials()]
            wrong += [] if states == ["complete"] * TRIALS else [f"the trials are {states}"]
            return [*wrong, *tracebacks(first), *tracebacks(second)]
    except NotInstalledError as error:
        raise CannotRun(str(error)) from error


def shifted_clock(folder: Path, seconds: int) -> dict[str, str]:
    """Return the environment of a process whose wall clock is shifted by the seconds in the file ``offset``."""
    compiler, library, offset = shutil.which("gcc") or shutil.which("cc"), folder / "wall_clock.so", folder / "offset"
    if compiler is None:
        raise CannotRun("the clock is shifted by a library that needs a C compiler (gcc)")
    source = Path(__file__).with_name("wall_clock.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"], check=True)
    offset.write_text(str(seconds))
    return {"LD_PRELOAD": str(library), "WALL_CLOCK_OFFSET": str(offset)}


def stopped_process(folder: Path, seconds: float = 20.0) -> list[str]:
    """All processes of the study are stopped for a while (SIGSTOP, as a laptop that sleeps): it goes on, the books are right."""
    with ended(start(folder, "--workers", "2")) as session:
        in_the_middle(session)
        os.killpg(session.process.pid, signal.SIGSTOP)
        time.sleep(seconds)
        os.killpg(session.process.pid, signal.SIGCONT)
        return ends_well(session)


def clock_step(folder: Path) -> list[str]:
    """The wall clock jumps back by an hour and forward by two: durations and joules do not notice."""
    fake, offset = shifted_clock(folder, 0), folder / "offset"
    began = time.monotonic()
    with ended(start(folder, environment=fake)) as session:
        in_the_middle(session)
        offset.write_text("-3600")
        session.wait_for(lambda: session.trained() >= BEFORE + 2, SECONDS, "trials train after the clock went back")
        offset.write_text("3600")
        wrong = ends_well(session)
    longest = time.monotonic() - began
    for trial in Watch(session.out).stored_trials():
        seconds = trial.energy.record["seconds"]
        if not 0.0 < seconds < longest:
            wrong.append(f"trial {trial.number} took {seconds} s of {longest:.0f} s")
    return wrong


def read_only_folder(folder: Path) -> list[str]:
    """A finished run on a read-only file system: every reading verb works and writes nothing there."""
    with ended(start(folder)) as session:
        wrong = ends_well(session)
    before = digest(session.out)
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    run = str(session.out)
    verbs = (
        ("front", run),
        ("front", run, "--json"),
        ("plot", run, "-o", "front.svg"),
        ("report", run, "-o", "report.html"),
        ("compare", run, run),
        ("price", run, "--zones", "FR,US"),
    )
    with read_only(session.out):
        for verb in verbs:
            done = subprocess.run([*CLI, *verb], cwd=elsewhere, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                wrong.append(f"{' '.join(verb)}: exit code {done.returncode}: {done.stderr[-400:]}")
    after = digest(session.out)
    return wrong + [f"{name} was written" for name in sorted({name for name, _ in before ^ after})]


def full_disk(folder: Path) -> list[str]:
    """The disk is full in the middle: a line names path and remedy; with room again the same command ends the study, nothing is lost."""
    with mounted(folder / "disk", "-t", "tmpfs", "-o", "size=32m", "tmpfs"):
        out, filler = folder / "disk" / "run", folder / "disk" / "filler"
        with ended(start(folder, out=out)) as session:
            in_the_middle(session)
            with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
                while file.write(b"0" * 512):
                    pass
            session.wait_for(lambda: False, SECONDS, "a study on a full disk ends")
            text = session.output.read_text()
            wrong = tracebacks(session)
            if session.process.returncode == 0:
                wrong.append("the study ended normally on a full disk")
            elif "error:" not in text or str(out) not in text.rpartition("error:")[2] or "space" not in text.rpartition("error:")[2]:
                wrong.append(f"the message names neither path nor remedy: {text.rpartition('error:')[2].strip()!r}")
        filler.unlink()
        watch = Watch(out)
        wrong += watch.after_kill()
        with ended(start(folder, out=out)) as session:
            session.wait_for(lambda: False, SECONDS, "the study goes on")
            if session.process.returncode != 0:
                wrong.append(f"with room again: exit code {session.process.returncode}: {session.tail()}")
        return wrong + watch.at_end()


def full_disk_of_results(folder: Path) -> list[str]:
    """What the reading verbs write does not fit on the disk: a line names path and remedy, and nothing half written is left."""
    (folder / "rings.py").write_text(source(pause_seconds=0.0, sampler="random"))
    run = ["run", "rings.py", "--meter", "cpu_time", "--trials", "2", "--out", "run"]
    wrong = []
    export = ["export", "run", "--study", "rings.py", "--pick", "best", "--to"]
    commands = [("model", [*export, form]) for form in ("onnx", "safetensors", "pt2")]
    commands += [("front.png", ["plot", "run"]), ("front.html", ["plot", "run"]), ("report.html", ["report", "run"])]
    with mounted(folder / "disk", "-t", "tmpfs", "-o", "size=12k", "tmpfs"), contextlib.chdir(folder):
        code, stderr = called(run)
        if code:
            wrong.append(f"the study to be read: exit code {code}: {stderr.strip()[-500:]}")
        for name, words in commands:
            code, stderr = called([*words, "-o", f"disk/{name}"])
            call = " ".join(words)
            if code == 0 or "Traceback" in stderr:
                wrong.append(f"{call}: exit code {code}: {stderr.strip()[-500:]}")
            elif f"disk/{name}" not in stderr or "space" not in stderr:
                wrong.append(f"{call}: the message names neither path nor remedy: {stderr.strip()[-300:]!r}")
            wrong += [f"{call}: {path} is left" for path in Path("disk").rglob("*")]
    return wrong


def called(words: list[str]) -> tuple[object, str]:
    """Call the command line here; its exit code and what it said on stderr."""
    stderr, code = io.StringIO(), 0
    with contextlib.redirect_stderr(stderr), contextlib.redirect_stdout(io.StringIO()):
        try:
            cli(words)
        except SystemExit as end:
            code = end.code
    return code, stderr.getvalue()


def locked_database(folder: Path, seconds: float = 6.0) -> list[str]:
    """Another program holds the lock of ``study.db`` for a while: the study waits for it."""
    with ended(start(folder)) as session:
        in_the_middle(session)
        database = sqlite3.connect(session.out / "study.db", isolation_level=None, timeout=60.0)
        database.execute("BEGIN EXCLUSIVE")
        time.sleep(seconds)
        database.execute("ROLLBACK")
        database.close()
        return ends_well(session)


LEASE = """
import os, sys, time
from pathlib import Path
from joulefront.search.execution.devices import Lease
lease = Lease("gpu:GPU-1", Path(sys.argv[1]))
os.setgroups([]); os.setgid(65534); os.setuid(65534)
print(lease.acquire(), flush=True)
time.sleep(600)
"""


def lease_of_another_user(folder: Path) -> list[str]:
    """A device that another user holds is refused and named, free after that user's process was killed, and the other way round."""
    if os.geteuid() != 0:
        raise CannotRun("another user needs root")
    from joulefront.search.execution.devices import Lease

    wrong = []
    with tempfile.TemporaryDirectory(prefix="joulefront-leases-") as open_to_all:
        Path(open_to_all).chmod(0o1777)
        leases = Path(open_to_all) / "leases"
        mine = Lease("gpu:GPU-1", leases)
        for first in ("other", "mine"):
            if first == "mine" and not mine.acquire():
                wrong.append("a device whose holder was killed is not free")
            theirs = forked.Forked("-c", LEASE, leases, stderr=subprocess.STDOUT)
            assert theirs.stdout is not None
            said = theirs.stdout.readline().strip()
            if said != str(first == "other"):
                wrong.append(f"{first} first: the other user's process said {said!r} {theirs.stdout.read() if 'Trace' in said else ''}")
            if first == "other":
                if mine.acquire():
                    wrong.append("a device that another user holds was given away")
                if str(theirs.pid) not in mine.describe():
                    wrong.append(f"the message does not name the holder: {mine.describe()}")
            theirs.kill()
            theirs.wait()
        mine.release()
    return wrong


@contextlib.contextmanager
def ended(session: Session) -> Iterator[Session]:
    """Kill what is left of a session at the end."""
    try:
        yield session
    finally:
        session.end()


@contextlib.contextmanager
def mounted(place: Path, *words: str) -> Iterator[None]:
    """Mount something here for a while.

    Raises:
        CannotRun: If this process may not.
    """
    place.mkdir(exist_ok=True)
    done = subprocess.run(["mount", *words, str(place)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise CannotRun(f"mounting needs root: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


@contextlib.contextmanager
def read_only(place: Path) -> Iterator[None]:
    """Make a folder read-only, also for root."""
    if os.geteuid() == 0:
        with mounted(place, "--bind", str(place)):
            subprocess.run(["mount", "-o", "remount,ro,bind", str(place)], check=True)
            yield
        return
    modes = {path: path.stat().st_mode for path in (place, *place.rglob("*"))}
    for path, mode in modes.items():
        path.chmod(mode & ~0o222)
    try:
        yield
    finally:
        for path, mode in modes.items():
            path.chmod(mode)


def digest(folder: Path) -> set[tuple[str, str]]:
    """Names and contents of all files."""
    return {(str(path), hashlib.sha256(path.read_bytes()).hexdigest()) for path in folder.rglob("*") if path.is_file()}


SCENARIOS: dict[str, Callable[[Path], list[str]]] = {
    "restarted_database": lambda folder: restarted_database(folder, down_seconds=30.0),
    "workers_without_database": workers_without_database,
    "stopped_process": stopped_process,
    "clock_step": clock_step,
    "read_only_folder": read_only_folder,
    "full_disk": full_disk,
    "full_disk_of_results": full_disk_of_results,
    "locked_database": locked_database,
    "lease_of_another_user": lease_of_another_user,
}


def main() -> int:
    """Make the faults that are named, all by default, and print a table."""
    failed = 0
    print("| fault | result |\n|---|---|")
    for name in sys.argv[1:] or SCENARIOS:
        with tempfile.TemporaryDirectory(prefix="joulefront-fault-") as folder:
            try:
                wrong = SCENARIOS[name](Path(folder))
            except CannotRun as reason:
                print(f"| {name} | not run: {reason} |", flush=True)
                continue
            except AssertionError as error:
                wrong = [str(error)]
            failed += bool(wrong)
            print(f"| {name} | {'; '.join(' '.join(sentence.split()) for sentence in wrong) or 'right'} |", flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
