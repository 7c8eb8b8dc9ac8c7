"""python -m pytest tests/spark/test_tokens.py"""

from __future__ import annotations

import lzma
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tokenizers", reason="needs the extra: pip install tamis[spark]")

from tamis.errors import InputError
from tamis.spark.tokens import (
    END,
    open_tokens,
    prepare,
    read_documents,
    read_splits,
    split_of,
    train_tokenizer,
    windows,
)

TEXTS = [f"Document {i} speaks of sieves.\nIt has {i * i} holes, näive ones.\n" for i in range(400)]


def corpus(folder: Path) -> Path:
    path = folder / "corpus.txt.xz"
    with lzma.open(path, "wt", encoding="utf-8") as file:
        file.write("\n\n".join(TEXTS))
    return path


def test_blank_lines_part_documents(tmp_path: Path) -> None:
    assert list(read_documents(corpus(tmp_path))) == TEXTS


def test_every_document_lies_whole_in_one_split_and_reads_back(tmp_path: Path) -> None:
    tokenizer = train_tokenizer(TEXTS, 300)
    splits = prepare([corpus(tmp_path)], tmp_path, tokenizer)
    assert splits == read_splits(tmp_path)
    end = tokenizer.token_to_id(END)
    found = []
    for name in ("train", "dev", "test"):
        tokens = open_tokens(tmp_path, name)
        documents = np.split(tokens, np.flatnonzero(tokens == end) + 1)[:-1]
        texts = [tokenizer.decode(document[:-1].tolist()) for document in documents]
        assert all(split_of(text) == name for text in texts)
        assert sum(len(text.encode()) for text in texts) == splits[name].bytes
        found += texts
    assert sorted(found) == sorted(TEXTS)
    assert splits["dev"].documents and splits["test"].documents


def test_windows_depend_on_the_seed_alone(tmp_path: Path) -> None:
    tokens = np.arange(1000)
    first = windows(tokens, 16, 4, (1, 7))
    assert np.array_equal(first, windows(tokens, 16, 4, (1, 7)))
    assert not np.array_equal(first, windows(tokens, 16, 4, (1, 8)))
    assert (np.diff(first, axis=1) == 1).all() and first.shape == (4, 17)


def test_bad_text_is_told_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    (tmp_path / "cut.xz").write_bytes(corpus(tmp_path).read_bytes()[:-20])
    for name, words in (("latin.txt", "no UTF-8"), ("cut.xz", "damaged"), ("none.txt", "does not exist")):
        with pytest.raises(InputError, match=words):
            list(read_documents(tmp_path / name))
    with pytest.raises(InputError, match="too small"):
        train_tokenizer(TEXTS, 100)
    with pytest.raises(InputError, match="shorter --context"):
        windows(np.arange(10), 16, 1, (0,))


def test_a_truncated_token_file_is_noticed(tmp_path: Path) -> None:
    prepare([corpus(tmp_path)], tmp_path, train_tokenizer(TEXTS, 300))
    path = tmp_path / "train.tokens"
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(InputError, match=r"tokens\.json says"):
        open_tokens(tmp_path, "train")
