"""The estimate against a slow one written straight from Chen & Goodman (1999), section 3."""

from __future__ import annotations

from collections import Counter, defaultdict
from functools import cache

import numpy as np
import pytest
from probable import log_probability

from tamis.subtitles import characters, kneser_ney
from tamis.subtitles.kneser_ney import Text
from tamis.subtitles.language import BEGIN, END, SPACE, LanguageModel

ORDER = 4


def random_lines(number: int, seed: int = 0) -> list[str]:
    """Lines of Zipf-like text, in which every order has n-grams seen once, twice, three and four times."""
    random = np.random.default_rng(seed)
    alphabet = list(
        "我你他是的。、不了在有人这上大来和国个到说们为子中你地出道也时年得就那要下以生会自着去之过家学对可"
    )
    p = 1 / np.arange(1, len(alphabet) + 1) ** 1.3
    return [
        "".join(random.choice(alphabet, size=random.integers(1, 9), p=p / p.sum())).strip() or "我"
        for _ in range(number)
    ]


def text_of(lines: list[str], times: int = 1, weight: float = 1.0) -> Text:
    return Text.of([kneser_ney.line(line) for line in lines], [times] * len(lines), [weight] * len(lines))


def unpruned(text: Text, order: int = ORDER) -> LanguageModel:
    model = kneser_ney.estimate(text, order)
    return kneser_ney.finish(model, [np.ones(len(gram.keys), bool) for gram in model.grams])


class Reference:
    """Interpolated modified Kneser-Ney in dictionaries of tuples. "<" begins and ">" ends a line."""

    def __init__(self, lines: list[str]) -> None:
        grams: list[Counter[str]] = [Counter() for _ in range(ORDER + 2)]
        for line in lines:
            padded = "<" + line + ">"
            for n in range(1, ORDER + 1):
                grams[n].update(padded[i : i + n] for i in range(len(padded) - n + 1))
        self.counts: dict[int, dict[str, int]] = {ORDER: grams[ORDER]}
        for n in range(1, ORDER):
            left = defaultdict(set)
            for gram in grams[n + 1]:
                left[gram[1:]].add(gram[0])
            self.counts[n] = {g: grams[n][g] if g[0] == "<" else len(left[g]) for g in grams[n]}
        del self.counts[1]["<"]
        self.discounts = {n: self.discount_of(list(counts.values())) for n, counts in self.counts.items()}

    @staticmethod
    def discount_of(counts: list[int]) -> list[float]:
        n = [counts.count(i) for i in range(5)]
        if min(n[1:]) == 0:
            return [0, 0.5, 1.0, 1.5]
        y = n[1] / (n[1] + 2 * n[2])
        found = [i - (i + 1) * y * n[i + 1] / n[i] for i in (1, 2, 3)]
        return [0, *(min(max(d, 0.1), i - 0.05) for i, d in enumerate(found, start=1))]

    def probability(self, history: str, character: str) -> float:
        n = len(history) + 1
        followers = {g: c for g, c in self.counts[n].items() if g[:-1] == history}
        lower = self.probability(history[1:], character) if history else 1 / (len(characters.classes()) + 2)
        if not followers:
            return lower
        discount = self.discounts[n]
        total = sum(followers.values())
        own = followers.get(history + character, 0)
        freed = sum(discount[min(c, 3)] for c in followers.values())
        return (max(own - discount[min(own, 3)], 0) + freed * lower) / total


@cache
def everything() -> np.ndarray:
    return np.concatenate([np.arange(len(characters.classes())), [SPACE, END]])[None, :]


def after(history: str) -> np.ndarray:
    return np.concatenate([np.full(ORDER - 1, BEGIN), characters.encode(history)])[None, :]


def test_agrees_with_the_textbook() -> None:
    lines = random_lines(400)
    reference = Reference(lines)
    estimated = kneser_ney.estimate(text_of(lines), ORDER)
    names = np.array(["?", "<", ">", *estimated.alphabet[3:]], object)
    strings = names
    for n, gram in enumerate(estimated.grams, start=1):
        if n > 1:
            strings = strings[gram.context] + names[(gram.keys & np.uint64(0xFFFF)).astype(int)]
            assert set(strings) == set(reference.counts[n])
        for number in range(2, len(strings), 1 + len(strings) // 200):
            expected = reference.probability(strings[number][:-1], strings[number][-1])
            assert gram.probability[number] == pytest.approx(expected, rel=1e-9)


def test_backing_off_agrees_with_the_textbook() -> None:
    lines = random_lines(400)
    model, reference = unpruned(text_of(lines)), Reference(lines)
    # Line begins, n-grams seen and not, a class never seen. Probabilities are stored in a byte: 10 % apart at most.
    for history, character in (
        ("<", "我"),
        ("<我", "你"),
        ("我你他", "是"),
        ("的家可", "我"),
        ("我是", "丁"),
        ("学学学", ">"),
    ):
        padded = history.replace("<", "")
        label = END if character == ">" else int(characters.encode(character)[0])
        log_p = float(model.score(after(padded)[:, -3:], np.array([[label]]))[0, 0])
        expected = reference.probability(("<" + padded)[-3:], character)
        assert log_p == pytest.approx(np.log(expected), abs=0.1)


def test_weights_do_not_change_the_model_when_all_are_equal() -> None:
    lines = random_lines(200)
    one, three = (kneser_ney.estimate(text_of(lines, weight=w), 3) for w in (1.0, 3.0))
    for a, b in zip(one.grams, three.grams, strict=True):
        assert a.probability == pytest.approx(b.probability, rel=1e-5)


def test_a_heavier_source_counts_for_more() -> None:
    light, heavy = text_of(["我是谁"] * 5, weight=0.1), text_of(["我是你"] * 5)
    model = unpruned(Text.join([light, heavy]))
    assert log_probability(model, "我是你") > log_probability(model, "我是谁") + 1


def test_fragments_teach_words_but_no_line_ends() -> None:
    word = Text.of([characters.encode("朋友")], [3], [1.0])
    with_word = unpruned(Text.join([text_of(random_lines(100)), word]))
    without = unpruned(text_of(random_lines(100)))
    friend = characters.encode("朋友")[None, :]
    assert (
        with_word.score(friend[:, :1], friend[:, 1:])[0, 0]
        > without.score(friend[:, :1], friend[:, 1:])[0, 0] + 2
    )
    end = np.array([[END]])
    assert with_word.score(friend, end)[0, 0] < np.log(0.5)


def test_pruning_keeps_the_number_asked_for_and_most_of_the_quality() -> None:
    lines, fresh = random_lines(1500), text_of(random_lines(300, seed=1))
    model = kneser_ney.estimate(text_of(lines), ORDER)
    all_of_them = sum(len(gram.keys) for gram in model.grams[1:])
    pruned = kneser_ney.finish(model, kneser_ney.prune(model, all_of_them // 10))
    kept = len(pruned.keys)
    assert 0.8 * all_of_them / 10 < kept <= all_of_them // 10
    full = kneser_ney.perplexity(unpruned(text_of(lines)), fresh)
    assert kneser_ney.perplexity(pruned, fresh) < 1.1 * full
    for history in ("", "我", "你他"):
        assert np.exp(pruned.score(after(history), everything()).astype(float)).sum() == pytest.approx(
            1, abs=1e-5
        )


def test_sums_to_one_over_the_vocabulary() -> None:
    model = unpruned(text_of(random_lines(100)))
    for history in ("", "我", "你他", "是的。", "丁我", "  "):
        assert np.exp(model.score(after(history), everything()).astype(float)).sum() == pytest.approx(
            1, abs=1e-5
        )
