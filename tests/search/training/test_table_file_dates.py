"""Dates, times and durations in tables are told from numbers and texts, however they are written."""

from contextlib import suppress
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from helpers.table_files import ROWS, label, of, parts_of, read, said_of_new, write

from joulefront.search.training import columns, table_encodings
from joulefront.search.training.table import prepare, table


def test_a_day_at_the_end_of_time_is_missing(tmp_path):
    days = [f"{'9999-12-31' if k % 7 == 0 else f'2024-01-{1 + k % 28:02}'}" for k in range(ROWS)]
    task, _ = read(write(tmp_path / "t.csv", [f"{day},{label(k)}" for k, day in enumerate(days)]))
    assert task.preprocessing["features"][:2] == ["a", "a?"]
    assert of(task, "a")["std"] < 28 * 86_400


FORMS = (
    "%Y-%m-%d",
    "%Y-%m-%dT%H:%M:%SZ",
    "%Y-%m-%d %H:%M:%S",
    "%d.%m.%Y",
    "%m/%d/%Y",
    "%d/%m/%Y %H:%M",
    "%d %b %Y",
    "%B %d, %Y",
    "%Y/%m/%d",
    "%Y%m%d",
    "%Y%m%dT%H%M%SZ",
    "%a, %d %b %Y",
    "%a, %d %b %Y %H:%M:%S +0000",
    "%d.%m.%Y %H:%M Uhr",
    "%d/%b/%Y:%H:%M:%S +0000",
)


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_dates_are_seconds_however_they_are_written(tmp_path, form):
    days = pd.date_range("2023-12-20", periods=ROWS, freq="25h")
    path = write(tmp_path / "t.csv", [f'"{day.strftime(form)}",{label(k)}' for k, day in enumerate(days)])
    task, said = read(path)
    assert task.preprocessing["features"][0] == "a"
    assert "a@month sin" in task.preprocessing["features"]
    assert "reverse" not in said
    made = prepare(task.preprocessing, pd.read_csv(path))[:, 0]
    whole = np.array([pd.to_datetime(day.strftime(form), format=form).timestamp() for day in days])
    np.testing.assert_allclose(made * of(task, "a")["std"] + of(task, "a")["mean"], whole, rtol=1e-6)
    np.testing.assert_array_equal(made, prepare(task.preprocessing, path)[:, 0])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("form", "months"),
    [
        ("{day}. {month} {year}", "Januar Februar März April Mai Juni Juli August September Oktober November Dezember"),
        ("Mo., {day}. {month} {year}", "Jan. Feb. Mrz. Apr. Mai Jun. Jul. Aug. Sep. Okt. Nov. Dez."),
        ("{day} {month} {year}", "janvier février mars avril mai juin juillet août septembre octobre novembre décembre"),
        ("{day} de {month} de {year}", "enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre diciembre"),
        ("{day}th of {month} {year}", "January February March April May June July August September October November December"),
        ("{day}-{month}-{year}", "gen feb mar apr mag giu lug ago set ott nov dic"),
        ("{day} {month} {year}", "января февраля марта апреля мая июня июля августа сентября октября ноября декабря"),
        ("{year}年{month}月{day}日", "1 2 3 4 5 6 7 8 9 10 11 12"),
    ],
)
def test_months_are_read_in_other_languages(tmp_path, form, months):
    days = pd.date_range("2023-01-05", periods=ROWS, freq="6D")
    written = [form.format(day=day.day, month=months.split()[day.month - 1], year=day.year) for day in days]
    path = write(tmp_path / "t.csv", [f'"{text}",{label(k)}' for k, text in enumerate(written)])
    task, said = read(path)
    found = prepare(task.preprocessing, path)[:, 0] * of(task, "a")["std"] + of(task, "a")["mean"]
    np.testing.assert_allclose(found, (days - pd.Timestamp(0)).total_seconds(), rtol=1e-6)
    assert said == ""


def test_dates_that_were_stored_as_such_are_read_from_text_later(tmp_path):
    days = pd.date_range("2023-12-20", periods=ROWS, freq="25h")
    frame = pd.DataFrame({"a": days, "y": [label(k) for k in range(ROWS)]})
    frame.to_parquet(tmp_path / "t.parquet")
    frame.to_csv(tmp_path / "later.csv", index=False)
    how = table(tmp_path / "t.parquet", "y").preprocessing
    np.testing.assert_array_equal(prepare(how, tmp_path / "later.csv"), prepare(how, tmp_path / "t.parquet"))


