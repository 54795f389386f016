"""What the cells of a table mean: numbers, codes, classes, names of rows and missing values."""

from shlex import quote

import numpy as np
import pandas as pd
import pytest
from helpers.table_files import NUMBERS, PLAIN, ROWS, SEMICOLON, label, of, parts_of, read, write

from joulefront.search.training.columns import texts
from joulefront.search.training.table import prepare, table


def test_numbers_with_signs_before_them_get_a_word(tmp_path):
    _, said = read(write(tmp_path / "t.csv", [f"{'<>~'[k % 3]}{row},{k % 4}" for k, row in enumerate(PLAIN)], header="a,y,b"))
    assert "'a' is text, for its values hold numbers in a form that is not read, e.g. '<1000.5'" in said


def test_an_infinite_target_is_none_and_decimal_signs_that_are_mixed_are_said(tmp_path):
    rows = [f"{value:.2f}".replace(".", "," if k % 2 else ".") + f";{'inf' if k == 7 else value}" for k, value in enumerate(NUMBERS)]
    _, said = read(write(tmp_path / "t.csv", [f"{row};{k % 5}" for k, row in enumerate(rows)], header="a;y;b"))
    assert "left out 1 of 60 rows without y (inf)" in said
    assert "'a' is text, for its numbers have decimal points and decimal commas" in said


def test_bytes_that_are_no_utf_8_stay_different_values():
    found = texts(pd.Series([b"K\xf6ln", b"K\xe4ln", "Köln".encode(), b"\xff", b"\xfe"]))
    assert found.tolist() == ["K\\xf6ln", "K\\xe4ln", "Köln", "\\xff", "\\xfe"]


@pytest.mark.slow
@pytest.mark.parametrize("missing", ["?", "-", "n/a", "NA", "nan", "None", "NULL", "--", "", "#N/A", "unknown"])
def test_every_way_to_say_missing_leaves_a_column_of_numbers(tmp_path, missing):
    rows = [f"{missing if k % 10 == 0 else 50 + k * 1.5},{label(k)}" for k in range(ROWS)]
    task, said = read(write(tmp_path / "t.csv", rows))
    assert task.preprocessing["features"] == ["a", "a?"]
    assert ("'a' is numbers, among which 'unknown' counts as missing" in said) == (missing == "unknown")


def test_numbers_among_many_texts_are_text_with_a_word(tmp_path):
    rows = [f"{k * 1.5 if k % 4 else 'about ' + str(k)},{label(k)}" for k in range(ROWS)]
    with pytest.warns(UserWarning, match=r"'a' is text, for beside numbers it holds 'about 0'"):
        assert table(write(tmp_path / "t.csv", rows), "y").preprocessing["features"] == ["a~about"]


@pytest.mark.parametrize("codes", [["01", "02", "03", "A4"], ["007", "010", "100"], ["1.0", "2.0", "B"], ["True", "perhaps", "1"]])
def test_codes_are_the_same_in_training_in_a_file_and_in_a_frame_that_pandas_read(tmp_path, codes):
    path = write(tmp_path / "t.csv", [f"{codes[k % len(codes)]},{label(k)}" for k in range(ROWS)])
    task, _ = read(path)
    by_file = prepare(task.preprocessing, path)
    np.testing.assert_array_equal(prepare(task.preprocessing, pd.read_csv(path)), by_file)
    np.testing.assert_array_equal(by_file.sum(axis=1), 1)
    plain = [code for code in codes if code.isdigit()]
    write(tmp_path / "rows.csv", plain, header="a")
    assert plain == [] or (prepare(task.preprocessing, pd.read_csv(tmp_path / "rows.csv")).sum(axis=1) == 1).all()


def test_values_that_training_never_saw_are_counted():
    frame = pd.DataFrame({"town": ["Ulm", "Paris"] * 30, "size": range(60), "y": [label(k) for k in range(60)]})
    how = table(frame, "y").preprocessing
    with pytest.warns(UserWarning, match=r"2 values of 'town' were not seen in training, e.g. 'Rome'"):
        assert prepare(how, pd.DataFrame({"town": ["Rome", "Bonn", "Ulm"], "size": [1, 2, 3]}))[:, :2].sum() == 1
    with pytest.warns(UserWarning, match=r"1 value of 'size' was not seen in training, e.g. 'large'"):
        prepare(how, pd.DataFrame({"town": ["Ulm", "Ulm"], "size": ["1", "large"]}))


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["", "id", "ID", "PassengerId", "customer_id", "id_cliente", "index", "row nr", "No.", "lfd. Nr.", "Kundennummer", "numéro"]
)
def test_numbers_that_name_the_rows_are_no_feature_unless_they_are_kept(tmp_path, name):
    path = write(tmp_path / "t.csv", [f"{7 * k},{row}" for k, row in enumerate(PLAIN)], header=f"{name},a,y")
    task, said = read(path)
    assert task.preprocessing["features"] == ["a"]
    assert f"{name or 'Unnamed: 0'!r}, which names the rows; --keep {quote(name or 'Unnamed: 0')} uses it" in said
    assert len(table(path, "y", keep=name or "Unnamed: 0").preprocessing["features"]) == 2


