"""What windows of threads beside each other have, and what threads do that have no window at the time."""

from __future__ import annotations

import pytest

from .conftest import balance, joules


def beside_a_pool(wait, threads, own, pool):
    """Two windows beside each other for 4 s, each of a thread that takes ``own`` cores, while a pool of theirs takes ``pool``."""
    mine, other = threads.start(own), threads.start(own)
    threads.pool = pool
    first, second = mine.open("first", devices=()), other.open("second", devices=())
    wait(4)
    mine.close(first)
    other.close(second)
    return first, second


def test_windows_of_two_threads_lie_beside_each_other(ledger, wait, threads):
    mine, other = threads.start(1.0), threads.start(1.0)
    first, second = mine.open("first"), other.open("second")
    wait(4)
    other.close(second)
    mine.close(first)
    shares = ledger.partition().shares
    assert joules(shares[first.id]) == joules(shares[second.id])
    assert shares[first.id]["gpu:a"].joules == pytest.approx(600, rel=1e-2)


def test_windows_of_two_threads_share_the_cpu_by_what_each_thread_used_and_know_no_gpu_that_both_may_hold(ledger, wait, threads):
    mine, other = threads.start(0.3), threads.start(0.9)
    first = mine.open("first")
    wait(4)
    second = other.open("second")
    wait(8)
    mine.close(first)
    wait(2)
    other.close(second)
    found = [window.record for window in (first, second)]
    cpu = [record.component("cpu:pkg0") for record in found]
    assert [part.joules for part in cpu] == [pytest.approx(50 * (4 + 8 / 4), rel=1e-2), pytest.approx(50 * (2 + 8 * 3 / 4), rel=1e-2)]
    assert sum(part.joules for part in cpu) == pytest.approx(50 * 14, rel=1e-3)
    assert all(part.attribution.startswith("shared") for record in found for part in record.components)
    for record in found:
        assert record.joules is None
        assert record.component("gpu:a").joules is None
        assert "give each its devices=" in record.component("gpu:a").reason
    assert [record.cpu_seconds for record in found] == [pytest.approx(0.3 * 12, rel=1e-2), pytest.approx(0.9 * 10, rel=1e-2)]


def test_windows_of_threads_that_name_their_devices_have_joules(ledger, wait, threads):
    mine, other = threads.start(0.5), threads.start(0.5)
    first, second = mine.open("first", devices=("gpu:a",)), other.open("second", devices=("gpu:b",))
    wait(4)
    mine.close(first)
    other.close(second)
    assert first.record.joules == pytest.approx(4 * (300 + 25), rel=1e-2)
    assert second.record.joules == pytest.approx(4 * (150 + 25), rel=1e-2)


def test_what_a_pool_of_threads_used_is_no_windows_and_the_record_says_what_helps(ledger, wait, threads):
    first, second = beside_a_pool(wait, threads, own=0.5, pool=1.0)
    for window in (first, second):
        part = window.record.component("cpu:pkg0")
        assert (part.joules, part.quality) == (None, "absent")
        assert part.attribution.startswith("shared")
        assert "50% of the CPU work" in part.reason
        assert "torch.set_num_threads(1)" in part.reason
    found = ledger.partition()
    assert found.shares[first.id]["cpu:pkg0"].joules == pytest.approx(100, rel=1e-2)  # a bill must close
    assert abs(balance(found)) < 1e-6


def test_a_little_work_of_a_pool_is_shared_and_the_interval_holds_all_of_it_and_none(ledger, wait, threads):
    first, second = beside_a_pool(wait, threads, own=0.45, pool=0.1)
    part = first.record.component("cpu:pkg0")
    assert part.joules == pytest.approx(100, rel=1e-2)
    assert 2 * part.u_random_joules >= 10  # the pool took 20 J; the window's part of them is between 0 and all
    assert first.record.component("cpu:pkg0").joules + second.record.component("cpu:pkg0").joules == pytest.approx(200, rel=1e-3)