@pytest.mark.slow
def test_dates_as_the_target_are_classes_with_a_hint_or_days(tmp_path):
    days = pd.date_range("2024-01-01", periods=ROWS, freq="D")
    frame = pd.DataFrame({"a": np.arange(ROWS) % 7 + 0.5, "y": days})
    path = tmp_path / "t.csv"
    frame.to_csv(path, index=False)
    with pytest.warns(UserWarning, match=rf"'y' is dates, taken for {ROWS} classes; --kind regression"), suppress(ValueError):
        table(path, "y")
    mean, deviation = table(path, "y", kind="regression").target_scale
    assert abs(mean - (days - pd.Timestamp(0)).days.to_numpy().mean()) < deviation


@pytest.mark.slow
def test_dates_that_could_be_the_reverse_are_said(tmp_path):
    _, said = read(write(tmp_path / "t.csv", [f"{1 + k % 12:02}/{1 + k % 11:02}/2024,{label(k)}" for k in range(ROWS)]))
    assert "'a' is read as month/day, and could be the reverse" in said


def test_dates_in_several_forms_and_classes_that_differ_in_capitals_are_said(tmp_path):
    days = [f"2024-{k % 9 + 1:02}-1{k % 9}" if k % 2 else f"1{k % 9}/0{k % 9 + 1}/2024" for k in range(ROWS)]
    _, said = read(write(tmp_path / "t.csv", [f"{days[k]},{k % 7},{'Big' if k % 4 else 'big'}" for k in range(ROWS)], header="d,a,y"))
    assert "'d' is dates in 2 forms, e.g. " in said
    assert "differ in capitals or blanks only, and are two classes" in said


TIMES = {
    "quarters": ([f"{2019 + k % 6}Q{1 + k % 4}" for k in range(ROWS)], "date"),
    "quarters before the year": ([f"Q{1 + k % 4} {2019 + k % 6}" for k in range(ROWS)], "date"),
    "weeks": ([f"2024-W{1 + k % 52:02}" for k in range(ROWS)], "date"),
    "hours with points": ([f"{1 + k % 12}:{k % 60:02} {'a.m.' if k % 2 else 'p.m.'}" for k in range(ROWS)], "date"),
    "beyond a day": ([f"{k}:{7 * k % 60:02}:00" for k in range(ROWS)], "duration"),
    "units of time": ([f"{k % 5}h {7 * k % 60}m" for k in range(ROWS)], "duration"),
    "as in ISO 8601": ([f"PT{k % 5}H{7 * k % 60}M" for k in range(ROWS)], "duration"),
    "with days": ([f"{k % 5} days {k % 24:02}:{7 * k % 60:02}:00" for k in range(ROWS)], "duration"),
}


@pytest.mark.parametrize(("cells", "kind"), TIMES.values(), ids=TIMES)
def test_quarters_weeks_and_durations_are_times_in_training_and_in_prediction(tmp_path, cells, kind):
    task, said = read(write(tmp_path / "t.csv", [f"{cell},{k % 7},{label(k)}" for k, cell in enumerate(cells)], header="t,a,y"))
    assert (of(task, "t")["type"], of(task, "t")["reading"], said) == ("numeric", kind, "")
    whole = np.concatenate([part.inputs for part in parts_of(task)])
    np.testing.assert_allclose(np.sort(prepare(task.preprocessing, tmp_path / "t.csv"), axis=0), np.sort(whole, axis=0), atol=1e-6)


def test_durations_are_seconds(tmp_path):
    cells = ["26:15:00", "1 day 02:15:00", "26h 15m", "P1DT2H15M", "1d 2h 15m"]
    rows = [f"{cells[k % 5] if k % 2 else '1:00:00'},{label(k)}" for k in range(ROWS)]
    mean = of(read(write(tmp_path / "t.csv", rows))[0], "a")["mean"]
    assert mean == pytest.approx((94_500 + 3_600) / 2, rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("cells", [["1.0.0", "2.1.3", "1.4.2"], ["10.0.0.1", "10.0.3.7", "10.1.2.2"], ['"52.10, 13.40"', '"48.20, 9.10"']])
def test_versions_addresses_and_places_are_called_no_dates(tmp_path, cells):
    rows = [f"{cells[k % len(cells)]},{k % 7},{label(k // 3)}" for k in range(ROWS)]
    assert read(write(tmp_path / "t.csv", rows, header="t,a,y"))[1] == ""


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        (
            [f"{1500 + k}-03-04" for k in range(ROWS)],
            "it has days beyond the years 1678 to 2261, e.g. '1500-03-04'; write these as numbers",
        ),
        ([f"04.03.{2300 + k}" for k in range(ROWS)], "days beyond the years 1678 to 2261, e.g. '04.03.2300'"),
        ([f"2024-03-{1 + k % 28:02}" if k != 7 else "TBD" for k in range(ROWS)], "is dates, among which 'TBD' counts as missing"),
        (
            [f"{k % 11}/10" for k in range(ROWS)],
            "its values hold numbers in a form that is not read, e.g. '0/10'; write numbers alone",
        ),
        ([f"{120 + k % 17}/{80 + k % 9}" for k in range(ROWS)], "hold numbers in a form that is not read, e.g. '120/80'"),
    ],
)
def test_dates_beyond_those_that_are_read_and_pairs_of_numbers_are_said(tmp_path, cells, words):
    assert words in read(write(tmp_path / "t.csv", [f"{cell},{k % 7},{label(k)}" for k, cell in enumerate(cells)], header="t,a,y"))[1]


