import pickle
import tracemalloc
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.sparse import csr_matrix
from sklearn.datasets import load_diabetes, load_digits, load_iris

from joulefront.search.training.arrays import arrays, channel_statistics, dataset, sklearn_set
from joulefront.search.training.fit import fit
from joulefront.search.training.recipe import Recipe
from joulefront.search.training.table import table

RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("shape", "expected"), [((40, 5), (5,)), ((40, 6, 7), (1, 6, 7)), ((40, 6, 7, 3), (3, 6, 7)), ((40, 3, 6, 7), (3, 6, 7))]
)
def test_inputs_of_every_layout_become_examples(shape, expected):
    task = arrays(RANDOM.normal(size=shape), RANDOM.integers(0, 2, 40))
    assert task.input_shape == expected
    inputs, _ = next(task.train.batches(64, seed=0))
    assert inputs.shape[1:] == expected
    torch.testing.assert_close(inputs.mean(), torch.tensor(0.0), atol=1e-4, rtol=0)


def test_channels_are_where_they_were():
    pixels = RANDOM.integers(0, 256, (10, 6, 7, 3)).astype(np.uint8)
    task = arrays(pixels, np.arange(10) % 2, test_share=0, validation=(pixels, np.arange(10) % 2))
    assert np.array_equal(task.train.inputs.numpy(), np.moveaxis(pixels, -1, 1))


def test_normalisation_is_learnt_from_the_training_split_alone():
    inputs, labels = RANDOM.normal(size=(20, 2)), np.arange(20) % 2
    far = (inputs + 1000, labels)
    task = arrays(inputs, labels, validation=far, test=far)
    assert task.preprocessing["mean"] == pytest.approx(inputs.astype(np.float32).mean(axis=0).tolist(), abs=1e-5)
    assert float(next(task.validation.batches(4))[0].min()) > 500


def test_statistics_equal_numpys():
    for array in (RANDOM.normal(size=(3000, 4)), RANDOM.integers(0, 256, (1500, 3, 4, 5)).astype(np.uint8)):
        scaled = array / 255 if array.dtype == np.uint8 else array
        axes = (0, *range(2, array.ndim))
        mean, deviation = channel_statistics(array)
        np.testing.assert_allclose(mean, scaled.mean(axis=axes))
        np.testing.assert_allclose(deviation, scaled.std(axis=axes))


@pytest.mark.slow
def test_statistics_of_large_examples_take_little_memory_beside_them():
    array = np.tile(np.arange(256, dtype=np.uint8), (12, 3, 1024, 4))
    tracemalloc.start()
    mean, deviation = channel_statistics(array)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.5 * array.size * 8  # two copies of all as float64 would be 2
    np.testing.assert_allclose([mean[1], deviation[1]], [0.5, np.arange(256).std() / 255], rtol=1e-9)


def test_classes_have_one_number_in_all_splits():
    task = arrays(np.eye(6), ["a", "b", "b", "a", "c", "c"], validation=(np.eye(6)[:1], ["c"]), test_share=0)
    assert task.classes == ("a", "b", "c")
    assert task.validation.targets.tolist() == [2]
    assert task.test is None


def test_scikit_learns_sets_become_tasks():
    digits = sklearn_set(load_digits(), name="digits")
    assert digits.input_shape == (1, 8, 8)
    assert digits.train.inputs.dtype == torch.uint8
    assert int(digits.train.inputs.max()) == 255
    assert digits.classes == tuple("0123456789")
    iris = sklearn_set(load_iris())
    assert iris.classes == ("setosa", "versicolor", "virginica")
    diabetes = sklearn_set(load_diabetes())
    assert diabetes.kind == "regression"
    assert diabetes.target_scale[0] == pytest.approx(152, abs=10)


class Own(torch.utils.data.Dataset):
    classes = ("low", "high")

    def __init__(self, item=None):
        self.item = item

    def __len__(self):
        return 24

    def __getitem__(self, index):
        return self.item or (torch.full((4,), float(index % 2)), index % 2)


def test_an_own_dataset_is_trained_on():
    task = dataset(Own(), Own())
    assert task.classes == ("low", "high")
    torch.manual_seed(0)
    assert fit(torch.nn.Linear(4, 2), task, Recipe(batch_size=8, learning_rate=0.1), epochs=5).quality["accuracy"] == 1.0


