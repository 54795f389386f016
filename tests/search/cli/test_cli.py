"""What bad input gets: one clear line with the remedy, exit code 2 or 1, no traceback, nothing lost."""

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from helpers.trials import make_trial
from PIL import Image

from joulefront.search.cli import main
from joulefront.search.cli.study_source import StudyError
from joulefront.search.records.run_folder import RunFolder
from joulefront.search.records.trial import ATTRIBUTE


def refused(said: Any, *parts: str, code: int = 2) -> str:
    """Check that a call ended with one line that says what is needed, and return it."""
    lines = [line for line in said.err.splitlines() if line.startswith("error: ")]
    assert said.code == code, said
    assert said.out == ""
    assert len(lines) == 1, said.err
    assert said.err.splitlines()[-1] == lines[0]
    for part in parts:
        assert part in lines[0]
    return lines[0]


# -- words ----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["run"], ["Missing argument", "joulefront run --help"]),
        (["frnt", "x"], ["frnt", "--help"]),
        (["run", "digits", "--budgte", "5Wh"], ["--budgte", "joulefront run --help"]),
        (["run", "digits", "--trials", "0"], ["--trials", "joulefront run --help"]),
        (["run", "digitz"], ["unknown study 'digitz'", "did you mean 'digits'"]),
        (["run", "nowhere.py"], ["'nowhere.py' does not exist"]),
        (["run", "no_such_module:study"], ["no_such_module"]),
        (["run", "digits", "--budget", "20"], ["--budget '20' has no unit", "--budget 20Wh"]),
        (["run", "digits", "--budget", "5apples"], ["unknown unit 'apples'", "Wh"]),
        (["run", "digits", "--timeout", "30"], ["--timeout", "30m"]),
        (["run", "digits", "--price", "cheap"], ["price", "0.25EUR"]),
        (["run", "digits", "--pue", "0.5"], ["pue", ">= 1"]),
        (["run", "digits", "--intensity", "-3"], ["grams_per_kwh", ">= 0"]),
        (["run", "digits", "--zone", "ATLANTIS"], ["ATLANTIS"]),
        (["run", "digits", "--budget", "5gCO2e"], ["--zone FR"]),
        (["run", "digits", "--budget", "2EUR"], ["--price 0.25EUR"]),
        (["run", "digits", "--stop-gain", "much"], ["stop"]),
        (["run", "digits", "--sampler", "magic"], ["study.sampler", "freeze-thaw", "'magic'"]),
        (["run", "digits", "--objectives", "accuracy,speed"], ["unknown ['speed']", "train_energy"]),
        (["run", "digits", "--objectives", "accuracy"], ["at least two"]),
        (["run", "digits", "--device", "abacus"], ["--device", "cuda:N", "'abacus'"]),
        (["run", "digits", "--data", "here"], ["takes no --data"]),
        (["run", "digits", "--meter", "dowsing"], ["meter must be", "nvml", "'dowsing'"]),
        (["run", "table", "--data", "x.csv"], ["needs --target"]),
        (["run", "images"], ["needs --data"]),
        (["front", "runs/nothing"], ["'runs/nothing' does not exist", "joulefront run"]),
        (["doctor", "--meter", "dowsing"], ["meter must be", "'dowsing'"]),
        (["estimate", "digitz"], ["did you mean 'digits'"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) and "-" not in value[0] else None,
)
def test_a_wrong_word_costs_nothing_and_gets_its_remedy(call: Callable[..., Any], words: list[str], parts: list[str]) -> None:
    refused(call(*words), *parts)
    assert not list(Path("runs").glob("*/artifacts/*"))


def test_a_device_that_is_not_here_names_the_one_that_is(call: Callable[..., Any]) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    refused(call("run", "digits", "--device", "cuda"), "no CUDA device", "--device cpu")
    assert not Path("runs").exists()


def test_debug_lets_the_error_through(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StudyError, match="digitz"):
        main(["--debug", "run", "digitz"])
    with pytest.raises(ValueError, match="--budget"):
        main(["run", "digits", "--budget", "20", "--debug"])


