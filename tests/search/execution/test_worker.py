"""Worker processes: what they tell the parent, and what their death is."""

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pytest
import torch
from helpers.forked import Forked

from joulefront.search.cli.study_source import find_study
from joulefront.search.energy import Ledger
from joulefront.search.energy import Window as LedgerWindow
from joulefront.search.energy.sources.cpu_time import CpuTime, process_seconds
from joulefront.search.execution.job import InProcess, Job, Outcome, Watch
from joulefront.search.execution.worker import WorkerProcess, _is_spoiled, context_for, gpu_components, mapped
from joulefront.search.running.fingerprint import of_task

pytestmark = pytest.mark.slow

#: Width 13 kills its process, 23 runs out of memory, 17 keeps a helper that has worked, 19 takes an hour; 29 looks for a
#: variable of the environment; others are small perceptrons.
STUDY = """
import os
import subprocess
import sys
import time
import numpy as np
import torch
from joulefront.search import Study
from joulefront.search.training.arrays import arrays
from joulefront.spaces.own import Own
from joulefront.spaces.recipes import RecipeRanges

class Deadly(torch.nn.Linear):
    def forward(self, x):
        if self.training:
            os._exit(7)
        return super().forward(x)

class Hungry(torch.nn.Linear):
    def forward(self, x):
        if self.training:
            raise MemoryError
        return super().forward(x)

class Slow(torch.nn.Linear):
    def forward(self, x):
        print("training", flush=True)
        time.sleep(3600)

HELPER = "import sys, time\\nwhile time.process_time() < 0.8: pass\\nprint('.', flush=True)\\nsys.stdin.read()"
HELPERS = []

def draw(trial):
    return {"width": trial.suggest_int("width", 4, 32)}

def make(architecture, task):
    width = architecture["width"]
    if width == 17:  # as a data loader does: it lives on when the training has ended
        HELPERS.append(subprocess.Popen([sys.executable, "-S", "-c", HELPER], stdin=subprocess.PIPE, stdout=subprocess.PIPE))
        HELPERS[-1].stdout.read(1)
    if width == 29:
        assert os.environ["SET_AFTER_THE_SERVER"] == "yes"
    first = {13: Deadly, 19: Slow, 23: Hungry}.get(width, torch.nn.Linear)
    return torch.nn.Sequential(first(2, width), torch.nn.ReLU(), torch.nn.Linear(width, task.outputs))

def task():
    x = np.random.default_rng(0).normal(size=(400, 2)).astype("float32")
    return arrays(x, ((x**2).sum(1) > 1.4).astype("int64"), name="rings")

def study():
    recipe = RecipeRanges(learning_rate=0.01, weight_decay=0.0, batch_size=64)
    return Study(name="rings", task=task, space=Own(draw, make, recipe=recipe), trials=1)
"""


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


class Window:
    cpu_seconds: float | None = None


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


def job(folder: Path, width: int, epochs: int = 2) -> Job:
    return Job(0, {"width": width}, epochs, seed=1, device="cpu", threads=1, start=None, weights=folder / f"w{width}")


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


def test_a_worker_that_still_starts_is_ended_within_two_seconds(tmp_path: Path) -> None:
    loads_for_long = tmp_path / "long_rings.py"
    loads_for_long.write_text(STUDY.replace("def task():\n", "def task():\n    time.sleep(3600)\n"))
    worker = WorkerProcess(find_study(str(loads_for_long), {}), "cpu")
    began = time.monotonic()
    outcome = worker.train(job(tmp_path, 5), phases=Notes().phase, should_continue=lambda _: True, watch=Watch(lambda: "interrupted"))
    worker.close()
    assert time.monotonic() - began < 2
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


def test_a_cpu_worker_holds_no_device(workers: list[WorkerProcess]) -> None:
    assert workers[0].devices == ()
    assert gpu_components("cpu") == ()


#: What a library does when it is used first: half a CPU-second, once in a process.
FIRST_USE = """USED = []

class Lazy(torch.nn.Linear):
    def forward(self, x):
        end = time.process_time() + 0.5
        while self.training and not USED and time.process_time() < end:
            pass
        USED.extend([1] * self.training)
        return super().forward(x)

def make(architecture, task):
    return torch.nn.Sequential(Lazy(2, 4), torch.nn.Linear(4, task.outputs))

def unused(architecture, task):
"""


def test_a_worker_that_is_warm_trains_at_once(tmp_path: Path) -> None:
    study_file = tmp_path / "lazy_rings.py"
    study_file.write_text(STUDY.replace("def make(architecture, task):\n", FIRST_USE))

    def seconds_until_the_first_phase(worker: WorkerProcess) -> float:
        entered: list[float] = []
        begun = process_seconds(worker.pid) or 0.0

        @contextmanager
        def phases(kind: str, index: int) -> Iterator[Window]:
            entered.append(process_seconds(worker.pid) or 0.0)
            yield Window()

        assert worker.train(job(tmp_path, 9), phases=phases, should_continue=lambda entry: True).failed is None
        return entered[0] - begun

    @contextmanager
    def ignored(kind: str, index: int) -> Iterator[Window]:
        yield Window()

    warm, cold = (WorkerProcess(find_study(str(study_file), {}), "cpu") for _ in range(2))
    try:
        warm.wait_until_ready(lambda: None)
        warm.warm_up(job(tmp_path, 9), lambda: None)
        assert seconds_until_the_first_phase(warm) < 0.2 * seconds_until_the_first_phase(cold)
        warm._kill()
        warm.warm_up(job(tmp_path, 9), lambda: "it is late")  # it lives again, and nobody waits for it
        assert warm.alive
        assert warm.train(job(tmp_path, 9), phases=ignored, should_continue=lambda entry: True).failed is None
    finally:
        warm.close()
        cold.close()


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


def test_workers_map_the_data_of_the_parent_and_load_none_themselves(tmp_path: Path) -> None:
    loads = list[int]()

    def load() -> Any:
        loads.append(os.getpid())
        return find_study("digits", {}).load_task()

    study = replace(find_study("digits", {}), task=load)
    task = study.load_task()
    shared = mapped(study, task)
    one, two = shared.load_task(), shared.load_task()
    assert loads == [os.getpid()]
    for split in ("train", "validation", "test"):
        for name in ("inputs", "targets"):
            assert torch.equal(getattr(getattr(one, split), name), getattr(getattr(task, split), name))
    one.train.inputs[:] = -1.0
    assert torch.equal(two.train.inputs, task.train.inputs), "what one writes no other sees"
    assert of_task(two) == of_task(task)
    assert len(cloudpickle.dumps(shared)) < len(cloudpickle.dumps(replace(study, task=task))) / 3
    place = Path(shared.task.place)
    assert place.exists()
    del shared, one, two
    gc.collect()
    assert not place.exists()


def test_a_task_that_cannot_be_told_to_others_is_loaded_by_each_worker() -> None:
    study = find_study("digits", {})
    task = replace(study.load_task(), seen={"a lock": threading.Lock()})
    assert mapped(study, task) is study


def test_a_task_in_a_mapped_file_or_without_room_for_a_copy_is_loaded_by_each_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = find_study("digits", {})
    task = study.load_task()
    array = np.memmap(tmp_path / "a", mode="w+", shape=(4,))
    assert mapped(study, replace(task, seen={"a file": array})) is study

    def full(name: str) -> int:
        return os.open("/dev/full", os.O_WRONLY)

    monkeypatch.setattr(os, "memfd_create", full)
    assert mapped(study, task) is study
