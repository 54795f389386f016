"""Workers of one study: who may train what, what all of them have spent, and what becomes of those that die."""

import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
from helpers.workers import sleeping_study

from joulefront.search.billing.recovery import NOTHING
from joulefront.search.energy import Component
from joulefront.search.records.bill import SessionBill, add_up
from joulefront.search.records.shared_study import SharedStudy, WorkerState
from joulefront.search.records.trial import ATTRIBUTE, EXCUSED, KEY, WORKER, Trial, TrialEnergy
from joulefront.search.running.identity import study_folder
from joulefront.search.running.membership import GRACE_BEATS, Membership, Refusal
from joulefront.search.samplers.factory import keep_apart, make_sampler
from joulefront.search.stopping.rules import Limits
from joulefront.search.study import Budget

BEAT = 1.0


class Clock:
    """Seconds that pass when a test says so, and a quarter of a beat whenever somebody looks."""

    now, step = 0.0, 0.0

    def __call__(self) -> float:
        self.now += self.step
        return self.now


SPACE = {"width": optuna.distributions.IntDistribution(1, 9), "epochs": optuna.distributions.IntDistribution(1, 9)}


@pytest.fixture
def shared(tmp_path: Path) -> SharedStudy:
    url = f"sqlite:///{tmp_path}/s.db"
    return SharedStudy(optuna.create_study(study_name="s", storage=url, directions=["maximize", "minimize"]))


def member(shared: SharedStudy, id: str, *, joules: float = 0.0, hardware: str = "h1", clock: Clock | None = None) -> Membership:
    found = Membership(shared, WorkerState(id, "here", hardware), BEAT, clock=clock or Clock())
    found.account = SimpleNamespace(  # type: ignore[assignment]  # what a membership asks of an account
        own_joules=lambda: joules, open_joules=lambda: {}, spent_joules=lambda: joules + found.elsewhere_joules()
    )
    found.exchange()
    return found


def begin(shared: SharedStudy, owner: str | None, key: str = "k", epochs: int = 1, hardware: str = "h1", **attributes: Any) -> int:
    trial = shared.study.ask(SPACE)
    trial = shared.study.ask() if trial is None else trial
    for name, value in {KEY: key, **attributes}.items():
        trial.set_user_attr(name, value)
    if owner is not None:
        trial.set_user_attr(WORKER, {"id": owner, "hardware_id": hardware})
    return trial.number


def listen(watcher: Membership, beats: int) -> None:
    for _ in range(beats):
        watcher.clock.now += BEAT  # type: ignore[attr-defined]  # the clock of a test
        watcher.exchange()


def state_of(shared: SharedStudy, number: int) -> str:
    return str(shared.study.get_trials(deepcopy=False)[number].state.name)


@pytest.mark.slow
def test_a_silent_worker_is_dead_and_billed_to_its_last_beat_and_one_that_beats_is_not(shared: SharedStudy) -> None:
    alive, dead = member(shared, "alive"), member(shared, "dead", joules=7.0)
    ours, theirs, unowned = begin(shared, "alive"), begin(shared, "dead"), begin(shared, None)
    dead.state = replace(dead.state, open_joules={str(theirs): 3.0})
    shared.note(dead.state)
    shared.save_bill("dead", [{"by_state_joules": {"overhead": 4.0}, "open_trials_joules": {str(theirs): 3.0}, "closed": False}])
    watcher = member(shared, "watcher")
    assert watcher.bury_dead() == []
    listen(watcher, GRACE_BEATS - 1)
    assert watcher.bury_dead() == []
    alive.exchange()
    listen(watcher, 2)
    assert watcher.bury_dead() == [theirs, unowned]
    assert [state_of(shared, number) for number in (ours, theirs, unowned)] == ["RUNNING", "FAIL", "FAIL"]
    trial = shared.study.get_trials()[theirs]
    assert trial.user_attrs[ATTRIBUTE]["increment_joules"] == 3.0
    assert trial.user_attrs[EXCUSED] == "killed"
    assert shared.bills()["dead"][0]["by_state_joules"] == {"overhead": 4.0, "failed": 3.0}
    assert watcher.elsewhere_joules() == 7.0, "what a dead worker has spent is spent"