class Lost(Own):
    def __getitem__(self, index):
        if index == 17:
            raise KeyError("no such file")
        return super().__getitem__(index)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_example_that_an_own_dataset_cannot_read_is_named_by_its_number(workers):
    with pytest.raises(ValueError, match=r"the example 17 of validation must be readable, got KeyError: 'no such file' \(test_arrays"):
        list(dataset(Own(), Lost(), workers=workers).validation.batches(8))
    task = dataset(Own(), Own(), workers=workers)
    assert pickle.loads(pickle.dumps(task.train)).fingerprint() == task.train.fingerprint()


@pytest.mark.parametrize(
    ("item", "words"),
    [
        (None, r"the example 3 of train must be \(tensor, target\), got NoneType"),
        ((torch.zeros(3), 1), r"the example 3 of train must have the shape \(4,\) of the first, got \(3,\); resize"),
        ((torch.zeros(4), "high"), "the target 3 of train must be a class number below 2, got 'high'"),
        ((torch.zeros(4), torch.tensor([0, 1])), "the target 3 of train must be a class number below 2"),
    ],
)
def test_an_example_unlike_the_first_is_named(item, words):
    rows = [item if k == 3 else (torch.zeros(4), k % 2) for k in range(8)]
    with pytest.raises(ValueError, match=words):
        list(dataset(rows, rows[:2], classes=("low", "high")).train.batches(8))


def test_the_classes_of_a_dataset_without_an_end_of_its_own_are_counted(monkeypatch):
    monkeypatch.delattr(Own, "classes")
    assert dataset(Own(), Own()).classes == ("0", "1")


@pytest.mark.parametrize("item", [(np.zeros(3), 1), "text", (torch.zeros(3), 1, 2)])
def test_items_that_are_no_pairs_are_refused(item):
    with pytest.raises(ValueError, match=r"must be \(tensor, target\)"):
        dataset(Own(item), Own(item))


