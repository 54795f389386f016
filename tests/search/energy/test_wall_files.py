"""The wall meter as a file that grows: row by row, at the times of its rows."""

import threading
from datetime import UTC, datetime

import pytest
from helpers.wall import NANO, Clock

from joulefront.search.energy.sources.wall import CsvTail, Wall, from_spec


@pytest.fixture(autouse=True)
def no_thread_of_another_test():
    """A thread that a plug of an earlier test kept waiting ends with its answer."""
    for thread in threading.enumerate():
        if thread.name == "joulefront-wall":
            thread.join(30.0)


def test_a_file_that_grows_is_followed_row_by_row_at_its_own_times(tmp_path):
    path, clock = tmp_path / "meter.csv", Clock()
    utc = {"now": 1_700_000_000.0}
    wall = Wall(CsvTail(path, skip_old=True), str(path), poll_seconds=None, clock=clock, utc=lambda: utc["now"])
    path.write_text("timestamp,watts\n1699999000,10\n1699999999,20\n")
    (found,) = wall.probe()
    assert found.available
    assert [reading.watts for reading in wall.read()] == [20.0]  # the last old row, no older ones
    with path.open("a") as file:
        file.write("1700000001,30\n1700000002,40\n17000")
    utc["now"] += 3
    clock.advance(3)
    readings = wall.read()
    assert [reading.watts for reading in readings] == [30.0, 40.0]
    assert [reading.t_ns for reading in readings] == [clock.ns - 2 * NANO, clock.ns - NANO]
    with path.open("a") as file:
        file.write("00003,50\n")  # the half row is read once it is whole
    last = wall.read()
    assert [reading.watts for reading in last] == [50.0]
    assert wall.read() == last


def test_a_file_with_a_counter_and_iso_times_works_and_bad_rows_name_themselves(tmp_path):
    path = tmp_path / "meter.csv"
    path.write_text("timestamp,kwh\n2024-01-01T00:00:00,1.25\n")
    (sample,) = CsvTail(path)()
    assert sample.joules == pytest.approx(4.5e6)
    assert sample.step_joules == pytest.approx(36000)
    assert sample.utc_seconds == datetime(2024, 1, 1, tzinfo=UTC).timestamp()
    tail = CsvTail(path)
    tail()
    with path.open("a") as file:
        file.write("later,much\n")
    with pytest.raises(ValueError, match="much"):
        tail()
    path.write_text("a,b\n1,2\n")
    wrong = CsvTail(path)
    for _ in range(2):  # the header stays refused: the next rows are not read under it
        wrong.position = 0
        with pytest.raises(ValueError, match="header"):
            wrong()


def test_a_row_that_cannot_be_read_takes_no_other_with_it(tmp_path):
    path = tmp_path / "meter.csv"
    path.write_text("watts\n1\n")
    tail = CsvTail(path)
    tail()
    with path.open("a") as file:
        file.write("2\nmuch\n3\n")
    assert [sample.watts for sample in tail()] == [2.0, 3.0]
    with path.open("ab") as file:
        file.write(b"4,\xb0C\n5\n\xb0\n")
    assert [sample.watts for sample in tail()] == [4.0, 5.0]


def test_a_rotated_file_is_read_from_its_start(tmp_path):
    path = tmp_path / "meter.csv"
    path.write_text("watts\n1\n2\n3\n")
    tail = CsvTail(path, skip_old=False)
    assert [sample.watts for sample in tail()] == [1, 2, 3]
    path.write_text("watts\n4\n")
    assert [sample.watts for sample in tail()] == [4]
    path.write_text("watts,note\n" + "5.5,longer\n" * 3)
    assert [sample.watts for sample in tail()] == [5.5] * 3, "the text before the last position is another one"
    other = tmp_path / "new.csv"
    other.write_text("note,watts\n" + "longer,6.5\n" * 4)
    other.replace(path)
    assert [sample.watts for sample in tail()] == [6.5] * 4


def test_a_logger_whose_clock_runs_ahead_is_refused(tmp_path):
    path = tmp_path / "meter.csv"
    path.write_text("timestamp,watts\n1700000100,10\n")
    wall = Wall(CsvTail(path), str(path), poll_seconds=None, clock=Clock(), utc=lambda: 1_700_000_000.0)
    (found,) = wall.probe()
    assert not found.available
    assert "ahead" in found.reason


def test_a_missing_file_is_absent_with_its_name(tmp_path):
    (found,) = from_spec(str(tmp_path / "no.csv")).probe()
    assert not found.available
    assert "no.csv" in found.reason
