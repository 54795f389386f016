"""What windows say about themselves: asked twice, around each other, of different kinds, and after a kill."""

from __future__ import annotations

import asyncio
import threading

import pytest
from helpers.windows import WATTS, ThreadsAtWork

from joulefront.search.energy import Capability, Ledger
from joulefront.search.energy.journal import lines

from .conftest import balance


@pytest.fixture
def ledger(scripted, clock, tmp_path):
    """A ledger over two GPUs and a CPU of constant power, read by ``wait``."""
    capabilities = tuple(Capability(name, "scripted", True, tick_seconds=0.0) for name in WATTS)
    source = scripted(capabilities, clock, joules=lambda name, t: WATTS[name] * t)
    with Ledger([source], interval_seconds=None, clock=clock, file=tmp_path / "ledger.jsonl") as running:
        yield running


@pytest.fixture
def wait(ledger, clock):
    def through(seconds):
        for _ in range(round(seconds * 10)):
            clock.advance(0.1)
            ledger.sample()

    return through


@pytest.fixture
def threads(ledger, clock):
    with ThreadsAtWork.on(clock) as made:
        made.measure(ledger)
        yield made


def joules(shares):
    return {name: pytest.approx(share.joules, rel=1e-3) for name, share in shares.items()}


def left_open(file):
    """Components of the windows that a ledger's file shows as open at its last checkpoint, by name."""
    found = list(lines(file))
    names = {line["record"]["id"]: line["record"]["name"] for line in found if line["event"] == "open"}
    beat = [line for line in found if line["event"] == "beat"][-1]
    return {names[window["id"]]: window["components"] for window in beat["open"]}


def counted(parts):
    return sum(part["joules"] for part in parts if part["counts"])


def test_a_question_asked_again_is_the_same_window_and_takes_nothing_from_others(ledger, wait, clock):
    begin = clock.now_ns
    wait(10)
    end = clock.now_ns
    other = ledger.query(begin, end, "other", cpu_seconds=1.0, devices=("gpu:b",))
    records = [ledger.query(begin, end, "mine", cpu_seconds=3.0, devices=("gpu:a",)) for _ in range(4)]
    assert [record.joules for record in records] == [pytest.approx(3000 + 375, rel=1e-3)] * 4
    assert len({record.id for record in records}) == 1
    again = ledger.query(begin, end, "other", cpu_seconds=1.0, devices=("gpu:b",))
    assert again.joules == pytest.approx(1500 + 125, rel=1e-3)
    assert again.id == other.id
    assert set(ledger.partition().shares) == {other.id, records[0].id}


def test_what_is_said_last_about_a_window_holds(ledger, wait, clock):
    begin = clock.now_ns
    wait(10)
    end = clock.now_ns
    for seconds in (9.0, 1.0):
        found = ledger.query(begin, end, "mine", cpu_seconds=seconds, devices=())
    ledger.query(begin, end, "other", cpu_seconds=1.0, devices=())
    assert ledger.partition().shares[found.id]["cpu:pkg0"].joules == pytest.approx(250, rel=2e-3)


@pytest.mark.parametrize("kind", ["overhead", "idle"])
def test_a_window_of_overhead_or_rest_around_a_trial_is_no_rival(ledger, wait, clock, kind):
    with ledger.window("study", kind=kind):
        wait(2)
        begin = clock.now_ns
        wait(10)
        record = ledger.query(begin, clock.now_ns, "trial", cpu_seconds=5.0, devices=("gpu:a",))
        wait(3)
    assert record.component("gpu:a").joules == pytest.approx(3000, rel=1e-3)
    assert record.component("gpu:a").attribution == "exclusive"
    found = ledger.partition()
    assert list(found.shares) == [record.id]
    rest = getattr(found, kind)
    assert rest["gpu:a"] == pytest.approx(5 * 300, rel=1e-2)
    assert rest["gpu:b"] == pytest.approx(15 * 150, rel=1e-2)
    assert abs(balance(found)) < 1e-6


