"""From a name, a file or a module to a study, and back to what makes the same study again."""

import os
import sys
from pathlib import Path

import cloudpickle
import pytest

from joulefront.search.cli import main
from joulefront.search.cli.options import bundled_studies
from joulefront.search.cli.study_source import StudyError, find_study, named_values, origin_of

GOOD = """
from joulefront.search import Study
from joulefront.spaces.mlp import Mlp
def study(data=None):
    return Study(name=f"own-{data}", task=lambda: None, space=Mlp(), trials=3)
def needs(target): ...
def raises(): return {}["missing"]
def wrong(): return 7
"""


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "my_study.py"
    path.write_text(GOOD)
    return str(path)


def test_the_bundled_studies_have_a_line_each() -> None:
    studies = bundled_studies()
    assert "digits" in studies
    assert all(len(line) > 20 for line in studies.values())


def test_a_file_gives_its_study_and_takes_options(file: str) -> None:
    assert find_study(file, {"data": None}).name == "own-None"
    assert find_study(file + ":study", {"data": "here"}).name == "own-here"


def test_an_unknown_name_suggests_the_nearest_one() -> None:
    with pytest.raises(StudyError, match="did you mean 'digits'"):
        find_study("digit", {})


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (":raises", "raised KeyError: 'missing'.*line 7"),
        (":wrong", "must return a joulefront.search.Study, got int"),
        (":absent", "no function absent"),
        (":needs", "needs --target"),
    ],
)
def test_a_bad_function_gets_one_clear_line(file: str, source: str, message: str) -> None:
    with pytest.raises(StudyError, match=message) as caught:
        find_study(file + source, {})
    assert "\n" not in str(caught.value)


def test_an_option_that_the_study_does_not_take_is_named(file: str) -> None:
    with pytest.raises(StudyError, match="takes no --target"):
        find_study(file, {"target": "price"})


def test_a_file_that_raises_while_it_is_read_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "broken.py"
    path.write_text("x = 1\ny = 1 / 0\n")
    with pytest.raises(StudyError, match=r"ZeroDivisionError.*broken\.py, line 2"):
        find_study(str(path), {})
    path.write_text("def study(:\n")
    with pytest.raises(StudyError, match="SyntaxError"):
        find_study(str(path), {})


def test_a_missing_file_or_module_is_named() -> None:
    with pytest.raises(StudyError, match="does not exist"):
        find_study("nowhere/my_study.py", {})
    with pytest.raises(StudyError, match="cannot import 'no_such_module'"):
        find_study("no_such_module:study", {})


def test_other_options_of_a_study_are_read_from_name_value_pairs() -> None:
    assert named_values(["models=resnet18,convnext_*", "weights=a=b.pt"]) == {"models": "resnet18,convnext_*", "weights": "a=b.pt"}
    for wrong in ("models", "=x", "a b=c", "models="):
        with pytest.raises(StudyError, match="NAME=VALUE"):
            named_values([wrong])


def test_the_text_of_an_option_is_read_as_its_declared_type(tmp_path: Path) -> None:
    path = tmp_path / "typed.py"
    path.write_text(
        "from __future__ import annotations\n"
        "seen = {}\n"
        "def study(count: int | None = None, watts: tuple[float, ...] = (), on: bool = False, share=0.5, other=None, text: str = ''):\n"
        "    raise ValueError(repr((count, watts, on, share, other, text)))\n"
    )

    def said(**options: str) -> str:
        with pytest.raises(StudyError) as caught:
            find_study(str(path), options)
        return str(caught.value)

    assert said(count="3", watts="200,300.5", on="yes", share="1e-3", other="7", text="7") == "(3, (200.0, 300.5), True, '1e-3', '7', '7')"
    assert said(watts="200") == "(None, (200.0,), False, 0.5, None, '')"
    assert said(count="many") == "--set count must be a whole number, got 'many'; for example --set count=3"
    assert said(on="perhaps") == "--set on must be true or false, got 'perhaps'; for example --set on=true"
    assert (
        said(watts="200,full")
        == "--set watts must be a number or several, separated by commas, got '200,full'; for example --set watts=0.5"
    )


def test_the_bundled_studies_take_numbers_from_the_command_line() -> None:
    from joulefront.spaces.union import Repeated

    study = find_study("tactics", {"repeats": "2", "examples": "100"})
    assert isinstance(study.space, Repeated)
    assert study.space.times == 2
    with pytest.raises(StudyError, match="--set repeats must be a whole number, got 'two'"):
        find_study("tactics", {"repeats": "two"})


def test_paths_are_recorded_absolute_and_names_are_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("photos", "price", "w.safetensors", "mine.py"):
        (tmp_path / name).touch()
    options = {"data": "photos", "target": "price", "weights": "w.safetensors", "models": "price", "smoke": True, "seed": None}
    assert origin_of("mine.py:other", options, {}) == {
        "source": f"{tmp_path}/mine.py:other",
        "options": {
            "data": f"{tmp_path}/photos",
            "target": "price",
            "weights": f"{tmp_path}/w.safetensors",
            "models": "price",
            "smoke": True,
        },
        "overrides": {},
        "code": "",
    }
    assert origin_of("digits", {"data": "http://nowhere/x.csv"}, {})["options"] == {"data": "http://nowhere/x.csv"}


