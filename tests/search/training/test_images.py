import io
import json
import struct
import threading
import time
import warnings
import zipfile
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from joulefront.search.training import files as file_task
from joulefront.search.training.fit import fit
from joulefront.search.training.images import decode, images, prepare
from joulefront.search.training.recipe import Recipe
from joulefront.search.training.splits_data import MemoryData, StreamData

RANDOM = np.random.default_rng(0)


def picture(size=(6, 6), mode="RGB", value=None, suffix=".png"):
    """One image as the bytes of a file; ``size`` is (height, width)."""
    bands = {"L": (), "RGB": (3,), "RGBA": (4,), "LA": (2,)}[mode]
    pixels = RANDOM.integers(0, 256, (*size, *bands)) if value is None else np.full((*size, *bands), value)
    file = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8), mode).save(file, {".png": "PNG", ".jpg": "JPEG"}[suffix])
    return file.getvalue()


def write(root, files):
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if data is not None:
            path.write_bytes(data)
        else:
            path.mkdir(exist_ok=True)
    return root


def classes(count=8, names=("cat", "dog"), under="", **options):
    return {f"{under}{name}/{k}.png": picture(**options) for name in names for k in range(count)}


@pytest.fixture(params=["folder", "zip", "wrapped zip"])
def make(request, tmp_path):
    """Write files and give the path of the folder or zip that holds them."""

    def build(files):
        if request.param == "folder":
            return write(tmp_path / "set", files)
        path = tmp_path / "set.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in files.items():
                name = f"wrapper/{name}" if request.param == "wrapped zip" else name
                archive.writestr(name if data is not None else f"{name}/", data or b"")
            archive.writestr("__MACOSX/._x.png", b"junk")
        return path

    return build


def test_sub_folders_are_classes_and_splits_are_made(make):
    task = images(make(classes(count=20) | {"notes.txt": b"no image", ".hidden/x.png": b"junk"}))
    assert task.classes == ("cat", "dog")
    assert task.input_shape == (3, 6, 6)
    assert [len(part) for part in (task.train, task.validation, task.test)] == [28, 6, 6]
    assert sorted(task.validation.targets.tolist()) == [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize("name", ["val", "valid", "validation", "Val"])
def test_split_folders_are_used(make, name):
    files = classes(6, under="train/", value=10) | classes(2, under=f"{name}/", value=20) | classes(3, under="test/", value=30)
    task = images(make(files))
    for part, count, value in ((task.train, 12, 10), (task.validation, 4, 20), (task.test, 6, 30)):
        assert len(part) == count
        assert set(part.inputs.unique().tolist()) == {value}


def test_a_missing_validation_split_comes_out_of_the_training_images(make):
    task = images(make(classes(10, under="train/", value=10) | classes(3, under="test/", value=30)), validation_share=0.3)
    assert (len(task.train), len(task.validation), len(task.test)) == (14, 6, 6)
    assert set(task.validation.inputs.unique().tolist()) == {10}


def test_the_seed_draws_the_splits(tmp_path):
    root = write(tmp_path, classes(10))

    def order(seed):
        return images(root, seed=seed, test_share=0).validation.inputs

    assert torch.equal(order(1), order(1))
    assert not torch.equal(order(1), order(2))


@pytest.mark.slow
def test_memory_and_stream_give_the_same_batches(make, monkeypatch):
    path = make(classes(12))
    monkeypatch.setattr(file_task, "STATISTICS_BYTES", 1_000)  # of fewer than all
    memory, stream = images(path), images(path, memory_limit_bytes=100, workers=2)
    assert isinstance(memory.train, MemoryData)
    assert isinstance(stream.train, StreamData)
    assert memory.preprocessing == stream.preprocessing
    options = {"seed": 3, "augment": "flip_shift"}
    for ours, theirs in zip(memory.train.batches(5, **options), stream.train.batches(5, **options), strict=True):
        assert torch.equal(ours[0], theirs[0])
        assert torch.equal(ours[1], theirs[1])


def test_pixels_and_labels_are_those_of_the_files(tmp_path):
    files = classes(5)
    task = images(write(tmp_path, files), validation_share=0.2, test_share=0)
    seen = {(tuple(x.flatten().tolist()), int(y)) for part in (task.train, task.validation) for x, y in _pairs(part)}
    expected = {
        (tuple(np.asarray(Image.open(io.BytesIO(data))).transpose(2, 0, 1).ravel().tolist()), int(name.startswith("dog")))
        for name, data in files.items()
    }
    assert seen == expected


def _pairs(part):
    return zip(part.inputs, part.targets, strict=True)


def test_preparing_a_file_gives_what_the_model_was_trained_on(tmp_path):
    root = write(tmp_path, classes(5, size=(9, 7)))
    task = images(root, test_share=0, resolution=4)
    made = prepare(json.loads(json.dumps(task.preprocessing)), root / "cat" / "0.png")
    assert made.shape == (1, 3, 4, 4)
    batches = [inputs for part in (task.train, task.validation) for inputs, _ in part.batches(8)]
    distances = (torch.cat(batches) - torch.from_numpy(made)).abs().amax(dim=(1, 2, 3))
    assert float(distances.min()) < 1e-5


def test_one_pixel_images_train(tmp_path):
    root = write(tmp_path, classes(8, names=("dark",), size=(1, 1), value=20) | classes(8, names=("light",), size=(1, 1), value=220))
    task = images(root)
    assert task.input_shape == (3, 1, 1)
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3, 2))
    fitted = fit(model, task, Recipe(batch_size=4, learning_rate=0.1, augment="flip_shift"), epochs=4)
    assert fitted.quality["accuracy"] == 1.0


