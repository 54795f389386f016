import warnings

import numpy as np
import pandas as pd
import pytest

from joulefront.search.training.table import prepare, table
from joulefront.search.training.table_encodings import (
    calendar_features,
    learn_calendar,
    learn_means,
    learn_words,
    mean_features,
    means_of_others,
)
from joulefront.search.training.table_features import feature_names

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def test_the_calendar_is_that_of_pandas():
    """Leap years and centuries, before 1970 as well."""
    random = np.random.default_rng(0)
    seconds = np.concatenate(
        [random.uniform(-5e9, 9e9, 500), pd.to_datetime(["2000-02-29", "1900-03-01", "2024-12-31"]).astype("int64") / 1e9]
    )
    seconds[-3:] = [pd.Timestamp(day).timestamp() for day in ("2000-02-29", "1900-03-01", "2024-12-31")]
    column = {"name": "when", **learn_calendar(seconds)}
    when = pd.to_datetime(np.floor(seconds), unit="s")
    assert column["calendar"] == ["year", "month", "weekday", "hour"]
    made = calendar_features(column, seconds)
    low, high = column["years"]
    np.testing.assert_allclose(made[:, 0], (when.year - low) / (high - low))
    np.testing.assert_allclose(made[:, 1], np.sin(2 * np.pi * (when.month - 1) / 12), atol=1e-6)
    np.testing.assert_allclose(made[:, 4], np.cos(2 * np.pi * when.day_of_week / 7), atol=1e-6)
    np.testing.assert_allclose(made[:, 5], np.sin(2 * np.pi * (when.hour + when.minute / 60) / 24), atol=1e-6)
    assert not calendar_features(column, np.array([np.nan])).any()


def test_dates_of_one_month_say_nothing_of_the_month():
    assert learn_calendar(np.arange(20) * 86_400.0)["calendar"] == ["weekday"]
    assert learn_calendar(np.array([5.0, 6.0])) == {}


def test_the_mean_of_a_level_is_drawn_towards_that_of_all():
    found = np.array(["a"] * 90 + ["b"] * 10 + ["c"], dtype=object)
    goals = np.array([1.0] * 90 + [0.0] * 11)[:, None]
    learnt = learn_means(found, goals)
    prior = 90 / 101
    assert learnt["means"]["a"][0] == pytest.approx((90 + 10 * prior) / 100, rel=1e-5)
    assert learnt["means"]["b"][0] == pytest.approx(10 * prior / 20, rel=1e-5)
    assert "c" not in learnt["means"]  # one row says nothing of another
    np.testing.assert_allclose(mean_features(learnt, np.array(["new", None, "c"], dtype=object))[:, 0], prior, rtol=1e-5)


def test_means_of_others_do_not_know_the_row_itself():
    """Of pure chance no feature of the training rows may tell the target; means with the row's own target would."""
    random = np.random.default_rng(0)
    found = np.array([f"l{k}" for k in random.integers(0, 300, 1200)], dtype=object)
    goals = random.integers(0, 2, (1200, 1)).astype(float)
    leaky = mean_features(learn_means(found, goals), found)[:, 0]
    honest = means_of_others(found, goals)[:, 0]
    assert np.corrcoef(leaky, goals[:, 0])[0, 1] > 0.3
    assert abs(np.corrcoef(honest, goals[:, 0])[0, 1]) < 0.1


def test_words_are_those_that_some_rows_share():
    texts = [f"{'Mr' if k % 2 else 'Miss'}. {k} x" for k in range(60)]
    assert learn_words(texts) == ["miss", "mr"]


def frame(n=600, seed=0):
    random = np.random.default_rng(seed)
    codes = [f"{k:05}" for k in random.integers(0, 80, n)]
    made = pd.DataFrame(
        {
            "amount": [f"{value:.2f}".replace(".", ",") for value in random.normal(100, 30, n)],
            "code": codes,
            "day": pd.date_range("2022-01-01", periods=n, freq="31h").strftime("%d.%m.%Y"),
            "note": [f"{random.choice(['late', 'paid', 'open'])} order {k}" for k in range(n)],
            "town": random.choice(["Ulm", "Paris", "?"], n),
        }
    )
    made["y"] = np.where([(int(code) % 7 < 3) != ("late" in note) for code, note in zip(codes, made["note"], strict=True)], "p", "q")
    return made


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_preparing_the_training_file_gives_what_validation_and_test_saw(tmp_path, seed):
    path = tmp_path / "t.csv"
    frame(seed=seed).to_csv(path, index=False, sep=";")
    task = table(path, "y", seed=seed)
    columns = {column["name"]: column for column in task.preprocessing["columns"]}
    assert "target" in columns["code"]
    assert "late" in columns["note"]["words"]
    assert columns["day"]["calendar"] == ["year", "month", "weekday"]
    made = prepare(task.preprocessing, path)
    assert made.shape[1] == len(feature_names(task.preprocessing["columns"])) == len(task.preprocessing["features"])
    whole = {row.tobytes() for row in made}
    for part in (task.validation, task.test):
        assert {row.tobytes() for row in np.ascontiguousarray(part.arrays()[0])} <= whole


@pytest.mark.slow
def test_codes_of_many_levels_tell_what_they_could_not_as_levels_alone():
    task = table(frame(2000), "y", drop="note")
    from sklearn.linear_model import LogisticRegression

    X, y = task.train.arrays()
    Xv, yv = task.validation.arrays()
    place = task.preprocessing["features"].index("code~target")
    with_means = LogisticRegression(max_iter=500).fit(X[:, [place]], y).score(Xv[:, [place]], yv)
    assert with_means > max(np.mean(yv), 1 - np.mean(yv)) + 0.03


@pytest.mark.slow
def test_values_never_seen_get_the_mean_of_all_without_an_error():
    task = table(frame(), "y")
    rows = frame(20, seed=9).assign(code="99999")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = prepare(task.preprocessing, rows)
    column = next(one for one in task.preprocessing["columns"] if one["name"] == "code")
    np.testing.assert_allclose(made[:, task.preprocessing["features"].index("code~target")], column["target"]["prior"][0], rtol=1e-5)


@pytest.mark.slow
def test_words_are_left_out_where_their_input_would_have_the_name_of_a_column_and_nul_is_no_letter():
    rows = frame(200).assign(**{"note words": 1.0, "nul": ["a\0", "b"] * 100})
    names = table(rows, "y").preprocessing["features"]
    assert not any(name.startswith("note~") for name in names)
    assert "nul=a" in names
