import io
import json
import threading
import wave
from pathlib import Path

import numpy as np
import pytest
import torch

from joulefront.search.training.audio import Spectrogram, audio, decode, fourier_waves, mel_bands, prepare, read_sound
from joulefront.search.training.file_tree import open_files
from joulefront.search.training.files import decode_all
from joulefront.search.training.fit import fit
from joulefront.search.training.recipe import Recipe


def wav(samples, *, rate=8000, width=2, channels=1):
    """Samples in [-1, 1] as the bytes of a file."""
    whole = np.round(np.asarray(samples, dtype=np.float64) * (2 ** (8 * width - 1) - 1)).astype(np.int64)
    if width == 1:
        raw = (whole + 128).astype(np.uint8).tobytes()
    else:
        raw = b"".join(int(value).to_bytes(width, "little", signed=True) for value in np.repeat(whole, channels))
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(channels)
        out.setsampwidth(width)
        out.setframerate(rate)
        out.writeframes(raw)
    return file.getvalue()


def tone(frequency, seconds=0.25, rate=8000, level=0.9):
    return level * np.sin(2 * np.pi * frequency * np.arange(int(seconds * rate)) / rate)


@pytest.fixture
def recordings(tmp_path):
    random = np.random.default_rng(0)
    for name, frequency in (("low", 300), ("high", 1500)):
        (tmp_path / name).mkdir()
        for k in range(15):
            samples = tone(frequency * random.uniform(0.9, 1.1), level=0.5) + random.normal(0, 0.05, 2000)
            (tmp_path / name / f"{k}.wav").write_bytes(wav(np.clip(samples, -1, 1)))
    return tmp_path


@pytest.mark.parametrize(("width", "channels"), [(1, 1), (2, 1), (2, 2), (3, 1), (4, 2)])
def test_samples_of_every_width_are_read(width, channels):
    samples = tone(440)
    found, rate = read_sound(wav(samples, width=width, channels=channels))
    assert rate == 8000
    np.testing.assert_allclose(found, samples, atol=1.5 / 2 ** (8 * width - 1) if width < 3 else 1e-6)


def test_a_full_scale_tone_is_at_zero_decibels_in_its_own_band():
    how = Spectrogram(0.25, sample_rate=8000, mels=32)
    frequency = 8000 / how.window * 40  # in the middle of a bin
    image = decode(wav(tone(frequency, level=1.0)), how)[0]
    bands = mel_bands(8000, how.window, 32)
    band = bands[:, 40].argmax()
    assert (image.argmax(axis=0) == band).all()
    # A Hann window puts a quarter of the bin's power into each neighbour.
    power = bands[band, 40] + 0.25 * (bands[band, 39] + bands[band, 41])
    assert image.max() == pytest.approx(10 * np.log10(power), abs=0.1)


def test_the_spectrogram_equals_a_plain_fourier_transform():
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, 2000).astype(np.float32)
    how = Spectrogram(0.25, sample_rate=8000, mels=20, window=256, hop=100)
    data = wav(samples)
    exact, _ = read_sound(data)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(256) / 256)
    columns = [np.abs(np.fft.rfft(exact[first : first + 256] * window)) ** 2 for first in range(0, 2000 - 255, 100)]
    expected = 10 * np.log10(mel_bands(8000, 256, 20) @ np.array(columns).T / 64**2 + 1e-10)
    assert decode(data, how).shape == how.shape == (1, *expected.shape)
    np.testing.assert_allclose(decode(data, how)[0], expected, atol=1e-3)


@pytest.mark.slow
def test_another_sample_rate_gives_nearly_the_same_picture():
    how = Spectrogram(0.25, sample_rate=8000, mels=16)
    same, resampled = (decode(wav(tone(700, rate=rate), rate=rate), how)[0] for rate in (8000, 22050))
    assert same.argmax() // same.shape[1] == resampled.argmax() // same.shape[1]
    assert abs(same.max() - resampled.max()) < 0.5


def test_short_recordings_are_padded_and_long_ones_cropped_at_the_centre():
    how = Spectrogram(0.25, sample_rate=8000)
    assert decode(wav(tone(500, seconds=0.01)), how).shape == how.shape
    silence = np.zeros(2000)
    long = np.concatenate([silence, tone(500), silence])
    np.testing.assert_allclose(decode(wav(long), how), decode(wav(tone(500)), how), atol=1e-3)
    assert decode(wav(silence), how).min() == pytest.approx(-100)


