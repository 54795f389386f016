"""What ``joulefront repeat`` does: read, call the library, print."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..records.run_folder import Store
from ..verbs.origin import command_line, remember, study_of


def repeat_run(
    path: Path,
    words: Sequence[str],
    *,
    source: str | None,
    data: str | None,
    idle_seconds: float,
    cool_down_seconds: float,
    anchor_every: int,
    as_json: bool,
    **options: Any,
) -> None:
    """Measure finalists of a run again and print what that says of the front."""
    from ..records.replicates import read_repeats
    from ..running.fairness import Fairness
    from .repeat import repeat
    from .text import to_json, to_text

    fairness = Fairness(idle_seconds, cool_down_seconds, anchor_every)
    store = Store.open(path)
    earlier, command = len(store.facts["sessions"]), command_line(words)
    study = study_of(store, data, source)
    try:
        finding = repeat(study, path, fairness=fairness, **options)
    finally:
        remember(path, earlier, None, command)
    repeats = read_repeats(path)
    print(json.dumps(to_json(finding, repeats), indent=1, allow_nan=False) if as_json else to_text(finding, repeats))
    if Store.open(path).facts["sessions"][-1].get("reason") == "interrupted":
        print(f"continue: {command}", file=sys.stderr)
    elif not any(member.quality for member in finding.members):
        reason = next((one.failed for one in repeats.trainings if one.failed), "nothing was trained")
        raise RuntimeError(f"no repeat has a result: {reason}")
