"""The verbs on a real run: tiny, but trained, metered, stored and exported like any other."""

import contextlib
import io
import json
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from joulefront.search.cli import main
from joulefront.search.cli.read import trained
from joulefront.search.cli.study_source import command_line, origin_of
from joulefront.search.records.run_folder import RunFolder
from joulefront.search.records.trial import Trial

STUDY = '''
"""Points inside and outside of a circle."""
import numpy as np
import torch
from joulefront.search import Study
from joulefront.search.training.arrays import arrays
from joulefront.spaces.own import Own
from joulefront.spaces.recipes import RecipeRanges

class Choosy(torch.nn.Linear):
    def forward(self, x):
        return super().forward(x if x.sum() > 0 else 2 * x)

def draw(trial):
    return {"width": trial.suggest_int("width", 4, 32, log=True)}

def make(architecture, task):
    last = Choosy if MODE == "choosy" else torch.nn.Linear
    return torch.nn.Sequential(torch.nn.Linear(2, architecture["width"]), torch.nn.ReLU(), last(architecture["width"], task.outputs))

def one(trial):
    return {"width": 8}

def task():
    x = np.random.default_rng(0).normal(size=(600, 2)).astype("float32")
    return arrays(x, ((x**2).sum(1) > 1.4).astype("int64"), name="circle", classes=["inside", "outside"])

def study(seed=0):
    rate = 0.03 if MODE == "one" else (1e-3, 1e-1)
    recipe = RecipeRanges(learning_rate=rate, weight_decay=0.0, batch_size=64)
    space = Own(one if MODE == "one" else draw, make, recipe=recipe)
    return Study(name="circle", task=task, space=space, rungs=(2,) if MODE == "one" else (1, 2, 4), trials=5, sampler="random", seed=seed)
'''


def write(folder: Path, mode: str) -> Path:
    path = folder / f"circle_{mode}.py"
    path.write_text(STUDY.replace("import numpy", f'MODE = "{mode}"\nimport numpy', 1))
    return path