@pytest.mark.parametrize("name", ["paid", "price", "valid", "number of rooms", "grid"])
def test_other_numbers_stay_features(tmp_path, name):
    path = write(tmp_path / "t.csv", [f"{7 * k},{row}" for k, row in enumerate(PLAIN)], header=f"{name},a,y")
    assert table(path, "y").preprocessing["features"] == [name, "a"]


def test_a_class_may_be_called_none_or_nan_and_an_empty_cell_is_missing(tmp_path):
    names = ["None", "nan", "mild", "NA"]
    task, said = read(write(tmp_path / "t.csv", [f"{k * 1.5},{names[k % 4]}" for k in range(ROWS)] + ["3,"] * 5))
    assert task.classes == ("NA", "None", "mild", "nan")
    assert "left out 5 of 65 rows without y" in said
    assert "'NA' in y is taken for a class" in said
    task, said = read(write(tmp_path / "n.csv", [f"{k * 1.5},{'?' if k % 20 == 0 else k % 2}" for k in range(ROWS)]))
    assert task.classes == ("0", "1")
    assert "left out 3 of 60 rows without y (?)" in said


def test_the_target_again_under_nearly_its_name_is_left_out_and_under_another_it_is_said(tmp_path):
    path = write(tmp_path / "t.csv", [f"{row},{label(k)},{k % 3 > 0:d}" for k, row in enumerate(PLAIN)], header="a,y,Y.1,code")
    task, said = read(path)
    assert task.preprocessing["features"] == ["a", "code"]
    assert "'Y.1' is the target again; left out" in said
    assert "'code' tells the target alone; if it is known too late, --drop code" in said
    euros = pd.DataFrame({"cents": np.array(NUMBERS) * 100, "x": range(ROWS), "price": NUMBERS})
    assert "'cents' tells the target alone" in read(euros, "price")[1]


def test_a_class_that_a_split_lacks_is_named(tmp_path):
    rows = [f"{k * 1.5 % 7},{'rare' if k < 2 else 'usual'}" for k in range(102)]
    task, said = read(write(tmp_path / "t.csv", rows))
    assert "no validation example of the class 'rare' (2 in all)" in said
    assert set(task.validation.targets.tolist()) == {1}


def test_amounts_that_may_be_classes_are_said_and_can_be_told(tmp_path):
    path = write(tmp_path / "t.csv", [f"{k * 1.5},{k % 26}" for k in range(260)])
    task, said = read(path)
    assert task.kind == "regression"
    assert "26 different ones; --kind classification" in said
    assert len(read(path, kind="classification")[0].classes) == 26


DRESSED = {
    "percent signs": "{0}%",
    "codes of currencies behind": "{0} EUR",
    "codes of currencies before": "USD {0}",
    "signs of currencies": "${0}",
    "units": "{0} kg",
    "units without a blank": "{0}cm²",
    "digits of another script": "{1}",
    "formulas that keep Excel from reading": '"=""{0}"""',
}


@pytest.mark.parametrize("form", DRESSED.values(), ids=DRESSED)
def test_numbers_are_numbers_however_they_are_dressed_and_in_prediction_as_well(tmp_path, form):
    other = str.maketrans("0123456789", "٠١٢٣٤٥٦٧٨٩")
    rows = [f"{form.format(value, str(value).translate(other))},{label(k)}" for k, value in enumerate(NUMBERS)]
    plain, _ = read(write(tmp_path / "plain.csv", PLAIN))
    task, _ = read(write(tmp_path / "t.csv", rows))
    np.testing.assert_allclose(task.train.inputs, plain.train.inputs, atol=1e-6)
    expected = prepare(plain.preprocessing, tmp_path / "plain.csv")
    np.testing.assert_allclose(prepare(task.preprocessing, tmp_path / "t.csv"), expected, atol=1e-6)


