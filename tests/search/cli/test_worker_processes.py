"""Two processes of the command line train one study, on machines that pretend to have different processors."""

import os
from pathlib import Path

import pytest
from helpers.command_line import say, write
from helpers.forked import Forked

from joulefront.search.records.run_folder import RunFolder
from joulefront.search.records.shared_study import SharedStudy

#: Be the command line on a machine with this processor.
MACHINE = """
import sys
from joulefront.search.energy import host
describe, model = host.describe, sys.argv.pop(1)
host.describe = lambda *args, **words: describe(*args, **words) | {"cpu_model": model}
from joulefront.search.cli import main
main(sys.argv[1:])
"""
#: The data is there when both machines want it: then both train.
MEET = """
def meet(load):
    import os, time
    from pathlib import Path
    place = Path(os.environ["MEETING"])
    (place / str(os.getpid())).touch()
    until = time.monotonic() + 120.0
    while len(list(place.iterdir())) < 2 and time.monotonic() < until:
        time.sleep(0.05)
    return load()
"""
#: A worker that starts when there is something to join.
LATER = """
import sqlite3, time
until, found = time.monotonic() + 120.0, []
while not found and time.monotonic() < until:
    time.sleep(0.05)
    try:
        with sqlite3.connect("file:s.db?mode=ro", uri=True) as database:
            found = database.execute("SELECT 1 FROM study_user_attributes WHERE key = 'joulefront:study'").fetchall()
    except sqlite3.Error:
        pass
"""


@pytest.mark.slow
def test_two_processes_on_unlike_machines_train_one_study_and_front_and_report_keep_them_apart(tmp_path: Path) -> None:
    (tmp_path / "meeting").mkdir()
    file = write(tmp_path, "plain")
    file.write_text(file.read_text().replace("task=task,", "task=lambda: meet(task),") + MEET)
    url, environment = f"sqlite:///{tmp_path}/s.db", {**os.environ, "MEETING": str(tmp_path / "meeting")}

    def start(name: str, code: str, *words: object) -> Forked:
        words = (*words, "--out", name, "--storage", url, "--meter", "cpu_time", "-q")
        return Forked("-c", code, *words, cwd=tmp_path, env=environment)

    first = start("first", MACHINE, "Slow", "run", file, "--trials", 8)
    second = start("second", LATER + MACHINE, "Fast", "worker", "--study", "circle", "--source", file)
    said = {name: process.communicate(timeout=240) for name, process in (("first", first), ("second", second))}
    assert (first.returncode, second.returncode) == (0, 0), said

    run = RunFolder.open(tmp_path / "first").run()
    assert [trial.number for trial in run.trials] == list(range(8))
    assert {trial.state for trial in run.trials} == {"complete"}
    machines = {name: RunFolder.open(tmp_path / name).facts["sessions"][-1]["hardware_id"] for name in ("first", "second")}
    assert {trial.hardware_id for trial in run.trials} == set(machines.values())
    states, _ = SharedStudy(RunFolder.open(tmp_path / "first").study()).look()
    assert run.bill.total_joules == pytest.approx(sum(state.joules for state in states.values()), rel=0.05)
    for name, model in (("first", "Fast"), ("second", "Slow")):
        others = sum(trial.hardware_id != machines[name] for trial in run.trials)
        assert f"{others} trial{'' if others == 1 else 's'} on hardware" in " ".join(said[name][0].split())
        assert f"({model})" in said[name][0]
        say("report", tmp_path / name, "-o", tmp_path / f"{name}.html")
        assert f"({model})" in (tmp_path / f"{name}.html").read_text()
