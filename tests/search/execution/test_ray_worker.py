"""Workers that are actors of Ray: a search on two of them, what becomes of one that is killed, and what is on the bill."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from helpers.forked import Forked

from joulefront.search import run
from joulefront.search.cli.study_source import find_study
from joulefront.search.execution import devices, ray_worker
from joulefront.search.execution.devices import check_executor
from joulefront.search.execution.ray_worker import QUIET, STORE_BYTES, Actor, Cluster, RayWorker, ray_workers, refuse_other_gpus
from joulefront.search.execution.worker import DeviceError
from joulefront.search.records.run_folder import RunFolder
from joulefront.search.running.progress import Progress
from joulefront.search.running.session import SessionOptions

from ..conftest import RINGS


def test_an_executor_that_is_not_there_is_refused_before_anything_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="--executor must be local or ray, got 'slurm'"):
        SessionOptions(executor="slurm")
    monkeypatch.setattr(devices, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'joulefront\[ray\]', or leave --executor out"):
        check_executor("ray")
    check_executor("local")


def test_gpus_that_ray_gave_must_be_those_that_the_session_holds() -> None:
    refuse_other_gpus(["1", "0"], ["cuda:0", "cuda:1"], {})
    refuse_other_gpus(["3"], ["cuda"], {"CUDA_VISIBLE_DEVICES": "3,5"})
    with pytest.raises(DeviceError, match="holds the GPUs 0, and Ray gave its actors 1"):
        refuse_other_gpus(["1"], ["cuda:0"], {})


def test_an_actor_that_ends_before_it_comes_is_an_error_and_no_wait_for_ever(tmp_path: Path) -> None:
    def get(ref: object, timeout: float) -> None:
        raise RuntimeError("no such module")

    gone = SimpleNamespace(wait=lambda refs, timeout: (refs, []), get=get)
    listener = SimpleNamespace(accept=lambda: (_ for _ in ()).throw(TimeoutError))
    with pytest.raises(ConnectionError, match="RuntimeError: no such module"):
        Actor(gone, None, "serving", listener, tmp_path, "n").connect()  # type: ignore[arg-type]  # what it asks of them


def test_nobody_waits_for_an_actor_on_a_node_that_is_gone(tmp_path: Path) -> None:
    nodes = [{"NodeID": "n", "Alive": False}, {"NodeID": "other", "Alive": True}]
    ray = SimpleNamespace(wait=lambda refs, timeout: ([], refs), nodes=lambda: nodes)
    listener = SimpleNamespace(accept=lambda: (_ for _ in ()).throw(TimeoutError))
    with pytest.raises(DeviceError, match="the cluster has lost this node; ray start it again"):
        Actor(ray, None, "serving", listener, tmp_path, "n").connect()  # type: ignore[arg-type]  # what it asks of them


class FakeRay(SimpleNamespace):
    """Ray with one node, which notes what is asked of it and takes SIGTERM for itself."""

    def __init__(self, **more: Any) -> None:
        node = {"Alive": True, "NodeID": "n", "Resources": {"CPU": 2.0}}
        super().__init__(asked=list[str](), ended=0, is_initialized=lambda: False, nodes=lambda: [node], **more)
        self.get_runtime_context = lambda: SimpleNamespace(get_node_id=lambda: "n")

    def init(self, address: str, **options: object) -> None:
        self.asked.append(address)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)

    def shutdown(self) -> None:
        self.ended += 1


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> FakeRay:
    """A fake that is imported as Ray; nothing was started on this machine."""
    found = FakeRay()
    monkeypatch.setitem(sys.modules, "ray", found)
    monkeypatch.setattr(ray_worker, "_last_started", lambda: None)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return found


def test_the_session_keeps_its_own_end_by_sigterm_when_ray_starts(ray: FakeRay) -> None:
    def stop(number: int, frame: object) -> None: ...

    before = signal.signal(signal.SIGTERM, stop)
    try:
        assert Cluster.join(1, 0).local
        assert signal.getsignal(signal.SIGTERM) is stop
    finally:
        signal.signal(signal.SIGTERM, before)


def test_only_a_cluster_that_was_named_or_started_by_the_user_is_joined(ray: FakeRay, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setattr(ray_worker, "_last_started", lambda: address)
        assert not Cluster.join(1, 0).local
    assert Cluster.join(1, 0).local, "it was stopped"
    assert ray.asked == [address, "local"]
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(DeviceError, match=f"RAY_ADDRESS must be a cluster that answers, got '{address}'; unset it, or start that"):
        Cluster.join(1, 0)
    assert ray.asked == [address, "local"]


def test_workers_that_cannot_be_made_leave_no_ray_behind(ray: FakeRay, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(*given: object) -> None:
        raise OSError("no room for a socket")

    monkeypatch.setattr(Actor, "start", start)
    with pytest.raises(DeviceError, match="no room for a socket"):
        ray_workers(find_study("digits", {}), ["cpu"], 1, bool)
    assert ray.ended == 1


def test_an_actor_that_dies_is_killed_at_once_and_not_replaced_inside_a_training(monkeypatch: pytest.MonkeyPatch) -> None:
    said = list[str]()

    class Dead(SimpleNamespace):
        def __getattr__(self, name: str) -> Any:
            return lambda *given: said.append(name)

    monkeypatch.setattr(Actor, "start", lambda *given: Dead(pid=7, gpus=(), is_alive=lambda: False, why=lambda: "OutOfMemoryError"))
    worker = RayWorker(find_study("digits", {}), "cpu", 1, Cluster(None, "n", False, False), bool)
    monkeypatch.setattr(worker, "_busy", True)
    assert worker.pid == 7
    assert "kill" not in said
    outcome = worker._died()
    assert (outcome.failed, outcome.excused) == ("the actor died (OutOfMemoryError)", False)
    assert said.count("kill") == 1
    monkeypatch.setattr(worker.actor, "why", lambda: "ActorDiedError: killed")
    assert worker._died().excused, "its training may be tried again"
    monkeypatch.setattr(worker, "_busy", False)
    assert worker.pid == 7
    assert said.count("kill") == 3, "what the old one has left goes with it"


def busy_rings(folder: Path) -> Path:
    """The file of a small study whose epochs take many ticks of /proc."""
    file, work = folder / "rings.py", "until = time.thread_time() + 0.01\n        while time.thread_time() < until:\n            pass"
    file.write_text(RINGS.replace('MODE = "fine"', 'MODE = "slow"').replace("time.sleep(0.05)", work))
    return file


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A search on two actors, of which one is killed in its first training."""
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'joulefront[ray]'")
    path, workers, said = tmp_path_factory.mktemp("ray") / "run", list[RayWorker](), list[Progress]()
    killed, one = list[int](), threading.Lock()
    original = RayWorker.train

    def train(self: RayWorker, job: Any, *, should_continue: Any, **words: Any) -> Any:
        def killing(entry: Any) -> bool:
            with one:
                if not killed and job.number == 0:
                    time.sleep(2.0)  # until the meter of a busy machine has looked, too: what a dead process took since then cannot be read
                    killed.append(self.pid)
                    os.kill(killed[0], signal.SIGKILL)
            return bool(should_continue(entry))

        workers.append(self)
        return original(self, job, should_continue=killing, **words)

    study = find_study(str(busy_rings(path.parent)), {})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RayWorker, "train", train)
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.setattr(ray_worker, "_last_started", lambda: None)  # another test may have a cluster
        options: dict[str, Any] = {"trials": 4, "meter": "cpu_time", "executor": "ray", "workers": 2}
        front = run(study, out=path, listener=said.append, **options)
    return SimpleNamespace(front=front, run=RunFolder.open(path).run(), killed=killed, workers=workers, said=said)


