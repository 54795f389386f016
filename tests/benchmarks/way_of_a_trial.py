"""How many of our files does one trial pass, from asking Optuna for it until it is told?

    python tests/benchmarks/way_of_a_trial.py [--files] [--trial 12]

A reader of the code follows a trial through so many files. The digits study with the rungs (1, 3) runs under the freeze-thaw sampler, in
this process; during one trial ``sys.setprofile`` counts, in the main thread, the functions that are called, the files under ``search/``,
``spaces/`` and ``studies/`` in which they lie, and how often the work changes from one of these files to another.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("search", "spaces", "studies")


@dataclass
class Way:
    """What was passed on the way.

    Attributes:
        calls: Calls by file.
        functions: Functions that were called at least once.
        changes: Changes from one of our files to another.
    """

    calls: Counter[str] = field(default_factory=Counter)
    functions: set[tuple[str, str]] = field(default_factory=set)
    changes: int = 0
    _last: str = ""
    _ours: dict[str, str | None] = field(default_factory=dict)

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        """Take note of a call or a return."""
        if event not in ("call", "return"):
            return
        file = self._file(frame if event == "call" else frame.f_back)
        if file is None:
            return
        if event == "call":
            self.calls[file] += 1
            self.functions.add((file, frame.f_code.co_qualname if sys.version_info >= (3, 11) else frame.f_code.co_name))
        if file != self._last:
            self.changes += bool(self._last)
            self._last = file

    def _file(self, frame: FrameType | None) -> str | None:
        name = "" if frame is None else frame.f_code.co_filename
        if name not in self._ours:
            path = Path(name).resolve()
            inside = path.is_relative_to(ROOT) and path.relative_to(ROOT).parts[0] in ROOMS
            self._ours[name] = path.relative_to(ROOT).as_posix() if inside else None
        return self._ours[name]


def walk(trial: int) -> Way:
    """Run the study up to a trial and follow that one from ask to tell.

    Args:
        trial: Its number.
    """
    import optuna

    from joulefront.search import run
    from joulefront.search.cli.study_source import find_study

    study = replace(find_study("digits", {}), rungs=(1, 3), trials=trial + 1, budget=None, sampler="freeze-thaw")
    way, ask, tell = Way(), optuna.Study.ask, optuna.Study.tell

    def asks(self: optuna.Study, *arguments: Any, **options: Any) -> optuna.Trial:
        if len(self.get_trials(deepcopy=False)) == trial:
            sys.setprofile(way)
        return ask(self, *arguments, **options)

    def tells(self: optuna.Study, *arguments: Any, **options: Any) -> Any:
        try:
            return tell(self, *arguments, **options)
        finally:
            sys.setprofile(None)

    optuna.Study.ask, optuna.Study.tell = asks, tells  # type: ignore[method-assign]  # restored below
    try:
        with TemporaryDirectory() as folder:
            run(study, out=Path(folder) / "run", meter="cpu_time")
    finally:
        optuna.Study.ask, optuna.Study.tell = ask, tell  # type: ignore[method-assign]  # as it was
    return way


def main() -> None:
    """Print the numbers."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trial", type=int, default=12, help="number of the trial that is followed")
    parser.add_argument("--files", action="store_true", help="list the files, with their calls")
    options = parser.parse_args()
    way = walk(options.trial)
    print(f"trial {options.trial}: {len(way.calls)} files, {len(way.functions)} functions, {way.changes} changes of file")
    if options.files:
        for file, count in sorted(way.calls.items()):
            print(f"{count:8d}  {file}")


if __name__ == "__main__":
    main()
