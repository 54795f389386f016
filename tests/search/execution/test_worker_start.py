"""How worker processes start: warm, and with the data of the parent."""

import gc
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pytest
import torch
from helpers.worker_study import STUDY, Window, job

from joulefront.search.cli.study_source import find_study
from joulefront.search.energy.sources.cpu_time import process_seconds
from joulefront.search.execution.worker import WorkerProcess, mapped
from joulefront.search.running.fingerprint import of_task

pytestmark = pytest.mark.slow
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
