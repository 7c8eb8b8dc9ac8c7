"""The best line in a lattice: dynamic programming over recognition, language and width.

A path visits some candidates from left to right and skips the others. Its score is the sum of

    visited candidate    log_centre + recognition * log_class + language * log P(character | before) + insertion
    skipped candidate    log_skip
    between two visited  with a space: space * log P(space)     + language * log P(" " | before)
                         without:      space * log(1 - P(space))
                         width * the share of room that two characters this near to each other lack
    end of line          language * log P(end | before)

The search is exact when `beam` and `margin` are large: states that agree in the characters a language model of this
order can see, and in the candidate visited last, are merged (Viterbi). Otherwise the worst states are dropped. Sums over
the same states (forward-backward) give each character's posterior probability.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from tamis.subtitles import characters
from tamis.subtitles.language import BEGIN, END, SPACE, LanguageModel
from tamis.subtitles.lattice import Lattice

# Least room in SCW. Set tight, or slanted, a full-width character keeps 0.65; punctuation shows half a cell or less.
FULL_WIDTH, HALF_WIDTH, NARROW_WIDTH = 0.65, 0.35, 0.2
NARROW = "!'(),.:;I[]`fijlrt|1\"ーっッ"


@dataclass(frozen=True, slots=True)
class SearchWeights:
    """What each term counts, and how far the search looks."""

    recognition: float = 1.0
    language: float = 0.3
    insertion: float = 1.0  # nats; what the language model costs an average character
    space: float = 1.0
    width: float = 15.0  # nats when two characters stand on the same spot
    least_log_language: float = -12.0  # nats; no character is less likely than this to the language model
    temperature: float = 1.0  # scores are divided by it before they become probabilities
    beam: int = 24
    margin: float = 10.0  # nats; states and classes this much worse than the best are dropped


@dataclass(frozen=True, slots=True)
class ReadCharacter:
    """One character of a line.

    candidates  indices of the lattice's candidates that show it: one, none for a space, three for an ellipsis
    text        the character
    confidence  posterior probability in [0, 1]
    """

    candidates: tuple[int, ...]
    text: str
    confidence: float


@dataclass(frozen=True, slots=True)
class Reading:
    """A line as read: its characters, and the log of the posterior probability of the whole line."""

    characters: tuple[ReadCharacter, ...]
    log_probability: float

    @property
    def text(self) -> str:
        return "".join(character.text for character in self.characters)


def decode(
    lattice: Lattice,
    model: LanguageModel | None,
    *,
    allowed: NDArray[np.bool_] | None = None,
    weights: SearchWeights | None = None,
) -> Reading:
    """The best path through a lattice, with the posterior probability of each of its characters.

    model    None reads by recognition and width alone
    allowed  [number of classes] bool: classes that may be output (`scripts.allowed`); None for all
    """
    search = _Search(lattice, model, allowed, weights or SearchWeights())
    for candidate in range(len(lattice)):
        search.visit(candidate)
    return search.reading()


class _Search:
    """States in the order of their making; state 0 is the begin of the line. The frontier holds those still alive."""

    def __init__(
        self, lattice: Lattice, model: LanguageModel | None, allowed: NDArray[np.bool_] | None, weights: SearchWeights
    ) -> None:
        self.lattice, self.model, self.weights = lattice, model, weights
        self.allowed = allowed
        # Labels that a state remembers: what the model can see, and two at least, to know of a space.
        self.seen = max(2, model.order - 1) if model else 2
        # Sum of log_skip over candidates before each.
        self.skipped = np.concatenate([[0.0], np.cumsum(lattice.log_skip, dtype=float)])
        self.frontier = np.zeros(1, np.int64)
        self.last = np.full(1, -1)  # [states] candidate visited last
        self.history = np.full((1, self.seen), BEGIN)  # [states, seen] labels
        self.parent = np.full(1, -1)
        self.best = np.zeros(1)  # [states] score of the best path to it
        self.forward = np.zeros(1)  # [states] log of the sum over all paths to it
        self.arcs: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]] = []

    def visit(self, candidate: int) -> None:
        """Extend every living state by each class of one candidate, and drop the worst."""
        labels, gain = self._classes(candidate)
        if len(labels) == 0:
            return
        source, spaced = self._sources(candidate)
        score = self._language(self._seen_before(source, spaced), labels) + gain
        score += self._width(source, candidate, labels)
        score += self._spacing(source, spaced, candidate)[:, None]
        score += (self.skipped[candidate] - self.skipped[self.last[source] + 1])[:, None]
        self._merge(candidate, labels, source, spaced, score)
        self._drop(candidate + 1)

    def _classes(self, candidate: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Classes of a candidate worth trying, and what each gains by itself."""
        labels = self.lattice.labels[candidate].astype(np.int64)
        log_class = self.lattice.log_class[candidate].astype(float)
        usable = np.isfinite(log_class) if self.allowed is None else np.isfinite(log_class) & self.allowed[labels]
        if not usable.any():
            return labels[:0], log_class[:0]
        usable &= log_class >= log_class[usable].max() - self.weights.margin
        gain = self.lattice.log_centre[candidate] + self.weights.recognition * log_class + self.weights.insertion
        return labels[usable], gain[usable]

    def _sources(self, candidate: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Living states, each without and, where it is not hopeless, with a space behind it."""
        odds = self._space_odds(self.frontier, candidate)
        spaceable = self.frontier[(self.last[self.frontier] >= 0) & (odds > -self.weights.margin)]
        source = np.concatenate([self.frontier, spaceable])
        return source, np.arange(len(source)) >= len(self.frontier)

    def _space_odds(self, source: NDArray[np.int64], candidate: int) -> NDArray[np.float64]:
        """Log-odds of a space between each state and the candidate: the best boundary between them, [m]."""
        # The maximum over boundaries last + 1 .. candidate.
        backwards = np.maximum.accumulate(self.lattice.log_space[candidate::-1].astype(float))
        return backwards[candidate - self.last[source] - 1]

    def _seen_before(self, source: NDArray[np.int64], spaced: NDArray[np.bool_]) -> NDArray[np.int64]:
        """What the language model has seen before the new character, [m, seen]."""
        history = self.history[source]
        if spaced.any():
            history[spaced, :-1] = history[spaced, 1:]
            history[spaced, -1] = SPACE
        return history

    def _language(self, history: NDArray[np.int64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
        """Weighted language scores, [m, k]."""
        if self.model is None:
            return np.zeros((len(history), len(labels)))
        log_p = self.model.score(history, np.broadcast_to(labels, (len(history), len(labels))))
        return self.weights.language * np.maximum(log_p, self.weights.least_log_language).astype(float)

    def _spacing(self, source: NDArray[np.int64], spaced: NDArray[np.bool_], candidate: int) -> NDArray[np.float64]:
        """Score of the space, or of its absence, before the candidate, [m]. No space begins a line."""
        odds = self._space_odds(source, candidate)
        signed = np.where(spaced, odds, -odds)
        score = -self.weights.space * np.logaddexp(0, -signed)
        score[self.last[source] < 0] = 0
        if spaced.any():
            score[spaced] += self._language(self.history[source[spaced]], np.array([SPACE]))[:, 0]
        return score

    def _width(self, source: NDArray[np.int64], candidate: int, labels: NDArray[np.int64]) -> NDArray[np.float64]:
        """Penalty for standing nearer to the last character than two such characters can, [m, k]."""
        last = self.last[source]
        distance = np.where(last >= 0, self.lattice.position[candidate] - self.lattice.position[last], np.inf)
        widths = least_widths()
        room = (widths[self.history[source, -1]][:, None] + widths[labels][None, :]) / 2
        return -self.weights.width * np.maximum(0, 1 - distance[:, None] / room)

    def _merge(
        self, candidate: int, labels: NDArray[np.int64], source: NDArray[np.int64], spaced: NDArray[np.bool_], score: NDArray[np.float64]
    ) -> None:
        """New states out of all ways (source, label) of visiting the candidate, [m, k] scores."""
        temperature = self.weights.temperature
        total = (self.best[source][:, None] + score).ravel()
        chosen = _largest(total, 4 * self.weights.beam, self.weights.margin)
        way, which = np.divmod(chosen, len(labels))
        history = np.column_stack([self._seen_before(source[way], spaced[way])[:, 1:], labels[which]])
        key = _packed(history)
        order = np.lexsort((-total[chosen], key))  # equal states together, the best first
        first = np.flatnonzero(np.diff(key[order], prepend=np.uint64(0)) | (np.arange(len(order)) == 0))
        chosen, way, history = chosen[order], way[order], history[order]
        state = len(self.last) + np.repeat(np.arange(len(first)), np.diff(np.append(first, len(order))))
        arc = score.ravel()[chosen] / temperature
        forward = np.logaddexp.reduceat(self.forward[source[way]] + arc, first)
        self.arcs.append((source[way], state, arc))
        self.frontier = np.concatenate([self.frontier, state[first]])
        self.last = np.concatenate([self.last, np.full(len(first), candidate)])
        self.history = np.concatenate([self.history, history[first]])
        self.parent = np.concatenate([self.parent, source[way[first]]])
        self.best = np.concatenate([self.best, total[chosen[first]]])
        self.forward = np.concatenate([self.forward, forward])

    def _drop(self, candidate: int) -> None:
        """Keep the best states, counting what each has skipped so far."""
        score = self.best[self.frontier] + self.skipped[candidate] - self.skipped[self.last[self.frontier] + 1]
        self.frontier = self.frontier[_largest(score, self.weights.beam, self.weights.margin)]

    def reading(self) -> Reading:
        """The best complete path and its posteriors."""
        alive = self.frontier
        end = self.skipped[-1] - self.skipped[self.last[alive] + 1]
        end = end + self._language(self.history[alive], np.array([END]))[:, 0]
        path = self._path(int(alive[np.argmax(self.best[alive] + end)]))
        total = float((self.best[alive] + end).max()) / self.weights.temperature
        log_end = end / self.weights.temperature
        log_all = float(np.logaddexp.reduce(self.forward[alive] + log_end))
        posterior = np.exp(np.minimum(0, self.forward + self._backward(alive, log_end) - log_all))
        found: list[ReadCharacter] = []
        for state in path:
            same = (self.last == self.last[state]) & (self.history[:, -1] == self.history[state, -1])
            confidence = min(1.0, float(posterior[same].sum()))
            if self.history[state, -2] == SPACE:
                spaces = (self.last == self.last[state]) & (self.history[:, -2] == SPACE)
                found.append(ReadCharacter((), " ", min(1.0, float(posterior[spaces].sum()))))
            text = characters.classes()[self.history[state, -1]]
            found.append(ReadCharacter((int(self.last[state]),), text, confidence))
        return Reading(tuple(found), min(0.0, total - log_all))

    def _path(self, state: int) -> list[int]:
        """States from the first visited to this one."""
        path = []
        while state > 0:
            path.append(state)
            state = int(self.parent[state])
        return path[::-1]

    def _backward(self, alive: NDArray[np.int64], log_end: NDArray[np.float64]) -> NDArray[np.float64]:
        """Log of the sum over all ways from each state to the end, [states]."""
        backward = np.full(len(self.last), -np.inf)
        backward[alive] = log_end
        for source, state, arc in reversed(self.arcs):
            np.logaddexp.at(backward, source, arc + backward[state])
        return backward


@cache
def least_widths() -> NDArray[np.float64]:
    """Room that each class takes at least, [number of classes], in SCW.

    Two neighbours stand at least the mean of theirs apart, from ink centre to ink centre.
    """
    widths = np.full(len(characters.classes()), FULL_WIDTH)
    for text, width in ((characters.ASCII, HALF_WIDTH), (characters.PUNCTUATION + NARROW, NARROW_WIDTH)):
        for character in text:
            widths[characters.index()[character]] = width
    return widths


def _largest(score: NDArray[np.float64], number: int, margin: float) -> NDArray[np.int64]:
    """Indices of the largest scores, at most `number` of them and none below the largest minus margin."""
    chosen = np.flatnonzero(score >= score.max() - margin)
    if len(chosen) > number:
        chosen = chosen[np.argpartition(-score[chosen], number - 1)[:number]]
    return chosen


def _packed(rows: NDArray[np.int64]) -> NDArray[np.uint64]:
    """One number for each row of up to four labels, equal only for equal rows."""
    key = np.zeros(len(rows), np.uint64)
    for column in rows.T:
        key = key << np.uint64(16) | (column + 4).astype(np.uint64)
    return key