def test_sounds_can_be_classified(recordings):
    task = audio(recordings, sample_rate=8000, mels=16)
    assert task.classes == ("high", "low")
    assert task.input_shape == Spectrogram(0.25, 8000, 16).shape
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d((16, 1)), torch.nn.Flatten(), torch.nn.Linear(16, 2))
    assert fit(model, task, Recipe(batch_size=8, learning_rate=3e-2, augment="shift"), epochs=5).quality["accuracy"] == 1.0


def test_preparing_a_recording_gives_what_the_model_was_trained_on(recordings):
    task = audio(recordings, sample_rate=8000, mels=16, test_share=0)
    made = torch.from_numpy(prepare(json.loads(json.dumps(task.preprocessing)), recordings / "low" / "3.wav"))
    known = torch.cat([inputs for part in (task.train, task.validation) for inputs, _ in part.batches(64)])
    assert float((known - made).abs().amax(dim=(1, 2, 3)).min()) < 1e-4


@pytest.mark.slow
def test_threads_that_decoded_are_gone_before_a_process_can_be_forked(recordings):
    begun, left = set(), 0

    def noting(file):
        begun.add(threading.get_native_id())
        return torch.stft(torch.ones(2000), 256, window=torch.ones(256), return_complex=True).abs().numpy()[:1, :1]

    entries = [(f"low/{k}.wav", 0) for k in range(4)]
    for _ in range(100):
        begun.clear()
        decode_all(open_files(recordings), entries, noting, shape=(1, 1), dtype=torch.float32, threads=4)
        left += any(Path(f"/proc/self/task/{one}").exists() for one in begun)
    assert left == 0, "the process that streams them would wait for ever for a lock that such a thread held"


@pytest.mark.slow
def test_streamed_recordings_are_the_same(recordings):
    memory, stream = (audio(recordings, sample_rate=8000, mels=16, memory_limit_bytes=limit, workers=1) for limit in (2**30, 0))
    for ours, theirs in zip(memory.train.batches(8, seed=1), stream.train.batches(8, seed=1), strict=True):
        torch.testing.assert_close(ours[0], theirs[0])
        assert torch.equal(ours[1], theirs[1])


@pytest.mark.slow
def test_what_is_no_recording_is_named(recordings):
    (recordings / "low" / "bad.wav").write_bytes(b"RIFF nothing")
    with pytest.raises(ValueError, match=r"cannot read .*low/bad\.wav: a recording must be WAV, FLAC, Ogg, Opus, MP3, AIFF or AU"):
        audio(recordings, sample_rate=8000)
    with pytest.warns(UserWarning, match="left out 1 unreadable"):
        audio(recordings, sample_rate=8000, skip_unreadable=True)
    with pytest.raises(ValueError, match="at least one window"):
        audio(recordings, seconds=0.001)


def test_a_header_that_names_an_absurd_rate_is_refused(recordings):
    data = bytearray((recordings / "low" / "3.wav").read_bytes())
    data[24:28] = (2**31 - 1).to_bytes(4, "little")
    (recordings / "low" / "bad.wav").write_bytes(bytes(data))
    with pytest.raises(ValueError, match=r"low/bad\.wav: a recording must have 1,000 to 384,000 samples per second, got 2,147,483,647"):
        audio(recordings, sample_rate=8000)


def test_the_products_for_runtimes_without_a_fourier_transform_give_the_same_powers():
    frame = np.random.default_rng(0).uniform(-0.5, 0.5, 256)
    real, imaginary = np.split(frame @ fourier_waves(256), 2)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(256) / 256)
    np.testing.assert_allclose(real**2 + imaginary**2, np.abs(np.fft.rfft(frame * window)) ** 2 / 64**2, atol=1e-12)


def test_cut_recordings_and_floats_at_the_scale_of_16_bits_get_a_word(recordings):
    import soundfile

    for file in recordings.rglob("?.wav"):
        soundfile.write(file, 20_000 * tone(300 if file.parent.name == "low" else 1500), 8000, subtype="FLOAT")
    for file in recordings.rglob("??.wav"):
        file.unlink()
    cut, piped = recordings / "low" / "1.wav", recordings / "low" / "2.wav"
    cut.write_bytes(cut.read_bytes()[:3000])
    whole = bytearray(piped.read_bytes())
    whole[4:8] = b"\xff" * 4  # as programs write that do not know the length before the end
    piped.write_bytes(whole)
    with pytest.warns(UserWarning, match=r"1 of \d+ recordings end before the end that their header names, e.g. low/1.wav"):
        task = audio(recordings, test_share=0.0)
    assert any("samples beyond [-1, 1]" in said for said in task.seen["warnings"])
