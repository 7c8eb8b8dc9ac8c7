"""The whole chain for whoever holds TUPAC16 in its own layout: slides and their scores -> a model of both scores.

    tamis proliferation train training_ground_truth.csv slides/ -o work/tupac16 --jobs 2
    tamis proliferation score other/ -o results --model work/tupac16/svm.tupac16.json

With `--auxiliary IMAGES LABELS` the mitosis detector itself is trained first, on the auxiliary set in its own layout
(`auxiliary.py`; DIR/detector), in the two steps of `train_mitosis`; that takes hours and goes on where it was stopped.

Slides are scored with the detector first, as a batch that goes on where it was stopped (DIR/slides); their 21 features
are then what the machines of `train_score` are fitted to. With `--results`, slides that are scored already are taken.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tamis.agreement import Estimate
from tamis.batch import Outcome
from tamis.errors import InputError, UsageError
from tamis.progress import Progress
from tamis.proliferation import scoring, train_score
from tamis.proliferation.features import NAMES, REGIONS
from tamis.proliferation.submission import Scores, read_truth

Floats = NDArray[np.float64]
COMMAND = "tamis proliferation train"


@dataclass(frozen=True, slots=True)
class Slides:
    """What there is to learn from: a row a slide, in the truth's order."""

    names: list[str]
    features: Floats
    """[n, 21]."""
    mitotic_score: Floats | None
    pam50_proliferation: Floats | None


def main(options: argparse.Namespace) -> int:
    """Returns the exit status: 1 if a slide could not be scored; it is then left out."""
    _check_usage(options)
    truth = read_truth(options.truth).scores
    if truth is None:
        raise InputError(f"{options.truth} holds no scores of slides: a table of tasks 1 and 2 was expected.")
    failed = 0
    results = options.results or options.output / "slides"
    if options.auxiliary:
        images, labels = options.auxiliary
        options.detector = train_detector(images, labels, options.output)
    if options.slides:
        failed = _score(options, results)
    slides = gather(truth, results)
    if (left := len(truth) - len(slides.names)) > 0:
        print(
            f"tamis: {left} of the {len(truth)} rows of {truth.source} have no scored slide.", file=sys.stderr
        )
    machines, estimates, predictions = train_score.train(
        slides.features, slides.mitotic_score, slides.pam50_proliferation, seed=options.seed
    )
    record = train_score.write(
        options.output,
        options.name,
        machines,
        names=NAMES,
        score=_figures(estimates),
        training_data=f"{len(slides.names)} slides with the scores of {options.truth.name}",
        licence="as the training slides allow; TUPAC16: research only",
        command=COMMAND,
    )
    write_scores(options.output / "cross_validated.csv", slides, predictions)
    known = {"mitotic_score": slides.mitotic_score, "pam50_proliferation": slides.pam50_proliferation}
    write_scores(
        options.output / "cross_validated_truth.csv",
        slides,
        {k: c for k, c in known.items() if c is not None},
    )
    if options.json:
        print(json.dumps({"model": str(record), "slides": len(slides.names), **_figures(estimates)}))
    else:
        print("\n".join(_lines(estimates, len(slides.names), record)))
    return 1 if failed else 0


def _check_usage(options: argparse.Namespace) -> None:
    """Before hours of training, and not after them."""
    if options.slides and options.results:
        raise UsageError("Give slides to score, or --results with slides scored already: not both.")
    if not options.slides and not options.results:
        raise UsageError("Give slides to score, or --results with slides scored already.")
    if options.auxiliary and options.detector:
        raise UsageError("--auxiliary trains a detector, and --detector names one: give one of the two.")
    if options.auxiliary and options.results:
        raise UsageError(
            "--auxiliary trains a detector, with which slides are then scored, and --results are scored already: give the "
            "slides themselves."
        )


def train_detector(images: Path, labels: Path, output: Path, *, steps: int | None = None) -> Path:
    """The detector of the auxiliary set, in OUTPUT/detector: sieves, network in two steps, and the threshold of validation.

    steps   of each training, instead of as many as for the published detector
    """
    from tamis.proliferation import auxiliary, publish_mitosis, train_candidates, train_glance, train_mitosis
    from tamis.proliferation.detect import NETWORK

    data, work, detector = output / "auxiliary", output / "mitosis", output / "detector"
    if (detector / f"{NETWORK}.json").exists():
        return detector
    if not (data / "mitosis_amibr" / "mitoses.csv").exists():
        auxiliary.cut(images, labels, data)
    places = ["--work", str(work), "--data", str(data)]
    few = [] if steps is None else ["--steps", str(steps)]
    train_candidates.main(places)
    for stage in ("first", "mine", "second"):
        train_mitosis.main([stage, *places, *few])
    train_glance.main([*places, *few])
    detector.mkdir(parents=True, exist_ok=True)
    publish_mitosis.main([*places, "--to", str(detector)])
    return detector


