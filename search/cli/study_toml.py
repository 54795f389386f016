"""A study as a TOML file: a study that exists, with its data, options, candidates and bounds; and the JSON schema of such files.

Everything that a file may say is described once, in ``schema``, from the options of `run` and the fields of the families; files are checked
against that description. Relative paths in a file are relative to it.
"""

from __future__ import annotations

import importlib
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from difflib import get_close_matches
from functools import cache, partial
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, TypeVar, Union, get_args, get_origin, get_type_hints

import typer

from ..formatting import names_text
from ..study import OBJECTIVES, PRETRAINED, SAMPLERS, Budget, Study
from .options import CarbonOptions, ProtocolOptions, RunOptions, SessionLimitOptions, StudyOptions, TrainingMachineOptions, bundled_studies

if TYPE_CHECKING:
    from ..space import Space

G = TypeVar("G")
GROUPS = (StudyOptions, SessionLimitOptions, CarbonOptions, TrainingMachineOptions, ProtocolOptions, RunOptions)
#: Fields of a study that no option of `run` sets.
OF_STUDY = ("name", "description", "min_accuracy", "complete_only", "stop_dominated", "max_parameters", "max_flops", "max_memory_bytes")
#: Options of `run` that are fields of the study, too: the file's are the study's own.
SHARED = ("trials", "budget", "rungs", "objectives", "sampler")
PATHS = ("data", "pretrained", "out", "forecast", "warm_start")
#: What may be searched in place of the study's own candidates: a table ``[space.NAME]`` each.
FAMILIES = {
    "mlp": "mlp.Mlp",
    "convnet": "convnet.Convnet",
    "cell": "cell.Cell",
    "vit": "vit.Vit",
    "early_exit": "early_exit.EarlyExit",
    "energy_transformer": "energy_transformer.EnergyTransformer",
    "timm": "timm_zoo.TimmZoo",
    "torchvision": "torchvision_zoo.TorchvisionZoo",
    "classical": "classical.Classical",
    "boosting": "boosting.Boosting",
}
_NAMES = {str: "string", int: "integer", float: "number", bool: "boolean", list: "array", dict: "object", Path: "string"}
_WANTED = {"string": "a text", "integer": "a whole number", "number": "a number", "boolean": "true or false", "object": "a table"}


class StudyFileError(ValueError):
    """A study file cannot be read; the message names the file, the line, the key, the rule and the remedy."""


# -- the description -------------------------------------------------------------------------------------------------------------------


def _of_hint(hint: Any) -> dict[str, Any]:
    """Describe a type as JSON schema; None is what a file leaves out, a tuple is a list, a dataclass one of ``$defs``."""
    kind, parts = get_origin(hint), [one for one in get_args(hint) if one not in (NoneType, ...)]
    if kind in (Union, UnionType):
        kinds = list({str(described): described for described in map(_of_hint, parts)}.values())
        return kinds[0] if len(kinds) == 1 else {"anyOf": kinds}
    if kind in (tuple, list):
        return {"type": "array", "items": _of_hint(parts[0]), "minItems": 1}
    return {"$ref": f"#/$defs/{hint.__name__}"} if isinstance(hint, type) and is_dataclass(hint) else {"type": _NAMES.get(hint, "object")}


def _of_fields(kind: Any) -> dict[str, Any]:
    hints = get_type_hints(kind)
    described = {one.name: _of_hint(hints[one.name]) for one in fields(kind) if one.init and one.name not in ("name", "kind")}
    if "tactics" in described:
        described["tactics"] = {"$ref": "#/$defs/TacticRanges"}
    return _table(described, [one.name for one in fields(kind) if one.name in ("low", "high")])


def _table(properties: Mapping[str, Any], required: Sequence[str] = ()) -> dict[str, Any]:
    return {"type": "object", "properties": dict(properties), "required": [*required], "additionalProperties": False}


def _class(name: str) -> Any:
    module, _, kind = name.rpartition(".")
    return getattr(importlib.import_module(f"...spaces.{module}", __package__), kind)


