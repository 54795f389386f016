"""A study as a TOML file: what it may say, what it becomes, and how it is refused."""

import json
import tomllib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.main import get_command

from joulefront.search.cli import app
from joulefront.search.cli.options import SessionLimitOptions
from joulefront.search.cli.study_source import StudyError, find_study
from joulefront.search.cli.study_toml import FAMILIES, StudyFileError, read_study_file, schema, with_session
from joulefront.search.records.run_folder import RunFolder
from joulefront.search.space import RandomTrial
from joulefront.search.stopping.rules import joules_of, limits_of
from joulefront.search.study import Budget
from joulefront.spaces.recipes import Range
from joulefront.spaces.union import Union

ROOT = Path(__file__).parents[3]
EXAMPLE = (ROOT / "studies" / "example.toml").read_text(encoding="utf-8")


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], str]:
    def write(text: str) -> str:
        path = tmp_path / "mine.toml"
        path.write_text(text)
        return str(path)

    return write


def test_the_example_is_a_study_with_its_candidates_and_bounds(write: Callable[[str], str]) -> None:
    study = find_study(write(EXAMPLE), {})
    assert (study.name, study.trials, study.rungs, study.seed) == ("small-networks", 20, (1, 3, 9), 1)
    assert isinstance(study.space, Union)
    perceptron, convnet = study.space.spaces
    assert (perceptron.name, perceptron.depths, perceptron.norms) == ("mlp", (1, 2), "none")
    assert perceptron.recipe.learning_rate == Range(1e-3, 1e-2, log=True)
    assert convnet.recipe.batch_size == (32, 64, 128)
    assert convnet.recipe.optimizer == "sgd" != perceptron.recipe.optimizer
    assert study.first == ()


def test_bounds_alone_change_the_families_of_the_study_and_what_it_begins_with(write: Callable[[str], str], tmp_path: Path) -> None:
    own = tmp_path / "own.py"
    own.write_text(
        "from dataclasses import replace\nfrom joulefront.studies.digits import study as digits\n"
        "def study(width=3):\n    return replace(digits(), first=({'family': 'mlp', 'batch_size': 64, 'mlp.depth': width},))\n"
    )
    study = find_study(
        write('study = "own.py"\nseed = 7\n[recipe]\nbatch_size = 16\n[recipe.tactics]\nfreeze = true\n[set]\nwidth = 2\n'), {}
    )
    assert isinstance(study.space, Union)
    assert {member.recipe.batch_size for member in study.space.spaces} == {16}
    assert {*study.space.spaces[0].recipe.tactics} == {"freeze"}
    assert study.first == ({"family": "mlp", "mlp.depth": 2},)
    assert study.seed == 7


def test_every_option_of_run_is_a_key_of_a_file() -> None:
    command = get_command(app).commands["run"]  # type: ignore[attr-defined]  # a group has commands
    named = {"settings": "set"}
    options = {named.get(one.name, one.name) for one in command.params} - {"smoke"}
    assert options <= schema()["properties"].keys()
    assert schema()["properties"]["space"]["properties"].keys() == FAMILIES.keys()


@pytest.mark.parametrize("name", [pytest.param(one, marks=[pytest.mark.slow] if one.startswith("t") else []) for one in FAMILIES])
def test_every_family_can_be_chosen_and_drawn_from(name: str, write: Callable[[str], str]) -> None:
    study = find_study(write(f'study = "digits"\n[space.{name}]\n'), {})
    assert study.space.sample(RandomTrial(0)).recipe.batch_size >= 1


