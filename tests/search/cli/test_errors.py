"""What a user reads when something goes wrong."""

from pathlib import Path

import pytest

from joulefront.search.cli import exit_code, one_line


@pytest.mark.parametrize("make", ["missing/x.png", "afile/x.png", "folder"])
def test_a_path_that_cannot_be_used_is_named_with_a_remedy_and_is_wrong_usage(tmp_path: Path, make: str) -> None:
    (tmp_path / "afile").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError) as caught:  # noqa: PT011 - every kind of it
        (tmp_path / make).write_text("x")
    said = one_line(caught.value)
    assert make in said
    assert said.endswith("give another path")
    assert "Errno" not in said
    assert exit_code(caught.value) == 2


def test_an_error_without_a_path_keeps_its_words_and_is_failed_work() -> None:
    assert one_line(OSError("no space left")) == "no space left"
    assert exit_code(OSError("no space left")) == 1
