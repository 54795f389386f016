"""Predict with an exported folder: ``python predict.py FILE...`` gives the label and probability, or the value, of each file or row.

This file is the same in every folder; beside ``model.onnx`` it needs onnxruntime and numpy, and Pillow for images, soundfile for sound,
pandas for tables. What is done to a file before the graph is told by the metadata of ``model.onnx``.
"""

from __future__ import annotations

import argparse
import csv
import importlib
import io
import json
import re
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import gcd
from pathlib import Path
from typing import Any

import numpy as np

MODEL = "model.onnx"
#: Examples that are predicted at once.
BATCH = 64
#: What a file of each kind of input must be, and the package that reads it.
READS = {
    "image": ("an image", "pillow"),
    "audio": ("a recording (WAV, FLAC, Ogg, MP3, AIFF)", "soundfile"),
    "table": ("a table (.csv, .tsv, .txt, .parquet, .json, .xlsx)", "pandas"),
    "array": ("an array saved by numpy (.npy)", "numpy"),
    "inputs": ("an array of prepared inputs, float32, saved by numpy (.npy)", "numpy"),
}
#: White of images of 16 bits and more, and the ground of transparent ones, where the training said nothing else.
WHITE, GROUND, CANCELLED = 65535.0, 255, 0.01
#: Signs that would move a terminal's cursor or turn its writing, and what a spreadsheet would compute: a class may be called anything.
_MOVING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_FORMULA = re.compile(r"\A[=+@\t\r-](?=.*[(|!])", re.DOTALL)


class Unusable(ValueError):  # noqa: N818 - what it is called in messages
    """A file, or a row of it, that cannot be predicted; the message says why, and what to do."""


@dataclass(frozen=True)
class Prediction:
    """What the model says of one file, or of one row of it, counted from 1.

    Attributes:
        file: The file as it was named.
        row: Number of the row below the header, or of the example; None where a file is one example.
        label: The class, labels separated by commas, or None for a value.
        probability: Of the label, as the model has it; of the least sure one where there are several labels. A score for anomaly detectors.
        value: The value in the unit of the data, None for classes.
        probabilities: Of every class.
    """

    file: str
    row: int | None
    label: str | None
    probability: float | None
    value: float | None
    probabilities: Mapping[str, float] = field(default_factory=dict)