#: A file, the line that the error names, and what it says.
WRONG = {
    "": (None, "needs the key study"),
    "trials = 3": (None, "needs the key study"),
    'study = "digits"\ntrails = 3': (2, "trails is no key here; did you mean trials?"),
    'study = "digits"\ntrial-timeout = "3m"': (2, "did you mean trial_timeout?"),
    'study = "digits"\n\ntrials = "3"': (3, "trials must be a whole number >= 1, got '3'"),
    'study = "digits"\ntrials = 0': (2, "trials must be a whole number >= 1, got 0"),
    'study = "digits"\ntrials = true': (2, "trials must be a whole number >= 1, got true"),
    'study = "digits"\nzone = 3': (2, "zone must be a text, got 3"),
    'study = "digits"\nsampler = "tpa"': (2, "sampler must be one of freeze-thaw, tpe,"),
    'study = "digits"\nobjectives = ["accuracy"]': (2, "objectives must be a list of 2 or more, each one of accuracy,"),
    'study = "digits"\nrungs = [0, 1]': (2, "rungs must be a list of 1 or more, each a whole number >= 1, got [0, 1]"),
    'study = "digits"\nrungs = [3, 1]': (None, "study.rungs must be ascending"),
    'study = "digits"\nbudget = "5"': (2, "budget: --budget '5' has no unit"),
    'study = "digits"\n[recipe]\nlearning_rates = 1': (3, "recipe.learning_rates is no key here; did you mean learning_rate?"),
    'study = "digits"\n[recipe]\nlearning_rate = "low"': (
        3,
        "must be a number or a list of 1 or more, each a number or a table, got 'low'",
    ),
    'study = "digits"\n[recipe]\nlearning_rate = {low = 1.0, hihg = 2.0}': (
        3,
        "recipe.learning_rate.hihg is no key here; did you mean high?",
    ),
    'study = "digits"\n[recipe]\nlearning_rate = {low = 1.0}': (3, "recipe.learning_rate needs the key high"),
    'study = "digits"\n[recipe]\nlearning_rate = {low = 2.0, high = 1.0}': (3, "a range needs low <= high, both finite, got 2.0 and 1.0"),
    'study = "digits"\n[recipe]\nlearning_rate = {low = 1.0, high = inf}': (3, "a range needs low <= high, both finite, got 1.0 and inf"),
    'study = "digits"\n[space.mlp]\nwidths = {low = 1, high = inf}': (3, "a range needs low <= high, both finite, got 1 and inf"),
    'study = "digits"\nx = ' + "[" * 5000 + "]" * 5000: (None, "is nested too deeply"),
    'study = "digits"\n[recipe]\noptimizer = "adamm"': (3, "recipe.optimizer must be one of adamw, sgd, got 'adamm'"),
    'study = "digits"\n[recipe.tactics]\nfreeze = {share = [0.5, 2.0]}': (3, "freeze.share must be in [0, 1], got 2.0"),
    'study = "digits"\n[space.mlp]\nnorms = "none"\ndepths = -1': (
        4,
        "space.mlp.depths: Mlp.depths must be a whole number >= 0, got -1",
    ),
    'study = "digits"\n[space.mlp.recipe]\nlearning_rate = [0.1, -0.1]': (3, "a range needs low <= high, both finite, got 0.1 and -0.1"),
    'study = "digits"\n[recipe.tactics]\nfreez = true': (3, "did you mean freeze?"),
    'study = "digits"\n[recipe.tactics.freeze]\nshares = 0.5': (2, "tactic 'freeze' takes share,"),
    'study = "digits"\n[recipe.tactics]\nalways = true\nsparse_backprop = {schedule = "wavy"}': (4, "schedule must be one of interleave,"),
    'study = "digits"\n[recipe]\nschedule = ["anytime", "cosin"]': (3, "recipe.schedule: recipe.schedule must be one of anytime,"),
    'study = "digits"\n[space.mlp]\nnorms = ["none", "btch"]': (
        3,
        "space.mlp.norms: Mlp.norms must be one of batch, group, layer, none, got 'btch'",
    ),
    'study = "digits"\n[space.early_exit]\nactivations = "tanh"': (
        3,
        "space.early_exit.activations: EarlyExit.activations must be one of relu, gelu, silu, got 'tanh'",
    ),
    'study = "digits"\n[space.convnet]\npoolings = ["max", "min"]': (
        3,
        "space.convnet.poolings: Convnet.poolings must be one of max, average, stride, got 'min'",
    ),
    'study = "digits"\n[space.torchvision]\nheads = "owm"': (3, "heads must be one of own, or units such as 256-64, got 'owm'"),
    'study = "digits"\n[space.torchvision]\nfreeze = "all"': (3, "freeze must be none, backbone or a whole number >= 0, got 'all'"),
    'study = "digits"\nseed = -1': (2, "seed must be a whole number >= 0, got -1"),
    'study = "digits"\n[space]': (2, "space needs a table of one of mlp, convnet"),
    'study = "digits"\n[space.mpl]\ndepths = 1': (2, "space.mpl is no key here; did you mean mlp?"),
    'study = "digits"\n[space.mlp]\ndepths = 1.5': (3, "space.mlp.depths must be a whole number or a list"),
    'study = "digits"\ntarget = "price"': (2, "target is no option of the study 'digits'; its options are: seed"),
    'study = "digits"\n[set]\nfolds = 3': (3, "set.folds is no option of the study 'digits'"),
    'study = "table"\ndata = "x.csv"\ntarget = "y"\n[set]\nfolds = "many"': (None, "--set folds must be a whole number, got 'many'"),
    'study = "table"\ndata = "x.csv"\nseed = 1\n[set]\nseed = 2': (5, "set.seed must stand in the file once, got it twice"),
    'study = "other.toml"': (1, "must be a bundled study or a Python one"),
    'study = "digit"': (None, "did you mean 'digits'?"),
    'study = "digits"\ntrials 3': (None, "must be TOML, got: Expected '='"),
}


@pytest.mark.parametrize("text", WRONG, ids=lambda text: text.replace("\n", "; ")[:90] or "empty")
def test_what_is_wrong_is_named_with_its_line_and_the_remedy(text: str, write: Callable[[str], str]) -> None:
    path, (line, said) = write(text), WRONG[text]
    with pytest.raises((StudyFileError, StudyError)) as raised:
        find_study(path, {})
    assert said in str(raised.value)
    assert f"{path}, line {line}: " in str(raised.value) if line else path in str(raised.value) or "digit'" in text


