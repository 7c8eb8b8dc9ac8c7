"""Whether confidences mean what they say: python benchmarks/subtitles_calibration.py SET... [--every N] [--real VIDEO] [--write]

Reads every clip, pairs what was read with the truth (an edit-distance alignment, cue by cue), and prints how often
characters and whole cues of each confidence were right: as the search says it, and through the logistic map of
tamis.subtitles.confidence. The map is fitted on every other clip and judged on those between, then the other way round.
--write fits it on all clips and stores it with the networks' operating point. Test clips must not be given to --write.
"""

from __future__ import annotations

import argparse
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from itertools import pairwise
from pathlib import Path

import numpy as np
from subtitles_report import clips as clips_of
from subtitles_tuning import Looked, write_point

from tamis.subtitles import reader
from tamis.subtitles.confidence import Calibration, expected_error, fit, log_loss
from tamis.subtitles.cue import Cue
from tamis.subtitles.evaluate import Truth, match, normalise, outside_unscored
from tamis.subtitles.published import default_recogniser
from tamis.subtitles.reader import Settings, default_settings
from tamis.subtitles.recognise import Recogniser

RAW = {"character_slope": 1.0, "character_offset": 0.0, "cue_slope": 1.0, "cue_offset": 0.0}


@dataclass(frozen=True)
class Judged:
    """Confidence and rightness of things that were read: arrays of one length."""

    confidence: np.ndarray
    right: np.ndarray

    @classmethod
    def of(cls, pairs: Sequence[tuple[float, bool]]) -> Judged:
        return cls(np.array([p for p, _ in pairs], float), np.array([r for _, r in pairs], bool))

    @classmethod
    def joined(cls, parts: Sequence[Judged]) -> Judged:
        return cls(
            np.concatenate([p.confidence for p in parts]),
            np.concatenate([p.right for p in parts]).astype(bool),
        )

    def mapped(self, calibration: Calibration) -> Judged:
        return replace(self, confidence=calibration(self.confidence))


def judge(cues: Sequence[Cue], truth: Truth) -> tuple[list[tuple[float, bool]], list[tuple[float, bool]]]:
    """(confidence, right) of every inked character of the cues that are subtitles, and of every cue that was read. An
    invented cue is wrong."""
    wanted = [cue for cue in truth.cues if cue.scored]
    kept: list[Cue] = outside_unscored(cues, truth.cues)  # type: ignore[assignment]
    true_text = {i: wanted[j].text for i, j in match(kept, wanted)}
    characters: list[tuple[float, bool]] = []
    whole: list[tuple[float, bool]] = []
    for i, cue in enumerate(kept):
        true = normalise(true_text.get(i, ""))
        # One read character may be several when normalised ("…" is three dots); all of them must be right.
        spelt: list[str] = []
        owner: list[int] = []
        inked = [c for line in cue.lines for c in line.characters if not c.text.isspace()]
        for number, character in enumerate(inked):
            for part in unicodedata.normalize("NFKC", character.text):
                spelt.append(part)
                owner.append(number)
        right = np.ones(len(inked), bool)
        aligned = SequenceMatcher(None, spelt, list(true), autojunk=False)
        same = np.zeros(len(spelt), bool)
        for block in aligned.get_matching_blocks():
            same[block.a : block.a + block.size] = True
        for place, number in enumerate(owner):
            right[number] &= same[place]
        if i in true_text:
            characters += [(c.confidence, bool(r)) for c, r in zip(inked, right, strict=True)]
        whole.append((cue.confidence, normalise(cue.text) == true))
    return characters, whole


def table(judged: Judged, bins: Sequence[float] = (0, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 1.0)) -> str:
    """Reliability by confidence; the last bin holds 1."""
    rows = []
    for low, high in pairwise(bins):
        inside = (judged.confidence >= low) & ((judged.confidence < high) | (high == bins[-1]))
        if inside.any():
            said, was = judged.confidence[inside].mean(), judged.right[inside].mean()
            rows.append(
                f"    {low:4.2f}-{high:4.2f}  n {inside.sum():5d}  says {said:5.3f}  right {was:5.3f}"
            )
    return "\n".join(rows)


def figures(judged: Judged) -> str:
    error, loss = expected_error(judged.confidence, judged.right), log_loss(judged.confidence, judged.right)
    return f"expected calibration error {error:.4f}, log loss {loss:.4f}, n {len(judged.right)}, right {judged.right.mean():.4f}"


def judged_clips(
    clips: Sequence[Looked], settings: Settings, recogniser: Recogniser
) -> dict[str, list[Judged]]:
    """Of each clip, by "character" and "cue", with confidences as the search gives them."""
    raw = replace(settings, **RAW)
    found: dict[str, list[Judged]] = {"character": [], "cue": []}
    for clip in clips:
        cues = reader.choose(reader.recognise(clip.seen, clip.language, recogniser, raw), raw)
        for kind, pairs in zip(found, judge(cues, clip.truth), strict=True):
            found[kind].append(Judged.of(pairs))
    return found


def report(found: dict[str, list[Judged]]) -> dict[str, float]:
    """Prints how well confidences are calibrated, as they are and crosswise; returns the parameters fitted on all."""
    settings = default_settings()
    stored = {
        "character": Calibration(settings.character_slope, settings.character_offset),
        "cue": Calibration(settings.cue_slope, settings.cue_offset),
    }
    point: dict[str, float] = {}
    for kind, clips in found.items():
        halves = [Judged.joined(clips[::2]), Judged.joined(clips[1::2])]
        crossed = []
        for fitted_on, judged_on in (halves, halves[::-1]):
            crossed.append(judged_on.mapped(fit(fitted_on.confidence, fitted_on.right)))
        everything, held_out = Judged.joined(halves), Judged.joined(crossed)
        print(f"{kind}, as the search says: {figures(everything)}\n{table(everything)}")
        as_stored = everything.mapped(stored[kind])
        print(f"{kind}, as the reader says: {figures(as_stored)}\n{table(as_stored)}")
        print(f"{kind}, calibrated on the other half: {figures(held_out)}\n{table(held_out)}")
        best = fit(everything.confidence, everything.right)
        print(f"{kind}, on all clips: slope {best.slope:.3f}, offset {best.offset:.3f}")
        point |= {f"{kind}_slope": round(best.slope, 3), f"{kind}_offset": round(best.offset, 3)}
    return point


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sets", nargs="*", default=["dev"], help="dev, previous, third, or folders of clips")
    parser.add_argument("--every", type=int, default=1, help="every so many clips of each, for a sample")
    parser.add_argument("--real", type=Path, action="append", default=[])
    parser.add_argument("--write", action="store_true", help="store the map with the networks")
    arguments = parser.parse_args()
    recogniser = default_recogniser()
    paths = [clip.video for name in arguments.sets for clip in clips_of(name)[:: arguments.every]]
    clips = [Looked(path, recogniser) for path in [*paths, *arguments.real]]
    point = report(judged_clips(clips, default_settings(), recogniser))
    if arguments.write:
        write_point(point)


if __name__ == "__main__":
    main()