def say(*words: object) -> tuple[str, str]:
    """Call the command line and return what it wrote to stdout and to stderr."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        main([str(word) for word in words])
    return out.getvalue(), err.getvalue()


class Circle:
    """A finished run and what the command said."""

    def __init__(self, folder: Path, mode: str, *words: str) -> None:
        self.study = write(folder, mode)
        self.path = folder / f"run {mode}"
        self.words = ["run", str(self.study), "--out", str(self.path), *words]
        self.out, self.err = say(*self.words)


@pytest.fixture(scope="module")
def circle(tmp_path_factory: pytest.TempPathFactory) -> Circle:
    return Circle(tmp_path_factory.mktemp("circle"), "fine", "--zone", "FR", "--meter", "cpu_time", "--seed", "3")


@pytest.fixture(scope="module")
def same(tmp_path_factory: pytest.TempPathFactory) -> Circle:
    """A space with a single candidate: all trials but the first are copies."""
    return Circle(tmp_path_factory.mktemp("same"), "one", "--trials", "3")


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


def test_the_next_command_can_be_typed_as_it_stands(circle: Circle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = shlex.split(circle.out.rstrip().splitlines()[-1].removeprefix("next: "))
    assert words[0] == "joulefront"
    assert words[2] == str(circle.path)
    out, _ = say(*words[1:])
    assert "checked on" in out
    import onnxruntime

    session = onnxruntime.InferenceSession(tmp_path / "model" / out.splitlines()[0].split("/")[-1])
    (found,) = session.run(None, {"inputs": np.zeros((3, 2), dtype=np.float32)})
    assert found.shape == (3, 2)
    card = (tmp_path / "model" / "README.md").read_text()
    assert "co2_eq_emissions" in card
    assert shlex.join(["joulefront", *circle.words]) in card


def test_what_was_typed_is_kept_for_every_session(circle: Circle) -> None:
    facts = RunFolder.open(circle.path).facts
    assert [session["command"] for session in facts["sessions"]] == [shlex.join(["joulefront", *circle.words])]
    assert facts["origin"]["source"] == str(circle.study.resolve())
    assert facts["origin"]["overrides"]["seed"] == 3
    assert command_line(["run", "x", "--storage", "postgresql://a:b@c/d"]) == "joulefront run x --storage postgresql://a:...@c/d"


def test_grams_follow_the_zone(circle: Circle) -> None:
    rows = json.loads(say("front", circle.path, "--json")[0])
    assert rows
    for row in rows:
        assert row["train_joules"] > 0
        assert row["train_wh"] == pytest.approx(row["train_joules"] / 3600)
        assert 20 < row["grams_co2e"] / (row["train_wh"] / 1000) < 100  # a French kWh
        assert row["quality"] == "estimated"
        assert set(row["params"]) == {"width", "learning_rate"}


@pytest.mark.parametrize(("name", "begin"), [("f.html", b"<!doctype html>"), ("f.png", b"\x89PNG"), ("f.svg", b"<?xml")])
def test_the_front_is_drawn_by_the_ending(circle: Circle, tmp_path: Path, name: str, begin: bytes) -> None:
    out, err = say("plot", circle.path, "-o", tmp_path / "new" / name)
    assert out == f"{tmp_path / 'new' / name}\n"
    assert err == ""
    assert (tmp_path / "new" / name).read_bytes().lstrip().lower()[: len(begin)] == begin.lower()


def test_the_report_is_one_page_that_needs_no_network(circle: Circle, tmp_path: Path) -> None:
    out, _ = say("report", circle.path, "-o", tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert out.strip() == str(tmp_path / "report.html")
    assert "circle" in page
    assert "cpu_time" in page
    assert 'src="http' not in page


def test_the_same_run_is_priced_and_compared(circle: Circle, same: Circle) -> None:
    rows = json.loads(say("price", circle.path, "--zones", "FR,PL", "--price", "0.25EUR", "--pue", "1.5", "--json")[0])
    assert rows[1]["search_grams_co2e"] > rows[0]["search_grams_co2e"]
    assert rows[0]["search_cost"] == pytest.approx(rows[0]["search_kwh"] * 1.5 * 0.25)
    assert len(json.loads(say("compare", circle.path, same.path, "--json")[0])) == 2


@pytest.mark.parametrize("pick", ["knee", "best", "cheapest", "accuracy>=0.1", "energy<=1kWh"])
def test_every_pick_is_exported_from_another_folder(circle: Circle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pick: str) -> None:
    monkeypatch.chdir(tmp_path)
    out, _ = say("export", circle.path, "--pick", pick, "--to", "safetensors", "-o", "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    rows = json.loads(say("front", circle.path, "--json")[0])
    assert config["trial"] in [row["trial"] for row in rows]
    assert "outputs within 0.0e+00" in out


def test_a_copied_trial_is_exported_with_the_weights_of_its_twin(same: Circle, tmp_path: Path) -> None:
    trials = RunFolder.open(same.path).run().trials
    assert [trial.extra.get("copy_of") for trial in trials] == [None, 0, 0]
    assert [trial.increment_joules for trial in trials[1:]] == [0.0, 0.0]
    for pick in ("trial=0", "trial=2", "knee"):
        say("export", same.path, "--pick", pick, "--to", "safetensors", "-o", tmp_path / pick)
    files = [(tmp_path / pick / "model.safetensors").read_bytes() for pick in ("trial=0", "trial=2", "knee")]
    assert files[0] == files[1] == files[2]


def test_a_copy_of_a_copy_leads_to_the_one_that_was_trained() -> None:
    trials = [
        Trial(0, "complete", {}, 1),
        Trial(1, "complete", {}, 1, extra={"copy_of": 0}),
        Trial(2, "complete", {}, 1, extra={"copy_of": 1}),
    ]
    assert trained(trials[2], trials) is trials[0]
    assert trained(trials[0], trials) is trials[0]


def test_paths_are_remembered_absolute_and_names_are_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
    }
    assert origin_of("digits", {"data": "http://nowhere/x.csv"}, {})["options"] == {"data": "http://nowhere/x.csv"}


def failed(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    with pytest.raises(SystemExit) as end:
        main([str(word) for word in words])
    assert end.value.code == 1
    err = capsys.readouterr().err
    assert "Traceback" not in err
    return next(line for line in err.splitlines() if line.startswith("error: "))


def test_a_network_is_no_skops_file(circle: Circle, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = failed(capsys, "export", circle.path, "--to", "skops", "-o", tmp_path / "model")
    assert "--to" in line
    assert not (tmp_path / "model").exists()


def test_a_model_that_onnx_cannot_hold_names_another_format(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = Circle(tmp_path, "choosy", "--trials", "1")
    line = failed(capsys, "export", run.path, "--to", "onnx", "-o", tmp_path / "model")
    assert "--to safetensors" in line
    assert not (tmp_path / "model").exists()
    say("export", run.path, "--to", "safetensors", "-o", tmp_path / "model")
    assert (tmp_path / "model" / "model.safetensors").exists()


def test_weights_that_were_dropped_say_so(circle: Circle, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = RunFolder.open(circle.path)
    gone = [trial.number for trial in store.run().trials if not store.has_artifact(trial.number)]
    if not gone:
        pytest.skip("all five trials are on the front this time")
    line = failed(capsys, "export", circle.path, "--pick", f"trial={gone[0]}", "--to", "safetensors", "-o", tmp_path / "model")
    assert "only trials on the front are kept" in line


def test_a_run_goes_on_and_remembers_where_the_data_lies_now(tmp_path: Path, rings_file: Callable[[str], Path]) -> None:
    file = rings_file("fine")
    say("run", file, "--out", tmp_path / "r", "--trials", "1")
    moved = file.rename(tmp_path / "moved rings.py")
    say("run", moved, "--out", tmp_path / "r", "--trials", "2")
    facts = RunFolder.open(tmp_path / "r").facts
    assert facts["origin"]["source"] == str(moved.resolve())
    assert len(facts["sessions"]) == 2
    assert facts["sessions"][1]["command"] == shlex.join(["joulefront", "run", str(moved), "--out", str(tmp_path / "r"), "--trials", "2"])
    say("export", tmp_path / "r", "--to", "safetensors", "-o", tmp_path / "model")
    assert (tmp_path / "model" / "model.safetensors").exists()
