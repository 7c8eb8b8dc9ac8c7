"""From a strip to a lattice of characters: the ensemble of CNNs, run once along the line (ONNX Runtime and NumPy).

The members share one pass per strip over all cut positions. Their states are averaged as probabilities and their feature
vectors as vectors; since they share one matrix of class vectors, that averages their class scores. Classes are only
scored where a character may be centred, a few positions per character.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from tamis.subtitles.characters import HANGUL_PARTS, base_classes
from tamis.subtitles.lattice import Lattice
from tamis.subtitles.strip import EM, STRIDE

Float = NDArray[np.float32]
BEST = 8  # classes kept per candidate
FLOOR = 0.02  # least P(centre) at a position that may become a candidate
LEAST_MASS = (
    0.06  # least probability of a candidate; below, of 800 on development clips not one was ever read
)
IMPOSSIBLE = -1e4  # log-probability of a character that the script does not have
AT_ONCE = 128  # candidates whose classes are scored together: the class vectors are read from memory once for all of them
BLOCK = 64  # classes of which only the best is compared, before the BEST are looked for in the best blocks
LEAST_SYLLABLE = -8.0  # log P(some syllable), below which none is looked for
FAR = -12.0  # log-odds of a space before the first and after the last candidate


@dataclass(frozen=True)
class ClassVectors:
    """The shared linear head: scores = features @ vectors.T + bias, then the same for the parts of Hangul.

    vectors [C + 1, F] float32, or int8 to be multiplied by scale [C + 1]; bias [C + 1]; parts [68, F], parts_bias [68]
    """

    vectors: NDArray[np.float32] | NDArray[np.int8]
    bias: Float
    parts: Float
    parts_bias: Float
    scale: Float | None = None

    @classmethod
    def load(cls, content: bytes) -> ClassVectors:
        """From the bytes of an .npz: int8 rows with one scale each."""
        with np.load(io.BytesIO(content), allow_pickle=False) as stored:
            return cls(
                stored["vectors"],
                stored["bias"].astype(np.float32),
                stored["parts"].astype(np.float32),
                stored["parts_bias"].astype(np.float32),
                stored["scale"],
            )

    def rows(self, which: NDArray[np.int64]) -> Float:
        """Some of the vectors, float32."""
        rows = self.vectors[which].astype(np.float32)
        if self.scale is not None:
            rows *= self.scale[which, None]
        return rows


@dataclass(frozen=True)
class Sighting:
    """Candidate centres of one line, before anything is said about which characters they are.

    position [n] in SCW from the strip's left edge, mass [n] P(a character is centred here), log_space [n + 1] as in
    `Lattice`, vectors [n, F] features. Kept small, so that a whole film's lines wait until their language is known.
    """

    position: Float
    mass: Float
    log_space: Float
    vectors: Float

    def only(self, which: NDArray[np.bool_]) -> Sighting:
        """Some of the candidates [n], by themselves: spaces between them are not known."""
        spaces = np.full(np.count_nonzero(which) + 1, FAR, np.float32)
        return Sighting(self.position[which], self.mass[which], spaces, self.vectors[which])


def log_softmax(scores: Float) -> Float:
    shifted = scores - scores.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


@dataclass(frozen=True)
class Glance:
    """What the first member alone sees in a strip: a third of the work, enough to tell which rows hold text at all.

    features [1, F, T] and states [1, 4, T], so that the member need not look again when the others do.
    """

    sighting: Sighting
    features: Float
    states: Float


class Recogniser:
    """The ensemble: the graph of its first member, and that of the others, which may be missing.

    `members` picks some of the designs, for the ablation table; None means all.
    """

    def __init__(
        self,
        first: bytes,
        classes: ClassVectors,
        *,
        others: bytes | None = None,
        members: Sequence[int] | None = None,
        threads: int = 1,
    ) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # Threads that wait in a loop double the CPU of convolutions this small.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        graphs = [graph for graph in (first, others) if graph is not None]
        self._sessions = [
            onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
            for graph in graphs
        ]
        self.classes = classes
        self._scripts: dict[bytes, tuple[NDArray[np.int64], Float, Float]] = {}
        self.members = list(members) if members is not None else None

    def look(self, strip: NDArray[np.uint8], glance: Glance | None = None) -> tuple[Float, Float]:
        """Features [T, F] and state probabilities [T, 4] (outside, centre, part, space) of one strip [2, 40, W].

        glance: at the same strip, when there was one.
        """
        pixels = _pixels(strip)
        seen = [session.run(None, {"strip": pixels}) for session in self._sessions[glance is not None :]]
        if glance is not None:
            seen.insert(0, (glance.features, glance.states))
        features, states = (np.concatenate(part) for part in zip(*seen, strict=True))  # (K, F, T), (K, 4, T)
        if self.members is not None:
            features, states = features[self.members], states[self.members]
        return features.mean(0).T, states.mean(0).T

    def glance(self, strip: NDArray[np.uint8]) -> Glance:
        """What the first member alone sees in one strip [2, 40, W] uint8."""
        features, states = self._sessions[0].run(None, {"strip": _pixels(strip)})
        # Without the first member, as in the ablation table, all that are there must look.
        seen = (features.mean(0).T, states.mean(0).T) if self.members is None else self.look(strip)
        return Glance(_sighting(*seen), features, states)

    def sight(self, strip: NDArray[np.uint8], glance: Glance | None = None) -> Sighting:
        """Where characters may be in one strip [2, 40, W] uint8, and their feature vectors.

        glance: at the same strip, when there was one.
        """
        return _sighting(*self.look(strip, glance))

    def lattice(
        self, sighting: Sighting, *, allowed: NDArray[np.bool_] | None = None, temperature: float = 1.0
    ) -> Lattice:
        """The character hypotheses of one line.

        `allowed` [len(classes())] leaves out the characters that the script does not have. `temperature` > 1 softens
        the class probabilities.
        """
        return next(self.lattices([sighting], allowed=allowed, temperature=temperature))

    def lattices(
        self,
        sightings: Iterable[Sighting],
        *,
        allowed: NDArray[np.bool_] | None = None,
        temperature: float = 1.0,
    ) -> Iterator[Lattice]:
        """`lattice` of one line after the other, several at once: that is cheaper."""
        waiting: list[Sighting] = []
        for sighting in sightings:
            waiting.append(sighting)
            if sum(len(one.mass) for one in waiting) >= AT_ONCE:
                yield from self._lattices(waiting, allowed, temperature)
                waiting = []
        if waiting:
            yield from self._lattices(waiting, allowed, temperature)

    def _lattices(
        self, sightings: Sequence[Sighting], allowed: NDArray[np.bool_] | None, temperature: float
    ) -> Iterator[Lattice]:
        vectors = np.concatenate([sighting.vectors for sighting in sightings])
        labels, scores = self.best_classes(vectors, allowed, temperature)
        end = 0
        for sighting in sightings:
            begin, end = end, end + len(sighting.mass)
            yield Lattice(
                position=sighting.position,
                log_centre=np.log(sighting.mass),
                log_skip=np.log1p(-sighting.mass),
                log_space=sighting.log_space,
                labels=labels[begin:end],
                log_class=scores[begin:end],
            )

    def best_classes(
        self, vectors: Float, allowed: NDArray[np.bool_] | None, temperature: float
    ) -> tuple[NDArray[np.int32], Float]:
        """The BEST classes of each vector [n, F] and their log-probabilities [n, BEST], best first."""
        if len(vectors) == 0:
            return np.zeros((0, BEST), np.int32), np.zeros((0, BEST), np.float32)
        hangul = len(base_classes())
        rows, scores, total, syllable = self._scores(vectors, allowed, temperature)
        best = _largest_of_row(scores)
        names, values = rows[best], np.take_along_axis(scores, best, 1) - total
        if syllable.size and (syllable > LEAST_SYLLABLE).any():
            syllables, share = self._syllables(vectors, temperature)
            share = np.where(syllable > LEAST_SYLLABLE, syllable + share, IMPOSSIBLE)
            names, values = np.hstack([names, hangul + syllables]), np.hstack([values, share])
        order = np.argsort(-values, axis=1, kind="stable")[:, :BEST]
        labels = np.take_along_axis(names, order, 1).astype(np.int32)
        values = np.maximum(np.take_along_axis(values, order, 1), IMPOSSIBLE)
        return np.where(values > IMPOSSIBLE, labels, 0), values

    def surest(self, sighting: Sighting, allowed: NDArray[np.bool_] | None = None) -> Float:
        """Log-probability [n] of the best class of each candidate: the first of what `lattice` tells, at half the price."""
        vectors = sighting.vectors
        if len(vectors) == 0:
            return np.zeros(0, np.float32)
        _, scores, total, syllable = self._scores(vectors, allowed, 1.0)
        surest: Float = scores.max(1) - total[:, 0]
        # No syllable is likelier than that there is some.
        some = np.flatnonzero((syllable > np.maximum(surest, LEAST_SYLLABLE)[:, None]).any(1))
        if len(some):
            share = self._syllables(vectors[some], 1.0)[1].max(1)
            surest[some] = np.maximum(surest[some], syllable[some, 0] + share)
        return np.maximum(surest, IMPOSSIBLE)

    def _scores(
        self, vectors: Float, allowed: NDArray[np.bool_] | None, temperature: float
    ) -> tuple[NDArray[np.int64], Float, Float, Float]:
        """Of vectors [n, F]: the classes of each column; their scores [n, classes of the script and padding], the largest of
        each row about 0; the logarithm [n, 1] to take off for probabilities; and log P(some syllable) [n, 1], or [n, 0] in
        a script without Hangul."""
        rows, matrix, bias = self._rows(allowed)
        scores = vectors @ matrix.T
        scores += bias
        if temperature != 1:
            scores /= temperature
        scores -= scores.max(1, keepdims=True)
        total = np.log(np.exp(scores).sum(1, keepdims=True))
        some_syllable = np.flatnonzero(rows == len(base_classes()))
        syllable = scores[:, some_syllable] - total
        scores[:, some_syllable] = IMPOSSIBLE  # "some syllable" is no character
        return rows, scores, total, syllable

    def _rows(self, allowed: NDArray[np.bool_] | None) -> tuple[NDArray[np.int64], Float, Float]:
        """The class vectors that a script leaves, padded to whole blocks: their class numbers, vectors and biases."""
        key = b"" if allowed is None else allowed.tobytes()
        if key not in self._scripts:
            hangul = len(base_classes())
            keep = np.ones(hangul + 1, bool)
            if allowed is not None:
                keep = np.append(allowed[:hangul], allowed[hangul:].any())
            rows = np.flatnonzero(keep)
            bias = self.classes.bias[rows]
            padding = max(-len(rows) % BLOCK, BEST * BLOCK - len(rows))
            rows = np.append(rows, np.zeros(padding, rows.dtype))
            bias = np.append(bias, np.full(padding, IMPOSSIBLE, np.float32))
            self._scripts[key] = rows, self.classes.rows(rows), bias
        return self._scripts[key]

    def _syllables(self, vectors: Float, temperature: float) -> tuple[NDArray[np.int64], Float]:
        """The BEST syllables [n, BEST] of each vector, of the BEST letters in each place, and their log-probabilities."""
        scores = (vectors @ self.classes.parts.T + self.classes.parts_bias) / temperature
        number = np.zeros((len(vectors), 1), np.int64)
        joint = np.zeros((len(vectors), 1), np.float32)
        for count, part in zip(
            HANGUL_PARTS, np.split(scores, np.cumsum(HANGUL_PARTS)[:-1], axis=1), strict=True
        ):
            letters = np.argpartition(-part, BEST, axis=1)[:, :BEST]
            share = np.take_along_axis(log_softmax(part), letters, 1)
            number = (number[:, :, None] * count + letters[:, None]).reshape(len(vectors), -1)
            joint = (joint[:, :, None] + share[:, None]).reshape(len(vectors), -1)
            best = np.argpartition(-joint, BEST - 1, axis=1)[:, :BEST]
            number, joint = np.take_along_axis(number, best, 1), np.take_along_axis(joint, best, 1)
        return number, joint


def _pixels(strip: NDArray[np.uint8]) -> Float:
    """[1, 2, 40, a multiple of STRIDE] in [0, 1]."""
    wide = strip.shape[2]
    pixels = np.empty((1, *strip.shape[:2], wide + -wide % STRIDE), np.float32)
    pixels[0, :, :, :wide] = strip
    pixels[0, :, :, wide:] = strip[:, :, -1:]
    pixels /= 255
    return pixels


def _sighting(features: Float, states: Float) -> Sighting:
    centres, positions, mass = candidate_centres(states[:, 1])
    around = np.clip(centres[:, None] + np.array([-1, 0, 1]), 0, len(features) - 1)
    share = states[around, 1] + 1e-6  # neighbours that look like the centre too have a say
    vectors = (features[around] * (share / share.sum(1, keepdims=True))[:, :, None]).sum(1)
    return Sighting(positions * (STRIDE / EM), mass, space_odds(states[:, 3], positions), vectors)


def _largest_of_row(scores: Float) -> NDArray[np.int64]:
    """Indices [n, BEST] of the largest scores [n, a multiple of BLOCK] of each row, in any order."""
    n = len(scores)
    blocks = scores.reshape(n, -1, BLOCK)
    best_blocks = np.argpartition(-blocks.max(2), BEST - 1, axis=1)[:, :BEST]
    inside = np.take_along_axis(blocks, best_blocks[:, :, None], 1).reshape(n, -1)
    best = np.argpartition(-inside, BEST - 1, axis=1)[:, :BEST]
    return np.take_along_axis(best_blocks, best // BLOCK, 1) * BLOCK + best % BLOCK


def candidate_centres(centre: Float) -> tuple[NDArray[np.int64], Float, Float]:
    """Positions where a character may be centred: local maxima of P(centre) [T].

    Returns indices [n], refined positions [n] in strides (half a stride is the middle of the first) and the probability
    [n] that a character is centred there, which gathers the neighbours' share, since a centre may fall between two positions.
    """
    padded = np.zeros(len(centre) + 2, centre.dtype)
    padded[1:-1] = centre
    left, middle, right = padded[:-2], padded[1:-1], padded[2:]
    peaks = np.flatnonzero((middle >= left) & (middle > right) & (middle > FLOOR))
    is_peak = np.zeros(len(padded) + 1, bool)
    is_peak[peaks + 1] = True
    # A neighbour between two peaks belongs half to each.
    left_share = left[peaks] / (1.0 + is_peak[np.maximum(peaks - 1, 0)])
    right_share = right[peaks] / (1.0 + is_peak[peaks + 3])
    total = middle[peaks] + left_share + right_share
    positions = (peaks + 0.5 + (right_share - left_share) / total).astype(np.float32)
    mass = np.clip(total, 1e-4, 0.9999).astype(np.float32)
    likely = mass >= LEAST_MASS
    return peaks[likely], positions[likely], mass[likely]


def space_odds(space: Float, positions: Float) -> Float:
    """Log-odds [n + 1] that a space stands before each candidate: the best pair of positions since the one before."""
    odds = np.full(len(positions) + 1, FAR, np.float32)
    if len(positions) > 1:
        bounds = (positions + 0.5).astype(np.intp)
        some = bounds[:-1] < bounds[1:]  # there are positions between the two
        best = np.maximum.reduceat(space[: bounds[-1]], bounds[:-1][some]) if some.any() else space[:0]
        p = np.clip(best, 1e-5, 1 - 1e-5).astype(float)
        odds[1:-1][some] = np.log(p / (1 - p))
    return odds
