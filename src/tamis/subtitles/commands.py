"""Read burnt-in subtitles from videos.

The verbs of `tamis subtitles`: read, evaluate, train. Light: what decodes, computes or trains is imported when a verb
runs.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tamis import __version__
from tamis.arguments import number_of_jobs
from tamis.batch import Item, Outcome, Told, expand, plan, run
from tamis.errors import InputError, InputWarning, UsageError
from tamis.processors import processors
from tamis.progress import Progress
from tamis.remote import is_url
from tamis.writing import check_writable

if TYPE_CHECKING:
    from tamis.subtitles.cue import Box, Cue

_VIDEO = "mp4 m4v mkv webm mov avi ts m2ts mts mpg mpeg m2v vob mod tod wmv asf flv f4v ogv ogm 3gp rmvb rm mxf dv divx"
VIDEO_ENDINGS = frozenset(f".{ending}" for ending in _VIDEO.split())
SUBTITLE_ENDINGS = (".srt", ".vtt", ".ass", ".json")
PAGE_ENDINGS = (".html", ".htm")
DESIGNS = ("dense", "residual", "vgg")
"""Those of `networks`, which needs PyTorch."""
LANGUAGES = ("auto", "zh-hans", "zh-hant", "ja", "ko")
SAMPLES = Path(__file__).parent / "samples"


@dataclass(frozen=True, slots=True)
class Settings:
    """What `read` was told, as plain values, so that they travel to worker processes."""

    language: str
    region: Box | None
    review: Path | None
    """The page of a single input, the folder of the pages of several."""
    jobs: int = 1
    """Videos read at the same time, which share the processors."""


def add_commands(verbs: Any, common: argparse.ArgumentParser) -> None:
    """Describe the verbs to the `tamis` command. `common` holds the options that every command has."""
    _add_read(verbs.add_parser("read", parents=[common], help="video -> subtitle file", description=_READ))
    _add_evaluate(
        verbs.add_parser("evaluate", parents=[common], help="compare subtitle files with the truth")
    )
    _add_train(
        verbs.add_parser(
            "train",
            parents=[common],
            help="train the character networks",
            description=_TRAIN,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
    )


_READ = """Reads burnt-in subtitles. One video and -o FILE writes that file; several videos, a folder or a pattern and
-o DIR write DIR/STEM.srt each and DIR/journal.jsonl. Without -o, one video's subtitles are printed."""
_SEVERAL = "Several inputs, a folder of them, a pattern and --resume"


def _add_read(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "inputs", nargs="+", metavar="VIDEO", help="a video, a folder of videos, or a pattern"
    )
    parser.add_argument(
        "-o", "--output", type=Path, metavar="OUT", help="OUT.srt, .vtt, .ass, .json, or a folder"
    )
    parser.add_argument("--language", choices=LANGUAGES, default="auto", help="default: %(default)s")
    parser.add_argument(
        "--region",
        type=_region,
        metavar="L,T,R,B",
        help="look only here: left, top, right, bottom in pixels of the upright picture with square pixels, whose size "
        "--json tells",
    )
    parser.add_argument(
        "--review",
        type=Path,
        metavar="PAGE.html",
        help="write a page for proof-reading (a folder for several videos)",
    )
    parser.add_argument(
        "--format",
        choices=[e[1:] for e in SUBTITLE_ENDINGS],
        help="of several, and of what is printed (default: srt)",
    )
    parser.add_argument(
        "--jobs",
        type=number_of_jobs,
        default=1,
        metavar="N",
        help="videos read at the same time (default: %(default)s)",
    )
    parser.add_argument("--resume", action="store_true", help="skip what was done in the same way")
    parser.add_argument(
        "--json", action="store_true", help="print one JSON record an input (without -o: the cues)"
    )
    parser.set_defaults(run=_read)


