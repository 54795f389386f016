import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulefront.search.training.arrays import arrays
from joulefront.search.training.task import encode, infer_kind, split_indices, target_scale


@pytest.mark.slow
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


def test_of_two_examples_a_class_one_validates_where_no_class_has_more():
    train, validation, test = split_indices(np.array([0, 0, 1, 1, 2]), validation_share=0.15, test_share=0.15, seed=0)
    assert (len(train), len(validation), len(test)) == (3, 2, 0)
    train, validation, test = split_indices(np.array([0, 0, *[1] * 20]), validation_share=0.15, test_share=0.15, seed=0)
    assert {0, 1} <= set(train.tolist())


def test_the_seed_decides():
    labels = np.zeros(50)
    first, again, other = (split_indices(labels, validation_share=0.3, test_share=0, seed=seed)[1].tolist() for seed in (1, 1, 2))
    assert first == again != other


@pytest.mark.parametrize("shares", [(0.6, 0.4), (-0.1, 0.1), (1.0, 0.0)])
def test_shares_that_leave_nothing_are_refused(shares):
    with pytest.raises(ValueError, match="share"):
        split_indices(np.zeros(9), validation_share=shares[0], test_share=shares[1], seed=0)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["a", "b"], "classification"),
        ([True, False], "classification"),
        ([0, 1, 2], "classification"),
        ([0.0, 1.0], "classification"),
        (list(range(21)), "regression"),
        ([0.5, 1.0], "regression"),
        ([[0, 1], [1, 1]], "multilabel"),
    ],
    ids=str,
)
def test_the_kind_is_inferred(values, kind):
    assert infer_kind(np.array(values)) == kind


def test_text_labels_are_sorted_and_numbered():
    made = encode(np.array(["dog", "cat", "dog"]))
    assert made.classes == ("cat", "dog")
    assert made.values.tolist() == [1, 0, 1]
    assert made.values.dtype == np.int64


def test_numbers_keep_their_order_and_lose_their_decimals():
    assert encode(np.array([10.0, 9.0, 10.0])).classes == ("9", "10")


def test_given_names_keep_the_place_of_a_class_that_does_not_occur():
    made = encode(np.array([0, 2]), classes=["a", "b", "c"])
    assert made.classes == ("a", "b", "c")
    assert made.values.tolist() == [0, 2]
    with pytest.raises(ValueError, match="0 to 2, got 3"):
        encode(np.array([0, 3]), classes=["a", "b", "c"])


def test_the_rarer_text_is_the_anomaly_and_the_greater_number():
    assert encode(np.array(["ok"] * 3 + ["broken"] * 2), kind="anomaly").classes == ("ok", "broken")
    assert encode(np.array(["a"] + ["z"] * 3), kind="anomaly").values.tolist() == [1, 0, 0, 0]
    assert encode(np.array([1, 1, 0]), kind="anomaly").values.tolist() == [1, 1, 0]


@pytest.mark.parametrize(
    ("values", "kind", "words"),
    [
        (["a", "a"], None, "at least two classes, got only 'a'"),
        (["a", "b"], "regression", "must be numbers for kind='regression', got text"),
        ([1.0, float("nan")], "regression", "finite"),
        ([7.5, 7.5], "regression", "at least two values, got only 7.5; predict what varies"),
        ([[0, 2]], "multilabel", "rows"),
        (["a", "b", "c"], "anomaly", "two values"),
        ([[1.0, 2.0]], "classification", "one value for each"),
        ([1, 2], "ranking", "kind must be one of"),
    ],
)
def test_targets_that_do_not_fit_are_refused(values, kind, words):
    with pytest.raises(ValueError, match=words):
        encode(np.array(values), kind=kind)


def test_a_constant_target_has_scale_one():
    assert target_scale(np.array([3.0, 3.0])) == (3.0, 1.0)


def test_a_class_number_below_zero_is_named():
    with pytest.raises(ValueError, match="0 to 1, got -1"):
        encode(np.array([-1, 0, 1]), classes=["a", "b"])


@pytest.mark.parametrize(
    ("values", "kind", "words"),
    [
        (np.array(["a", "b", None, "a"], dtype=object), None, "got 1 missing values; leave out their examples"),
        (np.array([1.0, 2.5, np.nan, np.inf]), "regression", "got 2 that are not; leave these out"),
        (np.ma.masked_array([0, 1, 0], [False, True, False]), None, "masked"),
        (np.array(["2020-01-01", "2020-01-02"], dtype="datetime64[D]"), None, r"got datetime64\[D\]; convert them"),
        (np.array([1 + 1j, 2]), None, "got complex128"),
        (np.array([[0.5, 2.0], [1.0, 3.0]]), None, "give one column for values or classes"),
    ],
)
def test_targets_that_no_model_could_learn_are_refused_with_what_to_do(values, kind, words):
    with pytest.raises(ValueError, match=words):
        encode(values, kind=kind)


def test_a_column_is_read_as_its_values_bytes_as_text_and_one_label_a_row_is_said():
    assert encode(np.array([[0], [1], [0]])).kind == "classification"
    assert encode(np.array([[0.5], [1.25]])).kind == "regression"
    assert encode(np.array([b"no", b"yes"])).classes == ("no", "yes")
    with pytest.warns(UserWarning, match=r"one label in each row; if they are classes, give target\.argmax\(1\)"):
        assert encode(np.eye(3)).kind == "multilabel"


def test_a_task_holds_plain_numbers_and_refuses_other_types():
    task = arrays(np.eye(40), np.arange(40) % 2)
    made = replace(task, input_shape=(np.int64(40),), folds=np.int64(2), preprocessing={"mels": np.int64(8), "shape": [np.float32(0.5)]})
    assert json.dumps([made.input_shape, made.folds, made.preprocessing]) == '[[40], 2, {"mels": 8, "shape": [0.5]}]'
    with pytest.raises(ValueError, match=r"task.input_shape must be tuple\[int, ...\], got \('40',\)"):
        replace(task, input_shape=("40",))
