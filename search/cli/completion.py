"""What a shell completes: the names of studies and run folders; `joulefront --install-completion` makes it ask."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

BUNDLED = "joulefront.studies"
#: Where `run` puts its folders, and what a run folder holds; asked without loading Optuna, since a shell waits for it.
RUNS, FACTS = "runs", "study.json"


def bundled_studies() -> dict[str, str]:
    """Return the bundled studies: name -> first line of the file's docstring, without importing any of them."""
    spec = importlib.util.find_spec(BUNDLED)
    folders = list(spec.submodule_search_locations or ()) if spec else []
    found: dict[str, str] = {}
    for folder in folders:
        for file in sorted(Path(folder).glob("*.py")):
            if not file.stem.startswith("_"):
                text = file.read_text(encoding="utf-8").lstrip()
                found[file.stem] = text.strip('"').split("\n", 1)[0].strip('" ')
    return found


def complete_study(incomplete: str) -> list[tuple[str, str]]:
    """Return the bundled studies, with what they are, and the files that may hold one, which begin with what was typed."""
    named = [(name, line) for name, line in bundled_studies().items() if name.startswith(incomplete)]
    return named + [(path, "") for path in _paths(incomplete) if path.endswith((".toml", ".py", os.sep))]


def complete_run(incomplete: str) -> list[tuple[str, str]]:
    """Return the run folders that begin with what was typed, and folders on the way; those of ``runs/`` at once where nothing was."""
    folders = [path for path in [*_paths(incomplete), *([] if incomplete else _paths(RUNS + os.sep))] if path.endswith(os.sep)]
    runs = [folder for folder in folders if os.path.isfile(os.path.join(os.path.expanduser(folder), FACTS))]
    return [(run.rstrip(os.sep), "run folder") for run in runs] + [(folder, "") for folder in folders if folder not in runs]


def _paths(incomplete: str) -> list[str]:
    """Paths that begin so, as they were typed; folders end with a separator, hidden ones are left out unless asked for."""
    head, tail = os.path.split(incomplete)
    try:
        names = sorted(os.listdir(os.path.expanduser(head) or "."))
    except OSError:  # no such folder
        return []
    begun = [name for name in names if name.startswith(tail) and name.isprintable() and (tail.startswith(".") or not name.startswith("."))]
    paths = [os.path.join(head, name) for name in begun]
    return [path + os.sep if os.path.isdir(os.path.expanduser(path)) else path for path in paths]