@pytest.mark.parametrize(
    ("inputs", "labels", "words"),
    [
        (np.zeros((4, 2)), [0, 1, 0], "same length, got 4 and 3"),
        (np.array([["a"], ["b"]]), [0, 1], "table"),
        (np.array([[np.nan], [1.0]]), [0, 1], "missing or infinite"),
        (np.zeros((2, 2, 2, 2, 2)), [0, 1], "shape"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(inputs, labels, words):
    with pytest.raises(ValueError, match=words):
        arrays(inputs, labels)


@pytest.mark.parametrize(("offset", "scale"), [(1.7e9, 1.0), (1e12, 1.0), (1.7e18, 1e9), (0.0, 1e-12), (-3e5, 1e-3)])
@pytest.mark.parametrize("kind", ["features", "images"])
def test_values_far_from_zero_or_tiny_keep_their_digits(offset, scale, kind):
    values = offset + scale * (np.arange(120.0) % 60)
    inputs = (
        np.stack([values, np.arange(120.0)], axis=1) if kind == "features" else np.broadcast_to(values[:, None, None], (120, 2, 2)).copy()
    )
    task = arrays(inputs, np.arange(120) % 2)
    first = np.concatenate([part.arrays()[0][:, 0] for part in (task.train, task.validation, task.test)])
    assert len(np.unique(first)) == 60
    assert task.train.arrays()[0][:, 0].std() == pytest.approx(1.0, abs=1e-3)


def test_square_images_may_have_any_number_of_channels_behind():
    labels = np.arange(40) % 2
    for channels in (2, 5):
        assert arrays(np.random.default_rng(0).normal(size=(40, 8, 8, channels)), labels).input_shape == (channels, 8, 8)


@pytest.mark.parametrize(("inputs", "words"), [(np.ma.masked_less(np.eye(40), 1), "masked"), (np.eye(40) * 1e200, "below 1e150")])
def test_inputs_whose_values_would_be_lost_are_refused(inputs, words):
    with pytest.raises(ValueError, match=words):
        arrays(inputs, np.arange(40) % 2)


@pytest.mark.parametrize(
    ("train", "validation", "words"),
    [
        ([0, 1], [], "validation must have examples, got a dataset of length 0"),
        ([], [0], "train must have examples"),
        ([0, 1_000_000], [0], "class numbers from 0, got 0 to 1000000; number the classes"),
        ([-1, 1, 0], [0], "got -1 to 1"),
        ([0.5, 1.5, 0.5], [0.5], "class numbers from 0, got 0.5 to 1.5"),
        (["b", "a"], ["a"], "class numbers from 0, got e.g. .*b"),
        ([None, None], [None], "class numbers from 0, got e.g. None"),
        ([[0.0, 1.0], [1.0, 0.0]], [[0.0, 1.0]], "class numbers from 0, got e.g. array"),
    ],
)
def test_own_datasets_that_no_model_could_learn_are_refused(train, validation, words):
    parts = [[(torch.zeros(3), label) for label in labels] for labels in (train, validation)]
    with pytest.raises(ValueError, match=words):
        dataset(*parts)


def test_a_class_number_of_validation_that_training_has_not_is_refused_by_name():
    parts = [[(torch.ones(3), label) for label in labels] for labels in ([0, 1, 0, 1], [0, 5])]
    with pytest.raises(ValueError, match="the target 1 of validation must be a class number below 2, got 5; number them from 0"):
        fit(torch.nn.Linear(3, 2), dataset(*parts), Recipe(threads=1, batch_size=2), epochs=1)


class Flow(torch.utils.data.IterableDataset):
    def __iter__(self):
        yield torch.zeros(3), 0


@pytest.mark.parametrize("made", [Flow(), (one for one in ()), None, torch.utils.data.DataLoader([0])])
def test_what_has_no_examples_by_number_is_no_dataset(made):
    own = [(torch.zeros(3), k % 2) for k in range(4)]
    with pytest.raises(ValueError, match=r"validation must have a length and examples by number, got .*; give a map-style Dataset"):
        dataset(own, made)


def test_splits_that_are_unlike_or_the_same_and_classes_that_never_occur_are_said():
    own, bytes_ = ([(torch.zeros(3, dtype=kind), 1 + k % 2) for k in range(4)] for kind in (torch.float32, torch.uint8))
    with pytest.raises(ValueError, match=r"uint8 or none, got torch.float32 and torch.uint8; convert one of them"):
        dataset(own, bytes_)
    with pytest.raises(ValueError, match=r"the example 0 of validation must be \(tensor, target\), got \['int', 'int'\]"):
        dataset(own, [(0, 0)])
    with pytest.warns(UserWarning, match="class '0'") as caught:
        dataset(own, own)
    assert "4 of 4 examples of validation are in train, too" in str(caught[0].message)


def test_sparse_inputs_objects_and_tensors_with_gradients_are_read_and_lost_ones_refused():
    inputs, labels = np.random.default_rng(0).integers(0, 9, (60, 3)).astype(np.float64), np.arange(60) % 2
    usual = arrays(inputs, labels)
    for other in (csr_matrix(inputs), inputs.astype(object), torch.tensor(inputs, requires_grad=True)):
        assert arrays(other, labels).train.fingerprint() == usual.train.fingerprint()
    with pytest.raises(ValueError, match=r"inputs must be numbers, as many in each example .*; cut or fill them"):
        arrays([[1.0, 2.0], [1.0]] * 30, labels)
    with pytest.raises(ValueError, match=r"inputs must be at most 2\*\*53, beyond which whole numbers are rounded"):
        arrays(inputs.astype(np.int64) + 2**60, labels)


WORDS = np.array(["cat", "dog"] * 50)
SPREAD = np.random.default_rng(1).normal(size=(100, 4))


def said_of(make, *arguments, **options):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        make(*arguments, **options)
    return " ".join(str(one.message) for one in caught)


@pytest.mark.parametrize(
    ("targets", "options", "words"),
    [
        (pd.Series(WORDS, index=range(99, -1, -1)), {}, r"order of the inputs, got their index in another order; give targets.loc\[inputs"),
        (WORDS, {"classes": ["cat", "owl"]}, "of the named classes, got 'dog'; name all, or leave out classes"),
        (WORDS, {"classes": ["cat", "cat"]}, "a list of different names"),
        (WORDS, {"classes": "cd"}, "a list of different names, got 'cd'"),
        (np.eye(2)[np.arange(100) % 2], {"classes": ["a"]}, "name the 2 labels of targets, got 1"),
        (WORDS, {"validation": (SPREAD, WORDS, np.ones(100))}, r"validation must be a pair \(inputs, targets\), got tuple"),
    ],
)
def test_targets_and_splits_that_would_be_taken_for_others_are_refused(targets, options, words):
    with pytest.raises(ValueError, match=words) as caught:
        arrays(pd.DataFrame(SPREAD), targets, **options)
    assert "\n" not in str(caught.value)


def test_names_of_classes_are_an_order_also_of_texts_and_of_whole_floats():
    task = arrays(SPREAD, np.where(np.arange(100) < 20, "cat", "dog"), classes=["dog", "cat"])
    assert task.classes == ("dog", "cat")
    assert task.train.targets.sum() == 14  # the cats
    assert arrays(SPREAD, np.arange(100) % 2.0, classes=["no", "yes"]).classes == ("no", "yes")


@pytest.mark.parametrize(
    ("inputs", "targets", "options", "words"),
    [
        (np.c_[SPREAD, np.arange(100) % 2], np.arange(100) % 2, {}, "inputs[:, 4] are the targets"),
        (np.repeat(SPREAD[:20], 5, axis=0), WORDS, {}, "of 16 validation examples are training examples again"),
        (np.lib.stride_tricks.sliding_window_view(np.random.default_rng(0).normal(size=119), 20), WORDS, {}, "windows of one series"),
        (SPREAD, WORDS, {"validation": (SPREAD[::-1] * 255 + 0.5, WORDS)}, "inputs of validation have 2"),
        (SPREAD, np.where(np.arange(100) < 50, "", WORDS), {}, "the class '' may stand for missing targets"),
        (SPREAD, np.where(np.arange(100) < 50, "Cat ", WORDS), {}, "the classes 'Cat ' and 'cat' differ in capitals"),
    ],
)
def test_what_makes_quality_look_too_good_or_nothing_learnt_gets_a_word(inputs, targets, options, words):
    assert words in said_of(arrays, inputs, targets, **options)


def test_inputs_of_further_kinds_are_read_and_usual_ones_get_no_word():
    usual = arrays(SPREAD, WORDS)
    rows = np.empty(100, dtype=object)
    rows[:] = list(SPREAD)
    assert arrays(rows, WORDS).train.fingerprint() == usual.train.fingerprint()
    assert said_of(arrays, SPREAD, WORDS) == said_of(arrays, SPREAD[:70], WORDS[:70], validation=(SPREAD[70:] * 2, WORDS[70:])) == ""
    with pytest.raises(ValueError, match="got float64 \\(100, 0\\)"):
        arrays(SPREAD[:, :0], WORDS)


class Named(torch.utils.data.TensorDataset):
    def __init__(self, *classes):
        super().__init__(torch.tensor(SPREAD), torch.arange(100) % 2)
        self.classes = classes


def test_parts_of_one_dataset_keep_its_classes_and_are_told_where_they_overlap():
    whole = Named("cat", "dog")
    first, last, both = (torch.utils.data.Subset(whole, range(*ends)) for ends in ((0, 60), (60, 100), (40, 100)))
    assert dataset(first, last).classes == ("cat", "dog")
    assert said_of(dataset, first, last) == ""
    assert "20 of 60 examples of validation are in train, too" in said_of(dataset, first, both)
    assert "40 of 100 examples of test are in validation, too" in said_of(dataset, first, last, whole)
    with pytest.raises(ValueError, match=r"classes of validation must be those of train in their order, got \['dog', 'cat'\]"):
        dataset(whole, Named("dog", "cat"))
    assert dataset(Named(), [(torch.zeros(4), 0)], classes=["a", "b"]).classes == ("a", "b")


def items(make, count=40):
    return [make(k) for k in range(count)]


SHARED = torch.zeros(4)
PLAIN = [(torch.tensor(row, dtype=torch.float32), k % 2) for k, row in enumerate(SPREAD[:40])]


@pytest.mark.parametrize(
    ("made", "options", "words"),
    [
        (items(lambda k: (torch.full((4,), torch.nan if k == 7 else k), k % 2)), {}, "the example 7 of train must be dense, finite"),
        (items(lambda k: (torch.tensor(1.0 * k), k % 2)), {}, "the example 0 of train must be .* of a dimension at least"),
        (items(lambda k: (torch.eye(3).to_sparse(), k % 2)), {}, "the example 0 of train must be dense"),
        (items(lambda k: (SHARED, k % 2)), {}, "tensors of their own, got the memory of the first again; return its clone"),
        (items(lambda k: (torch.ones(4), torch.tensor([k % 3, 2]))), {"kind": "multilabel"}, "target 0 of train must be 2 numbers 0 or 1"),
        (items(lambda k: (torch.ones(4), torch.ones(2))), {"kind": "regression"}, "one finite number, got tensor"),
        (items(lambda k: (torch.ones(4), torch.ones(8, 8))), {}, "class numbers from 0, got e.g. array"),
    ],
)
def test_examples_that_no_model_could_be_trained_on_are_refused_before_a_training(made, options, words):
    with pytest.raises(ValueError, match=words) as caught:
        list(dataset(made, PLAIN, **options).train.batches(8))
    assert "\n" not in str(caught.value)


def test_own_datasets_whose_values_are_on_another_scale_get_a_word():
    far = [(inputs / 255, label) for inputs, label in PLAIN]
    assert "inputs of validation have 0.0039" in said_of(dataset, PLAIN, far)
    values = [(inputs, inputs[:1]) for inputs, _ in PLAIN]
    assert said_of(dataset, values[:20], values[20:], kind="regression") == ""
    held = [(inputs.requires_grad_(), label) for inputs, label in PLAIN]
    assert dataset(held, held[:4]).train.fingerprint()


def test_what_is_no_array_and_no_set_of_scikit_learn_is_refused_with_what_to_do():
    inputs = RANDOM.normal(size=(20, 3))
    with pytest.raises(ValueError, match=r"one value for each example.*lists of unlike length; .*MultiLabelBinarizer"):
        arrays(inputs, [[1, 2], [3]] * 10)
    with pytest.raises(ValueError, match=r"must be a list or an array, .* got NoneType"):
        arrays(inputs, None)
    with pytest.raises(ValueError, match=r"what sklearn.datasets.load_.* returns, got ndarray without 'data'; arrays"):
        sklearn_set(inputs)
    with pytest.raises(ValueError, match=r"a file or a table, got tuple .*; arrays\(inputs, targets\) takes two arrays"):
        table(load_iris(return_X_y=True), "y")


def test_sets_of_scikit_learn_are_read_as_a_pair_and_as_a_frame():
    pair, bunch = sklearn_set(load_iris(return_X_y=True)), sklearn_set(load_iris())
    assert torch.equal(pair.train.inputs, bunch.train.inputs)
    assert table(load_iris(as_frame=True), "target", kind="classification").classes == ("0", "1", "2")


def test_tensors_with_gradients_and_of_bfloat16_are_taken_and_loaders_refused():
    targets = torch.arange(40).float().requires_grad_()
    assert arrays(torch.rand(40, 3, requires_grad=True).bfloat16(), targets, kind="regression").input_shape == (3,)
    whole = torch.utils.data.TensorDataset(torch.rand(8, 3), torch.arange(8) % 2)
    for given in (whole, torch.utils.data.DataLoader(whole)):
        with pytest.raises(ValueError, match=r"inputs must be an array, got .*; dataset\(train, validation\) takes Datasets"):
            arrays(given, [0, 1] * 4)
    with pytest.raises(ValueError, match=r"validation_share must be float, got '0.2' \(str\); write 0.2 without quotes"):
        arrays(np.zeros((8, 3)), [0, 1] * 4, validation_share="0.2")


def test_items_with_the_channels_behind_get_a_word():
    items = torch.utils.data.TensorDataset(torch.rand(8, 12, 10, 3), torch.arange(8) % 2)
    with pytest.warns(UserWarning, match=r"items of the shape \(12, 10, 3\) are taken for 12 channels of 10 x 3; .*permute\(2, 0, 1\)"):
        dataset(items, items)
