"""No stream ends a verb: signs that it cannot encode are spelt plainly, and a reader may leave early."""

from __future__ import annotations

import io
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.command_line import Circle
from helpers.forked import Forked

from joulefront.search.cli import SPELLINGS, Forgiving, main, prepare_streams


def into(encoding: str, monkeypatch: pytest.MonkeyPatch, *words: object) -> tuple[int, str, str]:
    """Call the command line with streams of an encoding; return the exit code and what both hold."""
    streams = [io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2)]
    monkeypatch.setattr(sys, "stdout", streams[0])
    monkeypatch.setattr(sys, "stderr", streams[1])
    code = 0
    try:
        main([str(word) for word in words])
    except SystemExit as end:
        code = int(end.code or 0)
    for stream in streams:
        stream.flush()
    out, err = (stream.buffer.getvalue().decode(encoding) for stream in streams)  # type: ignore[attr-defined]
    return code, out, err


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1"])
@pytest.mark.parametrize("verb", ["front", "front --json", "price", "compare", "studies", "cache", "doctor"])
def test_a_verb_that_reads_prints_into_any_encoding(folder: Path, monkeypatch: pytest.MonkeyPatch, encoding: str, verb: str) -> None:
    monkeypatch.chdir(folder.parent)
    name, *more = verb.split()
    runs = [] if name in ("studies", "cache", "doctor") else [folder, folder] if name == "compare" else [folder]
    code, out, err = into(encoding, monkeypatch, name, *runs, *more, *(["--zones", "FR"] if name == "price" else []))
    assert (code, err) == (0, "")
    assert out
    if verb.startswith(("front", "price", "report", "plot", "compare")):  # the others print questions and addresses
        assert "?" not in out


@pytest.mark.slow
@pytest.mark.picture
@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_a_run_keeps_its_pictures_and_its_result_in_any_encoding(
    circle: Circle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    code, out, err = into(encoding, monkeypatch, "run", circle.study, "--out", tmp_path / "r", "--trials", "1", "--meter", "cpu_time")
    assert code == 0, err
    assert "next: joulefront export" in out
    assert {"front.html", "front.png"} <= {file.name for file in (tmp_path / "r").iterdir()}


def test_every_sign_that_is_respelt_becomes_ascii() -> None:
    for sign, text in SPELLINGS.items():
        assert text.isascii(), sign


def test_a_sign_that_is_known_to_nobody_becomes_a_question_mark(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    prepare_streams(whole_process=False)
    print("4.5 µWh ±1 % ☃")
    sys.stdout.flush()
    assert raw.getvalue() == b"4.5 uWh +-1 % ?\n"


def test_a_reader_that_leaves_costs_nothing_but_what_it_did_not_read() -> None:
    reader, writer = os.pipe()
    stream = Forgiving(os.fdopen(writer, "w", encoding="utf-8"))
    os.close(reader)
    for _ in range(3):
        stream.write("a line\n")
        stream.flush()
    stream.close()


@pytest.mark.slow
@pytest.mark.parametrize(("closed", "number"), [(">&-", 1), ("2>&-", 2)])
def test_a_stream_that_is_closed_is_read_by_nobody(closed: str, number: int) -> None:
    code = "import sys; from joulefront.search.cli import main; sys.argv[1:] = ['measure', '--meter', 'cpu_time', '--', 'true']; main()"
    command = f"{shlex.quote(sys.executable)} -c {shlex.quote(code)} {closed}"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    record = "true: exit code 0" in done.stderr
    assert (done.returncode, done.stdout, record, "Traceback" in done.stderr) == (0, "", number == 1, False), done


@pytest.mark.slow
def test_a_run_whose_reader_has_left_ends_well(circle: Circle, tmp_path: Path) -> None:
    words = ["-m", "joulefront.search.cli", "run", circle.study, "--out", tmp_path / "r", "--trials", "2"]
    process = Forked(*words, stderr=subprocess.STDOUT, env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert process.stdout
    process.stdout.readline()
    process.stdout.close()
    assert process.wait() == 0
    assert (tmp_path / "r" / "front.png").exists()