def test_minutes_and_seconds_beside_hours_are_no_hours_in_training_and_for_a_row_alone(tmp_path):
    """Of a race: 59:30 is faster than 1:02:30; a time of day with and without seconds stays one."""
    cells = [f"{40 + k // 3}:{k:02}" if k < 50 else f"1:{k % 60:02}:10" for k in range(ROWS)]
    task, _ = read(write(tmp_path / "t.csv", [f"{cell},{label(k)}" for k, cell in enumerate(cells)]))
    made = (
        prepare(task.preprocessing, write(tmp_path / "n.csv", ["59:30"], header="a"))[0, 0] * of(task, "a")["std"] + of(task, "a")["mean"]
    )
    assert made == pytest.approx(59 * 60 + 30, rel=1e-5)
    cells = [f"{k % 24}:{k % 60:02}" + ":10" * (k % 2) for k in range(ROWS)]
    assert 30_000 < of(read(write(tmp_path / "d.csv", [f"{cell},{label(k)}" for k, cell in enumerate(cells)]))[0], "a")["mean"] < 60_000


TIMES = pd.date_range("2024-01-01", periods=ROWS, freq="7h")


@pytest.mark.parametrize("suffix", ["", "+02:00", " CET"])
def test_new_times_with_a_zone_where_training_had_none_are_said_and_the_reverse(tmp_path, suffix):
    task, _ = read(write(tmp_path / "t.csv", [f"{time}{suffix},{label(k)}" for k, time in enumerate(TIMES)]))
    assert of(task, "a")["zone"] is bool(suffix)
    plain, utc, paris = (pd.DataFrame({"a": [f"{time}{one}" for time in TIMES]}) for one in ("", "Z", "+01:00"))
    typed, typed_local = pd.DataFrame({"a": TIMES}), pd.DataFrame({"a": TIMES.tz_localize("Europe/Paris")})
    written = "60 values of 'a' were written " + ("without a zone, which training had" if suffix else "with a zone, which training had not")
    for new in (plain, typed) if suffix else (paris, typed_local):
        assert written in said_of_new(task, new)[1]
    for new in (utc, *((paris, typed_local) if suffix else (plain, typed))):
        assert said_of_new(task, new)[1] == ""
    older = task.preprocessing | {"columns": [{key: value for key, value in of(task, "a").items() if key != "zone"}]}
    assert said_of_new(SimpleNamespace(preprocessing=older), typed)[1] == ""


def test_times_of_which_some_have_a_zone_get_a_word_and_days_beside_them_none(tmp_path):
    rows = [f"{time}{'+02:00' if k % 2 else ''},{label(k)}" for k, time in enumerate(TIMES)]
    task, said = read(write(tmp_path / "t.csv", rows))
    assert "some have no zone, as '2024-01-01 00:00:00' beside '2024-01-01 07:00:00+02:00', and are taken for UTC" in said
    assert "zone" not in of(task, "a")
    rows = [f"{time if k % 2 else time.date()}{'Z' if k % 2 else ''},{label(k)}" for k, time in enumerate(TIMES)]
    assert read(write(tmp_path / "d.csv", rows))[1] == ""


def test_texts_of_pages_are_not_searched_for_dates_and_are_missing_as_a_whole_among_numbers(monkeypatch):
    seen, english = [], table_encodings.in_english
    monkeypatch.setattr(table_encodings, "in_english", lambda text: [seen.append(len(text)), english(text)][1])
    pages = [f"{k} pages of March " * 90 for k in range(200)]
    assert columns.infer(np.array(pages, dtype=object)).kind == "text"
    assert max(seen) < 200
    seen.clear()
    for text in ("%Y-%m-%d %H:%M", "%Y-%m-%d"):
        assert columns.infer(TIMES.strftime(text).to_numpy(dtype=object)) == columns.Reading("date", "ISO8601")
    assert columns.infer(np.array(["words alone", "other words", "5 March 2024"], dtype=object)).kind == "text"
    assert not seen
    found = columns.infer(np.array([*map(str, range(60)), pages[0].strip()], dtype=object))
    assert (found.kind, found.gaps) == ("number", (pages[0].strip(),))


def test_numbers_of_many_digits_are_numbers():
    values = np.array([f"0.{'1' * 140}{digit}" for digit in range(9)], dtype=object)
    assert (columns.infer(values).kind, columns.infer(values).note) == ("number", None)
