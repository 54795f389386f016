import numpy as np
import pytest

from joulefront.search.training.task import encode, infer_kind, target_scale


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
    with pytest.raises(ValueError, match="class 3, but only 3"):
        encode(np.array([0, 3]), classes=["a", "b", "c"])


def test_the_rarer_text_is_the_anomaly_and_the_greater_number():
    assert encode(np.array(["ok"] * 3 + ["broken"] * 2), kind="anomaly").classes == ("ok", "broken")
    assert encode(np.array(["a"] + ["z"] * 3), kind="anomaly").values.tolist() == [1, 0, 0, 0]
    assert encode(np.array([1, 1, 0]), kind="anomaly").values.tolist() == [1, 1, 0]


@pytest.mark.parametrize(
    ("values", "kind", "words"),
    [
        (["a", "a"], None, "only one class, 'a'"),
        (["a", "b"], "regression", "needs numbers"),
        ([1.0, float("nan")], "regression", "finite"),
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
