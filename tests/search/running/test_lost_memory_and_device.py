"""Memory that is refused and a device that does not answer any more cost one trial, which is billed; the study goes on."""

from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import forked

from joulefront.search import Study, run
from joulefront.search.cli.study_source import find_study
from joulefront.search.execution.worker import DeviceError
from joulefront.search.records.run_folder import RunFolder
from joulefront.search.running import session

pytestmark = pytest.mark.slow
#: What stands in front of the study's own function that makes a model; the warm-up sees 128 examples at most.
FIRST_TRAINING = "def make(architecture, task):\n    if len(task.train) > 128 and is_first():\n        {}\n"
#: Of two workers that build at the same time one is the first.
IS_FIRST = """
from pathlib import Path

MARK = Path({!r})


def is_first():
    try:
        MARK.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


"""


def spoiled(rings_file: Callable[[str], Path], tmp_path: Path, begin: str, first: str) -> Path:
    """Return a study file whose first training does something bad."""
    file = rings_file("fine")
    text = file.read_text().replace("def make(architecture, task):\n", FIRST_TRAINING.format(first))
    file.write_text(text.replace("MODE =", f"{IS_FIRST.format(str(tmp_path / 'mark'))}{begin}\nMODE =", 1))
    return file


def one_failed_and_was_billed(path: Path, reason: str, states: list[str]) -> None:
    found = RunFolder.open(path).run()
    assert sorted(trial.state for trial in found.trials) == states
    (failed,) = [trial for trial in found.trials if trial.state == "failed"]
    assert reason in str(failed.reason)
    assert (failed.increment_joules or 0.0) > 0
    assert found.bill.total_joules is not None
    assert sum(found.bill.by_state.values()) == pytest.approx(found.bill.total_joules, rel=1e-3)


def test_a_training_beyond_a_limit_on_memory_fails_and_the_next_one_trains(rings_file: Callable[[str], Path], tmp_path: Path) -> None:
    first = (
        "resource.setrlimit(resource.RLIMIT_AS, ((int(Path('/proc/self/statm').read_text().split()[0]) << 12) + (1 << 30), -1)); "
        "np.empty(16 << 30, dtype='uint8')"
    )
    if not Path("/proc/self/statm").exists():
        pytest.skip("the size of a process is read from /proc")
    file = spoiled(rings_file, tmp_path, "import resource", first)
    words = ["run", str(file), "--out", str(tmp_path / "r"), "--meter", "cpu_time", "--trials", "3"]
    done = forked.run("-m", "joulefront.search.cli", *words)
    assert done.returncode == 0, done.stderr
    one_failed_and_was_billed(tmp_path / "r", "out of memory", ["complete", "complete", "failed"])


LOST = """
DEAD = []


def synchronize():
    if DEAD:
        raise RuntimeError("CUDA error: device-side assert triggered")
"""


LOADED_BY_EACH = """
def task():
    import dataclasses
    import threading
    from joulefront.search.execution import worker

    worker.synchronizer = lambda device: synchronize
    return dataclasses.replace(data(), seen={"a lock": threading.Lock()})


def data():
"""


def test_a_worker_whose_device_is_lost_is_replaced_and_the_study_goes_on(rings_file: Callable[[str], Path], tmp_path: Path) -> None:
    file = spoiled(rings_file, tmp_path, LOST, "DEAD.append(1)")
    # A task that holds a lock is loaded in each worker, before that asks what waits for its device.
    file.write_text(file.read_text().replace("def task():\n", LOADED_BY_EACH, 1))
    run(find_study(str(file), {}), out=tmp_path / "r", trials=4, workers=2, meter="cpu_time")
    one_failed_and_was_billed(tmp_path / "r", "CUDA error", ["complete", "complete", "complete", "failed"])


def test_a_lost_device_in_this_process_fails_its_trial_and_the_same_call_goes_on(
    rings: Callable[..., Study], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost: list[int] = []
    study = rings()
    build = type(study.space).build

    def breaks(self: object, candidate: object, task: object) -> object:
        if len(task.train) > 128:  # type: ignore[arg-type, attr-defined]
            lost.append(1)
        return build(self, candidate, task)  # type: ignore[arg-type]

    def synchronize() -> None:
        if lost:
            raise RuntimeError("CUDA error: device-side assert triggered")

    with monkeypatch.context() as broken:
        broken.setattr(session, "synchronizer", lambda device: synchronize)
        broken.setattr(type(study.space), "build", breaks)
        with pytest.raises(DeviceError, match="the same command continues in a new process"):
            run(study, out=tmp_path / "r", trials=3, meter="cpu_time")
    run(study, out=tmp_path / "r", trials=4, meter="cpu_time")
    first, *others = RunFolder.open(tmp_path / "r").run().trials
    assert first.state == "failed"
    assert (first.increment_joules or 0.0) > 0
    assert [trial.state for trial in others].count("complete") >= 2