@pytest.mark.parametrize("form", ["({0})", "{0}-", "-${0}", "−{0}", "$ -{0}"])
def test_what_is_below_zero_is_so_however_it_is_written(tmp_path, form):
    rows = [f"{form.format(value) if k % 2 else value},{label(k)}" for k, value in enumerate(NUMBERS)]
    task, _ = read(write(tmp_path / "t.csv", rows))
    plain = [f"{-value if k % 2 else value},{label(k)}" for k, value in enumerate(NUMBERS)]
    np.testing.assert_allclose(task.train.inputs, read(write(tmp_path / "plain.csv", plain))[0].train.inputs, atol=1e-6)


def test_groups_of_digits_as_in_india_and_truth_in_several_spellings(tmp_path):
    rows = [f'"1,23,{100 + k}.50",{("TRUE", "False", "true", "1", "0")[k % 5]},{label(k)}' for k in range(ROWS)]
    task, _ = read(write(tmp_path / "t.csv", rows, header="a,b,y"))
    assert task.preprocessing["features"] == ["a", "b"]
    assert of(task, "a")["mean"] == pytest.approx(123_100.5 + 29.5, abs=15)


def test_whole_numbers_that_a_float_cannot_tell_apart_are_texts_and_hashes_name_the_rows(tmp_path):
    rows = [f"{2**60 + k % 3},{k * 2654435761 % 2**48:012x},{k % 7},{label(k)}" for k in range(ROWS)]
    task, said = read(write(tmp_path / "t.csv", rows, header="code,key,a,y"))
    assert of(task, "code")["levels"] == [str(2**60 + k) for k in range(3)]
    assert "too long to tell apart as numbers" in said
    assert of(task, "key")["reason"] == "names the rows"
    assert "--keep key uses it" in said
    assert of(read(tmp_path / "t.csv", keep="key")[0], "key")["type"] == "categorical"


@pytest.mark.parametrize(
    ("trained", "header", "new", "words"),
    [
        (SEMICOLON, "a;y", ["1.5,x", "2.25,x"], r"'1.5', were read with the decimal sign '\.', which these have"),
        (SEMICOLON, "a;y", ["1.500,x"], "'1.500', were read with the decimal sign ',' of training; write them so"),
        (PLAIN, "a,y", ["1,5;x"], "'1,5', were read with the decimal sign ',', which these have"),
    ],
)
def test_another_decimal_sign_than_in_training_is_read_where_nothing_else_can_be_meant_and_said(tmp_path, trained, header, new, words):
    task, _ = read(write(tmp_path / "t.csv", [f"{row}" for row in trained], header=header))
    path = write(tmp_path / "new.csv", [*new, "3" + new[0][-2:]], header=header.translate({44: 59, 59: 44}))
    with pytest.warns(UserWarning, match=f"numbers of 'a', e.g. {words}"):
        found = prepare(task.preprocessing, path)
    if "which these have" in words:
        meant = pd.DataFrame({"a": [*[1.5, 2.25, 3.0][: len(found) - 1], 3.0]})
        np.testing.assert_allclose(found, prepare(task.preprocessing, meant), rtol=1e-6)


@pytest.mark.parametrize(("name", "factor", "dropped"), [("population_num", 7919, False), ("customer no.", 1, True), ("id", 7919, True)])
def test_an_amount_with_the_name_of_a_number_is_no_name_of_rows(tmp_path, name, factor, dropped):
    rows = [f"{k * 7 % ROWS * factor + 1},{row}" for k, row in enumerate(PLAIN)]
    task, said = read(write(tmp_path / "t.csv", rows, header=f"{name},a,y"))
    assert (of(task, name)["type"] == "dropped") is dropped is (f"{name!r}, which names the rows" in said)


MIXED = {
    "units": ([f"{k}{'kg' if k % 2 else 'lb'}" for k in range(ROWS)], "its numbers have several units, 'lb' and 'kg'"),
    "units in part": ([f"{k} kg" if k % 2 else f"{k}" for k in range(ROWS)], "is numbers with 'kg' in some cells and none in others"),
    "forms of its own": ([f"{k}x{3 * k}" for k in range(ROWS)], "hold numbers in a form that is not read, e.g. '0x0'; write numbers alone"),
    "currencies": ([f"{'$€'[k % 2]}{k}" for k in range(ROWS)], "is numbers with '$' and '€', which are read alike"),
    "percent signs": ([f"{k}%" if k % 2 else f"{k / 100}" for k in range(ROWS)], "'%' in some cells and none in others"),
    "capitals": ([("Red", "red", "blue")[k % 3] for k in range(ROWS)], "'Red' and 'red' in 't' differ in capitals or blanks only"),
    "signs that look alike": (
        [("pre-op", "pre–op", "post")[k % 3] for k in range(ROWS)],
        "'pre-op' and 'pre–op' in 't' differ in spelling only",
    ),
    "letters that look alike": ([("XA", "XА", "B")[k % 3] for k in range(ROWS)], "in 't' differ in spelling only, and are two values"),
    "a marker below": ([-999 if k % 9 == 0 else k for k in range(ROWS)], "'t' is -999 in 7 rows"),
    "a marker above": ([9999 if k % 9 == 0 else k for k in range(ROWS)], "if that means missing, --missing t=9999"),
    "a first day": (["1900-01-01" if k % 9 == 0 else f"2024-01-{k % 28 + 1:02}" for k in range(ROWS)], "--missing t=1900-01-01"),
    "values without measure": ([f"{1000 + 37 * k}e{100 + k}" for k in range(ROWS)], "would be beyond all measure"),
}


