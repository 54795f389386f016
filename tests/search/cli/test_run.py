"""The verbs run and estimate: what they print and store, and what they refuse before anything is trained."""

import json
import shlex
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.command_line import Circle, refused, say
from helpers.page import data_of
from PIL import Image

from joulefront.search.cli.study_source import command_line, study_of
from joulefront.search.execution.probe import Probe
from joulefront.search.front import Front
from joulefront.search.records.run_folder import RunFolder, StoreError
from joulefront.search.report.view import View
from joulefront.search.running.estimate import Overhead
from joulefront.search.running.identity import estimate_file

pytestmark = pytest.mark.slow

# -- a run ---------------------------------------------------------------------------------------------------------------------------------


def test_only_results_are_on_stdout(circle: Circle) -> None:
    assert "knee" in circle.out
    assert circle.out.rstrip().splitlines()[-1].startswith("next: joulefront export ")
    for name in ("front.html", "front.png"):
        assert str(circle.path / name) in circle.out
        assert (circle.path / name).stat().st_size > 1000
    assert "trial 0: " not in circle.out
    assert "trial 0: " in circle.err
    assert "trials 5/5" in circle.err
    assert "ended: all 5 trials are done" in circle.err


def test_terminal_page_picture_and_next_name_the_same_model(circle: Circle) -> None:
    picked = Front.of(RunFolder.open(circle.path).run()).pick("sensible").number
    page = data_of(circle.path / "front.html")
    assert page["choice"]["sensible"] == picked
    assert f"sensible: trial {picked}," in " ".join(circle.out.split())
    lines = circle.out.splitlines()
    marked = [" ".join(lines[k : k + 2]) for k, line in enumerate(lines) if line.split()[:1] == [str(picked)]]  # a narrow row is two lines
    assert any("sensible" in line for line in marked)
    assert View.of(Front.of(RunFolder.open(circle.path).run())).named[0][1].number == picked
    assert " --pick sensible " in circle.out.rstrip().splitlines()[-1]
    assert page["bill"]["total"] > 0
    assert page["importance"] == []  # that would cost every run a second of a CPU


