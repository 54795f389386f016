"""What the cells of a table mean: numbers, codes, classes, names of rows and missing values."""

from shlex import quote

import numpy as np
import pandas as pd
import pytest
from helpers.table_files import NUMBERS, PLAIN, ROWS, SEMICOLON, label, of, parts_of, read, write

from joulefront.search.training.columns import infer, parse, texts
from joulefront.search.training.table import prepare, table


def test_numbers_with_signs_before_them_get_a_word(tmp_path):
    _, said = read(write(tmp_path / "t.csv", [f"{'<>~'[k % 3]}{row},{k % 4}" for k, row in enumerate(PLAIN)], header="a,y,b"))
    assert "'a' is text, for its values hold numbers in a form that is not read, e.g. '<1000.5'" in said


def test_an_infinite_target_is_none_and_decimal_signs_that_are_mixed_are_said(tmp_path):
    rows = [f"{value:.2f}".replace(".", "," if k % 2 else ".") + f";{'inf' if k == 7 else value}" for k, value in enumerate(NUMBERS)]
    _, said = read(write(tmp_path / "t.csv", [f"{row};{k % 5}" for k, row in enumerate(rows)], header="a;y;b"))
    assert "left out 1 of 60 rows without y (inf)" in said
    assert "'a' is text, for its numbers have decimal points and decimal commas" in said


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


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        ([f"{k * 1234:,}".replace(",", ".") for k in range(ROWS)], True),
        ([f"{(k + 1) * 1200:,}".replace(",", ".") for k in range(ROWS)], True),
        ([*map(str, range(478, 476 + ROWS)), "27.506", "1.952"], True),
        ([*map(str, range(478, 476 + ROWS)), "27.506", "0.952"], False),
        ([f"{1 + k * 1.2345:.3f}" for k in range(ROWS)], False),
        ([f"{1 + k * 1.25:g}" for k in range(ROWS)], False),
    ],
)
def test_points_that_may_be_of_thousands_are_said_and_are_where_semicolons_divide(tmp_path, cells, said):
    points, thousands = "is read with decimal points, as", "is read with points of thousands, as"
    assert (points in read(write(tmp_path / "c.csv", [f"{cell},{label(k)}" for k, cell in enumerate(cells)], header="a,y"))[1]) is said
    assert (f"the target 'a' {points}" in read(tmp_path / "c.csv", "a")[1]) is said
    task, told = read(write(tmp_path / "s.csv", [f"{cell};{label(k)}" for k, cell in enumerate(cells)], header="a;y"))
    assert ((thousands in told), points in told) == (said, False)
    assert ("mean" in of(task, "a"), of(task, "a").get("how", ".,")) == (True, ",." if said else ".,")
    task, told = read(tmp_path / "s.csv", "a", kind="regression")
    assert (f"the target 'a' {thousands}" in told) is said


def test_points_where_semicolons_divide_are_decimals_if_another_column_shows_such(tmp_path):
    amounts, weights = [*map(str, range(478, 476 + ROWS)), "27.506", "1.952"], [f"{0.25 * k}" for k in range(ROWS)]
    file = write(tmp_path / "t.csv", [f"{a};{w};{label(k)}" for k, (a, w) in enumerate(zip(amounts, weights, strict=True))], header="a;w;y")
    task, told = read(file)
    assert "'a' is read with decimal points, as '27.506'" in told
    assert of(task, "a").get("how", ".,") == ".,"


def test_points_that_may_be_either_follow_a_column_whose_points_are_of_thousands_with_a_word(tmp_path):
    amounts, weights = [*map(str, range(478, 476 + ROWS)), "27.506", "1.952"], [f"{1 + 0.123 * k:.3f}" for k in range(ROWS)]
    file = write(tmp_path / "t.csv", [f"{a};{w}" for a, w in zip(amounts, weights, strict=True)], header="a;w")
    task, told = read(file, "w")
    assert task.target_scale[0] > 1000
    assert "the target 'w' is read with points of thousands, as '1.000'" in told


def test_decimal_commas_of_the_target_decide_for_features_and_of_features_for_the_target(tmp_path):
    amounts, weights = [*map(str, range(478, 476 + ROWS)), "27.506", "1.952"], [f"{0.25 * k}".replace(".", ",") for k in range(ROWS)]
    file = write(tmp_path / "t.tsv", [f"{a}\t{w}" for a, w in zip(amounts, weights, strict=True)], header="a\tw")
    assert of(read(file, "w")[0], "a")["how"] == ",."
    task, told = read(file, "a")
    assert (task.target_scale[0] > 700, "of thousands" in told) == (True, False)


