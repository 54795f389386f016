import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulefront.search.training.task import split_indices


@given(st.lists(st.integers(0, 4), min_size=1, max_size=200), st.floats(0, 0.45), st.floats(0, 0.45), st.integers(0, 99), st.booleans())
def test_every_example_is_in_exactly_one_split(labels, validation, test, seed, stratified):
    labels = np.array(labels)
    parts = split_indices(labels, validation_share=validation, test_share=test, seed=seed, stratified=stratified)
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(labels)))
    if stratified:
        assert set(labels[parts[0]]) == set(labels)  # every class can be learnt


def test_classes_keep_their_shares():
    labels = np.repeat([0, 1, 2], [1000, 100, 10])
    train, validation, test = split_indices(labels, validation_share=0.2, test_share=0.1, seed=0)
    assert np.bincount(labels[validation]).tolist() == [200, 20, 2]
    assert np.bincount(labels[test]).tolist() == [100, 10, 1]
    assert np.bincount(labels[train]).tolist() == [700, 70, 7]


def test_the_seed_decides():
    labels = np.zeros(50)
    first, again, other = (split_indices(labels, validation_share=0.3, test_share=0, seed=seed)[1].tolist() for seed in (1, 1, 2))
    assert first == again != other


@pytest.mark.parametrize("shares", [(0.6, 0.4), (-0.1, 0.1), (1.0, 0.0)])
def test_shares_that_leave_nothing_are_refused(shares):
    with pytest.raises(ValueError, match="share"):
        split_indices(np.zeros(9), validation_share=shares[0], test_share=shares[1], seed=0)
