"""Folders and zips as people have them: every image counts once, in the class and split that is meant, or one line says why not."""

import io
import os
import warnings
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import wavfile

from joulefront.search.export.predict import Model
from joulefront.search.training import file_tree
from joulefront.search.training.audio import audio, read_sound
from joulefront.search.training.images import decode, images, prepare
from joulefront.search.training.summary import open_data

RANDOM = np.random.default_rng(0)


def saved(array, suffix="PNG", mode=None):
    file = io.BytesIO()
    Image.fromarray(array, mode).save(file, suffix)
    return file.getvalue()


def picture():
    return saved(RANDOM.integers(0, 256, (6, 6, 3), dtype=np.uint8))


def write(root, files):
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def classes(*names, count=10):
    return {f"{name}/{k}.png": picture() for name in names for k in range(count)}


def read(path, **options):
    """The task, its number of examples, and every warning in one text."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        task = images(path, **options)
    return task, sum(len(part) for part in (task.train, task.validation, task.test or ())), " | ".join(str(one.message) for one in caught)


@pytest.mark.parametrize(
    ("folders", "expected", "count", "words"),
    [
        (
            ("bus/1", "bus/2", "car/1", "train/1", "train/2"),
            ("bus", "car", "train"),
            50,
            "train/ beside other folders: which is taken for a class",
        ),
        (("bus", "car", "train"), ("bus", "car", "train"), 30, "train/ beside"),
        (("valid", "invalid"), ("invalid", "valid"), 20, "valid/ beside"),
        (("control", "test"), ("control", "test"), 20, "test/ beside"),
        (("train/a", "train/b", "val/a", "val/b"), ("a", "b"), 40, ""),
        (("train/a", "train/b", "test/a", "test/b", "raw/x"), ("a", "b"), 40, "test, train/ beside other folders: raw is left out"),
    ],
)
def test_train_val_and_test_are_classes_where_they_can_be_no_splits(tmp_path, folders, expected, count, words):
    task, found, said = read(write(tmp_path, classes(*folders)))
    assert (task.classes, found) == (expected, count)
    assert words in said


LOOPS = {
    "to the set": {"a/up": ".."},
    "to itself": {"a/again": "."},
    "at each other": {"a/other": "../b", "b/other": "../a"},
    "around the set": {"a/up": "../.."},
    "to a file of the set": {"b/z.png": "../a/0.png"},
}


@pytest.mark.parametrize("links", LOOPS.values(), ids=LOOPS)
def test_links_count_no_file_twice(tmp_path, links):
    root = write(tmp_path / "set", classes("a", "b"))
    for name, target in links.items():
        os.symlink(target, root / name)
    task, found, _ = read(root)
    assert (task.classes, found) == (("a", "b"), 20)
    assert len({tuple(image.flatten().tolist()) for part in (task.train, task.validation, task.test) for image in part.inputs}) == 20


def test_splits_may_be_links_into_a_folder_of_all_files(tmp_path):
    root = write(tmp_path, classes("all/a", "all/b"))
    for split, rows in (("train", range(7)), ("val", range(7, 10))):
        for name in "ab":
            (root / split / name).mkdir(parents=True)
            for k in rows:
                os.symlink(root / "all" / name / f"{k}.png", root / split / name / f"{k}.png")
    task, _, _ = read(root, test_share=0)
    assert (len(task.train), len(task.validation)) == (14, 6)


@pytest.mark.parametrize(
    "name", ["__MACOSX", ".git", "@eaDir", ".ipynb_checkpoints", "$RECYCLE.BIN", "System Volume Information", "lost+found"]
)
@pytest.mark.parametrize("depth", ["", "a/"])
def test_what_systems_leave_behind_is_no_class_and_no_image(tmp_path, name, depth):
    root = write(
        tmp_path, classes("a", "b") | {f"{depth}{name}/x.png": picture(), "a/Thumbs.db": b"x", "b/._0.png": b"x", "desktop.ini": b""}
    )
    task, found, said = read(root)
    assert (task.classes, found, said) == (("a", "b"), 20, "")


@pytest.mark.parametrize("form", ["a\\{}", "./a/{}", "/a/{}", "set\\a\\{}"])
def test_entries_of_a_zip_may_be_written_in_any_way(tmp_path, form):
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for name in "ab":
            for k in range(10):
                info = zipfile.ZipInfo("x")
                info.filename = form.replace("a", name).format(f"{k}.png") if "set" not in form else f"set\\{name}\\{k}.png"
                archive.writestr(info, picture())
    task, found, _ = read(tmp_path / "set.zip")
    assert (task.classes, found) == (("a", "b"), 20)
    assert len(read(tmp_path / "set.zip", memory_limit_bytes=0, workers=1)[0].train) == 12


def encrypted(data):
    """The same zip with the flag of encryption set on its first entry, in its head and in the directory."""
    changed = bytearray(data)
    for mark, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        changed[data.index(mark) + place] |= 1
    return bytes(changed)


@pytest.mark.parametrize("memory_limit_bytes", [2**30, 0], ids=["memory", "streamed"])
def test_skip_unreadable_names_every_file_of_any_kind_of_damage(tmp_path, memory_limit_bytes):
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for name, data in {"a/locked.png": picture(), **classes("a", "b"), "b/cut.png": picture()[:50], "b/text.png": b"<html>"}.items():
            archive.writestr(name, data)
    (tmp_path / "set.zip").write_bytes(encrypted((tmp_path / "set.zip").read_bytes()))
    task, found, said = read(tmp_path / "set.zip", memory_limit_bytes=memory_limit_bytes, skip_unreadable=True, workers=1)
    assert found == 20
    assert "left out 3 unreadable files: a/locked.png (" in said or "left out 3 unreadable files: b/" in said
    assert all(f"{name} (" in said for name in ("a/locked.png", "b/cut.png", "b/text.png"))
    assert sum(len(targets) for _, targets in task.train.batches(8)) == len(task.train)


def deep(values, kind):
    if kind == "I;16B":
        little = Image.fromarray(values.astype(np.uint16))
        file = io.BytesIO()
        Image.frombytes("I;16B", little.size, values.astype(">u2").tobytes()).save(file, "TIFF")
        return file.getvalue()
    return saved(values.astype({"I;16": np.uint16, "I": np.int32, "F": np.float32}[kind]), "PNG" if kind == "I;16" else "TIFF")


@pytest.mark.parametrize("kind", ["I;16", "I;16B", "I", "F"])
@pytest.mark.parametrize("top", [4095, 65535])
def test_images_of_more_than_eight_bits_share_one_scale(tmp_path, kind, top):
    levels = np.linspace(0.01, 1, 20)
    files = {
        f"{'ab'[k % 2]}/{k:02}.{'png' if kind == 'I;16' else 'tif'}": deep(np.full((4, 4), level * top), kind)
        for k, level in enumerate(levels)
    }
    task, _, _ = read(write(tmp_path, files))
    assert task.preprocessing["white"] == top
    assert task.input_shape == (1, 4, 4)
    seen = sorted(int(image[0, 0, 0]) for part in (task.train, task.validation, task.test) for image in part.inputs)
    np.testing.assert_allclose(seen, levels * 255, atol=1.01)
    whole = torch.cat([inputs for part in (task.train, task.validation, task.test) for inputs, _ in part.batches(8)])
    made = torch.from_numpy(prepare(task.preprocessing, tmp_path / next(iter(files))))
    assert float((whole - made).abs().amax(dim=(1, 2, 3)).min()) < 1e-5


@pytest.mark.parametrize(("tone", "ground"), [(0, 255), (255, 0), (30, 255), (220, 0)])
@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_drawn_on_a_transparent_ground_is_seen(tmp_path, tone, ground, mode):
    for name, box in (("high", np.s_[2:14, 6:10]), ("wide", np.s_[6:10, 2:14])):
        pixels = np.full((16, 16, 4), (tone, tone, tone, 0), dtype=np.uint8)
        pixels[(*box, 3)] = 255
        image = Image.fromarray(pixels)
        for k in range(10):
            (tmp_path / name).mkdir(exist_ok=True)
            image.convert(mode).save(tmp_path / name / f"{k}.png")
    task, _, _ = read(tmp_path)
    assert task.preprocessing["ground"] == ground
    first, second = (decode((tmp_path / name / "0.png").read_bytes(), task.input_shape, ground=ground) for name in ("high", "wide"))
    assert np.abs(first.astype(int) - second).max() >= 200


def test_sizes_that_differ_are_said_and_an_own_resolution_is_taken_without_a_word(tmp_path):
    files = {f"{name}/{k}.png": saved(np.full((8 + k, 20, 3), ord(name), dtype=np.uint8)) for name in "ab" for k in range(10)}
    _, _, said = read(write(tmp_path, files))
    assert "the images differ in size (20 x 8 to 20 x 17)" in said
    assert "--set resolution=N" in said
    assert read(tmp_path, resolution=8)[2] == ""


@pytest.mark.parametrize(
    ("suffix", "subtype"),
    [
        *(("wav", subtype) for subtype in ("FLOAT", "DOUBLE", "PCM_24", "PCM_32", "PCM_U8", "ULAW")),
        *(("flac", "PCM_24"), ("ogg", "VORBIS"), ("mp3", None), ("aiff", "PCM_16")),
    ],
)
@pytest.mark.parametrize("form", [None, "WAVEX"])
def test_sounds_of_every_usual_format_are_read(suffix, subtype, form):
    import soundfile

    if form is not None and suffix != "wav":
        pytest.skip("extensible is a kind of WAV")
    samples = 0.5 * np.sin(2 * np.pi * 440 * np.arange(8000) / 16000)
    file = io.BytesIO()
    soundfile.write(file, np.stack([samples, samples], axis=1), 16000, format=form or suffix, subtype=subtype)
    found, rate = read_sound(file.getvalue())
    assert rate == 16000
    assert abs(float(np.abs(found[2000:6000]).max()) - 0.5) < 0.05


def test_samples_that_are_no_numbers_are_refused_by_the_name_of_their_file(tmp_path):
    import soundfile

    for name in "ab":
        (tmp_path / name).mkdir()
        for k in range(8):
            soundfile.write(
                tmp_path / name / f"{k}.wav", np.full(4000, np.nan if name == "b" and k == 3 else 0.1 * k), 8000, subtype="FLOAT"
            )
    with pytest.raises(ValueError, match=r"b/3\.wav: the recording has samples that are no numbers"):
        audio(tmp_path)
    with pytest.warns(UserWarning, match=r"left out 1 unreadable file: b/3\.wav"):
        audio(tmp_path, skip_unreadable=True)


def test_pictures_in_formats_that_are_not_read_are_counted(tmp_path):
    more = {"cat/a.HEIC": b"x", "cat/b.svg": b"<svg/>", "dog/no_suffix": picture(), "dog/notes.txt": b"x", "cat/Thumbs.db": b"x"}
    _, count, said = read(write(tmp_path, classes("cat", "dog") | more))
    assert count == 20
    assert "left out 3 files (.heic, .svg, no suffix), for example cat/a.HEIC; convert or rename what is meant as images" in said


@pytest.mark.parametrize(("name", "split"), [("dev", "validation"), ("Val_set", "validation"), ("holdout", "test"), ("eval", "test")])
def test_other_names_of_splits_are_known(tmp_path, name, split):
    task, _, said = read(write(tmp_path, classes("train/a", "train/b", f"{name}/a", f"{name}/b")))
    assert (task.classes, len(getattr(task, split)), said) == (("a", "b"), 20, "")


def test_the_same_folders_under_an_unknown_name_are_refused(tmp_path):
    with pytest.raises(ValueError, match="has the same folders in train, train_val/; rename what is a split to train, val or test"):
        images(write(tmp_path, classes("train/a", "train/b", "train_val/a", "train_val/b", count=3)))


def test_folders_in_a_class_are_said(tmp_path):
    task, _, said = read(write(tmp_path, classes("animals/cat", "animals/dog", "cars")))
    assert task.classes == ("animals", "cars")
    assert "20 images in folders of a class, e.g. animals/cat/, belong to 'animals'" in said


@pytest.mark.parametrize("before", ["../x/", "./", "/data/", "C:\\data\\", "one/two/three/"])
def test_what_stands_before_the_classes_of_a_zip_is_ignored(tmp_path, before):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name, data in classes("a", "b").items():
            archive.writestr(before + name, data)
    assert read(tmp_path / "a.zip")[0].classes == ("a", "b")


@pytest.mark.parametrize(("kind", "low", "high"), [("f4", -20, 20), ("i4", -2000, 2000), ("f4", 270, 300)])
def test_values_below_zero_or_close_together_keep_their_differences_in_training_and_export(tmp_path, kind, low, high):
    values = {"cold": low, "hot": high}
    files = {
        f"{name}/{k}.tif": saved((values[name] + np.arange(16).reshape(4, 4) / 10 + k).astype(kind), "TIFF")
        for name in values
        for k in range(10)
    }
    task, _, _ = read(write(tmp_path, files))
    means = [
        {int(image.float().mean()) // 32 for image, label in zip(task.train.inputs, task.train.targets, strict=True) if label == k}
        for k in (0, 1)
    ]
    assert not means[0] & means[1]
    served = object.__new__(Model)
    served.how = task.preprocessing
    for name in ("cold/3.tif", "hot/9.tif"):
        tones = {key: task.preprocessing[key] for key in ("white", "black")}
        np.testing.assert_array_equal(served.image(files[name])[..., 0], decode(files[name], (1, 4, 4), **tones)[0])


@pytest.mark.parametrize("form", ["GIF", "PNG", "TIFF", "WEBP"])
def test_several_frames_or_pages_are_said_once(tmp_path, form):
    frames = [Image.fromarray(RANDOM.integers(0, 256, (6, 6, 3), dtype=np.uint8)) for _ in range(3)]

    def moving(k):
        file = io.BytesIO()
        frames[k % 3].save(file, form, save_all=True, append_images=[frames[(k + 1) % 3]])
        return file.getvalue() + bytes([k])

    said = read(write(tmp_path, {f"{name}/{k}.{form.lower()}": moving(k + 10 * (name == "b")) for name in "ab" for k in range(10)}))[2]
    assert said.count("20 of 20 images have several frames or pages, of which the first is used, e.g. a/0.") == 1


def test_files_of_the_same_content_in_two_classes_or_splits_are_said(tmp_path):
    root = write(tmp_path, classes("train/a", "train/b", "test/a", "test/b"))
    assert read(root)[2] == ""
    (root / "test/a/9.png").write_bytes((root / "train/a/3.png").read_bytes())
    (root / "train/b/8.png").write_bytes((root / "train/a/4.png").read_bytes())
    torn, leaked = read(root)[2].split(" | ")
    assert "2 files have the same content in several classes, e.g. train/a/4.png and train/b/8.png" in torn
    assert "2 files have the same content in several splits" in leaked
    assert "train/a/3.png and test/a/9.png" in leaked


@pytest.mark.parametrize("names", [("Cat", "cat"), ("cat", "cat "), ("caf\u00e9", "cafe\u0301")])
def test_classes_that_differ_in_capitals_blanks_or_accents_only_are_said(tmp_path, names):
    assert "differ in capitals, blanks or accents only" in read(write(tmp_path, classes(*names)))[2]
    (tmp_path / "train").mkdir()
    with pytest.raises(ValueError, match=f"is it {names[0]}/|is it {names[1]}/"):
        images(write(tmp_path / "set", classes(f"train/{names[0]}", "train/x", f"test/{names[1]}", "test/x")))


def test_a_set_of_which_nothing_can_be_read_is_refused_with_the_reason(tmp_path):
    with pytest.raises(ValueError, match=r"none of 20 files of .* can be read, e\.g\. [ab]/\d\.png: cannot identify"):
        images(write(tmp_path, {f"{name}/{k}.png": b"x" for name in "ab" for k in range(10)}), skip_unreadable=True)
    write(tmp_path / "foreign", {f"{name}/{k}.m4a": b"x" for name in "ab" for k in range(3)})
    with pytest.raises(ValueError, match=r"no recordings in .*, got 6 \.m4a"):
        open_data(tmp_path / "foreign")


def test_silent_recordings_and_sounds_beside_the_middle_are_said(tmp_path):
    def sound(k, silence):
        tone = 0.3 * np.sin(np.arange(800) * (0.2 + k / 100))
        file = io.BytesIO()
        wavfile.write(file, 8000, (np.concatenate([tone, np.zeros(silence)]) * 32767).astype("<i2"))
        return file.getvalue()

    files = {f"{name}/{k}.wav": sound(k + 20 * (name == "b"), 0) for name in "ab" for k in range(10)}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        audio(write(tmp_path, files))
    files |= {"a/3.wav": sound(99, 8000), "a/4.wav": sound(0, 0)[:44] + bytes(1600)}
    with pytest.warns(UserWarning, match="silent") as caught:
        task = audio(write(tmp_path, files), test_share=0, validation_share=0.1)
    said = " | ".join(str(one.message) for one in caught)
    assert "1 of 20 recordings are silent, e.g. a/4.wav" in said
    assert "1 of 20 recordings are longer than the 0.1 s of their middle that are used (the median); --set seconds=N" in said
    assert "1 recordings are silent in the 0.1 s of their middle that are used, and not beside, e.g. a/3.wav" in said
    assert task.seen["warnings"]


@pytest.mark.parametrize(("suffix", "form", "subtype"), [("au", "AU", "PCM_16"), ("opus", "OGG", "OPUS"), ("w64", "W64", "PCM_16")])
def test_further_formats_of_sound_are_read(tmp_path, suffix, form, subtype):
    soundfile = pytest.importorskip("soundfile")
    for name in "ab":
        (tmp_path / name).mkdir()
        for k in range(10):
            noise = RANDOM.normal(size=4800) / 10
            soundfile.write(tmp_path / name / f"{k}.{suffix}", noise, 48000, format=form, subtype=subtype)
    assert open_data(tmp_path).preprocessing["kind"] == "audio"


def test_a_pipe_or_a_device_is_left_out_like_any_other_that_cannot_be_read(tmp_path):
    root = write(tmp_path, classes("a", "b"))
    os.mkfifo(root / "a" / "pipe.png")
    (root / "b" / "endless.png").symlink_to("/dev/zero")
    _, found, said = read(root, skip_unreadable=True)
    assert found == 20
    assert "a/pipe.png (it is no file but a folder, pipe or device)" in said
    assert "b/endless.png (it is no file" in said
    with pytest.raises(ValueError, match=r"cannot read .*(pipe|endless)\.png: it is no file"):
        images(root)


def test_a_bomb_in_a_zip_is_left_out_before_it_is_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(file_tree, "BOMB_BYTES", 2**20)
    with zipfile.ZipFile(tmp_path / "set.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in {**classes("x/../a", "x/y/../../b"), "a/bomb.png": bytes(2**21)}.items():
            archive.writestr(name, data)
    task, found, said = read(tmp_path / "set.zip", skip_unreadable=True)
    assert (task.classes, found) == (("a", "b"), 20)
    assert "a/bomb.png (it would be 2,097,152 bytes, of 2," in said


def test_the_same_picture_in_another_format_is_a_copy_and_what_cannot_be_read_is_none(tmp_path):
    root = write(tmp_path, {**classes("train/a", "train/b", "test/a", "test/b"), "train/a/x.png": b"", "test/b/x.png": b""})
    Image.open(root / "train/a/3.png").save(root / "test/a/again.bmp")
    said = read(root, skip_unreadable=True)[2]
    assert "2 files have the same content in several splits, whose quality then looks too good, e.g. train/a/3.png and" in said
    assert "in several classes" not in said


def test_further_endings_and_years_behind_a_split_are_known(tmp_path):
    root = write(tmp_path, classes("train2017/a", "train2017/b", "val2017/a", "val2017/b"))
    for ending in ("jfif", "jpe", "png "):
        write(root, {f"train2017/a/x.{ending}": picture()})
    task, found, _ = read(root)
    assert (task.classes, found, len(task.validation)) == (("a", "b"), 43, 20)


def test_pictures_outside_of_a_class_are_refused_with_what_can_be_done(tmp_path):
    write(tmp_path, {**classes("train/a", "train/b"), "test/1.png": picture()})
    with pytest.raises(
        ValueError, match=r"test/1\.png; move each into its class, or what has none out of .*; lists of labels are not read"
    ):
        images(tmp_path)


@pytest.mark.parametrize("name", ["one.png", "set.tar.gz", "set"])
def test_another_file_is_no_data(tmp_path, name):
    with pytest.raises(ValueError, match=r"must be a table .*, or a folder or zip of images or recordings .*unpack other archives"):
        open_data(write(tmp_path, {name: picture()}) / name)


def test_a_folder_with_the_ending_of_a_table_is_a_folder(tmp_path):
    assert open_data(write(tmp_path / "pets.data", classes("a", "b"))).classes == ("a", "b")


def test_sounds_that_no_scale_or_length_fits_are_said_or_padded(tmp_path):
    for k, name in enumerate("ab"):
        for number in range(10):
            sound = RANDOM.normal(size=100) / 10 + k
            write(tmp_path, {f"{name}/{number}.wav": b""})
            wavfile.write(tmp_path / name / f"{number}.wav", 16_000, (sound * (30_000 if number == 3 else 1)).astype(np.float32))
    wavfile.write(tmp_path / "a/still.wav", 16_000, np.full(100, 0.5, np.float32))
    with pytest.warns(UserWarning, match="recordings"):
        task = audio(tmp_path)
    said = " | ".join(task.seen["warnings"])
    assert task.input_shape == (1, 64, 1)  # shorter than one window: padded to it
    assert "recordings have samples beyond [-1, 1], e.g. " in said
    assert "1 of 21 recordings are silent, e.g. a/still.wav" in said


def test_gsm_that_cannot_be_read_at_once_is_read_in_parts(tmp_path):
    import soundfile

    soundfile.write(tmp_path / "x.wav", RANDOM.normal(size=8000) / 10, 8000, subtype="GSM610")
    samples, rate = read_sound((tmp_path / "x.wav").read_bytes())
    assert rate == 8000
    assert len(samples) >= 8000