@pytest.mark.parametrize(("cells", "words"), MIXED.values(), ids=MIXED)
def test_what_stands_beside_numbers_and_for_missing_ones_is_said(tmp_path, cells, words):
    assert words in read(write(tmp_path / "t.csv", [f"{cell},{k % 7},{label(k)}" for k, cell in enumerate(cells)], header="t,a,y"))[1]


def test_markers_of_missing_values_are_missing_in_training_and_prediction(tmp_path):
    rows = [f"{-999 if k % 9 == 0 else k},{99 if k % 5 == 0 else k % 4},{label(k)}" for k in range(ROWS)]
    task, said = read(write(tmp_path / "t.csv", rows, header="a,b,y"), missing="-999,b=99")
    assert (of(task, "a")["missing"], of(task, "b")["missing"], said) == (True, True, "")
    new = prepare(task.preprocessing, write(tmp_path / "new.csv", ["-999,99", "99,1"], header="a,b"))
    np.testing.assert_array_equal(new, prepare(task.preprocessing, pd.DataFrame({"a": [None, 99.0], "b": [None, 1.0]})))
    assert new[0].tolist() != new[1].tolist()
    with pytest.raises(ValueError, match="no column 'c'"):
        table(tmp_path / "t.csv", "y", missing="c=5")


def test_short_hashes_ids_with_gaps_and_counters_that_begin_again_name_the_rows(tmp_path):
    def row(k):
        return f"{k * 2654435761 % 2**32:08x},{'' if k == 7 else 1000 + k},{k % 20},{k % 7},{label(k)}"

    task, said = read(write(tmp_path / "t.csv", [row(k) for k in range(ROWS)], header="key,id,,a,y"))
    assert [of(task, name).get("reason") for name in ("key", "id", "Unnamed: 2")] == ["names the rows"] * 3
    assert "left out 'key', 'id', 'Unnamed: 2', which names the rows" in said


@pytest.mark.slow
def test_targets_that_cannot_be_learnt_are_refused_or_said(tmp_path):
    path = write(tmp_path / "t.csv", [f"{k},name{k},name{k // 2},7.5,{'Y' if k % 2 else 'yes'}" for k in range(ROWS)], header="a,b,c,d,e")
    with pytest.raises(ValueError, match="'b' has 60 classes in 60 rows; predict another column"):
        table(path, "b")
    with pytest.raises(ValueError, match="at least two values, got only 7"):
        table(path, "d")
    assert "'c' has 30 classes in 60 rows" in read(path, "c")[1]
    assert "'Y' and 'yes' in e differ in spelling only" in read(path, "e")[1]
    for wrong, words in (({"max_levels": 0}, "max_levels must be at least 1"), ({"folds": 50}, "at most 20 parts")):
        with pytest.raises(ValueError, match=words):
            table(path, "e", **wrong)


@pytest.mark.slow
def test_rows_that_come_again_and_columns_that_group_rows_are_said(tmp_path):
    rows = [f"{k % 30},{k % 30 * 7919 % 997},{k % 7},{label(k % 30)}" for k in range(2 * ROWS)]
    said = read(write(tmp_path / "t.csv", rows, header="patient_id,b,c,y"))[1]
    assert "'patient_id' may name what several rows belong to; --split group:patient_id" in said
    assert "validation rows are training rows again" in read(write(tmp_path / "d.csv", [*rows[:30] * 4], header="p,b,c,y"))[1]


TRUTHS = ["yes", "No", "ja", "nein", "TRUE", "false", "1", "0", ""]


