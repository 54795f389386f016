import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.forked import Forked
from helpers.workers import a_joule_an_epoch

from joulefront.search import Budget, Study, load, repeat, run
from joulefront.search.billing.account import Account
from joulefront.search.energy import Reading
from joulefront.search.energy.discover import Discovery
from joulefront.search.energy.sources import cpu_coefficients
from joulefront.search.energy.sources.cpu_time import CpuTime
from joulefront.search.energy.sources.rapl import Rapl
from joulefront.search.execution.job import WarmUp
from joulefront.search.records.run_folder import RunFolder, StoreError
from joulefront.search.records.trial import INTERRUPTED
from joulefront.search.running import session

pytestmark = pytest.mark.slow

Maker = Callable[..., Study]


def test_a_study_runs_to_its_trials_and_every_trial_says_what_it_cost(rings: Maker, tmp_path: Path) -> None:
    front = run(rings(), out=tmp_path / "r")
    trials = RunFolder.open(tmp_path / "r").run().trials
    assert len(trials) == 6
    assert len(front) >= 1
    for trial in trials:
        assert trial.state == "complete"
        assert trial.train_joules is not None
        assert trial.train_joules > 0
        assert trial.increment_joules is not None
        assert trial.increment_joules > trial.train_joules
        assert trial.energy_quality in ("measured", "estimated")
        assert trial.grams_co2e is None
        assert trial.quality["accuracy"] == trial.values[0]
        assert trial.parameters is not None
        assert len(trial.curve) == trial.epochs


def test_trials_overhead_and_failures_add_up_to_the_ledger(rings: Maker, tmp_path: Path) -> None:
    run(rings("some", trials=10), out=tmp_path / "r")
    result = RunFolder.open(tmp_path / "r").run()
    assert {trial.state for trial in result.trials} == {"complete", "failed"}
    for state in ("complete", "failed"):
        paid = [trial.increment_joules for trial in result.trials if trial.state == state]
        assert all(joules is not None and joules > 0 for joules in paid)
        assert result.bill.by_state[state] == pytest.approx(sum(joules or 0.0 for joules in paid))
    assert result.bill.total_joules is not None
    assert sum(result.bill.by_state.values()) == pytest.approx(result.bill.total_joules, rel=1e-3)
    assert sum(result.bill.by_component.values()) == pytest.approx(result.bill.total_joules, rel=1e-9)


def test_what_tactics_find_out_is_a_named_part_of_what_the_search_paid(rings: Maker, tmp_path: Path) -> None:
    from joulefront.spaces.recipes import RecipeRanges

    study = rings(trials=3)
    own = study.space
    recipe = RecipeRanges(batch_size=64, tactics={"activation_sparsity": {"on": True, "weight": 0.1}})
    run(replace(study, space=replace(own, recipe=recipe)), out=tmp_path / "r")  # type: ignore[type-var]
    result = RunFolder.open(tmp_path / "r").run()
    for trial in result.trials:
        assert trial.extra["modelled_asic_energy_ratio"] <= 1.0
        assert trial.energy.analysis_joules is not None
        parts = (trial.train_joules or 0.0) + (trial.energy.evaluation_joules or 0.0) + trial.energy.analysis_joules
        assert 0.0 < trial.energy.analysis_joules < parts <= (trial.increment_joules or 0.0) * (1 + 1e-9)
    paid = sum(trial.increment_joules or 0.0 for trial in result.trials)
    assert result.bill.by_state["complete"] == pytest.approx(paid)
    assert result.bill.total_joules is not None
    assert sum(result.bill.by_state.values()) == pytest.approx(result.bill.total_joules, rel=1e-3)


def test_a_run_continues_where_it_ended(rings: Maker, tmp_path: Path) -> None:
    run(rings(), out=tmp_path / "r", trials=3)
    before = RunFolder.open(tmp_path / "r").run()
    run(rings(), out=tmp_path / "r", trials=5)
    after = RunFolder.open(tmp_path / "r").run()
    assert len(after.trials) == 5
    assert after.trials[:3] == before.trials
    assert len({json.dumps(trial.params, sort_keys=True) for trial in after.trials}) == 5
    assert after.bill.total_joules is not None
    assert before.bill.total_joules is not None
    assert after.bill.total_joules > before.bill.total_joules


