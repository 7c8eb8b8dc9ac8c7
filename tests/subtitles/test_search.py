"""The search against an enumeration of all paths, which is its definition."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from tamis.subtitles import characters, kneser_ney, search
from tamis.subtitles.language import BEGIN, END, SPACE, LanguageModel
from tamis.subtitles.lattice import Lattice
from tamis.subtitles.search import SearchWeights, decode

EXACT = SearchWeights(beam=5000, margin=np.inf, least_log_language=-9.0)


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    random = np.random.default_rng(1)
    lines = ["".join(random.choice(list("我你他的 .a。"), size=random.integers(1, 9))).strip() for _ in range(200)]
    text = kneser_ney.Text.of([kneser_ney.line(line) for line in lines], [1] * 200, [1.0] * 200)
    estimated = kneser_ney.estimate(text, 4)
    return kneser_ney.finish(estimated, kneser_ney.prune(estimated, 10_000))


def lattice_of(random: np.random.Generator, n: int, k: int) -> Lattice:
    """A small random lattice, close enough together for every term of the score to matter."""
    centre = random.uniform(0.05, 0.95, n)
    labels = np.array([random.permutation(characters.encode("我你他的.a。明"))[:k] for _ in range(n)])
    return Lattice(
        position=np.cumsum(random.uniform(0.2, 1.0, n)).astype(np.float32),
        log_centre=np.log(centre).astype(np.float32),
        log_skip=np.log1p(-centre).astype(np.float32),
        log_space=random.normal(-1, 2, n + 1).astype(np.float32),
        labels=labels.astype(np.int32),
        log_class=np.log(random.dirichlet(np.ones(k), n)).astype(np.float32),
    )


def score_of(path: list[tuple[int, int, bool]], lattice: Lattice, model: LanguageModel | None, weights: SearchWeights) -> float:
    """Score of one path: (candidate, label, space before it) of each visited candidate. Slow and obvious."""
    total, written, last = 0.0, [BEGIN] * 3, -1

    def language(label: int) -> float:
        if model is None:
            return 0.0
        return weights.language * max(float(model.score(np.array([written]), np.array([[label]]))[0, 0]), weights.least_log_language)

    for candidate, label, space in path:
        total += float(lattice.log_skip[last + 1 : candidate].astype(float).sum())
        if last >= 0:
            odds = float(lattice.log_space[last + 1 : candidate + 1].max())
            total += weights.space * np.log(1 / (1 + np.exp(-odds if space else odds)))
            room = (search.least_widths()[written[-1]] + search.least_widths()[label]) / 2
            near = float(lattice.position[candidate] - lattice.position[last]) / room
            total -= weights.width * max(0.0, 1 - near)
        if space:
            total += language(SPACE)
            written.append(SPACE)
        k = list(lattice.labels[candidate]).index(label)
        total += float(lattice.log_centre[candidate]) + weights.recognition * float(lattice.log_class[candidate, k])
        total += language(label) + weights.insertion
        written.append(label)
        last = candidate
    return total + float(lattice.log_skip[last + 1 :].astype(float).sum()) + language(END)


def all_paths(lattice: Lattice) -> list[list[tuple[int, int, bool]]]:
    paths = []
    for visited in itertools.product([False, True], repeat=len(lattice)):
        candidates = np.flatnonzero(visited)
        choices = [
            [(int(c), int(label), space) for label in lattice.labels[c] for space in ((False, True) if place else (False,))]
            for place, c in enumerate(candidates)
        ]
        paths += [list(path) for path in itertools.product(*choices)]
    return paths


@pytest.mark.parametrize("with_model", [False, True])
@pytest.mark.parametrize("seed", range(12))
def test_best_path_and_posteriors_are_those_of_all_paths(seed: int, with_model: bool, model: LanguageModel) -> None:
    random = np.random.default_rng(seed)
    lattice = lattice_of(random, n=1 + seed % 4, k=1 + seed % 3)
    used = model if with_model else None
    paths = all_paths(lattice)
    scores = np.array([score_of(path, lattice, used, EXACT) for path in paths])
    posterior = np.exp(scores - np.logaddexp.reduce(scores))
    best = paths[int(scores.argmax())]

    reading = decode(lattice, used, weights=EXACT)

    expected = "".join((" " if space else "") + characters.classes()[label] for _, label, space in best)
    assert reading.text == expected
    assert reading.log_probability == pytest.approx(np.log(posterior.max()), abs=1e-4)
    visited = [character for character in reading.characters if character.candidates]
    for character, (candidate, label, _) in zip(visited, best, strict=True):
        same = [any(step[:2] == (candidate, label) for step in path) for path in paths]
        assert character.candidates == (candidate,)
        assert character.confidence == pytest.approx(posterior[same].sum(), abs=1e-4)


def test_an_empty_lattice_reads_as_nothing() -> None:
    empty = lattice_of(np.random.default_rng(0), 0, 1)
    assert decode(empty, None).text == ""
    assert decode(empty, None).log_probability == 0.0
