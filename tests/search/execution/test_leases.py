"""One trial per device: the lock ends with its process, however that ends."""

from __future__ import annotations

import os
import signal
import subprocess
import time

import pytest
from helpers.forked import Forked

from joulefront.search.execution.devices import Lease

HOLD = """
import sys, time
from pathlib import Path
from joulefront.search.execution.devices import Lease
lease = Lease(sys.argv[1], Path(sys.argv[2]))
assert lease.acquire()
print("held", flush=True)
time.sleep(60)
"""


def within_seconds(lease: Lease) -> bool:
    """Whether a device is ours within two seconds: a process that has just died or begun may hold it for a moment."""
    until = time.monotonic() + 2.0
    while not (got := lease.acquire()) and time.monotonic() < until:
        time.sleep(0.02)
    return got


def test_a_device_is_held_once_and_given_back(tmp_path):
    first, second = Lease("gpu:GPU-1", tmp_path), Lease("gpu:GPU-1", tmp_path)
    assert first.acquire()
    assert first.acquire()
    assert not second.acquire()
    assert f"process {os.getpid()} " in second.describe()
    assert Lease("gpu:GPU-2", tmp_path).acquire()
    first.release()
    first.release()
    assert within_seconds(second)


def test_a_lock_says_who_holds_it_and_since_when(tmp_path):
    lease = Lease("gpu:GPU-1", tmp_path)
    assert lease.acquire()
    said = Lease("gpu:GPU-1", tmp_path).describe()
    assert said.startswith(f"gpu:GPU-1 is held by process {os.getpid()} since 20")


def test_the_folder_and_the_files_are_open_to_every_user_of_the_machine(tmp_path):
    lease = Lease("gpu:GPU-1", tmp_path / "leases")
    before = os.umask(0o077)
    try:
        assert lease.acquire()
    finally:
        os.umask(before)
    assert (tmp_path / "leases").stat().st_mode & 0o7777 == 0o1777
    assert lease.path.stat().st_mode & 0o777 == 0o666


@pytest.mark.slow
def test_a_killed_process_gives_its_device_back(tmp_path):
    holder = Forked("-c", HOLD, "gpu:0", tmp_path, stderr=subprocess.DEVNULL)
    assert holder.stdout.readline() == "held\n"
    mine = Lease("gpu:0", tmp_path)
    assert not mine.acquire()
    assert f"process {holder.pid} " in mine.describe()
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert within_seconds(mine)


def test_a_forked_child_does_not_keep_the_lock_of_a_dead_parent(tmp_path):
    lease = Lease("gpu:0", tmp_path)
    assert lease.acquire()
    child = os.fork()
    if child == 0:
        time.sleep(30)
        os._exit(0)
    try:
        lease.release()
        assert within_seconds(Lease("gpu:0", tmp_path))  # the child closes its copy as its first act
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
