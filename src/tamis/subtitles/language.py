"""Character n-gram language model: P(next character | the characters before it), for one language.

An interpolated modified Kneser-Ney model (Chen & Goodman 1999, section 3), stored as a back-off model (Katz 1987):
an n-gram that was kept carries its probability, any other gets the back-off weight of its context times the probability
under a context one shorter. N-grams are kept as a trie in sorted arrays: the children of one context lie together,
sorted by symbol, so that a look-up of many at once is one `searchsorted` per order.

The model has an alphabet of its own (the characters that its training text had, commonest first), and is asked in class
numbers of `characters.classes()`. Every class has a probability above zero: those never seen share a uniform floor.
`kneser_ney` makes such models.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from tamis.errors import WeightsError
from tamis.subtitles import characters

LANGUAGES = ("zh-hans", "zh-hant", "ja", "ko")

# Labels beside the class numbers 0, 1, ...; -1 and -2 as `characters.encode` gives them.
SPACE, UNKNOWN, END, BEGIN = -1, -2, -3, -4

# Symbols of a model's alphabet: the first four are these, the characters follow.
UNKNOWN_SYMBOL, BEGIN_SYMBOL, END_SYMBOL, SPACE_SYMBOL = range(4)
SPECIAL_SYMBOLS = "\x00\x02\x03 "
SYMBOL_BITS = 16

# One byte each. A probability is stored as the root of -log P: fine near 1, where rounding would eat what is left for
# the others (0.01 nat), and coarse where it is harmless (0.06 nat at P = 0.003). A back-off weight may exceed 1.
ROOT_STEP = 1 / 40
BACKOFF_STEP = 1 / 16
BACKOFF_ZERO = 64  # the byte that stands for a back-off weight of 1


@dataclass(frozen=True, slots=True)
class Level:
    """All n-grams of one order n >= 2, sorted by key.

    keys             [g] uint64: number of the context (an (n-1)-gram) in the level below, shifted by 16 bits, plus the symbol
    log_probability  [g] float32, natural logarithm
    log_backoff      [g] float32, of the n-gram as a context of order n + 1; 0 where it is none
    """

    keys: NDArray[np.uint64]
    log_probability: NDArray[np.float32]
    log_backoff: NDArray[np.float32]

    def find(self, contexts: NDArray[np.int64], symbols: NDArray[np.int64]) -> NDArray[np.int64]:
        """Number of each n-gram (context, symbol), any shape; -1 where the context is -1 or the n-gram is not kept."""
        if len(self.keys) == 0:
            return np.full(np.broadcast(contexts, symbols).shape, -1, np.int64)
        wanted = ((contexts << SYMBOL_BITS) | symbols).astype(np.uint64)
        place = np.searchsorted(self.keys, wanted)
        np.minimum(place, len(self.keys) - 1, out=place)
        return np.where((self.keys[place] == wanted) & (contexts >= 0), place, -1)


class LanguageModel:
    """P(character | characters before it). Immutable; `score` is safe to call from several threads."""

    def __init__(
        self,
        alphabet: str,
        log_unigram: NDArray[np.float32],
        log_backoff: NDArray[np.float32],
        levels: tuple[Level, ...],
    ) -> None:
        """From tables.

        alphabet     the symbols, beginning with `SPECIAL_SYMBOLS`
        log_unigram  [len(alphabet)]; that of the unknown symbol is the floor, the probability of ONE unseen class
        log_backoff  [len(alphabet)] of each symbol as a context
        levels       orders 2, 3, ...
        """
        self.alphabet = alphabet
        self.log_unigram = log_unigram
        self.log_backoff = log_backoff
        self.levels = levels
        self._symbols = _symbols_of_labels(alphabet)

    @property
    def order(self) -> int:
        """Length of the longest n-grams."""
        return len(self.levels) + 1

    def score(self, history: NDArray[np.integer], labels: NDArray[np.integer]) -> NDArray[np.float32]:
        """log P(label | history), natural logarithm, [m, k].

        history  [m, any] labels before, the nearest last; `BEGIN` before the first. More than order - 1 are ignored.
        labels   [m, k] class numbers, `SPACE` or `END`
        """
        return self.score_symbols(self._symbols[history], self._symbols[labels])

    def score_symbols(self, before: NDArray[np.int64], symbols: NDArray[np.int64]) -> NDArray[np.float32]:
        """`score`, of symbols of the alphabet instead of labels."""
        log_p = self.log_unigram[symbols]
        for length in range(1, min(self.order - 1, before.shape[1]) + 1):
            context = self._context(before[:, -length:])
            if not (context >= 0).any():
                continue
            log_p = log_p + np.where(context >= 0, self._backoff(length)[context], np.float32(0))[:, None]
            level = self.levels[length - 1]
            found = level.find(context[:, None], symbols)
            log_p = np.where(found >= 0, level.log_probability[found], log_p)
        return log_p.astype(np.float32, copy=False)

    def _context(self, symbols: NDArray[np.int64]) -> NDArray[np.int64]:
        """Number of the n-gram symbols[i] in the level of its length, [m]; -1 where it is not kept."""
        context = symbols[:, 0]
        for position in range(1, symbols.shape[1]):
            context = self.levels[position - 1].find(context, symbols[:, position])
        return context

    def _backoff(self, length: int) -> NDArray[np.float32]:
        return self.log_backoff if length == 1 else self.levels[length - 2].log_backoff

    def log_probability(self, text: str) -> float:
        """log P(the whole line, with its end), natural logarithm. `text` is folded first."""
        encoded = characters.encode(text)
        line = np.concatenate([np.full(self.order - 1, BEGIN), encoded, [END]])
        windows = np.lib.stride_tricks.sliding_window_view(line, self.order)
        return float(self.score(windows[:, :-1], windows[:, -1:]).sum())

    def save(self, path: Path) -> None:
        """Write the tables as an .npz without pickled objects, logarithms rounded to a byte each."""
        tables: dict[str, NDArray[np.generic]] = {
            "alphabet": np.frombuffer(self.alphabet.encode(), np.uint8),
            "unigram": np.asarray(self.log_unigram, np.float16),
            "backoff_1": _backoff_bytes(self.log_backoff),
            "order": np.array(self.order, np.uint8),
        }
        contexts = len(self.alphabet)
        for order, level in enumerate(self.levels, start=2):
            symbol = (level.keys & np.uint64((1 << SYMBOL_BITS) - 1)).astype(np.uint16)
            children = np.bincount((level.keys >> np.uint64(SYMBOL_BITS)).astype(np.int64), minlength=contexts)
            # High and low bytes apart: symbols are numbered by frequency, so the high bytes are nearly all 0.
            tables[f"symbol_low_{order}"] = (symbol & 0xFF).astype(np.uint8)
            tables[f"symbol_high_{order}"] = (symbol >> 8).astype(np.uint8)
            tables[f"children_{order}"] = children.astype(np.uint16)
            tables[f"probability_{order}"] = probability_bytes(level.log_probability)
            if order < self.order:
                tables[f"backoff_{order}"] = _backoff_bytes(level.log_backoff)
            contexts = len(level.keys)
        with path.open("wb") as file:
            np.savez_compressed(file, **tables)  # type: ignore[arg-type]

    @classmethod
    def load(cls, path: Path) -> LanguageModel:
        """Read what `save` wrote. Raises `WeightsError` for anything else."""
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as tables:
                return cls._from_tables(dict(tables))
        except (OSError, ValueError, KeyError, EOFError, BadZipFile, zlib.error) as error:
            raise WeightsError(
                f"{path} is not a language model of Tamis ({error}); reinstall Tamis or make it with runs/subtitles_language.sh."
            ) from error

    @classmethod
    def _from_tables(cls, tables: Mapping[str, NDArray[np.generic]]) -> LanguageModel:
        alphabet = tables["alphabet"].tobytes().decode()
        if not alphabet.startswith(SPECIAL_SYMBOLS):
            raise ValueError("its alphabet does not begin with the special symbols")
        levels = []
        order = int(tables["order"])
        for n in range(2, order + 1):
            children = tables[f"children_{n}"].astype(np.int64)
            symbol = tables[f"symbol_low_{n}"].astype(np.uint64) | tables[f"symbol_high_{n}"].astype(np.uint64) << np.uint64(8)
            context = np.repeat(np.arange(len(children), dtype=np.uint64), children)
            log_probability = probability_logs(tables[f"probability_{n}"])
            log_backoff = _backoff_logs(tables[f"backoff_{n}"]) if n < order else np.zeros(0, np.float32)
            levels.append(Level(context << np.uint64(SYMBOL_BITS) | symbol, log_probability, log_backoff))
        return cls(alphabet, tables["unigram"].astype(np.float32), _backoff_logs(tables["backoff_1"]), tuple(levels))


def _symbols_of_labels(alphabet: str) -> NDArray[np.int64]:
    """Symbol of every label; the four special labels are negative and so index from the end."""
    number = {character: symbol for symbol, character in enumerate(alphabet)}
    ordinary = [number.get(character, UNKNOWN_SYMBOL) for character in characters.classes()]
    special = {SPACE: SPACE_SYMBOL, UNKNOWN: UNKNOWN_SYMBOL, END: END_SYMBOL, BEGIN: BEGIN_SYMBOL}
    return np.array(ordinary + [special[label] for label in range(-len(special), 0)], dtype=np.int64)


def probability_bytes(log_probability: NDArray[np.floating]) -> NDArray[np.uint8]:
    """As stored. The inverse of `probability_logs`, but for the rounding."""
    return np.round(np.sqrt(-np.minimum(log_probability, 0)) / ROOT_STEP).clip(0, 255).astype(np.uint8)


def probability_logs(stored: NDArray[np.generic]) -> NDArray[np.float32]:
    """log P of stored bytes."""
    return -np.square(stored.astype(np.float32) * np.float32(ROOT_STEP))


def _backoff_bytes(log_backoff: NDArray[np.float32]) -> NDArray[np.uint8]:
    return np.round(BACKOFF_ZERO - log_backoff / BACKOFF_STEP).clip(0, 255).astype(np.uint8)


def _backoff_logs(stored: NDArray[np.generic]) -> NDArray[np.float32]:
    return (BACKOFF_ZERO - stored.astype(np.float32)) * np.float32(BACKOFF_STEP)
