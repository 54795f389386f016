"""SIGKILL a study at random moments in its middle, go on with the same command, and look at what is left.

    python tests/faults/kills.py --kills 60 --storage sqlite
    python tests/faults/kills.py --kills 60 --storage postgresql

Each kill hits a session with two workers that has trained trials already; it takes the parent, one worker or the whole group. Every fourth
study has candidates whose epochs last for hours, so that no kill finds one ended, and a budget, which must end the study all the same.
"""

import argparse
import json
import random
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from faults.checks import Watch
from faults.processes import Session
from faults.study_file import source
from helpers.postgresql import postgresql_server

#: A start on a busy machine takes minutes.
START_SECONDS = 400.0
#: Kills of one study before it may end.
KILLS_A_STUDY = 12
TRIALS_A_KILL = 20
#: Budget of a study with epochs of hours: a few starts.
LONG_BUDGET_JOULES = 150


@dataclass
class Row:
    """What became of one study.

    Attributes:
        study: ``short epochs`` or ``epochs of hours``.
        kills: Kills by whom they hit.
        sessions: Number of sessions.
        complete: Complete trials at the end.
        failed: Failed trials at the end.
        ledger_joules: Energy by the ledger.
        bill_joules: Energy by the bill.
        worst_joules: Most that bill and ledger of one session were apart.
        worst_seconds: Longest time by which a killed session's bill was later than its ledger.
        ended: Whether the study ended normally.
        wrong: What broke a rule.
    """

    study: str
    kills: dict[str, int] = field(default_factory=lambda: {"parent": 0, "worker": 0, "group": 0})
    sessions: int = 0
    complete: int = 0
    failed: int = 0
    ledger_joules: float = 0.0
    bill_joules: float = 0.0
    worst_joules: float = 0.0
    worst_seconds: float = 0.0
    ended: bool = False
    wrong: list[str] = field(default_factory=list)

    def text(self) -> str:
        """Return a row of the table in Markdown."""
        kills = " + ".join(str(self.kills[whom]) for whom in ("parent", "worker", "group"))
        energy = f"{self.ledger_joules:.1f} | {self.bill_joules:.1f} | {self.worst_joules:.1f} ({self.worst_seconds:.1f})"
        trials = f"{self.complete} / {self.failed}"
        return f"| {self.study} | {kills} | {self.sessions} | {trials} | {energy} | {'yes' if self.ended else 'no'} | {len(self.wrong)} |"


HEAD = """\
| study | parent + worker + group killed | sessions | complete / failed | ledger, J | bill, J | worst, J (s) | ended | wrong |
|---|---|---|---|---|---|---|---|---|"""


def kill_study(
    folder: Path,
    kills: int,
    *,
    long: bool = False,
    storage: str | None = None,
    seed: int = 0,
    trials: int | None = None,
    whom: tuple[str, ...] | None = None,
    wait_seconds: float = 6.0,
    say: bool = False,
) -> Row:
    """Kill one study in its middle, let it end, and check it after each kill and at the end.

    Args:
        folder: An empty folder.
        kills: How often; a study with epochs of hours is killed until its budget ends it, at most three times as often.
        long: Whether every second candidate has epochs of hours.
        storage: URL of a database, or None for SQLite in the run folder.
        seed: Of the moments and of whom they hit.
        trials: Number of trials; by default so many that the kills find it in its middle.
        whom: Whom the kills hit, in this order; at random by default.
        wait_seconds: Longest time from the first trained trial to a kill.
        say: Whether to tell of each kill on stderr.
    """
    rng = random.Random(seed)
    (folder / "rings.py").write_text(source(long_seconds=1000.0 if long else None))
    out, row = folder / "run", Row("epochs of hours" if long else "short epochs")
    limit = ["--budget", f"{LONG_BUDGET_JOULES}J"] if long else ["--trials", str(trials or TRIALS_A_KILL * kills + 6)]
    words = ["run", "rings.py", "--workers", "2", "--meter", "cpu_time", "--out", "run", "--seed", str(seed), *limit]
    words += [] if storage is None else ["--storage", storage, "--name", f"rings-{seed}"]
    watch, left, session = Watch(out), 3 * kills if long else kills, None
    try:
        while True:
            session = Session(words, folder, out)
            row.sessions += 1
            went_on = _kill_session(session, rng, row, watch, left - sum(row.kills.values()), whom, wait_seconds, long=long)
            if say:
                print(f"{time.strftime('%H:%M:%S')} {row.text()} {row.wrong}", file=sys.stderr, flush=True)
            if not went_on:
                break
        # Killed after its last trial: the same command has nothing left to do, and says so.
        row.ended = session.process.returncode == 0 or "already (limits count the whole study)" in session.tail()
        if not row.ended:
            row.wrong.append(f"the study did not end normally (exit code {session.process.returncode}): {session.tail()}")
        row.wrong += watch.at_end()
    finally:
        if session is not None:
            session.end()
        _sum_up(row, watch)
    return row


