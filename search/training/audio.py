"""Tasks from a folder or zip of sound recordings: classification of log-mel spectrograms."""

from __future__ import annotations

import io
import warnings
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from math import gcd
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import torch

from ..argument_types import refuse_wrong_types
from .file_tree import SOUNDS, Files, Found, find_classes, open_files, unreadable
from .files import FileOptions, spaced, standardised, task_of_files, warn_of_giveaways
from .task import Task, noting

#: Recordings whose headers are read to learn the usual length of a set.
PROBED = 512
#: A sample of this share of the loudest is heard; recordings this much longer than what is used of them are said, and floats this far
#: beyond [-1, 1].
LOUD, LONG, BEYOND = 0.05, 1.5, 4.0
#: A mean with less than this share of the power of the loudest channel has lost what the channels have.
CANCELLED = 0.01
#: Samples that are decoded at once.
PART = 2**20
#: Samples per second that a recording may have: resampling takes time and memory in proportion.
RATES = (1_000, 384_000)
#: Added to the power before the logarithm, so that silence is finite: -100 dB of a full-scale tone.
FLOOR = 1e-10


@dataclass(frozen=True)
class Spectrogram:
    """How a recording becomes an image of frequency against time.

    Every recording is resampled to ``sample_rate`` samples per second; longer ones than ``seconds`` are cropped at their centre, shorter
    ones padded with silence. ``mels`` are frequency bands, the height of the image. ``window`` is samples of one Fourier window, ``hop``
    samples from one to the next: one column of the image for each.
    """

    seconds: float
    sample_rate: int = 16_000
    mels: int = 64
    window: int = 512
    hop: int = 256

    def __post_init__(self) -> None:
        """Raise ValueError for a setting that is not positive, or a recording that is shorter than a window."""
        for name in ("seconds", "sample_rate", "mels", "window", "hop"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be > 0, got {getattr(self, name)}")
        if self.hop > self.window:
            raise ValueError(f"hop must be at most the window, {self.window}, got {self.hop:,}; what is between windows would be lost")
        if self.mels > (bins := self.window // 2 + 1):
            raise ValueError(f"mels must be at most the {bins} frequencies of a window, got {self.mels:,}; the rest would be empty")
        if self.samples < self.window:
            raise ValueError(f"seconds must be at least one window, {self.window / self.sample_rate:.3f} s, got {self.seconds}")

    @property
    def samples(self) -> int:
        """Samples of a recording of this length."""
        return round(self.seconds * self.sample_rate)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of the image: ``(1, mels, columns)``."""
        return 1, self.mels, 1 + (self.samples - self.window) // self.hop


def audio(
    path: str | Path,
    *,
    seconds: float | None = None,
    sample_rate: int = 16_000,
    mels: int = 64,
    window: int = 512,
    hop: int = 256,
    waveform: bool = False,
    **options: Unpack[FileOptions],
) -> Task:
    """Make a classification task from WAV, FLAC, Ogg, MP3 or AIFF files whose sub-folders are the classes; the rest is as in ``images``.

    See ``Spectrogram`` for the settings; ``seconds`` is by default the median of the set. With ``waveform`` the inputs are the samples
    themselves, ``(1, 1, samples)``, for models that hear (``joulefront.spaces.sound``).

    Raises:
        FileNotFoundError: If ``path`` does not exist.
        ValueError: If there are no classes or a recording cannot be read; the message names the folder or file.
    """
    refuse_wrong_types(audio, locals())
    if not RATES[0] <= sample_rate <= RATES[1]:
        raise ValueError(
            f"sample_rate must be from {RATES[0]:,} to {RATES[1]:,}, got {sample_rate:,}; give samples per second, 16 kHz is 16000"
        )
    with noting() as said:
        files = open_files(path)
        found = find_classes(files, SOUNDS, noun="recordings")
        lengths, rates, sounds = _lengths(files, found)
        _warn_of_length(str(files.path), lengths, sounds, seconds)
        if seconds is not None and seconds > 10 * max(lengths, default=seconds):
            wish = f"seconds must be at most 10 times the longest recording, {max(lengths):.3g} s, got {seconds:g}"
            raise ValueError(f"{wish}; the rest would be silence, give seconds and not milliseconds or samples")
        if seconds is None:
            seconds = max(float(np.median(lengths)) if lengths else 1.0, window / sample_rate)
        how = Spectrogram(seconds, sample_rate, mels, window, hop)
        task = task_of_files(
            files,
            found,
            partial(samples_of if waveform else decode, how=how),
            shape=(1, 1, how.samples) if waveform else how.shape,
            dtype=torch.float32,
            preprocessing={"kind": "audio", **asdict(how), "scale": 1.0, **({"waveform": True} if waveform else {})},
            **options,
        )
    facts = dict(zip(("shortest", "median", "longest"), np.quantile(lengths, (0, 0.5, 1)).tolist(), strict=True)) if lengths else {}
    seen = {"examined": len(lengths), "seconds": facts, "rates": dict(rates.most_common())}
    return replace(task, seen={"sound": seen, "warnings": said})


def decode(data: bytes, how: Spectrogram) -> np.ndarray:
    """Decode a recording to its log-mel spectrogram ``(1, mels, columns)`` in decibels, float32."""
    signal = torch.from_numpy(samples_of(data, how)[0, 0])
    spectrum = torch.stft(signal, how.window, how.hop, window=torch.hann_window(how.window), center=False, return_complex=True)
    power = torch.from_numpy(mel_bands(how.sample_rate, how.window, how.mels)) @ spectrum.abs().square()
    # A full-scale tone has the power (window / 4) ** 2 in its bin under a Hann window: that is 0 dB.
    return (10.0 * torch.log10(power / (how.window / 4) ** 2 + FLOOR))[None].numpy()


def fourier_waves(window: int) -> np.ndarray:
    """Return what samples ``(..., window)`` are multiplied with for the real and the imaginary parts ``(..., 2 x bins)`` of their spectrum.

    It holds a periodic Hann window and the scale of ``decode``: a full-scale tone has the power 1 in its bin. For runtimes that have no
    Fourier transform: for windows of this size it costs little more.
    """
    places = 2.0 * np.pi * np.arange(window) / window
    angles = np.outer(places, np.arange(window // 2 + 1))
    return np.concatenate([np.cos(angles), np.sin(angles)], axis=1) * (0.5 - 0.5 * np.cos(places))[:, None] / (window / 4)


def samples_of(data: bytes, how: Spectrogram) -> np.ndarray:
    """Decode a recording to its samples ``(1, 1, samples)``, float32 in [-1, 1], at the rate and length of all of them."""
    samples, rate = read_sound(data)
    if rate != how.sample_rate:
        from scipy.signal import resample_poly

        shared = gcd(rate, how.sample_rate)
        samples = resample_poly(samples, how.sample_rate // shared, rate // shared).astype(np.float32)
    spare = len(samples) - how.samples
    if spare > 0:
        samples = samples[spare // 2 : spare // 2 + how.samples]
    elif spare < 0:
        samples = np.pad(samples, (-spare // 2, -spare - (-spare // 2)))
    return np.ascontiguousarray(samples)[None, None]


def prepare(preprocessing: Mapping[str, Any], recording: bytes | str | Path) -> np.ndarray:
    """Turn a recording into model input as a task's ``preprocessing`` describes; returns ``(1, 1, mels, columns)`` float32.

    With samples as inputs it is ``(1, 1, 1, samples)``.
    """
    data = recording if isinstance(recording, bytes) else Path(recording).read_bytes()
    how = Spectrogram(**{name: preprocessing[name] for name in Spectrogram.__dataclass_fields__})
    return standardised(preprocessing, (samples_of if preprocessing.get("waveform") else decode)(data, how))


def read_sound(data: bytes) -> tuple[np.ndarray, int]:
    """Read a recording of a format of ``SOUNDS``, of integers or floats of any width.

    Returns:
        ``(n,)`` float32 in [-1, 1], the mean of all channels, or the loudest where they cancel each other out, and the samples per second.

    Raises:
        ValueError: If the data are not such a file.
    """
    import soundfile

    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            rate = file.samplerate
            if not RATES[0] <= rate <= RATES[1]:
                raise ValueError(f"a recording must have {RATES[0]:,} to {RATES[1]:,} samples per second, got {rate:,}")
            parts = [np.zeros((0, file.channels), dtype=np.float32)]
            # In parts: the header may name more samples than there are, and GSM does not tell how many.
            while len(part := file.read(PART, dtype="float32", always_2d=True)):
                parts.append(part)
            channels = np.concatenate(parts)
    except soundfile.LibsndfileError as error:
        if not data:
            raise ValueError("the recording is empty") from error
        raise ValueError(f"a recording must be WAV, FLAC, Ogg, Opus, MP3, AIFF or AU ({error.error_string})") from error
    if len(channels) == 0:
        raise ValueError("the recording is empty")
    if not np.isfinite(channels).all():
        raise ValueError("the recording has samples that are no numbers")
    samples, power = channels.mean(axis=1, dtype=np.float32), channels.var(axis=0)
    cancelled = samples.var() < CANCELLED * power.max()  # as in opposite phase
    return np.ascontiguousarray(channels[:, power.argmax()]) if cancelled else samples, rate


@lru_cache(maxsize=8)
def mel_bands(sample_rate: int, window: int, mels: int) -> np.ndarray:
    """Return ``(mels, window // 2 + 1)`` triangles, evenly spaced on the mel scale up to half the sample rate.

    Source: mel = 2595 log10(1 + f / 700), O'Shaughnessy 1987; triangles as in Davis & Mermelstein 1980.
    """
    top = 2595.0 * np.log10(1.0 + sample_rate / 2 / 700.0)
    corners = 700.0 * (10.0 ** (np.linspace(0.0, top, mels + 2) / 2595.0) - 1.0)
    frequencies = np.linspace(0.0, sample_rate / 2, window // 2 + 1)
    rising = (frequencies - corners[:-2, None]) / (corners[1:-1] - corners[:-2])[:, None]
    falling = (corners[2:, None] - frequencies) / (corners[2:] - corners[1:-1])[:, None]
    return np.maximum(0.0, np.minimum(rising, falling)).astype(np.float32)


def _lengths(files: Files, found: Found) -> tuple[list[float], Counter[str], dict[str, float]]:
    """Return the seconds and sample rates of evenly spaced recordings, and the seconds about the centre of each that reach its sound.

    These are infinite for a silent one.
    """
    lengths, rates, sounds, peaks, cut = list[float](), Counter[str](), dict[str, float](), dict[str, float](), list[str]()
    speeds, spans, formats = list[tuple[str, int]](), list[tuple[str, int]](), list[tuple[str, int]]()
    for name, label in (found.splits["train"][k] for k in spaced(len(found.splits["train"]), PROBED)):
        with suppress(*unreadable()):  # decoding reports it
            samples, rate = read_sound(data := files.read(name))  # not by the header, which may name more samples than there are
            size = int.from_bytes(data[4:8], "little" if data[:4] == b"RIFF" else "big")  # of a pipe none, or the greatest
            cut += [name] if data[:4] in (b"RIFF", b"FORM") and len(data) + 1 < size + 8 < 2**31 - 2**16 else []
            lengths.append(len(samples) / rate)
            rates[str(rate)] += 1
            speeds.append((f"{rate:,}", label))
            formats.append((Path(name).suffix.lower(), label))
            spans.append((f"{lengths[-1]:.3g} s", label))
            peaks[name] = float(np.abs(samples).max())
            samples = np.abs(samples - samples.mean())  # a constant is no sound
            loud = np.flatnonzero(samples >= max(LOUD * samples.max(), FLOOR**0.5))
            sounds[name] = float(2 * np.abs(loud - len(samples) / 2).min() / rate) if len(loud) else np.inf
    kinds = {"number of samples per second": speeds, "length of the recordings": spans, "file format of the recordings": formats}
    warn_of_giveaways(str(files.path), kinds, found.classes)
    if high := [name for name, peak in peaks.items() if peak > BEYOND]:  # in all of them, too: those of 16 bits that come later are not so
        said = f"{len(high)} of {len(peaks)} recordings have samples beyond [-1, 1], e.g. {high[0]} up to {peaks[high[0]]:.3g}"
        warnings.warn(f"{files.path}: {said}; divide those of 16 bits by 32768", stacklevel=4)
    if cut:
        said = f"{len(cut)} of {len(peaks)} recordings end before the end that their header names, e.g. {cut[0]}"
        warnings.warn(f"{files.path}: {said}; copy them again, or leave them out", stacklevel=4)
    return lengths, rates, sounds


def _warn_of_length(where: str, lengths: list[float], sounds: Mapping[str, float], seconds: float | None) -> None:
    """Warn of silent recordings, and of what the length of all of them leaves out."""
    used = seconds or (float(np.median(lengths)) if lengths else 1.0)
    if silent := [name for name, reach in sounds.items() if reach == np.inf]:
        warnings.warn(f"{where}: {len(silent)} of {len(sounds)} recordings are silent, e.g. {silent[0]}; remove what is none", stacklevel=4)
    cut = sum(length > LONG * used for length in lengths)
    if seconds is None and cut:
        said = f"{cut} of {len(lengths)} recordings are longer than the {used:.3g} s of their middle that are used (the median)"
        warnings.warn(f"{where}: {said}; --set seconds=N takes another length", stacklevel=4)
    if lost := [name for name, reach in sounds.items() if used < reach < np.inf]:
        said = f"{len(lost)} recordings are silent in the {used:.3g} s of their middle that are used, and not beside, e.g. {lost[0]}"
        warnings.warn(f"{where}: {said}; cut them to their sound, or take more by --set seconds=N", stacklevel=4)