@cache
def schema() -> dict[str, Any]:
    """Return the JSON schema (draft 2020-12) of a study file."""
    found: dict[str, Any] = {}
    for group in GROUPS:
        for name, hint in get_type_hints(group, include_extras=True).items():
            told = next(part for part in hint.__metadata__ if hasattr(part, "help"))
            found[name] = {**_of_hint(hint.__origin__), "description": told.help, **({} if told.min is None else {"minimum": told.min})}
    texts: dict[str, Any] = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}
    for name in ("drop", "keep", "categorical", "missing"):
        found[name] = {**texts, "description": found[name]["description"]}
    found["study"]["description"] = "A bundled study, or a Python one: FILE.py, FILE.py:FUNCTION or PACKAGE.MODULE:FUNCTION."
    found["sampler"] |= {"enum": list(SAMPLERS)}
    found["objectives"] |= {"type": "array", "items": {"type": "string", "enum": list(OBJECTIVES)}, "minItems": 2}
    found["rungs"] |= {"type": "array", "items": {"type": "integer", "minimum": 1}, "minItems": 1}
    found |= {name: _of_hint(get_type_hints(Study)[name]) for name in OF_STUDY}
    scalars = [{"type": kind} for kind in ("boolean", "integer", "number", "string")]
    values = {"anyOf": [*scalars, {"type": "array", "items": {"anyOf": scalars}, "minItems": 1}]}
    found["set"] = {"type": "object", "additionalProperties": values, "description": found.pop("settings")["description"]}
    found["recipe"] = {"$ref": "#/$defs/RecipeRanges", "description": "Bounds of the training, of every family with a recipe."}
    found["space"] = _table({name: _of_fields(_class(where)) for name, where in FAMILIES.items()})
    found["space"] |= {"minProperties": 1, "description": "The families to search in place of the study's own."}
    shared = {name: _of_fields(_class(f"recipes.{name}")) for name in ("RecipeRanges", "TacticRanges", "Range")}
    about = "A study of joulefront. Of numbers, [low, high] is a range and a list of any other length the choices."
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "description": about, **_table(found, ["study"]), "$defs": shared}


def _full(described: Mapping[str, Any]) -> Mapping[str, Any]:
    return {**schema()["$defs"][described["$ref"].rpartition("/")[2]], **described} if "$ref" in described else described


def _wanted(described: Mapping[str, Any]) -> str:
    described = _full(described)
    if "anyOf" in described:
        return " or ".join(dict.fromkeys(map(_wanted, described["anyOf"])))
    if "enum" in described:
        return f"one of {', '.join(described['enum'])}"
    if described["type"] == "array":
        return f"a list of {described.get('minItems', 0)} or more, each {_wanted(described['items'])}"
    return _WANTED[described["type"]] + (f" >= {described['minimum']}" if "minimum" in described else "")


def _is(value: Any, described: Mapping[str, Any]) -> bool:
    kind = _NAMES.get(type(value))
    return kind == described.get("type") or (kind == "integer" and described.get("type") == "number")


