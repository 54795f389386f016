from dataclasses import replace

import numpy as np
import pytest
import torch

from joulefront.search.space import RandomTrial
from joulefront.search.training.arrays import arrays
from joulefront.search.training.fit import fit
from joulefront.search.training.recipe import Recipe
from joulefront.search.training.splits_data import Excerpt, fold_tasks
from joulefront.search.training.table import table
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
