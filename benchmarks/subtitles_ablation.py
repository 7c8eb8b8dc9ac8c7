"""What each part of the reader is worth: python benchmarks/subtitles_ablation.py dev|test|FOLDER [--every N] [--real]

Reads the same clips with the whole reader, with each CNN alone, without language models, and from one frame of a cue instead
of all merged. Prints the mean end-to-end accuracy over clips with its 95 % interval, and cues found and invented. The ensemble's
class vectors are fitted to the mean of its members, so a member alone reads with vectors that are not quite its own.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from subtitles_report import Answer, Clip, clips, plain, score

from tamis import weights
from tamis.agreement import bootstrap
from tamis.subtitles.evaluate import HEADLINE, ClipScore
from tamis.subtitles.published import FOLDER, TRUNKS, default_recogniser, recogniser
from tamis.subtitles.reader import Settings, default_settings, read
from tamis.subtitles.recognise import Recogniser


def arms() -> Iterator[tuple[str, Recogniser, Settings]]:
    record = weights.load(FOLDER / f"{TRUNKS}.json")
    whole, settings = default_recogniser(), default_settings()
    yield "whole reader", whole, settings
    for number, name in enumerate(record.preprocessing["members"].split(", ")):
        yield f"{name} alone", recogniser([number]), settings
    yield "no language model", whole, replace(settings, language_models=False)
    yield "one frame a cue", whole, replace(settings, merged_frames=False)


def line(name: str, scores: list[ClipScore]) -> str:
    with_text = [s.whole[HEADLINE].accuracy for s in scores if s.whole[HEADLINE].length]
    mean = bootstrap(
        with_text, lambda values: float(np.mean(values)), generator=np.random.default_rng(1), resamples=2000
    )
    found = sum(s.cues.true_positives for s in scores)
    missed = sum(s.cues.false_negatives for s in scores)
    invented = sum(s.cues.false_positives for s in scores)
    interval = f"[{100 * mean.low:.1f}, {100 * mean.high:.1f}]"
    return f"{name:<20} {100 * mean.value:6.2f} {interval:>16}  {found:5d} {missed:6d} {invented:8d}"


def read_with(clip: Clip, recogniser: Recogniser, settings: Settings) -> ClipScore:
    return score(clip, Answer(plain(read(clip.video, recogniser=recogniser, settings=settings)), 0.0))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("set", help="dev, test, or a folder of NAME.mp4 with NAME.truth.json")
    parser.add_argument("--every", type=int, default=1, help="every so many clips, for a sample of the set")
    parser.add_argument("--real", action="store_true", help="the real clip too")
    options = parser.parse_args()
    chosen = clips(options.set, "", "")[:: options.every]
    if options.real:
        chosen += clips("real", "animation", "")
    print(f"{len(chosen)} clips\n{'':<20} {'end to end, %':>23}  found missed invented")
    for name, reader, settings in arms():
        print(line(name, [read_with(clip, reader, settings) for clip in chosen]), flush=True)


if __name__ == "__main__":
    main()
