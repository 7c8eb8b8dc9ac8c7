"""How right Tamis reads subtitles: python benchmarks/subtitles_accuracy.py dev|test|FOLDER [--real] [--json FILE]

Reads every clip of a set made by subtitles_clips.py (and with --real the real clips of the shared data) from the video
alone, and prints the worst clips first with what is wrong in them, then a table by language and by difficulty with 95 %
intervals over clips. "end to end" is the mean over clips of 1 - edit distance / length of the whole clip's text, missed
and invented cues counted, with punctuation, without spaces. Answers are kept, and read again only with --again.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from subtitles_report import (
    ROOT,
    Answer,
    Clip,
    answer,
    as_json,
    clips,
    differences,
    duration,
    plain,
    score,
    table,
)

from tamis.subtitles.evaluate import HEADLINE


def read_clip(clip: Clip, tell_language: bool) -> Answer:
    from tamis.subtitles.reader import read

    known = clip.truth.language if tell_language and clip.truth.language != "none" else ""
    before = time.process_time()
    cues = read(clip.video, language=known or "auto")
    return Answer(plain(cues), time.process_time() - before)


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    result.add_argument("set", nargs="?", help="dev, test, or a folder of NAME.mp4 with NAME.truth.json")
    result.add_argument("--real", action="store_true", help="the real clips too (or alone, without a set)")
    result.add_argument("--only", default="", help="clips whose name contains this")
    result.add_argument("--without", default="", help="leave out clips with this tag")
    result.add_argument("--tell-language", action="store_true", help="do not leave the language to be found")
    result.add_argument("--answers", type=Path, default=ROOT / "work" / "answers" / "tamis")
    result.add_argument("--again", action="store_true", help="read clips again that have an answer")
    result.add_argument("--json", type=Path, help="write the table there, with every form and clip")
    return result


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    if not (options.set or options.real):
        parser().error("name a set, or say --real")
    chosen = [
        clip
        for name in (options.set, "real" if options.real else None)
        if name
        for clip in clips(name, options.only, options.without)
    ]
    found = []
    for clip in chosen:
        folder = options.answers / (clip.video.parent.name + ("-told" if options.tell_language else ""))
        found.append(answer(clip, lambda c: read_clip(c, options.tell_language), folder, options.again))
        print(f"{clip.name}: {len(found[-1].cues)} cues, {found[-1].cpu_s:.1f} CPU-s", file=sys.stderr)
    scores = [score(clip, one) for clip, one in zip(chosen, found, strict=True)]
    for clip, one, result in sorted(
        zip(chosen, found, scores, strict=True), key=lambda t: t[2].whole[HEADLINE].accuracy
    ):
        wrong = differences(clip, one)
        if wrong:
            print(
                f"{100 * result.whole[HEADLINE].accuracy:6.2f}  {clip.name}  ({', '.join(clip.truth.tags)})"
            )
            print("\n".join(wrong))
    print(table(chosen, scores))
    minutes = float(sum(duration(clip.video) for clip in chosen)) / 60
    print(f"{sum(one.cpu_s for one in found) / minutes:.1f} CPU-s a video minute over {minutes:.1f} minutes")
    if options.json:
        options.json.write_text(
            json.dumps(as_json(chosen, scores), ensure_ascii=False, indent=1), encoding="utf-8"
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