def test_grey_sets_have_one_channel_and_mixed_ones_three(tmp_path):
    grey = write(tmp_path / "grey", classes(5, mode="L"))
    assert images(grey).input_shape == (1, 6, 6)
    mixed = write(
        tmp_path / "mixed", classes(5, mode="L") | classes(5, names=("fox",), mode="RGBA") | classes(5, names=("owl",), mode="LA")
    )
    task = images(mixed)
    assert task.input_shape == (3, 6, 6)
    assert task.classes == ("cat", "dog", "fox", "owl")


def test_images_of_more_than_eight_bits_are_scaled():
    def saved(array):
        file = io.BytesIO()
        Image.fromarray(array).save(file, "PNG" if array.dtype == np.uint16 else "TIFF")
        return file.getvalue()

    assert decode(saved(np.full((2, 2), 65535, dtype=np.uint16)), (1, 2, 2)).max() == 255
    assert decode(saved(np.full((2, 2), 0.5, dtype=np.float32)), (1, 2, 2)).max() == 128


def test_different_sizes_become_the_median_short_side(tmp_path):
    files = {f"{name}/{k}.png": picture((8 + k, 20)) for name in ("a", "b") for k in range(5)}
    assert images(write(tmp_path, files)).input_shape == (3, 10, 10)


def test_an_image_is_cropped_at_its_centre():
    pixels = np.zeros((2, 6, 3), dtype=np.uint8)
    pixels[:, 2:4] = 255
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    assert decode(file.getvalue(), (3, 2, 2)).min() == 255


def test_a_photograph_is_turned_upright():
    image = Image.fromarray(np.repeat(np.array([[0, 255]], dtype=np.uint8), 8, axis=0).repeat(4, axis=1))  # dark left, light right
    exif = Image.Exif()
    exif[274] = 6  # to be turned by 90 degrees clockwise for display
    file = io.BytesIO()
    image.save(file, "JPEG", exif=exif, quality=95)
    shown = decode(file.getvalue(), (1, 8, 8))[0]
    assert shown[0].mean() < 20
    assert shown[-1].mean() > 235


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (classes(3, names=("cat",)), "only one class folder, cat/"),
        (classes(3) | {"owl": None}, "class folder owl/ has no images"),
        (classes(3, under="train/") | classes(2, names=("owl",), under="test/"), "class folder owl/ of the training split has no images"),
        (classes(3, under="val/") | classes(3, under="test/"), "no train/"),
        (classes(3) | {"lost.png": picture()}, "outside of a class folder, for example"),
        ({"readme.txt": b"hello"}, "no images in"),
    ],
    ids=["one class", "empty class", "class without training images", "no train", "loose image", "no images"],
)
def test_a_folder_that_is_not_as_it_should_be_gets_one_clear_line(make, files, words):
    with pytest.raises(ValueError, match=words) as caught:
        images(make(files))
    assert "\n" not in str(caught.value)


def test_a_missing_path_and_a_file_that_is_no_zip_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no data at"):
        images(tmp_path / "nowhere")
    (tmp_path / "set.rar").write_bytes(b"x")
    with pytest.raises(ValueError, match="neither a folder nor a zip"):
        images(tmp_path / "set.rar")


