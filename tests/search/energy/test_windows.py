"""What windows say about themselves: asked twice, around each other, of different kinds, and after a kill."""

from __future__ import annotations

import asyncio
import threading

import pytest
from helpers.windows import WATTS

from joulefront.search.energy.journal import lines

from .conftest import balance


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
