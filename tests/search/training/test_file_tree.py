"""Folders and zips as people have them: every image counts once, in the class and split that is meant, or one line says why not."""

import io
import os
import re
import struct
import zipfile
import zlib

import numpy as np
import pytest
import soundfile
from helpers.file_trees import classes, picture, read, write
from PIL import Image

from joulefront.search.training import file_tree
from joulefront.search.training.audio import audio
from joulefront.search.training.file_tree import SOUNDS, Folder, find_classes, open_files
from joulefront.search.training.files import decode_named
from joulefront.search.training.images import images
from joulefront.search.training.splits_data import ItemError
from joulefront.search.training.summary import open_data


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


def test_pictures_in_formats_that_are_not_read_are_counted(tmp_path):
    more = {"cat/a.HEIC": b"x", "cat/b.svg": b"<svg/>", "dog/no_suffix": picture(), "dog/notes.txt": b"x", "cat/Thumbs.db": b"x"}
    _, count, said = read(write(tmp_path, classes("cat", "dog") | more))
    assert count == 20
    assert "left out 3 files (.heic, .svg, no suffix), for example cat/a.HEIC; convert or rename what is meant as images" in said


def test_recordings_among_images_and_images_among_recordings_are_counted(tmp_path):
    file = io.BytesIO()
    soundfile.write(file, np.sin(np.arange(4000)) / 9, 8000, format="WAV")
    write(
        tmp_path,
        {
            f"{name}/{k}.{kind}": file.getvalue() if kind == "wav" else picture()
            for name in "ab"
            for k in range(9)
            for kind in ("wav", "png")
        },
    )
    assert "left out 18 files (.wav), for example a/0.wav; convert or rename what is meant as images" in read(tmp_path)[2]
    with pytest.warns(
        UserWarning, match=r"left out 18 files \(\.png\), for example a/0.png; convert or rename what is meant as recordings"
    ):
        audio(tmp_path)


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("dev", "validation"),
        ("Val_set", "validation"),
        ("holdout", "test"),
        ("eval", "test"),
        ("02_val", "validation"),
        ("seg_test", "test"),
        ("dataset-test", "test"),
        ("Validación", "validation"),
        ("测试", "test"),
        ("проверка", "validation"),
        ("テスト", "test"),
    ],
)
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


def test_what_tells_the_class_beside_the_content_is_said(tmp_path):
    grey, sound = io.BytesIO(), [io.BytesIO(), io.BytesIO()]
    Image.fromarray(np.arange(36, dtype=np.uint8).reshape(6, 6)).save(grey, "PNG")
    for rate, file in zip((8000, 44_100), sound, strict=True):
        soundfile.write(file, np.sin(np.arange(4000)) / 9, rate, format="WAV")
    files = {f"{name}/{k}.png": picture() if name == "b" else grey.getvalue() for name in "ab" for k in range(9)}
    assert "the mode of the images tells the class (L in 'a', RGB in 'b'); make all alike" in read(write(tmp_path / "i", files))[2]
    (tmp_path / "i" / "b" / "0.png").write_bytes(grey.getvalue())
    assert "tells the class" not in read(tmp_path / "i")[2]
    write(tmp_path / "s", {f"{name}/{k}.wav": sound[name == "b"].getvalue() for name in "ab" for k in range(9)})
    with pytest.warns(UserWarning, match=r"number of samples per second tells the class \(8,000 in 'a', 44,100 in 'b'\)"):
        audio(tmp_path / "s")


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("size", "the size of the images tells the class (8 x 6 in 'a', 16 x 12 in 'b')"),
        ("format", "the format of the images tells the class (PNG in 'a', JPEG in 'b')"),
        ("orientation", "the EXIF orientation of the images tells the class (1 in 'a', 3 in 'b')"),
    ],
)
def test_what_files_of_images_have_beside_their_content_and_tells_the_class_is_said(tmp_path, what, said):
    for k in range(18):
        other, file, exif = k % 2 == 1, io.BytesIO(), Image.Exif()
        pixels = np.random.default_rng(k).integers(0, 255, (6, 8, 3), dtype=np.uint8)
        image = Image.fromarray(pixels).resize((16, 12)) if other and what == "size" else Image.fromarray(pixels)
        exif[274] = 3 if other and what == "orientation" else 1
        image.save(file, "JPEG" if other and what == "format" else "PNG", exif=exif)
        write(tmp_path, {f"{'ab'[other]}/{k}.png": file.getvalue()})
    told = read(tmp_path)[2]
    assert said in told
    assert told.count("tells the class") == 1


