"""Learned local edits against uniform ones: on planted structures, and paired over the seeds of runs of ``search.py``.

    python tests/benchmarks/local_edits.py --seeds 60
    python tests/benchmarks/local_edits.py --runs build/benchmarks/search/runs.jsonl --problems ecnas4v

The first needs no models: the score of a configuration is a random function of its choices and of some pairs of them, and every proposal
may score as many configurations as the sampler would. ``unlearned`` is the same search as ``learned``, but its policy stays the uniform
one. The second reads what ``search.py --strategies "freeze-thaw,freeze-thaw local-edits"`` has kept.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import pandas as pd
from aloe import LocalEdits
from optuna.distributions import CategoricalDistribution
from scipy.stats import wilcoxon

from joulefront.search.samplers.encoding import Array, Encoding
from joulefront.search.samplers.proposals import UNIFORM, ProposalContext

SPACE = Encoding(
    {
        **{f"operation_{i}": CategoricalDistribution(["conv3x3", "conv1x1", "maxpool3x3", "absent"]) for i in range(5)},
        **{f"edge_{i}": CategoricalDistribution([False, True]) for i in range(15)},
    }
)
PROPOSALS = {"uniform": UNIFORM, "unlearned": LocalEdits(shrink=1e9), "learned": LocalEdits()}


def best_found(name: str, seed: int) -> tuple[float, int, float]:
    """Return the best score that a proposal finds, how many configurations it scored, and its CPU seconds."""
    rng = np.random.default_rng(seed)
    width = SPACE.columns(SPACE.random(rng, 1)).shape[1]
    single = rng.normal(size=width)
    pairs = np.triu(rng.normal(size=(width, width)) * (rng.random((width, width)) < 0.08), 1)

    def value(genes: Array) -> Array:
        columns = SPACE.columns(genes)
        return np.asarray(columns @ single + ((columns @ pairs) * columns).sum(1))

    measured = SPACE.random(rng, 40)
    quality, scores = value(measured), []

    def score(genes: Array) -> Array:
        scores.append(value(genes))
        return np.exp(scores[-1])

    ground = ProposalContext(SPACE, measured[np.argsort(-quality)[:10]], 400, 96, measured, quality.max() - quality)
    begin = time.process_time()
    PROPOSALS[name].explore(ground, score, np.random.default_rng(seed + 99))
    seconds = time.process_time() - begin
    return float(np.max(np.concatenate(scores))), sum(map(len, scores)), seconds


def planted(seeds: int) -> str:
    """Compare the proposals on planted structures."""
    found = {name: np.array([best_found(name, seed) for seed in range(seeds)]) for name in PROPOSALS}
    lines = ["| proposal | best score over uniform's, mean ± standard error | better / worse | p | scored | ms |", "|---" * 6 + "|"]
    for name, rows in found.items():
        gain = rows[:, 0] - found["uniform"][:, 0]
        test = f"{wilcoxon(gain).pvalue:.1e}" if gain.any() else "–"
        better = f"{(gain > 0).sum()} / {(gain < 0).sum()}"
        error = gain.std(ddof=1) / np.sqrt(seeds)
        lines.append(
            f"| {name} | {gain.mean():+.2f} ± {error:.2f} | {better} | {test} | {rows[:, 1].mean():.0f} | {1e3 * rows[:, 2].mean():.0f} |"
        )
    return "\n".join(lines)


def paired(file: Path, problem: str) -> str:
    """Compare hypervolumes of runs with equal seeds at each spent energy."""
    rows = pd.DataFrame([row for line in file.read_text().splitlines() for row in json.loads(line)["rows"]])
    rows = rows[(rows.problem == problem) & rows.spent_fte.isin((1, 2, 3, 5, 7, 10, 15, 20))]
    runs = [
        rows[rows.strategy == strategy].pivot_table(index="seed", columns="spent_fte", values="hv_any")
        for strategy in ("freeze-thaw", "freeze-thaw local-edits")
    ]
    uniform, learned = runs[0].align(runs[1], join="inner")
    lines = [f"| {problem}, FTE spent | uniform | learned | mean difference | better / worse | p |", "|---" * 6 + "|"]
    for spent in uniform.columns[uniform.columns >= 1]:
        gain = (learned[spent] - uniform[spent]).to_numpy()
        test = f"{wilcoxon(gain).pvalue:.2f}" if gain.any() else "–"
        lines.append(
            f"| {spent:g} | {uniform[spent].median():.3f} | {learned[spent].median():.3f} | {gain.mean():+.3f} "
            f"| {(gain > 0).sum()} / {(gain < 0).sum()} | {test} |"
        )
    return "\n".join(lines)


def main() -> int:
    """Print Markdown tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=60)
    parser.add_argument("--runs", type=Path, help="file of search.py --out; without it the planted structures are searched")
    parser.add_argument("--problems", default="ecnas4v")
    arguments = parser.parse_args()
    if arguments.runs is None:
        print(planted(arguments.seeds))
    else:
        print("\n\n".join(paired(arguments.runs, problem) for problem in arguments.problems.split(",")))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