@pytest.mark.slow
def test_silence_is_counted_only_while_the_one_who_listens_gets_to_listen(shared: SharedStudy) -> None:
    member(shared, "alive")
    theirs = begin(shared, "alive")
    watcher = member(shared, "watcher")
    assert watcher.bury_dead() == []
    for _ in range(GRACE_BEATS - 1):  # it got no core for an hour, or its database was away
        watcher.clock.now += 3600.0  # type: ignore[attr-defined]  # the clock of a test
        assert watcher.bury_dead() == []
        watcher.exchange()
    listen(watcher, 2)
    assert watcher.bury_dead() == [theirs]


@pytest.mark.slow
def test_a_beat_does_not_queue_for_the_lock_of_those_that_decide(shared: SharedStudy) -> None:
    member(shared, "dead")
    theirs = begin(shared, "dead")
    watcher = member(shared, "watcher")
    listen(watcher, GRACE_BEATS + 1)
    with shared.exclusive():
        assert watcher.bury_dead(at_once=True) == []
        assert watcher.full(Limits(), [], []) is None, "who has the lock and decides buries"
    assert state_of(shared, theirs) == "FAIL"


@pytest.mark.slow
def test_a_worker_that_was_stopped_with_the_lock_is_waited_for_until_it_counts_as_dead(shared: SharedStudy) -> None:
    stopped, watcher = member(shared, "stopped"), member(shared, "watcher")
    watcher.beat_seconds = 0.05
    theirs = begin(shared, "stopped")
    with stopped.shared.exclusive():
        for _ in range(4 * GRACE_BEATS):
            stopped.exchange()  # it is busy, and beats
            watcher.clock.now += 0.05  # type: ignore[attr-defined]  # the clock of a test
            watcher.exchange()
        assert not watcher._quiet()
        for _ in range(GRACE_BEATS + 1):
            watcher.clock.now += 0.05  # type: ignore[attr-defined]  # the clock of a test
            watcher.exchange()
        assert watcher.bury_dead() == [theirs], "nobody waits for its lock"
        with watcher.alone() as held:
            assert not held
        watcher.exchange()
        assert watcher.others["stopped"].ended
    with watcher.alone() as held:
        assert held
    assert not watcher._stuck