def test_idle_windows_are_idle_and_overhead_windows_are_overhead_and_the_inner_one_decides(ledger, wait):
    with ledger.window("baseline", kind="idle"):
        wait(4)
    with ledger.window("start", kind="overhead"):
        wait(2)
        with ledger.window("baseline", kind="idle"):
            wait(3)
        wait(1)
    found = ledger.partition()
    assert found.shares == {}
    assert found.idle["cpu:pkg0"] == pytest.approx(7 * 50, rel=1e-2)
    assert found.overhead["cpu:pkg0"] == pytest.approx(3 * 50, rel=1e-2)
    assert found.unattributed == {}


def test_a_window_inside_of_another_does_not_halve_it(ledger, wait):
    with ledger.window("outer") as outer:
        wait(2)
        with ledger.window("inner") as inner:
            with ledger.window("innermost"):
                wait(5)
            assert set(ledger.partition().shares) == {outer.id}
        wait(1)
    found = ledger.partition()
    assert set(found.shares) == {outer.id}
    assert found.shares[outer.id]["gpu:a"].joules == pytest.approx(outer.record.component("gpu:a").joules, rel=1e-6)
    assert inner.record.component("gpu:a").joules == pytest.approx(5 * 300, rel=1e-2)


def crossing(ledger, wait):
    """Two windows of one thread, each of 4 s, of which 2 s are those of both."""
    first = ledger.open("first")
    wait(2)
    second = ledger.open("second")
    wait(2)
    first.close()
    wait(2)
    second.close()
    return first, second


def test_a_window_that_names_its_devices_lies_inside_of_one_that_does_not_and_has_all_of_them(ledger, wait):
    with ledger.window("study") as around:
        with ledger.window("training", devices=("gpu:a",)) as inner:
            wait(2)
        wait(1)
        first, second = (ledger.open("worker", devices=(name,)) for name in ("gpu:a", "gpu:b"))
        wait(1)
        second.close(cpu_seconds=0.0)
        first.close(cpu_seconds=0.0)
    assert inner.record.component("gpu:a").joules == pytest.approx(600, rel=1e-2)
    assert inner.record.component("cpu:pkg0").joules == pytest.approx(100, rel=1e-2)
    assert inner.record.component("gpu:a").attribution == "exclusive"
    assert [one.record.component(name).joules for one, name in ((first, "gpu:a"), (second, "gpu:b"))] == pytest.approx([300, 150], rel=1e-2)
    assert around.record.joules == pytest.approx(4 * sum(WATTS.values()), rel=1e-2)
    assert ledger.partition().shares[around.id]["gpu:a"].joules == pytest.approx(1200, rel=1e-2)


def test_a_window_that_outlives_the_one_around_it_is_a_window_of_its_own(ledger, wait):
    first, second = crossing(ledger, wait)
    shares = ledger.partition().shares
    assert shares[first.id]["gpu:a"].joules == pytest.approx(3 * 300, rel=1e-2)
    assert shares[second.id]["gpu:a"].joules == pytest.approx(3 * 300, rel=1e-2)


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
    mine, other = threads.start(0.5), threads.start(0.5)
    threads.pool = 1.0
    first, second = mine.open("first", devices=()), other.open("second", devices=())
    wait(4)
    mine.close(first)
    other.close(second)
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
    mine, other = threads.start(0.45), threads.start(0.45)
    threads.pool = 0.1
    first, second = mine.open("first", devices=()), other.open("second", devices=())
    wait(4)
    mine.close(first)
    other.close(second)
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


def test_a_window_that_crosses_another_of_its_thread_does_not_say_exclusive(ledger, wait):
    for window in crossing(ledger, wait):
        assert window.record.component("gpu:a").joules == pytest.approx(1200, rel=1e-2)
        assert all("each has the whole" in part.attribution for part in window.record.components)