@pytest.mark.slow
def test_two_actors_search_and_a_killed_one_loses_no_trial(searched: Any) -> None:
    states = [trial.state for trial in searched.run.trials]
    assert sorted(states) == ["complete"] * 4 + ["failed"], "the trial that was lost is another's beside the four"
    (failed,) = [trial for trial in searched.run.trials if trial.state == "failed"]
    assert "the actor died" in failed.reason
    again = [trial for trial in searched.run.trials if dict(trial.params) == dict(failed.params) and trial.state == "complete"]
    assert len(again) == 1, "its candidate was trained again, once"
    assert len(searched.front) > 0


@pytest.mark.slow
def test_what_a_killed_actor_took_is_on_the_bill_as_failed_and_its_start_as_overhead(searched: Any) -> None:
    bill, trials = searched.run.bill, searched.run.trials
    failed = next(trial for trial in trials if trial.state == "failed")
    assert failed.increment_joules is not None
    assert failed.increment_joules > 0
    parts = bill.by_state
    assert parts["failed"] == pytest.approx(failed.increment_joules)
    assert parts["overhead"] > parts["failed"], "Ray and its actors start on this session's bill"


@pytest.mark.slow
def test_progress_is_streamed_while_the_actors_train(searched: Any) -> None:
    assert sum("after" in progress.message for progress in searched.said if progress.event == "trial") == 4