def _problems(value: Any, described: Mapping[str, Any], at: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield what is wrong in a value: where, and the rest of a sentence about it."""
    described = _full(described)
    wrong = at, f"must be {_wanted(described)}, got {str(value).lower() if isinstance(value, bool) else repr(value)}"
    if "anyOf" in described:
        tried = [list(_problems(value, one, at)) for one in described["anyOf"]]
        tables = [found for one, found in zip(described["anyOf"], tried, strict=True) if isinstance(value, dict) and _is(value, _full(one))]
        yield from [] if not all(tried) else tables[0] if tables else [wrong]
    elif not _is(value, described) or value not in described.get("enum", [value]):
        yield wrong
    elif isinstance(value, list):
        if len(value) < described["minItems"] or any(any(_problems(one, described["items"])) for one in value):
            yield wrong
    elif isinstance(value, dict):
        known, others = described.get("properties", {}), described.get("additionalProperties", True)
        for name, one in value.items():
            if name in known or isinstance(others, dict):
                yield from _problems(one, known.get(name, others), (*at, name))
            elif not others:
                near = get_close_matches(name.replace("-", "_"), known, n=1)
                yield (*at, name), "is no key here; " + (f"did you mean {near[0]}?" if near else f"these are: {', '.join(sorted(known))}")
        missing = [name for name in described.get("required", ()) if name not in value]
        if missing or len(value) < described.get("minProperties", 0):
            yield at, f"needs the key {missing[0]}" if missing else f"needs a table of one of {', '.join(known)}"
    elif "minimum" in described and value < described["minimum"]:
        yield wrong


# -- a file ----------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class StudyFile:
    """A study file that has been read and checked.

    Attributes:
        source: The study that it is based on, as ``find_study`` takes it.
        values: What that study's function is called with.
        session: Defaults of the options of `run` that are not the study's.
    """

    path: Path
    text: str
    source: str
    values: Mapping[str, Any]
    session: Mapping[str, Any]
    _study: Mapping[str, Any]
    _recipe: Mapping[str, Any]
    _space: Mapping[str, Mapping[str, Any]]

    def error(self, message: str, *at: str) -> StudyFileError:
        """Return an error about a key of the file, with its line."""
        return _error(self.path, self.text, at, message)

    def apply(self, study: Study) -> Study:
        """Return the study with the file's own candidates, bounds and fields.

        Raises:
            StudyFileError: If they cannot be searched.
        """
        from ..space import RandomTrial

        known: dict[str, Any] = {"name": self.path.stem, **self._study}
        if known.get("budget") is not None:
            known["budget"] = self._checked(lambda: Budget.parse(known["budget"]), "budget")
        if self._space:
            known |= {"first": (), "weights": (), "notice": ""}  # of the study's own candidates
        elif self._recipe:  # a bound may leave out what the study begins with
            known["first"] = tuple({k: v for k, v in one.items() if k.rpartition(".")[2] not in self._recipe} for one in study.first)
        if self._space or self._recipe:
            known["space"] = space = self._candidates(study)
            self._checked(lambda: space.sample(RandomTrial(0)), "space" if self._space else "recipe")
        return self._checked(lambda: replace(study, **known))

    def _candidates(self, study: Study) -> Space:
        from ...spaces.recipes import RecipeRanges
        from ...spaces.union import Union

        members: list[Any] = [*study.space.spaces] if isinstance(study.space, Union) else [study.space]
        if not self._space:
            if not any(isinstance(getattr(one, "recipe", None), RecipeRanges) for one in members):
                raise self.error(f"bounds the training of families with a recipe, {self.source!r} has none; leave it out", "recipe")
            members = [
                replace(one, recipe=self._bounded(one.recipe, self._recipe, "recipe")) if hasattr(one, "recipe") else one for one in members
            ]
        else:
            members = [self._family(name, given, study) for name, given in self._space.items()]
        return members[0] if len(members) == 1 else Union(*members)

    def _family(self, name: str, given: Mapping[str, Any], study: Study) -> Any:
        from ...spaces.recipes import RecipeRanges

        kind, at = _class(FAMILIES[name]), ("space", name)
        own = _absolute(self.path.parent, "set", {key: value for key, value in given.items() if key != "recipe"})  # files of weights
        settings = self._values(kind, own, *at)
        if "kind" in kind.__dataclass_fields__ and not callable(study.task):
            settings["kind"] = study.task.kind
        if "recipe" in kind.__dataclass_fields__:
            own = self._bounded(RecipeRanges(), self._recipe, "recipe")
            settings["recipe"] = self._bounded(own, given.get("recipe", {}), *at, "recipe")
        return self._checked(lambda: kind(**settings), *at)

    def _bounded(self, recipe: Any, given: Mapping[str, Any], *at: str) -> Any:
        found = self._values(partial(replace, recipe), {name: value for name, value in given.items() if name != "tactics"}, *at)
        if "tactics" in given:
            tactics = _class("recipes.TacticRanges")
            wanted = self._values(lambda **one: tactics(**one).settings(), given["tactics"], *at, "tactics")
            found["tactics"] = self._checked(tactics(**wanted).settings, *at, "tactics")
        return replace(recipe, **found)

    def _values(self, make: Callable[..., Any], given: Mapping[str, Any], *at: str) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, value in given.items():  # each alone, so that the error names what is wrong
            found[name] = self._checked(partial(_python, value), *at, name)
            self._checked(partial(make, **{name: found[name]}), *at, name)
        return found

    def _checked(self, make: Callable[[], G], *at: str) -> G:
        try:
            return make()
        except (ValueError, TypeError) as error:
            raise self.error(f": {error}" if at else str(error), *at) from error


def _python(value: Any) -> Any:
    """Return a value as the families take it: a list is a tuple, a table of bounds a ``Range``."""
    if isinstance(value, list):
        return tuple(map(_python, value))
    if isinstance(value, Mapping):
        inside = {key: _python(one) for key, one in value.items()}
        return _class("recipes.Range")(**inside) if {"low", "high"} <= inside.keys() else inside
    return value


def read_study_file(path: str | Path) -> StudyFile:
    """Read a study file.

    Raises:
        StudyFileError: If it is no TOML, or a key or a value is none that a study file has.
    """
    path = Path(path)
    if not path.is_file():
        raise StudyFileError(f"study file {str(path)!r} does not exist; give an existing one, or one of: {', '.join(bundled_studies())}")
    try:
        text = path.read_text(encoding="utf-8-sig")  # Windows' editors put a mark first
        given = tomllib.loads(text)
    except RecursionError:
        raise StudyFileError(f"{path} is nested too deeply; see joulefront studies --schema for its keys") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise StudyFileError(f"{path} must be TOML, got: {error}; see joulefront studies --schema for its keys") from error
    for at, message in _problems(given, schema()):
        raise _error(path, text, at, message)
    source, recipe, space = given.pop("study"), given.pop("recipe", {}), given.pop("space", {})
    given = {name: _absolute(path.parent, name, value) for name, value in given.items()}
    file = source.partition(":")[0]
    if file.endswith(".toml"):
        raise _error(path, text, ("study",), f"must be a bundled study or a Python one, got {source!r}; name the one that that is based on")
    if file.endswith(".py"):
        source = f"{path.parent.resolve() / file}{source[len(file) :]}"
    own = {name: given.pop(name) for name in (*OF_STUDY, *SHARED) if name in given}
    study = {name: tuple(value) if isinstance(value, list) else value for name, value in own.items()}
    study = {"trials": None, "budget": None, **study} if study.keys() & {"trials", "budget"} else study  # in place of that study's own
    study |= {"seed": given["seed"]} if "seed" in given else {}  # a study whose function takes none has one, too
    settings = given.pop("set", {})
    values = {one.name: given.pop(one.name) for one in fields(StudyOptions) if one.name in given}
    if twice := sorted(values.keys() & settings.keys()):
        raise _error(path, text, ("set", twice[0]), "must stand in the file once, got it twice; leave it out of [set]")
    return StudyFile(path, text, source, values | settings, given, study, recipe, space)


def _absolute(folder: Path, name: str, value: Any) -> Any:
    """Return a value with its paths relative to a folder; of other texts, in ``set``, only what lies there is taken for one."""
    if name == "set":
        here = {key: folder / one for key, one in value.items() if isinstance(one, str) and "." in one}
        return {**value, **{key: str(path) for key, path in here.items() if path.exists()}}
    if name not in PATHS or (name == "pretrained" and value in PRETRAINED) or (isinstance(value, str) and "://" in value):
        return value
    if isinstance(value, list):
        return [folder / Path(one).expanduser() for one in value]
    path = folder / Path(value).expanduser()
    return str(path) if name in ("data", "pretrained") else path


def as_typed(value: Any) -> str:
    """Return a value as it is typed after an option."""
    if isinstance(value, list):
        return names_text([as_typed(one) for one in value])
    return str(value).lower() if isinstance(value, bool) else str(value)


def _error(path: Path, text: str, at: Sequence[str], message: str) -> StudyFileError:
    line = _line(text, tuple(at))
    where = f"{path}{f', line {line}' if line else ''}: {'.'.join(at)}"
    return StudyFileError(where + ("" if not at or message.startswith(":") else " ") + message)


def _line(text: str, wanted: tuple[str, ...]) -> int | None:
    """Return the line that sets a key, or the nearest table around it."""
    table: tuple[str, ...] = ()
    best, found = 0, None
    for number, line in enumerate(text.splitlines(), 1):
        head, key = re.match(r"\s*\[+\s*([^\]]+?)\s*\]", line), re.match(r"\s*([\w.\"' -]+?)\s*=", line)
        if (named := head or key) is None:
            continue
        words = tuple(word.strip(" \"'") for word in named[1].split("."))
        here = words if head is not None else (*table, *words)
        table = words if head is not None else table
        common = min(len(here), len(wanted))
        if common > best and here[:common] == wanted[:common]:
            best, found = common, number
    return found


def with_session(context: typer.Context, path: str, *groups: Any) -> tuple[Any, ...]:
    """Return the groups of options of a verb with the file's values for what was not typed.

    Raises:
        StudyFileError: If the file cannot be read.
    """
    file = read_study_file(path)

    def typed(name: str) -> bool:
        source = context.get_parameter_source(name)
        return source is not None and source.name == "COMMANDLINE"

    def filled(group: Any) -> Any:
        given = {one.name: file.session[one.name] for one in fields(group) if one.name in file.session and not typed(one.name)}
        return replace(group, **given)

    return tuple(map(filled, groups))
