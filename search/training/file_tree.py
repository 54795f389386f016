"""The files of a set: a folder or zip, what lies in it by class and split, and what its files raise that cannot be read."""

from __future__ import annotations

import lzma
import os
import posixpath
import re
import stat
import struct
import sys
import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol
from unicodedata import combining, normalize

from .table_file import TEXT, TYPED
from .table_surprises import spelt_alike

#: The folders of a path, and its file.
Parts = tuple[str, ...]
SUFFIXES = frozenset({".jpg", ".jpeg", ".jfif", ".jpe", ".png", ".apng", ".bmp", ".dib", ".gif", ".webp", ".avif", ".jp2"})
SUFFIXES |= {".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm"}
SOUNDS = frozenset(
    {".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc", ".au", ".snd", ".caf", ".w64", ".rf64", ".voc"}
)
#: The bundled study that reads files with these endings.
READERS = {"images": SUFFIXES, "sound": SOUNDS, "table": TEXT | TYPED}
#: Recordings in formats that are not read.
FOREIGN_SOUNDS = frozenset({".m4a", ".aac", ".wma", ".amr", ".mp4", ".mov", ".avi", ".webm", ".mka", ".3gp", ".ape", ".wv"})
#: What people lay beside pictures and recordings; files of any other kind that is not read are counted.
BESIDE = frozenset({".txt", ".md", ".csv", ".tsv", ".json", ".xml", ".yaml", ".yml", ".html", ".log", ".ini", ".py", ".ipynb", ".db"})
SPLITS = dict.fromkeys(("train", "training"), "train")
SPLITS |= dict.fromkeys(("val", "valid", "validation", "dev"), "validation")
SPLITS |= dict.fromkeys(("test", "testing", "eval", "evaluation", "holdout"), "test")
#: The same in Spanish, French, Italian, Portuguese, German, Polish, Russian, Chinese, Japanese and Korean, without accents.
_ELSEWHERE = {
    "train": "entrenamiento entrainement apprentissage addestramento treino trening обучение 训练 訓練 学習 훈련",
    "validation": "validacion convalida validacao validierung walidacja проверка 验证 驗證 検証 검증",
    "test": "prueba pruebas prova teste tests тест 测试 測試 テスト 테스트",
}
SPLITS |= {word: split for split, words in _ELSEWHERE.items() for word in words.split()}
#: What some write around the name of a split: ``val_set``, ``train2017``, ``01_train``, ``seg_train``.
_AROUND = re.compile(r"^(\d\d?|(data)?set|data|images?|seg)[ ._-]+|[ _-]*(set|split|data|images?|files|(19|20)\d\d)$")
#: Folders beside one another in sets for detection and segmentation, whose images have no class.
_NO_CLASS = re.compile(r"(?i)(jpeg)?images?|imgs?|masks?|labels?|annotations?|image_?sets|segmentation_?(class|object)|gt|ground_?truth")
_NUMBERED = re.compile(r"(?i)(fold|part|split|batch|chunk|shard)[ _-]?\d+")
#: Files whose names say that they tell classes or splits.
_LISTS = re.compile(r"(?i).*(label|meta|annot|split|list|train|valid|val|test|dev)[^/.]*\.(csv|tsv|txt|jsonl?|xlsx|parquet)")
#: Folders that systems and editors leave behind, in lower case; hidden ones begin with a point.
SYSTEM = frozenset(
    {"__macosx", "@eadir", "#recycle", "$recycle.bin", "system volume information", "lost+found", "__pycache__", "thumbs.db"}
)
#: What the readers of zips, images and recordings raise for bytes that they cannot read; no NameError, AttributeError or AssertionError.
_OF_BYTES = (struct.error, zlib.error, lzma.LZMAError, zipfile.BadZipFile, EOFError, SyntaxError, MemoryError)
UNREADABLE = (OSError, ValueError, TypeError, RuntimeError, LookupError, ArithmeticError, *_OF_BYTES)
#: A member of a zip of more bytes, and so many times those that it has in the zip, is a bomb: no image or recording is packed like that.
BOMB_BYTES, BOMB_TIMES = 256 * 2**20, 100


