"""Files of a run folder, written whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def write_json(path: Path, data: Mapping[str, Any], *, private: bool = False) -> None:
    """Write JSON so that a reader sees the old file or the new one, never half of one.

    Args:
        path: The file.
        data: What it holds.
        private: Whether only its owner may read it.

    Raises:
        OSError: If it cannot be written, e.g. to a full disk; nothing is left behind, and the error names the file.
    """
    text = json.dumps(data, indent=1, allow_nan=False, default=str) + "\n"
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        temporary.touch(0o600 if private else 0o666)
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        error.filename, error.filename2 = str(path), None
        raise
