"""What the files of a folder hold: depth of colour, transparency, frames, sizes, and sounds of every format."""

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
import torch
from helpers.file_trees import RANDOM, classes, read, saved, write
from PIL import Image
from scipy.io import wavfile

from joulefront.search.export.predict import Model
from joulefront.search.training.audio import audio, read_sound
from joulefront.search.training.images import decode, images, prepare
from joulefront.search.training.summary import open_data


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


def test_the_same_picture_in_another_format_is_a_copy_and_what_cannot_be_read_is_none(tmp_path):
    root = write(tmp_path, {**classes("train/a", "train/b", "test/a", "test/b"), "train/a/x.png": b"", "test/b/x.png": b""})
    Image.open(root / "train/a/3.png").save(root / "test/a/again.bmp")
    said = read(root, skip_unreadable=True)[2]
    assert "2 files have the same content in several splits, whose quality then looks too good, e.g. train/a/3.png and" in said
    assert "in several classes" not in said


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
    served = object.__new__(Model)
    served.how = {"sample_rate": 8000, "seconds": 1}
    np.testing.assert_array_equal(served.waveform((tmp_path / "x.wav").read_bytes()), samples)


@pytest.mark.parametrize("share", [1.0, 0.99])
def test_channels_that_cancel_each_other_out_are_heard_in_training_and_export(share):
    import soundfile

    tone, file = 0.5 * np.sin(np.arange(4000) * 0.3), io.BytesIO()
    soundfile.write(file, np.stack([tone, -share * tone], axis=1), 8000, format="WAV", subtype="FLOAT")
    heard, _ = read_sound(file.getvalue())
    np.testing.assert_allclose(heard, tone, atol=1e-6)
    served = object.__new__(Model)
    served.how = {"sample_rate": 8000, "seconds": 0.5}
    np.testing.assert_array_equal(served.waveform(file.getvalue()), heard)
    soundfile.write(file := io.BytesIO(), np.stack([tone, 0 * tone], axis=1), 8000, format="WAV")
    assert np.abs(read_sound(file.getvalue())[0]).max() < 0.3  # the mean where one is silent


def test_a_value_far_from_all_others_takes_no_tones_from_them(tmp_path):
    files = {}
    for k in range(20):
        values = (100 + RANDOM.integers(0, 900, (8, 8))).astype("f4")
        values[0, :3] = -9999 if k % 2 else 3e38
        files[f"{'ab'[k % 2]}/{k}.tif"] = saved(values, "TIFF")
    task, _, said = read(write(tmp_path, files))
    assert "values of -9999 and 3e+38 lie far from all others, 1" in said
    assert task.preprocessing["white"] == 1023.0
    assert len(np.unique(task.train.inputs)) > 150  # of 256 tones


def test_colours_of_sixteen_bits_that_use_few_of_the_upper_ones_are_said(tmp_path):
    def picture(k):
        rows = b"".join(b"\0" + RANDOM.integers(0, 400, 12).astype(">u2").tobytes() for _ in range(4))
        parts = [(b"IHDR", struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0)), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
        chunks = (struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts)
        return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)

    said = read(write(tmp_path, {f"{name}/{k}.png": picture(k) for name in "ab" for k in range(10)}))[2]
    assert "20 images of 16 bits a channel are read by their upper 8 bits, of which they use 2 of 256 tones; save them" in said


def test_splits_are_drawn_of_what_can_be_read(tmp_path):
    root = write(tmp_path, classes("a", "b", count=8))
    whole = images(root).validation.raw.names
    write(root, dict.fromkeys(whole, b"<html>"))
    for limit in (2**30, 1):
        task, count, said = read(root, skip_unreadable=True, memory_limit_bytes=limit)
        assert count == 14
        assert len(task.validation) == 2
        assert not {*whole} & {*task.validation.raw.names, *task.train.raw.names, *task.test.raw.names}
        assert "no validation example" not in said


def test_a_format_of_recordings_that_tells_the_class_is_said(tmp_path):
    import soundfile

    for k in range(20):
        (tmp_path / "ab"[k % 2]).mkdir(exist_ok=True)
        soundfile.write(tmp_path / "ab"[k % 2] / f"{k}{('.wav', '.flac')[k % 2]}", RANDOM.normal(size=800) / 10, 8000)
    with pytest.warns(UserWarning, match="the file format of the recordings tells the class"):
        audio(tmp_path)


def banded(pixels):
    """TIFF of any number of bands, which Pillow does not write."""
    height, width, count = pixels.shape
    sizes = struct.pack(f"<{count}H", *[8] * count)
    extra = struct.pack(f"<{count - 3}H", *[0] * (count - 3))
    data = pixels.tobytes()
    behind = 8 + len(data)
    tags = [(256, 1, width), (257, 1, height), (258, count, behind), (259, 1, 1), (262, 1, 2), (273, 1, 8), (277, 1, count)]
    tags += [(278, 1, height), (279, 1, len(data)), (284, 1, 1), (338, count - 3, behind + len(sizes))]
    entries = b"".join(struct.pack("<HHII", tag, 4 if tag in (273, 279) else 3, number, value) for tag, number, value in tags)
    head = b"II*\0" + struct.pack("<I", behind + len(sizes) + len(extra))
    return head + data + sizes + extra + struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0)


def test_bands_beyond_three_are_said(tmp_path):
    files = {f"{name}/{k}.tif": banded(RANDOM.integers(0, 256, (8, 8, 6), dtype=np.uint8)) for name in "ab" for k in range(10)}
    assert "images have 6 bands, of which red, green and blue are used" in read(write(tmp_path, files))[2]


def test_seconds_that_are_milliseconds_are_refused(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        for k in range(4):
            wavfile.write(tmp_path / name / f"{k}.wav", 8000, RANDOM.normal(size=4000).astype("float32"))
    with pytest.raises(ValueError, match=r"at most 10 times the longest recording, 0\.5 s, got 500; .* not milliseconds"):
        audio(tmp_path, seconds=500)
    with pytest.raises(ValueError, match=r"sample_rate must be from 1,000 to 384,000, got 16; .* 16 kHz is 16000"):
        audio(tmp_path, sample_rate=16)
    assert audio(tmp_path, seconds=2).preprocessing["seconds"] == 2