#: A session of its own on node b, which is another machine to it; it says when its second training has begun, which the node's end ends.
ON_NODE_B = """
import sys
import time
from pathlib import Path
from ray._private import services
from joulefront.search.cli import main
from joulefront.search.energy import host
from joulefront.search.execution.ray_worker import RayWorker

find, describe, train = services.get_node_to_connect_for_driver, host.describe, RayWorker.train
services.get_node_to_connect_for_driver = lambda *given, **named: find(*given, **{**named, "node_name": "b"})
host.describe = lambda *given, **named: {**describe(*given, **named), "cpu_model": "CPU of b"}

begun = []

def told(self, job, *, should_continue, **words):
    begun.append(job.number)
    def told_and_asked(entry):
        if len(begun) == 2:
            Path(sys.argv[-1]).touch()
            while any(one["Alive"] for one in self._cluster.ray.nodes() if one["NodeID"] == self._cluster.node):
                time.sleep(0.1)
        return should_continue(entry)
    return train(self, job, should_continue=told_and_asked, **words)

RayWorker.train = told
main(["worker", "--study", "rings", "--source", sys.argv[1], "--executor", "ray", "--workers", "1", "--meter", "cpu_time", *sys.argv[2:-1]])
"""


def arrived(path: Path, process: Forked) -> bool:
    """Wait for a file that a process makes."""
    while not path.exists() and process.poll() is None:
        time.sleep(0.05)
    return path.exists()


@pytest.mark.slow
def test_two_nodes_have_a_meter_each_and_of_one_that_is_lost_no_trial_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    utils = pytest.importorskip("ray.cluster_utils", reason="Ray is not installed: pip install 'joulefront[ray]'")
    for name, value in {**QUIET, "RAY_AUTH_MODE": "disabled"}.items():
        monkeypatch.setenv(name, value)
    node = {"num_cpus": len(os.sched_getaffinity(0)), "object_store_memory": STORE_BYTES, "include_dashboard": False}
    rings = busy_rings(tmp_path)
    url, under_way, waited = f"sqlite:///{tmp_path}/study.db", tmp_path / "under_way", list[bool]()
    train, sessions = RayWorker.train, list[Forked]()
    cluster = utils.Cluster(initialize_head=True, head_node_args={**node, "node_name": "a"})
    try:
        other = cluster.add_node(**node, node_name="b")
        monkeypatch.setenv("RAY_ADDRESS", cluster.address)

        def beside_b(self: RayWorker, job: Any, **words: Any) -> Any:
            if not waited:
                words_of_b = [rings, "--storage", url, "--out", tmp_path / "b", under_way]
                sessions.append(Forked("-c", ON_NODE_B, *words_of_b, stdout=subprocess.DEVNULL))
                waited.append(arrived(under_way, sessions[0]))
                cluster.remove_node(other, allow_graceful=False)
            return train(self, job, **words)

        monkeypatch.setattr(RayWorker, "train", beside_b)
        options: dict[str, Any] = {"trials": 5, "meter": "cpu_time", "executor": "ray", "workers": 1, "storage": url}
        front = run(find_study(str(rings), {}), out=tmp_path / "a", **options)
        said = sessions[0].communicate(timeout=120)[1]
    finally:
        for session in sessions:
            session.kill()
        cluster.shutdown()
    assert waited == [True]
    assert sessions[0].returncode == 1
    assert "error: " in said
    assert "the cluster has lost this node; ray start it again" in said
    stored = RunFolder.open(tmp_path / "a", storage=url)
    trials, alive = stored.run().trials, {trial.state.is_finished() for trial in stored.study().get_trials()}
    assert alive == {True}, "none is left open"
    complete = [(dict(trial.params), trial.epochs) for trial in trials if trial.state == "complete"]
    assert all(complete.count(one) == 1 for one in complete), "none is trained twice"
    ledgers = [json.loads((tmp_path / name / "ledger.jsonl").read_text().splitlines()[0]) for name in "ab"]
    here, there = [ledger["hardware_id"] for ledger in ledgers]
    assert here != there, "each session has the meter of its own node"
    count = Counter((trial.energy.hardware_id, trial.state) for trial in trials)
    assert count[there, "complete"] == 1
    assert sum("the actor died" in (trial.reason or "") for trial in trials if trial.energy.hardware_id == there) == 1
    assert count[here, "complete"] >= 1
    assert f"on hardware {there} (CPU of b)" in " ".join(front.to_text().split())
