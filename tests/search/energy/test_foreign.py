"""Other users of a GPU: seen where they were beside a window, however short that is, and not where they were gone or our own."""

from __future__ import annotations

import os
import random
import subprocess

import pytest
from helpers.nvml_records import GPU

from joulefront.search.energy.host import HostMonitor

#: A process that is not ours and that /proc shows.
FOREIGN = 1


def users(driver, *pids, device=0):
    driver.set(device, pid_count=0)
    for pid in pids:
        driver.set(device, pid=pid)


def marked(window):
    return (window.record.contended or {}).get("foreign_gpu_pids", {})


def window_of(machine, seconds, **options):
    with machine.ledger.window("trial", **options) as window:
        machine.run(seconds)
    return window


def test_a_trial_between_two_checkpoints_is_marked_for_what_was_beside_it_and_for_no_other(bench):
    machine = bench()
    assert not marked(window_of(machine, 1.0))
    users(machine.driver, os.getpid(), FOREIGN)
    machine.run(0.2)
    assert marked(window_of(machine, 0.03)) == {GPU: [FOREIGN]}, "no look at the processes falls into it but those at its edges"
    assert marked(window_of(machine, 2.0)) == {GPU: [FOREIGN]}
    users(machine.driver, os.getpid())
    machine.run(0.2)
    assert not marked(window_of(machine, 2.0)), "it was gone before"


def test_who_comes_and_goes_in_the_middle_of_a_trial_is_seen(bench):
    machine = bench()
    with machine.ledger.window("trial") as window:
        machine.run(1.0)
        users(machine.driver, FOREIGN)
        machine.run(0.7)
        users(machine.driver)
        machine.run(1.0)
    assert marked(window) == {GPU: [FOREIGN]}
    assert not marked(window_of(machine, 1.0))


@pytest.mark.parametrize("seed", range(4))
def test_every_trial_beside_half_a_second_of_another_user_is_marked_and_no_trial_without_one(bench, seed):
    machine, draw, windows, foreign = bench(), random.Random(seed), [], []
    for _ in range(12):
        begin_ns, other = machine.clock.now_ns, bool(draw.getrandbits(1))
        users(machine.driver, os.getpid(), *([FOREIGN] if other else []))
        for _ in range(draw.randrange(4)):
            windows.append(window_of(machine, draw.choice([0.04, 0.4, 3.0])))
        with machine.ledger.window("trial") as across:
            machine.run(draw.choice([0.6, 3.0]))
            foreign += [(begin_ns, machine.clock.now_ns)] if other else []
            users(machine.driver, os.getpid())
            machine.run(draw.choice([0.1, 1.0]))
        windows.append(across)
    for window in windows:
        beside = sum(max(min(window.t1_ns, end) - max(window.t0_ns, begin), 0) for begin, end in foreign)
        assert bool(marked(window)) == (beside > 0), f"{beside / 1e9} s of {(window.t1_ns - window.t0_ns) / 1e9}"


def test_a_trial_on_one_gpu_is_not_marked_for_the_users_of_another(driver, bench):
    driver.reset(2)
    machine = bench()
    users(driver, FOREIGN, device=1)
    machine.run(0.6)
    second = "gpu:GPU-00000001-fake"
    found = [window_of(machine, 1.0, devices=devices) for devices in ((GPU,), (second,), (), None)]
    assert [marked(window) for window in found] == [{}, {second: [FOREIGN]}, {}, {second: [FOREIGN]}]


def test_children_are_no_other_users_and_a_process_that_has_ended_is_none(bench):
    machine = bench()
    child = subprocess.Popen(["sleep", "60"])
    try:
        users(machine.driver, os.getpid(), child.pid)
        assert not marked(window_of(machine, 1.0))
    finally:
        child.kill()
        child.wait()
    assert not marked(window_of(machine, 1.0))


def test_only_changes_are_kept_however_long_a_ledger_lives(bench):
    machine = bench(pid=FOREIGN)
    machine.run(60)
    monitor: HostMonitor = machine.ledger._monitor
    assert len(monitor._foreign[GPU]) == 1
