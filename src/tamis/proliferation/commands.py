"""Score tumour proliferation on whole-slide images.

The verbs of `tamis proliferation`: score, evaluate, train; detect and compose have files of their own. Light: what
computes or trains is imported when a verb runs.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from tamis import weights
from tamis.arguments import figure, number_of_jobs, probability, um_per_px, whole_number
from tamis.batch import Outcome
from tamis.errors import InputError, UsageError
from tamis.progress import Progress
from tamis.proliferation.compose_command import add_compose
from tamis.proliferation.detect_command import add_detect
from tamis.writing import check_writable

EXTRA = "slides"
SAMPLES = Path(__file__).parent / "samples"


def add_commands(verbs: Any, common: argparse.ArgumentParser) -> None:
    """Describe the verbs to the `tamis` command. `common` holds the options that every command has."""
    _add_score(
        verbs.add_parser(
            "score",
            parents=[common],
            help="slides -> mitoses, hot spot, mitotic score, PAM50 proliferation, a report",
            description=_SCORE,
        )
    )
    _add_evaluate(
        verbs.add_parser(
            "evaluate",
            parents=[common],
            help="TUPAC16's statistics: kappa, Spearman, F1, with intervals",
            description=_EVALUATE,
        )
    )
    add_detect(verbs, common)
    add_compose(verbs, common)
    _add_train(
        verbs.add_parser(
            "train",
            parents=[common],
            help="fit both scores to slides, as TUPAC16 did",
            description=_TRAIN,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
    )


# score

_SCORE = """Scores slides stained with haematoxylin and eosin. Writes DIR/STEM/score.json, mitoses.geojson (QuPath),
density.ome.tiff, density.png and report.html for each, DIR/results.csv and results.parquet over all of them, and
DIR/journal.jsonl. Research use only."""


def _add_score(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="SLIDE",
        help="a slide, a folder of slides or of one DICOM series, a pattern, or a URL (s3://...) of any of these",
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="where results go")
    parser.add_argument(
        "--mpp", type=um_per_px, metavar="UM", help="um per pixel, for slides that do not say, or wrongly"
    )
    parser.add_argument(
        "--preset",
        default="tupac",
        metavar="NAME",
        help="thresholds of the mitotic score: tupac, or nottingham:DIAMETER of the field in mm (default: tupac)",
    )
    parser.add_argument(
        "--hot-spot",
        choices=("square", "circle"),
        default="square",
        help="window of the count (default: square)",
    )
    parser.add_argument(
        "--regions",
        type=int,
        default=30,
        metavar="K",
        help="search the K regions richest in cells, 2 mm2 each, or all tissue where it is no more; 0: always all "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--threshold",
        type=probability,
        metavar="P",
        help="least probability of a mitosis (default: the detector's)",
    )
    parser.add_argument(
        "--mitoses", type=Path, metavar="TABLE", help="count these positions instead of looking for mitoses"
    )
    parser.add_argument(
        "--model", type=Path, metavar="RECORD.json", help="a model that `tamis proliferation train` wrote"
    )
    parser.add_argument(
        "--detector",
        type=Path,
        metavar="DIR",
        help="weights of another mitosis detector, named as the published",
    )
    parser.add_argument("--dicom", action="store_true", help="also score.sr.dcm and mitoses.ann.dcm")
    parser.add_argument(
        "--submission",
        type=Path,
        metavar="FILE",
        help="also tasks 1 and 2 as TUPAC16 asked for them: a row for each slide, in the order of their numbers",
    )
    parser.add_argument(
        "--jobs",
        type=number_of_jobs,
        default=1,
        metavar="N",
        help="slides at the same time (default: %(default)s)",
    )
    parser.add_argument("--resume", action="store_true", help="skip what was done in the same way")
    parser.add_argument(
        "--cluster",
        metavar="ADDRESS",
        help="work on Ray: local, auto, or ray://HOST:10001; DIR must be shared",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON record a slide")
    parser.set_defaults(run=_score, extra=EXTRA)


def _score(options: argparse.Namespace) -> int:
    from tamis.proliferation import scoring
    from tamis.proliferation.grading import grading

    grading(options.preset)  # refused now, and not once a slide
    if options.regions < 0:
        raise UsageError(
            f"--regions {options.regions}: give how many regions to search, or 0 for the whole tissue."
        )
    _check_given(options)
    items = scoring.plan(scoring.inputs(options.inputs), options.output)
    job = scoring.Job(
        {
            "preset": options.preset,
            "shape": options.hot_spot,
            "regions": options.regions,
            "threshold": options.threshold,
            "model": options.model,
            "detector": options.detector,
        },
        options.mpp,
        options.mitoses,
        options.dicom,
    )
    check_writable(options.output / "results.csv")
    with Progress(f"{len(items)} slides" if len(items) > 1 else items[0].input.name) as bar:
        outcomes = scoring.score_all(
            items,
            job,
            options.output,
            jobs=options.jobs,
            cluster=options.cluster,
            resume=options.resume,
            on_outcome=lambda outcome: _tell_score(outcome, bar, options.json),
            progress=bar,
        )
    bad = [outcome.item for outcome in outcomes if outcome.status == "failed"]
    rows = scoring.write_table(options.output)
    if len({row["settings"] for row in rows}) > 1:
        print(
            f"tamis: {options.output / 'results.csv'} holds slides that were scored in different ways: see its column "
            "settings.",
            file=sys.stderr,
        )
    failed = len(bad)
    skipped = sum(outcome.status == "skipped" for outcome in outcomes)
    print(
        f"tamis: {len(outcomes) - failed - skipped} scored, {failed} failed, {skipped} done before.",
        file=sys.stderr,
    )
    if options.submission:
        for sentence in scoring.submission(rows, options.submission, bad):
            print(f"tamis: {sentence}", file=sys.stderr)
    return 1 if failed else 0


def _check_given(options: argparse.Namespace) -> None:
    """What goes with every slide is looked at once, and not refused slide by slide."""
    if options.model is not None:
        from tamis.proliferation.svm import from_bytes

        from_bytes(weights.read(weights.load(options.model)))
    if options.mitoses is not None:
        from tamis.proliferation.submission import read_truth

        # The scale is each slide's own: here only whether it can be read.
        if read_truth(options.mitoses, 0.25).points is None:
            raise InputError(
                f"{options.mitoses} holds no positions: a table with image, row, col (or x_um, y_um) was expected."
            )
    if options.detector is not None:
        from tamis.proliferation import detect

        for name in (detect.NETWORK, detect.CANDIDATES):
            weights.read(weights.load(options.detector / f"{name}.json"))
    if options.submission is not None:
        check_writable(options.submission)


def _tell_score(outcome: Outcome, bar: Progress, as_json: bool) -> None:
    if outcome.status == "failed":
        bar.line(f"tamis: {outcome.error}")
    bar.wipe()
    if as_json:
        line = {
            "input": outcome.item.source,  # what every batch calls it
            "slide": outcome.item.source,
            "output": str(outcome.item.output.parent),
            "status": outcome.status,
            "error": outcome.error,
            **outcome.result,
        }
        print(json.dumps(line, ensure_ascii=False), flush=True)
    elif outcome.status == "done":
        found = outcome.result
        print(
            f"{outcome.item.source}: mitotic score {found['mitotic_score']}, {found['count']} mitoses in the hot spot, "
            f"{found['mitoses_per_mm2']:.1f} per mm2; {outcome.item.output.parent / 'report.html'}",
            flush=True,
        )


# evaluate

_EVALUATE = """Scores submissions to TUPAC16's three tasks. TRUTH and PREDICTIONS are a table of scores (two columns
without ids as the challenge asked, or named columns slide, mitotic_score, pam50_proliferation), a table of mitoses
(image, row, col or x_um, y_um), what `detect --json` printed, or a folder with one CSV an image (05/01.csv: row,col).
A folder of such submissions gives a leaderboard."""


def _add_evaluate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("truth", type=Path, metavar="TRUTH", help="a table of scores, or a folder")
    parser.add_argument(
        "predictions", nargs="+", type=Path, metavar="PREDICTIONS", help="submissions, or a folder of them"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON record")
    parser.add_argument(
        "--tupac-compat",
        action="store_true",
        help="task 2 with the intervals that the challenge printed: one standard error, about 68 %%",
    )
    parser.add_argument(
        "--surplus",
        choices=("false-positive", "ignore"),
        default="false-positive",
        help="further detections of a mitosis that is hit already (default: %(default)s)",
    )
    parser.add_argument(
        "--threshold", type=probability, metavar="P", help="leave out detections less confident"
    )
    parser.add_argument(
        "--mpp",
        type=um_per_px,
        default=0.25,
        metavar="UM",
        help="um per pixel of row and col (default: 0.25)",
    )
    parser.add_argument(
        "--interval",
        choices=("formula", "bootstrap"),
        default="formula",
        help="of kappa: Fleiss, Cohen & Everitt, or BCa over slides (default: %(default)s; the table shows both)",
    )
    parser.add_argument(
        "--figure", type=figure, metavar="FILE", help="draw the values with their intervals: .png, .svg, .pdf"
    )
    parser.set_defaults(run=_evaluate, extra=EXTRA)


def _evaluate(options: argparse.Namespace) -> int:
    from tamis.proliferation import leaderboard
    from tamis.proliferation.evaluate import Options

    board = leaderboard.judge(
        options.truth,
        options.predictions,
        Options(
            surplus=options.surplus,
            threshold=options.threshold,
            tupac_compat=options.tupac_compat,
            bootstrap_kappa=options.interval == "bootstrap",
        ),
        options.mpp,
    )
    for sentence in board.failures + board.notes:
        print(f"tamis: {sentence}", file=sys.stderr)
    if board.evaluations:
        if options.json:
            print(json.dumps(leaderboard.as_json(board), ensure_ascii=False))
        else:
            print("\n".join(leaderboard.as_lines(board)))
        if options.figure:
            leaderboard.draw(board, options.figure)
    return 1 if board.failures else 0


# train, demo


_TRAIN = """Fits a model of both scores to slides, for whoever holds TUPAC16 in its own layout.

    tamis proliferation train training_ground_truth.csv slides/ -o work/tupac16 --jobs 2
    tamis proliferation score other/ -o results --model work/tupac16/svm.tupac16.json