def unreadable() -> tuple[type[Exception], ...]:
    """Return what says that a file cannot be read, and no fault of ours: ``UNREADABLE``, and what Pillow raises for too many pixels."""
    pillow = sys.modules.get("PIL.Image")
    return UNREADABLE if pillow is None else (*UNREADABLE, pillow.DecompressionBombError)


class Files(Protocol):
    """A tree of files."""

    @property
    def path(self) -> Path:
        """Path of the folder or zip."""

    def names(self) -> list[str]:
        """Relative names with forward slashes; a folder ends in a slash."""

    def read(self, name: str) -> bytes:
        """Contents of one file."""

    def stamp(self, name: str) -> tuple[int, int]:
        """Size of one file and what changes with its contents, without reading it."""


@dataclass(frozen=True)
class Folder:
    """Files in a folder."""

    path: Path

    def names(self) -> list[str]:
        """Return every file and folder below; links are followed, except those that lead back to a folder around them."""
        found = []
        around = {self.path: {os.path.realpath(self.path)}}
        for parent, folders, files in os.walk(self.path, onerror=_unlisted, followlinks=True):
            above = around.pop(Path(parent))
            real = {name: os.path.realpath(os.path.join(parent, name)) for name in folders}
            folders[:] = [name for name in folders if real[name] not in above]
            around |= {Path(parent, name): above | {real[name]} for name in folders}
            base = Path(parent).relative_to(self.path)
            found += [(base / name).as_posix() + "/" for name in folders] + [(base / name).as_posix() for name in files]
        return found

    def read(self, name: str) -> bytes:
        """Read one file; anything else, such as a pipe or a device, which may never end, raises OSError."""
        descriptor = os.open(self.path / name, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with open(descriptor, "rb") as opened:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise OSError("it is no file but a folder, pipe or device")
            return opened.read()

    def stamp(self, name: str) -> tuple[int, int]:
        """Return size and time of the last change."""
        facts = (self.path / name).stat()
        return facts.st_size, facts.st_mtime_ns


def _unlisted(error: OSError) -> None:
    warnings.warn(f"left out the folder {error.filename}, which cannot be listed ({error.strerror}); allow it to be read", stacklevel=3)


class Zip:
    """Files in a zip, read in place; each process opens its own handle."""

    def __init__(self, path: Path) -> None:
        """Name the archive; it is opened on first use."""
        self.path = path
        self._open: tuple[int, zipfile.ZipFile] | None = None
        self._entries: dict[str, str] = {}

    def names(self) -> list[str]:
        """Return every entry; some programs write backslashes, and names that begin with a slash, a drive or points."""
        self._entries = {_plain(_decoded(facts)): facts.filename for facts in self._archive().infolist()}
        return list(self._entries)

    def read(self, name: str) -> bytes:
        """Read one entry; one that would fill the memory raises ValueError."""
        facts = self._archive().getinfo(self._entries.get(name, name))
        if facts.file_size > max(BOMB_BYTES, BOMB_TIMES * facts.compress_size):
            raise ValueError(f"it would be {facts.file_size:,} bytes, of {facts.compress_size:,} in the zip")
        return self._archive().read(facts)

    def stamp(self, name: str) -> tuple[int, int]:
        """Return size and CRC-32."""
        facts = self._archive().getinfo(self._entries.get(name, name))
        return facts.file_size, facts.CRC

    def _archive(self) -> zipfile.ZipFile:
        # A forked worker shares the file position with its parent, so it must not use the parent's handle.
        if self._open is None or self._open[0] != os.getpid():
            self._open = (os.getpid(), zipfile.ZipFile(self.path))
        return self._open[1]

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_open": None}


def _decoded(facts: zipfile.ZipInfo) -> str:
    """Return the name of a zip's entry, also one in UTF-8 without the mark that it is, as a Mac writes."""
    with suppress(UnicodeError):
        return facts.filename if facts.flag_bits & 0x800 else facts.filename.encode("cp437").decode()
    return facts.filename


def _plain(name: str) -> str:
    """Return the name of a zip's entry as a relative path, with the slash behind a folder."""
    below = re.sub(r"^([A-Za-z]:)?(/|\.{1,2}/)*", "", name.replace("\\", "/"))
    return re.sub(r"^(\.\./)+", "", posixpath.normpath(below)) + "/" * below.endswith("/") if below else below


def open_files(path: str | Path) -> Files:
    """Return the files of a folder or zip.

    Raises:
        FileNotFoundError: If there is nothing at the path.
        ValueError: If it is a file, but no zip.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        return Folder(path)
    if not path.exists():
        raise FileNotFoundError(f"no data at {path}; give a folder or a zip with one sub-folder for each class")
    archive = Zip(path)
    try:
        archive.names()
    except unreadable() as error:
        remedy = f"give one with a sub-folder for each class, unpack other archives{_reader([path.suffix.lower()])}"
        raise ValueError(f"{path} is neither a folder nor a zip ({error}); {remedy}") from error
    return archive


def _reader(suffixes: Iterable[str]) -> str:
    """Return the end of a message: which bundled study reads the files; empty where none does."""
    return next((f"; joulefront run {study} reads those" for one in suffixes for study, known in READERS.items() if one in known), "")


@dataclass(frozen=True)
class Found:
    """Sorted class names of a tree, and ``(name, class number)`` of each file by split; only the splits that exist."""

    classes: tuple[str, ...]
    splits: Mapping[str, tuple[tuple[str, int], ...]]


def find_classes(files: Files, suffixes: frozenset[str] = SUFFIXES, *, noun: str = "images") -> Found:
    """Sort the files of some kind by split and class.

    Sub-folders are classes. Folders ``train``, ``val`` (``valid``, ``validation``, ``dev``) and ``test`` (``eval``, ``holdout``) are splits
    of such sub-folders; one alone among other folders with files is a class. Single folders around everything are ignored, and so are
    hidden files, those of other kinds, what systems leave behind, and files that links lead to a second time.

    Raises:
        ValueError: If there are no files of this kind, no class folders, one class only, or a class without (training) files.
    """
    where = files.path
    paths = [(name, PurePosixPath(name)) for name in files.names()]
    paths = [(name, path) for name, path in paths if not any(part.startswith(".") or part.lower() in SYSTEM for part in path.parts)]
    images = _of_kind(where, [(name, path) for name, path in paths if not name.endswith("/")], suffixes, noun)
    folders = {path.parts[:depth] for name, path in paths for depth in range(1, len(path.parts) + name.endswith("/"))}
    images, folders = _unwrapped(images, folders)
    tops = _split_folders(where, [parts for _, parts in images], folders)
    placed = [(name, "train", parts) for name, parts in images]  # by the folder of a split, and the parts below that
    if tops:
        placed = [(name, parts[0], parts[1:]) for name, parts in images if parts[0] in tops]
        folders = {parts[1:] for parts in folders if parts[0] in tops}
    if loose := [name for name, _, parts in placed if len(parts) <= 1]:
        remedy = f"move each into its class, or what has none out of {where}; lists of labels are not read"
        raise ValueError(f"{where} has {len(loose)} {noun} outside of a class folder, for example {loose[0]}; {remedy}")
    classes = tuple(sorted({parts[0] for parts in folders if len(parts) == 1}))
    lists = sorted(name for name, path in paths if len(path.parts) <= 2 and _LISTS.fullmatch(path.name))
    if len(classes) < 2:
        read = f"; {lists[0]} is not read, move each of the {noun} into its class" if lists else ""
        raise ValueError(f"{where} has only one class folder, {classes[0]}/; a classification needs at least two{read}")
    _refuse_layout(where, classes)
    if lists:
        warnings.warn(f"{where}: {lists[0]} is not read; classes and splits are those of the folders", stacklevel=3)
    if strange := [name for name in classes if not name.isprintable()]:
        raise ValueError(f"{where}: the name of a class folder must be printable, got {strange[0]!r}; rename the folder")
    if deeper := sorted((top, parts) for _, top, parts in placed if len(parts) > 2):
        label, inner = deeper[0][1][:2]
        said = f"{len(deeper)} {noun} in folders of a class, e.g. {label}/{inner}/, belong to {label!r}"
        remedy = "if the inner folders are the classes or splits, move them up; splits are called train, val and test"
        warnings.warn(f"{where}: {said}; {remedy}", stacklevel=3)
    if twice := spelt_alike(classes):
        shown = " and ".join(map(ascii, twice[0][:3]))
        warnings.warn(f"{where}: the classes {shown} differ in capitals, blanks or accents only; join them if they are one", stacklevel=3)
    numbers = {name: k for k, name in enumerate(classes)}
    splits: dict[str, list[tuple[str, int]]] = {}
    for name, top, parts in sorted(placed):
        splits.setdefault(split_of(top) or top, []).append((name, numbers[parts[0]]))
    if isinstance(files, Folder):
        _drop_second_links(files, splits)
    trained = {label for _, label in splits.get("train", [])}
    if empty := [name for name in classes if numbers[name] not in trained]:
        part = " of the training split" if tops else ""
        meant = "".join(f"; is it {name}/?" for alike in twice if empty[0] in alike for name in alike if name not in empty)
        remedy = f"fill it, or move the folder elsewhere ({len(empty)} empty){meant}"
        raise ValueError(f"{where}: the class folder {empty[0]}/{part} has no {noun}; {remedy}")
    return Found(classes, {split: tuple(entries) for split, entries in splits.items()})


def _unwrapped(images: list[tuple[str, Parts]], folders: set[Parts]) -> tuple[list[tuple[str, Parts]], set[Parts]]:
    """Return images and folders without the one folder around everything; one that holds images itself is a class and stays."""
    while len({parts[0] for _, parts in images}) == 1 and any(len(parts) >= 3 for _, parts in images):
        if split_of(wrapper := images[0][1][0]) is not None:
            break
        images = [(name, parts[1:]) for name, parts in images]
        folders = {parts[1:] for parts in folders if parts[0] == wrapper and len(parts) > 1}
    return images, folders


def _of_kind(where: Path, paths: Sequence[tuple[str, PurePosixPath]], suffixes: frozenset[str], noun: str) -> list[tuple[str, Parts]]:
    """Return the files of a kind with the parts of their paths; say what of another one is left out, and refuse a tree that has none."""
    found = [(name, path.parts) for name, path in paths if path.suffix.strip().lower() in suffixes]
    if not found:
        counted = Counter(path.suffix.lower() for _, path in paths).most_common(3)
        got = ", ".join(f"{count} {suffix or 'without suffix'}" for suffix, count in counted) or "no files"
        said = f"no {noun} in {where}; they must end in one of {', '.join(sorted(suffixes))}, got {got}"
        raise ValueError(f"{said}{_reader(kind for kind, _ in counted)}")
    if foreign := sorted(path for _, path in paths if path.suffix.strip().lower() not in suffixes | BESIDE):
        kinds = ", ".join(sorted({path.suffix.lower() or "no suffix" for path in foreign}))
        one = f"{len(foreign)} file{'s' * (len(foreign) != 1)} ({kinds}), for example {foreign[0]}"
        warnings.warn(f"{where}: left out {one}; convert or rename what is meant as {noun}", stacklevel=4)
    return found


def _split_folders(where: Path, images: Iterable[tuple[str, ...]], folders: set[tuple[str, ...]]) -> set[str]:
    """Return the folders that are splits; none where the folders at the top are classes, whatever they are called."""
    named = {parts[0] for parts in folders if len(parts) == 1 and split_of(parts[0]) is not None}
    others = {parts[0] for parts in images} - named
    below = {top: {parts[1].lower() for parts in folders if len(parts) > 1 and parts[0] == top} for top in named | others}
    # bus/, car/, train/ are classes; train/ and test/ with the same classes below are splits whatever lies beside them.
    split_layout = bool(named) and (not others or (len(named) > 1 and bool(set.intersection(*(below[top] for top in named)))))
    if not split_layout and named and len(below[min(named)]) > 1 and all(below[top] == below[min(named)] for top in others):
        said = f"{where} has the same folders in {', '.join(sorted(named | others)[:5])}/"
        raise ValueError(f"{said}; rename what is a split to train, val or test, or remove what is none")
    if named and others:
        meant = f"{', '.join(sorted(others)[:5])} is left out" if split_layout else "which is taken for a class; rename it if it is a split"
        warnings.warn(f"{where} has {', '.join(sorted(named))}/ beside other folders: {meant}", stacklevel=4)
    if split_layout and not any(split_of(top) == "train" for top in named):
        raise ValueError(f"{where} has {', '.join(sorted(named))}/ but no train/; add it, or leave out the split folders")
    return named if split_layout else set()


def _refuse_layout(where: Path, classes: Sequence[str]) -> None:
    """Refuse folders that are no classes, with what would make them some; those that are parts of a set get a warning."""
    shown = ", ".join(f"{name}/" for name in classes[:5])
    if all(map(_NO_CLASS.fullmatch, classes)):
        raise ValueError(f"{where} has {shown}, as for detection or segmentation, which are not learnt; give a folder for each class")
    halves = [one.groups() for name in classes if (one := re.fullmatch(r"([^ _-]+)[ _-]+(.+)", name)) and split_of(one[1])]
    if apart := [rest for rest, count in Counter(rest for _, rest in halves).items() if count > 1]:
        moved = " and ".join(f"{split}/{rest}/" for split, rest in halves if rest == apart[0])
        raise ValueError(f"{where} has {shown}, of which some are splits of one class; make {moved} of them, and so on")
    if all(map(_NUMBERED.fullmatch, classes)):
        remedy = "if these are parts of a set, put the files of all into a folder for each class"
        warnings.warn(f"{where}: the classes are {shown}; {remedy}", stacklevel=4)


def split_of(folder: str) -> str | None:
    """Return the split that a folder's name says, ``validation`` for ``Val_set``, None for another name."""
    plain = "".join(one for one in normalize("NFD", folder.strip().lower()) if not combining(one))
    return SPLITS.get(_AROUND.sub("", normalize("NFC", plain)))


def _drop_second_links(files: Folder, splits: Mapping[str, list[tuple[str, int]]]) -> None:
    """Keep each file once, in its own place if that is one of the set's, and warn of the rest."""
    root = os.path.realpath(files.path)
    names, real = [name for entries in splits.values() for name, _ in entries], {}
    parents = {parent: os.path.realpath(files.path / parent) for parent in {*map(os.path.dirname, names)}}
    for name in names:
        path = os.path.join(parents[os.path.dirname(name)], os.path.basename(name))
        real[name] = os.path.realpath(path) if os.path.islink(path) else path
    once = {place: name for name, place in real.items() if place != os.path.join(root, name)}
    once |= {place: name for name, place in real.items() if place == os.path.join(root, name)}
    if second := [name for name, place in real.items() if once[place] != name]:
        for entries in splits.values():
            entries[:] = [entry for entry in entries if once[real[entry[0]]] == entry[0]]
        warnings.warn(f"{files.path}: left out {len(second)} files that are links to others of the set, e.g. {second[0]}", stacklevel=4)
