"""Estimate a character n-gram model: interpolated modified Kneser-Ney, entropy pruning, storage.

Chen & Goodman, An empirical study of smoothing techniques for language modeling (1999), section 3 (three discounts) and
equation 17; Stolcke, Entropy-based pruning of backoff language models (1998), equations 6 to 8. With one change: text
comes with weights, so that a narrow source counts for less. Discounts are estimated from the plain counts, and an n-gram
seen n times keeps the fraction 1 - D(n) / n of its weight. With all weights 1 this is the textbook's model exactly.

Besides lines, a training text may hold fragments (words out of a frequency list) that have no begin and no end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from tamis.subtitles import characters
from tamis.subtitles.language import (
    BEGIN,
    BEGIN_SYMBOL,
    END,
    SPACE,
    SPECIAL_SYMBOLS,
    SYMBOL_BITS,
    UNKNOWN_SYMBOL,
    LanguageModel,
    probability_bytes,
    probability_logs,
)

Float = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Text:
    """Training text: pieces one after the other.

    labels  [t] int32 class numbers, SPACE, BEGIN, END; a piece with BEGIN and END is a line, one without is a fragment
    piece   [t] int32, number of the piece, non-decreasing
    times   [t] int32, how often the piece was seen
    weight  [t] float32, what each time counts
    """

    labels: NDArray[np.int32]
    piece: NDArray[np.int32]
    times: NDArray[np.int32]
    weight: NDArray[np.float32]

    @staticmethod
    def of(pieces: Sequence[NDArray[np.int32]], times: Sequence[int], weights: Sequence[float]) -> Text:
        """From separate pieces, each [length] labels."""
        lengths = [len(piece) for piece in pieces]
        return Text(
            labels=np.concatenate([*pieces, np.zeros(0, np.int32)]).astype(np.int32),
            piece=np.repeat(np.arange(len(pieces), dtype=np.int32), lengths),
            times=np.repeat(np.asarray(times, np.int32), lengths),
            weight=np.repeat(np.asarray(weights, np.float32), lengths),
        )

    @staticmethod
    def join(texts: Sequence[Text]) -> Text:
        """One text out of several."""
        first = np.cumsum([0] + [int(text.piece[-1]) + 1 if len(text.piece) else 0 for text in texts])
        return Text(
            labels=np.concatenate([text.labels for text in texts]),
            piece=np.concatenate(
                [text.piece + number for text, number in zip(texts, first, strict=False)]
            ).astype(np.int32),
            times=np.concatenate([text.times for text in texts]),
            weight=np.concatenate([text.weight for text in texts]),
        )


def line(text: str) -> NDArray[np.int32]:
    """Labels of one line, [length + 2]: BEGIN, its characters, END."""
    return np.concatenate([[BEGIN], characters.encode(text), [END]]).astype(np.int32)


@dataclass(slots=True)
class Grams:
    """All n-grams of one order. Order 1 has one row per symbol; others are sorted by key (see `language.LanguageModel`).

    context, suffix  [g] int64, number of the n-gram without its last, and without its first symbol, one order below
    mass             [g] float64, weighted number of occurrences
    probability      [g] float64, P(last | rest), interpolated
    """

    keys: NDArray[np.uint64]
    context: NDArray[np.int64]
    suffix: NDArray[np.int64]
    mass: Float
    probability: Float


@dataclass(slots=True)
class Estimate:
    """The unpruned model: its alphabet, the floor (P of one unseen class) and the n-grams of orders 1, 2, ..."""

    alphabet: str
    floor: float
    grams: list[Grams]


def estimate(text: Text, order: int) -> Estimate:
    """Interpolated modified Kneser-Ney of this order over all classes, SPACE and END."""
    alphabet, symbols = _alphabet(text)
    grams, occurrences = _count(symbols, text, order, len(alphabet))
    counts, masses = _adjusted(grams, occurrences)
    floor = 0.0
    for n in range(order):
        contexts = 1 if n == 0 else len(grams[n - 1].keys)
        kept, backoff = _discount(counts[n], masses[n], grams[n].context, contexts)
        if n == 0:
            # The unigrams fall back on the uniform distribution over everything that can be predicted.
            floor = float(backoff[0]) / (len(characters.classes()) + 2)
            grams[n].probability = kept + floor
        else:
            lower = grams[n - 1].probability[grams[n].suffix]
            grams[n].probability = kept + backoff[grams[n].context] * lower
    grams[0].probability[BEGIN_SYMBOL] = 0.0
    grams[0].probability[UNKNOWN_SYMBOL] = floor
    return Estimate(alphabet, floor, grams)


def _alphabet(text: Text) -> tuple[str, NDArray[np.int64]]:
    """The characters seen, most frequent first behind the special symbols, and the text in its symbols [t]."""
    names = characters.classes()
    seen = np.bincount(text.labels[text.labels >= 0], minlength=len(names))
    order = np.argsort(-seen, kind="stable")
    order = order[seen[order] > 0]
    alphabet = SPECIAL_SYMBOLS + "".join(names[label] for label in order)
    symbol = np.zeros(len(names) + 4, np.int64)
    symbol[order] = np.arange(len(order)) + len(SPECIAL_SYMBOLS)
    symbol[SPACE], symbol[END], symbol[BEGIN] = 3, 2, 1
    return alphabet, symbol[text.labels]


@dataclass(frozen=True, slots=True)
class Occurrences:
    """Of the n-grams of one order: times seen; times seen with nothing to their left, and the weight of those, [g]."""

    times: Float
    first_times: Float
    first_mass: Float


def _count(
    symbols: NDArray[np.int64], text: Text, order: int, size: int
) -> tuple[list[Grams], list[Occurrences]]:
    """The n-grams of each order, with their mass, and how they occur."""
    numbers = np.arange(size, dtype=np.uint64)
    gram = Grams(numbers, np.zeros(size, np.int64), np.zeros(size, np.int64), np.zeros(0), np.zeros(0))
    at = symbols  # number of the n-gram that starts at each place; -1 where the piece is too short
    grams: list[Grams] = []
    occurrences: list[Occurrences] = []
    begins = np.diff(text.piece, prepend=-1).astype(bool)
    times, weight = text.times.astype(float), text.times * text.weight.astype(float)
    for n in range(1, order + 1):
        if n > 1:
            at, gram = _extend(symbols, text.piece, at, n)
        inside, first, total = at >= 0, (at >= 0) & begins, len(gram.keys)
        gram.mass = _sums(at[inside], weight[inside], total)
        grams.append(gram)
        occurrences.append(
            Occurrences(
                _sums(at[inside], times[inside], total),
                _sums(at[first], times[first], total),
                _sums(at[first], weight[first], total),
            )
        )
    return grams, occurrences


def _adjusted(grams: Sequence[Grams], occurrences: Sequence[Occurrences]) -> tuple[list[Float], list[Float]]:
    """Counts for the discounts and weighted counts of each order (Chen & Goodman, equation 17).

    Below the highest order a count is the number of different symbols to the left (of kinds, not of occurrences);
    occurrences that have nothing to their left, at the begin of a piece, count themselves.
    """
    counts, masses = [occurrences[-1].times], [grams[-1].mass]
    for n in range(len(grams) - 2, -1, -1):
        longer, own, size = grams[n + 1], occurrences[n], len(grams[n].keys)
        mean_weight = longer.mass / occurrences[n + 1].times
        counts.insert(0, np.bincount(longer.suffix, minlength=size) + own.first_times)
        masses.insert(0, _sums(longer.suffix, mean_weight, size) + own.first_mass)
    counts[0][BEGIN_SYMBOL] = masses[0][BEGIN_SYMBOL] = 0  # never predicted
    return counts, masses


def _sums(number: NDArray[np.int64], values: Float, size: int) -> Float:
    """Sum of the values that have each number, [size]."""
    return np.bincount(number, weights=values, minlength=size).astype(np.float64)


def _extend(
    symbols: NDArray[np.int64], piece: NDArray[np.int32], at: NDArray[np.int64], n: int
) -> tuple[NDArray[np.int64], Grams]:
    """From the numbers of (n-1)-grams at each place to those of n-grams, and the n-grams themselves."""
    place = np.flatnonzero(piece[: len(piece) - n + 1] == piece[n - 1 :])
    key = at[place].astype(np.uint64) << np.uint64(SYMBOL_BITS) | symbols[place + n - 1].astype(np.uint64)
    keys, inverse = np.unique(key, return_inverse=True)
    suffix = np.zeros(len(keys), np.int64)
    suffix[inverse] = at[place + 1]
    extended = np.full(len(symbols), -1, np.int64)
    extended[place] = inverse
    context = (keys >> np.uint64(SYMBOL_BITS)).astype(np.int64)
    return extended, Grams(keys, context, suffix, np.zeros(0), np.zeros(0))


def _discount(count: Float, mass: Float, context: NDArray[np.int64], contexts: int) -> tuple[Float, Float]:
    """(discounted relative frequency [g], back-off weight of each context [contexts])."""
    fraction = discounts(count)[np.minimum(count, 3).astype(int)] / np.maximum(count, 1)
    total = _sums(context, mass, contexts)
    freed = _sums(context, mass * fraction, contexts)
    total[total == 0] = np.inf
    return mass * (1 - fraction) / total[context], freed / total


def discounts(count: Float) -> Float:
    """Discounts for counts 0, 1, 2, 3 or more (Chen & Goodman, equation 26).

    A text too small to have counts of 1 to 4 gets 1/2, 1 and 3/2.
    """
    ones, twos, threes, fours = (float((count == n).sum()) for n in (1, 2, 3, 4))
    if min(ones, twos, threes, fours) == 0:
        return np.array([0.0, 0.5, 1.0, 1.5])
    y = ones / (ones + 2 * twos)
    found = [0.0, 1 - 2 * y * twos / ones, 2 - 3 * y * threes / twos, 3 - 4 * y * fours / threes]
    return np.clip(found, [0, 0.1, 0.1, 0.1], [0, 0.95, 1.95, 2.95])


def prune(model: Estimate, keep: int) -> list[NDArray[np.bool_]]:
    """Which n-grams of each order to keep: all of order 1, and of the others those whose going would cost the most.

    The cost is relative entropy; an n-gram that is the context of a longer one costs at least as much as that one.
    """
    costs = [np.full(len(model.grams[0].keys), np.inf)]
    total = model.grams[0].mass.sum()
    for below, gram in pairwise(model.grams):
        # The probability of a context is its share of the text: the lower orders of Kneser-Ney are no marginals.
        costs.append(
            _cost(gram.probability, below.probability[gram.suffix], gram.context, below.mass / total)
        )
    for n in range(len(costs) - 1, 1, -1):
        np.maximum.at(costs[n - 1], model.grams[n].context, costs[n])
    everything = np.concatenate([*costs[1:], np.zeros(0)])
    if len(everything) <= keep:
        return [np.ones(len(cost), bool) for cost in costs]
    least = np.partition(everything, -keep - 1)[-keep - 1]
    return [cost > least for cost in costs]


def _cost(
    p: Float,
    p_lower: Float,
    context: NDArray[np.int64],
    p_context: Float,
) -> Float:
    """Relative entropy between the models with and without each n-gram (Stolcke, equations 6 and 7)."""
    left = np.maximum(1 - _sums(context, p, len(p_context)), 1e-9)[context]
    left_lower = np.maximum(1 - _sums(context, p_lower, len(p_context)), 1e-9)[context]
    log_backoff = np.log(left / left_lower)
    log_backoff_without = np.log((left + p) / (left_lower + p_lower))
    change: Float = p * (np.log(p_lower) + log_backoff_without - np.log(p))
    change += left * (log_backoff_without - log_backoff)
    return -p_context[context] * change


def finish(model: Estimate, marks: Sequence[NDArray[np.bool_]]) -> LanguageModel:
    """The kept n-grams as a back-off model, probabilities rounded as stored, back-off weights made to fit them."""
    size = len(model.alphabet)
    with np.errstate(divide="ignore"):
        log_p = np.log(model.grams[0].probability).clip(min=-60).astype(np.float32)
    built = LanguageModel(model.alphabet, np.zeros(0, np.uint64), log_p, np.zeros(size, np.float32), 1)
    node = np.arange(size)  # node of each kept n-gram one order below
    words = np.arange(size)[:, None]  # symbols of each kept n-gram one order below
    for n in range(1, len(model.grams)):
        gram, mark = model.grams[n], marks[n]
        symbol = (gram.keys[mark] & np.uint64((1 << SYMBOL_BITS) - 1)).astype(np.int64)
        row = (np.cumsum(marks[n - 1]) - 1)[gram.context[mark]]
        words = np.column_stack([words[row], symbol])
        log_p = probability_logs(probability_bytes(np.log(gram.probability[mark])))
        built = _with_order(built, node[row], words, log_p)
        node = built.absent - len(words) + np.arange(len(words))
    return built


def _with_order(
    lower: LanguageModel, context: NDArray[np.int64], words: NDArray[np.int64], log_p: NDArray[np.float32]
) -> LanguageModel:
    """One order more: n-grams of symbols `words` [g, n] at nodes `context`, and back-off weights that fit them.

    The weight of a context is what its n-grams leave over, as a share of what they leave over one order below.
    """
    p_lower = np.exp(lower.score_symbols(words[:, 1:-1], words[:, -1:])[:, 0].astype(float))
    left = np.maximum(1 - np.bincount(context, np.exp(log_p.astype(float)), lower.absent), 1e-4)
    left_lower = np.maximum(1 - _sums(context, p_lower, lower.absent), 1e-4)
    return LanguageModel(
        lower.alphabet,
        np.concatenate(
            [lower.keys, context.astype(np.uint64) << np.uint64(SYMBOL_BITS) | words[:, -1].astype(np.uint64)]
        ),
        np.concatenate([lower.log_probability[:-1], log_p]),
        np.concatenate([lower.log_backoff[:-1] + np.log(left / left_lower), np.zeros(len(log_p))]).astype(
            np.float32
        ),
        lower.order + 1,
    )


def perplexity(model: LanguageModel, text: Text) -> float:
    """exp of the mean of -log P over every character, space and end of the lines of a text."""
    order = model.order
    padded = np.concatenate([np.full(order - 1, BEGIN, np.int32), text.labels])
    windows = np.lib.stride_tricks.sliding_window_view(padded, order)
    predicted = np.flatnonzero(text.labels != BEGIN)
    # What lies before the BEGIN of a line belongs to another: it makes no difference, as no kept n-gram spans a BEGIN.
    total = 0.0
    for some in np.array_split(predicted, max(1, len(predicted) // 200_000)):
        total += float(model.score(windows[some, :-1], windows[some, -1:]).astype(float).sum())
    return float(np.exp(-total / len(predicted)))