With --auxiliary IMAGES LABELS the mitosis detector itself is trained first, on the auxiliary set in its own layout
(DIR/detector); that takes hours. Slides are then scored with the detector, as a batch (DIR/slides), and their 21 features
are what the machines are fitted to. With --results, slides that are scored already are taken. All of it goes on where it was
stopped."""


def _add_train(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "truth", type=Path, metavar="TRUTH", help="scores: two columns, row n for slide n, or with ids"
    )
    parser.add_argument("slides", nargs="*", metavar="SLIDE", help="slides, folders, patterns or URLs")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="DIR", help="where everything goes"
    )
    parser.add_argument(
        "--results", type=Path, metavar="DIR", help="what `tamis proliferation score` wrote for them"
    )
    parser.add_argument("--name", default="svm.tupac16", help="of the model (default: %(default)s)")
    parser.add_argument(
        "--mpp", type=um_per_px, metavar="UM", help="um per pixel, for slides that do not say"
    )
    parser.add_argument("--detector", type=Path, metavar="DIR", help="weights of another mitosis detector")
    parser.add_argument(
        "--auxiliary",
        nargs=2,
        type=Path,
        metavar=("IMAGES", "LABELS"),
        help="train the mitosis detector on these first",
    )
    parser.add_argument(
        "--jobs", type=number_of_jobs, default=1, metavar="N", help="slides scored at the same time"
    )
    parser.add_argument("--cluster", metavar="ADDRESS", help="score on Ray: local, auto, or ray://HOST:10001")
    parser.add_argument("--seed", type=whole_number, default=0, help="of the folds (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON record")
    parser.set_defaults(run=_train, extra="train", trains=True)


def _train(options: argparse.Namespace) -> int:
    from tamis.proliferation import train

    return train.main(options)


def demo(folder: Path) -> None:
    """Score the bundled phantom: its scores, and its files in `folder`."""
    import numpy as np

    from tamis.proliferation import scoring
    from tamis.proliferation.matching import match

    slide = SAMPLES / "phantom.tif"
    if not slide.exists():
        raise InputError(f"{slide} is missing: the installation is incomplete; install tamis again.")
    (item,) = scoring.plan([str(slide)], folder)
    with Progress(slide.name) as bar:
        found = scoring.work(item, bar, job=scoring.Job())
    scoring.write_table(folder)
    drawn = np.loadtxt(SAMPLES / "phantom.csv", delimiter=",", skiprows=1, usecols=(1, 2), ndmin=2)
    record, marked = (
        json.loads((item.output.parent / name).read_text(encoding="utf-8"))
        for name in ("score.json", "mitoses.geojson")
    )
    points = [m["geometry"]["coordinates"] for m in marked["features"] if m["geometry"]["type"] == "Point"]
    places = np.array(points, float).reshape(-1, 2) * record["provenance"]["um_per_px"]
    hits = match(places, drawn).true_positives
    print(
        f"phantom.tif (drawn, not tissue): mitotic score {found['mitotic_score']}, {found['count']} mitoses, among them "
        f"{hits} of the {len(drawn)} drawn; {found['mitoses_per_mm2']:.1f} per mm2 of its {found['tissue_mm2']:.2f} mm2"
    )
    print(f"written: {item.output.parent / 'report.html'}, score.json, mitoses.geojson, density.ome.tiff")
