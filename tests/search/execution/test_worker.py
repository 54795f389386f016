"""Worker processes: what they tell the parent, and what their death is."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest
from helpers.forked import Forked
from helpers.worker_study import STUDY, Window, job

from joulefront.search.cli.study_source import find_study
from joulefront.search.energy import Ledger
from joulefront.search.energy import Window as LedgerWindow
from joulefront.search.energy.sources.cpu_time import CpuTime
from joulefront.search.execution.job import InProcess, Outcome
from joulefront.search.execution.watch import Watch
from joulefront.search.execution.worker import WorkerProcess, _is_spoiled, _kept_from_children, context_for, gpu_components

pytestmark = pytest.mark.slow
#: A search that is killed in the middle of a training.
KILLED = """
import contextlib, sys
from joulefront.search.execution.worker import WorkerProcess
from joulefront.search.execution.job import Job
from joulefront.search.cli.study_source import find_study

@contextlib.contextmanager
def phase(kind, index):
    yield type("Window", (), {})()

if __name__ == "__main__":
    worker = WorkerProcess(find_study(sys.argv[1], {}), "cpu")
    print(worker.pid, flush=True)
    job = Job(0, {"width": 19}, 1, seed=1, device="cpu", threads=1, start=None, weights=__import__("pathlib").Path(sys.argv[2]))
    worker.train(job, phases=phase, should_continue=lambda _: True)
"""

#: A process whose server of workers notes that it has loaded, and would note that it took itself apart.
ENDS = """
import os, sys
from pathlib import Path
from joulefront.search.execution.worker import context_for

if __name__ == "__main__":
    child = context_for("cpu", ["noted"]).Process(target=os.getpid)
    child.start()
    child.join()
    from multiprocessing.forkserver import _forkserver
    print(_forkserver._forkserver_pid, child.exitcode, flush=True)
"""
NOTED = """
import atexit
from pathlib import Path

place = Path(__file__).parent
(place / "loaded").touch()
atexit.register((place / "taken apart").touch)
"""


class LatePhases:
    """Phases of a parent that is busy elsewhere whenever the worker reports: each report waits before it is looked at."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.windows: list[LedgerWindow] = []
        self.seen_ns: list[tuple[int, int]] = []

    @contextmanager
    def phase(self, kind: str, index: int) -> Iterator[LedgerWindow]:
        began_ns = time.monotonic_ns()
        time.sleep(0.2)
        window = self.ledger.open(f"{kind} {index}", kind)
        self.windows.append(window)
        yield window
        self.seen_ns.append((began_ns, time.monotonic_ns()))
        time.sleep(0.2)
        window.close()


class Notes:
    """What a parent learns of a training."""

    def __init__(self) -> None:
        self.phases: list[tuple[str, int, Window]] = []
        self.epochs: list[int] = []
        self.times: list[float] = []

    @contextmanager
    def phase(self, kind: str, index: int) -> Iterator[Window]:
        window = Window()
        self.phases.append((kind, index, window))
        yield window

    def should_continue(self, entry: Mapping[str, Any]) -> bool:
        self.epochs.append(int(entry["epoch"]))
        self.times.append(time.monotonic())
        return len(self.epochs) < 3


@pytest.fixture(scope="module")
def study_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("study") / "deadly_rings.py"
    path.write_text(STUDY)
    return path


@pytest.fixture(scope="module")
def workers(study_file: Path) -> Iterator[list[WorkerProcess]]:
    study = find_study(str(study_file), {})
    made = [WorkerProcess(study, "cpu") for _ in range(2)]
    yield made
    for worker in made:
        worker.close()
    end = time.monotonic() + 30.0
    while any(worker.alive for worker in made) and time.monotonic() < end:
        time.sleep(0.05)  # a killed process is gone a moment later
    assert not any(worker.alive for worker in made)