def _kill_session(
    session: Session, rng: random.Random, row: Row, watch: Watch, left: int, whom: tuple[str, ...] | None, wait: float, *, long: bool
) -> bool:
    """Kill one session, perhaps some workers of it first; False when it ended by itself."""
    trained = 0
    while left > 0:
        # In the middle: trials were trained since the start, or since the last worker was killed.
        session.wait_for(lambda least=trained: session.training() and (long or session.trained() > least), START_SECONDS, "trials train")
        time.sleep(rng.uniform(3.0, 12.0) if long else rng.uniform(0.0, wait))
        workers = session.workers()
        if not session.running or not workers:
            break
        done = sum(row.kills.values())
        kind = whom[done % len(whom)] if whom is not None else rng.choice(("parent", "worker", "group"))
        trained = session.trained()
        session.kill(kind, rng.choice(workers))
        row.kills[kind] += 1
        left -= 1
        if kind != "worker":
            row.wrong += watch.after_kill()
            return True
    session.wait_for(lambda: False, 60.0 if long else START_SECONDS, "the study ends")
    return False


def _sum_up(row: Row, watch: Watch) -> None:
    row.ledger_joules, row.bill_joules = watch.ledger_total, watch.bill_total
    row.worst_joules, row.worst_seconds = watch.worst_joules, watch.worst_seconds
    states = [trial.state for trial in watch.stored_trials()] if (watch.path / "study.json").is_file() else []
    row.complete, row.failed = states.count("complete"), states.count("failed")


def main() -> int:
    """Kill studies until there were enough kills, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--storage", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="Keep the run folders here, and what was found so far in rows.json.")
    options = parser.parse_args()
    rows: list[Row] = []
    with ExitStack() as held:
        url = held.enter_context(postgresql_server()).url if options.storage == "postgresql" else None
        place = options.keep or Path(held.enter_context(tempfile.TemporaryDirectory(prefix="joulefront-kills-")))
        while (done := sum(sum(row.kills.values()) for row in rows)) < options.kills:
            folder = place / f"study-{len(rows)}"
            folder.mkdir(parents=True)
            count, long = min(KILLS_A_STUDY, options.kills - done), len(rows) % 4 == 1
            try:
                row = kill_study(folder, count, long=long, storage=url, seed=options.seed + len(rows), say=True)
            except Exception as error:  # the others still count
                row = Row("broken off", wrong=[repr(error)])
                rows.append(row)
                break
            rows.append(row)
            (place / "rows.json").write_text(json.dumps([asdict(row) for row in rows], indent=1))
    print(HEAD)
    for row in rows:
        print(row.text())
    for row in rows:
        for sentence in row.wrong:
            print(f"{row.study}: {sentence}")
    return int(any(row.wrong for row in rows))


if __name__ == "__main__":
    sys.exit(main())
