"""Data that users of other tools have reported as read wrongly without a word: read as meant here, or said with a remedy."""

from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from helpers.table_files import said_of, said_of_new

from joulefront.search.training.columns import infer, texts
from joulefront.search.training.table import prepare, table

LABELS = ["yes" if (7 * k) % 3 else "no" for k in range(60)]


def written(folder, values, header="x,b,y", labels=LABELS):
    path = folder / "t.csv"
    path.write_text("\n".join([header, *(f"{x},{k % 7},{y}" for k, (x, y) in enumerate(zip(values, labels, strict=True)))]) + "\n", "utf-8")
    return path


@pytest.mark.parametrize(("opens", "closes"), [('"item 3,', ',"item 5,'), ('"item 3,', ',item 5",')])
def test_rows_that_a_quote_takes_in_are_said(tmp_path, opens, closes):
    """Source: github.com/wireservice/csvkit/issues/433, github.com/JuliaData/CSV.jl/issues/1096."""
    rows = [f"{k % 4},item {k % 9},{label}" for k, label in enumerate(LABELS)]
    rows[12], rows[32] = rows[12].replace(",item 3,", "," + opens), rows[32].replace(",item 5,", closes)
    (tmp_path / "t.csv").write_text("\n".join(["a,name,y", *rows]), "utf-8")
    task, said = said_of(tmp_path / "t.csv")
    assert len(task.train) + len(task.validation) + len(task.test) == 40
    assert "takes in 20 lines that look like rows; double or remove it" in said


def test_texts_of_several_lines_are_no_rows(tmp_path):
    texts_of = [f'"good, really\nbut, well, {k % 5}\nnever, again"' if k % 9 == 0 else f"item {k % 5}" for k in range(60)]
    _, said = said_of(written(tmp_path, texts_of))
    assert "look like rows" not in said


def test_signs_that_nobody_sees_make_no_other_class_value_number_or_name(tmp_path):
    """Source: github.com/mountainMath/cansim/issues/169."""
    labels = [label + "\u200b" * (k % 5 == 0) for k, label in enumerate(LABELS)]
    values = [f"\u200f{k % 9}.5" for k in range(60)]
    task, _ = said_of(written(tmp_path, values, "\u200ex,b,y\u200b", labels))
    assert task.classes == ("no", "yes")
    assert task.preprocessing["features"] == ["x", "b"]
    colours = pd.DataFrame({"x": ["red", "blue"] * 30, "y": LABELS})
    made, said = said_of_new(said_of(colours)[0], pd.DataFrame({"x": ["red\u200b", b"blue"]}))
    assert made.tolist() == [[0, 1], [1, 0]]
    assert said == ""


@pytest.mark.parametrize(
    ("values", "words"), [(["5E0", "5E1", "12E3"], "'5E0' is read as 5"), (["12", "7", "713752e1"], "read as 7.13752e+06")]
)
def test_codes_that_pass_for_powers_of_ten_are_said(tmp_path, values, words):
    """Source: github.com/OpenRefine/OpenRefine/issues/511, github.com/mholt/PapaParse/issues/1078."""
    path = written(tmp_path, [values[k % 3] for k in range(60)])
    _, said = said_of(path)
    assert words in said
    assert "name the column in --categorical" in said
    task, said = said_of(path, categorical="x")
    assert task.preprocessing["columns"][0]["levels"] == sorted(values)
    assert "--categorical" not in said
    assert infer(np.array(["1.5e3", "2E+05", "1e-7"], dtype=object)).note is None


def test_long_ids_of_which_a_program_has_rounded_one_stay_apart():
    """Source: github.com/pandas-dev/pandas/issues/2697."""
    ids = np.array([str(135217135789158401 + k) for k in range(60)] + ["1352171357E+5"], dtype=object)
    assert infer(ids).kind == "text"


