"""Learned edits against uniform mutation, against enumeration, and as part of the sampler."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import optuna
import pytest
from benchmarks.aloe.edits import Edits, Policy, fit_policy, tilted_weights
from benchmarks.aloe.local_edits import LocalEdits, measured_pairs, sibling_advantages
from optuna.distributions import CategoricalDistribution, FloatDistribution

from joulefront.search.samplers import FreezeThawSampler
from joulefront.search.samplers.encoding import Array, Encoding
from joulefront.search.samplers.proposals import UNIFORM, Proposal, ProposalContext

CELL = Encoding(
    {
        **{f"operation_{i}": CategoricalDistribution(["conv3x3", "conv1x1", "maxpool3x3", "absent"]) for i in range(5)},
        **{f"edge_{i}": CategoricalDistribution([False, True]) for i in range(15)},
    }
)


#: Planted structures of the comparison: as clear with ten as with sixteen, 3.6 and 5.3 standard errors.
SEEDS = 10


def planted(seed: int) -> Callable[[Array], Array]:
    """A score in which choices and some pairs of them matter."""
    rng = np.random.default_rng(seed)
    width = CELL.columns(CELL.random(rng, 1)).shape[1]
    single = rng.normal(size=width)
    pairs = np.triu(rng.normal(size=(width, width)) * (rng.random((width, width)) < 0.08), 1)
    return lambda genes: (lambda x: x @ single + ((x @ pairs) * x).sum(1))(CELL.columns(genes))


def explored(proposal: Proposal, seed: int, *, score: Callable[[Array], Array] | None = None) -> tuple[Array, Array]:
    """Return what a proposal scored, and the scores."""
    value = score or planted(seed)
    rng = np.random.default_rng(seed)
    measured = CELL.random(rng, 40)
    quality = planted(seed)(measured)
    best = np.argsort(-quality)[:10]
    parts: list[Array] = []

    def rates(genes: Array) -> Array:
        parts.append(genes)
        return np.exp(value(genes))

    context = ProposalContext(CELL, measured[best], 400, 96, measured, quality.max() - quality)
    proposal.explore(context, rates, np.random.default_rng(seed + 99))
    genes = np.vstack(parts)
    return genes, value(genes)


@pytest.mark.slow
def test_on_a_planted_structure_learned_edits_find_better_configurations_than_uniform_mutation() -> None:
    learned, uniform, unlearned = [], [], []
    for seed in range(SEEDS):
        genes, scores = explored(LocalEdits(), seed)
        other, others = explored(UNIFORM, seed)
        assert len(genes) <= len(other), "it had more proposals"
        learned.append(scores.max())
        uniform.append(others.max())
        unlearned.append(explored(LocalEdits(shrink=1e9), seed)[1].max())
    for baseline in (uniform, unlearned):  # the second: the same search whose policy never leaves the uniform one
        gain = np.array(learned) - np.array(baseline)
        error = gain.std(ddof=1) / SEEDS**0.5
        assert gain.mean() > 2.5 * error, f"gain {gain.mean():.2f}, standard error {error:.2f}"


@pytest.mark.slow
def test_no_configuration_is_scored_twice_and_none_that_was_measured() -> None:
    genes, _ = explored(LocalEdits(), 3)
    measured = CELL.random(np.random.default_rng(3), 40)
    assert len(np.unique(genes, axis=0)) == len(genes)
    assert not {row.tobytes() for row in genes} & {row.tobytes() for row in measured}


@pytest.mark.slow
def test_equal_arguments_give_equal_proposals() -> None:
    proposal = LocalEdits()
    first = explored(proposal, 5)[0]
    explored(proposal, 6)
    np.testing.assert_array_equal(explored(proposal, 5)[0], first)
    assert not np.array_equal(explored(proposal, 7)[0][:10], first[:10])


@pytest.mark.slow
def test_nothing_known_leaves_the_edits_uniform() -> None:
    edits = Edits(CELL)
    starts = np.repeat(CELL.random(np.random.default_rng(0), 1), 20_000, 0)
    empty = Policy(edits).draw(starts[:0], np.random.default_rng(0), (0.1,))
    for policy in (Policy(edits), fit_policy(edits, empty, np.zeros(0))):
        chains = policy.draw(starts, np.random.default_rng(1), (0.1,))
        changed = chains.ends != starts
        assert changed.any(1).all()
        assert changed.sum(1).max() <= 4
        assert changed.mean(0) == pytest.approx(changed.mean(), rel=0.12), "some parameters change more often"
        assert chains.log_ratio == pytest.approx(0.0)
        assert changed.sum(1).mean() == pytest.approx(1 + 1 / 2 + 1 / 4 + 1 / 8, abs=0.05)


@pytest.mark.slow
def test_a_score_that_is_the_same_everywhere_teaches_nothing() -> None:
    genes, _ = explored(LocalEdits(), 0, score=lambda rows: np.zeros(len(rows)))
    assert len(genes) > 550
    dead, _ = explored(LocalEdits(), 0, score=lambda rows: np.full(len(rows), -np.inf))
    assert len(dead) > 300


@pytest.mark.slow
def test_importance_weights_recover_the_tilted_distribution_whichever_policy_drew_the_chains() -> None:
    """The oracle enumerates all chains of a tiny space."""
    space = Encoding({"a": CategoricalDistribution(["x", "y", "z"]), "b": CategoricalDistribution(["x", "y"])})
    edits, start = Edits(space), np.array([[0.0, 0.0]])
    worth = {(0.0, 1.0): 0.5, (1.0, 0.0): 0.0, (1.0, 1.0): 1.0, (2.0, 0.0): 1.5, (2.0, 1.0): -1.0}
    # Base: each parameter with 1/2, a's choices with 1/4 each. After one edit the other parameter's 1/2 stands against a stop of odds 1.
    goes = 0.5 / (0.5 + 1.0)
    chance = {(0.0, 1.0): 0.5 * (1 - goes)}
    for a in (1.0, 2.0):
        chance[a, 0.0] = 0.25 * (1 - goes)
        chance[a, 1.0] = 0.25 * goes + 0.5 * goes * 0.5  # a first, or b first
    assert sum(chance.values()) == pytest.approx(1.0)
    wanted = {end: chance[end] * np.exp(worth[end]) for end in worth}
    wrong = Policy(edits, np.random.default_rng(2).normal(size=(edits.features(start, 0).shape[1], len(edits.base))))
    for policy in (Policy(edits), wrong):
        chains = policy.draw(np.repeat(start, 40_000, 0), np.random.default_rng(3), (0.1,))
        weights = np.exp(chains.log_ratio + np.array([worth[a, b] for a, b in chains.ends.tolist()]))
        for (a, b), mass in wanted.items():
            here = (chains.ends == [a, b]).all(1)
            assert weights[here].sum() / weights.sum() == pytest.approx(mass / sum(wanted.values()), abs=0.02)


def test_fitting_raises_the_chance_of_what_ended_well() -> None:
    edits, rng = Edits(CELL), np.random.default_rng(0)
    starts = CELL.random(rng, 400)
    chains = Policy(edits).draw(starts, rng, (0.1,))
    good = chains.ends[:, 2] == 1.0
    policy = fit_policy(edits, chains, good.astype(float))
    again = policy.draw(starts, rng, (0.1,)).ends[:, 2] == 1.0
    unlearned = Policy(edits).draw(starts, rng, (0.1,)).ends[:, 2] == 1.0
    assert again.mean() > unlearned.mean() + 0.15


@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e6])
def test_the_temperature_follows_the_scores_whatever_their_unit(unit: float) -> None:
    scores = np.r_[np.random.default_rng(0).normal(size=200), -np.inf]
    weights = tilted_weights(unit * scores, np.zeros(201), 0.15)
    assert 1 / (weights**2).sum() == pytest.approx(30, rel=0.02)
    assert weights[-1] == 0.0
    assert weights == pytest.approx(tilted_weights(scores, np.zeros(201), 0.15), rel=1e-3)
    assert tilted_weights(np.full(3, -np.inf), np.zeros(3), 0.15).tolist() == [0.0, 0.0, 0.0]


def test_a_chain_is_compared_with_those_of_the_same_start() -> None:
    scores = sibling_advantages(np.array([1.0, 3.0, 11.0, 13.0, -np.inf]), np.array([0, 0, 1, 1, 1]))
    assert scores.tolist() == pytest.approx([1 - 11 / 3, 3 - 11 / 3, 11 - 31 / 3, 13 - 31 / 3, -np.inf])


def test_pairs_of_measured_configurations_are_chains_towards_the_better_one() -> None:
    space = Encoding({"a": CategoricalDistribution(["x", "y", "z"]), "u": FloatDistribution(0, 1), "b": CategoricalDistribution([0, 1])})
    measured = np.array([[0.0, 0.2, 0.0], [2.0, 0.2, 1.0], [2.0, 0.7, 1.0]])
    edits = Edits(space)
    chains, regret = measured_pairs(edits, measured, np.array([0.3, 0.1, 0.0]), np.random.default_rng(0))
    made: dict[int, set[tuple[int, float]]] = {}
    for chain, action in zip(chains.steps.chain.tolist(), chains.steps.action.tolist(), strict=True):
        made.setdefault(chain, set())
        if action < len(edits.gene):
            made[chain].add((int(edits.gene[action]), float(edits.value[action])))
    found = {(tuple(chains.ends[i].tolist()), float(regret[i])): edit for i, edit in made.items()}
    assert sorted(map(sorted, made.values())) == sorted(map(sorted, [{(1, 1.0)}, {(0, 2.0), (2, 1.0)}, {(0, 2.0), (1, 1.0), (2, 1.0)}]))
    assert {key[1] for key in found} == {0.0, 0.1}


@pytest.mark.slow
def test_the_sampler_takes_it_repeats_itself_and_trains_no_graph_twice(search: Callable[..., optuna.Study]) -> None:
    def objective(trial: optuna.Trial) -> tuple[float, float]:
        operations = [trial.suggest_categorical(f"operation_{i}", ["conv", "pool", "absent"]) for i in range(3)]
        epochs = trial.suggest_int("epochs", 1, 9)
        return 0.5 + 0.1 * operations.count("conv") - 0.3 / epochs, epochs * (1.0 + operations.count("conv"))

    def key(params: Any) -> list[str]:
        return sorted(params.values())

    def points(seed: int) -> list[tuple[str, int]]:
        study = search(24, objective=objective, rungs=[1, 3, 9], proposal=LocalEdits(), key=key, seed=seed)
        return [(str(key({k: v for k, v in t.params.items() if k != "epochs"})), t.params["epochs"]) for t in study.trials]

    first = points(1)
    assert len(set(first)) == len(first)
    assert points(1) == first
    assert points(2) != first


@pytest.mark.slow
def test_it_serves_conditional_spaces_and_ordered_parameters(search: Callable[..., optuna.Study]) -> None:
    study = search(24, proposal=LocalEdits())
    assert isinstance(study.sampler, FreezeThawSampler)
    assert len({str(sorted(t.params.items())) for t in study.trials}) == 24
