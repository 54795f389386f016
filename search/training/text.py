"""Columns of free text as numbers: a static embedding that a package ships, of which only the data is read.

A word has one vector, whatever stands beside it, and a text the mean of its words' vectors: no network runs, so that ten thousand short
texts take about a CPU-second.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from ..whole_file import sha256_of
from .columns import texts

if TYPE_CHECKING:
    import pandas as pd

#: Ships a static embedding of 32,000 tokens in 256 dimensions, made of the first layer of large language models (MIT, 16 MB).
PACKAGE = "wordllama"
FILE, FILE_SHA256 = "wordllama/weights/l2_supercat_256.safetensors", "64b47a2dc493cb8e85944076601189739852d7b64e0e1eedcb1937a251cd9fd5"
TOKENIZER = "wordllama/tokenizers/l2_supercat_tokenizer_config.json"
TOKENIZER_SHA256 = "93248f2a9ec36c7b35f700a033d5f36228aae48db61aee31007fa49062cdeb68"
REMEDY = f"pip install {PACKAGE} brings an embedding for columns of text"
#: A column of text gets so many features, the directions in which its texts differ most; digits that a component is stored with.
FEATURES, DIGITS = 32, 4
#: A column is free text when its texts have so many words on average, and most of them occur once.
WORDS = 3.0
#: Rows on which the price of the features is measured.
SAMPLED = 2048
#: Tokens of a text that count, and texts that are embedded at once.
LONGEST, BATCH = 256, 256


class StaticEmbedding:
    """A table of vectors, one for each token.

    Attributes:
        identity: The package and the SHA-256 of its weights.
        facts: Origin, licence, hash and size, as ``study.json`` has them of pretrained weights.
    """

    def __init__(self, vectors: torch.Tensor, tokenizer: Any, facts: Mapping[str, Any]) -> None:
        """Take ``vectors`` ``(tokens, d)``; ``tokenizer`` is one of the library ``tokenizers``."""
        self.facts, self._tokenizer, self._vectors = dict(facts), tokenizer, vectors.float()
        self.identity = f"{facts['model']}@{facts['sha256'][:16]}"

    def vectors_of(self, values: Sequence[str]) -> np.ndarray:
        """Return the mean of the vectors of each text, ``(n, d)`` float32; zeros for one without tokens."""
        found = [np.zeros((0, self._vectors.shape[1]), dtype=np.float32)]
        for start in range(0, len(values), BATCH):
            cut = self._tokenizer.encode_batch(list(values[start : start + BATCH]), add_special_tokens=False)
            tokens = [torch.tensor(one.ids[:LONGEST], dtype=torch.int64) for one in cut]
            first = torch.tensor([0, *map(len, tokens[:-1])]).cumsum(0)
            found.append(nn.functional.embedding_bag(torch.cat(tokens), self._vectors, first, mode="mean").numpy())
        return np.concatenate(found)


@lru_cache(maxsize=1)
def find_text() -> StaticEmbedding | None:
    """Return the embedding that an installed package ships, without importing the package; None where it is absent or was changed."""
    try:
        found = distribution(PACKAGE)
        from tokenizers import Tokenizer
    except (PackageNotFoundError, ImportError):
        return None
    weights, tokenizer = (Path(str(found.locate_file(name))) for name in (FILE, TOKENIZER))
    known = (weights, FILE_SHA256), (tokenizer, TOKENIZER_SHA256)
    if any(not path.is_file() or sha256_of(path) != sha256 for path, sha256 in known):
        return None
    from safetensors.torch import load_file

    facts = {
        "model": "wordllama_256",
        "origin": f"the package {PACKAGE} {found.version}",
        "licence": "MIT",
        "sha256": FILE_SHA256,
        "bytes": weights.stat().st_size,
        "pretraining_joules": None,
        "pretraining_grams_co2e": None,
    }
    return StaticEmbedding(load_file(weights)["embedding.weight"], Tokenizer.from_file(str(tokenizer)), facts)


def learn_text(name: str, values: pd.Series[Any], embedding: StaticEmbedding | None) -> dict[str, Any] | None:
    """Learn from training rows how a column of free text becomes features; None where it is none, or there is no embedding.

    The features are principal components of the texts' vectors, each of mean 0 and deviation 1 over these rows.
    """
    found = texts(values)
    present = [text for text in found if text is not None]
    few = len(present) < 8 or 2 * len(set(present)) < len(present)
    if embedding is None or few or np.mean([len(text.split()) for text in present]) < WORDS:
        return None
    vectors = embedding.vectors_of(present).astype(np.float64)
    centre = vectors.mean(axis=0)
    _, sizes, directions = np.linalg.svd(vectors - centre, full_matrices=False)
    count = int(min(FEATURES, (sizes > 1e-6 * max(sizes[0], 1e-12)).sum()))
    if count == 0:
        return None
    scales = sizes[:count] / np.sqrt(len(vectors))
    components = [[float(f"{value:.{DIGITS}g}") for value in row] for row in (directions[:count] / scales[:, None])]
    return {
        "name": name,
        "type": "text",
        "embedding": embedding.identity,
        "centre": [float(f"{value:.{DIGITS + 2}g}") for value in centre],
        "components": components,
        "missing": len(present) < len(found),
    }


def text_features(column: Mapping[str, Any], values: pd.Series[Any]) -> np.ndarray:
    """Return the features ``(n, k)`` of a column of text, and one that marks what is missing, where training saw that.

    Raises:
        ValueError: If the embedding that the features were learnt with is not installed.
    """
    embedding = find_text()
    if embedding is None or embedding.identity != column["embedding"]:
        raise ValueError(f"the column {column['name']!r} needs the embedding {column['embedding']}, which is not here; {REMEDY}")
    found = texts(values)
    missing = np.array([text is None for text in found], dtype=bool)
    vectors = embedding.vectors_of([text or "" for text in found])
    features = (vectors - np.array(column["centre"])) @ np.array(column["components"]).T
    features[missing] = 0.0
    return np.concatenate([features, missing[:, None]], axis=1) if column["missing"] else features


@dataclass(frozen=True)
class Embedded:
    """Texts whose features are in the inputs of a task, so that it can be measured what these take: they were computed as it was loaded.

    Attributes:
        texts: Those of some training rows.
        times: How many times as many all training rows have.
    """

    texts: tuple[str, ...]
    times: float

    @classmethod
    def of(cls, columns: Sequence[Mapping[str, Any]], rows: pd.DataFrame) -> Embedded | None:
        """Take the texts of training rows, from the columns that ``learn_text`` has learnt; None where it has learnt none."""
        names = [column["name"] for column in columns if column["type"] == "text"]
        some = rows.iloc[:SAMPLED]
        found = tuple(text or "" for name in names for text in texts(some[name]))
        return cls(found, len(rows) / len(some)) if found else None

    def compute(self) -> None:
        """Embed the texts again."""
        if (embedding := find_text()) is not None:
            embedding.vectors_of(self.texts)
