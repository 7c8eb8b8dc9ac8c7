"""The search against an enumeration of all paths, which is its definition."""

from __future__ import annotations

import itertools
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from tamis.subtitles import characters, kneser_ney, search
from tamis.subtitles.language import BEGIN, END, SPACE, LanguageModel
from tamis.subtitles.lattice import Lattice
from tamis.subtitles.search import SearchWeights, decode

EXACT = SearchWeights(beam=1500, margin=np.inf, certainty=0.4, least_log_language=-9.0, least_log_han=-7.0)


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    random = np.random.default_rng(1)
    lines = [
        "".join(random.choice(list("我你他的 .a。"), size=random.integers(1, 9))).strip() for _ in range(200)
    ]
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


Path = list[tuple[int, int, bool]]


@cache
def log_language(model: LanguageModel | None, history: tuple[int, ...], label: int) -> float:
    if model is None:
        return 0.0
    return EXACT.language * max(
        float(model.score(np.array([history]), np.array([[label]]))[0, 0]),
        EXACT.least_log_han if label >= 0 and search.han()[label] else EXACT.least_log_language,
    )


def score_of(path: Path, lattice: Lattice, model: LanguageModel | None) -> float:
    """Score of one path: (candidate, label, space before it) of each visited candidate. Slow and obvious."""
    total, written, last, weights = 0.0, [BEGIN] * 3, -1, EXACT

    def language(label: int) -> float:
        return log_language(model, tuple(written[-3:]), label)

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
        own, best = float(lattice.log_class[candidate, k]), float(lattice.log_class[candidate].max())
        total += float(lattice.log_centre[candidate])
        total += weights.recognition * (own - (1 - weights.certainty) * best)
        total += language(label) + weights.insertion
        written.append(label)
        last = candidate
    return total + float(lattice.log_skip[last + 1 :].astype(float).sum()) + language(END)


def all_paths(lattice: Lattice) -> list[Path]:
    paths = []
    for visited in itertools.product([False, True], repeat=len(lattice)):
        candidates = np.flatnonzero(visited)
        choices = [
            [
                (int(c), int(label), space)
                for label in lattice.labels[c]
                for space in ((False, True) if place else (False,))
            ]
            for place, c in enumerate(candidates)
        ]
        paths += [list(path) for path in itertools.product(*choices)]
    return paths


@pytest.mark.parametrize("with_model", [False, True])
@pytest.mark.parametrize("seed", range(12))
def test_best_path_and_posteriors_are_those_of_all_paths(
    seed: int, with_model: bool, model: LanguageModel
) -> None:
    random = np.random.default_rng(seed)
    lattice = lattice_of(random, n=1 + seed % 4, k=1 + seed % 3)
    used = model if with_model else None
    paths = all_paths(lattice)
    scores = np.array([score_of(path, lattice, used) for path in paths])
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


def sure_lattice(text: str, probability: float = 0.9, odds: float = -4.0) -> Lattice:
    """Every character of a text, one SCW apart, with a full stop of the rest; spaces in the text are gaps."""
    inked = [character for character in text if character != " "]
    log_space = np.full(len(inked) + 1, odds, np.float32)
    log_space[
        [len(text[:i].replace(" ", "")) for i, character in enumerate(text) if character == " "]
    ] = -odds
    return Lattice(
        position=np.arange(len(inked), dtype=np.float32),
        log_centre=np.full(len(inked), -0.01, np.float32),
        log_skip=np.full(len(inked), -4.6, np.float32),
        log_space=log_space,
        labels=np.stack(
            [characters.encode("".join(inked)), np.full(len(inked), characters.index()["、"])], axis=1
        ),
        log_class=np.log(np.tile([probability, 1 - probability], (len(inked), 1))).astype(np.float32),
    )


def test_spaces_stand_where_gaps_are() -> None:
    reading = decode(sure_lattice("他来了 我走了"), None)
    assert reading.text == "他来了 我走了"
    space = reading.characters[3]
    assert space.candidates == () and 0.9 < space.confidence <= 1
    assert [c.candidates for c in reading.characters if c.candidates] == [(i,) for i in range(6)]


def test_a_class_that_the_script_lacks_is_never_read() -> None:
    lattice = sure_lattice("他来了")
    allowed = np.ones(len(characters.classes()), bool)
    allowed[characters.index()["来"]] = False
    assert "来" not in decode(lattice, None, allowed=allowed).text
    assert decode(lattice, None, allowed=~allowed).text in ("来", "")


def test_language_decides_between_equals(model: LanguageModel) -> None:
    lattice = sure_lattice("我你", probability=0.5)
    for swapped in (lattice, replace(lattice, labels=lattice.labels[:, ::-1])):
        assert decode(swapped, model).text == "我你"


def test_two_full_width_characters_do_not_stand_on_one_spot() -> None:
    lattice = replace(sure_lattice("我你他"), position=np.array([0, 0.15, 1], np.float32))
    assert len(decode(lattice, None).text) == 2
    points = replace(sure_lattice("..."), position=np.array([0, 0.3, 0.6], np.float32))
    assert decode(points, None).text == "..."


def test_doubt_shows_in_the_confidence() -> None:
    sure, doubtful = decode(sure_lattice("我你", 0.99), None), decode(sure_lattice("我你", 0.6), None)
    assert doubtful.characters[0].confidence < 0.7 < 0.9 < sure.characters[0].confidence
    assert doubtful.log_probability < sure.log_probability
    softened = decode(sure_lattice("我你", 0.99), None, weights=SearchWeights(temperature=3.0))
    assert softened.characters[0].confidence < sure.characters[0].confidence


def test_a_narrow_beam_reads_an_easy_line_as_a_wide_one_does(model: LanguageModel) -> None:
    lattice = sure_lattice("他的你我他的你我" * 4)
    narrow = decode(lattice, model, weights=SearchWeights(beam=4, margin=6.0))
    wide = decode(lattice, model, weights=SearchWeights(beam=200, margin=30.0))
    assert narrow.text == wide.text == "他的你我他的你我" * 4


def test_doubt_about_the_class_is_no_reason_to_skip_a_character() -> None:
    labels = np.stack([characters.encode("问间同向")] * 3)
    lattice = replace(
        sure_lattice("我我我"), labels=labels, log_class=np.full((3, 4), np.log(0.25), np.float32)
    )
    assert len(decode(lattice, None, weights=SearchWeights(insertion=0.0)).text) == 3
