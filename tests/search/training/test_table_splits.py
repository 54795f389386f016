import warnings

import numpy as np
import pandas as pd
import pytest
from helpers.table_files import said_of

from joulefront.search.training import table_splits
from joulefront.search.training.columns import readings
from joulefront.search.training.table import table
from joulefront.search.training.table_splits import alike_neighbours, split_column
from joulefront.search.training.task import encode


def recordings(seed=0, groups=12, length=40):
    random = np.random.default_rng(seed)
    frame = pd.DataFrame({f"s{k}": np.concatenate([random.normal(size=length).cumsum() for _ in range(groups)]) for k in range(4)})
    frame["who"] = np.repeat([f"r{k}" for k in range(groups)], length)
    frame["when"] = pd.date_range("2024-01-01", periods=len(frame), freq="min").astype(str)
    frame["y"] = np.where(frame["s0"] + random.normal(size=len(frame)) > 0, "on", "off")
    return frame


@pytest.mark.slow
def test_by_time_the_last_rows_test_and_those_before_them_validate():
    frame = recordings()
    frame["t"] = np.arange(len(frame), dtype=float)
    frame = frame.sample(frac=1, random_state=0).reset_index(drop=True)
    task, _ = said_of(frame, split="time:when", keep="t")
    column = next(one for one in task.preprocessing["columns"] if one["name"] == "t")
    place = task.preprocessing["features"].index("t")
    times = [np.asarray(part.arrays()[0][:, place]) * column["std"] + column["mean"] for part in (task.train, task.validation, task.test)]
    assert times[0].max() < times[1].min() <= times[1].max() < times[2].min()
    assert len(task.train) == pytest.approx(0.7 * len(frame), abs=5)


@pytest.mark.slow
def test_by_group_no_recording_lies_in_two_splits_and_the_column_is_no_feature():
    frame = recordings()
    frame["number"] = np.repeat(np.arange(12.0), 40)
    task, said = said_of(frame, split="group:who", keep="number")
    place = task.preprocessing["features"].index("number")
    found = [{*np.round(np.asarray(part.arrays()[0][:, place]), 4)} for part in (task.train, task.validation, task.test)]
    assert all(found)
    assert not found[0] & found[1]
    assert not (found[0] | found[1]) & found[2]
    assert not any(name.startswith("who") for name in task.preprocessing["features"])
    assert "follow one another" not in said


@pytest.mark.slow
@pytest.mark.parametrize(("count", "most"), [(3, 1_000_000), (4, 1_000_000), (40, 1_000_000), (40, 1)])
def test_groups_are_dealt_out_as_by_asking_each_time_which_split_has_none_yet(count, most, monkeypatch):
    monkeypatch.setattr(table_splits, "DEALT", most)
    random, shares = np.random.default_rng(count), (0.6, 0.2, 0.2)
    groups = np.array([f"g{k}" for k in [*range(count), *random.integers(0, count, 4 * count)]])
    targets = encode(random.normal(size=len(groups)), kind="regression", classes=None, name="y")
    places = np.unique(groups, return_inverse=True)[1]
    dealing, deals, answers = np.random.default_rng(0), [], targets.values[:, None]
    for _ in range(3 if most == 1 else 30):
        split_of = np.full(count, -1)
        order = dealing.permutation(count)
        for place, group in enumerate(order):
            lacks = [(share - (split_of[places] == k).mean()) / share for k, share in enumerate(shares)]
            without = [k for k in range(3) if k not in split_of]
            split_of[group] = max(without if count - place <= len(without) else range(3), key=lambda k: round(lacks[k], 9))
        rows = split_of[places]
        unlike = sum(
            abs((rows == k).mean() - share) + abs(answers[rows == k].mean() - answers.mean()) / answers.std()
            for k, share in enumerate(shares)
        )
        deals.append((round(unlike, 6), [*rows]))
    parts = table_splits._deal(groups, targets, shares, seed=0)
    found = [next(k for k in range(3) if row in parts[k]) for row in range(len(groups))]
    assert found in [rows for unlike, rows in deals if unlike == min(deals)[0]]


def test_rows_that_follow_one_another_get_a_warning_with_both_options():
    _, said = said_of(recordings())
    assert "rows that follow one another are alike" in said
    assert "--split time:when or --split group:who" in said


