"""The best line in a lattice: dynamic programming over recognition, language and width.

A path visits some candidates from left to right and skips the others. Its score is the sum of

    visited candidate    log_centre + recognition * (log_class - (1 - certainty) * that of its best class)
                         + language * log P(character | before) + insertion
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
from tamis.subtitles.language import END, SPACE, LanguageModel
from tamis.subtitles.lattice import Lattice

# Least room in SCW. Set tight, or slanted, a full-width character keeps 0.65; punctuation shows half a cell or less.
FULL_WIDTH, HALF_WIDTH, NARROW_WIDTH = 0.65, 0.35, 0.2
NARROW = "!'(),.:;I[]`fijlrt|1\"ーっッ"


@dataclass(frozen=True, slots=True)
class SearchWeights:
    """What each term counts, and how far the search looks."""

    recognition: float = 1.0
    language: float = 0.4
    certainty: float = 0.0  # in [0, 1]: how far doubt about the class speaks against there being a character
    insertion: float = 3.0  # nats; pays for what the language model charges an average character
    space: float = 1.0
    width: float = 15.0  # nats when two characters stand on the same spot
    least_log_language: float = -12.0  # nats; no character is less likely than this to the language model
    least_log_han: float = -10.0  # the same of Han characters, most of which are rare
    temperature: float = 1.0  # scores are divided by it before they become probabilities
    beam: int = 20
    margin: float = 8.0  # nats; states and classes this much worse than the best are dropped


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
    """States, numbered as they are made; 0 is the begin of the line. The frontier holds the numbers of those alive.

    A state is a candidate just visited, the class it was read as, whether a space stands before it, and the contexts of
    the language model (`LanguageModel.extend`).
    """

    def __init__(
        self,
        lattice: Lattice,
        model: LanguageModel | None,
        allowed: NDArray[np.bool_] | None,
        weights: SearchWeights,
    ) -> None:
        self.lattice, self.model, self.weights = lattice, model, weights
        log_class = lattice.log_class.astype(float)
        best = log_class.max(axis=1, keepdims=True, initial=-np.inf)
        log_class = log_class - (1 - weights.certainty) * np.where(np.isfinite(best), best, 0)
        gain = lattice.log_centre[:, None] + weights.recognition * log_class + weights.insertion
        usable = np.isfinite(gain) if allowed is None else np.isfinite(gain) & allowed[lattice.labels]
        self.gain = np.where(usable, gain, -np.inf)  # [n, k] what each class gains by itself
        # By candidates before each.
        self.skipped = np.concatenate([[0.0], np.cumsum(lattice.log_skip, dtype=float)])
        most = 1 + len(lattice) * 4 * weights.beam
        self.states = 1
        self.frontier = np.zeros(1, np.int64)
        self.candidate = np.full(most, -1)
        self.label = np.zeros(most, np.int64)
        self.spaced = np.zeros(most, bool)
        self.contexts = np.zeros((most, model.order - 1 if model else 0), np.int64)
        if model:
            self.contexts[:1] = model.begin()
        self.parent = np.full(most, -1)
        self.best = np.zeros(most)  # score of the best path to the state
        self.forward = np.zeros(most)  # log of the sum over all paths to the state
        self.arcs: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]] = []

    def visit(self, candidate: int) -> None:
        """Extend every living state by each class of one candidate, and drop the worst."""
        gain = self.gain[candidate]
        best_gain = gain.max(initial=-np.inf)
        if best_gain == -np.inf:
            return
        useful = gain >= best_gain - self.weights.margin
        labels, gain = self.lattice.labels[candidate, useful].astype(np.int64), gain[useful]
        source, spaced, contexts, score = self._sources(candidate)
        language, following = self._language(contexts, labels)
        score = score[:, None] + gain + language + self._width(source, candidate, labels)
        self._add(candidate, labels, source, spaced, score, following)
        self._drop(candidate + 1)

    def _sources(
        self, candidate: int
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[np.int64], NDArray[np.float64]]:
        """Living states, without and, where it is not hopeless, with a space behind them.

        Returns their numbers [m], whether spaced [m], contexts [m, order - 1], and the scores of the way to the candidate.
        """
        alive, before = self.frontier, self.candidate[self.frontier]
        score = self.skipped[candidate] - self.skipped[before + 1]
        # The best boundary between each state and the candidate. No space begins a line.
        odds = np.maximum.accumulate(self.lattice.log_space[candidate::-1].astype(float))[
            candidate - before - 1
        ]
        odds[before < 0] = -np.inf
        without = score - self.weights.space * np.logaddexp(0, odds)
        hopeful = odds > -self.weights.margin / 2  # the language model speaks against most spaces, too
        contexts = self.contexts[alive]
        if not hopeful.any():
            return alive, np.zeros(len(alive), bool), contexts, without
        language, following = self._language(contexts[hopeful], np.array([SPACE]))
        with_space = score[hopeful] - self.weights.space * np.logaddexp(0, -odds[hopeful]) + language[:, 0]
        source = np.concatenate([alive, alive[hopeful]])
        spaced = np.arange(len(source)) >= len(alive)
        contexts = np.concatenate([contexts, following[:, 0]])
        return source, spaced, contexts, np.concatenate([without, with_space])

    def _language(
        self, contexts: NDArray[np.int64], labels: NDArray[np.int64]
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Weighted language scores [m, k], and the contexts behind each label [m, k, order - 1]."""
        if self.model is None:
            return np.zeros((len(contexts), len(labels))), np.zeros((len(contexts), len(labels), 0), np.int64)
        log_p, following = self.model.extend(contexts, self.model.symbols(labels)[None, :])
        least = np.where(han()[labels], self.weights.least_log_han, self.weights.least_log_language)
        return self.weights.language * np.maximum(log_p, least).astype(float), following

    def _width(
        self, source: NDArray[np.int64], candidate: int, labels: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Penalty for standing nearer to the character before than two such characters can, [m, k]."""
        before = self.candidate[source]
        distance = np.where(
            before >= 0, self.lattice.position[candidate] - self.lattice.position[before], np.inf
        )
        widths = least_widths()
        room = (widths[self.label[source]][:, None] + widths[labels]) / 2
        return -self.weights.width * np.maximum(0, 1 - distance[:, None] / room)

    def _add(
        self,
        candidate: int,
        labels: NDArray[np.int64],
        source: NDArray[np.int64],
        spaced: NDArray[np.bool_],
        score: NDArray[np.float64],
        following: NDArray[np.int64],
    ) -> None:
        """New states out of all ways [m, k] of visiting the candidate; ways that end in the same state are merged."""
        total = (self.best[source][:, None] + score).ravel()
        way = _largest(total, 4 * self.weights.beam, self.weights.margin)
        row, column = np.divmod(way, len(labels))
        # The longest context known decides all that the model can say later.
        contexts = following[row, column]
        deepest = contexts.max(axis=1, initial=0, where=contexts != (self.model.absent if self.model else 0))
        key = (deepest * len(labels) + column) * 2 + spaced[row]
        order = np.lexsort((-total[way], key))  # equal states together, the best way first
        way, row, key = way[order], row[order], key[order]
        new = np.ones(len(key), bool)
        new[1:] = key[1:] != key[:-1]
        first = np.flatnonzero(new)
        state = self.states - 1 + np.cumsum(new)
        arc = score.ravel()[way] / self.weights.temperature
        self.arcs.append((source[row], state, arc))
        made = slice(self.states, self.states + len(first))
        self.candidate[made] = candidate
        self.label[made] = labels[column[order][first]]
        self.spaced[made] = spaced[row[first]]
        self.contexts[made] = contexts[order][first]
        self.parent[made] = source[row[first]]
        self.best[made] = total[way[first]]
        self.forward[made] = np.logaddexp.reduceat(self.forward[source[row]] + arc, first)
        self.frontier = np.concatenate([self.frontier, state[first]])
        self.states += len(first)

    def _drop(self, candidate: int) -> None:
        """Keep the best states, counting what each has skipped so far."""
        score = (
            self.best[self.frontier]
            + self.skipped[candidate]
            - self.skipped[self.candidate[self.frontier] + 1]
        )
        self.frontier = self.frontier[_largest(score, self.weights.beam, self.weights.margin)]

    def reading(self) -> Reading:
        """The best complete path and its posteriors."""
        alive = self.frontier
        end = self.skipped[-1] - self.skipped[self.candidate[alive] + 1]
        end = end + self._language(self.contexts[alive], np.array([END]))[0][:, 0]
        total = self.best[alive] + end
        log_end = end / self.weights.temperature
        log_all = float(np.logaddexp.reduce(self.forward[alive] + log_end))
        log_posterior = self.forward[: self.states] + self._backward(alive, log_end) - log_all
        posterior = np.exp(np.minimum(0, log_posterior))
        candidate, label, spaced = (
            array[: self.states] for array in (self.candidate, self.label, self.spaced)
        )
        found: list[ReadCharacter] = []
        for state in self._path(int(alive[total.argmax()])):
            here = candidate == candidate[state]
            if spaced[state]:
                found.append(ReadCharacter((), " ", min(1.0, float(posterior[here & spaced].sum()))))
            confidence = min(1.0, float(posterior[here & (label == label[state])].sum()))
            found.append(
                ReadCharacter((int(candidate[state]),), characters.classes()[label[state]], confidence)
            )
        return Reading(tuple(found), min(0.0, float(total.max()) / self.weights.temperature - log_all))

    def _path(self, state: int) -> list[int]:
        """States from the first visited to this one."""
        path = []
        while state > 0:
            path.append(state)
            state = int(self.parent[state])
        return path[::-1]

    def _backward(self, alive: NDArray[np.int64], log_end: NDArray[np.float64]) -> NDArray[np.float64]:
        """Log of the sum over all ways from each state to the end, [states]."""
        backward = np.full(self.states, -np.inf)
        backward[alive] = log_end
        for source, state, arc in reversed(self.arcs):
            np.logaddexp.at(backward, source, arc + backward[state])
        return backward


@cache
def han() -> NDArray[np.bool_]:
    """Whether each class is a Han character, [number of classes]."""
    return np.isin(np.array(characters.classes()), list(characters.hanzi()))


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