def test_yes_and_no_in_several_spellings_are_two_values_in_training_and_prediction(tmp_path):
    rows = [f"{TRUTHS[k % 9]},{k % 7},{('yes', 'no', 'Yes', 'N')[k % 4]}" for k in range(ROWS)]
    task, said = read(write(tmp_path / "t.csv", rows, header="t,a,y"))
    assert task.preprocessing["features"] == ["t", "t?", "a"]
    assert "'t' says yes or no in several ways, e.g. 'yes', 'No', 'ja', 'nein'; they are read alike" in said
    assert task.classes == ("no", "yes")
    assert "the target 'y' says yes or no in several ways" in said
    made = prepare(task.preprocessing, write(tmp_path / "n.csv", [f"{truth},0" for truth in TRUTHS], header="t,a"))
    assert made[:8, 0].tolist() == made[:2, 0].tolist() * 4
    assert made[:, 1].tolist() == [0.0] * 8 + [1.0]
    assert made[0, 0] > made[1, 0]
    assert read(write(tmp_path / "t.csv", [f"{label(k)},{k % 7}" for k in range(ROWS)], header="t,y"))[0].preprocessing["features"] == [
        "t=no",
        "t=yes",
    ]


def test_a_target_of_truth_values_with_gaps_has_two_classes_and_its_gaps_are_said(tmp_path):
    values = [True, False, None] * 20
    pd.DataFrame({"x": range(60), "y": pd.array(values, dtype="boolean")}).to_parquet(tmp_path / "t.parquet")
    write(tmp_path / "t.csv", [f"{k},{value if k % 6 != 2 else 'NA'}".replace("None", "") for k, value in enumerate(values)], header="x,y")
    for name in ("t.parquet", "t.csv"):
        task, said = read(tmp_path / name)
        assert (task.classes, sum(map(len, parts_of(task)))) == (("False", "True"), 40)
        assert "left out 20 of 60 rows without y" in said
    assert read(tmp_path / "t.parquet", kind="anomaly")[0].classes == ("False", "True")


def test_whole_numbers_that_a_float_would_round_are_codes_of_their_own_in_typed_files(tmp_path):
    ids = {
        "u": np.array([2**63 + k % 7 for k in range(ROWS)], dtype="uint64"),
        "i": pd.array([2**53 + k % 5 for k in range(ROWS)], "Int64"),
    }
    frame = pd.DataFrame({**ids, "x": range(ROWS), "y": [label(k) for k in range(ROWS)]})
    frame.to_parquet(tmp_path / "t.parquet")
    frame.to_csv(tmp_path / "t.csv", index=False)
    task, said = read(tmp_path / "t.parquet")
    assert [len(of(task, name)["levels"]) for name in "ui"] == [7, 5]
    assert "'u' is text, for its whole numbers are too long to tell apart as numbers" in said
    np.testing.assert_array_equal(prepare(task.preprocessing, tmp_path / "t.csv"), prepare(task.preprocessing, tmp_path / "t.parquet"))


def test_marks_between_joined_files_are_nothing_and_sparse_columns_are_numbers(tmp_path):
    mark = "\ufeff"
    rows = [f"{mark * (k == 30)}{k % 9},{label(k)}" for k in range(ROWS)]
    task, said = read(write(tmp_path / "t.csv", rows))
    assert (of(task, "a")["missing"], said) == (False, "")
    frame = pd.DataFrame({"a": pd.arrays.SparseArray([0, 0, 1] * 20), "y": [label(k // 2) for k in range(ROWS)]})
    assert table(frame, "y").preprocessing["features"] == ["a"]


def test_signs_of_web_pages_make_no_levels_of_their_own():
    assert texts(pd.Series(["A&amp;B", "A&B", "<b>A&#38;B</b>", "AT&T", "x &lt; 3", "<unknown>"])).tolist() == [
        *["A&B"] * 3,
        "AT&T",
        "x < 3",
        "<unknown>",
    ]


def test_whole_numbers_that_are_all_days_are_dates_in_files_with_types_as_in_text(tmp_path):
    days = pd.date_range("2023-12-20", periods=ROWS).strftime("%Y%m%d").astype(int)
    frame = pd.DataFrame({"a": days, "b": np.where(np.arange(ROWS) % 7 == 0, np.nan, days), "y": [label(k) for k in range(ROWS)]})
    frame.to_parquet(tmp_path / "t.parquet")
    frame.astype({"b": "Int64"}).to_csv(tmp_path / "t.csv", index=False)
    task, _ = read(tmp_path / "t.parquet")
    assert (of(task, "a")["reading"], of(task, "b")["reading"]) == ("date", "date")
    np.testing.assert_allclose(task.train.inputs, read(tmp_path / "t.csv")[0].train.inputs, atol=1e-6)
    np.testing.assert_array_equal(prepare(task.preprocessing, tmp_path / "t.csv"), prepare(task.preprocessing, tmp_path / "t.parquet"))
