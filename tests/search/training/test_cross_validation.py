from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from joulefront.search.execution.worker import mapped
from joulefront.search.space import RandomTrial
from joulefront.search.study import Study
from joulefront.search.training.arrays import arrays
from joulefront.search.training.fit import fit
from joulefront.search.training.recipe import Recipe
from joulefront.search.training.splits_data import Excerpt, MemoryData, fold_tasks
from joulefront.search.training.table import table
from joulefront.search.training.table_encodings import learn_means, mean_features, means_of_others
from joulefront.spaces.boosting import Boosting


def rings(folds, n=200):
    random = np.random.default_rng(0)
    x = random.normal(size=(n, 3)).astype("float32")
    return replace(arrays(x, ((x**2).sum(1) > 2.4).astype(int), name="rings"), folds=folds)


def test_every_example_of_training_and_validation_validates_once():
    task = rings(4)
    parts = fold_tasks(task)
    rows = np.concatenate([part.validation.arrays()[0] for part in parts])
    both = np.concatenate([task.train.arrays()[0], task.validation.arrays()[0]])
    assert sorted(map(tuple, rows)) == sorted(map(tuple, both))
    for part in parts:
        assert len(part.train) + len(part.validation) == len(both)
        assert not {*map(tuple, part.train.arrays()[0])} & {*map(tuple, part.validation.arrays()[0])}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["network", "trees"])
def test_quality_is_that_of_all_folds_and_the_model_that_of_the_training_split(kind):
    task, seen = rings(3), []

    def build():
        torch.manual_seed(0)
        space = Boosting()
        network = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
        return network if kind == "network" else space.build(space.sample(RandomTrial(0)), task)

    from contextlib import contextmanager

    @contextmanager
    def phases(name, index):
        seen.append(name)
        yield

    recipe = Recipe(learning_rate=1e-2, batch_size=32, threads=1)
    folded = fit(build(), task, recipe, epochs=2, phases=phases)
    plain = fit(build(), rings(0), recipe, epochs=2)
    assert len(folded.scores[1]) == len(task.train) + len(task.validation)
    assert folded.quality["accuracy"] == pytest.approx(np.mean(folded.scores[0].argmax(1) == folded.scores[1]))
    rows = task.validation.arrays()[0]
    ours, theirs = (
        model(torch.from_numpy(rows)) if kind == "network" else model.predict_scores(rows) for model in (folded.model, plain.model)
    )
    assert np.array_equal(
        np.asarray(ours.detach() if kind == "network" else ours), np.asarray(theirs.detach() if kind == "network" else theirs)
    )
    assert seen.count("epoch") == 2  # what the folds train is validation
    longer = fit(build(), task, recipe, epochs=4, start=folded.checkpoint)
    whole = fit(build(), task, recipe, epochs=4)
    assert longer.quality["accuracy"] == pytest.approx(whole.quality["accuracy"], abs=0.02)


def test_no_rule_decides_on_the_way_by_the_quality_on_another_split():
    task, asked = rings(3), []
    trees = Boosting().build(Boosting().sample(RandomTrial(0)), task)
    fitted = fit(trees, task, Recipe(patience=9), epochs=3, check_at=(1, 2), should_continue=lambda point: not asked.append(point))
    assert [point.quality for point in (*asked, *fitted.curve[:-1])] == [None] * 5
    assert fitted.curve[-1].quality == fitted.quality


@pytest.mark.slow
def test_few_rows_of_a_table_are_cross_validated_where_chance_divides_them(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("a,b,y\n" + "".join(f"{k % 13},{k % 5},{'pq'[k % 13 > 5]}\n" for k in range(300)))
    assert table(path, "y").folds == 0
    assert table(path, "y", folds=None).folds == 5
    assert table(path, "y", folds=None, split="time:a").folds == 0
    with pytest.raises(ValueError, match="folds=3"):
        table(path, "y", folds=3, split="group:b")
    with pytest.raises(ValueError, match="at least 2"):
        rings(1)


def test_folds_need_the_data_in_memory():
    task = rings(2)
    with pytest.raises(ValueError, match="not in memory"):
        fold_tasks(replace(task, train=Excerpt(task.train, 50)))


def coded(kind, seed, informative=False, n=500, levels=40):
    """A table with one column of many codes, which say nothing of the target unless they are informative."""
    random = np.random.default_rng(seed)
    codes = random.integers(0, levels, n)
    value = random.normal(size=n) + (2.5 * random.normal(size=levels)[codes] if informative else 0)
    edges = {"two": [0], "three": [-0.5, 0.5]}
    target = value if kind == "regression" else np.array(["p", "q", "r"])[np.digitize(value, edges[kind])]
    frame = pd.DataFrame({"code": [f"lev{code}x" if code else None for code in codes], "y": target})
    return table(frame, "y", folds=5, seed=seed)


def fitted_to(task, seed=0):
    make = DecisionTreeRegressor if task.kind == "regression" else DecisionTreeClassifier
    return fit(make(min_samples_leaf=5, random_state=seed), task, Recipe(), epochs=1)


def area(fitted, kind):
    """The area under the curve of a class, or of values above the mean, on the average."""
    scores, targets = fitted.scores
    if kind == "regression":
        return roc_auc_score(targets > targets.mean(), scores.reshape(-1))
    return np.mean([roc_auc_score(targets == k, scores[:, k]) for k in range(scores.shape[1])])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", ["two", "three", "regression"])
def test_folds_see_nothing_of_the_targets_that_validate_them(kind):
    """Means of a code's targets must be learnt from a fold's training rows alone: else chance is predicted better than by chance."""
    found = [area(fitted_to(coded(kind, seed), seed), kind) for seed in range(12)]
    assert abs(np.mean(found) - 0.5) < 3 * np.std(found, ddof=1) / np.sqrt(len(found)), found


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(("kind", "name", "least"), [("two", "auc", 0.85), ("three", "accuracy", 0.65), ("regression", "r2", 0.6)])
def test_folds_know_what_codes_tell_of_targets(kind, name, least):
    task = coded(kind, 1, informative=True)
    found = fitted_to(task).quality[name]
    assert found > least
    assert found == pytest.approx(fitted_to(replace(task, folds=0)).quality[name], abs=0.15)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_fold_has_the_features_of_a_table_that_trains_on_its_rows_wherever_its_task_has_been():
    task = coded("regression", 0, informative=True)
    place = task.preprocessing["features"].index("code~target")
    for there in (task, mapped(Study("there", lambda: task, Boosting()), task).task()):
        for part in fold_tasks(there):
            (trained, goals), (validated, _) = part.train.arrays(), part.validation.arrays()
            codes = part.train.levels[place]
            means = goals[:, None].astype(float) / goals.std()
            texts = np.array([None if code < 0 else str(code) for code in codes], dtype=object)
            learnt = learn_means(texts, means - means.mean())
            other = np.array([None if code < 0 else str(code) for code in part.validation.levels[place]], dtype=object)
            np.testing.assert_allclose(validated[:, place], mean_features(learnt, other)[:, 0], atol=1e-4)
            np.testing.assert_allclose(trained[:, place], means_of_others(texts, means - means.mean())[:, 0], atol=1e-4)
    assert np.array_equal(task.train.only(np.arange(9)).levels[place], task.train.levels[place][:9])
    own = fold_tasks(replace(task, validation=MemoryData(task.validation.inputs, task.validation.targets)))
    assert len(own) == 5  # rows of the user's own, whose codes are unknown, count as missing ones
