"""Every room has a README.md that names its files and shows an example that runs; links and paths in the documents lead somewhere."""

import re
import runpy
import sys
from pathlib import Path

import pytest
from helpers import forked

from joulefront.search.execution.job import WarmUp

ROOT = Path(__file__).parent.parent
TOPS = ("search", "spaces", "studies")
#: Rooms that the sign of the room above describes.
INNER = {ROOT / "search" / "energy" / "sources", ROOT / "search" / "training" / "tactics"}
ROOMS = sorted(file.parent for top in TOPS for file in (ROOT / top).rglob("__init__.py") if file.parent not in INNER)
SIGNS = [ROOT / "README.md", *sorted(file for top in TOPS for file in (ROOT / top).rglob("README.md"))]
DOCUMENTS = sorted({*ROOT.glob("*.md"), *(file for top in (*TOPS, "tests") for file in (ROOT / top).rglob("*.md"))})
SOURCES = sorted(file for top in (*TOPS, "tests") for file in (ROOT / top).rglob("*.py"))


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def examples(sign: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", sign.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def lineless(path: Path) -> str:
    """The text without what a code block shows: a tree of folders or a command there is no link."""
    return re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("room", ROOMS, ids=name_of)
def test_a_room_has_a_sign_of_at_most_80_lines_before_its_figures_with_an_example_and_all_its_files(room: Path) -> None:
    sign = room / "README.md"
    assert sign.exists(), f"{name_of(room)} has no README.md"
    text = sign.read_text(encoding="utf-8")
    assert len(text.partition("\n## Figures\n")[0].splitlines()) <= 80
    assert examples(sign), "a sign shows at least one example in a ```python block"
    files = [file for folder in {room, *(INNER & {*room.iterdir()})} for file in folder.glob("*.py") if not file.name.startswith("_")]
    unnamed = sorted(name_of(file) for file in files if not re.search(rf"\b{file.stem}\b", text))
    assert unnamed == [], "a stranger does not find these files from the sign"


@pytest.mark.slow
@pytest.mark.parametrize("sign", SIGNS, ids=name_of)
def test_the_examples_of_a_sign_run_in_their_order(sign: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "example.py"
    file.write_text("\n".join(examples(sign)), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(WarmUp, "before", lambda *args, **words: None)  # takes longer than the two trials of an example
    if sign.parent == ROOT:  # in a process of its own, as a reader runs it
        done = forked.run(file)
        assert done.returncode == 0, done.stderr
    else:  # torch is loaded already
        runpy.run_path(str(file), run_name="__main__")


def test_the_ten_questions_lead_over_a_sign_to_a_file() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (.+\?) \| \[.+?\]\((.+?)\) \| `(.+?)`", text, re.MULTILINE)
    assert len(rows) == 10
    for question, sign, file in rows:
        assert (ROOT / file).exists(), question
        assert re.search(rf"\b{Path(file).name}\b", (ROOT / sign).read_text(encoding="utf-8")), f"{question} {sign} does not name {file}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_the_links_of_a_document_lead_to_files_and_headings(document: Path) -> None:
    dead = []
    for target in re.findall(r"\]\(([^)\s]+)\)", lineless(document)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, heading = target.partition("#")
        file = (document.parent / path).resolve() if path else document
        titles = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.MULTILINE) if heading and file.is_file() else []
        anchors = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
        if not file.exists() or (heading and heading not in anchors):
            dead.append(target)
    assert dead == []


@pytest.mark.slow
def test_every_path_that_documents_and_comments_name_exists() -> None:
    path = re.compile(r"(?<![\w./-])((?:search|spaces|studies|tests)/[\w/.-]*\.(?:py|md|png|ipynb|c))\b")
    named = {
        (name_of(file), found)
        for file in (*DOCUMENTS, *SOURCES, ROOT / "pyproject.toml", ROOT / ".ci" / "run")
        for found in path.findall(file.read_text(encoding="utf-8"))
    }
    assert sorted(pair for pair in named if not (ROOT / pair[1]).exists()) == []


def test_every_dotted_name_in_documents_and_docstrings_exists() -> None:
    dotted = re.compile(r"\bjoulefront\.((?:search|spaces|studies)(?:\.\w+)+)")
    dead = set()
    for file in (*DOCUMENTS, *SOURCES):
        for found in dotted.findall(file.read_text(encoding="utf-8")):
            parts = found.split(".")
            place = ROOT
            while parts and (place / parts[0]).is_dir():
                place /= parts.pop(0)
            if parts and (module := place / f"{parts[0]}.py").exists():
                place = module
                parts.pop(0)
            code = (place / "__init__.py" if place.is_dir() else place).read_text(encoding="utf-8")
            if parts and not parts[0].startswith("__") and not re.search(rf"\b{parts[0]}\b", code):
                dead.add((name_of(file), f"joulefront.{found}"))
    assert sorted(dead) == []


@pytest.mark.slow
def test_the_commands_of_benchmarks_in_documents_have_their_options(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = re.compile(r"python tests/benchmarks/(\w+\.py)((?: +(?:--[\w-]+|\"[^\"]*\"|[^\s`\"-][^\s`]*))*)")
    used: dict[str, set[str]] = {}
    for document in DOCUMENTS:
        for name, arguments in command.findall(document.read_text(encoding="utf-8")):
            used.setdefault(name, set()).update(re.findall(r"(?<= )--[\w-]+", arguments))
    assert {"search.py", "meters.py", "live.py", "carbon_aware.py"} <= used.keys()
    for name, options in used.items():
        script = str(ROOT / "tests" / "benchmarks" / name)
        monkeypatch.setattr(sys, "argv", [script, "--help"])
        monkeypatch.setattr(sys, "path", [str(Path(script).parent), *sys.path])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(script, run_name="__main__")
        assert ended.value.code in (0, None), name
        shown = capsys.readouterr().out
        assert {option for option in options if option not in shown} == set(), name
