"""The published weights of the subtitle reader: found by name, verified, loaded once per process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from tamis import weights
from tamis.subtitles.language import LanguageModel
from tamis.subtitles.search import SearchWeights

if TYPE_CHECKING:
    from tamis.subtitles.recognise import Recogniser

FOLDER = Path(__file__).parent / "weights"
# The ensemble's first member, which is run alone where it is enough, and the others.
FIRST, TRUNKS, CLASSES = "characters.first", "characters.ensemble", "characters.classes"
Point = TypeVar("Point")


@cache
def default_recogniser() -> Recogniser:
    """The published ensemble."""
    return recogniser()


def recogniser(members: Sequence[int] | None = None) -> Recogniser:
    """The published ensemble, or some of its members."""
    from tamis.subtitles.recognise import ClassVectors, Recogniser

    first, others, classes = (
        weights.read(weights.load(FOLDER / f"{name}.json")) for name in (FIRST, TRUNKS, CLASSES)
    )
    # The second is of use when nothing is left to decode, which in a clip of 20 s is a third of the time.
    return Recogniser(first, ClassVectors.load(classes), others=others, members=members, threads=2)


@cache
def language_model(language: str) -> LanguageModel:
    """The published character n-gram model of one language."""
    record = weights.load(FOLDER / f"lm.{language}.json")
    return LanguageModel.loads(weights.read(record), record.path)


def operating_point(kind: type[Point]) -> Point:
    """The thresholds and factors published with the ensemble, as `kind` (`reader.Settings`)."""
    point = dict(weights.load(FOLDER / f"{TRUNKS}.json").operating_point)
    search_names = {f.name for f in fields(SearchWeights)}
    search = {name: point.pop(name) for name in list(point) if name in search_names and name != "temperature"}
    return kind(**point, search=SearchWeights(**search))  # type: ignore[arg-type, call-arg]
