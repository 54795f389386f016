"""The report on the runs of tables.py: mean ranks with intervals, and from how many predictions a family costs less."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from tables import ARMS, DEFAULTS, ROWS, TABLES, WATTS

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
    ahead = {
        name: ranks[:, columns.index("joulefront refit")] - ranks[:, columns.index(arm)]
        for name, arm in (("FLAML", "flaml"), ("Optuna", "optuna"))
    }
    singles = [max(middle(name, f"default {kind}", "quality") for kind in DEFAULTS) for name in tables]
    short = [best - middle(name, "joulefront refit", "quality") for name, best in zip(tables, singles, strict=True)]
    shares_of = [name for name in tables if name not in ("wages", "computers", "pupils", "food", "diamonds")]
    errors = {name: np.sqrt(best * (1 - best) / (ROWS[name] // 4)) for name, best in zip(tables, singles, strict=True) if name in shares_of}
    below = [name for name, gap in zip(tables, short, strict=True) if name in errors and gap > 1.96 * errors[name]]
    shares = [run["sensible"]["train_joules"] / run["best"]["train_joules"] for run in runs]
    least = [min(one["train_joules"] for one in run["models"] if one["train_joules"]) / run["best"]["train_joules"] for run in runs]
    default = [good[t, s, "default lightgbm"]["cpu_seconds"] * WATTS for t, s in complete]
    of_default = [run["sensible"]["train_joules"] / joules for run, joules in zip(runs, default, strict=True)]
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
        *(
            f"- Rank of ours less that of {name}: {np.mean(found):+.2f}, 95 % {{:+.2f}} to {{:+.2f}}.".format(*interval(found))
            for name, found in ahead.items()
        ),
        "- Below the best single default, looked up on the hidden rows, by more than 1.96 binomial standard errors:"
        f" {', '.join(below) or 'none'} of {len(errors)} tables of classes;"
        f" its lead is {np.median(short):+.4f} in the median.",
        f"- `sensible` took {np.median(shares):.2f} of the training energy of `best` in the median ({sum(one <= 0.2 for one in shares)} of"
        f" {len(shares)} at most a fifth, {sum(one <= 0.33 for one in shares)} at most a third; the cheapest training of any kind took"
        f" more than a fifth in {sum(one > 0.2 for one in least)}), and is {np.median(kept):+.4f} below it on the hidden rows.",
        f"- `best` took less than 40 mJ in {sum(run['best']['train_joules'] < 0.04 for run in runs)} searches; of the energy of a default"
        f" LightGBM `sensible` took {np.median(of_default):.2f} in the median.",
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
