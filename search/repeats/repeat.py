"""Measure finalists again: from scratch, with fresh seeds, in an order that lets no drift favour one of them.

A search takes each model at its one measurement, and a front picks the lucky ones. Repeats say what a model gives and takes on the
average, and which neighbours on the front can be told apart at all. They are no trials: no sampler learns from them, and they are
never points of the front. Their joules are billed to the study by themselves (``repeats``) and count for its budget.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from pathlib import Path

from ..billing.recovery import settle_killed
from ..billing.session_account import Account
from ..energy import Ledger, discover
from ..energy.calibrations import load_wall_calibration
from ..energy.doctor import calibrated_coefficients
from ..execution.devices import cores, make_executors, pick_device, synchronizer, take_devices, torch_threads
from ..formatting import energy_text
from ..front import Front
from ..records.bill import Session, add_up, read_sessions
from ..records.replicate_summary import Finding, findings
from ..records.replicates import Plan, Repeats, slots
from ..records.run_folder import Store
from ..running.continuing import refuse_other_data
from ..running.fairness import Fairness, Keeper
from ..running.interrupts import stop_on_interrupt
from ..running.opening import meters_text, note_end, note_session, refuse_unmeasurable, utc_now
from ..study import Study
from .finalists import MOST, finalists, refuse_other_device, refuse_other_machine, refuse_other_study
from .loop import RepeatLoop

PLAIN = Fairness()


def to_stderr(text: str) -> None:
    """Say something about the progress."""
    print(text, file=sys.stderr, flush=True)


def repeat(
    study: Study,
    path: str | Path,
    *,
    times: int = 5,
    order: str = "random",
    pick: str = "front",
    most: int = MOST,
    seed: int | None = None,
    meter: str | None = None,
    cpu_watts: float | None = None,
    device: str | None = None,
    fairness: Fairness = PLAIN,
    listener: Callable[[str], None] = to_stderr,
) -> Finding:
    """Train the finalists of a run again and compare them; the run folder keeps every training in ``repeats.json``.

    Called again it adds ``times`` more trainings of each; called again after Ctrl-C with the same arguments it finishes what was planned.
    The split of the data stays that of the study: the spread is that of training, not of the choice of examples.

    Args:
        study: The study of the run.
        path: The run folder.
        times: Trainings of each model.
        order: One of `joulefront.search.records.replicates.ORDERS`.
        pick: ``front``, or rules such as ``knee`` or ``trial=12`` with commas between them.
        most: Of a longer front so many members are taken, evenly spread.
        seed: Seeds order and trainings; the study's by default. Every round has seeds of its own.
        meter: Sources of the ledger; those of the run's last session by default.
        cpu_watts: The same as in the search, when it was given there.
        device: PyTorch device; that of the run's last session by default.
        fairness: Idle baselines, cool-down and anchor measurements; none by default.
        listener: Receives a line about the start and one about each training.

    Returns:
        What all repeats of this run say, earlier ones included.

    Raises:
        ValueError: If an argument breaks its rule, or the front is empty.
        StoreError: If the folder cannot be used, or study, hardware, device or meters are not those of the search.
        DeviceError: If another run holds the GPU.
    """
    slots([0], times, order, 0)  # a typing mistake must cost nothing
    store = Store.open(path)
    last = store.facts["sessions"][-1] if store.facts["sessions"] else {}
    where = pick_device(device or str(last.get("device", "auto")))
    refuse_other_device(store, where)
    torch_threads(cores())
    with take_devices(where, 1) as devices, store.lock(), contextlib.ExitStack() as open_things:
        where = devices.names[0]
        store = Store.open(path)  # what the session before left, now that no other can write
        earlier = read_sessions(store.bill_file)
        store.fail_dead_trials(settle_killed(earlier, store.ledger_file))
        run = store.run()
        front = Front.of(run)
        members = finalists(front, pick, most)
        refuse_other_study(store, study, members)
        numbers = tuple(trial.number for trial in members)
        asked = Plan(utc_now(), numbers, times, order, study.seed if seed is None else seed, run.repeats.rounds)
        repeats, continued = _with(run.repeats, asked)
        meters = meter or str(last.get("meter", "auto"))
        known = None if cpu_watts else calibrated_coefficients()
        found = discover(meters, cpu_watts=cpu_watts, coefficients=known, environment=devices.environment)
        ledger = open_things.enter_context(Ledger(found.sources, absent=found.absent, file=store.ledger_file))
        with ledger.window("start", kind="overhead"):
            refuse_unmeasurable(ledger, meters)
            refuse_other_machine(store, members, ledger)
            task = study.load_task()
            refuse_other_data(store, task)
            finished = sum(trial.state != "running" for trial in run.trials)
            store = note_session(store, ledger, where, cores(), finished, meters)
            keeper = Keeper(fairness, study, task, ledger, where, cores())
            (executor,) = make_executors(study, task, devices.names)
            open_things.callback(executor.close)
            spent, wall = add_up(earlier).total_joules, load_wall_calibration(ledger.hardware_id)
            account = Account(ledger, Session(started=utc_now()), earlier, spent, store.bill_file, synchronizer(where), wall)
            trials = {trial.number: trial for trial in members}
            again = RepeatLoop(study, store, trials, account, executor, keeper, where, repeats, listener)
            left = again.repeats.open_slots(again.plan)
            some = f" of {len(front)}, evenly spread over the front," if pick.strip() == "front" and len(members) < len(front) else ""
            joules = sum(trials[slot.trial].train_joules or 0.0 for slot in left)
            listener(
                f"{run.name}: {'going on with' if continued else 'training'} {len(members)} model(s){some} {times} time(s) again, "
                f"order {order}: {len(left)} trainings, about {energy_text(joules / 3600)} and their validation; {meters_text(ledger)}"
            )
            keeper.warm_up()
        with stop_on_interrupt(again.interrupted):
            try:
                keeper.begin()
                again.go(left)
            finally:
                again.keep(again.repeats.with_facts(again.plan, keeper.end()))
                account.save(closed=True)
                note_end(store, "interrupted" if again.interrupted.is_set() else "finalists trained again")
    return findings(again.repeats, run.trials, run.objectives[0], run.directions[0])


def _with(repeats: Repeats, asked: Plan) -> tuple[Repeats, bool]:
    """Add a plan, unless the last one asks for the same and is not finished."""
    if repeats.plans and repeats.plans[-1].asks_the_same(asked) and repeats.open_slots(len(repeats.plans) - 1):
        return repeats, True
    return repeats.with_plan(asked), False