def test_a_finished_study_goes_on_for_as_much_again_unless_a_limit_is_given(rings: Maker, tmp_path: Path) -> None:
    run(rings(trials=2), out=tmp_path / "r")
    with pytest.raises(ValueError, match=r"all 2 trials are done already.*larger"):
        run(rings(trials=2), out=tmp_path / "r", trials=2)
    run(rings(trials=2), out=tmp_path / "r")
    assert len(RunFolder.open(tmp_path / "r").run().trials) == 4


def test_a_budget_ends_the_study_with_less_than_one_epoch_of_overshoot(
    rings: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A ledger on which each epoch takes exactly 1 J and nothing else takes anything: 5 J are five epochs, not eight.
    paid: list[float] = []
    monkeypatch.setattr(Account, "save_sometimes", lambda self: paid.append(1.0))
    monkeypatch.setattr(Account, "spent_joules", lambda self: sum(paid))
    run(rings(rungs=(3,), trials=None, budget=Budget(joules=5.0)), out=tmp_path / "r")
    trials = RunFolder.open(tmp_path / "r").run().trials
    assert [trial.epochs for trial in trials] == [3, 2]
    assert trials[1].state == "complete"
    assert "budget" in str(trials[1].reason)


def test_a_run_on_the_cpu_is_not_billed_for_gpus(rings: Maker, tmp_path: Path, fake_gpus: Callable[[int], object]) -> None:
    fake_gpus(4)  # of 200 W each: 1000 J are 1.25 s of them, and minutes of any processor's share
    run(rings(trials=3, budget=Budget(joules=1000.0)), out=tmp_path / "r", device="cpu")
    result = RunFolder.open(tmp_path / "r").run()
    assert [trial.state for trial in result.trials] == ["complete"] * 3
    assert result.bill.total_joules is not None
    assert 0 < result.bill.total_joules < 1000
    assert not any(name.startswith("gpu") for name in result.bill.by_component)
    for trial in result.trials:
        assert not any(name.startswith("gpu") for name in trial.energy.components)
        assert trial.energy.gpu_utilisation is None
        gpus = [part for part in trial.energy.record["components"] if part["name"].startswith("gpu:")]
        assert [part["counts"] for part in gpus] == [False] * 4
        assert all(part["joules"] != 0.0 and "not used by this run" in part["reason"] for part in gpus)  # unknown of a short window
        counted = sum(part["joules"] for part in trial.energy.record["components"] if part["counts"])
        assert trial.increment_joules == pytest.approx(counted)


def test_a_run_whose_meter_reads_what_it_does_not_use_is_refused(rings: Maker, tmp_path: Path, fake_gpus: Callable[[int], object]) -> None:
    fake_gpus(1)
    with pytest.raises(ValueError, match=r"--meter nvml: nothing can be measured .*gpu:GPU-00000000-fake: not used by this run"):
        run(rings(trials=1), out=tmp_path / "r", device="cpu", meter="nvml")


def test_a_budget_of_real_joules_is_kept_and_its_end_says_what_comes_on_top(rings: Maker, tmp_path: Path) -> None:
    run(rings(trials=2), out=tmp_path / "r", meter="cpu_time")
    spent = RunFolder.open(tmp_path / "r").run().bill.total_joules
    assert spent is not None
    told: list[str] = []
    limited = {"budget": Budget(joules=2 * spent), "show": lambda view: None, "listener": lambda progress: told.append(progress.message)}
    run(rings(), out=tmp_path / "r", meter="cpu_time", **limited)
    assert any("is spent; " in message and "; showing the front comes on top;" in message for message in told)
    result = RunFolder.open(tmp_path / "r").run()
    assert result.bill.total_joules is not None
    assert 2 * spent <= result.bill.total_joules < 4 * spent
    assert "budget" in result.facts["sessions"][-1]["reason"]


@pytest.mark.parametrize(("mode", "reason"), [("nan", "loss became nan"), ("raises", "my layer is broken"), ("hungry", "out of memory")])
def test_a_training_that_fails_keeps_its_energy_and_its_reason(rings: Maker, tmp_path: Path, mode: str, reason: str) -> None:
    front = run(rings(mode, trials=3), out=tmp_path / "r")
    trials = RunFolder.open(tmp_path / "r").run().trials
    assert len(front) == 0
    assert len(trials) == 3
    for trial in trials:
        assert trial.state == "failed"
        assert trial.increment_joules is not None
        assert trial.increment_joules >= 0

        assert re.search(reason, str(trial.reason)), trial.reason
        assert not RunFolder.open(tmp_path / "r").artifact(trial.number).exists()


def test_a_space_in_which_nothing_can_be_trained_ends_by_itself(rings: Maker, tmp_path: Path) -> None:
    run(rings("raises", trials=1000), out=tmp_path / "r")
    assert len(RunFolder.open(tmp_path / "r").run().trials) == 25


def test_only_weights_on_the_front_are_kept(rings: Maker, tmp_path: Path) -> None:
    front = run(rings(trials=8), out=tmp_path / "r")
    store = RunFolder.open(tmp_path / "r")
    kept = {trial.number for trial in store.run().trials if store.artifact(trial.number).exists()}
    assert kept == {trial.number for trial in front}


def test_candidates_that_are_too_large_are_refused_at_no_cost(rings: Maker, tmp_path: Path) -> None:
    run(rings(max_parameters=60, trials=8), out=tmp_path / "r")
    trials = RunFolder.open(tmp_path / "r").run().trials
    refused = [trial for trial in trials if trial.state == "failed"]
    assert refused
    assert all("max_parameters = 60" in str(trial.reason) and trial.increment_joules == 0.0 for trial in refused)
    assert all((trial.parameters or 0) <= 60 for trial in trials if trial.state == "complete")


def test_inference_energy_has_a_window_of_its_own(rings: Maker, tmp_path: Path) -> None:
    run(rings(objectives=("accuracy", "train_energy", "inference_energy"), trials=2), out=tmp_path / "r", meter="cpu_time")
    for trial in RunFolder.open(tmp_path / "r").run().trials:
        assert trial.inference_joules_per_1000 is not None
        assert trial.inference_joules_per_1000 == trial.values[2] > 0


def test_freeze_thaw_continues_checkpoints_and_bills_each_increment_once(rings: Maker, tmp_path: Path) -> None:
    with a_joule_an_epoch():
        run(rings(sampler="freeze-thaw", trials=16), out=tmp_path / "r")
    trials = RunFolder.open(tmp_path / "r").run().trials
    children = [trial for trial in trials if trial.parent is not None]
    assert children
    for child in children:
        parent = trials[child.parent or 0]
        assert parent.params == child.params
        assert parent.epochs < child.epochs
        assert len(child.curve) == child.epochs - parent.epochs
        assert (child.train_joules, child.increment_joules) == pytest.approx((child.epochs, child.epochs - parent.epochs), rel=0.02)


def test_one_folder_has_one_session_at_a_time(rings: Maker, tmp_path: Path) -> None:
    run(rings(trials=1), out=tmp_path / "r")
    with RunFolder.open(tmp_path / "r").lock(), pytest.raises(StoreError, match="another process"):
        run(rings(trials=9), out=tmp_path / "r")


def test_energies_of_two_machines_are_not_mixed(rings: Maker, tmp_path: Path) -> None:
    run(rings(trials=1), out=tmp_path / "r")
    store = RunFolder.open(tmp_path / "r")
    store.save_facts({**store.facts, "sessions": [{**store.facts["sessions"][0], "hardware_id": "other"}]})
    with pytest.raises(StoreError, match="other hardware"):
        run(rings(trials=9), out=tmp_path / "r")


def test_energies_by_two_estimates_are_not_mixed_and_the_old_one_can_go_on(
    rings: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that was billed with 2.8 W per busy CPU, and is continued where the tables say something else."""
    cores = os.cpu_count() or 1
    run(rings(trials=1), out=tmp_path / "r", cpu_watts=2.8 * cores)
    monkeypatch.setattr(cpu_coefficients, "identify", lambda: cpu_coefficients.Processor("AMD EPYC", 25, 17))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(StoreError, match=rf"by 2\.8 W per CPU-second.*now by 1\.54 W.*--cpu-watts {2.8 * cores:g} "):
        run(rings(trials=2), out=tmp_path / "r")
    assert len(run(rings(trials=2), out=tmp_path / "r", cpu_watts=2.8 * cores).trials) == 2


def test_energies_by_two_meters_are_not_mixed_when_a_permission_has_gone(
    rings: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RAPL was opened to this user until the next boot; what came after it was an estimate of a tenth."""
    powercap = tmp_path / "powercap" / "intel-rapl:0"
    powercap.mkdir(parents=True)
    for name, text in ("name", "package-0"), ("max_energy_range_uj", "262143328850"):
        (powercap / name).write_text(text)

    class Counting(Rapl):
        """RAPL over files that count 20 W."""

        def read(self) -> tuple[Reading, ...]:
            (powercap / "energy_uj").write_text(f"{time.monotonic_ns() // 50:>20d}")
            return super().read()

    def meters(spec: str, **options: object) -> Discovery:
        rapl, estimate = Counting(tmp_path / "powercap"), CpuTime()
        found = rapl.probe()
        there = any(one.available for one in found)
        return Discovery((rapl,) if there else (estimate,), () if there else found)

    (powercap / "energy_uj").write_text("0")
    monkeypatch.setattr(session, "discover", meters)
    first = run(rings(trials=1), out=tmp_path / "r")
    assert {trial.energy_quality for trial in first.trials} == {"measured"}
    (powercap / "energy_uj").unlink()
    with pytest.raises(StoreError, match=r"counted as cpu by rapl \(CPU package\), now as cpu by cpu_time .*No such file.*new --out"):
        run(rings(trials=2), out=tmp_path / "r")
    (powercap / "energy_uj").write_text("0")
    assert len(run(rings(trials=2), out=tmp_path / "r").trials) == 2


def start(file: Path, out: Path, *more: str) -> Forked:
    return python("from joulefront.search.cli import main; main()", "run", str(file), "--out", str(out), *more)


def python(code: str, *words: str) -> Forked:
    return Forked("-c", code, *words, env={**os.environ, "OMP_NUM_THREADS": "1"})


def wait_for_trial(out: Path, seconds: float = 60.0) -> None:
    """Wait until a first trial is finished and billed."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if (out / "bill.json").is_file() and '"complete"' in (out / "bill.json").read_text():
            return
        time.sleep(0.1)
    raise AssertionError("no trial was finished in time")


def test_ctrl_c_ends_the_epoch_stores_what_was_measured_and_says_how_to_continue(rings_file: Callable[[str], Path], tmp_path: Path) -> None:
    out = tmp_path / "r"
    process = start(rings_file("slow"), out, "--trials", "500")
    wait_for_trial(out)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, "a shell must not go on with && as if the budget had been spent"
    assert "Traceback" not in stderr
    assert stdout.index("next: joulefront export") < stdout.index("continue: joulefront run")
    *trials, last = RunFolder.open(out).run().trials
    assert all(trial.state == "complete" for trial in trials)
    # The signal may come in the moment between a proposal and its first phase: that trial ends with nothing measured.
    assert last.state == "complete" or (last.reason == INTERRUPTED and last.epochs == 0)
    assert len(load(out)) >= 1


def test_a_killed_session_loses_nothing_that_was_measured(rings_file: Callable[[str], Path], rings: Maker, tmp_path: Path) -> None:
    out = tmp_path / "r"
    process = python(
        "from joulefront.search import run\n"
        "from joulefront.search.cli.study_source import find_study\n"
        f"run(find_study({str(rings_file('slow'))!r}, {{}}), out={str(out)!r}, trials=500, save_seconds=0.2)"
    )
    wait_for_trial(out)
    time.sleep(0.5)  # a checkpoint of the ledger and more: what a trial had cost by then is known after the kill
    process.kill()
    process.communicate(timeout=60)
    before = [trial for trial in RunFolder.open(out).run().trials if trial.state == "complete"]
    assert before
    run(rings("slow"), out=out, trials=len(RunFolder.open(out).run().trials) + 1)
    result = RunFolder.open(out).run()
    assert [trial for trial in result.trials if trial.number in {t.number for t in before}] == before
    dead = [trial for trial in result.trials if trial.state == "failed"]
    assert all("killed" in str(trial.reason) for trial in dead)
    assert result.bill.total_joules is not None
    assert sum(result.bill.by_state.values()) == pytest.approx(result.bill.total_joules, rel=1e-3)
    assert not any(trial.state == "running" for trial in result.trials)


def test_a_finished_run_is_read_without_its_database_until_that_changes(rings: Maker, tmp_path: Path) -> None:
    run(rings(trials=3), out=tmp_path / "r")
    store = RunFolder.open(tmp_path / "r")
    assert store._snapshot() == store.run(store.study()).trials
    read = f"Front.of(RunFolder.open({str(tmp_path / 'r')!r}).run())"
    modules = "from joulefront.search.front import Front; from joulefront.search.records.run_folder import RunFolder"
    code = f"import sys; {modules}; assert len({read}) >= 1; sys.exit('optuna' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    store.study().ask()
    assert store._snapshot() is None
    assert len(store.run().trials) == 4
    (tmp_path / "r" / "trials.json").write_text("{")
    assert len(store.run().trials) == 4


def test_a_start_that_is_refused_leaves_no_folder_that_counts_as_a_run(rings: Maker, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--meter rapl"):
        run(rings(), out=tmp_path / "r", trials=1, meter="rapl")
    assert not (tmp_path / "r").exists()
    run(rings(), out=tmp_path / "r", trials=1)
    with pytest.raises(ValueError, match="--meter rapl"):
        run(rings(), out=tmp_path / "r", trials=2, meter="rapl")
    assert len(load(tmp_path / "r").trials) == 1


def test_the_same_architecture_has_one_price_whoever_compiles_it_first(
    rings: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compiling a size of a batch burns 0.4 CPU-seconds once in this process, as in PyTorch's cache of kernels."""
    known: set[object] = set()

    def compile_(model: torch.nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
        def forward(x: torch.Tensor) -> torch.Tensor:
            if (what := (str(model), x.shape)) not in known:
                known.add(what)
                end = time.process_time() + 0.4
                while time.process_time() < end:
                    pass
            return model(x)  # type: ignore[no-any-return]  # nothing is known of a module's call

        return forward

    monkeypatch.setattr(torch, "compile", compile_)
    monkeypatch.setattr(WarmUp, "before", lambda *given: None)  # it would compile the same
    own = rings().space
    space = replace(own, draw=lambda trial: {"width": 8}, recipe=replace(own.recipe, compile=True))  # type: ignore[attr-defined,type-var]
    study = rings(space=space, rungs=(1,), trials=3)
    run(study, out=tmp_path / "r", meter="cpu_time", cpu_watts=float(os.cpu_count() or 1))
    trials = RunFolder.open(tmp_path / "r").run().trials
    prices, paid = ([value(trial) or 0.0 for trial in trials] for value in (lambda t: t.train_joules, lambda t: t.increment_joules))
    assert all(0.8 < price < 1.1 for price in prices)  # two sizes of batches, at 1 W a CPU-second
    assert paid[0] > 0.8
    assert max(paid[1:]) < 0.5
    comparison = repeat(study, tmp_path / "r", times=1, most=1, cpu_watts=float(os.cpu_count() or 1), listener=lambda line: None)
    assert 0.8 < comparison.members[0].energy.mean < 1.1  # type: ignore[union-attr]
    assert comparison.members[0].energy is not None