def test_tasks_of_an_event_loop_take_turns_and_no_clock_tells_whose_work_it_was(ledger, wait):
    async def trial(seconds, devices=None):
        with ledger.window("trial", devices=devices) as window:
            for _ in range(2):
                with ledger.window("epoch", kind="epoch", parent=window) as epoch:
                    wait(seconds)
                    await asyncio.sleep(0)
        return window, epoch

    async def main(*trials):
        with ledger.window("main") as around:
            return around, *await asyncio.gather(*trials)

    with ledger.window("outer") as outer:
        around, *found = asyncio.run(main(trial(1), trial(2)))
    for window in (outer, around):
        assert window.record.component("cpu:pkg0").joules == pytest.approx(6 * WATTS["cpu:pkg0"], rel=1e-2)
        assert {part.attribution for part in window.record.components} == {"exclusive"}
    for window in (one for pair in found for one in pair):
        assert window.record.joules is None
        assert all(part.attribution.startswith("shared") for part in window.record.components)
        assert "tasks of an event loop took turns" in window.record.component("cpu:pkg0").reason
    _, (alone, epoch) = asyncio.run(main(trial(1)))
    assert alone.record.component("cpu:pkg0").joules == pytest.approx(2 * WATTS["cpu:pkg0"], rel=1e-2)
    assert epoch.record.component("cpu:pkg0").joules == pytest.approx(WATTS["cpu:pkg0"], rel=1e-2)
    _, (first, _), (second, _) = asyncio.run(main(trial(1, ("gpu:a",)), trial(2, ("gpu:b",))))
    assert [first.record.component("gpu:a").attribution, second.record.component("gpu:b").attribution] == ["exclusive", "exclusive"]
    assert first.record.component("gpu:a").joules == pytest.approx(6 * WATTS["gpu:a"], rel=1e-2)


def test_a_window_that_a_cell_of_a_notebook_leaves_open_has_the_windows_of_later_cells_inside(ledger, wait):
    async def cell(name):
        return ledger.open(name)

    async def notebook():
        opened = []
        for name in ("first", "second"):  # each cell is a task of its own
            opened.append(await asyncio.get_running_loop().create_task(cell(name)))
            wait(1)
        return opened

    first, second = asyncio.run(notebook())
    second.close()
    first.close()
    for window, seconds in ((first, 2), (second, 1)):
        assert window.record.component("cpu:pkg0").joules == pytest.approx(seconds * WATTS["cpu:pkg0"], rel=1e-2)


def test_after_a_kill_parallel_trials_and_the_rest_are_the_machine(ledger, wait, tmp_path):
    wait(3)
    windows = [ledger.open("trial 0", devices=("gpu:a",)), ledger.open("trial 1", devices=("gpu:b",))]
    wait(2)
    with ledger.window("epoch 0", kind="epoch", parent=windows[0]):
        wait(8)
        live = {window.name: window.record.joules for window in windows}
        ledger.checkpoint()
        killed = left_open(tmp_path / "ledger.jsonl")
    assert {name: counted(killed[name]) for name in live} == {name: pytest.approx(value, rel=1e-3) for name, value in live.items()}
    # the machine took 500 W for 10 s: 300 and half of 50 belong to one, 150 and the other half to the other
    assert counted(killed["trial 0"]) == pytest.approx(3250, rel=1e-2)
    assert counted(killed["trial 1"]) == pytest.approx(1750, rel=1e-2)
    assert counted(killed["epoch 0"]) == pytest.approx(0.8 * 3250, rel=1e-2)
    assert "shared" in next(part["attribution"] for part in killed["trial 0"] if part["name"] == "cpu:pkg0")


def test_after_a_kill_two_trials_that_claim_nothing_share_the_machine(ledger, wait, tmp_path):
    ledger.open("trial 0")
    thread = threading.Thread(target=lambda: ledger.open("trial 1"))
    thread.start()
    thread.join()
    wait(10)
    ledger.checkpoint()
    killed = left_open(tmp_path / "ledger.jsonl")
    assert sum(counted(parts) for parts in killed.values()) == pytest.approx(5000, rel=1e-2)
