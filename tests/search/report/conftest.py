"""A run as a real study leaves it: lineages over four rungs, failures, unknown energy, a measured and an estimated component."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.trials import changed, make_trial

from joulefront.search.front import Front
from joulefront.search.records.bill import Bill
from joulefront.search.records.replicates import Plan, Repeat, Repeats
from joulefront.search.records.run_folder import Run
from joulefront.search.records.trial import ComponentEnergy, Trial

RUNGS = (1, 3, 9, 27)
FAMILIES = {"convnet": (0.83, 0.9), "mobilenetv3_small": (0.86, 1.6), "resnet18": (0.90, 5.0), "mlp": (0.62, 0.5)}
GPU, CPU = "gpu:GPU-1a2b3c4d", "cpu"


def _components(joules: float) -> dict[str, ComponentEnergy]:
    return {GPU: ComponentEnergy(0.8 * joules, "measured", "nvml"), CPU: ComponentEnergy(0.2 * joules, "estimated", "cpu_time")}


def make_run(seed: int = 0, *, configs: int = 14, intensity: bool = True) -> Run:
    """Make a run in which quality saturates with epochs and energy grows with them, both with noise."""
    draw = random.Random(seed)
    trials: list[Trial] = []
    for config in range(configs):
        family = sorted(FAMILIES)[config % len(FAMILIES)]
        top, cost = FAMILIES[family]
        width = draw.choice([16, 32, 64, 96])
        params: dict[str, Any] = {
            "family": family,
            "lr": 10 ** draw.uniform(-4, -1.3),
            "width": width,
            "batch_size": draw.choice([64, 128]),
        }
        flops, parameters = int(2e6 * cost * width), int(900 * width * width * cost**0.5)
        ceiling = top + 0.06 * (width / 96) ** 0.5 - 0.03 * abs(draw.gauss(0, 1))
        parent: Trial | None = None
        for rung in RUNGS[: draw.choice([1, 1, 2, 3, 4, 4])]:
            number = len(trials)
            if draw.random() < 0.1:
                spent = cost * width * 2.0
                trials.append(
                    make_trial(
                        number,
                        "failed",
                        params,
                        rung,
                        increment_joules=spent,
                        energy_quality="mixed",
                        reason="the loss became NaN in epoch 1",
                        components=_components(spent),
                        hardware_id="a1b2c3",
                        parent=None if parent is None else parent.number,
                    )
                )
                break
            before = 0.0 if parent is None or parent.train_joules is None else parent.train_joules
            joules = before + (rung - (0 if parent is None else parent.epochs)) * cost * width * 3.0 * draw.uniform(0.95, 1.05)
            accuracy = min(0.999, ceiling - 0.45 * rung**-0.8 + draw.gauss(0, 0.004))
            trial = make_trial(
                number,
                "complete",
                params,
                rung,
                values=(accuracy, joules),
                quality={"accuracy": accuracy, "loss": 2 * (1 - accuracy)},
                train_joules=joules,
                train_u_joules=0.02 * joules + 1.0,
                increment_joules=joules - before + 8.0,
                evaluation_joules=8.0,
                inference_joules_per_1000=0.02 * cost * width,
                grams_co2e=joules / 3.6e6 * 56.0 if intensity else None,
                parameters=None if family == "mlp" and config > 8 else parameters,
                flops=flops,
                components=_components(joules),
                energy_quality="mixed",
                train_seconds=joules / 60.0,
                parent=None if parent is None else parent.number,
                hardware_id="a1b2c3",
                complete_training=rung == RUNGS[-1],
                curve=tuple({"epoch": e, "accuracy": accuracy * e / rung, "joules": joules * e / rung} for e in range(1, rung + 1)),
            )
            trials.append(trial)
            parent = trial
    unknown = changed(trials[5], number=len(trials), state="failed", values=(), train_joules=None, increment_joules=None, grams_co2e=None)
    trials.append(changed(unknown, energy_quality="absent", reason="objective 'train_energy' is unknown for this trial", components={}))
    by_state = {
        "complete": sum(t.increment_joules or 0.0 for t in trials if t.state == "complete"),
        "failed": sum(t.increment_joules or 0.0 for t in trials if t.state == "failed"),
        "overhead": 410.0,
        "idle": 95.0,
    }
    total = sum(by_state.values())
    bill = Bill(
        total,
        by_state,
        _components(total),
        {"dram": "RAPL has no dram zone on this processor", "cpu:pkg0": "permission denied; see joulefront doctor"},
        0.05 * total,
        1234.0,
    )
    sessions = [
        {
            "started": "2026-01-02T03:04:05+00:00",
            "ended": "2026-01-02T03:25:00+00:00",
            "reason": "budget spent",
            "command": "joulefront run images --data photos --budget 20Wh --zone FR",
            "versions": {"python": "3.11.9", "joulefront": "0.1.0", "torch": "2.6.0"},
            "hardware": {"gpu": "NVIDIA <Example> 24 GB", "cpu": "Example CPU", "cores": 8},
            "hardware_id": "a1b2c3",
            "device": "cuda",
            "threads": 8,
            "meter": "auto",
            "trials_before": 0,
        }
    ]
    place = {"grams_per_kwh": 56.0, "zone": "FR", "source": "codecarbon 3.0 offline table", "year": 2023, "kind": "average"}
    facts = {
        "run_id": "images-0123abcd",
        "study": {"name": "images", "sampler": "freeze-thaw", "seed": 7, "space": "images", "complete_only": False, "min_accuracy": None},
        "intensity": place if intensity else None,
        "pue": 1.0,
        "sessions": sessions,
    }
    return Run("images", Path("runs/images"), ("accuracy", "train_energy"), ("maximize", "minimize"), RUNGS, tuple(trials), bill, facts)


def with_repeats(run: Run, *, times: int = 3, spread: float = 0.02, fall: float = 0.01, only: int | None = None) -> Run:
    """The run with every member of its front repeated; energies spread by a share, quality by 0.002 around what it fell to."""
    members = [trial for trial in Front.of(run) if only is None or trial.number == only]
    repeats = Repeats().with_plan(Plan("2026-01-02T03:04:05+00:00", tuple(trial.number for trial in members), times, "random", 0))
    for number in range(times):
        step = number - (times - 1) / 2
        for place, trial in enumerate(members):
            quality = {"accuracy": trial.values[0] - fall + 0.002 * step}
            joules = (trial.train_joules or 0.0) * (1 + spread * step)
            position = number * len(members) + place
            one = Repeat(0, trial.number, number, position, 1, trial.epochs, quality, joules, 0.001 * joules, joules)
            repeats = repeats.with_training(one)
    return replace(run, repeats=repeats)


@pytest.fixture
def fake_run() -> Run:
    return make_run()


@pytest.fixture
def fake_run_maker() -> Any:
    return make_run


@pytest.fixture
def repeated() -> Callable[..., Run]:
    return with_repeats


@pytest.fixture(scope="session")
def fake_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from joulefront.search.report.page import report_html

    return report_html(make_run(), tmp_path_factory.mktemp("page") / "sub" / "report.html")