def test_an_error_that_nobody_foresaw_is_one_line_too(call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise KeyError("gamma")

    monkeypatch.setattr("joulefront.search.records.run_folder.RunFolder.open", fail)
    refused(call("front", "x"), "KeyError: 'gamma'", "--debug", code=1)


def test_a_second_interrupt_says_how_to_go_on(call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("joulefront.search.running.run.run", stop)
    said = call("run", "digits")
    assert said.code == 130
    assert "what was measured is kept" in said.err


def test_without_a_word_the_help_is_shown(call: Callable[..., Any]) -> None:
    said = call()
    assert said.code == 0
    for verb in ("run", "front", "plot", "report", "export", "price", "compare", "doctor", "studies", "dashboard", "estimate", "optimise"):
        assert f"  {verb}" in said.out
    assert "--debug" in said.out


def test_the_bundled_studies_are_listed_with_a_line_each(call: Callable[..., Any]) -> None:
    lines = {line.split()[0]: line for line in call("studies").out.splitlines()}
    assert {"digits", "images", "table"} <= set(lines)
    assert all(len(line.split()) > 5 for line in lines.values())


# -- data -----------------------------------------------------------------------------------------------------------------------------


def write_images(folder: Path, classes: int, *, each: int = 6) -> Path:
    """Write tiny images; the class is in the colour."""
    random = np.random.default_rng(0)
    for number in range(classes):
        (folder / f"class{number}").mkdir(parents=True)
        for index in range(each):
            pixels = random.integers(0, 60, (8, 8, 3)) + np.array([180, 90, 0])[(np.arange(3) + number) % 3]
            Image.fromarray(pixels.astype("uint8")).save(folder / f"class{number}" / f"{index}.png")
    return folder


def test_a_missing_data_folder_is_named(call: Callable[..., Any]) -> None:
    refused(call("run", "images", "--data", "nowhere"), "nowhere", "sub-folder for each class")


def test_a_folder_with_one_class_says_that_two_are_needed(call: Callable[..., Any], tmp_path: Path) -> None:
    write_images(tmp_path / "one", 1)
    refused(call("run", "images", "--data", "one"), "only one class folder, class0/", "at least two")


def test_an_unreadable_image_is_named_and_nothing_is_trained(call: Callable[..., Any], tmp_path: Path) -> None:
    folder = write_images(tmp_path / "photos", 2)
    (folder / "class1" / "3.png").write_bytes(b"this is no image")
    refused(call("run", "images", "--data", "photos"), "class1/3.png")
    assert not Path("runs/images").exists()  # a start that failed leaves nothing behind


def test_a_file_that_is_no_zip_is_refused(call: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "photos.zip").write_bytes(b"PK but not really")
    refused(call("run", "images", "--data", "photos.zip"), "photos.zip", "zip")


def test_a_zip_with_one_class_is_refused_as_the_folder_is(call: Callable[..., Any], tmp_path: Path) -> None:
    folder = write_images(tmp_path / "one", 1)
    with zipfile.ZipFile(tmp_path / "one.zip", "w") as archive:
        for file in folder.rglob("*.png"):
            archive.write(file, file.relative_to(folder))
    refused(call("run", "images", "--data", "one.zip"), "at least two")


@pytest.mark.parametrize(
    ("text", "target", "parts"),
    [
        ("height,weight,label\n1,2,a\n2,3,b\n", "lable", ["'lable'", "label"]),
        ("", "label", []),
        (None, "label", ["table.csv"]),
    ],
    ids=["a column that is not there", "an empty file", "no file"],
)
def test_a_table_that_cannot_be_used_is_said(
    call: Callable[..., Any], tmp_path: Path, text: str | None, target: str, parts: list[str]
) -> None:
    if text is not None:
        (tmp_path / "table.csv").write_text(text)
    refused(call("run", "table", "--data", "table.csv", "--target", target), *parts)
    assert not Path("runs").exists()


# -- study files ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "code", "parts"),
    [
        ("x = 1\ny = x / 0\n", 2, ["ZeroDivisionError", "line 2"]),
        ("def study(:\n", 2, ["SyntaxError", "line 1"]),
        ("def study():\n    return {}['lost']\n", 2, ["KeyError: 'lost'", "line 2"]),
        ("def study():\n    return 7\n", 2, ["must return a joulefront.search.Study, got int"]),
        ("study = 7\n", 2, ["no function study()", "def study() -> Study"]),
        ("import surely_not_installed\n", 2, ["ModuleNotFoundError", "surely_not_installed"]),
    ],
)
def test_a_study_file_that_raises_names_its_line(call: Callable[..., Any], tmp_path: Path, text: str, code: int, parts: list[str]) -> None:
    (tmp_path / "mine.py").write_text(text)
    refused(call("run", "mine.py"), "mine.py", *parts, code=code)
    assert not Path("runs").exists()


def test_a_task_that_raises_is_one_line_and_the_folder_can_be_used_again(
    call: Callable[..., Any], rings_file: Callable[[str], Path]
) -> None:
    file = rings_file("fine")
    good = file.read_text()
    file.write_text(good.replace("def task():\n", "def task():\n    raise LookupError('the server is gone')\n"))
    refused(call("run", file, "--out", "r"), "the server is gone", code=1)
    file.write_text(good)
    said = call("run", file, "--out", "r", "--trials", "1")
    assert said.code == 0, said.err
    assert len(RunFolder.open("r").run().trials) == 1


# -- run folders ----------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder as a study of three trials leaves it, without any training."""
    path = tmp_path_factory.mktemp("written") / "run"
    described = {
        "name": "written",
        "objectives": ["accuracy", "train_energy"],
        "directions": ["maximize", "minimize"],
        "rungs": [1, 3],
        "sampler": "random",
        "seed": 0,
        "space": "own",
        "description": "",
        "min_accuracy": None,
        "complete_only": False,
    }
    store = RunFolder.create(
        path, {"run_id": "written-1", "study": described, "origin": None, "intensity": None, "pue": 1.0, "sessions": []}
    )
    study = store.study()
    for number, (accuracy, joules, epochs) in enumerate([(0.7, 36.0, 1), (0.9, 360.0, 3), (0.6, 400.0, 3)]):
        params = {"width": 4 + number}
        trial = make_trial(
            number,
            "complete",
            params,
            epochs,
            (accuracy, joules),
            {"accuracy": accuracy},
            train_joules=joules,
            increment_joules=joules + 5.0,
            parameters=100,
            energy_quality="estimated",
            complete_training=epochs == 3,
        )
        study.add_trial(
            optuna.trial.create_trial(
                params=params,
                distributions={"width": optuna.distributions.IntDistribution(1, 9)},
                values=list(trial.values),
                user_attrs={ATTRIBUTE: trial.facts()},
            )
        )
    return path


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may spoil."""
    return Path(shutil.copytree(written, tmp_path / "run"))


def change(folder: Path, **changes: Any) -> None:
    file = folder / "study.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


SPOILT: dict[str, tuple[Callable[[Path], Any], list[str]]] = {
    "another version": (lambda run: change(run, format=99), ["format 99", "the version that wrote it"]),
    "no study.json": (lambda run: (run / "study.json").unlink(), ["no study.json", "half written"]),
    "half of study.json": (lambda run: (run / "study.json").write_text('{"format": 1, "stu'), ["study.json", "damaged"]),
    "another study.json": (lambda run: (run / "study.json").write_text("[1, 2]"), ["study.json", "damaged"]),
    "bytes in study.json": (lambda run: (run / "study.json").write_bytes(b"\xff\xfe\x00"), ["study.json", "damaged"]),
    "study.json without a study": (lambda run: change(run, study=None), ["study.json", "damaged"]),
    "no database": (lambda run: (run / "study.db").unlink(), ["study.db", "restore it"]),
    "an empty database": (lambda run: (run / "study.db").write_bytes(b""), ["half written"]),
    "bytes in the database": (lambda run: (run / "study.db").write_bytes(b"nonsense" * 999), ["study.db", "restore it"]),
    "half of the bill": (lambda run: (run / "bill.json").write_text('{"sess'), ["bill.json", "damaged"]),
}


@pytest.mark.parametrize("how", SPOILT)
def test_a_run_folder_that_cannot_be_read_says_why_and_stays_as_it_is(call: Callable[..., Any], folder: Path, how: str) -> None:
    spoil, parts = SPOILT[how]
    spoil(folder)
    before = {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file() and file.name != "study.db"}
    refused(call("front", folder), *parts)
    refused(call("export", folder, "--to", "onnx", "-o", "model"), *parts)
    assert {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file() and file.name != "study.db"} == before
    assert not Path("model").exists()


def test_a_missing_run_folder_names_its_neighbours(call: Callable[..., Any], folder: Path) -> None:
    refused(call("front", folder.with_name("rnu")), "does not exist", "there are: run")


def test_an_out_that_holds_other_files_is_left_alone(call: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("years of work")
    refused(call("run", "digits", "--out", "thesis"), "'thesis'", "another --out")
    assert [file.name for file in (tmp_path / "thesis").iterdir()] == ["chapter.tex"]
    refused(call("run", "digits", "--out", "thesis/chapter.tex"), "is a file")


def test_a_storage_that_cannot_be_used_leaves_no_folder_and_shows_no_password(call: Callable[..., Any]) -> None:
    line = refused(call("run", "digits", "--storage", "nosuchdb://me:secret@nowhere/db", "--out", "r"), "--storage")
    assert "secret" not in line
    assert not Path("r").exists()


def test_a_run_goes_on_only_with_the_same_study(call: Callable[..., Any], folder: Path) -> None:
    refused(call("run", "digits", "--out", folder), "holds a study with other rungs", "new --out")


# -- picks --------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pick", "parts"),
    [
        ("accuracy>=0.95", ["nearest is trial=1", "0.9000"]),
        ("accuracy>=90", ["0.95, not 95"]),
        ("energy<=1J", ["nearest is trial=0", "energy<=36J"]),
        ("energy<=5", ["no unit", "energy<=5Wh"]),
        ("trial=7", ["trial 7 does not exist", "nearest is trial=1"]),
        ("trial=1.5", ["by its number"]),
        ("fastest", ["must be a rule, got 'fastest'", "knee"]),
        ("speed>=3", ["'speed' was not measured", "accuracy"]),
    ],
)
def test_a_pick_that_no_trial_meets_names_the_nearest(call: Callable[..., Any], folder: Path, pick: str, parts: list[str]) -> None:
    refused(call("export", folder, "--pick", pick, "--to", "onnx", "-o", "model"), *parts)
    assert not Path("model").exists()


def test_an_unknown_format_lists_those_that_there_are(call: Callable[..., Any], folder: Path) -> None:
    refused(call("export", folder, "--to", "docx", "-o", "model"), "'docx'", "onnx, pt2, safetensors, skops")
    assert not Path("model").exists()


def test_a_plot_of_an_unknown_kind_lists_those_that_there_are(call: Callable[..., Any], folder: Path) -> None:
    refused(call("plot", folder, "-o", "front.gif"), "'front.gif'", ".html, .png, .svg")
    assert not Path("front.gif").exists()


def test_a_comparison_is_printed_and_drawn_and_an_unknown_one_is_refused(call: Callable[..., Any], folder: Path) -> None:
    said = call("plot", folder, "--of", "relations", "-o", "new/relations.png")
    assert said.code == 0
    assert "Spearman" in said.out
    assert said.out.rstrip().endswith("new/relations.png")
    assert Path("new/relations.png").stat().st_size > 5_000
    refused(call("plot", folder, "--of", "tactics", "-o", "t.png"), "'plain'")
    refused(call("plot", folder, "--of", "sizes", "-o", "t.png"), "--of must be front, relations or tactics", "'sizes'")
    refused(call("plot", folder, "--of", "relations", "-o", "t.html"), "'t.html'", ".png or .svg")


def test_a_run_that_came_from_python_asks_for_its_study(call: Callable[..., Any], folder: Path) -> None:
    refused(call("export", folder, "--to", "safetensors", "-o", "model"), "came from Python", "--study my_study.py")


def test_zones_and_prices_that_are_none_are_refused(call: Callable[..., Any], folder: Path) -> None:
    refused(call("price", folder, "--zones", "ATLANTIS"), "ATLANTIS")
    refused(call("price", folder, "--zones", "FR", "--price", "0,25EUR"), "0.25EUR", "decimals with a point")


# -- reading a run --------------------------------------------------------------------------------------------------------------------

KEYS = [
    "trial",
    "epochs",
    "accuracy",
    "train_joules",
    "train_wh",
    "grams_co2e",
    "inference_joules_per_1000",
    "parameters",
    "quality",
    "params",
]


def test_the_front_as_json_has_the_promised_keys_and_null_where_unknown(call: Callable[..., Any], folder: Path) -> None:
    said = call("front", folder, "--json")
    rows = json.loads(said.out)
    assert said.err == ""
    assert [list(row) for row in rows] == [KEYS, KEYS]
    assert rows[0] == {
        "trial": 0,
        "epochs": 1,
        "accuracy": 0.7,
        "train_joules": 36.0,
        "train_wh": 0.01,
        "grams_co2e": None,
        "inference_joules_per_1000": None,
        "parameters": 100,
        "quality": "estimated",
        "params": {"width": 4},
    }


def test_the_front_as_csv_is_the_same(call: Callable[..., Any], folder: Path) -> None:
    import csv
    import io

    rows = list(csv.DictReader(io.StringIO(call("front", folder, "--csv").out)))
    assert list(rows[0]) == KEYS
    assert [float(row["train_joules"]) for row in rows] == [36.0, 360.0]
    assert rows[1]["grams_co2e"] == ""
    assert json.loads(rows[1]["params"]) == {"width": 5}


def test_complete_leaves_out_what_was_stopped_early(call: Callable[..., Any], folder: Path) -> None:
    rows = json.loads(call("front", folder, "--json", "--complete").out)
    assert [row["trial"] for row in rows] == [1]


def test_the_front_as_a_table_says_which_energy_it_is(call: Callable[..., Any], folder: Path) -> None:
    said = call("front", folder)
    assert "knee" in said.out
    assert "2 of 3 trials are on the front" in said.out
    assert "estimated" in said.out


def test_two_runs_are_compared_and_priced(call: Callable[..., Any], folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "other")
    rows = json.loads(call("compare", folder, "other", "--json").out)
    assert len(rows) == 2
    assert "0.9000" in call("compare", folder, "other").out
    places = json.loads(call("price", folder, "--zones", "FR, PL", "--json").out)
    assert [row["zone"] for row in places] == ["FR", "PL"]
    assert places[0]["knee_grams_co2e"] < places[1]["knee_grams_co2e"]
    assert "PUE 1 " in call("price", folder, "--zones", "FR").out


def test_the_doctor_speaks_json(call: Callable[..., Any]) -> None:
    said = call("doctor", "--json", "--meter", "cpu_time", "--zone", "FR")
    found = json.loads(said.out)
    assert said.code == 0
    assert {finding["subject"] for finding in found["findings"]} >= {"gpu", "cpu", "dram", "wall", "carbon"}
    assert next(f for f in found["findings"] if f["subject"] == "cpu" and f["source"] == "cpu_time")["quality"] == "estimated"
    text = call("doctor", "--meter", "cpu_time").out
    assert "->" in text
    assert "--zone" in text
