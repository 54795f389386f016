from __future__ import annotations

import numpy as np
import optuna
import pytest
from benchmarks.aloe import LocalEdits
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from joulefront.search.samplers import FreezeThawSampler
from joulefront.search.samplers.encoding import Array, Encoding, Gate
from joulefront.search.samplers.proposals import UNIFORM, Proposal, ProposalContext, mutate, propose

SPACE = Encoding(
    {
        "kind": CategoricalDistribution(["conv", "mlp"]),
        "layers": IntDistribution(1, 5),
        "lr": FloatDistribution(1e-4, 1.0, log=True),
        "norm": CategoricalDistribution(["batch", "layer", "none"]),
        "share": FloatDistribution(0.0, 1.0, step=0.25),
    },
    gates={4: Gate(0, frozenset({0.0}))},
)


def test_every_mutant_differs_from_its_parent_where_choices_exist() -> None:
    space = Encoding({f"c{i}": CategoricalDistribution(list("abc")) for i in range(6)})
    rng = np.random.default_rng(0)
    genes = space.random(rng, 500)
    assert (mutate(space, genes, rng) != genes).any(1).all()


def test_without_parents_everything_is_drawn_uniformly() -> None:
    drawn = propose(SPACE, np.zeros((0, 5)), np.random.default_rng(1), 4000)
    assert np.mean(drawn[:, 0]) == pytest.approx(0.5, abs=0.03)
    assert np.mean(drawn[:, 2]) == pytest.approx(0.5, abs=0.03)


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 12), st.sampled_from([UNIFORM, LocalEdits()]))
def test_whatever_is_scored_is_a_configuration_that_exists(seed: int, parents: int, proposal: Proposal) -> None:
    rng, scored = np.random.default_rng(seed), []

    def score(genes: Array) -> Array:
        scored.append(genes)
        return np.where(rng.random(len(genes)) < 0.2, -np.inf, rng.random(len(genes)))

    measured = SPACE.random(rng, parents)
    proposal.explore(ProposalContext(SPACE, measured, 60, 24, measured, rng.random(parents)), score, rng)
    genes = np.vstack(scored)
    np.testing.assert_array_equal(np.isnan(genes[:, 4]), genes[:, 0] == 0.0)
    for row in genes:
        params = SPACE.params(row)
        assert all(distribution._contains(distribution.to_internal_repr(params[name])) for name, distribution in _present(params))
        np.testing.assert_allclose(SPACE.genes(params), row, atol=1e-9)


def _present(params: dict[str, object]) -> list[tuple[str, object]]:
    return [(name, distribution) for name, distribution in SPACE.distributions.items() if name in params]


def test_a_space_of_which_all_has_failed_is_proposed_again_in_place_of_an_endless_search() -> None:
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=FreezeThawSampler([1, 3]))

    def objective(trial: optuna.Trial) -> tuple[float, float]:
        trial.suggest_categorical("kind", ["a", "b"])
        trial.suggest_int("epochs", 1, 3)
        raise ValueError("cannot be trained")

    study.optimize(objective, n_trials=5, catch=ValueError)
    assert len(study.trials) == 5