def test_the_code_of_a_study_file_is_known_without_comments_and_what_makes_the_study(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"

    def code(text: str) -> str:
        path.write_text(text)
        return str(origin_of(str(path), {}, {})["code"])

    made = "def make(a, task):\n    return Net(a['width'])\n"
    asked = "def study():\n    return Study(space=Own(draw, make), trials=3)\n"
    assert code(made + asked) == code("# mine\n\n" + made.replace("):", "):  # two") + asked.replace("3", "30")) != code(asked)
    assert code(made.replace("Net", "Other") + asked) != code(made + asked) != ""
    assert origin_of("digits", {}, {})["code"] == ""


@pytest.mark.parametrize("inside", [False, True])
def test_data_in_the_place_of_a_study_get_the_command_that_learns_from_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inside: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my photos").mkdir()
    Path("homes.csv").touch()
    before = "./" if inside else ""
    with pytest.raises(StudyError, match=r"for these data joulefront run images --data '[^ ]*my photos'; else give"):
        find_study(f"{before}my photos", {})
    with pytest.raises(StudyError, match=r"for these data joulefront run table --data [^ ]*homes\.csv --target COLUMN; else give"):
        find_study(f"{before}homes.csv", {})
    Path("my photos/labels.csv").touch()
    with pytest.raises(StudyError, match=r"for these data joulefront run table --data '[^ ]*my photos' --target COLUMN; else give"):
        find_study(f"{before}my photos", {})
    Path("my photos/one.jpg").touch()
    with pytest.raises(StudyError, match=r"for these data joulefront run images --data '[^ ]*my photos'; else give"):
        find_study(f"{before}my photos", {})
    Path("calls").mkdir()
    Path("calls/one.wav").touch()
    with pytest.raises(StudyError, match=r"for these data joulefront run sound --data [^ ]*calls; else give"):
        find_study(f"{before}calls", {})
    Path("photos.zip").touch()
    with pytest.raises(StudyError, match=r"for these data joulefront run images --data [^ ]*photos\.zip; else give"):
        find_study(f"{before}photos.zip", {})
    Path("notes.docx").touch()
    with pytest.raises(StudyError) as caught:
        find_study(f"{before}notes.docx", {})
    assert "for these data" not in str(caught.value)
    Path("digits-1").mkdir()
    Path("digits-1/study.json").write_text('{"format": 1}')
    with pytest.raises(StudyError, match=r"it is a run folder: joulefront run STUDY --out [^ ]*digits-1 continues it; else give"):
        find_study(f"{before}digits-1", {})
    with pytest.raises(StudyError, match="does not exist"):
        find_study("./nowhere", {})


@pytest.mark.parametrize("line", ["from . import of_rows", "import of_rows"])
def test_a_study_whose_data_are_made_in_its_neighbour_reaches_the_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "of_rows.py").write_text("rows = 7\ndef data():\n    return rows\n")
    (tmp_path / "in_folder.py").write_text(
        f"{line}\nfrom joulefront.search import Study\nfrom joulefront.spaces.own import Own\n"
        "def sample(trial):\n    return of_rows.data()\n"
        "def study():\n    return Study(name='own', task=of_rows.data, space=Own(sample, sample), trials=3)\n"
    )
    told = cloudpickle.dumps(find_study(str(tmp_path / "in_folder.py"), {}))
    for name in [name for name in sys.modules if "in_folder" in name]:
        monkeypatch.delitem(sys.modules, name)  # a worker has none of them
    study = cloudpickle.loads(told)
    assert study.task() == study.space.draw(None) == 7


@pytest.mark.parametrize("text", ["raise SystemExit(3)\n", "def study():\n    raise SystemExit(3)\n"])
def test_a_study_that_ends_the_process_is_an_error_that_names_its_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "ends.py").write_text(text)
    with pytest.raises(StudyError, match=rf"raised SystemExit: 3 \(ends\.py, line {text.count(chr(10))}\)"):
        find_study(str(tmp_path / "ends.py"), {})


def test_a_neighbour_of_a_study_that_hides_a_library_gets_a_word(
    file: str, recwarn: pytest.WarningsRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(file.partition(":")[0]).parent
    (folder / "helper_of_mine.py").touch()
    find_study(file, {})
    assert not recwarn.list
    (folder / "optuna.py").touch()
    (folder / "json").mkdir()
    (folder / "yaml").mkdir()  # no package, which Python prefers to look for elsewhere
    (folder / "json" / "__init__.py").touch()
    (folder / "of_another_layer.py").touch()
    layer = folder / "venv" / "site-packages"
    layer.mkdir(parents=True)
    (layer / "of_another_layer.py").touch()
    monkeypatch.setattr(sys, "path", [*sys.path, str(layer)])
    with pytest.warns(UserWarning, match=r"^json, of_another_layer.py, optuna.py in .* hides the library of that name from .*; rename"):
        find_study(file, {})


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes")
def test_data_that_can_be_read_once_are_refused_and_never_waited_for(file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    monkeypatch.chdir(tmp_path)
    for data in ("-", "/dev/stdin", "/proc/self/fd/0", str(tmp_path / "pipe.csv"), "pipe.csv"):
        with pytest.raises(StudyError, match=r"--data must be a file or a folder, .* got the stream .*; write it to a file first"):
            find_study(file, {"data": data})
    with pytest.raises(SystemExit):
        main(["inspect", "pipe.csv"])
    (tmp_path / "-").touch()
    assert find_study(file, {"data": "-"}).name == "own--"


@pytest.mark.parametrize("place", ["os.chdir('/')\n", "def study():\n    os.chdir('/')\n"])
def test_a_study_that_changes_the_working_folder_is_refused_and_the_folder_put_back(tmp_path: Path, place: str) -> None:
    before, path = os.getcwd(), tmp_path / "moves.py"
    path.write_text(f"import os\n{place}")
    with pytest.raises(StudyError, match=r"must leave the working folder as it is, got '/' by os.chdir; .*Path\(__file__\)"):
        find_study(str(path), {})
    assert os.getcwd() == before