def test_a_byte_order_mark_is_no_part_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_bytes(b'\xef\xbb\xbfstudy = "digits"\r\ntrials = 3\r\n')
    assert find_study(str(tmp_path / "s.toml"), {}).trials == 3


@pytest.mark.slow
def test_the_schema_says_the_same_as_the_check(write: Callable[[str], str]) -> None:
    """Checked by another program, which editors use: the example is valid, and what breaks the description is not."""
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed (pip install jsonschema)")
    jsonschema.Draft202012Validator.check_schema(schema())
    validator = jsonschema.Draft202012Validator(schema())
    assert list(validator.iter_errors(tomllib.loads(EXAMPLE))) == []
    for text in WRONG:
        try:
            given = tomllib.loads(text)
        except (tomllib.TOMLDecodeError, RecursionError):
            continue
        try:
            read_study_file(write(text))
            refused = False
        except StudyFileError as error:
            refused = "once" not in str(error) and "Python one" not in str(error)
        assert refused == (not validator.is_valid(given)), text


@pytest.mark.slow
def test_paths_are_relative_to_the_file_and_what_is_typed_wins(
    write: Callable[[str], str], call: Callable[..., Any], tmp_path: Path
) -> None:
    rows = "\n".join(f"{k},{k % 7},{'ab'[k % 7 > 3]}" for k in range(120))
    (tmp_path / "rows.csv").write_text(f"one,two,kind\n{rows}\n")
    path = write(
        'study = "table"\ndata = "rows.csv"\ntarget = "kind"\ntrials = 2\nrungs = [1, 2]\nsampler = "random"\n'
        'meter = "cpu_time"\nzone = "FR"\nout = "here"\nquiet = true\n[set]\nfolds = 0\n'
        "[space.mlp]\ndepths = 1\nwidths = 8\n[recipe]\nbatch_size = 16\n"
    )
    assert read_study_file(path).values["data"] == str(tmp_path / "rows.csv")
    done = call("run", path, "--zone", "DE", "--seed", "4")
    assert done.code == 0, done.err
    facts = RunFolder.open(tmp_path / "here").facts
    assert (facts["intensity"]["zone"], facts["study"]["seed"], len(RunFolder.open(tmp_path / "here").run().trials)) == ("DE", 4, 2)
    assert facts["origin"]["source"] == path
    assert f"--study {path}" in done.out
    again = call("run", path, "--zone", "DE", "--seed", "4")
    assert again.code == 0, again.err


@pytest.mark.parametrize(
    ("written", "typed", "held"),
    [
        ("trials = 3", {"budget": "5Wh"}, (3, "5Wh")),
        ('budget = "2Wh"', {"trials": 4}, (4, "2Wh")),
        ("trials = 3", {"trials": 4}, (4, None)),
        ('trials = 3\nbudget = "2Wh"', {"budget": "5Wh"}, (3, "5Wh")),
        ("trials = 3", {}, (3, None)),
    ],
)
def test_a_limit_in_the_file_holds_unless_the_same_one_is_typed(
    written: str, typed: dict[str, Any], held: tuple[Any, ...], write: Callable[[str], str]
) -> None:
    context: Any = SimpleNamespace(get_parameter_source=lambda name: SimpleNamespace(name="COMMANDLINE") if name in typed else None)
    path = write(f'study = "digits"\n{written}')
    (typed_limits,) = with_session(context, path, SessionLimitOptions(**typed))
    budget = None if typed_limits.budget is None else Budget.parse(typed_limits.budget)
    limits = limits_of(find_study(path, {}), budget, typed_limits.trials, None, partial(joules_of, grams_per_kwh=None))
    assert (limits.trials, limits.label or None) == held


def test_the_limits_of_a_file_stand_in_place_of_those_of_the_study_that_it_is_based_on(write: Callable[[str], str]) -> None:
    assert find_study("digits", {}).default_trials is not None
    study = find_study(write('study = "digits"\nbudget = "2Wh"'), {})
    assert (study.trials, study.budget and study.budget.to_text()) == (None, "2Wh")


@pytest.mark.parametrize("word", ["auto", "hub", "no", "none", "weights.pth"])
def test_pretrained_is_a_word_that_the_studies_take_or_a_path(word: str, write: Callable[[str], str], tmp_path: Path) -> None:
    found = read_study_file(write(f'study = "images"\ndata = "d"\npretrained = "{word}"\n')).values["pretrained"]
    assert found == (word if word in ("auto", "hub", "no") else str(tmp_path / word))


def test_weights_of_a_family_are_relative_to_the_file(write: Callable[[str], str], tmp_path: Path) -> None:
    (tmp_path / "own.pth").touch()
    study = find_study(write('study = "digits"\n[space.timm]\nmodels = ["resnet18"]\nweights = "own.pth"\n'), {})
    assert study.space.weights == str(tmp_path / "own.pth")  # type: ignore[attr-defined]  # of TimmZoo


def test_the_schema_is_printed(call: Callable[..., Any]) -> None:
    assert json.loads(call("studies", "--schema").out) == schema()


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StudyFileError, match="does not exist; give an existing one"):
        find_study(str(tmp_path / "none.toml"), {})