@pytest.mark.parametrize(
    ("trained", "new", "words"),
    [
        ("{}%", ["0.05", "0.03"], "2 values of 'x' were written with another sign than '%' of training, e.g. '0.05'"),
        ("0.0{}", ["5%", "0.03"], "1 value of 'x' was written with a sign that training had not, e.g. '5%'"),
        ("€{}", ["$5", "0"], "1 value of 'x' was written with another sign than '€' of training, e.g. '$5'"),
        ("€{}", ["5 €", "€ 1,000"], ""),
        ("{}", ["5", "3"], ""),
    ],
)
def test_numbers_with_another_sign_than_in_training_are_said(tmp_path, trained, new, words):
    """Source: github.com/tidyverse/readxl/issues/462, github.com/ui-insight/vandalizer/pull/853."""
    task, _ = said_of(written(tmp_path, [trained.format(k % 9 + 1) for k in range(60)]))
    made, said = said_of_new(task, pd.DataFrame({"x": new, "b": [1, 2]}))
    assert words in said
    assert words != "" or said == ""
    assert np.isfinite(made).all()


@pytest.mark.parametrize("header", ["# x b y", "# made by savetxt\n# x b y", "# y b x"])
@pytest.mark.parametrize("separator", [" ", ","])
def test_the_header_that_numpy_writes_behind_a_hash_has_its_names(tmp_path, header, separator):
    """Source: github.com/matplotlib/matplotlib/pull/1699."""
    numbers = np.column_stack([np.arange(60) % 4 + 0.5, np.arange(60) % 7, np.arange(60) % 2])
    order = [0, 1, 2] if header.endswith("y") else [2, 1, 0]
    head, _, last = header.rpartition("\n")
    named = f"{head}\n" * bool(head) + "# " + separator.join(last[2:].split())
    np.savetxt(tmp_path / "t.txt", numbers[:, order], header=named, comments="", delimiter=separator, fmt="%g")
    task, _ = said_of(tmp_path / "t.txt")
    assert sorted(task.preprocessing["features"]) == ["b", "x"]
    assert task.classes == ("0", "1")
    np.testing.assert_array_equal(
        np.sort(prepare(task.preprocessing, tmp_path / "t.txt"), axis=0),
        np.sort(prepare(task.preprocessing, pd.DataFrame(numbers, columns=["x", "b", "y"])), axis=0),
    )


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (["red;round", "red", "blue"], "'red;round' in y seems to be several labels, but is one class"),
        (["\"['red', 'round']\"", "['red']", "['blue']"], "seems to be several labels, but is one class"),
        (["Smith; John", "Smith; Anna", "Ode"], ""),
        (["3", "4", "5", "6", "7", "8"], "the target is taken for 6 classes, which are whole numbers; --kind regression"),
        (["1", "2", "3"], ""),
    ],
)
def test_targets_that_are_several_labels_or_may_be_amounts_are_said(tmp_path, labels, words):
    path = written(tmp_path, [f"{k % 11}.5" for k in range(60)], labels=np.random.default_rng(0).choice(labels, 60))
    _, said = said_of(path)
    assert words in said
    assert words != "" or ("several labels" not in said and "whole numbers" not in said)


@pytest.mark.parametrize("values", [["0-4", "9-May", "14-Oct", "15-19", "20-24"], ["TP53", "2-Sep", "BRCA1", "MYC"]])
def test_days_that_excel_has_made_of_other_texts_are_said(tmp_path, values):
    """Source: Ziemann et al. 2016, "Gene name errors are widespread in the scientific literature", Genome Biology 17."""
    _, said = said_of(written(tmp_path, [values[(k + 1) % len(values)] for k in range(60)]))
    assert f"'x' is text with {values[1]!r}, which Excel makes of 5-9 and of MAY9" in said


def test_times_with_two_blanks_are_dates_and_texts_without_a_date_are_told_so(tmp_path):
    """Source: github.com/pandas-dev/pandas/issues/22168."""
    task, _ = said_of(written(tmp_path, [f"2018-04-{1 + k % 28:02}{' ' * (1 + k % 2)}10:30:00" for k in range(60)]))
    assert task.preprocessing["columns"][0]["reading"] == "date"
    with pytest.raises(ValueError, match=r"the column 'x' must hold dates as in training, got text, e.g. 'soon'; write it as there"):
        prepare(task.preprocessing, pd.DataFrame({"x": ["soon"], "b": [1]}))