def bomb() -> bytes:
    """An image of 200 megapixels by its header, in 60 bytes."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 20_000, 10_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))


BROKEN = {"empty": b"", "text": b"no image at all", "cut off": picture(suffix=".jpg", size=(64, 64))[:400], "bomb": bomb()}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
def test_an_unreadable_image_is_named_or_left_out_with_a_count(make, broken):
    path = make(classes(12) | {"cat/zz.png": broken})
    with pytest.raises(ValueError, match=r"cannot read .*cat/zz\.png.*--set skip_unreadable=true") as caught:
        images(path)
    assert "0x" not in str(caught.value)  # the address of a buffer is no remedy
    with pytest.warns(UserWarning, match="left out 1 unreadable file: .*zz.png"):
        task = images(path, skip_unreadable=True)
    assert sum(len(part) for part in (task.train, task.validation, task.test)) == 24


def test_a_member_of_a_zip_with_a_wrong_check_sum_is_named_or_left_out(tmp_path):
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in (classes(12) | {"cat/zz.png": b"Z" * 99}).items():
            archive.writestr(name, data)
    path.write_bytes(path.read_bytes().replace(b"Z" * 99, b"Z" * 98 + b"Y"))
    with pytest.raises(ValueError, match=r"cannot read .*cat/zz\.png: Bad CRC-32"):
        images(path)
    with pytest.warns(UserWarning, match="left out 1 unreadable file: cat/zz.png"):
        images(path, skip_unreadable=True)


def test_a_zip_without_its_end_and_a_class_that_no_terminal_should_print_are_refused_in_one_line(tmp_path):
    (tmp_path / "set.zip").write_bytes(b"PK\x03\x04" + bytes(200) + b"PK\x05\x06" + b"\xff" * 18)
    with pytest.raises(ValueError, match="neither a folder nor a zip"):
        images(tmp_path / "set.zip")
    with pytest.raises(ValueError, match=r"class folder must be printable, got 'cat\\x1b\[31m'; rename"):
        images(write(tmp_path / "set", {f"{name}/{k}.png": picture() for name in ("cat\x1b[31m", "dog") for k in range(4)}))


def test_progress_counts_every_image(tmp_path):
    seen = []
    images(write(tmp_path, classes(150, size=(2, 2))), progress=lambda done, total: seen.append((done, total)))
    assert seen == [(256, 300), (300, 300)]


@pytest.mark.slow
def test_ctrl_c_while_decoding_stops_at_once(tmp_path, monkeypatch):
    decoded = []

    def slow(files, name, decode):
        decoded.append(name)
        time.sleep(0.001)
        return np.zeros((3, 1, 1), dtype=np.uint8)

    def interrupt(done, total):
        raise KeyboardInterrupt

    monkeypatch.setattr(file_task, "decode_named", slow)
    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        images(write(tmp_path, classes(600, size=(1, 1))), progress=interrupt, workers=1)
    assert len(decoded) < 1200
    assert threading.active_count() == before


@pytest.mark.slow
def test_half_of_cifar_is_read_from_its_zip(shared_data):
    task = images(shared_data("cifar10-images.zip"), memory_limit_bytes=0, workers=0)
    assert (len(task.train), len(task.validation), len(task.test)) == (21250, 3750, 5000)
    assert task.input_shape == (3, 32, 32)
    assert len(task.classes) == 10
    assert task.preprocessing["mean"] == pytest.approx([0.491, 0.482, 0.447], abs=0.01)  # published means of CIFAR-10


def test_a_crop_that_rounding_would_put_outside_of_the_image_stays_inside():
    sizes = [(wide, 2 * wide) for wide in range(150, 400) if wide - wide / 203 * 203 < 0][:3]
    assert sizes, "numbers whose quotient is rounded up"
    for size in (*sizes, *(size[::-1] for size in sizes)):
        written = io.BytesIO()
        Image.new("RGB", size, (9, 9, 9)).save(written, "BMP")
        assert decode(written.getvalue(), (3, 203, 203)).shape == (3, 203, 203)


def said_of(path):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        images(path)
    return "\n".join(str(one.message) for one in caught)


@pytest.mark.parametrize(("spaces", "said"), [(["sRGB", "LAB", None], True), (["sRGB", None], False)])
def test_colour_profiles_that_differ_are_said(tmp_path, spaces, said):
    """Source: github.com/kohya-ss/sd-scripts/issues/2179, github.com/cgwire/zou/pull/1188."""
    profiles = [None if one is None else ImageCms.ImageCmsProfile(ImageCms.createProfile(one)).tobytes() for one in spaces]
    for k, profile in enumerate(profiles * 4):
        for name in ("cat", "dog"):
            (tmp_path / name).mkdir(exist_ok=True)
            Image.fromarray(RANDOM.integers(0, 256, (6, 6, 3)).astype(np.uint8)).save(tmp_path / name / f"{k}.png", icc_profile=profile)
    assert ("have several colour profiles, 16 of sRGB and 8 of Lab identity built-in, which are not applied" in said_of(tmp_path)) == said


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ("patient{0}{1}_{2}.png", "files are 20 series, e.g. patient"),
        ("{0}{1:08}_nohash_{2}.png", "files are 20 series"),
        ("rec{0}{1}.part{2}.png", "files are 20 series, e.g. rec"),
        ("speaker{1}-{2}.png", "files are 10 series, e.g. speaker"),  # in both classes
        ("img_{1}{2}.png", ""),
        ("{1}{2}.png", ""),
    ],
)
def test_files_of_one_person_in_several_splits_are_said_by_their_names(tmp_path, named, said):
    """Source: github.com/UCSD-AI4H/COVID-CT/issues/11."""
    for label, name in enumerate(("ill", "well")):
        write(tmp_path, {f"{name}/{named.format(label, k // 3, k % 3)}": picture() for k in range(30)})
    found = said_of(tmp_path)
    assert said in found
    assert said != "" or "series" not in found


def test_one_picture_in_two_formats_is_said_and_further_formats_are_read(tmp_path):
    for name in ("ill", "well"):
        (tmp_path / name).mkdir()
        for k in range(10):
            one = Image.fromarray(RANDOM.integers(0, 256, (8, 8, 3), np.uint8))
            one.save(tmp_path / name / f"{k}.png")
            one.save(tmp_path / name / f"{k}.avif")
    assert "files are 20 series, e.g. ill/" in said_of(tmp_path)
    assert len(images(tmp_path).train) == 28