def test_the_next_command_can_be_typed_as_it_stands(circle: Circle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = shlex.split(circle.out.rstrip().splitlines()[-1].removeprefix("next: "))
    assert words[0] == "joulefront"
    assert words[2] == str(circle.path)
    out, _ = say(*words[1:])
    assert "checked on" in out
    import onnxruntime

    session = onnxruntime.InferenceSession(tmp_path / "model" / out.splitlines()[0].split("/")[-1])
    found, *_ = session.run(None, {session.get_inputs()[0].name: np.zeros((3, 2))})
    assert found.shape == (3, 2)
    card = (tmp_path / "model" / "README.md").read_text()
    assert "co2_eq_emissions" in card
    assert shlex.join(["joulefront", *circle.words]) in card


@pytest.mark.parametrize("words", [["--trials", "5"], ["--trials", "2"], ["--budget", "1nWh"]])
def test_a_study_that_has_done_what_is_asked_for_says_how_to_go_on_and_is_no_mistake(circle: Circle, words: list[str]) -> None:
    sessions = RunFolder.open(circle.path).facts["sessions"]
    out, err = say(*circle.words, *words)
    assert "circle is finished in" in err
    assert "a larger --trials or --budget continues it" in " ".join(err.split())
    assert out.rstrip().splitlines()[-1] == circle.out.rstrip().splitlines()[-1]
    assert len(RunFolder.open(circle.path).run().trials) == 5
    assert RunFolder.open(circle.path).facts["sessions"] == sessions
    with pytest.raises(SystemExit):
        say(*circle.words, *words, "--meter", "nonsense")


def test_the_command_line_is_recorded_for_every_session(circle: Circle) -> None:
    facts = RunFolder.open(circle.path).facts
    assert [session["command"] for session in facts["sessions"]] == [shlex.join(["joulefront", *circle.words])]
    assert facts["origin"]["source"] == str(circle.study.resolve())
    assert facts["origin"]["overrides"]["seed"] == 3
    assert command_line(["run", "x", "--storage", "postgresql://a:b@c/d"]) == "joulefront run x --storage postgresql://a@c/d"


def test_the_limit_of_a_single_training_is_kept_for_the_verbs_that_train_again(tmp_path: Path, rings_file: Callable[[str], Path]) -> None:
    say("run", rings_file("fine"), "--out", tmp_path / "r", "--meter", "cpu_time", "--trials", 1, "--trial-timeout", "90s")
    assert study_of(RunFolder.open(tmp_path / "r"), None, None, trust=True).max_trial_seconds == 90.0


def test_a_continued_run_records_where_its_study_is_now(tmp_path: Path, rings_file: Callable[[str], Path]) -> None:
    file = rings_file("fine")
    say("run", file, "--out", tmp_path / "r", "--trials", "1")
    moved = file.rename(tmp_path / "moved rings.py")
    assert "is other code" not in "".join(say("run", moved, "--out", tmp_path / "r", "--trials", "2"))
    facts = RunFolder.open(tmp_path / "r").facts
    assert facts["origin"]["source"] == str(moved.resolve())
    assert len(facts["sessions"]) == 2
    assert facts["sessions"][1]["command"] == shlex.join(["joulefront", "run", str(moved), "--out", str(tmp_path / "r"), "--trials", "2"])
    say("export", "--trust", tmp_path / "r", "--to", "safetensors", "-o", tmp_path / "model")
    assert (tmp_path / "model" / "model.safetensors").exists()
    moved.write_text(moved.read_text() + "\nDEPTH = 3\n")
    with pytest.warns(
        UserWarning, match="moved rings.py is other code than that of the trials in .*; if its models differ, give a new --out"
    ):
        say("run", moved, "--out", tmp_path / "r", "--trials", "2")


def test_a_run_does_not_become_a_class_of_its_own_data(call: Callable[..., Any], tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / name / "a.png")
    refused(call("run", "images", "--data", tmp_path, "--out", tmp_path / "run"), "--out must lie outside of --data")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["cat", "dog"]


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


def test_a_run_continues_only_with_the_same_study(call: Callable[..., Any], folder: Path) -> None:
    refused(call("run", "digits", "--out", folder), "holds a study with other rungs", "new --out")


def test_a_timeout_that_starting_has_taken_says_so(call: Callable[..., Any], rings_file: Callable[[str], Path]) -> None:
    said = call("run", rings_file("fine"), "--out", "r", "--timeout", "0.0001s", "--meter", "cpu_time")
    assert said.code == 1
    assert "while the study was starting; give a longer --timeout" in said.err


def test_rungs_are_set_on_the_command_line_and_kept(call: Callable[..., Any], rings_file: Callable[[str], Path]) -> None:
    refused(call("run", rings_file("fine"), "--out", "r", "--rungs", "3,1"), "--rungs must be ascending", "--rungs 1,3,9,27")
    assert not Path("r").exists()
    assert call("run", rings_file("fine"), "--out", "r", "--rungs", "2,3", "--trials", 1, "--meter", "cpu_time").code == 0
    facts = RunFolder.open("r").facts
    assert facts["study"]["rungs"] == [2, 3]
    assert study_of(RunFolder.open("r"), None, None, trust=True).rungs == (2, 3)
    refused(call("run", rings_file("fine"), "--out", "r", "--rungs", "2,4", "--trials", 2), "other rungs ([2, 3], now [2, 4])")


def test_chosen_rungs_are_said_stored_and_continued(call: Callable[..., Any], rings_file: Callable[[str], Path]) -> None:
    file = rings_file("fine")
    file.write_text(file.read_text().replace("rungs=(1, 2, 4),", ""))
    said = call("run", file, "--out", "r", "--trials", 1, "--meter", "cpu_time")
    assert said.code == 0, said.err
    rungs = RunFolder.open("r").facts["study"]["rungs"]
    assert rungs == [9, 27, 81, 243]  # 420 examples in batches of 64
    assert "rungs: 9, 27, 81, 243 epochs; --rungs" in said.err
    assert call("run", file, "--out", "r", "--trials", 2, "--meter", "cpu_time").code == 0
    assert RunFolder.open("r").facts["study"]["rungs"] == rungs


# -- data ----------------------------------------------------------------------------------------------------------------------------------


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
    assert not Path("runs").exists()  # a start that failed leaves nothing behind


def test_a_file_that_is_not_a_zip_is_refused(call: Callable[..., Any], tmp_path: Path) -> None:
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
def test_a_table_that_cannot_be_used_is_refused(
    call: Callable[..., Any], tmp_path: Path, text: str | None, target: str, parts: list[str]
) -> None:
    if text is not None:
        (tmp_path / "table.csv").write_text(text)
    refused(call("run", "table", "--data", "table.csv", "--target", target), *parts)
    assert not Path("runs").exists()


# -- study files ---------------------------------------------------------------------------------------------------------------------------


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


def test_a_run_that_is_refused_changes_no_session_and_leaves_no_bar(
    call: Callable[..., Any], folder: Path, rings_file: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[Any] = []

    def refused_start(*given: Any, **options: Any) -> None:  # another process holds the folder, and begins a session meanwhile
        store = RunFolder.open(folder)
        store.save_facts({**store.facts, "sessions": [{"command": "joulefront run theirs"}]})
        raise StoreError("another process is running the study")

    monkeypatch.setattr("joulefront.search.running.run.run", refused_start)
    monkeypatch.setattr("joulefront.search.running.progress.Console._close", lambda console: closed.append(console))
    refused(call("run", rings_file("fine"), "--out", folder, "--trials", "9"), "another process")
    facts = RunFolder.open(folder).facts
    assert (facts["sessions"], facts["origin"]) == ([{"command": "joulefront run theirs"}], None)
    assert len(closed) == 1


# -- estimates -----------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def probed(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Studies that were probed, without a meter: every candidate costs 2 J an epoch."""
    seen: list[Any] = []

    def probe_study(study: Any, **options: Any) -> Any:
        seen.append(study)
        return [Probe({}, 2.0, 0.1, 0.0)] * 4, Overhead(0.0, 0.0), 1.0

    monkeypatch.setattr("joulefront.search.running.estimate.probe_study", probe_study)
    return seen


@pytest.mark.parametrize(
    ("words", "joules"),
    [
        (["--budget", "20gCO2e", "--intensity", "50"], 20 / 50 * 3.6e6),
        (["--budget", "20gCO2e", "--intensity", "50", "--pue", "1.25"], 20 / 62.5 * 3.6e6),
        (["--budget", "1EUR", "--price", "0.25EUR"], 4 * 3.6e6),
    ],
)
def test_a_budget_in_grams_or_money_is_estimated_as_it_would_be_spent(
    call: Callable[..., Any], rings_file: Callable[[str], Path], probed: list[Any], words: list[str], joules: float
) -> None:
    said = call("estimate", rings_file("fine"), *words, "--trials", 10**9, "--json")
    assert said.code == 0, said.err
    assert json.loads(said.out)["joules"] == pytest.approx(joules)


def test_the_study_that_is_estimated_is_the_one_that_would_run(
    call: Callable[..., Any], rings_file: Callable[[str], Path], probed: list[Any]
) -> None:
    words = ["--trials", 5, "--sampler", "tpe", "--objectives", "accuracy,train_energy,parameters", "--seed", 3]
    assert call("estimate", rings_file("fine"), *words).code == 0
    (study,) = probed
    assert (study.sampler, study.objectives[-1], study.seed) == ("tpe", "parameters", 3)


def test_an_estimate_knows_where_it_is_kept_before_anything_is_probed(
    call: Callable[..., Any], rings_file: Callable[[str], Path], probed: list[Any]
) -> None:
    file = rings_file("fine")
    Path("here").write_text("")
    refused(call("estimate", file, "--out", "here/run"), "--out must lie in a folder that can be written", "'here/run'")
    Path("taken.estimate.json").mkdir()
    refused(call("estimate", file, "--out", "taken"), "taken.estimate.json' must be a file, got a folder")
    refused(call("estimate", file, "--earlier", "nowhere"), "run folder 'nowhere' does not exist")
    assert probed == []
    assert call("estimate", file, "--out", ".").code == 0
    assert estimate_file(Path()).is_file()
    assert estimate_file(Path("/")) == Path("/.estimate.json")
    Path("loop").symlink_to("loop")
    assert estimate_file(Path("loop")).name == "loop.estimate.json"


def test_a_damaged_estimate_is_refused_before_a_run_begins(call: Callable[..., Any], rings_file: Callable[[str], Path]) -> None:
    file = rings_file("fine")
    for text in ("[" * 100_000, '{"joules": "x"}', '{"joules": NaN}', ""):
        Path("r.estimate.json").write_text(text)
        refused(call("run", file, "--out", "r"), "r.estimate.json' is damaged", "delete it")
    assert not Path("r").exists()


def test_a_study_receives_its_own_options(call: Callable[..., Any], rings_file: Callable[[str], Path], probed: list[Any]) -> None:
    path = rings_file("fine")
    path.write_text(
        path.read_text().replace("def study(seed=0):", "def study(seed=0, trials: int = 6):").replace("trials=6", "trials=trials")
    )
    assert call("estimate", path, "--set", "trials=9").code == 0
    assert probed[0].trials == 9


def test_a_budget_in_grams_without_a_place_names_options_that_exist(
    call: Callable[..., Any], rings_file: Callable[[str], Path], probed: list[Any]
) -> None:
    said = call("estimate", rings_file("fine"), "--budget", "20gCO2e")
    assert said.code == 2
    assert "--zone" in said.err
    help_text = call("estimate", "--help").out
    assert "--zone" in help_text
    assert "--intensity" in help_text
    assert probed == []
