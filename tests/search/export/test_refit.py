"""The picked model is trained again on all but the test split, and its price and worth are said."""

from dataclasses import replace

import numpy as np
import pytest

from joulefront.search.export.refit import Refit, refit


def test_a_refit_learns_from_all_but_the_test_split_which_checks_it(make, tmp_path):
    ready = make("forest", "rows")
    given = {name: ready.arguments[name] for name in ("study", "task", "weights")}
    trial, task, weights, done = refit(ready.arguments["trial"], **given, folder=tmp_path)
    old = ready.task
    assert len(task.train) == done.examples == len(old.train) + len(old.validation)
    assert np.array_equal(task.validation.arrays()[0], old.test.arrays()[0])
    assert weights.is_file()
    assert trial.artifact_sha256 != ready.arguments["trial"].artifact_sha256
    assert 0 < done.before <= 1
    assert done.after == pytest.approx(trial.quality["accuracy"])
    assert done.joules is None or done.joules > 0


def test_without_a_test_split_it_is_refused(make, tmp_path):
    ready = make("forest", "rows")
    with pytest.raises(ValueError, match="--refit needs a test split"):
        refit(ready.arguments["trial"], study=ready.study, task=replace(ready.task, test=None), weights=ready.weights, folder=tmp_path)


@pytest.mark.parametrize(("after", "said"), [(0.95, "tie"), (1.0, "better"), (0.7, "worse")])
def test_what_noise_could_have_made_is_called_a_tie(after, said):
    assert said in Refit(700, 200, "accuracy", 0.94, after, 3.6).to_text()
    assert "of energy" in Refit(700, 200, "r2", 0.94, 0.95, None).to_text()
