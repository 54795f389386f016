"""The direction of imports is a wall of the house: rooms may only use the rooms below them."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
#: From the ground up. A module may import modules of its own floor and of the floors below.
FLOORS = [
    {"search.energy", "search.carbon", "search.repeats", "search.threads"},  # of carbon and repeats the empty __init__.py
    {"search.training"},
    {"search.space", "search.draw", "search.units", "search.running.interrupts", "search.verbs.errors"},
    {"search.sizes", "search.running.fingerprint"},
    {"search.trial"},
    {"search.rank_correlation", "search.repeats.mean_interval", "search.repeats.order"},
    {"search.repeats.plan", "search.repeats.statistics", "search.repeats.rows"},
    {"search.runs", "search.study", "search.objectives", "search.stopping.limits"},
    {"search.stopping.expected"},
    {"search.running.progress"},
    {"search.stopping.projection", "search.stopping.dominated"},
    {"search.stopping.safety_net"},
    {
        "search.billing.bill",
        "search.carbon.timetable",
        "search.carbon.book",
        "search.billing.recovery",
        "search.billing.accounting",
        "search.trainer",
        "search.verbs.catalog",
    },
    {"search.store"},
    {"search.billing.account", "search.running.continuing", "search.running.warm_up", "search.carbon.place"},
    {"search.front", "search.picking", "search.hypervolume", "search.front_table", "search.front_text", "search.running.lately"},
    {"search.samplers", "search.executors", "search.estimates.probe"},
    {"search.carbon.postponing", "search.carbon.session"},
    {"search.running.admission", "search.running.fairness", "search.running.status", "search.running.machine", "search.running.opening"},
    {"search.estimates.rehearsal", "search.estimates.estimate", "search.stopping.foresight", "search.running.recorder"},
    {"search.repeats.text", "search.repeats.finalists", "search.running.loop", "search.repeats.loop"},
    {"search.running.runner", "search.repeats.repeat"},
    {"search.report", "search.export"},
    {"search"},  # search/__init__.py: the names that a notebook imports
    {"search.verbs.commands", "search.verbs.origin", "search.repeats.command", "search.estimates.command"},
    {"search.cli", "search.verbs.training", "search.verbs.options"},
    {"spaces"},
    {"studies"},
]
#: Lazy imports upwards that are meant, each with its reason.
EXCEPTIONS = {
    ("search.front", "search.report"): "front.plot() in a notebook draws with the report's plots",
}


def modules() -> dict[str, Path]:
    found = {}
    for folder in ("search", "spaces", "studies"):
        for file in (ROOT / folder).rglob("*.py"):
            parts = file.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


def floor_of(module: str) -> int:
    best = max((name for floor in FLOORS for name in floor if module == name or module.startswith(name + ".")), key=len, default=None)
    if best == "search" and module != "search":
        best = None
    assert best is not None, f"{module} stands on no floor: add it to FLOORS in {__file__}"
    return next(i for i, floor in enumerate(FLOORS) if best in floor)


def imports_of(module: str, file: Path) -> set[str]:
    known, found = set(modules()), set()
    package = module.split(".") if file.name == "__init__.py" else module.split(".")[:-1]
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - node.level + 1] + (node.module.split(".") if node.module else [])
            for alias in node.names:
                inner = ".".join([*base, alias.name])
                found.add(inner if inner in known else ".".join(base))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("joulefront."):
            found.add((node.module or "").removeprefix("joulefront."))
    return {name for name in found if name in known}


@pytest.mark.parametrize(("module", "file"), sorted(modules().items()))
def test_a_module_imports_only_from_its_own_floor_and_below(module: str, file: Path) -> None:
    for other in imports_of(module, file):
        if (module, ".".join(other.split(".")[:2])) in EXCEPTIONS:
            continue
        assert floor_of(other) <= floor_of(module), f"{module} imports {other}, which stands above it"


def test_energy_imports_nothing_of_the_rest() -> None:
    for module, file in modules().items():
        if module.startswith("search.energy"):
            assert all(other.startswith("search.energy") for other in imports_of(module, file)), module


def test_only_the_rooms_that_need_it_import_optuna() -> None:
    allowed = {"search.store", "search.trial", "search.verbs.commands"}
    allowed |= {f"search.running.{name}" for name in ("runner", "loop", "admission", "recorder")}
    allowed |= {"search.carbon.postponing", "search.carbon.session", "search.stopping.foresight"}  # the type of a study
    for module, file in modules().items():
        names = {
            (node.module or "") if isinstance(node, ast.ImportFrom) else alias.name
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
            if isinstance(node, ast.Import | ast.ImportFrom) and not getattr(node, "level", 0)
            for alias in node.names
        }
        if any(name.split(".")[0] == "optuna" for name in names):
            assert module in allowed or module.startswith("search.samplers"), module


def test_the_packages_in_pyproject_are_the_folders_on_disk() -> None:
    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["packages"])
    on_disk = {
        "joulefront." + ".".join(file.parent.relative_to(ROOT).parts)
        for top in ("search", "spaces", "studies")
        for file in (ROOT / top).rglob("__init__.py")
    }
    assert listed == on_disk


@pytest.mark.parametrize("verb", [["--help"], ["front", "--help"], ["studies"]])
def test_help_loads_no_heavy_library(verb: list[str]) -> None:
    code = (
        "import sys\nfrom joulefront.search.cli import main\n"
        f"try: main({verb!r})\nexcept SystemExit: pass\n"
        "heavy = {'torch','timm','sklearn','plotly','matplotlib','optuna','pandas','codecarbon'} & set(sys.modules)\n"
        "sys.exit(', '.join(heavy) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
