"""Columns of free text: the form of wordllama's embedding, whose package need not be installed."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from joulefront.search import Study, run
from joulefront.search.records.run_folder import RunFolder
from joulefront.search.training import text as module
from joulefront.search.training.table import prepare, table
from joulefront.search.training.text import StaticEmbedding, find_text, learn_text
from joulefront.spaces.mlp import Mlp
from joulefront.spaces.recipes import RecipeRanges

WORDS = [f"word{k}" for k in range(40)]


class Words:
    """Cuts at spaces; a word that it does not know is none."""

    def encode_batch(self, values, add_special_tokens):
        assert not add_special_tokens
        return [type("Cut", (), {"ids": [WORDS.index(word) for word in value.split() if word in WORDS]}) for value in values]


@pytest.fixture
def embedding(monkeypatch: pytest.MonkeyPatch) -> StaticEmbedding:
    vectors = torch.randn(40, 12, generator=torch.Generator().manual_seed(0))
    found = StaticEmbedding(vectors, Words(), {"model": "words", "sha256": "0f" * 32, "origin": "a test"})
    monkeypatch.setattr(module, "find_text", lambda: found)
    return found


@pytest.fixture
def frame() -> pd.DataFrame:
    """Texts whose first words tell the class."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, 120)
    said = [" ".join(WORDS[k] for k in [label, *random.integers(2, 40, 5)]) for label in labels]
    return pd.DataFrame({"said": said, "size": random.normal(size=120), "kind": np.where(labels, "yes", "no")})


def test_a_text_is_the_mean_of_the_vectors_of_its_words_and_zero_without_any(embedding: StaticEmbedding) -> None:
    vectors = torch.randn(40, 12, generator=torch.Generator().manual_seed(0)).numpy()
    said, wanted = ["word1 word2", "", "unknown word3"], [vectors[[1, 2]].mean(axis=0), np.zeros(12), vectors[3]]
    assert np.allclose(embedding.vectors_of(said), wanted, atol=1e-6)
    assert np.allclose(embedding.vectors_of(said * 100), wanted * 100, atol=1e-6)
    assert embedding.vectors_of([]).shape == (0, 12)


@pytest.mark.slow
def test_a_column_of_free_text_becomes_features_that_tell_the_class(embedding: StaticEmbedding, frame: pd.DataFrame) -> None:
    task = table(frame, "kind", text=embedding)
    (column,) = [one for one in task.preprocessing["columns"] if one["type"] == "text"]
    assert column["embedding"] == embedding.identity
    inputs, targets = task.train.arrays()
    assert inputs.shape[1] == 12 + 1
    assert np.allclose(inputs[:, :12].mean(axis=0), 0, atol=1e-3)
    assert np.allclose(inputs[:, :12].std(axis=0), 1, atol=1e-2)
    assert np.linalg.lstsq(np.c_[inputs, np.ones(len(inputs))], 2.0 * targets - 1, rcond=None)[1] < 0.8 * len(inputs)
    again = prepare(task.preprocessing, frame.drop(columns="kind"))
    assert np.allclose(
        sorted(again[:, 12]), sorted(np.concatenate([data.arrays()[0] for data in (task.train, task.validation, task.test)])[:, 12])
    )
    assert "said~0" not in table(frame, "kind").preprocessing["features"]


def test_a_task_knows_the_texts_of_its_training_rows_so_that_their_price_can_be_measured(
    embedding: StaticEmbedding, frame: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SAMPLED", 20)
    task = table(frame, "kind", text=embedding)
    assert task.embedded is not None
    assert len(task.embedded.texts) == 20
    assert task.embedded.times == len(task.train) / 20
    assert set(task.embedded.texts) < set(frame["said"])
    assert table(frame[["size", "kind"]], "kind", text=embedding).embedded is None


@pytest.mark.slow
def test_a_model_of_a_table_costs_the_features_of_its_texts_whoever_has_computed_them(
    embedding: StaticEmbedding, frame: pd.DataFrame, tmp_path: Path
) -> None:
    space = Mlp(depths=(0, 1), widths=(4, 8), recipe=RecipeRanges(learning_rate=(1e-3, 1e-1), batch_size=64))
    study = Study("texts", table(frame, "kind", text=embedding), space, rungs=(1, 2), trials=2, sampler="random")
    run(study, out=tmp_path / "r", meter="cpu_time")
    trials = RunFolder.open(tmp_path / "r").run().trials
    prices = {trial.energy.features_joules for trial in trials}
    assert len(prices) == 1, "measured once"
    assert all(0 < (trial.energy.features_joules or 0.0) < (trial.train_joules or 0.0) for trial in trials)


def test_missing_texts_are_marked_and_words_that_repeat_stay_categories(embedding: StaticEmbedding, frame: pd.DataFrame) -> None:
    frame.loc[::7, "said"] = ""
    frame["colour"] = np.where(frame.index % 2, "dark red", "light blue sky")
    task = table(frame, "kind", text=embedding)
    assert [column["type"] for column in task.preprocessing["columns"]] == ["text", "numeric", "categorical"]
    found = prepare(task.preprocessing, frame.drop(columns="kind"))
    assert (found[::7, 12] == 1).all()
    assert (found[::7, :12] == 0).all()
    assert found[1, 12] == 0


def test_few_single_words_and_texts_without_an_embedding_are_no_free_text(embedding: StaticEmbedding) -> None:
    assert learn_text("a", pd.Series(["word1 word2 word3 word4"] * 4), embedding) is None
    assert learn_text("a", pd.Series([f"word{k}" for k in range(40)]), embedding) is None
    assert learn_text("a", pd.Series([f"unknown text number {k}" for k in range(40)]), embedding) is None, "all are the same to it"
    assert learn_text("a", pd.Series([f"word{k} word2 word3" for k in range(40)]), None) is None


def test_another_embedding_than_was_learnt_with_is_refused(
    embedding: StaticEmbedding, frame: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = table(frame, "kind", text=embedding)
    monkeypatch.setattr(module, "find_text", lambda: None)
    with pytest.raises(ValueError, match=r"'said' needs the embedding words@0f.*pip install wordllama"):
        prepare(task.preprocessing, frame)


def test_the_embedding_of_wordllama_is_found_and_knows_what_is_alike() -> None:
    found = find_text()
    if found is None:
        pytest.skip("wordllama 0.4.0 is not installed (pip install wordllama)")
    assert (found.facts["licence"], found.facts["pretraining_joules"]) == ("MIT", None)
    cat, kitten, bank = (row / np.linalg.norm(row) for row in found.vectors_of(["the cat sleeps", "a kitten is asleep", "interest rates"]))
    assert cat @ kitten > cat @ bank + 0.1
