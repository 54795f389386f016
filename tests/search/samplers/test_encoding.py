import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from joulefront.search.samplers.encoding import Encoding, learn_encoding
from joulefront.search.samplers.proposals import mutate, propose

SPACE = {
    "act": CategoricalDistribution(["relu", "gelu", None]),
    "flag": CategoricalDistribution([False, True]),
    "lr": FloatDistribution(1e-5, 1e-1, log=True),
    "drop": FloatDistribution(0.0, 0.5, step=0.05),
    "width": IntDistribution(8, 512, log=True),
    "depth": IntDistribution(2, 10, step=2),
}


@pytest.mark.slow
@given(st.integers(0, 2**32 - 1))
def test_random_configurations_are_values_that_exist_and_come_back(seed: int) -> None:
    encoding = Encoding(SPACE)
    genes = encoding.random(np.random.default_rng(seed), 3)
    for row in genes:
        params = encoding.params(row)
        assert params.keys() == SPACE.keys()
        for name, distribution in SPACE.items():
            assert distribution._contains(distribution.to_internal_repr(params[name])), (name, params[name])
        assert encoding.params(encoding.genes(params)) == params


@pytest.mark.slow
def test_every_value_of_a_discrete_parameter_is_drawn_equally_often() -> None:
    encoding = Encoding({"depth": SPACE["depth"], "act": SPACE["act"]})
    rows = [encoding.params(row) for row in encoding.random(np.random.default_rng(0), 5000)]
    for value in (2, 4, 6, 8, 10):
        assert sum(row["depth"] == value for row in rows) == pytest.approx(1000, abs=150)
    for choice in ("relu", "gelu", None):
        assert sum(row["act"] == choice for row in rows) == pytest.approx(5000 / 3, abs=200)


def test_columns_are_one_hot_for_choices_and_share_a_group() -> None:
    encoding = Encoding(SPACE)
    columns = encoding.columns(encoding.random(np.random.default_rng(0), 10))
    assert columns.shape == (10, 8)
    assert (columns[:, :3].sum(1) == 1).all()
    assert encoding.groups.tolist() == [0, 0, 0, 1, 2, 3, 4, 5]
    assert encoding.numeric_columns.tolist() == [False] * 4 + [True] * 4


def test_conditional_parameters_are_learned_from_what_was_seen() -> None:
    space = {
        **SPACE,
        "momentum": FloatDistribution(0, 1),
        "opt": CategoricalDistribution(["sgd", "adam"]),
        "nesterov": CategoricalDistribution([0, 1]),
    }
    rng = np.random.default_rng(0)
    full = Encoding(space)
    seen = []
    for row in full.random(rng, 40):
        params = full.params(row)
        if params["opt"] == "adam":
            del params["momentum"]
            del params["nesterov"]
        elif params["nesterov"] == 0:
            del params["momentum"]
        seen.append(params)
    encoding = learn_encoding(seen, space)
    for row in encoding.random(rng, 100):
        params = encoding.params(row)
        assert ("nesterov" in params) == (params["opt"] == "sgd")
        assert ("momentum" in params) == (params["opt"] == "sgd" and params["nesterov"] == 1)
    assert np.isfinite(encoding.columns(encoding.random(rng, 50))).all()
    parents = encoding.random(rng, 20)
    for row in propose(encoding, parents, rng, 100):
        assert ("nesterov" in encoding.params(row)) == (encoding.params(row)["opt"] == "sgd")


def test_single_values_are_kept_out_of_the_search_but_in_the_parameters() -> None:
    encoding = learn_encoding([], {"a": IntDistribution(3, 3), "b": FloatDistribution(0, 1)})
    assert list(encoding.distributions) == ["b"]
    assert encoding.params(np.array([0.5])) == {"a": 3, "b": 0.5}


