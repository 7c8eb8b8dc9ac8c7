"""Choose the reader's operating point on the development clips, and print how each choice scores.

    python benchmarks/subtitles_tuning.py work/clips/dev [--real ../shared/data/subtitles/real_clips/animation_band.mp4] [--write]

Each clip is decoded, searched for lines and shown to the networks once; then settings are tried one at a time, the best
value of each kept. --write stores what is best with the networks' record, and after it the calibration of confidences
(subtitles_calibration.py), whose tables it prints: all that has to be done after training networks anew. Test clips must
not be given: what is tuned on is not tested on.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import fields, replace
from fractions import Fraction
from pathlib import Path

import numpy as np

from tamis import weights
from tamis.subtitles import reader
from tamis.subtitles.detect import Detector
from tamis.subtitles.evaluate import HEADLINE, ClipScore, Truth, read_truth, score_clip
from tamis.subtitles.language import LANGUAGES
from tamis.subtitles.published import FOLDER, TRUNKS, default_recogniser
from tamis.subtitles.reader import SeenCue, Settings, default_settings
from tamis.subtitles.recognise import Recogniser
from tamis.subtitles.search import SearchWeights
from tamis.subtitles.video import open_video

GRID: dict[str, Sequence[float]] = {
    "insertion": (1.0, 2.0, 3.0, 4.0, 5.0),
    "language": (0.2, 0.3, 0.4, 0.55, 0.7),
    "recognition": (0.6, 0.8, 1.0),
    "temperature": (0.8, 1.0, 1.3, 1.6),
    "certainty": (0.0, 0.15, 0.3),
    "least_evidence": (0.3, 0.4, 0.5, 0.6),
    "lonely": (0.5, 0.6, 0.7, 0.8),
    "space": (0.6, 1.0, 1.5),
    "width": (5.0, 15.0, 30.0),
}


class Looked:
    """One clip after the networks, ready to be read with any settings."""

    def __init__(self, path: Path, recogniser: Recogniser) -> None:
        self.name = path.stem
        truth = path.with_name(path.stem + ".truth.json")
        self.truth: Truth = read_truth(truth if truth.exists() else path.with_name(path.stem + ".gt.json"))
        with open_video(path) as video:
            self.duration = video.duration or Fraction(1)
            self.seen: list[SeenCue] = []
            with reader.Looking(recogniser, self.seen.append, False) as looking:
                detector = Detector()
                for frame in video.frames():
                    looking.at(detector.add(frame))
                looking.at(detector.finish())
        self.seen.sort(key=lambda cue: (cue.start, cue.end))
        self.found = reader.find_language(self.seen, recogniser)
        self.language = self.truth.language if self.truth.language in LANGUAGES else self.found

    def score(self, settings: Settings, recogniser: Recogniser) -> ClipScore:
        cues = reader.recognise(self.seen, self.language, recogniser, settings)
        return score_clip(reader.choose(cues, settings), self.truth, self.duration, self.name)


def goodness(scores: Sequence[ClipScore]) -> float:
    """Mean end-to-end accuracy over clips with subtitles, less 1 point for each invented cue per ten clips without."""
    mean = float(np.mean([s.whole[HEADLINE].accuracy for s in scores if s.whole[HEADLINE].length]))
    invented = sum(s.cues.false_positives for s in scores if not s.whole[HEADLINE].length)
    return mean - 0.001 * invented


def changed(settings: Settings, name: str, value: float) -> Settings:
    if name in {f.name for f in fields(Settings)}:
        return replace(settings, **{name: value})  # type: ignore[arg-type]
    return replace(settings, search=replace(settings.search, **{name: value}))


def write_point(point: dict[str, float]) -> None:
    """Stores settings by name in the record of the published networks; those not named stay as they are."""
    record = weights.load(FOLDER / f"{TRUNKS}.json")
    operating_point = {**record.operating_point, **point}
    print(f"written: {weights.publish(replace(record, operating_point=operating_point), FOLDER)}: {point}")
    default_settings.cache_clear()


def different(settings: Settings, old: Settings) -> dict[str, float]:
    """The settings by name that are other than in `old`."""
    plain = {f.name: getattr(settings, f.name) for f in fields(Settings) if f.name != "search"}
    plain_old = {name: getattr(old, name) for name in plain}
    search = {f.name: getattr(settings.search, f.name) for f in fields(SearchWeights)}
    search_old = {name: getattr(old.search, name) for name in search}
    pairs = [(plain, plain_old), (search, search_old)]
    return {name: value for new, before in pairs for name, value in new.items() if value != before[name]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clips", type=Path)
    parser.add_argument("--real", type=Path, action="append", default=[])
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--write", action="store_true", help="store the best settings and the calibration")
    arguments = parser.parse_args()
    recogniser = default_recogniser()
    paths = [*sorted(arguments.clips.glob("*.mp4")), *sorted(arguments.clips.glob("*.mkv")), *arguments.real]
    clips = [Looked(path, recogniser) for path in paths]
    for clip in clips:
        if clip.found != clip.language and clip.truth.language not in ("", "none"):
            print(f"language of {clip.name}: found {clip.found}, is {clip.language}")
    settings = before = default_settings()
    best = goodness([clip.score(settings, recogniser) for clip in clips])
    print(f"start {best:.4f}")
    for _ in range(arguments.rounds):
        for name, values in GRID.items():
            for value in values:
                trial = changed(settings, name, value)
                score = goodness([clip.score(trial, recogniser) for clip in clips])
                mark = " *" if score > best else ""
                print(f"{name}={value:g} {score:.4f}{mark}", flush=True)
                if score > best:
                    best, settings = score, trial
    print(f"best {best:.4f}: {settings}")
    scores = [clip.score(settings, recogniser) for clip in clips]
    for score in sorted(scores, key=lambda s: s.whole[HEADLINE].accuracy):
        found, invented, missed = (
            score.cues.true_positives,
            score.cues.false_positives,
            score.cues.false_negatives,
        )
        accuracy = score.whole[HEADLINE].accuracy
        print(f"{score.name:40s} {accuracy:.4f}  found {found} invented {invented} missed {missed}")
    if arguments.write:
        from subtitles_calibration import judged_clips, report

        write_point(different(settings, before) | report(judged_clips(clips, settings, recogniser)))


if __name__ == "__main__":
    main()