def _score(options: argparse.Namespace, folder: Path) -> int:
    """Score the slides, resuming. Returns how many failed."""
    items = scoring.plan(scoring.inputs(options.slides), folder)
    job = scoring.Job({"detector": options.detector}, options.mpp)
    with Progress(f"{len(items)} slides" if len(items) > 1 else items[0].input.name) as bar:

        def tell(outcome: Outcome) -> None:
            if outcome.status == "failed":
                bar.line(f"tamis: {outcome.error}")

        outcomes = scoring.score_all(
            items,
            job,
            folder,
            jobs=options.jobs,
            cluster=options.cluster,
            resume=True,
            on_outcome=tell,
            progress=bar,
        )
    return sum(outcome.status == "failed" for outcome in outcomes)


def gather(truth: Scores, results: Path) -> Slides:
    """The features of every slide that has both a score and a record. Raises InputError where there is none.

    A truth without ids is matched by the number at the end of a slide's name: row 7 is TUPAC-TR-007.
    """
    records: dict[str, Mapping[str, Any]] = {}
    for path in scoring.records(results):
        key = path.parent.name
        if truth.ids is None:
            number = re.search(r"\d+$", key)
            if number is None:
                raise InputError(
                    f"{path.parent.name} has no number at its end, and {truth.source} has no names."
                )
            key = str(int(number[0]))
        if key in records:
            raise InputError(
                f"{results} holds two slides with the number {key}: {path.parent.name} is the second."
            )
        records[key] = _record(path)
        _refuse_few_regions(path, records[key])
    ids = truth.ids or tuple(str(n) for n in range(1, len(truth) + 1))
    rows = [n for n, name in enumerate(ids) if name in records]
    if not rows:
        raise InputError(
            f"No slide in {results} has a row in {truth.source}: name both alike, or number them."
        )
    features = np.array([[records[ids[n]]["features"][name] for name in NAMES] for n in rows])
    columns = (c if c is None else c[rows] for c in (truth.mitotic_score, truth.pam50_proliferation))
    return Slides([ids[n] for n in rows], features, *columns)


def _refuse_few_regions(path: Path, record: Mapping[str, Any]) -> None:
    """Mitoses were not looked for in all the regions that the features describe."""
    regions = record.get("provenance", {}).get("settings", {}).get("regions", REGIONS)
    if record.get("whole_tissue_searched") is False and regions < REGIONS:
        raise InputError(
            f"{path}: {regions} regions were searched, and the features describe {REGIONS}: score the slide again without "
            "--regions."
        )


def _record(path: Path) -> Mapping[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        [float(record["features"][name]) for name in NAMES]
    except (ValueError, LookupError, TypeError):
        raise InputError(
            f"{path} is no record with the {len(NAMES)} features of a slide: remove it, or score the slide again."
        ) from None
    return record


def write_scores(path: Path, slides: Slides, columns: Mapping[str, Floats]) -> None:
    """A row a slide, of scores by machines that had not seen it or of the truth: `tamis proliferation evaluate` takes both."""
    from tamis.writing import replacing

    lines = [",".join(["slide", *columns])]
    for n, name in enumerate(slides.names):
        lines.append(",".join([name, *(f"{column[n]:.6g}" for column in columns.values())]))
    with replacing(path) as beside:
        beside.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _figures(estimates: Mapping[str, Estimate]) -> dict[str, Any]:
    metrics = {"task1": "kappa", "task2": "spearman"}
    return {
        task: {metrics[task]: round(e.value, 4), "low": _known(e.low), "high": _known(e.high), "n": e.n}
        for task, e in estimates.items()
    }


def _known(end: float) -> float | None:
    """JSON has no NaN: null where there is no interval."""
    return None if math.isnan(end) else round(end, 4)


def _lines(estimates: Mapping[str, Estimate], slides: int, record: Path) -> list[str]:
    names = {"task1": "mitotic score, quadratic kappa", "task2": "PAM50 proliferation, Spearman"}
    lines = [f"{slides} slides, nested cross-validation"]
    lines += [f"  {names[task]:<34} {e.value:.3f} {e.interval()}" for task, e in estimates.items()]
    return [*lines, f"written: {record}"]
