"""The stored model: what is asked, what is kept on disk, what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from probable import log_probability

from tamis.errors import WeightsError
from tamis.subtitles import characters, kneser_ney
from tamis.subtitles import language as tamis_language
from tamis.subtitles.language import BEGIN, END, LANGUAGES, SPACE, LanguageModel


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    lines = ["我知道你不会来", "你知道吗?", "我不知道", "他来了 我走了", "他不会知道"] * 3
    text = kneser_ney.Text.of([kneser_ney.line(line) for line in lines], [1] * len(lines), [1.0] * len(lines))
    estimated = kneser_ney.estimate(text, 4)
    return kneser_ney.finish(estimated, kneser_ney.prune(estimated, 1000))


def test_many_at_once_are_the_same_as_one_by_one(model: LanguageModel) -> None:
    history = np.stack([characters.encode(text) for text in ("我不知", "他来了", "丁我我")])
    labels = np.stack([characters.encode(text) for text in ("道来", "我丁", "知你")])
    together = model.score(history, labels)
    assert together.shape == (3, 2) and together.dtype == np.float32
    for row in range(3):
        for column in range(2):
            alone = model.score(history[row : row + 1], labels[row : row + 1, column : column + 1])
            assert alone[0, 0] == together[row, column]


def test_context_matters(model: LanguageModel) -> None:
    know = characters.encode("道")[None, :]
    assert model.score(characters.encode("知")[None, :], know)[0, 0] > np.log(0.5)
    assert model.score(characters.encode("来")[None, :], know)[0, 0] < np.log(0.1)


def test_every_class_space_and_end_have_a_probability(model: LanguageModel) -> None:
    labels = np.concatenate([np.arange(len(characters.classes())), [SPACE, END]])
    log_p = model.score(np.full((1, 3), BEGIN), labels[None, :])
    assert np.isfinite(log_p).all()
    assert log_p.max() <= 0


def test_more_or_less_history_than_needed(model: LanguageModel) -> None:
    label = characters.encode("道")[None, :]
    long, short = characters.encode("你走了我不知")[None, :], characters.encode("我不知")[None, :]
    assert model.score(long, label) == model.score(short, label)
    assert np.isfinite(model.score(np.zeros((1, 0), int), label)).all()


def test_a_line_is_the_product_of_its_characters(model: LanguageModel) -> None:
    text = characters.encode("我知")
    parts = [([BEGIN], text[0]), ([BEGIN, text[0]], text[1]), ([BEGIN, *text], END)]
    expected = sum(float(model.score(np.array([h]), np.array([[c]]))[0, 0]) for h, c in parts)
    assert log_probability(model, "我知") == pytest.approx(expected, abs=1e-5)


def test_what_is_saved_is_what_is_loaded(model: LanguageModel, tmp_path: Path) -> None:
    model.save(tmp_path / "lm.npz")
    loaded = LanguageModel.load(tmp_path / "lm.npz")
    assert loaded.alphabet == model.alphabet and loaded.order == 4
    for text in ("我知道", "你来了 走吗?", "丁"):
        assert log_probability(loaded, text) == pytest.approx(log_probability(model, text), abs=0.2)


@pytest.mark.parametrize("content", [b"", b"not a model", b"PK\x03\x04 cut short"])
def test_another_file_is_refused_in_a_sentence(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "lm.npz"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="is not a language model of Tamis"):
        LanguageModel.load(path)


def test_a_missing_file_and_foreign_arrays_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError):
        LanguageModel.load(tmp_path / "absent.npz")
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    with pytest.raises(WeightsError):
        LanguageModel.load(tmp_path / "other.npz")


SENTENCES = {
    "zh-hans": ("这就是你的第二个任务?", "这就是你的第二个任各?"),
    "zh-hant": ("我不知道他為什麼會來", "我不知道他為什麼曾來"),
    "ja": ("何を食べていますか?", "何を食ベでいますか?"),
    "ko": ("이 영화 정말 재미있어요", "이 영화 점말 재미있머요"),
}


@pytest.mark.parametrize("language", LANGUAGES)
def test_published_models_are_small_and_prefer_what_people_write(language: str) -> None:
    path = Path(tamis_language.__file__).parent / "weights" / f"lm.{language}.npz"
    assert path.stat().st_size < 5_100_000  # all weights of the reader together stay below 25 MB
    model = LanguageModel.load(path)
    arrays = (model.keys, model.log_probability, model.log_backoff)
    assert sum(array.nbytes for array in arrays) < 40_000_000
    right, wrong = SENTENCES[language]
    assert log_probability(model, right) > log_probability(model, wrong) + 5
    labels = np.concatenate([np.arange(len(characters.classes())), [SPACE, END]])[None, :]
    for history in ("", right[:3], right[3:6]):
        before = np.concatenate([np.full(3, BEGIN), characters.encode(history)])[None, :]
        # Rounded to a byte each, back-off weights leave some per cent.
        assert np.exp(model.score(before, labels).astype(float)).sum() == pytest.approx(1, abs=0.05)