@pytest.mark.slow
def test_who_joins_waits_for_no_worker_that_was_stopped_with_the_lock(
    shared: SharedStudy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, url = sleeping_study("random", name="s"), f"sqlite:///{tmp_path}/s.db"
    with study_folder(tmp_path / "first", study, url, None, 1.0, None, None) as folder:
        facts = {**folder.facts, "fingerprint": {"data": {}}, "limits": {"budget": None, "trials": 9}}
        first = Membership.of(folder)
    assert first is not None
    account: Any = SimpleNamespace(own_joules=lambda: 0.0, open_joules=dict, sessions=list)  # what a membership asks of an account
    first.begin(account, "h1")
    first._ended.set()
    first.describe(facts)
    monkeypatch.setattr(SharedStudy, "exclusive", lambda self, wait_seconds=60.0: pytest.fail("it would wait"))
    with study_folder(tmp_path / "joining", study, url, None, 1.0, None, None) as folder:
        joining = Membership.of(folder)
    assert joining is not None
    assert joining.limits(None, None, study) == (None, 9)
    joining.begin(account, "h1")
    joining._ended.set()
    joining.describe(facts)
    assert joining.draws != 0


def test_who_must_have_the_lock_to_join_waits_no_longer_than_until_its_holder_counts_as_dead(shared: SharedStudy) -> None:
    said = {"name": "s", "objectives": ["accuracy", "train_energy"], "directions": ["maximize", "minimize"], "rungs": [1]}
    shared.describe({"format": 1, "study": said})
    joining = Membership(shared, WorkerState("joining", "here"), 0.05)
    with shared.exclusive():
        began = time.monotonic()
        assert joining.limits(None, 5, sleeping_study("random", name="s")) == (None, 5)
    assert time.monotonic() - began >= GRACE_BEATS * 0.05
    assert (shared.description() or {})["limits"] == {"budget": None, "trials": 5}


def test_one_budget_in_several_spellings_is_no_new_limit_of_a_study(shared: SharedStudy) -> None:
    said = {"name": "s", "objectives": ["accuracy", "train_energy"], "directions": ["maximize", "minimize"], "rungs": [1]}
    shared.describe({"format": 1, "study": said})
    member, found = Membership(shared, WorkerState("one", "here"), 0.05), []
    for text in ("20J", "20 J", "0.02 kJ"):
        member.limits(Budget.parse(text), None, sleeping_study("random", name="s"))
        found.append((shared.description() or {})["limits"])
    assert found == [found[0]] * 3


def test_a_worker_that_dies_before_its_first_beat_is_on_the_bill_with_all_that_it_has_told(shared: SharedStudy) -> None:
    cpu = {"name": "cpu", "joules": 8.0, "source": "cpu_time", "quality": "estimated", "counts": True}
    total = replace(NOTHING, components=(Component(**cpu),), seconds=2.0)
    session = SessionBill("2026", {"overhead": 8.0}, total=total, ledger_session="a", by_component={"cpu": 8.0})
    earlier = {**session.to_json(), "closed": True}
    dying = member(shared, "dying", joules=16.0)
    account: Any = dying.account
    account.sessions = lambda: [earlier, session.to_json()]
    dying.begin(account, "h1")
    dying._ended.set()
    theirs = begin(shared, "dying")
    account.own_joules, account.open_joules = lambda: 20.0, lambda: {theirs: 3.0}
    dying.exchange()  # after an epoch, for the budget
    watcher = member(shared, "watcher")
    listen(watcher, GRACE_BEATS + 1)
    assert watcher.bury_dead() == [theirs]
    before, last = shared.bills()["dying"]
    assert before["by_state_joules"] == {"overhead": 8.0}
    assert last["closed"]
    assert last["by_state_joules"] == {"overhead": pytest.approx(9.0), "failed": 3.0}
    bill = add_up([before, last])
    assert bill.total_joules == pytest.approx(watcher.elsewhere_joules()) == 20.0
    assert (bill.by_component, bill.seconds) == ({"cpu": pytest.approx(20.0)}, 4.0)


@pytest.mark.slow
def test_a_worker_that_was_taken_for_dead_stores_nothing_of_its_trial_and_its_own_bill_counts(shared: SharedStudy) -> None:
    slow = member(shared, "slow", joules=9.0)
    theirs = begin(shared, "slow")
    shared.save_bill("slow", [{"by_state_joules": {"overhead": 4.0}, "open_trials_joules": {}, "closed": False}])
    watcher = member(shared, "watcher")
    assert not slow.shared.is_closed(theirs)
    listen(watcher, GRACE_BEATS + 1)
    slow.clock.now += GRACE_BEATS  # type: ignore[attr-defined]  # the clock of a test
    with slow.recording():
        assert watcher.bury_dead(at_once=True) == []
    assert watcher.bury_dead() == [theirs]
    assert slow.shared.is_closed(theirs)
    slow.account.sessions = lambda closed=False: [{"by_state_joules": {"overhead": 4.0, "failed": 5.0}, "closed": closed}]  # type: ignore
    slow.close()
    watcher.exchange()
    assert watcher.elsewhere_joules() == 9.0
    assert watcher.bury_dead() == []
    assert shared.bills()["slow"][0]["by_state_joules"] == {"overhead": 4.0, "failed": 5.0}


def test_workers_that_begin_together_draw_each_for_itself_and_the_first_as_one_alone_would(shared: SharedStudy) -> None:
    workers = [Membership(shared, WorkerState(id, "here"), 60.0) for id in ("one", "two", "three")]
    for worker in workers:
        account = SimpleNamespace(own_joules=lambda: 0.0, open_joules=dict, sessions=list)
        worker.begin(account, "h1")  # type: ignore[arg-type]  # what a membership asks of an account
        worker._ended.set()
    assert workers[0].draws == 0
    assert len({worker.draws for worker in workers}) == 3


@pytest.mark.slow
def test_nobody_leaves_while_an_open_trial_may_be_that_of_a_dead_worker(shared: SharedStudy) -> None:
    member(shared, "dead")
    number = begin(shared, "dead")
    clock = Clock()
    clock.step = BEAT
    assert member(shared, "last", clock=clock).await_others(threading.Event()) == 0
    assert state_of(shared, number) == "FAIL"


def test_the_lock_of_a_study_is_held_by_one_at_a_time_and_given_up_after_a_while(shared: SharedStudy) -> None:
    with shared.exclusive() as first, shared.exclusive(wait_seconds=0.05) as second:
        assert first
        assert not second
    with shared.exclusive(wait_seconds=0.05) as again:
        assert again


@pytest.mark.slow
def test_a_candidate_is_trained_by_one_worker_of_a_kind_of_hardware_at_a_time(shared: SharedStudy) -> None:
    one, two, other = member(shared, "one"), member(shared, "two"), member(shared, "other", hardware="h2")
    first, second = begin(shared, "one"), begin(shared, "two")
    third = begin(shared, "other", hardware="h2")

    def claim(worker: Membership, number: int) -> Refusal | None:
        stored = shared.study.get_trials()
        return worker.claim(Limits(), stored, number, int(stored[number].params["epochs"]), None, None)

    for number in (first, second, third):
        shared.study._storage.set_trial_user_attr(shared.study.get_trials()[number]._trial_id, "resume_from", 0)
    refused = claim(two, second)
    assert refused is not None
    assert "trains the same candidate" in refused.reason
    assert refused.excused
    assert claim(other, third) is None
    shared.study.tell(second, state=optuna.trial.TrialState.FAIL)
    assert claim(one, first) is None


@pytest.mark.slow
def test_what_others_are_expected_to_take_is_not_free_for_a_training(shared: SharedStudy) -> None:
    one, two = member(shared, "one", joules=40.0), member(shared, "two", joules=10.0)
    limits = Limits(joules=100.0, label="100J")
    number = begin(shared, "one", key="a")
    one.exchange()
    assert one.claim(limits, shared.study.get_trials(), number, 1, None, 30.0) is None
    two.exchange()
    number = begin(shared, "two", key="b")
    refused = two.claim(limits, shared.study.get_trials(), number, 1, None, 25.0)
    assert refused is not None
    assert "of the budget is free" in refused.reason
    assert not refused.excused
    assert two.claim(limits, shared.study.get_trials(), number, 1, None, 15.0) is None
    cheap = Trial(0, "complete", {}, 1, energy=TrialEnergy(increment_joules=1.0))
    assert two.full(limits, [cheap], []) is None
    assert "pays for no further" in (two.full(Limits(joules=51.0, label="51J"), [replace(cheap, number=1)], []) or "")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tpe", "nsga2", "gp", "freeze-thaw", "random", "grid"])
def test_no_sampler_decides_by_what_other_hardware_has_measured(name: str) -> None:
    shared = SharedStudy(optuna.create_study(study_name="s", directions=["maximize", "minimize"]))
    here, there = SPACE["width"].low, SPACE["width"].high
    storage = shared.study._storage
    for number in range(40):  # on this hardware narrow models are good and cheap, on the other wide ones
        trial = shared.study.ask(SPACE)
        hardware = "h2" if number % 2 else "h1"
        trial.set_user_attr(WORKER, {"id": hardware, "hardware_id": hardware})
        trial.set_user_attr(KEY, str(number))
        better = abs(trial.params["width"] - (there if number % 2 else here)) / 10
        shared.study.tell(trial, [1.0 - better, 1.0 + better])
    seen = list[set[str]]()

    def comparable(trials: Any) -> Any:
        kept = member(shared, "one").alike(trials)
        seen.append({trial.user_attrs[WORKER]["hardware_id"] for trial in kept if trial.state.is_finished()})
        return kept

    sampler = make_sampler(name, rungs=(1, 9), seed=0, study=sleeping_study(name))
    study = optuna.load_study(study_name="s", storage=storage, sampler=keep_apart(sampler, comparable))
    trial = study.ask(SPACE)
    study.tell(trial, [0.5, 1.0])
    assert all(one == {"h1"} for one in seen)
    assert (len(seen) > 0) == (name not in ("random", "grid"))


def test_each_hardware_has_its_own_parents_of_a_generation() -> None:
    storage = optuna.storages.InMemoryStorage()
    optuna.create_study(storage=storage, study_name="s", directions=["maximize", "minimize"])
    for hardware in ("h1", "h2"):
        nsga2, seen = optuna.samplers.NSGAIISampler(seed=1, population_size=4), list[int]()

        def alike(trials: Any, hardware: str = hardware) -> Any:
            return [trial for trial in trials if trial.user_attrs.get(WORKER, {}).get("hardware_id") in (None, hardware)]

        study = optuna.load_study(study_name="s", storage=storage, sampler=keep_apart(nsga2, alike))
        select = nsga2._child_generation_strategy

        def counted(study: Any, space: Any, parents: Any, select: Any = select, seen: list[int] = seen) -> Any:
            seen.append(len(parents))
            return select(study, space, parents)

        nsga2._child_generation_strategy = counted
        for _ in range(10):
            trial = study.ask(SPACE)
            trial.set_user_attr(WORKER, {"id": hardware, "hardware_id": hardware})
            study.tell(trial, [trial.params["width"], trial.number])
        assert seen == [4] * 6, "four at random, then children of four parents"
