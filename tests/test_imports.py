"""The rooms of the house form a graph without a cycle, counted over every kind of import: top-level, in a function, for type checkers."""

import ast
import functools
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import networkx
import pytest

ROOT = Path(__file__).parent.parent
FILES = {
    ".".join(parts[:-1] if parts[-1] == "__init__" else parts): file
    for top in ("search", "spaces", "studies")
    for file in (ROOT / top).rglob("*.py")
    for parts in [file.relative_to(ROOT).with_suffix("").parts]
}


def room_of(module: str) -> str:
    """A folder is a room; a file that lies loose in search/ is one by itself."""
    if FILES[module].name == "__init__.py" or FILES[module].parent == ROOT / "search":
        return module
    return module.rpartition(".")[0]


@functools.cache
def imports_of(module: str) -> set[str]:
    """Our files that a file imports, whether at its top, in a function or for type checkers only."""
    package = module.split(".") if FILES[module].name == "__init__.py" else module.split(".")[:-1]
    found = set()
    for node in ast.walk(ast.parse(FILES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            path = ".".join([*base, *(node.module or "").removeprefix("joulefront.").split(".")]).rstrip(".")
            found |= {name if (name := f"{path}.{alias.name}") in FILES else path for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name.removeprefix("joulefront.") for alias in node.names}
    return (found & FILES.keys()) - {module}


def graph_of_files() -> networkx.DiGraph:
    # search/__init__.py hands out names at first use, by text: nothing inside the house imports it for more than its first line.
    return networkx.DiGraph([(module, other) for module in FILES for other in imports_of(module) if other != "search"])


def graph_of_rooms() -> networkx.DiGraph:
    pairs = {(room_of(one), room_of(other)) for one, other in graph_of_files().edges}
    return networkx.DiGraph([(one, other) for one, other in pairs if one != other])


def test_no_files_import_each_other_in_a_circle() -> None:
    assert list(networkx.simple_cycles(graph_of_files())) == []


def test_no_rooms_import_each_other_in_a_circle() -> None:
    rooms = graph_of_rooms()
    knots = [sorted(knot) for knot in networkx.strongly_connected_components(rooms) if len(knot) > 1]
    assert knots == [], [edge for edge in rooms.edges if any({*edge} <= {*knot} for knot in knots)]
    print(f"{len(FILES)} files, {len(rooms)} rooms, {len(rooms.edges)} arrows, {networkx.dag_longest_path_length(rooms) + 1} floors")


def test_energy_imports_nothing_of_the_rest() -> None:
    inside = {module for module in FILES if module.startswith("search.energy")}
    assert {other for module in inside for other in imports_of(module)} <= inside


def test_a_file_has_at_most_400_lines_and_the_package_keeps_its_size() -> None:
    lengths = {module: len(file.read_text(encoding="utf-8").splitlines()) for module, file in FILES.items()}
    print(f"{len(lengths)} files, {sum(lengths.values())} lines, the longest {max(lengths.values())}")
    assert {module: lines for module, lines in lengths.items() if lines > 400} == {}
    assert len(lengths) <= 234
    assert sum(lengths.values()) <= 54_250


def test_the_packages_in_pyproject_are_the_folders_on_disk() -> None:
    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["packages"])
    on_disk = {
        "joulefront." + ".".join(file.parent.relative_to(ROOT).parts)
        for top in ("search", "spaces", "studies")
        for file in (ROOT / top).rglob("*.py")
    }
    assert listed == on_disk


def test_pyproject_says_where_each_dependency_is_used() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    listed = text[text.index("\ndependencies = [") : text.index("\n]", text.index("\ndependencies = ["))].splitlines()[2:]
    for line in listed:
        places = re.findall(r"(?:search|spaces|studies)/[\w/]*(?:\.py)?", line.partition("#")[2])
        assert places or "everywhere" in line, line
        assert [place for place in places if not (ROOT / place).exists()] == [], line
        assert len(places) == len({*places}), line


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