def test_a_single_value_that_only_some_configurations_have_is_left_out_of_the_others() -> None:
    single = {
        "flag": CategoricalDistribution([True]),
        "large": IntDistribution(10**18, 10**18),
        "layers": IntDistribution(3, 3, log=True),
        "rate": FloatDistribution(0.1, 0.1, log=True),
    }
    values = {"flag": True, "large": 10**18, "layers": 3, "rate": 0.1}
    sgd, adam = {"opt": "sgd", **values}, {"opt": "adam", "beta": 0.5}
    space = {"beta": FloatDistribution(0, 1), "opt": CategoricalDistribution(["sgd", "adam"]), **single}
    encoding = learn_encoding([sgd, adam, adam, sgd, {**adam, "beta": 0.7}], space)
    genes = encoding.random(np.random.default_rng(0), 30)
    rows = encoding.rows(genes)
    assert all(row == sgd if row["opt"] == "sgd" else row.keys() == adam.keys() for row in rows)
    assert len({row["opt"] for row in rows}) == 2
    assert np.isfinite(encoding.columns(genes)).all()
    np.testing.assert_array_equal([encoding.genes(row) for row in rows], genes)


def test_mutants_differ_from_their_parent_and_stay_in_the_space() -> None:
    encoding = Encoding(SPACE)
    rng = np.random.default_rng(0)
    parents = encoding.random(rng, 200)
    children = mutate(encoding, parents, rng, widths=(0.2,))
    changed = (children != parents).sum(1)
    assert (changed >= 1).mean() > 0.9  # a small step may snap back to the same whole number
    assert 1 <= changed.mean() < 3
    for row in children:
        for name, value in encoding.params(row).items():
            assert SPACE[name]._contains(SPACE[name].to_internal_repr(value))


def test_parameters_that_come_and_go_together_are_gated_by_what_controls_them_not_by_one_another() -> None:
    """All convnets seen so far share an activation: it explains the absence of the others as well as the family does, and exists less."""
    space = {
        "convnet.activation": CategoricalDistribution(["relu", "silu"]),
        "convnet.depth": IntDistribution(2, 4),
        "convnet.width": IntDistribution(8, 64, log=True),
        "family": CategoricalDistribution(["convnet", "timm"]),
        "lr": FloatDistribution(1e-3, 1e-1, log=True),
        "timm.model": CategoricalDistribution(["a", "b", "c"]),
    }
    seen = [
        {"family": "timm", "timm.model": "a", "lr": 0.01},
        {"family": "timm", "timm.model": "b", "lr": 0.02},
        {"family": "timm", "timm.model": "a", "lr": 0.05},
        {"family": "convnet", "convnet.activation": "silu", "convnet.depth": 4, "convnet.width": 13, "lr": 0.01},
        {"family": "convnet", "convnet.activation": "silu", "convnet.depth": 3, "convnet.width": 22, "lr": 0.03},
    ]
    encoding = learn_encoding(seen, space)
    for row in encoding.random(np.random.default_rng(0), 200):
        params = encoding.params(row)
        prefix = params["family"]
        wanted = {"family", "lr", *(name for name in space if name.startswith(f"{prefix}."))}
        assert params.keys() == wanted


@pytest.mark.slow
@given(st.integers(0, 2**32 - 1), st.integers(4, 12))
def test_configurations_drawn_from_a_learned_space_have_the_parameters_that_the_user_s_code_would_suggest(seed: int, count: int) -> None:
    space = {
        "a.x": FloatDistribution(0.0, 1.0),
        "a.y": CategoricalDistribution([1, 2]),
        "b.kind": CategoricalDistribution(["p", "q"]),
        "b.p": FloatDistribution(0.0, 1.0),
        "family": CategoricalDistribution(["a", "b"]),
    }
    truth = Encoding(space)
    rng = np.random.default_rng(seed)

    def drawn_by_user(params: dict) -> set[str]:
        if params["family"] == "a":
            return {"family", "a.x", "a.y"}
        return {"family", "b.kind"} | ({"b.p"} if params["b.kind"] == "p" else set())

    drawn = [truth.params(row) for row in truth.random(rng, count)]
    must = (
        [{"family": "a", "a.x": 0.5, "a.y": 1}] * 2
        + [{"family": "b", "b.kind": "p", "b.p": 0.1}] * 2
        + [{"family": "b", "b.kind": "q"}] * 2
    )
    seen = [*must, *({name: params[name] for name in drawn_by_user(params)} for params in drawn)]
    learned = learn_encoding(seen, space)
    for row in learned.random(rng, 30):
        params = learned.params(row)
        assert params.keys() == drawn_by_user(params)
