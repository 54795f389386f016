"""What a function takes is read from its annotations, and another value is refused in one line."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from optuna.trial import FixedTrial

from joulefront.search import repeat, run
from joulefront.search.argument_types import refuse_wrong_types
from joulefront.search.energy import discover
from joulefront.search.export import export, load_model
from joulefront.search.export.compress import optimise
from joulefront.search.front import Front
from joulefront.search.integrations.command import measure_command
from joulefront.search.integrations.epochs import EpochMeter
from joulefront.search.integrations.optuna import MarginalGainCallback, energy_trial
from joulefront.search.integrations.run_log import TrialLogger, loggers_of
from joulefront.search.report.front_view import FrontView
from joulefront.search.running.estimate import estimate, probe_study
from joulefront.search.study import Budget, Study
from joulefront.spaces.mlp import Mlp
from joulefront.spaces.own import Own
from joulefront.spaces.union import Repeated, Union

EMPTY = FrontView((), ("accuracy", "train_energy"), ("maximize", "minimize"))


def example(
    count: int = 1,
    share: float | None = None,
    path: str | Path = "a",
    pair: tuple[float, str] | None = None,
    names: Sequence[str] = (),
    facts: Mapping[str, Any] | None = None,
    call: Callable[[], int] = int,
    on: bool = False,
    budget: Budget | None = None,
) -> None: ...


@pytest.mark.parametrize(
    "fits",
    [
        {"count": np.int64(3), "share": 1, "path": Path("b"), "pair": [0.3, "EUR"], "names": ["a"], "facts": {}},
        {"share": np.float32(0.5), "names": np.array(["a"]), "call": example, "on": np.bool_(True), "budget": Budget(1.0)},
        {"share": None, "pair": (1, "EUR"), "budget": None},
    ],
)
def test_what_a_function_declares_is_taken_also_from_numpy(fits: dict[str, Any]) -> None:
    refuse_wrong_types(example, fits)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"count": "3"}, r"count must be int, got '3' \(str\); write 3 without quotes"),
        ({"count": True}, "count must be int, got True"),
        ({"count": 2.5}, r"count must be int, got 2.5 \(float\); leave it out for 1"),
        ({"share": "x"}, r"share must be float \| None, got 'x' \(str\)"),
        ({"path": 3}, r"path must be str \| Path, got 3 \(int\); leave it out for 'a'"),
        ({"pair": 0.3}, r"pair must be tuple\[float, str\] \| None, got 0.3 \(float\); write \(0.30, 'EUR'\)"),
        ({"pair": (0.3,)}, "pair must be"),
        ({"names": "a"}, r"names must be Sequence\[str\], got 'a'"),
        ({"names": [3]}, "names must be"),
        ({"facts": [1]}, "facts must be"),
        ({"call": 3}, "call must be"),
        ({"on": "no"}, "on must be bool, got 'no'"),
        ({"budget": "5Wh"}, "budget must be"),
    ],
)
def test_what_it_does_not_declare_is_refused_with_a_remedy(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        refuse_wrong_types(example, wrong, pair="write (0.30, 'EUR')")


STUDY = Study(name="s", task=lambda: None, space=Mlp(), trials=1)  # type: ignore[arg-type,return-value]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"study": "digits"}, "study must be Study, got 'digits'"),
        ({"trials": "3"}, "write 3 without quotes"),
        ({"intensity": 300}, "intensity must be .*intensity_for"),
        ({"price_per_kwh": (0.3, "eur")}, "a currency must be a code of three capitals, got 'eur'"),
        ({"price_per_kwh": (-1, "EUR")}, "per_kwh must be"),
        ({"pue": 0.5}, "pue must be a finite number >= 1"),
        ({"device": None}, "device must be str, got None .*write 'cpu'"),
        ({"workers": 1.5}, "workers must be int"),
        ({"out": 3}, "out must be"),
        ({"listener": None}, "listener must be"),
        ({"meter": ["cpu_time"]}, "write 'nvml,rapl'"),
    ],
)
def test_a_run_refuses_arguments_of_another_type_before_there_is_a_folder(tmp_path: Path, wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        run(**{"study": STUDY, "out": tmp_path / "run", **wrong})
    assert not (tmp_path / "run").exists()


def test_a_space_of_functions_and_a_budget_say_what_they_want() -> None:
    with pytest.raises(ValueError, match=r"draw must be .*got None .*; give the function itself"):
        Own(None, lambda architecture, task: None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"budget.joules must be float \| None, got '5' \(str\); write 5 without quotes"):
        Budget(joules="5")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: repeat("digits", "runs/a"), "study must be Study, got 'digits' .*; find_study"),
        (lambda: repeat(STUDY, "runs/a", times="3"), "times must be int, got '3' .*; write 3 without quotes"),
        (lambda: estimate(STUDY, [], joules_limit="5Wh"), "joules_limit must be float .*; leave it out"),
        (lambda: probe_study(STUDY, count=1.5), "count must be int, got 1.5"),
        (lambda: export(3, study=STUDY, task=None, weights="a", to="onnx", out="a"), "(trial|task) must be (Trial|Task), got "),
        (lambda: optimise(3, study=STUDY, task=None, weights=Path("a")), "(trial|task) must be (Trial|Task), got "),
        (lambda: load_model("a", "digits"), "study must be Study .*; find_study"),
        (lambda: energy_trial(FixedTrial({}), 3).__enter__(), "meter must be str .*, got 3"),
        (lambda: energy_trial(None).__enter__(), "trial must be Optuna's, got None; call energy_trial"),
        (lambda: discover(None), "meter must be a text, got None; write 'auto'"),
        (lambda: Front.of(3), "run must be Run, got 3 .*; RunFolder.open"),
        (lambda: EMPTY.lineage(9), r"trial must be Trial, got 9 \(int\); front.pick\('trial=3'\) gives one"),
        (lambda: EMPTY.describe(9), "trial must be Trial, got 9"),
        (lambda: EMPTY.why_not(9), "trial must be Trial, got 9"),
        (lambda: EMPTY.to_csv("front.csv"), "trials must be Iterable.*, got 'front.csv' .*write_text"),
        (lambda: EMPTY.plot(5), "path must be str .*, got 5 .*; write 'front.html'"),
        (lambda: Union(5), "a union takes spaces, got 5; for example Union"),
        (lambda: Union(Mlp, Own), r"a union takes spaces, got <class .*Mlp'>; for example Union\(Mlp\(\)"),
        (lambda: Repeated(5), "repeated.space must be a space, got 5"),
        (lambda: energy_trial(FixedTrial({}), "cpu_time", devices=3).__enter__(), "devices must be a list of .*, got 3"),
        (lambda: MarginalGainCallback(None), "share must be float .*, got None"),
        (lambda: MarginalGainCallback(0.1, "5Wh"), "remaining must be float .*, got '5Wh'"),
        (lambda: EpochMeter(cap=5), "cap must be str .*, got 5 .*; write '5Wh'"),
        (lambda: EpochMeter(grams_per_kwh="56"), "grams_per_kwh must be float .*; write 56 without quotes"),
        (lambda: measure_command("python train.py"), r"words must be Sequence.*; write \['python', 'train.py'\]"),
        (lambda: measure_command(["true"], pue=0.5), "pue must be a finite number >= 1"),
        (lambda: loggers_of(["mlflow"]), "names must be str, got .*; write 'mlflow,tensorboard'"),
    ],
)
def test_what_runs_beside_a_study_refuses_arguments_of_another_type(call: Callable[[], Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        call()


def test_what_is_imported_for_type_checkers_only_is_anything_and_plain_data_is_no_protocol() -> None:
    MarginalGainCallback(0.1, lambda study: 3.0)  # of an optuna.Study, which its module does not import
    with pytest.raises(ValueError, match=r"loggers must be Sequence\[TrialLogger\], got \['mlflow'\]"):
        refuse_wrong_types(logged, {"loggers": ["mlflow"]})


def logged(loggers: Sequence[TrialLogger] = ()) -> None: ...
