"""Find the study that a user names, and record where it came from so that the same study can be made again.

A study is a function that returns a ``Study``. It is named by a bundled name, a file or ``package.module:function``; the run folder
keeps this source, the options and the command line.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import os
import shlex
import sys
import sysconfig
import textwrap
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from difflib import get_close_matches
from importlib.machinery import PathFinder
from itertools import islice
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

import cloudpickle

from ..formatting import hanging, own_place, terminal_width
from ..records.database import without_password
from ..records.run_folder import RunFolder
from ..study import Study, parse_rungs
from .options import BUNDLED, StudyOptions, bundled_studies
from .study_toml import as_typed, read_study_file

_TRUTH = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
#: Fields of a study that the command line can override.
OVERRIDDEN = ("sampler", "objectives", "seed", "rungs", "sizes", "max_trial_seconds", "name")
#: How the text of an option is read, what it must be, and an example, by type.
_READ: Mapping[Any, tuple[Callable[[str], Any], str, str]] = {
    int: (int, "a whole number", "3"),
    float: (float, "a number", "0.5"),
    bool: (lambda text: _TRUTH[text.lower()], "true or false", "true"),
}


class StudyError(ValueError):
    """A study cannot be found, read or made; the message names the remedy."""


def options_text(source: str) -> str:
    """Return the options of a study with what they mean and their defaults, from the signature and the docstring of its function.

    Raises:
        StudyError: If nothing has this name.
    """
    function = _function(source)
    heads, told = inspect.getdoc(function) or "", {}
    if "Args:" in heads:
        for line in heads.partition("Args:")[2].partition("\nRaises:")[0].strip("\n").splitlines():
            if not line.startswith(" " * 8) and ": " in line:
                told[(last := line.partition(":")[0].strip())] = line.partition(":")[2].strip()
            elif told and line.strip():
                told[last] += " " + line.strip()
    lines = [hanging(heads.partition("\n")[0]), ""]
    plain = {"data", "seed", *(one.name for one in fields(StudyOptions))}
    for name, one in inspect.signature(function).parameters.items():
        if one.kind in (one.VAR_KEYWORD, one.VAR_POSITIONAL):
            continue
        option = "--smoke" if name == "smoke" else f"--{name} VALUE" if name in plain else f"--set {name}=VALUE"
        needed = " Required." if one.default is one.empty else "" if one.default in (None, "", ()) else f" Default: {one.default}."
        text = f"{told.get(name, '')}{needed}".replace("``", "")
        lines += textwrap.wrap(text, max(terminal_width(), 60), initial_indent=f"  {option:31} ", subsequent_indent=" " * 34)
    return "\n".join(lines)


def find_study(source: str, options: Mapping[str, Any]) -> Study:
    """Make the study that ``source`` names, called with those ``options`` that were given (not None).

    Args:
        source: ``digits``, ``my_study.py``, ``my_study.py:function``, ``my_study.toml`` or ``package.module:function``.
        options: Options of the command line such as ``{"data": path, "target": "price", "seed": 1}``.

    Raises:
        StudyError: If nothing has this name, the file raises, or an option is given that the study does not take.
    """
    if not source.endswith(".toml"):
        return call_study(_function(source), source, options)
    file = read_study_file(source)
    try:
        function = _function(file.source)
        takes = inspect.signature(function).parameters
        if strange := [name for name in file.values if name not in (*takes, "seed") and "kwargs" not in takes]:
            place = strange[:1] if strange[0] in StudyOptions.__dataclass_fields__ else ["set", strange[0]]
            known = ", ".join(name for name in takes if name != "smoke") or "none"
            raise file.error(f"is no option of the study {file.source!r}; its options are: {known}", *place)
        told = {name: one for name, one in takes.items() if name in file.values and one.annotation is not one.empty}
        given = {**file.values, **{name: _typed(function, name, as_typed(file.values[name])) for name in told}}
        given |= {name: value for name, value in options.items() if value is not None}
        return file.apply(call_study(function, file.source, given))
    except StudyError as error:
        raise StudyError(f"{source}: {error}") from error


def named_values(texts: Sequence[str]) -> dict[str, str]:
    """Read ``NAME=VALUE`` options of a study.

    Raises:
        StudyError: If a text has no name or no value.
    """
    found: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name.isidentifier() and equals and value):
            raise StudyError(f"--set must be NAME=VALUE, got {text!r}; for example --set models=resnet18")
        found[name] = value
    return found


def refuse_stream(data: object) -> None:
    """Refuse data that can be read once: every session, worker and export reads them again.

    Raises:
        StudyError: If they are a pipe or a device.
    """
    path = Path(str(data)).expanduser()
    strange = path.exists() and not path.is_file() and not path.is_dir()
    if strange or (str(data) == "-" and not path.exists()) or str(path).startswith(("/dev/", "/proc/")):
        why = "every session, worker and export reads it again"
        raise StudyError(f"--data must be a file or a folder, for {why}, got the stream {str(data)!r}; write it to a file first")


def call_study(function: Callable[..., Any], source: str, options: Mapping[str, Any]) -> Study:
    """Call a study function with the options that it takes.

    Raises:
        StudyError: If the function does not take an option that was given, raises, or does not return a ``Study``.
    """
    given = {name: value for name, value in options.items() if value is not None}
    refuse_stream(given.get("data", ""))
    takes = inspect.signature(function).parameters
    everything = any(p.kind is p.VAR_KEYWORD for p in takes.values())
    optional = {"seed", "smoke"}  # the run applies these itself when the study does not take them
    unknown = [] if everything else [name for name in given if name not in takes and name not in optional]
    if unknown:
        known = [f"--{name}" for name in takes if name not in optional] or ["none"]
        raise StudyError(f"study {source!r} takes no --{unknown[0]}; its options are: {', '.join(known)}")
    missing = [
        n for n, p in takes.items() if p.default is p.empty and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) and n not in given
    ]
    if missing:
        raise StudyError(f"study {source!r} needs --{missing[0]}; for example: joulefront run {source} --{missing[0]} ...")
    given = {name: _typed(function, name, value) if isinstance(value, str) else value for name, value in given.items()}
    try:
        with _staying(source):
            study = function(**{name: value for name, value in given.items() if everything or name in takes})
    except (ValueError, FileNotFoundError, OSError) as error:
        raise StudyError(str(error)) from error
    except (Exception, SystemExit) as error:
        raise StudyError(f"study {source!r} raised {_where(error)}") from error
    if not isinstance(study, Study):
        raise StudyError(f"study {source!r} must return a joulefront.search.Study, got {type(study).__name__}")
    return study


def _typed(function: Callable[..., Any], name: str, text: str) -> Any:
    """Read the text of an option as the type that the study's function declares: int, float, bool or a tuple of them.

    Raises:
        StudyError: If the text is not a value of this type.
    """
    try:
        hint = get_type_hints(function).get(name, str)
    except NameError:  # a type that is imported for type checkers only
        return text
    kinds = {one for one in (get_args(hint) if isinstance(hint, UnionType) else (hint,)) if one is not type(None)}
    if len(kinds) != 1:
        return text
    kind = kinds.pop()
    item = get_args(kind)[0] if get_origin(kind) is tuple and get_args(kind)[1:] == (...,) else kind
    if item not in _READ:
        return text
    read, wanted, example = _READ[item]
    try:
        return read(text) if item is kind else tuple(read(one) for one in text.split(","))
    except (ValueError, KeyError):
        several = "" if item is kind else " or several, separated by commas"
        raise StudyError(f"--set {name} must be {wanted}{several}, got {text!r}; for example --set {name}={example}") from None


def _hint_for_data(path: Path) -> str:
    """Say what to do with a run folder, or data, given in the place of a study; empty where there are none, or no study reads them."""
    from ..training.file_tree import READERS

    where, files = shlex.quote(str(path)), islice(path.rglob("*"), 1000) if path.is_dir() else (path,)
    kinds = {suffix.lower() for one in files for suffix in one.suffixes[-2:]}
    if RunFolder.exists(path):
        return f"it is a run folder: joulefront run STUDY --out {where} continues it; else "
    study = next((study for study, known in READERS.items() if kinds & known), "images")
    if not path.exists() or (study != "table" and path.is_file() and path.suffix.lower() != ".zip"):
        return ""
    return f"for these data joulefront run {study} --data {where}{' --target COLUMN' if study == 'table' else ''}; else "


def _function(source: str) -> Callable[..., Any]:
    if source.endswith(".toml"):
        source = read_study_file(source).source
    path, _, name = source.partition(":") if not source.startswith(("/", ".")) or ":" in source else (source, "", "")
    if path.endswith(".py") or "/" in path:
        module = _from_file(Path(path))
    elif ":" in source:
        module = _import(path)
    else:
        names = bundled_studies()
        if source not in names:
            near = get_close_matches(source, names, n=1)
            hint = _hint_for_data(Path(source)) or (f"did you mean {near[0]!r}? " if near else "")
            raise StudyError(
                f"unknown study {source!r}; {hint}give a bundled one ({', '.join(names)}), a file my_study.py or package.module:function"
            )
        module = _import(f"{BUNDLED}.{source}")
    function = getattr(module, name or "study", None)
    if not callable(function):
        raise StudyError(f"study {source!r} has no function {name or 'study'}(); define `def study() -> Study:` in it")
    return function  # type: ignore[no-any-return]  # a user's module is untyped


def _from_file(path: Path) -> Any:
    if path.suffix != ".py" and (hint := _hint_for_data(path)):
        raise StudyError(f"{str(path)!r} is no study; {hint}give a .py file or one of: {', '.join(bundled_studies())}")
    if not path.is_file():
        raise StudyError(f"study file {str(path)!r} does not exist; give an existing .py file or one of: {', '.join(bundled_studies())}")
    name, folder = f"joulefront_user_study_{path.stem}", str(path.resolve().parent)
    spec = importlib.util.spec_from_file_location(name, path, submodule_search_locations=[folder])  # for `from . import helper`
    if spec is None or spec.loader is None:
        raise StudyError(f"study file {str(path)!r} is not a Python file; give a file that ends in .py")
    module = importlib.util.module_from_spec(spec)
    if hidden := _hidden_by(Path(folder)):
        said = f"{', '.join(hidden)} in {folder!r} hides the library of that name from {path.name} and all that is loaded after it"
        warnings.warn(f"{said}; rename what is not meant so", stacklevel=2)
    if folder not in sys.path:
        sys.path.insert(0, folder)  # as `python my_study.py` does: its neighbours can be imported, now, later and in the workers
    sys.modules[name] = module  # dataclasses and pickles in the file look themselves up by module name
    cloudpickle.register_pickle_by_value(module)  # which no worker can import
    with _staying(str(path)):
        try:
            spec.loader.exec_module(module)
        except (Exception, SystemExit) as error:
            raise StudyError(f"study file {str(path)!r} raised {_where(error)}") from error
    return module


@contextmanager
def _staying(source: str) -> Iterator[None]:
    """Refuse that a study changes the working folder: what the user named by relative paths would be elsewhere."""
    before = os.getcwd()
    yield
    if (now := os.getcwd()) != before:
        os.chdir(before)
        said = f"study {source!r} must leave the working folder as it is, got {now!r} by os.chdir"
        raise StudyError(f"{said}; open its own files by Path(__file__).parent, so that --out and --data stay where the user means")


def _hidden_by(folder: Path) -> list[str]:
    """Return the modules of a folder that have the name of an installed library."""
    modules = (one for one in sorted(folder.iterdir()) if one.suffix == ".py" or (one / "__init__.py").is_file())
    # Environments may lie over one another: each has a folder of its own for what is installed.
    installed = [entry for entry in sys.path if Path(entry).name in ("site-packages", "dist-packages")]
    libraries = [sysconfig.get_path("stdlib"), *installed]
    specs = ((one.name, PathFinder.find_spec(one.stem, libraries)) for one in modules)
    return [name for name, spec in specs if spec is not None and spec.origin is not None]


def _import(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except Exception as error:
        raise StudyError(f"cannot import {name!r}: {_where(error)}") from error


def _where(error: BaseException) -> str:
    if isinstance(error, SyntaxError):
        return f"SyntaxError: {error.msg} (line {error.lineno})"
    return f"{type(error).__name__}: {error}{own_place(error)}"


def command_line(words: Sequence[str]) -> str:
    """Return what was typed, quoted for a shell and without the password of a storage URL, which ``JOULEFRONT_STORAGE`` may hold.

    >>> command_line(["run", "my study.py", "--storage", "postgresql://me:secret@host/db"])
    "joulefront run 'my study.py' --storage postgresql://me@host/db"
    """
    return shlex.join(["joulefront", *(without_password(word).replace(":***@", "@") for word in words)])


def study_of(store: RunFolder, data: str | None, source: str | None, *, trust: bool = False) -> Study:
    """Make the study of a run again, see ``study_again``."""
    return study_again(store.facts.get("origin") or {}, str(store.path), "--study", data, source, trust=trust)


def study_again(
    origin: Mapping[str, Any], named: str, option: str, data: str | None, source: str | None, *, trust: bool | None = None
) -> Study:
    """Make a study again, from where it came.

    Args:
        origin: What ``origin_of`` returned; it may be somebody else's, so what it names is imported only where it is a bundled study.
        named: The run folder or the study, for messages.
        option: The one that gives the ``source``.
        data: New location of the data.
        source: The study in the user's own words, in place of what the origin names.
        trust: Import what the origin names although it is not bundled; None where no option says so.

    Raises:
        StudyError: If the origin names code that nobody has allowed to run.
    """
    where = source or origin.get("source")
    if where is None:
        raise ValueError(f"{named!r} came from Python: give {option} my_study.py, or go on from Python")
    if source is None and not trust and where not in bundled_studies():
        raise StudyError(
            f"the study of {named!r} must be a bundled one, got {where!r}: importing it would run that code; "
            f"give {option} {shlex.quote(str(where))} if you know it{'' if trust is None else ', or --trust'}"
        )
    options = {**origin.get("options", {}), **({"data": data} if data else {})}
    return adapt(find_study(where, options), origin.get("overrides", {}), bool(options.get("smoke")))


def shared_facts(url: str, name: str, *, stop: bool) -> tuple[dict[str, Any], str | None]:
    """Return what the storage says of a study, and why it was stopped, or None; with ``stop`` it is."""
    import optuna

    from ..records.database import cause_of, out_of_reach
    from ..records.optuna_storage import open_storage
    from ..records.shared_study import SharedStudy

    try:
        opened = open_storage(Path("study.db"), url, "write")
        names = optuna.get_all_study_names(opened)
    except Exception as error:
        names = []
        if "version_info" not in cause_of(error):  # a table that every database with a study has
            other = "it must be the URL of a study that joulefront run --storage has begun, as this machine reaches it"
            raise ValueError(out_of_reach(error, url, other)) from error
    if name not in names:
        there = f"there are: {', '.join(sorted(names))}" if names else "there is none yet; begin it with joulefront run --storage"
        raise ValueError(f"--study must be a study of {without_password(url)}, got {name!r}; {there}")
    shared = SharedStudy(optuna.load_study(study_name=name, storage=opened))
    facts = shared.description()
    if facts is None:
        raise ValueError(f"--study must be one that joulefront run has begun, got {name!r}, of another program or an earlier version")
    if stop:
        shared.stop("joulefront worker --stop")
        return facts, None
    return facts, shared.look()[1]


def adapt(study: Study, overrides: Mapping[str, Any], smoke: bool) -> Study:
    """Return the study with the fields that the command line can override, and no others; with ``smoke``, made tiny."""
    given = {name: overrides[name] for name in OVERRIDDEN if overrides.get(name) is not None}
    if isinstance(given.get("objectives"), str):
        given["objectives"] = tuple(name.strip() for name in given["objectives"].split(","))
    if isinstance(given.get("rungs"), str):
        given["rungs"] = parse_rungs(given["rungs"])
    if smoke:
        given |= {"rungs": given.get("rungs", study.rungs or (1,))[:1], "sampler": "random", "trials": 2, "budget": None}
    return replace(study, **given) if given else study


def origin_of(source: str, options: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return what makes the same study again; paths are absolute, so that ``export`` can be called from another folder."""
    given = {name: value for name, value in options.items() if value is not None}
    for name, value in given.items():
        # A column or a model may by chance have the name of a file in this folder; only what looks like a path is taken for one.
        path_like = name in ("data", "pretrained") or (name != "target" and isinstance(value, str) and ("/" in value or Path(value).suffix))
        if path_like and Path(value).expanduser().exists():
            given[name] = str(Path(value).expanduser().resolve())
    file, colon, function = source.rpartition(":") if ":" in source else (source, "", "")
    if file.endswith((".py", ".toml")) and Path(file).exists():
        source = str(Path(file).resolve()) + colon + function
    return {"source": source, "options": given, "overrides": dict(overrides), "code": _code_of(Path(file or source))}


def _code_of(path: Path) -> str:
    """Return a check sum of a study file's code, but for comments and what makes the study of it; empty for other sources."""
    body = ast.parse(path.read_bytes()).body if path.suffix == ".py" and path.exists() else []
    text = "\n".join(text for text in map(ast.unparse, body) if "Study(" not in text)
    return f"{zlib.crc32(text.encode()):08x}" if text else ""