def test_files_behind_one_another_with_their_columns_in_another_order_are_refused(tmp_path):
    rows = [f"{k},{k % 7},{label}" for k, label in enumerate(LABELS)]
    (tmp_path / "t.csv").write_text("\n".join(["x,b,y", *rows, "b,x,y", *rows]), "utf-8")
    with pytest.raises(ValueError, match=r"a row is the header in another order, b, x, y; join files by the names"):
        table(tmp_path / "t.csv", "y")


def test_a_line_of_markdown_that_centres_a_column_is_no_row(tmp_path):
    rows = [f"| {k % 9} | {k % 7} | {label} |" for k, label in enumerate(LABELS)]
    (tmp_path / "t.txt").write_text("\n".join(["| x | b | y |", "|---|:-:|-:|", *rows]), "utf-8")
    task, _ = said_of(tmp_path / "t.txt")
    assert task.classes == ("no", "yes")
    assert task.preprocessing["features"] == ["x", "b"]


def test_a_group_that_is_named_in_its_first_row_alone_is_said(tmp_path):
    _, said = said_of(written(tmp_path, [["North", "South", "East"][k // 20] if k % 20 == 0 else "" for k in range(60)]))
    assert "'x' has a value in 3 of 60 rows; if it holds for the rows below it, fill these in" in said


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_tables_of_other_libraries_are_frames_and_values_for_a_target_are_refused():
    columns = {"x": [1.5, 2.5, 3.5] * 20, "y": LABELS}
    usual = table(pd.DataFrame(columns), "y")
    for data in (columns, pa.table(columns), pd.DataFrame(columns).to_records(index=False)):
        np.testing.assert_array_equal(
            prepare(table(data, "y").preprocessing, pd.DataFrame(columns)), prepare(usual.preprocessing, pd.DataFrame(columns))
        )
    with pytest.raises(ValueError, match="target must be the name of a column, or several, got values"):
        table(pd.DataFrame(columns), pd.Series(LABELS))


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_decimals_of_arrow_with_gaps_are_numbers_and_bytes_are_texts():
    decimals = pd.Series([Decimal("1.5"), None, Decimal("2.5")] * 20, dtype=pd.ArrowDtype(pa.decimal128(5, 2)))
    assert table(pd.DataFrame({"x": decimals, "y": LABELS}), "y").preprocessing["features"] == ["x", "x?"]
    assert texts(pd.Series([b"caf\xc3\xa9", b"2.0", "tea", None])).tolist() == ["café", "2", "tea", None]


def test_names_of_images_in_a_table_are_told_from_images(tmp_path):
    """Source: github.com/mindsdb/mindshub/issues/158."""
    path = written(tmp_path, [f"photos/{k}.JPG" for k in range(60)])
    assert "'x' names files, e.g. 'photos/0.JPG', which are not read; put them into a sub-folder for each class" in said_of(path)[1]


def test_a_name_in_other_letters_and_an_address_get_their_own_remedy(tmp_path):
    with pytest.raises(ValueError, match="has no column 'Y'; did you mean 'y'"):
        table(written(tmp_path, range(60)), "Y")
    with pytest.raises(FileNotFoundError, match=r"no table at https:/example.org/t.csv; download it"):
        table("https://example.org/t.csv", "y")


@pytest.mark.parametrize("classes", [("2WD", "4WD"), ("$10", "$5"), ("0x", "1x", "2x")])
def test_classes_that_are_numbers_with_a_unit_keep_it(tmp_path, classes):
    path = written(tmp_path, range(60), labels=[classes[k % len(classes)] for k in range(60)])
    assert said_of(path)[0].classes == classes
    assert said_of(path, kind="regression")[0].kind == "regression"
    assert said_of(written(tmp_path, range(60), labels=[f"{k * 1.3:.1f} kg" for k in range(60)]))[0].kind == "regression"


def test_a_table_of_six_rows_is_validated_in_as_many_parts_as_it_has_rows_for():
    task, _ = said_of(pd.DataFrame({"x": [1.5, 2.5, 3.0, 4.0, 5.5, 6.0], "y": ["p", "q"] * 3}), folds=None)
    assert task.folds == 2