def test_every_kind_of_file_that_is_not_read_is_counted_but_what_people_lay_beside(tmp_path):
    root = write(tmp_path, {**classes("a", "b"), "a/x.tga": b"x", "a/y.npy": b"y", "b/z.webm": b"z", "a/w.zip": b"w", "README.md": b"m"})
    said = read(root)[2]
    assert "left out 4 files (.npy, .tga, .webm, .zip), for example a/w.zip" in said


def test_names_in_utf8_without_the_mark_for_it_are_read_from_a_zip(tmp_path):
    path = tmp_path / "mac.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in classes("caf\u00e9", "dog").items():
            archive.writestr(name, data)
    plain = bytearray(path.read_bytes())
    for mark, place in ((b"PK\x03\x04", 7), (b"PK\x01\x02", 9)):
        for found in re.finditer(mark, bytes(plain)):
            plain[found.start() + place] &= ~0x08
    path.write_bytes(plain)
    assert read(path)[0].classes == ("caf\u00e9", "dog")


def test_a_folder_that_cannot_be_listed_is_said(tmp_path, monkeypatch):
    root, list_folder = write(tmp_path, classes("a", "b", "b/more")), os.scandir

    def refuse(path):
        if str(path).endswith("more"):
            raise PermissionError(13, "Permission denied", str(path))
        return list_folder(path)

    monkeypatch.setattr(os, "scandir", refuse)
    said = read(root)[2]
    assert f"left out the folder {root / 'b/more'}, which cannot be listed (Permission denied)" in said


def test_a_class_in_other_capitals_in_another_split_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"Cat/ of the training split has no images.*is it cat/\?"):
        read(write(tmp_path, classes("train/cat", "train/dog", "test/Cat", "test/dog")))


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (NameError("typo"), NameError),
        (AttributeError("typo"), AttributeError),
        (zlib.error("damage"), ItemError),
        (Image.DecompressionBombError("too many pixels"), ItemError),
        (struct.error("short"), ItemError),
    ],
)
def test_a_fault_of_ours_is_no_unreadable_file(tmp_path, error, kind):
    def decode(data):
        raise error

    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(kind):
        decode_named(Folder(tmp_path), "a.png", decode)


def test_files_of_another_kind_get_the_study_that_reads_them(tmp_path):
    for name in ("one.csv", "two.csv", "notes.docx"):
        (tmp_path / name).touch()
    with pytest.raises(ValueError, match=r"got 2 \.csv, 1 \.docx; joulefront run table reads those"):
        find_classes(open_files(tmp_path))
    with pytest.raises(ValueError, match="unpack other archives; joulefront run table reads those"):
        open_files(tmp_path / "one.csv")
    with pytest.raises(ValueError, match=r"got 2 \.csv, 1 \.docx; joulefront run table"):
        find_classes(open_files(tmp_path), SOUNDS, noun="recordings")


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("images", "masks"), "has images/, masks/, as for detection or segmentation, which are not learnt; give a folder for each class"),
        (("train/images", "train/labels", "val/images", "val/labels"), "has images/, labels/, as for detection"),
        (("Annotations", "JPEGImages", "ImageSets"), "as for detection or segmentation"),
        (("train_cat", "train_dog", "test_cat"), "some are splits of one class; make test/cat/ and train/cat/ of them"),
    ],
)
def test_folders_that_are_no_classes_are_refused_with_what_would_be_some(tmp_path, names, words):
    with pytest.raises(ValueError, match=words):
        images(write(tmp_path, classes(*names, count=2)))


def test_parts_of_a_set_and_lists_of_labels_beside_it_get_a_word(tmp_path):
    root = write(tmp_path / "folds", {**classes("fold1", "fold2"), "labels.csv": b"file,label", "README.txt": b"labels"})
    said = read(root)[2]
    assert "the classes are fold1/, fold2/; if these are parts of a set, put the files of all into a folder for each class" in said
    assert "labels.csv is not read; classes and splits are those of the folders" in said
    (root / "labels.csv").unlink()
    assert "is not read" not in read(root)[2]
    with pytest.raises(ValueError, match=r"only one class folder, pictures/.*; labels\.csv is not read, move each of the images into"):
        images(write(tmp_path / "kaggle", {**classes("pictures"), "labels.csv": b"file,label"}))
