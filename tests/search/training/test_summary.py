import zipfile

import numpy as np
import pytest
from PIL import Image

from joulefront.search.training.summary import open_data, summarise, summary_text

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "t.csv"
    rows = [
        f"{k},{k % 7 * 1.5},{'?' if k % 9 == 0 else 'ab'[k % 2]},2024-01-{1 + k % 28:02},x,{['no', 'yes'][k % 3 == 0]}" for k in range(120)
    ]
    path.write_text("id,size,town,day,always,label\n" + "\n".join(rows) + "\n3,4\n")
    return path


@pytest.mark.slow
def test_of_a_table_it_says_what_each_column_became_and_why(path):
    found = summarise(open_data(path, "label"))
    by_name = {one["name"]: one for one in found["columns"]}
    assert {name: one["as"] for name, one in by_name.items()} == {
        "id": "dropped", "size": "number", "town": "category", "day": "date", "always": "dropped",
    }  # fmt: skip
    assert (by_name["id"]["reason"], by_name["always"]["reason"]) == ("names the rows", "constant")
    assert found["missing_texts"] == {"town": {"?": 14}}
    assert sum(found["classes"]["train"].values()) == found["examples"]["train"]
    assert found["guessing"]["accuracy"] == pytest.approx(2 / 3, abs=0.05)
    assert any("1 rows have fewer values than the header has names, first line 122" in text for text in found["warnings"])


@pytest.mark.slow
def test_its_text_has_all_of_it(path):
    text = summary_text(summarise(open_data(path, "label", drop="day")))
    for part in ("classification", "guessing gives accuracy", "used as number: size", "'?' 14 times", "day (asked for)", "warning: "):
        assert part in text


def test_a_table_needs_its_target_and_the_message_names_the_columns(path):
    with pytest.raises(ValueError, match=r"--target NAME; its columns are id, size, town, day, always, label"):
        open_data(path)


@pytest.mark.slow
def test_a_zip_of_one_table_is_that_table(tmp_path, path):
    with zipfile.ZipFile(tmp_path / "t.zip", "w") as packed:
        packed.write(path, "inner/t.csv")
        packed.writestr("README", "how it was made")
    with pytest.raises(ValueError, match="its columns are id, size, town"):
        open_data(tmp_path / "t.zip")
    found, plain = (summarise(open_data(one, "label")) for one in (tmp_path / "t.zip", path))
    assert found["columns"] == plain["columns"]


def test_of_images_it_says_sizes_and_modes(tmp_path):
    for k in range(24):
        folder = tmp_path / "ab"[k % 2]
        folder.mkdir(exist_ok=True)
        Image.fromarray(np.full((8 + k % 3, 8), 9 * k, dtype=np.uint8)).convert("RGB" if k % 4 else "L").save(folder / f"{k}.png")
    found = summarise(open_data(tmp_path))
    assert (
        sum(found["images"]["modes"].values())
        == found["images"]["examined"]
        == found["examples"]["train"] + sum(count for split, count in found["examples"].items() if split != "train")
    )
    assert "images (24 looked at): 8 x" in summary_text(found)
    with pytest.raises(ValueError, match="--target is for tables"):
        open_data(tmp_path, "label")


def test_what_a_study_refuses_is_left_out_with_the_option_that_it_needs(tmp_path):
    for k in range(12):
        folder = tmp_path / "ab"[k % 2]
        folder.mkdir(exist_ok=True)
        Image.fromarray(np.full((8, 8), 9 * k, dtype=np.uint8)).save(folder / f"{k}.png")
    assert not any("skip_unreadable" in text for text in summarise(open_data(tmp_path))["warnings"])
    (tmp_path / "a" / "broken.png").write_bytes(b"no image")
    assert any("--set skip_unreadable=true" in text for text in summarise(open_data(tmp_path))["warnings"])


@pytest.mark.slow
def test_a_table_is_looked_at_as_a_study_does_it(path):
    assert "validated in 5 parts of the training and validation rows" in summary_text(summarise(open_data(path, "label")))


def test_of_recordings_it_says_their_seconds(tmp_path):
    import soundfile

    for k in range(16):
        folder = tmp_path / "ab"[k % 2]
        folder.mkdir(exist_ok=True)
        soundfile.write(folder / f"{k}.wav", np.random.default_rng(k).normal(size=800 * (1 + k % 2)) * 0.1, 8000)
    found = summarise(open_data(tmp_path))
    assert found["sound"]["rates"] == {"8000": found["sound"]["examined"]}
    assert found["sound"]["seconds"]["longest"] == pytest.approx(0.2)
    assert "samples per second 8000" in summary_text(found)


def test_what_would_move_the_cursor_or_has_no_encoding_is_shown_as_its_code(tmp_path):
    (tmp_path / "t.csv").write_text("a\x1b[31m,b,y\n" + "".join(f"{k},{k % 3},{'pq'[k % 2]}\n" for k in range(40)))
    shown = summary_text(summarise(open_data(tmp_path / "t.csv", "y")) | {"warnings": ["left out \udcff.png"]})
    assert "a\\x1b[31m" in shown
    assert "left out \\udcff.png" in shown
    assert "\x1b" not in shown