def test_the_phases_of_a_worker_have_its_own_instants_however_late_the_parent_is(workers: list[WorkerProcess], tmp_path: Path) -> None:
    with Ledger([CpuTime()]) as ledger:
        late = LatePhases(ledger)
        workers[0].train(job(tmp_path, 10), phases=late.phase, should_continue=lambda entry: True)
    found = [(window.record.t0_ns, window.record.t1_ns) for window in late.windows]
    assert len(found) >= 3
    for (begin, end), (seen_begin, seen_end) in zip(found, late.seen_ns, strict=True):
        assert begin <= seen_begin  # the parent had to be told first, and it opened its window 0.2 s after that
        assert begin <= end <= seen_end
    assert all(end <= begin for (_, end), (begin, _) in pairwise(found))


def test_two_workers_train_at_the_same_time_as_this_process_would(workers: list[WorkerProcess], study_file: Path, tmp_path: Path) -> None:
    notes = [Notes(), Notes()]
    found: dict[int, Outcome] = {}

    def work(index: int) -> None:
        found[index] = workers[index].train(
            job(tmp_path, 8 + index), phases=notes[index].phase, should_continue=notes[index].should_continue
        )

    threads = [threading.Thread(target=work, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)
    assert len({worker.pid for worker in workers} | {os.getpid()}) == 3
    study = find_study(str(study_file), {})
    here = InProcess(study.space, study.load_task())
    for index in range(2):
        outcome = found[index]
        same = here.train(job(tmp_path, 8 + index), phases=Notes().phase, should_continue=lambda _: True)
        assert outcome.failed is None
        assert outcome.epochs == 2
        assert outcome.quality == pytest.approx(dict(same.quality), abs=1e-6)
        assert (outcome.cpu_seconds or 0.0) > 0
        assert (tmp_path / f"w{8 + index}").exists()


def test_the_phases_of_a_worker_arrive_with_their_cpu_time(workers: list[WorkerProcess], tmp_path: Path) -> None:
    notes = Notes()
    outcome = workers[0].train(job(tmp_path, 6), phases=notes.phase, should_continue=notes.should_continue)
    kinds = [kind for kind, _, _ in notes.phases]
    assert kinds[:2] == ["setup", "overhead"]
    assert kinds.count("epoch") == 2
    assert "eval" in kinds
    assert all(window.cpu_seconds is not None and window.cpu_seconds >= 0 for _, _, window in notes.phases)
    spent = sum(window.cpu_seconds or 0.0 for _, _, window in notes.phases)
    assert spent <= (outcome.cpu_seconds or 0.0) + 0.05
    assert notes.epochs == [1, 2]


def test_a_helper_that_lives_on_is_in_the_cpu_time_of_its_trial(workers: list[WorkerProcess], tmp_path: Path) -> None:
    plain = workers[0].train(job(tmp_path, 16), phases=Notes().phase, should_continue=lambda _: True)
    helped = workers[0].train(job(tmp_path, 17), phases=Notes().phase, should_continue=lambda _: True)
    after = workers[0].train(job(tmp_path, 16), phases=Notes().phase, should_continue=lambda _: True)
    assert helped.failed is None
    if sys.platform == "linux":  # where living children can be seen
        assert (helped.cpu_seconds or 0.0) >= 0.8
    assert (after.cpu_seconds or 0.0) < (plain.cpu_seconds or 0.0) + 0.6  # and in no other's


def test_the_parent_ends_a_training_between_epochs(workers: list[WorkerProcess], tmp_path: Path) -> None:
    notes = Notes()
    outcome = workers[0].train(job(tmp_path, 5, epochs=50), phases=notes.phase, should_continue=notes.should_continue)
    assert outcome.epochs == 3
    assert outcome.stopped


def test_a_training_that_fails_in_a_worker_leaves_it_alive(workers: list[WorkerProcess], tmp_path: Path) -> None:
    outcome = workers[0].train(job(tmp_path / "no" / "such" / "folder", 5), phases=Notes().phase, should_continue=lambda _: True)
    assert outcome.failed
    assert workers[0].alive
    assert workers[0].train(job(tmp_path, 5), phases=Notes().phase, should_continue=lambda _: True).failed is None


def test_a_worker_that_dies_is_a_failed_outcome(workers: list[WorkerProcess], tmp_path: Path) -> None:
    notes = Notes()
    outcome = workers[1].train(job(tmp_path, 13), phases=notes.phase, should_continue=notes.should_continue)
    assert outcome.failed == "the worker process died (exit code 7)"
    assert outcome.cpu_seconds is not None
    assert 0.0 <= outcome.cpu_seconds < 1.0  # its start and its warm-up, which took seconds, are nobody's training
    assert outcome.quality == {}
    assert not workers[1].alive
    assert workers[0].alive
    again = workers[1].train(job(tmp_path, 5), phases=Notes().phase, should_continue=lambda _: True)
    assert again.failed is None  # one death ends one trial, not the study


def test_a_worker_that_is_killed_before_it_hears_whether_to_go_on_is_a_failed_outcome(workers: list[WorkerProcess], tmp_path: Path) -> None:
    def kill(_: Mapping[str, Any]) -> bool:
        os.kill(workers[1].pid, signal.SIGKILL)
        workers[1]._process.join(30)
        return True

    outcome = workers[1].train(job(tmp_path, 5), phases=Notes().phase, should_continue=kill)
    assert outcome.failed == "the worker process died (exit code -9)"
    assert outcome.epochs == 1


def test_a_training_that_hangs_is_killed_and_the_next_one_trains(workers: list[WorkerProcess], tmp_path: Path) -> None:
    began, notes = time.monotonic(), Notes()
    late = Watch(lambda: "it hangs" if any(kind == "overhead" for kind, _, _ in notes.phases) else None)
    hanging = workers[1].train(job(tmp_path, 19), phases=notes.phase, should_continue=lambda _: True, watch=late)
    assert hanging.failed == "it hangs"
    assert hanging.cpu_seconds is not None
    assert 0.0 <= hanging.cpu_seconds < 1.0
    assert time.monotonic() - began < 300
    assert not workers[1].alive
    assert workers[1].train(job(tmp_path, 5), phases=Notes().phase, should_continue=lambda _: True).failed is None


def test_a_worker_that_ran_out_of_memory_is_replaced(workers: list[WorkerProcess], tmp_path: Path) -> None:
    before = workers[1].pid
    outcome = workers[1].train(job(tmp_path, 23), phases=Notes().phase, should_continue=lambda _: True)
    assert outcome.failed == "out of memory"
    assert not workers[1].alive
    assert workers[1].train(job(tmp_path, 5), phases=Notes().phase, should_continue=lambda _: True).failed is None
    assert workers[1].pid != before


def test_a_worker_whose_device_does_not_answer_any_more_is_replaced_but_not_one_whose_gpu_memory_was_full() -> None:
    def dead() -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    assert _is_spoiled(Outcome(1), dead)
    assert _is_spoiled(Outcome(0, failed="out of memory"), lambda: None)
    assert not _is_spoiled(Outcome(0, failed="out of memory: CUDA out of memory. Tried to allocate 9 GiB"), lambda: None)
    assert not _is_spoiled(Outcome(1), lambda: None)


def test_a_worker_that_still_starts_is_ended_at_once(tmp_path: Path) -> None:
    loads_for_long = tmp_path / "long_rings.py"
    loads_for_long.write_text(STUDY.replace("def task():\n", "def task():\n    time.sleep(3600)\n"))
    worker = WorkerProcess(find_study(str(loads_for_long), {}), "cpu")
    began = time.monotonic()
    outcome = worker.train(job(tmp_path, 5), phases=Notes().phase, should_continue=lambda _: True, watch=Watch(lambda: "interrupted"))
    worker.close()
    assert time.monotonic() - began < 60  # it would load for an hour
    assert outcome.failed == "interrupted"


def runs(pid: int) -> bool:
    """Whether a process is there and no corpse that nobody has waited for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs Linux' /proc to tell a living process from a dead one")
def test_a_worker_whose_parent_was_killed_ends_in_the_middle_of_its_training(study_file: Path, tmp_path: Path) -> None:
    script = tmp_path / "search.py"
    script.write_text(KILLED)
    parent = Forked(script, study_file, tmp_path / "w", stderr=subprocess.DEVNULL)
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())
    assert parent.stdout.readline() == "training\n"
    parent.kill()
    parent.wait()
    end = time.monotonic() + 30.0
    while runs(worker) and time.monotonic() < end:
        time.sleep(0.05)
    assert not runs(worker)
    parent.stdout.close()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="workers are forked from a server on Linux alone")
def test_the_server_of_workers_does_not_take_apart_what_it_has_loaded(tmp_path: Path) -> None:
    (tmp_path / "search.py").write_text(ENDS)
    (tmp_path / "noted.py").write_text(NOTED)
    path = os.pathsep.join((str(tmp_path), *sys.path))
    done = subprocess.run(
        [sys.executable, "search.py"], cwd=tmp_path, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=True
    )
    server, code = map(int, done.stdout.split())
    end = time.monotonic() + 30.0
    while runs(server) and time.monotonic() < end:
        time.sleep(0.05)
    assert not runs(server)
    assert (code, (tmp_path / "loaded").exists(), (tmp_path / "taken apart").exists()) == (0, True, False)


def test_a_file_of_the_current_directory_with_the_name_of_a_library_is_not_run_by_a_worker_that_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("multiprocessing", "pickle", "torch", "optuna"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'a').write(__name__)\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    child = multiprocessing.get_context("spawn").Process(target=os.getpid)
    with _kept_from_children():
        child.start()
    child.join()
    assert (child.exitcode, (tmp_path / "ran").exists(), "PYTHONSAFEPATH" in os.environ) == (0, False, False)


def test_workers_that_threads_start_at_the_same_time_leave_the_environment_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    given = list[bool]()

    class Slow:
        def __init__(self, *, args: tuple[Any, ...], **_: Any) -> None:
            given.append("PYTHONSAFEPATH" in args[-1])

        def start(self) -> None:
            time.sleep(0.01)

    context = SimpleNamespace(Pipe=lambda: (MagicMock(), MagicMock()), Process=Slow)
    monkeypatch.setattr("joulefront.search.execution.worker.context_for", lambda *_: context)
    monkeypatch.setattr("joulefront.search.execution.worker.may_compile", lambda *_: False)
    threads = [threading.Thread(target=WorkerProcess, args=(SimpleNamespace(space=None, seed=0), "cpu")) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (given, "PYTHONSAFEPATH" in os.environ) == ([False] * 8, False)


def test_a_cpu_worker_holds_no_device(workers: list[WorkerProcess]) -> None:
    assert workers[0].devices == ()
    assert gpu_components("cpu") == ()


def test_workers_for_the_cpu_are_forked_from_one_server_and_have_the_environment_of_now(
    workers: list[WorkerProcess], study_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = find_study(str(study_file), {})
    first = workers[0]
    monkeypatch.setenv("SET_AFTER_THE_SERVER", "yes")
    second = WorkerProcess(study, "cpu")
    try:
        parents = {int(Path(f"/proc/{worker.pid}/stat").read_text().rpartition(")")[2].split()[1]) for worker in (first, second)}
        assert len(parents) == 1
        assert os.getpid() not in parents
        assert context_for("cuda:0").get_start_method() == "spawn", "CUDA does not survive a fork"
        outcome = second.train(job(tmp_path, 29), phases=Notes().phase, should_continue=lambda entry: True)
        assert (outcome.failed, outcome.epochs) == (None, 2)
    finally:
        second.close()