def test_what_a_thread_does_before_and_after_its_own_window_is_not_work_of_anothers(ledger, wait, threads):
    mine, other = threads.start(0.1), threads.start(0.4)
    first = mine.open("first", devices=())
    other.works(0.9)  # it loads data
    wait(4)
    other.works(-0.9)
    second = other.open("second", devices=())
    wait(1)
    other.close(second)
    other.works(0.9)  # it evaluates
    wait(5)
    mine.close(first)
    cpu = [window.record.component("cpu:pkg0") for window in (first, second)]
    assert [part.joules for part in cpu] == [pytest.approx(50 * (9 * 0.1 + 0.2), rel=1e-2), pytest.approx(50 * 0.8, rel=1e-2)]
    assert cpu[0].attribution.startswith("shared")
    found = ledger.partition()
    assert found.shares[first.id]["cpu:pkg0"].joules == pytest.approx(cpu[0].joules, rel=1e-2)
    assert found.overhead["cpu:pkg0"] == pytest.approx(50 * 9 * 0.9, rel=1e-2)
    assert abs(balance(found)) < 1e-6


def test_a_window_alone_beside_a_working_thread_with_earlier_windows_does_not_know_whose_a_pool_is(ledger, wait, threads):
    mine, other = threads.start(0.5), threads.start(0.5)
    other.close(other.open("earlier", devices=()))
    wait(1)
    threads.pool = 1.0
    alone = mine.open("alone", devices=())
    wait(2)
    mine.close(alone)
    assert alone.record.component("cpu:pkg0").joules == pytest.approx(100, rel=1e-2)  # the other waits: the pool works for this one
    other.works(0.5)
    doubtful = mine.open("doubtful", devices=())
    wait(2)
    mine.close(doubtful)
    part = doubtful.record.component("cpu:pkg0")
    assert part.joules is None
    assert "50% of the CPU work" in part.reason
    assert ledger.partition().shares[doubtful.id]["cpu:pkg0"].joules == pytest.approx(50, rel=1e-2)


def test_a_thread_that_ends_beside_a_window_took_what_it_was_last_seen_to_take(ledger, wait, threads):
    mine, other = threads.start(0.1), threads.start(0.9)
    first = mine.open("first", devices=())
    other.close(other.open("second", devices=()))
    other.works(0.9)
    wait(2)
    other.works(-0.9)
    other.pool.shutdown()
    wait(2)
    mine.close(first)
    assert first.record.component("cpu:pkg0").joules == pytest.approx(200 * 0.4 / 2.2, rel=2e-2)


def test_a_window_that_another_thread_closes_is_told_by_nothing(ledger, wait, threads):
    mine, other = threads.start(0.5), threads.start(0.5)
    first, second = mine.open("first", devices=()), other.open("second", devices=())
    wait(4)
    other.close(first)
    other.close(second)
    assert first.record.component("cpu:pkg0").joules is None
    assert "closed by another thread" in first.record.component("cpu:pkg0").reason


def test_the_epochs_of_a_thread_are_parts_of_its_trial_and_take_nothing_from_another_threads(ledger, wait, threads):
    mine, other = threads.start(0.25), threads.start(0.75)
    trial, rival = mine.open("trial", devices=()), other.open("rival", devices=())
    epochs = []
    for _ in range(3):
        epochs.append(mine.open("epoch", kind="epoch", parent=trial))
        wait(2)
        mine.close(epochs[-1])
    mine.close(trial)
    other.close(rival)
    assert sum(epoch.record.joules for epoch in epochs) == pytest.approx(trial.record.joules, rel=1e-2)
    assert trial.record.joules == pytest.approx(6 * 50 / 4, rel=1e-2)


def test_windows_of_two_threads_inside_of_one_share_it(ledger, wait, threads):
    around = ledger.open("study", devices=())
    mine, other = threads.start(0.25), threads.start(0.75)
    first, second = mine.open("first", parent=around), other.open("second", parent=around)
    wait(4)
    mine.close(first)
    other.close(second)
    around.close()
    assert first.record.joules + second.record.joules == pytest.approx(around.record.joules, rel=1e-2)
    assert first.record.joules == pytest.approx(50, rel=1e-2)
    assert set(ledger.partition().shares) == {around.id}