def test_marks_between_joined_files_are_nothing_and_sparse_columns_are_numbers(tmp_path):
    mark = "\ufeff"
    rows = [f"{mark * (k == 30)}{k % 9},{label(k)}" for k in range(ROWS)]
    task, said = read(write(tmp_path / "t.csv", rows))
    assert (of(task, "a")["missing"], said) == (False, "")
    frame = pd.DataFrame({"a": pd.arrays.SparseArray([0, 0, 1] * 20), "y": [label(k // 2) for k in range(ROWS)]})
    assert table(frame, "y").preprocessing["features"] == ["a"]


#: How values are written, and what they are: numbers, seconds, or seconds since 1970.
WRITTEN = {
    "feet and inches": (["5'11\"", "6' 2''", "5 ft 10 in", "6′", "5’9”"], [71, 74, 70, 72, 69]),
    "thousands and millions": (["3.2k", "970", "$1.5M", "12 K", "2 Mio. €"], [3200, 970, 1.5e6, 12_000, 2e6]),
    "decimal commas and units": (["1,5 km", "2,25 km", "0,5 km"], [1.5, 2.25, 0.5]),
    "units of one scale": (["2 kg", "150 g", "0.5 kg", "3 g", "0"], [2000, 150, 500, 3, 0]),
    "sizes of files": (["3 KB", "2MB", "1 GiB"], [3e3, 2e6, 2**30]),
    "units in capitals and the plural": (["1 Room", "3 rooms", "2 rooms"], [1, 3, 2]),
    "powers of ten": (["1.5e3", "2×10^4", "3.5x10^-2", "4D+02"], [1500, 20_000, 0.035, 400]),
    "apostrophes, lines and blanks between thousands": (["12'345", "1_234", "9\u202f876", "5\u00a0432.5"], [12_345, 1234, 9876, 5432.5]),
    "dashes for minus": (["–1.5", "‐2", "- 3", "(4)", "5-", "6"], [-1.5, -2, -3, -4, -5, 6]),
    "quotes": (['"52"', "'89", "7"], [52, 89, 7]),
    "marks of footnotes": (["337*", "412 †", "58[1]", "12¹", "7 (a)", "9,-", "4"], [337, 412, 58, 12, 7, 9, 4]),
    "marks behind signs and units": (["1.234,5 €*", "12,5 €", "7 €[1]"], [1234.5, 12.5, 7]),
    "amounts of accounts": (["(123,45 zł)", "12 zł", "(7 zł)"], [-123.45, 12, -7]),
    "rupees": (["Rs. 1,23,456/-", "Rs. 99/-"], [123_456, 99]),
    "thousands in other scripts": (["1,5 млн", "20 тыс.", "3 млн"], [1.5e6, 20_000, 3e6]),
    "lakh and crore": (["2 Lakh", "1.5 Cr", "30 Lakh"], [200_000, 1.5e7, 3e6]),
    "inches of carpenters": (['5-5/8"', '7-1/4"', '3"'], [5.625, 7.25, 3]),
    "truth in several languages": (["Tak", "tak", "Nie", "нет", "да"], [1, 1, 0, 0, 1]),
    "latitudes": (["51.2° N", "49.9° S", "51°30'36\"N", "10° 30′ S", "0°"], [51.2, -49.9, 51.51, -10.5, 0]),
    "longitudes": (["0.12 W", "13,4 E", "2.5 E"], [-0.12, 13.4, 2.5]),
    "sides before degrees": (["N 46.7", "S 12.5"], [46.7, -12.5]),
    "fractions": (["5 5/8", "1½", "¾", "3/16", "-2 1/4", "7"], [5.625, 1.5, 0.75, 0.1875, -2.25, 7]),
    "powers above the line": (["2.7×10³", "4.1 x 10⁻²"], [2700, 0.041]),
    "digits and signs of other scripts": (["٣٫٥", "１２．５", "－３", "۷"], [3.5, 12.5, -3, 7]),
    "currencies of the world": (["NT$ 6,454", "12 A$", "₽5", "₩1,000", "Rp 15", "Fr. 20", "￥7"], [6454, 12, 5, 1000, 15, 20, 7]),
    "units in other scripts": (["12 кг", "5 кг", "7,5 кг"], [12, 5, 7.5]),
    "money in other scripts": (["1 234,50 zł", "12 zł"], [1234.5, 12]),
    "units of one sign": (["12歳", "45歳"], [12, 45]),
    "days with blanks behind their points": (["31. 1. 2024", "30. 1. 2024"], [1_706_659_200, 1_706_572_800]),
    "days as in Korea": (["2024. 1. 31.", "2024. 1. 30."], [1_706_659_200, 1_706_572_800]),
    "months of further languages": (["31 января 2024 г.", "31. tammikuuta 2024", "31 Ocak 2024", "31. ledna 2024"], [1_706_659_200] * 4),
    "days with names between lines": (["31/jan/2024", "30/jan/2024"], [1_706_659_200, 1_706_572_800]),
    "days as in Hungary": (["2024. január 31.", "2024. augusztus 1."], [1_706_659_200, 1_722_470_400]),
    "times as in China": (["2024年1月31日 13时05分", "2024年1月31日 0时0分30秒"], [1_706_706_300, 1_706_659_230]),
    "halves of the day in East Asia": (["2024/1/31 下午 1:00", "2024/1/31 오전 1:00"], [1_706_706_000, 1_706_662_800]),
    "halves of the day as in Spain": (["31/01/2024 1:00 p. m.", "31/01/2024 1:00 a. m."], [1_706_706_000, 1_706_662_800]),
    "pages": (["<td>12</td>", "1&nbsp;234", "<b>5</b>", "&nbsp;", "&minus;7"], [12, 1234, 5, np.nan, -7]),
    "less than no time": (["-01:10:00", "26:00:00", "0:30:00"], [-4200, 93_600, 1800]),
    "laps": (["32:18.5", "1:02.25", "59:59.9"], [1938.5, 62.25, 3599.9]),
    "hours as in French": (["1h30", "00h45", "27h05"], [5400, 2700, 97_500]),
    "weeks and days": (["2 weeks", "3 days", "1 week 2 days"], [1_209_600, 259_200, 777_600]),
    "years and months": (["1 year", "2 years 6 months"], [31_557_600, 2.5 * 31_557_600]),
    "months of ISO 8601 are no minutes": (["P2M", "PT2M", "P1Y"], [2 * 2_629_800, 120, 31_557_600]),
    "several forms of dates": (["2024-01-31", "31.01.2024", "Jan 30, 2024"], [1_706_659_200, 1_706_659_200, 1_706_572_800]),
    "dates with and without hours": (["01/31/2024", "01/31/2024 10:00", "12/31/2023"], [1_706_659_200, 1_706_695_200, 1_703_980_800]),
    "zones": (["2024-01-31 01:00 CET", "2024-01-30 19:00:00 EST", "2024-01-31T00:00:00Z"], [1_706_659_200] * 3),
    "names of zones": (["2024-01-31 00:00 Europe/Berlin", "2024-01-31T01:00+01:00[Europe/Berlin]"], [1_706_659_200] * 2),
    "dates of browsers": (["Wed Jan 31 2024 01:00:00 GMT+0100 (CET)", "Tue Jan 30 2024 19:00:00 GMT-0500 (EST)"], [1_706_659_200] * 2),
    "JSON of .NET": (["/Date(1706659200000)/", "/Date(1706659201500+0100)/"], [1_706_659_200, 1_706_659_201.5]),
    "weeks of the year": (["2024-W05-3", "2024-W05", "KW 5/2024"], [1_706_659_200, 1_706_486_400, 1_706_486_400]),
    "times without separators": (["20240131000000", "20240131010203"], [1_706_659_200, 1_706_662_923]),
    "hours of half a day": (["1 am", "1 pm", "12 am"], [-2_208_985_200, -2_208_942_000, -2_208_988_800]),
}


@pytest.mark.parametrize(("written", "meant"), WRITTEN.values(), ids=WRITTEN)
def test_values_are_read_as_people_write_them(written, meant):
    found = texts(pd.Series(written))
    np.testing.assert_allclose(parse(found, infer(found)), meant)


@pytest.mark.parametrize(
    "written",
    [
        ["1B", "12C", "3F"],
        ["A12", "B7"],
        ["2019-001", "2020-114"],
        ["68x65", "7x9"],
        ["01/13/2024", "13/01/2024"],
        ["N18.3", "S72.0", "E11.9"],
        ["1/3", "2/5"],
    ],
)
def test_what_only_looks_like_numbers_or_dates_stays_text(written):
    assert infer(texts(pd.Series(written))).kind == "text"


@pytest.mark.parametrize(
    ("written", "said"),
    [
        (["337*", "412", "58"], "numbers with marks behind some, e.g. '337*', which are left out"),
        (["1,234", "1.234", "5,678", "12"], "is numbers with '1,234', read as thousands, and '1.234', read as decimals; write all alike"),
        ([f"#{k}" for k in range(30)], "in a form that is not read, e.g. '#0'"),
        (["12 °C", "50 °F", "13 °C", "60 °F"], "several units"),
        ([f"{k + 10} ± {k % 4}" for k in range(30)], "in a form that is not read, e.g. '10 ± 0'"),
        ([f"{k + 10} ({k % 4})" for k in range(30)], "in a form that is not read, e.g. '10 (0)'"),
    ],
)
def test_numbers_with_something_behind_them_get_a_word(written, said):
    assert said in (infer(texts(pd.Series(written))).note or "")


def test_new_places_are_read_as_those_of_training(tmp_path):
    task, said = read(write(tmp_path / "t.csv", [f"{k}.5° {'NS'[k % 2]},{label(k)}" for k in range(ROWS)]))
    assert said == ""
    new = write(tmp_path / "new.csv", ["1.5° S", "1.5° N"], header="a")
    south, north = prepare(task.preprocessing, new)[:, 0]
    other = prepare(task.preprocessing, write(tmp_path / "one.csv", ["-1.5"], header="a"))[0, 0]
    assert other == south < north


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
