"""Character n-gram language model: P(next character | the characters before it), for one language.

An interpolated modified Kneser-Ney model (Chen & Goodman 1999, section 3), stored as a back-off model (Katz 1987):
an n-gram that was kept carries its probability, any other gets the back-off weight of its context times the probability
under a context one shorter. N-grams are kept as a trie in one sorted array, so that a look-up of many n-grams of all orders
at once is one `searchsorted`.

The model has an alphabet of its own (the characters that its training text had, commonest first), and is asked in class
numbers of `characters.classes()`. Every class has a probability above zero: those never seen share a uniform floor.
`kneser_ney` makes such models.
"""

from __future__ import annotations

import io
import sys
import zlib
from collections.abc import Mapping
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

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


class LanguageModel:
    """P(character | characters before it). Immutable; safe to use from several threads.

    The trie's nodes are numbered: first the symbols of the alphabet (n-grams of order 1), then all n-grams of order 2,
    then 3, ..., each order sorted by key. The key of an n-gram is the number of its context (the node of all but its last
    symbol) times 2^16 plus its last symbol; so one array holds the keys of all orders in ascending order.
    """

    def __init__(
        self,
        alphabet: str,
        keys: NDArray[np.uint64],
        log_probability: NDArray[np.float32],
        log_backoff: NDArray[np.float32],
        order: int,
    ) -> None:
        """From tables.

        alphabet         the symbols, beginning with `SPECIAL_SYMBOLS`
        keys             [nodes - symbols] uint64, ascending
        log_probability  [nodes] natural logarithm; of the unknown symbol: the floor, the probability of ONE unseen class
        log_backoff      [nodes] of each node as a context; 0 where it is none
        """
        self.alphabet = alphabet
        self.order = order
        end = np.append(keys, np.uint64(2**64 - 1))  # so that every place has a key
        self._adopt(
            alphabet,
            end,
            np.append(log_probability, np.float32(0)),
            np.append(log_backoff, np.float32(0)),
            order,
        )

    def _adopt(
        self,
        alphabet: str,
        keys_and_end: NDArray[np.uint64],
        log_probability: NDArray[np.float32],
        log_backoff: NDArray[np.float32],
        order: int,
    ) -> None:
        """Takes tables with one entry more. The last node is that of every n-gram which was not kept: it has no children,
        and backs off for nothing."""
        self.alphabet = alphabet
        self.order = order
        self.absent = len(log_probability) - 1
        self.log_probability, self.log_backoff = log_probability, log_backoff
        self._keys_and_end = keys_and_end
        self.keys = keys_and_end[:-1]
        self._symbols: NDArray[np.int64] = _symbols_of_labels(alphabet)

    def symbols(self, labels: NDArray[np.integer]) -> NDArray[np.int64]:
        """Symbols of the alphabet for labels, any shape."""
        symbols: NDArray[np.int64] = self._symbols[labels]
        return symbols

    def begin(self) -> NDArray[np.int64]:
        """The contexts at the begin of a line, [1, order - 1]: see `extend`."""
        contexts = np.full((1, self.order - 1), self.absent)
        contexts[:, :1] = BEGIN_SYMBOL
        return contexts

    def extend(
        self, contexts: NDArray[np.int64], symbols: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """log P(symbol | context) [m, k], and the contexts behind it [m, k, order - 1].

        contexts  [m, order - 1] node of the last 1, 2, ... symbols, `absent` where it was not kept
        symbols   [m, k] or [1, k]
        """
        shape = (len(contexts), symbols.shape[1], self.order)
        nodes = np.empty(shape, np.int64)  # node of the last 1, 2, ..., order symbols
        nodes[:, :, 0] = symbols
        if self.order > 1:
            wanted = ((contexts[:, None, :] << SYMBOL_BITS) | symbols[:, :, None]).astype(np.uint64)
            place = np.searchsorted(self.keys, wanted)
            nodes[:, :, 1:] = np.where(
                self._keys_and_end[place] == wanted, place + len(self.alphabet), self.absent
            )
        log_p = self.log_probability[nodes[:, :, 0]]
        backoff = self.log_backoff[contexts]
        for length in range(1, self.order):
            node = nodes[:, :, length]
            log_p = np.where(
                node == self.absent, log_p + backoff[:, length - 1, None], self.log_probability[node]
            )
        return log_p, nodes[:, :, :-1]

    def score(self, history: NDArray[np.integer], labels: NDArray[np.integer]) -> NDArray[np.float32]:
        """log P(label | history), natural logarithm, [m, k].

        history  [m, any] labels before, the nearest last; `BEGIN` before the first. More than order - 1 are ignored.
        labels   [m, k] class numbers, `SPACE` or `END`
        """
        return self.score_symbols(self._symbols[history], self._symbols[labels])

    def score_symbols(self, before: NDArray[np.int64], symbols: NDArray[np.int64]) -> NDArray[np.float32]:
        """`score`, of symbols instead of labels."""
        contexts = np.full((len(before), self.order - 1), self.absent)
        for symbol in before[:, max(0, before.shape[1] - self.order + 1) :].T:
            contexts = self.extend(contexts, symbol[:, None])[1][:, 0]
        return self.extend(contexts, symbols)[0]

    def save(self, path: Path) -> None:
        """Write the tables as an .npz without pickled objects, logarithms rounded to a byte each."""
        symbol = (self.keys & np.uint64((1 << SYMBOL_BITS) - 1)).astype(np.uint16)
        children = np.bincount((self.keys >> np.uint64(SYMBOL_BITS)).astype(np.int64), minlength=self.absent)
        contexts = int(np.flatnonzero(children).max(initial=0)) + 1
        size = len(self.alphabet)
        tables: dict[str, NDArray[np.generic]] = {
            "order": np.array(self.order, np.uint8),
            "alphabet": np.frombuffer(self.alphabet.encode(), np.uint8),
            "unigram": self.log_probability[:size].astype(np.float16),
            # Per node that has children: how many, and its back-off weight.
            "children": children[:contexts].astype(np.uint16),
            "backoff": _backoff_bytes(self.log_backoff[:contexts]),
            # Per n-gram above order 1. High and low bytes apart: symbols are numbered by frequency, most are low.
            "symbol_low": (symbol & 0xFF).astype(np.uint8),
            "symbol_high": (symbol >> 8).astype(np.uint8),
            "probability": probability_bytes(self.log_probability[size:-1]),
        }
        with ZipFile(path, "w") as archive:
            for name, table in tables.items():
                # What hardly shrinks is not packed: unpacking it would take longer than all the rest of loading.
                packing = ZIP_STORED if name in ("symbol_low", "probability") else ZIP_DEFLATED
                with archive.open(_entry(f"{name}.npy", packing), "w") as file:
                    np.lib.format.write_array(file, table, allow_pickle=False)

    @classmethod
    def load(cls, path: Path) -> LanguageModel:
        """Read what `save` wrote. Raises `WeightsError` for anything else."""
        try:
            return cls.loads(path.read_bytes(), path)
        except OSError as error:
            raise WeightsError(f"{path} cannot be read ({error.strerror}); reinstall Tamis.") from error

    @classmethod
    def loads(cls, content: bytes, path: Path) -> LanguageModel:
        """The same from the bytes of a file, named `path` in errors."""
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as tables:
                return cls._from_tables(dict(tables))
        except (ValueError, TypeError, IndexError, KeyError, EOFError, BadZipFile, zlib.error) as error:
            raise WeightsError(
                f"{path} is not a language model of Tamis ({error}); reinstall Tamis or make it with runs/subtitles_language.sh."
            ) from error

    @classmethod
    def _from_tables(cls, tables: Mapping[str, NDArray[np.generic]]) -> LanguageModel:
        alphabet = tables["alphabet"].tobytes().decode()
        if not alphabet.startswith(SPECIAL_SYMBOLS):
            raise ValueError("its alphabet does not begin with the special symbols")
        # Each table is made once, with its last entry: copies of millions of numbers cost more than reading them.
        children = np.append(tables["children"].astype(np.int64), 1)
        keys = np.repeat(np.arange(len(children), dtype=np.uint64) << np.uint64(SYMBOL_BITS), children)
        symbols = keys[:-1].view(np.uint16)[0 if sys.byteorder == "little" else 3 :: 4]
        symbols[:] = tables["symbol_high"]
        symbols <<= 8
        symbols |= tables["symbol_low"].astype(np.uint16)
        keys[-1] = 2**64 - 1
        unigram, stored = tables["unigram"], tables["probability"]
        nodes = len(unigram) + len(stored)
        log_probability = np.zeros(nodes + 1, np.float32)
        log_probability[: len(unigram)] = unigram
        log_probability[len(unigram) : nodes] = probability_logs(np.arange(256, dtype=np.uint8))[stored]
        log_backoff = np.zeros(nodes + 1, np.float32)
        log_backoff[: len(children) - 1] = _backoff_logs(np.arange(256, dtype=np.uint8))[tables["backoff"]]
        model = cls.__new__(cls)
        model._adopt(alphabet, keys, log_probability, log_backoff, int(tables["order"]))
        return model


def _entry(name: str, packing: int) -> ZipInfo:
    """An entry of an archive that is the same to the byte whenever it is written."""
    entry = ZipInfo(name)
    entry.compress_type = packing
    return entry


def _symbols_of_labels(alphabet: str) -> NDArray[np.int64]:
    """Symbol of every label; the four special labels are negative and so index from the end."""
    symbols = np.full(len(characters.classes()) + 4, UNKNOWN_SYMBOL)
    ordinary = characters.numbers_of(alphabet[len(SPECIAL_SYMBOLS) :])
    known = np.flatnonzero(ordinary >= 0)
    symbols[ordinary[known]] = known + len(SPECIAL_SYMBOLS)
    for label, symbol in {
        SPACE: SPACE_SYMBOL,
        UNKNOWN: UNKNOWN_SYMBOL,
        END: END_SYMBOL,
        BEGIN: BEGIN_SYMBOL,
    }.items():
        symbols[label] = symbol
    return symbols


def probability_bytes(log_probability: NDArray[np.floating]) -> NDArray[np.uint8]:
    """As stored. The inverse of `probability_logs`, but for the rounding."""
    return _rounded(np.sqrt(-np.minimum(log_probability, 0)) / ROOT_STEP)


def probability_logs(stored: NDArray[np.generic]) -> NDArray[np.float32]:
    """log P of stored bytes."""
    root = stored.astype(np.float32) * np.float32(ROOT_STEP)
    return -root * root


def _backoff_bytes(log_backoff: NDArray[np.float32]) -> NDArray[np.uint8]:
    return _rounded(BACKOFF_ZERO - log_backoff / BACKOFF_STEP)


def _backoff_logs(stored: NDArray[np.generic]) -> NDArray[np.float32]:
    return (BACKOFF_ZERO - stored.astype(np.float32)) * np.float32(BACKOFF_STEP)


def _rounded(values: NDArray[np.floating]) -> NDArray[np.uint8]:
    return np.clip(np.round(values), 0, 255).astype(np.uint8)
