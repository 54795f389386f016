"""The folder of an export: everything is written to a temporary folder and moved in only after the check."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..whole_file import named_when_full

#: Describes an export; its ``joulefront`` key tells a later export that it may replace the files.
CONFIG = "config.json"
PREFIX = ".joulefront-export-"


@contextlib.contextmanager
def staging(out: Path) -> Iterator[Path]:
    """Yield an empty folder on the file system of ``out``; it is gone afterwards, whatever happened.

    Raises:
        ValueError: If ``out`` is a file, holds something other than an export, or cannot be written.
        OSError: If the disk is full; the error names ``out``.
    """
    if out.exists() and not out.is_dir():
        raise ValueError(f"-o {str(out)!r} is a file; give a folder that is empty or does not exist yet")
    try:
        inside = [file.name for file in out.iterdir() if not file.name.startswith(PREFIX)] if out.is_dir() else []  # a killed export's
        strange = [] if earlier_files(out) else sorted(inside)
        if strange:
            raise ValueError(
                f"-o {str(out)!r} is not empty ({strange[0]}{', ...' if len(strange) > 1 else ''}) and holds no earlier export; "
                "give a folder that is empty or does not exist yet"
            )
        near = out.absolute()
        while not near.exists():
            near = near.parent
        stage = tempfile.TemporaryDirectory(prefix=PREFIX, dir=near, ignore_cleanup_errors=True)
    except OSError as error:
        raise ValueError(f"-o {str(out)!r} cannot be written ({error.strerror or error}); give another folder") from error
    with stage as folder, named_when_full(out):
        yield Path(folder)


def move_in(stage: Path, out: Path) -> tuple[str, ...]:
    """Move the files of ``stage`` into ``out``, each atomically and the config last; remove what only the earlier export had.

    Other files beside an earlier export stay.

    Raises:
        ValueError: If the folder cannot be written.
    """
    names = sorted(file.name for file in stage.iterdir())
    try:
        out.mkdir(parents=True, exist_ok=True)
        old = earlier_files(out)
        for name in sorted(names, key=lambda name: name == CONFIG):
            os.replace(stage / name, out / name)
        for name in set(old) - set(names):
            (out / name).unlink(missing_ok=True)
    except OSError as error:
        raise ValueError(f"-o {str(out)!r} cannot be written ({error.strerror or error}); give another folder") from error
    return tuple(names)


def earlier_files(out: Path) -> tuple[str, ...]:
    """Names of the files of an earlier export in ``out``; empty when there is none."""
    try:
        config = json.loads((out / CONFIG).read_text(encoding="utf-8"))
        names = config["joulefront"]["files"]
    except (OSError, ValueError, KeyError, TypeError):
        return ()
    return tuple(name for name in names if isinstance(name, str) and Path(name).name == name)


def write_readable_json(file: Path, data: Any) -> None:
    """Write JSON that people can read as well; halves of signs, as names of files may have, are escapes in it."""
    file.write_text(json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8", errors="backslashreplace")


def check_push(repository: str, network: bool) -> None:
    """See that a folder may be uploaded, before anything is made.

    Raises:
        ValueError: If the network was not allowed, there is no token, or the name is none of a repository.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # documented, but not listed

    if not network:
        raise ValueError("--push must come with --network, which allows the upload; add it")
    if not os.environ.get("HF_TOKEN"):
        raise ValueError("--push needs a token that may write: set HF_TOKEN to one of huggingface.co/settings/tokens")
    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise ValueError(f"--push must be NAME or USER/NAME, got {repository!r}: {error}") from error


def upload(folder: Path, repository: str) -> str:
    """Upload an export to a repository of the Hugging Face hub, which is made where there is none; returns its address.

    Raises:
        RuntimeError: If the hub refuses it or cannot be reached; the folder stays.
    """
    from huggingface_hub import HfApi

    try:
        api = HfApi(token=os.environ["HF_TOKEN"])
        found = api.create_repo(repository, exist_ok=True, private=True)
        api.upload_folder(folder_path=folder, repo_id=found.repo_id, commit_message="Exported by joulefront")
    except Exception as error:
        line = " ".join(str(error).split())[:200]
        raise RuntimeError(f"{folder} is complete, but could not be uploaded to {repository}: {line}; try again, or upload it") from error
    return str(found)