def _add_evaluate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "hypotheses", type=Path, metavar="HYPOTHESES", help="a subtitle file, or a folder of them"
    )
    parser.add_argument(
        "truth", type=Path, metavar="TRUTH", help="a subtitle file, or a folder with the same names"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON record")
    parser.add_argument(
        "--rate",
        type=_rate,
        metavar="FPS",
        help="frames a second, such as 24000/1001: times are then scored in frames",
    )
    parser.set_defaults(run=_evaluate)


# read


def _read(options: argparse.Namespace) -> int:
    # NumPy looks at this when it is first imported, which is later. Its products are small here: a second thread
    # would be waited for in a loop, which took five times the work itself.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    for url in filter(is_url, options.inputs):
        raise UsageError(f"{url} is a URL: videos are read from files alone, so fetch it first.")
    inputs = expand(options.inputs, VIDEO_ENDINGS)
    # What was asked for decides, and not how many files there are today: scripts meet folders and patterns of one film.
    several = len(options.inputs) > 1 or inputs != [Path(options.inputs[0])] or options.resume
    jobs = min(options.jobs, len(inputs)) if several else 1
    settings = Settings(options.language, options.region, options.review, jobs)
    return _read_several(inputs, settings, options) if several else _read_one(inputs[0], settings, options)


def _read_one(path: Path, settings: Settings, options: argparse.Namespace) -> int:
    output = _single_output(path, options.output, options.format)
    settings = replace(settings, review=_single_page(path, settings.review))
    for target in filter(None, (output, settings.review)):
        _refuse_overwriting_input(path, target)
        check_writable(target)
    with Progress(path.name) as bar:
        cues = _cues(path, settings, tell=bar.line, progress=bar)
    if output is None:
        ending = ".json" if options.json else f".{options.format or 'srt'}"
        _print_cues(cues, path, ending, settings.language)
        if settings.review is not None:
            _write_page(cues, path, settings.review, settings.language)
    else:
        _write(cues, path, output, settings.review, settings.language)
        _tell_done(Outcome(Item(path, output), "done", result=_summary(cues)), settings.review, options.json)
    if not cues:
        print(
            f"tamis: {path}: no subtitles were found" + (f"; {output} is empty." if output else "."),
            file=sys.stderr,
        )
    return 0


def _read_several(inputs: Sequence[Path], settings: Settings, options: argparse.Namespace) -> int:
    folder = options.output
    if folder is None:
        raise UsageError(f"{_SEVERAL} need a folder for their results: add -o DIR.")
    if folder.suffix.lower() in SUBTITLE_ENDINGS and not folder.is_dir():
        raise UsageError(f"{folder} names one file, but {_SEVERAL.lower()} need a folder: -o DIR.")
    pages = settings.review
    if pages is not None and not pages.is_dir() and (pages.exists() or pages.suffix.lower() in PAGE_ENDINGS):
        raise UsageError(f"{pages} names one page, but {_SEVERAL.lower()} need a folder: --review DIR.")
    items = plan(inputs, folder, f".{options.format or 'srt'}")
    for item in items:
        _refuse_overwriting_input(item.input, item.output)
    with Progress(f"{len(items)} videos" if len(items) > 1 else items[0].input.name) as bar:
        outcomes = run(
            items,
            partial(_work, settings=settings),
            journal=folder / "journal.jsonl",
            jobs=settings.jobs,
            resume=options.resume,
            settings=_noted(settings),
            on_outcome=lambda outcome: _tell(outcome, bar, settings.review, options.json),
            progress=bar,
        )
    failed = sum(outcome.status == "failed" for outcome in outcomes)
    skipped = sum(outcome.status == "skipped" for outcome in outcomes)
    done = len(outcomes) - failed - skipped
    print(f"tamis: {done} read, {failed} failed, {skipped} done before.", file=sys.stderr)
    return 1 if failed else 0


def _noted(settings: Settings) -> dict[str, Any]:
    """What makes another result, for the journal: JSON values."""
    region, review = settings.region, settings.review
    return {
        "tamis": __version__,
        "language": settings.language,
        "region": list(region) if region else None,
        "review": os.fsdecode(review.absolute()) if review else None,
    }


def _work(item: Item, share: Told, *, settings: Settings) -> dict[str, Any]:
    """One video of a batch, in a worker process."""
    page = _review_page(settings.review, item.input)
    for target in filter(None, (item.output, page)):
        check_writable(target)
    told: list[str] = []
    cues = _cues(item.input, settings, tell=told.append, progress=share)
    _write(cues, item.input, item.output, page, settings.language)
    return _summary(cues) | {"warnings": told}


def _cues(
    path: Path, settings: Settings, *, tell: Callable[[str], None], progress: Callable[[float], None] | None
) -> list[Cue]:
    """The cues of one video. What is wrong with it without being an error is told in sentences."""
    from tamis.subtitles.reader import read

    pictures = settings.review is not None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", InputWarning)
        cues = read(
            path,
            language=settings.language,
            region=settings.region,
            pictures=pictures,
            progress=progress,
            threads=None if settings.jobs == 1 else max(1, processors() // settings.jobs),
        )
    for warning in caught:
        tell(f"tamis: {path}: {warning.message}")
    return cues


def _frame_size(source: Path) -> tuple[int, int]:
    """(width, height) in px."""
    from tamis.subtitles.video import open_video

    with open_video(source) as video:
        return video.width, video.height


def _write(cues: list[Cue], source: Path, output: Path, review: Path | None, language: str) -> None:
    from tamis.subtitles import formats

    language = _told_language(cues, language)
    formats.write(cues, output, source=source.name, frame_size=_frame_size(source), language=language)
    if review is not None:
        _write_page(cues, source, review, language)


def _write_page(cues: list[Cue], source: Path, path: Path, language: str) -> None:
    from tamis.subtitles import review

    language = _told_language(cues, language)
    review.write(cues, path, title=source.stem, frame_size=_frame_size(source), language=language)


def _told_language(cues: list[Cue], asked: str) -> str:
    """Empty where nothing tells."""
    from tamis.subtitles import scripts

    if asked != "auto":
        return asked
    return scripts.detect_language(cue.text for cue in cues)[0] if cues else ""


def _print_cues(cues: list[Cue], source: Path, ending: str, language: str) -> None:
    from tamis.subtitles import formats

    # Subtitles that go into a file or another program are a subtitle file, whatever this terminal can show.
    if isinstance(sys.stdout, TextIOWrapper) and not sys.stdout.isatty():
        sys.stdout.reconfigure(encoding="utf-8", newline="\n")
    size, language = _frame_size(source), _told_language(cues, language)
    sys.stdout.write(formats.dumps(cues, ending, source=source.name, frame_size=size, language=language))


def _summary(cues: list[Cue]) -> dict[str, Any]:
    return {"cues": len(cues), "characters": sum(len(line.characters) for cue in cues for line in cue.lines)}


def _line(outcome: Outcome) -> dict[str, Any]:
    return {
        "input": str(outcome.item.input),
        "output": str(outcome.item.output),
        "status": outcome.status,
        "error": outcome.error,
        **outcome.result,
    }


def _review_page(folder: Path | None, source: Path) -> Path | None:
    """Of one of several videos."""
    return folder / f"{source.stem}.html" if folder else None


def _tell_done(outcome: Outcome, review: Path | None, as_json: bool) -> None:
    if as_json:
        print(json.dumps(_line(outcome), ensure_ascii=False), flush=True)
    elif outcome.status == "done" and (count := outcome.result["cues"]):
        written = ", ".join(str(path) for path in (outcome.item.output, review) if path)
        print(f"{outcome.item.input.name}: {count} subtitle{'s' * (count > 1)}; {written}", flush=True)


def _tell(outcome: Outcome, bar: Progress, reviews: Path | None, as_json: bool) -> None:
    if outcome.status == "failed":
        bar.line(f"tamis: {outcome.error}")
    for sentence in outcome.result.get("warnings", []):
        bar.line(sentence)
    if outcome.status == "done" and outcome.result["cues"] == 0:
        bar.line(f"tamis: {outcome.item.input}: no subtitles were found; {outcome.item.output} is empty.")
    bar.wipe()
    _tell_done(outcome, _review_page(reviews, outcome.item.input), as_json)


def _single_output(path: Path, output: Path | None, ending: str | None) -> Path | None:
    if output is None:
        return None
    if output.is_dir():
        return output / f"{path.stem}.{ending or 'srt'}"
    if output.suffix.lower() not in SUBTITLE_ENDINGS:
        raise UsageError(
            f"{output} has no known ending: name a file that ends in {', '.join(SUBTITLE_ENDINGS)}, "
            "or a folder that exists."
        )
    if ending and output.suffix.lower() != f".{ending}":
        raise UsageError(f"{output} does not end in .{ending}: leave out --format, or name such a file.")
    return output


def _single_page(path: Path, page: Path | None) -> Path | None:
    if page is None:
        return None
    if page.is_dir():
        return _review_page(page, path)
    if page.suffix.lower() not in PAGE_ENDINGS:
        raise UsageError(
            f"{page} is no name for a page: --review takes a file that ends in {' or '.join(PAGE_ENDINGS)}, "
            "or a folder that exists."
        )
    return page


def _refuse_overwriting_input(source: Path, target: Path) -> None:
    if target.exists() and source.exists() and target.samefile(source):
        raise UsageError(f"{target} is the input itself: name another file.")


def _region(text: str) -> Box:
    try:
        left, top, right, bottom = (int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not four whole numbers: left,top,right,bottom"
        ) from None
    if not (0 <= left < right and 0 <= top < bottom):
        raise argparse.ArgumentTypeError(
            f"{text!r} is empty: left < right and top < bottom, from 0, in pixels"
        )
    return left, top, right, bottom


# evaluate, train, demo


def _evaluate(options: argparse.Namespace) -> int:
    from tamis.subtitles import compare

    comparison = compare.compare(options.hypotheses, options.truth, options.rate)
    if options.json:
        print(json.dumps(compare.plain(comparison), ensure_ascii=False))
    else:
        print("\n".join(compare.report(comparison)))
    return 0


def _rate(text: str) -> Fraction:
    try:
        rate = Fraction(text)
    except (ValueError, ZeroDivisionError):
        rate = Fraction(0)
    if rate <= 0:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no frame rate: give frames a second, such as 25 or 24000/1001"
        )
    return rate


_TRAIN = """Trains the character networks on rendered lines.

    tamis subtitles train vgg --lines LINES --out OUT
    tamis subtitles train residual --lines LINES --out OUT --head OUT/vgg.pt

LINES is what  python -m tamis.subtitles.synthesis  rendered. The first member learns the class vectors; the others learn to
speak the same language (their head is frozen). A run that was killed goes on when the command is given again."""


def _add_train(parser: argparse.ArgumentParser) -> None:
    def option(name: str, kind: Callable[[str], Any], default: Any, text: str) -> None:
        parser.add_argument(name, type=kind, default=default, help=f"{text} (default: %(default)s)")

    parser.add_argument("design", choices=DESIGNS, help="the design of the member to train")
    parser.add_argument(
        "--lines", type=Path, required=True, help="folder of rendered lines (train/ and dev/)"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoints and metrics")
    parser.add_argument("--head", type=Path, help="checkpoint whose class vectors to use, frozen")
    parser.add_argument(
        "--start", type=Path, help="checkpoint whose weights to start from, with a new schedule"
    )
    option("--shards", number_of_jobs, 200, "files of rendered lines in LINES/train")
    option("--steps", number_of_jobs, 8000, "steps; the schedule depends on it")
    option("--batch", number_of_jobs, 16, "lines per step")
    option("--learning-rate", float, 2e-3, "peak")
    option(
        "--epsilon",
        float,
        1e-4,
        "of Adam: gradients below it hardly count, or class vectors of rare characters are driven away",
    )
    parser.add_argument(
        "--precision",
        choices=["auto", "float32", "bfloat16"],
        default="auto",
        help="of the products; auto: bfloat16 where the processor has it",
    )
    option("--minutes", float, 100_000.0, "stop with a checkpoint after this long")
    option("--threads", int, 2, "of PyTorch")
    option("--seed", int, 1, "of weights and batches")
    parser.set_defaults(run=_train, extra="train", trains=True)


def _train(options: argparse.Namespace) -> int:
    from tamis.subtitles.train import train

    train(options)
    return 0


def demo(folder: Path) -> None:
    """Read the bundled clips: a table of their cues, and STEM.srt and STEM.html in `folder`."""
    clips = sorted(SAMPLES.glob("*.mp4"))
    if not clips:
        raise InputError(f"{SAMPLES} holds no clip: the installation is incomplete; install tamis again.")
    for clip in clips:
        output, page = folder / f"{clip.stem}.srt", folder / f"{clip.stem}.html"
        settings = Settings("auto", None, page)
        with Progress(clip.name) as bar:
            cues = _cues(clip, settings, tell=bar.line, progress=bar)
        _write(cues, clip, output, page, settings.language)
        print(f"{clip.name}: {len(cues)} subtitles")
        print(f"  {'start':>9}  {'end':>9}  {'sure':>5}  text")
        for cue in cues:
            text = cue.text.replace("\n", " / ")
            print(f"  {float(cue.start):8.3f}s  {float(cue.end):8.3f}s  {cue.confidence:5.0%}  {text}")
        print(f"written: {output}  and, to proof-read in a browser, {page}")