@pytest.mark.parametrize("order", ["shuffled", "sorted by a column", "sorted by the target"])
def test_other_tables_get_none(order):
    random = np.random.default_rng(1)
    frame = pd.DataFrame(random.normal(size=(400, 6)), columns=list("abcdef"))
    frame["y"] = frame["a"] + frame["b"] + 0.1 * random.normal(size=400)
    frame["b"] += frame["y"]
    frame["c"] += frame["y"]
    frame = frame if order == "shuffled" else frame.sort_values("a" if order == "sorted by a column" else "y", ignore_index=True)
    assert "follow one another" not in said_of(frame)[1]


def said_of_sales(*, order="by date", target="amounts", count=200):
    """What is said of a table of days, shops drawn by chance and sales like those of the day before."""
    random = np.random.default_rng(2)
    sales = 1000 + random.normal(0, 20, count).cumsum()
    frame = pd.DataFrame(
        {"Datum": pd.date_range("2022-01-01", periods=count).strftime("%d.%m.%Y"), "shop": random.choice(["a", "b"], count)}
    )
    high = np.where(np.arange(count) // 20 % 2, "high", "low")
    frame["y"] = {"amounts": sales, "classes": high, "drawn": random.permutation(sales)}[target]
    frame = frame if order == "by date" else frame.sample(frac=1, random_state=0) if order == "shuffled" else frame.sort_values("y")
    how = readings(frame.drop(columns="y"))
    targets = encode(frame["y"].to_numpy(), kind="classification" if target == "classes" else "regression")
    return alike_neighbours(frame.drop(columns="y").reset_index(drop=True), how, targets)


@pytest.mark.parametrize("order", ["by date", "shuffled", "by target"])
@pytest.mark.parametrize("target", ["amounts", "classes"])
def test_a_target_that_goes_on_in_time_gets_a_warning_with_its_date(order, target):
    said = said_of_sales(order=order, target=target)
    assert said.startswith("the target changes little from one 'Datum' to the next: at random, training rows have their neighbours")
    assert "--split time:Datum keeps them apart" in said


@pytest.mark.parametrize("order", ["by date", "shuffled", "by target"])
def test_a_target_that_is_drawn_anew_each_day_or_on_few_days_gets_none(order):
    assert said_of_sales(order=order, target="drawn") is None
    assert said_of_sales(order=order, count=45) is None


def test_a_column_of_nothing_but_gaps_is_no_neighbour_and_no_warning_of_numpy():
    frame = pd.DataFrame({"gone": np.full(200, np.nan), "size": np.random.default_rng(0).random(200)})
    targets = encode(np.random.default_rng(1).random(200), kind="regression")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert alike_neighbours(frame, {}, targets) is None


def test_a_year_in_numbers_is_a_time_and_what_comes_again_each_day_or_year_is_none():
    days, sales = np.arange(200), 1000 + np.random.default_rng(0).normal(0, 20, 200).cumsum()
    targets = encode(sales, kind="regression")
    assert "--split time:year" in alike_neighbours(pd.DataFrame({"year": days}), {}, targets)
    assert alike_neighbours(pd.DataFrame({"size": days}), {}, targets) is None
    again, seasonal = np.tile(np.arange(100), 2), encode(np.tile(sales[:100], 2), kind="regression")
    assert alike_neighbours(pd.DataFrame({"day": again}), {}, seasonal) is None
    hours = pd.DataFrame({"clock": [f"{k // 60:02}:{k % 60:02}" for k in 10 * again]})
    assert alike_neighbours(hours, readings(hours), seasonal) is None


def test_several_rows_of_a_day_count_together_if_the_days_differ_more_than_the_rows_of_one():
    days, random = np.repeat(np.arange(100), 2), np.random.default_rng(0)
    frame = pd.DataFrame({"when": pd.Timestamp("2022-01-01") + pd.to_timedelta(days, unit="D")})
    level = random.normal(0, 20, 100).cumsum()[days]
    for shops, warned in ((10, True), (1000, False)):
        said = alike_neighbours(frame, {}, encode(level + shops * (np.arange(200) % 2), kind="regression"))
        assert (said is not None) is warned


@pytest.mark.parametrize("split", ["time", "when", "group:", "kfold:who", "random:who"])
def test_another_split_is_refused_with_those_there_are(split):
    with pytest.raises(ValueError, match=r"random, time:COLUMN or group:COLUMN"):
        split_column(split)


@pytest.mark.parametrize(
    ("split", "rule"),
    [
        ("time:who", "dates or numbers"),
        ("group:one", "different values"),
        ("group:y", "the target"),
        ("time:nothing", "no column 'nothing'"),
    ],
)
def test_a_column_that_cannot_divide_is_refused(split, rule):
    with pytest.raises(ValueError, match=rule):
        said_of(recordings().assign(one="a"), split=split)


def test_a_column_that_tells_the_target_almost_alone_is_named_with_its_remedies():
    random = np.random.default_rng(0)
    frame = pd.DataFrame({"a": random.normal(size=300), "y": random.choice(["p", "q"], 300)})
    frame["paid back"] = np.where(frame["y"] == "p", random.uniform(0, 1, 300), random.uniform(2, 3, 300))
    _, said = said_of(frame)
    assert "the column 'paid back' tells the target almost alone (balanced accuracy 1.000)" in said
    assert "--drop 'paid back'" in said
    assert "tells the target" not in said_of(frame, keep="paid back")[1]
    assert "tells the target" not in said_of(frame.drop(columns="paid back"))[1]


@pytest.mark.slow
def test_a_column_of_codes_divides_by_time_and_too_many_folds_are_refused_at_the_start():
    days = pd.date_range("2024-01-01", periods=40).strftime("%Y-%m-%d")
    frame = pd.DataFrame({"day": days, "x": np.arange(40) % 7, "y": ["p", "q"] * 20})
    assert table(frame, "y", split="time:day", categorical="day").test.raw.rows.min() == 34
    with pytest.raises(ValueError, match="at least 2 and at most 20 parts, got 500"):
        table(frame, "y", folds=500)
    with pytest.raises(ValueError, match="folds must be at most the 10 training and validation rows, got 20"):
        table(frame.head(12), "y", folds=20)
    with pytest.raises(ValueError, match="max_levels must be at least 1, got -5"):
        table(frame, "y", max_levels=-5)
    with pytest.raises(ValueError, match="must be 0 and 1, got texts: 'p', 'q'"):
        table(frame, ["y"])


@pytest.mark.slow
def test_rows_of_one_time_lie_in_one_split_and_those_without_train_with_a_word():
    frame = recordings()
    day = np.repeat(np.arange(len(frame) // 16), 16)
    frame["day"] = pd.Series(pd.date_range("2024-01-01", periods=len(frame) // 16)[day]).astype(str)
    frame.loc[::9, "day"] = ""
    task, said = said_of(frame, split="time:day")
    days = [{*frame["day"].iloc[part.raw.rows]} for part in (task.train, task.validation, task.test)]
    assert max(days[0]) < min(days[1]) <= max(days[1]) < min(days[2])
    assert min(days[1]) > ""
    gaps = int((frame["day"] == "").sum())
    assert f"{gaps} of {len(frame)} rows have no 'day', by which they are split: they train" in said
    with_time = len(frame) - gaps
    assert len(task.test) == pytest.approx(0.15 * with_time, abs=16)
    _, said = said_of(frame, split="group:day")
    assert f"{gaps} of {len(frame)} rows have no 'day', by which they are split: they are one group" in said


@pytest.mark.parametrize("days", [["2024-01-01"] * 60, ["low", "high", "mid"] * 20, [""] * 60, ["2024-01-01", "2024-01-02"] * 30])
def test_a_column_that_cannot_order_rows_is_refused(days):
    frame = pd.DataFrame({"x": np.arange(60.0) % 7, "day": days, "y": ["p", "q"] * 30})
    with pytest.raises(ValueError, match="--split time:day needs at least 3 dates or numbers"):
        table(frame, "y", split="time:day")


def test_a_refused_split_shows_the_values_as_they_stand_in_the_file():
    frame = pd.DataFrame({"x": np.arange(60.0) % 7, "year": [2020.0, np.nan] * 30, "sent": ["yes", "no"] * 30, "y": ["p", "q", "q"] * 20})
    for split, shown in (("group:year", "'2020', nothing"), ("time:year", "'2020', nothing"), ("group:sent", "'yes', 'no'")):
        with pytest.raises(ValueError, match=rf"in that column, got {shown}$"):
            table(frame, "y", split=split)