class Model:
    """An exported model that takes raw files."""

    def __init__(self, folder: str | Path = ".") -> None:
        """Open ``model.onnx`` of a folder.

        Raises:
            ValueError: If there is none, or it was not written by joulefront.
        """
        import onnxruntime

        file = Path(folder) / MODEL if Path(folder).is_dir() else Path(folder)
        if not file.is_file():
            raise ValueError(_no_model(Path(folder)))
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # what fails is raised, too; the session would print it past Python
        try:
            self.session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
            facts = self.session.get_modelmeta().custom_metadata_map
            self.kind, self.takes, self.classes = facts["kind"], facts["takes"], json.loads(facts["classes"])
            self.how, self.scale = json.loads(facts["preprocessing"]), json.loads(facts["target_scale"])
            self.output = facts["output"]
            if len({name for name in self.classes if isinstance(name, str)}) < len(self.classes):
                raise ValueError(f"its classes must be different texts, got {self.classes}")
        except KeyError as error:
            raise ValueError(f"{file} has no {error} in its metadata; export it again by this version of joulefront") from error
        except Exception as error:
            raise ValueError(f"{file} must be an ONNX file that joulefront wrote: {first_line(error)}") from error
        self.inputs = [one.name for one in self.session.get_inputs()]

    def predict(self, files: Sequence[str | Path]) -> Iterator[Prediction | Unusable]:
        """Yield the predictions of each file, or of those below a folder but for hidden ones; for one that cannot be read what is wrong."""
        below: list[Any] = [
            sorted(one for one in Path(file).rglob("*") if one.is_file() and "/." not in f"/{one.relative_to(file).as_posix()}") or [file]
            for file in files
        ]
        for file in (one for found in below for one in found):
            try:
                rows = self.read(Path(file))
                answers = self.answers(rows)
                alone = self.takes in ("image", "audio") or (self.takes in ("array", "inputs") and len(answers) == 1)
                named = [
                    self.prediction(str(file), None if alone else k + 1, answer) if np.isfinite(answer).all() else None
                    for k, answer in enumerate(answers)
                ]
            except Unusable as error:
                yield error
            except Exception as error:  # onnxruntime has errors of its own
                yield Unusable(f"{file} was read, but the model failed on it ({first_line(error)}); leave it out, or export again")
            else:
                if len(answers) == 0:
                    warnings.warn(f"{file} has 0 rows; nothing was predicted of it", stacklevel=2)
                for k, one in enumerate(named):
                    yield one or Unusable(f"{file}{'' if alone else f', row {k + 1}'}: the model gives no number; correct what is far off")

    def read(self, file: Path) -> dict[str, np.ndarray]:
        """Read a file as the inputs of the graph.

        Raises:
            Unusable: If it is none for this model.
        """
        if file.is_dir() or not file.exists():
            raise Unusable(f"{file} {'is a folder without files' if file.is_dir() else 'does not exist'}; give an existing file")
        try:
            if self.takes == "table":
                return self.columns(self.table(file), source=f"{file}: ")
            if self.takes in ("array", "inputs"):
                return {self.inputs[0]: self._array(file)}
            return {self.inputs[0]: (self.image if self.takes == "image" else self.waveform)(file.read_bytes())[None]}
        except ImportError as error:
            if re.fullmatch(r"columns|table_\w+", error.name or ""):  # no package: it should lie beside this file
                raise Unusable(f"{file}: what reads it, {error.name}.py, is not there or of another version; export again") from error
            raise Unusable(f"{file} needs a package to be read ({error}); pip install {READS[self.takes][1]}") from error
        except Unusable as error:
            raise Unusable(f"{file}: {error}") from error
        except Exception as error:  # the readers raise whatever they like on bytes of somebody else
            if self.takes in ("array", "inputs") and not isinstance(error, OSError):  # what numpy says of other files is advice on pickle
                wanted = f"a .npy file of shape (n, {', '.join(map(str, self._shape))})"
                raise Unusable(f"{file} must be {wanted}, got {file.name}; write numbers by numpy.save(FILE, array)") from error
            wanted = READS[self.takes][0]
            raise Unusable(f"{file} must be {wanted}, got what cannot be read as one ({first_line(error)}); leave it out") from error

    def answers(self, feed: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return probabilities or scores ``(n, classes)``, or values ``(n,)``, of inputs of the graph."""
        count = len(next(iter(feed.values())))
        parts = [self.session.run(None, {name: values[k : k + BATCH] for name, values in feed.items()})[-1] for k in range(0, count, BATCH)]
        found = np.concatenate(parts) if parts else np.zeros((0, max(1, len(self.classes))))
        if len(found) != count:
            raise Unusable(f"the model must answer each of {count} rows, got {len(found)} answers; export it again")
        return self._answered(found) if self.takes == "inputs" and self.output != "answers" else found

    def prepared(self, files: Sequence[str | Path]) -> np.ndarray:
        """Return what a model of another format takes, ``(n, ...)`` float32, of readable files; this one is of ``prepare.onnx``."""
        return np.concatenate([self.answers(self.read(Path(file))) for file in files])

    def _answered(self, raw: np.ndarray) -> np.ndarray:
        """Turn raw outputs of a network into answers."""
        if self.kind == "regression":
            mean, deviation = self.scale or (0.0, 1.0)
            return np.asarray(raw.reshape(-1).astype(np.float64) * deviation + mean)
        if self.output != "logits":
            return raw
        if self.kind == "multilabel":
            return np.asarray(1.0 / (1.0 + np.exp(-np.clip(raw, -50.0, 50.0))))
        powers = np.exp(raw - raw.max(axis=1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=1, keepdims=True))

    def prediction(self, file: str, row: int | None, answer: Any) -> Prediction:
        """Name what the graph answered for one example."""
        if self.kind == "regression":
            return Prediction(file, row, None, None, float(answer))
        classes = self.classes or [str(k) for k in range(len(answer))] if self.kind != "anomaly" else self.classes or ["normal", "anomaly"]
        named = {name: float(f"{share:.6g}") for name, share in zip(classes, answer, strict=True)}
        if self.kind == "multilabel":
            there = [name for name, share in zip(classes, answer, strict=True) if share > 0.5]  # not of the rounded ones
            return Prediction(file, row, ", ".join(there), min((named[name] for name in there), default=None), None, named)
        best = int(np.argmax(answer))
        return Prediction(file, row, classes[best], float(f"{answer[best]:.6g}"), None, named)

    def image(self, data: bytes) -> np.ndarray:
        """Decode an image to ``(h, w, 3)`` uint8, upright, on its ground, of any size: the graph crops and resizes it."""
        from PIL import Image, ImageOps

        with Image.open(io.BytesIO(data)) as opened:
            # JPEG can decode at a fraction of its size; as in training, never below twice what is needed.
            opened.draft(None, (2 * int(self.how["width"]), 2 * int(self.how["height"])))
            image: Any = ImageOps.exif_transpose(opened) if opened.getexif() else opened
            if image.mode in ("I", "F") or image.mode.startswith("I;16"):
                floats = image.mode == "F"
                white, black = self.how.get("white") or (1.0 if floats else WHITE), self.how.get("black", 0.0)
                values = np.nan_to_num(np.asarray(image).astype(np.float32) - np.float32(black)) * (255.0 / (white - black))
                image = Image.fromarray(np.clip(values + (0.5 if floats else 0.0), 0, 255).astype(np.uint8))
            if image.has_transparency_data:
                clear, ground = image.convert("RGBA"), int(self.how.get("ground", GROUND))
                image = Image.alpha_composite(Image.new("RGBA", clear.size, (ground, ground, ground, 255)), clear)
            if self.how["channels"] == 1:
                image = image.convert("L")  # before it is three equal colours: Pillow makes grey of all its modes
            return np.asarray(image.convert("RGB"))

    def waveform(self, data: bytes) -> np.ndarray:
        """Decode a recording to the samples ``(n,)`` float32 at the rate of the model, of any length: the graph cuts and pads it."""
        import soundfile

        with soundfile.SoundFile(io.BytesIO(data)) as opened:
            rate, parts = opened.samplerate, [np.zeros((0, opened.channels), dtype=np.float32)]
            while len(part := opened.read(2**20, dtype="float32", always_2d=True)):  # GSM does not tell how many there are
                parts.append(part)
        channels = np.concatenate(parts)
        if len(channels) == 0 or not np.isfinite(channels).all():
            raise ValueError("it is empty" if len(channels) == 0 else "it has samples that are no numbers")
        samples, power = channels.mean(axis=1, dtype=np.float32), channels.var(axis=0)
        if samples.var() < CANCELLED * power.max():  # as in opposite phase
            samples = channels[:, power.argmax()]
        wanted = int(self.how["sample_rate"])
        return samples if rate == wanted else resampled(samples, rate, wanted, round(self.how["seconds"] * wanted))

    @property
    def used(self) -> list[Mapping[str, Any]]:
        """Columns of a table that the model reads."""
        return [column for column in self.how["columns"] if column["type"] != "dropped"]

    def table(self, file: Path) -> Any:
        """Read a table as training did, by its encoding and separator where the file leaves them open; cells of text files stay text."""
        return _reading("table_file").read(file, [one["name"] for one in self.used], self.how.get("file"))

    def columns(self, frame: Any, source: str = "") -> dict[str, np.ndarray]:
        """Return the inputs of the graph for rows of a table: float64 with NaN for missing, or texts with "" for missing.

        Dates are seconds since 1970 (UTC), truth values 0 and 1. Warnings, which begin with the ``source``, count what training had not.
        """
        reading, new = _reading(), _reading("table_surprises")
        try:
            frame = new.rows_as_learnt(self.how, frame)
        except ValueError as error:
            raise Unusable(str(error)) from error
        feed: dict[str, np.ndarray] = {}
        if said := new.other_signs(self.used, self.how.get("file"), frame):
            warnings.warn(source + said, stacklevel=2)
        for column in self.used:
            name, values, how = column["name"], frame[column["name"]], reading.from_json(column)
            if column["type"] == "text":
                try:
                    from joulefront.search.training.text import text_features
                except ImportError:
                    raise Unusable(f"the column {name!r} is free text, to embed which pip install 'joulefront[text]'") from None
                feed[name] = np.asarray(text_features(column, values), dtype=np.float32)
            elif column["type"] == "numeric":
                found, gaps = reading.numbers(values, how), {None, *how.gaps}
                strange = [text for text, one in zip(reading.texts(values), found, strict=True) if text not in gaps and np.isnan(one)]
                if strange and len(strange) == np.isnan(found).sum() == len(found):
                    raise Unusable(f"the column {name!r} must hold {how.kind}s as in training, got {strange[0]!r}; write them as there")
                feed[name] = np.where(np.abs(found) < reading.LARGEST, found, np.nan)[:, None]
            else:
                texts = reading.texts(values)
                feed[name] = np.array([text or "" for text in new.as_levels(column, texts)], dtype=object)[:, None]
                if "words" in column:
                    feed[f"{name} words"] = _reading("table_encodings").word_features(column["words"], list(texts)).astype(np.float32)
            for said in new.surprises(column, values) if column["type"] != "text" else ():
                warnings.warn(source + said, stacklevel=2)
        return feed

    @property
    def _shape(self) -> tuple[int, ...]:
        return tuple(self.session.get_inputs()[0].shape[1:])

    def _array(self, file: Path) -> np.ndarray:
        values, shape = np.load(file, allow_pickle=False), self._shape
        values = values[None] if _long(values.shape) == _long(shape) and values.shape[1:] != shape else values
        if values.dtype.kind not in "fiub" or _long(values.shape[1:]) != _long(shape):  # a channel alone may be left out
            raise Unusable(f"the array must be real numbers of shape (n, {', '.join(map(str, shape))}), got {values.dtype} {values.shape}")
        values = values.reshape(len(values), *shape)
        if values.dtype.kind == "f" and not np.isfinite(values).all():  # trees answer all the same
            warnings.warn(f"{file} has missing or infinite values, as training had none: do not rely on its answers", stacklevel=2)
        return np.asarray(values, dtype=np.float32 if "float)" in self.session.get_inputs()[0].type else np.float64)


def _long(shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(length for length in shape if length != 1)


def resampled(samples: np.ndarray, rate: int, wanted: int, most: int) -> np.ndarray:
    """Return samples at another rate, of a long recording only about its middle ``most`` ones, with an even number left out.

    A windowed sinc, evaluated where it is needed. Source: scipy.signal.resample_poly with its window, Kaiser with beta 5.
    """
    up, down = wanted // gcd(rate, wanted), rate // gcd(rate, wanted)
    half = 10 * max(up, down)
    taps = np.sinc(np.arange(-half, half + 1) / max(up, down)) * np.kaiser(2 * half + 1, 5.0)
    taps = (taps / taps.sum() * up).astype(np.float32)
    count = -(-len(samples) * up // down)
    skip = max(0, (count - most) // 2)  # the graph cuts at the same place
    found = np.zeros(min(count, most) if count > most else count, dtype=np.float32)
    reach = -(-half // up)
    for first in range(0, len(found), 4096):
        places = (np.arange(first, min(first + 4096, len(found))) + skip) * down
        around = places[:, None] // up + np.arange(-reach, reach + 2)
        offset = places[:, None] - around * up + half
        inside = (offset >= 0) & (offset <= 2 * half) & (around >= 0) & (around < len(samples))
        weights = np.where(inside, taps[np.clip(offset, 0, 2 * half)], 0)
        found[first : first + 4096] = (samples[np.clip(around, 0, len(samples) - 1)] * weights).sum(axis=1)
    return found


def _no_model(folder: Path) -> str:
    other = next((one.name for one in sorted(folder.glob("model.*")) if one.is_file() and (folder / "config.json").is_file()), None)
    got = "" if other is None else f", got {other}, which the code in its README.md predicts with"
    return f"{str(folder)!r} must hold {MODEL}{got}; give a folder written by joulefront export --to onnx"


def first_line(error: BaseException) -> str:
    """Return what an error says, in one line."""
    return (re.sub(r"\s*<[^<>]* at 0x\w+>", "", " ".join(str(error).split())) or type(error).__name__)[:200]


def _reading(name: str = "columns") -> Any:
    """Return a module that reads tables: the file beside this one, or that of the installed package."""
    if __package__ and __package__.startswith("joulefront."):
        return importlib.import_module(f"joulefront.search.training.{name}")
    sys.path.append(str(Path(__file__).resolve().parent))  # python -I and PYTHONSAFEPATH leave it out
    return importlib.import_module(name)


def show(found: Sequence[Prediction], form: str) -> str:
    """Return predictions as ``table``, ``csv`` or ``json``."""
    if form == "json":
        known = [{name: value for name, value in asdict(one).items() if value not in (None, {})} for one in found]
        return json.dumps(known, indent=1, ensure_ascii=False) + "\n"
    several = any(one.row is not None for one in found)
    values = [one.value for one in found if one.value is not None]
    largest, spread = (max(map(abs, values)), max(values) - min(values)) if values else (0.0, 0.0)
    # Four digits of what differs between the rows, and all before the point: times in seconds have ten.
    differing = 0 if spread == 0 else 4 + int(np.ceil(np.log10(max(largest / spread, 1.0))))
    places = min(17, max(6, differing, len(f"{largest:.0f}")))
    header = ["file", *(["row"] if several else []), *(["value"] if values else ["label", "probability"])]
    shares = ["" if one.probability is None else format(one.probability, ".6g" if form == "csv" else ".3f") for one in found]
    rows = [
        [
            one.file,
            *([str(one.row)] if several else []),
            *([repr(one.value) if form == "csv" else f"{one.value:.{places}g}"] if values else [one.label or "", share]),
        ]
        for one, share in zip(found, shares, strict=True)
    ]
    if form == "csv":
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([header, *([_FORMULA.sub(r"'\g<0>", cell) for cell in row] for row in rows)])
        return text.getvalue()
    right = {"row", "value", "probability"}
    rows = [[" ".join(cell.split()) for cell in row] for row in rows]  # a label may have several lines
    widths = [max(len(row[k]) for row in [header, *rows]) for k in range(len(header))]
    lines = [
        "  ".join(cell.rjust(width) if name in right else cell.ljust(width) for cell, width, name in zip(row, widths, header, strict=True))
        for row in [header, *rows]
    ]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def run(model: Model, files: Sequence[str], form: str = "table") -> int:
    """Print the predictions of files, and a line on stderr for each that cannot be read; return 0, or 2 where there is one."""
    said, found = list[str](), list[Prediction]()
    with warnings.catch_warnings(record=True) as noted:
        warnings.simplefilter("always")
        for one in model.predict(files):
            said += [f"error: {one}"] if isinstance(one, Unusable) else []
            found += [one] if isinstance(one, Prediction) else []
    for line in [*dict.fromkeys(f"warning: {note.message}" for note in noted if note.category is UserWarning), *said]:
        print("".join(sign if sign.isprintable() else "?" for sign in line), file=sys.stderr)
    if found or form == "json":
        sys.stdout.write(_MOVING.sub("?", show(found, form)))
    return 2 if said else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Predict the files that are named, with the model beside this file."""
    parser = argparse.ArgumentParser(description="Predict files with the model beside this script.")
    parser.add_argument("files", nargs="+", metavar="FILE", help="images, recordings, tables, arrays, as in training; or folders of them")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--csv", action="store_true", help="print CSV")
    form.add_argument("--json", action="store_true", help="print JSON, with the probability of every class")
    given = parser.parse_args(arguments)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        model = Model(Path(__file__).resolve().parent)
    except (ValueError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return run(model, given.files, "csv" if given.csv else "json" if given.json else "table")


if __name__ == "__main__":
    sys.exit(main())
